"""What the paper's other bench measured."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'arms': ['compare_arms', 'p_text', 'plot_distributions', 'plot_superplot'],
    'fcs': ['guess_tubes', 'read_fcs', 'read_tubes'],
    'flow': ['QUADRANTS', 'compare_quadrants', 'plot_controls', 'plot_quadrants', 'quadrant_gates', 'quadrants'],
    'gates': ['gate_cells', 'gate_singlets'],
    'nuclei': ['count_foci', 'guess_scale', 'match_nuclei', 'measure_nuclei', 'segment_nuclei', 'show_nuclei'],
    'sheets': ['answer_nuclei', 'answer_tubes', 'whole_nuclei', 'write_nuclei_page', 'write_tubes_page'],
    'spill': ['compensate', 'scale', 'single_cells', 'spillover'],
    'stained': ['PAPER_PATTERN', 'read_channel', 'read_channels'],
}
_room_of = {name: room for room, names in _rooms.items() for name in names}
_parts = {room.split('.')[0] for room in _rooms}
__all__ = sorted(_room_of)


def __getattr__(name):
    "A room is imported when one of its names is asked for."
    if name in _room_of: return getattr(import_module(f'{__name__}.{_room_of[name]}'), name)
    if name in _parts: return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__(): return sorted({*__all__, *_parts, *(o for o in globals() if o.startswith('__'))})
