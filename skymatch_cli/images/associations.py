"""Associations: lists of exposures of JWST, Roman (``_asn.json``) and HST (``_asn.fits``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skymatch_cli.errors import InputError
from skymatch_cli.images.lists import left_out_as

_ASSOCIATION = re.compile(r"(_asn\.json|_asn\.fits(\.gz)?)$", re.IGNORECASE)
_PRODUCTS_OF_HST = ("flc", "flt", "c0m", "raw")  # the first that is there


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an association: its file, its group, and why it is skipped ("" if it is used)."""

    file: str
    group: str = ""
    left_out: str = ""


def is_association(name: str) -> bool:
    """Whether a name is that of an association."""
    return bool(_ASSOCIATION.search(name))


def members(path: str, where: str) -> tuple[Member, ...]:
    """The members of an association, with paths relative to the file itself.

    InputError if the file can't be read as an association, or names no science exposure.
    """
    try:
        found = tuple(_of_json(path) if path.lower().endswith(".json") else _of_table(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError.at(where, f"can't be read as an association: {error}") from None
    if not any(not member.left_out for member in found):
        raise InputError.at(where, "names no science exposure")
    return found


def _of_json(path: str) -> Iterator[Member]:
    folder = Path(path).parent
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    for product in document["products"]:
        for member in product["members"]:
            kind = left_out_as(str(member.get("exptype") or ""))
            left_out = f"{kind} of the association" if kind else ""
            yield Member(str(folder / str(member["expname"])), str(member.get("group_id") or ""), left_out)


def _of_table(path: str) -> Iterator[Member]:
    from astropy.io import fits

    folder = Path(path).parent
    with fits.open(path) as hdus:
        table: Any = next(hdu.data for hdu in hdus if hdu.data is not None and "MEMNAME" in hdu.columns.names)
        rows = [(str(row["MEMNAME"]).strip(), str(row["MEMTYPE"]).strip(), bool(row["MEMPRSNT"])) for row in table]
    for name, kind, present in rows:
        if kind.startswith("EXP") and present:
            yield Member(str(_exposure(folder, name.lower())))


def _exposure(folder: Path, root: str) -> Path:
    """The calibrated exposure of a root name."""
    places = [folder / f"{root}_{product}.fits" for product in _PRODUCTS_OF_HST]
    return next((place for place in places if place.exists()), places[1])
