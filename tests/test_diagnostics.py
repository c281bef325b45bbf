"""What a scientist acts on, through the shell: contradictions, weak places and doubts are said, with names."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from .factories import Frame, write, write_all
from .test_match_cli import content, levels, run

SIZE = 96
SKIES = [100.0, 130.0, 90.0, 120.0, 105.0, 95.0, 140.0, 110.0, 125.0]


def grid(n: int = 3, noise: float = 2.0, step: float = 72.0) -> list[Frame]:
    """n x n frames, each over its neighbours by a quarter; frame n i + j is the i-th to the east and j-th to the north.

    Pixels run to the west: the first columns lie over the next frame to the east.
    """
    places = list(itertools.product(range(n), range(n)))
    return [
        Frame(x=step * i, y=step * j, nx=SIZE, ny=SIZE, sky=SKIES[k], noise=noise, seed=k)
        for k, (i, j) in enumerate(places)
    ]


def stars(fwhm: float, n: int, flux: float, seed: int = 5):
    """A field of stars, as seen in this seeing (arcsec)."""
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(-60, 210, (2, n))
    light = flux * (rng.pareto(1.2, n) + 1)
    sigma = fwhm / 2.355

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        out = np.zeros(x.shape)
        for sx, sy, f in zip(x0, y0, light, strict=True):
            near = (np.abs(x - sx) < 5 * sigma) & (np.abs(y - sy) < 5 * sigma)
            out[near] += (
                f * np.exp(-((x[near] - sx) ** 2 + (y[near] - sy) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
            )
        return out

    return scene


def seen(*words: object, strict: int | None = None) -> tuple[dict, str]:
    """The result of a dry run as JSON, and what was said on standard error."""
    done = run("match", "--dry-run", "--format", "json", *words)
    assert done.exit_code == 0, done.stderr
    if strict is not None:
        assert run("match", "--dry-run", "--strict", *words).exit_code == strict
    return json.loads(done.stdout), done.stderr


def error(found: dict, frames: list[Frame]) -> float:
    """Largest error of the skies, the means taken out."""
    apart = np.array([image["sky"] for image in found["images"]]) - [frame.sky for frame in frames]
    return float(np.abs(apart - apart.mean()).max())


def change(path: str, edit) -> None:
    with fits.open(path, mode="update") as hdus:
        edit(hdus[0].data)


# --- residuals, chi2, loops


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_overlaps_that_contradict_one_another_are_a_bad_fit_that_names_images(tmp_path, compare):
    frames = grid()
    paths = write_all(tmp_path, frames)
    _, said = seen("--compare", compare, *paths, strict=0)
    assert "warning" not in said
    change(paths[4], lambda data: np.add(data, np.linspace(0, 40, SIZE), out=data))  # moonlight across the middle
    found, said = seen("--compare", compare, *paths, strict=5)
    component = found["components"][0]
    if compare == "pooled":
        assert component["chi2"] > 2 * component["dof"]
        (line,) = [line for line in said.splitlines() if "[disagreement]" in line]
        assert "loops close to" in line
    else:  # what differs within the overlaps is in the errors already
        (line,) = [line for line in said.splitlines() if "[disagreement]" in line]
    assert "img_4.fits" in line


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_chi2_is_what_independent_information_leads_one_to_expect(tmp_path, compare):
    chi2 = dof = 0.0
    for seed in range(8):
        frames = [frame.but(seed=100 * seed + k) for k, frame in enumerate(grid())]
        found, _ = seen("--compare", compare, *write_all(tmp_path / str(seed), frames))
        chi2 += found["components"][0]["chi2"]
        dof += found["components"][0]["dof"]
    assert dof > 50
    assert 0.7 < chi2 / dof < 1.4


def test_frames_that_all_see_the_same_can_not_disagree(tmp_path):
    """Every loop closes whatever the noise: there is no chi2 to speak of."""
    frames = [Frame(nx=SIZE, ny=SIZE, sky=100.0 + k, noise=2.0, seed=k) for k in range(5)]
    found, _ = seen("--compare", "mesh", *write_all(tmp_path, frames))
    assert (found["components"][0]["chi2"], found["components"][0]["dof"]) == (0, 0)


def test_loops_and_the_significance_of_residuals_are_told_with_v(tmp_path):
    frames = [Frame(x=12.0 * k, sky=100.0, noise=1.0, seed=k) for k in range(3)]
    paths = write_all(tmp_path, frames)
    change(paths[1], lambda data: np.add(data[:, :16], 8, out=data[:, :16]))
    done = run("match", "--dry-run", "-v", "--format", "json", *paths)
    overlaps = json.loads(done.stdout)["overlaps"]
    gap = overlaps[0]["delta"] + overlaps[2]["delta"] - overlaps[1]["delta"]
    assert f"closure {abs(gap):.4g} (rms of loops: 1)" in done.stderr
    ratio = max(abs(o["residual"]) / o["delta_err"] for o in overlaps)
    assert f"largest {ratio:.2f}" in done.stderr
    assert f"{ratio:.2f}  ━" in done.stderr
    store = tmp_path / "field.db"
    assert run("plan", "--store", store, *paths).exit_code == 0
    assert run("measure", store).exit_code == 0
    assert f"closure {abs(gap):.4g}" in run("solve", "-v", store).stderr


# --- one bad overlap


def trail(data: np.ndarray) -> None:
    """A satellite, wide and out of focus, along the border that only one neighbour sees."""
    data[30:66, :24] += 60


def ghost(data: np.ndarray) -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    data[(y - 48) ** 2 + (x - 4) ** 2 < 20**2] += 90


def wrong_mask(data: np.ndarray) -> None:
    """What is good in the overlap is masked, and what is left are pixels that an amplifier has lifted."""
    data[24:56, :24] = np.nan
    data[56:72, :24] += 60
    data[:24, :24] = data[72:, :24] = np.nan


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
@pytest.mark.parametrize("spoil", [trail, ghost, wrong_mask])
def test_one_bad_overlap_does_not_spoil_a_robust_solution(tmp_path, spoil, compare):
    frames = grid()
    paths = write_all(tmp_path, frames)
    change(paths[1], spoil)
    plain, _ = seen("--compare", compare, *paths)
    robust, said = seen("--compare", compare, "--robust", *paths)
    assert error(robust, frames) < 1.0
    if compare == "pooled":
        assert error(plain, frames) > 2 * error(robust, frames)
        doubted = [o for o in robust["overlaps"] if o["status"] == "down_weighted"]
        assert {(o["a"], o["b"]) for o in doubted} >= {(1, 4)}
        assert all(o["kept"] < 0.5 for o in doubted)
        assert all(o["kept"] >= 0.5 for o in robust["overlaps"] if o["status"] == "ok")
        (line,) = [line for line in said.splitlines() if "contradict the others" in line]
        assert "img_1.fits" in line
        assert "img_4.fits" in line


def test_weights_are_told_with_robust_only_and_are_read_back(tmp_path):
    paths = write_all(tmp_path, grid())
    change(paths[1], ghost)
    plain, _ = seen(*paths)
    assert "kept" not in plain["overlaps"][0]
    done = run("match", "--dry-run", "--robust", "--table", "overlaps", "--format", "csv", *paths)
    assert "kept,status" in done.stdout.splitlines()[0]
    for suffix in (".json", ".fits"):
        result = tmp_path / f"result{suffix}"
        assert run("match", "--dry-run", "--robust", "-o", result, *paths).exit_code == 0
        assert run("export", "--to", "topcat", result, "-o", tmp_path / f"table{suffix}.vot").exit_code == 0
        assert b"kept" in (tmp_path / f"table{suffix}.vot").read_bytes()


# --- the other comparison


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> list[str]:
    """Four frames of a crowded field in different seeing."""
    folder = tmp_path_factory.mktemp("crowded")
    frames = [frame.but(noise=1.0) for frame in grid(2)]
    return [
        write(folder / f"img_{k}.fits", frame, scene=stars(2.5 + 0.9 * k, 4000, 60.0)) for k, frame in enumerate(frames)
    ]


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_cross_check_names_images_on_which_pooled_and_mesh_disagree(crowded, compare):
    _, said = seen("--compare", compare, *crowded)
    assert "mesh and pooled" not in said
    _, said = seen("--cross-check", "--compare", compare, *crowded, strict=5)
    (line,) = [line for line in said.splitlines() if "mesh and pooled disagree" in line]
    assert "img_3.fits" in line


def test_a_cross_check_of_a_plain_field_says_nothing(tmp_path):
    frames = grid()
    paths = [write(tmp_path / f"img_{k}.fits", f, scene=stars(2.5, 60, 300.0)) for k, f in enumerate(frames)]
    for compare in ("pooled", "mesh"):
        _, said = seen("--cross-check", "--compare", compare, *paths, strict=0)
        assert "warning" not in said


def test_a_cross_check_takes_images_that_stand_alone_or_see_nothing(tmp_path):
    frames = [*grid(2), Frame(x=4000, nx=SIZE, ny=SIZE, noise=1.0), Frame(x=36, nx=SIZE, ny=SIZE)]
    paths = write_all(tmp_path, frames)
    change(paths[5], lambda data: data.fill(np.nan))
    found, said = seen("--cross-check", *paths)
    assert [image["status"] for image in found["images"]] == ["ok"] * 4 + ["no_overlap", "all_masked"]
    assert "mesh and pooled agree" in said
    assert "[cross-check]" not in said


def test_a_cross_check_does_not_change_the_result(crowded):
    plain, checked = (seen(*words, *crowded)[0] for words in ([], ["--cross-check"]))
    assert checked["images"] == plain["images"]
    assert checked["overlaps"] == plain["overlaps"]


@pytest.mark.parametrize(
    "words", [["--method", "localmin"], ["--compare", "mesh", "--model", "plane"]], ids=["no overlaps", "planes"]
)
def test_a_cross_check_of_what_can_not_be_compared_is_refused(crowded, words):
    done = run("match", "--dry-run", "--cross-check", *words, *crowded)
    assert done.exit_code == 2
    assert "--cross-check" in done.stderr


# --- weak places


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_two_halves_that_hang_on_one_thin_overlap_are_told(tmp_path, compare):
    left = grid(2)
    right = [frame.but(x=frame.x + 164.5, y=frame.y + 135, seed=20 + k) for k, frame in enumerate(left)]
    paths = write_all(tmp_path, [*left, *right])
    _, said = seen("--compare", compare, *paths, strict=5)
    (line,) = [line for line in said.splitlines() if "[weak-link]" in line]
    assert "img_3.fits" in line
    assert "img_4.fits" in line


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_an_image_whose_overlaps_are_all_but_masked_is_told(tmp_path, compare):
    paths = write_all(tmp_path, grid())

    def mask(data: np.ndarray) -> None:
        bad = np.ones(data.shape, bool)
        bad[24:, :72] = bad[40:56, 76:92] = bad[4:20, 40:56] = False
        data[bad] = np.nan

    change(paths[8], mask)
    _, said = seen("--compare", compare, *paths, strict=5)
    (line,) = [line for line in said.splitlines() if "weak skies" in line]
    assert "img_8.fits" in line
    assert "img_0.fits" not in line


def test_a_field_in_which_cells_disagree_everywhere_is_told(tmp_path):
    """Each image has structure of its own: the errors are many times those of the pixels' noise."""
    rng = np.random.default_rng(1)
    paths = write_all(tmp_path, grid(noise=1.0))
    for path in paths:
        rough = np.kron(rng.normal(0, 3, (SIZE // 16, SIZE // 16)), np.ones((16, 16)))
        change(path, lambda data, rough=rough: np.add(data, rough, out=data))
    found, said = seen("--compare", "mesh", *paths, strict=5)
    assert "disagree" in said
    (line,) = [line for line in said.splitlines() if "weak skies" in line]
    assert "%" in line
    assert min(image["sky_err"] for image in found["images"]) > 0.1


def test_the_error_of_the_baseline_is_no_disagreement_of_overlaps(tmp_path):
    """Structure of the scene makes own skies uncertain, and cancels in the differences."""

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 10 * np.sin(x / 9) * np.sin(y / 11) + 0.2 * x

    paths = [write(tmp_path / f"{k}.fits", frame, scene=scene) for k, frame in enumerate(grid(noise=1.0))]
    found, said = seen("--method", "globalmin+match", *paths)
    assert min(image["sky_err"] for image in found["images"]) > 0.2
    assert "[disagreement]" not in said


# --- planes


def test_weak_tilts_are_a_warning(tmp_path):
    frames = [Frame(x=52.0 * k, nx=64, ny=64, sky=100.0 + k, noise=1.0, seed=k) for k in range(8)]
    paths = write_all(tmp_path, frames)
    _, said = seen("--compare", "mesh", "--model", "plane", *paths, strict=5)
    assert "hardly determine tilts" in said


def test_planes_are_recorded_subtracted_and_undone(tmp_path):
    frames = grid(2)
    paths = write_all(tmp_path, frames)
    ramp = 0.05 * (np.arange(SIZE) - (SIZE - 1) / 2)
    change(paths[0], lambda data: np.add(data, ramp, out=data))
    before, pixels = content(paths), fits.getdata(paths[0])
    done = run("match", "--compare", "mesh", "--model", "plane", "--format", "json", *paths)
    image = json.loads(done.stdout)["images"][0]
    header = fits.getheader(paths[0])
    cards = [header[name] for name in ("BKGLEVEL", "BKGDX", "BKGDY", "BKGSUB")]
    assert cards == [image["sky"], image["sky_dx"], image["sky_dy"], False]
    others = np.mean([i["sky_dx"] for i in json.loads(done.stdout)["images"][1:]])
    assert image["sky_dx"] - others == pytest.approx(0.05, abs=0.02)
    assert run("match", "--subtract", "--compare", "mesh", "--model", "plane", *paths).exit_code == 0
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    plane = image["sky"] + image["sky_dx"] * x + image["sky_dy"] * y
    np.testing.assert_allclose(fits.getdata(paths[0]), pixels - plane, atol=1e-9)
    assert run("undo", *paths).exit_code == 0
    np.testing.assert_allclose(fits.getdata(paths[0]), pixels, rtol=1e-15)
    assert [Path(p).stat().st_size for p in paths] == [len(c) for c in before]


def test_levels_are_those_of_constants_where_there_is_no_tilt(tmp_path):
    frames = grid(3, noise=0.0)
    paths = write_all(tmp_path, frames)
    constant, plane = (
        levels(run("match", "--dry-run", "--format", "json", "--compare", "mesh", *words, *paths))
        for words in ([], ["--model", "plane"])
    )
    np.testing.assert_allclose(plane, constant, atol=1e-6)
