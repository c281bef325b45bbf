"""Progress bars on standard error: one line a stage, with its rate and the time left."""

from __future__ import annotations

from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_REDRAWN_SECONDS = 0.1


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """The rate of one stage; nothing while it isn't known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s", style="progress.data.speed")


class Bars:
    """The bars of one run; they vanish when they are closed. ``NO_COLOR`` is rich's own affair.

    They are drawn where steps are done, not by a thread: beside one no process may be forked.
    """

    def __init__(self, console: Console | None = None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn())
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(compact=True),
            console=console or Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._progress.start()
        self._drawn = 0.0
        self._stage = ""

    def show(self, stage: str, total: int, done: int) -> None:
        """Bring the bar of a stage to ``done`` of ``total`` steps; 0: nobody knows how many."""
        known = total or None
        now, due = perf_counter(), stage != self._stage or done == total
        if stage != self._stage:
            for task in self._progress.tasks:
                self._progress.update(task.id, visible=False)
            self._progress.add_task(stage, total=known)
            self._stage = stage
        self._progress.update(self._progress.tasks[-1].id, total=known, completed=done)
        if due or now - self._drawn > _REDRAWN_SECONDS:
            self._progress.refresh()
            self._drawn = now

    def close(self) -> None:
        """Take the bars off the terminal."""
        self._progress.stop()
