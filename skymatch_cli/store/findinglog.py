"""What is found while images are measured, in a file beside the measurement: memory holds a few findings at a time.

The file grows by a block of columns whenever some findings have come together. A run that was killed leaves it, cut in
the midst of its last block or not; the next run takes over what it holds (`read_log`), into a file of its own.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from skymatch_cli.compare.mesh.cells import MeshGrid
from skymatch_cli.compare.pooled import ImageMeasurement
from skymatch_cli.errors import InputError, SkymatchError
from skymatch_cli.model import IntArray, TangentPlane
from skymatch_cli.settings import Settings
from skymatch_cli.store.columnfile import columns_in, write_columns
from skymatch_cli.store.columns import from_columns, to_columns
from skymatch_cli.store.findings import Finding, Measured, image_keys
from skymatch_cli.store.kept import Kept, grids_of
from skymatch_cli.store.ondemand import OnDemand
from skymatch_cli.store.storedimages import infos_of, stored_details
from skymatch_cli.store.tablefile import FileBytes
from skymatch_cli.version import __version__

_MOST_FINDINGS, _MOST_BYTES, _MOST_S = 64, 2**19, 10.0  # of a block: what memory holds, and what a kill costs
_BLOCKS_HELD = 4
_IMAGES_AT_A_TIME = 64
_SIZE_BYTES = 8

_Part = TypeVar("_Part", "_Head", "_Images", "_Block")


def mode_of(path: Path) -> int:
    """Permissions of the file that is replaced, or those of any new file."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


@dataclass(frozen=True, slots=True, eq=False)
class _Head:
    """What the findings rest on, beside their images: the overlaps of all, and the settings (JSON)."""

    version: str
    settings: str
    n_images: int
    a: IntArray
    b: IntArray
    plane: IntArray
    planes: tuple[TangentPlane, ...]
    grids: tuple[MeshGrid, ...]


@dataclass(frozen=True, slots=True)
class _Images:
    """Some of the images, one after another, as they were (`stored_details`)."""

    details: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Findings of some images."""

    images: IntArray
    found: tuple[Finding, ...]


class FindingLog(OnDemand["Finding | None"]):
    """Findings of images in a file, for as long as it takes to measure them (see `Findings`).

    Parameters
    ----------
    file : str or None
        It replaces what is there; None: a file without a name, for this run alone.
    start : Measured
        What is measured.
    known : iterable of (int, Finding)
        What is known already of some images: it is in the file before the file replaces another.

    Raises
    ------
    SkymatchError
        If it can't be written; also later.
    """

    def __init__(self, file: str | None, start: Measured, known: Iterable[tuple[int, Finding]]) -> None:
        graph, settings = start.graph, start.settings
        head = _Head(
            version=__version__,
            settings=json.dumps(settings.determining()),
            n_images=len(start.infos),
            a=graph.a,
            b=graph.b,
            plane=graph.plane,
            planes=graph.planes,
            grids=grids_of(start.infos, graph, settings),
        )
        self._file = file
        self._waiting: dict[int, Finding] = {}
        self._waiting_bytes, self._written, self._end = 0, time.monotonic(), 0
        with self._writing():
            folder = None if file is None else Path(file).absolute().parent
            fd, temporary = tempfile.mkstemp(prefix=".skymatch-", dir=folder)
            os.fchmod(fd, mode_of(Path(file or temporary)))
        self._content = FileBytes(fd)
        self._logged = _Logged(self._content, len(start.infos))
        try:
            self._append(head)
            for low in range(0, len(start.infos), _IMAGES_AT_A_TIME):
                self._append(_Images(tuple(stored_details(start.infos, low, low + _IMAGES_AT_A_TIME))))
            for image, finding in known:
                self.put(image, finding)
            self.flush()
            if file is not None:
                with self._writing():
                    self._content.sync()
                    Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._logged)

    def _made(self, i: int) -> Finding | None:
        return self._waiting.get(i) or self._logged[i]

    def put(self, image: int, finding: Finding) -> None:
        """Take a finding; it replaces an earlier one of the image."""
        self._waiting[image] = finding
        self._waiting_bytes += _size(finding)
        late = time.monotonic() - self._written > _MOST_S
        if late or len(self._waiting) >= _MOST_FINDINGS or self._waiting_bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a block: it is there for the next run, whatever happens to this one."""
        if not self._waiting:
            return
        images = np.array(list(self._waiting), np.int64)
        place = self._append(_Block(images, tuple(self._waiting.values())))
        self._logged.add(images, place)
        self._waiting.clear()
        self._waiting_bytes, self._written = 0, time.monotonic()

    def all(self) -> Sequence[Finding | None]:
        """The findings of all images: they stay where they are."""
        return self

    def _append(self, what: _Head | _Images | _Block) -> tuple[int, int]:
        """Write columns after their size; where they begin, and this size."""
        content = io.BytesIO()
        write_columns(to_columns(what, {}), content)
        size, begin = content.tell(), self._end + _SIZE_BYTES
        with self._writing():  # over what an interruption may have left half written
            self._content.write(size.to_bytes(_SIZE_BYTES, "little") + content.getvalue(), self._end)
        self._end = begin + size
        return begin, size

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self._file or tempfile.gettempdir()
            what = f"{where} can't be written: {error.strerror or error}"
            raise SkymatchError(what, "see to that, then run again: what was measured is kept") from error


class _Logged(OnDemand["Finding | None"]):
    """The findings in the blocks of a log, of which the last that were asked for are held."""

    def __init__(self, content: FileBytes, n_images: int) -> None:
        self._content = content
        self._places: list[tuple[int, int]] = []
        self._block_of = np.full(n_images, -1, np.int32)
        self._held: OrderedDict[int, dict[int, Finding]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._block_of)

    def add(self, images: IntArray, place: tuple[int, int]) -> None:
        """A further block: the images in it, and where it begins with its size."""
        self._block_of[images] = len(self._places)
        self._places.append(place)

    def _made(self, i: int) -> Finding | None:
        block = int(self._block_of[i])
        return None if block < 0 else self._found(block)[i]

    def _found(self, block: int) -> dict[int, Finding]:
        """The findings of a block, by image."""
        if block not in self._held:
            read = _read(_Block, self._content, self._places[block])
            self._held[block] = dict(zip(read.images.tolist(), read.found, strict=True))
            if len(self._held) > _BLOCKS_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(block)
        return self._held[block]


def read_log(file: str) -> Kept | None:
    """What a run left in a log, up to where it was cut; None where it is of another version, or no log.

    Raises
    ------
    InputError
        If it can't be read.
    """
    try:
        content = FileBytes.of(file)
    except OSError as error:
        raise InputError.at(file, f"can't be read: {error.strerror or error}", "remove it to begin anew") from None
    places = _places(content)
    keys: list[bytes] = []
    try:
        head = _read(_Head, content, next(places))
        settings = Settings.of(json.loads(head.settings))
        while len(keys) < head.n_images:
            keys += image_keys(infos_of(_read(_Images, content, next(places)).details), settings)
    except Exception:  # noqa: BLE001 (whatever another file trips over)
        return None
    if head.version != __version__:
        return None
    logged = _Logged(content, head.n_images)
    with suppress(Exception):  # whatever a block trips over that was cut
        for place in places:
            images = _read(_Block, content, place).images
            if images.min(initial=0) < 0 or images.max(initial=0) >= head.n_images:
                break
            logged.add(images, place)
    return Kept(
        keys=tuple(keys),
        found=logged,
        a=head.a,
        b=head.b,
        plane=head.plane,
        planes=head.planes,
        grids=head.grids,
    )


def _read(cls: type[_Part], content: FileBytes, place: tuple[int, int]) -> _Part:
    """What begins at a place, and has a size."""
    at, size = place
    return from_columns(cls, columns_in(content.read(size, at)), {})


def _places(content: FileBytes) -> Iterator[tuple[int, int]]:
    """Where each of the columns of a log begin, and their size."""
    at = 0
    while at < content.size:
        size = int.from_bytes(content.read(_SIZE_BYTES, at), "little")
        yield at + _SIZE_BYTES, size
        at += _SIZE_BYTES + size


def _size(finding: Finding) -> int:
    """About how many bytes a finding holds."""
    if isinstance(finding, ImageMeasurement):
        return finding.blocks.nbytes
    return sum(4 * mesh.value.nbytes for mesh in finding.meshes.values())
