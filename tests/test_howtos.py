"Every how-to runs on a folder that it was given, and leaves that folder as it was, to the last byte."

import json, os, re, shutil, subprocess, sys
from hashlib import sha256
from pathlib import Path

import pytest

from celldeath_nb.simulate.samples import sample_data

root = Path(__file__).resolve().parents[1]
howtos = sorted((root / 'nbs' / 'howto').glob('*.ipynb'))
own = re.compile(r"^own = ''", re.M)  # the one line that names the reader's folder
asks = [
    o for o in howtos if own.search('\n'.join(''.join(c['source']) for c in json.loads(o.read_text('utf-8'))['cells']))
]
# what is learned is no matter here, so trainings are short: a line of the how-to, and what stands in its place
short = dict(
    colab_gpu=('epochs = 0 ', 'epochs = 1 '),
    own_images=(
        "take_road(fields, room / 'road', recipe)",
        "take_road(fields, room / 'road', __import__('celldeath_nb').Recipe.quick(epochs=1, min_steps=0))",
    ),
)


def sums(folder):
    "The checksum and the date of every file below `folder`, hidden ones included, and the names of its folders."
    return {
        str(o.relative_to(folder)): (sha256(o.read_bytes()).hexdigest(), o.stat().st_mtime_ns) if o.is_file() else None
        for o in folder.rglob('*')
    }


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    "A few photographs with their names, as a reader has them: no truth beside them."
    at = tmp_path_factory.mktemp('given') / 'photographs'
    drawn = dict(lines=('iPS1',), experiments=2, wells=2, sites=1, size=(240, 320), seed=5, workers=1)
    made = sample_data('demo', at.with_name('drawn'), **drawn)
    at.mkdir()
    for o in made.glob('*.png'):
        shutil.copy(o, at)
    return at


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    "Small photographs, enough of them for a curve."
    drawn = dict(lines=('iPS1',), experiments=3, wells=3, sites=2, size=(120, 160), seed=6, workers=1)
    return sample_data('simulated', tmp_path_factory.mktemp('given') / 'many', **drawn)


@pytest.fixture(scope='module')
def tubes(tmp_path_factory):
    from celldeath_nb.simulate.tubes import simulate_tubes, write_tubes

    return Path(
        write_tubes(simulate_tubes('MCF7', hour=6, n=8000, seed=77), tmp_path_factory.mktemp('given') / 'tubes')
    )


@pytest.fixture(scope='module')
def stains(tmp_path_factory):
    from celldeath_nb.simulate.microscope import simulate_experiment
    from celldeath_nb.simulate.stains import stain_experiment

    at = tmp_path_factory.mktemp('given')
    drawn = dict(hours=(6,), experiments=3, wells=1, sites=1, size=(240, 320), seed=21, workers=1)
    simulate_experiment(at / 'phase', ('MCF7',), **drawn)
    return Path(stain_experiment(at / 'phase', at / 'stains', ['gH2AX', 'p53'], nucleus='DAPI', seed=21))


# what a how-to is given, if it is not photographs in transmitted light, and what it says that it puts beside itself
givens = dict(check_before_training='many', flow_quadrants='tubes', how_many_images='many', stained_nuclei='stains')
kept = dict(
    flow_quadrants=['gates.csv', 'quadrants.csv', 'quadrants.html', 'single_cells.fcs'],
    stained_nuclei=['nuclei.csv', 'nuclei.html'],
)


def run_on(notebook, given, at):
    "Run a copy of `notebook` in the folder `at`, with `own` the folder that it is given; what was said, and the copy."
    (at / 'nbs').mkdir()
    shutil.copy(root / 'pyproject.toml', at)
    nb = json.loads(notebook.read_text(encoding='utf-8'))
    for c in nb['cells']:
        if c['cell_type'] == 'code':
            c['source'] = own.sub(f'own = {str(given)!r}', ''.join(c['source'])).replace(
                *short.get(notebook.stem, ('', ''))
            )
    if notebook.stem in short:
        assert short[notebook.stem][1] in json.dumps(nb).replace('\\"', '"'), (
            'the line of the training is another one now'
        )
    copy = at / 'nbs' / notebook.name
    copy.write_text(json.dumps(nb), encoding='utf-8')
    done = subprocess.run(
        [sys.executable, root / 'tests' / 'run_notebooks.py', copy, '--workers', '1'],
        cwd=at,
        env={**os.environ, 'MPLBACKEND': 'agg', 'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
    )
    return done, copy


@pytest.mark.parametrize('notebook', asks, ids=lambda o: o.stem)
@pytest.mark.long
def test_the_given_folder_is_left_as_it_was(notebook, request, tmp_path):
    given = request.getfixturevalue(givens.get(notebook.stem, 'photographs'))
    before = sums(given)
    done, copy = run_on(notebook, given, tmp_path)
    assert sums(given) == before
    assert not done.returncode, done.stderr[-5000:]
    left = sorted(o.name for o in copy.parent.iterdir() if o != copy)
    assert left == kept.get(notebook.stem, []), 'the how-to left something beside itself'


@pytest.mark.long
def test_a_how_to_that_writes_is_noticed(photographs, tmp_path):
    "The test above can fail: a planted notebook that spoils its folder is seen to."
    given = tmp_path / 'given'
    shutil.copytree(photographs, given)
    cells = ["own = ''", 'from pathlib import Path', "next(Path(own).glob('*.png')).write_bytes(b'')"]
    raw = [
        dict(cell_type='code', id=str(i), source=o, metadata={}, outputs=[], execution_count=None)
        for i, o in enumerate(cells)
    ]
    spec = dict(kernelspec=dict(name='python3', display_name='p', language='python'))
    planted = tmp_path / 'planted.ipynb'
    planted.write_text(json.dumps(dict(cells=raw, metadata=spec, nbformat=4, nbformat_minor=5)))
    before = sums(given)
    (tmp_path / 'run').mkdir()
    done, _ = run_on(planted, given, tmp_path / 'run')
    assert not done.returncode and sums(given) != before


def test_own_images_takes_the_folder_it_is_given():
    "`own` is there to be filled in, once, in every how-to that asks for a folder."
    told = [o for o in howtos if re.search(r'own photographs|path of your', o.read_text(encoding='utf-8'))]
    assert {o.stem for o in asks} == {o.stem for o in told}
    assert {'own_images', 'colab_gpu', 'flow_quadrants', 'stained_nuclei'} <= {o.stem for o in told}
    for o in told:
        code = [
            ''.join(c['source']) for c in json.loads(o.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code'
        ]
        assert sum(len(own.findall(c)) for c in code) == 1, o.name
