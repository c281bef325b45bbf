"""Which planes of a file are images of the sky, and which belong to an image: flags, weights, errors.

Planes of one file with the same shape and the same WCS are one image and its companions. Their names say which is
which; without a name that says it, the first one is the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.fitsfile import FitsFile, Hdu


class Role(StrEnum):
    """Role of a plane in its file, by its name."""

    IMAGE = "image"
    FLAGS = "flags"
    WEIGHT = "weight"
    OTHER = "other"
    UNKNOWN = "unknown"


# Texts anywhere in a name, and words that stand between characters that are no letters. An extension whose name has
# one of the first is never an image, also where no other plane of its file says so.
_SURELY = {
    Role.FLAGS: ("mask quality", "dq msk bpm flag flags flg"),
    Role.OTHER: ("variance error uncert sigma stddev", "err var rms unc"),
    Role.WEIGHT: ("weight ivar invvar", "wht wgt wt con ctx"),
}
_PERHAPS = {
    Role.OTHER: ("stdev background noise", "std bkg bg sky zodi area psf model"),
    Role.WEIGHT: ("coverage exposure confidence", "conf exp exptime expmap cov nhits hits nobs"),
    Role.IMAGE: ("", "sci science image img signal flux data intensity"),
}
_ROLES = [(role, table[role]) for role in (*_SURELY, Role.IMAGE) for table in (_SURELY, _PERHAPS) if role in table]
_SKY = {Role.IMAGE, Role.UNKNOWN}
_LISTED = 6


@lru_cache(maxsize=1024)
def role_of(name: str) -> Role:
    """Return the role of a plane by its name; of ``1-1.E.SCI`` and ``DET11.DQ`` the last word counts."""
    word = name.rpartition(".")[2]
    return next((role for role, texts in _ROLES if _has(word, *texts)), Role.UNKNOWN)


def _has(name: str, texts: str, words: str) -> bool:
    name = name.lower()
    return any(text in name for text in texts.split()) or not set(words.split()).isdisjoint(re.split("[^a-z]+", name))


def science_planes(
    file: FitsFile, where: str, *, need_wcs: bool, cubes: bool = False
) -> tuple[tuple[Hdu, ...], tuple[str, ...]]:
    """Choose the images of a file that is named without an extension, and warn where the choice is a guess.

    All 2-D ``SCI`` planes; else the planes (celestial ones, if ``need_wcs``) that are not companions. Empty where there
    are none. ``cubes``: look for cubes instead. InputError if two planes of one shape and WCS both have the name of an
    image.
    """
    planes = [hdu for hdu in file.hdus if (hdu.cube_axis is not None if cubes else hdu.image_shape)]
    science = tuple(hdu for hdu in planes if _last_word(hdu) == "SCI")
    if science:
        return science, ()
    images = [hdu for hdu in planes if not any(_has(_last_word(hdu), *texts) for texts in _SURELY.values())]
    celestial = [hdu for hdu in images if hdu.celestial]
    if not celestial:
        return (() if need_wcs else tuple(images)), ()
    chosen: list[Hdu] = []
    warnings: list[str] = []
    for together in _same_place(celestial):
        found, warning = _images_among(together, where)
        chosen += found
        warnings += warning
    return tuple(sorted(chosen, key=lambda hdu: hdu.index)), tuple(warnings)


def companion_of(file: FitsFile, image: Hdu, role: Role) -> Hdu | None:
    """Find the flags, or weights, of an image by name and place: same shape, prefix and, if it has one, EXTVER.

    Their WCS is that of the image, or missing; or it is spelled differently, where each such image has one plane.
    """
    kind, prefixes = (image.plane_shape, image.n_planes), {_prefix(image), image.name.upper()}
    alike = [h for h in file.hdus if (h.plane_shape, h.n_planes) == kind and _prefix(h) in prefixes]
    found = [h for h in alike if role_of(h.name) is role and h is not image]
    if role is Role.WEIGHT:  # before exposure times and coverage
        found = [h for h in found if _has(_last_word(h), *_SURELY[Role.WEIGHT])] or found
    if same := [hdu for hdu in found if hdu.wcs in {"", image.wcs}]:
        unnumbered = len(same) == 1 and same[0].wcs and same[0].ver == 1
        return same[0] if unnumbered else belonging(same, image, file)
    images = [hdu for hdu in alike if hdu is image or (hdu.celestial and role_of(hdu.name) in _SKY)]
    if len(found) != len(images):
        return None
    numbered = [hdu for hdu in found if hdu.ver == image.ver]
    return numbered[0] if len(numbered) == 1 else found[images.index(image)]


def other_flags(file: FitsFile, image: Hdu, used: int) -> list[str]:
    """Return selectors of further planes of flags of an image, beside the one in use (the index of its HDU)."""
    kind, own = (image.plane_shape, image.ver, _prefix(image)), file.hdus[used].name.upper()
    alike = (h for h in file.hdus if (h.plane_shape, h.ver, _prefix(h)) == kind and h.wcs in {"", image.wcs})
    return [extension(h) for h in alike if role_of(h.name) is Role.FLAGS and h.name.upper() != own and h is not image]


def belonging(found: Iterable[Hdu], image: Hdu, file: FitsFile) -> Hdu | None:
    """Find the plane of an image among those of one name: that of its EXTVER, which all images or planes may share.

    Of as many planes as images the one at the same place among them; else the first one that follows the image, or the
    last one before it.
    """
    planes = sorted(found, key=lambda hdu: hdu.index)
    planes = [hdu for hdu in planes if hdu.plane_shape == image.plane_shape] or planes
    twins = [hdu for hdu in file.hdus if (hdu.name.upper(), hdu.plane_shape) == (image.name.upper(), image.plane_shape)]
    if len({hdu.ver for hdu in planes}) > 1 or len(planes) == 1 or len(planes) != len(twins):
        planes, twins = ([hdu for hdu in some if hdu.ver == image.ver] for some in (planes, twins))
    if len(twins) == len(planes):
        return planes[twins.index(image)]
    after = [hdu for hdu in planes if hdu.index > image.index]
    return next(iter(after or planes[-1:]), None)


def extension(hdu: Hdu) -> str:
    """Return the selector of a plane: ``[SCI,2]`` or ``[3]``."""
    return f"[{hdu.name},{hdu.ver}]" if hdu.name else f"[{hdu.index}]"


def _last_word(hdu: Hdu) -> str:
    return hdu.name.rpartition(".")[2].upper()


def _prefix(hdu: Hdu) -> str:
    return hdu.name.rpartition(".")[0].upper()


def _same_place(planes: Sequence[Hdu]) -> list[list[Hdu]]:
    """The planes by shape, WCS and prefix, in their order in the file."""
    places: dict[tuple[object, ...], list[Hdu]] = {}
    for hdu in planes:
        key = (hdu.shape[-2:], hdu.n_planes, hdu.wcs or hdu.index, _prefix(hdu))
        places.setdefault(key, []).append(hdu)
    return list(places.values())


def _images_among(planes: Sequence[Hdu], where: str) -> tuple[list[Hdu], list[str]]:
    """The images among planes of one shape and WCS: those with the name of the first that is one."""
    claims = [hdu for hdu in planes if role_of(hdu.name) is Role.IMAGE]
    names = {hdu.name.upper() for hdu in claims}
    if len(names) > 1:
        listed = " or ".join(f"{where}{extension(hdu)}" for hdu in claims[:_LISTED])
        what = (
            f"{' and '.join(map(extension, claims[:_LISTED]))} have the same shape and WCS, and each may be the image"
        )
        raise InputError.at(where, what, f"name one: {listed}")
    first = next((hdu for hdu in planes if role_of(hdu.name) is Role.UNKNOWN), planes[0])
    image = claims[0] if claims else first
    images = [hdu for hdu in planes if image.name and hdu.name.upper() == image.name.upper()] or [image]
    left = [hdu for hdu in planes if hdu not in images]
    if claims or not any(role_of(hdu.name) is Role.UNKNOWN for hdu in left):
        return images, []
    listed = ", ".join(map(extension, left[:_LISTED]))
    warning = f"{where}: uses {extension(image)} as the image, {listed} as its companions (same shape and WCS)"
    return images, [f"{warning}; name others as FILE[EXT]"]
