"""Dataclasses as columns, and the file of columns that a cache is: all comes back, and what is spoiled is noticed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skymatch_cli.model import FloatArray, MaskRef, Status
from skymatch_cli.store.columnfile import read_columns, write_columns
from skymatch_cli.store.columns import from_columns, to_columns


class Shape(Protocol):
    """What stands behind it is said beside the columns."""


@dataclass(frozen=True)
class Square:
    side: float


@dataclass(frozen=True)
class Circle:
    radius: float
    centre: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    number: int
    text: str = ""
    flag: bool = False
    word: Status = Status.OK
    raw: bytes = b""
    maybe: float | None = None
    mask: MaskRef | None = None
    shape: Shape | None = None
    several: tuple[str, ...] = ()
    by_name: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Arrays:
    arrays: tuple[FloatArray, ...]
    anything: Any = ()


VARIANTS = {Shape: (Square, Circle)}
FLOATS = st.floats(allow_nan=False)
TEXT = st.text(st.characters(), max_size=5)  # lone surrogates too, as in names of files that are no UTF-8
ROWS = st.builds(
    Row,
    number=st.integers(-(2**70), 2**70),
    text=TEXT,
    flag=st.booleans(),
    word=st.sampled_from(Status),
    raw=st.binary(max_size=5),
    maybe=st.none() | FLOATS,
    mask=st.none() | st.builds(MaskRef, TEXT, TEXT, st.none() | TEXT | st.integers(), st.integers(1, 9)),
    shape=st.none() | st.builds(Square, FLOATS) | st.builds(Circle, FLOATS, st.tuples(FLOATS, FLOATS)),
    several=st.lists(TEXT, max_size=3).map(tuple),
    by_name=st.dictionaries(TEXT, FLOATS, max_size=3),
)


@given(st.lists(ROWS, max_size=5))
def test_dataclasses_come_back_from_columns(rows):
    whole = Rows(tuple(rows))
    assert from_columns(Rows, to_columns(whole, VARIANTS), VARIANTS) == whole


def test_arrays_come_back_with_their_types_and_shapes():
    arrays = np.arange(6.0).reshape(2, 3), np.ones(4, np.float32), np.empty((0, 3)), np.arange(3.0)
    columns = to_columns(Arrays(arrays, np.array([1, 2], np.int16)), {})
    found = from_columns(Arrays, columns, {})
    for array, back in zip((*arrays, np.array([1, 2], np.int16)), (*found.arrays, found.anything), strict=True):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_columns_of_another_class_are_refused():
    with pytest.raises(KeyError):
        from_columns(Circle, to_columns(Square(1.0), {}), {})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    stream = io.BytesIO()
    write_columns({"a": np.arange(5, dtype=np.int32), "b": np.array([[1.5, np.nan]]), "c": np.empty(0)}, stream)
    (tmp_path / "columns").write_bytes(stream.getvalue())
    return tmp_path / "columns"


def test_columns_come_back_from_a_file(written):
    found = read_columns(str(written))
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["a"], np.arange(5))
    np.testing.assert_array_equal(found["b"], [[1.5, np.nan]])
    assert found["c"].shape == (0,)


def test_a_file_of_columns_that_is_cut_or_changed_anywhere_is_noticed(written):
    content = written.read_bytes()
    for k in range(len(content)):
        for spoiled in (content[:k], content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :]):
            written.write_bytes(spoiled)
            with pytest.raises(ValueError, match=r"checksum|another kind"):
                read_columns(str(written))
