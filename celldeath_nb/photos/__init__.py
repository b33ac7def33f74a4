"""Photographs on disk become a table of fields."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'amounts': ['read_amount'],
    'apart': ['Ended'],
    'classes': ['control_words'],
    'conventions': [],
    'fields': ['explain_names', 'list_images', 'read_fields'],
    'joins': ['read_table'],
    'microscopes': [],
    'names': ['line_names', 'parse_name', 'parts_of_name', 'treatment_names'],
    'pictures': ['scale_bar', 'show_fields'],
    'pixels': ['BadFile', 'MAX_SCANS', 'Photo', 'StopWork', 'channels', 'image_exts', 'max_bytes', 'vendor_exts',
        'zarr_ext'],
    'quality': ['cell_area', 'field_quality', 'leave_out', 'quality_outliers', 'show_outliers'],
    'reading': ['read_header', 'read_image', 'read_photo'],
    'tiffs': [],
    'trees': [],
    'windows': ['BEYOND'],
    'zarrs': ['FLOOR', 'unpackers'],
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
