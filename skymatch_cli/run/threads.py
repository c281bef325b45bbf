"""One thread in products of matrices: how many threads share a sum decides its last digit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one BLAS thread, as a ``with`` block or a decorator, so that results have the same bytes everywhere.

    Libraries that are loaded inside are not held; numpy's and scipy.linalg's must have been imported before.
    """
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
