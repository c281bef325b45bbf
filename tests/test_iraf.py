"""TNX and ZPX: positions are those of the formulas, computed here from the plane of the projection on."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.polynomial import chebyshev, legendre, polynomial

from skymatch_cli.errors import InputError
from skymatch_cli.sky.sphere import lon_lat

from .headers import celestial_header, fits_wcs, pixel_grid

SHAPE = (80, 100)
LIMITS = (-0.06, 0.05, -0.04, 0.045)
EVALUATED = {1: chebyshev.chebval2d, 2: legendre.legval2d, 3: polynomial.polyval2d}


def surface(kind: int, nx: int, ny: int, cross: int, seed: int = 0) -> tuple[str, np.ndarray]:
    """A surface as IRAF writes it, and its terms."""
    rng = np.random.default_rng(seed)
    terms, said = np.zeros((nx, ny)), [f"{kind}.", f"{nx}.", f"{ny}.", f"{cross}.", *map(repr, LIMITS)]
    for j in range(ny):
        for i in range(nx):
            if cross == 1 or (cross == 2 and i + j < max(nx, ny)) or (cross == 0 and 0 in {i, j}):
                size = 2e-4 if kind != 3 else 2e-4 / 0.05 ** (i + j)  # a fifth of a pixel each, at the edge
                terms[i, j] = float(f"{rng.normal(0, size):.12g}")
                said.append(repr(float(terms[i, j])).upper())
    return " ".join(said), terms


def iraf_header(code: str, lngcor: str, latcor: str, *, more: str = "", **options: object) -> fits.Header:
    """WAT strings are broken after 68 characters, wherever that is."""
    header = celestial_header(projection=code, rotation=25.0, **options)  # type: ignore[arg-type]
    first = str(header["CTYPE1"]).startswith("RA")
    lng = f'wtype={code.lower()} axtype=ra lngcor = "{lngcor} "'
    lat = f'wtype={code.lower()} axtype=dec {more}latcor = "{latcor} "'
    for axis, text in enumerate((lng, lat) if first else (lat, lng), start=1):
        for k, start in enumerate(range(0, len(text), 68), start=1):
            header.append(fits.Card.fromstring(f"WAT{axis}_{k:03d}= '{text[start : start + 68]}'".ljust(80)))
    return header


def expected(header: fits.Header, kind: int, corrections: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The linear part by hand, the surface by numpy, and the projection by wcslib, from its plane to the sky."""
    dx, dy = x + 1 - header["CRPIX1"], y + 1 - header["CRPIX2"]
    plane = [header[f"CD{axis}_1"] * dx + header[f"CD{axis}_2"] * dy for axis in (1, 2)]
    dec_first = str(header["CTYPE1"]).startswith("DEC")
    xi, eta = plane[::-1] if dec_first else plane
    u, v = xi, eta
    if kind != 3:
        u = (2 * xi - LIMITS[0] - LIMITS[1]) / (LIMITS[1] - LIMITS[0])
        v = (2 * eta - LIMITS[2] - LIMITS[3]) / (LIMITS[3] - LIMITS[2])
    xi, eta = (along + EVALUATED[kind](u, v, terms) for along, terms in zip((xi, eta), corrections, strict=True))
    there = WCS(naxis=2)
    code = "TAN" if "TNX" in str(header["CTYPE1"]) else "ZPN"
    there.wcs.ctype = [f"RA---{code}", f"DEC--{code}"]
    there.wcs.crval = [header["CRVAL2"], header["CRVAL1"]] if dec_first else [header["CRVAL1"], header["CRVAL2"]]
    there.wcs.crpix, there.wcs.cdelt = [1.0, 1.0], [1.0, 1.0]
    if code == "ZPN":
        there.wcs.set_pv([(2, 1, 1.0), (2, 3, 42.0)])
    return there.wcs_pix2world(np.column_stack([xi, eta]), 0)


@pytest.mark.parametrize("axes", [("RA", "DEC"), ("DEC", "RA")])
@pytest.mark.parametrize(("nx", "ny", "cross"), [(3, 3, 2), (4, 4, 2), (5, 3, 2), (4, 4, 1), (3, 5, 0), (6, 6, 2)])
@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("code", ["TNX", "ZPX"])
def test_positions(code: str, kind: int, nx: int, ny: int, cross: int, axes: tuple[str, str]) -> None:
    (lngcor, of_lng), (latcor, of_lat) = surface(kind, nx, ny, cross), surface(kind, nx, ny, cross, seed=1)
    more = "projp1=1. projp3=42. " if code == "ZPX" else ""
    header = iraf_header(code, lngcor, latcor, more=more, axes=axes)
    wcs = fits_wcs(header, SHAPE)
    x, y = pixel_grid(wcs)
    there = expected(header, kind, [of_lng, of_lat], x, y)
    sky = wcs.to_sky(x, y)
    np.testing.assert_allclose(np.degrees(np.column_stack(lon_lat(sky))), there, rtol=0, atol=1e-10)
    again = np.column_stack(wcs.to_pixel(sky))
    np.testing.assert_allclose(again, np.column_stack([x, y]), atol=1e-5)


def test_without_corrections_it_is_the_plain_projection() -> None:
    x, y = np.array([3.0, 70.0]), np.array([9.0, 50.0])
    plain = fits_wcs(celestial_header(), SHAPE).to_sky(x, y)
    np.testing.assert_allclose(
        fits_wcs(celestial_header(projection="TNX"), SHAPE).to_sky(x, y), plain, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "3. 3. 3. 2. 0 1 0 1",
            "3. 900. 3. 2. 0 1 0 1 5",
            "7. 1. 1. 2. 0 1 0 1 5",
            "1. 2. 1. 2. 1 1 0 1 5 5",
        ),
        "3. 9. 9. 1. 0 1 0 1" + 81 * " 1",
    ],
)
def test_surfaces_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="its WCS can't be used"):
        fits_wcs(iraf_header("TNX", text, text), SHAPE)


def test_the_words_of_iraf_alone_mean_nothing() -> None:
    """As in many files of plain projections; wcslib must not see them, it would end Python on some."""
    header = iraf_header("TNX", surface(3, 4, 4, 2)[0], surface(3, 4, 4, 2)[0])
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    x, y = np.array([3.0, 70.0]), np.array([9.0, 50.0])
    plain = fits_wcs(celestial_header(rotation=25.0), SHAPE).to_sky(x, y)
    np.testing.assert_allclose(fits_wcs(header, SHAPE).to_sky(x, y), plain, rtol=0, atol=1e-15)
