"The queue of trainings: killed, shared, refused; the result is the same."

import errno
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import processes, tells

import celldeath_nb.learn.training as learn_training
from celldeath_nb.evaluate.scores import collapse
from celldeath_nb.files import only_writer, this_host, write_csv
from celldeath_nb.learn.training import repeat
from celldeath_nb.studies.queue import RayExecutor, Rehearsal, hold_run, open_results, run_settings
from celldeath_nb.studies.results import leave_one_out_table, results_table, spread_of
from celldeath_nb.studies.settings import check_settings, paper_settings, scale_settings, setting_recipe, setting_tiles
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.store import open_tiles

told = {s: (0.9 + 0.01 * s, 0.7 + 0.02 * s) for s in range(5)}
few = ['CvsD', 'AvsA', 'without_PC3', 'line_U2OS']
forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='fork: this system has none')


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    "Tiles of noise: two lines, two treatments, two experiments, three photographs each."
    from PIL import Image

    at = tmp_path_factory.mktemp('study')
    rng = np.random.default_rng(0)
    for line in ('U2OS', 'PC3'):
        for arm in ('CPT', 'DMSO'):
            for e in (1, 2):
                for k in range(3):
                    px = rng.integers(0, 255, (48, 64), np.uint8)
                    name = f'{"U2" if line == "U2OS" else line}_{arm}1_1H_RGB_{k:04d}_N{e}.png'
                    (at / 'photos').mkdir(exist_ok=True)
                    Image.fromarray(px).save(at / 'photos' / name)
    from celldeath_nb.photos.fields import read_fields

    fields = read_fields(at / 'photos', lines=['PC3', 'U2OS'])
    cut_tiles(fields, at / 'tiles')
    return open_tiles(at / 'tiles')


def settings_of(names=few, seeds=2, **changes):
    t = paper_settings().set_index('setting', drop=False).loc[names].reset_index(drop=True)
    return scale_settings(t, 'tiny', seeds=seeds, **changes)


def bits(out, table=False):
    "A digest of every prediction, and of the table of results where it is worth its intervals."
    r = open_results(out)
    files = [run.path / 'predictions.csv' for s in r.settings.setting for run in r.of(s)]
    text = results_table(r).to_csv(index=False) if table else ''
    return hashlib.sha256(text.encode() + b''.join(p.read_bytes() for p in files)).hexdigest(), len(files)


@pytest.fixture(scope='module')
def whole(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp('whole')
    run_settings(tiles, settings_of(), out, train=Rehearsal(told))
    return bits(out)


def test_exact_numbers():
    x = [0.9776, 0.9797, 0.9818, 0.9839, 0.9860]
    s = spread_of(x)
    assert s['text'] == '98.18 ± 0.33 %' and s['n'] == 5 and s['best'] == max(x)
    assert abs(s['sem'] - np.std(x, ddof=1) / 5**0.5) < 1e-12
    with pytest.raises(ValueError, match='no run to sum up'):
        spread_of([np.nan])


def test_one_split_for_all_seeds_and_collapse(tiles, tmp_path):
    r = run_settings(tiles, settings_of(seeds=3), tmp_path / 'o', train=Rehearsal(told))
    assert all(len({run.environment['split'] for run in r.of(s)}) == 1 for s in few)
    both = collapse(r.of('AvsA')[0].preds, 'treatment').set_index('tile')
    two = r.of('CvsD')[0].preds.set_index('tile')
    assert set(both.index) & set(two.index) and (both.label == two.label.reindex(both.index).fillna(both.label)).all()
    test = both[both.split == 'test']
    assert set(test.index) == set(two.index[two.split == 'test']) and (test.label == two.label[test.index]).all()


def test_threads_agree(tiles, whole, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        run_settings(tiles, settings_of(), tmp_path / 't', executor=pool, train=Rehearsal(told))
    assert bits(tmp_path / 't') == whole


@pytest.mark.long
def test_processes_agree(tiles, whole, tmp_path):
    with ProcessPoolExecutor(2) as pool:
        run_settings(tiles, settings_of(), tmp_path / 'p', executor=pool, train=Rehearsal(told))
    assert bits(tmp_path / 'p') == whole


@dataclass
class Noted:
    "A rehearsal that writes down which run it did."

    notes: Path
    seconds: float = 0.05

    def __call__(self, tiles, recipe, out):
        with open(self.notes, 'a') as f:
            f.write(f'{Path(out).parent.name}/{Path(out).name}\n')
        return Rehearsal(told, self.seconds)(tiles, recipe, out)


def _forked(tiles, out, train):
    "The queue in a child that is made quickly, for it to be killed or waited for."
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run_settings(tiles, settings_of(), out, train=train)
        code = 0
    finally:
        os._exit(code)


def kill_and_resume(tiles, out, times, seed):
    rng = random.Random(seed)
    for _ in range(times):
        pid = _forked(tiles, out, Rehearsal(told, 0.02))
        time.sleep(rng.uniform(0.0, 0.6))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    run_settings(tiles, settings_of(), out, train=Rehearsal(told))


@forks
def test_killed_at_random_moments(tiles, whole, tmp_path):
    kill_and_resume(tiles, tmp_path / 'o', 5, seed=1)
    assert bits(tmp_path / 'o') == whole
    assert not [p for p in (tmp_path / 'o').rglob('*') if p.name.endswith('.lock')]


@forks
@pytest.mark.parametrize('state', ['recipe.json', 'failed'])
def test_killed_when_all_was_written(tiles, tmp_path, state):
    train = Rehearsal(told) if state == 'recipe.json' else fail_on_four
    first = run_settings(tiles, settings_of(), tmp_path / 'o', train=train)
    at = tmp_path / 'o' / 'AvsA' / 'seed_0'
    pid = os.fork()
    if not pid:
        with hold_run(at), only_writer(at):
            os._exit(0)  # as SIGKILL does it: nothing is put back
    os.waitpid(pid, 0)
    locks = lambda: sorted(p.name for p in (tmp_path / 'o').rglob('*.lock'))
    assert locks() == ['.seed_0.job.lock', '.seed_0.lock']
    again = run_settings(tiles, settings_of(), tmp_path / 'o', train=train)
    assert not locks() and again.runs.equals(first.runs)


@pytest.mark.long
@forks
def test_killed_fifty_times(tiles, tmp_path):
    run_settings(tiles, settings_of(), tmp_path / 'whole', train=Rehearsal(told))
    kill_and_resume(tiles, tmp_path / 'o', 50, seed=2)
    assert bits(tmp_path / 'o', table=True) == bits(tmp_path / 'whole', table=True)


@forks
def test_two_processes_on_one_folder(tiles, whole, tmp_path):
    two = [_forked(tiles, tmp_path / 'o', Noted(tmp_path / 'notes.txt')) for _ in range(2)]
    assert [os.waitpid(p, 0)[1] for p in two] == [0, 0]
    done = (tmp_path / 'notes.txt').read_text().split()
    assert sorted(done) == sorted(set(done)) and len(done) == 8
    assert bits(tmp_path / 'o') == whole


def test_a_failing_setting_leaves_the_others(tiles, tmp_path):
    r = run_settings(tiles, settings_of(), tmp_path / 'o', train=fail_on_four)
    n = r.runs.groupby('setting').state.agg(set).to_dict()
    assert n == {s: {'failed' if s == 'AvsA' else 'finished'} for s in few}
    assert r.runs.query('state == "failed"').why.tolist() == ['four classes are not liked'] * 2
    assert set(results_table(r).setting) == set(few) - {'AvsA'}
    r = run_settings(tiles, settings_of(), tmp_path / 'o', train=Rehearsal(told))
    assert (r.runs.state == 'failed').sum() == 2  # not tried again unasked
    r = run_settings(tiles, settings_of(), tmp_path / 'o', train=Rehearsal(told), retry=True)
    assert (r.runs.state == 'finished').all() and not list(r.out.rglob('*.failed.json'))


def fail_on_four(tiles, recipe, out):
    if tiles.table.label.nunique() == 4:
        raise ValueError('four classes are not liked')
    return Rehearsal(told)(tiles, recipe, out)


def test_a_full_disk_stops_and_is_gone_on_with(tiles, whole, tmp_path):
    n = []

    def full(tiles, recipe, out):
        n.append(out)
        if len(n) == 5:
            raise OSError('the state could not be written') from OSError(errno.ENOSPC, 'No space left on device')
        return Rehearsal(told)(tiles, recipe, out)

    with pytest.raises(OSError, match='could not be written'):
        run_settings(tiles, settings_of(), tmp_path / 'o', train=full)
    assert (open_results(tmp_path / 'o').runs.state == 'finished').sum() == 4
    run_settings(tiles, settings_of(), tmp_path / 'o', train=Rehearsal(told))
    assert bits(tmp_path / 'o') == whole


def test_a_disk_too_small_is_said_first(tiles, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match='runs need up to .* GB are free'):
        run_settings(tiles, settings_of(), tmp_path / 'o', train=Rehearsal(told))
    assert not (tmp_path / 'o').exists()


def test_a_lost_worker(tiles, whole, tmp_path):
    with ProcessPoolExecutor(1) as pool:
        r = run_settings(
            tiles, settings_of(), tmp_path / 'o', executor=pool, train=partial(die_once, tmp_path / 'died')
        )
    assert (r.runs.state == 'finished').sum() < 8
    run_settings(tiles, settings_of(), tmp_path / 'o', train=Rehearsal(told))
    assert bits(tmp_path / 'o') == whole


def die_once(mark, tiles, recipe, out):
    if Path(out).parent.name == 'without_PC3' and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Rehearsal(told)(tiles, recipe, out)


def test_locks(tmp_path):
    at = tmp_path / 'seed_0'
    lock = tmp_path / '.seed_0.job.lock'
    lock.write_text('')  # begun to be written by a machine that went down
    with hold_run(at) as mine:
        assert not mine
    os.utime(lock, (1, 1))
    with hold_run(at) as mine:
        assert mine
    assert not lock.exists()
    lock.write_text('{"host": "another", "pid": 1, "token": "x", "who": "another"}')
    with hold_run(at) as mine:
        assert not mine  # its time is fresh
    os.utime(lock, (1, 1))

    def take(_):
        with hold_run(at) as mine:
            time.sleep(0.2)
            return mine

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1
    me = dict(host=this_host(), pid=os.getpid(), born=1.0, token='x', who='one that had our number before us')
    lock.write_text(json.dumps(me))
    with hold_run(at) as mine:
        assert mine


@pytest.mark.parametrize(
    'change, said',
    [
        (dict(where='hours=1'), "no column 'hours'"),
        (dict(where='hour=2'), "There is no hour '2' here"),
        (dict(test='line=HeLa'), "There is no line 'HeLa' here"),
        (dict(label='colour'), "no column 'colour'"),
        (dict(where='experiment=N1'), 'one experiment only'),
        (dict(valid='experiment=N2'), 'missing from valid'),
        (dict(arch='resnet51'), 'No network is called|cannot'),
        (dict(weights='imagenet'), "weights='imagenet'"),
        (dict(weights='frozen', weights_file='none.safetensors'), 'none.safetensors'),
    ],
)
def test_bad_settings_are_sentences(tiles, change, said):
    t = settings_of(['CvsD'], seeds=1).assign(**change)
    why = check_settings(tiles, t).problem[0]
    assert re.search(said, why) and why.rstrip()[-1] in '.)"' and '\n' not in why, why
    with pytest.raises(ValueError, match='1 of 1 settings cannot be run'):
        run_settings(tiles, t, '/nowhere/at/all', train=Rehearsal(told))


def test_fourteen_classes_of_one_photograph_each(tiles):
    t = tiles.table.groupby(['line', 'treatment', 'experiment']).head(4)
    part = tiles.subset(tiles.table.tile.isin(t.tile).to_numpy())
    assert 'comes from 1 ' in check_settings(part, settings_of(['AvsA'])).problem[0]


def test_refusals_of_the_whole_table(tiles, tmp_path):
    s = settings_of()
    go = partial(run_settings, tiles, train=Rehearsal(told))
    with pytest.raises(ValueError, match="Two settings are called 'CvsD'"):
        go(pd.concat([s, s.iloc[:1]]), tmp_path / 'o')
    with pytest.raises(ValueError, match='no run at all'):
        go(s, tmp_path / 'o', seeds=0)
    with pytest.raises(ValueError, match='is none for a folder'):
        go(s.assign(setting=['../up', 'a', 'b', 'c']), tmp_path / 'o')
    with pytest.raises(ValueError, match="no column 'label'"):
        go(s.drop(columns='label'), tmp_path / 'o')
    with pytest.raises(ValueError, match='is empty'):
        go(s.iloc[:0], tmp_path / 'o')
    with pytest.raises(ValueError, match=re.escape(f'lies in {tiles.path}, which is only read')):
        go(s, tiles.path / 'x')
    with pytest.raises(ValueError, match=re.escape(f'lies in {tiles.manifest["folder"]}, which is only read')):
        go(s, Path(tiles.manifest['folder']) / 'x')
    assert not (tmp_path / 'o').exists()


def test_an_old_folder_of_another_kind(tiles, tmp_path):
    go = partial(run_settings, out=tmp_path / 'o', train=Rehearsal(told))
    go(tiles, settings_of(['CvsD']))
    with pytest.raises(ValueError, match='lr=.* then, .* now'):
        go(tiles, settings_of(['CvsD'], lr=(1e-4, 1e-3)))
    with pytest.raises(ValueError, match='another split'):
        go(tiles.subset(np.arange(len(tiles)) % 12 > 3), settings_of(['CvsD']))
    assert len(go(tiles, settings_of(['CvsD'], seeds=3)).of('CvsD')) == 3  # more seeds of the same are welcome


def test_leaky_parts_photographs_and_no_other_does(tiles):
    for row in settings_of(['CvsD', 'leaky']).to_dict('records'):
        part = setting_tiles(tiles, row)
        sides = part.table.split.groupby(tiles.table.field.reindex(part.table.index).to_numpy()).nunique()
        assert (sides.max() > 1) == (row['setting'] == 'leaky')


def test_table_2_without_such_settings(tiles, tmp_path):
    r = run_settings(tiles, settings_of(['CvsD']), tmp_path / 'o', train=Rehearsal(told))
    with pytest.raises(ValueError, match='no setting without_LINE'):
        leave_one_out_table(r)


@pytest.mark.long
def test_submitit(tiles, whole, tmp_path):
    submitit = pytest.importorskip('submitit', reason='submitit is not installed (extra slurm)')
    ex = submitit.AutoExecutor(folder=tmp_path / 'log', cluster='local')
    ex.update_parameters(timeout_min=5)
    s = settings_of(['CvsD'])
    r = run_settings(tiles, s, tmp_path / 'o', executor=ex, train=Rehearsal(told))
    assert repr(r) == '2 of 2 runs are finished'
    run_settings(tiles, settings_of(), tmp_path / 'o', train=Rehearsal(told))
    assert bits(tmp_path / 'o') == whole


def end_ray(ray):
    "Ray and all that it has started: after a start that failed it leaves some of it behind."
    ray.shutdown()
    left = [p for p in processes() if '/ray/' in (tells(p, lambda o: ' '.join(o.cmdline())) or '')]
    for p in left:
        tells(p, lambda o: o.kill())
    psutil.wait_procs(left, timeout=30)


def start_ray(ray):
    "Two workers on this machine, if it lets Ray start in the half minute that Ray gives itself."
    try:
        here = dict(env_vars=dict(PYTHONPATH=os.pathsep.join(sys.path)))  # for what this file defines
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    except Exception as e:
        if 'timed out during startup' not in str(e):
            raise
        end_ray(ray)
        pytest.skip('Ray has not started within its own limit: the machine is too busy')


@pytest.mark.long
def test_ray(tiles, whole, tmp_path):
    ray = pytest.importorskip('ray', reason='ray is not installed (extra ray)')
    try:
        start_ray(ray)
        r = run_settings(
            tiles, settings_of(), tmp_path / 'o', executor=RayExecutor(), train=partial(die_once, tmp_path / 'died')
        )
        assert (r.runs.state == 'finished').sum() == 7  # the worker that was killed took one run with it
        run_settings(tiles, settings_of(), tmp_path / 'o', executor=RayExecutor(), train=Rehearsal(told))
    finally:
        end_ray(ray)
    assert bits(tmp_path / 'o') == whole


def test_one_seed_that_fails_leaves_the_others(tiles, tmp_path, monkeypatch):
    row = settings_of(['CvsD']).iloc[0]
    part = setting_tiles(tiles, row)

    def train(tiles, recipe, out, *args, **kwargs):
        if recipe.seed in bad:
            raise FloatingPointError('The loss is no number any more.')
        return Rehearsal(told)(tiles, recipe, out)

    monkeypatch.setattr(learn_training, 'train', train)
    bad = [1]
    with pytest.warns(UserWarning, match='Seed 1 failed, and the numbers are those of the others: The loss'):
        t = repeat(part, setting_recipe(row), tmp_path / 'o', seeds=3)
    assert t.index.tolist() == [0, 2, 'mean', 'sd', 'sem', 'best', 'n'] and list(t.attrs['failed']) == [1]
    x = t.loc[[0, 2], 'test_accuracy']
    assert t.loc['n', 'test_accuracy'] == 2 and t.loc['best', 'test_accuracy'] == x.max()
    assert abs(t.loc['sem', 'test_accuracy'] - x.std() / 2**0.5) < 1e-12
    bad = [0, 1, 2]
    with pytest.raises(FloatingPointError, match='no number'):
        repeat(part, setting_recipe(row), tmp_path / 'none', seeds=3)
    assert not (tmp_path / 'none').exists()


@pytest.mark.long
def test_results_table_of_a_written_csv(tiles, tmp_path):
    r = run_settings(tiles, settings_of(seeds=1), tmp_path / 'o', train=Rehearsal(told))
    write_csv(results_table(r), tmp_path / 'r.csv')
    assert set(pd.read_csv(tmp_path / 'r.csv').setting) == set(few)
