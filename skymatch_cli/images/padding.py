"""Find pixels of one exact value that are not sky: padding around a rotated frame, sentinels of bad pixels.

Exact values repeat by themselves where data lie on a lattice (integers, photon counts), so a frequent value is padding
only where it stands apart from the others, where the others are continuous, or where it fills an area at the border
that chance would not.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, PixelArray

_SAMPLED = 2**14  # pixels by which frequent values are found
_LEAST_SHARE = 0.01  # of the pixels
_DIGITS = 12  # binary, the last of a value
_AT_BORDER = 0.05  # of the pixels of the border
_HALF = 0.5
_FEW_PAIRS = 0.7  # share of zeros; with fewer, a sixth of the other pixels has two photons or more
_OFF_SIGMA = 5.0
_CONTINUOUS = 0.9  # distinct values per pixel
_LEAST_OTHERS = 50  # pixels needed for the distribution of the other values
_BETWEEN = 0.1  # pixels between padding and sky, per pixel of padding: more are a scene
_FEWER, _LEAST_SPREAD = 4, 20  # of the sample, to find a peak: percentiles take time
_RARE = 0.01  # a value that so few pixels of the sky have is padding wherever it is
_NEAR, _MORE = 0.25, 1.5  # of the width of the distribution; of the pixels there
_EVENLY = 0.27  # of the way to the 16th percentile lies the 5th, at least: 0.31 of normal noise, 0.23 of photons
_BLOCK = 16  # pixels a side, on which the share of a value is measured
_FIFTH_SIGMA = 0.84  # by which a fifth of normal deviates lies below their mean
_BY_CHANCE = 1e-3  # expected number of areas that chance fills
_NEVER_EXPOSED = frozenset({0.0, -32768.0, 32767.0, 65535.0, -9999.0, -2147483648.0})  # a frame full of one of them
_LEAST_FRAME = 1000  # pixels: a smaller frame is never called empty


@dataclass(frozen=True, slots=True)
class Padding:
    """One exact value that is not sky."""

    value: float
    share: float  # of the pixels that count otherwise
    left_out: BoolArray | None  # (rows, nx): True where pixels are left out; None where the value is only noted
    whole: bool = False  # the frame holds nothing else
    within: float = 0.0  # how far the pixels are from the value
    cut_off: bool = False  # the least or largest value, to which all beyond it were set


def find_padding(data: PixelArray, good: BoolArray, *, keep: Collection[float] = ()) -> Padding | None:
    """Find the exact value that fills the border or half of a frame, (rows, nx), or stands out otherwise.

    Lossy compression may have spread the values at the border. ``keep``: values that are sky whatever it looks like.
    """
    if data.size == 0:
        return None
    step = max(1, math.isqrt(data.size // _SAMPLED))
    sample, use = data[::step, ::step], good[::step, ::step]
    sample = sample.reshape(-1) if use.all() else sample[use]
    border = np.concatenate([edge[use] for edge, use in zip(_edges(data), _edges(good), strict=True)])
    frequent = [_most_frequent(border), _most_frequent(sample) if _may_repeat(sample) else None]
    candidates = [value for value in dict.fromkeys(frequent) if value is not None and value not in keep]
    with np.errstate(over="ignore", invalid="ignore"):
        for value in dict.fromkeys([*candidates[:1], *({0.0} - set(keep))]):
            if (spread := _spread_about(value, data, good, sample=sample, border=border)) is not None:
                return spread
    for value in candidates:
        at_border = float(np.mean(border == value)) if len(border) else 0.0
        found = _padding_of(value, data, good, sample=sample, at_border=at_border)
        if found is not None:
            return found
    return None


def _spread_about(
    value: float, data: PixelArray, good: BoolArray, *, sample: PixelArray, border: PixelArray
) -> Padding | None:
    """Find padding that lossy compression has spread about its value: a narrow peak at the border, far from the sky."""
    if not len(border) or not len(sample):
        return None
    size, at_border = np.abs(sample[::_FEWER] - value), np.abs(border[::_FEWER] - value)
    (middle,) = _quantiles(size, 0.75)
    if middle == 0 or _quantiles(at_border, _AT_BORDER)[0] > middle / 2:
        return None
    first, middle, last = _quantiles(size[size > middle / 2], 0.16, 0.5, 0.84)
    scatter = (last - first) / 2
    if middle <= (_OFF_SIGMA + 1) * scatter:
        return None
    near = size[size < scatter / 2]
    spread = near[near > 0]  # where nothing but padding is in a tile, it stays exact
    narrow = int(np.count_nonzero(size < middle - _OFF_SIGMA * scatter)) - len(near) < _BETWEEN * len(near)
    fills = np.mean(at_border < scatter / 2) >= _AT_BORDER
    if not (narrow and fills and len(spread) >= max(_LEAST_SPREAD, _LEAST_SHARE * len(size))):
        return None
    left_out = good & (np.abs(data - value) < scatter / 2)
    share = int(np.count_nonzero(left_out)) / int(np.count_nonzero(good))
    return Padding(value, share, left_out, within=scatter / 2)


def _quantiles(values: PixelArray, *shares: float) -> list[float]:
    """Values with these shares of the others below them."""
    ordered = np.sort(values)  # quicker than `np.partition` at several places
    return [float(ordered[int(share * (len(values) - 1))]) for share in shares]


def _padding_of(
    value: float, data: PixelArray, good: BoolArray, *, sample: PixelArray, at_border: float
) -> Padding | None:
    """Decide whether a frequent value is padding; ``at_border`` is its share of the border pixels."""
    others = sample[sample != value]
    share = 1 - len(others) / max(1, len(sample))
    if share < _LEAST_SHARE or 0 < len(others) < _LEAST_OTHERS:
        return None
    apart = len(others) > 0 and _stands_apart(value, others)
    cut_off = len(others) > 0 and any(_is_cut_off(sign * value, share, sign * others) for sign in (1, -1))
    amid = len(others) > 0 and not apart and not (at_border >= _AT_BORDER and _may_fill(value, data, others))
    if amid and not cut_off and not _is_unlike(value, others):
        return None
    equal = good & (data == value)
    n_good = int(np.count_nonzero(good))
    if amid:
        shares = _shares(equal)
        of_areas = shares[shares == 1].sum() > _HALF * shares.sum()  # saturated objects, and not the sky
        return Padding(value, int(np.count_nonzero(equal)) / n_good, None, cut_off=cut_off and not of_areas)
    if len(others) == 0:
        whole = value in _NEVER_EXPOSED and n_good >= _LEAST_FRAME and int(np.count_nonzero(equal)) == n_good
        return Padding(value, 1.0, equal, whole=True) if whole else None
    shares = _shares(equal)
    chance = _chance(shares)
    if apart and (value != 0 or chance < _RARE or not _may_be_counts(others, chance)):
        left_out = equal if at_border >= _AT_BORDER or share >= _HALF else None
        return Padding(value, int(np.count_nonzero(equal)) / n_good, left_out)
    filled = _filled(equal, chance) if (shares == 1).any() else np.zeros_like(equal)
    share = int(np.count_nonzero(filled)) / n_good
    return Padding(value, share, filled) if share >= _LEAST_SHARE else None


def _edges(frame: np.ndarray) -> tuple[np.ndarray, ...]:
    return frame[0], frame[-1], frame[:, 0], frame[:, -1]


def _may_repeat(values: PixelArray) -> bool:
    """Whether one value may be that of enough pixels: of continuous values the last binary digits are all different."""
    digits = values.view(f"u{values.itemsize}") & (2**_DIGITS - 1)
    return not len(values) or int(np.bincount(digits.astype(np.intp)).max()) >= _LEAST_SHARE * len(values)


def _most_frequent(values: PixelArray) -> float | None:
    if len(values) == 0:
        return None
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()])


def _stands_apart(value: float, others: PixelArray) -> bool:
    """Whether a value lies beyond nearly all the others, by many times their scatter and their lattice's step."""
    low, first, middle, last, high = np.percentile(others, [1, 16, 50, 84, 99])
    levels = np.unique(others)
    if low <= value <= high or len(levels) < 2:
        return False
    scatter = max(0.5 * (last - first), float(np.diff(levels).min()))
    return bool(abs(value - middle) > _OFF_SIGMA * scatter)


def _may_fill(value: float, data: PixelArray, others: PixelArray) -> bool:
    """Whether a value among the others may fill an area at the border: it fills whole blocks of an edge."""
    if not (value == 0 if _is_continuous(others) else _is_level(value, others)):
        return False
    blocks = [edge[: len(edge) // _BLOCK * _BLOCK].reshape(-1, _BLOCK) for edge in _edges(data)]
    return any(bool((block == value).all(axis=1).any()) for block in blocks)


def _is_level(value: float, others: PixelArray) -> bool:
    """Whether the others lie on a lattice that goes on to the value."""
    levels = np.unique(others).astype(np.float64)
    return len(levels) > 1 and float(np.abs(levels - value).min()) < 1.5 * float(np.diff(levels).max())


def _is_continuous(others: PixelArray) -> bool:
    return len(np.unique(others)) > _CONTINUOUS * len(others)


def _is_unlike(value: float, others: PixelArray) -> bool:
    """Whether a value that many pixels have lies among others that are all different: chance makes no such value."""
    low, high = np.percentile(others, [1, 99])
    return bool(low < value < high) and _is_continuous(others)


def _is_cut_off(value: float, share: float, others: PixelArray) -> bool:
    """Whether all values below this one were set to it: more pixels have it than those near it let expect.

    Not of single photons, whose pixels are empty of themselves: values lie on a lattice, or, of photons that were
    resampled, crowd towards zero, while those of a sky that was cut off are spread evenly there.
    """
    if others.min() < value:
        return False
    least, first, middle = np.percentile(others, [5, 16, 50])
    if least - value < _EVENLY * (first - value):
        return False
    width = _NEAR * float(middle - first)
    near = (1 - share) * float(np.mean(others <= value + width))
    step = float(np.diff(np.unique(others)).min(initial=np.inf))
    return step <= width and near >= _LEAST_SHARE / 2 and share > _MORE * near


def _may_be_counts(others: PixelArray, chance: float) -> bool:
    """Whether zeros among positive values may be single photons: then some pixels have two of them."""
    return chance > _FEW_PAIRS or float(np.percentile(others, 97)) > 1.5 * float(np.median(others))


def _shares(equal: BoolArray) -> FloatArray:
    """The share of the pixels in every block that hold the value."""
    ny, nx = (n // _BLOCK * _BLOCK for n in equal.shape)
    shares: FloatArray = equal[:ny, :nx].reshape(ny // _BLOCK, _BLOCK, nx // _BLOCK, _BLOCK).mean(axis=(1, 3))
    return shares


def _chance(shares: FloatArray) -> float:
    """Return the probability that a sky pixel has the value: its share in blocks not full of it; 1 if all are full."""
    mixed = shares[shares < 1]
    if not len(mixed):
        return 1.0
    fifth = float(np.percentile(mixed, 20))  # blocks at the rim of an area hold more of it
    return min(fifth + _FIFTH_SIGMA * math.sqrt(fifth * (1 - fifth)) / _BLOCK, 1.0)


def _filled(equal: BoolArray, chance: float) -> BoolArray:
    """Find the areas at the border that hold only the value, and are too large to be chance."""
    from scipy import ndimage

    chance = min(max(chance, 1e-6), 1 - 1e-6)
    side = max(2, math.ceil(math.sqrt(math.log(_BY_CHANCE / equal.size) / math.log(chance))))
    if side > min(equal.shape) // 4:
        return np.zeros_like(equal)
    solid = ndimage.minimum_filter(equal.view(np.uint8), side, mode="nearest")
    origin = -1 if side % 2 == 0 else 0  # so that erosion and dilation cancel for even sides
    filled = ndimage.maximum_filter(solid, side, mode="constant", cval=0, origin=origin).astype(np.bool_)
    labels, _ = ndimage.label(filled)
    at_border = np.unique(np.concatenate(_edges(labels)))
    kept: BoolArray = filled & np.isin(labels, at_border[at_border > 0])
    if chance < _RARE:
        return kept | (equal & ndimage.binary_dilation(kept))  # its corners
    # Sky pixels next to the area may have the value by chance, so a margin is left out too.
    wider: BoolArray = ndimage.binary_dilation(kept, iterations=side // 2)
    return wider
