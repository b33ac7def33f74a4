"A plate at the command line: a page and tables, each mistake of a map in one paragraph, and what has no answer said in words."

import re

import numpy as np
import pandas as pd
import pytest

from celldeath_nb.files import read_csv
from celldeath_nb.plates.layouts import layout_plate, write_layout
from celldeath_nb.plates.plates import simulate_plate_scores

doses = [0.03, 0.1, 0.3, 1, 3, 10, 30]


def refused(res, *words):
    code, said = res
    assert code in (1, 2), said
    for w in words:
        assert w in said, said


@pytest.fixture(scope='module')
def plate():
    "A plate with both controls, and its predictions at one hour."
    plan = layout_plate('CPT', doses, replicates=4, positive=('CPT', 100.0), vehicles=8, seed=3)
    return plan, simulate_plate_scores(plan, sites=2, tiles=2, seed=4)


@pytest.fixture
def screen(call, plate, tmp_path):
    "The command on the plate, with the map and the predictions changed."

    def f(*args, change=lambda m: m, preds=lambda p: p, out='plate'):
        m, p = change(plate[0].drop(columns=['row', 'col']).copy()), preds(plate[1].copy())
        m.to_csv(tmp_path / 'map.csv', index=False)
        p.to_csv(tmp_path / 'predictions.csv', index=False)
        return call('plate', 'predictions.csv', '--map', 'map.csv', '--out', out, *args)

    return f


def test_a_plate_becomes_a_page_and_tables(screen, call, plate, tmp_path):
    code, said = screen()
    assert code == 0, said
    names = {o.name for o in (tmp_path / 'plate').iterdir()}
    assert names == {'plate.html', 'wells.csv', 'quality.csv', 'curves.csv', 'repeat.csv', 'profiles.csv'}
    page = (tmp_path / 'plate' / 'plate.html').read_text(encoding='utf-8')
    assert page.count('<img ') == 2 and all(h in page for h in ('The plate', 'Quality', 'Doses', 'What to repeat'))
    curve = read_csv(tmp_path / 'plate' / 'curves.csv').iloc[0]
    assert f'EC50 {curve.ec50:.3g} uM' in said and f'EC50 {curve.ec50:.3g} uM' in page
    assert curve.low < 0.9 < curve.high and "Z' 0." in said
    profiles = read_csv(tmp_path / 'plate' / 'profiles.csv')
    assert {'Metadata_Plate', 'Metadata_Well'} <= set(profiles) and len(profiles) == (plate[0].role != 'empty').sum()
    refused(screen(), 'plate', 'exists', '--overwrite')
    code, again = screen('--overwrite')
    assert code == 0 and again == said


def test_the_map_of_write_layout_is_taken_as_it_is(call, plate, tmp_path):
    write_layout(plate[0], tmp_path / 'layout')
    plate[1].to_csv(tmp_path / 'p.csv', index=False)
    code, said = call('plate', 'p.csv', '--map', 'layout/map.csv', '--out', 'x')
    assert code == 0 and 'EC50' in said, said


# ---- maps that cannot be meant: refused, and nothing is written


def add_row(m, **row):
    return pd.concat([m, pd.DataFrame([m[m.role == 'sample'].iloc[0].to_dict() | row])], ignore_index=True)


def one(m, role, column, value):
    i = m.index[m.role == role][0]
    m[column] = m[column].astype(object)
    m.loc[i, column] = value
    return m


maps = {
    'a vehicle with a dose': (
        lambda m: one(m.drop(columns='role').assign(role=plan_roles(m)), 'negative', 'dose_um', 5),
        ['vehicle', 'dose 0'],
    ),
    'a well twice': (lambda m: add_row(m, dose_um=3), ['stands 2 times in the map']),
    'a well not on the plate': (lambda m: add_row(m, well='I03'), ['I03 is not on a plate of 96 wells', '--wells 384']),
    'a well without a name': (lambda m: one(m, 'sample', 'well', ''), ['no name']),
    'no column of wells': (lambda m: m.rename(columns=dict(well='where')), ['`well`']),
    'an unknown role': (lambda m: one(m, 'sample', 'role', 'hero'), ['hero', 'sample, negative']),
    'a dose below 0': (lambda m: one(m, 'sample', 'dose_um', -1), ['0 or more']),
    'a dose that is text': (lambda m: one(m, 'sample', 'dose_um', 'much'), ["'much' is no dose"]),
    'photographs of wells that the map does not know': (
        lambda m: m[m.well != m.well[m.role == 'sample'].iloc[0]],
        ['1 well with photographs not in the map', '--unmapped drop'],
    ),
    'another plate': (lambda m: m.assign(plate='P7'), ['not in the map', 'nearest']),
}


def plan_roles(m):
    return m.role


@pytest.mark.parametrize('kind', maps)
def test_maps_that_cannot_be_meant(screen, tmp_path, kind):
    change, words = maps[kind]
    refused(screen(change=change), *words)
    assert not (tmp_path / 'plate').exists()


def test_files_and_options_that_cannot_be_meant(screen, call, plate, tmp_path):
    screen(out='first')
    refused(call('plate', 'none.csv', '--map', 'map.csv'), 'none.csv')
    refused(call('plate', 'predictions.csv', '--map', 'none.csv'), 'none.csv')
    refused(call('plate', 'predictions.csv'), '--map')
    for options, words in (
        (('--score', 'guess'), ['--score guess', 'probability']),
        (('--model', '5pl'), ['--model', '3pl']),
        (('--control', 'CPT'), ['TREATMENT=DOSE']),
        (('--control', 'CPT=much'), ['no dose']),
        (('--positive', 'XYZ'), ['XYZ']),
        (('--wells', '95'), ['no plate of 95 wells']),
        (('--unmapped', 'keep'), ['refuse', 'drop']),
    ):
        refused(screen(*options), *words)
    refused(screen(preds=lambda p: p.drop(columns='well')), 'no column `well`', '{well}')
    refused(screen(preds=lambda p: p.assign(p_CPT=p.p_CPT.where(p.index != 5))), 'Row 5', 'between 0 and 1')
    refused(screen(preds=lambda p: p.assign(p_CPT=p.p_CPT.astype(object).where(p.index != 5, 'many'))), 'Row 5', 'many')
    refused(screen(preds=lambda p: p[:0]), 'no rows')
    assert not (tmp_path / 'plate').exists()


# ---- what has no answer is said, and the rest is answered


def test_photographs_without_a_map_row_may_be_left_out_and_wells_without_photographs_are_named(screen, tmp_path):
    well = {}

    def lose(m):
        well['map'] = m.well[m.role == 'sample'].iloc[0]
        return m[m.well != well['map']]

    def forget(p):
        well['photos'] = [w for w in p.well.unique() if w != well['map']][0]
        return p[p.well != well['photos']]

    code, said = screen('--unmapped', 'drop', change=lose, preds=forget)
    assert code == 0 and f'{well["map"]}' in said and 'They were left out' in said, said
    assert f'1 well of the map without photographs: P1 {well["photos"]}' in said, said
    again = read_csv(tmp_path / 'plate' / 'repeat.csv')
    assert 'has no photographs' in set(again.why[again.well == well['photos']])
    assert well['photos'] in (tmp_path / 'plate' / 'plate.html').read_text(encoding='utf-8')


def test_doses_that_give_no_curve(screen, tmp_path):
    none = lambda m: m.assign(
        dose_um=m.dose_um.where(m.role == 'empty', 0.0), role=m.role.replace('sample', 'negative')
    )
    code, said = screen(change=none)
    assert code == 0 and 'No curve: all doses are 0' in said, said
    few = lambda m: m.assign(dose_um=m.dose_um.mask(m.role == 'sample', m.dose_um.map(lambda d: 0.1 if d < 1 else 10)))
    code, said = screen('--overwrite', change=few)
    assert code == 0 and 'no curve' in said.lower() and '2' in said, said
    assert "Z' " in said and (tmp_path / 'plate' / 'quality.csv').exists()


def test_a_plateau_that_is_not_reached_has_a_sentence(call, tmp_path):
    low = [0.01, 0.02, 0.04, 0.08, 0.16, 0.3]
    plan = layout_plate('CPT', low, replicates=5, vehicles=8, seed=5)
    plan.to_csv(tmp_path / 'map.csv', index=False)
    simulate_plate_scores(plan, sites=2, tiles=3, seed=6).to_csv(tmp_path / 'p.csv', index=False)
    code, said = call('plate', 'p.csv', '--map', 'map.csv')
    assert code == 0 and re.search(r'EC50 > 0\.3 uM, the highest dose', said), said
    assert np.isnan(read_csv(tmp_path / 'plate' / 'curves.csv').ec50.iloc[0])
    assert 'the highest dose, stands for the positive control' in said


def test_a_curve_that_falls_is_said_to_fall(screen):
    code, said = screen(preds=lambda p: p.rename(columns=dict(p_CPT='p_DMSO', p_DMSO='p_CPT')))
    assert code == 0 and 'falls with dose' in said, said


def test_controls_that_are_equal_or_too_few(screen, plate):
    same = lambda p: p.assign(p_CPT=0.3, p_DMSO=0.7)
    code, said = screen(preds=same)
    assert code == 0 and 'minus infinity' in said and 'no response' in said, said
    keep = plate[0].well[plate[0].role == 'positive'].iloc[1:]
    code, said = screen('--overwrite', preds=lambda p: p[~p.well.isin(keep)])
    assert (
        code == 0
        and 'There are 1 wells with a score for the positive control' in said
        and 'EC50' in said
        and '--control' in said
    ), said
    code, said = screen('--overwrite', '--control', 'CPT=30')
    assert code == 0 and "Z' " in said
    code, said = screen('--overwrite', '--control', 'XYZ=30')
    assert code == 0 and 'Quality: not told. No well has treatment' in said


def test_names_run_nothing(screen, tmp_path):
    rename = lambda t: t.assign(plate='<b>=P1')
    code, said = screen(change=rename, preds=lambda p: rename(p.drop(columns='plate')))
    page = (tmp_path / 'plate' / 'plate.html').read_text(encoding='utf-8')
    assert code == 0 and '<b>=P1' not in page


@pytest.mark.long
def test_followed_wells_and_two_plates(call, tmp_path):
    plan = layout_plate('CPT', [1.0, 10.0, 30.0, 100.0], replicates=3, vehicles=6, plates=2, experiments=2, seed=7)
    plan.to_csv(tmp_path / 'map.csv', index=False)
    simulate_plate_scores(plan, hours=(0, 2, 6), sites=2, tiles=2, seed=8).to_csv(tmp_path / 'p.csv', index=False)
    code, said = call('plate', 'p.csv', '--map', 'map.csv')
    assert code == 0 and 'on 4 plates, 3 hours' in said and 'told from the vehicle from' in said, said
    assert said.count('Quality, experiment N') == 4
    page = (tmp_path / 'plate' / 'plate.html').read_text(encoding='utf-8')
    assert page.count('<img ') == 4 + 1 + 1 and (tmp_path / 'plate' / 'hours.csv').exists()
