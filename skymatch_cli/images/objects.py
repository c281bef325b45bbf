"""Images that are objects in memory (of astropy, of the pipelines, or arrays with a WCS), made readable as files.

What an object holds is not changed. The pixels of float images are read where they are; all else is copied.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from os import PathLike
from typing import Any

import numpy as np

from skymatch_cli.errors import InputError, UsageError, reason
from skymatch_cli.images.bunit import unit_text
from skymatch_cli.images.formats import asdffile, memory
from skymatch_cli.images.lists import left_out_as
from skymatch_cli.images.names import NamedFile

_TAKEN = "names, HDULists, NDData or CCDData with a WCS, pairs (array, wcs), or models of the pipelines"
_STRUCTURAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|GROUPS|EXTEND|EXTNAME|EXTVER|BSCALE|BZERO|BLANK|BUNIT|END"
    r"|C(TYPE|RVAL|RPIX|DELT|UNIT|ROTA)\d+|(CD|PC|PV)\d+_\d+"
)
_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}")
_JWST_CARDS = {
    **{"TELESCOP": "telescope", "INSTRUME": "instrument.name", "DETECTOR": "instrument.detector"},
    **{"FILTER": "instrument.filter", "PUPIL": "instrument.pupil"},
    **{"EXPTIME": "exposure.exposure_time", "EXP_TYPE": "exposure.type"},
    **{"PROGRAM": "observation.program_number", "OBSERVTN": "observation.observation_number"},
    **{"VISIT": "observation.visit_number", "VISITGRP": "observation.visit_group"},
    **{"SEQ_ID": "observation.sequence_id", "ACT_ID": "observation.activity_id"},
    **{"EXPOSURE": "observation.exposure_number"},
    **{"BKGLEVEL": "background.level", "BKGSUB": "background.subtracted", "BKGMETH": "background.method"},
}


@dataclass(frozen=True, slots=True)
class HeldImages:
    """Inputs of a run: names of files and images in memory."""

    # in the order in which they were given
    names: tuple[str | PathLike[str] | NamedFile, ...]
    objects: Mapping[str, Any]  # the images in memory, by the paths under which they are read

    def release(self) -> None:
        """Forget the images in memory."""
        memory.release(self.objects)


def hold_images(images: Any) -> HeldImages:
    """Tell names from images in memory, and make those readable.

    UsageError if one of them is of another type, or its parts don't fit together; InputError if a package is missing
    that its WCS needs. A model library of the pipelines counts as the models in it.
    """
    names: list[str | PathLike[str] | NamedFile] = []
    objects: dict[str, Any] = {}
    try:
        for k, item in enumerate(_items(images)):
            if isinstance(item, str | PathLike):
                names.append(item)
                continue
            name = _name(item, k)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of non-standard cards
                path = memory.hold(_parts(_hdus(item, name), name), name)
            objects[path] = item
            names.append(_named(item, name, path))
    except BaseException:
        memory.release(objects)
        raise
    return HeldImages(tuple(names), objects)


def is_model(item: Any) -> bool:
    """Return whether an object looks like an image model of the pipelines of JWST or Roman."""
    return all(hasattr(item, name) for name in ("data", "meta")) and hasattr(item.meta, "wcs")


def is_roman(model: Any) -> bool:
    """Return whether a model is Roman's."""
    return str(_attribute(model.meta, "telescope")).upper() == "ROMAN"


def is_pair(item: Any) -> bool:
    """Return whether an object is a pair (array, wcs)."""
    return isinstance(item, tuple) and len(item) == 2 and hasattr(item[1], "low_level_wcs")


def _items(images: Any) -> Iterable[Any]:
    from astropy.io import fits
    from astropy.nddata import NDData

    if isinstance(images, str | PathLike | fits.HDUList | NDData) or is_pair(images) or is_model(images):
        return [images]
    if hasattr(images, "borrow") and hasattr(images, "shelve"):
        return _models(images)
    if not isinstance(images, Iterable) or isinstance(images, bytes | np.ndarray):
        what = f"images: a {type(images).__name__} is neither an image nor a list of images"
        raise UsageError(what, f"give {_TAKEN}")
    return images


def _models(library: Any) -> list[Any]:
    """The models of a library, which stay in it as they are."""
    with library:
        models = [library.borrow(k) for k in range(len(library))]
        for k, model in enumerate(models):
            library.shelve(model, k, modify=False)
    return models


def _name(item: Any, number: int) -> str:
    """A name for results: that of a model's file, else one with the place among the inputs."""
    name = _attribute(item.meta, "filename") if is_model(item) else None
    return str(name) if isinstance(name, str) and name.strip("? ") else f"image_{number}"


def _named(item: Any, name: str, path: str) -> NamedFile:
    """An image in memory as an input, with its group and its role in an association if it is a model."""
    if not is_model(item):
        return NamedFile(name, path)
    kind = _attribute(item.meta, "asn.exptype") or _attribute(item.meta, "exptype") or ""
    left_out = left_out_as(str(kind), " of the association")
    return NamedFile(name, path, group=str(_attribute(item.meta, "group_id") or ""), left_out=left_out)


def _hdus(item: Any, name: str) -> Any:
    from astropy.io import fits
    from astropy.nddata import NDData

    if isinstance(item, fits.HDUList):
        return item
    if is_model(item):
        return _of_model(item, name)
    if isinstance(item, NDData):
        return _image(name, item.data, item.wcs, mask=item.mask, unit=unit_text(item.unit), meta=item.meta)
    if is_pair(item):
        array, wcs = item
        unit = getattr(array, "unit", None)
        array = array if unit is None else array.value
        mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
        return _image(name, np.ma.getdata(array), wcs, mask=mask, unit=unit_text(unit))
    raise UsageError(f"{name}: a {type(item).__name__} is not an image", f"give {_TAKEN}")


def _image(
    name: str, data: Any, wcs: Any, *, mask: Any = None, unit: str = "", meta: Any = None, dq: Any = None
) -> Any:
    """The HDUs of one image: its pixels (NaN where ``mask`` is True), flags, and what its WCS needs."""
    from astropy.io import fits

    data = np.asarray(data)
    if data.ndim != 2 or data.dtype.kind not in "biuf" or data.dtype.itemsize > 8:
        what = f"{name}: its pixels are {data.dtype} in {data.ndim} dimensions"
        raise UsageError(what, "give 2-D arrays of numbers of at most 64 bits")
    if mask is not None and mask is not False and np.any(mask):
        if np.shape(mask) not in {(), data.shape}:
            raise UsageError(f"{name}: its mask has the shape {np.shape(mask)}, its pixels {data.shape}")
        data = np.where(mask, np.nan, data).astype(np.result_type(data.dtype, np.float32))
    header, tables = _wcs_hdus(name, wcs)
    header.update(_cards(meta))
    if unit:
        header["BUNIT"] = unit
    kept = data.astype("f4") if data.dtype == np.float16 else data.astype("u1") if data.dtype == bool else data
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(kept, header, name="SCI")]
    if dq is not None:
        hdus.append(fits.ImageHDU(np.asarray(dq), name="DQ"))
    return fits.HDUList([*hdus, *tables])


def _wcs_hdus(name: str, wcs: Any) -> tuple[Any, list[Any]]:
    """The header cards of a WCS, and the HDUs that go with them."""
    from astropy.io import fits
    from astropy.wcs import WCS

    wcs = getattr(wcs, "low_level_wcs", wcs)
    if wcs is None:
        raise UsageError(f"{name}: it has no WCS", "give it one: CCDData(..., wcs=wcs), or a pair (array, wcs)")
    if isinstance(wcs, WCS):
        first, *tables = (wcs if wcs.naxis == 2 else wcs.celestial).to_fits(relax=True)
        return first.header, tables
    if hasattr(wcs, "forward_transform"):
        return fits.Header(), [_asdf_hdu(name, wcs)]
    raise UsageError(f"{name}: its WCS is a {type(wcs).__name__}", "give an astropy.wcs.WCS or a GWCS")


def _asdf_hdu(name: str, gwcs: Any) -> Any:
    """A GWCS as the pipeline of JWST keeps it."""
    from astropy.io import fits

    if missing := asdffile.missing_package():
        raise InputError.at(name, f"its GWCS needs the package {missing}", asdffile.HINT)
    import asdf

    stream = io.BytesIO()
    asdf.AsdfFile({"meta": {"wcs": gwcs}}).write_to(stream)
    raw = np.frombuffer(stream.getvalue(), "u1")
    column = fits.Column("ASDF_METADATA", f"{len(raw)}B", array=raw[None])
    return fits.BinTableHDU.from_columns([column], name="ASDF")


def _of_model(model: Any, name: str) -> Any:
    """Make the HDUs of an image model, with the keywords that the program reads."""
    if is_roman(model):
        from astropy.io import fits

        from skymatch_cli.images.formats.roman import array_and_unit, header_cards

        meta = fits.Header.fromstring("".join(card.decode("latin-1") for card in header_cards({"roman": model})))
        return _image(
            name, array_and_unit(model.data)[0], model.meta.wcs, dq=model.dq, unit=str(meta["BUNIT"]), meta=meta
        )
    found = {key: _attribute(model.meta, where) for key, where in _JWST_CARDS.items()}
    unit = _attribute(model.meta, "bunit_data")
    dq = getattr(model, "dq", None)
    return _image(name, model.data, model.meta.wcs, dq=dq, unit=str(unit or ""), meta=found)


def _attribute(meta: Any, where: str) -> Any:
    """A value of a tree of attributes; None where it isn't there."""
    return reduce(lambda node, part: getattr(node, part, None), where.split("."), meta)


def _cards(meta: Any) -> list[tuple[str, Any]]:
    """Return the values that a FITS header can hold, without structural keywords."""
    kept = []
    for name, value in meta.items() if hasattr(meta, "items") else ():
        key = str(name).upper()
        plain = value.isascii() and value.isprintable() if isinstance(value, str) else isinstance(value, bool | int)
        number = isinstance(value, float) and np.isfinite(value)
        if _KEYWORD.fullmatch(key) and not _STRUCTURAL.fullmatch(key) and (plain or number):
            kept.append((key, value))
    return kept


def _parts(hdus: Any, name: str) -> list[tuple[bytes, Any]]:
    """Headers and pixels of an HDUList: pixels of floats as they are, all other HDUs as bytes."""
    from astropy.io import fits

    parts: list[tuple[bytes, Any]] = []
    try:
        for k, hdu in enumerate(hdus):
            data = hdu.data if hdu.is_image else None
            if data is not None and data.dtype.kind == "f":
                kind = fits.ImageHDU if k else fits.PrimaryHDU
                parts.append((kind(data, hdu.header.copy()).header.tostring().encode("ascii"), data))
            else:
                parts.append((_bytes(hdu.copy(), first=k == 0), b""))
    except (fits.VerifyError, ValueError, TypeError, OSError) as error:
        raise InputError.at(name, f"can't be read as FITS: {reason(error)}") from error
    return parts


def _bytes(hdu: Any, *, first: bool) -> bytes:
    from astropy.io import fits

    stream = io.BytesIO()
    whole = fits.HDUList([hdu] if first else [fits.PrimaryHDU(), hdu])
    whole.writeto(stream, output_verify="silentfix")
    start = 0 if first else len(whole[0].header.tostring())
    return stream.getvalue()[start:]
