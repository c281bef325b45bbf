"""What the headers say: WCS, unit, group, recorded sky, and which planes belong to an image."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import astropy
import numpy as np
import pytest
from astropy.io import fits

from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.images.image import Infos, read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.images.pixels import read_pixels
from skymatch_cli.model import ImageInfo, Recorded
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.settings import Settings

SHARED = Path(__file__).parents[2] / "shared"
HST = Path(astropy.__file__).parent / "wcs/tests/data/j94f05bgq_flt.fits"
WCS_CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0, "CDELT1": -1e-4, "CDELT2": 1e-4}
ZERO = np.zeros((4, 5), "f4")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sci(ver: int = 1, **cards: Any) -> fits.ImageHDU:
    return fits.ImageHDU(ZERO, fits.Header({**WCS_CARDS, **cards}), name="SCI", ver=ver)


def flags(value: int = 0, ver: int = 1, name: str = "DQ", dtype: str = "i2") -> fits.ImageHDU:
    return fits.ImageHDU(np.full(ZERO.shape, value, dtype), name=name, ver=ver)


def write(name: str, *hdus: Any, **primary: Any) -> str:
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary)), *hdus]).writeto(name)
    return name


def infos(*names: str, **settings: Any) -> Infos:
    chosen = Settings(**settings)
    inputs = resolve_images(names, settings=chosen)
    assert inputs.problems == ()
    return read_infos(inputs, chosen, need_wcs=chosen.method != "user")


def info(*names: str, **settings: Any) -> ImageInfo:
    found = infos(*names, **settings)
    assert (found.problems, found.warnings) == ((), ())
    return found.infos[0]


def problem(*names: str, **settings: Any) -> str:
    (only,) = infos(*names, **settings).problems
    return str(only)


class TestWcs:
    def test_is_that_of_the_header(self) -> None:
        found = info(write("a.fits", sci()))
        assert found.wcs is not None
        assert found.wcs.shape == found.shape == (4, 5)

    def test_none_is_read_where_none_is_needed(self) -> None:
        assert info(write("a.fits", sci()), method="user", skylist="s.txt").wcs is None

    def test_missing(self) -> None:
        write("a.fits", fits.ImageHDU(ZERO, name="SCI"))
        assert problem("a.fits") == "a.fits[SCI,1]: has no celestial WCS (solve its astrometry first)"

    def test_invalid(self) -> None:
        assert problem(write("a.fits", sci(CDELT1=0.0))).startswith("a.fits[SCI,1]: its WCS can't be used")

    def test_all_bad_images_are_listed(self) -> None:
        write("a.fits", sci(1, CDELT1=0.0), sci(2), sci(3, CDELT2=0.0))
        found = infos("a.fits")
        assert [p.where for p in found.problems] == ["a.fits[SCI,1]", "a.fits[SCI,3]"]
        assert [i.ref.extver for i in found.infos] == [2]

    def test_lookup_tables_of_hst_are_read(self) -> None:
        found = infos(str(HST))
        assert found.problems == ()
        assert [i.unit for i in found.infos] == ["ELECTRONS", "ELECTRONS"]

    def test_of_a_compressed_image(self) -> None:
        write("c.fits", fits.CompImageHDU(np.zeros((20, 30), "i2"), fits.Header(WCS_CARDS)))
        assert info("c.fits").shape == (20, 30)


class TestUnitAndGroup:
    def test_unit_of_the_image_then_of_the_primary(self) -> None:
        assert info(write("a.fits", sci(BUNIT="DN"), BUNIT="x")).unit == "DN"
        assert info(write("b.fits", sci(), BUNIT="DN")).unit == "DN"

    def test_factor_to_the_comparison_unit(self) -> None:
        write("a.fits", sci(BUNIT="DN"), EXPTIME=10.0)
        write("b.fits", sci(BUNIT="DN"), EXPTIME=20.0)
        found = infos("a.fits", "b.fits").infos
        assert [i.to_comparison for i in found] == [0.1, 0.05]
        assert found[0].comparison_unit == "adu / s"
        assert any("EXPTIME" in note for note in found[0].notes)

    def test_keyword_of_the_exposure_time(self) -> None:
        write("a.fits", sci(BUNIT="DN", ITIME=10.0), EXPTIME=7.0)
        write("b.fits", sci(BUNIT="DN", ITIME=20.0), EXPTIME=7.0)
        assert [i.to_comparison for i in infos("a.fits", "b.fits", exptime_key="ITIME").infos] == [0.1, 0.05]

    def test_images_that_can_t_be_compared_are_problems(self) -> None:
        write("a.fits", sci(BUNIT="DN"))
        write("b.fits", sci(BUNIT="MJy/sr"))
        assert problem("a.fits", "b.fits").startswith("b.fits[SCI,1]: its BUNIT 'MJy/sr' can't be converted to")
        assert len(infos("a.fits", "b.fits", units="as-is").infos) == 2

    def test_flux_scale(self) -> None:
        write("a.fits", sci(FLXSCALE=0.5))
        assert info("a.fits", flux_scale="FLXSCALE").to_comparison == 0.5

    @pytest.mark.parametrize("value", ["x", 0.0, True])
    def test_useless_flux_scale(self, value: Any) -> None:
        write("a.fits", sci(FLXSCALE=value))
        assert "FLXSCALE is" in problem("a.fits", flux_scale="FLXSCALE")
        assert "there is no NONE" in problem("a.fits", flux_scale="NONE")

    def test_group_is_the_file(self) -> None:
        write("a.fits", sci(1), sci(2))
        assert [i.group for i in infos("a.fits[SCI,1]", "./a.fits[SCI,2]").infos] == ["a.fits", "a.fits"]

    def test_group_none(self) -> None:
        write("a.fits", sci(1), sci(2))
        assert [i.group for i in infos("a.fits", group_by="none").infos] == ["a.fits[SCI,1]", "a.fits[SCI,2]"]

    def test_group_by_keyword_of_image_or_primary(self) -> None:
        write("a.fits", sci(1, EXPNAME="x"), sci(2), EXPNAME="y")
        assert [i.group for i in infos("a.fits", group_by="EXPNAME").infos] == ["x", "y"]

    def test_group_keyword_that_is_missing(self) -> None:
        assert problem(write("a.fits", sci()), group_by="EXPNAME").startswith("a.fits[SCI,1]: there is no EXPNAME")


class TestBands:
    def test_filters_that_differ(self) -> None:
        write("a.fits", sci(), FILTER="r")
        write("b.fits", sci(FILTER="g"))
        (warning,) = infos("a.fits", "b.fits").warnings
        compared = "images of different FILTER are compared: r (a.fits[SCI,1]), g (b.fits[SCI,1])"
        assert str(warning) == f"{compared}; see --split-by FILTER"

    def test_zero_points_that_differ(self) -> None:
        write("a.fits", sci(MAGZP=25.0, FLXSCALE=1.0))
        write("b.fits", sci(MAGZP=24.0, FLXSCALE=1.0))
        (warning,) = infos("a.fits", "b.fits").warnings
        assert "different MAGZP are compared: 24 (b.fits[SCI,1]) to 25 (a.fits[SCI,1])" in str(warning)
        assert infos("a.fits", "b.fits", flux_scale="FLXSCALE").warnings == ()

    def test_alike(self) -> None:
        names = [write(f"{n}.fits", sci(MAGZP=25.0), FILTER="r") for n in "ab"]
        assert infos(*names).warnings == ()


class TestRecorded:
    def test_nothing(self) -> None:
        assert info(write("a.fits", sci())).recorded is None

    def test_level_and_state(self) -> None:
        assert info(write("a.fits", sci(BKGLEVEL=5.0))).recorded == Recorded(SkyPlane(5.0), False)
        assert info(write("b.fits", sci(BKGLEVEL=5, BKGSUB=True))).recorded == Recorded(SkyPlane(5.0), True)

    def test_keyword_of_the_level(self) -> None:
        image = info(write("a.fits", sci(MDRIZSKY=3.0)), sky_keyword="MDRIZSKY")
        assert image.recorded == Recorded(SkyPlane(3.0), False)

    def test_jwst_keeps_it_in_the_primary_header(self) -> None:
        write("a.fits", sci(), TELESCOP="JWST", BKGLEVEL=5.0, BKGSUB=True)
        assert info("a.fits").recorded == Recorded(SkyPlane(5.0), True)
        write("b.fits", sci(), TELESCOP="HST", BKGLEVEL=5.0, BKGSUB=True)
        assert info("b.fits").recorded is None

    @pytest.mark.parametrize("cards", [{"BKGSUB": True}, {"BKGSUB": True, "BKGLEVEL": "high"}])
    def test_state_without_a_usable_level(self, cards: dict[str, Any]) -> None:
        assert "BKGLEVEL" in problem(write("a.fits", sci(**cards)))

    def test_state_that_is_no_logical(self) -> None:
        found = infos(write("a.fits", sci(BKGSUB="performed")))
        assert found.infos[0].recorded is None
        assert "BKGSUB is 'performed', not T or F" in str(found.warnings[0])


class TestPlanes:
    def test_dq_of_the_default_extension(self) -> None:
        assert "DQ flags from [DQ,1]" in info(write("a.fits", sci(), flags())).notes
        assert "no DQ flags" in info(write("b.fits", sci())).notes

    def test_dq_extension_by_name(self) -> None:
        write("a.fits", sci(), flags(1, name="BPM"))
        assert not read_pixels(info("a.fits", dq_ext="bpm"), Settings()).good.any()
        assert "there is no extension [FOO,1]" in problem("a.fits", dq_ext="FOO")

    def test_dq_is_not_looked_for_where_it_is_ignored(self) -> None:
        assert info(write("a.fits", sci()), dq_ext="FOO", dqbits="none").notes == ("DQ flags are ignored",)

    def test_dq_in_a_file_of_its_own(self, folder: Path) -> None:
        (folder / "raw").mkdir()
        chips = [fits.ImageHDU(ZERO, fits.Header({**WCS_CARDS, "CRVAL2": k}), name=n) for k, n in enumerate("AB")]
        fits.HDUList([fits.PrimaryHDU(), *chips]).writeto("raw/x.fits")
        fits.HDUList([fits.PrimaryHDU(), flags(0, name="A"), flags(1, name="B")]).writeto("raw/x_dq.fits")
        found = infos("raw/x.fits", dq_ext="{stem}_dq.fits[{extname}]").infos
        assert [bool(read_pixels(i, Settings()).good.all()) for i in found] == [True, False]

    def test_missing_dq_file(self) -> None:
        text = problem(write("a.fits", sci()), dq_ext="{stem}_dq.fits")
        assert text == "a.fits[SCI,1]: its DQ file a_dq.fits can't be used: no such file"

    def test_bad_template(self) -> None:
        with pytest.raises(UsageError, match="--dq-ext"):
            info(write("a.fits", sci()), dq_ext="{name}.fits")

    def test_unknown_flag(self) -> None:
        with pytest.raises(UsageError, match="there is no DQ flag 'FOO'"):
            info(write("a.fits", sci()), dqbits="FOO")

    def test_flags_of_jwst(self) -> None:
        write("a.fits", sci(), flags(4, dtype="u4"), TELESCOP="JWST")
        assert read_pixels(info("a.fits"), Settings()).good.all()
        assert not read_pixels(info("a.fits", dqbits="~JUMP_DET"), Settings()).good.any()

    def test_dq_that_is_no_integer(self) -> None:
        assert "[DQ,1] are not integers" in problem(write("a.fits", sci(), flags(dtype="f4")))

    def test_dq_of_another_shape(self) -> None:
        write("a.fits", sci(), fits.ImageHDU(np.zeros((5, 4), "i2"), name="DQ"))
        assert "the DQ extension [DQ,1] is 4 × 5 pixels, the image 5 × 4" in problem("a.fits")

    @pytest.mark.parametrize(("value", "usable"), [(0, True), (4, False)])
    def test_dq_without_pixels_as_hst_writes_it(self, value: int, usable: bool) -> None:
        constant = fits.ImageHDU(header=fits.Header({"NPIX1": 5, "NPIX2": 4, "PIXVALUE": value}), name="DQ", ver=1)
        write("a.fits", sci(), constant)
        found = infos("a.fits")
        assert len(found.infos) == usable
        assert [str(p) for p in found.problems] == [
            "a.fits[SCI,1]: all its pixels are flagged (PIXVALUE 4) (see --dqbits)"
        ][usable:]

    def test_mask_of_another_shape(self) -> None:
        fits.PrimaryHDU(np.ones((3, 3), "u1")).writeto("m.fits")
        text = problem(write("a.fits", sci()), mask="m.fits")
        assert text.startswith("a.fits[SCI,1]: its mask m.fits is 3 × 3 pixels, the image 5 × 4")

    def test_mask_that_is_a_table(self) -> None:
        table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.zeros(3))])
        fits.HDUList([fits.PrimaryHDU(), table]).writeto("m.fits")
        assert "its mask m.fits is not a two-dimensional image" in problem(write("a.fits", sci()), mask="m.fits")
        assert "its mask m.fits[1] is not" in problem("a.fits", mask="m.fits[1]")

    def test_mask_by_extension(self) -> None:
        masks = [fits.ImageHDU(np.full(ZERO.shape, v, "u1"), name="MASK", ver=v + 1) for v in (0, 1)]
        fits.HDUList([fits.PrimaryHDU(), *masks]).writeto("m.fits")
        write("a.fits", sci(1), sci(2))
        found = infos("a.fits", mask="m.fits[MASK,{extver}]").infos
        assert [bool(read_pixels(i, Settings()).good.all()) for i in found] == [False, True]

    def test_missing_mask(self) -> None:
        assert "its mask m.fits can't be used: no such file" in problem(write("a.fits", sci()), mask="m.fits")


def mutated(raw: bytes, seed: int) -> bytes:
    """The file with a few bytes, or a card, replaced; or cut short."""
    chance = random.Random(seed)
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                cards = [
                    b"NAXIS1  = 1E99",
                    b"CRVAL1  = 'x'",
                    b"CTYPE1  = 5",
                    b"BKGLEVEL= nan",
                    b"\xff\xfe=",
                    b"EXTNAME = 7",
                ]
                start = at // 80 * 80
                data[start : start + 80] = chance.choice(cards).ljust(80)
            case 2:
                data[at : at + 8] = chance.randbytes(8)
            case _:
                data = data[: max(at, 100)]
    return bytes(data)


@pytest.mark.parametrize("block", range(5))
def test_damaged_files_are_problems_and_never_tracebacks(block: int) -> None:
    write("a.fits", sci(1, BUNIT="DN"), flags(), sci(2, BKGLEVEL=5.0, BKGSUB=True), EXPTIME=1.0)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((20, 30), "i2"), fits.Header(WCS_CARDS))]).writeto(
        "c.fits"
    )
    originals = [Path("a.fits").read_bytes(), Path("c.fits").read_bytes()]
    for seed in range(40 * block, 40 * (block + 1)):
        Path("m.fits").write_bytes(mutated(originals[seed % 2], seed))
        inputs = resolve_images(["m.fits"], settings=Settings())
        for found in read_infos(inputs, Settings(), need_wcs=True).infos:
            with contextlib.suppress(InputError):
                read_pixels(found, Settings())


@pytest.mark.skipif(not SHARED.exists(), reason="real data are not here")
class TestRealFiles:
    @pytest.mark.parametrize(
        "name", ["m17_2mass_k/*.gz", "projections/*.fits", "odd/m13_rice.fits", "odd/small_3D.fits"]
    )
    def test_are_read_as_astropy_reads_them(self, name: str) -> None:
        for found in infos(str(SHARED / "data" / name)).infos:
            pixels = read_pixels(found, Settings())
            expected = fits.getdata(found.ref.path, found.ref.hdu).squeeze()
            assert np.array_equal(pixels.data, expected, equal_nan=True)
            assert np.array_equal(pixels.good, np.isfinite(expected))
