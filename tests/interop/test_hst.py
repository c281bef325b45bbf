"""With AstroDrizzle: our skies as a skyfile, by whatever name the files are called, and as a keyword."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from tests.headers import ASTROPY_DATA
from tests.pages import run

from .seams import report_seam

pytest.importorskip("drizzlepac")
pytestmark = pytest.mark.filterwarnings("ignore")

SKIES = [60.0, 95.0, 40.0]
NX, NY = 240, 160
OFFSETS = [(0, 0), (60, 40), (-40, 70)]


def save(folder: Path, skies: list[float]) -> list[str]:
    """Exposures of two small chips, with the headers of a real one of the ACS."""
    folder.mkdir()
    with fits.open(ASTROPY_DATA / "j94f05bgq_flt.fits") as real:
        primary, chips = real[0].header.copy(), [real["SCI", v].header.copy() for v in (1, 2)]
    for key in primary:
        if isinstance(primary[key], str) and "$" in primary[key]:
            primary[key] = "N/A"
    primary["EXPTIME"] = 400.0
    for name in ("IDCTAB", "NPOLFILE", "D2IMFILE"):
        primary[name] = "N/A"
    for k, (sky, (dx, dy)) in enumerate(zip(skies, OFFSETS, strict=True)):
        primary["ROOTNAME"] = f"j94f0{k + 1}xxq"
        primary["FILENAME"] = f"j94f0{k + 1}xxq_flc.fits"
        hdus = [fits.PrimaryHDU(header=primary.copy())]
        for ver, (header, side) in enumerate(zip(chips, (-1, 1), strict=True), start=1):
            h = header.copy()
            for key in list(h):
                if key.startswith(("D2IM", "DP", "DQ", "CPDIS", "CPERR", "PIXVALUE", "NPIX", "BSCALE", "BZERO")):
                    del h[key]
            h["CRVAL1"], h["CRVAL2"] = 150.0, 2.0
            h["CRPIX1"], h["CRPIX2"] = NX / 2 + dx, NY / 2 - side * (NY / 2 + 10) + dy
            h["CD1_1"], h["CD1_2"], h["CD2_1"], h["CD2_2"] = -1.389e-5, 0.0, 0.0, 1.389e-5
            h["LTV1"] = h["LTV2"] = 0.0
            h["BUNIT"] = "ELECTRONS"
            data = (sky + np.random.default_rng([k, ver]).normal(0, 4, (NY, NX))).astype("f4")
            hdus.append(fits.ImageHDU(data, h, name="SCI", ver=ver))
            hdus.append(fits.ImageHDU(np.full((NY, NX), 8, "f4"), name="ERR", ver=ver))
            hdus.append(fits.ImageHDU(np.zeros((NY, NX), "i2"), name="DQ", ver=ver))
        fits.HDUList(hdus).writeto(folder / primary["FILENAME"])
    return [f"j94f0{k + 1}xxq_flc.fits" for k in range(len(skies))]


def drizzled(names: list[str], **settings: Any) -> np.ndarray:
    from drizzlepac.astrodrizzle import AstroDrizzle

    off = dict.fromkeys(("updatewcs", "static", "median", "blot", "driz_cr", "driz_separate", "build", "clean"), False)
    more = {"preserve": False, "restore": False, "final_wcs": False, "num_cores": 1, "configobj": None}
    AstroDrizzle(names, output="dz", final_bits="0", final_wht_type="EXP", **(off | more | settings))
    found = next(Path().glob("dz*sci.fits"))
    data = fits.getdata(found).astype(float)
    weight = fits.getdata(next(Path().glob("dz*wht.fits")))
    found.unlink()
    return np.where(weight > 0, data, np.nan)


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Mosaics of images with one sky, and of those with three."""
    mosaics = []
    for folder, skies in (("true", [0.0] * 3), ("raw", SKIES)):
        names = save(tmp_path / folder, skies)
        monkeypatch.chdir(tmp_path / folder)
        mosaics.append(drizzled(names, skysub=False))
    monkeypatch.chdir(tmp_path)
    return mosaics[0], mosaics[1]


@pytest.mark.parametrize("called", ["bare", "relative", "absolute"])
def test_a_skyfile_counts_however_the_files_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: tuple[np.ndarray, np.ndarray], called: str
) -> None:
    true, raw = reference
    names = save(tmp_path / "data", SKIES)
    if called == "bare":
        monkeypatch.chdir(tmp_path / "data")
    paths = {"bare": names, "relative": [f"data/{n}" for n in names]}.get(
        called, [str(tmp_path / "data" / n) for n in names]
    )
    solved = run("match", "--dry-run", "--dqbits", "0", "-o", "solution.fits", *paths)
    assert solved.exit_code == 0, solved.stderr
    assert run("export", "solution.fits", "--to", "drizzle", "-o", "skies.txt").exit_code == 0
    mosaic = drizzled(paths, skysub=True, skyfile="skies.txt")
    report_seam(
        f"AstroDrizzle, `skyfile`, {called} names", raw - true, mosaic - true, unit="e-/s", below=0.02, above=0.1
    )


def test_the_keyword_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: tuple[np.ndarray, np.ndarray]
) -> None:
    true, raw = reference
    names = save(tmp_path / "data", SKIES)
    monkeypatch.chdir(tmp_path / "data")
    assert run("match", "--dqbits", "0", "--sky-keyword", "MDRIZSKY", *names).exit_code == 0
    mosaic = drizzled(names, skysub=False, skyuser="MDRIZSKY")
    report_seam("AstroDrizzle, `MDRIZSKY`", raw - true, mosaic - true, unit="e-/s", below=0.02, above=0.1)


@pytest.mark.parametrize("keyword", [None, "MDRIZSKY"])
def test_nothing_is_subtracted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: tuple[np.ndarray, np.ndarray], keyword: str | None
) -> None:
    true, raw = reference
    names = save(tmp_path / "data", SKIES)
    monkeypatch.chdir(tmp_path / "data")
    words = [] if keyword is None else ["--sky-keyword", keyword]
    assert run("match", "--subtract", "--dqbits", "0", *words, *names).exit_code == 0
    mosaic = drizzled(names, skysub=False, skyuser=keyword or "")
    what = f"AstroDrizzle, subtracted files{f', `{keyword}`' if keyword else ''}"
    report_seam(what, raw - true, mosaic - true, unit="e-/s", below=0.02, above=0.1)


@pytest.mark.parametrize("seed", range(2))
def test_round_trips_in_any_order_end_at_the_original_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """AstroDrizzle measures skies of its own, or takes ours; we record, subtract and undo."""
    names = save(tmp_path / "data", SKIES)
    monkeypatch.chdir(tmp_path / "data")
    before = pixels_of(names)
    for move in random.Random(seed).choices(["record", "subtract", "undo", "their sky", "our sky"], k=6):
        if move == "their sky":
            drizzled(names, skysub=True)
        elif move == "our sky":
            with contextlib.suppress(KeyError):  # there is none
                drizzled(names, skysub=False, skyuser="MDRIZSKY")
        else:
            keyword = ["--dqbits", "0", "--sky-keyword", "MDRIZSKY"]
            words = {"record": ["match", *keyword], "subtract": ["match", "--subtract", *keyword], "undo": ["undo"]}
            done = run(*words[move], *names)
            assert done.exit_code in {0, 3}, done.stderr
        for name, chips in zip(names, before, strict=True):
            for ver, original in enumerate(chips, start=1):
                header = fits.getheader(name, ("SCI", ver))
                gone = header["BKGLEVEL"] if header.get("BKGSUB") else 0
                assert fits.getdata(name, ("SCI", ver)) + gone == pytest.approx(original, abs=1e-4)
    run("undo", *names)
    assert run("undo", "--from-keyword", *names).exit_code == 0
    assert np.array(pixels_of(names)) == pytest.approx(np.array(before), abs=1e-4)
    assert not any(fits.getheader(name, ("SCI", 1)).get("BKGSUB") for name in names)


def pixels_of(names: list[str]) -> list[list[np.ndarray]]:
    return [[fits.getdata(name, ("SCI", ver)).copy() for ver in (1, 2)] for name in names]
