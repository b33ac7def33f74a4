"Training that is killed, runs out of memory, meets no number or a full disk: the last good state is kept, and what to do is said."

import os, shutil, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import no_random
from safetensors.torch import load_file

import celldeath_nb.learn.learner as learn_learner
import celldeath_nb.learn.training as learn_training
import celldeath_nb.learn.recipes as learn_recipes
import celldeath_nb.learn.runs as learn_runs
import celldeath_nb.learn.loaders as learn_loaders
import celldeath_nb.learn.sittings as learn_sittings
from celldeath_nb.files import file_sum, only_writer, read_csv, read_json, sealed, write_json
from celldeath_nb.learn.models import load_model
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.prediction import predict
from celldeath_nb.tiles.splits import split_by
from celldeath_nb.tiles.store import Tiles
from celldeath_nb.tiles.cut import cut_tiles

root = Path(__file__).resolve().parents[1]
small = dict(size=32, epochs=3, min_steps=0, batch_size=8)


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    "Bright and dark noise, 12 photographs of four tiles."
    from PIL import Image
    from celldeath_nb.photos.fields import read_fields

    d = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for label in ('CPT', 'DMSO'):
        (d / 'photos' / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray((rng.integers(0, 120, (64, 64)) + 60 * (label == 'CPT')).astype(np.uint8)).save(
                d / 'photos' / label / f'{i}.png'
            )
    return split_by(
        cut_tiles(read_fields(d / 'photos', label_from='folder'), d / 'tiles'), test=None, valid=0.3, seed=0
    )


def weights(run):
    return load_file(run / 'model' / 'model.safetensors')


killed = '''
import sys, os, signal
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from fastai.callback.core import Callback
import celldeath_nb.learn.sittings as sittings
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.training import train
from celldeath_nb.tiles.splits import split_by
from celldeath_nb.tiles.store import open_tiles
tiles = split_by(open_tiles(sys.argv[2]), test=None, valid=.3, seed=0)
class Kill(Callback):
    def after_batch(self):
        if self.training and self.epoch == 2: os.kill(os.getpid(), signal.SIGKILL)
keep = sittings.make_learner
if sys.argv[4] == 'kill': sittings.make_learner = lambda *a, **k: keep(*a, cbs=Kill(), **k)
for out in sys.argv[3].split('|'): train(tiles, Recipe.quick(size=32, epochs=3, min_steps=0, batch_size=8, mixup=.2, balance='batches'), out, 'cpu', checkpoint_seconds=0)
'''


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='there is no SIGKILL here')
@pytest.mark.long
def test_killed_and_called_again_gives_the_same_bits(tiles, tmp_path):
    def call(outs, how):
        return subprocess.run(
            [
                sys.executable,
                '-W',
                'ignore',
                '-c',
                killed,
                str(root),
                str(tiles.path),
                '|'.join(str(tmp_path / o) for o in outs),
                how,
            ],
            capture_output=True,
            text=True,
        )

    p = call('b', 'kill')
    assert (
        p.returncode == -signal.SIGKILL
        and not (tmp_path / 'b').exists()
        and list(tmp_path.glob('.b.unfinished/epoch_0002'))
    ), p.stderr
    assert call('ab', 'go').returncode == 0
    a = weights(tmp_path / 'a')
    b = weights(tmp_path / 'b')
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert 'taken up after epoch 2' in (tmp_path / 'b' / 'log.txt').read_text()
    ha, hb = (learn_runs.open_run(tmp_path / o).history.drop(columns='seconds') for o in 'ab')
    pd.testing.assert_frame_equal(ha, hb)


def no_room_on_a_gpu():
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')


def no_room_for_a_processor():
    torch.empty(10**15)  # torch says so in its own words


def no_room_under_windows():
    raise RuntimeError(
        '[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes.'
    )


def no_room_for_numpy():
    np.empty(10**17)


@pytest.mark.parametrize('fail', [no_room_on_a_gpu, no_room_for_a_processor, no_room_under_windows, no_room_for_numpy])
@pytest.mark.long
def test_out_of_memory_halves_the_batch_and_keeps_its_size(tiles, tmp_path, monkeypatch, fail):
    keep = learn_learner.make_learner
    seen = []

    def hook(module, x):
        if not module.training:
            return
        seen.append(len(x[0]))
        if len(x[0]) > 4:
            fail()

    def short(*args, **kwargs):
        learn = keep(*args, **kwargs)
        learn.model[0].register_forward_pre_hook(hook)
        return learn

    monkeypatch.setattr(learn_sittings, 'make_learner', short)
    run = learn_training.train(tiles, learn_recipes.Recipe.quick(**{**small, 'epochs': 1}), tmp_path / 'r', 'cpu')
    assert seen[0] == 8 and set(seen[1:]) == {4} and len(run.history) == 1
    log = (run.path / 'log.txt').read_text()
    assert log.count('out of memory') == 1 and 'parts of 4' in log


def test_a_loss_that_is_no_number_stops_and_keeps_the_best(tiles, tmp_path, monkeypatch):
    keep = learn_learner.make_learner

    class Poison(Callback):
        order = 50

        def after_pred(self):
            if self.training and self.epoch == 1:
                self.learn.pred = self.learn.pred * float('nan')

    monkeypatch.setattr(learn_sittings, 'make_learner', lambda *a, **k: keep(*a, cbs=Poison(), **k))
    with pytest.raises(
        FloatingPointError,
        match='in training, epoch 2, batch 1.*too high.*The batch held.*The network of epoch 1.*r.stopped',
    ):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu')
    assert not (tmp_path / 'r').exists()
    kept = tmp_path / 'r.stopped'
    assert (
        len(read_csv(kept / 'history.csv')) == 1
        and len(read_csv(kept / 'batch.csv')) == 8
        and 'the loss is no number' in (kept / 'log.txt').read_text()
    )
    preds = predict(load_model(kept), tiles.subset((tiles.table.split == 'valid').values), device='cpu')
    right = (preds.label == preds.pred).mean()
    assert abs(right - read_csv(kept / 'history.csv').accuracy[0]) < 1e-6


def test_no_number_in_the_first_epoch(tiles, tmp_path):
    with pytest.raises(FloatingPointError, match='no network to keep'):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**small, lr=1e12), tmp_path / 'r', 'cpu')
    assert not (tmp_path / 'r.stopped').exists()


def test_a_full_disk_keeps_the_checkpoint_before(tiles, tmp_path, monkeypatch):
    keep = learn_sittings.save_file
    calls = []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, 'No space left on device')
        keep(tensors, path)

    monkeypatch.setattr(learn_sittings, 'save_file', full)
    with pytest.raises(OSError, match='after epoch 2 could not be written'):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu', checkpoint_seconds=0)
    assert [o.name for o in (tmp_path / '.r.unfinished').glob('epoch*')] == ['epoch_0001']
    assert len(learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu').history) == 3


@pytest.mark.long
def test_checkpoints_that_take_long_are_written_seldom(tiles, tmp_path, monkeypatch):
    "Each costs as much as three epochs here: after the first one only that of the end is written, unless all are asked for."
    keep = learn_sittings._save_checkpoint
    seen = []

    def slow(watch, folder, phase):
        keep(watch, folder, phase)
        seen.append(len(watch.rows))
        clock[0] += 3

    clock = [0.0]
    monkeypatch.setattr(learn_sittings, '_save_checkpoint', slow)
    monkeypatch.setattr(learn_sittings.time, 'perf_counter', lambda: clock[0])
    after = learn_sittings.log_line
    monkeypatch.setattr(learn_sittings, 'log_line', lambda *a: (clock.__setitem__(0, clock[0] + 1), after(*a)))
    for every, want in ((None, [1, 5]), (0, [1, 2, 3, 4, 5])):
        seen.clear()
        out = tmp_path / f'r{every}'
        recipe = learn_recipes.Recipe.quick(**{**small, 'epochs': 5})
        learn_training.train(tiles, recipe, out, 'cpu', checkpoint_seconds=every)
        assert seen == want, every


def stopped(tiles, out, monkeypatch, r=learn_recipes.Recipe.quick(**small)):
    "The folder that a training leaves which is stopped in its last epoch."
    keep = learn_learner.make_learner

    class Stop(Callback):
        def before_epoch(self):
            if self.epoch == r.epochs - 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(learn_sittings, 'make_learner', lambda *a, **k: keep(*a, cbs=Stop(), **k))
        with pytest.raises(KeyboardInterrupt):
            learn_training.train(tiles, r, out, 'cpu', checkpoint_seconds=0)
    return out.with_name(f'.{out.name}.unfinished')


@pytest.fixture(scope='module')
def unfinished(tiles, tmp_path_factory):
    "A training of three epochs that was stopped after two, and the weights that it ends with."
    d = tmp_path_factory.mktemp('unfinished')
    with pytest.MonkeyPatch.context() as m:
        part = stopped(tiles, d / 'r', m)
    shutil.copytree(part, d / 'part')
    run = learn_training.train(tiles, learn_recipes.Recipe.quick(**small), d / 'r', 'cpu')
    return d / 'part', weights(run.path)


def edited(page, **change):
    write_json(sealed({**read_json(page), **change}), page)


def cut_off(f):
    b = f.read_bytes()
    f.write_bytes(b[: len(b) * 2 // 3])


def zeroed(f):
    b = f.read_bytes()
    f.write_bytes(b[: -len(b) // 3] + bytes(len(b) // 3))


def flipped(f):
    b = bytearray(f.read_bytes())
    b[len(b) // 2] ^= 16
    f.write_bytes(b)


def linked(f):
    elsewhere = f.parents[1] / 'elsewhere'
    f.rename(elsewhere)
    f.symlink_to(elsewhere)


@pytest.mark.parametrize('name', ['state.safetensors', 'state.json'])
@pytest.mark.parametrize('how', [cut_off, zeroed, flipped, linked])
def test_a_damaged_checkpoint_is_passed_over(unfinished, how, name, tmp_path):
    shutil.copytree(unfinished[0], tmp_path / 'part')
    assert learn_sittings._load_checkpoint(tmp_path / 'part')['epoch'] == 2
    how(tmp_path / 'part' / 'epoch_0002' / name)
    with pytest.warns(UserWarning, match='epoch_0002 is damaged .* and is passed over'):
        assert learn_sittings._load_checkpoint(tmp_path / 'part') is None


@pytest.mark.parametrize(
    'change',
    [
        dict(phase=-1),
        dict(epoch='2'),
        dict(rows=[]),
        dict(rows=[dict(epoch=1)]),
        dict(hypers=[5]),
        dict(opt=5),
        dict(chance={}),
        dict(chance=dict(numpy=['MT19937', [1], 0, 0, 0.0], python=[3, [1], None], loader=[3, [1], None], torch=[1])),
        dict(sha256='0' * 64),
    ],
)
def test_a_checkpoint_of_a_stranger_is_passed_over(unfinished, change, tmp_path):
    shutil.copytree(unfinished[0], tmp_path / 'part')
    edited(tmp_path / 'part' / 'epoch_0002' / 'state.json', **change)
    with pytest.warns(UserWarning, match='epoch_0002 is damaged .* and is passed over'):
        assert learn_sittings._load_checkpoint(tmp_path / 'part') is None


def test_after_a_damaged_checkpoint_the_weights_are_the_same(tiles, unfinished, tmp_path):
    shutil.copytree(unfinished[0], tmp_path / '.r.unfinished')
    zeroed(tmp_path / '.r.unfinished' / 'epoch_0002' / 'state.safetensors')
    with pytest.warns(UserWarning, match='epoch_0002 is damaged'):
        run = learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu')
    assert all(torch.equal(v, unfinished[1][k]) for k, v in weights(run.path).items())


def test_the_state_of_another_network_is_passed_over(tiles, unfinished, tmp_path):
    shutil.copytree(unfinished[0], tmp_path / '.r.unfinished')
    f = tmp_path / '.r.unfinished' / 'epoch_0002' / 'state.safetensors'
    learn_sittings.save_file({k: v for k, v in load_file(f).items() if 'bn1' not in k}, f)
    edited(f.with_name('state.json'), sha256=file_sum(f))
    with pytest.warns(UserWarning, match='state of another network, which is passed over'):
        run = learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu')
    assert all(torch.equal(v, unfinished[1][k]) for k, v in weights(run.path).items())


@pytest.mark.parametrize('how', [cut_off, zeroed, flipped, lambda f: f.write_text('[]'), lambda f: edited(f, recipe=5)])
def test_a_damaged_note_of_what_was_begun_is_refused(tiles, unfinished, how, tmp_path):
    shutil.copytree(unfinished[0], tmp_path / '.r.unfinished')
    f = tmp_path / '.r.unfinished' / 'identity.json'
    how(f)
    with pytest.raises(ValueError, match='identity.json is damaged'):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu')
    r = learn_recipes.Recipe.quick(**{**small, 'epochs': 1})
    assert len(learn_training.train(tiles, r, tmp_path / 'r', 'cpu', overwrite=True).history) == 1


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a POSIX system')
def test_two_trainings_into_one_folder(tiles, tmp_path):
    "The second is refused with the number of the first; when the first is killed, its place is taken."
    ready = tmp_path / 'ready'
    pid = os.fork()
    if pid == 0:
        with only_writer(tmp_path / 'r'):
            ready.write_text('x')
            time.sleep(120)
    while not ready.exists():
        time.sleep(0.01)
    r = learn_recipes.Recipe.quick(**{**small, 'epochs': 1})
    with pytest.raises(FileExistsError, match=rf'by another process \(process {pid} on .*, since 2'):
        learn_training.train(tiles, r, tmp_path / 'r', 'cpu')
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.warns(UserWarning, match=f'process {pid} on .* was stopped before it was done'):
        assert len(learn_training.train(tiles, r, tmp_path / 'r', 'cpu').history) == 1
    assert sorted(o.name for o in tmp_path.iterdir()) == ['r', 'ready']


def test_trainings_in_threads_are_those_in_turn(tiles, tmp_path):
    recipes = [learn_recipes.Recipe.quick(**{**small, 'epochs': 1, 'seed': k}) for k in range(2)]
    do = lambda r, kind: learn_training.train(tiles, r, tmp_path / f'{kind}{r.seed}', 'cpu', figures=False).preds
    in_turn = [do(r, 'turn') for r in recipes]
    with ThreadPoolExecutor(2) as pool:
        threads = list(pool.map(do, recipes, ['thread'] * 2))
    for a, b in zip(in_turn, threads):
        pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a POSIX system')
def test_the_lock_of_who_was_killed_when_all_was_written_goes(tiles, tmp_path):
    r = learn_recipes.Recipe.quick(**{**small, 'epochs': 1})
    open_again = partial(learn_training.train, tiles, r, tmp_path / 'seed_0', 'cpu', again='open')
    repeat_again = partial(learn_training.repeat, tiles, r, tmp_path, 1, 'cpu')
    learn_training.train(tiles, r, tmp_path / 'seed_0', 'cpu')
    for call in open_again, repeat_again:
        pid = os.fork()
        if pid == 0:
            with only_writer(tmp_path / 'seed_0'):
                os._exit(0)
        os.waitpid(pid, 0)
        assert (tmp_path / '.seed_0.lock').exists()
        call()
        assert [o.name for o in tmp_path.iterdir()] == ['seed_0']


@pytest.mark.long
def test_finetuning_interrupted_in_its_second_phase(tiles, tmp_path, monkeypatch):
    import timm

    learn_sittings.save_file(timm.create_model('resnet10t').state_dict(), tmp_path / 'w.safetensors')
    r = learn_recipes.Recipe.quick(
        **{**small, 'epochs': 2}, weights='finetuned', weights_file=str(tmp_path / 'w.safetensors')
    )
    keep = learn_learner.make_learner

    class Stop(Callback):
        def before_epoch(self):
            if self.n_epoch == 2 and self.epoch == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(learn_sittings, 'make_learner', lambda *a, **k: keep(*a, cbs=Stop(), **k))
    with pytest.raises(KeyboardInterrupt):
        learn_training.train(tiles, r, tmp_path / 'b', 'cpu', checkpoint_seconds=0)
    monkeypatch.undo()
    a, b = (weights(learn_training.train(tiles, r, tmp_path / o, 'cpu').path) for o in 'ab')
    assert 'taken up after epoch 2' in (tmp_path / 'b' / 'log.txt').read_text() and all(
        torch.equal(a[k], b[k]) for k in a
    )


@pytest.mark.parametrize('arm', ['scratch', 'frozen', 'finetuned'])
def test_what_moves(tiles, tmp_path, arm):
    import timm

    learn_sittings.save_file(timm.create_model('resnet10t').state_dict(), tmp_path / 'w.safetensors')
    r = learn_recipes.Recipe.quick(**{**small, 'epochs': 1}, weights=arm, weights_file=str(tmp_path / 'w.safetensors'))
    dls = learn_loaders.make_dls(tiles, learn_recipes.Recipe.quick(**small), 'cpu')
    with no_random(0):
        learn = learn_learner.make_learner(dls, r)
    was = {k: v.clone() for k, v in learn.model.state_dict().items()}
    given = load_file(tmp_path / 'w.safetensors')
    begun = [
        torch.equal(was[f'0.{k}'], v)
        for k, v in given.items()
        if f'0.{k}' in was and v.ndim == 4 and k != 'conv1.0.weight'
    ]
    assert begun and all(begun) == (arm != 'scratch') and any(begun) == (arm != 'scratch')
    with no_random(0), learn.no_bar(), learn.no_logging():
        learn_sittings._fit(learn, r, None, learn_sittings._Watch())
    moved = {k for k, v in learn.model.state_dict().items() if not torch.equal(v, was[k])}
    assert moved == ({k for k in was if k.startswith('1.')} if arm == 'frozen' else set(was))


@pytest.mark.long
def test_a_disk_that_fills_while_the_run_is_written(tiles, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(learn_runs, 'save_model', full)
    with pytest.raises(OSError):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu')
    assert not (tmp_path / 'r').exists() and not list(tmp_path.glob('*.part'))
    monkeypatch.undo()
    assert (
        'taken up after epoch 3'
        in (
            learn_training.train(tiles, learn_recipes.Recipe.quick(**small), tmp_path / 'r', 'cpu').path / 'log.txt'
        ).read_text()
    )


def test_precision_by_device(monkeypatch):
    for version, want in [((9, 0), 'bf16'), ((8, 0), 'bf16'), ((7, 5), 'fp16'), ((6, 1), None)]:
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *a, v=version: v)
        assert learn_learner.fast_half(torch.device('cuda')) == want
    assert learn_learner.precision_on(learn_recipes.Recipe.quick(), 'cpu') == 'float32'


@pytest.mark.filterwarnings('ignore')
def test_the_frame_of_fp16_without_its_arithmetic(tiles, tmp_path):
    "Off a GPU, torch's scaler and autocast do nothing, but the order of what calls them can be seen."
    learn = learn_learner.make_learner(
        learn_loaders.make_dls(tiles, learn_recipes.Recipe.quick(**small), 'cpu'),
        learn_recipes.Recipe.quick(**small),
        cbs=learn_learner._Half(),
        most=4,
    )
    watch = learn_sittings._Watch(save=lambda w: learn_sittings._save_checkpoint(w, tmp_path, 0))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-3, cbs=watch)
    assert len(watch.rows) == 2 and not torch.is_autocast_enabled('cuda')
    assert (
        learn_sittings._load_checkpoint(tmp_path)['scaler'] == {}
        and np.isfinite([r['train_loss'] for r in watch.rows]).all()
    )


def test_fastais_own_finder_works(tiles, tmp_path):
    learn = learn_learner.make_learner(
        learn_loaders.make_dls(tiles, learn_recipes.Recipe.quick(**small), 'cpu'), learn_recipes.Recipe.quick(**small)
    )
    learn.path = tmp_path
    with learn.no_bar():
        assert 0 < learn.lr_find(num_it=20, show_plot=False).valley < 10


def test_half_precision_ends_with_a_training_that_fails(tiles, monkeypatch, tmp_path):
    keep = learn_learner.make_learner

    def fails(*args, **kwargs):
        learn = keep(*args, **kwargs)

        def hook(*a):
            raise torch.OutOfMemoryError('CUDA out of memory')

        learn.model[1].register_forward_pre_hook(hook)
        return learn

    monkeypatch.setattr(learn_sittings, 'make_learner', fails)
    with pytest.raises(torch.OutOfMemoryError):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**small, precision='bf16'), tmp_path / 'r', 'cpu')
    assert not torch.is_autocast_enabled('cpu')


def test_copies_on_two_sides_of_the_split(tiles, tmp_path):
    import shutil, warnings
    from celldeath_nb.photos.fields import read_fields

    shutil.copytree(tiles.manifest['folder'], tmp_path / 'p')
    a, b = (
        tiles.table.field[(tiles.table.split == s) & (tiles.table.label == 'CPT')].iloc[0] for s in ('train', 'valid')
    )
    shutil.copy(tmp_path / 'p' / a, tmp_path / 'p' / b)
    t = cut_tiles(read_fields(tmp_path / 'p', label_from='folder'), tmp_path / 't')
    t = t.add(split=t.table.field.map(tiles.table.drop_duplicates('field').set_index('field').split).values)
    r = learn_recipes.Recipe.quick(**{**small, 'epochs': 1})
    with pytest.raises(ValueError, match='pairs of tiles that show the same'):
        learn_training.train(t, r, tmp_path / 'r', 'cpu', duplicates='refuse')
    with pytest.warns(UserWarning, match='4 pairs of tiles of different photographs show nearly the same'):
        run = learn_training.train(t, r, tmp_path / 'r', 'cpu')
    assert (
        '4 pairs of tiles' in (run.path / 'methods.txt').read_text() and '4 pairs' in (run.path / 'log.txt').read_text()
    )
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn_training._copies(t, 'ignore')
    with pytest.raises(ValueError, match='duplicates='):
        learn_training._copies(t, 'maybe')


def test_deterministic_swaps_a_pooling_and_nothing_else(tiles):
    dls = learn_loaders.make_dls(tiles, learn_recipes.Recipe.quick(**small), 'cpu')
    r = learn_recipes.Recipe.quick(**small, head='fastai')
    with no_random(0):
        a = learn_learner.make_learner(dls, r).model.eval()
    with no_random(0):
        b = learn_learner.make_learner(dls, replace(r, deterministic=True)).model.eval()
    x = dls.valid.one_batch()[0]
    assert torch.equal(a(x), b(x)) and a.state_dict().keys() == b.state_dict().keys()
    assert not any(isinstance(m, torch.nn.AdaptiveMaxPool2d) for m in b.modules())


def test_a_transformer_is_not_turned(tiles, tmp_path):
    with pytest.raises(ValueError, match='Use turns=False'):
        learn_learner._check_turns(
            make_net('vit_tiny_patch16_224', 2, (32, 48)), learn_recipes.Recipe.quick(), (32, 48)
        )
    learn_learner._check_turns(make_net('resnet10t', 2, (32, 48)), learn_recipes.Recipe.quick(), (32, 48))


@pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'),
    reason='slow: torch.compile needs a C++ compiler and a minute; set CELLDEATH_SLOW=1',
)
def test_compiled(tiles, tmp_path):
    import shutil

    if shutil.which('g++') is None and shutil.which('clang++') is None:
        pytest.skip('torch.compile needs a C++ compiler, and there is none')
    r = learn_recipes.Recipe.quick(
        **{**small, 'epochs': 1}, turns=False, dropout=0
    )  # dropout draws other numbers when it is compiled
    a, b = (learn_training.train(tiles, replace(r, compile=c), tmp_path / str(c), 'cpu') for c in (False, True))
    assert np.allclose(a.history.train_loss, b.history.train_loss, rtol=0.05), (a.history, b.history)
    plain = predict(
        b.model, tiles.subset((tiles.table.split == 'valid').values), device='cpu'
    )  # the bundle is read into a network that is not compiled
    assert np.allclose(plain.p_CPT, b.preds.p_CPT, atol=1e-3) and weights(a.path).keys() == weights(b.path).keys()


@pytest.mark.long
def test_early_stopping_and_the_extras(tiles, tmp_path):
    r = learn_recipes.Recipe.quick(
        **{**small, 'epochs': 30},
        patience=1,
        mixup=0.4,
        label_smoothing=0.1,
        balance='weights',
        deterministic=True,
        precision='float32',
    )
    run = learn_training.train(tiles, r, tmp_path / 'r', 'cpu')
    assert len(run.history) < 30 and run.recipe == r and not torch.are_deterministic_algorithms_enabled()
    text = (run.path / 'methods.txt').read_text()
    assert (
        'mixup, alpha 0.4' in text
        and 'label smoothing 0.1' in text
        and 'early stopping' in text
        and 'inverse frequency' in text
    )


def test_balanced_batches(tiles):
    few = tiles.subset(
        ((tiles.table.label == 'CPT') | (tiles.table.split == 'valid') | (np.arange(len(tiles)) % 3 == 0)).values
    )
    y = learn_loaders.make_dls(few, learn_recipes.Recipe.quick(**small), 'cpu').train.dataset.y
    dl = learn_loaders.make_dls(few, learn_recipes.Recipe.quick(**small, balance='batches'), 'cpu').train
    drawn = np.concatenate([np.asarray(dl.dataset.y)[dl.shuffle_fn(list(range(len(y))))] for _ in range(50)])
    assert y.float().mean() < 0.35 and abs(drawn.mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    'change, why',
    [
        (dict(arch='resnet5'), 'Near it: .*resnet'),
        (dict(batch_size=64), 'smaller batch_size'),
        (dict(precision='fp16'), 'needs an NVIDIA GPU'),
    ],
)
def test_recipes_that_cannot_be_followed_here(tiles, tmp_path, change, why):
    with pytest.raises(ValueError, match=why):
        learn_training.train(tiles, learn_recipes.Recipe.quick(**{**small, **change}), tmp_path / 'r', 'cpu')
    assert not (tmp_path / 'r').exists()


@pytest.mark.parametrize(
    'change',
    [
        dict(lr=(1e-2, 1e-4)),
        dict(lr=float('nan')),
        dict(epochs=0),
        dict(balance='yes'),
        dict(patience=0),
        dict(mixup=-1),
        dict(label_smoothing=1),
        dict(weights='imagenet'),
        dict(nonsense=1),
    ],
)
def test_recipes_that_cannot_be_meant(change):
    with pytest.raises(ValueError):
        learn_recipes.Recipe.quick(**change)


def test_tiles_that_cannot_be_learned_from(tiles):
    with pytest.raises(ValueError, match='at least two classes'):
        learn_loaders.make_dls(tiles.add(label='CPT'))
    lone = tiles.table.label.where((tiles.table.split == 'train'), 'DMSO')
    with pytest.raises(ValueError, match="No tile of CPT is in 'valid'"):
        learn_loaders.make_dls(tiles.add(label=lone.values))
    lone = tiles.table.label.where((tiles.table.split == 'valid'), 'DMSO')
    with pytest.raises(ValueError, match="No tile of CPT is in 'train'"):
        learn_loaders.make_dls(tiles.add(label=lone.values))


def test_tiles_of_one_gray(tiles, monkeypatch):
    monkeypatch.setattr(Tiles, 'batch', lambda self, idxs, out=None: np.full((len(idxs), 32, 32), 100, np.uint8))
    with pytest.raises(ValueError, match='all of one gray'):
        learn_loaders.make_dls(tiles, learn_recipes.Recipe.quick(**small))


def test_too_small_a_tile_for_the_network():
    from celldeath_nb.learn.nets import make_net

    with pytest.raises(ValueError, match='cannot take tiles|no grid'):
        make_net('vgg11', 2, (16, 16))


@pytest.mark.skipif(
    not (root.parent / 'shared' / 'data' / 'celltype').exists(), reason='../shared/data/celltype is not here'
)
@pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'),
    reason='slow: nine trainings of about 100 tiles, 11 minutes on one core; set CELLDEATH_SLOW=1, or run benchmarks/training.py --part celltype',
)
def test_quick_learns_two_real_cell_types():
    from benchmark_of import benchmark

    res = benchmark('training').celltype(root.parent / 'shared' / 'data' / 'celltype')
    assert res['one_split']['network']['test']['mean'] > 0.7 and res['over_splits']['network_less_hog']['mean'] > 0
