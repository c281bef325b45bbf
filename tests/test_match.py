"""What `match` promises, from files to skies (through the Python interface)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import skymatch_cli
from skymatch_cli.errors import InputError, NoOverlapError

from .factories import Frame, row, write, write_all
from .results import SKIES_OF_ROW


def skies(paths: list[str], **settings: object) -> np.ndarray:
    return np.asarray(skymatch_cli.match(paths, dry_run=True, **settings).images["sky"], float)


def plain(column) -> np.ndarray:
    """The numbers of a column, without its unit."""
    return np.asarray(column, float)


def statuses(table) -> list[str]:
    return [str(s) for s in table["status"]]


# --- the five methods, noise-free: exact answers


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Three frames in a row with skies 130, 100, 115 over an empty field."""
    return write_all(tmp_path, row([130.0, 100.0, 115.0]))


@pytest.mark.parametrize(("method", "expected"), SKIES_OF_ROW)
@pytest.mark.parametrize("skystat", ["median", "mean", "mode", "midpt"])
def test_every_method_is_exact_without_noise(three, method, expected, skystat):
    np.testing.assert_allclose(skies(three, method=method, skystat=skystat), expected, rtol=1e-9, atol=1e-7)


def test_user_skies_need_no_wcs(tmp_path):
    for k in range(2):
        fits.PrimaryHDU(np.ones((5, 5), "f4")).writeto(tmp_path / f"{k}.fits")
    (tmp_path / "sky.txt").write_text("# name sky\n0.fits 3.5\n1.fits[0] -2\n")
    paths = [str(tmp_path / f"{k}.fits") for k in range(2)]
    np.testing.assert_array_equal(skies(paths, method="user", skylist=str(tmp_path / "sky.txt")), [3.5, -2])


def test_match_up_anchors_the_highest(three):
    np.testing.assert_allclose(skies(three, match_up=True), [0, -30, -15], atol=1e-7)


def test_reference_keeps_its_recorded_sky(three):
    fits.setval(three[2], "BKGLEVEL", value=7.0)
    np.testing.assert_allclose(skies(three, reference=three[2]), [22, -8, 7], atol=1e-7)


def test_reference_without_a_record_is_held_at_zero(three):
    np.testing.assert_allclose(skies(three, reference=three[0]), [0, -30, -15], atol=1e-7)


def test_a_mosaic_needs_only_pairwise_overlaps(tmp_path):
    levels = [140.0, 101.0, 122.0, 109.0, 133.0]
    np.testing.assert_allclose(skies(write_all(tmp_path, row(levels))), np.array(levels) - 101, atol=1e-7)


# --- properties


def grid(n: int = 3, **common: object) -> list[Frame]:
    common = {"noise": 3.0, **common}
    rng = np.random.default_rng(5)
    return [
        Frame(x=30.0 * i, y=29.0 * j, sky=float(rng.uniform(50, 150)), seed=3 * i + j, rotation=2.0 * i - j, **common)
        for i in range(n)
        for j in range(2)
    ]


def test_adding_a_constant_to_one_image_changes_its_differences_and_no_other(tmp_path):
    frames = grid()
    before = skymatch_cli.match(write_all(tmp_path / "a", frames), dry_run=True)
    frames[2] = frames[2].but(sky=frames[2].sky + 12.5)
    after = skymatch_cli.match(write_all(tmp_path / "b", frames), dry_run=True)
    a, b = np.asarray(before.overlaps["a"]), np.asarray(before.overlaps["b"])
    change = np.asarray(after.overlaps["delta"]) - np.asarray(before.overlaps["delta"])
    np.testing.assert_allclose(change, 12.5 * ((a == 2).astype(float) - (b == 2)), atol=1e-9)
    moved = np.asarray(after.images["sky"]) - np.asarray(before.images["sky"])
    np.testing.assert_allclose(moved - moved[0], 12.5 * (np.arange(6) == 2), atol=1e-9)


@hypothesis_settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)))
def test_the_order_of_the_inputs_changes_nothing(tmp_path, order):
    folder = tmp_path / "order"
    paths = [str(p) for p in sorted(folder.glob("*"))] or write_all(folder, grid())
    for compare, rtol in (("pooled", 1e-12), ("mesh", 1e-6)):  # sums over cells are of single precision
        reference = skies(paths, method="globalmin+match", compare=compare)
        shuffled = skies([paths[k] for k in order], method="globalmin+match", compare=compare)
        np.testing.assert_allclose(shuffled, reference[list(order)], rtol=rtol)


def nebula(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 40 * np.sin(x / 37) * np.cos(y / 29) + 0.2 * x


@pytest.mark.parametrize(
    "flavour",
    [
        {"dec": 90.0},
        {"dec": -89.995},
        {"ra": 0.0},
        {"ra": 359.999, "dec": -60.0},
        {"mirrored": True},
        {"dec_first": True},
        {"projection": "SIN"},
        {"projection": "ZEA"},
        {"projection": "TPV"},
        {"sip": True},
    ],
    ids=str,
)
def test_the_same_field_gives_the_same_answer_whatever_its_wcs(tmp_path, flavour):
    """Same pixels, another projection or place on the sky: only the choice of pixels at the border may differ."""
    frames = grid(noise=0.0)
    expected = skies(write_all(tmp_path / "plain", frames, scene=nebula))
    found = skies(write_all(tmp_path / "other", [f.but(**flavour) for f in frames], scene=nebula))
    np.testing.assert_allclose(found, expected, atol=0.6)


def test_the_cylindrical_projection_matches_too(tmp_path):
    frames = [f.but(projection="CAR", rotation=0.0) for f in grid(noise=0.0)]
    expected = np.array([f.sky for f in frames])
    np.testing.assert_allclose(skies(write_all(tmp_path, frames)), expected - expected.min(), atol=1e-7)


# --- components and statuses


def test_two_groups_far_apart_are_two_components_each_anchored_at_zero(tmp_path):
    near = row([130.0, 100.0])
    far = [f.but(dec=-40.0, sky=f.sky + 500) for f in near]
    result = skymatch_cli.match(write_all(tmp_path, near + far), dry_run=True)
    np.testing.assert_allclose(plain(result.images["sky"]), [30, 0, 30, 0], atol=1e-7)
    assert list(result.images["component"]) == [0, 0, 1, 1]
    assert list(result.components["n_images"]) == [2, 2]
    assert any("img_2.fits" in str(w) for w in result.warnings)


def with_extra(
    tmp_path: Path, extra: Frame, compare: str = "mesh", **how: object
) -> tuple[skymatch_cli.Result, np.ndarray]:
    """Two good frames with skies 130 and 100, and one more: the result, and what it must be without it."""
    paths = write_all(tmp_path, row([130.0, 100.0]))
    paths.append(write(tmp_path / "extra.fits", extra, **how))
    return skymatch_cli.match(paths, dry_run=True, compare=compare), np.array([30.0, 0.0])


def test_a_fully_masked_image_has_no_sky_and_spoils_nothing(tmp_path):
    extra = Frame(x=15, sky=110)
    result, expected = with_extra(tmp_path, extra, pixels=np.full((40, 40), np.nan))
    assert statuses(result.images) == ["ok", "ok", "all_masked"]
    assert np.isnan(plain(result.images["sky"])[2])
    np.testing.assert_allclose(plain(result.images["sky"])[:2], expected, atol=1e-7)
    assert sorted(statuses(result.overlaps)) == ["all_masked", "all_masked", "ok"]


def test_an_image_that_overlaps_nothing_is_a_component_of_one(tmp_path):
    result, expected = with_extra(tmp_path, Frame(x=3000, sky=110))
    assert statuses(result.images) == ["ok", "ok", "no_overlap"]
    np.testing.assert_allclose(plain(result.images["sky"]), [*expected, 0], atol=1e-7)
    assert list(result.components["n_images"]) == [2, 1]
    assert any("extra.fits" in str(w) for w in result.warnings)


def test_one_nan_in_an_overlap_is_one_pixel_less(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    before = skymatch_cli.match(paths, dry_run=True, compare="pooled")
    with fits.open(paths[0], mode="update") as hdus:
        hdus[0].data[20, 2] = np.nan  # the next frame is to the east: small x
    after = skymatch_cli.match(paths, dry_run=True, compare="pooled")
    np.testing.assert_allclose(plain(after.images["sky"]), plain(before.images["sky"]), atol=1e-7)
    assert int(before.overlaps["n_a"][0]) - int(after.overlaps["n_a"][0]) == 1
    assert statuses(after.overlaps) == ["ok"]


def test_identical_footprints_overlap_whole(tmp_path):
    frame = Frame(sky=110)
    result = skymatch_cli.match(write_all(tmp_path, [frame, frame.but(sky=103.0)]), dry_run=True, compare="pooled")
    np.testing.assert_allclose(plain(result.images["sky"]), [7, 0], atol=1e-7)
    assert int(result.overlaps["n_a"][0]) == int(result.overlaps["n_b"][0]) == 1600
    assert float(result.overlaps["area_arcmin2"][0].value) == pytest.approx(1600 / 3600, rel=1e-6)


def test_one_image_inside_another(tmp_path):
    frames = [Frame(sky=110), Frame(sky=95, nx=10, ny=10, rotation=30)]
    result = skymatch_cli.match(write_all(tmp_path, frames), dry_run=True, compare="pooled")
    np.testing.assert_allclose(plain(result.images["sky"]), [15, 0], atol=1e-7)
    assert int(result.overlaps["n_b"][0]) == 100
    assert abs(int(result.overlaps["n_a"][0]) - 100) < 10


def test_a_sliver_of_two_pixels_is_reported_and_not_used(tmp_path):
    corner = Frame(x=30 + 39.0, y=38.0, sky=500)
    result, expected = with_extra(tmp_path, corner, compare="pooled")
    assert statuses(result.overlaps) == ["ok", "too_few_pixels"]
    assert int(result.overlaps["n_b"][1]) == 2
    np.testing.assert_allclose(plain(result.images["sky"])[:2], expected, atol=1e-7)
    assert statuses(result.images) == ["ok", "ok", "no_overlap"]


def test_no_overlap_at_all_is_an_error_of_its_own(tmp_path):
    paths = write_all(tmp_path, [Frame(), Frame(x=1000)])
    with pytest.raises(NoOverlapError):
        skies(paths)
    np.testing.assert_allclose(skies(paths, method="localmin"), 100)


# --- pixels that count


def test_flagged_pixels_do_not_count(tmp_path):
    paths = []
    for k, frame in enumerate(row([130.0, 100.0])):
        image, dq = frame.pixels(), np.zeros((40, 40), np.int16)
        image[:, :10] += 900 * (k == 0)
        dq[:, :4] = 4 * (k == 0)
        paths.append(write(tmp_path / f"{k}.fits", frame, pixels=image, dq=dq))
    np.testing.assert_allclose(skies(paths, compare="pooled"), [930, 0], atol=1e-7)
    with fits.open(paths[0], mode="update") as hdus:
        hdus["DQ"].data[:, 4:9] = 8
    one_column = skymatch_cli.match(paths, dry_run=True, compare="pooled")
    assert int(one_column.overlaps["n_a"][0]) == 40
    ignored = skymatch_cli.match(paths, dry_run=True, dqbits="none", compare="pooled")
    assert int(ignored.overlaps["n_a"][0]) == 400


def test_user_masks_select_the_good_pixels(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    with fits.open(paths[0], mode="update") as hdus:
        hdus[0].data[:20] += 1000
    for k in range(2):
        mask = np.ones((40, 40), np.uint8)
        mask[:20] = k
        fits.PrimaryHDU(mask).writeto(tmp_path / f"img_{k}_mask.fits")
    template = str(tmp_path / "{stem}_mask.fits")
    np.testing.assert_allclose(skies(paths, mask=template), [30, 0], atol=1e-7)


def test_limits_hold_for_all_images_and_without_clipping(tmp_path):
    paths = write_all(tmp_path, row([130.0, 100.0]))
    with fits.open(paths[0], mode="update") as hdus:
        hdus[0].data[::2] = 5000
    np.testing.assert_allclose(skies(paths, upper=4000, nclip=0, skystat="mean"), [30, 0], atol=1e-7)


# --- noise


def test_integer_images_are_matched_to_a_small_part_of_a_step(tmp_path):
    """Noise of 1-5 ADU, one-ADU steps, true differences of 0.3 ADU: recovered to 0.05 ADU."""
    for noise in (1.0, 2.0, 5.0):
        n = int(max(150, 120 * noise))
        common = {"nx": n, "ny": n, "noise": noise, "dtype": "i2"}
        frames = [
            Frame(sky=100.0, seed=1, **common),
            Frame(sky=100.3, seed=2, **common),
            Frame(sky=100.6, seed=3, **common),
        ]
        found = skies(write_all(tmp_path / str(noise), frames))
        np.testing.assert_allclose(found, [0, 0.3, 0.6], atol=0.05)


def test_the_answer_does_not_depend_on_the_number_of_workers(tmp_path):
    paths = write_all(tmp_path, grid())
    alone = skymatch_cli.match(paths, dry_run=True, jobs=1).to_json()
    assert skymatch_cli.match(paths, dry_run=True, jobs=3).to_json() == alone


@pytest.mark.parametrize("scale", [1e-42, 1e30])
def test_the_mesh_takes_values_of_any_size(tmp_path, scale):
    frames = [f.but(dtype="f4") for f in row([130.0, 100.0], nx=80, ny=80)]
    paths = [write(tmp_path / f"{k}.fits", f, pixels=(f.pixels() * scale).astype("f4")) for k, f in enumerate(frames)]
    found = skies(paths, compare="mesh") / scale
    np.testing.assert_allclose(found, [30, 0], atol=0.1)


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
@pytest.mark.parametrize("unit", [1e-35, 1e18])  # erg / (s cm2 Hz) a pixel; large numbers
def test_errors_are_those_of_any_unit(tmp_path, compare, unit):
    frames = row([130.0, 100.0, 120.0], nx=80, ny=80, noise=5.0, header={})
    errors = []
    for size in (1.0, unit):
        paths = [tmp_path / f"{k}_{size:g}.fits" for k in range(3)]
        for path, frame in zip(paths, frames, strict=True):
            write(path, frame, pixels=(frame.pixels() * size).astype("f4"))
        found = skymatch_cli.match(paths, dry_run=True, compare=compare).images
        errors.append(np.array([found["sky_err"], found["sky_err_noise"]]) / size)
    np.testing.assert_allclose(errors[1], errors[0], rtol=1e-3)


# --- units until they are brought together


def test_units_that_cannot_be_compared_are_an_error_that_names_both(tmp_path):
    frames = row([130.0, 100.0])
    frames[1] = frames[1].but(header={"BUNIT": "K", "EXPTIME": 1.0})
    paths = write_all(tmp_path, frames)
    with pytest.raises(InputError, match=r"img_0.*img_1|img_1.*img_0"):
        skies(paths)
    np.testing.assert_allclose(skies(paths, units="as-is"), [30, 0], atol=1e-7)


def test_exposure_times_are_taken_out(tmp_path):
    """Counts of 10 s and 20 s on skies of 13 and 10 counts a second."""
    frames = row([130.0, 200.0])
    frames[0] = frames[0].but(header={"BUNIT": "electron", "EXPTIME": 10.0})
    frames[1] = frames[1].but(header={"BUNIT": "electron", "EXPTIME": 20.0})
    np.testing.assert_allclose(skies(write_all(tmp_path, frames)), [30, 0], atol=1e-7)
