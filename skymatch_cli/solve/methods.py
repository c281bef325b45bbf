"""The five methods in one table: each finds the sky of the images.

A method gives every group one value in comparison units (``user``: every image its own), and an image's sky
is the value of its group, in the image's unit. So a chip without a good pixel still has the sky of its exposure
where the exposure's other chips were measured; a group without a measurement has no sky.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from skymatch_cli.solve.advice import (
    factor_warnings,
    large_residuals,
    large_steps,
    seen,
    solution_warnings,
    uneven_images,
    weak_images,
    without_reference,
    without_sky,
)
from skymatch_cli.solve.anchored import Skies, first_lowest, globalmin, globalmin_match, localmin, match, user
from skymatch_cli.solve.offsets import Gradients, solve_offsets
from skymatch_cli.solve.otherunits import other_units
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.steps import largest, visible_step

if TYPE_CHECKING:
    from skymatch_cli.solve.tilts import PlaneSkies


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Input of a method: N images in G groups, M pairs."""

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
        """Number of groups, G."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def used(self) -> BoolArray:
        """Pairs that the solution rests on, (M,)."""
        m = self.measurements
        across: BoolArray = self.group[m.a] != self.group[m.b]
        return (m.weight > 0) & across

    def local(self) -> tuple[FloatArray, FloatArray]:
        """Own skies of the images in comparison units, (N,), and their errors (2, N); NaN where there is none."""
        skies = self.measurements.local
        if skies is None:
            raise ValueError("the method needs local skies, which were not measured")
        noise = skies.err if skies.noise is None else skies.noise
        return skies.value * self.factor, np.stack([skies.err, noise]) * np.abs(self.factor)

    def local_status(self) -> StrArray:
        """Status of each image by itself, (N,); all masked: its pixels were read, and none was good."""
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
        """The lowest own sky of each group's images, (G,), and its errors (2, G); NaN where no image has one."""
        local, err = self.local()
        first = first_lowest(local, self.group, self.n_groups)
        return local[first], err[:, first]

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
        from skymatch_cli.solve.tilts import plane_skies

        return plane_skies(self.images, self.group, m, m.planes, self.used, choose=self.choose)

    def components(self) -> IntArray:
        """Component of each group, (G,), for methods that need no offsets."""
        m = self.measurements
        a, b = self.group[m.a[self.used]], self.group[m.b[self.used]]
        return PairGraph.of_pairs(self.n_groups, a, b, m.weight[self.used]).component


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
    """The sky of every image, by one of the methods; NoOverlapError if it needs overlaps and finds none.

    Parameters
    ----------
    measurements : Measurements
        With local skies for ``localmin``, ``globalmin`` and ``globalmin+match``.
    reference : int, optional
        Image that ``match`` holds at the sky recorded in it (0 if none).
    skylist : mapping of int to float, optional
        Image to sky in its own unit, for ``user``.
    max_residual, max_step : float, optional
        Warn of residuals above so many sigma, and of larger steps that are left, in the unit of the images.
    choose : bool
        Where differences are polynomials: take the lowest degree that the data ask for, in each component.

    Returns
    -------
    Solution
        ``sky_err`` is that of the offset where the component's mean is zero, with the scatter between the overlaps;
        of an own sky its statistical error; of ``globalmin+match`` both; NaN for ``user``.
    """
    task = Task(
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
    used = np.isfinite(residual) & task.used
    n_components, offsets = len(found.anchor), found.offsets
    unknown = np.full(n_components, np.nan)
    warnings = _warnings(task, found, sky)
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


def _warnings(task: Task, found: Skies, sky: FloatArray) -> tuple[SkyWarning, ...]:
    """Warnings about the skies (N,), for any method."""
    images, measurements, offsets = task.images, task.measurements, found.offsets
    warnings = (*found.warnings, *without_sky(images, found.status, sky))
    if task.reference is not None:
        warnings += without_reference(images, found.component, task.reference)
    if offsets is None:
        return warnings
    warnings += solution_warnings(images, measurements, task.group, offsets)
    warnings += factor_warnings(images, measurements, task.used, found.err[0])
    warnings += other_units(images, measurements, task.used)
    warnings += weak_images(images, measurements, task.used, found.err[0])
    if not any(w.name == WarningName.DISAGREEMENT for w in warnings):
        shared = None if offsets.common_gradient is None else offsets.common_gradient[task.group]
        fitted = offsets.errors[:, task.group] if found.planes is None else found.planes.err  # not of the baseline
        warnings += uneven_images(images, measurements, np.where(np.isnan(found.err), np.nan, fitted), shared)
    return warnings


METHODS: dict[Method, Callable[[Task], Skies]] = {
    Method.LOCALMIN: localmin,
    Method.GLOBALMIN: globalmin,
    Method.MATCH: match,
    Method.GLOBALMIN_MATCH: globalmin_match,
    Method.USER: user,
}


def _residuals(task: Task, found: Skies) -> FloatArray:
    """``delta - (solution_a - solution_b)`` of every pair that was measured, used or not."""
    m = task.measurements
    if found.planes is not None:
        return np.where(np.isfinite(m.delta), found.planes.fit.residual, np.nan)
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
        hint = "look at --mask, --dqbits, --weight and NaN, or they are narrower than a pixel"
        return NoOverlapError(f"all pixels of {overlaps} are masked", hint)
    if np.all(across == Status.OUTSIDE_LIMITS):
        return NoOverlapError(f"all pixels of {overlaps} are outside of the limits", "look at --lower and --upper")
    return NoOverlapError(
        f"none of the {n} overlaps has enough good pixels" if n > 1 else "the overlap has not enough good pixels",
        "look at masks, DQ flags, limits, slivers (--table overlaps of plan), and units: values that differ by a large "
        "factor can't be compared",
    )
