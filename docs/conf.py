"""The site: `make docs`. Sphinx reads the pages of this folder (MyST Markdown) and the docstrings of the three packages."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / folder) for folder in (".", "backends", "verification"))]

import iresnet_ref  # noqa: E402

project = "iresnet-ref"
author = copyright = "the authors of iresnet-ref"
version = release = iresnet_ref.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click", "sphinx_copybutton", "_site.extension"]
exclude_patterns = ["_site"]
suppress_warnings = [
    "misc.highlighting_failure",  # an example that is not run may say … for what it leaves out
]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
smartquotes = False  # options and messages are shown as they are typed: --folder, not –folder
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "iresnet-ref"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = False
