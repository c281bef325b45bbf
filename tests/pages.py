"""A report of four frames, one of which has a hostile name, for the tests of what it says and what it does."""

from __future__ import annotations

from pathlib import Path

import skymatch_cli
from skymatch_cli.output.result import Result

from .commands import run
from .factories import row, write_all

HOSTILE = """<img src=x onerror="document.title='owned'">'&\u202e.fits"""


def make_page(folder: Path) -> tuple[Path, Result]:
    """``folder/report.html``, from the stored ``folder/solution.json``, and the result itself."""
    paths = write_all(folder / "in", row([100, 130, 110, 90], noise=1.0))
    paths[3] = str(Path(paths[3]).rename(folder / "in" / HOSTILE))
    result = skymatch_cli.match(paths, dry_run=True)
    result.write(folder / "solution.json")
    ran = run("report", folder / "solution.json", "-o", folder / "report.html")
    assert ran.exit_code == 0, ran.stderr
    return folder / "report.html", result
