"""Whole FITS files to be damaged: the tests' own of every layout, and those of real instruments that are at hand."""

from __future__ import annotations

import bz2
import gzip
import warnings
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.images.formats.asdffile import missing_package
from tests.factories import Frame
from tests.gwcsfiles import gwcs_of, jwst_file, roman_file

SHARED = Path(__file__).parents[3] / "shared" / "data"
_LARGEST = 600_000
_ASTROPY = (
    *(f"wcs/tests/data/{name}" for name in ("j94f05bgq_flt.fits", "dist.fits", "sip.fits", "ie6d07ujq_wcs.fits")),
    *(f"wcs/tests/data/{name}" for name in ("tab-time-last-axis.fits", "validate.fits", "header_newlines.fits")),
    *(f"io/fits/tests/data/{name}" for name in ("test0.fits", "comp.fits", "scale.fits", "blank.fits", "table.fits")),
    *(f"io/fits/tests/data/{name}" for name in ("random_groups.fits", "o4sp040b0_raw.fits", "theap-gap.fits")),
    *(f"io/fits/tests/data/{name}" for name in ("variable_length_table.fits", "compressed_float_bzero.fits")),
)


@dataclass(frozen=True, slots=True)
class Base:
    """A file: its name, its bytes unpacked, and its suffix (``.fits``, ``.fits.gz``, ``.fits.bz2``, ``.asdf``)."""

    name: str
    content: bytes
    suffix: str = ".fits"


def pack(content: bytes, suffix: str) -> bytes:
    """The bytes as a file of this suffix holds them."""
    if suffix.endswith(".gz"):
        return gzip.compress(content, 1, mtime=0)
    return bz2.compress(content, 1) if suffix.endswith(".bz2") else content


def own(folder: Path) -> list[Base]:
    """Small files of every layout: plain, extensions with flags, integers, compressed, distorted, packed."""
    frame = Frame(nx=24, ny=20, noise=1.0)
    flags = np.zeros((20, 24), "u2")
    flags[3, 4] = 8
    whole = frame.hdu_header()
    sip = frame.but(sip=True).hdu_header()
    tpv = frame.but(projection="TPV").hdu_header()
    integers = frame.but(dtype="i2").pixels()
    scaled = fits.PrimaryHDU(integers, whole)
    scaled.header.update(BSCALE=0.5, BZERO=100.0, BLANK=-32768)
    layouts: dict[str, list[Any]] = {
        "plain": [fits.PrimaryHDU(frame.pixels().astype("f4"), whole)],
        "scaled": [scaled],
        "unsigned": [fits.PrimaryHDU(integers.astype("u2"), tpv)],
        "chips": [
            fits.PrimaryHDU(),
            *(
                fits.ImageHDU(*content, name=name, ver=ver)
                for ver in (1, 2)
                for name, content in (("SCI", (frame.pixels().astype("f4"), sip)), ("DQ", (flags,)))
            ),
        ],
        "subtracted": [fits.PrimaryHDU(frame.pixels(), whole + fits.Header({"BKGLEVEL": 5.0, "BKGSUB": True}))],
        "rice": [fits.PrimaryHDU(), fits.CompImageHDU(integers, whole, compression_type="RICE_1")],
        "gzip2": [fits.PrimaryHDU(), fits.CompImageHDU(integers.astype("f4"), whole, compression_type="GZIP_2")],
        "quantised": [fits.PrimaryHDU(), fits.CompImageHDU(frame.pixels().astype("f4"), sip, quantize_level=4)],
        "hcompress": [fits.PrimaryHDU(), fits.CompImageHDU(integers, whole, compression_type="HCOMPRESS_1")],
        "plio": [fits.PrimaryHDU(), fits.CompImageHDU(integers, whole, compression_type="PLIO_1")],
    }
    made = []
    for name, hdus in layouts.items():
        path = folder / f"{name}.fits"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits.HDUList(hdus).writeto(path, checksum=name == "plain", output_verify="ignore")
        made.append(Base(name, path.read_bytes()))
        path.unlink()
    made += [_done(folder, base) for base in made if base.name in {"plain", "scaled", "rice"}]
    made += _with_gwcs(folder, frame)
    return [*made, Base("gzipped", made[0].content, ".fits.gz"), Base("bzipped", made[3].content, ".fits.bz2")]


def _done(folder: Path, base: Base) -> Base:
    """A file from which the program subtracted a sky."""
    (folder / "a.fits").write_bytes(base.content)
    (folder / "skies.txt").write_text(f"{folder / 'a.fits'} 3.25\n")
    options = ["--method", "user", "--skylist", str(folder / "skies.txt"), "--subtract", "--jobs", "1"]
    done = CliRunner().invoke(main, ["match", *options, str(folder / "a.fits")])
    assert done.exit_code == 0, done.stderr
    return Base(f"{base.name} done", (folder / "a.fits").read_bytes())


def _with_gwcs(folder: Path, frame: Frame) -> list[Base]:
    """Files of JWST and Roman, where the packages are there to make them."""
    if missing_package():
        return []
    wcs = gwcs_of(frame, bend=0.5)
    paths = jwst_file(folder / "jwst.fits", frame, wcs), roman_file(folder / "roman.asdf", frame, wcs)
    return [Base(Path(path).stem, Path(path).read_bytes(), Path(path).suffix) for path in paths]


def real() -> list[Base]:
    """Files that astropy ships for its own tests, and others where they are."""
    paths = [Path(str(resources.files("astropy"))) / name for name in _ASTROPY]
    paths += sorted(SHARED.rglob("*.fits*")) if SHARED.exists() else []
    found = [path for path in paths if path.exists() and path.stat().st_size <= _LARGEST]
    read = [(path, path.read_bytes()) for path in found]
    return [Base(path.name, gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw) for path, raw in read]
