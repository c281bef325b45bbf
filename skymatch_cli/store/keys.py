"""Keys of findings: the state of the files of an image, how it is measured, and its overlaps.

Where all keys of a finding are the same, measuring again would give the same digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import Compare
from skymatch_cli.compare.mesh.cells import MeshGrid
from skymatch_cli.errors import without_secrets
from skymatch_cli.images.formats.files import real_paths
from skymatch_cli.model import FloatArray, ImageInfo, IntArray, OverlapGraph
from skymatch_cli.settings import OF_HEADERS, OF_THE_SOLUTION, Settings
from skymatch_cli.store.codec import Codec
from skymatch_cli.store.database import digest_of
from skymatch_cli.version import __version__

KeyArray = npt.NDArray[np.uint64]
KEY_BYTES = 16
_AT_A_TIME = 1024  # images that are looked at together
# Where names lead is in the key; how integers were stored before this program made them floats changes no value.
_NOT_IN_KEY = frozenset({"file", "path", "mask", "dq", "weight", "group", "original"})
# Settings that don't change the finding of an image, or that its header and files already represent.
_ELSEWHERE = OF_THE_SOLUTION | {"skip_bad"} | (OF_HEADERS - {"wcs"})
_OF_MESH = frozenset({"mesh_size", "model"})


@dataclass(frozen=True, slots=True, eq=False)
class ImageKeys:
    """Columns over N images."""

    # (N, 16) uint8: digest of the files of every image as they are, and of the place of its pixels in them
    state: npt.NDArray[np.uint8]
    place: npt.NDArray[np.uint8]  # (N, 16) uint8: the same without the state of the files
    sky: KeyArray  # (N,) uint64: digest of its footprint
    to_comparison: FloatArray  # (N,)

    @classmethod
    def joined(cls, parts: Sequence[ImageKeys]) -> ImageKeys:
        """Several one after another."""
        digests = np.empty((0, KEY_BYTES), np.uint8)
        parts = (cls(digests, digests, np.empty(0, np.uint64), np.empty(0)), *parts)
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def part(self, rows: slice | IntArray) -> ImageKeys:
        """Those of some images."""
        return ImageKeys(*(getattr(self, f.name)[rows] for f in fields(self)))


def image_states(infos: Sequence[ImageInfo]) -> tuple[list[bytes], list[bytes]]:
    """Digests of images as they are on the disk: with the state of their files, and without it.

    What headers say comes with the state of the files; offsets of pixels move when a header grows, and don't count.
    """
    states: list[bytes] = []
    places: list[bytes] = []
    for low in range(0, len(infos), _AT_A_TIME):
        some = infos[low : low + _AT_A_TIME]
        planes = [info.source.planes for info in some]
        real = iter(real_paths(without_secrets(plane.path) for own in planes for plane in own.values()))
        for info, own in zip(some, planes, strict=True):
            where: list[object] = [getattr(info.ref, f.name) for f in fields(info.ref) if f.name not in _NOT_IN_KEY]
            where += [(name, next(real), plane.hdu) for name, plane in own.items()]
            state: list[object] = [info.shape, *(plane.state for plane in own.values())]
            others = (f.name for f in fields(info.source) if f.name not in _NOT_IN_KEY | own.keys())
            state += [getattr(info.source, name) for name in others]
            place = repr(where).encode("utf-8", "surrogateescape")
            places.append(digest_of(place))
            states.append(digest_of(place, repr(state).encode()))
    return states, places


def image_keys(infos: Sequence[ImageInfo], footprints: Sequence[object], codec: Codec) -> ImageKeys:
    """The keys of images; ``footprints`` are theirs, or none."""
    states, places = image_states(infos)
    sky = [digest_of(codec.encode(footprint))[:8] for footprint in footprints] or [bytes(8)] * len(infos)
    return ImageKeys(
        np.frombuffer(b"".join(states), np.uint8).reshape(-1, KEY_BYTES),
        np.frombuffer(b"".join(places), np.uint8).reshape(-1, KEY_BYTES),
        np.frombuffer(b"".join(sky), np.uint64),
        np.array([info.to_comparison for info in infos], float),
    )


def measuring_keys(keys: ImageKeys, settings: Settings) -> list[bytes]:
    """How every image is measured: by what settings and version, and for cells the factor that their values have."""
    mesh = settings.compare == Compare.MESH
    unused = _ELSEWHERE if mesh else _ELSEWHERE | _OF_MESH
    chosen = {name: value for name, value in settings.determining().items() if name not in unused}
    rules = repr((__version__, settings.sky_keyword, sorted(chosen.items()))).encode("utf-8", "surrogateescape")
    if not mesh:
        return [digest_of(rules)] * len(keys.sky)
    return [digest_of(rules, repr(factor).encode()) for factor in keys.to_comparison.tolist()]


class OverlapKeys:
    """The overlaps of images as keys: for each the sky of the other image, and the plane."""

    def __init__(self, graph: OverlapGraph, sky: KeyArray) -> None:
        self._graph, self.sky = graph, sky
        self.pairs = graph.pairs_by_image()
        planes = (digest_of(repr(plane).encode())[:8] for plane in graph.planes)
        self.planes = np.frombuffer(b"".join(planes), np.uint64)

    def of(self, image: int) -> KeyArray:
        """Keys of the overlaps of an image, (R, 2), in the order of the graph."""
        pairs = self.pairs[image]
        other = self._graph.a[pairs] + self._graph.b[pairs] - image
        return np.stack([self.sky[other], self.planes[self._graph.plane[pairs]]], axis=1)

    def known(self, image: int, kept: bytes) -> IntArray:
        """Which of the overlaps of an image are among some that were kept: rows of these, -1 where they are none."""
        now = self.of(image)
        if now.tobytes() == kept:
            return np.arange(len(now))
        rows = {key: k for k, key in enumerate(_keys(kept))}
        return np.array([rows.get(key, -1) for key in _keys(now.tobytes())], np.int64)

    def of_cells(self, image: int, grids: Sequence[MeshGrid]) -> bytes:
        """All overlaps of an image and the grids of their planes as one key."""
        used = np.unique(self._graph.plane[self.pairs[image]]).tolist()
        overlaps = b"".join(sorted(_keys(self.of(image).tobytes())))
        return digest_of(overlaps, *sorted(repr(grids[k]).encode() for k in used))


def _keys(content: bytes) -> list[bytes]:
    return [content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)]
