"""``--mask-sources``: the own sky of an image where stars fill the field."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from skymatch_cli.cli import main
from skymatch_cli.model import Skystat, StatisticSettings, Status
from skymatch_cli.statistics.ownsky import own_sky, without_sources

from .factories import Frame, write

SIZE, NOISE = 160, 3.0


def stars(per_pixel, seed=0, size=SIZE):
    """Light of stars of 2.4 px FWHM, whose counts go from hundreds to ten thousands of electrons, steeply."""
    rng = np.random.default_rng(seed)
    light = np.zeros((size, size))
    at = rng.integers(0, size, (2, int(per_pixel * size * size)))
    np.add.at(light, tuple(at), np.minimum(300 / rng.uniform(size=at.shape[1]), 1e5))
    return gaussian_filter(light, 1.0)


def crowded(k, sky):
    return sky + stars(0.03, k) + np.random.default_rng(k).normal(0, NOISE, (SIZE, SIZE))


@pytest.fixture
def field(tmp_path, monkeypatch):
    """Two frames of crowded fields, with skies of 100 and 130."""
    monkeypatch.chdir(tmp_path)
    for k, sky in enumerate((100.0, 130.0)):
        pixels = crowded(k, sky).astype("f4")
        write(Path(f"img_{k}.fits"), Frame(x=100.0 * k, nx=SIZE, ny=SIZE), pixels=pixels)


def run(*words, code=0):
    done = CliRunner().invoke(main, [*words])
    assert done.exit_code == code, done.stderr
    return done


def skies(*options):
    words = ["match", "--dry-run", "--format", "json", "--method", "localmin", *options, "img_0.fits", "img_1.fits"]
    images = json.loads(run(*words).stdout)["images"]
    return np.array([[row["sky"], row["sky_err"]] for row in images]).T


def own(pixels, good=None):
    good = np.ones(pixels.shape, bool) if good is None else good
    return own_sky(pixels, good, StatisticSettings(), mask_sources=True)


def test_errors_with_the_sources_cover_what_these_do(field):
    sky, err = skies()
    bias = sky - [100, 130]
    assert (bias > 2).all()
    assert (np.abs(bias) < 2 * err).all()


def resampled(rng):
    noise = gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2.0, mode="wrap")
    return NOISE * noise / noise.std()


def of_rows(rng):
    return rng.normal(0, NOISE, (SIZE, SIZE)) + rng.normal(0, 2, (SIZE, 1))


@pytest.mark.parametrize("n_dead", [0, 1, 20])
@pytest.mark.parametrize("noise", [resampled, of_rows])
def test_errors_count_noise_that_pixels_share(noise, n_dead):
    """Independent pixels would make a sixth of it; dead pixels, which are 0, are none without a photon."""
    pulls = []
    for seed in range(12):
        pixels = 100 + noise(np.random.default_rng(seed))
        pixels.flat[: 37 * n_dead : 37] = 0
        found = own_sky(pixels, np.ones(pixels.shape, bool), StatisticSettings(), mask_sources=False)
        pulls.append((found.value - 100) / found.err)
    assert 0.5 < np.sqrt(np.mean(np.square(pulls))) < 1.5


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_masked_pixels_hide_or_leave_the_noise_that_pixels_share(share):
    """With most pixels masked no block has a level: the error is that of independent pixels, and nothing is said."""
    rng = np.random.default_rng(1)
    good = rng.random((SIZE, SIZE)) > share
    found = own_sky(100 + of_rows(rng), good, StatisticSettings(), mask_sources=False)
    independent = 1.2533 * NOISE / np.sqrt(good.sum())
    assert (found.err > 2 * independent) == (share < 0.5)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_single_photons_are_no_sources(rate):
    photons = np.random.default_rng(2).poisson(rate, (SIZE, SIZE)).astype("f4")
    found = own(photons)
    assert found.value == pytest.approx(rate, abs=3 * np.sqrt(rate) / SIZE)
    assert found.err < 4 * np.sqrt(rate) / SIZE


@pytest.mark.parametrize("seed", range(3))
def test_sources_in_a_field_of_single_photons_are_in_the_error(seed):
    """A tenth of a photon in each pixel comes from sources; the noise of the rate is a two-hundredth."""
    rng, size = np.random.default_rng(seed), 256
    (x, y), light = rng.uniform(0, size, (2, 250, 1, 1)), rng.uniform(5, 60, (250, 1, 1))
    j, i = np.mgrid[:size, :size]
    scene = 1 + (light / (8 * np.pi) * np.exp(-((i - x) ** 2 + (j - y) ** 2) / 8)).sum(axis=0)
    photons = rng.poisson(scene).astype("f4")
    found = own_sky(photons, np.ones(photons.shape, bool), StatisticSettings(), mask_sources=False)
    assert 0.05 < found.value - 1 < 2 * found.err


@pytest.mark.parametrize("mask_sources", [False, True])
def test_a_plain_field_has_the_error_of_its_noise(mask_sources):
    pixels = np.random.default_rng(1).normal(100, NOISE, (SIZE, SIZE))
    found = own_sky(pixels, np.ones(pixels.shape, bool), StatisticSettings(), mask_sources=mask_sources)
    assert found.err == pytest.approx(1.2533 * NOISE / SIZE, rel=1.0 if mask_sources else 0.1)
    assert abs(found.value - 100) < 3 * found.err


def test_the_sky_between_crowded_stars_is_found(field):
    plain, _ = skies()
    found, err = skies("--mask-sources")
    assert (plain - [100, 130] > 4).all()
    assert (np.abs(found - [100, 130]) < 0.5).all()
    assert (np.abs(found - [100, 130]) < 3 * err).all()


def test_the_lowest_sky_is_zero_when_sources_are_masked(field):
    words = ["match", "--dry-run", "--format", "json", "--method", "globalmin+match", "--mask-sources"]
    rows = json.loads(run(*words, "img_0.fits", "img_1.fits").stdout)["images"]
    assert rows[0]["sky"] == pytest.approx(100, abs=1) or rows[1]["sky"] == pytest.approx(130, abs=1)


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
def test_the_result_does_not_depend_on_jobs_or_comparison(field, compare):
    np.testing.assert_array_equal(skies("--mask-sources", "--compare", compare, "--jobs", "2"), skies("--mask-sources"))


def test_masked_pixels_play_no_part(field):
    masks = {"DQ": np.zeros((SIZE, SIZE), "i4"), "mask": np.ones((SIZE, SIZE), "u1")}
    masks["DQ"][:40], masks["mask"][:, :30] = 1, 0
    answers = []
    for garbage in (0.0, 5e4):
        for k, sky in enumerate((100.0, 130.0)):
            pixels = crowded(k, sky)
            pixels[:40] += garbage
            pixels[:, :30] -= garbage
            Path(f"img_{k}.fits").unlink()
            write(Path(f"img_{k}.fits"), Frame(x=100.0 * k, nx=SIZE, ny=SIZE), pixels=pixels, dq=masks["DQ"])
            fits.PrimaryHDU(masks["mask"]).writeto(f"img_{k}_good.fits", overwrite=True)
        answers.append(skies("--mask-sources", "--mask", "{stem}_good.fits"))
    np.testing.assert_array_equal(*answers)
    assert (np.abs(answers[0][0] - [100, 130]) < 1.5).all()


def test_a_store_keeps_both(field):
    one = ["--store", "field.db"]
    plain, masked = skies(*one), skies("--mask-sources", *one)
    assert (plain[0] - masked[0] > 4).all()
    np.testing.assert_array_equal(skies(*one), plain)
    np.testing.assert_array_equal(skies("--mask-sources", *one), masked)


def test_steps_and_a_configuration_take_it(field):
    Path("field.toml").write_text('mask-sources = true\nmethod = "localmin"\n')
    run("plan", "--store", "field.db", "-o", "plan.csv", "img_0.fits", "img_1.fits")
    run("measure", "field.db", "--mask-sources")
    solved = json.loads(run("solve", "field.db", "--method", "localmin", "--format", "json").stdout)
    words = ["match", "--dry-run", "--config", "field.toml", "--format", "json", "img_0.fits", "img_1.fits"]
    matched = json.loads(run(*words).stdout)
    assert [row["sky"] for row in solved["images"]] == [row["sky"] for row in matched["images"]]
    assert matched["settings"]["mask_sources"] is True


def test_cells_need_no_mask(field):
    said = run("match", "--dry-run", "--mask-sources", "img_0.fits", "img_1.fits", code=2).stderr
    assert "--mask-sources has no effect with --compare mesh and --method match" in said


def test_pooled_overlaps_are_compared_without_their_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for k, (seeing, sky) in enumerate([(0.0, 100.0), (2.0, 130.0)]):
        pixels = sky + gaussian_filter(stars(0.03), seeing) + rng.normal(0, NOISE, (SIZE, SIZE))
        write(Path(f"img_{k}.fits"), Frame(nx=SIZE, ny=SIZE), pixels=pixels.astype("f4"))
    words = ["match", "--dry-run", "--format", "json", "--compare", "pooled", "img_0.fits", "img_1.fits"]
    plain, masked = (
        abs(json.loads(run(*words, *more).stdout)["overlaps"][0]["delta"] + 30) for more in ([], ["--mask-sources"])
    )
    assert masked < 0.5 * plain


@pytest.mark.parametrize("width", [0.0, 1.5])
def test_noise_is_no_source(width):
    pixels = gaussian_filter(np.random.default_rng(1).normal(0, 1, (300, 300)), width)
    assert without_sources(pixels, np.ones(pixels.shape, bool)).mean() > 0.9
    assert own(50 + pixels).value == pytest.approx(50, abs=0.06 * pixels.std())


def test_an_image_without_sky_says_so_as_ever():
    nothing = own(np.ones((50, 50)), np.zeros((50, 50), bool))
    assert nothing.status == Status.ALL_MASKED
    assert not without_sources(np.ones((50, 50)), np.zeros((50, 50), bool)).any()
    flat = own(np.full((50, 50), 7.0))
    assert (flat.value, flat.status) == (7.0, Status.OK)


def test_a_small_image_has_a_sky():
    found = own(np.arange(36.0).reshape(6, 6))
    assert found.status == Status.OK
    assert found.err > 0


def test_a_single_overlap_is_said_as_one(field):
    said = run("match", "--dry-run", "--method", "localmin", "--mask-sources", "img_0.fits", "img_1.fits").stderr
    assert "the overlap agrees within its error" in " ".join(said.split())


@pytest.mark.parametrize(("skystat", "below"), [("median", 1 / 6), ("mode", 1 / 2), ("mean", 0.0)])
@pytest.mark.parametrize("step", [1.0, 0.37])
def test_the_skewness_of_photons_is_no_source_but_an_error(skystat, below, step):
    """The median of a Poisson distribution is a sixth of a count below its mean, the mode half a count."""
    n, rate = 200, 12.0
    pixels = (step * np.random.default_rng(3).poisson(rate, (n, n))).astype("f4")
    found = own_sky(pixels, np.ones((n, n), bool), StatisticSettings(skystat=Skystat(skystat)), mask_sources=False)
    noise = np.sqrt(found.err**2 - found.crowding**2) / step
    assert found.value / step - rate == pytest.approx(-below, abs=0.1)
    assert found.crowding / step == pytest.approx(below, abs=0.1)
    assert noise == pytest.approx(np.sqrt(rate) / n, rel=2.0 if skystat == "mode" else 0.3)


def test_the_noise_of_own_skies_is_kept_apart(field):
    done = run("match", "--dry-run", "--format", "json", "--method", "localmin", "img_0.fits", "img_1.fits")
    for row in json.loads(done.stdout)["images"]:
        # stars make most of the error; the median of 25,600 pixels with a noise of 3 counts has 0.02
        assert 0.02 < row["sky_err_noise"] < 0.1 * row["sky_err"]
