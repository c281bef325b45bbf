"""Record skies in FITS headers, subtract them from the pixels, and undo both: the only writer of FITS images.

Each file is replaced whole, with all its images at once. What is written depends on the original file and the
sky alone (see `ledger`), so a run that was interrupted is finished by running it again.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import InputError, Problem, StoppedError, plural
from skymatch_cli.images.formats.files import file_state, is_remote, real_path
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.pixelformat import PixelError
from skymatch_cli.images.formats.source import Source, open_source
from skymatch_cli.model import FileState, ImageInfo, ImageRef, Journal, SkyWarning
from skymatch_cli.record.atomic import Locks, locked, replacement
from skymatch_cli.record.edits import SkyUpdate, record_edits, settled
from skymatch_cli.record.files import (
    COPIES,
    FileJob,
    FilesRead,
    check_copy,
    file_jobs,
    files_read,
    place_of,
    why_fixed,
)
from skymatch_cli.record.journal import journal_path, kept
from skymatch_cli.record.precision import PixelFacts, examine
from skymatch_cli.record.rewrite import HduEdit, rewrite
from skymatch_cli.record.undoedits import undo_edits
from skymatch_cli.run.tasks import NO_PROGRESS, Progress
from skymatch_cli.settings import Settings

_Edits = Mapping[int, HduEdit]
_HINTS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, then run again")
_HINTS |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), COPIES)


class Action(StrEnum):
    """What happened to an image."""

    RECORDED = "recorded"
    SUBTRACTED = "subtracted"
    UNDONE = "undone"
    UNCHANGED = "unchanged"  # it already held this sky
    NO_SKY = "no_sky"


@dataclass(frozen=True, slots=True)
class WriteReport:
    """Changes to the images, and the files that hold them."""

    actions: tuple[Action, ...]  # one for each image, in the order in which they were given
    files: tuple[str, ...]  # the files that were replaced or made
    notes: tuple[str, ...] = ()  # what the user should know
    warnings: tuple[SkyWarning, ...] = ()  # what was wrong with files before the run, and still is
    keywords: tuple[str, ...] = ("BKGLEVEL",)  # those of the skies: of sections and planes with ``n`` for their number


def check_writable(updates: Sequence[SkyUpdate], settings: Settings) -> tuple[Problem, ...]:
    """Find everything that would stop `write_skies`, before a long measurement: headers are read, pixels are not."""
    return _problems(_recording(updates, settings, ()), with_pixels=False)


def write_skies(
    updates: Sequence[SkyUpdate],
    settings: Settings,
    *,
    journal: Journal | None = None,
    progress: Progress = NO_PROGRESS,
    named: Iterable[str] = (),
) -> WriteReport:
    """Record the skies in the headers and, with ``settings.subtract``, subtract them; file by file.

    InputError if a file can't be written. Found before the first file is touched wherever that is possible; every file
    is either the old one or the new one, and running again finishes the job.

    ``updates`` are all images of the run. Those whose sky is not finite are left alone; their files are copied all the
    same with ``settings.output_dir``. ``journal`` is left on the disk until all files are done. ``named`` are files
    that the run reads beside its images (lists, configuration): copies never replace them.
    """
    done = _run(_recording(updates, settings, named), journal, progress)
    if journal is not None and journal.write is None:
        done.notes.insert(0, "finished an interrupted run, with its measurements")
    what = Action.SUBTRACTED if settings.subtract else Action.RECORDED
    actions = tuple(
        (what if i in done.images else Action.UNCHANGED) if u.is_finite else Action.NO_SKY
        for i, u in enumerate(updates)
    )
    keywords = tuple(dict.fromkeys(_sky_keyword(u.ref, settings) for u in updates if u.is_finite))
    return WriteReport(actions, tuple(done.files), tuple(done.notes), tuple(done.warnings), keywords)


def _sky_keyword(ref: ImageRef, settings: Settings) -> str:
    """The keyword of the sky of an image; ``n`` stands for the number of a section or plane."""
    if ref.part.section is not None:
        return "BKGLEVn"
    return settings.sky_keyword if ref.part.plane is None else "BKGLn"


def undo(
    refs: Sequence[ImageRef], settings: Settings, *, from_keyword: bool = False, named: Iterable[str] = ()
) -> WriteReport:
    """Remove the recorded skies from images, and add subtracted ones back.

    The sky keywords come back as they were before the first run of the program; the pixels bit for bit where they were
    integer, within a thousandth of their noise where they were floats. Images in which nothing was recorded are left
    alone. InputError as `write_skies`; also if other programs changed pixels that this one wrote, or removed its undo
    cards (``from_keyword``: then the sky of the header is added back).
    """
    jobs = file_jobs(refs, [None] * len(refs), settings)

    def edits(source: Source, job: FileJob) -> _Edits:
        images = [refs[i] for i in job.images]
        return undo_edits(source, images, from_keyword=from_keyword, sky_keyword=settings.sky_keyword)

    done = _run(_Run(jobs, settings, edits, files_read((), settings, named), {}))
    actions = tuple(Action.UNDONE if i in done.images else Action.UNCHANGED for i in range(len(refs)))
    return WriteReport(actions, tuple(done.files), tuple(done.notes), tuple(done.warnings))


@dataclass(slots=True)
class _Run:
    """The files to write and how, with the facts of their pixels."""

    jobs: Sequence[FileJob]
    settings: Settings
    edits: Callable[[Source, FileJob], _Edits]
    reads: FilesRead
    infos: Mapping[tuple[str, int], Sequence[ImageInfo]]
    facts: dict[tuple[str, int], PixelFacts] = field(default_factory=dict)

    def settled(self, source: Source, job: FileJob) -> _Edits:
        """Make the edits of the HDUs of a file from their pixels, which are read only the first time."""
        changes = dict(self.edits(source, job))
        for index, edit in changes.items():
            if edit.record is None and edit.pixels is None and edit.expected is None:
                continue
            key = (job.source, index)
            if key not in self.facts:
                where = job.name(index)
                with _named_errors(where):
                    self.facts[key] = examine(
                        source, index, edit, where=where, infos=self.infos.get(key, ()), settings=self.settings
                    )
            changes[index] = settled(source, index, edit, self.facts[key])
        return changes


def _recording(updates: Sequence[SkyUpdate], settings: Settings, named: Iterable[str]) -> _Run:
    infos: dict[tuple[str, int], list[ImageInfo]] = {}
    for u in updates:
        if u.info is not None:
            infos.setdefault((real_path(u.ref.path), u.ref.hdu), []).append(u.info)

    def edits(source: Source, job: FileJob) -> _Edits:
        return record_edits(source, [updates[i] for i in job.images], settings)

    jobs = file_jobs([u.ref for u in updates], [u.state for u in updates], settings)
    return _Run(jobs, settings, edits, files_read(chain.from_iterable(infos.values()), settings, named), infos)


@dataclass(slots=True)
class _Done:
    """Changed images, written files, and warnings about them."""

    images: set[int] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[SkyWarning] = field(default_factory=list)


def _problems(run: _Run, *, with_pixels: bool) -> tuple[Problem, ...]:
    """Find all problems without writing; ``with_pixels``: read the pixels too."""
    found: list[Problem] = []
    targets: dict[str, str] = {}
    same: dict[object, str] = {}
    sources = FilesRead(job.source for job in run.jobs)
    for job in run.jobs:
        try:
            if run.settings.output_dir is None:
                if what := why_fixed(job.source):
                    raise InputError.at(job.label, what, COPIES)
                if (other := same.setdefault(place_of(job.source) or job.source, job.label)) != job.label:
                    raise InputError.at(job.label, f"is the same file as {other} (a hard link)", "name it once")
            else:
                check_copy(job, run.settings)
                if not Path(job.target).is_symlink() and (job.target in sources or job.target in run.reads):
                    what = f"its copy {job.target} would replace a file that this run reads"
                    raise InputError.at(job.label, what, "name another --output-dir")
                if (other := targets.setdefault(job.target, job.label)) != job.label:
                    raise InputError.at(job.label, f"its copy would overwrite that of {other}", "use two --output-dir")
            with _reading(job) as source:
                (run.settled if with_pixels else run.edits)(source, job)
        except InputError as error:
            found += error.problems
    return tuple(found)


def _run(run: _Run, journal: Journal | None = None, progress: Progress = NO_PROGRESS) -> _Done:
    settings = run.settings
    progress.stage("output", len(run.jobs))
    if problems := _problems(run, with_pixels=True):
        raise InputError(problems)
    done = _Done()
    if settings.dry_run:
        return done
    with _named_errors(str(settings.output_dir)):
        if settings.output_dir is not None:
            Path(settings.output_dir).mkdir(parents=True, exist_ok=True)
    journal = journal or Journal(journal_path(job.target for job in run.jobs), None)
    with (
        locked([*(job.target for job in run.jobs), journal.path]) as locks,
        _named_errors(journal.path),
        kept(journal, locks) as begin,
    ):
        for job in run.jobs:
            try:
                _write(run, job, locks, begin, done)
            except InputError as error:
                if not done.files:
                    raise
                again = "run again with --overwrite" if settings.output_dir is not None else "run again"
                raise StoppedError(error.problems, tuple(done.files), again) from error
            progress.advance()
        done.notes += (
            f"{folder}: its file system knows no locks: let one run at a time write here"
            for folder in sorted(locks.unlocked)
        )
    return done


def _write(run: _Run, job: FileJob, locks: Locks, begin: Callable[[], None], done: _Done) -> None:
    """Write one file unless it is unchanged; ``begin`` is called first."""
    with _reading(job) as source:
        changes = run.settled(source, job)
        if job.in_place and not changes:
            return
        begin()
        replaces: FileState | None = source.file.state
        if not job.in_place:
            replaces = file_state(job.target) if run.settings.overwrite and Path(job.target).exists() else None
        like = None if is_remote(job.source) else job.source
        n_links = Path(job.source).stat().st_nlink if job.in_place else 1
        with replacement(job.target, replaces, locks, like=like, exact=job.in_place) as new:
            wrong = rewrite(source, changes, new)
            if file_state(job.source) != source.file.state:
                raise InputError.at(job.label, "was changed while it was being read", "run again")
    if n_links > 1:
        links = f"{plural(n_links - 1, 'other name')} of this file (hard links)"
        done.notes.append(f"{job.label}: {links} still have the old content")
    done.files.append(job.target)
    done.images |= {i for i, hdu in zip(job.images, job.hdus, strict=True) if hdu in changes}
    texts = (f"{job.name(hdu)}: its CHECKSUM or DATASUM was wrong, and stays wrong" for hdu in wrong)
    done.warnings += (SkyWarning(WarningName.CHECKSUM, text) for text in texts)


@contextmanager
def _reading(job: FileJob) -> Iterator[Source]:
    """Open the file of a job; InputError if it can't be read, or changed since it was measured."""
    with _named_errors(job.label):
        file = read_structure(job.source, job.label)
        if job.state is not None and job.state != file.state:
            raise InputError.at(job.label, "was changed since it was measured", "run again")
        with open_source(file) as source:
            yield source


@contextmanager
def _named_errors(label: str) -> Iterator[None]:
    """Turn errors into InputErrors that name the file."""
    try:
        yield
    except PixelError as error:
        raise InputError.at(label, str(error)) from error
    except FileNotFoundError:
        raise InputError.at(label, "vanished while it was being used", "run again") from None
    except (EOFError, zlib.error) as error:
        raise InputError.at(label, f"truncated or damaged: {error}", "fetch the file again") from None
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise InputError.at(label, f"can't be written: {error.strerror or error}", hint) from error
