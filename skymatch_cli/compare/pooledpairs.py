"""Differences of overlaps, and their errors, from the pooled statistics of all images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array, diags_array, hstack

from skymatch_cli.compare.pieces import PieceMeans, PiecePairs, as_loops_allow
from skymatch_cli.compare.pooled import CountArray, ImageMeasurement, coarser
from skymatch_cli.compare.steperrors import step_errors, step_variances, variances
from skymatch_cli.model import (
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    LocalSkies,
    Measurements,
    OverlapGraph,
    SkyStatistics,
    Status,
    StrArray,
    group_numbers,
)
from skymatch_cli.statistics.scale import scales

_BORDER = 0.8  # exponent of shared parts of a block that borders cross
_OF_CROWDING = 0.5  # error of a level over mean less median of its pixels: a bias that differs with the seeing


def assemble_pooled(infos: Sequence[ImageInfo], graph: OverlapGraph, found: Sequence[ImageMeasurement]) -> Measurements:
    """Per-image findings to columns over the pairs, in comparison units.

    Errors are those of the noise, also of that which pixels have in common, and of structure within the overlaps. The
    level of an image is uncertain by sources between its pixels, and by factors between the images.
    """
    both = _BothSides.of_images(infos, graph, found)
    status = _pair_status(infos, graph, both.status)
    ok, ends = status == Status.OK, np.stack([graph.a, graph.b])
    covered = np.bincount(ends[:, ok].reshape(-1), both.share[:, ok].reshape(-1), len(infos))
    shared = (2 / (1 + np.maximum(covered, 1)))[ends].min(axis=0)
    pieces = PiecePairs.of_means(*both.pieces, ok)
    of_noise, structure = pieces.scatter(ends, 1 - both.share)
    err, delta = np.where(ok, both.err, 0.0) * np.sqrt(of_noise), both.sky[0] - both.sky[1]
    variance = (err**2).sum(axis=0)
    if structure.any():
        structure = ok * as_loops_allow(graph, delta, np.where(ok, variance, np.inf), structure, shared)
    steps, of_steps = step_variances(infos, [f.steps for f in found]), None
    if steps.any():
        of_steps = step_errors(graph, both.quarters, steps, np.where(ok, structure, np.inf))
    total = np.where(ok, variance + structure + (0 if of_steps is None else variances(of_steps)), 1.0)
    gain, gain_err, by_gain, hidden = pieces.zero_points(graph, delta, shared)
    noise = pooled_noise(err, *both.regions)
    if structure.any():
        noise = csr_array(hstack([noise, diags_array(np.sqrt(structure))]))
    if of_steps is not None:
        noise = csr_array(hstack([noise, of_steps]))
    of_level = (_OF_CROWDING * both.mean_crowding(ends, ok, len(infos))) ** 2 + by_gain
    return Measurements(
        a=graph.a,
        b=graph.b,
        area_arcmin2=graph.area_arcmin2,
        sky_a=both.sky[0],
        sky_b=both.sky[1],
        n_a=both.n[0],
        n_b=both.n[1],
        delta=delta,
        delta_err=np.where(ok, np.sqrt(variance), np.nan),
        weight=ok / total,
        status=status,
        n_good=np.array([f.n_good for f in found], np.int64),
        noise=noise,
        photometric=variance / of_noise / total,
        level_variance=of_level,
        zero_point=np.stack([gain, gain_err, hidden]),
        local=LocalSkies.of([f.local for f in found]),
        scale=scales(infos, [f.scale for f in found]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _BothSides:
    """Findings of both images of M pairs, in comparison units: columns (2, M)."""

    sky: FloatArray
    err: FloatArray
    crowding: FloatArray
    n: IntArray
    status: StrArray
    share: FloatArray  # of the frame that the overlap covers
    quarters: FloatArray  # (2, M, 2, 4): of the frame along x and y, their shares in the overlap
    pieces: tuple[PieceMeans, PieceMeans]
    regions: tuple[IntArray, IntArray, IntArray, CountArray]  # images, sides, pairs and pixels in blocks, for noise

    @classmethod
    def of_images(
        cls, infos: Sequence[ImageInfo], graph: OverlapGraph, found: Sequence[ImageMeasurement]
    ) -> _BothSides:
        """Sort the regions of the images by pairs."""
        m = len(graph.a)
        image = np.repeat(np.arange(len(found)), [len(f.pairs) for f in found])
        pair = np.concatenate([np.empty(0, np.int64), *(f.pairs for f in found)])
        side = np.where(graph.a[pair] == image, 0, 1)
        factor = np.array([info.to_comparison for info in infos])[image]
        n_pixels = np.array([info.shape[0] * info.shape[1] for info in infos], np.float64)[image]
        regions = SkyStatistics.joined([f.regions for f in found])
        blocks = np.concatenate([f.blocks for f in found if len(f.pairs)] or [np.zeros((0, 1), np.uint16)])
        row = np.zeros((2, m), np.int64)
        row[side, pair] = np.arange(len(pair))
        if len(pair) != 2 * m:
            raise ValueError("not all overlaps were measured in both images")
        pieces = PieceMeans.joined([f.pieces for f in found]).scaled(factor)
        return cls(
            sky=(regions.value * factor)[row],
            err=(regions.err * np.abs(factor))[row],
            crowding=(regions.crowding * np.abs(factor))[row],
            n=regions.n[row],
            status=np.array(regions.status, object)[row],
            share=np.minimum(blocks.sum(axis=1, dtype=np.int64) / n_pixels, 1.0)[row],
            quarters=_quarters(blocks)[row],
            pieces=(pieces.part(row[0]), pieces.part(row[1])),
            regions=(image, side, pair, blocks),
        )

    def mean_crowding(self, ends: IntArray, used: BoolArray, n: int) -> FloatArray:
        """Mean over the overlaps of every image that are ``used`` (M,), by their pixels, (n,)."""
        image, weight = ends[:, used].reshape(-1), self.n[:, used].reshape(-1)
        total = np.bincount(image, weight * self.crowding[:, used].reshape(-1), n)
        return np.asarray(total / np.maximum(np.bincount(image, weight, n), 1))


def _quarters(blocks: CountArray) -> FloatArray:
    """Shares (R, 2, 4) of the quarters of the frame along x and y in regions, from their pixels (R, n) in blocks."""
    cells = coarser(blocks, 4).reshape(-1, 4, 4).astype(np.float64)
    total = np.maximum(cells.sum(axis=(1, 2)), 1)
    return np.asarray(np.stack([cells.sum(axis=1), cells.sum(axis=2)], axis=1) / total[:, None, None])


def _pair_status(infos: Sequence[ImageInfo], graph: OverlapGraph, words: StrArray) -> StrArray:
    """The worse word of the two images; pairs within a group are reported as such where both were measured."""
    status: StrArray = np.where(words[0] == Status.OK, words[1], words[0])
    group = group_numbers(infos)
    status[(status == Status.OK) & (group[graph.a] == group[graph.b])] = Status.SAME_GROUP
    return status


def pooled_noise(
    err: FloatArray, image: IntArray, side: IntArray, pair: IntArray, counts: npt.NDArray[np.integer]
) -> csr_array:
    """Noise factor S (M, K) of pooled differences: S S^T is their covariance, ``(err**2).sum(axis=0)`` its diagonal.

    The statistic of an image over an overlap behaves as a mean over the overlap's pixels. Two overlaps with n and m
    pixels, k of them common, then have errors with correlation k / sqrt(n m). Which pixels are common is known by
    blocks of the frame, each one independent source of noise: two overlaps that cover the parts f and g of a block are
    taken to share (f g)^0.8 of it. That is exact where one of them covers it fully or not at all, and in between it is
    the average of what borders do: parallel ones share min(f, g), as (f g)^0.73 on average; crossing ones f g. What is
    left of a pair's variance is its own, so that S is sparse and the variances are exact.

    Parameters
    ----------
    err : (2, M) float64
        1-sigma error of the statistic of the first and the second image of every pair, in comparison
        units; 0 for pairs that are not used.
    image, side, pair : (k,) int64
        The regions: overlap ``pair`` in an image that is the first of it (0) or the second (1).
    counts : (k, n_blocks) int
        Pixels of each region in each block of the frame. Where a pair has none, its noise is its own.
    """
    n_pairs = err.shape[1]
    region, block = np.nonzero(counts)
    n_pixels = counts[region, block].astype(float)
    image, side, pair = image[region], side[region], pair[region]
    of_side = side * n_pairs + pair
    variance = err[side, pair] ** 2 * n_pixels / np.bincount(of_side, n_pixels, minlength=2 * n_pairs)[of_side]
    column = image * counts.shape[1] + block
    n_shared = int(column.max(initial=0)) + 1
    largest = np.zeros(n_shared)
    np.maximum.at(largest, column, n_pixels)
    shared = variance * (n_pixels / largest[column]) ** (2 * _BORDER - 1)

    own = (err**2).sum(axis=0) - np.bincount(pair, shared, minlength=n_pairs)
    value = np.concatenate([(1.0 - 2.0 * side) * np.sqrt(shared), np.sqrt(np.maximum(own, 0.0))])
    row = np.concatenate([pair, np.arange(n_pairs)])
    column = np.concatenate([column, n_shared + np.arange(n_pairs)])
    return coo_array((value, (row, column)), shape=(n_pairs, n_shared + n_pairs)).tocsr()
