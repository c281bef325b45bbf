"""Meshes of many images compared cell by cell, with a plane, or a polynomial of degree 2 or 3, for each image.

The constant model of ``compare`` with k unknowns in the place of one: the same cells, weights and trust, and least
squares of ``value[i, c] = plane[i](place of c) + sky[c]``. Eliminating the skies leaves for every pair of images the
moments ``sum over cells of w_i w_j / sum(w) f f^T`` with f = (1, u, v, and so on).

The place of a cell in an image is the mean place of its good pixels; moments are those of the cells' centres, and
what the difference does to the values is taken off before, with the planes of the iteration before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.compare import (
    first_differences,
    median_differences,
    pair_measurements,
    pair_status,
)
from skymatch_cli.compare.mesh.connected import least_squares_offsets
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.reduce import blocks_at
from skymatch_cli.compare.mesh.sheets import Sheet, gathered, make_sheet
from skymatch_cli.compare.mesh.sums import (
    BlockScatter,
    PairSums,
    all_pair_sums,
    block_scatter,
    inverse,
    over,
    shares,
)
from skymatch_cli.compare.mesh.tiles import BLOCK, run_noise, sheet_plans
from skymatch_cli.compare.mesh.trust import Distances, SheetSpreads, Spreads, mean_sky, median_sky, trusted_weight
from skymatch_cli.model import (
    FloatArray,
    IntArray,
    Measurements,
    OverlapGraph,
    PlaneDifferences,
    Status,
    StrArray,
)
from skymatch_cli.model.measurements import PlaneSolver
from skymatch_cli.model.monomials import carried, degree_of, exponents, n_terms

_ITERATIONS = 7  # with the planes and the weights of the one before; residuals begin with the tilts in them
_UNSCALED = 3  # iterations before the scatter is trusted


def compare_planes(
    meshes: Sequence[Mesh | None],
    graph: OverlapGraph,
    group: IntArray,
    solve_planes: PlaneSolver,
    usable: StrArray | None = None,
    *,
    degree: int = 1,
) -> Measurements:
    """Compare every overlapping pair of images, with the weights of a joint solution for planes.

    Parameters
    ----------
    meshes : for every image, Mesh with centroids or None
        On the only plane of the graph.
    graph, group, usable
        See ``compare.compare``.
    solve_planes : PlaneSolver
        Least squares of polynomials.
    degree : int
        Of the polynomials: 1 for planes.

    Returns
    -------
    Measurements
        As ``compare.compare``, and ``planes``.
    """
    unit, least = run_noise([meshes])
    # Moments are about the middle of a sheet: tiles degrees apart would swamp those of a pair in float32.
    plans = sheet_plans([meshes], together=False) if len(graph.a) else []
    made = [make_sheet(plan, meshes, graph, unit, least) for plan in plans]
    fields = [_Field.of(sheet, meshes) for sheet in made if sheet is not None]
    planes, scale, typical = _robust_planes(fields, meshes, graph, unit, solve_planes, degree)
    moments, sums = PlaneMoments.empty(graph, meshes, degree), PairSums.empty(graph, np.zeros(graph.n_images))
    for field in fields:
        weight, shifted, _ = field.trusted(planes, scale, typical)
        residual = field.sheet.layers.each(np.subtract, shifted, field.sky)
        share = shares(field.sheet.layers, weight)
        moments.add(field, weight, residual, share, noise=True)
        sums.add(all_pair_sums(field.sheet, weight, residual, share, field.sky))
    first, second = planes.at_pairs(moments.position, graph)
    mean_a, mean_b = (over((moments.moment @ p[:, :, None])[:, 0, 0], sums.weight) for p in (first, second))
    n_good = np.array([0 if m is None else m.n_good for m in meshes])
    status = pair_status(sums, n_good, graph, group)
    if usable is not None:
        for words in (usable[graph.b], usable[graph.a]):
            status = np.where(words != Status.OK, words, status)
    pitch = next((m.centroids.pitch_rad for m in meshes if m is not None and m.centroids is not None), 1.0)
    per_cell = pitch ** np.array([sum(each) for each in exponents(degree)], float)
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
    """Polynomials of N images about a place of their own: in units of the noise, per powers of a cell."""

    centre: FloatArray  # (N, 2), cells
    value: FloatArray  # (N, k)
    level: FloatArray  # (N,), what the values of the cells are relative to

    def at_pairs(self, position: FloatArray, graph: OverlapGraph) -> tuple[FloatArray, FloatArray]:
        """Polynomials (M, k) of both images of every pair about the pair's position."""
        degree = degree_of(self.value.shape[1])
        first, second = (
            (carried(position - self.centre[end], degree) @ self.value[end][:, :, None])[:, :, 0]
            for end in (graph.a, graph.b)
        )
        return first, second


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """A sheet, where its cells are in every image, and the sky of its cells in the iteration before."""

    sheet: Sheet
    corner: FloatArray  # (2,) u, v of the first cell of all
    centre: tuple[Float32Array, Float32Array]  # (n, 64): centre of the cell, cells from that corner
    place: tuple[Float32Array, Float32Array]  # (n, 64): the same of the centre of its pixels
    sky: Float32Array

    @classmethod
    def of(cls, sheet: Sheet, meshes: Sequence[Mesh | None]) -> _Field:
        offsets = gathered(sheet.leaves, meshes, _centroids)
        j, i = np.divmod(np.arange(BLOCK**2), BLOCK)
        corner = np.array([line.min() for line in (sheet.leaves.column, sheet.leaves.row)]) * BLOCK
        u, v = (
            (line[:, None] * BLOCK + within - first).astype(np.float32)
            for line, within, first in zip((sheet.leaves.column, sheet.leaves.row), (i, j), corner, strict=True)
        )
        sky = np.zeros((sheet.layers.sizes[0], BLOCK**2), np.float32)
        return cls(sheet, corner.astype(float), (u, v), (u + offsets[0], v + offsets[1]), sky)

    def without(self, planes: ImagePlanes) -> Float32Array:
        """Values of the cells less the plane of each image."""
        images = self.sheet.leaves.image
        level, *coefficients = planes.value[images, :, None].swapaxes(0, 1)
        from_centre = (self.corner - planes.centre[images])[:, :, None].swapaxes(0, 1)
        u, v = (place + shift for place, shift in zip(self.place, from_centre, strict=True))
        plane = np.broadcast_to(level - planes.level[images, None], u.shape).copy()
        terms = exponents(degree_of(planes.value.shape[1]))[1:]
        for coefficient, (i, j) in zip(coefficients, terms, strict=True):
            plane += coefficient * _mean_power(u, i) * _mean_power(v, j)
        return np.asarray((self.sheet.value - plane) * (self.sheet.weight > 0), np.float32)

    def trusted(
        self, planes: ImagePlanes, scale: FloatArray, typical: FloatArray | None
    ) -> tuple[Float32Array, Float32Array, SheetSpreads]:
        """Weights of the cells, their values less the planes, and their spreads."""
        shifted = self.without(planes)
        distances = Distances.of_residuals(self.sheet, self.sheet.layers.each(np.subtract, shifted, self.sky))
        weight = self.sheet.weight.copy() if typical is None else trusted_weight(self.sheet, distances, typical)
        weight /= self.sheet.of_images(scale)
        return weight, shifted, distances.spreads(self.sheet)


def _mean_power(u: FloatArray, power: int) -> FloatArray:
    """Mean of a power of the place over the window of a cell at ``u``, in cells: a triangle, of variance 1/6."""
    if power == 0:
        return np.ones(1)
    return np.asarray((u, u * u + 1 / 6, u * (u * u + 1 / 2))[power - 1])


def _centroids(mesh: Mesh, row: IntArray, column: IntArray) -> tuple[Float32Array, Float32Array]:
    if mesh.centroids is None:
        raise ValueError("a plane needs the places of the cells' pixels")
    u, v = (blocks_at(a, mesh.origin, row, column) for a in (mesh.centroids.u, mesh.centroids.v))
    return u, v


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMoments:
    """Sums over the common cells of M pairs, about a position of each: moments, pulls (M, k) and their noise."""

    position: FloatArray
    moment: FloatArray
    pull: FloatArray
    noise: FloatArray

    @classmethod
    def empty(cls, graph: OverlapGraph, meshes: Sequence[Mesh | None], degree: int) -> PlaneMoments:
        """Sums over nothing, about the middle of what both meshes cover."""
        m, k = len(graph.a), n_terms(degree)
        box = np.array([_box(mesh) for mesh in meshes])
        low = np.maximum(box[graph.a, 0], box[graph.b, 0])
        high = np.minimum(box[graph.a, 1], box[graph.b, 1])
        return cls(0.5 * (low + high), np.zeros((m, k, k)), np.zeros((m, k)), np.zeros((m, k, k)))

    def add(
        self,
        field: _Field,
        weight: Float32Array,
        residual: Float32Array,
        share: Float32Array,
        *,
        noise: bool = False,
    ) -> None:
        """Add the weights and residuals of a sheet; the noise only where it is asked for."""
        layers, pairs = field.sheet.layers, field.sheet.pairs
        middle = [0.5 * float(c.max()) for c in field.centre]
        degree = degree_of(self.pull.shape[1])
        if degree > 1:  # sixth powers of places want more digits
            weight, residual, share = (cast("Float32Array", x.astype(float)) for x in (weight, residual, share))
        u, v = (c - c.dtype.type(m) for c, m in zip(field.centre, middle, strict=True))
        by_residual, square = share * residual, weight * weight
        per_weight = inverse(layers.total(weight))
        terms = exponents(degree)
        pull = np.zeros((len(pairs.rows), len(terms)))
        for k, powers in enumerate(terms):
            pull[:, k] = np.subtract(*pairs.both_products(_times(by_residual, u, v, powers), weight))
        sums: dict[tuple[int, int], FloatArray] = {}
        variances: dict[tuple[int, int], FloatArray] = {}
        for powers in exponents(2 * degree):
            product = _times(share, u, v, powers)
            sums[powers] = pairs.products(product, weight)
            if noise:
                variances[powers] = np.add(*pairs.both_products(layers.each(np.multiply, product, per_weight), square))
        moment, variance = np.zeros((2, len(pairs.rows), len(terms), len(terms)))
        for a, (i, j) in enumerate(terms):
            for b, (k, m) in enumerate(terms):
                moment[:, a, b] = sums[i + k, j + m]
                variance[:, a, b] = variances[i + k, j + m] if noise else 0.0
        move = carried(field.corner + middle - self.position[pairs.rows], degree).swapaxes(1, 2)
        self.moment[pairs.rows] += move @ moment @ move.swapaxes(1, 2)
        self.noise[pairs.rows] += move @ variance @ move.swapaxes(1, 2)
        self.pull[pairs.rows] += (move @ pull[:, :, None])[:, :, 0]


def _times(a: Float32Array, u: Float32Array, v: Float32Array, powers: tuple[int, int]) -> Float32Array:
    """A u^i v^j."""
    for factor, power in zip((u, v), powers, strict=True):
        for _ in range(power):
            a = a * factor
    return a


def _box(mesh: Mesh | None) -> FloatArray:
    """Lowest and highest (u, v) of the cells."""
    if mesh is None:
        return np.zeros((2, 2))
    low = np.array(mesh.origin[::-1], float)
    return np.stack([low, low + np.array(mesh.shape[::-1]) - 1.0])


def _robust_planes(  # noqa: PLR0917 - what is compared, and how
    fields: list[_Field],
    meshes: Sequence[Mesh | None],
    graph: OverlapGraph,
    unit: float,
    solve_planes: PlaneSolver,
    degree: int,
) -> tuple[ImagePlanes, FloatArray, FloatArray | None]:
    """Planes of the images with weights that agree with them, the noise and the spreads they leave; fields get skies.

    Images of one group have their own planes here: residuals that say whether images agree in a cell must not
    contain the step between two chips.
    """
    n = graph.n_images
    level = np.array([0.0 if m is None else m.level / unit for m in meshes])
    value = np.zeros((n, n_terms(degree)))
    start = first_differences([median_differences(f.sheet) for f in fields], level, graph)
    value[:, 0] = least_squares_offsets(n, graph.a, graph.b, *start)
    planes = ImagePlanes(np.array([_box(m).mean(axis=0) for m in meshes]), value, level)
    scale, typical = np.ones(n), None
    for field_index, field in enumerate(fields):
        fields[field_index] = replace(field, sky=median_sky(field.sheet, field.without(planes)))
    for iteration in range(_ITERATIONS):
        moments, scatter, spreads = PlaneMoments.empty(graph, meshes, degree), BlockScatter.empty(n), Spreads.empty(n)
        for field_index, field in enumerate(fields):
            weight, shifted, found = field.trusted(planes, scale, typical)
            spreads.add(found)
            sky = mean_sky(field.sheet, weight, shifted, field.sky)
            fields[field_index] = replace(field, sky=sky)
            residual, share = field.sheet.layers.each(np.subtract, shifted, sky), shares(field.sheet.layers, weight)
            moments.add(field, weight, residual, share)
            if iteration >= _UNSCALED:
                scatter.add(block_scatter(field.sheet, weight, residual, share))
        scale, typical = scale * scatter.ratio(), spreads.typical()
        planes = replace(planes, value=planes.value + _step(planes.centre, moments, graph, solve_planes))
    return planes, scale, typical


def _step(centre: FloatArray, moments: PlaneMoments, graph: OverlapGraph, solve_planes: PlaneSolver) -> FloatArray:
    """What the pulls of the pairs add to the polynomials of the images, (N, k)."""
    use = moments.moment[:, 0, 0] > 0
    found = moments.moment[use], moments.position[use], moments.pull[use]
    return solve_planes(centre, graph.a[use], graph.b[use], *found)
