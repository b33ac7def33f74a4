"Bad input for predicting: the same files, pushed through `predict(model, folder)`, have the same verdicts as for slicing."

import io, os, zlib
import numpy as np, pytest
from PIL import Image
from celldeath_nb.learn.models import Model
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.prediction import predict
from test_bad_input_data import H, W, adam7, chunk, filtered, jpg, picture, plain_rows, png, posix, raw_png, tif

A = picture(9)
full = np.full_like(A, 255)
half = np.full_like(A, 128)


def saved(im, kind, **kw):
    b = io.BytesIO()
    im.save(b, kind, **kw)
    return b.getvalue()


def flipped():
    b = bytearray(png(A))
    b[len(b) // 2] ^= 4
    return bytes(b)


def palette():
    im = Image.fromarray(255 - A)
    im.putpalette([k for i in range(256) for k in (255 - i,) * 3])
    return saved(im, 'PNG')


def turned():
    ex = Image.Exif()
    ex[0x112] = 3
    return png(A, exif=ex)


used = {
    '02 end missing': png(A)[:-12],
    '07 JPEG': jpg(A),
    '08 TIFF': tif(A),
    '13 three channels': png(np.dstack([A] * 3)),
    '15 opaque': png(np.dstack([A, A, A, full])),
    '17 gray opaque': png(np.dstack([A, full])),
    '18 palette': palette(),
    '21 gray JPEG': jpg(A),
    '22 EXIF': turned(),
    '23 interlaced': adam7(A),
    '24 WebP': saved(Image.fromarray(np.dstack([A] * 3)), 'WEBP', lossless=True),
    '27 tiled': tif(A, tile=(32, 32)),
    '27 BigTIFF': tif(A, bigtiff=True),
    '29 many texts': raw_png(W, H, 8, 0, plain_rows(A), before=chunk(b'tEXt', b'Software\0FiberBuffer 1.0') * 1100),
    '30 text bomb': raw_png(
        W, H, 8, 0, plain_rows(A), before=chunk(b'zTXt', b'C\0\0' + zlib.compress(bytes(5_000_000)))
    ),
    '34 overlay': png(np.where(np.arange(W) < 20, 255, A).astype(np.uint8)),
}

left_out = {
    '01 truncated PNG': (png(A)[:-500], 'truncated'),
    '01 truncated JPEG': (jpg(A)[:-500], 'truncated'),
    '01 truncated TIFF': (tif(A)[:-500], 'truncated'),
    '03 flipped bit': (flipped(), 'checksum'),
    '04 no bytes': (b'', 'empty'),
    '05 head only': (png(A)[:33], 'truncated'),
    '06 web page': (b'<!DOCTYPE html><html>', 'HTML'),
    '06 text': (b'hello', 'text'),
    '16 transparent': (png(np.dstack([A, A, A, half])), 'transparent'),
    '19 mask': (png(A > 128), 'mask'),
    '20 CMYK': (saved(Image.fromarray(np.dstack([A] * 4), 'CMYK'), 'JPEG'), 'CMYK'),
    '25 animation': (
        saved(Image.fromarray(A), 'GIF', save_all=True, append_images=[Image.fromarray(255 - A)]),
        'animation',
    ),
    '31 bomb': (raw_png(30_000, 30_000, 8, 0, b'\0'), 'max_mpx'),
    '33 head lies': (raw_png(W, H + 1, 8, 0, plain_rows(A)), 'truncated'),
    '34 constant': (png(full), 'the same'),
    '39 too small': (png(picture(9, 20, 30)), 'fewer than'),
}

stopped = {
    '09 mixed depths': (png(picture(9, dtype=np.uint16, top=4000)), '8 bits and of more are mixed'),
    '10 color of 16 bits': (
        raw_png(W, H, 16, 2, filtered(np.dstack([A] * 3).astype('>u2') * 16)),
        '8 bits and of more',
    ),
    '11 decimal pixels': (tif(A.astype(np.float32)), '8 bits and of more are mixed'),
    '14 color': (png(np.dstack([A, 255 - A, A])), "channel='luminance'"),
    '26 pages': (tif(np.stack([A, 255 - A]), photometric='minisblack'), 'page=0'),
}


@pytest.fixture(scope='module')
def model():
    return Model(
        make_net('resnet10t', 2, (48, 64), 'linear').eval(),
        'resnet10t',
        ['CPT', 'DMSO'],
        (48, 64),
        (48, 64),
        0.5,
        0.2,
        head='linear',
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'good.png').write_bytes(png(picture(0)))
    return tmp_path


def answer(model, folder, **kw):
    return predict(model, folder, device='cpu', **kw)


def whole(preds, *names):
    "Four tiles of each photograph, each with probabilities."
    assert preds.groupby('field').size().to_dict() == {n: 4 for n in names}
    assert np.allclose(preds[['p_CPT', 'p_DMSO']].sum(axis=1), 1) and preds.pred.isin(['CPT', 'DMSO']).all()


@pytest.mark.parametrize('case', used)
def test_used(case, model, folder):
    (folder / 'odd.png').write_bytes(used[case])
    p = answer(model, folder)
    whole(p, 'good.png', 'odd.png')
    assert p.attrs['problems'] == []


@pytest.mark.parametrize('case', left_out)
def test_left_out(case, model, folder):
    data, reason = left_out[case]
    (folder / 'odd.png').write_bytes(data)
    p = answer(model, folder)
    whole(p, 'good.png')
    assert (
        [o['file'] for o in p.attrs['problems']] == ['odd.png']
        and reason in p.attrs['problems'][0]['reason']
        and '\n' not in p.attrs['problems'][0]['reason']
    )


@pytest.mark.parametrize('case', stopped)
def test_stopped(case, model, folder):
    data, reason = stopped[case]
    (folder / 'odd.png').write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        answer(model, folder, out=folder / 'p.csv')
    assert sorted(o.name for o in folder.iterdir()) == ['good.png', 'odd.png']


def test_41_portrait(model, folder):
    "Beside landscape ones, and alone: seen whole, by tiles that overlap, and said."
    (folder / 'odd.png').write_bytes(png(picture(9, W, H)))
    with pytest.warns(UserWarning, match=rf'1 of 2 photographs .* overlap, .* odd.png \({W}x{H}\)'):
        p = answer(model, folder)
    whole(p[p.field == 'good.png'], 'good.png')
    seen = np.zeros((W, H), bool)
    for y, x in p.loc[p.field == 'odd.png', ['top', 'left']].to_numpy():
        seen[y : y + 48, x : x + 64] = True
    assert seen.all()


def test_28_microscopes(model, folder):
    (folder / 'odd.vsi').write_bytes(b'\1\2\3\4' * 50)
    p = answer(model, folder)
    whole(p, 'good.png')
    assert 'export it as TIFF' in p.attrs['problems'][0]['reason']


@posix
def test_50_51_links_and_pipes(model, folder):
    os.mkfifo(folder / 'pipe.png')
    os.symlink(folder / 'nowhere.png', folder / 'link.png')
    (folder / 'folder.png').mkdir()
    p = answer(model, folder)
    whole(p, 'good.png')
    assert sorted(o['file'] for o in p.attrs['problems']) == ['folder.png', 'link.png', 'pipe.png']


def test_44_46_48_names(model, folder):
    for n in ('=1+1.png', 'ü b.PNG', '.hidden.png', 'sub/good.png'):
        (folder / n).parent.mkdir(exist_ok=True)
        (folder / n).write_bytes(png(picture(len(n))))
    p = answer(model, folder, out=folder.with_name(folder.name + '.csv'))
    whole(p, 'good.png', '=1+1.png', 'ü b.PNG', 'sub/good.png')


def test_53_nothing_to_predict(model, tmp_path):
    with pytest.raises(ValueError, match='0 photographs in'):
        answer(model, tmp_path)
    with pytest.raises(FileNotFoundError):
        answer(model, tmp_path / 'nowhere')


def test_49_tiles_among_photographs(model, folder):
    (folder / 'good.png_02_01.png').write_bytes(png(A))
    with pytest.raises(ValueError, match='tiles of an older slicing'):
        answer(model, folder)
