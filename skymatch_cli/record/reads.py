"""Everything that a run reads: no writer may replace any of it, under whatever name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from skymatch_cli.images.formats.files import is_remote, real_path
from skymatch_cli.images.lists import read_list
from skymatch_cli.images.names import file_of
from skymatch_cli.model import ImageInfo
from skymatch_cli.settings import Settings


class FilesRead:
    """A set of files by device and inode: all links lead to the same file. What isn't there, and URLs, are left out."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._known = {place for path in dict.fromkeys(paths) if (place := place_of(path)) is not None}

    def __contains__(self, path: str) -> bool:
        place = place_of(path)
        return place is not None and place in self._known


def files_read(infos: Iterable[ImageInfo], settings: Settings, others: Iterable[str] = ()) -> FilesRead:
    """Everything that a run with these images and settings reads, and ``others``: lists, configuration, results."""
    return FilesRead([*others, *files_of_images(infos), *_named(settings)])


def files_of_images(infos: Iterable[ImageInfo]) -> Iterator[str]:
    """Return the files of images and of their planes; consecutive images of one file give it once."""
    last = ""
    for info in infos:
        if info.ref.path != last:
            yield (last := info.ref.path)
        if info.ref.mask is not None:
            yield info.ref.mask.path
        yield from (plane.path for plane in info.source.planes.values() if plane.path != last)


def _named(settings: Settings) -> Iterator[str]:
    if settings.skylist not in {None, "-"}:
        yield str(settings.skylist)
    if settings.reference is not None:
        try:
            yield file_of(settings.reference)
        except ValueError:
            return


def lists_among(names: Iterable[str]) -> Iterator[str]:
    """Return the list files that ``@list`` names, and those named in them."""
    waiting, seen = [name[1:] for name in names if name.startswith("@")], set()
    while waiting:
        file = waiting.pop()
        if (path := real_path(file)) in seen:
            continue
        seen.add(path)
        yield file
        if Path(file).is_fifo():
            continue
        try:
            lines = read_list(file).splitlines()
        except (OSError, ValueError):
            continue
        folder = Path(file).parent
        waiting += [str(folder / line.strip()[1:]) for line in lines if line.strip().startswith("@")]


def place_of(path: str) -> tuple[int, int] | None:
    """Return what all names of one file have in common; None where it isn't there."""
    if is_remote(path) or "\0" in path:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - of thousands of inputs; a Path for each takes longer
    except OSError:
        return None
    return found.st_dev, found.st_ino
