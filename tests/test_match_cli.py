"""From the shell to the files and back: match, plan and undo on real images, as users run them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import Result

from .commands import run
from .factories import Frame, row, write, write_all

ODD = Path(__file__).parents[2] / "shared" / "data" / "odd"
needs_odd = pytest.mark.skipif(not ODD.exists(), reason="the collection of odd files is not here")


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return write_all(tmp_path, row([130.0, 100.0]))


def content(paths: list[str]) -> list[bytes]:
    return [Path(p).read_bytes() for p in paths]


def levels(done: Result) -> list[float]:
    return [image["sky"] for image in json.loads(done.stdout)["images"]]


# --- record, subtract, undo


def test_match_records_the_sky_and_leaves_the_pixels(two):
    assert run("match", *two).exit_code == 0
    with fits.open(two[0]) as hdus:
        header = hdus[0].header
        assert (header["BKGLEVEL"], header["BKGSUB"], header["BKGMETH"]) == (30.0, False, "match")
        assert header["BKGERR"] > 0
        np.testing.assert_array_equal(hdus[0].data, 130.0)


def test_dry_run_touches_nothing(two):
    before = content(two)
    assert run("match", "--dry-run", *two).exit_code == 0
    assert content(two) == before


def test_subtract_subtracts_once_and_undo_restores_every_byte(two):
    before = content(two)
    assert run("match", "--subtract", *two).exit_code == 0
    subtracted = content(two)
    np.testing.assert_array_equal(fits.getdata(two[0]), 100.0)
    assert fits.getheader(two[0])["BKGSUB"] is True
    assert run("match", "--subtract", *two).exit_code == 0
    assert content(two) == subtracted
    assert run("undo", *two).exit_code == 0
    assert content(two) == before


def test_a_subtracted_file_is_read_as_the_original_was(two):
    run("match", "--subtract", *two)
    again = run("match", "--dry-run", "--format", "json", "--lower", 120, "--method", "localmin", two[0])
    assert levels(again) == [130.0]


def test_recording_over_a_subtracted_file_is_refused_with_a_hint(two):
    run("match", "--subtract", *two)
    before = content(two)
    done = run("match", *two)
    assert done.exit_code == 3
    assert "--subtract" in done.stderr
    assert "undo" in done.stderr
    assert content(two) == before


def test_another_keyword_for_the_sky(two):
    assert run("match", "--sky-keyword", "MDRIZSKY", *two).exit_code == 0
    assert fits.getheader(two[0])["MDRIZSKY"] == 30.0
    assert "BKGLEVEL" not in fits.getheader(two[0])


def test_copies_go_to_the_output_folder_and_replace_nothing_unasked(two, tmp_path):
    before = content(two)
    out = tmp_path / "out"
    assert run("match", "--subtract", "--output-dir", out, *two).exit_code == 0
    np.testing.assert_array_equal(fits.getdata(out / "img_0.fits"), 100.0)
    assert content(two) == before
    assert run("match", "--subtract", "--output-dir", out, *two).exit_code == 3
    assert run("match", "--subtract", "--output-dir", out, "--overwrite", *two).exit_code == 0


def test_a_failed_run_writes_nothing(two, tmp_path):
    before = content(two)
    assert run("match", *two, tmp_path / "nowhere.fits").exit_code == 3
    assert content(two) == before


# --- naming


def test_names_from_a_list_with_masks_and_from_standard_input(two, tmp_path):
    with fits.open(two[0], mode="update") as hdus:
        hdus[0].data[:20] = 7000
    good = np.ones((40, 40), np.uint8)
    good[:20] = 0
    fits.PrimaryHDU(good).writeto(tmp_path / "good.fits")
    (tmp_path / "list.txt").write_text("# frames\nimg_0.fits good.fits\nimg_1.fits\n")
    done = run("match", "--dry-run", "--format", "json", f"@{tmp_path / 'list.txt'}")
    assert levels(done) == [30.0, 0.0]
    piped = run("match", "--dry-run", "--format", "json", "--upper", 5000, "-", stdin="\n".join(two))
    assert levels(piped) == [30.0, 0.0]
    assert levels(run("match", "--dry-run", "--format", "json", "--upper", 5000, tmp_path / "img_*.fits")) == [30, 0]


def test_chips_of_one_file_share_one_unknown(tmp_path):
    """Two chips side by side with one sky, and a frame over both."""
    left, right = Frame(x=-15, sky=120), Frame(x=25, sky=120)
    hdus = [fits.PrimaryHDU()]
    hdus += [fits.ImageHDU(f.pixels(), f.hdu_header(), name="SCI", ver=v) for v, f in ((1, left), (2, right))]
    fits.HDUList(hdus).writeto(tmp_path / "chips.fits")
    over = write(tmp_path / "over.fits", Frame(x=5, sky=100))
    done = json.loads(run("match", "--dry-run", "--format", "json", tmp_path / "chips.fits", over).stdout)
    assert [(i["ext"], i["extver"], i["sky"]) for i in done["images"]] == [("SCI", 1, 20), ("SCI", 2, 20), ("0", 1, 0)]
    only_first = run("match", "--dry-run", "--format", "json", f"{tmp_path / 'chips.fits'}[SCI,1]", over)
    assert levels(only_first) == [20, 0]


# --- results


def test_the_json_schema_to_the_letter(two):
    found = json.loads(run("match", "--dry-run", "--format", "json", *two).stdout)
    assert list(found) == ["schema", "version", "settings", "images", "overlaps", "components", "warnings"]
    assert found["schema"] == 2
    keys = "file ext extver group component sky sky_err sky_err_noise sky_unit n_pixels status"
    assert list(found["images"][0]) == keys.split()
    keys = "a b area_arcmin2 unit sky_a sky_b n_a n_b delta delta_err residual status"
    assert list(found["overlaps"][0]) == keys.split()
    keys = "id n_images anchor rms_residual chi2 dof step_before step_after unit"
    assert list(found["components"][0]) == keys.split()
    assert found["images"][0]["file"] == two[0]
    assert found["overlaps"][0]["delta"] == 30.0


def test_null_stands_where_there_is_no_number(two, tmp_path):
    write(tmp_path / "masked.fits", Frame(x=15), pixels=np.full((40, 40), np.nan))
    done = run("match", "--dry-run", "--format", "json", *two, tmp_path / "masked.fits")
    assert "NaN" not in done.stdout
    assert json.loads(done.stdout)["images"][2]["sky"] is None


def test_results_go_to_standard_output_and_all_else_to_standard_error(two, tmp_path):
    done = run("match", "--dry-run", *two)
    assert done.stdout.splitlines()[0].split()[0] == "file"
    assert "dry run" in done.stderr
    to_file = run("match", "--dry-run", "-o", tmp_path / "sky.ecsv", *two)
    assert to_file.stdout == ""
    assert (tmp_path / "sky.ecsv").exists()
    assert run("match", "--dry-run", "-o", tmp_path / "sky.ecsv", *two).exit_code == 2


@pytest.mark.parametrize("suffix", ["ecsv", "csv", "json", "fits", "vot"])
def test_every_format_holds_the_skies(two, tmp_path, suffix):
    from astropy.table import Table

    path = tmp_path / f"sky.{suffix}"
    assert run("match", "--dry-run", "-o", path, *two).exit_code == 0
    if suffix == "json":
        skies = [i["sky"] for i in json.loads(path.read_text())["images"]]
    else:
        how = {"fits": {"hdu": "IMAGES"}, "vot": {"table_id": "images"}}.get(suffix, {})
        skies = list(Table.read(path, **how)["sky"])
    assert skies == [30.0, 0.0]


# --- plan


def test_plan_needs_no_pixels(two, tmp_path):
    done = json.loads(run("plan", "--format", "json", *two).stdout)
    assert [(o["a"], o["b"]) for o in done["overlaps"]] == [(0, 1)]
    assert done["overlaps"][0]["area_arcmin2"] == pytest.approx(400 / 3600, rel=1e-4)
    assert done["components"][0]["n_images"] == 2


# --- exit codes


def test_no_overlap_is_exit_4_and_writes_nothing(tmp_path):
    paths = write_all(tmp_path, [Frame(), Frame(x=1000)])
    before = content(paths)
    assert run("match", *paths).exit_code == 4
    assert run("match", "--method", "globalmin+match", *paths).exit_code == 4
    assert content(paths) == before
    assert run("match", "--method", "globalmin", *paths).exit_code == 0


def test_strict_prints_the_result_writes_no_image_and_is_exit_5(tmp_path):
    paths = write_all(tmp_path, [*row([130.0, 100.0]), Frame(x=3000)])
    before = content(paths)
    done = run("match", "--strict", *paths)
    assert done.exit_code == 5
    assert "img_2.fits" in done.stdout
    assert content(paths) == before


def test_a_large_residual_is_a_warning(tmp_path):
    """Three frames that overlap one another; one of them disagrees with itself."""
    frames = [Frame(x=12.0 * k, sky=100.0, noise=1.0, seed=k) for k in range(3)]
    paths = write_all(tmp_path, frames)
    assert run("match", "--strict", "--max-residual", 8, "--dry-run", *paths).exit_code == 0
    with fits.open(paths[1], mode="update") as hdus:
        hdus[0].data[:, :16] += 50
    done = run("match", "--strict", "--max-residual", 5, "--dry-run", *paths)
    assert done.exit_code == 5
    assert "img_1.fits" in done.stderr


def test_an_image_without_a_sky_is_a_warning(two, tmp_path):
    write(tmp_path / "dead.fits", Frame(x=15), pixels=np.full((40, 40), np.nan))
    done = run("match", "--dry-run", "--strict", *two, tmp_path / "dead.fits")
    assert done.exit_code == 5
    assert "no sky (all_masked)" in done.stderr
    assert "dead.fits" in done.stderr


def test_a_chosen_exposure_time_must_be_there(two):
    assert run("match", "--dry-run", *two).exit_code == 0
    done = run("match", "--dry-run", "--exptime-key", "EXPTIMEE", *two)
    assert done.exit_code == 3
    assert "EXPTIMEE" in done.stderr


@pytest.mark.parametrize("keyword", ["CRVAL1", "CD1_2", "EXPTIME", "NAXIS1", "GAIN", "MAGZERO"])
def test_the_sky_never_replaces_what_others_need(two, keyword):
    before = content(two)
    assert run("match", "--sky-keyword", keyword, *two).exit_code == 2
    assert content(two) == before


def test_piped_names_may_hold_spaces(tmp_path):
    paths = write_all(tmp_path / "my frames", row([130.0, 100.0]))
    done = run("match", "--dry-run", "--format", "json", "-", stdin="\n".join(paths))
    assert levels(done) == [30.0, 0.0]


def test_in_a_skylist_the_line_of_a_chip_counts_before_that_of_its_file(two, tmp_path):
    (tmp_path / "sky.txt").write_text("img_0.fits 3\nimg_1.fits 1\nimg_0.fits[0] 4\n")
    done = run("match", "--dry-run", "--format", "json", "--method", "user", "--skylist", tmp_path / "sky.txt", *two)
    assert levels(done) == [4, 1]


def test_a_tree_of_overlaps_has_no_degrees_of_freedom(two):
    component = json.loads(run("match", "--dry-run", "--format", "json", *two).stdout)["components"][0]
    assert (component["chi2"], component["dof"]) == (0, 0)


def test_a_robust_solution_names_the_overlap_that_contradicts(tmp_path):
    """Six frames of one sky, each over all others; one of the overlaps is spoilt by a trail."""
    frames = [Frame(x=9.0 * k, sky=100.0, noise=1.0, seed=k) for k in range(5)]
    paths = write_all(tmp_path, frames)
    with fits.open(paths[4], mode="update") as hdus:  # only frame 0 reaches so far
        hdus[0].data[:, 36:] += 500
    plain, robust = (
        run("match", "--dry-run", "--format", "json", "--compare", "pooled", *extra, *paths)
        for extra in ([], ["--robust"])
    )
    assert np.ptp(levels(robust)) < np.ptp(levels(plain))
    assert "img_0.fits" in robust.stderr


# --- bad input: one clear line each, exit 3, nothing written


@needs_odd
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SIP_lfs_pointer.fits", "Git LFS"),
        ("no_wcs.fits", "WCS"),
        ("tb.fits", "table"),
    ],
)
def test_odd_files_are_refused_in_one_line(two, name, says):
    done = run("match", *two, ODD / name)
    lines = [line for line in done.stderr.splitlines() if name in line]
    assert done.exit_code == 3
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in done.stderr


@needs_odd
def test_compressed_images_and_degenerate_axes_are_read(tmp_path):
    for name in ("m13_rice.fits", "small_3D.fits"):
        assert run("match", "--dry-run", "--method", "localmin", ODD / name).exit_code == 0


def test_every_bad_input_is_listed(two, tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    cube = tmp_path / "cube.fits"
    fits.PrimaryHDU(np.zeros((4, 4, 4), "f4"), Frame().hdu_header()).writeto(cube)
    done = run("match", *two, tmp_path / "missing.fits", tmp_path, cube, f"@{tmp_path / 'empty.txt'}")
    assert done.exit_code == 3
    for word in ("missing.fits", "directory", "cube", "empty.txt"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_skip_bad_goes_on_with_a_warning(two, tmp_path):
    done = run("match", "--dry-run", "--format", "json", "--skip-bad", *two, tmp_path / "missing.fits")
    assert done.exit_code == 0
    assert levels(done) == [30, 0]
    assert any("missing.fits" in w["text"] for w in json.loads(done.stdout)["warnings"])


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_pixels_that_can_not_be_read_are_not_called_masked(tmp_path, compare):
    files = write_all(tmp_path, row([130.0, 100.0, 120.0]))
    packed = fits.CompImageHDU(fits.getdata(files[2]).astype("f4"), fits.getheader(files[2]))
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "c.fits")
    damaged = bytearray((tmp_path / "c.fits").read_bytes())
    with fits.open(tmp_path / "c.fits", disable_image_compression=True) as hdus:
        start = hdus[1].fileinfo()["datLoc"]
    damaged[start + 200 : start + 1200] = bytes(1000)
    (tmp_path / "c.fits").write_bytes(damaged)
    how = ("match", "--dry-run", "--format", "json", "--compare", compare, "--skip-bad")
    done = run(*how, *files[:2], tmp_path / "c.fits")
    assert [image["status"] for image in json.loads(done.stdout)["images"]] == ["ok", "ok", "unreadable"]


def test_a_mask_of_another_shape_is_refused(two, tmp_path):
    fits.PrimaryHDU(np.ones((5, 5), np.uint8)).writeto(tmp_path / "mask.fits")
    done = run("match", "--mask", tmp_path / "mask.fits", *two)
    assert done.exit_code == 3
    assert "img_0.fits" in done.stderr
    assert "5" in done.stderr


def test_an_unknown_dq_name_is_named(two):
    done = run("match", "--dqbits", "~DO_NOT_USA", *two)
    assert done.exit_code in {2, 3}
    assert "DO_NOT_USA" in done.stderr


def test_an_unparsable_skylist_is_refused_line_by_line(two, tmp_path):
    (tmp_path / "sky.txt").write_text("img_0.fits\nimg_1.fits one\n")
    done = run("match", "--method", "user", "--skylist", tmp_path / "sky.txt", *two)
    assert done.exit_code == 3
    assert "line 1" in done.stderr
    assert "line 2" in done.stderr


def test_no_image_is_a_usage_error():
    assert run("match").exit_code == 2


def test_truncated_pixels_are_an_error_and_nothing_is_written(two):
    before = Path(two[0]).read_bytes()
    Path(two[1]).write_bytes(Path(two[1]).read_bytes()[:-5760])
    done = run("match", *two)
    assert done.exit_code == 3
    assert "img_1.fits" in done.stderr
    assert Path(two[0]).read_bytes() == before


def test_an_image_near_the_horizon_of_its_plane_is_refused_by_a_mesh(tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 0.0, "BUNIT": "electron"}
    files = []
    for k in range(2):  # 141 degrees from corner to corner
        wcs = {"CRPIX1": 100.5 + 5 * k, "CRPIX2": 100.5, "CDELT1": -1.0, "CDELT2": 1.0}
        data = np.random.default_rng(k).normal(100 + k, 3, (200, 200)).astype("f4")
        files.append(str(tmp_path / f"{k}.fits"))
        fits.PrimaryHDU(data, fits.Header(cards | wcs)).writeto(files[-1])
    refused = run("match", "--dry-run", "--compare", "mesh", *files)
    assert refused.exit_code == 3
    assert "too near the horizon of its tangent plane" in refused.stderr


def test_one_pixel_area_for_pixels_of_many_areas_is_a_warning(tmp_path):
    frames = [Frame(sky=100.0, noise=3.0, nx=48, ny=48, scale=4 * 3600)]
    frames.append(frames[0].but(sky=120.0, seed=1))
    files = write_all(tmp_path, frames)
    for path in files[1:]:  # on the plane of the first
        with fits.open(path, mode="update") as hdus:
            hdus[0].header.update(fits.getheader(files[0])["CR*"])
            hdus[0].header["CRPIX1"] += 12
    done = run("match", "--dry-run", "--compare", "pooled", *files)
    assert done.exit_code == 0
    assert "[pixel-areas]" in done.stderr
    assert run("match", "--dry-run", "--strict", "--compare", "pooled", *files).exit_code == 5
    raw = run("match", "--dry-run", "--compare", "pooled", "--units", "as-is", "--format", "json", *files)
    assert "[pixel-areas]" not in raw.stderr
    assert levels(raw) == pytest.approx([0, 20], abs=0.4)


def test_pixel_areas_of_narrow_fields_are_no_warning(tmp_path):
    files = write_all(tmp_path, [Frame(sky=100.0, noise=3.0), Frame(sky=480.0, noise=3.0, seed=1, scale=2.0)])
    done = run("match", "--dry-run", "--format", "json", *files)
    assert "pixel-areas" not in done.stderr
    assert json.loads(done.stdout)["components"][0]["unit"] == "electron / arcsec2"
    assert levels(done) == pytest.approx([0, 80], abs=1.5)
    assert run("match", "--dry-run", "--compare", "pooled", *files).exit_code == 0
