"""Seconds and memory from 10^4 to 10^6 images, and the whole chain on many small files.

python benchmarks/scale.py [--images 10000 100000 1000000] [--files 2000] [--dask]

``plan``: simulated footprints (no files) to the graph of overlaps. ``solve``: simulated differences on that graph to
skies with errors. Each size runs in a process of its own; ``growth`` is the exponent between one size and the next.

``files``: real FITS files of 64 x 64 pixels through plan, measure and solve with 1 job, 2 jobs and (``--dask``)
2 worker processes of Dask, as one ``match`` with a cache, and once more with 20 files added. ``same`` says whether the
result has the bytes of the serial run.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PIXEL_ARCSEC = 1.0
STEP = 0.8  # distance of the footprints on the sky, in widths
SIDE = 64
ADDED = 20


def mosaic(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (RA, Dec) in degrees of n footprints of 64 arcsec in rows of a square field about the equator."""
    columns = math.isqrt(n - 1) + 1
    k = np.arange(n)
    step = STEP * SIDE * PIXEL_ARCSEC / 3600
    return 180 + step * (k % columns - columns / 2), step * (k // columns - columns / 2)


def footprints(n: int) -> list:
    from skymatch_cli.geometry.footprint import Footprint, FootprintPart
    from skymatch_cli.geometry.sphere import bounding_cap, unit_vectors

    ra, dec = (np.radians(c) for c in mosaic(n))
    half = np.radians(0.5 * SIDE * PIXEL_ARCSEC / 3600)
    found = []
    for lon, lat in zip(ra, dec, strict=True):
        corners = unit_vectors(
            lon + half * np.array([-1, 1, 1, -1]) / np.cos(lat), lat + half * np.array([-1, -1, 1, 1])
        )
        centre, radius = bounding_cap(corners)
        found.append(Footprint((FootprintPart((corners,), centre, radius, (-0.5, -0.5, 63.5, 63.5)),)))
    return found


def plan_and_solve(n: int) -> None:
    from skymatch_cli.geometry.overlap import overlap_graph
    from skymatch_cli.solver.solve import solve_offsets

    made = footprints(n)
    before = peak_gb()
    start = time.perf_counter()
    graph = overlap_graph(made)
    graph.pairs_by_image()
    planned, plan_gb = time.perf_counter() - start, peak_gb()
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 100, n)
    err = rng.uniform(0.05, 0.5, len(graph.a))
    delta = truth[graph.a] - truth[graph.b] + err * rng.normal(size=len(err))
    start = time.perf_counter()
    solve_offsets(n, graph.a, graph.b, delta, err**-2.0)
    solved = time.perf_counter() - start
    print(json.dumps([n, len(graph.a), planned, solved, plan_gb - before, peak_gb()]))


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def sizes(images: list[int]) -> None:
    print("    images   overlaps   plan s  growth  solve s  growth  GB of plan  GB in all")
    last: list[float] | None = None
    for n in images:
        done = subprocess.run([sys.executable, __file__, "--one", str(n)], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        growth = ["", ""] if last is None else [f"{exponent(last, row, k):.2f}" for k in (2, 3)]
        print(
            f"{row[0]:>10}{row[1]:>11}{row[2]:>9.1f}{growth[0]:>8}{row[3]:>9.1f}{growth[1]:>8}{row[4]:>12.2f}"
            f"{row[5]:>11.2f}",
            flush=True,
        )
        last = row


def exponent(last: list[float], row: list[float], k: int) -> float:
    return math.log(row[k] / last[k]) / math.log(row[0] / last[0])


def write_files(folder: Path, n: int, total: int) -> None:
    """Files n to total of the field that ``total`` of them cover."""
    from astropy.io import fits

    ra, dec = mosaic(total)
    for k in range(n, total):
        rng = np.random.default_rng(k)
        header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra[k], "CRVAL2": dec[k]})
        header.update({"CRPIX1": 32.5, "CRPIX2": 32.5, "CDELT1": -PIXEL_ARCSEC / 3600, "CDELT2": PIXEL_ARCSEC / 3600})
        header.update({"BUNIT": "electron", "EXPTIME": 1.0})
        data = rng.normal(rng.uniform(0, 100), 1, (SIDE, SIDE)).astype(np.float32)
        fits.PrimaryHDU(data, header).writeto(folder / f"f{k:06d}.fits")


def command(folder: Path, *args: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "skymatch_cli", *args, "-q", "--overwrite"], cwd=folder, check=True)
    return time.perf_counter() - start


def chain(n: int, *, dask: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, 0, n)
        print(f"{n} files of {SIDE} x {SIDE} pixels: seconds of whole commands")
        print("                  plan  measure    solve      all  same")
        wanted = b""
        runs = {"1 job": ["--jobs", "1"], "2 jobs": ["--jobs", "2"]}
        if dask:
            runs["Dask, 2 workers"] = ["--scheduler", "local", "--jobs", "2"]
        for label, how in runs.items():
            planned = command(folder, "plan", "f*.fits", "-o", "plan.fits_", "--format", "fits", *how[-2:])
            measured = command(folder, "measure", "plan.fits_", "-o", "measured.fits_", *how)
            solved = command(folder, "solve", "measured.fits_", "-o", "result.json")
            result = (folder / "result.json").read_bytes()
            wanted = wanted or result
            print(
                f"{label:<15}{planned:>8.1f}{measured:>9.1f}{solved:>9.1f}{planned + measured + solved:>9.1f}  "
                f"{result == wanted}",
                flush=True,
            )
        cached(folder, n)


def cached(folder: Path, n: int) -> None:
    match = ("match", "--dry-run", "--cache", "kept", "--jobs", "1", "-o", "result.json")
    first = command(folder, *match, "f*.fits")
    again = command(folder, *match, "f*.fits")
    write_files(folder, n, n + ADDED)
    more = command(folder, *match, "f*.fits")
    result = (folder / "result.json").read_bytes()
    command(folder, "match", "--dry-run", "--jobs", "1", "-o", "result.json", "f*.fits")
    same = result == (folder / "result.json").read_bytes()
    print(
        f"match --cache: {first:.1f}; again {again:.1f}; with {ADDED} more {more:.1f} ({more / first:.0%}), same {same}"
    )
    added(folder)


def added(folder: Path) -> None:
    """The part of the new pixels alone: measure with what is known, without headers and tables."""
    for label, options in (("all", []), ("with --update", ["--update", "measured.fits_"])):
        command(folder, "plan", "f*.fits", "-o", "plan.fits_", "--format", "fits")
        seconds = command(folder, "measure", "plan.fits_", "-o", "more.fits_", "--jobs", "1", *options)
        print(f"measure {label}: {seconds:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        plan_and_solve(args.one)
        return
    if args.images:
        sizes(args.images)
    if args.files:
        chain(args.files, dask=args.dask)


if __name__ == "__main__":
    main()
