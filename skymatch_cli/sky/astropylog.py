"""Capture the messages of astropy while it reads a WCS: in its log, and warnings of Python."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

_LOCK = threading.Lock()


def captured(build: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """Call ``build``; return its result and the messages of astropy, one line each."""
    from astropy import log

    messages: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())  # such as SIP without its suffix
        return False  # it is not printed

    with _LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log.addFilter(keep)
        try:
            made = build()
        finally:
            log.removeFilter(keep)
    lines = [*messages, *(str(item.message) for item in caught)]
    return made, tuple(dict.fromkeys(" ".join(line.split()) for line in lines))
