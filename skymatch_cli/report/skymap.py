"""The map of the report, footprints and overlaps as SVG paths coloured by pull."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.model import FloatArray
from skymatch_cli.output.printable import printable

from .charts import simplified, svg_path
from .overlaps import OverlapColumns, pull_class
from .scene import Scene, drawn, frame_around
from .tables import MOST_ROWS

_SIDE = 1000
_FONT = 20.0  # size of the names of frames
_DRAWN_OF_PILED = 12


@dataclass(frozen=True, slots=True)
class FrameName:
    """The name of a frame: where its middle is drawn, and a shorter form for narrow screens."""

    x: float
    y: float
    text: str
    short: str


@dataclass(frozen=True, slots=True)
class SkyMap:
    """Shapes in a box of ``width`` × ``height``."""

    width: int
    height: int
    frames: list[tuple[int, str]]  # (image, path)
    names: list[FrameName]  # of the frames that have room for one
    # (overlap, colour class, path): class -1: not used. The larger ones come first, so that the small ones lie on top
    overlaps: list[tuple[int, int, str]]
    arcsec_per_unit: float  # scale of the drawing
    piled: bool  # whether the overlaps hide one another; then only the worst are drawn
    left_out: str  # what is not shown, "" if all is


def sky_map(scene: Scene, columns: OverlapColumns, labels: tuple[str, ...]) -> SkyMap:
    """Lay out the map of a scene of images with these labels."""
    n_images = len(scene.infos)
    frame = frame_around(scene.rings, _SIDE)
    borders = [
        [simplified(drawn(ring, frame)) for ring in scene.image_rings(i)] for i in range(min(n_images, MOST_ROWS))
    ]
    rings = scene.overlap_rings(columns.a, columns.b)
    is_piled = piled(columns, borders, frame.scale_arcsec)
    most = _DRAWN_OF_PILED if is_piled else MOST_ROWS
    worst = set(columns.worst_first[:most].tolist())
    overlaps = [
        (k, pull_class(columns.pull[k]), _path([simplified(drawn(ring, frame)) for ring in rings[k]]))
        for k in columns.drawing_order.tolist()
        if k in worst and rings[k]
    ]
    height, width = frame.shape
    return SkyMap(
        width=width,
        height=height,
        frames=[(i, _path(border)) for i, border in enumerate(borders)],
        names=frame_names(borders, labels, _FONT),
        overlaps=overlaps,
        arcsec_per_unit=frame.scale_arcsec,
        piled=is_piled,
        left_out=_left_out(n_images, len(columns.a), most),
    )


def piled(columns: OverlapColumns, borders: Sequence[Sequence[FloatArray]], arcsec_per_unit: float) -> bool:
    """Return whether the overlaps together are larger than the frames as drawn, and hide one another on a map."""
    import shapely

    drawable = [ring for border in borders for ring in border if np.isfinite(ring).all()]
    area = sum(shapely.Polygon(ring).area for ring in drawable)
    return bool(columns.area_arcmin2.sum() > area * (arcsec_per_unit / 60) ** 2)


def map_names(labels: tuple[str, ...], most: int) -> tuple[str, ...]:
    """Return names of at most so many characters, for the frames of the map.

    They have no suffix; if they are too long, not what all begin with; else they are the numbers of the images.

    Examples
    --------
    >>> map_names(("m17_red_001.fits", "m17_red_002.fits"), 11)
    ('m17_red_001', 'm17_red_002')
    >>> map_names(("m17_red_001.fits", "m17_red_002.fits"), 8)
    ('001', '002')
    >>> map_names(("first.fits", "second_one.fits"), 8)
    ('#0', '#1')
    >>> map_names(("panel1.fit", "panel2.FTS.gz"), 8)
    ('panel1', 'panel2')
    """
    stems = [re.split(r"\.(?:fits?|fts|asdf)\b", label.rpartition("/")[2], flags=re.IGNORECASE)[0] for label in labels]
    start = os.path.commonprefix(stems)  # noqa: RUF071 (letters that all have)
    cut = max(start.rfind(mark) for mark in "_-. ") + 1
    for names in (stems, [stem[cut:] for stem in stems]):
        if all(names) and len(set(names)) == len(names) and max(map(len, names)) <= most:
            return tuple(names)
    return tuple(f"#{i}" for i in range(len(labels)))


def _path(rings: Sequence[FloatArray]) -> str:
    return "".join(svg_path(ring) for ring in rings)


def _left_out(n_images: int, n_overlaps: int, most: int) -> str:
    parts = []
    if n_images > MOST_ROWS:
        parts.append(f"The first {MOST_ROWS} of {n_images} images are drawn.")
    if n_overlaps > most:
        parts.append(f"The {most} of {n_overlaps} overlaps with the largest pulls are drawn.")
    return " ".join(parts)


def frame_names(borders: Sequence[Sequence[FloatArray]], labels: tuple[str, ...], font: float) -> list[FrameName]:
    """Place the names of the frames that have room for one: in the middle or towards a corner, where no other name is.

    ``font`` is the size of the letters in the units of the drawing. No names where a frame can't be drawn.
    """
    whole = [np.concatenate(border) for border in borders if border]
    if len(whole) < len(borders) or not all(np.isfinite(points).all() for points in whole):
        return []
    letter = 0.58 * font
    typical = float(np.median([np.ptp(points[:, 0]) for points in whole]))
    names = map_names(tuple(map(printable, labels)), max(2, int(0.9 * typical / letter)))
    taken: list[tuple[float, float, float, float]] = []
    placed = []
    for i, points in enumerate(whole):
        size = np.array([letter * len(names[i]), 1.2 * font])
        for x, y in _places(points, size):
            box = (x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
            if not any(_meet(box, other) for other in taken):
                taken.append(box)
                placed.append(FrameName(round(x, 1), round(y, 1), names[i], f"#{i}"))
                break
    return placed


def _places(points: FloatArray, size: FloatArray) -> list[tuple[float, float]]:
    """Return where a name of this size may stand in a frame: the middle first, then towards the corners."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = np.ptp(points, axis=0) / 2 - size / 2 - 6
    if (reach < 0).any():
        return []
    steps = np.array([[0, 0], [-1, -1], [1, -1], [-1, 1], [1, 1], [0, -1], [0, 1]])
    places: list[tuple[float, float]] = [(x, y) for x, y in (middle + 0.85 * steps * reach).tolist()]
    return places


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Return whether two boxes (left, top, right, bottom) meet."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
