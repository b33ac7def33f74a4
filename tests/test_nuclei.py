"What does not teach: folders and pictures in disorder. Each fault has its sentence, and the other fields are measured."

import time
import warnings

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy import ndimage as ndi

from celldeath_nb.assays.arms import compare_arms
from celldeath_nb.assays.stained import PAPER_PATTERN, read_channel, read_channels
from celldeath_nb.assays.nuclei import count_foci, guess_scale, match_nuclei, measure_nuclei, segment_nuclei
from celldeath_nb.photos.pixels import BadFile
from celldeath_nb.simulate.microscope import simulate_experiment, simulate_field, um_per_px_evos as px
from celldeath_nb.simulate.stains import simulate_stains, stain_experiment


def discs(seed=0, size=(200, 240), level=1000.0, n=14, radius=11):
    "A drawn field: label image and its picture, 16 bits."
    rng, labels = np.random.default_rng(seed), np.zeros(size, np.int32)
    y, x = np.mgrid[: size[0], : size[1]]
    for k in range(1, n + 1):
        m = np.hypot(y - rng.uniform(0, size[0]), x - rng.uniform(0, size[1])) < radius
        if not ndi.binary_dilation(m, iterations=4)[labels > 0].any():
            labels[m] = k
    light = ndi.gaussian_filter((labels > 0) * level, 1.0)
    return labels, np.clip(rng.normal(200 + light, np.sqrt(50 + light / 4)), 0, 65535).astype(np.uint16)


def field(folder, name, channels=('DAPI', 'p53'), seed=0, dtype=np.uint16, ext='.tif', **kw):
    "Write one field; its pictures."
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {c: discs(seed, level=1000 if c == 'DAPI' else 400, **kw)[1] for c in channels}
    for c, a in pictures.items():
        a = (a // 16).clip(0, 255).astype(np.uint8) if dtype == np.uint8 else a
        p = folder / f'{name}_{c}{ext}'
        tifffile.imwrite(p, a) if ext == '.tif' else Image.fromarray(a).save(p)
    return pictures


def reasons(t):
    return ' | '.join(f"{o['file']}: {o['reason']}" for o in t.attrs['problems'])


@pytest.fixture(scope='module')
def stained():
    "A simulated field of 300x400 pixels, its truth and its stains."
    _, truth = simulate_field('MCF7', 'CPT', 3, size=(300, 400), seed=31)
    return truth, *simulate_stains(truth, seed=31)


# folders


@pytest.mark.parametrize(
    'ext,dtype', [('.tif', np.uint16), ('.tif', np.uint8), ('.png', np.uint8), ('.png', np.uint16), ('.bmp', np.uint8)]
)
def test_formats_and_depths(tmp_path, ext, dtype):
    field(tmp_path, 'a', ext=ext, dtype=dtype)
    t = measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert abs(len(t) - discs()[0].max()) <= 3 and t.corrected_p53.min() > 0 and t.attrs['problems'] == []


@pytest.mark.parametrize(
    'names,kw,expect',
    [
        (
            ['U2_CPT1_6H_{}_0001_N1', 'U2_DMSO1_6H_{}_0001_N1'],
            {},
            dict(line='U2OS', treatment='CPT', hour=6.0, experiment='N1'),
        ),
        (
            ['U2_CPT1_6H_{}_0001_N1', 'U2_DMSO1_6H_{}_0001_N1'],
            dict(pattern=PAPER_PATTERN),
            dict(line='U2OS', treatment='CPT', site='0001'),
        ),
        (['CPT day2 {}', 'DMSO day2 {}'], {}, dict(treatment='CPT')),
        (['B02-1-{}', 'B03-1-{}'], {}, dict(well='B02')),
        (
            ['x-{}-drug-1', 'x-{}-none-1'],
            dict(pattern='x-{channel}-{treatment}-{site}'),
            dict(treatment='drug', site='1'),
        ),
        (
            ['drug.{}.7', 'none.{}.7'],
            dict(pattern=r'(?P<treatment>\w+)\.(?P<channel>\w+)\.(?P<well>\d)'),
            dict(treatment='drug', well='7'),
        ),
    ],
)
def test_other_habits_of_naming(tmp_path, names, kw, expect):
    for k, n in enumerate(names):
        for c, a in field(tmp_path / 'x', 'y', seed=k).items():
            tifffile.imwrite(tmp_path / (n.format(c) + '.tif'), a)
    for p in (tmp_path / 'x').iterdir():
        p.unlink()
    (tmp_path / 'x').rmdir()
    t = read_channels(tmp_path, **kw)
    assert t.attrs['channels'] == ['DAPI', 'p53'] and len(t) == 2 and t.attrs['problems'] == []
    assert {k: t[k][0] for k in expect} == expect


def test_a_channel_that_is_missing_is_told_and_the_rest_measured(tmp_path):
    field(tmp_path, 'a')
    field(tmp_path, 'b', seed=1)
    field(tmp_path, 'c', seed=2)
    (tmp_path / 'b_p53.tif').unlink()
    (tmp_path / 'c_DAPI.tif').unlink()
    t = measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert (
        set(t.field) == {'a', 'b'}
        and t[t.field == 'b'].mean_p53.isna().all()
        and t[t.field == 'b'].mean_DAPI.notna().all()
    )
    assert 'no channel p53' in reasons(t) and 'it is not known where its nuclei are' in reasons(t)


def test_channels_of_unequal_size(tmp_path):
    field(tmp_path, 'a')
    field(tmp_path, 'b')
    tifffile.imwrite(tmp_path / 'b_p53.tif', discs()[1][:150])
    t = measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert set(t.field) == {'a'} and 'unequal size (DAPI 200x240, p53 150x240)' in reasons(t)


def test_a_merge_is_refused_and_a_tint_is_read(tmp_path):
    pictures = field(tmp_path, 'a', dtype=np.uint8)
    field(tmp_path, 'b', dtype=np.uint8)
    d, p = ((o // 16).clip(0, 255).astype(np.uint8) for o in pictures.values())
    other = (discs(9, level=900)[1] // 16).clip(0, 255).astype(np.uint8)
    Image.fromarray(np.stack([other, p, d], -1)).save(tmp_path / 'a_p53.png')
    (tmp_path / 'a_p53.tif').unlink()
    Image.fromarray(np.stack([p // 2, p, 0 * p], -1)).save(tmp_path / 'b_p53.png')
    (tmp_path / 'b_p53.tif').unlink()
    assert (read_channel(tmp_path / 'b_p53.png') == p).all()
    with pytest.raises(BadFile, match='a merge of several stains'):
        read_channel(tmp_path / 'a_p53.png')
    t = measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert set(t.field) == {'b'} and 'merge' in reasons(t)


def test_a_folder_of_merges_alone_says_what_to_do(tmp_path):
    for k in range(2):
        Image.fromarray(np.stack([discs(k + 3 * j)[1] // 16 for j in range(3)], -1).clip(0, 255).astype(np.uint8)).save(
            tmp_path / f'merge {k}.png'
        )
    with pytest.raises(ValueError, match='single="DAPI"'):
        read_channels(tmp_path)
    with pytest.raises(ValueError, match='export each channel'):
        measure_nuclei(read_channels(tmp_path, single='DAPI', um_per_px=0.5))


def test_torn_and_foreign_files_are_listed(tmp_path):
    field(tmp_path, 'a')
    field(tmp_path, 'b')
    (tmp_path / 'b_p53.tif').write_bytes((tmp_path / 'b_p53.tif').read_bytes()[:3000])
    (tmp_path / 'c_DAPI.png').write_bytes(b'')
    (tmp_path / 'notes_DAPI.tif').write_text('<html>')
    (tmp_path / 'readme.txt').write_text('not a picture')
    t = measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert set(t.field) == {'a', 'b'} and len([o for o in t.attrs['problems'] if 'channel' not in o['reason']]) == 3


@pytest.mark.parametrize(
    'make,words',
    [
        (lambda f: None, 'holds no photographs'),
        (lambda f: Image.fromarray(discs()[1]).save(f / 'one.png'), 'could be given to a channel'),
        (lambda f: [tifffile.imwrite(f / o, discs()[1]) for o in ('a_DAPI.tif', 'a_dapi.tiff')], 'are both channel'),
        (lambda f: (f / 'a_DAPI.tif').write_bytes(b'II*\0'), 'could be given to a channel'),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(ValueError, match=words):
        read_channels(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_channels(tmp_path / 'nowhere')


def test_nothing_is_written_into_the_folder(tmp_path):
    field(tmp_path, 'a')
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.iterdir())
    measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.iterdir())


def test_pages_of_one_file(tmp_path):
    a = list(field(tmp_path / 'x', 'y').values())
    (tmp_path / 'stacks').mkdir()
    tifffile.imwrite(tmp_path / 'stacks' / 's.tif', np.stack(a), photometric='minisblack')
    t = measure_nuclei(read_channels(tmp_path / 'stacks', pages={'DAPI': 0, 'p53': 1}, um_per_px=0.5))
    assert t.corrected_DAPI.mean() > 2 * t.corrected_p53.mean() > 0


# scale


def test_an_unknown_scale_is_asked_for_and_never_guessed(tmp_path):
    field(tmp_path, 'a')
    images = read_channels(tmp_path)
    with pytest.raises(ValueError, match='do not tell their scale'):
        measure_nuclei(images)
    for bad in (None, float('nan'), 0, -1, 500):
        with pytest.raises(ValueError, match='is no scale'):
            segment_nuclei(discs()[1], bad)
    assert len(measure_nuclei(images, um_per_px=0.5)) > 5
    guess = guess_scale(discs()[1], nucleus_um=11)
    assert 0.35 < guess < 0.7
    with pytest.raises(ValueError, match='nothing above the background'):
        guess_scale(np.zeros((50, 50), np.uint8))


def test_a_printers_resolution_is_no_scale(tmp_path):
    tifffile.imwrite(tmp_path / 'a_DAPI.tif', discs()[1], resolution=(72, 72), resolutionunit='INCH')
    assert read_channels(tmp_path).um_per_px.isna().all()


def test_a_wrong_scale_is_suspected():
    with pytest.warns(UserWarning, match='or a wrong scale'):
        assert segment_nuclei(discs()[1], 4.0).max() < 4


# pictures


@pytest.mark.parametrize(
    'empty',
    [
        np.zeros((90, 90), np.uint8),
        np.full((90, 90), 7, np.uint16),
        np.random.default_rng(0).poisson(4, (90, 90)).astype(np.uint8),
        np.random.default_rng(1).normal(300, 30, (300, 300)).astype(np.uint16),
        np.zeros((1, 1), np.uint8),
    ],
)
@pytest.mark.parametrize('method', ['otsu', 'local'])
def test_an_empty_field_has_no_nuclei(empty, method):
    assert segment_nuclei(empty, 0.5, method=method).max() == 0
    with pytest.raises(ValueError, match='no nuclei to measure'):
        measure_nuclei(dict(DAPI=empty), um_per_px=0.5)


def test_an_empty_field_among_others_is_listed(tmp_path):
    field(tmp_path, 'a')
    field(tmp_path, 'b')
    tifffile.imwrite(tmp_path / 'b_DAPI.tif', np.random.default_rng(0).normal(200, 9, (200, 240)).astype(np.uint16))
    t = measure_nuclei(read_channels(tmp_path, um_per_px=0.5))
    assert set(t.field) == {'a'} and 'there are no nuclei to measure' in reasons(t)
    for p in tmp_path.glob('a*'):
        p.unlink()
    with pytest.raises(ValueError, match='No field could be measured'):
        measure_nuclei(read_channels(tmp_path, um_per_px=0.5))


def test_saturated_light_is_told_in_8_and_in_12_bits(stained):
    _, images, _ = stained
    eight = {k: (v // 8).clip(0, 255).astype(np.uint8) for k, v in images.items()}
    with pytest.warns(UserWarning, match='DAPI: .* light is cut off'):
        t = measure_nuclei(eight, um_per_px=px)
    assert t.saturated_DAPI.mean() > 0.01
    twelve = {k: v.clip(0, 4095) for k, v in images.items()}
    with warnings.catch_warnings(record=True):
        t = measure_nuclei(dict(DAPI=images['DAPI'], p53=(images['p53'] * 6).clip(0, 4095)), um_per_px=px)
    assert t.saturated_p53.max() > 0.5 and t.saturated_DAPI.max() == 0 and twelve['DAPI'].max() <= 4095


@pytest.mark.parametrize(
    'bad,words',
    [
        (np.zeros((20, 20, 3), np.uint8), 'several stains are merged'),
        (np.zeros((2, 20, 20)), 'one channel'),
        (np.array([['a']]), 'one channel'),
        (np.full((20, 20), np.nan), 'no numbers'),
        (np.zeros((0, 5)), 'one channel'),
    ],
)
def test_what_is_no_picture(bad, words):
    with pytest.raises(ValueError, match=words):
        segment_nuclei(bad, 0.5)
    with pytest.raises(ValueError, match=words):
        measure_nuclei(dict(DAPI=bad), um_per_px=0.5)


def test_brighter_light_and_another_offset_change_nothing(stained):
    _, images, _ = stained
    a = images['DAPI']
    assert match_nuclei(segment_nuclei(a, px), segment_nuclei(a * 3 + 500, px)).attrs['f1'] > 0.99
    assert (
        match_nuclei(segment_nuclei(a, px), segment_nuclei((a / a.max() * 255).astype(np.uint8), px)).attrs['f1'] > 0.9
    )
    assert match_nuclei(segment_nuclei(a, px), segment_nuclei(a.astype('>u2'), px)).attrs['f1'] == 1
    assert match_nuclei(segment_nuclei(a, px)[::-1], segment_nuclei(a[::-1].copy(), px)).attrs['f1'] > 0.95


def test_uneven_light(stained):
    truth, images, _ = stained
    lamp = np.linspace(0.25, 1, 400)[None]
    for method in ('otsu', 'local'):
        assert match_nuclei(truth.nuclei, segment_nuclei(images['DAPI'] * lamp, px, method=method)).attrs['f1'] > 0.9


def test_other_peoples_methods(stained):
    _, images, _ = stained
    mine = segment_nuclei(images['DAPI'], px)
    for answer in (mine, (mine, {}, None), [mine], mine.astype(np.uint16) * 7, mine > 0):
        got = segment_nuclei(images['DAPI'], px, method=lambda o: answer)
        assert ((got > 0) == (mine > 0)).all() and got.max() == len(
            np.unique(np.asarray(answer[0] if isinstance(answer, (tuple, list)) else answer))
        ) - 1
    for answer in (mine[:9], mine.astype(float), mine - 5):
        with pytest.raises(ValueError, match='must answer with a label image'):
            segment_nuclei(images['DAPI'], px, method=lambda o: answer)
    with pytest.raises(ValueError, match="'local' or a function"):
        segment_nuclei(images['DAPI'], px, method='cellpose')
    t = measure_nuclei(images, um_per_px=px, segment=dict(method=lambda o: mine))
    pd.testing.assert_frame_equal(t, measure_nuclei(images, um_per_px=px, labels=mine))


def test_all_columns_are_there(stained):
    t = measure_nuclei(stained[1], um_per_px=px, foci=['gH2AX'])
    assert set('field nucleus y_um x_um area_um2 solidity edge'.split()) <= set(t)
    for c in ('DAPI', 'gH2AX', 'p53'):
        assert {f'{k}_{c}' for k in 'background mean corrected total cv saturated ring ratio'.split()} <= set(t)
    assert 'foci_gH2AX' in t and 'foci_p53' not in t and t.nucleus.is_unique
    assert not any(c.startswith('ratio') for c in measure_nuclei(stained[1], um_per_px=px, ring_um=None))
    assert measure_nuclei(stained[1], 'p53', um_per_px=px).attrs['channels'] == ['DAPI', 'p53']


def test_dapi_alone(tmp_path):
    tifffile.imwrite(tmp_path / 'whatever 1.tif', discs()[1])
    tifffile.imwrite(tmp_path / 'whatever 2.tif', discs(1)[1])
    t = measure_nuclei(read_channels(tmp_path, single='nuclear stain', um_per_px=0.5))
    assert t.field.nunique() == 2 and t['corrected_nuclear stain'].min() > 0


def test_p53_lies_in_the_nucleus_and_more_so_after_the_drug():
    ratio = {}
    for treatment in ('DMSO', 'CPT'):
        _, truth = simulate_field('MCF7', treatment, 3, size=(300, 400), seed=8)
        t = measure_nuclei(simulate_stains(truth, seed=8)[0], um_per_px=px)
        ratio[treatment] = t.ratio_p53.median()
    assert 1 < ratio['DMSO'] < ratio['CPT']


def test_light_that_is_everywhere_has_a_ratio_of_one(stained):
    _, images, _ = stained
    labels = segment_nuclei(images['DAPI'], px)
    flat = np.random.default_rng(0).normal(1000, 5, labels.shape)
    flat[:, :40] = 100  # a corner that is background
    t = measure_nuclei(dict(DAPI=images['DAPI'], other=flat), um_per_px=px, labels=labels)
    inside = t[t.x_um > 90 * px]
    assert (
        abs(inside.ratio_other.median() - 1) < 0.02 or inside.ring_other.abs().max() < 30
    )  # where no background is near, all of it is background


def test_foci_of_a_drawn_nucleus():
    labels = (np.hypot(*(np.mgrid[:80, :80] - 40)) < 30).astype(np.int32)
    a = np.where(labels, 400.0, 100.0)
    for y, x in ((25, 40), (40, 25), (40, 55), (55, 40)):
        a[y, x] += 3000
    a = ndi.gaussian_filter(a, 1.2) + np.random.default_rng(0).normal(0, 5, a.shape)
    assert count_foci(a, labels, 0.2).tolist() == [4] and count_foci(a, labels * 0, 0.2).tolist() == []


# truth


@pytest.mark.parametrize(
    'line,hour,dose,least',
    [('U2OS', 3, 10, 0.95), ('MCF7', 6, 10, 0.95), ('iPS1', 1.5, 1, 0.93), ('H9', 1.5, 1, 0.93), ('H9', 3, 1, 0.95)],
)
def test_nuclei_are_found(line, hour, dose, least):
    _, truth = simulate_field(line, 'CPT', hour, dose, size=(480, 640), seed=4242)
    images, _ = simulate_stains(truth, (), seed=4242)
    assert match_nuclei(truth.nuclei, segment_nuclei(images['DAPI'], px)).attrs['f1'] >= least


def test_a_large_field_takes_seconds():
    a = np.tile(discs(size=(240, 256), n=30)[1], (4, 5))
    b = dict(DAPI=a, gH2AX=a, p53=a)
    start = time.process_time()
    t = measure_nuclei(b, um_per_px=px)
    assert a.shape == (960, 1280) and len(t) > 200 and time.process_time() - start < 5


def test_stained_folder_is_the_same_for_the_same_seed_and_safe_from_bad_input(tmp_path):
    phase = simulate_experiment(
        tmp_path / 'phase', ('U2OS',), experiments=1, wells=1, sites=1, size=(110, 130), workers=1
    )
    a, b = (stain_experiment(phase, tmp_path / o, seed=5) for o in 'ab')
    names = sorted(p.relative_to(a) for p in a.rglob('*') if p.is_file())
    assert len(names) == 2 * 3 + 2 + 1 and all((a / n).read_bytes() == (b / n).read_bytes() for n in names)
    with pytest.raises(FileExistsError):
        stain_experiment(phase, a)
    for kw, words in (
        (dict(marks=('H2AX',)), 'not known'),
        (dict(camera=dict(noise=-1)), 'at least 0'),
        (dict(day_sd=-1), 'at least 0'),
        (dict(marks={'p53': dict(glow=1)}), 'not known'),
    ):
        with pytest.raises(ValueError, match=words):
            stain_experiment(phase, tmp_path / 'c', **kw)
    assert not (tmp_path / 'c').exists() and not list(tmp_path.glob('.*'))
    with pytest.raises(ValueError, match='no label image'):
        simulate_stains({})
    with pytest.raises(ValueError, match='shift of mark'):
        simulate_stains(simulate_field(size=(110, 130))[1], shift=dict(p35=1))


def test_from_nuclei_to_arms_negative_values_one_replicate_one_arm():
    rng = np.random.default_rng(0)
    t = pd.DataFrame(
        dict(
            experiment=np.repeat(['N1', 'N2'], 20), treatment=['DMSO', 'CPT'] * 20, corrected_p53=rng.normal(50, 40, 40)
        )
    )
    with pytest.raises(ValueError, match=f'{(t.corrected_p53 <= 0).sum()} of 40 values .* have no logarithm'):
        compare_arms(t, 'corrected_p53')
    assert 'refused' in compare_arms(t[t.experiment == 'N1'], 'corrected_p53', log=False).note[1]
    with pytest.raises(ValueError, match='only one arm'):
        compare_arms(t[t.treatment == 'CPT'], 'corrected_p53', log=False)
