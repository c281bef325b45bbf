"""Montage: the skies as the plane corrections that mBgExec and mBackground subtract."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from skymatch_cli.errors import InputError, Problem

_PROJECTED = re.compile(r"hdu(\d+)_(.+)", re.DOTALL)  # how mProjExec names what it makes
_WIDTH = 25


def corrections(images_tbl: str, skies: Sequence[tuple[str, str, int, float]]) -> str:
    """The table ``| id | a | b | c |`` of planes ``a x + b y + c``.

    Parameters
    ----------
    images_tbl : str
        Table of mImgtbl, of the images themselves or of what mProjExec made of them; its ``cntr`` is ``id``.
    skies : sequence of (label, file name without folder, HDU, sky)

    Returns
    -------
    str

    Raises
    ------
    InputError
        If the table can't be read, or an image is missing in it or in the result, or is there twice.

    """
    known = {(name, hdu): (label, sky) for label, name, hdu, sky in skies}
    found: dict[tuple[str, int], int] = {}
    problems = []
    for cntr, fname, hdu in _rows(images_tbl):
        key = next((key for key in _keys(fname, hdu) if key in known), None)
        if key is None:
            problems.append(Problem(images_tbl, f"its image {fname} is not in the result", "match all its images"))
        elif key in found:
            problems.append(Problem(images_tbl, f"the image {known[key][0]} is in it twice"))
        else:
            found[key] = cntr
    problems += [Problem(label, f"is not in {images_tbl}") for key, (label, _) in known.items() if key not in found]
    if len(known) < len(skies):
        problems.append(Problem(images_tbl, "two images of the result have the same file name", "rename one"))
    if problems:
        raise InputError(problems)
    rows = sorted((cntr, known[key][1]) for key, cntr in found.items())
    head = "|" + "|".join(name.center(_WIDTH) for name in ("id", "a", "b", "c")) + "|\n"
    types = "|" + "|".join(name.center(_WIDTH) for name in ("int", "double", "double", "double")) + "|\n"
    lines = (" " + " ".join(str(v).rjust(_WIDTH) for v in (cntr, 0.0, 0.0, sky)) + "\n" for cntr, sky in rows)
    return "".join((head, types, *lines))


def _rows(images_tbl: str) -> list[tuple[int, str, int]]:
    """``cntr``, ``fname`` and HDU of the images."""
    from astropy.io import ascii as astropy_ascii

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table: Any = astropy_ascii.read(images_tbl, format="ipac", guess=False)
        hdus = table["hdu"] if "hdu" in table.colnames else [0] * len(table)
        return [(int(c), str(f), int(h)) for c, f, h in zip(table["cntr"], table["fname"], hdus, strict=True)]
    except FileNotFoundError:
        raise InputError.at(images_tbl, "no such file", "make it with mImgtbl") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError.at(images_tbl, f"is no table of images: {error}", "make it with mImgtbl") from None


def _keys(fname: str, hdu: int) -> list[tuple[str, int]]:
    """What a file of the table may be: the image itself, or what mProjExec made of one of its HDUs."""
    name = PurePath(fname).name
    keys = [(name, hdu)]
    if projected := _PROJECTED.fullmatch(name):
        keys.append((projected[2], int(projected[1])))
    return keys
