"""The WCS of JWST and Roman images as their pipelines keep it: a GWCS in ASDF (extra ``gwcs``)."""

from __future__ import annotations

import importlib.metadata
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import IO, Any

import numpy as np

from skymatch_cli.errors import InputError, reason
from skymatch_cli.images.formats.asdffile import opened_asdf
from skymatch_cli.images.formats.files import open_file
from skymatch_cli.images.formats.fitsfile import FitsFile
from skymatch_cli.images.formats.source import open_source
from skymatch_cli.model import FloatArray
from skymatch_cli.sky.frames import SkyFrame
from skymatch_cli.sky.inverse import refine_pixels
from skymatch_cli.sky.sphere import angle_rad, unit_vectors

_UPGRADE = "pip install --upgrade gwcs asdf-astropy"
_UNKNOWN_TAG = re.compile(r"(\S+) is not recognized")
_LONGITUDES = frozenset({"pos.eq.ra", "pos.galactic.lon", "pos.ecliptic.lon"})
_ROUND_TRIP_PIX = 1e-3
_AROUND = 1.0  # frames on each side in which pixel positions are looked for


class UnknownWcsError(InputError):
    """A stored WCS needs newer packages than those that are installed."""


@dataclass(frozen=True, eq=False)
class GwcsWcs:
    """The celestial GWCS of one image; made by `gwcs_wcs`. It can be pickled."""

    shape: tuple[int, int]  # (ny, nx)
    cards: bytes  # the WCS as an ASDF file, compressed: what is pickled; the WCS is built from it when first used
    frame: SkyFrame
    notes: tuple[str, ...] = ("positions from its GWCS",)
    corner: tuple[int, int] = (0, 0)  # (x, y) of the first pixel, of a section of the image

    @cached_property
    def _engine(self) -> _Engine:
        with opened_asdf(io.BytesIO(zlib.decompress(self.cards))) as file:
            return _Engine(file["wcs"])

    @cached_property
    def _middle(self) -> tuple[FloatArray, float]:
        """The position of its middle, (3,), and the side of a pixel there in radians."""
        x, y = 0.5 * (self.shape[1] - 1), 0.5 * (self.shape[0] - 1)
        here, right, above = self.to_sky(np.array([x, x + 1, x]), np.array([y, y, y + 1]))
        return here, float(np.sqrt(np.linalg.norm(np.cross(right - here, above - here))))

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("shape", "cards", "frame", "notes", "corner")}

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Pixels to ICRS unit vectors, (n, 3); NaN rows where a pixel is off the sky. Beyond the frame too."""
        x, y = np.asarray(x, float) + self.corner[0], np.asarray(y, float) + self.corner[1]
        return self.frame.to_icrs(self._engine.to_native(x, y))

    def to_pixel(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ICRS unit vectors (n, 3) to pixels within a frame's width of the image; NaN elsewhere.

        Newton's method from the middle: the inverse that a GWCS holds is missing or approximate.
        """
        (ny, nx), (middle, scale_rad) = self.shape, self._middle
        found = np.full((2, len(vectors)), np.nan)
        on = np.flatnonzero(angle_rad(vectors, middle) <= 2 * _AROUND * np.hypot(nx, ny) * scale_rad)
        if len(on):
            box = [-0.5 - _AROUND * nx, -0.5 - _AROUND * ny, (1 + _AROUND) * nx, (1 + _AROUND) * ny]
            x, y = np.full(len(on), 0.5 * (nx - 1)), np.full(len(on), 0.5 * (ny - 1))
            found[:, on] = refine_pixels(self, vectors[on], x, y, np.tile(box, (len(on), 1)))
            off = angle_rad(self.to_sky(*found[:, on]), vectors[on]) / scale_rad
            found[:, on[~(off <= _ROUND_TRIP_PIX)]] = np.nan
        return found[0], found[1]


def gwcs_wcs(wcs: Any, shape: tuple[int, int], where: str) -> GwcsWcs:
    """Adapt a GWCS; InputError if it doesn't take two pixel coordinates to a known frame on the sky."""
    import asdf

    try:
        engine = _Engine(wcs)
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asdf.AsdfFile({"wcs": wcs}).write_to(stream)
        sky = wcs.output_frame.reference_frame
        if sky.name not in {"icrs", "fk5", "galactic"}:
            raise ValueError(f"its positions are in the frame {sky.name!r}")
        frame = SkyFrame(sky.name, float(sky.equinox.jyear) if sky.name == "fk5" else None)
        made = GwcsWcs(shape, zlib.compress(stream.getvalue(), 1), frame)
        made.__dict__["_engine"] = engine
        if not made._middle[1] > 0:
            raise ValueError("its pixels have no area on the sky")
    except Exception as error:  # transforms and converters raise whatever they trip over
        raise InputError.at(where, f"its GWCS can't be used: {reason(error)}") from error
    return made


def _wcs_of_meta(file: Any, meta: Any, shape: tuple[int, int], where: str) -> GwcsWcs | None:
    """The GWCS in ``meta`` of an open ASDF file; None where it holds none.

    UnknownWcsError if newer packages have written it than can read it here; InputError if it can't be used for another
    reason.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if "wcs" not in list(meta):
                return None
            wcs = meta["wcs"]  # converters run here, and raise whatever they trip over, a KeyError too
            return None if wcs is None else gwcs_wcs(wcs, shape, where)
        except Exception as error:
            tags = (found[1] for w in caught if (found := _UNKNOWN_TAG.match(str(w.message))))
            why = next(
                chain(_newer_packages(file), (f"has the tag {tag}, which is not known here" for tag in tags)), ""
            )
            if why:
                raise UnknownWcsError.at(where, f"the GWCS {why}", _UPGRADE) from error
            if isinstance(error, InputError):
                raise
            raise InputError.at(where, f"its GWCS can't be read: {reason(error)}") from error


def _newer_packages(file: Any) -> Iterator[str]:
    """The packages that wrote an ASDF file and are older, or missing, here."""
    from packaging.version import InvalidVersion, Version

    for extension in (file.tree.get("history") or {}).get("extensions", ()):
        software = extension.get("software") or {}
        name, wrote = str(software.get("name")), str(software.get("version"))
        try:
            here = importlib.metadata.version(name)
            if Version(wrote) > Version(here):
                yield f"was written with {name} {wrote}, newer than {here} here"
        except importlib.metadata.PackageNotFoundError:
            yield f"was written with {name} {wrote}, which is not installed"
        except InvalidVersion:
            continue


def jwst_wcs(file: FitsFile, shape: tuple[int, int], where: str) -> GwcsWcs | None:
    """Read the GWCS in the ASDF extension of a FITS file; None where it holds none. Errors: see `_wcs_of_meta`."""
    if (asdf_hdu := file.asdf_extension) is None:
        return None
    with open_source(file) as source:
        raw = source.read(asdf_hdu.data_offset, asdf_hdu.data_size)
    stored = io.BytesIO(raw[max(0, raw.find(b"#ASDF")) :])
    return _wcs_in(lambda: stored, lambda tree: tree.get("meta", {}), shape, where, "its ASDF extension")


def roman_wcs(file: FitsFile, shape: tuple[int, int], where: str) -> GwcsWcs:
    """Read the GWCS of a Roman image; InputError if none can be used."""
    found = _wcs_in(lambda: open_file(file.path), lambda tree: tree["roman"]["meta"], shape, where, "its GWCS")
    if found is None:
        raise InputError.at(where, "has no GWCS in roman.meta.wcs", "process it to level 2 first")
    return found


def _wcs_in(
    opened: Callable[[], IO[bytes]], meta_of: Callable[[Any], Any], shape: tuple[int, int], where: str, what: str
) -> GwcsWcs | None:
    try:
        with opened() as stream, opened_asdf(stream) as file:
            return _wcs_of_meta(file, meta_of(file.tree), shape, where)
    except InputError:
        raise
    except Exception as error:  # converters raise whatever they trip over
        raise InputError.at(where, f"{what} can't be read: {reason(error)}") from error


class _Engine:
    """The transform of a GWCS without its bounding box, in radians."""

    def __init__(self, wcs: Any) -> None:
        from astropy import units

        wcs.bounding_box = None
        kinds = tuple(wcs.world_axis_physical_types)
        if wcs.pixel_n_dim != 2 or len(kinds) != 2:
            raise ValueError(f"it has {wcs.pixel_n_dim} pixel and {len(kinds)} world axes")
        self._values = wcs.pixel_to_world_values
        self._longitude = next((i for i, kind in enumerate(kinds) if kind in _LONGITUDES), 0)
        self._to_rad = [units.Unit(unit).to(units.rad) for unit in wcs.world_axis_units]

    def to_native(self, x: FloatArray, y: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            world = [np.asarray(v, float) * f for v, f in zip(self._values(x, y), self._to_rad, strict=True)]
        return unit_vectors(world[self._longitude], world[1 - self._longitude])
