"""The mosaic at low resolution, before and after: means of blocks of pixels, placed on the sky and averaged.

A look at the seams, not a coadd: each point of the picture takes, from every image that covers it, the
mean of the block of good pixels that lies there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skymatch_cli.execution import Progress, run
from skymatch_cli.fits.image import read_pixels
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, ImageInfo, PixelArray
from skymatch_cli.settings import Settings
from skymatch_cli.skyplane import SkyPlane

from .display import DisplayFrame
from .scene import Scene


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
class _Patch:
    """What one image adds to the picture: a rectangle whose first pixel is (x0, y0), NaN outside the image."""

    x0: int
    y0: int
    values: FloatArray
    sky: FloatArray


def quicklook(
    scene: Scene,
    sky: FloatArray,
    settings: Settings,
    frame: DisplayFrame,
    *,
    tilt: FloatArray | None = None,
    progress: Progress | None = None,
) -> Quicklook:
    """Draw the mosaic as it was and with the skies subtracted.

    Parameters
    ----------
    scene : Scene
        N images.
    sky : (N,) float64
        In each image's own unit; an image without one (NaN) is left out.
    settings : Settings
        Which pixels are good.
    frame : DisplayFrame
    tilt : (N, 2) float64, optional
        Of the skies along x and y, per pixel; ``sky`` is then that of the image's centre.
    progress : Progress, optional

    Returns
    -------
    Quicklook

    Raises
    ------
    InputError
        If the pixels of an image can't be read.

    """
    infos = scene.infos
    used = np.flatnonzero(np.isfinite(sky)).tolist()
    if progress is not None:
        progress.stage("quicklook", len(used))

    def work(i: int) -> _Patch:
        plane = SkyPlane(float(sky[i]), *(() if tilt is None else tilt[i].tolist()))
        return _patch(infos[i], scene.wcs(i), np.concatenate(scene.image_rings(i)), settings, frame, sky=plane)

    before, after, count = np.zeros((3, *frame.shape))
    for i, patch in zip(used, run(work, used, jobs=settings.jobs, progress=progress), strict=True):
        height, width = patch.values.shape
        place = np.s_[patch.y0 : patch.y0 + height, patch.x0 : patch.x0 + width]
        seen = np.isfinite(patch.values)
        values = np.where(seen, patch.values, 0.0) * infos[i].to_comparison
        before[place] += values
        after[place] += np.where(seen, values - patch.sky * infos[i].to_comparison, 0.0)
        count[place] += seen
    with np.errstate(invalid="ignore"):
        return Quicklook(frame, before / count, after / count)


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


def _patch(
    info: ImageInfo, wcs: CelestialWcs, border: FloatArray, settings: Settings, frame: DisplayFrame, *, sky: SkyPlane
) -> _Patch:
    """The block means of one image at the pixels of the picture that its bounding box covers."""
    corners = frame.to_pixel(border)
    low = np.maximum(np.floor(np.nanmin(corners, axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(np.nanmax(corners, axis=0)) + 2, frame.shape[::-1]).astype(int)
    ys, xs = np.mgrid[low[1] : high[1], low[0] : high[0]]
    px, py = (p.reshape(xs.shape) for p in wcs.to_pixel(frame.to_sky(xs.ravel(), ys.ravel())))
    side = _block_side(px, py)
    pixels = read_pixels(info, settings)
    means = block_means(pixels.data, pixels.good, side)
    x, y = (side * ((p + 0.5) // side) + 0.5 * (side - 1) for p in (px, py))
    values = _nearest(means, px, py, side, info.shape)
    return _Patch(int(low[0]), int(low[1]), values, sky.at(x, y, info.shape))


def _block_side(px: FloatArray, py: FloatArray) -> int:
    """Pixels of the image along one pixel of the picture."""
    steps = [np.hypot(np.diff(px, axis=a), np.diff(py, axis=a)).ravel() for a in (0, 1)]
    step = np.concatenate(steps)
    step = step[np.isfinite(step)]
    return max(1, round(float(np.median(step)))) if step.size else 1


def block_means(data: PixelArray, good: BoolArray, side: int) -> FloatArray:
    """Means of the good pixels in blocks of ``side`` × ``side`` (cut at the far edges); NaN where there is none."""
    starts = [np.arange(0, n, side) for n in data.shape]

    def block_sums(values: npt.NDArray[np.generic]) -> FloatArray:
        return np.add.reduceat(np.add.reduceat(values, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)

    count = block_sums(good)
    total = block_sums(np.where(good, data, 0))
    means: FloatArray = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means


def _nearest(means: FloatArray, px: FloatArray, py: FloatArray, side: int, shape: tuple[int, int]) -> FloatArray:
    ny, nx = shape
    with np.errstate(invalid="ignore"):
        inside = (px >= -0.5) & (px < nx - 0.5) & (py >= -0.5) & (py < ny - 0.5)
    values = np.full(px.shape, np.nan)
    column, line = (((p[inside] + 0.5) // side).astype(int) for p in (px, py))
    values[inside] = means[line, column]
    return values
