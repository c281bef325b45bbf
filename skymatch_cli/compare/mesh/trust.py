"""What the cells of a sheet count when they are seen beside those of other images: skies, and trust.

Few cells are doubtful. Whether one is costs some passes over all of them; what it then counts is found for those few.
"""

from __future__ import annotations

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.sums import over
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.model import IntArray

_CELL_CUT = 6.0  # sigma at which a single cell counts no more
_BESIDE_CUT = 3.0  # the same beside one that does not count: trails and ghosts reach into the next cell
_MEAN_CUT = 8.0  # the same for the mean of 3 x 3 cells
_MEAN_SCALE = 0.75  # scatter of that mean in noise only, in units of what independent cells would have
_REJECTED = 0.5  # trust below which a cell draws its neighbours into doubt


def median_sky(sheet: Sheet, shifted: Float32Array) -> Float32Array:
    """Median over the images of every cell, (m, 64): a start that one bad image can't spoil; 0 where none counts."""
    sizes = (*sheet.layers.sizes, 0)
    seen, value = sheet.weight > 0, np.where(sheet.weight > 0, shifted, np.float32(np.inf))
    sky = np.zeros((sizes[0], value.shape[1]), np.float32)
    for k in range(1, len(sizes)):
        blocks = slice(sizes[k], sizes[k - 1])  # those of k images
        layers = [slice(start + blocks.start, start + blocks.stop) for start in sheet.layers.starts[:k]]
        if blocks.start == blocks.stop or k == 1:
            continue
        if k == 2:  # both images see a cell, or none counts
            middle = np.float32(0.5) * (value[layers[0]] + value[layers[1]])
            sky[blocks] = np.where(seen[layers[0]], middle, np.float32(0))
            continue
        ordered = np.sort(np.stack([value[layer] for layer in layers]), axis=0)
        count = np.sum([seen[layer] for layer in layers], axis=0)
        low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, 0)[0]
        high = np.take_along_axis(ordered, np.minimum(count // 2, k - 1)[None], 0)[0]
        sky[blocks] = np.where(count > 0, np.float32(0.5) * (low + high), np.float32(0))
    return sky


def mean_sky(sheet: Sheet, weight: Float32Array, shifted: Float32Array, before: Float32Array) -> Float32Array:
    """Weighted mean over the images of every cell; as before where no image is trusted."""
    total = sheet.layers.total(weight)
    return np.asarray(np.divide(sheet.layers.total(weight * shifted), total, out=before.copy(), where=total > 0))


def trusted_weight(sheet: Sheet, residual: Float32Array) -> Float32Array:
    """Weight of every cell of every image: times the biweights of its own residual and of the mean of 3 x 3.

    Distances are in units of their scale in the tile.
    """
    weight = sheet.weight.copy()
    flat, tile = weight.reshape(-1), sheet.leaves.tile
    cells, use = sheet.samples.cells, sheet.samples.use
    single = np.abs(residual)
    single *= sheet.per_sigma
    scale = sheet.samples.scales(single.reshape(-1)[cells], use, 1.0)[tile, None]
    doubtful = np.flatnonzero(single > np.float32(0.5 * _CELL_CUT) * scale)
    trust = _biweight(_over_scale(single, scale, doubtful), _CELL_CUT)
    flat[doubtful] *= trust
    rejected = doubtful[trust < _REJECTED]
    if rejected.size:
        beside = sheet.beside.with_neighbours(rejected)
        flat[beside] *= _biweight(_over_scale(single, scale, beside), _BESIDE_CUT)
    total = sheet.beside.box_sums(weight * residual)
    np.abs(total, out=total)
    sigma = sheet.beside.box_sums(weight * sheet.own)
    np.sqrt(sigma, out=sigma)
    some = over(total.reshape(-1)[cells], sigma.reshape(-1)[cells])
    scale = sheet.samples.scales(some, use & (flat[cells] > 0), _MEAN_SCALE)[tile, None]
    doubtful = np.flatnonzero(total > sigma * (np.float32(0.5 * _MEAN_CUT) * scale))
    mean = over(total.reshape(-1)[doubtful], sigma.reshape(-1)[doubtful])
    flat[doubtful] *= _biweight(mean / scale[doubtful // BLOCK**2, 0], _MEAN_CUT)
    return weight


def _over_scale(distance: Float32Array, scale: Float32Array, cells: IntArray) -> Float32Array:
    """Distances of some cells over the scale (n, 1) of their leaf."""
    return np.asarray(distance.reshape(-1)[cells] / scale[cells // BLOCK**2, 0])


def _biweight(distance: Float32Array, cut: float) -> Float32Array:
    # Flat up to half of the cut: noise alone loses no weight, so the weights remain its information.
    beyond = np.clip(distance * np.float32(2.0 / cut) - np.float32(1), np.float32(0), np.float32(1))
    return np.asarray((np.float32(1) - beyond**2) ** 2)
