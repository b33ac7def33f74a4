"""The whole paper at a small scale: what a setting costs, whether `budget` foresees it, and whether kills leave a trace.

    python benchmarks/paper.py [--scale quick] [--only CvsD without_PC3 ...] [--kills 10] [--json benchmarks/results/paper_cpu.json]

Photographs are simulated (seven lines, two experiments, 0 to 3 hours). Three parts:
  settings   wall and processor seconds of every setting that was run, beside what `budget` said before
  fixed      processor seconds of runs of one epoch, with and without what is shared between seeds; how much of them is the network's
  kills      the study once without, and once with kill -9 at random moments: predictions are compared byte by byte, results.csv too
Seconds depend on what else the machine does, so wall and processor seconds are both written down, and the load when it began.
"""

import argparse, hashlib, os, platform, random, signal, sys, tempfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from celldeath_nb.files import write_json
from celldeath_nb.learn.training import train
from celldeath_nb.photos.fields import read_fields
from celldeath_nb.simulate.microscope import simulate_experiment
from celldeath_nb.studies.queue import Rehearsal, open_results, run_settings
from celldeath_nb.studies.results import results_table
from celldeath_nb.studies.settings import LINES, budget, check_settings, paper_settings, scale_settings
from celldeath_nb.tiles.cut import cut_tiles


def photographs(folder, sites):
    "Seven lines at 0 to 3 hours."
    return simulate_experiment(
        folder, LINES, hours=(0, 1, 2, 3), experiments=2, wells=1, sites=sites, size=(240, 320), um_per_px=0.9, seed=17
    )


class Timed:
    "Train, and keep what a run cost."

    def __init__(self):
        self.runs = []

    def __call__(self, tiles, recipe, out, device=None, pairs=None, figures=False):
        clock = time.perf_counter(), time.process_time()
        run = train(tiles, recipe, out, device, pairs=pairs, figures=figures)
        wall, cpu = time.perf_counter() - clock[0], time.process_time() - clock[1]
        self.runs.append(dict(setting=Path(out).parent.name, seed=recipe.seed, wall=wall, cpu=cpu))
        return run


class NetworkClock:
    "Processor seconds of this thread within networks: forward passes of whole modules, and backward passes."

    def __enter__(self):
        self.seconds, self.depth = 0.0, 0
        self.hooks = [
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(self.leave, always_call=True),
        ]
        self.backward = torch.Tensor.backward
        torch.Tensor.backward = lambda *args, **kw: self.go_back(*args, **kw)
        return self

    def __exit__(self, *_):
        torch.Tensor.backward = self.backward
        for o in self.hooks:
            o.remove()

    def enter(self, *_):
        if not self.depth:
            self.start = time.thread_time()
        self.depth += 1

    def leave(self, *_):
        self.depth -= 1
        if not self.depth:
            self.seconds += time.thread_time() - self.start

    def go_back(self, *args, **kw):
        self.enter()  # more than once: torch hands a tensor of fastai's kind over to itself
        self.backward(*args, **kw)
        self.leave()


def settings_part(tiles, settings, out):
    "What was foreseen and what it took, setting by setting."
    cost = budget(tiles, settings, 'cpu').set_index('setting').seconds_a_run
    timed = Timed()
    clock = time.perf_counter(), time.process_time()
    run_settings(tiles, settings, out, device='cpu', train=timed)
    whole = dict(wall=time.perf_counter() - clock[0], cpu=time.process_time() - clock[1])
    rows = [dict(o, foreseen=float(cost[o['setting']])) for o in timed.runs]
    taken, said = sum(o['wall'] for o in rows), sum(o['foreseen'] for o in rows)
    return dict(runs=rows, all=whole, foreseen=said, taken=taken, foreseen_over_taken=said / taken)


def fixed_part(tiles, settings, out):
    "Processor seconds of runs of one epoch, and how much of them is spent within the network: the rest is what every run costs besides."
    torch.set_num_threads(1)  # so that what this thread does is all that the network does
    one = settings.iloc[:1].assign(min_steps=1, epochs=1, seeds=3)
    timed = Timed()
    clock = time.process_time()
    with NetworkClock() as net:
        run_settings(tiles, one, out, device='cpu', train=timed)
    of_runs = [o['cpu'] for o in timed.runs]
    return dict(
        cpu_of_runs=of_runs,
        cpu_of_the_call=time.process_time() - clock,
        network=net.seconds,
        besides_the_network=(sum(of_runs) - net.seconds) / len(of_runs),
    )


def digest(out):
    "Every prediction and the table of results, as one number."
    r = open_results(out)
    files = [run.path / 'predictions.csv' for s in r.settings.setting for run in r.of(s)]
    text = results_table(r).to_csv(index=False).encode()
    return hashlib.sha256(text + b''.join(p.read_bytes() for p in files)).hexdigest()


def killed(tiles, settings, out, train, seconds):
    "The study in a child that is killed after so many seconds; True if it was."
    pid = os.fork()
    if not pid:
        try:
            run_settings(tiles, settings, out, device='cpu', train=train)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def kills_part(tiles, settings, folder, kills, train, longest, seed=0):
    "Results with and without kills at random moments."
    rng = random.Random(seed)
    t0 = time.perf_counter()
    run_settings(tiles, settings, folder / 'calm', device='cpu', train=train)
    calm = time.perf_counter() - t0
    hit = sum(
        killed(tiles, settings, folder / 'killed', train, rng.uniform(0, longest or calm / 3)) for _ in range(kills)
    )
    run_settings(tiles, settings, folder / 'killed', device='cpu', train=train)
    same = digest(folder / 'calm') == digest(folder / 'killed')
    return dict(kills=kills, hit=hit, runs=int(settings.seeds.sum()), same_to_the_bit=same, calm_seconds=calm)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--scale', default='quick')
    a.add_argument('--only', nargs='*')
    a.add_argument('--sites', type=int, default=2)
    a.add_argument('--kills', type=int, default=10)
    a.add_argument('--parts', nargs='*', default=['settings', 'fixed', 'kills', 'rehearsed'])
    a.add_argument('--json')
    args = a.parse_args()
    res = dict(machine=platform.processor() or platform.machine(), cores=os.cpu_count(), load=os.getloadavg())
    res |= dict(threads=os.environ.get('OMP_NUM_THREADS', ''), scale=args.scale)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        tiles = cut_tiles(read_fields(photographs(d / 'photos', args.sites)), d / 'tiles')
        settings = paper_settings().query('weights == "scratch"')
        settings = settings[settings.setting.isin(args.only)] if args.only else settings
        settings = scale_settings(settings, args.scale)
        settings = settings[(check_settings(tiles, settings).problem == '').to_numpy()].reset_index(drop=True)
        res |= dict(tiles=len(tiles), settings=list(settings.setting))
        tiny = scale_settings(paper_settings().query('setting in ["CvsD", "line_U2OS"]'), 'tiny')
        parts = dict(
            settings=lambda: settings_part(tiles, settings, d / 'runs'),
            fixed=lambda: fixed_part(tiles, settings, d / 'fixed'),
            kills=lambda: kills_part(tiles, tiny, d / 'kills', args.kills, None, None),
            rehearsed=lambda: kills_part(
                tiles, tiny.assign(seeds=10), d / 'rehearsed', 5 * args.kills, Rehearsal(0.9, 0.05), 1.0
            ),
        )
        for p in args.parts:
            res[p] = parts[p]()
            print(p, res[p], flush=True)
            if args.json:
                write_json(res, args.json)
    if 'settings' in res:
        wall = np.array([o['wall'] for o in res['settings']['runs']])
        print(f'{len(wall)} runs, {wall.mean():.1f} s each, longest {wall.max():.1f} s')


if __name__ == '__main__':
    main()
