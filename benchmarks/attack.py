"""What is tried against the package, and what came of it: `python benchmarks/attack.py [PART ...] [--tries N | --each N]`.

Every part makes its own input in a folder that goes afterwards. A part that is done is not done again (`--again`).
The outcome is written to results/attack.json after every part: tried, held, broken, and the first that broke.

An attack has held if the result is the one without it, or if it was refused or passed over with a sentence. It has
broken through if the result differs, if an error of another kind appears, if it takes longer than ten seconds, or if
something is read or left outside of its folder."""

import argparse, copy, io, json, os, pickle, platform, random, shutil, struct, sys, tempfile, time, warnings, zlib
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('IN_TEST', '1')  # no progress bars

import numpy as np
import pandas as pd
import psutil
from PIL import Image

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
longest = 10  # seconds of work for one attack; usual are hundredths


class Broken(Exception):
    "An attack has got through."


def outcome(use, *args):
    "What comes of it: the result, or the sentence of a refusal."
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return use(*args), None
    except (ValueError, OSError) as e:
        said = str(e)
        if len(said) < 12 or not any(o in said for o in '. '):
            raise Broken(f'an error that is no sentence: {e!r}') from None
        if isinstance(e, UnicodeError):
            raise Broken(f'an error of the machine: {e!r}') from None
        return None, said
    except Exception as e:
        at = e.__traceback__
        while at.tb_next:
            at = at.tb_next
        where = f'{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}'
        raise Broken(f'{type(e).__name__} in {where}: {str(e)[:200]}') from None
    finally:
        if (took := time.process_time() - start) > longest:
            raise Broken(f'{took:.0f} s')


class Score:
    "How many attacks of a kind were tried, and what came of them."

    def __init__(self):
        self.tried = 0
        self.held = 0
        self.refused = 0
        self.broken = []

    @contextmanager
    def attack(self, what):
        "One attack; `Broken` inside counts."
        self.tried += 1
        try:
            yield
            self.held += 1
        except Broken as e:
            self.broken.append(f'{what}: {e}')

    def page(self):
        return dict(
            tried=self.tried, held=self.held, refused=self.refused, broken=len(self.broken), first=self.broken[:10]
        )


# what is attacked -----------------------------------------------------------------------------


def make(d):
    "A store, a model, a run, and an unfinished training, prediction and slicing, all of the smallest kind."
    import torch
    from celldeath_nb.learn.models import Model, save_model
    from celldeath_nb.learn.nets import make_net
    from celldeath_nb.learn.recipes import Recipe
    from celldeath_nb.learn.training import train
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles
    from celldeath_nb.tiles.splits import split_by

    d.mkdir(parents=True)
    photos(d / 'photos')
    fields = read_fields(d / 'photos', um_per_px=0.5)
    tiles = split_by(cut_tiles(fields, d / 'store', workers=1), test=None, valid=0.3, seed=0)
    torch.manual_seed(0)
    net = make_net('test_resnet', 2, (32, 32), 'linear').eval()
    info = dict(cut=tiles.manifest['settings'], gray=dict(brightness=[0.0, 255.0]), precision='float32')
    kw = dict(mean=0.5, std=0.2, head='linear', um_per_px=0.5, info=info)
    save_model(Model(net, 'test_resnet', ['CPT', 'DMSO'], (32, 32), (32, 32), **kw), d / 'model')
    recipe = Recipe.quick(arch='test_resnet', size=32, epochs=1, min_steps=0, batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train(tiles, recipe, d / 'run', 'cpu')
    unfinished(d, fields)
    trial_and_study(d, tiles)
    return d


def photos(folder, n=8, px=64):
    "Bright and dark noise."
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        a = rng.integers(60 * (i % 2), 120 + 60 * (i % 2), (px, px), dtype=np.uint8)
        Image.fromarray(a).save(folder / f'U2_{("DMSO", "CPT")[i % 2]}_1h_RGB_{i:04}_N{i // 4 + 1}.png')


def unfinished(d, fields):
    "A checkpoint of a small net, four batches of probabilities, and a slicing that stopped after five photographs."
    import torch
    import celldeath_nb.learn.sittings as sittings
    import celldeath_nb.tiles.cut as cut
    from celldeath_nb.files import file_sum, sealed, write_json
    from celldeath_nb.learn.prediction import _Unfinished

    at = d / 'training' / 'epoch_0001'
    at.mkdir(parents=True)
    write_json(sealed(dict(recipe=dict(epochs=3), store='s', split='t')), d / 'training' / 'identity.json')
    row = dict(epoch=1, train_loss=0.5, valid_loss=0.6, accuracy=0.5, lr=0.1, seconds=1.0)
    tensors = {'net.w': torch.arange(2000.0), 'best.w': torch.arange(2000.0) + 1, 'opt.0.sqr': torch.ones(5)}
    loader = type('Loader', (), dict(rng=random.Random(1)))
    page = dict(phase=0, epoch=1, rows=[row], opt=[dict(step=3)], hypers=[dict(lr=0.1)])
    page |= dict(chance=sittings._chance(loader), scaler={})
    sittings.save_file(tensors, at / 'state.safetensors')
    write_json(sealed(dict(page, sha256=file_sum(at / 'state.safetensors'))), at / 'state.json')
    (d / 'prediction').mkdir()
    job = _Unfinished(d / 'prediction' / 'p.csv', 'abc', 2)
    for p in np.random.default_rng(1).random((4, 8, 2)):
        job.add(p)
    (d / 'slicing').mkdir()
    keep = cut._slice_one
    seen = []

    def stop(*args):
        seen.append(1)
        if len(seen) > 5:
            raise KeyboardInterrupt
        return keep(*args)

    cut._slice_one = stop
    try:
        cut.cut_tiles(fields, d / 'slicing' / 't', workers=1)
    except KeyboardInterrupt:
        pass
    finally:
        cut._slice_one = keep


def trial_and_study(d, tiles):
    "A trial with two of four answers, and the folder of a study in which nothing has run."
    from celldeath_nb.files import write_json
    from celldeath_nb.people.trials import Trial

    trial = Trial(tiles, n=4, out=d / 'trial')
    for _ in range(2):
        trial.answer('CPT', seconds=1.0)
    row = dict(setting='a', seeds=2, epochs=3)
    page = dict(row=row, recipe=dict(epochs=3), store='s', split='t', simulated=True, counts=dict(train=5, valid=2))
    write_json(page, d / 'study' / 'a' / 'setting.json')
    write_json(dict(why='the disk was full', kind='OSError'), d / 'study' / 'a' / 'seed_1.failed.json')


def use_store(d):
    from celldeath_nb.tiles.remedies import remedies_of
    from celldeath_nb.tiles.store import open_tiles

    t = open_tiles(d, sources='ignore')
    m = {k: v for k, v in t.manifest.items() if k not in ('files', 'checksum')}
    return t.table.to_csv(), t[:].tobytes(), json.dumps(m, sort_keys=True), remedies_of(t)


def _model(m):
    state = b''.join(v.numpy().tobytes() for v in m.net.state_dict().values())
    return state, m.arch, m.classes, m.tile_px, m.size, m.mean, m.std, m.head, m.um_per_px, json.dumps(m.info)


def use_model(d):
    from celldeath_nb.learn.models import load_model

    return _model(load_model(d))


def use_run(d):
    from celldeath_nb.learn.runs import open_run

    r = open_run(d)
    tables = r.history.to_csv(), r.preds.to_csv()
    return r.recipe, *tables, str(r.metrics), str(r.environment), str(r.identity), str(r.scores), _model(r.model)


def use_training(d):
    import celldeath_nb.learn.sittings as sittings
    import celldeath_nb.learn.training as training

    was = training._begun(d)
    c = sittings._load_checkpoint(d)
    if c is None:
        return None  # passed over, which is said
    tensors = {k: {n: v.numpy().tobytes() for n, v in c[k].items()} for k in ('net', 'best', 'opt_tensors')}
    return str(was), str({k: v for k, v in c.items() if k not in tensors}), str(tensors)


def use_prediction(d):
    from celldeath_nb.learn.prediction import _Unfinished

    return _Unfinished(d / 'p.csv', 'abc', 2).rows(32, 8).tobytes()


def use_slicing(d):
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles

    return use_store(cut_tiles(read_fields(d.parent / 'photos', um_per_px=0.5), d / 't', workers=1).path)


uses = dict(
    store=use_store, model=use_model, run=use_run, training=use_training, prediction=use_prediction, slicing=use_slicing
)
goes_on = ('prediction', 'slicing')  # using what is unfinished changes it


def same(kind, got, want):
    "Whether a result is the one without damage, or the part of it that is left of what is unfinished."
    return want.startswith(got) if kind == 'prediction' else got == want or got is None and kind == 'training'


# damage ---------------------------------------------------------------------------------------


def damage(f, rng):
    "A byte flipped, or some made zeros; gives the file as it was."
    raw = f.read_bytes()
    b = bytearray(raw)
    at = rng.randrange(len(b))
    if rng.random() < 0.5:
        b[at] ^= rng.randrange(1, 256)
    else:
        n = min(rng.choice([1, 16, 512, 4096]), len(b) - at)
        b[at : at + n] = bytes(n)
    f.write_bytes(b)
    return raw


def place(made, kind, tmp):
    "A fresh copy of a kind of folder; what it is used with lies beside it, and stays."
    shutil.rmtree(tmp / kind, ignore_errors=True)
    shutil.copytree(made / kind, tmp / kind)
    for k in ('photos', *(['store'] if kind == 'trial' else [])):
        if not (tmp / k).exists():
            shutil.copytree(made / k, tmp / k)
    return tmp / kind


def flips(kind, made, tmp, tries, seed=0):
    "Damage one byte or a stretch of a random file, use the folder, and compare."
    rng = random.Random(f'{kind} {seed}')
    score = Score()
    want, why = outcome(uses[kind], place(made, kind, tmp))
    if why:
        raise Broken(f'{kind} cannot be used without damage: {why}')
    d = place(made, kind, tmp)
    files = sorted(o for o in d.rglob('*') if o.is_file() and o.stat().st_size)
    for _ in range(tries):
        f = rng.choice(files)
        raw = damage(f, rng)
        with score.attack(f'{kind}/{f.relative_to(d)}'):
            got, why = outcome(uses[kind], d)
            if why is None and not same(kind, got, want):
                raise Broken('another result, and no word')
            score.refused += why is not None or got is None
        if kind in goes_on:
            place(made, kind, tmp)
        else:
            f.write_bytes(raw)
    return score


# pages of strangers ---------------------------------------------------------------------------

opened = []
watching = []


def _hook(event, args):
    if watching and event == 'open' and 'canary' in str(args[0]):
        opened.append(args[0])


sys.addaudithook(_hook)
hostile = [None, True, -1, 0, 3, 2**31, -(2**63), 10**400, 1e308, float('nan'), float('inf'), '', 'x' * 100_000]
hostile += ['\0', '\ud800', '../../outside/canary.png', '__import__("os").mkdir("canary")', [], {}, [[]]]
hostile += [[None] * 1000, dict(how='flat', keep='x'), [1, 2], [0.0, 1.0], 1e9, 10**8, 'celldeath', '0' * 64]


def places_of(o, at=()):
    "Every place in a page, as a path of keys; of long lists three."
    yield at
    if isinstance(o, dict):
        for k in o:
            yield from places_of(o[k], (*at, k))
    elif isinstance(o, list):
        for k in sorted({0, len(o) // 2, len(o) - 1}) if o else ():
            yield from places_of(o[k], (*at, k))


def mutated(page, rng, values):
    "The page with one to three values changed, exchanged, or gone."
    page = json.loads(json.dumps(page))
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.choice([o for o in places_of(page) if o] or [()])
        if not at:
            return copy.deepcopy(rng.choice(values))
        o = page
        for k in at[:-1]:
            o = o[k]
        what = rng.random()
        if what < 0.15:
            del o[at[-1]]
        elif what < 0.25 and isinstance(o[at[-1]], (int, float)) and abs(o[at[-1]]) < 1e300:
            o[at[-1]] = o[at[-1]] * rng.choice([-1, 2, 1000]) + rng.choice([0, 1, 0.5])
        elif what < 0.35:
            o[at[-1]] = [o[at[-1]]] * rng.choice([1, 2, 500])
        else:
            o[at[-1]] = copy.deepcopy(rng.choice(values))
    return page


def exercise_store(d):
    "What a stranger's store is used for."
    from celldeath_nb.tiles.cut import add_photographs
    from celldeath_nb.tiles.remedies import normalize_fields
    from celldeath_nb.tiles.store import open_tiles

    t = open_tiles(d)
    t[:3], t.field(t.manifest['sources']['field'][0]), t.verify(), repr(t), t.um_per_px
    normalize_fields(t, 'standardize').batch([0])
    add_photographs(d, d.parent / 'photos', workers=1)
    t.add(score=1, save=True)


def exercise_model(d):
    from celldeath_nb.learn.models import load_model
    from celldeath_nb.learn.prediction import predict

    m = load_model(d)
    h, w = m.tile_px
    predict(m, np.zeros((2, h, w) if h * w < 1e6 else (0, 1, 1), np.uint8), device='cpu')
    predict(m, d.parent / 'photos', device='cpu')


def exercise_trial(d):
    from celldeath_nb.people.judging import judgements
    from celldeath_nb.people.trials import Trial
    from celldeath_nb.tiles.store import open_tiles

    judgements(d)
    tiles = open_tiles(d.parent / 'store', sources='ignore')
    t = Trial(tiles, n=4, out=d)
    t.answer('CPT', seconds=1.0), repr(t)


def exercise_study(d):
    from celldeath_nb.studies.queue import open_results

    r = open_results(d)
    repr(r.settings), repr(r.runs), r.of('a')


pages = dict(
    store=(['manifest.json'], exercise_store),
    model=(['model.json'], exercise_model),
    run=(['recipe.json', 'environment.json', 'metrics.json', 'checksums.json', 'model/model.json'], use_run),
    training=(['identity.json', 'epoch_0001/state.json'], use_training),
    trial=(['s01_pre.json'], exercise_trial),
    study=(['a/setting.json', 'a/seed_1.failed.json'], exercise_study),
    slicing=(['.t.partial/journal.jsonl'], use_slicing),
)


def journal(f):
    "The records of an unfinished slicing, without their checksums."
    return [json.loads(o.partition(' ')[2]) for o in f.read_text(encoding='utf-8').splitlines()]


def strangers(kind, made, tmp, tries, seed=0):
    "Change the pages of a folder, seal them anew as a stranger can, and use it."
    from celldeath_nb.files import sealed
    from celldeath_nb.learn.runs import write_sums
    from celldeath_nb.tiles.cut import _journal_line

    rng = random.Random(f'{kind} {seed}')
    score = Score()
    (tmp / 'outside').mkdir(exist_ok=True)
    shutil.copy(next((made / 'photos').iterdir()), tmp / 'outside' / 'canary.png')
    values = hostile + [str(tmp / 'outside' / 'canary.png'), str(tmp / 'outside'), str(tmp)]
    names, use = pages[kind]
    if why := outcome(use, place(made, kind, tmp))[1]:
        raise Broken(f'{kind} cannot be used as it is: {why}')
    for _ in range(tries):
        d = place(made, kind, tmp)
        f = d / rng.choice(names)
        lines = f.name.endswith('.jsonl')
        page = mutated(journal(f) if lines else json.loads(f.read_text(encoding='utf-8')), rng, values)
        seal = isinstance(page, dict) and rng.random() < 0.8 and '\\ud800' not in json.dumps(page)
        with score.attack(f'{kind}/{f.relative_to(d)} {str(page)[:200]}'):
            text = ''.join(map(_journal_line, page)) if lines and isinstance(page, list) else json.dumps(page)
            f.write_text(json.dumps(sealed(page)) if seal else text, encoding='utf-8')
            if kind == 'run' and f.name != 'checksums.json':
                (d / 'checksums.json').unlink()
                write_sums(d)
            watching.append(1)
            try:
                _, why = outcome(use, d)
            finally:
                watching.clear()
            score.refused += why is not None
            if opened or (Path.cwd() / 'canary').exists():
                raise Broken(f'it has read or made what it must not: {opened}')
        opened.clear()
    return score


# tables of strangers --------------------------------------------------------------------------


def make_tables(d):
    "A table of each kind that is read, and tubes of a cytometer."
    from celldeath_nb.assays.fcs import read_fcs
    from celldeath_nb.simulate.tubes import simulate_tube, write_fcs

    d.mkdir(parents=True)
    photos(d / 'photos', 4)
    names = [f'U2_{k}_1h_RGB_{i:04}_N1.png' for i, k in enumerate(('DMSO', 'CPT', 'DMSO', 'CPT'))]
    p = [0.9, 0.2, 0.6, 0.35]
    rows = [f'{n}#0,{i},{n},{("DMSO", "CPT")[i % 2]},{q},{1 - q}' for i, (n, q) in enumerate(zip(names, p))]
    rows = [f'"{r.split(",", 2)[0]},{r.split(",", 2)[1]}",{r.split(",", 2)[2]}' for r in rows]
    text = dict(predictions='tile,field,label,p_DMSO,p_CPT\n' + '\n'.join(rows) + '\n')
    rows = [f's01,human,pre,{i + 1},t{i},{("DMSO", "CPT")[i % 2]},CPT,{i + 0.5}' for i in range(4)]
    text['judgements'] = 'decider,kind,session,trial,tile,truth,answer,seconds\n' + '\n'.join(rows) + '\n'
    rows = [f'{"ABCD"[i]}0{i + 1},{("DMSO", "CPT")[i % 2]},{10 * (i % 2)}' for i in range(4)]
    text['map'] = 'well,treatment,dose_um\n' + '\n'.join(rows) + '\n'
    text['labels'] = 'field,label,hour\n' + ''.join(f'{n},{("DMSO", "CPT")[i % 2]},{i}\n' for i, n in enumerate(names))
    text['tubes'] = 'file,role,replicate,treatment,hour\na.fcs,unstained,N1,,\nb.fcs,sample,N1,CPT,6\n'
    for k, v in text.items():
        (d / f'{k}.csv').write_text(v, encoding='utf-8')
    for i, k in enumerate('ab'):
        events, _ = simulate_tube(n=40, seed=i)
        write_fcs(pd.DataFrame(events, columns=events.columns), d / f'{k}.fcs')
    assert len(read_fcs(d / 'a.fcs')) == 40
    return d


def read_predictions(f):
    from celldeath_nb.evaluate.preds import as_preds
    from celldeath_nb.evaluate.scores import metrics

    t = as_preds(f, probs=dict(DMSO='p_DMSO', CPT='p_CPT'), tile='tile', field='field')
    metrics(t, n_boot=20)
    return t.to_csv()


def read_judged(f):
    from celldeath_nb.people.judging import judgements

    return judgements(f).to_csv()


def read_map(f):
    from celldeath_nb.plates.maps import read_plate_map

    return read_plate_map(f).to_csv()


def read_labels(f):
    from celldeath_nb.photos.fields import read_fields

    t = read_fields(f.parent / 'photos', label_from=f)
    return t.drop(columns='path').to_csv()


def read_tube_map(f):
    from celldeath_nb.assays.fcs import read_tubes

    found = read_tubes(f.parent, f)
    return str(found)


def read_events(f):
    from celldeath_nb.assays.fcs import read_fcs

    return read_fcs(f).to_csv()


readers = {
    'predictions.csv': read_predictions,
    'judgements.csv': read_judged,
    'map.csv': read_map,
    'labels.csv': read_labels,
    'tubes.csv': read_tube_map,
    'a.fcs': read_events,
}
cells = [
    '',
    ' ',
    '=1+1',
    "'",
    '"',
    '""',
    ',',
    ';',
    '\t',
    '\n',
    '\r',
    '\0',
    '-1',
    '1e400',
    'nan',
    'NaN',
    'inf',
    '1,5',
    '9' * 400,
]
cells += ['x' * 50_000, '\u202e', 'e\u0301', '<script>', '../../x.png', '/etc/passwd', 'True', '\x1b[2J', '2026-01-01']


def spoiled(raw, rng):
    "The bytes of a table with something done to them."
    b = bytearray(raw)
    what = rng.randrange(10)
    at = rng.randrange(len(b))
    if what == 0:
        b[at] ^= rng.randrange(1, 256)
    elif what == 1:
        b[at:at] = rng.choice(cells).encode()
    elif what == 2:
        del b[at : at + rng.choice([1, 5, 50])]
    elif what == 3:
        b[at:at] = b[at : at + rng.choice([5, 50, 500])] * rng.choice([1, 30])
    elif what == 4:
        return bytes(b[:at])
    elif what == 5:
        return bytes(b).decode('latin-1').encode(rng.choice(['utf-16', 'utf-32', 'utf-16-le']))
    elif what == 6:
        b[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice([3, 300])))
    else:
        lines = [o.split(b',') for o in bytes(b).split(b'\n')]
        row = rng.choice(lines)
        if what == 7:
            row[rng.randrange(len(row))] = rng.choice(cells).encode()
        elif what == 8:
            k = rng.randrange(len(lines[0]))
            lines = [o[:k] + o[k + 1 :] if rng.random() < 0.5 else [*o, o[k % len(o)]] for o in lines]
        else:
            lines = [lines[0], *rng.sample(lines[1:], len(lines) - 1)] * rng.choice([1, 2])
        return b'\n'.join(b','.join(o) for o in lines)
    return bytes(b)


harmless = {
    'lines end as in Windows': lambda b: b.replace(b'\n', b'\r\n'),
    'a mark of the encoding': lambda b: b'\xef\xbb\xbf' + b,
    'no end of the last line': lambda b: b.rstrip(b'\n'),
    'an empty line at the end': lambda b: b + b'\n',
}


def tables(name, made, tmp, tries, seed=0):
    "Spoil a table, and read it; and change what means nothing, which must change nothing."
    rng = random.Random(f'{name} {seed}')
    score = Score()
    shutil.rmtree(tmp / 'tables', ignore_errors=True)
    shutil.copytree(made, tmp / 'tables')
    f = tmp / 'tables' / name
    raw = f.read_bytes()
    want, why = outcome(readers[name], f)
    if why:
        raise Broken(f'{name} cannot be read as it is: {why}')
    for k, change in harmless.items() if name.endswith('.csv') else ():
        f.write_bytes(change(raw))
        with score.attack(f'{name}, {k}'):
            got, why = outcome(readers[name], f)
            if got != want:
                raise Broken(f'another result, or a refusal: {why}')
    for _ in range(tries):
        b = spoiled(raw, rng)
        f.write_bytes(b)
        with score.attack(f'{name} {b[:60]!r}'):
            score.refused += outcome(readers[name], f)[1] is not None
    return score


# kills ----------------------------------------------------------------------------------------


def main_in_child(words, folder, ignoring=()):
    "Start the command in a copy of this process, which has torch loaded; its number."
    import signal

    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(folder)
        os.environ['TMPDIR'] = str(folder / 'tmp')
        tempfile.tempdir = None
        quiet = os.open(os.devnull, os.O_RDWR)
        said = os.open(folder / 'said.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for k, fd in enumerate((quiet, said, said)):
            os.dup2(fd, k)
        for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):
            usual = signal.default_int_handler if name == 'SIGINT' else signal.SIG_DFL
            signal.signal(getattr(signal, name), signal.SIG_IGN if name in ignoring else usual)
        from celldeath_nb.cli import main

        main(words)
    except SystemExit as e:
        os._exit(e.code or 0)
    except BaseException as e:
        print('broken:', repr(e), flush=True)
    os._exit(77)


def waited(pid, seconds):
    "The exit status of a child, or None if it still runs."
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def of_session(sid):
    "The processes of a session that are alive."
    out = []
    for p in Path('/proc').iterdir():
        if p.name.isdigit():
            try:
                state, _, _, session = (p / 'stat').read_text().rsplit(')', 1)[1].split()[:4]
            except OSError:
                continue
            if int(session) == sid and state not in 'ZX':
                out.append(int(p.name))
    return out


def digest(folder, name):
    "What was made: weights, pixels and tables, without times."
    out = {}
    for f in sorted((folder / name).rglob('*')) if (folder / name).is_dir() else [folder / name]:
        k = f.relative_to(folder).as_posix()
        if f.suffix in ('.safetensors', '.u8') or f.name in ('tiles.csv', 'predictions.csv', 'p.csv', 'audit.csv'):
            out[k] = f.read_bytes()
        elif f.name == 'history.csv':
            out[k] = pd.read_csv(f).drop(columns='seconds').to_csv()
    return out


jobs = dict(
    slice=['slice', 'photos', '--out', 'tiles', '--grid', '2x2'],
    train=['train', 'tiles', '--out', 'run', '--epochs', '4'],
    predict=['predict', 'run', 'photos', '--out', 'p.csv'],
    audit=['audit', 'tiles', '--out', 'audit'],
    demo=['demo', '--data', 'photos', '--out', 'demo', '--epochs', '2'],
)
needs = dict(slice=[], train=['tiles'], predict=['run'], audit=['tiles'], demo=[])
makes = dict(slice='tiles', train='run', predict='p.csv', audit='audit', demo='demo')


def begin_round(home, kind, tmp):
    shutil.rmtree(tmp / 'round', ignore_errors=True)
    (tmp / 'round' / 'tmp').mkdir(parents=True)
    for k in ('photos', *needs[kind]):
        shutil.copytree(home / k, tmp / 'round' / k)
    return tmp / 'round'


def make_home(home):
    "Photographs, and what each command makes of them without a disturbance."
    if (home / 'times.json').exists():
        return json.loads((home / 'times.json').read_text())
    shutil.rmtree(home, ignore_errors=True)
    (home / 'tmp').mkdir(parents=True)
    photos(home / 'photos', 16, 128)
    for i, f in enumerate(sorted((home / 'photos').iterdir())):
        f.rename(f.with_name(f'{f.name[:-5]}{i // 4 + 1}.png'))
    times = {}
    for kind, words in jobs.items():
        t0 = time.monotonic()
        status = waited(main_in_child(words, home), 300)
        times[kind] = time.monotonic() - t0
        if status != 0:
            raise Broken(f'{kind} does not work: {status} {(home / "said.txt").read_text()[-1000:]}')
    (home / 'times.json').write_text(json.dumps(times))
    return times


def kill_round(home, kind, tmp, how, after, ignoring=()):
    "Kill a command, look for what it left, call it again, and compare."
    import signal

    d = begin_round(home, kind, tmp)
    pid = main_in_child(jobs[kind], d, ignoring)
    ended = waited(pid, after)
    if ended is None:
        os.kill(pid, getattr(signal, how))
        ended = waited(pid, 300 if how in ignoring else 15)
        if ended is None:
            os.kill(pid, signal.SIGKILL)
            waited(pid, 10)
            raise Broken(f'it still ran 15 s after {how}')
    until = time.monotonic() + 5
    while (left := of_session(pid)) and time.monotonic() < until:
        time.sleep(0.05)
    for o in left:
        os.kill(o, signal.SIGKILL)
    if left:
        raise Broken(f'{len(left)} processes were left 5 s later')
    if not (d / makes[kind]).exists():
        again = main_in_child(jobs[kind], d)
        status = waited(again, 300)
        if status != 0 and os.waitstatus_to_exitcode(status) != 3:
            raise Broken(f'the next call ended with {status}: {(d / "said.txt").read_text()[-300:]}')
    said = (d / 'said.txt').read_text()
    if 'Traceback' in said or 'broken:' in said:
        raise Broken(f'a traceback: {said[-500:]}')
    if digest(d, makes[kind]) != digest(home, makes[kind]):
        raise Broken('another result')
    rest = [o.name for o in d.iterdir() if o.name not in ('photos', 'tmp', 'said.txt', makes[kind], *needs[kind])]
    rest += [f'tmp/{o.name}' for o in (d / 'tmp').iterdir() if o.name != 'celldeath-cache']
    if rest:
        raise Broken(f'left behind: {rest}')


def kills(tmp, tries, seed=0):
    "Kill the commands at random times, in one of five ways; rounds that were done are not done again."
    import fastai.vision.all  # noqa: F401  (loaded once, for all the copies of this process)
    import celldeath_nb.cli  # noqa: F401
    import celldeath_nb.learn.recipes as recipes

    recipes._recipes['quick'] = dict(arch='test_resnet', size=32, min_steps=0, batch_size=8)  # a round takes seconds
    home = tmp / 'home'
    times = make_home(home)
    notes = tmp / 'rounds.jsonl'
    done = [json.loads(o) for o in notes.read_text().splitlines()] if notes.exists() else []
    ways = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGKILL', 'SIGINT ignored']
    for k in range(len(done), tries):
        rng = random.Random(f'kills {seed} {k}')
        kind = list(jobs)[k % len(jobs)]
        how = ways[k // len(jobs) % len(ways)]
        after = rng.random() * times[kind]
        ignoring = ('SIGINT', 'SIGHUP') if 'ignored' in how else ()
        what = f'{kind}, {how} after {after:.2f} of {times[kind]:.2f} s'
        try:
            kill_round(home, kind, tmp, how.split()[0], after, ignoring)
            done.append(dict(what=what, broken=None))
        except Broken as e:
            done.append(dict(what=what, broken=str(e)))
        with open(notes, 'a') as f:
            f.write(json.dumps(done[-1]) + '\n')
    score = Score()
    for o in done[:tries]:
        with score.attack(o['what']):
            if o['broken']:
                raise Broken(o['broken'])
    return score


# photographs ----------------------------------------------------------------------------------


def tag(t, kind, n, v):
    return struct.pack('<HHI', t, kind, n) + (struct.pack('<I', v) if kind == 4 or n > 1 else struct.pack('<HH', v, 0))


def tiff(tags, extra=b'', after=0):
    "A TIFF of one page, whose data begin behind the tags."
    head = b'II*\0' + struct.pack('<I', 8)
    return head + struct.pack('<H', len(tags)) + b''.join(tags) + struct.pack('<I', after) + extra


def page(w=64, h=48, packed=1, samples=1, n=None, at=122, rows=None):
    tags = [tag(256, 4, 1, w), tag(257, 4, 1, h), tag(258, 3, 1, 8), tag(259, 3, 1, packed), tag(262, 3, 1, 1)]
    tags += [tag(273, 4, 1, at), tag(277, 3, 1, samples), tag(278, 4, 1, h if rows is None else rows)]
    return [*tags, tag(279, 4, 1, w * h if n is None else n)]


def zeros_packed(n):
    "A stream of zlib that is `n` zeros when it is unpacked."
    c = zlib.compressobj(9)
    piece = bytes(1 << 24)
    out = [c.compress(piece[: min(len(piece), n - i)]) for i in range(0, n, len(piece))]
    return b''.join(out) + c.flush()


def many_samples(f):
    data = zeros_packed(1000 * 1000 * 4000)
    f.with_suffix('.tif').write_bytes(tiff(page(1000, 1000, 8, 4000, len(data)), data))


def page_of_itself(f):
    f.with_suffix('.tif').write_bytes(tiff(page(), bytes(range(256)) * 12, 8))


def endless_counts(f):
    tags = [struct.pack('<HHII', o, 4, 2**30, 8) for o in (273, 279)]
    tags = sorted([*page()[:5], tags[0], *page()[6:8], tags[1]], key=lambda o: struct.unpack('<H', o[:2]))
    f.with_suffix('.tif').write_bytes(tiff(tags, bytes(3072)))


def many_pages(f):
    parts = [b'II*\0' + struct.pack('<I', 8)]
    for i in range(100_000):
        parts.append(
            struct.pack('<H', 1) + tag(256, 4, 1, 64) + struct.pack('<I', 8 + 18 * (i + 1) if i < 99_999 else 0)
        )
    f.with_suffix('.tif').write_bytes(b''.join(parts))


def no_rows(f):
    f.with_suffix('.tif').write_bytes(tiff(page(rows=0), bytes(3072)))


def many_scans(w, h, n):
    "A progressive JPEG whose passes over the pixels are empty."
    seg = lambda m, d: bytes([0xFF, m]) + struct.pack('>H', len(d) + 2) + d
    blocks = -(-w // 8) * -(-h // 8)
    bits = ''
    left = blocks
    while left > 0:
        k = min(left, 32767)
        bits += '0' + format(max(k - 16384, 0), '014b')
        left -= k
    bits += '1' * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b'\xff', b'\xff\0')
    sos = lambda s, e: seg(0xDA, bytes([1, 1, 0, s, e, 0]))
    head = (
        b'\xff\xd8'
        + seg(0xDB, b'\0' + bytes([1] * 64))
        + seg(0xC2, struct.pack('>BHHB', 8, h, w, 1) + bytes([1, 0x11, 0]))
    )
    tables = seg(0xC4, b'\0' + bytes([1] + [0] * 15) + b'\0') + seg(0xC4, b'\x10' + bytes([1] + [0] * 15) + b'\xe0')
    return head + tables + sos(0, 0) + bytes((blocks + 7) // 8) + (sos(1, 63) + data) * n + b'\xff\xd9'


def scans(f, w=4096, h=4096, n=1500):
    "A progressive JPEG with many scans of nothing."
    f.with_suffix('.jpg').write_bytes(many_scans(w, h, n))


def chunk(k, d):
    return struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))


def png_with(name, palette=False, n=500_000_000):
    "A PNG with a text or profile that is large when it is unpacked."

    def make(f):
        s = io.BytesIO()
        a = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
        (a.convert('P') if palette else a).save(s, 'PNG')
        head = {b'iCCP': b'x\0\0', b'zTXt': b'C\0\0', b'iTXt': b'C\0\1\0\0\0'}[name]
        b = s.getvalue()
        f.write_bytes(b[:33] + chunk(name, head + zeros_packed(n)) + b[33:])

    return make


def flat_png(side):
    "A square picture of four channels of 16 bits, nearly all of it zeros."

    def make(f):
        c = zlib.compressobj(9)
        row = b'\1' + b'\xff' * 8 + bytes(8 * (side - 1))
        data = b''.join(c.compress(row * 100) for _ in range(side // 100)) + c.flush()
        head = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 16, 6, 0, 0, 0))
        f.write_bytes(b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', data) + chunk(b'IEND', b''))

    return make


wide_png = flat_png(4000)  # 16 million pixels in 130 kB
deepest_png = flat_png(8900)  # the largest picture that is allowed: 79 million pixels in 0.6 MB


def encoded(kind, **kw):
    "A small picture of noise, as bytes."
    s = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(s, kind, **kw)
    return s.getvalue()


def of_parts(kind, at, part, n):
    "A picture with `n` times the same part, which says nothing, put in at a place."

    def make(f):
        b = encoded(kind)
        k = at % len(b)
        f.with_suffix(f'.{kind.lower()}').write_bytes(b[:k] + part * n + b[k:])

    return make


def many_texts(f, n=4_000_000):
    b = encoded('PNG')
    f.write_bytes(b[:33] + b''.join(chunk(b'tEXt', b'%x\0' % i) for i in range(n)) + b[33:])


def many_strips(f, n=8_000_000):
    "A TIFF one pixel wide, each row a piece, all at the same place."
    tags = [struct.pack('<HHII', 273, 4, n, 200), struct.pack('<HHII', 279, 4, n, 200 + 4 * n)]
    tags = sorted([*page(1, n)[:5], tags[0], tag(277, 3, 1, 1), tag(278, 4, 1, 1), tags[1]], key=lambda o: o[:2][::-1])
    lists = np.full(n, 180, '<u4').tobytes() + np.full(n, 1, '<u4').tobytes()
    f.with_suffix('.tif').write_bytes(tiff(tags).ljust(200, b'\0') + lists)


def hidden_jpeg(side, n, told=64):
    "A TIFF whose JPEG tells its size behind 130 kB of nothing: larger than its page, or gone over many times."

    def make(f):
        b = many_scans(side, side, n)
        b = b[:2] + (b'\xff\xe5\xff\xff' + bytes(65533)) * 2 + b[2:]
        f.with_suffix('.tif').write_bytes(tiff(page(told, told, 7, n=len(b)), b))

    return make


def told_exif(kind, size=3_000_000):
    "EXIF of 65,000 entries, each of which means all its bytes."

    def make(f):
        entries = b''.join(struct.pack('<HHII', i, 7, size, 8) for i in range(65_000))
        exif = (b'II*\0' + struct.pack('<IH', 8, 65_000) + entries).ljust(size + 16, b'\0')
        b = encoded('JPEG')
        if kind == 'PNG':
            b = encoded('PNG')
            f.write_bytes(b[:33] + chunk(b'eXIf', exif) + b[33:])
        else:
            parts = [b'Exif\0\0' + exif[i : i + 65_527] for i in range(0, len(exif), 65_527)]
            parts = [b'\xff\xe1' + struct.pack('>H', len(o) + 2) + o for o in parts]
            f.with_suffix('.jpg').write_bytes(b[:2] + b''.join(parts) + b[2:])

    return make


def entities(f):
    "An OME-TIFF whose description grows tenfold with every name."
    import tifffile

    names = ''.join(f'<!ENTITY {chr(97 + i)} "{("&" + chr(96 + i) + ";") * 10}">' for i in range(1, 10))
    xml = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa">{names}]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="p" DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="64" SizeZ="1" SizeC="1" SizeT="1"><TiffData/></Pixels></Image><x>&j;</x></OME>'
    a = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    tifffile.imwrite(f.with_suffix('.tif'), a, photometric='minisblack', description=xml, metadata=None)


def huge_head(kind):
    def make(f):
        s = io.BytesIO()
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(s, kind)
        b = bytearray(s.getvalue())
        if kind == 'GIF':
            b[6:10] = b'\xff' * 4
        else:
            b[18:26] = struct.pack('<ii', 60_000, 60_000)
        f.with_suffix(f'.{kind.lower()}').write_bytes(b)

    return make


def disguised(ext, text):
    return lambda f: f.with_suffix(ext).write_bytes(text)


def told_zarr(way='0', levels=1):
    "What an OME-Zarr folder says of its sizes."
    axes = [dict(name=k, type='space', unit='micrometer') for k in 'yx']
    scale = [dict(path=way, coordinateTransformations=[dict(type='scale', scale=[0.5, 0.5])])]
    return [dict(version='0.4', axes=axes, datasets=scale * levels)]


def zarr_with(codec=None, dtype='|u1', piece=None, levels=1, way='0', **change):
    "An OME-Zarr folder whose one piece is what `piece` gives, or a pickle that makes a folder called `ran`."

    def make(f):
        class Bad:
            def __reduce__(self):
                return os.mkdir, (str(f.parent.parent / 'ran'),)

        d = f.with_suffix('.zarr')
        (d / '0' / '0').mkdir(parents=True)
        (d / '.zgroup').write_text(json.dumps(dict(zarr_format=2)))
        (d / '.zattrs').write_text(json.dumps(dict(multiscales=told_zarr(way, levels))))
        a = dict(zarr_format=2, shape=[64, 64], chunks=[64, 64], dtype=dtype, compressor=codec, fill_value=0)
        a |= dict(order='C', filters=None, dimension_separator='/') | change
        (d / '0' / '.zarray').write_text(json.dumps(a))
        (d / '0' / '0' / '0').write_bytes(piece() if piece else pickle.dumps(Bad()) + bytes(5000))

    return make


def zarr3_with(codecs):
    "A folder of version 3 whose one piece went through `codecs`."

    def make(f):
        d = f.with_suffix('.zarr')
        (d / '0' / 'c' / '0').mkdir(parents=True)
        group = dict(
            zarr_format=3, node_type='group', attributes=dict(ome=dict(version='0.5', multiscales=told_zarr()))
        )
        grid = dict(name='regular', configuration=dict(chunk_shape=[64, 64]))
        keys = dict(name='default', configuration=dict(separator='/'))
        a = dict(zarr_format=3, node_type='array', shape=[64, 64], data_type='uint8', fill_value=0, attributes={})
        a |= dict(chunk_grid=grid, chunk_key_encoding=keys, codecs=codecs)
        (d / 'zarr.json').write_text(json.dumps(group))
        (d / '0' / 'zarr.json').write_text(json.dumps(a))
        (d / '0' / 'c' / '0' / '0').write_bytes(bytes(4096))

    return make


def packed_thrice():
    "Some hundred bytes that become three billion."
    b = bytes(3_000_000_000)
    for _ in range(3):
        b = zlib.compress(b, 9)
    return b


def more_zarrs():
    "Sizes, names and codecs without measure."
    pickled = dict(name='numcodecs.pickle')
    out = {'zarr, packed three times': zarr_with(filters=[dict(id='zlib', level=9)] * 3, piece=packed_thrice)}
    out['zarr, 100,000 filters'] = zarr_with(filters=[dict(id='zlib', level=1)] * 100_000)
    out['zarr, 200,000 sizes'] = zarr_with(levels=200_000)
    ways = ('../out', '/etc', 'file:///etc', '0/../../out', '..\\out', 'http://127.0.0.1:9/x', '~', '0\0')
    out |= {f'zarr, pixels in {way!r}': zarr_with(way=way) for way in ways}
    plain = dict(name='bytes')
    shard = dict(chunk_shape=[64, 64], codecs=[plain, pickled], index_codecs=[plain, dict(name='crc32c')])
    turned = dict(name='transpose', configuration=dict(order=[1] * 100_000))
    out['zarr 3, transposed'] = zarr3_with([turned, plain])
    out['zarr 3, a pickle'] = zarr3_with([plain, pickled])
    out['zarr 3, a pickle in a shard'] = zarr3_with([dict(name='sharding_indexed', configuration=shard)])
    return out


def zarr_codecs():
    "A folder for every codec that the library knows by name, as compressor and as filter."
    import numcodecs
    from numcodecs.registry import codec_registry, entries

    known = sorted({*codec_registry, *entries})
    assert len(known) > 20 and 'pickle' in known and numcodecs.__version__
    out = {f'zarr, compressor {k}': zarr_with(dict(id=k)) for k in known}
    out |= {f'zarr, filter {k}': zarr_with(None, filters=[dict(id=k)]) for k in known}
    out['zarr, objects'] = zarr_with(dict(id='pickle'), '|O', filters=[dict(id='vlen-utf8')])
    out['zarr, a giant piece'] = zarr_with(None, chunks=[2**20, 2**20], shape=[2**20, 2**20])
    return out


def linked(f):
    os.symlink('/etc/passwd', f)


def piped(f):
    os.mkfifo(f)


def looped(f):
    os.symlink('.', f.with_suffix(''))


def pictures():
    out = dict(many_samples=many_samples, page_of_itself=page_of_itself, endless_counts=endless_counts, scans=scans)
    out |= dict(many_pages=many_pages, no_rows=no_rows, wide_png=wide_png, entities=entities)
    out |= dict(huge_gif=huge_head('GIF'), huge_bmp=huge_head('BMP'), linked=linked, piped=piped, looped=looped)
    for k in (b'iCCP', b'zTXt', b'iTXt'):
        out |= {f'{k.decode()} palette={p}': png_with(k, p) for p in (False, True)}
    out |= dict(deepest_png=deepest_png, many_texts=many_texts, many_strips=many_strips)
    out['png, chunks'] = of_parts('PNG', 33, chunk(b'IDAT', b''), 8_000_000)
    out['jpeg, fill'] = of_parts('JPEG', 2, b'\xff', 80_000_000)
    out['jpeg, segments'] = of_parts('JPEG', 2, b'\xff\xe0\0\2', 10_000_000)
    out['jpeg, comments'] = of_parts('JPEG', 2, b'\xff\xfe\xff\xff' + bytes(65_533), 1000)
    out['gif, blocks'] = of_parts('GIF', -2, b'\1a', 40_000_000)
    out['gif, comment'] = of_parts('GIF', -1, b'\x21\xfe\1a\0', 5_000_000)
    out['jpeg in tiff, larger than its page'] = hidden_jpeg(40_000, 1)
    out['jpeg in tiff, scans'] = hidden_jpeg(2048, 1500, 2048)
    out |= {f'exif in {k}': told_exif(k) for k in ('PNG', 'JPEG')}
    out['postscript as png'] = disguised('.png', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n')
    out['postscript as tif'] = disguised('.tif', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n')
    out['svg as png'] = disguised(
        '.png',
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>',
    )
    out['pdf as jpg'] = disguised('.jpg', b'%PDF-1.4\n')
    out['hdf5 as tif'] = disguised('.tif', b'\x89HDF\r\n\x1a\n' + bytes(500))
    return out | zarr_codecs() | more_zarrs()


def cut_among(d):
    "Read and cut a folder; the tiles of the photographs that are good."
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles

    allow = ['depths', 'sizes']  # what belongs to one set is not asked here
    fields = read_fields(d / 'photos', um_per_px=0.5)
    t = cut_tiles(fields, d / 'tiles', tile_px=(32, 32), edge='drop', allow=allow, overwrite=True)
    names = [o for o in t.table.field.unique() if o.startswith('U2_')]
    said = [str(o['file']) for o in t.problems]
    return {o: t.field(o).tobytes() for o in names}, said


def hostile_pictures(tmp, tries=None, seconds=150, memory=3e9):
    "A hostile file among four good photographs: it is left out or used, the four give the same tiles."
    score = Score()
    made = pictures()
    for what in list(made)[:tries]:
        d = tmp / 'pictures'
        shutil.rmtree(d, ignore_errors=True)
        photos(d / 'photos', 4)
        want, _ = outcome(cut_among, d)
        made[what](d / 'photos' / 'U2_CPT_1h_RGB_0009_N1.png')
        with score.attack(what):
            held = psutil.Process().memory_info().rss  # what the child is born with
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    got, why = outcome(cut_among, d)
                    same = got is not None and {k: got[0].get(k) for k in want[0]} == want[0]
                    (d / 'said.txt').write_text('' if same else f'the others suffer: {why}')
                    code = 0
                except Broken as e:
                    (d / 'said.txt').write_text(str(e))
                    code = 0
                finally:
                    os._exit(code)
            start = time.monotonic()
            while not (ended := os.wait4(pid, os.WNOHANG))[0]:
                if time.monotonic() - start > seconds:
                    os.kill(pid, 9)
                    os.wait4(pid, 0)
                    raise Broken(f'it still ran after {seconds} s')
                time.sleep(0.01)
            if (took := ended[2].ru_maxrss * 1024 - held) > memory:
                raise Broken(f'it took {took / 1e9:.1f} GB')
            if not (d / 'said.txt').exists():
                raise Broken(f'the process died ({ended[1]})')
            if said := (d / 'said.txt').read_text():
                raise Broken(said)
            if (d / 'ran').exists():
                raise Broken('it has run a command')
    return score


# all of it ------------------------------------------------------------------------------------

usual = dict(damage=2000, pages=5000, tables=5000, photographs=None, kills=200)


def together(scores):
    "The scores of the kinds of a part, and their sum."
    pages = {k: v.page() for k, v in scores.items()}
    first = [o for v in pages.values() for o in v.pop('first')][:10]
    total = {k: sum(v[k] for v in pages.values()) for k in ('tried', 'held', 'refused', 'broken')}
    return dict(total, first=first, kinds=pages)


def run_part(part, tries, seed, tmp):
    if part == 'photographs':
        return together(dict(photographs=hostile_pictures(tmp, tries)))
    if part == 'kills':
        return together(dict(kills=kills(tmp, tries, seed)))
    made, what, kinds = equipment(part, tmp)
    slow = [k for k in kinds if k == 'slicing' or (part, k) == ('pages', 'store')]  # a third of a second each
    few = max(1, tries // 45)
    each = {k: few if k in slow else max(1, (tries - few * len(slow)) // (len(kinds) - len(slow))) for k in kinds}
    each[next(k for k in kinds if k not in slow)] += max(0, tries - sum(each.values()))
    scores = {}
    for k in kinds:
        scores[k] = what(k, made, tmp / k, each[k], seed)
        print(f'{part}, {k}: {scores[k].held} of {scores[k].tried} held', *scores[k].broken[:3], sep='\n  ', flush=True)
    return together(scores)


def equipment(part, tmp):
    "What is attacked in a part, the attack, and its kinds."
    made = tmp / ('tables' if part == 'tables' else 'made')
    if not made.exists():
        (make_tables if part == 'tables' else make)(made)
    what, kinds = dict(damage=(flips, uses), pages=(strangers, pages), tables=(tables, readers))[part]
    for k in kinds:
        (tmp / k).mkdir(exist_ok=True)
    return made, what, kinds


def of_each(part, each, seed, tmp, found, keep, piece=50):
    "`each` attacks of every kind, a piece of every kind in turn, written down after each piece; a stop loses one piece."
    made, what, kinds = equipment(part, tmp)
    found.setdefault('kinds', {})
    for k in kinds:
        found['kinds'].setdefault(k, dict(tried=0, held=0, refused=0, broken=0, first=[], cpu_seconds=0, pieces=0))
    while left := [k for k in kinds if found['kinds'][k]['tried'] < each]:
        for k in left:
            mine = found['kinds'][k]
            start = time.process_time()
            page = what(k, made, tmp / k, min(piece, each - mine['tried']), f'{seed} {mine["pieces"]}').page()
            mine |= {o: mine[o] + page[o] for o in ('tried', 'held', 'refused', 'broken')}
            mine['first'] = (mine['first'] + page['first'])[:10]
            mine['cpu_seconds'] = round(mine['cpu_seconds'] + time.process_time() - start, 1)
            mine['pieces'] += 1
            found |= {o: sum(v[o] for v in found['kinds'].values()) for o in ('tried', 'held', 'refused', 'broken')}
            found['first'] = [o for v in found['kinds'].values() for o in v['first']][:10]
            keep()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('parts', nargs='*', choices=[*usual, []], help='which; all if none is named')
    p.add_argument('--tries', type=int, help='of each part that is named; the usual numbers if left out')
    p.add_argument('--each', type=int, help='of each kind of a part; after a stop the same call goes on')
    p.add_argument('--seed', type=int, default=0, help='another seed makes other attacks')
    p.add_argument('--again', action='store_true', help='also parts whose result is there')
    p.add_argument('--keep', type=Path, help='a folder for what the parts make; kills go on in it after a stop')
    p.add_argument('--out', type=Path, default=root / 'benchmarks' / 'results' / 'attack.json')
    args = p.parse_args()
    done = json.loads(args.out.read_text()) if args.out.exists() else {}

    def keep():
        args.out.parent.mkdir(exist_ok=True)
        tmp = args.out.with_suffix('.tmp')
        tmp.write_text(json.dumps(done, indent=1) + '\n')
        tmp.replace(args.out)

    if args.each and not set(args.parts) <= {'damage', 'pages', 'tables'} or args.each and not args.parts:
        p.error('--each goes with damage, pages and tables, named')
    about = dict(python=platform.python_version(), system=platform.system(), version=version('celldeath_nb'))
    for part in args.parts or usual:
        asked = f'{args.each} of each' if args.each else args.tries or usual[part]
        begun = args.each and part in done and (done[part]['asked'], done[part]['seed']) == (asked, args.seed)
        if part in done and not args.again and not begun:
            print(f'{part} is done: {done[part]["held"]} of {done[part]["tried"]} held')
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as d:
            tmp = (args.keep or Path(d)) / part
            tmp.mkdir(parents=True, exist_ok=True)
            if args.each:
                done[part] = done[part] if begun else {}
                done[part] |= dict(seconds=None, seed=args.seed, asked=asked, **about)
                of_each(part, args.each, args.seed, tmp, done[part], keep)
            else:
                found = run_part(part, asked, args.seed, tmp)
                seconds = None if args.keep else round(time.perf_counter() - start)  # may have been begun earlier
                done[part] = dict(found, seconds=seconds, seed=args.seed, asked=asked, **about)
        keep()
        print(f'{part}: {done[part]["held"]} of {done[part]["tried"]} held', *done[part]['first'], sep='\n  ')
    return 1 if any(o['broken'] for o in done.values()) else 0


if __name__ == '__main__':
    sys.exit(main())
