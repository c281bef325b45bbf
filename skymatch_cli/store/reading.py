"""What is said of a file between the steps that can't be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from skymatch_cli.errors import InputError


class Kind(StrEnum):
    """What a file should be."""

    PLAN = "a plan"
    MEASUREMENT = "a measurement"
    SOLUTION = "a solution"


_HINTS = {
    Kind.PLAN: "name a file that `skymatch plan -o PLAN.fits` wrote",
    Kind.MEASUREMENT: "name a file that `skymatch measure -o MEASURED.fits` wrote",
    Kind.SOLUTION: "name a file that `skymatch solve -o SOLUTION.fits` or `skymatch match -o` wrote",
}


@contextmanager
def opening(file: str, kind: Kind) -> Iterator[None]:
    """`reading`, without the remarks of astropy on damaged files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with reading(file, kind):
            yield


@contextmanager
def reading(file: str, kind: Kind) -> Iterator[None]:
    """Say of a file that can't be read, or is none of its kind, what is wrong and what to do.

    Raises
    ------
    InputError
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError.at(file, "no such file") from None
    except OSError as error:
        raise InputError.at(file, f"can't be read: {error.strerror or error}", _HINTS[kind]) from None
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a damaged file trips over)
        raise InputError.at(file, f"is not {kind} of this version: {error!s:.80}", _HINTS[kind]) from None
