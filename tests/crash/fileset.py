"""FITS files of every layout that the program writes, small and always the same."""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from skymatch_cli.model import ImageRef
from skymatch_cli.record.edits import SkyUpdate

SHAPE = (23, 37)


def pixels(dtype: str, seed: int = 0, level: float = 1000.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(level, 5, SHAPE)
    return np.rint(values).astype(dtype) if np.dtype(dtype).kind in "iu" else values.astype(dtype)


def write_hdus(path: Path, *hdus: Any, primary: dict[str, Any] | None = None, checksum: bool = False) -> Path:
    first = hdus[0] if hdus and isinstance(hdus[0], fits.PrimaryHDU) else fits.PrimaryHDU()
    first.header.update(primary or {})
    rest = hdus[1:] if hdus and first is hdus[0] else hdus
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([first, *rest]).writeto(path, checksum=checksum)
    return path


def single(path: Path, data: np.ndarray, checksum: bool = False, **cards: Any) -> Path:
    """One image in the primary HDU."""
    return write_hdus(path, fits.PrimaryHDU(data), primary=cards, checksum=checksum)


def chips(path: Path, dtype: str = "i2", checksum: bool = True) -> Path:
    """Two chips with their DQ, a table, and cards that only some programs understand."""
    hdus: list[Any] = []
    for ver in (1, 2):
        sci = fits.ImageHDU(pixels(dtype, ver), name="SCI", ver=ver)
        sci.header["BKGLEVEL"] = (3.5, "of another program")
        sci.header["HIERARCH ESO DET CHIP"] = ("a long name", "comment")
        sci.header["LONGSTRN"] = "OGIP 1.0"
        sci.header["LONGTEXT"] = "x" * 100
        sci.header["HISTORY"] = "bias subtracted"
        hdus += [sci, fits.ImageHDU(np.zeros(SHAPE, "u2"), name="DQ", ver=ver)]
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(5))], name="TAB")
    return write_hdus(path, *hdus, table, checksum=checksum)


def jwst(path: Path) -> Path:
    """An image whose pipeline keeps the sky in the primary header."""
    hdus = (fits.ImageHDU(pixels("f4", 3), name="SCI"), fits.ImageHDU(np.zeros(SHAPE, "u4"), name="DQ"))
    cards = {"TELESCOP": "JWST", "BKGSUB": False, "BKGLEVEL": (0.25, "[MJy/sr] Computed background level")}
    return write_hdus(path, *hdus, primary=cards)


def tiled(path: Path, data: np.ndarray, compression: str = "RICE_1", checksum: bool = False, **cards: Any) -> Path:
    hdu = fits.CompImageHDU(data, compression_type=compression, name="SCI")
    hdu.header.update(cards)
    return write_hdus(path, hdu, checksum=checksum)


def gzipped(path: Path, plain: Path) -> Path:
    path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    return path


def ref(path: Path, hdu: int = 0, ext: str = "", ver: int = 1) -> ImageRef:
    return ImageRef(str(path), str(path), hdu, ext, ver)


def update(path: Path, hdu: int = 0, sky: float = 12.3456789, err: float = 0.01, method: str = "match") -> SkyUpdate:
    return SkyUpdate(ref=ref(path, hdu), sky=sky, sky_err=err, method=method)


def make_files(folder: Path, names: str = "abcde") -> list[SkyUpdate]:
    """One file of each layout in a folder, and skies for all their images."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = single(folder / "a.fits", pixels("u2", 1, 40000), checksum=True, GAIN=1.5)
    files = [
        (plain, (0,)),
        (chips(folder / "b.fits"), (1, 3)),
        (jwst(folder / "c.fits"), (1,)),
        (gzipped(folder / "d.fits.gz", plain), (0,)),
        (tiled(folder / "e.fits.fz", pixels("i2", 2)), (1,)),
    ]
    for path, _ in files:
        if path.name[0] not in names:
            path.unlink()
    images = [(path, hdu) for path, hdus in files for hdu in hdus if path.name[0] in names]
    return [update(path, hdu, sky=10.1 + i) for i, (path, hdu) in enumerate(images)]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, also those that should not be there."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@dataclass(frozen=True)
class Interrupted:
    """A folder of files, what they are before and after a job, and how often the job calls the disk."""

    folder: Path
    old: dict[str, bytes]
    new: dict[str, bytes]
    calls: list[str]

    def reset(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, content in self.old.items():
            (self.folder / name).write_bytes(content)

    def every_call(self, *, of: str | None = None) -> Iterator[int]:
        """Number every call (of one kind), with the files as they were."""
        for at, call in enumerate(self.calls):
            if of is None or call == of:
                self.reset()
                yield at
