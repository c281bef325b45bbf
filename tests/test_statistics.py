"""The sky of a set of pixels: clipping against astropy, exact medians, honest errors, lattices, modes."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.stats import sigma_clip
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skymatch_cli.model import Skystat, SkyStatistic, StatisticSettings, Status
from skymatch_cli.statistics.estimate import MIN_PIXELS, estimate
from skymatch_cli.statistics.lattice import find_lattice
from skymatch_cli.statistics.sample import Run, SortedSample

MEDIAN = StatisticSettings()


def sky_statistic(values: np.ndarray, how: StatisticSettings) -> SkyStatistic:
    return estimate(SortedSample(values[np.isfinite(values)]), how)[0]


def sky(values: object, **how: object) -> float:
    return sky_statistic(np.asarray(values, dtype=np.float64), StatisticSettings(**how)).value


def clipped(values: np.ndarray, how: StatisticSettings) -> np.ndarray:
    """What astropy leaves of the values within the limits."""
    lower = -np.inf if how.lower is None else how.lower
    upper = np.inf if how.upper is None else how.upper
    values = values.astype(np.float64)
    values = values[(values >= lower) & (values <= upper)]
    if how.nclip == 0:  # which astropy takes for "until nothing changes"
        return values
    return sigma_clip(
        values,
        sigma_lower=how.lsigma,
        sigma_upper=how.usigma,
        maxiters=how.nclip,
        cenfunc="median",
        stdfunc="std",
        masked=False,
    )


def spread(skystat: Skystat, seeds: int, n: int, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors of a statistic on Gaussian data about 10."""
    how = StatisticSettings(skystat=skystat)
    got = [sky_statistic(np.random.default_rng(seed).normal(10, sigma, n), how) for seed in range(seeds)]
    return np.array([s.value for s in got]), np.array([s.err for s in got])


# --- clipping -------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from(["f4", "f8"]),
    st.sampled_from(["normal", "cauchy", "integer"]),
    st.integers(0, 6),
    st.floats(0.3, 5),
    st.floats(0.3, 5),
    st.none() | st.floats(-2, 1),
    st.none() | st.floats(-1, 3),
)
def test_survivors_and_median_are_those_of_astropy(
    seed: int,
    n: int,
    dtype: str,
    kind: str,
    nclip: int,
    lsigma: float,
    usigma: float,
    lower: float | None,
    upper: float | None,
) -> None:
    rng = np.random.default_rng(seed)
    values = {"normal": rng.normal(size=n), "cauchy": rng.standard_cauchy(n), "integer": rng.integers(-9, 9, n)}[kind]
    values = values.astype(dtype)
    how = StatisticSettings(nclip=nclip, lsigma=lsigma, usigma=usigma, lower=lower, upper=upper)
    kept = clipped(values, how)
    got = sky_statistic(values, how)
    assert got.n == kept.size
    if kept.size >= MIN_PIXELS and kind != "integer":
        assert got.status is Status.OK
        assert got.value == np.median(kept)


def test_large_samples_are_clipped_as_astropy_clips_them() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(100, 7, 100_000) + (rng.random(100_000) < 0.1) * rng.pareto(1, 100_000) * 50
    kept = clipped(values, MEDIAN)
    mean = sky_statistic(values, StatisticSettings(skystat=Skystat.MEAN))
    assert sky_statistic(values, MEDIAN).value == np.median(kept)
    assert mean.n == kept.size
    assert mean.value == pytest.approx(kept.mean(), rel=1e-13)


def test_values_at_the_bounds_are_kept() -> None:
    # Median 0, standard deviation exactly 1: 2 lies at two sigma.
    values = np.array([-2.0, 2.0] + [0.0] * 6)
    assert values.std() == 1.0
    two = StatisticSettings(nclip=1, lsigma=2, usigma=2)
    less = StatisticSettings(nclip=1, lsigma=2, usigma=1.999)
    assert sky_statistic(values, two).n == 8
    assert sky_statistic(values, less).n == 7


def test_limits_are_inclusive_and_hold_without_clipping() -> None:
    values = np.arange(100.0)
    got = sky_statistic(values, StatisticSettings(lower=10, upper=30, nclip=0))
    assert (got.value, got.n) == (20.0, 21)


def test_limits_come_before_clipping() -> None:
    values = np.concatenate([np.arange(50.0), np.full(50, 1e9)])
    got = sky_statistic(values, StatisticSettings(upper=1e6))
    assert (got.value, got.n) == (24.5, 50)


def test_limits_of_float32_are_not_rounded() -> None:
    values = np.full(20, 0.1, dtype="f4")  # 0.100000001490...
    assert sky_statistic(values, StatisticSettings(upper=0.1)).status is Status.OUTSIDE_LIMITS
    assert sky_statistic(values, StatisticSettings(upper=0.10000001)).n == 20
    assert sky_statistic(values, StatisticSettings(lower=0.1)).n == 20


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Skystat)), st.booleans())
def test_order_of_the_pixels_plays_no_part(seed: int, skystat: Skystat, rounded: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(50, 3, 500)
    values = np.rint(values) if rounded else values
    how = StatisticSettings(skystat=skystat)
    assert sky_statistic(rng.permutation(values), how) == sky_statistic(values, how)


# --- status ---------------------------------------------------------------------------------------


def test_no_pixel_is_all_masked() -> None:
    got = sky_statistic(np.array([]), MEDIAN)
    assert (got.status, got.n) == (Status.ALL_MASKED, 0)
    assert np.isnan([got.value, got.err]).all()
    assert sky_statistic(np.full(50, np.nan), MEDIAN).status is Status.ALL_MASKED


def test_nothing_within_the_limits_is_said() -> None:
    got = sky_statistic(np.arange(50.0), StatisticSettings(lower=100))
    assert (got.status, got.n) == (Status.OUTSIDE_LIMITS, 0)


def test_a_sliver_has_too_few_pixels() -> None:
    got = sky_statistic(np.array([1.0, 2.0]), MEDIAN)
    assert (got.status, got.n) == (Status.TOO_FEW_PIXELS, 2)
    assert np.isnan([got.value, got.err]).all()
    assert sky_statistic(np.arange(MIN_PIXELS - 1.0), MEDIAN).status is Status.TOO_FEW_PIXELS
    assert sky_statistic(np.arange(float(MIN_PIXELS)), MEDIAN).status is Status.OK


def test_clipping_that_leaves_too_little_is_said() -> None:
    how = StatisticSettings(lsigma=0.0, usigma=0.0)
    assert sky_statistic(np.arange(51.0), how).status is Status.TOO_FEW_PIXELS


def test_values_that_are_not_finite_are_dropped() -> None:
    values = np.concatenate([np.arange(11.0), [np.nan, np.inf, -np.inf]])
    got = sky_statistic(values, MEDIAN)
    assert (got.value, got.n) == (5.0, 11)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("skystat", Skystat)
@pytest.mark.parametrize("constant", [0.0, 3.7, -1e-9, 6e4, 1e30])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_constant_image_has_its_constant(skystat: Skystat, constant: float, dtype: str) -> None:
    values = np.full(10_000, constant, dtype=dtype)
    got = sky_statistic(values, StatisticSettings(skystat=skystat))
    assert got.value == pytest.approx(float(values[0]), rel=1e-14)
    assert got.status is Status.OK
    assert 0 < got.err <= max(1e-6 * abs(constant), 1e-7)


@pytest.mark.parametrize("skystat", [Skystat.MEDIAN, Skystat.MODE, Skystat.MIDPT])
def test_a_constant_sky_with_stars_has_its_constant(skystat: Skystat) -> None:
    values = np.concatenate([np.full(900, 5.0), np.random.default_rng(1).exponential(100, 100) + 5])
    got = sky_statistic(values, StatisticSettings(skystat=skystat))
    assert got.value == 5.0
    assert got.err > 0


@pytest.mark.parametrize("skystat", Skystat)
def test_gaussian_noise_is_measured_without_bias_and_with_its_error(skystat: Skystat) -> None:
    values, errs = spread(skystat, seeds=60, n=20_000)
    scatter = values.std()
    assert abs(values.mean() - 10) < 4 * scatter / np.sqrt(60)
    assert errs.mean() == pytest.approx(scatter, rel=0.35)  # the scatter of 60 seeds is known to 9 %
    assert errs.std() < 0.1 * errs.mean()


@pytest.mark.parametrize("skystat", [Skystat.MODE, Skystat.MIDPT])
def test_mode_and_midpoint_of_1e5_gaussian_pixels(skystat: Skystat) -> None:
    values, _ = spread(skystat, seeds=24, n=100_000)
    assert abs(values.mean() - 10) < 0.01
    assert values.std() < 0.015


def test_mode_leaves_the_tail_alone() -> None:
    # Gamma(4): mode 3, median 3.67, mean 4.
    got = [
        sky_statistic(np.random.default_rng(seed).gamma(4, size=50_000), StatisticSettings(skystat=Skystat.MODE))
        for seed in range(10)
    ]
    assert np.mean([s.value for s in got]) == pytest.approx(3.0, abs=0.05)


def test_mode_of_a_star_field_is_nearer_to_the_sky_than_the_median() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(100, 5, 200_000) + (rng.random(200_000) < 0.15) * rng.exponential(25, 200_000)
    assert abs(sky(values, skystat=Skystat.MODE) - 100) < 0.3 * abs(sky(values) - 100)


def test_mode_where_the_first_bin_is_the_highest() -> None:
    # An edge is rounded off by the width of the fit, but stays far below the median of 0.69.
    values = np.random.default_rng(4).exponential(1.0, 20_000)
    assert abs(sky(values, skystat=Skystat.MODE, nclip=0)) < 0.45


def test_midpoint_is_the_median_within_a_fraction_of_a_bin() -> None:
    values = np.random.default_rng(4).gamma(2, size=20_000)
    sigma = values.std()
    assert sky(values, skystat=Skystat.MIDPT, nclip=0) == pytest.approx(np.median(values), abs=0.02 * sigma)


@given(st.sampled_from(list(Skystat)), st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_statistics_follow_shift_and_scale(skystat: Skystat, shift: float, scale: float) -> None:
    values = np.random.default_rng(9).normal(size=2000)
    one, other = sky(values, skystat=skystat), sky(values * scale + shift, skystat=skystat)
    assert other == pytest.approx(one * scale + shift, abs=2e-3 * scale)


def test_error_of_the_median_is_not_fooled_by_stars() -> None:
    rng = np.random.default_rng(6)
    plain = rng.normal(100, 5, 50_000)
    stars = plain + (rng.random(plain.size) < 0.05) * rng.exponential(500, plain.size)
    no_clip = StatisticSettings(nclip=0)
    assert sky_statistic(stars, no_clip).err == pytest.approx(sky_statistic(plain, no_clip).err, rel=0.15)


# --- lattices -------------------------------------------------------------------------------------


def lattice_of(values: np.ndarray) -> tuple[float, float] | None:
    sample = SortedSample(values)
    found = find_lattice(Run(sample, 0, 0, values.size))
    return None if found is None else (found.origin, found.step)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_differences_of_integer_images_are_recovered(sigma: float, dtype: str) -> None:
    rng = np.random.default_rng(7)
    for skystat in Skystat:
        how = StatisticSettings(skystat=skystat)
        level = [
            sky_statistic(np.rint(rng.normal(1000 + x, sigma, 200_000)).astype(dtype), how) for x in (0.2, 0.5, 0.0)
        ]
        assert level[1].value - level[0].value == pytest.approx(0.3, abs=0.05)
        assert level[0].value - level[2].value == pytest.approx(0.2, abs=0.05)


def test_grouped_median_by_hand() -> None:
    # 20, 50 and 30 values at 1, 2 and 3: half of the values are passed inside the step 1.5 ... 2.5.
    values = np.repeat([1.0, 2.0, 3.0], [20, 50, 30])
    assert lattice_of(values) == (2.0, 1.0)
    assert sky(values, nclip=0) == pytest.approx(2.117, abs=0.01)  # z(0.2) = -0.8416, z(0.7) = 0.5244
    assert sky(np.repeat([1.0, 2.0, 3.0], [25, 50, 25]), nclip=0) == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [(1, 0, "f4"), (1 / 2.3, 0, "f4"), (1 / 2.3, 17.1, "f8"), (1, -1234.567, "f4"), (32, 5, "f4"), (1e-20, 0, "f4")],
)
def test_scaled_and_shifted_lattices_are_found(scale: float, offset: float, dtype: str) -> None:
    values = np.rint(np.random.default_rng(1).normal(1300, 4, 20_000)).astype(dtype)
    values = values * np.dtype(dtype).type(scale) + np.dtype(dtype).type(offset)
    found = lattice_of(values)
    assert found is not None
    assert found[1] == pytest.approx(scale, rel=1e-3)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("level", [0, 100, 3e4, 1e6])
def test_continuous_data_have_no_lattice(dtype: str, level: float) -> None:
    # At 1e6 float32 are 1/16 apart: the same numbers come often, and yet this is the format's own rounding.
    for seed in range(20):
        values = np.random.default_rng(seed).normal(level, 3, 30_000).astype(dtype)
        assert lattice_of(values) is None
        assert sky(values, nclip=0) == np.median(values.astype("f8"))


def test_continuous_data_with_a_spike_have_no_lattice() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = np.where(rng.random(300) < 0.6, 0.0, rng.normal(0, 1, 300))
        assert lattice_of(values) is None
        assert sky(values) == 0.0


def test_step_that_the_noise_hides_is_left_alone() -> None:
    values = np.rint(np.random.default_rng(1).normal(0, 300, 500))
    assert lattice_of(values) is None


def test_one_point_of_a_lattice_leaves_its_step_uncertain() -> None:
    values = np.rint(np.random.default_rng(1).normal(0.0, 0.2, 10_000))
    assert np.unique(clipped(values, MEDIAN)).tolist() == [0.0]
    assert sky_statistic(values, MEDIAN).err == pytest.approx(1 / np.sqrt(12))


@given(st.integers(0, 2**32 - 1), st.integers(10, 2000), st.floats(0.2, 30))
def test_grouped_median_stays_in_the_step_of_the_median(seed: int, n: int, sigma: float) -> None:
    values = np.rint(np.random.default_rng(seed).normal(0.3, sigma, n))
    kept = clipped(values, MEDIAN)
    assume(kept.size >= MIN_PIXELS)
    assert abs(sky(values) - np.median(kept)) <= 0.5 + 1e-9


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("step", [1.0, 0.02])
def test_photon_counts_have_the_rate_of_their_distribution(rate, step):
    pulls = []
    for seed in range(20):
        counts = np.random.default_rng(seed).poisson(rate, 20_000)
        found = sky_statistic(counts * step, StatisticSettings())
        # no unbiased estimate errs by less than the square root of rate / n
        assert 0.99 < found.err / np.sqrt(found.value * step / len(counts)) < 1.4
        pulls.append((found.value - rate * step) / found.err)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(20)
    assert 0.6 < np.std(pulls) < 1.4


def test_a_sky_of_zeros_with_stars_is_no_photon_count():
    values = np.append(np.zeros(10_000), np.arange(1, 200))
    assert sky_statistic(values, StatisticSettings()).value == 0
