"""How near skies of every degree come to their floor: python benchmarks/shapes.py [--seeds 64] [--scenes c_grad3 …].

The scenes are those of realsim.py with skies that are no constants, and one with bowls of 10 counts. For each scene and
model, over the seeds: the rms error of the sky over the frames (level and shape, at 12 x 12 places of each image) over
the Cramér-Rao floor of polynomials of that degree, where what no overlap can tell (a polynomial of the model's degree
that is common to all) is taken out of both; the rms of the pulls of the levels of the images; the warnings, and on how
many sets. Errors of ratio and pulls are those of a jackknife over the sets: images of a set share a few large errors.
``--peers DIR`` adds wiimatch (with DIR/stsci/bin/python), with images resampled to one grid, and Montage's planes
(mBgModel on the path). Times are processor seconds, memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from simulated import BENCH, ROOT, check_bench

DATA = ROOT / "build" / "shapes"
SCENES = "c_grad1", "c_grad3", "c_grad10", "c_grad30", "c_dith_grad10", "c_bowl_diff3", "c_bowl_same3", "c_bowl_diff10"
MODELS = "constant", "plane", "poly2", "poly3", "auto"
DEGREE = {"constant": 0, "plane": 1, "poly2": 2, "poly3": 3}
NODES = 12  # places a side at which skies are compared
BLOCK = 4  # pixels a side whose noise is added up


def terms(degree: int) -> list[tuple[int, int]]:
    """Exponents of the monomials."""
    return [(total - j, j) for total in range(degree + 1) for j in range(total + 1)]


def monomials(places: np.ndarray, degree: int) -> np.ndarray:
    """Monomials (..., k) at places (..., 2)."""
    return np.stack([places[..., 0] ** i * places[..., 1] ** j for i, j in terms(degree)], axis=-1)


def simulate(scene: str, seed: int, folder: Path) -> None:
    """Make a set, with the true sky of every image at its nodes in truth.npz."""
    made = runpy.run_path(str(BENCH / "realsim.py"))
    made["SCENES"]["c_bowl_diff10"] = {"pre": made["bowl"](10, False)}
    shape, skies = made["SCENES"][scene]["pre"], []

    def noted(context: dict) -> np.ndarray:
        found = np.broadcast_to(shape(context), (context["size"],) * 2)
        at = nodes(context["size"])
        skies.append(context["level"] + found[np.ix_(at, at)])
        return found

    made["SCENES"][scene]["pre"] = noted
    made["make"](scene, 7000 + seed, str(folder))
    np.save(folder / "skies.npy", np.array(skies))


def nodes(size: int) -> np.ndarray:
    """Pixels along an axis at which skies are compared."""
    return np.linspace(0, size - 1, NODES).round().astype(int)


@dataclass(slots=True)
class Case:
    """A simulated set: files, true skies (N, 12, 12), and places (N, 144, 2) on the common plane, in half frames."""

    files: list[Path]
    truth: np.ndarray
    places: np.ndarray
    centre: np.ndarray

    @classmethod
    def of(cls, scene: str, seed: int) -> Case:
        """The set as it was kept, else a new one."""
        folder = DATA / f"{scene}-{seed}"
        if not (folder / "skies.npy").exists():
            simulate(scene, seed, folder)
        files = sorted(folder.glob("img_*.fits"))
        plane = common_plane(files[0])
        places, centres = [], []
        for file in files:
            header = fits.getheader(file)
            at = np.stack(np.meshgrid(nodes(header["NAXIS1"]), nodes(header["NAXIS2"])), axis=-1).reshape(-1, 2)
            centre = [[(header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2]]
            places.append(on_plane(plane, WCS(header), at))
            centres.append(on_plane(plane, WCS(header), centre)[0])
        return cls(files, np.load(folder / "skies.npy"), np.array(places), np.array(centres))

    def errors(self, skies: np.ndarray, degree: int) -> np.ndarray:
        """Errors (N, 144) of skies, without what is common."""
        error = (skies - self.truth).reshape(-1)
        common = monomials(self.places.reshape(-1, 2), degree)
        return (error - common @ np.linalg.lstsq(common, error, rcond=None)[0]).reshape(len(self.files), -1)

    def levels(self, skies: np.ndarray, degree: int) -> np.ndarray:
        """Errors (N,) of the levels at the centres, where the mean of all terms is 0."""
        about = self.places - self.centre[:, None]
        error = (skies - self.truth).reshape(len(self.files), -1)
        own = np.array(
            [np.linalg.lstsq(monomials(p, degree), e, rcond=None)[0] for p, e in zip(about, error, strict=True)]
        )
        # what a common polynomial makes of the terms of each image: the mean of the highest terms is 0, and so on down
        middle = self.places - self.centre.mean(axis=0)
        made = np.array(
            [
                np.linalg.lstsq(monomials(a, degree), monomials(m, degree), rcond=None)[0]
                for a, m in zip(about, middle, strict=True)
            ]
        )
        totals = np.array([i + j for i, j in terms(degree)])
        for total in range(degree, -1, -1):
            mine = np.flatnonzero(totals == total)
            own = own - made[:, :, mine] @ own[:, mine].mean(axis=0)
        return own[:, 0]

    def free(self, degree: int) -> np.ndarray:
        """A basis (k N, k N - k) of the polynomials of the images without those that are common to all."""
        about = self.places - self.centre[:, None]
        made = [
            np.linalg.lstsq(monomials(a, degree), monomials(p, degree), rcond=None)[0]
            for a, p in zip(about, self.places, strict=True)
        ]
        whole, _ = np.linalg.qr(np.concatenate(made), mode="complete")
        return whole[:, len(terms(degree)) :]

    def floor(self, degree: int) -> float:
        """The least rms error of the skies over the frames that an unbiased estimator can have."""
        kept = self.files[0].parent / f"floor{degree}.json"
        if not kept.exists():
            k, n = len(terms(degree)), len(self.files)
            basis = np.zeros((n, NODES**2, n, k))
            for i in range(n):
                basis[i, :, i] = monomials(self.places[i] - self.centre[i], degree)
            basis = basis.reshape(n * NODES**2, n * k)
            common, _ = np.linalg.qr(monomials(self.places.reshape(-1, 2), degree))
            basis -= common @ (common.T @ basis)
            free = self.free(degree)  # all that is not common
            covariance = free @ np.linalg.inv(free.T @ information(self, degree) @ free) @ free.T
            variance = np.einsum("ai,ij,aj->a", basis, covariance, basis)
            kept.write_text(json.dumps(float(np.sqrt(variance.mean()))))
        return json.loads(kept.read_text())


def common_plane(file: Path) -> WCS:
    """A tangent plane about the first image, in units of half its side."""
    header = fits.getheader(file)
    first = WCS(header)
    half = np.sqrt(abs(np.linalg.det(first.pixel_scale_matrix))) * header["NAXIS1"] / 2
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval, plane.wcs.crpix, plane.wcs.cdelt = first.wcs.crval, [1, 1], [-half, half]
    return plane


def on_plane(plane: WCS, wcs: WCS, pixels: np.ndarray) -> np.ndarray:
    """Places (n, 2) of pixels."""
    return plane.all_world2pix(wcs.all_pix2world(pixels, 0), 0)


def information(case: Case, degree: int) -> np.ndarray:
    """Fisher information (k N, k N) about the polynomials of the images, the sky behind being free at every place.

    What the pixels of a block know counts at the points of a lattice of that spacing that lie in it.
    """
    plane, k, n = common_plane(case.files[0]), len(terms(degree)), len(case.files)
    step = 2 * BLOCK / fits.getheader(case.files[0])["NAXIS1"]
    low, high = case.places.min(axis=(0, 1)), case.places.max(axis=(0, 1))
    points = np.stack(np.meshgrid(*map(np.arange, low, high, [step] * 2)), axis=-1).reshape(-1, 2)
    sky = plane.all_pix2world(points, 0)
    weight, basis = np.zeros((n, len(points))), np.zeros((n, len(points), k))
    for i, file in enumerate(case.files):
        data = fits.getdata(file).astype(float)
        ny, nx = (size // BLOCK for size in data.shape)
        blocks = data[: ny * BLOCK, : nx * BLOCK].reshape(ny, BLOCK, nx, BLOCK).swapaxes(1, 2).reshape(ny, nx, -1)
        count = np.isfinite(blocks).sum(axis=2)
        value = np.nansum(blocks, axis=2) / np.maximum(count, 1)
        of_block = count / (np.maximum(value, 1.0) + 9.0)  # gain 1, read noise 3
        x, y = np.floor((WCS(fits.getheader(file)).all_world2pix(sky, 0) + 0.5) / BLOCK).astype(int).T
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        weight[i, inside] = of_block[y[inside], x[inside]]
        basis[i] = monomials(points - case.centre[i], degree)
    total = np.where((found := weight.sum(axis=0)) > 0, found, 1.0)
    fisher = np.zeros((n, k, n, k))
    for i in range(n):
        fisher[i, :, i] = (basis[i] * weight[i, :, None]).T @ basis[i]
        for j in range(n):
            fisher[i, :, j] -= (basis[i] * (weight[i] * weight[j] / total)[:, None]).T @ basis[j]
    return fisher.reshape(k * n, k * n)


def ours(case: Case, model: str) -> tuple[np.ndarray, np.ndarray, list[str], float]:
    """Skies (N, 12, 12), errors of the levels, names of the warnings, processor seconds."""
    import skymatch_cli
    from skymatch_cli.model.skyplane import SHAPE_TERMS, SkyPlane

    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = skymatch_cli.match(case.files, model=model, dry_run=True, jobs=1)
    spent = time.process_time() - start
    table = result.images
    names = [name for term in SHAPE_TERMS if (name := f"sky_{term}") in table.colnames]
    rows = np.array([np.asarray(table[name], float) for name in ("sky", *names)]).T
    shape = fits.getdata(case.files[0]).shape
    y, x = (nodes(size)[:, None] if axis == 0 else nodes(size)[None] for axis, size in enumerate(shape))
    skies = np.array([SkyPlane(*row).at(x, y, shape) + np.zeros((NODES, NODES)) for row in rows.tolist()])
    return skies, np.asarray(table["sky_err"], float), sorted({w.name for w in result.warnings}), spent


def peer(command: list[str], case: Case) -> tuple[np.ndarray, float, float]:
    """Skies (N, 12, 12) of another program, its processor seconds and its memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = case.files[0].parent / "peer.npy"
    subprocess.run([*command, str(out), *map(str, case.files)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.load(out), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


def jackknife(of_sets: Callable[[list[int]], float], n: int) -> tuple[float, float]:
    """A number made from sets of numbers 0 to n - 1, and its standard error: by leaving them out one by one."""
    each = np.array([of_sets([k for k in range(n) if k != i]) for i in range(n)]) if n > 1 else np.full(1, np.nan)
    return of_sets(list(range(n))), float(np.sqrt((n - 1) * np.mean((each - each.mean()) ** 2)))


def with_error(value: float, err: float) -> str:
    return f"{value:.2f} ± {err:.2f}"


def line(scene: str, model: str, cases: list[Case]) -> str:
    """A row of the table of our own models, with the errors that so many sets leave in ratio and pulls."""
    degree, square, floor, pulls, spent = DEGREE.get(model, 2), [], [], [], 0.0
    said: dict[str, int] = {}
    for case in cases:
        skies, err, names, seconds = ours(case, model)
        square.append(float(np.mean(case.errors(skies, degree) ** 2)))
        floor.append(case.floor(degree) ** 2)
        pulls.append(np.mean((case.levels(skies, degree) / err) ** 2))
        spent += seconds / len(cases)
        for name in names:
            said[name] = said.get(name, 0) + 1
    squares, floors, of_pulls = map(np.array, (square, floor, pulls))
    ratio = jackknife(lambda k: float(np.sqrt(squares[k].mean() / floors[k].mean())), len(cases))
    pull = jackknife(lambda k: float(np.sqrt(of_pulls[k].mean())), len(cases))
    rms = f"{np.sqrt(squares.mean()):.3f} | {np.sqrt(floors.mean()):.3f}"
    names = " ".join(f"{name} ({n})" for name, n in sorted(said.items()))
    found = f"{rms} | {with_error(*ratio)} | {with_error(*pull)} | {spent:.2f} | {names}"
    return f"| {scene} | {model} | {len(cases)} | {found} |"


def peer_lines(scene: str, case: Case, peers: Path) -> list[str]:
    """Rows of the table of other programs, on one set."""
    here = Path(__file__).parent
    wiimatch = [str(peers / "stsci" / "bin" / "python"), str(here / "shape_wiimatch.py")]
    commands = {f"wiimatch degree {d}": ([*wiimatch, str(d)], d) for d in (0, 1, 2)}
    if shutil.which("mBgModel"):
        commands["Montage planes"] = ([sys.executable, str(here / "shape_montage.py"), str(BENCH)], 1)
    rows = []
    for name, (command, degree) in commands.items():
        skies, seconds, memory = peer(command, case)
        rms, floor = float(np.sqrt(np.mean(case.errors(skies, degree) ** 2))), case.floor(degree)
        found = f"{rms:.3f} | {floor:.3f} | {rms / floor:.2f} | | {seconds:.2f} | {memory:.0f} MB |"
        rows.append(f"| {scene} | {name} | 1 | {found}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--scenes", nargs="+", default=SCENES)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    check_bench()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| scene | model | sets | rms | floor | ratio | pulls | s | said |\n|---|---|---|---|---|---|---|---|---|")
    for scene in options.scenes:
        cases = [Case.of(scene, seed) for seed in range(options.seeds)]
        for model in options.models:
            print(line(scene, model, cases), flush=True)
        for row in peer_lines(scene, cases[0], options.peers) if options.peers else ():
            print(row, flush=True)


if __name__ == "__main__":
    main()
