"""Ordered sets of pixels: ranks, counts and moments, of which every statistic here is made.

An estimator needs the number of values below an edge, the value of a given rank, and the moments between two ranks.
`SortedSample` computes them from one sorted array; `regions.TiledSamples` computes them for many regions at once from
pieces that they share. Both give the same answers, so the estimators are written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, FloatArray, IntArray, PixelArray

if TYPE_CHECKING:
    from skymatch_cli.statistics.regions import TiledSamples

SortedValues = npt.NDArray[np.floating]
_CHUNK = 4096  # values per stored sum
_BLOCK = 64  # chunks summed at a time: 2 MiB of float64
OrderedSamples: TypeAlias = "SortedSample | TiledSamples"
"""Sets of finite ordered values that are handled together; ``which`` is the index of a set, ranks count from 0."""


class SortedSample:
    """A single set, the finite ones of some values, which are sorted in place; ``which`` is always 0."""

    def __init__(self, values: SortedValues) -> None:
        values.sort()  # NaN last
        infinite = values.dtype.type(np.inf)
        self._sorted = values[values.searchsorted(-infinite, "right") : values.searchsorted(infinite)]
        self.n: IntArray = np.array([self._sorted.size], dtype=np.int64)  # values of each set
        self.eps = float(np.finfo(self._sorted.dtype).eps)  # relative spacing of the numbers that hold them

    def at(self, _which: IntArray, ranks: IntArray, /) -> FloatArray:
        """Return the values of the given ranks."""
        return self._sorted[ranks].astype(np.float64)

    def below(self, _which: IntArray, edges: FloatArray, /) -> IntArray:
        """Count the values that are less than each edge."""
        return np.searchsorted(self._sorted, round_up(edges, self._sorted.dtype)).astype(np.int64)

    def moments(self, _which: IntArray, start: IntArray, stop: IntArray, /) -> tuple[FloatArray, FloatArray]:
        """Return means and standard deviations of runs of ranks."""
        found = [self._moments(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True)]
        mean, std = np.array(found).reshape(-1, 2).T
        return mean, std

    def _moments(self, start: int, stop: int) -> tuple[float, float]:
        first, last = -(-start // _CHUNK), stop // _CHUNK
        if last - first < 2:
            return two_pass_moments(self._sorted[start:stop])
        pivot, sums, squares = self._chunk_sums
        outer = self._sorted[start : first * _CHUNK], self._sorted[last * _CHUNK : stop]
        ends = [np.subtract(end, pivot, dtype=np.float64) for end in outer]
        total = sums[first:last].sum() + sum(end.sum() for end in ends)
        square = squares[first:last].sum() + sum((end**2).sum() for end in ends)
        mean, std = moments_of_sums(stop - start, pivot, total, square)
        return float(mean), float(std)

    @cached_property
    def _chunk_sums(self) -> tuple[np.float64, FloatArray, FloatArray]:
        """Return a pivot, and the sums and sums of squares about it of every whole chunk.

        With the median as pivot the squares are small, and outliers are in the chunks at both ends: no sum of ordinary
        values is computed as a difference of large numbers.
        """
        pivot = np.float64(self._sorted[self._sorted.size // 2])
        whole = self._sorted[: self._sorted.size // _CHUNK * _CHUNK].reshape(-1, _CHUNK)
        sums, squares = np.empty((2, len(whole)))
        for i in range(0, len(whole), _BLOCK):
            deviation = np.subtract(whole[i : i + _BLOCK], pivot, dtype=np.float64)
            sums[i : i + _BLOCK] = deviation.sum(axis=1)
            squares[i : i + _BLOCK] = np.einsum("ij,ij->i", deviation, deviation)
        return pivot, sums, squares


@dataclass(frozen=True, slots=True)
class Run:
    """The values of one set that remain after limits and clipping: a run of its ranks."""

    samples: OrderedSamples
    which: int
    start: int
    stop: int

    @property
    def n(self) -> int:
        """The number of values."""
        return self.stop - self.start

    @property
    def eps(self) -> float:
        """Relative spacing of the numbers that hold the values."""
        return self.samples.eps

    def at(self, *ranks: int) -> FloatArray:
        """Return the values of ranks that are counted within the run."""
        return self.samples.at(np.full(len(ranks), self.which), np.array(ranks) + self.start)

    def below(self, edges: FloatArray) -> IntArray:
        """Count the run's values that are less than each edge."""
        return np.clip(self.samples.below(np.full(edges.size, self.which), edges) - self.start, 0, self.n)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """A run of ranks, ``start <= rank < stop``, of every set."""

    samples: OrderedSamples
    start: IntArray
    stop: IntArray

    @property
    def n(self) -> IntArray:
        """The number of values of each run."""
        return self.stop - self.start

    def of(self, which: int) -> Run:
        """Return the run of one set."""
        return Run(self.samples, which, int(self.start[which]), int(self.stop[which]))


def spread_sample(data: PixelArray, good: BoolArray, n: int) -> SortedValues:
    """Return some n of the good finite pixels of an image, sorted, from all of its rows and columns."""
    every = max(1, data.size // n) | 1  # odd, so that every column is sampled
    values = data.reshape(-1)[::every][good.reshape(-1)[::every]]
    return np.sort(values[np.isfinite(values)])


def round_up(edges: FloatArray, dtype: np.dtype[np.floating]) -> npt.NDArray[np.floating]:
    """Return the least numbers of ``dtype`` that are not less than ``edges``: the same values lie below either."""
    with np.errstate(over="ignore"):
        near = edges.astype(dtype)
    return np.where(near < edges, np.nextafter(near, dtype.type(np.inf)), near)


def two_pass_moments(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Return mean and standard deviation from the values themselves, in float64."""
    exact = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(exact.mean()), float(exact.std())


def moments_of_sums(
    n: IntArray | int, pivot: np.float64, total: FloatArray | float, square: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Return means and standard deviations from sums of deviations from ``pivot`` and of their squares."""
    with np.errstate(over="ignore", invalid="ignore"):
        shift = total / n
        return np.asarray(pivot + shift), np.sqrt(np.maximum(square / n - shift * shift, 0.0))
