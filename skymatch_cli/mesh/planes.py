"""Meshes of many images compared cell by cell, with a level and a tilt for each image.

The constant model of ``mesh_compare`` with three unknowns in the place of one: the same cells, weights and trust,
and least squares of ``value[i, c] = plane[i](place of c) + sky[c]``. Eliminating the skies leaves for every pair
of images the moments ``sum over cells of w_i w_j / sum(w) f f^T`` with f = (1, u, v).

The place of a cell in an image is the mean place of its good pixels; moments are those of the cells' centres, and
what the difference does to the values is taken off before, with the planes of the iteration before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.mesh.cells import Float32Array
from skymatch_cli.mesh.compare import (
    cell_trust,
    first_differences,
    image_offsets,
    mean_sky,
    median_differences,
    median_sky,
    of_tile,
    pair_measurements,
    pair_status,
)
from skymatch_cli.mesh.reduce import CellMesh
from skymatch_cli.mesh.sums import BlockScatter, PairSums, block_scatter, pair_sums
from skymatch_cli.mesh.tiles import Tile, run_noise, tile_places, tiles
from skymatch_cli.model import FloatArray, IntArray, Measurements, OverlapGraph, PlaneDifferences, Status, StrArray
from skymatch_cli.solver.planefit import PlaneEquations

_ITERATIONS = 7  # with the planes and the weights of the one before; residuals begin with the tilts in them
_UNSCALED = 3  # iterations before the scatter is trusted


def compare_planes(
    meshes: Sequence[CellMesh | None], graph: OverlapGraph, group: IntArray, usable: StrArray | None = None
) -> Measurements:
    """Compare every overlapping pair of images, with the weights of a joint solution for planes.

    Parameters
    ----------
    meshes : for every image, CellMesh with centroids or None
        On the only plane of the graph.
    graph, group, usable
        See ``mesh_compare.compare``.

    Returns
    -------
    Measurements
        As ``mesh_compare.compare``, and ``planes``.
    """
    unit = run_noise([meshes])
    made = tiles(tile_places([meshes]), [meshes], graph, unit)
    fields = [_Field.of(tile, meshes) for tile in made if tile is not None]
    planes, scale = _robust_planes(fields, meshes, graph, unit)
    moments, sums = PlaneMoments.empty(graph, meshes), PairSums.empty(graph, np.zeros(graph.n_images))
    for field in fields:
        shifted = field.without(planes)
        weight = field.tile.weight * cell_trust(field.tile, shifted - field.sky) / of_tile(scale, field.tile)
        moments.add(field, weight, shifted - field.sky, noise=True)
        sums.add(pair_sums(field.tile, weight, shifted - field.sky, field.sky))
    first, second = planes.at_pairs(moments.position, graph)
    mean_a, mean_b = (_over((moments.moment @ p[:, :, None])[:, 0, 0], sums.weight) for p in (first, second))
    n_good = np.array([0 if m is None else m.n_good for m in meshes])
    status = pair_status(sums, n_good, graph, group)
    if usable is not None:
        for words in (usable[graph.b], usable[graph.a]):
            status = np.where(words != Status.OK, words, status)
    pitch = next((m.centroids.pitch_rad for m in meshes if m is not None and m.centroids is not None), 1.0)
    per_cell = np.array([1.0, pitch, pitch])
    found = PlaneDifferences(
        plane=graph.planes[0],
        position=moments.position * pitch,
        moment=moments.moment * np.outer(per_cell, per_cell) / unit**2,
        noise=moments.noise * np.outer(per_cell, per_cell) / unit**2,
        pull=(moments.pull + (moments.moment @ (first - second)[:, :, None])[:, :, 0]) * per_cell / unit,
    )
    sums = replace(sums, offset_a=mean_a, offset_b=mean_b)
    return replace(pair_measurements(sums, unit, graph, n_good=n_good, status=status), planes=found)


@dataclass(frozen=True, slots=True, eq=False)
class ImagePlanes:
    """Planes of N images: level at a place of their own, in units of the noise, and tilts per cell."""

    centre: FloatArray  # (N, 2), cells
    value: FloatArray  # (N, 3)
    level: FloatArray  # (N,), what the values of the cells are relative to

    def at_pairs(self, position: FloatArray, graph: OverlapGraph) -> tuple[FloatArray, FloatArray]:
        """Planes (M, 3) of both images of every pair about the pair's position."""
        out = []
        for end in (graph.a, graph.b):
            plane = self.value[end]
            plane[:, 0] += (plane[:, 1:] * (position - self.centre[end])).sum(axis=1)
            out.append(plane)
        return out[0], out[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """A tile, where its cells are in every image, and the sky of its cells in the iteration before."""

    tile: Tile
    place: tuple[Float32Array, Float32Array]  # (k, nj, ni): centre of the pixels, cells from the tile's corner
    corner: FloatArray  # (2,) u, v of the first cell
    sky: Float32Array

    @classmethod
    def of(cls, tile: Tile, meshes: Sequence[CellMesh | None]) -> _Field:
        nj, ni = tile.value.shape[1:]
        j, i = np.mgrid[:nj, :ni].astype(np.float32)
        u, v = (np.tile(c, (len(tile.images), 1, 1)) for c in (i, j))
        for k, image in enumerate(tile.images.tolist()):
            mesh = meshes[image]
            if mesh is None or mesh.centroids is None:
                raise ValueError("a plane needs the places of the cells' pixels")
            source, target = _common(mesh, tile)
            u[k][target] += mesh.centroids.u[source]
            v[k][target] += mesh.centroids.v[source]
        corner = np.array(tile.corner[::-1], float)
        return cls(tile, (u, v), corner, np.zeros((nj, ni), np.float32))

    def without(self, planes: ImagePlanes) -> Float32Array:
        """Values of the cells less the plane of each image."""
        images = self.tile.images
        level, du, dv = (c[:, None, None] for c in planes.value[images].T)
        from_centre = (self.corner - planes.centre[images]).T[:, :, None, None]
        plane = level - planes.level[images][:, None, None]
        plane = plane + du * (self.place[0] + from_centre[0]) + dv * (self.place[1] + from_centre[1])
        return np.asarray((self.tile.value - plane) * (self.tile.weight > 0), np.float32)


def _common(mesh: CellMesh, tile: Tile) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a tile lies in a mesh, and where the mesh lies in the tile."""
    spans = [
        (max(o, c), max(o, c, min(o + n, c + m)), o, c)
        for o, n, c, m in zip(mesh.origin, mesh.value.shape, tile.corner, tile.value.shape[1:], strict=True)
    ]
    rows, columns = ((slice(low - o, high - o), slice(low - c, high - c)) for low, high, o, c in spans)
    return (rows[0], columns[0]), (rows[1], columns[1])


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMoments:
    """Sums over the common cells of M pairs, about a position of each: moments, pulls (M, 3) and their noise."""

    position: FloatArray
    moment: FloatArray
    pull: FloatArray
    noise: FloatArray

    @classmethod
    def empty(cls, graph: OverlapGraph, meshes: Sequence[CellMesh | None]) -> PlaneMoments:
        """Sums over nothing, about the middle of what both meshes cover."""
        m = len(graph.a)
        box = np.array([_box(mesh) for mesh in meshes])
        low = np.maximum(box[graph.a, 0], box[graph.b, 0])
        high = np.minimum(box[graph.a, 1], box[graph.b, 1])
        return cls(0.5 * (low + high), np.zeros((m, 3, 3)), np.zeros((m, 3)), np.zeros((m, 3, 3)))

    def add(self, field: _Field, weight: Float32Array, residual: Float32Array, *, noise: bool = False) -> None:
        """Add the weights and residuals of a tile; the noise only where it is asked for."""
        tile = field.tile
        k, nj, ni = weight.shape
        w = weight.reshape(k, -1)
        per_weight = _over(np.ones_like(w[0]), w.sum(axis=0))
        share = w * per_weight
        half = np.array([0.5 * (ni - 1), 0.5 * (nj - 1)])
        v, u = (a.ravel() for a in np.mgrid[:nj, :ni].astype(np.float32) - half[::-1, None, None].astype(np.float32))
        basis = (np.ones_like(u), u, v)
        moment, variance = np.zeros((2, len(tile.pair), 3, 3))
        pull = np.zeros((len(tile.pair), 3))
        one, other = tile.first, tile.second
        by_residual = share * residual.reshape(k, -1)
        for i in range(3):
            found = (by_residual * basis[i]) @ w.T
            pull[:, i] = found[one, other].astype(float) - found[other, one]
            for j in range(i, 3):
                product = share * (basis[i] * basis[j])
                moment[:, i, j] = moment[:, j, i] = (product @ w.T)[one, other]
                if noise:
                    square = (product * per_weight) @ (w * w).T
                    variance[:, i, j] = variance[:, j, i] = square[one, other] + square[other, one]
        move = np.tile(np.eye(3), (len(tile.pair), 1, 1))
        move[:, 1:, 0] = field.corner + half - self.position[tile.pair]
        self.moment[tile.pair] += move @ moment @ move.swapaxes(1, 2)
        self.noise[tile.pair] += move @ variance @ move.swapaxes(1, 2)
        self.pull[tile.pair] += (move @ pull[:, :, None])[:, :, 0]


def _box(mesh: CellMesh | None) -> FloatArray:
    """Lowest and highest (u, v) of the cells."""
    if mesh is None:
        return np.zeros((2, 2))
    low = np.array(mesh.origin[::-1], float)
    return np.stack([low, low + np.array(mesh.value.shape[::-1]) - 1.0])


def _robust_planes(
    fields: list[_Field], meshes: Sequence[CellMesh | None], graph: OverlapGraph, unit: float
) -> tuple[ImagePlanes, FloatArray]:
    """Planes of the images, with weights that agree with them, and the noise that they leave; fields get skies.

    Images of one group have their own planes here: residuals that say whether images agree in a cell must not
    contain the step between two chips.
    """
    n = graph.n_images
    level = np.array([0.0 if m is None else m.level / unit for m in meshes])
    value = np.zeros((n, 3))
    start = first_differences([median_differences(f.tile) for f in fields], level, graph)
    value[:, 0] = image_offsets(n, graph.a, graph.b, *start)
    planes = ImagePlanes(np.array([_box(m).mean(axis=0) for m in meshes]), value, level)
    scale = np.ones(n)
    for field_index, field in enumerate(fields):
        fields[field_index] = replace(field, sky=median_sky(field.tile, field.without(planes)))
    for iteration in range(_ITERATIONS):
        moments, scatter = PlaneMoments.empty(graph, meshes), BlockScatter.empty(n)
        for field_index, field in enumerate(fields):
            shifted = field.without(planes)
            weight = field.tile.weight * cell_trust(field.tile, shifted - field.sky) / of_tile(scale, field.tile)
            sky = mean_sky(weight, shifted, field.sky)
            fields[field_index] = replace(field, sky=sky)
            moments.add(field, weight, shifted - sky)
            if iteration >= _UNSCALED:
                scatter.add(block_scatter(field.tile, weight, shifted - sky))
        scale = scale * scatter.ratio()
        planes = replace(planes, value=planes.value + _step(planes.centre, moments, graph))
    return planes, scale


def _step(centre: FloatArray, moments: PlaneMoments, graph: OverlapGraph) -> FloatArray:
    """What the pulls of the pairs add to the planes of the images, (N, 3)."""
    use = moments.moment[:, 0, 0] > 0
    if not use.any():
        return np.zeros((len(centre), 3))
    equations = PlaneEquations.of_pairs(centre, graph.a[use], graph.b[use], moments.moment[use], moments.position[use])
    return equations.solve(equations.gathered(moments.pull[use][:, :, None]))[:, :, 0]


def _over(a: FloatArray, b: FloatArray) -> FloatArray:
    """A / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
