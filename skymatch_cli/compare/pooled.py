"""Overlaps to measurements, the pooled way: one statistic of each image over each of its overlaps.

Every image is read once, by one worker, which measures all of its overlaps (and its own sky, where asked
for); a pair is then the difference of two numbers. Images keep their own pixels: nothing is resampled.

Two overlaps of one image may share pixels (in a stack of dithers nearly all of them), and then their errors
are not independent. Each worker therefore also counts how many pixels of every overlap lie in each block of
a coarse grid on its frame; `pooledpairs` turns that into the covariance of the differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import Skystat, WarningName
from skymatch_cli.compare.pieces import PieceMeans, piece_maps, piece_means
from skymatch_cli.errors import InputError, Problem
from skymatch_cli.images.pixels import Pixels, pixels_of
from skymatch_cli.model import (
    FloatArray,
    ImageInfo,
    IntArray,
    Measurements,
    OverlapGraph,
    SkyStatistic,
    SkyStatistics,
    SkyWarning,
    StatisticSettings,
    Status,
    n_pixels_of,
)
from skymatch_cli.run.tasks import Tasks
from skymatch_cli.settings import Settings
from skymatch_cli.sky.raster import Spans, spans_of_polygons
from skymatch_cli.sky.rings import pixel_rings
from skymatch_cli.statistics.amplifiers import UNKNOWN_STEPS, amplifier_steps
from skymatch_cli.statistics.estimate import SYMMETRIC
from skymatch_cli.statistics.ownsky import own_sky, without_sources
from skymatch_cli.statistics.photons import clipped_photons
from skymatch_cli.statistics.regions import region_statistics
from skymatch_cli.statistics.scale import pixel_scale

CountArray = npt.NDArray[np.unsignedinteger[Any]]
_MAX_BLOCKS, _MIN_BLOCKS = 16, 4  # a side of the grid on which shared pixels are counted
_LOCAL = 3.0  # mean less median over that by the skewness, which clipping cuts
_TOGETHER = 16  # regions whose runs fit the cache
_MAX_COVERAGE = 500_000  # entries of all images together; the grid gets coarser in deep stacks


@dataclass(frozen=True, slots=True)
class ImageMeasurement:
    """Result of the measurement of one image, in the image's unit."""

    pairs: IntArray  # (R,): indices of the image's overlaps in the graph
    regions: SkyStatistics  # one for each of ``pairs``
    blocks: CountArray  # (R, n_blocks): pixels of each region in each block of the frame
    pieces: PieceMeans
    local: SkyStatistic | None  # over the whole frame
    n_good: int  # good pixels among those that were read
    warnings: tuple[SkyWarning, ...] = ()
    problems: tuple[Problem, ...] = ()  # why the pixels could not be read; the regions say ``unreadable`` then
    scale: FloatArray = field(default_factory=lambda: np.full(2, np.nan))  # see `pixel_scale`
    steps: FloatArray = field(default_factory=UNKNOWN_STEPS.copy)  # see `amplifier_steps`

    def joined(self, new: ImageMeasurement) -> ImageMeasurement:
        """Return the finding with further overlaps, in the order of the graph."""
        pairs = np.concatenate([self.pairs, new.pairs])
        order = np.argsort(pairs, kind="stable")
        return replace(
            self,
            pairs=pairs[order],
            regions=SkyStatistics.joined([self.regions, new.regions]).part(order),
            blocks=np.concatenate([self.blocks, new.blocks])[order],
            pieces=PieceMeans.joined([self.pieces, new.pieces]).part(order),
            problems=new.problems,
        )


def pooled_tasks(
    infos: Sequence[ImageInfo],
    graph: OverlapGraph,
    settings: Settings,
    *,
    wanted: Sequence[int],
    known_pairs: Callable[[int], IntArray | None],
    with_local: bool,
) -> Tasks[ImageMeasurement]:
    """The measuring of overlaps, image by image, in the order of ``wanted``.

    ``known_pairs`` gives the pairs of an image that need not be measured; None where nothing is known of it: then its
    own sky is measured too, if ``with_local``.
    """
    side = blocks_per_side(len(graph.a))
    mine = graph.pairs_by_image()

    def make(i: int) -> PooledTask:
        known = known_pairs(i)
        pairs = mine[i] if known is None else np.setdiff1d(mine[i], known)
        return PooledTask(
            image=i,
            info=infos[i],
            pairs=pairs,
            overlaps=graph.part(pairs),
            settings=settings,
            side=side,
            with_local=with_local and known is None,
        )

    return Tasks(make, wanted, n_pixels_of(infos, wanted))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PooledTask:
    """The measurement of one image: all that a worker needs to know."""

    image: int
    info: ImageInfo
    pairs: IntArray  # (R,): the overlaps to measure: indices into the graph of the run
    overlaps: OverlapGraph  # these overlaps alone
    settings: Settings
    side: int  # blocks a side of the grid on which shared pixels are counted
    with_local: bool

    def __call__(self) -> ImageMeasurement:
        """Read the pixels and measure."""
        info, regions, chosen = self.info, self._regions(), self.settings
        needed = [] if self.with_local or chosen.mask_sources else [spans.y for spans in regions]
        try:
            pixels = pixels_of(info, chosen, needed)
        except InputError as error:
            return self._unread(regions, error.problems)
        good = without_sources(pixels.data, pixels.good) if chosen.mask_sources else pixels.good
        found = region_statistics(pixels.data, good, regions, chosen.statistic)
        local = None
        if self.with_local:
            # By itself: what is asked for beside them must not change a digit of the regions.
            local = own_sky(pixels.data, pixels.good, chosen.statistic, mask_sources=chosen.mask_sources)
        skies = SkyStatistics.of([_with_status(r, spans) for r, spans in zip(found, regions, strict=True)])
        pieces = PieceMeans.none(len(regions))
        if info.wcs is not None and regions:
            maps = piece_maps(self.overlaps, regions, info.wcs)
            pieces, asymmetry = piece_means(pixels.data, good, regions, skies, maps)
            beyond = np.maximum(asymmetry - SYMMETRIC * np.sqrt(pieces.variance), 0)
            skies = replace(skies, crowding=np.minimum(skies.crowding, _LOCAL * beyond))
        return ImageMeasurement(
            pairs=self.pairs,
            regions=skies,
            blocks=self._blocks(regions),
            pieces=pieces,
            local=local,
            n_good=int(np.count_nonzero(pixels.good)),
            scale=pixel_scale(pixels.data, pixels.good),
            steps=amplifier_steps(pixels.data, pixels.good),
            warnings=(*pixels.warnings, *_photons(info, pixels, self.settings.statistic)),
        )

    def lost(self, why: str) -> ImageMeasurement:
        """Return the finding of an image whose workers all died."""
        return self._unread(self._regions(), (Problem(self.info.ref.label, why, "run again"),))

    def _regions(self) -> list[Spans]:
        info = self.info
        if not len(self.pairs) or info.wcs is None:
            return []
        rings = pixel_rings(self.overlaps, self.image, info.wcs, info.ref.label)
        return spans_of_polygons(rings, info.shape)

    def _blocks(self, regions: Sequence[Spans]) -> CountArray:
        groups = [regions[k : k + _TOGETHER] for k in range(0, len(regions), _TOGETHER)]
        counts = (_block_counts(group, self.info.shape, self.side) for group in groups)
        blocks = np.concatenate([np.zeros((0, self.side * self.side), np.int64), *counts])
        return blocks.astype(np.uint16 if blocks.max(initial=0) < 2**16 else np.uint32)

    def _unread(self, regions: Sequence[Spans], problems: tuple[Problem, ...]) -> ImageMeasurement:
        nothing = SkyStatistic(np.nan, np.nan, 0, Status.UNREADABLE)
        return ImageMeasurement(
            pairs=self.pairs,
            regions=SkyStatistics.of([nothing] * len(regions)),
            blocks=self._blocks(regions),
            pieces=PieceMeans.none(len(regions)),
            local=nothing if self.with_local else None,
            n_good=0,
            problems=problems,
        )


def unmeasured(graph: OverlapGraph, n_images: int) -> Measurements:
    """The measurements of a run that needs no pixels (method ``user``): no pair."""
    m = len(graph.a)
    nothing = np.full(m, np.nan)
    none = np.zeros(m, np.int64)
    return Measurements(
        a=graph.a,
        b=graph.b,
        area_arcmin2=graph.area_arcmin2,
        sky_a=nothing,
        sky_b=nothing,
        n_a=none,
        n_b=none,
        delta=nothing,
        delta_err=nothing,
        weight=np.zeros(m),
        status=np.full(m, Status.OK, object),
        n_good=np.zeros(n_images, np.int64),
    )


def blocks_per_side(n_pairs: int) -> int:
    """Blocks a side of the grid on which shared pixels are counted: 4, 8 or 16.

    Powers of two, so that counts on one grid give those on a coarser one.
    """
    side = _MAX_BLOCKS
    while side > _MIN_BLOCKS and 2 * n_pairs * side * side > _MAX_COVERAGE:
        side //= 2
    return side


def coarser(blocks: CountArray, side: int) -> CountArray:
    """Counts (R, n_blocks) on a grid of ``side`` blocks a side, from those on one that is finer by a power of two."""
    old = math.isqrt(blocks.shape[1])
    step = old // side
    if step == 1:
        return blocks
    summed: CountArray = blocks.reshape(len(blocks), side, step, side, step).sum(axis=(2, 4), dtype=np.uint32)
    return summed.reshape(len(blocks), side**2)


def _block_counts(regions: Sequence[Spans], shape: tuple[int, int], side: int) -> IntArray:
    """Pixels of each region in each block of a ``side`` × ``side`` grid on the frame, (R, side * side)."""
    ny, nx = shape
    edges = np.ceil(np.arange(side + 1) * nx / side).astype(np.int32)
    y = np.concatenate([spans.y for spans in regions])
    x0, x1 = (np.concatenate(x, dtype=np.int32) for x in zip(*((r.x0, r.x1) for r in regions), strict=True))
    before = np.minimum(np.maximum(edges[:, None], x0), x1)
    inside = before[1:] - before[:-1]
    # the runs of each row of blocks lie together: runs are sorted by their rows
    row = y * side // ny + np.repeat(np.arange(len(regions)) * side, [len(spans.y) for spans in regions])
    counts = np.zeros((len(regions) * side, side), np.int64)
    if row.size:
        first = np.concatenate([[0], np.flatnonzero(row[1:] != row[:-1]) + 1])
        counts[row[first]] = np.add.reduceat(inside, first, axis=1, dtype=np.int32).T
    return counts.reshape(len(regions), side * side)


def _photons(info: ImageInfo, pixels: Pixels, statistic: StatisticSettings) -> tuple[SkyWarning, ...]:
    """A warning where clipping, or a median, takes photons for outliers."""
    if statistic.skystat == Skystat.MEAN and not statistic.nclip:
        return ()
    lost = clipped_photons(pixels.data, pixels.good)
    if not lost:
        return ()
    text = f"{info.ref.label}: its bright pixels are single photons: clipping them takes {lost:.2g} off its sky"
    return (SkyWarning(WarningName.PHOTONS, text, lost, info.unit),)


def _with_status(found: SkyStatistic, spans: Spans) -> SkyStatistic:
    """A region without the centre of a pixel is too small, not masked."""
    return found if len(spans.y) else replace(found, status=Status.TOO_FEW_PIXELS)
