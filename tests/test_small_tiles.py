"Crops of single cells, small and of many sizes, go the whole way."

import numpy as np
import pytest
from PIL import Image

from celldeath_nb.learn.models import load_model
from celldeath_nb.learn.prediction import predict
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.splits import split_by
from celldeath_nb.tiles.store import open_tiles


def crops(folder, n=24, seed=0):
    "Round cells in crops of 36 to 48 pixels; those of b have a ring."
    rng = np.random.default_rng(seed)
    for i in range(n):
        h, w = rng.integers(36, 49, 2) if i else (48, 48)
        y, x = np.mgrid[:h, :w]
        r = np.hypot(y - h / 2 + rng.uniform(-3, 3), x - w / 2 + rng.uniform(-3, 3))
        px = 128 + 40 * (r < 9) + rng.normal(0, 8, (h, w)) - (80 * (abs(r - 11) < 1.5) if i % 2 else 0)
        f = folder / ('b' if i % 2 else 'a') / f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(px, 0, 255).astype(np.uint8)).save(f)
    return folder


def test_crops_of_many_sizes_are_learned_and_told(tmp_path):
    fields = read_fields(crops(tmp_path / 'cells', 48), label_from='folder')
    tiles = split_by(cut_tiles(fields, tmp_path / 'tiles', grid=(1, 1), edge='gray'), None, 0.3, seed=0)
    assert tuple(tiles.tile_px) == (48, 48) and len(tiles) == 48
    run = train(
        tiles, Recipe.quick(size=64, enlarge=True, epochs=1, min_steps=30, batch_size=8), tmp_path / 'run', 'cpu'
    )
    assert run.model.size == (64, 64) and 'shown at 64x64' in (run.path / 'methods.txt').read_text()
    preds = predict(load_model(tmp_path / 'run'), crops(tmp_path / 'others', 12, seed=1), device='cpu')
    truth = [o.split('/')[0] for o in preds.field]
    assert len(preds) == 12 and np.mean(preds.pred == truth) > 0.8


def test_a_tile_is_not_enlarged_unasked(tmp_path):
    fields = read_fields(crops(tmp_path / 'cells'), label_from='folder')
    tiles = split_by(cut_tiles(fields, tmp_path / 'tiles', grid=(1, 1), edge='gray'), None, 0.3, seed=0)
    run = train(tiles, Recipe.quick(epochs=1, min_steps=0, batch_size=8), tmp_path / 'run', 'cpu', duplicates='ignore')
    assert run.model.size == (48, 48)


@pytest.mark.long
def test_the_command_takes_them_as_well(tmp_path, call):
    crops(tmp_path / 'cells')
    code, said = call('slice', 'cells', '--out', 'tiles', '--grid', '1x1', '--edge', 'gray', '--label-from', 'folder')
    assert code == 0, said
    assert tuple(open_tiles(tmp_path / 'tiles').tile_px) == (48, 48)
    words = ['--epochs', '1', '--size', '64', '--enlarge', '--threads', '1', '--device', 'cpu', '--batch-size', '4']
    code, said = call('train', 'tiles', '--out', 'run', '--test', 'none', '--places', 'off', *words)
    assert code == 0, said
    assert load_model(tmp_path / 'run').size == (64, 64)
    code, said = call('predict', 'run', crops(tmp_path / 'others', 6, seed=1), '--device', 'cpu')
    assert code == 0 and '6 tiles of 6 photographs' in said, said
