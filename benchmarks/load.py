"""Many photographs in one folder: time and memory of every command, `python benchmarks/load.py [SIZE ...]`.

Makes SIZE small photographs (48x64, 8 bits, PNG) in one folder, which goes afterwards, and has the commands `explain`,
`slice`, `train` (one epoch of a small network) and `predict` go through it, each in a process of its own with one
thread. For each size and command results/load.json gets: seconds by the clock, seconds of processor time (which other
work on the machine lengthens less), the peak of memory, and how much was written. `growth` says what matters: the
processor time that each further photograph takes between two sizes, relative to the sizes before, and the memory that
each further photograph keeps. What is done is not done again (`--again`), and a call after a stop goes on.
"""

import argparse, json, os, platform, shutil, subprocess, sys, tempfile, time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

root = Path(__file__).resolve().parents[1]
usual = (1_000, 10_000, 100_000)
H = 48
W = 64


def make_photos(folder, n, seed=0):
    "`n` photographs of noise, of two classes, in four experiments; those that are there stay."
    folder.mkdir(parents=True, exist_ok=True)
    there = {o.name for o in os.scandir(folder)}
    for i in range(n):
        name = f'U2_{("DMSO", "CPT")[i % 2]}_1h_RGB_{i:06}_N{4 * i // n + 1}.png'
        if name in there:
            continue
        a = np.random.default_rng((seed, i)).integers(60 * (i % 2), 120 + 60 * (i % 2), (H, W), dtype=np.uint8)
        tmp = folder / f'.{name}'
        Image.fromarray(a).save(tmp, 'PNG', compress_level=1)
        tmp.rename(folder / name)


jobs = dict(
    explain=['explain', 'photos'],
    slice=['slice', 'photos', '--out', 'tiles'],
    train=['train', 'tiles', '--out', 'run', '--epochs', '1', '--arch', 'test_resnet', '--weights', 'scratch'],
    predict=['predict', 'run', 'photos', '--out', 'preds.csv'],
)
makes = dict(explain='explained.txt', slice='tiles', train='run', predict='preds.csv')
call = 'import sys; from celldeath_nb.cli import main; main(sys.argv[1:])'


def size_of(path):
    "Bytes of a file, or of the files of a folder."
    files = [path] if path.is_file() else [o for o in path.rglob('*') if o.is_file()]
    return sum(o.stat().st_size for o in files)


def measured(words, folder, said):
    "Run a command in a process of its own: seconds, processor seconds, and peak of memory in MB."
    env = dict(os.environ, OMP_NUM_THREADS='1', MPLBACKEND='agg', IN_TEST='1', PYTHONPATH=str(root))
    with open(said, 'wb') as f:
        t0 = time.monotonic()
        p = subprocess.Popen([sys.executable, '-c', call, *words], cwd=folder, env=env, stdout=f, stderr=f)
        try:
            _, status, used = os.wait4(p.pid, 0)
        except BaseException:
            p.kill()
            raise
        p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        raise SystemExit(f'{" ".join(words)} ended with {p.returncode}:\n{said.read_text()[-2000:]}')
    scale = 1e6 if sys.platform == 'darwin' else 1e3
    out = dict(seconds=time.monotonic() - t0, cpu=used.ru_utime + used.ru_stime, peak_mb=used.ru_maxrss / scale)
    return {k: round(v, 2) for k, v in out.items()}


def growth(sizes):
    "For each command and each size after the first: processor time and memory of a further photograph."
    out = {}
    for a, b in zip(sorted(sizes, key=int), sorted(sizes, key=int)[1:]):
        for k in jobs:
            if k in sizes[a] and k in sizes[b]:
                more = int(b) - int(a)
                dt = sizes[b][k]['cpu'] - sizes[a][k]['cpu']
                mb = sizes[b][k]['peak_mb'] - sizes[a][k]['peak_mb']
                out[f'{k}, {a} to {b}'] = dict(ms_each=round(1e3 * dt / more, 3), kb_each=round(1e3 * mb / more, 2))
    return out


def go_through(n, home, done, keep):
    "All commands that were not measured yet on `n` photographs."
    d = home / str(n)
    have = done.setdefault('sizes', {}).setdefault(str(n), {})
    if set(jobs) <= set(have):
        return
    make_photos(d / 'photos', n)
    for k, words in jobs.items():
        if k in have and (k == 'explain' or (d / makes[k]).exists()):
            continue
        made = d / makes[k]
        shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
        have[k] = measured(words, d, d / 'explained.txt' if k == 'explain' else d / f'{k}.txt')
        have[k]['written_mb'] = round(size_of(made) / 1e6, 2)
        print(n, k, have[k], flush=True)
        keep()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('sizes', nargs='*', type=int, help=f'how many photographs; {usual} if none is named')
    p.add_argument('--again', action='store_true', help='also what was measured already')
    p.add_argument('--keep', type=Path, help='a folder for the photographs and what is made of them; it stays')
    p.add_argument('--out', type=Path, default=root / 'benchmarks' / 'results' / 'load.json')
    args = p.parse_args()
    done = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.again:
        for n in args.sizes or usual:
            done.get('sizes', {}).pop(str(n), None)

    def keep():
        done['growth'] = growth(done['sizes'])
        done['photograph'] = f'{H}x{W} pixels, 8 bits, PNG'
        done['threads'] = 1
        done['machine'] = dict(python=platform.python_version(), system=platform.system(), cores=os.cpu_count())
        done['version'] = version('celldeath_nb')
        args.out.parent.mkdir(exist_ok=True)
        args.out.write_text(json.dumps(done, indent=1) + '\n')

    with tempfile.TemporaryDirectory(prefix='celldeath-load-') as tmp:
        for n in args.sizes or usual:
            go_through(n, args.keep or Path(tmp), done, keep)
            if not args.keep:
                shutil.rmtree(Path(tmp) / str(n), ignore_errors=True)
    for k, v in done.get('growth', {}).items():
        print(k, v)


if __name__ == '__main__':
    main()
