"""Settings: what is refused, and how files of settings are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skymatch_cli.choices import METHOD_ALIASES, Method
from skymatch_cli.errors import UsageError
from skymatch_cli.settings import Settings, field_types, read_config


def refused(**values: Any) -> str:
    with pytest.raises(UsageError) as caught:
        Settings(**values)
    assert caught.value.hint
    return " ".join(caught.value.lines())


@pytest.mark.parametrize(("alias", "method"), METHOD_ALIASES.items())
def test_an_alias_is_the_method_it_stands_for(alias: str, method: Method) -> None:
    assert Settings(method=alias) == Settings(method=method)
    assert Settings(method=alias).method == str(method)


@pytest.mark.parametrize("name", ["method", "compare", "model", "skystat", "units"])
def test_an_unknown_word_is_refused_by_the_name_of_its_option(name: str) -> None:
    assert f"--{name}: there is no 'nonsense'" in refused(**{name: "nonsense"})


def test_a_misspelt_word_gets_the_nearest_one() -> None:
    assert "did you mean 'median'?" in refused(skystat="medain")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nclip", -1),
        ("jobs", -2),
        ("lsigma", 0.0),
        ("usigma", -4.0),
        ("binwidth", 0.0),
        ("max_residual", 0.0),
        ("lower", float("nan")),
        ("upper", float("inf")),
        ("nclip", 2.5),
        ("nclip", True),
        ("lower", "3"),
        ("subtract", 1),
        ("mask", ""),
        ("dq_ext", None),
        ("sky_keyword", "TOO_LONG_FOR_FITS"),
        ("sky_keyword", "BKGSUB"),
        ("sky_keyword", "NAXIS1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_option(name: str, value: Any) -> None:
    assert "--" + name.replace("_", "-") in refused(**{name: value})


def test_bounds_that_let_nothing_through_are_refused() -> None:
    assert "--lower 5 is above --upper 4" in refused(lower=5, upper=4)
    assert Settings(lower=4, upper=4).lower == 4.0  # both are inclusive


@pytest.mark.parametrize(
    "values",
    [
        {"reference": "a.fits", "method": "localmin"},
        {"reference": "a.fits", "method": "globalmin+match"},
        {"reference": "a.fits", "match_up": True},
        {"match_up": True, "method": "localmin"},
        {"robust": True, "method": "localmin"},
        {"method": "user"},
        {"skylist": "skies.txt"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, Any]) -> None:
    refused(**values)


def test_a_dry_run_may_be_asked_of_any_command_line() -> None:
    assert Settings(dry_run=True, subtract=True, output_dir="out").dry_run


def test_numbers_and_paths_of_any_kind_are_taken() -> None:
    settings = Settings(nclip=np.int64(3), lower=np.float32(2), upper=7, mask=Path("m.fits"), dqbits=16)
    assert (settings.nclip, settings.lower, settings.upper) == (3, 2.0, 7.0)
    assert (settings.mask, settings.dqbits) == ("m.fits", "16")
    assert isinstance(settings.upper, float)


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError) as caught:
        Settings.of({"skystats": "mean"})
    assert caught.value.lines() == ("unknown setting 'skystats' (did you mean 'skystat'?)",)


def test_a_keyword_is_upper_case() -> None:
    assert Settings(sky_keyword="mdrizsky").sky_keyword == "MDRIZSKY"


def test_what_determines_the_result_leaves_out_how_the_run_is_carried_out() -> None:
    determining = Settings(jobs=3).determining()
    assert determining == Settings(jobs=1, dry_run=True, subtract=True, strict=True).determining()
    assert {"method", "nclip", "lower", "group_by", "skip_bad"} <= set(determining)


def test_the_statistic_carries_its_settings() -> None:
    statistic = Settings(skystat="mode", nclip=2, lower=1, binwidth=0.2).statistic
    assert (statistic.skystat, statistic.nclip, statistic.lower, statistic.binwidth) == ("mode", 2, 1.0, 0.2)


def test_settings_never_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().nclip = 3  # type: ignore[misc]


def config(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "skymatch.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(str(path), field_types(Settings))


def test_a_file_gives_settings_by_the_names_of_options_or_fields(tmp_path: Path) -> None:
    values = config(tmp_path, 'method = "local"\nmatch-up = false\ndq_ext = "FLAGS"\nlower = 3\n')
    assert values == {"method": "local", "match_up": False, "dq_ext": "FLAGS", "lower": 3.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nclipp = 3", "unknown key 'nclipp' (did you mean 'nclip'?)"),
        ("[match]\nnclip = 3", "unknown key 'match'"),
        ('nclip = "3"', "key 'nclip': --nclip: '3' is not a whole number"),
        ("nclip = 1.5", "key 'nclip'"),
        ("subtract = 1", "key 'subtract': --subtract: 1 is not true or false"),
        ("lower = nan", "key 'lower'"),
        ("mask = 3", "key 'mask'"),
        ("dq-ext = 'A'\ndq_ext = 'B'", "'dq_ext' is given twice"),
        ("nclip 3", "this is not TOML"),
    ],
)
def test_a_bad_file_is_refused_with_file_key_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        config(tmp_path, text)
    (line,) = caught.value.lines()
    assert "skymatch.toml" in line
    assert said in line


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_config(str(tmp_path / "none.toml"), field_types(Settings))


def test_cells_have_a_largest_size():
    with pytest.raises(UsageError, match="pixels is too large"):
        Settings.of({"mesh_size": 1e9})
    assert Settings.of({"mesh_size": 1000}).mesh_size == 1000


@pytest.mark.parametrize(
    ("given", "compare"),
    [
        ({}, "mesh"),
        ({"lower": 0.0}, "mesh"),
        ({"skystat": "median"}, "pooled"),
        ({"nclip": 3}, "pooled"),
        ({"lsigma": 3.0, "method": "globalmin+match"}, "pooled"),
        ({"skystat": "mean", "method": "localmin"}, "mesh"),
        ({"skystat": "mean", "compare": "mesh"}, "mesh"),
        ({"compare": "pooled"}, "pooled"),
    ],
)
def test_overlaps_are_compared_by_mesh_unless_a_statistic_of_them_is_asked_for(given, compare):
    assert Settings.of(given).compare == compare
