"""Lists of images: text files, one a line; tables of comma-separated values; associations of JWST, Roman and HST."""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AnyStr

from skymatch_cli.errors import InputError, Problem

# Columns of a table, by the first name that is there. FILENAME, EXP_TYPE and BKGDTARG are those of JWST's pools.
_NAME = ("file", "filename", "path", "name", "expname", "image")
_MASK = ("mask",)
_GROUP = ("group_id", "group")
_KIND = ("exptype", "exp_type")
_BACKGROUND = ("bkgdtarg",)
_DELIMITERS = ",;|\t"
_TARGET_ACQUISITION = "_ta"  # in the exposure types of JWST: nrc_tacq, nrs_taconfirm
_MAX_COLUMNS = 2  # of a list without names of columns
_PIECE, _MOST_PIECES = 2**20, 256  # bytes: of a million names


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a list: a name, its mask ("" for none), its group, and why it is skipped ("" if it is used)."""

    where: str
    name: str
    mask: str = ""
    group: str = ""
    left_out: str = ""


def left_out_as(kind: str, of: str = "") -> str:
    """Return why an exposure of some kind is not used; "" for a science exposure."""
    kind = kind.lower()
    return "" if kind in {"", "science"} else f"{kind.replace('_', ' ')} exposure{of}"


def read_list(file: str) -> str:
    """Return the text of a list; OSError if it can't be read, ValueError if it is not text, or never ends."""
    with Path(file).open("rb") as stream:
        start = stream.read(2)
        if start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:  # as PowerShell writes it
            return (start + read_whole(stream.read, b"\0" * 4)).decode("utf-16")
        if b"\0" in start:
            raise ValueError("is not a list of names")
        return (start + read_whole(stream.read, b"\0")).decode("utf-8-sig", "surrogateescape")


def read_whole(read: Callable[[int], AnyStr], nul: AnyStr) -> AnyStr:
    """Return what a file, pipe or device holds; ValueError if that is not text (it holds a ``nul``), or never ends."""
    pieces = [read(_PIECE)]
    while pieces[-1]:
        if nul in pieces[-1]:
            raise ValueError("is not a list of names")
        if len(pieces) > _MOST_PIECES:
            raise ValueError("is longer than any list of names")
        pieces.append(read(_PIECE))
    return pieces[-1].join(pieces)


def is_table(name: str) -> bool:
    """Return whether a list is a table of comma-separated values, by its name."""
    return name.lower().endswith(".csv")


def read_entries(text: str, where: str, folder: str) -> Iterator[Listed | Problem]:
    """Read the entries of a list, whose names are relative to a folder: a table by its name, or lines."""
    return _read_table(text, where) if is_table(where) else _read_lines(text, where, Path(folder))


def _read_lines(text: str, where: str, folder: Path) -> Iterator[Listed | Problem]:
    """One name per line, an optional mask (after a comma or not), words quoted as in the shell, ``#`` comments."""
    for number, line in enumerate(text.splitlines(), start=1):
        place, whole = f"{where}, line {number}", line.strip()
        if " " in whole and os.path.lexists(folder / whole):
            yield Listed(place, whole)  # as `find` and `ls` write names with spaces
            continue
        try:
            columns = [name for word in words_of(line) if (name := word.rstrip(","))]
        except ValueError as error:
            yield Problem(place, str(error))
            continue
        if columns:
            yield _unnamed(place, columns, "quote names with spaces")


def _read_table(text: str, where: str) -> Iterator[Listed | Problem]:
    """The entries of a table with named columns, or of one whose columns are names and masks."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return
    delimiter = max(_DELIMITERS, key=lines[0].count)
    try:
        header, *rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    except csv.Error as error:
        yield Problem(where, f"can't be read as comma-separated values: {error}")
        return
    columns = [name.strip().lower() for name in header]
    if _value(dict.fromkeys(columns, "x"), _NAME):
        for number, row in enumerate(rows, start=1):
            yield _named(f"{where}, row {number}", dict(zip(columns, map(str.strip, row), strict=False)))
        return
    for number, row in enumerate([header, *rows], start=1):
        hint = f"name its columns in a first row: {_NAME[0]}, mask, group"
        yield _unnamed(f"{where}, row {number}", [word.strip() for word in row], hint)


def _unnamed(where: str, columns: list[str], hint: str) -> Listed | Problem:
    if len(columns) > _MAX_COLUMNS:
        return Problem(where, "has more than a name and a mask", hint)
    return Listed(where, *columns)


def _named(where: str, row: dict[str, str]) -> Listed | Problem:
    name = _value(row, _NAME)
    if not name:
        return Problem(where, "names no image")
    if row.get("ext") and row.get("extver"):  # a result of this program
        name += f"[{row['ext']},{row['extver']}]"
    kind = _value(row, _KIND).lower()
    if _value(row, _BACKGROUND).lower() in {"t", "true", "1"}:
        kind = "background"
    elif _TARGET_ACQUISITION in kind:
        kind = "target_acquisition"
    elif "_" in kind:  # NRC_IMAGE and the like
        kind = ""
    return Listed(where, name, _value(row, _MASK), _value(row, _GROUP), left_out_as(kind))


def _value(row: dict[str, str], names: tuple[str, ...]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def words_of(line: str) -> list[str]:
    """Split a line as the shell would; a word that begins with # starts a comment."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        for word in lexer:
            if word.startswith("#"):
                break
            words.append(word)
    except ValueError as error:
        if not lexer.token.startswith("#"):  # an apostrophe in a comment quotes nothing
            raise ValueError(f"{error}".lower()) from None
    return words


_ASSOCIATION = re.compile(r"(_asn\.json|_asn\.fits(\.gz)?)$", re.IGNORECASE)
_PRODUCTS_OF_HST = ("flc", "flt", "c0m", "raw")  # the first that is there


def is_association(name: str) -> bool:
    """Return whether a name is that of an association."""
    return bool(_ASSOCIATION.search(name))


def members(path: str) -> tuple[Listed, ...]:
    """Read the members of an association, their paths relative to its file; InputError if it names none to use."""
    try:
        found = tuple(_of_json(path) if path.lower().endswith(".json") else _of_table(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError.at(path, f"can't be read as an association: {error}") from None
    if not any(not member.left_out for member in found):
        raise InputError.at(path, "names no science exposure")
    return found


def _of_json(path: str) -> Iterator[Listed]:
    folder = Path(path).parent
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    for product in document["products"]:
        for member in product["members"]:
            left_out = left_out_as(str(member.get("exptype") or ""), " of the association")
            yield Listed(path, str(folder / str(member["expname"])), "", str(member.get("group_id") or ""), left_out)


def _of_table(path: str) -> Iterator[Listed]:
    from astropy.io import fits

    folder = Path(path).parent
    with fits.open(path) as hdus:
        table: Any = next(hdu.data for hdu in hdus if hdu.data is not None and "MEMNAME" in hdu.columns.names)
        rows = [(str(row["MEMNAME"]).strip(), str(row["MEMTYPE"]).strip(), bool(row["MEMPRSNT"])) for row in table]
    for name, kind, present in rows:
        if kind.startswith("EXP") and present:
            yield Listed(path, str(_exposure(folder, name.lower())))


def _exposure(folder: Path, root: str) -> Path:
    places = [folder / f"{root}_{product}.fits" for product in _PRODUCTS_OF_HST]
    return next((place for place in places if place.exists()), places[1])
