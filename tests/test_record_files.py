"""Packed files, checksums and copies: what surrounds the image is right after a sky is written."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skymatch_cli.errors import InputError
from skymatch_cli.record.write import check_writable, write_skies
from skymatch_cli.settings import Settings

from .crash.fileset import chips, contents, gzipped, make_files, pixels, single, tiled, update
from .test_record import RECORD, SKY, SUBTRACT, data, header
from .valid import assert_valid

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
@hypothesis_settings(max_examples=100)
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


def test_gzip_says_nothing_of_time_and_name(tmp_path):
    plain = single(tmp_path / "a.fits", pixels("f4"))
    one, two = gzipped(tmp_path / "b.fits.gz", plain), gzipped(tmp_path / "c.fits.gz", plain)
    write_skies([update(one), update(two)], RECORD)
    assert one.read_bytes() == two.read_bytes()
