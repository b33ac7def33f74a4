"""Wells, doses and hours."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'agreement': ['Agreement', 'agree', 'plot_agreement'],
    'curves': ['Curve', 'effective_dose', 'fit_curve', 'fit_curves'],
    'doses': ['dose_response', 'plot_dose_response'],
    'hours': ['detection_times', 'kinetics', 'plot_detection', 'plot_kinetics'],
    'layouts': ['layout_plate', 'write_layout'],
    'maps': ['guess_wells', 'parse_dose', 'parse_well', 'plate_shape', 'read_plate_map', 'well_name'],
    'plans': ['plan_experiment', 'plan_sentence', 'plot_plan', 'variance_components'],
    'plates': ['export_profiles', 'plate_luck', 'plot_plate', 'simulate_plate_scores', 'well_scores'],
    'quality': ['plate_quality', 'wells_to_repeat'],
    'sheets': ['answer_plate', 'write_plate'],
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
