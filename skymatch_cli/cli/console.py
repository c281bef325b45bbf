"""What the user sees: the result on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from skymatch_cli.choices import Format
from skymatch_cli.errors import SkymatchError, StoppedError, UsageError, plural, unwritten
from skymatch_cli.model.warning import SkyWarning, counted, told
from skymatch_cli.output.printable import printable

from .guard import forget_standard_output, laid_out

if TYPE_CHECKING:
    from skymatch_cli.output.destination import Output
    from skymatch_cli.output.result import Result
    from skymatch_cli.output.tables import Report
    from skymatch_cli.record.write import WriteReport
    from skymatch_cli.settings import Settings

LOG = logging.getLogger("skymatch_cli")
NOTE = 25
"""Level of notes, between information and warning: shown unless ``-q``."""

_MAX_ROWS_DRAWN = 2000  # longer tables are printed plainly, which is instant
_MOST_ALIKE, _MOST_SHOWN = 3, 5  # warnings shown of one name, and in all
_FITS_SUFFIXES = (".fits", ".fit", ".fts", ".gz", ".fz", ".bz2")


@contextmanager
def session(ctx: click.Context) -> Iterator[None]:
    """Send the log to standard error and to a file, as ``-v``, ``-q`` and ``--log-file`` say."""
    verbose, quiet, log_file = (ctx.params[name] for name in ("verbose", "quiet", "log_file"))
    if verbose and quiet:
        raise UsageError("--verbose and --quiet contradict each other", "leave one of them out")
    level = logging.ERROR if quiet else (NOTE, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handlers: list[logging.Handler] = [_Handler(sys.stderr, level, _StderrFormatter())]
    handlers[0].addFilter(lambda record: not hasattr(record, "shown"))
    old_level = LOG.level
    with warnings.catch_warnings(), _opened(log_file, ctx) as stream:
        if stream:
            handlers.append(_Handler(stream, logging.DEBUG, _FileFormatter("%(asctime)s", "%Y-%m-%d %H:%M:%S")))
        if verbose < 2 and not sys.warnoptions:
            warnings.simplefilter("ignore")  # meant for programmers
        LOG.setLevel(min(handler.level for handler in handlers))
        for handler in handlers:
            LOG.addHandler(handler)
        try:
            yield
        except SkymatchError as error:
            if isinstance(error, StoppedError):
                tell(*(f"wrote {file}" for file in error.files))
            for line in error.lines():
                LOG.error(line, extra={"shown": True})  # `guarded` shows it
            raise
        except Exception:
            LOG.debug("unexpected error", exc_info=True)
            raise
        finally:
            for handler in handlers:
                LOG.removeHandler(handler)
            LOG.setLevel(old_level)


def say(*messages: str) -> None:
    """Tell the user something, unless ``-q`` was given."""
    for message in messages:
        LOG.log(NOTE, "%s", message)


def tell(*messages: str) -> None:
    """Tell the user more, with ``-v``."""
    for message in messages:
        LOG.info("%s", message)


def tell_overlaps(report: Report) -> None:
    """Summarise the overlaps, with ``-v``: in colours on a terminal, in lines elsewhere and in the log."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    from .terminal import overlap_lines, print_overlaps

    drawn = _stderr_level() <= logging.INFO and sys.stderr.isatty()
    if drawn:
        from rich.console import Console

        print_overlaps(report, Console(stderr=True, highlight=False))
    for line in overlap_lines(report):
        LOG.info("%s", line, extra={"shown": True} if drawn else None)


def warn(warnings: Iterable[SkyWarning], allowed: Iterable[str] = ()) -> None:
    """Warn the user, unless ``-q`` was given: a handful of warnings, and the rest with ``-v``.

    Warnings with an ``allowed`` name are told with ``-v`` alone, as those are whose effect nobody could see. Of those
    that need no action (padding that is left out) the first is told.
    """
    warnings = tuple(warnings)
    given, found = told(warnings, allowed), counted(warnings, allowed)
    shown: list[SkyWarning] = []
    for warning in given:
        alike = sum(other.name == warning.name for other in shown)
        if alike < _MOST_ALIKE and len(shown) < _MOST_SHOWN:
            shown.append(warning)
    n_more = len(given) - len(shown)
    harmless = [warning for warning in warnings if warning.amplitude == 0 and warning.name not in set(allowed)]
    shown += harmless[:1]
    last = {warning.name: id(warning) for warning in (*warnings, *shown)}  # one advice for all of a name
    for warning in warnings:
        level = NOTE if any(warning is one for one in shown) else logging.INFO
        if level == NOTE and any(warning is one for one in found):
            level = logging.WARNING
        LOG.log(level, "%s", warning, extra={"warning": warning, "advised": id(warning) == last[warning.name]})
    if len(harmless) > 1:
        LOG.log(NOTE, "the same of %s, shown with -v", plural(len(harmless) - 1, "more image"))
    if n_more:
        LOG.warning("%d more, shown with -v", n_more)


def tell_result(result: Result) -> None:
    """Print the summary of a result: the remaining steps, and warnings."""
    from skymatch_cli.choices import WarningName
    from skymatch_cli.output.plain import summary

    tell_overlaps(result.report)
    tell(summary(result.report))
    say(*result.remarks)
    warn((w for w in result.warnings if w.name == WarningName.BRIGHT_SCENE), result.settings.allow)
    if (verdict := result.verdict) is not None:
        say(str(verdict))
    if result.settings.cross_check and all(w.name != WarningName.CROSS_CHECK for w in result.warnings):
        say("cross-check: mesh and pooled agree within their errors")
    warn((w for w in result.warnings if w.name != WarningName.BRIGHT_SCENE), result.settings.allow)


def tell_written(
    written: WriteReport, settings: Settings, images: Sequence[str] = (), *, unchanged: str = "{} already as wanted"
) -> None:
    """Say what became of the images; ``images`` are as they were named, where the run can be taken back."""
    from .done import said_of_images
    from .given import shown_command

    tell(*(f"wrote {file}" for file in written.files))
    say(*written.notes)
    warn(written.warnings)
    say(said_of_images(written, settings, unchanged))
    if images and written.files and settings.output_dir is None:
        say(f"to take it back: {shown_command(['undo', *['--skip-bad'] * settings.skip_bad, *images])}")


def check_output(output: Output, *, overwrite: bool, inputs: Iterable[str] = ()) -> None:
    """Refuse an output that can't be written, before any work is done (UsageError)."""
    output.check(overwrite=overwrite, inputs=inputs)
    if output.output is None and output.form == Format.FITS and sys.stdout.isatty():
        raise UsageError("--format fits is not for a terminal", "write to a file with -o FILE.fits")


def show(report: Report, output: Output, files: tuple[str, ...] = ()) -> None:
    """Write the result where the user wants it: to a file, or to standard output.

    StoppedError if it can't be written; ``files`` are those that were written before.
    """
    if output.output is not None:
        try:
            output.save(report)
        except StoppedError as error:
            raise StoppedError(error.problems, files) from error
        say(f"wrote {output.output}")
        return
    try:
        if output.form == Format.TABLE and sys.stdout.isatty() and len(report.table(output.table)) <= _MAX_ROWS_DRAWN:
            from .terminal import print_table

            print_table(report, output.table)
        else:
            stream = sys.stdout.buffer
            output.dump(report, stream)
            stream.flush()
    except BrokenPipeError:
        forget_standard_output()  # the reader stopped reading
    except OSError as error:
        forget_standard_output()
        raise unwritten("standard output", error, files) from error


def _stderr_level() -> int:
    """Return the level from which messages go to standard error."""
    return next(h.level for h in LOG.handlers if isinstance(h.formatter, _StderrFormatter))


@contextmanager
def _opened(log_file: str | None, ctx: click.Context) -> Iterator[TextIO | None]:
    if log_file is None:
        yield None
        return
    from skymatch_cli.record.files import FilesRead

    from .given import named_files

    if log_file in FilesRead(named_files(ctx)):
        raise UsageError(f"--log-file {log_file} is one of the inputs", "choose another name")
    if not _is_text(log_file):
        raise UsageError(f"--log-file {log_file} is not a text file", "choose another name")
    if log_file.lower().endswith(_FITS_SUFFIXES):
        raise UsageError(f"--log-file {log_file} is the name of an image", "choose another name")
    try:
        stream = Path(log_file).open("a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UsageError(f"--log-file {log_file}: {error.strerror or error}", "choose another name") from error
    try:
        yield stream
    finally:
        with suppress(OSError):  # `_Handler` reports a full disk
            stream.close()


def _is_text(file: str) -> bool:
    """Whether an existing file is text, to which a log may be added."""
    path = Path(file)
    if not path.is_file():
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(2880)
    except OSError:
        return True  # opening it gives the error
    return b"\0" not in start and not start.startswith((b"SIMPLE  =", b"#ASDF"))


class _Handler(logging.StreamHandler[TextIO]):
    """One that falls silent where its stream can't be written, such as a log on a full disk."""

    def __init__(self, stream: TextIO, level: int, formatter: logging.Formatter) -> None:
        super().__init__(stream)
        self.setLevel(level)
        self.setFormatter(formatter)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 (of logging)
        """Say so once, if there is anywhere else to say it."""
        self.setLevel(logging.CRITICAL + 1)
        LOG.warning("the log is incomplete: %s", sys.exc_info()[1])


class _StderrFormatter(logging.Formatter):
    """``skymatch: warning: message``; in one harmless line, broken at the width of a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        word = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        warning: SkyWarning | None = getattr(record, "warning", None)
        advice = warning.advice if warning is not None and getattr(record, "advised", False) else ""
        return laid_out(word, printable(record.message) + _tag(warning), advice)


class _FileFormatter(logging.Formatter):
    """``2026-01-31 12:00:00 WARNING message``."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        word = "NOTE" if record.levelno == NOTE else record.levelname
        warning: SkyWarning | None = getattr(record, "warning", None)
        if warning is not None and warning.visible:
            word = "WARNING"
        return f"{record.asctime} {word} {printable(record.message)}{_tag(warning)}"


def _tag(warning: SkyWarning | None) -> str:
    """The name of a warning, as it stands after its text."""
    return "" if warning is None else f" [{warning.name}]"
