"""The skies in the words of other programs; `tests/interop` runs the programs on them."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.wcs import WCS

import skymatch_cli
from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.export.programs import Export, exported
from skymatch_cli.model import Recorded
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.output.result import Result

from .commands import run
from .factories import row, write_all
from .results import make_info, make_result

SKIES = [100.0, 130.0, 110.0]


def request(result: Result, **changes: Any) -> Export:
    return Export(report=result.report, infos=result.infos, **changes)


def with_skies(*skies: float, names: tuple[str, ...] = (), hdus: tuple[tuple[str, int, int], ...] = ()) -> Export:
    """A result with these skies; ``hdus`` are (EXTNAME, EXTVER, index)."""
    names = names or tuple(f"img_{k}.fits" for k in range(len(skies)))
    hdus = hdus or (("PRIMARY", 1, 0),) * len(names)
    infos = tuple(
        replace(info, ref=replace(info.ref, ext=ext, extver=ver, hdu=hdu))
        for info, (ext, ver, hdu) in zip(map(make_info, names), hdus, strict=True)
    )
    made = make_result(*(["a.fits"] * len(skies)))
    n = len(skies)
    solution = replace(
        made.solution,
        sky=np.array(skies),
        sky_err=np.ones(n),
        sky_err_noise=np.ones(n),
        status=np.array(["ok" if np.isfinite(sky) else "all_masked" for sky in skies], dtype=object),
        component=np.zeros(n, np.int64),
    )
    measured = replace(made.measurements, n_good=np.ones(n, np.int64))
    return request(replace(made, infos=infos, solution=solution, measurements=measured))


# ---- what is written


def test_swarp_has_one_value_a_line_and_then_the_inputs() -> None:
    lines = exported("swarp", with_skies(1.5, 0.1)).decode().splitlines()
    assert lines == ["1.5", "0.1", "# in the order of these inputs:", "# img_0.fits", "# img_1.fits"]


def test_swarp_names_extensions_one_by_one() -> None:
    chips = with_skies(1.0, 2.0, names=("a.fits", "a.fits.fz"), hdus=(("SCI", 1, 1), ("SCI", 2, 4)))
    # SWarp gives one value to one name, and takes all image extensions of a name without an index.
    assert exported("swarp", chips).decode().splitlines()[-2:] == ["# a.fits[1]", "# a.fits.fz[3]"]


def test_jwst_is_one_line_a_file() -> None:
    assert exported("jwst", with_skies(1.5, 1 / 3)) == b"img_0.fits 1.5\nimg_1.fits 0.3333333333333333\n"
    chips = with_skies(2.0, 2.0, names=("a.fits", "a.fits"), hdus=(("SCI", 1, 1), ("SCI", 2, 2)))
    assert exported("jwst", chips) == b"a.fits 2.0\n"


def test_drizzle_has_the_chips_of_a_file_in_one_line() -> None:
    hdus = (("SCI", 2, 4), ("SCI", 1, 1))
    different = exported("drizzle", with_skies(2.0, 1.0, names=("a.fits",) * 2, hdus=hdus)).decode()
    assert different.splitlines()[0] == "a.fits 1.0 2.0"
    same = exported("drizzle", with_skies(2.0, 2.0, names=("a.fits",) * 2, hdus=hdus)).decode()
    assert same.splitlines()[0] == "a.fits 2.0"


def test_drizzle_knows_a_file_by_every_name_it_may_be_called_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to("real")
    lines = exported("drizzle", with_skies(1.5, names=("data/a_flc.fits",))).decode().splitlines()
    assert lines == [
        "a_flc.fits 1.5",
        "data/a_flc.fits 1.5",
        f"{tmp_path}/data/a_flc.fits 1.5",
        f"{tmp_path}/real/a_flc.fits 1.5",
    ]


def test_drizzle_refuses_two_files_of_one_name() -> None:
    with pytest.raises(InputError, match="another file has this name too"):
        exported("drizzle", with_skies(1.0, 2.0, names=("x/a.fits", "y/a.fits")))


def test_topcat_reads_a_votable_of_all_tables() -> None:
    tables = parse(io.BytesIO(exported("topcat", with_skies(1.5, 0.1))))
    assert [table.name for table in tables.iter_tables()] == ["images", "overlaps", "components"]
    assert tables.get_first_table().array["sky"].tolist() == [1.5, 0.1]


def test_regions_read_back(tmp_path: Path) -> None:
    regions = pytest.importorskip("regions")
    found = skymatch_cli.match(write_all(tmp_path, row(SKIES)), dry_run=True)
    polygons = regions.Regions.parse(exported("regions", request(found)).decode(), format="ds9")
    assert len(polygons) == 3 + 2
    assert polygons[0].meta["text"].endswith("img_0.fits")
    corners = WCS(fits.getheader(found.infos[0].ref.path)).calc_footprint(center=False)
    separation = polygons[0].vertices.separation(polygons[0].vertices[0].__class__(corners, unit="deg")[:, None])
    assert separation.min(axis=0).arcsec.max() < 0.001
    assert "|" in polygons[3].meta["text"]


def test_braces_in_a_name_stay_inside_the_text_of_a_region(tmp_path: Path) -> None:
    regions = pytest.importorskip("regions")
    paths = write_all(tmp_path, row(SKIES[:2]))
    Path(paths[0]).rename(tmp_path / "a} circle(0,0,9) # text={.fits")
    found = skymatch_cli.match(sorted(map(str, tmp_path.glob("*.fits"))), dry_run=True)
    text = exported("regions", request(found)).decode()
    assert len(regions.Regions.parse(text, format="ds9")) == 3


# ---- what is refused


@pytest.mark.parametrize("to", ["swarp", "jwst", "drizzle"])
def test_an_image_without_a_sky_is_named(to: str) -> None:
    with pytest.raises(InputError, match=r"img_1\.fits: has no sky: all_masked"):
        exported(to, with_skies(1.0, np.nan))


def test_pixels_that_are_without_their_sky_already_are_refused() -> None:
    asked = with_skies(1.0, 2.0)
    infos = (replace(asked.infos[0], recorded=Recorded(SkyPlane(1.0), subtracted=True)), asked.infos[1])
    with pytest.raises(InputError, match=r"img_0\.fits: its sky is subtracted already"):
        exported("swarp", replace(asked, infos=infos))


@pytest.mark.parametrize("to", ["jwst", "drizzle"])
@pytest.mark.parametrize("name", ["a b.fits", "#a.fits"])
def test_a_name_that_a_list_cannot_hold_is_refused(to: str, name: str) -> None:
    with pytest.raises(InputError, match="a list can't hold"):
        exported(to, with_skies(1.0, names=(name,)))


def test_jwst_refuses_what_its_list_cannot_say() -> None:
    chips = with_skies(1.0, 2.0, names=("a.fits", "a.fits"), hdus=(("SCI", 1, 1), ("SCI", 2, 2)))
    with pytest.raises(InputError, match="different skies"):
        exported("jwst", chips)
    with pytest.raises(InputError, match="another file has this name too"):
        exported("jwst", with_skies(1.0, 2.0, names=("x/a.fits", "y/a.fits")))


def test_drizzle_refuses_skies_of_some_chips() -> None:
    hdus = (("SCI", 3, 7), ("SCI", 1, 1))
    with pytest.raises(InputError, match="some chips are missing"):
        exported("drizzle", with_skies(2.0, 1.0, names=("a.fits",) * 2, hdus=hdus))


def test_montage_needs_a_table() -> None:
    with pytest.raises(UsageError, match="--to montage needs the table"):
        exported("montage", with_skies(1.0))


def images_tbl(path: Path, *rows: tuple[int, int, str]) -> str:
    lines = [f"|{'cntr':^6}|{'hdu':^5}|{'fname':^30}|", f"|{'int':^6}|{'int':^5}|{'char':^30}|"]
    lines += [f" {cntr:6d} {hdu:5d} {name:30s} " for cntr, hdu, name in rows]
    path.write_text("\\datatype = fitshdr\n" + "\n".join(lines) + "\n")
    return str(path)


def test_montage_corrections_have_the_numbers_of_the_table(tmp_path: Path) -> None:
    table = images_tbl(tmp_path / "p.tbl", (7, 0, "projected/hdu0_img_1.fits"), (3, 0, "raw/img_0.fits"))
    lines = exported("montage", replace(with_skies(1.5, 1 / 3), images_tbl=table)).decode().splitlines()
    assert lines[0].replace(" ", "") == "|id|a|b|c|"
    assert [line.split() for line in lines[2:]] == [["3", "0.0", "0.0", "1.5"], ["7", "0.0", "0.0", repr(1 / 3)]]


def test_montage_tells_extensions_apart(tmp_path: Path) -> None:
    table = images_tbl(tmp_path / "p.tbl", (0, 0, "hdu4_a.fits"), (1, 0, "hdu1_a.fits"))
    chips = with_skies(1.0, 2.0, names=("a.fits",) * 2, hdus=(("SCI", 1, 1), ("SCI", 2, 4)))
    lines = exported("montage", replace(chips, images_tbl=table)).decode().splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["2.0", "1.0"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0, 0, "img_0.fits")], r"img_1\.fits: is not in"),
        ([(0, 0, "img_0.fits"), (1, 0, "img_1.fits"), (2, 0, "other.fits")], r"other\.fits is not in the result"),
        ([(0, 0, "img_0.fits"), (1, 0, "img_1.fits"), (2, 0, "x/img_1.fits")], r"lists img_1\.fits twice"),
        ([(7, 0, "img_0.fits"), (7, 0, "img_1.fits")], r"cntr 7 stands for several images"),
    ],
)
def test_a_table_that_does_not_fit_the_result_is_refused(
    tmp_path: Path, rows: list[tuple[int, int, str]], said: str
) -> None:
    table = images_tbl(tmp_path / "p.tbl", *rows)
    with pytest.raises(InputError, match=said):
        exported("montage", replace(with_skies(1.0, 2.0), images_tbl=table))


@pytest.mark.parametrize("content", ["nonsense\n", "|a|\n|int|\n 1\n", "\x00\x01", None])
def test_what_is_no_table_of_images_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "p.tbl").write_text(content)
    with pytest.raises(InputError, match=r"p\.tbl"):
        exported("montage", replace(with_skies(1.0), images_tbl=str(tmp_path / "p.tbl")))


# ---- the command


@pytest.fixture
def solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three frames and their result; the program runs in it."""
    write_all(tmp_path, row(SKIES, noise=1.0, dtype="f4"))
    monkeypatch.chdir(tmp_path)
    assert (
        run("match", "--dry-run", "-o", "solution.fits", *sorted(p.name for p in tmp_path.glob("*.fits"))).exit_code
        == 0
    )
    return tmp_path


def test_the_command_writes_to_standard_output_or_a_file(solved: Path) -> None:
    shown = run("export", "solution.fits", "--to", "jwst")
    assert shown.stdout.count("\n") == 3
    made = run("export", "solution.fits", "--to", "jwst", "-o", "skies.txt")
    assert (made.exit_code, made.stdout) == (0, "")
    assert "--skylist=skies.txt" in made.stderr
    assert (solved / "skies.txt").read_text() == shown.stdout
    assert run("export", "solution.fits", "--to", "jwst", "-o", "skies.txt").exit_code == 2
    assert run("export", "solution.fits", "--to", "jwst", "-o", "skies.txt", "--overwrite").exit_code == 0


def test_our_own_skylist_is_the_jwst_one(solved: Path) -> None:
    run("export", "solution.fits", "--to", "jwst", "-o", "skies.txt")
    names = sorted(p.name for p in solved.glob("img*.fits"))
    shown = run("match", "--dry-run", "--method", "user", "--skylist", "skies.txt", "--format", "csv", *names)
    direct = run("match", "--dry-run", "--format", "csv", *names)
    column = [[line.split(",")[5] for line in ran.stdout.splitlines()] for ran in (shown, direct)]
    assert column[0] == column[1]


def test_images_tbl_is_for_montage_alone(solved: Path) -> None:
    assert run("export", "solution.fits", "--to", "swarp", "--images-tbl", "x.tbl").exit_code == 2


def test_after_subtract_there_is_nothing_to_export(solved: Path) -> None:
    run("match", "--subtract", *sorted(p.name for p in solved.glob("img*.fits")))
    ran = run("export", "solution.fits", "--to", "swarp")
    assert ran.exit_code == 3
    assert "BKGSUB" in ran.stderr


def test_topcat_needs_no_images(solved: Path) -> None:
    (solved / "img_0.fits").unlink()
    assert run("export", "solution.fits", "--to", "topcat").exit_code == 0
    assert run("export", "solution.fits", "--to", "swarp").exit_code == 3


def test_without_the_package_regions_there_is_a_hint(solved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regions", None)
    ran = run("export", "solution.fits", "--to", "regions")
    assert ran.exit_code == 2
    assert "pip install 'skymatch-cli[regions]'" in ran.stderr
