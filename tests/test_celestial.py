"""The celestial WCS of headers: positions agree with astropy, and come back to their pixels."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skymatch_cli.errors import InputError
from skymatch_cli.sky.celestial import FitsWcs, wcs_of_cards
from skymatch_cli.sky.footprint import footprint
from skymatch_cli.sky.inverse import refine_pixels
from skymatch_cli.sky.sphere import angle_rad, lon_lat, pixel_area_arcsec2

from .factories import Frame
from .headers import (
    ASTROPY_DATA,
    all_sky_wcs,
    celestial_header,
    fits_wcs,
    hst_chip,
    lookup_wcs,
    make_wcs,
    pixel_grid,
    sip_cards,
    tpv_cards,
)

MAPS = sorted((ASTROPY_DATA / "maps").glob("*.hdr"))
DISTORTED = {
    "sip": {"projection": "TAN-SIP", "cards": sip_cards(100)},
    "tpv": {"projection": "TPV", "cards": tpv_cards(0.05)},
}


def off_by_pix(wcs: FitsWcs) -> float:
    x, y = pixel_grid(wcs)
    back_x, back_y = wcs.to_pixel(wcs.to_sky(x, y))
    return float(np.hypot(back_x - x, back_y - y).max())


def icrs_of_astropy(header: fits.Header, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return WCS(header).pixel_to_world(x, y).icrs.cartesian.xyz.value.T


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"axes": ("DEC", "RA"), "rotation": 30.0},
        {"mirrored": True, "rotation": 200.0},
        {"lat": 90.0},
        {"lon": 0.0},
        {"cards": {"RADESYS": "FK5", "EQUINOX": 1975.0}},
        {"cards": {"RADESYS": "FK4", "EQUINOX": 1950.0}},
        {"cards": {"RADESYS": "FK4-NO-E", "EQUINOX": 1950.0}},
        {"cards": {"EQUINOX": 1950.0}},
        {"cards": {"EQUINOX": 2000.0}},
        {"axes": ("GLON", "GLAT")},
        {"axes": ("GLAT", "GLON"), "projection": "CAR"},
        DISTORTED["sip"],
        DISTORTED["tpv"],
    ],
    ids=str,
)
def test_positions_are_those_of_astropy(options):
    header = celestial_header(**options)
    x, y = pixel_grid(make_wcs(**options))
    np.testing.assert_allclose(make_wcs(**options).to_sky(x, y), icrs_of_astropy(header, x, y), rtol=0, atol=2e-15)


def test_the_equinox_alone_decides_between_fk4_fk5_and_icrs():
    names = [make_wcs(cards=cards).frame.name for cards in ({"EQUINOX": 1950.0}, {"EQUINOX": 2000.0}, {})]
    assert names == ["fk4", "fk5", "icrs"]


def test_radesys_says_nothing_about_galactic_axes():
    with_fk5 = make_wcs(axes=("GLON", "GLAT"), cards={"RADESYS": "FK5", "EQUINOX": 2000.0})
    assert with_fk5.frame == make_wcs(axes=("GLON", "GLAT")).frame


def test_ecliptic_axes_are_the_mean_ecliptic_of_the_equinox():
    wcs = make_wcs(axes=("ELON", "ELAT"), lon=100.0, lat=-30.0, cards={"EQUINOX": 2010.0})
    there = SkyCoord(100 * units.deg, -30 * units.deg, frame=BarycentricMeanEcliptic(equinox=Time("J2010")))
    centre = wcs.to_sky(np.array([49.5]), np.array([39.5]))[0]
    np.testing.assert_allclose(centre, there.icrs.cartesian.xyz.value, atol=1e-15)
    assert off_by_pix(wcs) < 1e-6


def test_supergalactic_axes():
    there = SkyCoord(100 * units.deg, -30 * units.deg, frame="supergalactic").icrs
    wcs = make_wcs(axes=("SLON", "SLAT"), lon=100.0, lat=-30.0)
    np.testing.assert_allclose(wcs.to_sky(np.array([49.5]), np.array([39.5]))[0], there.cartesian.xyz.value, atol=1e-15)


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.stem)
def test_pixels_come_back_in_every_projection(path):
    # The COBE cube (CSC) is computed in single precision by wcslib.
    wcs = fits_wcs(fits.Header.fromstring(path.read_bytes()), (192, 192))
    assert off_by_pix(wcs) < (1e-3 if "CSC" in path.stem else 1e-6)


def test_there_are_all_projections():
    assert len(MAPS) == 28


@pytest.mark.parametrize("options", DISTORTED.values(), ids=DISTORTED)
def test_pixels_come_back_through_distortions(options):
    assert off_by_pix(make_wcs(**options)) < 1e-5


@pytest.mark.parametrize("make", [hst_chip, lookup_wcs])
def test_pixels_come_back_in_real_files(make):
    assert off_by_pix(make()) < 1e-5


@pytest.mark.parametrize("equinox", [1950.0, 1975.0])
def test_pixels_come_back_in_fk4(equinox):
    assert off_by_pix(make_wcs(cards={"RADESYS": "FK4", "EQUINOX": equinox})) < 1e-5


def test_lookup_tables_are_used():
    wcs = lookup_wcs()
    x, y = pixel_grid(wcs)
    with fits.open(ASTROPY_DATA / "dist_lookup.fits.gz") as hdus:
        expected = WCS(hdus[1].header, hdus).pixel_to_world(x, y).icrs.cartesian.xyz.value.T
    np.testing.assert_allclose(wcs.to_sky(x, y), expected, atol=1e-15)


def test_a_wcs_of_lookup_tables_needs_its_file():
    with (
        fits.open(ASTROPY_DATA / "dist_lookup.fits.gz") as hdus,
        pytest.raises(InputError, match=r"a\.fits.*lookup tables"),
    ):
        fits_wcs(hdus[1].header, hdus[1].shape, where="a.fits")


@pytest.mark.parametrize("make", [make_wcs, hst_chip, lookup_wcs, lambda: make_wcs(cards={"EQUINOX": 1950.0})])
def test_a_pickled_wcs_is_the_same_to_the_last_bit(make):
    wcs = make()
    copy = pickle.loads(pickle.dumps(wcs))
    x, y = pixel_grid(wcs)
    sky = wcs.to_sky(x, y)
    np.testing.assert_array_equal(copy.to_sky(x, y), sky)
    np.testing.assert_array_equal(copy.to_pixel(sky), wcs.to_pixel(sky))
    assert (copy.straight, copy.frame, copy.notes) == (wcs.straight, wcs.frame, wcs.notes)


def test_threads_may_share_one_wcs():
    wcs = make_wcs(**DISTORTED["sip"])
    x, y = pixel_grid(wcs, 60)
    expected = wcs.to_sky(x, y)
    with ThreadPoolExecutor(8) as threads:
        for sky, (back_x, _) in threads.map(lambda _: (wcs.to_sky(x, y), wcs.to_pixel(expected)), range(40)):
            np.testing.assert_array_equal(sky, expected)
            np.testing.assert_allclose(back_x, x, atol=1e-5)


def test_the_far_side_of_a_tangent_plane_has_no_pixels():
    wcs = make_wcs(lon=10.0, lat=20.0)
    near = wcs.to_sky(np.array([49.5]), np.array([39.5]))
    x, y = wcs.to_pixel(np.concatenate([near, -near]))
    assert np.isfinite([x[0], y[0]]).all()
    assert np.isnan([x[1], y[1]]).all()


def test_corners_of_an_all_sky_map_are_off_the_sky():
    wcs = all_sky_wcs("AIT")
    sky = wcs.to_sky(np.array([0.0, 89.5]), np.array([0.0, 44.5]))
    assert np.isnan(sky[0]).all()
    assert np.isfinite(sky[1]).all()


def test_where_a_distortion_has_no_inverse_there_is_no_pixel():
    wcs = make_wcs(projection="TAN-SIP", cards=sip_cards(100, pixels=10.0))
    plain = make_wcs()
    x, y = wcs.to_pixel(plain.to_sky(np.array([49.5, 20000.0]), np.array([39.5, -30000.0])))
    assert np.isfinite(x[0])
    assert np.isnan(x[1])
    assert np.isnan(y[1])


def test_newton_finds_pixels_from_far_guesses():
    wcs = hst_chip()
    x, y = np.array([10.0, 4000.0]), np.array([2000.0, 3.0])
    found = refine_pixels(wcs, wcs.to_sky(x, y), np.full(2, 2000.0), np.full(2, 1000.0))
    np.testing.assert_allclose(found, [x, y], atol=1e-4)


def test_undistorted_gnomonic_and_small_images_are_straight():
    assert make_wcs().straight
    assert make_wcs(axes=("GLON", "GLAT")).straight
    assert make_wcs(cards={"EQUINOX": 2000.0}).straight
    assert make_wcs(projection="SIN").straight  # a tenth of a degree: curved by less than a millipixel
    assert not make_wcs(projection="SIN", scale=0.02).straight
    assert not make_wcs(cards={"EQUINOX": 1950.0}).straight  # FK4: aberration bends great circles
    assert not any(make_wcs(**options).straight for options in DISTORTED.values())
    assert not lookup_wcs().straight


@pytest.mark.parametrize("order", [("DEC--TAN", "RA---TAN", "FREQ"), ("FREQ", "DEC--TAN", "RA---TAN")])
def test_degenerate_axes_are_left_out(order):
    header = fits.Header()
    header["NAXIS"] = 3
    for axis, name in enumerate(order, 1):
        header[f"NAXIS{axis}"] = {"FREQ": 1, "DEC--TAN": 30, "RA---TAN": 20}[name]
        header[f"CTYPE{axis}"] = name
        header[f"CRVAL{axis}"] = {"FREQ": 1e9, "DEC--TAN": 10.0, "RA---TAN": 40.0}[name]
        header[f"CDELT{axis}"] = {"FREQ": 1e6, "DEC--TAN": 0.01, "RA---TAN": 0.01}[name]
        header[f"CRPIX{axis}"] = 1.0
    wcs = fits_wcs(header, (20, 30))
    expected = SkyCoord(40 * units.deg, 10 * units.deg).cartesian.xyz.value
    np.testing.assert_allclose(wcs.to_sky(np.zeros(1), np.zeros(1))[0], expected, atol=1e-15)
    north = wcs.to_sky(np.array([3.0]), np.zeros(1))[0]  # Dec is the first axis, so x runs north
    assert np.degrees(np.arcsin(north[2])) == pytest.approx(10.03)


def test_distortions_survive_degenerate_axes():
    flat = celestial_header(**DISTORTED["sip"])
    cube = celestial_header(**DISTORTED["sip"])
    cube.update({"NAXIS": 3, "NAXIS3": 1, "CTYPE3": "FREQ", "CRVAL3": 1e9, "CDELT3": 1.0, "CRPIX3": 1.0, "CD3_3": 1.0})
    x, y = pixel_grid(fits_wcs(flat, (80, 100)))
    np.testing.assert_array_equal(fits_wcs(cube, (80, 100)).to_sky(x, y), fits_wcs(flat, (80, 100)).to_sky(x, y))


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no celestial WCS"),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "can't be used"),
        ({"CTYPE1": "RA---TAN", "CTYPE2": "RA---TAN"}, "can't be used"),
        ({"CTYPE1": "TLON-TAN", "CTYPE2": "TLAT-TAN"}, "fixed on the sky"),
        ({"CD1_1": 1e-3, "CD1_2": 1e-3, "CD2_1": 1e-3, "CD2_2": 1e-3}, "no area"),
        ({"CD1_1": 1e-200}, "size"),
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, "its pixels have no size"),
        ({"A_ORDER": 50000, "B_ORDER": 2}, "A_ORDER"),
        ({"D2IMDIS1": "LOOKUP"}, "lookup tables"),
        ({"CTYPE3": "CUBEFACE", "NAXIS": 3, "NAXIS3": 6}, "axis 3 of length 6"),
        ({"CRVAL1": 1e300}, "CRVAL"),
        ({"CRVAL1": "150.0"}, "CRVAL1 = '150.0' is not a number"),
        ({"CRPIX2": None}, "CRPIX2 has no value"),
        ({"CD1_2": "1,5E-5"}, "CD1_2 = '1,5E-5' is not a number"),
        ({"EQUINOX": "1950"}, "EQUINOX = '1950' is not a number"),
        ({"RADESYS": "GAPPT"}, "RADESYS"),
        ({"EQUINOX": 1e9}, "EQUINOX"),
        ({"WCSAXES": 100000}, "WCSAXES"),
        ({"NAXIS": 3, "NAXIS3": 7, "CTYPE3": "FREQ", "CD3_3": 1.0}, "axis 3 of length 7"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_said_with_the_name_of_the_image(cards, reason):
    with pytest.raises(InputError, match=rf"b\.fits\[SCI,2\]: .*{reason}"):
        fits_wcs(celestial_header(cards=cards), (80, 100), where="b.fits[SCI,2]")


@pytest.mark.parametrize(
    "card", ["CRVAL1  =                  NaN", "CRVAL1  = 1.5 E2", "CRPIX1  = 100,5 / comma", "COMMENT"]
)
def test_a_position_that_is_no_number_is_not_zero(card):
    """wcslib skips such a card, and the frame would lie elsewhere."""
    text = celestial_header(scale=1 / 3600).tostring()
    key = "CRPIX1" if "CRPIX1" in card else "CRVAL1"
    start = text.index(key)
    text = text[:start] + card.ljust(80) + text[start + 80 :]
    reason = f"it has CRVAL2, but no CRVAL1|{key} = [^ ]* is not a number"
    with pytest.raises(InputError, match=rf"a\.fits: .*({reason})"):
        wcs_of_cards(text.encode(), (80, 100), where="a.fits")


@pytest.mark.parametrize(("missing", "reason"), [("CD2_", "CD2_1 and CD2_2 are 0"), ("CD", "has no CDELT1 or CD1_1")])
def test_a_missing_size_of_pixels_is_not_a_degree(missing, reason):
    header = celestial_header(cards={"CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3})
    for key in [key for key in header if key.startswith((missing, "CDELT", "PC"))]:
        del header[key]
    with pytest.raises(InputError, match=reason):
        fits_wcs(header, (80, 100))
    if missing == "CD":
        header.update(PC1_1=0.8, PC1_2=0.6, PC2_1=-0.6, PC2_2=0.8, CDELT1=-1e-3)
        with pytest.raises(InputError, match="has no CDELT2 or CD2_2"):
            fits_wcs(header, (80, 100))


def test_two_scales_of_one_image_must_agree():
    """wcslib takes PC times CDELT, other programs take CD."""
    header = celestial_header(cards={"CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3})
    header.update(PC1_1=1.0, PC2_2=1.0, CDELT1=-1e-3, CDELT2=1e-3)
    fits_wcs(header, (80, 100))
    header.update(CDELT1=1.0)
    with pytest.raises(InputError, match="its CD matrix is not PC times CDELT"):
        fits_wcs(header, (80, 100))


def test_an_equinox_of_2000_may_be_a_string():
    header = celestial_header(cards={"EQUINOX": "J2000.0"})
    expected = fits_wcs(celestial_header(cards={"EQUINOX": 2000.0}), (80, 100))
    np.testing.assert_array_equal(fits_wcs(header, (80, 100)).to_sky(5.0, 7.0), expected.to_sky(5.0, 7.0))


@pytest.mark.parametrize("index", [1, 3, 99])
def test_a_table_of_times_is_no_affair_of_the_sky(index):
    """wcslib ends Python where such an axis has a parameter of another axis of its table."""
    with fits.open(ASTROPY_DATA / "tab-time-last-axis.fits") as hdus:
        header = hdus[0].header
        expected = WCS(header, hdus).celestial.wcs_pix2world([[3.0, 5.0]], 0)[0]
        header["PV3_3"] = index
        sky = fits_wcs(header, (1, 1), hdus).to_sky(np.array([3.0]), np.array([5.0]))
    np.testing.assert_allclose(np.degrees(np.concatenate(lon_lat(sky))), expected, rtol=1e-12)


def test_what_astropy_repairs_is_a_note_and_no_warning(capfd):
    header = celestial_header(cards=sip_cards(100) | {"RADECSYS": "FK5", "DATE-OBS": "31/12/98"})
    wcs = fits_wcs(header, (80, 100))
    assert any("RADECSYS" in note for note in wcs.notes)
    assert any("SIP" in note for note in wcs.notes)
    assert all("\n" not in note for note in wcs.notes)
    assert capfd.readouterr() == ("", "")


def test_the_pixel_area_is_that_on_the_sky():
    assert pixel_area_arcsec2(make_wcs(scale=1 / 3600)) == pytest.approx(1.0, rel=1e-6)
    assert pixel_area_arcsec2(make_wcs(scale=2 / 3600, axes=("DEC", "RA"))) == pytest.approx(4.0, rel=1e-6)


def test_the_pixel_area_is_right_far_from_the_reference_point():
    wcs = make_wcs(projection="CAR", lat=0.0, cards={"CRPIX2": 40.5 - 60.0 / 1e-3})
    assert pixel_area_arcsec2(wcs) == pytest.approx(3.6**2 * np.cos(np.radians(60.0)), rel=1e-3)


@settings(max_examples=60)
@given(
    key=st.sampled_from(
        ["CTYPE1", "CRVAL1", "CRPIX2", "CD1_1", "CD2_1", "NAXIS", "A_ORDER", "A_2_0", "RADESYS", "EQUINOX"]
    ),
    value=st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-1000, 1000),
        st.booleans(),
        st.text("ABC-_19", max_size=8),
    ),
)
@example(key="NAXIS", value=100000.0)  # wcslib would make room for so many axes
def test_damaged_headers_are_used_or_refused(key, value):
    header = celestial_header(projection="TAN-SIP", cards=sip_cards(100))
    header[key] = value
    refusal: tuple[str, ...] = ("a.fits: none",)
    try:
        wcs = fits_wcs(header, (80, 100), where="a.fits")
        wcs.to_pixel(wcs.to_sky(*pixel_grid(wcs, 3)))
        footprint(wcs, "a.fits")
    except InputError as error:
        refusal = error.lines()
    assert [line.partition(": ")[0] for line in refusal] == ["a.fits"]


def test_what_stands_behind_many_wcs_is_not_kept():
    """Plans read from a file build it anew: some tens of kilobytes an image, which must not add up."""
    import gc

    from skymatch_cli.sky.celestial import _Engine

    header = Frame().hdu_header()
    read = pickle.dumps(fits_wcs(header, (40, 40)))
    many = [pickle.loads(read) for _ in range(150)]
    before = sum(isinstance(o, _Engine) for o in gc.get_objects())
    expected = many[0].to_sky(np.zeros(1), np.zeros(1))
    for wcs in many:
        assert np.array_equal(wcs.to_sky(np.zeros(1), np.zeros(1)), expected)
    assert sum(isinstance(o, _Engine) for o in gc.get_objects()) - before <= 64


def test_a_keyword_that_stands_a_hundred_thousand_times_counts_once():
    header = Frame().hdu_header()
    expected = fits_wcs(header, (40, 40)).to_sky(np.array([3.0]), np.array([4.0]))
    cards = [*[fits.Card("CRVAL1", 1.0)] * 100_000, *header.cards]
    many = fits.Header.fromstring("".join(str(card) for card in cards))
    found = fits_wcs(many, (40, 40)).to_sky(np.array([3.0]), np.array([4.0]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spelling", ["HIERARCH {}", "{}"])
def test_distortions_are_applied_however_their_cards_are_spelled(spelling):
    terms = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": 1e-4}
    header = celestial_header()
    for name, value in terms.items():
        header.append(fits.Card.fromstring(f"{spelling.format(f'{name:<8}')}= {value:>20}"))
    at = np.array([99.0]), np.array([99.0])
    plain, bent = (fits_wcs(h, (100, 100)).to_sky(*at) for h in (celestial_header(), header))
    assert np.degrees(angle_rad(plain, bent))[0] * 3600 > 0.01


@pytest.mark.parametrize("projection", ["SIN", "TAN", "TPV", "TAN-SIP"])
def test_exponents_may_be_written_with_a_d(projection):
    cards = {"TPV": tpv_cards(0.1), "TAN-SIP": sip_cards(100)}.get(projection, {})
    header = celestial_header(projection=projection, rotation=20.0, cards=cards)
    numbers = {card.keyword: f"{card.value:.13E}" for card in header.cards if isinstance(card.value, float)}
    sky = []
    for letter in "ED":
        for key, number in numbers.items():
            header.remove(key)
            header.append(fits.Card.fromstring(f"{key:8}= {number.replace('E', letter)}"))
        sky.append(fits_wcs(header, (80, 100)).to_sky(np.array([3.0, 90.0]), np.array([4.0, 70.0])))
    np.testing.assert_array_equal(*sky)
