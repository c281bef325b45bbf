"""Montage: skies as the table of planes that mBgExec and mBackground subtract."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from skymatch_cli.errors import InputError, Problem
from skymatch_cli.model import ImageInfo
from skymatch_cli.model.skyplane import SkyPlane

_PROJECTED = re.compile(r"hdu(\d+)_(.+)", re.DOTALL)  # the files that mProjExec writes
_WIDTH = 25


def corrections(images_tbl: str, skies: Sequence[tuple[ImageInfo, SkyPlane]]) -> str:
    """The table ``| id | a | b | c |`` of planes ``a x + b y + c``, for the images of a table of mImgtbl.

    InputError if the table can't be read, or if an image is missing or listed twice.
    """
    known = {(PurePath(info.ref.file).name, info.ref.hdu): (info, sky) for info, sky in skies}
    found: dict[tuple[str, int], tuple[int, Any]] = {}
    problems = []
    for cntr, fname, hdu, row in _rows(images_tbl):
        key = next((key for key in _keys(fname, hdu) if key in known), None)
        if key is None:
            problems.append(Problem(images_tbl, f"its image {fname} is not in the result", "match all its images"))
        elif key in found:
            problems.append(Problem(images_tbl, f"lists {known[key][0].ref.label} twice"))
        else:
            found[key] = cntr, row
    problems += [Problem(i.ref.label, f"is not in {images_tbl}") for key, (i, _) in known.items() if key not in found]
    repeated = [c for c, n in Counter(cntr for cntr, _ in found.values()).items() if n > 1]
    problems += [Problem(images_tbl, f"cntr {c} stands for several images", "make it with mImgtbl") for c in repeated]
    if len(known) < len(skies):
        problems.append(Problem(images_tbl, "two images of the result have the same file name", "rename one"))
    if problems:
        raise InputError(problems)
    rows = sorted((cntr, *_coefficients(*known[key], row, images_tbl)) for key, (cntr, row) in found.items())
    head = "|" + "|".join(name.center(_WIDTH) for name in ("id", "a", "b", "c")) + "|\n"
    types = "|" + "|".join(name.center(_WIDTH) for name in ("int", "double", "double", "double")) + "|\n"
    lines = (" " + " ".join(str(v).rjust(_WIDTH) for v in row) + "\n" for row in rows)
    return "".join((head, types, *lines))


def _coefficients(info: ImageInfo, sky: SkyPlane, row: Any, images_tbl: str) -> tuple[float, float, float]:
    try:
        return _plane_in(row, info, sky)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError.at(images_tbl, f"has no usable WCS for {info.ref.label}: {error}") from None


def _plane_in(row: Any, info: ImageInfo, sky: SkyPlane) -> tuple[float, float, float]:
    """(a, b, c) for the pixels of a row of the table, which may be another projection of the image.

    As in mBackground, x and y are 0-based pixel numbers minus CRPIX (which is 1-based).
    A tilt is carried over at the image's centre.
    """
    if sky.is_level or info.wcs is None:
        return 0.0, 0.0, sky.level
    from astropy.io import fits

    from skymatch_cli.sky.celestial import wcs_of_cards

    keys = ("ctype1", "ctype2", "crval1", "crval2", "crpix1", "crpix2", "cdelt1", "cdelt2", "crota2")
    cards = {key.upper(): value.item() if isinstance(value := row[key], np.generic) else value for key in keys}
    header = fits.Header({k: v.removesuffix("-SIP") if isinstance(v, str) else v for k, v in cards.items()})
    text = header.tostring(endcard=False, padding=False).encode("ascii")
    table_wcs = wcs_of_cards(text, (int(row["naxis2"]), int(row["naxis1"])), where=info.ref.label)
    ny, nx = info.shape
    middle = np.array([0.5 * (nx - 1)]), np.array([0.5 * (ny - 1)])
    x, y = table_wcs.to_pixel(info.wcs.to_sky(*middle))
    around = x + np.array([0.0, 1.0, -1.0, 0.0, 0.0]), y + np.array([0.0, 0.0, 0.0, 1.0, -1.0])
    value = sky.at(*info.wcs.to_pixel(table_wcs.to_sky(*around)), info.shape)
    a, b = float(value[1] - value[2]) / 2, float(value[3] - value[4]) / 2
    c = float(value[0]) + a * (cards["CRPIX1"] - float(x[0])) + b * (cards["CRPIX2"] - float(y[0]))
    return a, b, c


def _rows(images_tbl: str) -> list[tuple[int, str, int, Any]]:
    """``cntr``, ``fname``, HDU and the whole row of the images."""
    from astropy.io import ascii as astropy_ascii

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table: Any = astropy_ascii.read(images_tbl, format="ipac", guess=False)
        hdus = table["hdu"] if "hdu" in table.colnames else [0] * len(table)
        columns = (table["cntr"], table["fname"], hdus, table)
        return [(int(c), str(f), int(h), row) for c, f, h, row in zip(*columns, strict=True)]
    except FileNotFoundError:
        raise InputError.at(images_tbl, "no such file", "make it with mImgtbl") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError.at(images_tbl, f"is not an mImgtbl table: {error}", "make it with mImgtbl") from None


def _keys(fname: str, hdu: int) -> list[tuple[str, int]]:
    """The images that a file of the table may stand for: itself, or the HDU that mProjExec made it of."""
    name = PurePath(fname).name
    keys = [(name, hdu)]
    if projected := _PROJECTED.fullmatch(name):
        keys.append((projected[2], int(projected[1])))
    return keys
