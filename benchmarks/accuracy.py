"""How close the skies come to the floor: python benchmarks/accuracy.py [--seeds 40] [--scenes sparse nebula …].

Every scene is simulated with known skies for many seeds. For each tool the table gives the ratio of the rms error
(means taken out) to the Cramér-Rao floor of the same images, √(Σ err² / Σ floor²) over the seeds with its standard
error, and for our own the standard deviation of the pulls (error over sky_err). 1 is perfect. With --peers DIR
(made by the peers' install script) the first --peer-seeds seeds are also given to the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BENCH = Path(os.environ.get("SKYMATCH_BENCH", ROOT.parent / "shared" / "bench"))
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
PEERS = {
    "stcal": ("stsci/bin/python", "run_stcal.py"),
    "skypac": ("skypac/bin/python", "run_skypac.py"),
    "montage": ("other/bin/python", "run_montage.py", "--only", "level"),
    "reproject": ("other/bin/python", "run_reproject.py"),
}


@dataclass(frozen=True)
class Case:
    """One simulated set: its files, true skies and floor."""

    files: list[str]
    truth: np.ndarray
    floor: float


def simulate(scene: str, seed: int, data: Path) -> Case:
    folder = data / scene / str(seed)
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if not (folder / "crlb").exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--seed", str(seed), *SCENES[scene].split()]
        subprocess.run([sys.executable, str(BENCH / "sim.py"), str(folder), *options], check=True, env=env)
        done = subprocess.run(
            [sys.executable, str(BENCH / "crlb.py"), str(folder)], check=True, env=env, capture_output=True, text=True
        )
        (folder / "crlb").write_text(done.stdout)
    files = sorted(map(str, folder.glob("*.fits")))
    truth = json.loads((folder / "truth.json").read_text())
    skies = np.array([truth[Path(f).name]["sky"] for f in files])
    return Case(files, skies, float((folder / "crlb").read_text()))


def ours(case: Case, compare: str) -> tuple[np.ndarray, np.ndarray]:
    import skymatch_cli

    result = skymatch_cli.match(case.files, dry_run=True, compare=compare)
    sky, err = (np.asarray(result.images[name], float) for name in ("sky", "sky_err"))
    return errors(sky, case.truth), err


def peer(case: Case, peers: Path, name: str) -> np.ndarray | None:
    python, script, *options = PEERS[name]
    if not (peers / python).exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        files = case.files
        if name in {"montage", "reproject"}:
            files = plain(files, Path(folder))
        else:
            options = [*options, "--dqbits", "0"]
        command = [str(peers / python), str(BENCH / "peers" / script), *options, "--out", str(out), *files]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode or not out.exists():
            return None
        found = json.loads(out.read_text())["sky"]
    skies = [found.get(Path(f).name) for f in files]
    return None if None in skies else errors(np.array(skies, float), case.truth)


def plain(files: list[str], folder: Path) -> list[str]:
    """Copies without extensions: bad pixels are NaN."""
    from astropy.io import fits

    out = []
    for file in files:
        with fits.open(file) as hdus:
            science = hdus["SCI"] if "SCI" in hdus else hdus[0]
            data = science.data.astype("f4")
            if "DQ" in hdus:
                data[hdus["DQ"].data > 0] = np.nan
            out.append(str(folder / Path(file).name))
            fits.PrimaryHDU(data, science.header).writeto(out[-1], output_verify="silentfix")
    return out


def errors(sky: np.ndarray, truth: np.ndarray) -> np.ndarray:
    difference = sky - truth
    return difference - difference.mean()


def ratio(found: list[np.ndarray], floors: list[float]) -> tuple[float, float]:
    """Ratio of the rms error to the floor over seeds, and its standard error (jackknife)."""
    square = np.array([np.mean(e**2) for e in found])
    floor = np.array(floors[: len(square)]) ** 2
    value = float(np.sqrt(square.sum() / floor.sum()))
    n = len(square)
    left = np.sqrt((square.sum() - square) / (floor.sum() - floor)) if n > 1 else np.array([np.nan])
    return value, float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))


def scene_row(scene: str, seeds: range, options: argparse.Namespace) -> None:
    found: dict[str, list[np.ndarray]] = {}
    pulls: dict[str, list[np.ndarray]] = {}
    apart: list[float] = []
    floors: list[float] = []
    for k, seed in enumerate(seeds):
        case = simulate(scene, seed, options.data)
        floors.append(case.floor)
        for compare in options.compare:
            error, sigma = ours(case, compare)
            found.setdefault(compare, []).append(error)
            pulls.setdefault(compare, []).append(error / sigma)
        if options.peers is not None and k < options.peer_seeds:
            for name in options.peer_names:
                error_of_peer = peer(case, options.peers, name)
                if error_of_peer is not None:
                    found.setdefault(name, []).append(error_of_peer)
                    if name in {"stcal", "skypac"} and "pooled" in found:
                        apart.append(float(np.sqrt(np.mean((error_of_peer - found["pooled"][-1]) ** 2))) / case.floor)
    for name, of_tool in found.items():
        value, se = ratio(of_tool, floors)
        pull = f"{np.std(np.concatenate(pulls[name])):6.2f}" if name in pulls else "      "
        print(f"{scene:8s} {name:10s} {len(of_tool):5d} {value:8.3f} ± {se:5.3f} {pull}", flush=True)
    if apart:
        print(f"{scene:8s} pooled from stcal and skypac: {np.mean(apart):.2f} of the floor apart (rms)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=1001, help="first seed")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--compare", nargs="+", default=["pooled", "mesh"])
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "accuracy")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--peer-seeds", type=int, default=8)
    parser.add_argument("--peer-names", nargs="+", choices=list(PEERS), default=list(PEERS))
    options = parser.parse_args()
    if not BENCH.exists():
        sys.exit(f"the simulator is not in {BENCH}: set SKYMATCH_BENCH to its folder")
    warnings.simplefilter("ignore")
    print(f"{'scene':8s} {'tool':10s} {'seeds':>5s} {'ratio to the floor':>16s} {'pulls':>6s}")
    for scene in options.scenes:
        scene_row(scene, range(options.first, options.first + options.seeds), options)


if __name__ == "__main__":
    main()
