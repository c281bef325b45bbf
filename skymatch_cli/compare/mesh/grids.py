"""Choose how fine the cells are: one coarsest grid for every plane, halved where overlaps are narrow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.choices import Model
from skymatch_cli.compare.mesh.cells import MeshGrid
from skymatch_cli.model import FloatArray, ImageInfo, IntArray, OverlapGraph
from skymatch_cli.model.polygons import PolygonRows
from skymatch_cli.settings import Settings

_DEFAULT_PITCH_PIX, _LEAST_PITCH_PIX = 8.0, 1.0
_CELLS_ACROSS = 20.0  # cells across an overlap: some of those at its border are lost
_POLYGONS = 65536  # whose widths are found at a time: memory


def mesh_grids(infos: Sequence[ImageInfo], graph: OverlapGraph, mesh_size: float | None) -> tuple[MeshGrid, ...]:
    """The coarsest grid of cells of every plane of the graph.

    The pitch is ``mesh_size`` pixels (8 by default) of the coarsest image that overlaps another.
    """
    scale = _pixel_scales(infos)
    grids = []
    for k, plane in enumerate(graph.planes if len(graph.a) else ()):
        on_it = graph.plane == k
        if not on_it.any():  # nothing is compared on it, but it has its number
            on_it = np.ones_like(on_it)
        coarsest = float(scale[np.concatenate([graph.a[on_it], graph.b[on_it]])].max())
        grids.append(MeshGrid(plane, (mesh_size or _DEFAULT_PITCH_PIX) * coarsest))
    return tuple(grids)


def halvings(
    infos: Sequence[ImageInfo], graph: OverlapGraph, grids: Sequence[MeshGrid], settings: Settings
) -> IntArray:
    """How often the pitch of its plane's grid is halved for every overlap, (M,).

    Twenty cells across the overlap, of one to eight pixels of its coarser image: wide ones where there is room, small
    ones only where there isn't. A grid is part of the next finer one, so overlaps that share a spacing share cells.
    Where tilts are sought, all overlaps have the spacing of the narrowest image. A given ``mesh_size`` holds for all.
    """
    if settings.mesh_size is not None or not len(graph.a):
        return np.zeros(len(graph.a), np.int64)
    scale = _pixel_scales(infos)
    coarser = np.maximum(scale[graph.a], scale[graph.b])
    width = _widths(graph.polygon)
    if settings.model != Model.CONSTANT:
        widest = np.zeros(len(infos))
        for ends in (graph.a, graph.b):
            np.maximum.at(widest, ends, width)
        width = np.full(len(width), widest[np.unique(np.append(graph.a, graph.b))].min())
        coarser = np.full(len(width), coarser.max())
    wanted = np.clip(width / _CELLS_ACROSS, _LEAST_PITCH_PIX * coarser, _DEFAULT_PITCH_PIX * coarser)
    pitch = np.array([grid.pitch_rad for grid in grids])[graph.plane]
    return np.maximum(np.rint(np.log2(pitch / wanted)), 0).astype(np.int64)


def _pixel_scales(infos: Sequence[ImageInfo]) -> FloatArray:
    """Side of a pixel of every image, in radians."""
    area = np.fromiter((info.pixel_area_arcsec2 for info in infos), np.float64, len(infos))
    return np.asarray(np.radians(np.sqrt(np.nan_to_num(area)) / 3600))


def _widths(polygons: PolygonRows) -> FloatArray:
    """Widths of overlaps, in radians: the shorter side of the rectangle of the same area and border."""
    width = np.empty(len(polygons))
    for low in range(0, len(width), _POLYGONS):
        some = polygons.part(np.arange(low, min(low + _POLYGONS, len(width))))
        half = some.perimeter() / 2
        apart = np.sqrt(np.maximum(half**2 - 4 * some.area(), 0))
        width[low : low + _POLYGONS] = (half - apart) / 2
    return width
