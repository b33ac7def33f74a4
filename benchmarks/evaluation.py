"""Metrics with 2,000 resamples of wells for 100,000 predictions of 14 classes, against a plain loop over scikit-learn, on one core.

    python benchmarks/evaluation.py [--rows 100000] [--loops 3] [--json benchmarks/results/evaluation.json]

The loop computes the same metrics by scikit-learn for each resample; a few resamples are timed and scaled to 2,000, and the first ones are compared number by number.
"""
import argparse, os, statistics, sys, time, warnings

for v in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[v] = '1'
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

import numpy as np
import pandas as pd
from sklearn import metrics as skm

import celldeath_nb.evaluate.scores as evaluate_scores
import celldeath_nb.evaluate.intervals as evaluate_intervals
import celldeath_nb.evaluate.preds as evaluate_preds
from celldeath_nb.files import write_json


def table(rows, classes=14, wells=112, seed=0):
    "Predictions of 14 classes from 112 wells, 8 of each class, as in the paper (7 lines, 2 treatments, 2 wells, 4 experiments)."
    rng, names = np.random.default_rng(seed), [f'class {i:02}' for i in range(classes)]
    well = np.sort(np.arange(rows) % wells)
    y = well % classes
    z = rng.normal(size=(rows, classes))
    z[np.arange(rows), y] += 2.5+rng.normal(0, .7, wells)[well]
    p = np.exp(z)
    p /= p.sum(1, keepdims=True)
    df = pd.DataFrame(p, columns=[f'p_{c}' for c in names])
    return df.assign(label=np.array(names)[y], pred=np.array(names)[p.argmax(1)], well=well.astype(str), experiment='N4'), y, p, well


def by_sklearn(y, v, p):
    "The headline metrics, one call each."
    ids = np.arange(p.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        precision, recall, f1, _ = skm.precision_recall_fscore_support(y, v, labels=ids, zero_division=np.nan)
        return dict(accuracy=skm.accuracy_score(y, v), balanced_accuracy=skm.balanced_accuracy_score(y, v), mcc=skm.matthews_corrcoef(y, v),
            f1_macro=f1.mean(), precision_macro=np.nanmean(precision), recall_macro=np.nanmean(recall), roc_auc=skm.roc_auc_score(y, p, multi_class='ovr', labels=ids),
            average_precision=np.mean([skm.average_precision_score(y == j, p[:, j]) for j in ids]), brier=((p-np.eye(len(ids))[y])**2).sum(1).mean(), log_loss=skm.log_loss(y, p, labels=ids))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--rows', type=int, default=100_000)
    a.add_argument('--resamples', type=int, default=2000)
    a.add_argument('--loops', type=int, default=3, help='resamples that the scikit-learn loop is timed on')
    a.add_argument('--repeats', type=int, default=3)
    a.add_argument('--json', default='', help='write the numbers here')
    o = a.parse_args()
    df, y, p, well = table(o.rows)
    v, ours, cpu, theirs = p.argmax(1), [], [], []
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(well == w) for w in range(well.max()+1)]
    for _ in range(o.repeats):
        t, c = time.perf_counter(), time.process_time()
        m = evaluate_scores.metrics(df, n_boot=o.resamples)
        ours.append(time.perf_counter()-t)
        cpu.append(time.process_time()-c)
    worst = 0.
    parts = evaluate_intervals.ScoreParts(y, v, p, well, evaluate_preds.class_names(df), None)
    for _ in range(o.loops):
        w = rng.multinomial(parts.n, np.full(parts.n, 1/parts.n))
        t = time.perf_counter()
        rows = np.concatenate([np.tile(members[i], n) for i, n in enumerate(w) if n])
        ref = by_sklearn(y[rows], v[rows], p[rows])
        theirs.append(time.perf_counter()-t)
        got = parts.scores(w[None].astype(float))
        worst = max(worst, *(abs(got[k][0]-x) for k, x in ref.items()))
    exact = by_sklearn(y, v, p)
    first = max(abs(m[k]-x) for k, x in exact.items())
    loop = statistics.median(theirs)*o.resamples
    res = dict(rows=o.rows, classes=14, wells=int(parts.n), resamples=o.resamples, seconds=statistics.median(ours), seconds_all=ours, cpu_seconds=statistics.median(cpu), sklearn_seconds_per_resample=statistics.median(theirs),
        sklearn_seconds=loop, ratio=loop/statistics.median(ours), largest_difference=float(first), largest_difference_in_resamples=float(worst), metrics_given=len(m), metrics_of_the_loop=len(exact))
    for k, x in res.items(): print(f'{k}: {x}')
    if o.json: write_json(res, o.json)
    if o.rows == 100_000 and o.resamples == 2000 and res['seconds'] >= 5: sys.exit('slower than 5 s')


if __name__ == '__main__': main()
