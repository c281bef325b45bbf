"""Settings as a file, citations, completion: what the shell asks of the program besides its work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skymatch_cli.cli import cite
from skymatch_cli.cli.config import _toml
from skymatch_cli.output.destination import Output
from skymatch_cli.settings import Settings, field_types, read_config
from skymatch_cli.version import __version__

from .commands import run
from .factories import row, write_all

KNOWN = field_types(Settings) | field_types(Output)


def read_back(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "skymatch.toml"
    file.write_text(text, encoding="utf-8")
    return read_config(str(file), KNOWN)


def test_the_dump_of_the_defaults_is_every_default_that_has_a_value(tmp_path):
    values = read_back(tmp_path, run("config", "--dump").stdout)
    defaults = asdict(Settings()) | asdict(Output())
    assert values == {name: value for name, value in defaults.items() if value is not None}


def test_what_was_dumped_is_read_back_as_the_same_settings(tmp_path):
    options = ["--skystat", "mode", "--lower", "-1e-7", "--mask", 'm "q" \\ {stem}.fits', "--subtract", "--nclip", "3"]
    first = run("config", "--dump", *options).stdout
    (tmp_path / "s.toml").write_text(first)
    assert run("config", "--dump", "--config", str(tmp_path / "s.toml")).stdout == first
    values = read_back(tmp_path, first)
    assert (values["mask"], values["lower"], values["subtract"]) == ('m "q" \\ {stem}.fits', -1e-7, True)


def test_without_dump_only_what_differs_is_printed():
    assert run("config").stdout == ""
    assert run("config", "--skystat", "median", "--usigma", "3").stdout == 'compare = "pooled"\nusigma = 3.0\n'
    assert run("config", "--lower", "3").stdout == "lower = 3.0\n"


def test_settings_that_contradict_each_other_are_refused():
    done = run("config", "--dump", "--match-up", "--method", "localmin")
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_name_that_toml_cannot_hold_is_refused():
    assert run("config", "--dump", "--mask", "m\udcff.fits").exit_code == 2


@given(st.text())
def test_any_text_survives(text):
    import tomllib

    assert tomllib.loads(f"x = {_toml('mask', text)}")["x"] == text


def test_cite_names_the_running_version():
    assert f"(version {__version__})" in run("cite").stdout
    bibtex = run("cite", "--bibtex").stdout
    assert bibtex.startswith("@software{skymatch,")
    assert bibtex.count("{") == bibtex.count("}")
    assert f"version = {{{__version__}}}" in bibtex


def test_the_citation_file_says_the_same():
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    for line in (f'title: "{cite.TITLE}"', f'name: "{cite.AUTHOR}"', f"version: {__version__}"):
        assert line in text
    assert re.search(rf"^date-released: {cite.YEAR}-", text, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_to_be_had_for(shell):
    program = Path(sys.executable).parent / "skymatch"
    environment = {**os.environ, "_SKYMATCH_COMPLETE": f"{shell}_source"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    if shell == "bash" and done.returncode and "version" in done.stderr.lower():
        pytest.skip("bash is absent or too old")
    assert "_SKYMATCH_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "candidates"),
    [("skymatch ma", "match"), ("skymatch match --skyst", "--skystat"), ("skymatch match --skystat mo", "mode")],
)
def test_completion_knows_commands_options_and_words(words, candidates):
    program = Path(sys.executable).parent / "skymatch"
    environment = {
        **os.environ,
        "_SKYMATCH_COMPLETE": "zsh_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert candidates in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "kind"),
    [("match fr", "file"), ("match --report r", "file"), ("match --output-dir d", "dir"), ("export so", "file")],
)
def test_the_shell_is_asked_for_names_of_files(words, kind):
    program = Path(sys.executable).parent / "skymatch"
    words = f"skymatch {words}"
    environment = {
        **os.environ,
        "_SKYMATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split(",")[0] == kind


CONFIGS = {
    "plane": 'compare = "mesh"\nmodel = "plane"\n',
    "cross-check": "cross-check = true\nrobust = true\n",
    "user": 'method = "user"\n',
    "reference": 'reference = "img_0.fits"\n',
    "highest": "match-up = true\n",
    "localmin": 'method = "localmin"\nskystat = "mode"\n',
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_undo_and_plan_take_the_configuration_of_any_match(tmp_path, config):
    files = write_all(tmp_path, row([100.0, 130.0]))
    before = [Path(file).read_bytes() for file in files]
    (tmp_path / "s.toml").write_text(config)
    configured = ["--config", str(tmp_path / "s.toml")]
    assert run("match", *files).exit_code == 0
    assert run("plan", *configured, *files).exit_code == 0
    done = run("undo", *configured, *files)
    assert (done.exit_code, done.stderr.count("error")) == (0, 0)
    assert [Path(file).read_bytes() for file in files] == before


def test_a_configuration_is_checked_by_commands_that_ignore_it_too(tmp_path):
    (tmp_path / "s.toml").write_text("model = 3\n")
    done = run("undo", "--config", str(tmp_path / "s.toml"), "a.fits")
    assert done.exit_code == 2
    assert "model" in done.stderr


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_one_line(option):
    assert run(option).stdout == f"skymatch {__version__}\n"
