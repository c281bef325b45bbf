"""Borders and overlaps of the images of a result on the sky, and the frame in which they are drawn: north is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.model import CelestialWcs, FloatArray, ImageInfo, IntArray, OverlapGraph
from skymatch_cli.sky.footprint import Footprint, footprint
from skymatch_cli.sky.sphere import lon_lat, unit_vectors
from skymatch_cli.sky.tangent import plane_wcs, unproject

_GNOMONIC_REACH_DEG = 40.0  # beyond it a gnomonic plane stretches shapes by more than 1.3 across
_MARGIN = 0.02  # of the longer side, on every side


@dataclass(frozen=True, slots=True)
class DisplayFrame:
    """The frame of a picture of the sky, north up, east to the left."""

    wcs: Any  # ICRS; gnomonic, or zenithal equal-area for fields wider than 80 degrees
    shape: tuple[int, int]  # (ny, nx)

    @property
    def scale_arcsec(self) -> float:
        """Side of a pixel of the picture, in arcsec."""
        return float(self.wcs.wcs.cd[1, 1]) * 3600

    def to_pixel(self, vectors: FloatArray) -> FloatArray:
        """Convert ICRS unit vectors (n, 3) to pixels (n, 2) of the picture; NaN where they can't be shown."""
        finite = np.isfinite(vectors).all(axis=1)
        pixels = np.full((len(vectors), 2), np.nan)
        pixels[finite] = self.wcs.wcs_world2pix(_to_degrees(vectors[finite]), 0) if finite.any() else 0.0
        return pixels

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Convert pixels of the picture, (n,) each, to ICRS unit vectors (n, 3)."""
        return unit_vectors(*np.radians(self.wcs.wcs_pix2world(np.column_stack([x, y]), 0)).T)


def frame_around(rings: Sequence[FloatArray], max_side: int) -> DisplayFrame:
    """Make the frame that contains all rings (n, 3) of ICRS unit vectors, with a longer side of ``max_side`` pixels."""
    vectors = np.concatenate([np.asarray(ring, float) for ring in rings])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    centre = vectors.mean(axis=0)
    norm = float(np.linalg.norm(centre))
    centre = centre / norm if norm > 1e-6 else vectors[0]
    reach_deg = float(np.degrees(np.arccos(np.clip((vectors @ centre).min(), -1, 1))))
    north_up = np.diag([-1.0, 1.0])
    place, projection = _to_degrees(centre[None])[0], "TAN" if reach_deg < _GNOMONIC_REACH_DEG else "ZEA"
    unit_scale = plane_wcs(place, (1.0, 1.0), north_up, projection)
    xy = unit_scale.wcs_world2pix(_to_degrees(vectors), 0)
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = _MARGIN * float((high - low).max())
    low, high = low - margin, high + margin
    step = float((high - low).max()) / max_side
    nx, ny = (max(1, int(np.ceil(side / step))) for side in high - low)
    origin = (float(-low[0] / step + 0.5), float(-low[1] / step + 0.5))
    return DisplayFrame(plane_wcs(place, origin, step * north_up, projection), (ny, nx))


def _to_degrees(vectors: FloatArray) -> FloatArray:
    lon, lat = lon_lat(vectors)
    return np.degrees(np.column_stack([lon % (2 * np.pi), lat]))


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
