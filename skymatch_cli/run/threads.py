"""Use one thread for products of matrices: the number of threads changes the last digit of a sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import threadpoolctl


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one BLAS thread, as a ``with`` block or a decorator, so that results are the same everywhere."""
    with _blas().limit(limits=1):
        yield


@cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """The libraries of numpy and scipy: a search through all that are loaded, which takes as long as an image."""
    import scipy.linalg  # noqa: F401 - its library is found only when it is loaded

    return threadpoolctl.ThreadpoolController().select(user_api="blas")
