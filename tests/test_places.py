"Near-duplicates: what is planted is found, what merely looks alike is not, and weak links make no chains."

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from celldeath_nb.simulate.microscope import simulate_experiment
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles import places
from celldeath_nb.tiles.cut import add_photographs, cut_tiles
from celldeath_nb.tiles.places import find_near_duplicates, group_by_place, seen_together
from celldeath_nb.tiles.store import open_tiles
from test_audit import Memory


def tiles(px, **columns):
    names = [f't{i}' for i in range(len(px))]
    return Memory(np.stack(px), pd.DataFrame(dict(tile=names, field=names) | columns))


def clip(x):
    return np.clip(np.rint(x), 0, 255).astype('uint8')


def lone_cells(n=150, size=96, seed=0):
    "Crops of single round cells, each another one, of 18 to 90 pixels on a gray ground: alike from afar."
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        s = int(rng.integers(18, 90))
        y, x = np.mgrid[:s, :s] / s - 0.5
        a = rng.uniform(0, np.pi)
        r2 = ((x * np.cos(a) + y * np.sin(a)) ** 2 + (y * np.cos(a) - x * np.sin(a)) ** 2 * rng.uniform(0.6, 1.6)) * 9
        grain = gaussian_filter(rng.normal(size=(s, s)), max(1, s / 12))
        cell = 110 + 60 * np.exp(-r2) * (1 + 0.5 * grain / grain.std()) + rng.normal(0, 3, (s, s))
        p = np.full((size, size), 110.0)
        t = (size - s) // 2
        p[t : t + s, t : t + s] = cell
        out.append(clip(p))
    return out


def nearly_empty(n=120, dust=8.0, size=(240, 320), seed=0):
    "Tiles with up to two specks, the camera's noise, and the shading and dust that all photographs of a day share."
    rng = np.random.default_rng(seed)
    h, w = size
    shade = gaussian_filter(rng.normal(size=size), 60)
    spots = np.zeros(size)
    spots[rng.integers(10, h - 10, 12), rng.integers(10, w - 10, 12)] = 1
    spots = gaussian_filter(spots, 3)
    same = 120 + 6 * shade / shade.std() - dust * spots / spots.max()
    out = []
    for _ in range(n):
        p = np.zeros(size)
        for _ in range(rng.integers(0, 3)):
            p[rng.integers(5, h - 5), rng.integers(5, w - 5)] = 1
        p = gaussian_filter(p, 4)
        out.append(clip(same + 25 * p / max(p.max(), 1e-9) + rng.normal(0, 2, size)))
    return out


looks_alike = dict(
    lone=lone_cells,
    dusty=nearly_empty,
    clean=lambda: nearly_empty(dust=0.0),
    black=lambda: [np.zeros((96, 128), 'uint8')] * 30,
)


@pytest.mark.parametrize('what', looks_alike)
def test_what_only_looks_alike_is_no_place(what):
    t = tiles(looks_alike[what]())
    pairs = find_near_duplicates(t)
    assert not len(pairs), pairs.head()


def test_copies_of_lone_cells_and_empty_tiles_are_found_all_the_same():
    "The evidence that is asked for is there in a true copy, however little a tile shows."
    rng = np.random.default_rng(3)
    for px in (lone_cells(60), nearly_empty(60)):
        changed = [px[0].copy(), clip(px[1] * 0.8 + 20.0), px[2][:, ::-1], clip(px[3] + rng.normal(0, 1, px[3].shape))]
        pairs = find_near_duplicates(tiles(px + changed))
        n = len(px)
        assert set(zip(pairs.tile_a, pairs.tile_b)) == {(f't{i}', f't{n + i}') for i in range(4)}


def jpeg(px, q):
    f = io.BytesIO()
    Image.fromarray(px).save(f, 'JPEG', quality=q)
    return np.asarray(Image.open(f))


size = (180, 240)


def at(photo, dy=0, dx=0):
    return photo[45 + dy : 45 + dy + size[0], 60 + dx : 60 + dx + size[1]]


kinds = {
    'exact copy': lambda p, r: at(p),
    'shifted by up to 8 pixels': lambda p, r: at(p, *r.integers(-8, 9, 2)),
    'shifted by 24 pixels': lambda p, r: at(p, 24, -24),
    'shifted by 40 pixels': lambda p, r: at(p, -40, 40),
    'mirrored left-right': lambda p, r: at(p)[:, ::-1],
    'mirrored up-down': lambda p, r: at(p)[::-1],
    'turned by 180': lambda p, r: at(p)[::-1, ::-1],
    'brighter': lambda p, r: clip(at(p).astype(float) + 40),
    'less contrast': lambda p, r: clip((at(p).astype(float) - 120) * 0.5 + 120),
    'gamma 0.6': lambda p, r: clip(255 * (at(p) / 255.0) ** 0.6),
    'uneven light': lambda p, r: clip(at(p) * np.linspace(0.7, 1.2, size[1])),
    'JPEG quality 75': lambda p, r: jpeg(at(p), 75),
    'JPEG quality 20': lambda p, r: jpeg(at(p), 20),
    'next frame: shift, noise, light': lambda p, r: clip(at(p, *r.integers(-12, 13, 2)) * 1.1 + r.normal(0, 6, size)),
    'mirrored, shifted, brighter, JPEG 60': lambda p, r: jpeg(clip(at(p, 5, -7)[:, ::-1].astype(float) + 20), 60),
}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Thirty simulated photographs."
    d = simulate_experiment(
        tmp_path_factory.mktemp('planted') / 'p',
        lines=('U2OS', 'MCF7'),
        hours=(1,),
        wells=2,
        sites=2,
        size=(270, 360),
        seed=7,
    )
    found = sorted(o for o in d.rglob('*.png') if 'truth' not in o.parts)
    return [np.asarray(Image.open(o)) for o in found][:30]


@pytest.mark.long
def test_planted_copies_of_fifteen_kinds_are_found(photos):
    rng = np.random.default_rng(0)
    kind = [list(kinds)[i % len(kinds)] for i in range(len(photos))]
    px = [at(p) for p in photos] + [np.ascontiguousarray(kinds[k](p, rng)) for k, p in zip(kind, photos)]
    pairs = find_near_duplicates(tiles(px))
    n = len(photos)
    true = {(f't{i}', f't{n + i}'): k for i, k in enumerate(kind)}
    found = set(zip(pairs.tile_a, pairs.tile_b))
    assert not found - set(true), 'no other pair'
    lost = [k for pair, k in true.items() if pair not in found]
    assert len(set(kind)) == 15 and len(lost) <= 1, lost


def test_a_scan_is_one_place_and_weak_links_are_no_chain():
    "Neighbors that overlap strongly hang together, however many; what is joined weakly does not grow."
    rng = np.random.default_rng(1)
    wide = clip(120 + 30 * gaussian_filter(rng.normal(size=(96, 128 * 4)), 2) * 7)
    scan = [wide[:, 25 * i : 25 * i + 128] for i in range(12)]
    others = [clip(120 + 30 * gaussian_filter(rng.normal(size=(96, 128)), 2) * 7) for _ in range(20)]
    t = tiles(scan + others)
    placed, pairs = group_by_place(t)
    assert placed.table.place[:12].nunique() == 1 and placed.table.place.nunique() == 21
    assert pairs.score.min() > 0.8


def test_weak_links_join_two_and_stop():
    "A, B, C ... where each resembles only its neighbors, and weakly: pairs are kept, the chain is not."
    rng = np.random.default_rng(2)
    own = [40 * gaussian_filter(rng.normal(size=(96, 128)), 2) * 7 for _ in range(40)]
    chain = [clip(120 + sum(own[i : i + 4]) / 2) for i in range(12)]
    t = tiles(chain + [clip(120 + o) for o in own[20:]])
    pairs = find_near_duplicates(t, fingerprint=0.02, most=8)
    assert len(pairs) >= 4 and pairs.score.max() < 0.8
    assert seen_together(t, pairs).value_counts().max() == 2


def a_store(folder, n=8):
    "Photographs of noise with structure in a store; the second shows the first again."
    rng = np.random.default_rng(4)
    px = [clip(120 + 60 * gaussian_filter(rng.normal(size=(96, 128)), 3) * 8) for _ in range(n)]
    px[1] = clip(px[0] * 0.9 + rng.normal(0, 9, px[0].shape))
    folder.mkdir()
    for i, p in enumerate(px):
        Image.fromarray(p).save(folder / f'{"CPT" if i % 2 else "DMSO"}_{i}.png')
    return cut_tiles(read_fields(folder), folder.with_name('tiles'), grid=(1, 1))


def test_pairs_that_were_found_are_kept_with_saved_columns(tmp_path, monkeypatch):
    t = a_store(tmp_path / 'photos')
    placed, pairs = group_by_place(t)
    assert len(pairs) == 1 and placed.add(split='train', save=True).pairs is pairs
    again = open_tiles(t.path)
    pd.testing.assert_frame_equal(again.pairs, pairs, check_dtype=False)
    monkeypatch.setattr(places, 'find_near_duplicates', lambda *a, **k: pytest.fail('looked for again'))
    pd.testing.assert_frame_equal(places.pairs_of(again), pairs, check_dtype=False)
    assert len(places.pairs_of(again.subset([0, 1, 2]))) == 0
    again.add(split='test', save=True)
    assert len(open_tiles(t.path).pairs) == 1


def test_pairs_are_looked_for_again_where_fewer_were_asked_or_tiles_came(tmp_path):
    t = a_store(tmp_path / 'photos')
    t.pairs = find_near_duplicates(t, least=0.999)
    assert len(t.pairs) == 0 and len(places.pairs_of(t)) == 1
    group_by_place(t)[0].add(split='train', save=True)
    (tmp_path / 'more').mkdir()
    Image.fromarray(t.field('DMSO_0.png')[::-1]).save(tmp_path / 'more/CPT_x.png')
    more = add_photographs(t.path, read_fields(tmp_path / 'more'))
    assert more.pairs is None and open_tiles(t.path).pairs is None and len(places.pairs_of(more)) > 1
