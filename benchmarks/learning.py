"""What is learned, and told, in how much processor time.

    python benchmarks/learning.py PHOTOGRAPHS --pattern '{line}-{frame}[.j]-{cell}-{n}' --group frame     # our arms, five splits
    python benchmarks/learning.py PHOTOGRAPHS --arms probe quick --splits 5 --out benchmarks/results/learning.json
    python benchmarks/learning.py PHOTOGRAPHS --part fastai --name celltype --rows benchmarks/results/learning_fastai.csv
    python benchmarks/learning.py --simulated 3 --part fastai --name 'simulated, 3 h'
    python benchmarks/learning.py --part engines --out benchmarks/results/learning_engines.json
    python benchmarks/learning.py --part threads --out benchmarks/results/learning_threads.json      # without OMP_NUM_THREADS, on a machine that does nothing else

arms: the quick recipe beside the probe, on real photographs, split by group. Photographs lie in one folder a class. A quarter of the groups is held out for the test, 30 % of the others for validation, anew for each split; every arm gets the
same splits. Seconds are of the processor on one core, with everything: the first look at all tiles for the probe, training and choice of the epoch for the network. An arm's features are not kept from one split to the next.
fastai: the same two beside plain fastai (`vision_learner` and `fine_tune` with their defaults, pictures of 224 pixels, `aug_transforms`), which begins with the weights of the probe (tf_efficientnet_lite0) and is tried after several numbers of
epochs. Its default of 64 tiles in a batch leaves one or two steps an epoch where tiles are few, so that it is also tried with batches of 16. Each row is written to a CSV as it comes, and a row that is there is not measured again: the same call goes on. Times of one call are comparable where nothing else ran on the machine; processor seconds are less disturbed than others.
engines: how long the paper's networks take for a batch as they are, with folded norms, in ONNX Runtime, and where the processor computes with it in bf16, as ratios within one call; to the left of all stands plain torch, without the memory layout that prediction uses.
threads: how many batches a second the quick recipe trains with each number of threads, alone and beside one and two programs that do nothing but count, and what `threads='auto'` chooses.
"""

import argparse, copy, subprocess, sys, tempfile, time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

import pandas as pd
import torch

from celldeath_nb.files import read_csv, write_csv, write_json
from celldeath_nb.learn.engines import Engine, as_it_is, has_bf16, largest_gap, shortest
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.pace import best_count, thread_counts, time_threads
from celldeath_nb.learn.probes import probe
from celldeath_nb.learn.recipes import Recipe, fit_batch
from celldeath_nb.learn.runs import environment
from celldeath_nb.learn.training import train
from celldeath_nb.learn.weights import installed_weights
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.simulate.microscope import simulate_experiment
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by


def simulated(folder, hour):
    "Three pluripotent lines, two experiments of two wells an arm, eight photographs a well; the label is the treatment."
    lines = ('iPS1', 'iPS2', 'H9')
    simulate_experiment(
        folder, lines, hours=(hour,), experiments=2, wells=2, sites=8, size=(240, 320), um_per_px=0.9, seed=71
    )
    fields = read_fields(folder)
    return fields.assign(label=fields.treatment)


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
            rows.append(row_of(name, drawn, seed, folder))
            say(rows[-1])
    return pd.DataFrame(rows)


def row_of(name, drawn, seed, folder):
    "One arm on one split."
    t0 = time.process_time()
    preds = arms[name](drawn, seed, folder)
    seconds = time.process_time() - t0
    test = preds[preds.split == 'test']
    return dict(arm=name, split=seed, accuracy=float((test.label == test.pred).mean()), seconds=seconds, n=len(test))


def say(row):
    print(' '.join(f'{k}={v:.3f}' if isinstance(v, float) else f'{k}={v}' for k, v in row.items()), flush=True)


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


def by_arms(o, tiles, d):
    rows = measured(tiles, o.group, o.arms, o.splits, d)
    counts = {str(k): int(v) for k, v in tiles.table.label.value_counts().items()}
    res = dict(set=o.name, counts=counts, group=o.group, arms=summary(rows), rows=rows.to_dict('records'))
    for k, v in res['arms'].items():
        print(k, {i: round(j, 3) for i, j in v.items()})
    if o.out:
        write_json(dict(environment('cpu'), **res), o.out)


# ---- plain fastai


def by_fastai(tiles, seed, epochs, bs=64):
    "Accuracy on the test tiles and processor seconds of fastai with its defaults (64 tiles in a batch among them), or with other batches; the judging is not counted."
    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, set_seed, vision_learner

    arch = 'tf_efficientnet_lite0'
    set_seed(seed)
    df = tiles.table.assign(is_valid=tiles.table.split == 'valid')
    t0 = time.process_time()
    learn_from = df[df.split != 'test']
    dls = ImageDataLoaders.from_df(
        learn_from,
        path='/',
        fn_col='path',
        label_col='label',
        valid_col='is_valid',
        item_tfms=Resize(224),
        batch_tfms=aug_transforms(),
        bs=bs,
        num_workers=0,
        device=torch.device('cpu'),
    )
    learn = vision_learner(dls, arch, pretrained_cfg_overlay=dict(file=str(installed_weights(arch))))
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(epochs)
        seconds = time.process_time() - t0
        test = df[df.split == 'test']
        p = learn.get_preds(dl=dls.test_dl(test))[0]
    told = [dls.vocab[i] for i in p.argmax(1)]
    return dict(accuracy=float((test.label == told).mean()), seconds=seconds, n=len(test))


def beside_fastai(o, tiles, d):
    "Rows of probe, quick recipe and plain fastai on the same splits, added to a CSV one by one."
    t = tiles.table
    where = Path(o.photographs).resolve()
    tiles = tiles.add(path=[str(where / f) for f in t.field])
    f = Path(o.rows)
    rows = read_csv(f).to_dict('records') if f.exists() else []
    done = {(r['set'], r['arm'], r['split']) for r in rows}
    for seed in range(o.splits):
        drawn = split(tiles, o.group, seed)
        for name in (
            'probe',
            'quick',
            *(f'fastai {n}' for n in o.epochs),
            *(f'fastai {n} of {o.small}' for n in o.epochs),
        ):
            if (o.name, name, seed) in done:
                continue
            if name in arms:
                row = row_of(name, drawn, seed, d)
            else:
                row = dict(arm=name, split=seed, **by_fastai(drawn, seed, *map(int, name.split()[1::2])))
            rows.append(dict(set=o.name, **row))
            write_csv(pd.DataFrame(rows), f)
            say(rows[-1])
    mine = pd.DataFrame(rows)
    mine = mine[mine.set == o.name]
    print(mine.groupby('arm')[['accuracy', 'seconds']].agg(['mean', 'std', 'count']).round(3).to_string())


# ---- engines


def by_engines(o):
    "Seconds of a batch by each engine, as speed relative to plain torch."
    rows = []
    for arch in o.nets:
        torch.manual_seed(0)
        net = make_net(arch, 2, tuple(o.tile), 'linear')
        with torch.no_grad():
            net.train()(torch.randn(4, 1, *o.tile))  # means and variances as a training leaves them
        net = net.eval()
        x = torch.randn(o.batch, 1, *o.tile)
        want = as_it_is(net)(x)
        runs = dict(plain=as_it_is(net), layout=as_it_is(copy.deepcopy(net).to(memory_format=torch.channels_last)))
        runs['folded'] = Engine('torch').run(net, x, len(x))
        t0 = time.perf_counter()
        runs['onnx'] = Engine('onnx').run(net, x, len(x))
        ready = time.perf_counter() - t0
        if has_bf16():
            runs['bf16'] = Engine('bf16').run(net, x, len(x))
        took = shortest({k: partial(run, x) for k, run in runs.items()}, o.times)
        row = dict(arch=arch, plain_s=took['plain'], onnx_ready_s=ready)
        row |= {f'{k}_speed': took['plain'] / v for k, v in took.items() if k != 'plain'}
        row |= {f'{k}_differs': largest_gap(run(x), want) for k, run in runs.items() if k != 'plain'}
        rows.append(row)
        say(row)
    if o.out:
        page = dict(batch=o.batch, tile=list(o.tile), times=o.times, rows=rows)
        write_json(dict(environment('cpu'), **page), o.out)


# ---- threads


@contextmanager
def counting(n):
    "So many programs that keep a processor busy each."
    busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(n)]
    try:
        yield
    finally:
        for p in busy:
            p.kill()
            p.wait()


def by_threads(o):
    "Batches a second by number of threads and of busy programs."
    net = make_net('resnet10t', 2, (96, 128), 'linear').to(memory_format=torch.channels_last).train()
    x = torch.randn(16, 1, 96, 128)
    y = torch.zeros(16, dtype=torch.long)
    rows = []
    for n in (0, 1, 2):
        with counting(n):
            took = time_threads(
                lambda: torch.nn.functional.cross_entropy(net(x), y).backward(), thread_counts(), o.times
            )
        chosen = best_count(took)
        row = dict(busy=n, **{f'batches_with_{k}': 1 / s for k, s in took.items()}, chosen=chosen)
        alone = rows[0] if rows else row
        row['times_slower_than_alone'] = max(v for k, v in alone.items() if k.startswith('batches')) * took[chosen]
        rows.append(row)
        say(row)
    if o.out:
        write_json(dict(environment('cpu'), rows=rows), o.out)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('photographs', nargs='?', help='folder of photographs, one folder a class')
    a.add_argument('--part', default='arms', choices=['arms', 'fastai', 'engines', 'threads'])
    a.add_argument('--simulated', type=float, metavar='HOURS', help='instead of a folder: simulated photographs')
    a.add_argument('--pattern', help='how names are built, see read_fields')
    a.add_argument('--group', default='field', help='what never parts: field, or a part of the pattern')
    a.add_argument('--arms', nargs='+', default=list(arms), choices=list(arms))
    a.add_argument('--splits', type=int, default=5)
    a.add_argument('--epochs', type=int, nargs='+', default=[1, 4], help='of fine_tune, after the one of the head')
    a.add_argument('--small', type=int, default=16, help='tiles in a batch of fastai, beside its default of 64')
    a.add_argument('--name', default='', help='what the set is called in the results')
    a.add_argument('--rows', default=str(root / 'benchmarks/results/learning_fastai.csv'), help='CSV to add to')
    a.add_argument('--nets', nargs='+', default=['resnet34', 'resnet50', 'resnet101', 'densenet121'])
    a.add_argument('--tile', type=int, nargs=2, default=[120, 160], help='height and width that a network is shown')
    a.add_argument('--batch', type=int, default=8)
    a.add_argument('--times', type=int, default=5)
    a.add_argument('--threads', type=int, default=1)
    a.add_argument('--out', help='JSON to write')
    o = a.parse_args()
    if o.part == 'threads':
        return by_threads(o)
    torch.set_num_threads(o.threads)
    if o.part == 'engines':
        return by_engines(o)
    if not o.photographs and o.simulated is None:
        a.error('this part needs a folder of photographs, or --simulated')
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        if o.photographs:
            fields = read_fields(o.photographs, pattern=o.pattern, label_from='folder')
        else:
            o.photographs = d / 'simulated'
            fields = simulated(o.photographs, o.simulated)
        tiles = cut_tiles(fields, d / 'tiles', grid=(1, 1))
        (beside_fastai if o.part == 'fastai' else by_arms)(o, tiles, d)


if __name__ == '__main__':
    main()
