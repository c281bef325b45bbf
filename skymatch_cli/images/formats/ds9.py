"""Masks from region files of DS9: pixels inside of a region are left out (extra ``regions``)."""

from __future__ import annotations

import importlib.util
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from skymatch_cli.errors import InputError, reason
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, RegionFile
from skymatch_cli.sky.sphere import lon_lat, unit_vectors
from skymatch_cli.sky.tangent import plane_wcs, tangent_axes

_HINT = "pip install 'skymatch-cli[regions]'"
_FILES_KEPT = 8


@lru_cache(maxsize=_FILES_KEPT)
def read_regions(file: RegionFile) -> tuple[Any, ...]:
    """Read the regions of a file; InputError if the package is missing, or all that can be read are excluded."""
    if importlib.util.find_spec("regions") is None:
        raise InputError.at(file.path, "region files need the package regions", _HINT)
    from regions import Regions

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shapes and properties without an area
            found = tuple(Regions.read(file.path, format="ds9"))
    except Exception as error:  # noqa: BLE001 - the parser raises errors of every kind
        raise InputError.at(file.path, f"can't be read as a region file: {reason(error)}") from None
    if not any(map(_is_included, found)):
        what = "holds only excluded regions" if found else "holds no region"
        raise InputError.at(file.path, what, "it masks the pixels inside its regions: add one that is not excluded")
    return found


def inside_regions(regions: tuple[Any, ...], wcs: CelestialWcs | None, shape: tuple[int, int], where: str) -> BoolArray:
    """Return which pixels lie inside of regions and outside of excluded ones, (ny, nx).

    InputError if a region is on the sky and the image has no WCS.
    """
    inside: BoolArray = np.zeros(shape, np.bool_)
    excluded: BoolArray = np.zeros(shape, np.bool_)
    for region in regions:
        target = inside if _is_included(region) else excluded
        on_pixels = _on_pixels(region, wcs, where)
        if on_pixels is None:
            continue
        try:
            image = on_pixels.to_mask(mode="center").to_image(shape)
        except (NotImplementedError, ValueError):
            continue  # points, lines and texts have no area
        if image is not None:
            target |= image > 0
    return inside & ~excluded


def _is_included(region: Any) -> bool:
    return region.meta.get("include", True) not in {False, "-"}


def _on_pixels(region: Any, wcs: CelestialWcs | None, where: str) -> Any:
    """The region in pixels of the image; None where the image is far from it."""
    from regions import PixCoord, PixelRegion, PolygonPixelRegion

    if isinstance(region, PixelRegion):
        return region
    if wcs is None:
        raise InputError.at(where, "has no WCS for regions on the sky", "give them in image coordinates")
    if hasattr(region, "vertices"):
        x, y = wcs.to_pixel(_vectors(region.vertices))
        return PolygonPixelRegion(PixCoord(x, y)) if np.isfinite(x).all() and np.isfinite(y).all() else None
    if not hasattr(region, "center"):
        return None
    local = _tangent_wcs(wcs, _vectors(region.center)[0])
    return None if local is None else region.to_pixel(local)


def _vectors(position: Any) -> FloatArray:
    icrs = position.icrs
    return unit_vectors(np.atleast_1d(icrs.ra.rad), np.atleast_1d(icrs.dec.rad))


def _tangent_wcs(wcs: CelestialWcs, centre: FloatArray) -> Any:
    """A plain TAN that equals the WCS of the image about a position: shapes are small beside distortions."""
    x, y = wcs.to_pixel(centre[None])
    if not np.isfinite([x[0], y[0]]).all():
        return None
    lon, lat = lon_lat(centre[None])
    sky = wcs.to_sky(x + np.array([-0.5, 0.5, 0.0, 0.0]), y + np.array([0.0, 0.0, -0.5, 0.5]))
    if not np.isfinite(sky).all():
        return None
    steps = np.degrees(np.stack([sky[1] - sky[0], sky[3] - sky[2]]) @ tangent_axes(lon[0], lat[0])[:2].T)
    return plane_wcs(np.degrees([lon[0], lat[0]]).tolist(), [x[0] + 1, y[0] + 1], steps.T)
