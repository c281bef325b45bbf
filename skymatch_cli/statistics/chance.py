"""How large a sum of squares may be by chance."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from skymatch_cli.model import FloatArray


def chi2_limit(dof: FloatArray, probability: float) -> FloatArray:
    """Return the chi2 that is exceeded with a probability, to 5 % from one degree of freedom on.

    Wilson & Hilferty 1931, PNAS 17, 684: ``scipy.special`` takes as long to load as a small run.

    Parameters
    ----------
    dof : (n,) float64
        Degrees of freedom, > 0.
    probability : float

    Examples
    --------
    >>> import numpy as np
    >>> chi2_limit(np.array([10.0]), 0.05).round(1)  # 18.3 in tables
    array([18.3])
    """
    share = 2 / (9 * dof)
    root = 1 - share + NormalDist().inv_cdf(1 - probability) * np.sqrt(share)
    return np.asarray(dof * np.maximum(root, 0) ** 3)
