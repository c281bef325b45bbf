"""Skies of images as Montage's planes, at the nodes of shapes.py: python shape_montage.py BENCH OUT.npy FILES."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import ascii as tables
from astropy.io import fits
from astropy.wcs import WCS

NODES = 12


def main() -> None:
    bench, out, files = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, str(bench / "peers" / "run_montage.py"), "--only", "plane", "--workdir", folder]
        subprocess.run([*run, "--out", str(Path(folder, "out.json")), *files], check=True)
        planes = {int(row["id"]): row for row in tables.read(Path(folder, "corr_plane.tbl"), format="ipac")}
        skies = np.zeros((len(files), NODES, NODES))
        for row in tables.read(Path(folder, "images.tbl"), format="ipac"):
            image = int(re.search(r"im(\d{6,})", Path(str(row["fname"])).name)[1])
            skies[image] = sky(
                planes[int(row["cntr"])],
                fits.getheader(next(Path(folder, "proj").glob(f"*im{image:06d}.fits"))),
                fits.getheader(files[image]),
            )
    np.save(out, skies)


def sky(plane, projected: fits.Header, header: fits.Header) -> np.ndarray:
    """The plane, which counts from CRPIX of the projected image, at the nodes of the image."""
    along = (np.linspace(0, header[f"NAXIS{axis}"] - 1, NODES).round() for axis in (1, 2))
    x, y = (line.ravel() for line in np.meshgrid(*along))
    at = WCS(projected).all_world2pix(WCS(header).all_pix2world(np.column_stack([x, y]), 0), 1)
    u, v = (at - [projected["CRPIX1"], projected["CRPIX2"]]).T
    return (plane["a"] * u + plane["b"] * v + plane["c"]).reshape(NODES, NODES)


if __name__ == "__main__":
    main()
