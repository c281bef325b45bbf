"""How near --model plane comes to its floor: python benchmarks/accuracy_plane.py [--seeds 20] [--scenes grid chain …].

Every scene is simulated with known levels and tilts for many seeds. The table gives the ratios of the rms errors of
levels (at the centres of the images) and tilts to the floors of ``floor_plane.py``, √(Σ err² / Σ floor²) with standard
errors (jackknife), where mean level and mean tilt are zero; the standard deviation of the levels' pulls; how much
larger the floor of the levels is than that of constants; and in how many sets the tilts were said to be weak.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import floor_plane
import numpy as np
from accuracy import ratio
from simulated import DATA, Case, check_bench

SCENES = {
    "grid": "--gradient 5",
    "large grid": "--gradient 5 --nx 6 --ny 5 --size 300",
    "chain": "--gradient 5 --layout chain --nx 12 --ny 1",
    "dither": "--gradient 5 --layout dither --nx 5 --ny 2 --nebula 50",
    "sip": "--gradient 5 --sip --rotate 20",
    "nebula": "--gradient 5 --nebula 50",
}


@dataclass(slots=True)
class Found:
    """Errors of levels and tilts on one set, pulls of the levels, the floors, and whether tilts were called weak."""

    level: np.ndarray
    tilt: np.ndarray
    pulls: np.ndarray
    floors: list[float]  # of levels, of tilts, of the levels of constants
    weak: bool


def measure(task: tuple[str, int], options: argparse.Namespace) -> Found:
    """One set: floors, which are kept, and our own planes, which are not."""
    from skymatch_cli import match

    scene, seed = task
    warnings.simplefilter("ignore")
    known = Case.of(options.data / scene.replace(" ", "-") / str(seed), f"--seed {seed} {SCENES[scene]}")
    files = [Path(f) for f in known.files()]
    result = match(files, compare="mesh", model="plane", dry_run=True, jobs=1)
    level, tilt, pulls = errors(files, result.images, known)
    weak = any("hardly determine tilts" in w for w in result.warnings)
    return Found(level, tilt, pulls, floors(files, known), weak)


def floors(files: list[Path], known: Case) -> list[float]:
    """The floors of a set, found once."""
    kept = known.folder / "floors.json"
    if not kept.exists():
        kept.write_text(json.dumps(list(map(float, floor_plane.floors(files)))))
    return json.loads(kept.read_text())


def errors(files: list[Path], images, known: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors (N,) of levels and (N, 2) of tilts where their means are zero; pulls (N,) of the levels."""
    truth = json.loads((known.folder / "truth.json").read_text())
    places, slopes = floor_plane.geometry(files)
    size = np.array([floor_plane.science(f)[0].shape[::-1] for f in files])
    level = np.asarray(images["sky"]) - np.array([truth[f.name]["sky"] for f in files])
    along = np.column_stack([np.asarray(images[name]) for name in ("sky_dx", "sky_dy")])
    along = along - np.array([truth[f.name]["gradient"] for f in files]) / (size - 1)
    tilt = np.array([np.linalg.solve(slope.T, t) for slope, t in zip(slopes, along, strict=True)])
    found = (floor_plane.gauge(places) @ np.column_stack([level, tilt]).ravel()).reshape(-1, 3)
    return found[:, 0], found[:, 1:], found[:, 0] / np.asarray(images["sky_err"])


def row(scene: str, found: list[Found]) -> str:
    """One line of the table."""
    level, tilt, constant = zip(*(f.floors for f in found), strict=True)
    cells = [scene, str(len(found))]
    for part, floor in (([f.level for f in found], level), ([f.tilt for f in found], tilt)):
        value, se = ratio(part, list(floor))
        cells.append(f"{value:.2f} ± {se:.2f}")
    cells += [f"{np.std(np.concatenate([f.pulls for f in found])):.2f}", f"{np.mean(level) / np.mean(constant):.1f}"]
    return "| " + " | ".join([*cells, f"{sum(f.weak for f in found)}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=3001, help="first seed")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--data", type=Path, default=DATA.parent / "accuracy-plane")
    parser.add_argument("--jobs", type=int, default=2, help="sets worked on at a time")
    options = parser.parse_args()
    check_bench()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the processes that are started
    print("| scene | seeds | level / floor | tilt / floor | pulls | floor / that of constants | called weak |")
    print("|---|---|---|---|---|---|---|", flush=True)
    seeds = range(options.first, options.first + options.seeds)
    tasks = [(scene, seed) for scene in options.scenes for seed in seeds]
    with ProcessPoolExecutor(options.jobs) as pool:
        found = pool.map(partial(measure, options=options), tasks)
        for scene in options.scenes:
            print(row(scene, [next(found) for _ in seeds]), flush=True)


if __name__ == "__main__":
    main()
