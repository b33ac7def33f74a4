"What holds for every split of every table, and what is refused."
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st

from celldeath_nb.tiles.splits import check_leaks, hold_out, k_fold, leave_one_out, parse_rule, split_as_paper, split_by, split_summary
from celldeath_nb.units import group_keys


@st.composite
def tables(draw):
    "Tables of tiles with unequal numbers of experiments, photographs and tiles."
    rows = []
    for e in range(draw(st.integers(2, 4))):
        for t in ('CPT', 'DMSO', 'STS')[:draw(st.integers(2, 3))]:
            for i in range(draw(st.integers(1, 6))):
                f = f'{t}_{i}_N{e}.png'
                rows += [dict(field=f, tile=f'{f}#0,{k}', label=t, treatment=t, line=('A', 'B')[i % 2], hour=float(i % 2), experiment=f'N{e}', well=str(i//3))
                         for k in range(draw(st.integers(1, 5)))]
    return pd.DataFrame(rows)


def tried(*args, **kw):
    "The split, or nothing where the table is refused with a reason."
    try: return split_by(*args, **kw)
    except ValueError as e:
        assert len(str(e)) > 40
        assume(False)


quick = settings(max_examples=60, deadline=None)


@quick
@given(tables(), st.sampled_from(['field', 'well', 'experiment']), st.floats(.15, .6), st.integers(0, 9), st.booleans())
def test_no_group_parts_and_every_class_is_on_both_sides(df, group, valid, seed, hold):
    s = tried(df, 'experiment=N0' if hold else None, valid, group=group, seed=seed)
    check_leaks(s, group)
    check_leaks(s, 'field')
    assert (s.groupby(group_keys(s, group)).split.nunique() == 1).all()
    for side in ('train', 'valid'): assert set(s[s.split == side].label) == set(df.label)
    assert set(s[s.split == 'test'].experiment) == ({'N0'} if hold else set())
    rest = s[s.split != 'test']
    assert abs((rest.split == 'valid').mean() - valid) <= .2 + 1e-9
    assert (s.drop(columns='split') == df).all().all()


@quick
@given(tables(), st.integers(0, 9))
def test_order_of_rows_does_not_matter(df, seed):
    a = tried(df, seed=seed)
    b = split_by(df.sample(frac=1, random_state=seed), seed=seed).sort_index()
    assert a.split.tolist() == b.split.tolist()


@quick
@given(tables(), st.data())
def test_a_single_moved_tile_is_found(df, data):
    s = tried(df)
    big = s[s.groupby('field').tile.transform('size') > 1]
    assume(len(big))
    i = data.draw(st.sampled_from(big.index.tolist()))
    s.loc[i, 'split'] = 'valid' if s.loc[i, 'split'] == 'train' else 'train'
    with pytest.raises(ValueError) as e: check_leaks(s)
    assert s.loc[i, 'field'] in str(e.value)


@quick
@given(tables(), st.integers(2, 4))
def test_k_fold_is_a_partition(df, k):
    try: folds = k_fold(df, k)
    except ValueError: assume(False)
    assert sorted(t for f in folds for t in f[f.split == 'valid'].tile) == sorted(df.tile)
    for f in folds: check_leaks(f)


@quick
@given(tables())
def test_summary_adds_up(df):
    s = tried(df, 'experiment=N0')
    last = split_summary(s).iloc[-1]
    assert {o: last[f'{o}_tiles'] for o in ('train', 'valid', 'test')} == s.split.value_counts().to_dict()
    assert {o: last[f'{o}_fields'] for o in ('train', 'valid', 'test')} == s.groupby('split').field.nunique().to_dict()


def test_equal_groups_give_the_exact_share():
    df = pd.DataFrame([dict(field=f'{t}{i}', label=t, experiment=f'N{i%4}') for t in 'ab' for i in range(40) for _ in range(4)])
    for seed in range(20):
        s = split_by(df, 'experiment=N3', .3, seed=seed)
        assert s[s.split == 'valid'].groupby('label').field.nunique().tolist() == [9, 9]


def test_draws_are_fair():
    "Every photograph is in validation about equally often."
    df = pd.DataFrame([dict(field=f'{t}{i}', label=t) for t in 'ab' for i in range(10)])
    n = sum((split_by(df, valid=.3, seed=s).split == 'valid').to_numpy().astype(int) for s in range(200))
    assert abs(n/200 - .3).max() < .14


@pytest.fixture
def df():
    return pd.DataFrame([dict(field=f'{t}{i}_N{e}', tile=f'{t}{i}_N{e}#0,{k}', label=t, treatment=t, hour=float(i % 2), experiment=f'N{e}', well=str(i//2))
                         for e in (1, 2) for t in ('CPT', 'DMSO') for i in range(4) for k in range(2)])


@pytest.mark.parametrize('change,kw,words', [
    (lambda d: d, dict(test='experiment=N9'), ['N9', 'N1 (16 tiles), N2 (16 tiles)']),
    (lambda d: d, dict(test='plate=1'), ['plate', 'field, tile, label']),
    (lambda d: d, dict(test='N9'), ['COLUMN=VALUE']),
    (lambda d: d, dict(test='hour=one'), ["no hour 'one'", '0.0']),
    (lambda d: d, dict(group='plate'), ['plate']),
    (lambda d: d.drop(columns='field'), {}, ["'field'"]),
    (lambda d: d.drop(columns='label'), {}, ["'label'"]),
    (lambda d: d.assign(field=d.field.where(d.field != 'CPT0_N1')), {}, ["2 of 32 tiles have no 'field'"]),
    (lambda d: d[d.label == 'CPT'], {}, ['one class only (CPT)']),
    (lambda d: d[(d.label == 'CPT') | (d.field == 'DMSO0_N1')], {}, ['DMSO comes from 1 field only', 'hotograph']),
    (lambda d: d[(d.label == 'CPT') == (d.experiment == 'N1')], dict(group='experiment'), ['CPT comes from 1 experiment only']),
    (lambda d: d[(d.label == 'CPT') == (d.experiment == 'N1')], dict(test='experiment=N1'), ['one class only (DMSO)', 'experiment=N1']),
    (lambda d: d[d.experiment == 'N1'], dict(group='experiment', stratify=None), ['one experiment only', 'N1']),
    (lambda d: d[d.experiment == 'N1'], dict(test='experiment=N1'), ['none is left']),
    (lambda d: d.assign(field=np.where(d.field == 'CPT0_N1', 'small', 'big')), dict(stratify=None), ['cannot be split off', 'big']),
    (lambda d: d, dict(valid=0), ['between 0 and 1']),
    (lambda d: d, dict(valid=1.5), ['between 0 and 1']),
    (lambda d: d.iloc[:0], {}, ['no rows']),
])
def test_refused(df, change, kw, words):
    with pytest.raises(ValueError) as e: split_by(change(df), **kw)
    for w in words: assert w in str(e.value)


def test_rules():
    assert parse_rule('experiment=N3, line=PC3') == dict(experiment=['N3'], line=['PC3'])
    assert parse_rule({'hour': (1, 2)}) == dict(hour=[1, 2])
    for bad in ('', 'a', 'a=', '=b', 'a=b,c'):
        with pytest.raises(ValueError): parse_rule(bad)


def test_held_out_line_may_not_cut_wells_or_experiments(df):
    with pytest.raises(ValueError, match='experiment'): split_by(df, test='hour=1', group='experiment')


def test_leave_one_out_and_paper(df):
    assert {k: set(v[v.split == 'test'].experiment) for k, v in leave_one_out(df).items()} == dict(N1={'N1'}, N2={'N2'})
    with pytest.raises(ValueError, match='one experiment only'): split_as_paper(df[df.experiment == 'N1'])
    leaky = split_as_paper(df, leaky=True)
    assert set(leaky[leaky.split == 'test'].experiment) == {'N2'}
    with pytest.raises(ValueError, match='two sides'): check_leaks(leaky)


def test_a_table_without_a_split(df):
    with pytest.raises(ValueError, match="no column 'split'"): check_leaks(df)
    with pytest.raises(ValueError, match="no column 'split'"): split_summary(df)


def test_a_test_set_is_found(df):
    s, what = hold_out(df)
    assert what == 'experiment=N2' and set(s[s.split == 'test'].experiment) == {'N2'}
    few = df[~((df.experiment == 'N2') & (df.label == 'CPT') & ~df.field.str.startswith('CPT0'))]
    assert 'drawn by chance' in hold_out(few)[1] # one photograph of a class is no examination, and N2 alone cannot be learned from
    assert 'drawn by chance' in hold_out(df[df.experiment == 'N1'])[1]
    assert 'test' not in set(hold_out(df, 'none')[0].split) and hold_out(df, {'experiment': 'N1'})[1] == 'experiment=N1'
    with pytest.raises(ValueError, match='one class only'): hold_out(df[df.label == 'CPT'])


def test_a_rule_that_cuts_through_one_place_says_what_to_do(df):
    place = df.field.where(~df.field.isin(['CPT0_N1', 'CPT0_N2']), 'CPT0_N1')
    with pytest.raises(ValueError) as e: split_by(df.assign(place=place), test='experiment=N2', group='place')
    assert 'CPT0_N1 (test and' in str(e.value) and 'leave some of them out' in str(e.value)
    s = split_by(df.assign(place=place), valid=.4, group='place')
    check_leaks(s, 'place', pd.DataFrame(dict(tile_a=['CPT0_N1#0,0'], tile_b=['CPT0_N2#0,1'])))
