"What the audit must catch, must let pass, and must refuse."

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from celldeath_nb.tiles.remedies import as_recorded, background_only, normalize_fields, remedies_of
from celldeath_nb.trust.audits import audit
from celldeath_nb.trust.confounders import confounding, cramers_v
from celldeath_nb.tiles.places import find_near_duplicates, group_by_place
from celldeath_nb.photos.quality import leave_out, quality_outliers
from celldeath_nb.trust.controls import negative_controls, train_cheap
from celldeath_nb.trust.shortcuts import shortcut_baseline
from celldeath_nb.tiles.splits import check_leaks, split_by

real = Path(__file__).resolve().parents[2] / 'shared' / 'data'
slow = pytest.mark.skipif(
    not os.environ.get('CELLDEATH_SLOW'), reason='slow: trains twelve networks; set CELLDEATH_SLOW=1'
)
needs_real = pytest.mark.skipif(not real.is_dir(), reason=f'the real photographs are not at {real}')


class Memory:
    def __init__(self, px, table):
        self.px = px
        self.table = table
        self.tile_px = px.shape[1:]

    def __len__(self):
        return len(self.px)

    def batch(self, idxs):
        return self.px[idxs]

    def subset(self, which):
        return Memory(self.px[which], self.table[which].reset_index(drop=True))

    def add(self, **cols):
        return Memory(self.px, self.table.assign(**cols))


def tiles(light=0, n=64, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n) % 2
    px = np.clip(rng.normal(110, 8, (n, 48, 64)) + light * t[:, None, None], 0, 255).astype('uint8')
    tbl = pd.DataFrame(
        dict(
            field=[f'{i}.png' for i in range(n)],
            tile=[f'{i}.png#0,0' for i in range(n)],
            label=np.where(t, 'CPT', 'DMSO'),
            experiment=[f'N{1 + i // 2 % 4}' for i in range(n)],
        )
    )
    return Memory(px, tbl.assign(treatment=tbl.label))


@pytest.fixture(scope='module')
def u2os(tmp_path_factory):
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles

    return cut_tiles(read_fields(real / 'u2os'), tmp_path_factory.mktemp('u') / 'tiles')


@needs_real
def test_real_photographs_fail_with_the_sentence(u2os, tmp_path):
    a = audit(u2os, tmp_path / 'a')
    assert a.verdict == 'failed' and a.confounding[0]['factor'] == 'experiment'
    assert 'Treatment and experiment nearly coincide' in a.sentences[0] and 'not to be believed' in a.sentences[0]
    assert a.shortcuts.set_index('sees').share['brightness'] > 0.8
    ctrl = a.controls.set_index('control').verdict
    assert (
        ctrl['background only'] == 'above chance'
        and ctrl['labels shuffled'] != 'above chance'
        and ctrl['before the drug'] == 'not possible'
    )
    page = (tmp_path / 'a' / 'audit.html').read_text()
    assert 'nearly coincide' in page and '<script' not in page


@needs_real
def test_overlapping_neighbors_among_the_real_photographs(u2os):
    pairs = find_near_duplicates(u2os)
    found = set(zip(pairs.tile_a, pairs.tile_b))
    assert (
        'U2_CPT2_1H_RGB_0045_N3.png#1,0',
        'U2_CPT2_1H_RGB_0046_N3.png#1,1',
    ) in found  # seen by eye: the same cells, 150 pixels apart
    t, _ = group_by_place(u2os, pairs)
    assert t.table.place.nunique() < 45
    with pytest.raises(ValueError, match='show the same'):
        check_leaks(split_by(u2os, valid=0.3), pairs=pairs)
    check_leaks(split_by(t, valid=0.3, group='place'), 'place', pairs)


def test_light_is_caught_and_none_passes():
    assert audit(tiles(25)).verdict == 'failed' and audit(tiles()).verdict == 'passed'


@pytest.mark.parametrize('counts,v', [([[9, 0], [0, 9]], 1), ([[9, 9], [9, 9]], 0), ([[30, 0], [0, 30], [0, 0]], 1)])
def test_cramers_v(counts, v):
    assert cramers_v(counts) == pytest.approx(v, abs=1e-6)


def test_hostile_names_stay_text():
    t = tiles().table.assign(experiment='<script>alert(1)</script>')
    t.loc[::2, 'experiment'] = 'N1'
    assert '<script>' not in confounding(t)._repr_html_()


def test_refused():
    t = tiles()
    with pytest.raises(ValueError, match='one class only'):
        confounding(t.table.assign(label='CPT'))
    with pytest.raises(ValueError, match='no column'):
        confounding(t.table.drop(columns='label'))
    with pytest.raises(ValueError, match='one mask a tile'):
        shortcut_baseline(t, masks=np.zeros((64, 8, 8), bool))
    with pytest.raises(ValueError, match='no remedy'):
        normalize_fields(t, 'x')
    with pytest.raises(ValueError, match='1 group only'):
        shortcut_baseline(Memory(t.px[:5], t.table[:5].assign(label=['CPT'] + ['DMSO'] * 4)))


def test_what_cannot_be_asked_is_said():
    got = negative_controls(tiles(), train=lambda *a: None, names=['before the drug', 'vehicle wells'])
    assert got.verdict.tolist() == ['not possible'] * 2 and 'Photograph' in got.sentence[0]


def test_seen_through_changes_what_is_read_and_nothing_else():
    t = tiles()
    seen = background_only(t)
    assert (seen.batch([0]) != t.batch([0])).any() and seen.subset(np.arange(64) < 5).batch([0, 1]).shape == (2, 48, 64)
    assert len(seen.add(split='train')) == 64 and 'split' not in t.table


def test_a_copy_across_the_split_is_a_leak():
    t = tiles()
    t.px[1] = t.px[0]
    t = t.add(split=['train', 'valid'] * 32)
    pairs = find_near_duplicates(t)
    assert pairs.kind[0] == 'exact copy' and pairs.crosses[0]
    with pytest.raises(ValueError, match='show the same'):
        check_leaks(t, pairs=pairs)


@pytest.fixture(scope='module')
def cells(tmp_path_factory):
    "Simulated photographs with their truth, of a balanced design at 0 and 1 h."
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.simulate.microscope import simulate_experiment
    from celldeath_nb.tiles.cut import cut_tiles

    d = tmp_path_factory.mktemp('cells')
    return cut_tiles(
        read_fields(simulate_experiment(d / 'p', lines=('U2OS',), hours=(0, 1), sites=1, size=(192, 256), seed=5)),
        d / 't',
        grid=(2, 2),
    )


@pytest.mark.parametrize('source', ['truth', 'segment'])
def test_background_under_masks(cells, source):
    from celldeath_nb.trust.masks import tile_masks

    masks = tile_masks(cells, source)
    row = shortcut_baseline(cells, masks=masks).set_index('sees').loc['background']
    assert row.share < 0.75 and row.verdict != 'above chance'
    lit = Memory(
        np.clip(cells[:].astype(int) + 60 * (cells.table.label == 'CPT').to_numpy()[:, None, None], 0, 255).astype(
            'uint8'
        ),
        cells.table,
    )
    assert shortcut_baseline(lit, masks=masks).set_index('sees').share['background'] > 0.8
    masks[:3] = True  # tiles without any background tell nothing, and break nothing
    assert np.isfinite(shortcut_baseline(cells, masks=masks).share).all()


def test_controls_that_the_data_allow_are_not_above_chance(cells):
    got = negative_controls(cells, train=train_cheap, folds=4).set_index('control')
    assert 'above chance' not in set(got.verdict) and list(got.index) == [
        'labels shuffled',
        'before the drug',
        'vehicle wells',
        'background only',
    ]
    assert got.tiles['before the drug'] == (cells.table.hour == 0).sum()


def test_a_light_that_follows_the_number_of_the_well_is_caught_by_the_vehicle_wells(cells):
    lit = Memory(
        np.clip(
            cells[:].astype(int) + 40 * (cells.table.well.astype(str) == '1').to_numpy()[:, None, None], 0, 255
        ).astype('uint8'),
        cells.table,
    )
    got = (
        negative_controls(lit, train=train_cheap, folds=4, names=['vehicle wells', 'labels shuffled'])
        .set_index('control')
        .verdict
    )
    assert got['vehicle wells'] == 'above chance' != got['labels shuffled']


@slow
def test_controls_with_a_trained_network(cells, tmp_path):
    from celldeath_nb.learn.recipes import Recipe

    quick = Recipe.quick(size=48, min_steps=120)
    assert 'above chance' not in set(negative_controls(cells, quick).verdict)
    lit = brighter(cells, tmp_path, 40 * (cells.table.label == 'CPT').to_numpy())
    got = negative_controls(lit, quick, names=['background only', 'before the drug']).verdict
    assert set(got) == {'above chance'}


def brighter(tiles, d, more):
    "The photographs made brighter and cut anew, so that a network can be trained on them."
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles
    from PIL import Image

    by = dict(zip(tiles.table.field, more))
    (d / 'p').mkdir()
    for f, m in by.items():
        Image.fromarray(np.clip(tiles.field(f).astype(int) + m, 0, 255).astype('uint8')).save(d / 'p' / f)
    return cut_tiles(read_fields(d / 'p'), d / 't', grid=(2, 2))


def test_a_remedy_is_recorded_and_done_again(cells, tmp_path):
    from celldeath_nb.tiles.store import Tiles, open_tiles

    for how in ('flat', 'standardize', 'match'):
        seen = normalize_fields(cells, how)
        assert isinstance(seen, Tiles) and seen.fingerprint != cells.fingerprint and remedies_of(seen)[0]['how'] == how
        part = cells.subset([7, 2, 40])
        assert (as_recorded(part, remedies_of(seen))[:] == seen[[7, 2, 40]]).all()
        stored = normalize_fields(cells, how, out=tmp_path / how)
        assert (
            stored.verify() == []
            and (stored[11] == seen[11]).all()
            and remedies_of(open_tiles(tmp_path / how)) == remedies_of(seen)
        )
    with pytest.raises(FileExistsError):
        normalize_fields(cells, 'flat', out=tmp_path / 'flat')


@pytest.mark.parametrize(
    'bad',
    [
        'x',
        dict(how='x'),
        dict(how='match', reference=[1] * 5),
        dict(how='match', reference=[-1] * 256),
        dict(how='match', reference=['a'] * 256),
        dict(how='match', reference=[float('nan')] * 256),
        dict(how='background only', keep=0, least=1.2),
        dict(how='background only', keep=0.2, least=1.2),
        dict(how='background only', keep=4),
        dict(how='background only', keep=4, least=float('nan')),
    ],
)
def test_a_strange_record_is_refused(bad):
    with pytest.raises(ValueError):
        as_recorded(tiles(), [bad])


def test_outliers_are_named_and_nothing_is_removed_unasked(tmp_path):
    q = pd.DataFrame(
        dict(
            field=[f'{i}.png' for i in range(12)],
            path='',
            experiment=['N1'] * 6 + ['N2'] * 6,
            label='CPT',
            focus=[100.0, 101, 99, 102, 98, 3] + [4.0, 4.1, 3.9, 4, 4.2, 4.1],
            black=0.0,
            saturated=0.0,
            gradient=0.1,
            cell_share=0.5,
        )
    )
    odd = quality_outliers(q)
    assert odd.field.tolist() == ['5.png'] and 'focus low' in odd.why[0]  # what is usual in N2 is odd in N1
    assert len(leave_out(q, odd)) == 11 and leave_out(q, odd).attrs['problems'][0]['file'] == '5.png' and len(q) == 12
    with pytest.raises(ValueError, match='above 0'):
        quality_outliers(q, limit=0)


def test_two_labels_for_one_picture():
    t = tiles()
    t.px[1] = t.px[0]
    assert any('under two labels' in o for o in audit(t, controls=None).failures)


def test_audit_says_what_it_does_not_know():
    assert audit(Memory(tiles().px[:4], tiles().table[:4])).verdict == 'cannot be told with so few'
    with pytest.raises(ValueError, match='cheap'):
        audit(tiles(), controls='all')


@pytest.mark.long
def test_an_audit_ends_in_a_verdict_whatever_the_names_do_not_tell():
    "Line, experiment, hour and well each there, partly missing or missing: a stranger's names tell none of them."
    from itertools import product

    t = tiles(n=48)
    full = dict(
        line=['U2OS'] * 48,
        experiment=t.table.experiment.to_numpy(object),
        hour=np.full(48, 3.0),
        well=np.array([str(i % 3 + 1) for i in range(48)], object),
    )
    words = {'at chance', 'above chance', 'below chance', 'cannot be told with so few', 'not possible'}
    for kinds in product(('there', 'partly', 'missing'), repeat=4):
        cols = {}
        for (c, v), kind in zip(full.items(), kinds):
            v = pd.Series(v)
            cols[c] = (
                v
                if kind == 'there'
                else v.where(np.arange(48) % 4 > 0)
                if kind == 'partly'
                else pd.Series(np.full(48, np.nan) if c == 'hour' else [None] * 48)
            )
        got = negative_controls(t.add(**cols), train=train_cheap, names=['labels shuffled', 'background only'], seed=1)
        assert set(got.verdict) <= words, kinds


def test_a_fold_of_one_class_is_never_learned_from():
    "Two wells of the vehicle, in one experiment each: some versions of scikit-learn deal a training side of one class."
    t = tiles(n=48)
    lone = t.add(treatment=['DMSO'] * 48, well=['1' if e in ('N1', 'N2') else '2' for e in t.table.experiment])
    got = negative_controls(lone, train=train_cheap, names=['vehicle wells'], seed=0)
    assert got.verdict[0] in ('at chance', 'cannot be told with so few', 'not possible')
    split = t.add(split=np.where(t.table.label == 'CPT', 'train', 'valid'))
    with pytest.raises(ValueError, match='holds the class CPT only'):
        shortcut_baseline(split)


def test_an_audit_reads_every_tile_once(monkeypatch):
    "Shortcuts, and all controls, the painted one too, from one pass beside the search for copies; 64 tiles are asked first what background is."
    t = tiles(n=600)
    t = t.add(hour=np.where(np.arange(600) % 3, 3.0, 0.0), well=[str(i // 8 % 5) for i in range(600)])
    read = []
    batch = Memory.batch
    monkeypatch.setattr(Memory, 'batch', lambda self, i: read.append(len(i)) or batch(self, i))
    controls = audit(t, pairs=pd.DataFrame(columns=['tile_a', 'tile_b', 'score', 'kind'])).controls
    assert 'not possible' not in set(controls.verdict) and len(controls) == 4
    assert sum(read) == 600 + 64


def culture(free, light=0, seed=0, n=128):
    "Tiles of 6x8 squares, of which a share `free[class]` is background and the rest smooth cells."
    t = tiles(n=n, seed=seed)
    rng = np.random.default_rng(seed)
    x = np.arange(16) / 16
    px = rng.normal(110, 4, (n, 6, 8, 16, 16))
    for i, label in enumerate(t.table.label):
        for k in rng.permutation(48)[round(free[label] * 48) :]:
            px[i, k // 8, k % 8] += rng.uniform(18, 22) * np.sin(
                2 * np.pi * (x * rng.uniform(1, 2) + rng.uniform(0, 6))
            )
        px[i] += light * (label == 'CPT')
    px = px.swapaxes(2, 3).reshape(n, 96, 128)
    wells = [str(i // 8 % 4) for i in range(n)]
    return Memory(np.clip(px.round(), 0, 255).astype('uint8'), t.table.assign(well=wells))


def test_painting_over_hides_how_dense_the_cells_are():
    "One class fills its tiles and the other does not: not told from the background alone; its light is, and no background at all is said."
    ask = lambda t: negative_controls(t, train=train_cheap, folds=4, names=['background only']).iloc[0]
    dense = dict(CPT=0.5, DMSO=0.12)
    for seed in range(3):
        assert ask(culture(dense, seed=seed)).verdict != 'above chance'
    assert ask(culture(dense, light=6)).verdict == 'above chance'
    full = ask(culture(dict(CPT=0.5, DMSO=0.0)))
    assert full.verdict == 'not possible' and '0 tiles of DMSO show background' in full.sentence
    wavy = culture(dense)
    wavy.px = np.clip(wavy.px + 60 * np.sin(np.arange(128) / 9), 0, 255).astype('uint8')
    assert ask(wavy).verdict == 'not possible'


def test_what_is_laid_over_is_background():
    t = culture(dict(CPT=0.5, DMSO=0.12))
    seen = background_only(t)
    assert len(seen) == len(t) and seen.remedy['keep'] == 4
    plain = t.px.reshape(len(t), 6, 16, 8, 16).std((2, 4))
    over = seen.batch(np.arange(len(t))).reshape(len(t), 6, 16, 8, 16).std((2, 4))
    assert np.quantile(plain, 0.9) > 5.5 > over.max(), 'noise has a spread of 4'


def test_the_table_of_designs_is_that_of_the_benchmark():
    "What the room of audits says of simulated designs, beside the rows of benchmarks/results/audit_designs.csv."
    root = Path(__file__).parents[1]
    t = pd.read_csv(root / 'benchmarks' / 'results' / 'audit_designs.csv')
    told = (root / 'nbs' / 'api' / '83_trust.audits.ipynb').read_text(encoding='utf-8')
    names = {
        ('balanced', 1.0): 'balanced, with the drug',
        ('balanced', 0.0): 'balanced, a drug that does nothing',
        ('confounded', 1.0): 'confounded',
        ('wells', 1.0): 'wells',
    }
    assert set(zip(t.design, t.effect)) == set(names)
    for key, g in t.groupby(['design', 'effect']):
        above = [
            f'{(g[c] == "above chance").sum()}'
            for c in ('vehicle wells', 'background only', 'before the drug', 'labels shuffled')
        ]
        best = g.best_shortcut
        cells = [names[key], f'{(g.verdict == "failed").sum()} of {len(g)}', f'{(best > 0.85).sum()}']
        assert ' | '.join([*cells, f'{best.median():.0%}, {best.min():.0%}'.replace('%', ' %'), *above]) in told


def test_a_reason_to_look_is_said_before_that_nothing_else_was_found():
    "With the cells painted over the classes are told apart: no failure, and never 'nothing was found'."
    from celldeath_nb.report import verdict
    from celldeath_nb.trust.audits import Audit
    from celldeath_nb.trust.confounders import Findings

    row = dict(
        control='background only', share=0.86, low=0.58, high=0.96, chance=0.5, verdict='above chance', sentence='86%.'
    )
    shortcuts = pd.DataFrame([dict(sees='border', side='test', share=0.5, low=0.3, high=0.7, chance=0.5, groups=20)])
    preds = pd.DataFrame(dict(field=[f'{i}.png' for i in range(40)], label=['a', 'b'] * 20, split='test'))
    preds = preds.assign(tile=preds.field + '#0,0', pred=preds.label, p_a=[0.9, 0.1] * 20, p_b=[0.1, 0.9] * 20)
    for controls, said in (
        (pd.DataFrame([row]), 'The control "background only" lies above chance (86%, 58% to 96%;'),
        (pd.DataFrame([dict(row, verdict='at chance')]), 'Nothing was found'),
    ):
        found = Audit(Findings([]), pd.DataFrame(), shortcuts, controls)
        v = verdict(preds, found)
        assert found.verdict == 'passed' and v.light == 'go'
        assert found.sentences[0].startswith(said) and v.sentences[-1].startswith(said)
        assert ('Nothing was found' in ' '.join(found.sentences + v.sentences)) == (controls.verdict[0] == 'at chance')
