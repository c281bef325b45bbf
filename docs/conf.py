"""How Sphinx builds the site: ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from skymatch_cli import __version__  # noqa: E402

project = "skymatch"
author = "The skymatch developers"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml", "run", "commands", "modules"]
exclude_patterns = ["_build", "_generated"]
myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nitpicky = False

html_theme = "furo"
html_title = f"skymatch {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_extra_path = ["_generated/pages"]  # the report of the tutorial, which is a page of its own
(HERE / "_generated" / "pages").mkdir(parents=True, exist_ok=True)

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_use_rtype = False

man_pages = [("reference/commands", "skymatch", "equalise the sky background of overlapping FITS images", [author], 1)]
man_show_urls = False
