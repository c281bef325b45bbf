"""A process beside this one for what needs other libraries than reading images does.

A short run is half imports. Overlaps and skies are worked out with shapely, pyproj and scipy, from little data that
comes from the images. So a process is forked before these are imported: it loads them while this one reads headers
(with astropy, where they aren't plain) and pixels, and then answers questions about what was found. Questions are pure
functions, so the answers are those that this process would find; where the libraries are there already, or no
process can be had, it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from skymatch_cli.run.tasks import usable_cores

Answer = TypeVar("Answer")
_LIBRARIES = frozenset({"shapely", "scipy.sparse"})


class Ask(Protocol):
    """Who answers ``function(*arguments)``, for a pure function of arguments that can be pickled."""

    def __call__(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """The answer; what the function raises is raised."""
        ...


def here(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """The answer of this process."""
    return function(*arguments)


@contextmanager
def beside(load: Callable[[], object], *, wanted: bool = True) -> Iterator[Ask]:
    """Have questions answered by a process that calls ``load`` first; it ends with the context.

    Parameters
    ----------
    load : callable
        Imports what the answers need.
    wanted : bool
        False: all is done here.
    """
    if not wanted or usable_cores() == 1 or sys.modules.keys() & _LIBRARIES:
        yield here
        return
    from skymatch_cli.run import processes

    if not processes.can_fork():
        yield here
        return
    with processes.companion(load) as companion:
        yield here if companion is None else _asking(companion)


def _asking(companion: Callable[..., Any]) -> Ask:
    from skymatch_cli.run.processes import NotAnsweredError

    def ask(function: Callable[..., Answer], *arguments: Any) -> Answer:
        try:
            answer: Answer = companion(function, *arguments)
        except NotAnsweredError:  # it died, or the question can't be sent
            return function(*arguments)
        return answer

    return ask
