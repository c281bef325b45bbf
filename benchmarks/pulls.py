"""Whether sky_err is true: python benchmarks/pulls.py [--mosaics 56] [--layouts grid chain …].

Many small mosaics (frames of 256 pixels, star fields) are simulated with known skies, in layouts from a chain to a
deep stack. A pull is the error of a sky over its ``sky_err``, both where the mean of the component is zero; where the
errors are true the standard deviation of the pulls is 1. For each layout and comparison the table gives it with its
standard error (jackknife over the mosaics), the share of pulls beyond 2 (4.6 % of Gaussian ones), chi2/dof of all
mosaics together and the ratio of the rms error to the Cramér-Rao floor.
"""

from __future__ import annotations

import argparse
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from accuracy import ratio
from simulated import DATA, Case, check_bench

LAYOUTS = {
    "grid": "--nx 3 --ny 3",
    "chain": "--layout chain --nx 8 --ny 1",
    "stack of 10": "--layout dither --nx 10 --ny 1",
    "stack of 24": "--layout dither --nx 24 --ny 1",
}
COMPARISONS = ("mesh", "pooled")
Found = dict[str, tuple[np.ndarray, np.ndarray, float, float]]  # errors, pulls, chi2, dof


def measure(task: tuple[str, int], options: argparse.Namespace) -> tuple[float, Found]:
    """Floor of one mosaic, and what each comparison finds."""
    import skymatch_cli

    layout, seed = task
    warnings.simplefilter("ignore")
    known = Case.of(options.data / layout.replace(" ", "-") / str(seed), f"--seed {seed} --size 256 {LAYOUTS[layout]}")
    found: Found = {}
    for compare in COMPARISONS:
        result = skymatch_cli.match(known.files(), dry_run=True, compare=compare, jobs=1)
        error = known.errors(np.asarray(result.images["sky"]))
        components = result.components
        pulls = error / np.asarray(result.images["sky_err"])
        found[compare] = error, pulls, components["chi2"].sum(), components["dof"].sum()
    if not options.keep:
        for file in known.files():
            Path(file).unlink()
    return known.floor, found


def row(layout: str, compare: str, done: list[tuple[float, Found]]) -> str:
    """One line of the table."""
    errors, pulls, chi2, dof = zip(*(found[compare] for _, found in done), strict=True)
    spread, se = ratio(list(pulls), [1.0] * len(pulls))
    value, value_se = ratio(list(errors), [floor for floor, _ in done])
    beyond = np.mean(np.abs(np.concatenate(pulls)) > 2)
    cells = [layout, compare, str(len(done)), f"{spread:.3f} ± {se:.3f}", f"{100 * beyond:.1f} %"]
    cells += [f"{sum(chi2) / max(sum(dof), 1e-9):.2f}", f"{value:.2f} ± {value_se:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mosaics", type=int, default=56, help="of each layout")
    parser.add_argument("--first", type=int, default=5001, help="first seed")
    parser.add_argument("--layouts", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--data", type=Path, default=DATA.parent / "pulls")
    parser.add_argument("--keep", action="store_true", help="don't throw the pixels away")
    parser.add_argument("--jobs", type=int, default=2, help="mosaics worked on at a time")
    options = parser.parse_args()
    check_bench()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the processes that are started
    print("| layout | comparison | mosaics | std of pulls | beyond 2 | chi2/dof | error / floor |")
    print("|---|---|---|---|---|---|---|", flush=True)
    seeds = range(options.first, options.first + options.mosaics)
    tasks = [(layout, seed) for layout in options.layouts for seed in seeds]
    with ProcessPoolExecutor(options.jobs) as pool:
        found = pool.map(partial(measure, options=options), tasks)
        for layout in options.layouts:
            done = [next(found) for _ in seeds]
            for compare in COMPARISONS:
                print(row(layout, compare, done), flush=True)


if __name__ == "__main__":
    main()
