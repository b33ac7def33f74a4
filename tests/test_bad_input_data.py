"Bad input for reading and slicing: each case is made here, and has the verdict that the table in nbs/api/31_tiles.store.ipynb gives it."

import io, json, os, re, shutil, socket, struct, subprocess, sys, unicodedata, zlib
from pathlib import Path
import numpy as np, pytest, tifffile
from PIL import Image, ImageFile
from celldeath_nb.photos.pixels import BadFile
from celldeath_nb.photos.fields import list_images, read_fields
from celldeath_nb.photos.reading import read_header, read_image, read_photo
from celldeath_nb.tiles.cut import add_photographs, cut_tiles
from celldeath_nb.tiles.store import open_tiles

H = 96
W = 128
posix = pytest.mark.skipif(os.name != 'posix', reason='needs a POSIX system')


def picture(seed=0, h=H, w=W, dtype=np.uint8, top=255):
    r = np.random.default_rng(seed)
    return (r.random((h, w)) * top).astype(dtype)


def png(a, **kw):
    b = io.BytesIO()
    Image.fromarray(a).save(b, 'PNG', **kw)
    return b.getvalue()


def chunk(kind, data, crc=None):
    body = kind + data
    return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body) if crc is None else crc)


def raw_png(w, h, bits, kind, rows, lace=0, before=b''):
    "A PNG written by hand."
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, bits, kind, 0, 0, lace))
        + before
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )


def filtered(a, way=None, seed=0):
    "Rows of a PNG, each with the filter `way`, or with one drawn at random; by the book (RFC 2083)."
    rows = [np.frombuffer(r.tobytes(), np.uint8).astype(int) for r in a]
    n = a[0, 0].nbytes
    r = np.random.default_rng(seed)
    up = np.zeros_like(rows[0])
    out = b''
    for x in rows:
        k = int(r.integers(5)) if way is None else way
        left, corner = (np.concatenate([np.zeros(n, int), o[:-n]]) for o in (x, up))
        p = left + up - corner
        pa = abs(p - left)
        pb = abs(p - up)
        pc = abs(p - corner)
        paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, corner))
        out += bytes([k]) + ((x - [0, left, up, (left + up) // 2, paeth][k]) % 256).astype(np.uint8).tobytes()
        up = x
    return out


def plain_rows(a):
    return b''.join(b'\0' + r.tobytes() for r in a)


@pytest.fixture
def folder(tmp_path):
    "Three good photographs."
    d = tmp_path / 'photos'
    d.mkdir()
    for i, t in enumerate(['CPT', 'DMSO', 'CPT']):
        (d / f'U2_{t}_1h_RGB_000{i}_N1.png').write_bytes(png(picture(i)))
    return d


BAD = 'U2_DMSO_1h_RGB_0009_N1.png'


def put(folder, data, name=BAD):
    p = folder / name
    if isinstance(data, bytes):
        p.write_bytes(data)
    else:
        data(p)
    return p


def left_out(folder, out, reason, name=BAD, **kw):
    "The file is left out with `reason` by reading and slicing, and stops the work if on_error='raise'."
    with pytest.raises(BadFile, match=reason):
        read_image(folder / name)
    t = cut_tiles(read_fields(folder), out, **kw)
    assert len(t) == 12
    said = [o for o in t.problems if o['file'] == name]
    assert len(said) == 1 and reason.lower() in said[0]['reason'].lower() and '\n' not in said[0]['reason']
    assert name in (out / 'problems.csv').read_text()
    with pytest.raises(BadFile, match=reason):
        cut_tiles(read_fields(folder, on_error='raise'), out, overwrite=True, on_error='raise')
    assert len(open_tiles(out)) == 12  # the old store is untouched
    assert not [o for o in out.parent.iterdir() if o.name.startswith('.')]


def used(folder, out, pixels, name=BAD, note=None, **kw):
    t = cut_tiles(read_fields(folder), out, **kw)
    assert len(t) == 16
    np.testing.assert_array_equal(t.field(name), pixels)
    if note:
        assert any(note in o['reason'] and o['file'] == name for o in t.manifest['notes'])
    return t


# files and pixels ------------------------------------------------------------------------------


def jpg(a, **kw):
    b = io.BytesIO()
    Image.fromarray(a).save(b, 'JPEG', **kw)
    return b.getvalue()


def tif(a, **kw):
    b = io.BytesIO()
    tifffile.imwrite(b, a, **kw)
    return b.getvalue()


@pytest.mark.parametrize('kind', ['png', 'plain', 'jpg', 'tif'])
def test_01_truncated(kind, tmp_path):
    a = picture(5, 40, 50)
    b = dict(png=png(a), plain=raw_png(50, 40, 8, 0, plain_rows(a)), jpg=jpg(a), tif=tif(a))[kind]
    p = tmp_path / f'x.{kind}'
    want = np.asarray(Image.open(io.BytesIO(b)))
    rng = np.random.default_rng(0)
    for cut in {1, 8, 20, 33, 40, len(b) // 2, len(b) - 1, len(b) - 2, *rng.integers(1, len(b), 60).tolist()}:
        p.write_bytes(b[:cut])
        try:
            got = read_image(p)
        except BadFile:
            continue
        np.testing.assert_array_equal(got, want)  # only the end was missing, never a part of the picture


def test_01_truncated_left_out(folder, tmp_path):
    put(folder, png(picture(9))[:-500])
    left_out(folder, tmp_path / 't', 'truncated')


def test_01_even_if_pillow_is_told_to_accept(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    a = picture(5, 40, 50)
    for b in (png(a), jpg(a), tif(a)):
        (tmp_path / 'x').write_bytes(b[: len(b) // 2])
        with pytest.raises(BadFile):
            read_image(tmp_path / 'x')


def test_02_only_the_end_is_missing(folder, tmp_path):
    a = picture(9)
    put(folder, png(a)[:-12])
    used(folder, tmp_path / 't', a, note='its end is missing')


def test_03_bit_flip(folder, tmp_path):
    b = bytearray(png(picture(9)))
    b[len(b) // 2] ^= 4
    put(folder, bytes(b))
    left_out(folder, tmp_path / 't', 'checksum')


def test_04_no_bytes(folder, tmp_path):
    put(folder, b'')
    left_out(folder, tmp_path / 't', 'empty')


def test_05_header_only(folder, tmp_path):
    put(folder, png(picture(9))[:33])
    left_out(folder, tmp_path / 't', 'truncated')


@pytest.mark.parametrize(
    'text,what',
    [
        (b'<!DOCTYPE html><html><body>Quota exceeded</body></html>', 'HTML'),
        (b'hello, here is no picture', 'text'),
        (b'%PDF-1.4 ...', 'PDF'),
        (b'PK\3\4....', 'zip'),
    ],
)
def test_06_not_a_picture(text, what, folder, tmp_path):
    put(folder, text)
    left_out(folder, tmp_path / 't', what)


def test_07_08_wrong_extension(folder, tmp_path):
    a = picture(9)
    put(folder, tif(a))
    used(folder, tmp_path / 't', a, note='a TIFF file with the extension .png')
    put(folder, jpg(a))
    t = cut_tiles(read_fields(folder), tmp_path / 't2')
    assert any('a JPEG file' in o['reason'] for o in t.manifest['notes'])
    assert read_fields(folder).lossy.sum() == 1


@pytest.mark.parametrize('bits', [12, 14, 16])
@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_09_sixteen_bits_one_window(bits, ext, tmp_path):
    d = tmp_path / 'p'
    d.mkdir()
    px = [picture(i, dtype=np.uint16, top=2**bits - 1) for i in range(3)]
    px[1] //= 8  # a dark one stays dark
    px[2][0, 0] = 2**bits - 1
    for i, a in enumerate(px):
        (d / f'{"CPT" if i else "DMSO"}_{i}.{ext}').write_bytes(png(a) if ext == 'png' else tif(a))
    t = cut_tiles(read_fields(d), tmp_path / 't')
    assert t.manifest['settings']['window'] == [0, 2**bits - 1]
    for i, a in enumerate(px):
        got = t.field(f'{"CPT" if i else "DMSO"}_{i}.{ext}')
        np.testing.assert_array_equal(got, np.round(a * 255.0 / (2**bits - 1)).astype(np.uint8))
    assert t[:].max() == 255 and t.field(f'CPT_1.{ext}').max() <= 32


def test_09_windows_by_argument(tmp_path):
    d = tmp_path / 'p'
    d.mkdir()
    a = picture(0, dtype=np.uint16, top=4000)
    (d / 'CPT_1.tif').write_bytes(tif(a))
    f = read_fields(d)
    t = cut_tiles(f, tmp_path / 'a', window=(100, 200))
    np.testing.assert_array_equal(
        t.field('CPT_1.tif'), np.round(np.clip((a - 100.0) * 255 / 100, 0, 255)).astype(np.uint8)
    )
    assert cut_tiles(f, tmp_path / 'b', window='dtype').manifest['settings']['window'] == [0, 65535]
    lo, hi = cut_tiles(f, tmp_path / 'c', window='percentiles').manifest['settings']['window']
    assert 0 <= lo < 20 and 3900 < hi < 4000
    with pytest.raises(ValueError, match='first value must be smaller'):
        cut_tiles(f, tmp_path / 'd', window=(5, 5))
    with pytest.raises(ValueError, match="'percentiles'"):
        cut_tiles(f, tmp_path / 'd', window='auto')


def test_09_mixed_depths(folder, tmp_path):
    put(folder, tif(picture(9, dtype=np.uint16, top=4000)), 'U2_DMSO_1h_RGB_0009_N1.tif')
    with pytest.raises(ValueError, match='8 bits and of more are mixed'):
        cut_tiles(read_fields(folder), tmp_path / 't')
    assert not (tmp_path / 't').exists()


def test_10_sixteen_bit_color(folder, tmp_path):
    a = picture(9, dtype=np.uint16, top=4095)
    p = put(folder, tif(np.dstack([a] * 3), photometric='rgb'))
    np.testing.assert_array_equal(read_photo(p).pixels, a)
    for kind, stack in ((2, [a] * 3), (6, [a] * 3 + [np.full_like(a, 65535)]), (4, [a, np.full_like(a, 65535)])):
        p = put(folder, raw_png(W, H, 16, kind, filtered(np.dstack(stack).astype('>u2'), seed=kind)))
        np.testing.assert_array_equal(read_photo(p).pixels, a)
        assert read_header(p).bits == 16
    t = cut_tiles(read_fields(folder)[-1:], tmp_path / 't')
    assert t.manifest['settings']['window'] == [0, 4095]
    np.testing.assert_array_equal(t.field(BAD), np.round(a * 255.0 / 4095).astype(np.uint8))
    p = put(folder, raw_png(W, H, 16, 6, filtered(np.dstack([a] * 4).astype('>u2'))))
    with pytest.raises(BadFile, match='transparent'):
        read_photo(p)
    p = put(folder, raw_png(W, H, 16, 2, filtered(np.dstack([a, a, a + 1]).astype('>u2'))))
    with pytest.raises(ValueError, match="channel='luminance'"):
        read_photo(p)
    np.testing.assert_array_equal(read_photo(p, channel='blue').pixels, a + 1)


@pytest.mark.parametrize('bits,kind,n', [(8, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 1), (16, 2, 3)])
@pytest.mark.parametrize('ways', [None, 0, 1, 2, 3, 4])
def test_every_filter_of_png(bits, kind, n, ways, tmp_path):
    a = picture(3, 17, 23 * n, np.uint16 if bits == 16 else np.uint8, 2**bits - 1).reshape(17, 23, n)
    if n == 3:
        a[..., 1:] = a[..., :1]
    if n == 4:
        a[..., 1:3] = a[..., :1]
        a[..., 3] = 255
    (tmp_path / 'x.png').write_bytes(
        raw_png(23, 17, bits, kind, filtered(a.astype('>u2' if bits == 16 else 'u1'), ways))
    )
    np.testing.assert_array_equal(read_photo(tmp_path / 'x.png').pixels, a[..., 0])


@pytest.mark.parametrize('v', [np.nan, np.inf])
def test_11_not_a_number(v, folder, tmp_path):
    a = picture(9).astype(np.float32)
    p = put(folder, tif(a))
    with pytest.raises(ValueError, match='no natural range'):
        read_image(p)
    np.testing.assert_array_equal(read_image(p, window=(0, 255)), a.astype(np.uint8))
    a[3, 3] = v
    put(folder, tif(a))
    with pytest.raises(BadFile, match='no numbers'):
        read_photo(p)


def test_11_float_set(tmp_path):
    d = tmp_path / 'p'
    d.mkdir()
    (d / 'CPT_1.tif').write_bytes(tif(picture(0).astype(np.float32)))
    with pytest.raises(ValueError, match='Give window='):
        cut_tiles(read_fields(d), tmp_path / 't')
    assert len(cut_tiles(read_fields(d), tmp_path / 't', window=(0, 255))) == 4


@pytest.mark.parametrize('dtype', [np.int16, np.int32, np.uint32])
def test_12_other_integers(dtype, tmp_path):
    a = picture(0, dtype=dtype, top=3000)
    (tmp_path / 'x.tif').write_bytes(tif(a))
    np.testing.assert_array_equal(read_photo(tmp_path / 'x.tif').pixels, a)
    np.testing.assert_array_equal(read_image(tmp_path / 'x.tif', window=(0, 4095)), np.round(a / 4095 * 255))


def test_13_gray_in_three_channels(folder, tmp_path):
    a = picture(9)
    put(folder, png(np.dstack([a] * 3)))
    used(folder, tmp_path / 't', a)


def test_14_color_stops(folder, tmp_path):
    a = np.dstack([picture(9), picture(10), picture(11)])
    put(folder, png(a))
    with pytest.raises(ValueError, match=BAD + r".*channel='luminance'"):
        read_fields(folder)
    t = cut_tiles(read_fields(folder, channel='green'), tmp_path / 't')
    np.testing.assert_array_equal(t.field(BAD), a[..., 1])
    t = cut_tiles(read_fields(folder, channel='luminance'), tmp_path / 't2')
    assert abs(t.field(BAD).astype(int) - np.asarray(Image.fromarray(a).convert('L'))).max() <= 1
    put(folder, png(a[::-1]), 'U2_DMSO_1h_RGB_0010_N1.png')
    t = cut_tiles(read_fields(folder, channel='luminance'), tmp_path / 't3')
    assert [(o['file'], o['reason']) for o in t.manifest['notes']] == [
        (BAD, 'color, read as luminance (ITU-R BT.601); so were 1 more')
    ]


@pytest.mark.parametrize('gray', [True, False])
def test_15_16_17_alpha(gray, folder, tmp_path):
    a = picture(9)
    full = np.full_like(a, 255)
    half = np.full_like(a, 128)
    stack = (lambda al: np.dstack([a, al])) if gray else (lambda al: np.dstack([a, a, a, al]))
    put(folder, png(stack(full)))
    used(folder, tmp_path / 't', a)
    put(folder, png(stack(half)))
    left_out(folder, tmp_path / 't2', 'transparent')


def test_18_palette(folder, tmp_path):
    a = picture(9)
    im = Image.fromarray(255 - a)
    im.putpalette([k for i in range(256) for k in (255 - i,) * 3])
    b = io.BytesIO()
    im.save(b, 'PNG')
    put(folder, b.getvalue())
    used(folder, tmp_path / 't', a, note='palette')


@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_19_mask(ext, folder, tmp_path):
    m = picture(9) > 128
    put(folder, png(m) if ext == 'png' else tif(m))
    left_out(folder, tmp_path / 't', 'mask')


def test_20_cmyk(folder, tmp_path):
    b = io.BytesIO()
    Image.fromarray(np.dstack([picture(9)] * 4), 'CMYK').save(b, 'JPEG')
    put(folder, b.getvalue())
    left_out(folder, tmp_path / 't', 'CMYK')


def test_21_one_class_is_jpeg(tmp_path):
    for i, t in enumerate(['CPT', 'DMSO'] * 2):
        (tmp_path / f'{t}_{i}.x').with_suffix('.png' if i % 2 else '.jpg').write_bytes(
            (png if i % 2 else jpg)(picture(i))
        )
    with pytest.raises(ValueError, match='CPT are JPEG'):
        read_fields(tmp_path)
    assert len(read_fields(tmp_path, allow=['formats'])) == 4


def test_22_exif_turned(folder, tmp_path):
    a = picture(9)
    ex = Image.Exif()
    ex[0x112] = 3
    put(folder, png(a, exif=ex))
    used(folder, tmp_path / 't', a[::-1, ::-1], note='EXIF')
    ex[0x112] = 6
    p = put(folder, jpg(a, exif=ex))
    assert read_image(p).shape == (W, H) and (read_header(p).height, read_header(p).width) == (W, H)


def adam7(a):
    rows = b''
    for y0, x0, dy, dx in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        rows += plain_rows(a[y0::dy, x0::dx].copy())
    return raw_png(a.shape[1], a.shape[0], 8, 0, rows, lace=1)


def test_23_interlaced(folder, tmp_path):
    a = picture(9)
    put(folder, adam7(a))
    used(folder, tmp_path / 't', a)


def test_24_webp(folder, tmp_path):
    a = picture(9)
    b = io.BytesIO()
    Image.fromarray(np.dstack([a] * 3)).save(b, 'WEBP', lossless=True)
    put(folder, b.getvalue(), 'U2_DMSO_1h_RGB_0009_N1.webp')
    used(folder, tmp_path / 't', a, name='U2_DMSO_1h_RGB_0009_N1.webp')
    b = io.BytesIO()
    Image.fromarray(np.dstack([a] * 3)).save(b, 'WEBP', quality=50)
    p = put(folder, b.getvalue(), 'U2_DMSO_1h_RGB_0009_N1.webp')
    assert read_header(p).lossy


@pytest.mark.parametrize('kind', ['GIF', 'PNG'])
def test_25_animation(kind, folder, tmp_path):
    b = io.BytesIO()
    ims = [Image.fromarray(picture(i)) for i in (9, 10)]
    ims[0].save(b, kind, save_all=True, append_images=ims[1:])
    put(folder, b.getvalue())
    left_out(folder, tmp_path / 't', 'animation')


def test_26_pages(folder, tmp_path):
    a = np.stack([picture(i) for i in (9, 10, 11)])
    p = put(folder, tif(a, photometric='minisblack'))
    with pytest.raises(ValueError, match='has 3 pages.*page=0'):
        read_fields(folder)
    f = read_fields(folder, page=2)
    np.testing.assert_array_equal(cut_tiles(f, tmp_path / 't').field(BAD), a[2])
    with pytest.raises(BadFile, match='page=7'):
        read_image(p, page=7)


@pytest.mark.parametrize(
    'kw',
    [
        dict(tile=(32, 32)),
        dict(bigtiff=True),
        dict(compression='zlib'),
        dict(compression='lzw'),
        dict(compression='packbits'),
        dict(byteorder='>'),
        dict(photometric='miniswhite'),
        dict(predictor=2, compression='zlib'),
    ],
    ids=str,
)
def test_27_kinds_of_tiff(kw, tmp_path):
    a = picture(9)
    p = tmp_path / 'x.tif'
    if kw.get('compression') in ('lzw', 'packbits'):
        Image.fromarray(a).save(p, compression={'lzw': 'tiff_lzw', 'packbits': 'packbits'}[kw['compression']])
    else:
        try:
            p.write_bytes(tif(a, **kw))
        except (ValueError, ImportError, KeyError) as e:
            pytest.skip(f'tifffile cannot write it here: {e}')
    np.testing.assert_array_equal(read_image(p), 255 - a if kw.get('photometric') == 'miniswhite' else a)


def test_27_jpeg_in_tiff(tmp_path):
    Image.fromarray(picture(9)).save(tmp_path / 'x.tif', compression='jpeg')
    assert read_image(tmp_path / 'x.tif').shape == (H, W) and read_header(tmp_path / 'x.tif').lossy


@pytest.mark.parametrize('ext', ['czi', 'nd2', 'lif', 'vsi'])
def test_28_vendor_formats(ext, folder, tmp_path):
    put(folder, b'ZISRAWFILE\0\0' if ext == 'czi' else b'\1\2\3\4' * 50, f'U2_DMSO_1h_RGB_0009_N1.{ext}')
    f = read_fields(folder)
    assert len(f) == 3 and 'export it as TIFF' in f.attrs['problems'][0]['reason']


def test_29_many_texts(folder, tmp_path, capfd):
    a = picture(9)
    texts = chunk(b'tEXt', b'Software\0FiberBuffer 1.0') + chunk(b'tEXt', b'Microns Per Pixel\x000.434221') * 1500
    put(folder, raw_png(W, H, 8, 0, plain_rows(a), before=texts))
    f = read_fields(folder, um_per_px=0.434221)
    assert f.set_index('field').acquired[BAD] == 1500
    np.testing.assert_array_equal(cut_tiles(f, tmp_path / 't').field(BAD), a)
    assert capfd.readouterr().err == ''


def test_30_text_bomb(folder, tmp_path):
    a = picture(9)
    bomb = chunk(b'zTXt', b'Comment\0\0' + zlib.compress(b'x' * 20_000_000))
    put(folder, raw_png(W, H, 8, 0, plain_rows(a), before=bomb))
    used(folder, tmp_path / 't', a)


@pytest.mark.parametrize('n', [30_000, 60_000])
def test_31_32_huge(n, folder, tmp_path):
    put(folder, raw_png(n, n, 8, 0, b'\0'))
    left_out(folder, tmp_path / 't', 'max_mpx=')


def test_31_bomb_in_a_small_header(tmp_path):
    (tmp_path / 'x.png').write_bytes(raw_png(64, 64, 8, 0, b'\0' * 50_000_000))
    with pytest.raises(BadFile, match='more pixels'):
        read_image(tmp_path / 'x.png')


@pytest.mark.parametrize('w,h', [(W - 1, H), (W, H - 1), (W + 1, H), (W, H + 1)])
def test_33_header_lies(w, h, folder):
    p = put(folder, raw_png(w, h, 8, 0, plain_rows(picture(9))))
    with pytest.raises(BadFile, match='more pixels' if w * h < W * H else 'truncated'):
        read_image(p)


@pytest.mark.parametrize('v', [0, 77, 255])
def test_34_constant(v, folder, tmp_path):
    put(folder, png(np.full((H, W), v, np.uint8)))
    t = cut_tiles(read_fields(folder), tmp_path / 't')
    assert len(t) == 12 and 'the same' in t.problems[0]['reason']
    assert read_fields(folder, quality=True).constant.sum() == 1


def test_35_36_quality(tmp_path):
    good = np.asarray(Image.fromarray(picture(0)).resize((400, 300)))
    blur = np.asarray(Image.fromarray(picture(0, 8, 10)).resize((400, 300)))
    bar = good.copy() // 2
    bar[280:284, 300:380] = 255
    for n, a in dict(CPT_good=good, CPT_blur=blur, CPT_white=np.maximum(good, 254), CPT_bar=bar).items():
        (tmp_path / f'{n}.png').write_bytes(png(a))
    q = read_fields(tmp_path, labels=['CPT'], quality=True).set_index('field')
    assert q.focus['CPT_good.png'] > 20 * q.focus['CPT_blur.png']
    assert q.overlay.to_dict() == {
        'CPT_bar.png': True,
        'CPT_blur.png': False,
        'CPT_good.png': False,
        'CPT_white.png': False,
    }
    assert q.cell_share['CPT_white.png'] == 0 and q.cell_share['CPT_good.png'] == 1


def test_37_same_photograph_in_two_classes(folder, tmp_path):
    shutil.copy(folder / 'U2_CPT_1h_RGB_0000_N1.png', folder / BAD)
    with pytest.raises(ValueError, match='same photograph byte for byte'):
        read_fields(folder)
    put(folder, tif(picture(0)))  # the same pixels in other bytes
    with pytest.raises(ValueError, match='same pixels'):
        cut_tiles(read_fields(folder), tmp_path / 't')
    assert not list(tmp_path.glob('*t*/manifest.json')) and not list(tmp_path.glob('.t*'))
    assert len(cut_tiles(read_fields(folder), tmp_path / 't', allow=['duplicates'])) == 16


def test_37_twice_in_one_class_is_noted(folder):
    shutil.copy(folder / 'U2_CPT_1h_RGB_0000_N1.png', folder / 'U2_CPT_1h_RGB_0077_N1.png')
    assert 'byte for byte' in read_fields(folder).attrs['notes'][0]['reason']


# sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(1, 1), (20, 30)])
def test_39_too_small(size, folder, tmp_path):
    put(folder, png(picture(9, *size)))
    t = cut_tiles(read_fields(folder), tmp_path / 't', tile_px=(48, 64))
    assert len(t) == 12 and 'fewer than' in t.problems[0]['reason'] or 'all its pixels' in t.problems[0]['reason']


def test_39_all_too_small(tmp_path):
    (tmp_path / 'CPT.png').write_bytes(png(picture(0, 20, 30)))
    with pytest.raises(ValueError, match='No photograph is large enough: 20 pixels of height are fewer than the 48'):
        cut_tiles(read_fields(tmp_path), tmp_path / 't', tile_px=(48, 64))


def test_40_does_not_divide(tmp_path):
    a = picture(0, 95, 127)
    d = tmp_path / 'p'
    d.mkdir()
    (d / 'CPT.png').write_bytes(png(a))
    f = read_fields(d)
    with pytest.raises(ValueError, match='95x127 pixels cannot be cut into 2x2 equal tiles. Rows that fit 95'):
        cut_tiles(f, tmp_path / 't')
    t = cut_tiles(f, tmp_path / 't', edge='drop')
    np.testing.assert_array_equal(t.field('CPT.png'), a[:94, :126])
    assert t.manifest['notes'] == [
        dict(file='CPT.png', reason='the last 1 rows and 1 columns of its 95x127 pixels are in no tile')
    ]
    assert (
        'last 15 rows and 31 columns'
        in cut_tiles(f, tmp_path / 't3', tile_px=(40, 48), edge='drop').manifest['notes'][0]['reason']
    )
    np.testing.assert_array_equal(cut_tiles(f, tmp_path / 't2', edge='pad').field('CPT.png'), a)


def test_41_portrait_and_landscape(folder, tmp_path):
    a = picture(9, W, H)
    put(folder, png(a))
    with pytest.raises(ValueError, match='rotate=True'):
        cut_tiles(read_fields(folder), tmp_path / 't')
    used(folder, tmp_path / 't', np.rot90(a), rotate=True)


def test_42_mixed_sizes_and_scales(folder, tmp_path):
    put(folder, png(picture(9, 2 * H, 2 * W)))
    with pytest.raises(ValueError, match=r'2 sizes(.|\n)*192x256'):
        cut_tiles(read_fields(folder), tmp_path / 't')
    assert len(cut_tiles(read_fields(folder), tmp_path / 't', tile_px=(48, 64))) == 28
    f = read_fields(folder, um_per_px=1.0)
    f.loc[f.field == BAD, 'um_per_px'] = 0.5
    with pytest.raises(ValueError, match=r'different scales(.|\n)*CPT'):
        cut_tiles(f, tmp_path / 't2')
    t = cut_tiles(f, tmp_path / 't2', rescale_to=1.0)
    assert len(t) == 16 and t.um_per_px == 1 and t.field(BAD).shape == (H, W)


@pytest.mark.parametrize('n,near', [(3, '(1, 3)'), (4, '(2, 2)'), (5, '(2, 2)'), (7, '(2, 4)'), (8, '(2, 4)')])
def test_43_a_number_is_no_grid(n, near, folder, tmp_path):
    with pytest.raises(ValueError) as e:
        cut_tiles(read_fields(folder), tmp_path / 't', grid=n)
    assert f'grid={near}' in str(e.value)
    with pytest.raises(ValueError):
        cut_tiles(read_fields(folder), tmp_path / 't', grid=(0, 2))


# names and folders -----------------------------------------------------------------------------

strange = [
    'DMSO ü ö.png',
    'DMSO_it\'s "so".png',
    'DMSO_100%.png',
    'DMSO_a\nb.png',
    '-a_DMSO.png',
    '=DMSO_1+1.png',
    '@DMSO.png',
    'DMSO_' + 'x' * 246 + '.png',
    'DMSO_$a$.png',
    'DMSO_<b>.png',
    'DMSO_#1,1.png',
]


@posix
@pytest.mark.parametrize('name', strange)
def test_44_strange_names(name, folder, tmp_path):
    a = picture(9)
    put(folder, png(a), name)
    t = (
        used(folder, tmp_path / 't', a, name=name)
        if '\n' not in name
        else cut_tiles(read_fields(folder), tmp_path / 't')
    )
    assert name in t.table.field.tolist() and open_tiles(tmp_path / 't').table.field.tolist() == t.table.field.tolist()
    if name == 'DMSO_$a$.png':
        t.show(n=2).savefig(io.BytesIO())
    cells = [c for row in __import__('csv').reader(io.StringIO((tmp_path / 't/tiles.csv').read_text())) for c in row]
    assert not any(c[:1] in '=+-@' and c[:1] and not c.lstrip('-').replace('.', '').isdigit() for c in cells)


@posix
def test_44_name_that_is_no_text(folder):
    try:
        open(os.fsencode(folder) + b'/DMSO_\xff.png', 'wb').write(png(picture(9)))
    except OSError:
        pytest.skip('this disk refuses such names')
    f = read_fields(folder)
    assert len(f) == 3 and 'UTF-8' in f.attrs['problems'][0]['reason']


def test_45_twins(folder):
    names = ['CPT_ä.png', 'CPT_Ab.png', 'CPT_ab.png']
    for i, n in enumerate(names):
        put(folder, png(picture(20 + i)), unicodedata.normalize('NFC', n))
    put(folder, png(picture(30)), unicodedata.normalize('NFD', 'CPT_ä.png'))
    on_disk = len(list_images(folder))
    f = read_fields(folder)
    assert len(f) == on_disk and f.field.is_unique
    if on_disk == 7:
        assert sum('case or accents' in o['reason'] for o in f.attrs['notes']) == 2


def test_46_47_hidden_and_upper_case(folder):
    for n in ('.DS_Store', '._U2_CPT_1h.png', 'Thumbs.db', '.hidden.png'):
        put(folder, b'x', n)
    (folder / '.ipynb_checkpoints').mkdir()
    put(folder / '.ipynb_checkpoints', b'x', 'U2_CPT_1h_RGB_0000_N1.png')
    put(folder, png(picture(9)), 'U2_DMSO_1h_RGB_0009_N1.PNG')
    f = read_fields(folder)
    assert len(f) == 4 and f.attrs['problems'] == []


def test_48_same_name_in_two_folders(tmp_path):
    for i, d in enumerate(['n1', 'n2']):
        (tmp_path / d).mkdir()
        (tmp_path / d / 'CPT_1.png').write_bytes(png(picture(i)))
    assert read_fields(tmp_path).field.tolist() == ['n1/CPT_1.png', 'n2/CPT_1.png']


def test_49_tiles_among_photographs(folder):
    put(folder, png(picture(9)), 'U2_DMSO_1h_RGB_0009_N1.png_02_01.png')
    with pytest.raises(ValueError, match='tiles of an older slicing'):
        read_fields(folder)


def test_49_only_tiles(tmp_path):
    for r in (1, 2):
        for c in (1, 2):
            (tmp_path / f'U2_CPT_1h_RGB_0000_N1.png_0{r}_0{c}.png').write_bytes(png(picture(r * 2 + c)))
    f = read_fields(tmp_path)
    assert f.photograph.nunique() == 1 and f.experiment.tolist() == ['N1'] * 4


@posix
def test_50_links(folder, tmp_path):
    os.symlink(folder, folder / 'loop')
    os.symlink(tmp_path / 'nowhere.png', folder / 'CPT_dangling.png')
    (tmp_path / 'else').mkdir()
    put(tmp_path / 'else', png(picture(9)), 'CPT_5.png')
    os.symlink(tmp_path / 'else', folder / 'outside')
    f = read_fields(folder)
    assert len(f) == 3
    said = {o['file']: o['reason'] for o in f.attrs['problems']}
    assert 'nowhere' in said['CPT_dangling.png'] and 'follow_links=True' in said['outside']
    assert len(read_fields(folder, follow_links=True)) == 4


@posix
@pytest.mark.timeout(20)
def test_51_no_ordinary_file(folder, tmp_path):
    os.mkfifo(folder / 'CPT_fifo.png')
    (folder / 'CPT_dir.png').mkdir()
    s = socket.socket(socket.AF_UNIX)
    cwd = os.getcwd()
    try:
        os.chdir(folder)
        s.bind('CPT_sock.png')
    finally:
        os.chdir(cwd)
    f = read_fields(folder)
    s.close()
    assert len(f) == 3 and len(f.attrs['problems']) == 3
    with pytest.raises(BadFile, match='not an ordinary file'):
        read_image(folder / 'CPT_fifo.png')
    with pytest.raises(BadFile, match='not an ordinary file'):
        read_image('/dev/zero')


def test_52_vanished_and_changed(folder, tmp_path):
    f = read_fields(folder)
    (folder / f.field[0]).unlink()
    t = cut_tiles(f, tmp_path / 't')
    assert len(t) == 8 and 'cannot be opened' in t.problems[0]['reason']


@posix
@pytest.mark.skipif(hasattr(os, 'geteuid') and os.geteuid() == 0, reason='the administrator may read everything')
def test_52_unreadable(folder):
    put(folder, png(picture(9))).chmod(0)
    assert 'Permission' in read_fields(folder).attrs['problems'][0]['reason']


def test_53_empty_folder(tmp_path):
    with pytest.raises(ValueError, match='0 photographs in'):
        read_fields(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_fields(tmp_path / 'nowhere')
    (tmp_path / 'f').write_text('x')
    with pytest.raises(ValueError, match='not a folder'):
        read_fields(tmp_path / 'f')


def test_53_many_names(tmp_path):
    d = tmp_path / 'many'
    d.mkdir()
    for i in range(3_000):
        (d / f'CPT_{i}.png').touch()
    assert len(list_images(d)) == 3_000


def changed_manifest(path, **kw):
    "The manifest of a store with other values, and a right checksum."
    from celldeath_nb.tiles.store import write_manifest

    m = json.loads((path / 'manifest.json').read_text())
    m.update(kw)
    return write_manifest(path, m)


def test_54_path_out_of_the_folder(folder, tmp_path):
    t = cut_tiles(read_fields(folder), tmp_path / 't')
    s = dict(t.manifest['sources'])
    changed_manifest(tmp_path / 't', sources={**s, 'field': ['../../etc/passwd'] + s['field'][1:]})
    with pytest.raises(ValueError, match='outside the folder'):
        open_tiles(tmp_path / 't')
    csv = tmp_path / 'l.csv'
    csv.write_text('path,label\n../x.png,CPT\n')
    with pytest.raises(ValueError, match='leads out of the folder'):
        read_fields(folder, label_from=csv)


# labels ----------------------------------------------------------------------------------------


def many(tmp_path, names):
    for i, n in enumerate(names):
        (tmp_path / n).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / n).write_bytes(png(picture(i, 8, 8)))
    return tmp_path


def test_55_whole_parts(tmp_path):
    d = many(tmp_path / 'celldeath_CPT', ['x_CPT1_a.png', 'x_cpt10_a.png', 'x_control_a.png', 'x-CPT 3.png'])
    f = read_fields(d, labels=['CPT', 'control'])
    assert f.label.tolist() == ['CPT', 'CPT', 'control', 'CPT']
    d = many(tmp_path / 'b', ['uncontrolled_1.png', 'control_1.png', 'CPTX_1.png'])
    with pytest.raises(ValueError, match='2 of 3 photographs have no label'):
        read_fields(d, labels=['control'])
    d = many(tmp_path / 'c', ['CPT1_a.png', 'CPT10_a.png'])
    assert read_fields(d, labels=['CPT1', 'CPT10']).label.tolist() == ['CPT10', 'CPT1']
    with pytest.raises(ValueError, match='CPT1.*can be read as'):
        read_fields(d, labels=['CPT', 'CPT1'])


def test_56_both_or_none(tmp_path):
    with pytest.raises(ValueError, match='more than one label.*CPT_DMSO'):
        read_fields(many(tmp_path / 'a', ['CPT_DMSO.png', 'CPT_1.png', 'DMSO_1.png']), labels=['CPT', 'DMSO'])
    f = read_fields(
        many(
            tmp_path / 'b', [f'CPT_{i}.png' for i in range(60)] + [f'DMSO_{i}.png' for i in range(60)] + ['leaflet.png']
        ),
        labels=['CPT', 'DMSO'],
    )
    assert len(f) == 120 and f.attrs['problems'] == [
        dict(file='leaflet.png', reason='no label in its name, folder or CSV')
    ]
    with pytest.raises(ValueError, match="'STS' fits no file"):
        read_fields(tmp_path / 'b', labels=['CPT', 'STS'])
    with pytest.raises(ValueError, match='give a list'):
        read_fields(tmp_path / 'b', labels='CPT')


def test_57_folders_and_conflicts(tmp_path):
    d = many(tmp_path / 'a', ['CPT/1.png', 'DMSO/1.png'])
    assert read_fields(d).label.tolist() == ['CPT', 'DMSO'] and read_fields(d).attrs['label_from'] == 'folder'
    with pytest.raises(ValueError, match="label_from='folder'"):
        read_fields(d, labels=['CPT', 'DMSO'], label_from='name')
    d = many(tmp_path / 'b', ['CPT/U2_DMSO_1.png', 'DMSO/U2_CPT_1.png'])
    with pytest.raises(ValueError, match='DMSO by its name and CPT by its folder'):
        read_fields(d)
    with pytest.raises(ValueError, match='No labels can be found'):
        read_fields(many(tmp_path / 'c', ['a.png', 'b.png']))
    assert 'label' not in read_fields(tmp_path / 'c', label_from=None)


def test_csv_labels(tmp_path):
    d = many(tmp_path / 'a', ['a.png', 'b.png'])
    csv = tmp_path / 'l.csv'
    csv.write_text('field,label,dose_um,batch\na.png,CPT,10,x\nb.png,DMSO,,y\n')
    f = read_fields(d, label_from=csv)
    assert f.label.tolist() == ['CPT', 'DMSO'] and f.dose_um[0] == 10 and f.batch.tolist() == ['x', 'y']
    csv.write_text('field,label\na.png,CPT\nz.png,DMSO\n')
    with pytest.raises(ValueError, match='not in the folder.*z.png'):
        read_fields(d, label_from=csv)
    csv.write_text('field,label\na.png,CPT\na.png,DMSO\n')
    with pytest.raises(ValueError, match='more than once'):
        read_fields(d, label_from=csv)
    csv.write_text('name,label\na.png,CPT\n')
    with pytest.raises(ValueError, match='needs `field` or `path`'):
        read_fields(d, label_from=csv)
    with pytest.raises(FileNotFoundError, match='no CSV'):
        read_fields(d, label_from='nam')


def test_csv_plate_map(tmp_path):
    d = many(tmp_path / 'a', ['P1_A01_1.png', 'P1_A02_1.png'])
    csv = tmp_path / 'map.csv'
    csv.write_text('plate,well,treatment,dose_um\nP1,A01,CPT,5\nP1,A02,DMSO,0\n')
    f = read_fields(d, label_from=csv, pattern='{plate}_{well}_{site}')
    assert f.label.tolist() == ['CPT', 'DMSO'] and f.dose_um.tolist() == [5, 0] and f.well.tolist() == ['A01', 'A02']


def test_pattern_that_does_not_fit(folder):
    with pytest.raises(ValueError, match="3 of 3 names do not fit.*the text '-'"):
        read_fields(folder, pattern='{line}-{frame}')


# store and disk --------------------------------------------------------------------------------


@pytest.fixture
def store(folder, tmp_path):
    return cut_tiles(read_fields(folder), tmp_path / 't')


def test_65_no_room(folder, tmp_path, monkeypatch):

    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(10, 10, 10))
    with pytest.raises(OSError, match='Free some room'):
        cut_tiles(read_fields(folder), tmp_path / 't')
    assert sorted(o.name for o in tmp_path.iterdir()) == ['photos']


@posix
def test_65_disk_full_while_writing(folder, tmp_path):
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
f = read_fields({str(folder)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,20_000))
try: cut_tiles(f, {str(tmp_path / 't')!r})
except OSError as e: print('refused', e)
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert r.stdout.startswith('refused') and 'nothing half-written was left' in r.stdout, r.stderr
    assert sorted(o.name for o in tmp_path.iterdir()) == ['photos']


@posix
def test_65_out_cannot_be_made(folder, tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(OSError):
        cut_tiles(read_fields(folder), tmp_path / 'file' / 't')
    with pytest.raises(OSError):
        cut_tiles(read_fields(folder), '/proc/nowhere/t')


def test_65_out_exists(store, folder, tmp_path):
    with pytest.raises(FileExistsError, match='nothing was changed'):
        cut_tiles(read_fields(folder), store.path)
    cut_tiles(read_fields(folder), store.path, grid=(1, 1), overwrite=True)
    assert len(open_tiles(store.path)) == 3
    with pytest.raises(FileExistsError, match='no folder of tiles'):
        cut_tiles(read_fields(folder), folder, overwrite=True)
    assert len(list_images(folder)) == 3


def test_66_two_writers(folder, tmp_path):
    from celldeath_nb.tiles.store import only_writer

    with only_writer(tmp_path / 't'):
        with pytest.raises(FileExistsError, match='another process'):
            cut_tiles(read_fields(folder), tmp_path / 't')
    assert len(cut_tiles(read_fields(folder), tmp_path / 't')) == 12


def test_67_sources_change(store, folder):
    p = folder / 'U2_CPT_1h_RGB_0000_N1.png'
    os.utime(p, (1, 1))  # clock skew, same bytes: nothing to say
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        open_tiles(store.path)
    p.write_bytes(png(picture(50)))
    with pytest.warns(UserWarning, match='changed since it was cut'):
        open_tiles(store.path)
    with pytest.raises(ValueError, match='changed since'):
        open_tiles(store.path, sources='stop')
    with pytest.raises(ValueError, match='has changed since'):
        add_photographs(store.path, read_fields(folder))
    p.unlink()
    with pytest.warns(UserWarning, match='missing since'):
        open_tiles(store.path)
    shutil.rmtree(folder)
    with pytest.warns(UserWarning, match='not here'):
        open_tiles(store.path)
    assert len(open_tiles(store.path, sources='ignore')) == 12


def damage(path, at, by=1):
    b = bytearray(path.read_bytes())
    b[at] ^= by
    path.write_bytes(b)


def test_67_flipped_byte_names_the_photograph(store):
    n = store.tile_px[0] * store.tile_px[1]
    for k in (0, 5, 11):
        damage(store.path / 'pixels.u8', k * n + 77)
        assert [o['file'] for o in open_tiles(store.path).verify()] == [store.table.field[k]]
        damage(store.path / 'pixels.u8', k * n + 77)
    assert open_tiles(store.path).verify() == []


def test_67_copied_half(store):
    p = store.path / 'pixels.u8'
    b = p.read_bytes()
    p.write_bytes(b[:-1])
    with pytest.raises(ValueError, match='too short'):
        open_tiles(store.path)
    p.unlink()
    with pytest.raises(ValueError, match='missing'):
        open_tiles(store.path)


def test_67_every_flip_in_the_manifest_is_seen(store):
    p = store.path / 'manifest.json'
    b = p.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(b), 150):
        damage(p, at, 1 + int(at) % 7)
        with pytest.raises((ValueError, KeyError)):
            open_tiles(store.path)
        p.write_bytes(b)
    p.write_text('{"format":"other"}')
    with pytest.raises(ValueError, match='something else'):
        open_tiles(store.path)
    p.write_text('[' * 100_000)
    with pytest.raises(ValueError, match='damaged'):
        open_tiles(store.path)


def test_67_table_that_is_another(store):
    p = store.path / 'tiles.csv'
    lines = p.read_text().splitlines(True)
    for bad in (lines[:-1], lines[:1] + lines[2:] + lines[1:2], lines[:3] + lines[4:] + lines[3:4]):
        p.write_text(''.join(bad))
        with pytest.raises(ValueError, match='does not belong'):
            open_tiles(store.path)


def test_67_labels_that_changed_places(store):
    p = store.path / 'tiles.csv'
    text = p.read_text()
    p.write_text(text.replace('CPT,', 'X,').replace('DMSO,', 'CPT,').replace('X,', 'DMSO,'))
    assert p.read_text() != text
    with pytest.raises(ValueError, match='was changed or is damaged.*tiles.add.name=values, save=True'):
        open_tiles(store.path)


def test_67_a_damaged_tile_is_never_handed_out(store):
    n = store.tile_px[0] * store.tile_px[1]
    damage(store.path / 'pixels.u8', 5 * n + 77)
    t = open_tiles(store.path)
    assert t.batch([4, 6]).shape == (2, *store.tile_px)
    for ask in (lambda: t[5], lambda: t.batch([4, 5]), lambda: t.field(t.table.field[5])):
        with pytest.raises(ValueError, match='pixels.u8 is damaged: tile .* is not what was written'):
            ask()


def test_67_other_version(store):
    changed_manifest(store.path, version=99)
    with pytest.raises(ValueError, match='version 99'):
        open_tiles(store.path)
    with pytest.raises(FileNotFoundError, match='Make it with cut_tiles'):
        open_tiles(store.path / 'nowhere')


def test_the_table_names_all_68_cases():
    book = json.loads((Path(__file__).parents[1] / 'nbs' / 'api' / '31_tiles.store.ipynb').read_text())
    rows = [
        l
        for c in book['cells']
        for l in ''.join(c['source']).splitlines()
        if l.startswith('| ') and l[2].isdigit() and '|' in l[2:] and 'GB' not in l
    ]
    said = {int(n) for l in rows for n in re.findall(r'(?<![\w.])(\d+)(?= [a-zA-Z]|, )', l.split('|')[1])}
    assert said >= set(range(1, 69)), sorted(set(range(1, 69)) - said)
