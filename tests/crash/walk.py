"""A random walk of commands and other programs over files of every kind, against a model that knows their pixels.

``python -m tests.crash.walk --steps 5000`` is the long run. After every command either all files are as they were, and
it was refused with exit code 3, or every pixel is the one that the model expects: original ones minus the sky of the
header, and after undo the original ones, integers bit for bit, floats to a thousandth of their noise.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from astropy.io import fits
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from skymatch_cli.cli import main
from skymatch_cli.images.undocards import Written, written

SIDE = 24
NOISE = 3.0
LEVELS = (100.0, 118.0, 93.0, 131.0)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is made, its images, where the sky stands (HDU; None: beside the pixels)."""

    suffix: str
    make: Callable[[Path, int], None]
    hdus: tuple[int, ...] = (0,)
    sky_hdu: int | None = None


@dataclass
class Truth:
    """What the model knows of a file: its kind, its original pixels by HDU, and what another program did.

    ``broken``: it changed pixels that were ours; ``changed``: others, beside which a sky was recorded; ``stripped``: it
    took the undo cards away.
    """

    kind: Kind
    original: dict[int, np.ndarray]
    broken: bool = False
    changed: bool = False
    stripped: bool = False


def header(k: int, **cards: Any) -> fits.Header:
    head = fits.Header()
    head.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=20.0, CRPIX2=SIDE / 2)
    head.update(CRPIX1=SIDE / 2 + 5 * k, CDELT1=-1 / 3600, CDELT2=1 / 3600, BUNIT="adu", **cards)
    return head


def values(k: int, dtype: str) -> np.ndarray:
    data = np.random.default_rng(k).normal(LEVELS[k % len(LEVELS)], NOISE, (SIDE, SIDE))
    return np.rint(data).astype(dtype) if np.dtype(dtype).kind in "iu" else data.astype(dtype)


def plain(dtype: str, **cards: Any) -> Callable[[Path, int], None]:
    def make(path: Path, k: int) -> None:
        fits.PrimaryHDU(values(k, dtype), header(k, **cards)).writeto(path, checksum=True)

    return make


def scaled(path: Path, k: int) -> None:
    hdu = fits.PrimaryHDU(values(k, "f8"), header(k))
    hdu.scale("int16", bscale=0.01, bzero=100)
    hdu.writeto(path)


def chips(path: Path, k: int) -> None:
    hdus = [fits.ImageHDU(values(k + i, "f4"), header(k + i), name="SCI", ver=i + 1) for i in range(2)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


def jwst(path: Path, k: int) -> None:
    primary = fits.PrimaryHDU()
    primary.header.update(TELESCOP="JWST", BKGSUB=False)
    fits.HDUList([primary, fits.ImageHDU(values(k, "f4"), header(k), name="SCI")]).writeto(path)


def compressed(path: Path, k: int) -> None:
    hdu = fits.CompImageHDU(values(k, "i2"), header(k), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def packed(path: Path, k: int) -> None:
    other = path.with_name("unpacked")
    plain("f4")(other, k)
    path.write_bytes(gzip.compress(other.read_bytes(), mtime=0))
    other.unlink()


KINDS = (
    Kind(".fits", plain("f4")),
    Kind(".fits", plain("f8")),
    Kind(".fits", plain("i2")),
    Kind(".fits", plain("u2")),
    Kind(".fits", scaled),
    Kind(".fits", chips, (1, 2)),
    Kind(".fits", jwst, (1,), 0),
    Kind(".fits.fz", compressed, (1,)),
    Kind(".fits.gz", packed),
)


EDITED = (".fits", ".fits.gz")  # files that other programs change in place


class Walk(RuleBasedStateMachine):
    """Commands and other programs."""

    steps: ClassVar[int] = 0  # of all walks

    def __init__(self) -> None:
        super().__init__()
        self._home = Path.cwd()
        self._folder = Path(tempfile.mkdtemp(prefix="walk-"))
        os.chdir(self._folder)
        self.files: dict[str, Truth] = {}

    def teardown(self) -> None:
        os.chdir(self._home)
        shutil.rmtree(self._folder)

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=3))
    def make(self, kinds: list[Kind]) -> None:
        for k, kind in enumerate(kinds):
            name = f"f{k}{kind.suffix}"
            kind.make(Path(name), k)
            self.files[name] = Truth(kind, self.read(name, kind))

    @invariant()
    def count(self) -> None:
        Walk.steps += 1
        if not Walk.steps % 250:
            print(f"{Walk.steps} steps", file=sys.stderr, flush=True)

    # --- commands

    @rule(
        subtract=st.booleans(),
        options=st.sampled_from(
            [
                [],
                ["--match-up"],
                ["--method", "localmin"],
                ["--method", "globalmin+match"],
                ["--compare", "pooled"],
                ["--reference", "f1.*"],
                ["--nclip", "2"],
                ["--sky-keyword", "MDRIZSKY"],
            ]
        ),
    )
    def match(self, subtract: bool, options: list[str]) -> None:
        options = [next(iter(Path().glob(word))).name if word == "f1.*" else word for word in options]
        self.run("match", *options, *(["--subtract"] * subtract), *self.files)

    @rule(skies=st.lists(st.floats(-20000, 20000, width=32), min_size=3, max_size=3))
    def subtract_given_skies(self, skies: list[float]) -> None:
        lines = [f"{name} {sky!r}\n" for name, sky in zip(self.files, skies, strict=False)]
        lines += [f"{name}[SCI,2] {skies[0]!r}\n" for name, truth in self.files.items() if len(truth.kind.hdus) > 1]
        Path("skies.txt").write_text("".join(lines))
        self.run("match", "--method", "user", "--skylist", "skies.txt", "--subtract", *self.files)

    @rule(subtract=st.booleans())
    def measure_and_apply(self, subtract: bool) -> None:
        measured = CliRunner().invoke(main, ["match", "--dry-run", "-o", "s.fits", "--overwrite", *self.files])
        assert measured.exit_code in {0, 3, 4}, measured.stderr
        if not measured.exit_code:
            self.run("apply", *(["--subtract"] * subtract), "s.fits")

    @rule(which=st.integers(0, 2))
    def undo_one(self, which: int) -> None:
        self.undo(list(self.files)[which % len(self.files)])

    @rule()
    def undo_all(self) -> None:
        self.undo(*self.files)

    @rule(subtract=st.booleans())
    def copy(self, subtract: bool) -> None:
        before = self.state()
        done = self.invoke("match", "--output-dir", "out", *(["--subtract"] * subtract), *self.files)
        assert self.state() == before
        if not done.exit_code:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for name, truth in self.files.items():
                    self.check(f"out/{name}", truth)
        shutil.rmtree("out", ignore_errors=True)

    # --- other programs

    @rule(which=st.integers(0, 2), edit=st.sampled_from([{"BKGLEVEL": 7.0}, {"BKGSUB": True}, {"BKGSUB": False}]))
    def edit_cards(self, which: int, edit: dict[str, Any]) -> None:
        name, truth = self.pick(which)
        at = truth.kind.hdus[0] if truth.kind.sky_hdu is None else truth.kind.sky_hdu
        if self.is_recorded(name, truth):
            self.change(name, lambda hdus: hdus[at].header.update(edit))

    @rule(which=st.integers(0, 2))
    def save_again(self, which: int) -> None:
        self.change(self.pick(which)[0], lambda hdus: hdus[0].header.update(OBSERVER="me"))

    @precondition(lambda self: not any(truth.broken or truth.stripped for truth in self.files.values()))
    @rule(which=st.integers(0, 2), what=st.sampled_from(["scale", "crop", "flip"]))
    def change_pixels(self, which: int, what: str) -> None:
        name, truth = self.pick(which)
        if not name.endswith(EDITED):
            return
        at = truth.kind.hdus[0]
        ours = self.is_recorded(name, truth) and self.has_our_pixels(name, truth, at)
        how = {"scale": lambda d: d * d.dtype.type(2), "crop": lambda d: d[2:, 1:], "flip": lambda d: d[:, ::-1]}[what]

        def change(hdus: fits.HDUList) -> None:
            hdus[at].data = np.ascontiguousarray(how(hdus[at].data))

        self.change(name, change)
        if ours:
            truth.broken = True
        else:
            truth.original[at], truth.changed = self.read(name, truth.kind)[at], self.is_recorded(name, truth)

    @precondition(lambda self: not any(truth.broken or truth.stripped for truth in self.files.values()))
    @rule(which=st.integers(0, 2))
    def strip_history(self, which: int) -> None:
        name, truth = self.pick(which)
        if (
            not name.endswith(".fits")
            or truth.kind.sky_hdu is not None
            or not self.is_recorded(name, truth)
            or len(truth.kind.hdus) > 1
        ):
            return
        try:
            self.check(name, truth)
        except AssertionError:
            return  # its keywords were edited: without the undo cards nobody knows
        subtracted = self.sky(name, truth, truth.kind.hdus[0])[1]
        self.change(
            name, lambda hdus: hdus[truth.kind.hdus[0]].header.remove("HISTORY", ignore_missing=True, remove_all=True)
        )
        truth.stripped = bool(subtracted)

    @rule()
    def mend(self) -> None:
        """Put fresh files in the place of those that another program broke."""
        for k, (name, truth) in enumerate(self.files.items()):
            if truth.broken or truth.stripped:
                Path(name).unlink()
                truth.kind.make(Path(name), k)
                self.files[name] = Truth(truth.kind, self.read(name, truth.kind))

    # --- the model

    def run(self, command: str, *args: str) -> None:
        before = self.state()
        done = self.invoke(command, *args)
        if done.exit_code:
            assert self.state() == before, f"{command} was refused, and files changed: {done.stderr}"
            return
        assert not (command == "apply" and any(truth.broken for truth in self.files.values()) and "--subtract" in args)
        for name, truth in self.files.items():
            self.check(name, truth)

    def undo(self, *names: str) -> None:
        before, ours = self.state(), {name: self.is_recorded(name, self.files[name]) for name in names}
        done = self.invoke("undo", *names)
        if done.exit_code:
            assert self.state() == before
            assert any(self.may_refuse(name, self.files[name]) for name in names), done.stderr
            return
        for name in names:
            truth = self.files[name]
            assert not truth.broken, f"{name} was undone, though its pixels are not ours"
            if truth.stripped:  # it is as it was when its undo cards were taken away
                assert ours[name], f"{name} was undone without undo cards"
                self.check(name, truth)
                continue
            assert not self.is_recorded(name, truth)
            truth.changed = False
            for hdu, original in truth.original.items():
                found = self.read(name, truth.kind)[hdu]
                assert found.dtype == original.dtype
                self.same(found, original)

    def may_refuse(self, name: str, truth: Truth) -> bool:
        """Whether nobody knows the original pixels; of changed ones not where BKGSUB contradicts the undo cards too."""
        at = truth.kind.hdus[0]
        head = fits.getheader(name, at if truth.kind.sky_hdu is None else truth.kind.sky_hdu)
        left = self.left(name, at)
        contradicted = left is not None and bool(head.get("BKGSUB")) != left.subtracted
        return truth.broken or truth.stripped or (truth.changed and contradicted)

    @staticmethod
    def left(name: str, hdu: int) -> Written | None:
        return written([card.image.encode("ascii") for card in fits.getheader(name, hdu).cards])

    def invoke(self, *args: str) -> Result:
        jobs = ["--jobs", "1"] if args[0] in {"match", "undo"} else []
        done = CliRunner().invoke(main, [args[0], *jobs, *args[1:]])
        assert done.exit_code in {0, 3, 4}, (args, done.exit_code, done.stderr, done.exception)
        return done

    def check(self, name: str, truth: Truth) -> None:
        """Stored pixels are the original ones minus the sky of the header, where they lost it."""
        if truth.broken:
            return
        for hdu, original in truth.original.items():
            level, subtracted = self.sky(name, truth, hdu)
            found = self.read(name, truth.kind)[hdu].astype("f8")
            self.same(found + level * subtracted, original)

    @staticmethod
    def same(found: np.ndarray, original: np.ndarray) -> None:
        exact = original.dtype.kind in "iu"
        allowed = 0.0 if exact and found.dtype.kind in "iu" else NOISE / 1000
        assert found.shape == original.shape
        assert np.abs(found.astype("f8") - original).max() <= allowed

    def sky(self, name: str, truth: Truth, hdu: int) -> tuple[float, bool]:
        head = fits.getheader(name, hdu if truth.kind.sky_hdu is None else truth.kind.sky_hdu)
        subtracted = head.get("BKGSUB", False)
        keys = ("BKGLEVEL", "MDRIZSKY") if subtracted else ("MDRIZSKY", "BKGLEVEL")
        return next((head[key] for key in keys if key in head), 0.0), subtracted

    def is_recorded(self, name: str, truth: Truth) -> bool:
        return any("skymatch-cli undo" in str(fits.getheader(name, hdu).get("HISTORY", "")) for hdu in truth.kind.hdus)

    def has_our_pixels(self, name: str, truth: Truth, hdu: int) -> bool:
        """Whether pixels differ from the original ones by more than an undo does, by the undo cards and their type."""
        left = self.left(name, hdu)
        another_type = self.read(name, truth.kind)[hdu].dtype != truth.original[hdu].dtype
        return another_type or (left is not None and bool(left.shift))

    def read(self, name: str, kind: Kind) -> dict[int, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {hdu: np.array(fits.getdata(name, hdu)) for hdu in kind.hdus}
        return {hdu: data.astype(data.dtype.newbyteorder("=")) for hdu, data in found.items()}

    def pick(self, which: int) -> tuple[str, Truth]:
        name = list(self.files)[which % len(self.files)]
        return name, self.files[name]

    def change(self, name: str, change: Callable[[fits.HDUList], object]) -> None:
        if not name.endswith(EDITED):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(name, mode="update", checksum="remove") as hdus:
                change(hdus)

    def state(self) -> dict[str, bytes]:
        return {name: Path(name).read_bytes() for name in self.files}


def walk(steps: int, *, derandomize: bool) -> None:
    """Take about so many steps: walks have 25 at most, 8 in the mean."""
    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=max(1, steps // 8),
            stateful_step_count=25,
            deadline=None,
            phases=[Phase.generate],
            derandomize=derandomize,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    goal = parser.parse_args().steps
    while Walk.steps < goal:
        walk(goal - Walk.steps, derandomize=False)
    print(f"{Walk.steps} steps: every pixel was where the model expects it")
