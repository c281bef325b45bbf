"""``--model poly2``, ``poly3`` and ``auto``: skies that bend are found, recorded, subtracted and undone."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from numpy.polynomial.legendre import legval2d

import skymatch_cli
from skymatch_cli.cli import main
from skymatch_cli.errors import UsageError
from skymatch_cli.model.monomials import carried, exponents
from skymatch_cli.model.skyplane import SHAPE_TERMS, SkyPlane
from skymatch_cli.output.tables import peak_to_valley
from skymatch_cli.solve.degrees import carried_degrees
from skymatch_cli.solve.tiltequations import PlaneEquations

from .factories import Frame, tangent, write

SIZE = 96
N_TERMS = {"constant": 0, "plane": 2, "poly2": 5, "poly3": 9}


def frames(noise):
    return [
        Frame(x=52 * (k % 3) + 2 * (k // 3), y=52 * (k // 3), nx=SIZE, ny=SIZE, sky=100.0 + 7 * k, noise=noise, seed=k)
        for k in range(9)
    ]


def skies(model, size=3.0):
    """A sky for each of nine frames; the coefficients of tilts are per pixel."""
    rng = np.random.default_rng(4)
    found = []
    for frame in frames(0.0):
        shape = rng.normal(0, size, N_TERMS[model])
        shape[:2] /= SIZE / 2
        found.append(SkyPlane(frame.sky, *shape.tolist()))
    return found


def save(folder, model, noise=1.0, dtype="f4"):
    """Files of nine frames with these skies, and the skies as arrays."""
    truth = [sky.at(np.arange(SIZE), np.arange(SIZE)[:, None], (SIZE, SIZE)) for sky in skies(model)]
    pixels = [f.pixels() - f.sky + t for f, t in zip(frames(noise), truth, strict=True)]
    stored = [np.rint(p).astype(dtype) if dtype == "i2" else p.astype(dtype) for p in pixels]
    files = [
        write(folder / f"img_{k}.fits", f, pixels=p) for k, (f, p) in enumerate(zip(frames(0), stored, strict=True))
    ]
    return [str(file) for file in files], truth


def left_over(found, truth, degree):
    """What is left of the skies, less the polynomial of the degree that is common to all: (9, 12, 12)."""
    design, left = [], []
    for frame, true, row in zip(frames(0.0), truth, found, strict=True):
        y, x = np.mgrid[:SIZE:8, :SIZE:8]
        sky = SkyPlane(*row).at(x, y, (SIZE, SIZE))
        place = tangent(frame.ra, frame.dec).wcs_world2pix(
            frame.wcs().all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0), 0
        )
        u, v = place.T / 100
        design.append(np.stack([u**i * v**j for i, j in exponents(degree)], axis=1))
        left.append((true[::8, ::8] - sky).ravel())
    everything, values = np.concatenate(design), np.concatenate(left)
    common = np.linalg.lstsq(everything, values, rcond=None)[0]
    return (values - everything @ common).reshape(9, 12, 12)


def rows(found):
    """Level and shape of every image."""
    return np.column_stack([found.solution.sky, found.solution.tilt])


@pytest.mark.parametrize(("model", "degree", "rms"), [("poly2", 2, 0.1), ("poly3", 3, 0.4)])
def test_skies_that_bend_are_found(tmp_path, model, degree, rms):
    files, truth = save(tmp_path, model)
    found = skymatch_cli.match(files, compare="mesh", model=model, dry_run=True)
    left = left_over(rows(found), truth, degree)
    assert left.std() < rms  # of skies that vary by some 4 over a frame
    centre = left[:, 5:7, 5:7].mean(axis=(1, 2))
    assert np.all(np.abs(centre) < 5 * found.solution.sky_err)
    plane = skymatch_cli.match(files, compare="mesh", model="plane", dry_run=True)
    assert left_over(rows(plane), truth, degree).std() > 5 * left.std()


@pytest.mark.parametrize(("model", "degree", "rms"), [("plane", 1, 5e-4), ("poly2", 2, 1.5e-3), ("poly3", 3, 0.015)])
def test_skies_without_noise_are_found(tmp_path, model, degree, rms):
    files, truth = save(tmp_path, model, noise=0.0)
    found = skymatch_cli.match(files, compare="mesh", model=model, dry_run=True)
    assert left_over(rows(found), truth, degree).std() < rms  # of skies that vary by some 4 over a frame


def test_a_slope_of_the_scene_is_no_sky(tmp_path):
    # Cells at the border have their pixels to one side, in the other image to the other side.
    files = [
        str(write(tmp_path / f"img_{k}.fits", f, pixels=f.pixels(lambda x, y: 0.5 * x - 0.2 * y)))
        for k, f in enumerate(frames(0.0))
    ]
    found = skymatch_cli.match(files, compare="mesh", model="poly2", dry_run=True)
    truth = [np.full((SIZE, SIZE), f.sky) for f in frames(0.0)]
    assert left_over(rows(found), truth, 2).std() < 0.015  # where the scene varies by 48 over a frame


@pytest.mark.parametrize(("sky", "model", "named"), [("plane", "poly2", "plane"), ("constant", "poly2", "constant")])
def test_a_degree_that_the_images_do_not_need_is_named(tmp_path, sky, model, named):
    files, _ = save(tmp_path, sky)
    found = skymatch_cli.match(files, compare="mesh", model=model, dry_run=True)
    lower = skymatch_cli.match(files, compare="mesh", model=named, dry_run=True)
    factor = np.sqrt((found.solution.sky_err**2).sum() / (lower.solution.sky_err**2).sum())
    (line,) = [str(w) for w in found.warnings if w.name == "needless-degree"]
    assert f"--model {named} fits as well, with errors smaller by a factor of " in line
    assert float(line.split("a factor of ")[1]) == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize("model", ["constant", "plane", "poly2", "poly3"])
def test_a_degree_that_the_images_need_is_not_doubted(tmp_path, model):
    files, _ = save(tmp_path, model)
    found = skymatch_cli.match(files, compare="mesh", model=model, dry_run=True)
    assert not [w for w in found.warnings if w.name == "needless-degree"]


@pytest.mark.parametrize("model", ["constant", "plane", "poly2"])
def test_auto_takes_the_lowest_degree_that_the_images_ask_for(tmp_path, model):
    files, _ = save(tmp_path, model)
    found = skymatch_cli.match(files, compare="mesh", model="auto", dry_run=True)
    assert (0 if found.solution.tilt is None else found.solution.tilt.shape[1]) == N_TERMS[model]
    word = {"constant": "lowest = 0", "plane": "lowest = 0, mean tilt = 0"}
    assert list(found.solution.anchor) == [word.get(model, "lowest = 0, degree 2 without a common part")]
    degree = {"constant": 0, "plane": 1, "poly2": 2}[model]
    (said,) = found.remarks
    assert f"img_0.fits and 8 more: degree {degree} of --model auto; chi2/dof is " in said


def test_the_table_has_the_peak_to_valley_of_the_shape(tmp_path):
    files, _ = save(tmp_path, "poly2", noise=0.1)
    found = skymatch_cli.match(files, compare="mesh", model="poly2", dry_run=True)
    for row, pv in zip(rows(found), found.images["sky_pv"], strict=True):
        sky = SkyPlane(*row).at(np.arange(SIZE), np.arange(SIZE)[:, None], (SIZE, SIZE))
        assert float(pv.value) == pytest.approx(np.ptp(sky), rel=0.02)


def test_the_peak_to_valley_of_a_plane_is_that_of_its_corners():
    (pv,) = peak_to_valley([(11, 21)], np.array([[0.5, -0.25]]))
    assert pv == pytest.approx(20 * 0.5 + 10 * 0.25)


def thin(folder):
    """Six frames, 3 x 2, whose overlaps are a sixth of their sides: too thin for a polynomial of degree 3."""
    made = [
        Frame(x=80 * (k % 3), y=80 * (k // 3), nx=SIZE, ny=SIZE, sky=100.0 + 7 * k, noise=1.0, seed=k) for k in range(6)
    ]
    return [str(write(folder / f"img_{k}.fits", frame)) for k, frame in enumerate(made)]


@pytest.mark.parametrize("model", ["poly3", "auto"])
def test_a_degree_that_the_overlaps_do_not_determine_makes_no_large_skies(tmp_path, model):
    found = skymatch_cli.match(thin(tmp_path), compare="mesh", model=model, dry_run=True)
    levels = found.solution.sky - found.solution.sky.mean()
    assert np.abs(levels - 7 * (np.arange(6) - 2.5)).max() < (30 if model == "poly3" else 1)
    if model == "poly3":
        (said,) = [w for w in found.warnings if "overlaps too small for degree 3" in str(w)]
        assert "img_0.fits (degree" in str(said)


def test_the_header_says_enough_to_evaluate_the_sky(tmp_path):
    files, _ = save(tmp_path, "poly2")
    skymatch_cli.match(files, compare="mesh", model="poly2")
    header = fits.getheader(files[3])
    xc = yc = (SIZE - 1) / 2
    x, y = np.arange(SIZE), np.arange(SIZE)[:, None]
    u, v = (x - xc) / xc, (y - yc) / yc
    bend = np.zeros((4, 4))
    for key in header["BKGC??"]:
        bend[int(key[4]), int(key[5])] = header[key]
    sky = header["BKGLEVEL"] + header["BKGDX"] * (x - xc) + header["BKGDY"] * (y - yc)
    sky = sky + legval2d(*np.broadcast_arrays(u, v), bend) - legval2d(0, 0, bend)
    coefficients = {name: header.get(f"BKG{name.upper()}", 0.0) for name in SHAPE_TERMS}
    expected = SkyPlane(header["BKGLEVEL"], **coefficients).at(x, y, (SIZE, SIZE))
    np.testing.assert_allclose(sky, expected, atol=1e-10)
    assert len(header["BKGC??"]) == 3


@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_what_is_subtracted_is_undone(tmp_path, dtype):
    files, _ = save(tmp_path, "poly2", dtype=dtype)
    before = [Path(file).read_bytes() for file in files]
    pixels = fits.getdata(files[0]).astype(float)
    found = skymatch_cli.match(files, compare="mesh", model="poly2", subtract=True)
    sky = SkyPlane(*rows(found)[0]).at(np.arange(SIZE), np.arange(SIZE)[:, None], (SIZE, SIZE))
    np.testing.assert_allclose(fits.getdata(files[0]), pixels - sky, atol=1e-4)
    again = [Path(file).read_bytes() for file in files]
    skymatch_cli.match(files, compare="mesh", model="poly2", subtract=True)
    assert [Path(file).read_bytes() for file in files] == again
    assert CliRunner().invoke(main, ["undo", *files]).exit_code == 0
    if dtype == "i2":
        assert [Path(file).read_bytes() for file in files] == before
    else:
        np.testing.assert_allclose(fits.getdata(files[0]), pixels, atol=1e-4)


def test_a_reference_keeps_the_sky_that_is_recorded_in_it(tmp_path):
    files, _ = save(tmp_path, "poly2")
    first = skymatch_cli.match(files, compare="mesh", model="poly2")
    second = skymatch_cli.match(files, compare="mesh", model="poly2", reference=files[4], dry_run=True)
    np.testing.assert_allclose(rows(second)[4], rows(first)[4], atol=1e-9)
    np.testing.assert_allclose(rows(second), rows(first), atol=1e-6)


def test_programs_that_know_planes_only_are_refused(tmp_path):
    from skymatch_cli.export.programs import Export

    files, _ = save(tmp_path, "poly2")
    found = skymatch_cli.match(files, compare="mesh", model="poly2", dry_run=True)
    with pytest.raises(UsageError, match="higher degree"):
        Export(report=found.report, infos=found.infos).planes()


# --- the equations


def shapes_of(places, at, degree):
    return np.stack([(at[0] - places[:, 0]) ** i * (at[1] - places[:, 1]) ** j for i, j in exponents(degree)], axis=1)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_polynomial_is_the_same_about_another_place(degree):
    rng = np.random.default_rng(degree)
    shift, coefficients = rng.normal(size=(1, 2)), rng.normal(size=len(exponents(degree)))
    at = rng.normal(size=2)
    about_new = carried(shift, degree)[0] @ coefficients
    old = shapes_of(np.zeros((1, 2)), at, degree)[0] @ coefficients
    new = shapes_of(shift, at, degree)[0] @ about_new
    assert new == pytest.approx(old)


def strips(degree, n=4, width=0.1):
    """Groups in a row that overlap in strips, with exact moments from points in these."""
    centre = np.column_stack([np.arange(n) * 1.8, np.zeros(n)])
    a, b = np.arange(n - 1), np.arange(1, n)
    position = 0.5 * (centre[a] + centre[b])
    rng = np.random.default_rng(0)
    f = shapes_of(np.zeros((500, 2)), (rng.uniform(-width, width, 500), rng.uniform(-1, 1, 500)), degree)
    return centre, (a, b), np.tile(f.T @ f, (n - 1, 1, 1)), position


@pytest.mark.parametrize(("width", "degrees"), [(0.02, [1, 1, 1, 1]), (0.2, [1, 2, 2, 1]), (0.6, [2, 2, 2, 2])])
def test_groups_in_a_row_carry_what_their_strips_can(width, degrees):
    # what lies at the edges alone says little of a curvature in between, and less where there is one edge
    centre, ends, moment, position = strips(2, width=width)
    assert carried_degrees(centre, ends, moment, position).tolist() == degrees


def test_what_is_common_is_taken_off_and_the_rest_comes_back():
    rng = np.random.default_rng(3)
    index = np.arange(16).reshape(4, 4)
    a = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    b = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    centre = np.stack([index.ravel() % 4, index.ravel() // 4], axis=1) * 1.5
    f = shapes_of(np.zeros((300, 2)), rng.uniform(-0.5, 0.5, (2, 300)), 2)
    equations = PlaneEquations.of_pairs(centre, a, b, np.tile(f.T @ f, (len(a), 1, 1)), 0.5 * (centre[a] + centre[b]))
    truth = equations.centred(rng.normal(size=(16, 6, 1)))
    common = rng.normal(size=6)
    moved = truth + (carried(centre - centre.mean(axis=0), 2) @ common)[:, :, None]
    pull = equations.moment @ equations.differences(moved[:, :, 0])[:, :, None]
    np.testing.assert_allclose(equations.solve(equations.gathered(pull)), truth, atol=1e-9)


def test_auto_gives_what_the_model_that_it_chooses_gives(tmp_path):
    """Cells are trusted, and errors known, by the chosen model: not by the highest degree that was tried."""
    files, _ = save(tmp_path, "constant")
    auto, constant = (skymatch_cli.match(files, model=model, dry_run=True) for model in ("auto", "constant"))
    for column in ("sky", "sky_err"):
        assert list(auto.images[column]) == list(constant.images[column])
