"""Reads the package's metadata from settings.ini, its one home; puts the lessons into the wheel."""

import re, shutil
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='])
cfg.read(here / 'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
lines = lambda key: [o for o in cfg.get(key, '').strip().splitlines() if o.strip()]
extras = {k.removesuffix('_requirements'): lines(k) for k in cfg if k.endswith('_requirements')}
home = cfg.get('home', '').rstrip('/')
tag = f'v{cfg["version"]}'


class WithNotebooks(build_py):
    "What `celldeath lab` copies goes into the wheel; a clone has it in nbs."

    def run(self):
        super().run()
        for o in [] if self.editable_mode else here.glob('nbs/*/*.ipynb'):
            if o.parent.name in ('tutorials', 'howto', 'paper'):
                to = Path(self.build_lib, 'celldeath_nb', 'notebooks', o.parent.name)
                to.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(o, to / o.name)


def urls():
    "Links beside the package on an index."
    own = {} if not home else dict(Homepage=home, Issues=f'{home}/issues', Changelog=f'{home}/blob/{tag}/CHANGELOG.md')
    return own | dict(o.split(' = ', 1) for o in lines('urls'))


def readme():
    "The README, whose links to files lead to the project's home, since an index has nothing beside it."
    text = (here / 'README.md').read_text(encoding='utf-8')
    if not home:
        return text
    text = re.sub(r'!\[([^\]]*)\]\((?!https?:)', rf'![\1]({home}/raw/{tag}/', text)
    return re.sub(r'(?<!!)(\[[^\]]*\])\((?!https?:|#)', rf'\1({home}/blob/{tag}/', text)


setup(
    name=cfg['name'],
    version=cfg['version'],
    description=cfg['description'],
    author=cfg['author'],
    license=cfg['license'],
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    python_requires=cfg['python_requires'],
    long_description=readme(),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['celldeath_nb', 'celldeath_nb.*']),
    package_data={'': ['*.csv'], 'celldeath_nb': ['py.typed']},
    install_requires=lines('requirements'),
    extras_require=extras,
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': ['celldeath_nb = celldeath_nb._modidx:d']},
    classifiers=lines('classifiers'),
    project_urls=urls(),
    cmdclass=dict(build_py=WithNotebooks),
)
