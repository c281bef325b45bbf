"""Two overlapping images of every kind of file, for the table of tests/kinds.md: see `test_kinds`."""

from __future__ import annotations

import bz2
import gzip
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from .factories import Frame
from .gwcsfiles import gwcs_of, jwst_file, roman_file
from .headers import ASTROPY_DATA, celestial_header, sip_cards, tpv_cards
from .test_iraf import iraf_header, surface

SKIES = (100.0, 107.0)
FRAMES = [Frame(x=25.0 * k, sky=sky, noise=2.0, seed=k) for k, sky in enumerate(SKIES)]
SHAPE = (40, 40)
Make = Callable[[Path], "Files"]


@dataclass(frozen=True, kw_only=True)
class Files:
    """Two files: their paths, the HDUs of their images, and what the command line needs for them.

    ``restored``: what undo brings back after subtraction: ``bytes`` of the whole (unpacked) file, ``bits`` of the
    pixels, or the pixels to one ``ulp``.
    """

    paths: tuple[Path, ...]
    hdus: tuple[int, ...] = (0,)
    options: tuple[str, ...] = ()
    restored: str = "ulp"
    others: tuple[Path, ...] = ()  # masks: never written


KINDS: dict[tuple[str, str], Make] = {}


def kind(label: str, *variants: str) -> Callable[[Callable[..., Files]], Callable[..., Files]]:
    """Register what makes a kind of file, under the words of the table, in one or several variants."""

    def register(make: Callable[..., Files]) -> Callable[..., Files]:
        for variant in variants:
            KINDS[label, variant] = lambda folder, variant=variant: make(folder, variant)  # type: ignore[misc]
        if not variants:
            KINDS[label, ""] = make
        return make

    return register


def written(
    folder: Path, hdus_of: Callable[[Frame], Iterable[Any]], suffix: str = ".fits", **how: Any
) -> tuple[Path, ...]:
    paths = tuple(folder / f"img_{k}{suffix}" for k in range(len(FRAMES)))
    for path, frame in zip(paths, FRAMES, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits.HDUList(list(hdus_of(frame))).writeto(path, **how)
    return paths


def integers(frame: Frame, dtype: str = "i2") -> np.ndarray:
    return np.rint(frame.pixels()).astype(dtype)


def headers(**options: Any) -> list[fits.Header]:
    """Two headers of one WCS; the second frame lies 25 columns further."""
    made = [celestial_header(nx=40, ny=40, scale=1 / 3600, **options) for _ in FRAMES]
    made[1]["CRPIX1"] -= 25
    return made


def with_headers(folder: Path, made: list[fits.Header]) -> tuple[Path, ...]:
    by_seed = dict(enumerate(made))
    return written(folder, lambda f: [fits.PrimaryHDU(f.pixels().astype("f4"), by_seed[f.seed])])


@kind("one image of floats", "f4", "f8")
def floats(folder: Path, dtype: str) -> Files:
    return Files(paths=written(folder, lambda f: [fits.PrimaryHDU(f.pixels().astype(dtype), f.hdu_header())]))


@kind("integers, 8 to 64 bits, signed or unsigned", "u1", "i1", "i2", "u2", "i4", "u4", "i8")
def whole_numbers(folder: Path, dtype: str) -> Files:
    paths = written(folder, lambda f: [fits.PrimaryHDU(integers(f, dtype), f.hdu_header())])
    return Files(paths=paths, restored="bytes")


@kind("BSCALE, BZERO, BLANK")
def scaled(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        hdu = fits.PrimaryHDU((integers(frame) - 20) * 2, frame.hdu_header())
        hdu.data[3, 4:9] = -32768
        hdu.header.update(BSCALE=0.5, BZERO=20.0, BLANK=-32768)
        return [hdu]

    return Files(paths=written(folder, hdus), restored="bytes")


@kind("NaN and infinity")
def undefined(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        data = frame.pixels().astype("f4")
        data[3, 4:9], data[5, 5], data[5, 6] = np.nan, np.inf, -np.inf
        return [fits.PrimaryHDU(data, frame.hdu_header())]

    return Files(paths=written(folder, hdus))


def chip(frame: Frame, ver: int, header: fits.Header | None = None) -> list[Any]:
    dq = np.zeros(SHAPE, "u2")
    dq[::7] = 4
    data = frame.pixels().astype("f4")
    data[::7] = 1e6
    sci = fits.ImageHDU(data, header or frame.hdu_header(), name="SCI", ver=ver)
    return [sci, fits.ImageHDU(np.ones(SHAPE, "f4"), name="ERR", ver=ver), fits.ImageHDU(dq, name="DQ", ver=ver)]


@kind("several extensions (SCI, ERR, DQ)")
def extensions(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        return [fits.PrimaryHDU(), *chip(frame, 1), *chip(frame.but(y=36.0, seed=frame.seed + 2), 2)]

    return Files(paths=written(folder, hdus), hdus=(1, 4))


@kind("HST `flt` with lookup tables")
def hst(folder: Path) -> Files:
    """The header and the tables of a real chip (SIP, NPOLFILE and D2IM), about its reference pixel."""
    with fits.open(ASTROPY_DATA / "dist_lookup.fits.gz") as real:
        header, tables = real[1].header.copy(), [hdu.copy() for hdu in real[2:]]

    def hdus(frame: Frame) -> list[Any]:
        mine = header.copy()
        mine["CRPIX1"] -= 25 * frame.seed
        return [fits.PrimaryHDU(), *chip(frame, 1, mine), *tables]

    return Files(paths=written(folder, hdus), hdus=(1,))


@kind("JWST `cal`")
def jwst(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        primary = fits.PrimaryHDU()
        primary.header["TELESCOP"] = "JWST"
        return [primary, *chip(frame, 1), fits.ImageHDU(np.ones(SHAPE, "f4"), name="AREA")]

    return Files(paths=written(folder, hdus), hdus=(1,), options=("--dqbits", "~4"))


@kind("JWST with its ASDF extension (extra `gwcs`)")
def jwst_gwcs(folder: Path) -> Files:
    made = [jwst_file(folder / f"img_{f.seed}.fits", f, gwcs_of(f)) for f in FRAMES]
    return Files(paths=tuple(map(Path, made)), hdus=(1,))


@kind("Roman level 2, `.asdf` (extra `gwcs`)")
def roman(folder: Path) -> Files:
    return Files(paths=tuple(Path(roman_file(folder / f"img_{f.seed}.asdf", f, gwcs_of(f))) for f in FRAMES))


@kind("DECam and Mosaic: one extension a CCD, TPV, DQ and weight in files of their own")
def decam(folder: Path) -> Files:
    def hdus(frame: Frame, data: Callable[[Frame], np.ndarray], suffix: str = "") -> list[Any]:
        made: list[Any] = [fits.PrimaryHDU()]
        for number, ccd in enumerate((frame, frame.but(y=36.0, seed=frame.seed + 2)), start=1):
            header = ccd.but(projection="TPV").hdu_header()
            header.update(tpv_cards(40 / 3600) if not suffix else {})
            made.append(fits.ImageHDU(data(ccd), header, name=f"N{number}{suffix}"))
        return made

    def flags(_: Frame) -> np.ndarray:
        dq = np.zeros(SHAPE, "i2")
        dq[::7] = 4
        return dq

    def science(frame: Frame) -> np.ndarray:
        return np.where(flags(frame) == 0, frame.pixels(), 1e6).astype("f4")

    paths = written(folder, lambda f: hdus(f, science))
    dq = written(folder, lambda f: hdus(f, flags), suffix="_dq.fits")
    weight = written(folder, lambda f: hdus(f, lambda _: np.ones(SHAPE, "f4")), suffix="_wt.fits")
    options = ("--dq-ext", str(folder / "{stem}_dq.fits[{extname}]"))
    return Files(paths=paths, hdus=(1, 2), options=options, others=(*dq, *weight))


@kind("DQ or mask in files of their own")
def masks(folder: Path) -> Files:
    def science(frame: Frame) -> list[Any]:
        data = integers(frame)
        data[::7] = 30000
        return [fits.PrimaryHDU(data, frame.hdu_header())]

    good = np.ones(SHAPE, "u1")
    good[::7] = 0
    mask = written(folder, lambda _: [fits.PrimaryHDU(), fits.ImageHDU(good)], suffix="_good.fits")
    options = ("--mask", str(folder / "{stem}_good.fits[1]"))
    return Files(paths=written(folder, science), options=options, others=mask, restored="bytes")


@kind("`.gz`, `.bz2`", ".gz", ".bz2")
def packed(folder: Path, suffix: str) -> Files:
    plain = written(folder, lambda f: [fits.PrimaryHDU(integers(f), f.hdu_header())])
    pack = {".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
    paths = []
    for path in plain:
        paths.append(path.with_suffix(f".fits{suffix}"))
        paths[-1].write_bytes(pack(path.read_bytes()))
        path.unlink()
    return Files(paths=tuple(paths), restored="bytes")


@kind("`.fz`, integers", "RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1")
def tiled(folder: Path, algorithm: str) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        return [fits.PrimaryHDU(), fits.CompImageHDU(integers(frame), frame.hdu_header(), compression_type=algorithm)]

    return Files(paths=written(folder, hdus, suffix=".fits.fz"), hdus=(1,), restored="bits")


@kind("`.fz`, scaled integers with BLANK, as of SDSS and PS1")
def tiled_blank(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        stored = (integers(frame) - 20) * 2
        stored[3, 4:9] = -32768
        hdu = fits.CompImageHDU(stored, frame.hdu_header(), compression_type="RICE_1")
        hdu.header.update(BLANK=-32768)
        return [fits.PrimaryHDU(), hdu]

    paths = written(folder, hdus, suffix=".fits.fz")
    for path in paths:  # the scale is set beside the pixels, which stay as they are stored
        with fits.open(path, mode="update", disable_image_compression=True) as opened:
            opened[1].header.update(BSCALE=0.5, BZERO=20.0)
    return Files(paths=paths, hdus=(1,), restored="bits")


@kind("`.fz`, quantised floats", "no dither", "dither")
def quantised(folder: Path, dither: str) -> Files:
    how = {"quantize_level": 16, "quantize_method": -1 if dither == "no dither" else 1, "dither_seed": 7}

    def hdus(frame: Frame) -> list[Any]:
        return [fits.PrimaryHDU(), fits.CompImageHDU(frame.pixels().astype("f4"), frame.hdu_header(), **how)]

    return Files(paths=written(folder, hdus, suffix=".fits.fz"), hdus=(1,))


@kind("CHECKSUM, DATASUM")
def sums(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        return [fits.PrimaryHDU(), fits.ImageHDU(integers(frame), frame.hdu_header()), fits.ImageHDU(np.ones(3))]

    return Files(paths=written(folder, hdus, checksum=True), hdus=(1,), restored="bytes")


@kind("1 × ny × nx")
def degenerate(folder: Path) -> Files:
    return Files(
        paths=written(folder, lambda f: [fits.PrimaryHDU(integers(f)[None], f.hdu_header())]), restored="bytes"
    )


@kind("declination first")
def dec_first(folder: Path) -> Files:
    def hdus(frame: Frame) -> list[Any]:
        return [fits.PrimaryHDU(integers(frame), frame.but(dec_first=True).hdu_header())]

    return Files(paths=written(folder, hdus), restored="bytes")


@kind("galactic, ecliptic, FK4 coordinates", "GLON GLAT", "ELON ELAT", "SLON SLAT", "FK4")
def frames(folder: Path, system: str) -> Files:
    fk4 = {"RADESYS": "FK4", "EQUINOX": 1950.0}
    options: dict[str, Any] = {"cards": fk4} if system == "FK4" else {"axes": tuple(system.split())}
    return Files(paths=with_headers(folder, headers(**options)))


MAPS = sorted((ASTROPY_DATA / "maps").glob("1904-66_*.hdr"))


@kind("all 28 projections of FITS", *(path.stem[-3:] for path in MAPS))
def projections(folder: Path, code: str) -> Files:
    """Two windows of the map of the southern sky that astropy has in every projection."""
    made = []
    for k in range(len(FRAMES)):
        header = fits.Header.fromstring((ASTROPY_DATA / "maps" / f"1904-66_{code}.hdr").read_bytes())
        header["CRPIX1"] -= 76 + 25 * k
        header["CRPIX2"] -= 76
        made.append(header)
    return Files(paths=with_headers(folder, made))


@kind("SIP, TPV, TNX, ZPX", "SIP", "TPV", "TNX", "ZPX")
def distortions(folder: Path, name: str) -> Files:
    if name in {"TNX", "ZPX"}:
        text = surface(3, 4, 4, 2)[0]
        made = []
        for k in range(len(FRAMES)):
            header = iraf_header(name, text, text, more="projp1=1. projp3=42. " if name == "ZPX" else "")
            header["CRPIX1"] -= 25 * k
            made.append(header)
        return Files(paths=with_headers(folder, made))
    if name == "SIP":
        return Files(paths=with_headers(folder, headers(projection="TAN-SIP", cards=sip_cards(100))))
    return Files(paths=with_headers(folder, headers(projection="TPV", cards=tpv_cards(40 / 3600))))
