"""Never a lost pixel: what other programs, other users and mistakes do between two runs, through the command line."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner, Result

import skymatch_cli
from skymatch_cli.cli import main
from skymatch_cli.errors import without_secrets
from skymatch_cli.images.formats import fitsfile
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.record import disk

from .crash.fileset import contents
from .factories import Frame

NOISE = 3.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def header(k: int = 0, n: int = 48) -> fits.Header:
    head = fits.Header()
    head.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=20.0, CRPIX2=(n + 1) / 2)
    head.update(CRPIX1=(n + 1) / 2 + 12 * k, CDELT1=-1 / 3600, CDELT2=1 / 3600, BUNIT="adu")
    return head


def image(name: str, k: int = 0, *, sky: float | None = None, dtype: str = "f4", **cards: Any) -> np.ndarray:
    data = np.random.default_rng(k).normal(100 + 20 * k if sky is None else sky, NOISE, (48, 48))
    data = np.rint(data).astype(dtype) if np.dtype(dtype).kind in "iu" else data.astype(dtype)
    hdu = fits.PrimaryHDU(data, header(k))
    hdu.header.update(cards)
    Path(name).parent.mkdir(exist_ok=True)
    hdu.writeto(name, overwrite=True)
    return data


def pair(names: str = "ab", **options: Any) -> dict[str, np.ndarray]:
    return {f"{name}.fits": image(f"{name}.fits", k, **options) for k, name in enumerate(names)}


def run(*args: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [*args])
    assert done.exit_code == code, (done.exit_code, done.stderr, done.exception)
    return done


def pixels(name: str, hdu: int = 0) -> np.ndarray:
    return np.array(fits.getdata(name, hdu))


def edited(name: str, change: Any) -> None:
    """Another program opens a file, changes it, and saves it with its header."""
    with fits.open(name, mode="update") as hdus:
        change(hdus[0])


# --- skies far larger than the pixels


def test_a_sky_that_would_absorb_the_pixels_is_refused_before_anything_is_written() -> None:
    image("a.fits")
    Path("s.txt").write_text("a.fits 1.0e12\n")
    before = contents(Path())
    done = run("match", "--method", "user", "--skylist", "s.txt", "--subtract", "a.fits", code=3)
    assert "a.fits: a sky of 1e+12 is impossible where the largest pixel is 109.2" in done.stderr
    assert contents(Path()) == before


@pytest.mark.parametrize("value", [1e12, -1e30, np.inf, np.nan])
def test_one_pixel_of_any_value_hides_no_impossible_sky(value: float) -> None:
    image("a.fits")
    edited("a.fits", lambda hdu: hdu.data.__setitem__((5, 5), value))
    Path("s.txt").write_text("a.fits 1.0e9\n")
    done = run("match", "--method", "user", "--skylist", "s.txt", "--subtract", "a.fits", code=3)
    assert "a.fits: a sky of 1e+09 is impossible where the largest pixel is 109.2" in done.stderr


def test_images_in_other_units_are_refused_by_name() -> None:
    fits.PrimaryHDU((image("adu.fits", 1) * 1e-17).astype("f4"), header(0)).writeto("cgs.fits")
    before = contents(Path())
    done = run("match", "--reference", "adu.fits", "--subtract", "cgs.fits", "adu.fits", code=3)
    assert "cgs.fits: a sky of 120" in done.stderr
    assert contents(Path()) == before


@pytest.mark.parametrize("options", [["--match-up"], ["--method", "globalmin+match", "--compare", "pooled"]])
def test_one_broken_image_does_not_ruin_the_others(options: list[str]) -> None:
    pair("abc")
    edited("c.fits", lambda hdu: setattr(hdu, "data", hdu.data * np.float32(1e12)))
    before = contents(Path())
    done = run("match", *options, "--subtract", "a.fits", "b.fits", "c.fits", code=3)
    assert "a.fits: a sky of" in done.stderr
    assert contents(Path()) == before


@pytest.mark.parametrize("subtract", [["--subtract"], []])
@pytest.mark.parametrize("method", ["match", "globalmin+match"])
def test_skies_that_one_broken_image_made_uncertain_are_refused_by_name(method: str, subtract: list[str]) -> None:
    pair("abc")
    edited("c.fits", lambda hdu: setattr(hdu, "data", hdu.data * np.float32(1e12)))
    before = contents(Path())
    done = run("match", "--method", method, "--compare", "mesh", *subtract, "a.fits", "b.fits", "c.fits", code=3)
    assert "a.fits: its sky is uncertain by" in done.stderr
    assert "and its largest pixel is 109.2: an image in the list is broken" in done.stderr
    if "b.fits: its sky is uncertain by" not in done.stderr:  # the darkest of all: its sky is its own
        assert method == "globalmin+match"
        (own,) = skymatch_cli.match(["b.fits"], method="localmin", dry_run=True).images
        found = skymatch_cli.match(["a.fits", "b.fits", "c.fits"], method=method, dry_run=True).images[1]
        assert found["sky"].value == pytest.approx(own["sky"].value, abs=1)
        assert found["sky_err"].value < 1
    assert contents(Path()) == before


@pytest.mark.parametrize(("sky", "bitpix"), [(99.0, -32), (7000.0, -32), (-7000.0, -32)])
def test_floats_stay_32_bits_where_those_keep_the_noise(sky: float, bitpix: int) -> None:
    original = image("a.fits")
    subtracted(sky)
    assert fits.getheader("a.fits")["BITPIX"] == bitpix
    run("undo", "a.fits")
    assert np.abs(pixels("a.fits").astype("f8") - original).max() <= NOISE / 1000


def test_floats_become_64_bits_where_32_would_lose_a_thousandth_of_the_noise() -> None:
    original = np.full((48, 48), 0.0, "f4") + np.random.default_rng(1).normal(0, 1e-5, (48, 48)).astype("f4")
    original[:2, :2] = 10.0  # a star: the sky is not out of range
    fits.PrimaryHDU(original, header()).writeto("a.fits")
    subtracted(500.0)  # one unit in the last place of 500 is 3e-5
    assert fits.getheader("a.fits")["BITPIX"] == -64
    assert "float32 became float64" in str(fits.getheader("a.fits")["HISTORY"])
    run("undo", "a.fits")
    assert pixels("a.fits").dtype == ">f4"
    assert np.abs(pixels("a.fits").astype("f8") - original).max() <= 1e-5 / 1000


def test_64_bits_that_would_lose_a_thousandth_of_the_noise_are_refused() -> None:
    original = np.random.default_rng(1).normal(0, 1e-14, (48, 48))
    original[:2, :2] = 10.0
    fits.PrimaryHDU(original, header()).writeto("a.fits")
    before = Path("a.fits").read_bytes()
    Path("s.txt").write_text("a.fits 500\n")
    done = run("match", "--method", "user", "--skylist", "s.txt", "--subtract", "a.fits", code=3)
    assert "could not be restored to within a thousandth of their noise" in done.stderr
    assert Path("a.fits").read_bytes() == before


def subtracted(sky: float, name: str = "a.fits") -> None:
    Path("s.txt").write_text(f"{name} {sky!r}\n")
    run("match", "--method", "user", "--skylist", "s.txt", "--subtract", name)


def test_what_many_skies_lose_together_stays_below_a_thousandth_of_the_noise() -> None:
    original = image("a.fits")
    for sky in np.random.default_rng(2).uniform(-9000, 9000, 20):
        subtracted(float(sky))
    run("undo", "a.fits")
    assert np.abs(pixels("a.fits").astype("f8") - original).max() <= NOISE / 1000


# --- other programs edit the cards, the pixels, or the shape


@pytest.mark.parametrize("edit", [{"BKGLEVEL": 7.0}, {"BKGSUB": False}])
def test_edited_keywords_of_a_subtracted_image_are_refused_and_undone_by_the_undo_cards(edit: dict[str, Any]) -> None:
    original = pair()
    run("match", "--subtract", *original)
    edited("b.fits", lambda hdu: hdu.header.update(edit))
    before = contents(Path())
    (name,) = edit
    for options in (["--dry-run"], ["--subtract"]):
        done = run("match", *options, *original, code=3)
        assert f"b.fits: {name} = " in done.stderr
        assert "skymatch undo" in done.stderr
    assert contents(Path()) == before
    run("undo", *original)
    np.testing.assert_array_equal(pixels("b.fits"), original["b.fits"])


def test_state_that_is_set_by_hand_is_refused_and_undo_leaves_the_pixels() -> None:
    original = pair()
    run("match", *original)
    edited("b.fits", lambda hdu: hdu.header.update(BKGSUB=True))
    assert "b.fits: BKGSUB = T, but the undo cards say" in run("match", "--dry-run", *original, code=3).stderr
    run("undo", *original)
    np.testing.assert_array_equal(pixels("b.fits"), original["b.fits"])


def test_keyword_that_astrodrizzle_wrote_anew_is_refused() -> None:
    original = pair()
    options = ["--subtract", "--sky-keyword", "MDRIZSKY", *original]
    run("match", *options)
    edited("b.fits", lambda hdu: hdu.header.update(MDRIZSKY=0.013))
    assert "b.fits: MDRIZSKY = 0.013, but skymatch subtracted 20.1" in run("match", *options, code=3).stderr
    run("undo", *original)
    np.testing.assert_array_equal(pixels("b.fits"), original["b.fits"])


CHANGES = {
    "scaled": (lambda hdu: setattr(hdu, "data", hdu.data * 4), "its pixels are not those that skymatch wrote"),
    "one pixel": (lambda hdu: hdu.data.__setitem__((3, 4), 0), "its pixels are not those that skymatch wrote"),
    "flipped": (lambda hdu: setattr(hdu, "data", hdu.data[:, ::-1].copy()), "not those that skymatch wrote"),
    "cropped": (lambda hdu: setattr(hdu, "data", hdu.data[5:, 8:].copy()), "has 40x43 pixels, had 48x48"),
    "widened": (
        lambda hdu: setattr(hdu, "data", hdu.data.astype("f8")),
        "its pixels are float64, skymatch wrote float32",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_pixels_that_another_program_changed_are_neither_undone_nor_subtracted_from(what: str) -> None:
    change, said = CHANGES[what]
    original = pair()
    run("match", "--subtract", *original)
    edited("b.fits", change)
    before = contents(Path())
    for command in (["undo"], ["match", "--subtract", "--nclip", "2"]):
        assert said in run(*command, *original, code=3).stderr
    assert contents(Path()) == before


def test_a_sky_that_another_program_subtracted_after_we_recorded_ours_is_not_forgotten() -> None:
    """A pipeline that keeps the HISTORY, and says in the keywords what it did."""
    original = pair()
    run("match", *original)

    def subtract(hdu: Any) -> None:
        hdu.data -= 20
        hdu.header.update(BKGLEVEL=20.0, BKGSUB=True)

    edited("b.fits", subtract)
    before = Path("b.fits").read_bytes()
    for command in (["undo"], ["match", "--subtract"]):
        assert "b.fits: " in run(*command, *original, code=3).stderr
        assert Path("b.fits").read_bytes() == before
    run("undo", "--from-keyword", *original)
    assert pixels("b.fits") == pytest.approx(original["b.fits"], abs=1e-4)
    for name in original:
        assert not [key for key in fits.getheader(name) if key.startswith(("BKG", "HISTORY"))]


def test_undo_cards_that_are_gone_are_said_and_the_keyword_can_be_added_back() -> None:
    original = pair()
    run("match", "--subtract", *original)
    edited("b.fits", lambda hdu: hdu.header.remove("HISTORY", remove_all=True))
    before = Path("b.fits").read_bytes()
    done = run("undo", "b.fits", code=3)
    assert "b.fits: BKGSUB = T, but it holds no undo cards" in done.stderr
    assert "--from-keyword adds the sky of its header back, 20.1" in done.stderr
    assert Path("b.fits").read_bytes() == before
    run("undo", "--from-keyword", *original)
    assert np.abs(pixels("b.fits") - original["b.fits"]).max() <= np.spacing(np.float32(130))
    assert not [key for key in fits.getheader("b.fits") if key.startswith("BKG")]
    np.testing.assert_array_equal(pixels("a.fits"), original["a.fits"])


@pytest.mark.parametrize(
    "card",
    [
        "- BITPIX",
        "= \xff\xff\xff",
        "5 \xc3\xa9 = 1",
        '* subtracted {"shape":[1],"entries":0}',
        "* subtracted shape=1 entries=0",
        "+ x",
        '* recorded {"sky":[["",NaN]]}',
        "* subtracted " + 40 * "[",
        "?",
    ],
)
def test_damaged_undo_cards_are_one_line_and_other_images_go_on(card: str) -> None:
    pair("abc")
    raw = Path("c.fits").read_bytes()
    end = raw.index(b"END".ljust(80))
    forged = b"HISTORY skymatch-cli undo " + card.encode("latin-1")
    Path("c.fits").write_bytes(raw[:end] + forged.ljust(80) + raw[end : end + 80] + raw[end + 160 :])
    names = ["a.fits", "b.fits", "c.fits"]
    for command in (["plan"], ["match", "--dry-run"], ["undo"]):
        assert "c.fits: its undo cards" in run(*command, *names, code=3).stderr
    assert "skipped: c.fits" in run("match", "--dry-run", "--skip-bad", *names).stderr


# --- a repeat changes nothing, ever


@pytest.mark.parametrize("cards", [{}, {"BSCALE": 0.01, "BZERO": 7.3}, {"BSCALE": 0.1}])
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("method", ["match", "globalmin+match"])
def test_a_second_run_changes_no_byte(dtype: str, cards: dict[str, float], method: str) -> None:
    for k, name in enumerate(("a.fits", "b.fits", "c.fits")):
        image(name, k, dtype=dtype)
        raw = Path(name).read_bytes()
        for key, value in cards.items():  # astropy would scale the pixels
            at = raw.index(b"BUNIT   =")
            raw = raw[:at] + f"{key:8}= {value!r:>20}".encode().ljust(80) + raw[at:]
        head = raw[: raw.index(b"END".ljust(80)) + 80]
        Path(name).write_bytes(head.ljust(2880) + raw[-(len(raw) - 2880 - 80 * len(cards)) :])
        assert fits.getheader(name).get("BSCALE", 1) == cards.get("BSCALE", 1)
    run("match", "--method", method, "--subtract", "a.fits", "b.fits", "c.fits")
    before = contents(Path())
    done = run("match", "--method", method, "--subtract", "a.fits", "b.fits", "c.fits")
    assert contents(Path()) == before
    assert "3 images already as wanted" in done.stderr


# --- checksums


def test_a_wrong_checksum_stays_wrong_and_is_said() -> None:
    pair()
    for name in ("a.fits", "b.fits"):
        with fits.open(name) as hdus:
            hdus.writeto(name, checksum=True, overwrite=True)
    raw = bytearray(Path("a.fits").read_bytes())
    raw[2880 + 4000] ^= 0x40  # bit rot
    Path("a.fits").write_bytes(raw)
    for options in ([], ["--subtract"]):
        before = Path("a.fits").read_bytes()
        done = run("match", *options, "a.fits", "b.fits")
        assert "warning: a.fits: its CHECKSUM or DATASUM was wrong, and stays wrong" in done.stderr
        assert [verified(name) for name in ("a.fits", "b.fits")] == [False, True]
        run("undo", "a.fits", "b.fits")
        assert Path("a.fits").read_bytes() == before
    assert before == raw


def verified(name: str) -> bool:
    with fits.open(name) as hdus:
        return (hdus[0].verify_checksum(), hdus[0].verify_datasum()) == (1, 1)


# --- outputs over inputs


def test_copies_never_replace_masks_flags_lists_or_other_images() -> None:
    for k in range(2):
        image(f"in/f{k}.fits", k)
        for kind in ("masks", "flags"):
            Path(kind).mkdir(exist_ok=True)
            fits.PrimaryHDU(np.full((48, 48), kind == "masks", "u1")).writeto(f"{kind}/f{k}.fits")
    image("out/f0.fits", 1)
    Path("y.fits").symlink_to("out/f0.fits")
    Path("lists").mkdir()
    Path("lists/f0.fits").write_text("../in/f0.fits\n../in/f1.fits\n")
    os.link("masks/f0.fits", "hard.fits")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    names = ["in/f0.fits", "in/f1.fits"]
    cases = [
        ["--mask", "masks/{stem}.fits", "--output-dir", "masks", *names],
        ["--dq-ext", "flags/{stem}.fits[0]", "--output-dir", "flags", *names],
        ["--output-dir", "out", "in/f0.fits", "y.fits"],
        ["--output-dir", "lists", "@lists/f0.fits"],
        ["--output-dir", "in", "y.fits", *names],
    ]
    for case in cases:
        done = run("match", "--overwrite", *case, code=3)
        assert (
            "would replace a file that this run reads" in done.stderr or "the folder of the file itself" in done.stderr
        )
    for option in ("-o", "--log-file", "--report"):
        for target in ("masks/f1.fits", "hard.fits"):
            form = ["--format", "json"] if option == "-o" else []
            options = ["--dry-run", "--mask", "masks/{stem}.fits", "--overwrite"]
            run("match", *options, option, target, *form, *names, code=2)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "options",
    [["--report", "x.json"], ["--log-file", "./x.json"], ["--store", "x.json"]],
)
def test_two_outputs_are_never_the_same_file(options: list[str]) -> None:
    pair()
    done = run("match", "--dry-run", "-o", "x.json", *options, "a.fits", "b.fits", code=2)
    assert f"--output and {options[0]} name the same file" in done.stderr
    assert not Path("x.json").exists() or "{" not in Path("x.json").read_text()


@pytest.mark.parametrize(
    "url",
    [
        "https://host/a.fits?hdnts=exp=1~hmac=SECRET",
        "https://host/a.fits#access_token=SECRET",
        "https://user:p@SECRET@host/a.fits",
        "simplecache::https://user:SECRET@host/a.fits",
        "s3://KEY:SECRET@bucket/a.fits",
        "https://host/a.fits?sv=1&X-Amz-Signature=SECRET",
    ],
)
def test_no_form_of_url_keeps_its_secret(url: str) -> None:
    assert "SECRET" not in without_secrets(url)
    assert "a.fits" in without_secrets(url)


def test_results_and_logs_never_replace_a_list_of_skies_or_names() -> None:
    pair()
    Path("sky.csv").write_text("a.fits 1\nb.fits 2\n")
    Path("names.csv").write_text("@inner.csv\n")
    Path("inner.csv").write_text("a.fits\nb.fits\n")
    before = contents(Path())
    user = ["match", "--dry-run", "--method", "user", "--skylist", "sky.csv", "--overwrite"]
    run(*user, "-o", "sky.csv", "a.fits", "b.fits", code=2)
    run(*user, "--log-file", "sky.csv", "a.fits", "b.fits", code=2)
    for target in ("names.csv", "inner.csv"):
        for option in ("-o", "--log-file"):
            run("match", "--dry-run", "--overwrite", option, target, "@names.csv", code=2)
    assert contents(Path()) == before


# --- owners, groups, links


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_owner_group_mode_and_attributes_of_a_replaced_file_are_kept() -> None:
    pair()
    os.chown("a.fits", 2001, 3000)
    Path("a.fits").chmod(0o660)
    if with_attributes := hasattr(os, "setxattr"):
        try:
            os.setxattr("a.fits", "user.note", b"abc")
        except OSError:
            with_attributes = False
    run("match", "--subtract", "a.fits", "b.fits")
    found = Path("a.fits").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (2001, 3000, 0o660)
    assert not with_attributes or os.getxattr("a.fits", "user.note") == b"abc"


def test_a_file_whose_owner_cannot_be_kept_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    pair()
    before = contents(Path())
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: 54321)
        done = run("match", "a.fits", "b.fits", code=3)
    assert "a.fits, b.fits: belongs to another user" in done.stderr
    assert contents(Path()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_a_copy_is_open_to_nobody_to_whom_its_source_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image("a.fits")
    os.chown("a.fits", 2001, 3000)
    Path("a.fits").chmod(0o640)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    fd = disk.open_new(str(tmp_path / "copy"))
    disk.like(fd, "a.fits")
    os.close(fd)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    fd = disk.open_new(str(tmp_path / "new"))
    with pytest.raises(PermissionError):
        disk.like(fd, "a.fits", exact=True)
    os.close(fd)


def test_hard_links_are_said_and_two_names_of_one_file_are_refused() -> None:
    original = pair()
    os.link("a.fits", "c.fits")
    assert "a.fits: 1 other name of this file (hard links)" in run("match", "a.fits", "b.fits").stderr
    np.testing.assert_array_equal(pixels("c.fits"), original["a.fits"])
    run("undo", "a.fits", "b.fits")
    Path("c.fits").unlink()
    os.link("a.fits", "c.fits")
    before = contents(Path())
    assert "c.fits" in run("undo", "a.fits", "b.fits", "c.fits", code=3).stderr
    assert contents(Path()) == before


# --- undefined pixels of compressed integers


def test_undefined_pixels_of_compressed_integers_stay_undefined() -> None:
    """ZBLANK without BLANK (stacks of Pan-STARRS)."""
    for k, name in enumerate("ab"):
        data = np.rint(np.random.default_rng(k).normal(1000 + 200 * k, 30, (48, 48))).astype("i2")
        data[:, :6] = -32768
        hdu = fits.CompImageHDU(data, header(k), compression_type="RICE_1")
        hdu.header["BLANK"] = -32768
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(f"{name}.fits")
        raw = Path(f"{name}.fits").read_bytes()
        Path(f"{name}.fits").write_bytes(raw.replace(b"BLANK   = ", b"ZBLANK  = "))
    before = [pixels(f"{name}.fits", 1) for name in "ab"]
    assert all(np.isnan(data).sum() == 288 for data in before)
    run("match", "--subtract", "a.fits", "b.fits")
    assert np.isnan(pixels("b.fits", 1)).sum() == 288
    run("undo", "a.fits", "b.fits")
    for name, data in zip("ab", before, strict=True):
        np.testing.assert_array_equal(pixels(f"{name}.fits", 1), data)


# --- apply


def test_apply_refuses_a_file_that_another_program_changed_since_the_sky_was_recorded() -> None:
    original = pair()
    run("match", "-o", "solution.fits", *original)
    edited("b.fits", lambda hdu: setattr(hdu, "data", hdu.data * 10))
    before = contents(Path())
    done = run("apply", "--subtract", "solution.fits", code=3)
    assert "b.fits: was changed since it was measured" in done.stderr
    assert contents(Path()) == before


def test_apply_goes_on_with_files_that_this_program_changed() -> None:
    original = pair()
    run("match", "-o", "solution.fits", *original)
    run("apply", "--subtract", "solution.fits")
    assert fits.getheader("b.fits")["BKGSUB"] is True
    shutil.copy("b.fits", "copy.fits")
    assert "2 images already as wanted" in run("apply", "--subtract", "solution.fits").stderr


@pytest.mark.parametrize("command", [["apply", "--subtract"], ["apply", "--dry-run"], ["apply"]])
def test_apply_refuses_other_content_of_the_same_size_and_time(command: list[str]) -> None:
    original = pair()
    run("match", "--dry-run", "-o", "solution.fits", *original)
    kept = Path("b.fits").stat()
    edited("b.fits", lambda hdu: setattr(hdu, "data", hdu.data + 4900))
    os.utime("b.fits", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    now = Path("b.fits").stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (kept.st_size, kept.st_mtime_ns, kept.st_ino)
    before = contents(Path())
    assert "b.fits: was changed since it was measured" in run(*command, "solution.fits", code=3).stderr
    assert contents(Path()) == before


def test_a_change_within_a_tick_of_the_clock_is_seen() -> None:
    Path("a").write_text("old")
    state = file_state("a")  # waits until another change would show another time
    kept = Path("a").stat()
    with Path("a").open("r+") as stream:
        stream.write("new")
    os.utime("a", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert file_state("a") != state


def test_dry_run_of_apply_changes_nothing_and_says_so() -> None:
    original = pair()
    run("match", "--dry-run", "-o", "solution.fits", *original)
    before = contents(Path())
    assert "dry run: 2 images can be written" in run("apply", "--dry-run", "--subtract", "solution.fits").stderr
    assert contents(Path()) == before


# --- results that can't be written, names that can't be given to a new file


def test_standard_output_on_a_full_disk_is_one_line_and_names_the_files_that_are_done() -> None:
    pair()
    for command, said in ((["match"], 2), (["match", "--dry-run"], 1)):
        with Path("/dev/full").open("wb") as full:
            args = [sys.executable, "-m", "skymatch_cli", *command, "a.fits", "b.fits"]
            done = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        assert done.returncode == 6
        assert "standard output can't be written: No space left on device" in errors[0]
        assert len(errors) == said
        assert "Traceback" not in done.stderr
    assert "2 images already as wanted" in run("match", "a.fits", "b.fits").stderr


def test_a_log_on_a_full_disk_is_said_once() -> None:
    pair()
    done = run("match", "--dry-run", "--log-file", "/dev/full", "a.fits", "b.fits")
    assert done.stderr.count("the log is incomplete: [Errno 28] No space left on device") == 1


def test_two_hard_linked_names_are_one_image() -> None:
    pair()
    os.link("a.fits", "c.fits")
    done = run("match", "--dry-run", "-v", "--format", "json", "a.fits", "b.fits", "c.fits")
    assert [image["file"] for image in json.loads(done.stdout)["images"]] == ["a.fits", "b.fits"]
    assert "c.fits: named twice, used once" in done.stderr


def mount_namespace(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell where it may mount files; skip where it can't."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace here")
    return subprocess.run([*alone, "sh", "-c", command], capture_output=True, text=True, check=False)


def test_a_file_that_is_mounted_is_found_before_the_first_one_is_written() -> None:
    pair()
    shutil.copy("b.fits", "other")
    before = contents(Path())
    skymatch = f"{sys.executable} -m skymatch_cli match"
    done = mount_namespace(f"mount --bind other b.fits && {skymatch} --subtract a.fits b.fits")
    assert done.returncode == 3
    assert "b.fits: can't be replaced: it is a mount point" in done.stderr
    assert contents(Path()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_copies_and_results_that_a_sticky_folder_forbids_are_found_before_the_first_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair()
    Path("out").mkdir()
    shutil.copy("b.fits", "out/b.fits")
    shutil.copy("b.fits", "out/r.json")
    for name in ("out", "out/b.fits", "out/r.json"):
        os.chown(name, 2001, 3000)
    Path("out").chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    done = run("match", "--output-dir", "out", "--overwrite", "a.fits", "b.fits", code=3)
    assert "b.fits: its copy" in done.stderr
    assert "its folder is sticky, and it belongs to another user" in done.stderr
    done = run("match", "--dry-run", "-o", "out/r.json", "--overwrite", "a.fits", "b.fits", code=2)
    assert "its folder is sticky" in done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["b.fits", "r.json"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("chattr"), reason="needs chattr")
def test_an_append_only_folder_is_found_before_the_first_file() -> None:
    pair()
    Path("out").mkdir()
    if subprocess.run(["chattr", "+a", "out"], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no such flag")
    try:
        done = run("match", "--output-dir", "out", "a.fits", "b.fits", code=3)
        assert "immutable or append-only" in done.stderr
        assert not list(Path("out").iterdir())
        assert "append-only" in run("match", "-o", "out/r.json", "a.fits", "b.fits", code=2).stderr
    finally:
        subprocess.run(["chattr", "-a", "out"], check=True)


def test_what_a_killed_run_left_beside_any_output_is_removed_by_the_next() -> None:
    pair()
    for name in (".a.fits.skymatch-tmp", ".r.json.skymatch-tmp"):
        Path(name).write_bytes(b"half of it")
    run("match", "-o", "r.json", "a.fits", "b.fits")
    assert sorted(contents(Path())) == ["a.fits", "b.fits", "r.json"]


# --- archives that hold far more than they should


def test_a_packed_file_of_zeros_without_end_is_refused() -> None:
    image("a.fits")
    image("b.fits", 1)
    zeros = bz2.compress(bytes(2**26), 9)
    Path("b.fits.bz2").write_bytes(bz2.compress(Path("b.fits").read_bytes()) + zeros * 5)
    before = contents(Path())
    for command in (["match", "a.fits"], ["undo"]):
        assert "holds more than 256 MiB in" in run(*command, "b.fits.bz2", code=3).stderr
    assert contents(Path()) == before


def test_a_packed_file_that_claims_more_than_flags_or_skies_are_packed_by_is_refused() -> None:
    """A hundred GiB of zeros in a hundred MB: gzip packs no better than a thousand to one."""
    image("a.fits")
    raw = (
        Path("a.fits").read_bytes()[:2880].replace(b"NAXIS2  =                   48", b"NAXIS2  =            500000000")
    )
    Path("b.fits.gz").write_bytes(gzip.compress(raw) + bytes(10**8))
    done = run("plan", "a.fits", "b.fits.gz", code=3)
    assert "b.fits.gz: truncated or damaged: HDU 0 claims 96000000000 bytes of data" in done.stderr


def test_a_packed_file_for_which_the_disk_has_no_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    image("a.fits")
    fits.PrimaryHDU(np.zeros((2**18, 80), "f4"), header(1)).writeto("b.fits.gz")
    before = contents(Path())
    disk_usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk_usage(path)._replace(free=2**20))
    done = run("undo", "a.fits", "b.fits.gz", code=3)
    assert "b.fits.gz: holds 80 MiB, and" in done.stderr
    assert "where it is unpacked, has 1 MiB free (set TMPDIR to a larger disk, or unpack it first)" in done.stderr
    assert contents(Path()) == before


def test_a_file_of_hdus_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pair()
    monkeypatch.setattr(fitsfile, "_MOST_HDUS", 400)
    cards = [b"XTENSION= 'IMAGE   '", b"BITPIX  =                    8", b"NAXIS   =                    0"]
    cards += [b"PCOUNT  =                    0", b"GCOUNT  =                    1", b"END"]
    empty = b"".join(card.ljust(80) for card in cards).ljust(2880)
    Path("b.fits.bz2").write_bytes(bz2.compress(Path("b.fits").read_bytes()) + bz2.compress(empty * 400))
    assert "b.fits.bz2: has more than 400 HDUs" in run("plan", "a.fits", "b.fits.bz2", code=3).stderr
    Path("b.fits").write_bytes(Path("b.fits").read_bytes() + empty * 400)
    assert "b.fits: has more than 400 HDUs" in run("plan", "a.fits", "b.fits", code=3).stderr


def test_nothing_behind_the_images_is_unpacked_to_measure_them() -> None:
    pair()
    raw = Path("b.fits").read_bytes()
    Path("b.fits.bz2").write_bytes(bz2.compress(raw) + bz2.compress(bytes(2**26), 9) * 5)
    done = run("match", "--dry-run", "--format", "json", "a.fits", "b.fits.bz2")
    assert abs(json.loads(done.stdout)["images"][1]["sky"] - 20) < 1


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_an_image_that_no_memory_holds_is_refused_by_name(compare: str) -> None:
    image("a.fits")
    raw = Path("a.fits").read_bytes()[:2880]
    for axis in (1, 2):
        raw = raw.replace(b"NAXIS%d  =                   48" % axis, b"NAXIS%d  =               262144" % axis)
    with Path("b.fits").open("wb") as stream:  # a sparse file of 256 GiB
        stream.write(raw)
        stream.truncate(2880 * (2 + 4 * 2**36 // 2880))
    options = ["--dry-run", "--compare", compare, "--method", "globalmin+match"]
    done = run("match", *options, "a.fits", "b.fits", code=3)
    assert "b.fits: needs 320 GiB of memory" in done.stderr


@pytest.mark.parametrize(("dtype", "zero"), [("i8", 2**60), ("u8", 2**63), ("i8", -(2**60))])
def test_integers_that_float64_would_round_are_refused(dtype: str, zero: int) -> None:
    for k, name in enumerate("ab"):
        steps = np.rint(np.random.default_rng(k).normal(1000 * k, 300, (48, 48))).astype("i8")
        data = steps + zero if dtype == "i8" else steps.astype("u8") + np.uint64(zero)
        fits.PrimaryHDU(data, header(k)).writeto(f"{name}.fits")
    done = run("match", "a.fits", "b.fits", code=3)
    assert "a.fits: holds " in done.stderr
    assert "integers beyond 2^53 would be rounded" in done.stderr


def test_integers_of_64_bits_that_float64_holds_are_exact() -> None:
    for k, name in enumerate("ab"):
        steps = np.rint(np.random.default_rng(1).normal(0, 300, (48, 60))).astype("i8")[:, 12 * k :][:, :48]
        data = 2**52 + 1000 * k + steps
        data[0, 0] = np.iinfo("i8").min  # undefined
        fits.PrimaryHDU(data, header(1 - k)).writeto(f"{name}.fits")
    done = run("match", "--dry-run", "--compare", "pooled", "--format", "json", "a.fits", "b.fits")
    assert [image["sky"] for image in json.loads(done.stdout)["images"]] == [0, 1000]


# --- undo from the keyword


def test_undo_from_a_renamed_keyword() -> None:
    original = image("a.fits")
    with fits.open("a.fits", mode="update") as hdus:
        hdus[0].data -= np.float32(20)
        hdus[0].header.update(MDRIZSKY=20.0, BKGSUB=True)
    run("undo", "--from-keyword", "--sky-keyword", "MDRIZSKY", "a.fits")
    assert np.abs(pixels("a.fits") - original).max() <= np.spacing(np.float32(130))
    assert not {"MDRIZSKY", "BKGSUB"} & set(fits.getheader("a.fits"))


def test_undo_from_the_keyword_refuses_pixels_whose_undo_cards_contradict_them() -> None:
    pair()
    run("match", "--subtract", "a.fits", "b.fits")
    edited("b.fits", lambda hdu: setattr(hdu, "data", hdu.data[5:, 8:].copy()))
    before = contents(Path())
    assert "has 40x43 pixels, had 48x48" in run("undo", "--from-keyword", "b.fits", code=3).stderr
    assert contents(Path()) == before


def test_undo_cards_of_an_earlier_version_are_one_line() -> None:
    image("a.fits", BKGLEVEL=20.0, BKGSUB=True)
    with fits.open("a.fits", mode="update") as hdus:
        hdus[0].header["HISTORY"] = "skymatch-cli undo - BKGLEVEL"
    (line,) = run("undo", "a.fits", code=3).stderr.splitlines()
    assert line.startswith("skymatch: error: a.fits: its undo cards are of a version before 0.2, or incomplete")
    run("undo", "--from-keyword", "a.fits")


# --- passwords and tokens in URLs


def test_results_and_messages_hold_no_password_or_token(monkeypatch: pytest.MonkeyPatch) -> None:
    pair()
    mask = "http://bob:hunter2@127.0.0.1:9/{stem}.fits?token=SECRET&n=1"
    done = run("match", "--dry-run", "--mask", mask, "--log-file", "run.log", "a.fits", "b.fits", code=3)
    assert "http://127.0.0.1:9/….fits?token=…&n=1" in done.stderr
    assert not any(word in done.stderr + Path("run.log").read_text() for word in ("hunter2", "SECRET", "bob"))


def test_a_packed_file_that_claims_a_terabyte_is_refused() -> None:
    image("a.fits")
    raw = Path("a.fits").read_bytes().replace(b"NAXIS1  =                   48", b"NAXIS1  =         549755813888")
    Path("b.fits.bz2").write_bytes(bz2.compress(raw))
    assert "claims" in run("plan", "a.fits", "b.fits.bz2", code=3).stderr


def test_a_null_byte_in_a_configuration_is_one_line() -> None:
    pair()
    Path("c.toml").write_text('reference = "\\u0000"\n')
    assert "--reference holds a null byte" in run("match", "--dry-run", "--config", "c.toml", "a.fits", code=2).stderr


@pytest.mark.parametrize("value", [1e40, -1e169, 1.7e308])
def test_values_that_no_float32_holds_are_no_sky(value: float) -> None:
    pair()
    data = fits.getdata("b.fits").astype("f8")
    fits.PrimaryHDU(data, header(1)).writeto("b.fits", overwrite=True)
    sky = json.loads(run("match", "--dry-run", "--format", "json", "a.fits", "b.fits").stdout)["images"][1]["sky"]
    data.flat[[0, 100, 700]] = value
    fits.PrimaryHDU(data, header(1)).writeto("b.fits", overwrite=True)
    done = run("match", "--dry-run", "--compare", "mesh", "--format", "json", "a.fits", "b.fits")
    assert abs(json.loads(done.stdout)["images"][1]["sky"] - sky) < 0.5


def test_damaged_urls_digests_and_long_strings_are_one_line() -> None:
    pair()
    assert "http://[x/a.fits: can't be" in run("match", "--dry-run", "http://[x/a.fits", "b.fits", code=3).stderr
    run("match", "--dry-run", "-o", "s.fits", "a.fits", "b.fits")
    raw = Path("s.fits").read_bytes()
    at = raw.index(b"LAYOUT  = '")
    Path("s.fits").write_bytes(raw[: at + 10] + b"~" + raw[at + 11 :])
    assert "s.fits: is " in run("apply", "s.fits", code=3).stderr


def test_a_long_string_that_goes_on_after_a_number_does_not_matter() -> None:
    pair()
    head = header(1)
    head.update(NUMBER=1, OBSERVER="me")
    hdu = fits.CompImageHDU(fits.getdata("b.fits"), head)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto("b.fits.fz")
    raw = Path("b.fits.fz").read_bytes()
    at = raw.index(b"OBSERVER=")
    assert raw[at - 80 : at].startswith(b"NUMBER")
    Path("b.fits.fz").write_bytes(raw[:at] + b"CONTINUE  'more'".ljust(80) + raw[at + 80 :])
    done = run("match", "--dry-run", "--format", "json", "a.fits", "b.fits.fz")
    assert abs(json.loads(done.stdout)["images"][1]["sky"] - 20) < 1


def test_all_of_300_extensions_come_back() -> None:
    hdus = [fits.ImageHDU(np.full((8, 8), 100.25, "f4") + k, header(k), name="SCI", ver=k + 1) for k in range(300)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto("h.fits")
    before = Path("h.fits").read_bytes()
    skies = "".join(f"h.fits[SCI,{k + 1}] {k + 0.1}\n" for k in range(300))
    Path("skies.txt").write_text(skies)
    run("match", "--method", "user", "--skylist", "skies.txt", "--subtract", "h.fits")
    assert abs(float(pixels("h.fits", 300).mean()) - 100.15) < 1e-4
    run("undo", "h.fits")
    assert Path("h.fits").read_bytes() == before


def test_no_command_uses_pixels_that_another_program_changed_after_us() -> None:
    pair()
    run("match", "--subtract", "a.fits", "b.fits")
    run("match", "--dry-run", "--store", "s.db", "a.fits", "b.fits")
    edited("b.fits", lambda hdu: setattr(hdu, "data", hdu.data + np.float32(30)))
    by_hand = ["--method", "user", "--skylist", "skies.txt"]
    Path("skies.txt").write_text("a.fits 1\nb.fits 2\n")
    for words in (["match", "--dry-run"], ["match", "--subtract"], ["match", "--dry-run", *by_hand], ["plan"]):
        done = run(*words, "--store", "s.db", "a.fits", "b.fits", code=3)
        assert "b.fits: its pixels are not those that skymatch wrote: changed by another program since" in done.stderr
        assert "a.fits:" not in done.stderr


def test_pixels_that_another_program_changed_are_left_out_with_skip_bad() -> None:
    pair("abc")
    run("match", "--subtract", "a.fits", "b.fits", "c.fits")
    edited("b.fits", lambda hdu: setattr(hdu, "data", hdu.data + np.float32(30)))
    for _ in range(2):  # also when the store knows the headers
        done = run("match", "--dry-run", "--skip-bad", "--store", "s.db", "a.fits", "b.fits", "c.fits")
        assert "b.fits: its pixels are not those that skymatch wrote" in done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["a.fits", "c.fits"]


def test_damaged_tiles_of_an_image_that_was_subtracted_are_an_input_error(tmp_path):
    name = tmp_path / "a.fits.fz"
    data = np.random.default_rng(4).integers(0, 30000, (70, 50)).astype("i2")
    fits.CompImageHDU(data, Frame(nx=50, ny=70).wcs().to_header(), compression_type="GZIP_1").writeto(name)
    (tmp_path / "sky.txt").write_text("a.fits.fz 5\n")
    run("match", "--method", "user", "--skylist", str(tmp_path / "sky.txt"), "--subtract", str(name))
    raw = bytearray(name.read_bytes())
    raw[-6000:-3000] = b"\xff" * 3000
    name.write_bytes(raw)
    refused = run("match", "--dry-run", "--method", "localmin", str(name), code=3)
    assert "compressed pixels are damaged" in refused.stderr
