"Models from strangers: nothing in them is executed, and what is wrong is said."
import os, pickle, shutil

import numpy as np
import pytest

from celldeath_nb.files import read_json, write_json
from celldeath_nb.models import Model, load_model, make_net, predict, save_model


@pytest.fixture(scope='module')
def model(): return Model(make_net('resnet10t', 2, (32, 32), 'linear').eval(), 'resnet10t', ['CPT', 'DMSO'], (32, 32), (32, 32), .5, .2, head='linear', um_per_px=.434)

@pytest.fixture
def folder(model, tmp_path): return save_model(model, tmp_path/'m')

@pytest.fixture
def x(): return np.random.default_rng(0).integers(0, 255, (5, 32, 32), dtype=np.uint8)

def reseal(folder, data):
    "Put other bytes in place of the weights, with the checksum that belongs to them."
    import hashlib
    (folder/'model.safetensors').write_bytes(data)
    write_json({**read_json(folder/'model.json'), 'sha256': hashlib.sha256(data).hexdigest()}, folder/'model.json')


class Canary:
    def __init__(self, path): self.path = path
    def __reduce__(self): return (os.mkdir, (str(self.path),))


def test_a_pickle_inside_is_not_run(folder, tmp_path):
    reseal(folder, pickle.dumps(Canary(tmp_path/'canary')))
    with pytest.raises(ValueError, match='cannot be read as safetensors'): load_model(folder)
    (folder/'extra.pkl').write_bytes(pickle.dumps(Canary(tmp_path/'canary')))
    with pytest.raises(ValueError): load_model(folder)
    assert not (tmp_path/'canary').exists()

@pytest.mark.parametrize('data', [b'', b'\0'*7, b'\xff'*8+b'{}', (99_000_000).to_bytes(8, 'little')+b'{', (8).to_bytes(8, 'little')+b'not json'])
def test_weights_that_are_none(folder, data):
    reseal(folder, data)
    with pytest.raises(ValueError, match='safetensors|do not fit'): load_model(folder)

def test_overlapping_tensors(folder):
    head = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    reseal(folder, len(head).to_bytes(8, 'little')+head+b'\0'*12)
    with pytest.raises(ValueError): load_model(folder)

@pytest.mark.parametrize('at', [.1, .5, .99])
def test_truncated_weights(folder, at):
    f = folder/'model.safetensors'
    f.write_bytes(f.read_bytes()[:int(f.stat().st_size*at)])
    with pytest.raises(ValueError, match='checksum'): load_model(folder)

@pytest.mark.parametrize('change, why', [(dict(version=99), 'version 99'), (dict(format='x'), 'does not describe'), (dict(classes=['a', 'a']), 'classes'), (dict(classes=['a']), 'classes'),
    (dict(size=[10**9, 10**9]), 'size'), (dict(size=[0, 5]), 'size'), (dict(mean='__import__("os")'), 'mean'), (dict(mean=1e999), 'mean|JSON|number'), (dict(arch='../../etc/passwd'), 'No network'),
    (dict(arch='resnet18'), 'do not fit'), (dict(classes=['a', 'b', 'c']), 'do not fit'), (dict(head='fastai'), 'do not fit'), (dict(info=[]), 'info'), (dict(um_per_px=-1), 'um_per_px')])
def test_pages_that_are_wrong(folder, change, why):
    import json
    page = {**read_json(folder/'model.json'), **change}
    (folder/'model.json').write_text(json.dumps(page))
    with pytest.raises(ValueError, match=why): load_model(folder)

@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_a_link_out_of_the_folder(folder, tmp_path):
    shutil.move(folder/'model.safetensors', tmp_path/'secret')
    os.symlink(tmp_path/'secret', folder/'model.safetensors')
    with pytest.raises(ValueError, match='leads out of its folder'): load_model(folder)

def test_a_save_that_fails_leaves_the_old_model(model, folder, monkeypatch):
    import celldeath_nb.models as m
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(m, 'save_file', full)
    with pytest.raises(OSError): save_model(model, folder, overwrite=True)
    monkeypatch.undo()
    assert load_model(folder).classes == ['CPT', 'DMSO']
    assert [o.name for o in folder.parent.iterdir()] == ['m']


def test_other_tiles_are_refused_and_other_scales_said(model, x):
    with pytest.raises(ValueError, match='16x32 pixels'): predict(model, x[:, :16])
    with pytest.raises(ValueError, match='uint8'): predict(model, x.astype(np.uint16))

def test_no_tiles_give_an_empty_table(model):
    preds = predict(model, np.empty((0, 32, 32), np.uint8), device='cpu')
    assert len(preds) == 0 and list(preds) == ['tile', 'p_CPT', 'p_DMSO', 'pred']

def test_constant_tiles_have_a_verdict(model):
    preds = predict(model, np.zeros((2, 32, 32), np.uint8), device='cpu')
    assert preds.p_CPT.between(0, 1).all()

def test_files_in_the_order_given(model, tmp_path):
    from PIL import Image
    rng, paths = np.random.default_rng(0), []
    for name in ('b.png', 'a.png', 'c d.png'):
        Image.fromarray(rng.integers(0, 255, (32, 64), dtype=np.uint8)).save(tmp_path/name)
        paths.append(tmp_path/name)
    preds = predict(model, paths, device='cpu', out=tmp_path/'p.csv')
    assert preds.field.tolist() == [str(p) for p in paths for _ in range(2)]
    assert sorted(o.name for o in tmp_path.iterdir()) == ['a.png', 'b.png', 'c d.png', 'p.csv']
    with pytest.raises(FileNotFoundError, match='gone.png'): predict(model, [tmp_path/'gone.png'])

def test_a_torn_row_of_an_interrupted_prediction_is_done_again(model, x, tmp_path):
    from celldeath_nb.models import _job
    import hashlib
    whole = predict(model, x, bs=2, device='cpu')
    job = _job(model, hashlib.sha256(x).hexdigest(), tmp_path/'p.csv')
    job.path.write_bytes(whole[['p_CPT', 'p_DMSO']].values[:3].tobytes()+b'torn')
    again = predict(model, x, bs=2, device='cpu', out=tmp_path/'p.csv')
    assert (again[['p_CPT', 'p_DMSO']].values == whole[['p_CPT', 'p_DMSO']].values).all()
    assert [o.name for o in tmp_path.iterdir()] == ['p.csv']
