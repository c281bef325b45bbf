"""The files that a run writes: where each comes from and goes to, and why it may not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import base_name, is_remote, real_path
from skymatch_cli.model import FileState, ImageRef
from skymatch_cli.record import disk
from skymatch_cli.settings import Settings

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
