"""Progress bars on standard error: one line a stage, with its rate and the time left."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_REDRAW_SECONDS = 0.1


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """The rate of one stage; nothing while it isn't known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s", style="progress.data.speed")


class Bars:
    """The bars of one run, removed by `close`. Rich honours ``NO_COLOR``."""

    def __init__(self, console: Console | None = None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn())
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(compact=True),
            console=console or Console(stderr=True),
            transient=True,
            auto_refresh=False,  # no thread: worker processes are forked
        )
        self._progress.start()
        self._stage = ""
        self._drawn = -_REDRAW_SECONDS

    def show(self, stage: str, total: int, done: int) -> None:
        """Bring the bar of a stage to ``done`` of ``total`` steps (0: unknown)."""
        known = total or None
        if stage != self._stage:
            for task in self._progress.tasks:
                self._progress.update(task.id, visible=False)
            self._progress.add_task(stage, total=known)
            self._stage, self._drawn = stage, -_REDRAW_SECONDS
        self._progress.update(self._progress.tasks[-1].id, total=known, completed=done)
        if (now := monotonic()) - self._drawn >= _REDRAW_SECONDS or done == total:
            self._drawn = now
            self._progress.refresh()

    def close(self) -> None:
        """Take the bars off the terminal."""
        self._progress.stop()
