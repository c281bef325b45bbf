"""Regions of an image through tiles: the same answers as from the pixels themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skymatch_cli.model import Skystat, SkyStatistic, StatisticSettings, Status
from skymatch_cli.sky.raster import Spans, spans_of_polygons
from skymatch_cli.statistics.estimate import estimate
from skymatch_cli.statistics.regions import SIDE, TiledImage, region_statistics, whole_tiles
from skymatch_cli.statistics.sample import SortedSample


def polygon_spans(rings: list[np.ndarray], shape: tuple[int, int]) -> Spans:
    return spans_of_polygons([rings], shape)[0]


def assert_same(got: SkyStatistic, expected: SkyStatistic, rounding: float = 0.0) -> None:
    assert (got.status, got.n) == (expected.status, expected.n)
    if expected.status is Status.OK:
        tolerance = 1e-6 * expected.err + rounding
        assert got.value == pytest.approx(expected.value, rel=1e-12, abs=tolerance)
        assert got.err == pytest.approx(expected.err, rel=1e-6)


def direct(data: np.ndarray, good: np.ndarray, spans: Spans, how: StatisticSettings) -> SkyStatistic:
    values = data[spans.mask(data.shape) & good]
    return estimate(SortedSample(values[np.isfinite(values)]), how)[0]


def random_spans(rng: np.random.Generator, shape: tuple[int, int]) -> Spans:
    """Anything from a few pixels to the whole frame, convex or not, with holes."""
    kind = rng.integers(4)
    if kind == 0:
        return Spans.full(shape)
    scale = np.array([shape[1], shape[0]])
    rings = [rng.uniform(-0.3, 1.3, (rng.integers(3, 7), 2)) * scale for _ in range(kind)]
    return polygon_spans(rings, shape)


def random_pixels(rng: np.random.Generator, shape: tuple[int, int], kind: str, dtype: str) -> np.ndarray:
    noise = rng.normal(100, 7, shape)
    if kind == "stars":
        noise += (rng.random(shape) < 0.05) * rng.pareto(1, shape) * 100
    elif kind == "integer":
        noise = np.rint(noise / 5)
    elif kind == "scaled":
        noise = np.rint(noise) * 0.37 - 12.3
    elif kind == "constant":
        noise[:] = 3.7
    elif kind == "two levels":
        noise = np.where(noise > 103, 5.0, -2.0)
    elif kind == "outliers":
        noise.flat[rng.integers(0, noise.size, 3)] = [1e30, -1e25, 1e12]
    return noise.astype(dtype)


KINDS = ["noise", "stars", "integer", "scaled", "constant", "two levels", "outliers"]
how = st.builds(
    StatisticSettings,
    skystat=st.sampled_from(list(Skystat)),
    lower=st.none() | st.floats(-10, 110),
    upper=st.none() | st.floats(90, 200),
    nclip=st.integers(0, 5),
    lsigma=st.floats(0.5, 5),
    usigma=st.floats(0.5, 5),
    binwidth=st.floats(0.05, 0.5),
)


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.sampled_from(["f4", "f8"]),
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    how,
)
def test_tiles_equal_the_pixels(
    seed: int, kind: str, dtype: str, shape: tuple[int, int], bad: float, how: StatisticSettings
) -> None:
    rng = np.random.default_rng(seed)
    data = random_pixels(rng, shape, kind, dtype)
    good = rng.random(shape) >= bad
    regions = [random_spans(rng, shape) for _ in range(3)]
    got = estimate(TiledImage(data, good, regions).regions(regions), how)
    # Bins begin at the lowest value: with outliers of 1e30 among them their edges are rounded accordingly.
    binned = how.skystat in (Skystat.MODE, Skystat.MIDPT)
    rounding = 1e-14 * float(np.abs(data).max()) if binned and kind == "outliers" else 0.0
    for one, spans in zip(got, regions, strict=True):
        assert_same(one, direct(data, good, spans, how), rounding)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skystat", Skystat)
def test_many_overlapping_regions_of_a_large_image(kind: str, skystat: Skystat) -> None:
    rng = np.random.default_rng(5)
    shape = (500, 530)
    data, good = random_pixels(rng, shape, kind, "f4"), rng.random(shape) > 0.02
    corners = np.array([[-1.0, 1.0], [500.0, -30.0], [545.0, 470.0], [30.0, 510.0]])
    regions = [polygon_spans([corners + rng.uniform(-40, 40, (4, 2))], shape) for _ in range(4)]
    settings = StatisticSettings(skystat=skystat)
    for got, spans in zip(region_statistics(data, good, regions, settings), regions, strict=True):
        assert_same(got, direct(data, good, spans, settings))


def test_median_is_that_of_numpy_to_the_last_digit() -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(1000, 30, (600, 600)).astype("f4")
    good = np.ones(data.shape, dtype=bool)
    regions = [Spans.full(data.shape), *(polygon_spans([rng.uniform(-99, 699, (4, 2))], data.shape) for _ in range(9))]
    got = region_statistics(data, good, regions, StatisticSettings(nclip=0))
    assert [s.value for s in got] == [np.median(data[spans.mask(data.shape)].astype("f8")) for spans in regions]


def test_pixels_that_are_not_finite_never_count() -> None:
    data = np.arange(100.0).reshape(10, 10)
    data[0] = [np.nan, np.inf, -np.inf] * 3 + [np.nan]
    (got,) = region_statistics(data, np.ones(data.shape, dtype=bool), [Spans.full(data.shape)], StatisticSettings())
    assert (got.value, got.n) == (54.5, 90)
    whole = [Spans.full(data.shape)]
    tiles = TiledImage(data, np.ones(data.shape, dtype=bool), whole)
    assert_same(estimate(tiles.regions(whole), StatisticSettings())[0], got)


def test_regions_without_a_pixel_are_all_masked() -> None:
    data, good = np.ones((40, 40)), np.zeros((40, 40), dtype=bool)
    nothing = polygon_spans([], data.shape)
    got = region_statistics(data, good, [Spans.full(data.shape), nothing], StatisticSettings())
    assert [(s.status, s.n) for s in got] == [(Status.ALL_MASKED, 0)] * 2
    assert region_statistics(data, good, [], StatisticSettings()) == []


def test_neither_pixels_nor_mask_are_changed() -> None:
    rng = np.random.default_rng(2)
    data, good = rng.normal(size=(300, 300)).astype("f4"), rng.random((300, 300)) > 0.1
    data.setflags(write=False)
    good.setflags(write=False)
    region_statistics(data, good, [Spans.full(data.shape)] * 3, StatisticSettings())


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 120), st.integers(1, 120)))
def test_whole_tiles_have_no_pixel_outside(seed: int, shape: tuple[int, int]) -> None:
    spans = random_spans(np.random.default_rng(seed), shape)
    for band, (first, last) in enumerate(whole_tiles([spans], shape)[0].T):
        assert spans.mask(shape)[band * SIDE : (band + 1) * SIDE, first * SIDE : last * SIDE].all()


def test_whole_tiles_of_a_rectangle_by_hand() -> None:
    y = np.arange(20, 100)
    spans = Spans(y, np.full_like(y, 31), np.full_like(y, 110))
    np.testing.assert_array_equal(whole_tiles([spans], (100, 110))[0], [[0, 1, 1, 1], [0, 4, 4, 4]])
