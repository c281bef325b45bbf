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

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.compare.mesh.fields import ImageFields, image_fields, with_steps
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.passes import Passes, first_differences
from skymatch_cli.compare.mesh.spill import Kept
from skymatch_cli.compare.mesh.structure import PairStructure
from skymatch_cli.compare.mesh.sums import BlockScatter, PairSums, add_sums, over
from skymatch_cli.compare.mesh.tiles import SheetPlan, run_noise, sheet_plans
from skymatch_cli.compare.mesh.trust import Spreads
from skymatch_cli.compare.mesh.zeropoints import ZeroPoints
from skymatch_cli.compare.steperrors import variances
from skymatch_cli.model import BoolArray, FloatArray, IntArray, Measurements, OverlapGraph, Status, StrArray
from skymatch_cli.run.tasks import Parts

_ITERATIONS = 6  # with the weights of the one before; the first finds what is typical only
_UNSCALED = 3  # iterations before the scatter is trusted
_MIN_CELLS = 4
SHEET_BYTES, SKY_BYTES = 2**27, 2**24
"""Of cells, and of their skies, that memory holds; others are in temporary files."""
_PARTS = 8  # of the sheets, whose sums are added up apart: the same for any number of processes
_PIXELS_A_LEAF = 1024  # that can be read in the time that all iterations take


def compare(
    meshes: Sequence[Sequence[Mesh | None]],
    graph: OverlapGraph,
    group: IntArray,
    usable: StrArray | None = None,
    *,
    steps: FloatArray | None = None,
    jobs: int = 1,
) -> Measurements:
    """Compare every overlapping pair of images, with the weights of a joint solution.

    ``meshes`` (for every plane of the graph, for every image) are None where an image has no part in a plane, or can't
    be used; pairs within a ``group`` are measured, and have no weight; a pair takes the status of its first image that
    is not ok. ``steps`` (N, 2, 2) are the variances of those between amplifiers. ``weight`` is the information of the
    joint fit, so ``noise`` is None; ``delta_err`` is the error of the pair's own difference. At most ``jobs`` processes
    are at work, which the result does not depend on.
    """
    unit, least = run_noise(meshes)
    by_image = zip(*meshes, strict=True) if meshes else [()] * graph.n_images
    of_image = [[mesh for mesh in mine if mesh is not None] for mine in by_image]
    level = np.array([mine[-1].level / unit if mine else 0.0 for mine in of_image])
    noise = np.array([min((mesh.noise for mesh in mine), default=np.inf) for mine in of_image])
    find = partial(_robust_sums, meshes, level, noise, graph, (unit, least))
    try:
        sums, scale, structure = find(jobs=jobs)
    except (EOFError, OSError):  # a process could not be started, or was killed
        sums, scale, structure = find(jobs=1)
    own = over(sums.variance, sums.weight)
    zero_points = ZeroPoints.of_sums(
        tuple(structure.pieces[:2].sum(axis=2)), structure.bright, structure.darkest, own, graph
    )
    fields, zero_points = image_fields(structure, graph, meshes, zero_points, own * _enough(sums))
    if steps is not None and steps.any():
        fields = with_steps(fields, structure, graph, meshes, steps / unit**2)
    n_good = np.array([max((mesh.n_good for mesh in mine), default=0) for mine in of_image])
    status = pair_status(sums, n_good, graph, group, usable)
    measured = pair_measurements(sums, unit, graph, n_good=n_good, status=status)
    measured = settled(with_fields(measured, fields, zero_points.variance * unit**2, scale, unit))
    said = zero_points.of_bright_scenes()  # in faint ones seeing may look the same: no image is named
    return replace(measured, zero_point=np.stack([said.factor, said.err, said.hidden * unit]))


def _robust_sums(
    meshes: Sequence[Sequence[Mesh | None]],
    level: FloatArray,
    noise: FloatArray,
    graph: OverlapGraph,
    unit: tuple[float, float],
    *,
    jobs: int,
) -> tuple[PairSums, FloatArray, PairStructure]:
    """Sums over pairs, scales (N,) of the variance of the images, and structure in the overlaps.

    The weights agree with their own solution, and with the scatter they leave. ``level`` and ``noise`` (N,): of the
    images.
    """
    fixed, n = _quietest(noise, graph), graph.n_images

    def solved(weight: FloatArray, difference: FloatArray) -> FloatArray:
        offset = least_squares_offsets(n, graph.a, graph.b, weight, difference)
        return _rounded(offset - offset[fixed] - level)

    plans = list(sheet_plans(meshes)) if len(graph.a) else []
    n_pixels = _PIXELS_A_LEAF * sum(len(plan.leaves) for plan in plans)
    with ExitStack() as stack:
        parts = Parts(
            [
                Passes(some, meshes, graph, unit, Kept(SHEET_BYTES // _PARTS, stack), Kept(SKY_BYTES // _PARTS, stack))
                for some in _split(plans)
            ],
            stack,
            jobs=jobs,
            n_pixels=n_pixels,
        )
        del plans
        medians = sum(parts.each(Passes.start), np.zeros((2, len(graph.a))))
        offset = solved(*first_differences(medians, level, graph))
        scale, typical = np.ones(n), None
        for iteration in range(_ITERATIONS):
            words = offset, scale, typical, iteration >= _UNSCALED
            found, sums, scatter = _summed(parts, graph, level + offset, words)
            if typical is not None:  # before, no cell is doubted: the medians that it began with are better
                scale = scatter.ratio(scale)
                offset = solved(sums.weight, sums.difference())
            typical = found
        sums, structure = PairSums.empty(graph, level + offset), PairStructure.empty(graph, meshes)
        for found_sums, found_structure in parts.each(Passes.finish, offset, scale, typical):
            add_sums(sums, found_sums)
            structure.join(found_structure)
    return sums, scale, structure


def _summed(
    parts: Parts[Passes], graph: OverlapGraph, offset: FloatArray, words: tuple[object, ...]
) -> tuple[FloatArray, PairSums, BlockScatter]:
    """Typical distances (3, N) that one iteration finds, and its sums."""
    n = graph.n_images
    totals = spreads, sums, scatter = Spreads.empty(n), PairSums.empty(graph, offset), BlockScatter.empty(n)
    for found in parts.each(Passes.iterate, *words):
        for total, more in zip(totals, found, strict=True):
            add_sums(total, more)
    return spreads.typical(), sums, scatter


def _split(plans: Sequence[SheetPlan]) -> list[list[SheetPlan]]:
    return [list(map(plans.__getitem__, some)) for some in np.array_split(np.arange(len(plans)), _PARTS) if len(some)]


def _quietest(noise: FloatArray, graph: OverlapGraph) -> IntArray:
    """Return the image of least noise in the component of every image, (N,).

    Its offset stays fixed from iteration to iteration: it makes the skies of its cells, and would else be doubted where
    the offsets of noisier images move by many of its errors.
    """
    component = connected(graph.n_images, graph.a, graph.b)
    order = np.lexsort((noise, component))
    return order[np.searchsorted(component[order], component)]


def _rounded(offset: FloatArray) -> FloatArray:
    """Round offsets to float32: residuals are relative to these, so no digit is lost."""
    return offset.astype(np.float32).astype(np.float64)


def pair_status(
    sums: PairSums, n_good: IntArray, graph: OverlapGraph, group: IntArray, usable: StrArray | None
) -> StrArray:
    """The status of every pair, from its cells, the good pixels of its images, and the words for these (N,)."""
    status = np.where(_enough(sums), Status.OK, Status.TOO_FEW_PIXELS).astype(object)
    status[(n_good[graph.a] == 0) | (n_good[graph.b] == 0)] = Status.ALL_MASKED
    status[group[graph.a] == group[graph.b]] = Status.SAME_GROUP
    if usable is not None:
        for words in (usable[graph.b], usable[graph.a]):
            status = np.where(words != Status.OK, words, status)
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
        n_a=np.where(measured, np.rint(sums.pixels_a), 0).astype(np.int64),
        n_b=np.where(measured, np.rint(sums.pixels_b), 0).astype(np.int64),
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
    rounded = ("delta_err", "weight", "information", "pair_dof", "photometric", "usable")
    more: dict[str, Any] = {
        name: _five_digits(value) for name in rounded if (value := getattr(measured, name)) is not None
    }
    return replace(measured, delta=delta, sky_a=sky_a, sky_b=sky_a - delta, **more)


def _five_digits(a: FloatArray) -> FloatArray:
    mantissa, exponent = np.frexp(a)
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**17) / 2.0**17, exponent))
