"""Meshes of many images side by side: squares of the common grid, and what each cell counts there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.mesh.cells import Float32Array
from skymatch_cli.mesh.reduce import CellMesh
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

TILE = 64  # cells a side
_MOST_SQUARES = 8  # of all images of a tile: where calls cost little beside the arithmetic
BLOCK = 8  # cells a side of the sums whose scatter gives the noise; tiles are trimmed to whole ones
_KAPPA = 0.4  # variance of a cell's mean times its weight; below 1 because windows overlap
_SEEING = 0.5  # share of a cell's structure that seeing may move to a neighbour
_DISTORTED = 20.0  # light of many faint stars errs alike where pixel areas differ: count it so many times
_BRIGHT = 800.0  # light in a cell, in noise of a pixel times pixels, at which the cell counts half


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A rectangle of cells and the k images that see cells of it together with others.

    Values are in units of the run's noise and relative to the level of their image.

    Attributes
    ----------
    corner : (j, i)
        Cell of the first element, on the grid.
    images : (k,) int64
    pair : (p,) int64
        Pairs of the graph among these images: index into the graph.
    first, second : (p,) int64
        Their images, as indices into ``images``.
    value : (k, nj, ni) float32
    weight : (k, nj, ni) float32
        Information of the pixels, less near stars; 0 where fewer than two images see the cell.
    information : (k, nj, ni) float32
        That of the pixels alone.
    own : (k, nj, ni) float32
        Share of a cell's variance that remains in its residual: the image itself takes part in the mean.
    per_sigma : (k, nj, ni) float32
        1 / sigma of a cell's residual: noise, and light that seeing may move; 0 where there is no weight.
    pixels : (k, nj, ni) float32
        Good pixels with the cell's window.
    """

    corner: tuple[int, int]
    images: IntArray
    pair: IntArray
    first: IntArray
    second: IntArray
    value: Float32Array
    weight: Float32Array
    information: Float32Array
    own: Float32Array
    per_sigma: Float32Array
    pixels: Float32Array


def run_noise(meshes: Sequence[Sequence[CellMesh | None]]) -> float:
    """Unit in which values are compared: the median of the images' pixel noise."""
    return float(np.median([m.noise for plane in meshes for m in plane if m is not None] or [1.0]))


@dataclass(frozen=True, slots=True)
class TilePlace:
    """A tile to be made, of one or several squares: its plane, their rows and columns, and the images that see it."""

    plane: int
    rows: range
    columns: range
    images: tuple[int, ...]

    @property
    def n_squares(self) -> int:
        """How many squares."""
        return len(self.rows) * len(self.columns)


def tile_places(meshes: Sequence[Sequence[CellMesh | None]]) -> list[TilePlace]:
    """Where several images may share cells, in the order of planes, rows and columns."""
    places = []
    for plane, images in enumerate(meshes):
        seen: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, mesh in enumerate(images):
            for key in _covered_tiles(mesh) if mesh is not None else ():
                seen[key].append(i)
        squares = [
            TilePlace(plane, range(j, j + 1), range(i, i + 1), tuple(m)) for (j, i), m in seen.items() if len(m) > 1
        ]
        places += _joined(squares)
    return sorted(places, key=lambda place: (place.plane, place.rows.start, place.columns.start))


def _joined(squares: Sequence[TilePlace]) -> list[TilePlace]:
    """Squares side by side, then rows of them, that the same images see, as one: a strip costs as much as a square."""
    rows: list[TilePlace] = []
    for place in sorted(squares, key=lambda p: (p.images, p.rows.start, p.columns.start)):
        last = rows[-1] if rows else place
        if last.images == place.images and last.rows == place.rows and _meet(last.columns, place.columns, place, last):
            rows[-1] = replace(last, columns=range(last.columns.start, place.columns.stop))
        else:
            rows.append(place)
    joined: list[TilePlace] = []
    for place in sorted(rows, key=lambda p: (p.images, p.columns.start, p.columns.stop, p.rows.start)):
        last = joined[-1] if joined else place
        if last.images == place.images and last.columns == place.columns and _meet(last.rows, place.rows, place, last):
            joined[-1] = replace(last, rows=range(last.rows.start, place.rows.stop))
        else:
            joined.append(place)
    return joined


def _meet(before: range, after: range, *places: TilePlace) -> bool:
    """Whether one ends where the other begins, and both together are not too large."""
    return before.stop == after.start and sum(p.n_squares * len(p.images) for p in places) <= _MOST_SQUARES


def tiles(
    places: Sequence[TilePlace], meshes: Sequence[Sequence[CellMesh | None]], graph: OverlapGraph, noise: float
) -> Iterator[Tile | None]:
    """The tile of every place, None where no two images of an overlapping pair share a cell."""
    for place in places:
        ids = np.array(place.images, np.int64)
        pairs = _pairs_among(ids, graph, place.plane)
        members = [meshes[place.plane][m] for m in place.images]
        yield _tile(place, ids, pairs, members, noise) if pairs[0].size else None


def _covered_tiles(mesh: CellMesh) -> Iterator[tuple[int, int]]:
    j, i = (np.arange(o // TILE, (o + n - 1) // TILE + 1) for o, n in zip(mesh.origin, mesh.weight.shape, strict=True))
    for row in j:
        for column in i:
            window, _ = _windows(mesh, (int(row) * TILE, int(column) * TILE), (TILE, TILE))
            if mesh.weight[window].any():
                yield int(row), int(column)


def _windows(
    mesh: CellMesh, corner: tuple[int, int], shape: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a tile lies in a mesh, and where the mesh lies in the tile."""
    spans = [
        (max(o, c), min(o + n, c + m), o, c)
        for o, n, c, m in zip(mesh.origin, mesh.weight.shape, corner, shape, strict=True)
    ]
    return (
        tuple(slice(low - o, max(low, high) - o) for low, high, o, _ in spans),
        tuple(slice(low - c, max(low, high) - c) for low, high, _, c in spans),
    )


def _pairs_among(ids: IntArray, graph: OverlapGraph, plane: int) -> tuple[IntArray, IntArray, IntArray]:
    """Pairs of the graph in a plane among images (sorted), and their images as indices into ``ids``."""
    first, second = np.triu_indices(len(ids), 1)
    keys = graph.a * graph.n_images + graph.b
    wanted = ids[first] * graph.n_images + ids[second]
    pair = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    here = (keys[pair] == wanted) & (graph.plane[pair] == plane)
    return pair[here].astype(np.int64), first[here].astype(np.int64), second[here].astype(np.int64)


def _tile(
    place: TilePlace,
    ids: IntArray,
    pairs: tuple[IntArray, IntArray, IntArray],
    members: Sequence[CellMesh | None],
    noise: float,
) -> Tile | None:
    corner = (place.rows.start * TILE, place.columns.start * TILE)
    shape = (len(place.rows) * TILE, len(place.columns) * TILE)
    value, weight, structure, area = (np.zeros((len(ids), *shape), np.float32) for _ in range(4))
    distortion = np.zeros_like(value)
    for k, mesh in enumerate(members):
        assert mesh is not None  # noqa: S101 - members have a mesh by construction
        source, target = _windows(mesh, corner, shape)
        value[k][target] = mesh.value[source] / noise
        weight[k][target] = mesh.weight[source] * np.clip((noise / mesh.noise) ** 2, 1e-12, 1e12)
        structure[k][target] = mesh.structure[source] / noise
        area[k][target] = mesh.area[source]
        distortion[k][target] = mesh.area[source] / mesh.pixel_area
    shared = (np.count_nonzero(weight, axis=0) > 1) & (weight > 0)
    if not shared.any():
        return None
    rows, columns = _whole_blocks(shared.any(axis=0))
    box = (slice(None), rows, columns)
    shared, value, weight, structure, area, distortion = (
        c[box] for c in (shared, value, weight, structure, area, distortion)
    )
    weight = np.where(shared, weight, np.float32(0))
    least = np.where(shared, structure, np.float32(np.inf)).min(axis=0)
    least[~np.isfinite(least)] = 0.0
    total = np.maximum(weight.sum(axis=0), np.finfo(np.float32).tiny)
    own = np.maximum(np.float32(1) - weight / total, np.float32(1e-3))
    return Tile(
        corner=(corner[0] + rows.start, corner[1] + columns.start),
        images=ids,
        pair=pairs[0],
        first=pairs[1],
        second=pairs[2],
        value=np.where(shared, value, np.float32(0)),
        weight=_less_near_stars(weight, area, distortion, least).astype(np.float32),
        information=weight,
        own=own,
        per_sigma=_per_sigma(weight, own, least).astype(np.float32),
        pixels=np.where(shared, 1.0 / np.where(shared, area, 1.0), 0.0).astype(np.float32),
    )


def _whole_blocks(used: BoolArray) -> tuple[slice, slice]:
    """The smallest rectangle of whole blocks around the cells that are used."""
    lines = (np.flatnonzero(used.any(axis=a)) // BLOCK for a in (1, 0))
    j, i = (slice(int(n[0]) * BLOCK, (int(n[-1]) + 1) * BLOCK) for n in lines)
    return j, i


def _less_near_stars(
    weight: Float32Array, area: Float32Array, distortion: Float32Array, structure: Float32Array
) -> FloatArray:
    """Weights of the pixels, times what is left of them near bright stars and where pixel areas differ."""
    shared = weight > 0
    count = np.maximum(shared.sum(axis=0), 1)
    # weight / area: (pixels in a cell)**2 over the variance of a pixel
    per_light = np.divide(weight, area, out=np.zeros(weight.shape), where=shared).sum(axis=0) / count
    hole = 1.0 / (1.0 + structure**2 * per_light / _BRIGHT**2)
    mean = np.where(shared, distortion, 0).sum(axis=0) / count
    light_error = _DISTORTED * structure * np.where(shared, distortion - mean, 0.0)
    return np.asarray(weight * hole / (1.0 + weight * light_error**2))


def _per_sigma(weight: Float32Array, own: Float32Array, structure: Float32Array) -> FloatArray:
    """1 / sigma of the residuals; seeing may move a share of the structure to a neighbour."""
    return np.asarray(np.sqrt(weight / (_KAPPA * own + weight * (_SEEING * structure) ** 2)))
