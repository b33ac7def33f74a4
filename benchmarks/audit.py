"""How many planted duplicates are found, and how long that takes; what the audit says of simulated experiments of every design.

usage: python benchmarks/audit.py [--photographs 144] [--many 10000] [--out benchmarks/results/audit.json]
       python benchmarks/audit.py --designs 20 [--first 2000]     what the audit says of 20 experiments of each design
       python benchmarks/audit.py --network [--first 2000]        the negative controls with a trained network, one experiment of each design
Without an option it plants, among simulated tiles of 240x320 pixels, one copy of a tile for each kind and photograph, and counts what `find_near_duplicates` finds at a precision of 0.99;
then times it on `--many` tiles. What is printed are shares and ratios; times hold for the machine that is named beside them.
The other two write a row as soon as it is known into benchmarks/results/audit_designs.csv or audit_network.csv, and go on where they stopped; rows of another simulator are made anew.
"""

import argparse, hashlib, inspect, io, json, os, platform, resource, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import celldeath_nb.simulate.microscope as simulate_microscope
from celldeath_nb.trust.audits import audit
from celldeath_nb.tiles.places import find_near_duplicates
from celldeath_nb.trust.controls import negative_controls
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.photos.reading import read_image
from celldeath_nb.tiles.cut import cut_tiles

size = (240, 320)


class Memory:
    "Tiles in memory: the part of a store that an audit asks for."

    def __init__(self, px, table):
        self.px = px
        self.table = table
        self.tile_px = px.shape[1:]

    def __len__(self):
        return len(self.px)

    def batch(self, idxs):
        return self.px[idxs]


def jpeg(px, q):
    f = io.BytesIO()
    Image.fromarray(px).save(f, 'JPEG', quality=q)
    return np.asarray(Image.open(f))


def clip(x):
    return np.clip(np.rint(x), 0, 255).astype('uint8')


def at(photo, dy=0, dx=0):
    return photo[60 + dy : 60 + dy + size[0], 80 + dx : 80 + dx + size[1]]


kinds = {
    'exact copy': lambda p, r: at(p),
    'shifted by up to 8 pixels': lambda p, r: at(p, *r.integers(-8, 9, 2)),
    'shifted by 24 pixels': lambda p, r: at(p, *(24 * r.choice([-1, 1], 2))),
    'shifted by 60 pixels': lambda p, r: at(p, *(60 * r.choice([-1, 1], 2))),
    'mirrored left-right': lambda p, r: at(p)[:, ::-1],
    'mirrored up-down': lambda p, r: at(p)[::-1],
    'turned by 180': lambda p, r: at(p)[::-1, ::-1],
    'brighter': lambda p, r: clip(at(p).astype(float) + 40),
    'less contrast': lambda p, r: clip((at(p).astype(float) - 120) * 0.5 + 120),
    'gamma 0.6': lambda p, r: clip(255 * (at(p) / 255.0) ** 0.6),
    'uneven light': lambda p, r: clip(at(p) * np.linspace(0.7, 1.2, size[1])),
    'JPEG quality 75': lambda p, r: jpeg(at(p), 75),
    'JPEG quality 20': lambda p, r: jpeg(at(p), 20),
    'next frame: shift, noise, light': lambda p, r: clip(at(p, *r.integers(-12, 13, 2)) * 1.1 + r.normal(0, 6, size)),
    'mirrored, shifted, brighter, JPEG 60': lambda p, r: jpeg(
        clip(at(p, *r.integers(-8, 9, 2))[:, ::-1].astype(float) + 20), 60
    ),
}


def planted(photos, seed=0):
    "Tiles: each photograph once as it is, and once more in one altered form of every kind, taken in turn."
    rng = np.random.default_rng(seed)
    px = []
    rows = []
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
        t = planted(photos[s % len(photos) :] + photos[: s % len(photos)], s)
        d = find_near_duplicates(t, least=0.05, fingerprint=0.1)
        d['score'] = d.score.where(
            d.turn == 'as it is', 2 * d.score - 1
        )  # turned pairs have to score higher: the value of `least` at which each is found
        own = (
            d[d.tile_b.str.rstrip('*') == d.tile_a.str.rstrip('*')]
            .assign(i=lambda d: d.tile_a.str.rstrip('*'))
            .set_index('i')
            .score
        )
        false += d[d.tile_b.str.rstrip('*') != d.tile_a.str.rstrip('*')].score.tolist()
        for i in range(len(photos)):
            true[list(kinds)[i % len(kinds)]].append(float(own.get(str(i), 0.0)))
    scores = np.sort(np.concatenate(list(true.values())))
    false = np.sort(false)
    grid = np.linspace(0.05, 0.95, 181)
    precision = np.array([(scores >= g).sum() / max(1, (scores >= g).sum() + (false >= g).sum()) for g in grid])
    cut = grid[np.flatnonzero(precision >= 0.99)[0]]
    at5 = lambda v, c: round(float((np.array(v) >= c).mean()), 3)
    table = pd.DataFrame(
        [
            dict(
                kind=k,
                n=len(v),
                recall_at_precision_99=at5(v, cut),
                recall_at_default=at5(v, 0.65),
                median_score=round(float(np.median(v)), 3),
            )
            for k, v in true.items()
        ]
    )
    return table, dict(
        score_at_precision_99=round(float(cut), 3),
        precision_at_default=round(float(precision[np.searchsorted(grid, 0.65)]), 4),
        highest_false=round(float(false.max(initial=0)), 3),
    )


def timed(photos, n):
    rng = np.random.default_rng(0)
    px = np.stack(
        [
            clip(at(photos[i % len(photos)], *rng.integers(-60, 61, 2)).astype(float) + rng.normal(0, 8, size))
            for i in range(min(n, 500))
        ]
    )
    px = np.concatenate(
        [np.roll(px, (rng.integers(0, 240), rng.integers(0, 320)), (1, 2)) for _ in range(-(-n // len(px)))]
    )[:n]
    t = Memory(px, pd.DataFrame(dict(tile=np.arange(n).astype(str), field=np.arange(n).astype(str))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    find_near_duplicates(t)
    return dict(
        tiles=n,
        seconds=round(time.perf_counter() - start, 1),
        extra_MB=round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000),
    )


results = Path(__file__).parent / 'results'
plan = (('balanced', 1.0), ('balanced', 0.0), ('confounded', 1.0), ('wells', 1.0))


def simulator():
    return hashlib.sha256(inspect.getsource(simulate_microscope).encode()).hexdigest()[:12]


class Table:
    "Rows in a CSV that are written one by one; those of another simulator do not count."

    def __init__(self, name):
        self.path = results / name
        self.now = simulator()

    @property
    def rows(self):
        d = pd.read_csv(self.path) if self.path.is_file() else pd.DataFrame(columns=['simulator'])
        return d[d.simulator == self.now]

    def has(self, **key):
        d = self.rows
        return bool(len(d)) and (d[list(key)] == pd.Series(key)).all(axis=1).any()

    def add(self, rows):
        d = pd.DataFrame([{**r, 'simulator': self.now, 'date': time.strftime('%Y-%m-%d')} for r in rows])
        pd.concat([o for o in (self.rows, d) if len(o)]).to_csv(self.path, index=False)
        print(
            d.drop(columns=['simulator', 'date', 'sentence'], errors='ignore').to_string(index=False, header=False),
            flush=True,
        )


def experiment(folder, design, effect, seed, **kw):
    src = simulate_microscope.simulate_experiment(
        folder / 'p',
        **{
            **dict(
                lines=('U2OS', 'MCF7'),
                hours=(0, 1),
                wells=3,
                sites=1,
                size=(180, 240),
                design=design,
                effect=effect,
                seed=seed,
                workers=1,
            ),
            **kw,
        },
    )
    return cut_tiles(read_fields(src), folder / 't', grid=(2, 2))


def designs(seeds, first):
    "The audit, its controls with the cheap classifier, of simulated experiments of every design."
    out = Table('audit_designs.csv')
    for design, effect in plan:
        for seed in range(first, first + seeds):
            if out.has(design=design, effect=effect, seed=seed):
                continue
            with tempfile.TemporaryDirectory() as d:
                a = audit(experiment(Path(d), design, effect, seed), seed=seed)
            best = a.shortcuts.groupby('sees').share.max()
            ctrl = a.controls.set_index('control').verdict
            out.add(
                [
                    dict(
                        design=design,
                        effect=effect,
                        seed=seed,
                        verdict=a.verdict,
                        confounded_with=' '.join(o['factor'] for o in a.confounding.caught),
                        best_shortcut=round(best.max(), 3),
                        **best.round(3),
                        **ctrl,
                    )
                ]
            )
    table = summary(out.rows)
    print(table.to_string())
    (results / 'audit_designs.json').write_text(
        json.dumps(
            dict(
                simulator=out.now,
                date=time.strftime('%Y-%m-%d'),
                first_seed=first,
                table=json.loads(table.T.reset_index().to_json(orient='records')),
            ),
            indent=1,
        )
        + '\n'
    )


def summary(d):
    "Counts over the seeds."
    g = d.groupby(['design', 'effect'])
    res = pd.DataFrame(
        dict(
            seeds=g.size(),
            failed=g.verdict.apply(lambda v: (v == 'failed').sum()),
            shortcut_above_85=g.best_shortcut.apply(lambda v: (v > 0.85).sum()),
            best_shortcut_median=g.best_shortcut.median(),
            best_shortcut_lowest=g.best_shortcut.min(),
        )
    )
    for c in ('labels shuffled', 'before the drug', 'vehicle wells', 'background only'):
        for v in ('above chance', 'at chance', 'cannot be told with so few'):
            res[f'{c}: {v}'] = g[c].apply(lambda o: (o == v).sum())
    return res.T


def network(first):
    "The controls with a small network: the quick recipe on smaller pictures and for half as long."
    from celldeath_nb.learn.recipes import Recipe

    out = Table('audit_network.csv')
    all_ = ['labels shuffled', 'before the drug', 'vehicle wells', 'background only']
    for design, effect, names in (
        ('balanced', 1.0, all_),
        ('confounded', 1.0, ['background only', 'before the drug', 'labels shuffled']),
        ('wells', 1.0, ['vehicle wells']),
        ('balanced', 4.0, ['labels shuffled', 'background only']),
    ):
        todo = [o for o in names if not out.has(design=design, effect=effect, seed=first, control=o)]
        with tempfile.TemporaryDirectory() as d:
            t = (
                experiment(
                    Path(d), design, effect, first, lines=('U2OS',), hours=(0, 3), wells=4, sites=1, size=(240, 320)
                )
                if todo
                else None
            )
            for name in todo:
                start = time.perf_counter()
                c = negative_controls(t, Recipe.quick(size=60, min_steps=120, seed=first), seed=first, names=[name])
                out.add(
                    [
                        dict(design=design, effect=effect, seed=first, **r, seconds=round(time.perf_counter() - start))
                        for r in c.round(3).to_dict('records')
                    ]
                )


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--photographs', type=int, default=144)
    ap.add_argument('--many', type=int, default=10_000)
    ap.add_argument('--folder', help='photographs to plant among; default: simulated ones')
    ap.add_argument(
        '--designs', type=int, default=0, help='audit this many simulated experiments of each design, and nothing else'
    )
    ap.add_argument(
        '--network', action='store_true', help='the negative controls with a trained network, and nothing else'
    )
    ap.add_argument('--first', type=int, default=2000, help='the first seed of these')
    ap.add_argument('--out', type=Path)
    a = ap.parse_args()
    if a.designs:
        return designs(a.designs, a.first)
    if a.network:
        return network(a.first)
    with tempfile.TemporaryDirectory() as d:
        folder = (
            Path(a.folder)
            if a.folder
            else simulate_microscope.simulate_experiment(Path(d) / 's', sites=max(1, a.photographs // 48))
        )
        photos = [read_image(o) for o in read_fields(folder, label_from=None).path]
        table, found = recall(photos)
        print(table.to_string(index=False), '\n', found)
        times = [timed(photos, n) for n in (a.many // 4, a.many // 2, a.many)] if a.many else []
        print(pd.DataFrame(times).to_string(index=False))
    if a.out:
        a.out.write_text(
            json.dumps(
                dict(
                    recall=table.to_dict('records'),
                    **found,
                    times=times,
                    machine=f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} core(s)',
                    date=time.strftime('%Y-%m-%d'),
                ),
                indent=1,
            )
            + '\n'
        )


if __name__ == '__main__':
    main()
