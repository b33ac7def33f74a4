"What the notebooks on plates do not teach: every bad input with its sentence, files as labs keep them, exactness against plain computations, promises kept."

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import least_squares
from scipy.special import expit, logit

from celldeath_nb.plates.curves import effective_dose, fit_curve, fit_curves
from celldeath_nb.plates.doses import dose_response, plot_dose_response
from celldeath_nb.plates.hours import detection_times, kinetics
from celldeath_nb.plates.layouts import layout_html, layout_plate, write_layout
from celldeath_nb.plates.maps import check_map, parse_dose, parse_well, plate_shape, read_plate_map, well_name
from celldeath_nb.plates.plans import plan_experiment, plan_sentence, variance_components
from celldeath_nb.plates.plates import export_profiles, plate_luck, plot_plate, simulate_plate_scores, well_scores
from celldeath_nb.plates.quality import plate_quality, wells_to_repeat
from celldeath_nb.simulate.microscope import cell_lines


def refused(f, *words):
    "The one sentence with which `f` refuses; it ends like a sentence and holds all `words`."
    with pytest.raises((ValueError, FileNotFoundError, FileExistsError)) as e:
        f()
    text = str(e.value)
    for w in words:
        assert w in text, f'{w!r} is not in {text!r}'
    assert text.rstrip().endswith(('.', ')')) and '!' not in text and len(text) < 700
    return text


# ---- names of wells


@given(st.sampled_from([6, 12, 24, 48, 96, 384, 1536]), st.data())
@settings(max_examples=80, deadline=None)
def test_every_spelling_of_a_well_is_one_well(wells, data):
    rows, cols = plate_shape(wells)
    r, c = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    name = well_name(r, c)
    letters, n = name.rstrip('0123456789'), c + 1
    for text in (
        name,
        name.lower(),
        f'{letters}{n}',
        f'{letters}-{n}',
        f'{letters} {n:02d}',
        f' {name} ',
        f'r{r + 1:02d}c{n:02d}',
        f'R{r + 1}C{n}',
        f'row {r + 1} col {n}',
    ):
        assert parse_well(text, wells) == (name, r, c)
    assert parse_well(r * cols + c + 1, wells) == (name, r, c) == parse_well(str(c * rows + r + 1), wells, by='columns')


@pytest.mark.parametrize(
    'text',
    [
        '',
        None,
        np.nan,
        'A',
        '3A',
        'A0',
        'A00',
        'ZZ1',
        'AG1',
        'A49',
        'r0c1',
        'r33c1',
        'B03.tif',
        'A1:B2',
        '=A1',
        'A\u0661',
    ],
)
def test_no_well_is_made_of_nonsense(text):
    refused(lambda: parse_well(text))


@pytest.mark.parametrize(
    'text, wells', [('I03', 96), ('A13', 96), ('Q1', 384), ('C1', 6), ('97', 96), (0, 96), (-1, 96), ('r09c01', 96)]
)
def test_a_well_off_its_plate(text, wells):
    refused(lambda: parse_well(text, wells), 'plate') if text != -1 else refused(lambda: parse_well(text, wells))


@given(
    st.floats(1e-6, 1e4),
    st.sampled_from(['pM', 'nM', 'uM', '\u00b5M', '\u03bcM', 'mM', 'M']),
    st.booleans(),
    st.sampled_from(['', ' ']),
)
@settings(max_examples=60, deadline=None)
def test_doses_in_all_units(value, unit, comma, gap):
    text = f'{value:.6g}'.replace('.', ',') if comma else f'{value:.6g}'
    um = {'p': 1e-6, 'n': 1e-3, 'u': 1, '\u00b5': 1, '\u03bc': 1, 'm': 1e3, 'M': 1e6}[unit[0]]
    if re.fullmatch(r'[1-9]\d{0,2},\d{3}', text):  # may be thousands
        refused(lambda: parse_dose(text + gap + unit), 'without a comma')
        return
    assert parse_dose(text + gap + unit) == pytest.approx(float(f'{value:.6g}') * um, rel=1e-10)


@pytest.mark.parametrize('text', ['ten', '10 ug', '10 20', '-3', 'inf', '1,000', '1,000,000 nM', '<10', '10 uM DMSO'])
def test_no_dose_is_guessed(text):
    refused(lambda: parse_dose(text))


# ---- maps

long = 'well,treatment,dose_um\nA1,DMSO,\nA2,CPT,0.3\nA3,CPT,1\nB1,CPT,0.3\nB2,DMSO,\nB3,CPT,1\n'


def read(tmp_path, text, name='map.csv', encoding='utf-8', **kw):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return read_plate_map(tmp_path / name, **kw)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
@pytest.mark.parametrize('heading', ['dose_um', 'Dose (\u00b5M)', 'conc [uM]', 'Concentration_uM'])
@pytest.mark.parametrize('sep', [',', ';', '\t'])
def test_a_table_in_any_dress(tmp_path, encoding, heading, sep):
    plain = read(tmp_path, long, 'plain.csv')
    text = long.replace('dose_um', heading).replace(',', sep)
    if sep != ',':
        text = text.replace('0.3', '0,3')
    assert read(tmp_path, '\n' + text.replace('\n', '\r\n') + sep * 2 + '\r\n', encoding=encoding).equals(plain)


def test_words_for_missing_stay_names(tmp_path):
    m = read(tmp_path, 'well,treatment,dose_uM\nA1,None,\nA2,NA,1\nA3,null,\n')
    assert m.treatment.tolist() == ['None', 'NA', 'null']


@pytest.mark.parametrize(
    'text, words',
    [
        ('well,treatment\n', ['no rows']),
        ('', ['is empty']),
        ('well,treatment\nA1,CPT\nA01,CPT\n', ['Well A01 stands 2 times', 'plate']),
        ('well,treatment,plate\nA1,CPT,1\na01,DMSO,1\n', ['A01 of plate 1']),
        ('well,treatment\nI03,CPT\n', ['I03', '96']),
        ('well,treatment,dose_um\nA1,DMSO,10\nA2,CPT,10\n', ['A vehicle has dose 0', 'A01']),
        ('well,treatment,dose\nA1,CPT,10\n', ['no unit', 'dose_uM']),
        ('well,treatment,dose_um\nA1,CPT,ten\n', ["'ten' is no dose"]),
        ('well,treatment,dose_um\nA1,CPT,-1\n', ['not possible']),
        ('well,compound,drug\nA1,CPT,CPT\n', ["'compound' and 'drug'"]),
        ('well,treatment,role\nA1,CPT,boss\n', ["role 'boss'"]),
        ('well,treatment\n,CPT\n', ['no name']),
        ('position,dose_um\nA1,3\n', ['no treatment']),
        ('some,words\nx,y\n', ['neither a block']),
        ('x,1,2,3\nA,CPT,CPT,CPT\nB,CPT,CPT,CPT\nC,CPT,CPT,CPT\n', ['3 rows and 3 columns is no plate']),
        ('treatment,1,2,3\nA,a,b,c\nB,d,e,f\n\ntreatment,1,2,3\nA,a,b,c\nB,d,e,f\n', ['two blocks say the treatment']),
    ],
)
def test_a_map_that_cannot_be_meant(tmp_path, text, words):
    refused(lambda: read(tmp_path, text, wells=96 if 'I03' in text else None), *words)


def test_files_that_are_no_map(tmp_path):
    refused(lambda: read_plate_map(tmp_path / 'none.csv'), 'no file')
    for name, raw, words in (
        ('old.xls', b'\xd0\xcf', ['Save it as xlsx']),
        ('broken.xlsx', b'PK no', ['cannot be read as a workbook']),
        ('x.csv', bytes(range(256)), ['no text', 'x.csv']),
    ):
        (tmp_path / name).write_bytes(raw)
        refused(lambda: read_plate_map(tmp_path / name), *words)


def test_one_slip_does_not_make_a_larger_plate():
    names = [well_name(r, c) for r in range(8) for c in range(12)]
    t = pd.DataFrame(dict(well=[*names[:-1], 'I03'], treatment='CPT'))
    refused(lambda: check_map(t), 'I03 is not on a plate of 96 wells', 'wells=384')
    assert check_map(t, 384).attrs['wells'] == 384


def test_workbooks(tmp_path):
    xl = pytest.importorskip('openpyxl')
    book = xl.Workbook()
    for sheet, cells in (
        ('treatment', [['DMSO', 'CPT', 'CPT'], ['CPT', 'DMSO', 'CPT']]),
        ('dose (nM)', [[0, 300, 1000], [300, 0, 1000]]),
    ):
        ws = book.create_sheet(sheet)
        ws.append(['', 1, 2, 3])
        for letter, row in zip('AB', cells):
            ws.append([letter, *row])
    del book['Sheet']
    book.save(tmp_path / 'two.xlsx')
    plain = read(tmp_path, long, 'plain.csv')
    assert read_plate_map(tmp_path / 'two.xlsx').equals(plain)
    ws = book.create_sheet('more')
    ws['A1'] = '=1+1'
    book.save(tmp_path / 'formula.xlsx')
    refused(lambda: read_plate_map(tmp_path / 'formula.xlsx'), 'formula without a saved value')


def test_two_sheets_are_two_plates(tmp_path):
    xl = pytest.importorskip('openpyxl')
    book = xl.Workbook()
    for p in ('P1', 'P2'):
        ws = book.create_sheet(p)
        for row in (['well', 'treatment', 'dose_um'], ['A1', 'DMSO', 0], ['A2', 'CPT', 1.5]):
            ws.append(row)
    del book['Sheet']
    book.save(tmp_path / 'plates.xlsx')
    m = read_plate_map(tmp_path / 'plates.xlsx')
    assert m.plate.tolist() == ['P1', 'P1', 'P2', 'P2'] and m.dose_um.tolist() == [0, 1.5, 0, 1.5]


def test_without_openpyxl_there_is_advice(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        '__import__',
        lambda name, *a, **k: (_ for _ in ()).throw(ImportError(name)) if name == 'openpyxl' else real(name, *a, **k),
    )
    (tmp_path / 'm.xlsx').write_bytes(b'PK')
    with pytest.raises(ValueError, match='pip install openpyxl'):
        read_plate_map(tmp_path / 'm.xlsx')


@pytest.mark.parametrize('wells', [6, 24, 96, 384])
def test_blocks_of_every_size_and_two_plates(tmp_path, wells):
    rows, cols = plate_shape(wells)
    rng = np.random.default_rng(wells)
    treat = {
        p: [[('CPT', 'DMSO', '')[rng.integers(3)] for _ in range(cols)] for _ in range(rows)] for p in ('P1', 'P2')
    }
    text = '\n\n'.join(
        f'{p} treatment,'
        + ','.join(map(str, range(1, cols + 1)))
        + '\n'
        + '\n'.join(','.join([well_name(r, 0)[:-2], *row]) for r, row in enumerate(t))
        for p, t in treat.items()
    )
    m = read(tmp_path, text)
    assert m.attrs['wells'] == wells and len(m) == 2 * wells
    for r in m.itertuples():
        assert (r.treatment if isinstance(r.treatment, str) else '') == treat[r.plate][r.row][r.col] and (
            r.role == 'empty'
        ) == (treat[r.plate][r.row][r.col] == '')


def test_a_block_without_letters(tmp_path):
    text = '\n'.join(','.join('DMSO' if c in (0, 11) else 'CPT 1 uM' for c in range(12)) for r in range(8))
    m = read(tmp_path, text)
    assert len(m) == 96 and m.dose_um.unique().tolist() == [0, 1] and m.treatment.unique().tolist() == ['DMSO', 'CPT']


# ---- layouts


@pytest.mark.parametrize(
    'wells, edges, reps', [(6, 'used', 2), (24, 'empty', 2), (96, 'empty', 6), (384, 'empty', 20), (1536, 'used', 100)]
)
def test_layouts_of_every_size(wells, edges, reps, tmp_path):
    m = layout_plate('CPT', [1, 10] if wells > 6 else [10], reps, wells, edges, seed=3)
    used = m[m.role != 'empty']
    assert (
        len(m) == wells
        and sorted(used.order) == list(range(1, len(used) + 1))
        and used.groupby(['treatment', 'dose_um']).size().min() == reps
    )
    folder = write_layout(m, tmp_path / 'out')
    assert read_plate_map(folder / 'map.csv').well.tolist() == m.well.tolist()


def test_the_order_interleaves_the_arms_always():
    for seed in range(30):
        m = layout_plate('CPT', [10], 12, vehicles=12, seed=seed).dropna(subset='order').sort_values('order')
        first = (m.treatment.to_numpy() == 'CPT').cumsum()
        assert np.abs(first - np.arange(1, 25) / 2).max() <= 1


@pytest.mark.parametrize(
    'args, words',
    [
        (dict(treatments='CPT', doses=[1] * 2), ['none twice']),
        (dict(treatments=[], doses=[1]), ['at least one']),
        (dict(treatments='CPT', doses=[-1]), ['above 0']),
        (dict(treatments='CPT', doses=[np.nan]), ['above 0']),
        (dict(treatments='CPT', doses=['10 uM']), ['numbers above 0']),
        (dict(treatments='CPT', doses=[1], replicates=0), ['replicates']),
        (dict(treatments='CPT', doses=[1], wells=95), ['no plate of 95']),
        (dict(treatments='CPT', doses=[1], edges='wet'), ["'empty' or 'used'"]),
        (dict(treatments=['DMSO', 'vehicle', 'CPT'], doses=[1]), ['both vehicles']),
        (dict(treatments=['CPT', 'STS'], doses={'CPT': [1]}), ['no doses of STS']),
        (dict(treatments='CPT', doses=[1, 3], replicates=40), ['may be used', 'replicates fit']),
    ],
)
def test_a_layout_that_cannot_be_meant(args, words):
    refused(lambda: layout_plate(**args), *words)


def test_a_page_runs_nothing(tmp_path):
    m = layout_plate(['<script>alert(1)</script>', '=cmd()'], [1], 2, seed=1)
    page = layout_html(m, '<b>title</b>', ['<img src=x onerror=alert(1)>'])
    assert '<script' not in page and '<img' not in page and '&lt;script&gt;' in page
    write_layout(m, tmp_path / 'out')
    assert ",'=cmd()," in (tmp_path / 'out' / 'map.csv').read_text()
    assert '=cmd()' in read_plate_map(tmp_path / 'out' / 'map.csv').treatment.unique().tolist()
    refused(lambda: write_layout(m, tmp_path / 'out'), 'exists already')


def test_audit_passes_by_design_and_fails_on_the_usual_order(tmp_path):
    from celldeath_nb.trust.audits import audit
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.simulate.microscope import simulate_experiment
    from celldeath_nb.tiles.cut import cut_tiles

    simulate_experiment(
        tmp_path / 'p', lines=('U2OS',), hours=(6,), experiments=2, wells=8, sites=1, size=(112, 128), seed=1, workers=1
    )
    tiles = cut_tiles(read_fields(tmp_path / 'p'), tmp_path / 't', grid=(1, 1))
    plan = layout_plate('CPT', [10], 8, experiments=2, seed=3)
    turn = {
        (r.experiment, r.treatment, r.replicate): (r.well, int(r.order))
        for r in plan[plan.role != 'empty'].itertuples()
    }
    df = tiles.table
    well, order = zip(*[turn[e, t, int(w)] for e, t, w in zip(df.experiment, df.treatment, df.well)])
    assert audit(tiles.add(well=list(well), acquired=list(order)), controls=None).verdict == 'passed'
    usual = df.sort_values(['experiment', 'treatment']).index
    failed = audit(
        tiles.add(well=list(well), acquired=pd.Series(range(len(df)), usual).loc[df.index].tolist()), controls=None
    )
    assert failed.verdict == 'failed' and 'order of acquisition' in failed.failures[0]


# ---- scores of wells

plan = layout_plate('CPT', [0.1, 1, 10], 4, seed=1)
preds = simulate_plate_scores(plan, sites=3, tiles=2, seed=2)
wells = well_scores(preds, plan)


def test_a_score_is_the_mean_logit_and_its_interval_comes_from_photographs():
    from scipy.stats import t as student_t

    g = preds.assign(z=logit(preds.p_CPT)).groupby('well')
    assert np.allclose(wells.set_index('well').score, g.z.mean().loc[wells.well], atol=1e-9)
    photo = preds.assign(z=logit(preds.p_CPT)).groupby(['well', 'field']).z.mean()
    half = student_t.ppf(0.975, 2) * photo.groupby('well').std() / np.sqrt(3)
    ours = (wells.high - wells.score).to_numpy()
    assert np.median(np.abs(ours / half.loc[wells.well].to_numpy() - 1)) < 0.03
    called = (preds.p_CPT > 0.5).groupby(preds.well).sum()
    assert (
        (wells.calls.to_numpy() == called.loc[wells.well].to_numpy()).all()
        and (wells.n_tiles == 6).all()
        and (wells.n_fields == 3).all()
    )


def test_other_scores_and_other_predictions():
    p = well_scores(preds, plan, score='probability')
    assert (
        np.allclose(p.score, preds.groupby('well').p_CPT.mean().loc[p.well]) and p.low.min() >= 0 and p.high.max() <= 1
    )
    votes = preds.drop(columns=['p_CPT', 'p_DMSO']).assign(pred=np.where(preds.p_CPT > 0.5, 'CPT', 'DMSO'))
    k = (votes.pred == 'CPT').groupby(votes.well).sum()
    v = well_scores(votes, plan)
    assert (
        np.allclose(v.score, np.log((k + 0.5) / (6 - k + 0.5)).loc[v.well])
        and 'no probabilities' in v.attrs['notes'][0]
    )
    three = preds.assign(p_DMSO=preds.p_DMSO / 2, p_other=preds.p_DMSO / 2)
    assert np.allclose(well_scores(three, plan, positive='CPT').score, wells.score)
    refused(lambda: well_scores(three, plan), 'positive=')
    refused(lambda: well_scores(preds.rename(columns=dict(p_CPT='p_round', p_DMSO='p_flat')), plan), 'cannot be told')
    assert np.allclose(well_scores(preds.assign(label=[None] * len(preds)), plan).score, wells.score)


def test_sure_tiles_do_not_make_endless_scores():
    p = well_scores(
        preds.assign(p_CPT=np.where(preds.p_CPT > 0.5, 1.0, 0.0), p_DMSO=np.where(preds.p_CPT > 0.5, 0.0, 1.0)), plan
    )
    assert np.isfinite(p[['score', 'low', 'high']]).all().all()


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda p: p.drop(columns='well'), ['no column `well`']),
        (lambda p: p.assign(well=p.well.where(p.index > 3)), ['4 of', 'no well']),
        (lambda p: p.iloc[:0], ['no rows']),
        (lambda p: p.assign(p_CPT=np.nan), ['Row 0', 'p_CPT']),
        (lambda p: p.assign(p_CPT=p.p_CPT.where(p.index != 7, 1.7)), ['Row 7']),
        (
            lambda p: p.assign(well=p.well.replace({'B02': 'H12'}).where(p.well != 'C03', 'H11')),
            ['not in the map', 'nearest'],
        ),
        (lambda p: p.assign(plate='plate_1'), ['with photographs not in the map', 'nearest: P1']),
        (lambda p: p.assign(well='zz'), ["'zz' is no name of a well"]),
        (lambda p: p.assign(well='I03'), ['I03', '96']),
        (lambda p: p.assign(dose_um=77.0), ['another dose_um', '77']),
        (lambda p: p.assign(experiment='N9'), ['another experiment']),
    ],
)
def test_joins_tell(change, words):
    refused(lambda: well_scores(change(preds), plan), *words)


def test_photographs_that_the_map_calls_empty_are_left_out_only_when_asked():
    own = preds[preds.well == wells.well[0]]
    more = pd.concat([preds, own.assign(well='H12', field='H12' + own.field, tile='H12' + own.tile)], ignore_index=True)
    refused(lambda: well_scores(more, plan), 'P1 H12', 'calls 1 of them empty')
    t = well_scores(more, plan, unmapped='drop')
    assert len(t) == len(wells) and any('left out' in o for o in t.attrs['notes'])
    refused(lambda: well_scores(preds.assign(plate='P7'), plan, unmapped='drop'), 'not in the map')


def test_wells_without_photographs_are_rows_and_counted():
    gone = wells.well[[1, 5]]
    two = simulate_plate_scores(plan, hours=(0, 3), seed=2)
    with pytest.warns(UserWarning, match='2 wells of the map without photographs at some hour'):
        t = well_scores(two[~(two.well.isin(gone) & (two.hour == 3))], plan)
    none = t[t.n_tiles == 0]
    assert (
        set(none.well) == set(gone)
        and (none.hour == 3).all()
        and none.score.isna().all()
        and (none.line == 'U2OS').all()
        and len(t) == 2 * len(wells)
    )


def test_plates_are_part_of_a_well():
    both = pd.concat([preds.assign(plate='P1'), preds.assign(plate='P2', p_CPT=preds.p_DMSO, p_DMSO=preds.p_CPT)])
    t = well_scores(both)
    assert len(t) == 2 * len(wells) and np.allclose(
        t[t.plate == 'P1'].score.to_numpy(), -t[t.plate == 'P2'].score.to_numpy()
    )
    no_name = plan.assign(plate=None)
    t = well_scores(both, no_name)
    assert len(t) == 2 * len(wells) and any('taken for each of 2 plates' in o for o in t.attrs['notes'])
    maps_of_two = pd.concat([plan, plan.assign(plate='P2')], ignore_index=True)
    refused(lambda: well_scores(preds.drop(columns='plate'), check_map(maps_of_two)), 'no column `plate`')


def test_numbered_wells_with_a_map():
    number = preds.assign(
        well=[int(plan.row[i] * 12 + plan.col[i] + 1) for i in plan.set_index('well').index.get_indexer(preds.well)]
    )
    assert np.allclose(well_scores(number, plan).score, wells.score)
    assert len(well_scores(number.assign(treatment='CPT'))) == len(wells)


def test_wells_that_are_no_places_stay_as_they_are():
    p = preds.assign(well=np.where(preds.well < 'D', 'dish left', 'dish right'), treatment='CPT')
    t = well_scores(p)
    assert set(t.well) == {'dish left', 'dish right'} and 'row' not in t


def test_order_of_rows_does_not_matter():
    assert (
        well_scores(preds.sample(frac=1, random_state=1), plan)[['well', 'score', 'n_fields']]
        .round(9)
        .equals(wells[['well', 'score', 'n_fields']].round(9))
    )


def test_profiles_are_guarded(tmp_path):
    t = wells.assign(treatment=wells.treatment.replace('CPT', '=cmd()'))
    text = export_profiles(t, tmp_path / 'p.csv').read_text()
    assert "'=cmd()" in text and 'Metadata_Well' in text.splitlines()[0]
    refused(lambda: export_profiles(t, tmp_path / 'p.csv'), 'exists already')
    refused(lambda: export_profiles(t.drop(columns='score'), tmp_path / 'q.csv'), "no column 'score'")


@pytest.mark.parametrize('n', [6, 12, 24, 48, 96, 384, 1536])
def test_plates_of_every_size_are_drawn(n):
    from matplotlib import pyplot as plt

    rows, cols = plate_shape(n)
    t = pd.DataFrame(
        dict(well=[well_name(r, c) for r in range(rows) for c in range(cols)], score=np.arange(n, dtype=float))
    )
    ax = plot_plate(t, wells=n)
    assert ax.images[0].get_array().shape == (rows, cols) and ax.get_xlim()[1] == cols - 0.5
    plt.close('all')


# ---- quality


def controls(p, n, **kw):
    return pd.DataFrame(
        dict(well=range(len(p) + len(n)), treatment=['CPT'] * len(p) + ['DMSO'] * len(n), score=[*p, *n])
    )


def test_the_reference_plate():
    q = plate_quality(controls([10, 12, 11, 13], [1, 2, 3, 2]), 'CPT', 'DMSO').iloc[0]
    assert (
        q.z_prime == pytest.approx(0.334477, abs=5e-7)
        and q.ssmd == pytest.approx(6.219210, abs=5e-7)
        and q.z_prime_robust == pytest.approx(0.297716, abs=5e-7)
        and q.low < q.z_prime < q.high
    )


@pytest.mark.parametrize(
    'table, kw, words',
    [
        (controls([1], [1, 2]), {}, ['1 wells', 'positive']),
        (controls([1, 2], [np.nan, 2]), {}, ['1 wells', 'negative']),
        (controls([1, 2], [np.inf, 2]), {}, ['endless']),
        (controls([1, 2], [1, 2]), dict(positive='STS'), ["no well has treatment 'STS'"[3:]]),
        (controls([1, 2], [1, 2]), dict(negative='CPT'), ['both controls']),
        (controls([1, 2], [1, 2]), dict(value='p'), ["no column 'p'"]),
        (controls([1, 2], [1, 2]).assign(dose_um=[1, 2, 0, 0]), {}, ['2 doses', 'dose_um']),
    ],
)
def test_controls_that_cannot_be_meant(table, kw, words):
    refused(lambda: plate_quality(table, **dict(positive='CPT', negative='DMSO') | kw), *words)


def test_equal_and_constant_controls_are_said_in_words():
    same = plate_quality(controls([1, 2, 3], [3, 2, 1]), 'CPT', 'DMSO').iloc[0]
    flat = plate_quality(controls([1, 1, 1], [0, 0, 0]), 'CPT', 'DMSO').iloc[0]
    assert same.z_prime == -np.inf and 'minus infinity' in same.verdict and 'exactly the same' in flat.verdict
    gone = plate_quality(controls([5, 6, 7, np.nan], [0, 1, 0]), 'CPT', 'DMSO').iloc[0]
    assert 'left out: 1' in gone.verdict and gone.n == 6


def test_edge_and_drift_are_those_of_a_linear_model():
    import statsmodels.formula.api as smf

    m = layout_plate('CPT', [1, 10], 18, edges='used', positive=('CPT', 100.0), seed=4)
    t = well_scores(simulate_plate_scores(m, luck=dict(edge=0.8, rows=-0.7, columns=0.5), seed=5), m, n_boot=2)
    q = plate_quality(t).iloc[0]
    edge = t.row.isin([0, 7]) | t.col.isin([0, 11])
    fit = smf.ols(
        'score ~ C(dose_um) + edge + r + c', t.assign(edge=edge.astype(float), r=t.row / 7, c=t.col / 11)
    ).fit()
    low, high = fit.conf_int(0.05 / 3).loc[['edge', 'r', 'c']].to_numpy().T
    ours = [[q[f'{e}{s}'] for e in ('edge_effect', 'row_drift', 'col_drift')] for s in ('', '_low', '_high')]
    assert np.allclose(ours, [fit.params[['edge', 'r', 'c']], low, high], atol=1e-9) and 'Edge wells read' in q.verdict


def test_nothing_to_repeat_on_a_good_plate_and_everything_named_on_a_bad_one():
    assert not len(wells_to_repeat(wells[wells.n_fields > 1], worst=6))
    bad = wells.assign(score=wells.score.where(wells.index != 4, 50), n_tiles=wells.n_tiles.where(wells.index != 7, 0))
    assert {'spreads above', 'no photographs'} <= {
        w for r in wells_to_repeat(bad).why for w in ('spreads above', 'no photographs') if w in r
    }


# ---- curves

dose_mm = np.repeat([0, 0.94, 1.88, 3.75, 7.5, 15, 30], [6, 3, 3, 3, 3, 3, 3])
root = np.array(
    [
        7.58,
        8,
        8.3285714,
        7.25,
        7.375,
        7.9625,
        8.3555556,
        6.9142857,
        7.75,
        6.8714286,
        6.45,
        5.9222222,
        1.925,
        2.8857143,
        4.2333333,
        1.1875,
        0.8571429,
        1.0571429,
        0.6875,
        0.525,
        0.825,
        0.25,
        0.22,
        0.44,
    ]
)


def test_ryegrass_to_five_digits():
    c = fit_curve(dose_mm, root)
    t = c.table
    assert np.allclose([-c.hill, c.bottom, c.top, c.ec50], [2.98222, 0.48141, 7.79296, 3.05796], atol=1.1e-5)
    assert np.allclose(
        t.se_observed[['hill', 'bottom', 'top', 'ec50']], [0.46507, 0.21219, 0.18857, 0.18573], atol=1e-5
    )
    assert np.allclose(t.se[['hill', 'bottom', 'top', 'ec50']], [0.45842, 0.20951, 0.18973, 0.18583], atol=1e-5)
    assert np.allclose([c.residual_sd, c.df, c.low, c.high], [0.5196256, 20, 2.691098, 3.475387], atol=1e-6)
    w = fit_curve(dose_mm, root, interval='wald')
    assert np.allclose([w.low, w.high], [2.6705, 3.4454], atol=1e-4)
    ed = effective_dose(c, [10, 90])
    assert np.allclose(ed[['estimate', 'se']], [[1.46371, 0.18677], [6.38863, 0.84510]], atol=1e-5)
    l3 = fit_curve(dose_mm, root, '3pl')
    assert (
        np.allclose([-l3.hill, l3.top, l3.ec50], [2.47031, 7.85543, 3.26336], rtol=1e-5)
        and l3.bottom == 0
        and l3.df == 21
    )
    one = dose_response(pd.DataFrame(dict(dose_um=dose_mm, score=root))).iloc[0]
    assert (
        one.ec50 == pytest.approx(3.05796, abs=1e-5)
        and one.note == 'falls with dose'
        and one.se_observed == pytest.approx(0.18573, abs=1e-5)
    )


@given(
    st.floats(-4, 4),
    st.floats(0.5, 6),
    st.floats(-2, 2),
    st.floats(0.5, 4),
    st.booleans(),
    st.floats(0.02, 0.6),
    st.integers(0, 2**31),
)
@settings(max_examples=12, deadline=None)
def test_no_plain_search_finds_a_curve_that_is_better_by_a_thousandth(start, span, log_ec50, hill, falls, sd, seed):
    rng, d = np.random.default_rng(seed), np.repeat([0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300], 3)
    z = start - span if falls else start + span
    y = (
        start
        + (z - start) * (d > 0) / (1 + (10**log_ec50 / np.where(d > 0, d, 1)) ** hill)
        + sd * rng.standard_normal(len(d))
    )
    c = fit_curve(d, y)
    x = np.log(np.maximum(d, 1e-300))
    res = lambda p: np.where(d > 0, p[0] + (p[1] - p[0]) * expit(np.exp(p[2]) * (x - p[3])), p[0]) - y
    best = min(
        2
        * least_squares(
            res,
            [y[d == 0].mean(), y[d == 300].mean(), np.log(h), e],
            bounds=([-99, -99, np.log(0.1), np.log(0.003) - 6.9], [99, 99, np.log(20.0), np.log(300) + 6.9]),
        ).cost
        for h in (0.7, 2)
        for e in (-2.0, 0, 2)
    )
    assert c.rest <= best * 1.001  # an EC50 far outside of the doses lies in a flat valley: seen there, .03 %
    assert c.low <= c.ec50 * (1 + 1e-9) and c.ec50 <= c.high * (1 + 1e-9)


def test_the_ends_of_the_profile_are_where_f_says():
    rng, d = np.random.default_rng(3), np.repeat([0, 0.03, 0.1, 0.3, 1, 3, 10, 30], 3)
    curves = [
        (d, rng.normal(0, 0.4, len(d)) + 4 / (1 + (1 / np.maximum(d, 1e-30)) ** rng.uniform(0.8, 2.5)))
        for _ in range(12)
    ]
    from scipy.stats import t as student_t

    for c in fit_curves(curves):
        for end in (c.low, c.high):
            if not 1e-4 < end < 1e4:
                continue
            s = np.where(
                c.dose > 0, expit(np.geomspace(0.1, 20, 4000)[:, None] * np.log(np.maximum(c.dose, 1e-300) / end)), 0
            )
            X = np.stack([1 - s, s], -1)
            best = np.linalg.pinv(X) @ c.score
            left = ((c.score - (X @ best[..., None])[..., 0]) ** 2).sum(1)
            assert left.min() / c.rest == pytest.approx(1 + student_t.ppf(0.975, c.df) ** 2 / c.df, rel=2e-4)


@pytest.mark.parametrize('line', sorted(cell_lines))
def test_the_drug_gives_back_its_own_curve(line):
    m = layout_plate('CPT', [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], 2, seed=1)
    p = simulate_plate_scores(m, line, hours=(2,), sites=1, tiles=1, luck=dict.fromkeys(plate_luck, 0.0))
    r = dose_response(well_scores(p, m, n_boot=2)).iloc[0]
    assert (
        r.ec50 == pytest.approx(cell_lines[line].ec50, rel=1e-8)
        and r.hill == pytest.approx(cell_lines[line].slope, rel=1e-8)
        and r.low == pytest.approx(r.ec50) == r.high
    )


def table(ec50=1.0, top=1.0, doses=(0.1, 0.3, 1, 3, 10, 30), seed=0, n=3, sd=0.3, hill=1.2):
    rng, d = np.random.default_rng(seed), np.repeat([0.0, *doses], n)
    y = -3 + (top + 3) * (d > 0) / (1 + (ec50 / np.where(d > 0, d, 1)) ** hill) + sd * rng.standard_normal(len(d))
    return pd.DataFrame(
        dict(well=[f'w{i}' for i in range(len(d))], treatment=np.where(d > 0, 'CPT', 'DMSO'), dose_um=d, score=y)
    )


@pytest.mark.parametrize(
    't, words',
    [
        (table().assign(dose_um=0.0), ['All doses are 0']),
        (table(doses=(1, 3, 10)), ['3 doses above 0', '4 or more']),
        (table().assign(treatment='DMSO'), ['a vehicle and have a dose']),
        (table().assign(dose_um=lambda t: t.dose_um.where(t.index != 9)), ['1 wells', 'w9', 'no dose']),
        (table().assign(dose_um=lambda t: t.dose_um - 1, treatment='CPT'), ['below 0', 'logarithms']),
        (table().assign(score=np.inf), ['endless']),
        (table().drop(columns='dose_um'), ["no column 'dose_um'", 'plate map']),
        (table().assign(dose_um='10 uM'), ['holds text', 'parse_dose']),
        (table().assign(well='B02'), ['Well B02 stands', 'no replicates']),
        (table().assign(dose_um=np.inf, treatment='CPT'), ['without end']),
        (table().drop(columns='score'), ["no column 'score'"]),
    ],
)
def test_tables_without_a_curve(t, words):
    refused(lambda: dose_response(t), *words)


def test_models_that_are_unknown():
    refused(lambda: dose_response(table(), model='5pl'), "'4pl'")
    refused(lambda: dose_response(table(), fixed=dict(slope=1)), "'bottom', 'top' and 'hill'")
    refused(lambda: dose_response(table(), fixed=dict(hill=0)), 'between')
    refused(lambda: dose_response(table(), interval='bootstrap'), "'profile' or 'wald'")
    refused(lambda: effective_dose(fit_curve(dose_mm, root), 100), 'between 0 and 100')


def test_what_is_fixed_stays():
    t = table(seed=4)
    r = dose_response(t, fixed=dict(hill=1.0, bottom=-3.0)).iloc[0]
    assert r.hill == 1 and r.bottom == -3 and r.df == len(t) - 2
    fall = dose_response(t.assign(score=-t.score)).iloc[0]
    rise = dose_response(t).iloc[0]
    assert (
        fall.hill == pytest.approx(-rise.hill, rel=1e-6)
        and fall.ec50 == pytest.approx(rise.ec50, rel=1e-6)
        and fall.top == pytest.approx(-rise.bottom, rel=1e-6)
    )
    assert dose_response(t.assign(score=-t.score), fixed=dict(hill=-1.0)).iloc[0].hill == -1


@pytest.mark.parametrize('seed', range(12))
def test_a_plateau_that_is_not_reached_has_no_number(seed):
    r = dose_response(table(ec50=3000, top=400, seed=seed, n=4)).iloc[0]
    assert np.isnan(r.ec50) and np.isnan(r.hill) and np.isnan(r.top) and 'EC50 > 30 uM, the highest dose' in r.note


def test_scores_that_are_all_the_same_are_no_response():
    d = np.repeat([0.0, 0.1, 1.0, 10.0, 100.0], 4)
    for v in (0.0, 0.3, -0.8472978603872037, 1e6):
        jitter = v * (1 + 1e-16 * np.arange(len(d)))  # as sums of equal tiles differ in the last digit
        r = dose_response(pd.DataFrame(dict(dose_um=d, score=jitter))).iloc[0]
        assert np.isnan(r.ec50) and r.note.startswith('no response')


def test_wells_that_do_nothing_have_no_number():
    t = pd.concat([table(top=-3, seed=s).assign(plate=s) for s in range(60)])
    r = dose_response(t, by='plate')
    assert r.ec50.notna().sum() <= 4 and r.note.str.startswith('no response').mean() > 0.9
    flat = dose_response(table().assign(score=2.0)).iloc[0]
    assert flat.note.startswith('no response') and np.isnan(flat.ec50)


def test_one_bad_curve_does_not_stop_the_others():
    t = pd.concat(
        [
            table(seed=1).assign(line='U2OS'),
            table(doses=(1, 3), seed=2).assign(line='MCF7'),
            table(seed=3).assign(line='PC3', score=np.nan),
        ],
        ignore_index=True,
    ).assign(well=lambda t: t.index.astype(str))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        r = dose_response(t).set_index('line')
    assert (
        r.ec50['U2OS'] > 0 and r.note['MCF7'].startswith('no curve: 2 doses') and r.note['PC3'].startswith('no curve')
    )
    plot_dose_response(t)


def test_two_drugs_share_the_vehicle_and_a_control_at_one_dose_is_no_curve():
    a, b = table(seed=1), table(ec50=0.3, seed=2)
    b = b[b.treatment == 'CPT'].assign(treatment='STS')
    c = pd.DataFrame(dict(well=['x1', 'x2'], treatment='MG132', dose_um=5.0, score=3.0, role='positive'))
    t = pd.concat(
        [a.assign(role=np.where(a.dose_um > 0, 'sample', 'negative')), b.assign(role='sample'), c], ignore_index=True
    ).assign(well=lambda t: t.index)
    r = dose_response(t)
    assert r.treatment.tolist() == ['CPT', 'STS'] and r.n.tolist() == [21, 21]
    alone = dose_response(a)
    assert r.ec50[0] == pytest.approx(alone.ec50[0], rel=1e-6)


def test_empty_wells_and_missing_scores_are_not_read():
    t = table(seed=5).assign(role='sample')
    t.loc[t.dose_um == 0, 'role'] = 'negative'
    more = pd.concat(
        [t, t.iloc[:3].assign(role='empty', dose_um=np.nan, treatment=None, well=['a', 'b', 'c'])], ignore_index=True
    )
    more.loc[5, 'score'] = np.nan
    r = dose_response(more).iloc[0]
    assert r.n == len(t) - 1 and 'without a score left out: 1' in r.note


def test_days_that_are_pooled_and_few_wells_are_said():
    t = pd.concat([table(seed=s, n=2).assign(experiment=f'N{s}') for s in (1, 2)])
    assert 'wells of 2 experiments pooled' in dose_response(t).note[0]
    assert 'do not trust the interval' in dose_response(table(n=1, seed=1, sd=0.05)).note[0]


@pytest.mark.long
def test_intervals_hold_the_truth_in_five_hundred_plates():
    "Fixed seeds; the benchmark goes the whole way from tiles, with fresh ones."
    t = pd.concat(
        [table(doses=(0.03, 0.1, 0.3, 1, 3, 10, 30, 100), n=4, sd=0.45, seed=s).assign(plate=s) for s in range(500)]
    )
    r = dose_response(t, by='plate')
    told = r[r.ec50.notna()]
    held = ((told.low <= 1) & (told.high >= 1)).mean()
    assert len(told) > 490 and 0.93 <= held <= 0.97


def test_a_sorted_plate_with_a_drift_has_an_ec50_of_the_incubator():
    "A drug that does nothing, on a plate that drifts over its columns: randomized there is no curve, in rising columns there is one."
    doses, luck = [0.03, 0.1, 0.3, 1, 3, 10, 30, 100], dict(columns=1.5)
    rising = check_map(
        pd.DataFrame(
            [
                dict(
                    well=well_name(r + 1, c + 1),
                    treatment='CPT' if c > 1 else 'DMSO',
                    dose_um=doses[c - 2] if c > 1 else 0.0,
                    plate='P1',
                )
                for r in range(6)
                for c in range(10)
            ]
        ),
        96,
    )
    numbers = dict(dealt=0, rising=0)
    for s in range(8):
        for name, m in (('dealt', layout_plate('CPT', doses, 6, vehicles=12, seed=s)), ('rising', rising)):
            p = simulate_plate_scores(m, hours=(3,), sites=2, tiles=2, gain=0.0, luck=luck, seed=s)
            numbers[name] += not dose_response(well_scores(p, m, n_boot=2)).note[0].startswith('no response')
    assert numbers['rising'] >= 7 and numbers['dealt'] <= 3


# ---- hours and plans


def followed(vehicles=8, n=6, hours=(0, 1, 2, 4), rise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = 0.5 * rng.standard_normal((vehicles + n, 1)) + 0.2 * rng.standard_normal((vehicles + n, len(hours)))
    y[vehicles:] += rise * np.array(hours)
    return (
        pd.DataFrame(y, columns=hours)
        .assign(well=[f'A{i + 1}' for i in range(vehicles + n)], dose_um=[0.0] * vehicles + [5.0] * n)
        .melt(['well', 'dose_um'], var_name='hour', value_name='score')
    )


def test_an_effect_is_seen_and_its_hour_is_right():
    t = detection_times(followed(rise=2.0))
    assert (t.hour_detected[t.dose_um > 0] == 1).all() and t.hour_detected[t.dose_um == 0].notna().mean() < 0.3
    k = kinetics(followed(rise=2.0))
    assert k[k.dose_um == 5].hour_detected.eq(1).all() and k.hour_detected[k.dose_um == 0].isna().all()
    down = followed(rise=-8.0)
    for side, want in (('rise', False), ('fall', True)):
        t = detection_times(down, side=side)
        assert (t.hour_detected[t.dose_um > 0] == 1).eq(want).all()


@pytest.mark.parametrize(
    't, kw, words',
    [
        (followed().query('hour == 1'), {}, ['one hour only']),
        (followed().query('hour > 0'), {}, ['no photographs at 0 h', 'zero=']),
        (followed(vehicles=3), {}, ['3 vehicle wells', '4 or more']),
        (followed().drop(columns='hour'), {}, ["no column 'hour'"]),
        (followed(), dict(side='up'), ["'rise', 'fall'"]),
        (followed(), dict(baseline='none'), ["'own'"]),
        (followed(), dict(alpha=0), ['between 0 and 1']),
        (pd.concat([followed(), followed()]), {}, ['stands several times']),
        (followed().assign(well=lambda t: t.well + t.hour.astype(str)), {}, ['none can be compared with itself']),
        (followed().assign(score=np.inf), {}, ['endless']),
    ],
)
def test_hours_that_cannot_be_compared(t, kw, words):
    refused(lambda: detection_times(t, **kw), *words)


def test_a_well_that_misses_an_hour_or_its_beginning():
    t = followed(rise=2.0)
    first = detection_times(t[~((t.well == 'A9') & (t.hour == 1))]).set_index('well').hour_detected
    assert first['A9'] == 2
    late = detection_times(t[~((t.well == 'A10') & (t.hour == 0))])
    assert 'A10' not in set(late.well) and 'A10' in late.attrs['notes'][0]


def test_wells_come_in_natural_order():
    t = followed(vehicles=8, n=6).sample(frac=1, random_state=3)
    assert detection_times(t).well.tolist() == [f'A{i}' for i in range(1, 15)]
    names = [f'N{i}' for i in (1, 2, 10)]
    many = pd.concat([followed(seed=i).assign(experiment=e) for i, e in enumerate(names)]).sample(
        frac=1, random_state=4
    )
    assert list(dict.fromkeys(detection_times(many).experiment)) == names
    scores = well_scores(pd.concat([preds.assign(experiment=e) for e in names[::-1]]), plan.drop(columns='experiment'))
    assert list(dict.fromkeys(scores.experiment)) == names
    dishes = pd.DataFrame(dict(well=[f'dish {i}' for i in (10, 2, 1)], p_CPT=0.7, p_DMSO=0.3))
    assert well_scores(dishes).well.tolist() == ['dish 1', 'dish 2', 'dish 10']


@pytest.mark.long
def test_false_alarms_are_five_in_a_hundred():
    alarms = [
        detection_times(followed(rise=0.0, n=20, seed=s), draws=800, seed=s)
        .query('dose_um > 0')
        .hour_detected.notna()
        .mean()
        for s in range(80)
    ]
    assert 0.02 < np.mean(alarms) < 0.08


def test_power_by_formula_is_that_of_statsmodels():
    from statsmodels.stats.power import TTestIndPower, TTestPower

    p = plan_experiment(1.0, wells=(2, 5), days=(1, 4), sd_well=0.8, sd_day=0.4).set_index(['days', 'wells']).power
    assert p[1, 5] == pytest.approx(TTestIndPower().power(1 / 0.8, 5, 0.05), abs=1e-6)
    assert p[4, 2] == pytest.approx(TTestPower().power(1 / np.sqrt(0.4**2 + 2 * 0.8**2 / 2), 4, 0.05), abs=1e-6)
    assert np.isnan(plan_experiment(1.0, wells=1, days=1, sd_well=1).power[0])
    assert plan_experiment(-1.0, wells=4, days=4, sd_well=0.8, sd_day=0.4).power[0] == pytest.approx(
        plan_experiment(1.0, wells=4, days=4, sd_well=0.8, sd_day=0.4).power[0]
    )


@pytest.mark.parametrize(
    'kw, words',
    [
        (dict(effect=1), ['sd_well= is missing']),
        (dict(effect=1, sd_well=1), ['sd_day= is missing']),
        (dict(effect=np.nan, sd_well=1, sd_day=1), ['effect']),
        (dict(effect=1, sd_well=-1, sd_day=1), ['0 or more']),
        (dict(effect=1, sd_well=1, sd_day=1, wells=0), ['whole numbers']),
        (dict(effect=1, sd_well=1, sd_day=1, days=[]), ['whole numbers']),
    ],
)
def test_plans_that_cannot_be_meant(kw, words):
    refused(lambda: plan_experiment(**kw), *words)


def test_a_pilot_of_several_doses_is_asked_which():
    t = well_scores(simulate_plate_scores(plan, seed=1), plan)
    refused(lambda: plan_experiment(1.0, pilot=t), '3 values of dose_um', 'Choose one')
    refused(lambda: plan_experiment(1.0, pilot=t[t.role == 'negative']), '0 treated')


def test_components_are_found_again():
    m = layout_plate('CPT', [10], 12, experiments=6, vehicles=12, seed=1)
    parts = variance_components(
        simulate_plate_scores(
            m,
            hours=(2,),
            sites=4,
            tiles=3,
            luck=dict(well=0.6, field=0.5, tile=0.8, visit=0.0, day=0.5, response=0.3),
            seed=2,
        ),
        m,
    ).sd
    assert (
        parts['photograph'] == pytest.approx(np.sqrt(0.5**2 + 0.8**2 / 3), rel=0.1)
        and parts['well'] == pytest.approx(0.6, rel=0.15)
        and 0.1 < parts['effect by day'] < 1.5
    )
    assert 'No plan' in plan_sentence(
        plan_experiment(0.01, sd_well=1, sd_day=1)
    ) and 'wells of each arm' in plan_sentence(plan_experiment(3, sd_well=1, sd_day=0.1))


# ---- what was promised of time


def test_speed_on_one_core():
    "Generous by a factor of two beside the promise, in processor time; the benchmark measures it."
    import time

    m = layout_plate('CPT', np.geomspace(0.01, 100, 20).tolist(), 14, wells=384, edges='used', vehicles=104, seed=1)
    p = simulate_plate_scores(m, sites=4, tiles=4, seed=1)
    t = time.process_time()
    assert len(well_scores(p, m)) == 384 and time.process_time() - t < 4
    d = np.repeat([0, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100], 3)
    rng = np.random.default_rng(0)
    curves = [(d, 4 / (1 + (1 / np.maximum(d, 1e-30)) ** 1.2) + 0.4 * rng.standard_normal(len(d))) for _ in range(200)]
    t = time.process_time()
    fit_curves(curves)
    assert time.process_time() - t < 8
