"The ground: what is written is whole, comes back as it was, and is never lost between two names."

import gc, importlib, json, os, re, signal, subprocess, sys, time, warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import celldeath_nb.files as files
from celldeath_nb.files import bar, born, lives, only_writer
from celldeath_nb.files import new_folder, read_csv, swap_in, sync, write_csv, write_whole

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def folder(path, text):
    path.mkdir()
    (path / 'a.txt').write_text(text)
    return path


@pytest.mark.parametrize('how', ['swap_in', 'new_folder'])
def test_a_stop_between_two_renames_loses_nothing(how, tmp_path):
    "Only the hidden old folder is there, and what comes next fails: the old one has its name again."
    folder(tmp_path / '.run.old', 'months of work')
    with pytest.raises(OSError):
        if how == 'swap_in':
            swap_in(tmp_path / 'nowhere', tmp_path / 'run')
        else:
            with new_folder(tmp_path / 'run', overwrite=True):
                raise OSError(28, 'No space left on device')
    assert (tmp_path / 'run' / 'a.txt').read_text() == 'months of work'
    assert [o.name for o in tmp_path.iterdir()] == ['run']


def test_the_old_folder_goes_when_both_are_there(tmp_path):
    folder(tmp_path / '.run.old', 'oldest')
    folder(tmp_path / 'run', 'old')
    swap_in(folder(tmp_path / 'new', 'new'), tmp_path / 'run')
    assert (tmp_path / 'run' / 'a.txt').read_text() == 'new' and [o.name for o in tmp_path.iterdir()] == ['run']


def test_a_system_that_opens_no_folder(tmp_path, monkeypatch):
    keep = os.open

    def like_windows(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, 'Permission denied', str(path))
        return keep(path, *args, **kwargs)

    monkeypatch.setattr(os, 'open', like_windows)
    sync(tmp_path)
    with new_folder(tmp_path / 'run') as tmp:
        (tmp / 'a.txt').write_text('whole')
    assert (tmp_path / 'run' / 'a.txt').read_text() == 'whole'


text = st.text(st.characters(codec='utf-8', exclude_characters='\0'), min_size=1, max_size=8)


@quick
@given(st.lists(st.tuples(text, text), min_size=1, max_size=5), text)
def test_every_text_comes_back_as_it_was(tmp_path, rows, name):
    df = pd.DataFrame(rows, columns=[name, name + '2'], dtype=object)
    back = read_csv(write_csv(df, tmp_path / 't.csv'), keep_default_na=False, dtype=str).astype(object)
    pd.testing.assert_frame_equal(back, df)


# one at a time, and nothing left behind --------------------------------------------------------

posix = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a POSIX system')


def child(work, *args):
    "A process that does `work`; its number."
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = work(*args) or 0
        finally:
            os._exit(code)
    return pid


def hold(path, ready):
    with only_writer(path, beat=0.1):
        ready.write_text('x')
        time.sleep(60)


def held(path):
    "A process that holds `path`."
    ready = path.with_name('ready')
    pid = child(hold, path, ready)
    while not ready.exists():
        time.sleep(0.01)
    ready.unlink()
    return pid


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@posix
def test_a_killed_writer_is_followed_at_once_and_it_is_said(tmp_path):
    pid = held(tmp_path / 'run')
    with pytest.raises(FileExistsError, match=rf'by another process \(process {pid} on .*, since 2'):
        with only_writer(tmp_path / 'run'):
            pass
    end(pid)
    with pytest.warns(UserWarning, match=f'process {pid} on .* was stopped before it was done'):
        with only_writer(tmp_path / 'run') as mine:
            assert mine()
    assert list(tmp_path.iterdir()) == []


@posix
def test_of_many_that_find_a_dead_owner_one_alone_goes_on_at_a_time(tmp_path):
    def work(path, k):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                with only_writer(path):
                    os.close(os.open(path.with_name('inside'), os.O_CREAT | os.O_EXCL))  # fails if another is inside
                    time.sleep(0.05)
                    path.with_name('inside').unlink()
            except FileExistsError as e:
                return 0 if 'another process' in str(e) else 1

    for k in range(5):
        end(held(tmp_path / 'run'))
        codes = [
            os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in [child(work, tmp_path / 'run', i) for i in range(6)]
        ]
        assert codes == [0] * 6
    assert list(tmp_path.iterdir()) == []


def written(tmp_path, **change):
    "A lock as another process would have written it."
    with only_writer(tmp_path / 'run'):
        page = json.loads((tmp_path / '.run.lock').read_text())
    (tmp_path / '.run.lock').write_text(json.dumps({**page, **change}))


@posix
@pytest.mark.parametrize('change', [dict(host='elsewhere'), dict(pid=-5), dict(pid=2**70), dict(token=5), dict(who=[])])
def test_one_of_another_machine_or_a_damaged_one_counts_until_it_is_silent(tmp_path, change):
    written(tmp_path, **change)
    with pytest.raises(FileExistsError, match='another process'):
        with only_writer(tmp_path / 'run'):
            pass
    os.utime(tmp_path / '.run.lock', (1, time.time() - 130))
    with pytest.warns(UserWarning, match='stopped before it was done'):
        with only_writer(tmp_path / 'run'):
            pass
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.skipif(born(os.getpid()) is None, reason='this system does not say when a process began')
def test_a_number_that_was_given_again_is_not_the_owner(tmp_path):
    written(tmp_path, born=5)
    with pytest.warns(UserWarning, match='stopped before it was done'):
        with only_writer(tmp_path / 'run'):
            pass


@posix
def test_an_owner_that_was_taken_for_dead_knows_it_and_leaves_the_other_alone(tmp_path):
    with only_writer(tmp_path / 'run', beat=0.05) as mine:
        page = json.loads((tmp_path / '.run.lock').read_text())
        (tmp_path / '.run.lock').write_text(json.dumps({**page, 'token': 'another'}))
        assert not mine()
    assert (tmp_path / '.run.lock').exists()


def test_without_second_names_for_files(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(1, 'Operation not permitted')

    monkeypatch.setattr(os, 'link', refuse)
    with only_writer(tmp_path / 'run'):
        with pytest.raises(FileExistsError, match='another process'):
            with only_writer(tmp_path / 'run'):
                pass
    assert list(tmp_path.iterdir()) == []


@posix
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    def work(tmp_path):
        with new_folder(tmp_path / 'run') as tmp, write_whole(tmp_path / 'a.txt') as half:
            (tmp / 'b.txt').write_text('half')
            half.write_text('half')
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(child(work, tmp_path), 0)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.warns(UserWarning, match='removed what a process that was stopped left'):
        with new_folder(tmp_path / 'run'):
            pass
    assert [o.name for o in tmp_path.iterdir()] == ['run']


@posix
def test_a_worker_ends_with_its_parent_however_that_ends(tmp_path):
    code = '''
import multiprocessing as mp, sys, time
from celldeath_nb.files import end_with_parent
def idle():
    end_with_parent(.05)
    open(sys.argv[1], 'w').write(str(mp.current_process().pid))
    time.sleep(60)
if __name__ == '__main__':
    for how in ('fork',): mp.get_context(how).Process(target=idle).start()
    time.sleep(60)
'''
    p = subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'pid')], cwd=Path(__file__).parents[1])
    while not (tmp_path / 'pid').exists() or not (tmp_path / 'pid').read_text():
        time.sleep(0.02)
    worker = int((tmp_path / 'pid').read_text())
    assert lives(worker)
    p.kill()
    p.wait()
    until = time.time() + 20
    while lives(worker) and time.time() < until:
        time.sleep(0.02)
    assert not lives(worker)


@posix
@pytest.mark.timeout(60)
def test_a_worker_that_is_killed_while_it_draws_a_bar_stops_nobody():
    def work():
        type(bar([])).get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    assert list(bar(range(3))) == [0, 1, 2]
    os.waitpid(child(work), 0)
    assert list(bar(range(3))) == [0, 1, 2]


def test_nothing_asks_for_a_folder_that_a_kill_leaves_for_ever():
    "The system's own temporary folders have no owner; `scratch_folder` and `new_folder` give one that the next run can tell."
    package = Path(__file__).parents[1] / 'celldeath_nb'
    bad = [str(f) for f in package.rglob('*.py') if re.search(r'TemporaryDirectory|NamedTemporary', f.read_text())]
    bad += [str(f) for f in package.rglob('*.py') if 'mkdtemp' in f.read_text() and f.name != 'files.py']
    assert bad == []


@pytest.mark.parametrize('kind', ['tqdm.std', 'tqdm.notebook'])
@pytest.mark.parametrize('first', [True, False])
def test_a_bar_of_work_that_succeeded_ends_full(kind, first, monkeypatch):
    "Also behind another sequence, where `zip` asks it no more; in a notebook it would stay, and be red."
    monkeypatch.delenv('IN_TEST', raising=False)
    monkeypatch.setattr('tqdm.auto.tqdm', importlib.import_module(kind).tqdm)
    files._bars.cache_clear()
    try:
        done = bar(iter('abc'), total=3, what='trying')
        assert [*zip(done, 'xyz')] == [*zip('abc', 'xyz')] if first else [*zip('xyz', done)] == [*zip('xyz', 'abc')]
        gc.collect()
        assert done.n == 3 and getattr(getattr(done, 'container', None), 'visible', False) is False

        def fails():
            yield 'a'
            raise ValueError('no b')

        torn = bar(fails(), total=3, what='trying')
        with pytest.raises(ValueError, match='no b'):
            list(torn)
        assert torn.n == 1
    finally:
        files._bars.cache_clear()
