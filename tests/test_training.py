"Training that is killed, runs out of memory, meets no number or a full disk: the last good state is kept, and what to do is said."
import os, signal, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import celldeath_nb.training as T
from celldeath_nb.splits import split_by
from celldeath_nb.tiles import cut_tiles

root = Path(__file__).resolve().parents[1]
small = dict(size=32, epochs=3, min_steps=0, batch_size=8)


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    "Bright and dark noise, 12 photographs of four tiles."
    from PIL import Image
    from celldeath_nb.fields import read_fields
    d, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
    for label in ('CPT', 'DMSO'):
        (d/'photos'/label).mkdir(parents=True)
        for i in range(6): Image.fromarray((rng.integers(0, 120, (64, 64))+60*(label == 'CPT')).astype(np.uint8)).save(d/'photos'/label/f'{i}.png')
    return split_by(cut_tiles(read_fields(d/'photos', label_from='folder'), d/'tiles'), test=None, valid=.3, seed=0)

def weights(run): return load_file(run/'model'/'model.safetensors')


killed = '''
import sys, os, signal
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import celldeath_nb.training as T
from celldeath_nb.tiles import open_tiles
from celldeath_nb.splits import split_by
tiles = split_by(open_tiles(sys.argv[2]), test=None, valid=.3, seed=0)
class Kill(T.Callback):
    def after_batch(self):
        if self.training and self.epoch == 2: os.kill(os.getpid(), signal.SIGKILL)
keep = T.make_learner
if sys.argv[4] == 'kill': T.make_learner = lambda *a, **k: keep(*a, cbs=Kill(), **k)
for out in sys.argv[3].split('|'): T.train(tiles, T.Recipe.quick(size=32, epochs=3, min_steps=0, batch_size=8, mixup=.2, balance='batches'), out, 'cpu', checkpoint_seconds=0)
'''

@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='there is no SIGKILL here')
def test_killed_and_called_again_gives_the_same_bits(tiles, tmp_path):
    def call(outs, how): return subprocess.run([sys.executable, '-W', 'ignore', '-c', killed, str(root), str(tiles.path), '|'.join(str(tmp_path/o) for o in outs), how], capture_output=True, text=True)
    p = call('b', 'kill')
    assert p.returncode == -signal.SIGKILL and not (tmp_path/'b').exists() and list(tmp_path.glob('.b.unfinished/epoch_0002')), p.stderr
    assert call('ab', 'go').returncode == 0
    a, b = weights(tmp_path/'a'), weights(tmp_path/'b')
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert 'taken up after epoch 2' in (tmp_path/'b'/'log.txt').read_text()
    ha, hb = (T.open_run(tmp_path/o).history.drop(columns='seconds') for o in 'ab')
    pd.testing.assert_frame_equal(ha, hb)


def test_out_of_memory_halves_the_batch_and_keeps_its_size(tiles, tmp_path, monkeypatch):
    keep, seen = T.make_learner, []
    def hook(module, x):
        if not module.training: return
        seen.append(len(x[0]))
        if len(x[0]) > 4: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
    def short(*args, **kwargs):
        learn = keep(*args, **kwargs)
        learn.model[0].register_forward_pre_hook(hook)
        return learn
    monkeypatch.setattr(T, 'make_learner', short)
    run = T.train(tiles, T.Recipe.quick(**small), tmp_path/'r', 'cpu')
    assert seen[0] == 8 and set(seen[1:]) == {4} and len(run.history) == 3
    log = (run.path/'log.txt').read_text()
    assert log.count('out of memory') == 1 and 'parts of 4' in log

def test_a_loss_that_is_no_number_stops_and_keeps_the_best(tiles, tmp_path, monkeypatch):
    keep = T.make_learner
    class Poison(T.Callback):
        order = 50
        def after_pred(self):
            if self.training and self.epoch == 1: self.learn.pred = self.learn.pred*float('nan')
    monkeypatch.setattr(T, 'make_learner', lambda *a, **k: keep(*a, cbs=Poison(), **k))
    with pytest.raises(FloatingPointError, match='epoch 2, batch 1; the network of epoch 1 is kept.*too high.*The batch held'): T.train(tiles, T.Recipe.quick(**small), tmp_path/'r', 'cpu')
    assert not (tmp_path/'r').exists() and load_file(tmp_path/'.r.unfinished'/'last_good.safetensors')

def test_a_full_disk_keeps_the_checkpoint_before(tiles, tmp_path, monkeypatch):
    keep, calls = T.save_file, []
    def full(tensors, path):
        calls.append(path)
        if len(calls) == 2: raise OSError(28, 'No space left on device')
        keep(tensors, path)
    monkeypatch.setattr(T, 'save_file', full)
    with pytest.raises(OSError, match='after epoch 2 could not be written'): T.train(tiles, T.Recipe.quick(**small), tmp_path/'r', 'cpu', checkpoint_seconds=0)
    assert [o.name for o in (tmp_path/'.r.unfinished').glob('epoch*')] == ['epoch_0001']
    assert len(T.train(tiles, T.Recipe.quick(**small), tmp_path/'r', 'cpu').history) == 3

def test_early_stopping_and_the_extras(tiles, tmp_path):
    r = T.Recipe.quick(**{**small, 'epochs': 30}, patience=1, mixup=.4, label_smoothing=.1, balance='weights', deterministic=True, precision='float32')
    run = T.train(tiles, r, tmp_path/'r', 'cpu')
    assert len(run.history) < 30 and run.recipe == r and not torch.are_deterministic_algorithms_enabled()
    text = (run.path/'methods.txt').read_text()
    assert 'mixup, alpha 0.4' in text and 'label smoothing 0.1' in text and 'early stopping' in text and 'inverse frequency' in text

def test_balanced_batches(tiles):
    few = tiles.subset(((tiles.table.label == 'CPT') | (tiles.table.split == 'valid') | (np.arange(len(tiles)) % 3 == 0)).values)
    y = T.make_dls(few, T.Recipe.quick(**small), 'cpu').train.dataset.y
    dl = T.make_dls(few, T.Recipe.quick(**small, balance='batches'), 'cpu').train
    drawn = np.concatenate([np.asarray(dl.dataset.y)[dl.shuffle_fn(list(range(len(y))))] for _ in range(50)])
    assert y.float().mean() < .35 and abs(drawn.mean()-.5) < .05


@pytest.mark.parametrize('change, why', [(dict(arch='resnet5'), 'Near it: .*resnet'), (dict(batch_size=64), 'smaller batch_size'), (dict(precision='fp16'), 'needs an NVIDIA GPU')])
def test_recipes_that_cannot_be_followed_here(tiles, tmp_path, change, why):
    with pytest.raises(ValueError, match=why): T.train(tiles, T.Recipe.quick(**{**small, **change}), tmp_path/'r', 'cpu')
    assert not (tmp_path/'r').exists()

@pytest.mark.parametrize('change', [dict(lr=(1e-2, 1e-4)), dict(lr=float('nan')), dict(epochs=0), dict(balance='yes'), dict(patience=0), dict(mixup=-1), dict(label_smoothing=1), dict(weights='imagenet'), dict(nonsense=1)])
def test_recipes_that_cannot_be_meant(change):
    with pytest.raises(ValueError): T.Recipe.quick(**change)

def test_tiles_that_cannot_be_learned_from(tiles):
    with pytest.raises(ValueError, match='at least two classes'): T.make_dls(tiles.add(label='CPT'))
    lone = tiles.table.label.where((tiles.table.split == 'train'), 'DMSO')
    with pytest.raises(ValueError, match="No tile of CPT is in 'valid'"): T.make_dls(tiles.add(label=lone.values))

def test_too_small_a_tile_for_the_network():
    from celldeath_nb.models import make_net
    with pytest.raises(ValueError, match='cannot take tiles|no grid'): make_net('vgg11', 2, (16, 16))

@pytest.mark.skipif(not (root.parent/'shared'/'data'/'celltype').exists(), reason='../shared/data/celltype is not here')
@pytest.mark.skipif(not os.environ.get('CELLDEATH_SLOW'), reason='slow: five trainings of 136 tiles; set CELLDEATH_SLOW=1')
def test_quick_learns_two_real_cell_types(tmp_path):
    from celldeath_nb.fields import read_fields
    fields = read_fields(root.parent/'shared'/'data'/'celltype', pattern='{line}-{frame}[.j]-{cell}-{n}', label_from='folder')
    tiles = cut_tiles(fields, tmp_path/'tiles', grid=(1, 1))
    table = T.repeat(split_by(tiles, group='frame', valid=.3, seed=0), T.Recipe.quick(), tmp_path/'runs', seeds=5, device='cpu')
    assert table.loc['mean', 'valid_accuracy'] > .75
