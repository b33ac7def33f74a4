"""What the simulated microscope reaches: speed, realism beside the real photographs, no shortcut, learnable in order.

    python benchmarks/simulate.py [speed] [realism] [shortcut] [learn] [--photos ../shared/data/u2os] [--small] [--sets "1 h" "2 h" ...]

Without a part named, all run. Each part prints its table and stores it in benchmarks/results/simulate_<part>.csv (simulate_<part>_small.csv with --small);
`shortcut` and `learn` do so after every set, and `--sets` makes only those named, leaving the rows of the others.
Nothing measured here is a statement about cells."""

import argparse, os, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
import celldeath_nb.simulate.microscope as simulate_microscope
from celldeath_nb.simulate.microscope import cell_lines, simulate_experiment, simulate_field


def keep(df, part, args, among=None):
    "Print a table and store it; `among`: all names of sets in order, and rows of other sets stay"
    where = root / 'benchmarks' / 'results' / f'simulate_{part}{"_small" if args.small else ""}.csv'
    if among and where.is_file() and 'set' in (old := pd.read_csv(where)):
        df = pd.concat([old[~old.set.isin(df.set) & old.set.isin(among)], df])
        df = df.iloc[np.argsort([among.index(o) for o in df.set], kind='stable')]
    print(f'\n{part}\n{df.to_string(index=False)}', flush=True)
    where.parent.mkdir(exist_ok=True)
    df.to_csv(where, index=False, lineterminator='\n')


def between(lo, hi):
    return f'{lo:.3f} to {hi:.3f}'


def wilson(k, n):
    from statsmodels.stats.proportion import proportion_confint

    return between(*proportion_confint(k, n, method='wilson'))


def chance(n):
    "The 95 % interval of the accuracy that guessing gives on `n` pictures of two equally frequent classes"
    from scipy.stats import binom

    return between(*binom.ppf([0.025, 0.975], n, 0.5) / n)


# ---- speed


def one_core(line, size, runs):
    "Median seconds and the peak memory of a fresh process on one core"
    code = (
        f"import time,resource; from celldeath_nb.simulate import simulate_field as s; s({line!r}, size={size}); t=[]\n"
        f"for i in range({runs}):\n  a=time.perf_counter(), time.process_time(); _,u=s({line!r}, size={size}, seed=i, nuisance=dict(density=1.2)); t.append((time.perf_counter()-a[0], time.process_time()-a[1]))\n"
        "w,c=(sorted(x)[len(t)//2] for x in zip(*t)); print(w, c, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024, len(u.table))"
    )
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
    pin = ['taskset', '-c', '0'] if sys.platform == 'linux' else []
    return [
        float(o)
        for o in subprocess.run(
            pin + [sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True
        ).stdout.split()
    ]


def speed(args):
    rows = []
    for line, size, aim in (
        ('U2OS', (960, 1280), 1.0),
        ('H9', (960, 1280), 1.0),
        ('U2OS', (480, 640), 0.25),
        ('H9', (480, 640), 0.25),
    ):
        wall, cpu, mb, cells = one_core(line, size, 3 if args.small else 7)
        rows.append(
            dict(
                line=line,
                size=f'{size[0]}x{size[1]}',
                cells=int(cells),
                seconds=round(wall, 3),
                cpu_seconds=round(cpu, 3),
                peak_mb=round(mb),
                aim_seconds=aim,
            )
        )
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as d:
            t = time.perf_counter()
            simulate_experiment(
                Path(d) / 'set',
                lines=('U2OS',),
                experiments=4,
                wells=2,
                sites=1 if args.small else 6,
                size=(480, 640),
                workers=workers,
            )
            n = len(list((Path(d) / 'set').glob('*.png')))
            seconds = time.perf_counter() - t
        rows.append(
            dict(
                line='U2OS',
                size=f'{n} x 480x640, workers={workers}',
                seconds=round(seconds, 2),
                speed_up=round(rows[-1]['seconds'] / seconds, 2) if workers > 1 else None,
            )
        )
    keep(pd.DataFrame(rows), 'speed', args)


# ---- realism


def spectrum(a, bins=24):
    "Log10 of the radially averaged power spectrum under a Hann window"
    h = np.hanning(a.shape[0])[:, None] * np.hanning(a.shape[1])
    f = np.hypot(np.fft.fftfreq(a.shape[0])[:, None], np.fft.rfftfreq(a.shape[1])[None])
    power = np.abs(np.fft.rfft2((a - a.mean()) * h)) ** 2 / (h**2).sum()
    which = np.digitize(f.ravel(), np.geomspace(0.004, 0.5, bins + 1))
    return np.array([np.log10(power.ravel()[which == i].mean()) for i in range(1, bins + 1)])


def look(a):
    "Everything about one photograph that is compared"
    from scipy.ndimage import uniform_filter

    a = a.astype(float)
    m = uniform_filter(a, 32)
    sd = np.sqrt(np.clip(uniform_filter(a * a, 32) - m * m, 0, None))[16:-16:16, 16:-16:16]
    gy, gx = np.gradient(a)
    return dict(
        spectrum=spectrum(a),
        local_sd=sd.ravel(),
        gradient=np.hypot(gy, gx)[::7, ::7].ravel(),
        mean=a.mean(),
        sd=a.std(),
        patches=patches(a),
    )


def patches(a, n=40, size=32):
    "Texture features of `n` patches of 32x32: sd, skewness, kurtosis, gradients, and energies of six bands"
    from scipy.ndimage import gaussian_filter
    from scipy.stats import kurtosis, skew

    rng = np.random.default_rng(0)
    bands = [gaussian_filter(a, s) - gaussian_filter(a, 2 * s) for s in (0.5, 1, 2, 4)] + [a - gaussian_filter(a, 0.5)]
    out = []
    for y, x in zip(rng.integers(0, a.shape[0] - size, n), rng.integers(0, a.shape[1] - size, n)):
        w = np.s_[y : y + size, x : x + size]
        p = a[w]
        gy, gx = np.gradient(p)
        g = np.hypot(gy, gx)
        out.append(
            [
                p.std(),
                skew(p, None),
                kurtosis(p, None),
                g.mean(),
                g.std(),
                np.corrcoef(p[:, 1:].ravel(), p[:, :-1].ravel())[0, 1],
            ]
            + [b[w].std() for b in bands]
            + [kurtosis(b[w], None) for b in bands]
        )
    return np.nan_to_num(out)


def distance(A, B):
    from scipy.stats import wasserstein_distance

    pool = lambda X, k: np.concatenate([x[k] for x in X])
    d = dict(spectrum=np.abs(np.mean([a['spectrum'] for a in A], 0) - np.mean([b['spectrum'] for b in B], 0)).mean())
    d |= {k: wasserstein_distance(pool(A, k), pool(B, k)) for k in ('local_sd', 'gradient')}
    return {
        k: round(float(v), 3)
        for k, v in (
            d | {k: abs(np.mean([a[k] for a in A]) - np.mean([b[k] for b in B])) for k in ('mean', 'sd')}
        ).items()
    }


def auc(A, B):
    "Forest on patches, grouped by photograph, 5 folds: how well A is told from B"
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    X = np.concatenate([o['patches'] for o in A + B])
    g = np.repeat(np.arange(len(A + B)), [len(o['patches']) for o in A + B])
    y = g >= len(A)
    p = cross_val_predict(
        RandomForestClassifier(200, min_samples_leaf=3, n_jobs=-1, random_state=0),
        X,
        y,
        groups=g,
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
        method='predict_proba',
    )[:, 1]
    return round(roc_auc_score(y, p), 3)


def realism(args):
    from PIL import Image

    files = sorted(Path(args.photos).glob('U2_*.png'))
    if not files:
        return print(f'realism: left out, no photographs in {args.photos}')
    real = {f.name: look(np.asarray(Image.open(f))) for f in files}
    n1, n3 = ([v for k, v in real.items() if e in k] for e in ('N1.png', 'N3.png'))
    plan = simulate_microscope._plan(
        ('U2OS',), ('DMSO', 'CPT'), (1,), 8, 1, 1 if args.small else 3, (10.0,), 'balanced', 0, {}
    )
    sim = [
        look(simulate_field('U2OS', r['treatment'], 1, r['dose_um'] or None, seed=i, nuisance=r['nuisance'])[0])
        for i, r in enumerate(plan)
    ]
    every = list(real.values())
    pairs = {
        'real N1, real N3': (n1, n3),
        'simulated, real': (sim, every),
        'simulated, real N1': (sim, n1),
        'simulated, real N3': (sim, n3),
    }
    keep(
        pd.DataFrame(
            [
                dict(compared=k, n=f'{len(a)}, {len(b)}', **distance(a, b), patch_auc=auc(a, b))
                for k, (a, b) in pairs.items()
            ]
        ),
        'realism',
        args,
    )


# ---- no shortcut


def first_order(a):
    return np.r_[a.mean(), a.std(), np.percentile(a, [1, 5, 25, 50, 75, 95, 99])]


def held_out(X, y, e):
    "Right or wrong for each picture, by a logistic regression that has seen the other experiments"
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ok = np.zeros(len(y), bool)
    for t in np.unique(e):
        ok[e == t] = (
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
            .fit(X[e != t], y[e != t])
            .predict(X[e == t])
            == y[e == t]
        )
    return ok


def first_orders(folder, file, k):
    "First-order numbers of a photograph cut into `k` times `k` tiles"
    from PIL import Image

    a = np.asarray(Image.open(folder / file))
    return [first_order(t) for row in np.array_split(a, k) for t in np.array_split(row, k, axis=1)]


shortcuts = {
    f'{design}, {hour} h, seed {seed}': dict(design=design, hours=(hour,), seed=seed)
    for design, hour, seed in (
        ('balanced', 1, 101),
        ('balanced', 1, 102),
        ('balanced', 3, 101),
        ('confounded', 1, 101),
        ('wells', 1, 101),
    )
}


def shortcut(args):
    "How well brightness and its spread alone tell the treatments apart; all lines, 480x640; a tile is a quarter of a photograph"
    for name in args.sets or shortcuts:
        if name not in shortcuts:
            continue
        rows = []
        with tempfile.TemporaryDirectory() as d:
            out = simulate_experiment(
                Path(d) / 'set',
                lines=tuple(cell_lines),
                wells=2,
                sites=1 if args.small else 2,
                size=(480, 640),
                **shortcuts[name],
            )
            f = pd.read_csv(out / 'truth' / 'fields.csv')
            X = {k: [first_orders(out, o, k) for o in f.file] for k in (1, 2)}
        for k, what in ((1, 'photographs'), (2, 'tiles')):
            y, e = (np.repeat(v, k * k) for v in ((f.treatment == 'CPT').to_numpy(), f.experiment.to_numpy()))
            ok = held_out(np.concatenate(X[k]), y, e)
            for held, m in [('each experiment once', np.ones(len(y), bool)), ('N4', e == 'N4')]:
                rows.append(
                    dict(
                        set=name,
                        of=what,
                        held_out=held,
                        n=int(m.sum()),
                        accuracy=round(ok[m].mean(), 3),
                        chance_95=chance(m.sum()),
                        chance_95_by_photograph=chance(m.sum() // (k * k)),
                    )
                )
        keep(pd.DataFrame(rows), 'shortcut', args, list(shortcuts))


# ---- learnable, in order


def taught(folder, where):
    "Predictions for the held-out experiment N4 of a network trained on the others by `Recipe.quick()`, and the seconds it took"
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.splits import split_by
    from celldeath_nb.tiles.cut import cut_tiles
    from celldeath_nb.learn.recipes import Recipe
    from celldeath_nb.learn.training import train

    tiles = split_by(
        cut_tiles(read_fields(folder, labels=['CPT', 'DMSO']), where / 'tiles', grid=(2, 2)),
        test={'experiment': 'N4'},
        valid=0.15,
    )
    t = time.perf_counter()
    p = train(tiles, Recipe.quick(), where / 'run').preds
    q = p[p.split == 'test'].copy()
    q['ok'] = q.pred == q.label
    q['n_train'] = int((p.split == 'train').sum()) or int((tiles.table.split == 'train').sum())
    q['seconds'] = round(time.perf_counter() - t)
    return q.assign(kind=[cell_lines[o].kind for o in q.line])


def counted(q, **name):
    fields = q.field.nunique()
    return dict(
        **name,
        tiles=len(q),
        photographs=fields,
        accuracy=round(q.ok.mean(), 3),
        wilson_95=wilson(q.ok.sum(), len(q)),
        chance_95=chance(len(q)),
        chance_95_by_photograph=chance(fields),
        train_tiles=int(q.n_train.iloc[0]),
        train_seconds=int(q.seconds.iloc[0]),
        cores=cores(),
    )


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


lessons = {
    **{f'{h} h': dict(hours=(h,)) for h in (1, 2, 3)},
    **{f'{d:g} uM, 2 h': dict(hours=(2,), dose_um=d) for d in (0.05, 0.5)},
    'no effect, 3 h': dict(hours=(3,), effect=0.0),
    **{f'{h} h, seed {s}': dict(hours=(h,), seed=s) for s in (104, 105) for h in (1, 2, 3)},
}


def learn(args):
    "Accuracy of `Recipe.quick()` on the tiles (quarters of photographs of 480x640) of the held-out experiment N4; dose 10 micromolar and seed 103 where no other is named"
    for name in args.sets or lessons:
        if name not in lessons:
            continue
        with tempfile.TemporaryDirectory() as d:
            kw = (
                dict(lines=tuple(cell_lines), wells=2, sites=1 if args.small else 2, size=(480, 640), seed=103)
                | lessons[name]
            )
            q = taught(simulate_experiment(Path(d) / 'set', **kw), Path(d))
        rows = [counted(q, set=name, group='all')] + [counted(g, set=name, group=k) for k, g in q.groupby('kind')]
        keep(pd.DataFrame(rows), 'learn', args, list(lessons))


if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('parts', nargs='*', help='speed, realism, shortcut, learn; none: all')
    ap.add_argument('--photos', default=str(root.parent / 'shared' / 'data' / 'u2os'))
    ap.add_argument('--small', action='store_true', help='fewer pictures, to see that it works')
    ap.add_argument('--sets', nargs='*', help='only these sets of shortcut and learn; the rows of the others stay')
    args = ap.parse_args()
    os.environ.setdefault('IN_TEST', '1')  # no progress bars
    for part in args.parts or ('speed', 'realism', 'shortcut', 'learn'):
        dict(speed=speed, realism=realism, shortcut=shortcut, learn=learn)[part](args)
