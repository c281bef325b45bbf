"""Names and header strings that would act on a terminal, a page or a log: shown harmless wherever they come up."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from .commands import run
from .factories import Frame, write

NAMES = (
    "\x1b[31mred\x1b[0m.fits",
    "\x1b]0;title\x07.fits",
    "two\nlines.fits",
    "back\rover.fits",
    "[bold red]markup[/bold red].fits",
    "[link=file:x]y[/link] <script>alert(1)</script> &amp; 'q' \"q\".fits",
    "\u202etxt.stif.fits",
    "\x9b2J\u2028.fits",
    "bytes\udcff.fits",  # a name that is no UTF-8, as the system gives it
)
# What a terminal acts on: control characters but for the newline, those that turn the direction, line separators.
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(params=range(len(NAMES)))
def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    frame = Frame(noise=1.0)
    write(Path("good.fits"), frame)
    write(Path(NAMES[request.param].replace("/", "|")), frame.but(x=25.0, sky=110.0))
    return NAMES[request.param].replace("/", "|"), "good.fits"


def test_table_and_messages(pair: tuple[str, str]) -> None:
    for table in ("images", "overlaps", "components"):
        done = run("match", "--dry-run", "-v", "--table", table, *pair)
        assert done.exit_code == 0, done.stderr
        assert not HARMFUL.search(done.stdout + done.stderr)
        rows = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
        assert len(rows) == {"images": 3, "overlaps": 2, "components": 2}[table]  # a newline makes no row


def test_plan_and_undo(pair: tuple[str, str]) -> None:
    for args in (["plan"], ["match", "-v"], ["undo", "-v"]):
        done = run(*args, *pair)
        assert done.exit_code == 0, done.stderr
        assert not HARMFUL.search(done.stdout + done.stderr)


def test_log_file(pair: tuple[str, str], tmp_path: Path) -> None:
    assert run("match", "--dry-run", "-q", "--log-file", "run.log", *pair).exit_code == 0
    lines = (tmp_path / "run.log").read_text("utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in lines)  # no name begins a line of its own
    assert not HARMFUL.search("\n".join(lines))


def test_json_holds_the_name_and_no_control_character(pair: tuple[str, str]) -> None:
    done = run("match", "--dry-run", "--format", "json", *pair)
    assert not HARMFUL.search(done.stdout)
    assert json.loads(done.stdout)["images"][0]["file"] == pair[0]


@pytest.mark.parametrize("form", ["ecsv", "vot", "fits"])
def test_files_are_valid_whatever_the_name(pair: tuple[str, str], form: str) -> None:
    from astropy.table import Table

    assert run("match", "--dry-run", "-o", f"out.{form}", *pair).exit_code == 0
    if form == "fits":
        with fits.open("out.fits") as hdus:
            hdus.verify("exception")
    else:
        table = Table.read(f"out.{form}", format={"ecsv": "ascii.ecsv", "vot": "votable"}[form], **_first(form))
        assert len(table) == 2


def _first(form: str) -> dict[str, Any]:
    return {"table_id": "images"} if form == "vot" else {}


def test_report(pair: tuple[str, str]) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("PIL")
    done = run("match", "--dry-run", "--report", "page.html", *pair)
    assert done.exit_code == 0, done.stderr
    page = Path("page.html").read_text("utf-8")
    assert "<script>alert(1)" not in page
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", page)


@pytest.mark.parametrize("to", ["swarp", "regions", "topcat"])
def test_what_other_programs_get(pair: tuple[str, str], to: str) -> None:
    """A newline in a name begins no line of its own: the two values of SWarp stay the only ones."""
    assert run("match", "--dry-run", "-o", "result.json", *pair).exit_code == 0
    done = run("export", "result.json", "--to", to)
    assert done.exit_code == 0, done.stderr
    assert not HARMFUL.search(done.stdout)
    if to == "swarp":
        assert [line[0] == "#" for line in done.stdout.splitlines()] == [False, False, True, True, True]


def test_an_error_names_the_file_harmlessly(pair: tuple[str, str]) -> None:
    os.truncate(pair[0], 3000)
    done = run("match", "--log-file", "run.log", *pair)
    assert done.exit_code == 3
    assert not HARMFUL.search(done.stderr + Path("run.log").read_text("utf-8"))
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not hasattr(pty, "openpty"), reason="needs a pseudo-terminal")
def test_on_a_terminal(tmp_path: Path) -> None:
    """All names at once; colours are our own, and nothing else that begins with an escape comes through."""
    frame = Frame(noise=1.0)
    names = [name.replace("/", "|") for name in NAMES]
    for k, name in enumerate(names):
        write(tmp_path / name, frame.but(x=5.0 * k, seed=k))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "skymatch_cli", "match", "--dry-run", *names]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, cwd=tmp_path, env=environment, close_fds=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert process.wait() == 0, shown
    text = re.sub(r"\x1b\[(\d+(;\d+)*)?[mKA]|\x1b\[\?25[lh]|\r", "", shown.decode("utf-8"))
    assert not HARMFUL.search(text), HARMFUL.search(text)
    assert "\x1b[31mred" not in shown.decode("utf-8")
    assert "[bold red]" in text


HEADER = {
    "BUNIT": "\x1b[2J",
    "FILTER": "[red]r[/red]",
    "EXPNAME": "<b>x</b>",
    "TELESCOP": "\x1b]0;t\x07",
}


def with_strings(path: Path, frame: Frame) -> str:
    """A file whose header has strings that astropy would not write."""
    write(path, frame.but(header={"EXPTIME": 1.0} | {key: "#" * len(value) for key, value in HEADER.items()}))
    raw = path.read_bytes()
    for key, value in HEADER.items():
        old = f"{key:8}= '{'#' * len(value)}".encode()
        assert old in raw
        raw = raw.replace(old, f"{key:8}= '{value}".encode("latin-1"))
    path.write_bytes(raw)
    return str(path)


@pytest.mark.parametrize("group_by", ["file", "EXPNAME", "FILTER", "TELESCOP"])
def test_strings_of_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_by: str) -> None:
    monkeypatch.chdir(tmp_path)
    frame = Frame(noise=1.0)
    names = [
        with_strings(Path("a.fits"), frame),
        write(
            Path("b.fits"),
            frame.but(x=20.0, header={"EXPTIME": 2.0, "BUNIT": "", "FILTER": "g", "EXPNAME": "y", "TELESCOP": "z"}),
        ),
    ]
    as_is = ["--units", "as-is", "--group-by", group_by]
    done = run("match", "--dry-run", "-v", *as_is, "--log-file", "run.log", *names)
    assert done.exit_code == 0, done.stderr
    assert not HARMFUL.search(done.stdout + done.stderr + Path("run.log").read_text("utf-8"))
    done = run("match", "--dry-run", *as_is, "--format", "json", *names)
    assert done.exit_code == 0
    assert not HARMFUL.search(done.stdout + done.stderr)
    pytest.importorskip("jinja2")
    pytest.importorskip("PIL")
    assert run("match", "--dry-run", *as_is, "--report", "page.html", *names).exit_code == 0
    page = Path("page.html").read_text("utf-8")
    assert "<b>x</b>" not in page
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", page)


@pytest.mark.parametrize("text", ["M\xfcller", "M\xc3\xbcller", "\x1b[31mred", "tab\t", "nul\x00"])
@pytest.mark.parametrize("args", [[], ["--subtract"]])
def test_strings_in_other_alphabets_are_left_alone(tmp_path: Path, text: str, args: list[str]) -> None:
    """FITS has no place for them, and files have them all the same: read, and byte for byte there afterwards."""
    names, before = [], []
    for k in range(2):
        frame = Frame(x=20.0 * k, noise=1.0, seed=k, dtype="i2", header={"OBSERVER": "#" * len(text), "BUNIT": "adu"})
        names.append(write(tmp_path / f"{k}.fits", frame))
        raw = Path(names[k]).read_bytes().replace(b"#" * len(text), text.encode("latin-1"))
        Path(names[k]).write_bytes(raw)
        before.append(raw)
    assert run("match", *args, *names).exit_code == 0
    assert all(text.encode("latin-1") in Path(name).read_bytes() for name in names)
    assert run("undo", *names).exit_code == 0
    assert [Path(name).read_bytes() for name in names] == before
