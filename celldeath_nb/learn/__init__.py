"""Tiles become a network, a run folder, predictions."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'embeddings': ['embed'],
    'engines': ['Engine', 'check_engine', 'fold_norms'],
    'exported': ['Exported', 'check_onnx', 'open_exported'],
    'exports': ['export', 'nobody_named'],
    'learner': ['fast_half', 'find_rate', 'make_learner', 'precision_on'],
    'loaders': ['flip_turn', 'make_dls', 'relight'],
    'models': ['Model', 'load_model', 'save_model'],
    'nets': ['as_input', 'best_device', 'check_arch', 'make_net', 'shrink'],
    'pace': ['best_count', 'thread_counts', 'time_threads', 'with_threads'],
    'prediction': ['gray_range', 'predict', 'tile_grays'],
    'probes': ['probe'],
    'recipes': ['Recipe', 'fit_batch'],
    'reference': ['NUMBERS', 'Reference', 'fit_reference', 'image_numbers'],
    'runs': ['Run', 'environment', 'open_run', 'open_runs'],
    'sittings': ['NoNumber'],
    'suggestions': ['Suggestion', 'suggest_recipe'],
    'told': [],
    'training': ['expected_seconds', 'repeat', 'train'],
    'weights': ['cache_folder', 'installed_weights', 'origin_said', 'weights_origin'],
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
