"""Seams of mosaics before and after: asserted, and collected for the table in the documentation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

_PAGE = os.environ.get("SKYMATCH_SEAMS", "")  # `make interop`: the page with the table
_HEAD = "| mosaic | before | after |\n"


def step_of(difference: np.ndarray) -> float:
    """How far a mosaic's levels differ from those of one with true skies: between the 1st and 99th percentile."""
    known = difference[np.isfinite(difference)]
    return float(np.ptp(np.percentile(known, [1, 99])))


def report_seam(what: str, before: np.ndarray, after: np.ndarray, *, unit: str, below: float, above: float) -> None:
    """Assert that there were seams, and that they are gone."""
    old, new = step_of(before), step_of(after)
    if _PAGE:
        _write_row(Path(_PAGE), what, f"| {what} | {old:.3g} {unit} | {new:.1g} {unit} |\n")
    assert old > above, f"{what}: there was no seam to begin with"
    assert new < below, what


def _write_row(page: Path, what: str, row: str) -> None:
    """Put a row in its place in the table of the page, or at its end."""
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    first = lines.index(_HEAD) + 2
    stop = next(k for k in range(first, len(lines)) if not lines[k].startswith("|"))
    at = next((k for k in range(first, stop) if lines[k].startswith(f"| {what} |")), None)
    lines[slice(stop, stop) if at is None else slice(at, at + 1)] = [row]
    page.write_text("".join(lines), encoding="utf-8")
