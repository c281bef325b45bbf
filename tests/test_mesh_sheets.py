"""Blocks of cells that images share, side by side: neighbours, sums over images and over pairs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from skymatch_cli.compare.mesh.layers import Beside, Layers, cells_first
from skymatch_cli.compare.mesh.pairs import CellPairs
from skymatch_cli.compare.mesh.reduce import CellMesh
from skymatch_cli.compare.mesh.sheets import make_sheet, maps_of_leaves
from skymatch_cli.compare.mesh.tiles import BLOCK, TILE, Leaves, sheet_plans
from skymatch_cli.model import OverlapGraph, TangentPlane
from skymatch_cli.model.monomials import carried, exponents
from skymatch_cli.model.polygons import Polygons


def leaves_of(*masks, tile=0):
    """One image for each mask of blocks."""
    image, row, column = (
        np.concatenate(c)
        for c in zip(*((np.full(m.sum(), k), *np.nonzero(m)) for k, m in enumerate(masks)), strict=True)
    )
    return Leaves(image, row, column, np.full(len(image), tile))


def cells_of(leaves, canvas):
    """Leaves (n, 64) of the images of a canvas (k, nj, ni)."""
    k, nj, ni = canvas.shape
    blocks = canvas.reshape(k, nj // BLOCK, BLOCK, ni // BLOCK, BLOCK).swapaxes(2, 3)
    return np.ascontiguousarray(blocks[leaves.image, leaves.row, leaves.column].reshape(len(leaves), -1))


def canvas_of(masks, rng):
    """Random cells (k, nj, ni) in these blocks, 0 elsewhere."""
    cells = np.repeat(np.repeat(np.stack(masks), BLOCK, axis=1), BLOCK, axis=2)
    return (rng.normal(size=cells.shape) * cells).astype(np.float32)


def masks_of(k, rng, shape=(5, 6), share=0.5):
    return [rng.random(shape) < share for _ in range(k)]


def graph_of(k):
    a, b = np.triu_indices(k, 1)
    nothing = np.zeros(len(a))
    return OverlapGraph(k, a, b, nothing, Polygons.joined([]), np.zeros(len(a), np.int64), (TangentPlane(0, 0),))


def window_of(doublings):
    """The window of `Beside.smoothed` along one axis: a spread over 1, then 2, 4 and 8 cells."""
    window = np.ones(1)
    for k in range(doublings):
        window = np.convolve(window, spread_over(2**k))
    return window


def spread_over(step):
    out = np.zeros(2 * step + 1)
    out[[0, step, -1]] = 0.25, 0.5, 0.25
    return out


def smoothed_and_expected(masks, canvas, doublings):
    _, leaves = Layers.arranged(leaves_of(*masks))
    found = Beside.of(leaves).smoothed(cells_first(cells_of(leaves, canvas)), doublings)[:, :-1].T
    window = window_of(doublings)
    expected = ndimage.convolve(canvas, np.multiply.outer(window, window)[None], mode="constant")
    real = cells_of(leaves, np.repeat(np.repeat(np.stack(masks), BLOCK, axis=1), BLOCK, axis=2))
    return found[real], cells_of(leaves, expected)[real]


@pytest.mark.parametrize("seed", range(5))
def test_windows_go_over_the_borders_of_blocks_and_across_their_corners(seed):
    rng = np.random.default_rng(seed)
    masks = [np.zeros((5, 6), bool) for _ in range(3)]
    for mask, top, left in zip(masks, rng.integers(0, 3, 3), rng.integers(0, 3, 3), strict=True):
        mask[top : top + 3, left : left + 4] = True
    np.testing.assert_allclose(*smoothed_and_expected(masks, canvas_of(masks, rng), 1), atol=1e-6)


@pytest.mark.parametrize("doublings", [2, 3, 4])
def test_wide_windows_are_those_of_repeated_spreads(doublings):
    masks = [np.ones((6, 7), bool)] * 2
    canvas = canvas_of(masks, np.random.default_rng(4))
    edge = 2 * BLOCK  # further than any window reaches
    canvas[:, :edge] = canvas[:, -edge:] = canvas[:, :, :edge] = canvas[:, :, -edge:] = 0
    np.testing.assert_allclose(*smoothed_and_expected(masks, canvas, doublings), atol=1e-6)


def test_the_variance_of_a_window_grows_fourfold_with_each_doubling():
    for doublings in (1, 2, 3, 4):
        window = window_of(doublings)
        place = np.arange(len(window)) - len(window) // 2
        assert (window * place**2).sum() == pytest.approx((4**doublings - 1) / 6)


def test_cells_of_other_tiles_are_no_neighbours():
    one, other = leaves_of(np.ones((1, 1), bool)), leaves_of(np.array([[False, True]]), tile=1)
    both = Leaves(*(np.append(getattr(one, f), getattr(other, f)) for f in Leaves.__slots__))
    means = Beside.of(both).smoothed(cells_first(np.ones((2, BLOCK**2), np.float32)), 1)
    means = means[:, :-1].T.reshape(2, BLOCK, BLOCK)
    assert means[0, 3, -1] == means[1, 3, 0] == 0.75
    assert means[0, 3, 3] == 1


def test_sums_over_the_images_of_a_cell():
    rng = np.random.default_rng(1)
    masks = masks_of(4, rng)
    canvas = canvas_of(masks, rng)
    layers, leaves = Layers.arranged(leaves_of(*masks))
    blocks = leaves.part(np.arange(layers.sizes[0]))
    expected = cells_of(replace(blocks, image=np.zeros(len(blocks), int)), canvas.sum(axis=0, keepdims=True))
    cells = cells_of(leaves, canvas)
    np.testing.assert_allclose(layers.total(cells), expected, atol=1e-6)
    np.testing.assert_allclose(
        layers.total(layers.each(np.subtract, cells, expected)),
        expected
        * (
            1
            - np.array(
                [(leaves.row == r) & (leaves.column == c) for r, c in zip(blocks.row, blocks.column, strict=True)]
            ).sum(axis=1)[:, None]
        ),
        atol=1e-5,
    )


@pytest.mark.parametrize("k", [4, 12])
def test_products_and_medians_of_pairs_are_those_of_their_common_cells(k):
    rng = np.random.default_rng(2)
    masks = masks_of(k, rng)
    x, y = canvas_of(masks, rng), canvas_of(masks, rng)
    layers, leaves = Layers.arranged(leaves_of(*masks))
    graph = graph_of(k)
    pairs = CellPairs.among(leaves, layers, graph, 0)
    np.testing.assert_array_equal(pairs.rows, np.arange(len(graph.a)))
    one, other = np.zeros((2, len(graph.a)))
    pairs.add_products(cells_of(leaves, x), cells_of(leaves, y), one, other)
    np.testing.assert_allclose(one, (x[graph.a] * y[graph.b]).sum(axis=(1, 2)), atol=1e-4)
    np.testing.assert_allclose(other, (y[graph.a] * x[graph.b]).sum(axis=(1, 2)), atol=1e-4)
    seen = canvas_of(masks, rng) > 0
    n, median = pairs.medians(cells_of(leaves, x), cells_of(leaves, seen))
    np.testing.assert_array_equal(pairs.run_pair, np.arange(len(graph.a)))  # all are in one tile
    for k, (a, b) in enumerate(zip(graph.a, graph.b, strict=True)):
        differences = np.sort((x[a] - x[b])[seen[a] & seen[b]])
        assert n[k] == len(differences)
        assert median[k] == differences[(len(differences) - 1) // 2]


def test_pairs_that_are_not_in_the_graph_have_no_sums():
    rng = np.random.default_rng(5)
    masks = masks_of(4, rng)
    x = canvas_of(masks, rng)
    layers, leaves = Layers.arranged(leaves_of(*masks))
    some = np.array([1, 3, 4])
    graph = replace(graph_of(4), **{name: getattr(graph_of(4), name)[some] for name in ("a", "b", "plane")})
    pairs, total = CellPairs.among(leaves, layers, graph, 0), np.zeros(3)
    pairs.add_products(cells_of(leaves, x), cells_of(leaves, x), total)
    np.testing.assert_allclose(total, (x[graph.a] * x[graph.b]).sum(axis=(1, 2)), atol=1e-4)


@pytest.mark.parametrize("k", [4, 12])
@pytest.mark.parametrize("degree", [1, 3])
def test_moments_of_pairs_are_those_of_their_common_cells(k, degree):
    rng = np.random.default_rng(3)
    masks = masks_of(k, rng)
    x, y = canvas_of(masks, rng), canvas_of(masks, rng)
    layers, leaves = Layers.arranged(leaves_of(*masks))
    graph = graph_of(k)
    pairs = CellPairs.among(leaves, layers, graph, 0)
    (found,) = pairs.moments(degree, [(cells_of(leaves, x), cells_of(leaves, y), np.subtract, degree)])
    about_0 = np.einsum("rst,rs->rt", carried(pairs.middles()[pairs.run_tile], degree), found)
    v, u = np.mgrid[: x.shape[1], : x.shape[2]].astype(float)
    for t, (i, j) in enumerate(exponents(degree)):
        each = (x[graph.a] * y[graph.b] - y[graph.a] * x[graph.b]) * u**i * v**j
        np.testing.assert_allclose(about_0[:, t], each.sum(axis=(1, 2)), rtol=1e-4, atol=1e-2)


def test_images_without_a_common_cell_have_no_difference():
    layers, leaves = Layers.arranged(leaves_of(np.ones((1, 1), bool), np.ones((1, 1), bool)))
    pairs = CellPairs.among(leaves, layers, graph_of(2), 0)
    seen = np.zeros((2, BLOCK**2), bool)
    seen[0, :8], seen[1, 8:] = True, True
    np.testing.assert_array_equal(pairs.medians(np.ones(seen.shape, np.float32), seen), [[0.0], [0.0]])


def mesh_of(origin, shape):
    ones = np.ones(shape, np.float32)
    return CellMesh(
        origin=origin,
        level=0.0,
        noise=1.0,
        value=np.arange(ones.size, dtype=np.float32).reshape(shape),
        weight=ones,
        pixels=64 * ones,
        per_pixel=np.full([-(-n // BLOCK) + 2 for n in shape], 1 / 64, np.float32),
        area=np.full((1, 1), 1 / 64, np.float32),
        pixel_area=1 / 64,
        corners=np.array([[0, 0], [shape[1], 0], [0, shape[0]]]) + np.array(origin[::-1]) - 0.5,
        n_good=64 * ones.size,
    )


def test_only_blocks_that_images_share_are_worked_on():
    side = TILE * BLOCK
    meshes = [mesh_of((0, 0), (side, side)), mesh_of((0, side - BLOCK), (side, side))]
    (plan,) = sheet_plans([meshes])
    assert len(plan.leaves) == 2 * TILE
    sheet = make_sheet(plan, meshes, graph_of(2), 1.0)
    assert (sheet.weight > 0).all()


def test_cells_are_found_at_their_place_whatever_the_origin_of_the_mesh():
    meshes = [mesh_of((-13, 5), (40, 30)), mesh_of((-3, -9), (30, 40))]
    (plan,) = sheet_plans([meshes])
    (value,) = maps_of_leaves(plan.leaves, meshes, lambda mesh, *blocks: mesh.cells(*blocks)[:1])
    for leaf, i, row, column in zip(value, plan.leaves.image, plan.leaves.row, plan.leaves.column, strict=True):
        j, k = np.mgrid[:BLOCK, :BLOCK]
        j, k = j + row * BLOCK - meshes[i].origin[0], k + column * BLOCK - meshes[i].origin[1]
        inside = (j >= 0) & (j < meshes[i].value.shape[0]) & (k >= 0) & (k < meshes[i].value.shape[1])
        np.testing.assert_array_equal(leaf, np.where(inside, j * meshes[i].value.shape[1] + k, 0).reshape(-1))
