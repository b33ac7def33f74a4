"""A million events of an FCS file read, compensated, gated and counted, against flowio with numpy, on one core.

    python benchmarks/assays_flow.py [--events 1000000] [--repeats 5] [--json benchmarks/results/assays_flow.json]

What a user would write instead: flowio's reader, `flowutils.compensate` (here numpy's solve), and a line at the 99.5th percentile of the unstained tube, without gates of scatter. Both are held against the truth
of the simulated tube, so that the ratio of times stands beside the ratio of errors. Files of integers, as older cytometers write them, are read in a second comparison.
"""

import argparse, os, statistics, sys, tempfile, time
from pathlib import Path

for v in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ[v] = '1'
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

import flowio
import numpy as np

from celldeath_nb.assays.fcs import read_fcs
from celldeath_nb.assays.flow import quadrant_gates, quadrants
from celldeath_nb.assays.gates import prepare_events
from celldeath_nb.assays.spill import compensate
from celldeath_nb.files import write_json
from celldeath_nb.simulate.tubes import POPULATIONS, SPILL, simulate_tube, write_fcs


def timed(f, repeats):
    "Median seconds of `f`, and what it gave."
    took = []
    for _ in range(repeats):
        t = time.perf_counter()
        out = f()
        took.append(time.perf_counter() - t)
    return statistics.median(took), out


def by_hand(path, dark):
    "flowio, numpy and two percentiles: the shares alive, early, late, dead in percent."
    x = flowio.FlowData(path).as_array()[:, 3:5]
    x = np.linalg.solve(SPILL.to_numpy().T, x.T).T
    lines = np.quantile(dark, 0.995, axis=0)
    right, up = (x > lines).T
    return 100 * np.array([(~right & ~up).mean(), (right & ~up).mean(), (right & up).mean(), (~right & up).mean()])


def integers(path, n):
    "A file of 16-bit integers with 1,024 channels on four decades, eight channels wide."
    rng = np.random.default_rng(0)
    text = f'/$PAR/8/$TOT/{n}/$MODE/L/$DATATYPE/I/$BYTEORD/4,3,2,1/$NEXTDATA/0/' + ''.join(
        f'$P{i}N/FL{i}-H/$P{i}B/16/$P{i}R/1024/$P{i}E/4,0/' for i in range(1, 9)
    )
    data = rng.integers(0, 1024, (n, 8)).astype('>u2').tobytes()
    start = 256 + len(text)
    head = b'FCS2.0    ' + b''.join(b'%8d' % o for o in (256, start - 1, start, start + len(data) - 1, 0, 0))
    path.write_bytes(head.ljust(256) + text.encode() + data)
    return path


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--events', type=int, default=1_000_000)
    a.add_argument('--repeats', type=int, default=5)
    a.add_argument('--json', default='', help='write the numbers here')
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        events, truth = simulate_tube('MCF7', 'CPT', 6, n=o.events, seed=1)
        path = write_fcs(events, folder / 'sample.fcs')
        controls = dict(
            untreated=simulate_tube('MCF7', 'DMSO', 6, seed=2)[0],
            unstained=simulate_tube('MCF7', 'DMSO', 6, seed=3, stained=())[0],
        )
        gates = quadrant_gates(controls, spill=SPILL)
        cell_gate = gates.attrs['cell_gate']['']
        true = np.array(
            [100 * (truth.population == k).sum() / truth.population.isin(POPULATIONS).sum() for k in POPULATIONS]
        )
        dark = compensate(controls['unstained'], SPILL)[list(SPILL)].to_numpy()

        def ours():
            cells = prepare_events(read_fcs(path), SPILL, cell_gate)
            return quadrants(cells, gates)[list(POPULATIONS)].to_numpy()[0]

        res = dict(events=o.events)
        res['read_seconds'], table = timed(lambda: read_fcs(path), o.repeats)
        res['flowio_read_seconds'], _ = timed(lambda: flowio.FlowData(path).as_array(), o.repeats)
        res['compensate_seconds'], done = timed(lambda: compensate(table, SPILL), o.repeats)
        res['gate_seconds'], _ = timed(lambda: prepare_events(done, None, cell_gate), o.repeats)
        res['draw_lines_seconds'], _ = timed(lambda: quadrant_gates(controls, spill=SPILL), o.repeats)
        res['seconds'], got = timed(ours, o.repeats)
        res['by_hand_seconds'], hand = timed(lambda: by_hand(path, dark), o.repeats)
        res['ratio_of_times'] = res['seconds'] / res['by_hand_seconds']
        res['error_points'], res['by_hand_error_points'] = (
            float(np.abs(got - true).max()),
            float(np.abs(hand - true).max()),
        )
        res['ratio_of_errors'] = res['by_hand_error_points'] / max(res['error_points'], 1e-9)
        old = integers(folder / 'old.fcs', o.events)
        res['integers_seconds'], x = timed(lambda: read_fcs(old), o.repeats)
        res['flowio_integers_seconds'], y = timed(lambda: flowio.FlowData(old).as_array(), 1)
        res['integers_identical_to_flowio'] = bool(np.allclose(x.to_numpy(), y, rtol=1e-12))
        res['ratio_of_integers'] = res['flowio_integers_seconds'] / res['integers_seconds']
    for k, v in res.items():
        print(f'{k}: {v}')
    if o.json:
        write_json(res, o.json)
    if o.events == 1_000_000 and res['seconds'] > 1.5:
        sys.exit('slower than 1.5 s')


if __name__ == '__main__':
    main()
