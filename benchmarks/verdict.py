"""How often the last sentence of the report is right: simulated laboratories whose truth is known, from photographs to the verdict.

    python benchmarks/verdict.py [--labs 300] [--seed 60000] [--jobs 2] [--out benchmarks/results/verdict.csv]
    python benchmarks/verdict.py --table          what the file holds, by kind and strength
    python benchmarks/verdict.py --figure nbs/images/verdict.jpg          the same as a picture

A laboratory photographs two or seven cell lines on four days, 4 to 14 wells on the day that is held out, with everyday nuisances (lamp, focus, density, of day, well
and photograph). Then one of three things is true of it:
- **sound**: the arms differ by the drug alone, whose effect is strong, weak or none;
- **planted**: the drug does nothing, and a property of the photographs goes with the arm, in each of three strengths (Cramer's V of arm and property by well: 1, .65, .35);
- **leak**: the drug does nothing, and the split that the laboratory brings has the same photograph, or place, or well, on two sides.
The safe road is walked with logistic regression on frozen features (the extra `weights`), since it takes seconds. Then the light of the report is compared with the truth:

    sound, with an effect   right: believed ('go') or cannot be told ('wait'); wrong: condemned ('stop')
    sound, without          right: nothing was shown ('wait'); wrong: believed or condemned
    planted                 right: condemned, or nothing was shown; wrong: believed
    leak                    right: refused before training, or not believed; wrong: believed

The file of results holds the laboratories that were run so far, from the first of the plan on: any first part of it holds all kinds.
A row is written as soon as it is known, and laboratories that have a row are passed over: a run goes on where it stopped. `seconds` are of the processor.
Seeds below 40000, and those from 50000 to 50041 before controls had three verdicts, were looked at; those of the results, from 60000 on, were not.
"""

import argparse
import csv
import os
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

columns = 'lab kind strength lines wells light right accuracy low high audit why seconds'.split()
kinds = 'day well edge order focus gradient dust jpeg file density'.split()
leaks = 'tiles overlap copies well'.split()
strengths = (1.0, 0.65, 0.35)
effects = dict(strong=3.0, weak=1.0, none=0.0)  # times the strength of the paper's drug
all_lines = ['H9', 'U2OS', 'MCF7', 'iPS1', 'PC3', 'T47D', 'iPS2']
um_per_px, size, days, sites = 0.868, (144, 192), 4, 2
hour = 8.0
pattern = '{line}_{treatment}_{experiment}_{well}_s{site}'


def labs(n, seed):
    "The plan of `n` laboratories: three fifths planted, a tenth leaking, the rest sound; any first part holds all kinds."
    rows = [('planted', k, s) for k in kinds for s in strengths for _ in range(6)]
    rows += [('leak', k, 1.0) for k in leaks for _ in range(8)]
    rows += [('sound', k, effects[k]) for k in effects for _ in range(30 if k == 'strong' else 29)]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    many = rng.random(len(rows)) < 0.3
    wells = rng.integers(1, 4, len(rows))
    return [
        dict(
            lab=seed + i,
            group=rows[k][0],
            kind=rows[k][1],
            strength=rows[k][2],
            lines=7 if many[i] else 2,
            wells=1 if many[i] else int(wells[i]),
        )
        for i, k in enumerate(order)
    ][:n]


PLATE = [f'{r}{c:02d}' for r in 'ABCD' for c in range(1, 7)]  # of 24 wells


def marked(well, kind):
    "Whether a place on the plate is one of those that are photographed otherwise: its edge, or its right half."
    return int(well[0] in 'AD' or well[1:] in ('01', '06') if kind == 'edge' else int(well[1:]) > 3)


def place_all(states, kind, rng):
    "A place on the plate for each well; for kinds of place, one whose mark is the well's state while there are any."
    free = [PLATE[i] for i in rng.permutation(len(PLATE))]
    out = []
    for s in states:
        fits = [o for o in free if kind not in ('edge', 'well') or marked(o, kind) == s]
        out.append((fits or free)[0])
        free.remove(out[-1])
    return out


def design(lab, rng):
    "The wells of a laboratory: line, day, place, arm (1: CPT), and the state (0 or 1) of the property that is planted."
    lines = all_lines[: lab['lines']] if lab['lines'] > 2 else list(rng.choice(all_lines, 2, replace=False))
    kind = lab['kind'] if lab['group'] == 'planted' else ''
    v = lab['strength'] if kind else 0.0
    days_of = []
    for day in range(days):
        share = (1 + (v if day % 2 else -v)) / 2 if kind == 'day' else 0.5
        n = 2 * lab['wells']
        treated = [int(share * n + rng.random()) if kind == 'day' else lab['wells'] for _ in lines]
        t = pd.DataFrame([dict(line=o, arm=int(i < k)) for o, k in zip(lines, treated) for i in range(n)])
        # given the arm, so that V of arm and state is `v` in the mean, and each arm has as many wells as the other
        t['state'] = (
            day % 2
            if kind == 'day'
            else (rng.random(len(t)) < np.where(t.arm == 1, (1 + v) / 2, (1 - v) / 2)).astype(int)
        )
        t = t.iloc[rng.permutation(len(t))]
        days_of.append(t.assign(experiment=f'N{day + 1}', well=place_all(t.state, kind, rng)))
    t = pd.concat(days_of, ignore_index=True)
    if kind in ('edge', 'well'):
        t['state'] = [marked(o, kind) for o in t.well]
    return t.iloc[np.argsort(t.state + rng.random(len(t)) / 2) if kind == 'order' else rng.permutation(len(t))]


def nuisance_of(row, draws, lab):
    "Settings of one photograph: everyday nuisances, and what is planted."
    from celldeath_nb.simulate.microscope import nuisance_none, nuisance_spread

    d = {k: sum(sd * x for sd, x in zip(nuisance_spread[k], draws(k, row))) for k in nuisance_spread}
    out = {
        k: nuisance_none[k] * np.exp(d[k]) for k in ('brightness', 'contrast', 'density', 'dying', 'noise', 'texture')
    }
    out |= dict(gradient=abs(d['gradient']), focus_um=d['focus_um'])
    if lab['group'] == 'planted' and row['state']:
        if lab['kind'] in ('day', 'well', 'edge', 'order'):
            out['brightness'] *= 1.25
        if lab['kind'] == 'edge':
            out['density'] *= 0.8
        if lab['kind'] == 'focus':
            out['focus_um'] += 5
        if lab['kind'] == 'gradient':
            out['gradient'] += 0.25
        if lab['kind'] == 'density':
            out['density'] *= 1.5
    return {
        k: float(np.clip(v, 0.3 * nuisance_none[k], 3 * nuisance_none[k])) if nuisance_none[k] else float(v)
        for k, v in out.items()
    }


def photograph(row, lab, draws, seed):
    "The pixels of one photograph."
    from celldeath_nb.simulate.microscope import simulate_field

    effect = lab['strength'] if lab['group'] == 'sound' else 0.0
    px = simulate_field(
        row['line'],
        'CPT' if row['arm'] else 'DMSO',
        hour,
        size=size,
        um_per_px=um_per_px,
        effect=effect,
        seed=seed,
        nuisance=nuisance_of(row, draws, lab),
    )[0]
    if lab['group'] == 'planted' and lab['kind'] == 'dust' and row['state']:
        y, x = np.mgrid[: size[0], : size[1]]
        for cy, cx, r in ((40, 50, 5), (100, 140, 4)):
            px = (px * (1 - 0.35 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r**2)))).astype(np.uint8)
    return px


def write_photograph(path, px, row, lab):
    "Write it as the laboratory does; the path."
    from PIL import Image

    planted = lab['kind'] if lab['group'] == 'planted' else ''
    if planted == 'jpeg':
        path = path.with_suffix('.jpg')
        Image.fromarray(px).save(path, quality=40 if row['state'] else 95)
    elif planted == 'file' and row['state']:
        Image.fromarray(np.dstack([px] * 3)).save(path)
    else:
        Image.fromarray(px).save(path)
    return path


def draws_of(rng):
    "A function that gives the normal numbers of a day, a well and a photograph, the same for the same."
    kept = {}

    def draws(what, row):
        keys = ('d', row['experiment']), ('w', row['experiment'], row['well']), ('p', *map(str, row.values()))
        return [kept.setdefault((what, *k), rng.standard_normal()) for k in keys]

    return draws


def photograph_all(lab, folder):
    "All photographs of a laboratory, and the split that it brings, if it does."
    rng = np.random.default_rng(lab['lab'])
    t = design(lab, rng)
    draws = draws_of(rng)
    folder.mkdir()
    shot = 0
    for row in t.to_dict('records'):
        for _ in range(sites):
            shot += 1
            arm = 'CPT' if row['arm'] else 'DMSO'
            name = f'{row["line"]}_{arm}_{row["experiment"]}_{row["well"]}_s{shot:04d}.png'
            seen = dict(row, shot=shot)
            write_photograph(folder / name, photograph(seen, lab, draws, [lab['lab'], shot]), row, lab)
    return folder


def brought_split(lab, fields, folder, rng):
    "Leaks: the side of each photograph, by its file, and the photographs that are added to make the leak."
    from PIL import Image

    side = pd.Series(np.where(fields.experiment == 'N4', 'test', np.where(fields.experiment == 'N3', 'valid', 'train')))
    side.index = fields.field.to_numpy()
    train = fields[fields.experiment.isin(['N1', 'N2'])].field.to_numpy()
    if lab['kind'] == 'well':  # the second photograph of a well is asked about
        key = fields[['line', 'experiment', 'well', 'treatment']].astype(str).agg(' '.join, axis=1)
        second = fields.groupby(key.to_numpy()).cumcount() == 1
        return pd.Series(
            np.where(second, 'test', np.where(rng.random(len(fields)) < 0.3, 'valid', 'train')), fields.field
        )
    for name in train[: max(6, len(train) // 4)]:
        new = folder / (
            Path(name).stem.split('_s')[0].replace('_N1_', '_N4_').replace('_N2_', '_N4_') + f'_s9{name[-7:-4]}.png'
        )
        if lab['kind'] == 'copies':
            Image.open(folder / name).save(new, compress_level=1)
            side[new.name] = 'test'
        elif lab['kind'] == 'overlap':
            px = np.asarray(Image.open(folder / name))
            shifted = np.roll(px, 40, axis=1)
            shifted[:, :40] = px[:, :40][:, ::-1]
            Image.fromarray(shifted).save(new)
            side[new.name] = 'test'
    return side


def walk(lab, d):
    "From photographs to the verdict: light, accuracy with its interval, the audit's verdict, the last sentence."
    from celldeath_nb.learn.recipes import Recipe
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.report import verdict
    from celldeath_nb.road import train_safely
    from celldeath_nb.tiles.cut import cut_tiles

    folder = photograph_all(lab, d / 'photographs')
    read = dict(pattern=pattern, um_per_px=um_per_px, allow=['duplicates', 'formats'])
    fields = read_fields(folder, **read)
    test = 'experiment=N4'
    grid = (1, 1)
    if lab['group'] == 'leak':
        side = brought_split(lab, fields, folder, np.random.default_rng(lab['lab']))
        fields = read_fields(folder, **read)
        test = 'given'
        grid = (2, 2) if lab['kind'] == 'tiles' else grid
    tiles = cut_tiles(fields, d / 'tiles', grid=grid, workers=1, allow=['duplicates', 'formats'])
    if lab['group'] == 'leak':
        r = np.random.default_rng(lab['lab']).random(len(tiles))
        drawn = np.where(r < 0.2, 'test', np.where(r < 0.4, 'valid', 'train'))
        tiles = tiles.add(split=drawn if lab['kind'] == 'tiles' else side[tiles.table.field].to_numpy())
    try:
        road = train_safely(tiles, d / 'run', Recipe.probe(seed=0), test=test, device='cpu')
    except ValueError as e:
        if lab['group'] == 'sound':
            raise
        return ['refused', *[''] * 4, str(e)[:160]]
    v = verdict(road.run.preds, road.found, road.held_out, road.run.scores)
    m = road.run.scores['test']
    return [
        v.light,
        *(round(float(o), 3) for o in (m['accuracy'], *m.interval('accuracy'))),
        road.found.verdict,
        v.sentences[-1][:160],
    ]


def is_right(lab, light):
    "Whether the sentence agrees with the truth."
    if lab['group'] == 'sound' and lab['strength'] > 0:
        return light in ('go', 'wait')
    if lab['group'] == 'sound':
        return light == 'wait'
    return light in ('stop', 'wait', 'refused')


def one(lab):
    "The row of one laboratory."
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    start = time.process_time()
    with tempfile.TemporaryDirectory() as d:
        light, *numbers, audit, why = walk(lab, Path(d))
    seconds = round(time.process_time() - start, 1)
    named = lab['group'] + ' ' + lab['kind']
    return [
        lab['lab'],
        named,
        lab['strength'],
        lab['lines'],
        lab['wells'],
        light,
        int(is_right(lab, light)),
        *numbers,
        audit,
        why,
        seconds,
    ]


def table(out):
    "Shares by what is true, with the number of laboratories and an interval."
    from celldeath_nb.evaluate.intervals import wilson

    t = pd.read_csv(out)
    t['group'] = t.kind.str.split().str[0]
    t['caught'] = t.light.isin(['stop', 'refused']).astype(int)
    t['believed'] = (t.light == 'go').astype(int)

    def shares(g):
        low, high = wilson(g.right.sum(), len(g))
        return pd.Series(
            dict(
                labs=len(g),
                right=g.right.mean(),
                low=low,
                high=high,
                condemned=g.caught.mean(),
                believed=g.believed.mean(),
                seconds=g.seconds.median(),
            )
        )

    print(shares(t).round(3).to_string(), '\n')
    for by in (['group'], ['kind', 'strength'], ['group', 'lines'], ['group', 'wells']):
        print(t.groupby(by)[t.columns.tolist()].apply(shares).round(2).to_string(), '\n')


answers = dict(condemned='#0072B2', nothing='#C8C8C8', believed='#D55E00')
in_words = dict(condemned='do not believe it, or refused', nothing='nothing was shown', believed='believed')
in_full = {k: k for k in kinds} | dict(
    edge='edge of the plate',
    order='order of acquisition',
    gradient='gradient of light',
    dust='dust on the camera',
    jpeg='JPEG quality',
    file='file properties',
    density='density of cells',
)


def bars(ax, t, title, names):
    "A bar for each kind, as long as there are laboratories, parted by what the report answered."
    for y, kind in enumerate(names):
        left = 0
        for k, color in answers.items():
            n = int((t.answer[t.kind == kind] == k).sum())
            ax.barh(y, n, left=left, color=color, height=0.75)
            if n:
                ax.text(
                    left + n / 2, y, str(n), ha='center', va='center', fontsize=7, color='k' if k == 'nothing' else 'w'
                )
            left += n
    ax.set_title(title, fontsize=8.5)
    ax.set_yticks(range(len(names)), names.values(), fontsize=8)
    ax.set(xticks=[], ylim=(len(names) - 0.4, -0.6))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def figure(out, to):
    "What the report answered, by what was true."
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    t = pd.read_csv(out)
    t['answer'] = t.light.map(dict(stop='condemned', refused='condemned', wait='nothing', go='believed'))
    planted = {f'planted {k}': v for k, v in in_full.items()}
    others = {f'sound {k}': f'sound, {k} effect' for k in ('strong', 'weak')} | {'sound none': 'sound, no effect'}
    others |= {f'leak {k}': f'leak: {k}' for k in leaks}
    fig = plt.figure(figsize=(8.6, 3.5), layout='constrained', dpi=110)
    axs = fig.subplots(1, 4, width_ratios=[1, 1, 1, 1.7])
    for ax, v in zip(axs, strengths):
        bars(ax, t[t.strength == v], f'shortcut, V = {v:g}', planted)
        if v != strengths[0]:
            ax.set_yticks([])
    bars(axs[3], t, 'no shortcut', others)
    keys = [Patch(color=c, label=in_words[k]) for k, c in answers.items()]
    fig.legend(handles=keys, loc='outside lower center', ncols=3, fontsize=8, frameon=False)
    fig.savefig(to, pil_kwargs=dict(quality=88))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--labs', type=int, default=300)
    ap.add_argument('--seed', type=int, default=60000)
    ap.add_argument('--jobs', type=int, default=1, help='how many laboratories at a time')
    ap.add_argument('--out', type=Path, default=Path(__file__).parent / 'results' / 'verdict.csv')
    ap.add_argument('--table', action='store_true', help='say what the file holds, and do nothing else')
    ap.add_argument('--figure', type=Path, metavar='F', help='draw what the file holds, and do nothing else')
    a = ap.parse_args()
    if a.table:
        return table(a.out)
    if a.figure:
        return figure(a.out, a.figure)
    if not a.out.exists():
        a.out.write_text(','.join(columns) + '\n')
    known = set(pd.read_csv(a.out).lab)
    todo = [o for o in labs(300, a.seed)[: a.labs] if o['lab'] not in known]
    os.environ |= dict(OMP_NUM_THREADS='1', MPLBACKEND='agg')
    with ProcessPoolExecutor(a.jobs, get_context('spawn')) as pool:
        for job in as_completed([pool.submit(one, o) for o in todo]):
            row = job.result()
            with a.out.open('a', newline='') as f:
                csv.writer(f, lineterminator='\n').writerow(row)
            print(*row, flush=True)
    table(a.out)


if __name__ == '__main__':
    main()
