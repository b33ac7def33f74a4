"""Training and prediction from the store, beside the same network fed from memory and beside fastai's ordinary pipeline. Ratios of interleaved runs.

    python benchmarks/training.py [--tiles 64] [--rounds 3] [--json benchmarks/results/training_cpu.json]

Two parts. The processor's always runs. The GPU's (resnet50, 480x640, grey, bf16, channels-last, batch 64) runs by itself where there is an NVIDIA GPU, and writes `training_<name of the device>.json`.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time, warnings
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Normalize, PILImageBW, Resize, aug_transforms
from PIL import Image

from celldeath_nb.fields import read_fields
from celldeath_nb.files import write_json
from celldeath_nb.models import Model, predict
from celldeath_nb.splits import split_by
from celldeath_nb.tiles import cut_tiles
from celldeath_nb.training import _Autocast, Recipe, environment, make_dls, make_learner, precision_on


def make_tiles(folder, n, h, w):
    "A store of `n` noisy tiles of two classes, and the same tiles as PNG files."
    rng = np.random.default_rng(0)
    for i in range(n//4):
        d = folder/'photos'/('CPT' if i % 2 else 'DMSO')
        d.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(60, 180, (2*h, 2*w), dtype=np.uint8)).save(d/f'{i:05d}.png', compress_level=1)
    tiles = split_by(cut_tiles(read_fields(folder/'photos', label_from='folder'), folder/'tiles'), test=None, valid=.25, seed=0)
    for i, row in tiles.table.iterrows():
        f = folder/'png'/row.split/row.label/f'{i:06d}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiles[i]).save(f, compress_level=1)
    return tiles

def fastai_dls(folder, r, size, device):
    "fastai's ordinary pipeline on the same tiles: files, worker processes as is its habit, and its own augmentation."
    tfms = [*aug_transforms(do_flip=True, flip_vert=True, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=r.lighting), Normalize.from_stats(.5, .2)]
    block = DataBlock(blocks=(ImageBlock(PILImageBW), CategoryBlock), get_items=lambda d: sorted(d.rglob('*.png')), get_y=lambda f: f.parent.name,
                      splitter=lambda fs: ([i for i, f in enumerate(fs) if f.parts[-3] == 'train'], [i for i, f in enumerate(fs) if f.parts[-3] == 'valid']), item_tfms=Resize(size), batch_tfms=tfms)
    return block.dataloaders(folder/'png', bs=r.batch_size, device=device, num_workers=min(8, os.cpu_count()))

class Memory:
    "The same one batch, ready on the device, as often as an epoch has batches."
    def __init__(self, dl): self.b,self.n = dl.one_batch(),len(dl)
    def __iter__(self): return (self.b for _ in range(self.n))

def epoch(learn, dl, device, n=None):
    "Tiles a second of one epoch of training."
    seen, auto = 0, next((c for c in learn.cbs if isinstance(c, _Autocast)), None)
    learn.model.train()
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    wait()
    t0 = time.perf_counter()
    for x, y in dl:
        with torch.autocast(device.type, auto.dtype if auto else None, enabled=auto is not None): loss = learn.loss_func(learn.model(x).float(), y)
        loss.backward()
        learn.opt.step()
        learn.opt.zero_grad()
        seen += len(x)
    wait()
    return seen/(time.perf_counter()-t0)

def training(folder, tiles, r, device, rounds):
    "Tiles a second from the store, from memory and through fastai, interleaved."
    dls = make_dls(tiles, r, device)
    theirs = fastai_dls(folder, r, dls.size, device)
    learn = make_learner(dls, r)
    learn.create_opt()
    ways = dict(store=dls.train, memory=Memory(dls.train), fastai=theirs.train)
    epoch(learn, ways['memory'], device)
    runs = {k: [] for k in ways}
    for i in range(rounds):
        for k in list(ways)[::1-2*(i % 2)]: runs[k].append(epoch(learn, ways[k], device))
    rate = {k: statistics.median(v) for k, v in runs.items()}
    return dict(tiles_per_second=rate, runs=runs, time_of_an_epoch_to_memory=rate['memory']/rate['store'], times_fastai=rate['store']/rate['fastai']), learn, dls, theirs

def predicting(folder, tiles, r, learn, dls, theirs, device):
    "Seconds a tile of `predict`, of `get_preds`, and of one `learn.predict` per file, beside the bare network."
    from fastai.learner import Learner
    model = Model(learn.model, r.arch, dls.vocab, tiles.tile_px, dls.size, dls.mean, dls.std, r.head)
    fai = Learner(theirs, learn.model, loss_func=learn.loss_func)
    files, x = sorted((folder/'png'/'valid').rglob('*.png')), next(iter(dls.valid))[0]
    def per_tile(f, n):
        t0 = time.perf_counter()
        f()
        return (time.perf_counter()-t0)/n
    def bare():
        learn.model.eval()
        with torch.inference_mode():
            learn.model(x)
            if device.type == 'cuda': torch.cuda.synchronize()
    with fai.no_bar(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        bare()
        res = dict(network=min(per_tile(bare, len(x)) for _ in range(3)), predict=min(per_tile(lambda: predict(model, tiles, bs=len(x), device=device.type), len(tiles)) for _ in range(2)),
                   get_preds=per_tile(lambda: fai.get_preds(dl=theirs.valid), len(theirs.valid_ds)), learn_predict=per_tile(lambda: [fai.predict(f) for f in files[:8]], 8))
    over = {k: max(v-res['network'], 1e-9) for k, v in res.items() if k != 'network'}
    return dict(seconds_per_tile=res, overhead=over, learn_predict_to_predict=over['learn_predict']/over['predict'])

def starting():
    "Seconds of what should answer at once, the best of three."
    def best(*args): return min(_timed([sys.executable, *args]) for _ in range(3))
    return dict(help=best('-m', 'celldeath_nb.cli', '--help'), importing=best('-c', 'import celldeath_nb'), python=best('-c', 'pass'))

def _timed(cmd):
    t0 = time.perf_counter()
    subprocess.run(cmd, cwd=root, capture_output=True, check=True, env={**os.environ, 'PYTHONPATH': str(root)})
    return time.perf_counter()-t0

def part(device, r, n, size, rounds):
    with tempfile.TemporaryDirectory() as d:
        folder = Path(d)
        tiles = make_tiles(folder, n, *size)
        if device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
        res, *rest = training(folder, tiles, r, device, rounds)
        if device.type == 'cuda': res['peak_gpu_gib'] = torch.cuda.max_memory_allocated()/2**30
        res['prediction'] = predicting(folder, tiles, r, *rest, device)
    return dict(environment(device.type), precision=precision_on(r, device), arch=r.arch, tile_px=size, batch=r.batch_size, tiles=n, **res)

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--tiles', type=int, default=96)
    a.add_argument('--rounds', type=int, default=3)
    a.add_argument('--json', default='', help='write the numbers of the processor here')
    a.add_argument('--results', default=str(root/'benchmarks'/'results'), help='folder of the result of a GPU')
    o = a.parse_args()
    res = dict(part(torch.device('cpu'), Recipe.quick(), o.tiles, (240, 320), o.rounds), start_seconds=starting())
    print(pd.Series(dict(store_time_to_memory=res['time_of_an_epoch_to_memory'], times_fastai=res['times_fastai'], **res['tiles_per_second'], **res['prediction']['overhead'], **res['start_seconds'])).round(5).to_string())
    if o.json: write_json(res, o.json)
    if not torch.cuda.is_available():
        print('There is no NVIDIA GPU here: that part was not run.')
        return
    r = Recipe.paper(batch_size=64, precision='bf16', turns=False)
    gpu = part(torch.device('cuda'), r, 2048, (480, 640), o.rounds)
    print(pd.Series(dict(gpu=gpu['gpu'], store_to_memory=1/gpu['time_of_an_epoch_to_memory'], **gpu['tiles_per_second'], peak_gib=gpu['peak_gpu_gib'])).to_string())
    write_json(gpu, Path(o.results)/f"training_{gpu['gpu'].replace(' ', '_')}.json")


if __name__ == '__main__': main()
