"""Footprints: rings on the sky that follow the border of the frame, wherever it lies."""

import numpy as np
import pytest
import shapely

from skymatch_cli.errors import InputError
from skymatch_cli.model import CelestialWcs, TangentPlane
from skymatch_cli.sky.footprint import Footprint, footprint
from skymatch_cli.sky.intersections import part_polygons, polygons_of
from skymatch_cli.sky.sphere import angle_rad, bounding_cap, lon_lat, normalised, ring_sr, unit_vectors
from skymatch_cli.sky.tangent import SR_TO_ARCMIN2, project, solid_angle_sr, unproject

from .headers import all_sky_wcs, hst_chip, lookup_wcs, make_wcs, sip_cards, tpv_cards

WHOLE_SKY_SR = 4 * np.pi
CURVED = {
    "sip 2 px": lambda: make_wcs(nx=500, ny=300, projection="TAN-SIP", cards=sip_cards(500)),
    "sip 40 px": lambda: make_wcs(nx=2000, ny=1000, projection="TAN-SIP", cards=sip_cards(2000, pixels=40.0)),
    "tpv": lambda: make_wcs(nx=2000, ny=4000, projection="TPV", cards=tpv_cards(2.0)),
    "sin": lambda: make_wcs(nx=500, ny=700, projection="SIN", scale=0.05),
    "car": lambda: make_wcs(nx=400, ny=300, projection="CAR", lat=0.0, scale=0.02, cards={"CRPIX2": -2500.0}),
    "aitoff": lambda: make_wcs(nx=300, ny=300, projection="AIT", lat=0.0, scale=0.1, cards={"CRPIX1": 900.0}),
    "over the pole": lambda: make_wcs(nx=300, ny=200, projection="ZEA", lat=89.9, scale=0.05),
    "fk4": lambda: make_wcs(nx=1000, ny=1000, scale=0.02, cards={"EQUINOX": 1950.0}),
    "hst": hst_chip,
    "lookup": lookup_wcs,
}


def solid_angle(image: Footprint) -> float:
    return sum(ring_sr(p.rings[0]) - sum(ring_sr(hole) for hole in p.rings[1:]) for p in image.parts)


def border_pixels(wcs: CelestialWcs, step: float = 1.0) -> np.ndarray:
    ny, nx = wcs.shape
    x, y = np.arange(-0.5, nx - 0.5, step), np.arange(-0.5, ny - 0.5, step)
    sides = [(x, -0.5 + 0 * x), (nx - 0.5 + 0 * y, y), (nx - 1 - x, ny - 0.5 + 0 * x), (-0.5 + 0 * y, ny - 1 - y)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def border_error_pix(wcs: CelestialWcs) -> float:
    """Largest distance, in pixels, between the true border and the footprint's: every pixel is looked at."""
    (part,) = footprint(wcs).parts
    ra, dec = np.degrees(lon_lat(part.centre))
    plane = TangentPlane(float(ra), float(dec))
    outline = shapely.boundary(part_polygons([part], plane)[0])
    pixels = border_pixels(wcs)
    true = project(plane, wcs.to_sky(*pixels.T))
    nearest = shapely.get_coordinates(
        shapely.line_interpolate_point(outline, shapely.line_locate_point(outline, shapely.points(true)))
    )
    back = np.stack(wcs.to_pixel(unproject(plane, nearest)), axis=1)
    return float(np.linalg.norm(back - pixels, axis=1).max())


def test_an_undistorted_image_is_its_four_corners():
    wcs = make_wcs(nx=100, ny=80)
    (part,) = footprint(wcs).parts
    (ring,) = part.rings
    np.testing.assert_array_equal(
        ring, wcs.to_sky(np.array([-0.5, 99.5, 99.5, -0.5]), np.array([-0.5, -0.5, 79.5, 79.5]))
    )
    assert part.box == (-0.5, -0.5, 99.5, 79.5)


@pytest.mark.parametrize("make", CURVED.values(), ids=CURVED)
def test_curved_borders_are_followed_to_a_twentieth_of_a_pixel(make):
    assert border_error_pix(make()) < 0.05


@pytest.mark.parametrize("make", CURVED.values(), ids=CURVED)
def test_the_cap_holds_the_footprint(make):
    wcs = make()
    (part,) = footprint(wcs).parts
    assert angle_rad(wcs.to_sky(*border_pixels(wcs, 7.0).T), part.centre).max() < part.radius + 1e-6


@pytest.mark.parametrize(("lon", "lat"), [(0.0, 0.0), (359.99, 45.0), (123.0, 90.0), (0.0, -89.99), (180.0, -90.0)])
def test_an_image_has_the_same_area_anywhere(lon, lat):
    here = footprint(make_wcs(lon=150.0, lat=20.0, rotation=10.0))
    assert solid_angle(footprint(make_wcs(lon=lon, lat=lat, rotation=77.0))) == pytest.approx(
        solid_angle(here), rel=1e-9
    )


def test_the_area_of_a_strip_between_parallels_is_that_of_the_textbook():
    # 0 < longitude < 40 deg, 30 < latitude < 50 deg
    wcs = make_wcs(nx=400, ny=200, projection="CAR", lon=20.0, lat=0.0, scale=0.1, cards={"CRPIX2": 100.5 - 400.0})
    expected = np.radians(40.0) * (np.sin(np.radians(50.0)) - np.sin(np.radians(30.0)))
    assert solid_angle(footprint(wcs)) == pytest.approx(expected, rel=3e-5)


def test_a_wide_gnomonic_image_is_cut_into_parts():
    wcs = make_wcs(nx=200, ny=200, scale=1.0)  # 120 degrees wide
    parts = footprint(wcs).parts
    assert len(parts) > 1
    assert max(part.radius for part in parts) < np.radians(30.0)
    half = np.pi * 100 / 180  # 100 pixels of one degree, on the plane
    expected = 4 * np.arcsin(half**2 / (1 + half**2))  # a square on the tangent plane
    assert solid_angle(Footprint(parts)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("projection", "covered"), [("CAR", 1.0), ("AIT", 0.97), ("MOL", 0.97), ("CEA", 0.6)])
def test_an_all_sky_map_covers_the_sky_once(projection, covered):
    image = footprint(all_sky_wcs(projection))
    assert covered - 1e-9 <= solid_angle(image) / WHOLE_SKY_SR <= 1.0 + 1e-5  # seams are followed to 0.02 pixels
    assert max(part.radius for part in image.parts) < np.radians(30.0)


@pytest.mark.parametrize("projection", ["SIN", "ZEA", "ARC", "STG", "TSC", "CSC", "HPX", "BON", "COE", "PCO", "SFL"])
def test_images_of_half_the_sky_and_more_are_followed(projection):
    cards = {"PV2_1": 45.0} if projection in ("BON", "COE") else {}
    wcs = make_wcs(nx=120, ny=100, lat=0.0, scale=3.0, projection=projection, cards=cards)
    image = footprint(wcs)
    assert 0.25 < solid_angle(image) / WHOLE_SKY_SR <= 1.001
    boxes = np.array([part.box for part in image.parts])
    assert (boxes >= -0.5).all()
    assert (boxes <= [119.5, 99.5, 119.5, 99.5]).all()


def test_only_pixels_on_the_sky_belong_to_a_footprint():
    wcs = make_wcs(nx=128, ny=128, lat=0.0, scale=1.0, projection="SIN")  # a disc of 57.3 pixels
    assert 0.4 < solid_angle(footprint(wcs)) / WHOLE_SKY_SR < 0.5


def test_an_image_off_the_sky_is_refused_by_name():
    wcs = make_wcs(projection="SIN", scale=1.0, cards={"CRPIX1": -5000.0})
    with pytest.raises(InputError, match=r"a\.fits: none of its pixels is on the sky"):
        footprint(wcs, "a.fits")


def test_a_wcs_that_folds_over_is_refused():
    wcs = make_wcs(projection="TAN-SIP", cards={"A_ORDER": 2, "B_ORDER": 2, "A_1_1": 0.03, "B_0_2": 0.001})
    with pytest.raises(InputError, match="same place on the sky"):
        footprint(wcs)


def test_projecting_and_back_is_exact_even_at_the_pole():
    plane = TangentPlane(77.0, 89.0)
    vectors = unit_vectors(np.radians([0.0, 10.0, 200.0, 77.0]), np.radians([90.0, 89.9999, 85.0, 89.0]))
    np.testing.assert_allclose(unproject(plane, project(plane, vectors)), vectors, atol=5e-16)


def test_the_far_side_has_no_place_in_a_plane():
    xy = project(TangentPlane(0.0, 0.0), np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert np.isfinite(xy[0]).all()
    assert np.isnan(xy[1:]).all()


def test_the_plane_has_east_to_the_right():
    xy = project(TangentPlane(10.0, 20.0), unit_vectors(np.radians([10.001]), np.radians([20.0])))
    assert xy[0, 0] == pytest.approx(np.radians(0.001) * np.cos(np.radians(20.0)), rel=1e-6)


def test_solid_angles_of_polygons_with_holes_and_of_several_parts():
    big, small = shapely.box(-1, -1, 1, 1), shapely.box(-0.5, -0.5, 0.5, 0.5)
    far = shapely.box(2, 2, 3, 3)
    polygons = [big, small, shapely.difference(big, small), shapely.union(small, far), far, shapely.Polygon()]
    area = solid_angle_sr(polygons_of(polygons))
    assert area[0] == pytest.approx(WHOLE_SKY_SR / 6)  # a face of the cube
    assert area[2] == pytest.approx(area[0] - area[1])
    assert area[3] == pytest.approx(area[1] + area[4])
    assert area[5] == 0.0


def test_a_tiny_polygon_keeps_its_digits():
    side = 1e-9
    (area,) = solid_angle_sr(polygons_of([shapely.box(0.3, 0.2, 0.3 + side, 0.2 + side)]))
    assert area == pytest.approx(side**2 / (1 + 0.3**2 + 0.2**2) ** 1.5, rel=1e-6)


def test_the_octant_of_the_sphere():
    assert ring_sr(np.eye(3)) == pytest.approx(np.pi / 2)
    assert ring_sr(np.eye(3)) * SR_TO_ARCMIN2 == pytest.approx(41252.961249 * 3600 / 8)


def test_a_cap_around_the_whole_sphere():
    assert bounding_cap(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))[1] == np.pi
    centre, radius = bounding_cap(normalised(np.array([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]])))
    np.testing.assert_allclose(centre, [1.0, 0.0, 0.0])
    assert radius == pytest.approx(np.arctan(0.1))
