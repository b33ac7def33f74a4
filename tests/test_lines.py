"A threshold that is moved for a new line is found where it was planted, and judged on what did not move it."

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from celldeath_nb.evaluate.scores import metrics
from celldeath_nb.trust.lines import own_line


def drawn(wells=3, fields=3, tiles=8, skill=2.0, shift=1.0, line='H9', seed=0, classes=('CPT', 'DMSO')):
    "Predictions of so many wells a class, with all log-odds of the first class shifted."
    rng = np.random.default_rng(seed)
    n = wells * fields * tiles
    c = np.repeat([0, 1], n)
    f = np.repeat(np.arange(2 * wells * fields), tiles)
    z = np.where(c == 0, skill, -skill) + shift + rng.normal(0, 0.3, 2 * wells)[f // fields] + rng.normal(0, 1.4, 2 * n)
    df = pd.DataFrame(
        dict(label=np.array(classes)[c], well=[f'W{o // fields}' for o in f], field=[f'f{o}.png' for o in f])
    )
    df['tile'] = df.field + '#' + pd.Series(np.arange(2 * n) % tiles).astype(str) + ',0'
    return df.assign(**{'line': line, f'p_{classes[0]}': expit(z), f'p_{classes[1]}': 1 - expit(z)})


def test_the_order_of_rows_changes_nothing():
    one = own_line(drawn(), known=[], n_boot=50)
    two = own_line(drawn().sample(frac=1, random_state=0), known=[], n_boot=50)
    assert np.isclose(one.threshold, two.threshold) and np.isclose(one.limits[0], two.limits[0], atol=0.05)


def test_where_nothing_is_told_moving_gains_nothing():
    "On the same tiles a moved threshold is always a bit better; left out in turns, it is not."
    gains = [own_line(drawn(skill=0.05, shift=0, seed=s), known=[], n_boot=20) for s in range(16)]
    assert np.mean([o.table.moved.accuracy for o in gains]) < 0.55
    assert sum(o.gain[1] > 0 for o in gains) <= 2


def test_an_order_that_may_be_chance_is_said():
    weak = own_line(drawn(wells=2, skill=0.15, shift=0, seed=3), known=[], n_boot=20)
    assert weak.threshold is None or 'at all cannot be told' in weak.notes[0]
    assert not any('at all' in o for o in own_line(drawn(), known=[], n_boot=20).notes)


def test_a_shift_either_way_is_mended_and_no_shift_is_left():
    for shift in (-2, 2):
        found = own_line(drawn(shift=shift), known=[], n_boot=50)
        assert abs(logit(float(found.threshold)) - shift) < 0.6
        assert (
            found.table.moved.accuracy > found.table['as it comes'].accuracy + 0.1
            and 'That is better.' in found.sentence
        )
    still = own_line(drawn(shift=0), known=[], n_boot=50)
    assert abs(still.gain[0]) < 0.05 and 'cannot be told' in still.sentence


def test_sure_probabilities_stay_finite():
    df = drawn()
    df['p_CPT'] = (df.p_CPT > 0.5).astype(float)
    df['p_DMSO'] = 1 - df.p_CPT
    found = own_line(df, known=[], n_boot=50)
    assert np.isfinite(found.table.to_numpy()).all() and 0 < found.threshold < 1
    perfect = drawn(skill=20)
    assert own_line(perfect, known=[], n_boot=50).table.moved.accuracy == 1


def test_the_threshold_serves_metrics_and_apply_gives_the_same():
    found = own_line(drawn(), known=[], n_boot=50)
    later = drawn(seed=5).assign(note='kept')
    moved = found.apply(later)
    assert (moved.note == 'kept').all() and 'pred' not in later
    assert metrics(later, threshold=found.threshold)['accuracy'] == (moved.pred == moved.label).mean()
    assert metrics(moved)['log_loss'] < metrics(later)['log_loss']
    with pytest.raises(ValueError, match='was moved for'):
        found.apply(drawn(classes=('STS', 'DMSO')))


def test_a_model_is_asked_and_tells_what_it_knows(monkeypatch):
    import celldeath_nb.learn.prediction as prediction

    monkeypatch.setattr(prediction, 'predict', lambda model, wells, device=None: wells)
    model = SimpleNamespace(info=dict(seen=dict(line=['H9', 'MCF7'])))
    said = own_line(model, drawn(), n_boot=20)
    assert any('no new line' in o for o in said.notes)
    run = SimpleNamespace(model=model)
    assert not any('no new line' in o for o in own_line(run, drawn(line='PC3'), n_boot=20).notes)
    with pytest.raises(ValueError, match='needs the labeled wells'):
        own_line(model)


def test_names_that_do_not_tell_the_effect_are_asked_for():
    df = drawn(classes=('a', 'b'))
    with pytest.raises(ValueError, match="positive='a' or positive='b'"):
        own_line(df)
    assert own_line(df, positive='a', n_boot=20).classes == ('a', 'b')


def test_an_unnamed_line_and_unknown_training_are_said():
    found = own_line(drawn().drop(columns='line'), n_boot=20)
    assert any('the table does not say' in o for o in found.notes)
    assert any('is not known here' in o for o in own_line(drawn(), n_boot=20).notes)


def test_several_lines_need_a_name_and_the_named_one_is_taken():
    both = pd.concat([drawn(), drawn(line='PC3', shift=-2, seed=1)], ignore_index=True)
    with pytest.raises(ValueError, match='Name one'):
        own_line(both)
    assert logit(float(own_line(both, line='PC3', known=[], n_boot=20).threshold)) < -1
