"Wrong labels that were planted are found, and where nothing can be told nothing is said."

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from celldeath_nb.trust.labels import out_of_fold, suspected_labels


def drawn(classes=('a', 'b', 'c'), wells=6, tiles=60, apart=3.0, wrong=0.1, seed=0):
    "A table and features of tiles, with a share of labels turned."
    rng = np.random.default_rng(seed)
    k = len(classes)
    true = np.repeat(np.arange(k), wells * tiles)
    well = np.repeat(np.arange(k * wells), tiles)
    X = apart * np.eye(5)[true] + rng.normal(0, 0.3, (k * wells, 5))[well] + rng.normal(size=(len(true), 5))
    given = true.copy()
    turned = rng.choice(len(true), round(wrong * len(true)), replace=False)
    given[turned] = (true[turned] + 1) % k
    names = np.array(classes)
    table = pd.DataFrame(
        dict(tile=np.arange(len(true)).astype(str), field=[f'f{o}' for o in well], well=[f'w{o}' for o in well])
    )
    return table.assign(label=names[given], truth=names[true]), X


def test_of_three_classes_the_right_one_is_suggested():
    table, X = drawn()
    found = suspected_labels(out_of_fold(table, X))
    wrong = found.label != found.truth
    assert (found.looks_like == found.truth)[wrong & found.suspected].mean() > 0.95
    assert roc_auc_score(wrong, found.suspicion) > 0.97
    assert found.suspected[wrong].mean() > 0.6 and found.suspected[~wrong].mean() < 0.03
    e = found.attrs['expected']
    assert e['low'] <= wrong.sum() <= e['high'] and e['told'] == 'yes'


def test_without_wrong_labels_few_are_suspected():
    table, X = drawn(apart=4, wrong=0)
    found = suspected_labels(out_of_fold(table, X))
    assert found.suspected.mean() < 0.01 and found.attrs['expected']['number'] < 3


def test_copies_in_other_photographs_of_a_well_do_not_vouch():
    "Each tile is there five times with one label, right or wrong; who learns from copies gives the label back."
    table, X = drawn(classes=('a', 'b'), wells=8, tiles=12, wrong=0.1, apart=2)
    noise = np.random.default_rng(1).normal(size=(len(X), 300))  # enough to know every tile by heart
    X = np.concatenate([X, noise], 1)
    five = pd.concat(
        [table.assign(field=[f'{o}_{i}' for o in table.tile], tile=[f'{o}_{i}' for o in table.tile]) for i in range(5)]
    )
    X = np.concatenate([X] * 5)
    by_well = suspected_labels(out_of_fold(five.reset_index(drop=True), X))
    by_field = suspected_labels(out_of_fold(five.reset_index(drop=True), X, group='field'))
    caught = lambda t: t.suspected[t.label != t.truth].mean()
    assert caught(by_field) < 0.2 < 0.5 < caught(by_well)


def test_one_class_that_cannot_be_told_means_that_nothing_is_told():
    table, X = drawn(wrong=0)
    X[table.label == 'c'] = X[table.label == 'b']
    with pytest.warns(UserWarning, match='Nothing can be told'):
        found = suspected_labels(out_of_fold(table, X))
    assert not found.suspected.any() and np.isnan(found.attrs['expected']['number'])


def test_few_tiles_are_ranked_without_a_number():
    table, X = drawn(classes=('a', 'b'), tiles=8, wrong=0.05)
    found = suspected_labels(out_of_fold(table, X))
    assert found.attrs['expected']['told'] == 'too few' and (found.label != found.truth)[:3].all()
    assert '60 tiles of each class' in found.attrs['sentence']


def test_order_of_rows_changes_nothing():
    table, X = drawn(classes=('a', 'b'), wrong=0.05)
    preds = out_of_fold(table, X)
    one = suspected_labels(preds)
    two = suspected_labels(preds.sample(frac=1, random_state=0))
    assert set(one.tile[one.suspected]) == set(two.tile[two.suspected])
    assert one.attrs['expected']['number'] == two.attrs['expected']['number']


def test_a_class_without_labels_is_never_suggested():
    table, X = drawn(classes=('a', 'b'), wrong=0.05)
    preds = out_of_fold(table, X).assign(p_c=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = suspected_labels(preds)
    assert 'c' not in set(found.looks_like[found.suspected])


def test_what_a_run_learned_from_and_a_typo_are_refused():
    table, X = drawn()
    preds = out_of_fold(table, X)
    mixed = preds.assign(split=['train', 'valid'] * (len(preds) // 2))
    with pytest.raises(ValueError, match='540 of these tiles were learned from'):
        suspected_labels(mixed)
    with pytest.raises(ValueError, match="no column 'wells'"):
        out_of_fold(table, X, group='wells')
    with pytest.raises(ValueError, match='finite numbers'):
        out_of_fold(table, np.full_like(X, np.nan))
