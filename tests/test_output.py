"""Where a result goes: formats, suffixes, and files that must not be lost."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from skymatch_cli.choices import Format
from skymatch_cli.errors import SkymatchError, UsageError
from skymatch_cli.output.destination import Output
from skymatch_cli.record import disk

from .results import make_result


@pytest.mark.parametrize("form", [form for form in Format if form != Format.TABLE])
def test_the_suffix_names_the_format(form: Format) -> None:
    assert Output(output=f"sky.{form}").form == form
    assert Output(output=f"sky.{form.upper()}").form == form


def test_standard_output_gets_a_table_unless_told_otherwise() -> None:
    assert Output().form == Format.TABLE
    assert Output(format="json").form == Format.JSON
    assert Output(output="-", format="csv") == Output(format="csv")


def test_another_suffix_needs_a_format() -> None:
    assert Output(output="sky.txt", format="table").form == Format.TABLE
    with pytest.raises(UsageError, match="names no format") as caught:
        Output(output="sky.txt")
    assert ".ecsv .csv .json .fits .vot" in caught.value.hint


@pytest.mark.parametrize(("file", "form"), [("sky.csv", "json"), ("sky.json", "table"), ("sky.fits.gz", "fits")])
def test_a_format_that_contradicts_the_suffix_is_refused(file: str, form: str) -> None:
    with pytest.raises(UsageError, match=file):
        Output(output=file, format=form)


@pytest.mark.parametrize("values", [{"format": "xml"}, {"table": "skies"}])
def test_an_unknown_word_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="there is no"):
        Output(**values)


def test_a_result_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    make_result().write(tmp_path / "sky.json")
    assert json.loads((tmp_path / "sky.json").read_text())["schema"] == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "sky.json"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    make_result().write(tmp_path / "sky.json")
    assert (tmp_path / "sky.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_existing_file_is_replaced_only_when_told_so(tmp_path: Path) -> None:
    file = tmp_path / "sky.csv"
    file.write_text("precious")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="exists"):
        make_result().write(file)
    assert file.read_text() == "precious"
    make_result().write(file, overwrite=True)
    assert file.read_text().startswith("file,ext")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    image = tmp_path / "a.fits"
    image.write_text("pixels")
    with pytest.raises(UsageError, match="is one of the inputs"):
        make_result(str(image), "b.fits", "c.fits").write(image, overwrite=True)
    assert image.read_text() == "pixels"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "sky.csv").symlink_to(tmp_path / "real.csv")
    make_result().write(tmp_path / "sky.csv", overwrite=True)
    assert (tmp_path / "sky.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("file,ext")


def test_a_device_is_written_to_not_replaced() -> None:
    make_result().write("/dev/null", format="json")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        make_result().write(tmp_path, format="json")
    with pytest.raises(UsageError, match="there is no directory"):
        make_result().write(tmp_path / "none" / "sky.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sky.csv"
    file.write_text("precious")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "write", full)
    with pytest.raises(SkymatchError, match=r"sky\.csv can't be written: No space left on device"):
        make_result().write(file, overwrite=True)
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]
