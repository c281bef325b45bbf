"""Scenes that are hard for a comparison by mesh, as small inputs; the right value stands in each test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skymatch_cli
from skymatch_cli.compare.mesh.sharp import without_lines
from skymatch_cli.model.warning import counted
from skymatch_cli.statistics.amplifiers import amplifier_steps

from .commands import run
from .factories import Frame, write, write_all

SIZE = 128


def differences(paths: list[str], **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """By how much each image is brighter than the first, and the error of that."""
    overlaps = skymatch_cli.match(paths, dry_run=True, compare="mesh", **settings).overlaps
    first = np.asarray(overlaps["a"]) == 0
    return tuple(
        np.append(0.0, sign * np.asarray(overlaps[n], float)[first]) for n, sign in (("delta", -1), ("delta_err", 1))
    )


def written(folder: Path, pixels: list[np.ndarray], step: float = 64.0) -> list[str]:
    """Frames of 1 arcsec a pixel, one beside the other."""
    paths = []
    for k, data in enumerate(pixels):
        frame = Frame(x=step * k, nx=data.shape[1], ny=data.shape[0])
        paths.append(write(folder / f"{k}.fits", frame, pixels=data))
    return paths


def stars(frame: Frame, fwhm: float, density: float, seed: int = 3) -> np.ndarray:
    """Stars of a Moffat profile (beta 3) and of 100 counts and more, in a field that all frames share."""
    rng = np.random.default_rng(seed)
    n = int(density * 400**2)
    sx, sy = rng.uniform(-200, 200, (2, n))
    flux = np.minimum(100 * (rng.pareto(1.0, n) + 1), 3e4)
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        out = np.zeros(x.shape)
        for px, py, f in zip(sx, sy, flux, strict=True):
            near = (np.abs(x - px) < 20 * alpha) & (np.abs(y - py) < 20 * alpha)
            r2 = (x[near] - px) ** 2 + (y[near] - py) ** 2
            out[near] += f * 2 / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -3
        return out

    return frame.pixels(scene)


@pytest.mark.parametrize("rate", [0.03, 0.1, 1.0])
def test_sparse_counts_have_the_mean_of_the_photons(tmp_path, rate):
    rng = np.random.default_rng(1)
    pixels = [rng.poisson(mean, (SIZE, SIZE)).astype("i2") for mean in (rate, 2 * rate)]
    sky, err = differences(written(tmp_path, pixels))
    assert err[1] == pytest.approx(np.sqrt(3 * rate / (64 * SIZE)), rel=0.3)
    assert abs(sky[1] - rate) < 4 * err[1]


def test_blocks_without_a_photon_weigh_no_more_than_others(tmp_path):
    pulls = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pixels = [rng.poisson(mean, (192, 192)).astype("i2") for mean in (0.01, 0.02)]
        folder = tmp_path / str(seed)
        folder.mkdir()
        sky, err = differences(written(folder, pixels, 96.0))
        assert err[1] == pytest.approx(np.sqrt(0.03 / (96 * 192)), rel=0.6)  # some 280 and 550 photons
        pulls.append((sky[1] - 0.01) / err[1])
    assert np.sqrt(np.mean(np.square(pulls))) < 1.5


def test_amplified_photons_are_no_outliers(tmp_path):
    rng = np.random.default_rng(2)
    pixels = [rng.poisson(mean, (SIZE, SIZE)) + rng.normal(0, 0.05, (SIZE, SIZE)) for mean in (0.05, 0.15)]
    sky, err = differences(written(tmp_path, [p.astype("f4") for p in pixels]))
    assert err[1] == pytest.approx(np.sqrt(0.2 / (64 * SIZE)), rel=0.3)
    assert abs(sky[1] - 0.1) < 4 * err[1]


def test_pooled_statistics_say_that_they_clip_amplified_photons(tmp_path):
    rng = np.random.default_rng(2)
    pixels = [rng.poisson(mean, (SIZE, SIZE)) + rng.normal(0, 0.05, (SIZE, SIZE)) for mean in (0.05, 0.15)]
    paths = written(tmp_path, [p.astype("f4") for p in pixels])
    said = [w for w in skymatch_cli.match(paths, dry_run=True, compare="pooled").warnings if w.name == "photons"]
    assert [w.amplitude for w in said] == pytest.approx([1 - np.exp(-0.05), 1 - np.exp(-0.15)], rel=0.1)
    unclipped = skymatch_cli.match(paths, dry_run=True, compare="pooled", skystat="mean", nclip=0)
    assert not unclipped.warnings
    sky, err = (np.asarray(unclipped.images[name], float) for name in ("sky", "sky_err"))
    assert abs(sky[1] - sky[0] - 0.1) < 4 * 2 * err[0]


@pytest.mark.parametrize("what", ["stars", "hot pixels", "trails"])
def test_what_clipping_is_for_is_not_taken_for_photons(tmp_path, what):
    rng = np.random.default_rng(6)
    frame = Frame(nx=SIZE, ny=SIZE, sky=100.0, noise=5.0)
    pixels = stars(frame, 2.4, 3e-2) if what == "stars" else frame.pixels()
    if what == "hot pixels":
        hot = rng.random(pixels.shape) < 0.03
        pixels[hot] += np.exp(rng.uniform(np.log(50), np.log(50000), np.count_nonzero(hot)))
    elif what == "trails":
        for _ in range(60):
            y, x = rng.integers(0, SIZE - 12, 2)
            pixels[y, x : x + rng.integers(4, 12)] += 3000
    paths = written(tmp_path, [pixels, pixels + rng.normal(0, 5, pixels.shape)])
    warnings = skymatch_cli.match(paths, dry_run=True, compare="pooled").warnings
    assert "photons" not in [w.name for w in warnings]


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_pixels_masked_at_random_cost_their_share_only(tmp_path, share):
    rng = np.random.default_rng(3)
    pixels = [rng.normal(level, 5, (SIZE, SIZE)) for level in (100, 130)]
    for data in pixels:
        data[rng.random(data.shape) < share] = np.nan
    sky, err = differences(written(tmp_path, pixels))
    assert err[1] == pytest.approx(5 * np.sqrt(2 / ((1 - share) * 64 * SIZE)), rel=0.3)
    assert abs(sky[1] - 30) < 4 * err[1]


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("height", [5, -5, 40])
def test_hot_and_dead_lines_of_a_detector_shift_no_sky(tmp_path, axis, height):
    paths = []
    for k in (0, 1):
        frame = Frame(**{axis: 96.0 * k}, nx=SIZE, ny=SIZE)
        pixels = frame.pixels(lambda x, y: 0 * x) + np.random.default_rng(k).normal(0, 3, (SIZE, SIZE))
        hot = pixels if axis == "y" else pixels.T
        hot[[40, 110, 117]] += height  # two of them in the overlap, of the first frame only: 0.31 for a height of 5
        paths.append(write(tmp_path / f"{k}.fits", frame, pixels=pixels))
    found, err = differences(paths)
    assert abs(found[1]) < 3 * err[1] < 0.3


def test_crowded_stars_and_odd_columns_are_no_hot_lines():
    frame = Frame(nx=SIZE, ny=SIZE, noise=5)
    everywhere = np.ones((SIZE, SIZE), bool)
    for seed in range(4):
        pixels = crowded(frame, 1.6, seed)
        assert without_lines(pixels, everywhere).all()
        pixels[:, ::2] += 5
        assert without_lines(pixels, everywhere).all()


def test_cosmic_rays_at_the_border_are_found_too(tmp_path):
    rng = np.random.default_rng(4)
    pixels = [rng.normal(level, 5, (SIZE, SIZE)) for level in (100, 130)]
    clean = differences(written(tmp_path, pixels))
    pixels[0][0, 66:120:9] += 3000
    pixels[0][80:84, SIZE - 1] += 3000
    hit = differences(written(tmp_path / "hit", pixels) if (tmp_path / "hit").mkdir() is None else [])
    assert abs(hit[0][1] - clean[0][1]) < 0.5 * clean[1][1]


@pytest.mark.parametrize("value", [1e15, -4e21, -2.4e37])
def test_pixels_of_any_size_are_outliers(tmp_path, value):
    rng = np.random.default_rng(4)
    pixels = [rng.normal(level, 1, (20, 24)).astype("f4") for level in (100, 103)]
    clean = differences(written(tmp_path, pixels, step=0))
    pixels[0][0, 6:9] = value, 0.1 * value, 0  # too much alike to be cosmic rays
    hit = differences(written(tmp_path / "hit", pixels, step=0) if (tmp_path / "hit").mkdir() is None else [])
    assert hit[0][1] == pytest.approx(clean[0][1], abs=2 * clean[1][1])
    assert hit[1][1] < 0.2


def test_stars_cancel_where_one_image_has_twice_the_seeing(tmp_path):
    errors = []
    for seed in range(3):
        frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=100 + 30 * k, noise=5, seed=9 * seed + k) for k in (0, 1)]
        images = [stars(frame, fwhm, 2e-3, seed) for frame, fwhm in zip(frames, (2.4, 4.8), strict=True)]
        folder = tmp_path / str(seed)
        folder.mkdir()
        sky, err = differences(written(folder, images))
        assert err[1] < 4 * 5 * np.sqrt(2 / (64 * SIZE))
        errors.append((sky[1] - 30) / err[1])
    assert np.abs(errors).max() < 4


def crowded(frame: Frame, sigma: float, seed: int, n: int = 640) -> np.ndarray:
    """Gaussian stars of 500 to 100,000 counts."""
    rng = np.random.default_rng(seed)
    sx, sy = rng.uniform(-200, 200, (2, n))
    flux = np.exp(rng.uniform(np.log(500), np.log(1e5), n))

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        out = np.zeros(x.shape)
        for px, py, f in zip(sx, sy, flux, strict=True):
            near = (np.abs(x - px) < 6 * sigma) & (np.abs(y - py) < 6 * sigma)
            r2 = (x[near] - px) ** 2 + (y[near] - py) ** 2
            out[near] += f / (2 * np.pi * sigma**2) * np.exp(-0.5 * r2 / sigma**2)
        return out

    return frame.pixels(scene)


def test_wide_seeing_makes_no_image_of_a_crowded_field_brighter(tmp_path):
    errors = []
    for seed in range(8):
        frames = [Frame(nx=SIZE, ny=SIZE, noise=5, seed=seed + 100 * k) for k in (0, 1)]
        paths = [
            write(tmp_path / f"{seed}-{k}.fits", frame, pixels=crowded(frame, sigma, seed))
            for k, (frame, sigma) in enumerate(zip(frames, (1.02, 1.61), strict=True))
        ]
        errors.append(differences(paths)[0][1])
    assert abs(np.mean(errors)) < 0.25  # 0.4 where a star counts less than the cells that its light is moved to


def test_stars_beside_the_border_of_a_frame_shift_no_sky(tmp_path):
    errors = []
    for seed in range(8):
        frames = [Frame(x=66.0 * k - 32, nx=SIZE, ny=SIZE, noise=2, seed=seed + 100 * k) for k in (0, 1)]
        paths = [
            write(tmp_path / f"{seed}-{k}.fits", frame, pixels=crowded(frame, 1.3, seed, n=1500))
            for k, frame in enumerate(frames)
        ]
        errors.append(differences(paths)[0][1])
    assert np.sqrt(np.mean(np.square(errors))) < 0.3  # 0.54 where cells that the border cuts count in full


def test_stars_that_keep_their_counts_in_distorted_images_shift_no_sky(tmp_path):
    errors = []
    for seed in range(4):
        frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=0.0, noise=0.0, sip=True) for k in (0, 1)]
        pixels = []
        for k, frame in enumerate(frames):
            light = stars(frame, 2.4, 1e-2, seed)
            noise = np.random.default_rng(9 * seed + k).normal(100 + 30 * k, 5, light.shape)
            pixels.append(pixel_areas(frame) * light + noise)
        folder = tmp_path / str(seed)
        folder.mkdir()
        paths = [write(folder / f"{k}.fits", f, pixels=p) for k, (f, p) in enumerate(zip(frames, pixels, strict=True))]
        sky, err = differences(paths)
        errors.append((sky[1] - 30) / err[1])
    assert np.sqrt(np.mean(np.square(errors))) < 1.4  # 2 where this light counts in full


@pytest.mark.parametrize("seeing", [(2.4, 2.4), (2.4, 3.6)])
def test_a_bright_star_in_an_overlap_is_no_disagreement(tmp_path, seeing):
    frames = [Frame(x=96.0 * (k % 2), y=96.0 * (k // 2), nx=SIZE, ny=SIZE, sky=100, noise=3, seed=k) for k in range(4)]
    pixels = []
    for k, frame in enumerate(frames):
        alpha = seeing[k % 2] / (2 * np.sqrt(2 ** (1 / 3) - 1))
        peak = 1500 * (seeing[0] / seeing[k % 2]) ** 2
        pixels.append(frame.pixels(lambda x, y, a=alpha, p=peak: p * (1 + ((x - 48) ** 2 + (y - 5) ** 2) / a**2) ** -3))
    paths = [write(tmp_path / f"{k}.fits", f, pixels=p) for k, (f, p) in enumerate(zip(frames, pixels, strict=True))]
    result = skymatch_cli.match(paths, dry_run=True, compare="mesh")
    sky, err = (np.asarray(result.images[name], float) for name in ("sky", "sky_err"))
    assert "disagreement" not in [w.name for w in result.warnings]
    assert np.abs(sky - sky.mean()).max() < 3.5 * err.max() < 0.5


def pixel_areas(frame: Frame) -> np.ndarray:
    """Areas of the pixels, in those of the middle of the frame."""
    y, x = np.mgrid[: frame.ny, : frame.nx].astype(float)
    corners = [(x + dx, y + dy) for dx, dy in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5))]
    (x0, y0), (x1, y1), (x2, y2) = (frame.wcs().pix2foc(cx.ravel(), cy.ravel(), 0) for cx, cy in corners)
    return np.abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)).reshape(x.shape)


def test_a_ghost_in_one_of_three_images_is_outvoted(tmp_path):
    frames = [
        Frame(x=40.0 * k, y=10.0 * k, nx=160, ny=160, sky=100 + 30 * k, noise=5, seed=k, rotation=3.0 * k)
        for k in range(3)
    ]
    clean = differences(write_all(tmp_path / "clean", frames))
    pixels = [frame.pixels() for frame in frames]
    y, x = np.indices(pixels[1].shape)
    pixels[1][np.hypot(x - 60, y - 70) < 22] += 5  # as faint as the noise of a pixel
    paths = [write(tmp_path / f"{k}.fits", f, pixels=p) for k, (f, p) in enumerate(zip(frames, pixels, strict=True))]
    sky, err = differences(paths)
    # left in, it shifts the image by 5 * 1520 / 19200 = 0.4
    assert abs(sky[1] - clean[0][1]) < 1.5 * err[1] < 0.2


def test_a_sliver_at_one_corner_changes_no_other_overlap(tmp_path):
    frames = [Frame(x=80.0 * k, nx=160, ny=160, sky=100 + 30 * k, noise=5, seed=k) for k in range(2)]
    pair = skymatch_cli.match(write_all(tmp_path / "pair", frames), dry_run=True, compare="mesh")
    frames.append(Frame(x=80.0 + 154, y=0.0, nx=160, ny=160, sky=90, noise=5, seed=7))  # six pixels wide
    three = skymatch_cli.match(write_all(tmp_path / "three", frames), dry_run=True, compare="mesh")
    (old, old_err), (new, new_err) = (
        (np.asarray(found.overlaps["delta"]), np.asarray(found.overlaps["delta_err"])) for found in (pair, three)
    )
    assert abs(new[0] - old[0]) < 0.02 * old_err[0]
    assert new_err[0] == pytest.approx(old_err[0], rel=0.1)
    assert abs(new[1] - 40) < 4 * new_err[1]
    assert new_err[1] < 2 * 5 * np.sqrt(2 / (6 * 160))


def test_one_plate_cut_twice_gives_nothing(tmp_path):
    rng = np.random.default_rng(8)
    plate = np.rint(4000 + 30 * rng.normal(size=(300, 300)))
    plate = np.rint((plate + np.roll(plate, 1, axis=1)) / 2).astype("i2")  # neighbours are correlated
    paths = []
    for k, (x0, y0) in enumerate(((0, 0), (40, 20))):
        frame = Frame(x=float(x0), y=float(y0), nx=200, ny=200)
        paths.append(write(tmp_path / f"{k}.fits", frame, pixels=plate[y0 : y0 + 200, x0 : x0 + 200][:, ::1]))
    sky, err = differences(paths)
    assert abs(sky[1]) < err[1]


def test_a_tilt_makes_the_difference_uncertain(tmp_path):
    frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=100, noise=3, seed=k) for k in range(2)]
    pixels = [frame.pixels() for frame in frames]
    y, x = np.indices(pixels[1].shape)
    flat = differences(written(tmp_path, pixels))
    pixels[1] += 6 * (x + y - SIZE + 1) / SIZE  # 1.5 in the middle of the overlap, and 3 along it either way
    (tmp_path / "tilted").mkdir()
    sky, err = differences(written(tmp_path / "tilted", pixels))
    assert sky[1] == pytest.approx(1.5, abs=0.2)
    assert flat[1][1] == pytest.approx(3 * np.sqrt(2 / (64 * SIZE)), rel=0.35)
    assert 1.5 < 4 * err[1] < 16


def tiled(folder: Path, shapes: list[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors and ``sky_err`` of four frames, two by two, that overlap by a quarter; each has a shape of its own."""
    ny, nx = shapes[0].shape
    places = [(0.75 * nx * i, 0.75 * ny * j) for j in (0, 1) for i in (0, 1)]
    frames = [Frame(x=x, y=y, nx=nx, ny=ny, sky=100, noise=3, seed=9 * seed + k) for k, (x, y) in enumerate(places)]
    folder.mkdir()
    paths = [
        write(folder / f"{k}.fits", f, pixels=f.pixels() + s)
        for k, (f, s) in enumerate(zip(frames, shapes, strict=True))
    ]
    images = skymatch_cli.match(paths, dry_run=True, compare="mesh").images
    sky, err = (np.asarray(images[name], float) for name in ("sky", "sky_err"))
    return sky - sky.mean(), err


@pytest.mark.parametrize(("size", "ny"), [(3.0, SIZE), (30.0, SIZE), (30.0, 2 * SIZE)])
def test_errors_are_those_that_gradients_make(tmp_path, size, ny):
    pulls, errors, stated = [], [], []
    for seed in range(10):
        tilts = np.random.default_rng(seed).normal(0, size / 2, (4, 2))
        tilts -= tilts.mean(axis=0)  # what all have in common can't be told from a gradient of the sky
        v, u = np.mgrid[-0.5 : 0.5 : ny * 1j, -0.5 : 0.5 : SIZE * 1j]
        error, err = tiled(tmp_path / str(seed), [a * u + b * v for a, b in tilts], seed)
        pulls.extend(error / err)
        errors.append(error)
        stated.append(err)
    assert 0.7 < np.std(pulls) < 1.4
    assert np.abs(pulls).max() < 4
    # gradients that are taken for factors beyond all reason made errors of 1.6 times that
    assert np.sqrt(np.mean(np.square(stated))) < 1.3 * np.sqrt(np.mean(np.square(errors)))


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
@pytest.mark.parametrize("n", [2, 4])
def test_errors_are_those_that_steps_between_amplifiers_make(tmp_path, compare, n):
    pulls, errors = [], []
    for seed in range(8):
        levels = np.random.default_rng(seed).normal(0, 1, (4, n))
        # Overlaps at the left and right, of an eighth of the frame, lie within one amplifier: they show no step.
        frames = [
            Frame(x=112.0 * (k % 2), y=112.0 * (k // 2), nx=SIZE, ny=SIZE, sky=100, noise=4, seed=9 * seed + k)
            for k in range(4)
        ]
        pixels = [f.pixels() + np.repeat(a - a.mean(), SIZE // n) for f, a in zip(frames, levels, strict=True)]
        (tmp_path / str(seed)).mkdir()
        paths = [
            write(tmp_path / str(seed) / f"{k}.fits", f, pixels=image)
            for k, (f, image) in enumerate(zip(frames, pixels, strict=True))
        ]
        images = skymatch_cli.match(paths, dry_run=True, compare=compare).images
        sky, err = (np.asarray(images[name], float) for name in ("sky", "sky_err"))
        errors.append(sky - sky.mean())
        pulls.append((sky - sky.mean()) / err)
    assert np.std(errors) > 0.2  # three times what the noise of the pixels makes
    assert 0.5 < np.std(pulls) < 1.5
    assert np.abs(pulls).max() < 4


def test_neither_stars_nor_gradients_are_steps_between_amplifiers():
    frame = Frame(nx=SIZE, ny=SIZE, sky=100, noise=4)
    tilt = 30 * np.arange(SIZE) / SIZE
    for seed in range(6):
        frames = [frame.but(x=20.0 * k, seed=9 * seed + k) for k in range(6)]
        pixels = [f.pixels() + stars(f, 2.5, 2e-3, seed) - f.sky + tilt for f in frames]
        steps = [amplifier_steps(p, np.ones(p.shape, bool)) for p in pixels]
        assert step_ratio(steps) < 2


def step_ratio(steps: list[np.ndarray]) -> float:
    """Mean square of the steps at the quarters of the columns over their errors."""
    step, err = np.array(steps)[:, 0, :, :3].swapaxes(0, 1)
    return float(np.mean((step / err) ** 2))


def test_the_same_bowl_in_all_images_makes_no_error(tmp_path):
    v, u = np.mgrid[-0.5 : 0.5 : SIZE * 1j, -0.5 : 0.5 : SIZE * 1j]
    bowl = 12 * (u**2 + v**2)
    flat = tiled(tmp_path / "flat", [np.zeros((SIZE, SIZE))] * 4, 1)
    bent = tiled(tmp_path / "bent", [bowl - bowl.mean()] * 4, 1)
    # a row of three such frames would have steps of up to 3 counts, were these gradients of their own
    assert bent[1].max() < 2 * flat[1].max() < 0.3
    assert np.abs(bent[0]).max() < 4 * bent[1].max()


def test_noise_of_rows_matters_only_where_overlaps_have_few_of_them(tmp_path):
    rng = np.random.default_rng(5)
    rows = [np.repeat(np.repeat(rng.normal(0, 3, SIZE // 8), 8)[:, None], SIZE, axis=1) for _ in range(4)]
    places = [(0.0, 0.0), (0.75 * SIZE, 0.0), (0.0, 0.75 * SIZE), (0.75 * SIZE, 0.75 * SIZE)]
    frames = [Frame(x=x, y=y, nx=SIZE, ny=SIZE, sky=100, noise=3, seed=k) for k, (x, y) in enumerate(places)]
    paths = [
        write(tmp_path / f"{k}.fits", f, pixels=f.pixels() + r)
        for k, (f, r) in enumerate(zip(frames, rows, strict=True))
    ]
    found = skymatch_cli.match(paths, dry_run=True, compare="mesh").overlaps
    err = dict(zip(zip(found["a"], found["b"], strict=True), np.asarray(found["delta_err"], float), strict=True))
    beside, above = (err[0, 1] + err[2, 3]) / 2, (err[0, 2] + err[1, 3]) / 2
    # four of sixteen rows of blocks, of two images: 3 * sqrt(2 / 4 * (1 - 4 / 16)) = 1.8
    assert 0.9 < above < 3.6
    assert beside < 0.4 * above


def test_gradients_are_no_zero_points(tmp_path):
    frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=100, noise=3, seed=k) for k in range(2)]
    pixels = [stars(frame, 2.4, 2e-3) for frame in frames]
    pixels[1] += 30 * (np.arange(SIZE)[:, None] - SIZE / 2) / SIZE
    result = skymatch_cli.match(written(tmp_path, pixels), dry_run=True, compare="mesh")
    assert "zero-points" not in [w.name for w in result.warnings]
    assert "disagreement" in [w.name for w in result.warnings]


def test_the_part_of_the_pixels_noise_is_kept_apart(tmp_path):
    frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=100, noise=3, seed=k) for k in range(2)]
    pixels = [frame.pixels() for frame in frames]
    pixels[1] += 6 * (np.arange(SIZE)[:, None] - SIZE / 2) / SIZE
    images = skymatch_cli.match(written(tmp_path, pixels), dry_run=True, compare="mesh").images
    # in the gauge where the mean of both is zero an image has half of the difference
    by_noise, err = (float(np.asarray(images[name])[0]) for name in ("sky_err_noise", "sky_err"))
    assert by_noise == pytest.approx(0.5 * 3 * np.sqrt(2 / (64 * SIZE)), rel=0.25)
    assert err > 5 * by_noise


def test_zero_points_that_differ_are_seen_on_a_nebula(tmp_path):
    frames = [
        Frame(x=90.0 * k, y=90.0 * j, nx=160, ny=160, sky=100, noise=3, seed=2 * j + k) for j in (0, 1) for k in (0, 1)
    ]

    def nebula(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 100 + 100 * np.sin(x / 25) * np.cos(y / 31)

    pixels = [frame.pixels(nebula) for frame in frames]
    pixels[3] = 100 + 1.05 * (pixels[3] - 100)
    paths = [write(tmp_path / f"{k}.fits", f, pixels=p) for k, (f, p) in enumerate(zip(frames, pixels, strict=True))]
    result = skymatch_cli.match(paths, dry_run=True, compare="mesh")
    sky, err = (np.asarray(result.images[name], float) for name in ("sky", "sky_err"))
    error = sky - sky.mean()  # all skies are equal
    assert 1 < np.abs(error).max() < 4 * err[np.abs(error).argmax()]


def test_factors_that_overlaps_can_not_show_are_said(tmp_path):
    frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=100, noise=1, seed=k) for k in range(2)]
    pixels = [frame.pixels(lambda x, y: 500 + 300 * np.sin(x / 25) * np.cos(y / 31)) for frame in frames]
    result = skymatch_cli.match(written(tmp_path, pixels), dry_run=True, compare="mesh")
    (warning,) = [w for w in result.warnings if w.name == "bright-scene"]
    # two errors of a factor (some 0.02 %) times the brightness above the darkest block, some hundreds of counts
    assert 0.05 < warning.amplitude < 0.5
    assert sorted(re.findall(r"\d\.fits", warning.text)) == ["0.fits", "1.fits"]
    assert not counted(result.warnings, ())


def test_what_zero_points_may_do_unseen_is_told_and_not_counted(tmp_path):
    assert run("demo", tmp_path / "mosaic").exit_code == 0  # with a nebula of some hundred counts
    done = run("match", "--dry-run", "--strict", *sorted((tmp_path / "mosaic").glob("frame*.fits")))
    assert done.exit_code == 0
    assert "which sky_err does not count: all 6 images" in done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_a_factor_between_two_images_is_named(tmp_path, factor):
    frames = [Frame(x=64.0 * k, nx=SIZE, ny=SIZE, sky=100, noise=1, seed=k) for k in range(2)]
    pixels = [frame.pixels(lambda x, y: 500 + 300 * np.sin(x / 25) * np.cos(y / 31)) for frame in frames]
    result = skymatch_cli.match(written(tmp_path, [pixels[0], factor * pixels[1]]), dry_run=True, compare="mesh")
    said = [w for w in result.warnings if w.name == "zero-points"]
    if factor == 1:
        assert not said
        return
    (warning,) = said
    assert warning.visible
    assert warning.amplitude > 1
    found = re.findall(r"(\d)\.fits \(([-+][\d.]+) ± ([\d.]+) %\)", warning.text)
    assert sorted(name for name, _, _ in found) == ["0", "1"]
    for name, percent, err in found:  # each against the mean of both
        half = 100 * (factor - 1) / 2
        assert abs(float(percent) - (half if name == "1" else -half)) < 3 * float(err) + 0.05


def test_a_scene_fainter_than_the_noise_shows_no_factors(tmp_path):
    frames = [Frame(x=90.0 * k, nx=160, ny=160, sky=100, noise=5, seed=k) for k in range(2)]
    pixels = [100 + factor * (f.pixels(_ripples) - 100) for factor, f in zip((1, 1.6), frames, strict=True)]
    paths = [write(tmp_path / f"{k}.fits", f, pixels=p) for k, (f, p) in enumerate(zip(frames, pixels, strict=True))]
    assert "zero-points" not in [w.name for w in skymatch_cli.match(paths, dry_run=True).warnings]


def test_factors_of_faint_stars_are_in_the_errors(tmp_path):
    pulls = []
    for seed in (1, 2, 3):
        factors = 1 + np.random.default_rng(seed).normal(0, 0.08, 4)
        frames = [
            Frame(x=120.0 * i, y=120.0 * j, nx=160, ny=160, sky=0.0, noise=0.0, seed=9 * seed + k)
            for k, (i, j) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1)))
        ]
        paths = []
        for k, (frame, factor) in enumerate(zip(frames, factors, strict=True)):
            noise = np.random.default_rng(9 * seed + k).normal(100, 5, (160, 160))
            paths.append(
                write(tmp_path / f"{seed}-{k}.fits", frame, pixels=factor * stars(frame, 2.8, 2e-2, seed) + noise)
            )
        images = skymatch_cli.match(paths, dry_run=True).images
        sky, err = (np.asarray(images[name], float) for name in ("sky", "sky_err"))
        pulls.extend((sky - sky.mean()) / err)
    assert np.std(pulls) < 1.3  # 4 where these factors are left out


def _ripples(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2 * np.sin(x / 15) * np.cos(y / 11)


def test_errors_in_a_stack_are_those_of_its_noise(tmp_path):
    places = np.random.default_rng(1).uniform(-4, 4, (60, 2))
    frames = [Frame(x=x, y=y, nx=SIZE, ny=SIZE, sky=100, noise=3, seed=k) for k, (x, y) in enumerate(places.tolist())]
    images = skymatch_cli.match(write_all(tmp_path, frames), dry_run=True, compare="mesh").images
    sky, err = (np.asarray(images[name], float) for name in ("sky", "sky_err"))
    expected = 3 / SIZE * np.sqrt(1 - 1 / 60)  # of one image, less the mean of all
    assert np.sqrt(np.mean(err**2)) == pytest.approx(expected, rel=0.06)
    assert err.max() < 1.5 * err.min()  # nine blocks an image: their own scatter is uncertain by half
    assert np.std(sky) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("columns", ["one", "every second"])
def test_pixels_without_neighbours_have_a_noise(tmp_path, columns):
    nx = 1 if columns == "one" else 64
    errors = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        names = []
        for k in range(2):
            pixels = rng.normal(100 + 7.5 * k, 1, (70, nx))
            if columns != "one":
                pixels[:, ::2] = np.nan
            wcs = WCS(naxis=2)
            wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (150, 20), (-1e-4, 1e-4)
            wcs.wcs.crpix = nx / 2, 35
            names.append(str(tmp_path / f"{seed}_{k}.fits"))
            fits.PrimaryHDU(pixels.astype("f4"), wcs.to_header()).writeto(names[-1])
        found = skymatch_cli.match(names, dry_run=True, compare="mesh").images
        assert abs(float(found["sky"][1]) - 7.5) < 8 * float(found["sky_err"][1])
        errors.append(float(found["sky_err"][0]))
    n_good = 70 * max(nx // 2, 1)
    assert 0.9 < np.mean(errors) / (np.sqrt(2 / n_good) / 2) < 1.3


@pytest.mark.parametrize("quieter", [1, 30, 300])
def test_a_deep_image_among_shallow_ones_is_matched_as_well_as_these(tmp_path, quieter):
    frames = [
        Frame(x=x, y=y, nx=SIZE, ny=SIZE, sky=100 + 40 * k, noise=3 / (quieter if k == 2 else 1), seed=k)
        for k, (x, y) in enumerate(((0.0, 0.0), (64.0, 4.0), (32.0, 60.0)))
    ]
    result = skymatch_cli.match([write(tmp_path / f"{k}.fits", f) for k, f in enumerate(frames)], dry_run=True)
    sky, err = (np.asarray(result.images[name], float) for name in ("sky", "sky_err"))
    assert set(result.images["status"]) == {"ok"}
    assert not counted(result.warnings, ())
    error = sky - 40 * np.arange(3) - np.mean(sky - 40 * np.arange(3))
    assert np.abs(error).max() < 0.1
    assert err.max() < 0.1  # 8,000 shared pixels: 3 * sqrt(2 / 8000) = 0.05
