"""README.md is the home page, nbs/index.ipynb, as Markdown; its links begin one folder higher.  python nbs/make_readme.py [--check]"""

import json, re, sys
from pathlib import Path

nbs = Path(__file__).parent


def cell(c):
    "One cell as Markdown; hidden cells and directives are left out."
    src = ''.join(c['source']).strip()
    if c['cell_type'] != 'code':
        return re.sub(r'\]\((?!https?:|#|/)', '](nbs/', src)
    if '#| hide' in src:
        return ''
    code = '\n'.join(each for each in src.splitlines() if not each.startswith('#|'))
    out = ''.join(''.join(o.get('text', [])) for o in c['outputs'])
    return f'```python\n{code}\n```' + (f'\n\n```\n{out.rstrip()}\n```' if out else '')


def readme():
    "The page's text."
    cells = json.loads((nbs / 'index.ipynb').read_text(encoding='utf-8'))['cells']
    return (
        '<!-- made from nbs/index.ipynb by nbs/make_readme.py; change it there -->\n\n'
        + '\n\n'.join(filter(None, map(cell, cells)))
        + '\n'
    )


if __name__ == '__main__':
    target = nbs.parent / 'README.md'
    if '--check' not in sys.argv:
        target.write_text(readme(), encoding='utf-8')
    elif target.read_text(encoding='utf-8') != readme():
        sys.exit('README.md is stale: run python nbs/make_readme.py')
