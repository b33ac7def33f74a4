"""Slicing and reading, beside what others do it with; ratios of medians in one run on one machine.

    python benchmarks/data.py --photos FOLDER [--part slicing|reading|memory|opening ...] [--runs 5] [--json benchmarks/results/data.json]

FOLDER holds the 45 real photographs (`sample_data('u2os')`). Needs, besides the package: image-slicer==0.3.0, zarr>=3, lmdb, webdataset, psutil; what is missing is left out of the table.
Runs of different ways alternate, so that other work on the machine falls on all of them alike. Each part writes its own piece of the JSON; the others stay as they were.
"""

import argparse, json, os, platform, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np, pandas as pd
from PIL import Image

import celldeath_nb.photos.fields as photos_fields
import celldeath_nb.photos.pixels as photos_pixels
import celldeath_nb.tiles.cut as tiles_cut
import celldeath_nb.tiles.store as tiles_store
from celldeath_nb.files import write_json

H = 480
W = 640
BATCH = 64


def timed(f, *args):
    "Seconds that `f` takes."
    t = time.perf_counter()
    f(*args)
    return time.perf_counter() - t


def interleaved(ways, runs):
    "Median seconds of each way, one run of each after the other."
    out = {k: [] for k in ways}
    for k, f in ways.items():
        f()  # warm
    for _ in range(runs):
        for k, f in ways.items():
            out[k].append(by_its_clock(f))
    return {k: statistics.median(v) for k, v in out.items()}


def by_its_clock(f):
    "Seconds of a run: what `f` says of itself, or what passed."
    t = time.perf_counter()
    said = f()
    return said if isinstance(said, float) else time.perf_counter() - t


def since(f, prepare):
    "`f` with its own clock: `prepare`, such as the removal of what the last run wrote, is not counted."

    def g():
        prepare()
        return timed(f)

    return g


# slicing -----------------------------------------------------------------------------------------------------------


def by_image_slicer(photos, out):
    "The original's way: PNG tiles by image-slicer."
    import image_slicer

    for p in photos:
        tiles = image_slicer.slice(str(p), 4, save=False)
        image_slicer.save_tiles(tiles, directory=str(out), prefix=p.name, format='png')


def by_us(df, out, workers, quick=True):
    "A store, checksums and fsync included; `quick=False` leaves every PNG to Pillow."
    keep = photos_pixels._quick_png
    if not quick:
        photos_pixels._quick_png = lambda *a: None
    try:
        tiles_cut.cut_tiles(df, out, workers=workers)
    finally:
        photos_pixels._quick_png = keep


def without_isal(f):
    "`f` with the standard library's zlib."
    import zlib

    def g():
        used = [
            (m, k)
            for m in (photos_pixels, tiles_cut, tiles_store)
            for k in ('decompressobj', 'crc32', 'adler32')
            if hasattr(m, k)
        ]
        keep = [getattr(m, k) for m, k in used]
        for m, k in used:
            setattr(m, k, getattr(zlib, k))
        try:
            return f()
        finally:
            for (m, k), old in zip(used, keep):
                setattr(m, k, old)

    return g


def slicing(folder, tmp, runs):
    df = photos_fields.read_fields(folder)
    photos = [Path(p) for p in df.path]
    png = tmp / 'png'
    out = tmp / 'store'
    ways = {}
    fresh = lambda: (shutil.rmtree(out, ignore_errors=True), os.sync())
    ours = lambda workers, quick: since(lambda: by_us(df, out, workers, quick), fresh)
    try:
        import image_slicer

        ways['image-slicer 0.3.0 to PNG tiles'] = since(
            lambda: by_image_slicer(photos, png),
            lambda: (shutil.rmtree(png, ignore_errors=True), png.mkdir(), os.sync()),
        )
    except ImportError:
        pass
    fast = photos_pixels.decompressobj.__module__ != 'zlib'
    for name, quick in (('Pillow path', False), ('quick path', True)):
        for workers in (1, 2):
            what = f'{workers} thread{"s" if workers > 1 else ""}'
            ways[f'{name}, standard zlib, {what}'] = without_isal(ours(workers, quick))
            if fast:
                ways[f'{name}, isal, {what}'] = ours(workers, quick)
    sec = interleaved(ways, runs)
    if png.exists():
        same_tiles(tiles_store.open_tiles(out), png)
    base = sec.get('image-slicer 0.3.0 to PNG tiles')
    return [
        dict(way=k, ms_per_photograph=1e3 * v / len(photos), ratio=base / v if base else None) for k, v in sec.items()
    ]


def same_tiles(t, png):
    "Asserts that every tile equals image-slicer's, bit for bit."
    for i, r in t.table.iterrows():
        p = png / f'{r.field}_{r.row + 1:02}_{r.col + 1:02}.png'
        assert (np.asarray(Image.open(p)) == t[i]).all(), p


# reading -----------------------------------------------------------------------------------------------------------


def fastai_batches(png, n):
    "fastai's ordinary loader with two workers; seconds per tile over `n` batches after the first."
    from fastai.vision.all import ImageDataLoaders, get_image_files

    files = get_image_files(png)
    dls = ImageDataLoaders.from_name_func(
        png, files, lambda f: 'CPT' if '_CPT' in str(f) else 'DMSO', bs=BATCH, num_workers=2, valid_pct=0.02, seed=0
    )

    def run():
        done = 0
        t = None
        while done < n:
            for xb, yb in dls.train:
                if t is None:
                    t = time.perf_counter()
                    continue
                done += 1
                if done >= n:
                    break
            if len(dls.train) <= 1:
                break
        return (time.perf_counter() - t) / (done * BATCH)

    return run


def readers(t, tmp):
    "Ways to read a random batch of 64, as functions of numbers of tiles; each gives the same bytes."
    n = len(t)
    px = t[:]
    out = {}
    buf = np.empty((BATCH, H, W), np.uint8)
    out['flat file (this package)'] = lambda i: t.batch(i, buf)
    try:
        import zarr

        z = zarr.create_array(str(tmp / 'z.zarr'), shape=px.shape, chunks=(1, H, W), dtype='uint8', compressors=None)
        z[:] = px
        zz = zarr.create_array(str(tmp / 'zz.zarr'), shape=px.shape, chunks=(1, H, W), dtype='uint8')
        zz[:] = px
        out['Zarr 3, raw'] = lambda i: z.oindex[i]
        out['Zarr 3, zstd'] = lambda i: zz.oindex[i]
    except ImportError:
        pass
    try:
        import lmdb

        env = lmdb.open(str(tmp / 'lmdb'), map_size=4 * px.nbytes)
        with env.begin(write=True) as tx:
            for k in range(n):
                tx.put(f'{k:08}'.encode(), px[k].tobytes())

        def by_lmdb(i):
            with env.begin(buffers=True) as tx:
                for k, j in enumerate(i):
                    buf[k] = np.frombuffer(tx.get(f'{j:08}'.encode()), np.uint8).reshape(H, W)
            return buf

        out['LMDB'] = by_lmdb
    except ImportError:
        pass
    for k, f in out.items():
        assert (f(np.arange(5, 5 + BATCH)) == px[5 : 5 + BATCH]).all(), k
    return out


def webdataset_rate(t, tmp):
    "Seconds per tile of webdataset with its shuffle buffer, one process."
    import webdataset as wds

    px = t[:]
    tar = str(tmp / 'w.tar')
    with wds.TarWriter(tar) as w:
        for k in range(len(px)):
            w.write({'__key__': f'{k:08}', 'bin': px[k].tobytes()})

    def run():
        ds = wds.WebDataset(tar, shardshuffle=False).shuffle(64)
        start = time.perf_counter()
        n = 0
        got = []
        for o in ds:
            got.append(np.frombuffer(o['bin'], np.uint8).reshape(H, W))
            if len(got) == BATCH:
                np.stack(got)
                n += BATCH
                got = []
        return (time.perf_counter() - start) / n

    return run


def rate_per_core(t, r):
    "Tiles per second of processor time, warm, and memory beyond the batch in MB."
    import psutil

    me = psutil.Process()
    buf = np.zeros((BATCH, H, W), np.uint8)
    t.batch(r.integers(0, len(t), BATCH), buf)
    before = me.memory_info().rss
    start = time.process_time()
    for _ in range(200):
        t.batch(r.integers(0, len(t), BATCH), buf)
    return 200 * BATCH / (time.process_time() - start), (me.memory_info().rss - before) / 1e6


def reading(folder, tmp, runs):
    "Random batches of 64 tiles of 480x640, warm."
    df = photos_fields.read_fields(folder)
    t = tiles_cut.cut_tiles(df, tmp / 'store')
    r = np.random.default_rng(0)
    (tmp / 'png').mkdir()
    for tile, px in zip(t.table.tile, t[:]):
        Image.fromarray(px).save(tmp / 'png' / (tile.replace('#', '_').replace(',', '_') + '.png'))
    rate, extra = rate_per_core(t, r)
    ways = readers(t, tmp)
    batches = [r.integers(0, len(t), BATCH) for _ in range(20)]
    sec = {
        k: v / (20 * BATCH)
        for k, v in interleaved(
            {k: (lambda f=f: [f(b) for b in batches] and None) for k, f in ways.items()}, runs
        ).items()
    }
    del ways
    for name, make in (
        ('webdataset', lambda: webdataset_rate(t, tmp)),
        ('fastai ImageDataLoaders on PNG tiles, 2 workers', lambda: fastai_batches(tmp / 'png', 6)),
    ):
        try:
            f = make()
        except ImportError:
            continue
        sec[name] = statistics.median(f() for _ in range(runs))
    base = sec.get('fastai ImageDataLoaders on PNG tiles, 2 workers')
    rows = [
        dict(way=k, ms_per_tile=1e3 * v, tiles_per_second=1 / v, ratio=base / v if base else None)
        for k, v in sorted(sec.items(), key=lambda o: -o[1])
    ]
    return dict(rows=rows, tiles_per_processor_second=rate, memory_beyond_batch_mb=extra)


# memory ------------------------------------------------------------------------------------------------------------


def repeated(folder, n):
    "A table of `n` photographs made by repeating those of a folder."
    df = photos_fields.read_fields(folder)
    k = np.arange(n) % len(df)
    out = df.iloc[k].reset_index(drop=True)
    out['field'] = [f'{i:06}/{f}' for i, f in enumerate(out.field)]
    out.attrs.update(df.attrs)
    return out


def peak_mb(reset=False):
    "Peak resident memory since the start or the last reset, in MB (Linux)."
    if reset:
        Path('/proc/self/clear_refs').write_text('5')
    return (
        int(
            next(
                each for each in Path('/proc/self/status').read_text().splitlines() if each.startswith('VmHWM')
            ).split()[1]
        )
        / 1024
    )


def memory_of(folder, n_tiles, tmp):
    "Run in its own process: peak memory, beyond the imports, of slicing and of an epoch of random batches."
    start = peak_mb(reset=True)
    df = repeated(folder, n_tiles // 4)
    sec = timed(lambda: tiles_cut.cut_tiles(df, tmp / 'm', workers=2))
    sliced = peak_mb() - start
    t = tiles_store.open_tiles(tmp / 'm', sources='ignore')
    opened = timed(tiles_store.open_tiles, tmp / 'm', 'ignore')
    del df
    peak_mb(reset=True)
    order = np.random.default_rng(0).permutation(len(t))
    buf = np.empty((BATCH, H, W), np.uint8)
    epoch = timed(lambda: [t.batch(order[i : i + BATCH], buf) is None for i in range(0, len(t) - BATCH + 1, BATCH)])
    print(
        json.dumps(
            dict(
                tiles=len(t),
                gigabytes=(tmp / 'm' / 'pixels.u8').stat().st_size / 1e9,
                slicing_mb=sliced,
                epoch_mb=peak_mb() - start,
                slicing_seconds=sec,
                epoch_seconds=epoch,
                open_seconds=opened,
            )
        )
    )


def memory(folder, counts):
    "Each count in a process of its own."
    out = []
    for n in counts:
        r = subprocess.run(
            [sys.executable, __file__, '--photos', folder, '--memory-of', str(n)], capture_output=True, text=True
        )
        if r.returncode:
            raise RuntimeError(r.stderr[-2000:])
        out.append(json.loads(r.stdout.splitlines()[-1]))
    return out


def opening(folder, tmp, n=60_000):
    "Seconds to open a store of `n` tiles whose table and manifest are those of `n`/4 real photographs, and their sizes; the pixels are one byte a tile."
    df = repeated(folder, n // 4)
    places = [(0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0), (1, 1, 1, 1)]
    one = lambda i, r: dict(
        bytes=int(r.bytes),
        mtime_ns=int(r.mtime_ns),
        crc=i,
        block_crc=i,
        height=960,
        width=1280,
        tiles=4,
        places=places,
        notes=[],
    )
    (tmp / 'o').mkdir()
    tiles_cut._finish_store(
        tmp / 'o',
        df,
        [one(i, r) for i, r in enumerate(df.itertuples())],
        dict(rescale_to=None, resize_to=None, grid=(2, 2), tile_px=None),
        (1, 1),
        ['duplicates'],
    )
    (tmp / 'o' / 'pixels.u8').write_bytes(bytes(n))
    sec = sorted(timed(tiles_store.open_tiles, tmp / 'o', 'ignore') for _ in range(5))
    return dict(
        tiles=n,
        seconds=sec[2],
        table_mb=(tmp / 'o' / 'tiles.csv').stat().st_size / 1e6,
        manifest_mb=(tmp / 'o' / 'manifest.json').stat().st_size / 1e6,
    )


def show(name, out):
    "Print a part's tables."
    for k, v in (out if isinstance(out, dict) else {name: out}).items():
        print(f'{k}:', pd.DataFrame(v).round(3).to_string(index=False) if isinstance(v, list) else v)


def write_part(path, name, out, runs):
    "Put one part into the JSON; the other parts stay."
    old = json.loads(Path(path).read_text()) if Path(path).exists() else {}
    machine = f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime("%Y-%m-%d %H:%M")} UTC'
    write_json(
        {**old, name: dict(machine=machine, runs=runs, **(out if isinstance(out, dict) else {'rows': out}))}, path
    )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--photos', required=True)
    p.add_argument(
        '--part',
        nargs='+',
        default=['slicing', 'reading', 'opening'],
        choices=['slicing', 'reading', 'memory', 'opening'],
        help='memory takes some minutes and 19 GB of disk',
    )
    p.add_argument('--runs', type=int, default=5)
    p.add_argument('--memory-of', type=int, help=argparse.SUPPRESS)
    p.add_argument('--json')
    a = p.parse_args()
    parts = dict(
        slicing=lambda t: slicing(a.photos, t, a.runs),
        reading=lambda t: reading(a.photos, t, a.runs),
        memory=lambda t: memory(a.photos, (1000, 10_000, 60_000)),
        opening=lambda t: opening(a.photos, t),
    )
    if a.memory_of:
        with tempfile.TemporaryDirectory() as tmp:
            return memory_of(a.photos, a.memory_of, Path(tmp))
    for name in a.part:
        with tempfile.TemporaryDirectory() as tmp:
            out = parts[name](Path(tmp))
        show(name, out)
        if a.json:
            write_part(a.json, name, out, a.runs)


if __name__ == '__main__':
    main()
