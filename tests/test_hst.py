"""The overlap of two HST exposures, pixel by pixel, through all their distortions."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from skymatch_cli.sky.celestial import FitsWcs, fits_wcs
from skymatch_cli.sky.footprint import footprint
from skymatch_cli.sky.overlap import overlap_graph
from skymatch_cli.sky.raster import polygon_spans
from skymatch_cli.sky.rings import pixel_rings

from .headers import ASTROPY_DATA

SHAPE = (2048, 4096)  # of a chip of the ACS; the file that astropy ships has its header and no pixels


def chip(extension: int, *, east_deg: float = 0.0, north_deg: float = 0.0) -> FitsWcs:
    with fits.open(ASTROPY_DATA / "j94f05bgq_flt.fits") as hdus:
        header = hdus[extension].header
        header["CRVAL1"] += east_deg
        header["CRVAL2"] += north_deg
        header["NAXIS1"], header["NAXIS2"] = SHAPE[::-1]
        return fits_wcs(header, SHAPE, hdus)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("other", "east_deg", "north_deg"), [(1, 0.012, -0.004), (4, -0.028, 0.018)])
def test_pixels_of_an_overlap_are_those_that_the_other_chip_sees(
    side: int, other: int, east_deg: float, north_deg: float
) -> None:
    """Every pixel of one chip is looked up in the other: who disagrees lies within 0.05 pixels of the border."""
    images = (chip(1), chip(other, east_deg=east_deg, north_deg=north_deg))
    graph = overlap_graph([footprint(wcs) for wcs in images])
    wcs, seen_by = images[side], images[1 - side]
    (rings,) = pixel_rings(graph, side, wcs, "a")
    inside = polygon_spans(rings, SHAPE).mask(SHAPE)
    assert 0.1 < inside.mean() < 0.95
    at = np.arange(0, SHAPE[1])
    for y in range(0, SHAPE[0], 16):  # every pixel of every sixteenth row, and of rows about the border below
        assert_agreement(wcs, seen_by, inside, at, np.full(len(at), y))
    border = np.flatnonzero((inside[1:] != inside[:-1]).any(axis=1))
    for y in border[:: max(1, len(border) // 60)]:
        assert_agreement(wcs, seen_by, inside, at, np.full(len(at), y))


def assert_agreement(wcs: FitsWcs, seen_by: FitsWcs, inside: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    ny, nx = SHAPE
    u, v = seen_by.to_pixel(wcs.to_sky(x.astype(float), y.astype(float)))
    depth = np.minimum(np.minimum(u + 0.5, nx - 0.5 - u), np.minimum(v + 0.5, ny - 0.5 - v))  # below 0: outside
    wrong = inside[y, x] != (np.nan_to_num(depth, nan=-np.inf) > 0)
    assert (np.abs(depth[wrong]) < 0.05).all()


def test_both_chips_are_of_one_exposure() -> None:
    from skymatch_cli.images.image import read_infos
    from skymatch_cli.images.inputs import resolve_images
    from skymatch_cli.settings import Settings

    name = str(ASTROPY_DATA / "j94f05bgq_flt.fits")
    infos = read_infos(resolve_images([name], settings=Settings()), Settings(), need_wcs=True).infos
    assert [info.ref.label for info in infos] == [f"{name}[SCI,1]", f"{name}[SCI,2]"]
    assert {info.group for info in infos} == {name}
