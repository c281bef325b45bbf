"""Overlaps: who shares sky with whom, how much, and which pixels that are."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import shapely
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from skymatch_cli.errors import InputError
from skymatch_cli.model import OverlapGraph
from skymatch_cli.sky import intersections as polygons
from skymatch_cli.sky.celestial import FitsWcs
from skymatch_cli.sky.footprint import Footprint, FootprintPart, footprint
from skymatch_cli.sky.intersections import counter_clockwise, intersect_quadrangles, overlay
from skymatch_cli.sky.overlap import overlap_graph, touching_caps
from skymatch_cli.sky.raster import spans_of_polygons
from skymatch_cli.sky.rings import pixel_rings
from skymatch_cli.sky.sphere import angle_rad, bounding_cap, normalised, pixel_area_arcsec2

from .headers import all_sky_wcs, fits_wcs, hst_chip, lookup_wcs, make_wcs, sip_cards, tpv_cards

SHARED = Path(__file__).parents[2] / "shared"


def graph_of(*images: FitsWcs) -> OverlapGraph:
    return overlap_graph([footprint(wcs) for wcs in images])


def quadrangle(corners: np.ndarray) -> Footprint:
    centre, radius = bounding_cap(corners)
    return Footprint((FootprintPart((corners,), centre, radius, (-0.5, -0.5, 99.5, 99.5)),))


def random_field(n: int, seed: int, spread: float = 0.02, size: float = 0.01) -> np.ndarray:
    """Corners (n, 4, 3) of tilted rectangles near the direction (1, 0, 0)."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-spread, spread, (n, 1, 2))
    turn = rng.uniform(0, 2 * np.pi, n)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size * rng.uniform(0.3, 1.0, (n, 1, 2))
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(n, 2, 2)
    flat = centre + np.einsum("nij,nkj->nki", rotation, corners)
    return normalised(np.concatenate([np.ones((n, 4, 1)), flat], axis=2))


def inside(wcs: FitsWcs, vectors: np.ndarray) -> np.ndarray:
    x, y = wcs.to_pixel(vectors)
    ny, nx = wcs.shape
    return (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)


def pixels_that_are_wrong(wcs: FitsWcs, other: FitsWcs, rings: list[np.ndarray]) -> int:
    """Pixels wholly on the sky that are on the wrong side of an overlap's border, by more than 0.05 pixels."""
    ny, nx = wcs.shape
    y, x = (grid.ravel().astype(float) for grid in np.mgrid[:ny, :nx])
    true = inside(other, wcs.to_sky(x, y))
    wrong = np.flatnonzero(spans_of_polygons([rings], wcs.shape)[0].mask(wcs.shape).ravel() != true)
    assert true.any()
    far = np.ones(len(wrong), dtype=bool)
    for dx, dy in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
        far &= np.isfinite(wcs.to_sky(x[wrong] + dx, y[wrong] + dy)).all(axis=1)
    for turn in np.arange(16) * np.pi / 8:
        moved = wcs.to_sky(x[wrong] + 0.05 * np.cos(turn), y[wrong] + 0.05 * np.sin(turn))
        far &= inside(other, moved) == true[wrong]
    return int(far.sum())


# ---- who overlaps, and how much


def test_two_images_side_by_side_share_a_strip():
    a, b = make_wcs(nx=100, ny=80, scale=1 / 60), make_wcs(nx=100, ny=80, scale=1 / 60, cards={"CRPIX1": -39.5})
    graph = graph_of(a, b)  # b looks 90 pixels further west, so they share 10 columns
    assert (graph.a.tolist(), graph.b.tolist()) == ([0], [1])
    assert graph.area_arcmin2[0] == pytest.approx(10 * 80, rel=2e-3)  # of one arcmin2 on the tangent plane


def test_one_image_inside_another():
    graph = graph_of(make_wcs(nx=100, ny=100), make_wcs(nx=20, ny=20, rotation=30.0))
    inner = make_wcs(nx=20, ny=20)
    assert graph.area_arcmin2[0] == pytest.approx(400 * pixel_area_arcsec2(inner) / 3600, rel=1e-6)


def test_identical_images_share_all():
    (rings,) = pixel_rings(graph_of(make_wcs(), make_wcs()), 0, make_wcs())
    corners = sorted(rings[0].round(7).tolist())
    assert corners == [[-0.5, -0.5], [-0.5, 79.5], [99.5, -0.5], [99.5, 79.5]]


@pytest.mark.parametrize("rotation", [0.0, 33.0])
@pytest.mark.parametrize("lat", [0.0, 20.0, 90.0])
def test_images_that_only_touch_share_nothing(rotation, lat):
    tiles = [
        make_wcs(lat=lat, nx=100, ny=80, rotation=rotation, cards={"CRPIX1": 50.5 - 100 * i, "CRPIX2": 40.5 - 80 * j})
        for i in range(3)
        for j in range(3)
    ]
    assert len(graph_of(*tiles).a) == 0


def test_images_apart_have_an_empty_graph():
    graph = graph_of(make_wcs(lon=10.0), make_wcs(lon=200.0))
    assert (graph.n_images, len(graph.a), len(graph.polygon), len(graph.area_arcmin2)) == (2, 0, 0, 0)
    assert pixel_rings(graph, 0, make_wcs(lon=10.0)) == []
    assert pixel_rings(graph, 0, all_sky_wcs("CAR")) == []


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_overlaps(n):
    graph = graph_of(*[make_wcs()] * n)
    assert (graph.n_images, len(graph.a)) == (n, 0)


def test_areas_are_those_of_shapely_on_a_small_field():
    corners = random_field(60, seed=1, spread=2e-5, size=1e-5)
    graph = overlap_graph([quadrangle(c) for c in corners])
    flat = shapely.polygons(corners[..., 1:] / corners[..., :1])
    expected = {
        (i, j): area
        for i, j in combinations(range(60), 2)
        if (area := shapely.intersection(flat[i], flat[j]).area * (180 * 60 / np.pi) ** 2) > 1e-12
    }
    found = dict(zip(zip(graph.a.tolist(), graph.b.tolist(), strict=True), graph.area_arcmin2, strict=True))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), rtol=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), over_the_pole=st.booleans())
def test_a_field_turned_on_the_sphere_keeps_its_areas(seed, over_the_pole):
    corners = random_field(12, seed)
    turn = Rotation.random(random_state=seed)
    if over_the_pole:
        turn = Rotation.from_euler("y", -90, degrees=True) * Rotation.from_euler("x", seed % 360, degrees=True)
    here = overlap_graph([quadrangle(c) for c in corners])
    there = overlap_graph([quadrangle(turn.apply(c)) for c in corners])
    big = here.area_arcmin2 > 1e-3
    pairs = set(zip(here.a[big].tolist(), here.b[big].tolist(), strict=True))
    found = dict(zip(zip(there.a.tolist(), there.b.tolist(), strict=True), there.area_arcmin2, strict=True))
    assert pairs <= found.keys()
    turned = [found[pair] for pair in zip(here.a[big].tolist(), here.b[big].tolist(), strict=True)]
    np.testing.assert_allclose(turned, here.area_arcmin2[big], rtol=1e-9)


def test_the_order_of_the_images_changes_nothing_but_their_numbers():
    images = [quadrangle(c) for c in random_field(30, seed=3)]
    images += [quadrangle(c[:, [1, 2, 0]]) for c in random_field(20, seed=4)]  # another field, far away
    order = np.random.default_rng(5).permutation(50)
    graph, shuffled = overlap_graph(images), overlap_graph([images[k] for k in order])
    new_a, new_b = order[shuffled.a], order[shuffled.b]
    same = np.lexsort((np.maximum(new_a, new_b), np.minimum(new_a, new_b)))
    np.testing.assert_array_equal(np.minimum(new_a, new_b)[same], graph.a)
    np.testing.assert_array_equal(shuffled.area_arcmin2[same], graph.area_arcmin2)
    np.testing.assert_array_equal(shuffled.polygon.part(same).xy, graph.polygon.xy)
    assert [shuffled.planes[k] for k in shuffled.plane[same]] == [graph.planes[k] for k in graph.plane]


def test_overlaps_found_a_few_at_a_time_are_the_same(monkeypatch):
    corners = random_field(20, seed=8)
    images = [
        *map(quadrangle, corners[:10]),
        footprint(make_wcs(lon=0.0, lat=0.0, projection="TAN-SIP", cards=sip_cards(100))),
    ]
    images += [quadrangle(c) for c in corners[10:]]
    graph = overlap_graph(images)
    monkeypatch.setattr(polygons, "_PAIRS", 7)
    again = overlap_graph(images)
    assert len(graph.a) > 14
    for name in ("a", "b", "area_arcmin2"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))
    np.testing.assert_array_equal(again.polygon.xy, graph.polygon.xy)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_pairs_by_image_are_those_of_each_image(n):
    graph = overlap_graph([quadrangle(c) for c in random_field(n, seed=9)])
    mine = graph.pairs_by_image()
    assert [mine[i].tolist() for i in range(n)] == [graph.pairs_of(i).tolist() for i in range(n)]


def test_a_narrow_field_has_one_plane_and_far_fields_their_own():
    here, there = random_field(10, seed=6, spread=0.005), random_field(10, seed=7, spread=0.005)[..., [2, 0, 1]]
    assert len(overlap_graph([quadrangle(c) for c in here]).planes) == 1
    graph = overlap_graph([quadrangle(c) for c in [*here, *there]])
    assert len(graph.planes) == 2
    assert (graph.plane == (graph.a >= 10)).all() or (graph.plane == (graph.a < 10)).all()


def test_a_belt_around_the_sky_needs_no_plane_for_all():
    turns = Rotation.from_euler("z", np.arange(0, 360, 3)[:, None], degrees=True)
    image = normalised(np.array([[1, -0.05, -0.04], [1, 0.05, -0.04], [1, 0.05, 0.04], [1, -0.05, 0.04]]))
    graph = overlap_graph([quadrangle(turn.apply(image)) for turn in turns])
    assert len(graph.planes) > 10
    neighbours = (graph.b - graph.a == 1) | (graph.b - graph.a == 119)
    assert neighbours.sum() == 120
    np.testing.assert_allclose(graph.area_arcmin2[neighbours], graph.area_arcmin2[0], rtol=1e-9)


def test_a_mosaic_of_2mass_has_its_thirteen_pairs():
    files = sorted((SHARED / "data" / "m17_2mass_k").glob("*.fits.gz"))
    if not files:
        pytest.skip("the shared data are not here")
    headers = [fits.getheader(path) for path in files]
    graph = graph_of(*(fits_wcs(h, (h["NAXIS2"], h["NAXIS1"])) for h in headers))
    assert len(graph.a) == 13


# ---- the parts they are made of


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 60) | st.integers(290, 400))
def test_neighbours_are_those_that_a_look_at_all_pairs_finds(seed, n):
    rng = np.random.default_rng(seed)
    centres = normalised(rng.normal(size=(n, 3)))
    radii = 10.0 ** rng.uniform(-3, 0.4, n)
    pairs = np.array(list(combinations(range(n), 2)), int).reshape(-1, 2)
    touch = angle_rad(*centres[pairs.T]) <= radii[pairs].sum(axis=1)
    np.testing.assert_array_equal(np.stack(touching_caps(centres, radii), axis=1), pairs[touch])


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["any", "same", "nested", "shared side", "far"]))
def test_quadrangles_are_cut_as_shapely_cuts_them(seed, kind):
    a, b = (random_field(1, seed + k)[..., 1:] for k in (0, 1))
    changed = {
        "any": b,
        "same": a,
        "nested": 0.5 * (a + a.mean(axis=1, keepdims=True)),
        "shared side": a + (a[:, 1] - a[:, 0])[:, None],
        "far": b + 1.0,
    }[kind]
    (first, convex_a), (second, convex_b) = counter_clockwise(a), counter_clockwise(changed[:, ::-1])
    assert convex_a.all()
    assert convex_b.all()
    vertices, count = intersect_quadrangles(first, second)
    found = shapely.Polygon(vertices[0, : count[0]]).area if count[0] >= 3 else 0.0
    expected = shapely.intersection(shapely.Polygon(a[0]), shapely.Polygon(changed[0])).area
    assert found == pytest.approx(expected, abs=1e-12 * shapely.Polygon(a[0]).area)


def test_a_dart_is_not_convex():
    dart = np.array([[[0.0, 0.0], [1.0, 0.0], [0.2, 0.2], [0.0, 1.0]]])
    assert not counter_clockwise(dart)[1].any()


def test_polygons_along_almost_the_same_edge_share_nothing():
    # In plain floating point GEOS 3.14 says that all of the second is inside the first.
    first = shapely.Polygon([(446, -207), (315, -75.99999999999999), (557, -76)])
    second = shapely.Polygon([(184, -207), (315, -76), (446, -207), (315, -338)])
    scaled = [shapely.transform(polygon, lambda xy: xy / 1024) for polygon in (first, second)]
    (shared,) = overlay(np.array(scaled[:1]), np.array(scaled[1:]))
    assert shared.area < 1e-12


# ---- the overlaps in pixels

KINDS = {
    "plain": {},
    "rotated": {"rotation": 77.0},
    "mirrored": {"mirrored": True, "rotation": 10.0},
    "dec first": {"axes": ("DEC", "RA"), "rotation": 20.0},
    "sip": {"projection": "TAN-SIP", "cards": sip_cards(100, 4.0)},
    "tpv": {"projection": "TPV", "cards": tpv_cards(0.05)},
    "sin": {"projection": "SIN"},
    "aitoff": {"projection": "AIT"},
    "fk5": {"cards": {"RADESYS": "FK5", "EQUINOX": 2000.0}},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_pixels_of_an_overlap_are_those_whose_centres_are_inside(kind):
    wcs = make_wcs(nx=100, ny=80, **kind)
    others = [
        make_wcs(nx=90, ny=70, rotation=30.0, lon=150.03, lat=20.02),
        make_wcs(nx=90, ny=70, rotation=5.0, lon=149.97, lat=20.03, projection="TAN-SIP", cards=sip_cards(90, 3.0)),
    ]
    rings = pixel_rings(graph_of(wcs, *others), 0, wcs)
    assert [pixels_that_are_wrong(wcs, other, found) for other, found in zip(others, rings, strict=True)] == [0, 0]


@pytest.mark.parametrize("place", [(0.0, 0.0), (359.99, -60.0), (40.0, 90.0), (0.0, -89.99)])
def test_overlaps_over_the_pole_and_across_zero(place):
    lon, lat = place
    wcs = make_wcs(nx=200, ny=100, lon=lon, lat=lat, projection="STG", scale=0.02)
    other = make_wcs(nx=90, ny=70, lon=lon, lat=lat, rotation=30.0, scale=0.02, cards={"CRPIX1": 10.0})
    graph = graph_of(wcs, other)
    (rings,) = pixel_rings(graph, 0, wcs)
    assert pixels_that_are_wrong(wcs, other, rings) == 0


@pytest.mark.parametrize("make", [lookup_wcs, hst_chip], ids=["lookup", "hst"])
def test_rings_in_real_distortions_lead_back_to_the_overlap(make):
    wcs = make()
    ny, nx = wcs.shape
    (ra, dec), scale = np.degrees(_position(wcs)), np.sqrt(pixel_area_arcsec2(wcs)) / 3600
    other = make_wcs(nx=nx, ny=ny, lon=ra, lat=dec, rotation=30.0, scale=scale, cards={"CRPIX1": 0.2 * nx})
    graph = graph_of(wcs, other)
    (rings,) = pixel_rings(graph, 0, wcs)
    vertices = np.concatenate(rings)
    assert (vertices >= -0.5).all()
    assert (vertices <= [nx - 0.5, ny - 0.5]).all()
    x, y = other.to_pixel(wcs.to_sky(*vertices.T))
    on_own = (np.abs(vertices + 0.5) < 0.05).any(axis=1) | (np.abs(vertices - [nx - 0.5, ny - 0.5]) < 0.05).any(axis=1)
    on_other = np.min([np.abs(x + 0.5), np.abs(x - nx + 0.5), np.abs(y + 0.5), np.abs(y - ny + 0.5)], axis=0) < 0.1
    assert (on_own | on_other).all()
    area = shapely.Polygon(rings[0]).area * pixel_area_arcsec2(wcs) / 3600
    assert area == pytest.approx(graph.area_arcmin2[0], rel=0.03)  # the size of the pixels varies by percents


def _position(wcs: FitsWcs) -> tuple[float, float]:
    ny, nx = wcs.shape
    ((x, y, z),) = wcs.to_sky(np.array([nx / 2]), np.array([ny / 2]))
    return np.arctan2(y, x), np.arcsin(z)


def test_a_curved_edge_has_vertices_where_it_bends_and_a_straight_one_has_none():
    graph = graph_of(make_wcs(), make_wcs(nx=50, ny=50), make_wcs(projection="TAN-SIP", cards=sip_cards(100, 8.0)))
    assert len(pixel_rings(graph, 0, make_wcs())[0][0]) == 4
    curved = pixel_rings(graph, 2, make_wcs(projection="TAN-SIP", cards=sip_cards(100, 8.0)))
    assert len(curved[1][0]) > 8


def test_grid_aligned_images_share_whole_pixels():
    a, b = make_wcs(nx=100, ny=80), make_wcs(nx=100, ny=80, cards={"CRPIX1": 20.5, "CRPIX2": 13.5})
    (rings,) = pixel_rings(graph_of(a, b), 0, a)  # b starts at column 30, row 27
    mask = spans_of_polygons([rings], a.shape)[0].mask(a.shape)
    assert mask[27:, 30:].all()
    assert mask.sum() == 53 * 70


def test_rings_come_in_the_order_of_the_pairs():
    images = [make_wcs(nx=100, ny=80, cards={"CRPIX1": 50.5 - 60 * k}) for k in range(4)]
    graph = graph_of(*images)
    rings = pixel_rings(graph, 1, images[1])
    assert graph.pairs_of(1).tolist() == [0, 1]
    assert np.concatenate(rings[0])[:, 0].max() == pytest.approx(39.5)
    assert np.concatenate(rings[1])[:, 0].min() == pytest.approx(59.5)


class Broken:
    """A WCS whose inverse knows nothing, and whose frame is not where the graph thinks."""

    def __init__(self, wcs: FitsWcs, sky: bool = True) -> None:
        self._wcs, self._sky = wcs, sky
        self.shape = wcs.shape

    def to_sky(self, x, y):
        return self._wcs.to_sky(x, y) if self._sky else self._wcs.to_sky(x + 1000.0, y)

    def to_pixel(self, vectors):
        nothing = np.full(len(vectors), np.nan)
        return nothing, nothing.copy()


def test_without_an_inverse_pixels_are_searched():
    wcs = make_wcs(projection="TAN-SIP", cards=sip_cards(100))
    graph = graph_of(wcs, make_wcs(nx=50, ny=50, rotation=20.0))
    found, expected = pixel_rings(graph, 0, Broken(wcs)), pixel_rings(graph, 0, wcs)
    np.testing.assert_allclose(found[0][0], expected[0][0], atol=1e-4)


def test_a_wcs_that_does_not_lead_back_is_an_error_that_names_the_image():
    wcs = make_wcs()
    graph = graph_of(wcs, make_wcs(nx=50, ny=50, rotation=20.0))
    with pytest.raises(InputError, match=r"a\.fits\[1\]: its WCS has no inverse at \d+ places"):
        pixel_rings(graph, 0, Broken(wcs, sky=False), "a.fits[1]")


# ---- images too wide for one plane


@pytest.mark.parametrize("projection", ["CAR", "AIT"])
@pytest.mark.parametrize("centre", [(266.4, -28.9), (86.4, 28.9), (192.86, 27.13)], ids=["middle", "seam", "pole"])
def test_an_image_in_an_all_sky_map(projection, centre):
    sky, image = all_sky_wcs(projection, nx=360), make_wcs(nx=200, ny=200, lon=centre[0], lat=centre[1], scale=0.1)
    graph = graph_of(sky, image)
    assert len(graph.a) == 1
    (rings,) = pixel_rings(graph, 0, sky)
    assert pixels_that_are_wrong(sky, image, rings) == 0


def test_two_all_sky_maps_share_the_sky_once():
    graph = graph_of(all_sky_wcs("CAR"), all_sky_wcs("CAR", nx=150, axes=("RA", "DEC")))
    assert set(zip(graph.a.tolist(), graph.b.tolist(), strict=True)) == {(0, 1)}
    assert len(set(graph.plane.tolist())) == len(graph.a)
    assert graph.area_arcmin2.sum() == pytest.approx(41252.961249 * 3600, rel=1e-4)
