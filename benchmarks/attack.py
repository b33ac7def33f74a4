"""What is tried against the package, and what came of it: `python benchmarks/attack.py [PART ...] [--tries N]`.

Every part makes its own input in a folder that goes afterwards. A part that is done is not done again (`--again`).
The outcome is written to results/attack.json after every part: tried, held, broken, and the first that broke.

An attack has held if the result is the one without it, or if it was refused or passed over with a sentence. It has
broken through if the result differs, if an error of another kind appears, if it takes longer than ten seconds, or if
something is read or left outside of its folder."""

import json, os, random, shutil, sys, time, warnings
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('IN_TEST', '1')  # no progress bars

import numpy as np
import pandas as pd
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
        if len(said) < 20 or not any(o in said for o in '. '):
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
            return rng.choice(values)
        o = page
        for k in at[:-1]:
            o = o[k]
        what = rng.random()
        if what < 0.15:
            del o[at[-1]]
        elif what < 0.25 and isinstance(o[at[-1]], (int, float)):
            o[at[-1]] = o[at[-1]] * rng.choice([-1, 2, 1000]) + rng.choice([0, 1, 0.5])
        elif what < 0.35:
            o[at[-1]] = [o[at[-1]]] * rng.choice([1, 2, 500])
        else:
            o[at[-1]] = rng.choice(values)
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
