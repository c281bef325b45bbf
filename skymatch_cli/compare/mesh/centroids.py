"""Centroids of the good pixels of cells, which a tilt needs beside the cells' values.

A cell at the border of an image, or beside a mask, has its pixels to one side of its centre. For a constant
sky that is the same everywhere; for a tilt it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Bins, CellSums, Float32Array, PixelMap
from skymatch_cli.model import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class CellCentroids:
    """Mean places of the good pixels of cells, with the cells' windows, minus the cells' centres.

    Attributes
    ----------
    pitch_rad : float
        Of the grid.
    u, v : (nj, ni) float32
        In cells; 0 where there is no pixel.
    """

    pitch_rad: float
    u: Float32Array
    v: Float32Array

    @classmethod
    def of_sums(
        cls, pitch_rad: float, sums: CellSums, origin: tuple[int, int], shape: tuple[int, int]
    ) -> CellCentroids:
        """From sums over cells, of which the second counts pixels and the last two add up places."""
        (j0, i0), (nj, ni) = (tuple(o - s for o, s in zip(origin, sums.origin, strict=True)), shape)
        count, total_u, total_v = sums.sums[[1, -2, -1], j0 : j0 + nj, i0 : i0 + ni]
        seen = count > 0
        v, u = (o + np.arange(n, dtype=float) for o, n in zip(origin, shape, strict=True))
        offsets = (
            np.where(seen, np.divide(total, count, out=np.zeros_like(total), where=seen) - centre, 0.0)
            for total, centre in ((total_u, u), (total_v, v[:, None]))
        )
        return cls(pitch_rad, *(offset.astype(np.float32) for offset in offsets))


def place_sums(
    positions: PixelMap, bins: Bins, usable: BoolArray, at: tuple[slice, slice], count: Float32Array
) -> tuple[FloatArray, FloatArray]:
    """Sums of the places of usable pixels over bins, along u and v.

    Parameters
    ----------
    positions : PixelMap
    bins : Bins
    usable : (ny, nx) bool
    at : (rows, columns)
        The pixels of the image that ``usable`` speaks of.
    count : (by, bx) float32
        Usable pixels in the bins.
    """
    y, x = (np.arange(s.start, s.stop, dtype=float) for s in at)
    sums = []
    for place in positions.at(x, y):
        use = usable & np.isfinite(place)
        middle = float(place[use].mean()) if use.any() else 0.0
        sums.append(bins.sums(np.where(use, place - middle, 0.0).astype(np.float32)) + middle * count.astype(float))
    return sums[0], sums[1]
