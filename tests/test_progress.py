"""How far a run is: bars on a terminal and nowhere else; seconds of the stages and the worst overlaps with -v."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from skymatch_cli import pipeline
from skymatch_cli.cli import main, progress
from skymatch_cli.cli.bars import Bars
from skymatch_cli.cli.terminal import overlap_lines, print_overlaps
from skymatch_cli.settings import Settings

from .factories import row, write_all
from .results import make_result


class Recorder:
    """Notes what a run says about itself."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int]] = {}

    def stage(self, name: str, total: int) -> None:
        done = self.stages.setdefault(name, [0, 0])
        done[0] = total or done[0]

    def advance(self, steps: int = 1) -> None:
        list(self.stages.values())[-1][1] += steps


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    return write_all(tmp_path, row([130.0, 100.0, 110.0], noise=1.0))


def on_a_terminal(*args: str, **env: str) -> str:
    """What a run writes to standard error, where that is a terminal; bars are drawn at once."""
    program = (
        "import skymatch_cli.cli.progress as p; p._PATIENCE_SECONDS = 0; from skymatch_cli.cli import main; main()"
    )
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *args], stdout=subprocess.DEVNULL, stderr=follower, env=environment
    )
    os.close(follower)
    written = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                written += os.read(leader, 65536)
            except OSError:  # the other side has been closed
                break
        elif process.poll() is not None:
            break
    os.close(leader)
    assert process.wait() == 0, written
    return written.decode()


def test_every_stage_is_announced_and_counted_to_its_end(three):
    watch = Recorder()
    pipeline.match(three, Settings(), progress=watch)
    assert {name: tuple(counts) for name, counts in watch.stages.items()} == {
        "headers": (3, 3),
        "geometry": (0, 0),
        "pixels": (3, 3),
        "solve": (0, 0),
        "output": (3, 3),
    }


def test_the_clock_adds_up_the_parts_of_a_stage(monkeypatch):
    clock = progress.Watch(SimpleNamespace(params={"quiet": True}))
    now = iter([0.0, 2.0, 2.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(progress, "perf_counter", lambda: next(now))
    for name in ("headers", "pixels", "headers"):
        clock.stage(name, 1)
    clock.stop()
    clock.stop()
    assert clock.seconds == {"headers": 3.0, "pixels": 3.0}
    assert clock.lines(6_000_000) == (
        "headers      3.000 s",
        "pixels       3.000 s       2.0 Mpixel/s",
        "total        6.000 s       1.0 Mpixel/s",
    )


def test_bars_show_the_stage_its_count_and_its_rate():
    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=100, color_system=None))
    bars.show("headers", 3, 3)
    bars.show("pixels", 30, 6)
    bars.close()
    last = [line for line in re.split(r"[\r\n]+", stream.getvalue()) if "pixels" in line][-1]
    assert "6/30" in last


def test_bars_have_no_thread_beside_which_nothing_may_be_forked():
    threads = threading.active_count()
    bars = Bars(Console(file=io.StringIO(), force_terminal=True))
    bars.show("headers", 3, 3)
    assert threading.active_count() == threads
    bars.close()


def test_progress_is_drawn_on_a_terminal_and_cleared(three):
    shown = on_a_terminal("match", "--dry-run", *three)
    for stage in ("headers", "geometry", "pixels"):
        assert stage in shown
    assert "3/3" in shown
    assert shown.rstrip().endswith("dry run: no image was changed")


@pytest.mark.parametrize(("args", "env"), [(("-q",), {}), ((), {"TERM": "dumb"})])
def test_no_bar_where_it_is_not_wanted(three, args, env):
    assert "3/3" not in on_a_terminal("match", "--dry-run", *args, *three, **env)


def test_messages_are_wrapped_with_an_indent_and_the_word_of_a_warning_is_coloured(three, tmp_path):
    (tmp_path / "a_web_page_instead_of_an_image.fits").write_text("<html>")
    said = on_a_terminal(
        "match", "--dry-run", "--skip-bad", *three, str(tmp_path / "a_web_page_instead_of_an_image.fits"), COLUMNS="80"
    )
    lines = said[said.rindex("skymatch: steps") :].replace("\r", "").splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert all(line.startswith(("skymatch: ", "    ")) for line in plain)
    assert max(len(line) for line in plain if " " in line.strip()) <= 80
    (warning,) = [line for line in lines if "warning" in line]
    assert warning.startswith("skymatch: \x1b[33m\x1b[1mwarning:\x1b[0m skipped:")
    assert "    usual cause: " in "\n".join(plain)


def test_no_color_is_honoured(three):
    colour = re.compile(r"\x1b\[[0-9;]*3\dm|\x1b\[38;")
    assert colour.search(on_a_terminal("match", "--dry-run", *three))
    assert not colour.search(on_a_terminal("match", "--dry-run", *three, NO_COLOR="1"))


def test_nothing_is_drawn_where_standard_error_is_a_file(three):
    done = CliRunner().invoke(main, ["match", "--dry-run", *three])
    said = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert said == ["steps between overlapping images", "dry run"]


def test_a_short_run_draws_nothing(monkeypatch):
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setenv("TERM", "xterm")
    watch = progress.Watch(SimpleNamespace(params={"quiet": False}))
    with watch.shown():
        watch.stage("headers", 1)
        watch.advance()
        assert watch._bars is None


def test_verbose_says_seconds_of_the_stages_and_pixels_per_second(three):
    shown = CliRunner().invoke(main, ["match", "-v", *three]).stderr
    for stage in ("headers", "geometry", "pixels", "solve", "output", "total"):
        assert re.search(rf"^skymatch: {stage} +\d+\.\d{{3}} s", shown, re.MULTILINE)
    assert re.search(r"pixels .* Mpixel/s", shown)


def test_verbose_shows_the_overlaps_on_standard_error_and_in_the_log(three, tmp_path):
    log = tmp_path / "log.txt"
    shown = CliRunner().invoke(main, ["match", "--dry-run", "-v", "--log-file", str(log), *three])
    assert "residual / error of 2 overlaps" in shown.stderr
    assert "residual / error" not in shown.stdout
    assert "residual / error of 2 overlaps" in log.read_text()


def test_the_overlap_that_agrees_least_comes_first():
    result = make_result("a.fits", "b\x1b[31m.fits", "c.fits")
    result = replace(result, solution=replace(result.solution, residual=np.array([0.123])))
    line, *table = overlap_lines(result.report)
    assert line == "residual / error of 1 overlap: median 10.00, largest 10.00; above 3: 1"
    assert table[-1].split()[-4:-1] == ["0.123", "0.012", "10.00"]
    assert "\x1b" not in "".join(table)


def test_without_a_residual_there_is_no_table():
    result = make_result()
    result = replace(result, solution=replace(result.solution, residual=np.array([np.nan])))
    assert overlap_lines(result.report) == ("no overlap has a residual",)


def test_large_residuals_are_coloured_on_a_terminal():
    result = make_result()
    result = replace(result, solution=replace(result.solution, residual=np.array([0.123])))
    stream = io.StringIO()
    print_overlaps(result.report, Console(file=stream, force_terminal=True, color_system="standard", width=80))
    assert "\x1b[31m" in stream.getvalue()


def test_bars_need_no_thread():
    """Beside one, no worker process could be forked."""
    before = threading.active_count()  # pytest-xdist has its own
    bars = Bars(Console(file=io.StringIO(), force_terminal=True))
    bars.show("pixels", 10, 3)
    assert threading.active_count() == before
    bars.close()
