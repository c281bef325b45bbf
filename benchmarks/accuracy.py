"""How close the skies come to the floor: python benchmarks/accuracy.py [--seeds 40] [--scenes sparse nebula …].

Every scene is simulated with known skies for many seeds. For each tool the table gives the ratio of the rms error
(means taken out) to the Cramér-Rao floor of the same images, √(Σ err² / Σ floor²) over the seeds with its standard
error (jackknife), and for our own the standard deviation of the pulls (error over sky_err). 1 is perfect.

With --peers DIR (made by the peers' install script) the first --peer-seeds seeds are also given to the peers, and
``mesh, same seeds`` is for comparison with these. What peers find is kept with the data and not asked for again; our
own skies are measured anew in every run. The table on standard output is Markdown, a line a scene.
"""

from __future__ import annotations

import argparse
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from peers import PEERS, installed, peer_skies
from simulated import DATA, SCENES, Case, case, check_bench

TITLES = {
    "sparse": "sparse stars",
    "crowded": "crowded, seeing differs by up to 60 %",
    "nebula": "nebula",
    "blobs": "nebula, masks differ",
    "sip": "SIP, rotated",
    "dither": "ten dithers on nebula",
    "chain": "chain of 12",
    "cr": "cosmic rays unmasked, 2e-3 per pixel",
    "bright": "bright nebula",
}


@dataclass(slots=True)
class Found:
    """Errors of each tool on one set, pulls of our own, and the floor."""

    floor: float
    errors: dict[str, np.ndarray] = field(default_factory=dict)
    pulls: dict[str, np.ndarray] = field(default_factory=dict)


def measure(task: tuple[str, int, bool], options: argparse.Namespace) -> Found:
    """All tools on one set: ``task`` is the scene, the seed and whether peers are asked."""
    scene, seed, with_peers = task
    warnings.simplefilter("ignore")
    known = case(scene, seed, options.data)
    found = Found(known.floor)
    for compare in options.compare:
        found.errors[compare], found.pulls[compare] = ours(known, compare)
    for name in options.peer_names if with_peers else ():
        if (error := peer(known, options.peers, name)) is not None:
            found.errors[name] = error
    return found


def ours(known: Case, compare: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors of our skies, and in units of their sigmas."""
    import skymatch_cli

    images = skymatch_cli.match(known.files(), dry_run=True, compare=compare, jobs=1).images
    error = known.errors(np.asarray(images["sky"], float))
    return error, error / np.asarray(images["sky_err"], float)


def peer(known: Case, peers: Path, name: str) -> np.ndarray | None:
    """Errors of a peer, as they were kept or found now; None where it fails."""
    if name not in known.peers:
        skies = peer_skies(known.files(), peers, name)
        known.peers[name] = None if skies is None else known.errors(skies).tolist()
        known.keep()
    kept = known.peers[name]
    return None if kept is None else np.array(kept)


def ratio(errors: list[np.ndarray], floors: list[float]) -> tuple[float, float]:
    """Ratio of the rms error to the floor over seeds, and its standard error (jackknife)."""
    square = np.array([np.mean(e**2) for e in errors])
    floor = np.array(floors) ** 2
    value = float(np.sqrt(square.sum() / floor.sum()))
    n = len(square)
    if n < 2:
        return value, np.nan
    left = np.sqrt((square.sum() - square) / (floor.sum() - floor))
    return value, float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))


def cell(found: list[Found], tool: str, expected: int) -> str:
    """Ratio and its standard error; the number of seeds where the tool failed on some."""
    done = [f for f in found if tool in f.errors]
    if not done:
        return "–"
    value, se = ratio([f.errors[tool] for f in done], [f.floor for f in done])
    digits = 2 if value < 5 else 1 if value < 20 else 0
    failed = f" ({expected - len(done)} of {expected} failed)" if len(done) < expected else ""
    return f"{value:.{digits}f} ± {se:.{digits}f}{failed}"


def row(scene: str, found: list[Found], options: argparse.Namespace) -> str:
    """One line of the table."""
    cells = [cell(found, compare, len(found)) for compare in options.compare]
    asked = found[: options.peer_seeds]
    if options.peer_names:
        cells += [cell(asked, name, len(asked)) for name in ("mesh", *options.peer_names)]
    cells += [f"{np.std(np.concatenate([f.pulls[c] for f in found])):.2f}" for c in options.compare]
    return "| " + " | ".join([TITLES[scene], *cells]) + " |"


def heading(options: argparse.Namespace) -> str:
    cells = ["scene", *options.compare]
    if options.peer_names:
        cells += ["mesh, same seeds", *options.peer_names]
    cells += [f"pulls: {c}" for c in options.compare]
    return "| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=1001, help="first seed")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--compare", nargs="+", default=["mesh", "pooled"])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--peer-seeds", type=int, default=8)
    parser.add_argument("--peer-names", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--jobs", type=int, default=2, help="sets worked on at a time")
    options = parser.parse_args()
    check_bench()
    there = [] if options.peers is None else installed(options.peers)
    options.peer_names = [name for name in options.peer_names if name in there]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the processes that are started
    tasks = [(s, options.first + k, k < options.peer_seeds) for s in options.scenes for k in range(options.seeds)]
    print(f"seeds {options.first} to {options.first + options.seeds - 1}, ", end="")
    print(f"peers on the first {options.peer_seeds}\n" if options.peer_names else "no peers\n")
    print(heading(options), flush=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        found = pool.map(partial(measure, options=options), tasks)
        for scene in options.scenes:
            print(row(scene, [next(found) for _ in range(options.seeds)], options), flush=True)


if __name__ == "__main__":
    main()
