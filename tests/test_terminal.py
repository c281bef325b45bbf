"""The table that a person sees in a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from skymatch_cli.cli.terminal import print_table
from skymatch_cli.output.result import Result

from .results import make_info, make_result


def drawn(result: Result, table: str = "images", width: int = 80) -> str:
    stream = io.StringIO()
    print_table(result.report, table, console=Console(file=stream, width=width, highlight=False, force_terminal=False))
    return stream.getvalue()


def test_the_table_says_what_matters() -> None:
    lines = drawn(make_result()).splitlines()
    header = next(line for line in lines if "image" in line)
    assert header.split() == ["image", "component", "sky", "±", "error", "unit", "pixels", "status"]
    assert any(line.split() == ["a.fits", "0", "10.3333", "0.0062", "adu", "200", "ok"] for line in lines)
    assert "3 images, 1 overlap, 2 components, 1 without a sky" in lines[-1]


def test_a_group_is_shown_where_it_is_not_the_file() -> None:
    result = make_result()
    infos = tuple(replace(info, group="night 1") for info in result.infos)
    assert "group" not in drawn(result)
    assert "night 1" in drawn(replace(result, infos=infos), width=120)


def test_chips_are_shown_with_their_extension() -> None:
    infos = tuple(make_info("a.fits", ext="SCI", hdu=k) for k in (1, 2, 3))
    assert "a.fits[SCI,1]" in drawn(replace(make_result(), infos=infos))


@pytest.mark.parametrize("table", ["images", "overlaps", "components"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_names_are_broken_and_numbers_are_not(table: str, width: int) -> None:
    name = "long_" * 20 + ".fits"
    result = make_result(name, "b.fits", "c.fits")
    text = drawn(result, table, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines()[:-1])
    numbers = {"images": "10.3333", "overlaps": "10.333", "components": "0.00"}
    assert numbers[table] in text.split()


def test_columns_without_room_are_named() -> None:
    text = drawn(make_result(), "overlaps", 80)
    assert text.splitlines()[-1].endswith("; no room for n_a, n_b, sky_a")
    assert "no room" not in drawn(make_result(), "overlaps", 140)


def test_without_any_room_the_plain_table_is_printed() -> None:
    result = make_result()
    assert drawn(result, "images", 20).splitlines()[0].split() == list(result.report.images.names)


def test_names_are_no_markup_and_move_nothing() -> None:
    text = drawn(make_result("[bold]x[/bold]\x1b[2J.fits", "b.fits", "c.fits"), width=120)
    assert "[bold]x[/bold]\\x1b[2J.fits" in text.split()
    assert "\x1b" not in text
