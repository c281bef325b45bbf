"""Cubes: each plane is matched by itself, recorded, subtracted and undone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skymatch_cli
from skymatch_cli.errors import InputError
from skymatch_cli.settings import Settings
from skymatch_cli.store import measuring
from skymatch_cli.store.planning import plan

from .commands import run
from .factories import Frame

SIZE = 90
PLACES = [(0, 0), (62, 4), (3, 64), (66, 63)]
WAVE = {"CTYPE3": "WAVE", "CRVAL3": 5e-7, "CDELT3": 1e-9, "CRPIX3": 1.0, "CUNIT3": "m"}


def level(cube, plane):
    """The sky of a plane: every cube and plane has its own."""
    return 100.0 + 7.0 * cube * (plane + 1) - 3.0 * plane


def stars(x, y):
    return 8 * np.exp(-((x - 50) ** 2 + (y - 40) ** 2) / 200)


def save(folder, n_planes, cards=None, dtype="f4", noise=1.0, tilt=0.0, pack=None):
    """Four cubes, 2 x 2."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for k, (x, y) in enumerate(PLACES):
        frame = Frame(x=x, y=y, nx=SIZE, ny=SIZE, rotation=3.0 * k, noise=noise)
        slope = tilt * (np.arange(SIZE) - (SIZE - 1) / 2)
        planes = [
            frame.but(sky=level(k, p), seed=10 * k + p).pixels(stars) + (p + 1) * (k - 1.5) * slope
            for p in range(n_planes)
        ]
        data = np.stack(planes)
        data = np.rint(data).astype(dtype) if np.dtype(dtype).kind in "iu" else data.astype(dtype)
        header = frame.wcs().to_header()
        header.update({"BUNIT": "adu", **(cards or {})})
        names.append(str(folder / f"cube_{k}.fits"))
        if pack:
            fits.HDUList([fits.PrimaryHDU(), pack(data, header)]).writeto(names[-1])
        else:
            fits.PrimaryHDU(data, header).writeto(names[-1])
    return names


def apart(images, column="sky"):
    """Skies less those of the first cube, (cubes, planes)."""
    skies = np.array(images[column]).reshape(len(PLACES), -1)
    return skies - skies[:1]


def expected(n_planes):
    skies = np.array([[level(k, p) for p in range(n_planes)] for k in range(len(PLACES))])
    return skies - skies[:1]


@pytest.mark.parametrize("compare", ["mesh", "pooled"])
def test_each_plane_of_colour_frames_is_matched_by_itself(tmp_path, compare):
    done = run("match", "--dry-run", "--format", "json", "--compare", compare, *save(tmp_path, 3))
    found = json.loads(done.stdout)
    images = found["images"]
    assert [row["plane"] for row in images] == [1, 2, 3] * 4
    assert apart({"sky": [row["sky"] for row in images]}) == pytest.approx(expected(3), abs=0.2)
    assert all(images[o["a"]]["plane"] == images[o["b"]]["plane"] for o in found["overlaps"])
    assert len(found["components"]) == 3
    assert found["warnings"] == []


def test_planes_get_what_they_get_as_images_of_their_own(tmp_path):
    """One geometry for all planes gives what each plane in a file of its own gives."""
    whole = skymatch_cli.match(save(tmp_path, 2), dry_run=True).images
    for plane in range(2):
        names = []
        for name in sorted(tmp_path.glob("cube_*.fits")):
            with fits.open(name) as hdus:
                names.append(str(tmp_path / f"plane{plane}_{name.name}"))
                fits.PrimaryHDU(hdus[0].data[plane], hdus[0].header).writeto(names[-1])
        alone = skymatch_cli.match(names, dry_run=True).images
        mine = whole[whole["plane"] == plane + 1]
        for column in ("sky", "sky_err", "n_pixels"):
            assert list(mine[column]) == list(alone[column])


def test_images_without_planes_have_no_such_column(tmp_path):
    names = [save(tmp_path, 3)[0]]
    for k, name in enumerate(names):
        with fits.open(name) as hdus:
            fits.PrimaryHDU(hdus[0].data[0], hdus[0].header).writeto(tmp_path / f"flat_{k}.fits")
    result = skymatch_cli.match([str(tmp_path / "flat_0.fits")], method="localmin", dry_run=True)
    assert "plane" not in result.images.colnames


@pytest.mark.parametrize(("n_planes", "cards"), [(4, None), (2, WAVE)])
def test_spectral_cubes_and_those_of_many_planes_are_matched_where_it_is_asked_for(tmp_path, n_planes, cards):
    names = save(tmp_path, n_planes, cards)
    refused = run("match", "--dry-run", *names)
    assert refused.exit_code == 3
    assert "--planes each" in refused.stderr
    result = skymatch_cli.match(names, planes="each", dry_run=True)
    assert apart(result.images) == pytest.approx(expected(n_planes), abs=0.2)


@pytest.mark.parametrize(
    ("shape", "cards"),
    [
        ((4, 20, 30), {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}),
        ((4, 20, 30), {"CTYPE1": "WAVE", "CTYPE2": "RA---TAN", "CTYPE3": "DEC--TAN"}),
        ((2, 4, 20, 30), {"CTYPE3": "WAVE", "CTYPE4": "STOKES"}),
    ],
)
def test_what_is_no_stack_of_images_of_the_sky_is_refused(tmp_path, shape, cards):
    header = Frame(nx=30, ny=20).wcs().to_header()
    header.update(cards)
    fits.PrimaryHDU(np.zeros(shape, "f4"), header).writeto(tmp_path / "c.fits")
    with pytest.raises(InputError, match="whose axes are not longitude, latitude and one more"):
        skymatch_cli.match([str(tmp_path / "c.fits")], planes="each", dry_run=True)


def test_planes_at_other_wavelengths_are_not_compared(tmp_path):
    names = save(tmp_path, 4, WAVE)
    fits.setval(names[2], "CRVAL3", value=5.01e-7)
    with pytest.raises(InputError, match="the positions of its planes along WAVE differ from those of"):
        skymatch_cli.match(names, planes="each", dry_run=True)


def test_planes_at_wavelengths_of_a_table_are_matched(tmp_path):
    names = save(tmp_path, 2, {"CTYPE3": "WAVE-TAB", "CUNIT3": "um", "PS3_0": "WCS-TABLE", "PS3_1": "wavelength"})
    for name in names:
        with fits.open(name) as hdus:
            pixels = fits.ImageHDU(hdus[0].data.copy(), hdus[0].header.copy(), name="SCI")
        wavelength = fits.Column("wavelength", "2D", dim="(1,2)", array=[[1.0, 2.5]])
        table = fits.BinTableHDU.from_columns([wavelength], name="WCS-TABLE")
        fits.HDUList([fits.PrimaryHDU(), pixels, table]).writeto(name, overwrite=True)
    found = skymatch_cli.match(names, planes="each", dry_run=True).images
    assert apart(found) == pytest.approx(expected(2), abs=0.2)


def test_the_report_says_that_it_shows_the_mean_of_the_planes(tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("PIL")
    page = tmp_path / "page.html"
    assert run("match", "--dry-run", "--report", page, *save(tmp_path, 3)).exit_code == 0
    assert "averaged over the images and all planes of the cubes" in page.read_text()


def test_cubes_of_different_numbers_of_planes_are_different_sets(tmp_path):
    names = [*save(tmp_path / "a", 2), *save(tmp_path / "b", 3)]
    result = skymatch_cli.match(names, dry_run=True)
    assert len(result.components) == 5


def pixels(name):
    return Path(name).read_bytes()


def sky_in(header, plane, shape, *, tilted):
    """What the docs say: the sky of a plane by its keywords."""
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx]
    sky = header[f"BKGL{plane}"] + np.zeros(shape)
    if tilted:
        sky += header[f"BKGX{plane}"] * (x - (nx - 1) / 2) + header[f"BKGY{plane}"] * (y - (ny - 1) / 2)
    return sky


@pytest.mark.parametrize("model", ["constant", "plane"])
@pytest.mark.parametrize("dtype", ["f4", "i2", "u2"])
def test_what_is_recorded_and_subtracted_is_undone(tmp_path, model, dtype):
    names = save(tmp_path, 3, dtype=dtype, tilt=0.01, noise=3.0)
    before, original = [pixels(name) for name in names], [fits.getdata(name).astype(float) for name in names]
    assert run("match", "--model", model, *names).exit_code == 0
    for name, values in zip(names, original, strict=True):
        np.testing.assert_array_equal(fits.getdata(name), values)
        assert fits.getval(name, "BKGSUB") is False
    done = run("match", "--model", model, "--subtract", "--format", "json", *names)
    skies = [row["sky"] for row in json.loads(done.stdout)["images"]]
    for k, (name, values) in enumerate(zip(names, original, strict=True)):
        header, after = fits.getheader(name), fits.getdata(name)
        assert header["BKGSUB"] is True
        for p in range(3):
            assert header[f"BKGL{p + 1}"] == skies[3 * k + p]
            sky = sky_in(header, p + 1, (SIZE, SIZE), tilted=model == "plane")
            np.testing.assert_allclose(after[p], values[p] - sky, atol=1e-4)
    written = [pixels(name) for name in names]
    assert run("match", "--model", model, "--subtract", *names).exit_code == 0
    assert [pixels(name) for name in names] == written
    assert run("undo", *names).exit_code == 0
    if dtype == "f4":
        for name, values in zip(names, original, strict=True):
            np.testing.assert_allclose(fits.getdata(name), values, atol=1e-3)
    else:
        assert [pixels(name) for name in names] == before


def test_recorded_cubes_are_as_they_were_after_undo(tmp_path):
    names = save(tmp_path, 3)
    for name in names:
        fits.setval(name, "BKGL2", value=17.0, comment="of another program")
    before = [pixels(name) for name in names]
    run("match", *names)
    assert fits.getval(names[1], "BKGL2") != 17.0
    assert run("undo", *names).exit_code == 0
    assert [pixels(name) for name in names] == before


def test_compressed_cubes_are_subtracted_and_undone(tmp_path):
    def pack(data, header):
        return fits.CompImageHDU(data, header, compression_type="RICE_1")

    names = save(tmp_path, 3, dtype="i2", noise=5.0, pack=pack)
    original = [fits.getdata(name) for name in names]
    result = skymatch_cli.match(names, subtract=True)
    assert apart(result.images) == pytest.approx(expected(3), abs=1.0)
    after = fits.getdata(names[3])
    skies = np.array(result.images["sky"]).reshape(4, 3)[3]
    np.testing.assert_allclose(after, original[3] - skies[:, None, None], atol=1e-4)
    assert run("undo", *names).exit_code == 0
    for name, values in zip(names, original, strict=True):
        np.testing.assert_array_equal(fits.getdata(name), values)


def test_an_edited_level_of_a_subtracted_plane_is_refused(tmp_path):
    names = save(tmp_path, 3)
    skymatch_cli.match(names, subtract=True)
    fits.setval(names[1], "BKGL2", value=1.0)
    with pytest.raises(InputError, match="BKGL2 = 1, but skymatch subtracted"):
        skymatch_cli.match(names, dry_run=True)


def test_the_sky_of_the_header_is_added_back_where_the_undo_cards_are_gone(tmp_path):
    names = save(tmp_path, 3)
    original = fits.getdata(names[2])
    skymatch_cli.match(names, subtract=True)
    with fits.open(names[2], mode="update") as hdus:
        del hdus[0].header["HISTORY"]
    assert run("undo", "--from-keyword", names[2]).exit_code == 0
    np.testing.assert_allclose(fits.getdata(names[2]), original, atol=1e-4)
    assert "BKGL1" not in fits.getheader(names[2])


def test_planes_of_nothing_but_nan_are_said_once_and_stay_as_they_are(tmp_path):
    names = save(tmp_path, 6, WAVE)
    for name in names:
        with fits.open(name, mode="update") as hdus:
            hdus[0].data[[0, 1, 2, 5]] = np.nan
    done = run("match", "--planes", "each", "--subtract", "--format", "json", *names)
    found = json.loads(done.stdout)
    said = [w["text"] for w in found["warnings"] if w["name"] == "no-sky"]
    assert said == ["no sky (all_masked): planes 1-3, 6 of all 4 cubes"]
    assert {row["plane"] for row in found["images"] if row["sky"] is not None} == {4, 5}
    header = fits.getheader(names[1])
    assert [k for k in range(1, 7) if f"BKGL{k}" in header] == [4, 5]


def test_flags_of_planes_are_those_of_their_cube(tmp_path):
    names = save(tmp_path, 3)
    for name in names:
        with fits.open(name) as hdus:
            data, header = hdus[0].data, hdus[0].header
        data[1, :, :20] += 1000.0
        flags = np.zeros(data.shape, "i2")
        flags[1, :, :20] = 1
        both = [fits.ImageHDU(data, header, name="SCI"), fits.ImageHDU(flags, name="DQ")]
        fits.HDUList([fits.PrimaryHDU(), *both]).writeto(name, overwrite=True)
    result = skymatch_cli.match(names, dry_run=True)
    assert list(result.images["n_pixels"][:3]) == [SIZE**2, SIZE * (SIZE - 20), SIZE**2]
    assert apart(result.images) == pytest.approx(expected(3), abs=0.3)


def test_steps_and_stored_results_know_planes(tmp_path):
    names = save(tmp_path, 3)
    whole = skymatch_cli.match(names, dry_run=True)
    store, solution = tmp_path / "field.db", tmp_path / "solution.fits"
    for words in (("plan", "--store", store, *names), ("measure", store), ("solve", store, "-o", solution)):
        assert run(*words).exit_code == 0
    assert run("apply", solution, "--subtract").exit_code == 0
    assert [fits.getval(names[1], f"BKGL{k}") for k in (1, 2, 3)] == whole.images["sky"].value.tolist()[3:6]
    stored = tmp_path / "result.json"
    run("match", "--dry-run", "-o", stored, *names)
    from skymatch_cli.output.stored import read_images, read_report

    report = read_report(str(stored))
    assert [info.ref.label for info in read_images(report)] == list(report.labels)


def test_cubes_in_memory_lose_the_sky_of_each_plane(tmp_path):
    names = save(tmp_path, 3)
    held = []
    for name in names:
        with fits.open(name) as hdus:
            held.append(fits.HDUList([fits.PrimaryHDU(hdus[0].data.copy(), hdus[0].header)]))
    result = skymatch_cli.match(held, dry_run=True)
    copies = result.subtracted()
    skies = np.array(result.images["sky"]).reshape(4, 3)
    for hdus, copy, sky in zip(held, copies, skies, strict=True):
        np.testing.assert_allclose(copy[0].data, hdus[0].data - sky[:, None, None], atol=1e-4)


@pytest.mark.parametrize("more", [{"model": "plane"}, {"method": "globalmin+match"}, {"cross_check": True}])
def test_planes_some_at_a_time_give_what_all_at_once_give(tmp_path, monkeypatch, more):
    names = save(tmp_path, 5, WAVE)
    settings = {"planes": "each", "compare": "mesh", "dry_run": True, **more}
    whole = skymatch_cli.match(names, **settings)
    monkeypatch.setattr(measuring, "_AT_A_TIME", 2 * 4 * SIZE**2)  # two planes of four cubes
    apart = skymatch_cli.match(names, **settings)
    assert apart.to_json() == whole.to_json()
    words = [f"--{name.replace('_', '-')}" + (f"={value}" if value is not True else "") for name, value in more.items()]
    done = run("match", "--dry-run", "--planes=each", "--format=json", *words, f"--store={tmp_path / 'a.db'}", *names)
    assert done.stdout == whole.to_json()


def test_a_cube_comes_before_a_map_of_its_file(tmp_path):
    """As in MUSE files: DATA and STAT are cubes, FIELDMAP is an image that is not the sky."""
    names = save(tmp_path, 3)
    for name in names:
        with fits.open(name) as hdus:
            data, header = hdus[0].data, hdus[0].header
        flat = Frame(nx=SIZE, ny=SIZE).wcs().to_header()
        more = [fits.ImageHDU(data, header, name="DATA"), fits.ImageHDU(np.ones((SIZE, SIZE), "i2"), flat, "FIELDMAP")]
        fits.HDUList([fits.PrimaryHDU(), *more]).writeto(name, overwrite=True)
    result = skymatch_cli.match(names, dry_run=True)
    assert set(result.images["ext"]) == {"DATA"}


def test_one_plane_is_matched_and_undone_alone_and_not_without_the_others(tmp_path):
    names = save(tmp_path, 3)
    before = [pixels(name) for name in names]
    second = [f"{name}[*,*,2]" for name in names]
    assert run("match", *second).exit_code == 0
    header = fits.getheader(names[1])
    assert [k for k in (1, 2, 3) if f"BKGL{k}" in header] == [2]
    assert run("undo", *second).exit_code == 0
    assert [pixels(name) for name in names] == before
    run("match", *names)
    refused = run("undo", *second)
    assert refused.exit_code == 3
    assert "skies of 2 planes that are not named, such as 1" in refused.stderr


def test_skies_of_planes_are_not_exported_to_programs_that_take_one_an_image(tmp_path):
    stored = tmp_path / "result.fits"
    run("match", "--dry-run", "-o", stored, *save(tmp_path, 2))
    done = run("export", stored, "--to", "swarp", "-o", tmp_path / "back.txt")
    assert done.exit_code == 3
    assert "is a plane of a cube, and other programs take one sky an image" in done.stderr


def test_tiles_through_several_planes_hold_the_same_pixels(tmp_path):
    """Seven planes in tiles three planes deep: the skies are those of cubes without tiles."""

    def pack(data, header):
        return fits.CompImageHDU(data, header, compression_type="RICE_1", tile_shape=(3, 30, 45))

    plain = save(tmp_path / "plain", 7, WAVE, dtype="i2")
    packed = save(tmp_path / "packed", 7, WAVE, dtype="i2", pack=pack)
    found, expected = (
        json.loads(run("match", "--dry-run", "--format", "json", "--jobs", "1", "--planes", "each", *names).stdout)
        for names in (packed, plain)
    )
    assert [row["sky"] for row in found["images"]] == [row["sky"] for row in expected["images"]]


IN_PROCESSES = """
import os, signal, sys
from skymatch_cli.cli import main
from skymatch_cli.compare.meshed import MeshTask
from skymatch_cli.run import tasks

tasks._WORTH_PROCESSES = 0  # also for few pixels
measure, here = MeshTask.__call__, os.getpid()


def of_test(task):
    label = task.info.ref.label
    {body}
    return measure(task)


MeshTask.__call__ = of_test
main(["match", "--dry-run", "--compare", "mesh", "--planes", "each", *sys.argv[1:]])
"""


def run_in_processes(body: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``match`` in a Python of its own, without the threads that other tests have; ``body`` comes before a task."""
    command = [sys.executable, "-c", IN_PROCESSES.replace("{body}", body), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("model", ["constant", "plane"])
def test_planes_are_compared_alike_in_processes(tmp_path, model):
    """Each set of planes may be compared in a process of its own: same bytes."""
    names = save(tmp_path, 5, WAVE)
    alone, apart = (
        run_in_processes("", "--format", "csv", "--model", model, "--jobs", jobs, *names).stdout for jobs in "12"
    )
    assert alone.count("cube_") >= 15
    assert apart == alone


def test_a_plane_whose_process_is_killed_is_named(tmp_path):
    """Each process measures planes of its own at first; after one was killed they are measured one by one."""
    names = save(tmp_path, 5, WAVE)
    killed = 'label.endswith("cube_1.fits[*,*,3]") and os.getpid() != here and os.kill(os.getpid(), signal.SIGKILL)'
    refused = run_in_processes(killed, "--jobs", "2", *names)
    assert refused.returncode == 3
    assert refused.stderr.count("cube_") == 1
    assert "cube_1.fits[*,*,3]: the process that read it was killed" in refused.stderr


def test_all_planes_that_can_not_be_read_are_named_whatever_process_reads_them(tmp_path):
    names = save(tmp_path, 5, WAVE)
    bad = "cube_0.fits[*,*,1]", "cube_0.fits[*,*,5]", "cube_2.fits[*,*,2]"
    torn = f'if label.endswith({bad!r}): return task.lost("is torn")'
    alone, apart = (run_in_processes(torn, "--jobs", jobs, *names) for jobs in "12")
    assert (apart.returncode, apart.stderr) == (alone.returncode, alone.stderr)
    assert all(name in apart.stderr for name in bad)


def test_planes_that_are_not_named_do_not_change_their_state(tmp_path):
    names = save(tmp_path, 3)
    run("match", *names)
    before = [Path(name).read_bytes() for name in names]
    refused = run("match", "--subtract", *(f"{name}[*,*,1]" for name in names))
    assert refused.exit_code == 3
    assert "the skies of its planes [*,*,2], [*,*,3] are not subtracted" in refused.stderr
    assert [Path(name).read_bytes() for name in names] == before


def test_sections_of_planes_have_overlaps_of_their_own(tmp_path):
    first, *others = save(tmp_path, 2)
    each = Settings(planes="each")
    both = plan([f"{first}[0][1:45,*]", f"{first}[0][46:90,*]", *others], each).graph
    parts = f"{first}[0][1:45,*,1]", f"{first}[0][46:90,*,1]", *(f"{name}[0][*,*,1]" for name in others)
    one = plan(parts, each).graph
    expected = list(zip(one.a.tolist(), one.b.tolist(), one.area_arcmin2.tolist(), strict=True))
    assert [a for a, b, _ in expected if b == 2] == [0]  # only one of the halves reaches the cube beside
    for k in (0, 1):
        pairs = zip(both.a.tolist(), both.b.tolist(), both.area_arcmin2.tolist(), strict=True)
        assert [(a // 2, b // 2, area) for a, b, area in pairs if a % 2 == k] == expected
