"""Meshes of many images compared cell by cell: one sky for each cell, one offset for each image.

Least squares of ``value[i, c] = offset[i] + sky[c]`` with weights w. Eliminating the skies leaves a
graph Laplacian in which a pair of images has the weight ``sum over cells of w_i w_j / sum(w)``: optimal
in stacks too, and one pass over the cells.

What a cell counts is the information of its pixels, times how well it agrees with the others (see ``trust``),
iterated with the solution.

The noise of every image is scaled to the scatter of sums of 8 x 8 cells, so that errors hold where
pixels are correlated, flat fields differ or seeing leaves its traces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.reduce import CellMesh
from skymatch_cli.compare.mesh.sheets import Sheet, make_sheet
from skymatch_cli.compare.mesh.sums import (
    BlockScatter,
    PairSums,
    SheetSums,
    all_pair_sums,
    block_scatter,
    pair_sums,
    shares,
)
from skymatch_cli.compare.mesh.tiles import SheetPlan, run_noise, sheet_plans
from skymatch_cli.compare.mesh.trust import Distances, Spreads, mean_sky, median_sky, trusted_weight
from skymatch_cli.model import BoolArray, FloatArray, IntArray, Measurements, OverlapGraph, Status, StrArray
from skymatch_cli.run.tasks import usable_cores

Answer = TypeVar("Answer")

_ITERATIONS = 6  # with the weights of the one before; the first finds what is typical only
_UNSCALED = 3  # iterations before the scatter is trusted
_MIN_CELLS = 4
_WORTH_PROCESS = 6000  # leaves that take some times as long as starting a process


def compare(
    meshes: Sequence[Sequence[CellMesh | None]],
    graph: OverlapGraph,
    group: IntArray,
    usable: StrArray | None = None,
    *,
    jobs: int = 1,
) -> Measurements:
    """Compare every overlapping pair of images, with the weights of a joint solution.

    Parameters
    ----------
    meshes : for every plane of the graph, for every image, CellMesh or None
        None where the image has no part in that plane, or can't be used.
    graph : OverlapGraph
        M pairs of N images.
    group : (N,) int64
        Pairs within a group are measured, and have no weight.
    usable : (N,) object, optional
        Status of every image; a pair takes the status of its first image that is not ok.
    jobs : int
        Workers; 0 means one per usable core. The answers don't depend on it.

    Returns
    -------
    Measurements
        ``weight`` is the information of the joint fit, so ``noise`` is None; ``delta_err`` is the error
        of the pair's own difference.
    """
    unit = run_noise(meshes)
    level = np.zeros(graph.n_images)
    for plane in meshes:
        for i, mesh in enumerate(plane):
            if mesh is not None:
                level[i] = mesh.level / unit
    sums = _robust_sums(meshes, level, graph, unit, jobs=jobs)
    n_good = np.array([max((m.n_good for m in mine if m is not None), default=0) for mine in zip(*meshes, strict=True)])
    status = pair_status(sums, n_good, graph, group)
    if usable is not None:
        for words in (usable[graph.b], usable[graph.a]):
            status = np.where(words != Status.OK, words, status)
    return pair_measurements(sums, unit, graph, n_good=n_good, status=status)


def _robust_sums(
    meshes: Sequence[Sequence[CellMesh | None]],
    level: FloatArray,
    graph: OverlapGraph,
    unit: float,
    *,
    jobs: int,
) -> PairSums:
    """Sums over pairs, with weights that agree with their own solution and with the scatter they leave."""

    def solved(weight: FloatArray, difference: FloatArray) -> FloatArray:
        return _rounded(image_offsets(graph.n_images, graph.a, graph.b, weight, difference) - level)

    plans = sheet_plans(meshes) if len(graph.a) else []
    workers = min(jobs or usable_cores(), sum(len(plan.leaves) for plan in plans) // _WORTH_PROCESS + 1)
    members = [_Share(plans[k::workers], meshes, graph, unit) for k in range(workers)]
    with ThreadPoolExecutor(workers) as pool:

        def each(method: Callable[..., Answer], *arguments: object) -> list[Answer]:
            return list(pool.map(lambda member: method(member, *arguments), members))

        start = _in_order(each(_Share.start))
        offset = solved(*first_differences(start, level, graph))
        scale, typical = np.ones(graph.n_images), None
        for iteration in range(_ITERATIONS):
            sums, scatter = PairSums.empty(graph, level + offset), BlockScatter.empty(graph.n_images)
            spreads = Spreads.empty(graph.n_images)
            for found in _in_order(each(_Share.step, offset, scale, typical, iteration >= _UNSCALED)):
                sums.add(found.pairs)
                spreads.add(found.spreads)
                if found.scatter is not None:
                    scatter.add(found.scatter)
            first, typical = typical is None, spreads.typical()
            if first:  # no cell is doubted yet: the medians that it began with are better
                continue
            scale = scale * scatter.ratio()
            offset = solved(sums.weight, sums.difference())
        sums = PairSums.empty(graph, level + offset)
        for last in _in_order(each(_Share.finish, offset, scale, typical)):
            sums.add(last)
    return sums


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """What one sheet gives to an iteration."""

    pairs: SheetSums
    spreads: SheetSums
    scatter: SheetSums | None  # where it was asked for


class _Share:
    """One sheet in so many, made when it is first asked for, and the sky of its cells in the iteration before.

    Answers have one element for each plan, None where there is no sheet.
    """

    def __init__(
        self,
        plans: Sequence[SheetPlan],
        meshes: Sequence[Sequence[CellMesh | None]],
        graph: OverlapGraph,
        unit: float,
    ) -> None:
        self._plans, self._meshes, self._graph, self._unit = plans, meshes, graph, unit
        self._sheets: list[Sheet | None] = []
        self._skies: list[Float32Array | None] = []

    def start(self) -> list[SheetSums | None]:
        """Differences to start from."""
        self._sheets = [make_sheet(p, self._meshes[p.plane], self._graph, self._unit) for p in self._plans]
        self._skies = [None] * len(self._sheets)
        return [None if sheet is None else median_differences(sheet) for sheet in self._sheets]

    def step(
        self, offset: FloatArray, scale: FloatArray, typical: FloatArray | None, scatter: bool
    ) -> list[_Step | None]:
        """Sums with the weights that offsets and noises (N,) of the images suggest."""
        answers: list[_Step | None] = []
        for k, sheet in enumerate(self._sheets):
            if sheet is None:
                answers.append(None)
                continue
            weight, shifted, before, spreads = self._trusted(sheet, k, offset, scale, typical)
            self._skies[k] = sky = mean_sky(sheet, weight, shifted, before)
            residual = sheet.layers.each(np.subtract, shifted, sky, out=shifted)
            share = shares(sheet.layers, weight)
            blocks = block_scatter(sheet, weight, residual, share) if scatter else None
            answers.append(_Step(pair_sums(sheet, weight, residual, share), spreads, blocks))
        return answers

    def finish(self, offset: FloatArray, scale: FloatArray, typical: FloatArray | None) -> list[SheetSums | None]:
        """Sums with all that the result needs."""
        answers: list[SheetSums | None] = []
        for k, sheet in enumerate(self._sheets):
            if sheet is None:
                answers.append(None)
                continue
            weight, shifted, sky, _ = self._trusted(sheet, k, offset, scale, typical)
            residual = sheet.layers.each(np.subtract, shifted, sky, out=shifted)
            answers.append(all_pair_sums(sheet, weight, residual, shares(sheet.layers, weight), sky))
        return answers

    def _trusted(
        self, sheet: Sheet, k: int, offset: FloatArray, scale: FloatArray, typical: FloatArray | None
    ) -> tuple[Float32Array, Float32Array, Float32Array, SheetSums]:
        """Weights of the cells of a sheet, their values less the offsets, their skies before, and their spreads."""
        shifted = sheet.value - sheet.of_images(offset)
        sky = self._skies[k]
        if sky is None:
            sky = median_sky(sheet, shifted)
        distances = Distances.of_residuals(sheet, sheet.layers.each(np.subtract, shifted, sky))
        weight = sheet.weight.copy() if typical is None else trusted_weight(sheet, distances, typical)
        weight /= sheet.of_images(scale)
        return weight, shifted, sky, distances.spreads(sheet)


def _in_order(answers: Sequence[Sequence[Answer | None]]) -> list[Answer]:
    """Answers of shares that were dealt out in turn, in the order of the sheets: sums don't depend on the workers."""
    rounds = zip_longest(*answers)
    return [answer for each in rounds for answer in each if answer is not None]


def _rounded(offset: FloatArray) -> FloatArray:
    """What float32 makes of the offsets: the sums are about these, so no digit is lost."""
    return offset.astype(np.float32).astype(np.float64)


def median_differences(sheet: Sheet) -> SheetSums:
    """Over how many cells each pair of a sheet has differences, and that times their medians in the tiles."""
    return SheetSums(sheet.pairs.rows, sheet.pairs.medians(sheet.value, sheet.weight > 0))


def first_differences(
    found: Sequence[SheetSums], level: FloatArray, graph: OverlapGraph
) -> tuple[FloatArray, FloatArray]:
    """Weights and differences of the pairs to start from, from the medians of the tiles."""
    totals = np.zeros((2, len(graph.a)))
    for sheet in found:
        totals[:, sheet.rows] += sheet.columns
    count, total = totals
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return count, mean + level[graph.a] - level[graph.b]


def image_offsets(n: int, first: IntArray, second: IntArray, weight: FloatArray, difference: FloatArray) -> FloatArray:
    """Least-squares offsets (n,) of images from the differences of pairs of them; one of each component at 0.

    Images of one group have their own offsets here: residuals that say whether images agree in a cell
    must not contain the step between two chips.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import splu

    use = weight > 0
    a, b, w, d = first[use], second[use], weight[use], difference[use]
    links = coo_array((np.tile(w, 2), (np.append(a, b), np.append(b, a))), shape=(n, n)).tocsr()
    _, component = connected_components(links, directed=False)
    free = np.setdiff1d(np.arange(n), np.unique(component, return_index=True)[1])
    offset = np.zeros(n)
    if free.size:
        each = np.arange(n)
        laplacian = coo_array((links.sum(axis=1), (each, each)), shape=(n, n)).tocsr() - links
        pull = np.bincount(a, w * d, n) - np.bincount(b, w * d, n)
        offset[free] = splu(laplacian[free][:, free].tocsc()).solve(pull[free])
    return offset


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
