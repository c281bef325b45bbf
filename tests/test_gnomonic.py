"""A plain TAN and plain cards are read without astropy, with the answers of astropy; all else is left to it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from skymatch_cli.images.formats.header import CardHeader
from skymatch_cli.sky.celestial import fits_wcs, plain_wcs
from skymatch_cli.sky.sphere import lon_lat, unit_vectors

from .factories import row, write_all
from .headers import celestial_header

SHAPE = (80, 100)
WITHOUT_CD = dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2"))


def header(**cards: object) -> fits.Header:
    """A plain TAN with further cards; None takes one away."""
    made = celestial_header(rotation=20.0)
    for key, value in cards.items():
        if value is None:
            made.remove(key, ignore_missing=True)
        else:
            made[key] = value
    return made


def text(made: fits.Header) -> bytes:
    return made.tostring(endcard=False, padding=False).encode()


PC = {"CDELT1": -1e-3, "CDELT2": 2e-3, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8}


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 20.0, "CRVAL2": 150.0},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
        {"CRVAL1": 0.0, "CRVAL2": -89.999},
        {"CD1_2": None, "CD2_1": None},
        WITHOUT_CD | {"CDELT1": -1e-3, "CDELT2": 1e-3},
        WITHOUT_CD | PC,
        WITHOUT_CD | PC | {"PC1_1": None},
        {"LONPOLE": 180.0, "LATPOLE": 20.0, "WCSAXES": 2, "RADESYS": "ICRS", "CUNIT1": "deg", "CUNIT2": "deg"},
        {"RADESYS": "FK5", "EQUINOX": 2000.0},
        {"EQUINOX": 1950.0},
        {"RADESYS": "FK5"},
        {"RADESYS": "FK4"},
        {"DATE-OBS": "2020-01-01", "MJD-OBS": 58849.0, "OBSERVER": "N.N."},
    ],
    ids=str,
)
def test_positions_are_those_of_wcslib(cards):
    made = header(**cards)
    wcs = plain_wcs(text(made), SHAPE)
    assert wcs is not None
    at = np.random.default_rng(1).uniform(-50, 150, (30, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = WCS(made)
        world = np.radians(theirs.wcs_pix2world(at, 0))
    native = unit_vectors(world[:, theirs.wcs.lng], world[:, theirs.wcs.lat])
    np.testing.assert_allclose(wcs.to_sky(*at.T), wcs.frame.to_icrs(native), rtol=0, atol=2e-15)
    np.testing.assert_allclose(
        wcs.to_pixel(wcs.to_sky(*at.T)), at.T, rtol=0, atol=1e-6 if wcs.frame.name == "fk4" else 1e-9
    )


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"},
        {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
        {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"},
        {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"},
        {"CTYPE3": "FREQ"},
        {"CTYPE1A": "LINEAR"},
        {"CRVAL2": 90.0},
        {"CRVAL1": "150.0"},
        {"CRVAL1": None},
        {"CDELT1": -1e-3},
        {"PC1_1": 1.0},
        {"CROTA2": 30.0},
        {"CUNIT1": "arcsec"},
        {"LONPOLE": 0.0},
        {"PV1_1": 0.5},
        {"PV2_1": 1.0},
        {"A_ORDER": 2},
        {"CPDIS1": "LOOKUP"},
        {"D2IMDIS1": "LOOKUP"},
        {"DP1": "EXTVER: 1"},
        {"NAXIS": 3},
        {"WCSAXES": 3},
        {"WAT0_001": "system=image"},
        {"RADECSYS": "FK5"},
        {"EPOCH": 1950.0},
        {"RADESYS": "GAPPT"},
        {"EQUINOX": "J2000"},
        {"CD1_1": 0.0, "CD1_2": 0.0},
        {"CRPIX1": 1e300},
        {"WCSAXES": 2.0},
        {"AMDX1": 67.2},
        {"PPO3": 177500.0},
        {"XPIXELSZ": 25.28},
        {"CNPIX1": 100},
        {"PLTRAH": 1},
        {"PLTDECSN": "+"},
    ],
    ids=str,
)
def test_all_that_is_not_plain_is_left_to_astropy(cards):
    assert plain_wcs(text(header(**cards)), SHAPE) is None


@pytest.mark.parametrize(
    "card",
    [
        "CRVAL1  = 3.0",
        "crval1  = 3.0",
        " CRVAL1 = 3.0",
        "CRVAL1= 3.0",
        "CD1_1   =3.0",
        "CRPIX1  = 1 2",
        "CRPIX1  =",
        "HIERARCH CRVAL1 = 3.0",
    ],
)
def test_a_card_that_stands_twice_or_is_misspelled_is_left_to_astropy(card):
    assert plain_wcs(text(header()) + card.encode().ljust(80), SHAPE) is None


def test_comments_are_none_of_its_business():
    made = header()
    expected = plain_wcs(text(made), SHAPE)
    made["HISTORY"] = "CRVAL1  = 3.0"
    made.add_comment("CTYPE1  = 'RA---SIN'")
    found = plain_wcs(text(made), SHAPE)
    assert found is not None
    assert expected is not None
    assert found.cards == expected.cards


def test_the_wcs_of_a_header_is_the_plain_one():
    made = header()
    found, plain = fits_wcs(made, SHAPE), plain_wcs(text(made), SHAPE)
    assert plain is not None
    assert (found.cards, found.straight, found.frame) == (plain.cards, True, plain.frame)


def test_the_far_side_has_no_pixels():
    wcs = plain_wcs(text(header()), SHAPE)
    assert wcs is not None
    middle = wcs.to_sky(np.array([50.0]), np.array([40.0]))
    assert np.isnan(wcs.to_pixel(-middle)).all()
    assert np.degrees(lon_lat(middle)[1])[0] == pytest.approx(20.0, abs=1e-3)


CARDS = st.sampled_from(
    [
        "GAIN    = 1.5",
        "GAIN    =                  1.5 / e/ADU",
        "GAIN    = 7",
        "GAIN    = 007",
        "GAIN    = -1.D+2",
        "GAIN    = 1e2",
        "GAIN    = 1 2",
        "GAIN    = T / a flag",
        "GAIN    = TRUE",
        "GAIN    =",
        "GAIN    = / nothing",
        "GAIN    = 'high'",
        "GAIN    = 'high  '/ text",
        "GAIN    = 'O''Neill'",
        "GAIN    = '' / none",
        "GAIN    = 'a' 'b'",
        "GAIN    = 'open",
        "GAIN    = 'AXIS.1: 2.0'",
        "GAIN    = 'long&'",
        "GAIN    = (1.0, 2.0)",
        "CONTINUE  '& and on' / more",
        "GAIN    ='tight'",
        "GAIN= 3",
        " GAIN   = 4",
        "gain    = 5",
        "HIERARCH GAIN = 6",
        "HIERARCH ESO DET GAIN = 6",
        "GAIN      8",
        "COMMENT GAIN    = 9",
        "HISTORY = 'text'",
        "CONTINUE=  10",
        "",
        "OTHER   = 1",
        "GAIN    = 99999999999999999999",
        "GAIN    = 1.0 # what",
    ]
)


@settings(max_examples=300, deadline=None)
@given(cards=st.lists(CARDS, max_size=4))
def test_values_are_those_of_astropy(cards):
    raw = "".join(card.ljust(80) for card in ["SIMPLE  = T", *cards]).encode()
    mine, theirs = CardHeader(raw), CardHeader(raw)
    for key in ("GAIN", "gain", "OTHER", "NONE", "ESO DET GAIN", "SIMPLE", "HISTORY", "CONTINUE"):
        found, expected = mine.value(key), theirs._read_by_astropy(key)
        assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(("field", "value"), [("ADU", "ADU"), ("10 s / time", "10 s"), ("1e", "1e")])
def test_what_astropy_can_mend_is_read(field, value):
    assert CardHeader(f"GAIN    = {field}".ljust(80).encode()).value("GAIN") == value


@pytest.mark.parametrize("wanted", ["plain", "other"])
def test_a_run_on_plain_images_imports_no_astropy(tmp_path, wanted):
    names = write_all(tmp_path, row([1.0, 2.0]))
    if wanted == "other":
        fits.setval(names[0], "CROTA2", value=0.0)
    script = (
        "import sys; from skymatch_cli import match; match(sys.argv[1:], dry_run=True, jobs=1); "
        "print('astropy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(wanted == "other")


def test_a_header_of_a_compressed_image_reads_as_its_own(tmp_path: Path):
    from skymatch_cli.images.formats.fitsfile import parse_header, read_structure

    data = np.arange(120.0, dtype=np.float32).reshape(10, 12)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data)]).writeto(tmp_path / "a.fits")
    structure = read_structure(str(tmp_path / "a.fits"), "a.fits")
    with (tmp_path / "a.fits").open("rb") as stream:
        found = parse_header(stream, structure.hdus[1])
    assert [found.value(key) for key in ("NAXIS", "NAXIS1", "NAXIS2", "BITPIX")] == [2, 12, 10, -32]
