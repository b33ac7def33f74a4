"The epoch from which a network only learns its training tiles: found where it was planted, and nowhere else."

import numpy as np, pandas as pd, pytest

from celldeath_nb.evaluate.figures import turning_point


def history(epochs=400, turn=None, seed=0, rate=0.004, noise=0.01, floor=None):
    "A drawn history whose validation loss decays and then rises from epoch `turn` on."
    rng, e = np.random.default_rng(seed), np.arange(epochs)
    floor = 0.5 * np.exp(-e / 20) + 0.15 if floor is None else floor(e)
    valid = floor + (0 if turn is None else rate * np.maximum(e - turn, 0))
    return pd.DataFrame(
        dict(
            epoch=e,
            train_loss=0.6 * np.exp(-e / 25) + 0.05 + rng.normal(0, 0.005, epochs),
            valid_loss=valid + rng.normal(0, noise, epochs),
        )
    )


def test_the_turn_of_the_paper_is_found_in_every_history():
    "Forty histories of 400 epochs that turn at 280, as in S3B, where the lowest smoothed loss may lie anywhere on the flat stretch before."
    found = [turning_point(history(turn=280, seed=s)) for s in range(2000, 2040)]
    assert None not in found and max(abs(o - 280) for o in found) <= 8, found
    slow = [turning_point(history(turn=280, seed=s, rate=0.0005)) for s in range(2000, 2020)]
    assert None not in slow and abs(np.mean(slow) - 280) <= 5 and np.std(slow) <= 8, slow


@pytest.mark.parametrize(
    'floor',
    [
        None,
        lambda e: 0.6 * (1 + e / 5) ** -0.7 + 0.1,
        lambda e: 0.3 * np.exp(-e / 5) + 0.3 * np.exp(-e / 120) + 0.1,
        lambda e: 0.7 - 0.001 * e,
        lambda e: 0.1 + 0.3 * np.exp(-e / 15) - 0.05 * (1 - np.cos(np.pi * e / len(e))) / 2,
    ],
    ids=['decay', 'power law', 'two decays', 'line', 'one cycle'],
)
@pytest.mark.parametrize('epochs', [50, 400])
def test_what_only_falls_has_no_turn(floor, epochs):
    assert [turning_point(history(epochs, seed=s, floor=floor)) for s in range(8)] == [None] * 8


def test_spikes_gaps_and_names_of_epochs():
    h = history(turn=280, seed=5)
    spiked, gap = h.copy(), h.copy()
    spiked.loc[np.random.default_rng(5).integers(0, 400, 12), 'valid_loss'] += 1.0
    gap.loc[100:110, 'valid_loss'] = np.nan
    assert abs(turning_point(spiked) - 280) <= 4 and abs(turning_point(gap) - 280) <= 4
    assert turning_point(h.assign(epoch=h.epoch + 1)) == turning_point(h) + 1  # the name of the epoch, not its place


def test_no_turn_where_training_fails_too_or_too_little_is_left():
    h = history(turn=280, seed=1)
    assert turning_point(h.assign(train_loss=h.train_loss + 0.004 * np.maximum(h.epoch - 280, 0))) is None
    assert (
        turning_point(h[:283]) is None
        and turning_point(h[:6]) is None
        and turning_point(h.assign(valid_loss=np.nan)) is None
    )
