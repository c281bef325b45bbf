"""What the report and the plot are drawn from: pictures of the mosaic, frames on the sky, round numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

import skymatch_cli
from skymatch_cli.model import TangentPlane
from skymatch_cli.report.charts import histogram, nice_ticks, simplified, svg_path
from skymatch_cli.report.mosaic import Stretch, sky_stretches, stretches
from skymatch_cli.report.overlaps import OverlapColumns, pull_class
from skymatch_cli.report.quicklook import View, block_means, block_medians, quicklooks
from skymatch_cli.report.scene import frame_around, scene
from skymatch_cli.report.skymap import frame_names, map_names, sky_map
from skymatch_cli.settings import Settings
from skymatch_cli.sky.intersections import polygons_of
from skymatch_cli.sky.sphere import unit_vectors

from .factories import row, write, write_all


def test_quicklook_shows_the_steps_before_and_none_after(tmp_path: Path) -> None:
    paths = write_all(tmp_path, row([100, 130]))  # 40 px wide, 10 px of overlap
    found = skymatch_cli.match(paths, dry_run=True)
    place = scene(found.infos)
    frame = frame_around(place.rings, 140)  # half a pixel a point
    look = quicklooks(place, found.solution.sky, Settings(), [View(frame)])[0]
    seen = np.isfinite(look.before)
    assert set(np.round(look.before[seen], 9)) == {100.0, 115.0, 130.0}
    np.testing.assert_allclose(look.after[seen], 100.0)
    first, both, second = (np.count_nonzero(np.round(look.before) == level) for level in (100, 115, 130))
    assert first == pytest.approx(second, rel=0.02)
    assert first == pytest.approx(3 * both, rel=0.1)
    # East is to the left, and the first image is the western one (x grows to the east).
    columns = [np.nonzero(np.round(look.before) == level)[1].mean() for level in (100, 130)]
    assert columns[0] > columns[1]


def test_quicklook_leaves_out_bad_pixels_and_images_without_a_sky(tmp_path: Path) -> None:
    frames = row([100, 130])
    pixels = frames[0].pixels()
    pixels[:, 20:] = np.nan  # the western half; the other frame is to the east
    paths = [write(tmp_path / "a.fits", frames[0], pixels=pixels), write(tmp_path / "b.fits", frames[1])]
    found = skymatch_cli.match(paths, dry_run=True)
    place = scene(found.infos)
    frame = frame_around(place.rings, 70)
    look = quicklooks(place, np.array([0.0, np.nan]), Settings(), [View(frame)])[0]
    assert np.count_nonzero(np.isfinite(look.before)) == pytest.approx(800, rel=0.1)
    assert set(look.after[np.isfinite(look.after)]) == {100.0}


def test_block_means_count_good_pixels_only() -> None:
    data = np.array([[1.0, 3.0, 5.0], [np.nan, 7.0, 6.0]], np.float32)
    means = block_means(data, np.isfinite(data), 2)
    np.testing.assert_allclose(means, [[11 / 3, 5.5]])
    assert np.isnan(block_means(data, np.zeros(data.shape, bool), 2)).all()


def test_block_medians_leave_stars_out() -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(100, 1, (70, 130)).astype(np.float32)
    data[rng.random(data.shape) < 0.1] = 1e5
    good = rng.random(data.shape) < 0.9
    good[:, 64:96] = False
    medians = block_medians(data, good, 32)
    assert medians.shape == (3, 5)
    assert np.isnan(medians[:, 2]).all()
    np.testing.assert_allclose(medians[:2, [0, 1, 3]], 100, atol=0.5)
    exact = np.sort(data[32:64, :32][good[32:64, :32]])
    assert medians[1, 0] == exact[(len(exact) - 1) // 2]


def test_block_medians_of_large_blocks_take_every_nth_pixel() -> None:
    data = np.arange(200.0 * 150).reshape(200, 150)
    medians = block_medians(data, np.ones(data.shape, bool), 100)
    np.testing.assert_allclose(medians[:, 0], [49.5 * 151, 149.5 * 150 + 49.5], atol=2 * 151)
    np.testing.assert_allclose(block_medians(data, data >= 0, 1), data)


def test_the_look_without_stars_is_wide_enough_for_the_steps(tmp_path: Path) -> None:
    paths = write_all(tmp_path, row([100, 130, 90]))
    found = skymatch_cli.match(paths, dry_run=True)
    place = scene(found.infos)
    frame = frame_around(place.rings, 70)
    look = quicklooks(place, found.solution.sky, Settings(), [View(frame, block_medians)])[0]
    before, after = sky_stretches(look)
    assert before.white - before.black == pytest.approx(after.white - after.black)
    grey = before.grey(look.before[np.isfinite(look.before)])
    assert 30 < grey.min() < 127 < grey.max() < 250


def test_both_pictures_have_the_same_contrast_about_their_own_level(tmp_path: Path) -> None:
    paths = write_all(tmp_path, row([1000, 1030]))
    found = skymatch_cli.match(paths, dry_run=True, method="globalmin+match")
    place = scene(found.infos)
    frame = frame_around(place.rings, 70)
    before, after = stretches(quicklooks(place, found.solution.sky, Settings(), [View(frame)])[0])
    assert before.white - before.black == pytest.approx(after.white - after.black)
    assert before.softening == after.softening
    assert before.black > 900 > after.black


def test_a_stretch_runs_from_black_to_white() -> None:
    grey = Stretch(black=10.0, white=20.0, softening=1.0).grey(np.array([0.0, 10.0, 12.0, 20.0, 99.0, np.nan]))
    assert grey.tolist() == [0, 0, round(255 * float(np.arcsinh(2) / np.arcsinh(10))), 255, 255, 0]


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.0, 89.99), (123.0, -90.0), (359.999, 45.0)])
def test_a_frame_holds_its_rings_wherever_they_are(centre: tuple[float, float]) -> None:
    ra, dec = np.radians(centre)
    square = 0.01 * np.array([[1, -1], [1, 1], [-1, 1], [-1, -1.0]])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    middle = unit_vectors(ra, dec)
    ring = middle + square[:, :1] * east + square[:, 1:] * np.cross(middle, east)
    ring /= np.linalg.norm(ring, axis=1, keepdims=True)
    frame = frame_around([ring], 104)
    assert frame.shape == (104, 104)
    pixels = frame.to_pixel(ring)
    np.testing.assert_allclose(np.ptp(pixels, axis=0), 100, rtol=1e-3)
    np.testing.assert_allclose(frame.to_sky(*pixels.T), ring, atol=1e-12)


def test_a_field_wider_than_a_tangent_plane_is_still_drawn() -> None:
    lon = np.radians(np.arange(0, 360, 30.0))
    frame = frame_around([unit_vectors(lon, np.zeros_like(lon)), unit_vectors(lon, np.full_like(lon, 0.9))], 200)
    assert "ZEA" in frame.wcs.wcs.ctype[0]
    assert np.isfinite(frame.to_pixel(unit_vectors(lon, np.zeros_like(lon)))).all()


def test_places_off_the_sky_have_no_pixel() -> None:
    frame = frame_around([unit_vectors(np.array([0.0, 0.01, 0.01]), np.array([0.0, 0.0, 0.01]))], 100)
    pixels = frame.to_pixel(np.array([[np.nan, 0, 0], [1.0, 0, 0]]))
    assert np.isnan(pixels[0]).all()
    assert np.isfinite(pixels[1]).all()


def test_the_rows_of_a_wide_overlap_are_told_apart(tmp_path: Path) -> None:
    found = skymatch_cli.match(write_all(tmp_path, row([1, 2])), dry_run=True)
    place = scene(found.infos)
    graph = replace(
        place.graph,
        a=np.array([0, 0]),
        b=np.array([1, 1]),
        polygon=polygons_of([shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)]),
        plane=np.zeros(2, np.int64),
        planes=(TangentPlane(0.0, 0.0),),
    )
    first, second, none = replace(place, graph=graph).overlap_rings(np.array([0, 0, 0]), np.array([1, 1, 1]))
    assert not none
    assert [ring[:, 1].max() < 0.8 for ring in (first[0], second[0])] == [True, False]


# ---- numbers behind the drawings


def test_ticks_are_round() -> None:
    np.testing.assert_allclose(nice_ticks(-3.3, 3.3), [-3, -2, -1, 0, 1, 2, 3])


def test_colours_of_pulls_have_one_scale() -> None:
    assert [pull_class(pull) for pull in (0.0, 0.99, 1.3, 2.0, 4.9, 5.0, 1e9)] == [5, 5, 6, 7, 9, 10, 10]
    assert all(pull_class(-pull) == 10 - pull_class(pull) for pull in (0.1, 1.3, 2.5, 9.0))
    assert pull_class(float("nan")) == -1


def test_names_of_frames_are_as_long_as_there_is_room() -> None:
    labels = ("sub/m17_k_001.fits.gz", "sub/m17_k_002.fits.gz")
    assert map_names(labels, 9) == ("m17_k_001", "m17_k_002")
    assert map_names(labels, 5) == ("001", "002")
    assert map_names(labels, 2) == ("#0", "#1")
    assert map_names(("a.fits[SCI,1]", "a.fits[SCI,2]"), 20) == ("#0", "#1"), "two images of one file"
    assert map_names(("only.fits",), 10) == ("only",)


def test_names_of_frames_do_not_cover_one_another() -> None:
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100.0]])
    names = frame_names([[square], [square + 3], [square + 200], [square + 2]], ("a", "b", "c", "d"), 20.0)
    assert [name.text for name in names] == ["a", "b", "c", "d"]
    assert (names[0].x, names[0].y) == (50, 50)
    places = np.array([(name.x, name.y) for name in names])
    apart = np.abs(places[:, None] - places)[~np.eye(4, dtype=bool)]
    assert (apart >= [0.58 * 20, 1.2 * 20]).any(axis=1).all()
    assert frame_names([[square / 10]], ("a",), 20.0) == [], "no room"


def test_where_overlaps_are_piled_the_map_shows_the_worst(tmp_path: Path) -> None:
    frames = [frame.but(x=0.5 * k) for k, frame in enumerate(row([float(k) for k in range(7)], noise=1.0))]
    found = skymatch_cli.match(write_all(tmp_path, frames), dry_run=True)
    columns = OverlapColumns.of(found.report.overlaps)
    drawn = sky_map(scene(found.infos), columns, found.report.labels)
    assert drawn.piled
    assert {k for k, _, _ in drawn.overlaps} == set(columns.worst_first[:12].tolist())
    assert drawn.left_out == "The 12 of 21 overlaps with the largest pulls are drawn."


def test_where_overlaps_are_apart_the_map_shows_all(tmp_path: Path) -> None:
    found = skymatch_cli.match(write_all(tmp_path, row([float(k) for k in range(16)])), dry_run=True)
    drawn = sky_map(scene(found.infos), OverlapColumns.of(found.report.overlaps), found.report.labels)
    assert (drawn.piled, drawn.left_out, len(drawn.overlaps)) == (False, "", 15)


def test_a_histogram_counts_everything_once() -> None:
    values = np.array([-1.0, 0.0, 0.1, 0.2, 500.0])
    drawn = histogram(values, "Pulls", "", gaussian=True)
    assert sum(int(bar.text.rpartition(" ")[2]) for bar in drawn.bars) == 5
    assert "1 beyond the axis" in drawn.summary
    assert max(bar.height for bar in drawn.bars) <= drawn.height
    assert histogram(np.zeros(4), "Residuals", "adu").bars[0].width > 0


def test_a_path_has_as_few_points_as_it_needs() -> None:
    ring = np.array([[0, 0], [5, 0.01], [10, 0], [10, 10], [0, 10.0]])
    assert svg_path(simplified(ring)) == "M0,0L10,0L10,10L0,10Z"
    assert svg_path(np.array([[0, np.nan]])) == ""
