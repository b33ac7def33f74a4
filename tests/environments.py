"Environments that checks of versions make once and keep: tests/colab_check and tests/versions_check."

import os
import shutil
import subprocess
import sys

os.environ.pop('VIRTUAL_ENV', None)  # IPython would take packages from the environment in which this was called


def sh(*args, **kw):
    return subprocess.run([str(o) for o in args], check=True, **kw)


def kept(folder, python, fill):
    "The python of an environment in `folder`: `python()` makes it, and `fill` installs what it holds, once. A folder that is no environment is left alone."
    py, done = folder / 'bin' / 'python', folder / 'whole'
    if done.exists():
        return py
    if folder.exists() and not (folder / 'pyvenv.cfg').exists():
        sys.exit(f'{folder} is there and is no environment of Python. Name another folder with --env.')
    shutil.rmtree(folder, ignore_errors=True)
    sh(python(), '-m', 'venv', folder)
    fill(py)
    done.write_text('the environment was installed to its end\n')
    return py
