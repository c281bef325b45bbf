"""Files as people have them, the whole way through the command line: units, bands, groups, coordinates."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
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

    @pytest.mark.parametrize("key", ["EXPTIME", "EXPOSURE", "LIVETIME", "ONTIME", "EXP_TIME"])
    def test_exposure_times_without_a_unit_are_a_warning_and_a_unit_mends_it(self, key: str) -> None:
        for name, sky, time in (("a.fits", 100.0, 1000.0), ("b.fits", 400.0, 4000.0)):
            single(name, sky, sky / 40, BUNIT=None, **({"EXPTIME": None} | {key: time}))
        assert "no BUNIT; values are compared as they are, although exposure times differ" in run("*.fits").stderr
        images = result("--bunit", "count", "a.fits", "b.fits")["images"]
        assert images[1]["sky"] - 4 * images[0]["sky"] == pytest.approx(0, abs=1)

    def test_an_exposure_time_with_its_unit(self) -> None:
        for k, time in enumerate((30, 60)):
            single(f"{k}.fits", 10.0 * time, 10.0 * k, BUNIT="adu", EXPTIME=f"{time} s")
        images = result("0.fits", "1.fits")["images"]
        assert images[1]["sky"] - 2 * images[0]["sky"] == pytest.approx(0, abs=0.6)

    @pytest.mark.parametrize("time", [1e-30, 1e-9, 1e9, 1e30])
    def test_an_exposure_time_that_can_not_be_true_is_a_warning(self, time: float) -> None:
        for k in range(4):
            made = Frame(x=36.0 * (k % 2), y=36.0 * (k // 2), sky=100.0 + k, nx=60, ny=60, noise=3.0, seed=k)
            header = made.hdu_header()
            header.update(BUNIT="adu", EXPTIME=time if k == 1 else 60.0)
            fits.PrimaryHDU(made.pixels().astype("f4"), header).writeto(f"{k}.fits")
        (said,) = [w["text"] for w in result("*.fits")["warnings"] if "where a unit is wrong" in w["text"]]
        assert "(1): 1.fits (times " in said

    def test_gain_of_an_amateur_camera_is_a_setting(self) -> None:
        for k, (gain, electrons) in enumerate([(100, 1.0), (0, 1.0), (100, 2.0)]):
            single(f"{k}.fits", 100.0, 10.0 * k, BUNIT="ADU", GAIN=gain, EGAIN=electrons)
        assert "gains" not in run("0.fits", "1.fits").stderr
        assert "counts of different gains are compared: 0.fits (1) to 2.fits (2)" in run("0.fits", "2.fits").stderr

    def test_the_number_of_an_exposure_is_not_its_time(self) -> None:
        for k, sky in enumerate((100.0, 107.5)):
            single(f"{k}.fits", sky, 10.0 * k, BUNIT="DN", EXPTIME=None, XPOSURE=50.0, EXPOSURE=k + 1)
        images = result("0.fits", "1.fits")["images"]
        assert images[1]["sky"] - images[0]["sky"] == pytest.approx(7.5, abs=0.2)

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


def test_flux_scales_that_are_not_used_are_a_warning() -> None:
    """A sky of 100 in both, where the second frame has to be divided by 2."""
    names = [single("a.fits", 100.0, FLXSCALE=1.0), single("b.fits", 200.0, 10.0, FLXSCALE=0.5)]
    assert "fluxes that differ by 0.753 mag are compared; --flux-scale FLXSCALE scales them" in run(*names).stderr
    done = run("--flux-scale", "FLXSCALE", *names)
    assert "mag are compared" not in done.stderr
    first, second = json.loads(done.stdout)["images"]
    assert second["sky"] - 2 * first["sky"] == pytest.approx(0, abs=0.6)


class TestOverscan:
    """The sky is 7.5 higher in the second frame; 12 of 52 columns are overscan, without sky."""

    @pytest.fixture
    def names(self) -> list[str]:
        for name, sky, x in (("a.fits", 1000.0, 0.0), ("b.fits", 1007.5, 6.0)):
            made = frame(sky, x, nx=52)
            data = made.pixels()
            data[:, :12] = 990.0 + np.random.default_rng(1).normal(0, 1, (40, 12))
            fits.PrimaryHDU(data.astype("f4"), made.hdu_header()).writeto(name)
        return ["a.fits", "b.fits"]

    @pytest.mark.parametrize("key", ["DATASEC", "TRIMSEC", "SCIPIXS"])
    @pytest.mark.parametrize("section", ["", "[11:52,3:40]"])
    def test_is_left_out(self, names: list[str], key: str, section: str) -> None:
        for name in names:
            fits.setval(name, key, value="[13:52,1:40]")
        images = result("--compare", "pooled", *(name + section for name in names))["images"]
        assert [image["n_pixels"] for image in images] == [40 * (38 if section else 40)] * 2
        assert images[1]["sky"] - images[0]["sky"] == pytest.approx(7.5, abs=0.2)

    @pytest.mark.parametrize("section", ["[13:60,1:40]", "[1:52,1:40]", "[1:10,1:40]", "none", "[0:0,0:0]"])
    def test_a_section_of_the_image_before_it_was_trimmed_is_not_used(self, names: list[str], section: str) -> None:
        for name in names:
            fits.setval(name, "DATASEC", value=section)
        assert [image["n_pixels"] for image in result(*names)["images"]] == [52 * 40] * 2


class TestBands:
    @pytest.mark.parametrize(
        "key", ["FILTER", "PUPIL", "FILTNAM1", "BAND", "CHNLNUM", "WAVELNTH", "INSFILTE", "HIERARCH ESO INS FILT1 NAME"]
    )
    def test_that_differ_are_a_warning(self, key: str) -> None:
        single("a.fits", 100.0, **{key: "F115W"})
        single("b.fits", 101.0, 10.0, **{key: "F200W"})
        assert f"images of different {key.removeprefix('HIERARCH ')} are compared" in run("a.fits", "b.fits").stderr

    def test_of_a_raw_colour_frame_have_skies_of_their_own(self) -> None:
        names = [single(f"{k}.fits", 100.0, 10.0 * k, BAYERPAT="RGGB") for k in range(2)]
        said = run(*names).stderr
        assert "0.fits, 1.fits: red, green and blue pixels of one frame have skies of their own" in said
        assert said.count("BAYERPAT") == 1
        single("2.fits", 100.0, BAYERPAT="none")
        assert "BAYERPAT" not in run("2.fits", single("3.fits", 100.0, 10.0)).stderr

    def test_are_matched_each_by_itself(self) -> None:
        for k, (band, sky) in enumerate([("F115W", 100.0), ("F200W", 50.0), ("F115W", 103.0), ("F200W", 51.0)]):
            single(f"{k}.fits", sky, 2.0 * k, FILTER="CLEAR", PUPIL=band)
        found = result("--split-by", "FILTER,PUPIL", "*.fits")
        assert [image["component"] for image in found["images"]] == [0, 1, 0, 1]
        skies = [image["sky"] for image in found["images"]]
        assert skies == pytest.approx([0, 0, 3, 1], abs=0.2)
        assert max(image["sky_err"] for image in found["images"]) < 0.1
        assert found["warnings"] == []

    def test_sets_take_any_model(self) -> None:
        for k, band in enumerate(["F115W", "F200W"] * 2):
            single(f"{k}.fits", 100.0 + k, 2.0 * k, PUPIL=band)
        images = result("--model", "plane", "--split-by", "PUPIL", "*.fits")["images"]
        assert [image["component"] for image in images] == [0, 1, 0, 1]
        assert [images[k + 2]["sky"] - images[k]["sky"] for k in (0, 1)] == pytest.approx([2, 2], abs=0.3)


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

    def test_exposures_of_one_field_in_one_file_are_a_warning(self) -> None:
        """Two reads in each file, with skies of 20 and 50: as chips of one exposure they would share one sky."""
        for name, x in (("a.fits", 0.0), ("b.fits", 10.0)):
            reads = [frame(sky + x, x + k) for k, sky in enumerate((20.0, 50.0))]
            hdus = [fits.ImageHDU(r.pixels().astype("f4"), r.hdu_header(), "SCI") for r in reads]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(name)
        said = run("a.fits", "b.fits").stderr
        assert "images of one group (of one file) are of the same field, and differ by up to 30" in said
        done = run("--group-by", "none", "a.fits", "b.fits")
        assert "images of one group" not in done.stderr
        images = json.loads(done.stdout)["images"]
        assert [image["sky"] for image in images] == pytest.approx([0, 30, 10, 40], abs=0.3)
        assert [image["group"] for image in images] == ["a.fits[1]", "a.fits[2]", "b.fits[1]", "b.fits[2]"]

    def test_keywords_in_a_list(self) -> None:
        for k, (visit, exposure) in enumerate([(1, 1), (1, 1), (1, 2)]):
            single(f"{k}.fits", 100.0, 10.0 * k, VISIT=visit, EXPOSURE=exposure)
        groups = [image["group"] for image in result("--group-by", "VISIT,EXPOSURE", "*.fits")["images"]]
        assert groups == ["1,1", "1,1", "1,2"]
        assert "there is no PROGRAM in its header" in refusal("--group-by", "VISIT,PROGRAM", "*.fits")

    def test_an_exposure_that_is_not_known_is_refused(self) -> None:
        single("a.fits", 100.0)
        assert "its exposure is not known" in refusal("--group-by", "exposure", "a.fits")


class TestAssociations:
    def test_science_members_of_a_json_file(self, folder: Path) -> None:
        (folder / "level3").mkdir()
        for name, sky, x in (("a.fits", 100.0, 0.0), ("b.fits", 107.0, 10.0), ("c.fits", 107.0, 500.0)):
            single(f"level3/{name}", sky, x)
        members = [
            {"expname": "a.fits", "exptype": "science", "group_id": "e1"},
            {"expname": "b.fits", "exptype": "science", "group_id": "e2"},
            {"expname": "c.fits", "exptype": "science", "group_id": "e2"},
            {"expname": "dark.fits", "exptype": "background"},
        ]
        (folder / "level3" / "x_asn.json").write_text(json.dumps({"products": [{"name": "x", "members": members}]}))
        found = result("level3/x_asn.json")["images"]
        assert [(image["file"], image["group"]) for image in found] == [
            ("level3/a.fits", "e1"),
            ("level3/b.fits", "e2"),
            ("level3/c.fits", "e2"),
        ]
        assert found[2]["sky"] == pytest.approx(7, abs=0.2)
        assert "level3/dark.fits: not used: background exposure" in run("-v", "level3/x_asn.json").stderr

    def test_exposures_of_a_table_of_hst(self) -> None:
        for name, sky, x in (("j8aa01aaq_flc.fits", 100.0, 0.0), ("j8aa01abq_flc.fits", 107.0, 10.0)):
            single(name, sky, x)
        columns = [
            fits.Column("MEMNAME", "14A", array=["J8AA01AAQ", "J8AA01ABQ", "J8AA01010"]),
            fits.Column("MEMTYPE", "14A", array=["EXP-DTH", "EXP-DTH", "PROD-DTH"]),
            fits.Column("MEMPRSNT", "L", array=[True, True, True]),
        ]
        table = fits.BinTableHDU.from_columns(columns, name="ASN")
        fits.HDUList([fits.PrimaryHDU(), table]).writeto("j8aa01010_asn.fits")
        assert [image["file"] for image in result("j8aa01010_asn.fits")["images"]] == [
            "j8aa01aaq_flc.fits",
            "j8aa01abq_flc.fits",
        ]

    def test_a_member_that_is_missing_is_named(self, folder: Path) -> None:
        members = [{"expname": "a.fits", "exptype": "science"}]
        (folder / "x_asn.json").write_text(json.dumps({"products": [{"members": members}]}))
        assert "a.fits: no such file (a member of x_asn.json)" in refusal("x_asn.json")

    @pytest.mark.parametrize("text", ["{", "[]", '{"products": []}', '{"products": 3}'])
    def test_what_is_no_association_is_refused(self, folder: Path, text: str) -> None:
        (folder / "x_asn.json").write_text(text)
        assert "x_asn.json: " in refusal("x_asn.json")


class TestReference:
    def test_outside_of_the_list_it_holds_the_level_and_is_never_written(self, folder: Path) -> None:
        single("survey.fits", 50.0)
        for name, sky, x in (("a.fits", 53.0, 5.0), ("b.fits", 57.0, 10.0)):
            single(name, sky, x)
        before = (folder / "survey.fits").read_bytes()
        done = CliRunner().invoke(
            main, ["match", "--subtract", "--reference", "survey.fits", "--format", "json", "a.fits", "b.fits"]
        )
        assert done.exit_code == 0, done.stderr
        images = {image["file"]: image["sky"] for image in json.loads(done.stdout)["images"]}
        assert images == {
            "a.fits": pytest.approx(3, abs=0.2),
            "b.fits": pytest.approx(7, abs=0.2),
            "survey.fits": pytest.approx(0, abs=1e-12),
        }
        assert (folder / "survey.fits").read_bytes() == before
        assert fits.getval("a.fits", "BKGSUB") is True

    def test_in_steps_it_is_not_written_either(self, folder: Path) -> None:
        single("survey.fits", 50.0)
        single("a.fits", 53.0, 5.0)
        before = (folder / "survey.fits").read_bytes()
        args = ["match", "--dry-run", "--reference", "survey.fits", "-o", "solution.fits", "a.fits"]
        assert CliRunner().invoke(main, args).exit_code == 0
        assert CliRunner().invoke(main, ["apply", "solution.fits"]).exit_code == 0
        assert (folder / "survey.fits").read_bytes() == before
        assert fits.getval("a.fits", "BKGLEVEL") == pytest.approx(3, abs=0.2)


class TestCoordinates:
    def test_positions_on_the_sun_are_matched(self) -> None:
        for name, sky, x in (("a.fits", 100.0, 0.0), ("b.fits", 107.0, 10.0)):
            single(name, sky, x, CTYPE1="HPLN-TAN", CTYPE2="HPLT-TAN")
        assert result("a.fits", "b.fits")["images"][1]["sky"] == pytest.approx(7, abs=0.2)
        single("c.fits", 100.0, 5.0)
        assert "c.fits: its coordinates (icrs) can't be compared with those of a.fits (HPLN)" in refusal("*.fits")
        assert [image["file"] for image in result("--skip-bad", "*.fits")["images"]] == ["a.fits", "b.fits"]

    def test_observers_of_different_sides_of_the_sun_are_refused(self) -> None:
        """STEREO A and B, 60 degrees apart at 1 au: as far from each other as from the Sun."""
        sun = {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "HGLT_OBS": 0.0, "DSUN_OBS": 149_597_870_700.0}
        single("a.fits", 100.0, **sun, HGLN_OBS=30.0, OBSRVTRY="STEREO_A")
        single("b.fits", 107.0, 10.0, **sun, HGLN_OBS=-30.0, OBSRVTRY="STEREO_B")
        single("c.fits", 103.0, 5.0, **sun, HGLN_OBS=30.01, OBSRVTRY="STEREO_A")
        assert "b.fits: its observer is 1 au from that of a.fits" in refusal("*.fits")
        assert "b.fits: its observer is 1 au from that of a.fits" in refusal("--store", "s.db", "*.fits")
        used = result("--skip-bad", "*.fits")["images"]
        assert [image["file"] for image in used] == ["a.fits", "c.fits"]
        assert used[1]["sky"] == pytest.approx(3, abs=0.2)
        assert "observer" not in run("--split-by", "OBSRVTRY", "*.fits").stderr

    @pytest.mark.parametrize(("au", "refused"), [(0.99, False), (0.97, True)])
    def test_an_observer_at_the_first_lagrange_point_sees_the_sun_as_the_earth_does(
        self, au: float, refused: bool
    ) -> None:
        sun = {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "HGLT_OBS": 5.0, "HGLN_OBS": 0.0}
        single("a.fits", 100.0, **sun)  # without DSUN_OBS: at 1 au
        single("b.fits", 107.0, 10.0, **sun, DSUN_OBS=au * 149_597_870_700.0)
        if refused:
            assert "b.fits: its observer is 0.03 au from that of a.fits" in refusal("*.fits")
        else:
            assert result("*.fits")["images"][1]["sky"] == pytest.approx(7, abs=0.2)

    def test_keywords_of_the_observer_that_only_some_images_have_are_a_warning(self) -> None:
        sun = {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"}
        single("a.fits", 100.0, **sun)
        single("b.fits", 107.0, 10.0, **sun, DSUN_OBS=149_597_870_700.0)
        assert "DSUN_OBS is missing in a.fits, but not in b.fits: taken as 1 au [wcs]" in run("*.fits").stderr
        single("c.fits", 103.0, 5.0, **sun, DSUN_OBS=149_597_870_700.0, HGLN_OBS=0.0, HGLT_OBS=0.0)
        said = run("*.fits").stderr
        assert (
            "HGLN_OBS is missing in a.fits, b.fits, but not in c.fits: their observers are taken to be at one" in said
        )
        assert "not known" not in run("b.fits", "--strict").stderr

    @pytest.mark.parametrize(("epoch", "equinox"), [(1955.31, "fk4 of 1955.31"), (2021.4, "fk5 of 2021.4")])
    def test_an_epoch_that_is_taken_for_the_equinox_is_said(self, epoch: float, equinox: str) -> None:
        single("a.fits", 100.0, RADESYS=None)
        single("b.fits", 107.0, 10.0, RADESYS=None, EPOCH=epoch)
        single("c.fits", 100.0, 5.0, RADESYS=None)
        compared = f"positions of different frames are compared: icrs (a.fits), {equinox} (b.fits)"
        assert compared in run("*.fits").stderr
        alone = run("a.fits", "b.fits")
        assert alone.exit_code == 4
        assert "no image overlaps another" in alone.stderr
        assert compared in alone.stderr

    def test_a_plate_solution_without_ctype(self) -> None:
        plate = {"PLTRAH": 18, "PLTRAM": 16, "PLTRAS": 34.2, "PLTDECSN": "-", "PLTDECD": 15, "PLTDECM": 13}
        plate |= {"PLTDECS": 20.0, "CNPIX1": 9000, "CNPIX2": 3000, "XPIXELSZ": 25.28445, "YPIXELSZ": 25.28445}
        plate |= {f"PPO{i}": 177500.0 if i in {3, 6} else 0.0 for i in range(1, 7)}
        plate |= {f"AMD{axis}{i}": 67.2 if i == 1 else 0.0 for axis in "XY" for i in range(1, 21)}
        for name, sky, x in (("a.fits", 100.0, 0), ("b.fits", 107.0, 10)):
            header = fits.Header(plate | {"CNPIX1": 9000 + x})
            fits.PrimaryHDU(frame(sky, float(x)).pixels().astype("f4"), header).writeto(name)
        assert result("a.fits", "b.fits")["images"][1]["sky"] == pytest.approx(7, abs=0.2)


class TestMessages:
    @pytest.mark.parametrize(
        ("magic", "said"),
        [
            (b"\xfd7zXZ\x00", "is compressed by xz (uncompress it first: unxz a.fits)"),
            (b"\x28\xb5\x2f\xfd", "is compressed by Zstandard (uncompress it first: unzstd a.fits)"),
            (b"\x1f\x9d\x90", "is compressed by compress (uncompress it first: uncompress a.fits)"),
            (b"PK\x03\x04", "is compressed by zip (uncompress it first: unzip a.fits)"),
        ],
    )
    def test_other_compressions(self, folder: Path, magic: bytes, said: str) -> None:
        (folder / "a.fits").write_bytes(magic + bytes(100))
        assert f"a.fits: {said}" in refusal("a.fits")

    @pytest.mark.parametrize("line", ["{0} 1.5", "{0},1.5", "{0}, 1.5", "{0}[0],1.5", "{0} 1.5,"])
    def test_skies_with_commas(self, folder: Path, line: str) -> None:
        single("a.fits", 100.0)
        (folder / "skies.txt").write_text(line.format("a.fits") + "\n")
        assert result("--method", "user", "--skylist", "skies.txt", "a.fits")["images"][0]["sky"] == 1.5

    def test_several_skies_of_one_file(self, folder: Path) -> None:
        hdus = [fits.ImageHDU(frame(100.0).pixels(), frame(100.0).hdu_header(), name="SCI") for _ in range(2)]
        hdus[1].header["EXTVER"] = 2
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto("a.fits")
        (folder / "skies.txt").write_text("a.fits 1.5 2.5\n")
        images = result("--method", "user", "--skylist", "skies.txt", "a.fits")["images"]
        assert [image["sky"] for image in images] == [1.5, 2.5]
        (folder / "skies.txt").write_text("a.fits 1.5 2.5 3.5\n")
        assert "skies.txt, line 1: 3 skies for 2 images of a.fits" in refusal(
            "--method", "user", "--skylist", "skies.txt", "a.fits"
        )

    def test_an_overlap_that_is_masked_everywhere(self, folder: Path) -> None:
        for name, x in (("a.fits", 0.0), ("b.fits", 20.0)):
            single(name, 100.0, x)
        fits.PrimaryHDU(np.zeros((40, 40), "i2")).writeto("mask.fits")
        done = run("--mask", "mask.fits", "a.fits", "b.fits")
        assert done.exit_code == 4
        assert "all pixels of the overlap are masked" in done.stderr

    @pytest.mark.parametrize("compare", ["mesh", "pooled"])
    def test_limits_that_drop_all_pixels(self, compare: str) -> None:
        names = single("a.fits", 100.0), single("b.fits", 107.5, 10.0)
        done = run("--lower", "1e6", "--compare", compare, *names)
        assert (done.exit_code, "all pixels of the overlap are outside of the limits" in done.stderr) == (4, True)

    def test_an_image_of_nan_and_a_single_image(self) -> None:
        names = single("a.fits", 100.0), single("b.fits", 107.5, 10.0)
        fits.PrimaryHDU(np.full((40, 40), np.nan, "f4"), frame(1.0, 5.0).hdu_header()).writeto("nan.fits")
        assert "no sky (all_masked): nan.fits" in run(*names, "nan.fits").stderr
        assert "there is only one image" in run("a.fits").stderr

    def test_copies_are_named(self) -> None:
        names = single("a.fits", 100.0), single("b.fits", 107.5, 10.0)
        Path("copy.fits").write_bytes(Path("a.fits").read_bytes())
        Path("link.fits").hardlink_to("b.fits")
        Path("other.fits").symlink_to("b.fits")
        done = result(*names, "link.fits", "other.fits")
        assert [image["file"] for image in done["images"]] == ["a.fits", "b.fits"]
        assert not done["warnings"]
        (said,) = [w["text"] for w in result(*names, "copy.fits")["warnings"] if w["name"] == "copies"]
        assert said == "copy.fits holds the same pixels as a.fits: a copy counts as another exposure"

    @pytest.mark.parametrize(
        ("kind", "refused"),
        [
            ("BIAS", True),
            ("Dark Frame", True),
            ("dome flat", True),
            ("SKYFLAT", True),
            ("MasterFlat", True),
            ("dark-subtracted", False),
            ("Light Frame", False),
            ("object", False),
            (1, False),
        ],
    )
    def test_a_calibration_frame_is_refused(self, kind: Any, refused: bool) -> None:
        names = single("a.fits", 100.0), single("b.fits", 107.5, 10.0), single("c.fits", 5.0, 5.0, IMAGETYP=kind)
        done = run(*names)
        assert done.exit_code == (3 if refused else 0)
        assert (f"c.fits: is a calibration frame: its IMAGETYP is '{kind}'" in done.stderr) == refused
        assert run("--skip-bad", *names).exit_code == 0

    @pytest.mark.parametrize(("given", "said"), [((), True), (("--group-by", "none"), False)])
    def test_chips_with_levels_of_their_own_are_told_what_helps(self, given: tuple[str, ...], said: bool) -> None:
        """The second chip is 20 above the first one; the dithers move each on parts of the other."""
        for k, dx in enumerate((0.0, 14.0, 28.0)):
            chips = [frame(100.0 + k + 20 * chip, dx + 42.0 * chip) for chip in range(2)]
            hdus = [fits.ImageHDU(c.pixels().astype("f4"), c.hdu_header(), name=f"CCD{i}") for i, c in enumerate(chips)]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(f"{k}.fits")
        assert ("--group-by none gives each its own" in run(*given, "0.fits", "1.fits", "2.fits").stderr) == said

    @pytest.mark.parametrize(("sky", "said"), [(0.0, True), (10.0, True), (50.0, False)])
    def test_negative_values_that_were_set_to_0_are_a_warning(self, sky: float, said: bool) -> None:
        """The noise is 10: the mean of what is left is 4 too high where the sky was 0, 0.8 where it was 10."""
        made = frame(sky, 20.0, nx=100, ny=100)
        pixels = np.maximum(sky + np.random.default_rng(4).normal(0, 10, (100, 100)), 0).astype("f4")
        fits.PrimaryHDU(pixels, made.hdu_header()).writeto("b.fits")
        fits.PrimaryHDU(made.pixels().astype("f4") + 7, frame(0.0, nx=100, ny=100).hdu_header()).writeto("a.fits")
        texts = [w["text"] for w in result("a.fits", "b.fits")["warnings"]]
        assert (
            any("b.fits" in text and "they were cut off there, and its sky is wrong" in text for text in texts) == said
        )

    def test_a_copy_in_another_form_is_named(self, folder: Path) -> None:
        """One copy has its sky subtracted, another is packed; the exposures themselves are 10 pixels apart."""
        names = single("a.fits", 100.0), single("b.fits", 107.5, 10.0)
        assert CliRunner().invoke(main, ["match", "--subtract", "--output-dir", "out", *names]).exit_code == 0
        (folder / "b.fits.gz").write_bytes(gzip.compress((folder / "b.fits").read_bytes()))
        for other, first in (("out/b.fits", "b.fits"), ("b.fits.gz", "b.fits")):
            (said,) = [w["text"] for w in result(*names, other)["warnings"] if w["name"] == "copies"]
            assert said.startswith(
                f"{other} has the name and the WCS of {first}, packed, as other numbers or with another sky subtracted"
            )
        assert not result("a.fits", "out/b.fits")["warnings"]

    def test_extensions_of_one_file_and_other_filters_are_no_copies(self, folder: Path) -> None:
        """Of one WCS and one name, one in integers and one in floats."""
        for kind in ("i2", "f4"):
            (folder / kind).mkdir()
            for name, x in (("a", 0.0), ("b", 10.0)):
                made = frame(100.0, x)
                header = made.hdu_header()
                header["FILTER"] = kind
                fits.PrimaryHDU(made.pixels().astype(kind), header).writeto(f"{kind}/{name}.fits")
        hdus = [fits.ImageHDU(*fits.getdata(f"{kind}/a.fits", header=True), name=kind) for kind in ("i2", "f4")]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto("both.fits")
        of_files = [f"{kind}/{name}.fits" for kind in ("i2", "f4") for name in "ab"]
        for words in (("--group-by", "none", "both.fits[1]", "both.fits[2]"), ("--split-by", "FILTER", *of_files)):
            assert "copies" not in {w["name"] for w in result(*words)["warnings"]}

    def test_an_image_whose_overlap_is_masked_is_not_said_to_lie_apart(self) -> None:
        for name, x in (("a.fits", 0.0), ("b.fits", 12.0), ("c.fits", 30.0)):
            single(name, 100.0, x)
        every, good = np.ones((2, 40, 40), "i2")
        good[:, 10:] = 0  # all that c.fits has in common with the others
        for name, mask in (("a", every), ("b", every), ("c", good), ("d", every)):
            fits.PrimaryHDU(mask).writeto(f"{name}_good.fits")
        single("d.fits", 100.0, 900.0)
        for name, apart in (("c.fits", "have no usable pixel in common"), ("d.fits", "don't overlap each other")):
            assert apart in run("--mask", "{stem}_good.fits", "a.fits", "b.fits", name).stderr


@pytest.mark.parametrize(("noise", "coarse"), [(0.3, True), (1.0, False)])
def test_integers_without_noise_are_said_and_pooled_is_right(noise: float, coarse: bool) -> None:
    rng = np.random.default_rng(3)
    for name, sky in (("a.fits", 20.2), ("b.fits", 20.55)):
        data = np.rint(sky + rng.normal(0, noise, (128, 128))).astype("i2")
        fits.PrimaryHDU(data, frame(sky, nx=128, ny=128).hdu_header()).writeto(name)
    by_mesh = result("a.fits", "b.fits")
    assert ("coarse" in [w["name"] for w in by_mesh["warnings"]]) is coarse
    apart = by_mesh["images"][1]["sky"] - by_mesh["images"][0]["sky"]
    assert abs(apart - 0.35) < (0.1 if coarse else 0.03)
    pooled = result("--compare", "pooled", "a.fits", "b.fits")["images"]
    assert pooled[1]["sky"] - pooled[0]["sky"] == pytest.approx(0.35, abs=0.04)


class TestRegions:
    """A star of 5000 counts in columns 10 to 14 of one image, which the other doesn't have."""

    def pair(self) -> None:
        single("b.fits", 107.5, 10.0)
        made = frame(100.0)
        data = made.pixels().astype("f4")
        data[:, 10:30] += 500
        fits.PrimaryHDU(data, made.hdu_header()).writeto("a.fits")

    def sky(self, *options: str) -> tuple[float, int]:
        first, second = result(*options, "a.fits", "b.fits")["images"]
        return second["sky"] - first["sky"], first["n_pixels"]

    @pytest.mark.parametrize("where", ["image", "fk5"])
    def test_pixels_inside_are_left_out(self, folder: Path, where: str) -> None:
        pytest.importorskip("regions")
        self.pair()
        box = "box(20.5,20.5,20,80,0)"  # columns 10 to 29 of 0 to 39
        if where == "fk5":
            ra, dec = WCS(frame(100.0).hdu_header()).pixel_to_world_values(19.5, 19.5)
            box = f'box({ra:.9f},{dec:.9f},20",80",0)'
        (folder / "stars.reg").write_text(f"# Region file format: DS9\n{where}\n{box}\n")
        sky, n_pixels = self.sky("--mask", "stars.reg", "--compare", "pooled")
        assert sky == pytest.approx(7.5, abs=0.2)
        assert n_pixels == pytest.approx(20 * 40, abs=40)

    def test_an_excluded_region_is_kept(self, folder: Path) -> None:
        pytest.importorskip("regions")
        single("a.fits", 100.0)
        single("b.fits", 107.5, 10.0)
        (folder / "stars.reg").write_text("image\nbox(20.5,20.5,20,40,0)\n-box(20.5,20.5,20,20,0)\n")
        assert self.sky("--mask", "stars.reg")[1] == 1600 - 400
        (folder / "stars.reg").write_text("image\n-box(20.5,20.5,20,20,0)\n")
        assert "stars.reg: holds only excluded regions" in refusal("--mask", "stars.reg", "a.fits", "b.fits")

    def test_by_template_and_missing(self, folder: Path) -> None:
        pytest.importorskip("regions")
        self.pair()
        (folder / "a.reg").write_text("image\nbox(20.5,20.5,20,80,0)\n")
        assert "b.fits: its mask b.reg can't be used: no such file" in refusal("--mask", "{stem}.reg", "*.fits")


class TestExposureMaps:
    def pair(self) -> None:
        """Skies of 5 and 6 counts a second under maps that fall off by half, and are 0 in the first columns."""
        for name, sky, time in (("a", 5.0, 1000.0), ("b", 6.0, 3000.0)):
            made = frame(100.0, 10.0 * (name == "b"))
            exposure = time * np.linspace(1.0, 0.5, 40)[:, None] * np.ones(40)
            exposure[:, :5] = 0
            counts = np.random.default_rng(ord(name)).poisson(sky * exposure)
            header = made.hdu_header()
            header["BUNIT"] = "count"
            fits.PrimaryHDU(counts.astype("i4"), header).writeto(f"{name}.fits")
            fits.PrimaryHDU(exposure.astype("f4")).writeto(f"{name}_seconds.fits")

    def test_counts_are_divided_by_them(self) -> None:
        self.pair()
        first, second = result("--exposure-map", "{stem}_seconds.fits", "a.fits", "b.fits")["images"]
        assert second["sky"] - first["sky"] == pytest.approx(1, abs=0.02)
        assert first["sky_unit"] == "count / s"

    def test_their_skies_are_not_recorded(self) -> None:
        self.pair()
        args = ["match", "--exposure-map", "{stem}_seconds.fits", "a.fits", "b.fits"]
        done = CliRunner().invoke(main, args)
        assert done.exit_code == 2
        assert "can't be recorded in an image of counts" in done.stderr
        assert "BKGLEVEL" not in fits.getheader("a.fits")


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
def test_sets_without_a_pair_are_said(compare: str) -> None:
    names = single("u.fits", 100.0, FILTER="U"), single("v.fits", 107.5, 10.0, FILTER="V")
    done = run("--compare", compare, "--split-by", "FILTER", *names)
    assert (done.exit_code, "no image overlaps another" in done.stderr) == (4, True)
