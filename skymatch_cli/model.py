"""The frozen dataclasses and enums that flow through the program; no I/O here.

names -> ImageRef -> ImageInfo -> Footprint -> OverlapGraph -> Measurements -> Solution -> report | headers

Conventions, said once and kept everywhere: pixel coordinates are 0-based with the centre of the first
pixel at (0, 0), x first in coordinates and ``[y, x]`` in arrays; ``good`` is True where a pixel counts;
sky positions are ICRS unit vectors; values are in the image's own unit unless a name says ``comparison``
(``value in comparison unit = value * ImageInfo.to_comparison``). What exists once per image or once per
pair is kept in columns (arrays), so that 10^6 images stay cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import Skystat as Skystat  # noqa: PLC0414 (part of the model for everyone else)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from skymatch_cli.polygons import PolygonRows

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
StrArray = npt.NDArray[np.object_]
PixelArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]


LEAST_KEPT = 0.5
"""Part of its weight below which an overlap of a robust solution is said to be down-weighted."""


class Status(StrEnum):
    """What became of an image, a region or an overlap: a word, never a magic number."""

    OK = "ok"
    TOO_FEW_PIXELS = "too_few_pixels"  # some good pixels, fewer than a statistic needs
    ALL_MASKED = "all_masked"  # not one good pixel
    OUTSIDE_LIMITS = "outside_limits"  # good pixels, but none within --lower and --upper
    NO_OVERLAP = "no_overlap"  # image: no usable overlap with any other group
    SAME_GROUP = "same_group"  # overlap: both images share one unknown; reported, not used
    DOWN_WEIGHTED = "down_weighted"  # overlap: --robust left it less than half of its weight
    UNREADABLE = "unreadable"  # image skipped with --skip-bad
    NOT_GIVEN = "not_given"  # image: method user without a value


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticSettings:
    """How the sky of a set of pixels is measured.

    ``lower`` and ``upper`` are inclusive bounds applied before clipping, whatever ``nclip`` is.
    Clipping is that of ``astropy.stats.sigma_clip(cenfunc="median", stdfunc="std", maxiters=nclip)``.
    """

    skystat: Skystat = Skystat.MEDIAN
    lower: float | None = None
    upper: float | None = None
    nclip: int = 5
    lsigma: float = 4.0
    usigma: float = 4.0
    binwidth: float = 0.1


@dataclass(frozen=True, slots=True)
class MaskRef:
    """A user mask (non-zero = good) for one image: a file and an HDU (index, or name and version)."""

    file: str
    path: str
    ext: str | int | None = None
    extver: int = 1


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image as the user named it.

    ``file`` is the user's own spelling (used in every result), ``path`` where it is, ``hdu`` the index
    of the HDU, ``ext``/``extver`` its EXTNAME and EXTVER (``ext`` is "" where the HDU has no name;
    ``extver`` is 1 where it has none).
    """

    file: str
    path: str
    hdu: int
    ext: str = ""
    extver: int = 1
    mask: MaskRef | None = None

    @property
    def label(self) -> str:
        """Name for messages: ``a.fits[SCI,2]``, ``a.fits[3]``, ``a.fits``."""
        if self.ext and self.ext != "PRIMARY":
            return f"{self.file}[{self.ext},{self.extver}]"
        return f"{self.file}[{self.hdu}]" if self.hdu else self.file


class CelestialWcs(Protocol):
    """What the geometry needs of a world coordinate system, whatever stands behind it."""

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the image."""
        ...

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Pixels to ICRS unit vectors, (n, 3); NaN rows where a pixel is off the sky."""
        ...

    def to_pixel(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ICRS unit vectors (n, 3) to pixels; NaN where there is no (converged) solution."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """The sky that an earlier run left in the header.

    ``level`` (at the image's centre) in the image's unit, ``dx`` and ``dy`` in that unit per pixel;
    ``subtracted``: the stored pixels are the original ones minus that plane.
    """

    level: float
    subtracted: bool
    dx: float = 0.0
    dy: float = 0.0


class Container(StrEnum):
    """How a file as a whole is packed."""

    PLAIN = "plain"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    ASDF = "asdf"  # a Roman image, seen as FITS


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlane:
    """Where the pixels of one HDU lie in a file, and how they are stored.

    Attributes
    ----------
    path : str
    container : Container
    hdu : int
        Index of the HDU.
    offset : int
        First byte of the pixels in the unpacked file.
    shape : (ny, nx)
    bitpix : int
    bscale, bzero : float
        Physical value = bzero + bscale * stored value.
    blank : int or None
        Stored integer that marks an undefined pixel.
    tiled : bool
        Stored tile-compressed in a binary table (``.fz``).
    size, mtime_ns : int
        Of the file when its headers were read: a file that changed since is refused.
    """

    path: str
    container: Container
    hdu: int
    offset: int
    shape: tuple[int, int]
    bitpix: int
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None
    tiled: bool = False
    size: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalIntegers:
    """How the pixels were stored before the program subtracted a sky from them and made them floats."""

    bitpix: int
    bscale: float
    bzero: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSource:
    """All that is needed to read the pixels of one image and say which of them count.

    ``bad_flags`` are the DQ bits that exclude a pixel (-1: any); ``dq`` is None where no DQ is used.
    ``original`` is None where the pixels are stored as they were taken.
    """

    science: StoredPlane
    dq: StoredPlane | None = None
    bad_flags: int = -1
    mask: StoredPlane | None = None
    original: OriginalIntegers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What the header of one image says; pixels are read on demand through ``image.read_pixels``.

    Attributes
    ----------
    shape : (ny, nx)
    wcs : CelestialWcs or None
        None where the method needs no WCS (``user``).
    pixel_area_arcsec2 : float
        Solid angle of a pixel in the middle of the image; NaN where unknown.
    unit : str
        BUNIT as reported ("" if missing).
    to_comparison : float
        Factor from the image's unit to the comparison unit of the run.
    comparison_unit : str
    group : str
        Images of one group share one unknown (in comparison units).
    recorded : Recorded or None
    source : PixelSource or None
        Where the pixels are; None for an image that exists in memory only.
    notes : tuple of str
        Facts for the log (``-v``): DQ extension used, HDUs skipped, inverse WCS, …
    """

    ref: ImageRef
    shape: tuple[int, int]
    wcs: CelestialWcs | None
    pixel_area_arcsec2: float = math.nan
    unit: str = ""
    to_comparison: float = 1.0
    comparison_unit: str = ""
    group: str = ""
    recorded: Recorded | None = None
    source: PixelSource | None = None
    notes: tuple[str, ...] = ()


def group_numbers(images: Sequence[ImageInfo]) -> IntArray:
    """Number of the group of every image, (N,), in the order in which the groups are first seen."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(info.group, len(numbers)) for info in images], np.int64)


@dataclass(frozen=True, slots=True)
class TangentPlane:
    """A gnomonic plane (pyproj ``+proj=gnom +R=1``) about an ICRS position; x to the east, in radians."""

    ra_deg: float
    dec_deg: float


@dataclass(frozen=True, slots=True)
class OverlapGraph:
    """Which images overlap, as columns over the M overlapping pairs (a < b, sorted by a then b).

    A pair that is too wide for one plane (two all-sky maps) has one row for each plane that it needs; such
    rows share no area.

    Attributes
    ----------
    n_images : int
    a, b : (M,) int64
        Indices into the images.
    area_arcmin2 : (M,) float64
        Solid angle of the intersection.
    polygon : PolygonRows of length M
        The intersections in their tangent planes.
    plane : (M,) int64
        Index into ``planes``.
    planes : tuple of TangentPlane
    """

    n_images: int
    a: IntArray
    b: IntArray
    area_arcmin2: FloatArray
    polygon: PolygonRows
    plane: IntArray
    planes: tuple[TangentPlane, ...]

    def pairs_of(self, image: int) -> IntArray:
        """Indices of the pairs that hold an image, in the order of the graph."""
        return np.flatnonzero((self.a == image) | (self.b == image))

    def pairs_by_image(self) -> PairsByImage:
        """`pairs_of` every image, in one pass over the pairs."""
        # Pairs are sorted by a: those where an image comes second stand before those where it comes first.
        image = np.concatenate([self.b, self.a])
        first = np.zeros(self.n_images + 1, np.int64)
        np.cumsum(np.bincount(image, minlength=self.n_images), out=first[1:])
        return PairsByImage(np.argsort(image, kind="stable") % len(self.a), first)

    def part(self, pairs: IntArray) -> OverlapGraph:
        """The graph of some of the pairs, with the planes that these need; images keep their numbers."""
        used, plane = np.unique(self.plane[pairs], return_inverse=True)
        return OverlapGraph(
            self.n_images,
            self.a[pairs],
            self.b[pairs],
            self.area_arcmin2[pairs],
            self.polygon.part(pairs),
            plane.astype(np.int64),
            tuple(self.planes[k] for k in used),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PairsByImage:
    """The pairs that hold an image, in the order of the graph: ``[image]``.

    Attributes
    ----------
    pair : (2 M,) int64
        Indices into the pairs, image after image.
    first : (N + 1,) int64
        Where those of every image begin, and 2 M.
    """

    pair: IntArray
    first: IntArray

    def __getitem__(self, image: int) -> IntArray:
        return self.pair[self.first[image] : self.first[image + 1]]


@dataclass(frozen=True, slots=True)
class SkyStatistic:
    """The sky of one set of pixels: value and 1-sigma error in the pixels' unit.

    ``n`` counts the pixels that survive limits and clipping. ``value`` and ``err`` are NaN unless
    ``status`` is ok.
    """

    value: float
    err: float
    n: int
    status: Status


@dataclass(frozen=True, slots=True, eq=False)
class SkyStatistics:
    """The skies of several sets of pixels, as columns of `SkyStatistic`."""

    value: FloatArray
    err: FloatArray
    n: IntArray
    status: tuple[Status, ...]

    @classmethod
    def of(cls, skies: Sequence[SkyStatistic]) -> SkyStatistics:
        """The columns of single ones."""
        return cls(
            value=np.array([sky.value for sky in skies], np.float64),
            err=np.array([sky.err for sky in skies], np.float64),
            n=np.array([sky.n for sky in skies], np.int64),
            status=tuple(sky.status for sky in skies),
        )

    @classmethod
    def joined(cls, parts: Sequence[SkyStatistics]) -> SkyStatistics:
        """Several one after another."""
        parts = (cls.of(()), *parts)
        return cls(
            value=np.concatenate([part.value for part in parts]),
            err=np.concatenate([part.err for part in parts]),
            n=np.concatenate([part.n for part in parts]),
            status=tuple(word for part in parts for word in part.status),
        )

    def __len__(self) -> int:
        return len(self.status)

    def part(self, rows: IntArray) -> SkyStatistics:
        """Some of them, in the order of ``rows``."""
        status = tuple(self.status[k] for k in rows.tolist())
        return SkyStatistics(self.value[rows], self.err[rows], self.n[rows], status)


@dataclass(frozen=True, slots=True)
class LocalSkies:
    """Each image's own sky over its whole frame, in the image's unit; columns over images."""

    value: FloatArray
    err: FloatArray
    n: IntArray
    status: StrArray


@dataclass(frozen=True, slots=True, eq=False)
class PlaneDifferences:
    """Differences of pairs as functions of the place on the sky, in comparison units; columns over the M pairs.

    Sums run over the places where both images were compared, with f = (1, x - x0, y - y0): positions are those of
    the tangent plane, in radians.

    Attributes
    ----------
    plane : TangentPlane
    position : (M, 2) float64
        (x0, y0) of every pair.
    moment : (M, 3, 3) float64
        Sum of weight f f^T; 0 for pairs without a common place.
    pull : (M, 3) float64
        Sum of weight f times the difference.
    noise : (M, 3, 3) float64
        Covariance of the pull; what the images share with third ones is not in it.
    """

    plane: TangentPlane
    position: FloatArray
    moment: FloatArray
    pull: FloatArray
    noise: FloatArray


@dataclass(frozen=True, slots=True)
class Measurements:
    """What the pixels said about every overlap, in comparison units; columns over the M pairs of the graph.

    Attributes
    ----------
    a, b : (M,) int64
    area_arcmin2 : (M,) float64
    sky_a, sky_b : (M,) float64
        Sky of each image in the overlap (pooled: the statistic; mesh: means over the common cells with
        common weights). NaN unless ok.
    n_a, n_b : (M,) int64
        Good pixels that were used.
    delta, delta_err : (M,) float64
        ``sky_a - sky_b`` and its 1-sigma error (finite and > 0 where ok).
    weight : (M,) float64
        Weight of the pair in the least-squares sum; 0 for pairs that are not used.
    status : (M,) object
        Status words; only ``ok`` pairs enter the solution.
    noise : csr_array (M, K) or None
        Noise factor S with covariance of ``delta`` = S S^T: columns are independent sources of noise
        (a patch of pixels of one image), which several pairs may share. None: the pair weights are the
        information of a joint fit, so the covariance of the solution is the inverse of its normal matrix.
    local : LocalSkies or None
    n_good : (N,) int64
        Good pixels seen in each image: of the whole frame (of a file behind a URL: of the rows that its overlaps need,
        unless local skies were measured).
    pair_dof : (M,) float64 or None
        From a joint fit (mesh): expectation of ``weight * delta_err**2``, which pairs of one cell share.
    information : (M,) float64 or None
        From a joint fit: what ``weight`` would be for the noise of the good pixels alone.
    planes : PlaneDifferences or None
        With the model ``plane``; ``weight`` and ``delta`` are then their first moments.
    """

    a: IntArray
    b: IntArray
    area_arcmin2: FloatArray
    sky_a: FloatArray
    sky_b: FloatArray
    n_a: IntArray
    n_b: IntArray
    delta: FloatArray
    delta_err: FloatArray
    weight: FloatArray
    status: StrArray
    n_good: IntArray
    noise: csr_array | None = None
    local: LocalSkies | None = None
    pair_dof: FloatArray | None = None
    information: FloatArray | None = None
    planes: PlaneDifferences | None = None


@dataclass(frozen=True, slots=True)
class Offsets:
    """Least-squares offsets of the unknowns (groups), in comparison units, mean zero in every component.

    Attributes
    ----------
    offset, sigma : (G,) float64
        Offset and its 1-sigma error in the gauge where the component's mean is zero.
    component : (G,) int64
        Component of every group; numbered from 0 by the first group that is in it.
    residual : (M,) float64
        ``delta - (offset_a - offset_b)`` for every measured pair (NaN where not used).
    rms_residual, chi2, dof : (C,) float64
        Per component; ``dof`` counts independent information, NaN where there is none.
    sigma_exact : bool
        False where the errors are estimates (very large components).
    kept : (M,) float64 or None
        Part of its weight, 1e-6 to 1, that each pair kept in a robust solution; None for a plain one.
    closure : (C,) float64 or None
        Rms by which loops of differences fail to close, NaN where there is no loop; None for planes.
    n_loops : (C,) int64 or None
    """

    offset: FloatArray
    sigma: FloatArray
    component: IntArray
    residual: FloatArray
    rms_residual: FloatArray
    chi2: FloatArray
    dof: FloatArray
    sigma_exact: bool = True
    kept: FloatArray | None = None
    closure: FloatArray | None = None
    n_loops: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """The sky of every image; columns over the N images, M pairs and C components.

    Attributes
    ----------
    sky, sky_err : (N,) float64
        Value to subtract from the original pixels, in the image's own unit; NaN where there is none.
    status : (N,) object
        Status words.
    component : (N,) int64
        Component of every image.
    residual : (M,) float64
        In comparison units.
    anchor : (C,) object
        What holds each component: ``lowest = 0``, ``highest = 0``, the label of the reference image, …
    n_images : (C,) int64
    rms_residual, chi2, dof : (C,) float64
    warnings : tuple of str
    kept : (M,) float64 or None
        Part of its weight that each pair kept in a robust solution; None for a plain one.
    sigma_exact : bool
        False where ``sky_err`` is an estimate (components of more than 5,000 groups).
    tilt : (N, 2) float64 or None
        With the model ``plane``: of every image's sky along x and y, per pixel; ``sky`` is at the image's centre.
    closure : (C,) float64 or None
        Rms by which loops of differences fail to close, NaN where there is no loop; None where none were followed.
    n_loops : (C,) int64 or None
    """

    sky: FloatArray
    sky_err: FloatArray
    status: StrArray
    component: IntArray
    residual: FloatArray
    anchor: StrArray
    n_images: IntArray
    rms_residual: FloatArray
    chi2: FloatArray
    dof: FloatArray
    warnings: tuple[str, ...] = ()
    kept: FloatArray | None = None
    sigma_exact: bool = True
    tilt: FloatArray | None = None
    closure: FloatArray | None = None
    n_loops: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of a run that changes files: where it is, and what writes it (None: it is there already)."""

    path: str
    write: Callable[[BinaryIO], object] | None
