"""Sequences whose items are made when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

Made = TypeVar("Made", covariant=True)  # noqa: PLC0105 (nothing is taken)


class OnDemand(Sequence[Made]):
    """A sequence that need not hold its items."""

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            low, high, step = i.indices(len(self))
            return self._part(low, max(low, high)) if step == 1 else [self._made(k) for k in range(low, high, step)]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self._made(i % len(self))

    @abstractmethod
    def _made(self, i: int) -> Made:
        """The item with a number."""

    def _part(self, low: int, high: int) -> list[Made]:
        """Items that follow one another: all at once where that takes less."""
        return [self._made(k) for k in range(low, high)]
