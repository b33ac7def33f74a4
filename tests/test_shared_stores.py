"""A store that cannot be written, one that several processes use, one that is replaced while it is read: the old data,
the new data, or a sentence; never a mixture. And photographs that make work grow faster than they do."""

import ctypes, json, os, pickle, random, shutil, struct, sys, time, tracemalloc, zlib
import numpy as np, pytest
from PIL import Image
import celldeath_nb.tiles.cut as tiles_cut
import celldeath_nb.tiles.places as tiles_places
import celldeath_nb.tiles.store as tiles_store
from celldeath_nb.cli import main
from celldeath_nb.files import only_writer
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.photos.reading import read_image
from celldeath_nb.tiles.cut import add_photographs, cut_tiles
from celldeath_nb.tiles.store import open_tiles

from benchmark_of import benchmark

posix = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a POSIX system')


def photos(folder, n=6, h=48, w=64, gray=0):
    "Noise from `gray` to `gray` + 99, of two classes."
    folder.mkdir(exist_ok=True)
    for i in range(n):
        a = np.random.default_rng([gray, i]).integers(gray, gray + 100, (h, w), dtype=np.uint8)
        Image.fromarray(a).save(folder / f'U2_{"CPT" if i % 2 else "DMSO"}_1h_RGB_{i:04}_N{i // 2 + 1}.png')
    return folder


@pytest.fixture
def store(tmp_path):
    return cut_tiles(read_fields(photos(tmp_path / 'photos'), um_per_px=0.5), tmp_path / 't', workers=1)


def in_child(work):
    "What `work` gives in a copy of this process, as text; the error if there is one."
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        try:
            said = str(work())
        except BaseException as e:
            said = f'{type(e).__name__}: {e}'
        os.write(write, said.encode()[:60_000])
        os._exit(0)
    os.close(write)
    with open(read, 'rb') as f:
        said = f.read().decode()
    os.waitpid(pid, 0)
    return said


# a store that cannot be written ----------------------------------------------------------------


def cannot_write(folder):
    "Make a folder read-only for this process, root or not; False where the system does not let us."
    if os.geteuid():
        for o in [*folder.rglob('*'), folder]:
            o.chmod(o.stat().st_mode & ~0o222)
    elif sys.platform == 'linux':
        libc = ctypes.CDLL(None, use_errno=True)
        at = os.fsencode(folder)
        private, bind, again, read_only = 1 << 18 | 1 << 14, 1 << 12, 1 << 5, 1
        if libc.unshare(0x20000) or libc.mount(None, b'/', None, private, None):
            return False
        if libc.mount(at, at, None, bind, None) or libc.mount(None, at, None, bind | again | read_only, None):
            return False
    try:
        (folder / 'probe').touch()
    except OSError:
        return True
    return False


def refused(use, *args, **kwargs):
    "The sentence of a refusal."
    with pytest.raises(OSError) as e:
        use(*args, **kwargs)
    return str(e.value)


@posix
def test_a_store_that_cannot_be_written_is_read(store, tmp_path):
    drive = tmp_path / 'drive'
    drive.mkdir()
    shutil.copytree(store.path, drive / 't')

    def work():
        if not cannot_write(drive):
            return 'not possible here'
        t = open_tiles(drive / 't')
        np.testing.assert_array_equal(t[:], store[:])
        assert t.verify() == [] and t.add(score=1).table.score.eq(1).all()
        np.testing.assert_array_equal(t.field(t.table.field[0]), store.field(store.table.field[0]))
        said = [refused(t.add, save=True, score=1), refused(add_photographs, drive / 't', tmp_path / 'photos')]
        said.append(refused(cut_tiles, tmp_path / 'photos', drive / 't', overwrite=True))
        return json.dumps(said)

    said = in_child(work)
    if said == 'not possible here':
        pytest.skip('nothing can be made read-only here')
    said = json.loads(said)
    assert len(said) == 3 and all(str(drive / 't') in o and 'be written (' in o for o in said), said
    assert sorted(o.name for o in drive.iterdir()) == ['t'], 'no lock, no half-written file'
    np.testing.assert_array_equal(open_tiles(drive / 't')[:], store[:])


@posix
@pytest.mark.long
@pytest.mark.filterwarnings('ignore')
def test_a_store_that_cannot_be_written_is_learned_from(tmp_path):
    from celldeath_nb.learn.models import load_model
    from celldeath_nb.learn.prediction import predict
    from celldeath_nb.learn.recipes import Recipe
    from celldeath_nb.learn.training import train
    from celldeath_nb.tiles.splits import split_by

    drive = tmp_path / 'drive'
    drive.mkdir()
    fields = read_fields(photos(tmp_path / 'photos', 12), um_per_px=0.5)
    split_by(cut_tiles(fields, drive / 't', workers=1), test=None, valid=0.5, seed=0).add(save=True)

    def work():
        if not cannot_write(drive):
            return 'not possible here'
        t = split_by(open_tiles(drive / 't'), test=None, valid=0.5, seed=0)
        recipe = Recipe.quick(arch='test_resnet', size=32, epochs=1, min_steps=0, batch_size=4)
        train(t, recipe, tmp_path / 'run', 'cpu')
        preds = predict(load_model(tmp_path / 'run'), t, device='cpu', out=tmp_path / 'p.csv')
        said = [refused(train, t, recipe, drive / 'run', 'cpu')]
        said.append(refused(predict, load_model(tmp_path / 'run'), t, device='cpu', out=drive / 'p.csv'))
        return json.dumps([len(preds), *said])

    said = in_child(work)
    if said == 'not possible here':
        pytest.skip('nothing can be made read-only here')
    n, *said = json.loads(said)
    assert n == 48 and len(said) == 2 and all(str(drive) in o and 'cannot be written (' in o for o in said), said
    assert sorted(o.name for o in drive.iterdir()) == ['t']


# two processes on one store --------------------------------------------------------------------


def started(work):
    "A copy of this process that runs `work`; it ends with 1 if that fails."
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException as e:
            sys.stderr.write(f'{type(e).__name__}: {e}\n')
        finally:
            os._exit(code)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def watch(pid, enough, look):
    "`look` while a child works, until it has seen enough, which the child is told; the child's exit code."
    done = 0, 0
    try:
        while not done[0] and not look():
            done = os.waitpid(pid, os.WNOHANG)
    finally:
        enough.touch()
    return os.waitstatus_to_exitcode(done[1]) if done[0] else ended(pid)


@posix
def test_one_notebook_reads_while_another_adds_columns(store, tmp_path):
    "Whoever opens it finds two columns of one writing, and is never told that the store is damaged."
    px = store[:]
    store.add(save=True, a=0, b=0)

    def write():
        k = 0
        while not enough.exists():
            k += 1
            store.add(save=True, a=k, b=k)

    enough, seen = tmp_path / 'enough', set()

    def look():
        t = open_tiles(store.path)
        assert (t.table.a == t.table.b).all() and t.table.a.nunique() == 1
        seen.add(int(t.table.a[0]))
        return len(seen) > 5

    assert watch(started(write), enough, look) == 0
    t = open_tiles(store.path)
    assert (t.table.a == t.table.b).all() and t.table.a[0] >= max(seen)
    np.testing.assert_array_equal(t[:], px)


@posix
def test_two_notebooks_add_columns_at_once(store):
    "One waits for its turn, as it is told to; no column is lost."

    def write(name):
        t = open_tiles(store.path)
        for k in range(8):
            for _ in range(400):
                try:
                    t.add(save=True, **{f'{name}{k}': k})
                    break
                except FileExistsError as e:
                    assert 'is being written by another process' in str(e) and 'Wait for it' in str(e)
                    time.sleep(0.02)
            else:
                raise TimeoutError(name)

    pids = [started(lambda: write(o)) for o in 'xy']
    assert [ended(o) for o in pids] == [0, 0]
    t = open_tiles(store.path).table
    assert all(t[f'{o}{k}'].eq(k).all() for o in 'xy' for k in range(8))


def test_a_notebook_that_opened_before_photographs_were_added(store, tmp_path):
    "Its columns are kept, and what it holds then is whole."
    more = photos(tmp_path / 'more', 2, gray=100)
    for o in more.iterdir():
        o.rename(o.with_name(o.name.replace('RGB_0', 'RGB_9')))
    assert len(add_photographs(store.path, more, workers=1)) == 32
    saved = store.add(save=True, score=7)
    assert len(saved) == 24 and saved.whole()[:].shape == (32, 24, 32)
    np.testing.assert_array_equal(saved[:], store[:])
    t = open_tiles(store.path).table
    assert t.score.eq(7).sum() == 24 and t.score[24:].isna().all()
    assert saved.whole().field(t.field.iloc[-1]).shape == (48, 64)


@posix
@pytest.mark.parametrize('words', [['slice', 'p'], ['train', 't'], ['predict', 'r', 'p'], ['audit', 'p']])
def test_a_command_whose_output_is_being_written_is_refused_at_once(words, tmp_path, capsys):
    "Before it has looked at what it is given, which is not even there."
    with only_writer(tmp_path / 'out'), pytest.raises(SystemExit) as e:
        main([*words, '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().err
    assert e.value.code == 1 and 'written by another process' in said and f'process {os.getpid()} on' in said


# a store that is replaced while it is read ------------------------------------------------------


@pytest.fixture
def versions(tmp_path):
    "The tables of photographs of the same names and sizes, dark ones and light ones."
    return [
        read_fields(photos(tmp_path / f'{k}' / 'p', gray=k) if (tmp_path / f'{k}').mkdir() is None else 0)
        for k in (0, 100)
    ]


def version_of(t):
    "Which version a store is, by all of its pixels and by its table; a mixture fails."
    light = t[:].min(axis=(1, 2)) >= 100
    assert light.all() or not light.any()
    assert t.table.version.eq(100 * light[0]).all()
    return int(light[0])


def test_what_was_opened_stays_what_it_was(versions, tmp_path):
    for k, f in enumerate(versions):
        f['version'] = 100 * k
    old = cut_tiles(versions[0], tmp_path / 't', workers=1)
    unread = open_tiles(tmp_path / 't')
    px = old[:]
    packed = pickle.dumps(unread)
    new = cut_tiles(versions[1], tmp_path / 't', workers=1, overwrite=True)
    assert new.table.tile.equals(old.table.tile) and new.fingerprint != old.fingerprint
    np.testing.assert_array_equal(unread[:], px)
    assert version_of(old) == version_of(unread) == 0 and version_of(open_tiles(tmp_path / 't')) == 1
    with pytest.raises(ValueError, match='is not what was written'):
        pickle.loads(packed)[0]  # it opens its file anew
    with pytest.raises(ValueError, match='was cut anew since it was opened'):
        unread.add(save=True, score=1)  # of the old pixels
    assert 'score' not in open_tiles(tmp_path / 't').table


@posix
def test_opening_while_it_is_replaced(versions, tmp_path):
    for k, f in enumerate(versions):
        f['version'] = 100 * k
    made = [cut_tiles(f, tmp_path / f'v{k}', workers=1).path for k, f in enumerate(versions)]
    shutil.copytree(made[0], tmp_path / 't')

    def swap():
        k = 0
        while not enough.exists():
            k += 1
            shutil.copytree(made[k % 2], tmp_path / 'next')
            tiles_cut.swap_in(tmp_path / 'next', tmp_path / 't')
            time.sleep(random.uniform(0, 0.3))  # one that never rests is refused: see the next test

    def look():
        seen.append(version_of(open_tiles(tmp_path / 't', sources='ignore')))
        return set(seen) == {0, 1} and len(seen) > 20

    enough, seen = tmp_path / 'enough', []
    assert watch(started(swap), enough, look) == 0 and set(seen) == {0, 1}


def test_a_store_that_never_comes_to_rest_is_refused(store, monkeypatch):
    monkeypatch.setattr(tiles_store, '_state', lambda path: {'pixels.u8': time.perf_counter_ns()})
    monkeypatch.setattr(tiles_store.time, 'sleep', lambda s: None)
    with pytest.raises(OSError, match='written by another process again and again'):
        open_tiles(store.path)


# what grows faster than the photographs ---------------------------------------------------------


def seconds(f, *args, **kwargs):
    "Processor time, which other work on the machine hardly changes, and the result."
    t0 = time.process_time()
    out = f(*args, **kwargs)
    return time.process_time() - t0, out


def test_a_photograph_of_very_many_tiles(tmp_path):
    "The tiles that are left out were looked up in a list: 77,000 tiles did not end in minutes."
    a = np.random.default_rng(0).integers(0, 256, (1600, 1600), dtype=np.uint8)
    (tmp_path / 'p').mkdir()
    Image.fromarray(a).save(tmp_path / 'p' / 'U2_CPT_1h_RGB_0001_N1.png', compress_level=0)
    took, t = seconds(cut_tiles, read_fields(tmp_path / 'p'), tmp_path / 't', tile_px=(8, 8), workers=1)
    assert len(t) == 40_000 and took < 10
    np.testing.assert_array_equal(t.field(t.table.field[0]), a)


def test_a_png_of_very_many_parts(tmp_path):
    "What was unpacked so far was counted anew for each part."
    a = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    data = zlib.compress(b''.join(b'\0' + o.tobytes() for o in a))
    part = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    parts = b''.join(part(b'IDAT', data[i : i + 2]) for i in range(0, len(data), 2))
    head = part(b'IHDR', struct.pack('>IIBBBBB', 300, 300, 8, 0, 0, 0, 0))
    f = tmp_path / 'a.png'
    f.write_bytes(b'\x89PNG\r\n\x1a\n' + head + parts + part(b'IEND', b''))
    took, px = seconds(read_image, f)
    assert took < 4
    np.testing.assert_array_equal(px, a)


@pytest.mark.skipif(not hasattr(os, 'posix_fadvise'), reason='needs a system that is told what will not be read again')
def test_small_photographs_do_not_wait_for_the_disk_one_by_one(tmp_path, monkeypatch):
    "Each of them asked the disk to write its few bytes now; they ask together."
    told = []
    monkeypatch.setattr(tiles_cut.os, 'posix_fadvise', lambda fd, at, n, how: told.append((at, at + n)))
    monkeypatch.setattr(tiles_cut, '_piece', 20_000)
    t = cut_tiles(read_fields(photos(tmp_path / 'p', 40)), tmp_path / 't', workers=1)
    assert 3 <= len(told) <= 40 * 48 * 64 // 20_000 + 1
    assert told[0][0] == 0 and all(a[1] + 48 * 64 >= b[0] and b[1] > a[1] for a, b in zip(told, told[1:]))
    assert t.verify() == []


def test_fingerprints_take_no_more_room_than_the_tiles():
    "They were made of all tiles at once, which took ten times the tiles: 0.8 GB for 10,000 small ones."
    p = np.random.default_rng(0).normal(size=(3000, 48, 64)).astype(np.float32)
    tracemalloc.start()
    try:
        f = tiles_places._fingerprints(p, lambda o: o)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < p.nbytes
    np.testing.assert_allclose(f[700:720], tiles_places._fingerprints(p[700:720], lambda o: o), rtol=1e-4, atol=1e-4)


load = benchmark('load')


def test_the_benchmark_of_many_photographs_goes_on(tmp_path):
    load.make_photos(tmp_path / 'p', 6)
    was = {o.name: o.stat().st_mtime_ns for o in (tmp_path / 'p').iterdir()}
    next(iter((tmp_path / 'p').iterdir())).unlink()
    load.make_photos(tmp_path / 'p', 6)
    now = {o.name: o.stat().st_mtime_ns for o in (tmp_path / 'p').iterdir()}
    assert len(now) == 6 and sum(was[k] != now[k] for k in now) == 1
    f = read_fields(tmp_path / 'p')
    assert f.label.value_counts().to_dict() == dict(CPT=3, DMSO=3) and f.experiment.nunique() == 4
    sizes = {'100': {'slice': dict(cpu=1.0, peak_mb=50)}, '300': {'slice': dict(cpu=2.0, peak_mb=51)}}
    assert load.growth(sizes) == {'slice, 100 to 300': dict(ms_each=5.0, kb_each=5.0)}
