"""Errors of pooled statistics: what the pieces of overlaps show beyond the noise of independent pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

import skymatch_cli

from .factories import Frame, write
from .test_hard_scenes import stars

SIZE, NOISE = 128, 3.0
PLACES = [(0.75 * SIZE * i, 0.75 * SIZE * j) for j in (0, 1) for i in (0, 1)]
V, U = np.mgrid[-0.5 : 0.5 : SIZE * 1j, -0.5 : 0.5 : SIZE * 1j]


def tiled(folder: Path, seed: int, shapes=None, scene=None, pixels=None):
    """A result of four frames, two by two, that overlap by a quarter: their errors, and it."""
    frames = [Frame(x=x, y=y, nx=SIZE, ny=SIZE, noise=NOISE, seed=9 * seed + k) for k, (x, y) in enumerate(PLACES)]
    pixels = pixels or [frame.pixels(scene) for frame in frames]
    shapes = shapes or [0.0] * len(frames)
    folder.mkdir()
    paths = [
        write(folder / f"{k}.fits", f, pixels=(p + s).astype("f4"))
        for k, (f, p, s) in enumerate(zip(frames, pixels, shapes, strict=True))
    ]
    result = skymatch_cli.match(paths, dry_run=True, compare="pooled")
    sky = np.asarray(result.images["sky"], float)
    return sky - sky.mean(), np.asarray(result.images["sky_err"], float), result


def test_plain_fields_have_the_errors_of_their_noise_and_no_warning(tmp_path):
    pulls, noise = [], []
    for seed in range(10):
        error, err, result = tiled(tmp_path / str(seed), seed)
        assert not result.warnings
        pulls.extend(error / err)
        noise.extend(np.asarray(result.images["sky_err_noise"]) / err)
    assert 0.7 < np.std(pulls) < 1.3
    assert np.median(noise) == pytest.approx(1, abs=0.01)  # but for loops that do not close, by chance


@pytest.mark.parametrize("kind", ["gradients", "bowls"])
def test_structure_within_images_is_in_their_errors_and_said(tmp_path, kind):
    pulls = []
    for seed in range(6):
        sizes = np.random.default_rng(seed).normal(0, 6, (4, 2))
        sizes -= sizes.mean(axis=0)
        bowl = U**2 + V**2 - np.mean(U**2 + V**2)
        shapes = [a * U + b * V if kind == "gradients" else 4 * a * bowl for a, b in sizes]
        error, err, result = tiled(tmp_path / str(seed), seed, shapes)
        assert "disagreement" in [w.name for w in result.warnings]
        assert (np.asarray(result.images["sky_err_noise"]) < 0.35 * err).all()
        pulls.extend(error / err)
    assert 0.5 < np.std(pulls) < 1.5
    assert np.abs(pulls).max() < 4


def test_noise_that_pixels_share_is_noise(tmp_path):
    # means of 3 x 3 pixels: a third of the noise in each, and in the mean over an overlap as much as before
    rng = np.random.default_rng(1)
    smooth = [100 + uniform_filter(rng.normal(0, 3 * NOISE, (SIZE, SIZE)), 3, mode="wrap") for _ in PLACES]
    rough = [100 + rng.normal(0, NOISE, (SIZE, SIZE)) for _ in PLACES]
    (_, err, _), (_, white, _) = (tiled(tmp_path / name, 0, pixels=p) for name, p in (("a", smooth), ("b", rough)))
    assert err / white == pytest.approx(3, rel=0.3)


def test_crowded_fields_with_other_seeing_are_uncertain_by_what_stands_between_stars(tmp_path):
    frames = [Frame(x=x, y=y, nx=SIZE, ny=SIZE, noise=NOISE, seed=k) for k, (x, y) in enumerate(PLACES)]
    pixels = [stars(frame, fwhm, 2e-2) for frame, fwhm in zip(frames, (2.0, 4.0, 2.0, 4.0), strict=True)]
    error, err, result = tiled(tmp_path / "crowded", 0, pixels=pixels)
    by_noise = np.asarray(result.images["sky_err_noise"])
    assert np.abs(error).max() > 5 * by_noise.max()
    assert (np.abs(error) < 4 * err).all()
    (warning,) = [w for w in result.warnings if w.name == "crowded"]
    assert "--compare mesh" in warning.text


def test_factors_between_images_of_a_nebula_are_found(tmp_path):
    def nebula(x, y):
        return 300 + 200 * np.sin(x / 25) * np.cos(y / 31)

    frames = [Frame(x=x, y=y, nx=SIZE, ny=SIZE, noise=NOISE, seed=k) for k, (x, y) in enumerate(PLACES)]
    pixels = [frame.pixels(nebula) for frame in frames]
    pixels[3] = 100 + 1.05 * (pixels[3] - 100)
    error, err, result = tiled(tmp_path / "factors", 0, pixels=pixels)
    (warning,) = [w for w in result.warnings if w.name == "zero-points"]
    assert "3.fits (+" in warning.text
    assert 1 < np.abs(error).max() < 4 * err[np.abs(error).argmax()]


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_unit_that_is_wrong_by_a_large_factor_is_said(tmp_path, compare):
    frames = [Frame(x=x, y=y, nx=SIZE, ny=SIZE, noise=NOISE, seed=k) for k, (x, y) in enumerate(PLACES)]
    pixels = [stars(frame, 3.0, 3e-3) for frame in frames]
    deep = Frame(nx=SIZE, ny=SIZE, noise=NOISE / 30, seed=9)  # a deep image has the same stars

    def said(*images):
        paths = [tmp_path / f"{k}.fits" for k in range(len(images))]
        for path, (frame, data) in zip(paths, images, strict=True):
            path.unlink(missing_ok=True)
            write(path, frame, pixels=data.astype("f4"))
        warnings = skymatch_cli.match(list(map(str, paths)), dry_run=True, compare=compare).warnings
        return [w.text for w in warnings if w.name == "units"]

    three = list(zip(frames, pixels, strict=True))[:3]
    assert not said(*three, (deep, stars(deep, 3.0, 3e-3)))
    assert not said(*((f, f.pixels()) for f in frames[:3]), (deep, deep.pixels()))
    (text,) = said(*three, (frames[3], 300 * pixels[3]))
    assert "3.fits (times" in text
