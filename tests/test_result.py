"""What a result says, in tables and in every format."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits, votable
from astropy.table import QTable
from hypothesis import given
from hypothesis import strategies as st

from skymatch_cli import __version__
from skymatch_cli.choices import Format, TableName, WarningName
from skymatch_cli.model.warning import SkyWarning
from skymatch_cli.output.formats import WRITERS
from skymatch_cli.output.plain import number_format, summary, text_lines
from skymatch_cli.output.printable import ascii_only, printable
from skymatch_cli.output.result import Result
from skymatch_cli.settings import Settings

from .results import make_info, make_result

HOSTILE = "\x1b[31mred\n[bold]µ\u202e,'\"\udcff.fits"


def written(result: Result, form: str, table: str = "images") -> bytes:
    stream = io.BytesIO()
    WRITERS[Format(form)](result.report, table, stream)
    return stream.getvalue()


def without_overlaps(result: Result) -> Result:
    none = {name: getattr(result.measurements, name)[:0] for name in ("a", "b", "area_arcmin2", "sky_a", "sky_b")}
    none |= {name: getattr(result.measurements, name)[:0] for name in ("n_a", "n_b", "delta", "delta_err", "status")}
    return replace(
        result,
        measurements=replace(result.measurements, **none),
        solution=replace(result.solution, residual=result.solution.residual[:0]),
    )


def test_json_has_the_keys_of_the_schema_in_their_order() -> None:
    document = json.loads(make_result(warnings=("c.fits: all masked",)).to_json())
    assert list(document) == ["schema", "version", "settings", "images", "overlaps", "components", "warnings"]
    assert list(document["images"][0]) == (
        [
            "file",
            "ext",
            "extver",
            "group",
            "component",
            "sky",
            "sky_err",
            "sky_err_noise",
            "sky_unit",
            "n_pixels",
            "status",
        ]
    )
    assert list(document["overlaps"][0]) == (
        ["a", "b", "area_arcmin2", "unit", "sky_a", "sky_b", "n_a", "n_b", "delta", "delta_err", "residual", "status"]
    )
    assert list(document["components"][0]) == (
        ["id", "n_images", "anchor", "rms_residual", "chi2", "dof", "step_before", "step_after", "unit"]
    )
    assert (document["schema"], document["version"]) == (2, __version__)
    assert document["settings"] == Settings().determining()
    (warning,) = document["warnings"]
    assert (warning["name"], warning["text"], warning["amplitude"]) == ("disconnected", "c.fits: all masked", None)
    assert {*warning} == {"name", "text", "amplitude", "unit", "cause", "remedy", "visible"}


def test_json_says_what_was_found() -> None:
    document = json.loads(make_result().to_json())
    assert document["images"][0] == {
        "file": "a.fits",
        "ext": "PRIMARY",
        "extver": 1,
        "group": "a.fits",
        "component": 0,
        "sky": 10 + 1 / 3,
        "sky_err": 0.00615,
        "sky_err_noise": 0.006,
        "sky_unit": "adu",
        "n_pixels": 200,
        "status": "ok",
    }
    assert document["overlaps"][0]["delta"] == 10 + 1 / 3
    assert [c["n_images"] for c in document["components"]] == [2, 1]


def test_json_has_null_where_there_is_no_number() -> None:
    text = make_result().to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["images"][2]["sky"] is None
    assert json.loads(text)["components"][1]["rms_residual"] is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_it_was_from_json_and_csv(value: float) -> None:
    result = make_result()
    result = replace(result, solution=replace(result.solution, sky=np.array([value, 0.0, np.nan])))
    assert json.loads(result.to_json())["images"][0]["sky"] == value
    rows = csv.DictReader(io.StringIO(written(result, "csv").decode()))
    assert float(next(rows)["sky"]) == value


def test_an_hdu_without_a_name_is_called_by_its_number() -> None:
    result = replace(make_result(), infos=(make_info("a.fits", ext="", hdu=3), *make_result().infos[1:]))
    assert json.loads(result.to_json())["images"][0]["ext"] == "3"
    assert result.report.labels[0] == "a.fits[3]"


def test_tables_are_astropy_tables_with_units() -> None:
    result = make_result()
    assert isinstance(result.images, QTable)
    assert result.images["sky"][0] == (10 + 1 / 3) * u.adu
    assert list(result.images["sky_unit"]) == ["adu"] * 3
    assert result.overlaps["delta_err"].unit == u.adu
    assert result.overlaps["area_arcmin2"][0] == 2.5 * u.arcmin**2
    assert list(result.components["anchor"]) == ["lowest = 0", "lowest = 0"]
    assert result.images is result.images  # made once


def test_columns_of_several_units_have_none_of_their_own() -> None:
    result = make_result()
    result = replace(result, infos=(make_info("a.fits", unit="MJy/sr"), *result.infos[1:]))
    assert getattr(result.images["sky"], "unit", None) is None
    assert list(result.images["sky_unit"]) == ["MJy/sr", "adu", "adu"]
    unknown = replace(result, infos=tuple(make_info(f, unit="magic") for f in "abc"))
    assert getattr(unknown.images["sky"], "unit", None) is None


def test_tables_in_memory_say_of_their_run_what_ecsv_says() -> None:
    result = make_result(warnings=("one",))
    read = QTable.read(written(result, "ecsv").decode(), format="ascii.ecsv")
    assert dict(result.images.meta) == dict(read.meta)
    assert len(result.overlaps.meta["warnings"]) == 1


def test_a_result_shows_itself_in_one_line_and_in_notebooks() -> None:
    result = make_result("a<b>.fits", "b.fits", "c.fits", warnings=("c.fits: <all> masked",))
    assert repr(result) == "<skymatch Result: 3 images, 1 overlap, 2 components, 1 without a sky, 1 warning>"
    page = result._repr_html_()
    assert "<li>c.fits: &lt;all&gt; masked</li>" in page
    assert "a&lt;b&gt;.fits" in page


@pytest.mark.parametrize("table", list(TableName))
def test_ecsv_reads_back(table: str) -> None:
    result = make_result(warnings=("one",))
    read = QTable.read(written(result, "ecsv", table).decode(), format="ascii.ecsv")
    expected = getattr(result, table)
    assert read.colnames == expected.colnames
    for name in expected.colnames:
        same = np.array_equal(read[name], expected[name], equal_nan=expected[name].dtype.kind == "f")
        assert same, name
    assert read.meta["settings"] == result.settings.determining()
    assert [warning["text"] for warning in read.meta["warnings"]] == ["one"]


def test_fits_holds_all_tables_settings_and_warnings() -> None:
    long = "a warning that is longer than one card, because it 'names' an image: " + "x" * 100
    result = make_result(settings=Settings(mask="it's/{stem}" + "y" * 90), warnings=(long, "two"))
    with fits.open(io.BytesIO(written(result, "fits"))) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGES", "OVERLAPS", "COMPONENTS"]
        header = hdus[0].header
        assert json.loads(header["SETTINGS"]) == result.settings.determining()
        assert [json.loads(header[f"WARN{k}"])["text"] for k in range(1, header["NWARN"] + 1)] == [long, "two"]
        assert hdus["IMAGES"].data["sky"][0] == 10 + 1 / 3
        assert np.isnan(hdus["IMAGES"].data["sky"][2])
        assert hdus["OVERLAPS"].columns["area_arcmin2"].unit == "arcmin2"
        assert hdus["IMAGES"].columns.names == list(result.report.images.names)


def test_votable_holds_all_tables() -> None:
    result = make_result(warnings=("a & b",))
    document = votable.parse(io.BytesIO(written(result, "vot")), verify="exception")
    tables = {table.ID: table.to_table() for table in document.iter_tables()}
    assert list(tables) == ["images", "overlaps", "components"]
    assert tables["images"]["sky"][0] == 10 + 1 / 3
    assert tables["overlaps"]["area_arcmin2"].unit == u.arcmin**2
    assert [info.value for info in document.resources[0].infos] == ["disconnected: a & b"]
    ids = re.findall(rb' ID="([^"]*)"', written(result, "vot"))
    assert len(set(ids)) == len(ids)
    assert {b"images", b"overlaps", b"components"} < set(ids)
    assert json.loads(document.resources[0].params[1].value) == result.settings.determining()


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("table", list(TableName))
def test_the_same_result_is_the_same_bytes_without_dates_and_versions(form: str, table: str) -> None:
    once, again = written(make_result(), form, table), written(make_result(), form, table)
    assert once == again
    assert b"DATE" not in once
    assert b"Produced" not in once


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("table", list(TableName))
def test_a_result_without_overlaps_can_be_written(form: str, table: str) -> None:
    assert written(without_overlaps(make_result()), form, table)


@pytest.mark.parametrize("form", list(Format))
def test_any_file_name_can_be_written(form: str) -> None:
    assert written(make_result(HOSTILE, "b.fits", "c.fits", warnings=(HOSTILE,)), form)


def test_json_holds_names_as_they_are() -> None:
    result = make_result(HOSTILE, "b.fits", "c.fits")
    assert json.loads(result.to_json())["images"][0]["file"] == HOSTILE


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0.fits", "'=cmd|' /C calc'!A0.fits"),
        ("+1.fits", "'+1.fits"),
        ("-1.fits", "'-1.fits"),
        ("@SUM(A1).fits", "'@SUM(A1).fits"),
        ("  =1.fits", "'  =1.fits"),
        ("\uff1d1.fits", "'\uff1d1.fits"),  # an equals sign of East Asian width
        ("\t=1.fits", "\\t=1.fits"),
        ("\x1b[31mred\r.fits", "\\x1b[31mred\\r.fits"),
        ("a=b-1.fits", "a=b-1.fits"),
    ],
)
def test_csv_cells_are_no_formula_and_move_no_cursor(text: str, cell: str) -> None:
    result = make_result(text, "b.fits", "c.fits")
    result = replace(result, infos=(make_info(text, unit=text), *result.infos[1:]))
    row = next(csv.DictReader(io.StringIO(written(result, "csv").decode(), newline="")))
    assert (row["file"], row["sky_unit"]) == (cell, cell)
    assert float(row["sky"]) == 10 + 1 / 3


def test_csv_numbers_below_zero_stay_numbers() -> None:
    result = make_result()
    result = replace(result, solution=replace(result.solution, sky=np.array([-1.5, 0.0, np.nan])))
    assert next(csv.DictReader(io.StringIO(written(result, "csv").decode())))["sky"] == "-1.5"


def test_formats_that_cannot_hold_a_name_hold_escapes() -> None:
    result = make_result(HOSTILE, "b.fits", "c.fits")
    with fits.open(io.BytesIO(written(result, "fits"))) as hdus:
        assert hdus["IMAGES"].data["file"][0] == ascii_only(HOSTILE)
    read = votable.parse_single_table(io.BytesIO(written(result, "vot"))).to_table()
    assert read["file"][0] == printable(HOSTILE)


@given(st.text())
def test_printable_text_is_one_line_that_moves_nothing(text: str) -> None:
    assert printable(text).isprintable()
    assert ascii_only(text).isascii()
    if text.isprintable():
        assert printable(text) == text


def test_the_plain_table_has_the_digits_of_the_error_and_all_columns() -> None:
    lines = text_lines(make_result().report, "images")
    assert lines[0].split() == list(make_result().report.images.names)
    assert lines[1].split() == [
        "a.fits",
        "PRIMARY",
        "1",
        "a.fits",
        "0",
        "10.3333",
        "0.0062",
        "0.0060",
        "adu",
        "200",
        "ok",
    ]
    assert lines[3].split()[5:] == ["nan", "nan", "nan", "adu", "0", "all_masked"]


def test_the_plain_table_names_the_images_of_an_overlap() -> None:
    line = text_lines(make_result().report, "overlaps")[1].split()
    assert line == [
        "a.fits",
        "b.fits",
        "2.5",
        "adu",
        "110.333",
        "100.000",
        "150",
        "149",
        "10.333",
        "0.012",
        "0.000",
        "ok",
    ]


def test_the_plain_table_is_aligned_and_never_cut() -> None:
    name = "d" * 300 + ".fits"
    lines = text_lines(make_result(name, "b.fits", "c.fits").report, "images")
    assert lines[1].startswith(name)
    assert len({line.index("  adu") for line in lines[1:]}) == 1


def test_the_plain_table_shows_names_harmless() -> None:
    text = "\n".join(text_lines(make_result(HOSTILE, "b.fits", "c.fits").report, "images"))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4
    assert "\\x1b[31mred\\n[bold]" in text


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1234.5678, 0.123, "1234.57"),
        (1234.5678, 12.3, "1235"),
        (123456.0, 2000.0, "123456"),
        (-0.0001, 0.5, "0.00"),
        (1.5e-18, 2e-20, "1.500e-18"),
        (3.25, np.nan, "3.25"),
        (3.25, 0.0, "3.25"),
    ],
)
def test_a_number_has_two_digits_of_its_error(value: float, error: float, shown: str) -> None:
    assert number_format(np.array([value]), np.array([error]))(value) == shown


def test_the_summary_counts() -> None:
    assert summary(make_result().report) == "3 images, 1 overlap, 2 components, 1 without a sky"
    assert summary(make_result(warnings=("w",)).report).endswith(", 1 warning")


def test_the_summary_counts_the_warnings_that_are_told() -> None:
    report = make_result(warnings=("w",)).report
    told, unseen = SkyWarning(WarningName.STEP, "s", 1.0), SkyWarning(WarningName.STEP, "s", 0.1, visible=False)
    possible = SkyWarning(WarningName.BRIGHT_SCENE, "b", 1.0)
    assert "warning" not in summary(replace(report, warnings=(unseen, possible)))
    assert summary(replace(report, warnings=(unseen, told, possible))).endswith(", 1 warning")
