"""How near ``--model plane`` comes to its floor: errors of levels and tilts over simulated grids.

    python benchmarks/accuracy_plane.py SIM.PY [--seeds 4] [--first 1] [-- SIMULATOR OPTIONS]

Ratios of rms errors to ``floor_plane``, over all seeds, and pulls (error / sigma) of the levels. The simulator
writes images and ``truth.json`` (``sky`` at the centre, ``gradient`` from edge to edge along x and y).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import floor_plane
import numpy as np

from skymatch_cli import match


def errors(files: list[Path], truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N, 3) of level and tilts, in the gauge where their means are zero; pulls (N,) of the levels."""
    result = match(files, compare="mesh", model="plane", dry_run=True)
    images = result.images
    places, slopes = floor_plane.geometry(files)
    size = np.array([floor_plane.science(f)[0].shape[::-1] for f in files])
    level = images["sky"] - np.array([truth[f.name]["sky"] for f in files])
    along = np.column_stack([images["sky_dx"], images["sky_dy"]])
    along = along - np.array([truth[f.name]["gradient"] for f in files]) / (size - 1)
    tilt = np.array([np.linalg.solve(slope.T, t) for slope, t in zip(slopes, along, strict=True)])
    found = floor_plane.gauge(places) @ np.column_stack([level, tilt]).ravel()
    found = found.reshape(-1, 3)
    return found, found[:, 0] / np.asarray(images["sky_err"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=1)
    options, more = parser.parse_known_args()
    more = [word for word in more if word != "--"] or ["--gradient", "5"]
    levels, tilts, pulls = [], [], []
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(options.simulator), folder, "--seed", str(seed), *more]
            subprocess.run(command, check=True)
            files = sorted(Path(folder).glob("*.fits"))
            truth = json.loads((Path(folder) / "truth.json").read_text())
            level, tilt, constant = floor_plane.floors(files)
            found, pull = errors(files, truth)
        levels.append((found[:, 0] ** 2).mean() / level**2)
        tilts.append((found[:, 1:] ** 2).mean() / tilt**2)
        pulls.append(pull)
        print(
            f"seed {seed}: level {levels[-1] ** 0.5:.2f}, tilt {tilts[-1] ** 0.5:.2f} x floor; "
            f"floor {level:.4f}, {level / constant:.1f} x that of constants",
            flush=True,
        )
    for name, square in (("level", levels), ("tilt", tilts)):
        ratio = np.sqrt(np.mean(square))
        spread = np.std(square, ddof=1) / np.sqrt(len(square)) / (2 * ratio) if len(square) > 1 else np.nan
        print(f"{name}: {ratio:.3f} +- {spread:.3f} x floor")
    print(f"pulls of the levels: standard deviation {np.std(np.concatenate(pulls)):.2f}")


if __name__ == "__main__":
    main()
