"""Files with the same pixels: copies of one exposure, whose difference of exactly 0 would dominate the solution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from skymatch_cli.choices import WarningName
from skymatch_cli.images.formats.files import is_remote
from skymatch_cli.model import Container, ImageInfo, ImageRef, SkyWarning, StoredPlane

_CHUNK = 2**20
_FIRST = 2**12  # bytes that are compared first, in the middle of the image
_CONSTANT = 8  # different bytes; fewer: the pixels are constant


def copy_warnings(infos: Sequence[ImageInfo]) -> tuple[SkyWarning, ...]:
    """Name images of one WCS whose stored pixels are the same; packed and remote files are not compared."""
    alike: dict[object, list[tuple[StoredPlane, ImageRef]]] = {}
    for info in infos:
        if info.wcs is None:
            continue
        plane, wcs = info.source.science, getattr(info.wcs, "cards", info.pixel_area_arcsec2)
        if plane.container is Container.PLAIN and not plane.tiled and not is_remote(plane.path):
            alike.setdefault((plane.shape, plane.bitpix, wcs, info.ref.part), []).append((plane, info.ref))
    return tuple(warning for own in alike.values() if len(own) > 1 for warning in _warnings(own))


def _warnings(images: Sequence[tuple[StoredPlane, ImageRef]]) -> Iterator[SkyWarning]:
    same_middle: dict[bytes, list[tuple[StoredPlane, ImageRef]]] = {}
    for plane, ref in images:
        same_middle.setdefault(_middle(plane), []).append((plane, ref))
    for middle, own in same_middle.items():
        if len(set(middle)) <= _CONSTANT:
            continue
        for (one, first), (other, second) in pairwise(own):
            if one.path != other.path and _are_same(one, other):
                text = f"{second.label} holds the same pixels as {first.label}: a copy counts as another exposure"
                yield SkyWarning(WarningName.COPIES, text)


def _middle(plane: StoredPlane) -> bytes:
    try:
        with Path(plane.path).open("rb") as stream:
            stream.seek(plane.offset + plane.n_bytes // 2)
            return stream.read(min(_FIRST, plane.n_bytes // 2))
    except OSError:
        return b""  # reported when its pixels are read


def _are_same(one: StoredPlane, other: StoredPlane) -> bool:
    left = one.n_bytes
    try:
        with Path(one.path).open("rb") as a, Path(other.path).open("rb") as b:
            a.seek(one.offset)
            b.seek(other.offset)
            while left > 0:
                n = min(_CHUNK, left)
                if a.read(n) != b.read(n):
                    return False
                left -= n
    except OSError:
        return False
    return True
