"""What the evaluation notebook does not teach: exactness on random tables, coverage of the intervals, bad input."""

import json, os, warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as skm
from statsmodels.stats.proportion import proportion_confint

import celldeath_nb.evaluate.scores as evaluate_scores
import celldeath_nb.evaluate.intervals as evaluate_intervals
import celldeath_nb.evaluate.thresholds as evaluate_thresholds
import celldeath_nb.evaluate.figures as evaluate_figures
import celldeath_nb.studies.curves as studies_curves

warnings.filterwarnings('ignore', category=UserWarning, module='sklearn')


def table(n, k, present, seed, decimals=None):
    "A random table: `present` of `k` classes occur in the truth, scores are rounded to make ties."
    rng = np.random.default_rng(seed)
    classes = [f'c{i:02}' for i in range(k)]
    y = rng.integers(0, present, n)
    p = rng.dirichlet(np.ones(k), n)
    if decimals is not None:
        p = np.round(p, decimals)
        p[np.arange(n), rng.integers(0, k, n)] += 1 - p.sum(1)
        p = np.clip(p, 0, 1)
        p /= p.sum(1, keepdims=True)
    df = pd.DataFrame(p, columns=[f'p_{c}' for c in classes]).assign(
        label=np.array(classes)[y], well=rng.integers(0, 6, n).astype(str)
    )
    return df, np.array(classes), y, p


def slow_ece(y, p, bins=15):
    "The calibration error by a plain loop over bins."
    conf = p.max(1)
    right = p.argmax(1) == y
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(len(y)) if b == min(max(int(np.ceil(conf[i] * bins)) - 1, 0), bins - 1)]
        if inside:
            total += len(inside) / len(y) * abs(right[inside].mean() - conf[inside].mean())
    return total


def by_sklearn(classes, y, v, p, pos):
    "The same metrics from scikit-learn, nan where scikit-learn has no answer."
    k = len(classes)
    ids = np.arange(len(classes))
    out = {}
    out['accuracy'] = skm.accuracy_score(y, v)
    out['mcc'] = skm.matthews_corrcoef(y, v)
    out['balanced_accuracy'] = skm.balanced_accuracy_score(y, v)
    for how in (None, 'macro', 'weighted'):
        r = skm.precision_recall_fscore_support(y, v, labels=ids, average=how, zero_division=np.nan)
        for name, x in zip(('precision', 'recall', 'f1'), r):
            if how is None:
                out |= {f'{name}[{c}]': x[j] for j, c in enumerate(classes)}
            elif (name, how) != ('recall', 'weighted'):
                out[f'{name}_{how}'] = x
    out['log_loss'] = skm.log_loss(y, p, labels=ids)
    out['ece'] = slow_ece(y, p)
    one = [pos] if k == 2 else range(k)
    auc = {j: skm.roc_auc_score(y == j, p[:, j]) if 0 < (y == j).sum() < len(y) else np.nan for j in one}
    ap = {j: skm.average_precision_score(y == j, p[:, j]) if (y == j).any() else np.nan for j in one}
    out['brier'] = skm.brier_score_loss(y == pos, p[:, pos]) if k == 2 else ((p - np.eye(k)[y]) ** 2).sum(1).mean()
    if k > 2:
        out |= {f'roc_auc[{classes[j]}]': a for j, a in auc.items()} | {
            f'average_precision[{classes[j]}]': a for j, a in ap.items()
        }
    mean = lambda d: np.nanmean(list(d.values())) if not np.isnan(list(d.values())).all() else np.nan
    return out | dict(roc_auc=mean(auc), average_precision=mean(ap))


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(2, 6),
    absent=st.integers(0, 5),
    decimals=st.sampled_from([None, 1, 2]),
    seed=st.integers(0, 10**6),
)
@pytest.mark.long
def test_every_scalar_is_scikit_learns(n, k, absent, decimals, seed):
    df, classes, y, p = table(n, k, max(k - absent, 1), seed, decimals)
    m = evaluate_scores.metrics(df, n_boot=0, positive=classes[-1] if k == 2 else None)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ref = by_sklearn(classes, y, p.argmax(1), p, k - 1)
    assert set(ref) == set(m)
    for name, x in ref.items():
        np.testing.assert_allclose(m[name], x, rtol=0, atol=1e-12 * max(1, abs(x)) if x == x else 0, err_msg=name)


@pytest.mark.parametrize('k', [2, 5])
def test_multiclass_auc_and_brier_as_scikit_learn_names_them(k):
    df, classes, y, p = table(400, k, k, 1)
    m = evaluate_scores.metrics(df, n_boot=0, positive=classes[-1] if k == 2 else None)
    auc = skm.roc_auc_score(y, p[:, 1] if k == 2 else p, multi_class='ovr')
    np.testing.assert_allclose(m['roc_auc'], auc, atol=1e-12)
    try:
        brier = skm.brier_score_loss(y, p[:, 1] if k == 2 else p, labels=None if k == 2 else list(range(k)))
    except (TypeError, ValueError):
        pytest.skip('this scikit-learn has no Brier score for more than two classes')
    np.testing.assert_allclose(m['brier'], brier, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 4), decimals=st.sampled_from([None, 1]))
@pytest.mark.long
def test_vectorized_resamples_equal_a_plain_loop(seed, k, decimals):
    df, classes, y, p = table(120, k, k, seed, decimals)
    unit = df.well.astype('category').cat.codes.to_numpy()
    parts = evaluate_intervals.ScoreParts(y, p.argmax(1), p, unit, list(classes), k - 1)
    W = np.random.default_rng(seed).multinomial(parts.n, np.full(parts.n, 1 / parts.n), size=6).astype(float)
    got = parts.scores(W)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for r, w in enumerate(W):
            rep = np.repeat(np.arange(120), w[unit].astype(int))
            ref = by_sklearn(classes, y[rep], p[rep].argmax(1), p[rep], k - 1)
            for name, x in ref.items():
                np.testing.assert_allclose(got[name][r], x, rtol=0, atol=1e-9, err_msg=name)


def test_single_precision_resamples_are_as_good():
    df, classes, y, p = table(4000, 3, 3, 0)
    unit = df.well.astype('category').cat.codes.to_numpy()
    parts = evaluate_intervals.ScoreParts(y, p.argmax(1), p, unit, list(classes), None)
    W = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=600).astype(float)
    a = parts.scores(W)
    b = parts.scores(W[:400])
    for name in a:
        np.testing.assert_allclose(a[name][:400], b[name], atol=1e-6, err_msg=name)


def test_wilson_is_statsmodels():
    for k, n in [(0, 5), (5, 5), (122, 250), (3, 1000)]:
        np.testing.assert_allclose(
            evaluate_intervals.wilson(k, n), np.clip(proportion_confint(k, n, method='wilson'), 0, 1), atol=1e-12
        )


def wells_of(wells, tiles, mean, sd, seed):
    "Verdicts whose chance to be right differs from well to well."
    rng = np.random.default_rng(seed)
    well = np.repeat(np.arange(wells), tiles)
    right = rng.random(wells * tiles) < 1 / (1 + np.exp(-(mean + sd * rng.normal(size=wells))))[well]
    cpt = well % 2 == 0
    return pd.DataFrame(
        dict(label=np.where(cpt, 'CPT', 'DMSO'), pred=np.where(cpt == right, 'CPT', 'DMSO'), well=well.astype(str))
    )


@pytest.mark.long
def test_interval_by_wells_covers_the_truth_and_the_naive_one_does_not(wells=16, mean=1.5, sd=0.8):
    truth = (1 / (1 + np.exp(-(mean + sd * np.random.default_rng(0).normal(size=10**6))))).mean()
    held = np.zeros(2)
    for seed in range(1000):
        m = evaluate_scores.metrics(wells_of(wells, 40, mean, sd, seed + 1), n_boot=200, seed=seed)
        held += [lo <= truth <= hi for lo, hi in (m.interval('accuracy'), m.interval('accuracy', naive=True))]
    assert 930 <= held[0] <= 970 and held[1] < 800, held


def some_wells(seed, right=0.8, one_verdict=False, classes=('CPT', 'DMSO'), wells=8, tiles=12):
    "Predictions with probabilities of wells of unequal size, each well of one class."
    rng = np.random.default_rng(seed)
    well = np.repeat(np.arange(wells), rng.integers(1, tiles, wells))
    y = well % len(classes)
    v = np.where(rng.random(len(well)) < right, y, rng.integers(0, len(classes), len(well)))
    v = np.zeros_like(v) if one_verdict else v
    p = rng.dirichlet(np.ones(len(classes)), len(well))
    p = np.take_along_axis(np.sort(p, 1)[:, ::-1], np.argsort(np.argsort(-(np.eye(len(classes))[v]), kind='stable')), 1)
    df = pd.DataFrame(p, columns=[f'p_{c}' for c in classes])
    return df.assign(
        label=np.array(classes)[y],
        pred=np.array(classes)[v],
        well=[f'A{w}' for w in well],
        field=[f'{w}_{i // 3}.png' for i, w in enumerate(well)],
        tile=[f'{i}' for i in range(len(well))],
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    level=st.sampled_from(['tile', 'field', 'well']),
    by=st.sampled_from(['well', 'tile', None]),
    drop=st.sampled_from([[], ['well'], ['well', 'field'], ['tile']]),
    most=st.sampled_from([5, 500]),
)
def test_the_order_of_rows_changes_nothing(seed, level, by, drop, most):
    df = some_wells(seed).drop(columns=drop)
    if level in drop or by in drop or by == 'tile' and level != 'tile':
        return
    ask = lambda t: evaluate_scores.metrics(t, level, by=by, n_boot=50, max_units=most).to_dict()
    assert ask(df) == ask(df.sample(frac=1, random_state=seed).reset_index(drop=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    right=st.sampled_from([0.0, 0.9, 1.0]),
    one=st.booleans(),
    classes=st.sampled_from([('CPT', 'DMSO'), ('CPT', 'DMSO', 'STS')]),
    level=st.sampled_from(['tile', 'well']),
)
def test_no_interval_has_no_width(seed, right, one, classes, level):
    df = some_wells(seed, right, one, classes, wells=9)
    t = evaluate_scores.metrics(df, level, n_boot=100).table
    for low, high in (('low', 'high'), ('naive_low', 'naive_high')):
        known = t[t[low].notna() & t.value.between(-1, 1)]
        assert (known[high] - known[low] > 1e-3).all()
        assert ((known[low] <= known.value + 1e-9) & (known.value <= known[high] + 1e-9)).all()
    value, low, high = evaluate_intervals.balanced_share(df.label, df.pred, df.well)
    assert high - low > 0.05 and low <= value <= high


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), right=st.sampled_from([0.5, 0.9, 1.0]), k=st.integers(2, 4), wells=st.integers(2, 700)
)
def test_balanced_share_is_the_balanced_accuracy_of_metrics(seed, right, k, wells):
    df = some_wells(seed, right, classes=tuple('abcd'[:k]), wells=wells, tiles=3)
    m = evaluate_scores.metrics(
        df[['label', 'pred']].assign(field=df.well), by='field', positive='a' if k == 2 else None
    )
    got = evaluate_intervals.balanced_share(df.label, df.pred, df.well)
    np.testing.assert_allclose(got, (m['balanced_accuracy'], *m.interval('balanced_accuracy')), rtol=0, atol=1e-12)


def test_effective_units():
    equal = evaluate_intervals.ScoreParts(*np.zeros((2, 40), int), None, np.arange(40) // 4, ['a', 'b'], None)
    assert evaluate_intervals.effective_units(equal)['recall[a]'] == pytest.approx(10)
    y = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    n = evaluate_intervals.effective_units(evaluate_intervals.ScoreParts(y, y, None, np.arange(10), ['a', 'b'], None))
    assert n['balanced_accuracy'] == pytest.approx(4 / (1 / 2 + 1 / 8)) and n['precision[a]'] == pytest.approx(2)
    big = np.repeat(np.arange(4), [97, 1, 1, 1])  # one well of 97 tiles and three of one tell as much as about one
    zero = np.zeros(100, int)
    n = evaluate_intervals.effective_units(evaluate_intervals.ScoreParts(zero, zero, None, big, ['a', 'b'], None))
    assert 1 < n[''] < 1.1


def test_wells_without_an_error_are_covered():
    "Of wells that are right in 97 of 100 tiles, those draws in which nothing went wrong hold the truth in their interval."
    truth, tiles, held = 0.97, 8, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        right = rng.random((6, tiles)) < rng.beta(9.7, 0.3, 6)[:, None]
        if right.all():
            y = np.arange(6 * tiles) // tiles % 2
            held.append(evaluate_intervals.balanced_share(y, y, np.arange(6 * tiles) // tiles)[1] <= truth)
    assert len(held) > 20 and np.mean(held) > 0.95


@pytest.mark.parametrize('t', [0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize('k', [2, 14])
def test_planted_temperature(t, k):
    rng = np.random.default_rng(int(10 * t) + k)
    z = rng.normal(0, 1.5, (60_000, k))
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    e = np.exp(t * (z - z.max(1, keepdims=True)))
    classes = [f'c{i:02}' for i in range(k)]
    df = pd.DataFrame(e / e.sum(1, keepdims=True), columns=[f'p_{c}' for c in classes]).assign(
        label=np.array(classes)[y]
    )
    assert abs(evaluate_thresholds.calibrate(df) / t - 1) < 0.02


def preds_of_two(n=48, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return pd.DataFrame(
        dict(
            label=np.where(np.arange(n) // 4 % 2 == 0, 'CPT', 'DMSO'),
            p_CPT=p,
            p_DMSO=1 - p,
            tile=[f'f{i // 4}.png#0,{i % 4}' for i in range(n)],
            field=[f'f{i // 4}.png' for i in range(n)],
        )
    )


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(p_CPT=0.7), 'sum to 1'),
        (dict(p_CPT=np.nan), 'between 0 and 1'),
        (dict(p_CPT=-0.2, p_DMSO=1.2), 'between 0 and 1'),
        (dict(label=None), 'is missing'),
        (dict(label='camptothecin'), 'none of the classes'),
    ],
)
def test_bad_rows_are_named(change, words):
    df = preds_of_two().astype(dict(label=object))
    df.loc[7, 'p_CPT'] = 0.5
    df.loc[7, 'p_DMSO'] = 0.5
    for c, x in change.items():
        df.loc[7, c] = x
    with pytest.raises(ValueError, match=words) as e:
        evaluate_scores.metrics(df)
    assert 'f1.png#0,3' in str(e.value) and 'Row 7' in str(e.value)


def test_tables_that_lack_things():
    df = preds_of_two()
    assert evaluate_scores.metrics(df).by == 'field' and 'does not name wells' in evaluate_scores.metrics(df).notes[0]
    assert evaluate_scores.metrics(df[['label', 'p_CPT', 'p_DMSO']]).by == 'tile'
    only = evaluate_scores.metrics(df.assign(pred='CPT')[['label', 'pred']])
    assert 'roc_auc' not in only and only['accuracy'] == 0.5
    assert evaluate_scores.metrics(df.assign(well=[None if i < 24 else '2' for i in range(48)])).counts['wells'] == 2
    assert evaluate_scores.metrics(df.assign(well=np.nan)).by == 'field'
    for bad in (df[:0], df.drop(columns=['p_CPT', 'p_DMSO']), df.drop(columns='p_DMSO').assign(pred='DMSO')):
        with pytest.raises(ValueError):
            evaluate_scores.metrics(bad)
    one = evaluate_scores.metrics(df[:1])
    assert 'mixes the splits' in evaluate_scores.metrics(df.assign(split=['train', 'test'] * 24)).notes[-1]
    assert 'repeat a tile' in evaluate_scores.metrics(pd.concat([df, df])).notes[-1]
    assert one['accuracy'] in (0, 1) and 'do not trust' in ' '.join(one.notes)


def test_result_is_json_and_html_whatever_the_names():
    df = preds_of_two().rename(columns=dict(p_CPT='p_<b>$x_1$')).replace(dict(label=dict(CPT='<b>$x_1$')))
    m = evaluate_scores.metrics(df[df.label == 'DMSO'])
    json.dumps(m.to_dict(), allow_nan=False)
    assert '<b>' not in m.to_html() and set(m) == set(m.table.index)
    import matplotlib.pyplot as plt

    evaluate_figures.plot_confusion(df).figure.canvas.draw()
    plt.close('all')


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), cost=st.sampled_from([0.2, 1.0, 5.0]), decimals=st.sampled_from([1, 3]))
def test_no_threshold_is_cheaper(seed, cost, decimals):
    rng = np.random.default_rng(seed)
    pos = rng.random(30) < 0.5
    pos[:2] = True, False
    s = np.round(np.clip(rng.normal(0.4 + 0.2 * pos, 0.2), 0, 1), decimals)
    df = pd.DataFrame(dict(label=np.where(pos, 'CPT', 'DMSO'), p_CPT=s, p_DMSO=1 - s))
    loss = lambda t: cost * (pos & (s < t)).sum() + (~pos & (s >= t)).sum()
    t = evaluate_thresholds.choose_threshold(df, cost=cost)
    assert loss(t) == min(loss(x) for x in np.r_[np.unique(s), 2])
    for want in (0.5, 0.9, 1.0):
        a = evaluate_thresholds.choose_threshold(df, sensitivity=want)
        b = evaluate_thresholds.choose_threshold(df, specificity=want)
        assert (s[pos] >= a).mean() >= want - 1e-9 and (s[~pos] < b).mean() >= want - 1e-9
        assert all((s[pos] >= x).mean() < want - 1e-9 for x in np.unique(s) if (s >= x).sum() < (s >= a).sum())
        assert all((s[~pos] < x).mean() < want - 1e-9 for x in np.unique(s) if (s >= x).sum() > (s >= b).sum())
        np.testing.assert_allclose(a.on_validation['sensitivity'], (s[pos] >= a).mean())


def test_collapse_of_classes_that_do_not_occur():
    classes = ['U2OS CPT', 'U2OS DMSO', 'PC3 CPT', 'PC3 DMSO']
    df = pd.DataFrame(np.full((4, 4), 0.25), columns=[f'p_{c}' for c in classes]).assign(
        label=['U2OS CPT', 'U2OS DMSO'] * 2, treatment=['CPT', 'DMSO'] * 2
    )
    np.testing.assert_allclose(evaluate_scores.collapse(df)[['p_CPT', 'p_DMSO']], 0.5)
    with pytest.raises(ValueError, match='PC3'):
        evaluate_scores.collapse(df.assign(line='U2OS'), by='line')


def test_learning_curve_shares_are_nested_and_whole():
    df = pd.concat(
        [preds_of_two(160), preds_of_two(40, 1).assign(field='t' + preds_of_two(40).field)], ignore_index=True
    )
    df['tile'] = df.field + '#' + df.index.astype(str)
    df['split'] = ['train'] * 160 + ['test'] * 40

    class Store:
        def __init__(self, t):
            self.table = t

        def subset(self, mask):
            return Store(self.table[mask])

    seen = []

    def train(tiles, recipe, out):
        seen.append(set(tiles.table.field[tiles.table.split == 'train']))
        return SimpleNamespace(preds=tiles.table[tiles.table.split == 'test'])

    c = studies_curves.learning_curve(Store(df), None, (0.25, 0.5, 1.0), train=train)
    assert [len(s) for s in seen] == [10, 20, 40] == c.fields.tolist() and seen[0] < seen[1] < seen[2]
    assert c.tiles.tolist() == [40, 80, 160] and (c.split == 'test').all()


def test_power_law_finds_its_law():
    n = np.array([20, 50, 100, 300, 1000, 3000])
    law = studies_curves.fit_power_law(pd.DataFrame(dict(fields=n, accuracy=1 - (0.9 * n**-0.6 + 0.02))))
    np.testing.assert_allclose([law.a, law.b, law.c], [0.9, 0.6, 0.02], rtol=0.05)
    assert law.needed(0.99)[0] == np.inf


def test_colors_can_be_told_apart_with_every_kind_of_color_vision():
    from skimage.color import rgb2lab

    seen = dict(
        normal=np.eye(3),
        deuteranopia=[[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        protanopia=[[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        tritanopia=[[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    )

    def closest(classes):
        rgb = np.array(
            [
                [int(h[i : i + 2], 16) / 255 for i in (1, 3, 5)]
                for h in [*evaluate_figures.class_colors(classes).values(), '#FFFFFF']
            ]
        )
        lin = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        d = []
        for m in seen.values():
            c = np.clip(lin @ np.array(m).T, 0, 1)
            lab = rgb2lab(np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055)[None])[0]
            d.append(np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)].min())
        return min(d)

    assert (
        closest(['CPT', 'DMSO']) > 50
        and closest([f'line {i}' for i in range(7)]) > 30
        and closest([f'class {i:02}' for i in range(14)]) > 20
    )


def test_turning_point_needs_a_rise_above_the_noise():
    e = np.arange(100)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        flat = pd.DataFrame(
            dict(epoch=e, train_loss=np.exp(-e / 20), valid_loss=0.5 * np.exp(-e / 20) + 0.2 + rng.normal(0, 0.01, 100))
        )
        assert evaluate_figures.turning_point(flat) is None
        assert (
            abs(
                evaluate_figures.turning_point(flat.assign(valid_loss=flat.valid_loss + 0.005 * np.maximum(e - 60, 0)))
                - 60
            )
            <= 12
        )
    assert evaluate_figures.turning_point(flat[:6]) is None


def test_worst_tiles_and_gallery_refuse():
    df = preds_of_two()
    right = df.assign(pred=df.label)
    assert (
        len(evaluate_figures.worst_tiles(right)) == 0
        and evaluate_figures.worst_tiles(df, 5, 'unsure').margin.is_monotonic_increasing
    )
    with pytest.raises(ValueError, match='no rows to show'):
        evaluate_figures.gallery(None, evaluate_figures.worst_tiles(right))
    with pytest.raises(ValueError, match='unknown'):
        evaluate_figures.worst_tiles(df, kind='best')


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get('CELLDEATH_SLOW'), reason='slow: nine settings of 1,000 simulated experiments')
@pytest.mark.parametrize('wells', [8, 16, 48])
@pytest.mark.parametrize('mean, sd', [(1.0, 0.7), (1.5, 1.0), (2.0, 0.6)])
def test_coverage_in_more_settings(wells, mean, sd):
    truth = (1 / (1 + np.exp(-(mean + sd * np.random.default_rng(0).normal(size=10**6))))).mean()
    inside = [
        lo <= truth <= hi
        for lo, hi in (
            evaluate_scores.metrics(wells_of(wells, 40, mean, sd, s), n_boot=300).interval('accuracy')
            for s in range(1000)
        )
    ]
    assert 0.92 <= np.mean(inside) <= 0.975, np.mean(inside)
