"Which class is called positive: never guessed by the alphabet, named wherever it is used, remembered by the run."

import itertools

import numpy as np
import pandas as pd
import pytest

from celldeath_nb.assays.arms import compare_arms
from celldeath_nb.cli import main
from celldeath_nb.evaluate.figures import plot_confusion
from celldeath_nb.evaluate.preds import positive_class
from celldeath_nb.evaluate.scores import metrics, metrics_from
from celldeath_nb.evaluate.thresholds import apply_threshold, choose_threshold
from celldeath_nb.learn.runs import open_run
from celldeath_nb.people.compare import decider_table
from celldeath_nb.people.judging import simulate_observer
from celldeath_nb.photos.classes import control_of
from celldeath_nb.plates.plates import score_words, well_scores
from celldeath_nb.report import write_report
from test_cli import photo

untold = ('alpha', 'beta')


def preds(a, b, n=60, seed=0):
    "Predictions of two classes that are often right, in twelve wells."
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    p = np.clip(0.5 + (y - 0.5) * rng.uniform(-0.3, 0.9, n), 0.01, 0.99)
    df = pd.DataFrame({f'p_{a}': 1 - p, f'p_{b}': p, 'label': np.where(y, b, a), 'well': np.arange(n) % 12})
    return df.assign(field=df.well.astype(str), tile=[f't{i}' for i in range(n)], well=[f'{w:02}' for w in df.well])


asks = dict(match=r"(?s)alpha, beta is the effect .* Name it: positive='alpha' or positive='beta'\.")


def test_what_needs_a_positive_class_asks_for_it():
    p = preds(*untold)
    judged = simulate_observer(p, accuracy=0.8)
    for f in (
        lambda **k: positive_class(list(untold), **k),
        lambda **k: choose_threshold(p, cost=2, **k),
        lambda **k: apply_threshold(p, 0.4, **k),
        lambda **k: metrics(p, threshold=0.4, n_boot=0, **k),
        lambda **k: decider_table(judged, **k),
        lambda **k: simulate_observer(p, accuracy=0.8, bias=0.5, **k),
        lambda **k: well_scores(p, n_boot=10, **k),
    ):
        with pytest.raises(ValueError, **asks):
            f()
        f(positive='alpha')
        with pytest.raises(ValueError, match='none of the classes'):
            f(positive='gamma')


def test_without_one_the_numbers_do_not_hang_on_the_alphabet():
    "What is not told is the same whichever class comes first, and lies between the two that could be meant."
    p = preds(*untold)
    m = metrics(p, n_boot=200)
    swapped = metrics(p, n_boot=200, classes=['beta', 'alpha'])
    assert m.positive is None and 'positive=' in ' '.join(m.notes)
    for k in ('roc_auc', 'average_precision', 'brier', 'log_loss', 'accuracy'):
        np.testing.assert_allclose(m[k], swapped[k], atol=1e-12)
        assert np.isfinite(m.interval(k)).all()
    both = [metrics(p, n_boot=0, positive=c) for c in untold]
    assert m['average_precision'] == pytest.approx(np.mean([o['average_precision'] for o in both]))
    for o, c in zip(both, untold):
        assert m[f'average_precision[{c}]'] == pytest.approx(o['average_precision'])
        assert o.positive == c and c in repr(o).splitlines()[0] and f'positive class: {c}' in o.to_html()
        assert not any('positive=' in n for n in o.notes)
    assert metrics_from(m.to_dict()).positive is None


def cells(ax):
    return [t.get_text().split('\n')[0] for t in ax.texts]


def test_figures_name_the_positive_class_or_none():
    p = preds(*untold)
    ax = plot_confusion(p, scores=metrics(p, n_boot=50))
    assert 'positive' not in ax.get_xlabel() + ' '.join(cells(ax))
    for ax in (plot_confusion(p, positive='alpha'), plot_confusion(p, scores=metrics(p, n_boot=50, positive='alpha'))):
        assert ax.get_xlabel() == 'predicted; positive: alpha'
        assert cells(ax) == ['true positives', 'false negatives', 'false positives', 'true negatives']
    wells = well_scores(p, n_boot=10, positive='alpha', score='calls')
    assert score_words(wells) == 'share of tiles called alpha'
    t = choose_threshold(p, sensitivity=0.9, positive='alpha')
    assert 'alpha' in t.rule and apply_threshold(p, t).pred.eq('alpha').mean() > 0.4


@pytest.mark.parametrize(
    'control',
    'uninfected WT PBS None sham scramble siCtrl DMSO_0.1% wild_type vehicle_control untransfected NTC'.split(),
)
def test_every_wing_knows_the_same_controls(control):
    "One list of words: people, plates, arms and scores call the same class the control."
    other = 'zz drug'
    for two in itertools.permutations((control, other)):
        assert positive_class(list(two)) == other
        p = preds(*two)
        assert metrics(p, n_boot=0).positive == other
        assert well_scores(p, n_boot=10).attrs['positive'] == other
        assert set(decider_table(simulate_observer(p, accuracy=0.8)).positive) == {other}
        values = pd.DataFrame(
            dict(treatment=[*two] * 6, experiment=np.repeat(list('abcdef'), 2), y=np.arange(12.0) ** 2 + 1)
        )
        values.loc[values.treatment == other, 'y'] *= 5
        ratio = compare_arms(values, 'y').ratio.iloc[0]
        assert ratio > 1, 'what was multiplied is compared with its control'


def test_words_that_both_names_share_tell_nothing():
    assert control_of(['WT CPT', 'WT DMSO']) == 'WT DMSO'
    assert control_of(['WT_CPT', 'KO_CPT']) == 'WT_CPT'
    assert control_of(['WT CPT', 'WT STS']) is None


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    d = tmp_path_factory.mktemp('untold')
    for k, (c, i) in enumerate(itertools.product(untold, range(6))):
        photo(d / 'photos' / c / f'{c}_{i}.png', seed=k)
    with pytest.raises(SystemExit):
        main(['slice', str(d / 'photos'), '--out', str(d / 'tiles'), '--grid', '1x1'])
    return d / 'tiles'


@pytest.mark.parametrize('positive', [None, 'alpha'])
@pytest.mark.long
def test_the_command_asks_and_the_run_remembers(tiles, tmp_path, capsys, positive):
    out = tmp_path / 'run'
    with pytest.raises(SystemExit) as e:
        main(['train', str(tiles), '--out', str(out), '--epochs', '1', *(['--positive', positive] if positive else [])])
    said = capsys.readouterr().out
    assert e.value.code == 0, said
    asked = 'Name it: --positive alpha or --positive beta.' in said
    run = open_run(out)
    page = (out / 'report.html').read_text(encoding='utf-8')
    assert asked == (positive is None)
    assert run.positive == run.model.info['positive'] == positive == run.scores['test'].positive
    assert ('Positive class: alpha.' in page) == bool(positive)
    if positive:
        assert 'the positive class is alpha' in said
        assert 'Positive class: alpha.' in write_report(run, _opened(tiles, run), tmp_path / 'again.html').read_text()


def _opened(path, run):
    from celldeath_nb.tiles.store import open_tiles

    t = open_tiles(path)
    split = pd.read_csv(run.path / 'split.csv').set_index('tile').split
    return t.add(split=t.table.tile.map(split).to_numpy())


def test_a_positive_class_that_is_none_is_refused_before_training(tiles, tmp_path, capsys):
    with pytest.raises(SystemExit) as e:
        main(['train', str(tiles), '--out', str(tmp_path / 'run'), '--epochs', '1', '--positive', 'gamma'])
    assert e.value.code == 1 and 'none of the classes' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()
