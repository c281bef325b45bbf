"""Meshes of many images compared cell by cell: one sky for each cell, one offset for each image.

Least squares of ``value[i, c] = offset[i] + sky[c]`` with weights w. Eliminating the skies leaves a
graph Laplacian in which a pair of images has the weight ``sum over cells of w_i w_j / sum(w)``: optimal
in stacks too, and one pass over the cells.

What a cell counts is the information of its pixels, and

- less where bright stars are: small errors of the windows times much light. Weight is taken away from
  all images of a cell and from its neighbours, smoothly: what seeing moves from one cell to the next
  cancels in their sum only where both count alike;
- less where there are stars and pixel areas differ: whether a star keeps its counts or its surface
  brightness depends on the flat field;
- nothing where images disagree: in one cell, by more than noise and half of the structure there, or in
  the mean of 3 x 3 cells, in which seeing cancels (biweight, Beaton & Tukey 1974, Technometrics 16, 147),
  iterated with the solution. The scale of disagreement comes from the cells of the neighbourhood.

The noise of every image is scaled to the scatter of sums of 8 x 8 cells, so that errors hold where
pixels are correlated, flat fields differ or seeing leaves its traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import numpy as np

from skymatch_cli.beside import Ask, here
from skymatch_cli.execution import usable_cores
from skymatch_cli.mesh.cells import Float32Array
from skymatch_cli.mesh.reduce import CellMesh
from skymatch_cli.mesh.sums import BlockScatter, PairSums, TileSums, block_scatter, pair_sums
from skymatch_cli.mesh.tiles import Tile, TilePlace, run_noise, tile_places, tiles
from skymatch_cli.model import BoolArray, FloatArray, IntArray, Measurements, OverlapGraph, Status, StrArray
from skymatch_cli.processes import crew

Answer = TypeVar("Answer")

_ITERATIONS = 4  # with the weights of the one before
_UNSCALED = 2  # iterations before the scatter is trusted
_SCALE_CELLS = 1009  # residuals of a tile that give its scale; prime to its sides
_CELL_CUT = 6.0  # sigma at which a single cell counts no more
_BESIDE_CUT = 3.0  # the same beside one that does not count: trails and ghosts reach into the next cell
_MEAN_CUT = 8.0  # the same for the mean of 3 x 3 cells
_MEAN_SCALE = 0.75  # scatter of that mean in noise only, in units of what independent cells would have
_START_DIFFERENCES = 65536  # of cells, in all pairs of a tile: enough for the starting offsets
_MIN_CELLS = 4
_WORTH_PROCESS = 60  # squares of cells that take some times as long as starting a process
_REJECTED = 0.5  # trust below which a cell draws its neighbours into doubt
_MAD_TO_SIGMA = 1.4826


def compare(
    meshes: Sequence[Sequence[CellMesh | None]],
    graph: OverlapGraph,
    group: IntArray,
    usable: StrArray | None = None,
    *,
    jobs: int = 1,
    ask: Ask = here,
) -> Measurements:
    """Compare every overlapping pair of images, with the weights of a joint solution.

    Parameters
    ----------
    meshes : for every plane of the graph, for every image, CellMesh or None
        None where the image has no part in that plane, or can't be used.
    graph : OverlapGraph
        M pairs of N images.
    group : (N,) int64
        Pairs within a group are measured, and have no weight.
    usable : (N,) object, optional
        Status of every image; a pair takes the status of its first image that is not ok.
    jobs : int
        Workers; 0 means one per usable core. The answers don't depend on it.
    ask : Ask
        Who solves for the offsets of the images.

    Returns
    -------
    Measurements
        ``weight`` is the information of the joint fit, so ``noise`` is None; ``delta_err`` is the error
        of the pair's own difference.
    """
    unit = run_noise(meshes)
    level = np.zeros(graph.n_images)
    for plane in meshes:
        for i, mesh in enumerate(plane):
            if mesh is not None:
                level[i] = mesh.level / unit
    sums = _robust_sums(meshes, level, graph, unit, jobs=jobs, ask=ask)
    n_good = np.array([max((m.n_good for m in mine if m is not None), default=0) for mine in zip(*meshes, strict=True)])
    status = pair_status(sums, n_good, graph, group)
    if usable is not None:
        for words in (usable[graph.b], usable[graph.a]):
            status = np.where(words != Status.OK, words, status)
    return pair_measurements(sums, unit, graph, n_good=n_good, status=status)


def _robust_sums(
    meshes: Sequence[Sequence[CellMesh | None]],
    level: FloatArray,
    graph: OverlapGraph,
    unit: float,
    *,
    jobs: int,
    ask: Ask,
) -> PairSums:
    """Sums over pairs, with weights that agree with their own solution and with the scatter they leave."""

    def solved(weight: FloatArray, difference: FloatArray) -> FloatArray:
        return _rounded(ask(image_offsets, graph.n_images, graph.a, graph.b, weight, difference) - level)

    places = tile_places(meshes) if len(graph.a) else []
    work = sum(place.n_squares * len(place.images) for place in places)
    workers = min(jobs or usable_cores(), work // _WORTH_PROCESS + 1)
    shares = [_Share(places[k::workers], meshes, graph, unit) for k in range(workers)]
    with crew(shares) as each:
        start = _in_order(each(_Share.start))
        offset = solved(*first_differences(start, level, graph))
        scale = np.ones(graph.n_images)
        for iteration in range(_ITERATIONS):
            sums, scatter = PairSums.empty(graph, level + offset), BlockScatter.empty(graph.n_images)
            for found in _in_order(each(_Share.step, offset, scale, iteration >= _UNSCALED)):
                sums.add(found.pairs)
                if found.scatter is not None:
                    scatter.add(found.scatter)
            scale = scale * scatter.ratio()
            offset = solved(sums.weight, sums.difference())
        sums = PairSums.empty(graph, level + offset)
        for last in _in_order(each(_Share.finish, offset, scale)):
            sums.add(last)
    return sums


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """What one tile gives to an iteration."""

    pairs: TileSums
    scatter: TileSums | None  # where it was asked for


class _Share:
    """Every so-manieth tile, made when it is first asked for, and the sky of its cells in the iteration before.

    Answers have one element for each place, None where there is no tile.
    """

    def __init__(
        self,
        places: Sequence[TilePlace],
        meshes: Sequence[Sequence[CellMesh | None]],
        graph: OverlapGraph,
        unit: float,
    ) -> None:
        self._places, self._meshes, self._graph, self._unit = places, meshes, graph, unit
        self._tiles: list[Tile | None] = []
        self._skies: list[Float32Array | None] = []

    def start(self) -> list[TileSums | None]:
        """Differences to start from."""
        self._tiles = list(tiles(self._places, self._meshes, self._graph, self._unit))
        self._skies = [None] * len(self._tiles)
        return [None if tile is None else median_differences(tile) for tile in self._tiles]

    def step(self, offset: FloatArray, scale: FloatArray, scatter: bool) -> list[_Step | None]:
        """Sums with the weights that offsets and noises (N,) of the images suggest."""
        answers: list[_Step | None] = []
        for k, tile in enumerate(self._tiles):
            if tile is None:
                answers.append(None)
                continue
            weight, shifted, before = self._trusted(tile, k, offset, scale)
            self._skies[k] = sky = mean_sky(weight, shifted, before)
            residual = shifted - sky
            blocks = block_scatter(tile, weight, residual) if scatter else None
            answers.append(_Step(pair_sums(tile, weight, residual), blocks))
        return answers

    def finish(self, offset: FloatArray, scale: FloatArray) -> list[TileSums | None]:
        """Sums with all that the result needs."""
        answers: list[TileSums | None] = []
        for k, tile in enumerate(self._tiles):
            if tile is None:
                answers.append(None)
                continue
            weight, shifted, sky = self._trusted(tile, k, offset, scale)
            answers.append(pair_sums(tile, weight, shifted - sky, sky))
        return answers

    def _trusted(
        self, tile: Tile, k: int, offset: FloatArray, scale: FloatArray
    ) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Weights of the cells of a tile, their values less the offsets, and their skies before."""
        shifted = np.asarray(tile.value - of_tile(offset, tile))
        sky = self._skies[k]
        if sky is None:
            sky = median_sky(tile, shifted)
        return tile.weight * cell_trust(tile, shifted - sky) / of_tile(scale, tile), shifted, sky


def _in_order(answers: Sequence[Sequence[Answer | None]]) -> list[Answer]:
    """Answers of shares that were dealt out in turn, in the order of the tiles: sums don't depend on the workers."""
    rounds = zip_longest(*answers)
    return [answer for each in rounds for answer in each if answer is not None]


def _rounded(offset: FloatArray) -> FloatArray:
    """What float32 makes of the offsets: the sums are about these, so no digit is lost."""
    return offset.astype(np.float32).astype(np.float64)


def of_tile(per_image: FloatArray, tile: Tile) -> Float32Array:
    """Values of images (N,) as those of a tile's images, to be spread over its cells."""
    return per_image[tile.images, None, None].astype(np.float32)


def median_sky(tile: Tile, shifted: Float32Array) -> Float32Array:
    """Median over the images of every cell: a start that one bad image can't spoil."""
    ordered = np.sort(np.where(tile.weight > 0, shifted, np.float32(np.inf)), axis=0)
    count = np.count_nonzero(tile.weight, axis=0)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, 0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(ordered) - 1)[None], 0)[0]
    return np.where(count > 0, np.float32(0.5) * (low + high), np.float32(0))


def mean_sky(weight: Float32Array, shifted: Float32Array, before: Float32Array) -> Float32Array:
    """Weighted mean over the images of every cell; as before where no image is trusted."""
    total = weight.sum(axis=0)
    return np.asarray(np.divide((weight * shifted).sum(axis=0), total, out=before.copy(), where=total > 0))


def cell_trust(tile: Tile, residual: Float32Array) -> Float32Array:
    """Biweight of every cell of every image, from its own residual and from the mean of 3 x 3."""
    seen = tile.weight > 0
    single = np.abs(residual)
    single *= tile.per_sigma
    single /= _scale(single, seen, 1.0)
    trust = seen.astype(np.float32)
    doubtful = _doubtful(single, seen, _CELL_CUT)
    trust.reshape(-1)[doubtful] = _biweight(single.reshape(-1)[doubtful], _CELL_CUT)
    rejected = doubtful[trust.reshape(-1)[doubtful] < _REJECTED]
    if rejected.size:
        beside = _with_neighbours(rejected, trust.shape)
        trust.reshape(-1)[beside] *= _biweight(single.reshape(-1)[beside], _BESIDE_CUT)
    weight = tile.weight * trust
    variance, total = np.split(_box(np.concatenate([weight * tile.own, weight * residual])), 2)
    expected = np.sqrt(variance)
    mean = np.abs(np.divide(total, expected, out=np.zeros_like(residual), where=expected > 0))
    mean /= _scale(mean, trust > 0, _MEAN_SCALE)
    doubtful = _doubtful(mean, seen, _MEAN_CUT)
    trust.reshape(-1)[doubtful] *= _biweight(mean.reshape(-1)[doubtful], _MEAN_CUT)
    return trust


def _doubtful(distance: Float32Array, seen: BoolArray, cut: float) -> IntArray:
    """Where the biweight is less than one, as indices into the flat array: few cells."""
    return np.flatnonzero(((distance > np.float32(0.5 * cut)) & seen).reshape(-1))


def _with_neighbours(cells: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Cells of (k, nj, ni), given as indices into the flat array, and the eight around each."""
    k, j, i = np.unravel_index(cells, shape)
    mask = np.zeros((shape[0], shape[1] + 2, shape[2] + 2), bool)
    for dj in (0, 1, 2):
        for di in (0, 1, 2):
            mask[k, j + dj, i + di] = True
    return np.flatnonzero(mask[:, 1:-1, 1:-1].reshape(-1))


def _biweight(distance: Float32Array, cut: float) -> Float32Array:
    # Flat up to half of the cut: noise alone loses no weight, so the weights remain its information.
    beyond = np.clip(distance * np.float32(2.0 / cut) - np.float32(1), np.float32(0), np.float32(1))
    return np.asarray((np.float32(1) - beyond**2) ** 2)


def _scale(distances: Float32Array, use: BoolArray, least: float) -> np.float32:
    """Scale of distances from zero, from some of them; at least what noise alone has."""
    step = max(1, distances.size // _SCALE_CELLS)
    some = distances.reshape(-1)[::step][use.reshape(-1)[::step]]
    return np.float32(max(least, _MAD_TO_SIGMA * _median(some))) if some.size else np.float32(least)


def _median(some: Float32Array) -> float:
    """That of numpy, for a few values: its own checks would take longer."""
    low, high = (some.size - 1) // 2, some.size // 2
    middle = np.partition(some, (low, high))[[low, high]]
    return float(0.5 * (middle[0] + middle[1]))


def _box(a: Float32Array) -> Float32Array:
    """Sums of 3 x 3 cells of (k, nj, ni)."""
    for axis in (1, 2):
        out = a.copy()
        low, high = ((slice(None),) * axis + (s,) for s in (slice(None, -1), slice(1, None)))
        out[high] += a[low]
        out[low] += a[high]
        a = out
    return a


def median_differences(tile: Tile) -> TileSums:
    """How many cells of a tile each pair has in common, and that times the median difference; some cells stand in."""
    shared = np.flatnonzero(np.count_nonzero(tile.weight, axis=0) > 1)
    if not len(shared):  # each cell was seen by one image only: nothing to compare
        return TileSums(tile.pair, np.zeros((2, len(tile.pair))))
    cells = shared[:: max(1, len(shared) * len(tile.pair) // _START_DIFFERENCES)]
    value = np.where(tile.weight > 0, tile.value, np.nan).reshape(len(tile.images), -1)[:, cells]
    differences = np.sort(value[tile.first] - value[tile.second], axis=1)  # NaN last
    n = np.isfinite(differences).sum(axis=1)
    median = np.take_along_axis(differences, np.maximum(n - 1, 0)[:, None] // 2, 1)[:, 0]
    return TileSums(tile.pair, np.array([n, np.where(n > 0, median * n, 0.0)]))


def first_differences(
    found: Sequence[TileSums], level: FloatArray, graph: OverlapGraph
) -> tuple[FloatArray, FloatArray]:
    """Weights and differences of the pairs to start from, from the medians of the tiles."""
    totals = np.zeros((2, len(graph.a)))
    for tile in found:
        totals[:, tile.rows] += tile.columns
    count, total = totals
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return count, mean + level[graph.a] - level[graph.b]


def image_offsets(n: int, first: IntArray, second: IntArray, weight: FloatArray, difference: FloatArray) -> FloatArray:
    """Least-squares offsets (n,) of images from the differences of pairs of them; one of each component at 0.

    Images of one group have their own offsets here: residuals that say whether images agree in a cell
    must not contain the step between two chips.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import splu

    use = weight > 0
    a, b, w, d = first[use], second[use], weight[use], difference[use]
    links = coo_array((np.tile(w, 2), (np.append(a, b), np.append(b, a))), shape=(n, n)).tocsr()
    _, component = connected_components(links, directed=False)
    free = np.setdiff1d(np.arange(n), np.unique(component, return_index=True)[1])
    offset = np.zeros(n)
    if free.size:
        each = np.arange(n)
        laplacian = coo_array((links.sum(axis=1), (each, each)), shape=(n, n)).tocsr() - links
        pull = np.bincount(a, w * d, n) - np.bincount(b, w * d, n)
        offset[free] = splu(laplacian[free][:, free].tocsc()).solve(pull[free])
    return offset


def pair_status(sums: PairSums, n_good: IntArray, graph: OverlapGraph, group: IntArray) -> StrArray:
    """The status of every pair, from its cells and the good pixels of its images."""
    status = np.where(_enough(sums), Status.OK, Status.TOO_FEW_PIXELS).astype(object)
    status[(n_good[graph.a] == 0) | (n_good[graph.b] == 0)] = Status.ALL_MASKED
    status[group[graph.a] == group[graph.b]] = Status.SAME_GROUP
    return status


def _enough(sums: PairSums) -> BoolArray:
    return np.asarray((sums.n_cells >= _MIN_CELLS) & (sums.weight > 0))


def pair_measurements(
    sums: PairSums, unit: float, graph: OverlapGraph, *, n_good: IntArray, status: StrArray
) -> Measurements:
    """Sums over pairs, in units of the run's noise, as measurements in comparison units."""
    measured = _enough(sums) & ((status == Status.OK) | (status == Status.SAME_GROUP))
    weight = np.where(measured, sums.weight, 1.0)
    sky_a, sky_b, delta, err = (
        np.where(measured, c, np.nan) * unit
        for c in (*sums.skies(), sums.difference(), np.sqrt(sums.variance) / weight)
    )
    return Measurements(
        a=graph.a,
        b=graph.b,
        area_arcmin2=graph.area_arcmin2,
        sky_a=sky_a,
        sky_b=sky_b,
        n_a=np.where(measured, np.rint(sums.n_pixels[0]), 0).astype(np.int64),
        n_b=np.where(measured, np.rint(sums.n_pixels[1]), 0).astype(np.int64),
        delta=delta,
        delta_err=err,
        weight=np.where(status == Status.OK, weight, 0.0) / unit**2,
        status=status,
        n_good=n_good,
        information=np.where(measured, sums.information, np.nan) / unit**2,
        pair_dof=np.where(measured, sums.variance / weight, 0.0),
    )
