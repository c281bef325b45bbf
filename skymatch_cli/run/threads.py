"""Use one thread for products of matrices: the number of threads changes the last digit of a sum."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_VARIABLES = "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"
_begun_with_one = False


def begin_with_one_thread() -> None:
    """Have the libraries of numpy and scipy start no threads, in a program that has not loaded them yet.

    Work runs in parallel on small matrices: threads inside BLAS get in the way.
    """
    global _begun_with_one  # noqa: PLW0603 - as the libraries are: one for the process
    _begun_with_one = _begun_with_one or "numpy" not in sys.modules
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one BLAS thread, as a ``with`` block or a decorator, so that results are the same everywhere."""
    if _begun_with_one:
        yield
        return
    with _blas().limit(limits=1):
        yield


@cache
def _blas() -> ThreadpoolController:
    """The libraries of numpy and scipy: a search through all that are loaded, which takes as long as an image."""
    import scipy.linalg  # noqa: F401 - its library is found only when it is loaded
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
