"The settings of Sphinx for docs/build.py, which says where the sources are."

import re
from configparser import ConfigParser
from pathlib import Path

from docutils.nodes import SkipNode, math_block
from docutils.utils.math import latex2mathml
from sphinx.util import logging

root = Path(__file__).resolve().parents[1]
cfg = ConfigParser(delimiters=['='])
cfg.read(root / 'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']

project = cfg['name']
author = cfg['author']
version = release = cfg['version']
copyright = f'{author}, MIT license'
extensions = ['myst_nb']
language = 'en'

# notebooks are shown as they are stored
nb_execution_mode = 'off'
nb_code_prompt_show = 'Show the code'
nb_code_prompt_hide = 'Hide the code'
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 0
# a function's card may stand below any heading
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type']

html_context = dict(default_mode='auto')
html_theme = 'sphinx_book_theme'
html_title = cfg['name']
html_static_path = [str(root / 'docs' / '_static')]
html_css_files = ['celldeath.css']
html_copy_source = False
html_use_index = False
html_show_sourcelink = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = dict(
    use_download_button=False,
    use_fullscreen_button=False,
    show_toc_level=2,
    show_navbar_depth=1,
    navigation_depth=3,
    collapse_navigation=True,
    home_page_in_toc=True,
    navigation_with_keys=False,
    navbar_start=[],
    navbar_center=[],
    navbar_end=[],
    navbar_persistent=[],
)
if cfg.get('home'):
    html_theme_options |= dict(repository_url=cfg['home'], use_repository_button=True)


def formula(self, node):
    "A formula becomes MathML, which browsers draw by themselves; the usual renderer is fetched from the network."
    # an exponent without a base gets an empty one
    code = re.sub(r'^(?=[\^_])', '{}', node.astext().strip())
    try:
        self.body.append(latex2mathml.tex2mathml(code, as_block=isinstance(node, math_block)))
    except Exception:  # whatever its parser meets; the warning names the page
        logging.getLogger(__name__).warning(f'a formula that cannot be drawn: {code}', location=node)
    raise SkipNode


def setup(app):
    app.add_html_math_renderer('mathml', (formula, None), (formula, None))


html_math_renderer = 'mathml'
