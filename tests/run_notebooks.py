"""Runs notebooks, each in a process of its own that starts with torch and fastai loaded.

usage: python tests/run_notebooks.py [--workers 2] [--flags slow] [--save] [--seconds 900] [--cold] [NOTEBOOK or FOLDER ...]

`nbdev-test` hands all notebooks to the same few processes, so that what one of them patches, sets or leaves running meets those that come after; a new
Python for each notebook would wait for torch every time. Here one process imports what takes long, and is copied (forked) for every notebook, which
finds nothing of another's. Where a process cannot be copied (Windows), each notebook starts from nothing.
"""

import argparse, multiprocessing, os, re, signal, sys, tempfile, time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

root = Path(__file__).resolve().parents[1]
# what takes seconds to import; the package is not among them, so every notebook imports it anew
heavy = 'nbdev.test torch torchvision.models timm fastai.vision.all matplotlib.pyplot scipy.ndimage scipy.stats'
heavy += (
    ' sklearn.linear_model sklearn.model_selection skimage.filters statsmodels.genmod.generalized_estimating_equations'
)
heavy = heavy.split()

runners_own = re.compile(
    r'[/\\](execnb|IPython|nbdev|fastcore|asyncio|multiprocessing|concurrent)[/\\]|[/\\](run_notebooks|threading)\.py'
)


def found(paths):
    """The notebooks among `paths`, and those in the folders among them; hidden ones and copies by the tools are left out.
    The last come first: lessons and upper floors take longest, and a long one at the end would keep one core waiting."""
    inside = lambda p: [
        o for o in p.rglob('*.ipynb') if not any(part.startswith(('.', '_')) for part in o.relative_to(p).parts)
    ]
    seen = [o for p in paths for o in (sorted(inside(p), reverse=True) if p.is_dir() else [p])]
    return seen or sys.exit(f'no notebook in {", ".join(map(str, paths))}')


def run_here(path, log, flags, save):
    "Run one notebook in this process, with what it says written to the file `log`."
    if hasattr(os, 'setsid'):
        os.setsid()
    out = os.open(log, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(out, fd)
    from nbdev.config import get_config
    from nbdev.test import test_nb

    cfg = get_config(path.parent)
    skip = cfg.tst_flags.split() if isinstance(cfg.tst_flags, str) else list(cfg.tst_flags)
    passed, _ = test_nb(path, skip, flags, basepath=cfg.config_path, profile=False, save=save)
    sys.exit(not passed)


@dataclass
class Run:
    "A notebook on its way: where it runs, and where it writes what it says."

    path: Path
    process: multiprocessing.Process
    log: Path
    start: float

    @property
    def seconds(self):
        return time.monotonic() - self.start


def begin(path, context, log, flags, save):
    "Start a process for the notebook at `path`."
    log.touch()
    process = context.Process(target=run_here, args=(path, log, flags, save))
    process.start()
    return Run(path, process, log, time.monotonic())


def stopped(run):
    "End a notebook that takes too long; asked first, nbdev tells where it stands."
    for ask in (lambda: os.kill(run.process.pid, signal.SIGINT), run.process.kill):
        ask()
        run.process.join(10)
        if not run.process.is_alive():
            return


def left_running(pid):
    "Whether processes that the notebook started outlived it by two seconds; they are ended."
    if not hasattr(os, 'killpg'):
        return False
    try:
        for _ in range(20):
            os.killpg(pid, 0)
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def readable(text):
    "The end of what was said of a failure, without the frames of the runner itself."
    lines, shown = [], True
    for line in text.splitlines():
        if line.startswith('  File "'):
            shown = not runners_own.search(line)
        elif not line.startswith('    '):
            shown = True
        if shown and line.strip('= ') and not line.startswith('Traceback'):
            lines.append(line)
    cell = [o for o in lines if o.startswith('While Executing Cell')][-1:]
    return '\n'.join(cell + [o for o in lines[-30:] if o not in cell])


def finish(run, late):
    "What is to be said of a notebook that has ended: nothing, if it passed."
    if late:
        stopped(run)
    run.process.join()
    text = readable(run.log.read_text(encoding='utf-8', errors='replace'))
    left, code = left_running(run.process.pid), run.process.exitcode
    if late:
        return f'it was stopped after {run.seconds:.0f} s\n{text}'
    if code < 0:
        return f'its process was ended by {signal.Signals(-code).name}\n{text}'
    if code:
        return text or f'its process ended with code {code}'
    return 'a process that it started is still running' if left else ''


def run_all(paths, workers=2, flags=(), save=False, seconds=900, cold=False):
    "Run notebooks, `workers` at a time; yields each when it has ended, with what is to be said of it."
    context = multiprocessing.get_context(
        'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
    )
    context.set_forkserver_preload(heavy[:1] if cold else heavy)
    waiting, running = list(enumerate(paths)), []
    with tempfile.TemporaryDirectory() as logs:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    i, path = waiting.pop(0)
                    running.append(begin(path, context, Path(logs) / f'{i}.log', list(flags), save))
                wait([o.process.sentinel for o in running], timeout=1)
                for o in [o for o in running if not o.process.is_alive() or o.seconds > seconds]:
                    said = finish(o, o.process.is_alive())
                    running.remove(o)
                    yield o, said
        finally:
            for o in running:
                o.process.kill()
            for o in running:
                left_running(o.process.pid)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('paths', nargs='*', type=Path, default=[root / 'nbs'])
    ap.add_argument('--workers', type=int, default=min(2, os.cpu_count() or 1), help='how many at once')
    ap.add_argument('--flags', default='', help='cells with these directives run too')
    ap.add_argument('--save', action='store_true', help='store the outputs of notebooks that pass')
    ap.add_argument('--seconds', type=float, default=900, help='longest time for one notebook')
    ap.add_argument('--cold', action='store_true', help='load neither torch nor fastai beforehand')
    a = ap.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // a.workers)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped'))
    start, told, n = time.monotonic(), [], 0
    for run, said in run_all(
        found([o.resolve() for o in a.paths]), a.workers, a.flags.split(), a.save, a.seconds, a.cold
    ):
        n += 1
        print(f'{run.seconds:6.1f} s  {run.path.name}{"  FAILED" if said else ""}', flush=True)
        if said:
            told.append(f'{run.path.name} failed: {said}')
    print(f'{n} notebooks, {len(told)} failed, {time.monotonic() - start:.0f} s')
    if told:
        sys.exit('\n\n'.join(['', *told]))


if __name__ == '__main__':
    main()
