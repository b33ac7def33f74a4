"A benchmark as a module, so that a test and the benchmark do the same."

import importlib.util
from pathlib import Path

root = Path(__file__).resolve().parents[1]


def benchmark(name):
    "The module `benchmarks/<name>.py`."
    spec = importlib.util.spec_from_file_location(name, root / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
