"""The files of a run: all that it reads, which no writer may replace, and those that it writes, and why it may not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import base_name, is_remote, real_path
from skymatch_cli.images.lists import read_list
from skymatch_cli.images.names import file_of
from skymatch_cli.model import FileState, ImageInfo, ImageRef
from skymatch_cli.record import disk
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


COPIES = "write copies with --output-dir"


@dataclass(frozen=True, slots=True)
class FileJob:
    """One file: its name, source and target, its ``images`` (indices of the caller) and their HDUs."""

    label: str
    source: str
    target: str
    images: tuple[int, ...]
    hdus: tuple[int, ...]
    state: FileState | None

    @property
    def in_place(self) -> bool:
        """Whether the file itself is replaced, and no copy is written."""
        return self.source == self.target

    def name(self, hdu: int) -> str:
        """Return an HDU of the file, for messages."""
        return f"{self.label}[{hdu}]" if hdu else self.label


def file_jobs(refs: Sequence[ImageRef], states: Sequence[FileState | None], settings: Settings) -> tuple[FileJob, ...]:
    """Make one job per file, in the order of the names; links are followed."""
    images: dict[str, list[int]] = {}
    for i, ref in enumerate(refs):
        images.setdefault(real_path(ref.path), []).append(i)
    jobs = []
    for source, indices in images.items():
        first = refs[indices[0]]
        target = source
        if settings.output_dir is not None:
            target = str(Path(os.path.realpath(settings.output_dir), base_name(first.path)))
        known = [state for i in indices if (state := states[i]) is not None]
        hdus = tuple(refs[i].hdu for i in indices)
        jobs.append(FileJob(first.file, source, target, tuple(indices), hdus, known[0] if known else None))
    return tuple(jobs)


def why_fixed(path: str) -> str:
    """Say why a file can't be replaced, or its replacement would be another user's or group's; "" where it can."""
    file, me = Path(path), os.geteuid()
    if not file.exists():
        return "remote files are not changed" if is_remote(path) else ""
    if not os.access(path, os.W_OK):
        return "is read-only"
    if not os.access(file.parent, os.W_OK | os.X_OK):
        return "its folder is read-only"
    if me and file.stat().st_uid != me:
        return "belongs to another user: the file that replaces it would be yours"
    if me and file.stat().st_gid not in {os.getegid(), *os.getgroups()}:
        return "belongs to a group that you are not in: the file that replaces it could not be given to it"
    return disk.obstacle(path)


def check_copy(job: FileJob, settings: Settings) -> None:
    """Refuse a copy that can't be written (InputError)."""
    folder = Path(job.target).parent
    if job.in_place:
        raise InputError.at(job.label, "--output-dir is the folder of the file itself", "name another folder")
    if folder.exists() and not folder.is_dir():
        raise InputError.at(str(settings.output_dir), "is not a folder", "name another --output-dir")
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError.at(str(settings.output_dir), "can't be written to", "name another --output-dir")
    if Path(job.target).is_dir():
        raise InputError.at(job.label, f"its copy {job.target} is a folder")
    if os.path.lexists(job.target) and not settings.overwrite:
        raise InputError.at(job.label, f"its copy {job.target} exists", "use --overwrite")
    if what := disk.obstacle(job.target):
        raise InputError.at(job.label, f"its copy {job.target} {what}", "name another --output-dir")
