"""Zero points that differ: differences that grow with the brightness of the scene.

How bright the scene is above a black sky can't be known from the images: a factor times a constant is a constant. It is
taken to be as bright as it varies: from the darkest block of the images that hang together to their brightest overlap.
The factor times that is the error of a level. Factors that are too small for the overlaps to show are said, not
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.compare.mesh.sums import inverse, over
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_VISIBLE = 1.0  # brightness, in noise of a pixel: below it, structure within the images looks the same
_FAINT = 0.25  # the same, below which factors change nothing
_UNSEEN = 2.0  # errors that a factor that can't be seen may have
_FEW = 6  # blocks that say nothing about a slope
_MANY = 3  # overlaps of a component, beyond which one that stands alone can be told
_FAR = 5.0  # errors (of many blocks) beyond which a slope is no accident, even alone
_CHANCE = 0.8416  # normal deviate of the probability, 0.2, that slopes as large as those of factors are chance
_FAINT_CHANCE = 2.0537  # the same in a faint scene: 0.02
_USUAL, _BELIEF = 1.5, 4.0  # variance of slopes over that of their errors: what is usual, and its weight in overlaps
_ROUNDING = 1e-3  # of sums of degrees of freedom
_MOST = 0.5  # largest factor, relative to the mean: beyond it, a gradient on a flat sky is more likely
_PLAUSIBLE = 0.02  # factor by which the zero points of a survey differ at most


@dataclass(frozen=True, slots=True, eq=False)
class ZeroPoints:
    """Factors between the images, from differences that grow with brightness."""

    # (N,): of every image, relative to the mean of those it hangs together with; 1 and 0 where nothing is seen
    factor: FloatArray
    err: FloatArray  # (N,)
    variance: FloatArray  # (N,): variance of the level of every image that comes of the factors
    # (N,): by what factors that the overlaps can't show (2 sigma, two per cent at most) may shift the level of an image
    hidden: FloatArray
    above: FloatArray  # (N,): brightness of the scene above its darkest block

    @classmethod
    def none(cls, n: int) -> ZeroPoints:
        """No factor is known of ``n`` images, and none is suspected."""
        return cls(np.ones(n), *np.zeros((4, n)))

    @classmethod
    def of_sums(
        cls,
        sums: tuple[FloatArray, FloatArray],
        bright: FloatArray,
        darkest: FloatArray,
        shared: FloatArray,
        graph: OverlapGraph,
    ) -> ZeroPoints:
        """From sums over all blocks of the pairs: of weights and pulls, (M,) each, and those of `PairStructure`.

        One overlap alone seldom shows a factor of a per cent, all of a component do: the square sum of the slopes that
        factors explain, beyond what their errors do, gives the variance of the factors. The errors are scaled to what
        factors do not explain. ``shared`` (M,): part of the information of a pair that no other pair uses, 2 / k in a
        stack of k images.
        """
        n = graph.n_images
        slope, err, mean = _slopes(*sums, bright)
        use = np.isfinite(err) & (err > 0) & (shared > 0)
        if not use.any():
            return cls.none(n)
        a, b, weight = graph.a[use], graph.b[use], shared[use] / err[use] ** 2
        component = connected(n, a, b)
        mine, size = component[a], int(component.max()) + 1
        slope = err[use] * _supported(slope[use] / err[use], bright[5][use] - 2, mine, size)

        def total(per_pair: FloatArray) -> FloatArray:
            return np.bincount(mine, per_pair, size).astype(float)

        n_factors = np.bincount(component, minlength=size).astype(float) - 1
        gain = least_squares_offsets(n, a, b, weight, slope)
        left = weight * (slope - gain[a] + gain[b]) ** 2
        dof = total(shared[use]) - n_factors
        dof[dof < _ROUNDING] = 0  # without loops there is none
        scale = np.maximum((total(left) + _USUAL * _BELIEF) / (dof + _BELIEF), 1)
        square = total(weight * slope**2 - left) / scale
        height = _above_darkest(darkest[use], mean[use], mine, size)
        faint = np.where(dof > 0, _FAINT_CHANCE, np.inf)  # without loops, seeing that differs looks like factors
        chance = np.where(height > _VISIBLE, _CHANCE, faint)
        seen = _beyond_chance(np.where(height > 0, square, 0.0), n_factors, chance)
        spread = np.where(seen, (square - n_factors) * over(scale, 2 * total(weight)), 0.0)[component]
        weight /= scale[mine]
        information = (np.bincount(a, weight, n) + np.bincount(b, weight, n)).astype(float)
        above = height[component]
        hidden = np.minimum(_UNSEEN * np.sqrt(inverse(information)), _PLAUSIBLE) * above * (above > _VISIBLE)
        if not spread.any():
            return cls(np.ones(n), np.zeros(n), np.zeros(n), hidden, above)
        # factors of that variance about a common one: the most likely ones
        own = np.flatnonzero(spread > 0)
        common = n + component[own]
        gain = least_squares_offsets(
            n + size,
            np.append(a, own),
            np.append(b, common),
            np.append(weight, 1 / spread[own]),
            np.append(slope, np.zeros(len(own))),
        )
        gain = np.where(spread > 0, gain[:n] - gain[n + component], 0.0)
        likely = ~np.isin(component, component[np.abs(gain) > _MOST])
        gain, spread = gain * likely, spread * likely
        others = n_factors[component] / (n_factors[component] + 1)  # a factor is relative to the mean
        error = others * np.sqrt(inverse(information + inverse(spread))) * (spread > 0)
        return cls(1 + gain, error, (gain**2 + error**2) * above**2, np.where(spread > 0, 0.0, hidden), above)

    def of_bright_scenes(self) -> ZeroPoints:
        """Those that differences within the images can't be taken for."""
        bright = self.above > _VISIBLE
        factor, err, variance = (np.where(bright, x, 0.0) for x in (self.factor - 1, self.err, self.variance))
        return ZeroPoints(1 + factor, err, variance, self.hidden, self.above)


def _slopes(weight: FloatArray, pull: FloatArray, bright: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Slope of the difference with brightness and its error (M,), and the mean brightness of the overlap (M,).

    Regression over the blocks; its error is that of what the blocks scatter by about it.
    """
    first, second, product, square, _, count = bright
    mean = over(first, weight)
    spread = second - mean * first
    known = (spread > 1e-6 * second) & (count > _FEW)
    spread = np.where(known, spread, 1.0)
    slope = np.where(known, (product - mean * pull) / spread, 0.0)
    scatter = np.maximum(square - over(pull**2, weight) - slope**2 * spread, 1e-6 * square)
    err = np.sqrt(scatter / np.maximum(count - 2, 1) / spread)
    return slope, np.where(known & (err > 0), err, np.inf), mean


def _beyond_chance(square: FloatArray, dof: FloatArray, chance: FloatArray) -> BoolArray:
    """Whether square sums are larger than chance makes them (Wilson & Hilferty 1931, PNAS 17, 684)."""
    dof = np.maximum(dof, 1)
    third = 2 / (9 * dof)
    return np.asarray(square > dof * (1 - third + chance * np.sqrt(third)) ** 3)


def _supported(pull: FloatArray, dof: FloatArray, component: IntArray, size: int) -> FloatArray:
    """Slopes over their errors, those that stand alone in their component cut to the size of the next.

    A factor shows in all overlaps of an image; one overlap alone has a variable star, or the edge of a galaxy. The
    errors are known from the scatter of ``dof`` blocks more than the slope takes.
    """
    order = np.lexsort((-np.abs(pull), component))
    first = np.searchsorted(component[order], np.arange(size))
    many = np.flatnonzero(np.bincount(component, minlength=size) > _MANY)
    largest, next_one = order[first[many]], np.abs(pull)[order[first[many] + 1]]
    few = np.maximum(dof[largest], 1)
    alone = few * np.log1p(pull[largest] ** 2 / few) < _FAR**2  # of Student's t, as of a Gaussian
    cut = pull.copy()
    cut[largest[alone]] = np.copysign(next_one, pull[largest])[alone]
    return cut


def _above_darkest(darkest: FloatArray, mean: FloatArray, component: IntArray, size: int) -> FloatArray:
    """Brightness of the brightest overlap of every component above its darkest block, (size,)."""
    lowest, highest = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(lowest, component, darkest)
    np.maximum.at(highest, component, mean)
    above = np.where(np.isfinite(lowest), highest - lowest, 0.0)
    return np.where(above > _FAINT, above, 0.0)
