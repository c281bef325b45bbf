"""Small synthetic images on the sky, for tests: what the image sees is a function of the position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, Sip

ARCSEC = 1 / 3600


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image: where it looks, its WCS flavour, its sky and its noise."""

    x: float = 0.0  # arcsec east of the field's centre, on the field's tangent plane
    y: float = 0.0
    sky: float = 100.0
    nx: int = 40
    ny: int = 40
    scale: float = 1.0  # arcsec a pixel
    rotation: float = 0.0
    mirrored: bool = False
    dec_first: bool = False
    projection: str = "TAN"
    sip: bool = False
    ra: float = 150.0  # the field's centre
    dec: float = 20.0
    noise: float = 0.0
    seed: int = 0
    dtype: str = "f8"
    header: dict[str, Any] = field(default_factory=lambda: {"BUNIT": "electron", "EXPTIME": 1.0})

    def but(self, **changes: Any) -> Frame:
        return replace(self, **changes)

    def wcs(self) -> WCS:
        plane = tangent(self.ra, self.dec)
        ra, dec = plane.wcs_pix2world([[-self.x, self.y]], 0)[0]
        w = WCS(naxis=2)
        axes = ["DEC", "RA"] if self.dec_first else ["RA", "DEC"]
        tail = self.projection + ("-SIP" if self.sip else "")
        w.wcs.ctype = [f"{a:-<5}{tail}" for a in axes]
        w.wcs.crval = [dec, ra] if self.dec_first else [ra, dec]
        if self.projection == "CAR":  # a cylindrical map is sheared away from its equator: put that here
            w.wcs.crval = [ra, 0.0] if not self.dec_first else [0.0, ra]
        w.wcs.crpix = [(self.nx + 1) / 2, (self.ny + 1) / 2]
        c, n, step = np.cos(np.radians(self.rotation)), np.sin(np.radians(self.rotation)), self.scale * ARCSEC
        cd = step * np.array([[-c, n], [n, c]]) @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])
        w.wcs.cd = cd[::-1] if self.dec_first else cd
        w.wcs.cunit = ["deg", "deg"]
        if self.projection == "CAR":
            w.wcs.crpix = [(self.nx + 1) / 2, (self.ny + 1) / 2 - dec / step]
        if self.sip:
            k = 2.0 / (self.nx / 2) ** 2  # two pixels at the edge
            a, b = np.zeros((3, 3)), np.zeros((3, 3))
            a[2, 0], a[0, 2], b[2, 0], b[0, 2] = k, 0.3 * k, 0.2 * k, -k
            w.sip = Sip(a, b, None, None, w.wcs.crpix)
        if self.projection == "TPV":  # a polynomial that leaves the positions as they are
            w.wcs.set_pv([(1, 1, 1.0), (2, 1, 1.0)])
        w.wcs.set()
        return w

    def pixels(self, scene: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        image = np.full((self.ny, self.nx), self.sky)
        if scene is not None:
            y, x = np.mgrid[: self.ny, : self.nx].astype(float)
            world = self.wcs().all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0)
            if self.dec_first:
                world = world[:, ::-1]
            on_plane = tangent(self.ra, self.dec).wcs_world2pix(world, 0)
            image = image + scene(-on_plane[:, 0], on_plane[:, 1]).reshape(image.shape)
        if self.noise:
            image = image + np.random.default_rng(self.seed).normal(0, self.noise, image.shape)
        return np.rint(image).astype(self.dtype) if np.dtype(self.dtype).kind in "iu" else image.astype(self.dtype)

    def hdu_header(self) -> fits.Header:
        header = self.wcs().to_header(relax=True)
        header.update(self.header)
        return header


def tangent(ra: float, dec: float) -> WCS:
    """The field's tangent plane in arcsec, x to the west (pixels as the eye sees them)."""
    w = WCS(naxis=2)
    w.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    w.wcs.crval = [ra, dec]
    w.wcs.crpix = [1, 1]
    w.wcs.cdelt = [-ARCSEC, ARCSEC]
    w.wcs.set()
    return w


def write(
    path: Path,
    frame: Frame,
    *,
    pixels: np.ndarray | None = None,
    scene: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    dq: np.ndarray | None = None,
    mef: bool = False,
) -> str:
    """Write a frame as a plain image, or as SCI (and DQ) extensions."""
    data = frame.pixels(scene) if pixels is None else pixels
    if mef or dq is not None:
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, frame.hdu_header(), name="SCI", ver=1)]
        if dq is not None:
            hdus.append(fits.ImageHDU(dq, name="DQ", ver=1))
        fits.HDUList(hdus).writeto(path)
    else:
        fits.PrimaryHDU(data, frame.hdu_header()).writeto(path)
    return str(path)


def write_all(folder: Path, frames: Sequence[Frame], **how: Any) -> list[str]:
    """Write frames as img_0.fits, img_1.fits, …"""
    folder.mkdir(parents=True, exist_ok=True)
    return [write(folder / f"img_{k}.fits", frame, **how) for k, frame in enumerate(frames)]


def row(skies: Sequence[float], **common: Any) -> list[Frame]:
    """Frames side by side, each overlapping the next by a quarter."""
    return [Frame(x=30.0 * k, sky=s, seed=k, **common) for k, s in enumerate(skies)]
