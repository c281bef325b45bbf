"""With the pipeline of JWST: its own step before and after ours, outliers and mosaics of what we write."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skymatch_cli
from tests.factories import Frame
from tests.gwcsfiles import gwcs_of
from tests.pages import run

from .seams import report_seam

pytest.importorskip("jwst")
pytestmark = pytest.mark.filterwarnings("ignore")

SKIES = [1.0, 2.5, 1.7, 0.8]
FRAMES = [
    Frame(x=6.0 * k, y=2.0 * (k % 2), nx=120, ny=120, scale=0.1, sky=sky, noise=0.02, seed=k, dtype="f4")
    for k, sky in enumerate(SKIES)
]


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return sum(30 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.1) for a, b in [(3, 1), (9, 2), (15, -1), (12, 3)])


def model_of(frame: Frame, number: int, sky: float | None = None) -> Any:
    from stdatamodels.jwst.datamodels import ImageModel

    frame = frame if sky is None else frame.but(sky=sky)
    shape = (frame.ny, frame.nx)
    model = ImageModel(shape)
    model.data, model.dq = frame.pixels(scene), np.zeros(shape, "u4")
    model.err = np.full(shape, 0.02, "f4")
    model.var_rnoise = np.full(shape, 0.0004, "f4")
    model.var_poisson, model.var_flat = np.full(shape, 1e-6, "f4"), np.full(shape, 1e-7, "f4")
    meta = model.meta
    meta.wcs = wcs = gwcs_of(frame)
    meta.filename = f"jw01234001001_02101_{number + 1:05d}_nrca1_cal.fits"
    meta.telescope, meta.model_type, meta.date = "JWST", "ImageModel", "2026-01-01T00:00:00.000"
    meta.bunit_data = meta.bunit_err = "MJy/sr"
    meta.instrument = {"name": "NIRCAM", "detector": "NRCA1", "channel": "SHORT", "module": "A"}
    meta.instrument.filter, meta.instrument.pupil = "F200W", "CLEAR"
    meta.observation = {
        **{"program_number": "01234", "observation_number": "001", "visit_number": "001", "visit_group": "02"},
        **{"sequence_id": "1", "activity_id": "01", "exposure_number": str(number + 1), "date": "2026-01-01"},
        **{"time": "00:00:00.000", "visit_id": "01234001001", "obs_id": "V01234001001P0000000002101"},
    }
    meta.exposure = {"type": "NRC_IMAGE", "readpatt": "BRIGHT1", "exposure_time": 150.0, "nints": 1, "ngroups": 7}
    meta.exposure.effective_exposure_time = meta.exposure.measurement_time = meta.exposure.duration = 150.0
    meta.exposure.start_time, meta.exposure.mid_time = 60000.0 + 0.01 * number, 60000.001 + 0.01 * number
    meta.exposure.end_time, meta.exposure.nframes, meta.exposure.group_time = 60000.002 + 0.01 * number, 1, 21.4
    side = np.radians(frame.scale / 3600)
    meta.photometry = {"pixelarea_steradians": side**2, "pixelarea_arcsecsq": frame.scale**2}
    ra, dec = (float(v) for v in wcs((frame.nx - 1) / 2, (frame.ny - 1) / 2))
    corners = np.array([[0, 0], [0, frame.ny - 1], [frame.nx - 1, frame.ny - 1], [frame.nx - 1, 0]]).T
    polygon = " ".join(f"{a:.9f} {d:.9f}" for a, d in zip(*wcs(*corners, with_bounding_box=False), strict=True))
    meta.wcsinfo = {
        **{"ctype1": "RA---TAN", "ctype2": "DEC--TAN", "crval1": ra, "crval2": dec, "cunit1": "deg", "cunit2": "deg"},
        **{"crpix1": (frame.nx + 1) / 2, "crpix2": (frame.ny + 1) / 2, "pc1_1": -1.0, "pc2_2": 1.0, "pc1_2": 0.0},
        **{"pc2_1": 0.0, "cdelt1": frame.scale / 3600, "cdelt2": frame.scale / 3600, "wcsaxes": 2},
        **{"ra_ref": ra, "dec_ref": dec, "roll_ref": 0.0, "v2_ref": 0.0, "v3_ref": 0.0, "v3yangle": 0.0, "vparity": -1},
        **{"s_region": f"POLYGON ICRS  {polygon}"},
    }
    meta.subarray = {"name": "FULL", "xstart": 1, "ystart": 1, "xsize": frame.nx, "ysize": frame.ny}
    meta.cal_step.assign_wcs = meta.cal_step.photom = meta.cal_step.flat_field = "COMPLETE"
    return model


def save(folder: Path, skies: list[float] | None = None) -> list[str]:
    """Exposures as the pipeline writes them, and their association."""
    folder.mkdir()
    models = [model_of(f, k, None if skies is None else skies[k]) for k, f in enumerate(FRAMES)]
    names = [str(folder / m.meta.filename) for m in models]
    for model, name in zip(models, names, strict=True):
        model.save(name)
    members = [{"expname": Path(name).name, "exptype": "science"} for name in names]
    content = {"asn_id": "a3001", "asn_pool": "none", "asn_type": "image3", "asn_rule": "x", "program": "01234"}
    products = [{"name": "mosaic", "members": members}]
    (folder / "m_asn.json").write_text(json.dumps(content | {"products": products}))
    return names


def step(names: list[str], *, subtract: bool, skystat: str = "median") -> None:
    """Run the pipeline's own step on files, and save what it gives."""
    from jwst.datamodels import ModelLibrary
    from jwst.skymatch import SkyMatchStep

    task = SkyMatchStep()
    task.skystat, task.subtract = skystat, subtract
    done = task.process(ModelLibrary(str(Path(names[0]).parent / "m_asn.json")))
    with done:
        for k, model in enumerate(done):
            model.save(names[k])
            done.shelve(model, k, modify=False)


def opened(names: list[str]) -> list[tuple[float | None, bool | None, np.ndarray]]:
    """Level, state and pixels as the pipeline sees them."""
    from stdatamodels.jwst import datamodels

    found = []
    for name in names:
        with datamodels.open(name) as model:
            found.append((model.meta.background.level, model.meta.background.subtracted, np.array(model.data)))
    return found


def mosaic(folder: Path) -> tuple[np.ndarray, int]:
    """The mosaic of an association, and how many pixels were taken for outliers."""
    from jwst.datamodels import ModelLibrary
    from jwst.outlier_detection import OutlierDetectionStep
    from jwst.resample import ResampleStep
    from stdatamodels.jwst.datamodels import dqflags

    library = OutlierDetectionStep().process(ModelLibrary(str(folder / "m_asn.json")))
    outliers = 0
    with library:
        for k in range(len(library)):
            model = library.borrow(k)
            outliers += int(((model.dq & dqflags.pixel["OUTLIER"]) > 0).sum())
            library.shelve(model, k, modify=False)
    resample = ResampleStep()
    resample.weight_type, resample.rotation = "exptime", 0.0
    return np.array(resample.process(library).data), outliers


def test_mosaics_of_recorded_and_subtracted_files(tmp_path: Path) -> None:
    save(tmp_path / "raw")
    save(tmp_path / "true", [min(SKIES)] * 4)
    assert run("match", *save(tmp_path / "recorded")).exit_code == 0
    assert run("match", "--subtract", *save(tmp_path / "subtracted")).exit_code == 0
    true, few = mosaic(tmp_path / "true")
    before, many = mosaic(tmp_path / "raw")
    for folder in ("recorded", "subtracted"):
        after, outliers = mosaic(tmp_path / folder)
        assert outliers <= 2 * few + 20 < many
        report_seam(
            f"jwst `OutlierDetectionStep` and `ResampleStep`, {folder} files",
            before - true,
            after - true,
            unit="MJy/sr",
            below=0.01,
            above=1.0,
        )


@pytest.mark.parametrize("subtract", [False, True])
def test_the_pipelines_step_after_ours_finds_nothing_left(tmp_path: Path, subtract: bool) -> None:
    names = save(tmp_path / "x")
    assert run("match", *(["--subtract"] if subtract else []), *names).exit_code == 0
    ours = [level for level, *_ in opened(names)]
    step(names, subtract=subtract)
    theirs = [level for level, *_ in opened(names)]
    assert np.array(theirs) == pytest.approx(np.array(ours), abs=0.01)
    assert np.array(ours) == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.01)


@pytest.mark.parametrize("subtract", [False, True])
def test_our_match_after_the_pipelines_step_speaks_of_the_original_pixels(tmp_path: Path, subtract: bool) -> None:
    names = save(tmp_path / "x")
    step(names, subtract=subtract)
    result = skymatch_cli.match(names, dry_run=True)
    sky = np.asarray(result.images["sky"])
    assert sky == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_round_trips_in_any_order_never_lose_the_sky(tmp_path: Path, seed: int) -> None:
    """The pipeline matches, opens and saves; we record, subtract and undo; the known pixels are told at any time.

    Either side may refuse: the pipeline to change between recorded and subtracted, we where undo cards are gone.
    """
    from stdatamodels.jwst import datamodels

    names = save(tmp_path / "x")
    before = opened(names)
    expected = np.array(SKIES) - min(SKIES)
    rng = random.Random(seed)
    for move in rng.choices(["record", "subtract", "undo", "save", "their record", "their subtract"], k=6):
        if move == "save":
            for name in names:
                with datamodels.open(name) as model:
                    model.save(name)
        elif move.startswith("their"):
            with contextlib.suppress(ValueError):
                step(names, subtract=move == "their subtract")
        else:
            words = {"record": ["match"], "subtract": ["match", "--subtract"], "undo": ["undo"]}[move]
            done = run(*words, *names)
            assert done.exit_code in {0, 3}, done.stderr
            if done.exit_code == 0 and move != "undo":
                levels = [level for level, *_ in opened(names)]
                assert np.array(levels) == pytest.approx(expected, abs=0.01)
        assert_known(opened(names), before)
    run("undo", *names)
    assert_known(opened(names), before)
    assert run("undo", "--from-keyword", *names).exit_code == 0
    for (level, subtracted, pixels), (*_, original) in zip(opened(names), before, strict=True):
        assert (level, subtracted) == (None, None)
        assert np.allclose(pixels, original, atol=1e-5)


def test_the_settings_of_the_documentation_measure_as_they_do(tmp_path: Path) -> None:
    """Their modes scatter by a good part of the noise, 0.02: ours are closer to the known skies."""
    names = save(tmp_path / "x")
    settings = {"compare": "pooled", "skystat": "mode"}
    ours = np.asarray(skymatch_cli.match(names, dry_run=True, **settings).images["sky"])
    step(names, subtract=False, skystat="mode")
    theirs = np.array([level for level, *_ in opened(names)])
    assert ours == pytest.approx(theirs, abs=0.02)
    assert ours == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.005)


def assert_known(found: list[Any], before: list[Any]) -> None:
    """Pixels and what the header says of them give the original pixels."""
    for (level, subtracted, pixels), (*_, original) in zip(found, before, strict=True):
        assert np.allclose(pixels + (level if subtracted else 0), original, atol=1e-5)


def test_groups_are_those_of_the_pipeline(tmp_path: Path) -> None:
    """Two detectors of two exposures: from headers, from models, and as the association says."""
    from jwst.datamodels import ModelLibrary

    models = [model_of(FRAMES[k], k // 2) for k in range(4)]
    for k, model in enumerate(models):
        model.meta.instrument.detector = detector = ("NRCA1", "NRCA2")[k % 2]
        model.meta.filename = model.meta.filename.replace("nrca1", detector.lower())
    theirs = sorted(ModelLibrary(models).group_indices.values())
    assert theirs == [[0, 1], [2, 3]]
    names = [str(tmp_path / model.meta.filename) for model in models]
    for model, name in zip(models, names, strict=True):
        model.save(name)
    members = [
        {"expname": Path(name).name, "exptype": "science", "group_id": group}
        for name, group in zip(names, "abba", strict=True)
    ]
    asn = {"asn_id": "a3001", "asn_pool": "none", "products": [{"name": "m", "members": members}]}
    (tmp_path / "x_asn.json").write_text(json.dumps(asn))
    listed = sorted(ModelLibrary(str(tmp_path / "x_asn.json")).group_indices.values())
    assert listed == [[0, 3], [1, 2]]
    for images, expected in ((names, theirs), (models, theirs), ([str(tmp_path / "x_asn.json")], listed)):
        groups = [str(group) for group in skymatch_cli.match(images, dry_run=True).images["group"]]
        assert sorted([k for k in range(4) if groups[k] == group] for group in set(groups)) == expected


def test_models_in_memory(tmp_path: Path) -> None:
    from jwst.datamodels import ModelLibrary

    library = ModelLibrary([model_of(f, k) for k, f in enumerate(FRAMES)])
    result = skymatch_cli.match(library)
    assert np.asarray(result.images["sky"]) == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.01)
    copies = ModelLibrary(result.subtracted())
    with copies:
        copied = copies.borrow(1)
        assert copied.meta.background.subtracted is True
        copied.save(str(tmp_path / "copy.fits"))
        copies.shelve(copied, 1, modify=False)


def test_copies_of_models_whose_files_we_wrote_can_be_matched(tmp_path: Path) -> None:
    from stdatamodels.jwst import datamodels

    names = save(tmp_path / "x")
    assert run("match", "--subtract", *names).exit_code == 0
    copies = skymatch_cli.match([datamodels.open(name) for name in names], method="localmin").subtracted()
    for copied, name in zip(copies, names, strict=True):
        copied.save(name)
    sky = np.asarray(skymatch_cli.match(names, dry_run=True).images["sky"])
    assert sky == pytest.approx(np.array(SKIES) - min(SKIES), abs=0.01)
