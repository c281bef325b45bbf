"""Errors of pooled statistics where neighbouring pixels share their noise."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from skymatch_cli.compare.correlated import correlated_factor
from skymatch_cli.sky.raster import Spans

SHAPE = (320, 300)


def noise(seed=0):
    return np.random.default_rng(seed).normal(0, 2, SHAPE)


def factor(data, good=None, region=None):
    return correlated_factor(data, np.ones(SHAPE, bool) if good is None else good, region or Spans.full(SHAPE))


@pytest.mark.parametrize("seed", range(5))
def test_independent_pixels_leave_errors_as_they_are(seed):
    assert factor(noise(seed)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_means_of_smoothed_noise_scatter_as_before_while_pixels_do_not(seed):
    # boxes of 2 x 2: a pixel has a quarter of the variance, a mean over 4 x 4 pixels (1 - 1/8)^2 of what it had
    expected = 2 * (1 - 1 / 8)
    assert factor(uniform_filter(noise(seed), 2, mode="wrap")) == pytest.approx(expected, rel=0.12)


def test_stars_and_gradients_are_no_correlation():
    data = noise() + np.arange(SHAPE[1]) * 0.5
    y, x = np.random.default_rng(1).integers(0, 300, (2, 200))
    data[y, x] += 500
    assert factor(data) == 1


def test_masked_pixels_and_what_lies_outside_do_not_count():
    data = noise()
    good = np.ones(SHAPE, bool)
    data[100:200], good[100:200] = np.nan, False
    assert factor(data, good) == 1
    smooth = uniform_filter(noise(2), 2, mode="wrap")
    left = Spans(np.arange(320), np.zeros(320, np.int64), np.full(320, 150))
    half = np.where(np.arange(300) < 150, smooth, noise())
    assert factor(half, region=left) > 1.4


def test_too_few_pixels_and_no_noise_say_nothing():
    small = Spans(np.arange(12), np.zeros(12, np.int64), np.full(12, 30))
    assert factor(uniform_filter(noise(), 2), region=small) == 1
    assert factor(np.full(SHAPE, 7.0)) == 1
    assert factor(noise(), region=Spans(*np.zeros((3, 0), np.int64))) == 1
