"""Use one thread for products of matrices: the number of threads changes the last digit of a sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one BLAS thread, as a ``with`` block or a decorator, so that results are the same everywhere.

    Libraries that are loaded inside the block are not limited: import numpy and scipy.linalg before it.
    """
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
