"""Recording and subtracting: what is written, and that all else stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skymatch_cli.errors import InputError
from skymatch_cli.record.write import Action, undo, write_skies
from skymatch_cli.settings import Settings

from .crash.fileset import chips, contents, jwst, make_files, pixels, ref, single, update, write_hdus
from .valid import assert_valid

RECORD = Settings()
SUBTRACT = Settings(subtract=True)
SKY = 12.3456789


def header(path: Path, hdu: int = 0) -> fits.Header:
    return fits.getheader(path, hdu)


def data(path: Path, hdu: int = 0, **options: object) -> np.ndarray:
    return np.array(fits.getdata(path, hdu, **options))


def cards(path: Path, hdu: int = 0) -> list[str]:
    text = header(path, hdu).tostring(endcard=False, padding=False)
    return [text[i : i + 80] for i in range(0, len(text), 80)]


# --- record


def test_record_writes_four_keywords_and_history(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    report = write_skies([update(path)], RECORD)
    head = header(path)
    assert (head["BKGLEVEL"], head["BKGSUB"], head["BKGMETH"], head["BKGERR"]) == (SKY, False, "match", 0.01)
    assert "skystat=median" in str(head["HISTORY"])
    assert report.actions == (Action.RECORDED,)
    assert report.files == (str(path),)


def test_record_leaves_pixels_and_other_cards_byte_for_byte(tmp_path):
    path = chips(tmp_path / "a.fits", checksum=False)
    before, old_cards = path.read_bytes(), [cards(path, i) for i in range(6)]
    old = [data(path, i).tobytes() for i in (1, 2, 3, 4, 5)]
    write_skies([update(path, 1)], RECORD)
    assert [data(path, i).tobytes() for i in (1, 2, 3, 4, 5)] == old
    assert [cards(path, i) for i in (0, 2, 3, 4, 5)] == [old_cards[i] for i in (0, 2, 3, 4, 5)]
    kept = [card for card in cards(path, 1) if "BKG" not in card and "skymatch" not in card]
    assert kept == [card for card in old_cards[1] if "BKGLEVEL" not in card]
    with fits.open(path) as hdus:
        tail = hdus[2].fileinfo()["hdrLoc"]
    assert path.read_bytes()[tail:] == before[-len(path.read_bytes()[tail:]) :]


def test_card_that_another_program_wrote_is_replaced_in_its_place(tmp_path):
    path = chips(tmp_path / "a.fits")
    at = list(header(path, 1)).index("BKGLEVEL")
    write_skies([update(path, 1)], RECORD)
    assert list(header(path, 1)).index("BKGLEVEL") == at
    assert header(path, 1)["BKGLEVEL"] == SKY


def test_all_images_of_a_file_are_one_replacement(tmp_path):
    path = chips(tmp_path / "a.fits")
    report = write_skies([update(path, 1, sky=1.5), update(path, 3, sky=2.5)], RECORD)
    assert (header(path, 1)["BKGLEVEL"], header(path, 3)["BKGLEVEL"]) == (1.5, 2.5)
    assert report.files == (str(path),)


@pytest.mark.parametrize("settings", [RECORD, SUBTRACT])
def test_running_again_changes_no_byte(tmp_path, settings):
    updates = make_files(tmp_path)
    write_skies(updates, settings)
    before = contents(tmp_path)
    report = write_skies(updates, settings)
    assert contents(tmp_path) == before
    assert set(report.actions) == {Action.UNCHANGED}
    assert report.files == ()


def test_recording_again_is_the_same_as_recording_once(tmp_path):
    once, twice = chips(tmp_path / "a.fits"), chips(tmp_path / "b.fits")
    shutil.copy(once, twice)
    write_skies([update(twice, 1, sky=-77.0, method="globalmin")], Settings(nclip=2, sky_keyword="MDRIZSKY"))
    write_skies([update(twice, 1)], SUBTRACT)
    undo([ref(twice, 1)], RECORD)
    for path in (once, twice):
        write_skies([update(path, 1)], RECORD)
    assert once.read_bytes() == twice.read_bytes()


def test_sky_keyword_is_renamed(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    write_skies([update(path)], Settings(sky_keyword="MDRIZSKY"))
    assert header(path)["MDRIZSKY"] == SKY
    assert "BKGLEVEL" not in header(path)
    write_skies([update(path)], RECORD)
    assert "MDRIZSKY" not in header(path)


def test_jwst_files_say_it_in_the_primary_header_alone_as_their_pipeline_does(tmp_path):
    path = jwst(tmp_path / "a.fits")
    before = path.read_bytes()
    write_skies([update(path, 1, sky=0.125)], RECORD)
    assert (header(path)["BKGLEVEL"], header(path)["BKGSUB"], header(path)["S_SKYMAT"]) == (0.125, False, "COMPLETE")
    write_skies([update(path, 1, sky=0.125)], SUBTRACT)
    assert (header(path)["BKGLEVEL"], header(path)["BKGSUB"], header(path)["S_SKYMAT"]) == (0.125, True, "COMPLETE")
    assert not [key for key in header(path, 1) if key.startswith("BKG")]
    assert_valid(path)
    undo([ref(path, 1)], RECORD)
    assert path.read_bytes()[:2880] == before[:2880]


@given(st.floats(allow_nan=False, allow_infinity=False))
@hypothesis_settings(max_examples=200)
def test_level_is_written_with_all_its_digits(level):
    from skymatch_cli.images.formats.cards import card_value, make_card

    card = make_card("BKGLEVEL", level, "sky of this image, in its own unit")
    assert len(card) == 80
    assert card_value(card) == level
    assert fits.Card.fromstring(card).value == level


def test_unknown_error_leaves_no_card(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    write_skies([update(path, err=float("nan"))], RECORD)
    assert "BKGERR" not in header(path)


def test_image_without_a_sky_is_not_touched(tmp_path):
    path = chips(tmp_path / "a.fits")
    before = path.read_bytes()
    report = write_skies([update(path, 1, sky=float("nan"))], SUBTRACT)
    assert path.read_bytes() == before
    assert report.actions == (Action.NO_SKY,)


def test_text_of_settings_is_harmless_in_a_header(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    write_skies([update(path)], Settings(mask="maské\n\x1b[31m " + "x" * 200))
    assert_valid(path)
    assert "mask\\xe9\\x0a\\x1b[31m" in str(header(path)["HISTORY"])


def test_header_grows_by_blocks_and_keeps_blank_cards_before_end(tmp_path):
    hdu = fits.PrimaryHDU(pixels("f4"))
    for i in range(30):
        hdu.header[f"KEY{i}"] = i
    path = write_hdus(tmp_path / "a.fits", hdu)
    raw = path.read_bytes()
    end = raw.index(b"END" + b" " * 77)
    raw = raw[:end] + b" " * 240 + raw[end:][: -240 if end + 320 <= 2880 else None]
    path.write_bytes(raw[:2880] + raw[2880:])
    write_skies([update(path)], RECORD)
    assert header(path)["KEY29"] == 29
    assert header(path)["BKGLEVEL"] == SKY
    undo([ref(path)], RECORD)
    assert path.read_bytes() == raw


def test_cards_that_are_not_valid_survive(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"), GAIN=1)
    odd = b"gain    = 1,5 \xff 'odd".ljust(30)
    raw = path.read_bytes().replace(b"GAIN    =                    1", odd)
    path.write_bytes(raw)
    write_skies([update(path)], SUBTRACT)
    assert odd in path.read_bytes()
    undo([ref(path)], RECORD)
    assert path.read_bytes() == raw


# --- subtract


@pytest.mark.parametrize(
    ("dtype", "level", "result"),
    [
        ("f4", 1000, ">f4"),
        ("f8", 1000, ">f8"),
        ("u1", 100, ">f4"),
        ("i2", 1000, ">f4"),
        ("u2", 40000, ">f4"),
        ("i4", 1e6, ">f8"),
        ("u4", 3e9, ">f8"),
        ("i8", 1e6, ">f8"),
    ],
)
def test_subtract_takes_the_sky_away(tmp_path, dtype, level, result):
    path = single(tmp_path / "a.fits", pixels(dtype, level=level), checksum=True)
    original = data(path).astype("f8")
    write_skies([update(path)], SUBTRACT)
    assert data(path).dtype == result
    np.testing.assert_array_equal(data(path), (original - SKY).astype(result))
    assert header(path)["BKGSUB"] is True
    assert_valid(path)


def test_integers_become_floats_and_say_so(tmp_path):
    path = single(tmp_path / "a.fits", pixels("u2", level=40000))
    write_skies([update(path)], SUBTRACT)
    assert "uint16 became float32" in str(header(path)["HISTORY"])
    assert "BZERO" not in header(path)


def test_scaled_integers_and_blank(tmp_path):
    path = single(tmp_path / "a.fits", pixels("i2"), BSCALE=0.5, BZERO=100.0, BLANK=995)
    blank = data(path, do_not_scale_image_data=True) == 995
    original = data(path)
    write_skies([update(path)], SUBTRACT)
    assert blank.any()
    np.testing.assert_array_equal(np.isnan(data(path)), blank)
    np.testing.assert_allclose(data(path)[~blank], original[~blank] - SKY, rtol=1e-7)
    assert not {"BSCALE", "BZERO", "BLANK"} & set(header(path))
    assert_valid(path)


def test_scaled_floats_keep_their_scale(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"), BSCALE=0.5, BZERO=100.0)
    original = data(path).astype("f8")
    write_skies([update(path)], SUBTRACT)
    assert (header(path)["BITPIX"], fits.getheader(path).get("BSCALE")) == (-32, 0.5)
    np.testing.assert_allclose(data(path), original - SKY, rtol=2e-7)


def test_big_int64_that_float64_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    good = single(tmp_path / "a.fits", pixels("f4"))
    bad = single(tmp_path / "b.fits", pixels("i8") + 2**60 + 1)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"b\.fits: int64 pixels use more digits than float64 has"):
        write_skies([update(good), update(bad)], SUBTRACT)
    assert contents(tmp_path) == before


def test_float_that_would_overflow_is_refused(tmp_path):
    path = single(tmp_path / "a.fits", np.full((4, 4), 3.4e38, "f4"))
    before = contents(tmp_path)
    with pytest.raises(InputError, match="overflows float32"):
        write_skies([update(path, sky=-3e38)], SUBTRACT)
    assert contents(tmp_path) == before


def test_another_sky_subtracts_only_the_difference(tmp_path):
    once, twice = single(tmp_path / "a.fits", pixels("i2")), single(tmp_path / "b.fits", pixels("i2"))
    write_skies([update(twice, sky=99.5)], SUBTRACT)
    for path in (once, twice):
        write_skies([update(path)], SUBTRACT)
    assert once.read_bytes() == twice.read_bytes()


def test_float_skies_that_change_often_gather_no_rounding(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    once = single(tmp_path / "b.fits", pixels("f4"))
    for sky in (3.1, 500.3, -0.7, 123.456, 77.7, SKY):
        write_skies([update(path, sky=sky)], SUBTRACT)
    write_skies([update(once)], SUBTRACT)
    assert path.read_bytes() == once.read_bytes()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_a_difference_below_rounding_changes_no_byte(tmp_path, dtype):
    path = single(tmp_path / "a.fits", pixels(dtype))
    write_skies([update(path)], SUBTRACT)
    before = path.read_bytes()
    rounding = {"f4": 1e-5, "f8": 1e-13, "i2": 1e-15}[dtype]
    assert write_skies([update(path, sky=SKY + rounding)], SUBTRACT).actions == (Action.UNCHANGED,)
    assert path.read_bytes() == before
    assert write_skies([update(path, sky=SKY + 1e-2)], SUBTRACT).actions == (Action.SUBTRACTED,)


def test_subtract_after_record_and_record_after_subtract(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    write_skies([update(path)], RECORD)
    write_skies([update(path)], SUBTRACT)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"subtracted already.*--subtract, or skymatch undo first"):
        write_skies([update(path)], RECORD)
    assert path.read_bytes() == before


def test_sky_that_another_program_subtracted_counts(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"), BKGLEVEL=100.0, BKGSUB=True)
    original, before = data(path).astype("f8"), path.read_bytes()
    write_skies([update(path, sky=130.0)], SUBTRACT)
    np.testing.assert_allclose(data(path), original - 30, atol=1e-4)
    assert header(path)["BKGLEVEL"] == 130
    undo([ref(path)], RECORD)
    assert path.read_bytes() == before


def test_undefined_and_infinite_floats_keep_their_bits(tmp_path):
    values = pixels("f4")
    values.view("u4")[0, :4] = (0x7FC12345, 0xFFC00001, 0x7F800000, 0xFF800000)
    path = single(tmp_path / "a.fits", values)
    write_skies([update(path)], SUBTRACT)
    assert data(path).astype("f4").view("u4")[0, :4].tolist() == [0x7FC12345, 0xFFC00001, 0x7F800000, 0xFF800000]
