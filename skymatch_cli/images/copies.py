"""Files of one WCS: copies of one exposure, whose difference of exactly 0 would dominate the solution, and its maps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import first_names
from skymatch_cli.images.formats.files import is_remote
from skymatch_cli.images.names import stem_of
from skymatch_cli.model import Container, ImageInfo, ImageRef, SkyWarning, StoredPlane

_CHUNK = 2**24
_FIRST = 2**12  # bytes that are compared first, in the middle of the image
_CONSTANT = 8  # different bytes; fewer: the pixels are constant


def copy_warnings(infos: Sequence[ImageInfo]) -> tuple[SkyWarning, ...]:
    """Name images of one WCS whose stored pixels are the same, or that are one file in two forms, by their names.

    Forms are packed or not, and with the sky subtracted or not. The pixels of packed and remote files are not compared.
    """
    alike: dict[object, list[ImageInfo]] = {}
    for info in infos:
        if info.wcs is not None:
            wcs = getattr(info.wcs, "cards", info.pixel_area_arcsec2)
            alike.setdefault((info.shape, wcs, info.ref.part), []).append(info)
    several = [own for own in alike.values() if len(own) > 1]
    return tuple(warning for own in several for find in (_same_pixels, _same_names) for warning in find(own))


def kind_warnings(infos: Sequence[ImageInfo]) -> tuple[SkyWarning, ...]:
    """Say where files of one WCS differ by the same words in several places: images, and maps that are none.

    Words with digits number the files; images of different sets (``--split-by``) are not compared.
    """
    places: dict[object, dict[str, list[str]]] = {}
    for info in infos:
        place = info.shape, getattr(info.wcs, "cards", info.ref.label), info.ref.part, info.split
        words = re.split(r"[^A-Za-z0-9]+", stem_of(info.ref.path))
        places.setdefault(place, {})[info.ref.file] = [word for word in words if word.isalpha()]
    sets: dict[frozenset[tuple[str, ...]], dict[tuple[str, ...], None]] = {}
    for own in places.values():
        of_all = set.intersection(*map(set, own.values()))
        kinds = frozenset(tuple(word for word in words if word not in of_all) for words in own.values())
        if len(kinds) == len(own) > 1:
            sets.setdefault(kinds, {})[tuple(own)] = None  # chips of one file are one place
    text = "files of {} kinds, by their names, are matched as images in each of {} places: {}; give one kind"
    return tuple(
        SkyWarning(WarningName.PLANES, text.format(len(kinds), len(found), first_names(next(iter(found)))))
        for kinds, found in sets.items()
        if len(found) > 1
    )


def _same_pixels(images: Sequence[ImageInfo]) -> Iterator[SkyWarning]:
    same_middle: dict[tuple[int, bytes], list[tuple[StoredPlane, ImageRef]]] = {}
    for info in images:
        plane = info.source.science
        if plane.container is Container.PLAIN and not plane.tiled and not is_remote(plane.path):
            middle = _stored(plane, plane.n_bytes // 2, _FIRST)
            same_middle.setdefault((plane.bitpix, middle), []).append((plane, info.ref))
    for (_, middle), own in same_middle.items():
        if len(set(middle)) <= _CONSTANT:
            continue
        for (one, first), (other, second) in pairwise(own):
            if one.path != other.path and _are_same(one, other):
                yield _copy(f"{second.label} holds the same pixels as {first.label}")


def _same_names(images: Sequence[ImageInfo]) -> Iterator[SkyWarning]:
    forms: dict[tuple[str, str], dict[object, ImageRef]] = {}
    for info in images:
        plane, subtracted = info.source.science, info.recorded is not None and info.recorded.subtracted
        own = forms.setdefault((stem_of(plane.path), info.split), {})
        own.setdefault((plane.container, plane.tiled, plane.bitpix, subtracted), info.ref)
    for own in forms.values():
        for first, second in pairwise(own.values()):
            if first.path != second.path:
                what = f"{second.label} has the name and the WCS of {first.label}"
                yield _copy(f"{what}, packed, as other numbers or with another sky subtracted")


def _copy(what: str) -> SkyWarning:
    return SkyWarning(WarningName.COPIES, f"{what}: a copy counts as another exposure")


def _are_same(one: StoredPlane, other: StoredPlane) -> bool:
    starts = range(0, one.n_bytes, _CHUNK)
    return all(_stored(one, start, _CHUNK) == _stored(other, start, _CHUNK) != b"" for start in starts)


def _stored(plane: StoredPlane, start: int, n: int) -> bytes:
    """Read n bytes of the pixels, or what is left; none of an unreadable file, which is reported later."""
    try:
        with Path(plane.path).open("rb") as stream:
            stream.seek(plane.offset + start)
            return stream.read(min(n, plane.n_bytes - start))
    except OSError:
        return b""
