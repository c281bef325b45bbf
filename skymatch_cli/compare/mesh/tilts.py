"""Meshes of many images compared cell by cell, with a plane, or a polynomial of degree 2 or 3, for each image.

The constant model of ``compare`` with k unknowns in the place of one: the same cells, weights and trust, and least
squares of ``value[i, c] = plane[i](place of c) + sky[c]``. Eliminating the skies leaves for every pair of images the
moments ``sum over cells of w_i w_j / sum(w) f f^T`` with f = (1, u, v, and so on).

The value of a polynomial in a cell is its mean over the good pixels, by the means of powers of their places; moments
are those of the cells' centres, and what the difference does is taken off with the planes of the iteration before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.connected import least_squares_offsets
from skymatch_cli.compare.mesh.joint import (
    SHEET_BYTES,
    SKY_BYTES,
    pair_measurements,
    pair_status,
)
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.passes import first_differences, median_sums
from skymatch_cli.compare.mesh.reduce import blocks_at
from skymatch_cli.compare.mesh.sheets import Sheet, make_sheet, maps_of_leaves
from skymatch_cli.compare.mesh.spill import Kept
from skymatch_cli.compare.mesh.sums import BlockScatter, PairSums, PlaneMoments, over, shares
from skymatch_cli.compare.mesh.tiles import BLOCK, MIDDLE, run_noise, sheet_plans
from skymatch_cli.compare.mesh.trust import Spreads, mean_sky, median_sky, weighed
from skymatch_cli.model import FloatArray, IntArray, Measurements, OverlapGraph, PlaneDifferences, StrArray
from skymatch_cli.model.measurements import PlaneSolver
from skymatch_cli.model.monomials import carried, degree_of, exponents, moved_powers, n_terms

_ITERATIONS = 7  # with the planes and the weights of the one before; residuals begin with the tilts in them
_CUBIC = 3  # degree that takes one more
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
    """Compare every overlapping pair of images, with the weights of a joint solution for planes or polynomials.

    As ``compare.compare`` of meshes with centroids, on the only plane of the graph; also gives ``planes``.
    """
    unit, n = run_noise([meshes])[0], graph.n_images
    level, boxes = np.array([0.0 if m is None else m.level / unit for m in meshes]), np.array([*map(_box, meshes)])
    start, position = ImagePlanes(boxes.mean(axis=1), np.zeros((n, n_terms(degree))), level), _middles(boxes, graph)
    moments, sums = PlaneMoments.empty(position, degree), PairSums.empty(graph, np.zeros(n))
    with ExitStack() as stack:
        fields = _fields(meshes, graph, degree, stack)
        skies: Kept[Float32Array] = Kept(SKY_BYTES, stack)
        planes, scale, typical = _robust_planes(fields, skies, graph, start, position, solve_planes)
        for field, sky in zip(fields, skies, strict=True):
            shifted = field.without(planes, sky)
            weight, _ = weighed(field.sheet, shifted, sky, scale, typical)
            residual = field.sheet.layers.each(np.subtract, shifted, sky)
            share = shares(field.sheet.layers, weight)
            moments.add(field.sheet, weight, residual, share, noise=True)
            sums.add_all(field.sheet, weight, residual, share, sky)
    first, second = planes.at_pairs(moments.position, graph)
    moment = moments.matrices(moments.moments)
    mean_a, mean_b = (over((moment @ p[:, :, None])[:, 0, 0], sums.weight) for p in (first, second))
    n_good = np.array([0 if m is None else m.n_good for m in meshes])
    status = pair_status(sums, n_good, graph, group, usable)
    pitch = next((m.centroids.pitch_rad for m in meshes if m is not None and m.centroids is not None), 1.0)
    per_cell = pitch ** np.array([sum(each) for each in exponents(degree)], float)
    found = PlaneDifferences(
        plane=graph.planes[0],
        position=moments.position * pitch,
        moment=moment * np.outer(per_cell, per_cell) / unit**2,
        noise=moments.matrices(moments.noises) * np.outer(per_cell, per_cell) / unit**2,
        pull=(moments.pull + (moment @ (first - second)[:, :, None])[:, :, 0]) * per_cell / unit,
    )
    sums = replace(sums, offset_a=mean_a, offset_b=mean_b)
    return replace(pair_measurements(sums, unit, graph, n_good=n_good, status=status), planes=found)


def _box(mesh: Mesh | None) -> FloatArray:
    """The lowest and highest (u, v) of the cells of a mesh."""
    if mesh is None:
        return np.zeros((2, 2))
    low = np.array(mesh.origin[::-1], float)
    return np.stack([low, low + np.array(mesh.shape[::-1]) - 1.0])


def _middles(boxes: FloatArray, graph: OverlapGraph) -> FloatArray:
    """Middle (M, 2) of what both images of every pair cover, from the boxes (N, 2, 2) of these."""
    low = np.maximum(boxes[graph.a, 0], boxes[graph.b, 0])
    high = np.minimum(boxes[graph.a, 1], boxes[graph.b, 1])
    return np.asarray(0.5 * (low + high))


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
    """A sheet, and where its cells are in every image."""

    sheet: Sheet
    middle: FloatArray  # (n, 2): of the block of every leaf, cells
    powers: Float32Array  # (k - 1, n, 64): means of powers of the places of the pixels, about that
    # (2, n, 64): of the mean place from the centre of the cell, over how many neighbours along that axis are seen
    away: Float32Array
    both: tuple[Float32Array, ...]  # (m, 8, 7) and (m, 7, 8): 1 where two neighbours along that axis are seen

    @classmethod
    def of(cls, sheet: Sheet, meshes: Sequence[Mesh | None], degree: int) -> _Field:
        middle = BLOCK * np.stack([sheet.leaves.column, sheet.leaves.row], axis=1).astype(float) + MIDDLE
        v, u = np.divmod(np.arange(BLOCK**2), BLOCK) - np.array(MIDDLE)
        powers = moved_powers([np.ones(1), *maps_of_leaves(sheet.leaves, meshes, _powers)], u, v, degree)
        away = np.stack([power - place for power, place in zip(powers, (u, v), strict=False)]).astype(np.float32)
        away *= sheet.weight > 0
        seen = (sheet.layers.total(sheet.weight) > 0).astype(np.float32).reshape(-1, BLOCK, BLOCK)
        both = tuple(seen[after] * seen[before] for after, before in _NEXT)
        for mine, known in zip(away, both, strict=True):
            sheet.layers.each(np.divide, mine, np.maximum(_at_ends(known), np.float32(1)), out=mine)
        return cls(sheet, middle, powers, away, both)

    def without(self, planes: ImagePlanes, sky: Float32Array | None = None) -> Float32Array:
        """Values of the cells less the plane of each image; ``sky`` (m, 64): of the cells in the iteration before."""
        images, degree = self.sheet.leaves.image, degree_of(planes.value.shape[1])
        about = carried(self.middle - planes.centre[images], degree) @ planes.value[images][:, :, None]
        plane = self.sheet.value - (about[:, 0] - planes.level[images, None])
        for coefficient, power in zip(about[:, 1:].swapaxes(0, 1), self.powers, strict=True):
            plane -= coefficient * power
        if sky is not None:
            cells = sky.reshape(-1, BLOCK, BLOCK)
            for away, both, (after, before) in zip(self.away, self.both, _NEXT, strict=True):
                slope = _at_ends((cells[after] - cells[before]) * both)
                plane -= self.sheet.layers.each(np.multiply, away, slope)
        plane *= self.sheet.weight > 0
        return plane.astype(np.float32)


def _fields(meshes: Sequence[Mesh | None], graph: OverlapGraph, degree: int, stack: ExitStack) -> Kept[_Field]:
    fields: Kept[_Field] = Kept(SHEET_BYTES, stack)
    unit = run_noise([meshes])
    for plan in sheet_plans([meshes]) if len(graph.a) else ():
        sheet = make_sheet(plan, meshes, graph, *unit)
        if sheet is not None:
            fields.append(_Field.of(sheet, meshes, degree))
    return fields


_NEXT = (np.s_[:, :, 1:], np.s_[:, :, :-1]), (np.s_[:, 1:], np.s_[:, :-1])
"""Cells of blocks (m, 8, 8) that have one before them along u, and those before; the same along v."""


def _at_ends(between: Float32Array) -> Float32Array:
    """Sums (m, 64) at the cells of blocks of values between neighbours, (m, 8, 7) along u or (m, 7, 8) along v."""
    out = np.zeros((len(between), BLOCK, BLOCK), np.float32)
    for cells in _NEXT[between.shape[1] < BLOCK]:
        out[cells] += between
    return out.reshape(len(between), -1)


def _powers(mesh: Mesh, row: IntArray, column: IntArray) -> Sequence[Float32Array]:
    if mesh.centroids is None:
        raise ValueError("a plane needs the places of the cells' pixels")
    return list(blocks_at(mesh.centroids.powers, mesh.origin, row, column))


def _robust_planes(  # noqa: PLR0917 - what is compared, and how
    fields: Kept[_Field],
    skies: Kept[Float32Array],
    graph: OverlapGraph,
    planes: ImagePlanes,
    position: FloatArray,
    solve_planes: PlaneSolver,
) -> tuple[ImagePlanes, FloatArray, FloatArray | None]:
    """Planes of the images with weights that agree with them, the noise and the spreads they leave.

    Images of one group have their own planes here: residuals that say whether images agree in a cell must not
    contain the step between two chips. ``skies`` takes those of the cells of the fields; ``planes`` are none yet,
    ``position`` (M, 2) are the places of the pairs.
    """
    n, degree = graph.n_images, degree_of(planes.value.shape[1])
    start = first_differences(median_sums((field.sheet for field in fields), graph), planes.level, graph)
    planes.value[:, 0] = least_squares_offsets(n, graph.a, graph.b, *start)
    scale, typical, step = np.ones(n), None, solve_planes(planes.centre, graph.a, graph.b, position)
    for field in fields:
        skies.append(median_sky(field.sheet, field.without(planes)))
    for iteration in range(_ITERATIONS + (degree >= _CUBIC)):
        moments, scatter, spreads = PlaneMoments.empty(position, degree), BlockScatter.empty(n), Spreads.empty(n)
        for k, field in enumerate(fields):
            shifted = field.without(planes, skies[k])
            weight, distances = weighed(field.sheet, shifted, skies[k], scale, typical)
            spreads.add(field.sheet, distances)
            skies[k] = sky = mean_sky(field.sheet, weight, shifted, skies[k])
            residual, share = field.sheet.layers.each(np.subtract, shifted, sky), shares(field.sheet.layers, weight)
            moments.add(field.sheet, weight, residual, share)
            if iteration >= _UNSCALED:
                scatter.add(field.sheet, weight, residual, share)
        typical = spreads.typical()
        if iteration >= _UNSCALED:
            scale = scale * scatter.ratio()
        planes = replace(planes, value=planes.value + step(moments.matrices(moments.moments), moments.pull))
    return planes, scale, typical
