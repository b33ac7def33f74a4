"What the audit must catch, must let pass, and must refuse."
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from celldeath_nb.audit import audit, background_only, confounding, cramers_v, find_near_duplicates, negative_controls, normalize_fields, seen_together, shortcut_baseline
from celldeath_nb.splits import check_leaks

real = Path(__file__).resolve().parents[2]/'shared'/'data'
needs_real = pytest.mark.skipif(not real.is_dir(), reason=f'the real photographs are not at {real}')


class Memory:
    def __init__(self, px, table): self.px, self.table, self.tile_px = px, table, px.shape[1:]
    def __len__(self): return len(self.px)
    def batch(self, idxs): return self.px[idxs]
    def subset(self, which): return Memory(self.px[which], self.table[which].reset_index(drop=True))
    def add(self, **cols): return Memory(self.px, self.table.assign(**cols))


def tiles(light=0, n=64, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(n) % 2
    px = np.clip(rng.normal(110, 8, (n, 48, 64)) + light*t[:, None, None], 0, 255).astype('uint8')
    tbl = pd.DataFrame(dict(field=[f'{i}.png' for i in range(n)], tile=[f'{i}.png#0,0' for i in range(n)], label=np.where(t, 'CPT', 'DMSO'), experiment=[f'N{1+i//2%4}' for i in range(n)]))
    return Memory(px, tbl.assign(treatment=tbl.label))


@pytest.fixture(scope='module')
def u2os(tmp_path_factory):
    from celldeath_nb.fields import read_fields
    from celldeath_nb.tiles import cut_tiles
    return cut_tiles(read_fields(real/'u2os'), tmp_path_factory.mktemp('u')/'tiles')


@needs_real
def test_real_photographs_fail_with_the_sentence(u2os, tmp_path):
    a = audit(u2os, tmp_path/'a')
    assert a.verdict == 'failed' and a.confounding[0]['factor'] == 'experiment'
    assert 'Treatment and experiment nearly coincide' in a.sentences[0] and 'not to be believed' in a.sentences[0]
    assert a.shortcuts.set_index('sees').share['brightness'] > .8
    page = (tmp_path/'a'/'audit.html').read_text()
    assert 'nearly coincide' in page and '<script' not in page


@needs_real
def test_overlapping_neighbors_among_the_real_photographs(u2os):
    pairs = find_near_duplicates(u2os)
    found = set(zip(pairs.tile_a, pairs.tile_b))
    assert ('U2_CPT2_1H_RGB_0045_N3.png#1,0', 'U2_CPT2_1H_RGB_0046_N3.png#1,1') in found # seen by eye: the same cells, 150 pixels apart
    assert seen_together(u2os, pairs).nunique() < 45


def test_light_is_caught_and_none_passes():
    assert audit(tiles(25)).verdict == 'failed' and audit(tiles()).verdict == 'passed'


@pytest.mark.parametrize('counts,v', [([[9, 0], [0, 9]], 1), ([[9, 9], [9, 9]], 0), ([[30, 0], [0, 30], [0, 0]], 1)])
def test_cramers_v(counts, v): assert cramers_v(counts) == pytest.approx(v, abs=1e-6)


def test_hostile_names_stay_text():
    t = tiles().table.assign(experiment='<script>alert(1)</script>')
    t.loc[::2, 'experiment'] = 'N1'
    assert '<script>' not in confounding(t)._repr_html_()


def test_refused():
    t = tiles()
    with pytest.raises(ValueError, match='one class only'): confounding(t.table.assign(label='CPT'))
    with pytest.raises(ValueError, match='no column'): confounding(t.table.drop(columns='label'))
    with pytest.raises(ValueError, match='one mask a tile'): shortcut_baseline(t, masks=np.zeros((64, 8, 8), bool))
    with pytest.raises(ValueError, match='no remedy'): normalize_fields(t, 'x')
    with pytest.raises(ValueError, match='1 group only'): shortcut_baseline(Memory(t.px[:5], t.table[:5].assign(label=['CPT']+['DMSO']*4)))


def test_what_cannot_be_asked_is_said():
    got = negative_controls(tiles(), train=lambda *a: None, names=['before the drug', 'vehicle wells'])
    assert got.verdict.tolist() == ['not possible']*2 and 'Photograph' in got.sentence[0]


def test_seen_through_changes_what_is_read_and_nothing_else():
    t = tiles()
    seen = background_only(t)
    assert (seen.batch([0]) != t.batch([0])).any() and seen.subset(np.arange(64) < 5).batch([0, 1]).shape == (2, 48, 64)
    assert len(seen.add(split='train')) == 64 and 'split' not in t.table


def test_a_copy_across_the_split_is_a_leak():
    t = tiles()
    t.px[1] = t.px[0]
    t = t.add(split=['train', 'valid']*32)
    pairs = find_near_duplicates(t)
    assert pairs.kind[0] == 'exact copy' and pairs.crosses[0]
    with pytest.raises(ValueError, match='show the same'): check_leaks(t, pairs=pairs)
