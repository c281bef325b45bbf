"""How long a match takes beside the floor for time: python benchmarks/speed.py [--rounds 3] [--scenes A B B4].

Each scene is simulated once (into --data). A round runs every command once, in turn, as a process of its own; what
is printed are medians over the rounds of wall time, of the ratio to the floor **in the same round**, and of peak
memory. The floor imports the run-time packages, reads every pixel once and adds it up. With --peers DIR (made by
the peers' install script) the peers are run beside.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = Path(os.environ.get("SKYMATCH_BENCH", ROOT.parent / "shared" / "bench"))
SCENES = {
    "A": "--nx 6 --ny 5 --size 2048 --overlap 0.12 --stars 1e-3 --rotate 3 --dq --badcols 0.01",
    "B": "--layout dither --nx 6 --ny 4 --size 1024 --overlap 0.15 --rotate 30 --dq --badcols 0.01",
    "B4": "--layout dither --nx 12 --ny 8 --size 1024 --overlap 0.15 --rotate 30 --dq --badcols 0.01",
}
PEERS = {
    "stcal": ("stsci/bin/python", "run_stcal.py", "--dqbits", "0"),
    "skypac": ("skypac/bin/python", "run_skypac.py", "--dqbits", "0"),
}


@dataclass(frozen=True)
class Run:
    """One process: wall seconds and peak memory."""

    wall_s: float
    peak_mib: float


def timed(command: list[str]) -> Run:
    """Run a command to its end; its output is thrown away."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read() if process.stderr is not None else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command[:6])} … failed:\n{said.decode(errors='replace')}")
    return Run(wall, usage.ru_maxrss / 1024)


def simulate(scene: str, folder: Path) -> list[str]:
    if not (folder / "truth.json").exists():
        subprocess.run([sys.executable, str(BENCH / "sim.py"), str(folder), *SCENES[scene].split()], check=True)
    return sorted(map(str, folder.glob("*.fits")))


def commands(files: list[str], peers: Path | None) -> dict[str, list[str]]:
    ours = [str(Path(sys.executable).parent / "skymatch"), "match", "--dry-run", "-q"]
    found = {
        "floor": [sys.executable, str(BENCH / "limit.py"), *files],
        "pooled": [*ours, *files],
        "mesh": [*ours, "--compare", "mesh", *files],
    }
    for name, (python, script, *options) in PEERS.items():
        if peers is not None and (peers / python).exists():
            found[name] = [str(peers / python), str(BENCH / "peers" / script), *options, "--out", os.devnull, *files]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    if not BENCH.exists():
        sys.exit(f"the simulator is not in {BENCH}: set SKYMATCH_BENCH to its folder")
    walls: dict[tuple[str, str], float] = {}
    print(f"{'scene':6s} {'command':8s} {'wall, s':>8s} {'x floor':>8s} {'peak, MiB':>10s}")
    for scene in options.scenes:
        files = simulate(scene, options.data / scene)
        runs: dict[str, list[Run]] = {}
        for k in range(options.rounds):
            for name, command in commands(files, options.peers if k == 0 or scene != "B4" else None).items():
                runs.setdefault(name, []).append(timed(command))
        for name, done in runs.items():
            ratio = statistics.median(r.wall_s / f.wall_s for r, f in zip(done, runs["floor"], strict=False))
            walls[scene, name] = statistics.median(r.wall_s for r in done)
            peak = statistics.median(r.peak_mib for r in done)
            print(f"{scene:6s} {name:8s} {walls[scene, name]:8.2f} {ratio:8.2f} {peak:10.0f}", flush=True)
    for name in ("pooled", "mesh"):
        if ("B", name) in walls and ("B4", name) in walls:
            print(f"four times the images of B, {name}: {walls['B4', name] / walls['B', name]:.1f} times the time")


if __name__ == "__main__":
    main()
