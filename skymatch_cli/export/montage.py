"""Montage: skies as the table of corrections that mBgExec and mBackground subtract."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from skymatch_cli.errors import InputError, Problem
from skymatch_cli.model import ImageInfo

_PROJECTED = re.compile(r"hdu(\d+)_(.+)", re.DOTALL)  # the files that mProjExec writes
_WIDTH = 25


def corrections(images_tbl: str, skies: Sequence[tuple[ImageInfo, float]]) -> str:
    """The table ``| id | a | b | c |`` of planes ``a x + b y + c``, here constants, of the images of a table of mImgtbl.

    InputError if the table can't be read, or if an image is missing or listed twice.
    """
    known = {(PurePath(info.ref.file).name, info.ref.hdu): (info, sky) for info, sky in skies}
    found: dict[tuple[str, int], int] = {}
    problems = []
    for cntr, fname, hdu in _rows(images_tbl):
        key = next((key for key in _keys(fname, hdu) if key in known), None)
        if key is None:
            problems.append(Problem(images_tbl, f"its image {fname} is not in the result", "match all its images"))
        elif key in found:
            problems.append(Problem(images_tbl, f"lists {known[key][0].ref.label} twice"))
        else:
            found[key] = cntr
    problems += [Problem(i.ref.label, f"is not in {images_tbl}") for key, (i, _) in known.items() if key not in found]
    repeated = [c for c, n in Counter(found.values()).items() if n > 1]
    problems += [Problem(images_tbl, f"cntr {c} stands for several images", "make it with mImgtbl") for c in repeated]
    if len(known) < len(skies):
        problems.append(Problem(images_tbl, "two images of the result have the same file name", "rename one"))
    if problems:
        raise InputError(problems)
    rows = sorted((cntr, 0.0, 0.0, known[key][1]) for key, cntr in found.items())
    head = "|" + "|".join(name.center(_WIDTH) for name in ("id", "a", "b", "c")) + "|\n"
    types = "|" + "|".join(name.center(_WIDTH) for name in ("int", "double", "double", "double")) + "|\n"
    lines = (" " + " ".join(str(v).rjust(_WIDTH) for v in row) + "\n" for row in rows)
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
        raise InputError.at(images_tbl, f"is not an mImgtbl table: {error}", "make it with mImgtbl") from None


def _keys(fname: str, hdu: int) -> list[tuple[str, int]]:
    """The images that a file of the table may stand for: itself, or the HDU that mProjExec made it of."""
    name = PurePath(fname).name
    keys = [(name, hdu)]
    if projected := _PROJECTED.fullmatch(name):
        keys.append((projected[2], int(projected[1])))
    return keys
