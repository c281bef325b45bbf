"""Lay out SVG drawings: paths, histograms, ticks. Numbers only, no markup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.model import FloatArray


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram, in the units of the drawing, and its text."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram laid out in a box of ``width`` × ``height``."""

    title: str
    width: int
    height: int
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]  # places on the axis and their labels
    curve: str  # to compare it with, "" for none
    axis: str  # names the values and their unit
    summary: str


def histogram(values: FloatArray, title: str, unit: str, *, gaussian: bool = False) -> Histogram:
    """Lay out a histogram of finite values about zero; ``gaussian`` adds the curve of width 1.

    Values beyond ten times the typical spread are counted in the outermost bars.
    """
    width, height = 480, 200
    largest = float(np.abs(values).max())
    spread = 1.4826 * float(np.median(np.abs(values)))
    reach = min(largest, 10 * spread) if spread > 0 else largest
    reach = max(reach, 3.0) if gaussian else reach or 1.0
    n_bins = int(np.clip(2 * np.sqrt(len(values)), 9, 41)) | 1
    edges = np.linspace(-reach, reach, n_bins + 1)
    counts = np.histogram(np.clip(values, -reach, reach), edges)[0]
    z = np.linspace(-reach, reach, 121)
    normal = len(values) * (edges[1] - edges[0]) * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    # where pulls are much wider than one, the curve leaves the drawing at the top: it must not flatten the bars
    up = height / float(max(counts.max(), min(normal.max(), 1.5 * counts.max()) if gaussian else 0))
    right = width / (2 * reach)
    bars = tuple(
        Bar((low + reach) * right, height - n * up, (high - low) * right, n * up, f"{low:.3g} … {high:.3g}: {n}")
        for low, high, n in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        if n
    )
    curve = svg_path(np.column_stack([(z + reach) * right, height - normal * up]), closed=False) if gaussian else ""
    axis = f"{title} ({unit})" if unit else title
    ticks = tuple(((t + reach) * right, f"{t:.6g}") for t in nice_ticks(-reach, reach).tolist())
    return Histogram(title, width, height, bars, ticks, curve, axis, _summary(values, unit, reach))


def _summary(values: FloatArray, unit: str, reach: float) -> str:
    rms = float(np.sqrt(np.mean(values**2)))
    text = f"{len(values)} overlaps, median {np.median(values):.3g}, rms {rms:.3g} {unit}".rstrip()
    outside = int(np.count_nonzero(np.abs(values) > reach))
    return text + (f"; {outside} beyond the axis, counted in the outermost bars" if outside else "")


def nice_ticks(low: float, high: float) -> FloatArray:
    """Return multiples of 1, 2 or 5 times a power of ten between two numbers; eight at most.

    Examples
    --------
    >>> nice_ticks(-2.2, 3.4).tolist()
    [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    """
    least = (high - low) / 7
    power = 10.0 ** np.floor(np.log10(least))
    step = min(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))
    ticks: FloatArray = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return ticks


def svg_path(points: FloatArray, *, closed: bool = True) -> str:
    """Return points (n, 2) as an SVG path with one decimal; "" where one of them is not finite.

    Examples
    --------
    >>> svg_path(np.array([[0.0, 0], [1.25, 0], [1, 1]]))
    'M0,0L1.2,0L1,1Z'
    """
    if not np.isfinite(points).all():
        return ""
    body = "L".join(f"{x:.1f},{y:.1f}".replace(".0,", ",").removesuffix(".0") for x, y in points)
    return f"M{body}{'Z' if closed else ''}"


def simplified(points: FloatArray, tolerance: float = 0.3) -> FloatArray:
    """Return the points of a ring that are needed to draw it within ``tolerance``."""
    import shapely

    if not np.isfinite(points).all() or len(points) < 4:
        return points
    return np.asarray(shapely.get_coordinates(shapely.simplify(shapely.LinearRing(points), tolerance)))[:-1]
