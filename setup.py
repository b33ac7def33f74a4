"""Reads the package's metadata from settings.ini, its one home."""

from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='])
cfg.read(here / 'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
lines = lambda key: [o for o in cfg.get(key, '').strip().splitlines() if o.strip()]
extras = {k.removesuffix('_requirements'): lines(k) for k in cfg if k.endswith('_requirements')}

setup(
    name=cfg['name'],
    version=cfg['version'],
    description=cfg['description'],
    author=cfg['author'],
    license=cfg['license'],
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    python_requires=cfg['python_requires'],
    long_description=(here / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['celldeath_nb', 'celldeath_nb.*']),
    package_data={'': ['*.csv'], 'celldeath_nb': ['py.typed']},
    install_requires=lines('requirements'),
    extras_require=extras,
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': ['celldeath_nb = celldeath_nb._modidx:d']},
    classifiers=lines('classifiers'),
    project_urls=dict(o.split(' = ', 1) for o in lines('urls')),
)
