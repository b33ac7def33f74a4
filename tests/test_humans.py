"Trials that lose nothing, and comparisons that equal the published ones: what does not teach."

import csv, os, signal, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as sm_fleiss

import trial_api_check
import celldeath_nb.people.trials as people_trials
import celldeath_nb.people.compare as people_compare
import celldeath_nb.people.judging as people_judging
import celldeath_nb.people.plans as people_plans
from celldeath_nb.people.judging import JUDGEMENT_COLUMNS, CANNOT_TELL, judgements, read_judgements, simulate_observer
from celldeath_nb.people.trials import Trial, TrainingGallery, draw_tiles
from celldeath_nb.people.compare import (
    compare_deciders,
    consistency_table,
    decider_table,
    fleiss_kappa,
    missed_table,
    mixed_table,
)
from celldeath_nb.people.plans import detectable, plan_trial
from celldeath_nb.people.figures import plot_consistency, plot_deciders, plot_tiles
from trial_api_check import NoiseTiles

slow = pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'), reason='slow: thousands of simulated trials; set CELLDEATH_SLOW=1'
)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_windows():
    import matplotlib

    matplotlib.use('agg')
    yield
    matplotlib.pyplot.close('all')


def table(n=60, classes=('CPT', 'DMSO'), prefix='p'):
    return pd.DataFrame(
        dict(
            tile=[f'{prefix}{i:04}.png#0,0' for i in range(n)],
            field=[f'{prefix}{i:04}.png' for i in range(n)],
            label=np.array(classes)[np.arange(n) % len(classes)],
        )
    )


def observer(name='s1', n=60, accuracy=0.6, seed=0, **kw):
    return simulate_observer(table(n), accuracy=accuracy, decider=name, seed=seed, **kw)


# ---- the trial by its interface


def test_the_trial_as_colab_drives_it(capsys):
    trial_api_check.main()
    assert 'the trial runs on ipywidgets' in capsys.readouterr().out


def test_importing_humans_is_light():
    code = "import sys; from celldeath_nb.people import compare, figures, judging, plans, trials; bad = {'torch', 'fastai', 'ipywidgets', 'statsmodels', 'sklearn'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env=os.environ | dict(PYTHONPATH=str(ROOT)))


KILLED = """
import sys, time
sys.path[:0] = [{root!r}, {root!r}+'/tests']
from trial_api_check import NoiseTiles
from celldeath_nb.people.trials import Trial
t = Trial(NoiseTiles(), n=40, subject='k', out={out!r}, min_seconds=0)
t.begin_button.click()
print('ready', flush=True)
while not t.done: t.buttons['CPT'].click(); print(t._k, flush=True)
"""


def test_a_killed_kernel_loses_no_answer(tmp_path):
    p = subprocess.Popen(
        [sys.executable, '-c', KILLED.format(root=str(ROOT), out=str(tmp_path))], stdout=subprocess.PIPE, text=True
    )
    seen = 0
    for line in p.stdout:
        if line.strip().isdigit():
            seen = int(line)
        if seen >= 7:
            p.send_signal(signal.SIGKILL)
            break
    p.wait()
    rows = read_judgements(tmp_path / 'k_pre.csv')
    assert len(rows) >= seen
    t = Trial(NoiseTiles(), n=40, subject='k', out=tmp_path, min_seconds=0)
    assert t._k == len(rows) and t.begin_button.description == 'Continue'
    t.begin()
    while not t.done:
        t.answer('DMSO')
    got = read_judgements(t.path)
    assert got.tile.tolist() == t.design['tiles'] and got.trial.tolist() == list(range(1, 41))


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_goes_on(cut):
    import tempfile

    with tempfile.TemporaryDirectory() as d:
        t = Trial(NoiseTiles(), n=4, subject='c', out=d, kind='simulated')
        for a in ('CPT', 'DMSO', 'CPT'):
            t.answer(a, 1.0)
        data = t.path.read_bytes()
        head = len(people_trials._line(JUDGEMENT_COLUMNS))
        cut = max(head, len(data) - cut)
        t.path.write_bytes(data[:cut])
        whole = data[:cut].count(b'\n') - 1
        t = Trial(NoiseTiles(), n=4, subject='c', out=d, kind='simulated')
        assert t._k == whole and t.path.read_bytes() == data[:cut][: data[:cut].rfind(b'\n') + 1]
        while not t.done:
            t.answer('CPT', 1.0)
        assert len(read_judgements(t.path)) == 4


def test_a_full_disk_says_so_and_asks_again(tmp_path, monkeypatch):
    t = Trial(NoiseTiles(), n=4, subject='d', out=tmp_path, min_seconds=0)
    t.begin()
    t.buttons['CPT'].click()
    before = t.path.read_bytes()
    write = os.write

    def half(fd, data):
        if len(data) > 20:
            return write(fd, bytes(data[:20]))
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(people_trials.os, 'write', half)
    t.buttons['DMSO'].click()
    assert t.path.read_bytes() == before and t._k == 1 and 'No space left' in t._note.value and t.state == 'showing'
    monkeypatch.undo()
    t.buttons['DMSO'].click()
    assert t._k == 2 and not t._note.value and read_judgements(t.path).answer.tolist() == ['CPT', 'DMSO']


def test_a_removed_file_is_not_made_anew(tmp_path):
    t = Trial(NoiseTiles(), n=4, subject='d', out=tmp_path, min_seconds=0)
    t.begin()
    t.path.unlink()
    t.buttons['CPT'].click()
    assert 'was not written' in t._note.value and not t.path.exists()


def test_two_windows_write_no_answer_twice(tmp_path):
    a, b = [Trial(NoiseTiles(), n=4, subject='w', out=tmp_path, min_seconds=0) for _ in range(2)]
    a.begin(), b.begin()
    a.buttons['CPT'].click()
    b.buttons['DMSO'].click()
    assert 'goes on somewhere else' in b._note.value and len(read_judgements(a.path)) == 1


class Names(NoiseTiles):
    "Tiles whose names are an attack, or merely awkward."

    def __init__(self):
        super().__init__()
        bad = [
            '=cmd|calc',
            '+1',
            '-2',
            '@x',
            'a,b',
            'a"b',
            "it's",
            'tab\tin',
            'new\nline',
            '<script>',
            'é ü',
            'NA',
            "'quoted",
        ]
        f = [bad[i] if i < len(bad) else f for i, f in enumerate(self.table.field)]
        self.table = self.table.assign(field=f, tile=[f'{a}#0,{i}' for i, a in enumerate(f)])


def test_awkward_names_come_back_as_they_are(tmp_path):
    tiles = Names()
    tiles.table = tiles.table[:13].reset_index(drop=True).assign(label=['CPT', 'DMSO'] * 6 + ['CPT'])
    t = Trial(tiles, n=4, subject='n', out=tmp_path, sessions=('pre',), kind='simulated')
    while not t.done:
        t.answer('CPT', 1.0)
    got = read_judgements(t.path, tiles=tiles)
    assert got.tile.tolist() == t.design['tiles']
    with open(t.path, encoding='utf-8', newline='') as f:
        assert not any(c.startswith(('=', '+', '-', '@')) for r in csv.reader(f) for c in r)


def test_classes_called_na_stay_classes(tmp_path):
    tiles = NoiseTiles()
    tiles.table = tiles.table.assign(label=tiles.table.label.map({'CPT': 'NA', 'DMSO': 'null'}))
    t = Trial(tiles, n=4, subject='n', out=tmp_path, min_seconds=0)
    t.begin()
    for c in ('NA', 'null', 'NA', 'null'):
        t.buttons[c].click()
    assert decider_table(judgements(tmp_path)).n.tolist() == [4]


@pytest.mark.parametrize(
    'change, says',
    [
        (dict(n=6), 'n 4 there, 6 now'),
        (dict(seed=3), 'seed 0 there, 3 now'),
        (dict(classes=('DMSO', 'CPT')), 'classes'),
        (dict(kind='simulated'), 'kind'),
        (dict(cannot_tell=False), 'cannot_tell'),
    ],
)
def test_a_trial_that_exists_is_not_overwritten(tmp_path, change, says):
    args = dict(n=4, classes=('CPT', 'DMSO'), subject='x', out=tmp_path)
    t = Trial(NoiseTiles(), **args, min_seconds=0)
    t.answer('CPT')
    files = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=says):
        Trial(NoiseTiles(), **(args | change))
    assert files == {p: p.read_bytes() for p in tmp_path.iterdir()}


def test_what_a_trial_refuses(tmp_path):
    tiles = NoiseTiles()

    def bad(says, exc=ValueError, tiles=tiles, **kw):
        with pytest.raises(exc, match=says):
            Trial(tiles, **(dict(n=4, subject='x', out=tmp_path) | kw))

    mixed = NoiseTiles()
    mixed.table = mixed.table.assign(um_per_px=np.where(mixed.table.label == 'CPT', 0.4, 0.8))
    bad('different pixel sizes', tiles=mixed)
    bad('were asked for', n=500)
    bad('none of', session='later')
    bad('no column `split`', split='test')
    bad('letters, digits and hyphens', subject='a/b')
    bad('letters, digits and hyphens', subject='')
    bad('kind', kind='alien')
    bad("labeled \\['DMSO'\\]", classes=('CPT', 'STS'))
    half = NoiseTiles()
    half.table = half.table.assign(label=half.table.label.where(half.table.index > 3, None))
    bad('4 tiles have no label', tiles=half)
    assert not list(tmp_path.iterdir()), 'a refused trial left something behind'
    (tmp_path / 'x_pre.csv').write_text('mine')
    bad('design', FileExistsError)
    assert (tmp_path / 'x_pre.csv').read_text() == 'mine'


def test_answers_out_of_order_and_lost_tiles_are_refused(tmp_path):
    t = Trial(NoiseTiles(), n=4, subject='o', out=tmp_path, min_seconds=0)
    for c in ('CPT', 'DMSO'):
        t.answer(c, 1.0)
    lines = t.path.read_text().splitlines(True)
    t.path.write_text(''.join([lines[0], lines[2], lines[1]]))
    with pytest.raises(ValueError, match='do not follow the order'):
        Trial(NoiseTiles(), n=4, subject='o', out=tmp_path)
    t.path.write_text(''.join(lines + [lines[1]]))
    with pytest.raises(ValueError, match='trial is there twice'):
        Trial(NoiseTiles(), n=4, subject='o', out=tmp_path)
    few = NoiseTiles()
    few.table = few.table[~few.table.tile.isin(t.design['tiles'][:1])].reset_index(drop=True)
    with pytest.raises(ValueError, match='not in the store'):
        Trial(few, n=4, subject='o', out=tmp_path)


def test_truth_follows_no_pattern(tmp_path):
    "A balanced order that can be guessed from the order alone would be a hint."
    runs = []
    for i in range(60):
        t = Trial(NoiseTiles(), n=20, subject=f's{i}', out=tmp_path)
        y = np.array(t._truth) == 'CPT'
        assert y.sum() == 10
        runs.append((y[1:] != y[:-1]).sum())
    assert abs(np.mean(runs) - 10) < 1 and np.std(runs) > 1.5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 16), shuffle=st.integers(0, 5))
def test_sessions_and_gallery_never_share_a_photograph(seed, n, shuffle):
    tiles = NoiseTiles()
    tiles.table = tiles.table.assign(split=np.where(np.arange(len(tiles)) // 4 % 5 == 0, 'train', 'test'))
    use = {s: draw_tiles(tiles, n, s, seed=seed) for s in ('pre', 'post', 'gallery')}
    fields = [set(tiles.table.field[i]) for i in use.values()]
    assert sum(map(len, fields)) == len(set().union(*fields))
    assert not {f for f in set().union(*fields) if f in set(tiles.table.field[tiles.table.split == 'train'])}
    for i in use.values():
        assert len(set(i)) == n and abs(2 * (tiles.table.label[i] == 'CPT').sum() - n) <= 1
    other = NoiseTiles()
    other.table = tiles.table.sample(frac=1, random_state=shuffle).reset_index(drop=True)
    same = set(other.table.field[draw_tiles(other, n, 'pre', seed=seed)])
    assert not same & fields[1] and not same & fields[2], 'the deal depends on the order of the table'


def test_another_seed_for_the_same_person_shows_nothing_twice(tmp_path):
    a = Trial(NoiseTiles(), n=20, session='pre', subject='s', seed=0, out=tmp_path)
    g = TrainingGallery(NoiseTiles(), n=20, subject='s', seed=1, out=tmp_path)
    b = Trial(NoiseTiles(), n=16, session='post', subject='s', seed=2, out=tmp_path)
    pics = [{t.rpartition('#')[0] for t in o.design['tiles']} for o in (a, g, b)]
    assert not pics[0] & pics[1] and not pics[0] & pics[2] and not pics[1] & pics[2]


def test_all_subjects_judge_the_same_tiles_whatever_they_did_before(tmp_path):
    a = [Trial(NoiseTiles(), n=16, session=s, subject='a', out=tmp_path) for s in ('pre', 'post')]
    TrainingGallery(NoiseTiles(), n=20, subject='a', out=tmp_path)
    b = [Trial(NoiseTiles(), n=16, session=s, subject='b', out=tmp_path) for s in ('post', 'pre')][::-1]
    for x, y in zip(a, b):
        assert set(x.design['tiles']) == set(y.design['tiles']) and x.design['tiles'] != y.design['tiles']


def test_the_gallery_closes_in_time(tmp_path):
    g = TrainingGallery(NoiseTiles(), n=12, subject='g', out=tmp_path, minutes=1e-9)
    g.next_button.click()
    g.next_button.click()
    assert g.closed and 'Closed' in g._text.value and len(g.viewed()) == 4
    assert judgements([observer()]).shape[0] == 60
    with pytest.raises(FileNotFoundError, match='no trial'):
        judgements(tmp_path)


# ---- files


@pytest.mark.parametrize(
    'damage, says',
    [
        (lambda s: s.replace('trial', 'nr', 1), 'lacks the columns'),
        (lambda s: s.replace(',1,', ',one,', 1), 'is no number'),
        (lambda s: s + s.splitlines(True)[1], 'twice'),
        (lambda s: s.replace('simulated', 'alien', 1), 'none of'),
        (lambda s: s.replace('DMSO', '', 1) if ',DMSO,' not in s else s.replace(',DMSO,', ',,', 1), 'truth is missing'),
        (lambda s: '', 'cannot be read'),
        (lambda s: s + '"', 'cannot be read'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, says):
    p = tmp_path / 's1.csv'
    text = observer(n=4).to_csv(index=False)
    p.write_text(text)
    assert len(read_judgements(p)) == 4
    p.write_text(damage(text))
    with pytest.raises(ValueError, match=says) as e:
        read_judgements(p)
    assert 's1.csv' in str(e.value)


def test_a_file_of_other_classes_or_tiles_is_named(tmp_path):
    t = Trial(NoiseTiles(), n=4, subject='a', out=tmp_path, kind='simulated')
    while not t.done:
        t.answer('CPT', 1.0)
    t.path.write_text(t.path.read_text().replace(',CPT,1.000', ',STS,1.000', 1))
    with pytest.raises(ValueError, match="answer 'STS' is none of the classes"):
        read_judgements(t.path)
    with pytest.raises(ValueError, match='a_pre.csv.*no such tile'):
        read_judgements(t.path, tiles=table(4), classes=('CPT', 'DMSO', 'STS'))


NAMES = [
    'knife',
    'keyboard',
    'elephant',
    'bicycle',
    'airplane',
    'clock',
    'oven',
    'chair',
    'bear',
    'boat',
    'cat',
    'bottle',
    'truck',
    'car',
    'bird',
    'dog',
]


def write_public_form(folder, pictures=96, seed=0):
    "Files as the public experiments have them: ten people and four networks, sixteen objects, each with his own order and prefix."
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(1).normal(0, 0.25, pictures)
    for i in range(14):
        who, tag = (
            (f'subject-{i + 1:02}', f's{i + 1:02}')
            if i < 10
            else (['alexnet', 'googlenet', 'resnet50', 'vgg'][i - 10], 'dnn')
        )
        rows = []
        for k, j in enumerate(rng.permutation(pictures)):
            truth = NAMES[j % 16]
            said = truth if rng.random() < np.clip(0.75 - hard[j], 0, 1) else NAMES[rng.integers(16)]
            if i < 10 and rng.random() < 0.02:
                said = 'na'
            rows.append(
                [
                    who,
                    1,
                    k + 1,
                    'NaN' if said == 'na' or i >= 10 else f'{rng.uniform(0.4, 1.4):.6f}',
                    said,
                    truth,
                    0,
                    f'{k + 1:04}_cue_{tag}_0_{truth}_00_{truth}{j // 16 + 1}.png',
                ]
            )
        pd.DataFrame(
            rows, columns=['subj', 'session', 'trial', 'rt', 'object_response', 'category', 'condition', 'imagename']
        ).to_csv(folder / f'cue-conflict_{who}_session_1.csv', index=False)


def test_the_public_format_of_sixteen_classes(tmp_path):
    write_public_form(tmp_path)
    t = judgements(sorted(tmp_path.glob('*.csv')), format='model-vs-human')
    assert (
        t.kind.value_counts().to_dict() == dict(human=960, network=384)
        and t.tile.nunique() == 96
        and len(t.attrs['classes']) == 16
    )
    c = compare_deciders(t, n_boot=300)
    assert (
        len(c.deciders) == 14
        and 'd_prime' not in c.deciders
        and len(c.pairs) == 40
        and (c.pairs.n >= 85).all()
        and len(c.consistency) == 91
    )
    assert c.deciders.missing.sum() == t.answer.isna().sum() > 0 and any('are missing' in o for o in c.notes)
    assert c.settings['chance'] == 1 / 16
    for f in (plot_deciders, plot_tiles, plot_consistency):
        f(c)


# Three files of `raw-data/edge-experiment` of github.com/rgeirhos/texture-vs-shape at 3fd90a0 and ff6b7ac (Geirhos et al. 2019, ICLR): the answers of two people and of VGG-16
# to the same 160 pictures. For the people the pictures that they named wrongly, for the network every answer, ten a class, in the order 1, 10, 2 .. 9.
EDGE_WRONG = {
    'subject-01': dict(
        oven10='knife',
        airplane4='knife',
        dog2='elephant',
        bear1='cat',
        bear4='dog',
        bear9='elephant',
        truck4='car',
        oven1='keyboard',
        bear5='cat',
        elephant4='bird',
        bird2='cat',
        airplane2='bird',
        truck6='car',
        oven6='chair',
        bear3='cat',
        bear8='cat',
        bear6='bird',
    ),
    'subject-02': dict(
        bear7='oven',
        boat6='knife',
        bear10='elephant',
        oven7='truck',
        bird2='elephant',
        car5='truck',
        bear4='elephant',
        keyboard3='boat',
        oven6='chair',
        bear6='bird',
    ),
}
EDGE_VGG = {
    k: [dict(k='knife', b='bird', c='clock', o='bottle', h='chair', y='keyboard', a='airplane')[i] for i in v]
    for k, v in dict(
        airplane='ckkbkbkkkk',
        bear='kbkbkbbbbb',
        bicycle='ccbccckccc',
        bird='kkkbkkkcko',
        boat='kkkbbbkckb',
        bottle='oooooooooo',
        car='bkkkkkkkkk',
        cat='kkkkckkkbk',
        chair='hhhhhbchhc',
        clock='okcccccccc',
        dog='bkbkkbbbkk',
        elephant='kobbbkbkbb',
        keyboard='ykkkkyyyky',
        knife='akkkkkbkkk',
        oven='cchckhhhoc',
        truck='hbcbckkbcc',
    ).items()
}


def write_edges(folder):
    "The three files in their own form, all but the order of the people's pictures and their seconds."
    for who, tag in [('subject-01', 's01'), ('subject-02', 's02'), ('vgg', 'dnn')]:
        rows = []
        for truth, said in EDGE_VGG.items():
            for net, i in zip(said, [1, 10, *range(2, 10)]):
                answer = net if who == 'vgg' else EDGE_WRONG[who].get(f'{truth}{i}', truth)
                rows.append(
                    f'{who},1,{len(rows) + 1},{"NaN" if who == "vgg" else 0.8},{answer},{truth},0,{len(rows) + 1:04}_edg_{tag}_0_{truth}_00_{truth}{i}.png'
                )
        (folder / f'edge-experiment_{who}_session_1.csv').write_text(
            'subj,session,trial,rt,object_response,category,condition,imagename\n' + '\n'.join(rows) + '\n'
        )


def test_real_answers_of_people_and_a_network_to_160_pictures(tmp_path):
    write_edges(tmp_path)
    c = compare_deciders(judgements(sorted(tmp_path.glob('*.csv')), format='model-vs-human'), n_boot=300)
    assert c.table.tile.nunique() == 160 and len(c.table) == 480 and c.table.attrs['classes'] == sorted(EDGE_VGG)
    assert c.deciders.accuracy.droplevel('session').to_dict() == {
        'subject-01': 143 / 160,
        'subject-02': 150 / 160,
        'vgg': 39 / 160,
    }
    k = next(
        r for r in c.consistency.itertuples() if 'vgg' not in r.a + r.b
    )  # four pictures escaped both: bear4, bear6, bird2, oven6
    assert (
        np.isclose(k.observed, 141 / 160)
        and np.isclose(k.expected, (143 * 150 + 17 * 10) / 160**2)
        and np.isclose(k.kappa, (141 / 160 - k.expected) / (1 - k.expected))
    )
    p = next(
        r for r in c.pairs.itertuples() if '01' in r.a
    )  # the network named nothing rightly that this person did not
    assert (p.a_only, p.b_only) == (104, 0) and np.isclose(p.p, 2 * 0.5**104, rtol=1e-6)


# ---- exactness

counts = st.integers(0, 10**6).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(rng=counts, k=st.integers(2, 6), n=st.integers(5, 80))
def test_kappas_equal_sklearn_and_statsmodels(rng, k, n):
    a = rng.integers(0, k, n)
    b = np.where(rng.random(n) < rng.random(), a, rng.integers(0, k, n))
    with np.errstate(all='ignore'):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            want = cohen_kappa_score(a, b, labels=range(k)) if len(set(a) | set(b)) > 1 else np.nan
    np.testing.assert_allclose(people_compare.kappa(people_compare._cross(a, b, k)), want, atol=1e-12)
    c = rng.multinomial(int(rng.integers(2, 9)), rng.dirichlet(np.ones(k)), n)
    if (c.sum(0) > 0).sum() > 1:
        np.testing.assert_allclose(fleiss_kappa(c), sm_fleiss(c), atol=1e-10)


def test_error_consistency_is_the_kappa_of_right_and_wrong():
    t = judgements([observer(f's{i}', accuracy=a, seed=i, cannot_tell=0.1) for i, a in enumerate([0.6, 0.7, 0.9])])
    for r in consistency_table(t).itertuples():
        w = people_judging.with_correct(t).pivot(index='tile', columns='decider', values='correct')[[r.a, r.b]].dropna()
        assert np.isclose(r.kappa, cohen_kappa_score(w[r.a], w[r.b])) and r.n == len(w)
        p, q = w.mean()
        assert (
            np.isclose(r.expected, p * q + (1 - p) * (1 - q))
            and np.isclose(r.observed, (w[r.a] == w[r.b]).mean())
            and r.low <= r.kappa <= r.high
        )


def test_deciders_who_are_always_right_have_no_kappa():
    t = judgements([observer(f's{i}', accuracy=1) for i in range(3)])
    c = compare_deciders(t, n_boot=50)
    assert c.consistency.kappa.isna().all() and (c.consistency.note != '').all()
    assert (
        np.isfinite(c.deciders.d_prime).all()
        and c.groups.gee_note.iloc[0]
        and c.mixed.note.tolist() == ['all answers are alike']
    )


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_poisson_binomial_sums(p):
    d = people_compare.poisson_binomial(p)
    assert np.isclose(d.sum(), 1) and np.isclose((d * np.arange(len(d))).sum(), sum(p))


def test_missed_tiles_by_brute_force():
    t = judgements([observer(f's{i}', accuracy=a, seed=i) for i, a in enumerate([0.3, 0.5, 0.7])])
    e = 1 - people_judging.with_correct(t).groupby('decider').correct.mean().to_numpy()
    m = missed_table(t).set_index('missed_by')
    want = [0.0] * 4
    for bits in np.ndindex(2, 2, 2):
        want[sum(bits)] += 60 * np.prod(np.where(bits, e, 1 - e))
    np.testing.assert_allclose(m.expected[['0', '1', '2', '3']], want)
    assert m.observed[['0', '1', '2', '3']].sum() == 60 and m.observed['all'] == m.observed['3']


def test_the_papers_trial():
    d = detectable(50, 5)
    assert round(d['accuracy'], 2) == 0.59 and d['answers'] == 250
    from celldeath_nb.evaluate.intervals import wilson

    np.testing.assert_allclose([*wilson(122, 250), *wilson(116, 250)], [0.427, 0.550, 0.403, 0.526], atol=6e-4)


def test_unequal_and_other_tiles_are_said():
    a = observer('a', n=60)
    b = simulate_observer(table(30, prefix='q'), accuracy=0.6, decider='b')
    net = table(60).assign(pred=lambda d: d.label)
    c = compare_deciders(judgements([a, b, observer('c', n=40)], dict(net=net)), n_boot=50)
    assert c.pairs.set_index('a').n.to_dict() == dict(a=60, b=0, c=40)
    assert (
        c.pairs.set_index('a').note['b'] == 'no tile in common: not compared'
        and '20 tiles of one decider alone left out' in c.pairs.set_index('a').note['c']
    )
    text = ' '.join(c.notes)
    for s in ('between 30 and 60 tiles', '3 different sets of tiles', '1 of 3 pairs'):
        assert s in text
    assert c.agreement.left_out.sum() > 0 or c.agreement.n.sum() == 0


def test_one_decider_alone_is_enough():
    c = compare_deciders(judgements(observer()), n_boot=50)
    assert (
        len(c.deciders) == 1 and len(c.pairs) == 0 and len(c.consistency) == 0 and np.isnan(c.groups.p_chance.iloc[0])
    )
    plot_deciders(c)
    plot_tiles(c)
    nobody = observer().assign(answer=CANNOT_TELL)
    d = decider_table(judgements([nobody, observer('s2')]))
    assert d.n.iloc[0] == 0 and np.isnan(d.accuracy.iloc[0]) and d.cannot_tell.iloc[0] == 60


def test_networks_alone_and_figures_say_simulated():
    net = {
        f'r{i}': table(60).assign(
            pred=np.where(np.random.default_rng(i).random(60) < 0.9, table(60).label, 'CPT'), split='test'
        )
        for i in range(3)
    }
    c = compare_deciders(judgements([], net), n_boot=50)
    assert len(c.change) == 0 and len(c.mixed) == 0 and len(c.consistency) == 3
    c = compare_deciders(judgements([observer('x'), observer('y', seed=1)], net), n_boot=50)
    for f in (plot_deciders, plot_tiles, plot_consistency):
        text = ' '.join(t.get_text() for t in f(c).get_xticklabels())
        assert 'sim' in text, f.__name__


def test_plans_agree_with_their_curve():
    p = plan_trial(accuracy=0.65, subjects=4, power=0.9)
    c = p.curve.set_index('tiles').power
    assert c[p.tiles] >= 0.9 > c[p.tiles - 1] and (c[p.tiles :] >= 0.9).all() and p.answers == 4 * p.tiles
    assert plan_trial(accuracy=0.3).tiles == plan_trial(accuracy=0.7).tiles
    for bad in (dict(accuracy=0.5), dict(accuracy=1.5), dict(power=0), dict(subjects=0), dict(accuracy=0.501)):
        with pytest.raises(ValueError):
            plan_trial(**bad)
    n = 60
    acc = 0.62
    p = people_plans._group_power(n, acc, 6, 0.5, 0.05, 0.07)
    rng = np.random.default_rng(0)
    x = rng.binomial(n, np.clip(rng.normal(acc, 0.07, (20000, 6)), 0, 1)) / n
    assert abs(np.mean(stats.ttest_1samp(x, 0.5, axis=1).pvalue < 0.05) - p) < 0.02


@slow
def test_the_mixed_model_in_many_trials():
    "Its variational intervals are narrow; how narrow is measured, not promised."
    hits = []
    for i in range(100):
        rng = np.random.default_rng(i)
        hard = dict(zip(table(50).tile, rng.normal(0, 0.5, 50)))
        t = pd.concat(
            [
                simulate_observer(
                    table(50), d_prime=max(rng.normal(0.6, 0.2), 0), difficulty=hard, decider=f's{k}', seed=1000 * i + k
                )
                for k in range(8)
            ]
        )
        m = mixed_table(t).set_index('term').loc['intercept']
        hits.append(m.low <= 0.52 <= m.high)
    assert np.mean(hits) > 0.7


@slow
def test_statsmodels_gee_in_many_trials():
    "The same as the closed form that the notebook counts 20,000 times."
    p = []
    for i in range(1500):
        rng = np.random.default_rng(i)
        ok = rng.random((5, 50)) < np.clip(rng.normal(0.5, 0.05, (5, 1)), 0, 1)
        fit = people_compare._gee(ok.ravel().astype(float), np.ones((250, 1)), np.repeat(range(5), 50), 0.95)
        p.append(people_compare._gee_p(fit, 0, 5))
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_sign_flips_of_many_people_are_never_impossible():
    "Beyond 16 pairs patterns are drawn at random, the seen one counts, and the method says so."
    d = np.linspace(0.2, 0.4, 20)
    assert 0 < people_compare._sign_flips(d) < 1e-4
    assert people_compare._sign_flips(np.array([1.0, 1.0])) == 0.5


def test_a_trial_of_few_answers_can_see_no_change():
    assert np.isnan(people_plans.detectable(tiles=3, subjects=1)['change'])
    assert 0 < people_plans.detectable(tiles=50, subjects=5)['change'] < 0.5


def test_missing_answers_are_left_out_or_are_an_answer():
    "Error consistency by both conventions, against counts made by hand."
    from celldeath_nb.people.compare import compare_deciders, consistency_table
    from celldeath_nb.people.judging import CANNOT_TELL

    truth = ['CPT', 'DMSO'] * 4
    a = ['CPT', 'DMSO', 'CPT', 'CPT', None, 'DMSO', 'DMSO', CANNOT_TELL]
    b = ['CPT', 'DMSO', 'DMSO', 'CPT', None, 'DMSO', 'CPT', 'DMSO']
    rows = [
        dict(decider=d, kind='human', session='pre', trial=i, tile=f't{i}', truth=truth[i], answer=said[i], seconds=1.0)
        for d, said in (('ann', a), ('ben', b))
        for i in range(8)
    ]
    table = pd.DataFrame(rows)
    right = lambda said: np.array([x == y for x, y in zip(said, truth)])
    both = [i for i in range(8) if a[i] is not None and b[i] is not None and CANNOT_TELL not in (a[i], b[i])]

    def kappa(x, y):
        expected = x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean())
        return ((x == y).mean() - expected) / (1 - expected)

    for how, keep in (('left out', both), ('an answer', range(8))):
        row = consistency_table(table, n_boot=50, missing=how).iloc[0]
        assert row.n == len(keep) and how in row.method
        assert row.kappa == pytest.approx(kappa(right(a)[list(keep)], right(b)[list(keep)]))
        c = compare_deciders(table, n_boot=50, mixed=False, missing=how)
        assert c.consistency.kappa[0] == row.kappa and any(f'not given are {how}' in o for o in c.notes)
    same = consistency_table(table, n_boot=50, errors=False, missing='an answer').iloc[0]
    assert same.n == 8 and same.observed == pytest.approx(
        np.mean([x == y or i == 4 for i, (x, y) in enumerate(zip(a, b))])
    )
