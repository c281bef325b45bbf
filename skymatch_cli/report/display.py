"""The WCS on which a mosaic is drawn: square pixels, north up, all footprints inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.model import FloatArray

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
        return float(self.wcs.wcs.cdelt[1]) * 3600

    def to_pixel(self, vectors: FloatArray) -> FloatArray:
        """Convert ICRS unit vectors (n, 3) to pixels (n, 2) of the picture; NaN where they can't be shown."""
        finite = np.isfinite(vectors).all(axis=1)
        pixels = np.full((len(vectors), 2), np.nan)
        pixels[finite] = self.wcs.wcs_world2pix(_to_degrees(vectors[finite]), 0) if finite.any() else 0.0
        return pixels

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Convert pixels of the picture, (n,) each, to ICRS unit vectors (n, 3)."""
        return _to_vectors(self.wcs.wcs_pix2world(np.column_stack([x, y]), 0))


def frame_around(rings: Sequence[FloatArray], max_side: int) -> DisplayFrame:
    """Make the frame that contains all rings, with a longer side of ``max_side`` pixels.

    Parameters
    ----------
    rings : sequence of (n, 3) float64
        Borders on the sky as ICRS unit vectors.
    """
    vectors = np.concatenate([np.asarray(ring, float) for ring in rings])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    centre = vectors.mean(axis=0)
    norm = float(np.linalg.norm(centre))
    centre = centre / norm if norm > 1e-6 else vectors[0]
    reach_deg = float(np.degrees(np.arccos(np.clip((vectors @ centre).min(), -1, 1))))
    unit_scale = _zenithal("TAN" if reach_deg < _GNOMONIC_REACH_DEG else "ZEA", centre, (1.0, 1.0), 1.0)
    xy = unit_scale.wcs_world2pix(_to_degrees(vectors), 0)
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = _MARGIN * float((high - low).max())
    low, high = low - margin, high + margin
    step = float((high - low).max()) / max_side
    nx, ny = (max(1, int(np.ceil(side / step))) for side in high - low)
    origin = (float(-low[0] / step + 0.5), float(-low[1] / step + 0.5))
    return DisplayFrame(_zenithal(unit_scale.wcs.ctype[0][-3:], centre, origin, step), (ny, nx))


def _zenithal(projection: str, centre: FloatArray, crpix: tuple[float, float], step_deg: float) -> Any:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = _to_degrees(centre[None, :])[0]
    wcs.wcs.crpix = list(crpix)
    wcs.wcs.cdelt = [-step_deg, step_deg]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def _to_degrees(vectors: FloatArray) -> FloatArray:
    ra = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360
    dec = np.degrees(np.arctan2(vectors[:, 2], np.hypot(vectors[:, 0], vectors[:, 1])))
    return np.column_stack([ra, dec])


def _to_vectors(degrees: FloatArray) -> FloatArray:
    ra, dec = np.radians(degrees).T
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
