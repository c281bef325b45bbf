"""JWST images through the GWCS in their ASDF extension."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.errors import InputError
from skymatch_cli.images.image import Infos, read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.settings import Settings
from skymatch_cli.sky.sphere import angle_rad, unit_vectors

from .factories import ARCSEC, Frame
from .gwcsfiles import gwcs_of, jwst_file

pytest.importorskip("gwcs")
pytest.importorskip("asdf")

from skymatch_cli.images.formats.gwcs import GwcsWcs, gwcs_wcs

FRAME = Frame(nx=40, ny=30)


def infos(*names: str, need_wcs: bool = True) -> Infos:
    return read_infos(resolve_images(names, settings=Settings()), Settings(), need_wcs=need_wcs)


def positions() -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(-0.5, 39.5, 9), np.linspace(-0.5, 29.5, 7))
    return x.ravel(), y.ravel()


@pytest.mark.parametrize("bend", [0.0, 3.0])
def test_positions_are_those_of_the_gwcs(bend: float) -> None:
    gwcs = gwcs_of(FRAME, bend=bend)
    x, y = positions()
    ra, dec = gwcs(x, y, with_bounding_box=False)
    wcs = gwcs_wcs(gwcs, (30, 40), "a")
    off = angle_rad(wcs.to_sky(x, y), unit_vectors(np.radians(ra), np.radians(dec)))
    assert off.max() < 1e-6 * np.radians(ARCSEC)


@pytest.mark.parametrize("bend", [0.0, 3.0])
def test_pixels_come_back_inside_and_around_the_image(bend: float) -> None:
    wcs = gwcs_wcs(gwcs_of(FRAME, bend=bend), (30, 40), "a")
    x, y = (np.append(v, more) for v, more in zip(positions(), ([-10.0, 48.0], [-5.0, 33.0]), strict=True))
    back = wcs.to_pixel(wcs.to_sky(x, y))
    assert np.abs(np.array(back) - [x, y]).max() < 1e-6


def test_far_positions_have_no_pixel() -> None:
    wcs = gwcs_wcs(gwcs_of(FRAME), (30, 40), "a")
    middle = wcs.to_sky(np.array([19.5]), np.array([14.5]))
    x, y = wcs.to_pixel(np.concatenate([-middle, [[0.0, 0.0, 1.0]], [[np.nan] * 3], middle]))
    assert np.isnan(x[:3]).all()
    assert np.isnan(y[:3]).all()
    assert x[3] == pytest.approx(19.5)


def test_it_can_be_pickled() -> None:
    wcs = gwcs_wcs(gwcs_of(FRAME, bend=2.0), (30, 40), "a")
    x, y = positions()
    assert np.array_equal(pickle.loads(pickle.dumps(wcs)).to_sky(x, y), wcs.to_sky(x, y))


def test_a_file_is_read_through_its_gwcs(tmp_path: Path) -> None:
    """The header is wrong by ten pixels; the GWCS counts."""
    name = jwst_file(tmp_path / "a_cal.fits", FRAME.but(x=10.0), gwcs_of(FRAME))
    found = infos(name)
    assert isinstance(found.infos[0].wcs, GwcsWcs)
    assert found.warnings == ()
    assert "positions from its GWCS" in found.infos[0].notes
    middle = found.infos[0].wcs.to_sky(np.array([19.5]), np.array([14.5]))
    assert angle_rad(middle, unit_vectors(np.radians([150.0]), np.radians([20.0])))[0] < 1e-9


def test_without_a_gwcs_the_header_counts(tmp_path: Path) -> None:
    found = infos(jwst_file(tmp_path / "a_cal.fits", FRAME, None))
    assert not isinstance(found.infos[0].wcs, GwcsWcs)


def test_without_the_packages_the_header_counts_and_a_hint_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gwcs" else real(name))
    names = [jwst_file(tmp_path / f"{k}_cal.fits", FRAME, gwcs_of(FRAME)) for k in range(2)]
    found = infos(*names)
    assert not isinstance(found.infos[0].wcs, GwcsWcs)
    (warning,) = found.warnings
    assert str(warning).endswith("needs the package gwcs (pip install 'skymatch-cli[gwcs]')")


@pytest.mark.parametrize("damage", [b"#ASDF", b"!<tag:stsci.edu:gwcs/wcs", b"asdf"])
def test_a_damaged_extension_is_a_problem(tmp_path: Path, damage: bytes) -> None:
    path = Path(jwst_file(tmp_path / "a_cal.fits", FRAME, gwcs_of(FRAME)))
    raw = path.read_bytes()
    start = raw.index(b"#ASDF")
    at = raw.find(damage, start)
    if at >= 0:
        path.write_bytes(raw[:at] + b"\xff{[" + raw[at + 3 :])
    found = infos(str(path))
    assert len(found.problems) + len(found.infos) == 1


def test_a_transform_of_three_axes_is_refused() -> None:
    class Spectral:
        world_axis_physical_types = ("pos.eq.ra", "pos.eq.dec", "em.wl")
        pixel_n_dim = 2
        bounding_box = None

    with pytest.raises(InputError, match="it has 2 pixel and 3 world axes"):
        gwcs_wcs(Spectral(), (30, 40), "a")


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_skies_are_matched(tmp_path: Path, compare: str) -> None:
    frames = [Frame(x=25.0 * k, sky=100.0 + 7 * k, noise=1.0, seed=k) for k in range(2)]
    names = [jwst_file(tmp_path / f"{k}_cal.fits", f, gwcs_of(f, bend=1.0)) for k, f in enumerate(frames)]
    done = CliRunner().invoke(main, ["match", "--compare", compare, "--format", "json", *names])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["images"][1]["sky"] == pytest.approx(7, abs=0.5)
    with fits.open(names[1]) as hdus:
        assert hdus[0].header["BKGLEVEL"] == pytest.approx(7, abs=0.5)
        assert "BKGLEVEL" not in hdus["SCI"].header  # the pipeline would leave it there, and change the other one


def background_in_tree(name: str) -> dict[str, Any] | None:
    import asdf

    with fits.open(name) as hdus, asdf.open(io.BytesIO(hdus["ASDF"].data.tobytes())) as file:
        return file["meta"].get("background")


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("level", [5.0, 1 / 3 * 10**-7])
def test_the_tree_holds_no_other_sky_than_the_header(tmp_path: Path, subtract: bool, level: float) -> None:
    old = {"level": level, "method": "local", "subtracted": False}
    frames = [Frame(x=25.0 * k, sky=100.0 + 7 * k, noise=1.0, seed=k) for k in range(2)]
    names = [jwst_file(tmp_path / f"{k}_cal.fits", f, gwcs_of(f), **old) for k, f in enumerate(frames)]
    with fits.open(names[1], mode="update", checksum=True) as hdus:
        hdus["ASDF"].add_checksum()
    assert background_in_tree(names[1]) == old
    before = [Path(name).read_bytes() for name in names]
    for words in (["match"], ["match"], ["match", "--subtract"] if subtract else ["match", "--method", "localmin"]):
        done = CliRunner().invoke(main, [*words, *names])
        assert done.exit_code == 0, done.stderr
        assert background_in_tree(names[1]) is None
        assert "BKGLEVEL" in fits.getheader(names[1])
        with fits.open(names[1], checksum=True) as hdus:  # warns of a wrong one
            assert hdus["ASDF"].verify_checksum() == hdus["ASDF"].verify_datasum() == 1
    assert CliRunner().invoke(main, ["undo", *names]).exit_code == 0
    after = [Path(name).read_bytes() for name in names]
    assert [data[-6000:] for data in after] == [data[-6000:] for data in before]
    assert subtract or after == before


def test_our_sky_that_the_pipeline_saved_is_not_restored(tmp_path: Path) -> None:
    """Ours, then a program that writes the tree anew from the header, then ours: undo finds the sky of the pipeline."""
    frames = [Frame(x=25.0 * k, sky=100.0 + 7 * k, noise=1.0, seed=k) for k in range(2)]
    old = {"level": 5.0, "method": "local", "subtracted": False}
    names = [jwst_file(tmp_path / f"{k}_cal.fits", f, gwcs_of(f), **old) for k, f in enumerate(frames)]
    for again in (False, True):
        assert CliRunner().invoke(main, ["match", *names]).exit_code == 0
        if not again:
            raw = Path(names[1]).read_bytes()
            Path(names[1]).write_bytes(raw.replace(b"\n# background:", b"\n  background:"))
            assert background_in_tree(names[1]) == old  # stands for ours
    assert background_in_tree(names[1]) is None
    assert CliRunner().invoke(main, ["undo", *names]).exit_code == 0
    assert background_in_tree(names[1]) is None
    assert fits.getheader(names[1])["BKGLEVEL"] == 5


def of_a_newer_library(path: Path, old: bytes, new: bytes) -> str:
    """A file in whose ASDF extension a newer library has written something else, of the same length."""
    name = jwst_file(path, FRAME, gwcs_of(FRAME))
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return name


def test_a_gwcs_of_an_unknown_tag_gives_way_to_the_header(tmp_path: Path) -> None:
    tag = b"tag:stsci.edu:gwcs/wcs-1."
    found = infos(of_a_newer_library(tmp_path / "a_cal.fits", tag, tag.replace(b"-1.", b"-9.")))
    assert not isinstance(found.infos[0].wcs, GwcsWcs)
    (warning,) = found.warnings
    assert "placed by the approximation in their headers: the GWCS has the tag tag:stsci.edu:gwcs/wcs-9." in str(
        warning
    )
    assert str(warning).endswith("(pip install --upgrade gwcs asdf-astropy)")


def test_a_gwcs_of_a_newer_library_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter trips over an attribute that only the newer library writes."""
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == "gwcs" else real(name))
    found = infos(of_a_newer_library(tmp_path / "a_cal.fits", b"name: detector", b"nome: detector"))
    assert not isinstance(found.infos[0].wcs, GwcsWcs)
    (warning,) = found.warnings
    assert f"the GWCS was written with gwcs {real('gwcs')}, newer than 0.1 here" in str(warning)


def test_the_header_counts_on_request(tmp_path: Path) -> None:
    name = jwst_file(tmp_path / "a_cal.fits", FRAME.but(x=10.0), gwcs_of(FRAME))
    settings = Settings(wcs="header")
    found = read_infos(resolve_images([name], settings=settings), settings, need_wcs=True)
    assert not isinstance(found.infos[0].wcs, GwcsWcs)
    assert found.warnings == ()
    done = CliRunner().invoke(main, ["match", "--dry-run", "--wcs", "nonsense", name])
    assert done.exit_code == 2
