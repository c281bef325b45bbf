"""The map of the report: footprints and overlaps as SVG paths, coloured by residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skymatch_cli.model import FloatArray

from .charts import nice_below, residual_class, residual_scale, simplified, svg_path
from .display import frame_around
from .pagedata import MOST_ROWS, OverlapColumns
from .scene import Scene, drawn

_SIDE = 1000


@dataclass(frozen=True, slots=True)
class SkyMap:
    """Shapes in a box of ``width`` × ``height``.

    Attributes
    ----------
    width, height : int
    frames : list of (image, path)
    overlaps : list of (overlap, colour class, path)
        Class -1: not used. The larger ones come first, so that the small ones lie on top.
    scale, unit : str
        Residual at the ends of the colours.
    bar_length, bar_text : str
        A bar that shows an angle.
    arcsec_per_unit : float
        Scale of the drawing.
    left_out : str
        What is not shown, "" if all is.
    """

    width: int
    height: int
    frames: list[tuple[int, str]]
    overlaps: list[tuple[int, int, str]]
    scale: str
    unit: str
    bar_length: str
    bar_text: str
    arcsec_per_unit: float
    left_out: str


def sky_map(scene: Scene, columns: OverlapColumns) -> SkyMap:
    """Lay out the map of a scene."""
    n_images = len(scene.infos)
    frame = frame_around([ring for i in range(n_images) for ring in scene.image_rings(i)], _SIDE)
    height, width = frame.shape

    def path(rings: Sequence[FloatArray]) -> str:
        return "".join(svg_path(simplified(drawn(ring, frame))) for ring in rings)

    scale = residual_scale(columns.residual)
    rings = scene.overlap_rings(columns.a, columns.b)
    worst = set(columns.worst_first[:MOST_ROWS].tolist())
    overlaps = [
        (k, residual_class(columns.residual[k], scale), path(rings[k]))
        for k in columns.drawing_order.tolist()
        if k in worst and rings[k]
    ]
    bar_arcsec = nice_below(width * frame.scale_arcsec / 5)
    text, bar_arcsec = angle_text(bar_arcsec)
    missing = max(n_images, len(columns.a)) > MOST_ROWS
    return SkyMap(
        width=width,
        height=height,
        frames=[(i, path(scene.image_rings(i))) for i in range(min(n_images, MOST_ROWS))],
        overlaps=overlaps,
        scale=f"{scale:g}",
        unit=columns.unit,
        bar_length=f"{bar_arcsec / frame.scale_arcsec:.1f}",
        bar_text=text,
        arcsec_per_unit=frame.scale_arcsec,
        left_out=f"The first {MOST_ROWS} images and the {MOST_ROWS} overlaps with the largest pulls are shown."
        if missing
        else "",
    )


def angle_text(below_arcsec: float) -> tuple[str, float]:
    """A round angle not above the given one: as text and in arcsec."""
    for unit, arcsec in (("°", 3600.0), ("′", 60.0)):
        if below_arcsec >= arcsec:
            angle = nice_below(below_arcsec / arcsec)
            return f"{angle:g}{unit}", angle * arcsec
    angle = nice_below(below_arcsec)
    return f"{angle:g}″", angle
