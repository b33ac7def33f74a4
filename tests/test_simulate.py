"What does not teach: bytes for any number of workers, bad input, full disks, interrupted runs, and label images beside Pillow."

import contextlib, errno, os, signal, subprocess, sys, time, warnings
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

import celldeath_nb.simulate.microscope as simulate_microscope
import celldeath_nb.png as png
from celldeath_nb.simulate.microscope import (
    cell_lines,
    drug_strength,
    nuisance_none,
    read_truth,
    simulate_experiment,
    simulate_field,
)

root = Path(__file__).resolve().parents[1]
small = dict(lines=('U2OS',), experiments=2, wells=1, sites=1, size=(110, 130))


def all_bytes(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob('*')) if p.is_file()}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return simulate_experiment(tmp_path_factory.mktemp('made') / 'set', workers=1, **{**small, 'experiments': 4})


def test_same_bytes_for_any_number_of_workers(made, tmp_path):
    other = simulate_experiment(tmp_path / 'set', workers=2, **{**small, 'experiments': 4})
    assert all_bytes(made) == all_bytes(other)


def test_same_bytes_by_processes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate_microscope, '_worth', 0)
    assert all_bytes(made) == all_bytes(simulate_experiment(tmp_path / 'set', workers=2, **{**small, 'experiments': 4}))


def test_threads_draw_what_killed_processes_did_not(made, tmp_path, monkeypatch):
    drawn = simulate_microscope._in_turn
    asked = []

    def dies(rows, folder, n, prefer, *args):
        asked.append((prefer, len(rows)))
        for i, o in enumerate(drawn(rows, folder, 1, 'threads', *args)):
            if prefer == 'processes' and i == 3:
                raise simulate_microscope.BrokenProcessPool('killed')
            yield o

    monkeypatch.setattr(simulate_microscope, '_worth', 0)
    monkeypatch.setattr(simulate_microscope, '_in_turn', dies)
    assert all_bytes(made) == all_bytes(
        simulate_experiment(tmp_path / 'set', workers=2, **{**small, 'experiments': 4})
    ) and asked == [('processes', 8), ('threads', 5)]


long = """
import sys
import celldeath_nb.simulate.microscope as microscope
from celldeath_nb.simulate import simulate_experiment
microscope._worth = 0
if __name__ == '__main__':
    simulate_experiment(sys.argv[1] + '/set', experiments=4, wells=20, sites=9, size=(480, 640), workers=2)
"""


def workers_of(p):
    "The processes below one, which are known before it ends."
    return [o for o in psutil.Process(p.pid).children(recursive=True) if o.is_running()]


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='there is no SIGKILL here')
@pytest.mark.parametrize('how, early', [('SIGKILL', True), ('SIGKILL', False), ('SIGTERM', False), ('SIGINT', False)])
@pytest.mark.long
def test_no_worker_outlives_its_parent(how, early, tmp_path):
    "Killed as soon as there are workers, or when they have begun to draw; what they left goes with the next run."
    # SIGINT may be ignored here, as in the background of a script, and is then ignored below
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    p = subprocess.Popen(
        [sys.executable, '-c', long, str(tmp_path)], cwd=root, stderr=subprocess.DEVNULL, preexec_fn=heard
    )
    drawn = lambda: next(tmp_path.glob('.set.*/*.png'), None)
    until = time.monotonic() + 60
    while not (len(workers_of(p)) > 2 if early else drawn()) and time.monotonic() < until:
        time.sleep(0.02)
    workers = workers_of(p)
    assert len(workers) > 2, 'two workers and what watches over their memory'
    p.send_signal(getattr(signal, how))
    p.wait(20)
    _, left = psutil.wait_procs(workers, timeout=10)
    for o in left:
        o.kill()
    assert not left, [o.cmdline()[:4] for o in left]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        simulate_experiment(tmp_path / 'set', workers=1, **{**small, 'experiments': 1})
    assert [o.name for o in tmp_path.iterdir()] == ['set']


def test_a_seed_is_a_seed(tmp_path):
    kw = {**small, 'experiments': 1, 'workers': 1}
    a, b = (all_bytes(simulate_experiment(tmp_path / str(s), seed=s, **kw)) for s in (1, 2))
    assert a.keys() == b.keys() and not any(a[k] == b[k] for k in a if k.endswith('.png') and 'truth' not in k)


def test_names_and_text_chunks(made):
    names = sorted(p.name for p in made.glob('*.png'))
    assert names[0] == 'U2_CPT1_1H_RGB_0001_N1.png' and len(names) == 8
    im = Image.open(made / names[0])
    assert im.mode == 'L' and im.text['Microns Per Pixel'] == '0.434221' and im.text['ObjectiveLens'] == '20x'


def test_names_are_understood_by_the_reader(made):
    from celldeath_nb.photos.fields import read_fields

    f = read_fields(made, labels=['CPT', 'DMSO'])
    assert (
        len(f) == 8
        and set(f.line) == {'U2OS'}
        and set(f.label) == {'CPT', 'DMSO'}
        and np.allclose(f.um_per_px, simulate_microscope.um_per_px_evos)
    )


def test_doses_stand_in_names_only_if_there_are_several(tmp_path):
    out = simulate_experiment(tmp_path / 'set', workers=1, dose_um=(0.5, 10), **{**small, 'experiments': 1})
    names = sorted(p.name for p in out.glob('*.png'))
    assert names == [
        'U2_CPT1_0.5UM_1H_RGB_0001_N1.png',
        'U2_CPT2_10UM_1H_RGB_0002_N1.png',
        'U2_DMSO1_1H_RGB_0001_N1.png',
        'U2_DMSO2_1H_RGB_0002_N1.png',
    ]
    assert dict(pd.read_csv(out / 'truth' / 'fields.csv').set_index('file').dose_um) == dict(
        zip(names, (0.5, 10.0, 0.0, 0.0))
    )


def test_truth_agrees_with_itself(made):
    for f in sorted(p.name for p in made.glob('*.png'))[:3]:
        t = read_truth(made, f)
        area = np.bincount(t.cells.ravel(), minlength=t.table.cell.max() + 1)
        assert (area[t.table.cell] == t.table.area_px).all() and set(np.unique(t.cells)) <= {0, *t.table.cell}
        assert t.table.response.between(0, 1).all() and set(t.table.state) <= {'healthy', 'stressed', 'dying'}
        assert t.settings['file'] == f


@pytest.mark.parametrize('shape', [(1, 1), (3, 259), (7, 600), (64, 64), (130, 517)])
@pytest.mark.parametrize('kind', ['zeros', 'noise', 'blocks', 'ramp'])
def test_label_images_are_read_by_pillow(tmp_path, shape, kind):
    rng = np.random.default_rng(0)
    a = dict(
        zeros=np.zeros(shape),
        noise=rng.integers(0, 65536, shape),
        blocks=np.kron(rng.integers(0, 900, (shape[0] // 9 + 1, shape[1] // 9 + 1)), np.ones((9, 9)))[
            : shape[0], : shape[1]
        ],
        ramp=np.add.outer(np.arange(shape[0]), np.arange(shape[1])),
    )[kind].astype(np.uint16)
    (tmp_path / 'a.png').write_bytes(png.png_bytes(a, {}, png.run_length))
    assert (np.asarray(Image.open(tmp_path / 'a.png')) == a).all()


@pytest.mark.parametrize('line', list(cell_lines))
def test_every_line_and_the_exact_null(line):
    kw = dict(size=(120, 160), seed=4)
    a, t = simulate_field(line, **kw)
    b, _ = simulate_field(line, 'CPT', 3, effect=0, **kw)
    c, u = simulate_field(line, 'CPT', 3, **kw)
    assert (a == b).all() and (a != c).mean() > 0.02 and a.shape == (120, 160) and 40 < a.mean() < 160
    assert u.table.response.mean() > t.table.response.mean() + 0.2


@pytest.mark.parametrize('line', ['MCF7', 'H9', 'U2OS'])
def test_one_cell_responds_among_healthy_ones(line):
    from scipy.ndimage import distance_transform_edt

    kw = dict(hour=3, size=(400, 500), seed=7, responding=1)
    (a, t) = simulate_field(line, 'DMSO', **kw)
    (b, u) = simulate_field(line, 'CPT', effect=5, **kw)
    one = u.table[u.table.response > 0]
    assert (
        len(one) == 1
        and one.area_px.item() > 0
        and set(u.table.state[u.table.response == 0]) == {'healthy'} == set(t.table.state)
        and not t.table.response.any()
    )
    edge = 1.5 * cell_lines[line].radius / simulate_microscope.um_per_px_evos
    far = distance_transform_edt(u.cells != one.cell.item()) * simulate_microscope.um_per_px_evos
    assert one.y.between(edge, 400 - edge).all() and one.x.between(edge, 500 - edge).all()
    d = np.abs(a.astype(int) - b)
    assert (
        d[far > 60].max() <= 1 and (d[far > 60] > 0).mean() < 0.01 < d[far == 0].mean()
    )  # beyond the halo nothing but rounding


def test_responding_cells_may_be_named():
    kw = dict(size=(200, 260), seed=2, effect=3)
    _, all_feel = simulate_field('MCF7', 'CPT', 3, **kw)
    some = all_feel.table.cell[all_feel.table.y.between(50, 150) & all_feel.table.x.between(50, 210)].tolist()[:2]
    a, t = simulate_field('MCF7', 'CPT', 3, responding=some, **kw)
    assert t.table.cell[t.table.response > 0].tolist() == some
    assert (
        simulate_field('MCF7', 'CPT', 3, responding=[], **kw)[0]
        == simulate_field('MCF7', 'DMSO', 3, responding=0, **kw)[0]
    ).all()


def test_the_twin_has_the_same_cells():
    (a, t), (b, u) = (simulate_field('MCF7', k, size=(200, 260), seed=5) for k in ('DMSO', 'CPT'))
    both = t.table.merge(u.table, on='cell')
    assert len(both) > 0.9 * len(t.table) and (both.y_x == both.y_y).all() and (both.x_x == both.x_y).all()
    assert np.abs(a.astype(int) - b).mean() < 0.3 * a.std()  # the same light, noise and mitochondria


def test_strength_rises_with_dose_and_hour():
    s = [drug_strength('U2OS', d, 1) for d in (0, 0.01, 0.1, 1, 10, 100)]
    assert s[0] == 0 and all(np.diff(s) > 0) and drug_strength('U2OS', 10, 0) == 0
    assert all(np.diff([drug_strength('H9', 10, h) for h in (0, 1, 2, 3)]) > 0)


def test_other_scales_keep_cells_their_size():
    n = [
        len(simulate_field('MCF7', size=s, um_per_px=u, seed=1, nuisance=dict(density=1.9))[1].table)
        for s, u in (((240, 320), 0.8), ((120, 160), 1.6))
    ]
    assert abs(n[0] - n[1]) < 0.35 * max(n)


def test_a_place_at_another_moment_has_the_same_cells_and_other_noise():
    kw = dict(line='MCF7', size=(110, 130), seed=3)
    (a, t), (b, u), (c, v) = (simulate_field(treatment='CPT', hour=h, visit=i, **kw) for i, h in enumerate((1, 1, 3)))
    assert (t.cells == u.cells).all() and 0 < np.abs(a.astype(int) - b).mean() < 0.2 * a.std()
    both = t.table.merge(v.table, on='cell')
    assert (
        len(both) > 0.9 * len(t.table) and (both.y_x == both.y_y).all() and (both.response_y >= both.response_x).all()
    )
    assert (simulate_field(treatment='CPT', hour=1, **kw)[0] == a).all()
    with pytest.raises(ValueError, match='visit=-1'):
        simulate_field(visit=-1, **kw)


def plan_of_wells(wells, **columns):
    "A map of some wells of a 24-well plate, with no other room's help."
    t = pd.DataFrame([dict(well=w, row=ord(w[0]) - 65, col=int(w[1:]) - 1) for w in wells])
    t = t.assign(
        treatment=['DMSO', 'CPT'] * (len(t) // 2),
        dose_um=[0.0, 10.0] * (len(t) // 2),
        role=['negative', 'sample'] * (len(t) // 2),
    )
    t.attrs['wells'] = 24
    return t.assign(**columns)


def test_a_layout_is_photographed_well_by_well(tmp_path):
    wells = ['A01', 'B02', 'B03', 'C04']
    layout = plan_of_wells(wells, order=[3, 1, 4, 2], plate='P7', treatment=['DMSO', 'drug X', 'DMSO', 'drug X'])
    kw = dict(lines='U2OS', hours=(0, 3), sites=1, size=(110, 130), workers=1, seed=5)
    out = simulate_experiment(tmp_path / 'set', layout=layout, **kw)
    names = sorted(p.name for p in out.glob('*.png'))
    assert names == sorted(f'N1_P7_U2_{w}_{h}h_1.png' for w in wells for h in (0, 3))
    told = pd.read_csv(out / 'truth' / 'fields.csv').set_index('file')
    assert told.treatment.to_dict() == {n: 'drug X' if ('B02' in n or 'C04' in n) else 'DMSO' for n in names}
    assert (told[told.treatment == 'DMSO'].strength == 0).all() and told.order.nunique() == 4
    assert (told[(told.treatment != 'DMSO') & (told.hour == 3)].strength > 0).all()
    for w in wells:
        a, b = (read_truth(out, f'N1_P7_U2_{w}_{h}h_1.png').table for h in (0, 3))
        both = a.merge(b, on='cell')
        assert len(both) > 0.9 * min(len(a), len(b)) and (both.y_x == both.y_y).all(), 'the same wells are followed'
    again = simulate_experiment(tmp_path / 'again', layout=layout, **kw)
    assert all_bytes(again) == all_bytes(out)

    from celldeath_nb.photos.fields import read_fields

    f = read_fields(out, pattern='{experiment}_{plate}_{line}_{well}_{hour:h}_{site}', label_from=None)
    assert set(f.well) == set(wells) and set(f.hour) == {0, 3} and set(f.plate) == {'P7'} and set(f.line) == {'U2OS'}


def test_edge_sowing_and_the_lamp_are_nuisance_that_can_be_switched_off():
    wells = [f'{r}{c:02d}' for r in 'ABCD' for c in range(1, 7)]
    layout = simulate_microscope._checked_layout(plan_of_wells(wells, order=range(1, 25)))
    off = dict.fromkeys(simulate_microscope.nuisance_spread, 0) | dict.fromkeys(simulate_microscope.nuisance_plate, 0)

    def settings(**on):
        rows = simulate_microscope._plan_of_layout(layout, ('U2OS',), (0, 1), 1, 7, off | on)
        return pd.DataFrame(
            [dict(row=r['well'][0], col=int(r['well'][1:]), hour=r['hour'], **r['nuisance']) for r in rows]
        )

    same = settings()[['density', 'dying', 'brightness', 'focus_um']]
    assert (same.nunique() == 1).all()
    edge = settings(edge=1)
    outer = edge.row.isin(['A', 'D']) | edge.col.isin([1, 6])
    assert edge.density[outer].max() < edge.density[~outer].min() and edge.dying[outer].min() > edge.dying[~outer].max()
    rows = settings(rows=1).groupby('row').density.mean()
    assert rows.is_monotonic_increasing or rows.is_monotonic_decreasing
    assert settings(columns=1).groupby('row').density.nunique().eq(6).all()
    lamp = settings(turns=1)
    assert all(g.brightness.is_monotonic_decreasing and g.focus_um.nunique() == 24 for _, g in lamp.groupby('hour'))
    assert lamp.groupby('hour').brightness.first().nunique() == 2, 'each round has a lamp of its own'


bad_layouts = [
    (dict(layout=plan_of_wells(['A01', 'A02']).drop(columns='role')), "no column 'role'"),
    (dict(layout=plan_of_wells(['A01', 'A02'], role='empty')), 'nothing to photograph'),
    (dict(layout=plan_of_wells(['A01', 'A02'], dose_um=[0, np.nan])), 'A02 has a treatment and no dose'),
    (dict(layout=plan_of_wells(['A01', 'A01'])), 'A01 stands twice'),
    (dict(layout=plan_of_wells(['A01', 'H12'])), 'on no plate of 24 wells'),
    (dict(layout=plan_of_wells(['A01', 'A02']), experiments=2), 'experiments=2 beside a layout'),
    (dict(layout=plan_of_wells(['A01', 'A02']), dose_um=(1, 2)), 'beside a layout'),
    (dict(layout=plan_of_wells(['A01', 'A02']), nuisance=dict(lamp=1)), 'Choose from'),
    (dict(nuisance=dict(edge=1)), 'edge'),
]


@pytest.mark.parametrize('kw,says', bad_layouts)
def test_bad_layouts_are_refused_before_anything_is_written(tmp_path, kw, says):
    with pytest.raises(ValueError) as e:
        simulate_experiment(tmp_path / 'set', lines=('U2OS',), sites=1, size=(110, 130), **kw)
    assert says in str(e.value) and not list(tmp_path.iterdir())


bad_fields = [
    (dict(line='U2S'), "Did you mean 'U2OS'"),
    (dict(line=None), 'is not known'),
    (dict(treatment='cpt'), 'Choose from: DMSO, CPT'),
    (dict(hour=-1), 'hour=-1'),
    (dict(hour=float('nan')), 'hour=nan'),
    (dict(hour='1'), "hour='1'"),
    (dict(treatment='CPT', dose_um=-1), 'dose_um=-1'),
    (dict(dose_um=3), 'holds no drug'),
    (dict(effect=-0.1), 'effect=-0.1'),
    (dict(size=(20, 20)), 'Give at least (97, 97)'),
    (dict(size=(480,)), 'height and width'),
    (dict(size=(480, 1e9)), 'at most 8192'),
    (dict(size=(480.5, 640)), 'whole number'),
    (dict(um_per_px=0), 'um_per_px=0'),
    (dict(responding=-1), 'responding=-1'),
    (dict(responding=1.5), 'whole number'),
    (dict(responding=10_000), 'cells lie well within the frame'),
    (dict(responding=[10_000]), 'Give numbers of its truth table'),
    (dict(um_per_px=float('inf')), 'um_per_px=inf'),
    (dict(nuisance=dict(focus=1)), "Did you mean 'focus_um'"),
    (dict(nuisance=dict(density=-1)), 'density'),
]


@pytest.mark.parametrize('kw,says', bad_fields)
def test_bad_fields_are_refused(kw, says):
    with pytest.raises(ValueError) as e:
        simulate_field(**kw)
    assert says in str(e.value)


bad_sets = [
    (dict(experiments=0), 'experiments=0'),
    (dict(experiments=1.5), 'whole number'),
    (dict(wells=0), 'wells=0'),
    (dict(sites=-1), 'sites=-1'),
    (dict(lines=()), 'at least one'),
    (dict(lines=('U2OS', 'U2OS')), 'none twice'),
    (dict(lines='U20S'), 'Did you mean'),
    (dict(treatments=('CPT', 'water')), 'Choose from'),
    (dict(hours=(1, -2)), 'hour=-2'),
    (dict(design='random'), 'balanced, confounded, wells'),
    (dict(design='confounded', experiments=1), 'Give experiments=2'),
    (dict(seed=-1), 'seed=-1'),
    (dict(workers=-2), 'workers=-2'),
    (dict(dose_um=-5), 'dose_um=-5'),
    (dict(nuisance=-1), 'refused'),
    (dict(nuisance={'lamp': 1}), 'Choose from'),
    (dict(size=(30, 30)), 'smaller than one'),
    (dict(effect=float('nan')), 'effect=nan'),
]


@pytest.mark.parametrize('kw,says', bad_sets)
def test_bad_plans_are_refused_before_anything_is_written(tmp_path, kw, says):
    with pytest.raises(ValueError) as e:
        simulate_experiment(tmp_path / 'set', **{**small, **kw})
    assert says in str(e.value) and not list(tmp_path.iterdir())


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('x')
    with pytest.raises(FileExistsError, match='holds other files'):
        simulate_experiment(tmp_path / 'mine', **small)
    assert [p.name for p in tmp_path.rglob('*')] == ['mine', 'thesis.txt']


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / 'new').mkdir()
    assert len(list(simulate_experiment(tmp_path / 'new', workers=1, **{**small, 'experiments': 1}).glob('*.png'))) == 2


def test_no_room_is_said_before_the_work(tmp_path):
    with pytest.raises(OSError, match='MB are free') as e:
        simulate_experiment(
            tmp_path / 'set',
            sites=1000,
            wells=1000,
            **{k: v for k, v in small.items() if k not in ('sites', 'wells')} | dict(size=(8000, 8000)),
        )
    assert e.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    real = Path.write_bytes
    n = []

    def write(self, b):
        n.append(1)
        if len(n) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, b)

    monkeypatch.setattr(Path, 'write_bytes', write)
    with pytest.raises(OSError, match='No space left'):
        simulate_experiment(tmp_path / 'set', workers=1, **small)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(signal, 'SIGINT') or os.name == 'nt', reason='signals of Unix')
def test_an_interrupted_run_leaves_no_set(tmp_path):
    "Also where the one who started it ignores interrupts, as `nohup` and a script's background do; and nothing is left running."
    code = f"""import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from celldeath_nb.simulate.microscope import simulate_experiment
simulate_experiment({str(tmp_path / 'set')!r}, sites=200, workers=1)"""
    p = subprocess.Popen(
        [sys.executable, '-c', code],
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'IN_TEST': '1', 'PYTHONPATH': str(Path(__file__).parents[1])},
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not list(tmp_path.rglob('*.png')) and time.monotonic() < end:
            time.sleep(0.05)
        assert p.poll() is None and list(tmp_path.rglob('*.png'))
        p.send_signal(signal.SIGINT)
        p.wait(30)
        assert p.returncode != 0 and not list(tmp_path.iterdir())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        p.wait()


def test_designs():
    def plan(design):
        return pd.DataFrame(
            simulate_microscope._plan(('U2OS',), ('DMSO', 'CPT'), (1,), 4, 2, 2, (10.0,), design, 0, {})
        )

    b, c, w = (plan(d) for d in ('balanced', 'confounded', 'wells'))
    assert (
        pd.crosstab(b.treatment, b.experiment).nunique().max() == 1
        and (pd.crosstab(c.treatment, c.experiment) == 0).sum().sum() == 4
    )
    assert not set(w[w.treatment == 'CPT'].well) & set(w[w.treatment == 'DMSO'].well) and set(
        b[b.treatment == 'CPT'].well
    ) == set(b[b.treatment == 'DMSO'].well)


def test_nuisance_may_be_switched_off():
    off = simulate_microscope._plan(
        ('U2OS',),
        ('DMSO', 'CPT'),
        (1,),
        2,
        1,
        1,
        (10.0,),
        'balanced',
        0,
        dict.fromkeys(simulate_microscope.nuisance_spread, 0),
    )
    assert all({**r['nuisance'], 'gradient_angle': 0} == {**nuisance_none, 'gradient_angle': 0} for r in off)
