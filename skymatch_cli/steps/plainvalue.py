"""Frozen dataclasses as JSON and back: by their type hints, without a word about any of them."""

from __future__ import annotations

import base64
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

import numpy as np

Made = TypeVar("Made")
_HINTS: dict[type, dict[str, Any]] = {}  # looked up once: it takes longer than all the rest


def to_plain(value: Any, arrays: list[bytes] | None = None) -> Any:
    """What JSON can hold: dataclasses become objects, tuples lists, arrays text.

    Parameters
    ----------
    value : Any
    arrays : list of bytes, optional
        Where the content of arrays is put instead.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name), arrays) for f in fields(value)}
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


def from_plain(cls: type[Made], plain: Mapping[str, Any], content: bytes = b"") -> Made:
    """The dataclass that `to_plain` was given; ``content``: that of its arrays, if they were put elsewhere.

    Raises
    ------
    KeyError, TypeError, ValueError
        If this is not what such a dataclass becomes.
    """
    hints = typing.get_type_hints(cls) if cls not in _HINTS else _HINTS[cls]
    _HINTS[cls] = hints
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: _made(hints[name], plain[name], content) for name in names if name in plain})


def _made(hint: Any, plain: Any, content: bytes) -> Any:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        hint = options[0] if len(options) == 1 and plain is not None else Any
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(plain)
        return tuple(_made(kind, v, content) for kind, v in zip(kinds, plain, strict=True))
    if isinstance(plain, dict) and "dtype" in plain:
        raw = base64.b64decode(plain["bytes"]) if "bytes" in plain else content
        count = math.prod(plain["shape"])
        return np.frombuffer(raw, plain["dtype"], count, plain.get("start", 0)).reshape(plain["shape"])
    if isinstance(hint, type):
        if is_dataclass(hint):
            return from_plain(hint, plain, content)
        if issubclass(hint, Enum):
            return hint(plain)
    return plain
