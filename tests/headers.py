"""Celestial FITS headers of every kind, for tests of the geometry."""

from __future__ import annotations

from pathlib import Path

import astropy.wcs
import numpy as np
from astropy.io import fits

from skymatch_cli.sky.celestial import FitsWcs, wcs_of_cards

ASTROPY_DATA = Path(astropy.wcs.__file__).parent / "tests" / "data"


def fits_wcs(header: fits.Header, shape: tuple[int, int], fobj: fits.HDUList | None = None, where: str = "") -> FitsWcs:
    text = header.tostring(endcard=False, padding=False).encode("ascii", "replace")
    return wcs_of_cards(text, shape, fobj, where)


def celestial_header(
    *,
    nx: int = 100,
    ny: int = 80,
    lon: float = 150.0,
    lat: float = 20.0,
    scale: float = 1e-3,
    projection: str = "TAN",
    axes: tuple[str, str] = ("RA", "DEC"),
    rotation: float = 0.0,
    mirrored: bool = False,
    cards: dict[str, object] | None = None,
) -> fits.Header:
    """A header with its reference point in the middle; ``scale`` in degrees, ``axes`` may be Dec first."""
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    cd = scale * np.array([[-cos if not mirrored else cos, sin], [sin if not mirrored else -sin, cos]])
    lon_first = axes[0] in ("RA", "GLON", "ELON", "SLON")
    header = fits.Header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, nx, ny
    for axis, (name, value) in enumerate(zip(axes, (lon, lat) if lon_first else (lat, lon), strict=True), 1):
        header[f"CTYPE{axis}"] = f"{name:-<5}{projection}"
        header[f"CRVAL{axis}"] = value
        header[f"CRPIX{axis}"] = ((nx, ny)[axis - 1] + 1) / 2
        for pixel in (1, 2):
            header[f"CD{axis}_{pixel}"] = cd[axis - 1 if lon_first else 2 - axis, pixel - 1]
    header.update(cards or {})
    return header


def sip_cards(nx: int, pixels: float = 2.0) -> dict[str, object]:
    """SIP terms that move the edge of a frame of nx columns by some pixels."""
    k = pixels / (nx / 2) ** 2
    cards: dict[str, object] = {"A_ORDER": 3, "B_ORDER": 3, "A_2_0": k, "A_0_2": 0.3 * k, "B_2_0": 0.2 * k}
    return cards | {"B_0_2": -k, "A_3_0": k / nx, "B_1_2": k / nx}


def tpv_cards(size_deg: float) -> dict[str, object]:
    """TPV terms of about a percent at the edge of a field."""
    k = 0.01 / size_deg
    return {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_4": k, "PV1_6": 0.5 * k, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_5": -k}


def make_wcs(**options: object) -> FitsWcs:
    header = celestial_header(**options)  # type: ignore[arg-type]
    return fits_wcs(header, (header["NAXIS2"], header["NAXIS1"]))


def all_sky_wcs(projection: str, nx: int = 180, axes: tuple[str, str] = ("GLON", "GLAT")) -> FitsWcs:
    """A map of the whole sky, twice as wide as high."""
    fits_in = 0.9 if projection in ("AIT", "MOL") else 1.0
    return make_wcs(nx=nx, ny=nx // 2, lon=0.0, lat=0.0, scale=360.0 / nx * fits_in, projection=projection, axes=axes)


def hst_chip() -> FitsWcs:
    """One ACS chip with fourth-order SIP; the pixels were taken out of the file, the header is real."""
    header = fits.getheader(ASTROPY_DATA / "j94f05bgq_flt.fits", 1)
    return fits_wcs(header, (2048, 4096))


def lookup_wcs() -> FitsWcs:
    """SIP with lookup tables of the distortion and of the detector's columns."""
    with fits.open(ASTROPY_DATA / "dist_lookup.fits.gz") as hdus:
        return fits_wcs(hdus[1].header, hdus[1].shape, hdus)


def pixel_grid(wcs: FitsWcs, n: int = 21) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions from edge to edge of the frame."""
    ny, nx = wcs.shape
    x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, n), np.linspace(-0.5, ny - 0.5, n))
    return x.ravel(), y.ravel()
