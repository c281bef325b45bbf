"""Dataclasses as bytes: they come back to the last bit, whatever they hold, and are never pickles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import pytest

from skymatch_cli.model import Container, ImageRef, MaskRef, PixelSource, Selector, StoredPlane
from skymatch_cli.model.arrays import FloatArray
from skymatch_cli.store.codec import Codec
from skymatch_cli.store.rows import CODEC


class _Colour(StrEnum):
    RED = "red"


class _Shape(Protocol):
    size: float


@dataclass(frozen=True)
class _Square:
    size: float


@dataclass(frozen=True)
class _Thing:
    name: str | int | None
    colour: _Colour
    shape: _Shape
    planes: dict[int, FloatArray | None]
    pairs: tuple[tuple[int, float], ...]
    raw: bytes = b""


@dataclass(frozen=True)
class _Other:
    name: str | int | None
    colour: _Colour


def test_dataclasses_come_back_whatever_they_hold():
    codec = Codec({_Shape: (_Square,)})
    array = np.arange(6.0).reshape(2, 3)[:, ::2]
    thing = _Thing(os.fsdecode(b"\xff") + "ä", _Colour.RED, _Square(np.nan), {2: array, 3: None}, ((1, 0.1),), b"\0\1")
    back = codec.decode(_Thing, codec.encode(thing))
    assert (back.name, back.colour, back.pairs, back.raw) == (thing.name, _Colour.RED, ((1, 0.1),), b"\0\1")
    assert np.isnan(back.shape.size)
    assert back.planes[3] is None
    assert back.planes[2].dtype == array.dtype
    assert np.array_equal(back.planes[2], array)
    plane = StoredPlane(path="ä", container=Container.GZIP, hdu=1, offset=2880, shape=(3, 4), bitpix=16, blank=-1)
    for value in (PixelSource(science=plane, mask=plane, bad_flags=5), ImageRef("a", "b", 0, "", 1, MaskRef("m", "m"))):
        assert CODEC.decode(type(value), CODEC.encode(value)) == value


def test_arrays_are_those_of_numpy_save_and_never_pickles():
    from io import BytesIO

    codec = Codec({_Shape: (_Square,)})
    array = np.array([[1.5, -2.0]])
    content = codec.encode(_Thing("a", _Colour.RED, None, {1: array}, ()))
    expected = BytesIO()
    np.save(expected, array, allow_pickle=False)
    assert expected.getvalue() in content
    with pytest.raises(TypeError, match="array of objects"):
        codec.encode(_Thing("a", _Colour.RED, None, {1: np.array([object()])}, ()))


def test_a_layout_with_other_fields_is_another_one():
    codec = Codec()
    assert codec.layout(_Square) != codec.layout(_Other)
    for cls in (_Square, _Other):
        with pytest.raises(ValueError, match="is not a"):
            codec.decode(cls, codec.encode(MaskRef("m", "m", Selector(1))))
