"""Polygons to pixel rows: the oracle is shapely's point-in-polygon test."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from skymatch_cli.errors import SkymatchError
from skymatch_cli.sky.raster import Spans, spans_of_polygons

SHAPE = (23, 31)


def polygon_spans(rings: list[np.ndarray], shape: tuple[int, int]) -> Spans:
    return spans_of_polygons([rings], shape)[0]


def rings_of(geometry: shapely.Geometry) -> list[np.ndarray]:
    return [
        np.asarray(ring.coords) for part in shapely.get_parts(geometry) for ring in (part.exterior, *part.interiors)
    ]


def oracle(geometry: shapely.Geometry, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return shapely.contains_xy(geometry, x.astype(float), y.astype(float))


def test_square_holds_the_pixels_whose_centres_are_inside() -> None:
    spans = polygon_spans([np.array([[0.5, 0.5], [3.5, 0.5], [3.5, 2.5], [0.5, 2.5]])], (5, 5))
    assert spans.y.tolist() == [1, 2]
    assert spans.x0.tolist() == [1, 1]
    assert spans.x1.tolist() == [4, 4]
    assert spans.n_pixels == 6


def test_centres_on_the_border_are_half_open() -> None:
    spans = polygon_spans([np.array([[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]])], (5, 5))
    assert spans.mask((5, 5)).nonzero()[0].tolist() == [0, 0, 1, 1]
    assert spans.mask((5, 5)).nonzero()[1].tolist() == [0, 1, 0, 1]


def test_hole_splits_rows() -> None:
    geometry = shapely.box(-0.5, -0.5, 6.5, 4.5).difference(shapely.box(1.5, 0.5, 3.5, 2.5))
    spans = polygon_spans(rings_of(geometry), (5, 7))
    assert spans.y.tolist() == [0, 1, 1, 2, 2, 3, 4]
    assert spans.x0.tolist() == [0, 0, 4, 0, 4, 0, 0]
    assert spans.n_pixels == 35 - 4


def test_polygon_beyond_the_frame_is_clipped() -> None:
    everything = polygon_spans([np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])], SHAPE)
    assert everything.n_pixels == SHAPE[0] * SHAPE[1]
    assert everything.mask(SHAPE).all()
    assert polygon_spans([np.array([[40.0, 1], [50, 1], [45, 20]])], SHAPE).n_pixels == 0


def test_some_rows_are_those_of_all_with_runs_that_have_no_pixel() -> None:
    triangle = [np.array([[1.2, 0.3], [28.0, 9.1], [5.5, 21.7]])]
    rows = np.array([0, 1, 3, 4, 17])
    (some,), (every,) = (spans_of_polygons([triangle], SHAPE, which) for which in (rows, None))
    assert some.y.tolist() == [1, 3, 4, 17]
    assert (some.x0[0], some.x1[0]) == (2, 4)
    kept = np.isin(every.y, rows)
    for name in ("y", "x0", "x1"):
        np.testing.assert_array_equal(getattr(some, name), getattr(every, name)[kept])
    needle = [np.array([[3.2, 0.5], [3.4, 0.5], [3.4, 2.5], [3.2, 2.5]])]
    assert [len(spans_of_polygons([needle], SHAPE, which)[0].y) for which in (rows, None)] == [1, 0]


def test_no_polygons_give_no_spans() -> None:
    assert spans_of_polygons([], (10, 10)) == []


def test_nothing_gives_no_pixels() -> None:
    assert polygon_spans([], SHAPE).n_pixels == 0
    assert polygon_spans([np.array([[1.0, 1.0], [9.0, 9.0]])], SHAPE).n_pixels == 0
    assert polygon_spans([np.array([[1.0, 1.0], [9.0, 9.0], [2.0, 9.0]])], (0, 0)).n_pixels == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_corners_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(SkymatchError, match="not finite"):
        polygon_spans([np.array([[0, 0], [5, bad], [5, 5]])], SHAPE)


def test_full_frame() -> None:
    assert Spans.full(SHAPE).mask(SHAPE).all()
    assert Spans.full(SHAPE).n_pixels == SHAPE[0] * SHAPE[1]
    assert Spans.full((4, 0)).n_pixels == 0


coordinate = st.floats(-10, 40)
corners = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)


@given(corners)
def test_convex_polygons_agree_with_shapely(points: list[tuple[float, float]]) -> None:
    hull = shapely.MultiPoint(points).convex_hull
    if not isinstance(hull, shapely.Polygon):
        return
    got = polygon_spans([np.asarray(hull.exterior.coords)], SHAPE).mask(SHAPE)
    # Centres within rounding of the border may fall on either side.
    differ = got != oracle(hull, SHAPE)
    y, x = differ.nonzero()
    assert np.all(shapely.distance(hull.exterior, shapely.points(x.astype(float), y.astype(float))) < 1e-9)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_multipolygons_with_holes_agree_with_shapely(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = shapely.Polygon()
    for _ in range(n):
        disc = shapely.Point(rng.uniform(-3, 33, 2)).buffer(rng.uniform(0.5, 9), quad_segs=3)
        geometry = geometry.symmetric_difference(disc)
    parts = [p for p in shapely.get_parts(geometry) if isinstance(p, shapely.Polygon)]
    geometry = shapely.MultiPolygon(parts)
    got = polygon_spans(rings_of(geometry), SHAPE).mask(SHAPE)
    np.testing.assert_array_equal(got, oracle(geometry, SHAPE))


@given(corners, st.tuples(coordinate, coordinate))
def test_polygons_that_share_edges_share_out_the_pixels(
    points: list[tuple[float, float]], middle: tuple[float, float]
) -> None:
    # Fan of triangles about a point: even-odd over all of them is the polygon itself.
    ring = np.array(points)
    whole = polygon_spans([ring], SHAPE).mask(SHAPE)
    parity = np.zeros(SHAPE, dtype=int)
    for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        parity += polygon_spans([np.array([a, b, middle])], SHAPE).mask(SHAPE)
    np.testing.assert_array_equal(parity % 2 == 1, whole)


@given(st.lists(st.integers(-5, 35), min_size=4, max_size=4, unique=True))
def test_tiling_of_rectangles_holds_every_pixel_once(cuts: list[int]) -> None:
    edges_x = np.array(sorted([-8, *cuts[:2], 45]), dtype=float)
    edges_y = np.array(sorted([-8, *cuts[2:], 45]), dtype=float)
    count = np.zeros(SHAPE, dtype=int)
    for x0, x1 in pairwise(edges_x):
        for y0, y1 in pairwise(edges_y):
            count += polygon_spans([np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])], SHAPE).mask(SHAPE)
    assert (count == 1).all()


@given(corners)
def test_spans_are_sorted_clipped_and_disjoint(points: list[tuple[float, float]]) -> None:
    spans = polygon_spans([np.array(points)], SHAPE)
    assert spans.y.dtype == spans.x0.dtype == spans.x1.dtype == np.int64
    assert np.all((spans.x0 >= 0) & (spans.x0 < spans.x1) & (spans.x1 <= SHAPE[1]))
    assert np.all((spans.y >= 0) & (spans.y < SHAPE[0]))
    same_row = np.diff(spans.y) == 0
    assert np.all(np.diff(spans.y) >= 0)
    assert np.all(spans.x0[1:][same_row] >= spans.x1[:-1][same_row])
