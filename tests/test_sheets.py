"The other bench at the command line: a table and a page, one paragraph for every mistake, and nothing in the folder that was given."

import re, shutil

import numpy as np
import pandas as pd
import pytest
import tifffile

from celldeath_nb.assays.sheets import answer_nuclei, answer_tubes
from celldeath_nb.files import read_csv
from celldeath_nb.simulate.microscope import simulate_experiment
from celldeath_nb.simulate.stains import stain_experiment

pytest.importorskip('flowio', reason='no flowio: pip install "celldeath_nb[flow]"')
from celldeath_nb.simulate.tubes import simulate_tubes, write_tubes


def refused(res, *words):
    code, said = res
    assert code in (1, 2), said
    for w in words:
        assert w in said, said


def state(folder):
    return {o.relative_to(folder).as_posix(): o.stat().st_mtime_ns for o in folder.rglob('*')}


@pytest.fixture(scope='module')
def stained(tmp_path_factory):
    "Three days of two arms, a small field each, with two marks."
    d = tmp_path_factory.mktemp('stained')
    args = dict(hours=(6,), experiments=3, wells=1, sites=1, size=(200, 260), workers=1, seed=7)
    phase = simulate_experiment(d / 'phase', ('MCF7',), **args)
    return stain_experiment(phase, d / 'stained', ('gH2AX', 'p53'), nucleus='d0', seed=7)


@pytest.fixture(scope='module')
def tubes(tmp_path_factory):
    return write_tubes(simulate_tubes('MCF7', hour=6, n=2500, seed=8), tmp_path_factory.mktemp('flow') / 'tubes')


def test_nuclei_become_a_table_and_a_page(call, stained, tmp_path):
    before = state(stained)
    code, said = call('nuclei', stained, '--dapi', 'd0', '--marks', 'gH2AX', 'p53', '--out', 'table.csv')
    assert code == 0, said
    assert state(stained) == before
    assert sorted(o.name for o in tmp_path.iterdir()) == ['table.csv', 'table.html']
    t = read_csv(tmp_path / 'table.csv')
    assert {'nucleus', 'corrected_gH2AX', 'corrected_p53', 'treatment', 'experiment'} <= set(t)
    truth = read_csv(stained / 'truth' / 'nuclei.csv')
    planted = truth.groupby('treatment').level_gH2AX.median()
    told = float(re.search(r'gH2AX: CPT is ([\d.]+) times', said)[1])
    assert abs(np.log(told / (planted.CPT / planted.DMSO))) < 0.3
    page = (tmp_path / 'table.html').read_text(encoding='utf-8')
    assert 'n = 3' in said and said.splitlines()[1] in page.replace('&lt;', '<') and page.count('<img ') == 3
    assert 'http' not in re.sub(r'data:image[^"]+', '', page)


def test_marks_may_stand_before_the_folder_and_are_all_others_if_left_out(call, stained, tmp_path):
    code, said = call('nuclei', '--marks', 'p53', stained, '--dapi', 'd0', '--out', 'a.csv', '--report', 'sub/b.html')
    assert code == 0 and (tmp_path / 'sub' / 'b.html').is_file(), said
    assert 'gH2AX' not in said and 'corrected_gH2AX' not in read_csv(tmp_path / 'a.csv')
    code, said = call('nuclei', stained)
    assert code == 0 and 'gH2AX: CPT' in said and 'p53: CPT' in said


def test_a_channel_of_an_unknown_name_can_be_given(call, stained, tmp_path):
    here = tmp_path / 'own'
    here.mkdir()
    for f in stained.glob('*_p53_*'):
        shutil.copy(f, here / f.name.replace('_p53_', '_BlueLamp_'))
    for f in stained.glob('*_gH2AX_*'):
        shutil.copy(f, here / f.name.replace('_gH2AX_', '_LongPass_'))
    code, said = call('nuclei', here, '--dapi', 'BlueLamp', '--marks', 'LongPass')
    assert code == 0 and 'LongPass: CPT is' in said, said


def test_mistakes_with_nuclei_are_paragraphs(call, stained, tmp_path):
    refused(call('nuclei', 'nowhere'), 'nowhere')
    refused(call('nuclei', stained, '--dapi', 'd7', '--marks', 'p53'), 'd7', '--dapi')
    refused(call('nuclei', stained, '--marks', 'p21'), 'p21', 'gH2AX')
    refused(call('nuclei', stained, '--out', stained / 'a.csv'), 'only read', '--out')
    refused(call('nuclei', stained, '--report', stained / 'a.html'), 'only read', '--report')
    refused(call('nuclei', stained, '--out', 'a.html', '--report', 'a.html'), 'another name')
    refused(call('nuclei', stained, '--method', 'watershed'), 'watershed', 'local')
    refused(call('nuclei', stained, '--pages', 'DAPI'), 'CHANNEL=NUMBER')
    refused(call('nuclei', stained, '--um-per-px', '0'), '--um-per-px')
    (tmp_path / 'empty').mkdir()
    refused(call('nuclei', 'empty'), 'no photographs')
    assert [o.name for o in tmp_path.iterdir()] == ['empty']
    (tmp_path / 'nuclei.csv').write_text('mine')
    refused(call('nuclei', stained), '--overwrite')
    assert (tmp_path / 'nuclei.csv').read_text() == 'mine'


def test_what_cannot_be_compared_is_said_and_what_cannot_be_read_is_listed(call, stained, tmp_path):
    for arms, word in (('*_CPT*_N1.tif', 'only one arm'), ('*_N1.tif', 'one replicate')):
        here = tmp_path / word.replace(' ', '_')
        here.mkdir()
        for f in stained.glob(arms):
            shutil.copy(f, here)
        code, said = call('nuclei', here, '--marks', 'p53', '--out', f'{word[:3]}{arms[2]}.csv')
        assert code == 0 and word.split()[-1] in said and 'p = ' not in said.split('paired')[-1].split('With')[0], said
    torn = tmp_path / 'torn'
    shutil.copytree(stained, torn, ignore=lambda *_: ['truth'])
    bad = next(torn.glob('*_p53_*N2.tif'))
    bad.write_bytes(bad.read_bytes()[:300])
    small = next(torn.glob('*CPT*_gH2AX_*N3.tif'))
    tifffile.imwrite(small, np.full((20, 20), 9, np.uint16))
    code, said = call('nuclei', torn, '--dapi', 'd0', '--out', 'torn.csv')
    assert code == 3 and bad.name in said, said
    listed = read_csv(tmp_path / 'torn.problems.csv')
    assert {bad.name, small.name} <= set(listed.file) and 'unequal size' in ' '.join(listed.reason)
    page = (tmp_path / 'torn.html').read_text(encoding='utf-8')
    assert bad.name in page and small.name in page


def test_names_that_tell_no_arm_still_give_a_table(call, stained, tmp_path):
    here = tmp_path / 'plain'
    here.mkdir()
    for c in ('d0', 'p53'):
        shutil.copy(next(stained.glob(f'*_{c}_*N1.tif')), here / f'scan7_{c}.tif')
    code, said = call('nuclei', here)
    assert code == 0 and 'nothing tells the arm' in said, said
    assert len(read_csv(tmp_path / 'nuclei.csv')) > 3


def test_no_name_is_run_by_the_page(call, stained, tmp_path):
    here = tmp_path / 'odd'
    here.mkdir()
    for c in ('d0', 'p53'):
        shutil.copy(next(stained.glob(f'*_{c}_*N1.tif')), here / f'<b>x&y_{c}.tif')
    (here / '<i>torn_p53.tif').write_bytes(b'II*\0')
    assert call('nuclei', here)[0] == 3
    page = (tmp_path / 'nuclei.html').read_text(encoding='utf-8')
    assert '<i>torn' not in page and '&lt;i&gt;torn' in page


def test_lines_hours_and_doses_are_compared_apart():
    rng = np.random.default_rng(0)
    rows = []
    for hour, gain in ((1, 0.0), (6, 0.5)):
        for e in ('N1', 'N2', 'N3'):
            for arm, dose in (('DMSO', 0.0), ('CPT', 1.0), ('CPT', 10.0)):
                level = 300 * 10 ** (gain * (dose > 5) + rng.normal(0, 0.02) + rng.normal(0, 0.1, 40))
                rows += [
                    dict(field=f'{e}{arm}{dose}{hour}', experiment=e, treatment=arm, dose_um=dose, hour=hour, v=v)
                    for v in level
                ]
    t = pd.DataFrame(rows).rename(columns=dict(v='corrected_p53')).assign(edge=False, solidity=0.95)
    found = answer_nuclei(t, ['p53'])
    paired = found.tests[found.tests.test.str.startswith('paired')].set_index(['of', 'arm']).ratio
    assert list(paired.index) == [('1 h', 'CPT 1 µM'), ('1 h', 'CPT 10 µM'), ('6 h', 'CPT 1 µM'), ('6 h', 'CPT 10 µM')]
    assert (
        abs(paired['6 h', 'CPT 10 µM'] / 10**0.5 - 1) < 0.15 and abs(paired.drop(('6 h', 'CPT 10 µM')) - 1).max() < 0.15
    )
    dim = t.assign(corrected_p53=t.corrected_p53 - t.corrected_p53.quantile(0.02))
    assert 'not in logarithms' in answer_nuclei(dim, ['p53']).sentences[1]


def test_tubes_become_a_table_and_a_page(call, tubes, tmp_path):
    before = state(tubes)
    code, said = call('flow', tubes, '--map', tubes / 'tubes.csv', '--out', 'q.csv')
    assert code == 0, said
    assert state(tubes) == before
    assert sorted(o.name for o in tmp_path.iterdir()) == ['q.csv', 'q.html']
    t = read_csv(tmp_path / 'q.csv').set_index('tube')
    truth = read_csv(tubes / 'truth' / 'shares.csv').set_index('tube')
    for k in ('dead', 'late', 'early', 'alive'):
        assert (t[k] - truth.loc[t.index, k]).abs().max() < 0.35
    page = (tmp_path / 'q.html').read_text(encoding='utf-8')
    assert said.splitlines()[1] in page and page.count('<img ') == 1 + 3


def test_a_first_map_by_names(call, tubes, tmp_path):
    code, said = call('flow', tubes, '--draft', 'map.csv')
    assert not code and 'sample 6' in said and '--map map.csv' in said
    code, said = call('flow', tubes, '--map', 'map.csv', '--method', 'peak')
    assert code == 0 and 'early: CPT' in said, said
    refused(call('flow', tubes, '--draft', 'map.csv'), 'exists')


def test_mistakes_with_tubes_are_paragraphs(call, tubes, tmp_path):
    refused(call('flow', 'nowhere'), 'nowhere')
    refused(call('flow', tubes, '--map', 'none.csv'), 'none.csv', '--draft')
    refused(call('flow', tubes, '--out', tubes / 'q.csv'), 'only read')
    refused(call('flow', tubes, '--method', 'middle'), 'valley', 'peak')
    refused(call('flow', tubes, '--x', 'FL9-A'), 'FL9-A')
    m = read_csv(tubes / 'tubes.csv')
    m.assign(file='other/' + m.file).to_csv('other.csv', index=False)
    refused(call('flow', tubes, '--map', 'other.csv'), 'map of this folder')
    m.drop(columns='role').to_csv('no_role.csv', index=False)
    refused(call('flow', tubes, '--map', 'no_role.csv'), 'role')
    m[~m.role.str.startswith('single')].to_csv('no_singles.csv', index=False)
    refused(call('flow', tubes, '--map', 'no_singles.csv'), '--spill', '--no-compensation')
    refused(call('flow', tmp_path, '--draft', 'a.csv'), 'no FCS files')
    assert not list(tmp_path.glob('quadrants*'))


def test_a_matrix_of_ones_own_and_none_at_all(call, tubes, tmp_path):
    m = read_csv(tubes / 'tubes.csv')
    m[~m.role.str.startswith('single')].to_csv('no_singles.csv', index=False)
    args = 'flow', tubes, '--map', 'no_singles.csv'
    code, said = call(*args, '--spill', tubes / 'truth' / 'spill.csv', '--out', 'own.csv')
    assert code == 3 and 'in the folder and not in the map' in said, said
    call(*args, '--no-compensation', '--out', 'none.csv')
    own, none = (read_csv(tmp_path / f'{k}.csv').query('treatment == "CPT"') for k in ('own', 'none'))
    truth = read_csv(tubes / 'truth' / 'shares.csv').set_index('tube').loc[own.tube]
    error = [np.abs(o.early.to_numpy() - truth.early).max() for o in (own, none)]
    assert error[0] < 0.5 < error[1]


def test_torn_tubes_are_listed_and_the_rest_is_counted(call, tubes, tmp_path):
    here = tmp_path / 'torn'
    shutil.copytree(tubes, here, ignore=lambda *_: ['truth'])
    bad = here / 'N2_MCF7_CPT_6H.fcs'
    bad.write_bytes(bad.read_bytes()[:400])
    code, said = call('flow', here, '--out', 'q.csv')
    assert code == 3 and bad.name in said, said
    assert bad.name in (tmp_path / 'q.html').read_text(encoding='utf-8')
    assert 'n = 2' in said and set(read_csv(tmp_path / 'q.problems.csv').file) == {bad.name}
    one = answer_tubes(read_csv(tmp_path / 'q.csv').query('replicate == "N1"'))
    assert 'there is no test by replicates' in one.sentences[1]
