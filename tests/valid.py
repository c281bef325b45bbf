"""Whether a file is valid FITS: astropy's strict verification, and fitsverify where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from pathlib import Path

from astropy.io import fits


def complaints(path: Path) -> set[str]:
    """What astropy (checksums included) and fitsverify have to say against a file, without the numbers of cards."""
    said = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("warn")
            for hdu in hdus:
                _ = hdu.data  # read, so that its checksum is looked at
    said |= {str(warning.message) for warning in caught}
    if shutil.which("fitsverify") and path.suffix != ".bz2":
        done = subprocess.run(["fitsverify", path], capture_output=True, text=True, check=False)
        said |= {line for line in done.stdout.splitlines() if line.startswith(("*** Warning", "*** Error"))}
        assert said or "found 0 warning(s) and 0 error(s)" in done.stdout, done.stdout
    return {re.sub(r"(?i)(card|cards) #?\d+", r"\1", text) for text in said}


def assert_valid(path: Path, known: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Nothing is to be said against a file, but what is known (of the file that it was made from)."""
    assert complaints(path) - known == set()
