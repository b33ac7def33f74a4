"Conformal sets: the promise by wells, the usual case beside another library, and what is refused."

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from celldeath_nb.trust.conformal import abstention_table, conformal_sets, plot_abstention, well_calls


def draw(wells, tiles=6, classes=('CPT', 'DMSO'), well_sd=1.2, skill=1.5, experiment='N1', rng=None):
    "Simulated predictions whose wells shift their tiles alike."
    rng, k = np.random.default_rng(rng), len(classes)
    w = np.repeat(np.arange(wells), tiles)
    y, z = w % k, rng.normal(size=(len(w), k))
    z[np.arange(len(w)), y] += skill - rng.normal(0, well_sd, wells)[w]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    df = pd.DataFrame(
        dict(
            tile=[f'{experiment}_{a}#{i}' for i, a in enumerate(w)],
            experiment=experiment,
            treatment=np.array(classes, object)[y],
            well=(w + 1).astype(str),
            label=np.array(classes, object)[y],
        )
    )
    return pd.concat([df, pd.DataFrame(p, columns=[f'p_{c}' for c in classes])], axis=1)


def holds(s):
    return np.array([t in o.split(' | ') for t, o in zip(s.label, s['set'])])


@pytest.mark.long
def test_wells_are_covered_as_promised():
    "Five hundred simulated experiments of nineteen wells: 18 of 20, within the Monte Carlo error."
    rng, by_well = np.random.default_rng(3), []
    for i in range(500):
        s = conformal_sets(draw(19, 4, rng=rng), draw(1, 4, experiment='N2', rng=rng))
        by_well.append(holds(s)[0])
    assert s.attrs['conformal']['promised'] == 0.9
    assert abs(np.mean(by_well) - 0.9) < 3 * np.sqrt(0.9 * 0.1 / 500)


@pytest.mark.parametrize('method', ['cdf', 'subsample'])
def test_a_tile_of_a_new_well_is_covered(method):
    rng, by_tile = np.random.default_rng(4), []
    for i in range(80):
        by_tile.append(
            holds(
                conformal_sets(draw(19, 4, rng=rng), draw(2, 4, experiment='N2', rng=rng), method=method, seed=i)
            ).mean()
        )
    assert np.mean(by_tile) > 0.9 - 3 * np.std(by_tile) / np.sqrt(80)


def test_the_ungrouped_case_is_that_of_crepes():
    crepes, extras = pytest.importorskip('crepes'), pytest.importorskip('crepes.extras')
    for k, classes in enumerate([('CPT', 'DMSO'), ('CPT', 'DMSO', 'STS')]):
        cal, new = draw(30, 5, classes, rng=k), draw(20, 5, classes, experiment='N2', rng=k + 9)
        P, Q = [t[[f'p_{c}' for c in classes]].to_numpy() for t in (cal, new)]
        theirs = crepes.ConformalClassifier().fit(
            extras.hinge(P, np.array(classes), cal.label.to_numpy().astype(str)), seed=0
        )
        for alpha in (0.02, 0.1, 0.3):
            sets = theirs.predict_set(extras.hinge(Q), confidence=1 - alpha, smoothing=False)
            want = [' | '.join(np.array(classes)[o == 1]) or 'none' for o in sets]
            for method in ('well', 'cdf', 'subsample'):
                assert conformal_sets(cal, new, alpha, 'tile', method)['set'].tolist() == want


def test_by_well_is_the_ungrouped_case_of_the_means():
    cal, new = draw(25, rng=1), draw(9, experiment='N2', rng=2)

    def mean(t):
        return t.groupby('well', as_index=False, sort=False).agg(
            dict(tile='first', experiment='first', label='first', p_CPT='mean', p_DMSO='mean')
        )

    a = conformal_sets(cal, new).drop_duplicates('well')
    b = conformal_sets(mean(cal), mean(new), unit='tile')
    assert a['set'].tolist() == b['set'].tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(30)), st.sampled_from(['well', 'cdf']))
def test_order_of_rows_and_more_tiles_of_a_well_change_nothing(seed, order, method):
    cal, new = draw(10, 3, rng=seed), draw(3, 3, experiment='N2', rng=seed + 1)
    want = conformal_sets(cal, new, 0.2, method=method)['set'].tolist()
    assert conformal_sets(cal.iloc[list(order)], new, 0.2, method=method)['set'].tolist() == want
    twice = pd.concat([cal, cal[cal.well == '1'].assign(tile='again_' + cal.tile)])
    assert conformal_sets(twice, new, 0.2, method=method)['set'].tolist() == want


def test_what_comes_back():
    cal, new = draw(20, rng=5), draw(4, experiment='N2', rng=6)
    before = cal.copy(), new.copy()
    s = conformal_sets(cal, new)
    pd.testing.assert_frame_equal(s[new.columns], new)
    pd.testing.assert_frame_equal(cal, before[0]) or pd.testing.assert_frame_equal(new, before[1])
    assert (s['size'] == s['set'].map(lambda o: 0 if o == 'none' else len(o.split(' | ')))).all()
    assert ((s.call == s['set']) == (s['size'] == 1)).all() and set(s.call[s['size'] != 1]) <= {'cannot tell'}
    bare = new.drop(columns=['label', 'treatment']).assign(well=['new' + o for o in new.well])
    assert conformal_sets(cal, bare)['set'].tolist() == s['set'].tolist()  # neither truth nor treatment is needed


def test_a_strict_promise_gives_larger_sets():
    cal, new = draw(40, rng=7), draw(12, experiment='N2', rng=8)
    sizes = [conformal_sets(cal, new, a)['size'].to_numpy() for a in (0.03, 0.1, 0.2, 0.4)]
    assert all((a >= b).all() for a, b in zip(sizes, sizes[1:])) and sizes[0].sum() > sizes[-1].sum()


cal20, new4 = draw(20, rng=10), draw(4, experiment='N2', rng=11)
bad = [
    (dict(calibration=draw(6)), 'With 6 wells no set can promise 90 %'),
    (dict(calibration=draw(8)), 'at least 9 are needed'),
    (dict(alpha=0), 'between 0 and 1'),
    (dict(alpha=1), 'between 0 and 1'),
    (dict(alpha=np.nan), 'between 0 and 1'),
    (dict(alpha='.1'), 'between 0 and 1'),
    (dict(alpha=True), 'between 0 and 1'),
    (dict(calibration=cal20[cal20.label == 'CPT']), "no well of class 'DMSO'"),
    (dict(preds=draw(4, classes=('CPT', 'DMSO', 'STS'), experiment='N2')), 'they come of two networks'),
    (dict(calibration=cal20.assign(model='a'), preds=new4.assign(model='b')), 'needs its own calibration'),
    (dict(preds=cal20), '120 tiles are in the calibration'),
    (dict(preds=cal20.assign(tile='new_' + cal20.tile)), '20 wells are in the calibration'),
    (dict(method='wells'), "Was it 'well'"),
    (dict(unit='dish'), "level 'dish' is unknown"),
    (dict(unit='experiment', alpha=0.5), "method='cdf'"),
    (dict(preds=new4.drop(columns=['p_CPT', 'p_DMSO'])), 'no p_<class> columns'),
    (dict(preds='preds.csv'), 'pd.read_csv'),
    (dict(preds=new4.assign(p_CPT=2.0)), 'between 0 and 1'),
    (dict(calibration=cal20.drop(columns='label')), "no column 'label'"),
    (dict(preds=new4.drop(columns='well')), 'the well'),
    (dict(preds=new4[:0]), 'no rows'),
]


@pytest.mark.parametrize('changes,said', bad, ids=[s for _, s in bad])
def test_refused_in_words(changes, said):
    with pytest.raises(ValueError) as e:
        conformal_sets(**dict(calibration=cal20, preds=new4) | changes)
    assert said in str(e.value) and '!' not in str(e.value)


def test_nine_wells_are_enough_and_the_first_larger_alpha_is_named():
    assert conformal_sets(draw(9), new4).attrs['conformal']['promised'] == 0.9
    with pytest.raises(ValueError, match='alpha=0.143'):
        conformal_sets(draw(6), new4)
    assert conformal_sets(draw(6), new4, 0.143).attrs['conformal']['n'] == 6


def test_well_calls():
    run = pd.concat([cal20.assign(split='valid'), new4.assign(split='test')], ignore_index=True)
    t = well_calls(run)
    assert len(t) == 4 and t.n_tiles.tolist() == [6] * 4 and (t.experiment == 'N2').all()
    assert np.allclose(
        t.set_index(t.well.astype(str)).p_CPT.sort_index(), new4.groupby(new4.well.astype(str)).p_CPT.mean()
    )
    assert t.right.map(lambda o: o in (True, False, None)).all() and (t.right.isna() == (t.call == 'cannot tell')).all()
    assert 'right' not in well_calls(new4.drop(columns='label'), calibration=cal20)
    with pytest.raises(ValueError, match='wells are in the calibration'):
        well_calls(pd.concat([run, cal20.assign(split='train', tile='x' + cal20.tile)]))
    with pytest.raises(ValueError, match="no split 'valid'"):
        well_calls(new4)


def test_abstention():
    cal, new = draw(19, rng=12), draw(20, experiment='N2', rng=13)
    t = abstention_table(cal, new)
    assert t.alpha.tolist() == [(i + 1) / 20 for i in range(10)] and (t.answered <= t.n).all()
    one = well_calls(new, 0.1, cal)
    row = t[np.isclose(t.alpha, 0.1)].iloc[0]
    assert row.answered == (one.call != 'cannot tell').sum() and row.accuracy == one.right.eq(True).sum() / row.answered
    assert plot_abstention(cal, new).get_xlabel() == 'share of wells that get a call'
    with pytest.raises(ValueError, match='Accuracy needs the truth'):
        abstention_table(cal, new.drop(columns='label'))
