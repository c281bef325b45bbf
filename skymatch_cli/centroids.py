"""Where the good pixels of a cell are: what a tilt needs to know beyond the cell's value.

A cell at the border of an image, or beside a mask, has its pixels to one side of its centre. For a constant
sky that is the same everywhere; for a tilt it is not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .cells import Bins, CellSums, MeshGrid, pixel_map
from .mesh import BLOCK_PIX, CellCentroids, CellMesh
from .model import BoolArray, CelestialWcs


def with_centroids(mesh: CellMesh, good: BoolArray, wcs: CelestialWcs, grid: MeshGrid, blocks: BoolArray) -> CellMesh:
    """The mesh of an image with the mean positions of the good pixels of its cells.

    Parameters
    ----------
    mesh : CellMesh
        What ``mesh.reduce_image`` made of the other parameters.
    good : (ny, nx) bool
        Outliers count as good here: they are too few to matter.
    wcs : CelestialWcs
    grid : MeshGrid
    blocks : (ceil(ny / 64), ceil(nx / 64)) bool

    Returns
    -------
    CellMesh
    """
    positions = pixel_map(wcs, grid)
    bins = Bins.for_pitch(1.0 / np.sqrt(np.nanmedian(positions.area())))
    sums = CellSums.around(positions.u, positions.v, 3)
    for j, i in np.argwhere(blocks).tolist():
        part = tuple(slice(k * BLOCK_PIX, min((k + 1) * BLOCK_PIX, n)) for k, n in zip((j, i), good.shape, strict=True))
        y, x = (np.arange(s.start, s.stop, dtype=float) for s in part)
        u, v = positions.at(x, y)
        at_u, at_v = positions.at(*(s.start + bins.centres(s.stop - s.start) for s in reversed(part)))
        if not np.isfinite(u + v).all() or not np.isfinite(at_u + at_v).all():
            continue  # at the edge of the sky: the centres of the cells stand in
        usable = good[part].astype(np.float32)
        middle = float(u.mean()), float(v.mean())
        count = bins.sums(usable).astype(np.float64)
        moments = (
            bins.sums((usable * (c - m)).astype(np.float32)) + m * count for c, m in zip((u, v), middle, strict=True)
        )
        sums.add(at_u, at_v, (count, *moments))
    j0, i0 = (o - first for o, first in zip(mesh.origin, sums.origin, strict=True))
    nj, ni = mesh.value.shape
    count, total_u, total_v = sums.sums[:, j0 : j0 + nj, i0 : i0 + ni]
    seen = count > 0
    centre_v, centre_u = (o + np.arange(n, dtype=float) for o, n in zip(mesh.origin, (nj, ni), strict=True))
    offsets = (
        np.where(seen, np.divide(total, count, out=np.zeros_like(total), where=seen) - centre, 0.0).astype(np.float32)
        for total, centre in ((total_u, centre_u), (total_v, centre_v[:, None]))
    )
    return replace(mesh, centroids=CellCentroids(grid.pitch_rad, *offsets))
