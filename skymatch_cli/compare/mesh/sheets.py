"""Sheets: the cells of several tiles, leaf by leaf, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import MOST_DOUBLINGS, Beside, Layers, Windows, cells_first
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.pairs import CellPairs
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves, SheetPlan
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_WINDOW_PIX = 6.0  # standard deviation of the smallest window over which images are compared: several seeing discs

_ENDLESS = 1e9  # value of a cell, in noise, beyond which squares would be too large for float32
_CUT = np.float32(7.0)  # error of a cell without any of its pixels, over the upper quartile of their light
_BRIGHT = np.float32(100.0)  # light of a star over the error of the cells around it
_DISTORTED = 20.0  # light of many faint stars errs alike where pixel areas differ: count it so often
_SAME_AREA = 1e-3  # share by which areas of pixels may differ


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Cells that several images see: n leaves of images, over m blocks of the grid, in some tiles.

    Values are in units of the run's noise and relative to the level of their image.
    """

    leaves: Leaves
    layers: Layers  # how they are ordered
    images: IntArray  # (k,): that have leaves
    number: IntArray  # (n,): of the image of every leaf among these
    pairs: CellPairs
    windows: Windows  # over which images are compared
    value: Float32Array  # (n, 64)
    weight: Float32Array  # (n, 64): information of the pixels; 0 where fewer than two images see the cell
    pixels: Float32Array  # (n, 64): good pixels with the cell's window

    def of_images(self, per_image: FloatArray) -> Float32Array:
        """Return values of the images (N,) for the leaves, (n, 1)."""
        return per_image[self.leaves.image, None].astype(np.float32)


def make_sheet(
    plan: SheetPlan, meshes: Sequence[Mesh | None], graph: OverlapGraph, noise: float, least: float = 0.0
) -> Sheet | None:
    """The sheet of a plan, from the meshes of its plane; None where no pair of the graph shares a block.

    ``noise`` is the unit of values, ``least`` the noise that a pixel of any image is taken to have at least.
    """
    layers, leaves = Layers.arranged(plan.leaves)
    pairs = CellPairs.among(leaves, layers, graph, plan.plane)
    if not len(pairs.rows):
        return None

    def cells(mesh: Mesh, row: IntArray, column: IntArray) -> Sequence[Float32Array]:
        value, weight, pixels = mesh.cells(row, column)
        weight = weight * np.float32(np.clip((noise / max(mesh.noise, least)) ** 2, 1e-12, 1e12))
        area = _pixel_area(mesh, row, column)
        return value, weight, pixels, pixels * area, area / np.float32(mesh.pixel_area)

    value, weight, pixels, share, area = maps_of_leaves(leaves, meshes, cells)
    weight[~np.isin(leaves.tile, pairs.run_tile[pairs.run_pair < len(pairs.rows)])] = 0
    once = (weight > 0).astype(np.float32)
    seen = layers.each(np.multiply, once, (layers.total(once) > 1).astype(np.float32)) > 0
    weight *= seen
    value *= seen
    value /= np.float32(noise)
    beside = Beside.of(leaves)
    weight = _less_near_stars(layers, area, value, _less_in_crowds(layers, beside, value, weight, share))
    total = np.maximum(layers.total(weight), np.finfo(np.float32).tiny)
    # The share of a cell's variance that remains in its residual: the image itself takes part in the mean.
    own = np.maximum(np.float32(1) - layers.each(np.divide, weight, total), np.float32(1e-3))
    images, number = np.unique(leaves.image, return_inverse=True)
    return Sheet(
        leaves=leaves,
        layers=layers,
        images=images,
        number=number,
        pairs=pairs,
        windows=Windows.of_weights(beside, _finest(meshes), weight, own),
        value=value,
        weight=weight,
        pixels=(pixels * seen).astype(np.float32),
    )


def _less_in_crowds(
    layers: Layers, beside: Beside, value: Float32Array, weight: Float32Array, share: Float32Array
) -> Float32Array:
    """Weights, reduced near bright stars, and where the border of a frame or of a mask cuts a cell.

    The light of stars is how far a cell stands out from those around it, in the image where it does least: what one
    image alone shows is no star. Seeing moves some of it to cells nearby, which get an error in proportion. A cell that
    is cut lacks the stars of the part that is missing. How bright they are can't be seen, so all cut cells of a sheet
    get the error that its typical light makes. ``share`` (n, 64): of the window of each cell that is good pixels.
    Masks that leave the same share of all cells of a leaf cut none.
    """
    seen = weight > 0
    light_of_image, known_cells = cells_first(np.clip(value, -_ENDLESS, _ENDLESS)), cells_first(seen.astype(np.float32))
    for _ in range(2):  # a smooth nebula leaves nothing
        light_of_image -= beside.smoothed(light_of_image, 1)
    np.abs(light_of_image, out=light_of_image)
    light_of_image[beside.smoothed(known_cells, 2) < 1] = np.inf  # some of the cells around are not seen
    light = layers.least(np.ascontiguousarray(light_of_image[:, :-1].T))
    known = np.isfinite(light)
    if not known.any():
        return weight
    typical = np.float32(np.quantile(light[known], 0.75))
    light[~known] = 0
    brightest = cells_first(layers.each(np.multiply, seen.astype(np.float32), light))
    brightest = beside.highest(beside.highest(brightest))[:, :-1].T  # within two cells
    missing = 1 - share / np.maximum(share.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(weight / (1 + weight * ((_CUT * typical * missing) ** 2 + (brightest / _BRIGHT) ** 2)))


def _less_near_stars(layers: Layers, area: Float32Array, value: Float32Array, weight: Float32Array) -> Float32Array:
    """Weights, reduced where there is starlight and the pixel areas of the images differ by distortion.

    Whether a star keeps its counts or its surface brightness there depends on the flat field.
    """
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


def _pixel_area(mesh: Mesh, row: IntArray, column: IntArray) -> Float32Array:
    """Pixel area in blocks, in units of the area between cell centres, (k, 1)."""
    place = (
        np.clip(line - first // BLOCK, 0, n - 1)
        for line, first, n in zip((row, column), mesh.origin, mesh.area.shape, strict=True)
    )
    return np.asarray(mesh.area[tuple(place)][:, None], np.float32)


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


def maps_of_leaves(
    leaves: Leaves,
    meshes: Sequence[Mesh | None],
    maps: Callable[[Mesh, IntArray, IntArray], Sequence[Float32Array]],
) -> tuple[Float32Array, ...]:
    """Maps of leaves, (n, 64) or (n, 1) each; ``maps`` gives those of blocks (rows, columns) of one mesh."""
    order = np.argsort(leaves.image, kind="stable")
    images, first = np.unique(leaves.image[order], return_index=True)
    out: list[Float32Array] = []
    for i, mine in zip(images.tolist(), np.split(order, first[1:]), strict=True):
        mesh = meshes[i]
        assert mesh is not None  # noqa: S101 - leaves are of meshes by construction
        found = maps(mesh, leaves.row[mine], leaves.column[mine])
        out = out or [np.empty((len(leaves), each.shape[1]), np.float32) for each in found]
        for values, each in zip(out, found, strict=True):
            values[mine] = each
    return tuple(out)
