"""Convert between the celestial frames of FITS headers and ICRS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from skymatch_cli.model import FloatArray
from skymatch_cli.sky.sphere import lon_lat, unit_vectors

_BY_AXIS = {"GLON": "galactic", "SLON": "supergalactic", "ELON": "ecliptic"}
_OF_ASTROPY = {"ecliptic": "barycentricmeanecliptic"}  # the other names are astropy's own
_OF_A_BODY = re.compile(r"[A-Z]{2}LN")  # helioprojective, heliographic, planetary
_EQUATORIAL = {"ICRS": "icrs", "FK5": "fk5", "FK4": "fk4", "FK4-NO-E": "fk4noeterms"}


@dataclass(frozen=True, slots=True)
class SkyFrame:
    """A celestial frame: its name, and the equinox in years (None: that of the frame's definition)."""

    name: str
    equinox: float | None = None

    @property
    def rigid(self) -> bool:
        """Whether the frame is a rotation of ICRS. FK4 is not: its positions include aberration (E-terms)."""
        return not self.name.startswith("fk4")

    @property
    def on_a_body(self) -> bool:
        """True for coordinates on the Sun or a planet, which are not converted to ICRS."""
        return bool(_OF_A_BODY.fullmatch(self.name))

    def __str__(self) -> str:
        return self.name if self.equinox is None else f"{self.name} of {self.equinox:g}"

    def to_icrs(self, vectors: FloatArray) -> FloatArray:
        """Convert unit vectors (n, 3) of this frame to ICRS."""
        return _converted(vectors, self, ICRS)

    def from_icrs(self, vectors: FloatArray) -> FloatArray:
        """Convert ICRS unit vectors (n, 3) to this frame."""
        return _converted(vectors, ICRS, self)


ICRS = SkyFrame("icrs")


def frame_of_header(longitude_type: str, radesys: str, equinox: float) -> SkyFrame:
    """Return the frame that the longitude's CTYPE (``RA--``), RADESYS ("" without) and EQUINOX (NaN without) name.

    The rules are those of FITS WCS paper II (Calabretta & Greisen 2002), section 3.1: RADESYS applies to equatorial
    axes only; without it the equinox decides (FK4 before 1984, else FK5), and without that it is ICRS. Ecliptic axes
    are the mean ecliptic of the equinox, seen from the barycentre. ValueError: the frame is not fixed on the sky, or it
    is unknown.
    """
    if not (np.isnan(equinox) or 1800.0 <= equinox <= 2200.0):
        raise ValueError(f"EQUINOX {equinox:g} is not a year of a celestial frame")
    if longitude_type == "RA--":
        return _equatorial_frame(radesys.strip().upper(), equinox)
    if _OF_A_BODY.fullmatch(longitude_type):
        return SkyFrame(longitude_type)
    name = _BY_AXIS.get(longitude_type)
    if name is None:
        raise ValueError(f"longitude axis {longitude_type!r} is not in a frame that is fixed on the sky")
    return SkyFrame(name, None if np.isnan(equinox) or name != "ecliptic" else equinox)


def _equatorial_frame(radesys: str, equinox: float) -> SkyFrame:
    if not radesys:
        if np.isnan(equinox):
            return ICRS
        radesys = "FK4" if equinox < 1984.0 else "FK5"
    name = _EQUATORIAL.get(radesys)
    if name is None:
        raise ValueError(f"RADESYS {radesys!r} is not one of {', '.join(_EQUATORIAL)}")
    return SkyFrame(name, None if np.isnan(equinox) or name == "icrs" else equinox)


def _astropy_frame(frame: SkyFrame) -> Any:
    from astropy import coordinates
    from astropy.time import Time

    made = coordinates.frame_transform_graph.lookup_name(_OF_ASTROPY.get(frame.name, frame.name))
    if frame.equinox is None:
        return made()
    return made(equinox=Time(frame.equinox, format="byear" if frame.name.startswith("fk4") else "jyear"))


def _converted(vectors: FloatArray, source: SkyFrame, target: SkyFrame) -> FloatArray:
    """Convert unit vectors (n, 3) to ICRS, or from there; those on a body stay as they are."""
    frame = source if target == ICRS else target
    if frame == ICRS or frame.on_a_body:
        return vectors
    if not frame.rigid:
        return _transformed(vectors, _astropy_frame(source), _astropy_frame(target))
    rotation = _rotation_to_icrs(frame) if target == ICRS else _rotation_to_icrs(frame).T
    # Not a matrix product of BLAS, whose rounding depends on where a row stands in the batch.
    out: FloatArray = np.einsum("ij,nj->ni", rotation, vectors)
    return out


def _transformed(vectors: FloatArray, source: Any, target: Any) -> FloatArray:
    """Convert unit vectors (n, 3) from one astropy frame to another; NaN rows stay NaN."""
    from astropy import units
    from astropy.coordinates import UnitSphericalRepresentation

    out = np.full(vectors.shape, np.nan)
    known = np.isfinite(vectors).all(axis=1)
    if known.any():
        lon, lat = lon_lat(vectors[known])
        source_positions = source.realize_frame(UnitSphericalRepresentation(lon * units.rad, lat * units.rad))
        positions = source_positions.transform_to(target).represent_as(UnitSphericalRepresentation)
        out[known] = unit_vectors(positions.lon.to_value(units.rad), positions.lat.to_value(units.rad))
    return out


@lru_cache(maxsize=256)
def _rotation_to_icrs(frame: SkyFrame) -> FloatArray:
    """Return the 3x3 rotation from a rigid frame to ICRS."""
    columns = _transformed(np.eye(3), _astropy_frame(frame), _astropy_frame(ICRS)).T
    left, _, right = np.linalg.svd(columns)  # the nearest rotation: removes the rounding of the angles
    rotation: FloatArray = left @ right
    rotation.setflags(write=False)
    return rotation
