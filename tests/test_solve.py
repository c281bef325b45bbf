"""Offsets from differences, and how far to trust them; numbers only, no image."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu

from skymatch_cli.compare.pooledpairs import pooled_noise
from skymatch_cli.solve import laplacian, leastsquares
from skymatch_cli.solve.diagnose import bad_fits, bridges, loop_closure, thin_bridges
from skymatch_cli.solve.offsets import solve_offsets
from skymatch_cli.solve.pairgraph import PairGraph, spanning_tree


def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbours, diagonal ones too, on a grid."""
    i = np.arange(rows * columns).reshape(rows, columns)
    both = [(i[1:], i[:-1]), (i[:, :-1], i[:, 1:]), (i[1:, 1:], i[:-1, :-1]), (i[1:, :-1], i[:-1, 1:])]
    return np.concatenate([a.ravel() for a, _ in both]), np.concatenate([b.ravel() for _, b in both])


def chain(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n - 1), np.arange(1, n)


def random_graph(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, n, (2, m))
    return np.concatenate([a, np.arange(n - 1)]), np.concatenate([np.where(a == b, (b + 1) % n, b), np.arange(1, n)])


def design(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    matrix = np.zeros((len(a), n))
    matrix[np.arange(len(a)), a] += 1
    matrix[np.arange(len(a)), b] -= 1
    return matrix


def differences(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return x[a] - x[b]


# --- offsets


def test_two_groups_share_their_difference():
    found = solve_offsets(2, np.array([0]), np.array([1]), np.array([30.0]), np.array([4.0]))
    np.testing.assert_allclose(found.offset, [15, -15])
    np.testing.assert_allclose(found.sigma, [0.25, 0.25])  # half of the difference's 0.5
    assert found.residual[0] == 0
    assert found.dof[0] == 0


def test_a_triangle_spreads_what_does_not_close():
    a, b = np.array([0, 1, 2]), np.array([1, 2, 0])
    found = solve_offsets(3, a, b, np.array([1.0, 1.0, 1.0]), np.full(3, 4.0))
    np.testing.assert_allclose(found.offset, 0, atol=1e-15)
    np.testing.assert_allclose(found.residual, 1)
    np.testing.assert_allclose([found.chi2[0], found.dof[0]], [12, 1])


@given(
    n=st.integers(2, 30),
    m=st.integers(0, 60),
    decades=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
@hypothesis_settings(max_examples=50)
def test_offsets_errors_and_chi2_are_those_of_linear_algebra(n, m, decades, seed):
    rng = np.random.default_rng(seed)
    a, b = random_graph(n, m, seed)
    weight = 10 ** rng.uniform(-decades, decades, len(a))
    delta = rng.normal(0, 10, len(a))
    found = solve_offsets(n, a, b, delta, weight)
    root = np.sqrt(weight)
    oracle = np.linalg.lstsq(design(n, a, b) * root[:, None], delta * root, rcond=1e-13)[0]
    np.testing.assert_allclose(found.offset, oracle, atol=1e-8)
    covariance = np.linalg.pinv(design(n, a, b).T @ (weight[:, None] * design(n, a, b)), rcond=1e-13)
    np.testing.assert_allclose(found.sigma, np.sqrt(np.diag(covariance)), rtol=1e-5)
    if len(a) >= n:
        np.testing.assert_allclose(found.dof, len(a) - n + 1)
        np.testing.assert_allclose(found.chi2, ((delta - differences(oracle, a, b)) ** 2 * weight).sum(), rtol=1e-6)


@given(order=st.permutations(range(58)), seed=st.integers(0, 100))
@hypothesis_settings(max_examples=20)
def test_the_order_of_the_pairs_and_their_direction_change_nothing(order, seed):
    rng = np.random.default_rng(seed)
    a, b = random_graph(20, 39)
    delta, weight = rng.normal(size=58), rng.uniform(1, 2, 58)
    first = solve_offsets(20, a, b, delta, weight)
    k, turn = np.array(order), rng.random(58) < 0.5
    a2, b2 = np.where(turn, b, a)[k], np.where(turn, a, b)[k]
    second = solve_offsets(20, a2, b2, np.where(turn, -delta, delta)[k], weight[k])
    np.testing.assert_allclose(second.offset, first.offset, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(second.sigma, first.sigma, rtol=1e-10)


@given(which=st.integers(0, 11), c=st.floats(-1e3, 1e3))
@hypothesis_settings(max_examples=20)
def test_a_constant_added_to_one_group_moves_it_against_all_others(which, c):
    a, b = grid(3, 4)
    delta = np.random.default_rng(1).normal(size=len(a))
    before = solve_offsets(12, a, b, delta, np.ones(len(a))).offset
    after = solve_offsets(12, a, b, delta + c * ((a == which) * 1.0 - (b == which)), np.ones(len(a))).offset
    moved = after - before
    np.testing.assert_allclose(moved - moved[(which + 1) % 12], c * (np.arange(12) == which), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "n", "pairs"),
    [
        ("chain", 20_000, chain(20_000)),
        ("grid", 10_000, grid(100, 100)),
        ("strip", 12_000, grid(3000, 4)),
        ("random", 5500, random_graph(5500, 5500)),
        ("small grid", 900, grid(30, 30)),
        ("star", 9000, (np.zeros(8999, np.int64), np.arange(1, 9000))),
    ],
)
@pytest.mark.parametrize("decades", [0, 8])
def test_noise_free_differences_give_exact_offsets_on_any_graph(name, n, pairs, decades):
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 1000, n)
    weight = 10 ** rng.uniform(-decades, decades, len(pairs[0]))
    found = solve_offsets(n, *pairs, differences(truth, *pairs), weight)
    assert np.abs(found.offset - (truth - truth.mean())).max() < 1e-9 * np.abs(truth).max()


@pytest.mark.parametrize("pairs", [grid(40, 40), random_graph(1600, 5000), grid(400, 4)])
def test_large_components_are_solved_as_small_ones_are(pairs, monkeypatch):
    rng = np.random.default_rng(4)
    weight = 10 ** rng.uniform(-1, 1, len(pairs[0]))
    delta = rng.normal(size=len(pairs[0])) / np.sqrt(weight)
    small = solve_offsets(1600, *pairs, delta, weight)
    assert small.sigma_exact
    monkeypatch.setattr(laplacian, "MAX_EXACT", 1500)
    large = solve_offsets(1600, *pairs, delta, weight)
    assert not large.sigma_exact
    np.testing.assert_allclose(large.offset / small.sigma, small.offset / small.sigma, atol=1e-6)
    np.testing.assert_allclose(large.chi2, small.chi2)
    ratio = large.sigma / small.sigma
    assert abs(np.mean(ratio) - 1) < 0.05
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.15


def test_exact_errors_of_a_large_component_do_not_take_the_square_of_its_size():
    a, b = grid(40, 40)
    weight = 10 ** np.random.default_rng(8).uniform(-1, 1, len(a))
    noise = diags_array(1.5 / np.sqrt(weight)).tocsr()
    tracemalloc.start()
    found = solve_offsets(1600, a, b, np.zeros(len(a)), weight, noise=noise)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.sigma_exact
    assert peak < 8 * 1600**2
    matrix = design(1600, a, b)
    covariance = np.linalg.pinv(matrix.T @ (weight[:, None] * matrix), rcond=1e-12, hermitian=True)
    np.testing.assert_allclose(found.sigma, 1.5 * np.sqrt(np.diag(covariance)), rtol=1e-9)


def test_components_have_their_own_gauge_and_are_numbered_by_their_first_group():
    a, b = np.array([3, 0]), np.array([1, 4])
    found = solve_offsets(5, a, b, np.array([2.0, 10.0]), np.ones(2))
    np.testing.assert_array_equal(found.component, [0, 1, 2, 1, 0])
    np.testing.assert_allclose(found.offset, [5, -1, 0, 1, -5])
    np.testing.assert_allclose(found.sigma, [0.5, 0.5, 0, 0.5, 0.5])


def test_many_components_of_different_sizes_are_solved_as_if_alone():
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 40, 60)
    first = np.cumsum(sizes) - sizes
    parts = [random_graph(size, 2 * size, seed=k) if size > 1 else None for k, size in enumerate(sizes)]
    a = np.concatenate([p[0] + f for p, f in zip(parts, first, strict=True) if p])
    b = np.concatenate([p[1] + f for p, f in zip(parts, first, strict=True) if p])
    delta, weight = rng.normal(size=len(a)), rng.uniform(0.5, 2, len(a))
    together = solve_offsets(int(sizes.sum()), a, b, delta, weight)
    for f, size in zip(first[:8], sizes[:8], strict=True):
        mine = (a >= f) & (a < f + size)
        alone = solve_offsets(size, a[mine] - f, b[mine] - f, delta[mine], weight[mine])
        np.testing.assert_allclose(together.offset[f : f + size], alone.offset, atol=1e-12)
        np.testing.assert_allclose(together.sigma[f : f + size], alone.sigma, atol=1e-12)


def test_pairs_without_weight_or_value_or_within_a_group_are_not_used():
    a, b = np.array([0, 0, 1, 1]), np.array([1, 1, 1, 2])
    delta, weight = np.array([4.0, 900.0, 5.0, np.nan]), np.array([1.0, 0.0, 1.0, 1.0])
    found = solve_offsets(3, a, b, delta, weight)
    np.testing.assert_allclose(found.offset, [2, -2, 0])
    np.testing.assert_array_equal(np.isnan(found.residual), [False, True, True, True])


def test_no_pair_at_all_leaves_every_group_alone():
    none = np.empty(0, np.int64)
    found = solve_offsets(3, none, none, np.empty(0), np.empty(0))
    np.testing.assert_array_equal(found.offset, 0)
    np.testing.assert_array_equal(found.component, [0, 1, 2])


# --- what the weights span


def test_light_pairs_count_beside_heavy_ones():
    # 0 and 1 are one body (weight 1e20) that hangs on 2 by a weight of 1e-3: variances (1, 1, 4) 1e3 / 9
    a, b, weight = np.array([0, 1]), np.array([1, 2]), np.array([1e20, 1e-3])
    found = solve_offsets(3, a, b, np.array([0.0, 9.0]), weight)
    np.testing.assert_allclose(found.offset, [3, 3, -6], rtol=1e-12)
    np.testing.assert_allclose(found.sigma**2, np.array([1, 1, 4]) * 1e3 / 9, rtol=1e-8)


@pytest.mark.parametrize("pairs", [grid(24, 30), chain(720), random_graph(720, 3000)])
def test_errors_hold_where_weights_span_eight_decades(pairs):
    weight = 10 ** np.random.default_rng(5).uniform(-4, 4, len(pairs[0]))
    found = solve_offsets(720, *pairs, np.zeros(len(pairs[0])), weight)
    matrix = np.sqrt(weight)[:, None] * design(720, *pairs)
    covariance = np.linalg.inv(matrix[:, 1:].T @ matrix[:, 1:])
    covariance = np.pad(covariance, ((1, 0), (1, 0)))
    covariance += covariance.mean() - covariance.mean(axis=0) - covariance.mean(axis=0)[:, None]
    np.testing.assert_allclose(found.sigma, np.sqrt(np.diag(covariance)), rtol=1e-4)


def test_weights_that_are_no_numbers_are_not_used():
    a, b = np.array([0, 0, 1]), np.array([1, 2, 2])
    found = solve_offsets(3, a, b, np.array([2.0, 8.0, 1.0]), np.array([np.inf, 1.0, np.nan]))
    np.testing.assert_allclose(found.offset, [4, 0, -4])
    np.testing.assert_array_equal(found.component, [0, 1, 0])


def test_the_bytes_of_a_solution_do_not_depend_on_threads():
    program = """
import hashlib, numpy as np
from skymatch_cli.solve.offsets import solve_offsets
rng = np.random.default_rng(0)
a, b = np.triu_indices(300, 1)
found = solve_offsets(300, a, b, rng.normal(size=len(a)), rng.uniform(1, 2, len(a)))
print(hashlib.sha256(found.offset.tobytes() + found.sigma.tobytes() + found.chi2.tobytes()).hexdigest())
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(n)},
            check=True,
            capture_output=True,
        ).stdout
        for n in (1, 2, 4)
    ]
    assert said[0] == said[1] == said[2]


# --- shared pixels


def frames(offsets: np.ndarray, side: int, blocks: int = 16):
    """Square frames of ``side`` pixels at integer offsets: pairs, their noise, and the exact covariance."""
    n = len(offsets)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if np.all(np.abs(offsets[i] - offsets[j]) < side - 2)]
    a, b = np.array(pairs).T
    m = len(pairs)
    low = np.array(
        [[np.maximum(0, offsets[j] - offsets[i]) for i, j in zip(*ends, strict=True)] for ends in ((a, b), (b, a))]
    )
    size = side - np.abs(offsets[a] - offsets[b])
    high = low + size
    n_pixels = size.prod(axis=1)
    err = np.tile(1 / np.sqrt(n_pixels), (2, 1))
    edges = np.ceil(np.arange(blocks + 1) * side / blocks).astype(int)
    entries, covariance = [], np.zeros((m, m))
    for i in range(n):
        mine = [(s, e) for s, ends in enumerate((a, b)) for e in np.flatnonzero(ends == i)]
        for s in (0, 1):
            at = np.array([e for t, e in mine if t == s], np.int64)
            inside = np.clip(high[s, at, :, None], edges[:-1], edges[1:]) - np.clip(
                low[s, at, :, None], edges[:-1], edges[1:]
            )
            counts = (inside[:, 0, :, None] * inside[:, 1, None, :]).reshape(len(at), blocks**2)
            entries.append((np.full_like(at, i), np.full_like(at, s), at, counts))
        lows, highs = np.array([low[k] for k in mine]), np.array([high[k] for k in mine])
        common = np.minimum(highs[:, None], highs) - np.maximum(lows[:, None], lows)
        shared = np.clip(common, 0, None).prod(axis=-1).astype(float)
        sign, at = np.array([1 - 2 * s for s, _ in mine]), np.array([e for _, e in mine])
        covariance[np.ix_(at, at)] += np.outer(sign, sign) * shared / np.outer(n_pixels[at], n_pixels[at])
    return a, b, pooled_noise(err, *map(np.concatenate, zip(*entries, strict=True))), covariance


def stack(n: int, reach: int) -> np.ndarray:
    return np.random.default_rng(n).integers(-reach, reach, (n, 2))


def mosaic(rows: int, columns: int, step: int) -> np.ndarray:
    index = np.indices((rows, columns)).reshape(2, -1).T
    return index * step + np.random.default_rng(step).integers(-6, 6, (rows * columns, 2))


LAYOUTS = {
    "stack of 10": stack(10, 30),
    "stack of 24": stack(24, 80),
    "grid": mosaic(4, 3, 340),
    "half overlaps": mosaic(4, 4, 200),
    "chain": mosaic(10, 1, 350),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sigmas_count_pixels_that_pairs_share(layout):
    offsets = LAYOUTS[layout]
    a, b, noise, covariance = frames(offsets, 400)
    n, weight = len(offsets), 1 / np.diag(covariance)
    found = solve_offsets(n, a, b, np.zeros(len(a)), weight, noise=noise)
    matrix = design(n, a, b)
    response = np.linalg.pinv(matrix.T @ (weight[:, None] * matrix), rcond=1e-12) @ (matrix.T * weight)
    true = np.sqrt(np.diag(response @ covariance @ response.T))
    np.testing.assert_allclose(found.sigma, true, rtol=0.03)


@pytest.mark.parametrize("layout", ["stack of 10", "stack of 24", "grid", "half overlaps"])
def test_chi2_follows_its_degrees_of_freedom_where_pairs_share_pixels(layout):
    offsets = LAYOUTS[layout]
    a, b, noise, covariance = frames(offsets, 400)
    weight = 1 / np.diag(covariance)
    root = np.linalg.cholesky(covariance + 1e-14 * np.eye(len(a)) * covariance.max())
    rng = np.random.default_rng(1)
    found = [solve_offsets(len(offsets), a, b, root @ rng.normal(size=len(a)), weight, noise=noise) for _ in range(60)]
    chi2, dof = np.array([f.chi2[0] for f in found]), found[0].dof[0]
    assert dof < len(a) - len(offsets) + 1
    assert np.mean(chi2) / dof == pytest.approx(1, abs=0.15)
    assert np.std(chi2) / np.sqrt(2 * dof) == pytest.approx(1, abs=0.35)


def test_the_noise_of_a_pair_is_that_of_its_two_statistics():
    a, _, noise, covariance = frames(stack(6, 40), 100)
    np.testing.assert_allclose((noise @ noise.T).diagonal(), np.diag(covariance), rtol=1e-12)
    assert len(a) == 15


def test_a_pair_without_coverage_has_noise_of_its_own():
    none = np.empty(0, np.int64)
    noise = pooled_noise(np.array([[3.0, 0.0], [4.0, 0.0]]), none, none, none, np.zeros((0, 1), int))
    np.testing.assert_allclose((noise @ noise.T).toarray(), [[25, 0], [0, 0]])


def test_a_sandwich_of_independent_pairs_is_the_plain_covariance():
    a, b = grid(6, 6)
    weight = np.random.default_rng(2).uniform(1, 9, len(a))
    delta = np.random.default_rng(3).normal(size=len(a))
    plain = solve_offsets(36, a, b, delta, weight)
    sandwich = solve_offsets(36, a, b, delta, weight, noise=diags_array(1 / np.sqrt(weight)).tocsr())
    np.testing.assert_allclose(sandwich.sigma, plain.sigma)
    np.testing.assert_allclose(sandwich.dof, plain.dof)
    np.testing.assert_allclose(sandwich.chi2, plain.chi2)


def test_many_pairs_are_probed_to_nearly_the_same_degrees_of_freedom(monkeypatch):
    offsets = LAYOUTS["stack of 24"]
    a, b, noise, covariance = frames(offsets, 400)
    one = np.random.default_rng(0).normal(size=len(a))
    every = solve_offsets(24, a, b, one, 1 / np.diag(covariance), noise=noise)
    monkeypatch.setattr(leastsquares, "_ALL_PAIRS", 0)
    probed = solve_offsets(24, a, b, one, 1 / np.diag(covariance), noise=noise)
    np.testing.assert_allclose(probed.sigma, every.sigma, rtol=1e-10)
    np.testing.assert_allclose(probed.dof, every.dof, rtol=0.15)
    np.testing.assert_allclose(probed.chi2 / probed.dof, every.chi2 / every.dof, rtol=1e-9)


def test_errors_of_a_large_component_with_shared_noise_are_estimated_well(monkeypatch):
    a, b = grid(40, 40)
    m = len(a)
    rng = np.random.default_rng(5)
    # each image has one common noise in all its pairs, each pair some of its own
    rows, columns = np.tile(np.arange(m), 3), np.concatenate([a, b, 1600 + np.arange(m)])
    noise = csr_array((np.repeat([0.5, -0.5, 0.7], m), (rows, columns)), shape=(m, 1600 + m))
    weight, delta = np.full(m, 1.0), rng.normal(size=m)
    true = solve_offsets(1600, a, b, delta, weight, noise=noise)
    monkeypatch.setattr(laplacian, "MAX_EXACT", 1000)
    found = solve_offsets(1600, a, b, delta, weight, noise=noise)
    assert true.sigma_exact
    assert not found.sigma_exact
    assert np.mean(found.sigma / true.sigma) == pytest.approx(1, abs=0.03)
    assert np.std(found.sigma / true.sigma) < 0.13
    np.testing.assert_allclose(found.chi2 / found.dof, true.chi2 / true.dof, rtol=0.05)
    np.testing.assert_allclose(found.dof, true.dof, rtol=0.1)


def test_identical_footprints_leave_no_independent_information():
    a, b, noise, covariance = frames(np.zeros((4, 2), int), 64)
    found = solve_offsets(4, a, b, np.zeros(6), 1 / np.diag(covariance), noise=noise)
    assert found.dof[0] == 0  # all loops close whatever the noise
    np.testing.assert_allclose(found.sigma, np.sqrt(3 / 4) / 64)


@pytest.mark.parametrize(("share", "dof"), [(1.0, 3), (0.75, 1.5), (0.5, 0), (0.52, 0)])
def test_pairs_of_a_joint_fit_share_what_they_know(share, dof):
    a, b = grid(2, 2)
    delta, weight = np.array([1.0, 0, 0, 0, 0, 0]), np.full(6, 2.0)
    plain = solve_offsets(4, a, b, delta, weight)
    joint = solve_offsets(4, a, b, delta, weight, pair_dof=np.full(6, share))
    np.testing.assert_allclose(joint.dof, dof)
    np.testing.assert_allclose(joint.chi2, plain.chi2 if dof else 0)


# --- scatter between overlaps


def test_a_loop_that_does_not_close_gives_every_overlap_more_error():
    a, b, weight = np.array([0, 1, 2]), np.array([1, 2, 0]), np.array([4.0, 4.0, 1.0])
    found = solve_offsets(3, a, b, np.array([1.0, 1.0, 1.0]), weight, with_scatter=True)
    # the gap of 3 has a variance of 0.25 + 0.25 + 1 + 3 s^2 = 9
    np.testing.assert_allclose(found.scatter, np.sqrt(2.5), rtol=5e-3)
    np.testing.assert_allclose(found.residual, np.array([2.75, 2.75, 3.5]) / 3, rtol=2e-3)
    # chi2 is that of the errors alone: 9 / 1.5
    np.testing.assert_allclose([found.chi2[0], found.dof[0]], [6, 1])
    assert np.all(found.sigma > found.sigma_noise)


def test_overlaps_that_agree_get_no_more_error():
    a, b = grid(5, 5)
    err = np.random.default_rng(0).uniform(0.5, 1, len(a))
    delta = 0.5 * err * np.random.default_rng(1).normal(size=len(a))
    plain = solve_offsets(25, a, b, delta, err**-2)
    found = solve_offsets(25, a, b, delta, err**-2, with_scatter=True)
    assert plain.chi2[0] < plain.dof[0]
    assert found.scatter[0] == 0
    np.testing.assert_array_equal(found.offset, plain.offset)
    np.testing.assert_array_equal(found.sigma, plain.sigma)
    np.testing.assert_array_equal(found.sigma_noise, plain.sigma)


def test_scatter_stays_in_its_component():
    a, b = np.array([0, 1, 2, 3, 4, 5]), np.array([1, 2, 0, 4, 5, 3])
    delta = np.array([5.0, 5.0, 5.0, 0.1, 0.0, 0.0])
    found = solve_offsets(6, a, b, delta, np.ones(6), with_scatter=True)
    np.testing.assert_allclose(found.scatter, [np.sqrt(74), 0], rtol=5e-3)  # 15^2 = 3 + 3 s^2
    np.testing.assert_allclose(found.sigma[3:], np.sqrt(2) / 3)


def test_pairs_that_look_at_the_same_pixels_need_loops_that_can_fail():
    a, b = grid(2, 2)
    found = solve_offsets(4, a, b, np.arange(6.0), np.ones(6), pair_dof=np.full(6, 0.5), with_scatter=True)
    assert found.scatter[0] == 0  # a stack of four whose offsets take all there is to know


@pytest.mark.parametrize("extra", [0.0, 3.0])
@pytest.mark.parametrize("kind", ["independent", "shared"])
def test_errors_with_scatter_are_true(kind, extra):
    offsets = LAYOUTS["half overlaps"]
    a, b, noise, covariance = frames(offsets, 400)
    if kind == "independent":
        noise, covariance = None, np.diag(np.diag(covariance))
    scale = np.sqrt(np.median(np.diag(covariance)))
    root = np.linalg.cholesky(covariance + 1e-14 * np.eye(len(a)) * covariance.max())
    rng = np.random.default_rng(1)
    pulls, ratios = [], []
    for _ in range(40):
        delta = root @ rng.normal(size=len(a)) + extra * scale * rng.normal(size=len(a))
        found = solve_offsets(len(offsets), a, b, delta, 1 / np.diag(covariance), noise=noise, with_scatter=True)
        pulls.append(found.offset / found.sigma)
        ratios.append(found.scatter[0] / scale)
    assert np.std(pulls) == pytest.approx(1, abs=0.12)
    if extra:
        assert np.mean(ratios) == pytest.approx(extra, rel=0.1)


def test_a_variance_of_levels_is_not_averaged_out_by_overlaps():
    a, b = np.triu_indices(4, 1)
    few, many = (
        solve_offsets(
            4, np.tile(a, k), np.tile(b, k), np.zeros(6 * k), np.full(6 * k, 1e6), level_variance=np.full(4, 1.0)
        )
        for k in (1, 9)
    )
    # 1 - 1 / 4: the mean of the four levels is taken out
    np.testing.assert_allclose([few.sigma, many.sigma], np.sqrt(0.75), rtol=1e-5)
    assert (many.sigma_noise < 1e-3).all()


def test_the_photometric_part_of_the_errors_is_told_apart():
    a, b = grid(4, 4)
    plain = solve_offsets(16, a, b, np.zeros(len(a)), np.ones(len(a)))
    found = solve_offsets(16, a, b, np.zeros(len(a)), np.ones(len(a)), photometric=np.full(len(a), 0.25))
    np.testing.assert_allclose(found.sigma, plain.sigma)
    np.testing.assert_allclose(found.sigma_noise, plain.sigma / 2)


# --- robust solution and diagnostics


def spoiled(seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    a, b = grid(6, 5)
    truth, err = rng.normal(0, 10, 30), rng.uniform(0.01, 0.02, len(a))
    delta = differences(truth, a, b) + err * rng.normal(size=len(a))
    delta[7] += 5
    delta[20] -= 0.4
    return a, b, delta, err, truth - truth.mean()


@pytest.mark.parametrize("seed", range(4))
def test_bad_overlaps_do_not_spoil_a_robust_solution(seed):
    a, b, delta, err, truth = spoiled(seed)
    plain = solve_offsets(30, a, b, delta, err**-2)
    robust = solve_offsets(30, a, b, delta, err**-2, robust=True)
    assert np.abs(plain.offset - truth).max() > 0.3
    assert np.abs(robust.offset - truth).max() < 4.5 * robust.sigma.max()
    assert plain.kept is None
    assert {7, 20} <= set(np.flatnonzero(robust.kept < 0.01))
    assert np.count_nonzero(robust.kept < 0.5) <= 8
    assert robust.chi2[0] / robust.dof[0] < 2


def test_a_robust_solution_of_good_pairs_is_nearly_the_plain_one():
    a, b, delta, err, _ = spoiled(0)
    delta[7] -= 5
    delta[20] += 0.4
    plain = solve_offsets(30, a, b, delta, err**-2)
    robust = solve_offsets(30, a, b, delta, err**-2, robust=True)
    assert robust.kept.min() > 0.05
    assert np.abs(robust.offset - plain.offset).max() < plain.sigma.max()


def test_a_robust_solution_of_consistent_pairs_is_the_plain_one():
    a, b = grid(3, 3)
    truth = np.arange(9.0)
    found = solve_offsets(9, a, b, differences(truth, a, b), np.ones(len(a)), robust=True)
    np.testing.assert_allclose(found.offset, truth - 4, atol=1e-12)
    np.testing.assert_array_equal(found.kept, 1)


def test_no_pair_is_given_up_where_none_can_be_blamed():
    found = solve_offsets(3, np.array([0, 1, 2]), np.array([1, 2, 0]), np.full(3, 50.0), np.ones(3), robust=True)
    np.testing.assert_allclose(found.kept, found.kept[0])
    assert found.kept[0] > 0.9


def test_bridges_are_the_pairs_without_which_a_component_falls_apart():
    # two triangles (0 1 2), (3 4 5) joined by 2-3; 5-6 twice; 6-7
    a = np.array([0, 1, 2, 3, 4, 5, 2, 5, 6, 6])
    b = np.array([1, 2, 0, 4, 5, 3, 3, 6, 5, 7])
    np.testing.assert_array_equal(np.flatnonzero(bridges(8, a, b)), [6, 9])


@given(seed=st.integers(0, 10**6))
@hypothesis_settings(max_examples=30)
def test_taking_a_bridge_away_makes_one_component_more(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 14, (2, 16))
    a, b = a[a != b], b[a != b]
    number = len(PairGraph.of_pairs(14, a, b, np.ones(len(a))).size)
    for e, bridge in enumerate(bridges(14, a, b)):
        rest = np.delete(a, e), np.delete(b, e)
        assert (len(PairGraph.of_pairs(14, *rest, np.ones(len(rest[0]))).size) > number) == bridge


def test_a_component_that_hangs_on_one_weak_overlap_is_told():
    a = np.array([0, 1, 2, 3, 4, 5, 2])
    b = np.array([1, 2, 0, 4, 5, 3, 3])
    err = np.array([1, 1, 1, 1, 1, 1, 8.0])
    found = solve_offsets(6, a, b, np.zeros(7), err**-2)
    np.testing.assert_array_equal(thin_bridges(found, a, b, err), [6])
    np.testing.assert_array_equal(thin_bridges(found, a, b, np.ones(7)), [])


def test_residuals_beyond_their_errors_are_a_bad_fit():
    a, b = grid(4, 4)
    noise = np.random.default_rng(0).normal(size=len(a))
    for factor, expected in ((1, []), (5, [0])):
        offsets = solve_offsets(16, a, b, factor * noise, np.ones(len(a)))
        np.testing.assert_array_equal(bad_fits(offsets.chi2, offsets.dof), expected)


def test_loops_close_to_what_is_left_over():
    a, b = np.array([0, 1, 2, 3]), np.array([1, 2, 0, 4])
    graph = PairGraph.of_pairs(5, a, b, np.ones(4))
    rms, n_loops = loop_closure(graph, spanning_tree(graph), np.array([1.0, 2.0, -2.5, 7.0]))
    np.testing.assert_allclose(rms, [0.5, np.nan])
    np.testing.assert_array_equal(n_loops, [1, 0])


@pytest.mark.parametrize("n", [10, 100, 6000], ids=["few", "many", "large"])
def test_a_component_that_can_not_be_factorised_is_one_without_information(n, monkeypatch):
    """SuperLU never fails on such weights: here it does, for the first component of two."""

    def singular(matrix: object, **keywords: object) -> object:
        if 3.0 in matrix.diagonal():  # of the first component only
            raise RuntimeError("Factor is exactly singular")
        return splu(matrix, **keywords)

    a, b = chain(n)
    weight = np.concatenate([np.full(n - 1, 1.5), [4.0]])
    monkeypatch.setattr(laplacian, "splu", singular)
    found = solve_offsets(n + 2, np.append(a, n), np.append(b, n + 1), np.append(np.ones(n - 1), 30.0), weight)
    np.testing.assert_allclose(found.offset[n:], [15, -15])
    np.testing.assert_allclose(found.sigma[n:], 0.25)
    assert len(found.chi2) == n + 1  # each group of the chain is alone
    assert np.isnan(found.residual[:-1]).all()


@pytest.mark.parametrize("extreme", [1e-320, 1e308])
def test_pairs_whose_weights_double_precision_can_not_hold_are_not_used(extreme):
    a, b = np.array([0, 1, 2]), np.array([1, 2, 3])
    found = solve_offsets(4, a, b, np.array([30.0, 1.0, 10.0]), np.array([4.0, extreme, 4.0]))
    np.testing.assert_allclose(found.offset, [15, -15, 5, -5])
    np.testing.assert_allclose(found.sigma, 0.25)
    assert list(found.component) == [0, 0, 1, 1]
