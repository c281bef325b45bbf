"""The overlaps of a result as every drawing needs them: residuals, pulls, and the colour of a pull."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import FloatArray, IntArray, StrArray
from skymatch_cli.output.tables import Table

PULL_LIMIT = 5
"""Pull (in sigma) from which the colour no longer changes; the scale is the same in every report."""

N_CLASSES = 2 * PULL_LIMIT + 1


@dataclass(frozen=True, slots=True)
class OverlapColumns:
    """The overlaps as columns, one element per row of the result."""

    a: IntArray  # (M,): index of the first image
    b: IntArray  # (M,): of the second
    area_arcmin2: FloatArray  # (M,)
    delta: FloatArray  # (M,): in `unit`
    residual: FloatArray  # (M,): in `unit`; NaN where a pair is not used
    pull: FloatArray  # (M,): residual over the error of the difference; NaN where a pair is not used
    status: StrArray  # (M,)
    unit: str  # "" where units differ or there are none
    worst_first: IntArray  # (M,): indices by falling size of the pull
    # (M,): large overlaps first and, where they are of one size, small pulls first: what matters lies on top
    drawing_order: IntArray

    @classmethod
    def of(cls, overlaps: Table) -> OverlapColumns:
        """Take the columns from the table of overlaps."""
        taken = {name: overlaps.column(name) for name in ("a", "b", "area_arcmin2", "delta", "residual", "status")}
        area, pull = taken["area_arcmin2"], taken["residual"] / overlaps.column("delta_err")
        size = np.nan_to_num(np.abs(pull), nan=-1.0)
        rounded = np.round(area / max(area.max(initial=0.0), 1e-300), 6)
        return cls(
            **taken,
            pull=pull,
            unit=common_word(overlaps.column("unit")),
            worst_first=np.argsort(-size, kind="stable"),
            drawing_order=np.lexsort((size, -rounded)),
        )

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """(M,) bool, True where a pair has a residual."""
        return np.isfinite(self.residual)


def pull_class(pull: float) -> int:
    """Return the colour class of a pull: 5 below one sigma, one more or less per sigma up to 10 and 0; -1 for none.

    Examples
    --------
    >>> [pull_class(pull) for pull in (-7.2, -1.3, 0.9, 1.3, 5.0, float("nan"))]
    [0, 4, 5, 6, 10, -1]
    """
    if not np.isfinite(pull):
        return -1
    steps = min(int(abs(pull)), PULL_LIMIT)
    return PULL_LIMIT + (steps if pull > 0 else -steps)


def class_colours() -> list[str]:
    """Return the colours of the classes on white paper, blue through grey to orange: those of the HTML report."""
    style = resources.files(__package__).joinpath("templates", "report.css").read_text(encoding="utf-8")
    return re.findall(r"--c\d+: (#\w+);", style)[:N_CLASSES]


def common_word(words: npt.NDArray[Any]) -> str:
    """Return the word that all elements share, "" where they differ.

    Examples
    --------
    >>> common_word(np.array(["adu", "adu"])), common_word(np.array(["adu", "MJy/sr"]))
    ('adu', '')
    """
    different = set(words.tolist())
    return str(different.pop()) if len(different) == 1 else ""
