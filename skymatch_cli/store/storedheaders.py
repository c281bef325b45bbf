"""What was read from headers as tables, and back.

=======  ======================================================================================================
FILES    each file: its real path, size and time, and its HDUs (JSON); and once the rules by which headers were read
HEADERS  each image: its unit, its band (JSON), and its footprint (vectors of 8-byte floats), in the order of DETAILS
=======  ======================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from skymatch_cli.images.bands import BandKeywords
from skymatch_cli.images.formats.fitsfile import FitsFile
from skymatch_cli.images.known import Headers, ImageHeader
from skymatch_cli.images.units import UnitFacts
from skymatch_cli.model import ImageInfo
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.store.plainvalue import from_plain, packed, to_plain
from skymatch_cli.store.storedtables import Columns, StoredTable, in_blocks

_AT_A_TIME = 256  # images or files that are made into rows


@dataclass(frozen=True, slots=True)
class _Row:
    """An `ImageHeader` without what DETAILS holds."""

    facts: UnitFacts
    bands: BandKeywords
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    footprint: Footprint


def header_tables(headers: Headers) -> tuple[StoredTable, ...]:
    """The tables FILES and HEADERS; all images have a footprint, as those of a plan do."""
    images = [(image, image.footprint) for image in headers.images if isinstance(image.footprint, Footprint)]
    files = list(headers.files.items())
    return (
        StoredTable("FILES", len(files), in_blocks(len(files), _AT_A_TIME, partial(_files, headers, files))),
        StoredTable(
            "HEADERS", len(images), in_blocks(len(images), _AT_A_TIME, lambda low, high: _headers(images[low:high]))
        ),
    )


def _files(headers: Headers, files: Sequence[tuple[str, FitsFile]], low: int, high: int) -> Columns:
    return {
        "file": [packed({"real": real, **to_plain(file)}) for real, file in files[low:high]],
        "rules": [headers.rules.encode() if k == 0 else b"" for k in range(low, high)],
    }


def _headers(images: Sequence[tuple[ImageHeader, Footprint]]) -> Columns:
    facts, content = [], []
    for image, footprint in images:
        arrays: list[bytes] = []
        row = _Row(image.facts, image.bands, image.warnings, image.info.notes, footprint)
        facts.append(packed(to_plain(row, arrays)))
        content.append(b"".join(arrays))
    return {"facts": facts, "content": content}


def read_headers(tables: Mapping[str, Mapping[str, Any]], infos: Sequence[ImageInfo]) -> Headers:
    """The headers that `header_tables` was given; ``infos`` are those of DETAILS.

    Raises
    ------
    KeyError, ValueError
        If these are other tables.
    """
    kept = tables["FILES"]
    files = list(map(json.loads, kept["file"]))
    rows = zip(infos, tables["HEADERS"]["facts"], tables["HEADERS"]["content"], strict=True)
    return Headers(
        rules=kept["rules"][0].decode() if files else "",
        files={file["real"]: from_plain(FitsFile, file) for file in files},
        images=tuple(_image(info, from_plain(_Row, json.loads(text), content)) for info, text, content in rows),
    )


def _image(info: ImageInfo, row: _Row) -> ImageHeader:
    alone = replace(info, to_comparison=1.0, comparison_unit="", notes=row.notes)
    return ImageHeader(alone, row.facts, row.bands, row.warnings, row.footprint)
