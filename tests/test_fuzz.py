"""Damaged files through the command line: a fixed sample of what ``make fuzz`` runs by the thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .factories import Frame
from .fuzz.bases import Base, own
from .fuzz.check import check
from .fuzz.damage import BLOCK, CARD, KEYWORDS, VALUES, card

CASES = 120
DAMAGED = """
import json, sys
from pathlib import Path
from tests.fuzz.__main__ import run
from tests.fuzz.bases import own
print(json.dumps(run(own(Path(sys.argv[1])), range(int(sys.argv[2])))))
"""
IN_CHILDREN = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    return own(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def good_file() -> bytes:
    frame = Frame(nx=24, ny=20, noise=1.0)
    with tempfile.TemporaryDirectory() as top:
        fits.PrimaryHDU(frame.pixels().astype("f4"), frame.hdu_header()).writeto(path := Path(top, "a.fits"))
        return path.read_bytes()


@IN_CHILDREN
def test_damaged_files_end_in_a_known_way(tmp_path: Path) -> None:
    """In a Python of its own: a child with little memory can't be forked from one that other tests have filled."""
    command = [sys.executable, "-c", DAMAGED, str(tmp_path), str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    codes, broken = json.loads(done.stdout.splitlines()[-1])
    assert broken == []
    assert codes["3"] > CASES / 4  # the damage was noticed,
    assert codes["0"] > CASES / 20  # or did no harm


@pytest.mark.parametrize("turn", [0, 3, 4])
def test_whole_files_are_accepted(bases: list[Base], folder: Path, turn: int) -> None:
    for base in bases:
        if base.suffix in {".fits", ".asdf"} and base.name != "subtracted":  # (recording on that one is refused)
            assert check(folder, base.content, base.content, suffix=base.suffix, turn=turn) == 0


def words() -> st.SearchStrategy[str]:
    """Values of cards: words that mean something in some place, numbers, and any text."""
    numbers = st.floats().map(repr) | st.integers().map(str)
    return st.sampled_from(VALUES) | numbers | st.text(max_size=68).map(lambda s: f"'{s}'")


@settings(
    max_examples=40,
    derandomize=True,
    phases=[Phase.generate],  # the cards are few: nothing needs to be made smaller
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(st.integers(0, 35), st.sampled_from(KEYWORDS), words()), min_size=1, max_size=6),
    st.integers(0, 5),
)
def test_any_cards_in_a_header(folder: Path, cards: list[tuple[int, str, str]], turn: int) -> None:
    good = good_file()
    data = bytearray(good)
    for place, keyword, value in cards:
        latin = value.encode("latin-1", "replace").decode("latin-1")
        data[place * CARD : (place + 1) * CARD] = card(keyword, latin)
    check(folder, bytes(data), good, turn=turn)


@pytest.mark.parametrize("turn", [0, 2])
def test_a_million_cards_are_refused(folder: Path, turn: int) -> None:
    good = good_file()
    at = good.index(b"CRVAL1")
    many = (b"COMMENT ".ljust(CARD) * (BLOCK // CARD)) * (1_000_000 * CARD // BLOCK)
    assert check(folder, good[:at] + many + good[at:], good, turn=turn) == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"NAXIS1  =                   24", b"NAXIS1  =  9223372036854775807"),
        (b"NAXIS1  =                   24", b"NAXIS1  =               100000"),
        (b"NAXIS   =                    2", b"NAXIS   =                  999"),
        (b"NAXIS2  =                   20", b"NAXIS2  =                  -20"),
        (b"BITPIX  =                  -32", b"BITPIX  =                  -31"),
    ],
)
def test_absurd_sizes_are_refused(folder: Path, old: bytes, new: bytes) -> None:
    good = good_file()
    assert old in good
    assert check(folder, good.replace(old, new), good, turn=2) == 3


def test_a_table_whose_heap_points_at_itself_is_refused(folder: Path) -> None:
    """The descriptors of a compressed image say where its tiles are: here, in the descriptors."""
    frame = Frame(nx=24, ny=20)
    image = fits.CompImageHDU(frame.but(dtype="i2").pixels(), frame.hdu_header(), compression_type="RICE_1")
    image.writeto(path := folder / "tiles.fits")
    good = path.read_bytes()
    path.unlink()
    start = (good.rindex(b"END     ") // BLOCK + 1) * BLOCK
    descriptors = np.tile(np.array([0x40000000, -8], ">i4"), 20).tobytes()
    assert check(folder, good[:start] + descriptors + good[start + len(descriptors) :], good, turn=2) == 3


@pytest.mark.parametrize("nx", [1, 65])
def test_a_last_block_of_one_column_has_a_mesh(folder: Path, nx: int) -> None:
    frame = Frame(nx=nx, ny=70, noise=1.0)
    fits.PrimaryHDU(frame.pixels().astype("f4"), frame.hdu_header()).writeto(path := folder / "narrow.fits")
    content = path.read_bytes()
    path.unlink()
    assert check(folder, content, content, turn=4) == 0


def test_a_mesh_of_images_that_do_not_overlap(folder: Path) -> None:
    good = good_file()
    far = good.replace(b"CRVAL2  =                 20.0", b"CRVAL2  =                -20.0")
    assert far != good
    assert check(folder, far, good, turn=4) == 4


@pytest.mark.parametrize("turn", [2, 3])
def test_undo_cards_that_lie_are_refused(folder: Path, turn: int) -> None:
    good = good_file()
    at = good.index(b"BUNIT")
    forged = b"".join(
        text.ljust(CARD)
        for text in (b"HISTORY skymatch-cli undo - BKGLEVEL", b"HISTORY skymatch-cli undo = BITPIX  = 99")
    )
    assert check(folder, good[:at] + forged + good[at + len(forged) :], good, turn=turn) == 3


def test_undo_cards_never_change_the_structure(folder: Path) -> None:
    good = good_file()
    at = good.index(b"BUNIT")
    forged = b"HISTORY skymatch-cli undo ! NAXIS   =                    7".ljust(CARD)
    assert check(folder, good[:at] + forged + good[at + CARD :], good, turn=2) == 0


@pytest.mark.parametrize("keyword", ["A_2_0", "B_0_2", "AP_1_0"])
def test_a_text_for_a_term_of_sip_is_refused(folder: Path, keyword: str) -> None:
    """This value ends wcslib, and Python with it, by a segmentation fault."""
    good = good_file()
    at = good.index(b"BUNIT")
    content = good[:at] + card(keyword, "'EXTVER: 1'") + good[at + CARD :]
    assert check(folder, content, good, turn=2) == 3


def test_a_version_that_no_table_holds(folder: Path) -> None:
    good = good_file()
    at = good.index(b"BUNIT")
    version = b"EXTVER  = 100000000000000000000000".ljust(CARD)
    assert check(folder, good[:at] + version + good[at + CARD :], good, turn=4) in {0, 4}
