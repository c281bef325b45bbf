"""Headers are read as astropy reads them, and wcslib gets the cards of the celestial WCS alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skymatch_cli.images.formats.fitsfile import parse_header, read_structure
from skymatch_cli.images.formats.header import CardHeader

from .headers import celestial_header, fits_wcs

SHAPE = (80, 100)
HERE = np.array([3.0, 90.0]), np.array([70.0, 5.0])


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("GAIN    =                  1.5 / e/ADU", 1.5),
        ("GAIN    = -1.D+2", -100.0),
        ("GAIN    = 7", 7),
        ("GAIN    = T / a flag", True),
        ("GAIN    = 'O''Neill'", "O'Neill"),
        ("GAIN    = ADU", "ADU"),
        ("GAIN    = 10 s / time", "10 s"),
        ("GAIN    =", None),
        ("GAIN    = (1.0, 2.0)", None),
        ("COMMENT GAIN    = 9", None),
        ("HIERARCH GAIN = 6", 6),
    ],
)
def test_value_of_a_card(card, value):
    found = CardHeader(card.ljust(80).encode()).value("GAIN")
    assert (type(found), found) == (type(value), value)


def test_the_first_of_two_cards_counts():
    raw = "".join(card.ljust(80) for card in ("GAIN    = 1.5", "GAIN    = 2.5")).encode()
    assert CardHeader(raw).value("GAIN") == 1.5


def test_bytes_that_fits_does_not_allow_read_as_question_marks():
    assert CardHeader("OBSERVER= 'Å'".encode("latin-1").ljust(80)).value("OBSERVER") == "?"


def test_a_header_of_a_compressed_image_reads_as_its_own(tmp_path: Path):
    data = np.arange(120.0, dtype=np.float32).reshape(10, 12)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data)]).writeto(tmp_path / "a.fits")
    structure = read_structure(str(tmp_path / "a.fits"), "a.fits")
    with (tmp_path / "a.fits").open("rb") as stream:
        found = parse_header(stream, structure.hdus[1])
    assert [found.value(key) for key in ("NAXIS", "NAXIS1", "NAXIS2", "BITPIX")] == [2, 12, 10, -32]


def test_an_unusable_alternate_leaves_the_primary_wcs_alone():
    band = {"CTYPE1W": "WAVE-TAB", "CTYPE2W": "BANDWIDTH", "PS1_0W": "WCS-TABLE", "PV1_1W": 1, "CRVAL1W": "text"}
    expected = fits_wcs(celestial_header(), SHAPE).to_sky(*HERE)
    np.testing.assert_array_equal(fits_wcs(celestial_header(cards=band), SHAPE).to_sky(*HERE), expected)


@pytest.mark.parametrize("given", [{}, {"PV1_0": 0.0, "PV2_0": 0.0}], ids=str)
def test_linear_terms_of_tpv_are_one_by_default(given):
    expected = fits_wcs(celestial_header(projection="TAN"), SHAPE).to_sky(*HERE)
    found = fits_wcs(celestial_header(projection="TPV", cards=given), SHAPE).to_sky(*HERE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_exponents_with_a_d_are_read():
    header = celestial_header()
    text = header.tostring(sep="\n", endcard=False, padding=False)
    crval = next(line for line in text.split("\n") if line.startswith("CRVAL1"))
    spelled = fits.Header.fromstring(text.replace(crval, "CRVAL1  =              1.500D+02".ljust(80)), sep="\n")
    np.testing.assert_array_equal(fits_wcs(spelled, SHAPE).to_sky(*HERE), fits_wcs(header, SHAPE).to_sky(*HERE))


def test_a_reference_pixel_far_beyond_any_image_is_refused():
    with pytest.raises(Exception, match="CRPIX is not near the image"):
        fits_wcs(celestial_header(cards={"CRPIX1": 1e300}), SHAPE)
