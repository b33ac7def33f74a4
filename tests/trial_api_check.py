"""The trial and the gallery, driven by their Python interface, without a browser and without pytest: for environments where little is installed, such as Colab's.

usage: python tests/trial_api_check.py
"""

import sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

CLICKS = ['CPT', 'DMSO', 'cannot tell', 'CPT', 'CPT', 'DMSO', 'DMSO', 'CPT', 'DMSO', 'CPT']


class NoiseTiles:
    "Stands for a folder of tiles."

    tile_px = (48, 64)
    um_per_px = 0.434
    fingerprint = 'feedface0123'

    def __init__(self, n=160):
        f = [f'U2_{("CPT", "DMSO")[i // 2 % 2]}1_1H_RGB_{i // 2:04}_N1.png' for i in range(n)]
        self.table = pd.DataFrame(
            dict(
                tile=[f'{a}#0,{i % 2}' for i, a in enumerate(f)],
                field=f,
                label=[('CPT', 'DMSO')[i // 2 % 2] for i in range(n)],
                um_per_px=0.434,
            )
        )

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        return np.random.default_rng(int(i)).integers(0, 255, self.tile_px).astype(np.uint8)


def states(w):
    "Every synchronized value of a widget and of what is in it, as text."
    own = {k: bytes(v) if isinstance(v, memoryview) else v for k, v in w.get_state().items()}
    return repr(own) + ''.join(states(c) for c in getattr(w, 'children', ()))


def look_for_hints(trial, tiles):
    s = states(trial.widget) + repr(trial)
    found = [x for x in [*tiles.table.field, '#0,', 'U2_', '_N1'] if x in s]
    assert not found, f'the widgets know {found[:3]}'
    shown = [c for c in ('CPT', 'DMSO') if s.count(f"'{c}'") != 1]
    assert trial.state != 'showing' or not shown, f'a class is named elsewhere than on its button: {shown}'


def run_trial(out):
    "Ten tiles, with a pause, a double click, a restart in the middle, and a simulated full stop at the end."
    from celldeath_nb.people.trials import Trial
    from celldeath_nb.people.judging import read_judgements

    tiles = NoiseTiles()
    network = tiles.table.assign(pred=tiles.table.label)
    study = dict(n=10, classes=('DMSO', 'CPT'), subject='api', out=out, min_seconds=0.3, network=network)
    make = lambda: Trial(tiles, **study)
    trial = make()
    trial.begin_button.click()
    for k, c in enumerate(CLICKS[:6]):
        look_for_hints(trial, tiles)
        trial.buttons[c].click()  # at once: the second half of a double click
        assert len(read_judgements(trial.path)) == k
        time.sleep(0.32)
        trial.buttons[c].click()
        assert len(read_judgements(trial.path)) == k + 1
        if k == 2:
            trial.pause_button.click()
            look_for_hints(trial, tiles)
            assert 'right' not in trial.result() and not trial._end.children, 'the score is told before the end'
            trial.begin_button.click()
    trial = make()
    assert trial.begin_button.description == 'Continue'
    trial.begin_button.click()
    for c in CLICKS[6:]:
        time.sleep(0.32)
        trial.buttons[c].click()
    got = read_judgements(trial.path, tiles=tiles)
    assert (
        trial.done
        and got.answer.tolist() == CLICKS
        and got.tile.tolist() == trial.design['tiles']
        and got.trial.tolist() == list(range(1, 11))
    )
    assert got.seconds.between(0.3, 60).all()
    right = int((got.answer == got.truth).sum())
    assert trial.result().right.tolist() == [right, 10]
    assert len(trial._end.children[1].children) == 10 - right and f'{right} of them rightly' in states(trial._end)
    assert make().state == 'done' and make().result().equals(trial.result())


def run_gallery(out):
    from celldeath_nb.people.trials import TrainingGallery

    gal = TrainingGallery(NoiseTiles(), n=20, subject='api', out=out)
    for b in (gal.next_button, gal.next_button, gal.back_button):
        b.click()
    gal.close_button.click()
    assert gal.viewed().times.sum() == 12


def run_comparison(out):
    from celldeath_nb.people.compare import compare_deciders
    from celldeath_nb.people.judging import judgements, simulate_observer

    t = NoiseTiles().table
    people = [simulate_observer(t, accuracy=0.6, decider=f's{i}', seed=i) for i in range(5)]
    net = t.assign(
        p_CPT=np.where(t.label == 'CPT', 0.9, 0.1), p_DMSO=np.where(t.label == 'CPT', 0.1, 0.9), split='test'
    )
    c = compare_deciders(judgements([*people, out], net), n_boot=200)
    assert len(c.deciders) == 7 and c.mixed.estimate.notna().any() and (c.group_pairs.high < 0).any()


def main():
    import IPython, ipykernel, ipywidgets

    had = 'torch' in sys.modules
    with tempfile.TemporaryDirectory() as out:
        for f in (run_trial, run_gallery, run_comparison):
            f(Path(out))
    assert had or 'torch' not in sys.modules, 'torch was imported'
    print(
        f'the trial runs on ipywidgets {ipywidgets.__version__}, IPython {IPython.__version__}, ipykernel {ipykernel.__version__}, pandas {pd.__version__}'
    )


if __name__ == '__main__':
    main()
