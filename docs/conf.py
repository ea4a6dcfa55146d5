"""Settings of the documentation site; `make docs` builds it into docs/_build/html.

A build downloads nothing: types of other packages are not linked (see `links`), notebooks are not run, and fonts come
with the theme. The one thing from elsewhere is MathJax, which the reader's browser loads from the address that Sphinx
names; without it equations are shown as their TeX.
"""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "allpet"
author = "The allpet developers"
copyright = "the allpet developers, Apache-2.0"
version = release = metadata.version("allpet")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",  # for the role `autolink` alone; pages are written by made_pages
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_click",
    "made_pages",
    "links",
    "equations",
]
exclude_patterns = ["_build", "_ext"]

# Names in single backticks link to what Python would find under them; other words in backticks are set in italics.
default_role = "autolink"
autosummary_generate = False
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False

smartquotes = False  # they would turn --option into –option

nitpicky = True
# No list of exceptions: `links` looks every name up in Python, and names of other packages, which no inventory could
# resolve without a download, stay text when they exist.

myst_heading_anchors = 4
nb_execution_mode = "off"  # tests/test_notebooks.py runs them

html_theme = "pydata_sphinx_theme"
html_title = "allpet"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 9,
}
html_copy_source = False
html_show_sourcelink = False
