"""Whether to believe it."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'audits': ['Audit', 'audit'],
    'chance': ['FEW', 'chance_verdict', 'groups_that_tell'],
    'checks': ['Trust', 'cell_share', 'deletion_insertion', 'plot_deletion', 'plot_trust', 'pointing_game',
        'randomization_check', 'segmentation_dice', 'shuffle_labels', 'stability'],
    'conformal': ['METHODS', 'abstention_table', 'conformal_sets', 'plot_abstention', 'well_calls'],
    'confounders': ['Findings', 'confounding', 'cramers_v', 'v_interval'],
    'controls': ['negative_controls', 'train_cheap'],
    'findings': ['Kept'],
    'labels': ['SUREST', 'out_of_fold', 'suspected_labels'],
    'lines': ['LEAST', 'OwnLine', 'own_line'],
    'maps': ['Cams', 'cam', 'save_cams', 'show_cams'],
    'masks': ['dice', 'segment_cells', 'tile_masks'],
    'shift': ['novelty', 'odd_photographs', 'plot_novelty'],
    'shortcuts': ['compare_remedies', 'plot_shortcuts', 'shortcut_baseline', 'shortcut_features'],
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
