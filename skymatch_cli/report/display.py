"""The WCS on which a mosaic is drawn: square pixels, north up, all footprints inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.model import FloatArray
from skymatch_cli.sky.sphere import lon_lat, unit_vectors
from skymatch_cli.sky.tangent import plane_wcs

_GNOMONIC_REACH_DEG = 40.0  # beyond it a gnomonic plane stretches shapes by more than 1.3 across
_MARGIN = 0.02  # of the longer side, on every side


@dataclass(frozen=True, slots=True)
class DisplayFrame:
    """The frame of a picture of the sky, north up, east to the left."""

    wcs: Any  # ICRS; gnomonic, or zenithal equal-area for fields wider than 80 degrees
    shape: tuple[int, int]  # (ny, nx)

    @property
    def scale_arcsec(self) -> float:
        """Side of a pixel of the picture, in arcsec."""
        return float(self.wcs.wcs.cd[1, 1]) * 3600

    def to_pixel(self, vectors: FloatArray) -> FloatArray:
        """Convert ICRS unit vectors (n, 3) to pixels (n, 2) of the picture; NaN where they can't be shown."""
        finite = np.isfinite(vectors).all(axis=1)
        pixels = np.full((len(vectors), 2), np.nan)
        pixels[finite] = self.wcs.wcs_world2pix(_to_degrees(vectors[finite]), 0) if finite.any() else 0.0
        return pixels

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Convert pixels of the picture, (n,) each, to ICRS unit vectors (n, 3)."""
        return unit_vectors(*np.radians(self.wcs.wcs_pix2world(np.column_stack([x, y]), 0)).T)


def frame_around(rings: Sequence[FloatArray], max_side: int) -> DisplayFrame:
    """Make the frame that contains all rings (n, 3) of ICRS unit vectors, with a longer side of ``max_side`` pixels."""
    vectors = np.concatenate([np.asarray(ring, float) for ring in rings])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    centre = vectors.mean(axis=0)
    norm = float(np.linalg.norm(centre))
    centre = centre / norm if norm > 1e-6 else vectors[0]
    reach_deg = float(np.degrees(np.arccos(np.clip((vectors @ centre).min(), -1, 1))))
    north_up = np.diag([-1.0, 1.0])
    place, projection = _to_degrees(centre[None])[0], "TAN" if reach_deg < _GNOMONIC_REACH_DEG else "ZEA"
    unit_scale = plane_wcs(place, (1.0, 1.0), north_up, projection)
    xy = unit_scale.wcs_world2pix(_to_degrees(vectors), 0)
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = _MARGIN * float((high - low).max())
    low, high = low - margin, high + margin
    step = float((high - low).max()) / max_side
    nx, ny = (max(1, int(np.ceil(side / step))) for side in high - low)
    origin = (float(-low[0] / step + 0.5), float(-low[1] / step + 0.5))
    return DisplayFrame(plane_wcs(place, origin, step * north_up, projection), (ny, nx))


def _to_degrees(vectors: FloatArray) -> FloatArray:
    lon, lat = lon_lat(vectors)
    return np.degrees(np.column_stack([lon % (2 * np.pi), lat]))
