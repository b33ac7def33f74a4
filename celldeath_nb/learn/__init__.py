"""Tiles become a network, a run folder, predictions."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'embeddings': ['embed'],
    'engines': ['Engine'],
    'exported': ['Exported', 'open_exported'],
    'exports': ['export', 'nobody_named'],
    'learner': ['find_rate', 'make_learner'],
    'loaders': ['make_dls'],
    'models': ['Model', 'load_model'],
    'nets': ['as_input', 'best_device', 'make_net'],
    'pace': [],
    'prediction': ['predict'],
    'probes': ['probe'],
    'recipes': ['Recipe', 'fit_batch'],
    'reference': ['NUMBERS', 'Reference', 'fit_reference', 'image_numbers'],
    'runs': ['Run', 'environment', 'open_run', 'open_runs'],
    'sittings': ['NoNumber'],
    'suggestions': ['Suggestion', 'suggest_recipe'],
    'told': [],
    'training': ['expected_seconds', 'repeat', 'train'],
    'weights': ['installed_weights', 'origin_said', 'weights_origin'],
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
