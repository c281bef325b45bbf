"""The HTML report in a real browser: headless Chromium, any complaint of which fails the test."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .commands import run
from .factories import row, write_all
from .pages import make_page

pytest.importorskip("jinja2")
pytest.importorskip("PIL")
playwright = pytest.importorskip("playwright.sync_api")
_CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="there is no chromium")
_QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("report"))[0]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    arguments = [*_QUIET.split(), "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=_CHROMIUM, args=arguments)
        yield program
        program.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opener]:
    """Opens a page; at the end there must have been no message, no error and no request to the network."""
    complaints: list[str] = []
    contexts = []

    def asked(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            complaints.append(request.url)

    def open_page(page: Path, **how: Any) -> Any:
        contexts.append(chromium.new_context(**how))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", asked)
        tab.goto(page.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def column(tab: Any, table: str, at: int) -> list[str]:
    cells = f"#{table} tbody tr td:nth-child({at})"
    found: list[str] = tab.eval_on_selector_all(cells, "all => all.map(e => e.textContent)")
    return found


def test_it_opens_and_a_hostile_name_stays_text(opened: Opener, page: Path) -> None:
    tab = opened(page)
    assert tab.title().startswith("skymatch: 4 images")
    assert tab.locator("img").count() == 4
    assert all(tab.eval_on_selector_all("img", "all => all.map(e => e.naturalWidth > 0)"))
    assert tab.locator("#images-3 td").nth(1).inner_text().startswith("<img src=x onerror=")


def test_the_slider_moves_with_keys_and_mouse(opened: Opener, page: Path) -> None:
    tab = opened(page)
    slider = tab.locator("#slider")
    clip = "e => getComputedStyle(document.querySelector('.after')).clipPath"
    assert slider.evaluate(clip) == "inset(0px 0px 0px 50%)"
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    assert slider.evaluate(clip) == "inset(0px 0px 0px 49%)"
    tab.keyboard.press("End")
    assert slider.evaluate(clip) == "inset(0px 0px 0px 100%)"
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    assert 20 < float(slider.input_value()) < 30
    tab.get_by_label("Side by side").check()
    assert not slider.is_visible()
    before, after = (tab.locator(f"figure.{name}").bounding_box() for name in ("before", "after"))
    assert before["x"] + before["width"] <= after["x"]


def test_the_sky_can_be_seen_without_the_stars(opened: Opener, page: Path) -> None:
    tab = opened(page)
    seen = "all => all.filter(e => e.checkVisibility()).map(e => e.alt)"
    assert tab.eval_on_selector_all("img", seen) == [f"Sky alone {side} matching" for side in ("before", "after")]
    assert tab.locator("#mosaic .caption:visible").all_inner_texts()[0].startswith("Sky alone: medians of tiles")
    tab.get_by_label("Stars and sky").check()
    assert tab.eval_on_selector_all("img", seen) == [f"Stars and sky {side} matching" for side in ("before", "after")]


def test_tables_sort_by_number_and_by_text(opened: Opener, page: Path) -> None:
    tab = opened(page)
    heads = tab.locator("#images th button").all_inner_texts()
    at = heads.index("sky") + 1
    tab.locator("#images th button", has_text=re.compile("^sky$")).click()
    values = [float(v) for v in column(tab, "images", at)]
    assert values == sorted(values)
    assert values[0] < values[-1]
    tab.locator("#images th button", has_text=re.compile("^sky$")).press("Enter")
    assert [float(v) for v in column(tab, "images", at)] == values[::-1]
    assert tab.locator("#images th[aria-sort]").get_attribute("aria-sort") == "descending"
    tab.locator("#images th button", has_text="image").click()
    names = column(tab, "images", 2)
    assert names[:1] == [names[0]]
    assert [n for n in names if n.startswith("img")] == ["img_0.fits", "img_1.fits", "img_2.fits"]


def test_overlaps_stand_with_the_largest_pull_first(opened: Opener, page: Path) -> None:
    tab = opened(page)
    at = tab.locator("#overlaps th button").all_inner_texts().index("pull") + 1
    pulls = [abs(float(v)) for v in column(tab, "overlaps", at)]
    assert pulls == sorted(pulls, reverse=True)


@pytest.mark.parametrize(
    ("arcsec", "said"), [(9000.0, "2°"), (3600.0, "1°"), (700.0, "10′"), (7.0, "5″"), (0.3, "0.2″")]
)
def test_the_bar_shows_a_round_angle(opened: Opener, page: Path, tmp_path: Path, arcsec: float, said: str) -> None:
    """A bar of at most a fifth of the map, which is ``arcsec``."""
    html = page.read_text()
    width = float(re.search(r'<svg id="map"[^>]*viewBox="0 0 (\d+)', html)[1])
    (other := tmp_path / "r.html").write_text(re.sub(r'data-scale="[^"]*"', f'data-scale="{5 * arcsec / width}"', html))
    tab = opened(other)
    assert tab.locator("#bar-text").text_content() == said
    length = float(re.match(r"M0,0h([\d.]+)", tab.locator("#bar").get_attribute("d"))[1])
    unit = {"°": 3600, "′": 60, "″": 1}[said[-1]]
    assert length / width * 5 * arcsec == pytest.approx(float(said[:-1]) * unit, rel=1e-3)


def test_the_map_can_be_zoomed_and_moved(opened: Opener, page: Path) -> None:
    tab = opened(page)
    area = "document.querySelector('#map .overlaps path').getBoundingClientRect().width"
    bar, whole = tab.locator("#bar-text").text_content(), tab.evaluate(area)
    tab.locator("#zoom-in").click()
    assert tab.evaluate(area) == pytest.approx(2 * whole, rel=0.01)
    assert tab.locator("#bar-text").text_content() != bar
    tab.locator("#map").focus()
    tab.keyboard.press("-")
    assert tab.evaluate(area) == pytest.approx(whole, rel=0.01)
    box = tab.locator("#map").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.wheel(0, -120)  # scrolls the page
    assert tab.evaluate(area) == pytest.approx(whole, rel=0.01)
    tab.keyboard.down("Control")
    for _ in range(3):
        tab.mouse.wheel(0, -120)
    tab.keyboard.up("Control")
    tab.locator("#map-title").hover()
    chosen = tab.locator("#picked").inner_text()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_function(f"{area} > {2 * whole}")
    before = tab.locator("#sky").get_attribute("transform")
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2 - 60, box["y"] + box["height"] / 2 - 3, steps=4)
    tab.mouse.up()
    assert tab.locator("#sky").get_attribute("transform") != before
    tab.locator("#map-title").hover()
    assert tab.locator("#picked").inner_text() == chosen == "Nothing chosen.", "a drag is no click"
    tab.get_by_role("button", name="Whole map").click()
    assert tab.locator("#sky").get_attribute("transform") == "translate(0,0) scale(1)"
    assert tab.locator("#bar-text").text_content() == bar


def test_the_map_tells_names_and_values_to_pointer_and_keys(opened: Opener, page: Path) -> None:
    tab = opened(page)
    picked = tab.locator("#picked")
    tab.locator("#map .overlaps path").first.hover()
    assert "residual" in picked.inner_text()
    tab.locator("#map-title").hover()
    assert picked.inner_text() == "Nothing chosen."
    tab.locator("#map").focus()
    tab.keyboard.press("ArrowRight")
    first = tab.locator("#overlaps tbody tr").first.locator("td").all_inner_texts()
    assert all(word in picked.inner_text() for word in first[1:5])
    assert tab.locator("#overlaps tbody tr.on").count() == 1
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.className") == "scroll"
    tab.locator("#map").focus()
    tab.keyboard.press("Escape")
    assert picked.inner_text() == "Nothing chosen."
    tab.locator("#map .overlaps path").last.click()
    tab.locator("#map-title").hover()
    assert "pull" in picked.inner_text()


def test_long_tables_can_be_filtered(opened: Opener, tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([float(k) for k in range(14)]))
    assert run("match", "--dry-run", "--report", tmp_path / "r.html", *paths).exit_code == 0
    tab = opened(tmp_path / "r.html")
    tab.locator("input[type=search]").first.fill("IMG_13")
    assert tab.locator("#images tbody tr:visible").count() == 1
    assert tab.locator("output").first.inner_text() == "1 of 14"


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_text_has_contrast(opened: Opener, page: Path, width: int, scheme: Any) -> None:
    tab = opened(page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("body", ".caption", ".headline", ".warnings, .fine", "a[href='#settings']"):
        assert tab.locator(name).first.evaluate(_CONTRAST) >= 4.5, name


def test_tables_are_whole_on_a_screen_and_in_print(opened: Opener, tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([100.0, 130.0, 110.0], noise=1.0))
    for k, path in enumerate(paths):
        Path(path).rename(tmp_path / "in" / f"jw02739001001_02105_0000{k}_nrcalong_destripe_cal.fits")
    page = tmp_path / "r.html"
    assert run("match", "--dry-run", "--report", page, *sorted((tmp_path / "in").glob("*"))).exit_code == 0
    over = "all => all.map(e => e.scrollWidth - e.clientWidth)"
    tab = opened(page, viewport={"width": 1280, "height": 900})
    assert tab.eval_on_selector_all(".scroll", over) == [0, 0, 0]
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 703, "height": 1030})  # A4 with margins of 12 mm, at 96 px an inch
    assert tab.eval_on_selector_all(".scroll", over) == [0, 0, 0]
    assert tab.locator("img:visible").count() == 4, "both ways of showing the mosaic"
    assert tab.locator(".legend i.c10").first.evaluate("e => getComputedStyle(e).printColorAdjust") == "exact"


def test_the_page_shows_when_its_file_was_written(opened: Opener, page: Path) -> None:
    os.utime(page, (1.7e9, 1.7e9))
    assert "page written 2023-11-1" in opened(page).locator(".headline").inner_text()
    os.utime(page)
    assert "written" not in opened(page).locator(".headline").inner_text(), "now is no date of a file"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_rules_of_accessibility_are_kept(chromium: Any, page: Path, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)  # its own policy keeps the checker out
    tab = context.new_page()
    tab.goto(page.as_uri())
    found = axe.Axe().run(tab).response
    context.close()
    assert len(found["passes"]) > 30
    assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found["violations"]] == []


_CONTRAST = """e => {
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map((v) => linear(Number(v) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let back = e; while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
  const [a, b] = [getComputedStyle(e).color, getComputedStyle(back).backgroundColor].map(light).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
