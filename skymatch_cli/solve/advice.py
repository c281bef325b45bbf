"""Warnings about a solution: one line each, with the names of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.model import (
    LEAST_KEPT,
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    Measurements,
    Offsets,
    Status,
    StrArray,
)
from skymatch_cli.solve.diagnose import bad_fits, thin_bridges

_MAX_LOSS = 10.0  # errors of planes over those of constants: beyond, tilts rest on little
_LEAST_SHARE = 0.25  # of the pixels in an image's overlaps: below, its sky rests on little
_LEAST_INFORMATION = 0.1  # of what the noise of the pixels allows: below, errors are three times as large
_DISAGREE = 3.0  # times the errors of both; generous, for both see the same pixels
_NAMED = 5  # sets, images or pairs that one line names


def disconnected(images: Sequence[ImageInfo], component: IntArray, usable: IntArray) -> tuple[str, ...]:
    """That the images fall into sets that can't be compared.

    ``component`` (N,): set of every image; ``usable``: indices of the images that have a sky at all.
    """
    ids, first, count = np.unique(component[usable], return_index=True, return_counts=True)
    if len(ids) < 2:
        return ()
    sets = [_set(images[usable[f]].ref.label, int(n)) for f, n in zip(first, count, strict=True)]
    return (f"{len(ids)} sets of images don't overlap each other and are anchored each on its own: {_few(sets, '; ')}",)


def without_sky(images: Sequence[ImageInfo], status: StrArray, sky: FloatArray) -> tuple[str, ...]:
    """That some images have no sky, and why: one line for each reason."""
    none = np.flatnonzero(~np.isfinite(sky)).tolist()
    reasons = dict.fromkeys(str(status[i]) for i in none)
    named = {reason: [images[i].ref.label for i in none if status[i] == reason] for reason in reasons}
    return tuple(f"no sky ({reason}): {_few(labels, ', ')}" for reason, labels in named.items())


def without_reference(images: Sequence[ImageInfo], component: IntArray, reference: int) -> tuple[str, ...]:
    """That the reference image says nothing about some components."""
    others = np.unique(component[component != component[reference]])
    if not len(others):
        return ()
    _, first = np.unique(component, return_index=True)
    names = [images[first[c]].ref.label for c in others]
    return (
        f"the reference {images[reference].ref.label} holds only its own set of images; "
        f"sets that keep their own anchor: {len(others)} ({_few(names, ', ')})",
    )


def large_residuals(
    images: Sequence[ImageInfo], measurements: Measurements, residual: FloatArray, limit: float
) -> tuple[str, ...]:
    """The pairs, worst first, whose residual is more than ``limit`` times the error of the difference."""
    counted = (measurements.status == Status.OK) & np.isfinite(residual)
    size = np.where(counted, np.abs(residual) / np.where(counted, measurements.delta_err, 1.0), 0.0)
    above = np.flatnonzero(size > limit)
    above = above[np.argsort(-np.round(size[above], 6), kind="stable")]  # ends of a loop are equal but for rounding
    if not len(above):
        return ()
    pairs = [f"{_pair(images, measurements, e)} ({size[e]:.1f} sigma)" for e in above[:_NAMED]]
    return (f"overlaps with a residual above {limit:g} sigma ({len(above)}): {_few(pairs, ', ', len(above))}",)


def solution_warnings(
    images: Sequence[ImageInfo], measurements: Measurements, group: IntArray, offsets: Offsets
) -> tuple[str, ...]:
    """What a scientist should look at before trusting the offsets; ``group`` (N,) is the group of every image."""
    m = measurements
    lines: list[str] = []
    scatter = np.where(group[m.a] == group[m.b], 0.0, offsets.scatter[offsets.component[group[m.a]]])
    size = np.abs(offsets.residual) / np.hypot(m.delta_err, scatter)
    for c in bad_fits(offsets)[:_NAMED]:
        mine = np.flatnonzero((offsets.component[group[m.a]] == c) & np.isfinite(offsets.residual))
        worst = mine[np.argsort(-size[mine], kind="stable")]
        loops = "" if offsets.closure is None else f", loops close to {offsets.closure[c]:.3g}"
        added = f", sky_err counts {offsets.scatter[c]:.3g} more for each" if offsets.scatter[c] > 0 else ""
        lines.append(
            f"component {c}: the overlaps disagree by more than their errors, chi2/dof = "
            f"{offsets.chi2[c] / offsets.dof[c]:.3g}{loops}{added}; "
            f"worst: {_few([_pair(images, m, e) for e in worst[:2]], ', ')}"
        )
    lines += [
        f"component {offsets.component[group[m.a[e]]]} hangs together by one weak overlap only: "
        f"{_pair(images, m, e)}, known to {m.delta_err[e]:.3g}"
        for e in thin_bridges(offsets, group[m.a], group[m.b], m.delta_err)[:_NAMED]
    ]
    if offsets.kept is not None:
        low = np.flatnonzero(offsets.kept < LEAST_KEPT)
        low = low[np.argsort(offsets.kept[low], kind="stable")]
        if len(low):
            pairs = _few([_pair(images, m, e) for e in low[:_NAMED]], ", ", len(low))
            lines.append(f"overlaps that contradict the others and count little ({len(low)}): {pairs}")
    return tuple(lines)


def weak_images(images: Sequence[ImageInfo], measurements: Measurements, used: BoolArray) -> tuple[str, ...]:
    """Images whose overlaps are so masked or so crowded that their skies are weak; ``used`` (M,): pairs that count."""
    m = measurements
    if not used.any():
        return ()
    pixels = _image_sums(m, used, m.n_a, m.n_b, len(images))
    area = _image_sums(m, used, m.area_arcmin2, m.area_arcmin2, len(images))
    why = "of the pixels in the overlaps count (masks, limits, clipping)"
    per_arcmin2 = 3600 / np.array([image.pixel_area_arcsec2 for image in images])
    lines = _low(images, pixels, area * per_arcmin2, _LEAST_SHARE, why)
    if m.information is not None:
        weight, full = (_image_sums(m, used, w, w, len(images)) for w in (m.weight, m.information))
        why = "of what the noise of the pixels allows is left beside stars and cells in which images disagree"
        lines += _low(images, weight, full, _LEAST_INFORMATION, why)
    return tuple(lines)


def _image_sums(
    m: Measurements, used: BoolArray, of_a: FloatArray | IntArray, of_b: FloatArray | IntArray, n: int
) -> FloatArray:
    sums = np.bincount(m.a[used], of_a[used], n) + np.bincount(m.b[used], of_b[used], n)
    return sums.astype(np.float64)


def _low(images: Sequence[ImageInfo], part: FloatArray, whole: FloatArray, limit: float, what: str) -> list[str]:
    """A line that names the images of whose whole less than the limit is left, the worst first."""
    share = np.divide(part, whole, out=np.ones_like(part), where=whole > 0)
    low = np.flatnonzero(share < limit)
    low = low[np.argsort(share[low], kind="stable")]
    if not len(low):
        return []
    names = [f"{images[i].ref.label} ({100 * share[i]:.2g} %)" for i in low[:_NAMED]]
    return [f"weak skies, where little {what}: {_few(names, ', ', len(low))}"]


def disagreement(images: Sequence[ImageInfo], apart: FloatArray, err: FloatArray) -> tuple[str, ...]:
    """Images whose skies by mesh and by pooled statistics are apart by more than the errors of both (N,) allow."""
    size = np.divide(np.abs(apart), err, out=np.zeros_like(err), where=err > 0)
    above = np.flatnonzero(size > _DISAGREE)
    above = above[np.argsort(-size[above], kind="stable")]
    if not len(above):
        return ()
    names = [f"{images[i].ref.label} by {apart[i]:.3g} ({size[i]:.1f} sigma)" for i in above[:_NAMED]]
    return (
        f"mesh and pooled disagree by more than their errors ({len(above)}): {_few(names, ', ', len(above))}; where "
        "stars, nebulae or masks differ between images trust the mesh",
    )


def weak_tilts(loss: FloatArray) -> tuple[str, ...]:
    """That the tilts of components are weakly determined; ``loss`` (C,): errors over those without tilts."""
    return tuple(
        f"component {c}: its overlaps hardly determine tilts: errors are {loss[c]:.0f} times those of --model constant"
        for c in np.flatnonzero(loss > _MAX_LOSS)[:_NAMED]
    )


def _set(label: str, n: int) -> str:
    return f"{label} alone" if n == 1 else f"{label} and {n - 1} more"


def _pair(images: Sequence[ImageInfo], measurements: Measurements, e: int) -> str:
    return f"{images[measurements.a[e]].ref.label} - {images[measurements.b[e]].ref.label}"


def _few(names: Sequence[str], separator: str, n: int | None = None) -> str:
    n = len(names) if n is None else n
    more = f"{separator}… {n - _NAMED} more" if n > _NAMED else ""
    return separator.join(names[:_NAMED]) + more
