"""Polynomials in two coordinates: their monomials, and the change of their origin."""

from __future__ import annotations

from math import comb

import numpy as np

from skymatch_cli.model.arrays import FloatArray


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


def degree_of(n: int) -> int:
    """Return the degree of a polynomial of ``n`` monomials.

    Examples
    --------
    >>> degree_of(6)
    2
    """
    return next(degree for degree in range(n) if n_terms(degree) == n)


def carried(shift: FloatArray, degree: int) -> FloatArray:
    """Return matrices (m, k, k) that convert coefficients about one place to those about another, ``shift`` away."""
    terms = exponents(degree)
    out = np.zeros((len(shift), len(terms), len(terms)))
    for row, (i, j) in enumerate(terms):
        for column, (a, b) in enumerate(terms):
            if i <= a and j <= b:
                out[:, row, column] = comb(a, i) * comb(b, j) * shift[:, 0] ** (a - i) * shift[:, 1] ** (b - j)
    return out
