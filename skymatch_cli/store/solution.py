"""The part of a FITS result that ``apply`` reads: the skies, the images, and the state of their files.

It is one more HDU behind the tables: an array of bytes with their digest in its header.
"""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.cards import padded
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.source import open_source
from skymatch_cli.images.skystate import read_state
from skymatch_cli.model import FloatArray, ImageInfo
from skymatch_cli.settings import Settings

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result
    from skymatch_cli.output.tables import Report

_HDU = "SKYMATCH"
_HINT = "name a file that `skymatch solve -o SOLUTION.fits` or `skymatch match -o` wrote"


@dataclass(frozen=True, slots=True)
class Solved:
    """What is to be written to images: skies and errors (N,), tilts (N, 2) or None; the images have no WCS.

    ``settings`` are JSON.
    """

    settings: str
    infos: Sequence[ImageInfo]
    sky: FloatArray
    sky_err: FloatArray
    tilt: FloatArray | None

    def part(self, images: Sequence[int]) -> Solved:
        """Those of some of the images."""
        of = np.array(images, np.int64)
        tilt = None if self.tilt is None else self.tilt[of]
        return Solved(self.settings, tuple(self.infos[i] for i in images), self.sky[of], self.sky_err[of], tilt)


def result_document(result: Result) -> Report:
    """Return the report of a result; as FITS it is what ``apply`` reads."""
    return replace(result.report, appendix=lambda stream: _write(result, stream))


def _write(result: Result, stream: BinaryIO) -> None:
    from astropy.io import fits

    from skymatch_cli.store.rows import CODEC, settings_json

    solution = result.solution
    infos = tuple(replace(info, wcs=None, notes=()) for info in result.infos)
    solved = Solved(settings_json(result.settings), infos, solution.sky, solution.sky_err, solution.tilt)
    content = zlib.compress(CODEC.encode(solved), 1)
    header = fits.ImageHDU(np.frombuffer(content, np.uint8), name=_HDU).header
    header["LAYOUT"] = (_layout_digest(), "digest of the layout of these bytes")
    header["DIGEST"] = (_digest(content), "digest of these bytes")
    stream.write(header.tostring().encode("ascii"))
    stream.write(content.ljust(padded(len(content)), b"\0"))


def read_solution(file: str) -> Solved:
    """Read the skies of a solution; InputError if it isn't one of this version, is damaged or was changed."""
    from skymatch_cli.store.rows import CODEC

    layout, digest, content, shown = _read(file)
    if layout != _layout_digest():
        raise InputError.at(file, "is a solution of another version of skymatch", "make it again")
    if digest != _digest(content):
        raise InputError.at(file, "is damaged", "make it again")
    solved = CODEC.decode(Solved, zlib.decompress(content))
    if not np.array_equal(shown, solved.sky, equal_nan=True):
        what = "its column sky was changed since it was written"
        raise InputError.at(file, what, "give skies of your own with `skymatch match --method user --skylist`")
    return solved


def settings_of(solved: Solved) -> Settings:
    """Return the settings of the run that made a solution."""
    found: dict[str, Any] = json.loads(solved.settings)
    return Settings.of(found)


def _read(file: str) -> tuple[object, object, bytes, FloatArray]:
    """Both digests and the content of the HDU for ``apply``, and the skies in the table for people."""
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of astropy on damaged files
            with fits.open(file, memmap=False) as hdus:
                hdu, shown = hdus[_HDU], np.array(hdus["IMAGES"].data["sky"], float)
                content = np.asarray(hdu.data, np.uint8).tobytes()
                return hdu.header.get("LAYOUT"), hdu.header.get("DIGEST"), content, shown
    except FileNotFoundError:
        raise InputError.at(file, "no such file") from None
    except OSError as error:
        what = f"can't be read: {error.strerror}" if error.strerror else "is not a FITS file, or is damaged"
        raise InputError.at(file, what, _HINT) from None
    except Exception as error:  # noqa: BLE001 (whatever a damaged file trips over)
        raise InputError.at(file, f"is not a solution: {error!s:.80}", _HINT) from None


def _layout_digest() -> str:
    from skymatch_cli.store.rows import CODEC

    return _digest(CODEC.layout(Solved).encode())


def _digest(content: bytes) -> str:
    from skymatch_cli.store.database import digest_of

    return digest_of(content).hex()


def as_written(infos: Sequence[ImageInfo], sky: FloatArray, sky_keyword: str) -> tuple[ImageInfo, ...]:
    """The images, where a file holds its sky (N,) already as the file is now: it was written by this program.

    Others keep the state that they had when they were measured, and are refused later if they changed.
    """
    return tuple(_as_written(info, level, sky_keyword) for info, level in zip(infos, sky.tolist(), strict=True))


def _as_written(info: ImageInfo, level: float, sky_keyword: str) -> ImageInfo:
    from skymatch_cli.record.precision import check_digest

    science = info.source.science
    try:
        now = file_state(info.ref.path)
        if now == science.state:
            return info
        with open_source(read_structure(info.ref.path, info.ref.label)) as source:
            state = read_state(source, info.ref, sky_keyword)
            if state.written is not None:
                check_digest(source, info.ref.hdu, state.written, info.ref.label)
    except (OSError, InputError):
        return info  # the error is reported when it is written
    recorded = state.recorded(info.ref.part)
    if not (state.written and recorded is not None and math.isclose(recorded.sky.level, level, rel_tol=1e-9)):
        return info
    return replace(info, source=replace(info.source, science=replace(science, state=now)))
