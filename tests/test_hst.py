"""The overlap of two HST exposures, pixel by pixel, through all their distortions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.images.image import read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.model import Recorded
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.settings import Settings
from skymatch_cli.sky.celestial import FitsWcs
from skymatch_cli.sky.footprint import footprint
from skymatch_cli.sky.overlap import overlap_graph
from skymatch_cli.sky.raster import spans_of_polygons
from skymatch_cli.sky.rings import pixel_rings

from .headers import ASTROPY_DATA, fits_wcs

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
    inside = spans_of_polygons([rings], SHAPE)[0].mask(SHAPE)
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
    name = str(ASTROPY_DATA / "j94f05bgq_flt.fits")
    infos = read_infos(resolve_images([name], settings=Settings()), Settings(), need_wcs=True).infos
    assert [info.ref.label for info in infos] == [f"{name}[SCI,1]", f"{name}[SCI,2]"]
    assert {info.group for info in infos} == {name}


SKIES = (0.75, 0.5)  # exact in float32


@pytest.fixture
def flc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two exposures of the same field, in which a pipeline left the sky that it measured."""
    monkeypatch.chdir(tmp_path)
    for k, sky in enumerate(SKIES):
        noise = np.random.default_rng(k).integers(-8, 9, (40, 40)) / 64
        hdu = fits.ImageHDU((sky + noise).astype("f4"), name="SCI")
        hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CRPIX1=20.5, CRPIX2=20.5)
        hdu.header.update(CDELT1=-1e-5, CDELT2=1e-5, BUNIT="ELECTRONS/S", MDRIZSKY=0.125)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(f"{k}_flc.fits")
    return [f"{k}_flc.fits" for k in range(len(SKIES))]


def skymatch(*args: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, [*args])
    assert done.exit_code == code, (done.stderr, done.exception)
    return done.stderr


def write_skies(names: list[str], *options: str, keyword: str = "MDRIZSKY") -> None:
    """Write `SKIES`, whatever the pixels say."""
    Path("sky.txt").write_text("".join(f"{n} {s}\n" for n, s in zip(names, SKIES, strict=True)))
    skymatch("match", "--method", "user", "--skylist", "sky.txt", "--sky-keyword", keyword, *options, *names)


def cards(name: str) -> tuple[object, ...]:
    head = fits.getheader(name, "SCI")
    return tuple(head.get(key) for key in ("MDRIZSKY", "BKGLEVEL", "BKGSUB"))


def test_recorded_sky_is_still_to_be_subtracted(flc: list[str]) -> None:
    write_skies(flc)
    assert [cards(name) for name in flc] == [(0.75, None, False), (0.5, None, False)]


def test_nothing_is_left_to_subtract_beside_subtracted_pixels(flc: list[str]) -> None:
    """AstroDrizzle subtracts MDRIZSKY from the pixels: together they have lost the sky once."""
    before = [fits.getdata(name, "SCI").copy() for name in flc]
    write_skies(flc, "--subtract")
    assert [cards(name) for name in flc] == [(0.0, 0.75, True), (0.0, 0.5, True)]
    for name, original, sky in zip(flc, before, SKIES, strict=True):
        left = fits.getdata(name, "SCI") - fits.getheader(name, "SCI")["MDRIZSKY"]
        np.testing.assert_array_equal(left, original - np.float32(sky))


def test_subtracting_after_recording_sets_the_keyword_to_0(flc: list[str]) -> None:
    write_skies(flc)
    write_skies(flc, "--subtract")
    assert [cards(name) for name in flc] == [(0.0, 0.75, True), (0.0, 0.5, True)]


def test_repeating_changes_no_byte_and_undo_restores_all(flc: list[str]) -> None:
    before = [Path(name).read_bytes() for name in flc]
    write_skies(flc, "--subtract")
    once = [Path(name).read_bytes() for name in flc]
    write_skies(flc, "--subtract")
    assert [Path(name).read_bytes() for name in flc] == once
    skymatch("undo", *flc)
    assert [Path(name).read_bytes() for name in flc] == before
    assert cards(flc[0]) == (0.125, None, None)


def test_another_keyword_is_written_from_the_original_header(flc: list[str]) -> None:
    write_skies(flc, "--subtract")
    write_skies(flc, "--subtract", keyword="BKGLEVEL")
    assert [cards(name) for name in flc] == [(0.125, 0.75, True), (0.125, 0.5, True)]


@pytest.mark.parametrize("keyword", ["MDRIZSKY", "BKGLEVEL"])
def test_the_sky_is_known_without_the_undo_cards(flc: list[str], keyword: str) -> None:
    """The sky of subtracted pixels is the one of BKGLEVEL, not the 0 of MDRIZSKY."""
    write_skies(flc, "--subtract")
    fits.delval(flc[0], "HISTORY", "SCI")
    assert "undo" not in str(fits.getheader(flc[0], "SCI").get("HISTORY", ""))
    settings = Settings(sky_keyword=keyword)
    (info,) = read_infos(resolve_images(flc[:1], settings=settings), settings, need_wcs=True).infos
    assert info.recorded == Recorded(SkyPlane(0.75), True)


@pytest.mark.parametrize(
    ("key", "says"),
    [("MDRIZSKY", "MDRIZSKY = 0.013, but skymatch subtracted 0.75"), ("BKGLEVEL", "BKGLEVEL = 0.013, but skymatch")],
)
def test_sky_that_another_program_wrote_beside_subtracted_pixels_is_refused(
    flc: list[str], key: str, says: str
) -> None:
    write_skies(flc, "--subtract")
    fits.setval(flc[0], key, value=0.013, extname="SCI")
    assert says in skymatch("match", "--dry-run", "--sky-keyword", "MDRIZSKY", *flc, code=3)
    skymatch("undo", *flc)
    assert cards(flc[0]) == (0.125, None, None)
