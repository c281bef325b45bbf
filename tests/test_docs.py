"""The documentation says what the program does: every option, every status, no option that isn't there."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import skymatch_cli
from skymatch_cli.choices import ExportFormat, Format, Method, Skystat
from skymatch_cli.cli import COMMANDS, main
from skymatch_cli.demo import write_demo
from skymatch_cli.errors import SkymatchError
from skymatch_cli.model import Status
from skymatch_cli.version import __version__

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst"), *ROOT.glob("*.md")]
PAGES = [
    page for page in WRITTEN if not page.relative_to(ROOT).parts[1:2] or page.parts[-2] not in {"_build", "_generated"}
]
FOREIGN = {"--cores", "--config", "--dependency"}  # options of Snakemake and Slurm


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> str:
    """The reference of the commands, as the site has it."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    import commandtext

    try:
        return str(commandtext.reference())
    finally:
        del sys.modules["commandtext"]


def commands() -> dict[str, click.Command]:
    context = click.Context(main, info_name="skymatch")
    return {name: main.get_command(context, name) for name in COMMANDS}  # type: ignore[misc]


def options(command: click.Command) -> set[str]:
    return {spelt for parameter in command.params if isinstance(parameter, click.Option) for spelt in parameter.opts}


def sections(reference: str) -> dict[str, str]:
    parts = re.split(r"^\.\. _command-(.+):$", reference, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_every_option_of(name, reference):
    documented = set(
        re.findall(
            r"(?<![\w-])--?[a-z][a-z-]*",
            " ".join(line for line in sections(reference)[name].splitlines() if line.startswith(".. option::")),
        )
    )
    assert options(commands()[name]) - documented == set()


def test_the_reference_is_a_page_of_the_site():
    assert ".. skymatch-commands::" in (DOCS / "reference" / "commands.rst").read_text()
    assert "reference/commands" in (DOCS / "index.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_speaks_of_an_option_that_is_not_there(page):
    known = {"--help", "--version", *FOREIGN}.union(*map(options, commands().values()))
    text = re.sub(r"^\$ (?!skymatch).*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))
    assert named - known == set()


@pytest.mark.parametrize("words", [Status, Method, Skystat, Format, ExportFormat])
def test_every_word_is_explained(words):
    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent in {DOCS, DOCS / "reference"})
    assert [str(word) for word in words if str(word) not in text] == []


def test_every_exit_code_is_explained():
    def codes(error: type[SkymatchError]) -> set[int]:
        return {error.exit_code}.union(*map(codes, error.__subclasses__()))

    text = (DOCS / "reference" / "commands.rst").read_text()
    assert all(re.search(rf"\b{code}\b", text) for code in codes(SkymatchError))


def test_every_test_that_the_table_of_files_names_exists():
    named = re.findall(r"`([a-z_]+)\.(test_\w+)`", (ROOT / "tests" / "kinds.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    missing = [f"{file}.{test}" for file, test in named if test not in functions(ROOT / "tests" / f"test_{file}.py")]
    assert missing == []


def functions(file: Path) -> set[str]:
    tree: Any = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_changelog_has_the_version():
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_changelog_and_citation_have_the_same_date():
    when = re.search(rf"^## {re.escape(__version__)} \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^date-released: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert when is not None
    assert cited is not None
    assert when[1] == cited[1]


def test_the_readme_is_one_screen():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    first, commands, output = (block.splitlines() for block in blocks)
    assert [line.split("  ")[0] for line in first] == ["make demo", "make test"]
    assert [line.split()[1] for line in commands] == ["match", "match", "match", "undo"]
    assert max(map(len, output)) <= 80
    last = " ".join(line.strip() for line in output[-2:])
    assert re.fullmatch(r"skymatch: steps between .*; all 11 overlaps agree within their errors", last)


def test_the_readme_shows_what_the_program_finds(tmp_path):
    """To the digits that it shows: `make readme` writes them again."""
    found = skymatch_cli.match(write_demo(tmp_path), dry_run=True).images
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^frame_0\d\.fits\[SCI,1\] +(\S+) +(\S+)", text, flags=re.MULTILINE)
    for column, values in zip(("sky", "sky_err"), zip(*shown, strict=True), strict=True):
        assert list(map(float, values)) == pytest.approx(found[column].value, abs=0.011)


def test_every_page_is_linked_where_a_repository_viewer_shows_it():
    index = (DOCS / "index.md").read_text(encoding="utf-8").partition("```{toctree}")[0]
    pages = {page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents} - {"index.md"}
    assert pages - set(re.findall(r"\]\(([^)#]+)\)", index)) == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda p: p.name)
def test_links_lead_to_files(page):
    linked = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in linked if "_generated" not in link and not (page.parent / link).exists()] == []


def test_the_architecture_names_the_rooms_that_are_there():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    package = ROOT / "skymatch_cli"
    named = {name for name in re.findall(r"`([a-z_/]+/|[a-z_/]+\.py)`", text) if name != "skymatch_cli/pipeline.py"}
    places = [*package.iterdir(), package / "images", package / "compare"]
    assert {name for name in named if not any((place / name).exists() for place in (package, *places))} == set()
    rooms = {f"{folder.parent.name}/" for folder in package.glob("*/__init__.py")}
    assert rooms - named == set()


def test_every_example_is_shown():
    text = (DOCS / "recipes.md").read_text()
    examples = {p.name for p in (ROOT / "examples").iterdir() if p.is_file()}
    assert {name for name in examples if f"../examples/{name}" not in text} == set()


@pytest.mark.parametrize(
    "script", [*DOCS.glob("*.py"), *(DOCS / "_ext").glob("*.py"), *ROOT.glob("benchmarks/*.py")], ids=lambda p: p.name
)
def test_scripts_import_what_the_package_has(script):
    """They run in no test, but by hand."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("skymatch_cli"):
            module = importlib.import_module(node.module)
            assert [a.name for a in node.names if not hasattr(module, a.name)] == [], node.module
