"""``--model plane``: levels and tilts found, recorded, subtracted and undone."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import skymatch_cli
from skymatch_cli.choices import TableName
from skymatch_cli.errors import UsageError
from skymatch_cli.images.formats.pixelformat import PixelFormat
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.record.rewrite import PixelEdit
from skymatch_cli.record.write import undo
from skymatch_cli.settings import Settings
from skymatch_cli.solve.tiltequations import PlaneEquations

from .factories import Frame, tangent, write, write_all

SIZE = 128
TILTS = [(0.02, -0.01), (-0.03, 0.015), (0.0, 0.02), (0.01, -0.005)]
SKIES = [100.0, 130.0, 90.0, 120.0]
PLACES = [(0, 0), (85, 5), (3, 90), (88, 84)]


def grid(noise=0.0, **more):
    """Four frames, 2 x 2, turned against one another by some degrees."""
    return [
        Frame(x=x, y=y, nx=SIZE, ny=SIZE, sky=sky, rotation=4.0 * k, noise=noise, seed=k, **more)
        for k, ((x, y), sky) in enumerate(zip(PLACES, SKIES, strict=True))
    ]


def tilted(frame, tilt, scene=None):
    """Its pixels on a plane: the tilt is per arcsec on the field's tangent plane, about the frame's own place."""
    tx, ty = tilt
    return frame.pixels(lambda x, y: (0.0 if scene is None else scene(x, y)) + tx * (x - frame.x) + ty * (y - frame.y))


def save(folder, frames, tilts=TILTS, scene=None, **how):
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write(folder / f"img_{k}.fits", f, pixels=tilted(f, t, scene).astype(f.dtype), **how)
        for k, (f, t) in enumerate(zip(frames, tilts, strict=True))
    ]


def nebula(x, y):
    return 30 * np.sin(x / 17.0) * np.cos(y / 23.0)


def matched(names, **more):
    return skymatch_cli.match(names, compare="mesh", model="plane", **{"dry_run": True, **more})


def expected(frames, tilts):
    """Levels at the centres (lowest 0) and tilts along x and y of the frames, mean tilt on the sky 0."""
    tilts = np.array(tilts)
    tilts = tilts - tilts.mean(axis=0)
    level = np.array([f.sky for f in frames]) - np.array([[f.x, f.y] for f in frames]) @ (np.array(TILTS).mean(axis=0))
    along = []
    for frame, tilt in zip(frames, tilts, strict=True):
        middle = 0.5 * (SIZE - 1)
        at = frame.wcs().all_pix2world([[middle, middle], [middle + 1, middle], [middle, middle + 1]], 0)
        place = tangent(frame.ra, frame.dec).wcs_world2pix(at, 0) * [-1, 1]  # arcsec, x to the east
        along.append((place[1:] - place[0]) @ tilt)
    return level - level.min(), np.array(along)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return save(tmp_path_factory.mktemp("noisy"), grid(noise=2.0), scene=nebula)


def columns(result, *names):
    return [np.asarray(result.images[name]) for name in names]


def test_noise_free_tilts_come_back(tmp_path):
    frames = grid()
    sky, dx, dy = columns(matched(save(tmp_path, frames)), "sky", "sky_dx", "sky_dy")
    level, along = expected(frames, TILTS)
    np.testing.assert_allclose(np.column_stack([dx, dy]), along, atol=2e-6)
    np.testing.assert_allclose(sky, level, atol=2e-4)


def test_masked_pixels_do_not_bend_the_tilts(tmp_path):
    frames = grid()
    names = save(tmp_path, frames)
    rng = np.random.default_rng(5)
    for name in names:
        with fits.open(name, mode="update") as hdus:
            hdus[0].data[rng.random(hdus[0].data.shape) < 0.1] = np.nan
            hdus[0].data[40:60, 90:] = np.nan
    sky, dx, dy = columns(matched(names), "sky", "sky_dx", "sky_dy")
    level, along = expected(frames, TILTS)
    np.testing.assert_allclose(np.column_stack([dx, dy]), along, atol=1e-5)
    np.testing.assert_allclose(sky, level, atol=1e-3)


def test_errors_of_the_levels_are_true(noisy):
    sky, err = columns(matched(noisy), "sky", "sky_err")
    level, _ = expected(grid(), TILTS)
    pull = ((sky - sky.mean()) - (level - level.mean())) / err
    assert np.abs(pull).max() < 4
    assert 0.01 < err.max() < 0.5


def test_the_common_plane_is_pinned(noisy):
    result = matched(noisy)
    sky, dx, dy = columns(result, "sky", "sky_dx", "sky_dy")
    assert sky.min() == 0
    turned = np.radians([f.rotation for f in grid()])
    east, north = -np.cos(turned) * dx + np.sin(turned) * dy, np.sin(turned) * dx + np.cos(turned) * dy
    assert east.mean() == pytest.approx(0, abs=1e-6)
    assert north.mean() == pytest.approx(0, abs=1e-6)
    assert list(result.components["anchor"]) == ["lowest = 0, mean tilt = 0"]


def test_the_highest_level_is_zero_when_matching_up(noisy):
    (sky,) = columns(matched(noisy, match_up=True), "sky")
    assert sky.max() == 0


def test_the_reference_keeps_its_plane(noisy):
    free = matched(noisy)
    result = matched(noisy, reference=noisy[1])
    sky, dx, dy = columns(result, "sky", "sky_dx", "sky_dy")
    np.testing.assert_allclose([sky[1], dx[1], dy[1]], 0, atol=1e-12)
    np.testing.assert_allclose(result.overlaps["residual"], free.overlaps["residual"], atol=1e-9)
    assert result.components["anchor"][0].endswith("img_1.fits")


def test_local_skies_set_the_baseline(noisy):
    result = matched(noisy, method="globalmin+match")
    assert np.asarray(result.images["sky"]).min() > 80


def test_a_constant_sky_has_no_seams_and_no_tilt(tmp_path):
    names = save(tmp_path, grid(), tilts=[(0, 0)] * 4)
    sky, dx, dy = columns(matched(names), "sky", "sky_dx", "sky_dy")
    np.testing.assert_allclose(sky, np.array(SKIES) - 90, atol=1e-4)
    np.testing.assert_allclose([dx, dy], 0, atol=1e-6)


def test_what_is_subtracted_has_no_seams(tmp_path, noisy):
    out = tmp_path / "out"
    matched(noisy, dry_run=False, subtract=True, output_dir=str(out))
    again = matched(sorted(map(str, out.iterdir())))
    header = fits.getheader(out / "img_1.fits")
    sky, dx, dy = columns(again, "sky", "sky_dx", "sky_dy")  # of the original pixels
    assert [sky[1], dx[1], dy[1]] == pytest.approx([header["BKGLEVEL"], header["BKGDX"], header["BKGDY"]], abs=1e-4)
    for name in out.iterdir():  # now as if they were new
        with fits.open(name, mode="update") as hdus:
            for key in ("BKGLEVEL", "BKGSUB", "BKGDX", "BKGDY", "HISTORY"):
                hdus[0].header.remove(key, ignore_missing=True, remove_all=True)
    flat = skymatch_cli.match(sorted(map(str, out.iterdir())), compare="mesh", dry_run=True)
    err = np.asarray(flat.overlaps["delta_err"])
    assert np.all(np.abs(np.asarray(flat.overlaps["delta"])) < 4 * err)


def test_a_second_subtraction_changes_nothing(tmp_path):
    names = save(tmp_path, grid(noise=2.0), scene=nebula)
    matched(names, dry_run=False, subtract=True)
    once = [Path(name).read_bytes() for name in names]
    matched(names, dry_run=False, subtract=True)
    assert [Path(name).read_bytes() for name in names] == once


@pytest.mark.parametrize("dtype", ["i2", "u1", "i4"])
def test_integers_come_back_bit_for_bit(tmp_path, dtype):
    names = save(tmp_path, grid(noise=2.0, dtype=dtype))
    before = [Path(name).read_bytes() for name in names]
    matched(names, dry_run=False, subtract=True)
    assert fits.getheader(names[0])["BITPIX"] < 0
    # a constant sky in between changes nothing about that
    skymatch_cli.match(names, compare="mesh", subtract=True)
    assert "BKGDX" not in fits.getheader(names[0])
    undo(skymatch_refs(names), Settings())
    assert [Path(name).read_bytes() for name in names] == before


def test_recorded_tilts_are_undone(tmp_path):
    names = save(tmp_path, grid(noise=2.0))
    before = [Path(name).read_bytes() for name in names]
    matched(names, dry_run=False)
    header = fits.getheader(names[0])
    assert not header["BKGSUB"]
    assert header["BKGDX"] != 0
    undo(skymatch_refs(names), Settings())
    assert [Path(name).read_bytes() for name in names] == before


def test_compressed_integers_come_back(tmp_path):
    names = []
    for k, (frame, tilt) in enumerate(zip(grid(noise=2.0, dtype="i2"), TILTS, strict=True)):
        hdu = fits.CompImageHDU(tilted(frame, tilt).astype("i2"), frame.hdu_header(), compression_type="RICE_1")
        names.append(str(tmp_path / f"img_{k}.fits.fz"))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(names[-1])
    before = [fits.getdata(name, 1) for name in names]
    matched(names, dry_run=False, subtract=True)
    undo(skymatch_refs(names, 1), Settings())
    for name, pixels in zip(names, before, strict=True):
        np.testing.assert_array_equal(fits.getdata(name, 1), pixels)


def test_packed_floats_come_back(tmp_path):
    names = save(tmp_path, grid(noise=2.0, dtype="f4"))
    packed = []
    for name in names:
        with fits.open(name) as hdus:
            packed.append(name + ".gz")
            hdus.writeto(packed[-1])
    before = [fits.getdata(name) for name in packed]
    matched(packed, dry_run=False, subtract=True)
    with fits.open(packed[1]) as hdus:
        plane = SkyPlane(*(hdus[0].header[key] for key in ("BKGLEVEL", "BKGDX", "BKGDY")))
        value = plane.rows(0, SIZE, (SIZE, SIZE))
        np.testing.assert_allclose(hdus[0].data, before[1] - value, atol=1e-5)
    undo(skymatch_refs(packed), Settings())
    for name, pixels in zip(packed, before, strict=True):
        np.testing.assert_allclose(fits.getdata(name), pixels, rtol=1.3e-7)


def skymatch_refs(names, hdu=0):
    from skymatch_cli.model import ImageRef

    return [ImageRef(file=name, path=name, hdu=hdu) for name in names]


def test_a_chain_warns_that_tilts_are_weak(tmp_path):
    frames = [Frame(x=52.0 * k, nx=64, ny=64, sky=100.0 + k, noise=1.0, seed=k) for k in range(8)]
    names = save(tmp_path, frames, tilts=[(0, 0)] * 8)
    assert any("hardly determine tilts" in str(w) for w in matched(names).warnings)


def test_a_grid_does_not_warn(noisy):
    assert matched(noisy).warnings == ()


def test_chips_of_one_file_share_a_plane(tmp_path):
    frames = grid(noise=1.0)
    names = save(tmp_path, frames[:3], tilts=TILTS[:3])
    # the fourth exposure: two chips, halves of one plane
    whole = frames[3]
    pixels = tilted(whole, TILTS[3])
    left, right = whole.hdu_header(), whole.hdu_header()
    right["CRPIX1"] -= 64
    chips = [fits.ImageHDU(pixels[:, :64], left, "SCI", ver=1), fits.ImageHDU(pixels[:, 64:], right, "SCI", ver=2)]
    fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(tmp_path / "chips.fits")
    images = matched([*names, str(tmp_path / "chips.fits")]).images
    sky, dx = (np.asarray(images[name])[-2:] for name in ("sky", "sky_dx"))
    assert dx[0] == pytest.approx(dx[1], rel=1e-3)
    assert sky[1] - sky[0] == pytest.approx(64 * dx[0], rel=1e-3)


def test_pooled_differences_are_refused():
    with pytest.raises(UsageError, match="cannot measure a tilt") as caught:
        Settings(model="plane", compare="pooled")
    assert caught.value.hint == "add --compare mesh"


@pytest.mark.parametrize("method", ["localmin", "globalmin"])
def test_methods_without_overlaps_are_refused(method):
    with pytest.raises(UsageError, match="--model plane works with"):
        Settings(model="plane", compare="mesh", method=method)


def test_fields_of_several_planes_are_refused(tmp_path):
    frames = [Frame(ra=ra + d, nx=64, ny=64, seed=k) for ra in (10.0, 100.0) for k, d in enumerate((0, 0.01))]
    names = save(tmp_path, frames, tilts=[(0, 0)] * 4)
    with pytest.raises(UsageError, match="wider than one tangent plane"):
        matched(names)


def test_constant_results_have_no_tilts(noisy):
    result = skymatch_cli.match(noisy, compare="mesh", dry_run=True)
    (row, *_) = json.loads(result.to_json())["images"]
    assert list(row) == [
        "file", "ext", "extver", "group", "component",
        "sky", "sky_err", "sky_err_noise", "sky_unit", "n_pixels", "status",
    ]  # fmt: skip


def test_results_of_planes_are_read_back(tmp_path, noisy):
    from skymatch_cli.output.stored import read_report

    result = matched(noisy)
    for name in ("result.json", "result.fits"):
        result.write(tmp_path / name)
        tilt = read_report(str(tmp_path / name)).tilt()
        np.testing.assert_array_equal(tilt, result.solution.tilt)
    assert result.report.table(TableName.IMAGES).names[8:10] == ("sky_dx", "sky_dy")


def test_the_picture_after_is_without_the_tilts(noisy):
    from skymatch_cli.report.quicklook import View, quicklooks
    from skymatch_cli.report.scene import frame_around, scene

    result = matched(noisy)
    place = scene(result.infos)
    frame = frame_around(place.rings, 100)
    look = quicklooks(place, result.solution.sky, Settings(), [View(frame)], tilt=result.solution.tilt)[0]
    level = quicklooks(place, result.solution.sky, Settings(), [View(frame)])[0]
    taken = level.after - look.after
    assert np.nanmax(np.abs(taken)) == pytest.approx(0.035 * SIZE, rel=0.5)
    assert np.nanmean(taken) == pytest.approx(0, abs=0.1)


@given(
    level=st.floats(-1e3, 1e3),
    dx=st.floats(-1, 1),
    dy=st.floats(-1, 1),
    cut=st.integers(0, 35),
)
@hypothesis_settings(max_examples=50)
def test_values_do_not_depend_on_the_pieces(level, dx, dy, cut):
    plane, shape = SkyPlane(level, dx, dy), (5, 7)
    whole = np.broadcast_to(plane.along(0, 70, shape), 70)
    pieces = [np.broadcast_to(plane.along(a, n, shape), n) for a, n in ((0, cut), (cut, 70 - cut))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    rows = np.broadcast_to(plane.rows(1, 4, shape), (3, 7))
    np.testing.assert_array_equal(rows.ravel(), whole[7:28])
    assert np.abs(whole).max() <= plane.largest(shape) * (1 + 1e-12) + 1e-300


def bowls(folder, tilts, depth=3.0):
    """Six frames, 3 x 2, with the same bowl in all of them and a tilt in each."""
    frames = [
        Frame(x=80 * (k % 3) + k, y=80 * (k // 3), nx=96, ny=96, sky=SKY_OF[k], noise=1.0, seed=k) for k in range(6)
    ]

    def pixels(frame, tilt):
        def shape(x, y):
            u, v = (x - frame.x) / 48, (y - frame.y) / 48
            return depth * (u * u + v * v) + tilt[0] * u + tilt[1] * v

        return frame.pixels(shape)

    return [
        write(folder / f"img_{k}.fits", f, pixels=pixels(f, t))
        for k, (f, t) in enumerate(zip(frames, tilts, strict=True))
    ]


SKY_OF = [100.0, 130.0, 90.0, 120.0, 80.0, 110.0]


def test_a_curvature_that_all_frames_have_does_not_become_tilts(tmp_path):
    found = matched(bowls(tmp_path, [(0.0, 0.0)] * 6))
    levels = found.solution.sky - found.solution.sky.mean()
    # without it the levels at the corners would be off by some 10: the bowl makes steps of 3 x (80 / 48) x 2 a frame
    assert np.abs(levels - (np.array(SKY_OF) - np.mean(SKY_OF))).max() < 5 * found.solution.sky_err.max()
    assert found.solution.sky_err.max() < 0.2
    (line,) = [w for w in found.warnings if "curvature common to all frames" in str(w)]
    assert "set to 0" in str(line)


def test_tilts_of_their_own_are_not_taken_for_a_common_curvature(tmp_path):
    tilts = np.random.default_rng(2).normal(0, 3, (6, 2))
    tilts -= tilts.mean(axis=0)
    found = matched(bowls(tmp_path, tilts, depth=0.0))
    assert not [w for w in found.warnings if "curvature" in str(w)]
    np.testing.assert_allclose(found.solution.tilt * 48, tilts * [-1, 1], atol=0.4)  # x runs against the sky's


def test_two_images_cannot_tell_tilts_from_a_common_curvature(tmp_path):
    found = matched(bowls(tmp_path, [(1.0, 0.0)] * 6)[:2])
    assert any("too few images to tell tilts from a curvature" in str(w) for w in found.warnings)


def test_the_covariance_is_that_of_the_pinned_solution():
    rng = np.random.default_rng(2)
    centre = rng.uniform(0, 5, (6, 2))
    a, b = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)]).T
    f = np.concatenate([np.ones((len(a), 9, 1)), rng.normal(0, 1, (len(a), 9, 2))], axis=2)
    moment, position = f.swapaxes(1, 2) @ f, rng.uniform(0, 5, (len(a), 2))
    equations = PlaneEquations.of_pairs(centre, a, b, moment, position)
    covariance, exact = equations.covariance()
    assert exact
    root = np.linalg.cholesky(moment)
    draws = equations.solve(equations.gathered(root @ rng.normal(0, 1, (len(a), 3, 4000))))
    sampled = draws @ draws.swapaxes(1, 2) / 4000
    np.testing.assert_allclose(sampled, covariance, atol=0.1 * covariance.max())
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=1e-9)

    n_sets = 80  # as the planes of a cube: each has the errors that it has alone, without sampling
    more = 6 * np.repeat(np.arange(n_sets), len(a))
    several = PlaneEquations.of_pairs(
        np.tile(centre, (n_sets, 1)),
        np.tile(a, n_sets) + more,
        np.tile(b, n_sets) + more,
        np.tile(moment, (n_sets, 1, 1)),
        np.tile(position, (n_sets, 1)),
    )
    of_all, exact = several.covariance()
    assert exact
    np.testing.assert_allclose(of_all, np.tile(covariance, (n_sets, 1, 1)), rtol=1e-9, atol=1e-12 * covariance.max())


def test_montage_gets_planes_in_the_pixels_of_its_images(tmp_path, noisy):
    from skymatch_cli.export.programs import Export, exported

    result = matched(noisy)
    projected = Frame(x=20, y=30, nx=200, ny=220, scale=1.3, rotation=25.0).wcs()
    projected.wcs.crpix = [150.0, 20.0]
    angle = np.degrees(np.arctan2(-projected.wcs.cd[0, 1], projected.wcs.cd[1, 1]))
    names = ("cntr", "naxis1", "naxis2", "ctype1", "ctype2", "crpix1", "crpix2", "crval1", "crval2", "cdelt1",
             "cdelt2", "crota2", "fname")  # fmt: skip
    kinds = ("int", "int", "int", "char", "char", *("double",) * 7, "char")
    common = (200, 220, "RA---TAN", "DEC--TAN", 150.0, 20.0, *projected.wcs.crval, -1.3 / 3600, 1.3 / 3600, angle)
    rows = [names, kinds, *((k, *common, Path(n).name) for k, n in enumerate(noisy))]
    lines = [("|{}|" if k < 2 else " {} ").format(("|" if k < 2 else " ").join(f"{v!s:>26}" for v in row))
             for k, row in enumerate(rows)]  # fmt: skip
    (tmp_path / "images.tbl").write_text("\n".join(lines) + "\n")
    table = exported(
        "montage", Export(report=result.report, infos=result.infos, images_tbl=str(tmp_path / "images.tbl"))
    )
    x, y = np.random.default_rng(1).uniform(20, 80, (2, 50))
    images = result.images
    for k, line in enumerate(table.decode().splitlines()[2:]):
        a, b, c = map(float, line.split()[1:])
        own = grid()[k].wcs().all_world2pix(projected.all_pix2world(np.column_stack([x, y]), 0), 0).T
        sky = SkyPlane(*(float(np.asarray(images[name])[k]) for name in ("sky", "sky_dx", "sky_dy")))
        # as mBackground counts: pixels from 0 on, CRPIX as it is written
        np.testing.assert_allclose(a * (x - 150) + b * (y - 20) + c, sky.at(*own, (SIZE, SIZE)), atol=1e-4)


@pytest.mark.parametrize("form", ["swarp", "jwst", "drizzle"])
def test_programs_that_know_constants_only_are_refused(noisy, form):
    from skymatch_cli.export.programs import Export, exported

    result = matched(noisy)
    with pytest.raises(UsageError, match="have tilts"):
        exported(form, Export(report=result.report, infos=result.infos))


@given(
    dtype=st.sampled_from(["f4", "f8"]),
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=12, max_size=12),
    plane=st.builds(SkyPlane, *(st.floats(-1e4, 1e4) for _ in range(3))),
)
@hypothesis_settings(max_examples=200)
def test_floats_less_a_plane_are_restored_within_one_ulp(dtype, values, plane):
    form, shape = PixelFormat(bitpix=-8 * np.dtype(dtype).itemsize), (3, 4)
    raw = np.array(values, form.dtype)
    there = PixelEdit(original=form, stored=form, shift=SkyPlane(), result=form, new_shift=plane, shape=shape)
    back = PixelEdit(original=form, stored=form, shift=plane, result=form, new_shift=SkyPlane(), shape=shape)
    stored = there.apply(raw)
    restored = np.concatenate([back.apply(stored[:5]), back.apply(stored[5:], 5)])
    ulp = np.spacing(np.maximum(np.abs(raw), np.abs(plane.along(0, 12, shape))).astype(dtype))
    assert np.all(np.abs(restored.astype("f8") - raw.astype("f8")) <= ulp)


def test_pairs_far_apart_have_the_planes_that_they_have_alone(tmp_path):
    # 8 degrees of 0.2" pixels: places in one frame of cells would need more digits than float32 has
    small = {"nx": 60, "ny": 60, "scale": 0.2, "noise": 1.0, "dtype": "f4"}
    frames = [Frame(x=28800.0 * p + 7.0 * k, y=3.0 * k, seed=2 * p + k, **small) for p in (0, 1) for k in (0, 1)]
    files = write_all(tmp_path, frames)
    whole = matched(files).images
    for pair in (slice(0, 2), slice(2, 4)):
        alone = matched(files[pair]).images
        ratio = whole["sky_err"][pair] / alone["sky_err"]
        assert ((ratio > 0.5) & (ratio < 2.0)).all()  # another plane, and another unit of noise
        for tilt in ("sky_dx", "sky_dy"):
            np.testing.assert_allclose(whole[tilt][pair], alone[tilt], atol=0.01)


def test_steps_with_cells_in_a_file_give_what_a_match_gives(tmp_path, noisy, monkeypatch):
    from click.testing import CliRunner

    from skymatch_cli.cli import main

    def run(*words):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.stderr

    store, solved = tmp_path / "field.db", tmp_path / "solved.fits"
    run("plan", "--store", store, *noisy)
    run("measure", store, "--compare", "mesh", "--model", "plane")
    with monkeypatch.context() as memory:
        for kept in ("SHEET_BYTES", "SKY_BYTES"):
            memory.setattr(f"skymatch_cli.compare.mesh.tilts.{kept}", 0)
        run("solve", store, "-o", solved)
    run("apply", solved, "--subtract", "--output-dir", tmp_path / "out")
    header = fits.getheader(tmp_path / "out" / "img_1.fits")
    sky, dx, dy = columns(matched(noisy), "sky", "sky_dx", "sky_dy")
    assert [header["BKGLEVEL"], header["BKGDX"], header["BKGDY"]] == [sky[1], dx[1], dy[1]]


def test_sets_of_split_by_get_the_planes_that_they_have_alone(tmp_path):
    names = []
    for band in ("B", "V"):
        frames = grid(1.0, header={"BUNIT": "electron", "EXPTIME": 1.0, "FILTER": band})
        names.append(save(tmp_path / band, frames, TILTS if band == "B" else TILTS[::-1]))
    both = matched([*names[0], *names[1]], split_by="FILTER").images
    alone = [matched(some).images for some in names]
    for column in ("sky", "sky_dx", "sky_dy", "sky_err"):
        parts = np.concatenate([np.asarray(one[column].value) for one in alone])
        np.testing.assert_allclose(both[column].value, parts, rtol=1e-6, atol=1e-7)
