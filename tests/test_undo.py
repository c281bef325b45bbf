"""Undo: keywords as they were before the first run, pixels bit for bit or within one rounding."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.pixelformat import PixelFormat, format_after, restore, subtract
from skymatch_cli.record.write import Action, check_writable, undo, write_skies
from skymatch_cli.settings import Settings

from .crash.fileset import SHAPE, chips, contents, jwst, make_files, pixels, ref, single, tiled, update, write_hdus

RECORD = Settings()
SUBTRACT = Settings(subtract=True)


def array(path: Path, hdu: int = 0, **options: Any) -> np.ndarray:
    return np.array(fits.getdata(path, hdu, **options))


@pytest.mark.parametrize("settings", [RECORD, SUBTRACT, Settings(sky_keyword="MDRIZSKY", subtract=True)])
def test_plain_files_come_back_byte_for_byte(tmp_path, settings):
    updates = [u for u in make_files(tmp_path) if u.ref.path.endswith(".fits")]
    before = contents(tmp_path)
    write_skies(updates, settings)
    report = undo([u.ref for u in updates], RECORD)
    assert contents(tmp_path) == before
    assert set(report.actions) == {Action.UNDONE}


def test_blanks_that_fill_the_last_block_come_back(tmp_path):
    path = single(tmp_path / "a.fits", pixels("i2"))  # as the servers of the DSS write them
    raw = path.read_bytes()
    size = 2 * int(np.prod(array(path).shape))
    start = len(raw) - 2880 * -(-size // 2880)
    path.write_bytes(raw[: start + size] + b" " * (len(raw) - start - size))
    before = path.read_bytes()
    write_skies([update(path)], SUBTRACT)
    undo([ref(path)], RECORD)
    assert path.read_bytes() == before


def test_undo_is_of_the_first_run_not_of_the_last(tmp_path):
    path = chips(tmp_path / "a.fits")
    before = path.read_bytes()
    for i, settings in enumerate([RECORD, Settings(sky_keyword="OTHER"), SUBTRACT, SUBTRACT]):
        write_skies([update(path, 1, sky=5.0 + i), update(path, 3, sky=-5.0 - i)], settings)
    undo([ref(path, 1), ref(path, 3)], RECORD)
    assert path.read_bytes() == before


def test_undo_again_changes_nothing(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    write_skies([update(path)], SUBTRACT)
    undo([ref(path)], RECORD)
    before = path.stat()
    assert undo([ref(path)], RECORD).actions == (Action.UNCHANGED,)
    after = path.stat()  # whose time of access may be later: it was read
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def test_undo_of_one_chip_leaves_the_other(tmp_path):
    path = chips(tmp_path / "a.fits")
    write_skies([update(path, 1), update(path, 3)], SUBTRACT)
    undo([ref(path, 1)], RECORD)
    assert fits.getheader(path, 1)["BKGLEVEL"] == 3.5
    assert fits.getheader(path, 3)["BKGSUB"] is True


def test_undo_cards_that_lie_in_the_primary_header_of_jwst_are_refused(tmp_path):
    path = jwst(tmp_path / "a.fits")
    forged = b"HISTORY skymatch-cli undo = BITPIX  =                   99".ljust(80)
    raw = path.read_bytes()
    at = raw.index(b"END".ljust(80))
    assert raw[at + 80 : at + 160].isspace()
    path.write_bytes(raw[:at] + forged + b"END".ljust(80) + raw[at + 160 :])
    before = path.read_bytes()
    with pytest.raises(InputError, match="its undo cards say that BITPIX was 99"):
        write_skies([update(path, 1)], RECORD)
    assert path.read_bytes() == before


def test_primary_header_of_jwst_goes_with_the_last_image(tmp_path):
    path = jwst(tmp_path / "a.fits")
    before = path.read_bytes()
    write_skies([update(path, 1)], RECORD)
    undo([ref(path, 1)], RECORD)
    assert path.read_bytes() == before


def test_removed_cards_come_back_where_they_were(tmp_path):
    path = single(tmp_path / "a.fits", pixels("i2"), A=1, BSCALE=(2.0, "scale"), B=2, BZERO=(7.0, "zero"), BLANK=5, C=3)
    before = path.read_bytes()
    write_skies([update(path)], SUBTRACT)
    undo([ref(path)], RECORD)
    assert path.read_bytes() == before


def test_long_and_odd_cards_come_back(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"), BKGMETH="it's " + "long " * 40, BKGERR="no number", BKGSUB=False)
    raw = path.read_bytes().replace(b"BKGERR  = 'no number'", b"BKGERR  =  no 'number")
    path.write_bytes(raw)
    write_skies([update(path)], SUBTRACT)
    assert fits.getval(path, "BKGMETH") == "match"
    undo([ref(path)], RECORD)
    assert path.read_bytes() == raw


def test_cards_that_the_user_added_since_stay(tmp_path):
    path = single(tmp_path / "a.fits", pixels("i2"), checksum=True, BZERO=10.0)
    write_skies([update(path)], SUBTRACT)
    with fits.open(path, mode="update", checksum=True) as hdus:
        hdus[0].header.insert(7, ("OBSERVER", "me"))
        hdus[0].header["HISTORY"] = "looked at"
    undo([ref(path)], RECORD)
    head = fits.getheader(path)
    assert (head["OBSERVER"], head["BITPIX"], head["BZERO"]) == ("me", 16, 10.0)
    assert list(head["HISTORY"]) == ["looked at"]
    assert not [k for k in head if k.startswith("BKG")]


def test_integers_that_another_program_changed_are_refused(tmp_path):
    good, bad = single(tmp_path / "a.fits", pixels("i2")), single(tmp_path / "b.fits", pixels("i2"))
    write_skies([update(good), update(bad)], SUBTRACT)
    with fits.open(bad, mode="update") as hdus:
        hdus[0].data[3, 3] = 0.123
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"b\.fits: its pixels are not those .*: changed by another program"):
        undo([ref(good), ref(bad)], RECORD)
    assert contents(tmp_path) == before


def test_undo_into_an_output_folder(tmp_path):
    path = single(tmp_path / "a.fits", pixels("i2"))
    before = path.read_bytes()
    write_skies([update(path)], SUBTRACT)
    undo([ref(path)], Settings(output_dir=str(tmp_path / "out")))
    assert (tmp_path / "out" / "a.fits").read_bytes() == before


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize(("dtype", "level"), [("i2", 1000), ("u1", 100), ("u2", 7000), ("i4", 1e5)])
def test_compressed_integers_come_back_bit_for_bit(tmp_path, compression, dtype, level):
    path = tiled(tmp_path / "a.fits.fz", pixels(dtype, level=level), compression, BLANK=int(level) + 1)
    before, head = array(path, 1, do_not_scale_image_data=True), fits.getheader(path, 1)
    write_skies([update(path, 1)], SUBTRACT)
    undo([ref(path, 1)], RECORD)
    after = array(path, 1, do_not_scale_image_data=True)
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after, before)
    assert fits.getheader(path, 1).tostring() == head.tostring()
    with fits.open(path, disable_image_compression=True) as hdus:
        assert hdus[1].header["ZCMPTYPE"] == compression


def test_recorded_fz_comes_back_byte_for_byte(tmp_path):
    path = tiled(tmp_path / "a.fits.fz", pixels("f4"), checksum=True)
    before = path.read_bytes()
    write_skies([update(path, 1)], RECORD)
    undo([ref(path, 1)], RECORD)
    assert path.read_bytes() == before


def test_compressed_floats_come_back_within_a_rounding(tmp_path):
    values = pixels("f4")
    values[2, 2] = np.nan
    path = tiled(tmp_path / "a.fits.fz", values)
    before = array(path, 1)
    write_skies([update(path, 1)], SUBTRACT)
    undo([ref(path, 1)], RECORD)
    after = array(path, 1)
    assert np.array_equal(np.isnan(after), np.isnan(before))
    assert np.nanmax(np.abs(after - before)) <= np.spacing(np.float32(1024))


@pytest.mark.skipif(shutil.which("funpack") is None, reason="funpack is not installed")
def test_file_that_was_unpacked_since_is_undone(tmp_path):
    import subprocess

    path = tiled(tmp_path / "a.fits.fz", pixels("u2", level=40000))
    before = array(path, 1)
    write_skies([update(path, 1)], SUBTRACT)
    subprocess.run(["funpack", path], check=True)
    undo([ref(tmp_path / "a.fits", 1)], RECORD)
    after = array(tmp_path / "a.fits", 1)
    assert after.dtype == np.uint16
    np.testing.assert_array_equal(after, before)


@pytest.mark.skipif(shutil.which("fpack") is None, reason="fpack is not installed")
def test_file_that_was_packed_since_is_undone(tmp_path):
    import subprocess

    plain = single(tmp_path / "a.fits", pixels("i2"), BLANK=1001)
    before = array(plain, do_not_scale_image_data=True)
    write_skies([update(plain)], SUBTRACT)
    subprocess.run(["fpack", "-g", "-q", "0", plain], check=True)
    undo([ref(tmp_path / "a.fits.fz", 1)], RECORD)
    after = array(tmp_path / "a.fits.fz", 1, do_not_scale_image_data=True)
    assert after.dtype.kind == "i"
    np.testing.assert_array_equal(after, before)


# --- properties

SKIES = st.floats(-1e5, 1e5) | st.integers(-70000, 70000).map(float)


@given(
    bitpix=st.sampled_from([8, 16, 32]),
    bzero=st.sampled_from([0.0, 32768.0, -128.0, 0.1]),
    sky=SKIES,
    seed=st.integers(0, 2**16),
)
@hypothesis_settings(max_examples=150)
def test_integers_are_restored_exactly_whatever_the_sky(bitpix, bzero, sky, seed):
    original = PixelFormat(bitpix=bitpix, bscale=0.25 if seed % 2 else 1.0, bzero=bzero, blank=7)
    info = np.iinfo(original.dtype)
    raw = np.random.default_rng(seed).integers(info.min, info.max, 1000, dtype="i8", endpoint=True)
    raw[:3] = (info.min, info.max, 7)
    raw = raw.astype(original.dtype)
    np.testing.assert_array_equal(
        restore(subtract(raw, original, sky, format_after(original, sky)), original, sky), raw
    )


@given(
    dtype=st.sampled_from(["f4", "f8"]),
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    sky=SKIES,
)
@hypothesis_settings(max_examples=300)
def test_floats_are_restored_within_one_ulp(dtype, values, sky):
    original = PixelFormat(bitpix=-8 * np.dtype(dtype).itemsize)
    raw = np.array(values, original.dtype)
    back = restore(subtract(raw, original, sky, original), original, sky)
    ulp = np.spacing(np.maximum(np.abs(raw), abs(sky)).astype(dtype))
    assert np.all(np.abs(back.astype("f8") - raw.astype("f8")) <= ulp)


def layouts() -> st.SearchStrategy[dict[str, Any]]:
    extra = st.dictionaries(
        st.from_regex(r"[A-Z]{3,6}[0-9]", fullmatch=True),
        st.integers() | st.booleans() | st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126)),
        max_size=6,
    )
    mine = st.fixed_dictionaries(
        {},
        optional={
            "BKGLEVEL": st.floats(-1e9, 1e9) | st.text("abc' ", max_size=30),
            "BKGMETH": st.text("abc' ", max_size=150),
            "BKGERR": st.floats(0, 1) | st.booleans(),
            "BKGSUB": st.just(False),
            "BLANK": st.integers(0, 200),
        },
    )
    return st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["u1", "i2", "u2", "i4", "i8"]),
            "extra": extra,
            "mine": mine,
            "primary": st.booleans(),
            "n_blank": st.integers(0, 40),
            "checksum": st.booleans(),
            "subtract": st.booleans(),
            "sky": st.floats(-500, 500),
        }
    )


@given(layouts())
@hypothesis_settings(max_examples=60)
def test_any_file_of_integers_comes_back_byte_for_byte(layout):
    with tempfile.TemporaryDirectory() as folder:
        data = (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 200).astype(layout["dtype"])
        hdu = fits.PrimaryHDU(data) if layout["primary"] else fits.ImageHDU(data)
        hdu.header.update(layout["extra"] | layout["mine"])
        for _ in range(layout["n_blank"]):
            hdu.header.append(bottom=True)
        path = write_hdus(Path(folder, "a.fits"), hdu, fits.ImageHDU(np.ones(3)), checksum=layout["checksum"])
        before, index = path.read_bytes(), 0 if layout["primary"] else 1
        settings = Settings(subtract=layout["subtract"])
        written = update(path, index, sky=layout["sky"])
        assert check_writable([written], settings) == ()
        write_skies([written], settings)
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            assert hdus[index].header["BKGLEVEL"] == layout["sky"]
        assert write_skies([written], settings).files == ()
        undo([ref(path, index)], RECORD)
        assert path.read_bytes() == before


# --- files of real instruments, where they are at hand

ASTROPY = Path(fits.__file__).parents[2]
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize(
    ("original", "images"),
    [
        (ASTROPY / "wcs/tests/data/j94f05bgq_flt.fits", (1, 4)),  # HST ACS: two chips, lookup tables
        (ASTROPY / "io/fits/tests/data/o4sp040b0_raw.fits", (1, 4)),  # HST STIS: 16 bits
        (ASTROPY / "io/fits/tests/data/scale.fits", (0,)),
        (ASTROPY / "io/fits/tests/data/fixed-1890.fits", (0,)),
        (SHARED / "odd/m13_rice.fits", (1,)),
        (SHARED / "projections/1904-66_TAN.fits", (0,)),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_real_file_comes_back(tmp_path, original, images):
    if not original.exists():
        pytest.skip("not at hand")
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    written = [update(path, hdu, sky=3.7) for hdu in images]
    write_skies(written, RECORD)
    assert fits.getheader(path, images[0])["BKGLEVEL"] == 3.7
    undo([u.ref for u in written], RECORD)
    assert path.read_bytes() == original.read_bytes()
    before = [array(path, hdu) for hdu in images]
    write_skies(written, SUBTRACT)
    undo([u.ref for u in written], RECORD)
    for hdu, old in zip(images, before, strict=True):
        new = array(path, hdu)
        assert new.dtype == old.dtype
        if old.dtype.kind in "iu":
            np.testing.assert_array_equal(new, old)
        else:
            ulp = np.spacing(np.maximum(np.abs(old), old.dtype.type(3.7)))
            assert np.array_equal(np.isnan(new), np.isnan(old))
            assert np.nanmax(np.abs(new - old) / ulp) <= 1
