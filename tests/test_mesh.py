"""An image reduced to soft cells."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from skymatch_cli.compare.mesh.cells import BLOCK_PIX, Bins, MeshGrid, Shares, pixel_map
from skymatch_cli.compare.mesh.noise import block_noise
from skymatch_cli.compare.mesh.packed import PackedMesh
from skymatch_cli.compare.mesh.placement import Placement, rectangles
from skymatch_cli.compare.mesh.reduce import reduce_image
from skymatch_cli.compare.mesh.sharp import without_sharp
from skymatch_cli.model import TangentPlane
from skymatch_cli.sky.tangent import project

from .factories import Frame
from .headers import fits_wcs

PLANE = TangentPlane(150.0, 20.0)
ARCSEC_RAD = np.radians(1 / 3600)


def grid(pitch_arcsec=4.0):
    return MeshGrid(PLANE, pitch_arcsec * ARCSEC_RAD)


def wcs_of(frame: Frame):
    wcs: WCS = frame.wcs()
    return fits_wcs(wcs.to_header(relax=True), (frame.ny, frame.nx))


def reduced(data, frame, good=None, blocks=None):
    good = np.ones(data.shape, bool) if good is None else good
    return reduce_image(data, good, Placement(wcs_of(frame), grid(), blocks))


def starry_mesh(side=300):
    """A mesh of an image of noise 1 with a star of 10^4 and masked pixels, turned against the grid."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    data = rng.normal(100, 1, (side, side)) + 1e4 * np.exp(-((x - 90.3) ** 2 + (y - 200.6) ** 2) / 8)
    good = rng.random(data.shape) > 0.1
    good[100:140, 30:180] = False
    return reduced(data.astype(np.float32), Frame(x=0, nx=side, ny=side, rotation=20), good)


def test_packed_cells_are_those_of_the_mesh_to_a_hundredth_of_their_noise():
    mesh = starry_mesh()
    packed, blocks = PackedMesh.of_mesh(mesh), mesh.blocks()
    value, weight, pixels = mesh.cells(*blocks)
    found_value, found_weight, found_pixels = packed.cells(*blocks)
    seen = weight > 0
    assert seen.any()
    np.testing.assert_array_equal(found_weight > 0, seen)
    faint = seen & (np.abs(value) < 10)
    error = (found_value - value)[faint] * np.sqrt(pixels[faint])
    assert np.sqrt(np.mean(error**2)) < 0.01
    np.testing.assert_allclose(found_value[seen], value[seen], rtol=2e-5, atol=0.3)  # 10^4 in 65,534 steps
    for found, expected in ((found_pixels, pixels), (found_weight, weight)):
        assert np.abs(found[seen] / expected[seen] - 1).mean() < 0.002
    for name in ("origin", "shape", "level", "noise", "pixel_area", "n_good", "halvings"):
        assert getattr(packed, name) == getattr(mesh, name)


def test_the_outline_of_a_mesh_does_not_hold_its_cells():
    packed = PackedMesh.of_mesh(starry_mesh())
    content = np.arange(packed.row.size * 2, dtype=np.int32)
    viewed = replace(packed, row=content[: packed.row.size], column=content[packed.row.size :])
    outline = viewed.outline(lambda: packed)
    assert not any(np.shares_memory(content, getattr(outline, name)) for name in ("row", "column"))
    for found, expected in zip(outline.cells(*packed.blocks()), packed.cells(*packed.blocks()), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_cells_that_are_all_alike_are_kept_exactly():
    mesh = reduced(np.full((64, 64), 7.25, np.float32), Frame(x=0, nx=64, ny=64))
    value, *_ = PackedMesh.of_mesh(mesh).cells(*mesh.blocks())
    np.testing.assert_array_equal(value, 0)  # relative to the level
    assert mesh.level == 7.25


def test_the_cells_of_4096_x_4096_pixels_take_less_than_a_megabyte():
    """65 x 65 blocks of 8 x 8 cells of 8 x 8 pixels."""
    packed = PackedMesh.of_mesh(starry_mesh())
    one = sum(
        getattr(packed, name)[0].nbytes for name in ("row", "column", "value", "middle", "step", "pixels", "most")
    )
    assert 65**2 * one + 2 * 66**2 * 4 < 1e6


@pytest.mark.parametrize("box", [0, 1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 65])
def test_bins_share_every_pixel_out_in_full(box, n):
    bins = Bins(box)
    ones = np.ones((n, 3), np.float32)
    assert bins.sums(ones).sum() == pytest.approx(3 * n, rel=1e-6)
    np.testing.assert_array_equal(bins.counts(ones > 0), bins.sums(ones))
    assert bins.sums(ones).shape == (len(bins.centres(n)), len(bins.centres(3)))


@pytest.mark.parametrize("box", [0, 1, 2, 5])
def test_bins_keep_the_centroid(box):
    bins = Bins(box)
    values = np.zeros((1, 400), np.float32)
    values[0, 200 : 200 + 2 * max(1, box)] = 1.0  # as wide as a stride
    x = bins.centres(400)
    assert (bins.sums(values).sum(axis=0) * x).sum() / values.sum() == pytest.approx(
        200 + max(1, box) - 0.5, abs=1e-4 if box < 2 else 0.5
    )


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_value_goes_to_the_four_cells_around_it(u, v):
    shares = Shares.at(np.array([[u]]), np.array([[v]]))
    total = shares.totals(np.array([[2.0]]))
    j, i = np.indices(total.shape)
    assert total.sum() == pytest.approx(2.0)
    assert ((j + shares.first[0]) * total).sum() / 2.0 == pytest.approx(v, abs=1e-9)
    assert ((i + shares.first[1]) * total).sum() / 2.0 == pytest.approx(u, abs=1e-9)


@pytest.mark.parametrize("sip", [False, True])
def test_positions_are_those_of_the_wcs(sip):
    frame = Frame(nx=300, ny=200, rotation=20, sip=sip)
    wcs = wcs_of(frame)
    x, y = np.arange(0.0, 300, 7), np.arange(0.0, 200, 11)
    u, v = pixel_map(wcs, grid()).at(x, y)
    columns, rows = np.meshgrid(x, y)
    exact = project(PLANE, wcs.to_sky(columns.ravel(), rows.ravel())) / grid().pitch_rad
    assert np.hypot(u.ravel() - exact[:, 0], v.ravel() - exact[:, 1]).max() < 0.02 / 4  # cells of 4 pixels


def test_a_constant_image_has_its_constant_in_every_cell():
    mesh = reduced(np.full((100, 120), 7.0, np.float32), Frame(nx=120, ny=100, rotation=30))
    assert mesh.level == 7.0
    assert not mesh.value.any()
    assert np.count_nonzero(mesh.weight) == pytest.approx(100 * 120 / 16, rel=0.12)


def test_the_weights_add_up_to_the_pixels():
    data = np.random.default_rng(1).normal(100, 2, (200, 200)).astype(np.float32)
    mesh = reduced(data, Frame(nx=200, ny=200, rotation=10))
    assert mesh.noise == pytest.approx(2.0, rel=0.08)
    assert mesh.weight.sum() == pytest.approx(200 * 200 * (mesh.noise / 2.0) ** 2, rel=0.1)
    assert mesh.n_good == 200 * 200


def test_a_linear_sky_is_followed_at_the_centres_of_the_cells():
    frame = Frame(nx=160, ny=160)
    x, y = np.meshgrid(np.arange(160.0), np.arange(160.0))
    mesh = reduced((3 * x - 2 * y).astype(np.float32), frame)
    j, i = np.nonzero(mesh.weight > 0.99 * mesh.weight.max())
    px, py = wcs_of(frame).to_pixel(_cell_centres(mesh, j, i))
    assert np.abs(mesh.value[j, i] + mesh.level - (3 * px - 2 * py)).max() < 0.05


def _cell_centres(mesh, j, i):
    from skymatch_cli.sky.tangent import unproject

    return unproject(PLANE, np.stack([i + mesh.origin[1], j + mesh.origin[0]], axis=1) * grid().pitch_rad)


def test_masked_pixels_count_for_nothing():
    rng = np.random.default_rng(2)
    data = rng.normal(10, 1, (128, 128)).astype(np.float32)
    good = rng.random((128, 128)) < 0.9
    other = np.where(good, data, np.float32(1e20))
    first, second = (reduced(d, Frame(nx=128, ny=128), good) for d in (data, other))
    np.testing.assert_array_equal(first.value, second.value)
    np.testing.assert_array_equal(first.weight, second.weight)


def test_cells_that_are_mostly_masked_have_no_weight():
    good = np.ones((128, 128), bool)
    good[40:80, 40:80] = False
    mesh = reduced(np.ones((128, 128), np.float32), Frame(nx=128, ny=128), good)
    whole = reduced(np.ones((128, 128), np.float32), Frame(nx=128, ny=128))
    assert np.count_nonzero(whole.weight) - np.count_nonzero(mesh.weight) == pytest.approx(100, abs=25)


def test_an_image_without_a_good_pixel_is_a_mesh_without_weight():
    mesh = reduced(np.full((70, 70), np.nan, np.float32), Frame(nx=70, ny=70), np.zeros((70, 70), bool))
    assert not mesh.weight.any()
    assert mesh.n_good == 0


def test_only_the_blocks_that_are_needed_are_read():
    data = np.random.default_rng(3).normal(0, 1, (192, 192)).astype(np.float32)
    blocks = np.zeros((3, 3), bool)
    blocks[1, :2] = True
    part, whole = reduced(data, Frame(nx=192, ny=192), blocks=blocks), reduced(data, Frame(nx=192, ny=192))
    assert part.n_good == 2 * BLOCK_PIX**2
    assert 0 < np.count_nonzero(part.weight) < 0.25 * np.count_nonzero(whole.weight)


def test_float64_and_float32_agree():
    data = np.random.default_rng(4).normal(1000, 5, (128, 128)).astype(np.float32)
    a, b = (reduced(d, Frame(nx=128, ny=128)) for d in (data, data.astype(float)))
    np.testing.assert_allclose(a.value, b.value, atol=1e-3)


def test_noise_is_measured_beside_stars_and_gradients():
    rng = np.random.default_rng(5)
    data = rng.normal(100, 3, (128, 128)) + np.arange(128) * 0.5
    data[::9, ::7] += 1000
    sigma = block_noise(data.astype(np.float32), np.ones((128, 128), bool), [np.s_[0:128, 0:128]], 100.0)
    np.testing.assert_allclose(sigma, 3.0, rtol=0.25)


def test_blocks_with_hardly_a_photon_have_one_noise():
    """Else those without one would have no noise, and weigh most."""
    counts = np.random.default_rng(1).poisson(0.002, (256, 256)).astype(np.float32)
    sigma = block_noise(counts, np.ones(counts.shape, bool), [np.s_[0:256, 0:256]], 0.0)
    np.testing.assert_allclose(sigma, np.sqrt(0.002), rtol=0.1)


def test_cosmic_rays_are_sharp_and_stars_are_not():
    rng = np.random.default_rng(6)
    data = rng.normal(100, 5, (80, 80))
    y, x = np.indices(data.shape)
    data += 5000 * np.exp(-0.5 * ((x - 20.3) ** 2 + (y - 20.6) ** 2) / 1.02**2)  # FWHM 2.4 pixels
    data[50, 30:40] += 400
    data[60:64, 60] += 3000
    everywhere = np.s_[0:80, 0:80]
    sigma = np.full((2, 2), 5.0, np.float32)
    clean = without_sharp(data.astype(np.float32), np.ones(data.shape, bool), sigma, 64, [everywhere])
    expected = np.zeros(data.shape, bool)
    expected[50, 30:40] = expected[60:64, 60] = True
    np.testing.assert_array_equal(~clean, expected)


def test_sharp_outliers_are_the_same_whatever_the_regions():
    rng = np.random.default_rng(7)
    data = rng.normal(100, 5, (100, 120)).astype(np.float32)
    data.reshape(-1)[rng.choice(data.size, 300, replace=False)] += 200
    good = rng.random(data.shape) < 0.98
    sigma = np.float32([[5.0, 6.0], [4.0, 5.0]])
    whole = without_sharp(data, good, sigma, 64, [np.s_[0:64, 0:120], np.s_[64:100, 0:120]])
    parts = [np.s_[0:64, 0:64], np.s_[0:64, 64:120], np.s_[64:100, 0:64], np.s_[64:100, 64:120]]
    np.testing.assert_array_equal(without_sharp(data, good, sigma, 64, parts[::-1]), whole)
    assert np.count_nonzero(good & ~whole) > 250
    assert good[whole].all()


def test_masked_neighbours_make_no_outlier():
    data = np.full((20, 20), 10.0, np.float32)
    good = np.ones((20, 20), bool)
    good[:, 9] = False
    np.testing.assert_array_equal(without_sharp(data, good, np.float32([[1.0]]), 64, [np.s_[0:20, 0:20]]), good)


def test_a_mesh_can_be_sent_to_another_process():
    mesh = reduced(np.ones((70, 70), np.float32), Frame(nx=70, ny=70))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mesh)).weight, mesh.weight)


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("pitch", [2.0, 4.0, 8.0, 16.0])
def test_what_planes_of_a_cube_share_changes_none_of_them(pitch, degree):
    frame, rng = Frame(nx=200, ny=200, rotation=10), np.random.default_rng(2)
    planes = rng.normal(5.0, 1.0, (4, 200, 200)).astype(np.float32)
    good = rng.random(planes.shape) < 0.99
    good[0, 195:, 194:] = good[2:, 50:90, 20:150] = False
    planes.reshape(4, -1)[:, rng.choice(40000, 90)] += 100
    places = wcs_of(frame), grid(pitch)
    shared = Placement(*places, several=True)
    for data, use in zip(planes, good, strict=True):
        mine, alone = (reduce_image(data, use, p, degree=degree) for p in (shared, Placement(*places)))
        for name in ("value", "weight", "pixels", "per_pixel", "area"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(alone, name))
        if degree:
            np.testing.assert_allclose(mine.centroids.powers, alone.centroids.powers, rtol=1e-6, atol=1e-9)


def test_a_rectangle_of_needed_blocks_is_one_piece():
    blocks = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], bool)
    found = rectangles(blocks, (180, 192), 4)
    assert found == [np.s_[0:128, 0:128], np.s_[128:180, 64:192]]
    assert rectangles(blocks, (180, 192)) == [np.s_[0:64, 0:128], np.s_[64:128, 0:128], np.s_[128:180, 64:192]]
