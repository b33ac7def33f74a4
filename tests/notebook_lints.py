"What must not be in a notebook. Each lint takes a notebook and answers with a list of complaints; an empty list is praise."

import ast, io, json, re, tokenize
from collections import Counter
from pathlib import Path
from runpy import run_path

import celldeath_nb


root = Path(__file__).resolve().parents[1]
max_lines = 45  # ruff gives each argument of a long call its line
max_chars = 120  # of a line of code, strings not counted: the prose of a message may be longer
max_told = 150  # of a line of code and the comment beside it
max_bytes = 300_000
skip_reasons = ('slow', 'cuda', 'net')
colab = run_path(str(root / 'nbs' / 'make_colab.py'))


class Cell:
    "One cell: `kind` is 'code' or 'markdown', `src` its text, `code` its text without magics, `dirs` its directives."

    def __init__(self, raw):
        self.kind = raw['cell_type']
        self.src = ''.join(raw['source'])
        self.outputs = raw.get('outputs', [])
        self.meta = raw.get('metadata', {})
        self.dirs = re.findall(r'^#\| *([\w-]+)', self.src, re.M) if self.kind == 'code' else []
        self.code = (
            '\n'.join('pass' if re.match(r'\s*[!%]', o) else o for o in self.src.splitlines())
            if self.kind == 'code'
            else ''
        )

    @property
    def shared(self):
        "Names that rooms share and readers do not need: no underscore, but not in `__all__` either."
        return 'exporti' in self.dirs

    @property
    def installs(self):
        "The first cell for Colab, which nbs/make_colab.py makes; it imports what it needs, and is the same everywhere."
        return self.kind == 'code' and self.src.startswith(colab['title'])

    @property
    def exported(self):
        return any(d in ('export', 'exporti', 'exports') for d in self.dirs)

    @property
    def tree(self):
        try:
            return ast.parse(self.code)
        except SyntaxError:
            return ast.parse('')

    @property
    def statements(self):
        return [o for o in self.tree.body if not (isinstance(o, ast.Expr) and isinstance(o.value, ast.Constant))]


class Notebook:
    def __init__(self, path, raw=None):
        self.path = Path(path)
        self.text = json.dumps(raw) if raw else self.path.read_text(encoding='utf-8')
        self.cells = [Cell(o) for o in json.loads(self.text)['cells']]
        self.name = str(self.path.relative_to(root)) if self.path.is_relative_to(root) else self.path.name

    @property
    def code(self):
        return [(i, c) for i, c in enumerate(self.cells) if c.kind == 'code']

    @property
    def prose(self):
        return '\n\n'.join(c.src for c in self.cells if c.kind == 'markdown')

    @property
    def folder(self):
        "The folder that it lies in: api, tutorials, howto, paper; or nbs."
        return self.path.parent.name

    @property
    def is_api(self):
        return self.folder == 'api'

    @property
    def is_lesson(self):
        return self.folder == 'tutorials'


def notebooks():
    return [
        Notebook(o)
        for o in sorted((root / 'nbs').rglob('*.ipynb'))
        if not any(p.startswith(('.', '_')) for p in o.relative_to(root).parts)
    ]


def _is_import(node):
    if isinstance(node, ast.Try):
        return any(map(_is_import, node.body)) and all(
            _is_import(o) or isinstance(o, (ast.Assign, ast.Pass))
            for o in node.body + [x for h in node.handlers for x in h.body]
        )
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _calls(tree):
    return [o for o in ast.walk(tree) if isinstance(o, ast.Call)]


def _called(node):
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')


def _text(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def no_notebook_that_nobody_runs(nb):
    "`skip_exec`, a cell that is switched off, or one whose skip has no name."
    res = ['skip_exec: the tests pass it by'] if re.search(r'skip_exec:\s*true', nb.text, re.I) else []
    for i, c in nb.code:
        off = re.search(r'^#\| *eval: *false', c.src, re.M)
        if off:
            res.append(f'cell {i}: eval: false')
    return res


def no_long_cell(nb):
    "A cell that should be two; a class or function alone in its cell has a little more room, since it cannot be cut."
    if nb.path.stem.endswith('_all'):
        return []  # a list of all rooms is as long as it is
    room = lambda c: max_lines + 15 * (len(c.statements) == 1)
    return [f'cell {i}: {n} lines' for i, c in nb.code if (n := len(c.src.rstrip().splitlines())) > room(c)]


def _strings_and_comments(src):
    "How many characters of each line of `src` stand in strings, and in which column its comment begins."
    strings, comments, begun = Counter(), {}, []
    for o in tokenize.generate_tokens(io.StringIO(src).readline):
        kind = tokenize.tok_name[o.type]
        if kind == 'COMMENT':
            comments[o.start[0]] = o.start[1]
        if kind == 'STRING' or kind.endswith('STRING_START'):
            begun.append(o.start)
        if kind == 'STRING' or kind.endswith('STRING_END'):
            first, left = begun.pop()
            for line in range(first, o.end[0] + 1) if not begun else []:
                end = o.end[1] if line == o.end[0] else len(src.splitlines()[line - 1])
                strings[line] += end - (left if line == first else 0)
    return strings, comments


def no_wide_line(nb):
    "A line of code that is wide for other reasons than a string in it, or that is documented at too great length."
    res = []
    for i, c in [] if valid_python(nb) else nb.code:
        strings, comments = _strings_and_comments(c.code)
        for n, line in enumerate(c.code.splitlines(), 1):
            own = len(line[: comments.get(n)].rstrip()) - strings[n]
            if own > max_chars or len(line) - strings[n] > (max_told if own > 0 else max_chars):
                res.append(f'cell {i}, line {n}: {len(line)} characters')
    return res


def no_stored_noise(nb):
    "Warnings, errors, private paths and memory addresses in the stored outputs."
    res = []
    for i, c in nb.code:
        for o in c.outputs:
            txt = json.dumps(
                {k: v for k, v in o.items() if k != 'data'}
                | {'data': {k: v for k, v in o.get('data', {}).items() if not k.startswith('image/')}}
            )
            if o.get('name') == 'stderr' or o['output_type'] == 'error':
                res.append(f'cell {i}: stored {o.get("name") or "error"}')
            if re.search(r'/(root|home|Users|tmp|work)/', txt):
                res.append(f'cell {i}: a private path in its output')
            if re.search(r'0x[0-9a-f]{8,}', txt):
                res.append(f'cell {i}: a memory address in its output')
            if re.search(r'\w+Warning:', txt):
                res.append(f'cell {i}: a stored warning')
    return res


def no_star_in_exported_cells(nb):
    if nb.path.stem.endswith('_all'):
        return []  # the one module whose purpose it is
    return [
        f'cell {i}: from {o.module} import *'
        for i, c in nb.code
        if c.exported
        for o in ast.walk(c.tree)
        if isinstance(o, ast.ImportFrom) and o.names[0].name == '*'
    ]


_readers = {
    'open',
    'read_csv',
    'read_json',
    'read_text',
    'read_bytes',
    'open_tiles',
    'load_model',
    'load',
    'read_fields',
    'imread',
    'read_image',
    'load_run',
    'open_run',
    'read_predictions',
}


def no_reading_of_what_another_wrote(nb):
    "A relative path that is read and was not named before as something to write."
    res = []
    named = set()
    for i, c in nb.code:
        for o in _calls(c.tree):
            args = [t for a in [*o.args, *(k.value for k in o.keywords)] if (t := _text(a))]
            if _called(o) == 'Path' or _called(o) not in _readers:
                continue
            first = _text(o.args[0]) if o.args else None
            if (
                isinstance(o.func, ast.Attribute)
                and _called(o) in ('read_text', 'read_bytes')
                and isinstance(o.func.value, ast.Call)
            ):
                first = next((t for a in o.func.value.args if (t := _text(a))), None)
            mode = args[1] if len(args) > 1 else 'r'
            if (
                first
                and '/' in first + '/'
                and not re.match(r'https?:', first)
                and not ({first, first.split('/')[0]} & named)
                and not (_called(o) == 'open' and set(mode) & set('wax'))
            ):
                res.append(f'cell {i}: reads {first!r}, which no earlier cell of it made')
        named |= {t for o in ast.walk(c.tree) if (t := _text(o))}
        named |= {t.split('/')[0] for t in named}
    return res


def no_assert_that_is_always_true(nb):
    def always(t):
        if isinstance(t, (ast.List, ast.Tuple, ast.Dict, ast.Set)):
            return True
        if isinstance(t, ast.Constant):
            return bool(t.value)
        if isinstance(t, ast.BoolOp) and isinstance(t.op, ast.Or):
            return any(always(v) for v in t.values)
        return isinstance(t, (ast.ListComp, ast.Lambda, ast.GeneratorExp, ast.JoinedStr))

    return [
        f'cell {i}: assert {ast.unparse(o.test)[:50]}'
        for i, c in nb.code
        for o in ast.walk(c.tree)
        if isinstance(o, ast.Assert) and always(o.test)
    ]


def no_bare_except(nb):
    return [
        f'cell {i}: a bare except'
        for i, c in nb.code
        for o in ast.walk(c.tree)
        if isinstance(o, ast.ExceptHandler) and o.type is None
    ]


def no_cuda_call(nb):
    return [
        f'cell {i}: .cuda()'
        for i, c in nb.code
        for o in _calls(c.tree)
        if isinstance(o.func, ast.Attribute) and o.func.attr == 'cuda'
    ]


def no_badge_to_another(nb):
    links = re.findall(r'https://colab\.research\.google\.com/github/[^\s)"\'>]+', nb.prose)
    return [
        f'its badge opens {o}' for o in links if not o.endswith(f'/nbs/{nb.path.relative_to(root / "nbs").as_posix()}')
    ]


def opens_in_colab(nb):
    "The badge and the cell that installs the package, as nbs/make_colab.py makes them, in notebooks for readers."
    if nb.folder not in colab['folders']:
        return []
    name = nb.path.relative_to(root / 'nbs').as_posix()
    ours = [c for c in nb.cells if colab['is_ours'](dict(source=c.src))]
    extra = colab['extra_of']([dict(source=c.src) for c in nb.cells if c not in ours])
    want = [''.join(o['source']) for o in colab['cells'](colab['settings'](root), name, extra)]
    at = colab['place']
    same = [c.src for c in ours] == want and [c.src for c in nb.cells[at : at + 2]] == want
    return [] if same else ['its first cells for Colab are not as they are made: run python nbs/make_colab.py']


_known = {
    'default_exp',
    'export',
    'exporti',
    'exports',
    'hide',
    'hide_input',
    'hide_output',
    'eval',
    'echo',
    'output',
    'code-fold',
    'code-summary',
    'warning',
    'label',
    'fig-cap',
    'test_flags',
    *skip_reasons,
}
_old = re.compile(
    r'^#+ *(default_exp|export|exporti|exports|hide|hide_input|slow|cuda|net|eval *:|skip)\b\s*$|^# \|', re.M
)


def no_unknown_directive(nb):
    "A misspelt directive, one in the style of nbdev 1, or one that is not at the top, which nbdev ignores without a word."
    res = []
    for i, c in nb.code:
        res += [f'cell {i}: #| {d} is no directive' for d in c.dirs if d not in _known]
        if _old.search(c.src):
            res.append(f'cell {i}: {_old.search(c.src).group(0).strip()!r} is ignored; write #| and the word')
        top = re.match(r'(?:#\|.*\n|\s*\n)*', c.src + '\n').group(0)
        res += [
            f'cell {i}: {o.strip()!r} is not at the top, so it is ignored'
            for o in (c.src + '\n')[len(top) :].splitlines()
            if re.match(r'#\| *[\w-]+', o)
        ]
    return res


def imports_alone(nb):
    return [
        f'cell {i}: imports and other things'
        for i, c in nb.code
        if any(map(_is_import, c.statements))
        and not all(_is_import(o) or _is_setting(o) for o in c.statements)
        and not c.installs
    ]


def _is_setting(o):
    "What may stand beside imports: `warnings.filterwarnings(...)`, `set_seed(0)`, a logger's level, a matplotlib backend."
    return (
        isinstance(o, ast.Pass)
        or isinstance(o, ast.Expr)
        and isinstance(o.value, ast.Call)
        and ast.unparse(o.value.func).split('.')[0] in ('warnings', 'matplotlib', 'logging', 'set_config_inline', 'plt')
    )


def prose_between(nb):
    "More than two code cells without a sentence; cells of imports and of `default_exp` do not count."
    res = []
    run = 0
    for i, c in enumerate(nb.cells):
        if c.kind == 'markdown':
            run = 0 if re.search(r'^(?!#)\S.*\w', re.sub(r'<!--.*?-->', '', c.src, flags=re.S), re.M) else run
        elif c.statements and not c.installs and not all(map(_is_import, c.statements)):
            run += 1
        if run > 2:
            res.append(f'cell {i}: the third code cell without a sentence')
            run = 0
    return res


def documented(nb):
    "Every parameter of a public signature on a line of its own with a comment, and a docstring of one line."
    res = []
    for i, c in nb.code:
        if not c.exported:
            continue
        for f in _public(c.tree.body):
            odd = _undocumented(f, c.code.splitlines())
            res += [f'cell {i}: {f.name}: {o}' for o in odd if not c.shared or 'docstring' in o]
    return res


def _public(body):
    for o in body:
        if isinstance(o, ast.ClassDef) and not o.name.startswith('_'):
            yield from (f for f in _public(o.body) if not any('property' in ast.unparse(d) for d in f.decorator_list))
        if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
            not o.name.startswith('_') or o.name == '__init__'
        ):
            yield o


def _undocumented(f, lines):
    args = [a for a in f.args.posonlyargs + f.args.args + f.args.kwonlyargs if a.arg not in ('self', 'cls')]
    seen = set()
    own = lambda a: (
        'typer' in ast.unparse(a.annotation or a)
        or '#' in lines[(a.annotation or a).end_lineno - 1]
        or '#' in lines[a.lineno - 1]
    )
    res = [f'{a.arg} has no comment' for a in args if not own(a)]
    res += [f'{a.arg} shares its line' for a in args if a.lineno in seen or seen.add(a.lineno)]
    doc = ast.get_docstring(f)
    if not doc and f.name != '__init__':
        res.append('no docstring')
    if doc and len(doc.splitlines()) > 1:
        res.append('a docstring of several lines')
    return res


def opens_with_its_subtitle(nb):
    "Title and clause alone, since builders of documentation keep nothing else of the first cell; then the introduction."
    cells = [c.src.strip() if c.kind == 'markdown' else '' for c in nb.cells[:2]]
    first, second = [*cells, '', ''][:2]
    res = (
        []
        if re.fullmatch(r'# \S.*\n\n> \S.*', first)
        else ['the first cell is not "# name", an empty line and "> One clause." alone']
    )
    return res + ([] if re.match(r'(?!#|>|<)\S', second) else ['the second cell is no introduction'])


def nothing_covered(nb):
    "A name of another library that `from celldeath_nb.all import *` below it replaces by one of ours, in silence."
    ours = {o for names in celldeath_nb._rooms.values() for o in names}
    theirs, res = {}, []
    for i, c in nb.code:
        for o in [o for o in c.tree.body if isinstance(o, ast.Import | ast.ImportFrom)]:
            home = getattr(o, 'module', None) or o.names[0].name
            if home.split('.')[0] != 'celldeath_nb':
                theirs |= {a.asname or a.name: home for a in o.names}
            elif o.names[0].name == '*':
                res += [f'cell {i}: {k} of {v} is replaced by ours' for k, v in theirs.items() if k in ours]
    return res


def small_file(nb):
    return (
        [f'{len(nb.text.encode()) // 1000} KB, over {max_bytes // 1000}'] if len(nb.text.encode()) > max_bytes else []
    )


def plain_errors(nb):
    "An exclamation mark in an error, or an emoji anywhere."
    res = [
        f'cell {i}: an exclamation mark in an error'
        for i, c in nb.code
        for o in ast.walk(c.tree)
        if isinstance(o, ast.Raise) and o.exc
        for t in ast.walk(o.exc)
        if re.search(r'\w!(\s|$)', _text(t) or '')
    ]
    return res + [
        f'cell {i}: an emoji'
        for i, c in enumerate(nb.cells)
        if re.search('[\U0001f300-\U0001faff\u2600-\u26ff\u2705\u274c]', c.src)
    ]


_british = re.compile(
    r'\b\w*(colour|behaviour|favour|normalis|initialis|optimis|visualis|organis|recognis|summaris|randomis|standardis|analyse|centre|labelled|modelling|micrometre|neighbour|grey)\w*',
    re.I,
)


def american(nb):
    return [
        f'cell {i}: {m.group(0)}'
        for i, c in enumerate(nb.cells)
        for m in _british.finditer(
            re.sub(r'`[^`]*`|https?://\S+|\bin_?centre\b', '', c.src) if c.kind == 'markdown' else c.src
        )
        if not re.search('optimist|organism|^Greys$', m.group(0))
    ]


def every_name_is_shown(nb):
    "A public name that no lesson cell of its own notebook uses."
    if not nb.is_api:
        return []
    made = {
        o.name
        for _, c in nb.code
        if c.exported and not c.shared
        for o in c.tree.body
        if isinstance(o, ast.FunctionDef)
        and not o.name.startswith('_')
        and not any(ast.unparse(d).startswith(('patch', 'app.', '_app.')) for d in o.decorator_list)
    }  # classes are what functions give back
    shown = {
        o.id if isinstance(o, ast.Name) else o.attr
        for _, c in nb.code
        if not c.exported
        for o in ast.walk(c.tree)
        if isinstance(o, (ast.Name, ast.Attribute))
    }
    return [f'{o} is never used in a lesson cell' for o in sorted(made - shown)]


_ending = ('## Three things to remember', '## Questions', '## Exercise', '## Next')


def opens_and_ends_like_a_lesson(nb):
    if not nb.is_lesson:
        return []
    res = [
        f'{o!r} is not in the first three cells'
        for o in ('What you will do', 'What you need', 'How long it takes')
        if o.lower() not in ' '.join(c.src for c in nb.cells[:3]).lower()
    ]
    heads = re.findall(r'^## .+', nb.prose, re.M)
    where = [next((k for k, h in enumerate(heads) if h.startswith(o)), -1) for o in _ending]
    if -1 in where or where != sorted(where) or where[-1] != len(heads) - 1:
        res.append(f'it does not end with {", ".join(_ending)}')

    def items(head):
        return (
            len(re.findall(r'^\s*(?:[-*]|\d+\.) ', re.split(r'^## ', nb.prose.split(head, 1)[-1], flags=re.M)[0], re.M))
            if head in nb.prose
            else 0
        )

    if items(_ending[0]) != 3:
        res.append(f'{items(_ending[0])} things to remember, not 3')
    if items(_ending[1]) != 5:
        res.append(f'{items(_ending[1])} questions, not 5')
    return res + _exercise_faults(nb)


def _exercise_faults(nb):
    "What is wrong with the stub, the check and the solution of an exercise."
    code = [c for _, c in nb.code]
    solved = [k for k, c in enumerate(code) if re.search(r'^# ?@title Solution', c.src, re.M)]
    if len(solved) != 1 or solved[0] < 2:
        return ['no solution after a stub and a cell that checks']
    stub, check, solution = code[solved[0] - 2 : solved[0] + 1]
    bound = lambda c: (
        {o.id for o in ast.walk(c.tree) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}
        | {o.name for o in c.tree.body if isinstance(o, ast.FunctionDef)}
    )
    asserts = ' '.join(ast.unparse(o) for o in ast.walk(solution.tree) if isinstance(o, ast.Assert))
    folded = solution.meta.get('cellView') == 'form' and solution.meta.get('jupyter', {}).get('source_hidden')
    last = check.tree.body[-1] if check.tree.body else None
    asked = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and "'right'" in check.code
    return [
        said
        for wrong, said in (
            (not folded, 'its solution is not folded in JupyterLab (source_hidden) and Colab (cellView: form)'),
            (bound(stub) & bound(solution), "its solution overwrites the reader's answer"),
            (not asked, 'the cell before the solution does not say right, or give a hint'),
            ("== 'right'" not in asserts, 'no right answer is put to the check'),
            ("!= 'right'" not in asserts, 'no wrong answer is put to the check'),
        )
        if wrong
    ] + ([] if nb.prose.count('<details><summary>Answer') >= 5 else ['not every question has its folded answer'])


_paths_of = {'Path', 'resolve', 'absolute', 'expanduser', 'joinpath', 'with_name', 'with_suffix', 'iterdir', 'glob'}
_paths_of |= {'rglob', 'list_images', 'sorted', 'list', 'next', 'str'}
_changes = {
    'write_text',
    'write_bytes',
    'unlink',
    'rename',
    'replace',
    'mkdir',
    'makedirs',
    'rmdir',
    'rmtree',
    'remove',
}
_changes |= {'touch', 'move', 'symlink_to', 'simulate_experiment'}  # what they are called on, or given first
_writes = {
    'save',
    'savefig',
    'to_csv',
    'to_json',
    'imwrite',
    'imsave',
    'dump',
    'make_archive',
    'write_csv',
    'write_json',
}
_writes |= {
    'copy',
    'copy2',
    'copyfile',
    'copytree',
    'move',
    'cut_tiles',
    'sample_data',
    'take_road',
    'train',
    'write_report',
}


def _leads_to(node, given):
    "Whether `node` is a path made from one of the names `given`."
    if isinstance(node, ast.Name):
        return node.id in given
    if isinstance(node, ast.Call):
        inner = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        return _called(node) in _paths_of and any(_leads_to(o, given) for o in inner)
    parts = {
        ast.BinOp: lambda o: [o.left],
        ast.IfExp: lambda o: [o.body, o.orelse],
        ast.BoolOp: lambda o: o.values,
        ast.Subscript: lambda o: [o.value],
        ast.JoinedStr: lambda o: o.values,
        ast.FormattedValue: lambda o: [o.value],
        ast.Attribute: lambda o: [o.value] if o.attr in ('parent', 'parents') else [],
    }
    return any(_leads_to(o, given) for o in parts.get(type(node), lambda o: [])(node))


def _spoils(node, given):
    "Whether the call `node` writes, moves or removes something in a folder that was given."
    receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
    named = [k.value for k in node.keywords if k.arg in ('out', 'dst', 'dest', 'file', 'path', 'fname')]
    what = _called(node)
    mode = next((t for o in [*node.args, *(k.value for k in node.keywords)] if (t := _text(o))), 'r')
    at = (receiver + node.args[:1]) if what in _changes else []
    at += (node.args[what.startswith('copy') :] + named) if what in _writes else []
    at += (receiver + node.args[:1]) if what == 'open' and set(mode) & set('wax+') else []
    return any(_leads_to(o, given) for o in at)


def given_folders_are_only_read(nb):
    "A folder of the reader's is named once, by `own`, and nothing is written into it."
    res, given, named = [], {'own'}, False
    for i, c in nb.code:
        for o in sorted((o for o in ast.walk(c.tree) if hasattr(o, 'lineno')), key=lambda o: o.lineno):
            if isinstance(o, (ast.Assign, ast.For)):
                left = {
                    x.id
                    for t in getattr(o, 'targets', [getattr(o, 'target', o)])
                    for x in ast.walk(t)
                    if isinstance(x, ast.Name)
                }
                named |= 'own' in left
                given |= left if _leads_to(getattr(o, 'value', getattr(o, 'iter', o)), given) else set()
            if isinstance(o, ast.Call) and _spoils(o, given):
                res.append(f'cell {i}: {ast.unparse(o)[:60]} writes where the reader keeps files')
    asked = re.search(r'\bput the path\b|\bpath of (their|your) (own )?folder', nb.prose, re.I)
    if asked and not named:
        res.append('the reader is asked for a folder, and no cell binds it to `own`')
    return res


def valid_python(nb):
    res = []
    for i, c in nb.code:
        try:
            ast.parse(c.code)
        except SyntaxError as e:
            res.append(f'cell {i}: {e.msg}')
    return res


lints = [
    no_notebook_that_nobody_runs,
    no_long_cell,
    no_wide_line,
    no_stored_noise,
    no_star_in_exported_cells,
    no_reading_of_what_another_wrote,
    no_assert_that_is_always_true,
    no_bare_except,
    no_cuda_call,
    no_badge_to_another,
    opens_in_colab,
    no_unknown_directive,
    imports_alone,
    prose_between,
    documented,
    opens_with_its_subtitle,
    nothing_covered,
    small_file,
    plain_errors,
    american,
    every_name_is_shown,
    opens_and_ends_like_a_lesson,
    given_folders_are_only_read,
    valid_python,
]


def copies(nbs):
    "Pairs of notebooks that share more than half of their longer code cells."
    sets = [
        (nb, {re.sub(r'\s+', ' ', c.src) for _, c in nb.code if len(c.src.splitlines()) > 3 and not c.installs})
        for nb in nbs
    ]
    return [
        f'{a.name} and {b.name} share {len(x & y)} cells'
        for k, (a, x) in enumerate(sets)
        for b, y in sets[:k]
        if x and y and len(x & y) > 0.5 * min(len(x), len(y))
    ]


def shape(sources):
    "How wide and how long code is: shares of lines over 150 characters and of parallel assignments, and the lines that nine bodies of ten do not exceed."
    trees = [ast.parse(o) for o in sources]
    lines = [line for o in sources for line in o.splitlines() if line.strip() and not line.lstrip().startswith('#')]
    nodes = [o for t in trees for o in ast.walk(t)]
    assigned = [o for o in nodes if isinstance(o, (ast.Assign, ast.AnnAssign, ast.AugAssign))]
    several = (ast.Tuple, ast.List)
    parallel = [
        o
        for o in assigned
        if isinstance(o, ast.Assign) and isinstance(o.value, several) and isinstance(o.targets[0], several)
    ]
    bodies = sorted(map(_body_lines, (o for o in nodes if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef)))))
    return dict(
        wide=sum(len(o) > 150 for o in lines) / max(1, len(lines)),
        parallel=len(parallel) / max(1, len(assigned)),
        p90=bodies[int(0.9 * len(bodies))] if bodies else 0,
    )


def _body_lines(f):
    "Lines of a function below its signature and docstring."
    body = f.body[1:] if ast.get_docstring(f) else f.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def noisy_imports(src, name='module'):
    "Statements at the top of a module that make folders, run programs or install packages."
    bad = {
        'mkdir',
        'makedirs',
        'system',
        'run',
        'Popen',
        'check_call',
        'check_output',
        'touch',
        'write_text',
        'urlretrieve',
        'urlopen',
        'retrieve',
    }
    top = [o for o in ast.parse(src).body if not isinstance(o, (ast.FunctionDef, ast.ClassDef))]
    return [f'{name} line {o.lineno}: {_called(o)} at import' for t in top for o in _calls(t) if _called(o) in bad]


def exact_pins(text):
    "Requirements of the run-time in the text of settings.ini that name one exact version."
    block = re.search(r'^requirements *=(.*?)(?=^\S)', text + '\nend', re.M | re.S)
    return re.findall(r'[\w-]+ *==[^\s;]+', block.group(1)) if block else ['there is no list of requirements']


if __name__ == '__main__':
    import sys

    for nb in [Notebook(Path(o).resolve()) for o in sys.argv[1:]] or notebooks():
        for lint in lints:
            for o in lint(nb):
                print(f'{nb.name}: {lint.__name__}: {o}')
