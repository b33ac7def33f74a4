"""The documentation as a site that needs neither a server nor a network: notebooks as they are stored, nothing is run.

usage: python docs/build.py [--out docs/_site] [--jobs 2]

Sphinx reads notebooks through MyST-NB (`pip install "celldeath_nb[docs]"`). Before it does, each notebook is made a page: directives of nbdev go,
functions that it exports get their signature as a table of what stands in comments beside their parameters (docments), their source is folded,
and what prose says in backticks is linked where it is a call or a qualified name. The same pages as Markdown, and llms.txt, lie beside them.
"""

import argparse, ast, io, json, re, runpy, shutil, subprocess, sys, tempfile, time, tokenize
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

root = Path(__file__).resolve().parents[1]
nbs = root / 'nbs'
# what stands below the wings and above them, and has no folder of its own
ground = ('files', 'units', 'png', 'pages')
roof = ('report', 'referee', 'road', 'lessons', 'cli', 'panels', 'all')
around = dict(
    ground='What everything else stands on: files, units, pictures, pages.',
    roof='One page, one for a referee, the whole road, the command, forms, and everything for lessons.',
)


def settings():
    "The package's metadata."
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root / 'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


# ---- functions and classes that a notebook exports, read from their source


@dataclass
class Card:
    "A public function, class or method: what is said of it, and what of each of its parameters."

    name: str  # as it is called, with its class
    kind: str  # function, class, method or property
    doc: str  # the docstring
    rows: list = field(default_factory=list)  # name, type, default and comment of each parameter or field
    back: tuple = ()  # type and comment of what comes back


def comments(src):
    "What the comment on each line of `src` says."
    found = tokenize.generate_tokens(io.StringIO(src).readline)
    return {o.start[0]: o.string.lstrip('# ') for o in found if o.type == tokenize.COMMENT}


def parameters(f, said, bound=False):
    "Name, type, default and comment of each parameter of the function `f`; without its first, if it is `bound`."
    a = f.args
    plain = [*a.posonlyargs, *a.args]
    defaults = [*[None] * (len(plain) - len(a.defaults)), *a.defaults]
    rows = [(o.arg, o, d) for o, d in zip(plain, defaults)][bound:]
    rows += [(f'*{a.vararg.arg}', a.vararg, None)] if a.vararg else []
    rows += [(o.arg, o, d) for o, d in zip(a.kwonlyargs, a.kw_defaults)]
    rows += [(f'**{a.kwarg.arg}', a.kwarg, None)] if a.kwarg else []
    shown = lambda node: ast.unparse(node) if node else ''
    return [(name, shown(o.annotation), shown(d), said.get((d or o).end_lineno, '')) for name, o, d in rows]


def card_of(f, said, owner=''):
    "The card of the function `f`; `owner` is the class that it belongs to."
    marks = ' '.join(ast.unparse(o) for o in f.decorator_list)
    if not owner and 'patch' in marks:
        owner = ast.unparse(f.args.args[0].annotation)
    kind = 'property' if 'property' in marks or 'as_prop=True' in marks else 'method' if owner else 'function'
    bound = bool(owner) and 'staticmethod' not in marks
    back = (ast.unparse(f.returns), said.get(f.returns.end_lineno, '')) if f.returns else ()
    name = f'{owner}.{f.name}' if owner else f.name
    return Card(name, kind, ast.get_docstring(f) or '', parameters(f, said, bound), back)


def cards_of_class(c, said):
    "The card of the class `c`, with what it is made from, and those of its public methods."
    made = Card(c.name, 'class', ast.get_docstring(c) or '')
    made.rows = [
        (o.target.id, ast.unparse(o.annotation), ast.unparse(o.value) if o.value else '', said.get(o.end_lineno, ''))
        for o in c.body
        if isinstance(o, ast.AnnAssign) and not o.target.id.startswith('_')
    ]
    methods = [o for o in c.body if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for o in methods:
        if o.name == '__init__':
            made.rows = parameters(o, said, bound=True)
    return [made, *(card_of(o, said, c.name) for o in methods if not o.name.startswith('_'))]


def cards(src):
    "The cards of what is public in the source of a cell."
    said, found = comments(src), []
    for o in ast.parse(src).body:
        if isinstance(o, ast.ClassDef) and not o.name.startswith('_'):
            found += cards_of_class(o, said)
        if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef)) and not o.name.startswith('_'):
            found.append(card_of(o, said))
    return found


def signature(card):
    "How it is called, on one line or one parameter a line."
    if card.kind == 'property':
        return card.name
    words = [f'{name}={default}' if default else name for name, _, default, _ in card.rows]
    one = f'{card.name}({", ".join(words)})'
    return one if len(one) < 88 else f'{card.name}(\n' + ''.join(f'    {o},\n' for o in words) + ')'


def told(card, module, level=3):
    "A card as Markdown: heading, signature, docstring, table."
    code = lambda o: f'`{o}`'.replace('|', '\\|') if o else ''
    plain = lambda o: o.replace('|', '\\|')
    rows = [(code(a), plain(d), code(b), code(c[:60])) for a, b, c, d in card.rows]
    if any(card.back):
        rows.append(('*returns*', plain(card.back[1]), code(card.back[0]), ''))
    head = '| name | what it is | type | default |\n| --- | --- | --- | --- |\n'
    table = head + '\n'.join(f'| {" | ".join(o)} |' for o in rows) if rows else ''
    target = f'({label_of(module, card)})=\n{"#" * level} `{card.name}`'
    return '\n\n'.join(filter(None, [target, f'```python\n{signature(card)}\n```', card.doc, table]))


# ---- notebooks


def text(cell):
    return ''.join(cell['source'])


def directives(src):
    return re.findall(r'^#\| *([\w-]+)', src, re.M)


def bare(src):
    "Source without the lines that speak to nbdev."
    return '\n'.join(o for o in src.splitlines() if not o.startswith('#|')).strip('\n')


def only_imports(src):
    try:
        return all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.parse(src).body)
    except SyntaxError:  # a line for the shell
        return False


class Page:
    "A notebook on its way into the site."

    def __init__(self, path):
        self.path = path
        self.name = path.relative_to(nbs).with_suffix('').as_posix()
        self.cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        self.module = path.stem.partition('_')[2] if path.parent.name == 'api' else ''
        first = text(self.cells[0])
        self.title = self.module or re.match(r'# +(.*)', first).group(1)
        self.clause = re.search(r'^> *(.*)', first, re.M).group(1)
        self.cards = {}
        self.own = set()  # functions that it defines for itself: `check(x)` of a lesson is not the package's
        for i, c in enumerate(self.cells):
            self.look_at(i, c)

    def look_at(self, i, cell):
        "Keep the cards of what cell number `i` exports, and the names of what it defines otherwise."
        src = text(cell)
        if cell['cell_type'] != 'code':
            return
        if {'export', 'exports'} & set(directives(src)):
            self.cards[i] = cards(bare(src))
        else:
            self.own |= set(re.findall(r'^ *def (\w+)', src, re.M))

    @property
    def public(self):
        return [o for found in self.cards.values() for o in found]


def label_of(module, card):
    "Where a card can be linked to; Sphinx tells no capitals, so `Metrics` and `metrics` need more than their names."
    return f'{module}.{"class." if card.kind == "class" else ""}{card.name}'


wing_of = lambda module: module.split('.')[0] if '.' in module else 'ground' if module in ground else 'roof'
spans = re.compile(r'```.*?```|\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)|^#.*?$|`([^`\n]+)`', re.S | re.M)


class Links:
    "Where the names of the package are explained."

    def __init__(self, pages):
        self.at = {}  # every way to write a qualified name, to its label
        self.simple = {}  # names that are called without a module
        for page in (o for o in pages if o.module):
            self.at |= {page.module: page.module} if '.' in page.module else {}
            for o in page.public:
                label = label_of(page.module, o)
                self.at |= {f'{of}.{o.name}': label for of in (page.module, wing_of(page.module))}
                if '.' in o.name:
                    self.at[o.name] = label
                else:
                    self.simple[o.name] = label

    def find(self, code, own=()):
        "The label of what `code` names, if it is a call or a qualified name."
        called = re.fullmatch(r'((?:\w+\.)*\w+)\(.*\)', code, re.S)
        name = re.sub(r'^(celldeath_nb|cd)\.', '', called.group(1) if called else code)
        if name in own:
            return None
        return self.at.get(name) or (self.simple.get(name) if called else None)

    def put(self, prose, own=()):
        "Markdown with links behind what is in backticks; blocks of code, headings and what is linked already stay."

        def f(m):
            label = m.group(1) and self.find(m.group(1), own)
            return f'[{m.group(0)}](#{label})' if label else m.group(0)

        return spans.sub(f, prose)


def made_for_colab(src):
    "The cells that install the package in Colab say nothing to who reads the site."
    return src.startswith(('# @title Install', '**In Google Colab**'))


def shown(page, links):
    "The cells of a page as the site shows them."
    res = []
    for i, c in enumerate(page.cells):
        src = text(c)
        if made_for_colab(src) or {'hide', 'default_exp'} & set(directives(src) if c['cell_type'] == 'code' else ()):
            continue
        if c['cell_type'] == 'markdown':
            src = re.sub(r'^# .*', f'# {page.title}', src, count=1) if i == 0 else src
            target = f'({page.module})=\n' if i == 0 and '.' in page.module else ''
            res.append(dict(c, source=target + links.put(src, page.own), metadata={}))
        else:
            res += shown_code(page, links, i, c)
    return res


def shown_code(page, links, i, cell):
    "A cell of code: what it exports is told and its source folded; imports of a room are left out."
    src = bare(text(cell))
    exported = {'export', 'exports', 'exporti'} & set(directives(text(cell)))
    if not src or page.module and only_imports(src):
        return []
    tags = ['hide-input'] if exported else ['hide-cell'] if cell['metadata'].get('jupyter') else []
    res = dict(cell, source=src, metadata=dict(tags=tags), execution_count=None)
    res['outputs'] = [dict(o, execution_count=None) if 'execution_count' in o else o for o in cell['outputs']]
    found = page.cards.get(i, [])
    levels = [3 + ('.' in o.name) for o in found]
    md = '\n\n'.join(told(o, page.module, n) for o, n in zip(found, levels))
    card = dict(cell_type='markdown', id=f'card-{i}', metadata={}, source=links.put(md, page.own))
    return [card, res] if found else [res]


def notebook(cells):
    "A notebook as a file."
    language = dict(name='python', pygments_lexer='python')
    kernel = dict(name='python3', display_name='Python 3', language='python')
    meta = dict(kernelspec=kernel, language_info=language)
    return json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5), ensure_ascii=False)


def as_markdown(cells):
    "Cells as Markdown for who reads no HTML: prose, code, and what was printed."
    parts = []
    for c in cells:
        src = re.sub(r'^\([\w.]+\)=\n', '', text(c), flags=re.M)
        parts.append(src if c['cell_type'] == 'markdown' else f'```python\n{src}\n```')
        for o in c.get('outputs', []):
            out = o.get('text') or o.get('data', {}).get('text/plain', '')
            parts.append(f'```\n{"".join(out).rstrip()}\n```' if out else '')
    return '\n\n'.join(filter(None, parts)) + '\n'


# ---- pages that lead to the others


def toc(names, caption='', hidden=True, depth=1):
    "A list of pages for Sphinx; each name may bring its title."
    options = ([':hidden:'] if hidden else []) + ([f':caption: {caption}'] if caption else [])
    entries = '\n'.join(f'{title} <{name}>' if title else name for name, title in names)
    return '\n'.join(['```{toctree}', *options, f':maxdepth: {depth}', '', entries, '```'])


def listed(pages, head):
    "A table of pages with their clauses."
    rows = [f'| [{numbered(o)}](/{o.name}.ipynb) | {o.clause} |' for o in pages]
    return '\n'.join([f'| {head} | what it is |', '| --- | --- |', *rows])


def numbered(page):
    "The title, behind the number of a lesson."
    number = re.match(r'(\d+)_', page.path.stem)
    return f'{number.group(1)} {page.title}' if number and not page.module else page.title


def shelf(title, prose, pages, head):
    "A page that leads to others."
    return '\n\n'.join([f'# {title}', prose, listed(pages, head), toc([(f'/{o.name}', numbered(o)) for o in pages])])


def wing_page(wing, clause, rooms, links):
    "A page for a wing: its rooms, and every name that it has."
    parts = [f'# {wing}', clause, listed(rooms, 'room')]
    for o in rooms:
        names = [c for c in o.public if c.kind in ('function', 'class')]
        doc = lambda c: c.doc.splitlines()[0].replace('|', '\\|') if c.doc else ''
        rows = [f'| [`{c.name}`](#{label_of(o.module, c)}) | {doc(c)} |' for c in names]
        table = '\n'.join(['| name | what it does |', '| --- | --- |', *rows]) if rows else ''
        parts += [f'## {o.title}', o.clause, table]
    return '\n\n'.join(filter(None, [*parts, toc([(f'/{o.name}', '') for o in rooms])]))


def house(pages, links):
    "The pages of the wings, and the one that leads to them, by name."
    wings = runpy.run_path(str(nbs / 'make_faces.py'))['wings']
    clauses = dict(ground=around['ground']) | wings | dict(roof=around['roof'])
    rooms = {o: [p for p in pages if p.module and wing_of(p.module) == o] for o in clauses}
    res = {f'modules/{o}': wing_page(o, clauses[o], rooms[o], links) for o in clauses}
    rows = [f'| [{o}](/modules/{o}.md) | {clauses[o]} | {len(rooms[o])} |' for o in clauses]
    table = '\n'.join(['| wing | what it is for | rooms |', '| --- | --- | --- |', *rows])
    prose = 'A module uses its own wing and the wings above it in this table. Every name can be had from its wing, and from the top: '
    prose += '`from celldeath_nb.photos import read_fields`.'
    res['modules'] = '\n\n'.join(['# Modules', prose, table, toc([(f'/modules/{o}', '') for o in clauses])])
    return res


def texts(pages, links):
    "Every page that is no notebook, by name."
    of = lambda folder: [o for o in pages if o.path.parent.name == folder]
    lessons = 'Read in order; each runs alone, without a network, on two processor cores.'
    how = 'One task each, for data of your own.'
    paper = 'One notebook per figure or table of the paper that this package rebuilds.'
    res = dict(
        lessons=shelf('Lessons', lessons, of('tutorials'), 'lesson'),
        howtos=shelf('How-to', how, of('howto'), 'task'),
        papers=shelf('The paper', paper, of('paper'), 'notebook'),
        changes=(root / 'CHANGELOG.md').read_text(encoding='utf-8'),
        contributing=(root / 'CONTRIBUTING.md').read_text(encoding='utf-8'),
    )
    return res | house(pages, links)


def at_home(links, page):
    "The home page: what it says, and where everything is."
    names = [('lessons', ''), ('howtos', ''), ('papers', ''), ('modules', '')]
    about = [('changes', ''), ('contributing', '')]
    source = '\n\n'.join([toc(names), toc(about, 'About')])
    return [*shown(page, links), dict(cell_type='markdown', id='toc', metadata={}, source=source)]


def llms(pages):
    "A guide for language models: what the site holds, as links to Markdown."
    first, *others = pages
    parts = [f'# {first.title}', f'> {first.clause}']
    for folder, head in dict(tutorials='Lessons', howto='How-to', paper='The paper', api='Modules').items():
        rows = [f'- [{o.title}]({o.name}.md): {o.clause}' for o in others if o.path.parent.name == folder]
        parts.append(f'## {head}\n\n' + '\n'.join(rows))
    return '\n\n'.join(parts) + '\n'


# ---- the site


def write(folder, pages):
    "The sources of the site in `folder`, and Markdown for readers of no HTML in `folder`/beside."
    links = Links(pages)
    for page in pages:
        cells = at_home(links, page) if page.name == 'index' else shown(page, links)
        plain = shown(page, Links([]))
        for name, src in ((f'{page.name}.ipynb', notebook(cells)), (f'beside/{page.name}.md', as_markdown(plain))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(src, encoding='utf-8')
    for name, src in texts(pages, links).items():
        (folder / f'{name}.md').parent.mkdir(exist_ok=True)
        (folder / f'{name}.md').write_text(src + '\n', encoding='utf-8')
    (folder / 'beside' / 'llms.txt').write_text(llms(pages), encoding='utf-8')
    for o in (p for p in nbs.glob('images/*') if p.is_file()):
        (folder / 'images').mkdir(exist_ok=True)
        shutil.copy(o, folder / 'images')


def found():
    "The notebooks as pages, the home page first."
    inside = [
        nbs / 'index.ipynb',
        *(o for f in ('tutorials', 'howto', 'paper', 'api') for o in (nbs / f).glob('*.ipynb')),
    ]
    order = lambda o: (
        ('tutorials howto paper api'.split().index(o.parent.name), o.name) if o.parent != nbs else (-1, '')
    )
    return [Page(o) for o in sorted(inside, key=order)]


def build(out, jobs):
    "Make the site in a folder of its own, and put it in place when it is whole."
    if out.exists() and not (out / 'llms.txt').exists():
        sys.exit(
            f'{out} exists and is no site that was made here, so it is not replaced. Give another folder with --out.'
        )
    with tempfile.TemporaryDirectory() as d:
        src, site = Path(d) / 'src', Path(d) / 'site'
        src.mkdir()
        write(src, found())
        beside = shutil.move(src / 'beside', Path(d) / 'beside')
        how = ['-b', 'html', '-q', '-W', '--keep-going', '-j', jobs, '-c', root / 'docs', '-d', Path(d) / 'trees']
        done = subprocess.run([sys.executable, '-m', 'sphinx', *map(str, [*how, src, site])])
        if done.returncode:
            sys.exit('The site was not made: see above.')
        shutil.copytree(beside, site, dirs_exist_ok=True)
        for o in [*site.glob('_static/*macros.html'), *site.rglob('*.map')]:  # the theme's own tools
            o.unlink()
        (site / '.nojekyll').touch()
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(site, out)


def main():
    ap = argparse.ArgumentParser(description=dedent(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, default=root / 'docs' / '_site')
    ap.add_argument('--jobs', type=int, default=2, help='how many processes write pages')
    a = ap.parse_args()
    start = time.monotonic()
    build(a.out, a.jobs)
    files = [o for o in a.out.rglob('*') if o.is_file()]
    pages = sum(o.suffix == '.html' for o in files)
    size = sum(o.stat().st_size for o in files) / 1e6
    print(f'{a.out / "index.html"}: {pages} pages, {size:.0f} MB, {time.monotonic() - start:.0f} s')


if __name__ == '__main__':
    main()
