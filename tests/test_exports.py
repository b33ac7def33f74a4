"Models that are handed on say what the run says, and models of strangers are looked through before they run."

import hashlib
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

onnx = pytest.importorskip('onnx', reason='no onnx: pip install "celldeath_nb[export]"')
pytest.importorskip('onnxruntime', reason='no onnxruntime: pip install "celldeath_nb[export]"')
pytest.importorskip('onnxscript', reason='no onnxscript: pip install "celldeath_nb[export]"')

import celldeath_nb.learn.exports as exports
from celldeath_nb.files import file_sum, read_json, sealed, write_json
from celldeath_nb.learn.exported import check_onnx, open_exported
from celldeath_nb.learn.exports import export
from celldeath_nb.learn.models import Model, load_model
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.prediction import predict
from celldeath_nb.learn.recipes import Recipe
from celldeath_nb.learn.runs import open_run
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.remedies import normalize_fields
from celldeath_nb.tiles.splits import split_by
from noise import photographs

h = onnx.helper
kinds = onnx.TensorProto


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Photographs, tiles, and a run that saw them for a moment; tiles of 40x48 are shown at 33x40, which does not divide."
    d = tmp_path_factory.mktemp('home')
    tiles = cut_tiles(read_fields(photographs(d / 'photos'), label_from='folder', um_per_px=0.5), d / 'tiles')
    tiles = split_by(tiles, None, 0.4, seed=0)
    r = Recipe.quick(size=33, epochs=1, min_steps=0, batch_size=4)
    train(tiles, r, d / 'run', 'cpu')
    export(d / 'run', 'onnx', d / 'onnx', tiles)
    return d


def test_the_exported_model_says_what_the_run_says_of_photographs(home):
    a = predict(load_model(home / 'run'), home / 'photos', device='cpu')
    b = predict(open_exported(home / 'onnx'), home / 'photos')
    assert list(a) == list(b) and a.tile.equals(b.tile) and np.abs(a.p_a - b.p_a).max() < 1e-5


def test_the_tiles_beside_it_give_the_logits_beside_it_with_onnxruntime_alone(home):
    import onnxruntime

    x = np.load(home / 'onnx' / 'test_tiles.npy')
    z = onnxruntime.InferenceSession(home / 'onnx' / 'model.onnx').run(None, {'tiles': x})[0]
    assert x.dtype == np.uint8 and np.abs(z - np.load(home / 'onnx' / 'test_logits.npy')).max() <= 1e-5
    assert set(read_json(home / 'onnx' / 'verify.json')['largest_difference']) == {'1', '3', '32'}


def test_the_command_predicts_without_torch(home, tmp_path):
    said = (
        'import sys; from celldeath_nb.cli import main\n'
        'try: main(sys.argv[1:])\n'
        'except SystemExit as e: assert not e.code, e.code\n'
        'assert "torch" not in sys.modules and "fastai" not in sys.modules'
    )
    words = ['predict', str(home / 'onnx'), str(home / 'photos'), '--out', str(tmp_path / 'p.csv')]
    res = subprocess.run([sys.executable, '-c', said, *words], capture_output=True, text=True, timeout=200)
    assert res.returncode == 0, res.stderr
    mine = predict(load_model(home / 'run'), home / 'photos', device='cpu')
    assert np.abs(pd.read_csv(tmp_path / 'p.csv').p_a - mine.p_a).max() < 1e-5


def test_a_model_that_answers_otherwise_does_not_come_to_be(home, tmp_path, monkeypatch):
    keep = exports._Whole.see
    monkeypatch.setattr(exports._Whole, 'see', lambda self, x: keep(self, x) + 1e-3)
    with pytest.raises(ValueError, match='gives other logits than the run: by 1.0e-03'):
        export(home / 'run', 'onnx', tmp_path / 'out')
    assert list(tmp_path.iterdir()) == []


def test_remedies_go_along_and_are_refused_where_they_cannot(home, tmp_path):
    tiles = cut_tiles(
        read_fields(photographs(tmp_path / 'photos', size=(80, 80)), label_from='folder', um_per_px=0.5),
        tmp_path / 'tiles',
    )
    seen = split_by(normalize_fields(tiles, 'standardize'), None, 0.4, seed=0)
    r = Recipe.quick(size=32, epochs=1, min_steps=0, batch_size=4)
    run = train(seen, r, tmp_path / 'run', 'cpu')
    with pytest.raises(ValueError, match='changed .standardize., which QuPath cannot do again'):
        export(run, 'qupath', tmp_path / 'qupath')
    with pytest.raises(ValueError, match='which a program of the BioImage Model Zoo cannot do again'):
        export(run, 'bmz', tmp_path / 'zoo')
    export(run, 'onnx', tmp_path / 'onnx')
    a = predict(run.model, tmp_path / 'photos', device='cpu')
    b = predict(open_exported(tmp_path / 'onnx'), tmp_path / 'photos')
    assert np.abs(a.p_a - b.p_a).max() < 1e-5 and 'standardize' in (tmp_path / 'onnx' / 'README.md').read_text()


def test_qupath_wants_squares(home, tmp_path):
    with pytest.raises(ValueError, match='its tiles are 40x48 pixels, and QuPath cuts squares'):
        export(home / 'run', 'qupath', tmp_path / 'q')
    assert list(tmp_path.iterdir()) == []


def test_a_package_of_the_zoo_names_its_files_and_is_what_the_run_is(home, tmp_path, call):
    "Tiles of 40x48, shown at 33x40; the license is spelled as the zoo spells it, and nobody is invented."
    out = tmp_path / 'zoo.zip'
    code, said = call('export', str(home / 'run'), '--to', 'bmz', '--out', str(out), '--license', 'mit')
    assert code == 0 and '"author not named"' in said, said
    with zipfile.ZipFile(out) as z:
        page = json.loads(z.read('rdf.yaml'))
        files = [page['documentation'], *page['weights'].values(), page['inputs'][0]['test_tensor']]
        for f in (*files, page['outputs'][0]['test_tensor']):
            assert hashlib.sha256(z.read(f['source'])).hexdigest() == f['sha256']
        z.extractall(tmp_path / 'zoo')
    assert page['authors'] == [dict(name='author not named')] and page['license'] == 'MIT'
    assert [o.get('size') for o in page['inputs'][0]['axes']] == [None, None, 40, 48]
    x = np.load(tmp_path / 'zoo' / 'test_tiles.npy')
    assert x.shape == (32, 1, 40, 48) and x.dtype == np.uint8
    z = torch.jit.load(tmp_path / 'zoo' / 'weights.pt')(torch.from_numpy(x)).detach().numpy()
    assert np.abs(z - np.load(tmp_path / 'zoo' / 'test_logits.npy')).max() <= 1e-5


def test_a_package_passes_the_tests_of_the_zoo(home, tmp_path):
    core = pytest.importorskip(
        'bioimageio.core', reason='no bioimageio.core: pip install bioimageio.core "pydantic<2.13"'
    )
    export(home / 'run', 'bmz', tmp_path / 'zoo', license='cc-by-4.0', authors=['A. Name'])
    said = core.test_model(tmp_path / 'zoo' / 'rdf.yaml')
    assert said.status == 'passed', said.format()


@pytest.mark.parametrize(
    'kw, said',
    [
        (dict(license='my-own'), 'none that a page of the zoo'),
        (dict(authors='A. Name'), 'give a list of names'),
        (dict(authors=['a/b']), 'without slashes'),
        (dict(authors=[' ']), 'give a list of names'),
    ],
)
def test_what_a_page_of_the_zoo_cannot_say(home, tmp_path, kw, said):
    with pytest.raises(ValueError, match=said):
        export(home / 'run', 'bmz', tmp_path / 'zoo', **kw)
    assert list(tmp_path.iterdir()) == []


def test_a_window_is_not_handed_to_the_zoo(home, tmp_path):
    run = open_run(home / 'run')
    run.model.info['cut'] = {**run.model.info['cut'], 'window': 'auto'}
    with pytest.raises(ValueError, match='through a window of gray levels'):
        export(run, 'bmz', tmp_path / 'zoo')
    with pytest.raises(ValueError, match='only a package of the zoo is one file'):
        export(run, 'hub', tmp_path / 'hub.zip')
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_to_the_hub(home, tmp_path, call):
    code, said = call('export', str(home / 'run'), '--to', 'hub', '--out', 'hub', '--license', 'mit')
    assert code == 0 and 'hf upload' in said, said
    assert (tmp_path / 'hub' / 'README.md').read_text().startswith('---\nlicense: mit\n')
    assert load_model(tmp_path / 'hub').classes == ['a', 'b']
    code, said = call('export', str(home / 'run'), '--to', 'pdf', '--out', 'x')
    assert code == 1 and "use 'onnx', 'bmz'" in said


# ---- files of strangers


def graph(nodes, constants=(), shape=('n', 4, 6), functions=()):
    x = h.make_tensor_value_info('tiles', kinds.UINT8, list(shape))
    y = h.make_tensor_value_info('logits', kinds.FLOAT, ['n', 2])
    domains = {o.domain for o in nodes} | {o.domain for o in functions} | {''}
    g = h.make_graph(nodes, 'g', [x], [y], list(constants))
    opsets = [h.make_opsetid(o, 18 if not o else 1) for o in sorted(domains)]
    return h.make_model(g, opset_imports=opsets, ir_version=10, functions=functions)


def ints(name, *values):
    return h.make_tensor(name, kinds.INT64, [len(values)], values)


def fair(extra=()):
    return [
        h.make_node('Cast', ['tiles'], ['x'], to=kinds.FLOAT),
        h.make_node('ReduceMean', ['x', 'axes'], ['m'], keepdims=0),
        h.make_node('Reshape', ['m', 'shape'], ['c']),
        *extra,
        h.make_node('Mul', ['c', 'w'], ['logits']),
    ]


def weights():
    return [ints('axes', 1, 2), ints('shape', -1, 1), h.make_tensor('w', kinds.FLOAT, [2], [1.0, -1.0])]


def outside():
    t = h.make_tensor('w', kinds.FLOAT, [2], [1.0, -1.0])
    t.ClearField('float_data')
    t.data_location = kinds.EXTERNAL
    for k, v in (('location', '../../etc/passwd'), ('length', '8')):
        e = t.external_data.add()
        e.key, e.value = k, v
    return t


def hostile(kind):
    if kind == 'foreign':
        return graph(fair([h.make_node('Open', ['c'], ['d'], domain='evil.org')]), weights())
    if kind == 'external':
        return graph(fair(), [*weights()[:2], outside()])
    if kind == 'loop':
        cond = h.make_tensor_value_info('k', kinds.BOOL, [])
        body = h.make_graph(
            [h.make_node('Identity', ['go'], ['k'])],
            'body',
            [h.make_tensor_value_info('i', kinds.INT64, []), h.make_tensor_value_info('go', kinds.BOOL, [])],
            [cond],
        )
        loop = h.make_node('Loop', ['', 'true'], [], body=body)
        return graph(fair([loop]), [*weights(), h.make_tensor('true', kinds.BOOL, [], [True])])
    if kind == 'huge':
        big = [
            h.make_node('ConstantOfShape', ['long'], ['big']),
            h.make_node('ReduceMean', ['big'], ['one'], keepdims=0),
            h.make_node('Add', ['c', 'one'], ['d']),
        ]
        nodes = fair(big)
        nodes[-1].input[0] = 'd'
        return graph(nodes, [*weights(), ints('long', 100_000, 100_000)])
    if kind == 'function':
        f = h.make_function('own', 'F', ['a'], ['b'], [h.make_node('Identity', ['a'], ['b'])], [h.make_opsetid('', 18)])
        return graph(fair([h.make_node('F', ['c'], ['d'], domain='own')]), weights(), functions=[f])
    return graph(fair(), weights(), shape=('n', 5, 6))


@pytest.mark.parametrize(
    'kind, said',
    [
        ('foreign', 'the operation Open of the domain evil.org'),
        ('external', 'cannot be read as ONNX|numbers in another file'),
        ('loop', 'which holds a graph of its own|cannot be read'),
        ('huge', 'more than the .* allowed'),
        ('function', 'domain own|a function of its own'),
        ('another size', 'does not take tiles of 4x6'),
    ],
)
def test_what_a_stranger_may_not_bring(tmp_path, kind, said):
    "Also behind a page that is sealed as ours are."
    (tmp_path / 'm').mkdir()
    f = tmp_path / 'm' / 'model.onnx'
    f.write_bytes(hostile(kind).SerializeToString())
    page = dict(format='celldeath_nb onnx', version=1, arch='x', classes=['a', 'b'], tile_px=[4, 6], size=[4, 6])
    write_json(sealed(page | dict(um_per_px=None, info={}, sha256=file_sum(f))), tmp_path / 'm' / 'labels.json')
    with pytest.raises(ValueError, match=said):
        open_exported(tmp_path / 'm')


def test_the_fair_one_is_let_through(tmp_path):
    f = tmp_path / 'model.onnx'
    f.write_bytes(graph(fair(), weights()).SerializeToString())
    check_onnx(f, (4, 6), 2)


@pytest.mark.parametrize('bad', [b'', b'\x08', b'not an onnx file at all' * 20, bytes(1000)])
def test_what_is_no_onnx_at_all(tmp_path, bad):
    (tmp_path / 'model.onnx').write_bytes(bad)
    with pytest.raises(ValueError, match='model.onnx'):
        check_onnx(tmp_path / 'model.onnx', (4, 6), 2)


def test_a_link_that_leads_out_is_not_followed(tmp_path, home):
    (tmp_path / 'm').mkdir()
    os.symlink(home / 'onnx' / 'model.onnx', tmp_path / 'm' / 'model.onnx')
    (tmp_path / 'm' / 'labels.json').write_bytes((home / 'onnx' / 'labels.json').read_bytes())
    with pytest.raises(ValueError, match='leads out of its folder'):
        open_exported(tmp_path / 'm')


@pytest.mark.parametrize(
    'change',
    [dict(classes=['a']), dict(tile_px=[4]), dict(info=dict(cut=dict(window=7))), dict(version=9), dict(sha256='0')],
)
def test_pages_that_do_not_fit(home, tmp_path, change):
    (tmp_path / 'm').mkdir()
    for o in ('model.onnx', 'labels.json'):
        (tmp_path / 'm' / o).write_bytes((home / 'onnx' / o).read_bytes())
    page = json.loads((tmp_path / 'm' / 'labels.json').read_text())
    page.pop('checksum')
    write_json(sealed({**page, **change}), tmp_path / 'm' / 'labels.json')
    with pytest.raises(ValueError, match='labels.json'):
        open_exported(tmp_path / 'm')


def test_without_the_extra_it_is_said_what_to_type(home, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ValueError, match=r'pip install "celldeath_nb\[export\]"'):
        open_exported(home / 'onnx')


@pytest.mark.long
@pytest.mark.parametrize('arch', ['resnet34', 'densenet121', 'tf_efficientnet_lite0', 'torchvision/resnet18'])
def test_networks_of_many_kinds_are_the_same_as_onnx(arch, tmp_path):
    "With running means and variances as a training leaves them; a name with a slash is no folder."
    torch.manual_seed(0)
    net = make_net(arch, 3, (64, 80), 'fastai' if 'resnet34' in arch else 'linear')
    with torch.no_grad():
        net.train()(torch.randn(8, 1, 64, 80))
    model = Model(net.eval(), arch, ['a', 'b', 'c'], (96, 120), (64, 80), 0.5, 0.2, 'linear')
    x = exports._some_tiles(model, None)
    (tmp_path / 'm').mkdir()
    reopened, _ = exports._as_onnx(model, tmp_path / 'm')
    worst = exports._compared(reopened()[0], x, exports._logits(model, x), arch)
    assert max(worst.values()) <= 1e-5
