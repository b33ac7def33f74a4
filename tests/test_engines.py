"An engine gives the verdicts of the network, or none."

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import celldeath_nb.learn.engines as engines
from celldeath_nb.learn.engines import Engine, as_it_is, fold_norms, largest_gap
from celldeath_nb.learn.models import load_model
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.prediction import predict
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by
from noise import photographs

torch.set_num_threads(1)


def trained_net(arch, size=(64, 80)):
    "A network with means and variances as a training leaves them."
    torch.manual_seed(0)
    net = make_net(arch, 3, size, 'linear')
    with torch.no_grad():
        net.train()(torch.randn(8, 1, *size))
    return net.eval()


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Photographs, and a run that saw them for a moment and knows what they look like."
    d = tmp_path_factory.mktemp('home')
    tiles = cut_tiles(read_fields(photographs(d / 'photos', 16), label_from='folder'), d / 'tiles')
    train(
        split_by(tiles, None, 0.4, seed=0), Recipe.quick(size=33, epochs=1, min_steps=0, batch_size=4), d / 'run', 'cpu'
    )
    return d


def test_novelty_is_told_by_an_engine_as_well(home):
    model = load_model(home / 'run')
    assert model.reference is not None
    a = predict(model, home / 'photos', device='cpu')
    b = predict(model, home / 'photos', device='cpu', engine='torch')
    assert list(a) == list(b) and np.abs(a.p_a - b.p_a).max() < 1e-5
    assert np.abs(a.novelty - b.novelty).max() < 0.13  # ranks among 24 tiles, which are these
    assert not hasattr(model, 'engine')
    assert 'Engine torch, as asked' in b.attrs['engine'] and 'engine' not in a.attrs


def test_what_one_engine_began_another_does_not_end(home, tmp_path, monkeypatch):
    model = load_model(home / 'run')
    x = np.random.default_rng(0).integers(50, 200, (8, *model.tile_px), dtype=np.uint8)
    keep = engines.Engine.run

    def breaks(self, net, first, n):
        run = keep(self, net, first, n)
        calls = []

        def once(y):
            calls.append(1)
            if len(calls) > 1:
                raise OSError('the disk is away')
            return run(y)

        return once

    monkeypatch.setattr(engines.Engine, 'run', breaks)
    with pytest.raises(OSError, match='away'):
        predict(model, x, bs=4, device='cpu', out=tmp_path / 'p.csv', engine='torch')
    monkeypatch.undo()
    assert [o.suffix for o in tmp_path.iterdir()] == ['.part']
    with pytest.warns(UserWarning, match='removed what another prediction left'):
        plain = predict(model, x, bs=4, device='cpu', out=tmp_path / 'p.csv')
    assert plain.p_a.tolist() == predict(model, x, bs=4, device='cpu').p_a.tolist()
    assert [o.name for o in tmp_path.iterdir()] == ['p.csv']


def test_a_convolution_that_is_used_twice_is_left_alone():
    "Its norm is folded into neither use; one that the network uses beside the norm is caught by the comparison."

    class Twice(torch.nn.Module):
        def __init__(self, beside):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)
            self.norm = torch.nn.BatchNorm2d(1)
            self.norm.running_mean.fill_(0.7)
            self.beside = beside

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + (y if self.beside else self.conv(2 * x))

    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2))
    x = torch.rand(2, 1, 4, 4)
    net = torch.nn.Sequential(Twice(False), head).eval()
    assert isinstance(fold_norms(net, x[:1])[0].norm, torch.nn.BatchNorm2d)
    net = torch.nn.Sequential(Twice(True), head).eval()
    with pytest.raises(ValueError, match='gives other logits'):
        Engine('torch').run(net, x, 2)


@pytest.mark.parametrize('bad', [float('nan'), 1.0 + 1e-4])
def test_other_logits_are_passed_over_with_a_sentence(bad, monkeypatch):
    net = trained_net('resnet10t')
    x = torch.randn(3, 1, 64, 80)
    monkeypatch.setitem(engines._ways, 'torch', lambda net, x: lambda x: tuple(bad * (o + 1) for o in as_it_is(net)(x)))
    engine = Engine('auto')
    with pytest.warns(UserWarning, match='The engine torch was passed over'):
        run = engine.run(net, x, 3)
    assert engine.chosen == 'plain' and largest_gap(run(x), as_it_is(net)(x)) == 0


def test_the_fastest_is_taken(monkeypatch):
    net = trained_net('resnet10t')
    x = torch.randn(3, 1, 64, 80)
    monkeypatch.setattr(engines, 'shortest', lambda ways, tries=3: {k: 1.0 + (k == 'plain') for k in ways})
    engine = Engine('auto')
    engine.run(net, x, 3)
    assert engine.chosen == 'torch' and 'torch 2.00' in engine.said


@pytest.mark.parametrize(
    'arch', ['densenet121', 'tf_efficientnet_lite0', 'torchvision/resnet18', 'vit_tiny_patch16_224']
)
def test_networks_of_many_kinds_are_folded(arch):
    size = (64, 80)
    net = trained_net(arch, size)
    x = torch.randn(3, 1, *size)
    assert largest_gap(as_it_is(fold_norms(net, x[:1]))(x), as_it_is(net)(x)) <= 1e-5


@pytest.mark.long
def test_onnx_gives_the_same(home):
    for o in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(o, reason=f'no {o}: pip install "celldeath_nb[export]"')
    model = load_model(home / 'run')
    a = predict(model, home / 'photos', bs=3, device='cpu')
    b = predict(model, home / 'photos', bs=3, device='cpu', engine='onnx')
    assert np.abs(a.p_a - b.p_a).max() < 1e-5 and 'Engine onnx' in b.attrs['engine']


def test_an_exported_model_needs_no_engine(home):
    class Told:
        probabilities = None
        path = None

    with pytest.raises(ValueError, match='exported and runs without torch'):
        predict(Told(), np.zeros((1, 4, 4), np.uint8), engine='torch')
    with pytest.raises(ValueError, match="engine='fast' is unknown"):
        predict(load_model(home / 'run'), home / 'photos', device='cpu', engine='fast')


def test_the_command_says_which_engine(home, tmp_path, call):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        code, said = call('predict', str(home / 'run'), str(home / 'photos'), '--engine', 'torch', '--device', 'cpu')
    assert code == 0 and 'Engine torch, as asked' in said, said
    assert len(pd.read_csv(tmp_path / 'predictions.csv')) > 0
