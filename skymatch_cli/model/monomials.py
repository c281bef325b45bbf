"""Polynomials in two coordinates as sums of monomials: which there are, and the same polynomial about another place."""

from __future__ import annotations

from math import comb

import numpy as np

from skymatch_cli.model.arrays import FloatArray


def exponents(degree: int) -> tuple[tuple[int, int], ...]:
    """Exponents of u and v, by their sum: (0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2) and so on.

    Examples
    --------
    >>> exponents(1)
    ((0, 0), (1, 0), (0, 1))
    """
    return tuple((total - j, j) for total in range(degree + 1) for j in range(total + 1))


def n_terms(degree: int) -> int:
    """Monomials of a polynomial of this degree.

    Examples
    --------
    >>> [n_terms(degree) for degree in range(4)]
    [1, 3, 6, 10]
    """
    return (degree + 1) * (degree + 2) // 2


def degree_of(n: int) -> int:
    """Degree of a polynomial of ``n`` monomials.

    Examples
    --------
    >>> degree_of(6)
    2
    """
    return next(degree for degree in range(n) if n_terms(degree) == n)


def carried(shift: FloatArray, degree: int) -> FloatArray:
    """Matrices (m, k, k) that turn coefficients about one place into those about another, ``shift`` (m, 2) from it."""
    terms = exponents(degree)
    out = np.zeros((len(shift), len(terms), len(terms)))
    for row, (i, j) in enumerate(terms):
        for column, (a, b) in enumerate(terms):
            if i <= a and j <= b:
                out[:, row, column] = comb(a, i) * comb(b, j) * shift[:, 0] ** (a - i) * shift[:, 1] ** (b - j)
    return out
