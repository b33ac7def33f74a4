"""How many planted duplicates are found, and how long that takes.

usage: python benchmarks/audit.py [--designs 20] [--photographs 144] [--many 10000] [--out benchmarks/results/audit.json]
Plants, among simulated tiles of 240x320 pixels, one copy of a tile for each kind and photograph, and counts what `find_near_duplicates` finds at a precision of 0.99;
then times it on `--many` tiles. What is printed are shares and ratios; times hold for the machine that is named beside them.
"""
import argparse, io, json, platform, resource, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from celldeath_nb.audit import audit, find_near_duplicates
from celldeath_nb.fields import read_fields, read_image
from celldeath_nb.simulate import simulate_experiment
from celldeath_nb.tiles import cut_tiles

size = (240, 320)


class Memory:
    "Tiles in memory: the part of a store that an audit asks for."
    def __init__(self, px, table): self.px, self.table, self.tile_px = px, table, px.shape[1:]
    def __len__(self): return len(self.px)
    def batch(self, idxs): return self.px[idxs]


def jpeg(px, q):
    f = io.BytesIO()
    Image.fromarray(px).save(f, 'JPEG', quality=q)
    return np.asarray(Image.open(f))


def clip(x): return np.clip(np.rint(x), 0, 255).astype('uint8')
def at(photo, dy=0, dx=0): return photo[60+dy:60+dy+size[0], 80+dx:80+dx+size[1]]


kinds = {
    'exact copy': lambda p, r: at(p),
    'shifted by up to 8 pixels': lambda p, r: at(p, *r.integers(-8, 9, 2)),
    'shifted by 24 pixels': lambda p, r: at(p, *(24*r.choice([-1, 1], 2))),
    'shifted by 60 pixels': lambda p, r: at(p, *(60*r.choice([-1, 1], 2))),
    'mirrored left-right': lambda p, r: at(p)[:, ::-1],
    'mirrored up-down': lambda p, r: at(p)[::-1],
    'turned by 180': lambda p, r: at(p)[::-1, ::-1],
    'brighter': lambda p, r: clip(at(p).astype(float)+40),
    'less contrast': lambda p, r: clip((at(p).astype(float)-120)*.5+120),
    'gamma 0.6': lambda p, r: clip(255*(at(p)/255.)**.6),
    'uneven light': lambda p, r: clip(at(p)*np.linspace(.7, 1.2, size[1])),
    'JPEG quality 75': lambda p, r: jpeg(at(p), 75),
    'JPEG quality 20': lambda p, r: jpeg(at(p), 20),
    'next frame: shift, noise, light': lambda p, r: clip(at(p, *r.integers(-12, 13, 2))*1.1+r.normal(0, 6, size)),
    'mirrored, shifted, brighter, JPEG 60': lambda p, r: jpeg(clip(at(p, *r.integers(-8, 9, 2))[:, ::-1].astype(float)+20), 60),
}


def planted(photos, seed=0):
    "Tiles: each photograph once as it is, and once more in one altered form of every kind, taken in turn."
    rng, px, rows = np.random.default_rng(seed), [], []
    for i, p in enumerate(photos):
        kind = list(kinds)[i % len(kinds)]
        px += [at(p), kinds[kind](p, rng)]
        rows += [dict(tile=f'{i}', field=f'{i}', kind=kind), dict(tile=f'{i}*', field=f'{i}*', kind=kind)]
    return Memory(np.stack(px), pd.DataFrame(rows))


def recall(photos, seeds=6):
    "Recall of each kind at the lowest score that gives a precision of 0.99 over all kinds."
    true = {k: [] for k in kinds}
    false = []
    for s in range(seeds):
        t = planted(photos[s % len(photos):]+photos[:s % len(photos)], s)
        d = find_near_duplicates(t, least=.05, fingerprint=.1)
        own = d[d.tile_b.str.rstrip('*') == d.tile_a.str.rstrip('*')].assign(i=lambda d: d.tile_a.str.rstrip('*')).set_index('i').score
        false += d[d.tile_b.str.rstrip('*') != d.tile_a.str.rstrip('*')].score.tolist()
        for i in range(len(photos)): true[list(kinds)[i % len(kinds)]].append(float(own.get(str(i), 0.)))
    scores, false = np.sort(np.concatenate(list(true.values()))), np.sort(false)
    grid = np.linspace(.05, .95, 181)
    precision = np.array([(scores >= g).sum()/max(1, (scores >= g).sum()+(false >= g).sum()) for g in grid])
    cut = grid[np.flatnonzero(precision >= .99)[0]]
    at5 = lambda v, c: round(float((np.array(v) >= c).mean()), 3)
    table = pd.DataFrame([dict(kind=k, n=len(v), recall_at_precision_99=at5(v, cut), recall_at_default=at5(v, .65), median_score=round(float(np.median(v)), 3)) for k, v in true.items()])
    return table, dict(score_at_precision_99=round(float(cut), 3), precision_at_default=round(float(precision[np.searchsorted(grid, .65)]), 4), highest_false=round(float(false.max(initial=0)), 3))


def timed(photos, n):
    rng = np.random.default_rng(0)
    px = np.stack([clip(at(photos[i % len(photos)], *rng.integers(-60, 61, 2)).astype(float)+rng.normal(0, 8, size)) for i in range(min(n, 500))])
    px = np.concatenate([np.roll(px, (rng.integers(0, 240), rng.integers(0, 320)), (1, 2)) for _ in range(-(-n//len(px)))])[:n]
    t = Memory(px, pd.DataFrame(dict(tile=np.arange(n).astype(str), field=np.arange(n).astype(str))))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    find_near_duplicates(t)
    return dict(tiles=n, seconds=round(time.perf_counter()-start, 1), extra_MB=round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)/1000))


def designs(seeds, folder):
    "The audit of simulated experiments of every design: how many fail, and what the shortcuts reach."
    rows = []
    for design, effect in (('balanced', 1.), ('confounded', 1.), ('wells', 1.), ('balanced', 0.)):
        for seed in range(seeds):
            src = simulate_experiment(folder/f'{design}{effect:g}{seed}', lines=('U2OS', 'MCF7'), sites=2, size=(240, 320), design=design, effect=effect, seed=seed)
            a = audit(cut_tiles(read_fields(src), folder/f't{design}{effect:g}{seed}'))
            best = a.shortcuts.groupby('sees').share.max()
            rows.append(dict(design=design, effect=effect, seed=seed, verdict=a.verdict, caught=' '.join(o['factor'] for o in a.confounding.caught), **best.round(3)))
            print(rows[-1], flush=True)
    d = pd.DataFrame(rows)
    return d.groupby(['design', 'effect']).agg(seeds=('seed', 'size'), failed=('verdict', lambda s: int((s == 'failed').sum())), brightness=('brightness', 'median'), border=('border', 'median'),
                                               background=('background', 'median')).reset_index()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--photographs', type=int, default=144)
    ap.add_argument('--many', type=int, default=10_000)
    ap.add_argument('--folder', help='photographs to plant among; default: simulated ones')
    ap.add_argument('--designs', type=int, default=0, help='audit this many simulated experiments of each design, and nothing else')
    ap.add_argument('--out', type=Path)
    a = ap.parse_args()
    if a.designs:
        with tempfile.TemporaryDirectory() as d: table = designs(a.designs, Path(d))
        print(table.to_string(index=False))
        if a.out: a.out.write_text(table.to_json(orient='records', indent=1)+'\n')
        return
    with tempfile.TemporaryDirectory() as d:
        folder = Path(a.folder) if a.folder else simulate_experiment(Path(d)/'s', sites=max(1, a.photographs//48))
        photos = [read_image(o) for o in read_fields(folder, label_from=None).path]
        table, found = recall(photos)
        print(table.to_string(index=False), '\n', found)
        times = [timed(photos, n) for n in (a.many//4, a.many//2, a.many)] if a.many else []
        print(pd.DataFrame(times).to_string(index=False))
    if a.out: a.out.write_text(json.dumps(dict(recall=table.to_dict('records'), **found, times=times, machine=f'{platform.processor() or platform.machine()}, two cores'), indent=1)+'\n')


if __name__ == '__main__': main()
