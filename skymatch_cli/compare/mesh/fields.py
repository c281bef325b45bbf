"""Structure within images: how far means over overlaps are from means over frames.

The difference of two images should be the same all over their overlap. Where it is not (gradients, residual flats,
steps between amplifiers, noise of rows, ghosts that no cell betrays), the overlap shows by how much an image varies,
and its other overlaps, and its frame as a whole, differ by as much.

So every image is taken to have a random field of its own, F(x) + G(y) along the axes of its frame, in which the
variance of F(x) - F(x') grows as |x - x'|^alpha: 2 is a gradient, 1 a random walk, as of steps, and near 0 noise of
rows or columns. The pieces of the overlaps have a likelihood for every alpha, for the share of x, and for every
amplitude. The amplitude of an image is the mean of those that its overlaps allow, where most sets have none, and
the images of the others agree within a factor of a few, but for a few (a ghost). The field gives the errors that the
means over all overlaps of an image have in common, relative to the mean over its frame.

A gradient common to all images can't be told from a gradient of the sky: what it does to levels is no error. The same
bowl in all images does nothing to them where frames overlap alike: where it explains the pieces better than fields do,
it is taken off before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property

import numpy as np
from scipy.sparse import csr_array, diags_array, hstack

from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.structure import PairStructure
from skymatch_cli.compare.mesh.sums import over
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.compare.mesh.zeropoints import ZeroPoints
from skymatch_cli.compare.steperrors import step_errors, variances
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph
from skymatch_cli.run.threads import one_thread

_NODES = 9  # of F, and of G, from one edge of the frame to the other
_ALPHAS = (0.3, 1.0, 2.0)
_GRADIENT, _PIECEMEAL = 2.0, 0.0  # the last: pieces differ each by its own, which has nothing to do with the frame
_SHARES = (0.5, 0.03, 0.97)  # of the variance that is along x
Kind = tuple[float, float]
"""Of field: alpha, and the share of the variance that is along x."""

_KINDS: list[Kind] = [(_PIECEMEAL, _SHARES[0]), *((alpha, share) for share in _SHARES for alpha in _ALPHAS)]
_UNEVEN = 1.0  # log likelihood by which structure along one axis must be better
_AMPLITUDES = np.append(0.0, 10 ** np.linspace(-1.5, 4.5, 33))  # in units of the variance of a typical piece
_NONE = 0.75  # of all sets have no structure
_LIKE = 2.5  # steps of these amplitudes, by which images of a set differ
_UNLIKE = 0.03  # part of the images that have any other amplitude
_SAMPLE = 128  # pairs that say which kind of field it is
_CHUNK = 1024  # pairs worked on at a time: memory
_LEAST_WEIGHT = 0.4  # of a piece over the mean: cells at a border have pixels on one side of the middle only
_QUIETEST = 1e-3  # noise that is left of the scatter of blocks where structure makes the most of it
_PRIOR = 15.0  # blocks' worth of belief that noise is as the scatter of blocks says, and alike in all images
_MOSTLY = 0.5  # of the log likelihood of structure, that factors must explain
_CLEAR = 3.0  # log likelihood, beyond which there is structure: no factors of faint scenes, but maybe a common bowl


@dataclass(frozen=True, slots=True, eq=False)
class ImageFields:
    """Errors of the differences of M pairs that come of structure within the N images."""

    factor: csr_array  # (M, K): columns are independent sources of error, in units of the run's noise
    # (M,): variance of the noise in the pieces over that which the scatter of the blocks makes them have; 1 at most
    quiet: FloatArray
    variance: FloatArray  # (N,): of the structure within each image
    # (M, 4): what a unit gradient common to all images does to each difference (x, y), and the sum over both images of
    # what gradients of their own variances do
    lever: FloatArray
    # (N, 2, 2): variance of the gradients of the images; 0 where the structure is not one of gradients
    tilt_variance: FloatArray


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Pieces of m overlaps: variances of the noise of their differences, and places in frames.

    ``variance`` (m, 12) is infinite where there is no piece; ``dof`` (m,): blocks that these variances are known from;
    ``own`` (m,): part of the information of an overlap that no other has, 2 / k in a stack of k images.
    ``place`` (m, 12, 2): middles of the pieces on the plane, NaN where there is none; ``extent`` (m, 2): of each;
    ``corner`` (2, m, 2) and ``axes`` (2, m, 2, 2): of the frames of both images on the plane.
    """

    variance: FloatArray
    dof: FloatArray
    own: FloatArray
    place: FloatArray
    extent: FloatArray
    corner: FloatArray
    axes: FloatArray

    def part(self, rows: IntArray) -> _Pieces:
        """Pieces of some of the overlaps."""
        if len(rows) == len(self.variance):
            return self
        each = {f.name: getattr(self, f.name) for f in fields(self)}
        return _Pieces(**{k: x[:, rows] if k in {"corner", "axes"} else x[rows] for k, x in each.items()})

    @cached_property
    def share(self) -> FloatArray:
        """Share of the nodes of F and of G of both images in the mean over each piece, (2, m, 12, 2, 9)."""
        to_frame = np.linalg.inv(self.axes)
        middle = np.einsum("emij,empj->empi", to_frame, self.place - self.corner[:, :, None])
        half = 0.5 * np.einsum("emij,mj->emi", np.abs(to_frame), self.extent)[:, :, None]
        return np.nan_to_num(_node_shares(middle - half, middle + half))

    def chunks(self) -> Iterator[tuple[IntArray, _Pieces]]:
        """Some of the overlaps after others, as rows and pieces: their shares take much memory."""
        for low in range(0, len(self.variance), _CHUNK):
            rows = np.arange(low, min(low + _CHUNK, len(self.variance)))
            yield rows, self.part(rows)

    @property
    def typical(self) -> float:
        """Typical variance of the noise of a piece."""
        seen = np.isfinite(self.variance)
        return float(np.median(self.variance[seen])) if seen.any() else 1.0

    def over_noise(self, x: FloatArray) -> FloatArray:
        """Values (m, 12, ...) in units of the noise, their weighted mean taken off."""
        per_noise = np.where(np.isfinite(self.variance), 1 / np.sqrt(self.variance), 0.0)
        unit = per_noise / np.maximum(np.sqrt((per_noise**2).sum(axis=1)), 1e-300)[:, None]
        extra = (...,) + (None,) * (x.ndim - 2)
        scaled = x * per_noise[extra]
        return np.asarray(scaled - unit[extra] * (unit[extra] * scaled).sum(axis=1)[:, None])

    def modes(self, kinds: Sequence[Kind]) -> _Modes:
        """What fields of some kinds make of the pieces of each overlap."""
        nodes = self.over_noise(self.share.transpose(1, 2, 3, 0, 4))
        along: dict[float, FloatArray] = {}  # (m, 2, 12, 12): covariance by a field along either axis of the frames
        for alpha in {alpha for alpha, _ in kinds} - {_PIECEMEAL}:
            root = _root(alpha)
            moved = (nodes @ root).swapaxes(1, 2).reshape(len(nodes), 2, nodes.shape[1], 2 * root.shape[1])
            along[alpha] = 0.5 * moved @ moved.swapaxes(2, 3)
        alone = self.over_noise(np.broadcast_to(np.eye(nodes.shape[1]), (len(nodes), *[nodes.shape[1]] * 2)))
        covariance = [
            alone @ alone.swapaxes(1, 2)
            if alpha == _PIECEMEAL
            else share * along[alpha][:, 0] + (1 - share) * along[alpha][:, 1]
            for alpha, share in kinds
        ]
        variance, vector = np.linalg.eigh(np.stack(covariance))
        return _Modes(self, np.maximum(variance, 0), vector)


@dataclass(frozen=True, slots=True, eq=False)
class _Modes:
    """Independent sums of the pieces of m overlaps, in units of their noise, for fields of some kinds."""

    pieces: _Pieces
    variance: FloatArray  # (kinds, m, 12): of each, by a field of unit amplitude
    vector: FloatArray  # (kinds, m, 12, 12)

    def likelihoods(self, difference: FloatArray, amplitudes: FloatArray) -> FloatArray:
        """Log likelihoods (kinds, m, amplitudes) of the fields, of the differences (m, 12) of the pieces."""
        pieces = self.pieces
        square = (pieces.over_noise(difference)[:, None] @ self.vector)[:, :, 0] ** 2
        total = 1 + self.variance[..., None] * amplitudes
        chi2, n_pieces = (square[..., None] / total).sum(axis=2), np.isfinite(pieces.variance).sum(axis=1)
        # Of Student's t: the noise is known from the scatter of so many blocks.
        of_chi2 = (n_pieces + pieces.dof)[:, None] * np.log1p(chi2 / pieces.dof[:, None])
        return np.asarray(-0.5 * pieces.own[:, None] * (np.log(total).sum(axis=2) + of_chi2))


@one_thread()
def image_fields(
    structure: PairStructure,
    graph: OverlapGraph,
    meshes: Sequence[Sequence[Mesh | None]],
    zero_points: ZeroPoints,
    own: FloatArray,
) -> tuple[ImageFields, ZeroPoints]:
    """Errors from structure within the images, and the zero points that are not better explained by it.

    What the factors that are known do to differences is not structure. ``own`` (M,) is the part of the information of a
    pair that no other pair uses, 2 / k in a stack of k images; 0 for pairs that do not count.
    """
    used = own > 0
    ratio = _noise_ratio(structure, graph)
    quiet = np.clip(0.5 * (ratio[graph.a] + ratio[graph.b]), _QUIETEST, 1.0)
    rows = np.flatnonzero(used)
    some = rows[:: -(-len(rows) // _SAMPLE)] if len(rows) else rows
    pieces, difference = _pieces(structure, graph, meshes, (quiet, own))
    sample = pieces.part(some)
    modes = sample.modes(_KINDS)
    best, kind, clear = _kind(modes, difference[some])
    if clear > _CLEAR:
        zero_points = zero_points.of_bright_scenes()
    gain = zero_points.factor - 1
    if gain.any():
        by_factors = over((gain[graph.a] - gain[graph.b])[:, None] * structure.pieces[3], structure.pieces[0])
        steady = difference - by_factors
        with_factors = _kind(modes, steady[some])
        if with_factors[0] - with_factors[2] - (best - clear) > _MOSTLY * clear:
            difference, (best, kind, clear) = steady, with_factors
        else:
            zero_points = ZeroPoints.none(graph.n_images)
    common = np.zeros((len(graph.a), 1))
    if clear > _CLEAR:
        bowl, places = _bowl(sample, difference[some], pieces)
        without = difference - places @ bowl
        better, other, _ = _kind(modes, without[some])
        if better - best > np.log(max(int(np.count_nonzero(np.isfinite(sample.variance))), 1)):
            difference, kind = without, other
            common[:, 0] = (_weights(structure)[:, :, None] * places).sum(axis=1) @ bowl
    ends = graph.a[rows], graph.b[rows]
    amplitude = _amplitudes(pieces.part(rows), difference[rows], kind, ends, graph.n_images)
    fields = _errors(structure, graph, pieces, (kind, amplitude), (quiet, common, used))
    if not common.any():  # no more is taken off the noise than fields add
        noise = over(structure.pieces[2].sum(axis=1), structure.pieces[0].sum(axis=1) ** 2)
        fields = replace(fields, quiet=np.clip(1 - over(variances(fields.factor), noise), quiet, 1.0))
    return fields, zero_points


def with_steps(
    fields: ImageFields,
    structure: PairStructure,
    graph: OverlapGraph,
    meshes: Sequence[Sequence[Mesh | None]],
    steps: FloatArray,
) -> ImageFields:
    """Fields that give no difference a smaller variance than steps between amplifiers do: see `step_variances`."""
    n = len(graph.a)
    pieces, _ = _pieces(structure, graph, meshes, (np.ones(n), np.ones(n)))
    node = np.arange(_NODES)[:, None] / (_NODES - 1) - np.arange(4) / 4  # from the first end of each quarter
    of_node = (node > 0) * (node < 0.25) + 0.5 * np.isin(node, (0.0, 0.25))
    of_node[[0, -1]] *= 2  # nothing lies beyond the frame
    # Of gradients, what all images may have in common is no error: they do not count for steps.
    known = np.zeros(n) if fields.tilt_variance.any() else variances(fields.factor)
    more = step_errors(graph, _node_means(structure, pieces) @ of_node, steps, known)
    return replace(fields, factor=csr_array(hstack([fields.factor, more])))


def _noise_ratio(structure: PairStructure, graph: OverlapGraph) -> FloatArray:
    """Scatter of the blocks of every image within pieces over that within overlaps, which has structure in it, (N,)."""
    pieces, whole = structure.pieces[:3], structure.pieces[:3].sum(axis=2, keepdims=True)
    n_blocks = np.maximum(structure.bright[5] - (pieces[0] > 0).sum(axis=1), 0.0)
    terms = [n_blocks]
    for weight, pull, noise in (pieces, whole):
        terms += [structure.bright[3] - over(pull**2, weight).sum(axis=1)]
        terms += [structure.bright[4] - over(noise, weight).sum(axis=1)]
    ends, known = np.append(graph.a, graph.b), n_blocks > 0  # else rounding: each block is a piece
    each = [np.bincount(ends, np.tile(x * known, 2), graph.n_images).astype(float) for x in terms]
    n_blocks, within, promised, total, promised_total = each
    ratio = over(within * promised_total, promised * total)
    alike = (float((n_blocks * ratio).sum()) / 2 + _PRIOR) / (float(n_blocks.sum()) / 2 + _PRIOR)
    return np.asarray((n_blocks * ratio + _PRIOR * alike) / (n_blocks + _PRIOR))


def _weights(structure: PairStructure) -> FloatArray:
    """Share of each piece in the mean over its overlap, (M, 12)."""
    return over(structure.pieces[0], structure.pieces[0].sum(axis=1, keepdims=True))


def _node_means(structure: PairStructure, pieces: _Pieces) -> FloatArray:
    """Share of the nodes of both images in the mean over each overlap, (2, M, 2, 9)."""
    weights = _weights(structure)
    each = (np.einsum("mp,empaj->emaj", weights[rows], some.share) for rows, some in pieces.chunks())
    return np.concatenate([np.empty((2, 0, 2, _NODES)), *each], axis=1)


def _pieces(
    structure: PairStructure,
    graph: OverlapGraph,
    meshes: Sequence[Sequence[Mesh | None]],
    known: tuple[FloatArray, FloatArray],
) -> tuple[_Pieces, FloatArray]:
    """The pieces of all overlaps, where they are in the frames of both images, and their differences (M, 12)."""
    quiet, own = known
    weight, pull, noise, _, row, column = structure.pieces
    mean = over(weight.sum(axis=1), np.count_nonzero(weight > 0, axis=1).astype(float))
    seen = (weight > _LEAST_WEIGHT * mean[:, None]) & (noise > 0)
    variance = np.where(seen, over(noise, weight**2) * quiet[:, None], np.inf)
    place = BLOCK * np.stack([over(column, weight), over(row, weight)], axis=-1) - 0.5
    place[~seen] = np.nan
    extent = BLOCK * (structure.size / structure.layout)[:, ::-1]
    corners = np.zeros((2, len(graph.a), 3, 2))
    for k, images in enumerate(meshes):
        mine = np.flatnonzero(graph.plane == k)
        of_images = np.array([np.zeros((3, 2)) if mesh is None else mesh.corners for mesh in images]).reshape(-1, 3, 2)
        corners[:, mine] = of_images[np.stack([graph.a[mine], graph.b[mine]])]
    axes = (corners[:, :, 1:] - corners[:, :, :1]).swapaxes(2, 3)
    placed = (np.isfinite(axes).all(axis=(2, 3)) & (np.linalg.det(axes) != 0))[..., None]
    axes, corner = np.where(placed[..., None], axes, np.eye(2)), np.where(placed, corners[:, :, 0], np.nan)
    dof = _PRIOR + np.maximum(structure.bright[5] - np.count_nonzero(weight > 0, axis=1), 0.0)
    return _Pieces(variance, dof, own, place, extent, corner, axes), over(pull, weight)


def _node_shares(low: FloatArray, high: FloatArray) -> FloatArray:
    """Share of the nodes (..., 9) in the mean of a function from ``low`` to ``high`` in 0 to 1, linear between them."""
    low, high = (np.clip(x, 0, 1) for x in (low, np.maximum(high, low + 1e-3)))
    low = np.minimum(low, high - 1e-3)
    upper, lower = (_hat_integrals(x) for x in (high, low))
    return np.asarray((upper - lower) / (high - low)[..., None])


def _hat_integrals(x: FloatArray) -> FloatArray:
    """Integrals up to x, in 0 to 1, of functions that are 1 at one node and fall to 0 at the next ones, (..., 9)."""
    from_node = np.clip(x[..., None] * (_NODES - 1) - np.arange(_NODES), -1, 1)
    integral = 0.5 * (1 + from_node) ** 2 * (from_node <= 0) + (1 - 0.5 * (1 - from_node) ** 2) * (from_node > 0)
    integral[..., 0] -= 0.5  # left of the frame
    return np.asarray(integral / (_NODES - 1))


@cache
def _root(alpha: float) -> FloatArray:
    """Root (9, r) of the covariance of the nodes of a function relative to its mean."""
    x = np.linspace(0, 1, _NODES)
    apart = np.abs(x[:, None] - x) ** alpha
    mean = _node_shares(np.zeros(1), np.ones(1))[0]
    relative = np.eye(_NODES) - mean
    value, vector = np.linalg.eigh(-relative @ apart @ relative.T)
    large = value > 1e-9 * value.max()
    return np.asarray(vector[:, large] * np.sqrt(value[large]))


def _kind(modes: _Modes, difference: FloatArray) -> tuple[float, Kind, float]:
    """Log likelihood of the best kind of field, that kind, and by how much none is worse."""
    found = modes.likelihoods(difference, modes.pieces.typical * _AMPLITUDES).sum(axis=1)
    bests = [float(x.max()) - _UNEVEN * (share != _SHARES[0]) for x, (_, share) in zip(found, _KINDS, strict=True)]
    k = int(np.argmax(np.round(bests, 3)))  # where there is none, all are equal but for rounding
    return bests[k], _KINDS[k], bests[k] - float(found[k][0])


def _bowl(sample: _Pieces, difference: FloatArray, pieces: _Pieces) -> tuple[FloatArray, FloatArray]:
    """Coefficients (2,) of x^2 and y^2 in all frames that explain a sample best; what each does there (m, 12, 2)."""
    nodes = (np.arange(_NODES) / (_NODES - 1) - 0.5) ** 2
    bend, places = (
        np.concatenate([np.subtract(*some.share) @ nodes for _, some in x.chunks()]) for x in (sample, pieces)
    )
    wanted = sample.over_noise(bend).reshape(-1, 2)
    bowl = np.linalg.lstsq(wanted, sample.over_noise(difference).reshape(-1), rcond=1e-6)[0]
    return np.asarray(bowl, np.float64), np.asarray(places)


def _amplitudes(
    pieces: _Pieces, difference: FloatArray, kind: Kind, ends: tuple[IntArray, IntArray], n: int
) -> FloatArray:
    """Variance of the field of every image, (N,): much the same in all of a set, or that of a few images alone."""
    amplitudes = pieces.typical * _AMPLITUDES
    each = [some.modes([kind]).likelihoods(difference[rows], amplitudes)[0] for rows, some in pieces.chunks()]
    likelihood = np.concatenate([np.empty((0, len(amplitudes))), *each])
    of_image = np.zeros((n, len(amplitudes)))
    for end in ends:
        np.add.at(of_image, end, likelihood)
    of_set, even = likelihood.sum(axis=0), np.full(len(amplitudes) - 1, 1 / (len(amplitudes) - 1))
    none = _probabilities(of_set, np.append(_NONE, (1 - _NONE) * even))[0]
    step = np.arange(len(even))
    spread = np.exp(-0.5 * ((step[:, None] - step) / _LIKE) ** 2)
    some = _probabilities(of_set[1:], even)
    alike = (1 - _UNLIKE) * (spread / spread.sum(axis=0) @ some) + _UNLIKE * even
    shared = _probabilities(of_image[:, 1:], alike) @ amplitudes[1:]
    own = _probabilities(of_image, np.append(1 - _UNLIKE, _UNLIKE * even))
    variance = 0.5 * ((1 - none) * shared + none * own @ amplitudes)
    return np.asarray(variance, np.float64)


def _probabilities(log_likelihood: FloatArray, prior: FloatArray) -> FloatArray:
    """Probabilities of the amplitudes, (..., amplitudes)."""
    found: FloatArray = prior * np.exp(log_likelihood - log_likelihood.max(axis=-1, keepdims=True))
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


def _errors(
    structure: PairStructure,
    graph: OverlapGraph,
    pieces: _Pieces,
    field: tuple[Kind, FloatArray],
    known: tuple[FloatArray, FloatArray, BoolArray],
) -> ImageFields:
    """Errors of the means over the overlaps, of fields of a kind and of these variances (N,)."""
    (alpha, along_x), variance = field
    quiet, common, used = known
    m, n = len(graph.a), graph.n_images
    ends, weights = np.stack([graph.a, graph.b]), _weights(structure)
    lever, tilt_variance = np.zeros((m, 4)), np.zeros((n, 2, 2))
    if alpha == _PIECEMEAL:
        own = np.sqrt(variance[ends].sum(axis=0) * (weights**2).sum(axis=1) * used)
        alone = csr_array(hstack([diags_array(own), csr_array(common)]))
        return ImageFields(alone, quiet, variance, lever, tilt_variance)
    share, root = np.array([along_x, 1 - along_x]), _root(alpha)
    mean = _node_means(structure, pieces)
    size = 2 * root.shape[1]
    entries = ((mean @ root) * np.sqrt(share)[:, None]).reshape(2, m, size) * np.sqrt(variance)[ends][..., None]
    entries *= np.array([1, -1])[:, None, None] * used[:, None]
    column = (size * ends.T[..., None] + np.arange(size)).ravel()
    factor = csr_array((entries.swapaxes(0, 1).ravel(), column, 2 * size * np.arange(m + 1)), shape=(m, size * n))
    if alpha == _GRADIENT:
        unit = pieces.axes / np.sqrt(np.abs(np.linalg.det(pieces.axes)))[..., None, None]
        turned = np.einsum("emij,emj->emi", unit, mean @ (np.arange(_NODES) / (_NODES - 1) - 0.5))
        axes = np.tile(np.eye(2), (n, 1, 1))
        axes[ends] = unit
        # The variance of F(x) - F(x') is twice that of the field times the square of the distance; a gradient along an
        # axis of the frame is one on the plane over the length of that axis.
        along = np.linalg.inv(axes).swapaxes(1, 2)
        tilt_variance = (along * (2 * share)) @ along.swapaxes(1, 2) * variance[:, None, None]
        own = np.einsum("emij,emj->emi", tilt_variance[ends], turned)
        lever = np.concatenate([turned[0] - turned[1], own[0] - own[1]], axis=1)
    return ImageFields(csr_array(hstack([factor, csr_array(common)])), quiet, variance, lever, tilt_variance)
