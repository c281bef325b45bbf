"""The HTML report: what it says, that it harms nobody, and what is refused."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skymatch_cli
from skymatch_cli.errors import InputError
from skymatch_cli.output.result import Result
from skymatch_cli.output.stored import read_images, read_report

from .commands import run
from .factories import Frame, row, write_all
from .pages import make_page

pytest.importorskip("jinja2")
pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    return make_page(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(made: tuple[Path, Result]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def result(made: tuple[Path, Result]) -> Result:
    return made[1]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# ---- what it says


def test_it_asks_for_nothing_from_the_network(page: Path) -> None:
    places = re.findall(
        r"""(?:src|href|action|data)=["']?([^"'\s>]+)""", re.sub(r"<(td|pre)\b.*?</\1>", "", text(page), flags=re.S)
    )
    assert places
    assert all(place.startswith(("#", "data:")) for place in places)
    assert "default-src 'none'" in text(page)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|WebSocket", text(page))


def test_the_same_result_gives_the_same_bytes(page: Path, tmp_path: Path) -> None:
    assert run("report", page.parent / "solution.json", "-o", tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_fits_and_json_give_the_same_report(tmp_path: Path) -> None:
    found = skymatch_cli.match(write_all(tmp_path / "in", row([5, 3, 4], noise=1.0)), dry_run=True)
    for suffix in ("fits", "json"):
        found.write(tmp_path / f"solution.{suffix}")
        assert run("report", tmp_path / f"solution.{suffix}", "-o", tmp_path / f"{suffix}.html").exit_code == 0
    assert text(tmp_path / "fits.html") == text(tmp_path / "json.html")


def test_match_makes_the_report_that_the_stored_result_gives(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([5, 3, 4], noise=1.0))
    made = run("match", "--dry-run", "-o", tmp_path / "s.fits", "--report", tmp_path / "a.html", *paths)
    assert made.exit_code == 0, made.stderr
    assert run("report", tmp_path / "s.fits", "-o", tmp_path / "b.html").exit_code == 0
    assert text(tmp_path / "a.html") == text(tmp_path / "b.html")


def test_match_draws_the_pixels_before_it_subtracts(tmp_path: Path) -> None:
    frames = row([100, 130, 110])
    for name in ("dry", "wet"):
        write_all(tmp_path / name, frames)
    pages = {}
    for name, how in (("dry", "--dry-run"), ("wet", "--subtract")):
        page = tmp_path / f"{name}.html"
        ran = run("match", how, "-o", tmp_path / f"{name}.json", "--report", page, *sorted((tmp_path / name).glob("*")))
        assert ran.exit_code == 0, ran.stderr
        pages[name] = re.findall('data:image/png;base64,[^"]+', text(page))
    assert pages["dry"] == pages["wet"]
    assert pages["dry"][0] != pages["dry"][1]


def test_warnings_come_before_everything_else(tmp_path: Path) -> None:
    frames = row([100, 130])
    alone = write_all(tmp_path / "in", [*frames, frames[0].but(x=400.0)])
    run("match", "--dry-run", "-o", tmp_path / "s.json", *alone)
    run("report", tmp_path / "s.json", "-o", tmp_path / "r.html")
    body = text(tmp_path / "r.html").partition("<main")[2]
    warning = body.index('class="warnings"')
    assert body[:warning].count("<section") == 1
    assert body[warning:].index("<li>") < body[warning:].index("<section")
    said = re.findall("<li>(.*)", body[warning:])[0]
    assert "img_2.fits" in said
    assert str(tmp_path) not in said  # names are as short as in the tables


def test_every_image_overlap_and_component_has_its_row(page: Path, result: Result) -> None:
    whole = text(page)
    for name, n in (("images", 4), ("overlaps", 3), ("components", 1)):
        assert len(re.findall(rf'<tr id="{name}-\d+">', whole)) == n
    first = re.search(r'<tr id="images-1">(.*?)</tr>', whole, re.S)
    assert first is not None
    assert f"<td>{result.images['sky'][1]:.3f}"[:8] in first[1]


def test_a_hostile_name_is_escaped(page: Path) -> None:
    assert "<img src=x" not in text(page)
    assert "&lt;img src=x" in text(page)
    assert "\u202e" not in text(page)


def test_settings_that_are_not_defaults_are_in_the_command(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2]))
    found = skymatch_cli.match(paths, dry_run=True, skystat="mean", upper=1e3, match_up=True)
    found.write(tmp_path / "s.json")
    run("report", tmp_path / "s.json", "-o", tmp_path / "r.html")
    assert "skymatch match --dry-run --compare pooled --skystat mean --upper 1000.0 --match-up @images.txt" in text(
        tmp_path / "r.html"
    )


def test_the_command_and_the_list_of_the_page_give_the_result_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path / "in", row([5, 3, 4], noise=1.0))
    Path("in/img_1.fits").rename("in/img  it's 1.fits")
    ran = run("match", "--dry-run", "-o", "s.json", "--skystat", "mean", "--report", "r.html", "in/img*.fits")
    assert ran.exit_code == 0, ran.stderr
    found = dict(
        re.findall(r'<pre class="command"[^>]*aria-label="(\w+)">(.*?)</pre>', text(tmp_path / "r.html"), re.S)
    )
    (tmp_path / "images.txt").write_text(html.unescape(found["Images"]))
    words = found["Command"].split()
    assert words[0] == "skymatch"
    assert "--dry-run" in words  # who pastes it wants to see, not to change
    assert run(*words[1:], "-o", "again.json").exit_code == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "s.json").read_bytes()


def test_names_beyond_ascii_are_found_again_from_a_fits_result(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row([5, 3, 4], noise=1.0))
    Path("img_1.fits").rename("é\t1.fits")
    assert run("match", "--dry-run", "-o", "s.fits", "*.fits").exit_code == 0
    ran = run("report", "s.fits", "-o", "r.html", "--plot", "r.png")
    assert ran.exit_code == 0, ran.stderr
    assert "no pictures" not in ran.stderr
    assert "é" in text(Path("r.html"))


def test_a_page_is_no_figure_and_both_are_no_one_file(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2]))
    for page, says in (("x.svg", "the report is an HTML page"), ("x.html", "name the same file")):
        ran = run("match", "--dry-run", "--report", tmp_path / page, "--plot", tmp_path / "x.html", *paths)
        assert ran.exit_code == 2
        assert says in ran.stderr
    assert not list(tmp_path.glob("x.*"))


def test_without_the_images_there_are_tables_and_a_note(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2]))
    skymatch_cli.match(paths, dry_run=True).write(tmp_path / "s.json")
    Path(paths[0]).unlink()
    ran = run("report", tmp_path / "s.json", "-o", tmp_path / "r.html")
    assert ran.exit_code == 0
    assert "no pictures: " in ran.stderr
    assert "There is no map" in text(tmp_path / "r.html")
    assert 'id="overlaps-0"' in text(tmp_path / "r.html")


def test_values_given_by_the_user_make_a_report_without_a_map(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2]))
    (tmp_path / "skies.txt").write_text("".join(f"{path} 1.5\n" for path in paths))
    words = ("--method", "user", "--skylist", tmp_path / "skies.txt", "--report", tmp_path / "r.html")
    ran = run("match", "--dry-run", *words, *paths)
    assert ran.exit_code == 0, ran.stderr
    assert "There is no map" in text(tmp_path / "r.html")


def test_the_command_is_shown_as_it_was_typed(tmp_path: Path) -> None:
    paths = write_all(tmp_path, row([100, 130]))
    words = ("match", "--dry-run", "-o", "s.json", "--report", "a b.html", *(Path(path).name for path in paths))
    typed = {}
    for name, command in (("a b", words), ("b", ("report", "s.json", "-o", "b.html"))):
        program = [sys.executable, "-m", "skymatch_cli"]
        assert subprocess.run([*program, *command], cwd=tmp_path, check=False).returncode == 0
        typed[name] = text(tmp_path / f"{name}.html").splitlines()
    assert ">skymatch match --dry-run -o s.json --report &#39;a b.html&#39; img_0.fits img_1.fits</pre>" in "".join(
        typed["a b"]
    )
    one, other = ([line for line in lines if 'aria-label="Typed"' not in line] for lines in typed.values())
    assert one == other, "all else is that of the result"


def test_it_says_whether_the_overlaps_agree(tmp_path: Path, page: Path) -> None:
    def said(step: float) -> list[str]:
        folder = tmp_path / str(step)
        paths = write_all(folder, [Frame(x=12.0 * k, sky=100.0 + 10 * k, noise=1.0, seed=k) for k in range(3)])
        with fits.open(paths[1], mode="update") as hdus:
            hdus[0].data[:, :16] += step  # in the overlap with one of its neighbours, and not with the other
        run("match", "--dry-run", "--compare", "pooled", "--report", folder / "r.html", *paths)
        return re.findall(r'<p class="verdict">(.*?)</p>', text(folder / "r.html"))

    assert said(0.0) == ["All 3 overlaps agree within 5 σ."]
    assert said(8.0) == ["2 of 3 overlaps contradict the others by more than 5 σ (the deepest colours)."]
    shown = re.findall(r'class="(c10|c0)" d=', text(tmp_path / "8.0" / "r.html"))
    assert len(shown) == 2
    assert 'class="verdict"' not in text(page), "in a strip nothing checks them"


def test_settings_without_a_value_are_one_line(page: Path) -> None:
    (line,) = re.findall(r'<th scope="row">not set</th><td>(.*?)</td>', text(page))
    assert {"--lower", "--mask", "--skylist"} <= set(line.split(", "))
    assert '<th scope="row">--lower</th>' not in text(page)


def test_every_number_has_its_unit(page: Path) -> None:
    whole = text(page)
    heads = dict(re.findall(r'<button type="button" title="(\w+):[^"]*">\w+</button><small>(.*?)</small>', whole))
    in_unit = {
        "sky",
        "sky_err",
        "sky_err_noise",
        "step_before",
        "step_after",
        "sky_a",
        "sky_b",
        "delta",
        "delta_err",
        "residual",
        "rms_residual",
    }
    assert {heads[name] for name in in_unit} == {"electron"}
    assert (heads["pull"], heads["n_pixels"], heads["area_arcmin2"]) == ("σ", "pixels", "arcmin²")
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", whole))
    assert re.fullmatch(r"29\.\d → 0 electron", figures["Largest step, before → after"]), figures
    assert re.fullmatch(r"[\d.]+ σ", figures["Largest pull"])
    assert ">Residuals (electron)</text>" in whole
    assert ">Pulls (σ)</text>" in whole


# ---- refusals


def test_an_existing_file_is_kept(page: Path) -> None:
    before = page.read_bytes()
    ran = run("report", page.parent / "solution.json", "-o", page)
    assert (ran.exit_code, page.read_bytes()) == (2, before)
    assert "--overwrite" in ran.stderr


def test_a_report_never_replaces_an_image(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2]))
    before = Path(paths[0]).read_bytes()
    ran = run("match", "--dry-run", "--overwrite", "--report", paths[0], *paths)
    assert (ran.exit_code, Path(paths[0]).read_bytes()) == (2, before)


def test_nothing_to_make_is_a_usage_error(page: Path) -> None:
    assert run("report", page.parent / "solution.json").exit_code == 2


@pytest.mark.parametrize("package", ["jinja2", "PIL"])
def test_a_missing_extra_is_one_line_with_a_hint(
    page: Path, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ran = run("report", page.parent / "solution.json", "-o", tmp_path / "r.html")
    assert ran.exit_code == 2
    assert ran.stderr.count("\n") == 1
    assert "pip install 'skymatch-cli[report]'" in ran.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.txt", "{}"),
        ("s.json", "not json"),
        ("s.json", "[]"),
        ("s.json", "{}"),
        ("s.json", '{"schema": 99}'),
        ("s.json", '{"schema": 2, "version": "1", "settings": {}, "warnings": [], "images": [{"file": 3}]}'),
        ("s.fits", "not fits"),
        ("missing.json", None),
    ],
)
def test_what_is_no_result_is_an_input_error(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        read_report(str(tmp_path / name))


def test_an_overlap_of_an_unknown_image_is_refused(page: Path, tmp_path: Path) -> None:
    document = json.loads((page.parent / "solution.json").read_text(encoding="utf-8"))
    document["overlaps"][0]["b"] = 4
    (tmp_path / "s.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="an image that isn't there"):
        read_report(str(tmp_path / "s.json"))


# ---- stored results


@pytest.mark.parametrize("suffix", ["json", "fits"])
def test_a_stored_result_reads_back_the_same(tmp_path: Path, suffix: str) -> None:
    paths = write_all(tmp_path / "in", row([1, 2, 3], noise=0.5))
    found = skymatch_cli.match(paths, dry_run=True)
    found.write(tmp_path / f"s.{suffix}")
    back = read_report(str(tmp_path / f"s.{suffix}"))
    assert (back.version, back.settings, back.labels, back.warnings) == (
        found.report.version,
        found.report.settings,
        found.report.labels,
        found.report.warnings,
    )
    for one, other in zip(back.tables, found.report.tables, strict=True):
        assert one.names == other.names
        for column in one.columns:
            np.testing.assert_array_equal(column.values, other.column(column.name))
    assert [info.ref for info in read_images(back)] == [info.ref for info in found.infos]


def test_images_of_a_stored_result_that_are_gone_are_named(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([1, 2, 3]))
    found = skymatch_cli.match(paths, dry_run=True)
    Path(paths[1]).unlink()
    with pytest.raises(InputError, match=r"img_1\.fits"):
        read_images(found.report)


# ---- what is others' work


def test_the_library_of_the_map_is_that_of_its_lock_file() -> None:
    vendor = Path(skymatch_cli.__file__).parent / "report" / "vendor"
    lock = json.loads((vendor / "package-lock.json").read_text())["packages"]
    versions = {name.rpartition("/")[2]: entry["version"] for name, entry in lock.items() if name}
    source = (vendor / "d3-zoom.js").read_text(encoding="utf-8")
    assert dict(re.findall(r"^// \S+/(d3-\w+)/ v(\S+) ", source, re.M)) == versions
    assert source.count("Permission to use, copy, modify") == 1
    assert "Redistribution and use in source and binary forms" in source


# ---- start-up


def test_the_core_imports_no_extra() -> None:
    code = """
import sys
import skymatch_cli.cli.match, skymatch_cli.pipeline, skymatch_cli.report.pictures as pictures
pictures.Pictures().check(overwrite=False)
print([name for name in ('jinja2', 'PIL', 'matplotlib', 'regions') if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
