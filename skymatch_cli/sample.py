"""A set of pixels in order of value: the few questions that every statistic here is made of.

An estimator asks how many values lie below an edge, which value has a given rank, and the moments between
two ranks. ``SortedSample`` answers from one sorted array; ``tiles.TiledSample`` answers from pieces that
many regions share. Both give the same answers, so the estimators are written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .model import FloatArray, IntArray

SortedValues = npt.NDArray[np.floating]
_CHUNK = 4096  # values whose sums are kept together
_BLOCK = 64  # chunks summed at a time: 2 MiB of float64


class OrderedSample(Protocol):
    """Finite values in order; ranks count from 0."""

    @property
    def n(self) -> int:
        """How many values."""
        ...

    @property
    def eps(self) -> float:
        """Relative spacing of the numbers that hold the values."""
        ...

    def at(self, ranks: IntArray) -> FloatArray:
        """Values of the given ranks."""
        ...

    def below(self, edges: FloatArray) -> IntArray:
        """How many values are less than each edge."""
        ...

    def moments(self, start: int, stop: int) -> tuple[float, float]:
        """Mean and standard deviation (``ddof=0``) of the ranks ``start <= rank < stop``."""
        ...


class SortedSample:
    """An ordered sample that is one sorted array.

    Parameters
    ----------
    values : (n,) float32 or float64
        Finite values in any order; they are copied.
    """

    def __init__(self, values: npt.NDArray[np.floating]) -> None:
        self._sorted = np.sort(values)
        self.n = int(self._sorted.size)
        self.eps = float(np.finfo(self._sorted.dtype).eps)

    def at(self, ranks: IntArray) -> FloatArray:
        """Values of the given ranks."""
        return self._sorted[ranks].astype(np.float64)

    def below(self, edges: FloatArray) -> IntArray:
        """How many values are less than each edge."""
        return np.searchsorted(self._sorted, round_up(edges, self._sorted.dtype)).astype(np.int64)

    def moments(self, start: int, stop: int) -> tuple[float, float]:
        """Mean and standard deviation of a run of ranks."""
        first, last = -(-start // _CHUNK), stop // _CHUNK
        if last - first < 2:
            return two_pass_moments(self._sorted[start:stop])
        pivot, sums, squares = self._chunk_sums
        ends = [self._sorted[start : first * _CHUNK] - pivot, self._sorted[last * _CHUNK : stop] - pivot]
        total = sums[first:last].sum() + sum(end.sum() for end in ends)
        square = squares[first:last].sum() + sum((end**2).sum() for end in ends)
        return moments_of_sums(stop - start, pivot, float(total), float(square))

    @cached_property
    def _chunk_sums(self) -> tuple[np.float64, FloatArray, FloatArray]:
        """Pivot, and the sums and sums of squares about it of every whole chunk.

        The median as pivot keeps the squares small, and outliers stay in chunks of their own at both ends:
        no sum of well-behaved values is ever found as a difference of large numbers.
        """
        pivot = np.float64(self._sorted[self.n // 2])
        whole = self._sorted[: self.n // _CHUNK * _CHUNK].reshape(-1, _CHUNK)
        sums, squares = np.empty((2, len(whole)))
        for i in range(0, len(whole), _BLOCK):
            deviation = whole[i : i + _BLOCK] - pivot
            sums[i : i + _BLOCK] = deviation.sum(axis=1)
            squares[i : i + _BLOCK] = np.einsum("ij,ij->i", deviation, deviation)
        return pivot, sums, squares


@dataclass(frozen=True, slots=True)
class Survivors:
    """The values of a sample that limits and clipping leave: a run of its ranks."""

    sample: OrderedSample
    start: int
    stop: int

    @property
    def n(self) -> int:
        """How many values."""
        return self.stop - self.start

    @property
    def eps(self) -> float:
        """Relative spacing of the numbers that hold the values."""
        return self.sample.eps

    def at(self, ranks: IntArray) -> FloatArray:
        """Values of ranks that are counted within the survivors."""
        return self.sample.at(ranks + self.start)

    def below(self, edges: FloatArray) -> IntArray:
        """How many of the survivors are less than each edge."""
        return np.clip(self.sample.below(edges) - self.start, 0, self.n)

    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        low, high = self.at(np.array([(self.n - 1) // 2, self.n // 2]))
        return float((low + high) / 2)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        return self.sample.moments(self.start, self.stop)


def round_up(edges: FloatArray, dtype: np.dtype[np.floating]) -> npt.NDArray[np.floating]:
    """Least numbers of ``dtype`` that are not less than ``edges``: the same values lie below either."""
    with np.errstate(over="ignore"):
        near = edges.astype(dtype)
    return np.where(near < edges, np.nextafter(near, dtype.type(np.inf)), near)


def two_pass_moments(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean and standard deviation straight from the values, in float64."""
    exact = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(exact.mean()), float(exact.std())


def moments_of_sums(n: int, pivot: float, total: float, square: float) -> tuple[float, float]:
    """Mean and standard deviation from the sums of the deviations from ``pivot`` and of their squares."""
    shift = total / n
    return float(pivot + shift), float(np.sqrt(max(square / n - shift * shift, 0.0)))
