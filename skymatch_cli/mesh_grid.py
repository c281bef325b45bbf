"""The grids of cells of a run, and which pixels of an image are needed for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from skymatch_cli.cells import MeshGrid, pixel_map
from skymatch_cli.mesh import BLOCK_PIX
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, OverlapGraph

MAX_PITCH_PIX = 8.0
MIN_PITCH_PIX = 2.0
_CELLS_ACROSS = 25.0  # an overlap loses about one cell at its borders: 4 per cent


def mesh_grids(graph: OverlapGraph, scale_rad: FloatArray, mesh_size: float | None = None) -> tuple[MeshGrid, ...]:
    """One grid for every plane of the graph.

    Parameters
    ----------
    graph : OverlapGraph
    scale_rad : (N,) float64
        Size of a pixel of every image.
    mesh_size : float, optional
        Pitch of the cells in pixels (of the coarsest image of the plane). By default 8, less where the
        widest overlap of some image is less than 200 pixels wide, never below 2.

    Returns
    -------
    tuple of MeshGrid
    """
    width_rad = _widths(graph)
    grids = []
    for k, plane in enumerate(graph.planes):
        here = graph.plane == k
        images = np.append(graph.a[here], graph.b[here])
        if not images.size:
            grids.append(MeshGrid(plane, MAX_PITCH_PIX * float(scale_rad.max(initial=1.0))))
            continue
        scale = float(scale_rad[images].max())
        widest = np.zeros(graph.n_images)
        np.maximum.at(widest, images, np.tile(width_rad[here], 2))
        across = float(widest[images].min()) / scale / _CELLS_ACROSS
        pitch_pix = float(np.clip(across, MIN_PITCH_PIX, MAX_PITCH_PIX)) if mesh_size is None else mesh_size
        grids.append(MeshGrid(plane, pitch_pix * scale))
    return tuple(grids)


def _widths(graph: OverlapGraph) -> FloatArray:
    """Width of every overlap on its plane: the shorter side of the rectangle around it."""
    width = np.zeros(len(graph.a))
    for m, polygon in enumerate(graph.polygon):
        corners = shapely.get_coordinates(shapely.minimum_rotated_rectangle(polygon))[:3]
        width[m] = np.hypot(*np.diff(corners, axis=0).T).min() if len(corners) == 3 else 0.0
    return width


def needed_blocks(wcs: CelestialWcs, grid: MeshGrid, polygons: Sequence[shapely.Geometry]) -> BoolArray:
    """Blocks of 64 x 64 pixels of an image that reach into a region, or into a cell that does.

    Parameters
    ----------
    wcs : CelestialWcs
    grid : MeshGrid
    polygons : sequence of shapely geometries
        In the plane of the grid: the overlaps of the image.

    Returns
    -------
    (ceil(ny / 64), ceil(nx / 64)) bool
    """
    y, x = (np.arange(-(-n // BLOCK_PIX), dtype=np.float64) * BLOCK_PIX + 0.5 * (BLOCK_PIX - 1) for n in wcs.shape)
    positions = pixel_map(wcs, grid)
    u, v = positions.at(x, y)
    reach = BLOCK_PIX * float(np.sqrt(np.nanmax(positions.area()) / 2.0)) + 2.0  # cells; half a diagonal and a window
    region = shapely.union_all(list(polygons))
    shapely.prepare(region)
    on_plane = np.isfinite(u) & np.isfinite(v)
    needed = np.zeros(u.shape, bool)
    centres = shapely.points(u[on_plane] * grid.pitch_rad, v[on_plane] * grid.pitch_rad)
    needed[on_plane] = shapely.dwithin(region, centres, reach * grid.pitch_rad)
    return needed
