"""How the C library keeps memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT_BYTES = 2**28


def keep_memory() -> None:
    """Let the memory of one image serve the next: getting fresh pages takes as long as the arithmetic in them."""
    with suppress(OSError, AttributeError):  # not the C library that has this
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
