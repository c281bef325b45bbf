"""``skymatch cite``: how to name the program in a paper. A test compares it with CITATION.cff."""

from __future__ import annotations

import click

from skymatch_cli.version import __version__

from . import sections

TITLE = "skymatch: equalise the sky background of overlapping FITS images"
AUTHOR = "The skymatch developers"
YEAR = "2026"
_BIBTEX = """@software{{skymatch,
  author  = {{{{{author}}}}},
  title   = {{{{{title}}}}},
  year    = {{{year}}},
  version = {{{version}}}
}}"""


@sections.command("cite", "skymatch cite", "skymatch cite --bibtex >> references.bib")
@click.option("--bibtex", cls=sections.SectionOption, is_flag=True, help="As an entry of a BibTeX file.")
def command(bibtex: bool) -> None:
    """Print how to cite this program, with the version that runs."""
    if bibtex:
        click.echo(_BIBTEX.format(author=AUTHOR, title=TITLE, year=YEAR, version=__version__))
    else:
        click.echo(f"{AUTHOR} ({YEAR}). {TITLE} (version {__version__}) [Computer software].")
