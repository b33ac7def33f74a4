"What a model says of tiles that are unlike those that it learned from: kinds of change, false alarms, its file, and models that cannot tell."

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import roc_auc_score

from celldeath_nb.files import read_json
from celldeath_nb.learn.models import load_model, save_model
from celldeath_nb.learn.prediction import predict
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.reference import NUMBERS, fit_reference, image_numbers, load_reference
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.simulate.microscope import simulate_experiment
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by


def said_by(f, *args, **kwargs):
    "The result, and the warnings that are about novelty."
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        res = f(*args, **kwargs)
    return res, [str(o.message) for o in w if 'unlike' in str(o.message)]


def trained(folder):
    "A run on four of five simulated days, and its store; the third day, whose lamp is like those of others, is held back."
    args = dict(experiments=5, wells=2, sites=2, size=(240, 320), workers=1, seed=3)
    simulate_experiment(folder / 'p', ('MCF7',), **args)
    tiles = cut_tiles(read_fields(folder / 'p', labels=['CPT', 'DMSO']), folder / 't', grid=(2, 2))
    tiles = split_by(tiles, group='field', test='experiment=N3', valid=0.4, seed=0)
    r = Recipe.quick(size=64, epochs=1, min_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run = train(tiles, r, folder / 'run', device='cpu', duplicates='ignore')
    return run, tiles


def draw(folder):
    "Drawn textures in two classes, of three days that differ a little in light; 240 tiles of 64x96."
    folder.mkdir()
    rng = np.random.default_rng(0)
    for day in ('N1', 'N2', 'N3'):
        light = 120 + 4 * rng.standard_normal()
        for treatment, grain in (('CPT', 1.0), ('DMSO', 1.4)):
            for i in range(10):
                z = gaussian_filter(rng.standard_normal((128, 192)), grain)
                a = light + 22 * z / z.std() + 9 * (z > 2 * z.std()) + rng.normal(0, 2, z.shape)
                name = f'U2_{treatment}1_1H_RGB_{i + 1:04d}_{day}.png'
                Image.fromarray(np.clip(a, 0, 255).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A network that has seen its tiles once, and its store."
    d = tmp_path_factory.mktemp('small')
    tiles = cut_tiles(read_fields(draw(d / 'p'), labels=['CPT', 'DMSO']), d / 't', grid=(2, 2))
    tiles = split_by(tiles, group='field', test='experiment=N3', valid=0.4, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run = train(tiles, Recipe.quick(epochs=1, min_steps=0), d / 'run', device='cpu', duplicates='ignore')
    return run, tiles


def test_the_reference_lies_with_the_model_and_is_small(small):
    run, tiles = small
    f = run.path / 'model' / 'reference.safetensors'
    assert f.stat().st_size < 1_000_000 and 'model/reference.safetensors' in run.sums
    assert read_json(run.path / 'model' / 'model.json')['reference']
    assert {'novelty', 'why'} <= set(run.preds) and run.preds.novelty.between(0, 1).all()
    model = load_model(run.path)
    some = tiles.subset(np.arange(len(tiles)) < 12)
    a, b = (predict(m, some, device='cpu') for m in (model, run.model))
    assert np.allclose(a.novelty, b.novelty, atol=1e-3) and (a.why[a.novelty <= 0.95] == '').all()


def test_strong_changes_are_seen_and_said(small):
    run, tiles = small
    x = tiles.batch(np.flatnonzero(tiles.table.split == 'test'))
    plain, said = said_by(predict, run.model, x, device='cpu')
    assert not said and (plain.novelty > 0.95).mean() <= 0.07
    blurred = np.stack([gaussian_filter(o.astype(float), 3) for o in x]).astype(np.uint8)
    for changed in (blurred, 255 - x):
        odd, said = said_by(predict, run.model, changed, device='cpu')
        both = np.r_[plain.novelty, odd.novelty]
        assert roc_auc_score(np.r_[np.zeros(len(x)), np.ones(len(x))], both) > 0.95
        reasons = odd.why[odd.novelty > 0.95]
        assert len(said) == 1 and (reasons != '').all() and reasons.value_counts().index[0] in said[0]


def test_an_interrupted_prediction_keeps_what_it_knew_of_novelty(small, tmp_path):
    from celldeath_nb.learn import prediction

    run, tiles = small
    x = tiles.batch(np.arange(8))
    names = pd.DataFrame(dict(tile=list('abcdefgh')))
    whole = prediction._apply(run.model, names, lambda i: x[i], 'toy', 4, 'cpu', None)

    def fails(i):
        if i[0] >= 4:
            raise OSError('the disk is away')
        return x[i]

    with pytest.raises(OSError):
        prediction._apply(run.model, names, fails, 'toy', 4, 'cpu', tmp_path / 'p.csv')
    asked = []
    again = prediction._apply(
        run.model, names, lambda i: (asked.append(i[0]), x[i])[1], 'toy', 4, 'cpu', tmp_path / 'p.csv'
    )
    assert asked == [4] and again.equals(whole)


def test_old_models_load_and_predict_and_say_so_once(small, tmp_path):
    run, tiles = small
    info = {k: v for k, v in run.model.info.items() if k != 'reference'}
    old = save_model(replace(run.model, reference=None, info=info), tmp_path / 'old')
    assert not (old / 'reference.safetensors').exists()
    model = load_model(old)
    some = tiles.subset(np.arange(len(tiles)) < 6)
    p, said = said_by(predict, model, some, device='cpu')
    assert 'novelty' not in p and len(said) == 1 and 'no reference' in said[0]
    q, said = said_by(predict, load_model(old), some, device='cpu')
    assert not said and np.allclose(q.p_CPT, p.p_CPT)
    new = predict(run.model, some, device='cpu')
    assert np.allclose(new.p_CPT, p.p_CPT, atol=1e-6), 'verdicts do not depend on the reference'


def test_a_reference_that_was_changed_is_refused(small, tmp_path):
    run, _ = small
    here = tmp_path / 'model'
    shutil.copytree(run.path / 'model', here)
    f = here / 'reference.safetensors'
    raw = bytearray(f.read_bytes())
    raw[-9] ^= 1
    f.write_bytes(raw)
    with pytest.raises(ValueError, match='checksum'):
        load_model(here)
    with pytest.raises(ValueError, match='cannot be read as safetensors'):
        load_reference(run.path / 'model' / 'model.json')
    f.unlink()
    with pytest.raises((ValueError, FileNotFoundError)):
        load_model(here)


def test_few_tiles_give_no_reference(small):
    run, tiles = small
    valid = tiles.table[tiles.table.split == 'valid'].drop_duplicates('field')
    rest = valid.field[valid.groupby('label').cumcount() >= 2]
    few = tiles.add(split=tiles.table.split.where(~tiles.table.field.isin(rest), 'test').to_numpy())
    assert (few.table.split == 'valid').sum() < 20
    assert fit_reference(run.model, few, 'cpu') is None


@pytest.mark.parametrize(
    'change',
    [
        dict(ranks=np.zeros((2, 5))),
        dict(ranks=np.array([[1, 0], [0, 1], [0, 1]])),
        dict(spread=np.array([np.nan])),
        dict(spread=np.zeros(48)),
        dict(axes=np.zeros((48, 3))),
        dict(usual=np.zeros(())),
        dict(deviation=np.zeros(12)),
        dict(more=np.zeros(1)),
    ],
)
def test_a_strangers_reference_must_be_one(small, tmp_path, change):
    from safetensors.numpy import load_file, save_file

    run, _ = small
    t = load_file(run.path / 'model' / 'reference.safetensors')
    save_file({**t, **{k: np.asarray(v, np.float32) for k, v in change.items()}}, tmp_path / 'r.safetensors')
    with pytest.raises(ValueError, match='holds no reference'):
        load_reference(tmp_path / 'r.safetensors')
    save_file(t, tmp_path / 'r.safetensors')
    assert load_reference(tmp_path / 'r.safetensors').ranks.shape[0] == 3


def test_a_reference_of_another_network_is_refused(small):
    run, tiles = small
    ref = run.model.reference
    other = replace(run.model, reference=replace(ref, centers=ref.centers[:, 1:], axes=ref.axes[:, 1:]))
    with pytest.raises(ValueError, match='The reference is of a network with'):
        predict(other, tiles.subset(np.arange(len(tiles)) < 4), device='cpu')


def test_a_new_line_is_said_to_be_unseen_where_the_table_knows_it(small):
    run, tiles = small
    some = tiles.subset(np.arange(len(tiles)) < 8)
    with pytest.warns(UserWarning, match='never saw the line H9 .8 tiles'):
        predict(run.model, some.add(line=['H9'] * 8), device='cpu')


def test_the_report_says_where_novelty_is_high(small):
    from celldeath_nb.report import _results

    run, _ = small
    preds = run.preds
    usual = preds.assign(novelty=0.5, why='')
    odd = usual.assign(novelty=0.99, why='contrast low')
    told = [_results(run, o, run.scores) for o in (usual, odd, preds.drop(columns=['novelty', 'why']))]
    assert ['are unlike those that the model learned from' in o for o in told] == [False, True, False]


@pytest.mark.parametrize('shape', [(1, 32, 32), (2, 64, 64), (3, 97, 301), (1, 480, 640)])
def test_numbers_of_tiles_of_all_sizes_and_of_nothing(shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for y in (x, np.zeros_like(x), np.full_like(x, 255)):
        v = image_numbers(y)
        assert v.shape == (shape[0], len(NUMBERS)) and np.isfinite(v).all()


@pytest.mark.long
def test_kinds_of_change_are_seen_and_an_untouched_experiment_is_not(tmp_path):
    run, tiles = trained(tmp_path)
    test = tiles.subset((tiles.table.split == 'test').to_numpy())
    x = test.batch(np.arange(len(test)))
    rng = np.random.default_rng(0)
    plain, said = said_by(predict, run.model, x, device='cpu')
    assert (plain.novelty > 0.95).mean() <= 0.07 and not said

    def spots():
        z = np.zeros(x.shape)
        z[
            np.arange(len(x)).repeat(15),
            rng.integers(8, x.shape[1] - 8, 15 * len(x)),
            rng.integers(8, x.shape[2] - 8, 15 * len(x)),
        ] = 1
        return gaussian_filter(z, (0, 4, 4)) * 18_000 + 8 + 2 * rng.standard_normal(z.shape)

    h, w = x.shape[1:]
    kinds = {
        'blur': gaussian_filter(x.astype(float), (0, 3, 3)),
        'noise': x + rng.normal(0, 12, x.shape),
        'inverted': 255.0 - x,
        'twice as large': np.stack([zoom(o.astype(float), 2, order=1)[:h, :w] for o in x]),
        'fluorescence': spots(),
        'clouds': 120 + rng.normal(0, 1, x.shape).cumsum(1).cumsum(2) / 6,
    }
    found = {}
    for kind, y in kinds.items():
        odd, said = said_by(predict, run.model, np.clip(y, 0, 255).astype(np.uint8), device='cpu')
        auroc = roc_auc_score(np.repeat([0, 1], len(x)), np.r_[plain.novelty, odd.novelty])
        found[kind] = round(auroc, 3)
        assert said, kind
    assert min(found.values()) >= 0.95, found


def test_a_line_held_back_is_judged_and_not_strange(tmp_path, recwarn):
    "The run that holds it back is the test of what the network says of it; another table with that line is told, see above."
    photos = simulate_experiment(
        tmp_path / 'p', ('U2OS', 'H9'), experiments=2, wells=1, sites=1, size=(48, 64), um_per_px=2.0, seed=3, workers=1
    )
    tiles = split_by(cut_tiles(read_fields(photos), tmp_path / 't', grid=(1, 1)), 'line=H9', 0.5)
    run = train(
        tiles, Recipe.quick(size=32, epochs=1, min_steps=0, batch_size=2), tmp_path / 'run', 'cpu', figures=False
    )
    assert set(run.preds[run.preds.split == 'test'].line) == {'H9'}
    assert not [o for o in recwarn if 'never saw' in str(o.message)]
    with pytest.warns(UserWarning, match='never saw the line H9'):
        predict(run.model, tiles, device='cpu')
