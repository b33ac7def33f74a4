"The notebooks are the source: they run, they are what the modules were made from, and they keep the house style."

import json, os, re, shutil, subprocess, sys
from pathlib import Path

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


def test_no_copies():
    complain(lints.copies(notebooks()))


def test_nothing_happens_at_import():
    complain(
        [o for f in sorted((root / 'celldeath_nb').glob('*.py')) for o in lints.noisy_imports(f.read_text(), f.name)]
    )


def test_no_exact_pins():
    complain(lints.exact_pins((root / 'settings.ini').read_text()))


def code(*src, out=None):
    return dict(
        cell_type='code', source='\n'.join(src), metadata={}, outputs=[out] if out else [], execution_count=None
    )


def md(*src):
    return dict(cell_type='markdown', source='\n'.join(src), metadata={})


def stream(text, name='stdout'):
    return dict(output_type='stream', name=name, text=[text])


def planted(*cells, where='api/99_x.ipynb'):
    return Notebook(root / 'nbs' / where, dict(cells=list(cells), metadata={}, nbformat=4, nbformat_minor=5))


good = [
    md('# x', '', '> One clause.'),
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
    md(
        '# A lesson',
        '',
        '> One clause.',
        '',
        '**What you will do**: a.',
        '**What you need**: b.',
        '**How long it takes**: c.',
    ),
    code('import os'),
    md('Do.'),
    code('n = 2'),
    md(
        '## Three things to remember',
        '1. a',
        '2. b',
        '3. c',
        '## Questions',
        '1. a',
        '2. b',
        '3. c',
        '4. d',
        '5. e',
        '## Exercise',
        'Do it.',
    ),
    code('answer = None'),
    code('#| code-fold: true', '#@title Solution', 'answer = 4', 'assert answer == 4'),
    md('## Next', 'There.'),
]
badge = '[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/a/b/blob/main/nbs/{})'

bad = [
    ('no_notebook_that_nobody_runs', [md('---', 'skip_exec: true', '---', '# x', '', '> a')]),
    ('no_notebook_that_nobody_runs', [code('#| eval: false', 'train()')]),
    ('no_long_cell', [code(*['a = 1'] * 31)]),
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
    ('small_file', [code('1', out=stream('a' * 300_001))]),
    ('plain_errors', [code("raise ValueError('no images!')")]),
    ('plain_errors', [md('Done \U0001f389')]),
    ('american', [md('The colour of it')]),
    ('every_name_is_shown', good[:-1]),
    ('opens_and_ends_like_a_lesson', lesson[:-1]),
    ('opens_and_ends_like_a_lesson', [md('# A lesson', '', '> a'), *lesson[1:]]),
    ('opens_and_ends_like_a_lesson', [*lesson[:4], md(lesson[4]['source'].replace('5. e', '')), *lesson[5:]]),
    (
        'opens_and_ends_like_a_lesson',
        [*lesson[:6], code('#| code-fold: true', '#@title Solution', 'answer = 4'), lesson[-1]],
    ),
    ('valid_python', [code('answer = ...  your answer')]),
]


@pytest.mark.parametrize('name,cells', bad, ids=[f'{n}-{i}' for i, (n, _) in enumerate(bad)])
def test_lint_can_fail(name, cells):
    nb = planted(*cells, where='tutorials/99_x.ipynb' if 'lesson' in name else 'api/99_x.ipynb')
    assert getattr(lints, name)(nb)


def test_lints_praise_what_is_good():
    assert {f.__name__ for f in lints.lints} <= {n for n, _ in bad}, 'a lint that was never seen to fail'
    made = [
        *good,
        md('More.', '', badge.format('api/99_x.ipynb')),
        code("pd.read_csv('https://host/x.csv')", "out = train(out='runs/a')"),
        code("open_run('runs/a')"),
    ]
    complain([f'{f.__name__}: {o}' for f in lints.lints for o in f(planted(*made))])
    complain([f'{f.__name__}: {o}' for f in lints.lints for o in f(planted(*lesson, where='tutorials/99_x.ipynb'))])


def test_other_lints_can_fail():
    cells = [code(*[f'a{i} = {j}' for j in range(5)]) for i in range(4)]
    assert lints.copies([planted(*cells), planted(*cells[:3], where='api/98_y.ipynb')])
    assert lints.noisy_imports("from pathlib import Path\nPath('data').mkdir()") and not lints.noisy_imports(
        "def f(): Path('data').mkdir()"
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


def test_importing_leaves_no_trace(tmp_path):
    names = sorted(o.stem for o in (root / 'celldeath_nb').glob('*.py') if not o.stem.startswith('_'))
    done = sh(
        '-c',
        'import importlib\n' + '\n'.join(f'importlib.import_module("celldeath_nb.{o}")' for o in names),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, ''), done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('module', ['celldeath_nb', 'celldeath_nb.cli', 'celldeath_nb.audit', 'celldeath_nb.splits'])
def test_heavy_things_are_imported_late(module):
    if module != 'celldeath_nb' and not (root / f'{module.replace(".", "/")}.py').exists():
        pytest.skip(f'{module} is not there yet')
    done = sh(
        '-c',
        f'import sys, {module}; print(*[o for o in ("torch", "fastai", "sklearn", "skimage") if o in sys.modules])',
    )
    assert done.stdout.strip() == '', f'{module} imports {done.stdout} {done.stderr[-500:]}'


# ---- every notebook runs


def failures(err):
    "What nbdev's runner said of each notebook that failed: cell, error, last lines of the traceback."
    parts = re.split(r'(?m)^(\w+) in (\S+\.ipynb):\n=+\n', err)
    return [
        f'{Path(nb).name}: {"".join(re.findall(r"While Executing Cell #[0-9]+", txt)[:1])}\n'
        + '\n'.join(txt.strip().splitlines()[-12:])
        for _, nb, txt in zip(parts[1::3], parts[2::3], parts[3::3])
    ] or [err[-3000:]]


def run_notebooks(path, *flags):
    threads = str(max(1, (os.cpu_count() or 2) // 2))  # two notebooks at once share the cores
    return sh(
        '-c',
        f'from nbdev.test import nbdev_test; nbdev_test({str(path)!r}, n_workers=2, timing=True, flags={" ".join(flags)!r})',
        OMP_NUM_THREADS=threads,
    )


def tree():
    return {
        str(o.relative_to(root))
        for d in ('nbs', 'data', 'celldeath_nb')
        for o in (root / d).rglob('*')
        if '__pycache__' not in o.parts and '.ipynb_checkpoints' not in o.parts
    }


def test_every_notebook_runs():
    before = tree()
    done = run_notebooks(root / 'nbs')
    print(done.stdout)
    if done.returncode:
        pytest.fail('\n\n'.join(failures(done.stderr)), pytrace=False)
    complain([f'{o} was left behind' for o in sorted(tree() - before)])


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'), reason='the slow cells of the notebooks; CELLDEATH_SLOW=1 runs them'
)
def test_slow_cells_run():
    done = run_notebooks(root / 'nbs', 'slow')
    if done.returncode:
        pytest.fail('\n\n'.join(failures(done.stderr)), pytrace=False)


def test_a_failing_notebook_is_told_readably(tmp_path):
    "The runner is seen to fail, and what is shown names the notebook, the cell and the error."
    (tmp_path / 'nbs').mkdir()
    shutil.copy(root / 'pyproject.toml', tmp_path)
    for name, src in (('good', '1+1'), ('bad', "raise ValueError('cells of 3 photographs are missing')")):
        raw = dict(
            cells=[{**md('# a'), 'id': 'a'}, {**code(src), 'id': 'b'}],
            metadata=dict(kernelspec=dict(name='python3', display_name='p', language='python')),
            nbformat=4,
            nbformat_minor=5,
        )
        (tmp_path / 'nbs' / f'{name}.ipynb').write_text(json.dumps(raw))
    done = run_notebooks(tmp_path / 'nbs')
    told = '\n'.join(failures(done.stderr))
    assert (
        done.returncode
        and 'bad.ipynb' in told
        and 'Cell #' in told
        and 'cells of 3 photographs are missing' in told
        and 'good.ipynb' not in told
    )
