"Frozen features and the regression on them: computed once, kept whole, told nothing of the test tiles."

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

import celldeath_nb.learn.embeddings as embeddings
import celldeath_nb.learn.probes as probes
from celldeath_nb.learn.embeddings import embed
from celldeath_nb.learn.models import Model
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.probes import probe
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.remedies import normalize_fields

random = dict(weights='scratch', arch='resnet10t', size=32)  # random weights: what is asked here needs no others


def disks(folder, n=24, size=48):
    "Photographs of two kinds of disk, small and large, at places of chance: a planted difference that features tell."
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    for i in range(n):
        kind = 'small' if i % 2 else 'large'
        a = rng.normal(110, 6, (size, size))
        for _ in range(4):
            at = rng.integers(8, size - 8, 2)
            a[(y - at[0]) ** 2 + (x - at[1]) ** 2 < (3 if i % 2 else 7) ** 2] += 60
        f = folder / kind / f'{i:03d}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(a, 0, 255).astype(np.uint8)).save(f)
    return folder


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    d = tmp_path_factory.mktemp('disks')
    store = cut_tiles(read_fields(disks(d / 'photos'), label_from='folder'), d / 'tiles', grid=(1, 1))
    side = np.tile(['train'] * 6 + ['valid'] * 3 + ['test'] * 3, 4)[: len(store)]
    order = store.table.groupby('label').cumcount().to_numpy()
    return store.add(split=side[order * 1 % len(side)])


@pytest.fixture
def model(tiles):
    torch.manual_seed(0)
    net = make_net('resnet10t', 2, (32, 32), 'linear')
    return Model(net, 'resnet10t', ['large', 'small'], tiles.tile_px, (32, 32), 0.5, 0.1, 'linear')


def forbidden(*args, **kwargs):
    raise AssertionError('features were computed again')


def test_features_are_computed_once_for_all_parts(tiles, model, tmp_path, monkeypatch):
    whole = embed(tiles, model, device='cpu', cache=tmp_path)
    monkeypatch.setattr(embeddings, '_computed', forbidden)
    assert np.array_equal(embed(tiles.subset([7, 1]), model, device='cpu', cache=tmp_path), whole[[7, 1]])
    renamed = tiles.add(label='x', split='train')
    assert np.array_equal(embed(renamed, model, device='cpu', cache=tmp_path), whole)


def test_other_tiles_weights_levels_and_remedies_are_other_features(tiles, model, tmp_path):
    embed(tiles, model, device='cpu', cache=tmp_path)
    other = make_net('resnet10t', 2, (32, 32), 'linear')
    for m in (
        Model(other, 'resnet10t', ['a', 'b'], tiles.tile_px, (32, 32), 0.5, 0.1, 'linear'),
        Model(model.net, 'resnet10t', ['a', 'b'], tiles.tile_px, (32, 32), 0.5, 0.2, 'linear'),
    ):
        embed(tiles, m, device='cpu', cache=tmp_path)
    embed(normalize_fields(tiles, 'standardize'), model, device='cpu', cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize('how', ['torn', 'changed', 'empty', 'another shape'])
def test_what_is_damaged_is_computed_again_and_said(tiles, model, tmp_path, how):
    good = embed(tiles, model, device='cpu', cache=tmp_path)
    (f,) = tmp_path.iterdir()
    raw = f.read_bytes()
    if how == 'another shape':
        rows = np.array([len(tiles) + 5])
        x = np.zeros((1, 3), np.float32)
        note = dict(sum=embeddings._numbers_sum(rows, x))
        embeddings.save_file(dict(rows=rows, features=x), f, note)
    else:
        f.write_bytes(dict(torn=raw[:-100], changed=raw[:-1] + bytes([raw[-1] ^ 1]), empty=b'')[how])
    with pytest.warns(UserWarning, match='is damaged, so its features are computed again'):
        assert np.allclose(embed(tiles, model, device='cpu', cache=tmp_path), good, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        embed(tiles, model, device='cpu', cache=tmp_path)


def test_an_interruption_keeps_what_was_computed(tiles, model, tmp_path, monkeypatch):
    keep = embeddings.as_input
    n = []

    def stops(x, *args):
        n.append(len(x))
        if len(n) == 3:
            raise KeyboardInterrupt
        return keep(x, *args)

    monkeypatch.setattr(embeddings, 'as_input', stops)
    with pytest.raises(KeyboardInterrupt):
        embed(tiles, model, bs=4, device='cpu', cache=tmp_path)
    embed(tiles, model, bs=4, device='cpu', cache=tmp_path)
    assert sum(n) == len(tiles) + 4  # the batch that was interrupted, twice


def test_nothing_is_written_into_the_store_nor_near_the_photographs(tiles, model):
    before = sorted(o.name for o in tiles.path.iterdir())
    embed(tiles, model, device='cpu')
    assert sorted(o.name for o in tiles.path.iterdir()) == before
    assert sorted(o.name for o in tiles.path.parent.iterdir()) == ['.tiles.features', 'photos', 'tiles']
    assert {o.name for o in (tiles.path.parent / 'photos').iterdir()} == {'large', 'small'}


def test_where_nothing_can_be_written_beside_the_store_the_cache_folder_is_used(tiles, model, tmp_path, monkeypatch):
    monkeypatch.setenv('CELLDEATH_CACHE', str(tmp_path / 'cache'))
    blocked = tmp_path / 'blocked'
    blocked.write_text('')
    monkeypatch.setattr(embeddings, '_files', lambda t, key, cache: [blocked / 'f', tmp_path / 'cache' / 'f'])
    x = embed(tiles, model, device='cpu')
    assert (tmp_path / 'cache' / 'f').exists() and x.shape == (len(tiles), 512)


def test_the_probe_sees_what_was_planted_and_the_run_says_the_same(tiles, tmp_path):
    r = Recipe.probe(**random)
    preds = probe(tiles, r, 'cpu', cache=tmp_path / 'cache')
    assert (preds.label == preds.pred).mean() > 0.8 and set(preds.split) == {'valid', 'test'}
    run = train(tiles, r, tmp_path / 'run', 'cpu')
    both = run.preds.merge(preds, on='tile', suffixes=('', '_quick'))
    assert len(both) == len(preds) and np.allclose(both.p_small, both.p_small_quick, atol=1e-4)
    assert 'logistic regression' in (run.path / 'methods.txt').read_text()
    assert run.recipe == r and run.verify() == []
    again = train(tiles, r, tmp_path / 'again', 'cpu')
    assert again.preds.equals(run.preds)


def test_labels_of_the_test_tiles_change_nothing(tiles, tmp_path):
    r = Recipe.probe(**random)
    a = probe(tiles, r, 'cpu', cache=tmp_path)
    flipped = tiles.table.label.map(dict(small='large', large='small'))
    b = probe(
        tiles.add(label=tiles.table.label.where(tiles.table.split != 'test', flipped).to_numpy()),
        r,
        'cpu',
        cache=tmp_path,
    )
    assert np.array_equal(a.p_small, b.p_small)


def test_labels_of_chance_are_told_by_chance(tiles, tmp_path):
    "The probe can be wrong: with labels that mean nothing, held-out tiles are right about half the time."
    right = []
    for seed in range(8):
        dealt = tiles.table.groupby('split').label.transform(lambda s: s.sample(frac=1, random_state=seed).to_numpy())
        p = probe(tiles.add(label=dealt.to_numpy()), Recipe.probe(**random), 'cpu', cache=tmp_path)
        p = p[p.split == 'test']
        right.append((p.label == p.pred).mean())
    assert 0.25 < np.mean(right) < 0.75


def test_three_classes_and_weighed_ones():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [40, 40, 8])
    x = rng.normal(size=(88, 5)) + np.eye(3, 5)[y] * 4
    w, b = probes._fitted(x, y, 1.0, False)
    assert w.shape == (3, 5) and ((x @ w.T + b).argmax(1) == y).mean() > 0.95
    shy = rng.normal(size=(88, 5)) + np.eye(3, 5)[y]
    called = [
        ((shy @ w.T + b).argmax(1) == 2).sum() for w, b in (probes._fitted(shy, y, 0.1, o) for o in (False, True))
    ]
    assert called[1] > called[0]


def test_calibration_takes_back_a_certainty_that_is_too_large():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 1)) * [[-1.0, 1.0]]
    y = (rng.random(600) < softmax(z, axis=1)[:, 1]).astype(int)
    assert abs(np.log(probes._temperature(5 * z, y, ['a', 'b']) / 5)) < 0.3
    assert probes._temperature(5 * z, (z[:, 1] > 0).astype(int), ['a', 'b']) == 1.0


def test_bad_recipes_are_refused(tiles):
    with pytest.raises(ValueError, match='trains a network'):
        probe(tiles, Recipe.quick())
    for bad in (dict(head='fastai'), dict(weights='finetuned'), dict(patience=3), dict(solver='exact')):
        with pytest.raises(ValueError, match='solver='):
            Recipe.probe(**bad)


@pytest.mark.long
def test_the_whole_road_with_a_probe(tmp_path, call):
    from celldeath_nb.simulate.samples import sample_data

    sample_data(
        'simulated', tmp_path / 'photos', lines=('iPS1',), experiments=3, wells=2, sites=2, size=(240, 320), seed=1
    )
    code, said = call('slice', 'photos', '--out', 'tiles')
    assert code == 0, said
    code, said = call('train', 'tiles', '--out', 'run', '--recipe', 'auto')
    assert code == 0 and 'The recipe, and why' in said, said
    code, said = call(
        'train', 'tiles', '--out', 'run2', '--recipe', 'probe', '--weights', 'scratch', '--arch', 'resnet10t'
    )
    assert code == 0 and (tmp_path / 'run2' / 'report.html').exists(), said
    assert 'Audit: ' in (tmp_path / 'run2' / 'audit.txt').read_text()
