"""The mosaic at low resolution, before and after: blocks of pixels, placed on the sky and averaged.

A look at the seams, not a coadd: each point of the picture takes, from every image that covers it, the mean of the
block of good pixels that lies there, or its median, which shows the sky and leaves the stars out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from skymatch_cli.images.image import read_pixels
from skymatch_cli.model import FloatArray
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.run.tasks import Progress, run
from skymatch_cli.settings import Settings

from .blocks import block_means
from .display import DisplayFrame
from .scene import Scene

if TYPE_CHECKING:
    from skymatch_cli.images.image import Pixels

Reduction = Callable[..., FloatArray]  # data, good, side -> one number a block


@dataclass(frozen=True, slots=True)
class Quicklook:
    """Two pictures of the same sky.

    Attributes
    ----------
    frame : DisplayFrame
    before, after : (ny, nx) float64
        In comparison units; NaN where there is no image. ``[0, 0]`` is the south-east corner.
    """

    frame: DisplayFrame
    before: FloatArray
    after: FloatArray


@dataclass(frozen=True, slots=True)
class Stretch:
    """Pixel values to grey: asinh about ``black``, linear within ``softening`` of it, 1 at ``white``."""

    black: float
    white: float
    softening: float

    def grey(self, values: FloatArray) -> npt.NDArray[np.uint8]:
        """Values to 0…255; NaN gives 0."""
        scaled = np.arcsinh((values - self.black) / self.softening)
        top = np.arcsinh((self.white - self.black) / self.softening)
        grey: npt.NDArray[np.uint8] = np.nan_to_num(np.clip(scaled / top, 0, 1) * 255).round().astype(np.uint8)
        return grey

    def shifted(self, by: float) -> Stretch:
        """The same contrast about another level."""
        return Stretch(self.black + by, self.white + by, self.softening)


@dataclass(frozen=True, slots=True)
class View:
    """A picture that is wanted: where, and what stands for a block of pixels."""

    frame: DisplayFrame
    reduction: Reduction = block_means


@dataclass(frozen=True, slots=True)
class _Patch:
    """What one image adds to the picture: a rectangle whose first pixel is (x0, y0), NaN outside the image."""

    x0: int
    y0: int
    values: FloatArray
    sky: FloatArray


def quicklooks(
    scene: Scene,
    sky: FloatArray,
    settings: Settings,
    views: Sequence[View],
    *,
    tilt: FloatArray | None = None,
    progress: Progress | None = None,
) -> tuple[Quicklook, ...]:
    """Draw the mosaic as it was and with the skies subtracted; the pixels are read once for all views.

    Parameters
    ----------
    scene : Scene
        N images.
    sky : (N,) float64
        In each image's own unit; an image without one (NaN) is left out.
    settings : Settings
        Which pixels are good.
    views : sequence of View
    tilt : (N, 2) float64, optional
        Of the skies along x and y, per pixel; ``sky`` is then that of the image's centre.
    progress : Progress, optional

    Returns
    -------
    tuple of Quicklook
        One for each view.

    Raises
    ------
    InputError
        If the pixels of an image can't be read.

    """
    used = np.flatnonzero(np.isfinite(sky)).tolist()
    if progress is not None:
        progress.stage("quicklook", len(used))

    def work(i: int) -> tuple[_Patch, ...]:
        plane = SkyPlane(float(sky[i]), *(() if tilt is None else tilt[i].tolist()))
        pixels = read_pixels(scene.infos[i], settings)
        return tuple(_patch(scene, i, pixels, plane, view) for view in views)

    sums = [np.zeros((3, *view.frame.shape)) for view in views]
    for i, patches in zip(used, run(work, used, jobs=settings.jobs, progress=progress), strict=True):
        for patch, total in zip(patches, sums, strict=True):
            _add(patch, total, scene.infos[i].to_comparison)
    with np.errstate(invalid="ignore"):
        pairs = [total[:2] / total[2] for total in sums]
    return tuple(Quicklook(view.frame, *pair) for view, pair in zip(views, pairs, strict=True))


def quicklook(
    scene: Scene, sky: FloatArray, settings: Settings, frame: DisplayFrame, *, tilt: FloatArray | None = None
) -> Quicklook:
    """One view, of means, as `quicklooks` draws it."""
    return quicklooks(scene, sky, settings, [View(frame)], tilt=tilt)[0]


def _add(patch: _Patch, total: FloatArray, factor: float) -> None:
    """Add a patch to the sums (before, after, count), in comparison units."""
    height, width = patch.values.shape
    place = np.s_[patch.y0 : patch.y0 + height, patch.x0 : patch.x0 + width]
    seen = np.isfinite(patch.values)
    values = np.where(seen, patch.values, 0.0) * factor
    before, after, count = total
    before[place] += values
    after[place] += np.where(seen, values - patch.sky * factor, 0.0)
    count[place] += seen


def stretches(look: Quicklook) -> tuple[Stretch, Stretch]:
    """One contrast for both pictures, each about its own level (``globalmin`` and ``user`` shift all)."""
    after = look.after[np.isfinite(look.after)]
    if not after.size:
        return (Stretch(0.0, 1.0, 1.0),) * 2
    low, level, high = (float(q) for q in np.percentile(after, [1.0, 50.0, 99.7]))
    before = look.before[np.isfinite(look.before)]
    spread = max(level - low, float(np.ptp(np.percentile(before - after, [0.5, 99.5]))), 1e-6 * max(1.0, abs(level)))
    stretch = Stretch(black=level - 1.5 * spread, white=max(high, level + 2 * spread), softening=spread)
    return stretch.shifted(float(np.median(before)) - level), stretch


def sky_stretches(look: Quicklook) -> tuple[Stretch, Stretch]:
    """The contrast of a look without stars: linear, wide enough for the steps and for most of the sky."""
    after = look.after[np.isfinite(look.after)]
    if not after.size:
        return (Stretch(0.0, 1.0, 1.0),) * 2
    low, level, high = (float(q) for q in np.percentile(after, [2.0, 50.0, 90.0]))
    before = look.before[np.isfinite(look.before)]
    shift = float(np.median(before)) - level
    step = 1.1 * float(np.abs(before - after - shift).max())
    black, white = min(low, level - step), max(high, level + step, level + 1e-6 * max(1.0, abs(level)))
    stretch = Stretch(black, white, softening=10 * (white - black))
    return stretch.shifted(shift), stretch


def _patch(scene: Scene, i: int, pixels: Pixels, sky: SkyPlane, view: View) -> _Patch:
    """The blocks of one image at the points of the picture that its bounding box covers."""
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
    return _Patch(int(low[0]), int(low[1]), values, sky.at(x, y, shape))


def _block_side(px: FloatArray, py: FloatArray) -> int:
    """Pixels of the image along one pixel of the picture."""
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
