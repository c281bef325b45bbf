"""Stop or fail a run at any of the calls that change what is on disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from skymatch_cli.record import disk

CALLS = ("open_new", "write", "like", "sync", "replace", "remove", "sync_directory")


class Fault:
    """Does something at the n-th call, counted from 0; ``calls`` lists all that came by."""

    def __init__(self, at: int, act: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]) -> None:
        self.at = at
        self.calls: list[str] = []
        self._act = act

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 == self.at:
                return self._act(name, partial(call, **options), args)
            return call(*args, **options)

        return wrapped

    @contextmanager
    def installed(self) -> Iterator[Fault]:
        originals = {name: getattr(disk, name) for name in CALLS}
        with patch.multiple(disk, **{name: self.wrap(name, call) for name, call in originals.items()}):
            yield self


def die_after(_name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    call(*args)
    os._exit(77)


def die_halfway(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    assert name == "write"
    call(args[0], args[1][: len(args[1]) // 2])
    os._exit(77)


def fail_with(number: int) -> Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]:
    """Fail as a disk does: half of what is written may have gone through."""

    def act(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "write" and number == errno.ENOSPC:
            call(args[0], args[1][: len(args[1]) // 2])
        raise OSError(number, os.strerror(number))

    return act


def counted(run: Callable[[], object]) -> list[str]:
    """The calls of a run that nothing stops."""
    with Fault(-1, die_after).installed() as fault:
        run()
    return fault.calls


def in_a_child(run: Callable[[], object]) -> int:
    """Run in a forked process; its exit status (0: it came to its end, 1: it failed)."""
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:  # noqa: BLE001 - a child never returns into the tests of its parent
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
