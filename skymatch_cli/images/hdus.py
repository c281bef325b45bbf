"""Which planes belong to an image (its pixels, DQ flags, user mask) and where they are stored."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from skymatch_cli.errors import InputError, caught
from skymatch_cli.images.companions import Role, belonging, companion_of, extension, other_flags
from skymatch_cli.images.dq import NO_FLAG, bad_flags
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.images.formats.fitsfile import FitsFile, Hdu, parse_header, read_structure
from skymatch_cli.images.formats.header import as_number
from skymatch_cli.images.formats.packing import open_unpacked
from skymatch_cli.images.names import check_template, fill_template
from skymatch_cli.model import ImageRef, MaskRef, PixelSource, RegionFile, Selector, StoredPlane
from skymatch_cli.settings import Settings

_DEFAULT_DQ_EXT = "DQ"
_TEMPLATE = re.compile(r"\{|\.(fits?|fts)\b", re.IGNORECASE)
NO_WEIGHT = "none"
_UNUSED = "no DQ flags: "
_FILES_KEPT = 64  # one mask file often serves many images


class PlaneFinder:
    """Finds the planes of images under the settings of one run; UsageError if a template can't be filled."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dq_ext = settings.dq_ext.strip()
        self._no_weight = (settings.weight or "").lower() == NO_WEIGHT
        given = {
            "--dq-ext": self._dq_ext if _TEMPLATE.search(self._dq_ext) else None,
            "--weight": None if self._no_weight else settings.weight,
            "--exposure-map": settings.exposure_map,
        }
        self._templates = {option: template for option, template in given.items() if template is not None}
        for option, template in self._templates.items():
            check_template(option, template)
        self._structure = lru_cache(maxsize=_FILES_KEPT)(read_structure)

    def find(self, ref: ImageRef, file: FitsFile, telescope: str) -> tuple[PixelSource, tuple[str, ...], str]:
        """Find the planes of an image, notes on them, and why flags or weights of the list are not used.

        InputError if one that the user asked for doesn't exist or doesn't fit.
        """
        science = stored_plane(file, file.hdus[ref.hdu], ref.label)
        planes: dict[str, Any] = {"science": science}
        notes: list[str] = []
        if ref.mask is not None:
            notes.append(f"mask {ref.mask.file}")
            planes["regions"] = _regions(ref.mask, ref.label)
            if planes["regions"] is None:
                planes["mask"] = self._separate(ref.mask, science, ref, "mask", file)
        planes["weight"], note = self._weights(ref, file, science)
        notes += [note] if note else []
        unused = note if planes["weight"] is None else ""
        bad = planes["bad_flags"] = bad_flags(self._settings.dqbits, telescope, ref.label)
        if bad == NO_FLAG:
            notes.append("DQ flags are ignored")
        else:
            planes["dq"], note = self._dq(ref, file, science, bad)
            notes.append(note)
            unused = unused or note.removeprefix(_UNUSED) * note.startswith(_UNUSED)
            unused = unused or self._other_flags(planes["dq"], ref, file)
        if "--exposure-map" in self._templates:
            planes["exposure"], name = self._from_template("--exposure-map", science, ref, "exposure map", file)
            notes.append(f"counts are divided by {name}")
        return PixelSource(**planes), tuple(notes), unused

    def _dq(self, ref: ImageRef, file: FitsFile, science: StoredPlane, bad: int) -> tuple[StoredPlane | None, str]:
        """The plane of flags, and a note; None where there is none."""
        dq: StoredPlane | None
        name = f"[{self._dq_ext},{ref.extver}]"
        named = (h for h in file.hdus if h.name.upper() == self._dq_ext.upper() and h.index != ref.hdu)
        if "--dq-ext" in self._templates:
            dq, name = self._from_template("--dq-ext", science, ref, "DQ file", file)
        elif (hdu := belonging(named, file.hdus[ref.hdu], file)) is not None:
            if not hdu.shape:
                _check_constant(file, hdu, bad, ref.label)
                return None, f"no DQ flags are set in {name}"
            dq = stored_plane(file, hdu, f"{ref.file}{name}")
            _check_shape(dq, science, ref.label, f"the DQ extension {name}")
        elif self._dq_ext.upper() != _DEFAULT_DQ_EXT:
            raise InputError.at(ref.label, f"there is no extension {name} in the file", "see --dq-ext")
        else:
            dq, name = self._companion(Role.FLAGS, ref, file, science)
            if dq is None:
                return None, f"{_UNUSED}{name}" if name else "no DQ flags"
        if not _holds_flags(dq):
            what = f"the DQ flags in {name} are not integers"
            raise InputError.at(ref.label, what, "see --dq-ext, or give --dqbits none")
        return dq, f"DQ flags from {name}"

    def _other_flags(self, dq: StoredPlane | None, ref: ImageRef, file: FitsFile) -> str:
        """Which flags of the image's file are not used beside those that are; "" where the user chose."""
        if dq is None or dq.path != file.path or self._dq_ext.upper() != _DEFAULT_DQ_EXT:
            return ""
        others, used = other_flags(file, file.hdus[ref.hdu], dq.hdu), extension(file.hdus[dq.hdu])
        return f"{', '.join(others)} (it has {used} too; see --dq-ext)" if others else ""

    def _weights(self, ref: ImageRef, file: FitsFile, science: StoredPlane) -> tuple[StoredPlane | None, str]:
        """The plane that is 0 where nothing was observed, and a note; None where there is none."""
        if self._no_weight:
            return None, ""
        if "--weight" in self._templates:
            plane, name = self._from_template("--weight", science, ref, "weight file", file)
            return plane, f"weights from {name}"
        found, name = self._companion(Role.WEIGHT, ref, file, science)
        return (None, name) if found is None else (found, f"pixels with {name} = 0 are left out")

    def _companion(
        self, role: Role, ref: ImageRef, file: FitsFile, science: StoredPlane
    ) -> tuple[StoredPlane | None, str]:
        """A plane found by its name in the file of the image, or beside it, and its name; else None, and why."""
        beside, kind = (ref.dq, "DQ file") if role is Role.FLAGS else (ref.weight, "weight file")
        if (own := companion_of(file, file.hdus[ref.hdu], role)) is not None:
            return stored_plane(file, own, f"{ref.file}{extension(own)}"), extension(own)
        if beside is None:
            return None, ""
        found = caught(self._separate, beside, science, ref, kind, file)
        return (None, found.problems[0].what) if isinstance(found, InputError) else (found, beside.file)

    def _from_template(
        self, option: str, science: StoredPlane, ref: ImageRef, kind: str, images: FitsFile
    ) -> tuple[StoredPlane, str]:
        """The plane in the file that a template means for an image, and the name of the file."""
        place = fill_template(option, self._templates[option], ref)
        return self._separate(place, science, ref, kind, images), place.file

    def _separate(
        self, place: MaskRef, science: StoredPlane, ref: ImageRef, kind: str, images: FitsFile
    ) -> StoredPlane:
        where = ref.label
        try:
            file = self._structure(place.path, place.file)
        except InputError as error:
            bad = error.problems[0]
            raise InputError.at(where, f"its {kind} {bad.where} can't be used: {bad.what}", bad.hint) from None
        plane = stored_plane(file, _chosen(file, place, ref, kind, images), where)
        _check_shape(plane, science, where, f"its {kind} {place.file}")
        return plane


def _regions(place: MaskRef, where: str) -> RegionFile | None:
    """The region file that stands for a mask; None for a mask that is an image."""
    from skymatch_cli.images.formats.ds9 import read_regions

    if not place.path.lower().endswith(".reg"):
        return None
    try:
        file = RegionFile(place.path, file_state(place.path))
    except OSError:
        raise InputError.at(where, f"its mask {place.file} can't be used: no such file") from None
    read_regions(file)
    return file


def stored_plane(file: FitsFile, hdu: Hdu, where: str) -> StoredPlane:
    """Find where the pixels of an HDU (of a cube: those of its first plane) are and how they are stored.

    InputError if it is not two-dimensional, or BSCALE or BZERO is not a number.
    """
    if hdu.plane_shape is None:
        raise InputError.at(where, "is not a two-dimensional image")
    if not math.isfinite(hdu.bscale) or not math.isfinite(hdu.bzero) or hdu.bscale == 0:
        raise InputError.at(where, "BSCALE or BZERO in the header is not a usable number")
    return StoredPlane(
        path=file.path,
        container=file.container,
        hdu=hdu.index,
        offset=hdu.data_offset,
        shape=hdu.plane_shape,
        bitpix=hdu.bitpix,
        bscale=hdu.bscale,
        bzero=hdu.bzero,
        blank=hdu.blank,
        tiled=hdu.tiled,
        state=file.state,
        n_planes=hdu.n_planes,
    )


def _holds_flags(plane: StoredPlane) -> bool:
    """Whether the plane is made of integers with one bit pattern for each value (unsigned ones included)."""
    offsets = {0.0, -128.0 if plane.bitpix == 8 else 2.0 ** (plane.bitpix - 1)}
    return plane.bitpix > 0 and plane.bscale == 1 and plane.bzero in offsets


def _chosen(file: FitsFile, place: MaskRef, ref: ImageRef, kind: str, images: FitsFile) -> Hdu:
    """The HDU of a mask, DQ or weight file that is meant for an image of the file ``images``.

    Without a name: the one of the image's EXTNAME and EXTVER, else the one of its WCS, else the one in its place, else
    the first; never one with the name of another image.
    """
    if place.selector is None:
        own, same = images.hdus[ref.hdu], Selector(name=ref.ext, ver=ref.extver)
        named = {(hdu.name.upper(), hdu.ver) for hdu in images.hdus if hdu.name and hdu is not own}
        others = named - {(own.name.upper(), own.ver)}
        planes = [hdu for hdu in file.hdus if hdu.plane_shape]
        found = [hdu for hdu in planes if (hdu.name.upper(), hdu.ver) not in others]
        if planes and not found:
            what = f"its {kind} {place.file} holds no plane of it, but of other images"
            raise InputError.at(ref.label, what, "add its plane, or leave this file out of the list or template")
        found.sort(
            key=lambda h: (
                not ref.ext or not same.fits(h.index, h.name, h.ver),
                not own.wcs or h.wcs != own.wcs,
                h.index != ref.hdu,
            )
        )
    else:
        selector = replace(place.selector, ver=place.selector.ver or 1)
        found = [hdu for hdu in file.hdus if selector.fits(hdu.index, hdu.name, hdu.ver)]
    if not found or found[0].plane_shape is None:
        what = f"its {kind} {place.file}{place.selector or ''} is not a two-dimensional image"
        raise InputError.at(ref.label, what, "name its extension: FILE[EXT]")
    return found[0]


def _check_shape(plane: StoredPlane, science: StoredPlane, where: str, what: str) -> None:
    if plane.shape != science.shape:
        (ny, nx), (my, mx) = science.shape, plane.shape
        raise InputError.at(where, f"{what} is {mx} × {my} pixels, the image {nx} × {ny}", "give one of the same shape")
    if plane.n_planes not in {1, science.n_planes}:
        what = f"{what} has {plane.n_planes} planes, the image {science.n_planes}"
        raise InputError.at(where, what, "give one of the same shape, or one plane for all")


def _check_constant(file: FitsFile, hdu: Hdu, bad: int, where: str) -> None:
    """Refuse a DQ extension without pixels whose one value (PIXVALUE, as HST writes it) flags them all."""
    with open_unpacked(file.path, file.container) as stream:
        value = as_number(parse_header(stream, hdu).value("PIXVALUE"))
    if math.isfinite(value) and int(value) & bad:
        raise InputError.at(where, f"all its pixels are flagged (PIXVALUE {value:g})", "see --dqbits")
