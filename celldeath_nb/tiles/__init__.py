"""Fields become tiles that load fast and are split without leaks."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'cut': ['add_photographs', 'cut_tiles'],
    'layout': ['cut_like', 'fit_grid'],
    'places': ['find_near_duplicates', 'group_by_place'],
    'remedies': ['SeenThrough', 'as_recorded', 'background_only', 'gray_table', 'normalize_fields', 'painted_over',
        'remedies_of'],
    'splits': ['check_leaks', 'hold_out', 'k_fold', 'keep_split', 'label_by', 'leave_one_out', 'split_as_paper',
        'split_by', 'split_summary'],
    'store': ['Tiles', 'open_tiles'],
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
