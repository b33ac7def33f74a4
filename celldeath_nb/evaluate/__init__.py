"""Predictions become numbers with intervals, and figures."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'figures': ['FIXED_COLORS', 'PALETTE', 'best_epoch', 'class_colors', 'gallery', 'plot_confusion', 'plot_history',
        'sorted_verdicts', 'turning_point', 'worst_tiles'],
    'intervals': ['SHARES', 'wilson'],
    'preds': ['COMBINE', 'CONTROLS', 'as_preds', 'to_level'],
    'scores': ['Metrics', 'collapse', 'confusion', 'metrics', 'report_table'],
    'thresholds': ['Threshold', 'apply_temperature', 'apply_threshold', 'calibrate', 'calibration_table',
        'choose_threshold', 'coverage_table', 'operating_point', 'plot_calibration', 'plot_coverage'],
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
