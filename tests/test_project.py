"The repository agrees with itself: metadata, README, floors of the house, what stands in the wheel."

import ast, json, os, re, shutil, subprocess, sys, zipfile
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from runpy import run_path

import pytest


root = Path(__file__).parents[1]
pkg = root / 'celldeath_nb'


def settings():
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root / 'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def test_readme_is_made_from_the_home_page():
    res = subprocess.run([sys.executable, root / 'nbs' / 'make_readme.py', '--check'], capture_output=True, text=True)
    assert res.returncode == 0, res.stderr


def test_a_stale_readme_is_noticed(tmp_path):
    (tmp_path / 'nbs').mkdir()
    for f in ('make_readme.py', 'index.ipynb'):
        (tmp_path / 'nbs' / f).write_bytes((root / 'nbs' / f).read_bytes())
    (tmp_path / 'README.md').write_text((root / 'README.md').read_text(encoding='utf-8') + 'by hand', encoding='utf-8')
    res = subprocess.run(
        [sys.executable, tmp_path / 'nbs' / 'make_readme.py', '--check'], capture_output=True, text=True
    )
    assert res.returncode == 1 and 'stale' in res.stderr


def test_one_version():
    from celldeath_nb import __version__

    assert __version__ == settings()['version']
    cited = (root / 'CITATION.cff').read_text(encoding='utf-8')
    assert re.search(r'^version: (.*)', cited, re.M).group(1) == __version__


def test_requirements_are_lower_bounds():
    for line in settings()['requirements'].split():
        assert re.fullmatch(r'[\w-]+>=[\d.]+', line), line


def requirement(line):
    return re.split(r'[=<>]+', line)


# not in the list of what Colab has, and upgrading nothing there: isal has no requirements of its own; the others come with scikit-learn and pooch, which
# are in the list, and are asked for in no newer version than these ask for
beside = {'isal', 'joblib', 'threadpoolctl', 'requests'}


def test_requirements_admit_colab():
    "Every bound is met by what Colab has installed, so that nothing there is upgraded."
    colab = dict(o.lower().split('==') for o in (root / 'tests' / 'colab-constraints.txt').read_text().split())
    num = lambda v: [int(o) for o in v.split('.')]
    for line in settings()['requirements'].split():
        name, low = requirement(line)
        if name in beside:
            continue
        assert name.lower() in colab, f'{name} is not on Colab: it would be installed there'
        assert num(colab[name.lower()]) >= num(low), f'{line} would upgrade {colab[name.lower()]} on Colab'


# ---- the house: floors from the ground up, and doors that all may use

floors = 'files units png pages, simulate photos, tiles evaluate, learn people assays plates, trust, studies, report lessons, referee, road, cli panels, all'
floor = {wing: i for i, wings in enumerate(floors.split(', ')) for wing in wings.split()}


def order(api):
    "Modules from the ground up, by the numbers of their notebooks in the folder `api`."
    books = [o.stem.split('_', 1) for o in api.glob('*.ipynb')]
    return [module for number, module in sorted(books, key=lambda o: (int(o[0]), o[1]))]


def modules(pkg):
    "Every module of the package in the folder `pkg`, by its dotted name; faces are none."
    files = [o for o in sorted(pkg.rglob('*.py')) if not o.stem.startswith('_')]
    return {'.'.join(o.relative_to(pkg).with_suffix('').parts): o for o in files}


def wing(module):
    "The wing in which a module lies; the ground is one."
    first = module.split('.')[0]
    return 'ground' if floor.get(first) == 0 else first


def private(name):
    return name.startswith('_') and not name.endswith('_')


def named(node, module, known):
    "What an import statement in `module` names of the package: its module, the name in it (or None) and what it is called from then on."
    if isinstance(node, ast.Import):
        found = [(o.name, None, o.asname or o.name) for o in node.names]
    else:
        up = ['celldeath_nb', *module.split('.')][: -node.level] if node.level else []
        base = '.'.join([*up, *filter(None, [node.module])])
        found = [(base, o.name, o.asname or o.name) for o in node.names]
    for base, name, called in found:
        if base.split('.')[0] == 'celldeath_nb':
            base = base.partition('.')[2]
            inner = '.'.join(filter(None, [base, name]))
            yield (inner, None, called) if inner in known else (base, name, called)


def imports(path, module, known):
    "What the file at `path` imports from the package: at its top, inside functions, by `import_module`, and through the package itself."
    tree = ast.parse(path.read_text(encoding='utf-8'))
    calls = [o for o in ast.walk(tree) if isinstance(o, ast.Call) and ast.unparse(o.func).endswith('import_module')]
    told = [a.value for o in calls for a in o.args[:1] if isinstance(a, ast.Constant)]
    late = [(o.partition('.')[2], None, o) for o in told if o.split('.')[0] == 'celldeath_nb']
    stated = [o for o in ast.walk(tree) if isinstance(o, (ast.Import, ast.ImportFrom))]
    found = late + [o for node in stated for o in named(node, module, known)]
    top = {called for base, name, called in found if not base and name is None}
    reached = [o for o in ast.walk(tree) if isinstance(o, ast.Attribute) and ast.unparse(o.value) in top]
    return [o for o in found if o[2] not in top] + [('', o.attr, ast.unparse(o)) for o in reached]


def ways(pkg):
    "Module to imported modules, and what was said on the way: imports through a face hide the room that is meant."
    known = modules(pkg)
    graph, said = {}, []
    for module, path in known.items():
        found = [o for o in imports(path, module, known) if not (o[1] or '').startswith('__')]
        graph[module] = {room for room, _, _ in found} & set(known)
        said += [
            f'{module} imports {name or "all"} from {room or "the top"}, which is no room'
            for room, name, _ in found
            if room not in known
        ]
    return graph, said


def runs_up(pkg):
    "Imports from another wing of the same floor or of one above, at the top of a module or inside a function."
    graph, said = ways(pkg)
    said += [f'{o} lies in no wing of the house' for o in graph if o.split('.')[0] not in floor]
    at = {o: floor.get(o.split('.')[0], -1) for o in graph}
    return said + [
        f'{o} imports {p}' for o, ps in graph.items() for p in sorted(ps) if wing(o) != wing(p) and at[p] >= at[o]
    ]


def circle(pkg):
    "Modules that import each other in a circle, if there are any."
    try:
        TopologicalSorter(ways(pkg)[0]).prepare()
    except CycleError as e:
        return ' imports '.join(reversed(e.args[1]))


def private_names(tree):
    "Private names that a module makes: its own, and those of its classes and of what it sets on objects."
    made = [o.name for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    made += [o.id for o in ast.walk(tree) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)]
    made += [o.attr for o in ast.walk(tree) if isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store)]
    made += [o.arg for o in ast.walk(tree) if isinstance(o, ast.arg)]
    return set(filter(private, made))


def back_doors(pkg):
    "Private names of one module that another imports, or reaches through the module or through an object of it."
    known = modules(pkg)
    trees = {o: ast.parse(path.read_text(encoding='utf-8')) for o, path in known.items()}
    made = {o: private_names(tree) for o, tree in trees.items()}
    said = []
    for module, tree in trees.items():
        found = imports(known[module], module, known)
        said += [f'{module} imports {name} from {room}' for room, name, _ in found if name and private(name)]
        called = {called for room, name, called in found if name is None}
        reached = [(ast.unparse(o.value), o.attr) for o in ast.walk(tree) if isinstance(o, ast.Attribute)]
        asked = [
            o
            for o in ast.walk(tree)
            if isinstance(o, ast.Call) and ast.unparse(o.func) == 'getattr' and len(o.args) > 1
        ]
        reached += [(ast.unparse(o.args[0]), o.args[1].value) for o in asked if isinstance(o.args[1], ast.Constant)]
        for of, name in {o for o in reached if private(o[1])}:
            others = [o for o in known if o != module and name in made[o]]
            if of in called or (others and name not in made[module]):
                said.append(f'{module} reaches {of}.{name}' + (f', which {others[0]} makes' if others else ''))
    return sorted(said)


def homes(root):
    "Notebooks whose name does not tell their module, modules made by several notebooks, and modules that none makes."
    made = {}
    for book in sorted((root / 'nbs' / 'api').glob('*.ipynb')):
        text = '\n'.join(''.join(o['source']) for o in json.loads(book.read_text(encoding='utf-8'))['cells'])
        for module in re.findall(r'^#\| *(?:default_exp|exports?|exporti) +([\w.]+)', text, re.M):
            made.setdefault(module, []).append(book.stem)
    known = modules(root / 'celldeath_nb')
    said = [
        f'{", ".join(books)} makes {module}'
        for module, books in made.items()
        if [o.split('_', 1)[1] for o in books] != [module]
    ]
    return (
        said
        + [f'{o} is made by no notebook' for o in known if o not in made]
        + [f'{o} is not there' for o in made if o not in known]
    )


def test_wings_import_from_below():
    assert not runs_up(pkg)


def test_modules_import_in_no_circle():
    assert not circle(pkg)


def test_private_names_stay_at_home():
    assert not back_doors(pkg)


def test_every_module_has_one_notebook():
    assert not homes(root)


def test_notebooks_are_numbered_from_the_ground_up():
    floors = [floor[o.split('.')[0]] for o in order(root / 'nbs' / 'api')]
    assert floors == sorted(floors)


def test_every_module_is_in_git():
    "A pattern in .gitignore that means a store of tiles must not mean the wing of that name."
    inside = [str(o) for o in pkg.rglob('*') if '__pycache__' not in o.parts and o.is_file()]
    done = subprocess.run(['git', 'check-ignore', *inside], cwd=root, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip('no checkout of git')
    assert not done.stdout


def plant(folder, **files):
    "A tiny package in `folder`: dots in a module's name are written as two underscores."
    for name, text in files.items():
        path = folder / 'celldeath_nb' / (name.replace('__', '/') + '.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / 'celldeath_nb'


sound = dict(
    files='def write(): ...',
    units='from .files import write',
    simulate__samples='from ..files import write',
    photos__fields='from ..files import write\nfrom .. import units\nfrom celldeath_nb import __version__',
    photos__names='def f():\n    from celldeath_nb.photos.fields import write\n    return write._repr_html_()',
    tiles__cut='from celldeath_nb.photos import fields, names\nclass Tiles:\n    def __init__(self): self._store = 1',
    cli='import celldeath_nb\nprint(celldeath_nb.__version__)',
)


def test_a_sound_house_is_praised(tmp_path):
    pkg = plant(tmp_path, **sound)
    assert not runs_up(pkg) and not circle(pkg) and not back_doors(pkg)
    assert ways(pkg)[0]['tiles.cut'] == {'photos.fields', 'photos.names'} and ways(pkg)[0]['photos.fields'] == {
        'files',
        'units',
    }


crooked = [
    ('photos.fields imports tiles.cut', dict(photos__fields='from ..tiles.cut import Tiles')),
    (
        'photos.fields imports tiles.cut',
        dict(photos__fields='def f():\n    import celldeath_nb.tiles.cut as c\n    return c'),
    ),
    (
        'photos.fields imports tiles.cut',
        dict(photos__fields='from importlib import import_module as i\nimport_module("celldeath_nb.tiles.cut")'),
    ),
    ('photos.fields imports simulate.samples', dict(photos__fields='from ..simulate import samples')),
    ('files imports photos.names', dict(files='from celldeath_nb.photos import names')),
    ('photos.fields imports read from photos', dict(photos__fields='from celldeath_nb.photos import read')),
    ('tiles.cut imports all from photos', dict(tiles__cut='import celldeath_nb.photos')),
    ('tiles.cut imports read_fields from the top', dict(tiles__cut='import celldeath_nb as cd\ncd.read_fields()')),
    ('cellar.wine lies in no wing', dict(cellar__wine='')),
]


@pytest.mark.parametrize('says,files', crooked)
def test_an_import_that_runs_up_is_seen(says, files, tmp_path):
    assert any(says in o for o in runs_up(plant(tmp_path, **{**sound, **files})))


def test_a_circle_is_seen(tmp_path):
    pkg = plant(tmp_path, **{**sound, 'photos__fields': 'def f():\n    from .names import f'})
    assert not runs_up(pkg) and 'photos.names imports photos.fields' in circle(pkg)


doors = [
    ('units imports _guard from files', dict(units='from .files import _guard')),
    ('units reaches files._guard', dict(units='from . import files\nfiles._guard()')),
    ('units reaches celldeath_nb.files._guard', dict(units='import celldeath_nb.files\ncelldeath_nb.files._guard()')),
    ('tiles.cut reaches names._parts', dict(tiles__cut="from ..photos import names\ngetattr(names, '_parts')()")),
    ('trust.maps reaches tiles._store, which tiles.cut makes', dict(trust__maps='def f(tiles): return tiles._store')),
]


@pytest.mark.parametrize('says,files', doors)
def test_a_back_door_is_seen(says, files, tmp_path):
    assert any(says in o for o in back_doors(plant(tmp_path, **{**sound, **files})))


def test_homes_are_looked_at(tmp_path):
    plant(tmp_path, photos__fields='', photos__names='', files='')
    api = tmp_path / 'nbs' / 'api'
    api.mkdir(parents=True)
    told = {
        '00_files': 'files',
        '20_photos.fields': 'photos.fields',
        '21_photos.forms': 'photos.fields',
        '30_tiles.cut': 'tiles.cut',
    }
    for book, module in told.items():
        cell = dict(cell_type='code', source=f'#| default_exp {module}')
        (api / f'{book}.ipynb').write_text(json.dumps(dict(cells=[cell])))
    assert homes(tmp_path) == [
        '20_photos.fields, 21_photos.forms makes photos.fields',
        'photos.names is made by no notebook',
        'tiles.cut is not there',
    ]
    (api / '9_report.ipynb').write_text('{}')
    assert order(api) == ['files', 'report', 'photos.fields', 'photos.forms', 'tiles.cut']


# ---- faces: every public name from its wing and from the top, and nothing heavy before it is asked for


def faces(folder, *options):
    return subprocess.run([sys.executable, folder / 'nbs' / 'make_faces.py', *options], capture_output=True, text=True)


def python(code, cwd=root):
    env = {**os.environ, 'PYTHONPATH': str(cwd)}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd, env=env)


@pytest.fixture
def faced(tmp_path):
    "A tiny package with faces."
    said = dict(
        files="__all__ = ['write']\ndef write(): ...",
        photos__fields="__all__ = ['read']\nimport colorsys\ndef read(): return 1",
        photos__names="__all__ = ['parse']\nfrom .fields import read\ndef parse(): return read()",
        cli="__all__ = ['read']\ndef read(): ...",
    )
    plant(tmp_path, **said)
    (tmp_path / 'nbs').mkdir()
    shutil.copy(root / 'nbs' / 'make_faces.py', tmp_path / 'nbs')
    shutil.copy(root / 'settings.ini', tmp_path)
    return tmp_path


def test_faces_are_made_from_the_rooms():
    done = faces(root, '--check')
    assert not done.returncode, done.stderr


def test_a_name_is_imported_when_it_is_asked_for(faced):
    assert not faces(faced).returncode and not faces(faced, '--check').returncode
    done = python(
        """import sys, celldeath_nb as cd
assert {'read', 'parse', 'write', 'photos', '__version__'} <= set(dir(cd)) and 'colorsys' not in sys.modules
import celldeath_nb.photos
assert {'read', 'parse', 'fields', 'names'} <= set(dir(cd.photos)) and 'colorsys' not in sys.modules
from celldeath_nb.photos import parse
assert cd.read is cd.photos.fields.read and cd.parse is parse and parse() == 1 and 'colorsys' in sys.modules
from celldeath_nb.photos import *
assert read() == 1
assert not hasattr(cd, 'nothing') and not hasattr(cd.photos, 'write')
from celldeath_nb import nothing""",
        faced,
    )
    assert "ImportError: cannot import name 'nothing'" in done.stderr, done.stderr


stale = [
    ('celldeath_nb/photos/__init__.py is stale', dict(photos__fields="__all__ = ['read', 'more']")),
    ('celldeath_nb/__init__.py is stale', dict(files="__all__ = []")),
    ('celldeath_nb/photos/__init__.py is stale', dict(photos__extra="__all__ = []")),
    ('celldeath_nb/tiles/__init__.py is stale', dict(tiles__cut="__all__ = ['cut_tiles']")),
    ('parse is exported by photos.fields and by photos.names', dict(photos__fields="__all__ = ['parse']")),
    ('files bears the name of files', dict(photos__fields="__all__ = ['files']")),
    ('photos.names bears the name of names', dict(files="__all__ = ['names']")),
    ('cellar is no wing', dict(cellar__wine="__all__ = ['red']")),
]


@pytest.mark.parametrize('says,files', stale)
def test_a_face_that_does_not_fit_is_noticed(says, files, faced):
    assert not faces(faced).returncode
    plant(faced, **files)
    done = faces(faced, '--check')
    assert done.returncode == 1 and says in done.stderr


def test_a_room_bears_no_name_that_the_package_exports():
    "An attribute of a package can be only one of the two. (A name that two rooms export is told too.)"
    assert not run_path(str(root / 'nbs' / 'make_faces.py'))['clashes'](
        run_path(str(root / 'nbs' / 'make_faces.py'))['rooms'](pkg)
    )


def test_every_public_function_is_met_in_a_notebook_for_readers():
    "In a lesson, a how-to or a notebook of the paper. A function that rooms lend each other is in a cell marked exporti, and is not public."
    done = python("""import inspect, celldeath_nb as cd
print(*[o for o in cd.__all__ if inspect.isfunction(getattr(cd, o))])""")
    books = [o for part in ('tutorials', 'howto', 'paper') for o in (root / 'nbs' / part).glob('*.ipynb')]
    cells = [c for o in books for c in json.loads(o.read_text(encoding='utf-8'))['cells']]
    met = set(re.findall(r'\w+', '\n'.join(''.join(c['source']) for c in cells)))
    public = set(done.stdout.split())
    assert len(public) > 200 and not public - met, sorted(public - met)


def test_importing_the_package_brings_nothing():
    "Nothing heavy, and no room of its own; nor does asking a wing for a name that needs nothing heavy bring torch."
    done = python(
        """import sys
import celldeath_nb as cd
own = {o for o in sys.modules if o.split('.')[0] == 'celldeath_nb'}
assert own == {'celldeath_nb'}, own
assert not {'numpy', 'pandas', 'torch', 'matplotlib'} & set(sys.modules)
from celldeath_nb.photos import read_fields
assert cd.read_fields is read_fields and 'train' in dir(cd) and 'torch' not in sys.modules"""
    )
    assert not done.returncode, done.stderr


def test_light_modules_do_not_import_torch():
    "Import late: tables, splits and figures must not wait for torch."
    light_studies = ('studies.curves', 'studies.published')  # the others are for training
    trains = [o for o in modules(pkg) if o.startswith('studies.') and o not in light_studies]
    heavy = ('trust.maps', 'trust.checks', *trains, 'report', 'referee', 'road', 'panels', 'all')
    light = [o for o in modules(pkg) if o.split('.')[0] != 'learn' and o not in heavy]
    done = python(
        f"""import sys
from importlib import import_module
for o in {light}:
    import_module('celldeath_nb.' + o)
    found = [m for m in ('torch', 'fastai', 'timm') if m in sys.modules]
    if found: sys.exit(f'{{o}} imports {{found}}')"""
    )
    assert not done.returncode, done.stderr


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom celldeath_nb.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint([m for m in ('numpy', 'pandas', 'torch', 'matplotlib') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
        .stdout.strip()
        .endswith('[]')
    )


@pytest.mark.long
def test_the_wheel_holds_every_module(tmp_path):
    "No fewer, and no more: it is built from a copy, so that no module of an older build comes along."
    for o in ('celldeath_nb', 'nbs'):
        shutil.copytree(
            root / o, tmp_path / 'src' / o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
        )
    for o in ('setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(root / o, tmp_path / 'src')
    pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', tmp_path, tmp_path / 'src']
    subprocess.run(pip, check=True)
    wheel = zipfile.ZipFile(next(tmp_path.glob('*.whl')))
    names = wheel.namelist()
    want = {o.relative_to(root).as_posix() for o in pkg.rglob('*') if o.is_file() and '__pycache__' not in o.parts}
    lessons = [o for f in ('tutorials', 'howto', 'paper') for o in (root / 'nbs' / f).glob('*.ipynb')]
    want |= {f'celldeath_nb/notebooks/{o.parent.name}/{o.name}' for o in lessons}
    assert {o for o in names if '.dist-info/' not in o} == want and 'celldeath_nb/py.typed' in want
    told = wheel.read(next(o for o in names if o.endswith('.dist-info/METADATA'))).decode().splitlines()
    cfg = settings()
    assert {f'Classifier: {o}' for o in cfg['classifiers'].strip().splitlines()} <= set(told)
    assert {f'Project-URL: {o.replace(" = ", ", ")}' for o in cfg['urls'].strip().splitlines()} <= set(told)


def test_what_is_left_behind_is_noticed(tmp_path):
    "The check over the whole run (conftest.py) is seen to fail: a child, a process without parent, a new file."
    (tmp_path / 'tests').mkdir()
    shutil.copy(root / 'tests' / 'conftest.py', tmp_path / 'tests')
    (tmp_path / 'tests' / 'test_a.py').write_text("""import subprocess
def test_a():
    global kept
    kept = subprocess.Popen(['sleep', '611'])
    subprocess.run('sleep 612 & exit', shell=True)
    open('left.txt', 'w').close()
""")
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and 'a test left left.txt in the checkout' in done.stdout
    assert 'running: sleep 611' in done.stdout and 'running: sleep 612' in done.stdout
