"The repository agrees with itself: metadata, README, floors of the house, what stands in the wheel."

import ast, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path


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


def test_requirements_are_lower_bounds():
    for line in settings()['requirements'].split():
        assert re.fullmatch(r'[\w-]+>=[\d.]+', line), line


def requirement(line):
    return re.split(r'[=<>]+', line)


def test_requirements_admit_colab():
    "Every bound is met by what Colab has installed, so that nothing there is upgraded."
    colab = dict(l.lower().split('==') for l in (root / 'tests' / 'colab-constraints.txt').read_text().split())
    num = lambda v: [int(o) for o in v.split('.')]
    for line in settings()['requirements'].split():
        name, low = requirement(line)
        if name == 'isal':
            continue  # it has no requirements of its own, so it comes beside what is there and upgrades nothing
        assert name.lower() in colab, f'{name} is not on Colab: it would be installed there'
        assert num(colab[name.lower()]) >= num(low), f'{line} would upgrade {colab[name.lower()]} on Colab'


def order():
    "Modules from the ground up, by the numbers of their notebooks."
    books = sorted((root / 'nbs' / 'api').glob('*.ipynb'), key=lambda p: (p.name.split('_')[0], p.name))
    return [p.stem.split('_', 1)[1] for p in books]


def named(node):
    "Modules of the package that an import statement names."
    mod = (node.module or '') if isinstance(node, ast.ImportFrom) else ''
    if isinstance(node, ast.ImportFrom) and node.level:
        return [mod] if mod else [a.name for a in node.names]
    if mod.startswith('celldeath_nb.'):
        return [mod.split('.')[1]]
    return [a.name for a in node.names] if mod == 'celldeath_nb' else []


def imports(path):
    "Modules of the package that a file imports: at its top, and inside functions."
    tree = ast.parse(path.read_text(encoding='utf-8'))
    top = {n for o in tree.body for n in named(o)}
    return top, {n for o in ast.walk(tree) for n in named(o)} - top


# both train networks on request, and take the training function as an argument; this is what it is when none is given
late = {('audit', 'training'), ('evaluation', 'training')}


def test_a_module_imports_only_from_floors_below():
    floors = order()
    for i, name in enumerate(floors):
        top, inside = imports(pkg / f'{name}.py')
        assert not top - set(floors[:i]), f'{name} imports {top - set(floors[:i])}'
        up = {(name, o) for o in inside - set(floors[:i]) if o in floors}
        assert up <= late, f'{name} imports {up - late} in a function'


def test_light_modules_do_not_import_torch():
    "Import late: tables, splits and figures must not wait for torch."
    light = [m for m in order() if m not in ('models', 'training', 'cam', 'experiments', 'report', 'all')]
    code = f"import sys, importlib\nfor m in {light}: importlib.import_module('celldeath_nb.'+m)\nprint([m for m in ('torch', 'fastai', 'timm') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
    )


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom celldeath_nb.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint([m for m in ('numpy', 'pandas', 'torch', 'matplotlib') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
        .stdout.strip()
        .endswith('[]')
    )


def test_the_wheel_holds_every_module(tmp_path):
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', tmp_path, root], check=True
    )
    import zipfile

    names = set(zipfile.ZipFile(next(tmp_path.glob('*.whl'))).namelist())
    want = {f'celldeath_nb/{p.name}' for p in pkg.iterdir() if p.suffix in ('.py', '.csv')}
    assert want <= names
