"Folders and tables that were read wrongly in silence, each a kind: negated names, thousands, days, plates, splits, cells without a quote."

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from celldeath_nb.evaluate.preds import as_preds
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.plates.maps import read_plate_map
from celldeath_nb.road import _no_half_split, _refuse_leak
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.trust.confounders import confounding
from celldeath_nb.units import unit_ids


def grow(folder, names):
    for i, o in enumerate(names):
        (folder / o).parent.mkdir(parents=True, exist_ok=True)
        px = np.random.default_rng(i).integers(0, 255, (12, 16), dtype=np.uint8)
        Image.fromarray(px).save(folder / o)
    return folder


def read(tmp_path, names, table=None, **kw):
    "The photographs of these names, and what was said."
    if table is not None:
        (tmp_path / 't.csv').write_bytes(table if isinstance(table, bytes) else table.encode())
        kw['label_from'] = tmp_path / 't.csv'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        return read_fields(grow(tmp_path / 'in', names), **kw), ' '.join(str(o.message) for o in said)


@pytest.mark.parametrize('no', ['-CPT', 'CPT (-)', 'CPT negative', 'w-o CPT', 'CPT [neg]', 'without_CPT'])
def test_a_negated_name_is_not_the_class(no, tmp_path):
    with pytest.raises(ValueError, match='says that it is not CPT'):
        read(tmp_path, [f'{no}_1.png', 'CPT_2.png', 'DMSO_3.png'])


def test_a_negative_control_is_a_control(tmp_path):
    f, _ = read(tmp_path, ['neg_control_1.png', 'control negative 2.png', 'CPT_3.png'], labels=['control', 'CPT'])
    assert f.label.tolist().count('control') == 2


def test_underscores_make_no_second_class(tmp_path):
    with pytest.raises(ValueError, match="'CPT high' and 'CPT_high'"):
        read(tmp_path, ['CPT_high/1.png', 'CPT high/2.png'])


@pytest.mark.parametrize(
    'part, column, value, said',
    [
        ('1,000nM', 'dose_um', None, 'looks like a dose'),
        ('-24h', 'hour', None, 'looks like a dose or a time'),
        ('24-48h', 'hour', None, 'looks like a dose or a time'),
        ('1uM_20uM', 'dose_um', None, 'two doses or two times'),
        ('06h40', 'hour', 6.666667, ''),
        ('0.5_uM', 'dose_um', 0.5, ''),
        ('020124', 'site', None, ''),
        ('31.01.2024', 'date', '2024-01-31', ''),
        ('20240131_081545', 'site', None, ''),
    ],
)
def test_amounts_and_days_in_names(part, column, value, said, tmp_path):
    f, heard = read(tmp_path, [f'{c}_{part}.png' for c in ('CPT', 'DMSO')])
    got = f[column] if column in f else pd.Series([None])
    assert got.isna().all() if value is None else (got == value).all()
    assert said in heard and bool(said) == bool(heard)


def test_folders_that_number_times_are_named(tmp_path):
    f, heard = read(tmp_path, [f'{c}/T{i}/1.png' for c in ('infected', 'mock') for i in (0, 1)])
    assert 'T0, T1 look like a series of times' in heard and f.frame.tolist() == ['T0', 'T1'] * 2


wells = ['plate1/A01/1.png', 'plate1/B01/1.png', 'plate2/A01/1.png', 'plate2/B01/1.png']


def test_plates_and_wells_meet_in_one_spelling(tmp_path):
    f, heard = read(tmp_path, wells, 'Plate ID;Well Position;label\n1;r01c01;x\n1;b1;y\nP02;A-1;y\nP02;B1;x\n')
    assert f.label.tolist() == ['x', 'y', 'y', 'x'] and not heard
    f, heard = read(tmp_path, wells, 'Row,Column,label\nA,1,x\nB,1,y\n')
    assert f.label.tolist() == ['x', 'y'] * 2 and 'each of 2 plates' in heard
    assert unit_ids(pd.DataFrame(dict(well=['A1', 'r01c01', 'a-01', 'r27c3', 'AA3']))).tolist() == [0, 0, 0, 1, 1]


def test_a_table_of_several_plates_asks_for_the_plate(tmp_path):
    with pytest.raises(ValueError, match='speaks of 2 plates .* do not tell theirs'):
        read(tmp_path, ['A01_1.png', 'B01_1.png'], 'plate,well,label\n1,A1,x\n2,B1,y\n', pattern='{well}_{site}')


def test_sides_of_a_split_in_a_table(tmp_path):
    names = [f'{i}.png' for i in range(4)]
    form = 'file,label,{}\n0.png,x,{}\n1.png,y,{}\n2.png,x,{}\n3.png,y,{}\n'
    f, _ = read(tmp_path, names, form.format('Split', 'Training', 'Val', 'Hold-out', 'test'))
    assert f.split.tolist() == ['train', 'valid', 'test', 'test']
    f, _ = read(tmp_path, names, form.format('Set', 'a', 'b', 'a', 'b'))
    assert f['Set'].tolist() == ['a', 'b', 'a', 'b'] and 'split' not in f
    with pytest.raises(ValueError, match='its sides are called train, valid and test'):
        read(tmp_path, names, form.format('split', 'foo', 'bar', 'foo', 'bar'))
    half, _ = read(tmp_path, names, form.format('split', 'train', 'train', 'test', ''))
    with pytest.raises(ValueError, match=r"3 of 4 photographs.*3.png has no side.*test='drawn'"):
        _no_half_split(half)
    _no_half_split(half.assign(split='train')), _no_half_split(half.drop(columns='split'))
    with pytest.raises(ValueError, match=r"leaks\. 1 of 1 groups \(experiment\).*test='drawn'"):
        _refuse_leak(half.assign(split=['train', 'test'] * 2, experiment='N1'), group='experiment')


def test_what_a_table_lacks_is_said(tmp_path):
    with pytest.raises(ValueError, match="no column label.*label_by='COLUMN' takes another one of category"):
        read(tmp_path, ['a.png', 'b.png'], 'file,category\na.png,x\nb.png,y\n')
    f, _ = read(tmp_path, ['a.png', 'b.png'], 'file,Category\na.png,x\nb.png,y\n', label_by='category')
    assert f.label.tolist() == ['x', 'y']
    with pytest.raises(ValueError, match='nearest: a.png'):
        read(tmp_path, ['a.png', 'b.png'], 'file,label\nA.PNG,x\nb.png,y\n')
    _, heard = read(tmp_path, ['a.png', 'b.png'], 'file;label\na.png;контроль\nb.png;x\n'.encode('cp1251'))
    assert 'western Windows text' in heard


def test_a_rule_may_speak_of_the_label(tmp_path):
    f, _ = read(tmp_path, ['CPT, 5 uM/1.png', 'None/1.png', '001/1.png'], where='label=CPT, 5 uM')
    assert f.label.tolist() == ['CPT, 5 uM']
    with pytest.raises(ValueError, match='the column hour is empty'):
        read(tmp_path, [], where='hour=1')


@pytest.mark.parametrize(
    'text, want',
    [
        ('well,treatment,dose_um\nA1,x,0,5\nB1,y,1\n', 'row 2: 4 cells under 3'),
        ('well,treatment,dose_um\nA1,x,"1,000 nM"\n', 'without a comma'),
        ('well;treatment;dose_um\nA1;x;0,125\nB1;y;1,125\n', [0.125, 1.125]),
        ('Well ID\tCompound\tConc (nM)\nA1\tx\t0,5\n\t\t\nB1\ty\t1\n', [0.0005, 0.001]),
    ],
)
def test_a_plate_map_is_read_as_any_other_table(text, want, tmp_path):
    (tmp_path / 'm.csv').write_text(text)
    if isinstance(want, list):
        assert read_plate_map(tmp_path / 'm.csv').dose_um.tolist() == want
        return
    with pytest.raises(ValueError, match=want):
        read_plate_map(tmp_path / 'm.csv')


@pytest.mark.parametrize('code', ['utf-8-sig', 'cp1252', 'utf-16'])
@pytest.mark.filterwarnings('ignore:.*western Windows text')
def test_predictions_as_a_spreadsheet_saves_them(code, tmp_path):
    text = 'größe;file;y;p_001;p_NA\n;a.png;001;0,25;0,75\n;;;;\n1;b.png;NA;1;0\n'
    (tmp_path / 'p.csv').write_bytes(text.encode(code))
    p = as_preds(tmp_path / 'p.csv', truth='y', probs={'001': 'p_001', 'NA': 'p_NA'}, tile='file')
    assert p.label.tolist() == ['001', 'NA'] and p.p_001.tolist() == [0.25, 1.0] and p.pred.tolist() == ['NA', '001']


def test_folders_that_a_pattern_names_are_no_wells(tmp_path):
    "Donors called D1 and D2: the pair of donor and batch that gives the label away is found, since no well is made of them."
    cells = [('D1', '1', 'x'), ('D1', '2', 'y'), ('D2', '1', 'y'), ('D2', '2', 'x')]
    names = [f'{d}/{c}/b{b}_{i}.png' for d, b, c in cells for i in range(5)]
    f, heard = read(tmp_path, names, pattern='{donor}/{label}/b{batch}_{site}')
    assert f.well.isna().all() and set(f.donor) == {'D1', 'D2'} and not heard
    assert [o['factor'] for o in confounding(f).caught] == ['donor x batch']


def test_a_part_of_tiles_by_a_rule(tmp_path):
    f, _ = read(tmp_path, [f'CPT_{h}h_{i}.png' for h in (1, 24) for i in range(2)])
    t = cut_tiles(f, tmp_path / 't', grid=(1, 1))
    assert t.subset('hour=24').table.hour.tolist() == [24.0] * 2 and len(t.subset({'hour': 1, 'site': '0'})) == 1
    for odd, why in (('foo=1', "no column 'foo'"), (['hour'], 'takes a mask'), ([0.5], 'takes a mask')):
        with pytest.raises(ValueError, match=why):
            t.subset(odd)
