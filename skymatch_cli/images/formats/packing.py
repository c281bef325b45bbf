"""How a file as a whole is packed: told by its first bytes, opened unpacked, with a bound for what may come out."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import IO, cast

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import asdffile
from skymatch_cli.images.formats.files import file_state, is_remote, open_file
from skymatch_cli.model import Container, FileState

_SAVE = "save the linear image as FITS"
NOT_FITS = {
    b"\xfd7zXZ\x00": ("is compressed by xz", "uncompress it first: unxz {}"),
    b"\x28\xb5\x2f\xfd": ("is compressed by Zstandard", "uncompress it first: unzstd {}"),
    b"\x1f\x9d": ("is compressed by compress", "uncompress it first: uncompress {}"),
    b"PK\x03\x04": ("is compressed by zip", "uncompress it first: unzip {}"),
    b"version https://git-lfs": ("is a Git LFS pointer, not the image itself", "run `git lfs pull`"),
    b"\xff\xd8\xff": ("is a JPEG picture, not a FITS file", _SAVE),
    b"\x89PNG": ("is a PNG picture, not a FITS file", _SAVE),
    b"II*\0": ("is a TIFF or raw picture, not a FITS file", _SAVE),
    b"MM\0*": ("is a TIFF or raw picture, not a FITS file", _SAVE),
    b"XISF": ("is an XISF image, not a FITS file", _SAVE),
    b"<": ("is a web page, not a FITS file", "fetch the file again"),
    b"": ("is not a FITS file", ""),
}
"""Other files often given as FITS, by their first bytes: what they are, and a hint."""

# A small file may claim a huge image where it is compressed. Flags compress by a thousand, no sky by a hundred.
ALWAYS_UNPACKED = 256 * 2**20
_FLAGS_RATIO, _FLAGS_BYTES = 2000, 4 * 2**30
_SKY_RATIO = 100


def identify(path: str, where: str) -> tuple[Container, FileState]:
    """Return how the file is packed, and its state; refuse what is plainly not FITS."""
    state = file_state(path)
    if not is_remote(path) and not (Path(path).is_file() or Path(path).is_dir()):
        raise InputError.at(where, "is a pipe or a device, not a file", "save its output to a file first")
    with open_file(path) as stream:
        magic = stream.read(64)
    if magic[:2] == b"\x1f\x8b":
        return Container.GZIP, state
    if magic[:3] == b"BZh":
        return Container.BZIP2, state
    if magic.startswith(b"#ASDF"):
        if missing := asdffile.missing_package():
            raise InputError.at(where, f"is an ASDF file: reading it needs the package {missing}", asdffile.HINT)
        return Container.ASDF, state
    if not magic:
        raise InputError.at(where, "is empty", "copy or make it again, or leave it out with --skip-bad")
    return Container.PLAIN, state


def open_unpacked(path: str, container: Container) -> IO[bytes]:
    """Open a FITS file, unpacked, for reading and seeking."""
    if container in {Container.GZIP, Container.BZIP2}:
        unpack = gzip.open if container is Container.GZIP else bz2.open
        return cast("IO[bytes]", unpack(open_file(path) if is_remote(path) else path, "rb"))
    if container is Container.ASDF:
        from skymatch_cli.images.formats.roman import open_as_fits

        return open_as_fits(path)
    return open_file(path)


def most_unpacked(packed_size: int) -> int:
    """Return the largest plausible unpacked size of a compressed file; more is an attack or damage."""
    flags = min(_FLAGS_RATIO * packed_size, _FLAGS_BYTES)
    return max(ALWAYS_UNPACKED, flags, _SKY_RATIO * packed_size)


def read_exactly(stream: IO[bytes], size: int) -> bytes:
    """Read ``size`` bytes, in several calls if needed; EOFError if there are fewer."""
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    if size:
        raise EOFError("the file is shorter than its headers say")
    return b"".join(pieces)
