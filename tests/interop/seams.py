"""Seams of mosaics before and after: asserted, and collected for the table in the documentation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

_TABLE = os.environ.get("SKYMATCH_SEAMS", "")  # the file of the table; `make interop` sets it
_HEAD = "| mosaic | before | after |\n|---|---|---|\n"


def step_of(difference: np.ndarray) -> float:
    """How far a mosaic's levels differ from those of one with true skies: between the 1st and 99th percentile."""
    known = difference[np.isfinite(difference)]
    return float(np.ptp(np.percentile(known, [1, 99])))


def report_seam(what: str, before: np.ndarray, after: np.ndarray, *, unit: str, below: float, above: float) -> None:
    """Assert that there were seams, and that they are gone."""
    old, new = step_of(before), step_of(after)
    if _TABLE:
        _write_row(Path(_TABLE), what, f"| {what} | {old:.3g} {unit} | {new:.1g} {unit} |\n")
    assert old > above, f"{what}: there was no seam to begin with"
    assert new < below, what


def _write_row(table: Path, what: str, row: str) -> None:
    """Put a row in its place, or at the end."""
    lines = (table.read_text(encoding="utf-8") if table.exists() else _HEAD).splitlines(keepends=True)
    known = [line for line in lines[2:] if not line.startswith(f"| {what} |")]
    table.write_text("".join([*lines[:2], *sorted([*known, row])]), encoding="utf-8")
