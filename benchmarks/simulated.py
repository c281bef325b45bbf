"""Simulated sets of images with known skies, kept from run to run beside their floors and what peers found.

A set is a folder of images and ``known.json``: the options of the simulator, true skies, floor and the errors of
peers, which cost much more time than the pixels. Pixels may be thrown away: they are made again where needed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BENCH = Path(os.environ.get("SKYMATCH_BENCH", ROOT.parent / "shared" / "bench"))
DATA = ROOT / "build" / "accuracy"
SCENES = {
    "sparse": "",
    "crowded": "--stars 0.05 --fwhm-jitter 0.6",
    "nebula": "--nebula 50",
    "blobs": "--nebula 50 --blob 0.1 --dq",
    "sip": "--sip --rotate 20",
    "dither": "--layout dither --nx 5 --ny 2 --nebula 50",
    "chain": "--layout chain --nx 12 --ny 1",
    "cr": "--cr 2e-3",
    "bright": "--nebula 500",
}


@dataclass(slots=True)
class Case:
    """One simulated set: true skies by name of file, the floor of their errors, errors that peers made.

    ``peers`` holds None where a peer failed.
    """

    folder: Path
    options: str
    sky: dict[str, float]
    floor: float
    peers: dict[str, list[float] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, options: str) -> Case:
        """The set as it was kept, else a new one."""
        kept = folder / "known.json"
        if kept.exists():
            known = json.loads(kept.read_text())
            if known["options"] == options:
                return cls(folder, **known)
            for file in folder.glob("*.fits"):
                file.unlink()
        simulate(folder, options)
        truth = json.loads((folder / "truth.json").read_text())
        floor = float(run(BENCH / "crlb.py", str(folder)))
        case = cls(folder, options, {name: truth[name]["sky"] for name in sorted(truth)}, floor)
        case.keep()
        return case

    def keep(self) -> None:
        """Write what is known."""
        known = {"options": self.options, "sky": self.sky, "floor": self.floor, "peers": self.peers}
        part = self.folder / "known.part"
        part.write_text(json.dumps(known, indent=1))
        part.replace(self.folder / "known.json")

    def files(self) -> list[str]:
        """The images, in the order of ``sky``; made again where they are missing."""
        paths = [self.folder / name for name in self.sky]
        if not all(p.exists() for p in paths):
            simulate(self.folder, self.options)
        return [str(p) for p in paths]

    def errors(self, sky: np.ndarray) -> np.ndarray:
        """Errors of skies, their mean taken out."""
        difference = sky - np.array(list(self.sky.values()))
        return difference - difference.mean()


def case(scene: str, seed: int, data: Path = DATA) -> Case:
    """The set of a scene and a seed."""
    return Case.of(data / scene / str(seed), f"--seed {seed} {SCENES[scene]}".strip())


def check_bench() -> None:
    """Stop where the simulator isn't there."""
    if not BENCH.exists():
        sys.exit(f"the simulator is not in {BENCH}: set SKYMATCH_BENCH to its folder")


def simulate(folder: Path, options: str) -> None:
    """Write the images of a set, and ``truth.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    run(BENCH / "sim.py", str(folder), *options.split())


def run(script: Path, *arguments: str) -> str:
    """Run a Python script in this process, which has imported what it needs -> what it printed."""
    out = io.StringIO()
    with mock.patch.object(sys, "argv", [str(script), *arguments]), contextlib.redirect_stdout(out):
        runpy.run_path(str(script), run_name="__main__")
    return out.getvalue()
