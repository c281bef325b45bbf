"""Polygons as columns are the polygons that shapely makes of the same vertices."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.intersections import polygons_of, shapes_of

BIG, SMALL, FAR = shapely.box(-2, -2, 2, 2), shapely.box(-1, -1, 1, 1), shapely.box(5, 5, 6, 7)
HOLLOW = shapely.difference(BIG, SMALL)
KINDS = [SMALL, HOLLOW, shapely.union(HOLLOW, FAR), shapely.union(FAR, SMALL), shapely.Polygon()]


def wkb(shapes) -> list[bytes]:
    return shapely.to_wkb(np.asarray(shapes, object)).tolist()


def test_a_hole_and_two_parts_in_columns():
    polygons = polygons_of([HOLLOW, shapely.Polygon(), shapely.union(SMALL, FAR)])
    assert len(polygons) == 3
    assert polygons.xy.shape == (20, 2)
    assert polygons.ring_offset.tolist() == [0, 5, 10, 15, 20]
    assert polygons.outer.tolist() == [True, False, True, True]
    assert polygons.row_offset.tolist() == [0, 2, 2, 4]


@given(rows=st.lists(st.integers(0, len(KINDS) - 1), max_size=12), part=st.data())
def test_shapes_come_back_as_they_were(rows, part):
    polygons = polygons_of([KINDS[k] for k in rows])
    assert wkb(shapes_of(polygons)) == wkb([KINDS[k] for k in rows])
    some = part.draw(st.lists(st.sampled_from(range(len(rows))), max_size=12)) if rows else []
    taken = polygons.part(np.array(some, np.int64))
    assert wkb(shapes_of(taken)) == wkb([KINDS[rows[k]] for k in some])
    both = Polygons.joined([taken, polygons])
    assert wkb(shapes_of(both)) == wkb(shapes_of(taken)) + wkb(shapes_of(polygons))


def test_no_rows():
    nothing = Polygons.joined([])
    assert len(nothing) == len(nothing.part(np.empty(0, np.int64))) == len(shapes_of(nothing)) == 0
    assert nothing.area().shape == nothing.perimeter().shape == (0,)


def test_areas_and_borders_are_those_of_shapely():
    polygons = polygons_of(KINDS)
    assert polygons.area().tolist() == shapely.area(KINDS).tolist() == [4.0, 12.0, 14.0, 6.0, 0.0]
    assert polygons.perimeter().tolist() == shapely.length(KINDS).tolist() == [8.0, 24.0, 30.0, 14.0, 0.0]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_areas_and_borders_keep_their_digits_far_from_the_origin(seed, x, y):
    points = np.random.default_rng(seed).normal((x, y), 1e-6, (5, 6, 2))
    shapes = shapely.convex_hull(shapely.multipoints(points.reshape(-1, 2), indices=np.repeat(np.arange(5), 6)))
    polygons = polygons_of(shapes)
    np.testing.assert_allclose(polygons.area(), shapely.area(shapes), rtol=1e-13)
    np.testing.assert_allclose(polygons.perimeter(), shapely.length(shapes), rtol=1e-13)


SIDES = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "vertices",
    [SIDES, SIDES[:3], [*SIDES, SIDES[0]], [SIDES[0], SIDES[0], *SIDES[1:]], [*SIDES[:2], SIDES[0]], [SIDES[0]] * 4],
    ids=["open", "triangle", "closed", "repeated", "two", "one"],
)
def test_rings_are_closed_as_shapely_closes_them(vertices):
    count = np.array([0, len(vertices), 2])
    padded = np.full((3, 8, 2), 9.0)
    padded[:, : len(vertices)] = vertices
    expected = [shapely.Polygon(), shapely.Polygon(vertices), shapely.Polygon()]
    assert wkb(shapes_of(Polygons.of_vertices(padded, count))) == wkb(expected)
