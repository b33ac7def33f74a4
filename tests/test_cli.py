"The command as a stranger meets it: every mistake is one paragraph, nothing half-written stays, and the road leads to a report."

import os, re, zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import celldeath_nb.cli as cli
import celldeath_nb.road as celldeath_road
import celldeath_nb.studies.queue as studies_queue
from celldeath_nb.studies.settings import paper_settings
from celldeath_nb.cli import main

shared = Path(__file__).parents[2] / 'shared' / 'data'
needs_shared = pytest.mark.skipif(
    not shared.is_dir(), reason='the real photographs (../shared/data) are not on this machine'
)


def photo(path, seed=0, size=(96, 128)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(60, 200, size, dtype=np.uint8)).save(path)


def name(treatment, site, experiment):
    return f'U2_{treatment}_1H_RGB_{site:04d}_{experiment}.png'


def photographs(folder, treatments=('CPT', 'DMSO'), experiments=('N1', 'N2', 'N3'), n=4):
    for e in experiments:
        for t in treatments:
            for i in range(n):
                photo(folder / name(f'{t}1', i + 1, e), seed=zlib.crc32(f'{e} {t} {i}'.encode()))
    return folder


def refused(res, *words):
    code, said = res
    assert code in (1, 2), said
    for w in words:
        assert w in said, said


def left(folder, *names):
    assert sorted(o.name for o in Path(folder).iterdir()) == sorted(names)


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    "A small store: three experiments, two treatments."
    d = tmp_path_factory.mktemp('store')
    with pytest.raises(SystemExit) as e:
        main(['slice', str(photographs(d / 'photos')), '--out', str(d / 'tiles'), '--grid', '1x1'])
    assert e.value.code == 0
    return d / 'tiles'


def test_empty_folder(call, tmp_path):
    (tmp_path / 'photos').mkdir()
    refused(call('slice', 'photos', '--out', 'tiles'), 'photos')
    left(tmp_path, 'photos')


@pytest.mark.parametrize(
    'words',
    [
        'slice photos --out photos/tiles',
        'audit photos --out photos/a',
        'demo --data photos --out photos/d',
        'train photos --out photos/run',
        'predict run photos --out photos/p.csv',
        'predict run photos --out run/p.csv',
        'export run --to hub --out run/hub',
        'paper photos --out photos/paper',
    ],
)
def test_nothing_is_written_into_a_folder_that_was_given(words, call, tmp_path):
    photo(tmp_path / 'photos' / name('CPT1', 1, 'N1'))
    (tmp_path / 'run').mkdir()
    refused(call(*words.split()), 'which is only read', 'outside of it', str(tmp_path))
    left(tmp_path / 'photos', name('CPT1', 1, 'N1'))
    left(tmp_path / 'run')


def test_the_place_where_one_stands_may_be_the_folder_given(call, tmp_path, monkeypatch):
    photo(tmp_path / 'photos' / name('CPT1', 1, 'N1'))
    monkeypatch.chdir(tmp_path / 'photos')
    refused(call('demo', '--data', '.'), 'which is only read', '--out', str(tmp_path / 'celldeath_demo'))
    left(tmp_path / 'photos', name('CPT1', 1, 'N1'))


def test_folder_that_is_not_there(call, tmp_path):
    refused(call('slice', 'nowhere', '--out', 'tiles'), 'nowhere')
    left(tmp_path)


def test_no_image_in_it(call, tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'notes.txt').write_text('none')
    refused(call('slice', 'photos', '--out', 'tiles'), 'photos')
    left(tmp_path, 'photos')


def test_hidden_files_and_checkpoints_are_not_photographs(call, tmp_path):
    p = photographs(tmp_path / 'photos')
    photo(p / '.ipynb_checkpoints' / name('CPT1', 9, 'N1'))
    photo(p / '._U2_CPT1_1H_RGB_0009_N1.png')
    (p / '.DS_Store').write_bytes(b'x')
    code, said = call('slice', 'photos', '--out', 'tiles', '--grid', '1x1')
    assert code == 0 and '24 tiles' in said, said


def test_label_that_fits_no_file(call, tmp_path):
    photographs(tmp_path / 'photos')
    refused(call('slice', 'photos', '--out', 'tiles', '--labels', 'CPT', 'vehicle'), 'vehicle')
    left(tmp_path, 'photos')


def test_two_labels_that_fit_one_file(call, tmp_path):
    p = photographs(tmp_path / 'photos', n=1)
    photo(p / 'U2_CPT1_DMSO_1H_RGB_0009_N1.png')
    refused(call('slice', 'photos', '--out', 'tiles', '--labels', 'CPT', 'DMSO'), 'U2_CPT1_DMSO_1H_RGB_0009_N1.png')
    left(tmp_path, 'photos')


def test_well_number_belongs_to_the_treatment(call, tmp_path):
    photographs(tmp_path / 'photos')
    code, said = call('slice', 'photos', '--out', 'tiles', '--grid', '1x1', '--labels', 'CPT', 'DMSO')
    assert code == 0 and 'CPT: 12' in said and 'DMSO: 12' in said, said


def test_truncated_photograph_is_left_out_and_named(call, tmp_path):
    p = photographs(tmp_path / 'photos')
    bad = p / name('CPT1', 1, 'N1')
    bad.write_bytes(bad.read_bytes()[:3000])
    code, said = call('slice', 'photos', '--out', 'tiles', '--grid', '1x1')
    assert code == 3 and bad.name in said and '23 tiles' in said, said
    listed = pd.read_csv(tmp_path / 'tiles' / 'problems.csv')
    assert listed.file.tolist() == [bad.name]


def test_photographs_smaller_than_a_tile(call, tmp_path):
    photographs(tmp_path / 'photos')
    refused(call('slice', 'photos', '--out', 'tiles', '--tile', '480x640'), '480', '96')
    left(tmp_path, 'photos')


@pytest.mark.parametrize('options', [('--grid', '2'), ('--tile', 'large'), ('--grid', '2x2', '--tile', '10x10')])
def test_sizes_that_are_no_sizes(call, tmp_path, options):
    photographs(tmp_path / 'photos', n=1)
    refused(call('slice', 'photos', '--out', 'tiles', *options), options[0])
    left(tmp_path, 'photos')


def test_one_class_only(call, tmp_path):
    photographs(tmp_path / 'photos', treatments=('CPT',))
    assert call('slice', 'photos', '--out', 'tiles', '--grid', '1x1')[0] in (0, 1)
    if (tmp_path / 'tiles').exists():
        refused(call('train', 'tiles', '--out', 'run'), 'CPT', 'class')
    assert not (tmp_path / 'run').exists()


def test_class_missing_from_training_after_the_split(call, tmp_path):
    p = photographs(tmp_path / 'photos', treatments=('DMSO',))
    for i in range(4):
        photo(p / name('CPT1', i + 1, 'N3'), seed=90 + i)
    assert call('slice', 'photos', '--out', 'tiles', '--grid', '1x1')[0] == 0
    refused(call('train', 'tiles', '--out', 'run', '--test', 'experiment=N3'), 'class')
    left(tmp_path, 'photos', 'tiles')


def test_a_copy_in_the_experiment_held_out_is_named(call, tmp_path):
    p = photographs(tmp_path / 'photos')
    (p / name('CPT1', 1, 'N3')).write_bytes((p / name('CPT1', 1, 'N1')).read_bytes())
    assert call('slice', 'photos', '--out', 'tiles', '--grid', '1x1')[0] == 0
    refused(
        call('train', 'tiles', '--out', 'run', '--test', 'experiment=N3'),
        name('CPT1', 1, 'N1'),
        'two sides',
        'leave some of them out',
    )
    left(tmp_path, 'photos', 'tiles')


def test_one_picture_under_two_labels_is_refused(call, tmp_path):
    p = photographs(tmp_path / 'photos')
    (p / name('DMSO1', 2, 'N1')).write_bytes((p / name('CPT1', 1, 'N1')).read_bytes())
    refused(
        call('slice', 'photos', '--out', 'tiles', '--grid', '1x1'),
        name('DMSO1', 2, 'N1'),
        'the same photograph',
        'take it out',
    )
    left(tmp_path, 'photos')


def test_split_by_something_that_is_not_there(call, tiles, tmp_path):
    refused(call('train', tiles, '--out', 'run', '--group', 'plate'), 'plate', 'field')
    refused(call('train', tiles, '--out', 'run', '--valid', '7'), 'between 0 and 1')
    refused(call('train', tiles, '--out', 'run', '--balance', 'yes'), 'balance')
    left(tmp_path)


def test_held_out_experiment_that_does_not_exist(call, tiles, tmp_path):
    refused(call('train', tiles, '--out', 'run', '--test', 'experiment=N9'), 'N9', 'N1', 'N3')
    left(tmp_path)


def test_output_that_exists(call, tiles, tmp_path):
    for out in ('run', 'p.csv'):
        (tmp_path / out).mkdir() if out == 'run' else (tmp_path / out).write_text('mine')
    refused(call('train', tiles, '--out', 'run'), 'run', '--overwrite')
    refused(call('slice', tiles, '--out', 'run'), 'run', '--overwrite')
    refused(call('demo', '--out', 'run'), 'run', '--overwrite')
    refused(call('predict', 'run', tiles, '--out', 'p.csv'), 'p.csv', '--overwrite')
    left(tmp_path, 'run', 'p.csv')
    assert (tmp_path / 'p.csv').read_text() == 'mine' and not list((tmp_path / 'run').iterdir())


def test_output_that_cannot_be_written(call, tmp_path):
    photographs(tmp_path / 'photos', n=1)
    (tmp_path / 'file').write_text('mine')
    refused(call('slice', 'photos', '--out', 'file/tiles', '--grid', '1x1'), 'file')
    left(tmp_path, 'photos', 'file')


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='who may write anywhere cannot be refused')
def test_output_in_a_folder_of_somebody_else(call, tmp_path):
    (tmp_path / 'theirs').mkdir(mode=0o555)
    refused(call('demo', '--out', 'theirs/demo'), 'theirs')


def test_no_gpu(call, tiles, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU')
    refused(call('train', tiles, '--out', 'run', '--device', 'cuda'), 'cuda', 'cpu')
    left(tmp_path)


def test_no_network(call, tiles, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setenv('HF_HOME', str(tmp_path / 'hf'))
    refused(call('train', tiles, '--out', 'run', '--weights', 'frozen'), 'scratch')
    assert not (tmp_path / 'run').exists()


def test_words_that_do_not_fit(call, tiles, tmp_path):
    refused(call('train', tiles, '--out', 'run', '--arch', 'resnet5O'), 'resnet50')
    refused(call('train', tiles, '--out', 'run', '--lr', '1e-2', '1e-4'), 'lr')
    refused(call('train', tiles, '--out', 'run', '--recipe', 'fast'), 'fast', 'quick')
    refused(call('predict', tiles, tiles), 'model.json')
    left(tmp_path)


@pytest.fixture(scope='module')
def run(tiles):
    with pytest.raises(SystemExit) as e:
        main(
            [
                'train',
                str(tiles),
                '--out',
                str(tiles.parent / 'run'),
                '--epochs',
                '1',
                '--batch-size',
                '4',
                '--test',
                'experiment=N3',
            ]
        )
    assert e.value.code == 0
    return tiles.parent / 'run'


def test_run_folder_is_whole(run):
    assert {
        'recipe.json',
        'history.csv',
        'predictions.csv',
        'metrics.json',
        'environment.json',
        'model',
        'report.html',
        'curves.png',
        'confusion_test.png',
        'confusion_valid.png',
    } <= {o.name for o in run.iterdir()}
    assert not list(run.parent.glob('.run*'))


def test_predict(call, run, tiles, tmp_path):
    code, said = call('predict', run, tiles.parent / 'photos', '--out', 'p.csv')
    t = pd.read_csv(tmp_path / 'p.csv')
    assert code == 0 and len(t) == 24 and np.allclose(t.p_CPT + t.p_DMSO, 1), said
    assert {'field', 'tile', 'pred'} <= set(t) and '24 tiles' in said


def test_predict_on_photographs_of_another_size(call, run, tmp_path):
    photo(tmp_path / 'photos' / name('CPT1', 1, 'N1'), size=(40, 40))
    refused(call('predict', run, 'photos'), '40')
    left(tmp_path, 'photos')


def test_unforeseen_error_is_one_paragraph_and_a_file(call, monkeypatch):

    monkeypatch.setattr(cli, '_free', lambda *a: {}['no such thing'])
    code, said = call('demo')
    log = Path(re.search(r'file (\S+\.log)', said).group(1))
    assert code == 1 and 'KeyError' in said and 'no such thing' in log.read_text()
    log.unlink()


def test_interrupt(call, monkeypatch):

    def stop(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, '_free', stop)
    code, said = call('demo')
    assert code == 130 and 'Interrupted' in said


@needs_shared
@pytest.mark.long
def test_the_real_photographs_are_not_to_be_believed(call, tmp_path):
    code, said = call('demo', '--data', shared / 'u2os', '--out', 'd', '--epochs', '1')
    page = (tmp_path / 'd' / 'report.html').read_text(encoding='utf-8')
    assert code == 0 and 'experiment nearly coincide' in said and 'DO NOT BELIEVE THIS YET' in said, said
    assert (
        '45 of field are 24 places' in said and 'Audit of the photographs: failed' in said and 'sees only the' in said
    ), said
    assert (
        'Do not believe this accuracy yet' in page
        and 'What the network is worth' in page
        and 'Controls that must be at chance' in page
        and 'experiment nearly coincide' in page
        and '<td class=n>22</td>' in page
    )


@needs_shared
@pytest.mark.long
def test_audit_of_the_real_photographs(call, tmp_path):
    code, said = call('audit', shared / 'u2os', '--out', 'a')
    assert code == 0 and 'experiment nearly coincide' in said and (tmp_path / 'a' / 'audit.html').is_file(), said
    assert (
        'Verdict: failed' in said
        and 'it needs no cells' in said
        and 'group_by_place' in said
        and 'Control, background only: above chance' in said
    ), said
    left(tmp_path, 'a')


@needs_shared
@pytest.mark.long
def test_labels_from_folders(call, tmp_path):
    code, said = call(
        'demo',
        '--data',
        shared / 'celltype',
        '--out',
        'd',
        '--epochs',
        '1',
        '--pattern',
        '{line}-{frame}[.j]-{cell}-{n}',
        '--group',
        'frame',
    )
    assert code == 0 and '293A from HT1080' in said, said
    t = pd.read_csv(tmp_path / 'd' / 'run' / 'predictions.csv')
    assert not set(t.frame[t.split == 'test']) & set(t.frame[t.split == 'valid'])


forged = 'a\n\nThe report: forged\r\x1b[2J\u202eb'


@pytest.mark.skipif(os.name != 'posix', reason='such names are not allowed here')
def test_a_name_says_nothing_of_its_own_on_the_console(call, tmp_path):
    "File names and class names with line ends, orders to the terminal and halves of letters, through every command that says names."
    photographs(tmp_path / 'in')
    for i, o in enumerate(sorted((tmp_path / 'in').iterdir())):
        k = tmp_path / 'by' / f'{("CPT", "DMSO")["DMSO" in o.name]}{forged.replace("/", "")}'
        photo(k / o.name, i)
    (tmp_path / 'in' / f'U2_CPT1_1H_{forged}.png').write_text('no picture')
    os.link(
        next((tmp_path / 'in').glob('U2_C*N1.png')), os.fsencode(tmp_path / 'in') + b'/U2_CPT1_1H_RGB_0099_N1\xff.png'
    )
    for words in (
        ['explain', 'in'],
        ['explain', 'by', '--label-from', 'folder'],
        ['slice', 'in', '--out', 't', '--grid', '1x1'],
        ['slice', 'by', '--label-from', 'folder', '--out', 'u', '--grid', '1x1'],
        ['audit', 'u', '--out', 'a'],
        ['slice', f'nowhere{forged}', '--out', 'v'],
        ['predict', f'nowhere{forged}', 'in'],
    ):
        code, said = call(*words)
        assert not [c for c in said if not c.isprintable() and c != '\n'], (words, said)
        assert not [o for o in said.splitlines() if o.startswith('The report: forged')], (words, said)


def test_options_of_a_training_arrive(call, tiles, monkeypatch):
    seen = []

    def road(tiles, out, recipe, **args):
        seen.append((tiles, Path(out).name, replace(recipe)))
        return SimpleNamespace(pairs=None, sentences=['Said.'], report='page.html')

    monkeypatch.setattr(celldeath_road, 'train_safely', road)
    own = ('--where', 'experiment=N1', '--label', 'line,treatment', '--seeds', '3', '5')
    code, said = call('train', tiles, '--out', 'run', *own, '--no-flips', '--no-turns', '--lighting', '0.1')
    assert code == 0 and said.count('Said.') == 2, said
    assert [(name, r.seed) for _, name, r in seen] == [('seed_3', 3), ('seed_5', 5)]
    assert all((r.flips, r.turns, r.lighting) == (False, False, 0.1) for *_, r in seen)
    table = seen[0][0].table
    assert set(table.experiment) == {'N1'} and sorted(set(table.label)) == ['U2OS CPT', 'U2OS DMSO']
    assert call('train', tiles, '--out', 'run')[0] == 0
    plain = seen[-1][2]
    assert (plain.flips, plain.turns) == (True, True)
    refused(call('train', tiles, '--out', 'run', '--seeds', 'many'), '--seeds')


def rehearsed(monkeypatch, train):
    "The queue of `celldeath paper` with something else in the place of the training."
    monkeypatch.setattr(studies_queue, 'train_net', train)


def never(tiles, recipe, out):
    raise AssertionError('trained twice')


def test_the_whole_paper_goes_on_and_says_what_cannot_be_run(call, tmp_path, monkeypatch):
    photographs(tmp_path / 'photos')
    rehearsed(monkeypatch, studies_queue.Rehearsal(0.75))
    words = ('paper', 'photos', '--scale', 'tiny', '--runs', '2', '--only', 'CvsD', 'hour_2', 'without_PC3')
    code, said = call(*words)
    assert code == 0 and "Left out: hour_2: There is no hour '2' here" in said, said
    assert 'CvsD: 75.00 ± 0.00 % of the test tiles are right (n = 2). The paper: 96.58 ± 0.24' in said, said
    assert '2 runs, about' in said and 'simulated' not in said
    left(tmp_path, 'photos', 'paper')
    left(tmp_path / 'paper', 'tiles', 'runs', 'results.csv', 'left_out.csv', 'beside.csv', 'fig_3.png', 'fig_s3.png')
    assert pd.read_csv(tmp_path / 'paper' / 'left_out.csv').setting.tolist() == ['hour_2', 'without_PC3']
    rehearsed(monkeypatch, never)
    code, again = call(*words)
    assert code == 0 and '2 are done' in again, again
    refused(call(*words, '--out', 'photos'), 'photos is the folder that was given, which is only read', 'photos_out')
    photographs(tmp_path / 'other', n=3)
    refused(call('paper', 'other', *words[2:]), 'begun with other photographs')


@pytest.mark.long
def test_a_run_that_fails_is_said_and_the_others_stand(call, tmp_path, monkeypatch):
    def picky(tiles, recipe, out):
        if recipe.seed == 1:
            raise FloatingPointError('The loss is no number any more.')
        return studies_queue.Rehearsal(1.0)(tiles, recipe, out)

    photographs(tmp_path / 'photos')
    rehearsed(monkeypatch, picky)
    words = ('paper', 'photos', '--scale', 'tiny', '--runs', '3', '--only', 'CvsD')
    code, said = call(*words)
    assert code == 3 and 'CvsD, seed 1: failed. The loss is no number any more.' in said and '(n = 2)' in said, said
    rehearsed(monkeypatch, studies_queue.Rehearsal(1.0))
    assert call(*words)[0] == 3  # not tried again unasked
    code, said = call(*words, '--retry')
    assert code == 0 and '(n = 3)' in said, said


@pytest.mark.parametrize('how', [dict(), dict(sep=';', encoding='utf-16'), dict(sep=';', encoding='cp1252')])
@pytest.mark.filterwarnings('ignore:.*western Windows text')
def test_settings_of_the_paper_are_edited_in_a_spreadsheet(call, tmp_path, monkeypatch, how):
    photographs(tmp_path / 'photos')
    code, said = call('paper', 'photos', '--draft', 'mine.csv', '--only', 'CvsD')
    assert code == 0 and '1 settings are in mine.csv' in said, said
    table = pd.read_csv(tmp_path / 'mine.csv')
    table.assign(setting='my_own', test='experiment=N1', place='Übung').to_csv(
        tmp_path / 'mine.csv', index=False, **how
    )
    rehearsed(monkeypatch, studies_queue.Rehearsal(0.75))
    code, said = call('paper', 'photos', '--settings', 'mine.csv', '--scale', 'tiny')
    assert code == 0 and 'my_own: 75.00 % of the test tiles are right (n = 1).' in said and 'The paper' not in said, (
        said
    )


@pytest.mark.parametrize(
    'words, said',
    [
        (['--only', 'CvsF'], '--only'),
        (['--scale', 'huge'], 'tiny'),
        (['--runs', '0'], 'no training at all'),
        (['--settings', 'none.csv'], 'none.csv'),
        (['--settings', 'odd.csv'], "seeds='two' is no whole number"),
        (['--out', 'other'], 'is no study'),
        (['--only', 'hour_2'], "There is no hour '2'"),
    ],
)
def test_papers_that_cannot_be_meant(call, tmp_path, words, said):
    photographs(tmp_path / 'photos', n=1)
    photographs(tmp_path / 'other', n=1)
    paper_settings().assign(seeds='two').to_csv(tmp_path / 'odd.csv', index=False)
    refused(call('paper', 'photos', *words), said)
    left(tmp_path / 'other', *sorted(o.name for o in (tmp_path / 'photos').iterdir()))
