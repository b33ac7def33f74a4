"Models from strangers: nothing in them is executed, and what is wrong is said."

import hashlib, os, pickle, resource, shutil, time, warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import celldeath_nb.learn.models as learn_models
import celldeath_nb.learn.nets as learn_nets
from celldeath_nb.tiles.remedies import normalize_fields
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.files import read_json, write_json
from celldeath_nb.files import sealed
from celldeath_nb.learn.models import Model, load_model, save_model
from celldeath_nb.learn.nets import check_arch, make_net
from celldeath_nb.learn.prediction import predict
from celldeath_nb.tiles.cut import cut_tiles


@pytest.fixture(scope='module')
def model():
    return Model(
        make_net('resnet10t', 2, (32, 32), 'linear').eval(),
        'resnet10t',
        ['CPT', 'DMSO'],
        (32, 32),
        (32, 32),
        0.5,
        0.2,
        head='linear',
        um_per_px=0.434,
    )


@pytest.fixture
def folder(model, tmp_path):
    return save_model(model, tmp_path / 'm')


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 255, (5, 32, 32), dtype=np.uint8)


def reseal(folder, data=None, **change):
    "Put other bytes in place of the weights, or other words in place of the page's, with the checksums that belong to them."
    f = folder / 'model.safetensors'
    f.write_bytes(f.read_bytes() if data is None else data)
    page = {**read_json(folder / 'model.json'), **change}
    write_json(sealed({**page, 'sha256': hashlib.sha256(f.read_bytes()).hexdigest()}), folder / 'model.json')


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_inside_is_not_run(folder, tmp_path):
    reseal(folder, pickle.dumps(Canary(tmp_path / 'canary')))
    with pytest.raises(ValueError, match='cannot be read as safetensors'):
        load_model(folder)
    (folder / 'extra.pkl').write_bytes(pickle.dumps(Canary(tmp_path / 'canary')))
    with pytest.raises(ValueError):
        load_model(folder)
    assert not (tmp_path / 'canary').exists()


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'\0' * 7,
        b'\xff' * 8 + b'{}',
        (99_000_000).to_bytes(8, 'little') + b'{',
        (8).to_bytes(8, 'little') + b'not json',
    ],
)
def test_weights_that_are_none(folder, data):
    reseal(folder, data)
    with pytest.raises(ValueError, match='safetensors|do not fit'):
        load_model(folder)


def test_overlapping_tensors(folder):
    head = (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    )
    reseal(folder, len(head).to_bytes(8, 'little') + head + b'\0' * 12)
    with pytest.raises(ValueError):
        load_model(folder)


@pytest.mark.parametrize('at', [0.1, 0.5, 0.99])
def test_truncated_weights(folder, at):
    f = folder / 'model.safetensors'
    f.write_bytes(f.read_bytes()[: int(f.stat().st_size * at)])
    with pytest.raises(ValueError, match='checksum'):
        load_model(folder)


@pytest.mark.parametrize(
    'change, why',
    [
        (dict(version=99), 'version 99'),
        (dict(version=[1]), 'version'),
        (dict(format='x'), 'does not describe'),
        (dict(classes=['a', 'a']), 'classes'),
        (dict(classes=['a']), 'classes'),
        (dict(size=[10**9, 10**9]), 'size'),
        (dict(size=[4000, 4000]), 'size'),
        (dict(size=[0, 5]), 'size'),
        (dict(mean='__import__("os")'), 'mean'),
        (dict(mean=1e999), 'mean|JSON|number'),
        (dict(mean=10**400), 'mean'),
        (dict(std=1e-12), 'std'),
        (dict(std=float('nan')), 'std'),
        (dict(info=[]), 'info'),
        (dict(info=dict(cut=5)), 'info'),
        (dict(info=dict(cut=dict(resize_to=[5, 5]))), 'info'),
        (dict(info=dict(cut=dict(remedies=[5]))), 'info'),
        (dict(info=dict(gray=dict(brightness=[1]))), 'info'),
        (dict(info=dict(seen=dict(hour=['one']))), 'info'),
        (dict(info=dict(seen=['U2OS'])), 'info'),
        (dict(info=dict(positive=5)), 'info'),
        (dict(um_per_px=-1), 'um_per_px'),
        (dict(arch='../../etc/passwd'), 'was changed'),
        (dict(arch='resnet18'), 'was changed'),
        (dict(classes=['a', 'b', 'c']), 'was changed'),
        (dict(head='fastai'), 'was changed'),
        (dict(classes=['DMSO', 'CPT']), 'was changed'),
        (dict(mean=0.6), 'was changed'),
        (dict(tile_px=[32, 64]), 'was changed'),
        (dict(info=dict(precision='bf16')), 'was changed'),
    ],
)
def test_pages_that_are_wrong(folder, change, why):
    import json

    page = {**read_json(folder / 'model.json'), **change}
    (folder / 'model.json').write_text(json.dumps(page))
    with pytest.raises(ValueError, match=why):
        load_model(folder)
    if why != 'was changed' or 'info' in change:
        return
    reseal(folder, **change)
    with pytest.raises(ValueError, match='was changed since the weights were saved'):
        load_model(folder)


@pytest.mark.parametrize(
    'change, why',
    [
        (dict(arch='../../etc/passwd'), 'No network'),
        (dict(arch='resnet18'), 'do not fit a resnet18'),
        (dict(classes=['a', 'b', 'c']), 'do not fit .* with 3 classes .2 tensors differ'),
        (dict(head='fastai'), 'do not fit'),
        (dict(arch='vit_gigantic_patch14_224'), 'do not fit .*it has far more'),
        (dict(arch='torchvision/vit_h_14'), 'no grid'),
        (dict(arch='torchvision/regnet_y_128gf'), 'do not fit .*it has far more'),
    ],
)
def test_weights_of_a_stranger_that_say_nothing_of_their_page(model, folder, change, why):
    "Refused before anything large is built: in seconds, and with little memory."
    learn_models.save_file(model.net.state_dict(), folder / 'model.safetensors')
    reseal(folder)
    assert load_model(folder).arch == 'resnet10t'
    reseal(folder, **change)
    start = time.process_time()
    was = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=why):
        load_model(folder)
    assert time.process_time() - start < 5  # seconds; half of one on a quiet core
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - was < 900_000  # kB


@pytest.mark.parametrize('v', [float('nan'), float('inf')])
@pytest.mark.parametrize('k', ['1.3.weight', '0.bn1.running_mean'])
def test_weights_that_are_no_numbers(model, folder, k, v):
    state = {n: t.clone() for n, t in model.net.state_dict().items()}
    state[k].view(-1)[3 % state[k].numel()] = v
    learn_models.save_file(state, folder / 'model.safetensors')
    reseal(folder)
    with pytest.raises(ValueError, match=f'holds no numbers where there must be some .{k}'):
        load_model(folder)


def test_a_spread_below_nothing(model, folder):
    state = {n: t - 5 * n.endswith('running_var') for n, t in model.net.state_dict().items()}
    learn_models.save_file(state, folder / 'model.safetensors')
    reseal(folder)
    with pytest.raises(ValueError, match='holds no numbers'):
        load_model(folder)


def test_numbers_of_another_kind(model, folder):
    state = {n: t.to(torch.float8_e4m3fn) if t.is_floating_point() else t for n, t in model.net.state_dict().items()}
    learn_models.save_file(state, folder / 'model.safetensors')
    reseal(folder)
    with pytest.raises(ValueError, match='numbers of the kind F8'):
        load_model(folder)


def test_a_model_of_the_first_version_is_read_with_a_note(model, folder, x):
    page = {k: v for k, v in read_json(folder / 'model.json').items() if k != 'checksum'}
    write_json({**page, 'version': 1}, folder / 'model.json')
    with pytest.warns(UserWarning, match='earlier version and has no checksum'):
        m = load_model(folder)
    assert predict(m, x, device='cpu').equals(predict(model, x, device='cpu'))


@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_a_link_out_of_the_folder(folder, tmp_path):
    shutil.move(folder / 'model.safetensors', tmp_path / 'secret')
    os.symlink(tmp_path / 'secret', folder / 'model.safetensors')
    with pytest.raises(ValueError, match='leads out of its folder'):
        load_model(folder)


def test_a_save_that_fails_leaves_the_old_model(model, folder, monkeypatch):

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(learn_models, 'save_file', full)
    with pytest.raises(OSError):
        save_model(model, folder, overwrite=True)
    monkeypatch.undo()
    assert load_model(folder).classes == ['CPT', 'DMSO']
    assert [o.name for o in folder.parent.iterdir()] == ['m']


def test_other_tiles_are_refused_and_other_scales_said(model, x):
    with pytest.raises(ValueError, match='16x32 pixels'):
        predict(model, x[:, :16])
    with pytest.raises(ValueError, match='uint8'):
        predict(model, x.astype(np.uint16))


def test_no_tiles_give_an_empty_table(model):
    preds = predict(model, np.empty((0, 32, 32), np.uint8), device='cpu')
    assert len(preds) == 0 and list(preds) == ['tile', 'p_CPT', 'p_DMSO', 'pred']


def test_constant_tiles_have_a_verdict(model):
    preds = predict(model, np.zeros((2, 32, 32), np.uint8), device='cpu')
    assert preds.p_CPT.between(0, 1).all()


def test_files_in_the_order_given(model, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for name in ('b.png', 'a.png', 'c d.png'):
        Image.fromarray(rng.integers(0, 255, (32, 64), dtype=np.uint8)).save(tmp_path / name)
        paths.append(tmp_path / name)
    preds = predict(model, paths, device='cpu', out=tmp_path / 'p.csv')
    assert preds.field.tolist() == [str(p) for p in paths for _ in range(2)]
    assert sorted(o.name for o in tmp_path.iterdir()) == ['a.png', 'b.png', 'c d.png', 'p.csv']
    with pytest.raises(FileNotFoundError, match='gone.png'):
        predict(model, [tmp_path / 'gone.png'])


def part_of(model, x, tmp_path, whole, bs=2):
    "What a prediction leaves that was stopped after four of five tiles."
    from celldeath_nb.learn.prediction import _job

    job = _job(model, hashlib.sha256(x).hexdigest(), tmp_path / 'p.csv')
    for i in range(0, 4, bs):
        job.add(whole[['p_CPT', 'p_DMSO']].values[i : i + bs])
    return job.path


def test_an_interrupted_prediction_goes_on(model, x, tmp_path, monkeypatch):
    whole = predict(model, x, bs=2, device='cpu')
    path = part_of(model, x, tmp_path, whole)
    asked = []
    as_input = learn_models.Model.as_input
    monkeypatch.setattr(learn_models.Model, 'as_input', lambda self, x, d: asked.append(len(x)) or as_input(self, x, d))
    again = predict(model, x, bs=2, device='cpu', out=tmp_path / 'p.csv')
    assert asked == [1] and again.equals(whole) and [o.name for o in tmp_path.iterdir()] == ['p.csv']
    part_of(model, x, tmp_path, whole)
    assert predict(model, x, bs=3, device='cpu', out=tmp_path / 'q.csv').pred.equals(whole.pred)
    assert path.exists()  # of another file
    assert np.allclose(predict(model, x, bs=3, device='cpu', out=tmp_path / 'p.csv').p_CPT, whole.p_CPT, atol=1e-6)
    assert asked[1:] == [3, 2, 2]  # of four tiles, three are a batch


@pytest.mark.parametrize('how', ['torn', 'zeros', 'a flip', 'zeros behind', 'exchanged', 'of another job', 'a pipe'])
def test_a_damaged_part_of_an_interrupted_prediction_is_done_again(how, model, x, tmp_path):
    whole = predict(model, x, bs=2, device='cpu')
    path = part_of(model, x, tmp_path, whole)
    b = bytearray(path.read_bytes())
    if how == 'torn':
        b = b[:-5]
    elif how == 'zeros':
        b[-32:] = bytes(32)  # what a power cut leaves of an append that was not synced: the length, and zeros
    elif how == 'a flip':
        b[13] ^= 4
    elif how == 'zeros behind':
        b += bytes(64)
    elif how == 'exchanged':
        b = b[40:] + b[:40]
    elif how == 'of another job':
        part_of(model, x + 1, tmp_path, whole.iloc[::-1])
        other = next(o for o in tmp_path.glob('.p.csv.*.part') if o != path)
        b = other.read_bytes()
        other.unlink()
    path.write_bytes(b)
    if how == 'a pipe':
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(ValueError, match='no ordinary file'):
            predict(model, x, bs=2, device='cpu', out=tmp_path / 'p.csv')
        return
    with pytest.warns(UserWarning, match='no whole batch and are predicted again'):
        again = predict(model, x, bs=2, device='cpu', out=tmp_path / 'p.csv')
    assert again.equals(whole) and [o.name for o in tmp_path.iterdir()] == ['p.csv']


def test_what_another_model_left_unfinished_goes_and_two_at_once_are_refused(model, x, tmp_path):
    from celldeath_nb.files import only_writer

    old = part_of(replace(model, mean=0.4), x, tmp_path, predict(model, x, device='cpu'))
    with pytest.warns(UserWarning, match=f'removed what another prediction left unfinished .{old.name}'):
        predict(model, x, device='cpu', out=tmp_path / 'p.csv')
    assert [o.name for o in tmp_path.iterdir()] == ['p.csv']
    with only_writer(tmp_path / 'p.csv'), pytest.raises(FileExistsError, match=f'process {os.getpid()} on'):
        predict(model, x, device='cpu', out=tmp_path / 'p.csv')


def test_a_model_whose_verdicts_are_no_numbers(model, x, tmp_path):
    large = {k: v * 1e30 if k == '1.3.weight' else v for k, v in model.net.state_dict().items()}
    net = make_net('resnet10t', 2, (32, 32), 'linear').eval()
    net.load_state_dict(large)
    net[1][3].weight.data *= 1e12
    with pytest.raises(ValueError, match='gives no numbers'):
        predict(replace(model, net=net), x, device='cpu', out=tmp_path / 'p.csv')


@pytest.mark.parametrize('head', ['fastai', 'linear'])
@pytest.mark.parametrize(
    'arch',
    [
        'resnet34',
        'resnet50',
        'resnet101',
        'densenet121',
        'mobilenet_v3_small',
        'shufflenet_v2_x0_5',
        'torchvision/densenet121',
        'torchvision/efficientnet_b0',
        'vit_tiny_patch16_224',
    ],
)
def test_networks_of_the_paper_and_others(arch, head):
    net = make_net(arch, 3, (64, 96), head).eval()
    with torch.inference_mode():
        grid = net[0](torch.rand(2, 1, 64, 96))
        y = net(torch.rand(2, 1, 64, 96))
    assert y.shape == (2, 3) and grid.ndim == 4 and torch.isfinite(y).all()
    first = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.in_channels == 1


@pytest.mark.parametrize('arch', ['resnet34', 'resnet50', 'densenet121'])
def test_the_gray_first_layer_is_the_rgb_one(arch, tmp_path):
    import timm
    from safetensors.torch import save_file

    rgb = timm.create_model(arch, num_classes=0, global_pool='').eval()
    x = torch.rand(1, 1, 64, 64)
    save_file(timm.create_model(arch).state_dict() | rgb.state_dict(), tmp_path / 'w.safetensors')
    gray = make_net(arch, 2, (64, 64), pretrained=True, weights_file=tmp_path / 'w.safetensors')[0].eval()
    with torch.inference_mode():
        a = gray(x)
        b = rgb(x.repeat(1, 3, 1, 1))
    assert (a - b).abs().max() <= 1e-5 * max(1, b.abs().max())


@pytest.mark.parametrize('name', ['resnet18', 'densenet121', 'regnet_y_400mf', 'mnasnet0_5'])
def test_torchvisions_networks_are_taken_apart_rightly(name, tmp_path):
    import torchvision
    from safetensors.torch import save_file
    from celldeath_nb.learn.nets import _body

    whole = torchvision.models.get_model(name, weights=None).eval()
    x = torch.rand(1, 1, 64, 64)
    save_file(whole.state_dict(), tmp_path / 'w.safetensors')
    body = _body(f'torchvision/{name}', True, tmp_path / 'w.safetensors').eval()
    last = getattr(whole, 'fc', None) or whole.classifier
    with torch.inference_mode():
        assert torch.allclose(last(body(x).mean((2, 3))), whole(x.repeat(1, 3, 1, 1)), atol=1e-4)


@pytest.mark.parametrize('arch', ['mobilenet_v3_small', 'vit_tiny_patch16_224'])
def test_other_networks_come_back_from_a_bundle(arch, tmp_path):
    m = Model(
        make_net(arch, 2, (32, 48), 'linear').eval(),
        check_arch(arch),
        ['a', 'b'],
        (32, 48),
        (32, 48),
        0.5,
        0.2,
        head='linear',
    )
    back = load_model(save_model(m, tmp_path / 'm'))
    px = np.random.default_rng(0).integers(0, 255, (3, 32, 48), dtype=np.uint8)
    assert predict(back, px, device='cpu').equals(predict(m, px, device='cpu'))
    assert 'torchvision' in back.arch or arch == back.arch


def test_a_pickle_of_weights_is_not_opened(tmp_path):
    (tmp_path / 'w.pth').write_bytes(pickle.dumps(Canary(tmp_path / 'canary')))
    with pytest.raises(ValueError, match='no safetensors file'):
        make_net('resnet10t', 2, (32, 32), pretrained=True, weights_file=tmp_path / 'w.pth')
    os.rename(tmp_path / 'w.pth', tmp_path / 'w.safetensors')
    for arch in ('resnet10t', 'torchvision/resnet18'):
        with pytest.raises(ValueError, match="weights='scratch'"):
            make_net(arch, 2, (32, 32), pretrained=True, weights_file=tmp_path / 'w.safetensors')
    assert not (tmp_path / 'canary').exists()


def test_pretrained_weights_without_a_network_and_as_safetensors_only(tmp_path, monkeypatch):
    import timm

    from safetensors.torch import save_file

    def away(*args):
        raise OSError('We could not connect')

    monkeypatch.setattr(learn_nets, 'hf_hub_download', away)
    with pytest.raises(
        ValueError, match="could not be had from the internet .*could not connect.*weights='scratch'.*weights_file="
    ):
        make_net('resnet10t', 2, (32, 32), pretrained=True)
    there = timm.create_model('resnet10t')
    asked = []
    save_file(there.state_dict(), tmp_path / 'w.safetensors')
    monkeypatch.setattr(learn_nets, 'hf_hub_download', lambda *args: asked.append(args) or tmp_path / 'w.safetensors')
    net = make_net('resnet10t', 2, (32, 32), pretrained=True)
    assert asked[0][1] == 'model.safetensors' and torch.allclose(
        net[0].conv1[0].weight, there.conv1[0].weight.sum(1, keepdim=True), atol=1e-6
    )


@pytest.mark.parametrize('share', [0, 0.5, 1])
def test_a_file_of_another_network_is_no_weights(share, tmp_path):
    "None of the tensors, half of them, all of them: a network that stays random in part is refused with counts."
    import timm

    own = timm.create_model('resnet10t', in_chans=3, num_classes=5).state_dict()
    part = {k: v.clone() for k, v in list(own.items())[: int(share * len(own))]}
    save_file(part or {'a.b': torch.ones(3)}, tmp_path / 'w.safetensors')
    torch.manual_seed(0)
    if share < 1:
        with pytest.raises(ValueError, match=r'(\d+) of its 1\d tables of weights are not in it, such as'):
            make_net('resnet10t', 2, (32, 32), pretrained=True, weights_file=str(tmp_path / 'w.safetensors'))
        return
    net = make_net('resnet10t', 2, (32, 32), pretrained=True, weights_file=str(tmp_path / 'w.safetensors'))
    got = dict(net.named_parameters())
    deep = next(k for k in got if k.endswith('layer4.0.conv2.weight'))
    assert torch.equal(got[deep], own['layer4.0.conv2.weight'])


@pytest.fixture
def store(tmp_path):
    "Two photographs of four tiles, one much darker."
    from PIL import Image

    rng = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for i in range(2):
        Image.fromarray((rng.integers(0, 200, (64, 64)) // (1 + 2 * i) + 20).astype(np.uint8)).save(
            tmp_path / 'photos' / f'{i}.png'
        )
    return cut_tiles(read_fields(tmp_path / 'photos', label_from=None, um_per_px=0.8), tmp_path / 'tiles')


@pytest.mark.parametrize('how', ['flat', 'standardize', 'match'])
def test_what_was_done_to_the_light_in_training_is_done_again(model, store, how, tmp_path):
    seen = normalize_fields(store, how)
    learned = replace(model, um_per_px=None, info=dict(cut=seen.manifest['settings']))
    want = predict(learned, seen, device='cpu')
    back = load_model(save_model(learned, tmp_path / 'm'))
    for data in (store, tmp_path / 'photos', sorted((tmp_path / 'photos').iterdir())):
        assert np.array_equal(predict(back, data, device='cpu')[['p_CPT', 'p_DMSO']], want[['p_CPT', 'p_DMSO']])
    part = predict(back, store.subset([5, 2]), device='cpu')  # the photograph counts, not the tiles that are asked
    assert np.allclose(part.p_CPT, want.p_CPT[[5, 2]], atol=1e-6)
    assert not np.array_equal(predict(model, seen.tiles, device='cpu').p_CPT, want.p_CPT)
    with pytest.raises(ValueError, match='was trained on others'):
        predict(replace(model, um_per_px=None), seen, device='cpu')


@pytest.mark.parametrize(
    'cut',
    [
        5,
        dict(remedies=5),
        dict(remedies=['flat', 3]),
        dict(remedies=[dict(how=['x'])]),
        dict(remedies=[dict(how='__import__')]),
    ],
)
def test_remedies_of_a_stranger_that_are_none(model, store, cut):
    with pytest.raises(ValueError, match='cannot be followed|no remedy'):
        predict(replace(model, info=dict(cut=cut)), store, device='cpu')


def test_another_scale_and_another_light_are_said_with_numbers(model, store):
    with pytest.warns(UserWarning, match='0.800 um per pixel, the model was trained at 0.434: cells look 0.54 times'):
        predict(model, store, device='cpu')
    usual = dict(brightness=[100.0, 140.0], contrast=[40.0, 60.0])
    with pytest.warns(UserWarning, match='4 of 8 tiles have another brightness.*in training from 100 to 140'):
        predict(replace(model, um_per_px=None, info=dict(gray=usual)), store, device='cpu')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        predict(replace(model, um_per_px=0.8), store, device='cpu')


@pytest.mark.parametrize('most', ['landscape', 'portrait'])
def test_a_model_of_turned_photographs_predicts_its_own_folder(most, tmp_path):
    "Turned as in training, also where only photographs of the fewer kind are asked about: the same tiles, the same verdicts."
    rng = np.random.default_rng(3)
    shapes = [(64, 96), (64, 96), (96, 64)] if most == 'landscape' else [(96, 64), (96, 64), (64, 96)]
    home = tmp_path / 'photographs'
    home.mkdir()
    for i, shape in enumerate(shapes):
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(home / f'MCF7_CPT_1h_{i:04}_N1.png')
    tiles = cut_tiles(read_fields(home), tmp_path / 'tiles', grid=(2, 2), rotate=True)
    net = make_net('resnet10t', 2, tiles.tile_px, 'linear').eval()
    info = dict(cut={**tiles.manifest['settings']})
    model = Model(net, 'resnet10t', ['CPT', 'DMSO'], tiles.tile_px, tiles.tile_px, 0.5, 0.2, 'linear', None, info)
    model = load_model(save_model(model, tmp_path / 'm'))
    want = predict(model, tiles).set_index('tile').p_CPT
    got = predict(model, home).set_index('tile').p_CPT
    assert len(got) == 12 and want.to_dict() == got.to_dict()
    alone = tmp_path / 'alone'
    alone.mkdir()
    shutil.copy(home / 'MCF7_CPT_1h_0002_N1.png', alone)
    few = predict(model, alone).set_index('tile').p_CPT
    assert len(few) == 4 and np.allclose(few, want[few.index], atol=1e-6)


def test_every_pixel_of_a_photograph_of_another_shape_is_seen(model, tmp_path):
    "Portrait beside square beside landscape: tiles overlap, and that is said; of resized tiles two shapes are refused."
    rng = np.random.default_rng(4)
    (tmp_path / 'in').mkdir()
    shapes = dict(tall=(96, 64), square=(80, 80), same=(64, 96), rest=(65, 97))
    for name, shape in shapes.items():
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / 'in' / f'{name}.png')
    model = replace(model, um_per_px=None)
    with pytest.warns(
        UserWarning, match=r'2 of 4 photographs are no multiple of 32x32 .* overlap, .* rest.png \(65x97\)'
    ):
        p = predict(model, tmp_path / 'in')
    for name, (h, w) in shapes.items():
        seen = np.zeros((h, w), bool)
        for y, x in p.loc[p.field == f'{name}.png', ['top', 'left']].to_numpy():
            seen[y : y + 32, x : x + 32] = True
        assert seen.all() and (p.field == f'{name}.png').sum() == dict(tall=6, square=9, same=6, rest=12)[name]
    cut = dict(grid=[1, 1], tile_px=None, resize_to=[32, 32], edge=None, turn=None, shrink=3.0)
    with pytest.raises(ValueError, match='Portrait and landscape .* tall.png and .* one kind would be stretched'):
        predict(replace(model, info=dict(cut=cut)), tmp_path / 'in')
    (
        (tmp_path / 'in' / 'same.png').unlink(),
        (tmp_path / 'in' / 'rest.png').unlink(),
        (tmp_path / 'in' / 'square.png').unlink(),
    )
    with pytest.warns(UserWarning, match='Each tile is 0.667 times as wide'):
        predict(replace(model, info=dict(cut=cut)), tmp_path / 'in')


def test_what_a_model_never_saw_is_said_in_one_sentence(model, store, tmp_path):
    "Lines, hours and doses of the training set go with the model; others are named, and nothing where either side is silent."
    n = len(store)
    t = store.add(
        line=np.where(np.arange(n) % 2, 'U2OS', 'PC3'), hour=np.where(np.arange(n) == 0, 7.0, 1.0), dose_um=np.nan
    )
    taught = dict(line=['U2OS'], hour=[1.0, 3.0], dose_um=[5.0])
    m = load_model(save_model(replace(model, um_per_px=None, info=dict(seen=taught)), tmp_path / 'm'))
    with pytest.warns(UserWarning) as said:
        predict(m, t, device='cpu')
    found = [str(w.message) for w in said if 'never saw' in str(w.message)]
    assert found == [
        f'The model never saw the line PC3 ({-(-n // 2):,} tiles); the hour 7 (1 tile): nobody has tested what it says of them.'
    ]
    for seen, table in (
        (dict(line=None, hour=[], dose_um=None), t),
        (taught, t.subset(np.arange(n) % 2 == 1)),
        (taught, t.add(line=None, hour=np.nan)),
        (None, t),
    ):
        info = dict(seen=seen) if seen else {}
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            predict(replace(model, um_per_px=None, info=info), table, device='cpu')


def test_a_run_remembers_what_it_was_trained_on():
    from celldeath_nb.learn.prediction import seen_values

    t = pd.DataFrame(dict(line=['H9', None, 'H9'], hour=[3, 1, 1], tile=list('abc')))
    assert seen_values(t) == dict(line=['H9'], hour=[1.0, 3.0], dose_um=None)
    assert seen_values(t.assign(line=None, dose_um=np.nan)) == dict(line=[], hour=[1.0, 3.0], dose_um=[])
