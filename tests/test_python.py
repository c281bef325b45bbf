"""The Python interface: images in memory, corrected copies, warnings, wrong types."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, NDData

import skymatch_cli
from skymatch_cli.errors import UsageError
from skymatch_cli.images.formats import memory

from .factories import Frame, write, write_all

FRAMES = [Frame(x=25.0 * k, sky=100.0 + 7 * k, noise=1.0, seed=k, dtype="f4") for k in range(2)]


def hdus(frame: Frame) -> fits.HDUList:
    return fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(frame.pixels(), frame.hdu_header(), name="SCI")])


def ccd(frame: Frame) -> CCDData:
    return CCDData(frame.pixels(), unit=u.electron, wcs=frame.wcs(), meta={"EXPTIME": 1.0, "FILTER": "r"})


def nddata(frame: Frame) -> NDData:
    return NDData(frame.pixels(), unit=u.electron, wcs=frame.wcs())


def pair(frame: Frame) -> tuple[np.ndarray, Any]:
    return frame.pixels(), frame.wcs()


def pixels_of(item: Any) -> np.ndarray:
    if isinstance(item, fits.HDUList):
        return item["SCI"].data
    return item[0] if isinstance(item, tuple) else item.data


def from_files(tmp_path: Path, **settings: Any) -> np.ndarray:
    return np.asarray(skymatch_cli.match(write_all(tmp_path, FRAMES), dry_run=True, **settings).images["sky"])


@pytest.mark.parametrize("make", [hdus, ccd, nddata, pair])
@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_images_in_memory_give_what_files_give(tmp_path: Path, make: Any, compare: str) -> None:
    items = [make(frame) for frame in FRAMES]
    result = skymatch_cli.match(items, compare=compare)
    expected = from_files(tmp_path, compare=compare)
    assert np.asarray(result.images["sky"]) == pytest.approx(expected, abs=1e-6)
    assert [str(name) for name in result.images["file"]] == ["image_0", "image_1"]
    for item, frame, copied, sky in zip(items, FRAMES, result.subtracted(), expected, strict=True):
        assert np.array_equal(pixels_of(item), frame.pixels())  # not changed
        assert type(copied) is type(item)
        assert pixels_of(copied).dtype == np.float32
        assert pixels_of(copied) == pytest.approx(frame.pixels() - sky, abs=1e-4)


def test_corrected_copies_say_so_and_lose_nothing_again() -> None:
    first = skymatch_cli.match([hdus(frame) for frame in FRAMES])
    copies = first.subtracted()
    header = copies[1]["SCI"].header
    assert (header["BKGSUB"], header["BKGMETH"]) == (True, "match")
    assert header["BKGLEVEL"] == pytest.approx(7, abs=0.5)
    again = skymatch_cli.match(copies)
    assert np.asarray(again.images["sky"]) == pytest.approx(np.asarray(first.images["sky"]), abs=1e-4)
    assert again.subtracted()[1]["SCI"].data == pytest.approx(copies[1]["SCI"].data, abs=1e-4)


@pytest.mark.parametrize("words", [{}, {"subtract": True}])
def test_copies_of_images_whose_files_we_wrote_before_can_be_matched(tmp_path: Path, words: dict[str, bool]) -> None:
    names = write_all(tmp_path, FRAMES)
    skymatch_cli.match(names, **words)
    held = [fits.open(name, memmap=False) for name in names]
    try:
        copies = skymatch_cli.match(held, method="localmin").subtracted()
        assert "HISTORY" in held[1][0].header
        assert "HISTORY" not in copies[1][0].header
        again = np.asarray(skymatch_cli.match(copies, method="localmin").images["sky"])
    finally:
        for hdus_ in held:
            hdus_.close()
    assert again == pytest.approx([100, 107], abs=0.2)


def test_masked_pixels_do_not_count() -> None:
    items = [ccd(frame) for frame in FRAMES]
    items[1].data[:20] = 1e5
    items[1].mask = items[1].data > 1e4
    result = skymatch_cli.match(items)
    assert np.asarray(result.images["sky"])[1] == pytest.approx(7, abs=1)
    assert result.images["n_pixels"][1] <= 40 * 40 - 20 * 40


def test_units_and_integers_of_arrays() -> None:
    frame = Frame(sky=10.0)
    whole = Frame(x=20.0, sky=15.0, dtype="i2")
    result = skymatch_cli.match([(frame.pixels() * u.adu, frame.wcs()), (whole.pixels() * u.adu, whole.wcs())])
    assert result.images["sky"].unit == u.adu
    assert (result.images["sky"] == [0, 5] * u.adu).all()
    assert (result.subtracted()[1][0] == 10 * u.adu).all()
    integers, _ = skymatch_cli.match([pair(frame), pair(whole)]).subtracted()[1]
    assert integers.dtype == np.float32


def test_files_and_images_in_memory_together(tmp_path: Path) -> None:
    name = write(tmp_path / "a.fits", FRAMES[0])
    result = skymatch_cli.match([name, hdus(FRAMES[1])], dry_run=True)
    assert np.asarray(result.images["sky"])[1] == pytest.approx(7, abs=0.5)
    with pytest.raises(UsageError, match="this is a file"):
        result.subtracted()
    with pytest.raises(UsageError, match="files beside images in memory"):
        skymatch_cli.match([name, hdus(FRAMES[1])])


def test_a_gwcs_places_an_array() -> None:
    pytest.importorskip("gwcs")
    from .gwcsfiles import gwcs_of

    result = skymatch_cli.match([(frame.pixels(), gwcs_of(frame, bend=0.5)) for frame in FRAMES])
    assert np.asarray(result.images["sky"])[1] == pytest.approx(7, abs=0.5)


class Model:
    """What the pipeline of JWST calls an image model, as far as it is asked for."""

    def __init__(self, frame: Frame, wcs: Any) -> None:
        self.data, self.dq = frame.pixels(), np.zeros((frame.ny, frame.nx), "u4")
        self.dq[:5], self.data[:5] = 1, 1e6
        self.meta = SimpleNamespace(
            wcs=wcs,
            telescope="JWST",
            filename=f"jw{frame.seed}_cal.fits",
            bunit_data="MJy/sr",
            instrument=SimpleNamespace(name="NIRCAM", filter="F200W", pupil="CLEAR", detector="NRCA1"),
            background=SimpleNamespace(level=None, subtracted=None, method=None),
            cal_step=SimpleNamespace(skymatch=None),
        )

    def copy(self) -> Model:
        import copy

        return copy.deepcopy(self)


class Library:
    """A library of models, which lends them."""

    def __init__(self, models: list[Model]) -> None:
        self.models, self.lent = models, 0

    def __len__(self) -> int:
        return len(self.models)

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.lent == 0

    def borrow(self, k: int) -> Model:
        self.lent += 1
        return self.models[k]

    def shelve(self, model: Model, k: int, *, modify: bool) -> None:
        assert not modify
        self.lent -= 1


def test_models_of_a_pipeline_and_their_libraries() -> None:
    pytest.importorskip("gwcs")
    from .gwcsfiles import gwcs_of

    models = [Model(frame, gwcs_of(frame)) for frame in FRAMES]
    result = skymatch_cli.match(Library(models))
    assert [str(name) for name in result.images["file"]] == ["jw0_cal.fits", "jw1_cal.fits"]
    assert result.images["sky"].unit == u.MJy / u.sr
    assert np.asarray(result.images["sky"])[1] == pytest.approx(7, abs=0.5)
    copied = result.subtracted()[1]
    assert (copied.meta.background.subtracted, copied.meta.cal_step.skymatch) == (True, "COMPLETE")
    assert copied.data[20:] == pytest.approx(models[1].data[20:] - copied.meta.background.level, abs=1e-4)
    assert models[1].meta.background.level is None


def test_models_know_their_group_and_their_part_in_an_association() -> None:
    """The second detector of the second exposure overlaps nothing; the background exposure is copied as it is."""
    pytest.importorskip("gwcs")
    from .gwcsfiles import gwcs_of

    frames = [*FRAMES, FRAMES[1].but(x=9000.0), FRAMES[0].but(sky=999.0)]
    models = [Model(frame, gwcs_of(frame)) for frame in frames]
    for model, group in zip(models, ("e1", "e2", "e2", "e3"), strict=True):
        model.meta.group_id, model.meta.asn = group, SimpleNamespace(exptype="science")
    models[3].meta.asn.exptype = "background"
    result = skymatch_cli.match(Library(models))
    assert [str(group) for group in result.images["group"]] == ["e1", "e2", "e2"]
    assert np.asarray(result.images["sky"]) == pytest.approx([0, 7, 7], abs=0.5)
    assert result.skipped[0] == "jw0_cal.fits: not used: background exposure of the association"
    copies = result.subtracted()
    assert copies[3].meta.background.level is None
    assert copies[2].meta.background.level == pytest.approx(7, abs=0.5)


def test_wrong_types_are_usage_errors(tmp_path: Path) -> None:
    frame = FRAMES[0]
    wrong: list[tuple[Any, str]] = [
        (5, "images: a int is neither an image nor a list of images"),
        (frame.pixels(), "images: a ndarray is neither an image"),
        ([5], "image_0: a int is not an image"),
        ([hdus(frame), object()], "image_1: a object is not an image"),
        ([CCDData(frame.pixels(), unit="adu")], "image_0: it has no WCS"),
        ([(np.zeros((2, 3, 4)), frame.wcs())], "in 3 dimensions"),
        ([(np.zeros((4, 4), complex), frame.wcs())], "its pixels are complex128"),
    ]
    if (longest := np.dtype(np.longdouble)).itemsize > 8:
        wrong.append(([(np.zeros((4, 4), longest), frame.wcs())], f"its pixels are {longest}"))
    for images, said in wrong:
        with pytest.raises(UsageError, match=said):
            skymatch_cli.match(images)
    for settings in ({"subtract": True}, {"output_dir": str(tmp_path)}):
        with pytest.raises(UsageError, match="images in memory are not changed"):
            skymatch_cli.match([hdus(frame)], **settings)


def test_nothing_is_kept_after_an_error_or_without_the_result() -> None:
    before = len(memory._HELD)
    with pytest.raises(UsageError):
        skymatch_cli.match([hdus(FRAMES[0]), 5])
    assert len(memory._HELD) == before
    result = skymatch_cli.match([hdus(frame) for frame in FRAMES])
    assert len(memory._HELD) == before + 2
    del result
    assert len(memory._HELD) == before


def test_warnings_are_python_warnings_and_log_records() -> None:
    far = Frame(x=10_000.0, noise=1.0, dtype="f4")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("skymatch_cli")
    logger.addHandler(handler)
    try:
        with pytest.warns(skymatch_cli.SkymatchWarning) as caught:
            result = skymatch_cli.match([*map(pair, FRAMES), pair(far)])
    finally:
        logger.removeHandler(handler)
    said = [str(warning) for warning in result.warnings]
    assert said
    assert [str(w.message) for w in caught] == said
    assert [record.getMessage() for record in records] == said
    assert Path(caught[0].filename).name == "test_python.py"
