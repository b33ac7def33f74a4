"Threads are chosen only for those who ask, and what was chosen rules the rest of a training."

from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from safetensors.torch import load_file

import celldeath_nb.learn.pace as pace
import celldeath_nb.learn.sittings as sittings
from celldeath_nb.learn.pace import _Pace as Pace, thread_counts
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by
from noise import photographs

torch.set_num_threads(1)
quick = dict(size=32, epochs=2, min_steps=0, batch_size=4)


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    d = tmp_path_factory.mktemp('home')
    photos = photographs(d / 'photos', size=(80, 80))
    return split_by(cut_tiles(read_fields(photos, label_from='folder'), d / 'tiles'), None, 0.4, seed=0)


@pytest.fixture
def two_are_faster(monkeypatch):
    monkeypatch.setattr(pace, 'thread_counts', lambda most=None: [1, 2])
    monkeypatch.setattr(pace, 'time_threads', lambda step, counts, tries=3: (step(), {1: 2.0, 2: 1.0})[1])


def weights(run):
    return load_file(run.path / 'model' / 'model.safetensors')


def alike(a, b):
    return all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


def test_nothing_is_chosen_unasked(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, 'time_threads', lambda *args: pytest.fail('timed'))
    run = train(tiles, Recipe.quick(**quick), tmp_path / 'run', 'cpu')
    assert run.environment['threads'] == 1 and 'threads:' not in (run.path / 'log.txt').read_text()


def test_timing_moves_no_source_of_chance(tiles, tmp_path, two_are_faster):
    "What was chosen gives the weights that the same number gives when it is asked for."
    a = train(tiles, Recipe.quick(**quick), tmp_path / 'a', 'cpu', threads='auto')
    b = train(tiles, Recipe.quick(**quick), tmp_path / 'b', 'cpu', threads=2)
    assert a.environment['threads'] == b.environment['threads'] == 2 and alike(a, b)
    assert 'threads: 2 (a batch takes with 1: 2.000 s, 2: 1.000 s)' in (a.path / 'log.txt').read_text()
    assert torch.get_num_threads() == 1


@pytest.mark.long
def test_an_interrupted_training_keeps_its_number(tiles, tmp_path, two_are_faster, monkeypatch):
    class Stop(Callback):
        def before_epoch(self):
            if self.epoch == 1:
                raise KeyboardInterrupt

    whole = train(tiles, Recipe.quick(**quick), tmp_path / 'whole', 'cpu', threads='auto')
    keep = sittings.make_learner
    monkeypatch.setattr(sittings, 'make_learner', lambda *args, **kwargs: keep(*args, cbs=Stop(), **kwargs))
    with pytest.raises(KeyboardInterrupt):
        train(tiles, Recipe.quick(**quick), tmp_path / 'run', 'cpu', threads='auto')
    monkeypatch.setattr(sittings, 'make_learner', keep)
    monkeypatch.setattr(pace, 'time_threads', lambda step, counts, tries=3: {1: 1.0, 2: 2.0})
    with pytest.raises(ValueError, match='begun with 2 threads and is unfinished'):
        train(tiles, Recipe.quick(**quick), tmp_path / 'run', 'cpu', threads=1)
    run = train(tiles, Recipe.quick(**quick), tmp_path / 'run', 'cpu')  # what it was begun with rules, also unasked
    assert run.environment['threads'] == 2 and alike(run, whole)


def test_a_pace_that_falls_is_looked_at_again(tmp_path, monkeypatch):
    said = []
    took = [{1: 2.0, 2: 1.0}, {1: 1.0, 2: 3.0}]
    monkeypatch.setattr(pace, 'time_threads', lambda *args: took[len(said)])
    monkeypatch.setattr(pace, '_batch_of', lambda learn: None)
    cb = Pace(tmp_path, said.append, counts=[1, 2])
    cb.learn = SimpleNamespace()
    clock = iter([0, 1, 2, 3, 13, 13, 13, 23, 23, 23, 39, 39, 40, 41, 42])
    monkeypatch.setattr(pace.time, 'perf_counter', lambda: next(clock, 99))
    for _ in range(4):  # epochs of 10, 10 and 16 seconds; the fourth begins with a look
        cb.before_epoch()
        if len(said) < 2:
            cb.after_train()
    assert [o.split(' ')[1] for o in said] == ['2', '1'] and cb.kept == 1
    torch.set_num_threads(1)


def test_who_set_the_number_has_chosen(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert thread_counts() == [3]
    monkeypatch.delenv('OMP_NUM_THREADS')
    assert thread_counts()[0] == 1


@pytest.mark.parametrize('bad', [0, -1, True, 1.5, 'all'])
def test_what_is_no_number_of_threads(tiles, tmp_path, bad):
    with pytest.raises(ValueError, match='threads='):
        train(tiles, Recipe.quick(**quick), tmp_path / 'run', 'cpu', threads=bad)
    assert list(tmp_path.iterdir()) == []
