"""Meshes of many images compared cell by cell: one sky for each cell, one offset for each image.

Least squares of ``value[i, c] = offset[i] + sky[c]`` with weights w. Eliminating the skies leaves a
graph Laplacian in which a pair of images has the weight ``sum over cells of w_i w_j / sum(w)``: optimal
in stacks too, and one pass over the cells.

The weight of a cell is the information of its pixels, times how well it agrees with the other images (see ``trust``),
iterated with the solution.

The noise of every image is scaled to the scatter of sums of 8 x 8 cells, so that errors hold where
pixels are correlated, flat fields differ or seeing leaves its traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.compare.amplifiers import variances
from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.compare.mesh.fields import ImageFields, image_fields, with_steps
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.sheets import Sheet, make_sheet
from skymatch_cli.compare.mesh.spill import Kept
from skymatch_cli.compare.mesh.structure import BlockSums, PairStructure
from skymatch_cli.compare.mesh.sums import (
    BlockScatter,
    PairSums,
    SheetSums,
    all_pair_sums,
    block_scatter,
    over,
    pair_sums,
    shares,
)
from skymatch_cli.compare.mesh.tiles import run_noise, sheet_plans
from skymatch_cli.compare.mesh.trust import Distances, SheetSpreads, Spreads, mean_sky, median_sky, trusted_weight
from skymatch_cli.compare.mesh.zeropoints import ZeroPoints
from skymatch_cli.model import BoolArray, FloatArray, IntArray, Measurements, OverlapGraph, Status, StrArray

_ITERATIONS = 6  # with the weights of the one before; the first finds what is typical only
_UNSCALED = 3  # iterations before the scatter is trusted
_MIN_CELLS = 4
SHEET_BYTES, SKY_BYTES = 2**27, 2**24
"""Of cells, and of their skies, that memory holds; others are in temporary files."""


def compare(
    meshes: Sequence[Sequence[Mesh | None]],
    graph: OverlapGraph,
    group: IntArray,
    usable: StrArray | None = None,
    *,
    steps: FloatArray | None = None,
) -> Measurements:
    """Compare every overlapping pair of images, with the weights of a joint solution.

    ``meshes`` (for every plane of the graph, for every image) are None where an image has no part in a plane, or can't
    be used; pairs within a ``group`` are measured, and have no weight; a pair takes the status of its first image that
    is not ok. ``steps`` (N, 2, 2) are the variances of those between amplifiers. ``weight`` is the information of the
    joint fit, so ``noise`` is None; ``delta_err`` is the error of the pair's own difference.
    """
    unit, least = run_noise(meshes)
    level = np.zeros(graph.n_images)
    for plane in meshes:
        for i, mesh in enumerate(plane):
            if mesh is not None:
                level[i] = mesh.level / unit
    found = _robust_sums(meshes, level, graph, (unit, least))
    sums = found.sums
    own = over(sums.variance, sums.weight)
    zero_points = ZeroPoints.of_structure(found.structure, own, graph)
    fields, zero_points = image_fields(found.structure, graph, meshes, zero_points, own * _enough(sums))
    if steps is not None and steps.any():
        fields = with_steps(fields, found.structure, graph, meshes, steps / unit**2)
    of_image = zip(*meshes, strict=True) if meshes else [()] * graph.n_images
    n_good = np.array([max((m.n_good for m in mine if m is not None), default=0) for mine in of_image])
    status = pair_status(sums, n_good, graph, group)
    if usable is not None:
        for words in (usable[graph.b], usable[graph.a]):
            status = np.where(words != Status.OK, words, status)
    measured = pair_measurements(sums, unit, graph, n_good=n_good, status=status)
    measured = settled(with_fields(measured, fields, zero_points.variance * unit**2, found.scale, unit))
    said = zero_points.of_bright_scenes()  # in faint ones seeing may look the same: no image is named
    return replace(measured, zero_point=np.stack([said.factor, said.err, said.hidden * unit]))


def _robust_sums(
    meshes: Sequence[Sequence[Mesh | None]],
    level: FloatArray,
    graph: OverlapGraph,
    unit: tuple[float, float],
) -> _Compared:
    """Sums over pairs, with weights that agree with their own solution and with the scatter they leave."""
    fixed = _quietest(meshes, graph)

    def solved(weight: FloatArray, difference: FloatArray) -> FloatArray:
        offset = least_squares_offsets(graph.n_images, graph.a, graph.b, weight, difference)
        return _rounded(offset - offset[fixed] - level)

    with ExitStack() as stack:
        cells = _SharedCells(Kept(SHEET_BYTES, stack), Kept(SKY_BYTES, stack), graph, unit)
        offset = solved(*first_differences(cells.start(meshes), level, graph))
        scale, typical = np.ones(graph.n_images), None
        for iteration in range(_ITERATIONS):
            sums, scatter = PairSums.empty(graph, level + offset), BlockScatter.empty(graph.n_images)
            spreads = Spreads.empty(graph.n_images)
            for found in cells.steps(offset, scale, typical, scatter=iteration >= _UNSCALED):
                spreads.add(found.spreads)
                if found.pairs is not None:
                    sums.add(found.pairs)
                if found.scatter is not None:
                    scatter.add(found.scatter)
            first, typical = typical is None, spreads.typical()
            if first:  # no cell is doubted yet: the medians that it began with are better
                continue
            scale = scatter.ratio(scale)
            offset = solved(sums.weight, sums.difference())
        sums, structure = PairSums.empty(graph, level + offset), PairStructure.empty(graph, meshes)
        for pairs, blocks in cells.finish(offset, scale, typical):
            sums.add(pairs)
            structure.add(blocks)
    return _Compared(sums, scale, structure)


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """Result of the iterations: sums, scale (N,) of the variance of the images, structure in the overlaps."""

    sums: PairSums
    scale: FloatArray
    structure: PairStructure


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """Sums of one sheet in one iteration: over pairs in all but the first, scatter only once it is trusted."""

    spreads: SheetSpreads
    pairs: SheetSums | None = None
    scatter: SheetSums | None = None


class _SharedCells:
    """The cells that images share, sheet by sheet, and the sky of each cell in the iteration before."""

    def __init__(
        self, sheets: Kept[Sheet], skies: Kept[Float32Array], graph: OverlapGraph, unit: tuple[float, float]
    ) -> None:
        self._sheets, self._skies, self._graph, self._unit = sheets, skies, graph, unit

    def start(self, meshes: Sequence[Sequence[Mesh | None]]) -> Iterator[SheetSums]:
        """Make the sheets, one by one; yield differences to start from."""
        for plan in sheet_plans(meshes) if len(self._graph.a) else ():
            sheet = make_sheet(plan, meshes[plan.plane], self._graph, *self._unit)
            if sheet is not None:
                self._sheets.append(sheet)
                yield median_differences(sheet)

    def steps(
        self, offset: FloatArray, scale: FloatArray, typical: FloatArray | None, *, scatter: bool
    ) -> Iterator[_Step]:
        """Sums over each sheet with the weights that offsets and noises (N,) of the images suggest."""
        for k, sheet in enumerate(self._sheets):
            weight, shifted, before, distances = self._trusted(sheet, k, offset, scale, typical)
            sky = mean_sky(sheet, weight, shifted, before)
            if typical is None:
                self._skies.append(sky)
                yield _Step(distances.spreads(sheet))
                continue
            self._skies[k] = sky
            residual = sheet.layers.each(np.subtract, shifted, sky, out=shifted)
            share = shares(sheet.layers, weight)
            blocks = block_scatter(sheet, weight, residual, share) if scatter else None
            yield _Step(distances.spreads(sheet), pair_sums(sheet, weight, residual, share), blocks)

    def finish(
        self, offset: FloatArray, scale: FloatArray, typical: FloatArray | None
    ) -> Iterator[tuple[SheetSums, BlockSums]]:
        """Sums over each sheet with all that the result needs."""
        for k, sheet in enumerate(self._sheets):
            weight, shifted, sky, _ = self._trusted(sheet, k, offset, scale, typical)
            residual = sheet.layers.each(np.subtract, shifted, sky, out=shifted)
            share = shares(sheet.layers, weight)
            blocks = BlockSums.of_sheet(sheet, weight, residual, share, sky)
            yield all_pair_sums(sheet, weight, residual, share, sky), blocks

    def _trusted(
        self, sheet: Sheet, k: int, offset: FloatArray, scale: FloatArray, typical: FloatArray | None
    ) -> tuple[Float32Array, Float32Array, Float32Array, Distances]:
        """Weights of the cells of a sheet, their values less the offsets, their skies before, and their distances."""
        shifted = sheet.value - sheet.of_images(offset)
        sky = median_sky(sheet, shifted) if typical is None else self._skies[k]
        distances = Distances.of_residuals(sheet, sheet.layers.each(np.subtract, shifted, sky))
        weight = sheet.weight.copy() if typical is None else trusted_weight(sheet, distances, typical)
        weight /= sheet.of_images(scale)
        return weight, shifted, sky, distances


def _quietest(meshes: Sequence[Sequence[Mesh | None]], graph: OverlapGraph) -> IntArray:
    """Return the image of least noise in the component of every image, (N,).

    Its offset stays fixed from iteration to iteration: it makes the skies of its cells, and would else be doubted where
    the offsets of noisier images move by many of its errors.
    """
    noise = np.full(graph.n_images, np.inf)
    for plane in meshes:
        for i, mesh in enumerate(plane):
            if mesh is not None:
                noise[i] = min(noise[i], mesh.noise)
    component = connected(graph.n_images, graph.a, graph.b)
    order = np.lexsort((noise, component))
    return order[np.searchsorted(component[order], component)]


def _rounded(offset: FloatArray) -> FloatArray:
    """Round offsets to float32: residuals are relative to these, so no digit is lost."""
    return offset.astype(np.float32).astype(np.float64)


def median_differences(sheet: Sheet) -> SheetSums:
    """Over how many cells each pair of a sheet has differences, and that times their medians in the tiles."""
    return SheetSums(sheet.pairs.rows, sheet.pairs.medians(sheet.value, sheet.weight > 0))


def first_differences(
    found: Iterable[SheetSums], level: FloatArray, graph: OverlapGraph
) -> tuple[FloatArray, FloatArray]:
    """Weights and differences of the pairs to start from, from the medians of the tiles."""
    totals = np.zeros((2, len(graph.a)))
    for sheet in found:
        totals[:, sheet.rows] += sheet.columns
    count, total = totals
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return count, mean + level[graph.a] - level[graph.b]


def pair_status(sums: PairSums, n_good: IntArray, graph: OverlapGraph, group: IntArray) -> StrArray:
    """The status of every pair, from its cells and the good pixels of its images."""
    status = np.where(_enough(sums), Status.OK, Status.TOO_FEW_PIXELS).astype(object)
    status[(n_good[graph.a] == 0) | (n_good[graph.b] == 0)] = Status.ALL_MASKED
    status[group[graph.a] == group[graph.b]] = Status.SAME_GROUP
    return status


def _enough(sums: PairSums) -> BoolArray:
    return np.asarray((sums.n_cells >= _MIN_CELLS) & (sums.weight > 0))


def pair_measurements(
    sums: PairSums, unit: float, graph: OverlapGraph, *, n_good: IntArray, status: StrArray
) -> Measurements:
    """Sums over pairs, in units of the run's noise, as measurements in comparison units."""
    measured = _enough(sums) & ((status == Status.OK) | (status == Status.SAME_GROUP))
    weight = np.where(measured, sums.weight, 1.0)
    sky_a, sky_b, delta, err = (
        np.where(measured, c, np.nan) * unit
        for c in (*sums.skies(), sums.difference(), np.sqrt(sums.variance) / weight)
    )
    return Measurements(
        a=graph.a,
        b=graph.b,
        area_arcmin2=graph.area_arcmin2,
        sky_a=sky_a,
        sky_b=sky_b,
        n_a=np.where(measured, np.rint(sums.n_pixels[0]), 0).astype(np.int64),
        n_b=np.where(measured, np.rint(sums.n_pixels[1]), 0).astype(np.int64),
        delta=delta,
        delta_err=err,
        weight=np.where(status == Status.OK, weight, 0.0) / unit**2,
        status=status,
        n_good=n_good,
        information=np.where(measured, sums.information, np.nan) / unit**2,
        pair_dof=np.where(measured, sums.variance / weight, 0.0),
    )


def with_fields(
    measured: Measurements, fields: ImageFields, level_variance: FloatArray, scale: FloatArray, unit: float
) -> Measurements:
    """Measurements with the errors of structure within the images, and variances of the levels of images (N,).

    ``scale`` (N,): by how much the cells of an image scatter more than the noise of the pixels explains, as variance.
    """
    a, b, weight = measured.a, measured.b, measured.weight
    noise = fields.quiet * measured.delta_err**2
    factor = fields.factor * unit
    variance = variances(factor)
    settled_weight = weight / (fields.quiet + weight * variance)
    scattered = 0.5 * (scale[a] + scale[b])
    information, dof = measured.information, measured.pair_dof
    return replace(
        measured,
        delta_err=np.sqrt(noise + variance + level_variance[a] + level_variance[b]),
        weight=settled_weight,
        noise=factor,
        field_variance=fields.variance * unit**2,
        lever=fields.lever * [1, 1, unit**2, unit**2],
        tilt_variance=fields.tilt_variance * unit**2,
        pair_dof=None if dof is None else dof * fields.quiet * over(settled_weight, weight),
        photometric=np.clip(1 / scattered, 0, 1) * over(settled_weight, weight),
        usable=None if information is None else np.clip(over(weight * scattered, information), 0, 1),
        level_variance=level_variance,
    )


def settled(measured: Measurements) -> Measurements:
    """Round measurements to significant digits: sums of single precision depend on the order of the images.

    Values are rounded to a power of two below a thousandth of their error and of themselves, so that a level that
    the pixels hold exactly comes back exactly; weights and errors to five digits.
    """
    known = np.isfinite(measured.delta_err) & (measured.delta_err > 0)
    step = 2.0 ** np.floor(np.log2(np.where(known, measured.delta_err, 1.0) / 1000))
    step = np.minimum(step, 2.0 ** np.floor(np.log2(np.maximum(np.abs(measured.delta), 1e-300)) - 10))
    delta, sky_a = (np.rint(c / step) * step for c in (measured.delta, measured.sky_a))
    information, dof = measured.information, measured.pair_dof
    return replace(
        measured,
        delta=delta,
        sky_a=sky_a,
        sky_b=sky_a - delta,
        delta_err=_five_digits(measured.delta_err),
        weight=_five_digits(measured.weight),
        information=None if information is None else _five_digits(information),
        pair_dof=None if dof is None else _five_digits(dof),
        photometric=None if measured.photometric is None else _five_digits(measured.photometric),
        usable=None if measured.usable is None else _five_digits(measured.usable),
    )


def _five_digits(a: FloatArray) -> FloatArray:
    mantissa, exponent = np.frexp(a)
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**17) / 2.0**17, exponent))
