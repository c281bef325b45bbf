"""Recording and subtracting: what is written, and that all else stays as it was."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.record.edits import SkyUpdate
from skymatch_cli.record.write import Action, check_writable, undo, write_skies
from skymatch_cli.settings import Settings

from .crash.fileset import chips, contents, gzipped, jwst, make_files, pixels, ref, single, tiled, update, write_hdus
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
@hypothesis_settings(max_examples=200, deadline=None)
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


# --- packed files


@pytest.mark.parametrize("settings", [RECORD, SUBTRACT])
@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_packed_files_hold_what_plain_ones_hold(tmp_path, suffix, settings):
    import bz2
    import gzip

    plain = single(tmp_path / "a.fits", pixels("i2"), checksum=True)
    packed = tmp_path / f"b.fits{suffix}"
    pack, unpack = (gzip.compress, gzip.decompress) if suffix == ".gz" else (bz2.compress, bz2.decompress)
    packed.write_bytes(pack(plain.read_bytes()))
    write_skies([update(plain), update(packed)], settings)
    assert unpack(packed.read_bytes()) == plain.read_bytes()


def test_recorded_fz_keeps_its_compressed_bytes(tmp_path):
    path = tiled(tmp_path / "a.fits.fz", pixels("f4"), checksum=True)
    with fits.open(path, disable_image_compression=True) as hdus:
        table, old = hdus[1].data.tobytes(), [c.image for c in hdus[1].header.cards]
        heap = path.read_bytes()[hdus[1].fileinfo()["datLoc"] :]
    write_skies([update(path, 1)], RECORD)
    with fits.open(path, disable_image_compression=True) as hdus:
        assert hdus[1].data.tobytes() == table
        new = [c.image for c in hdus[1].header.cards]
        assert path.read_bytes()[hdus[1].fileinfo()["datLoc"] :] == heap
    assert [c for c in old if not c.startswith("CHECKSUM")] == [
        c for c in new if not c.startswith(("CHECKSUM", "BKG", "HISTORY skymatch"))
    ]
    assert_valid(path)


@pytest.mark.parametrize(("dtype", "level"), [("f4", 1000), ("i2", 1000), ("u2", 40000), ("i4", 1e5), ("f8", 1e3)])
@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_subtracted_fz_is_lossless(tmp_path, dtype, level, compression):
    path = tiled(tmp_path / "a.fits.fz", pixels(dtype, level=level), compression, checksum=True, GAIN=2)
    original = data(path, 1).astype("f8")
    write_skies([update(path, 1)], SUBTRACT)
    result = data(path, 1)
    np.testing.assert_array_equal(result, (original - SKY).astype(result.dtype))
    assert header(path, 1)["GAIN"] == 2
    with fits.open(path, disable_image_compression=True) as hdus:
        assert hdus[1].header["ZCMPTYPE"] == "GZIP_2"
    assert_valid(path)


# --- checksums


@pytest.mark.parametrize("settings", [RECORD, SUBTRACT])
def test_checksums_are_right_and_stay_in_their_place(tmp_path, settings):
    path = chips(tmp_path / "a.fits", checksum=True)
    before = [[k for k in header(path, i) if k.endswith("SUM")] for i in range(6)]
    write_skies([update(path, 1), update(path, 3)], settings)
    assert [[k for k in header(path, i) if k in {"CHECKSUM", "DATASUM"}] for i in range(6)] == before
    assert_valid(path)


@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=100, deadline=None)
def test_checksum_text_holds_the_complement_of_the_sum(raw, complement):
    from skymatch_cli.record.checksum import encode, ones_complement_sum

    words = np.frombuffer(raw.ljust(-(-len(raw) // 4) * 4, b"\0"), ">u4").tolist()
    assert (ones_complement_sum(raw) - sum(words)) % (2**32 - 1) == 0
    text = encode(complement)
    assert text.isalnum()
    assert text.isascii()
    aligned = (text[1:] + text[0]).encode()  # it stands one byte before a word's end
    assert (ones_complement_sum(aligned) - 4 * 0x30303030 - complement) % (2**32 - 1) == 0


# --- copies


def test_copies_go_to_the_output_folder_and_originals_stay(tmp_path):
    updates = make_files(tmp_path / "in")
    before = contents(tmp_path / "in")
    report = write_skies(updates, Settings(subtract=True, output_dir=str(tmp_path / "out" / "deep")))
    assert contents(tmp_path / "in") == before
    write_skies(updates, SUBTRACT)
    assert contents(tmp_path / "out" / "deep") == contents(tmp_path / "in")
    assert len(report.files) == len(before)


def test_file_without_a_sky_is_copied_as_it_is(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    write_skies([update(path, sky=float("nan"))], Settings(output_dir=str(tmp_path / "out")))
    assert contents(tmp_path / "out") == {"a.fits": path.read_bytes()}


def test_existing_copy_needs_overwrite(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    settings = Settings(output_dir=str(tmp_path / "out"))
    write_skies([update(path)], settings)
    with pytest.raises(InputError, match=r"copy .*out/a\.fits exists \(use --overwrite\)"):
        write_skies([update(path, sky=1.0)], settings)
    write_skies([update(path, sky=1.0)], Settings(output_dir=str(tmp_path / "out"), overwrite=True))
    assert header(tmp_path / "out" / "a.fits")["BKGLEVEL"] == 1.0


def test_copies_of_one_name_and_the_own_folder_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    one, two = single(tmp_path / "a.fits", pixels("f4")), single(tmp_path / "b" / "a.fits", pixels("f4"))
    problems = check_writable([update(one), update(two)], Settings(output_dir=str(tmp_path / "out")))
    assert [p.where for p in problems] == [str(two)]
    assert "its copy would overwrite that of" in problems[0].what
    own = check_writable([update(one)], Settings(output_dir=str(tmp_path), overwrite=True))
    assert "is the folder of the file itself" in own[0].what


def test_copy_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    before = path.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.fits").symlink_to(path)
    write_skies([update(path)], Settings(output_dir=str(tmp_path / "out"), overwrite=True))
    assert path.read_bytes() == before
    assert header(tmp_path / "out" / "a.fits")["BKGLEVEL"] == SKY


# --- refusals: one line each, nothing written


def test_file_that_changed_since_it_was_measured_is_refused(tmp_path):
    good, bad = single(tmp_path / "a.fits", pixels("f4")), single(tmp_path / "b.fits", pixels("f4"))
    updates = [
        SkyUpdate(ref=ref(path), sky=1.0, sky_err=0.1, method="match", state=file_state(str(path)))
        for path in (good, bad)
    ]
    os.utime(bad, ns=(0, 0))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"b\.fits: was changed since it was measured"):
        write_skies(updates, RECORD)
    assert contents(tmp_path) == before


def test_all_bad_files_are_named_and_nothing_is_written(tmp_path):
    good = single(tmp_path / "a.fits", pixels("f4"))
    cut = single(tmp_path / "b.fits", pixels("f4"))
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "c.fits").write_bytes(b"")
    paths = [good, cut, tmp_path / "c.fits", tmp_path / "gone.fits"]
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        write_skies([update(path) for path in paths], RECORD)
    assert [p.where for p in caught.value.problems] == [str(p) for p in paths[1:]]
    assert contents(tmp_path) == before


def test_remote_file_is_not_changed_in_place():
    remote = SkyUpdate(ref=ref(Path("x")), sky=1.0, sky_err=0.1, method="match")
    remote = SkyUpdate(ref=type(remote.ref)("s3://b/a.fits", "s3://b/a.fits", 0), sky=1.0, sky_err=0.1, method="user")
    assert "--output-dir" in check_writable([remote], RECORD)[0].hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_file_and_folder(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    path.chmod(0o444)
    assert "is read-only" in check_writable([update(path)], RECORD)[0].what
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        assert "folder is read-only" in check_writable([update(path)], RECORD)[0].what
    finally:
        tmp_path.chmod(0o755)


def test_image_that_is_not_there(tmp_path):
    path = chips(tmp_path / "a.fits")
    for hdu in (5, 17):  # a table; no such HDU
        assert "no longer in the file" in check_writable([update(path, hdu)], RECORD)[0].what


def test_subtracted_by_an_unknown_amount_is_refused(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"), BKGSUB=True)
    assert "what was subtracted is not known" in check_writable([update(path)], SUBTRACT)[0].what


# --- links, permissions, locks


def test_link_is_followed_and_stays_a_link(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    link = tmp_path / "link.fits"
    link.symlink_to("a.fits")
    write_skies([update(link)], RECORD)
    assert link.is_symlink()
    assert header(path)["BKGLEVEL"] == SKY


def test_permissions_are_kept(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    path.chmod(0o640)
    write_skies([update(path)], RECORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_no_folder_or_file_is_left_over(tmp_path):
    updates = make_files(tmp_path)
    names = list(contents(tmp_path))
    (tmp_path / ".a.fits.skymatch-tmp").write_bytes(b"of a run that was killed")
    write_skies(updates, SUBTRACT)
    assert list(contents(tmp_path)) == names


@pytest.mark.parametrize("what", ["file", "temporary"])
def test_second_run_says_so_and_stops(tmp_path, what):
    path, other = single(tmp_path / "a.fits", pixels("f4")), single(tmp_path / "b.fits", pixels("f4"))
    held = path if what == "file" else tmp_path / ".a.fits.skymatch-tmp"
    held.touch()
    before = contents(tmp_path)
    with held.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing here"):
            write_skies([update(other), update(path)], RECORD)
        assert contents(tmp_path) == before
        write_skies([update(other)], RECORD)  # other files are free


def test_lock_outlives_the_replacement_of_the_file(tmp_path):
    from skymatch_cli.record.atomic import locked, replacement

    path = single(tmp_path / "a.fits", pixels("f4"))
    with locked([str(path)]) as locks:
        with replacement(str(path), path.stat(), file_state(str(path)), locks) as new:
            new.write(path.read_bytes())
        with pytest.raises(InputError, match="another run"), locked([str(path)]):
            pass
    with locked([str(path)]):
        pass


def test_run_with_more_files_than_it_may_open_locks_the_folder(tmp_path, monkeypatch):
    import resource

    from skymatch_cli.record.atomic import locked

    updates = make_files(tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (204, 204))
    write_skies(updates, RECORD)
    with locked([str(tmp_path / n) for n in contents(tmp_path)]):
        monkeypatch.undo()
        with pytest.raises(InputError, match="another run"):
            write_skies(updates[:1], RECORD)


def test_folder_that_cannot_be_locked_is_an_error_of_the_input(tmp_path, monkeypatch):
    import errno

    path = single(tmp_path / "a.fits", pixels("f4"))
    real = os.open

    def too_many(name: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "Too many open files", name)
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", too_many)
    with pytest.raises(InputError, match=r"Too many open files.*ulimit -n"):
        write_skies([update(path)], RECORD)


def test_file_that_changes_while_it_is_written_stays(tmp_path, monkeypatch):
    from skymatch_cli.record import disk

    path = single(tmp_path / "a.fits", pixels("f4"))
    sync = disk.sync

    def change_then_sync(fd: int) -> None:
        path.write_bytes(b"of another program")
        sync(fd)

    monkeypatch.setattr(disk, "sync", change_then_sync)
    with pytest.raises(InputError, match="was changed while it was being written"):
        write_skies([update(path)], RECORD)
    assert contents(tmp_path) == {"a.fits": b"of another program"}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_file_that_vanished_is_an_error_and_nothing_is_left(tmp_path, monkeypatch, when):
    from skymatch_cli.record import disk

    paths = [single(tmp_path / f"{name}.fits", pixels("f4")) for name in "ab"]
    updates, sync = [update(path) for path in paths], disk.sync
    if when == "before":
        paths[1].unlink()
    else:
        monkeypatch.setattr(disk, "sync", lambda fd: (paths[1].unlink(missing_ok=True), sync(fd)))
    with pytest.raises(InputError, match=r"b\.fits: no such file"):
        write_skies(updates, SUBTRACT)
    assert list(contents(tmp_path)) == ["a.fits"]
    assert ("BKGSUB" in header(paths[0])) == (when == "meanwhile")  # found before the first file is touched


def test_gzip_says_nothing_of_time_and_name(tmp_path):
    plain = single(tmp_path / "a.fits", pixels("f4"))
    one, two = gzipped(tmp_path / "b.fits.gz", plain), gzipped(tmp_path / "c.fits.gz", plain)
    write_skies([update(one), update(two)], RECORD)
    assert one.read_bytes() == two.read_bytes()
