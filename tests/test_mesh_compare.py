"""Meshes compared: differences of skies, cell by cell."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from skymatch_cli.compare.mesh.cells import MeshGrid
from skymatch_cli.compare.mesh.connected import least_squares_offsets
from skymatch_cli.compare.mesh.fields import image_fields
from skymatch_cli.compare.mesh.joint import compare
from skymatch_cli.compare.mesh.placement import Placement
from skymatch_cli.compare.mesh.reduce import reduce_image
from skymatch_cli.compare.mesh.structure import PairStructure
from skymatch_cli.compare.mesh.sums import BlockScatter
from skymatch_cli.compare.mesh.zeropoints import ZeroPoints
from skymatch_cli.model import OverlapGraph, Status, TangentPlane
from skymatch_cli.sky.intersections import polygons_of
from skymatch_cli.sky.tangent import project

from .factories import Frame
from .headers import fits_wcs

PLANE = TangentPlane(150.0, 20.0)
GRID = MeshGrid(PLANE, 4 * np.radians(1 / 3600))
SIZE = 160


def wcs_of(frame):
    return fits_wcs(frame.wcs().to_header(relax=True), (frame.ny, frame.nx))


def graph_of(wcss):
    rings = []
    for w in wcss:
        ny, nx = w.shape
        corners = np.array([[-0.5, -0.5], [nx - 0.5, -0.5], [nx - 0.5, ny - 0.5], [-0.5, ny - 0.5]])
        rings.append(shapely.Polygon(project(PLANE, w.to_sky(*corners.T))))
    pairs = [(i, j) for j in range(len(rings)) for i in range(j) if rings[i].intersects(rings[j])]
    a, b = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    polygons = polygons_of([rings[i].intersection(rings[j]) for i, j in zip(a, b, strict=True)])
    area = polygons.area()
    return OverlapGraph(len(rings), a, b, area, polygons, np.zeros(len(a), np.int64), (PLANE,))


def scene(x, y):
    """Nebula and stars (position on the plane in arcsec); stars of FWHM 2.4 arcsec."""
    out = 50 * np.sin(x / 17.0) * np.cos(y / 23.0)
    rng = np.random.default_rng(9)
    for sx, sy, flux in zip(
        rng.uniform(-300, 300, 150), rng.uniform(-300, 300, 150), rng.pareto(1.0, 150), strict=True
    ):
        out += 100 * (1 + flux) * np.exp(-0.5 * ((x - sx) ** 2 + (y - sy) ** 2) / 1.02**2)
    return out


def exposures(frames, seed=0, noise=3.0):
    rng = np.random.default_rng(seed)
    out = []
    for frame in frames:
        wcs = wcs_of(frame)
        x, y = np.meshgrid(np.arange(frame.nx, dtype=float), np.arange(frame.ny, dtype=float))
        east, north = (project(PLANE, wcs.to_sky(x.ravel(), y.ravel())) / np.radians(1 / 3600)).T
        data = scene(east, north).reshape(x.shape) + frame.sky + rng.normal(0, noise, x.shape)
        out.append((data.astype(np.float32), np.ones(x.shape, bool), wcs))
    return out


def measured(images, group=None, **more):
    meshes = [reduce_image(data, good, Placement(wcs, GRID)) for data, good, wcs in images]
    group = np.arange(len(images)) if group is None else group
    return compare([meshes], graph_of([w for _, _, w in images]), group, **more)


def frames(*skies, step=100.0, **more):
    return [Frame(x=k * step, nx=SIZE, ny=SIZE, sky=s, rotation=7.0 * k, **more) for k, s in enumerate(skies)]


def test_the_difference_of_two_skies_is_found_under_stars_and_nebula():
    m = measured(exposures(frames(100.0, 130.0)))
    assert list(m.status) == [Status.OK]
    assert abs(m.delta[0] + 30.0) < 4 * m.delta_err[0]
    assert m.delta_err[0] == pytest.approx(3 * np.sqrt(2 / (SIZE * (SIZE - 100))), rel=0.3)
    assert m.delta[0] == pytest.approx(m.sky_a[0] - m.sky_b[0])
    assert m.weight[0] == pytest.approx(m.delta_err[0] ** -2, rel=0.15)


def test_errors_are_true():
    pulls = []
    for seed in range(24):
        m = measured(exposures(frames(100.0, 130.0, 90.0), seed=seed))
        pulls += list((m.delta - np.array([-30.0, 40.0])[: len(m.delta)]) / m.delta_err)
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.3


def test_noise_free_skies_come_back():
    m = measured(
        [(np.full((SIZE, SIZE), f.sky, np.float32), np.ones((SIZE, SIZE), bool), wcs_of(f)) for f in frames(5, 7)]
    )
    assert m.delta[0] == pytest.approx(-2.0, rel=1e-9)
    assert 0 < m.delta_err[0] < 1e-5


@settings(max_examples=5)
@given(st.floats(-1e4, 1e4))
def test_a_constant_added_to_one_image_shifts_its_differences_by_it(constant):
    images = exposures(frames(100.0, 130.0, 90.0, step=60.0))
    before = measured(images)
    data, good, wcs = images[1]
    after = measured([images[0], (data.astype(float) + constant, good, wcs), images[2]])
    shift = constant * ((before.b == 1).astype(float) - (before.a == 1))
    np.testing.assert_allclose(after.delta, before.delta - shift, atol=0.02 * before.delta_err.min())


def test_blobs_masked_in_one_image_are_honoured_in_the_other():
    images = exposures(frames(100.0, 130.0))
    data, good, wcs = images[0]
    y, x = np.indices(data.shape)
    good = np.hypot(x - 20, y - 80) > 18
    m = measured([(np.where(good, data, 1e6).astype(np.float32), good, wcs), images[1]])
    assert abs(m.delta[0] + 30.0) < 4 * m.delta_err[0]


def test_a_satellite_trail_in_one_image_is_outvoted():
    images = exposures(frames(100.0, 130.0))
    clean = measured(images)
    data = images[0][0].copy()
    y, x = np.indices(data.shape)
    data[np.abs(x - 25 - 0.1 * y) < 3] += 500
    trailed = measured([(data, *images[0][1:]), images[1]])
    assert abs(trailed.delta[0] - clean.delta[0]) < 2 * clean.delta_err[0]


def test_cosmic_rays_in_a_stack_do_no_harm():
    images = exposures([Frame(x=3.0 * k, y=2.0 * k, nx=SIZE, ny=SIZE, sky=100.0 + k) for k in range(5)])
    rng = np.random.default_rng(3)
    for data, _, _ in images:
        y, x = rng.integers(2, SIZE - 8, (2, 40))
        for k in range(6):
            data[y, x + k] += 2000
    m = measured(images)
    assert np.abs((m.delta - (m.a - m.b)) / m.delta_err).max() < 4


def test_images_of_one_group_are_reported_and_not_used():
    m = measured(exposures(frames(100.0, 130.0, 90.0)), group=np.array([0, 0, 1]))
    assert m.status[0] == Status.SAME_GROUP
    assert m.weight[0] == 0
    assert np.isfinite(m.delta[0])


def test_an_image_without_good_pixels_has_no_differences():
    images = exposures(frames(100.0, 130.0))
    m = measured([(images[0][0], np.zeros((SIZE, SIZE), bool), images[0][2]), images[1]])
    assert m.status[0] == Status.ALL_MASKED
    assert np.isnan(m.delta[0])
    assert m.weight[0] == 0


def test_an_image_that_could_not_be_read_gives_its_status_to_its_pairs():
    images = exposures(frames(100.0, 130.0))
    meshes = [None, reduce_image(*images[1][:2], Placement(images[1][2], GRID))]
    usable = np.array([Status.UNREADABLE, Status.OK], object)
    m = compare([meshes], graph_of([w for _, _, w in images]), np.arange(2), usable)
    assert m.status[0] == Status.UNREADABLE


def test_the_unit_does_not_matter():
    images = exposures(frames(100.0, 130.0))
    small = measured([((d * np.float32(2.0**-70)), g, w) for d, g, w in images])
    m = measured(images)
    np.testing.assert_allclose(small.delta * 2.0**70, m.delta, rtol=1e-6)
    np.testing.assert_allclose(small.delta_err * 2.0**70, m.delta_err, rtol=1e-5)


def test_offsets_solve_the_least_squares():
    four = frames(100.0, 130.0, 90.0, 95.0, step=40.0)
    m, graph = measured(exposures(four)), graph_of([wcs_of(f) for f in four])
    offset = least_squares_offsets(4, graph.a, graph.b, m.weight, m.delta)
    rows = np.zeros((len(m.a), 4))
    rows[np.arange(len(m.a)), m.a], rows[np.arange(len(m.a)), m.b] = 1, -1
    w = np.sqrt(m.weight)
    exact = np.linalg.lstsq(rows * w[:, None], m.delta * w, rcond=None)[0]
    np.testing.assert_allclose(offset - offset.mean(), exact - exact.mean(), atol=1e-8)


def scatter_of(found, n_blocks):
    """Blocks of unit variance: what was found in each image, less what its own offset takes."""
    found, n_blocks = np.array(found, float), np.array(n_blocks, float)
    return BlockScatter(np.array([found, n_blocks, n_blocks, n_blocks]))


def test_scatter_as_promised_leaves_the_errors_alone():
    n_blocks = np.array([4, 16, 400])
    np.testing.assert_allclose(scatter_of(n_blocks - 1, n_blocks).ratio(), 1)
    np.testing.assert_array_equal(BlockScatter.empty(3).ratio(), 1)


def test_an_image_of_few_cells_is_believed_to_scatter_as_the_others_do():
    ratio = scatter_of([2 * 399, 2 * 399, 2 * 399, 0.1 * 3], [400, 400, 400, 4]).ratio()
    np.testing.assert_allclose(ratio[:3], 2, rtol=0.05)
    assert 1.7 < ratio[3] < 2


def test_an_image_that_scatters_wildly_says_nothing_about_the_others():
    ratio = scatter_of([1000 * 15, 15, 15, 15, 15], [16] * 5).ratio()
    assert ratio[0] > 100
    np.testing.assert_allclose(ratio[1:], 1, rtol=1e-9)


def test_cells_beyond_what_memory_should_hold_go_through_a_file(monkeypatch):
    images = exposures(frames(0.0, 5.0, -3.0))
    held = measured(images)
    for kept in ("SHEET_BYTES", "SKY_BYTES"):
        monkeypatch.setattr(f"skymatch_cli.compare.mesh.joint.{kept}", 0)
    written = measured(images)
    for column in ("delta", "delta_err", "weight", "sky_a", "n_a"):
        np.testing.assert_array_equal(getattr(written, column), getattr(held, column))


def test_structure_of_many_overlaps_is_found_in_little_memory():
    n, m = 5000, 20_000
    rng = np.random.default_rng(3)
    a, b = (np.arange(m) % n, (np.arange(m) + 1 + np.arange(m) // n) % n)
    pairs = OverlapGraph(n, a, b, np.ones(m), polygons_of([]), np.zeros(m, np.int64), (PLANE,))
    mesh = SimpleNamespace(origin=(0, 0), shape=(64, 64), corners=np.array([[0.0, 0.0], [64, 0], [0, 64]]))
    structure = PairStructure.empty(pairs, [[mesh] * n])
    row, column = rng.uniform(0, 8, (2, m, 12))
    structure.pieces[:] = np.stack([np.ones((m, 12)), rng.normal(size=(m, 12)), *np.ones((2, m, 12)), row, column])
    structure.bright[5] = 64
    tracemalloc.start()
    fields, _ = image_fields(structure, pairs, [[mesh] * n], ZeroPoints.none(n), np.ones(m))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fields.variance.shape == (n,)
    assert peak < 3_000 * m  # of which half are chunks of a fixed size


def test_a_factor_of_a_faint_scene_needs_a_loop_of_overlaps():
    pairs = OverlapGraph(2, np.array([0]), np.array([1]), np.ones(1), polygons_of([]), np.zeros(1, np.int64), (PLANE,))
    scene = np.linspace(0, 0.5, 16)
    difference = 0.3 * scene + np.random.default_rng(1).normal(0, 0.02, 16)
    terms = np.ones(16), scene, scene**2, difference, scene * difference, difference**2
    weight, first, second, pull, product, square = (np.array([term.sum()]) for term in terms)
    bright = np.stack([first, second, product, square, weight, np.array([16.0])])
    for shared in (1.0, 1 + 1e-6):  # the same but for rounding
        found = ZeroPoints.of_sums((weight, pull), bright, np.array([-0.2]), np.array([shared]), pairs)
        assert found.factor.tolist() == [1, 1]
