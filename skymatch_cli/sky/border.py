"""Follow lines that are straight in pixels on the sky, or the other way round, to a small fraction of a pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray
from skymatch_cli.sky.sphere import normalised

CHORD_PIX = 0.02  # largest distance between a border and the great circles that replace it
_CHECK_EVERY_PIX = 32.0  # distortion tables have nodes every 64 pixels or so
_SHORTEST_PIX = 0.1


def sky_borders(wcs: CelestialWcs, rings: Sequence[FloatArray]) -> list[FloatArray]:
    """Follow rings of straight lines in pixels on the sky.

    ``rings`` are open, (n, 2) each, on the sky; so are the results, (m, 3) unit vectors, the corners among them. Great
    circles between these are within `CHORD_PIX` of the border, measured in pixels across it.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    pixels, segment = halved(start, end, lambda low, high, _: (0.5 * (low + high), _bent(wcs, low, high)))
    sky = wcs.to_sky(pixels[:, 0], pixels[:, 1])
    ends = np.cumsum([len(ring) for ring in rings])[:-1]
    return [_without_repeats(ring) for ring in np.split(sky, np.searchsorted(segment, ends))]


def halved(
    start: FloatArray,
    end: FloatArray,
    middles: Callable[[FloatArray, FloatArray, IntArray], tuple[FloatArray, BoolArray]],
) -> tuple[FloatArray, IntArray]:
    """Halve segments from start to end, (n, k), until none is bent.

    Return the starts of all pieces in order, (m, k), and the segment of each, (m,). ``middles`` is given ends of pieces
    and their segments, and returns the middles of the pieces, and which of them are bent.
    """
    place = np.arange(len(start), dtype=float)
    nodes, places, span = [start], [place], 0.5
    while len(start):
        middle, bent = middles(start, end, place.astype(np.int64))
        start, end, middle, place = start[bent], end[bent], middle[bent], place[bent]
        start, end = np.concatenate([start, middle]), np.concatenate([middle, end])
        nodes.append(middle)
        places.append(place + span)
        place = np.concatenate([place, places[-1]])
        span *= 0.5
    along = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(nodes)[along], np.concatenate(places)[along].astype(np.int64)


def _bent(wcs: CelestialWcs, start: FloatArray, end: FloatArray) -> BoolArray:
    """Return which segments (n, 2) to (n, 2) depart too far from the great circle between their ends."""
    n = len(start)
    length = np.linalg.norm(end - start, axis=1)
    checks = int(max(7, np.ceil(length.max() / _CHECK_EVERY_PIX)))
    t = np.linspace(0.0, 1.0, checks + 2)[:, None, None]
    across = (end - start)[:, ::-1] * [1.0, -1.0] / length[:, None]  # one pixel to the side
    middle = 0.5 * (start + end)
    pixels = np.concatenate([start + t * (end - start), [middle + across, middle - across, middle]])
    sky = wcs.to_sky(pixels[..., 0].ravel(), pixels[..., 1].ravel()).reshape(-1, n, 3)
    on_line, left, right, centre = sky[: checks + 2], sky[-3], sky[-2], sky[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        pole = normalised(np.cross(on_line[0], on_line[-1] - on_line[0]))
        off_rad = np.nanmax(np.abs((on_line * pole).sum(axis=2)), axis=0, initial=0.0)
        # A pixel may be off the sky on one side of the border.
        scale = np.fmax(*(np.abs(((side - centre) * pole).sum(axis=1)) for side in (left, right)))
        bent = (off_rad > CHORD_PIX * scale) & (length > 2.0 * _SHORTEST_PIX)
    return np.asarray(bent, dtype=np.bool_)


def _without_repeats(vectors: FloatArray) -> FloatArray:
    """Drop vertices off the sky and those that repeat the one before (a pole that is a whole line in pixels)."""
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    apart = np.abs(vectors - np.roll(vectors, 1, axis=0)).max(axis=1, initial=0.0) > 1e-13
    kept: FloatArray = vectors[apart]
    return kept
