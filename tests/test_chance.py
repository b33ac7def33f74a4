"The rule that says whether a share is at chance: planted truths, its level, its symmetry, and the wells that it asks for."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celldeath_nb.evaluate.intervals import balanced_share
from celldeath_nb.trust.chance import FEW, chance_margin, chance_verdict, clearly_above, groups_that_tell
from celldeath_nb.trust.controls import _control_verdict

ranks = {'below chance': 0, 'at chance': 1, FEW: 1, 'above chance': 2}
shares = st.floats(0, 1)
chances = st.sampled_from([1 / k for k in range(2, 15)])


def drawn(p, wells, seed, tiles=12, spread=0.1):
    "Limits of the share that is right, of wells that differ, for a classifier that is right with probability `p`."
    rng = np.random.default_rng(seed)
    own = np.clip(rng.normal(p, spread, wells), 0, 1)
    well = np.repeat(np.arange(wells), tiles)
    truth = well % 2
    return balanced_share(truth, np.where(rng.random(len(well)) < own[well], truth, 1 - truth), well)[1:]


@settings(max_examples=60)
@given(shares, shares, st.floats(0, 0.5), chances)
def test_a_higher_interval_is_never_judged_lower(a, b, up, chance):
    low, high = sorted((a, b))
    one, two = (ranks[chance_verdict(low + d, high + d, chance, 20)] for d in (0, up))
    assert one <= two


@settings(max_examples=60)
@given(shares, shares)
def test_above_and_below_are_mirror_images(a, b):
    low, high = sorted((a, b))
    mirror = {'above chance': 'below chance', 'below chance': 'above chance'}
    one = chance_verdict(low, high, 0.5, 20)
    assert chance_verdict(1 - high, 1 - low, 0.5, 20) == mirror.get(one, one)


@settings(max_examples=60)
@given(shares, shares, shares, chances)
def test_what_cannot_be_told_is_not_told_by_a_wider_interval(a, b, more, chance):
    low, high = sorted((a, b))
    if chance_verdict(low, high, chance, 20) == FEW:
        assert chance_verdict(low - more, high + more, chance, 20) == FEW


@settings(max_examples=60)
@given(shares, shares, chances)
def test_what_condemns_is_above_chance(a, b, chance):
    low, high = sorted((a, b))
    if clearly_above(low, chance):
        assert chance_verdict(low, high, chance, 20) == 'above chance'


@settings(max_examples=60)
@given(st.integers(2, 60), st.floats(0.02, 0.4), st.floats(0.0, 0.3), chances)
def test_a_wider_interval_asks_for_more_wells(n, half, more, chance):
    ask = [groups_that_tell(chance - o, chance + o, chance, n) for o in (half, half + more)]
    assert n < ask[0] <= ask[1]


@pytest.mark.parametrize(
    'low, high, verdict',
    [
        (0.40, 0.60, 'at chance'),
        (0.39, 0.60, FEW),
        (0.41, 0.55, 'at chance'),
        (0.40, 0.55, 'at chance'),
        (0.51, 0.53, 'at chance'),
        (0.53, 0.67, 'above chance'),
        (0.56, 0.59, 'above chance'),
        (0.57, 0.70, 'above chance'),
        (0.44, 0.72, FEW),
        (0.50, 0.61, FEW),
        (0.28, 0.45, 'below chance'),
        (np.nan, np.nan, FEW),
    ],
)
def test_planted(low, high, verdict):
    assert chance_verdict(low, high, 0.5, 24) == verdict


def test_the_margin_and_the_least_groups():
    assert [chance_margin(1 / k) for k in (2, 5, 10)] == pytest.approx([0.10, 0.10, 0.05])
    assert chance_verdict(0.02, 0.15, 1 / 14, 30) == FEW, (
        'ten points more than one of fourteen is more than twice a guess'
    )
    assert [chance_verdict(0.49, 0.51, 0.5, n) for n in (2, 3, 4)] == [FEW, FEW, 'at chance']
    assert chance_verdict(0.9, 1.0, 0.5, 5, least=6) == FEW and groups_that_tell(0.0, 1.0, 0.5, 1) is None


def test_a_null_is_above_chance_no_more_often_than_the_level():
    "Half of 5 %: 300 nulls of 20 wells, and as many as the binomial law allows one time of a thousand."
    got = [chance_verdict(*drawn(0.5, 20, s), 0.5, 20) for s in range(300)]
    assert got.count('above chance') <= 17 and got.count('below chance') <= 17


def test_a_leak_is_above_chance_and_two_wells_tell_nothing():
    got = [chance_verdict(*drawn(0.8, 20, s), 0.5, 20) for s in range(20)]
    assert got == ['above chance'] * 20
    assert {chance_verdict(*drawn(p, 2, s), 0.5, 2) for p in (0.5, 0.8) for s in range(20)} == {FEW}


@pytest.mark.parametrize('wells', [4, 10])
def test_as_many_wells_as_are_asked_for_tell(wells):
    "Small sets that cannot be told name a number; sets of that size tell in eight of ten, of chance as of ten points more."
    small = [drawn(0.5, wells, s) for s in range(30)]
    named = [groups_that_tell(*o, 0.5, wells) for o in small if chance_verdict(*o, 0.5, wells) == FEW]
    assert len(named) > 15
    told = [chance_verdict(*drawn(0.5, n, 1000 + i), 0.5, n) for i, n in enumerate(named)]
    more = [chance_verdict(*drawn(0.6, n, 2000 + i), 0.5, n) for i, n in enumerate(named)]
    assert told.count('at chance') >= 0.8 * len(named) and more.count('above chance') >= 0.8 * len(named)


@pytest.mark.parametrize(
    'low, high, words',
    [
        (0.46, 0.54, 'to within 10 points'),
        (0.53, 0.67, 'no more than that is sure'),
        (0.7, 0.9, 'something other than the cells tells the classes apart.'),
        (0.2, 0.35, 'less than a guess'),
        (0.3, 0.7, '12 do not'),
    ],
)
def test_the_sentence_of_a_control(low, high, words):
    row = dict(share=(low + high) / 2, low=low, high=high, chance=0.5, groups=12, tiles=240)
    verdict, said = _control_verdict('labels shuffled', row, 'wells')
    assert words in said and f'({low:.0%} to {high:.0%}) of 240 tiles from 12 wells' in said
    assert 'passed' not in said and (verdict == FEW) == ('would tell' in said)
    if verdict == FEW:
        assert int(said.split('about ')[1].split()[0]) > 12


def test_two_wells_of_a_control_cannot_be_told():
    row = dict(share=0.5, low=0.49, high=0.51, chance=0.5, groups=2, tiles=24)
    assert _control_verdict('vehicle wells', row, 'wells')[0] == FEW
    assert 'one of the wells tells nothing' in _control_verdict('vehicle wells', dict(row, groups=1), 'wells')[1]
