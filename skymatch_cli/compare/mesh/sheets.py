"""Sheets: the cells of several tiles side by side, leaf by leaf, and what each of them counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import MOST_DOUBLINGS, Layers, LeafTable, closed
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.pairs import Pairs, pairs_of
from skymatch_cli.compare.mesh.reduce import CellMesh
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves, SheetPlan
from skymatch_cli.compare.mesh.windows import Windows
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_WINDOW_PIX = 6.0  # standard deviation of the smallest window over which images are compared: several seeing discs

_DISTORTED = 20.0  # light of many faint stars errs alike where pixel areas differ: count it so often
_SAME_AREA = 1e-3  # share by which areas of pixels may differ


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Cells that several images see: n leaves of images, over m blocks of the grid, in some tiles.

    Values are in units of the run's noise and relative to the level of their image.

    Attributes
    ----------
    leaves : Leaves
    layers : Layers
        How they are ordered.
    pairs : Pairs
    windows : Windows
        Over which images are compared.
    value : (n, 64) float32
    weight : (n, 64) float32
        Information of the pixels; 0 where fewer than two images see the cell.
    pixels : (n, 64) float32
        Good pixels with the cell's window.
    """

    leaves: Leaves
    layers: Layers
    pairs: Pairs
    windows: Windows
    value: Float32Array
    weight: Float32Array
    pixels: Float32Array

    def of_images(self, per_image: FloatArray) -> Float32Array:
        """Values of the images (N,) as those of the leaves (n, 1)."""
        return per_image[self.leaves.image, None].astype(np.float32)


def _extent(line: IntArray, tile: IntArray, n_tiles: int) -> tuple[IntArray, IntArray]:
    """The first line of blocks that each tile uses, and how many there are to the last one."""
    first, last = np.full(n_tiles, np.iinfo(np.int64).max), np.full(n_tiles, -1 - np.iinfo(np.int64).max)
    np.minimum.at(first, tile, line)
    np.maximum.at(last, tile, line)
    unused = first > last
    first[unused], last[unused] = 0, 0
    return first, last - first + 1


def make_sheet(
    plan: SheetPlan, meshes: Sequence[Mesh | None], graph: OverlapGraph, noise: float, least: float = 0.0
) -> Sheet | None:
    """The sheet of a plan, from the meshes of its plane; None where no pair of the graph shares a block.

    Parameters
    ----------
    plan : SheetPlan
    meshes : for every image, Mesh or None
    graph : OverlapGraph
    noise : float
        The unit of values.
    least : float
        Noise that a pixel of any image is taken to have at least.
    """
    layers, leaves = Layers.arranged(closed(plan.leaves))
    pairs = pairs_of(plan, leaves, layers, graph)
    if not len(pairs.rows):
        return None
    value, weight, pixels = gathered(leaves, meshes, _maps)
    weight *= _per_leaf(leaves, meshes, lambda mesh: np.clip((noise / max(mesh.noise, least)) ** 2, 1e-12, 1e12))
    weight[~np.isin(leaves.tile, pairs.tiles)] = 0
    once = (weight > 0).astype(np.float32)
    seen = layers.each(np.multiply, once, (layers.total(once) > 1).astype(np.float32)) > 0
    weight *= seen
    value *= seen
    value /= np.float32(noise)
    weight = _less_near_stars(layers, leaves, meshes, value, weight)
    total = np.maximum(layers.total(weight), np.finfo(np.float32).tiny)
    # The share of a cell's variance that remains in its residual: the image itself takes part in the mean.
    own = np.maximum(np.float32(1) - layers.each(np.divide, weight, total), np.float32(1e-3))
    return Sheet(
        leaves=leaves,
        layers=layers,
        pairs=pairs,
        windows=Windows.of_weights(LeafTable(leaves).beside(), _finest(meshes), weight, own),
        value=value.copy(),  # lets go of the maps that are not kept
        weight=weight.copy(),
        pixels=(pixels * seen).astype(np.float32),
    )


def _less_near_stars(
    layers: Layers, leaves: Leaves, meshes: Sequence[Mesh | None], value: Float32Array, weight: Float32Array
) -> Float32Array:
    """Weights, reduced where there is starlight and the pixel areas of the images differ by distortion.

    Whether a star keeps its counts or its surface brightness there depends on the flat field.
    """
    area = _relative_areas(leaves, meshes)
    seen = (weight > 0).astype(np.float32)
    mean = np.asarray(layers.total(seen * area) / np.maximum(layers.total(seen), np.float32(1)), np.float32)
    error = layers.each(np.subtract, seen * area, mean)
    error *= seen
    if np.abs(error).max(initial=0) < _SAME_AREA:
        return weight
    starlight = layers.least(np.where(seen > 0, value - _low_quarter(value, seen > 0), np.float32(np.inf)))
    starlight[~np.isfinite(starlight)] = 0
    starlight *= np.float32(_DISTORTED)
    layers.each(np.multiply, error, np.maximum(starlight, 0), out=error)
    return np.asarray(weight / (1 + weight * error**2))


def _relative_areas(leaves: Leaves, meshes: Sequence[Mesh | None]) -> Float32Array:
    """Pixel area in the block of every leaf, in units of the image's typical one, (n, 1)."""
    images, image = np.unique(leaves.image, return_inverse=True)
    relative = np.ones((len(leaves), 1), np.float32)
    for k, i in enumerate(images.tolist()):
        if (mesh := meshes[i]) is not None:
            mine = np.flatnonzero(image == k)
            place = (
                np.clip(line[mine] - first // BLOCK, 0, n - 1)
                for line, first, n in zip((leaves.row, leaves.column), mesh.origin, mesh.area.shape, strict=True)
            )
            relative[mine, 0] = mesh.area[tuple(place)] / mesh.pixel_area
    return relative


def _low_quarter(value: Float32Array, seen: BoolArray) -> Float32Array:
    """Lower quartile of the cells of every leaf that are seen, (n, 1): the sky between the stars."""
    ordered = np.sort(np.where(seen, value, np.float32(np.inf)), axis=1)
    low = np.take_along_axis(ordered, (seen.sum(axis=1) // 4)[:, None].clip(max=BLOCK**2 - 1), axis=1)
    return np.where(np.isfinite(low), low, np.float32(0))


def _finest(meshes: Sequence[Mesh | None]) -> int:
    """Doublings of a cell's window that make it as wide as _WINDOW_PIX, in pixels of the coarsest image."""
    pixel_area = max((mesh.pixel_area for mesh in meshes if mesh is not None), default=1.0)
    doublings = 0.5 * np.log2(1 + 6 * _WINDOW_PIX**2 * pixel_area)
    return int(np.clip(np.rint(doublings), 1, MOST_DOUBLINGS - 1))


def _per_leaf(
    leaves: Leaves, meshes: Sequence[Mesh | None], number: Callable[[Mesh], float | np.float64]
) -> Float32Array:
    """A number of each mesh, as those of the leaves (n, 1)."""
    images, image = np.unique(leaves.image, return_inverse=True)
    return np.array([0.0 if (m := meshes[i]) is None else number(m) for i in images.tolist()], np.float32)[image, None]


def _maps(mesh: CellMesh) -> tuple[Float32Array, ...]:
    return mesh.value, mesh.weight, mesh.pixels


def gathered(
    leaves: Leaves, meshes: Sequence[Mesh | None], maps: Callable[[CellMesh], Sequence[Float32Array]]
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
        packed = meshes[i]
        assert packed is not None  # noqa: S101 - leaves are of meshes by construction
        mesh = packed.unpacked()
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
        (max(o, c), min(o + n, c + m), o, c) for o, n, c, m in zip(mesh.origin, mesh.shape, corner, shape, strict=True)
    ]
    return (
        tuple(slice(low - o, max(low, high) - o) for low, high, o, _ in spans),
        tuple(slice(low - c, max(low, high) - c) for low, high, _, c in spans),
    )
