"""Formats that need packages beyond the required ones: the module of each is imported when it is needed.

The core asks here and knows no such package: a container other than FITS (Roman's ASDF), a WCS that a FITS file keeps
outside its header (GWCS), and files behind URLs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, cast

from skymatch_cli.errors import InputError

if TYPE_CHECKING:
    from skymatch_cli.images.formats.fitsfile import FitsFile
    from skymatch_cli.model import CelestialWcs


class UnknownWcsError(InputError):
    """A stored WCS needs newer packages than those that are installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFormat:
    """A container that is read as a FITS file."""

    missing_package: Callable[[], str]  # () -> the first package of the extra that is not installed; "" where all are
    hint: str  # how to install them
    open_as_fits: Callable[[str], IO[bytes]]  # path -> the file as the bytes of a FITS file
    read_wcs: Callable[[FitsFile, tuple[int, int], str], CelestialWcs]  # (file, shape, label of the image) -> its WCS


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWcs:
    """A WCS in an extension of a FITS file."""

    missing_package: Callable[[], str]  # as in `ContainerFormat`
    hint: str
    is_in: Callable[[FitsFile], bool]  # file -> whether it has such an extension
    # (file, shape, label of the image) -> its WCS; None where the extension holds none. An UnknownWcsError says that
    # the installed packages are too old for it
    read_wcs: Callable[[FitsFile, tuple[int, int], str], CelestialWcs | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """Files behind URLs."""

    open_file: Callable[[str], IO[bytes]]  # URL -> its bytes, for reading and seeking
    # URL -> size in bytes, and a number that changes when the file does
    size_and_version: Callable[[str], tuple[int, int]]
    matching: Callable[[str], list[str]]  # URL with ``*`` -> the URLs that it matches


def _format(name: str) -> Any:
    return import_module(f"{__package__}.{name}").FORMAT


def asdf_format() -> ContainerFormat:
    """Roman images in ASDF files."""
    return cast("ContainerFormat", _format("roman"))


def stored_gwcs() -> StoredWcs:
    """The GWCS of JWST images."""
    return cast("StoredWcs", _format("gwcs"))


def transport(path: str) -> Transport:
    """Files behind URLs, or images in memory."""
    return cast("Transport", _format("memory" if path.startswith("skymatch-memory://") else "remote"))
