"""Cubes with a level and a tilt for each channel: python benchmarks/cubes.py [--channels 20] [--size 300] [--peers …].

Six cubes (3 x 2) of a field of stars and a nebula, each channel with a level and a tilt of its own. The table gives
the rms error of the skies over the frames and channels over the Cramér-Rao floor of planes, processor seconds of a run
in one process and wall seconds of one with a process a core, each also over those of the floor for time (it imports
the packages and reads every pixel once; medians of the ratios of the same round), and the peak of memory; with
``--peers`` also those of wiimatch, channel by channel.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from shapes import Case, common_plane, nodes, on_plane, peer
from simulated import BENCH, ROOT, check_bench
from speed import SKYMATCH, Run, timed

NOISE = 10.0  # so that the noise of the pixels is that of a sky of 91 by the floor's rule, value + 9


def frame(size: int, k: int, rng: np.random.Generator) -> WCS:
    """Where cube k looks: 3 x 2 with overlaps of a quarter."""
    wcs, scale = WCS(naxis=2), 1 / 3600
    turn, step = np.radians(2.0 * (k - 2)), 0.75 * size
    x, y = step * (k % 3) + rng.uniform(-3, 3), step * (k // 3) + rng.uniform(-3, 3)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0 + x * scale / np.cos(np.radians(2.0)), 2.0 + y * scale]
    wcs.wcs.crpix = [(size + 1) / 2] * 2
    wcs.wcs.cd = scale * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return wcs


def scene(wcs: WCS, size: int) -> np.ndarray:
    """Stars and a nebula."""
    y, x = np.mgrid[:size, :size]
    ra, dec = wcs.all_pix2world(x, y, 0)
    u, v = (ra - 150.0) * 3600, (dec - 2.0) * 3600
    found = 30 * np.sin(u / 60) * np.cos(v / 45)
    rng = np.random.default_rng(5)
    places = rng.uniform(-size, [3 * size, 2 * size], (150, 2))
    for (a, b), flux in zip(places, rng.pareto(1.5, 150), strict=True):
        found += 300 * flux * np.exp(-((u - a) ** 2 + (v - b) ** 2) / 8)
    return found


def make(folder: Path, n_channels: int, size: int) -> None:
    """Write the cubes, their channels as images of their own, and the true skies at the nodes."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    at = nodes(size)
    skies = np.zeros((6, n_channels, len(at), len(at)))
    for k in range(6):
        wcs = frame(size, k, rng)
        sky, u = scene(wcs, size), np.linspace(-1, 1, size)
        cube = np.zeros((n_channels, size, size), "f4")
        for channel in range(n_channels):
            level, *tilt = rng.normal(0, [30, 5, 5])
            shape = 82 + level + tilt[0] * u + tilt[1] * u[:, None]
            cube[channel] = sky + shape + rng.normal(0, NOISE, (size, size))
            skies[k, channel] = shape[np.ix_(at, at)]
        header = wcs.to_header()
        header.update({"BUNIT": "adu", "WCSAXES": 3, "CTYPE3": "WAVE", "CRVAL3": 5e-7, "CRPIX3": 1.0, "CDELT3": 1e-9})
        fits.PrimaryHDU(cube, header).writeto(folder / f"cube_{k}.fits")
        for channel in range(n_channels):
            (own := folder / f"channel{channel:02}").mkdir(exist_ok=True)
            fits.PrimaryHDU(cube[channel], wcs.to_header()).writeto(own / f"img_{k}.fits")
    np.save(folder / "skies.npy", skies)


def case_of(folder: Path, channel: int) -> Case:
    """One channel as a set of images."""
    files = sorted((folder / f"channel{channel:02}").glob("*.fits"))
    plane, places, centres = common_plane(files[0]), [], []
    for file in files:
        header = fits.getheader(file)
        along = nodes(header["NAXIS1"])
        at = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
        places.append(on_plane(plane, WCS(header), at))
        centres.append(on_plane(plane, WCS(header), [[(header["NAXIS1"] - 1) / 2] * 2])[0])
    return Case(files, np.load(folder / "skies.npy")[:, channel], np.array(places), np.array(centres))


def ours(table: Path, n_channels: int, size: int) -> np.ndarray:
    """Skies (6, channels, 12, 12) in a table of results."""
    from skymatch_cli.model.skyplane import SkyPlane

    found = Table.read(table)
    rows = np.array([np.asarray(found[name], float) for name in ("sky", "sky_dx", "sky_dy")]).T
    at = nodes(size)
    skies = [SkyPlane(*row).at(at[None], at[:, None], (size, size)) for row in rows.tolist()]
    return np.array(skies).reshape(6, n_channels, len(at), len(at))


def row(name: str, errors: list[np.ndarray], floors: list[float], spent: str) -> str:
    rms, floor = np.sqrt(np.mean([np.mean(e**2) for e in errors])), np.sqrt(np.mean(np.square(floors)))
    return f"| {name} | {rms:.3f} | {floor:.3f} | {rms / floor:.2f} | {spent} |"


def times(rounds: list[dict[str, list[Run]]], name: str) -> str:
    """Processor seconds of the first run, wall seconds of the second, each also over the floor's, and memory."""
    cpu, wall = (
        np.array([[getattr(runs[k], kind) for runs in (r[name], r["floor"])] for r in rounds])
        for k, kind in enumerate(("cpu_s", "wall_s"))
    )
    found = (f"{np.median(c[:, 0]):.2f} | {np.median(c[:, 0] / c[:, 1]):.2f}" for c in (cpu, wall))
    return f"{' | '.join(found)} | {rounds[-1][name][0].peak_mib:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=20)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    check_bench()
    folder = ROOT / "build" / "cubes" / f"{options.channels}x{options.size}"
    if not (folder / "skies.npy").exists():
        make(folder, options.channels, options.size)
    cases = [case_of(folder, channel) for channel in range(options.channels)]
    floors = [case.floor(1) for case in cases]
    cubes, table = sorted(map(str, folder.glob("cube_*.fits"))), folder / "found.ecsv"
    constant = [SKYMATCH, "match", "--planes", "each", "--dry-run", "-q", *cubes]
    plane = [*constant, "--model", "plane", "-o", str(table), "--overwrite"]
    floor = [sys.executable, str(BENCH / "limit.py"), *cubes]
    alone = ["--jobs", "1"]
    commands = {"floor": [floor] * 2, "constant": [[*constant, *alone], constant], "plane": [[*plane, *alone], plane]}
    head = "rms", "floor", "ratio", "s", "× floor for time", "wall s", "× floor for time", "peak MB"
    print(f"| | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    rounds = [
        {name: [timed(command) for command in both] for name, both in commands.items()} for _ in range(options.rounds)
    ]
    spent = {name: times(rounds, name) for name in commands}
    print(f"| floor for time | | | | {spent['floor']} |")
    print(f"| skymatch, constants | | | | {spent['constant']} |")
    found = ours(table, options.channels, options.size)
    print(row("skymatch", [case.errors(found[:, k], 1) for k, case in enumerate(cases)], floors, spent["plane"]))
    if options.peers:
        script = str(Path(__file__).parent / "shape_wiimatch.py")
        command = [str(options.peers / "stsci" / "bin" / "python"), script, "1"]
        runs = [peer(command, case) for case in cases]
        errors = [case.errors(skies, 1) for case, (skies, _, _) in zip(cases, runs, strict=True)]
        print(
            row(
                "wiimatch", errors, floors, f"{sum(s for _, s, _ in runs):.2f} | | | | {max(m for _, _, m in runs):.0f}"
            )
        )


if __name__ == "__main__":
    main()
