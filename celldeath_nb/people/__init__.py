"""Blind trials, and people beside networks."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'compare': ['Comparison', 'agreement_table', 'change_table', 'compare_deciders', 'consistency_table',
        'decider_table', 'fleiss_kappa', 'group_pair_table', 'group_table', 'kappa', 'missed_table', 'mixed_table',
        'pair_table', 'poisson_binomial', 'signal_detection', 'tile_table'],
    'figures': ['plot_class', 'plot_consistency', 'plot_deciders', 'plot_tiles'],
    'judging': ['CANNOT_TELL', 'JUDGEMENT_COLUMNS', 'from_predictions', 'judgements', 'read_judgements',
        'simulate_observer'],
    'plans': ['TrialPlan', 'binomial_power', 'detectable', 'plan_trial', 'plot_power'],
    'trials': ['TrainingGallery', 'Trial'],
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
