"Reading photographs and names: properties, mutated files beside Pillow, and the real photographs."

import io, os, struct, time, warnings, zlib
from pathlib import Path
import numpy as np, PIL, pytest, tifffile
from hypothesis import given, settings, strategies as st, HealthCheck
from PIL import Image
import celldeath_nb.photos.names as photos_names
import celldeath_nb.photos.pixels as photos_pixels
import celldeath_nb.photos.tiffs as photos_tiffs
import celldeath_nb.png as png
from celldeath_nb.photos.pixels import BadFile, StopWork
from celldeath_nb.photos.fields import explain_names, read_fields
from celldeath_nb.photos.quality import field_quality
from celldeath_nb.photos.names import line_names, parse_name
from celldeath_nb.photos.reading import read_header, read_image, read_photo, to_uint8

SLOW = os.environ.get('CELLDEATH_SLOW') == '1'
DATA = Path(__file__).parents[2] / 'shared' / 'data'
quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

# names -----------------------------------------------------------------------------------------

parts = st.fixed_dictionaries(
    {},
    optional=dict(
        line=st.sampled_from(sorted(line_names)),
        treatment=st.sampled_from(['CPT', 'DMSO']),
        hour=st.integers(0, 72),
        site=st.integers(0, 9999),
        experiment=st.integers(1, 9),
        dose_um=st.sampled_from([0.5, 1.0, 10.0]),
    ),
)


@quick
@given(
    parts,
    st.randoms(),
    st.booleans(),
    st.sampled_from(['', 'A', 'b']),
    st.one_of(st.none(), st.integers(1, 12)),
    st.sampled_from(['', '.png_02_01']),
)
def test_a_name_in_any_order_is_understood(p, rnd, upper, letter, well, tile):
    if well is not None:
        p.setdefault('treatment', 'CPT')
    said = dict(
        line=lambda o: o,
        treatment=lambda o: o + (str(well) if well is not None else ''),
        hour=lambda o: f'{o}h{letter}',
        site=lambda o: f'{o:04}',
        experiment=lambda o: f'N{o}',
        dose_um=lambda o: f'{o:g}uM',
    )
    words = [said[k](v) for k, v in p.items()] + ['RGB']
    rnd.shuffle(words)
    name = '_'.join(words)
    want = dict(p)
    if 'line' in p:
        want['line'] = line_names[p['line']]
    if 'site' in p:
        want['site'] = f"{p['site']:04}"
    if 'experiment' in p:
        want['experiment'] = f"N{p['experiment']}"
    if well is not None:
        want['well'] = str(well)
    if tile:
        want.update(row=1, col=0)
    assert parse_name((name.upper() if upper else name.lower()) + tile + '.png') == want


@quick
@given(st.text(st.characters(blacklist_categories=('Cs',), blacklist_characters='/\0'), max_size=40))
def test_any_text_is_a_name_or_an_error(s):
    try:
        out = parse_name(s + '.png')
    except ValueError as e:
        assert 'no ' in str(e) or 'two parts' in str(e)
    else:
        assert set(out) <= {*photos_names.parts_of_name, 'row', 'col', 'date', 'plate', 'channel', 'z', 'frame'}


@quick
@given(
    st.lists(st.text('abcxyz0123', min_size=1, max_size=6), min_size=4, max_size=4),
    st.sampled_from(['_', '-', '.', '__']),
)
def test_a_pattern_gives_back_what_was_put_in(v, sep):
    assert parse_name(sep.join(v) + '.tif', pattern=sep.join(['{a}', '{b}', '{c}', '{d}'])) == dict(zip('abcd', v))


def test_patterns_and_functions():
    assert parse_name('MCF7_CPT2_1h_0001_N3', '{line}_{treatment}{well}_{hour:h}_{site}_{experiment}') == dict(
        line='MCF7', treatment='CPT', well='2', hour=1.0, site='0001', experiment='N3'
    )
    assert parse_name('x-007.tif', r'x-(?P<frame>\d+)') == dict(frame='007')
    assert parse_name('x-007.tif', lambda s: dict(frame=s[2:])) == dict(frame='007')
    for bad in ('nothing named', '{a', '(?P<a>'):
        with pytest.raises(ValueError):
            parse_name('x.tif', bad)
    with pytest.raises(ValueError, match='two parts say the hour: 1.0 and 2.0'):
        parse_name('CPT_1h_2h.png')
    assert parse_name('HeLa_STS_1h.png', lines=['HeLa'], treatments=['STS']) == dict(
        line='HeLa', treatment='STS', hour=1.0
    )


@quick
@given(
    st.sampled_from(['CPT', 'DMSO', 'control', 'a+b', 'x.y']),
    st.text('abcXYZ019', max_size=5),
    st.text('abcXYZ019', max_size=5),
    st.sampled_from('_- .'),
)
def test_a_label_is_a_whole_part(label, before, after, sep):
    if sep == '-':  # a sign that touches a label at the end of a name turns it round
        before, after = before or 'a', after or 'b'
    assert photos_names.find_labels(f'{before}{sep}{label}{sep}{after}.png', [label]) == [label]
    if before:
        assert photos_names.find_labels(f'{before}{label}.png', [label]) == []
    assert photos_names.find_labels(f'{label}/{before}.png', [label]) == []


# pixels ----------------------------------------------------------------------------------------

dtypes = st.sampled_from([np.uint8, np.uint16])


@quick
@given(
    st.integers(1, 40), st.integers(1, 40), dtypes, st.sampled_from(['png', 'tif', 'bmp']), st.integers(0, 2**32 - 1)
)
def test_what_was_saved_is_read(tmp_path_factory, h, w, dtype, ext, seed):
    if ext == 'bmp':
        dtype = np.uint8
    a = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (h, w), dtype=dtype, endpoint=True)
    p = tmp_path_factory.getbasetemp() / f'same.{ext}'
    if ext == 'tif':
        tifffile.imwrite(p, a)
    else:
        Image.fromarray(a).save(p)
    ph = read_photo(p)
    hd = read_header(p)
    np.testing.assert_array_equal(ph.pixels, a)
    assert (hd.height, hd.width, hd.bits, hd.bytes) == (h, w, 8 * a.itemsize, p.stat().st_size)


@quick
@given(st.integers(0, 60000), st.integers(1, 5000))
def test_the_window_is_a_line(lo, n):
    a = np.arange(65536, dtype=np.uint16)
    b = to_uint8(a, (lo, lo + n)).astype(int)
    assert b[lo] == 0 and (lo + n > 65535 or b[lo + n] == 255) and (np.diff(b) >= 0).all()
    inside = a[lo : lo + n + 1].astype(float)
    assert abs(b[lo : lo + n + 1] - (inside - lo) * 255 / n).max() <= 0.5


def test_scale_from_files(tmp_path):
    a = np.zeros((8, 8), np.uint8)

    def um(**kw):
        tifffile.imwrite(tmp_path / 'x.ome.tif' if kw.pop('ome', 0) else tmp_path / 'x.tif', a, **kw)
        return read_header(
            tmp_path / ('x.ome.tif' if kw.get('metadata', {}).get('PhysicalSizeX') else 'x.tif')
        ).um_per_px

    assert um(resolution=(10_000 / 0.5, 10_000 / 0.5), resolutionunit='CENTIMETER') == pytest.approx(0.5)
    assert um(resolution=(25_400 / 0.65, 25_400 / 0.65), resolutionunit='INCH') == pytest.approx(0.65)
    assert np.isnan(um(resolution=(72, 72), resolutionunit='INCH')) and np.isnan(um())
    assert um(imagej=True, resolution=(2, 2), metadata=dict(unit='um')) == pytest.approx(0.5)
    assert um(ome=1, metadata=dict(axes='YX', PhysicalSizeX=0.434, PhysicalSizeXUnit='µm')) == pytest.approx(0.434)
    assert um(ome=1, metadata=dict(axes='YX', PhysicalSizeX=434, PhysicalSizeXUnit='nm')) == pytest.approx(0.434)


def test_quality_is_the_same_while_reading(tmp_path):
    r = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(r.integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / f'CPT_{i}.png')
    f = read_fields(tmp_path, quality=True)
    for _, o in f.iterrows():
        for k, v in field_quality(read_image(o.path)).items():
            assert o[k] == v


# mutated files ---------------------------------------------------------------------------------


def bases():
    "(name, bytes) of small files of every kind that is read often."
    r = np.random.default_rng(7)
    y, x = np.mgrid[:24, :32]
    a = (128 + 60 * np.sin(x / 3) * np.cos(y / 4) + r.normal(0, 5, (24, 32))).astype(np.uint8)

    def pil(im, kind, **kw):
        b = io.BytesIO()
        im.save(b, kind, **kw)
        return b.getvalue()

    def tif(a, **kw):
        b = io.BytesIO()
        tifffile.imwrite(b, a, **kw)
        return b.getvalue()

    chunk = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    plain = (
        PNG
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 32, 24, 8, 0, 0, 0, 0))
        + chunk(b'tEXt', b'Microns Per Pixel\x000.4')
        + chunk(b'IDAT', zlib.compress(b''.join(b'\0' + o.tobytes() for o in a)))
        + chunk(b'IEND', b'')
    )
    im = Image.fromarray(a)
    yield 'png-plain', plain
    yield 'png', pil(im, 'PNG')
    yield 'png-rgb', pil(im.convert('RGB'), 'PNG')
    yield 'png-16', pil(Image.fromarray(a.astype(np.uint16) * 200), 'PNG')
    yield 'jpeg', pil(im, 'JPEG')
    yield 'tiff', tif(a)
    yield 'tiff-16', tif(a.astype(np.uint16) * 200)
    yield 'tiff-zip', tif(a, compression='zlib')
    yield 'tiff-lzw', pil(im, 'TIFF', compression='tiff_lzw')


def mutate(b, r):
    "`b` with a few bytes changed, cut out, put in, or doubled. Half of the PNG files are mended afterwards: in their CRCs, or, changed in their inflated rows, altogether, so that the damage reaches the decoder."
    if b.startswith(PNG) and r.random() < 0.25:
        return rows_changed(b, r)
    b = bytearray(b)
    for _ in range(r.integers(1, 4)):
        i = int(r.integers(0, len(b)))
        kind = r.integers(0, 5)
        if kind <= 1:
            b[i] ^= 1 << int(r.integers(0, 8))
        elif kind == 2:
            b[i] = int(r.choice([0, 1, 127, 128, 255]))
        elif kind == 3:
            del b[i : i + int(r.integers(1, 9))]
        else:
            b[i:i] = bytes(r.integers(0, 256, int(r.integers(1, 9)), dtype=np.uint8))
        if len(b) < 2:
            break
    return mend(bytes(b)) if r.random() < 0.5 else bytes(b)


PNG = b'\x89PNG\r\n\x1a\n'


def rows_changed(b, r):
    "A PNG whose inflated rows, filters included, have a few other bytes, or are a few too many or too few; every checksum is right."
    at = b.index(b'IDAT') - 4
    n = int.from_bytes(b[b.index(b'IDAT') - 4 :][:4], 'big')
    raw = bytearray(zlib.decompress(b[at + 8 : at + 8 + n]))
    for _ in range(r.integers(1, 4)):
        raw[int(r.integers(0, len(raw)))] = int(r.choice([0, 1, 2, 3, 4, 5, 200, r.integers(256)]))
    if r.random() < 0.2:
        raw = raw[: -int(r.integers(1, 9))] if r.random() < 0.5 else raw + bytes(int(r.integers(1, 9)))
    z = zlib.compress(bytes(raw), int(r.integers(0, 10)))
    return (
        b[:at] + struct.pack('>I', len(z)) + b'IDAT' + z + struct.pack('>I', zlib.crc32(b'IDAT' + z)) + b[at + 12 + n :]
    )


def mend(b):
    if not b.startswith(PNG):
        return b
    b = bytearray(b)
    p = 8
    while p + 12 <= len(b):
        n = int.from_bytes(b[p : p + 4], 'big')
        if p + 12 + n > len(b):
            break
        b[p + 8 + n : p + 12 + n] = struct.pack('>I', zlib.crc32(b[p + 4 : p + 8 + n]))
        p += 12 + n
    return bytes(b)


def pillow(b):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(b)) as im:
                im.load()
                if im.mode in ('RGB', 'RGBA', 'LA', 'P'):
                    im = im.convert('RGB').getchannel(0)
                return np.asarray(im)
    except Exception:
        return None


def mutation_run(n, path, seed=0):
    "How many mutated files were taken and refused; asserts that none crashes, hangs or differs from Pillow."
    counts = dict(taken=0, refused=0, pillow_refused=0, white_is_zero=0)
    for name, b in bases():
        r = np.random.default_rng(seed)
        path.write_bytes(b)
        first = read_photo(path).pixels
        for k in range(n):
            m = mutate(b, r)
            path.write_bytes(m)
            t0 = time.process_time()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    got = read_photo(path, page=0, channel='red').pixels
                    read_header(path, page=0)
            except (BadFile, StopWork):
                counts['refused'] += 1
                got = None
            assert time.process_time() - t0 < 5, f'{name} {k} took too long'
            if got is None:
                continue
            counts['taken'] += 1
            want = pillow(m)
            if want is None:  # Pillow is stricter about what is no pixel
                counts['pillow_refused'] += 1
                if name in ('tiff', 'tiff-16', 'tiff-lzw') or name == 'tiff-zip' and PIL.__version__ < '12':
                    continue  # an odd tag (Pillow 11 knows no single channel of ink); pixels in plain or LZW TIFF have no checksum
                want = first
            if name == 'tiff-16' and got.shape == want.shape and (got == 65535 - want).all():
                counts['white_is_zero'] += 1
                continue  # Pillow overlooks this tag at 16 bits
            assert got.shape == want.shape and (got == want).all(), f'{name} {k} differs from Pillow'
    return counts


@pytest.mark.timeout(300)
def test_mutated_files_beside_pillow(tmp_path):
    c = mutation_run(200, tmp_path / 'x')
    assert c['taken'] > 400 and c['refused'] > 800, c


def test_mutated_files_without_isal(tmp_path, monkeypatch):
    for m in (photos_pixels, photos_tiffs, png):
        for k in {'adler32', 'crc32', 'decompressobj'} & set(vars(m)):
            monkeypatch.setattr(m, k, getattr(zlib, k))
    c = mutation_run(40, tmp_path / 'x', seed=2)
    assert c['taken'] > 60 and c['refused'] > 150, c


@pytest.mark.slow
@pytest.mark.skipif(not SLOW, reason='slow: 20,000 files; CELLDEATH_SLOW=1 runs it')
@pytest.mark.timeout(3600)
def test_20000_mutated_files_beside_pillow(tmp_path):
    c = mutation_run(2223, tmp_path / 'x', seed=1)
    print(c)
    assert c['taken'] + c['refused'] >= 20_000


# the real ones ---------------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / 'u2os').exists(), reason='../shared/data/u2os is not here')
def test_the_real_photographs():
    f = read_fields(DATA / 'u2os')
    assert f.groupby(['label', 'experiment']).size().to_dict() == {
        ('CPT', 'N1'): 2,
        ('CPT', 'N2'): 1,
        ('CPT', 'N3'): 19,
        ('DMSO', 'N1'): 22,
        ('DMSO', 'N3'): 1,
    }
    assert (
        (f.line == 'U2OS').all()
        and (f.hour == 1).all()
        and np.allclose(f.um_per_px, 0.434221)
        and f.attrs['problems'] == []
    )
    a = f.set_index('field').acquired
    assert (
        a['U2_DMSO_1h_RGB_0005_N1.png'] == 36
        and a['U2_CPT2_1h_RGB_0001_N1.png'] == 58
        and a['U2_CPT2_1H_RGB_0057_N3.png'] == 621
    )
    for p in f.path[::9]:
        np.testing.assert_array_equal(read_image(p), np.asarray(Image.open(p)))
    assert (explain_names(DATA / 'u2os').not_understood == '').all()


@pytest.mark.skipif(not (DATA / 'celltype').exists(), reason='../shared/data/celltype is not here')
def test_the_real_cells():
    f = read_fields(DATA / 'celltype', pattern='{line}-{frame}[.j]-{cell}-{n}')
    assert f.label.value_counts().to_dict() == {'HT1080': 100, '293A': 100} and f.attrs['label_from'] == 'folder'
    assert f.frame.notna().all() and f.groupby(['label', 'frame']).size().max() > 1
