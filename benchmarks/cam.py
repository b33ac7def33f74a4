"""Maps beside a bare forward pass, torchcam and pytorch-grad-cam: ratios of time, in one run, for the same maps; and memory.
python benchmarks/cam.py [--arch resnet50] [--size 240 320] [--rounds 5]    (pip install grad-cam torchcam)"""
import argparse, copy, json, re, statistics, subprocess, sys, time, warnings
from pathlib import Path

import numpy as np
import torch
from fastcore.basics import AttrDict

root = Path(__file__).parents[1]
sys.path.insert(0, str(root))
warnings.simplefilter('ignore')
from celldeath_nb.trust.maps import _folded, _one_batch, cam
from celldeath_nb.learn.models import Model
from celldeath_nb.learn.nets import make_net
from celldeath_nb.learn.runs import environment


def model_of(arch, head, size):
    torch.manual_seed(0)
    return Model(make_net(arch, 2, size, head).eval(), arch, ['CPT', 'DMSO'], tuple(size), tuple(size), .5, .25, head, .434)

def bare(model, x):
    with torch.inference_mode(): return model.net(x)

def as_cam_does(net):
    "What `cam` makes of a network, once a call."
    net = copy.deepcopy(net).to(memory_format=torch.channels_last)
    return torch.nn.Sequential(_folded(net[0]), net[1])

def ours(method, net): return lambda model, x: _one_batch(net, x, method, None, np.zeros(len(x), int), list(range(len(x))))[0]

def by_torchcam(method, batched):
    from torchcam.methods import CAM, GradCAM
    def one(model, x):
        tool = CAM(model.net, '0', '1.3') if method == 'cam' else GradCAM(model.net, '0')
        with tool:
            if method == 'cam':
                with torch.inference_mode(): scores = model.net(x)
            else: scores = model.net(x)
            return tool(class_idx=0, scores=scores, normalized=False)[0].detach().numpy()
    return one if batched else lambda model, x: np.concatenate([one(model, x[i:i+1]) for i in range(len(x))])

def by_grad_cam(batched):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    class Raw(GradCAM):
        "The same without the scaling to the picture's size, whose time is counted with the tool's own form below."
    def one(model, x):
        with Raw(model.net, [model.net[0]]) as tool: return tool(x, [ClassifierOutputTarget(0)]*len(x))
    return one if batched else lambda model, x: np.concatenate([one(model, x[i:i+1]) for i in range(len(x))])

def timed(ways, model, x, rounds):
    "Median seconds of each way, all ways in turn in each round, after one round to warm up."
    times, out = {k: [] for k in ways}, {}
    for r in range(rounds+1):
        for k, f in ways.items():
            t0 = time.perf_counter()
            out[k] = f(model, x)
            if r: times[k].append(time.perf_counter()-t0)
    return {k: statistics.median(v) for k, v in times.items()}, out

def alike(a, b): return float(np.abs(a-b).max()/max(np.abs(b).max(), 1e-30))

def memory(n, arch, size):
    "Peak memory in MB of a process that draws maps of `n` tiles, read batch by batch."
    class Many:
        tile_px, um_per_px = tuple(size), np.nan
        def __init__(self):
            import pandas as pd
            self.table = pd.DataFrame(dict(tile=np.arange(n).astype(str)))
        def __len__(self): return n
        def batch(self, i): return np.random.default_rng(int(i[0])).integers(0, 255, (len(i), *size), dtype=np.uint8)
    cam(model_of(arch, 'linear', size), Many(), bs=8, device='cpu')
    print(int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])//1024) # ru_maxrss would count the parent's memory too

def main():
    p = argparse.ArgumentParser()
    p.add_argument('--arch', default='resnet50')
    p.add_argument('--size', type=int, nargs=2, default=(240, 320))
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--memory', type=int)
    p.add_argument('--out', type=Path, default=root/'benchmarks'/'results'/'cam.json')
    a = p.parse_args()
    if a.memory: return memory(a.memory, 'resnet10t', (120, 160))
    x = torch.randn(a.bs, 1, *a.size)
    res = dict(arch=a.arch, size=list(a.size), bs=a.bs, rounds=a.rounds, ratios={}, seconds={}, same_maps={}, environment=environment('cpu'))
    for head in ('linear', 'fastai'):
        model = model_of(a.arch, head, a.size)
        net = as_cam_does(model.net)
        ways = {'bare forward': bare, 'bare forward, as fast as ours': lambda _, x: bare(AttrDict(net=net), x), **({'ours cam': ours('cam', net), 'torchcam cam': by_torchcam('cam', True), 'torchcam cam one by one': by_torchcam('cam', False)} if head == 'linear' else {}),
                'ours gradcam': ours('gradcam', net), 'torchcam gradcam': by_torchcam('gradcam', True), 'grad-cam one by one': by_grad_cam(False), 'grad-cam batched': by_grad_cam(True)}
        t, out = timed(ways, model, x, a.rounds)
        res['seconds'][head], res['ratios'][head] = t, {k: round(v/t['bare forward'], 3) for k, v in t.items()}
        res['ratios'][head] |= {f'{k} / ours': round(v/t['ours gradcam'], 2) for k, v in t.items() if 'grad-cam' in k or k == 'torchcam gradcam'}
        res['same_maps'][head] = {m: alike(out[f'ours {m}'], out[f'torchcam {m}']) for m in ('cam', 'gradcam') if f'ours {m}' in out}
        norm = lambda m: (m-m.min((1, 2), keepdims=True))/(1e-7+np.ptp(m, (1, 2), keepdims=True))
        big = torch.nn.functional.interpolate(torch.from_numpy(norm(out['ours gradcam']))[:, None], size=tuple(a.size), mode='bilinear')[:, 0].numpy()
        res['same_maps'][head]['correlation with grad-cam, scaled'] = float(np.corrcoef(big.ravel(), out['grad-cam batched'].ravel())[0, 1])
        print(head, json.dumps(res['ratios'][head], indent=1), res['same_maps'][head])
    res['peak_MB'] = {n: int(subprocess.run([sys.executable, __file__, '--memory', str(n)], capture_output=True, text=True, check=True).stdout) for n in (64, 512)}
    print('peak memory by number of tiles, MB:', res['peak_MB'])
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(res, indent=1)+'\n')

if __name__ == '__main__': main()
