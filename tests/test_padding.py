"""Exact values that are no sky are found by themselves; those that are sky stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.images.padding import find_padding

from .factories import Frame

SHAPE = (128, 128)


def found(data: np.ndarray, **options: object):
    data = np.asarray(data, np.float32)
    return find_padding(data, np.isfinite(data), **options)


def corners(size: int = 128) -> np.ndarray:
    """True outside of a square that is turned by 45 degrees."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.abs(x) + np.abs(y) > 0.6 * size


def noise(level: float = 100.0) -> np.ndarray:
    return np.random.default_rng(5).normal(level, 3.0, SHAPE)


@pytest.mark.parametrize("value", [0.0, -32768.0, -9999.0, -1.6e30, 1e20])
def test_a_value_at_the_border_that_stands_apart(value: float) -> None:
    data = np.where(corners(), value, noise())
    padding = found(data)
    assert padding is not None
    assert padding.value == np.float32(value)
    assert padding.share == pytest.approx(corners().mean())
    np.testing.assert_array_equal(padding.left_out, corners())


@pytest.mark.parametrize("dithered", [1, 2])
def test_zeros_that_lossy_compression_has_spread(dithered: int, tmp_path: Path) -> None:
    original = np.where(corners(), 0.0, noise()).astype("f4")
    hdu = fits.CompImageHDU(original, compression_type="RICE_1", quantize_level=4, quantize_method=dithered)
    hdu.writeto(tmp_path / "a.fits.fz")
    data = fits.getdata(tmp_path / "a.fits.fz", 1)
    assert (dithered == 2) == bool(np.all(data[corners()] == 0))
    padding = found(data)
    np.testing.assert_array_equal(padding.left_out, corners())
    assert (padding.within > 0) == (dithered != 2)
    assert found(data, keep=[0.0]) is None or dithered != 2


@pytest.mark.parametrize("level", [-40.0, 40.0])
def test_pixels_about_zero_that_lead_to_a_scene_or_lie_within_the_frame_stay(level: float) -> None:
    ramp = np.linspace(0, 1, SHAPE[1]) * level * np.ones(SHAPE)
    assert found(np.random.default_rng(5).normal(ramp, 3.0)) is None
    dark = noise(level)
    dark[40:60, 40:60] = np.random.default_rng(5).normal(0, 0.3, (20, 20))
    assert found(dark) is None


def test_zeros_around_a_frame_whose_sky_is_subtracted() -> None:
    np.testing.assert_array_equal(found(np.where(corners(), 0.0, noise(0.0))).left_out, corners())


def test_integers_around_zero_padding() -> None:
    np.testing.assert_array_equal(found(np.where(corners(), 0, np.rint(noise()))).left_out, corners())


def test_half_of_a_frame() -> None:
    data = noise()
    data[10:-10, 10:110] = -999.0
    assert found(data).left_out.sum() == 108 * 100


def test_a_value_within_the_frame_is_only_noted() -> None:
    data = noise()
    data[40:60, 40:60] = -999.0
    padding = found(data)
    assert padding is not None
    assert padding.left_out is None
    assert padding.share == pytest.approx(400 / data.size)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_value_amid_those_of_the_sky_is_noted_where_these_are_all_different(value: float) -> None:
    """A narrow gap between chips, in frames whose sky was subtracted."""
    data = np.random.default_rng(5).normal(0, 8, SHAPE).astype("f4")
    data[:, 40:44] = value
    padding = found(data)
    assert padding is not None
    assert padding.left_out is None
    assert padding.share == pytest.approx(4 / SHAPE[1])
    assert not padding.cut_off
    assert found(np.rint(data)) is None
    for cut in (found(np.maximum(data, value)), found(np.minimum(data, value))):
        assert cut is not None
        assert cut.left_out is None
        assert cut.cut_off


def test_a_saturated_object_is_noted_and_no_sky_that_was_cut_off() -> None:
    y, x = np.mgrid[:256, :256] - 127.5
    light = 400 * np.exp(-(x**2 + y**2) / 2 / 100**2) + np.random.default_rng(5).normal(0, 3, x.shape)
    padding = found(np.minimum(light, 300))
    assert padding is not None
    assert padding.value == 300
    assert padding.left_out is None
    assert not padding.cut_off


@pytest.mark.parametrize("mean", [0.2, 0.3, 0.6])
def test_zeros_of_rates_under_a_falling_exposure_stay(mean: float) -> None:
    """Where the exposure map says which pixels were seen: single photons have many values there, all of one size."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:300, :300] - 149.5
    sx, sy, peak = rng.uniform(-150, 150, 60), rng.uniform(-150, 150, 60), 12 * rng.pareto(1.2, 60)
    stars = sum(a * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 4) for u, v, a in zip(sx, sy, peak, strict=True))
    radius = np.hypot(x, y) / 150
    exposure = np.where(radius < 0.95, 100 * (1 - 0.15 * radius**2), 0)
    counts = rng.poisson(exposure * mean / 100 * (1 + stars))
    rates = np.divide(counts, exposure, out=np.zeros_like(exposure), where=exposure > 0).astype("f4")
    found = find_padding(rates, exposure > 0)
    assert found is None or found.left_out is None


def test_zeros_in_every_second_column() -> None:
    data = np.random.default_rng(1).normal(100, 1, (64, 64)).astype("f4")
    data[:, ::2] = 0
    found = find_padding(data, np.ones(data.shape, np.bool_))
    assert found is not None
    assert found.left_out is not None
    np.testing.assert_array_equal(found.left_out, data == 0)


@pytest.mark.parametrize(("mean", "size"), [(0.01, 300), (0.02, 128), (0.3, 128), (1.0, 128), (5.0, 128), (100.0, 128)])
def test_photons_are_no_padding(mean: float, size: int) -> None:
    """Areas without a photon were left out in a fifth of the sparsest frames."""
    frames = [np.random.default_rng(k).poisson(mean, (size, size)) for k in range(40)]
    assert sum(found(frame) is not None for frame in frames) <= (mean < 0.1)


@pytest.mark.parametrize("mean", [0.05, 0.2, 0.3, 1.0])
def test_zeros_of_photons_that_were_resampled_were_not_cut_off(mean: float) -> None:
    """Each photon is shared between the four pixels around its place, as by drizzle."""
    rng = np.random.default_rng(5)
    data = np.zeros((400, 400), "f4")
    x, y = rng.uniform(0, 399, (2, int(mean * data.size)))
    for j in (0, 1):
        for i in (0, 1):
            np.add.at(data, (y.astype(int) + j, x.astype(int) + i), abs(1 - j - y % 1) * abs(1 - i - x % 1))
    assert found(data) is None


@pytest.mark.parametrize("sigma", [0.35, 0.5, 3.0])
def test_coarse_integers_are_no_padding(sigma: float) -> None:
    assert found(np.rint(np.random.default_rng(5).normal(20.2, sigma, SHAPE))) is None


@pytest.mark.parametrize("mean", [0.1, 0.3, 1.0])
def test_zeros_of_photons_stay_where_zeros_outside_of_the_field_go(mean: float) -> None:
    y, x = np.mgrid[:256, :256] - 127.5
    outside = np.hypot(x, y) > 100
    data = np.where(outside, 0, np.random.default_rng(5).poisson(mean, (256, 256)))
    padding = found(data)
    assert padding is not None
    assert (padding.left_out & outside).sum() > 0.9 * outside.sum()
    beside = np.hypot(x, y) > 85
    assert (padding.left_out & ~beside).sum() < 0.01 * (~beside).sum()
    left = ~outside & ~padding.left_out
    assert data[left].mean() == pytest.approx(data[~outside].mean(), rel=0.02)


def test_zeros_of_counts_divided_by_their_exposure_stay() -> None:
    y, x = np.mgrid[:256, :256] - 127.5
    outside = np.hypot(x, y) > 100
    exposure = 100 - 0.001 * x**2 - 0.001 * y**2
    data = np.where(outside, 0, np.random.default_rng(5).poisson(0.3, (256, 256)) / exposure)
    left = ~outside & ~found(data).left_out
    assert left.sum() > 0.7 * (~outside).sum()
    assert data[left].mean() == pytest.approx(0.3 / exposure[left].mean(), rel=0.03)


def test_noise_free_images_are_no_padding() -> None:
    assert found(np.full(SHAPE, 100.0)) is None
    with_star = np.full(SHAPE, 100.0)
    with_star[30:50, 30:50] = 500.0
    assert found(with_star) is None
    assert found(np.add.outer(np.arange(128.0), np.arange(128.0))) is None


@pytest.mark.parametrize("value", [0.0, -32768.0, 65535.0])
def test_a_frame_that_was_never_exposed(value: float) -> None:
    padding = found(np.full(SHAPE, value))
    assert padding is not None
    assert padding.whole
    assert padding.left_out.all()


def test_a_value_that_is_kept() -> None:
    assert found(np.where(corners(), 0.0, noise()), keep=(0.0,)) is None


def test_a_pair_with_padding_is_matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, sky in (("a", 100.0), ("b", 107.5)):
        frame = Frame(sky=sky, x=20.0 * (name == "b"), nx=128, ny=128, noise=2.0, seed=ord(name))
        fits.PrimaryHDU(np.where(corners(), 0.0, frame.pixels()).astype("f4"), frame.hdu_header()).writeto(
            f"{name}.fits"
        )

    def run(*options: str) -> tuple[float, int, list[str]]:
        done = CliRunner().invoke(main, ["match", "--dry-run", "--format", "json", *options, "a.fits", "b.fits"])
        result = json.loads(done.stdout)
        first, second = result["images"]
        return second["sky"] - first["sky"], first["n_pixels"], [warning["text"] for warning in result["warnings"]]

    sky, n, said = run()
    assert sky == pytest.approx(7.5, abs=0.15)
    assert any(
        "are exactly 0 and are left out as padding (--subtract changes them all the same)" in text for text in said
    )
    strict = CliRunner().invoke(main, ["match", "--dry-run", "--strict", "a.fits", "b.fits"])
    assert strict.exit_code == 0  # nothing is left to do
    assert "a.fits: " in strict.stderr  # but it is told
    assert "are left out as padding" in strict.stderr
    assert "the same of 1 more image" in strict.stderr
    assert run("--ignore-value", "0") == (sky, n, [text for text in said if "padding" not in text])
    _, with_padding, said = run("--keep-value", "0", "--compare", "pooled", "--nclip", "0")
    assert not any("padding" in text for text in said)
    assert with_padding > n
