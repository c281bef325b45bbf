"""The error tree: every way in which the program refuses, with its exit code.

SkymatchError            1  unexpected failure
├── UsageError           2  options that contradict each other or can't be parsed
├── InputError           3  an input can't be used; lists every bad one
│   └── StoppedError     6  stopped while writing (images or results); names the files that are done
├── NoOverlapError       4  nothing to match: no pair of images overlaps
└── StrictError          5  ``--strict`` and there were warnings

Errors are raised where the fact is known and shown in one place (``cli/console.py``).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Made = TypeVar("Made")

NAMED = 3
"""The number of files that one line names."""


_URL = re.compile(r"(?P<scheme>\w+://)(?:[^/?#\s]*@)?(?P<rest>[^\s]*)")
_SECRET = re.compile(
    r"(?P<name>[?&;#][^=&;#\s]*(?:token|hdnts|hmac|sig|key|pass|pwd|secret|auth|cred|session|jwt|code)[^=&;#\s]*=)[^&;#\s\[\]]*",
    re.IGNORECASE,
)


def reason(error: BaseException) -> str:
    r"""Return the message of an error of another package as one line: its first paragraph, or its class.

    Examples
    --------
    >>> reason(ValueError("no such\n  axis\n\nFailed validating 'axis' in schema …"))
    'no such axis'
    """
    first = str(error).strip().split("\n\n")[0]
    return " ".join(first.split()) or type(error).__name__


def without_secrets(text: str) -> str:
    """Return a text whose URLs hold no user, password, token or signature.

    Examples
    --------
    >>> without_secrets("https://bob:hunter2@host/a.fits?token=abc&n=1")
    'https://host/a.fits?token=…&n=1'
    """
    if "://" not in text:
        return text
    return _URL.sub(lambda url: url["scheme"] + _SECRET.sub(r"\g<name>…", url["rest"]), text)


class SkymatchWarning(UserWarning):
    """A warning of a run, where the program is used from Python."""


class SkymatchError(Exception):
    """Base of all errors that the program raises on purpose: what was wrong, and what to do about it, one line each."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(without_secrets(message))
        self.message = without_secrets(message)
        self.hint = without_secrets(hint)

    def lines(self) -> tuple[str, ...]:
        """One line for each thing that was wrong."""
        return (f"{self.message} ({self.hint})" if self.hint else self.message,)


class UsageError(SkymatchError):
    """Options that contradict each other or can't be understood."""

    exit_code = 2


def missing_extra(what: str, error: ImportError, extra: str) -> UsageError:
    """Make the error for a package that is not installed, and the extra that installs it."""
    return UsageError(f"{what} needs the package {error.name}", f"pip install 'skymatch-cli[{extra}]'")


@dataclass(frozen=True, slots=True)
class Problem:
    """One input that can't be used: which (file and extension), why, and what to do."""

    where: str
    what: str
    hint: str = ""

    def __post_init__(self) -> None:
        for name in ("where", "what", "hint"):
            object.__setattr__(self, name, without_secrets(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


def problem_lines(problems: Iterable[Problem]) -> tuple[str, ...]:
    """Describe problems, those of one kind in one line that counts them and names the first three.

    Examples
    --------
    >>> problem_lines([Problem("a.fits", "no such file"), Problem("b.fits", "no such file")])
    ('a.fits, b.fits: no such file',)
    >>> problem_lines([Problem("a.fits", "its mask a.reg is bad"), Problem("b.fits", "its mask b.reg is bad")])
    ('a.fits, b.fits: its mask ….reg is bad',)
    >>> problem_lines([Problem("a.fits", "is packed", "unxz a.fits"), Problem("b.fits", "is packed", "unxz b.fits")])
    ('a.fits, b.fits: is packed (for the first: unxz a.fits)',)
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in dict.fromkeys(problems):
        kinds.setdefault(_kind(problem), []).append(problem)
    return tuple(str(_together(alike, what)) for (what, _), alike in kinds.items())


def _together(alike: Sequence[Problem], what: str) -> Problem:
    """Describe problems of one kind as one; what to do is said of the first, so that it can be pasted."""
    first = alike[0]
    if len(alike) == 1:
        return first
    hint = first.hint if first.hint == alike[1].hint else f"for the first: {first.hint}"
    return Problem(first_names([problem.where for problem in alike]), what, hint)


def _kind(problem: Problem) -> tuple[str, str]:
    """Return what is wrong and the hint, with … for the stem of the file in names of its companions."""
    stem = re.split(r"[.\[]", problem.where.rpartition("/")[2])[0]
    called = re.compile(rf"(?<!\w){re.escape(stem)}(?=\.)") if stem else None
    what, hint = (called.sub("…", text) if called else text for text in (problem.what, problem.hint))
    return what, hint


def first_names(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first names in one line, and how many there are beyond.

    Examples
    --------
    >>> first_names(["a.fits", "b.fits", "c.fits", "d.fits"])
    'a.fits, b.fits, c.fits and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(n: int, noun: str) -> str:
    """Return a number of things: ``1 image``, ``2 images``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


class InputError(SkymatchError):
    """One or more inputs can't be used, and nothing was written; every one that was found, not only the first."""

    exit_code = 3

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by its problems: an error may come from another process."""
        return type(self), (self.problems,), self.__dict__

    @classmethod
    def at(cls, where: str, what: str, hint: str = "") -> InputError:
        """The error of a single input."""
        return cls([Problem(where, what, hint)])

    def lines(self) -> tuple[str, ...]:
        """One line for each kind of problem."""
        return problem_lines(self.problems)


def caught(function: Callable[..., Made], *given: Any) -> Made | InputError:
    """Call a function, and return its result or its InputError."""
    try:
        return function(*given)
    except InputError as error:
        return error


class StoppedError(InputError):
    """A result could not be written, or an image after others (``files``); each is the old one or the new one."""

    exit_code = 6

    def __init__(self, problems: Iterable[Problem], files: tuple[str, ...] = (), again: str = "run again") -> None:
        super().__init__(problems)
        self.files, self.again = files, again

    def lines(self) -> tuple[str, ...]:
        """One line for each problem, and one with the files that are done."""
        if not self.files:
            return super().lines()
        n = plural(len(self.files), "file")
        return (*super().lines(), f"{n} written before it: {first_names(self.files)} ({self.again} to finish)")


def unwritten(name: str, error: OSError, files: tuple[str, ...] = ()) -> StoppedError:
    """Make the error for a result that can't be written; ``files`` are those that are done."""
    hint = "free some space, then run again" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return StoppedError([Problem(f"{name} can't be written", error.strerror or str(error), hint)], files)


class NoOverlapError(SkymatchError):
    """``match`` or ``globalmin+match`` found no overlapping pair at all."""

    exit_code = 4


class StrictError(SkymatchError):
    """There were warnings, and ``--strict`` was given."""

    exit_code = 5
