"""With SWarp, Montage and reproject: coadds with our skies are those of frames that have one sky."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from tests.factories import row, write_all
from tests.pages import run

from .seams import report_seam

SKIES = [100.0, 130.0, 110.0]
NAMES = [f"img_{k}.fits" for k in range(len(SKIES))]
_Coadd = Callable[[Path, str], np.ndarray]  # of the frames of a folder, with the skies of a file or ("") none


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The frames in ``raw`` and their result, the same frames with one sky in ``true``; the program runs in ``raw``."""
    for folder, skies in (("raw", SKIES), ("true", [min(SKIES)] * len(SKIES))):
        write_all(tmp_path / folder, row(skies, noise=1.0, dtype="f4"))
        for name in NAMES:  # mMakeHdr misreads the scale of a PC matrix
            with fits.open(tmp_path / folder / name, mode="update") as hdus:
                header = hdus[0].header
                for key in [key for key in header if key.startswith("PC")]:
                    header.rename_keyword(key, key.replace("PC", "CD"))
                del header["CDELT*"]
    monkeypatch.chdir(tmp_path / "raw")
    assert run("match", "--dry-run", "-o", "solution.fits", *NAMES).exit_code == 0
    return tmp_path


def report(what: str, coadd: _Coadd, folders: Path, skies: str) -> None:
    true, before = coadd(folders / "true", ""), coadd(folders / "raw", "")
    report_seam(what, before - true, coadd(folders / "raw", skies) - true, unit="counts", below=0.5, above=25.0)


def call(*words: object, cwd: Path) -> str:
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=True, timeout=120)
    assert "ERROR" not in done.stdout
    return done.stdout + done.stderr


def export(to: str, file: str, *more: str) -> None:
    done = run("export", "solution.fits", "--to", to, "-o", file, *more)
    assert done.exit_code == 0, done.stderr


@pytest.mark.skipif(shutil.which("SWarp") is None, reason="there is no SWarp")
def test_swarp_coadds_without_seams(folders: Path) -> None:
    export("swarp", "back.txt")
    how = "-BACK_TYPE MANUAL -COMBINE_TYPE AVERAGE -RESAMPLING_TYPE BILINEAR -WRITE_XML N -FSCALASTRO_TYPE NONE"
    named = [line[2:] for line in Path("back.txt").read_text().splitlines() if line.startswith("# img")]
    assert named == NAMES

    def coadd(folder: Path, skies: str) -> np.ndarray:
        back = f"@{skies}" if skies else "0"
        call("SWarp", *named, *how.split(), "-BACK_DEFAULT", back, "-IMAGEOUT_NAME", "coadd.fits", cwd=folder)
        weight = fits.getdata(folder / "coadd.weight.fits")
        return np.where(weight > 0, fits.getdata(folder / "coadd.fits").astype(float), np.nan)

    report("SWarp, `BACK_DEFAULT`", coadd, folders, "back.txt")


@pytest.mark.skipif(shutil.which("mBgExec") is None, reason="there is no Montage")
def test_montage_coadds_without_seams(folders: Path) -> None:
    for folder in (folders / "raw", folders / "true"):
        (folder / "frames").mkdir()
        (folder / "projected").mkdir()
        for name in NAMES:
            shutil.copy(folder / name, folder / "frames")
        call("mImgtbl", "frames", "images.tbl", cwd=folder)
        call("mMakeHdr", "images.tbl", "region.hdr", cwd=folder)
        call("mProjExec", "-p", "frames", "images.tbl", "region.hdr", "projected", "stats.tbl", cwd=folder)
        call("mImgtbl", "projected", "pimages.tbl", cwd=folder)
    export("montage", "corrections.tbl", "--images-tbl", "pimages.tbl")

    def coadd(folder: Path, skies: str) -> np.ndarray:
        frames = "projected"
        if skies:
            frames = "corrected"
            (folder / frames).mkdir()
            said = call("mBgExec", "-p", "projected", "pimages.tbl", skies, frames, cwd=folder)
            assert "count=3, nocorrection=0, failed=0" in said
        call("mAdd", "-n", "-p", frames, "pimages.tbl", "region.hdr", "coadd.fits", cwd=folder)
        return fits.getdata(folder / "coadd.fits").astype(float)

    report("Montage, `mBgExec`", coadd, folders, "corrections.tbl")


def test_reproject_coadds_without_seams(folders: Path) -> None:
    reproject = pytest.importorskip("reproject")
    mosaicking = pytest.importorskip("reproject.mosaicking")
    export("jwst", "skies.txt")
    levels = dict(line.split() for line in Path("skies.txt").read_text().splitlines())

    def coadd(folder: Path, skies: str) -> np.ndarray:
        frames = [
            (fits.getdata(folder / n) - (float(levels[n]) if skies else 0.0), WCS(fits.getheader(folder / n)))
            for n in NAMES
        ]
        wcs, shape = mosaicking.find_optimal_celestial_wcs(frames)
        return mosaicking.reproject_and_coadd(
            frames, wcs, shape_out=shape, reproject_function=reproject.reproject_interp
        )[0]

    report("reproject, `reproject_and_coadd`", coadd, folders, "skies.txt")


@pytest.mark.skipif(shutil.which("stilts") is None, reason="there is no stilts")
def test_votlint_finds_nothing_in_votables(folders: Path) -> None:
    export("topcat", "topcat.vot")
    assert run("match", "--dry-run", "-o", "sky.vot", *NAMES).exit_code == 0
    for name in ("topcat.vot", "sky.vot"):
        done = subprocess.run(["stilts", "votlint", name], capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        rows = call("stilts", "tpipe", f"in={name}", "cmd=keepcols 'file sky'", "ofmt=csv", cwd=folders / "raw")
        table = dict(line.split(",") for line in rows.splitlines()[1:])
        assert [float(table[n]) - s for n, s in zip(NAMES, SKIES, strict=True)] == pytest.approx([-100] * 3, abs=0.5)
