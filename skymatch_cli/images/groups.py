"""Groups of images that share one sky: the chips of a file, the detectors of an exposure."""

from __future__ import annotations

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.header import Keywords
from skymatch_cli.model import ImageRef

AUTO, FILE = "auto", "file"

# Keywords that identify an exposure, by TELESCOP; the filter keeps detectors of two wavelengths apart.
_EXPOSURES = {
    "JWST": ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE"),
    "ROMAN": ("PROGRAM", "EXECPLAN", "PASS", "SEGMENT", "OBSERVTN", "VISIT", "EXPOSURE"),
}
_BANDS = ("FILTER", "PUPIL")


def group_of(ref: ImageRef, keywords: Keywords, by: str, spelling: str) -> str:
    """Return the group of an image; InputError if a keyword is missing.

    ``by``: ``auto`` (JWST and Roman by exposure, others by file), ``file``, ``exposure``, ``none``, or header keywords
    separated by commas. ``spelling`` is the name by which the file is first called.
    """
    match by:
        case "file":
            return spelling
        case "none":
            return ref.label
        case "auto" if ref.section is not None:
            return ref.label  # amplifiers and fields of one detector have skies of their own
        case "auto":
            return ref.group or exposure_of(keywords) or spelling
        case "exposure":
            found = ref.group or exposure_of(keywords)
            if not found:
                known = " and ".join(_EXPOSURES)
                raise InputError.at(ref.label, f"its exposure is not known (by headers of {known})", "see --group-by")
            return found
    keys = [key.strip() for key in by.split(",")]
    values = {key: keywords.text(key) for key in keys}
    missing = [key for key in keys if not values[key]]
    if missing:
        raise InputError.at(ref.label, f"there is no {missing[0]} in its header", "see --group-by")
    return ",".join(values.values())


def exposure_of(keywords: Keywords) -> str:
    """Return the exposure of an image and its filter; "" if the header names none."""
    keys = _EXPOSURES.get(keywords.text("TELESCOP").upper(), ())
    values = [keywords.text(key) for key in keys]
    if not values or not all(values):
        return ""
    bands = [band for key in _BANDS if (band := keywords.text(key))]
    return " ".join(["-".join(values), *bands])
