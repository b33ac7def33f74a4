"""Image classification for the cell-biology lab, and whether its numbers can be believed."""
__version__ = "0.1.0"
