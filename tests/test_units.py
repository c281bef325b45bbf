"""BUNIT, exposure time and pixel area -> factors to one comparison unit; numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st

from skymatch_cli.images.bunit import understand
from skymatch_cli.images.units import Scales, UnitFacts, comparison_scales

A = UnitFacts(label="a.fits", bunit="ELECTRONS", area_arcsec2=0.04, exptime_s=100.0, group="a")
B = replace(A, label="b.fits", group="b")


def scales(*facts: UnitFacts, units: str = "auto") -> Scales:
    return comparison_scales(facts, units=units)


class TestCommonCase:
    def test_everything_alike_is_taken_as_it_is(self) -> None:
        found = scales(A, B)
        assert (found.factor.tolist(), found.unit) == ([1, 1], "ELECTRONS")
        assert (found.notes, found.warnings, found.problems) == ((), (), {})

    def test_areas_within_20_percent_are_alike(self) -> None:
        assert scales(A, replace(B, area_arcsec2=0.04 * 1.19)).factor.tolist() == [1, 1]

    def test_chips_of_one_group_have_one_area(self) -> None:
        chip = replace(A, label="a.fits[2]", area_arcsec2=0.047)
        assert scales(A, chip).factor.tolist() == [1, 1]

    def test_chips_of_two_pixel_scales_have_areas_of_their_own(self) -> None:
        chip = replace(A, label="a.fits[2]", area_arcsec2=0.16)  # of WFPC2: 0.05 and 0.1 arcsec a pixel
        found = scales(A, chip, chip, replace(A, group="b"), replace(chip, group="b"))
        assert found.factor.tolist() == pytest.approx([25, 6.25, 6.25, 25, 6.25])

    def test_missing_exposure_times_and_areas_don_t_matter(self) -> None:
        blank = replace(A, exptime_s=math.nan, area_arcsec2=math.nan)
        assert scales(blank, replace(blank, group="b")).factor.tolist() == [1, 1]

    def test_unknown_spelling_is_no_obstacle_where_all_have_it(self) -> None:
        found = scales(replace(A, bunit="blobs"), replace(B, bunit="blobs"))
        assert (found.factor.tolist(), found.unit, found.warnings) == ([1, 1], "blobs", ())

    def test_no_image(self) -> None:
        assert len(scales().factor) == 0


class TestPixelArea:
    def test_numbers_per_pixel_are_divided_by_the_area(self) -> None:
        found = scales(A, replace(B, area_arcsec2=0.16))
        assert found.factor.tolist() == pytest.approx([1 / 0.04, 1 / 0.16])
        assert found.unit == "electron / arcsec2"
        assert "0.04, 0.16 arcsec2" in found.notes[0]

    def test_groups_that_agree_share_one_area(self) -> None:
        found = scales(A, replace(B, area_arcsec2=0.044), replace(A, group="c", area_arcsec2=0.16))
        assert found.factor.tolist() == pytest.approx([1 / 0.042, 1 / 0.042, 1 / 0.16])

    def test_area_of_a_group_is_the_median_over_its_chips(self) -> None:
        chips = [replace(A, area_arcsec2=area) for area in (0.039, 0.04, 0.045)]
        assert scales(*chips, replace(B, area_arcsec2=0.16)).factor.tolist() == pytest.approx([25, 25, 25, 6.25])

    def test_surface_brightness_is_never_rescaled(self) -> None:
        sr = replace(A, bunit="MJy/sr")
        found = scales(sr, replace(sr, group="b", area_arcsec2=0.16))
        assert (found.factor.tolist(), found.unit) == ([1, 1], "MJy/sr")

    def test_beams_are_not_pixels(self) -> None:
        beam = replace(A, bunit="JY/BEAM")
        assert scales(beam, replace(beam, group="b", area_arcsec2=4.0)).factor.tolist() == [1, 1]

    def test_flux_per_pixel_meets_surface_brightness(self) -> None:
        found = scales(replace(A, bunit="MJy/sr"), replace(B, bunit="Jy/pix", area_arcsec2=1.0))
        expected = (1 * u.Jy / u.arcsec**2).to_value(u.MJy / u.sr)
        assert found.factor.tolist() == pytest.approx([1, expected], rel=1e-12)
        assert found.unit == "MJy / sr"


class TestBeams:
    def test_of_different_areas_are_divided_out(self) -> None:
        small = replace(A, bunit="Jy/beam", beam_arcsec2=100.0)
        found = scales(small, replace(small, group="b", beam_arcsec2=400.0))
        assert found.factor.tolist() == pytest.approx([0.01, 0.0025])
        assert found.unit == "Jy / arcsec2"

    def test_meet_surface_brightness(self) -> None:
        found = scales(replace(A, bunit="MJy/sr"), replace(B, bunit="Jy/beam", beam_arcsec2=2.0))
        expected = (1 * u.Jy / (2 * u.arcsec**2)).to_value(u.MJy / u.sr)
        assert found.factor.tolist() == pytest.approx([1, expected], rel=1e-12)

    def test_that_are_not_known_are_refused_beside_others(self) -> None:
        small = replace(A, bunit="Jy/beam", beam_arcsec2=100.0)
        found = scales(small, replace(small, label="b.fits", beam_arcsec2=math.nan))
        assert "BMAJ or BMIN is missing" in str(found.problems[1])

    def test_that_nobody_knows_are_taken_as_the_same(self) -> None:
        beam = replace(A, bunit="Jy/beam")
        assert scales(beam, replace(beam, group="b")).factor.tolist() == [1, 1]


@pytest.mark.parametrize("bunit", ["mag", "mag/arcsec2", "mag(AB)", "dex(Jy)", "log(ct)"])
def test_logarithms_are_refused(bunit: str) -> None:
    found = scales(replace(A, bunit=bunit), replace(B, bunit=bunit))
    assert "is not linear in flux" in str(found.problems[0])


def test_gains_that_differ_are_a_warning() -> None:
    seven = replace(A, bunit="COUNTS", gain=7.0)
    fifteen = replace(B, bunit="COUNTS", gain=15.0)
    (warning,) = scales(seven, fifteen).warnings
    assert "counts of different gains are compared: a.fits (7) to b.fits (15)" in str(warning)
    assert scales(seven, replace(seven, group="b")).warnings == ()
    assert scales(replace(seven, flux_scale=7.0), replace(fifteen, flux_scale=15.0)).warnings == ()
    electrons = (replace(f, bunit="ELECTRONS") for f in (seven, fifteen))
    assert scales(*electrons).warnings == ()


def test_sets_that_are_not_compared_have_units_of_their_own() -> None:
    blue = replace(A, bunit="MJy/sr", split="F200W")
    red = replace(B, bunit="adu", split="F444W")
    found = scales(blue, red)
    assert (found.factor.tolist(), found.problems, found.unit) == ([1, 1], {}, "")


class TestExposureTime:
    def test_counts_of_different_exposures_become_rates(self) -> None:
        found = scales(A, replace(B, exptime_s=50.0))
        assert (found.factor.tolist(), found.unit) == ([0.01, 0.02], "electron / s")
        assert "EXPTIME" in found.notes[0]

    def test_counts_that_meet_rates(self) -> None:
        found = scales(replace(A, bunit="electron/s"), B)
        assert (found.factor.tolist(), found.unit) == ([1, 0.01], "electron / s")

    def test_rates_of_different_exposures_are_rates(self) -> None:
        rate = replace(A, bunit="DN/s")
        found = scales(rate, replace(rate, exptime_s=7.0))
        assert (found.factor.tolist(), found.unit) == ([1, 1], "DN/s")

    def test_time_and_area(self) -> None:
        found = scales(A, replace(B, exptime_s=50.0, area_arcsec2=0.16))
        assert found.factor.tolist() == pytest.approx([0.01 / 0.04, 0.02 / 0.16])
        assert u.Unit(found.unit) == u.electron / u.s / u.arcsec**2

    @pytest.mark.parametrize("exptime", [math.nan, 0.0, -1.0])
    def test_without_a_usable_time_is_a_problem(self, exptime: float) -> None:
        found = scales(A, replace(B, exptime_s=exptime))
        assert list(found.problems) == [1]
        assert "EXPTIME is missing or not positive" in str(found.problems[1])
        assert np.isnan(found.factor).tolist() == [False, True]


class TestDifferentBunits:
    def test_spellings_of_one_unit(self) -> None:
        found = scales(replace(A, bunit="ELECTRONS/S"), replace(B, bunit="e-/sec"))
        assert (found.factor.tolist(), found.unit) == ([1, 1], "ELECTRONS/S")

    def test_prefixes(self) -> None:
        found = scales(replace(A, bunit="MJy/sr"), replace(B, bunit="kJy/sr"))
        assert found.factor.tolist() == pytest.approx([1, 1e-3])

    def test_solid_angles_are_converted(self) -> None:
        found = scales(replace(A, bunit="Jy/arcsec2"), replace(B, bunit="MJy/sr"))
        assert found.factor[1] == pytest.approx(1e6 * (np.pi / 180 / 3600) ** 2, rel=1e-12)

    @pytest.mark.parametrize(
        ("first", "second"),
        [("DN", "MJy/sr"), ("electron", "DN"), ("x", "DN"), ("mag", "DN"), ("10**200 s", "10**-200 s")],
    )
    def test_what_can_t_be_brought_together_names_both_images(self, first: str, second: str) -> None:
        found = scales(replace(A, bunit=first), replace(B, bunit=second))
        text = str(found.problems[1])
        assert all(word in text for word in ("b.fits", repr(second), "a.fits", repr(first), "--units as-is"))
        assert np.isnan(found.factor[1])

    def test_as_is_compares_numbers(self) -> None:
        found = scales(A, replace(B, bunit="MJy/sr", area_arcsec2=9.0, exptime_s=1.0), units="as-is")
        assert (found.factor.tolist(), found.unit, found.problems) == ([1, 1], "", {})

    def test_flux_scale_comes_first(self) -> None:
        found = scales(replace(A, flux_scale=2.0), replace(B, flux_scale=3.0, exptime_s=50.0))
        assert found.factor.tolist() == pytest.approx([0.02, 0.06])
        assert scales(replace(A, flux_scale=2.0), B, units="as-is").factor.tolist() == [2, 1]


class TestMissingBunit:
    def test_all_missing_and_alike(self) -> None:
        blank = replace(A, bunit="")
        found = scales(blank, replace(blank, group="b"))
        assert (found.factor.tolist(), found.unit, found.warnings) == ([1, 1], "", ())

    @pytest.mark.parametrize(
        ("change", "what"), [({"exptime_s": 50.0}, "exposure times"), ({"area_arcsec2": 0.4}, "pixel scales")]
    )
    def test_a_warning_where_something_differs(self, change: dict[str, float], what: str) -> None:
        blank = replace(A, bunit="")
        found = scales(blank, replace(blank, group="b", **change))
        assert found.factor.tolist() == [1, 1]
        assert what in str(found.warnings[0])

    def test_a_warning_beside_others(self) -> None:
        found = scales(A, replace(B, bunit=""))
        assert found.factor.tolist() == [1, 1]
        assert str(found.warnings[0]).startswith("b.fits: no BUNIT")

    def test_a_bunit_that_is_not_understood_warns_too(self) -> None:
        blobs = replace(A, bunit="blobs")
        assert "not understood" in str(scales(blobs, replace(blobs, exptime_s=1.0)).warnings[0])


class TestSpellings:
    @pytest.mark.parametrize(
        ("text", "unit"),
        [
            ("ELECTRONS/S", u.electron / u.s),
            ("ELECTRONS", u.electron),
            ("e-/s", u.electron / u.s),
            ("electron s-1", u.electron / u.s),
            ("DN", u.adu),
            ("ADU", u.adu),
            ("dn/sec", u.adu / u.s),
            ("counts/sec", u.ct / u.s),
            ("COUNTS/S", u.ct / u.s),
            ("cps", u.ct / u.s),
            ("MJy/sr", u.MJy / u.sr),
            ("MJY/SR", u.MJy / u.sr),
            ("mJy/sr", u.mJy / u.sr),
            ("nanomaggies", u.Unit("nmgy")),
            ("JY/BEAM", u.Jy / u.beam),
            ("Jy/pixel", u.Jy),
            ("electron/s/pix", u.electron / u.s),
            ("ERG/CM2/S/A/ARCSEC2", u.erg / u.cm**2 / u.s / u.AA / u.arcsec**2),
            ("10**-6 Jy", 1e-6 * u.Jy),
        ],
    )
    def test_in_the_wild(self, text: str, unit: u.UnitBase) -> None:
        assert understand(text).unit == unit

    @pytest.mark.parametrize(
        "text", ["", " ", "mag", "mag(AB)", "blobs", ")(", "1e400", "10**10**10", "1QB(9999999)", "x" * 200]
    )
    def test_not_understood(self, text: str) -> None:
        assert understand(text).unit is None

    def test_kinds(self) -> None:
        assert understand("DN").per_pixel
        assert understand("DN").is_count
        assert understand("DN/s").is_rate
        assert understand("electron/arcsec2").per_area
        assert understand("electron/arcsec2").is_count
        assert understand("W/m2/um").per_pixel
        assert not understand("K").per_pixel

    @given(st.text(max_size=80))
    def test_any_text_is_answered(self, text: str) -> None:
        understand(text)


units_strategy = st.sampled_from(["", "DN", "ADU", "ELECTRONS", "electron/s", "MJy/sr", "Jy/pix", "blobs", "K"])
facts_strategy = st.builds(
    UnitFacts,
    label=st.just("x.fits"),
    bunit=units_strategy,
    area_arcsec2=st.sampled_from([0.01, 0.011, 0.04, math.nan]),
    exptime_s=st.sampled_from([1.0, 30.0, math.nan]),
    group=st.sampled_from("abc"),
)


@given(st.lists(facts_strategy, max_size=6))
def test_every_image_has_a_factor_or_a_problem(facts: list[UnitFacts]) -> None:
    found = comparison_scales(facts)
    for i, factor in enumerate(found.factor):
        assert (i in found.problems) == (not (np.isfinite(factor) and factor > 0))
