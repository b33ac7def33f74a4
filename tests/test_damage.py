"""Every byte of a store, a run, a model and of what is unfinished may be flipped or zeroed, and every word of their
pages may be a stranger's: refused or passed over with a sentence, never another result.

The attacks are those of `benchmarks/attack.py`, which makes more of them. 2,000 damages are made here, in about 45
seconds on one core."""

import gzip, os, time, zipfile
from pathlib import Path

import pytest

from celldeath_nb.files import read_csv
from celldeath_nb.people.judging import judgements
from celldeath_nb.photos.pixels import BadFile
from celldeath_nb.photos.reading import read_photo
from celldeath_nb.photos.joins import read_table as read_labels
from celldeath_nb.plates.maps import read_plate_map

from benchmark_of import benchmark

root = Path(__file__).resolve().parents[1]
attack = benchmark('attack')
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return attack.make(tmp_path_factory.mktemp('made') / 'made')


tries = dict(store=600, model=500, run=200, training=400, prediction=250, slicing=50)


def test_two_thousand():
    assert sum(tries.values()) == 2000 and list(tries) == list(attack.uses)


@pytest.mark.long
@pytest.mark.parametrize('kind', list(tries))
def test_no_damage_gives_another_result(kind, made, tmp_path):
    score = attack.flips(kind, made, tmp_path, tries[kind])
    assert score.broken == [] and score.held == tries[kind]
    assert kind in attack.goes_on or score.refused > tries[kind] / 4, 'damage must be seen'


def test_a_reader_that_does_not_look_is_found_out(made, tmp_path, monkeypatch):
    monkeypatch.setitem(attack.uses, 'store', lambda d: (d / 'pixels.u8').read_bytes())
    score = attack.flips('store', made, tmp_path, 60)
    assert score.broken and 'another result' in score.broken[0]


@pytest.mark.parametrize('kind', list(attack.pages))
def test_no_page_of_a_stranger_does_more_than_be_refused(kind, made, tmp_path):
    score = attack.strangers(kind, made, tmp_path, 20 if kind in ('store', 'slicing') else 40)
    assert score.broken == []
    assert kind == 'slicing' or score.refused > score.tried / 4


def looks_elsewhere(d):
    next((d.parent / 'outside').iterdir()).read_bytes()


@pytest.mark.parametrize('use', [lambda d: {}['no such key'], looks_elsewhere])
def test_a_reader_that_trusts_is_found_out(use, made, tmp_path, monkeypatch):
    calls = []
    trusts = lambda d: calls.append(1) or (use(d) if len(calls) > 1 else None)
    monkeypatch.setitem(attack.pages, 'model', (['model.json'], trusts))
    assert len(attack.strangers('model', made, tmp_path, 3).broken) == 3


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    return attack.make_tables(tmp_path_factory.mktemp('tables') / 'tables')


@pytest.mark.parametrize('name', list(attack.readers))
def test_no_table_of_a_stranger_ends_in_a_traceback(name, tables, tmp_path):
    score = attack.tables(name, tables, tmp_path, 80)
    assert score.broken == []
    assert score.tried / 4 < score.refused < score.tried, 'some are refused, and some can be read'


def test_a_table_that_is_no_ordinary_file(tmp_path):
    "A pipe would be waited for, a folder is none, and what is packed may hold anything."
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / 'nowhere.csv')
    (tmp_path / 'a.csv').mkdir()
    (tmp_path / 'b.csv.gz').write_bytes(gzip.compress(b'a\n1\n'))
    cases = dict(a='no ordinary file', b='is packed')
    if hasattr(os, 'mkfifo'):
        os.mkfifo(tmp_path / 'c.csv')
        cases['c'] = 'no ordinary file'
    for name, why in cases.items():
        f = next(tmp_path.glob(f'{name}.csv*'))
        with pytest.raises(ValueError, match=why):
            read_csv(f)
        if name == 'b':
            continue
        with pytest.raises((ValueError, OSError)):
            read_labels(f)
        with pytest.raises((ValueError, OSError)):
            judgements([f])


def large_inside(f):
    "100 kB that are 400 MB when they are unpacked."
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
        for i in range(4):
            z.writestr(f'xl/worksheets/sheet{i}.xml', bytes(100_000_000))


def far_corner(f):
    "A sheet that says it has 17 billion cells."
    pytest.importorskip('openpyxl').Workbook().save(f)
    with zipfile.ZipFile(f) as z:
        parts = {o.filename: z.read(o) for o in z.infolist()}
    sheet = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/><sheetData>'
        b'<row r="1"><c r="A1" t="inlineStr"><is><t>field</t></is></c></row>'
        b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'
    )
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
        for k, v in parts.items():
            z.writestr(k, sheet if k == 'xl/worksheets/sheet1.xml' else v)


@pytest.mark.parametrize('make', [large_inside, far_corner, lambda f: f.write_bytes(b'PK no')])
@pytest.mark.parametrize('read', [read_labels, read_plate_map])
def test_a_workbook_that_is_larger_than_it_looks(make, read, tmp_path):
    f = tmp_path / 'a.xlsx'
    make(f)
    start = time.process_time()
    with pytest.raises(ValueError, match='when it is unpacked|more than 20,000,000 cells|no plate map|as a workbook'):
        read(f)
    assert time.process_time() - start < 10


def test_no_codec_of_a_stranger_is_asked(tmp_path):
    "Every codec that the library registers, as compressor and as filter, over a piece that is a pickle: nothing runs."
    pytest.importorskip('numcodecs')
    made = attack.zarr_codecs()
    refused = 0
    for i, (what, make) in enumerate(made.items()):
        f = tmp_path / f'{i}' / 'photos' / 'a.png'
        f.parent.mkdir(parents=True)
        make(f)
        with pytest.raises(BadFile) as e:
            read_photo(f.with_suffix('.zarr'))
        refused += 'which may run code or is not known here' in str(e.value)
        assert not (tmp_path / f'{i}' / 'ran').exists(), what
    assert len(made) > 40 and refused > len(made) * 0.7


@pytest.mark.parametrize('what', ['page_of_itself', 'endless_counts', 'no_rows', 'entities', 'linked', 'looped'])
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a POSIX system')
def test_a_hostile_photograph_leaves_the_others_alone(what, tmp_path, monkeypatch):
    monkeypatch.setattr(attack, 'pictures', lambda: {what: getattr(attack, what)})
    assert attack.hostile_pictures(tmp_path).broken == []
