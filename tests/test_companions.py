"""Which planes and which files are images, and which belong to one: errors, weights, flags, masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner, Result

from skymatch_cli.cli import main
from skymatch_cli.images.companions import Role, role_of

from .factories import Frame

SKIES = {"a": 100.0, "b": 107.5}
BAD = np.s_[:, 12:28]  # columns whose values are wrong by 500


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frame(name: str) -> Frame:
    return Frame(sky=SKIES[name], x=10.0 * (name == "b"), noise=1.0, seed=ord(name))


def pixels(name: str, *, spoiled: bool = False) -> np.ndarray:
    data = frame(name).pixels().astype("f4")
    if spoiled:
        data[BAD] += 500.0
    return data


def marks(value: float, elsewhere: float, dtype: str = "f4") -> np.ndarray:
    """A plane that holds ``value`` where the pixels are wrong."""
    plane = np.full((40, 40), elsewhere, dtype)
    plane[BAD] = value
    return plane


def plane(data: np.ndarray, name: str, of: str, *, wcs: bool = True) -> fits.ImageHDU:
    return fits.ImageHDU(data, frame(of).hdu_header() if wcs else None, name=name or None)


def write(path: str, *planes: fits.ImageHDU) -> str:
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)
    return path


def single(path: str, data: np.ndarray, of: str) -> str:
    fits.PrimaryHDU(data, frame(of).hdu_header()).writeto(path)
    return path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["match", *args])


def skies(*args: str) -> dict[str, float]:
    """The sky of each image, less that of the first."""
    done = run("--dry-run", "--format", "json", *args)
    assert done.exit_code == 0, done.stderr
    images = json.loads(done.stdout)["images"]
    return {f"{i['file']}[{i['ext'] or 0}]": i["sky"] - images[0]["sky"] for i in images}


def assert_matched(found: dict[str, float], *names: str) -> None:
    assert list(found) == list(names)
    assert found[names[-1]] == pytest.approx(7.5, abs=0.2)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("IMAGE", Role.IMAGE),
        ("1-1.E.SCI", Role.IMAGE),
        ("signal", Role.IMAGE),
        ("DET11.DQ", Role.FLAGS),
        ("MASK", Role.FLAGS),
        ("FLG", Role.FLAGS),
        ("INVVAR", Role.WEIGHT),
        ("coverage", Role.WEIGHT),
        ("EXPMAP", Role.WEIGHT),
        ("NHITS", Role.WEIGHT),
        ("stDev", Role.OTHER),
        ("BACKGROUND", Role.OTHER),
        ("ZODI", Role.OTHER),
        ("S29", Role.UNKNOWN),
        ("CONTRAST", Role.UNKNOWN),
        ("", Role.UNKNOWN),
    ],
)
def test_role_of_a_plane_by_its_name(name: str, role: Role) -> None:
    assert role_of(name) is role


class TestPlanesOfOneFile:
    @pytest.mark.parametrize(
        "names",
        [
            ("IMAGE", "ERROR", "COVERAGE"),
            ("IMAGE", "INVVAR"),
            ("IMAGE", "stDev", "exposure"),
            ("SCIENCE", "CONFIDENCE"),
            ("PRIMARY", "EXPMAP"),
            ("FLUX", "NOISE", "NOBS"),
            ("IMAGE", "BACKGROUND"),
            ("SIGNAL", "NHITS", "COV"),
            ("IMAGE", "ZODI"),
        ],
        ids=str,
    )
    def test_of_one_shape_and_wcs_are_one_image(self, folder: Path, names: tuple[str, ...]) -> None:
        for of in "ab":
            others = [plane(np.full((40, 40), 20.0 + k, "f4"), n, of) for k, n in enumerate(names[1:])]
            write(f"{of}.fits", plane(pixels(of), names[0], of), *others)
        name = names[0].upper()  # as astropy writes it
        assert_matched(skies("a.fits", "b.fits"), f"a.fits[{name}]", f"b.fits[{name}]")

    def test_companions_are_not_changed(self, folder: Path) -> None:
        for of in "ab":
            write(f"{of}.fits", plane(pixels(of), "IMAGE", of), plane(marks(5, 20), "COVERAGE", of))
        assert run("--subtract", "a.fits", "b.fits").exit_code == 0
        with fits.open("b.fits") as after:
            np.testing.assert_array_equal(after["COVERAGE"].data, marks(5, 20))
            assert np.median(after["IMAGE"].data - pixels("b")) == pytest.approx(-7.5, abs=0.3)

    def test_two_that_both_claim_to_be_the_image_are_refused(self, folder: Path) -> None:
        for of in "ab":
            write(f"{of}.fits", plane(pixels(of), "IMAGE", of), plane(pixels(of), "DATA", of))
        done = run("--dry-run", "a.fits", "b.fits[DATA]")
        assert done.exit_code == 3
        assert "name one: a.fits[IMAGE,1] or a.fits[DATA,1]" in done.stderr
        assert_matched(skies("a.fits[DATA]", "b.fits[DATA]"), "a.fits[DATA]", "b.fits[DATA]")

    def test_the_selectors_to_choose_from_can_be_pasted_where_several_files_are_refused(self, folder: Path) -> None:
        for of in "ab":
            write(f"{of}.fits", plane(pixels(of), "IMAGE", of), plane(pixels(of), "DATA", of))
        done = run("--dry-run", "a.fits", "b.fits")
        assert done.exit_code == 3
        assert "a.fits, b.fits: [IMAGE,1] and [DATA,1] have the same shape and WCS" in done.stderr
        assert "(for the first: name one: a.fits[IMAGE,1] or a.fits[DATA,1])" in done.stderr

    @pytest.mark.parametrize("selector", ["DQ", "*"])
    def test_flags_that_a_selector_names_are_a_warning(self, folder: Path, selector: str) -> None:
        for of in "ab":
            write(
                f"{of}.fits",
                plane(pixels(of), "SCI", of),
                plane(np.roll(marks(4, 0, "i2"), 10 * (of == "b"), 1), "DQ", of),
            )
        done = run("--dry-run", f"a.fits[{selector}]", f"b.fits[{selector}]")
        assert "b.fits[DQ,1] holds flags, by its name: it is matched as an image [planes]" in done.stderr
        assert "or the named plane is not an image; name the plane of the image" in done.stderr
        assert "SCI,1] holds flags" not in done.stderr

    def test_a_choice_that_no_name_confirms_is_a_warning(self, folder: Path) -> None:
        for of in "ab":
            write(f"{of}.fits", plane(pixels(of), "", of), plane(marks(3, 3), "", of))
        done = run("--dry-run", "a.fits", "b.fits")
        assert done.exit_code == 0
        assert "a.fits: uses [1] as the image, [2] as its companions" in done.stderr

    @pytest.mark.parametrize(("dtype", "n_good"), [("f4", 40 * 24), ("i4", 40 * 40)])
    def test_negative_weights_are_left_out_but_not_the_last_bit_of_a_list_of_exposures(
        self, folder: Path, dtype: str, n_good: int
    ) -> None:
        for of in "ab":
            write(f"{of}.fits", plane(pixels(of), "SCI", of), plane(marks(-1, 1, dtype), "CTX", of))
        done = run("--dry-run", "--format", "json", "a.fits", "b.fits")
        assert [image["n_pixels"] for image in json.loads(done.stdout)["images"]] == [n_good] * 2

    @pytest.mark.parametrize("name", ["WHT", "CON", "EXP", "INVVAR", "COVERAGE"])
    @pytest.mark.parametrize("wcs", [True, False])
    def test_pixels_of_weight_0_are_left_out(self, folder: Path, name: str, wcs: bool) -> None:
        for of in "ab":
            data = pixels(of, spoiled=of == "a")
            weight = marks(0 if of == "a" else 9, 9)
            write(f"{of}.fits", plane(data, "SCI", of), plane(weight, name, of, wcs=wcs))
        assert_matched(skies("a.fits", "b.fits"), "a.fits[SCI]", "b.fits[SCI]")
        without = skies("--weight", "none", "--compare", "pooled", "a.fits", "b.fits")
        assert abs(without["b.fits[SCI]"] - 7.5) > 1

    def test_a_weight_is_used_before_an_exposure_time(self, folder: Path) -> None:
        for of in "ab":
            planes = plane(marks(100, 100), "EXPTIME", of), plane(marks(0 if of == "a" else 9, 9), "WEIGHT", of)
            write(f"{of}.fits", plane(pixels(of, spoiled=of == "a"), "SCI", of), *planes)
        assert_matched(skies("a.fits", "b.fits"), "a.fits[SCI]", "b.fits[SCI]")

    @pytest.mark.parametrize(
        ("image", "flags"), [("1-1.E.SCI", "1-1.E.FLG"), ("IMAGE", "MASK"), ("SCI", "FLAGS"), ("A", "A.MASK")]
    )
    def test_flags_by_name(self, folder: Path, image: str, flags: str) -> None:
        for of in "ab":
            flagged = marks(int(of == "a"), 0, "i4")
            write(f"{of}.fits", plane(pixels(of, spoiled=of == "a"), image, of), plane(flagged, flags, of))
        assert_matched(skies("a.fits", "b.fits"), f"a.fits[{image}]", f"b.fits[{image}]")

    @pytest.mark.parametrize("chips", [1, 2])
    def test_flags_and_weights_whose_wcs_is_spelled_with_fewer_digits(self, folder: Path, chips: int) -> None:
        for of in "ab":
            hdus = []
            for chip in range(chips):
                seen = frame(of).but(y=200.0 * chip)
                short = seen.hdu_header()
                short["CRVAL1"], short["CDELT1"] = round(short["CRVAL1"], 5) + 1e-5, float(f"{short['CDELT1']:.4g}")
                last = of == "a" and chip == chips - 1
                data = seen.pixels().astype("f4")
                data[BAD] += 500.0 * last
                hdus += [fits.ImageHDU(data, seen.hdu_header(), name="IMAGE")]
                hdus += [fits.ImageHDU(marks(int(last), 0, "i4"), short, name="MASK")]
            write(f"{of}.fits", *hdus)
        done = run("--dry-run", "--format", "json", "--compare", "pooled", "a.fits", "b.fits")
        images = json.loads(done.stdout)["images"]
        assert [image["n_pixels"] for image in images] == [1600] * (chips - 1) + [40 * 24] + [1600] * chips
        assert images[-1]["sky"] - images[0]["sky"] == pytest.approx(7.5, abs=0.2)

    def test_a_second_plane_of_flags_is_a_warning(self, folder: Path) -> None:
        for of in "ab":
            zero = marks(0, 0, "i2")
            write(f"{of}.fits", plane(pixels(of), "SCI", of), plane(zero, "MASK", of), plane(zero, "DQ", of))
        said = "flags or weights that are not used: a.fits[SCI,1]: [MASK,1] (it has [DQ,1] too; see --dq-ext)"
        assert said in run("--dry-run", "a.fits", "b.fits").stderr
        assert "not used" not in run("--dry-run", "--dq-ext", "MASK", "a.fits", "b.fits").stderr

    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
    @pytest.mark.parametrize("name", ["DQ", "MASK", "WHT"])
    @pytest.mark.parametrize("wcs", [False, True])
    def test_planes_without_extver_beside_images_that_have_it(
        self, folder: Path, order: tuple[int, ...], name: str, wcs: bool
    ) -> None:
        for of in "ab":
            hdus = []
            for chip in (1, 2):
                seen, bad = frame(of).but(y=200.0 * chip), np.arange(40) < 8 * chip
                flags = np.tile(bad if name != "WHT" else ~bad, (40, 1)).astype("i2")
                hdus += [fits.ImageHDU(seen.pixels().astype("f4"), seen.hdu_header(), name="SCI", ver=chip)]
                hdus += [fits.ImageHDU(flags, seen.hdu_header() if wcs else None, name=name)]
            write(f"{of}.fits", *(hdus[k] for k in order))
        images = json.loads(run("--dry-run", "--format", "json", "a.fits", "b.fits").stdout)["images"]
        assert [image["n_pixels"] for image in images] == [40 * 32, 40 * 24] * 2

    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2), (0, 2, 1, 3), (1, 3, 0, 2)])
    def test_without_extver_flags_are_those_of_the_image(self, folder: Path, order: tuple[int, ...]) -> None:
        for of in "ab":
            far = frame(of).but(y=200.0)
            hdus = [
                fits.ImageHDU(far.pixels().astype("f4"), far.hdu_header(), name="SCI"),
                plane(np.zeros((40, 40), "i2"), "DQ", of, wcs=False),
                plane(pixels(of, spoiled=of == "a"), "SCI", of),
                plane(marks(int(of == "a"), 0, "i2"), "DQ", of, wcs=False),
            ]
            for hdu in hdus:
                hdu.header.remove("EXTVER", ignore_missing=True)
            write(f"{of}.fits", *(hdus[k] for k in order))
        found = json.loads(run("--dry-run", "--format", "json", "a.fits", "b.fits").stdout)
        overlap = next(o for o in found["overlaps"] if (o["a"], o["b"]) == (1, 3))
        assert len(found["images"]) == 4
        assert overlap["sky_b"] - overlap["sky_a"] == pytest.approx(7.5, abs=0.3)


class TestFilesOfTheList:
    @pytest.mark.parametrize(
        ("image", "weight"),
        [
            ("{}.fits", "{}.weight.fits"),
            ("{}.fits", "{}.wht.fits"),
            ("{}.fits", "weight_{}.fits"),
            ("{}.fits", "{}.ivar.fits"),
            ("c4d_{}_ooi_g_v1.fits", "c4d_{}_oow_g_v1.fits"),
            ("{}-w1-int-3.fits", "{}-w1-cov-3.fits"),
            ("{}_drz_sci.fits", "{}_drz_wht.fits"),
            ("stk.{}.unconv.fits", "stk.{}.unconv.expwt.fits"),  # Pan-STARRS
            ("I1_{}_maic.fits", "I1_{}_mcov.fits"),  # Spitzer
            ("ztf_{}_refimg.fits", "ztf_{}_refcov.fits"),
            ("KiDS_{}_r_sci.fits", "KiDS_{}_r_wei.fits"),
            ("image_{}.fits", "expo_map_{}.fits"),  # of XMM
            ("{}_1OFC.sub.fits", "{}_1OFC.weight.fits"),  # of THELI
        ],
    )
    def test_weights_are_used_and_are_no_images(self, folder: Path, image: str, weight: str) -> None:
        for of in "ab":
            single(image.format(of), pixels(of, spoiled=of == "a"), of)
            single(weight.format(of), marks(0 if of == "a" else 1, 1), of)
        names = sorted(path.name for path in folder.iterdir())
        assert_matched(skies(*names), f"{image.format('a')}[0]", f"{image.format('b')}[0]")
        said = run("-v", "--dry-run", *names).stderr
        assert f"{weight.format('a')}: not an image: by its name weights of {image.format('a')}" in said

    @pytest.mark.parametrize(
        ("image", "flags"),
        [("{}_ooi_r.fits", "{}_ood_r.fits"), ("{}_sciimg.fits", "{}_mskimg.fits"), ("{}_cbcd.fits", "{}_bimsk.fits")],
    )
    def test_flags_are_used_and_are_no_images(self, folder: Path, image: str, flags: str) -> None:
        for of in "ab":
            single(image.format(of), pixels(of, spoiled=of == "a"), of)
            single(flags.format(of), marks(int(of == "a"), 0, "i2"), of)
        names = sorted(path.name for path in folder.iterdir())
        assert_matched(skies(*names), f"{image.format('a')}[0]", f"{image.format('b')}[0]")

    @pytest.mark.parametrize("other", ["{}.mask.fits", "{}-rms.fits", "{}_good.fits", "{}_segm.fits", "{}.num.fits"])
    def test_masks_and_errors_are_left_out_and_not_written(self, folder: Path, other: str) -> None:
        for of in "ab":
            single(f"{of}.fits", pixels(of), of)
            single(other.format(of), marks(1, 0), of)
        before = (folder / other.format("a")).read_bytes()
        names = sorted(path.name for path in folder.iterdir())
        assert_matched(skies(*names), "a.fits[0]", "b.fits[0]")
        assert run("--subtract", *names).exit_code == 0
        assert (folder / other.format("a")).read_bytes() == before

    @pytest.mark.parametrize("dither", [1, 2])
    def test_zeros_that_lossy_compression_has_spread_are_no_weights(self, folder: Path, dither: int) -> None:
        for of in "ab":
            single(f"{of}.fits", pixels(of), of)
            weight = np.random.default_rng(1).normal(1, 0.1, (40, 40)).astype("f4") * marks(0, 1)
            how = {"compression_type": "RICE_1", "quantize_level": 4, "quantize_method": dither, "dither_seed": 3}
            packed = fits.CompImageHDU(weight, frame(of).hdu_header(), **how)
            fits.HDUList([fits.PrimaryHDU(), packed]).writeto(f"{of}.weight.fits.fz")
        names = ("a.fits", "b.fits", "a.weight.fits.fz", "b.weight.fits.fz")
        images = json.loads(run("--dry-run", "--format", "json", *names).stdout)["images"]
        assert [image["n_pixels"] for image in images] == [40 * 24] * 2

    def test_what_is_left_out_is_said(self, folder: Path) -> None:
        for of in "ab":
            single(f"{of}.fits", pixels(of), of)
            single(f"{of}.weight.fits", marks(1, 1), of)
        done = run("--dry-run", "a.fits", "b.fits", "a.weight.fits", "b.weight.fits")
        assert "left out as weights, flags, masks, errors or results (-v says why): a.weight.fits, b.weight.fits" in (
            done.stderr
        )

    def test_weights_of_no_file_of_the_list_are_a_warning(self, folder: Path) -> None:
        for of in "ab":
            single(f"{of}_new.fits", pixels(of), of)
        single("a_wht.fits", marks(1, 1), "a")
        said = "matched as images, but named as weights, masks or errors (of no file of the list): a_wht.fits"
        assert said in run("--dry-run", "a_new.fits", "b_new.fits", "a_wht.fits").stderr
        assert said not in run("--dry-run", "a_wht.fits").stderr

    @pytest.mark.parametrize(
        ("image", "other", "more", "warned"),
        [
            ("stk.{}.unconv.fits", "stk.{}.unconv.inp.fits", (), True),  # a map that no list of words has
            ("m31_{}_L.fits", "m31_{}_R.fits", (), True),
            ("m31_{}_L.fits", "m31_{}_R.fits", ("--split-by", "FILTER"), False),
            ("{}_night1.fits", "{}_night2.fits", (), False),
        ],
    )
    def test_files_that_come_in_kinds_are_a_warning(
        self, folder: Path, image: str, other: str, more: tuple[str, ...], warned: bool
    ) -> None:
        for of in "ab":
            for name, sky in ((image, 0), (other, 3)):
                fits.writeto(name.format(of), pixels(of) + sky, frame(of).hdu_header())
                fits.setval(name.format(of), "FILTER", value=name)
        done = run("--dry-run", "--allow", "filters", *more, *sorted(path.name for path in folder.iterdir()))
        said = "files of 2 kinds, by their names, are matched as images in each of 2 places"
        assert (said in done.stderr) == warned

    def test_chips_of_two_files_are_not_kinds_of_files(self, folder: Path) -> None:
        for name in ("first.fits", "second.fits"):
            write(name, *(plane(pixels(of), "SCI", of) for of in "ab"))
        assert "of 2 kinds" not in run("--dry-run", "first.fits", "second.fits").stderr

    def test_flags_that_are_not_integers_are_refused(self, folder: Path) -> None:
        for of in "ab":
            write(f"{of}.fits", plane(pixels(of), "IMAGE", of), plane(marks(1, 0), "MASK", of))
            single(f"{of}1.fits", pixels(of), of)
            single(f"{of}1_bpm.fits", marks(1, 0), of)
        for names in (["a.fits", "b.fits"], ["a1.fits", "b1.fits", "a1_bpm.fits", "b1_bpm.fits"]):
            done = run("--dry-run", *names)
            assert done.exit_code == 3
            assert "are not integers (see --dq-ext, or give --dqbits none)" in done.stderr
            assert run("--dry-run", "--dqbits", "none", *names).exit_code == 0

    def test_a_selector_makes_it_an_image(self, folder: Path) -> None:
        for of in "ab":
            single(f"{of}.fits", pixels(of), of)
        single("b.exp.fits", pixels("b"), "b")
        assert list(skies("a.fits", "b.fits", "b.exp.fits[0]")) == ["a.fits[0]", "b.fits[0]", "b.exp.fits[0]"]

    def test_a_weight_of_another_shape_is_not_used(self, folder: Path) -> None:
        for of in "ab":
            single(f"{of}.fits", pixels(of), of)
        fits.PrimaryHDU(np.ones((3, 3), "f4")).writeto("a.weight.fits")
        assert_matched(skies("a.fits", "a.weight.fits", "b.fits"), "a.fits[0]", "b.fits[0]")
        said = run("--dry-run", "a.fits", "a.weight.fits", "b.fits").stderr
        assert (
            "that are not used: a.fits: its weight file a.weight.fits is 3 × 3 pixels, the image 40 × 40 [flags]"
            in said
        )

    def test_results_of_this_program_are_left_out(self, folder: Path) -> None:
        for of in "ab":
            single(f"{of}.fits", pixels(of), of)
        assert run("--dry-run", "-o", "solution.fits", "a.fits", "b.fits").exit_code == 0
        assert_matched(skies("a.fits", "b.fits", "solution.fits"), "a.fits[0]", "b.fits[0]")
        assert "solution.fits: not an image: a result of this program" in run("-v", "--dry-run", "*.fits").stderr


class TestTemplates:
    @pytest.mark.parametrize(
        ("planes", "n_good"),
        [
            ((("N4", "N4"),), [1600, 1280]),  # the file of flags lacks the first chip
            ((("S29", "S29"),), [960, 1600]),
            ((("DQ", "N4"), ("DQ", "S29")), [960, 1280]),  # by their WCS
            ((("N4", "N4"), ("S29", "S29")), [960, 1280]),
        ],
    )
    @pytest.mark.parametrize("template", [False, True])
    def test_flags_are_those_of_the_chip(
        self, folder: Path, planes: tuple[tuple[str, str], ...], n_good: list[int], template: bool
    ) -> None:
        places = {"S29": 0.0, "N4": 200.0}
        for of in "ab":
            seen = {chip: frame(of).but(y=y) for chip, y in places.items()}
            headers = {chip: made.hdu_header() for chip, made in seen.items()}
            write(f"{of}_ooi.fits", *(fits.ImageHDU(seen[c].pixels(), headers[c], name=c) for c in places))
            flags = {chip: np.zeros((40, 40), "i2") for chip in places}
            flags["S29"][:, :16] = flags["N4"][:, :8] = 1
            hdus = [fits.ImageHDU(flags[chip], headers[chip], name=name) for name, chip in planes]
            write(f"{of}_ood.fits", *hdus)
        if template:
            args = ["--dq-ext", "{stem:ooi=ood}.fits", "a_ooi.fits", "b_ooi.fits"]
        else:
            args = ["a_ooi.fits", "b_ooi.fits", "a_ood.fits", "b_ood.fits"]
        done = run("--dry-run", "--format", "json", *args)
        if template and len(planes) == 1:
            assert done.exit_code == 3
            assert "its DQ file a_ood.fits holds no plane of it, but of other images" in done.stderr
        else:
            assert [image["n_pixels"] for image in json.loads(done.stdout)["images"]] == n_good * 2
            said = "holds no plane of it, but of other images; and of 1 more [flags]"
            assert (said in done.stderr) == (len(planes) == 1)

    def test_a_part_of_the_name_is_replaced(self, folder: Path) -> None:
        for of in "ab":
            single(f"{of}_x1_r.fits", pixels(of, spoiled=of == "a"), of)
            single(f"{of}_x2_r.fits", marks(int(of == "a"), 0, "i2"), of)
            single(f"{of}_x3_r.fits", marks(int(of != "a"), 1), of)
        names = ("a_x1_r.fits", "b_x1_r.fits")
        labels = ("a_x1_r.fits[0]", "b_x1_r.fits[0]")
        assert_matched(skies("--dq-ext", "{stem:x1=x2}.fits", *names), *labels)
        assert_matched(skies("--weight", "{dir}/{stem:x1=x3}.fits", *names), *labels)
        assert_matched(skies("--mask", "{stem:x1=x3}.fits[{hdu}]", *names), *labels)

    def test_what_is_replaced_must_be_there(self, folder: Path) -> None:
        single("a.fits", pixels("a"), "a")
        done = run("--dry-run", "--dq-ext", "{stem:ooi=ood}.fits", "a.fits")
        assert done.exit_code == 3
        assert "a.fits: --dq-ext {stem:ooi=ood}.fits: the name 'a' does not hold 'ooi'" in done.stderr

    @pytest.mark.parametrize("template", ["{stem:ooi}.fits", "{path}.fits", "{stem:=x}.fits"])
    def test_bad_templates(self, template: str) -> None:
        assert run("--dry-run", "--mask", template, "a.fits").exit_code == 2

    def test_masks_of_chips_without_names_are_those_in_the_same_place(self, folder: Path) -> None:
        for of in "ab":
            far = frame(of).but(y=200.0)
            other = fits.ImageHDU(far.pixels().astype("f4"), far.hdu_header())
            write(f"{of}.fits", plane(pixels(of, spoiled=of == "a"), "", of), other)
            good = plane(marks(0 if of == "a" else 1, 1), "", of)
            write(f"{of}_good.fits", good, plane(marks(1, 1), "", of))
        done = run(
            "--dry-run", "--format", "json", "--compare", "pooled", "--mask", "{stem}_good.fits", "a.fits", "b.fits"
        )
        found = json.loads(done.stdout)
        overlaps = {(o["a"], o["b"]): o for o in found["overlaps"]}
        assert overlaps[0, 2]["sky_b"] - overlaps[0, 2]["sky_a"] == pytest.approx(7.5, abs=0.3)
        assert overlaps[1, 3]["n_a"] == overlaps[1, 3]["n_b"] == 1200
