"""Training and prediction from the store, beside the same network fed from memory and beside fastai's ordinary pipeline. Medians of interleaved rounds; ratios and differences are taken within a round. They hold, absolute times do not.

    python benchmarks/training.py                    # processor and start-up; the GPU too, where there is an NVIDIA GPU
    python benchmarks/training.py --part celltype    # five repeats of the quick recipe on two real cell types, beside HOG and logistic regression
    python benchmarks/training.py --part dry         # the GPU's part, on the processor with a tiny network and few tiles: does it run?

Each part writes its own file in benchmarks/results (--results): training_cpu.json, training_celltype.json, training_<name of the GPU>.json. The dry part writes nothing.
GPU: resnet50, 480x640, gray, bf16, channels-last, batch 64. Asked: from the store at least 98 % of from memory; on an H200 at least 920 tiles a second.
"""

import argparse, os, statistics, subprocess, sys, tempfile, time, warnings
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.learner import Learner
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Normalize, PILImageBW, Resize, aug_transforms
from PIL import Image

from celldeath_nb.evaluate.scores import metrics
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.files import write_json
from celldeath_nb.learn.models import Model
from celldeath_nb.learn.prediction import gray_range, predict, tile_grays
from celldeath_nb.tiles.splits import split_by
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.learn.sittings import _machine, _save_checkpoint, _Watch
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.runs import environment, open_run
from celldeath_nb.learn.loaders import make_dls
from celldeath_nb.learn.learner import make_learner, precision_on
from celldeath_nb.learn.training import repeat


def make_tiles(folder, n, h, w):
    "A store of `n` noisy tiles of two classes, and the same tiles as PNG files."
    rng = np.random.default_rng(0)
    for i in range(n // 4):
        d = folder / 'photos' / ('CPT' if i % 2 else 'DMSO')
        d.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(60, 180, (2 * h, 2 * w), dtype=np.uint8)).save(
            d / f'{i:05d}.png', compress_level=1
        )
    tiles = split_by(
        cut_tiles(read_fields(folder / 'photos', label_from='folder'), folder / 'tiles'), test=None, valid=0.25, seed=0
    )
    for i, row in tiles.table.iterrows():
        f = folder / 'png' / row.split / row.label / f'{i:06d}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiles[i]).save(f, compress_level=1)
    return tiles


def fastai_dls(folder, r, size, device):
    "fastai's ordinary pipeline on the same tiles: files, worker processes as is its habit, and its own augmentation."
    tfms = [
        *aug_transforms(do_flip=True, flip_vert=True, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=r.lighting),
        Normalize.from_stats(0.5, 0.2, cuda=device.type == 'cuda'),
    ]
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW), CategoryBlock),
        get_items=lambda d: sorted(d.rglob('*.png')),
        get_y=lambda f: f.parent.name,
        splitter=lambda fs: (
            [i for i, f in enumerate(fs) if f.parts[-3] == 'train'],
            [i for i, f in enumerate(fs) if f.parts[-3] == 'valid'],
        ),
        item_tfms=Resize(size),
        batch_tfms=tfms,
    )
    return block.dataloaders(folder / 'png', bs=r.batch_size, device=device, num_workers=min(8, os.cpu_count()))


def wait(device):
    if device.type == 'cuda':
        torch.cuda.synchronize()


class Memory:
    "The same batch, ready on the device, as often as an epoch has batches."

    def __init__(self, dl):
        self.b = dl.one_batch()
        self.n = len(dl)

    def __iter__(self):
        return (self.b for _ in range(self.n))


class Clock(Callback):
    "Time the training part of an epoch, and leave the validation out."

    order = 1000

    def before_train(self):
        wait(self.dls.device)
        self.t0 = time.perf_counter()

    def after_train(self):
        wait(self.dls.device)
        self.seconds = time.perf_counter() - self.t0

    def before_validate(self):
        raise CancelValidException


class Silent(_Watch):
    "All that `train` watches in each batch; nothing at the end of an epoch, which has no validation here."

    def after_epoch(self):
        pass


def real_epoch(learn):
    "Tiles a second of an epoch as `train` runs it: fastai's loop, the store, all callbacks."
    clock = Clock()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=1e-4, cbs=[Silent(), clock])
    return len(learn.dls.train) * learn.dls.train.bs / clock.seconds


def bare_epoch(learn, dl, device, dtype):
    "Tiles a second of the least loop there is: forward, backward, step."
    seen = 0
    learn.model.train()
    wait(device)
    t0 = time.perf_counter()
    for x, y in dl:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = learn.loss_func(learn.model(x).float(), y)
        loss.backward()
        learn.opt.step()
        learn.opt.zero_grad()
        seen += len(x)
    wait(device)
    return seen / (time.perf_counter() - t0)


def rounds_of(ways, rounds):
    "Each of `ways` (name: function giving a number), once to warm up and then `rounds` times, interleaved and in turning order."
    for f in ways.values():
        f()
    runs = {k: [] for k in ways}
    for i in range(rounds):
        for k in list(ways)[:: 1 - 2 * (i % 2)]:
            runs[k].append(ways[k]())
    return runs, {k: statistics.median(v) for k, v in runs.items()}


def ratio(runs, a, b):
    return statistics.median(x / y for x, y in zip(runs[a], runs[b]))  # of what was measured in the same round


def training(folder, tiles, r, device, rounds):
    "Tiles a second from the store, from memory and through fastai, interleaved."
    dls = make_dls(tiles, r, device)
    theirs = fastai_dls(folder, r, dls.size, device)
    learn = make_learner(dls, r)
    learn.create_opt()
    memory = Memory(dls.train)
    dtype = dict(bf16=torch.bfloat16, fp16=torch.float16).get(precision_on(r, device))
    ways = dict(
        store=lambda: real_epoch(learn),
        memory=lambda: bare_epoch(learn, memory, device, dtype),
        fastai=lambda: bare_epoch(learn, theirs.train, device, dtype),
    )
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    runs, rate = rounds_of(ways, rounds)
    res = dict(
        tiles_per_second=rate,
        runs=runs,
        time_of_an_epoch_to_memory=ratio(runs, 'memory', 'store'),
        store_to_memory=ratio(runs, 'store', 'memory'),
        times_fastai=ratio(runs, 'store', 'fastai'),
    )
    if device.type == 'cuda':
        res['peak_gpu_gib'] = torch.cuda.max_memory_allocated() / 2**30
    return res, learn, dls, theirs


def predicting(folder, tiles, r, learn, dls, theirs, device, rounds):
    "Seconds a tile of `predict`, of `get_preds`, and of one `learn.predict` a file, and what each takes besides the bare network."
    train = tiles.subset((tiles.table.split == 'train').values)
    info = dict(precision=precision_on(r, device), gray=gray_range(tile_grays(train[:64])))
    model = Model(learn.model, r.arch, dls.vocab, tiles.tile_px, dls.size, dls.mean, dls.std, r.head, info=info)
    fai = Learner(theirs, learn.model, loss_func=learn.loss_func)
    files = sorted((folder / 'png' / 'valid').rglob('*.png'))[:16]
    x = next(iter(dls.valid))[0]
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == 'cuda' and info['precision'] == 'bf16'
    )  # as `predict` does

    def per_tile(f, n):
        wait(device)
        t0 = time.perf_counter()
        f()
        wait(device)
        return (time.perf_counter() - t0) / n

    def bare():
        learn.model.eval()
        with torch.inference_mode(), half:
            learn.model(x)

    ways = dict(
        network=lambda: per_tile(lambda: [bare() for _ in range(4)], 4 * len(x)),
        predict=lambda: per_tile(lambda: predict(model, tiles, bs=len(x), device=device.type), len(tiles)),
        get_preds=lambda: per_tile(lambda: fai.get_preds(dl=theirs.valid), len(theirs.valid_ds)),
        learn_predict=lambda: per_tile(lambda: [fai.predict(f) for f in files], len(files)),
    )
    with fai.no_bar(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        runs, res = rounds_of(ways, rounds + 2)
    over = {
        k: max(statistics.median(x - y for x, y in zip(runs[k], runs['network'])), 1e-9) for k in runs if k != 'network'
    }
    return dict(
        tiles_per_second={k: 1 / v for k, v in res.items()},
        seconds_per_tile=res,
        runs=runs,
        overhead=over,
        learn_predict_to_predict=over['learn_predict'] / over['predict'],
        get_preds_to_predict=over['get_preds'] / over['predict'],
    )


def checkpointing(folder, learn, rounds):
    "Seconds of the checkpoint after each epoch, and its size."
    watch = Silent(
        [dict(epoch=1, train_loss=1.0, valid_loss=1.0, accuracy=0.5)],
        {k: v.detach().cpu().clone() for k, v in learn.model.state_dict().items()},
    )
    watch.learn = learn
    learn.epoch = 0
    times = []
    for _ in range(rounds):
        t0 = time.perf_counter()
        _save_checkpoint(watch, folder / 'checkpoints', 0)
        times.append(time.perf_counter() - t0)
    return dict(
        seconds=statistics.median(times),
        runs=times,
        megabytes=sum(f.stat().st_size for f in (folder / 'checkpoints').rglob('*') if f.is_file()) / 1e6,
    )


def starting(rounds=7):
    "Seconds of what should answer at once: medians."
    ways = dict(
        help=('-c', 'import sys; from celldeath_nb.cli import main; sys.exit(main(["--help"]))'),
        importing=('-c', 'import celldeath_nb'),
        python=('-c', 'pass'),
    )
    runs, median = rounds_of({k: lambda v=v: _timed([sys.executable, *v]) for k, v in ways.items()}, rounds)
    return dict(median, runs=runs)


def _timed(cmd):
    t0 = time.perf_counter()
    p = subprocess.run(
        cmd, cwd=root, capture_output=True, check=True, text=True, env={**os.environ, 'PYTHONPATH': str(root)}
    )
    seconds = time.perf_counter() - t0
    if '--help' in cmd[-1] and 'Usage: celldeath' not in p.stdout:
        raise RuntimeError(f'the command said nothing: {p.stdout[:200]!r}')
    return seconds


def part(device, r, n, size, rounds):
    with tempfile.TemporaryDirectory() as d, _machine(r, device):
        folder = Path(d)
        tiles = make_tiles(folder, n, *size)
        res, *rest = training(folder, tiles, r, device, rounds)
        res['checkpoint'] = checkpointing(folder, rest[0], rounds)
        res['prediction'] = predicting(folder, tiles, r, *rest, device, rounds)
    return dict(
        environment(device.type),
        precision=precision_on(r, device),
        arch=r.arch,
        tile_px=size,
        shown=list(rest[1].size),
        batch=r.batch_size,
        tiles=n,
        rounds=rounds,
        load=os.getloadavg() if hasattr(os, 'getloadavg') else None,
        **res,
    )


def show(res):
    p = res['prediction']
    print(
        pd.Series(
            dict(
                gpu=res['gpu'] or 'none',
                store_to_memory=res['store_to_memory'],
                epoch_time_to_memory=res['time_of_an_epoch_to_memory'],
                times_fastai=res['times_fastai'],
                **{f'train_{k}': v for k, v in res['tiles_per_second'].items()},
                **{f'predict_{k}': v for k, v in p['tiles_per_second'].items()},
                **{f'overhead_{k}': v for k, v in p['overhead'].items()},
                checkpoint_seconds=res['checkpoint']['seconds'],
                learn_predict_to_predict=p['learn_predict_to_predict'],
                **({'peak_gib': res['peak_gpu_gib']} if 'peak_gpu_gib' in res else {}),
            )
        ).to_string()
    )


def celltype_tiles(photos, folder, seed):
    "Two real cell types, cells of one frame kept together: a quarter of the frames for the test, 30 % of the others for validation."
    fields = read_fields(photos, pattern='{line}-{frame}[.j]-{cell}-{n}', label_from='folder')
    tiles = cut_tiles(fields, folder / 'tiles', grid=(1, 1), overwrite=True)
    drawn = split_by(tiles.table, None, 0.25, 'frame', seed=seed + 1).split.map(
        dict(valid='yes', train='no')
    )  # as `celldeath demo` does
    return tiles.add(
        split=split_by(tiles.table.assign(drawn=drawn.values), {'drawn': 'yes'}, 0.3, 'frame', seed=seed).split.values
    )


def hog_answers(tiles):
    "Histograms of oriented gradients and logistic regression, whose strictness is chosen by validation loss, as the network's epoch is: accuracies."
    from skimage.feature import hog
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.stack([hog(t, 9, (16, 16), (2, 2)) for t in tiles[:]])
    y = tiles.table.label.to_numpy()
    side = tiles.table.split.to_numpy()
    fits = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)).fit(
            x[side == 'train'], y[side == 'train']
        )
        for c in 10.0 ** np.arange(-6, 2)
    ]
    best = min(fits, key=lambda m: log_loss(y[side == 'valid'], m.predict_proba(x[side == 'valid'])))
    return {f'{s}_accuracy': float(best.score(x[side == s], y[side == s])) for s in ('valid', 'test')} | dict(
        features=x.shape[1], strictness=best[-1].C
    )


def celltype(photos, splits=5, seeds=5):
    "Five seeds on one split, as the paper repeats; then five splits, each with one seed, since with 200 cells the draw of the frames weighs more than the seed."
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        tiles = celltype_tiles(photos, d, 0)
        fixed = repeat(tiles, Recipe.quick(), d / 'runs', seeds=seeds, device='cpu')
        hog = hog_answers(tiles)
        m = metrics(pd.concat([run.preds[run.preds.split == 'test'] for run in [open_run(d / 'runs' / 'seed_0')]]))
        counts = {
            s: {
                'tiles': len(g),
                'frames': int(g.frame.nunique()),
                **{k: int(v) for k, v in g.label.value_counts().items()},
            }
            for s, g in tiles.table.groupby('split')
        }
        rows = []
        for s in range(splits):
            t = celltype_tiles(photos, d, s)
            table = fixed if s == 0 else repeat(t, Recipe.quick(), d / f'runs_{s}', seeds=[s], device='cpu')
            rows.append(
                dict(split=s, network=float(table.loc[s, 'test_accuracy']), hog=hog_answers(t)['test_accuracy'])
            )
    over = pd.DataFrame(rows)
    stat = lambda v: dict(mean=float(np.mean(v)), sd=float(np.std(v, ddof=1)), n=len(v))
    return dict(
        environment('cpu'),
        recipe='quick',
        counts=counts,
        one_split=dict(
            network={s: stat(fixed.loc[range(seeds), f'{s}_accuracy'].astype(float)) for s in ('valid', 'test')},
            hog=hog,
            interval_of_seed_0=[float(o) for o in m.interval('accuracy')],
            runs=fixed.reset_index().to_dict('records'),
        ),
        over_splits=dict(
            network=stat(over.network), hog=stat(over.hog), network_less_hog=stat(over.network - over.hog), runs=rows
        ),
    )


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--part', choices=['speed', 'gpu', 'celltype', 'dry'], default='speed')
    a.add_argument('--tiles', type=int, default=192, help='tiles on the processor')
    a.add_argument('--rounds', type=int, default=5)
    a.add_argument('--results', default=str(root / 'benchmarks' / 'results'), help='folder of the results')
    a.add_argument(
        '--photos', default=str(root.parent / 'shared' / 'data' / 'celltype'), help='folder of the cell types'
    )
    o = a.parse_args()
    out = Path(o.results)
    if o.part == 'celltype':
        res = celltype(o.photos)
        write_json(res, out / 'training_celltype.json')
        print(
            pd.Series(
                {k: v for k, v in res['one_split'].items() if k != 'runs'}
                | {k: v for k, v in res['over_splits'].items() if k != 'runs'}
            ).to_string()
        )
    elif o.part == 'dry':
        show(
            part(
                torch.device('cpu'),
                Recipe.paper(arch='resnet10t', batch_size=4, size=48, precision='bf16', turns=False),
                32,
                (96, 128),
                2,
            )
        )
    elif o.part == 'gpu':
        on_gpu(o, out)
    else:
        speed(o, out)


def speed(o, out):
    res = dict(part(torch.device('cpu'), Recipe.quick(), o.tiles, (240, 320), o.rounds), start_seconds=starting())
    show(res)
    print(pd.Series({k: v for k, v in res['start_seconds'].items() if k != 'runs'}).to_string())
    write_json(res, out / 'training_cpu.json')
    on_gpu(o, out)


def on_gpu(o, out):
    "The paper's own network and tiles, where there is an NVIDIA GPU."
    if not torch.cuda.is_available():
        print('There is no NVIDIA GPU here: that part was not run.')
        return
    for batch in (64, 32, 16, 8):  # 64 is what is asked; a smaller GPU halves it, and the result says so
        try:
            gpu = part(torch.device('cuda'), Recipe.paper(batch_size=batch, turns=False), 2048, (480, 640), o.rounds)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        else:
            break
    else:
        raise SystemExit('This GPU has too little memory for batches of 8.')
    gpu['minutes_of_the_paper_s_run'] = (
        50 * (7725 + 3311 / 3) / gpu['tiles_per_second']['store'] / 60
    )  # a validation tile costs a third of a training tile
    show(gpu)
    write_json(gpu, out / f"training_{gpu['gpu'].replace(' ', '_')}.json")


if __name__ == '__main__':
    main()
