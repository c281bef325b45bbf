"""Polynomials in two coordinates: their monomials, and the change of their origin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from itertools import accumulate, repeat
from math import comb
from operator import mul

import numpy as np
import numpy.typing as npt

from skymatch_cli.model.arrays import FloatArray


@cache
def exponents(degree: int) -> tuple[tuple[int, int], ...]:
    """Return the exponents of u and v, ordered by their sum: (0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2) and so on.

    Examples
    --------
    >>> exponents(1)
    ((0, 0), (1, 0), (0, 1))
    """
    return tuple((total - j, j) for total in range(degree + 1) for j in range(total + 1))


def n_terms(degree: int) -> int:
    """Return the number of monomials of a polynomial of this degree.

    Examples
    --------
    >>> [n_terms(degree) for degree in range(4)]
    [1, 3, 6, 10]
    """
    return (degree + 1) * (degree + 2) // 2


@cache
def degree_of(n: int) -> int:
    """Return the degree of a polynomial of ``n`` monomials.

    Examples
    --------
    >>> degree_of(6)
    2
    """
    return next(degree for degree in range(n) if n_terms(degree) == n)


def powers_of(u: FloatArray, v: FloatArray, degree: int) -> list[FloatArray]:
    """Return u, v, u^2, u v and so on, up to a degree."""
    return [reduce(mul, (u,) * i + (v,) * j) for i, j in exponents(degree)[1:]]


def moved_powers(
    means: Sequence[npt.NDArray[np.floating]], u: FloatArray, v: FloatArray, degree: int
) -> npt.NDArray[np.float32]:
    """Return means (t, ...) of powers of places about (-u, -v), from ``means`` of 1 and of these (or more) about 0."""
    terms = exponents(degree)
    powers = (
        sum(
            comb(a, i) * comb(b, j) * u ** (a - i) * v ** (b - j) * mean
            for mean, (i, j) in zip(means, terms, strict=False)
            if i <= a and j <= b
        )
        for a, b in terms[1:]
    )
    return np.stack([np.asarray(power, np.float32) for power in powers])


def carried(shift: FloatArray, degree: int) -> FloatArray:
    """Return matrices (m, k, k) that convert coefficients about one place to those about another, ``shift`` away."""
    k = n_terms(degree)
    out, along = np.zeros((len(shift), k, k)), np.ascontiguousarray(shift.T)
    powers = list(accumulate(repeat(along, degree), np.multiply, initial=np.ones_like(along)))
    for row, column, factor, (i, j) in _carried_terms(degree):
        np.multiply(powers[i][0], powers[j][1] if factor == 1 else factor * powers[j][1], out=out[:, row, column])
    return out


@cache
def _carried_terms(degree: int) -> list[tuple[int, int, float, tuple[int, int]]]:
    """Row, column, factor, and powers of the shift, of the elements of a matrix of `carried` that are not 0."""
    terms = list(enumerate(exponents(degree)))
    return [
        (row, column, float(comb(a, i) * comb(b, j)), (a - i, b - j))
        for row, (i, j) in terms
        for column, (a, b) in terms
        if i <= a and j <= b
    ]
