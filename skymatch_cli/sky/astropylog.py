"""Capture the messages of astropy while it reads a WCS: in its log, and warnings of Python."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()


def captured(build: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """Call ``build``; return its result and the messages of astropy, one line each."""
    messages: list[str] = []
    with _LOCK, warnings.catch_warnings(record=True) as caught, _astropy_log(messages):
        warnings.simplefilter("always")
        made = build()
    lines = [*messages, *(str(item.message) for item in caught)]
    return made, tuple(dict.fromkeys(" ".join(line.split()) for line in lines))


@contextmanager
def _astropy_log(messages: list[str]) -> Iterator[None]:
    """Collect messages of astropy's log (SIP without its suffix) instead of printing them."""
    from astropy import log

    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            messages.append(record.getMessage())
        return record.thread != thread

    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)
