"""The table of tests/kinds.md: every kind of file, row by row, is read, recorded, subtracted and undone."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner, Result

from skymatch_cli.cli import main

from .kinds import KINDS, SKIES, Files
from .valid import assert_valid, complaints

OURS = re.compile(
    r"(BKG(LEVEL|SUB|METH|ERR)|S_SKYMAT) *=|HISTORY skymatch-cli |(CHECKSUM|DATASUM|ZHECKSUM|ZDATASUM) *="
)
SUBTRACTED = re.compile(
    OURS.pattern + r"|(Z?BITPIX|BSCALE|BZERO|BLANK|ZBLANK|ZCMPTYPE|NAXIS[12]|PCOUNT|TFIELDS|T[A-Z]+\d+|Z[A-Z0-9]+) *="
)
pytestmark = pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")


@pytest.fixture(params=KINDS, ids=lambda key: " ".join(word for word in key if word))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if "gwcs" in request.param[0]:
        pytest.importorskip("gwcs")
        pytest.importorskip("asdf")
    made: Files = KINDS[request.param](tmp_path)
    return made


def run(files: Files, command: str, *args: str) -> Result:
    options = files.options if command == "match" else ()
    done = CliRunner().invoke(main, [command, *args, *options, *map(str, files.paths)])
    assert done.exit_code == 0, done.stderr
    return done


def unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    return {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)(raw)


def known(files: Files) -> dict[Path, set[str]]:
    """What is to be said against the files before anything is done to them."""
    return {path: complaints(path) for path in files.paths if path.suffix != ".asdf"}


def state(files: Files) -> dict[Path, bytes]:
    return {path: unpacked(path) for path in (*files.paths, *files.others)}


def parts(raw: bytes) -> list[tuple[list[str], bytes]]:
    """The cards and the data of every HDU, as they are stored."""
    with fits.open(io.BytesIO(raw), disable_image_compression=True) as hdus:
        places = [hdu.fileinfo() for hdu in hdus]
    found = []
    for place in places:
        header = raw[place["hdrLoc"] : place["datLoc"]].decode("ascii")
        cards = [header[i : i + 80] for i in range(0, len(header), 80)]
        found.append((cards[: cards.index(f"{'END':80}")], raw[place["datLoc"] : place["datLoc"] + place["datSpan"]]))
    return found


def without(cards: list[str], pattern: re.Pattern[str]) -> list[str]:
    return [card for card in cards if not pattern.match(card)]


def images(files: Files) -> list[np.ndarray]:
    """The physical pixels of all images, undefined ones NaN."""
    if files.paths[0].suffix == ".asdf":
        return [_roman(path)["data"] for path in files.paths]
    found = []
    for path in files.paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found += [np.squeeze(np.array(fits.getdata(path, hdu), "f8")) for hdu in files.hdus]
    return found


def levels(files: Files) -> list[float]:
    if files.paths[0].suffix == ".asdf":
        return [_roman(path)["level"] for path in files.paths]
    return [_header_of_sky(path, hdu)["BKGLEVEL"] for path in files.paths for hdu in files.hdus]


def _header_of_sky(path: Path, hdu: int) -> fits.Header:
    """JWST keeps the sky in the primary header."""
    primary = fits.getheader(path)
    return primary if primary.get("TELESCOP") == "JWST" else fits.getheader(path, hdu)


def _roman(path: Path) -> dict[str, Any]:
    import asdf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            return {"data": np.array(file["roman"]["data"]), **file["roman"]["meta"].get("background", {})}


def test_read(files: Files) -> None:
    before = state(files)
    found = json.loads(run(files, "match", "--dry-run", "--format", "json").stdout)["images"]
    assert len(found) == len(files.paths) * len(files.hdus)
    assert found[-1]["sky"] - found[0]["sky"] == pytest.approx(SKIES[1] - SKIES[0], abs=0.6)
    assert state(files) == before


def test_recorded(files: Files) -> None:
    before, said = state(files), known(files)
    run(files, "match")
    assert max(levels(files)) - min(levels(files)) == pytest.approx(SKIES[1] - SKIES[0], abs=0.6)
    after = state(files)
    assert all(after[path] == before[path] for path in files.others)
    for path in files.paths:
        assert after[path] != before[path]
        if path.suffix != ".asdf":
            old, new = parts(before[path]), parts(after[path])
            assert [data for _, data in new] == [data for _, data in old]  # every byte of all data
            assert [without(cards, OURS) for cards, _ in new] == [without(cards, OURS) for cards, _ in old]
            assert_valid(path, said[path])
    run(files, "undo")
    assert files.paths[0].suffix == ".asdf" or state(files) == before


def test_subtracted(files: Files) -> None:
    before, old_images, said = state(files), images(files), known(files)
    run(files, "match", "--subtract")
    after = state(files)
    assert all(after[path] == before[path] for path in files.others)
    for old, new, level in zip(old_images, images(files), levels(files), strict=True):
        np.testing.assert_allclose(new, old - level, rtol=2e-7, atol=2e-5)  # NaN where it was undefined
    for path in files.paths:
        if path.suffix == ".asdf":
            continue
        for k, (old_part, new_part) in enumerate(zip(parts(before[path]), parts(after[path]), strict=True)):
            if k in files.hdus:
                assert without(new_part[0], SUBTRACTED) == without(old_part[0], SUBTRACTED)
            else:
                assert (without(new_part[0], OURS), new_part[1]) == (without(old_part[0], OURS), old_part[1])
        assert_valid(path, said[path])


def test_undone(files: Files) -> None:
    before, old_images, said = state(files), images(files), known(files)
    run(files, "match", "--subtract")
    skies = levels(files)
    run(files, "undo")
    after = state(files)
    if files.restored == "bytes":
        assert after == before
    for old, new, sky in zip(old_images, images(files), skies, strict=True):
        with np.errstate(invalid="ignore"):
            ulp = np.spacing(np.maximum(np.abs(old), abs(sky)).astype("f4"))
            same = (new == old) | (np.isnan(new) & np.isnan(old))
            assert (same | ((np.abs(new - old) <= ulp) & (files.restored == "ulp"))).all()
    for path in files.paths:
        if path.suffix == ".asdf":
            continue
        for (old_cards, _), (new_cards, _) in zip(parts(before[path]), parts(after[path]), strict=True):
            kept = SUBTRACTED if path.suffix == ".fz" else OURS
            assert without(new_cards, kept) == without(old_cards, kept)
            assert not any("BKG" in card[:3] or "skymatch" in card for card in new_cards)
        assert_valid(path, said[path])


# --- the table


def table() -> list[list[str]]:
    """The rows of the table: cells without the names of tests in them, and those names."""
    text = Path(__file__).with_name("kinds.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith(("| kind", "| card", "| `BKG", "| `HIS"))]
    return [re.split(r"(?<!\\)\|", line.strip("|"))[:5] for line in rows]


ROWS = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table()}


def test_every_kind_is_a_row() -> None:
    assert {label for label, _ in KINDS} <= ROWS.keys()


@pytest.mark.parametrize("label", ROWS)
def test_every_cell_has_a_test(label: str) -> None:
    """Rows of kinds have the four tests above; the cells of other rows name theirs, or say that there is nothing."""
    assert len(ROWS[label]) == 4
    if label not in {name for name, _ in KINDS}:
        assert all(cell == "—" or re.search(r"`[a-z_]+\.test_\w+`", cell) for cell in ROWS[label])
