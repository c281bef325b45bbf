"""Find the lattice on which values lie (integer ADU, also scaled and stored as floats), and the median on it.

On a lattice the plain median moves in whole steps while the sky does not: two images with noise of 1 ADU whose skies
differ by 0.3 ADU may have the same integer as median. Here the median is interpolated inside the step, from the counts
below the two edges of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from skymatch_cli.model import FloatArray, IntArray
from skymatch_cli.statistics.sample import Run

_NEIGHBOURS = 4  # distinct values looked at on either side of the median
MIN_TIES = 4  # pixels per distinct value; with fewer the step is small compared with the error of the median
_MIN_STEP = 8 * float(np.finfo(np.float32).eps)  # of the value; a finer lattice is the rounding of float32 itself
_REACH = 8.5  # steps from the median within which the spacing must be regular
_IRREGULARITY = 0.2  # of a step: room for the rounding of a scaled or shifted lattice
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Lattice:
    """The values ``origin + k * step``; ``origin`` is the lattice point that holds the median."""

    origin: float
    step: float


def find_lattice(run: Run) -> Lattice | None:
    """Find the lattice on which values lie; None where they are continuous.

    The distinct values next to the median decide. On a lattice several pixels share each of them, they are regularly
    spaced, and the spacing is far larger than that of the floating-point numbers; continuous data meet none of the
    three conditions. The order of the pixels does not matter.
    """
    origin = float(run.at(run.n // 2)[0])
    low, high = run.below(np.array([origin, np.nextafter(origin, np.inf)]))
    if high - low < MIN_TIES:
        return None
    values, counts = [origin], [int(high - low)]
    for upward in (True, False):
        edge = int(high if upward else low)
        for _ in range(_NEIGHBOURS):
            if not 0 < edge < run.n:
                break
            value = float(run.at(edge if upward else edge - 1)[0])
            beyond = int(run.below(np.array([np.nextafter(value, np.inf) if upward else value]))[0])
            values.append(value)
            counts.append(abs(beyond - edge))
            edge = beyond
            if abs(value - origin) < _MIN_STEP * abs(origin):
                return None
    return _regular(np.array(values), np.array(counts))


def _regular(values: FloatArray, counts: IntArray) -> Lattice | None:
    """Return the lattice of some distinct values, the first of which is its origin."""
    origin = float(values[0])
    order = np.argsort(values)
    values, counts = values[order], counts[order]
    if values.size < 3:
        return None
    step = float(np.diff(values).min())
    near = np.abs(values - origin) <= _REACH * step
    values, counts = values[near], counts[near]
    if values.size < 3 or counts.mean() < MIN_TIES or np.sort(counts)[-2] < MIN_TIES:
        return None
    if step < _MIN_STEP * np.abs(values).max():
        return None
    step = float((values[-1] - values[0]) / np.round((values[-1] - values[0]) / step))
    points = (values - origin) / step
    return Lattice(origin, step) if np.abs(points - np.round(points)).max() <= _IRREGULARITY else None


def grouped_median(run: Run, lattice: Lattice) -> tuple[float, float]:
    """Return the median within its step, and its one-sigma error.

    The counts at both edges of the step that holds the median are joined by the normal distribution that
    passes through them. This is exact for Gaussian noise of any size, and becomes the usual linear rule of a grouped
    median where the noise is large.
    """
    n, half = run.n, lattice.step / 2
    edges = np.array([lattice.origin - half, lattice.origin + half])
    value, density = normal_crossing(edges, run.below(edges), n)
    return value, float(np.hypot(0.5 / density, lattice.step / np.sqrt(12)) / np.sqrt(n))


def normal_crossing(edges: FloatArray, counts: IntArray, n: int) -> tuple[float, float]:
    """Return the median of n values between edges (2,) with ``counts`` (2,) below them, and the density there."""
    # (c + 1/2) / (n + 1) keeps the extreme counts 0 and n finite, and one half where it is.
    z_low, z_high = (_NORMAL.inv_cdf((float(count) + 0.5) / (n + 1)) for count in counts)
    slope = (z_high - z_low) / float(edges[1] - edges[0])
    return float(edges[0]) - z_low / slope, _NORMAL.pdf(0.0) * slope
