"""Seconds, memory and error of the solver on large graphs of overlaps (no pixels).

python benchmarks/scale_solve.py [CASE…]    with cases such as grid:1000000 or random:3000:12

A case is a topology, the number of images and (for ``random``) the overlaps per image; each runs in a process
of its own. Without cases: all topologies of a sky at 10^5, the chain, the grid and the components at 10^6. Random
graphs are for thousands of images: their factors fill in, but overlaps of footprints make no random graph.
``s exact``, ``s noisy``: seconds for noise-free and for noisy differences, errors included, one thread.
``error``: largest error on noise-free differences, relative to the largest sky, with weights over 4 decades.
``pull``: largest change by one more solution from the residuals, in units of sigma.
``scatter``: standard deviation of error/sigma, over the images of one realisation.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from skymatch_cli.solve.offsets import solve_offsets

_ONCE_MORE = 200_000  # images: above, ``pull`` would take half as long again
CASES = [
    *(f"{name}:100000" for name in ("chain", "strip", "grid", "dithers", "components", "tree", "star")),
    "chain:1000000",
    "grid:1000000",
    "components:1000000",
]


def lattice(*shape: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbours no farther than ``reach`` on a lattice (stack, rows, columns)."""
    index = np.arange(np.prod(shape)).reshape(shape)
    a, b = [], []
    for dy in range(int(reach) + 1):
        for dx in range(-int(reach), int(reach) + 1):
            if (dy, dx) > (0, 0) and dy * dy + dx * dx <= reach * reach:
                left, right = slice(max(0, -dx), shape[2] - max(0, dx)), slice(max(0, dx), shape[2] - max(0, -dx))
                a.append(index[:, : shape[1] - dy, left].ravel())
                b.append(index[:, dy:, right].ravel())
    return np.concatenate(a), np.concatenate(b)


def pairs(name: str, n: int, per_image: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    side = int(np.sqrt(n))
    match name:
        case "chain":
            return np.arange(n - 1), np.arange(1, n)
        case "strip":
            return lattice(1, n // 4, 4, reach=1.5)
        case "grid":
            return lattice(1, side, side, reach=1.5)
        case "dithers":
            return lattice(1, side, side, reach=2.9)
        case "components":
            return lattice(10_000, n // 100_000, 10, reach=1.5)
        case "tree":
            return (rng.random(n - 1) * np.arange(1, n)).astype(np.int64), np.arange(1, n)
        case "star":
            return np.zeros(n - 1, np.int64), np.arange(1, n)
        case "random":
            a, b = rng.integers(0, n, (2, per_image * n))
            return a[a != b], b[a != b]
    raise SystemExit(f"no topology {name}")


def run(case: str) -> None:
    name, size, *rest = case.split(":")
    rng = np.random.default_rng(7)
    a, b = pairs(name, int(size), int(rest[0]) if rest else 0, rng)
    n = int(max(a.max(), b.max())) + 1
    err = 10 ** rng.uniform(-1, 1, len(a))
    truth = rng.normal(0, 1000, n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    exact = solve_offsets(n, a, b, truth[a] - truth[b], err**-2.0)
    noise_free = time.perf_counter() - start
    mean = np.bincount(exact.component, truth)[exact.component] / np.bincount(exact.component)[exact.component]
    error = np.abs(exact.offset - truth + mean).max() / np.abs(truth).max()

    delta = truth[a] - truth[b] + err * rng.normal(size=len(a))
    start, cpu = time.perf_counter(), time.process_time()
    noisy = solve_offsets(n, a, b, delta, err**-2.0)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pull = np.nan
    if n <= _ONCE_MORE:
        again = solve_offsets(n, a, b, noisy.residual, err**-2.0)
        pull = np.max(np.abs(again.offset) / np.where(noisy.sigma > 0, noisy.sigma, np.inf))
    scatter = np.std((noisy.offset - truth + mean)[noisy.sigma > 0] / noisy.sigma[noisy.sigma > 0])
    print(
        f"{name:<11}{n:>9}{len(a):>9}"
        f"{noise_free:>9.1f}{seconds:>9.1f}{cpu:>7.1f}{(peak - before) / 1e6:>8.2f}{peak / 1e6:>8.2f}"
        f"{error:>10.1e}{pull:>10.1e}{scatter:>7.2f}  {'exact' if noisy.sigma_exact else 'estimated'}",
        flush=True,
    )


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        return run(sys.argv[2])
    print("topology      images    pairs  s exact  s noisy  (cpu)  GB own  GB all     error      pull scatter  sigma")
    for case in sys.argv[1:] or CASES:
        subprocess.run([sys.executable, __file__, "--one", case], check=True)
    return None


if __name__ == "__main__":
    main()
