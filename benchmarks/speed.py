"""How long a match takes beside the floor for time: python benchmarks/speed.py [--rounds 3] [--scenes A B B4].

Each scene is simulated once (into --data). A round runs every command once, in turn, as a process of its own; what is
printed, as Markdown, are medians over the rounds: the ratio to the floor **in the same round**, wall and processor
time, and the peak memory of the largest process. The floor imports the run-time packages, reads every pixel once and
adds it up. With --peers DIR (made by the peers' install script) the peers are run beside, in the first round.

Then what a run with -v says of its stages, and the time of a match of two images of 64 x 64 pixels beside that of
importing the packages that it needs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from peers import PEERS, RESAMPLING, installed, plain
from simulated import BENCH, ROOT, check_bench

SKYMATCH = str(Path(sys.executable).parent / "skymatch")
SCENES = {
    "A": "--nx 6 --ny 5 --size 2048 --overlap 0.12 --stars 1e-3 --rotate 3 --dq --badcols 0.01",
    "B": "--layout dither --nx 6 --ny 4 --size 1024 --overlap 0.15 --rotate 30 --dq --badcols 0.01",
    "B4": "--layout dither --nx 12 --ny 8 --size 1024 --overlap 0.15 --rotate 30 --dq --badcols 0.01",
}
OURS = ("pooled", "mesh")
NEEDED = """import click, numpy, astropy.wcs, pyproj, shapely, scipy.sparse.csgraph, scipy.sparse.linalg
from astropy.io import fits"""


@dataclass(frozen=True)
class Run:
    """One process: wall and processor seconds, and the peak memory of the largest of its processes."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def timed(command: list[str]) -> Run:
    """Run a command to its end; its output is thrown away."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = status
        if status:
            said.seek(0)
            sys.exit(f"{' '.join(command[:6])} … failed:\n{said.read().decode(errors='replace')}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def environment() -> dict[str, str]:
    """As at a user's: bytecode is kept."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def simulate(scene: str, folder: Path) -> list[str]:
    if not (folder / "truth.json").exists():
        subprocess.run([sys.executable, str(BENCH / "sim.py"), str(folder), *SCENES[scene].split()], check=True)
    return sorted(map(str, folder.glob("*.fits")))


def commands(files: list[str], peers: Path | None, plain_files: list[str]) -> dict[str, list[str]]:
    found = {"floor": [sys.executable, str(BENCH / "limit.py"), *files]}
    for compare in OURS:
        found[compare] = [SKYMATCH, "match", "--dry-run", "-q", "--compare", compare, *files]
    for name in installed(peers) if peers is not None else ():
        python, script, *options = PEERS[name]
        names, dq = (plain_files, ()) if name in RESAMPLING else (files, ("--dqbits", "0"))
        found[name] = [str(peers / python), str(BENCH / "peers" / script), *options, *dq, "--out", os.devnull, *names]
    return found


def plain_copies(files: list[str], folder: Path) -> list[str]:
    """For peers that know no DQ extension."""
    folder.mkdir(exist_ok=True)
    found = sorted(map(str, folder.glob("*.fits")))
    return found if len(found) == len(files) else plain(files, folder)


def scene_rows(scene: str, files: list[str], rounds: int, peers: Path | None) -> dict[str, float]:
    """Print the rows of a scene; the median wall times."""
    plain_files = plain_copies(files, Path(files[0]).parent / "plain") if peers is not None else []
    runs: dict[str, list[Run]] = {}
    for k in range(rounds):
        for name, command in commands(files, peers if k == 0 else None, plain_files).items():
            runs.setdefault(name, []).append(timed(command))
    walls = {}
    for name, done in runs.items():
        ratio = statistics.median(r.wall_s / f.wall_s for r, f in zip(done, runs["floor"], strict=False))
        walls[name], cpu, peak = (
            statistics.median(getattr(r, of) for r in done) for of in ("wall_s", "cpu_s", "peak_mib")
        )
        print(f"| {scene} | {name} | {ratio:.2f} | {walls[name]:.2f} | {cpu:.2f} | {peak:.0f} |", flush=True)
    return walls


def stages(scene: str, files: list[str]) -> None:
    """What -v says of the stages."""
    for compare in OURS:
        done = subprocess.run(
            [SKYMATCH, "match", "--dry-run", "-v", "--compare", compare, *files],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        lines = [line.removeprefix("skymatch: ") for line in done.stderr.splitlines()]
        shown = [
            line for line in lines if line.split()[0] in {"headers", "geometry", "pixels", "solve", "output", "total"}
        ]
        print(f"\n{scene}, {compare}:\n\n```text\n" + "\n".join(shown[-6:]) + "\n```")


def start_up(rounds: int) -> None:
    """A match of two small images beside the imports that it needs."""
    from astropy.io import fits
    from astropy.wcs import WCS
    from numpy import full

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for k in range(2):
            wcs = WCS(naxis=2)
            wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150, 20], [-1e-4, 1e-4]
            wcs.wcs.crpix = [32 - 30 * k, 32]
            files.append(str(Path(folder) / f"{k}.fits"))
            fits.PrimaryHDU(full((64, 64), 100 + k, "f4"), wcs.to_header()).writeto(files[-1])
        match, needed = [SKYMATCH, "match", "--dry-run", "-q", *files], [sys.executable, "-c", NEEDED]
        pairs = [(timed(match).wall_s, timed(needed).wall_s) for _ in range(max(5, rounds))]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"\nA match of two images of 64 x 64 pixels takes {ratio:.2f} times the imports that it needs.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    check_bench()
    walls: dict[str, dict[str, float]] = {}
    print("| scene | | × floor | wall, s | CPU, s | peak, MiB |\n|---|---|---|---|---|---|")
    for scene in options.scenes:
        files = simulate(scene, options.data / scene)
        walls[scene] = scene_rows(scene, files, options.rounds, options.peers if scene != "B4" else None)
    for name in OURS:
        if {"B", "B4"} <= walls.keys():
            print(f"\nFour times the images of B, {name}: {walls['B4'][name] / walls['B'][name]:.1f} times the time.")
    for scene in options.scenes:
        stages(scene, simulate(scene, options.data / scene))
    start_up(options.rounds)


if __name__ == "__main__":
    main()
