"""Seams of mosaics before and after: asserted, and collected for the table in the documentation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

_TABLE = os.environ.get("SKYMATCH_SEAMS", "")  # a file to which a line is added for every seam


def step_of(difference: np.ndarray) -> float:
    """How far a mosaic's levels differ from those of one with true skies: between the 1st and 99th percentile."""
    known = difference[np.isfinite(difference)]
    return float(np.ptp(np.percentile(known, [1, 99])))


def report_seam(what: str, before: np.ndarray, after: np.ndarray, *, unit: str, below: float, above: float) -> None:
    """Assert that there were seams, and that they are gone."""
    old, new = step_of(before), step_of(after)
    if _TABLE:
        with Path(_TABLE).open("a", encoding="utf-8") as table:
            table.write(f"| {what} | {old:.3g} {unit} | {new:.2g} {unit} |\n")
    assert old > above, f"{what}: there was no seam to begin with"
    assert new < below, what
