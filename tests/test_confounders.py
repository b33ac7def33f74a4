"What coincides with the label: every column, pairs of columns, and intervals that hold the truth."

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from celldeath_nb.tiles.splits import label_by
from celldeath_nb.trust.confounders import confounding, cramers_v, v_interval


def photographs(n=96, seed=0, **cols):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(
        dict(field=[f'{i}.png' for i in range(n)], label=rng.permutation(np.repeat(['CPT', 'DMSO'], n // 2)))
    )
    return df.assign(tile=df.field + '#0,0').assign(**cols)


def factors(df, **kw):
    return confounding(df, **kw).table.set_index('factor')


def test_a_reader_s_own_columns_are_looked_at():
    df = photographs()
    treated = (df.label == 'CPT').to_numpy()
    t = factors(
        df.assign(
            donor=np.where(treated, 1, 2),
            batch=np.where(treated, 'a', 'b'),
            plate=np.where(treated, 'P1', 'P2'),
            technician=np.where(treated, 'ann', 'bob'),
            passage=np.arange(96) % 4,
            comment=[f'note {i}' for i in range(96)],
            score=np.random.default_rng(1).random(96),
        )
    )
    assert (t.loc[['donor', 'batch', 'plate', 'technician'], 'verdict'] == 'too high').all()
    assert t.verdict['passage'] == 'fine' and not {'comment', 'score', 'tile', 'field'} & set(t.index)


def test_the_label_under_another_name_is_no_confounder():
    df = photographs()
    t = factors(df.assign(Condition=df.label.map(dict(CPT='drug', DMSO='none')), genotype='wt', donor=df.label))
    assert 'Condition' not in t.index and t.verdict['donor'] == 'too high'


def test_many_donors_of_one_class_are_kept_together_and_not_condemned():
    df = photographs()
    donor = np.where(df.label == 'CPT', 'c', 'd') + np.char.mod('%d', np.arange(96) % 5)
    found = confounding(df.assign(donor=donor))
    assert not found.caught and "group='donor'" in found.sentences[0]
    assert confounding(df.assign(batch=donor)).caught


def test_a_pair_that_gives_the_label_away_is_found():
    df = photographs()
    donor = np.arange(96) % 3
    batch = np.where((df.label == 'CPT') == (donor == 1), 'a', 'b')
    found = confounding(df.assign(donor=donor, batch=batch, day=np.arange(96) % 2))
    assert [o['factor'] for o in found.caught] == ['donor x batch']
    assert 'pair of donor and batch' in found.caught.sentences[0]


def test_a_pair_that_names_each_dish_says_nothing():
    df = photographs(24, donor=np.arange(24) // 4, batch=np.arange(24) % 4)
    assert not [o for o in confounding(df).caught if ' x ' in o['factor']]
    many = df.loc[df.index.repeat(6)].assign(
        well=lambda d: d.index.map('w{}'.format), field=lambda d: [f'{i}.png' for i in range(len(d))]
    )
    assert not [o for o in confounding(many).caught if ' x ' in o['factor']]


def plate(label_of):
    rows = [
        dict(well=f'{r}{c:02}', label=label_of(r, c), field=f'{r}{c}_{s}.png')
        for r in 'ABCD'
        for c in range(1, 7)
        for s in range(3)
    ]
    return pd.DataFrame(rows)


def test_one_plate_is_judged_by_its_rows_and_columns():
    rng = np.random.default_rng(0)
    dealt = dict(zip([(r, c) for r in 'ABCD' for c in range(1, 7)], rng.permutation(['CPT', 'DMSO'] * 12)))
    t = factors(plate(lambda r, c: dealt[r, c]))
    assert 'well' not in t.index and not (t.verdict == 'too high').any() and t.n['plate_row'] == 24
    blocks = confounding(plate(lambda r, c: 'CPT' if r in 'AB' else 'DMSO'))
    assert (
        not blocks.caught and 'the row of the plate' in blocks.sentences[0] and '24 of 24 wells' in blocks.sentences[0]
    )


def paper_s_classes(seed=0):
    df = photographs(n=140, seed=seed)
    return df.assign(
        line=np.array(['iPS1', 'U2OS', 'PC3', 'H9', 'MCF7', 'T47D', 'iPS2'])[np.arange(140) % 7], treatment=df.label
    )


@pytest.mark.parametrize(
    'make',
    [
        lambda d: label_by(d, ['line', 'treatment']),
        lambda d: d.assign(label=d.line + ' ' + d.treatment),
        lambda d: d.assign(label=pd.factorize(d.line + d.treatment)[0]).astype(dict(label=str)),
        lambda d: label_by(d, 'line'),
        lambda d: label_by(d.rename(columns=dict(line='clone')), ['clone', 'treatment']),
    ],
)
def test_what_the_label_is_made_of_is_no_finding(make):
    assert not confounding(make(paper_s_classes())).caught


def test_a_line_that_coincides_by_mistake_is_a_finding():
    df = paper_s_classes()
    found = confounding(df.assign(line=np.where(df.label == 'CPT', 'U2OS', 'PC3')))
    assert [o['factor'] for o in found.caught] == ['line']


@pytest.mark.parametrize('levels', [2, 5, 20, 100, 400])
@pytest.mark.parametrize('classes', [2, 3])
@pytest.mark.parametrize('share', [0, 0.5, 0.9])
def test_the_interval_of_v_holds_its_estimate_and_the_truth(levels, classes, share, draws=12):
    "Tables of which `share` is a coincidence and the rest chance; with three photographs a level at least."
    n = max(60, 3 * levels)
    p = np.full((levels, classes), (1 - share) / levels / classes)
    p[np.arange(levels), np.arange(levels) % classes] += share / levels
    e = p.sum(1, keepdims=True) * p.sum(0)
    truth = np.sqrt(((p - e) ** 2 / e).sum() / (min(p.shape) - 1))
    rng = np.random.default_rng(levels * classes)
    held = 0
    for _ in range(draws):
        counts = rng.multinomial(n, p.ravel()).reshape(p.shape)
        low, high = v_interval(counts)
        assert low <= cramers_v(counts) <= high and high - low > 0.01
        held += low - 1e-9 <= truth <= high
    assert held >= 0.75 * draws


def test_the_interval_is_never_a_point():
    for counts in ([[20, 0], [0, 20]], [[10, 10], [10, 10]], [[2, 0], [0, 1]], [[5, 0], [0, 5], [5, 0]]):
        low, high = v_interval(counts)
        assert 0 <= low < high <= 1
    assert np.isnan(v_interval([[5, 5]])).all() and np.isnan(v_interval([[5, 0], [5, 0]])).all()


names = dict(
    line=['A', 'B'],
    experiment=['N1', 'N2', 'N10'],
    well=['1', '2', 'A03'],
    hour=[0.0, 1.0],
    treatment=['CPT', 'DMSO'],
    dose_um=[0.1, 1.0],
    plate=['P1', 'P2'],
    donor=[1, 2],
)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(sorted(names))), st.integers(0, 10**6), st.floats(0, 1))
def test_columns_that_are_missing_here_and_there_stop_nothing(have, seed, missing):
    rng = np.random.default_rng(seed)
    df = photographs(48, seed)
    for c in sorted(have):
        v = pd.Series(np.array(names[c], object)[rng.integers(0, len(names[c]), 48)])
        df[c] = v.where(rng.random(48) > missing)
    found = confounding(df)
    assert (
        all(o['low'] <= o['v'] <= o['high'] for o in found)
        and found.table.verdict.isin(['fine', 'suspect', 'too high']).all()
    )


def test_quarters_begin_with_what_is_there():
    "pandas begins the first quarter a thousandth below the least number: photograph 35.999."
    df = photographs()
    found = confounding(df.assign(acquired=36.0 + np.argsort(np.argsort(df.label.to_numpy(), kind='stable'))))
    assert found.caught and found[0]['factor'] == 'acquired'
    told = found[0]['crosstab'].to_string()
    assert '36 to 59.75' in told and '35.99' not in told
