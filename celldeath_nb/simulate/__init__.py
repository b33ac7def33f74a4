"""A simulated microscope whose truth is known."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module

_rooms = {
    'microscope': ['cell_lines', 'designs', 'drug_strength', 'nuisance_none', 'nuisance_plate', 'nuisance_spread',
        'read_truth', 'simulate_experiment', 'simulate_field', 'um_per_px_evos'],
    'planted': ['plant_cells'],
    'samples': ['DESIGNS', 'download', 'sample_data'],
    'stains': ['simulate_stains', 'stain_camera', 'stain_experiment', 'stain_marks'],
    'toys': ['Drawn'],
    'tubes': ['DYES', 'MARKERS', 'POPULATIONS', 'SPILL', 'death_shares', 'simulate_tube', 'simulate_tubes', 'write_fcs',
        'write_tubes'],
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
