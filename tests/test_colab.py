"The first cells for Colab: made by a script, the same everywhere, and able to install the package from a wheel beside them, a file, or an index."

import hashlib, http.server, json, os, shutil, subprocess, sys, threading, zipfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from runpy import run_path

import pytest

root = Path(__file__).resolve().parents[1]
colab = run_path(str(root / 'nbs' / 'make_colab.py'))
cfg = dict(name='celldeath_nb', version='1.2.3', home='')
homely = dict(cfg, home='https://github.com/lab/celldeath_nb')
wheel_is = 'celldeath_nb-1.2.3-py3-none-any.whl'


def sources(cfg, name='tutorials/01_a.ipynb'):
    return [''.join(o['source']) for o in colab['cells'](cfg, name)]


def test_first_cells_are_made_and_none_is_stale():
    assert not colab['stale'](root)


def test_without_a_home_it_is_said_what_to_put_there():
    told, code = sources(cfg)
    assert '`home` in `settings.ini`' in told and 'colab.research' not in told and "address = ''" in code


def test_with_a_home_the_badge_opens_that_notebook_at_the_tag():
    told, code = sources(homely)
    page = 'https://colab.research.google.com/github/lab/celldeath_nb/blob/v1.2.3/nbs/tutorials/01_a.ipynb'
    assert f']({page})' in told and 'settings.ini' not in told
    assert f"address = 'https://github.com/lab/celldeath_nb/releases/download/v1.2.3/{wheel_is}'" in code


def test_a_notebook_that_says_that_it_needs_an_extra_gets_it(tmp_path):
    "Asked of the cell itself, with a pip that only says what it was told."
    intro = dict(cell_type='markdown', source='**What you need**: `pip install "celldeath_nb[flow]"`.', metadata={})
    nb = dict(cells=[dict(intro, source='# A'), intro, dict(intro, source='More.')])
    brought = dict(cfg, flow_requirements='\nflowio>=1.4\nflowutils>=1.2')
    made = json.loads(colab['made'](brought, 'howto/a.ipynb', json.dumps(nb)))
    code = ''.join(made['cells'][3]['source'])
    assert "needs = ['celldeath_nb', 'flowio', 'flowutils']" in code
    wheel = plain_wheel(tmp_path)
    told = "import subprocess\nsubprocess.run = lambda args, check: print(*args[5:], sep=chr(10))\n" + code.replace(
        'flowio', 'no_such'
    )
    for address, what in (
        ('', f'celldeath_nb[flow] @ {wheel.as_uri()}'),
        ('celldeath_nb==1.2.3', 'celldeath_nb[flow]==1.2.3'),
        ('https://a.example/b.whl', 'celldeath_nb[flow] @ https://a.example/b.whl'),
    ):
        at = tmp_path if not address else tmp_path / 'empty'
        at.mkdir(exist_ok=True)
        typed = told.replace("address = ''", f'address = {address!r}')
        env = {**os.environ, 'PYTHONPATH': str(root)}
        done = subprocess.run([sys.executable, '-c', typed], cwd=at, env=env, capture_output=True, text=True)
        asked, *stays = done.stdout.splitlines()
        assert asked == what, done.stderr
        assert f'torch=={version("torch")}' in stays and f'numpy=={version("numpy")}' in stays


def test_what_was_made_or_done_by_hand_is_replaced_and_the_rest_stays():
    cell = lambda kind, src: dict(cell_type=kind, source=src, metadata={}, id='a')
    rest = [cell('markdown', '# A'), cell('markdown', 'What.'), cell('code', 'import os'), cell('markdown', 'Do.')]
    by_hand = cell('code', '#| eval: false\n!pip install -q celldeath_nb')
    made = colab['made'](cfg, 'howto/a.ipynb', json.dumps(dict(cells=[*rest[:3], by_hand, rest[3]])))
    again = json.loads(colab['made'](homely, 'howto/a.ipynb', made))['cells']
    assert [dict(o, source=''.join(o['source'])) for o in again if not colab['is_ours'](o)] == rest
    assert [''.join(o['source']) for o in again[2:4]] == sources(homely, 'howto/a.ipynb')


def test_where_a_reader_names_a_folder_there_is_a_field():
    told = lambda src: ''.join(colab['form'](dict(cell_type='code', source=src))['source'])
    field = 'own = \'\'  # @param {type:"string"}'
    assert (
        told("own = ''") == field
        and told("a = 1\nown = ''  # such as 'C:/mine'") == f"a = 1\n# such as 'C:/mine'\n{field}"
    )
    assert told(field) == field and told("own = 'a'") == "own = 'a'"


# ---- the mechanism, with a package that holds nothing


def plain_wheel(folder):
    "A wheel of that name with one empty module in it."
    folder.mkdir(parents=True, exist_ok=True)
    info = 'celldeath_nb-1.2.3.dist-info'
    files = {
        'celldeath_nb/__init__.py': "__version__ = '1.2.3'\n",
        f'{info}/METADATA': 'Metadata-Version: 2.1\nName: celldeath_nb\nVersion: 1.2.3\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    files[f'{info}/RECORD'] = ''.join(f'{o},,\n' for o in [*files, f'{info}/RECORD'])
    with zipfile.ZipFile(folder / wheel_is, 'w') as z:
        for name, text in files.items():
            z.writestr(name, text)
    return folder / wheel_is


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    "A Python that has pip and nothing else."
    import pip

    at = tmp_path_factory.mktemp('env')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', at], check=True)
    py = at / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    site = subprocess.run([py, '-c', 'import site; print(site.getsitepackages()[0])'], capture_output=True, text=True)
    shutil.copytree(Path(pip.__file__).parent, Path(site.stdout.strip()) / 'pip')
    return py


def first_cell(python, at, address=None, **env):
    "Run the cell in the folder `at`, with `address` typed into it; the version that can be imported then, or what was said."
    code = sources(cfg)[1]
    if address:
        code = code.replace("address = ''", f'address = {address!r}')
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH' and not k.startswith('PIP_')} | env
    env |= dict(PIP_NO_INPUT='1', PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_ROOT_USER_ACTION='ignore', PIP_RETRIES='0')
    code += '\nimport celldeath_nb\nprint(celldeath_nb.__version__)'
    done = subprocess.run([python, '-c', code], cwd=at, env=env, capture_output=True, text=True)
    subprocess.run([python, '-m', 'pip', 'uninstall', '-q', '-y', 'celldeath_nb'], capture_output=True, env=env)
    return done.stdout.strip() or done.stderr


@pytest.fixture
def index(tmp_path):
    "An index on loopback that knows one package; its address."
    sha = hashlib.sha256(plain_wheel(tmp_path / 'simple' / 'celldeath-nb').read_bytes()).hexdigest()
    page = f'<!DOCTYPE html><a href="{wheel_is}#sha256={sha}">{wheel_is}</a>'
    (tmp_path / 'simple' / 'celldeath-nb' / 'index.html').write_text(page)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        log_message = lambda *_: None

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/simple'
    server.shutdown()
    server.server_close()


def test_it_installs_a_wheel_beside_the_notebook(python, tmp_path):
    plain_wheel(tmp_path)
    assert first_cell(python, tmp_path, PIP_NO_INDEX='1') == '1.2.3'


def test_it_installs_from_the_address_of_a_file(python, tmp_path):
    (tmp_path / 'empty').mkdir()
    address = plain_wheel(tmp_path / 'far').as_uri()
    assert first_cell(python, tmp_path / 'empty', address, PIP_NO_INDEX='1') == '1.2.3'


def test_it_installs_a_release_from_an_index(python, tmp_path, index):
    (tmp_path / 'empty').mkdir()
    assert first_cell(python, tmp_path / 'empty', 'celldeath_nb==1.2.3', PIP_INDEX_URL=index) == '1.2.3'


def test_it_says_what_is_missing(python, tmp_path):
    said = first_cell(python, tmp_path)
    assert 'Put its wheel beside this notebook, or write into `address`' in said


def test_it_does_nothing_where_the_package_is(tmp_path):
    "Without a network, with a wheel that is none beside it, and no pip."
    (tmp_path / wheel_is).write_text('no wheel')
    env = {**os.environ, 'PYTHONPATH': str(root)}
    code = 'import sys\nsys.modules["pip"] = None\n' + sources(cfg)[1] + '\nprint("done")'
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ('done', '')
