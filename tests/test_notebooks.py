"The notebooks are the source: they run, they are what the modules were made from, and they keep the house style."

import json, os, re, shutil, subprocess, sys, time

import psutil
import pytest

import notebook_lints as lints
from notebook_lints import Notebook, notebooks, root

env = {**os.environ, 'MPLBACKEND': 'agg', 'PYTHONPATH': str(root)}


def complain(found):
    assert not found, '\n' + '\n'.join(found)


def sh(*args, cwd=root, **kw):
    return subprocess.run([sys.executable, *args], cwd=cwd, env={**env, **kw}, capture_output=True, text=True)


# ---- style: every lint on every notebook, and every lint on a notebook that was planted to break it


@pytest.mark.parametrize('lint', lints.lints, ids=lambda f: f.__name__)
def test_style(lint):
    complain([f'{nb.name}: {o}' for nb in notebooks() for o in lint(nb)])


def test_lessons_are_a_chain():
    "From the first lesson, the first link under Next leads to the next in the order of their names, and so to the last."
    lessons = {nb.path.name: nb.prose.rpartition('## Next')[2] for nb in notebooks() if nb.is_lesson}
    name, seen = '01_first_verdict.ipynb', []
    while name and name not in seen:
        seen.append(name)
        name = next((o for o in re.findall(r'\]\((\d[^/)]*\.ipynb)\)', lessons[name]) if o > name), None)
    assert seen == sorted(lessons)
    page = (root / 'nbs' / 'index.ipynb').read_text(encoding='utf-8')
    assert [o for o in sorted(lessons) if f'tutorials/{o})' not in page] == []


def test_no_copies():
    complain(lints.copies(notebooks()))


def test_nothing_happens_at_import():
    complain(
        [
            o
            for f in sorted((root / 'celldeath_nb').rglob('*.py'))
            for o in lints.noisy_imports(f.read_text(), str(f.relative_to(root)))
        ]
    )


def test_no_exact_pins():
    complain(lints.exact_pins((root / 'settings.ini').read_text()))


def test_code_is_narrow_and_short():
    found = lints.shape(f.read_text() for f in (root / 'celldeath_nb').rglob('*.py') if f.name != '_modidx.py')
    assert found['wide'] < 0.015 and found['parallel'] < 0.02 and found['p90'] <= 20, found


# ---- ruff: names that nobody uses, and one form for every line

sources = ('nbs', 'tests', 'benchmarks', 'docs', 'setup.py')


def ruff(*args, cwd=root):
    return sh('-m', 'ruff', *args, '--no-cache', cwd=cwd)


def test_ruff_finds_nothing():
    done = ruff('check', '--output-format=concise', *sources)
    assert not done.returncode, done.stdout + done.stderr


def test_ruff_would_format_nothing():
    done = ruff('format', '--check', '--output-format=concise', *sources)
    assert not done.returncode, f'run ruff format {" ".join(sources)}\n{done.stdout}{done.stderr}'


unclean = dict(
    F401='import os',
    F541="f = f'no field'",
    F811='def f(): return 1\n\n\ndef f(): return 2',
    F821='print(nobody)',
    F841='def f():\n    a = 1',
    E711='a = print == None',
    E712='a = print == True',
    E721='a = type(1) == int',
    E741='l = 1',
    B006='def f(a=[]): return a',
)


@pytest.mark.parametrize('rule', unclean)
def test_ruff_can_fail(rule, tmp_path):
    shutil.copy(root / 'pyproject.toml', tmp_path)
    (tmp_path / 'a.py').write_text(unclean[rule] + '\n')
    assert rule in ruff('check', '--output-format=concise', '.', cwd=tmp_path).stdout


def test_ruff_reads_notebooks(tmp_path):
    "Unused names and an unformatted cell of a notebook are seen; a star import that is taught, and a name bound anew, are not."
    shutil.copy(root / 'pyproject.toml', tmp_path)
    (tmp_path / 'nbs').mkdir()
    write_notebook(
        tmp_path / 'nbs' / 'a.ipynb', 'from fastai.vision.all import *', 'import os', 'a=[1,2]', 'untar_data(a)'
    )
    write_notebook(tmp_path / 'nbs' / 'b.ipynb', 'def f():\n    return 1', 'def f():\n    return 2', 'f()')
    found = ruff('check', '--output-format=concise', 'nbs', cwd=tmp_path).stdout
    assert 'a.ipynb' in found and 'F401' in found and 'F40' not in found.replace('F401', '') and 'b.ipynb' not in found
    done = ruff('format', '--check', 'nbs', cwd=tmp_path)
    assert done.returncode and 'a.ipynb' in done.stdout and 'b.ipynb' not in done.stdout


def code(*src, out=None):
    return dict(
        cell_type='code', source='\n'.join(src), metadata={}, outputs=[out] if out else [], execution_count=None
    )


def md(*src):
    return dict(cell_type='markdown', source='\n'.join(src), metadata={})


def stream(text, name='stdout'):
    return dict(output_type='stream', name=name, text=[text])


def write_notebook(path, *cells):
    "A notebook on disk, with a title and cells of this code."
    raw = [{**o, 'id': str(i)} for i, o in enumerate([md('# a', '', '> One clause.'), *map(code, cells)])]
    spec = dict(kernelspec=dict(name='python3', display_name='p', language='python'))
    path.write_text(json.dumps(dict(cells=raw, metadata=spec, nbformat=4, nbformat_minor=5)))


def planted(*cells, where='api/99_x.ipynb'):
    return Notebook(root / 'nbs' / where, dict(cells=list(cells), metadata={}, nbformat=4, nbformat_minor=5))


def folded(*src):
    "A cell whose code is folded in JupyterLab and in Colab."
    return {**code(*src), 'metadata': dict(cellView='form', jupyter=dict(source_hidden=True))}


good = [
    md('# x', '', '> One clause.'),
    md('What it is for, in a sentence or two.'),
    code('#| default_exp x'),
    code('#| export', 'import os'),
    md('Why.'),
    code(
        '#| export',
        'def double(',
        '    n:int, # a number',
        ') -> int: # twice as much',
        '    "Twice `n`."',
        '    return 2*n',
    ),
    code('double(3)', 'assert double(3) == 6'),
]
lesson = [
    md('# A lesson', '', '> One clause.'),
    md('**What you will do**: a.', '**What you need**: b.', '**How long it takes**: c.'),
    *lints.colab['cells'](lints.colab['settings'](root), 'tutorials/99_x.ipynb'),
    code('import os'),
    md('Do.'),
    code('n = 2'),
    md(
        '## Three things to remember',
        '1. a',
        '2. b',
        '3. c',
        '## Questions',
        *[f'{i}. a\n   <details><summary>Answer</summary>b</details>' for i in range(1, 6)],
        '## Exercise',
        'Do it.',
    ),
    code('answer = None'),
    md('Is it right?'),
    code('def check(a):', "    return 'right' if a == 4 else 'Not yet.'", '', '', 'check(answer)'),
    folded('# @title Solution', 'solution = 4', "assert check(solution) == 'right' and check(5) != 'right'"),
    md('## Next', 'There.'),
]
badge = '[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/a/b/blob/main/nbs/{})'

bad = [
    ('no_notebook_that_nobody_runs', [md('---', 'skip_exec: true', '---', '# x', '', '> a')]),
    ('no_notebook_that_nobody_runs', [code('#| eval: false', 'train()')]),
    ('no_long_cell', [code(*['a = 1'] * 46)]),
    ('nothing_covered', [code('from sklearn.preprocessing import scale', 'from celldeath_nb.all import *')]),
    ('no_wide_line', [code(f'total = {" + ".join(["count"] * 15)}')]),
    ('no_wide_line', [code("a = 'a string'", f'# {"a remark " * 15}')]),
    ('no_wide_line', [code('def f(', f'    a=1,  # {"what it is " * 14}', '):', '    return a')]),
    ('no_stored_noise', [code('1', out=stream('x', 'stderr'))]),
    ('no_stored_noise', [code('1', out=stream('/home/me/data'))]),
    ('no_stored_noise', [code('1', out=stream('<Axes at 0x7f1234567890>'))]),
    ('no_stored_noise', [code('1', out=stream('x.py:3: FutureWarning: soon'))]),
    ('no_stored_noise', [code('1', out=dict(output_type='error', ename='E', evalue='', traceback=[]))]),
    ('no_star_in_exported_cells', [code('#| export', 'from os import *')]),
    ('no_reading_of_what_another_wrote', [code("t = open_tiles('tiles')")]),
    ('no_reading_of_what_another_wrote', [code("t = pd.read_csv('../api/table.csv')")]),
    ('no_reading_of_what_another_wrote', [code("t = Path('runs/a/note.txt').read_text()")]),
    ('no_assert_that_is_always_true', [code('assert [a == 1]')]),
    ('no_assert_that_is_always_true', [code("assert (a == 1, 'not one')")]),
    ('no_assert_that_is_always_true', [code('assert a == 1 or True')]),
    ('no_bare_except', [code('try: a()', 'except: pass')]),
    ('no_cuda_call', [code('model.cuda()')]),
    ('no_badge_to_another', [md(badge.format('tutorials/01_y.ipynb'))]),
    ('opens_in_colab in a lesson', [*lesson[:2], *lesson[4:]]),
    ('opens_in_colab in a lesson', [*lesson, code('!pip install -q celldeath_nb')]),
    ('opens_in_colab in a lesson', [*lesson[:3], code(''.join(lesson[3]['source']) + ' '), *lesson[4:]]),
    ('no_unknown_directive', [code('#| exprot', 'a = 1')]),
    ('no_unknown_directive', [code('#slow', 'a = 1')]),
    ('no_unknown_directive', [code('# | export', 'a = 1')]),
    ('no_unknown_directive', [code('a = 1', '#| slow')]),
    ('imports_alone', [code('import os', 'a = 1')]),
    ('prose_between', [md('Why.'), *[code('a = 1')] * 3]),
    ('prose_between', [md('## Only a heading'), code('a = 1'), md('## Another'), code('a = 1'), code('a = 1')]),
    ('documented', [code('#| export', 'def f(a, b):', '    "Doc."')]),
    ('documented', [code('#| export', 'def f(', '    a, # it', '    b', '):', '    "Doc."')]),
    ('documented', [code('#| export', 'def f():', '    pass')]),
    ('opens_with_its_subtitle', [md('# x'), md('> y')]),
    (
        'opens_with_its_subtitle',
        [md('# x', '', '> y', '', 'The introduction, which belongs in the second cell.'), md('More.')],
    ),
    ('opens_with_its_subtitle', [md('# x', '', '> y'), code('a = 1')]),
    ('opens_with_its_subtitle', [md('# x', '', '> y'), md('## A heading')]),
    ('small_file', [code('1', out=stream('a' * 300_001))]),
    ('plain_errors', [code("raise ValueError('no images!')")]),
    ('plain_errors', [md('Done \U0001f389')]),
    ('american', [md('The colour of it')]),
    ('american', [code('def grey_range():', '    return 0, 255')]),
    ('every_name_is_shown', good[:-1]),
    ('opens_and_ends_like_a_lesson', lesson[:-1]),
    ('opens_and_ends_like_a_lesson', [lesson[0], md('Nothing is told.'), *lesson[2:]]),
    *[
        ('opens_and_ends_like_a_lesson', [*lesson[:7], md(lesson[7]['source'].replace(*o)), *lesson[8:]])
        for o in (('5. a', 'a'), ('<summary>Answer', '<summary>'))
    ],
    *[
        ('opens_and_ends_like_a_lesson', [*lesson[:k], cell, *lesson[k + 1 :]])
        for k, cell in (
            (11, code(lesson[11]['source'])),  # open for all to see
            (11, folded('# @title Solution', 'answer = 4', "assert check(answer) == 'right' and check(5) != 'right'")),
            (11, folded('# @title Solution', 'solution = 4', "assert check(solution) == 'right'")),
            (11, folded('# @title Solution', 'solution = 4', "assert check(5) != 'right'")),
            (10, code('def check(a):', "    return 'right'")),
        )
    ],
    ('given_folders_are_only_read', [code("own = ''", "(Path(own) / names[0]).write_text('<html>')")]),
    (
        'given_folders_are_only_read',
        [code("given = Path(own) if own else draw('a')", "cut_tiles(fields, given / 'tiles')")],
    ),
    ('given_folders_are_only_read', [code('for p in Path(own).glob("*.png"):', '    p.unlink()')]),
    ('given_folders_are_only_read', [code("shutil.copy('a.png', own)", "open(f'{own}/a.csv', 'w')")]),
    ('valid_python', [code('answer = ...  your answer')]),
]


@pytest.mark.parametrize('name,cells', bad, ids=[f'{n}-{i}' for i, (n, _) in enumerate(bad)])
def test_lint_can_fail(name, cells):
    nb = planted(*cells, where='tutorials/99_x.ipynb' if 'lesson' in name else 'api/99_x.ipynb')
    assert getattr(lints, name.split()[0])(nb)


def test_lints_praise_what_is_good():
    assert {f.__name__ for f in lints.lints} <= {n.split()[0] for n, _ in bad}, 'a lint that was never seen to fail'
    made = [
        *good,
        md('More.', '', badge.format('api/99_x.ipynb')),
        code("pd.read_csv('https://host/x.csv')", "out = train(out='runs/a')"),
        md('Put the path of your folder between the quotes of `own`.'),
        code("own = ''", "given = Path(own)", "fields = read_fields(given)", "shutil.copytree(given, room / 'a')"),
        md('More.'),
        code("open_run('runs/a')", f"told = f'{'a message may be longer ' * 6}{{1}}'"),
    ]
    complain([f'{f.__name__}: {o}' for f in lints.lints for o in f(planted(*made))])
    complain([f'{f.__name__}: {o}' for f in lints.lints for o in f(planted(*lesson, where='tutorials/99_x.ipynb'))])


def test_other_lints_can_fail():
    cells = [code(*[f'a{i} = {j}' for j in range(5)]) for i in range(4)]
    assert lints.copies([planted(*cells), planted(*cells[:3], where='api/98_y.ipynb')])
    assert lints.noisy_imports("from pathlib import Path\nPath('data').mkdir()") and not lints.noisy_imports(
        "def f(): Path('data').mkdir()"
    )
    code_of = lambda n: ['def f():\n' + '    a = 1\n' * n for _ in range(9)]
    assert lints.shape([*code_of(21), 'a, b = 1, 2', f'a = {"1" * 150}']) == dict(
        wide=1 / 200, parallel=1 / 191, p90=21
    )
    assert lints.exact_pins('requirements =\n    numpy>=2\n    torch==2.1\ndev_requirements =\n    nbdev==3') == [
        'torch==2.1'
    ]


# ---- the modules are what the notebooks say, and importing them does nothing


def changed(a, b):
    return sorted(
        str(o.relative_to(a))
        for o in a.rglob('*')
        if o.is_file()
        and '__pycache__' not in o.parts
        and o.name != '_modidx.py'
        and (not (b / o.relative_to(a)).exists() or o.read_bytes() != (b / o.relative_to(a)).read_bytes())
    )


@pytest.fixture(scope='module')
def copied(tmp_path_factory):
    "A copy of the sources, on which nbdev may write."
    d = tmp_path_factory.mktemp('copy')
    for o in ('nbs', 'celldeath_nb'):
        shutil.copytree(root / o, d / o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '_proc'))
    for o in ('pyproject.toml', 'settings.ini', 'setup.py', 'README.md'):
        shutil.copy(root / o, d / o)
    return d


def test_modules_are_exported(copied):
    done = sh(
        '-c',
        'from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export()',
        cwd=copied,
        PYTHONPATH='',
    )
    assert not done.returncode, done.stderr[-2000:]
    complain(
        [
            f'{o} is not what its notebook exports: run nbdev-export'
            for o in changed(copied / 'celldeath_nb', root / 'celldeath_nb')
            + changed(root / 'celldeath_nb', copied / 'celldeath_nb')
        ]
    )


def test_notebooks_are_clean(copied):
    done = sh('-c', 'from nbdev.clean import nbdev_clean; nbdev_clean()', cwd=copied, PYTHONPATH='')
    assert not done.returncode, done.stderr[-2000:]
    complain([f'{o} is not clean: run nbdev-clean' for o in changed(copied / 'nbs', root / 'nbs')])


@pytest.mark.long
def test_importing_leaves_no_trace(tmp_path):
    inside = [o.relative_to(root) for o in (root / 'celldeath_nb').rglob('*.py') if o.stem != '_modidx']
    names = sorted('.'.join(o.parent.parts if o.stem == '__init__' else o.with_suffix('').parts) for o in inside)
    done = sh('-c', 'import importlib\n' + '\n'.join(f'importlib.import_module("{o}")' for o in names), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('module', ['cli', 'photos', 'tiles.splits', 'trust.audits'])
def test_heavy_things_are_imported_late(module):
    module = f'celldeath_nb.{module}'
    done = sh(
        '-c',
        f'import sys, {module}; print(*[o for o in ("torch", "fastai", "sklearn", "skimage") if o in sys.modules])',
    )
    assert done.stdout.strip() == '', f'{module} imports {done.stdout} {done.stderr[-500:]}'


# ---- every notebook runs


def run_notebooks(path, *options):
    return sh(root / 'tests' / 'run_notebooks.py', path, *options)


# notebooks that train, draw or resample for a quarter of a minute or more on one core
long_ones = (
    '01_first_verdict 03_split_without_leaks 03b_what_a_network_sees 04_train_a_small_net 07_where_it_looks colab_gpu hand_a_model_on own_images pretrained_weights tomorrows_photographs '
    '54_learn.loaders 55_learn.learner 56_learn.sittings 57_learn.probes 58_learn.training 59_learn.exports 59_learn.suggestions 62_people.compare 66_assays.nuclei 69_assays.flow '
    '69_assays.sheets 76_plates.agreement 83_trust.audits 84_trust.masks 85_trust.maps 86_trust.checks 87_trust.conformal 88_trust.shift 89_trust.lines '
    '96_referee 96_road fig1_damage_and_death 94_studies.whole 09_the_whole_paper_small fig3 fig4_maps s3 table1 table2'
).split()


def runs(those):
    "Run notebooks; what one of them says when it fails is what the test says."
    paths = [
        o for o in sorted((root / 'nbs').rglob('*.ipynb'), reverse=True) if not o.parent.name.startswith(('.', '_'))
    ]
    assert set(long_ones) <= {o.stem for o in paths}
    done = run_notebooks(*[o for o in paths if (o.stem in long_ones) == those])
    print(done.stdout)
    if done.returncode:
        pytest.fail(done.stderr[-20_000:], pytrace=False)


def test_every_short_notebook_runs():
    runs(False)


@pytest.mark.long
def test_every_long_notebook_runs():
    runs(True)


@pytest.mark.long
def test_the_trial_of_a_lesson_waits_for_answers(books):
    "Run All with `take_part = True`: no cell stops for want of answers, and the trial lies in a folder that stays."
    nb = json.loads((root / 'nbs' / 'tutorials' / '06_people_and_networks.ipynb').read_text(encoding='utf-8'))
    there = [c for c in nb['cells'] if 'take_part = False' in ''.join(c['source'])]
    assert len(there) == 1
    there[0]['source'] = ''.join(there[0]['source']).replace('take_part = False', 'take_part = True')
    (books / 'lesson.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    done = run_notebooks(books / 'lesson.ipynb', '--workers', '1')
    assert not done.returncode, done.stderr[-3000:]
    kept = sorted(o.name for o in books.rglob('my_trials/*'))
    assert kept == ['me_pre.csv', 'me_pre.json']


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'), reason='the slow cells of the notebooks; CELLDEATH_SLOW=1 runs them'
)
def test_slow_cells_run():
    done = run_notebooks(root / 'nbs', '--flags', 'slow')
    if done.returncode:
        pytest.fail(done.stderr[-20_000:], pytrace=False)


@pytest.fixture
def books(tmp_path):
    "A folder for notebooks, with the settings of this project."
    (tmp_path / 'nbs').mkdir()
    shutil.copy(root / 'pyproject.toml', tmp_path)
    return tmp_path / 'nbs'


def test_a_failing_notebook_is_told_readably(books):
    "The runner is seen to fail, and what is shown names the notebook, the cell and the error, with no frame of the runner."
    write_notebook(books / 'good.ipynb', '1+1')
    write_notebook(books / 'bad.ipynb', 'def f(): raise ValueError("cells of 3 photographs are missing")', 'f()')
    write_notebook(books / 'killed.ipynb', 'import os, signal', 'os.kill(os.getpid(), signal.SIGTERM)')
    done = run_notebooks(books, '--cold')
    assert done.returncode == 1 and '3 notebooks, 2 failed' in done.stdout
    told = done.stderr
    assert 'bad.ipynb failed: While Executing Cell #3' in told and 'good.ipynb' not in told
    assert 'ValueError: cells of 3 photographs are missing' in told and 'execnb' not in told and len(told) < 2000
    assert 'killed.ipynb failed: its process was ended by SIGTERM' in told


def test_notebooks_do_not_meet(books):
    "What one notebook patches, sets and starts is nothing to the next, which runs where it lies; a process left running is an error."
    alone = """import json, os, sys
assert not hasattr(json, 'mark') and 'MARK' not in os.environ and os.environ['IN_TEST'] == '1' and 'torch' not in sys.modules
assert os.path.basename(os.getcwd()) == 'nbs'
json.mark = os.environ['MARK'] = '1'
os.chdir('/')"""
    for name in 'abc':
        write_notebook(books / f'{name}.ipynb', alone)
    write_notebook(
        books / 'd.ipynb',
        'import subprocess',
        'p = subprocess.Popen(["sleep", "600"])',
        'open("pid", "w").write(str(p.pid))',
    )
    done = run_notebooks(books, '--cold', '--workers', '1')
    assert '4 notebooks, 1 failed' in done.stdout, done.stderr
    assert 'd.ipynb failed: a process that it started is still running' in done.stderr
    pid = int((books / 'pid').read_text())
    until = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.02)  # the system takes it away a moment after it was killed
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_run_all_begins_nothing_of_hours_unasked():
    "Jupyter knows no flags of cells: in notebooks for readers, what is flagged cuda, and in those of the paper what is flagged slow, asks for `more`."
    asked = 0
    for nb in notebooks():
        flags = {'paper': ('cuda', 'slow')}.get(nb.folder, ('cuda',))
        for i, c in nb.code if not nb.is_api else []:
            if c.src.startswith(tuple(f'#| {o}' for o in flags)):
                body = c.src.split('\n', 1)[1]
                assert body.startswith('if more') and len(c.tree.body) == 1, f'{nb.name}: cell {i}'
                asked += 1
    assert asked >= 10


def test_a_notebook_without_end_is_stopped(books):
    write_notebook(books / 'long.ipynb', 'import time', 'time.sleep(1000)')
    done = run_notebooks(books, '--cold', '--seconds', '5')
    assert done.returncode == 1 and 'long.ipynb failed: it was stopped after' in done.stderr


def test_no_notebook_is_not_success(books):
    assert 'no notebook' in run_notebooks(books).stderr
