"""Seconds and memory from 10^4 to 10^6 images, and the whole chain on many small files.

python benchmarks/scale.py [--images 10000 100000 1000000] [--files 2000] [--many 2500 10000] [--side 128]
                           [--compare pooled] [--no-dask] [--store-only]

``plan``: simulated footprints (no files) to the graph of overlaps. ``solve``: simulated differences on that graph to
skies with errors. Each size runs in a process of its own; ``growth`` is the exponent of the CPU time between one size
and the next. ``GB``: peak memory of the process up to the end of the step; ``before``: with the footprints alone.

``files``: real FITS files of ``side`` x ``side`` pixels through plan, measure, solve and apply (which records): in one
process, in two, as two shards that run side by side and are merged, and on two worker processes of Dask; as one
``match --store``, again, and once more with 20 files added (also in steps), beside the imports of a run that reads
headers with astropy. ``same`` says whether the solution has the bytes of the serial run.

``many``: plan, measure and solve with at most 256 open files; peak memory of each, and the size of the store.

Times are CPU seconds of the processes and their children (user and system), then in brackets seconds on the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from speed import NEEDED, environment

PIXEL_ARCSEC = 1.0
STEP = 0.8  # distance of the footprints on the sky, in widths
SIDE = 64  # of the footprints without files
ADDED = 20


def mosaic(n: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Centres (RA, Dec) in degrees of n footprints of ``side`` arcsec in rows of a square field about the equator."""
    columns = math.isqrt(n - 1) + 1
    k = np.arange(n)
    step = STEP * side * PIXEL_ARCSEC / 3600
    return 180 + step * (k % columns - columns / 2), step * (k // columns - columns / 2)


def footprints(n: int) -> list:
    from skymatch_cli.sky.footprint import Footprint, FootprintPart
    from skymatch_cli.sky.sphere import bounding_cap, unit_vectors

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
    from skymatch_cli.sky.overlap import overlap_graph
    from skymatch_cli.solve.offsets import solve_offsets

    made = footprints(n)
    before = peak_gb()
    start, cpu = time.perf_counter(), time.process_time()
    graph = overlap_graph(made)
    graph.pairs_by_image()
    plan = [time.process_time() - cpu, time.perf_counter() - start, peak_gb()]
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 100, n)
    err = rng.uniform(0.05, 0.5, len(graph.a))
    delta = truth[graph.a] - truth[graph.b] + err * rng.normal(size=len(err))
    start, cpu = time.perf_counter(), time.process_time()
    solve_offsets(n, graph.a, graph.b, delta, err**-2.0)
    solve = [time.process_time() - cpu, time.perf_counter() - start, peak_gb()]
    print(json.dumps([n, len(graph.a), before, *plan, *solve]))


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def sizes(images: list[int]) -> None:
    print("    images   overlaps  GB before       plan CPU (s)  growth    GB      solve CPU (s)  growth    GB")
    last: list[float] | None = None
    for n in images:
        done = subprocess.run([sys.executable, __file__, "--one", str(n)], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        growth = ["", ""] if last is None else [f"{exponent(last, row, k):.2f}" for k in (3, 6)]
        print(
            f"{row[0]:>10}{row[1]:>11}{row[2]:>11.2f}{row[3]:>10.1f} ({row[4]:>6.1f}){growth[0]:>8}{row[5]:>6.2f}"
            f"{row[6]:>11.1f} ({row[7]:>6.1f}){growth[1]:>8}{row[8]:>6.2f}",
            flush=True,
        )
        last = row


def exponent(last: list[float], row: list[float], k: int) -> float:
    return math.log(row[k] / last[k]) / math.log(row[0] / last[0])


def write_files(folder: Path, n: int, total: int, field: int | None = None, *, side: int) -> None:
    """Files n to total of the field that ``field`` of them cover."""
    from astropy.io import fits

    ra, dec = mosaic(field or total, side)
    for k in range(n, total):
        rng = np.random.default_rng(k)
        header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra[k], "CRVAL2": dec[k]})
        header.update({"CRPIX1": 0.5 * (side + 1), "CRPIX2": 0.5 * (side + 1)})
        header.update({"CDELT1": -PIXEL_ARCSEC / 3600, "CDELT2": PIXEL_ARCSEC / 3600})
        header.update({"BUNIT": "electron", "EXPTIME": 1.0})
        data = rng.normal(rng.uniform(0, 100), 1, (side, side)).astype(np.float32)
        fits.PrimaryHDU(data, header).writeto(folder / f"f{k:06d}.fits")


@dataclass(frozen=True)
class Cost:
    """What commands cost: CPU seconds, seconds, and megabytes of the largest of them."""

    cpu: float
    wall: float
    peak_mb: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.wall + other.wall, max(self.peak_mb, other.peak_mb))

    def __str__(self) -> str:
        return f"{self.cpu:>7.2f} ({self.wall:>6.2f})"


def start(folder: Path, *args: str, limit: int | None = None) -> tuple[subprocess.Popen, float]:
    overwrite = ["--overwrite"] if args[0] in {"plan", "match", "solve", "apply"} else []
    line = [sys.executable, "-m", "skymatch_cli", *args, "-q", *overwrite]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = None if limit is None else partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, hard))
    process = subprocess.Popen(line, cwd=folder, env=environment(), preexec_fn=few)  # noqa: PLW1509 (no threads here)
    return process, time.perf_counter()


def end(started: tuple[subprocess.Popen, float]) -> Cost:
    process, begun = started
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{process.args} failed")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - begun, used.ru_maxrss / 1e3)


def command(folder: Path, *args: str, limit: int | None = None) -> Cost:
    return end(start(folder, *args, limit=limit))


def side_by_side(folder: Path, n: int, *args: str) -> Cost:
    """A command in n shards that run at the same time; {k} in its arguments is the number of the shard."""
    begun = time.perf_counter()
    shards = [start(folder, *(a.format(k=k) for a in args), "--shard", f"{k}/{n}") for k in range(1, n + 1)]
    total = sum((end(shard) for shard in shards), Cost(0.0, 0.0, 0.0))
    return Cost(total.cpu, time.perf_counter() - begun, total.peak_mb)


def measured(folder: Path, how: list[str], compare: str) -> Cost:
    """Measure the plan, in shards where ``how`` is their number."""
    if how[0].startswith("-"):
        return command(folder, "measure", "field.db", "--compare", compare, *how)
    n = int(how[0])
    part = ("measure", "field.db", "--compare", compare, "-o", "part{k}.db", "--jobs", "1")
    found = side_by_side(folder, n, *part)
    return found + command(folder, "merge", "field.db", *(f"part{k}.db" for k in range(1, n + 1)))


def recorded(folder: Path, how: list[str]) -> Cost:
    """Record the skies of the solution; the files are then as they were, for the next run."""
    if how[0].startswith("-"):
        cost = command(folder, "apply", "solution.fits_")
    else:
        cost = side_by_side(folder, int(how[0]), "apply", "solution.fits_")
    command(folder, "undo", "f*.fits")
    return cost


def chain(n: int, side: int, compare: str, *, dask: bool, store_only: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, 0, n, side=side)
        print(f"{n} files of {side} x {side} pixels, --compare {compare}: CPU seconds (seconds) of whole commands")
        print(" " * 16 + "".join(f"{step:>17}" for step in ("plan", "measure", "solve", "apply", "all")) + "  same")
        wanted, whole = b"", None
        runs = {"1 process": ["--jobs", "1"], "2 processes": ["--jobs", "2"], "2 shards, merged": ["2"]}
        if dask:
            runs["Dask, 2 workers"] = ["--scheduler", "local", "--jobs", "2"]
        for label, how in () if store_only else runs.items():
            jobs = "1" if label == "1 process" else "2"
            (folder / "field.db").unlink(missing_ok=True)
            planned = command(folder, "plan", "f*.fits", "--store", "field.db", "-o", "plan.csv", "--jobs", jobs)
            found = measured(folder, how, compare)
            solved = command(folder, "solve", "field.db", "-o", "solution.fits_", "--format", "fits")
            command(folder, "solve", "field.db", "-o", "result.json")  # without the state of the files
            result = (folder / "result.json").read_bytes()
            wanted = wanted or result
            applied = recorded(folder, how)
            total = planned + found + solved + applied
            whole = whole or total
            print(f"{label:<16}{planned}  {found}  {solved}  {applied}  {total}  {result == wanted}", flush=True)
            for part in folder.glob("part*.db"):
                part.unlink()
        kept(folder, n, side, compare, whole)


def kept(folder: Path, n: int, side: int, compare: str, chain: Cost | None) -> None:
    """``match --store``; ``chain``: what all steps cost in one process."""
    match = ("match", "--dry-run", "--compare", compare, "--jobs", "1", "-o", "result.json", "f*.fits")
    first = command(folder, *match, "--store", "kept.db")
    again = command(folder, *match, "--store", "kept.db")
    begin = ("plan", "f*.fits", "--store", "field.db", "--jobs", "1", "-o", "plan.csv")
    command(folder, *begin)  # the files were written since by apply and undo
    command(folder, "measure", "field.db", "--compare", compare, "--jobs", "1")
    write_files(folder, n, n + ADDED, side=side)
    stepped = command(folder, *begin)
    stepped += command(folder, "measure", "field.db", "--compare", compare, "--jobs", "1")
    stepped += command(folder, "solve", "field.db", "-o", "stepped.json")
    more = command(folder, *match, "--store", "kept.db")
    result = (folder / "result.json").read_bytes()
    command(folder, *match)
    same = result == (folder / "result.json").read_bytes() == (folder / "stepped.json").read_bytes()
    needed = subprocess.Popen([sys.executable, "-c", NEEDED], env={**environment(), "OPENBLAS_NUM_THREADS": "1"})
    imports = end((needed, time.perf_counter()))
    extra = Cost(more.cpu - again.cpu, more.wall - again.wall, 0.0)
    full = chain or first
    print(f"match --store, all new    {first}   of {'the steps' if chain else 'this'}")
    for label, cost in {
        "the imports alone": imports,
        "nothing new": again,
        f"{ADDED} files more": more,
        f"of which for the {ADDED}": extra,
        f"{ADDED} more, in steps": stepped,
    }.items():
        print(f"  {label:<24}{cost}   {cost.cpu / full.cpu:.1%}")
    print(f"  same {same}")


def many(counts: list[int], side: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, written = Path(name), 0
        print(
            "at most 256 open files:" + "".join(f"{step:>15}{'MB':>11}" for step in ("plan", "measure", "solve")),
            "store",
        )
        for n in counts:
            write_files(folder, written, n, max(counts), side=side)
            written = n
            store = f"{n}.db"
            planned = command(folder, "plan", "f*.fits", "--store", store, "-o", "plan.csv", limit=256)
            found = command(folder, "measure", store, limit=256)
            solved = command(folder, "solve", store, "-o", "result.json", limit=256)
            each = "   ".join(f"{cost}{cost.peak_mb:>8.0f}" for cost in (planned, found, solved))
            print(f"{n:>8} files     {each}{(folder / store).stat().st_size / 1e6:>10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--many", type=int, nargs="*", default=[2500, 10_000])
    parser.add_argument("--side", type=int, default=128, help="pixels along a side of the files")
    parser.add_argument("--compare", choices=("pooled", "mesh"), default="pooled", help="of the files")
    parser.add_argument("--store-only", action="store_true", help="of the files, only ``match --store``")
    parser.add_argument("--no-dask", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        plan_and_solve(args.one)
        return
    if args.images:
        sizes(args.images)
    if args.files:
        chain(args.files, args.side, args.compare, dask=not args.no_dask, store_only=args.store_only)
    if args.many:
        many(args.many, args.side)


if __name__ == "__main__":
    main()
