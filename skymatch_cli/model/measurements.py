"""The skies of sets of pixels, and the differences of overlapping images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.model.arrays import FloatArray, IntArray, StrArray
from skymatch_cli.model.overlaps import OverlapGraph, TangentPlane

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from skymatch_cli.model.images import ImageInfo


class Status(StrEnum):
    """Status of an image, a region or an overlap."""

    OK = "ok"
    TOO_FEW_PIXELS = "too_few_pixels"  # some good pixels, fewer than a statistic needs
    ALL_MASKED = "all_masked"  # not one good pixel
    OUTSIDE_LIMITS = "outside_limits"  # good pixels, but none within --lower and --upper
    NO_OVERLAP = "no_overlap"  # image: no usable overlap with any other group
    SAME_GROUP = "same_group"  # overlap: both images share one unknown; reported, not used
    DOWN_WEIGHTED = "down_weighted"  # overlap: --robust left it less than half of its weight
    UNREADABLE = "unreadable"  # image skipped with --skip-bad
    NOT_GIVEN = "not_given"  # image: method user without a value


@dataclass(frozen=True, slots=True)
class SkyStatistic:
    """The sky of one set of pixels: value and 1-sigma error in the pixels' unit.

    ``n`` counts the pixels that survive limits and clipping. ``value`` and ``err`` are NaN unless
    ``status`` is ok. ``crowding``: how far the mean of these pixels is above their median, beyond what noise makes of
    it; of an own sky, the part of ``err`` that is not noise. ``skewness``: how far the value is below that mean for the
    skewness of single photons, where pixels are multiples of a step.
    """

    value: float
    err: float
    n: int
    status: Status
    crowding: float = 0.0
    skewness: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SkyStatistics:
    """The skies of several sets of pixels, as columns of `SkyStatistic`."""

    value: FloatArray
    err: FloatArray
    n: IntArray
    status: tuple[Status, ...]
    crowding: FloatArray

    @classmethod
    def of(cls, skies: Sequence[SkyStatistic]) -> SkyStatistics:
        """The columns of single ones."""
        return cls(
            value=np.array([sky.value for sky in skies], np.float64),
            err=np.array([sky.err for sky in skies], np.float64),
            n=np.array([sky.n for sky in skies], np.int64),
            status=tuple(sky.status for sky in skies),
            crowding=np.array([sky.crowding for sky in skies], np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[SkyStatistics]) -> SkyStatistics:
        """Several one after another."""
        parts = (cls.of(()), *parts)
        numbers = ("value", "err", "n", "crowding")
        columns: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in numbers}
        return cls(**columns, status=tuple(word for part in parts for word in part.status))

    def __len__(self) -> int:
        return len(self.status)

    def part(self, rows: IntArray) -> SkyStatistics:
        """Some of them, in the order of ``rows``."""
        status = tuple(self.status[k] for k in rows.tolist())
        return SkyStatistics(self.value[rows], self.err[rows], self.n[rows], status, self.crowding[rows])


@dataclass(frozen=True, slots=True)
class LocalSkies:
    """Each image's own sky over its whole frame, in the image's unit; columns over images.

    ``noise``: the part of ``err`` that the noise of the pixels makes, all of it by default.
    """

    value: FloatArray
    err: FloatArray
    n: IntArray
    status: StrArray
    noise: FloatArray | None = None

    @classmethod
    def of(cls, found: Sequence[SkyStatistic | None]) -> LocalSkies | None:
        """The columns of single ones; None where they were not asked for."""
        local = [sky for sky in found if sky is not None]
        if len(local) < len(found):
            return None
        err = np.array([s.err for s in local])
        return cls(
            value=np.array([s.value for s in local]),
            err=err,
            n=np.array([s.n for s in local], np.int64),
            status=np.array([s.status for s in local], object),
            noise=np.sqrt(np.maximum(err**2 - np.array([s.crowding for s in local]) ** 2, 0)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PlaneDifferences:
    """Differences of pairs as functions of the place on the sky, in comparison units; columns over the M pairs.

    Sums run over the places where both images were compared, with f = (1, x - x0, y - y0): positions are those of
    the tangent plane, in radians.
    """

    plane: TangentPlane
    position: FloatArray  # (M, 2): (x0, y0) of every pair
    moment: FloatArray  # (M, 3, 3): sum of weight f f^T; 0 for pairs without a common place
    pull: FloatArray  # (M, 3): sum of weight f times the difference
    noise: FloatArray  # (M, 3, 3): covariance of the pull; what the images share with third ones is not in it


DegreeChooser = Callable[[Sequence["ImageInfo"], IntArray, "Measurements"], tuple[int, tuple[str, ...]]]
"""The polynomial degree that the differences need, and why: see ``solve.tilts.chosen_degree``."""

PlaneSolver = Callable[[FloatArray, IntArray, IntArray, FloatArray], Callable[[FloatArray, FloatArray], FloatArray]]
"""Planes of n images from the differences of pairs: see ``solve.tiltsteps.PlaneSteps``."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measured differences of all overlaps, in comparison units; columns over the M pairs of the graph."""

    a: IntArray  # (M,)
    b: IntArray  # (M,)
    area_arcmin2: FloatArray  # (M,)
    # (M,): sky of each image in the overlap (pooled: the statistic; mesh: means over the common cells with common
    # weights). NaN unless ok
    sky_a: FloatArray
    sky_b: FloatArray  # (M,)
    n_a: IntArray  # (M,): good pixels of image a that were used
    n_b: IntArray  # (M,): of image b
    delta: FloatArray  # (M,): ``sky_a - sky_b``
    delta_err: FloatArray  # (M,): its 1-sigma error, finite and > 0 where ok
    weight: FloatArray  # (M,): weight of the pair in the least-squares sum; 0 for pairs that are not used
    status: StrArray  # (M,): status words; only ``ok`` pairs enter the solution
    # (N,): good pixels seen in each image: of the whole frame (of a file behind a URL: of the rows that its overlaps
    # need, unless local skies were measured)
    n_good: IntArray
    # noise factor S with covariance of ``delta`` = S S^T: columns are independent sources of noise (a patch of pixels
    # of one image), which several pairs may share. From a joint fit (``pair_dof``): what structure within the images
    # adds to the noise of the pixels; the rest of ``1 / weight`` is information of the fit
    noise: csr_array | None = None
    local: LocalSkies | None = None
    # (M,): from a joint fit (mesh): expectation of ``weight * delta_err**2``, which pairs of one cell share
    pair_dof: FloatArray | None = None
    # (M,): from a joint fit: what ``weight`` would be for the noise of the good pixels alone
    information: FloatArray | None = None
    # (M,): part of ``1 / weight``, 0 to 1, that the noise of the pixels makes, as their neighbours show it; the rest is
    # structure in the overlaps and noise that pixels have in common. None: all of it
    photometric: FloatArray | None = None
    # (M,): from a joint fit: part of ``information``, 0 to 1, that stars and cells in which images disagree leave
    usable: FloatArray | None = None
    # (N,): from a joint fit: variance of the level of each image that is common to all of its overlaps, so that neither
    # more overlaps nor loops make it smaller; it is part of ``delta_err**2`` and not of ``1 / weight``
    level_variance: FloatArray | None = None
    # (N,): from a joint fit: variance of the structure within each image
    field_variance: FloatArray | None = None
    # (M, 4): from a joint fit: what a gradient common to all images does to each difference, per unit along x and y of
    # the plane, and the sum over both images of what gradients of their own, of variances ``tilt_variance``, do
    lever: FloatArray | None = None
    # (N, 2, 2): variance of the gradients that structure within the images has; their common part is no error
    tilt_variance: FloatArray | None = None
    # (3, N): from a joint fit (mesh): factor by which each image is brighter than the mean of those that it is compared
    # with, judged by differences that grow with the brightness of the scene, its 1-sigma error (1 and 0 where no
    # overlap shows such a difference), and by what factors that overlaps can't show may shift its level. The effect of
    # the factors that are seen is in ``level_variance``
    zero_point: FloatArray | None = None
    # (2, N): noise of a pixel of each image, and how far the brightest pixels are above the others; NaN where unknown
    scale: FloatArray | None = None
    # with the model ``plane``; ``weight`` and ``delta`` are then their first moments
    planes: PlaneDifferences | None = None
    # with the model ``auto``: why the images are compared with polynomials of this degree
    reasons: tuple[str, ...] = ()


def joined(
    parts: Sequence[Measurements], graph: OverlapGraph, images: Sequence[IntArray], pairs: Sequence[IntArray]
) -> Measurements:
    """Join measurements of sets of images to those of one run.

    ``images``, ``pairs``: those of each part by their numbers in the run; every one is in one part.
    """

    def column(values: Sequence[Any], places: Sequence[IntArray], n: int) -> Any:
        if any(value is None for value in values):
            return None
        whole = np.zeros((n, *values[0].shape[1:]), values[0].dtype)
        for value, place in zip(values, places, strict=True):
            whole[place] = value
        return whole

    def each(values: Sequence[Any], places: Sequence[IntArray], n: int) -> Any:
        """Join dataclasses column by column; all have one plane."""
        names = (f.name for f in fields(values[0]) if f.name != "plane")
        columns = {name: column([getattr(value, name) for value in values], places, n) for name in names}
        return replace(values[0], **columns)

    m, of_images = len(graph.a), {"n_good", "level_variance", "field_variance", "tilt_variance"}
    others = {"a", "b", "area_arcmin2", "local", "zero_point", "scale", "noise", "planes", "reasons", *of_images}
    columns = [f.name for f in fields(Measurements) if f.name not in others]
    made = {name: column([getattr(part, name) for part in parts], pairs, m) for name in columns}
    made |= {name: column([getattr(part, name) for part in parts], images, graph.n_images) for name in of_images}
    factors = column([None if p.zero_point is None else p.zero_point.T for p in parts], images, graph.n_images)
    planes = [(part.planes, own) for part, own in zip(parts, pairs, strict=True) if part.planes is not None]
    skies = [part.local for part in parts if part.local is not None]
    return Measurements(
        a=graph.a,
        b=graph.b,
        area_arcmin2=graph.area_arcmin2,
        local=each(skies, images, graph.n_images) if len(skies) == len(parts) else None,
        zero_point=None if factors is None else factors.T.copy(),
        noise=_joined_noise([part.noise for part in parts], pairs),
        planes=each([own for own, _ in planes], [rows for _, rows in planes], m) if planes else None,
        reasons=tuple(reason for part in parts for reason in part.reasons),
        **made,
    )


def _joined_noise(parts: Sequence[csr_array | None], pairs: Sequence[IntArray]) -> csr_array | None:
    """Noise factors of sets of pairs, which have no source of noise in common, as one of all m pairs."""
    from scipy.sparse import block_diag, csr_array  # the model of a run without a joint fit needs none

    if all(part is None for part in parts):
        return None
    whole = [csr_array((len(own), 0)) if part is None else part for part, own in zip(parts, pairs, strict=True)]
    return csr_array(block_diag(whole, format="csr"))[np.argsort(np.concatenate(pairs))]
