"""Sphinx's settings for the site that `make report` builds. Nothing on its pages may come from a network."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger

extensions = ["myst_nb"]
language = "en"
exclude_patterns = ["tables"]  # they are on the first page
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_update_mathjax = False

nb_execution_mode = "off"  # the study ran the notebooks
nb_ipywidgets_js = {}  # its default loads scripts from a network
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "▸ Parameters of this run", "▾ Parameters of this run"  # all that is folded

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["static"]
html_css_files = ["study.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_use_index = False


def setup(app) -> None:
    """Formulas become MathML, which browsers draw by themselves: no script, no fonts."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _inline(page, node) -> None:
    page.body.append(_mathml(node, as_block=False))
    raise SkipNode


def _block(page, node) -> None:
    page.body.append(f'<div class="formula">{_mathml(node, as_block=True)}</div>\n')
    raise SkipNode


def _mathml(node, as_block: bool) -> str:
    formula = re.sub(r"\\dots\b", r"\\ldots", node.astext())  # docutils knows only the latter
    try:
        return tex2mathml(formula, as_block=as_block)
    except MathError as error:
        getLogger(__name__).warning("a formula that can't be drawn: %s", error, location=node)
        return ""
