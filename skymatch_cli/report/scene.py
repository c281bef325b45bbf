"""Borders and overlaps of the images of a result on the sky, ready to be drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skymatch_cli.model import CelestialWcs, FloatArray, ImageInfo, IntArray, OverlapGraph
from skymatch_cli.sky.footprint import Footprint, footprint
from skymatch_cli.sky.tangent import unproject

from .display import DisplayFrame


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The images of a result on the sky."""

    infos: tuple[ImageInfo, ...]
    footprints: tuple[Footprint, ...]
    graph: OverlapGraph

    def wcs(self, i: int) -> CelestialWcs:
        """Return the WCS of one image; all images of a scene have one."""
        wcs = self.infos[i].wcs
        if wcs is None:
            raise ValueError(f"{self.infos[i].ref.label} has no WCS")
        return wcs

    @property
    def rings(self) -> list[FloatArray]:
        """The borders of all images."""
        return [ring for i in range(len(self.infos)) for ring in self.image_rings(i)]

    def image_rings(self, i: int) -> list[FloatArray]:
        """Return the borders of one image as ICRS unit vectors, open rings (n, 3)."""
        return [ring for part in self.footprints[i].parts for ring in part.rings]

    def overlap_rings(self, a: IntArray, b: IntArray) -> list[list[FloatArray]]:
        """Return the borders of the overlaps of images (M,) each, as open rings; none where they don't overlap.

        A very wide overlap has several rows, in the graph as in the result.
        """
        g = self.graph
        known = {key: row for row, key in enumerate(_numbered(g.a, g.b))}
        rows = [known.get(key) for key in _numbered(a, b)]
        return [[] if row is None else self._rings(row) for row in rows]

    def _rings(self, row: int) -> list[FloatArray]:
        """Return the border of one overlap of the graph, holes included, as open rings."""
        polygon, plane = self.graph.polygon.part(np.array([row])), self.graph.planes[self.graph.plane[row]]
        return [unproject(plane, ring[:-1]) for ring in np.split(polygon.xy, polygon.ring_offset[1:-1])]


def _numbered(a: IntArray, b: IntArray) -> Iterator[tuple[int, int, int]]:
    """Yield each pair with the number of its earlier rows."""
    seen: Counter[tuple[int, int]] = Counter()
    for pair in zip(a.tolist(), b.tolist(), strict=True):
        yield (*pair, seen[pair])
        seen[pair] += 1


def scene(infos: tuple[ImageInfo, ...]) -> Scene:
    """Find footprints and overlaps of images from their headers; InputError if an image has no usable WCS."""
    from skymatch_cli.sky.overlap import overlap_graph

    footprints = tuple(footprint(info.wcs, info.ref.label) for info in infos if info.wcs is not None)
    return Scene(infos, footprints, overlap_graph(footprints))


def drawn(ring: FloatArray, frame: DisplayFrame) -> FloatArray:
    """Convert a ring on the sky to pixels of a picture with y downwards, (n, 2)."""
    pixels = frame.to_pixel(ring)
    return np.column_stack([pixels[:, 0], frame.shape[0] - 1 - pixels[:, 1]])
