"""The skies of the images by each of the five methods, with their anchors and statuses."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from skymatch_cli.model import FloatArray, IntArray, Offsets, SkyWarning, Status, StrArray
from skymatch_cli.model.monomials import degree_of
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.solve.advice import disconnected
from skymatch_cli.solve.modeladvice import common_curvatures, lower_degrees, needless_degrees, weak_tilts

if TYPE_CHECKING:
    from skymatch_cli.solve.methods import Task
    from skymatch_cli.solve.tilts import PlaneSkies

_COMMON = {0: "", 1: ", mean tilt = 0", 2: ", degree 2 without a common part", 3: ", degree 3 without a common part"}


@dataclass(frozen=True, slots=True)
class Skies:
    """Result of a method: value and error of each image in comparison units, status, component; anchors.

    ``err`` (2, N): one sigma of all that is known, and the part that the noise of the pixels makes.
    """

    value: FloatArray
    err: FloatArray
    status: StrArray
    component: IntArray
    anchor: StrArray
    offsets: Offsets | None = None
    warnings: tuple[SkyWarning, ...] = ()
    planes: PlaneSkies | None = None


def localmin(task: Task) -> Skies:
    """Give each group the lowest own sky of its images."""
    value, err = task.lowest_local()
    return _own(task, value[task.group], err[:, task.group], "own sky")


def globalmin(task: Task) -> Skies:
    """Give all groups the lowest own sky of all."""
    value, err = task.lowest_local()
    if np.isfinite(value).any():
        lowest = int(np.nanargmin(value))
        known = np.isfinite(value)
        value, err = np.where(known, value[lowest], np.nan), np.where(known, err[:, [lowest]], np.nan)
    return _own(task, value[task.group], err[:, task.group], "lowest sky of all")


def _own(task: Task, value: FloatArray, err: FloatArray, anchor: str) -> Skies:
    component = task.components()
    status = np.where(np.isfinite(value), Status.OK, task.local_status())
    anchors = np.full(component.max(initial=-1) + 1, anchor, object)
    return Skies(value, err, status, component[task.group], anchors)


def user(task: Task) -> Skies:
    """Give each image the value of its line in the list."""
    n = len(task.images)
    value = np.array([task.skylist.get(i, np.nan) for i in range(n)]) * task.factor
    status = np.where(np.isfinite(value), Status.OK, Status.NOT_GIVEN).astype(object)
    return Skies(value, np.full((2, n), np.nan), status, np.zeros(n, np.int64), np.array(["given"], object))


def match(task: Task) -> Skies:
    """Least-squares offsets or polynomials, in every component with the lowest (or highest) level at 0.

    The shapes of polynomials have no common part in a component. A reference is held at the sky recorded in it.
    """
    planes, offsets, component, value, err = _fitted(task)
    sign = -1.0 if task.match_up else 1.0
    level = np.full(len(offsets.chi2), np.inf)
    np.minimum.at(level, component, sign * value)
    level *= sign
    anchor = _pinned(planes, len(level), "highest = 0" if task.match_up else "lowest = 0")
    held = SkyPlane()
    if (image := task.reference) is not None:
        info = task.images[image]
        if info.recorded is not None:
            held = SkyPlane(*(c * info.to_comparison for c in astuple(info.recorded.sky)))
        anchor[component[image]] = info.ref.label
    if planes is None:
        if image is not None:
            level[component[image]] = value[image] - held.level
        return _with_status(task, offsets, component, (value - level[component], err), anchor)
    planes = planes.raised(-level)
    return _anchored_planes(task, planes if image is None else planes.held_at(image, held), err, anchor)


def _fitted(task: Task) -> tuple[PlaneSkies | None, Offsets, IntArray, FloatArray, FloatArray]:
    """The fit, and of every image the component, the level and its errors (2, N)."""
    if (planes := task.planes()) is not None:
        return planes, planes.fit.offsets, planes.component, planes.value, planes.err
    offsets, group = task.offsets(), task.group
    return None, offsets, offsets.component[group], offsets.offset[group], offsets.errors[:, group]


def _pinned(planes: PlaneSkies | None, n: int, level: str) -> StrArray:
    """How each of n components is anchored: its level, and the shapes whose common part is held at zero."""
    lowest = np.full(n, max(_COMMON) if planes is not None else 0)
    if planes is not None:
        np.minimum.at(lowest, planes.component, planes.degree)
    return np.array([f"{level}{_COMMON[degree]}" for degree in lowest.tolist()], object)


def _anchored_planes(task: Task, planes: PlaneSkies, err: FloatArray, anchor: StrArray) -> Skies:
    skies = _with_status(task, planes.fit.offsets, planes.component, (planes.value, err), anchor)
    fit, most = planes.fit, degree_of(planes.planes.shape[1])
    warnings = skies.warnings + weak_tilts(fit.loss) + common_curvatures(task.images, fit.held, fit.curved)
    if not task.choose:
        warnings += lower_degrees(task.images, planes.degree, planes.component, most)
        warnings += needless_degrees(fit.simpler, fit.spared, most)
    none = np.isnan(skies.value)[:, None]
    return replace(skies, planes=replace(planes, planes=np.where(none, np.nan, planes.planes)), warnings=warnings)


def globalmin_match(task: Task) -> Skies:
    """Offsets plus the baseline that brings the lowest own sky that remains in each component to zero."""
    planes, offsets, component, value, err = _fitted(task)
    local, local_err = task.local()
    remains = local - value
    first = first_lowest(remains, component, len(offsets.chi2))
    # The image with the lowest sky that remains is at its own sky; the others differ from it by two offsets.
    lowest, unknown = first[component], task.group if planes is None else np.arange(len(value))
    apart = np.hypot(err, err[:, lowest]) * (unknown != unknown[lowest])
    err = np.hypot(apart, local_err[:, lowest])
    anchor = _pinned(planes, len(first), "lowest sky that remains = 0")
    if planes is None:
        return _with_status(task, offsets, component, (value + remains[lowest], err), anchor)
    return _anchored_planes(task, planes.raised(remains[first]), err, anchor)


def _with_status(
    task: Task, offsets: Offsets, component: IntArray, found: tuple[FloatArray, FloatArray], anchor: StrArray
) -> Skies:
    """Value (N,) and errors (2, N) of the images with their statuses; NaN where there is no sky."""
    value, err = found
    alone = np.bincount(offsets.component)[component] == 1
    own = task.local_status()
    unseen = (own == Status.ALL_MASKED) | (own == Status.UNREADABLE)
    none = ~np.isfinite(value) | (alone & unseen)
    status = np.where(none & (own != Status.OK), own, np.where(none | alone, Status.NO_OVERLAP, Status.OK))
    warnings = disconnected(task.images, task.measurements, component, np.flatnonzero(~none))
    value, err = np.where(none, np.nan, value), np.where(none, np.nan, err)
    return Skies(value, err, status, component, anchor, offsets, warnings)


def first_lowest(value: FloatArray, of: IntArray, n: int) -> IntArray:
    """Index of the lowest value of each of n sets (``of``: set of every value); NaN only where a set has no other."""
    order = np.lexsort((value, of))
    return order[np.searchsorted(of[order], np.arange(n))]
