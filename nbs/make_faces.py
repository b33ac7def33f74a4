"""The faces of the package: every public name, from its wing and from the top, imported when it is asked for.  python nbs/make_faces.py [--check]"""

import ast, sys
from configparser import ConfigParser
from pathlib import Path
from textwrap import fill

root = Path(__file__).parents[1]
top = 'Image classification for the cell-biology lab, and whether its numbers can be believed.'
wings = {
    'simulate': 'A simulated microscope whose truth is known.',
    'photos': 'Photographs on disk become a table of fields.',
    'tiles': 'Fields become tiles that load fast and are split without leaks.',
    'evaluate': 'Predictions become numbers with intervals, and figures.',
    'learn': 'Tiles become a network, a run folder, predictions.',
    'people': 'Blind trials, and people beside networks.',
    'assays': "What the paper's other bench measured.",
    'plates': 'Wells, doses and hours.',
    'trust': 'Whether to believe it.',
    'studies': "Many runs, and the paper's numbers.",
}
# the command and the lessons' star repeat names that have a home elsewhere, so they stand in no face
roof = ('cli', 'all')

face = '''"""{doc}"""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module
{version}_rooms = {{
{rooms}
}}
_room_of = {{name: room for room, names in _rooms.items() for name in names}}
_parts = {{room.split('.')[0] for room in _rooms}}
__all__ = sorted(_room_of)


def __getattr__(name):
    "A room is imported when one of its names is asked for."
    if name in _room_of: return getattr(import_module(f'{{__name__}}.{{_room_of[name]}}'), name)
    if name in _parts: return import_module(f'{{__name__}}.{{name}}')
    raise AttributeError(f'module {{__name__!r}} has no attribute {{name!r}}')


def __dir__(): return sorted({{*__all__, *_parts, *(o for o in globals() if o.startswith('__'))}})
'''

# what libraries tell their programmers, and readers cannot change: silenced here and nowhere else
quiet = """import warnings

warnings.filterwarnings('ignore', r'`torch\\.jit\\.\\w+` is (deprecated|not supported)')
"""


def exports(path):
    "The names in `__all__` of the module at `path`, which is read and not run."
    for o in reversed(ast.parse(path.read_text(encoding='utf-8')).body):
        if isinstance(o, ast.Assign) and ast.unparse(o.targets[0]) == '__all__':
            return ast.literal_eval(o.value)
    return []


def rooms(pkg):
    "Every module of the package by its dotted name, with the names that it exports."
    files = [o for o in sorted(pkg.rglob('*.py')) if not o.name.startswith('_')]
    dotted = {'.'.join(o.relative_to(pkg).with_suffix('').parts): o for o in files}
    return {room: [] if room in roof else sorted(exports(o)) for room, o in dotted.items()}


def clashes(rooms):
    "What keeps a name from meaning one thing: two rooms that export it, or a room or a wing that is called so."
    homes = {}
    for room, names in rooms.items():
        for name in names:
            homes.setdefault(name, []).append(room)
    parts = {part: room for room in rooms for part in room.split('.')}
    two = [
        f'{name} is exported by {" and by ".join(at)}: rename one of them' for name, at in homes.items() if len(at) > 1
    ]
    same = [
        f'{parts[o]} bears the name of {o}, which {homes[o][0]} exports: rename the room' for o in homes if o in parts
    ]
    return sorted(two) + sorted(same)


def shown(rooms):
    "The dictionary of rooms, as lines of at most 120 characters."
    listed = [f"    '{room}': [{', '.join(map(repr, names))}]," for room, names in rooms.items()]
    return '\n'.join(fill(o, 120, subsequent_indent=' ' * 8, break_on_hyphens=False) for o in listed)


def faces(root):
    "Path and text of each face of the package in `root`."
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root / 'settings.ini', encoding='utf-8')
    version = f'{quiet}__version__ = "{cfg["DEFAULT"]["version"]}"\n'
    pkg = root / 'celldeath_nb'
    found = rooms(pkg)
    if said := clashes(found):
        sys.exit('\n'.join(said))
    res = {pkg / '__init__.py': face.format(doc=top, version=version, rooms=shown(found))}
    for wing in sorted({o.split('.')[0] for o in found if '.' in o}):
        if wing not in wings:
            sys.exit(f'{wing} is no wing that nbs/make_faces.py knows: say there in one sentence what it is for')
        own = {o.split('.', 1)[1]: names for o, names in found.items() if o.startswith(f'{wing}.')}
        res[pkg / wing / '__init__.py'] = face.format(doc=wings[wing], version='\n', rooms=shown(own))
    return res


if __name__ == '__main__':
    stale = {o: text for o, text in faces(root).items() if not o.exists() or o.read_text(encoding='utf-8') != text}
    if '--check' not in sys.argv:
        for o, text in stale.items():
            o.write_text(text, encoding='utf-8')
    elif stale:
        sys.exit('\n'.join(f'{o.relative_to(root)} is stale: run python nbs/make_faces.py' for o in stale))
