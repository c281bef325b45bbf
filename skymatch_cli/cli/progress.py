"""Progress of a run: bars on a terminal, and seconds of each stage with ``-v``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from skymatch_cli.run.tasks import Progress

if TYPE_CHECKING:
    import click

    from .bars import Bars

_PATIENCE_SECONDS = 0.5  # shorter runs need no bar, and no import of rich


class Watch(Progress):
    """The progress of a command that has ``-q``: always timed, and shown while `shown` is open."""

    def __init__(self, ctx: click.Context) -> None:
        self.seconds: dict[str, float] = {}  # of each stage, in their order; one that begins again goes on
        self._running: tuple[str, float] | None = None
        self._wanted = not ctx.params["quiet"] and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._start = perf_counter()
        self._showing = False
        self._bars: Bars | None = None
        self._stage, self._total, self._done = "", 0, 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw bars in this block, in which nothing else may write to the terminal."""
        self._showing = self._wanted
        try:
            yield
        finally:
            self.stop()
            self._showing = False
            if self._bars is not None:
                self._bars.close()
                self._bars = None

    def stage(self, name: str, total: int) -> None:
        """End the stage that runs, and begin one of ``total`` steps; 0 where that isn't known."""
        self.stop()
        self._running = name, perf_counter()
        self._stage, self._total, self._done = name, total, 0
        self._draw()

    def stop(self) -> None:
        """End the stage that runs."""
        if self._running is not None:
            name, start = self._running
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start
            self._running = None

    def lines(self, n_pixels: int) -> tuple[str, ...]:
        """Return one line per stage; ``n_pixels``, of all images, gives the rates."""
        total = sum(self.seconds.values())
        named = [*self.seconds.items(), ("total", total)]
        with_rate = {"pixels", "total"} if n_pixels else set()
        return tuple(
            f"{name:9s} {s:8.3f} s" + (f"  {n_pixels / s / 1e6:8.1f} Mpixel/s" if s > 0 and name in with_rate else "")
            for name, s in named
        )

    def advance(self, steps: int = 1) -> None:
        """Some steps of the stage are done."""
        self._done += steps
        self._draw()

    def _draw(self) -> None:
        if not self._showing or perf_counter() - self._start < _PATIENCE_SECONDS:
            return
        if self._bars is None:
            from .bars import Bars

            self._bars = Bars()
        self._bars.show(self._stage, self._total, self._done)
