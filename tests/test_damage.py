"""Every byte of a store, a run, a model and of what is unfinished may be flipped or zeroed, and every word of their
pages may be a stranger's: refused or passed over with a sentence, never another result.

The attacks are those of `benchmarks/attack.py`, which makes more of them. 2,000 damages are made here, in about 45
seconds on one core."""

import importlib.util
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location('attack', root / 'benchmarks' / 'attack.py')
attack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(attack)
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return attack.make(tmp_path_factory.mktemp('made') / 'made')


tries = dict(store=600, model=500, run=200, training=400, prediction=250, slicing=50)


def test_two_thousand():
    assert sum(tries.values()) == 2000 and list(tries) == list(attack.uses)


@pytest.mark.parametrize('kind', list(tries))
def test_no_damage_gives_another_result(kind, made, tmp_path):
    score = attack.flips(kind, made, tmp_path, tries[kind])
    assert score.broken == [] and score.held == tries[kind]
    assert kind in attack.goes_on or score.refused > tries[kind] / 4, 'damage must be seen'


def test_a_reader_that_does_not_look_is_found_out(made, tmp_path, monkeypatch):
    monkeypatch.setitem(attack.uses, 'store', lambda d: (d / 'pixels.u8').read_bytes())
    score = attack.flips('store', made, tmp_path, 60)
    assert score.broken and 'another result' in score.broken[0]


@pytest.mark.parametrize('kind', list(attack.pages))
def test_no_page_of_a_stranger_does_more_than_be_refused(kind, made, tmp_path):
    score = attack.strangers(kind, made, tmp_path, 20 if kind in ('store', 'slicing') else 40)
    assert score.broken == []
    assert kind == 'slicing' or score.refused > score.tried / 4


def looks_elsewhere(d):
    next((d.parent / 'outside').iterdir()).read_bytes()


@pytest.mark.parametrize('use', [lambda d: {}['no such key'], looks_elsewhere])
def test_a_reader_that_trusts_is_found_out(use, made, tmp_path, monkeypatch):
    calls = []
    trusts = lambda d: calls.append(1) or (use(d) if len(calls) > 1 else None)
    monkeypatch.setitem(attack.pages, 'model', (['model.json'], trusts))
    assert len(attack.strangers('model', made, tmp_path, 3).broken) == 3
