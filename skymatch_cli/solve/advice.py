"""Warnings about a solution, each with the names of the images and how large the effect is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from skymatch_cli.choices import WarningName
from skymatch_cli.model import (
    LEAST_KEPT,
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    Measurements,
    Offsets,
    SkyWarning,
    Status,
    StrArray,
    common_unit,
)
from skymatch_cli.solve.diagnose import bad_fits, thin_bridges
from skymatch_cli.solve.naming import NAMED, after_number, few, in_unit, labels, largest_first, pair_label, said

_LEAST_SHARE = 0.25  # used share of the pixels in an image's overlaps: below it, its sky is weak
_LEAST_INFORMATION = 0.1  # of the information for pixel noise alone: below, errors are three times as large
_LEAST_FACTOR = 0.003  # smallest factor that is told: no calibration is better
_CLEAR = 4.0  # errors of a factor, beyond which it is not chance
_SEEN_BESIDE = 1.1  # errors with a common gradient over those without: above it, the gradient is named
_UNSEEN = 5.0  # errors of a sky: larger shifts by unseen zero points are told


def disconnected(
    images: Sequence[ImageInfo], measurements: Measurements, component: IntArray, usable: IntArray
) -> tuple[SkyWarning, ...]:
    """Warn of sets of images that can't be compared with one another, beyond those of ``--split-by``.

    ``component`` (N,): set of every image; ``usable``: indices of the images that have a sky at all. A set of
    ``--split-by`` may have one image, whose sky is 0 whatever is in it.
    """
    ids, first, count = np.unique(component[usable], return_index=True, return_counts=True)
    if len(ids) <= max(1, len({images[i].split for i in usable.tolist()})):
        lone = usable[first[count == 1]].tolist()
        text = f"no other image of their sets overlaps them, and their skies are 0: {few(labels(images, lone), ', ')}"
        return (SkyWarning(WarningName.DISCONNECTED, text),) if lone and len(ids) > 1 else ()
    sets = [_set(images[usable[f]].ref.label, int(n)) for f, n in zip(first, count, strict=True)]
    has_sky = np.isin(np.arange(len(images)), usable)
    a, b = measurements.a, measurements.b
    n_masked = int(np.count_nonzero((component[a] != component[b]) & has_sky[a] & has_sky[b]))
    why = "don't overlap each other"
    if n_masked:
        many = (
            f"all {n_masked} overlaps between them are"
            if n_masked > 1
            else "all pixels of the overlap between them are"
        )
        why = f"have no usable pixel in common ({many} masked, outside of the limits, too few, or too different)"
    text = f"{len(ids)} sets of images {why} and are anchored each on its own: {few(sets, '; ')}"
    return (SkyWarning(WarningName.DISCONNECTED, text),)


def without_sky(images: Sequence[ImageInfo], status: StrArray, sky: FloatArray) -> tuple[SkyWarning, ...]:
    """Warn of images without a sky, one line for each reason."""
    none = np.flatnonzero(~np.isfinite(sky)).tolist()
    reasons = dict.fromkeys(str(status[i]) for i in none)
    named = {reason: [i for i in none if status[i] == reason] for reason in reasons}
    texts = (f"no sky ({reason}): {few(labels(images, mine), ', ')}" for reason, mine in named.items())
    return tuple(SkyWarning(WarningName.NO_SKY, text) for text in texts)


def without_reference(images: Sequence[ImageInfo], component: IntArray, reference: int) -> tuple[SkyWarning, ...]:
    """Warn of components to which the reference image is not connected."""
    others = np.unique(component[component != component[reference]])
    if not len(others):
        return ()
    _, first = np.unique(component, return_index=True)
    names = [images[first[c]].ref.label for c in others]
    text = (
        f"the reference {images[reference].ref.label} holds only its own set of images; "
        f"sets that keep their own anchor: {len(others)} ({few(names, ', ')})"
    )
    return (SkyWarning(WarningName.REFERENCE, text),)


def large_residuals(
    images: Sequence[ImageInfo], measurements: Measurements, residual: FloatArray, limit: float
) -> tuple[SkyWarning, ...]:
    """Warn of the pairs, worst first, whose residual is more than ``limit`` times the error of the difference."""
    counted = (measurements.status == Status.OK) & np.isfinite(residual)
    size = np.where(counted, np.abs(residual) / np.where(counted, measurements.delta_err, 1.0), 0.0)
    above = largest_first(np.round(size, 6), size > limit)  # ends of a loop are equal but for rounding
    if not len(above):
        return ()
    pairs = [f"{pair_label(images, measurements, e)} ({size[e]:.1f} sigma)" for e in above[:NAMED]]
    text = f"overlaps with a residual above {limit:g} sigma ({len(above)}): {few(pairs, ', ', len(above))}"
    return (SkyWarning(WarningName.RESIDUAL, text, *in_unit(images, np.abs(residual[above]).max())),)


def large_steps(
    images: Sequence[ImageInfo], measurements: Measurements, residual: FloatArray, limit: float
) -> tuple[SkyWarning, ...]:
    """Warn of the pairs, worst first, between which a step of more than ``limit`` (in their images' unit) is left."""
    used = np.isfinite(residual) & (measurements.status != Status.SAME_GROUP)
    factor = np.array([abs(image.to_comparison) for image in images])[measurements.a]
    size = np.where(used, np.abs(residual), 0.0) / factor
    above = largest_first(size, size > limit)
    if not len(above):
        return ()
    pairs = [f"{pair_label(images, measurements, e)} ({size[e]:.3g})" for e in above[:NAMED]]
    unit = images[measurements.a[above[0]]].unit
    text = f"steps above {limit:g}{after_number(unit)} are left ({len(above)}): {few(pairs, ', ', len(above))}"
    return (SkyWarning(WarningName.STEP, text, float(size[above[0]]), unit),)


def solution_warnings(
    images: Sequence[ImageInfo], measurements: Measurements, group: IntArray, offsets: Offsets
) -> tuple[SkyWarning, ...]:
    """Warn of bad fits, weak links and down-weighted overlaps; ``group`` (N,) is the group of every image."""
    m = measurements
    lines = [*_exposures_in_a_group(images, m)]
    scatter = np.where(group[m.a] == group[m.b], 0.0, offsets.scatter[offsets.component[group[m.a]]])
    size = np.abs(offsets.residual) / np.hypot(m.delta_err, scatter)
    for c in bad_fits(offsets.chi2, offsets.dof)[:NAMED]:
        worst = largest_first(size, (offsets.component[group[m.a]] == c) & np.isfinite(offsets.residual))
        loops = "" if offsets.closure is None else f", loops close to {offsets.closure[c]:.3g}"
        added = f", sky_err counts {offsets.scatter[c]:.3g} more for each" if offsets.scatter[c] > 0 else ""
        amount = in_unit(images, np.abs(offsets.residual[worst]).max())
        several = np.bincount(group)[group[m.a[worst]]].max() > 1
        shared = "; images share a sky here, and --group-by none gives each its own" if several else ""
        text = (
            f"component {c}: its overlaps disagree by up to {said(amount)}, more than their errors allow "
            f"(chi2/dof = {offsets.chi2[c] / offsets.dof[c]:.3g}{loops}{added}); "
            f"worst: {few([pair_label(images, m, e) for e in worst[:2]], ', ')}{shared}"
        )
        lines.append(SkyWarning(WarningName.DISAGREEMENT, text, *amount))
    for e in thin_bridges(offsets, group[m.a], group[m.b], m.delta_err)[:NAMED]:
        amount = in_unit(images, m.delta_err[e])
        text = (
            f"component {offsets.component[group[m.a[e]]]} is connected by a single weak overlap: "
            f"{pair_label(images, m, e)}, known to {said(amount)}"
        )
        lines.append(SkyWarning(WarningName.WEAK_LINK, text, *amount))
    if offsets.kept is not None and len(low := largest_first(-offsets.kept, offsets.kept < LEAST_KEPT)):
        pairs = few([pair_label(images, m, e) for e in low[:NAMED]], ", ", len(low))
        text = f"overlaps that contradict the others and count little ({len(low)}): {pairs}"
        amount = in_unit(images, np.nanmax(np.abs(offsets.residual[low])))
        lines.append(SkyWarning(WarningName.DOWN_WEIGHTED, text, *amount))
    return tuple(lines)


def _exposures_in_a_group(images: Sequence[ImageInfo], m: Measurements) -> tuple[SkyWarning, ...]:
    """Warn where images of one group are exposures of one field whose skies differ: chips don't share so much sky."""
    arcmin2 = np.array([math.prod(image.shape) * image.pixel_area_arcsec2 / 3600 for image in images])
    large = m.area_arcmin2 > 0.5 * np.minimum(arcmin2[m.a], arcmin2[m.b])
    same = np.flatnonzero((m.status == Status.SAME_GROUP) & large & (np.abs(m.delta) > _CLEAR * m.delta_err))
    if not len(same):
        return ()
    worst = same[np.argmax(np.abs(m.delta[same]))]
    amount = in_unit(images, abs(m.delta[worst]))
    text = f"images of one group (of one file) are of the same field, and differ by up to {said(amount)}"
    more = f"{pair_label(images, m, worst)}; --group-by none gives each a sky of its own"
    return (SkyWarning(WarningName.DISAGREEMENT, f"{text}: {more}", *amount),)


def factor_warnings(
    images: Sequence[ImageInfo], measurements: Measurements, used: BoolArray, err: FloatArray
) -> tuple[SkyWarning, ...]:
    """Warn of factors between the images: those that overlaps show, and those that would shift skies unseen.

    ``used`` (M,): pairs that count; ``err`` (N,): errors of the skies, in comparison units.
    """
    m = measurements
    if m.zero_point is None or m.level_variance is None:
        return ()
    gain, gain_err, hidden = m.zero_point[0] - 1, *m.zero_point[1:]
    counted = np.isin(np.arange(len(images)), np.append(m.a[used], m.b[used]))
    size = np.abs(gain)
    clear = (gain_err > 0) & (size > np.maximum(_LEAST_FACTOR, _CLEAR * gain_err))
    if len(above := largest_first(np.round(size, 6), clear & counted)):  # two images are equal but for rounding
        names = [f"{images[i].ref.label} ({100 * gain[i]:+.2g} ± {100 * gain_err[i]:.1g} %)" for i in above[:NAMED]]
        amount = in_unit(images, np.sqrt(m.level_variance[above].max()))
        text = (
            f"differences grow with the brightness of the scene, which makes skies uncertain by up to "
            f"{said(amount)}; brighter than their neighbours ({len(above)}): {few(names, ', ', len(above))}"
        )
        return (SkyWarning(WarningName.ZERO_POINTS, text, *amount),)
    unseen = np.where(counted & (hidden > _UNSEEN * err), hidden, 0.0)
    if not unseen.any():
        return ()
    amount = in_unit(images, unseen.max())
    most = largest_first(np.round(unseen, 6), unseen > 0)
    some = few([images[i].ref.label for i in most[:NAMED]], ", ", len(most))
    text = (
        f"zero points that differ by too little to show in these overlaps may shift skies by up to {said(amount)}, "
        f"which sky_err does not count: {f'all {len(most)} images' if len(most) == len(images) > NAMED else some}"
    )
    return (SkyWarning(WarningName.BRIGHT_SCENE, text, *amount),)


def weak_images(
    images: Sequence[ImageInfo], measurements: Measurements, used: BoolArray, err: FloatArray
) -> tuple[SkyWarning, ...]:
    """Warn of images whose overlaps are so masked or so crowded that their skies are weak.

    ``used`` (M,): pairs that count; ``err`` (N,): errors of the skies, in comparison units.
    """
    m = measurements
    if not used.any():
        return ()
    pixels = _image_sums(m, used, m.n_a, m.n_b, len(images))
    area = _image_sums(m, used, m.area_arcmin2, m.area_arcmin2, len(images))
    why = "of the pixels in their overlaps are used"
    per_arcmin2 = 3600 / np.array([image.pixel_area_arcsec2 for image in images])
    good, masked = _share(pixels, area * per_arcmin2), (WarningName.MASKED, why)
    if m.information is None or m.usable is None:
        return tuple(_low(images, good, _LEAST_SHARE, err, masked))
    usable = _share(*(_image_sums(m, used, w, w, len(images)) for w in (m.usable * m.information, m.information)))
    good = np.where(usable < good, 1.0, good)  # pixels of cells that are lost are not masked
    crowded = WarningName.CROWDED, "of their mesh cells are usable: in the others are stars, or the images disagree"
    return (
        *_low(images, good, _LEAST_SHARE, err, masked),
        *_low(images, usable, _LEAST_INFORMATION, err, crowded),
    )


def uneven_images(
    images: Sequence[ImageInfo], measurements: Measurements, errors: FloatArray, gradient: FloatArray | None = None
) -> tuple[SkyWarning, ...]:
    """Warn of images whose skies are far more uncertain than from the noise of their pixels.

    ``errors`` (2, N): errors of the skies, and the part that is noise of the pixels, in comparison units; ``gradient``
    (N,): error from a gradient common to all images, beyond these.
    """
    m, (err, by_noise) = measurements, np.nan_to_num(errors)
    total = err if gradient is None else np.hypot(err, gradient)
    share = _share(by_noise**2, total**2)
    crowded = np.zeros(len(images), np.bool_)
    if m.pair_dof is None and m.level_variance is not None and m.zero_point is not None:
        crowded = (m.zero_point[1] == 0) & (m.level_variance > 0.5 * total**2)
    rest = "of their variance is noise of the pixels; "
    why = rest + "differences vary within or between their overlaps by more than their errors allow"
    if total.max() > _SEEN_BESIDE * err.max():
        why += ", as from gradients; a gradient common to all images is counted here, not in sky_err"
    of_sources = rest + "faint sources among the pixels of the sky make the rest; --compare mesh cancels them"
    kinds = ((WarningName.DISAGREEMENT, why), ~crowded), ((WarningName.CROWDED, of_sources), crowded)
    return tuple(
        line
        for what, mine in kinds
        for line in _low(images, np.where(mine, share, 1), _LEAST_INFORMATION, total, what, cause=m.field_variance)
    )


def _image_sums(
    m: Measurements, used: BoolArray, of_a: FloatArray | IntArray, of_b: FloatArray | IntArray, n: int
) -> FloatArray:
    sums = np.bincount(m.a[used], of_a[used], n) + np.bincount(m.b[used], of_b[used], n)
    return sums.astype(np.float64)


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.ones_like(part), where=whole > 0)


def _low(
    images: Sequence[ImageInfo],
    share: FloatArray,
    limit: float,
    err: FloatArray,
    what: tuple[WarningName, str],
    *,
    cause: FloatArray | None = None,
) -> list[SkyWarning]:
    """A warning that names the images of which a smaller share (N,) than the limit is left.

    The worst first, or those where a ``cause`` (N,) is largest.
    """
    low = largest_first(-share if cause is None else np.round(cause, 6), share < limit)
    if not len(low):
        return []
    some = few([images[i].ref.label for i in low[:NAMED]], ", ", len(low))
    names = (
        f"all {len(low)} images, most of all {images[low[0]].ref.label}" if len(low) == len(images) > NAMED else some
    )
    amount = in_unit(images, 2 * np.fmax.reduce(err[low]))
    name, why = what
    much = f"{'at most ' if len(low) > 1 else ''}{100 * share[low].max():.2g} %"
    text = f"weak skies, uncertain by {said(amount)} (2 sigma): {much} {why}: {names}"
    return [SkyWarning(name, text, *amount)]


def seen(warnings: Iterable[SkyWarning], images: Sequence[ImageInfo], limit: float) -> tuple[SkyWarning, ...]:
    """Mark the warnings whose amplitude is too small to be seen; ``limit`` is in comparison units."""
    factor, _ = common_unit(images)
    asked = {WarningName.STEP, WarningName.RESIDUAL}  # by the user, who knows what to look for
    return tuple(
        w if w.amplitude is None or w.amplitude * factor >= limit or w.name in asked else replace(w, visible=False)
        for w in warnings
    )


def _set(label: str, n: int) -> str:
    return f"{label} alone" if n == 1 else f"{label} and {n - 1} more"
