"One reader a format, one window a set, every file read or said, nothing run and nothing without bounds."

import csv, importlib.util, io, itertools, json, math, os, random, signal, struct, subprocess, sys, time, warnings, zlib
from pathlib import Path
import numpy as np, pandas as pd, PIL, pytest, tifffile
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageOps
import celldeath_nb.photos.apart as apart
import celldeath_nb.photos.pixels as pixels
import celldeath_nb.photos.reading as reading
import celldeath_nb.photos.tiffs as tiffs
import celldeath_nb.photos.zarrs as zarrs
from celldeath_nb.files import read_csv, write_csv
from celldeath_nb.photos.fields import list_images, read_fields
from celldeath_nb.photos.pictures import show_fields
from celldeath_nb.photos.pixels import BadFile, StopWork, safe_text
from celldeath_nb.photos.quality import field_quality, quality_outliers
from celldeath_nb.photos.reading import read_header, read_photo
from celldeath_nb.tiles.cut import add_photographs, cut_tiles

from benchmark_of import benchmark

attack = benchmark('attack')
many_scans = attack.many_scans
chunk = attack.chunk

H = 40
W = 56
SLOW = bool(os.environ.get('CELLDEATH_SLOW'))
posix = pytest.mark.skipif(os.name != 'posix', reason='needs a POSIX system')
codecs = pytest.mark.skipif(not importlib.util.find_spec('imagecodecs'), reason='imagecodecs not installed')


def truth(dtype='u1', h=H, w=W, seed=0):
    "A picture with structure and noise, in half of the range of its type."
    y, x = np.mgrid[:h, :w]
    a = 0.5 + 0.4 * np.sin(x / 6) * np.cos(y / 5) + np.random.default_rng(seed).normal(0, 0.02, (h, w))
    return (a if dtype[0] == 'f' else a * (np.iinfo(dtype).max // 2)).astype(dtype)


@pytest.fixture
def here(monkeypatch):
    "Everything is decoded in this process, so that tables are quick."
    monkeypatch.setattr(reading, 'PATIENCE', math.inf)


def agree(path, want, **kw):
    "The file is read as `want`, and its head says so."
    ph = read_photo(path, **kw)
    head = read_header(path, page=kw.get('page'))
    assert (head.height, head.width, head.bits) == (ph.height, ph.width, ph.bits) and want.shape == (
        ph.height,
        ph.width,
    )
    assert (head.format, head.color, head.lossy, head.turn) == (ph.format, ph.color, ph.lossy, ph.turn)
    np.testing.assert_array_equal(ph.pixels, want)
    return ph


# TIFF: every combination -----------------------------------------------------------------------

byte_codecs = [None, 'zlib', 'lzw', 'packbits', 'lzma', 'zstd']
picture_codecs = ['jpeg2000', 'webp', 'png', 'jpegxl', 'lerc']


channels_of = dict(minisblack=1, miniswhite=1, palette=1, rgb=3, rgba=4, two=2)
ramp = np.arange(256, dtype=np.uint16)[::-1] * 257


def stored_ways(codec, dtypes):
    "(what is written, options of tifffile, the truth) for every combination that can be written."
    for dt, meaning, planar, order, layout, pred, turn in itertools.product(
        dtypes,
        channels_of,
        ('contig', 'separate'),
        '<>',
        ({}, dict(rowsperstrip=7), dict(tile=(16, 32))),
        (False, True),
        (1, 3, 6, 8),
    ):
        n = channels_of[meaning]
        if (
            n == 1
            and planar == 'separate'
            or pred
            and codec in (None, 'packbits', *picture_codecs)
            or meaning == 'miniswhite'
            and dt[0] != 'u'
            or meaning == 'palette'
            and (dt != 'u1' or pred)
        ):
            continue
        if codec in picture_codecs and (order == '>' or dt[0] != 'u' or int(dt[1]) > 2 or meaning == 'palette'):
            continue
        a = truth(dt)
        last = np.full_like(a, np.iinfo(dt).max if dt[0] != 'f' else 1) if n == 4 else truth(dt, seed=9)
        s = np.dstack([a] * min(n, 3 if n > 2 else 1) + [last] * (n in (2, 4)))
        s = s[..., 0] if n == 1 else np.moveaxis(s, -1, 0) if planar == 'separate' else s
        kw = dict(layout, byteorder=order, compression=codec)
        kw |= dict(photometric={'rgba': 'rgb', 'two': 'minisblack'}.get(meaning, meaning))
        kw |= dict(planarconfig=planar) if n > 1 else {}
        kw |= dict(extrasamples=['unassalpha' if n == 4 else 'unspecified']) if n in (2, 4) else {}
        kw |= dict(colormap=np.stack([ramp] * 3)) if meaning == 'palette' else {}
        kw |= dict(predictor=True) if pred else {}
        kw |= dict(extratags=[(274, 3, 1, turn, True)]) if turn > 1 else {}
        kw |= dict(compressionargs=dict(lossless=True)) if codec in ('webp', 'jpegxl') else {}
        a = np.iinfo(dt).max - a if meaning in ('miniswhite', 'palette') else a
        yield np.ascontiguousarray(s), kw, np.rot90(a, {1: 0, 3: 2, 6: -1, 8: 1}[turn])


@codecs
@pytest.mark.parametrize('codec', byte_codecs + picture_codecs)
def test_one_picture_stored_in_every_way(codec, tmp_path, here):
    p = tmp_path / 'x.tif'
    n = 0
    ways = list(stored_ways(codec, ('u1', 'u2', 'i2', 'u4', 'f4', 'f2') if codec in byte_codecs else ('u1', 'u2')))
    if not SLOW:  # all of them with CELLDEATH_SLOW=1
        ways = random.Random(str(codec)).sample(ways, min(60, len(ways)))
    for s, kw, want in ways:
        try:
            tifffile.imwrite(p, s, **kw)
        except (ValueError, NotImplementedError, RuntimeError):
            continue  # tifffile does not write this combination
        ph = agree(p, want, **(dict(channel=0) if len(kw.get('extrasamples', ())) and 2 in s.shape else {}))
        assert ('orientation tag' in ' '.join(ph.notes)) == ('extratags' in kw)
        n += 1
    assert n >= (45 if codec in byte_codecs else 3), f'{codec}: {n} of {len(ways)}'


@codecs
@pytest.mark.parametrize('photometric', ['rgb', 'ycbcr', 'minisblack'])
@pytest.mark.parametrize('layout', [{}, dict(rowsperstrip=16), dict(tile=(16, 32))], ids=str)
def test_jpeg_in_tiff(photometric, layout, tmp_path):
    "The colors are those of the page, whatever the piece would be taken for."
    a = np.dstack([truth(seed=k) for k in range(3)])
    a = np.asarray(
        Image.fromarray(a).resize((W // 8, H // 8)).resize((W, H), Image.BICUBIC)
    )  # smooth, as JPEG likes it
    a = a[..., 0] if photometric == 'minisblack' else a
    kw = dict(compressionargs=dict(level=98)) | (dict(subsampling=(1, 1)) if photometric == 'ycbcr' else {})
    tifffile.imwrite(
        tmp_path / 'x.tif',
        a,
        photometric='rgb' if photometric == 'ycbcr' else photometric,
        compression='jpeg',
        **layout,
        **kw,
    )
    for k, c in enumerate(('red', 'green', 'blue') if a.ndim == 3 else (None,)):
        ph = read_photo(tmp_path / 'x.tif', channel=c)
        assert abs(ph.pixels.astype(int) - (a[..., k] if c else a)).max() <= 6 and ph.lossy
    assert read_header(tmp_path / 'x.tif').lossy


@codecs
@pytest.mark.parametrize('bits', [*range(2, 8), *range(9, 16)])
@pytest.mark.parametrize('kw', [{}, dict(rowsperstrip=5)], ids=str)
def test_packed_bits(bits, kw, tmp_path):
    a = np.random.default_rng(bits).integers(0, 2**bits, (H, W - 1)).astype('u1' if bits < 8 else 'u2')
    packed = b''.join(
        np.packbits(((r[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()).tobytes() for r in a
    )
    row = len(packed) // H
    each = kw.get('rowsperstrip', H)
    parts = [packed[i * row : (i + each) * row] for i in range(0, H, each)]
    (tmp_path / 'x.tif').write_bytes(tiff(W - 1, H, bits, parts, each))
    want = a if bits > 8 else np.round(a * 255.0 / (2**bits - 1)).astype(np.uint8)
    ph = agree(tmp_path / 'x.tif', want)
    assert ph.bits == max(bits, 8)


def tiff(w, h, bits, parts, rows, tags=(), behind=b''):
    "A gray little-endian TIFF written by hand; `tags` are (number, type, count, value)."
    n = len(parts)
    own = [
        (256, 4, 1, w),
        (257, 4, 1, h),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
    ]
    own = [t for t in own if t[0] not in {o[0] for o in tags}] + list(tags)
    head = 8 + 2 + 12 * (len(own) + 2) + 4
    at = list(itertools.accumulate([head + 8 * n] + [len(o) for o in parts]))[:-1]
    own += [(273, 4, n, head if n > 1 else at[0]), (279, 4, n, head + 4 * n if n > 1 else len(parts[0]))]
    ifd = b''.join(struct.pack('<HHII', *t) for t in sorted(own))
    lists = struct.pack(f'<{n}I', *at) + struct.pack(f'<{n}I', *(len(o) for o in parts))
    return b'II*\0' + struct.pack('<IH', 8, len(own)) + ifd + bytes(4) + lists + b''.join(parts) + behind


def test_meanings_of_values(tmp_path):
    p = tmp_path / 'x.tif'
    for dt in ('u1', 'u2', 'u4'):
        tifffile.imwrite(p, truth(dt), photometric='miniswhite')
        agree(p, np.iinfo(dt).max - truth(dt))
    a = truth()
    ramp = np.arange(256, dtype=np.uint16)[::-1]
    for top in (257, 1):  # a palette of 16 bits, and one of 8 in its place
        tifffile.imwrite(p, a, photometric='palette', colormap=np.stack([ramp * top] * 3))
        assert 'palette' in agree(p, 255 - a).notes[0]
    tifffile.imwrite(p, truth('u2'), bigtiff=True, byteorder='>')
    agree(p, truth('u2'))
    p.write_bytes(tiff(W, H, 8, [bytes(int(f'{o:08b}'[::-1], 2) for o in a.tobytes())], H, [(266, 3, 1, 2)]))
    agree(p, a)


# channels --------------------------------------------------------------------------------------


@pytest.mark.parametrize('n', [2, 4, 5])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_channels_that_are_no_transparency(n, planar, tmp_path):
    s = np.stack([truth(seed=k) for k in range(n)])
    tifffile.imwrite(
        tmp_path / 'x.tif',
        s if planar == 'separate' else np.moveaxis(s, 0, -1),
        photometric='minisblack',
        planarconfig=planar,
    )
    with pytest.raises(StopWork, match=f'has {n} channels.*channel=0'):
        read_photo(tmp_path / 'x.tif')
    for k in range(n):
        np.testing.assert_array_equal(read_photo(tmp_path / 'x.tif', channel=k).pixels, s[k])
    with pytest.raises(ValueError, match='no channel 9'):
        read_photo(tmp_path / 'x.tif', channel=9)
    with pytest.raises(StopWork, match='channel=0'):
        read_fields(tmp_path, label_from=None)
    os.rename(tmp_path / 'x.tif', tmp_path / 'CPT.tif')
    np.testing.assert_array_equal(cut_tiles(read_fields(tmp_path, channel=1), tmp_path / 't').field('CPT.tif'), s[1])


@pytest.mark.parametrize(
    'kind,opaque', [('unassalpha', True), ('unassalpha', False), ('unspecified', True), ('unspecified', False)]
)
@pytest.mark.parametrize('color', [False, True])
def test_a_last_channel(kind, opaque, color, tmp_path):
    a = truth()
    last = np.full_like(a, 255) if opaque else truth(seed=9)
    s = np.dstack([a] * (3 if color else 1) + [last])
    tifffile.imwrite(
        tmp_path / 'x.tif', s, photometric='rgb' if color else 'minisblack', extrasamples=[kind], planarconfig='contig'
    )
    if opaque:
        agree(tmp_path / 'x.tif', a)
    elif kind == 'unassalpha':
        with pytest.raises(BadFile, match='transparent'):
            read_photo(tmp_path / 'x.tif')
    else:
        with pytest.raises(StopWork, match='channels'):
            read_photo(tmp_path / 'x.tif')
        if color:
            ph = read_photo(tmp_path / 'x.tif', channel='luminance')
            assert abs(ph.pixels.astype(int) - a).max() <= 1 and 'passed over' in ' '.join(ph.notes)


# orientation -----------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'TIFF', 'TIFF lzw'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_one_way_is_up(kind, turn, tmp_path):
    a = truth()
    p = tmp_path / f'x.{kind.split()[0].lower()}'
    exif = Image.Exif()
    exif[0x112] = turn
    if 'TIFF' in kind:
        tifffile.imwrite(p, a, compression='lzw' if 'lzw' in kind else None, extratags=[(274, 3, 1, turn, True)])
        plain = a
    else:
        kw = dict(lossless=True) if kind == 'WEBP' else {}
        Image.fromarray(a).convert('RGB' if kind == 'WEBP' else 'L').save(p, exif=exif, **kw)
        plain = np.asarray(Image.open(p).convert('L'))
    im = Image.fromarray(plain)
    im.getexif()[0x112] = turn
    ph = agree(p, np.asarray(ImageOps.exif_transpose(im)))
    assert ph.turn == turn and len(ph.notes) == (turn > 1)


def test_an_orientation_that_is_none(tmp_path):
    tifffile.imwrite(tmp_path / 'x.tif', truth(), extratags=[(274, 3, 1, 77, True)])
    assert agree(tmp_path / 'x.tif', truth()).notes == []


# other formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'LA', 'P', 'I;16'])
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'BMP', 'GIF', 'JPEG2000', 'TIFF'])
def test_head_and_pixels_agree(mode, kind, tmp_path):
    a = truth('u2') if mode == 'I;16' else truth()
    im = Image.fromarray(a).convert(mode) if mode != 'I;16' else Image.fromarray(a)
    p = tmp_path / ('x.jp2' if kind == 'JPEG2000' else f'x.{kind.lower()}')
    try:
        im.save(p, kind, **(dict(lossless=True) if kind == 'WEBP' else {}))
    except (OSError, KeyError, ValueError):
        pytest.skip(f'Pillow does not write {mode} as {kind}')
    deep = mode == 'I;16' and kind in ('PNG', 'JPEG2000', 'TIFF')  # into the others Pillow writes 8 bits
    agree(p, np.asarray(Image.open(p)) if deep else np.asarray(Image.open(p).convert('L')))


@pytest.mark.parametrize('bits,kind', [(1, 3), (2, 0), (2, 3), (4, 0), (4, 3), (8, 3), (16, 0)])
def test_png_of_few_bits(bits, kind, tmp_path):
    a = np.random.default_rng(0).integers(0, 2**bits, (9, 16))
    rows = b''.join(
        b'\0'
        + (
            r.astype('>u2').tobytes()
            if bits == 16
            else np.packbits(((r[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype('u1').ravel()).tobytes()
        )
        for r in a
    )
    table = bytes(v for i in range(2 ** min(bits, 8)) for v in (255 - i,) * 3)
    b = (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 16, 9, bits, kind, 0, 0, 0))
        + (chunk(b'PLTE', table) if kind == 3 else b'')
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )
    (tmp_path / 'x.png').write_bytes(b)
    want = 255 - a if kind == 3 else a * 255 // (2**bits - 1) if bits < 8 else a
    agree(tmp_path / 'x.png', want)


def wrong(p, what, monkeypatch):
    "Write a file that is refused, and give back words of the reason."
    a = truth()
    photo = dict(CMYK=5, CIELab=8, camera=32803)
    if what in photo:
        p.write_bytes(tiff(W, H, 8, [a.tobytes()], H, [(262, 3, 1, photo[what])]))
        return what
    if what == 'complex':
        tifffile.imwrite(p, a.astype(np.complex64))
        return 'complex'
    if what == 'white in floats':
        tifffile.imwrite(p, truth('f4'), photometric='miniswhite')
        return 'white as zero'
    if what == 'YCbCr':
        tifffile.imwrite(p, np.dstack([a] * 3), photometric='ycbcr')
        return 'YCbCr without JPEG'
    if what == 'volume':
        tifffile.imwrite(
            p, np.stack([truth(h=32, w=32)] * 16), tile=(16, 16, 16), photometric='minisblack', volumetric=True
        )
        return 'volume'
    if what == 'differences':
        p.write_bytes(tiff(W, H, 8, [a.tobytes()], H, [(317, 3, 1, 2)]))
        return 'programs read them differently'
    if what == '24 bits':
        p.write_bytes(tiff(W, H, 24, [a.tobytes() * 3], H))
        return 'values of 24 bits'
    if what == 'no codec':
        tifffile.imwrite(p, a, compression='jpeg2000')
        monkeypatch.setattr(tiffs, 'find_spec', lambda name: None)
        return 'JPEG 2000.*pip install imagecodecs'
    if what == 'missing strips':
        p.write_bytes(tiff(W, H, 8, [a[:20].tobytes(), b''], 20))
        return 'missing and would be black'
    if what == 'short strip':
        p.write_bytes(tiff(W, H, 8, [a.tobytes()[:-9]], H))
        return 'fewer pixels'
    if what == 'short lzw':
        tifffile.imwrite(p, a, compression='lzw')
        with tifffile.TiffFile(p) as t:
            at, n = t.pages[0].dataoffsets[0], t.pages[0].databytecounts[0]
        b = bytearray(p.read_bytes())
        b[at + n // 2 : at + n] = bytes(n - n // 2)
        p.write_bytes(b)
        return 'truncated or damaged'
    if what == 'jpeg 12':
        Image.fromarray(a).save(p, 'JPEG')
        b = p.read_bytes()
        at = b.index(b'\xff\xc0')
        p.write_bytes(b[: at + 4] + b'\x0c' + b[at + 5 :])
        return 'JPEG of 12 bits'
    if what == 'jp2 deep color':
        import imagecodecs

        p.write_bytes(imagecodecs.jpeg2k_encode(np.dstack([truth('u2')] * 3), codecformat='jp2'))
        return '3 channels of 16 bits'
    if what == 'jp2 cut':
        Image.fromarray(a).save(p, 'JPEG2000')
        p.write_bytes(p.read_bytes()[:-40])
        return 'truncated'


@codecs
@pytest.mark.parametrize(
    'what',
    'CMYK,CIELab,camera,complex,white in floats,YCbCr,volume,differences,24 bits,no codec,missing strips,short strip,short lzw,jpeg 12,jp2 deep color,jp2 cut'.split(
        ','
    ),
)
def test_the_true_reason(what, tmp_path, monkeypatch):
    p = tmp_path / 'x.tif'
    match = wrong(p, what, monkeypatch)
    with pytest.raises(BadFile, match=match) as e:
        read_photo(p)
    assert '\n' not in e.value.reason and 'identify' not in e.value.reason
    (tmp_path / 'CPT.png').write_bytes(png(truth()))
    f = read_fields(tmp_path, label_from=None)
    left = [o['file'] for o in f.attrs['problems']]
    assert 'CPT.png' in f.field.tolist() and (left == ['x.tif'] or 'x.tif' in f.field.tolist())


def png(a, **kw):
    b = io.BytesIO()
    Image.fromarray(a).save(b, 'PNG', **kw)
    return b.getvalue()


def test_the_advice_for_a_codec_is_what_is_lacking(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / 'x.tif', truth(), compression='lzw')
    monkeypatch.setattr(tiffs, 'find_spec', lambda name: None)
    monkeypatch.setitem(sys.modules, 'imagecodecs', None)
    agree(tmp_path / 'x.tif', truth())  # the usual ways of packing need nothing more


# pages -----------------------------------------------------------------------------------------


def imagej(path, a):
    "A stack as ImageJ writes large ones: one page, and the other planes behind it."
    said = f'ImageJ=1.54f\nimages={len(a)}\nslices={len(a)}\n\0'.encode()
    head = tiff(a.shape[2], a.shape[1], 8 * a.itemsize, [a[0].tobytes()], a.shape[1], [(270, 2, len(said), 0)])
    k = head.index(struct.pack('<HHI', 270, 2, len(said)))
    start = head.index(a[0].tobytes())
    b = head[:start] + a.tobytes()
    path.write_bytes(b[: k + 8] + struct.pack('<I', len(b)) + b[k + 12 :] + said)
    return path


@pytest.mark.parametrize('dtype', ['u1', 'u2'])
def test_planes_behind_one_page(dtype, tmp_path):
    a = np.stack([truth(dtype, seed=k) for k in range(3)])
    p = imagej(tmp_path / 'CPT.tif', a)
    with pytest.raises(StopWork, match=r'has 3 pages \(slices 3\).*page=0'):
        read_header(p)
    for k in range(3):
        agree(p, a[k], page=k)
    with pytest.raises(BadFile, match='it has 3 pages, and page=3'):
        read_photo(p, page=3)
    t = cut_tiles(read_fields(tmp_path, page=2), tmp_path / 't', window=(0, np.iinfo(dtype).max))
    np.testing.assert_array_equal(
        t.field('CPT.tif'), np.round(a[2] * 255.0 / np.iinfo(dtype).max) if dtype == 'u2' else a[2]
    )


def test_a_metamorph_stack(tmp_path):
    a = np.stack([truth('u2', seed=k) for k in range(4)])
    b = tiff(W, H, 16, [a[0].tobytes()], H, [(33629, 5, 4, 0), (33628, 4, 1, 0)])
    start = b.index(a[0].tobytes())
    b = b[:start] + a.tobytes()
    k = b.index(struct.pack('<HHI', 33629, 5, 4))
    (tmp_path / 'x.stk').write_bytes(
        b[: k + 8] + struct.pack('<I', len(b)) + b[k + 12 :] + 4 * struct.pack('<6I', 1, 1, 2451545, 0, 2451545, 0)
    )
    with pytest.raises(StopWork, match='has 4 pages'):
        read_photo(tmp_path / 'x.stk')
    for k in range(4):
        agree(tmp_path / 'x.stk', a[k], page=k)


def test_overviews_among_pages(tmp_path):
    a = truth()
    with tifffile.TiffWriter(tmp_path / 'x.tif') as t:
        t.write(a[::4, ::4].copy(), subfiletype=1, metadata=None)
        t.write(a, metadata=None)
        t.write(a > 99, subfiletype=4, metadata=None)
    ph = agree(tmp_path / 'x.tif', a)
    assert ph.notes == ['set aside as overviews, thumbnails or masks: 2 of its pages']
    with tifffile.TiffWriter(tmp_path / 'y.ome.tif') as t:  # a pyramid
        t.write(a, subifds=1)
        t.write(a[::2, ::2].copy(), subfiletype=1)
    agree(tmp_path / 'y.ome.tif', a)


# sizes -----------------------------------------------------------------------------------------


def advised(e):
    return float(str(e.value).split('max_mpx=')[-1].split()[0])


@pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'lzw.tif', 'webp', 'bmp', 'jp2'])
def test_the_advice_works_when_typed(kind, tmp_path, monkeypatch):
    "Also beyond the limit that Pillow has of its own (179 million pixels; here 20,000)."
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10_000)
    a = np.random.default_rng(0).integers(0, 255, (1100, 1000), dtype=np.uint8)
    p = tmp_path / f'CPT_{kind}'  # also without an extension
    p = p if kind == 'webp' else p.with_name(f'CPT_1.{kind.split(".")[-1]}')
    tifffile.imwrite(
        p, a, compression='lzw' if 'lzw' in kind else None, rowsperstrip=8
    ) if 'tif' in kind else Image.fromarray(a).save(
        p, {'jpg': 'JPEG', 'jp2': 'JPEG2000'}.get(kind, kind), **(dict(lossless=True) if kind == 'webp' else {})
    )
    with pytest.raises(BadFile, match='more than 0.5 million; max_mpx=2 reads it') as e:
        read_photo(p, max_mpx=0.5)
    assert read_photo(p, max_mpx=advised(e)).pixels.shape == a.shape
    with pytest.raises(BadFile, match='max_mpx=2'):
        read_header(p, max_mpx=0.5)
    f = read_fields(tmp_path, max_mpx=2)
    t = cut_tiles(f, tmp_path / 't', tile_px=(100, 100))  # what was said to read_fields holds
    assert len(t) == 110 and t.manifest['settings']['max_mpx'] == 2
    show_fields(f, 1)


def test_thousands_of_channels(tmp_path):
    raw = zlib.compress(bytes(60 * 50 * 4000))
    (tmp_path / 'x.tif').write_bytes(tiff(50, 60, 8, [raw], 60, [(259, 3, 1, 8), (277, 3, 1, 4000)]))
    with pytest.raises(BadFile, match='3,000 pixels|4,000 bytes take 0.012 GB, more than the 0.0008 GB') as e:
        read_photo(tmp_path / 'x.tif', max_mpx=0.1)
    with pytest.raises(BadFile, match='4,000 bytes'):
        read_header(tmp_path / 'x.tif', max_mpx=0.1)
    assert read_photo(tmp_path / 'x.tif', channel=3999, max_mpx=advised(e)).pixels.shape == (60, 50)


@pytest.mark.slow
@pytest.mark.skipif(not SLOW, reason='slow: 196 million pixels; CELLDEATH_SLOW=1 runs it')
def test_more_than_179_million_pixels(tmp_path):
    a = np.tile(np.random.default_rng(0).integers(90, 160, (500, 500), dtype=np.uint8), (28, 28))
    Image.fromarray(a).save(tmp_path / 'a.png', compress_level=1)
    Image.fromarray(a).save(tmp_path / 'a.jpg', quality=30)
    tifffile.imwrite(tmp_path / 'a.tif', a, compression='lzw', rowsperstrip=64)
    tifffile.imwrite(tmp_path / 'b.tif', a)
    for p in sorted(tmp_path.iterdir()):
        with pytest.raises(BadFile) as e:
            read_photo(p)
        assert read_photo(p, max_mpx=advised(e)).pixels.shape == (14_000, 14_000)


# windows ---------------------------------------------------------------------------------------


def twelve_bits(seed, h=48, w=64):
    "A photograph of 12 bits in 16."
    y, x = np.mgrid[:h, :w]
    a = 2700 + 900 * np.sin(x / 5 + seed) * np.cos(y / 6) + np.random.default_rng(seed).normal(0, 60, (h, w))
    return a.clip(0, 4095).astype(np.uint16)


def deep_set(folder, change=lambda i, a: a, n=8):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        tifffile.imwrite(folder / f'{"CPT" if i % 2 else "DMSO"}_{i}.tif', change(i, twelve_bits(i)))
    return folder


def put(a, what, value):
    a = a.copy()
    a[what] = value
    return a


dirt = (slice(10, 20), slice(10, 20))
extremes = {
    'a hot pixel in one': lambda i, a: put(a, (5, 5), 65535) if i == 3 else a,
    'a hot pixel in each': lambda i, a: put(a, (5, 5), 65535),
    'three hot pixels in each': lambda i, a: put(a, ([5, 9, 30], [5, 40, 20]), 65535),
    'a dead pixel in each': lambda i, a: put(a, (5, 5), 0),
    'a hot pixel in the corner': lambda i, a: put(a, (0, 0), 65535),
    'dirt in one': lambda i, a: put(a, dirt, 60_000) if i == 3 else a,
    'one of sixteen bits': lambda i, a: a * 15 if i == 3 else a,
    'one that is white': lambda i, a: np.full_like(a, 65535) - (a > 2700) if i == 3 else a,
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('what', extremes)
def test_no_extreme_decides(what, tmp_path):
    t = cut_tiles(read_fields(deep_set(tmp_path / 'p', extremes[what])), tmp_path / 't', grid=(1, 1))
    clean = cut_tiles(read_fields(deep_set(tmp_path / 'q')), tmp_path / 'u', grid=(1, 1))
    assert t.manifest['settings']['window'] == clean.manifest['settings']['window'] == [0, 4095]
    np.testing.assert_array_equal(t.field('DMSO_2.tif')[31:], clean.field('DMSO_2.tif')[31:])
    alone = [o for o in t.manifest['notes'] if 'alone would have made the window' in o['reason']]
    assert len(alone) == (what in ('dirt in one', 'one of sixteen bits', 'one that is white'))
    assert all(o['file'] == 'CPT_3.tif' and 'window=(0, 65535)' in o['reason'] for o in alone)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('what', ['a hot pixel in each', 'a dead pixel in each', 'dirt in one'])
def test_both_ends_where_pixels_are_far_from_zero(what, tmp_path):
    "Values from 30,000 to 33,000 fill few of 65,535: the window is from end to end, and no extreme decides either end."
    far = lambda i, a: extremes[what](i, a + 29_000)
    t = cut_tiles(read_fields(deep_set(tmp_path / 'p', far)), tmp_path / 't', grid=(1, 1))
    lo, hi = t.manifest['settings']['window']
    assert 30_000 < lo < 31_000 and 32_000 < hi < 33_100
    assert len(np.unique(t.field('DMSO_2.tif'))) > 150


def test_a_small_signal_is_no_extreme(tmp_path):
    "Spots of two pixels by two in each photograph are what is looked at, and are not clipped."
    dark = lambda i, a: put(a // 40, ([9, 9, 10, 10], [9, 10, 9, 10]), 4000)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        t = cut_tiles(read_fields(deep_set(tmp_path / 'p', dark)), tmp_path / 't', grid=(1, 1))
    assert t.manifest['settings']['window'] == [0, 4095] and t.manifest['notes'] == []


def test_what_is_clipped_is_said(tmp_path):
    d = deep_set(tmp_path / 'p')
    with pytest.warns(UserWarning, match='% of its pixels lie beyond the window from 0 to 3000'):
        t = cut_tiles(read_fields(d), tmp_path / 't', window=(0, 3000))
    said = [o for o in t.manifest['notes'] if 'beyond the window' in o['reason']]
    assert len(said) == 1 and 'in 8 of 8 photographs' in said[0]['reason']
    share = np.mean([(tifffile.imread(p) > 3000).mean() for p in sorted(d.iterdir())])
    assert f'{100 * share:.3g} % of all pixels' in said[0]['reason']
    more = deep_set(tmp_path / 'q', lambda i, a: a + 300, 2)
    for p in sorted(more.iterdir()):
        p.rename(p.with_stem(p.stem + '_more'))
    with pytest.warns(UserWarning, match='2 of 2 photographs'):
        add_photographs(tmp_path / 't', read_fields(more))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert cut_tiles(read_fields(d), tmp_path / 'u').manifest['notes'] == []


def test_with_few_photographs_none_is_odd(tmp_path):
    t = cut_tiles(read_fields(deep_set(tmp_path / 'p', extremes['one of sixteen bits'], 4)), tmp_path / 'a')
    assert t.manifest['settings']['window'] == [0, 4095]
    three = read_fields(deep_set(tmp_path / 'q', lambda i, a: a * 15 if i == 2 else a, 3))
    assert cut_tiles(three, tmp_path / 'b').manifest['settings']['window'] == [0, 65535]


def test_eight_bits_have_no_window(tmp_path):
    for i in range(4):
        (tmp_path / f'CPT_{i}.png').write_bytes(png(put(truth(seed=i), (3, 3), 255)))
    t = cut_tiles(read_fields(tmp_path, labels=['CPT']), tmp_path / 't', grid=(1, 1))
    assert t.manifest['settings']['window'] is None and t.manifest['notes'] == []
    for i in range(4):
        np.testing.assert_array_equal(t.field(f'CPT_{i}.png'), put(truth(seed=i), (3, 3), 255))


# every file is read or said --------------------------------------------------------------------


def test_unknown_extensions(tmp_path):
    "By content, whatever the name; what is no picture is passed over."
    a = [truth(seed=k) for k in range(8)]
    tifffile.imwrite(tmp_path / 'CPT_0.stk', a[0])
    tifffile.imwrite(tmp_path / 'CPT_1.btf', a[1], bigtiff=True)
    Image.fromarray(a[2]).save(tmp_path / 'CPT_2.jp2', 'JPEG2000')
    Image.fromarray(a[3]).save(tmp_path / 'CPT_3.JFIF', 'JPEG', quality=100)
    tifffile.imwrite(tmp_path / 'CPT_4.flex', a[4])
    Image.fromarray(a[5]).save(tmp_path / 'CPT_5.backup', 'PNG')
    Image.fromarray(a[6]).save(tmp_path / 'CPT_6', 'BMP')
    tifffile.imwrite(tmp_path / 'CPT_7.svs', a[7])
    said = {
        'a.oir': b'OLYMPUSRAWFORMAT', 'b.raw': b'ZISRAWFILE', 'c.heic': b'\0\0\0\x18ftypheic', 'd.psd': b'8BPS', 'e.x': b'\0\0\0\x0cJXL \r\n', 'f.dcm': bytes(128) + b'DICM',
        'g.vsi': b'II*\0' + bytes(90), 'h.mrxs': b'\xff\xd8\xff', 'i.nef': b'MM\0*', 'j.avi': b'RIFF....AVI ', 'k.pgm': b'P5\n3 2\n255\n123456', 'l.svg': b'<svg/>', 'm.ndpi': b'no TIFF',
        'n.jfif': b'', 'o.fits': b'SIMPLE  = T', 'p.oib': b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', 'q.data': b'\x70\0\0\0....\x2a',
    }  # fmt: skip
    other = {
        'notes.txt': b'BM is no bitmap here',
        'Thumbs.db': b'\xd0\xcf\x11\xe0',
        'book.xlsx': b'PK\3\4',
        'paper.pdf': b'%PDF',
        'P6.md': b'P6 is a well',
        'table.csv': b'a,b',
        'w.h5': b'\x89HDF\r\n\x1a\n',
    }
    for n, b in {**said, **other}.items():
        (tmp_path / n).write_bytes(b)
    f = read_fields(tmp_path, labels=['CPT'])
    assert f.field.tolist() == sorted(
        f'CPT_{k}' + e for k, e in enumerate(('.stk', '.btf', '.jp2', '.JFIF', '.flex', '.backup', '', '.svs'))
    )
    assert sorted(o['file'] for o in f.attrs['problems']) == sorted(said) and all(
        len(o['reason']) > 5 for o in f.attrs['problems']
    )
    t = cut_tiles(f, tmp_path / 't', grid=(1, 1))
    for k in (0, 1, 2, 4, 5, 6, 7):
        name = next(o for o in f.field if f'_{k}' in o)
        np.testing.assert_array_equal(t.field(name), a[k])
    assert sorted(read_csv(tmp_path / 't/problems.csv').file) == sorted(said)


def contents():
    "What files can hold: a name of it, its bytes, whether it is a picture that is read."
    a = truth()
    for kind in ('PNG', 'JPEG', 'TIFF', 'WEBP', 'BMP', 'GIF', 'JPEG2000'):
        b = io.BytesIO()
        Image.fromarray(a).save(b, kind, **(dict(lossless=True) if kind == 'WEBP' else {}))
        yield kind, b.getvalue(), True
        yield f'half of a {kind}', b.getvalue()[: len(b.getvalue()) // 2], False
    for name, kw in dict(BigTIFF=dict(bigtiff=True), Motorola=dict(byteorder='>')).items():
        b = io.BytesIO()
        tifffile.imwrite(b, a, **kw)
        yield name, b.getvalue(), True
    yield 'ND2', b'\xda\xce\xbe\n' + bytes(90), False
    yield 'OIR', b'OLYMPUSRAWFORMAT' + bytes(90), False
    yield 'CZI', b'ZISRAWFILE' + bytes(90), False
    yield 'LIF', b'\x70\0\0\0....\x2a' + bytes(90), False
    yield 'PGM', b'P5\n3 2\n255\n123456', False


held = {name: (b, read) for name, b, read in contents()}
exts = ' .png .TIF .jpg .stk .btf .jp2 .jfif .flex .oir .svs .ndpi .lsm .scn .dat .bin .txt .csv .001 .ome.tif .tif.bak .czi .zip'
some = dict(max_examples=150 if SLOW else 25, deadline=None, suppress_health_check=list(HealthCheck))


@settings(**some)
@given(st.lists(st.tuples(st.sampled_from(sorted(held)), st.sampled_from(exts.split(' '))), min_size=1, max_size=8))
def test_every_picture_is_read_or_said(tmp_path_factory, files):
    "Whatever the extension: by content."
    d = tmp_path_factory.mktemp('any')
    for i, (what, ext) in enumerate(files):
        (d / f'CPT_{i}{ext}').write_bytes(held[what][0])
    (d / 'CPT.png').write_bytes(png(truth(seed=5)))
    f = read_fields(d, label_from=None, allow=['formats', 'duplicates'])
    t = cut_tiles(f, d / 'tiles', grid=(1, 1), allow=['duplicates', 'depths'])
    left = read_csv(d / 'tiles/problems.csv').set_index('file').reason
    for i, (what, ext) in enumerate(files):
        name = f'CPT_{i}{ext}'
        assert (name in set(t.table.field)) + (name in left.index) == 1, (name, what)
        assert name in set(t.table.field) if held[what][1] else len(left[name]) > 5, (name, what, left.get(name))


def label_image(n=12, dtype='u2'):
    a = np.zeros((H, W), dtype)
    for k in range(n):
        a[2 + 9 * (k // 4) : 9 + 9 * (k // 4), 2 + 13 * (k % 4) : 13 + 13 * (k % 4)] = k + 1
    return a


@pytest.mark.parametrize('dtype', ['u1', 'u2', 'i4'])
def test_masks_and_overviews_are_set_aside(dtype, tmp_path):
    for i in range(3):
        (tmp_path / f'CPT_{i}.png').write_bytes(png(truth(seed=i)))
    by_name = [
        'CPT_0_mask.png',
        'CPT_0_cp_masks.tif',
        'masks/CPT_1.png',
        'thumb_CPT_1.jpg',
        'overview.png',
        'CPT_2_thumbnail.png',
        'CPT_2_labels.tif',
    ]
    for n in by_name:
        (tmp_path / n).parent.mkdir(exist_ok=True)
        Image.fromarray(truth(h=20, w=28)).save(tmp_path / n)
    tifffile.imwrite(tmp_path / 'CPT_seen.tif', label_image(dtype=dtype))
    tifffile.imwrite(tmp_path / 'CPT_two.tif', (label_image() > 0).astype('u1') * 255)
    f = read_fields(tmp_path, labels=['CPT'])
    t = cut_tiles(f, tmp_path / 't', grid=(1, 1))
    assert t.table.field.tolist() == [f'CPT_{i}.png' for i in range(3)]
    said = {o['file']: o['reason'] for o in t.problems}
    assert set(said) == {*by_name, 'CPT_seen.tif', 'CPT_two.tif'}
    assert all('set aside' in o for o in said.values()) and 'one value each' in said['CPT_seen.tif']
    assert [o.name for o in list_images(tmp_path)] == [
        'CPT_0.png',
        'CPT_1.png',
        'CPT_2.png',
        'CPT_seen.tif',
        'CPT_two.tif',
    ]


def test_photographs_are_no_label_images(tmp_path):
    from celldeath_nb.photos.quality import is_label_image

    r = np.random.default_rng(0)
    dark = r.poisson(0.3, (H, W)).astype('u1')
    spots = put(np.zeros((H, W), 'u2'), (slice(5, 20), slice(5, 20)), 0) + np.where(
        r.random((H, W)) > 0.9, r.integers(1, 300, (H, W)), 0
    ).astype('u2')
    white = np.minimum(truth().astype(int) * 3, 255).astype('u1')
    for a in (
        truth(),
        truth('u2'),
        truth('f4'),
        dark,
        spots,
        white,
        twelve_bits(0),
        np.zeros((9, 9), 'u1'),
        np.full((9, 9), 7, 'u1'),
    ):
        assert not is_label_image(a)
    for a in (label_image(), label_image(dtype='u1'), label_image() > 0, (label_image() > 0).astype('u1') * 255):
        assert is_label_image(a.astype('u1') if a.dtype == bool else a)


# code from photographs -------------------------------------------------------------------------


def zarr_folder(path, description=None, piece=b'', heads=None):
    "An OME-Zarr folder of version 2, by hand."
    said = dict(
        zarr_format=2,
        shape=[H, W],
        chunks=[H, W],
        dtype='<u2',
        compressor=None,
        fill_value=0,
        order='C',
        filters=None,
        dimension_separator='/',
    )
    axes = [dict(name=k, type='space', unit='micrometer') for k in 'yx']
    way = dict(path='0', coordinateTransformations=[dict(type='scale', scale=[0.5, 0.5])])
    (path / '0/0').mkdir(parents=True)
    (path / '.zgroup').write_text(json.dumps(dict(zarr_format=2)))
    (path / '.zattrs').write_text(
        json.dumps(dict(multiscales=[dict(version='0.4', axes=axes, datasets=[way])]) | (heads or {}))
    )
    (path / '0/.zarray').write_text(json.dumps(said | (description or {})))
    (path / '0/0/0').write_bytes(piece or truth('u2').tobytes())
    return path


class Runs:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f'echo ran > {self.canary}',)


def all_codecs():
    numcodecs = pytest.importorskip('numcodecs')
    from importlib.metadata import entry_points

    return {*numcodecs.registry.codec_registry, *(o.name for o in entry_points(group='numcodecs.codecs'))}


@pytest.mark.parametrize('where', ['compressor', 'filters', 'codecs', 'shard', 'consolidated', 'two names'])
def test_every_codec_of_numcodecs(where, tmp_path, monkeypatch):
    "A codec is refused before any library is asked for it, unless it is one that only unpacks."
    import pickle

    canary = tmp_path / 'canary'
    monkeypatch.setitem(sys.modules, 'bioio', None)  # nobody gets so far as to open the folder
    names = all_codecs()
    assert {'pickle', 'json2', 'vlen-utf8', 'blosc', 'zlib'} <= names and len(names) > 15
    for k, name in enumerate(sorted(names | {'numcodecs.pickle', 'object', '', 'unheard of'})):
        one = dict(id=name)
        new = dict(name=name, configuration={})
        p = tmp_path / f'{k}.zarr'
        say = {
            'compressor': dict(compressor=one),
            'filters': dict(filters=[one]),
            'codecs': dict(codecs=[new]),
            'shard': dict(codecs=[dict(name='sharding_indexed', configuration=dict(codecs=[new], index_codecs=[]))]),
            'two names': dict(codecs=[dict(id='blosc', name=name)]),
        }
        zarr_folder(p, say.get(where), pickle.dumps(Runs(canary)))
        if where == 'consolidated':
            d = dict(zarr_format=2, shape=[4], chunks=[4], dtype='<u2', compressor=one, filters=None)
            (p / '.zmetadata').write_text(json.dumps(dict(metadata={'9/.zarray': d})))
        if name in zarrs.unpackers:
            with pytest.raises(BadFile, match='OME-Zarr|unpacks to'):
                read_header(p)  # the plugin is asked for
        else:
            with pytest.raises(BadFile, match='asks for the codec'):
                read_header(p)
        with pytest.raises(BadFile):
            read_photo(p)
    assert not canary.exists()


@pytest.mark.parametrize('dtype', ['|O', '<M8[ns]', '|S5', '<U9', [['a', '<u2']], '|V4', '|b1', '<c8', None, 7])
def test_only_numbers_are_decoded(dtype, tmp_path):
    with pytest.raises(BadFile, match='not numbers'):
        read_photo(zarr_folder(tmp_path / 'x.zarr', dict(dtype=dtype)))


def test_an_ome_zarr_of_numbers_is_read(tmp_path):
    pytest.importorskip('bioio_ome_zarr')
    import zlib as z

    a = truth('u2')
    for k, (c, b) in enumerate(
        (
            (None, a.tobytes()),
            (dict(id='zlib', level=1), z.compress(a.tobytes())),
            (dict(id='gzip', level=1), __import__('gzip').compress(a.tobytes())),
        )
    ):
        agree(zarr_folder(tmp_path / f'{k}.zarr', dict(compressor=c), b), a)


hostile = {
    'a piece that unpacks to more': (
        dict(compressor=dict(id='blosc')),
        b'\2\1\1\2' + (2**31 - 1).to_bytes(4, 'little') + bytes(40),
        {},
        'unpacks to',
    ),
    'pieces of gigabytes': (dict(chunks=[10**6, 10**6]), b'', {}, 'smaller pieces'),
    'more pieces than files': (dict(shape=[10**9, 10**9], chunks=[9, 9]), b'', {}, 'are missing'),
    'no size': (dict(shape='large', chunks=None), b'', {}, 'without a size|cannot be read'),
    'negative': (dict(shape=[-5, 5]), b'', {}, 'without a size'),
    'outside': ({}, b'', dict(multiscales=[dict(datasets=[dict(path='../../other')])]), 'outside of the folder'),
    'absolute': ({}, b'', dict(multiscales=[dict(datasets=[dict(path='/etc')])]), 'outside of the folder'),
    'filters that are no list': (dict(filters=5), b'', {}, 'cannot be read'),
}


@pytest.mark.parametrize('what', hostile)
def test_hostile_ome_zarr(what, tmp_path):
    say, piece, heads, match = hostile[what]
    p = zarr_folder(tmp_path / 'x.zarr', say, piece, heads)
    with pytest.raises(BadFile, match=match):
        read_header(p)


@posix
@pytest.mark.parametrize('what', ['link', 'folder link', 'pipe', 'a file', 'no JSON', 'deep JSON', 'large JSON'])
def test_odd_ome_zarr_folders(what, tmp_path, monkeypatch):
    p = zarr_folder(tmp_path / 'x.zarr')
    if what == 'link':
        (p / '0/0/1').symlink_to('/etc/hostname')
    elif what == 'folder link':
        (p / '1').symlink_to('/etc')
    elif what == 'pipe':
        os.mkfifo(p / '0/0/1')
    elif what == 'a file':
        p = tmp_path / 'y.zarr'
        p.write_bytes(b'PK\3\4')
    elif what == 'no JSON':
        (p / '.zattrs').write_bytes(b'\xff{')
    elif what == 'deep JSON':
        (p / '.zattrs').write_text('[' * 100_000)
    else:
        monkeypatch.setattr(zarrs, '_max_head', 10)
    for f in (read_header, read_photo):
        with pytest.raises(BadFile, match='link, pipe|is a folder|cannot be read'):
            f(p)


@pytest.mark.parametrize('what,version', [('Pillow', '11.3.0'), ('numcodecs', '0.16.5'), ('numcodecs', '0.17.0')])
def test_an_older_library_is_said_once_and_work_goes_on(what, version, tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, '_said', set())
    if what == 'Pillow':
        monkeypatch.setattr(PIL, '__version__', version)
        paths = [tmp_path / f'{i}.jpg' for i in range(3)]
        for p in paths:
            Image.fromarray(truth()).save(p)
    else:
        pytest.importorskip('bioio_ome_zarr')
        import importlib.metadata as m

        was = m.version
        monkeypatch.setattr(m, 'version', lambda name: version if name == 'numcodecs' else was(name))
        paths = [zarr_folder(tmp_path / f'{i}.zarr') for i in range(3)]
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        for p in paths:
            assert read_photo(p).pixels.shape == (H, W)
    said = [str(o.message) for o in w if 'is installed' in str(o.message)]
    assert len(said) == 1 and f'{what} {version}' in said[0]


# bounds ----------------------------------------------------------------------------------------


def bombs():
    "(name, bytes, words of the reason or None) of small files that want much."
    pages = b''.join(struct.pack('<HHHIII', 1, 256, 4, 1, 64, 8 + 18 * (i + 1)) for i in range(60_000))
    yield 'pages.tif', b'II*\0' + struct.pack('<I', 8) + pages, 'more than 50,000 pages'
    one = tiff(W, H, 8, [truth().tobytes()], H)
    n = struct.unpack_from('<H', one, 8)[0]
    yield 'ring.tif', one[: 10 + 12 * n] + struct.pack('<I', 8) + one[14 + 12 * n :], None
    yield 'passes.jpg', many_scans(W, H, 5000), '5,001 times'
    yield (
        'tile.tif',
        tiff(W, H, 8, [truth().tobytes()], H, [(322, 4, 1, 2**20), (323, 4, 1, 2**20)]),
        'pieces|damaged|TileOffsets',
    )
    yield 'strips.tif', tiff(W, H, 8, [truth().tobytes()], 0), 'without a size'
    raw = zlib.compress(bytes(1000 * 1000 * 4000 // 50))
    yield 'channels.tif', tiff(1000, 1000, 8, [raw], 1000, [(259, 3, 1, 8), (277, 3, 1, 4000)]), '4,000 bytes take 4 GB'
    yield 'more.tif', tiff(W, H, 8, [zlib.compress(truth().tobytes() + bytes(50_000_000))], H, [(259, 3, 1, 8)]), None


def test_one_file_does_not_stop_everything(tmp_path):
    for name, b, _ in bombs():
        (tmp_path / name).write_bytes(b)
    (tmp_path / 'CPT.png').write_bytes(png(truth()))
    tiles = cut_tiles(read_fields(tmp_path, label_from=None), tmp_path / 't', grid=(1, 1))
    said = {o['file']: o['reason'] for o in tiles.problems}
    for name, _, match in bombs():
        assert (name in said) == bool(match), said.get(name)
        assert not match or any(m in said[name] for m in match.split('|')), said[name]
    assert set(tiles.table.field) == {'CPT.png', 'ring.tif', 'more.tif'}


def test_memory_and_time_are_bounded(tmp_path, monkeypatch):
    "What looks costly is decoded in a process whose memory and time are bounded; it is left out by name."
    a = np.random.default_rng(0).integers(0, 255, (3000, 3000), dtype=np.uint8)
    p = tmp_path / 'x.tif'
    tifffile.imwrite(p, a, compression='zlib', rowsperstrip=100)
    monkeypatch.setattr(reading, 'PATIENCE', 0)
    ph = read_photo(p)
    np.testing.assert_array_equal(ph.pixels, a)
    assert (ph.format, ph.bits, ph.crc) == ('TIFF', 8, pixels.file_checksum(p.read_bytes()))
    tifffile.imwrite(p, np.dstack([truth(seed=k) for k in range(3)]), photometric='rgb')
    with pytest.raises(StopWork, match='x.tif is in color'):
        read_photo(p)
    with pytest.raises(ValueError, match="channel='pink'"):
        read_photo(p, channel='pink')
    p.write_bytes(p.read_bytes()[:-999])
    with pytest.raises(BadFile, match='truncated'):
        read_photo(p)
    tifffile.imwrite(p, truth(), compression='zlib')
    asked = []

    def ended(entry, args, room, seconds):
        asked.append((room, seconds))
        raise apart.Ended('time')

    monkeypatch.setattr(reading, 'ask_apart', ended)
    with pytest.raises(BadFile, match='x.tif: its decoder took longer than 120 s'):
        read_photo(p)
    assert asked[0][0] < 4e9


def of_parts(n):
    "(name, bytes) of pictures with `n` parts that say nothing, before or among their pixels."
    said = {}
    for kind in ('PNG', 'JPEG', 'GIF', 'WEBP', 'BMP'):
        s = io.BytesIO()
        Image.fromarray(truth()).save(s, kind, **(dict(lossless=True) if kind == 'WEBP' else {}))
        said[kind] = s.getvalue()
    b = said['PNG']
    yield 'x.png', b[:33] + chunk(b'IDAT', b'') * n + b[33:]
    yield 'odd.png', b[:33] + chunk(b'abCd', b'') * n + b[33:]
    b = said['JPEG']
    yield 'x.jpg', b[:2] + b'\xff\xe1\0\2' * n + b[2:]
    yield 'fill.jpg', b[:2] + b'\xff' * n + b[2:]
    yield 'rst.jpg', b[:2] + b'\xff\xd0' * n + b[2:]
    b = said['GIF']
    yield 'x.gif', b[:-2] + b'\1a' * n + b'\0;'
    yield 'said.gif', b[:-1] + b'\x21\xfe\1a\0' * n + b';'
    b = said['WEBP'][12:] + b'ABCD\0\0\0\0' * n
    b = b'VP8X\x0a\0\0\0' + struct.pack('<I', 0) + (W - 1).to_bytes(3, 'little') + (H - 1).to_bytes(3, 'little') + b
    yield 'x.webp', b'RIFF' + struct.pack('<I', 4 + len(b)) + b'WEBP' + b
    yield 'x.tif', tiff(1, n, 8, [bytes([o % 250]) for o in range(n)], 1)


def test_a_file_of_endless_parts(tmp_path, monkeypatch):
    "What is made of very many parts is read if they are as many as a program may make, and refused beyond."
    for name, b in of_parts(1500):
        (tmp_path / name).write_bytes(b)
        ph = read_photo(tmp_path / name, channel='luminance')
        assert ph.pixels.shape == ((1500, 1) if name == 'x.tif' else (H, W)), name
    for m in (pixels, tiffs):
        monkeypatch.setattr(m, 'MAX_PARTS', 1000)
    for name, _ in of_parts(1):
        if name == 'fill.jpg':  # it has no more parts than another, and Pillow gets none of what fills it
            b = (tmp_path / name).read_bytes()
            assert len(pixels._bare_jpeg(b, name)) == len(b) - 1500
            continue
        for look in (read_photo, read_header):
            with pytest.raises(BadFile, match='made of more than 1,000 parts'):
                look(tmp_path / name)


def test_what_is_told_beside_pixels_is_not_unpacked(tmp_path, monkeypatch):
    "The orientation is read from its own bytes, and nothing else of EXIF, which may tell a file's size a thousand times."

    def nobody(*a):
        raise AssertionError('EXIF was unpacked')

    im = Image.fromarray(truth())
    exif = Image.Exif()
    exif[0x112] = 6
    exif[0x10F] = 'a microscope'
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    asked = {}
    for ext in ('jpg', 'webp', 'png'):
        kw = dict(lossless=True) if ext == 'webp' else {}
        im.save(tmp_path / f'plain.{ext}', **kw)
        im.save(tmp_path / f'turned.{ext}', exif=exif, **kw)
        asked[f'turned.{ext}'] = f'plain.{ext}'
        if ext != 'png':
            im.save(tmp_path / f'xmp.{ext}', xmp=xmp, **kw)
            asked[f'xmp.{ext}'] = f'plain.{ext}'
    monkeypatch.setattr(Image.Exif, 'load', nobody)
    for name, plain in asked.items():
        a = read_photo(tmp_path / name, channel='luminance')
        b = read_photo(tmp_path / plain, channel='luminance')
        assert (a.turn, a.height, a.width) == (6, W, H), name
        assert (read_header(tmp_path / name).turn, read_header(tmp_path / name).width) == (6, H)
        np.testing.assert_array_equal(a.pixels, pixels.upright(b.pixels, 6), name)


@pytest.mark.parametrize('scans, said', [(1, 'a piece of 4096x4096 pixels'), (500, 'hundreds of times')])
def test_a_jpeg_in_a_tiff_is_what_its_page_says(scans, said, tmp_path):
    "However far behind its beginning it tells its size."
    b = many_scans(4096, 4096, scans)
    b = b[:2] + (b'\xff\xe5\xff\xff' + bytes(65533)) * 2 + b[2:]
    (tmp_path / 'x.tif').write_bytes(tiff(W, H, 8, [b], H, [(259, 3, 1, 7)]))
    with pytest.raises(BadFile, match=said):
        read_photo(tmp_path / 'x.tif')


def test_a_decoder_may_work_for_a_time_and_wait_for_longer(monkeypatch):
    "Its time is processor time, whatever else the machine does; where the system counts none, it counts itself."
    asked = 'celldeath_nb.photos.apart:_try_out'
    for kw, how in ((dict(endless=True), 'time'), (dict(sleep=1.2), None)):
        try:
            apart.ask_apart(asked, kw, 2e9, 1)
            assert how is None
        except apart.Ended as e:
            assert e.how == how
    code = 'from celldeath_nb.photos.apart import _watch_time; _watch_time(0)'
    assert subprocess.run([sys.executable, '-c', code]).returncode in apart._time_is_up


def test_no_process_can_be_begun(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / 'x.tif', truth())
    monkeypatch.setattr(reading, 'PATIENCE', 0)
    monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: (_ for _ in ()).throw(OSError('not here')))
    np.testing.assert_array_equal(read_photo(tmp_path / 'x.tif').pixels, truth())


def test_the_usual_photograph_is_decoded_here(tmp_path, monkeypatch):
    def nobody(*a):
        raise AssertionError('a process was begun for a usual photograph')

    monkeypatch.setattr(reading, 'ask_apart', nobody)
    a = np.random.default_rng(0).integers(0, 255, (2048, 2048), dtype=np.uint8)
    for kw in (dict(), dict(compression='zlib'), dict(compression='lzw')):
        tifffile.imwrite(tmp_path / 'x.tif', a.astype('u2'), **kw)
        assert read_photo(tmp_path / 'x.tif').pixels.shape == a.shape
    for n in ('x.png', 'x.jpg', 'x.bmp'):
        Image.fromarray(np.dstack([a] * 3)).save(tmp_path / n)
        assert read_photo(tmp_path / n, channel='red').pixels.shape == a.shape


cutting = """
import sys
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
f = read_fields(sys.argv[1], allow=['duplicates'])
print('begun', flush=True)
cut_tiles(f, sys.argv[2], allow=['duplicates'], workers=int(sys.argv[3]))
"""


@posix
@pytest.mark.timeout(240)
@pytest.mark.parametrize('workers', [0, 2])
def test_ctrl_c_ends_whatever_a_decoder_does(workers, tmp_path):
    psutil = pytest.importorskip('psutil')
    d = tmp_path / 'p'
    d.mkdir()
    for i in range(4):
        (d / f'{"CPT" if i % 2 else "DMSO"}_{i}.jpg').write_bytes(many_scans(8800, 8800, 98))
    args = [sys.executable, '-c', cutting, d, tmp_path / 't', str(workers)]
    p = subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert p.stdout.readline() == 'begun\n'
        kids = []
        while not kids and p.poll() is None:
            kids = psutil.Process(p.pid).children()
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        err = p.communicate(timeout=30)[1]  # the decoder would go on for minutes; measured: below 2 s
        assert p.returncode != 0 and 'KeyboardInterrupt' in err
        assert not [o for o in kids if o.is_running() and o.status() != psutil.STATUS_ZOMBIE]
    finally:
        p.kill()
        p.wait()


@posix
@pytest.mark.timeout(240)
def test_a_decoder_ends_with_who_asked(tmp_path):
    psutil = pytest.importorskip('psutil')
    code = "from celldeath_nb.photos.apart import ask_apart; ask_apart('celldeath_nb.photos.apart:_try_out', dict(sleep=100), 2e9, 100)"
    p = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.DEVNULL)
    kids = []
    while not kids:
        kids = psutil.Process(p.pid).children()
        time.sleep(0.05)
    time.sleep(1)
    p.kill()
    p.wait()
    assert psutil.wait_procs(kids, timeout=30)[1] == []


# names -----------------------------------------------------------------------------------------

odd_names = [
    'a\rb',
    'a\nb',
    'a\x1b[31mb',
    'a\u202egnp.b',
    '<b>a',
    '"a"',
    "'a'",
    '=1+1',
    'a,b;c',
    'ä' * 100,
    'a\tb',
    'a\u200bb',
    '%s{x}',
    ' a ',
    'a\\nb',
]


@posix
@pytest.mark.parametrize('name', odd_names)
def test_names_in_messages_and_tables(name, tmp_path):
    p = tmp_path / f'{name}.png'
    p.write_bytes(b'no picture')
    (tmp_path / 'CPT.png').write_bytes(png(truth()))
    with pytest.raises(BadFile) as e:
        read_photo(p)
    assert str(e.value).isprintable() and e.value.reason.isprintable()
    f = read_fields(tmp_path, labels=['CPT'])
    assert [o['file'] for o in f.attrs['problems']] == [p.name]
    write_csv(pd.DataFrame(f.attrs['problems']), tmp_path / 'problems.csv')
    with open(tmp_path / 'problems.csv', newline='', encoding='utf-8') as t:
        rows = list(csv.reader(t))
    assert rows[1][0].lstrip("'") == p.name.lstrip("'") and len(rows) == 2


@posix
def test_a_name_that_is_no_text_is_listed(tmp_path):
    try:
        (tmp_path / os.fsdecode(b'x\xff.png')).write_bytes(png(truth()))
    except OSError:
        pytest.skip('this disk refuses such names')
    (tmp_path / 'CPT.png').write_bytes(png(truth()))
    t = cut_tiles(read_fields(tmp_path, labels=['CPT']), tmp_path / 't')
    assert read_csv(tmp_path / 't/problems.csv').file.tolist() == [r'x\udcff.png'] == [o['file'] for o in t.problems]


@posix
@pytest.mark.parametrize('name', ['a\x1b[31mb', 'a\rb', 'a\u202egnp.b', 'a\nb'])
def test_the_command_prints_names_as_they_are_safe(name, tmp_path, capsys):
    "A name is on one line of the console, and nothing of it is obeyed."
    from celldeath_nb.cli import main

    (tmp_path / 'in' / name).mkdir(parents=True)
    (tmp_path / f'in/{name}.png').write_bytes(b'no picture')
    for i, c in enumerate(('CPT', 'DMSO')):
        (tmp_path / f'in/{c}.png').write_bytes(png(truth(seed=i)))
        (tmp_path / f"in/{name}/{c}_{name}.png").write_bytes(png(truth(seed=2 + i)))
    for words in (['explain'], ['slice', '--out', str(tmp_path / 't')]):
        with pytest.raises(SystemExit) as e:
            main([words[0], str(tmp_path / 'in'), *words[1:], '--labels', 'CPT', 'DMSO'])
        said = capsys.readouterr()
        for line in (said.out + said.err).split('\n'):
            assert line.isprintable(), line
        assert e.value.code == 3 and f'Left out: {safe_text(name)}.png: ' in said.out + said.err


def test_safe_text():
    for c in [
        *map(chr, range(32)),
        '\x7f',
        '\x85',
        '\u2028',
        '\u202a',
        '\u202e',
        '\u2066',
        '\u200f',
        '\ufeff',
        '\ud800',
        '\udcff',
    ]:
        assert safe_text(f'a{c}b').isprintable() and safe_text(f'a{c}b') != 'ab'
    for s in ('µ-Slide ä <b> "x" \'y\' 細胞', 'a' * 300, ''):
        assert safe_text(s) == s
    assert safe_text(Path('x\ny')) == r'x\ny' and safe_text(None) == 'None'


# quality ---------------------------------------------------------------------------------------


def test_quality_outliers_look_where_read_fields_looked(tmp_path):
    "The channel, the page and the window of `read_fields` are those of `quality_outliers`."
    for i in range(5):
        s = np.stack([np.stack([twelve_bits(i + 10 * c + 100 * k) for c in range(2)], -1) for k in range(2)])
        s[1, ..., 1] = s[1, ..., 1] if i != 4 else 2700  # one that is even, on the second page, in the second channel
        with tifffile.TiffWriter(tmp_path / f'CPT_{i}.tif') as t:
            for page in s:
                t.write(page, photometric='minisblack', planarconfig='contig', metadata=None)
    f = read_fields(tmp_path, labels=['CPT'], page=1, channel=1)
    odd = quality_outliers(f)
    assert 'all of one gray' in odd.set_index('field').why['CPT_4.tif']
    q = read_fields(tmp_path, labels=['CPT'], page=1, channel=1, quality=True)
    want = field_quality(np.round(twelve_bits(110) * 255.0 / 4095).astype(np.uint8))
    assert q.attrs['window'] == (0, 4095) and {k: q[k][0] for k in want} == want
    pd.testing.assert_frame_equal(quality_outliers(q), odd)
