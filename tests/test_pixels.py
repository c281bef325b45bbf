"""Pixels as astropy reads them, in native order, and which of them count."""

from __future__ import annotations

import bz2
import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

import skymatch_cli
from skymatch_cli.errors import InputError
from skymatch_cli.images.image import read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.images.pixels import Pixels, read_pixels
from skymatch_cli.model import ImageInfo
from skymatch_cli.settings import Settings

from .factories import row, write_all

WCS_CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0, "CDELT1": -1e-4, "CDELT2": 1e-4}
OPEN_FILES = Path("/proc/self/fd")
RNG = np.random.default_rng(1)


def info_of(name: str, **changes: Any) -> tuple[ImageInfo, Settings]:
    settings = Settings(**changes)
    found = read_infos(resolve_images([name], settings=settings), settings, need_wcs=True)
    if found.problems:
        raise InputError(found.problems)
    return found.infos[0], settings


def read(name: str, rows: tuple[int, int] | None = None, **changes: Any) -> Pixels:
    info, settings = info_of(name, **changes)
    return read_pixels(info, settings, rows=rows)


def write(path: Path, data: np.ndarray, dq: np.ndarray | None = None, **cards: Any) -> str:
    header = fits.Header({**WCS_CARDS, **cards})
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, header, name="SCI", ver=1)]
    if dq is not None:
        hdus.append(fits.ImageHDU(dq, name="DQ", ver=1))
    fits.HDUList(hdus).writeto(path)
    return str(path)


def write_stored(path: Path, stored: np.ndarray, **cards: Any) -> str:
    """An image whose stored values and scaling cards are exactly these."""
    hdu = fits.PrimaryHDU(stored, fits.Header(WCS_CARDS))
    hdu.header.update(cards)
    hdu.writeto(path, output_verify="ignore")
    # astropy drops scaling cards of unscaled data: put them into the file itself
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header.update(cards)
    return str(path)


class TestStoredTypes:
    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            ("u1", "f4"),
            ("i2", "f4"),
            ("u2", "f4"),
            ("i1", "f4"),
            ("i4", "f8"),
            ("u4", "f8"),
            ("i8", "f8"),
            ("u8", "f8"),
            ("f4", "f4"),
            ("f8", "f8"),
        ],
    )
    def test_values_are_exact_in_native_order(self, tmp_path: Path, dtype: str, expected: str) -> None:
        if np.dtype(dtype).kind == "f":
            data = RNG.normal(size=(30, 40)).astype(dtype)
        else:
            bounds = np.iinfo(dtype)
            data = RNG.integers(max(bounds.min, -(2**52)), min(bounds.max, 2**52), (30, 40), dtype=dtype, endpoint=True)
        found = read(write(tmp_path / "a.fits", data))
        assert found.data.dtype == np.dtype(expected)
        assert found.data.dtype.isnative
        assert np.array_equal(found.data, data.astype("f8"))
        assert found.good.all()

    def test_blank_is_not_good(self, tmp_path: Path) -> None:
        stored = np.array([[1, -99, 3]], "i2")
        found = read(write_stored(tmp_path / "a.fits", stored, BLANK=-99))
        assert found.good.tolist() == [[True, False, True]]

    def test_blank_is_a_stored_value(self, tmp_path: Path) -> None:
        stored = np.array([[1, -99, 3]], "i2")
        found = read(write_stored(tmp_path / "a.fits", stored, BLANK=-99, BSCALE=2.0, BZERO=10.0))
        assert found.data.tolist() == [[12.0, -188.0, 16.0]]
        assert found.good.tolist() == [[True, False, True]]

    @pytest.mark.parametrize("blank", [40000, -40000, 10**30])
    def test_blank_that_the_type_can_t_hold_marks_nothing(self, tmp_path: Path, blank: int) -> None:
        assert read(write_stored(tmp_path / "a.fits", np.array([[1, 2]], "i2"), BLANK=blank)).good.all()

    @pytest.mark.parametrize(
        ("scaling", "expected"),
        [
            ({"BSCALE": 1.0, "BZERO": 32768.0}, "f4"),
            ({"BSCALE": 0.25, "BZERO": 100.0}, "f4"),
            ({"BSCALE": -2.0, "BZERO": 6.0}, "f4"),
            ({"BSCALE": 0.01, "BZERO": 0.0}, "f8"),
            ({"BSCALE": 1.0, "BZERO": 0.5}, "f8"),
            ({"BSCALE": 1.0, "BZERO": 2.0**25}, "f8"),
        ],
    )
    def test_scaled_integers_are_float32_where_that_is_exact(
        self, tmp_path: Path, scaling: dict[str, float], expected: str
    ) -> None:
        stored = np.array([[-32768, -1, 0, 1, 32767]], "i2")
        found = read(write_stored(tmp_path / "a.fits", stored, **scaling))
        assert found.data.dtype == np.dtype(expected)
        assert np.array_equal(found.data, stored * scaling["BSCALE"] + scaling["BZERO"])

    def test_scaled_floats(self, tmp_path: Path) -> None:
        stored = np.array([[1.5, np.nan]], "f4")
        found = read(write_stored(tmp_path / "a.fits", stored, BSCALE=2.0, BZERO=0.5))
        assert found.data[0, 0] == 3.5
        assert found.good.tolist() == [[True, False]]

    @pytest.mark.parametrize("scaling", [{"BSCALE": 0.0}, {"BSCALE": "x"}, {"BZERO": "x"}])
    def test_useless_scaling_is_a_problem(self, tmp_path: Path, scaling: dict[str, Any]) -> None:
        hdu = fits.PrimaryHDU(np.zeros((2, 3), "f4"), fits.Header(WCS_CARDS))
        hdu.writeto(tmp_path / "a.fits")
        raw = (tmp_path / "a.fits").read_bytes()
        ((key, value),) = scaling.items()
        card = str(fits.Card(key, value)).encode()
        (tmp_path / "a.fits").write_bytes(raw.replace(str(fits.Card("CDELT1", -1e-4)).encode(), card))
        with pytest.raises(InputError, match="BSCALE or BZERO"):
            read(str(tmp_path / "a.fits"))

    def test_degenerate_axes(self, tmp_path: Path) -> None:
        data = RNG.normal(size=(1, 4, 5)).astype("f4")
        assert np.array_equal(read(write(tmp_path / "a.fits", data)).data, data[0])

    def test_one_pixel(self, tmp_path: Path) -> None:
        assert read(write(tmp_path / "a.fits", np.full((1, 1), 7.0))).data.tolist() == [[7.0]]


class TestWaysOfStoring:
    DATA = RNG.normal(100, 5, (70, 50)).astype("f4")

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
    def test_packed_files(self, tmp_path: Path, pack: Any) -> None:
        dq = (RNG.random(self.DATA.shape) < 0.1).astype("i2")
        name = write(tmp_path / "a.fits", self.DATA, dq)
        Path(name).write_bytes(pack(Path(name).read_bytes()))
        found = read(name, rows=(20, 60))
        assert np.array_equal(found.data, self.DATA[20:60])
        assert np.array_equal(found.good, dq[20:60] == 0)

    @pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4"])
    @pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
    def test_compressed_integers(self, tmp_path: Path, dtype: str, kind: str) -> None:
        data = RNG.integers(0, 200, (70, 50)).astype(dtype)
        fits.CompImageHDU(data, fits.Header(WCS_CARDS), compression_type=kind).writeto(tmp_path / "a.fits.fz")
        found = read(str(tmp_path / "a.fits.fz"), rows=(9, 41))
        assert np.array_equal(found.data, data[9:41])
        assert found.good.all()

    def test_compressed_integers_with_blank_and_scaling(self, tmp_path: Path) -> None:
        data = np.array([[1, 2, -99, 4]] * 20, "i2")
        hdu = fits.CompImageHDU(data, fits.Header(WCS_CARDS), compression_type="RICE_1")
        hdu.writeto(tmp_path / "a.fits.fz")
        with fits.open(tmp_path / "a.fits.fz", mode="update", disable_image_compression=True) as hdus:
            hdus[1].header.update({"BSCALE": 0.5, "BZERO": 3.0, "ZBLANK": -99})
        found = read(str(tmp_path / "a.fits.fz"))
        assert found.data[0].tolist() == [3.5, 4.0, -46.5, 5.0]
        assert found.good[0].tolist() == [True, True, False, True]

    def test_quantised_floats_are_those_of_astropy(self, tmp_path: Path) -> None:
        data = self.DATA.copy()
        data[3, 4] = np.nan
        hdu = fits.CompImageHDU(data, fits.Header(WCS_CARDS), compression_type="RICE_1", quantize_level=16)
        hdu.writeto(tmp_path / "a.fits.fz")
        found = read(str(tmp_path / "a.fits.fz"))
        with fits.open(tmp_path / "a.fits.fz") as hdus:
            assert np.array_equal(found.data, hdus[1].data, equal_nan=True)
        assert np.argwhere(~found.good).tolist() == [[3, 4]]

    def test_damaged_tiles_are_an_input_error(self, tmp_path: Path) -> None:
        data = RNG.integers(0, 30000, (70, 50)).astype("i2")
        fits.CompImageHDU(data, fits.Header(WCS_CARDS), compression_type="GZIP_1").writeto(tmp_path / "a.fits.fz")
        raw = bytearray((tmp_path / "a.fits.fz").read_bytes())
        raw[-6000:-3000] = b"\xff" * 3000
        (tmp_path / "a.fits.fz").write_bytes(raw)
        with pytest.raises(InputError, match="compressed pixels are damaged"):
            read(str(tmp_path / "a.fits.fz"))

    @pytest.mark.parametrize(("kind", "dtype", "at"), [("HCOMPRESS_1", "i4", 3), ("PLIO_1", "i2", 6)])
    def test_tiles_that_claim_another_size_are_not_unpacked(
        self, tmp_path: Path, kind: str, dtype: str, at: int
    ) -> None:
        data = RNG.integers(0, 99, (64, 50)).astype(dtype)
        name = str(tmp_path / "a.fits.fz")
        fits.CompImageHDU(data, fits.Header(WCS_CARDS), compression_type=kind).writeto(name)
        assert np.array_equal(read(name).data, data)
        with fits.open(name, disable_image_compression=True) as hdus:
            heap = hdus[1].fileinfo()["datLoc"] + hdus[1].header["NAXIS1"] * hdus[1].header["NAXIS2"]
        raw = bytearray(Path(name).read_bytes())
        raw[heap + at] = 77
        Path(name).write_bytes(raw)
        with pytest.raises(InputError, match="tile 1 claims"):
            read(name)

    def test_blocks_of_rows_join_without_a_seam(self, tmp_path: Path) -> None:
        data = RNG.normal(size=(700, 1000)).astype("f4")  # more than one block
        dq = (RNG.random(data.shape) < 0.1).astype("u1")
        name = write(tmp_path / "a.fits", data, dq)
        found = read(name)
        assert np.array_equal(found.data, data)
        assert np.array_equal(found.good, dq == 0)

    @settings(max_examples=25)
    @given(bounds=st.tuples(st.integers(0, 70), st.integers(0, 70)).map(sorted))
    def test_rows_are_a_slice_of_the_image(self, tmp_path_factory: pytest.TempPathFactory, bounds: list[int]) -> None:
        name = write(tmp_path_factory.mktemp("rows") / "a.fits", self.DATA, np.tile([0, 1], (70, 25)).astype("i2"))
        whole, part = read(name), read(name, rows=(bounds[0], bounds[1]))
        assert np.array_equal(part.data, whole.data[slice(*bounds)])
        assert np.array_equal(part.good, whole.good[slice(*bounds)])


class TestWhichCount:
    def test_nan_and_infinity_don_t(self, tmp_path: Path) -> None:
        found = read(write(tmp_path / "a.fits", np.array([[1, np.nan, np.inf, -np.inf]], "f4")))
        assert found.good.tolist() == [[True, False, False, False]]

    @pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "u8"])
    @pytest.mark.parametrize(("dqbits", "bad"), [("0", 0xFF), ("~0", 0), ("2", 0xFD), ("~2,64", 66), ("none", 0)])
    def test_flags(self, tmp_path: Path, dtype: str, dqbits: str, bad: int) -> None:
        flags = np.array([[0, 1, 2, 3, 64, 66, 100]], dtype)
        found = read(write(tmp_path / "a.fits", np.zeros(flags.shape), flags), dqbits=dqbits)
        assert found.good.tolist() == [[value & bad == 0 for value in flags[0].tolist()]]

    def test_highest_bit(self, tmp_path: Path) -> None:
        flags = np.array([[0, 2**31, 2**31 + 1]], "u4")
        name = write(tmp_path / "a.fits", np.zeros(flags.shape), flags)
        assert read(name, dqbits=f"~{2**31}").good.tolist() == [[True, False, False]]
        assert read(name, dqbits=str(2**31)).good.tolist() == [[True, True, False]]

    @given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8), st.integers(0, 2**31 - 1))
    @settings(max_examples=40)
    def test_any_flags_and_bits(self, tmp_path_factory: pytest.TempPathFactory, flags: list[int], bad: int) -> None:
        name = write(tmp_path_factory.mktemp("dq") / "a.fits", np.zeros((1, len(flags))), np.array([flags], "i4"))
        assert read(name, dqbits=f"~{bad}").good.tolist() == [[flag & bad == 0 for flag in flags]]

    def test_flags_are_those_of_the_same_version(self, tmp_path: Path) -> None:
        header = fits.Header(WCS_CARDS)
        chips = [fits.ImageHDU(np.zeros((1, 2)), header, name="SCI", ver=v) for v in (1, 2)]
        flags = [fits.ImageHDU(np.array([[v == 1, v == 2]], "u1"), name="DQ", ver=v) for v in (2, 1)]
        fits.HDUList([fits.PrimaryHDU(), *chips, *flags]).writeto(tmp_path / "a.fits")
        assert read(f"{tmp_path}/a.fits[SCI,1]").good.tolist() == [[False, True]]
        assert read(f"{tmp_path}/a.fits[SCI,2]").good.tolist() == [[True, False]]

    def test_ignored_value(self, tmp_path: Path) -> None:
        name = write(tmp_path / "a.fits", np.array([[0, 0.1, -0.0]], "f4"))
        assert read(name, ignore_value=0.0).good.tolist() == [[False, True, False]]
        assert read(name, ignore_value=0.1).good.tolist() == [[True, False, True]]

    @pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4", "f8"])
    def test_user_mask_is_good_where_it_is_not_zero(self, tmp_path: Path, dtype: str) -> None:
        fits.PrimaryHDU(np.array([[0, 1, 7]], dtype)).writeto(tmp_path / "m.fits")
        name = write(tmp_path / "a.fits", np.zeros((1, 3)))
        assert read(name, mask=f"{tmp_path}/m.fits").good.tolist() == [[False, True, True]]

    def test_nan_in_a_mask_is_not_good(self, tmp_path: Path) -> None:
        fits.PrimaryHDU(np.array([[0.0, 1.0, np.nan]])).writeto(tmp_path / "m.fits")
        name = write(tmp_path / "a.fits", np.zeros((1, 3)))
        assert read(name, mask=f"{tmp_path}/m.fits").good.tolist() == [[False, True, False]]

    def test_a_warning_where_flags_take_more_than_half(self, tmp_path: Path) -> None:
        name = write(tmp_path / "a.fits", np.zeros((1, 5)), np.array([[1, 1, 1, 0, 0]], "i2"))
        (warning,) = read(name).warnings
        assert str(warning) == f"{name}[SCI,1]: DQ flags exclude 60 % of its pixels (see --dqbits)"
        assert read(name, dqbits="none").warnings == ()


class TestSubtractedSky:
    def test_is_added_back(self, tmp_path: Path) -> None:
        original = RNG.normal(1000, 10, (20, 30)).astype("f4")
        level = 987.654321
        stored = (original.astype("f8") - level).astype("f4")
        name = write(tmp_path / "a.fits", stored, BKGLEVEL=level, BKGSUB=True)
        found = read(name)
        assert found.data.dtype == np.float32
        assert np.array_equal(found.data, original)

    def test_recorded_only_is_not(self, tmp_path: Path) -> None:
        assert read(write(tmp_path / "a.fits", np.ones((1, 2)), BKGLEVEL=5.0, BKGSUB=False)).data.tolist() == [[1, 1]]

    def test_ignored_value_speaks_of_original_pixels(self, tmp_path: Path) -> None:
        name = write(tmp_path / "a.fits", np.array([[-5.0, 0.0]]), BKGLEVEL=5.0, BKGSUB=True)
        assert read(name, ignore_value=0.0).good.tolist() == [[False, True]]


class TestAfterSubtraction:
    """What a second run sees of images from which a first run has subtracted a sky."""

    @pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "f4"])
    def test_pixels_are_the_original_ones(self, tmp_path: Path, dtype: str) -> None:
        names = write_all(tmp_path, row([1000.0, 1300.3], dtype=dtype, noise=5.0))
        before = [read(name) for name in names]
        skymatch_cli.match(names, subtract=True)
        for name, original in zip(names, before, strict=True):
            info, chosen = info_of(name)
            assert info.recorded is not None
            assert info.recorded.subtracted
            again = read_pixels(info, chosen)
            assert again.data.dtype == original.data.dtype
            assert np.array_equal(again.data, original.data)
            assert np.array_equal(again.good, original.good)

    def test_the_keyword_of_the_first_run_is_known(self, tmp_path: Path) -> None:
        names = write_all(tmp_path, row([1000.0, 1300.0]))
        skymatch_cli.match(names, subtract=True, sky_keyword="MDRIZSKY")
        info, _ = info_of(names[1])
        assert info.recorded is not None
        assert info.recorded.sky.level == pytest.approx(300)


class TestFilesThatChange:
    def test_changed_since_the_headers_were_read(self, tmp_path: Path) -> None:
        name = write(tmp_path / "a.fits", np.zeros((2, 3)))
        info, chosen = info_of(name)
        os.utime(name, ns=(1, 1))
        with pytest.raises(InputError, match="changed while it was in use"):
            read_pixels(info, chosen)

    def test_vanished(self, tmp_path: Path) -> None:
        name = write(tmp_path / "a.fits", np.zeros((2, 3)))
        info, chosen = info_of(name)
        Path(name).unlink()
        with pytest.raises(InputError, match="can't be read"):
            read_pixels(info, chosen)

    @pytest.mark.skipif(not OPEN_FILES.exists(), reason="this system doesn't list open files")
    def test_no_file_stays_open(self, tmp_path: Path) -> None:
        name = write(tmp_path / "a.fits", np.zeros((2, 3)), np.zeros((2, 3), "i2"))
        fits.CompImageHDU(np.zeros((20, 30), "i2"), fits.Header(WCS_CARDS)).writeto(tmp_path / "c.fits")
        before = len(list(OPEN_FILES.iterdir()))
        read(name)
        read(str(tmp_path / "c.fits"))
        assert len(list(OPEN_FILES.iterdir())) == before

    def test_threads_read_what_one_reads(self, tmp_path: Path) -> None:
        data = RNG.integers(0, 99, (90, 80)).astype("i2")
        fits.CompImageHDU(data, fits.Header(WCS_CARDS)).writeto(tmp_path / "c.fits")
        info, chosen = info_of(str(tmp_path / "c.fits"))
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: read_pixels(info, chosen), range(12)):
                assert np.array_equal(found.data, data)
