"""The first cells for Google Colab, in every lesson, how-to and notebook of the paper.  python nbs/make_colab.py [--check] [NOTEBOOK ...]

A badge that opens that notebook at the tag of this version, and one cell that installs the package where it is missing. The project's home is one
setting, `home` in settings.ini; while it is unset, the badge and the cell say what to put there. The one line that names the reader's folder,
`own = ''`, becomes a field of a form.
"""

import json, re, sys
from configparser import ConfigParser
from pathlib import Path

nbs = Path(__file__).resolve().parent
folders = ('tutorials', 'howto', 'paper')
place = 2  # behind the title and the introduction
badge_is = 'https://colab.research.google.com/assets/colab-badge.svg'
title = '# @title Install'
opening = '**In Google Colab**:'
folded = dict(cellView='form', jupyter=dict(source_hidden=True))

install = '''{title}
# Does nothing where {package} is installed. Else it takes a wheel beside this notebook, or what `address`
# names: a release (celldeath_nb=={version}), or where a wheel or the repository is (https://, git+https://, file:///).
import importlib.util
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

address = {address!r}  # @param {{type:"string"}}
package = {package!r}
needs = {modules}
if any(importlib.util.find_spec(o) is None for o in needs):
    beside = sorted(o.resolve().as_uri() for o in Path().glob('celldeath_nb-*.whl'))
    if not (beside or address):
        raise ModuleNotFoundError(
            f'{{package}} is not installed. Put its wheel beside this notebook, or write into `address` where it is.'
        )
    where = (beside or [address])[-1]
    what = f'{{package}} @ {{where}}' if '://' in where else where.replace('celldeath_nb', package, 1)
    stays = ('torch', 'numpy', 'ipywidgets', 'protobuf', 'pydantic')  # other programs rely on these
    stays = [f'{{o.name}}=={{o.version}}' for o in distributions() if o.name in stays]
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', what, *stays], check=True)
    importlib.invalidate_caches()'''

homeless = (
    f'{opening} upload this notebook (*File, Upload notebook*) and the wheel of `celldeath_nb`; the next cell installs what lies beside it. '
    'A button that opens this page there stands here as soon as `home` in `settings.ini` names the address of the project.'
)


def settings(root):
    "The package's metadata."
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root / 'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def badge(cfg, name):
    "What stands above the cell in the notebook `name`, a path below nbs."
    if not cfg.get('home'):
        return homeless
    repository = re.sub(r'^https://github\.com/|/$', '', cfg['home'])
    page = f'https://colab.research.google.com/github/{repository}/blob/v{cfg["version"]}/nbs/{name}'
    return f'{opening} [![Open In Colab]({badge_is})]({page}) The next cell installs the package there; where it is installed, it does nothing.'


def address(cfg):
    "Where the wheel of this version is: beside the notes of its release."
    if not cfg.get('home'):
        return ''
    version = cfg['version']
    return f'{cfg["home"].rstrip("/")}/releases/download/v{version}/celldeath_nb-{version}-py3-none-any.whl'


def extra_of(others):
    "The extra that a notebook needs, as its introduction says; '' if none."
    said = ''.join(others[1]['source']) if len(others) > 1 else ''
    found = re.search(r'\*\*What you need\*\*:[^*]*?celldeath_nb\[(\w+)\]', said)
    return found.group(1) if found else ''


def modules(cfg, extra):
    "What an extra brings, as it is imported."
    return [re.split('[<>=~!]', o)[0].strip().replace('-', '_') for o in cfg[f'{extra}_requirements'].split()]


def cells(cfg, name, extra=''):
    "The two cells of the notebook `name`, which needs an extra of the package or none."
    package = f'celldeath_nb[{extra}]' if extra else 'celldeath_nb'
    code = install.format(
        title=title,
        version=cfg['version'],
        address=address(cfg),
        package=package,
        modules=['celldeath_nb', *(modules(cfg, extra) if extra else ())],
    )
    lines = lambda src: src.splitlines(keepends=True)
    return [
        dict(cell_type='markdown', id='colab-badge', metadata={}, source=lines(badge(cfg, name))),
        dict(
            cell_type='code', execution_count=None, id='colab-install', metadata=folded, outputs=[], source=lines(code)
        ),
    ]


def is_ours(cell):
    "A cell that was made here, or one by hand that does the same."
    src = ''.join(cell['source']).lstrip()
    by_hand = re.fullmatch(r'(#\|.*\n)*[!%]pip install .*celldeath_nb.*', src.strip())
    return src.startswith((title, opening)) or bool(by_hand)


def form(cell):
    "The cell, with a field where it asks for the reader's folder; a hint behind the line goes above it."
    if cell['cell_type'] == 'code':
        hint = lambda m: (f'# {m.group(1)}\n' if m.group(1) else '') + 'own = \'\'  # @param {type:"string"}'
        src = re.sub(r"^own = ''(?: *#(?! *@param) *(.*))?$", hint, ''.join(cell['source']), flags=re.M)
        cell = dict(cell, source=src.splitlines(keepends=True))
    return cell


def made(cfg, name, text):
    "The text of a notebook with its first cells as they should be."
    nb = json.loads(text)
    others = [form(o) for o in nb['cells'] if not is_ours(o)]
    nb['cells'] = [*others[:place], *cells(cfg, name, extra_of(others)), *others[place:]]
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n'


def stale(root, paths=()):
    "Path and new text of each notebook whose first cells are not what they should be."
    cfg = settings(root)
    paths = paths or sorted(o for f in folders for o in (root / 'nbs' / f).glob('*.ipynb'))
    texts = {o: made(cfg, o.relative_to(root / 'nbs').as_posix(), o.read_text(encoding='utf-8')) for o in paths}
    return {o: text for o, text in texts.items() if json.loads(o.read_text(encoding='utf-8')) != json.loads(text)}


if __name__ == '__main__':
    given = [Path(o).resolve() for o in sys.argv[1:] if not o.startswith('--')]
    found = stale(nbs.parent, given)
    if '--check' not in sys.argv:
        for o, text in found.items():
            o.write_text(text, encoding='utf-8')
    elif found:
        sys.exit('\n'.join(f'{o.relative_to(nbs.parent)} is stale: run python nbs/make_colab.py' for o in found))
