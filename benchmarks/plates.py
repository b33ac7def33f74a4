"""Plates and doses: speed on one core, and whether intervals keep their promise on simulated plates.

    python benchmarks/plates.py [--plates 500] [--seed 2027] [--json benchmarks/results/plates.json]

With --json each piece is written as it is done, and what the file holds already is not done again.

Speed: the scores of 384 wells with 1,000 resamples of their photographs, and 1,000 dose-response curves with profile intervals. Promises: of the interval of a well, of the EC50
(from tiles to the interval; randomized and sorted layouts; few and many wells), of Z', and the false alarms of the time to detection. All data are simulated.
"""

import argparse, os, statistics, sys, time, warnings

for v in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ[v] = '1'
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

import numpy as np
import pandas as pd

from celldeath_nb.files import read_json, write_json
from celldeath_nb.plates.curves import fit_curves
from celldeath_nb.plates.doses import dose_response
from celldeath_nb.plates.hours import detection_times
from celldeath_nb.plates.layouts import layout_plate
from celldeath_nb.plates.maps import check_map, well_name
from celldeath_nb.plates.plates import simulate_plate_scores, well_scores
from celldeath_nb.plates.quality import plate_quality

doses = [0.03, 0.1, 0.3, 1, 3, 10, 30, 100]
true_ec50 = 0.9  # of U2OS in the simulator


def timed(f, repeats=3):
    "Median wall and processor seconds of `f`."
    wall, cpu = [], []
    for _ in range(repeats):
        t, c = time.perf_counter(), time.process_time()
        f()
        wall.append(time.perf_counter() - t)
        cpu.append(time.process_time() - c)
    return dict(seconds=statistics.median(wall), cpu_seconds=statistics.median(cpu), seconds_all=wall)


def speed(seed):
    plan = layout_plate(
        'CPT', np.geomspace(0.01, 100, 20).tolist(), 14, wells=384, edges='used', vehicles=104, seed=seed
    )
    preds = simulate_plate_scores(plan, sites=9, tiles=8, seed=seed)
    out = dict(
        wells_384=dict(wells=int((plan.role != 'empty').sum()), tiles=len(preds), resamples=1000)
        | timed(lambda: well_scores(preds, plan))
    )
    rng, d = np.random.default_rng(seed), np.repeat([0, *doses], [6, *[3] * 8]).astype(float)
    curves = [
        (d, -3 + 4 / (1 + (1 / np.maximum(d, 1e-99)) ** 1.2) + 0.4 * rng.standard_normal(len(d))) for _ in range(1000)
    ]
    out['curves_1000'] = dict(curves=1000, wells_each=len(d)) | timed(lambda: fit_curves(curves))
    table = pd.concat([pd.DataFrame(dict(plate=i, dose_um=d, score=y)) for i, (d, y) in enumerate(curves)])
    out['dose_response_1000'] = dict(curves=1000) | timed(lambda: dose_response(table, by='plate'), 1)
    return out


def judged(t):
    "How many rows have a number, how many of those hold the truth, and how many sentences are wrong."
    told = t[t.ec50.notna()]
    right = (told.low <= true_ec50) & (told.high >= true_ec50)
    clear = ~told.note.str.contains('faint|do not trust')
    held = right.mean() if len(told) else np.nan
    some = t.low.isna() | ((t.low <= true_ec50) & (t.high >= true_ec50))
    words = t[t.ec50.isna()]
    wrong = words.low > true_ec50
    return dict(
        plates=len(t),
        with_a_number=len(told),
        held=float(held),
        without_a_caveat=int(clear.sum()),
        held_without_a_caveat=float(right[clear].mean()),
        held_sentences_too=float(some.mean()),
        sentences=len(words),
        wrong_sentences=int(wrong.sum()),
        median_fold_width=float(np.median(told.high / told.low)) if len(told) else np.nan,
        median_ec50=float(told.ec50.median()),
    )


def sorted_layout(replicates):
    "Doses in columns in rising order after two columns of the vehicle, as plates are often pipetted."
    rows = [
        dict(well=well_name(r + 1, c + 1), treatment='CPT' if c > 1 else 'DMSO', dose_um=doses[c - 2] if c > 1 else 0.0)
        for r in range(replicates)
        for c in range(10)
    ]
    return check_map(pd.DataFrame(rows).assign(plate='P1'), 96)


def from_tiles(maps, seed, luck=None, hour=3, gain=3.0):
    "Wells of simulated plates, made from their tiles."
    tables = [
        well_scores(simulate_plate_scores(m, hours=(hour,), gain=gain, luck=luck, seed=seed + i), m, n_boot=2).assign(
            plate=str(i)
        )
        for i, m in enumerate(maps)
    ]
    return pd.concat(tables, ignore_index=True)


def ec50(n, seed, k):
    "Intervals of the EC50 from `k` wells a dose, the whole way from tiles."
    maps = [
        layout_plate(
            'CPT', doses, k, edges='used' if k == 6 else 'empty', vehicles=max(k, 3) + 3, seed=seed + 10_000 * k + i
        )
        for i in range(n)
    ]
    t = from_tiles(maps, seed + 10_000 * k)
    return {i: judged(dose_response(t, by='plate', interval=i)) for i in ('profile', 'wald')}


def ec50_drift(n, seed):
    "The same on plates with a drift and an edge, dealt out and in rising columns."
    drift = dict(columns=1.5, edge=0.5)
    maps = [layout_plate('CPT', doses, 6, edges='used', vehicles=12, seed=seed + i) for i in range(n)]
    return dict(
        randomized=judged(dose_response(from_tiles(maps, seed + 70_000, drift), by='plate')),
        in_rising_columns=judged(dose_response(from_tiles([sorted_layout(6)] * n, seed + 70_000, drift), by='plate')),
    )


def ec50_weak(n, seed):
    "The same at 1 h, where the effect is weak."
    maps = [layout_plate('CPT', doses, 4, vehicles=7, seed=seed + 90_000 + i) for i in range(n)]
    return judged(dose_response(from_tiles(maps, seed + 80_000, hour=1), by='plate'))


def no_effect(n, seed):
    "How many plates without an effect get an EC50."
    rng, d = np.random.default_rng(seed), np.repeat([0, *doses], [6, *[3] * 8]).astype(float)
    t = pd.concat([pd.DataFrame(dict(plate=i, dose_um=d, score=0.4 * rng.standard_normal(len(d)))) for i in range(n)])
    out, drift = (
        {'no drift': dict(plates=n, with_a_number=int(dose_response(t, by='plate').ec50.notna().sum()))},
        dict(columns=1.5),
    )
    dealt = [layout_plate('CPT', doses, 6, vehicles=12, seed=seed + i) for i in range(n)]
    for name, maps in (('drift, randomized', dealt), ('drift, in rising columns', [sorted_layout(6)] * n)):
        r = dose_response(from_tiles(maps, seed + 95_000, drift, gain=0.0), by='plate')
        out[name] = dict(
            plates=n,
            called_a_response=int((~r.note.str.startswith('no response')).sum()),
            with_a_number=int(r.ec50.notna().sum()),
        )
    return out


def of_wells(n, seed):
    "How many intervals of a well hold its own score, by its number of photographs."
    out, plan = {}, layout_plate('CPT', [1, 10], 15, seed=seed)
    for sites in (2, 3, 4, 8):
        held = []
        for i in range(max(2, n // 50)):
            s = seed + 1000 * sites + i
            big = well_scores(
                simulate_plate_scores(plan, sites=1, tiles=1, luck=dict(tile=0, field=0), seed=s), plan, n_boot=2
            )  # the same wells, without luck of photographs
            t = well_scores(simulate_plate_scores(plan, sites=sites, tiles=6, seed=s), plan, seed=s)
            held.append(((t.low <= big.score) & (t.high >= big.score)).mean())
        out[f'{sites} photographs'] = dict(wells=len(t) * len(held), held=float(np.mean(held)))
    return out


def of_z(n, seed):
    "How many intervals of Z' hold the Z' of the distributions."
    rng, out, true = np.random.default_rng(seed), {}, 1 - 3 * (1 + 0.5) / 10
    for k in (3, 4, 8, 16):
        held = []
        for i in range(n):
            y = np.r_[10 + rng.standard_normal(k), 0.5 * rng.standard_normal(k)]
            q = plate_quality(
                pd.DataFrame(dict(well=range(2 * k), treatment=['CPT'] * k + ['DMSO'] * k, score=y)),
                'CPT',
                'DMSO',
                seed=i,
            ).iloc[0]
            held.append(q.low <= true <= q.high)
        out[f'{k} wells a control'] = dict(plates=n, held=float(np.mean(held)))
    return out


def alarms(n, seed):
    "How many wells without an effect are called within six hours, by the number of vehicle wells."
    rng, out = np.random.default_rng(seed), {}
    for k in (4, 8, 16):
        called = []
        for i in range(n):
            y = (
                0.6 * rng.standard_normal((k + 10, 1))
                + 0.3 * rng.standard_normal((k + 10, 7))
                + 0.2 * rng.standard_normal((1, 7))
            )
            t = (
                pd.DataFrame(y, columns=[0, 0.5, 1, 1.5, 2, 3, 4])
                .assign(well=range(k + 10), dose_um=[0.0] * k + [10.0] * 10)
                .melt(['well', 'dose_um'], var_name='hour', value_name='score')
            )
            times = detection_times(t, draws=1000, seed=i)
            called.append(times.hour_detected[times.dose_um > 0].notna().mean())
        out[f'{k} vehicle wells'] = dict(plates=n, false_alarms=float(np.mean(called)))
    return out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--plates', type=int, default=500)
    a.add_argument('--seed', type=int, default=2027)
    a.add_argument('--json', default='', help='write the numbers here')
    o = a.parse_args()
    warnings.simplefilter('ignore')
    res = read_json(o.json) if o.json and os.path.exists(o.json) else {}
    if (res.get('plates'), res.get('seed')) != (o.plates, o.seed):
        res = dict(plates=o.plates, seed=o.seed)
    pieces = dict(speed=speed)
    pieces |= {f'ec50_{k}_wells_a_dose': lambda s, k=k: ec50(o.plates, s, k) for k in (3, 4, 6, 2, 1)}
    pieces |= dict(
        detection=lambda s: alarms(o.plates, s),
        wells=lambda s: of_wells(o.plates, s),
        z_prime=lambda s: of_z(o.plates, s),
        no_effect=lambda s: no_effect(o.plates, s),
        ec50_drift=lambda s: ec50_drift(o.plates, s),
        ec50_weak=lambda s: ec50_weak(o.plates, s),
    )
    for name, f in pieces.items():
        if name not in res:
            res[name] = f(o.seed)
        print(name, flush=True)
        for k, v in res[name].items():
            print('   ', k, v, flush=True)
        if o.json:
            write_json(res, o.json)
    if res['speed']['wells_384']['cpu_seconds'] > 2 or res['speed']['curves_1000']['cpu_seconds'] > 20:
        sys.exit('slower than was promised')


if __name__ == '__main__':
    main()
