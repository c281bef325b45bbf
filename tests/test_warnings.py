"""Warnings: their names, what they count, and the steps between images before and after."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skymatch_cli
from skymatch_cli.choices import WarningName
from skymatch_cli.errors import Problem, StoppedError, problem_lines
from skymatch_cli.model import SkyWarning
from skymatch_cli.model.warning import KINDS, counted
from skymatch_cli.output.verdict import Verdict
from skymatch_cli.solve.steps import visible_limit

from .commands import run
from .factories import Frame, row, write, write_all

PAGE = Path(__file__).parent.parent / "docs" / "warnings.md"

POOLED = ("--compare", "pooled")


def stepped(folder: Path, step: float) -> list[str]:
    """Three frames that see each other, of which the middle one has a step in the overlap of the others."""
    frames = [Frame(x=12.0 * k, sky=100.0 + 10 * k, noise=1.0, seed=k) for k in range(3)]
    paths = write_all(folder, frames)
    with fits.open(paths[1], mode="update") as hdus:
        hdus[0].data[:, :16] += step
    return paths


@pytest.mark.parametrize("name", list(WarningName))
def test_every_warning_has_a_cause_a_remedy_and_a_section_of_the_page(name):
    kind = KINDS[name]
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.splitlines()[0] == name]
    words = " ".join(section.split())
    for text in (kind.cause, kind.remedy):
        assert text[0].upper() + text[1:] in words


def test_every_section_of_the_page_is_a_warning():
    named = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(named) == sorted(map(str, WarningName))


def test_a_warning_comes_back_from_its_dictionary():
    warning = SkyWarning(WarningName.STEP, "a step", 0.5, "adu", visible=False)
    assert SkyWarning.of(json.loads(json.dumps(warning.as_dict()))) == warning


def test_what_cannot_be_seen_or_is_allowed_is_not_counted():
    seen = SkyWarning(WarningName.FILTERS, "g, r")
    unseen = SkyWarning(WarningName.WEAK_LINK, "weak", 1e-9, "adu", visible=False)
    assert counted([seen, unseen], []) == (seen,)
    assert counted([seen, unseen], ["filters"]) == ()


def test_a_step_is_seen_from_a_twentieth_of_the_noise_or_a_thousandth_of_the_step_before():
    one = np.ones(1)
    # 2 x 5000 pixels of noise 1: the difference is known to sqrt(2 / 5000)
    err, n = np.sqrt(2 / 5000) * one, np.array([5000])
    assert visible_limit(10 * one, err, n, n) == pytest.approx(0.05)
    assert visible_limit(-1000 * one, err, n, n) == pytest.approx(1.0)


def test_strict_stops_and_allow_lets_it_pass(tmp_path):
    near = row([130.0, 100.0])
    paths = write_all(tmp_path, near + [f.but(dec=-40.0) for f in near])
    before = Path(paths[0]).read_bytes()
    stopped = run("match", "--strict", *paths)
    assert stopped.exit_code == 5
    assert "[disconnected]" in stopped.stderr
    assert Path(paths[0]).read_bytes() == before
    done = run("match", "--strict", "--allow", "disconnected", *paths)
    assert done.exit_code == 0
    assert "disconnected" not in done.stderr
    assert "don't overlap each other" in run("match", "-v", "--dry-run", "--allow", "disconnected", *paths).stderr


def test_an_unknown_name_is_a_usage_error():
    done = run("match", "--allow", "disconected", "a.fits")
    assert done.exit_code == 2


def test_max_step_is_in_the_unit_of_the_images(tmp_path):
    paths = stepped(tmp_path, 8.0)
    found = json.loads(run("match", *POOLED, "--dry-run", "--format", "json", *paths).stdout)
    largest = max(abs(overlap["residual"]) for overlap in found["overlaps"])
    assert found["components"][0]["step_after"] == pytest.approx(largest)
    assert found["components"][0]["step_before"] == pytest.approx(max(abs(o["delta"]) for o in found["overlaps"]))
    above = run(
        "match", *POOLED, "--dry-run", "--strict", "--allow", "disagreement", "--max-step", 0.9 * largest, *paths
    )
    assert above.exit_code == 5
    assert "[step]" in above.stderr
    below = run(
        "match", *POOLED, "--dry-run", "--strict", "--allow", "disagreement", "--max-step", 1.1 * largest, *paths
    )
    assert below.exit_code == 0


def test_the_verdict_follows_the_table_on_standard_error(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    done = run("match", "--dry-run", *paths)
    assert done.stderr.splitlines()[0] == (
        "skymatch: steps between overlapping images: up to 30 → 0 electron, typically 30 → 0; "
        "no loop of overlaps checks them"
    )
    assert "steps between" not in run("match", "--dry-run", "-q", *paths).stderr
    with_file = run("match", "--dry-run", "-o", tmp_path / "sky.csv", *paths)
    assert "steps between" in with_file.stderr
    assert f"wrote {tmp_path / 'sky.csv'}" in with_file.stderr


def test_overlaps_that_disagree_want_a_look(tmp_path):
    paths = stepped(tmp_path, 8.0)
    verdict = skymatch_cli.match(paths, dry_run=True, compare="pooled").verdict
    assert verdict.n_overlaps == 3
    assert verdict.n_doubtful > 0
    assert f"{verdict.n_doubtful} of 3 overlaps want a look" in run("match", *POOLED, "--dry-run", *paths).stderr
    assert skymatch_cli.match(write_all(tmp_path / "two", row([1.0, 3.0])), dry_run=True).verdict == Verdict(
        (2.0, 2.0), (0.0, 0.0), "electron", 1, 0
    )


def test_many_warnings_of_one_kind_are_cut_to_three(tmp_path):
    frames = [f.but(noise=1.0, seed=k) for k, f in enumerate(row([100.0 + k for k in range(6)]))]
    dq = np.ones((40, 40), np.int16)
    dq[:10] = 0
    paths = [write(tmp_path / f"{k}.fits", frame, dq=dq) for k, frame in enumerate(frames)]
    done = run("match", "--dry-run", *paths)
    assert done.stderr.count("[flags]") <= 3
    assert run("match", "--dry-run", "-v", *paths).stderr.count("[flags]") == 6


def test_problems_of_one_kind_are_one_line_with_the_first_names():
    problems = [Problem(f"{k}.fits", "no such file", "check") for k in range(5)] + 2 * [Problem("x.fits", "is bad")]
    assert problem_lines(problems) == ("0.fits, 1.fits, 2.fits and 2 more: no such file (check)", "x.fits: is bad")
    stopped = StoppedError(problems[5:], ("a.fits",))
    assert stopped.lines() == ("x.fits: is bad", "1 file written before it: a.fits (run again to finish)")


def test_after_a_run_it_says_what_was_done_and_how_to_take_it_back(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    recorded = run("match", *paths).stderr
    assert "recorded BKGLEVEL in 2 images (pixels unchanged); 2 files written" in recorded
    assert f"to take it back: skymatch undo {paths[0]} {paths[1]}" in recorded
    assert "restored 2 images; 2 files written" in run("undo", *paths).stderr
    (empty := tmp_path / "empty.fits").touch()
    told = run("match", "--skip-bad", *paths, empty).stderr
    assert f"to take it back: skymatch undo --skip-bad {paths[0]} {paths[1]} {empty}" in told
    assert run("undo", "--skip-bad", *paths, empty).exit_code == 0
    copies = run("match", "--subtract", "--output-dir", tmp_path / "out", *paths).stderr
    assert f"subtracted the sky from 2 images; 2 files written to {tmp_path / 'out'}, originals unchanged" in copies


def test_integers_that_become_floating_point_are_said(tmp_path):
    paths = write_all(tmp_path, [f.but(noise=5.0, dtype="i2") for f in row([130.0, 100.0])])
    said = run("match", "--subtract", *paths).stderr
    assert f"integer pixels became floating point in 2 files ({paths[0]}, {paths[1]})" in said


@pytest.mark.parametrize("words", [("a.fits", "b.fits"), ("@list.txt",), ("*.fits",)])
def test_images_without_a_command_are_told_of_match(words):
    done = run(*words)
    assert done.exit_code == 2
    assert "did you mean: skymatch match --dry-run" in done.stderr


def test_an_empty_word_is_no_command():
    done = run("")
    assert done.exit_code == 2
    assert "there is no command ''" in done.stderr


def test_help_of_a_command_and_the_options_of_daily_use():
    assert run("help", "undo").stdout == run("undo", "--help").stdout
    assert run("help").stdout == run("--help").stdout
    short, long = run("match", "-h").stdout, run("match", "--help").stdout
    assert len(short) < len(long) / 2
    assert "--subtract" in short
    option = re.compile(r"^ +--lsigma", re.MULTILINE)
    assert not option.search(short)
    assert option.search(long)
    sections = re.findall(r"^(\S.*):$", long, flags=re.MULTILINE)
    assert sections[0] == "What happens to the images"


@pytest.mark.parametrize(
    "words",
    [
        ("--mesh-size", 8, *POOLED),
        ("--binwidth", 0.2),
        ("--skylist", "s.txt"),
        ("--skystat", "mode", "--compare", "mesh"),
        ("--nclip", 3, "--compare", "mesh"),
        ("--table", "overlaps", "-o", "x.json"),
    ],
)
def test_options_without_an_effect_are_refused(words):
    done = run("match", *words, "a.fits")
    assert done.exit_code == 2
    assert words[0] in done.stderr


def test_gradients_of_all_images_are_not_said_to_agree(tmp_path):
    rng = np.random.default_rng(2)
    frames = [Frame(x=110.0 * i, y=110.0 * j, nx=140, ny=140, sky=100, noise=3) for j in range(4) for i in range(5)]
    across = np.arange(140) / 140 - 0.5
    paths = []
    for k, frame in enumerate(frames):
        tilt = rng.uniform(-60, 60, 2)
        pixels = frame.but(seed=k).pixels() + tilt[0] * across + tilt[1] * across[:, None]
        paths.append(write(tmp_path / f"{k}.fits", frame, pixels=pixels))
    found = skymatch_cli.match(paths, dry_run=True)
    assert any("more than their errors allow" in w.text for w in found.warnings)
    assert found.verdict.n_doubtful == 0
    assert str(found.verdict).endswith("no overlap stands out, but together they disagree by more than their errors")


def test_of_copies_that_are_matched_it_says_that_skies_are_of_the_originals(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    assert "of the originals" not in run("match", "--subtract", "--output-dir", tmp_path / "copies", *paths).stderr
    said = run("match", "--dry-run", *sorted((tmp_path / "copies").glob("*.fits"))).stderr
    assert "2 of 2 images have their sky subtracted: skies and steps are of the originals" in said


def test_without_a_loop_nothing_is_said_to_agree(tmp_path):
    strip = skymatch_cli.match(write_all(tmp_path, row([1.0, 3.0, 2.0])), dry_run=True).verdict
    assert not strip.checked
    assert str(strip).endswith("; no loop of overlaps checks them")
    for seed in range(0, 24, 4):
        stack = [Frame(sky=100.0 + 10 * k, noise=1.0, seed=seed + k) for k in range(3)]
        found = skymatch_cli.match(write_all(tmp_path / f"stack_{seed}", stack), dry_run=True)
        assert not found.verdict.checked, "each loop closes, whatever the pixels"
    circle = skymatch_cli.match(stepped(tmp_path / "circle", 0.0), dry_run=True).verdict
    assert circle.checked
    assert str(circle).endswith("; all 3 overlaps agree within their errors")


@pytest.mark.parametrize(("factor", "names"), [(30, {"units", "crowded"}), (300, {"units", "crowded"})])
def test_a_frame_in_another_unit_is_no_agreement_and_no_mask(tmp_path, factor, names):
    run("demo", tmp_path)
    frames = sorted(tmp_path.glob("frame_*.fits"))
    assert "; all 11 overlaps agree within their errors\n" in run("match", "--dry-run", *frames).stderr
    with fits.open(frames[2], mode="update") as hdus:
        hdus["SCI"].data *= np.float32(factor)
    said = run("match", "--dry-run", *frames).stderr
    verdict = said.splitlines()[0]
    largest = re.search(
        r"; all 11 overlaps agree within their errors, but errors are large: up to (\S+) electron$", verdict
    )
    assert float(largest[1]) > factor / 2, "the noise of the other frames is 17 electron a pixel"
    told = [line for line in said.splitlines() if "warning: " in line]
    assert {re.search(r" \[(\S+)\] \(usual", line)[1] for line in told} == names
    assert all("frame_02" in line and "frame_01" not in line for line in told)


def binned(folder: Path, fold: str, *, sky: float, bunit: str = "adu") -> list[str]:
    """Three frames, the middle one with pixels twice as large: sums or means of four of those of the others."""
    folder.mkdir()
    rng, paths = np.random.default_rng(4), []
    for k in range(3):
        pixels = rng.normal(sky + 10 * k, 5.0, (80, 80))
        if k == 1:
            pixels = getattr(pixels.reshape(40, 2, 40, 2), fold)(axis=(1, 3))
        frame = Frame(x=50.0 * k, nx=len(pixels), ny=len(pixels), scale=80 / len(pixels), header={"BUNIT": bunit})
        paths.append(write(folder / f"{k}.fits", frame, pixels=pixels))
    return paths


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
def test_means_that_are_divided_like_sums_are_said(tmp_path, compare):
    """Values per pixel are divided by its area; a program that binned by means made them surface brightness."""
    sums, means, bright = (
        skymatch_cli.match(binned(tmp_path / f"{k}", fold, sky=1000.0, bunit=bunit), dry_run=True, compare=compare)
        for k, (fold, bunit) in enumerate([("sum", "adu"), ("mean", "adu"), ("mean", "MJy/sr")])
    )
    (text,) = [w.text for w in means.warnings]
    assert "undivided they are alike" in text
    assert "0.fits - " in text
    assert [*sums.warnings, *bright.warnings] == []
    for done, area in ((sums, 4), (bright, 1)):
        assert np.diff(np.asarray(done.images["sky"]) / [1, area, 1]) == pytest.approx([10, 10], abs=0.6)


def test_exposures_that_were_averaged_are_said_and_those_chosen_for_the_sky_are_not(tmp_path):
    for name, noise, warned in (("of_one_level", 5.0, False), ("average", 5.0 / np.sqrt(10), True)):
        header = {"BUNIT": "adu", "EXPTIME": 600.0}
        one = Frame(sky=1000.0, noise=5.0, nx=80, ny=80, header=header | {"EXPTIME": 60.0})
        paths = write_all(tmp_path / name, [one, one.but(x=50.0, sky=1010.0, noise=noise, seed=1, header=header)])
        texts = [w.text for w in skymatch_cli.match(paths, dry_run=True).warnings]
        assert any("undivided they are alike" in text for text in texts) == warned


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
def test_half_of_the_images_in_another_unit_are_said(tmp_path, compare):
    """Rates and counts of 40 s in turn, without BUNIT and without stars: noise and level both say it."""
    frames = [
        Frame(x=30.0 * k, nx=80, ny=80, seed=k, header={}, sky=f * (100 + k), noise=0.5 * f)
        for k, f in enumerate((1, 40, 1, 40, 1))
    ]
    done = skymatch_cli.match(write_all(tmp_path, frames), dry_run=True, compare=compare)
    (text,) = [w.text for w in done.warnings if w.name == WarningName.UNITS]
    assert re.search(r"img_1.fits \(times (39|40|41)\), .*img_3.fits \(times (39|40|41)\)$", text)


def test_the_advice_stands_once_after_the_last_warning_of_a_name(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    for k, content in enumerate((b"\xff\xd8\xff\xe0", b"<html>", b"")):
        (tmp_path / f"bad{k}.fits").write_bytes(content)
    said = run("match", "--dry-run", "--skip-bad", *paths, *sorted(tmp_path.glob("bad*"))).stderr
    skipped = [line for line in said.splitlines() if "[skipped]" in line]
    assert [("usual cause" in line) for line in skipped] == [False, False, True]
    assert "bad0.fits: is a JPEG picture, not a FITS file (save the linear image as FITS)" in skipped[0]
    assert "bad1.fits: is a web page, not a FITS file (fetch the file again)" in skipped[1]


def test_what_differs_by_the_name_of_the_file_alone_is_one_line(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0, 110.0, 90.0]))
    assert run("match", "--output-dir", tmp_path / "out", *paths).exit_code == 0
    again = run("match", "--output-dir", tmp_path / "out", *paths).stderr
    assert f"and 1 more: its copy {tmp_path / 'out'}/….fits exists (use --overwrite)" in again
    assert again.count("error: ") == 1
    assert "nothing to undo in 4 images; no file was written" in run("undo", *paths).stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("match",), "(e.g. skymatch match *.fits; see 'skymatch match --help')"),
        (("match", "--dryrun", "a.fits"), "there is no option --dryrun (did you mean --dry-run?;"),
        (("--dry-run", "a.fits"), "it is an option of: match, "),
        (("measure", "f.db", "--dqbits", "3"), "it is an option of: match, plan, config"),
        (("match", "--upside-down", "a.fits"), "there is no option --upside-down (see"),
        (("match", "--allow", "no_sky", "a.fits"), "is not one of its words (did you mean 'no-sky'?;"),
        (("match", "--method", "mean", "a.fits"), "is not one of 'localmin'"),
    ],
)
def test_mistyped_options_are_explained(words, says):
    done = run(*words)
    assert done.exit_code == 2
    assert says in done.stderr


def test_one_image_is_told_from_images_that_do_not_overlap(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    alone = run("match", "--dry-run", paths[0], paths[0])
    assert alone.exit_code == 4
    assert "there is only one image (give all images of the field)" in alone.stderr


def test_a_keyword_to_split_by_that_no_image_has_is_refused(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    done = run("match", "--dry-run", "--split-by", "FILTR", *paths)
    assert done.exit_code == 3
    assert "--split-by FILTR: no image has this keyword" in done.stderr


def test_an_image_that_is_alone_in_its_set_is_said_to_overlap_nothing(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0, 110.0]))
    for path, band in zip(paths, "rrg", strict=True):
        fits.setval(path, "FILTER", value=band)
    done = run("match", "--dry-run", "--split-by", "FILTER", *paths)
    assert (
        f"no other image of their sets overlaps them, and their skies are 0: {paths[2]} [disconnected]" in done.stderr
    )
    fits.setval(paths[2], "FILTER", value="r")
    assert "disconnected" not in run("match", "--dry-run", "--split-by", "FILTER", *paths).stderr
