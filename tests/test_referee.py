"The referee's page comes from a run folder that is only read; what is hostile is refused in one sentence."

import json, os, shutil
from hashlib import sha256

import pandas as pd
import pytest

from celldeath_nb.evaluate.scores import metrics
from celldeath_nb.files import sealed
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.runs import open_run
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.referee import NOT_RECORDED, referee_page
from celldeath_nb.report import LIGHTS, verdict
from celldeath_nb.road import train_safely
from celldeath_nb.simulate.samples import sample_data
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.trust.chance import FEW
from celldeath_nb.trust.findings import open_findings


@pytest.fixture(scope='module')
def road(tmp_path_factory):
    "A short road."
    d = tmp_path_factory.mktemp('referee')
    drawn = dict(lines=('U2OS',), experiments=3, wells=2, sites=1, size=(120, 160), workers=1)
    tiles = cut_tiles(read_fields(sample_data('simulated', d / 'photographs', **drawn)), d / 'tiles', grid=(1, 1))
    return train_safely(tiles, d / 'run', Recipe.quick(size=32, epochs=1, min_steps=0, batch_size=4), device='cpu')


@pytest.fixture(scope='module')
def made(road):
    "A run folder as the road leaves it."
    return road.run.path


@pytest.fixture
def run(made, tmp_path):
    "A copy of it, to be spoiled."
    return shutil.copytree(made, tmp_path / 'run')


def sums(folder):
    return {o: (sha256(o.read_bytes()).hexdigest(), o.stat().st_mtime_ns) for o in folder.rglob('*') if o.is_file()}


def rewrite(path, **changes):
    "A page with other fields, with a checksum that is right."
    page = json.loads(path.read_text(encoding='utf-8'))
    page = {k: v for k, v in {**page, **changes}.items() if k != 'checksum' and v is not ...}
    path.write_text(json.dumps(sealed(page)), encoding='utf-8')


def test_the_page_says_what_the_road_said_and_the_folder_stays(made, call, tmp_path):
    before = sums(made)
    code, said = call('referee', str(made))
    assert code == 0 and 'referee.html' in said
    text = (tmp_path / 'referee.html').read_text(encoding='utf-8')
    assert sums(made) == before
    assert 'Held out for testing: experiment=N3' in text and 'These photographs are simulated' in text
    assert 'Of 21 items' in text and 'Of 19 items' in text and NOT_RECORDED in text
    kept = json.loads((made / 'audit.json').read_text(encoding='utf-8'))
    assert all(f'>{o["sees"]}<' in text for o in kept['shortcuts'])
    assert 'src="http' not in text and '<script' not in text
    code, said = call('referee', str(made))
    assert code == 1 and 'exists already' in said and 'Traceback' not in said
    assert call('referee', str(made), '--overwrite')[0] == 0
    code, said = call('referee', str(made), '--out', str(made / 'referee.html'))
    assert code == 1 and 'only read' in said and sums(made) == before


def test_what_was_kept_gives_the_verdict_that_the_audit_gives(road):
    "Whatever the network reached: the light that is lit, and every sentence beside it."
    kept = open_findings(open_run(road.run.path))
    always = road.run.preds.assign(pred=lambda t: t.label)
    asked = [
        road.run.preds,
        always,
        pd.concat([always] * 8).assign(well=lambda t: [str(i // 4) for i in range(len(t))]),
    ]
    for preds in asked:
        assert verdict(preds, kept, 'N3') == verdict(preds, road.found, 'N3')


@pytest.mark.parametrize('found', ['passed', FEW, 'failed'])
def test_the_page_has_a_light_for_every_verdict(run, tmp_path, found):
    "Also the green one, which a network that learned little never lights: its predictions are made perfect."
    from celldeath_nb.referee import _facts, _lit

    bad = ['A border tells.'] if found == 'failed' else []
    rewrite(run / 'audit.json', verdict=found, failures=bad, untold='One control cannot be told.', shortcuts=[])
    f = _facts(open_run(run))
    wells = [f'W{i}' for i in range(40)]
    rows = [
        dict(label=c, pred=c, split='test', well=w, field=f'{c}{w}', tile=f'{c}{w}#0,0')
        for w in wells
        for c in ('CPT', 'DMSO')
    ]
    f.preds = pd.DataFrame(rows).assign(p_CPT=lambda t: 0.98 * (t.pred == 'CPT') + 0.01, p_DMSO=lambda t: 1 - t.p_CPT)
    f.scores = dict(test=metrics(f.preds, positive='CPT'))
    assert (LIGHTS['go'] in _lit(f)) == (found == 'passed')
    assert ('cannot be told' in _lit(f)) == (found == 'passed')
    assert 'One control cannot be told.' in referee_page(run, tmp_path / 'a.html').read_text(encoding='utf-8')


def test_what_strangers_wrote_is_text(run, tmp_path):
    bad = '<script>alert(1)</script>'
    rewrite(run / 'audit.json', failures=[bad], held_out=bad, worth=[bad], notes=[bad])
    text = referee_page(run, tmp_path / 'a.html').read_text(encoding='utf-8')
    assert bad not in text and '&lt;script&gt;' in text


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(verdict=5), 'no usable verdict'),
        (dict(failures='all'), 'no usable failures'),
        (dict(shortcuts=[dict(sees='border')]), 'no usable shortcuts'),
        (dict(controls=...), 'no usable controls'),
        (dict(untold=None), 'no usable untold'),
        (dict(pairs=-1), 'no usable pairs'),
        (dict(version=2), 'no usable version'),
        (dict(split='0' * 16), 'speaks of another split'),
    ],
)
def test_an_odd_audit_is_refused(run, call, tmp_path, changes, words):
    rewrite(run / 'audit.json', **changes)
    code, said = call('referee', 'run')
    assert code == 1 and words in said and 'unexpected' not in said
    assert not (tmp_path / 'referee.html').exists()


def spoil(run, name, text):
    "Another text in a file of a run that has no checksums, as an earlier version left it."
    (run / 'checksums.json').unlink()
    (run / name).write_text(text, encoding='utf-8')


@pytest.mark.parametrize(
    'name, text, words',
    [
        ('metrics.json', '{}', 'no accuracy for the side'),
        ('metrics.json', '{"test": 1}', 'no usable test'),
        ('metrics.json', '[' * 100_000, 'damaged'),
        ('split.csv', 'tile,label\na,b\n', 'no column split'),
        ('split.csv', 'tile,label,split\na,CPT,test\n', 'not the split'),
        ('environment.json', '{"seconds": 1, "store": "a"}', 'no usable split'),
        ('predictions.csv', 'tile,label,pred,split\na,CPT,CPT,test\n', "no column 'field'"),
        ('predictions.csv', '\x00', 'predictions.csv'),
    ],
)
@pytest.mark.filterwarnings('ignore:.*has no checksums.json')
def test_a_run_that_is_not_whole_is_refused(run, call, tmp_path, name, text, words):
    spoil(run, name, text)
    code, said = call('referee', 'run')
    assert code == 1 and words in said and 'unexpected' not in said
    assert not (tmp_path / 'referee.html').exists()


@pytest.mark.skipif(os.name != 'posix', reason='links')
def test_a_link_out_of_the_folder_is_refused(run, tmp_path):
    shutil.move(run / 'audit.json', tmp_path / 'elsewhere.json')
    (run / 'audit.json').symlink_to(tmp_path / 'elsewhere.json')
    with pytest.raises(ValueError, match='leads out of its folder'):
        referee_page(run, tmp_path / 'a.html')


@pytest.mark.filterwarnings('ignore:.*has no checksums.json')
def test_without_audit_and_checksums_the_page_says_so(run, tmp_path):
    (run / 'checksums.json').unlink()
    (run / 'audit.json').unlink()
    text = referee_page(run, tmp_path / 'a.html').read_text(encoding='utf-8')
    assert 'No table of an audit' in text and 'has no checksums' in text and 'Audit: ' in text
    assert f'{NOT_RECORDED} (the rule of the split)' in text
