"""Frozen dataclasses as columns and back, by their type hints: thousands of them in the time of a few.

Each field of a dataclass is one column over all that there are; what is nested is a column of its own, over all that
are nested anywhere. Text is kept once, with its number wherever it stands.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import accumulate, pairwise
from operator import attrgetter, itemgetter
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from skymatch_cli.store.columnfile import Columns

Made = TypeVar("Made")
_Written = dict[str, npt.NDArray[Any]]
_Variants = tuple[tuple[Any, tuple[type[Any], ...]], ...]


def to_columns(value: object, variants: Mapping[Any, Sequence[type[Any]]]) -> Columns:
    """A dataclass as columns.

    Parameters
    ----------
    value : object
    variants : mapping of type to sequence of type
        For hints that are no dataclasses (protocols): the dataclasses that may stand there.
    """
    written: _Written = {}
    _kind_of(cast("Hashable", type(value)), _hashable(variants)).write("", [value], written)
    return written


def from_columns(cls: type[Made], columns: Columns, variants: Mapping[Any, Sequence[type[Any]]]) -> Made:
    """The dataclass that `to_columns` was given.

    Raises
    ------
    KeyError, TypeError, ValueError
        If these are the columns of something else.
    """
    made: Made = _kind_of(cast("Hashable", cls), _hashable(variants)).read("", 1, columns)[0]
    return made


def _hashable(variants: Mapping[Any, Sequence[type[Any]]]) -> _Variants:
    return tuple((hint, tuple(classes)) for hint, classes in variants.items())


class _Kind(Protocol):
    """How values of one type become columns whose names begin with ``name``."""

    def write(self, name: str, values: Sequence[Any], to: _Written) -> None: ...

    def read(self, name: str, n: int, columns: Columns) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class _Numbers:
    dtype: type[Any]

    def write(self, name: str, values: Sequence[Any], to: _Written) -> None:
        try:
            to[name] = np.array(values, self.dtype)
        except OverflowError:  # an integer of a header that no 64 bits hold
            _WORDS.write(name, values, to)

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        if name + ":words" in columns:
            return _WORDS.read(name, n, columns)
        found: list[Any] = _checked(columns[name], n).tolist()
        return found


@dataclass(frozen=True, slots=True)
class _Words:
    """Text, or whatever else JSON knows that can be a key; ``make`` turns it into what it was."""

    make: Callable[[Any], Any] | None = None

    def write(self, name: str, values: Sequence[Any], to: _Written) -> None:
        numbers: dict[Any, int] = {}
        to[name] = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int32)
        to[name + ":words"] = np.frombuffer(json.dumps(list(numbers)).encode("ascii"), np.uint8)

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        words = json.loads(columns[name + ":words"].tobytes())
        if self.make is not None:
            words = list(map(self.make, words))
        return list(map(words.__getitem__, _checked(columns[name], n).tolist()))


_WORDS = _Words()
_COUNTS = _Numbers(np.int64)


@dataclass(frozen=True, slots=True)
class _Bytes:
    def write(self, name: str, values: Sequence[bytes], to: _Written) -> None:
        _COUNTS.write(name + ":size", list(map(len, values)), to)
        to[name] = np.frombuffer(b"".join(values), np.uint8)

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        content = columns[name].tobytes()
        ends = _ends(_COUNTS.read(name + ":size", n, columns), len(content))
        return [content[low:high] for low, high in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Arrays of numbers, of one type of them where all have one."""

    def write(self, name: str, values: Sequence[npt.NDArray[Any]], to: _Written) -> None:
        dtypes = [array.dtype.str for array in values]
        _WORDS.write(name + ":dtype", dtypes, to)
        _WORDS.write(name + ":shape", [array.shape for array in values], to)
        flat = [array if array.ndim == 1 else array.reshape(-1) for array in values]
        for dtype in sorted(set(dtypes)):
            own = [array for array, its in zip(flat, dtypes, strict=True) if its == dtype]
            to[f"{name}:{dtype}"] = np.concatenate(own)

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        dtypes, shapes = (_WORDS.read(f"{name}:{what}", n, columns) for what in ("dtype", "shape"))
        start = dict.fromkeys(dtypes, 0)
        content = {dtype: columns[f"{name}:{dtype}"] for dtype in start}
        found = []
        for dtype, shape in zip(dtypes, shapes, strict=True):
            low = start[dtype]
            start[dtype] = high = low + math.prod(shape)
            part = content[dtype][low:high]
            found.append(part if len(shape) == 1 else part.reshape(shape))
        if any(start[dtype] != len(values) for dtype, values in content.items()):
            raise ValueError(f"the arrays of {name} are cut")
        return found


@dataclass(frozen=True, slots=True)
class _Many:
    """Tuples of any length (so do sequences come back), or mappings as tuples of their items."""

    of: _Kind
    make: Callable[[Any], Any] = tuple
    items: Callable[[Any], Iterable[Any]] = iter

    def write(self, name: str, values: Sequence[Any], to: _Written) -> None:
        _COUNTS.write(name + ":n", list(map(len, values)), to)
        self.of.write(name, [item for value in values for item in self.items(value)], to)

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        ends = list(accumulate(_COUNTS.read(name + ":n", n, columns), initial=0))
        flat = self.of.read(name, ends[-1], columns)
        return [self.make(flat[low:high]) for low, high in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class _OneOf:
    """None, or one of several types."""

    options: tuple[tuple[type[Any] | None, _Kind], ...]

    def write(self, name: str, values: Sequence[Any], to: _Written) -> None:
        examples = {type(value): value for value in values}
        option = {cls: self._which(example) for cls, example in examples.items()}
        which = [option[type(value)] for value in values]
        to[name + ":is"] = np.array(which, np.int8)
        for k, (_, kind) in enumerate(self.options):
            kind.write(f"{name}|{k}", [value for value, w in zip(values, which, strict=True) if w == k], to)

    def _which(self, value: Any) -> int:
        if value is None:
            return -1
        return next(k for k, (cls, _) in enumerate(self.options) if cls is None or isinstance(value, cls))

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        which = _checked(columns[name + ":is"], n)
        of_each = [
            iter(kind.read(f"{name}|{k}", int((which == k).sum()), columns)) for k, (_, kind) in enumerate(self.options)
        ]
        return [None if k < 0 else next(of_each[k]) for k in which.tolist()]


@dataclass(frozen=True, slots=True)
class _Fields:
    """Dataclasses, or tuples of one length: a column for each of their fields."""

    make: Callable[..., Any]
    names: tuple[str, ...]
    kinds: tuple[_Kind, ...]
    getters: tuple[Callable[[Any], Any], ...]

    def write(self, name: str, values: Sequence[Any], to: _Written) -> None:
        for own, kind, get in zip(self.names, self.kinds, self.getters, strict=True):
            kind.write(f"{name}.{own}", list(map(get, values)), to)

    def read(self, name: str, n: int, columns: Columns) -> list[Any]:
        read = [kind.read(f"{name}.{own}", n, columns) for own, kind in zip(self.names, self.kinds, strict=True)]
        return list(map(self.make, *read))


@cache
def _kind_of(hint: Any, variants: _Variants) -> _Kind:
    """How values with a type hint are kept."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return _one_of(arguments, variants)
    if (classes := dict(variants).get(hint)) is not None:
        return _one_of(classes, variants)
    if origin is np.ndarray or hint is Any:
        return _Arrays()
    if arguments:
        return _several(origin, arguments, variants)
    if is_dataclass(hint):
        return _record(hint, variants)
    return _plain(hint)


def _one_of(hints: Sequence[Any], variants: _Variants) -> _Kind:
    kept = [hint for hint in hints if hint is not type(None) and not (isinstance(hint, type) and _is_error(hint))]
    if set(kept) == {str, int}:
        return _OneOf(((None, _WORDS),))
    return _OneOf(tuple((hint if len(kept) > 1 else None, _kind_of(hint, variants)) for hint in kept))


def _is_error(hint: type[Any]) -> bool:
    return issubclass(hint, Exception)


def _several(origin: Any, arguments: tuple[Any, ...], variants: _Variants) -> _Kind:
    if origin is Sequence:
        return _Many(_kind_of(arguments[0], variants))
    if origin is not tuple:
        return _Many(_row(arguments, variants), dict, lambda mapping: mapping.items())
    if arguments[1:] == (Ellipsis,):
        return _Many(_kind_of(arguments[0], variants))
    return _row(arguments, variants)


def _row(hints: Sequence[Any], variants: _Variants) -> _Kind:
    kinds = tuple(_kind_of(hint, variants) for hint in hints)
    places = range(len(kinds))
    return _Fields(lambda *values: values, tuple(map(str, places)), kinds, tuple(map(itemgetter, places)))


def _record(cls: Any, variants: _Variants) -> _Kind:
    hints = typing.get_type_hints(cls)
    names = tuple(f.name for f in fields(cls))
    kinds = tuple(_kind_of(hints[name], variants) for name in names)
    keyword = any(f.kw_only for f in fields(cls))
    make = (lambda *values: cls(**dict(zip(names, values, strict=True)))) if keyword else cls
    return _Fields(make, names, kinds, tuple(map(attrgetter, names)))


def _plain(hint: Any) -> _Kind:
    if hint is bytes:
        return _Bytes()
    if hint in {int, float, bool}:
        return _Numbers({int: np.int64, float: np.float64, bool: np.bool_}[hint])
    if hint is str:
        return _WORDS
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Words(hint)
    raise TypeError(f"{hint} has no columns")


def _checked(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    if values.shape != (n,):
        raise ValueError(f"a column has {values.shape} values, not {n}")
    return values


def _ends(sizes: Sequence[int], total: int) -> list[int]:
    ends = list(accumulate(sizes, initial=0))
    if ends[-1] != total:
        raise ValueError("its content is cut")
    return ends
