"The safe road: nothing on it is computed twice."

from collections import Counter

import numpy as np
import pytest

import celldeath_nb.evaluate.figures as evaluate_figures
import celldeath_nb.evaluate.scores as evaluate_scores
import celldeath_nb.learn.models as learn_models
import celldeath_nb.learn.prediction as learn_prediction
import celldeath_nb.learn.runs as learn_runs
import celldeath_nb.learn.training as learn_training
import celldeath_nb.report as report
import celldeath_nb.tiles.places as tiles_places
import celldeath_nb.trust.audits as trust_audits
from celldeath_nb.files import only_writer
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.road import take_road, train_safely
from celldeath_nb.simulate.samples import sample_data
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by
from celldeath_nb.tiles.store import Tiles

tiny = dict(size=32, epochs=1, min_steps=0, batch_size=4)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    out = tmp_path_factory.mktemp('photos') / 'set'
    return sample_data('simulated', out, lines=('U2OS',), experiments=3, wells=2, sites=2, size=(120, 160))


@pytest.fixture
def counted(monkeypatch):
    "How often each costly thing is done, wherever it is called from."
    n = Counter()

    def count(name, f):
        def g(*args, **kwargs):
            n[name] += 1
            return f(*args, **kwargs)

        return g

    everywhere = dict(
        find_near_duplicates=(tiles_places,),
        metrics=(evaluate_scores, learn_runs, report),
        load_model=(learn_models, learn_runs),
        predict=(learn_prediction, learn_runs),
    )
    for name, modules in everywhere.items():
        f = getattr(modules[0], name)
        for m in modules:
            if hasattr(m, name):
                monkeypatch.setattr(m, name, count(name, f))
    monkeypatch.setattr(evaluate_figures, 'accuracy_only', count('metrics', evaluate_figures.accuracy_only))
    batch = Tiles.batch

    def read(self, idxs, out=None):
        n['rows'] += len(np.atleast_1d(idxs))
        return batch(self, idxs, out)

    monkeypatch.setattr(Tiles, 'batch', read)
    return n


def test_nothing_is_done_twice(photographs, tmp_path, counted):
    road = take_road(read_fields(photographs), tmp_path / 'out', Recipe.quick(**tiny), device='cpu')
    assert counted['find_near_duplicates'] == 1
    assert counted['metrics'] == 2, 'validation and test, once each'
    assert counted['load_model'] == 0, 'the network is at hand'
    assert counted['predict'] == 1, 'validation and test in one pass'
    passes = counted['rows'] / len(road.tiles)
    print(f'{passes:.1f} passes over the store')
    assert passes <= 7, 'copies, audit, means, training and predictions are passes; none is made twice'


@pytest.mark.long
def test_what_the_road_knows_is_what_its_folder_holds(photographs, tmp_path):
    road = take_road(read_fields(photographs), tmp_path / 'out', Recipe.quick(**tiny), device='cpu')
    test = road.run.preds.query('split == "test"')
    assert road.run.scores['test']['accuracy'] == pytest.approx((test.label == test.pred).mean())
    assert road.held_out in road.answer and f'{road.run.scores["test"]["accuracy"]:.1%}' in road.report.read_text()
    assert (tmp_path / 'out' / 'predictions.csv').is_file()


@pytest.mark.long
def test_a_road_that_cannot_be_taken_leaves_nothing(photographs, tmp_path):
    fields = read_fields(photographs)
    with pytest.raises(ValueError):
        take_road(fields, tmp_path / 'out', Recipe.quick(**tiny), test='experiment=N9', device='cpu')
    assert not list(tmp_path.iterdir())
    road = take_road(fields, tmp_path / 'out', Recipe.quick(**tiny), device='cpu')
    with pytest.raises(FileExistsError):
        train_safely(road.tiles, road.run.path, Recipe.quick(**tiny), device='cpu')


@pytest.fixture
def searched(monkeypatch):
    "How often near-duplicates are looked for, from wherever."
    n = Counter()
    f = tiles_places.find_near_duplicates

    def g(*args, **kwargs):
        n['search'] += 1
        return f(*args, **kwargs)

    monkeypatch.setattr(tiles_places, 'find_near_duplicates', g)
    return n


@pytest.mark.long
def test_what_shows_the_same_is_looked_for_once_for_all_runs(photographs, tmp_path, searched):
    "Found pairs stay with the tiles: splits, audit and every seed take them from there."
    tiles = cut_tiles(read_fields(photographs), tmp_path / 'tiles', grid=(1, 1))
    tiles, pairs = tiles_places.group_by_place(tiles)
    tiles = split_by(tiles, valid=0.3, group='place')
    assert tiles.pairs is pairs
    learn_training.repeat(tiles, Recipe.quick(**tiny), tmp_path / 'runs', seeds=2, device='cpu')
    trust_audits.audit(tiles)
    train_safely(tiles, tmp_path / 'safe', Recipe.quick(**tiny), test='none', device='cpu', places='strict')
    assert searched['search'] == 1
    half = tiles.subset(np.arange(len(tiles)) % 2 == 0)
    assert set(half.pairs.tile_a) | set(half.pairs.tile_b) <= set(half.table.tile)


@pytest.mark.parametrize('how', ['auto', 'strict', 'off'])
@pytest.mark.long
def test_the_report_says_how_places_were_kept_together(photographs, tmp_path, how):
    tiles = cut_tiles(read_fields(photographs), tmp_path / 'tiles', grid=(1, 1))
    went = train_safely(tiles, tmp_path / 'run', Recipe.quick(**tiny), device='cpu', places=how)
    assert f'(places: {how})' in went.report.read_text(encoding='utf-8')
    assert (went.pairs is None) == (how == 'off')


def test_tiles_without_labels_are_refused_in_words(photographs, tmp_path):
    "Neither training nor the road meets them with more than a sentence, and the sentence is about labels."
    tiles = cut_tiles(read_fields(photographs, label_from=None), tmp_path / 'tiles', grid=(1, 1))
    with pytest.raises(ValueError, match="There are no labels here") as e:
        train_safely(tiles, tmp_path / 'safe', Recipe.quick(**tiny), device='cpu')
    assert 'places=' not in str(e.value)
    with pytest.raises(ValueError, match="There are no labels here"):
        learn_training.train(tiles.add(split='train'), Recipe.quick(**tiny), tmp_path / 'run', 'cpu')
    assert [o.name for o in tmp_path.iterdir()] == ['tiles']


def test_the_second_of_two_is_refused_before_it_looks_at_anything(photographs, tmp_path):
    "It walked half of the road, for minutes, before it was told that another process writes there."
    tiles = cut_tiles(read_fields(photographs), tmp_path / 't', grid=(1, 1))
    said = []
    with only_writer(tmp_path / 'run'), pytest.raises(FileExistsError, match='written by another process'):
        train_safely(tiles, tmp_path / 'run', Recipe.quick(**tiny), say=lambda *args, **kwargs: said.append(args))
    assert said == [] and not (tmp_path / 'run').exists()
