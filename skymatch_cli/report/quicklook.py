"""Draw the mosaic at low resolution, before and after: blocks of pixels, placed on the sky and averaged.

A look at the seams, not a coadd: each point of the picture is the mean over the images that cover it of a block of
good pixels there, of which the mean is taken, or the median, which leaves stars out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skymatch_cli.images.pixels import Pixels, read_pixels
from skymatch_cli.model import BoolArray, FloatArray, PixelArray
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.run.tasks import NO_PROGRESS, Progress, run
from skymatch_cli.settings import Settings

from .scene import DisplayFrame, Scene

Reduction = Callable[..., FloatArray]  # data, good, side -> one number per block
_Patch = tuple[tuple[slice, slice], FloatArray, FloatArray]
_SAMPLES = 32  # pixels along a block that are used: the median of a thousand is good enough


@dataclass(frozen=True, slots=True)
class Quicklook:
    """Two pictures of the same sky."""

    frame: DisplayFrame
    before: FloatArray  # (ny, nx): in comparison units; NaN: no image there. ``[0, 0]`` is the south-east corner
    after: FloatArray  # the same with the skies subtracted


def block_means(data: PixelArray, good: BoolArray, side: int) -> FloatArray:
    """Return means of the good pixels in blocks of ``side`` × ``side`` (cut at the far edges); NaN without any.

    Examples
    --------
    >>> data = np.array([[1.0, 3.0, 5.0], [2.0, 2.0, 7.0]])
    >>> block_means(data, data < 7, 2)
    array([[2., 5.]])
    """
    starts = [np.arange(0, n, side) for n in data.shape]

    def block_sums(values: npt.NDArray[np.generic]) -> FloatArray:
        return np.add.reduceat(np.add.reduceat(values, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)

    count = block_sums(good)
    total = block_sums(np.where(good, data, 0))
    means: FloatArray = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means


def block_medians(data: PixelArray, good: BoolArray, side: int) -> FloatArray:
    """Return medians (the lower of two middle values) in the same blocks, of about a thousand pixels each at most."""
    ny, nx = (-(-n // side) for n in data.shape)
    medians = np.empty((ny, nx))
    step = -(-side // _SAMPLES)
    n = -(-side // step)
    for line in range(ny):  # a row of blocks at a time: no second copy of the image
        rows = np.s_[line * side : (line + 1) * side : step]
        values = np.full((n, nx * side), np.nan)
        part = np.where(good[rows], data[rows], np.nan)
        values[: len(part), : part.shape[1]] = part
        blocks = values.reshape(n, nx, side)[:, :, ::step].swapaxes(0, 1).reshape(nx, -1)
        blocks.sort(axis=1)  # NaN are sorted last
        middle = np.maximum(np.isfinite(blocks).sum(axis=1) - 1, 0) // 2
        medians[line] = blocks[np.arange(nx), middle]
    return medians


@dataclass(frozen=True, slots=True)
class View:
    """A picture to draw: its frame, and the function that reduces a block of pixels to a number."""

    frame: DisplayFrame
    reduction: Reduction = block_means


def quicklooks(
    scene: Scene,
    sky: FloatArray,
    settings: Settings,
    views: Sequence[View],
    *,
    tilt: FloatArray | None = None,
    progress: Progress = NO_PROGRESS,
) -> tuple[Quicklook, ...]:
    """Draw the mosaic as it was and with the skies subtracted; the pixels are read once for all views.

    ``sky`` (N,) is in each image's own unit; an image without one (NaN) is left out. ``tilt`` (N, 2, 5 or 9) are the
    coefficients of skies that are not constant (see `SkyPlane`). InputError if the pixels of an image can't be read.
    """
    used = np.flatnonzero(np.isfinite(sky)).tolist()
    progress.stage("quicklook", len(used))

    def work(i: int) -> tuple[_Patch, ...]:
        plane = SkyPlane(float(sky[i]), *(() if tilt is None else tilt[i].tolist()))
        pixels = read_pixels(scene.infos[i], settings)
        return tuple(_patch(scene, i, pixels, plane, view) for view in views)

    sums = [np.zeros((3, *view.frame.shape)) for view in views]
    for i, patches in zip(used, run(work, used, jobs=settings.jobs, progress=progress), strict=True):
        factor = scene.infos[i].to_comparison
        for (place, values, at), (before, after, count) in zip(patches, sums, strict=True):
            seen = np.isfinite(values)
            known = np.where(seen, values, 0.0) * factor
            before[place] += known
            after[place] += np.where(seen, known - at * factor, 0.0)
            count[place] += seen
    with np.errstate(invalid="ignore"):
        pairs = [total[:2] / total[2] for total in sums]
    return tuple(Quicklook(view.frame, *pair) for view, pair in zip(views, pairs, strict=True))


def _patch(scene: Scene, i: int, pixels: Pixels, sky: SkyPlane, view: View) -> _Patch:
    """Return the points of the picture about an image, its blocks there (NaN outside of it), and its sky."""
    frame, shape, wcs = view.frame, scene.infos[i].shape, scene.wcs(i)
    corners = frame.to_pixel(np.concatenate(scene.image_rings(i)))
    low = np.maximum(np.floor(np.nanmin(corners, axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(np.nanmax(corners, axis=0)) + 2, frame.shape[::-1]).astype(int)
    ys, xs = np.mgrid[low[1] : high[1], low[0] : high[0]]
    px, py = (p.reshape(xs.shape) for p in wcs.to_pixel(frame.to_sky(xs.ravel(), ys.ravel())))
    side = _block_side(px, py)
    blocks = view.reduction(pixels.data, pixels.good, side)
    x, y = (side * ((p + 0.5) // side) + 0.5 * (side - 1) for p in (px, py))
    values = _nearest(blocks, px, py, side, shape)
    return np.s_[low[1] : high[1], low[0] : high[0]], values, sky.at(x, y, shape)


def _block_side(px: FloatArray, py: FloatArray) -> int:
    """Return the number of pixels of the image along one pixel of the picture."""
    steps = [np.hypot(np.diff(px, axis=a), np.diff(py, axis=a)).ravel() for a in (0, 1)]
    step = np.concatenate(steps)
    step = step[np.isfinite(step)]
    return max(1, round(float(np.median(step)))) if step.size else 1


def _nearest(blocks: FloatArray, px: FloatArray, py: FloatArray, side: int, shape: tuple[int, int]) -> FloatArray:
    ny, nx = shape
    with np.errstate(invalid="ignore"):
        inside = (px >= -0.5) & (px < nx - 0.5) & (py >= -0.5) & (py < ny - 0.5)
    values = np.full(px.shape, np.nan)
    column, line = (((p[inside] + 0.5) // side).astype(int) for p in (px, py))
    values[inside] = blocks[line, column]
    return values
