"""Passes over some of the sheets: sums of one iteration, with weights that the iteration before suggests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.sheets import Sheet, make_sheet
from skymatch_cli.compare.mesh.spill import Kept
from skymatch_cli.compare.mesh.structure import PairStructure
from skymatch_cli.compare.mesh.sums import BlockScatter, PairSums, over, shares
from skymatch_cli.compare.mesh.tiles import SheetPlan
from skymatch_cli.compare.mesh.trust import Spreads, mean_sky, median_sky, weighed
from skymatch_cli.model import FloatArray, OverlapGraph


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """Some of the sheets, and the skies of their cells in the iteration before."""

    plans: list[SheetPlan]  # of sheets that are not made yet
    meshes: Sequence[Sequence[Mesh | None]]  # for every plane of the graph, for every image
    graph: OverlapGraph
    unit: tuple[float, float]  # see `run_noise`
    sheets: Kept[Sheet]
    skies: Kept[Float32Array]

    def start(self) -> FloatArray:
        """Make the sheets; return what `median_sums` finds in them."""
        while self.plans:
            plan = self.plans.pop(0)
            sheet = make_sheet(plan, self.meshes[plan.plane], self.graph, *self.unit)
            if sheet is not None:
                self.sheets.append(sheet)
        return median_sums(self.sheets, self.graph)

    def iterate(
        self, offset: FloatArray, scale: FloatArray, typical: FloatArray | None, scattered: bool
    ) -> tuple[Spreads, PairSums, BlockScatter]:
        """Return sums with offsets (N,), scales and typical distances of the images; scatter is 0 unless ``scattered``.

        ``typical`` is None in the first iteration, which gives spreads alone.
        """
        n = self.graph.n_images
        spreads, sums, scatter = Spreads.empty(n), PairSums.empty(self.graph, np.zeros(n)), BlockScatter.empty(n)
        for k, sheet in enumerate(self.sheets):
            shifted = sheet.value - sheet.of_images(offset)
            before = median_sky(sheet, shifted) if typical is None else self.skies[k]
            weight, distances = weighed(sheet, shifted, before, scale, typical)
            spreads.add(sheet, distances)
            sky = mean_sky(sheet, weight, shifted, before)
            if typical is None:
                self.skies.append(sky)
                continue
            self.skies[k] = sky
            residual = sheet.layers.each(np.subtract, shifted, sky, out=shifted)
            share = shares(sheet.layers, weight)
            sums.add(sheet, weight, residual, share)
            if scattered:
                scatter.add(sheet, weight, residual, share)
        return spreads, sums, scatter

    def finish(self, offset: FloatArray, scale: FloatArray, typical: FloatArray) -> tuple[PairSums, PairStructure]:
        """Return all sums that the result needs."""
        sums = PairSums.empty(self.graph, np.zeros(self.graph.n_images))
        structure = PairStructure.empty(self.graph, self.meshes)
        for sheet, sky in zip(self.sheets, self.skies, strict=True):
            shifted = sheet.value - sheet.of_images(offset)
            weight, _ = weighed(sheet, shifted, sky, scale, typical)
            residual, share = sheet.layers.each(np.subtract, shifted, sky), shares(sheet.layers, weight)
            sums.add_all(sheet, weight, residual, share, sky)
            structure.add(sheet, weight, residual, share, sky)
        return sums, structure


def median_sums(sheets: Iterable[Sheet], graph: OverlapGraph) -> FloatArray:
    """Over how many cells each pair has differences, and that times their medians in the tiles, (2, M)."""
    totals = np.zeros((2, len(graph.a)))
    for sheet in sheets:
        pairs, (count, median) = sheet.pairs, sheet.pairs.medians(sheet.value, sheet.weight > 0)
        for total, found in zip(totals, (count, count * median), strict=True):
            total[pairs.rows] += np.bincount(pairs.run_pair, found, len(pairs.rows) + 1)[:-1]
    return totals


def first_differences(medians: FloatArray, level: FloatArray, graph: OverlapGraph) -> tuple[FloatArray, FloatArray]:
    """Weights and differences of the pairs to start from, from what `median_sums` finds."""
    count, total = medians
    return count, over(total, count) + level[graph.a] - level[graph.b]
