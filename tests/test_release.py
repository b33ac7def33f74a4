"What a release needs: requirements that are those imported, distributions that can be checked and made again, doors that open."

import ast, hashlib, json, os, re, shutil, subprocess, sys, tarfile, time, zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from celldeath_nb.cli import TRAINS

root = Path(__file__).resolve().parents[1]
pkg = root / 'celldeath_nb'
cfg = ConfigParser(delimiters=['='])
cfg.read(root / 'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']

# a distribution whose name is not that of its module
called = dict(PIL='pillow', skimage='scikit-image', sklearn='scikit-learn', IPython='ipython')
# what nobody is asked to install, and is used where it is there
by_choice = {'ray', 'submitit'}
workshop = ('dev_requirements', 'docs_requirements', 'lab_requirements')


def names(text):
    "The distributions that lines of requirements name."
    return {re.split(r'[\[=<>~!; ]', o)[0].lower().replace('-', '_') for o in text.split() if o[0].isalpha()}


def imported(sources):
    "The distributions whose modules are imported anywhere in these sources, also inside functions."
    nodes = [o for src in sources for o in ast.walk(ast.parse(src))]
    tops = {a.name.split('.')[0] for o in nodes if isinstance(o, ast.Import) for a in o.names}
    tops |= {o.module.split('.')[0] for o in nodes if isinstance(o, ast.ImportFrom) and not o.level}
    others = tops - set(sys.stdlib_module_names) - {'celldeath_nb', '__future__'}
    return {called.get(o, o).lower().replace('-', '_') for o in others}


def test_requirements_are_what_is_imported():
    used = imported(o.read_text(encoding='utf-8') for o in pkg.rglob('*.py'))
    core = names(cfg['requirements'])
    extras = set().union(*(names(cfg[o]) for o in cfg if o.endswith('_requirements') and o not in workshop))
    assert not core - used, 'required and imported nowhere'
    assert not used - core - extras - by_choice, 'imported and required nowhere'


trains = set(TRAINS)


def test_the_small_install_of_the_readme_is_all_but_what_trains():
    lines = [o for o in (root / 'README.md').read_text(encoding='utf-8').splitlines() if 'pip install fastcore' in o]
    said = [o.split('pip install ')[1].split() for o in lines]
    assert [{k.replace('-', '_') for k in o} for o in said] == [names(cfg['requirements']) - trains]


without = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in %r: raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
""" % sorted(trains)


def python_without(code):
    return subprocess.run([sys.executable, '-c', without + code], capture_output=True, text=True)


def test_four_wings_need_nothing_that_trains():
    "Every name of them, in a process where torch and its kin cannot be imported."
    done = python_without("""
from importlib import import_module
for wing in ('evaluate', 'people', 'plates', 'assays'):
    o = import_module('celldeath_nb.' + wing)
    assert len([getattr(o, n) for n in o.__all__]) > 20
    print(wing)""")
    assert done.stdout.split() == ['evaluate', 'people', 'plates', 'assays'], done.stderr


def test_the_command_says_what_to_install(tmp_path):
    "A missing library of ours is no fault of the program; what is left of it is one sentence, and nothing is written."
    out = tmp_path / 'out'
    done = python_without(f"""
from celldeath_nb.cli import main
main(['demo', '--out', {str(out)!r}])""")
    assert done.returncode and 'pip install celldeath_nb' in done.stderr and 'Traceback' not in done.stderr
    assert 'fault of this program' not in done.stderr and not out.exists()


def test_imports_are_found():
    src = (
        'import os, yaml\ndef f():\n    from PIL.Image import open\n    from .x import y\n    import celldeath_nb.files'
    )
    assert imported([src]) == {'yaml', 'pillow'}
    assert names('a-b>=1\n  c[d]>=2\n  e==3') == {'a_b', 'c', 'e'}


def test_the_dev_extra_brings_all_others_but_the_lab():
    "Whose programs dev names itself, and knows how to build and check a release. Ray is large and starts servers: its test asks for it."
    dev = cfg['dev_requirements']
    extras = {o.removesuffix('_requirements') for o in cfg if o.endswith('_requirements')} - {'dev', 'lab', 'ray'}
    assert {o for o in extras if f'celldeath_nb[{o}]' not in dev} == set()
    assert names(cfg['lab_requirements']) | {'build', 'setuptools', 'twine'} <= names(dev)


# ---- distributions


def copied(to):
    "The repository without its history and what was built in it."
    away = shutil.ignore_patterns(
        '.git', '.ci', '_site', '__pycache__', '.*_cache', 'build', 'dist', '*.egg-info', '.venv'
    )
    shutil.copytree(root, to, ignore=away)
    return to


def build(src, out, *kinds):
    "Build distributions without a network; the files."
    pytest.importorskip('build', reason='no build: pip install "celldeath_nb[dev]"')
    args = [sys.executable, '-m', 'build', '--no-isolation', *kinds, '--outdir', str(out), str(src)]
    env = {**os.environ, 'SOURCE_DATE_EPOCH': '1700000000'}
    done = subprocess.run(args, capture_output=True, text=True, env=env)
    assert not done.returncode, done.stderr[-3000:]
    return sorted(out.iterdir())


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A source distribution, and the wheel that was made from it."
    at = tmp_path_factory.mktemp('release')
    return build(copied(at / 'src'), at / 'dist')


@pytest.mark.long
def test_distributions_pass_the_check_of_the_index(built):
    pytest.importorskip('twine', reason='no twine: pip install "celldeath_nb[dev]"')
    args = [sys.executable, '-m', 'twine', 'check', '--strict', *map(str, built)]
    done = subprocess.run(args, capture_output=True, text=True)
    assert not done.returncode and done.stdout.count('PASSED') == 2, done.stdout + done.stderr


@pytest.mark.long
def test_the_wheel_is_the_same_each_time(built, tmp_path):
    "From the source distribution and from the repository, in another folder, with files of another day."
    src = copied(tmp_path / 'elsewhere')
    for o in src.rglob('*'):
        os.utime(o, (time.time() - 86400, time.time() - 86400))
    again = build(src, tmp_path / 'dist', '--wheel')
    sums = {hashlib.sha256(o.read_bytes()).hexdigest() for o in (*again, *built) if o.suffix == '.whl'}
    assert len(sums) == 1


@pytest.mark.long
def test_distributions_hold_what_is_needed(built, tmp_path):
    wheel, sdist = sorted(built, key=lambda o: o.suffix, reverse=True)
    lessons = {
        f'{o.parent.name}/{o.name}' for f in ('tutorials', 'howto', 'paper') for o in (root / 'nbs' / f).glob('*.ipynb')
    }
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {f'celldeath_nb/notebooks/{o}' for o in lessons} <= inside
    assert not [o for o in inside if not o.startswith(('celldeath_nb/', 'celldeath_nb-'))]
    from celldeath_nb.lessons import copy_lessons, find_lessons

    zipfile.ZipFile(wheel).extractall(tmp_path / 'installed')
    found = find_lessons(tmp_path / 'installed' / 'celldeath_nb')
    assert set(copy_lessons(tmp_path / 'mine', found)[0]) == lessons
    with tarfile.open(sdist) as t:
        there = {o.name.partition('/')[2] for o in t.getmembers()}
    needed = 'settings.ini pyproject.toml setup.py README.md LICENSE CHANGELOG.md CITATION.cff nbs/index.ipynb nbs/make_faces.py docs/build.py'
    assert set(needed.split()) | {f'nbs/{o}' for o in lessons} <= there
    assert not [o for o in there if '__pycache__' in o or o.startswith(('docs/_site', '.git/'))]


def test_links_of_the_readme_lead_home_from_an_index(tmp_path):
    "And addresses of the project come with them; without a home nothing is invented."
    for o in ('setup.py', 'settings.ini'):
        shutil.copy(root / o, tmp_path)
    (tmp_path / 'README.md').write_text('[a](nbs/a.ipynb) ![p](nbs/p.png) [b](https://host/b)', encoding='utf-8')
    shown = "import setuptools, runpy\ngiven = {}\nsetuptools.setup = lambda **kw: given.update(kw)\nrunpy.run_path('setup.py')\n"
    shown += "print(given['long_description'])\nprint(given['project_urls'])"
    run = lambda: subprocess.run([sys.executable, '-c', shown], cwd=tmp_path, capture_output=True, text=True).stdout
    said = run()
    assert '[a](nbs/a.ipynb)' in said and 'Homepage' not in said and 'Paper' in said
    text = (tmp_path / 'settings.ini').read_text(encoding='utf-8')
    assert re.search(r'^home =', text, re.M)
    text = re.sub(r'^home =.*$', 'home = https://github.com/lab/celldeath_nb', text, flags=re.M)
    (tmp_path / 'settings.ini').write_text(text, encoding='utf-8')
    said, tag = run(), f'v{cfg["version"]}'
    assert f'[a](https://github.com/lab/celldeath_nb/blob/{tag}/nbs/a.ipynb)' in said and '[b](https://host/b)' in said
    assert f'![p](https://github.com/lab/celldeath_nb/raw/{tag}/nbs/p.png)' in said
    assert "'Issues': 'https://github.com/lab/celldeath_nb/issues'" in said


# ---- other doors


def steps(text):
    "Instructions of a Dockerfile and what follows them; lines that end in a backslash go on."
    lines = re.sub(r'\\\n', ' ', text).splitlines()
    return [tuple(o.split(None, 1)) for o in lines if o.strip() and not o.lstrip().startswith('#')]


known = set(
    'FROM RUN CMD LABEL EXPOSE ENV ADD COPY ENTRYPOINT VOLUME USER WORKDIR ARG ONBUILD STOPSIGNAL HEALTHCHECK SHELL'.split()
)


def test_the_dockerfile_is_sound():
    found = steps((root / 'Dockerfile').read_text(encoding='utf-8'))
    assert found[0][0] == 'FROM' and {o[0] for o in found} <= known and all(len(o) == 2 for o in found)
    assert 'USER' in dict(found) and dict(found)['FROM'].startswith('python:3.')
    command = json.loads(dict(found)['CMD'])
    assert command[:2] == ['celldeath', 'lab'] and '0.0.0.0' in command
    words = dict(found)['RUN'].split()
    assert words[:4] == ['python', '-m', 'pip', 'install'] and words[-1].strip('"').endswith('[lab]')


def test_environment_and_devcontainer_are_sound():
    yaml = pytest.importorskip('yaml', reason='PyYAML comes with fastai')
    env = yaml.safe_load((root / 'environment.yml').read_text(encoding='utf-8'))
    assert [o for o in env['dependencies'] if isinstance(o, str)] == ['python=3.12', 'pip']
    assert env['dependencies'][-1]['pip'][-1] == '-e .[lab]'
    told = json.loads((root / '.devcontainer' / 'devcontainer.json').read_text(encoding='utf-8'))
    assert '.[dev]' in told['postCreateCommand'] and ':3.12' in told['image']


def test_workflows_are_sound():
    "Both are YAML, and publishing asks for the one right that it needs."
    yaml = pytest.importorskip('yaml', reason='PyYAML comes with fastai')
    flows = {
        o.stem: yaml.safe_load(o.read_text(encoding='utf-8')) for o in (root / '.github' / 'workflows').glob('*.yml')
    }
    jobs = flows['release']['jobs']
    assert (
        jobs['publish']['permissions'] == {'id-token': 'write', 'contents': 'write'}
        and jobs['publish']['needs'] == 'build'
    )
    assert 'permissions' not in jobs['build'] and flows['release']['permissions'] == {'contents': 'read'}
    assert set(flows) >= {'ci', 'release'}


@pytest.mark.long
def test_the_lab_opens_at_the_first_lesson(tmp_path):
    "`celldeath lab` on loopback, in a folder that it fills; it takes the place of the command, so what ends the one ends the other."
    import socket, urllib.request

    pytest.importorskip('jupyterlab', reason='no JupyterLab: pip install "celldeath_nb[lab]"')
    own = ('HOME', 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'JUPYTERLAB_WORKSPACES_DIR')
    env = {**os.environ, **{o: str(tmp_path / 'home' / o.lower()) for o in own}, 'PYTHONPATH': str(root)}
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    code = "from celldeath_nb.cli import main; main(['lab', 'mine', '--no-browser', '--port', '%d'])" % port
    log = open(tmp_path / 'log', 'w')
    lab = subprocess.Popen(
        [sys.executable, '-c', code], cwd=tmp_path, env={**env, 'JUPYTER_TOKEN': 't'}, stdout=log, stderr=log
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(480):
            try:
                page = f'http://127.0.0.1:{port}/api/contents/tutorials?token=t'
                told = json.loads(opener.open(page, timeout=30).read())
                break
            except OSError:
                assert lab.poll() is None, (tmp_path / 'log').read_text()
                time.sleep(0.25)
        assert '01_first_verdict.ipynb' in {o['name'] for o in told['content']}
        assert '/lab/tree/tutorials/01_first_verdict.ipynb' in (tmp_path / 'log').read_text()
    finally:
        lab.terminate()
        try:
            lab.wait(90)
        except subprocess.TimeoutExpired:
            lab.kill()
            raise
        log.close()
    assert (tmp_path / 'mine' / 'howto' / 'own_images.ipynb').exists()


# ---- the home page


def test_the_home_page_leads_to_every_lesson_and_howto():
    told = (root / 'README.md').read_text(encoding='utf-8')
    books = [f'nbs/{f}/{o.name}' for f in ('tutorials', 'howto') for o in (root / 'nbs' / f).glob('*.ipynb')]
    assert [o for o in sorted(books) if f']({o})' not in told] == []
    files = re.findall(r'\]\((?!https?:)([^)#]+)\)', told)
    assert files and [o for o in files if not (root / o).is_file()] == []


def test_the_honest_result_is_what_was_measured():
    import pandas as pd

    table = pd.read_csv(root / 'benchmarks' / 'results' / 'first_success.csv')
    told = (root / 'README.md').read_text(encoding='utf-8')
    numbers = dict(n=len(table), middle=table.accuracy.median(), worst=table.accuracy.min(), low=table.low.min())
    said = (
        'Of {n} first trainings on simulated photographs, with seeds that nobody had looked at, the middle one was right in '
        '{middle:.1%} of the tiles of a day held back and the worst in {worst:.1%}; the lowest of the lower limits, by wells, was {low:.1%}. '
    )
    assert said.format(**numbers) in told
    assert f'In {(table.audit == "failed").sum()} of the {len(table)} the package' in told


def test_the_share_of_right_verdicts_is_what_was_measured():
    import pandas as pd

    from celldeath_nb.evaluate.intervals import wilson

    t = pd.read_csv(root / 'benchmarks' / 'results' / 'verdict.csv')
    kind = t.kind.str.split().str[0]
    low, high = wilson(t.right.sum(), len(t))
    believed = (t.light[kind == 'planted'] == 'go').mean()
    condemned = t.light[kind == 'sound'].isin(['stop', 'refused']).mean()
    said = (
        f'Of {len(t)} simulated laboratories whose truth is known, the last sentence of the report was right in {t.right.mean():.1%} ({low:.1%} to {high:.1%}). '
        f'It believed {believed:.1%} of the designs with a shortcut and condemned {condemned:.1%} of the sound ones.'
    )
    assert said in (root / 'README.md').read_text(encoding='utf-8')


def test_what_is_said_of_plain_fastai_is_what_was_measured():
    import pandas as pd

    t = pd.read_csv(root / 'benchmarks' / 'results' / 'learning_fastai.csv')
    arms = ['probe', 'quick', 'fastai 1', 'fastai 4', 'fastai 1 of 16', 'fastai 4 of 16']
    assert t.groupby(['set', 'arm']).split.nunique().eq(5).all() and set(t.arm) == set(arms)
    m = t.groupby(['set', 'arm'])[['accuracy', 'seconds']].mean()
    told = (root / 'nbs' / 'howto' / 'pretrained_weights.ipynb').read_text(encoding='utf-8')
    for name in t.set.unique():
        cells = (m.loc[(name, a)] for a in arms)
        told_of = (f'{100 * o.accuracy:.1f} %, {o.seconds:.{0 if o.seconds > 10 else 1}f} s' for o in cells)
        assert f' | {" | ".join(told_of)} |' in told
    hit, took = m.loc['celltype'].accuracy, m.loc['celltype'].seconds
    said = (
        f'the probe was right in {hit["probe"]:.1%} after {took["probe"]:.1f} s of one core and the quick recipe in {hit["quick"]:.1%} after {took["quick"]:.0f} s; '
        f"plain fastai with its defaults and the probe's weights in {hit['fastai 4']:.1%} after {took['fastai 4']:.0f} s, "
        f'with smaller batches in {hit["fastai 4 of 16"]:.1%} after {took["fastai 4 of 16"]:.0f} s.'
    )
    assert said in (root / 'README.md').read_text(encoding='utf-8')


def test_the_picture_is_that_of_the_lesson():
    args = [sys.executable, root / 'nbs' / 'make_picture.py', '--check']
    done = subprocess.run(args, capture_output=True, text=True)
    assert not done.returncode, done.stderr
