"One notion of a well, natural order, and rules: what every other room leans on."

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from celldeath_nb.evaluate.preds import to_level
from celldeath_nb.evaluate.scores import metrics
from celldeath_nb.trust.checks import shuffle_labels
from celldeath_nb.units import WELL_COLUMNS, group_keys, natural_key, parse_rule, table_of, unit_ids, which_tiles

quick = settings(max_examples=80, deadline=None)


def plates():
    "Two plates, four wells on each, two photographs of each well."
    rows = [
        dict(plate=p, well=w, treatment=t, label=t, field=f'{p}_{w}_{s}.png', tile=f'{p}_{w}_{s}.png#0,0')
        for p in ('P1', 'P2')
        for w, t in (('A01', 'drug'), ('A02', 'drug'), ('B01', 'DMSO'), ('B02', 'DMSO'))
        for s in range(2)
    ]
    return pd.DataFrame(rows).assign(p_drug=0.6, p_DMSO=0.4)


def test_wells_of_two_plates_are_two_wells_wherever_they_are_counted():
    t = plates()
    assert group_keys(t, 'well').nunique() == 8
    assert len(set(unit_ids(t, 'well'))) == len(to_level(t, 'well')) == 8
    assert metrics(t, n_boot=10).counts['wells'] == 8


class Store:
    def __init__(self, table):
        self.table = table

    def add(self, **cols):
        return Store(self.table.assign(**cols))


def paper():
    "The paper's names: wells are numbered anew for each line, treatment and experiment."
    rows = [
        dict(line=l, treatment=t, label=t, experiment=e, well=w, field=f'{l}_{t}{w}_{s}_{e}.png')
        for l in ('U2OS', 'MCF7')
        for t in ('CPT', 'DMSO')
        for e in ('N1', 'N2')
        for w in ('1', '2')
        for s in range(2)
    ]
    return pd.DataFrame(rows).assign(tile=lambda d: d.field + '#0,0')


def test_maps_count_the_wells_that_splits_and_evaluation_count():
    from celldeath_nb.trust.checks import _by_class

    t = paper().assign(share=0.5 + 0.1 * np.random.default_rng(0).random(32))
    table = _by_class(t, ['share'], 'well')
    assert table.set_index('label').wells.to_dict() == dict(CPT=8, DMSO=8, all=16)
    assert group_keys(t, 'well').nunique() == len(set(unit_ids(t, 'well'))) == 16


def test_labels_can_be_shuffled_among_the_wells_of_the_paper():
    mixed = shuffle_labels(Store(paper()), unit='well', seed=1).table
    assert (mixed.groupby(group_keys(mixed, 'well')).label.nunique() == 1).all()
    assert sorted(mixed.label) == sorted(mixed.true_label) and (mixed.label != mixed.true_label).any()
    with pytest.raises(ValueError, match='several labels'):
        shuffle_labels(Store(paper()), unit='experiment')


@pytest.mark.parametrize(
    'names, n',
    [
        (['A1', 'A01', 'a01', 'A-1', 'A 01', 'A001'], 1),
        (['1', '01', 1, 1.0, '1.0'], 1),
        (['A1', 'A10', 'A11', 'B1', 'AA1'], 5),
        (['left', 'right'], 2),
    ],
)
def test_a_well_is_known_in_every_spelling(names, n):
    t = pd.DataFrame(dict(well=pd.Series(names, dtype=object), label='x', p_x=1.0))
    assert group_keys(t, 'well').nunique() == len(set(unit_ids(t, 'well'))) == len(to_level(t, 'well')) == n


cell = st.sampled_from(['', 'P1', 'P2', 'N1 U2OS', 'N1', 'U2OS', "'", None])


@quick
@given(st.lists(st.tuples(*[cell] * 4, st.sampled_from([None, 0.1, 1.0]), st.sampled_from(['1', 'A1'])), min_size=1))
def test_two_wells_never_read_the_same(rows):
    t = pd.DataFrame(rows, columns=WELL_COLUMNS)
    different = len(t.astype(object).where(t.notna(), None).drop_duplicates())
    assert len(set(unit_ids(t, 'well'))) == group_keys(t, 'well').nunique() == different


@quick
@given(st.permutations(range(16)), st.sampled_from(['well', 'field']))
def test_numbers_of_units_follow_names_and_not_rows(order, level):
    t = plates()
    assert (unit_ids(t.iloc[order], level) == unit_ids(t, level)[list(order)]).all()


def test_rows_without_a_well_are_one_well_in_evaluation_and_refused_in_a_split():
    t = plates().assign(well=lambda d: d.well.where(d.index > 1))
    assert len(set(unit_ids(t, 'well'))) == 8
    with pytest.raises(ValueError, match='some photographs name their well'):
        group_keys(t, 'well')
    with pytest.raises(ValueError, match='In this table some'):
        group_keys(t[['well']], 'well')


def test_a_column_called_table_is_a_column():
    t = plates().assign(table=1)
    assert table_of(t) is t and group_keys(t, 'table').nunique() == 1 and table_of(Store(t)) is t


@quick
@given(st.lists(st.one_of(st.integers(0, 200).map(lambda i: f'N{i}'), st.integers(0, 200), st.none()), max_size=20))
def test_natural_order_is_an_order(values):
    got = sorted(values, key=natural_key)
    assert got == sorted(values[::-1], key=natural_key)
    named = [int(o[1:]) for o in got if isinstance(o, str)]
    assert named == sorted(named)


def test_names_are_counted_as_people_count():
    for last, names in (
        ('N11', [f'N{i}' for i in range(1, 12)]),
        ('day 10', ['day 9', 'day 10', 'Day 1']),
        ('B10', ['B02', 'B2', 'B10', 'A12']),
        ('É3', ['e1', 'É3', 'E2']),
    ):
        assert max(names, key=natural_key) == last


def test_rules():
    assert parse_rule('experiment=N3, line=PC3') == dict(experiment=['N3'], line=['PC3'])
    assert parse_rule('experiment=N3,experiment=N4') == dict(experiment=['N3', 'N4'])
    assert parse_rule({'hour': (1, 2)}) == dict(hour=[1, 2])
    assert parse_rule('label=CPT, 5 uM') == dict(label=['CPT, 5 uM'])  # a comma within a value is the value's
    for bad in ('', 'a', 'a=', '=b'):
        with pytest.raises(ValueError):
            parse_rule(bad)


def test_what_a_rule_finds():
    t = plates().assign(hour=[1.0, np.nan] * 8, seen=[True, False] * 8, experiment=['N1', 'N10', 'n2', None] * 4)
    assert which_tiles(t, 'well=a1').sum() == 4
    assert which_tiles(t, 'hour=1').sum() == 8
    assert which_tiles(t, 'seen=True').sum() == 8
    assert which_tiles(t, 'experiment=N2,experiment=N01').sum() == 8
    assert which_tiles(Store(t), 'plate=P1,experiment=N1').sum() == 2
    assert which_tiles(t.astype(dict(plate='category')), 'plate=P2').sum() == 8
    for rule in ('experiment=None', 'experiment=nan', 'hour=nan', 'hour=2', 'plate=P'):
        with pytest.raises(ValueError, match='There is no'):
            which_tiles(t, rule)
