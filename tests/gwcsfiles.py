"""Small files with a GWCS, as the pipelines of JWST and Roman lay them out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from astropy import coordinates, units
from astropy.io import fits
from astropy.modeling import models

from .factories import ARCSEC, Frame


def gwcs_of(frame: Frame, *, bend: float = 0.0, inverse: bool = True) -> Any:
    """The GWCS of a frame; ``bend`` moves the corners by about so many pixels, which its header doesn't say."""
    from gwcs import coordinate_frames, wcs

    detector = coordinate_frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    sky = coordinate_frames.CelestialFrame(reference_frame=coordinates.ICRS(), name="world", unit=(units.deg,) * 2)
    ra, dec = frame.wcs().wcs.crval
    x0, y0 = (frame.nx - 1) / 2, (frame.ny - 1) / 2
    k = bend / x0**2
    to_sky = models.Shift(-x0) & models.Shift(-y0)
    if bend:
        bent = models.Polynomial2D(2, c1_0=1, c2_0=k), models.Polynomial2D(2, c0_1=1, c0_2=-k)
        to_sky = to_sky | models.Mapping((0, 1, 0, 1)) | bent[0] & bent[1]
    step = frame.scale * ARCSEC
    rest = models.Scale(-step) & models.Scale(step) | models.Pix2Sky_TAN()
    to_sky = to_sky | rest | models.RotateNative2Celestial(ra, dec, 180)
    made = wcs.WCS([(detector, to_sky), (sky, None)])
    made.bounding_box = ((-0.5, frame.nx - 0.5), (-0.5, frame.ny - 0.5))
    return made


def jwst_file(path: Path, frame: Frame, wcs: Any, **background: Any) -> str:
    """SCI with the WCS of the frame in its header, DQ, and the ASDF extension with a GWCS.

    ``background`` is what the pipeline has written of the sky, into the primary header and into the ASDF tree.
    """
    import asdf

    stream = io.BytesIO()
    meta = {"background": background} if background else {}
    meta |= {} if wcs is None else {"wcs": wcs, "telescope": "JWST"}
    asdf.AsdfFile({"meta": meta}).write_to(stream)
    raw = np.frombuffer(stream.getvalue(), "u1")
    column = fits.Column("ASDF_METADATA", f"{len(raw)}B", array=raw[None])
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = "JWST"
    for name, keyword in (("level", "BKGLEVEL"), ("subtracted", "BKGSUB"), ("method", "BKGMETH")):
        if name in background:
            primary.header[keyword] = background[name]
    hdus = [
        primary,
        fits.ImageHDU(frame.pixels().astype("f4"), frame.hdu_header(), name="SCI"),
        fits.ImageHDU(np.zeros((frame.ny, frame.nx), "u4"), name="DQ"),
        fits.BinTableHDU.from_columns([column], name="ASDF"),
    ]
    fits.HDUList(hdus).writeto(path)
    return str(path)


def roman_file(path: Path, frame: Frame, wcs: Any, *, compression: str | None = None, **background: Any) -> str:
    """The layout of roman_datamodels: ``roman.data``, ``roman.dq``, ``roman.meta``."""
    import asdf

    data = frame.pixels().astype("f4")
    dq = np.zeros(data.shape, "u4")
    dq[0, 0] = 1  # DO_NOT_USE
    meta = {
        "telescope": "ROMAN",
        "wcs": wcs,
        "cal_step": {"flux": "COMPLETE", "skymatch": "INCOMPLETE"},
        "exposure": {"exposure_time": 100.0},
        "instrument": {"optical_element": "F158", "detector": "WFI01"},
        "observation": {"observation_id": "0001"},
    }
    if background:
        meta["background"] = background
    asdf.AsdfFile({"roman": {"data": data, "dq": dq, "err": np.ones_like(data), "meta": meta}}).write_to(
        path, all_array_compression=compression
    )
    return str(path)
