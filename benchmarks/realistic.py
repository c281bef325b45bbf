"""How close skies come to the truth on realistic scenes: python benchmarks/realistic.py [--seeds 8] [--scenes base …].

The scenes are those of the simulator realsim.py (Moffat wings, photon and read noise, saturation, gradients, ghosts,
sparse counts, padding…), looked for where benchmarks/simulated.py says. For each scene and each way of comparing, over
the seeds: the rms error (means taken out) over the Cramér-Rao floor; the rms of the pulls (error over sky_err; 1 where
the errors are true) with its standard error (jackknife over the seeds); and on how many seeds some image is off by more
than 5 sky_err without a warning. The table on standard output is Markdown, a line a scene.

--own-sky: the own sky of each image (--method localmin), without and with --mask-sources: the mean error in counts, and
the rms of error over sky_err.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from accuracy import ratio as jackknifed
from simulated import BENCH, ROOT, check_bench

DATA = ROOT / "build" / "realistic"
SILENT = 5.0  # sky_err


@dataclass(slots=True)
class Found:
    """Mean square error over that of the floor, pulls, and whether a large one came without a warning."""

    square: float
    floor: float
    pulls: np.ndarray
    silent: bool


def simulator() -> dict:
    """What realsim.py defines."""
    return runpy.run_path(str(BENCH / "realsim.py"))


def truth_of(scene: str, seed: int, data: Path) -> dict:
    """What is true of a set, which is made where it is missing."""
    folder = data / f"{scene}-{seed}"
    if not (folder / "truth.json").exists():
        simulator()["make"](scene, 5000 + seed, str(folder))
    return json.loads((folder / "truth.json").read_text())


def measure(task: tuple[str, int], options: argparse.Namespace) -> dict[str, Found | str]:
    """All ways of comparing on one set."""
    import skymatch_cli
    from skymatch_cli.model.warning import told

    scene, seed = task
    folder = options.data / f"{scene}-{seed}"
    truth = truth_of(scene, seed, options.data)
    area = np.array(list(truth["area"].values()))
    found: dict[str, Found | str] = {}
    for compare in options.compare:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                files = [str(folder / name) for name in truth["sky"]]
                masked = options.mask_sources and compare == "pooled"
                result = skymatch_cli.match(files, dry_run=True, compare=compare, mask_sources=masked, jobs=1)
            except Exception as error:  # noqa: BLE001 - a crash is a result
                found[compare] = type(error).__name__
                continue
        sky, err = (np.asarray(result.images[name], float) for name in ("sky", "sky_err"))
        error = (sky - np.array(list(truth["sky"].values()))) / area
        error -= error.mean()
        pulls = error * area / err
        silent = bool(np.abs(pulls).max() > SILENT) and not told(result.warnings, ())
        found[compare] = Found(float(np.mean(error**2)), truth["floor"] ** 2, pulls, silent)
    return found


def own_skies(task: tuple[str, int], options: argparse.Namespace) -> dict[bool, tuple[np.ndarray, np.ndarray]]:
    """Errors of the own skies of a set, and their pulls, with and without sources."""
    import skymatch_cli

    scene, seed = task
    truth = truth_of(scene, seed, options.data)
    files = [str(options.data / f"{scene}-{seed}" / name) for name in truth["sky"]]
    found = {}
    for masked in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = skymatch_cli.match(files, dry_run=True, method="localmin", mask_sources=masked, jobs=1).images
        error = np.asarray(images["sky"], float) - np.array(list(truth["sky"].values()))
        found[masked] = error, error / np.asarray(images["sky_err"], float)
    return found


def own_sky_cells(found: list[dict[bool, tuple[np.ndarray, np.ndarray]]]) -> list[str]:
    error, pull = (
        [np.concatenate([of_set[masked][k] for of_set in found]) for masked in (False, True)] for k in (0, 1)
    )
    return [
        cell for e, p in zip(error, pull, strict=True) for cell in (f"{e.mean():+.2f}", f"{np.sqrt(np.mean(p**2)):.1f}")
    ]


def cells(found: list[Found | str]) -> list[str]:
    """Ratio to the floor, std of the pulls and silent seeds; the name of an error where there was one."""
    done = [f for f in found if isinstance(f, Found)]
    failed = sorted({f for f in found if isinstance(f, str)})
    if not done:
        return [", ".join(failed), "", ""]
    ratio = np.sqrt(sum(f.square for f in done) / sum(f.floor for f in done))
    pull, pull_se = jackknifed([f.pulls for f in done], [1.0] * len(done))
    name = f" ({', '.join(failed)})" * bool(failed)
    return [f"{ratio:.2f}{name}", f"{pull:.2f} ± {pull_se:.2f}", str(sum(f.silent for f in done))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--scenes", nargs="+", help="all by default")
    parser.add_argument("--compare", nargs="+", default=["mesh", "pooled"])
    parser.add_argument("--mask-sources", action="store_true", help="leave sources out of pooled overlaps")
    parser.add_argument("--own-sky", action="store_true", help="of each image, instead of the comparison")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--jobs", type=int, default=2, help="sets worked on at a time")
    options = parser.parse_args()
    check_bench()
    scenes = options.scenes or list(simulator()["SCENES"])
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the processes that are started
    heads = [f"{c}: {what}" for c in options.compare for what in ("× floor", "pull", "silent")]
    if options.own_sky:
        heads = ["bias", "rms pull", "sources masked: bias", "rms pull"]
    print(
        f"{options.seeds} seeds from {options.first} on\n\n| scene | "
        + " | ".join(heads)
        + " |\n|"
        + "---|" * (len(heads) + 1),
        flush=True,
    )
    tasks = [(scene, seed) for scene in scenes for seed in range(options.first, options.first + options.seeds)]
    with ProcessPoolExecutor(options.jobs) as pool:
        results = pool.map(partial(own_skies if options.own_sky else measure, options=options), tasks)
        for scene in scenes:
            found = [next(results) for _ in range(options.seeds)]
            if options.own_sky:
                print(f"| {scene} | " + " | ".join(own_sky_cells(found)) + " |", flush=True)
                continue
            line = [cell for compare in options.compare for cell in cells([f[compare] for f in found])]
            print(f"| {scene} | " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
