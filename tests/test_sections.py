"""Sections of an image, ``a.fits[SCI,1][1:20,*]``: matched apart, and written back into the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner, Result

from skymatch_cli.cli import main
from skymatch_cli.model import Section

from .factories import Frame
from .gwcsfiles import gwcs_of, roman_file
from .valid import assert_valid

STEPS = {"a": (0.0, 5.0), "b": (7.5, 11.0)}  # of the left and the right amplifier
FRAMES = {"a": Frame(noise=1.0, seed=1), "b": Frame(x=12.0, y=3.0, noise=1.0, seed=2)}
LEFT, RIGHT = "[1:20,*]", "[21:40,*]"
NAMES = tuple(f"{name}.fits[SCI,1]{section}" for section in (LEFT, RIGHT) for name in "ab")
TRUE = {("a", 0): 0.0, ("b", 0): 7.5, ("a", 20): 5.0, ("b", 20): 11.0}


def amplifiers(name: str) -> np.ndarray:
    data = FRAMES[name].pixels()
    data[:, :20] += STEPS[name][0]
    data[:, 20:] += STEPS[name][1]
    return data


def write_pair(dtype: str = "f4", suffix: str = ".fits", **cards: Any) -> None:
    for name, frame in FRAMES.items():
        data = amplifiers(name)
        data = np.rint(10 * data).astype(dtype) if np.dtype(dtype).kind in "iu" else data.astype(dtype)
        primary = fits.PrimaryHDU()
        primary.header.update(cards)
        kind = fits.CompImageHDU if suffix == ".fits.fz" else fits.ImageHDU
        hdu = kind(data, frame.hdu_header(), name="SCI")
        fits.HDUList([primary, hdu, fits.ImageHDU(np.ones((3, 3)), name="OTHER")]).writeto(f"{name}{suffix}")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, *args: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [command, *args])
    assert done.exit_code == code, done.stderr
    return done


def found(*args: str) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads(run("match", "--format", "json", *args).stdout)["images"]
    return images


def pixels(file: str, hdu: int = 1) -> np.ndarray:
    with fits.open(file) as hdus:
        return np.array(hdus[hdu].data)


def sides(file: str) -> tuple[float, float]:
    data = pixels(file)
    return float(np.median(data[:, :20])), float(np.median(data[:, 20:]))


def content(*files: str) -> list[bytes]:
    return [Path(file).read_bytes() for file in files]


def test_each_section_has_its_own_sky() -> None:
    write_pair()
    images = found("--dry-run", *NAMES)
    assert [i["section"] for i in images] == ["[1:20,1:40]"] * 2 + ["[21:40,1:40]"] * 2
    assert len({i["group"] for i in images}) == 4
    first = images[0]["sky"]
    for image, true in zip(images, TRUE.values(), strict=True):
        assert image["sky"] - first == pytest.approx(true, abs=4 * image["sky_err"])


def test_globs_lists_and_pooled_overlaps() -> None:
    write_pair()
    Path("list.txt").write_text("\n".join(NAMES))
    by_list = found("--dry-run", "--compare", "pooled", "@list.txt")
    by_glob = found("--dry-run", "--compare", "pooled", f"?.fits[SCI]{LEFT}", f"?.fits[SCI]{RIGHT}")
    assert [(i["file"], i["section"], i["sky"]) for i in by_list] == [
        (i["file"], i["section"], i["sky"]) for i in by_glob
    ]
    assert by_list[1]["sky"] - by_list[0]["sky"] == pytest.approx(7.5, abs=0.5)


def test_the_pixels_are_those_of_an_image_cut_out() -> None:
    write_pair()
    for name, frame in FRAMES.items():
        header = frame.hdu_header()
        header["CRPIX2"] -= 5
        fits.PrimaryHDU(amplifiers(name)[5:, :20].astype("f4"), header).writeto(f"cut_{name}.fits")
    cut = found("--dry-run", "cut_a.fits", "cut_b.fits")
    sections = found("--dry-run", "a.fits[SCI,1][1:20,6:40]", "b.fits[SCI,1][1:20,6:40]")
    assert [i["sky"] for i in sections] == pytest.approx([i["sky"] for i in cut], abs=1e-6)
    assert [i["n_pixels"] for i in sections] == [i["n_pixels"] for i in cut] == [700, 700]


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("f4", ".fits"), ("f8", ".fits"), ("i2", ".fits"), ("u2", ".fits"), ("i2", ".fits.fz")]
)
def test_subtracted_and_undone(dtype: str, suffix: str) -> None:
    write_pair(dtype, suffix)
    files = [f"{name}{suffix}" for name in "ab"]
    names = [f"{file}[SCI,1]{section}" for section in (LEFT, RIGHT) for file in files]
    before, raw = [pixels(file) for file in files], content(*files)
    run("match", "--subtract", *names)
    scale = 10 if np.dtype(dtype).kind in "iu" else 1
    levels = [level / scale for file in files for level in sides(file)]
    assert levels == pytest.approx([levels[0]] * 4, abs=0.4)
    for file in files:
        assert_valid(Path(file))
    done = content(*files)
    run("match", "--subtract", *names)
    assert content(*files) == done  # a second run changes nothing
    run("undo", *files)
    for file, data in zip(files, before, strict=True):
        assert pixels(file).dtype == data.dtype
        np.testing.assert_array_max_ulp(pixels(file), data, 1) if scale == 1 else np.testing.assert_array_equal(
            pixels(file), data
        )
    if suffix == ".fits" and scale == 10:
        assert content(*files) == raw


def test_what_is_recorded_and_what_stays() -> None:
    write_pair()
    before, raw = pixels("b.fits"), content("a.fits", "b.fits")
    skies = [i["sky"] for i in found(*NAMES)]
    header = fits.getheader("b.fits", 1)
    assert [header[f"BKGSEC{n}"] for n in (1, 2)] == ["[1:20,1:40]", "[21:40,1:40]"]
    assert [header[f"BKGLEV{n}"] for n in (1, 2)] == [skies[1], skies[3]]
    assert header["BKGSUB"] is False
    assert "BKGLEVEL" not in header
    np.testing.assert_array_equal(pixels("b.fits"), before)
    run("undo", *NAMES)
    assert content("a.fits", "b.fits") == raw


def test_pixels_outside_of_the_sections_stay() -> None:
    write_pair()
    before = pixels("b.fits")
    run("match", "--subtract", "a.fits[SCI,1][1:20,5:30]", "b.fits[SCI,1][1:20,5:30]")
    after = pixels("b.fits")
    changed = after != before
    assert changed[4:30, :20].all()
    changed[4:30, :20] = False
    assert not changed.any()


def test_sections_of_another_run_stay_subtracted() -> None:
    write_pair()
    before = pixels("b.fits")
    run("match", "--subtract", *NAMES)
    header, after = fits.getheader("b.fits", 1), pixels("b.fits")
    run("match", "--subtract", "--match-up", *NAMES[:2])
    again = fits.getheader("b.fits", 1)
    assert again["BKGLEV1"] == 0 != header["BKGLEV1"]
    assert [again[key] for key in ("BKGSEC2", "BKGLEV2", "BKGERR2")] == [
        header[key] for key in ("BKGSEC2", "BKGLEV2", "BKGERR2")
    ]
    np.testing.assert_array_equal(pixels("b.fits")[:, 20:], after[:, 20:])
    np.testing.assert_array_max_ulp(pixels("b.fits")[:, :20], before[:, :20], 1)


def test_tilted_skies_of_sections_come_back() -> None:
    write_pair()
    before = pixels("b.fits")
    run("match", "--subtract", "--model", "plane", *NAMES)
    done = content("a.fits", "b.fits")
    assert "BKGDX1" in fits.getheader("b.fits", 1) or "BKGDX2" in fits.getheader("b.fits", 1)
    run("match", "--subtract", "--model", "plane", *NAMES)
    assert content("a.fits", "b.fits") == done
    run("undo", "a.fits", "b.fits")
    np.testing.assert_array_max_ulp(pixels("b.fits"), before, 1)


def test_the_same_in_steps_with_a_store_and_in_copies() -> None:
    write_pair()
    raw = content("a.fits", "b.fits")
    skies = [i["sky"] for i in found("--dry-run", *NAMES)]
    run("plan", "--store", "field.db", *NAMES)
    run("measure", "field.db")
    run("solve", "field.db", "-o", "solution.fits")
    with fits.open("solution.fits") as hdus:
        assert list(hdus["IMAGES"].data["sky"]) == skies
        assert [s.strip() for s in hdus["IMAGES"].data["section"]] == ["[1:20,1:40]"] * 2 + ["[21:40,1:40]"] * 2
    run("apply", "--subtract", "--output-dir", "copies", "solution.fits")
    assert content("a.fits", "b.fits") == raw
    run("match", "--subtract", *NAMES)
    np.testing.assert_array_equal(pixels("copies/b.fits"), pixels("b.fits"))


@pytest.mark.parametrize("suffix", [".fits", ".json"])
def test_a_stored_result_is_reported_and_not_exported(suffix: str) -> None:
    write_pair()
    run("match", "--dry-run", "-o", f"result{suffix}", *NAMES)
    run("report", f"result{suffix}", "-o", "report.html")
    assert "a.fits[SCI,1][1:20,1:40]" in Path("report.html").read_text(encoding="utf-8")
    assert "is a section of an image" in run("export", "--to", "swarp", f"result{suffix}", code=3).stderr


def test_skies_of_a_list_and_the_reference() -> None:
    write_pair()
    Path("skies.txt").write_text(f"a.fits 1\nb.fits[SCI,1] 2\n{NAMES[3]} 3\n")
    images = found("--dry-run", "--method", "user", "--skylist", "skies.txt", *NAMES)
    assert [i["sky"] for i in images] == [1, 2, 1, 3]
    held = found("--dry-run", "--reference", NAMES[3], *NAMES)
    assert held[3]["sky"] == 0
    Path("c.fits").write_bytes(Path("a.fits").read_bytes())
    outside = found("--dry-run", "--reference", f"c.fits[SCI,1]{LEFT}", *NAMES[:2])
    assert [(i["file"], i["section"]) for i in outside][2:] == [("c.fits", "[1:20,1:40]")]
    assert outside[2]["sky"] == 0


def test_flags_and_masks_are_those_of_the_section() -> None:
    write_pair()
    flags = np.zeros((40, 40), "u2")
    flags[:7, 20:] = 1
    for name in "ab":
        fits.append(f"{name}.fits", flags, fits.Header({"EXTNAME": "DQ"}))
    images = found("--dry-run", *NAMES)
    assert [i["n_pixels"] for i in images] == [800, 800, 660, 660]


def test_regions_in_image_coordinates_count_from_the_whole_image() -> None:
    pytest.importorskip("regions")
    write_pair()
    Path("bad.reg").write_text("image\nbox(30.5,20.5,4,40,0)\n")
    images = found("--dry-run", "--mask", "bad.reg", *NAMES)
    assert [i["n_pixels"] for i in images] == [800, 800, 640, 640]


def test_jwst_keeps_the_skies_of_sections_with_the_image() -> None:
    write_pair(TELESCOP="JWST")
    raw = content("a.fits", "b.fits")
    run("match", "--dqbits", "none", *NAMES)
    assert "BKGSUB" not in fits.getheader("a.fits", 0)
    assert "BKGLEV2" in fits.getheader("a.fits", 1)
    run("undo", "a.fits", "b.fits")
    assert content("a.fits", "b.fits") == raw


def test_a_sky_of_the_whole_and_skies_of_sections_exclude_one_another() -> None:
    write_pair()
    run("match", "--subtract", "a.fits", "b.fits")
    assert "its header holds a sky of the whole image" in run("match", *NAMES, code=3).stderr
    assert "a sky of the whole image" in run("undo", NAMES[0], code=3).stderr
    run("undo", "a.fits", "b.fits")
    run("match", "--subtract", *NAMES)
    refused = run("match", "--dry-run", "a.fits", "b.fits", code=3).stderr
    assert "the skies of its sections [1:20,1:40], [21:40,1:40] are subtracted" in refused
    shifted = run("match", "--dry-run", "a.fits[SCI,1][1:25,*]", "b.fits[SCI,1][1:20,*]", code=3).stderr
    assert "[1:20,1:40], which shares pixels with this one" in shifted
    assert "already" in run("match", *NAMES, code=3).stderr


def test_some_sections_are_not_undone_without_the_others() -> None:
    write_pair()
    run("match", *NAMES)
    before = content("a.fits", "b.fits")
    assert "holds skies of [21:40,1:40] too" in run("undo", NAMES[0], code=3).stderr
    assert content("a.fits", "b.fits") == before
    unnamed = run("match", "--subtract", NAMES[0], NAMES[1], code=3).stderr
    assert "the skies of its sections [21:40,1:40] are not subtracted" in unnamed
    assert content("a.fits", "b.fits") == before


def test_edited_keywords_are_refused_and_lost_undo_cards_restored_by_them() -> None:
    write_pair()
    before = pixels("b.fits")
    run("match", "--subtract", *NAMES)
    with fits.open("a.fits", mode="update") as hdus:
        hdus[1].header["BKGLEV2"] = 3.0
    assert "BKGLEV2 = 3.0, but the undo cards say" in run("match", "--dry-run", *NAMES, code=3).stderr
    with fits.open("b.fits", mode="update") as hdus:
        del hdus[1].header["HISTORY"]
    assert "its undo cards are gone" in run("match", "--dry-run", *NAMES[1::2], code=3).stderr
    run("undo", "--from-keyword", "b.fits")
    np.testing.assert_allclose(pixels("b.fits"), before, atol=1e-4)
    assert not [key for key in fits.getheader("b.fits", 1) if key.startswith("BKG")]


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ("[-*,*]", "turns an axis round"),
        ("[1:20:2,*]", "takes every n-th pixel"),
        ("[20:1,*]", "not first:last"),
        ("[0:20,*]", "not first:last"),
        ("[1:20]", "is not two ranges"),
        ("[1:20,*,2]", "goes beyond the last plane"),
        ("[1:20,*,1:2]", "is not one plane of a cube"),
        ("[1:41,*]", "goes beyond the 40 columns"),
        ("[*,2:99]", "goes beyond the 40 rows"),
    ],
)
def test_what_is_no_section_is_refused_by_reason(section: str, reason: str) -> None:
    write_pair()
    assert reason in run("match", "--dry-run", f"a.fits[SCI,1]{section}", NAMES[1], code=3).stderr


def test_sections_that_share_pixels_are_refused() -> None:
    write_pair()
    shared = run("match", "--dry-run", *NAMES, "a.fits[SCI,1][20:25,3:4]", code=3).stderr
    assert "shares pixels with the section [20:25,3:4], which is named too: a pixel can have only one sky" in shared
    assert "shares pixels with all of the image" in run("match", "--dry-run", *NAMES, "a.fits", code=3).stderr
    assert "used once" in run("match", "--dry-run", "-v", *NAMES, "a.fits[1][1:20,1:40]").stderr


def test_all_of_an_image_is_no_section() -> None:
    write_pair()
    assert "section" not in found("--dry-run", "a.fits[*,*]", "b.fits[SCI,1][1:40,1:40]")[0]


def test_a_plane_of_a_cube_is_a_section_too() -> None:
    for name, frame in FRAMES.items():
        planes = [frame.but(sky=sky, seed=frame.seed + 10 * sky).pixels() for sky in (3, 4 + 2 * (name == "b"))]
        header = frame.hdu_header()
        header.update(CTYPE3="FILTER", CRVAL3=1.0, CDELT3=1.0, CRPIX3=1.0)
        fits.PrimaryHDU(np.array(planes, "f4"), header).writeto(f"{name}.fits")
    second = found("--dry-run", "a.fits[*,*,2]", "b.fits[1:20,*,2]")
    assert [(i["plane"], i["section"]) for i in second] == [(2, ""), (2, "[1:20,1:40]")]
    assert second[1]["sky"] - second[0]["sky"] == pytest.approx(2, abs=0.3)


def test_other_keywords_and_roman_files_hold_one_sky(tmp_path: Path) -> None:
    write_pair()
    assert "one keyword can't hold" in run("match", "--sky-keyword", "MDRIZSKY", *NAMES, code=3).stderr
    pytest.importorskip("gwcs")
    pytest.importorskip("asdf")
    names = [f"{roman_file(tmp_path / f'{n}.asdf', f, gwcs_of(f))}[1:20,*]" for n, f in FRAMES.items()]
    assert "can hold one sky" in run("match", *names, code=3).stderr
    assert len(found("--dry-run", *names)) == 2


def test_the_end_names_the_keywords_that_were_written() -> None:
    write_pair()
    assert "recorded BKGLEVn in 4 images" in run("match", *NAMES).stderr
    assert fits.getval("b.fits", "BKGLEV1", ext=1) == pytest.approx(7.5, abs=0.5)
    for name, frame in FRAMES.items():
        fits.PrimaryHDU(np.array([frame.pixels()] * 2, "f4"), frame.hdu_header()).writeto(f"{name}_cube.fits")
    assert "recorded BKGLn in 4 images" in run("match", "a_cube.fits", "b_cube.fits").stderr
    assert "BKGL2" in fits.getheader("b_cube.fits")


def test_sections_share_pixels_or_not() -> None:
    left, right = Section.of("1:20,*", (40, 40)), Section.of("21:40,*", (40, 40))
    assert not left.overlaps(right)
    assert left.overlaps(Section.of("20:21,7:7", (40, 40)))
    assert (left.shape, left.is_whole, Section.of("*,*", (40, 40)).is_whole) == ((40, 20), False, True)
