"""The five methods in one table: each finds the sky of the images.

A method gives every group one value in comparison units (``user``: every image its own), and an image's sky
is the value of its group, in the image's unit. So a chip without a good pixel still has the sky of its exposure
where the exposure's other chips were measured; a group without a measurement has no sky.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from skymatch_cli.choices import METHOD_ALIASES, Method, WarningName
from skymatch_cli.errors import NoOverlapError
from skymatch_cli.model import (
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    Measurements,
    Offsets,
    SkyWarning,
    Solution,
    Status,
    StrArray,
    group_numbers,
)
from skymatch_cli.model.monomials import degree_of
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.solve.advice import (
    common_curvatures,
    disconnected,
    factor_warnings,
    large_residuals,
    large_steps,
    lower_degrees,
    seen,
    solution_warnings,
    uneven_images,
    weak_images,
    weak_tilts,
    without_reference,
    without_sky,
)
from skymatch_cli.solve.offsets import Gradients, solve_offsets
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.steps import largest, visible_step
from skymatch_cli.solve.tilts import PlaneSkies, plane_skies

_COMMON = {0: "", 1: ", mean tilt = 0", 2: ", degree 2 without a common part", 3: ", degree 3 without a common part"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What a method works on; N images in G groups, M pairs."""

    images: Sequence[ImageInfo]
    measurements: Measurements
    group: IntArray  # (N,), numbered by their first image
    factor: FloatArray  # (N,), image unit to comparison unit
    reference: int | None
    match_up: bool
    skylist: Mapping[int, float]
    robust: bool
    choose: bool

    @property
    def n_groups(self) -> int:
        return int(self.group.max(initial=-1)) + 1

    @property
    def used(self) -> BoolArray:
        """Pairs that the solution rests on, (M,)."""
        m = self.measurements
        across: BoolArray = self.group[m.a] != self.group[m.b]
        return (m.weight > 0) & across

    def local(self) -> tuple[FloatArray, FloatArray]:
        """Own skies of the images in comparison units and their errors, (N,); NaN where there is none."""
        skies = self.measurements.local
        if skies is None:
            raise ValueError("the method needs local skies, which were not measured")
        return skies.value * self.factor, skies.err * np.abs(self.factor)

    def local_status(self) -> StrArray:
        """What became of each image by itself, (N,); all masked: pixels were read and not one was good."""
        m = self.measurements
        if m.local is not None:
            return m.local.status
        n = len(self.images)
        ends, lost = np.append(m.a, m.b), np.tile(m.status == Status.UNREADABLE, 2)
        n_pairs, n_lost = np.bincount(ends, minlength=n), np.bincount(ends[lost], minlength=n)
        status = np.full(n, Status.OK, object)
        status[(n_pairs > 0) & (m.n_good == 0)] = Status.ALL_MASKED
        status[(n_pairs > 0) & (m.n_good == 0) & (n_lost == n_pairs)] = Status.UNREADABLE
        return status

    def lowest_local(self) -> tuple[FloatArray, FloatArray]:
        """The lowest own sky of each group's images and its error, (G,); NaN where no image has one."""
        local, err = self.local()
        first = _first_lowest(local, self.group, self.n_groups)
        return local[first], err[first]

    def offsets(self) -> Offsets:
        """Least-squares offsets of the groups."""
        m = self.measurements
        if not self.used.any():
            raise _no_overlap(m, len(self.images))
        return solve_offsets(
            self.n_groups,
            self.group[m.a],
            self.group[m.b],
            m.delta,
            m.weight,
            noise=m.noise,
            pair_dof=m.pair_dof,
            photometric=m.photometric,
            level_variance=self._level_variance(),
            gradients=self._gradients(),
            robust=self.robust,
            with_scatter=True,
        )

    def _level_variance(self) -> FloatArray | None:
        """Variance of the level of each group that its overlaps have in common: the largest of its images, (G,)."""
        of_images = self.measurements.level_variance
        if of_images is None:
            return None
        variance = np.zeros(self.n_groups)
        np.maximum.at(variance, self.group, of_images)
        return variance

    def _gradients(self) -> Gradients | None:
        """Gradients within the images, where there are any."""
        m = self.measurements
        if m.lever is None or m.tilt_variance is None or not m.tilt_variance.any():
            return None
        variance = np.zeros((self.n_groups, 2, 2))
        np.add.at(variance, self.group, m.tilt_variance)
        return Gradients(m.lever, variance, np.bincount(self.group, minlength=self.n_groups))

    def planes(self) -> PlaneSkies | None:
        """Least-squares planes of the images, where the differences are known as planes."""
        m = self.measurements
        if m.planes is None:
            return None
        if not self.used.any():
            raise _no_overlap(m, len(self.images))
        return plane_skies(self.images, self.group, m, m.planes, self.used, choose=self.choose)

    def components(self) -> IntArray:
        """Component of each group, (G,), for methods that need no offsets."""
        m = self.measurements
        a, b = self.group[m.a[self.used]], self.group[m.b[self.used]]
        return PairGraph.of_pairs(self.n_groups, a, b, m.weight[self.used]).component


@dataclass(frozen=True, slots=True)
class _Skies:
    """What a method found: value and error of each image in comparison units, status, component; anchors.

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


def solve_skies(
    method: str,
    images: Sequence[ImageInfo],
    measurements: Measurements,
    *,
    reference: int | None = None,
    match_up: bool = False,
    skylist: Mapping[int, float] | None = None,
    max_residual: float | None = None,
    max_step: float | None = None,
    robust: bool = False,
    choose: bool = False,
) -> Solution:
    """The sky of every image, by one of the methods.

    Parameters
    ----------
    method : str
        A name or an alias.
    images : sequence of ImageInfo, length N
    measurements : Measurements
        With local skies for ``localmin``, ``globalmin`` and ``globalmin+match``.
    reference : int, optional
        Image that ``match`` holds at the sky recorded in it (0 if none).
    match_up : bool
        ``match`` puts the highest value of a component at 0 instead of the lowest.
    skylist : mapping of int to float, optional
        Image to sky in its own unit, for ``user``.
    max_residual : float, optional
        Warn of residuals above so many sigma.
    max_step : float, optional
        Warn of steps that are left between images and exceed this value, in the unit of the images.
    robust : bool
        Weigh down overlaps that contradict the others.
    choose : bool
        Where differences are polynomials: take the lowest degree that the data ask for, in each component.

    Returns
    -------
    Solution
        ``sky_err`` is that of the offset where the component's mean is zero, with the scatter between the overlaps;
        of an own sky its statistical error; of ``globalmin+match`` both; NaN for ``user``. ``sky_err_noise`` is the
        part of it that the noise of the pixels makes.

    Raises
    ------
    NoOverlapError
        If ``match`` or ``globalmin+match`` finds no overlap that can be used.

    """
    task = _Task(
        images=images,
        measurements=measurements,
        group=group_numbers(images),
        factor=np.array([info.to_comparison for info in images]),
        reference=reference,
        match_up=match_up,
        skylist=skylist or {},
        robust=robust,
        choose=choose,
    )
    found = METHODS[METHOD_ALIASES.get(method) or Method(method)](task)
    sky = found.value / task.factor
    residual = _residuals(task, found)
    used = (
        np.isfinite(residual) & (measurements.weight > 0) & (task.group[measurements.a] != task.group[measurements.b])
    )
    n_components, offsets = len(found.anchor), found.offsets
    unknown = np.full(n_components, np.nan)
    warnings = (*found.warnings, *without_sky(images, found.status, sky))
    if reference is not None:
        warnings += without_reference(images, found.component, reference)
    if offsets is not None:
        warnings += solution_warnings(images, measurements, task.group, offsets)
        warnings += factor_warnings(images, measurements, task.used, found.err[0])
        warnings += weak_images(images, measurements, task.used, found.err[0])
        if not any(w.name == WarningName.DISAGREEMENT for w in warnings):
            shared = None if offsets.common_gradient is None else offsets.common_gradient[task.group]
            warnings += uneven_images(images, found.err, shared, measurements.field_variance)
    if max_residual is not None:
        warnings += large_residuals(images, measurements, residual, max_residual)
    if max_step is not None:
        warnings += large_steps(images, measurements, residual, max_step)
    component = found.component[measurements.a[used]]
    shapes = None if found.planes is None else found.planes.shapes()
    return Solution(
        sky=sky,
        sky_err=found.err[0] / np.abs(task.factor),
        sky_err_noise=found.err[1] / np.abs(task.factor),
        status=found.status,
        component=found.component,
        residual=residual,
        anchor=found.anchor,
        n_images=np.bincount(found.component, minlength=n_components),
        rms_residual=_rms(residual[used], component, n_components),
        step_before=largest(measurements.delta[used], component, n_components),
        step_after=largest(residual[used], component, n_components),
        chi2=unknown if offsets is None else offsets.chi2,
        dof=unknown if offsets is None else offsets.dof,
        warnings=seen(warnings, images, visible_step(measurements, used)),
        kept=None if offsets is None else offsets.kept,
        sigma_exact=offsets is None or offsets.sigma_exact,
        closure=None if offsets is None else offsets.closure,
        n_loops=None if offsets is None else offsets.n_loops,
        scatter=None if offsets is None else offsets.scatter,
        reasons=measurements.reasons,
        tilt=None if shapes is None else np.where(np.isnan(sky)[:, None], np.nan, shapes) / task.factor[:, None],
    )


def _localmin(task: _Task) -> _Skies:
    """Each group at the lowest own sky of its images."""
    value, err = task.lowest_local()
    return _own(task, value[task.group], err[task.group], "own sky")


def _globalmin(task: _Task) -> _Skies:
    """All at the lowest own sky of all."""
    value, err = task.lowest_local()
    if np.isfinite(value).any():
        lowest = int(np.nanargmin(value))
        known = np.isfinite(value)
        value, err = np.where(known, value[lowest], np.nan), np.where(known, err[lowest], np.nan)
    return _own(task, value[task.group], err[task.group], "lowest sky of all")


def _own(task: _Task, value: FloatArray, err: FloatArray, anchor: str) -> _Skies:
    component = task.components()
    status = np.where(np.isfinite(value), Status.OK, task.local_status())
    anchors = np.full(component.max(initial=-1) + 1, anchor, object)
    return _Skies(value, np.stack([err, err]), status, component[task.group], anchors)


def _user(task: _Task) -> _Skies:
    """The values that were given, each to its own image."""
    n = len(task.images)
    value = np.array([task.skylist.get(i, np.nan) for i in range(n)]) * task.factor
    status = np.where(np.isfinite(value), Status.OK, Status.NOT_GIVEN).astype(object)
    return _Skies(value, np.full((2, n), np.nan), status, np.zeros(n, np.int64), np.array(["given"], object))


def _match(task: _Task) -> _Skies:
    """Least-squares offsets, anchored in every component."""
    if (planes := task.planes()) is not None:
        return _match_planes(task, planes)
    offsets = task.offsets()
    level = np.full(len(offsets.chi2), np.inf)
    extreme = -offsets.offset if task.match_up else offsets.offset
    np.minimum.at(level, offsets.component, extreme)
    if task.match_up:
        level = -level
    anchor = np.full(len(level), "highest = 0" if task.match_up else "lowest = 0", object)
    if task.reference is not None:
        own = task.group[task.reference]
        info = task.images[task.reference]
        held = 0.0 if info.recorded is None else info.recorded.sky.level * info.to_comparison
        level[offsets.component[own]] = offsets.offset[own] - held
        anchor[offsets.component[own]] = info.ref.label
    return _anchored(task, offsets, (offsets.offset - level[offsets.component], offsets.errors), anchor)


def _match_planes(task: _Task, planes: PlaneSkies) -> _Skies:
    """Least-squares planes; in every component the mean tilt is 0 and the lowest level at an image's centre."""
    sign = -1.0 if task.match_up else 1.0
    lowest = np.full(len(planes.loss), np.inf)
    np.minimum.at(lowest, planes.component, sign * planes.value)
    planes = planes.raised(-sign * lowest)
    anchor = _pinned(planes, "highest = 0" if task.match_up else "lowest = 0")
    if task.reference is not None:
        info = task.images[task.reference]
        recorded = SkyPlane() if info.recorded is None else info.recorded.sky
        planes = planes.held_at(task.reference, SkyPlane(*(c * info.to_comparison for c in astuple(recorded))))
        anchor[planes.component[task.reference]] = info.ref.label
    return _anchored_planes(task, planes, anchor)


def _pinned(planes: PlaneSkies, level: str) -> StrArray:
    """How each component is anchored: its level, and the shapes whose common part is held at zero."""
    lowest = np.full(len(planes.loss), max(_COMMON))
    np.minimum.at(lowest, planes.component, planes.degree)
    return np.array([f"{level}{_COMMON[degree]}" for degree in lowest.tolist()], object)


def _anchored_planes(task: _Task, planes: PlaneSkies, anchor: StrArray, err: FloatArray | None = None) -> _Skies:
    found = (planes.value, planes.err if err is None else err)
    skies = _with_status(task, planes.offsets, planes.component, found, anchor)
    warnings = skies.warnings + weak_tilts(planes.loss) + common_curvatures(task.images, planes.held, planes.curved)
    if not task.choose:
        warnings += lower_degrees(task.images, planes.degree, planes.component, degree_of(planes.planes.shape[1]))
    none = np.isnan(skies.value)[:, None]
    return replace(skies, planes=replace(planes, planes=np.where(none, np.nan, planes.planes)), warnings=warnings)


def _globalmin_match(task: _Task) -> _Skies:
    """Offsets plus the baseline that brings the lowest own sky that remains in each component to zero."""
    if (planes := task.planes()) is not None:
        local, local_err = task.local()
        first = _first_lowest(local - planes.value, planes.component, len(planes.loss))
        anchor = _pinned(planes, "lowest sky that remains = 0")
        lowest = first[planes.component]
        apart = np.hypot(planes.err, planes.err[:, lowest]) * (np.arange(len(lowest)) != lowest)
        err = np.hypot(apart, local_err[lowest])
        return _anchored_planes(task, planes.raised((local - planes.value)[first]), anchor, err)
    offsets = task.offsets()
    component = offsets.component[task.group]
    local, local_err = task.local()
    remains = local - offsets.offset[task.group]
    first = _first_lowest(remains, component, len(offsets.chi2))
    baseline, err = remains[first], local_err[first]
    anchor = np.full(len(first), "lowest sky that remains = 0", object)
    value = offsets.offset + baseline[offsets.component]
    # The image with the lowest sky that remains is at its own sky; the others differ from it by two offsets.
    lowest = task.group[first][offsets.component]
    apart = np.hypot(offsets.errors, offsets.errors[:, lowest]) * (np.arange(len(lowest)) != lowest)
    return _anchored(task, offsets, (value, np.hypot(apart, err[offsets.component])), anchor)


def _anchored(task: _Task, offsets: Offsets, found: tuple[FloatArray, FloatArray], anchor: StrArray) -> _Skies:
    """Value (G,) and errors (2, G) of every group to those of the images, with their statuses."""
    of_images = found[0][task.group], found[1][:, task.group]
    return _with_status(task, offsets, offsets.component[task.group], of_images, anchor)


def _with_status(
    task: _Task, offsets: Offsets, component: IntArray, found: tuple[FloatArray, FloatArray], anchor: StrArray
) -> _Skies:
    """Value (N,) and errors (2, N) of the images with their statuses; NaN where there is no sky."""
    value, err = found
    alone = np.bincount(offsets.component)[component] == 1
    own = task.local_status()
    unseen = (own == Status.ALL_MASKED) | (own == Status.UNREADABLE)
    none = ~np.isfinite(value) | (alone & unseen)
    status = np.where(none & (own != Status.OK), own, np.where(none | alone, Status.NO_OVERLAP, Status.OK))
    warnings = disconnected(task.images, task.measurements, component, np.flatnonzero(~none))
    value, err = np.where(none, np.nan, value), np.where(none, np.nan, err)
    return _Skies(value, err, status, component, anchor, offsets, warnings)


METHODS: dict[Method, Callable[[_Task], _Skies]] = {
    Method.LOCALMIN: _localmin,
    Method.GLOBALMIN: _globalmin,
    Method.MATCH: _match,
    Method.GLOBALMIN_MATCH: _globalmin_match,
    Method.USER: _user,
}


def _first_lowest(value: FloatArray, of: IntArray, n: int) -> IntArray:
    """Index of the lowest value of each of n sets (``of``: set of every value); NaN only where a set has no other."""
    order = np.lexsort((value, of))
    return order[np.searchsorted(of[order], np.arange(n))]


def _residuals(task: _Task, found: _Skies) -> FloatArray:
    """``delta - (solution_a - solution_b)`` of every pair that was measured, used or not."""
    m = task.measurements
    if found.planes is not None:
        return np.where(np.isfinite(m.delta), found.planes.residual, np.nan)
    residual = m.delta - (found.value[m.a] - found.value[m.b])
    if found.offsets is None:
        return residual
    fitted = found.offsets.residual  # without the rounding of the anchors
    return np.where(np.isfinite(fitted), fitted, residual)


def _rms(residual: FloatArray, component: IntArray, n_components: int) -> FloatArray:
    """Rms of the residuals in each component, NaN where there is none."""
    count = np.bincount(component, minlength=n_components)
    square = np.bincount(component, residual**2, minlength=n_components)
    return np.sqrt(np.where(count > 0, square / np.maximum(count, 1), np.nan))


def _no_overlap(measurements: Measurements, n_images: int) -> NoOverlapError:
    n = len(measurements.a)
    if n_images < 2:
        return NoOverlapError("there is only one image", "give all images of the field")
    if n == 0:
        return NoOverlapError("no image overlaps another", "skymatch plan shows where they lie")
    if np.all(measurements.status == Status.SAME_GROUP):
        return NoOverlapError("all overlaps are within one group", "--group-by none gives each image its own sky")
    across = measurements.status[measurements.status != Status.SAME_GROUP]
    overlaps = f"the {len(across)} overlaps" if len(across) > 1 else "the overlap"
    if np.all(across == Status.ALL_MASKED):
        return NoOverlapError(f"all pixels of {overlaps} are masked", "look at --mask, --dqbits, --weight and NaN")
    if np.all(across == Status.OUTSIDE_LIMITS):
        return NoOverlapError(f"all pixels of {overlaps} are outside of the limits", "look at --lower and --upper")
    return NoOverlapError(
        f"none of the {n} overlaps has enough good pixels" if n > 1 else "the overlap has not enough good pixels",
        "look at masks, DQ flags, limits, slivers (--table overlaps of plan), and units: values that differ by a large "
        "factor can't be compared",
    )
