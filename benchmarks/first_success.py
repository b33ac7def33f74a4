"""How often a first training succeeds: the design of lesson 01 and of `celldeath demo`, one experiment a seed.

usage: python benchmarks/first_success.py [--seeds 200 220] [--jobs 2] [--out benchmarks/results/first_success.csv]
Each seed draws its own photographs and trains its own network, on a processor, in a process of one thread. A row is written as soon as it is known, and seeds
that have a row are passed over, so that a run goes on where it stopped. `accuracy`, `low` and `high` are those of the test set, by well; `audit` is the audit's
verdict beside the network; `seconds` is the wall time of all of it, and says little where `--jobs` share a machine. A seed succeeds if its `low` is above 0.65.
The seeds from 200 on were not looked at when the design was chosen.
"""

import argparse, csv, os, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

columns = ['seed', 'accuracy', 'low', 'high', 'wells', 'audit', 'seconds']
needed = 0.65  # what the lower limit of a success exceeds


def one(seed):
    "Draw, cut, split, audit, train, report: the row of one seed."
    import torch

    from celldeath_nb.learn.recipes import Recipe
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.road import take_road
    from celldeath_nb.simulate.samples import sample_data

    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    t0 = time.perf_counter()
    with tempfile.TemporaryDirectory() as d:
        photos = sample_data('demo', Path(d) / 'photographs', seed=seed, workers=int(os.environ['OMP_NUM_THREADS']))
        road = take_road(read_fields(photos), Path(d) / 'demo', Recipe.demo(seed=seed), device='cpu')
        m = road.run.scores['test']
        low, high = m.interval('accuracy')
        wells = int(road.run.preds.query('split == "test"')[['line', 'treatment', 'well']].drop_duplicates().shape[0])
    seconds = time.perf_counter() - t0
    return [seed, *(round(float(o), 4) for o in (m['accuracy'], low, high)), wells, road.found.verdict, round(seconds)]


def row_of(seed, threads):
    "The row of a seed, from a process of its own."
    env = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'MPLBACKEND': 'agg'}
    done = subprocess.run([sys.executable, __file__, '--one', str(seed)], env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'seed {seed} failed:\n{done.stderr[-3000:]}')
    return next(csv.reader([done.stdout.strip().splitlines()[-1]]))


def known(out):
    "Seeds that have a row."
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(','.join(columns) + '\n')
    with out.open() as f:
        return {int(r['seed']) for r in csv.DictReader(f)}


def sort_rows(out):
    "Rows in the order of seeds; how many of them succeeded."
    with out.open() as f:
        rows = sorted(csv.DictReader(f), key=lambda r: int(r['seed']))
    with out.open('w', newline='') as f:
        w = csv.DictWriter(f, columns, lineterminator='\n')
        w.writeheader()
        w.writerows(rows)
    return sum(float(r['low']) > needed for r in rows), len(rows)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--seeds', type=int, nargs=2, default=(200, 220), help='first, and the one after the last')
    ap.add_argument('--jobs', type=int, default=1, help='how many seeds at a time')
    ap.add_argument('--threads', type=int, default=1, help='of each')
    ap.add_argument('--out', type=Path, default=Path(__file__).parent / 'results' / 'first_success.csv')
    ap.add_argument('--one', type=int, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.one is not None:
        csv.writer(sys.stdout).writerow(one(a.one))
        return
    todo = sorted(set(range(*a.seeds)) - known(a.out))
    with ThreadPoolExecutor(a.jobs) as pool:
        for job in as_completed([pool.submit(row_of, s, a.threads) for s in todo]):
            row = job.result()
            with a.out.open('a', newline='') as f:
                csv.writer(f, lineterminator='\n').writerow(row)
            print(*row, flush=True)
    good, n = sort_rows(a.out)
    print(f'{good} of {n} seeds succeeded: a lower limit above {needed:.0%}')


if __name__ == '__main__':
    main()
