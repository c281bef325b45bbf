"""The figure for a paper."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skymatch_cli
from skymatch_cli.report.overlaps import OverlapColumns
from skymatch_cli.report.plots import draw
from skymatch_cli.report.quicklook import View, block_medians, quicklooks
from skymatch_cli.report.scene import frame_around, scene
from skymatch_cli.settings import Settings

from .commands import run
from .factories import row, write_all

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex

_MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_all(tmp_path_factory.mktemp("frames"), row([100, 130, 110, 90], noise=1.0))


@pytest.fixture(scope="module")
def figure(paths: list[str]) -> Any:
    found = skymatch_cli.match(paths, dry_run=True)
    place = scene(found.infos)
    frame = frame_around(place.rings, 130)
    views = View(frame), View(frame, block_medians)
    looks = quicklooks(place, found.solution.sky, Settings(), views)
    return draw(place, OverlapColumns.of(found.report.overlaps), looks)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_run_gives_the_same_bytes(paths: list[str], tmp_path: Path, kind: str) -> None:
    made = []
    for name in ("one", "two"):
        ran = run("match", "--dry-run", "--plot", tmp_path / f"{name}.{kind}", *paths)
        assert ran.exit_code == 0, ran.stderr
        made.append((tmp_path / f"{name}.{kind}").read_bytes())
    assert made[0].startswith(_MAGIC[kind])
    assert made[0] == made[1]


def test_it_can_be_made_from_a_stored_result(paths: list[str], tmp_path: Path) -> None:
    run("match", "--dry-run", "-o", tmp_path / "s.fits", "--plot", tmp_path / "a.png", *paths)
    assert run("report", tmp_path / "s.fits", "--plot", tmp_path / "b.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_it_shows_every_footprint_and_overlap(figure: Any) -> None:
    outlines, unused, coloured = figure.axes[0].collections
    assert (len(outlines.get_paths()), len(unused.get_paths()), len(coloured.get_paths())) == (4, 0, 3)
    assert coloured.norm.boundaries.tolist() == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5], "pulls, in every figure"
    assert [text.get_text() for text in figure.axes[0].texts] == ["img_0", "img_1", "img_2", "img_3"]


def test_its_colours_are_those_of_the_page(figure: Any) -> None:
    _, _, coloured = figure.axes[0].collections
    style = (resources.files("skymatch_cli.report") / "templates" / "report.css").read_text(encoding="utf-8")
    assert [f"--c{k}: {to_hex(coloured.cmap(k))};" in style for k in range(11)] == [True] * 11


def test_both_pictures_have_the_same_contrast_and_the_sky_alone_comes_first(figure: Any) -> None:
    panels = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title() for panel in panels] == [
        f"{what}, {when}" for what in ("sky alone", "stars and sky") for when in ("before", "after")
    ]
    for before, after in (panels[:2], panels[2:]):
        width = [np.ptp(panel.images[0].get_clim()) for panel in (before, after)]
        assert width[0] == pytest.approx(width[1])


def test_axes_are_those_of_the_sky(figure: Any) -> None:
    panel = figure.axes[0]
    assert panel.wcs.wcs.ctype[0] == "RA---TAN"
    assert np.isclose(panel.wcs.wcs.crval, [150.0, 20.0], atol=0.05).all()
    assert panel.coords[1].get_axislabel() == "Dec (ICRS)"


@pytest.mark.parametrize("name", ["figure.jpg", "figure"])
def test_an_unknown_suffix_is_a_usage_error(paths: list[str], tmp_path: Path, name: str) -> None:
    ran = run("match", "--dry-run", "--plot", tmp_path / name, *paths)
    assert ran.exit_code == 2
    assert ".png .pdf .svg" in ran.stderr


def test_a_missing_extra_is_one_line_with_a_hint(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = run("match", "--dry-run", "--plot", tmp_path / "p.png", *paths)
    assert ran.exit_code == 2
    assert "pip install 'skymatch-cli[plot]'" in ran.stderr


def test_without_images_there_is_no_plot(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2]))
    run("match", "--dry-run", "-o", tmp_path / "s.json", *paths)
    Path(paths[0]).unlink()
    ran = run("report", tmp_path / "s.json", "--plot", tmp_path / "p.png")
    assert ran.exit_code == 3
    assert not (tmp_path / "p.png").exists()
