"""Images as a table, and back: each as the program knows it (JSON), and the cards of its WCS."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.gwcs import GwcsWcs
from skymatch_cli.model import ImageInfo
from skymatch_cli.sky.celestial import FitsWcs, LookupTable
from skymatch_cli.sky.frames import SkyFrame
from skymatch_cli.store.ondemand import OnDemand
from skymatch_cli.store.plainvalue import from_plain, packed, to_plain
from skymatch_cli.store.reading import Kind, reading
from skymatch_cli.store.storedtables import Columns, StoredTable, in_blocks
from skymatch_cli.store.tablefile import TableRows

_AT_A_TIME = 64  # images that are made into rows, or out of them


class StoredInfos(OnDemand[ImageInfo]):
    """The images of a file, made from its table DETAILS when they are asked for.

    Parameters
    ----------
    file : str
    kind : Kind
        What to say that it isn't, where it is damaged.
    tables : mapping of str to TableRows
        Of the file.

    Attributes
    ----------
    with_wcs : bool
    """

    def __init__(self, file: str, kind: Kind, tables: Mapping[str, TableRows]) -> None:
        self._file, self._kind, self._details, self._images = file, kind, tables["DETAILS"], tables["IMAGES"]
        self.with_wcs = "wcs" in self._details
        if self._images.n != self._details.n:
            raise ValueError("its tables have different images")

    def __len__(self) -> int:
        return self._details.n

    def _made(self, i: int) -> ImageInfo:
        return self._part(i, i + 1)[0]

    def __iter__(self) -> Iterator[ImageInfo]:
        for low in range(0, len(self), _AT_A_TIME):
            yield from self._part(low, min(low + _AT_A_TIME, len(self)))

    def details(self, low: int, high: int) -> list[bytes]:
        """What is said of some of them, as it stands in the table DETAILS."""
        with reading(self._file, self._kind):
            found: list[bytes] = self._details["detail"][low:high]
            return found

    def column(self, name: str) -> Any:
        """A column of the table IMAGES: numbers, or words as bytes (``S``)."""
        with reading(self._file, self._kind):
            return self._images.raw(name)

    def table(self) -> StoredTable:
        """The table DETAILS as it is."""

        def part(low: int, high: int) -> Columns:
            with reading(self._file, self._kind):
                return self._details.part(low, high)

        return StoredTable("DETAILS", len(self), in_blocks(len(self), self._details.rows_at_a_time, part))

    def _part(self, low: int, high: int) -> list[ImageInfo]:
        with reading(self._file, self._kind):
            rows = self._details.part(low, high)
            infos = infos_of(rows["detail"])
            if not self.with_wcs:
                return infos
            kept = zip(infos, rows["wcs"], rows["cards"], strict=True)
            return [replace(info, wcs=_wcs(info.shape, text, cards)) for info, text, cards in kept]


def stored_details(infos: Sequence[ImageInfo], low: int, high: int) -> list[bytes]:
    """What the table DETAILS says of the images from one to another, without their WCS."""
    return infos.details(low, high) if isinstance(infos, StoredInfos) else list(map(_detail, infos[low:high]))


def infos_of(details: Iterable[bytes]) -> list[ImageInfo]:
    """The images of `stored_details`, without their WCS."""
    return [from_plain(ImageInfo, json.loads(text)) for text in details]


def details_table(infos: Sequence[ImageInfo], *, with_wcs: bool) -> StoredTable:
    """The table DETAILS.

    Raises
    ------
    InputError
        If a WCS can't be kept in a file.
    """
    if isinstance(infos, StoredInfos) and infos.with_wcs == with_wcs:
        return infos.table()

    def rows(low: int, high: int) -> Columns:
        return _details(infos[low:high], with_wcs=with_wcs)

    return StoredTable("DETAILS", len(infos), in_blocks(len(infos), _AT_A_TIME, rows))


def _details(infos: Sequence[ImageInfo], *, with_wcs: bool) -> Columns:
    columns = {"detail": list(map(_detail, infos))}
    if with_wcs:
        columns["wcs"] = [_wcs_json(info) for info in infos]
        columns["cards"] = [getattr(info.wcs, "cards", b"") for info in infos]
    return columns


def _detail(info: ImageInfo) -> bytes:
    return packed(to_plain(replace(info, wcs=None)))


def _wcs_json(info: ImageInfo) -> bytes:
    wcs = info.wcs
    if wcs is None:
        return b""
    if isinstance(wcs, GwcsWcs):
        return packed({"gwcs": True, "frame": to_plain(wcs.frame)})
    if not isinstance(wcs, FitsWcs):
        raise InputError.at(info.ref.label, "its WCS can't be kept in a file", "use match, which needs none")
    return packed({"tables": to_plain(wcs.tables), "frame": to_plain(wcs.frame), "straight": wcs.straight})


def _wcs(shape: tuple[int, int], text: bytes, cards: bytes) -> FitsWcs | GwcsWcs | None:
    if not text:
        return None
    zlib.decompress(cards)  # its checksum: later nobody knows which file these came from
    plain: Mapping[str, Any] = json.loads(text)
    if "gwcs" in plain:
        return GwcsWcs(shape, cards, from_plain(SkyFrame, plain["frame"]))
    tables = tuple(None if t is None else from_plain(LookupTable, t) for t in plain["tables"])
    return FitsWcs(shape, cards, tables, from_plain(SkyFrame, plain["frame"]), plain["straight"])
