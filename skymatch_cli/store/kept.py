"""What is kept of a measurement, for the next one: a finding of every image, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.choices import Compare
from skymatch_cli.compare.mesh.cells import MeshGrid
from skymatch_cli.compare.meshed import MeshReduction, mesh_grids
from skymatch_cli.compare.pooled import ImageMeasurement, blocks_per_side, coarser
from skymatch_cli.model import BoolArray, ImageInfo, IntArray, OverlapGraph, TangentPlane
from skymatch_cli.settings import Settings
from skymatch_cli.store.findings import Finding, Measured, image_keys


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The findings of a run, without its images.

    Attributes
    ----------
    keys : tuple of bytes
        For each of the N images what its finding rests on (`image_keys`).
    found : sequence of Finding or None
    a, b, plane : (M,) int64
        The overlaps of the graph.
    planes : tuple of TangentPlane
    grids : tuple of MeshGrid
        Of the planes, where cells were measured.
    """

    keys: tuple[bytes, ...]
    found: Sequence[Finding | None]
    a: IntArray
    b: IntArray
    plane: IntArray
    planes: tuple[TangentPlane, ...]
    grids: tuple[MeshGrid, ...]

    @classmethod
    def of(cls, measured: Measured) -> Kept:
        """What is kept of a measurement."""
        graph, settings = measured.graph, measured.settings
        return cls(
            keys=image_keys(measured.infos, settings),
            found=measured.found,
            a=graph.a,
            b=graph.b,
            plane=graph.plane,
            planes=graph.planes,
            grids=grids_of(measured.infos, graph, settings),
        )

    def is_same(self, other: Kept) -> bool:
        """Whether the other holds the same findings (not others that are equal) of the same images and overlaps."""
        return (
            self.keys == other.keys
            and (self.planes, self.grids) == (other.planes, other.grids)
            and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("a", "b", "plane"))
            and all(mine is its for mine, its in zip(self.found, other.found, strict=True))
        )


def known(old: Kept, new: Measured, *, with_local: bool) -> Iterator[tuple[int, Finding]]:
    """The earlier findings that still hold for images of a new plan, with the numbers of these.

    Findings of files that could not be read are not among them: they are tried again.
    """
    graph = new.graph
    numbers = {key: i for i, key in enumerate(image_keys(new.infos, new.settings))}
    image = np.array([numbers.get(key, -1) for key in old.keys], np.int64)  # what the old images are now
    pair = _pairs_now(old, image, graph)
    side = blocks_per_side(len(graph.a))
    same, plane = _cells_hold(old, new, image, pair)
    for i, now in enumerate(image.tolist()):
        finding = None if now < 0 else old.found[i]
        if finding is None or finding.problems or (with_local and finding.local is None):
            continue
        if isinstance(finding, ImageMeasurement):
            if finding.blocks.shape[1] >= side * side:  # else shared pixels were counted on a coarser grid
                yield now, _renumbered(finding, pair[finding.pairs], side)
        elif same[i] and finding.meshes.keys() <= plane.keys():
            yield now, _on_planes(finding, plane)


def grids_of(infos: Sequence[ImageInfo], graph: OverlapGraph, settings: Settings) -> tuple[MeshGrid, ...]:
    """The grids that cells are measured on; none where none are."""
    return mesh_grids(infos, graph, settings.mesh_size) if settings.compare == Compare.MESH else ()


def _pairs_now(old: Kept, image: IntArray, graph: OverlapGraph) -> IntArray:
    """The rows of a graph that old overlaps are now, -1 where they are none; ``image``: what old images are."""
    numbers = {plane: k for k, plane in enumerate(graph.planes)}
    plane = np.array([numbers.get(plane, -1) for plane in old.planes], np.int64)[old.plane]
    ends = np.sort(np.stack([image[old.a], image[old.b]]), axis=0)
    n = max(graph.n_images, 1)
    there = (plane * n + ends[0]) * n + ends[1]
    here = (graph.plane * n + graph.a) * n + graph.b
    order = np.argsort(here)
    at = np.searchsorted(here, there, sorter=order)
    row = np.append(order, -1)[at]
    same = (plane >= 0) & (ends[0] >= 0) & (np.append(here, -1)[row] == there)
    return np.where(same, row, -1)


def _renumbered(finding: ImageMeasurement, pair: IntArray, side: int) -> ImageMeasurement:
    """A finding with its overlaps as they are now, in the order of the graph; -1: such an overlap is no more."""
    if finding.blocks.shape[1] == side * side and np.array_equal(pair, finding.pairs):
        return finding
    order = np.argsort(pair, kind="stable")
    rows = order[pair[order] >= 0]
    if len(rows) < len(pair) or (rows[1:] < rows[:-1]).any():
        finding = replace(finding, regions=finding.regions.part(rows), blocks=finding.blocks[rows])
    return replace(finding, pairs=pair[rows], blocks=coarser(finding.blocks, side))


def _on_planes(finding: MeshReduction, plane: Mapping[int, int]) -> MeshReduction:
    """A finding with its planes by the numbers that they have now."""
    if all(plane[k] == k for k in finding.meshes):
        return finding
    return replace(finding, meshes={plane[k]: mesh for k, mesh in finding.meshes.items()})


def _cells_hold(old: Kept, new: Measured, image: IntArray, pair: IntArray) -> tuple[BoolArray, Mapping[int, int]]:
    """Old images (N,) whose overlaps are as they were, and old planes whose grids are, with their numbers now."""
    graph = new.graph
    grids = {grid: k for k, grid in enumerate(grids_of(new.infos, graph, new.settings))}
    plane = {k: grids[grid] for k, grid in enumerate(old.grids) if grid in grids}
    gone = pair < 0
    lost = np.bincount(old.a, gone, len(old.keys)) + np.bincount(old.b, gone, len(old.keys))
    before = np.bincount(np.append(old.a, old.b), minlength=len(old.keys))
    after = np.bincount(np.append(graph.a, graph.b), minlength=max(len(new.infos), 1))
    return (image >= 0) & (lost == 0) & (before == after[image]), plane
