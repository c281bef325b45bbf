"""DS9 regions of footprints and overlaps, through astropy's ``regions``."""

from __future__ import annotations

from typing import Any

import numpy as np

from skymatch_cli.errors import missing_extra
from skymatch_cli.model import FloatArray, ImageInfo
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import Report
from skymatch_cli.report.overlaps import OverlapColumns, class_colours, pull_class
from skymatch_cli.report.scene import scene
from skymatch_cli.sky.sphere import lon_lat

_FRAME_COLOUR = "white"
_UNUSED_COLOUR = "gray"


def ds9_regions(report: Report, infos: tuple[ImageInfo, ...]) -> str:
    """Polygons of every image, named, and of every overlap, coloured by pull and named ``a | b: residual``.

    UsageError if the package of the extra ``regions`` is missing; InputError if an image has no usable WCS.
    """
    try:
        from regions import Regions
    except ImportError as error:
        raise missing_extra("--to regions", error, "regions") from None
    place = scene(infos)
    columns, colours = OverlapColumns.of(report.overlaps), class_colours()
    made = [_polygon(ring, report.labels[i], _FRAME_COLOUR) for i in range(len(infos)) for ring in place.image_rings(i)]
    rings = place.overlap_rings(columns.a, columns.b)
    for k, pair in enumerate(zip(columns.a.tolist(), columns.b.tolist(), strict=True)):
        residual = float(columns.residual[k])
        used = np.isfinite(residual)
        text = (
            f"{report.labels[pair[0]]} | {report.labels[pair[1]]}: {f'{residual:.4g}' if used else columns.status[k]}"
        )
        colour = colours[pull_class(float(columns.pull[k]))] if used else _UNUSED_COLOUR
        made += [_polygon(ring, text, colour) for ring in rings[k]]
    text = Regions(made).serialize(format="ds9", precision=8)
    return str(text)


def _polygon(ring: FloatArray, text: str, colour: str) -> Any:
    from astropy.coordinates import SkyCoord
    from regions import PolygonSkyRegion, RegionMeta, RegionVisual

    lon, lat = lon_lat(ring)
    harmless = printable(text).replace("{", "(").replace("}", ")")  # braces hold the text
    return PolygonSkyRegion(
        SkyCoord(lon, lat, unit="rad"), meta=RegionMeta(text=harmless), visual=RegionVisual(color=colour)
    )
