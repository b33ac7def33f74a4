"What does not teach: the four tests beside scipy and statsmodels on random tables, odd tables, and what their notes say."

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from celldeath_nb.assays.arms import compare_arms, p_text, plot_distributions, plot_superplot, simulate_comparisons

rows = ['Welch, nuclei (as in the paper)', 'Welch, replicate means', 'paired t, replicate means', 'mixed model']


def draw(rng, replicates=3, objects=20, effect=0.3, day=0.5, well=0.3, sd=1.0, arms=('DMSO', 'CPT'), unequal=False):
    out = []
    for r in range(replicates):
        shift = rng.normal(0, day)
        for k, a in enumerate(arms):
            n = rng.integers(5, 2 * objects) if unequal else objects
            out += [(f'N{r}', a, v) for v in rng.normal(shift + rng.normal(0, well) + k * effect, sd, n)]
    return pd.DataFrame(out, columns=['experiment', 'treatment', 'y'])


def by(t):
    return t.set_index('test')


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.booleans())
def test_the_three_t_tests_are_scipys(seed, replicates, unequal):
    t = draw(np.random.default_rng(seed), replicates, unequal=unequal)
    mine = by(compare_arms(t, 'y', log=False))
    a, b = (t[t.treatment == o].y for o in ('CPT', 'DMSO'))
    m = t.groupby(['experiment', 'treatment']).y.mean().unstack()
    for row, his in zip(
        rows,
        (
            stats.ttest_ind(a, b, equal_var=False),
            stats.ttest_ind(m.CPT, m.DMSO, equal_var=False),
            stats.ttest_rel(m.CPT, m.DMSO),
        ),
    ):
        r = mine.loc[row]
        np.testing.assert_allclose(
            [r.statistic, r.df, r.p, r.low, r.high],
            [his.statistic, his.df, his.pvalue, *his.confidence_interval()],
            rtol=1e-8,
        )


@pytest.mark.parametrize('seed', range(4))
def test_the_mixed_model_is_never_below_statsmodels(seed):
    "Unequal groups; its likelihood is at least as high as any that statsmodels' optimizers reach, and where they agree so do the limits."
    import statsmodels.formula.api as smf
    from celldeath_nb.assays.arms import _best, _data, _moments

    t = draw(np.random.default_rng(seed), 10, unequal=True, well=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit = smf.mixedlm('y ~ x', t.assign(x=(t.treatment == 'CPT') * 1.0), groups='experiment', re_formula='~x').fit(
            method=['lbfgs']
        )
    n, mean, rest, _ = _moments(_data(t, 'y', 'treatment', 'experiment', False)[0], 'DMSO', 'CPT')
    mine = -(_best(n, mean, rest)[0] + np.log(n).sum() + (len(t) - 2) * (1 + np.log(2 * np.pi))) / 2
    assert mine >= fit.llf - 1e-4
    r = by(compare_arms(t, 'y', log=False)).loc['mixed model']
    if abs(mine - fit.llf) < 1e-3:
        np.testing.assert_allclose([r.low, r.high], fit.conf_int().loc['x'], atol=0.03)


def test_a_replicate_that_lacks_an_arm_is_counted_and_named():
    t = draw(np.random.default_rng(1), 4)
    t = t[~((t.experiment == 'N2') & (t.treatment == 'DMSO'))]
    r = by(compare_arms(t, 'y', log=False))
    assert r.n.tolist() == [140, 7, 3, 4] and 'without N2' in r.note['paired t, replicate means'] and r.p.notna().all()


@pytest.mark.parametrize('log', [True, False])
def test_no_spread_has_no_p_and_says_so(log):
    t = pd.DataFrame(
        dict(experiment=['a', 'a', 'b', 'b'] * 2, treatment=['DMSO'] * 4 + ['CPT'] * 4, y=[1.0] * 4 + [2.0] * 4)
    )
    r = compare_arms(t, 'y', log=log)
    assert (
        r.p.isna().all()
        and r.note.str.contains('no spread').all()
        and np.allclose(r.estimate[:3], 0.30103 if log else 1)
    )


def test_replicates_with_one_arm_each_cannot_be_paired():
    t = draw(np.random.default_rng(2), 6)
    t = t[(t.treatment == 'CPT') == t.experiment.isin(['N0', 'N1', 'N2'])]
    r = compare_arms(t, 'y', log=False)
    assert r.p.notna().tolist() == [True, True, False, False] and 'both arms: 0' in r.note[2]


def test_missing_values_and_mixed_lines_are_told():
    t = draw(np.random.default_rng(3)).assign(line=['U2OS', 'MCF7'] * 60)
    t.loc[[3, 9], 'y'] = np.nan
    r = compare_arms(t, 'y', log=False)
    assert (
        r.n[0] == 118
        and r.note.str.contains('2 rows without a number left out').all()
        and r.note.str.contains("2 values of 'line' together").all()
    )


def test_three_arms_numbers_as_names_and_several_columns_as_unit():
    t = draw(np.random.default_rng(4), arms=('vehicle', 'CPT', 'STS'))
    r = compare_arms(t, 'y', log=False)
    assert r.arm.tolist() == ['CPT'] * 4 + ['STS'] * 4 and set(r.reference) == {'vehicle'}
    t = draw(np.random.default_rng(4), arms=(0, 10)).assign(plate=1)
    r = compare_arms(t, 'y', unit=['plate', 'experiment'], log=False)
    assert r.reference[0] == '0' and r.n[2] == 3
    r = compare_arms(t.assign(treatment=t.treatment.astype('category')), 'y', log=False)
    assert r.n[0] == 120


def test_the_order_of_rows_says_nothing():
    t = draw(np.random.default_rng(5), unequal=True)
    a, b = (compare_arms(o, 'y', log=False) for o in (t, t.sample(frac=1, random_state=0)))
    pd.testing.assert_frame_equal(a, b, rtol=1e-6)


def test_swapping_the_reference_turns_the_ratio_over():
    t = draw(np.random.default_rng(6))
    t['y'] = 10**t.y
    a, b = compare_arms(t, 'y'), compare_arms(t, 'y', reference='CPT')
    np.testing.assert_allclose(a.ratio * b.ratio, 1, rtol=1e-6)
    np.testing.assert_allclose(a.p, b.p, rtol=1e-4)


def test_one_nucleus_and_one_replicate_do_not_fall():
    t = pd.DataFrame(dict(experiment=['a'] * 2, treatment=['DMSO', 'CPT'], y=[1.0, 2.0]))
    r = compare_arms(t, 'y')
    assert r.p.isna().all() and (r.note != '').all()
    for plot in (plot_distributions, plot_superplot):
        assert plot(t, 'y').figure


def test_large_numbers_and_small_ones():
    "A constant far from zero does not swallow the spread; percentages near zero do not overflow."
    t = draw(np.random.default_rng(7))
    a, b = compare_arms(t, 'y', log=False), compare_arms(t.assign(y=t.y + 1e6), 'y', log=False)
    np.testing.assert_allclose(a.p, b.p, rtol=1e-3)
    assert compare_arms(t.assign(y=(t.y + 10) * 1e-9), 'y').p.notna().all()


def test_false_alarms_of_a_null_experiment():
    t = simulate_comparisons(4000, seed=77).called
    assert 0.62 < t[0] < 0.72 and t[1] < 0.025 and 0.04 < t[2] < 0.065 and t[2] < t[3] < t[0]
    assert (
        simulate_comparisons(200, day_sd=0, well_sd=0, seed=8).called[0] < 0.1
    )  # where nuclei are replicates, counting them is right


def test_p_is_a_limit_only_below_the_spacing_of_numbers():
    assert p_text(0) == '< 2.2e-16' and p_text(np.finfo(float).eps) == '2.2e-16' and p_text(0.05) == '0.050'
    with pytest.raises(ValueError, match='no p value'):
        p_text(-0.1)
