"""A stored result, read back: the tables from its file, the images from where they were."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from skymatch_cli.choices import TableName
from skymatch_cli.errors import InputError, reason
from skymatch_cli.images.image import read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.model import ImageInfo, ImageRef, SkyWarning
from skymatch_cli.model.section import part_text
from skymatch_cli.output.tables import COLUMNS, OPTIONAL, SCHEMA, Report, Table, make_table, with_units
from skymatch_cli.settings import Settings

_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt])")  # what `ascii_only` writes
_HINT = "name a file that `skymatch match -o` wrote: .fits or .json"


def read_report(file: str) -> Report:
    """Read a result in FITS or JSON; InputError if there is none with the layout of this version."""
    readers: dict[str, Callable[[str], Mapping[str, Any]]] = {".json": _read_json, ".fits": _read_fits}
    reader = readers.get(Path(file).suffix.lower())
    if reader is None:
        raise InputError.at(file, "is not a .fits or .json result", _HINT)
    try:
        document = reader(file)
        schema = document["schema"]
        if schema != SCHEMA:
            raise InputError.at(file, f"has layout {schema!r:.40}, not {SCHEMA}", "make the result again")
        return _report(document)
    except FileNotFoundError:
        raise InputError.at(file, "no such file") from None
    except OSError as error:
        raise InputError.at(file, f"can't be read: {error.strerror or error}") from None
    except KeyError:
        raise InputError.at(file, "is not a result of skymatch", _HINT) from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError.at(file, f"is not a result of skymatch: {error}", _HINT) from None


def read_images(report: Report) -> tuple[ImageInfo, ...]:
    """Read the headers of the images of a stored result, in its order.

    InputError if one of them isn't where the result says, or is another image now.
    """
    columns = (report.images.column(name).tolist() for name in ("file", "ext", "extver"))
    sections = _column(report.images, "section", "")
    hdus = [
        f"{f}[{e}]{s}" if str(e).isdecimal() else f"{f}[{e},{v}]{s}"
        for f, e, v, s in zip(*columns, sections, strict=True)
    ]
    names = tuple(dict.fromkeys(hdus))  # planes of a cube are of one HDU
    settings = Settings.of(report.settings)
    inputs = resolve_images(names, settings=settings)
    infos, problems, *_ = read_infos(inputs, settings, need_wcs=settings.method != "user")
    if inputs.problems or problems:
        raise InputError((*inputs.problems, *problems))
    if tuple(info.ref.label for info in infos) != report.labels:
        raise InputError.at("images", "are not those of the result", "run in the folder where the result was made")
    return infos


def _read_json(file: str) -> Mapping[str, Any]:
    document = json.loads(Path(file).read_text(encoding="utf-8", errors="surrogateescape"))
    if not isinstance(document, dict):
        raise TypeError("no object in it")
    return document


def _read_fits(file: str) -> Mapping[str, Any]:
    from astropy.io.fits import VerifyError

    try:
        return _fits_document(file)
    except VerifyError as error:
        raise ValueError(reason(error)) from None


def _fits_document(file: str) -> Mapping[str, Any]:
    from astropy.io import fits

    with fits.open(file, memmap=False) as hdus:
        header = hdus[0].header
        document: dict[str, Any] = {
            "schema": header["SCHEMA"],
            "version": re.sub("^skymatch ", "", header["CREATOR"]),
            "settings": json.loads(header["SETTINGS"]),
            "warnings": [json.loads(header[f"WARN{k}"]) for k in range(1, header["NWARN"] + 1)],
        }
        for name in TableName:
            data = hdus[name.upper()].data
            columns = [np.char.strip(c) if (c := data[n]).dtype.kind == "U" else c for n in data.names]
            rows = zip(*(c.tolist() for c in columns), strict=True)
            document[name] = [dict(zip(data.names, row, strict=True)) for row in rows]
    for image in document[TableName.IMAGES]:
        image["file"], image["group"] = _file_name(image["file"]), _file_name(image["group"])
    return document


def _file_name(text: str) -> str:
    """The name of a file that is written with escapes, FITS having no other letters; unless it is its name."""
    if not _ESCAPE.search(text) or Path(text).exists():
        return text
    name = _ESCAPE.sub(lambda found: found[0].encode().decode("unicode_escape"), text)
    return name if Path(name).exists() else text


def _report(document: Mapping[str, Any]) -> Report:
    images, overlaps, components = (_table(name, document[name]) for name in TableName)
    named = [images.column(name).tolist() for name in ("file", "ext", "extver")]
    parts = _column(images, "plane", 0), _column(images, "section", "")
    report = Report(
        version=str(document["version"]),
        settings=dict(document["settings"]),
        images=images,
        overlaps=overlaps,
        components=components,
        labels=tuple(starmap(_label, zip(*named, *parts, strict=True))),
        warnings=tuple(map(SkyWarning.of, document["warnings"])),
    )
    for end in ("a", "b"):
        if not all(0 <= i < len(images) for i in overlaps.column(end)):
            raise ValueError("an overlap names an image that isn't there")
    return report


def _table(name: TableName, rows: Sequence[Mapping[str, Any]]) -> Table:
    values: dict[str, list[Any]] = {}
    for column, (kind, _) in COLUMNS[name].items():
        if column in OPTIONAL and not any(column in row for row in rows):
            continue
        found = [row[column] for row in rows]
        if kind is float:
            found = [math.nan if value is None else float(value) for value in found]
        elif kind is str and not all(isinstance(value, str) for value in found):
            raise TypeError(f"column {column} is not text")
        values[column] = found
    return with_units(make_table(name, values))


def _column(images: Table, name: str, otherwise: object) -> list[Any]:
    """A column of the images that only some results have."""
    found: list[Any] = images.column(name).tolist() if name in images.names else [otherwise] * len(images)
    return found


def _label(file: str, ext: str, extver: int, plane: int, section: str) -> str:
    hdu = ImageRef(file, file, int(ext) if ext.isdecimal() else 0, "" if ext.isdecimal() else ext, extver)
    return f"{hdu.hdu_label}{part_text(plane, section)}"
