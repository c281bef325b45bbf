"""Positions of the planes of a cube on its third axis, so that only corresponding planes are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable

from skymatch_cli.errors import Problem
from skymatch_cli.images.formats.keywords import Keywords

_MOST_APART = 0.25  # of the step from plane to plane

Channels = tuple[float, float]
"""Value of the first plane on the third axis of its WCS, and the step to the next; NaN where they are not known."""


def channels_of(keywords: Keywords) -> Channels:
    """Read the linear WCS of the third axis."""
    step = keywords.number("CD3_3")
    if math.isnan(step):
        scale = keywords.number("PC3_3")
        step = keywords.number("CDELT3") * (1.0 if math.isnan(scale) else scale)
    reference = keywords.number("CRPIX3")
    return keywords.number("CRVAL3") + (1.0 - (0.0 if math.isnan(reference) else reference)) * step, step


def channel_problems(cubes: Iterable[tuple[str, str, int, Channels]]) -> dict[str, Problem]:
    """Find cubes whose planes lie elsewhere than those of the first cube with the same number of planes.

    Parameters
    ----------
    cubes : iterable of (label, CTYPE of the third axis, number of planes, channels)

    Returns
    -------
    dict
        By label.
    """
    first: dict[int, tuple[str, str, Channels]] = {}
    problems: dict[str, Problem] = {}
    for label, axis, n_planes, (start, step) in cubes:
        other, its_axis, (its_start, its_step) = first.setdefault(n_planes, (label, axis, (start, step)))
        apart = max(abs(start - its_start), abs(start - its_start + (n_planes - 1) * (step - its_step)))
        if axis != its_axis or apart > _MOST_APART * abs(its_step):
            what = f"its planes lie elsewhere along {axis or 'the third axis'} than those of {other}"
            problems[label] = Problem(label, what, "match cubes of the same planes, resampled alike")
    return problems
