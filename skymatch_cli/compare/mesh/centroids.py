"""Places of the good pixels of cells, which a tilt or a polynomial needs beside the cells' values.

A cell at the border of an image, or beside a mask, has its pixels to one side of its centre. For a constant sky that is
the same everywhere; for a tilt the mean place counts, for a polynomial the means of the powers of the places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import comb
from operator import mul

import numpy as np

from skymatch_cli.compare.mesh.cells import Bins, CellSums, Float32Array, PixelMap
from skymatch_cli.model import BoolArray, FloatArray
from skymatch_cli.model.monomials import exponents


@dataclass(frozen=True, slots=True, eq=False)
class CellCentroids:
    """Means of powers of the places of good pixels, with the windows of the cells, about the centres of the cells."""

    pitch_rad: float  # of the grid
    powers: Float32Array  # (t, nj, ni): of u, v, u^2, u v and so on, in cells; 0 where there is no pixel

    @classmethod
    def of_sums(
        cls, pitch_rad: float, sums: CellSums, origin: tuple[int, int], shape: tuple[int, int], degree: int
    ) -> CellCentroids:
        """From sums over cells, of which the second counts pixels and those behind it add up powers of places."""
        (j0, i0), (nj, ni) = (tuple(o - s for o, s in zip(origin, sums.origin, strict=True)), shape)
        _, count, *totals = sums.sums[:, j0 : j0 + nj, i0 : i0 + ni]
        per_count = np.divide(1, count, out=np.zeros_like(count), where=count > 0)
        about_first = [total * per_count for total in (count, *totals)]
        v, u = (-(first + np.arange(n, dtype=float)) for first, n in zip((j0, i0), shape, strict=True))
        return cls(pitch_rad, moved_powers(about_first, u, v[:, None], degree))


def moved_powers(means: Sequence[FloatArray | Float32Array], u: FloatArray, v: FloatArray, degree: int) -> Float32Array:
    """Means (t, ...) of powers of places, about (-u, -v), from ``means`` of 1 and of these (or more) about 0."""
    terms = exponents(degree)
    powers = (
        sum(
            comb(a, i) * comb(b, j) * u ** (a - i) * v ** (b - j) * mean
            for mean, (i, j) in zip(means, terms, strict=False)
            if i <= a and j <= b
        )
        for a, b in terms[1:]
    )
    return np.stack([np.asarray(power, np.float32) for power in powers])


def place_sums(  # noqa: PLR0917 - what is summed up, and where
    positions: PixelMap, bins: Bins, usable: BoolArray, at: tuple[slice, slice], origin: tuple[int, int], degree: int
) -> list[FloatArray]:
    """Sums over bins of the powers, up to a degree, of the places of usable pixels: u, v, u^2 and so on, about a cell.

    ``at`` are the rows and columns of the image that ``usable`` speaks of, ``origin`` is the cell (j0, i0).
    """
    y, x = (np.arange(s.start, s.stop, dtype=float) for s in at)
    u, v = positions.at(x, y)
    u -= origin[1]
    v -= origin[0]
    for place in (u, v):
        place[~usable | np.isnan(place)] = 0
    return [bins.sums(power) for power in powers_of_places(u, v, degree)]


def powers_of_places(u: FloatArray, v: FloatArray, degree: int) -> list[FloatArray]:
    """Return u, v, u^2, u v and so on, up to a degree."""
    return [reduce(mul, (u,) * i + (v,) * j) for i, j in exponents(degree)[1:]]
