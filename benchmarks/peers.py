"""What other programs make of a set of images: each is run by a script of its own, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from simulated import BENCH

PEERS = {
    "stcal": ("stsci/bin/python", "run_stcal.py"),
    "skypac": ("skypac/bin/python", "run_skypac.py"),
    "montage": ("other/bin/python", "run_montage.py", "--only", "level"),
    "reproject": ("other/bin/python", "run_reproject.py"),
}
RESAMPLING = {"montage", "reproject"}  # they know no DQ


def installed(peers: Path) -> list[str]:
    """Peers whose environment is there."""
    return [name for name, (python, *_) in PEERS.items() if (peers / python).exists()]


def peer_report(files: list[str], peers: Path, name: str) -> dict | None:
    """The report of a peer's script on images; None where it failed."""
    python, script, *options = PEERS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        if name in RESAMPLING:
            files = plain(files, Path(folder))
        else:
            options = [*options, "--dqbits", "0"]
        command = [str(peers / python), str(BENCH / "peers" / script), *options, "--out", str(out), *files]
        done = subprocess.run(command, capture_output=True, check=False)
        return None if done.returncode or not out.exists() else json.loads(out.read_text())


def peer_skies(files: list[str], peers: Path, name: str) -> np.ndarray | None:
    """Skies that a peer finds; None where it failed or left out an image."""
    report = peer_report(files, peers, name)
    skies = [report["sky"].get(Path(f).name) for f in files] if report else [None]
    return None if None in skies else np.array(skies, float)


def plain(files: list[str], folder: Path) -> list[str]:
    """Copies of one plane each: bad pixels are NaN."""
    from astropy.io import fits

    out = []
    for file in files:
        with fits.open(file) as hdus:
            science = hdus["SCI"] if "SCI" in hdus else hdus[0]
            data = science.data.astype("f4")
            if "DQ" in hdus:
                data[hdus["DQ"].data > 0] = np.nan
            out.append(str(folder / Path(file).name.removesuffix(".gz")))
            fits.PrimaryHDU(data, science.header).writeto(out[-1], output_verify="silentfix")
    return out
