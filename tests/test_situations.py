"""Files as people have them, the whole way through the command line: units, bands, groups, coordinates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from click.testing import CliRunner, Result

from skymatch_cli.cli import main

from .factories import Frame


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frame(sky: float, x: float = 0.0, **more: Any) -> Frame:
    return Frame(sky=sky, x=x, noise=1.0, seed=int(10 * sky + x), **more)


def single(name: str, sky: float, x: float = 0.0, **cards: Any) -> str:
    made = frame(sky, x)
    header = made.hdu_header()
    for key, value in cards.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    fits.PrimaryHDU(made.pixels().astype("f4"), header).writeto(name)
    return name


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["match", "--dry-run", "--format", "json", *args])


def result(*args: str) -> dict[str, Any]:
    done = run(*args)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(*args: str) -> str:
    done = run(*args)
    assert done.exit_code == 3, done.stderr
    return done.stderr


class TestUnits:
    def test_beams_that_differ_are_divided_out(self) -> None:
        """Skies of 10 and 25 mJy per beam of 1 and 4 units of area: the first is higher on the sky."""
        single("a.fits", 100.0, BUNIT="Jy/beam", BMAJ=10 / 3600, BMIN=10 / 3600)
        single("b.fits", 400.0, 10.0, BUNIT="Jy/beam", BMAJ=20 / 3600, BMIN=20 / 3600)
        first, second = result("a.fits", "b.fits")["images"]
        assert second["sky"] - 4 * first["sky"] == pytest.approx(0, abs=1)

    def test_a_beam_that_is_missing_beside_another_is_refused(self) -> None:
        single("a.fits", 100.0, BUNIT="Jy/beam", BMAJ=10 / 3600, BMIN=10 / 3600)
        single("b.fits", 100.0, 10.0, BUNIT="Jy/beam")
        assert "b.fits: its values per beam" in refusal("a.fits", "b.fits")

    def test_arcsinh_pixels_are_refused_with_the_remedy(self) -> None:
        for name, x in (("a.fits", 0.0), ("b.fits", 10.0)):
            single(name, 1.0, x, BSOFTEN=50.0, BOFFSET=100.0)
        said = refusal("a.fits", "b.fits")
        assert "arcsinh magnitudes (BSOFTEN, BOFFSET), which are not linear in flux" in said
        assert "flux = BOFFSET + BSOFTEN * 2 * sinh(pixel * ln(10) / 2.5)" in said

    @pytest.mark.parametrize("key", ["EXPTIME", "EXPOSURE", "LIVETIME", "ONTIME"])
    def test_exposure_times_without_a_unit_are_a_warning_and_a_unit_mends_it(self, key: str) -> None:
        for name, sky, time in (("a.fits", 100.0, 1000.0), ("b.fits", 400.0, 4000.0)):
            single(name, sky, sky / 40, BUNIT=None, **({"EXPTIME": None} | {key: time}))
        assert "no BUNIT; the values are taken as they are, although exposure times differ" in run("*.fits").stderr
        images = result("--bunit", "count", "a.fits", "b.fits")["images"]
        assert images[1]["sky"] - 4 * images[0]["sky"] == pytest.approx(0, abs=1)

    def test_chips_of_two_pixel_scales_in_one_file(self) -> None:
        """A surface brightness of 100 and 130 per arcsec2, in pixels of 0.5 and 1 arcsec."""
        for name, level, x in (("a.fits", 100.0, 0.0), ("b.fits", 130.0, 4.0)):
            chips = [
                frame(level * scale**2, x + dx, scale=scale, nx=60, ny=60) for scale, dx in ((0.5, 0.0), (1.0, 80.0))
            ]
            hdus = [fits.ImageHDU(c.pixels().astype("f4"), c.hdu_header(), name="SCI") for c in chips]
            hdus[1].header["EXTVER"] = 2
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(name)
        skies = [image["sky"] for image in result("a.fits", "b.fits")["images"]]
        assert skies == pytest.approx([0, 0, 30 * 0.25, 30], abs=0.3)


class TestBands:
    @pytest.mark.parametrize("key", ["FILTER", "PUPIL", "FILTNAM1", "BAND", "CHNLNUM", "WAVELNTH", "INSFILTE"])
    def test_that_differ_are_a_warning(self, key: str) -> None:
        single("a.fits", 100.0, **{key: "F115W"})
        single("b.fits", 101.0, 10.0, **{key: "F200W"})
        assert f"images of different {key} are compared" in run("a.fits", "b.fits").stderr

    def test_are_matched_each_by_itself(self) -> None:
        for k, (band, sky) in enumerate([("F115W", 100.0), ("F200W", 50.0), ("F115W", 103.0), ("F200W", 51.0)]):
            single(f"{k}.fits", sky, 2.0 * k, FILTER="CLEAR", PUPIL=band)
        found = result("--split-by", "FILTER,PUPIL", "*.fits")
        assert [image["component"] for image in found["images"]] == [0, 1, 0, 1]
        skies = [image["sky"] for image in found["images"]]
        assert skies == pytest.approx([0, 0, 3, 1], abs=0.2)
        assert not any("PUPIL" in warning for warning in found["warnings"])


class TestGroups:
    def jwst(self, name: str, sky: float, x: float, exposure: int, **cards: Any) -> str:
        keys = {"PROGRAM": "01345", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1", "ACT_ID": "01"}
        return single(name, sky, x, TELESCOP="JWST", **keys, EXPOSURE=str(exposure), FILTER="F200W", **cards)

    def test_detectors_of_an_exposure_share_one_sky(self) -> None:
        """Detector a2 of the second exposure overlaps nothing; its sky is that of a1."""
        self.jwst("a1.fits", 100.0, 0.0, 1)
        self.jwst("b1.fits", 107.0, 10.0, 2)
        self.jwst("b2.fits", 107.0, 500.0, 2)
        images = result("a1.fits", "b1.fits", "b2.fits")["images"]
        assert [image["component"] for image in images] == [0, 0, 0]
        assert images[2]["sky"] == images[1]["sky"] == pytest.approx(7, abs=0.2)
        by_file = result("--group-by", "file", "a1.fits", "b1.fits", "b2.fits")["images"]
        assert [image["component"] for image in by_file] == [0, 0, 1]

    def test_other_files_are_groups_of_their_own(self) -> None:
        for name, x in (("a.fits", 0.0), ("b.fits", 10.0)):
            single(name, 100.0, x, TELESCOP="HST", EXPOSURE="1")
        assert [image["group"] for image in result("a.fits", "b.fits")["images"]] == ["a.fits", "b.fits"]

    def test_keywords_in_a_list(self) -> None:
        for k, (visit, exposure) in enumerate([(1, 1), (1, 1), (1, 2)]):
            single(f"{k}.fits", 100.0, 10.0 * k, VISIT=visit, EXPOSURE=exposure)
        groups = [image["group"] for image in result("--group-by", "VISIT,EXPOSURE", "*.fits")["images"]]
        assert groups == ["1,1", "1,1", "1,2"]
        assert "there is no PROGRAM in its header" in refusal("--group-by", "VISIT,PROGRAM", "*.fits")

    def test_an_exposure_that_is_not_known_is_refused(self) -> None:
        single("a.fits", 100.0)
        assert "its exposure is not known" in refusal("--group-by", "exposure", "a.fits")
