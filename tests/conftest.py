"After the whole run nothing is left of it: no process that a test started, no new file in the checkout."

import os, uuid
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

root = Path(__file__).resolve().parents[1]
caches = {'__pycache__', '.pytest_cache', '.hypothesis', '.ruff_cache', '.ipynb_checkpoints'}
elsewhere = {'.git', '.ci', '.venv'}  # git's own, the work of .ci/run, an environment

# every process that a test starts inherits it, also one whose parent has gone
mark = uuid.uuid4().hex
os.environ['CELLDEATH_TEST_RUN'] = mark

# several at a time (pytest -n): each computes with one thread, since threads that wait for a core take it from the others
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')
before = set()

# the same examples in each run, so that what lands is what was tried; CELLDEATH_SLOW=1 draws others, and more
settings.register_profile('fixed', derandomize=True)
if not os.environ.get('CELLDEATH_SLOW'):
    settings.load_profile('fixed')


def pytest_addoption(parser):
    parser.addoption('--long', action='store_true', help='run the tests that are marked long, and only those')


def pytest_report_header(config):
    if config.getoption('--long'):
        return 'the tests marked long, and only those'
    return 'without the tests marked long (trainings, notebooks and draws of minutes): --long runs those, .ci/run both'


def pytest_collection_modifyitems(config, items):
    "Either the tests that are marked long or the others, unless a test is asked for by its name."
    if any('::' in o for o in config.args):
        return
    wanted = config.getoption('--long')
    other = [o for o in items if bool(o.get_closest_marker('long')) != wanted]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [o for o in items if o not in set(other)]


def files(folder):
    "The files below `folder`, without caches."
    res = set()
    for at, inner, names in os.walk(folder):
        inner[:] = [o for o in inner if o not in caches | elsewhere and not o.endswith('.egg-info')]
        res |= {str((Path(at) / o).relative_to(folder)) for o in names}
    return res


def tells(process, what):
    "The answer of a process that may end meanwhile, or belong to somebody else: then None."
    try:
        return what(process)
    except psutil.Error:
        return None


def at_work(process):
    "Not a helper of this Python, which ends with it, nor a process that has ended and was not yet asked how."
    words = ' '.join(process.cmdline())
    helper = process.ppid() == os.getpid() and ('resource_tracker' in words or 'forkserver' in words)
    return not helper and process.status() != psutil.STATUS_ZOMBIE


def processes():
    "The processes of this run: its children, and those whose parent, started by a test, has gone."
    orphans = [o for o in psutil.process_iter() if tells(o, lambda p: p.environ().get('CELLDEATH_TEST_RUN')) == mark]
    found = {*psutil.Process().children(recursive=True), *orphans}
    return [o for o in found if o.pid != os.getpid() and tells(o, at_work)]


@pytest.fixture(scope='session', autouse=True)
def nothing_is_left():
    yield
    _, left = psutil.wait_procs(processes(), timeout=5)
    said = [f'a test left process {o.pid} running: {tells(o, lambda p: " ".join(p.cmdline())[:200])}' for o in left]
    for o in left:
        tells(o, psutil.Process.kill)
    assert not said, '\n' + '\n'.join(said)


def a_worker(session):
    "Whether this is one of several (pytest -n), and not the one that waits for all."
    return hasattr(session.config, 'workerinput')


def pytest_sessionstart(session):
    if not a_worker(session):
        before.update(files(root))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    "What a test left in the checkout fails the whole run; asked once, when all workers have ended."
    if not a_worker(session) and (new := sorted(files(root) - before)):
        print('\n' + '\n'.join(f'a test left {o} in the checkout' for o in new))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    "Run the command in an empty folder: its exit code and what it said."
    from celldeath_nb.cli import main

    monkeypatch.chdir(tmp_path)

    def f(*args):
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as e:
            code = e.code
        out = capsys.readouterr()
        assert 'Traceback' not in out.out + out.err
        return code, out.out + out.err

    return f
