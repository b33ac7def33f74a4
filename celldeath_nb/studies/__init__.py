"""Many runs, and the paper's numbers."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'curves': ['PowerLaw', 'fit_power_law', 'learning_curve', 'plot_learning_curve'],
    'figures': ['paper_figure', 'show_panel'],
    'published': ['AuthorRecords', 'Check', 'SPREADS', 'author_leak', 'author_records', 'beside_claim',
        'binomial_scatter', 'check_claims', 'claims', 'errors_make', 'grim', 'grimmer', 'plot_beside', 'printing_limit',
        'samuelson', 'whole_parts'],
    'queue': ['RayExecutor', 'Rehearsal', 'Results', 'open_results', 'run_settings'],
    'results': ['claim_table', 'leave_one_out_table', 'paper_table', 'results_table', 'spread_of'],
    'settings': ['FIXED_SECONDS', 'LINES', 'SCALES', 'budget', 'check_settings', 'paper_settings', 'run_flop',
        'scale_settings', 'setting_recipe', 'setting_tiles'],
    'shards': ['predict_shards'],
    'whole': ['Paper', 'whole_paper'],
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
