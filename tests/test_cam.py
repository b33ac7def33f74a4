"Maps against torchcam, on every kind of network; bad input; the checks on cases whose answer is known."

import copy, os, warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from celldeath_nb.trust.maps import Cams, cam, save_cams
from celldeath_nb.trust.checks import cell_share, deletion_insertion, pointing_game, randomization_check, stability
from celldeath_nb.trust.masks import tile_masks
from celldeath_nb.learn.models import Model, load_model, save_model
from celldeath_nb.learn.nets import make_net

slow = pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'), reason='large networks at full size; set CELLDEATH_SLOW=1'
)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')
px = (64, 64)


def model_of(arch, head, seed=0, size=px, n=3):
    torch.manual_seed(seed)
    net = make_net(arch, n, size, head).eval()
    for m in net.modules():
        if isinstance(
            m, nn.BatchNorm2d
        ):  # statistics and gains as a trained network has them, so that maps have sign and structure
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
            m.weight.data.uniform_(0.5, 1.5)
            m.bias.data.normal_(0, 0.1)
    return Model(net, arch, list('abc')[:n], size, size, 0.5, 0.25, head, 0.434)


def noise(n=3, size=px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size), dtype=np.uint8)


def reference(model, tiles, method, layer, idx):
    from torchcam.methods import CAM, GradCAM, LayerCAM

    net = copy.deepcopy(model.net)
    x = model.as_input(tiles)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if method == 'cam':
            tool = CAM(net, layer, '1.3', input_shape=(1, *model.size))
        else:
            tool = dict(gradcam=GradCAM, layercam=LayerCAM)[method](net, layer, input_shape=(1, *model.size))
        with tool:
            scores = net(x)
            return tool(class_idx=idx, scores=scores, normalized=False)[0].detach().numpy()


def relative(a, b):
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)


@pytest.mark.parametrize('head', ['linear', 'fastai'])
@pytest.mark.parametrize('arch', ['resnet34', 'resnet50', 'resnet101', 'densenet121'])
def test_equals_torchcam_on_the_paper_s_networks(arch, head):
    model = model_of(arch, head)
    tiles = noise(2)
    target = ['a', 'c']
    for method in ('cam', 'gradcam', 'layercam'):
        if method == 'cam' and head == 'fastai':
            continue
        mine = cam(model, tiles, target, method, device='cpu')
        want = reference(model, tiles, method, '0', [0, 2])
        assert relative(mine.maps, want) < 1e-5, method
        assert mine.maps.dtype == np.float32


@pytest.mark.parametrize('arch,layer', [('resnet34', 'layer3'), ('densenet121', 'features.denseblock3')])
def test_equals_torchcam_at_an_earlier_layer(arch, layer):
    model = model_of(arch, 'fastai')
    tiles = noise(2)
    for method in ('gradcam', 'layercam'):
        mine = cam(model, tiles, ['a', 'c'], method, device='cpu', layer=layer)
        assert relative(mine.maps, reference(model, tiles, method, f'0.{layer}', [0, 2])) < 1e-5, method


@pytest.mark.parametrize(
    'arch',
    [
        'convnext_atto',
        'efficientnet_b0',
        'mobilenetv3_small_050',
        'regnetx_002',
        'test_resnet',
        'resnet10t',
        'ghostnet_050',
    ],
)
def test_other_convolutional_networks(arch):
    for head in ('linear', 'fastai'):
        model = model_of(arch, head, size=(96, 128))
        c = cam(model, noise(2, (96, 128)), 'b', device='cpu')
        assert c.method == ('cam' if head == 'linear' else 'gradcam') and np.isfinite(c.maps).all()
        if head == 'linear':
            with torch.inference_mode():
                logit = model.net(model.as_input(noise(2, (96, 128))))[:, 1].numpy()
            assert np.allclose(c.maps.mean((1, 2)) + model.net[1][-1].bias[1].item(), logit, atol=1e-4)


def test_a_layer_that_overwrites_its_input():
    "torchvision's densenet121 applies an in-place ReLU to the last grid; here the same is built by hand."
    model = model_of('resnet10t', 'fastai')
    bad = replace(
        model,
        net=nn.Sequential(
            nn.Sequential(copy.deepcopy(model.net[0]), nn.Conv2d(512, 8, 1), nn.ReLU(inplace=True)),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
        ),
    )
    good = replace(bad, net=copy.deepcopy(bad.net))
    good.net[0][2].inplace = False
    for method in ('gradcam', 'layercam'):
        a, b = (cam(m, noise(), 'a', method, device='cpu', layer='1').maps for m in (bad, good))
        assert np.array_equal(a, b) and a.max() > 0


def test_of_a_loaded_bundle_and_the_size_of_the_batch(tmp_path):
    model = model_of('resnet10t', 'linear')
    tiles = noise(5)
    c = cam(model, tiles, device='cpu')
    again = load_model(save_model(model, tmp_path / 'm'))
    for bs in (1, 2, 5):
        assert np.allclose(cam(again, tiles, bs=bs, device='cpu').maps, c.maps, atol=1e-5 * np.abs(c.maps).max())


def test_leaves_nothing_behind_even_after_an_error():
    model = model_of('resnet10t', 'fastai')
    model.net.train()
    model.net[0].layer2.eval()
    modes = [m.training for m in model.net.modules()]
    state = copy.deepcopy(model.net.state_dict())
    model.net[0].layer4[0].conv1.weight.data[:] = torch.inf
    with pytest.raises(ValueError, match='not finite'):
        cam(model, noise(), layer='layer3', device='cpu')
    model.net.load_state_dict(state)
    assert [m.training for m in model.net.modules()] == modes and torch.is_grad_enabled()
    assert not any(m._forward_hooks for m in model.net.modules()) and all(
        p.grad is None for p in model.net.parameters()
    )


def test_the_well_known_einsum_is_wrong_with_fastai_s_head():
    "Last linear weights with last features: the shapes agree by accident at 512 features, the map does not; elsewhere it raises."

    def einsum(model, tiles, k=0):
        with torch.inference_mode():
            f = model.net[0](model.as_input(tiles))
        last = [m for m in model.net[1].modules() if isinstance(m, nn.Linear)][-1]
        return torch.einsum('c,nchw->nhw', last.weight[k], f).detach().numpy()

    tiles = noise(4, (128, 128))
    fa, lin = (model_of('resnet34', h, size=(128, 128)) for h in ('fastai', 'linear'))
    assert relative(einsum(lin, tiles), cam(lin, tiles, 'a', device='cpu').maps) < 1e-5
    with torch.inference_mode():
        score = fa.net(fa.as_input(tiles))[:, 0].numpy()
    assert not np.allclose(einsum(fa, tiles).mean((1, 2)), score, atol=0.1 * np.abs(score).max())
    with pytest.raises(RuntimeError):
        einsum(model_of('resnet50', 'fastai'), noise(1))


refusals = [
    (dict(target='zz'), "does not know ['zz']"),
    (dict(target=['a']), '1 targets for 3 tiles'),
    (dict(target='label'), "no 'label'"),
    (dict(method='magic'), "method='magic'"),
    (dict(layer='layer9'), 'layer4'),
    (dict(layer='layer3', method='cam'), 'last grid'),
    (dict(bs=0), 'at least one tile'),
]


@pytest.mark.parametrize('kw,words', refusals)
def test_refuses(kw, words):
    with pytest.raises(ValueError) as e:
        cam(model_of('resnet10t', 'linear'), noise(), device='cpu', **kw)
    assert words in str(e.value)


@pytest.mark.parametrize(
    'tiles,words',
    [
        (noise(2, (32, 64)), '32x64'),
        (np.zeros((2, 64, 64, 3), np.uint8), 'in color'),
        (np.zeros((2, 64, 64), np.float32), 'float32'),
        (noise(2)[:0], 'empty'),
        ('a folder', 'not a str'),
    ],
)
def test_refuses_tiles(tiles, words):
    with pytest.raises(ValueError, match=words):
        cam(model_of('resnet10t', 'linear'), tiles, device='cpu')


def test_refuses_networks_without_a_map():
    model = model_of('resnet10t', 'linear')
    three = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), model.net[1])
    whole = nn.Conv2d(1, 3, 3)
    for net, words in [
        (three, 'takes pictures of 3 channels'),
        (whole, 'not a body and a head'),
        (nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 3)), 'no convolution'),
    ]:
        with pytest.raises(ValueError, match=words):
            cam(replace(model, net=net), noise(), device='cpu')


def toy_cams(maps, classes=('CPT', 'DMSO'), table=None):
    n = len(maps)
    return Cams(
        np.asarray(maps, np.float32), ['CPT'] * n, np.tile([0.8, 0.2], (n, 1)), list(classes), 'gradcam', table=table
    )


def test_flat_maps_are_counted_not_drawn_blank(tmp_path):
    maps = np.zeros((3, 4, 4))
    maps[1] = 7
    maps[2, 1, 2] = 1
    c = toy_cams(maps)
    assert c.flat.tolist() == [True, True, False] and '2 of them flat' in repr(c)
    m = np.zeros((3, 32, 32), bool)
    m[:, :16] = True
    r = cell_share(c, noise(3, (32, 32)), m, n_perm=20)
    assert r.table.undefined.iloc[-1] == 1 and np.isclose(
        r.tiles.ratio[1], 1
    )  # a constant map has mass everywhere, a map of zeros has none
    p = pointing_game(c, noise(3, (32, 32)), m)
    assert p.table.undefined.iloc[0] == 2 and p.tiles.hit[2] == 1
    out = save_cams(c, tmp_path / 'c', (32, 32))
    assert pd.read_csv(out / 'cams.csv').flat.tolist() == [True, True, False] and len(list(out.iterdir())) == 7


def test_hostile_names_stay_in_the_folder(tmp_path):
    names = ['../../evil#0,0', '=cmd()#0,0', 'a' * 300 + '.png#0,0', '<script>.png#0,0']
    out = save_cams(toy_cams(np.random.rand(4, 3, 3), table=pd.DataFrame(dict(tile=names))), tmp_path / 'maps')
    assert {p.parent for p in tmp_path.rglob('*') if p.is_file()} == {out} and len(list(out.iterdir())) == 9
    assert not any(l.startswith(('=', '+', '@')) for l in (out / 'cams.csv').read_text().splitlines())
    with pytest.raises(FileExistsError):
        save_cams(toy_cams(np.random.rand(1, 3, 3)), out)


def test_shuffled_maps_show_whether_a_map_follows_its_own_cells():
    rng = np.random.default_rng(0)
    masks = np.stack([np.kron(rng.random((4, 4)) < 0.4, np.ones((8, 8))) for _ in range(24)]) > 0
    table = pd.DataFrame(
        dict(
            tile=[f'p{i // 2}#{i % 2},0' for i in range(24)],
            field=[f'p{i // 2}' for i in range(24)],
            label=['CPT'] * 12 + ['DMSO'] * 12,
        )
    )
    own = np.stack([m.reshape(4, 8, 4, 8).mean((1, 3)) for m in masks])
    tiles = noise(24, (32, 32))
    follows = cell_share(toy_cams(own + 0.1), tiles, masks, n_perm=200)
    assert follows.table.p.iloc[-1] < 0.01 and follows.table.low.iloc[-1] > 1
    hits = sum(
        cell_share(
            toy_cams(rng.random((24, 4, 4)), table=table), tiles_of(tiles, table), masks, n_perm=50, seed=s
        ).table.p.iloc[-1]
        < 0.1
        for s in range(30)
    )
    assert hits <= 8  # 3 expected


def tiles_of(x, table):
    from celldeath_nb.trust.maps import _Few

    return _Few(x, table)


def test_deletion_knows_what_the_network_uses():
    "A network that looks at the left half only: maps of the left beat random order, maps of the right lose to it."

    class Left(nn.Module):
        def forward(self, x):
            return x * (torch.arange(x.shape[-1]) < x.shape[-1] // 2)

    torch.manual_seed(0)
    edge = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    edge.weight.data[:] = torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]])
    lin = nn.Linear(1, 2)
    lin.weight.data[:] = torch.tensor([[3.0], [-3.0]])
    lin.bias.data[:] = torch.tensor([-4.0, 4.0])
    net = nn.Sequential(
        nn.Sequential(edge, nn.ReLU(), Left()), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), lin)
    )
    model = Model(net.eval(), 'by hand', ['CPT', 'DMSO'], (32, 32), (32, 32), 0.5, 0.25, 'linear')
    tiles = noise(8, (32, 32))
    left = np.zeros((8, 8, 8))
    left[:, :, :4] = 1
    good, bad = (
        deletion_insertion(model, tiles, toy_cams(m), steps=8, device='cpu').tiles for m in (left, left[:, :, ::-1])
    )
    assert (good.deletion_gain > 0).all() and (good.insertion_gain > 0).all()
    assert (bad.deletion_gain < 0).all() and (bad.insertion_gain < 0).all()


def test_randomization_leaves_the_model_and_knows_itself():
    model = model_of('resnet10t', 'linear', size=(96, 96))
    tiles = noise(4, (96, 96))
    before = copy.deepcopy(model.net.state_dict())
    r = randomization_check(model, tiles, shuffled=model, draws=1, device='cpu')
    assert np.allclose(r.tiles['shuffled labels'], 1)  # the same network stands in for the one of shuffled labels
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())
    assert {'random down to head', 'random down to conv1', 'another photograph'} <= set(r.table.what)
    with pytest.raises(ValueError, match='tells apart'):
        randomization_check(model, tiles, shuffled=replace(model, classes=['x', 'y', 'z']), device='cpu')


@pytest.mark.parametrize('arch', ['resnet34', 'densenet121'])
def test_every_weight_is_random_in_the_end(arch):
    from celldeath_nb.trust.checks import _levels

    model = model_of(arch, 'fastai')
    parts = {id(p) for _, level in _levels(model.net) for _, m in level for p in m.parameters()}
    assert parts == {id(p) for p in model.net.parameters()}


def test_other_seeds_agree_only_if_alike():
    model = model_of('resnet10t', 'linear', size=(96, 96))
    other = model_of('resnet10t', 'linear', 1, (96, 96))
    tiles = noise(4, (96, 96))
    same, differ = (
        stability([model, m], tiles, device='cpu').tiles['other seeds'].abs().mean() for m in (model, other)
    )
    assert np.isclose(same, 1) and differ < 0.95


def test_memory_does_not_grow_with_the_number_of_tiles():
    "What is held besides the small maps is one batch: no larger array is asked for with more tiles."
    model = model_of('test_resnet', 'linear')
    seen = []

    class Many:
        tile_px = px
        um_per_px = np.nan

        def __init__(self, n):
            self.n = n
            self.table = pd.DataFrame(dict(tile=np.arange(n).astype(str)))

        def __len__(self):
            return self.n

        def batch(self, i):
            seen.append(len(i))
            return noise(len(i))

    assert cam(model, Many(200), device='cpu', bs=16).maps.nbytes < 200 * 100 and max(seen) == 16


def test_a_damaged_model_is_refused_in_the_words_of_predict():
    from celldeath_nb.learn.prediction import predict

    model = replace(model_of('resnet10t', 'linear'), info=dict(cut=dict(remedies=['flat'])))
    for f in (cam, predict):
        with pytest.raises(ValueError, match='This model is damaged: what it says of how its tiles were cut'):
            f(model, noise())


def test_masks_are_cut_as_the_tiles_were(tmp_path):
    "A photograph that is its own mask: wherever the store put its pixels, the mask goes too."
    from PIL import Image
    from celldeath_nb.tiles.cut import cut_tiles
    from celldeath_nb.photos.fields import read_fields

    (tmp_path / 'p').mkdir()
    (tmp_path / 'labels').mkdir()
    big = np.kron(np.random.default_rng(0).random((8, 10)) < 0.5, np.ones((24, 24)))
    for i, m in enumerate((big, big[::-1])):
        name = f'U2_{("CPT", "DMSO")[i]}1_1H_RGB_000{i}_N1.png'
        Image.fromarray((40 + 160 * m).astype(np.uint8)).save(tmp_path / 'p' / name)
        Image.fromarray(m.astype(np.uint8)).save(tmp_path / 'labels' / name)
    fields = read_fields(tmp_path / 'p', um_per_px=0.5)
    for i, kw in enumerate(
        [
            dict(grid=(2, 2)),
            dict(grid=(2, 2), resize_to=(48, 60)),
            dict(tile_px=(100, 110), edge='drop'),
            dict(tile_px=(100, 110), edge='pad'),
            dict(tile_px=(48, 60), rescale_to=1.0),
            dict(grid=(2, 2), rotate='portrait'),
        ]
    ):
        t = cut_tiles(fields, tmp_path / f't{i}', **kw)
        m = tile_masks(t, tmp_path / 'labels')
        assert m.shape == (len(t), *t.tile_px) and ((t[:] > 120) == m).mean() > 0.97, kw
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / 'labels' / name)
    with pytest.raises(ValueError, match='of the size of the photograph'):
        tile_masks(cut_tiles(fields, tmp_path / 't9'), tmp_path / 'labels')


@cuda
def test_the_same_on_a_gpu():
    model = model_of('resnet34', 'fastai')
    tiles = noise()
    for method in ('gradcam', 'layercam'):
        a, b = (cam(model, tiles, 'a', method, device=d) for d in ('cpu', 'cuda'))
        assert relative(b.maps, a.maps) < 1e-2 and next(model.net.parameters()).device.type == 'cpu'


@slow
@pytest.mark.parametrize('arch', ['resnet34', 'resnet50', 'resnet101', 'densenet121'])
def test_equals_torchcam_at_full_size(arch):
    model = model_of(arch, 'fastai', size=(480, 640))
    tiles = noise(2, (480, 640))
    for method in ('gradcam', 'layercam'):
        assert (
            relative(
                cam(model, tiles, ['a', 'c'], method, device='cpu').maps, reference(model, tiles, method, '0', [0, 2])
            )
            < 1e-5
        )


def test_maps_are_drawn_of_tiles_as_the_model_was_trained_to_see_them(tmp_path):
    from PIL import Image
    from celldeath_nb.tiles.remedies import normalize_fields, remedies_of
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles

    rng = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for k in range(4):
        Image.fromarray((rng.integers(0, 90, (128, 128)) + 30 * k).astype(np.uint8)).save(
            tmp_path / 'photos' / f'U2_{("CPT", "DMSO")[k % 2]}1_1H_RGB_{k:04}_N1.png'
        )
    tiles = cut_tiles(read_fields(tmp_path / 'photos', um_per_px=0.434), tmp_path / 'tiles', grid=(2, 2))
    seen = normalize_fields(tiles)
    plain = model_of('resnet10t', 'linear', n=2)
    trained = replace(plain, info=dict(cut=dict(remedies=remedies_of(seen))))
    want = cam(plain, seen[:], target='a', device='cpu').maps  # an array, as it is
    assert not np.allclose(want, cam(plain, tiles, target='a', device='cpu').maps)
    for given in (tiles, seen):
        np.testing.assert_array_equal(cam(trained, given, target='a', device='cpu').maps, want)
    np.testing.assert_array_equal(
        stability(trained, tiles, 'a', device='cpu').tiles.iloc[:, -1],
        stability(trained, seen, 'a', device='cpu').tiles.iloc[:, -1],
    )
    with pytest.raises(ValueError, match='These tiles are changed'):
        cam(plain, seen, device='cpu')
