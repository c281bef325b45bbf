"""A small result made by hand, for tests of what is shown and written."""

from __future__ import annotations

from typing import Any

import numpy as np

from skymatch_cli.choices import WarningName
from skymatch_cli.model import (
    Container,
    ImageInfo,
    ImageRef,
    Measurements,
    PixelSource,
    SkyWarning,
    Solution,
    StoredPlane,
)
from skymatch_cli.output.result import Result
from skymatch_cli.settings import Settings

SKIES_OF_ROW = (
    ("localmin", [130, 100, 115]),
    ("local", [130, 100, 115]),
    ("globalmin", [100, 100, 100]),
    ("global", [100, 100, 100]),
    ("match", [30, 0, 15]),
    ("globalmin+match", [130, 100, 115]),
    ("global+match", [130, 100, 115]),
)
"""By each method, of three images in a row with the skies 130, 100 and 115."""

NAN = float("nan")
THIRD = 1 / 3


def texts(*words: str) -> Any:
    return np.array(words, dtype=object)


def pixels_of(file: str, hdu: int = 0, shape: tuple[int, int] = (10, 20)) -> PixelSource:
    plane = StoredPlane(path=file, container=Container.PLAIN, hdu=hdu, offset=2880, shape=shape, bitpix=-32)
    return PixelSource(science=plane)


def make_info(file: str, ext: str = "PRIMARY", hdu: int = 0, unit: str = "adu") -> ImageInfo:
    ref, source = ImageRef(file=file, path=file, hdu=hdu, ext=ext), pixels_of(file, hdu)
    return ImageInfo(ref=ref, shape=(10, 20), wcs=None, source=source, unit=unit, comparison_unit="adu", group=file)


def make_result(*files: str, settings: Settings | None = None, warnings: tuple[str, ...] = ()) -> Result:
    """Three images, of which the first two overlap; the third is on its own and masked."""
    files = files or ("a.fits", "b.fits", "c.fits")
    return Result(
        settings=settings or Settings(),
        infos=tuple(make_info(file) for file in files),
        measurements=Measurements(
            a=np.array([0]),
            b=np.array([1]),
            area_arcmin2=np.array([2.5]),
            sky_a=np.array([110 + THIRD]),
            sky_b=np.array([100.0]),
            n_a=np.array([150]),
            n_b=np.array([149]),
            delta=np.array([10 + THIRD]),
            delta_err=np.array([0.0123]),
            weight=np.array([1 / 0.0123**2]),
            status=texts("ok"),
            n_good=np.array([200, 199, 0]),
        ),
        solution=Solution(
            sky=np.array([10 + THIRD, 0.0, NAN]),
            sky_err=np.array([0.00615, 0.00615, NAN]),
            sky_err_noise=np.array([0.006, 0.006, NAN]),
            status=texts("ok", "ok", "all_masked"),
            component=np.array([0, 0, 1]),
            residual=np.array([0.0]),
            anchor=texts("lowest = 0", "lowest = 0"),
            n_images=np.array([2, 1]),
            rms_residual=np.array([0.0, NAN]),
            chi2=np.array([0.0, NAN]),
            dof=np.array([0.0, NAN]),
            step_before=np.array([10 + THIRD, NAN]),
            step_after=np.array([0.0, NAN]),
            warnings=(),
        ),
        warnings=tuple(SkyWarning(WarningName.DISCONNECTED, text) for text in warnings),
    )
