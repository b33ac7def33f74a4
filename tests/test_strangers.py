"Folders of strangers: every one ends in a table, a report or one readable question; nothing is lost in silence, nothing is a fault of the program."

import os
import random
import re
import shutil
import stat
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from celldeath_nb.cli import main
from celldeath_nb.evaluate.preds import as_preds
from celldeath_nb.evaluate.scores import metrics
from celldeath_nb.files import read_csv, write_csv
from celldeath_nb.learn.prediction import predict
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.training import train
from celldeath_nb.people.judging import read_judgements
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.road import train_safely
from celldeath_nb.tiles.cut import add_photographs, cut_tiles
from celldeath_nb.tiles.splits import split_by
from celldeath_nb.tiles.store import open_tiles
from celldeath_nb.trust.audits import audit
from celldeath_nb.trust.maps import cam

SLOW = bool(os.environ.get('CELLDEATH_SLOW'))

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
two = ('drug', 'DMSO')


def photo(path, seed, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    rng = np.random.default_rng(seed)
    px = 120 + 40 * np.sin(x / rng.uniform(3, 9)) * np.cos(y / rng.uniform(3, 9)) + rng.normal(0, 9, size)
    Image.fromarray(px.clip(0, 255).astype(np.uint8)).save(path)


def grow(folder, names):
    for i, o in enumerate(names):
        photo(folder / o, i)
    return folder


def crossed(form, n=3, **levels):
    "Names from a form: every combination of the levels, `n` photographs of each."
    rows = [dict(zip(levels, r)) for r in product(*levels.values())]
    return [form.format(i=i, **r) for r in rows for i in range(1, n + 1)]


guid = '0F8FAD5B-D9CB-469F-A165-7086{i:08d}'
# what each tree is, its files, words for the command, and what has to come of it: classes, or words of the question
trees = {
    'ImageXpress, classes in folders': (crossed('{c}/plate1_{w}_s{i}_w1' + guid + '.tif', c=two, w=('A01', 'B02')), [], set(two)),
    'ImageXpress, two channels': (crossed('{c}/p_{w}_s{i}_w{k}.tif', c=two, w=('A01',), k=(1, 2)), [], 'several channels'),
    'ImageXpress, two channels, one named': (
        crossed('{c}/p_{w}_s{i}_w{k}.tif', c=two, w=('A01',), k=(1, 2)), ['--where', 'channel=1'], set(two)),
    'Operetta, a plate and no map': (crossed('Images/r{r}c01f{i:02d}p01-ch1sk1fk1fl1.tiff', r=('01', '02')), [], 'No labels'),
    'Operetta, a plate map': (crossed('Images/r{r}c01f{i:02d}p01-ch1sk1fk1fl1.tiff', r=('01', '02')), 'well,label\nA1,drug\nB1,DMSO\n', set(two)),
    'Incucyte': (crossed('VID1_{c}_{w}_{i}_00d{h}h00m.tif', c=('CPT', 'DMSO'), w=('A1',), h=('06', '12')), [], {'CPT', 'DMSO'}),
    'EVOS': (crossed('{c}/scan_Plate_R_p00_0_A01f{i:02d}d0.TIF', c=two), [], set(two)),
    'Gen5': (crossed('{c}/B3_-1_1_{i}_Phase Contrast_001.tif', c=two), [], set(two)),
    'Leica': (crossed('{c}/Project_Position{i:03d}_t00_ch00.tif', c=two), [], set(two)),
    'Nikon': (crossed('{d}/{c}/well_xy{i:02d}c1.tif', d=('2024-01-31', '2024-02-07'), c=two), [], set(two)),
    'ZEN': (crossed('{c}/Image_s{i}c1_ORG.tif', c=('infected', 'uninfected')), [], {'infected', 'uninfected'}),
    'CellVoyager': (crossed('{c}/Assay_{w}_T0001F{i:03d}L01A01Z01C01.tif', c=two, w=('B03', 'B04')), [], set(two)),
    'a split of one\'s own': (crossed('{s}/{c}/{i}.png', n=4, s=('train', 'val', 'test'), c=two), [], set(two)),
    'experiment above class': (crossed('exp{e}/{c}/img {i}.png', e=(1, 2), c=two), [], set(two)),
    'class above experiment': (crossed('{c}/exp{e}/{i}.png', e=(1, 2), c=two), [], set(two)),
    'two unknown levels': (crossed('{a}/{b}/{i}.png', a=('ann', 'bob'), b=('p', 'q')), [], 'More than one level'),
    'two unknown levels, one named': (
        crossed('{a}/{b}/{i}.png', a=('ann', 'bob'), b=('p', 'q')), ['--pattern', '{person}/{label}/{name}'], {'p', 'q'}),
    'hand-named, with blanks': (crossed('day 3 {c} plate{p} no {i}.jpg', c=('KO', 'WT'), p=(1, 2)), ['--labels', 'KO', 'WT'], {'KO', 'WT'}),
    'hand-named, with doses': (crossed('MCF-7_CPT_{d}_24 h_{i}.png', d=('0,1uM', '100 nM', '1mM')), ['--label', 'dose_um'], {'0.1', '1000'}),
    'near twins': (crossed('{c}/{i}.png', c=('Dead', 'dead')), [], "'Dead' and 'dead'"),
    'no words at all': (crossed('IMG_{i:04d}.png', n=6), [], 'No labels'),
    'dots in place of underscores': (crossed('{c}.{h}h.rep{i}.tif', c=('WT', 'KO'), h=(24, 48)), ['--labels', 'WT', 'KO'], {'WT', 'KO'}),
    'a folder a visit': (crossed('{d} anna/{c} ({i}).jpg', d=('2024-03-01', '2024-03-08'), c=('treated', 'control')), [], 'No labels'),
    'donors, plates, wells': (
        crossed('Donor {d}/Plate 1/well {w}_{i}.tiff', d=('A', 'B'), w=('B3/infected', 'C4/mock')), ['--labels', 'infected', 'mock'], {'infected', 'mock'}),
    'times above classes': (crossed('{h}/{c}/{i}.png', h=('0h', '24h'), c=two), [], set(two)),
}  # fmt: skip


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def f(*args):
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in args])
        out = capsys.readouterr()
        said = out.out + out.err
        assert 'Traceback' not in said and 'fault of this program' not in said, said
        return e.value.code, said

    return f


def words_of(words, tmp_path):
    if isinstance(words, str):
        (tmp_path / 'map.csv').write_text(words)
        return ['--label-from', 'map.csv']
    return words


@pytest.mark.parametrize('what', trees)
def test_a_strangers_folder_is_explained_or_asked_about(what, call, tmp_path):
    files, words, want = trees[what]
    grow(tmp_path / 'in', files)
    before = sorted(o.name for o in (tmp_path / 'in').rglob('*'))
    code, said = call('explain', 'in', *words_of(words, tmp_path))
    assert sorted(o.name for o in (tmp_path / 'in').rglob('*')) == before
    if isinstance(want, str):
        assert code == 1 and want in said, said
        return
    assert code == 0 and f'{len(files)} photographs' in said or '--where' in words, said
    label = re.search(r'label: (.*)', said)[1]
    assert all(f'{o} (' in label for o in want), said


@pytest.mark.parametrize('what', trees)
@pytest.mark.long
def test_a_strangers_folder_goes_the_whole_road(what, call, tmp_path):
    files, words, want = trees[what]
    grow(tmp_path / 'in', files)
    code, said = call(
        'demo', '--data', 'in', '--out', 'out', '--epochs', '1', '--places', 'off', *words_of(words, tmp_path)
    )
    if isinstance(want, str):
        assert code == 1 and want in said and not (tmp_path / 'out').exists(), said
        return
    assert code == 0 and (tmp_path / 'out' / 'report.html').is_file(), said
    p = read_csv(tmp_path / 'out' / 'run' / 'predictions.csv', dtype={'label': str})
    assert set(p.label) == want
    if 'split' in what:
        assert 'the split that is there is kept' in said
        side = p.field.str.split('/').str[0].map(dict(train='train', val='valid', test='test'))
        assert (p.split == side).all()


@pytest.mark.parametrize(
    'name, want',
    [
        ('t00', 'a number in a series'),
        ('d1', 'a number in a series'),
        ('5mg', 'a dose or a time'),
        ('30m', 'a dose or a time'),
    ],
)
def test_what_was_not_read_is_said_as_what_it_may_be(name, want, tmp_path):
    grow(tmp_path, [f'{c}_{name}_{i}.png' for c in ('CPT', 'DMSO') for i in (1, 2)])
    with pytest.warns(UserWarning, match=f'4 names hold what looks like {want} and was not read: {name} '):
        f = read_fields(tmp_path)
    assert 'hour' not in f or f.hour.isna().all()


odd_names = st.lists(
    st.one_of(
        st.sampled_from(['None', 'NA', 'null', 'nan', '0', '001', '1e2', '+Dox', '-Dox', 'CPT, 5 uM', 'say "x"', "'q", '=1+1', 'контроль', '対照', 'True']),
        st.text(st.characters(blacklist_categories=('Cs', 'Cc', 'Zs', 'Zl', 'Zp', 'Cf', 'Mn', 'Lm', 'Cn', 'Co')), min_size=1, max_size=8),
    ),
    min_size=2, max_size=3, unique=True,
)  # fmt: skip


@pytest.fixture(scope='module')
def twelve(tmp_path_factory):
    "Twelve photographs without words in their names, and a table beside them that can be written anew."
    d = tmp_path_factory.mktemp('odd')
    grow(d / 'in', [f'{i:02d}.png' for i in range(12)])
    return d


@quick
@given(odd_names)
@pytest.mark.long
def test_any_name_of_a_class_survives_every_table(twelve, names):
    from celldeath_nb.photos.classes import clean_name, twins

    names = [clean_name(o) for o in names]
    if None in names or twins(names) or len(set(names)) < 2:
        return
    label = [names[i % len(names)] for i in range(12)]
    write_csv(pd.DataFrame(dict(file=[f'{i:02d}.png' for i in range(12)], label=label)), twelve / 'l.csv')
    f = read_fields(twelve / 'in', label_from=twelve / 'l.csv')
    assert f.label.tolist() == label
    t = cut_tiles(f, twelve / 't', grid=(1, 1), overwrite=True)
    assert open_tiles(twelve / 't').table.label.tolist() == label
    p = t.table[['tile', 'label']].assign(**{f'p_{o}': float(o == names[0]) for o in names}, pred=names[0])
    write_csv(p, twelve / 'p.csv')
    back = as_preds(twelve / 'p.csv', probs={o: f'p_{o}' for o in names})
    assert back.label.tolist() == label and set(back.pred) == {names[0]}
    columns = dict(decider='ann', kind='human', session='pre', trial=range(1, 13), tile=t.table.tile, truth=label)
    write_csv(pd.DataFrame(dict(columns, answer=label[::-1], seconds=1.0)), twelve / 'j.csv')
    j = read_judgements(twelve / 'j.csv')
    assert j.truth.tolist() == label and j.answer.tolist() == label[::-1]


@pytest.mark.long
def test_odd_names_go_the_whole_road(call, tmp_path):
    for c in ('None', '-Dox, 5 "uM"'):
        grow(tmp_path / 'in', [f'{c}/{i}.png' for i in range(6)])
    for i, o in enumerate(sorted((tmp_path / 'in').rglob('*.png'))):
        photo(o, i)
    assert call('slice', 'in', '--label-from', 'folder', '--out', 't')[0] == 0
    code, said = call('train', 't', '--out', 'r', '--epochs', '1', '--places', 'off')
    assert code == 0, said
    from celldeath_nb.learn.runs import open_run

    p = open_run(tmp_path / 'r').preds
    assert set(p.label) == {'None', '-Dox, 5 "uM"'} and p.pred.notna().all()
    code, said = call('predict', 'r', 'in', '--out', 'p.csv', '--label-from', 'folder')
    assert code == 0 and 'were called as they are labeled' in said, said


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(st.sampled_from(['line', 'experiment', 'well', 'hour', 'treatment', 'site', 'dose_um'])), st.randoms())
def test_columns_and_cells_may_be_missing(store, gone, rnd):
    "Whatever the names did not tell, every verb goes to its end, or says in a sentence what it lacks."
    t = store.table.copy()
    for c in ('line', 'experiment', 'well', 'hour', 'treatment', 'dose_um'):
        cells = [rnd.random() < 0.3 for _ in range(len(t))]
        t[c] = t[c].astype(object).mask(pd.Series(cells, t.index) | (c in gone))
        if c in ('hour', 'dose_um'):
            t[c] = t[c].astype(float)
    t = store.add(**{c: t[c].to_numpy() for c in ('line', 'experiment', 'well', 'hour', 'treatment', 'dose_um')})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        t = split_by(t, None, 0.3)
        found = audit(t, pairs=pd.DataFrame(columns=['tile_a', 'tile_b', 'score', 'kind']), controls=None)
        assert found.verdict
        p = t.table.assign(p_CPT=[rnd.random() for _ in range(len(t))])
        p['p_DMSO'] = 1 - p.p_CPT
        assert 0 <= metrics(p)['accuracy'] <= 1


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    d = tmp_path_factory.mktemp('cells')
    grow(d / 'in', crossed('U2_{c}{w}_1H_{i:04d}_{e}.png', n=2, c=('CPT', 'DMSO'), w=(1, 2), e=('N1', 'N2', 'N3')))
    return cut_tiles(read_fields(d / 'in'), d / 't', grid=(1, 1))


told = ['line', 'experiment', 'well', 'hour', 'treatment', 'site', 'dose_um']


def less(fields, seed):
    "The photographs with columns and cells taken away: all columns, all cells, or by chance."
    rnd = random.Random(seed)
    out = fields.copy()
    for c in told:
        how = {'no columns': 'gone', 'no cells': 'empty'}.get(seed) or rnd.choice(['whole', 'gone', 'empty', 'holes'])
        keep = [how == 'whole' or how == 'holes' and rnd.random() > 0.3 for _ in range(len(out))]
        out = out.drop(columns=c) if how == 'gone' else out.assign(**{c: out[c].where(pd.Series(keep, out.index))})
    out.attrs.update(fields.attrs)
    return out


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('seed', ['no columns', 'no cells', 0, 3, *(range(4, 20) if SLOW else ())])
@pytest.mark.long
def test_the_whole_road_whatever_is_missing(photographs, seed, tmp_path):
    "Cut, split, audit, train, predict, count, maps, report."
    t = cut_tiles(less(read_fields(photographs), seed), tmp_path / 't', grid=(1, 1))
    tiny = Recipe.quick(epochs=1, min_steps=0, size=32, batch_size=8)
    road = train_safely(t, tmp_path / 'r', tiny, fit_batch=False)
    assert road.found.verdict and (tmp_path / 'r' / 'report.html').stat().st_size > 10_000
    p = predict(road.run.model, t)
    assert len(p) == len(t) and 0 <= metrics(p)['accuracy'] <= 1
    assert len(cam(road.run.model, t[:2]).maps) == 2


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    names = crossed('U2_{c}{w}_1H_{i:04d}_{e}.png', n=2, c=('CPT', 'DMSO'), w=(1, 2), e=('N1', 'N2', 'N3'))
    return grow(tmp_path_factory.mktemp('road'), names)


def test_the_command_takes_what_it_advises(call, tmp_path):
    for i, c in enumerate(('x', 'y')):
        for k in range(3):
            photo(tmp_path / 'crops' / c / f'{k}.png', 3 * i + k, (34 + 3 * k + i, 46 + 2 * k))
    code, said = call('slice', 'crops', '--out', 't')
    assert code == 1 and '--resize-to HEIGHTxWIDTH' in said and 'resize_to' not in said, said
    code, said = call('slice', 'crops', '--out', 't', '--grid', '1x1', '--resize-to', '32x32', '--allow', 'sizes')
    assert code == 0 and '6 tiles of 32x32' in said, said
    assert (
        call(
            'slice',
            '--labels',
            'x',
            'y',
            'crops',
            '--label-from',
            'folder',
            '--out',
            'u',
            '--grid',
            '1x1',
            '--resize-to',
            '32x32',
        )[0]
        == 0
    )
    code, said = call('slice', 'crops', '--label-from', 'none', '--out', 'v', '--grid', '1x1', '--resize-to', '32x32')
    assert code == 0 and 'without labels' in said, said


def dressed(rows, dress, folder):
    "A table as one program or another saves it."
    if dress == 'xlsx':
        openpyxl = pytest.importorskip('openpyxl')
        book = openpyxl.Workbook()
        for r in [[], *rows, []]:
            book.active.append(r)
        book.save(folder / 't.xlsx')
        return folder / 't.xlsx'
    sep = ';' if 'semicolons' in dress else '\t' if 'tabs' in dress else ','
    rows = [
        [
            o.replace('.', ',') if sep == ';' and o[:1].isdigit() and o.count('.') == 1 and o[-1].isdigit() else o
            for o in r
        ]
        for r in rows
    ]
    lines = [sep.join(f'"{o}"' if sep in o else o for o in r) for r in rows]
    if 'blank rows' in dress:
        lines = ['', lines[0], sep * (len(rows[0]) - 1), *lines[1:], '', sep]
    if 'sep=' in dress:
        lines = [f'sep={sep}', *lines]
    end = '\n' if 'Unix' in dress else '\r\n'
    code = (
        'cp1252' if 'ANSI' in dress else 'utf-16' if 'UTF-16' in dress else 'utf-8-sig' if 'mark' in dress else 'utf-8'
    )
    (folder / 't.csv').write_bytes((end.join(lines) + end).encode(code))
    return folder / 't.csv'


dresses = [
    'commas', 'commas, Unix', 'commas, byte order mark', 'semicolons, ANSI', 'semicolons, blank rows', 'tabs, UTF-16', 'semicolons, sep=',
    'commas, ANSI, blank rows', 'semicolons, UTF-16', 'xlsx',
]  # fmt: skip


@pytest.mark.parametrize('dress', dresses)
def test_a_table_in_every_dress_of_excel(dress, tmp_path):
    "Labels, doses, judgements and plate maps; cells such as None, NA and 001 stay what they are."
    from celldeath_nb.photos.joins import read_table
    from celldeath_nb.plates.maps import read_plate_map

    grow(tmp_path / 'in', [f'{i}.png' for i in range(4)])
    classes = ['größer', 'NA', '001', 'a b']
    rows = [['file', 'label', 'dose_um'], *[[f'{i}.png', c, '0.5'] for i, c in enumerate(classes)]]
    t = dressed(rows, dress, tmp_path)
    assert read_table(t).label.tolist() == classes and read_table(t).shape == (4, 3)
    f = read_fields(tmp_path / 'in', label_from=t)
    assert f.label.tolist() == classes and f.dose_um.tolist() == [0.5] * 4
    head = ['decider', 'kind', 'session', 'trial', 'tile', 'truth', 'answer', 'seconds']
    rows = [['Jörg', 'human', 'pre', str(i), f'{i}.png#0', c, classes[0], '2'] for i, c in enumerate(classes)]
    j = read_judgements(dressed([head, *rows], dress, tmp_path))
    assert j.truth.tolist() == classes and set(j.decider) == {'Jörg'} and set(j.answer) == {classes[0]}
    rows = [['well', 'treatment', 'dose_um'], ['A1', 'größer', '0.5'], ['B1', 'NA', '0.5']]
    m = read_plate_map(dressed(rows, dress, tmp_path))
    assert m.treatment.tolist() == ['größer', 'NA'] and m.dose_um.tolist() == [0.5, 0.5]


def opened():
    "The files that this process holds open."
    for o in os.listdir('/proc/self/fd'):
        try:
            if stat.S_ISREG(os.stat(f'/proc/self/fd/{o}').st_mode):
                yield os.readlink(f'/proc/self/fd/{o}')
        except OSError:
            pass  # it was closed in between


@pytest.fixture
def windows(monkeypatch):
    "What Windows refuses is refused: links, folders opened as files, and to remove or rename what is open; calls that it lacks are gone."
    was = {k: getattr(os, k) for k in ('unlink', 'remove', 'rename', 'replace', 'open')}

    def in_use(path):
        path = os.path.abspath(os.fspath(path))
        return any(o == path or o.startswith(path + os.sep) for o in opened())

    def careful(name):
        def f(path, *to, **kw):
            for o in (path, *to):
                if in_use(o):
                    raise PermissionError(13, 'The process cannot access the file because it is being used', str(o))
            return was[name](path, *to, **kw)

        return f

    def open_(path, *args, **kw):
        if os.path.isdir(path):
            raise PermissionError(13, 'Permission denied', str(path))
        return was['open'](path, *args, **kw)

    def no_link(path, to, **kw):
        raise OSError(1314, 'A required privilege is not held by the client', str(to))

    monkeypatch.setattr(shutil, '_use_fd_functions', False)
    for k in ('unlink', 'remove', 'rename', 'replace'):
        monkeypatch.setattr(os, k, careful(k))
    monkeypatch.setattr(os, 'open', open_)
    monkeypatch.setattr(os, 'symlink', no_link)
    for k in ('preadv', 'pread', 'posix_fallocate', 'posix_fadvise', 'sched_getaffinity', 'getuid'):
        monkeypatch.delattr(os, k, raising=False)


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='open files are looked up where Linux lists them')
@pytest.mark.filterwarnings('ignore')
def test_what_windows_refuses_is_not_needed(windows, photographs, tmp_path):
    "Cut, add to, split, train, train again over it, predict from a folder, from files and from tiles."
    with open(tmp_path / 'held', 'w') as held, pytest.raises(PermissionError):
        os.unlink(held.name)
    f = read_fields(photographs)
    cut_tiles(f[:20], tmp_path / 't', grid=(1, 1))
    t = cut_tiles(f[:22], tmp_path / 't', grid=(1, 1), overwrite=True)
    t = add_photographs(tmp_path / 't', f)
    assert len(t) == 24
    tiny = Recipe.quick(epochs=1, min_steps=0, size=32, batch_size=8)
    t = split_by(t, 'experiment=N3', 0.3)
    for again in (False, True):
        run = train(t, tiny, tmp_path / 'r', overwrite=again, duplicates='ignore')
    model = run.model
    files = sorted(photographs.rglob('*.png'))[:3]
    for what, n in ((photographs, 24), (files, 3), (t, 24)):
        p = predict(model, what, out=tmp_path / 'p.csv')
        assert len(p) == len(read_csv(tmp_path / 'p.csv')) == n
        assert sorted(o.name for o in tmp_path.iterdir()) == ['held', 'p.csv', 'r', 't']  # nothing is left behind


def crop(path, dead, size, seed):
    "One cell, cut out by another tool: a dead one is spotted."
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    rng = np.random.default_rng(seed)
    r = ((y / size[0] - 0.5) ** 2 + (x / size[1] - 0.5) ** 2) / 0.15
    spots = 40 * (np.sin(1.3 * x) * np.sin(1.1 * y) > 0.3) * (r < 1)
    px = 90 + 70 * np.exp(-1.5 * r) + dead * spots + rng.normal(0, 4, size)
    Image.fromarray(px.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def crops(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        crop(tmp_path / 'crops' / ('dead' if i % 2 else 'alive') / f'{i:02d}.png', i % 2, rng.integers(10, 100, 2), i)
    return tmp_path


@pytest.mark.long
def test_crops_of_single_cells_are_cut_learned_and_predicted(call, crops):
    "Each of another size; what is advised can be typed, and no crop is mirrored or stretched."
    code, said = call('slice', 'crops', '--out', 't')
    assert code == 1 and '--edge gray' in said and len(said) < 1000, said
    code, said = call('slice', 'crops', '--out', 't', '--tile', '100x100')
    assert code == 1 and '--edge' in said and len(said) < 1000, said
    code, said = call('slice', 'crops', '--out', 't', '--edge', 'gray')
    assert code == 0, said
    t = open_tiles('t')
    assert len(t) == 24
    for i, f in enumerate(t.table.field):
        px = np.asarray(Image.open(crops / 'crops' / f))
        h, w = px.shape
        assert (t[i][:h, :w] == px).all()
        around = np.concatenate([t[i][h:].ravel(), t[i][:, w:].ravel()])
        rim = np.concatenate([px[0], px[-1], px[:, 0], px[:, -1]])
        assert len(np.unique(around)) <= 1 and (not len(around) or around[0] == int(np.median(rim)))
    code, said = call('train', 't', '--out', 'r', '--epochs', '1', '--places', 'off')
    assert code == 0, said
    crop(crops / 'more' / 'wide.png', 1, (30, 130), 99)  # larger than any before
    crop(crops / 'more' / 'tall.png', 0, (60, 20), 98)
    code, said = call('predict', 'r', 'more', '--out', 'p.csv')
    assert code == 0, said
    p = read_csv('p.csv')
    assert p.field.value_counts().to_dict() == {'wide.png': 2, 'tall.png': 1}


@pytest.mark.long
def test_what_was_taken_for_one_place_can_be_overruled(call, tmp_path):
    for i in range(12):  # crops of blank ground look alike
        crop(tmp_path / 'in' / ('x' if i % 2 else 'y') / f'{i}.png', 0, (40, 40), i % 2 + 2 * (i > 9))
    code, said = call('slice', 'in', '--out', 't', '--allow', 'duplicates')
    assert code == 0, said
    code, said = call('train', 't', '--out', 'r', '--epochs', '1')
    assert code == 1 and '--places off' in said, said
    code, said = call('train', 't', '--out', 'r', '--epochs', '1', '--places', 'off', '--overwrite')
    assert code == 0, said
