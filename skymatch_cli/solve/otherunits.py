"""Images that seem to be in another unit than their headers say, by their noise, stars and levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from skymatch_cli.choices import WarningName
from skymatch_cli.model import BoolArray, FloatArray, ImageInfo, IntArray, Measurements, SkyWarning
from skymatch_cli.solve.naming import NAMED, few, pair_label

_UNIT = 10.0  # factor of noise and of stars or level, together, that no exposure or depth explains
_UNIT_NOISE = 100.0  # factor of noise, with steps that are _UNIT times the usual, where neither can be seen
_SEEN = 6.0  # brightest pixels, or the level, over the noise: below, they may be noise, or a sky that was subtracted
_PHOTONS = 0.75  # power of the level with which the noise grows: 0.5 for photons, 1 for a unit
_DIVIDED = 1.9  # least factor between the exposure times or pixel areas of two images that is judged
_NOISE_OF_MEANS = 1.25  # power of that factor with which the noise differs: 0.5 where it was right to divide, 1.5 not


def other_units(images: Sequence[ImageInfo], measurements: Measurements, used: BoolArray) -> tuple[SkyWarning, ...]:
    """Warn of images that are alike but for a factor: of a wrong unit, or a division that their BUNIT asked for.

    ``used`` (M,): pairs that count.
    """
    m, rows = measurements, np.flatnonzero(used)
    if m.scale is None or not len(rows):
        return ()
    ends = np.stack([m.a[rows], m.b[rows]])
    sizes = np.stack([*m.scale[:, ends], np.stack([m.sky_a[rows], m.sky_b[rows]])])
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.nan_to_num(np.log(sizes[:, 0] / sizes[:, 1]), posinf=0, neginf=0)
        quotients[1:] *= (sizes[1:] > _SEEN * sizes[0]).all(axis=1)
    noise, stars, level = quotients  # logarithms; 0 where they are not seen
    step = np.abs(m.delta[rows])
    large = (np.abs(noise) > np.log(_UNIT_NOISE)) & (step > _UNIT * np.nanquantile(step, 0.25, method="lower"))
    large |= np.abs(noise) > 2 * np.log(_UNIT_NOISE)  # beyond any depth; level and stars may be lost in rounding
    as_level = (level != 0) & (np.abs(noise) > _PHOTONS * np.abs(level))
    ratio = np.where(as_level, _both(noise, level), np.where(large, noise, 0.0))  # a deeper image has usual steps
    ratio = np.where(stars != 0, _both(noise, stars), ratio)
    return _of_units(images, ends, ratio) + _of_divisions(images, m, rows, quotients)


def _both(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the smaller of two logarithms of one sign, else 0."""
    return np.where(x * y > 0, np.copysign(np.minimum(np.abs(x), np.abs(y)), x), 0.0)


def _of_units(images: Sequence[ImageInfo], ends: IntArray, ratio: FloatArray) -> tuple[SkyWarning, ...]:
    """Name the images, of those that hang together by usual factors, that are fewer than the others."""
    far = np.abs(ratio) > np.log(_UNIT)
    if not far.any():
        return ()
    from skymatch_cli.compare.mesh.connected import connected

    of_image = connected(len(images), *ends[:, ~far])
    size = np.bincount(of_image)[of_image[ends]]
    second = size[0] > size[1]  # of two images either may be wrong
    times: dict[int, list[float]] = {}
    for e in np.flatnonzero(far & (of_image[ends[0]] != of_image[ends[1]])):
        times.setdefault(int(ends[int(second[e]), e]), []).append(math.exp(-ratio[e] if second[e] else ratio[e]))
    if not times:
        return ()
    names = [f"{images[i].ref.label} (times {median(own):.2g})" for i, own in list(times.items())[:NAMED]]
    text = "the noise differs from that of overlapping images by a large factor, as where a unit is wrong"
    return (SkyWarning(WarningName.UNITS, f"{text} ({len(times)}): {few(names, ', ', len(times))}"),)


def _of_divisions(
    images: Sequence[ImageInfo], m: Measurements, rows: IntArray, quotients: FloatArray
) -> tuple[SkyWarning, ...]:
    """Say where images are alike only before the division by exposure time or pixel area."""
    noise, stars, level = quotients
    ends = np.stack([m.a[rows], m.b[rows]])
    factor, unit = (np.array(each)[ends] for each in zip(*((i.to_comparison, i.unit) for i in images), strict=True))
    same = (unit[0] == unit[1]) & (unit[0] != "")
    power = np.where(same, np.log(np.abs(factor[0] / factor[1])), 0.0)
    judged = (np.abs(power) > np.log(_DIVIDED)) & ((level != 0) | (stars != 0))
    power[~judged] = np.inf
    alike = np.where(level != 0, np.abs(level / power - 1) < 0.5, stars / power > 1)
    wrong = rows[alike & (noise / power > _NOISE_OF_MEANS)]
    if 2 * len(wrong) <= np.count_nonzero(judged):
        return ()
    text = "division by exposure time or pixel area makes levels or stars, and noise, of overlapping images differ"
    pairs = few([pair_label(images, m, e) for e in wrong[:NAMED]], ", ", len(wrong))
    return (SkyWarning(WarningName.UNITS, f"{text}; undivided they are alike, as means are ({len(wrong)}): {pairs}"),)
