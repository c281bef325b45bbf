"""Frozen dataclasses as JSON and back: by their type hints, without a word about any of them."""

from __future__ import annotations

import base64
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np

Made = TypeVar("Made")
_Make = Callable[[Any, bytes], Any]


def to_plain(value: Any, arrays: list[bytes] | None = None) -> Any:
    """What JSON can hold: dataclasses become objects, tuples lists, arrays text.

    Parameters
    ----------
    value : Any
    arrays : list of bytes, optional
        Where the content of arrays is put instead.
    """
    if value is None or isinstance(value, int | float) or type(value) is str:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(getattr(value, name), arrays) for name in _names(type(value))}
    if isinstance(value, tuple | list):
        return [to_plain(v, arrays) for v in value]
    if isinstance(value, np.ndarray):
        facts = {"dtype": value.dtype.str, "shape": list(value.shape)}
        content = np.ascontiguousarray(value).tobytes()
        if arrays is None:
            return facts | {"bytes": base64.b64encode(content).decode("ascii")}
        arrays.append(content)
        return facts | {"start": sum(map(len, arrays[:-1]))}
    return str(value) if isinstance(value, Enum) else value


def packed(plain: object) -> bytes:
    """What `to_plain` made, or other values that JSON can hold, as JSON."""
    return json.dumps(plain, separators=(",", ":")).encode("ascii")


def from_plain(cls: type[Made], plain: Mapping[str, Any], content: bytes = b"") -> Made:
    """The dataclass that `to_plain` was given; ``content``: that of its arrays, if they were put elsewhere.

    Raises
    ------
    KeyError, TypeError, ValueError
        If this is not what such a dataclass becomes.
    """
    made: Made = _maker(cast("Any", cls))(plain, content)
    return made


@cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


@cache
def _maker(cls: type[Any]) -> _Make:
    """What makes a dataclass; its type hints are understood once, which takes longer than all the rest."""
    hints = typing.get_type_hints(cls)
    makers = [(f.name, _convert(hints[f.name])) for f in fields(cls)]

    def make(plain: Any, content: bytes) -> Any:
        return cls(
            **{
                name: plain[name] if convert is None else convert(plain[name], content)
                for name, convert in makers
                if name in plain
            }
        )

    return make


def _convert(hint: Any) -> _Make | None:
    """What makes a value of a type; None where the value of JSON is the value."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        inner = _convert(options[0]) if len(options) == 1 else None
        return None if inner is None else lambda plain, content: None if plain is None else inner(plain, content)
    if typing.get_origin(hint) is tuple:
        return _tuple_maker(typing.get_args(hint))
    if typing.get_origin(hint) is np.ndarray:
        return _array
    if hint is Any:
        return lambda plain, content: _array(plain, content) if isinstance(plain, dict) and "dtype" in plain else plain
    if isinstance(hint, type) and is_dataclass(hint):
        return _maker(hint)
    return (lambda plain, _: hint(plain)) if isinstance(hint, type) and issubclass(hint, Enum) else None


def _tuple_maker(kinds: tuple[Any, ...]) -> _Make:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        convert = _convert(kinds[0])
        if convert is None:
            return lambda plain, _: tuple(plain)
        return lambda plain, content: tuple(convert(v, content) for v in plain)
    each = [_convert(kind) or (lambda plain, _: plain) for kind in kinds]
    return lambda plain, content: tuple(make(v, content) for make, v in zip(each, plain, strict=True))


def _array(plain: Any, content: bytes) -> Any:
    raw = base64.b64decode(plain["bytes"]) if "bytes" in plain else content
    count = math.prod(plain["shape"])
    return np.frombuffer(raw, plain["dtype"], count, plain.get("start", 0)).reshape(plain["shape"])
