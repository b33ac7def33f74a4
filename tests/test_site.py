"The site: what is made of a notebook; and the whole of it, walked link by link, read without a network."

import os, re, subprocess, sys, time
from html.parser import HTMLParser
from pathlib import Path
from runpy import run_path
from urllib.parse import unquote, urlsplit

import pytest

root = Path(__file__).resolve().parents[1]
site = run_path(str(root / 'docs' / 'build.py'))


def cell(kind, *src, **metadata):
    res = dict(cell_type=kind, id='a', metadata=metadata, source='\n'.join(src))
    return res | (dict(outputs=[], execution_count=None) if kind == 'code' else {})


def page(name, *cells):
    "A page of these cells, as if they stood in the notebook `name`."
    made = site['Page'].__new__(site['Page'])
    made.path = root / 'nbs' / f'{name}.ipynb'
    made.name, made.cells, made.cards, made.own = name, list(cells), {}, set()
    made.module = made.path.stem.partition('_')[2] if name.startswith('api') else ''
    made.title, made.clause = made.module or 'A lesson', 'One clause.'
    for i, c in enumerate(cells):
        made.look_at(i, c)
    return made


room = page(
    'api/30_tiles.cut',
    cell('markdown', '# cut', '', '> Cuts.'),
    cell('code', '#| default_exp tiles.cut'),
    cell('code', '#| export', 'import os'),
    cell(
        'code',
        '#| export',
        'def cut_all(',
        '    table,  # one row a photograph',
        "    grid: str | tuple = '2x2',  # rows and columns",
        '    *,',
        '    edge=None,  # what is left',
        ') -> dict:  # tiles',
        '    "Cut them, as `Tiles.show()` tells."',
        '',
        '',
        'def _own(): ...',
    ),
    cell(
        'code',
        '#| export',
        '@patch',
        'def show(',
        '    self: Tiles,',
        '    n: int = 4,  # how many',
        '):',
        '    "Show some."',
    ),
    cell('code', '#| exporti', 'def shared(a):', '    "For rooms."'),
    cell('code', '#| hide', 'nbdev_export()'),
    cell('code', 'cut_all(1)'),
)


def test_a_function_is_told_with_its_comments():
    cut = site['cards'](site['bare'](room.cells[3]['source']))[0]
    assert cut.rows == [
        ('table', '', '', 'one row a photograph'),
        ('grid', 'str | tuple', "'2x2'", 'rows and columns'),
        ('edge', '', 'None', 'what is left'),
    ]
    assert (cut.back, site['signature'](cut)) == (('dict', 'tiles'), "cut_all(table, grid='2x2', edge=None)")


def test_a_room_is_shown_without_what_speaks_to_nbdev():
    found = site['shown'](room, site['Links']([room]))
    told = '\n'.join(o['source'] for o in found)
    assert '#|' not in told and 'nbdev_export' not in told and 'import os' not in told
    assert '(tiles.cut.cut_all)=\n### `cut_all`' in told and '#### `Tiles.show`' in told and '# tiles.cut' in told
    assert '`shared`' not in told and "| `grid` | rows and columns | `str \\| tuple` | `'2x2'` |" in told
    assert '[`Tiles.show()`](#tiles.cut.Tiles.show)' in told
    folded = [o['source'][:12] for o in found if 'hide-input' in o['metadata'].get('tags', [])]
    assert folded == ['def cut_all(', '@patch\ndef s', 'def shared(a']


def test_only_calls_and_qualified_names_are_links():
    links = site['Links']([room])
    linked = '[{}](#tiles.cut.cut_all)'.format
    for o in ('`cut_all(fields)`', '`cut_all()`', '`tiles.cut.cut_all`', '`celldeath_nb.tiles.cut_all`'):
        assert links.put(f'See {o}.') == f'See {linked(o)}.'
    for o in (
        '`cut_all`',
        '`table`',
        '`model.cut_all()`',
        '[`cut_all()`](a.ipynb)',
        '```\n`cut_all()`\n```',
        '`tiles`',
    ):
        assert links.put(o) == o
    assert links.put('# `cut_all()`') == '# `cut_all()`' and links.put('`cut_all(1)`', {'cut_all'}) == '`cut_all(1)`'


def test_a_solution_stays_folded_and_the_first_cells_for_colab_are_left_out():
    cells = [cell('markdown', '# A', '', '> One.'), cell('markdown', '**In Google Colab**: here.')]
    cells += [cell('code', '# @title Install', 'import os'), cell('code', 'a = 1', jupyter=dict(source_hidden=True))]
    found = site['shown'](page('tutorials/01_a', *cells), site['Links']([]))
    assert [o['metadata'].get('tags') for o in found] == [None, ['hide-cell']]


def test_a_folder_that_is_no_site_is_not_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('all of it')
    done = subprocess.run(
        [sys.executable, root / 'docs' / 'build.py', '--out', tmp_path], capture_output=True, text=True
    )
    assert done.returncode and 'not replaced' in done.stderr and (tmp_path / 'thesis.txt').exists()


# ---- the whole site


class Links(HTMLParser):
    "What a page links to, what it needs to be shown, and the places in it that can be linked to."

    def __init__(self, text):
        super().__init__()
        self.links, self.needs, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[o] for o in ('id', 'name') if attrs.get(o)}
        if tag == 'a' and attrs.get('href'):
            self.links.append(attrs['href'])
        if tag == 'link' and attrs.get('rel') in ('stylesheet', 'preload', 'icon'):
            self.needs.append(attrs['href'])
        if tag in ('script', 'img', 'iframe', 'source') and attrs.get('src'):
            self.needs.append(attrs['src'])


def broken(folder):
    "Links that lead nowhere, anchors that are not there, and what would be fetched from the network."
    pages = {o: Links(o.read_text(encoding='utf-8')) for o in sorted(folder.rglob('*.html'))}
    said = []
    for path, found in pages.items():
        name = path.relative_to(folder)
        for o in [*found.links, *found.needs]:
            to = urlsplit(o)
            if to.scheme == 'data' or to.scheme in ('http', 'https', 'mailto') and o in found.links:
                continue
            at = (path.parent / unquote(to.path)).resolve() if to.path else path
            if to.scheme or to.netloc or not at.is_file():
                said.append(f'{name}: {o}')
            elif to.fragment and at in pages and unquote(to.fragment) not in pages[at].ids:
                said.append(f'{name}: no place {o}')
    styles = [
        (o, re.findall(r'(?:url\(|@import\s+)["\']?(https?:[^)"\']+)', o.read_text('utf-8')))
        for o in folder.rglob('*.css')
    ]
    return said + [f'{o.name} fetches {url}' for o, urls in styles for url in urls]


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / 'b.html').write_text('<p id="here">')
    good = '<a href="b.html#here"></a><a href="https://host/x"></a><a href="#top"></a><p id="top">'
    bad = (
        '<a href="c.html"></a><a href="b.html#there"></a><img src="https://host/x.png"><script src="gone.js"></script>'
    )
    (tmp_path / 'a.html').write_text(good + bad)
    (tmp_path / 'a.css').write_text('a { background: url(https://host/a.png) }')
    assert broken(tmp_path) == [
        'a.html: c.html',
        'a.html: no place b.html#there',
        'a.html: https://host/x.png',
        'a.html: gone.js',
        'a.css fetches https://host/a.png',
    ]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    pytest.importorskip('sphinx_book_theme', reason='no Sphinx: pip install "celldeath_nb[docs]"')
    pytest.importorskip('myst_nb', reason='no MyST-NB: pip install "celldeath_nb[docs]"')
    out = tmp_path_factory.mktemp('docs') / 'site'
    # a network that cannot be reached: nothing may be fetched
    env = {**os.environ, 'HTTPS_PROXY': 'http://127.0.0.1:9', 'HTTP_PROXY': 'http://127.0.0.1:9'}
    args = [sys.executable, root / 'docs' / 'build.py', '--out', out]
    done = subprocess.run(args, capture_output=True, text=True, env=env)
    assert not done.returncode, done.stderr[-5000:]
    print(done.stdout)
    return out


@pytest.mark.long
def test_the_site_has_every_notebook_and_no_broken_link(whole):
    assert broken(whole) == []
    books = [o.relative_to(root / 'nbs').with_suffix('') for o in site['nbs'].rglob('*.ipynb')]
    books = [o for o in books if not any(p.startswith(('.', '_')) for p in o.parts)]
    assert books and all((whole / f'{o}.html').exists() and (whole / f'{o}.md').exists() for o in books)


@pytest.mark.long
def test_pages_keep_their_introduction(whole):
    "The second cell of each notebook, whose first words stand on its page."
    for o in site['found']():
        words = re.findall(r'\w+', re.sub(r'\W', ' ', ''.join(o.cells[1]['source'])))[:6]
        told = re.sub(r'\W+', ' ', re.sub(r'<[^>]+>', ' ', (whole / f'{o.name}.html').read_text(encoding='utf-8')))
        assert ' '.join(words) in told, o.name


@pytest.mark.long
def test_llms_txt_names_pages_that_are_there(whole):
    told = (whole / 'llms.txt').read_text(encoding='utf-8')
    names = re.findall(r'\]\(([^)]+)\)', told)
    assert told.startswith('# celldeath_nb\n\n> ') and len(names) == len(site['found']()) - 1
    assert all((whole / o).is_file() for o in names)
    assert '```python' in (whole / 'tutorials' / '01_first_verdict.md').read_text(encoding='utf-8')


asked = {
    'how many images do I need': 'studies.curves',
    'confusion matrix': 'Read the matrix',
    '16-bit TIFF': 'photos.tiffs',
}


@pytest.mark.long
def test_search_answers_without_a_server(whole):
    "In a browser, from the disk."
    from shutil import which

    if not which('chromium') or not which('chromedriver'):
        pytest.skip('no browser: apt-get install chromium chromium-driver')
    webdriver = pytest.importorskip('selenium.webdriver', reason='no selenium: pip install selenium')
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for o in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-background-networking'):
        options.add_argument(o)
    browser = webdriver.Chrome(options=options, service=Service(which('chromedriver')))
    try:
        for question, want in asked.items():
            browser.get(f'{whole.as_uri()}/search.html?q={question.replace(" ", "+")}')
            for _ in range(120):
                found = [o.text for o in browser.find_elements('css selector', '#search-results li a')]
                if any(want in o for o in found):
                    break
                time.sleep(0.25)
            assert any(want in o for o in found), (question, found[:10])
        narrow = dict(width=400, height=900, deviceScaleFactor=1, mobile=True)
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', narrow)
        for o in (
            'index',
            'api/26_photos.fields',
            'tutorials/05_read_the_matrix',
            'modules/photos',
            'howto/own_images',
        ):
            browser.get(f'{whole.as_uri()}/{o}.html')
            assert browser.execute_script('return document.documentElement.scrollWidth') <= 400, o
    finally:
        browser.quit()
