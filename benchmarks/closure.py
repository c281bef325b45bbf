"""How well differences close around loops on real images: python benchmarks/closure.py FILES [--peers DIR].

Around a loop of overlaps the differences a - b, b - c, c - a add up to zero, whatever the skies are: what is left is
error. For each way of comparing the table gives the rms over all loops of three images, over all loops of four whose
neighbours overlap by more than a twentieth of an image, and of the residuals about a solution with equal weights, with
their numbers. Only pairs that all of them compare are used. No images, no table.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import warnings
from pathlib import Path

import numpy as np
from peers import installed, peer_report, plain

Pairs = dict[tuple[int, int], float]  # images a < b: sky of a minus sky of b
TOOLS = ("montage", "reproject")
_LARGE = 0.05  # of the area of an image


def ours(files: list[str], compare: str) -> tuple[Pairs, dict[tuple[int, int], float]]:
    """Differences, and the part of an image that each overlap has."""
    import skymatch_cli

    result = skymatch_cli.match(files, dry_run=True, compare=compare)
    rows = result.overlaps[result.overlaps["status"] == "ok"]
    keys = [(int(a), int(b)) for a, b in zip(rows["a"], rows["b"], strict=True)]
    share = {key: min(n_a, n_b) for key, n_a, n_b in zip(keys, rows["n_a"], rows["n_b"], strict=True)}
    whole = float(np.median(result.images["n_pixels"]))
    return dict(zip(keys, np.asarray(rows["delta"]).tolist(), strict=True)), {
        key: n / whole for key, n in share.items()
    }


def of_peer(files: list[str], peers: Path, name: str) -> Pairs | None:
    """Differences that a peer found; None where it failed."""
    report = peer_report(files, peers, name)
    if not report or not isinstance(report.get("pairs"), list):
        return None
    number = {Path(f).name: k for k, f in enumerate(files)}
    found = {}
    for pair in report["pairs"]:
        i, j = (number[Path(pair[end]).name] for end in "ij")
        found[min(i, j), max(i, j)] = pair["diff"] if i < j else -pair["diff"]
    return found


def closures(pairs: Pairs, keys: set[tuple[int, int]], n: int) -> np.ndarray:
    """What is left around every loop of n images (3 or 4) whose neighbours are among these pairs."""
    both = {key: pairs[key] for key in keys} | {(b, a): -pairs[a, b] for a, b in keys}
    found = []
    for first, *others in itertools.combinations(sorted({image for key in keys for image in key}), n):
        for order in itertools.permutations(others):
            loop = [first, *order, first]
            if order[0] < order[-1] and all(step in both for step in itertools.pairwise(loop)):
                found.append(sum(both[step] for step in itertools.pairwise(loop)))
    return np.array(found)


def residuals(pairs: Pairs, keys: set[tuple[int, int]]) -> np.ndarray:
    """What is left of the differences about their least-squares solution."""
    rows = sorted(keys)
    design = np.zeros((len(rows), max(b for _, b in rows) + 1))
    for row, (a, b) in zip(design, rows, strict=True):
        row[a], row[b] = 1.0, -1.0
    delta = np.array([pairs[key] for key in rows])
    return delta - design @ np.linalg.lstsq(design, delta, rcond=None)[0]


def rms(x: np.ndarray) -> str:
    return f"{np.sqrt(np.mean(x**2)):.3f} ({len(x)})" if len(x) else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    files = sorted(f for f in options.files if Path(f).exists())
    if not files:
        print("no images: skipped")
        return
    warnings.simplefilter("ignore")
    found: dict[str, Pairs] = {}
    share: dict[tuple[int, int], float] = {}
    for compare in ("mesh", "pooled"):
        found[compare], share = ours(files, compare)
    with tempfile.TemporaryDirectory() as folder:
        copies = plain(files, Path(folder))
        for name in TOOLS if options.peers is not None else ():
            pairs = of_peer(copies, options.peers, name) if name in installed(options.peers) else None
            if pairs is not None:
                found[name] = pairs
    common = set.intersection(*(set(pairs) for pairs in found.values()))
    large = {key for key in common if share[key] > _LARGE}
    print("| comparison | loops of three | loops of four, larger overlaps | residuals |\n|---|---|---|---|")
    for name, pairs in found.items():
        cells = rms(closures(pairs, common, 3)), rms(closures(pairs, large, 4)), rms(residuals(pairs, common))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
