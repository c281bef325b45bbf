"""Which images overlap, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.model.arrays import FloatArray, IntArray
from skymatch_cli.model.polygons import PolygonRows


@dataclass(frozen=True, slots=True)
class TangentPlane:
    """A gnomonic plane (pyproj ``+proj=gnom +R=1``) about an ICRS position; x to the east, in radians."""

    ra_deg: float
    dec_deg: float


@dataclass(frozen=True, slots=True)
class OverlapGraph:
    """Which images overlap, as columns over the M overlapping pairs (a < b, sorted by a then b).

    A pair that is too wide for one plane (two all-sky maps) has one row for each plane that it needs; such
    rows share no area.
    """

    n_images: int
    a: IntArray  # (M,): index of the first image
    b: IntArray  # (M,): of the second
    area_arcmin2: FloatArray  # (M,): solid angle of the intersection
    polygon: PolygonRows  # the intersections in their tangent planes
    plane: IntArray  # (M,): index into ``planes``
    planes: tuple[TangentPlane, ...]

    def pairs_of(self, image: int) -> IntArray:
        """Indices of the pairs that hold an image, in the order of the graph."""
        return np.flatnonzero((self.a == image) | (self.b == image))

    def pairs_by_image(self) -> PairsByImage:
        """`pairs_of` every image, in one pass over the pairs."""
        # Pairs are sorted by a: those where an image comes second stand before those where it comes first.
        image = np.concatenate([self.b, self.a])
        first = np.zeros(self.n_images + 1, np.int64)
        np.cumsum(np.bincount(image, minlength=self.n_images), out=first[1:])
        return PairsByImage(np.argsort(image, kind="stable") % len(self.a), first)

    def part(self, pairs: IntArray) -> OverlapGraph:
        """The graph of some of the pairs, with the planes that these need; images keep their numbers."""
        used, plane = np.unique(self.plane[pairs], return_inverse=True)
        return OverlapGraph(
            self.n_images,
            self.a[pairs],
            self.b[pairs],
            self.area_arcmin2[pairs],
            self.polygon.part(pairs),
            plane.astype(np.int64),
            tuple(self.planes[k] for k in used),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PairsByImage:
    """The pairs that hold an image, in the order of the graph: ``[image]``."""

    pair: IntArray  # (2 M,): indices into the pairs, image after image
    first: IntArray  # (N + 1,): where those of every image begin, and 2 M

    def __getitem__(self, image: int) -> IntArray:
        return self.pair[self.first[image] : self.first[image + 1]]
