"""Sheets: the cells of several tiles side by side, leaf by leaf, and what each of them counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Beside, Layers, LeafTable, closed
from skymatch_cli.compare.mesh.pairs import Pairs, pairs_of
from skymatch_cli.compare.mesh.reduce import CellMesh
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves, SheetPlan
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_SCALE_CELLS = 1009  # residuals of a tile that give its scale; prime to its sides
_KAPPA = 0.4  # variance of a cell's mean times its weight; below 1 because windows overlap
_SEEING = 0.5  # share of a cell's structure that seeing may move to a neighbour
_DISTORTED = 20.0  # light of many faint stars errs alike where pixel areas differ: count it so many times
_BRIGHT = 800.0  # light in a cell, in noise of a pixel times pixels, at which the cell counts half
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Cells that several images see: n leaves of images, over m blocks of the grid, in some tiles.

    Values are in units of the run's noise and relative to the level of their image.

    Attributes
    ----------
    leaves : Leaves
    layers : Layers
        How they are ordered.
    beside : Beside
    pairs : Pairs
    samples : Samples
        The cells that give the scale of a tile.
    value : (n, 64) float32
    weight : (n, 64) float32
        Information of the pixels, less near stars; 0 where fewer than two images see the cell.
    information : (n, 64) float32
        That of the pixels alone.
    own : (n, 64) float32
        Share of a cell's variance that remains in its residual: the image itself takes part in the mean.
    per_sigma : (n, 64) float32
        1 / sigma of a cell's residual: noise, and light that seeing may move; 0 where there is no weight.
    pixels : (n, 64) float32
        Good pixels with the cell's window.
    """

    leaves: Leaves
    layers: Layers
    beside: Beside
    pairs: Pairs
    samples: Samples
    value: Float32Array
    weight: Float32Array
    information: Float32Array
    own: Float32Array
    per_sigma: Float32Array
    pixels: Float32Array

    def of_images(self, per_image: FloatArray) -> Float32Array:
        """Values of the images (N,) as those of the leaves (n, 1)."""
        return per_image[self.leaves.image, None].astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Cells of t tiles that stand for all of them.

    Attributes
    ----------
    cells : (t, s) int64
        Indices into a flat array (n, 64).
    use : (t, s) bool
        False where a tile has fewer than s.
    """

    cells: IntArray
    use: BoolArray

    @classmethod
    def of_tiles(cls, leaves: Leaves, images: Sequence[Sequence[int]], seen: BoolArray) -> Samples:
        """About a thousand of the cells (seen or not) of the images of every tile, evenly, and of these the seen."""
        n_tiles, n = len(images), int(leaves.image.max()) + 1
        each = np.concatenate([np.array(ids) + k * n for k, ids in enumerate(images)])  # ascending
        first = np.searchsorted(each, np.arange(n_tiles) * n)
        in_tile = np.searchsorted(each, leaves.tile * n + leaves.image) - first[leaves.tile]
        used = leaves.part(np.flatnonzero(seen.any(axis=1)))
        (top, height), (left, width) = (_extent(line, used.tile, n_tiles) for line in (used.row, used.column))
        size = np.array([len(ids) for ids in images]) * height * width * BLOCK**2
        step = np.maximum(1, size // _SCALE_CELLS)
        tile = leaves.tile
        row = (in_tile * height[tile] + leaves.row - top[tile]) * BLOCK
        corner = row * width[tile] * BLOCK + (leaves.column - left[tile]) * BLOCK
        j, i = np.divmod(np.arange(BLOCK**2), BLOCK)
        place = corner[:, None] + (width[tile] * BLOCK)[:, None] * j + i
        chosen = np.flatnonzero(seen & (place % step[tile][:, None] == 0))
        tile = tile[chosen // BLOCK**2]
        order = np.argsort(tile, kind="stable")
        count = np.bincount(tile, minlength=n_tiles)
        use = np.arange(max(1, int(count.max(initial=0)))) < count[:, None]
        cells = np.zeros(use.shape, np.int64)
        cells[use] = chosen[order]
        return cls(cells, use)

    def scales(self, distances: Float32Array, use: BoolArray, least: float) -> Float32Array:
        """Scale of distances (t, s) from zero, of those in use; at least what noise alone has. (t,)."""
        some = np.sort(np.where(use, distances, np.float32(np.inf)), axis=1)
        count = use.sum(axis=1)
        tile = np.arange(len(some))
        low, high = some[tile, np.maximum(count - 1, 0) // 2], some[tile, np.minimum(count // 2, some.shape[1] - 1)]
        scale = np.maximum(np.float32(_MAD_TO_SIGMA * 0.5) * (low + high), np.float32(least))
        return np.where(count > 0, scale, np.float32(least))


def _extent(line: IntArray, tile: IntArray, n_tiles: int) -> tuple[IntArray, IntArray]:
    """The first line of blocks that each tile uses, and how many there are to the last one."""
    first, last = np.full(n_tiles, np.iinfo(np.int64).max), np.full(n_tiles, -1 - np.iinfo(np.int64).max)
    np.minimum.at(first, tile, line)
    np.maximum.at(last, tile, line)
    unused = first > last
    first[unused], last[unused] = 0, 0
    return first, last - first + 1


def make_sheet(plan: SheetPlan, meshes: Sequence[CellMesh | None], graph: OverlapGraph, noise: float) -> Sheet | None:
    """The sheet of a plan, from the meshes of its plane; None where no pair of the graph shares a block.

    Parameters
    ----------
    plan : SheetPlan
    meshes : for every image, CellMesh or None
    graph : OverlapGraph
    noise : float
        The unit of values.
    """
    layers, leaves = Layers.arranged(closed(plan.leaves))
    pairs = pairs_of(plan, leaves, layers, graph)
    if not len(pairs.rows):
        return None
    value, weight, structure, area = gathered(leaves, meshes, _maps)
    weight *= _per_leaf(leaves, meshes, lambda mesh: np.clip((noise / mesh.noise) ** 2, 1e-12, 1e12))
    weight[~np.isin(leaves.tile, pairs.tiles)] = 0
    once = (weight > 0).astype(np.float32)
    seen = layers.each(np.multiply, once, (layers.total(once) > 1).astype(np.float32)) > 0
    weight *= seen
    value *= seen
    value /= np.float32(noise)
    structure /= np.float32(noise)
    structure[~seen] = np.inf
    least = layers.least(structure)
    least[~np.isfinite(least)] = 0.0
    total = np.maximum(layers.total(weight), np.finfo(np.float32).tiny)
    own = np.maximum(np.float32(1) - layers.each(np.divide, weight, total), np.float32(1e-3))
    per_pixel = np.divide(1, area, out=np.zeros_like(area), where=seen)
    distortion = area / _per_leaf(leaves, meshes, lambda mesh: mesh.pixel_area) * seen
    return Sheet(
        leaves=leaves,
        layers=layers,
        beside=LeafTable(leaves).beside(),
        pairs=pairs,
        samples=Samples.of_tiles(leaves, [tile.images for tile in plan.tiles], seen),
        value=value.copy(),  # lets go of the maps that are not kept
        weight=_less_near_stars(layers, weight, per_pixel, distortion, least),
        information=weight.copy(),
        own=own,
        per_sigma=_per_sigma(layers, weight, own, least),
        pixels=per_pixel,
    )


def _per_leaf(
    leaves: Leaves, meshes: Sequence[CellMesh | None], number: Callable[[CellMesh], float | np.float64]
) -> Float32Array:
    """A number of each mesh, as those of the leaves (n, 1)."""
    images, image = np.unique(leaves.image, return_inverse=True)
    return np.array([0.0 if (m := meshes[i]) is None else number(m) for i in images.tolist()], np.float32)[image, None]


def _less_near_stars(
    layers: Layers,
    weight: Float32Array,
    per_pixel: Float32Array,
    distortion: Float32Array,
    structure: Float32Array,
) -> Float32Array:
    """Weights of the pixels, times what is left of them near bright stars and where pixel areas differ."""
    seen = (weight > 0).astype(np.float32)
    count = np.maximum(layers.total(seen), np.float32(1))
    # weight / area: (pixels in a cell)**2 over the variance of a pixel
    per_light = layers.total(weight * per_pixel) / count
    hole = np.asarray(1 / (1 + structure**2 * per_light / np.float32(_BRIGHT**2)), np.float32)
    mean = np.asarray(layers.total(distortion) / count, np.float32)
    light_error = layers.each(np.subtract, distortion, mean)
    light_error *= seen
    layers.each(np.multiply, light_error, np.float32(_DISTORTED) * structure, out=light_error)
    light_error *= light_error
    light_error *= weight
    light_error += 1
    return layers.each(np.multiply, weight, hole) / light_error


def _per_sigma(layers: Layers, weight: Float32Array, own: Float32Array, structure: Float32Array) -> Float32Array:
    """1 / sigma of the residuals; seeing may move a share of the structure to a neighbour."""
    moved = layers.each(np.multiply, weight, np.asarray((np.float32(_SEEING) * structure) ** 2, np.float32))
    moved += np.float32(_KAPPA) * own
    return np.asarray(np.sqrt(weight / moved))


def _maps(mesh: CellMesh) -> tuple[Float32Array, ...]:
    return mesh.value, mesh.weight, mesh.structure, mesh.area


def gathered(
    leaves: Leaves, meshes: Sequence[CellMesh | None], maps: Callable[[CellMesh], Sequence[Float32Array]]
) -> Float32Array:
    """Maps of the cells of meshes, c of each, as those of leaves: (c, n, 64) float32, 0 beyond the meshes."""
    images, image = np.unique(leaves.image, return_inverse=True)
    (top, height), (left, width) = (_extent(line, image, len(images)) for line in (leaves.row, leaves.column))
    # A window of each mesh, whole blocks, one behind the other; a leaf is eight rows of a block from there.
    start = np.cumsum(height * width * BLOCK) - height * width * BLOCK
    row = (start + width * -top * BLOCK - left)[image] + leaves.row * BLOCK * width[image] + leaves.column
    rows = row[:, None] + width[image, None] * np.arange(BLOCK)
    windows: Float32Array | None = None
    for k, i in enumerate(images.tolist()):
        mesh = meshes[i]
        assert mesh is not None  # noqa: S101 - leaves are of meshes by construction
        nj, ni = int(height[k]), int(width[k])
        shape = nj * BLOCK, ni * BLOCK
        source, target = _windows(mesh, (int(top[k]) * BLOCK, int(left[k]) * BLOCK), shape)
        each = maps(mesh)
        if windows is None:
            windows = np.zeros((len(each), int((height * width).sum()) * BLOCK, BLOCK), np.float32)
        for window, values in zip(windows[:, start[k] : start[k] + nj * ni * BLOCK], each, strict=True):
            window.reshape(shape)[target] = values[source]
    assert windows is not None  # noqa: S101 - there is a leaf
    return np.asarray(windows.take(rows, axis=1).reshape(len(windows), len(leaves), BLOCK**2))


def _windows(
    mesh: CellMesh, corner: tuple[int, int], shape: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a rectangle of cells lies in a mesh, and where the mesh lies in the rectangle."""
    spans = [
        (max(o, c), min(o + n, c + m), o, c)
        for o, n, c, m in zip(mesh.origin, mesh.weight.shape, corner, shape, strict=True)
    ]
    return (
        tuple(slice(low - o, max(low, high) - o) for low, high, o, _ in spans),
        tuple(slice(low - c, max(low, high) - c) for low, high, _, c in spans),
    )
