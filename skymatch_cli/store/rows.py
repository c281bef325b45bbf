"""The rows of a store: what is encoded in each of its tables.

=========  ====================================================================================
facts      the plan as a whole, the settings by which its pixels are measured, and its measurements
files      the structure of every file, and `headers` the header of every image of the plan
columns    keys of the images, some ten thousand a row
overlaps   which images overlap, some ten thousand a row, and `polygons` where
findings   the finding of every image, under the keys of the files and settings that it depends on; the head of a row
           has two bytes, whether there is a sky of its own and whether files can't be read, and the keys of overlaps
=========  ====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import overload

import numpy as np

from skymatch_cli.compare.mesh.packed import Mesh, PackedMesh
from skymatch_cli.compare.meshed import MeshReduction
from skymatch_cli.compare.pooled import ImageMeasurement
from skymatch_cli.images.formats.fitsfile import FitsFile
from skymatch_cli.images.formats.gwcs import GwcsWcs
from skymatch_cli.images.known import ImageHeader
from skymatch_cli.model import (
    CelestialWcs,
    FloatArray,
    ImageInfo,
    IntArray,
    Measurements,
    OverlapGraph,
    SkyWarning,
    TangentPlane,
)
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.settings import Settings
from skymatch_cli.sky.celestial import FitsWcs
from skymatch_cli.store.codec import Codec
from skymatch_cli.store.keys import ImageKeys

Finding = ImageMeasurement | MeshReduction
CODEC = Codec({CelestialWcs: (FitsWcs, GwcsWcs), Mesh: (PackedMesh,)})


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """Facts of the whole plan; ``digest`` covers its images and overlaps."""

    digest: bytes
    rules: str
    on_sky: bool
    n_images: int
    n_overlaps: int
    n_files: int
    comparison_unit: str
    notes: tuple[str, ...]  # of all images, beyond those of their headers
    planes: tuple[TangentPlane, ...]
    skipped: tuple[str, ...]
    warnings: tuple[SkyWarning, ...]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The structure of a file, and its real path."""

    real: str
    file: FitsFile


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Some of the overlaps, as columns."""

    a: IntArray
    b: IntArray
    area_arcmin2: FloatArray
    plane: IntArray

    @classmethod
    def of(cls, graph: OverlapGraph, part: slice = slice(None)) -> Overlaps:
        """Those of a graph, or some of them."""
        return cls(*(getattr(graph, f.name)[part] for f in fields(cls)))


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Measurements of all pairs and their warnings, so that unchanged images are compared once."""

    key: bytes  # digest of the state of the files, then of everything else that the measurements depend on
    measurements: Measurements
    warnings: tuple[SkyWarning, ...]


_STORED = (
    *(PlanFacts, StoredFile, ImageHeader, ImageKeys, Overlaps, Polygons),
    *(ImageMeasurement, MeshReduction, Gathered),
)


def layout() -> str:
    """Describe all rows: stores with the same description are of one version."""
    return "\n".join(map(CODEC.layout, _STORED))


def are_overlaps(a: IntArray, b: IntArray, plane: IntArray, facts: PlanFacts) -> bool:
    """Whether the columns can be those of a graph: valid indices, in order."""
    inside = (a >= 0) & (a < b) & (b < facts.n_images) & (plane >= 0) & (plane < len(facts.planes))
    step = np.diff(a)
    return bool(inside.all() and (step >= 0).all() and (np.diff(b)[step == 0] >= 0).all())


def settings_json(settings: Settings) -> str:
    """Settings that determine the result, with the keyword of the sky, as JSON."""
    return json.dumps({**settings.determining(), "sky_keyword": settings.sky_keyword}, sort_keys=True)


_AT_A_TIME = 64  # images that are read together
_BLOCKS_HELD = 2


class StoredInfos(Sequence[ImageInfo]):
    """``n`` images, which ``read(low, high)`` reads from the store."""

    def __init__(self, read: Callable[[int, int], list[ImageInfo]], n: int) -> None:
        self._read, self._n = read, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, i: int) -> ImageInfo: ...

    @overload
    def __getitem__(self, i: slice) -> Sequence[ImageInfo]: ...

    def __getitem__(self, i: int | slice) -> ImageInfo | Sequence[ImageInfo]:
        if isinstance(i, slice):
            low, high, step = i.indices(self._n)
            return self._read(low, max(low, high)) if step == 1 else [self[k] for k in range(low, high, step)]
        if not -self._n <= i < self._n:
            raise IndexError(i)
        return self._read(i % self._n, i % self._n + 1)[0]

    def __iter__(self) -> Iterator[ImageInfo]:
        for low in range(0, self._n, _AT_A_TIME):
            yield from self._read(low, min(low + _AT_A_TIME, self._n))


class StoredPolygons:
    """``n`` polygons as `PolygonRows`.

    ``read(low, high)`` reads blocks of ``block`` polygons, of which one or two are in memory.
    """

    def __init__(self, read: Callable[[int, int], list[Polygons]], n: int, block: int) -> None:
        self._n, self._rows = n, block
        self._block = lru_cache(_BLOCKS_HELD)(lambda k: read(k, k + 1)[0])

    def __len__(self) -> int:
        return self._n

    def part(self, rows: IntArray) -> Polygons:
        """Return the polygons of some rows."""
        block = rows // self._rows
        edges = np.flatnonzero(np.diff(block, prepend=-1, append=-1))
        runs = [(int(block[low]), rows[low:high] % self._rows) for low, high in pairwise(edges)]
        return Polygons.joined([self._block(k).part(own) for k, own in runs])
