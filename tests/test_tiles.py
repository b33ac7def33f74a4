"Cutting, reading, resuming: properties, kills at random moments, threads."

import os, pickle, random, shutil, signal, threading, time, warnings
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st, HealthCheck
from PIL import Image
import celldeath_nb.tiles.layout as tiles_layout
import celldeath_nb.tiles.cut as tiles_cut
import celldeath_nb.tiles.store as tiles_store
from celldeath_nb.photos.pixels import BadFile
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.photos.reading import read_image
from celldeath_nb.tiles.store import open_tiles
from celldeath_nb.tiles.cut import add_photographs, cut_tiles
from celldeath_nb.tiles.layout import tile_layout
from celldeath_nb.tiles.remedies import normalize_fields

SLOW = os.environ.get('CELLDEATH_SLOW') == '1'
DATA = Path(__file__).parents[2] / 'shared' / 'data'
posix = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a POSIX system')
quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def make(folder, n=6, h=96, w=128, seed=0):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        a = np.random.default_rng([seed, i]).integers(0, 256, (h, w), dtype=np.uint8)
        Image.fromarray(a).save(
            folder / f'U2_{"CPT" if i % 2 else "DMSO"}_1h_RGB_{i:04}_N{i // 2 + 1}.png', compress_level=1
        )
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / 'photos')


@pytest.fixture
def store(folder, tmp_path):
    return cut_tiles(read_fields(folder, um_per_px=0.5), tmp_path / 't')


# where tiles lie -------------------------------------------------------------------------------


@quick
@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 20),
    st.sampled_from(['drop', 'pad']),
)
def test_every_pixel_is_covered(h, w, th, tw, overlap, edge):
    if overlap >= min(th, tw):
        overlap = 0
    try:
        size, places = tile_layout((h, w), tile_px=(th, tw), overlap=overlap, edge=edge)
    except BadFile:
        assert edge == 'drop' and (h < th or w < tw)
        return
    px = np.arange(h * w).reshape(h, w) % 251
    tiles = tiles_layout.cut_at(px.astype(np.uint8), size, places)
    seen = np.zeros((h + th + tw, w + th + tw), int)
    for a, (i, j, t, l) in zip(tiles, places):
        hh = min(th, h - t)
        ww = min(tw, w - l)
        assert hh > 0 and ww > 0 and (a[:hh, :ww] == px[t : t + hh, l : l + ww]).all()
        seen[t : t + th, l : l + tw] += 1
    if edge == 'pad':
        assert seen[:h, :w].all()
    else:
        assert (
            h - np.flatnonzero(seen.any(1)).max() - 1 < th - overlap
            and w - np.flatnonzero(seen.any(0)).max() - 1 < tw - overlap
            and not seen[h:].any()
        )
    if overlap == 0:
        assert seen.max() == 1
    assert len({(i, j) for i, j, *_ in places}) == len(places)


@quick
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 6), st.integers(1, 6), st.sampled_from([None, 'drop', 'pad'])
)
def test_a_grid_has_its_count_or_is_refused(h, w, r, c, edge):
    try:
        (th, tw), places = tile_layout((h, w), grid=(r, c), edge=edge)
    except BadFile:
        assert h < r or w < c
    except ValueError as e:
        assert edge is None and (h % r or w % c) and 'cannot be cut' in str(e)
    else:
        assert len(places) == r * c and (edge is not None or (th * r, tw * c) == (h, w))


@pytest.mark.parametrize(
    'kw',
    [
        dict(grid=(2, 2)),
        dict(grid=(3, 4)),
        dict(tile_px=(48, 64)),
        dict(tile_px=(40, 40), edge='pad'),
        dict(tile_px=(48, 48), overlap=16, edge='pad'),
        dict(grid=(1, 1)),
    ],
    ids=str,
)
def test_the_photograph_comes_back(kw, folder, tmp_path):
    f = read_fields(folder)
    t = cut_tiles(f, tmp_path / 't', **kw)
    for n, p in zip(f.field, f.path):
        np.testing.assert_array_equal(t.field(n), read_image(p))
    assert t.verify() == [] and t.table.tile.is_unique


def test_threads_change_nothing(folder, tmp_path):
    f = read_fields(folder)
    a, b = (cut_tiles(f, tmp_path / f't{k}', workers=k) for k in (1, 4))
    assert (a.path / 'pixels.u8').read_bytes() == (b.path / 'pixels.u8').read_bytes() and (
        a.path / 'tiles.csv'
    ).read_bytes() == (b.path / 'tiles.csv').read_bytes()
    assert a.fingerprint == b.fingerprint


def test_resized_and_rescaled(folder, tmp_path):
    f = read_fields(folder, um_per_px=0.5)
    t = cut_tiles(f, tmp_path / 'a', resize_to=(24, 32))
    assert t.tile_px == (24, 32) and t.um_per_px == 1.0 and len(t) == 24
    with pytest.raises(ValueError, match='resized'):
        t.field(f.field[0])
    t = cut_tiles(f, tmp_path / 'b', rescale_to=1.0)
    assert t.tile_px == (24, 32) and t.um_per_px == 1.0 and t.field(f.field[0]).shape == (48, 64)


def test_empty_tiles_are_dropped_only_when_asked_and_listed(folder, tmp_path):
    p = folder / 'U2_CPT_1h_RGB_0001_N1.png'
    a = read_image(p).copy()
    a[:48, :64] = 100
    Image.fromarray(a).save(p)
    f = read_fields(folder)
    assert len(cut_tiles(f, tmp_path / 'a')) == 24
    t = cut_tiles(f, tmp_path / 'b', min_cell_share=0.1)
    assert len(t) == 23 and t.problems == [dict(file=p.name + '#0,0', reason='empty: fewer cells than min_cell_share')]
    with pytest.raises(ValueError, match='left out as empty'):
        t.field(p.name)


def test_quality_columns(folder, tmp_path):
    t = cut_tiles(read_fields(folder), tmp_path / 't', quality=True)
    assert (
        {'focus', 'black', 'saturated', 'gradient', 'cell_share', 'overlay', 'constant'} <= set(t.table)
        and t.table.focus.notna().all()
        and t.table.constant.dtype == bool
    )


# reading ---------------------------------------------------------------------------------------


def test_ways_to_ask(store):
    px = store[:]
    assert px.shape == (24, 48, 64) and px.dtype == np.uint8
    np.testing.assert_array_equal(store[-1], px[23])
    np.testing.assert_array_equal(store[np.array([5, 5, 0])], px[[5, 5, 0]])
    np.testing.assert_array_equal(store[store.table.label == 'CPT'], px[(store.table.label == 'CPT').to_numpy()])
    assert store[[]].shape == (0, 48, 64) and len(store.subset([])) == 0
    with pytest.raises(IndexError):
        store[24]
    out = np.empty((2, 48, 64), np.uint8)
    assert store.batch([3, 4], out) is out and (out == px[3:5]).all()
    for bad in (np.empty((2, 48, 64)), np.empty((3, 48, 64), np.uint8), np.empty((2, 64, 48), np.uint8).swapaxes(1, 2)):
        with pytest.raises(ValueError, match='out must be'):
            store.batch([3, 4], bad)
    with pytest.raises(ValueError, match='a mask of 2'):
        store.subset(np.array([True, False]))


def test_views(store):
    v = store.subset(store.table.label == 'CPT').subset([3, 1])
    np.testing.assert_array_equal(v[:], store[store.table.label == 'CPT'][[3, 1]])
    assert v.table.tile.tolist() == store.table.tile[store.table.label == 'CPT'].iloc[
        [3, 1]
    ].tolist() and v.table.index.tolist() == [0, 1]
    w = pickle.loads(pickle.dumps(v))
    np.testing.assert_array_equal(w[:], v[:])


def test_columns(store):
    v = store.subset(store.table.label == 'CPT').add(score=np.arange(12.0), kind='x', save=True)
    t = open_tiles(store.path).table
    assert (
        t.score[t.label == 'CPT'].tolist() == list(range(12))
        and t.score[t.label != 'CPT'].isna().all()
        and (t.kind == 'x').sum() == 12
    )
    assert 'score' not in store.table and 'score' in v.table
    with pytest.raises(ValueError, match='cannot be changed'):
        store.add(row=1)
    with pytest.raises(ValueError):
        store.add(a=[1, 2])


def test_texts_come_back_exactly(folder, tmp_path):
    f = read_fields(folder)
    f['odd'] = ['NA', '', '007', '=1+1', '1e5', "'x"]
    t = cut_tiles(f, tmp_path / 't').table
    assert (
        t.odd[::4].fillna('').tolist() == f.odd.tolist()
        and t.site.tolist()[:1] == ['0001']
        and t.hour.dtype == float
        and t.row.dtype == np.int64
    )
    assert open_tiles(tmp_path / 't').table.equals(t)


def test_without_preadv(store, monkeypatch):
    want = store[:]
    monkeypatch.delattr(os, 'preadv', raising=False)
    np.testing.assert_array_equal(store[:], want)


def test_many_threads_read_at_once(store, monkeypatch):
    px = store[:]
    wrong = []

    def work(seed):
        r = np.random.default_rng(seed)
        for _ in range(60):
            i = r.integers(0, 24, 8)
            if not (store.batch(i) == px[i]).all():
                wrong.append(seed)

    for gone in (False, True):
        if gone:
            monkeypatch.delattr(os, 'preadv', raising=False)
        ts = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for o in ts:
            o.start()
        for o in ts:
            o.join()
    assert wrong == []


_JOB = dict(
    grid=(1, 1),
    tile_px=None,
    overlap=0,
    edge=None,
    resize_to=None,
    rescale_to=None,
    turn=None,
    min_cell_share=None,
    quality=False,
    page=None,
    channel=None,
    max_mpx=80,
    window=None,
)


def test_a_large_table_opens_fast(tmp_path):
    "60,000 tiles of 15,000 photographs."
    n = 60_000 if SLOW else 20_000
    f = [f'N{i % 4 + 1}/U2_CPT_1h_RGB_{i:05}_N{i % 4 + 1}.png' for i in range(n // 4)]
    df = pd.DataFrame(
        dict(
            field=f,
            label='CPT',
            line='U2OS',
            treatment='CPT',
            dose_um=np.nan,
            hour=1.0,
            experiment='N1',
            well='1',
            site='0001',
            um_per_px=0.434221,
            format='PNG',
            acquired=1.0,
            path=[str(tmp_path / o) for o in f],
        )
    )
    df.attrs['folder'] = str(tmp_path)
    d = dict(
        bytes=1,
        mtime_ns=1,
        crc=1,
        height=2,
        width=2,
        tiles=4,
        tile_crc='00000000' * 4,
        clipped=0.0,
        places=[(0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0), (1, 1, 1, 1)],
        notes=[],
    )
    done = [dict(d, block_crc=i) for i in range(len(f))]
    job = dict(_JOB, grid=(2, 2))
    tiles_cut._finish_store(tmp_path, df, done, job, (1, 1), ())
    (tmp_path / 'pixels.u8').write_bytes(bytes(n))
    start = time.process_time()
    for _ in range(3):
        open_tiles(tmp_path, sources='ignore')
    mean = (time.process_time() - start) / 3
    assert len(open_tiles(tmp_path, sources='ignore')) == n
    assert mean < 1, mean  # seconds of the processor; 0.15 for 60,000


def _timed(f):
    t = time.perf_counter()
    f()
    return time.perf_counter() - t


# adding ----------------------------------------------------------------------------------------


def test_adding_costs_only_the_new(folder, tmp_path, monkeypatch):
    f = read_fields(folder)
    cut_tiles(f[:4], tmp_path / 't')
    cut = []
    monkeypatch.setattr(tiles_cut, '_slice_one', lambda *a, _f=tiles_cut._slice_one: cut.append(a[0]) or _f(*a))
    t = add_photographs(tmp_path / 't', f)
    assert cut == f.path[4:].tolist() and len(t) == 24 and t.verify() == []
    want = cut_tiles(f, tmp_path / 'all')
    np.testing.assert_array_equal(t[:], want[:])
    pd.testing.assert_frame_equal(t.table, want.table)
    assert len(add_photographs(tmp_path / 't', f)) == 24


def test_adding_what_does_not_belong(folder, tmp_path):
    f = read_fields(folder, um_per_px=0.5)
    cut_tiles(f[:4], tmp_path / 't')
    with pytest.raises(ValueError, match='1 micrometers per pixel, those of the store 0.5'):
        add_photographs(tmp_path / 't', f[4:].assign(um_per_px=1.0))
    other = make(tmp_path / 'other', 1, 50, 50, seed=9)
    t = add_photographs(tmp_path / 't', read_fields(other, um_per_px=0.5).assign(field='other.png'))
    assert len(t) == 16 and 'tiles would be 25x25' in t.problems[0]['reason']


def deep(folder, name, top, seed=0):
    a = np.random.default_rng(seed).integers(0, top + 1, (96, 128)).astype(np.uint16)
    folder.mkdir(exist_ok=True)
    Image.fromarray(a).save(folder / f'U2_CPT_1h_RGB_{name}_N1.tif')
    return folder


def test_adding_what_has_another_depth_or_is_brighter_is_refused_or_said(tmp_path):
    d = deep(deep(tmp_path / 'p', '0001', 4000), '0002', 4000, 1)
    t = cut_tiles(read_fields(d), tmp_path / 't')
    assert t.manifest['settings']['window'] == [0, 4095] and t.manifest['notes'] == []
    few = make(tmp_path / 'few', 1)
    with pytest.raises(ValueError, match='new photographs have 8 bits, those of the store have more'):
        add_photographs(tmp_path / 't', few)
    deep(d, '0003', 8000, 2)
    with pytest.warns(UserWarning, match=r'_0003_.*: 48.7 % of its pixels lie beyond the window from 0 to 4095'):
        t = add_photographs(tmp_path / 't', d)
    assert len(t) == 12 and '48.7 %' in t.manifest['notes'][-1]['reason'] and (t[8] == 255).mean() > 0.4
    as_they_are = add_photographs(tmp_path / 't', few, allow=['depths'])
    np.testing.assert_array_equal(
        as_they_are.field('U2_DMSO_1h_RGB_0000_N1.png'), read_image(few / 'U2_DMSO_1h_RGB_0000_N1.png')
    )
    eight = cut_tiles(read_fields(few), tmp_path / 'e')
    with pytest.raises(ValueError, match='more than 8 bits, those of the store have 8'):
        add_photographs(eight.path, read_fields(d))
    narrow = cut_tiles(read_fields(d), tmp_path / 'n', window=(0, 3900))
    assert 'in 3 of 3 photographs' in narrow.manifest['notes'][0]['reason']


def test_photographs_of_a_second_folder_keep_theirs(folder, tmp_path):
    f = read_fields(folder, um_per_px=0.5)
    cut_tiles(f, tmp_path / 't')
    other = read_fields(make(tmp_path / 'other', 2, seed=9), um_per_px=0.5)
    renamed = other.assign(field=['day 2/' + o for o in other.field])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        t = add_photographs(tmp_path / 't', renamed)
        assert len(open_tiles(tmp_path / 't')) == len(t) == 32
    for o, p in zip(renamed.field, renamed.path):
        np.testing.assert_array_equal(t.field(o), read_image(p))
    Path(renamed.path[1]).unlink()
    with pytest.warns(UserWarning, match='1 of its photographs is not as when cut, for example day 2/.*missing'):
        open_tiles(tmp_path / 't')
    shutil.rmtree(tmp_path / 'other')
    with pytest.warns(UserWarning, match='for example .*other .the folder of the photographs is not here'):
        open_tiles(tmp_path / 't')


def test_a_view_knows_its_store(store):
    v = store.subset([5, 2])
    v.table['field'] = 'renamed'
    assert v.photographs.tolist() == store.table.field[[5, 2]].tolist() and len(v.whole()) == len(store)
    seen = normalize_fields(v, 'standardize')
    assert seen.photographs.tolist() == v.photographs.tolist()
    np.testing.assert_array_equal(seen.whole()[:], normalize_fields(store, 'standardize')[:])
    name = store.table.field[5]
    whole = seen.field(name)
    assert (whole != store.field(name)).any() and whole.shape == store.field(name).shape
    np.testing.assert_array_equal(whole[:48, 64:], normalize_fields(store, 'standardize')[5])


def test_columns_are_not_written_into_another_store(store, folder):
    cut_tiles(read_fields(folder)[:3], store.path, grid=(1, 2), overwrite=True)
    with pytest.raises(ValueError, match='was cut anew since it was opened'):
        store.add(score=1, save=True)


def test_a_stop_between_table_and_names(folder, tmp_path, monkeypatch):
    "The manifest is there and its table has a hidden name still: it is found, and the next write gives it its name."
    f = read_fields(folder)
    cut_tiles(f[:4], tmp_path / 't')
    monkeypatch.setattr(tiles_store, '_settle', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        add_photographs(tmp_path / 't', f)
    monkeypatch.undo()
    assert (tmp_path / 't' / '.tiles.csv').exists()
    t = open_tiles(tmp_path / 't')
    assert len(t) == 24 and t.verify() == []
    t.add(score=1, save=True)
    assert sorted(o.name for o in t.path.iterdir()) == ['manifest.json', 'pixels.u8', 'problems.csv', 'tiles.csv']
    assert open_tiles(t.path).table.score.eq(1).all()


# kills -----------------------------------------------------------------------------------------


def killed(work, after=None):
    "Run `work` in a child, kill it after some seconds if it does not itself; True if it was still running."
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def same(t, px, table):
    np.testing.assert_array_equal(t[:], px)
    pd.testing.assert_frame_equal(t.table, table)
    assert t.verify() == []


@posix
@pytest.mark.timeout(300)
@pytest.mark.parametrize('what', ['new', 'over', 'add'])
def test_killed_at_random_moments(what, tmp_path):
    "Absent, old or new and whole, after each kill; the same call ends with the same bytes."
    folder = make(tmp_path / 'photos', 16)
    f = read_fields(folder)
    r = random.Random(0)
    out = tmp_path / 't'
    half = cut_tiles(f[:8], tmp_path / 'half')
    full = cut_tiles(f, tmp_path / 'full')
    states = {len(o): (o[:], o.table) for o in (half, full)}
    work = dict(
        new=lambda: cut_tiles(f, out, workers=1),
        over=lambda: cut_tiles(f, out, workers=1, overwrite=True),
        add=lambda: add_photographs(out, f, workers=1),
    )[what]

    def reset():
        shutil.rmtree(out, ignore_errors=True)
        if what != 'new':
            shutil.copytree(half.path, out)

    reset()
    span = _timed(work)
    hit = resumed = 0
    for k in range(100 if SLOW else 8):
        reset()
        hit += killed(work, r.random() * span * 1.3)
        if out.exists():
            t = open_tiles(out)
            same(t, *states[len(t)])
        resumed += (tmp_path / '.t.partial' / 'journal.jsonl').exists()
        if out.exists() and what == 'new':
            continue
        if what == 'add' or not out.exists() or len(open_tiles(out)) < 64:
            work()
        same(open_tiles(out), *states[64])
        assert not [o.name for o in tmp_path.iterdir() if o.name in ('.t.partial', '.t.old')]
    assert hit > 1 and (what == 'add' or resumed > 0 or not SLOW), (hit, resumed)


@posix
def test_it_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    f = read_fields(folder)
    n = []
    one = tiles_cut._slice_one

    def die(*a):
        n.append(a)
        if len(n) > 3:
            raise KeyboardInterrupt
        return one(*a)

    monkeypatch.setattr(tiles_cut, '_slice_one', die)
    with pytest.raises(KeyboardInterrupt):
        cut_tiles(f, tmp_path / 't', workers=1)
    with pytest.raises(FileNotFoundError, match='same call of cut_tiles goes on'):
        open_tiles(tmp_path / 't')
    p = tmp_path / '.t.partial' / 'pixels.u8'
    b = bytearray(p.read_bytes())
    b[2 * 4 * 48 * 64 + 5] ^= 1  # the third block is damaged: it is cut again
    p.write_bytes(b)
    monkeypatch.setattr(tiles_cut, '_slice_one', lambda *a: n.append(a) or one(*a))
    n.clear()
    t = cut_tiles(f, tmp_path / 't', workers=1)
    assert len(n) == 4 and t.verify() == []
    for o, q in zip(f.field, f.path):
        np.testing.assert_array_equal(t.field(o), read_image(q))


def test_other_settings_start_anew(folder, tmp_path, monkeypatch):
    f = read_fields(folder)
    monkeypatch.setattr(tiles_cut, '_finish_store', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cut_tiles(f, tmp_path / 't')
    monkeypatch.undo()
    assert len(cut_tiles(f, tmp_path / 't', grid=(3, 2))) == 36


@posix
def test_the_lock_dies_with_its_owner(folder, tmp_path):
    def hold():
        with tiles_store.only_writer(tmp_path / 't'):
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed(hold) and (tmp_path / '.t.lock').exists()
    assert len(cut_tiles(read_fields(folder), tmp_path / 't')) == 24 and not (tmp_path / '.t.lock').exists()


@posix
def test_two_processes_at_once(folder, tmp_path):
    f = read_fields(folder)
    pids = []
    for k in range(4):
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                cut_tiles(f, tmp_path / 't', workers=1)
                code = 0
            except FileExistsError:
                code = 1
            finally:
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids]
    assert codes.count(0) == 1 and codes.count(1) == 3
    assert open_tiles(tmp_path / 't').verify() == []


# the real ones ---------------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / 'u2os').exists(), reason='../shared/data/u2os is not here')
def test_the_real_photographs(tmp_path):
    f = read_fields(DATA / 'u2os')[::6]
    t = cut_tiles(f, tmp_path / 't')
    assert t.tile_px == (480, 640) and t.um_per_px == 0.434221 and len(t) == 4 * len(f)
    for n, p in zip(f.field, f.path):
        np.testing.assert_array_equal(t.field(n), np.asarray(Image.open(p)))
