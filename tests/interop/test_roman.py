"""With the pipeline of Roman: its models open and save what every method writes; its own step before and after ours."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skymatch_cli
from tests.factories import Frame
from tests.gwcsfiles import gwcs_of
from tests.pages import run

roman = pytest.importorskip("roman_datamodels")
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = (
    *("assign_wcs", "dark", "dq_init", "flat_field", "flux", "linearity", "outlier_detection", "photom", "refpix"),
    *("ramp_fit", "saturation", "skymatch", "source_catalog", "tweakreg", "wfi18_transient", "dark_decay"),
)
SKIES = [0.5, 1.7, 0.9]
FRAMES = [
    Frame(x=4.0 * k, nx=100, ny=100, scale=0.11, sky=sky, noise=0.02, seed=k, dtype="f4") for k, sky in enumerate(SKIES)
]


def model_of(frame: Frame, number: int) -> Any:
    """A level 2 image, made and filled by roman_datamodels."""
    from roman_datamodels.datamodels import ImageModel

    model = ImageModel.create_fake_data(shape=(frame.ny, frame.nx))
    model.data, model.dq = frame.pixels(), np.zeros((frame.ny, frame.nx), "u4")
    model.meta.wcs = gwcs_of(frame)
    model.meta["cal_step"] = dict.fromkeys(STEPS, "INCOMPLETE")
    model.meta.filename = f"r{number}_wfi01_f158_cal.asdf"
    model.meta.instrument.optical_element = "F158"
    model.meta.exposure.exposure_time = 107.5
    model.meta.observation.exposure = number + 1
    return model


def save(folder: Path) -> list[str]:
    folder.mkdir()
    names = []
    for k, frame in enumerate(FRAMES):
        model = model_of(frame, k)
        names.append(str(folder / model.meta.filename))
        model.save(names[-1])  # lz4, its default
    return names


def opened(name: str) -> tuple[dict[str, Any], np.ndarray]:
    with roman.open(name) as model:
        model.validate()
        return dict(model.meta.get("background") or {}), np.array(model.data)


@pytest.mark.parametrize("method", ["match", "localmin", "globalmin", "globalmin+match", "user"])
@pytest.mark.parametrize("subtract", [False, True])
def test_its_models_open_and_save_what_every_method_writes(tmp_path: Path, method: str, subtract: bool) -> None:
    names = save(tmp_path / "x")
    before = [opened(name)[1] for name in names]
    words = ["match", "--method", method, *(["--subtract"] if subtract else [])]
    if method == "user":
        (tmp_path / "skies.txt").write_text("".join(f"{name} {sky}\n" for name, sky in zip(names, SKIES, strict=True)))
        words += ["--skylist", str(tmp_path / "skies.txt")]
    done = run(*words, *names)
    assert done.exit_code == 0, done.stderr
    for name, original in zip(names, before, strict=True):
        background, pixels = opened(name)
        assert background["subtracted"] is subtract
        assert pixels + (background["level"] if subtract else 0) == pytest.approx(original, abs=1e-5)
        with roman.open(name) as model:
            model.save(name + "~.asdf")
        Path(name + "~.asdf").rename(name)
    assert run("undo", *names).exit_code == 0
    for name, original in zip(names, before, strict=True):
        background, pixels = opened(name)
        assert background == {}
        assert pixels == pytest.approx(original, abs=1e-5)


def step(names: list[str], *, subtract: bool) -> None:
    """Run the pipeline's own step on files, and save what it gives."""
    from romancal.datamodels import ModelLibrary
    from romancal.skymatch import SkyMatchStep

    task = SkyMatchStep()
    task.skystat, task.subtract = "median", subtract
    done = task.process(ModelLibrary([roman.open(name) for name in names]))
    with done:
        for k, model in enumerate(done):
            model.save(names[k] + "~.asdf")
            done.shelve(model, k, modify=False)
    for name in names:
        Path(name + "~.asdf").rename(name)


@pytest.mark.parametrize("subtract", [False, True])
def test_its_own_step_before_and_after_ours(tmp_path: Path, subtract: bool) -> None:
    pytest.importorskip("romancal")
    names = save(tmp_path / "x")
    step(names, subtract=subtract)
    expected = np.array(SKIES) - min(SKIES)
    assert np.asarray(skymatch_cli.match(names, dry_run=True).images["sky"]) == pytest.approx(expected, abs=0.01)
    fresh = save(tmp_path / "y")
    assert run("match", *fresh).exit_code == 0
    step(fresh, subtract=False)
    levels = [opened(name)[0]["level"] for name in fresh]
    assert np.array(levels) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_round_trips_in_any_order_end_at_the_original_pixels(tmp_path: Path, seed: int) -> None:
    """romancal's step forgets what it had subtracted, and counts a recorded sky as subtracted: neither is tried.

    Where we have subtracted the sky, undo finds it all the same in what we left beside it.
    """
    pytest.importorskip("romancal")
    names = save(tmp_path / "x")
    before = [opened(name)[1] for name in names]
    rng = random.Random(seed)
    for move in rng.choices(["record", "subtract", "undo", "save", "their record", "their subtract"], k=6):
        if move == "save":
            for name in names:
                with roman.open(name) as model:
                    model.save(name + "~.asdf")
                Path(name + "~.asdf").rename(name)
        elif move.startswith("their"):
            subtracted = opened(names[0])[0].get("subtracted")
            if subtracted is (move == "their record") and not is_ours(names[0]):
                continue
            with contextlib.suppress(ValueError):
                step(names, subtract=move == "their subtract")
        else:
            words = {"record": ["match"], "subtract": ["match", "--subtract"], "undo": ["undo"]}[move]
            done = run(*words, *names)
            assert done.exit_code in {0, 3}, done.stderr
    assert run("undo", *names).exit_code in {0, 3}
    assert run("undo", "--from-keyword", *names).exit_code == 0
    for name, original in zip(names, before, strict=True):
        background, pixels = opened(name)
        assert not background.get("subtracted")
        assert pixels == pytest.approx(original, abs=1e-5)


def is_ours(name: str) -> bool:
    """Whether it is us who subtracted the sky."""
    with roman.open(name) as model:
        cards = model._instance.get("skymatch_cli", {}).get("cards", ())
        return any("undo * subtracted" in str(card) for card in cards)


def test_models_in_memory() -> None:
    result = skymatch_cli.match([model_of(frame, k) for k, frame in enumerate(FRAMES)])
    assert np.asarray(result.images["sky"]) == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.01)
    copied = result.subtracted()[1]
    assert copied.meta.background.subtracted is True
    copied.validate()


def test_copies_of_models_whose_files_we_wrote_can_be_matched(tmp_path: Path) -> None:
    names = save(tmp_path / "x")
    assert run("match", "--subtract", *names).exit_code == 0
    copies = skymatch_cli.match([roman.open(name) for name in names], method="localmin").subtracted()
    for copied, name in zip(copies, names, strict=True):
        copied.save(name + "~.asdf")
        Path(name + "~.asdf").rename(name)
    sky = np.asarray(skymatch_cli.match(names, dry_run=True).images["sky"])
    assert sky == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.01)
