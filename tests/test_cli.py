"""What a user at a shell sees: options, streams, exit codes. The pipeline behind it is a stand-in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import skymatch_cli
import skymatch_cli.store.store  # before the pipeline is replaced, parts of which it needs
from skymatch_cli.cli import COMMANDS, main
from skymatch_cli.cli.sections import SectionOption
from skymatch_cli.errors import InputError, NoOverlapError, Problem, StrictError
from skymatch_cli.model import OverlapGraph
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.record.write import Action, WriteReport
from skymatch_cli.settings import Settings

from .commands import run
from .factories import row, write_all
from .results import make_result


class Pipeline:
    """Stands in for the pipeline; remembers what it was asked."""

    def __init__(self) -> None:
        self.images: tuple[str, ...] = ()
        self.settings = Settings()
        self.names: list[str] = []
        self.stdin: Any = None
        self.warnings: tuple[str, ...] = ()
        self.error: BaseException | None = None
        self.applied = False

    def evaluate(self, images: tuple[str, ...], settings: Settings, *, stdin: Any = None, **_: Any) -> Any:
        self.images, self.settings, self.stdin = images, settings, stdin
        if self.error is not None:
            raise self.error
        return make_result(*self.names, settings=settings, warnings=self.warnings)

    def check_strict(self, result: Any) -> None:
        if result.settings.strict and result.warnings:
            raise StrictError("1 warning with --strict", "no image was written")

    def apply(self, result: Any, **_: Any) -> WriteReport:
        self.applied = True
        return WriteReport((Action.RECORDED, Action.RECORDED, Action.NO_SKY), ("a.fits", "b.fits"))


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    fake = Pipeline()
    monkeypatch.setitem(sys.modules, "skymatch_cli.pipeline", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(skymatch_cli, "pipeline", fake, raising=False)
    return fake


def python(*args: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, **extra)


def all_commands() -> list[click.Command]:
    context = click.Context(main)
    return [main, *(main.get_command(context, name) for name in COMMANDS)]  # type: ignore[list-item]


# help


@pytest.mark.parametrize("args", [["--help"], ["match", "--help"], ["plan", "-h"], ["undo", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys, skymatch_cli.cli as cli\n"
        f"try: cli.main({args!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'astropy', 'numpy', 'scipy', 'shapely', 'pyproj', 'rich', 'logging', 'pathlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: command.name)
def test_every_option_has_help(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert isinstance(parameter, SectionOption) or command is main
    shown = run(*([] if command is main else [str(command.name)]), "--help").stdout
    assert all(option in shown for parameter in command.params for option in parameter.opts if option.startswith("--"))


@pytest.mark.parametrize("command", all_commands()[1:], ids=lambda command: command.name)
def test_the_list_of_commands_says_what_each_does(command: click.Command) -> None:
    assert command.help is not None
    assert command.help.splitlines()[0] == COMMANDS[str(command.name)]
    assert COMMANDS[str(command.name)] in run("--help").stdout


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_fits_a_terminal_of_80_columns_and_breaks_no_option(words: list[str], option: str) -> None:
    lines = CliRunner().invoke(main, [*words, option], terminal_width=80).output.splitlines()
    assert [line for line in lines if len(line) > 80 or re.search(r"--[a-z-]+-$", line)] == []


def test_every_setting_is_an_option_of_match() -> None:
    (match,) = (command for command in all_commands() if command.name == "match")
    assert set(Settings.__dataclass_fields__) <= {parameter.name for parameter in match.params}


def test_defaults_are_shown() -> None:
    shown = " ".join(run("match", "--help").stdout.split())
    for text in ("[default: match]", "[default: median]", "[default: 5]", "[default: 4.0]", "[default: BKGLEVEL]"):
        assert text in shown


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_run_goes_well_with_closed_streams(closed: str, tmp_path: Path) -> None:
    files = " ".join(write_all(tmp_path, row([130.0, 100.0])))
    for words in ("--version", f"match --dry-run {files}"):
        command = f"{sys.executable} -m skymatch_cli {words} {closed}"
        assert subprocess.run(["sh", "-c", command], check=False).returncode == 0


def test_the_version_is_shown() -> None:
    assert run("--version").stdout == f"skymatch {skymatch_cli.__version__}\n"


def test_the_package_runs_as_a_module() -> None:
    assert python("-m", "skymatch_cli", "--version").stdout == f"skymatch {skymatch_cli.__version__}\n"


# streams


def test_standard_output_holds_the_table_and_nothing_else(pipeline: Pipeline) -> None:
    pipeline.warnings = ("c.fits overlaps nothing",)
    done = run("match", "a.fits", "b.fits", "c.fits", "-vv")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["file", "a.fits", "b.fits", "c.fits"]
    assert "skymatch: warning: c.fits overlaps nothing" in done.stderr
    assert "recorded BKGLEVEL in 2 images (pixels unchanged), left 1 without a sky as it was" in done.stderr
    assert pipeline.images == ("a.fits", "b.fits", "c.fits")


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["match", "--store", "", "a.fits"], "--store"),
        (["match", "-o", "", "a.fits"], "--output"),
        (["match", "--config", "", "a.fits"], "--config"),
        (["match", "--output-dir", "", "a.fits"], "--output-dir"),
        (["measure", ""], "STORE"),
        (["merge", "field.db", ""], "PARTS..."),
        (["demo", ""], "DIR"),
    ],
)
def test_an_empty_name_is_refused(args: list[str], name: str, pipeline: Pipeline) -> None:
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 2
    assert done.stderr == f"skymatch: error: {name} is empty (give a name, or leave it out)\n"
    assert not pipeline.images


def test_quiet_leaves_standard_error_empty(pipeline: Pipeline) -> None:
    pipeline.warnings = ("something",)
    done = run("match", "a.fits", "-q")
    assert done.stderr == ""
    assert done.stdout


def test_with_an_output_file_standard_output_stays_empty(pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "sky.json"
    done = run("match", "a.fits", "-o", str(file), "-v")
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(file.read_text())["schema"] == 2


@pytest.mark.parametrize("table", ["images", "overlaps", "components"])
def test_any_table_can_be_shown(pipeline: Pipeline, table: str) -> None:
    done = run("match", "a.fits", "--format", "csv", "--table", table)
    names = getattr(make_result().report, table).names
    assert done.stdout.splitlines()[0] == ",".join(names)


def test_a_binary_format_goes_to_a_pipe(pipeline: Pipeline) -> None:
    assert run("match", "a.fits", "--format", "fits").stdout_bytes.startswith(b"SIMPLE")


def test_names_are_shown_harmless(pipeline: Pipeline) -> None:
    pipeline.names = ["[red]\x1b[2J\n.fits", "b.fits", "c.fits"]
    pipeline.warnings = ("\x1b]0;title\x07",)
    done = run("match", "a.fits")
    assert "\x1b" not in done.output
    assert "[red]\\x1b[2J\\n.fits" in done.stdout
    assert "skymatch: warning: \\x1b]0;title\\x07" in done.stderr


def test_the_log_goes_to_a_file_too(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.warnings = ("c.fits overlaps nothing",)
    pipeline.error = None
    log = tmp_path / "run.log"
    assert run("match", "a.fits", "-q", "--log-file", str(log)).exit_code == 0
    pipeline.error = NoOverlapError("no pair of images overlaps")
    assert run("match", "a.fits", "--log-file", str(log)).exit_code == 4
    text = log.read_text()
    assert "WARNING c.fits overlaps nothing" in text
    assert "ERROR no pair of images overlaps" in text


def test_a_log_never_goes_into_an_image(pipeline: Pipeline, tmp_path: Path) -> None:
    image = tmp_path / "a.fits"
    done = run("match", "--log-file", str(image), "b.fits")
    assert done.exit_code == 2
    assert not image.exists()


# what is done


def test_the_images_are_written_unless_it_is_a_dry_run(pipeline: Pipeline) -> None:
    run("match", "a.fits", "--dry-run")
    assert not pipeline.applied
    run("match", "a.fits")
    assert pipeline.applied


def test_strict_shows_the_result_and_writes_no_image(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.warnings = ("c.fits overlaps nothing",)
    done = run("match", "a.fits", "--strict")
    assert done.exit_code == 5
    assert done.stdout.startswith("file")
    assert "no image was written" in done.stderr
    assert run("match", "a.fits", "--strict", "-o", str(tmp_path / "sky.csv")).exit_code == 5
    assert (tmp_path / "sky.csv").exists()
    assert not pipeline.applied


def test_strict_without_warnings_is_like_any_run(pipeline: Pipeline) -> None:
    assert run("match", "a.fits", "--strict").exit_code == 0
    assert pipeline.applied


def test_options_become_settings(pipeline: Pipeline) -> None:
    run(
        *(
            "match",
            "a.fits",
            "--method",
            "global+match",
            "--lower",
            "-5",
            "--nclip",
            "0",
            "--dqbits",
            "~4",
            "--subtract",
        ),
        *("--group-by", "EXPNAME", "--max-residual", "5", "--skip-bad", "--jobs", "3", "--sky-keyword", "MDRIZSKY"),
    )
    assert pipeline.settings == Settings(
        method="globalmin+match",
        lower=-5,
        nclip=0,
        dqbits="~4",
        subtract=True,
        group_by="EXPNAME",
        max_residual=5,
        skip_bad=True,
        jobs=3,
        sky_keyword="MDRIZSKY",
    )


def test_options_win_over_the_file_and_the_file_over_defaults(pipeline: Pipeline, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('nclip = 2\nskystat = "mode"\nformat = "csv"\ndry-run = true\n')
    done = run("match", "a.fits", "--config", str(config), "--nclip", "5")
    assert (pipeline.settings.nclip, pipeline.settings.skystat, pipeline.settings.lsigma) == (5, "mode", 4.0)
    assert done.stdout.startswith("file,ext")
    assert not pipeline.applied


def test_names_may_come_from_standard_input(pipeline: Pipeline) -> None:
    CliRunner().invoke(main, ["match", "-"], input="a.fits\n")
    assert pipeline.images == ("-",)
    assert pipeline.stdin is not None


# errors


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["match"], "Missing argument"),
        (["match", "a.fits", "--methd", "match"], "--method"),
        (["match", "a.fits", "--method", "nearest"], "'nearest' is not one of"),
        (["match", "a.fits", "--nclip", "x"], "'x' is not a valid integer"),
        (["match", "a.fits", "--nclip", "-1"], "--nclip: -1 is negative"),
        (["match", "a.fits", "--lower", "2", "--upper", "1"], "--lower 2 is above --upper 1"),
        (["match", "a.fits", "--reference", "a.fits", "--match-up"], "contradict"),
        (["match", "a.fits", "--method", "user"], "--skylist"),
        (["match", "a.fits", "-o", "sky.txt"], ".ecsv .csv .json .fits .vot"),
        (["match", "a.fits", "-o", "sky.csv", "--format", "json"], "contradicts"),
        (["match", "a.fits", "-o", "none/sky.csv"], "there is no directory none"),
        (["match", "a.fits", "--config", "none.toml"], "No such file"),
        (["match", "a.fits", "-v", "-q"], "contradict"),
        (["mtach", "a.fits"], "did you mean 'match'?"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(pipeline: Pipeline, args: list[str], said: str) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("skymatch: error: ")
    assert said in line
    assert pipeline.images == ()  # found before any image is looked at


def test_an_output_that_exists_is_refused_before_the_work(pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "sky.csv"
    file.write_text("precious")
    done = run("match", "a.fits", "-o", str(file))
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert pipeline.images == ()
    assert run("match", "a.fits", "-o", str(file), "--overwrite").exit_code == 0
    assert file.read_text() != "precious"


def test_an_output_that_is_an_input_is_refused_before_images_are_written(pipeline: Pipeline, tmp_path: Path) -> None:
    image = tmp_path / "a.fits"
    image.write_text("pixels")
    pipeline.names = [str(image), "b.fits", "c.fits"]
    done = run("match", str(image), "-o", str(image), "--overwrite")
    assert done.exit_code == 2
    assert image.read_text() == "pixels"
    assert not pipeline.applied


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (
            InputError([Problem("a.fits[SCI,1]", "no WCS", "solve it"), Problem("b.fits", "no such file")]),
            3,
            ["skymatch: error: a.fits[SCI,1]: no WCS (solve it)", "skymatch: error: b.fits: no such file"],
        ),
        (NoOverlapError("no pair of images overlaps"), 4, ["skymatch: error: no pair of images overlaps"]),
        (
            ValueError("odd\nvalue"),
            1,
            ["skymatch: error: unexpected ValueError: odd\\nvalue (run with -vv for the traceback)"],
        ),
        (KeyboardInterrupt(), 130, ["skymatch: interrupted"]),
    ],
)
def test_each_failure_has_its_exit_code(pipeline: Pipeline, error: BaseException, code: int, lines: list[str]) -> None:
    pipeline.error = error
    done = run("match", "a.fits")
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.strip().splitlines() == lines
    assert not pipeline.applied


def test_a_traceback_is_shown_to_those_who_ask(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.error = ValueError("odd")
    assert "Traceback" in run("match", "a.fits", "-vv").stderr
    assert "Traceback" not in run("match", "a.fits", "-v").stderr
    monkeypatch.setenv("SKYMATCH_DEBUG", "1")
    assert "Traceback" in run("match", "a.fits").stderr


# the other commands


def test_plan_shows_areas_overlaps_and_the_work(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from skymatch_cli.output import planned
    from skymatch_cli.store import planning

    infos = make_result().infos
    graph = OverlapGraph(
        n_images=3,
        a=np.array([0]),
        b=np.array([1]),
        area_arcmin2=np.array([2.5]),
        polygon=Polygons.joined([]),
        plane=np.array([0]),
        planes=(),
    )
    plan = SimpleNamespace(settings=Settings(), infos=infos, footprints=(1, 2, 3), graph=graph, skipped=(), warnings=())
    monkeypatch.setattr(planned, "footprint_arcmin2", lambda footprint: 10.0)
    monkeypatch.setattr(planning, "plan", lambda images, settings, **_: plan)
    document = json.loads(run("plan", "a.fits", "--format", "json").stdout)
    assert [image["component"] for image in document["images"]] == [0, 0, 1]
    assert [image["n_overlaps"] for image in document["images"]] == [1, 1, 0]
    assert document["overlaps"] == [{"a": 0, "b": 1, "area_arcmin2": 2.5, "n_a": 50, "n_b": 50}]  # 200 px on 10 arcmin²
    assert document["components"][0] == {
        "id": 0,
        "n_images": 2,
        "n_overlaps": 1,
        "n_pixels": 400,
        "n_overlap_pixels": 100,
    }
    grouped = replace(plan.infos[0], group="c.fits")
    plan.infos = (grouped, *infos[1:])
    assert [i["component"] for i in json.loads(run("plan", "a", "--format", "json").stdout)["images"]] == [0, 0, 0]
    assert run("plan", "a.fits").stdout.splitlines()[1].split()[-3:] == ["10", "1", "200"]


def test_undo_takes_back_what_was_recorded(tmp_path: Path) -> None:
    done = run("undo", str(tmp_path / "none.fits"))
    assert done.exit_code == 3
    assert "none.fits" in done.stderr


def test_demo_writes_a_mosaic_and_says_how_to_go_on(tmp_path: Path) -> None:
    done = run("demo", str(tmp_path / "a mosaic"))
    assert done.exit_code == 0
    assert f"skymatch match --dry-run '{tmp_path / 'a mosaic'}'/frame_*.fits" in done.output
    assert "all 11 overlaps agree within their errors" in done.output
    lines = done.stdout.splitlines()
    titles = re.split(r"  +", lines[0])
    sky, truth, off, err = (titles.index(name) for name in ("sky", "truth", "sky - truth", "sky_err"))
    rows = [re.split(r"  +", line) for line in lines[1:]]
    assert len(rows) == 6
    for cells in rows:
        assert float(cells[sky]) - float(cells[truth]) == pytest.approx(float(cells[off]), abs=0.02)
        assert abs(float(cells[off])) < 0.5
        assert float(cells[err]) < 0.5  # the floor is 0.1: a field without gradients, at one zero point
    assert "warning" not in done.stderr
    assert sum(float(cells[off]) for cells in rows) == pytest.approx(0, abs=0.04)  # one gauge for both
    assert "the skies differ from the truth by 0." in done.stderr
    assert (tmp_path / "a mosaic" / "truth.txt").exists()
    again = run("demo", str(tmp_path / "a mosaic"))
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_a_reader_that_stops_early_hears_no_complaint(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, skymatch_cli\n"
        "from tests.test_cli import Pipeline\n"
        "fake = Pipeline(); sys.modules['skymatch_cli.pipeline'] = skymatch_cli.pipeline = fake\n"
        "fake.names = ['a' * 100000, 'b', 'c']\n"
        "from skymatch_cli.cli import main\n"
        "main(['match', 'a.fits', '-q'])\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} {script} | head -c 10"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "file      ", "")
