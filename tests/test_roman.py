"""Roman images: read, recorded, subtracted, undone."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .commands import run
from .factories import Frame
from .gwcsfiles import gwcs_of, roman_file

asdf = pytest.importorskip("asdf")
pytest.importorskip("gwcs")

FRAMES = [Frame(x=25.0 * k, sky=10.0 + 2 * k, noise=0.1, seed=k) for k in range(2)]


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return [roman_file(tmp_path / f"r{k}_cal.asdf", f, gwcs_of(f, bend=0.5)) for k, f in enumerate(FRAMES)]


def tree(path: str | Path) -> Any:
    """The whole content of a file, as plain values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            roman = file["roman"]
            return {
                "data": np.array(roman["data"]),
                "dq": np.array(roman["dq"]),
                "err": np.array(roman["err"]),
                "background": dict(roman["meta"].get("background") or {}),
                "step": roman["meta"]["cal_step"]["skymatch"],
                "codec": file.get_array_compression(np.asarray(roman["data"])),
                "corner": roman["meta"]["wcs"](0.0, 0.0, with_bounding_box=False),
                "rest": {k: dict(roman["meta"][k]) for k in ("exposure", "instrument", "observation")},
                "ours": "skymatch_cli" in roman,
            }


def test_a_wcs_of_the_header_that_is_not_there_is_refused(two: list[str]) -> None:
    done = run("match", "--dry-run", "--wcs", "header", *two)
    assert done.exit_code == 3
    assert "--wcs header: the file has no WCS of FITS keywords, only a GWCS (leave --wcs out)" in done.stderr


def test_skies_are_found(two: list[str]) -> None:
    done = run("match", "--dry-run", "--format", "json", *two)
    assert done.exit_code == 0, done.stderr
    first, second = json.loads(done.stdout)["images"]
    assert second["sky"] - first["sky"] == pytest.approx(2, abs=0.05)
    assert first["sky_unit"] == "DN/s"
    assert first["file"] == two[0]


def test_flags_count(two: list[str]) -> None:
    done = run("match", "--dry-run", "--format", "json", *two)
    assert json.loads(done.stdout)["images"][0]["n_pixels"] == 40 * 40 - 1


def test_the_sky_is_recorded_and_nothing_else(two: list[str]) -> None:
    before = tree(two[1])
    assert run("match", *two).exit_code == 0
    after = tree(two[1])
    assert after["background"]["level"] == pytest.approx(2, abs=0.05)
    assert after["background"]["method"] == "match"
    assert after["background"]["subtracted"] is False
    assert after["step"] == "COMPLETE"
    assert np.array_equal(after["data"], before["data"])
    assert np.array_equal(after["dq"], before["dq"])
    assert after["dq"].dtype == np.uint32
    assert after["rest"] == before["rest"]
    assert after["corner"] == before["corner"]


@pytest.mark.parametrize(
    "background",
    [
        {},
        {"level": 0.5, "method": "local", "subtracted": False},
        {"level": None, "method": "None", "subtracted": False},
        {"level": None, "method": None, "subtracted": None},
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib", "bzp2", "lz4"])
def test_subtract_and_undo(tmp_path: Path, background: dict[str, Any], compression: str | None) -> None:
    names = [
        roman_file(tmp_path / f"r{k}.asdf", f, gwcs_of(f), compression=compression, **background)
        for k, f in enumerate(FRAMES)
    ]
    before = tree(names[1])
    assert run("match", "--subtract", *names).exit_code == 0
    subtracted = tree(names[1])
    level = subtracted["background"]["level"]
    assert subtracted["background"]["subtracted"] is True
    assert subtracted["codec"] == compression
    assert subtracted["data"] == pytest.approx(before["data"] - level, rel=1e-6)
    once = Path(names[1]).read_bytes()
    assert run("match", "--subtract", *names).exit_code == 0
    assert Path(names[1]).read_bytes() == once  # a second run changes nothing
    assert run("undo", *names).exit_code == 0
    after = tree(names[1])
    assert after["background"] == before["background"]
    assert (after["step"], after["codec"]) == ("INCOMPLETE", compression)
    assert not after["ours"]
    ulp = np.spacing(np.maximum(np.abs(before["data"]), np.float32(level)))
    assert (np.abs(after["data"] - before["data"]) <= ulp).all()


def test_recording_over_a_subtracted_image_is_refused(two: list[str]) -> None:
    assert run("match", "--subtract", *two).exit_code == 0
    done = run("match", *two)
    assert done.exit_code == 3
    assert "its sky is subtracted already" in done.stderr


def test_a_sky_that_the_pipeline_subtracted_is_added_back(tmp_path: Path) -> None:
    names = [roman_file(tmp_path / f"r{k}.asdf", f, gwcs_of(f)) for k, f in enumerate(FRAMES)]
    gone = FRAMES[1].but(sky=0.0)
    shutil.copy(
        roman_file(tmp_path / "x.asdf", gone, gwcs_of(gone), level=12.0, method="match", subtracted=True), names[1]
    )
    done = run("match", "--dry-run", "--format", "json", *names)
    assert json.loads(done.stdout)["images"][1]["sky"] == pytest.approx(2, abs=0.05)


def test_copies_leave_the_originals_alone(two: list[str], tmp_path: Path) -> None:
    before = [Path(name).read_bytes() for name in two]
    assert run("match", "--subtract", "--output-dir", tmp_path / "out", *two).exit_code == 0
    assert [Path(name).read_bytes() for name in two] == before
    assert tree(tmp_path / "out" / "r1_cal.asdf")["background"]["subtracted"] is True


def test_images_join_fits_images_of_the_same_unit(two: list[str], tmp_path: Path) -> None:
    from .factories import write

    other = write(tmp_path / "a.fits", FRAMES[0].but(x=-20.0, sky=5.0, header={"BUNIT": "DN/s"}))
    done = run("match", "--dry-run", "--format", "json", other, *two)
    assert done.exit_code == 0, done.stderr
    assert [round(image["sky"]) for image in json.loads(done.stdout)["images"]] == [0, 5, 7]


@pytest.mark.parametrize("content", [b"#ASDF 1.0.0\n", b"#ASDF 1.0.0\n%YAML 1.1\n---\nroman: {a: [}\n", None])
def test_damaged_files_are_problems(two: list[str], content: bytes | None) -> None:
    raw = Path(two[0]).read_bytes()
    Path(two[0]).write_bytes(raw[: len(raw) // 2] if content is None else content)
    done = run("match", *two)
    assert done.exit_code == 3
    assert two[0] in done.stderr
    assert "unexpected" not in done.stderr


def test_other_asdf_files_are_named(tmp_path: Path) -> None:
    asdf.AsdfFile({"a": 1}).write_to(tmp_path / "a.asdf")
    done = run("match", "--dry-run", tmp_path / "a.asdf")
    assert done.exit_code == 3
    assert "it is no Roman image" in done.stderr


def test_an_image_without_a_wcs_is_refused(tmp_path: Path) -> None:
    done = run("match", "--dry-run", roman_file(tmp_path / "a.asdf", FRAMES[0], None))
    assert done.exit_code == 3
    assert "has no GWCS in roman.meta.wcs" in done.stderr


def test_without_the_packages_a_hint(two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "asdf" else real(name))
    done = run("match", "--dry-run", *two)
    assert done.exit_code == 3
    assert "reading it needs the package asdf (pip install 'skymatch-cli[gwcs]')" in done.stderr


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("match", "match"),
        ("localmin", "local"),
        ("globalmin", "global"),
        ("globalmin+match", "global+match"),
        ("user", "None"),
    ],
)
def test_methods_have_the_words_of_the_schema(two: list[str], tmp_path: Path, method: str, word: str) -> None:
    (tmp_path / "skies.txt").write_text("".join(f"{name} {k + 1.5}\n" for k, name in enumerate(two)))
    skylist = ("--skylist", tmp_path / "skies.txt") if method == "user" else ()
    assert run("match", "--method", method, *skylist, *two).exit_code == 0
    found = tree(two[1])["background"]
    assert found["method"] == word
    assert isinstance(found["level"], float)
    once = Path(two[1]).read_bytes()
    assert run("match", "--method", method, *skylist, *two).exit_code == 0
    assert Path(two[1]).read_bytes() == once  # the word is read back as the method that it stands for


def test_what_the_schema_cannot_hold_survives_its_own_readers(two: list[str]) -> None:
    """Our cards are in the node ``roman``: programs that write that node and nothing else keep them."""
    before = tree(two[1])
    assert run("match", "--subtract", *two).exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with asdf.open(two[1], lazy_load=False, memmap=False) as file:
            again = asdf.AsdfFile({"roman": file["roman"]})
            again.write_to(two[1] + "~", all_array_compression="lz4")
    Path(two[1] + "~").rename(two[1])
    assert run("undo", *two).exit_code == 0
    assert tree(two[1])["data"] == pytest.approx(before["data"], rel=1e-6)
    assert tree(two[1])["background"] == {}


@pytest.mark.parametrize("lost", [False, True])
def test_the_keyword_undoes_what_the_pipeline_subtracted(tmp_path: Path, lost: bool) -> None:
    """Also where our own record is there and damaged: pixels and background say the same thing afterwards."""
    gone = FRAMES[1].but(sky=0.0)
    name = roman_file(tmp_path / "x.asdf", gone, gwcs_of(gone), level=12.0, method="match", subtracted=True)
    before = tree(name)
    if lost:
        assert run("match", "--method", "localmin", "--subtract", name).exit_code == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with asdf.open(name, lazy_load=False, memmap=False) as file:
                file["roman"]["skymatch_cli"]["cards"] = file["roman"]["skymatch_cli"]["cards"][:-1]
                file.write_to(name + "~")
        Path(name + "~").rename(name)
    refused = run("undo", name)
    assert refused.exit_code == 3
    assert "--from-keyword" in refused.stderr
    for _ in range(2):  # once is enough
        assert run("undo", "--from-keyword", name).exit_code == 0
        after = tree(name)
        assert after["background"] == {}
        assert (after["step"], after["ours"]) == ("INCOMPLETE", False)
        assert after["data"] == pytest.approx(before["data"] + 12, abs=1e-5)


def test_a_missing_codec_is_named(two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frame = FRAMES[0]
    name = roman_file(Path(two[0]).parent / "packed.asdf", frame, gwcs_of(frame), compression="lz4")
    monkeypatch.setitem(sys.modules, "lz4", None)
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    done = run("match", "--dry-run", name, two[1])
    assert done.exit_code == 3
    assert "no Roman image" not in done.stderr
    assert "lz4" in done.stderr
    assert "pip install 'skymatch-cli[gwcs]'" in done.stderr
