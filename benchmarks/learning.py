"""What a recipe learns in how much processor time: the quick recipe beside the probe, on real photographs that are given, split by group.

    python benchmarks/learning.py PHOTOGRAPHS --pattern '{line}-{frame}[.j]-{cell}-{n}' --group frame     # five splits
    python benchmarks/learning.py PHOTOGRAPHS --arms probe quick --splits 5 --out benchmarks/results/learning.json

Photographs lie in one folder a class. A quarter of the groups is held out for the test, 30 % of the others for validation, anew for each split; every arm gets the same splits.
Seconds are of the processor on one core, with everything: the first look at all tiles for the probe, training and choice of the epoch for the network. An arm's features are not kept from one split to the next.
"""

import argparse, sys, tempfile, time
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

import pandas as pd
import torch

from celldeath_nb.files import write_json
from celldeath_nb.learn.probes import probe
from celldeath_nb.learn.recipes import Recipe, fit_batch
from celldeath_nb.learn.runs import environment
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by


def split(tiles, group, seed):
    "A quarter of the groups for the test, 30 % of the others for validation."
    held = split_by(tiles.table, None, 0.25, group, seed=seed + 1).split.map(dict(valid='yes', train='no')).to_numpy()
    drawn = split_by(tiles.table.assign(drawn=held), {'drawn': 'yes'}, 0.3, group, seed=seed)
    return tiles.add(split=drawn.split.to_numpy())


def by_network(tiles, seed, folder):
    "The quick recipe."
    r = fit_batch(Recipe.quick(seed=seed), int((tiles.table.split == 'train').sum()))
    return train(tiles, r, folder / f'quick_{seed}', 'cpu', duplicates='ignore').preds


def by_probe(tiles, seed, folder):
    "The probe, looking at all tiles anew."
    return probe(tiles, Recipe.probe(seed=seed), 'cpu', cache=folder / f'features_{seed}')


def by_chance(tiles, seed, folder):
    "The probe on random weights of the same network: what the weights are worth."
    r = Recipe.probe(seed=seed, weights='scratch')
    return probe(tiles, r, 'cpu', cache=folder / f'random_{seed}')


arms = dict(probe=by_probe, random=by_chance, quick=by_network)


def measured(tiles, group, names, splits, folder):
    "A row an arm and split: accuracy on the test tiles and processor seconds."
    rows = []
    for seed in range(splits):
        drawn = split(tiles, group, seed)
        for name in names:
            t0 = time.process_time()
            preds = arms[name](drawn, seed, folder)
            seconds = time.process_time() - t0
            test = preds[preds.split == 'test']
            row = dict(
                arm=name, split=seed, accuracy=float((test.label == test.pred).mean()), seconds=seconds, n=len(test)
            )
            rows.append(row)
            print(' '.join(f'{k}={v:.3f}' if isinstance(v, float) else f'{k}={v}' for k, v in row.items()), flush=True)
    return pd.DataFrame(rows)


def summary(rows):
    "Mean and standard deviation of each arm, and of the differences to the quick recipe on the same splits."
    res = {}
    wide = rows.pivot(index='split', columns='arm', values='accuracy')
    for name, g in rows.groupby('arm'):
        res[name] = dict(
            accuracy=float(g.accuracy.mean()),
            sd=float(g.accuracy.std()),
            seconds=float(g.seconds.mean()),
            splits=len(g),
        )
        if 'quick' in wide and name != 'quick':
            d = wide[name] - wide['quick']
            res[name] |= dict(more_than_quick=float(d.mean()), more_sd=float(d.std()))
    return res


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('photographs', help='folder of photographs, one folder a class')
    a.add_argument('--pattern', help='how names are built, see read_fields')
    a.add_argument('--group', default='field', help='what never parts: field, or a part of the pattern')
    a.add_argument('--arms', nargs='+', default=list(arms), choices=list(arms))
    a.add_argument('--splits', type=int, default=5)
    a.add_argument('--name', default='', help='what the set is called in the results')
    a.add_argument('--out', help='JSON to write')
    o = a.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        tiles = cut_tiles(read_fields(o.photographs, pattern=o.pattern, label_from='folder'), d / 'tiles', grid=(1, 1))
        rows = measured(tiles, o.group, o.arms, o.splits, d)
        counts = {str(k): int(v) for k, v in tiles.table.label.value_counts().items()}
    res = dict(set=o.name, counts=counts, group=o.group, arms=summary(rows), rows=rows.to_dict('records'))
    for k, v in res['arms'].items():
        print(k, {i: round(j, 3) for i, j in v.items()})
    if o.out:
        write_json(dict(environment('cpu'), **res), o.out)


if __name__ == '__main__':
    main()
