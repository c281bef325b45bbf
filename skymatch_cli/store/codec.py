"""Encode frozen dataclasses as bytes and decode them, driven by their type hints.

A value becomes the length of a JSON text (4 bytes), the text, and one `numpy.save` block for each array, in the order
in which the arrays occur. The JSON lists the fields of a dataclass in their order, without names: `layout` describes
that order, and whoever keeps the bytes keeps the layout beside them. No class is known here by name.
"""

from __future__ import annotations

import io
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

Made = TypeVar("Made")
_Array = npt.NDArray[Any]
_ALIGN = 16  # bytes at whose multiples arrays begin
_MAGIC_BYTES = 8  # of a block of numpy.save, version 1.0; then 2 bytes with the length of the header


class Codec:
    """Encoder and decoder of dataclasses.

    Parameters
    ----------
    variants : mapping of type to sequence of type, optional
        For hints that name no dataclass (protocols): the dataclasses that may stand there.
    """

    def __init__(self, variants: Mapping[Any, Sequence[type[Any]]] | None = None) -> None:
        self._variants = dict(variants or {})
        self._kinds: dict[Any, _Kind] = {}

    def encode(self, value: object) -> bytes:
        """Encode a dataclass.

        Raises
        ------
        TypeError
            If a field holds something that its hint doesn't say, or an array of objects.
        """
        arrays: list[_Array] = []
        plain = self.kind(type(value)).write(value, arrays)
        text = json.dumps(plain, separators=(",", ":"), default=_number).encode("ascii")
        text += b" " * (-(4 + len(text)) % _ALIGN)
        return b"".join([len(text).to_bytes(4, "little"), text, *map(_saved, arrays)])

    def decode(self, cls: type[Made], content: bytes) -> Made:
        """Decode the dataclass that `encode` was given.

        Raises
        ------
        ValueError
            If these are the bytes of something else.
        """
        end = 4 + int.from_bytes(content[:4], "little")
        try:
            arrays = _loaded(content, end)
            made = self.kind(cls).read(json.loads(content[4:end]), arrays)
            if next(arrays, None) is not None:
                raise ValueError("more arrays than fields")
        except (StopIteration, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"is not a {cls.__name__}: {error!r:.60}") from None
        return cast("Made", made)

    def layout(self, cls: type[Any]) -> str:
        """Describe the fields of a dataclass, and of all dataclasses in it: two programs with one layout agree."""
        return self.kind(cls).layout

    def kind(self, hint: Any) -> _Kind:
        """How values with a type hint are encoded."""
        if hint not in self._kinds:
            self._kinds[hint] = self._make_kind(hint)
        return self._kinds[hint]

    def _make_kind(self, hint: Any) -> _Kind:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in self._variants:
            return _OneOf.of(self._variants[hint], self)
        if origin in {typing.Union, types.UnionType}:
            return _OneOf.of([own for a in arguments for own in self._variants.get(a, (a,))], self)
        if origin is np.ndarray or hint is Any:
            return _ARRAY
        if arguments:
            return self._container(origin, arguments)
        if is_dataclass(hint):
            return self._record(cast("type[Any]", hint))
        return _simple(hint)

    def _container(self, origin: Any, arguments: tuple[Any, ...]) -> _Kind:
        if origin is tuple and arguments[1:] != (Ellipsis,):
            return _Fields("tuple", tuple, tuple, tuple(map(self.kind, arguments)))
        if origin in {tuple, Sequence}:
            return _Many(self.kind(arguments[0]))
        if issubclass(origin, Mapping):
            return _Items(self.kind(arguments[0]), self.kind(arguments[1]))
        raise TypeError(f"a field of type {origin} can't be stored")

    def _record(self, cls: type[Any]) -> _Kind:
        hints = typing.get_type_hints(cls)
        names = [f.name for f in fields(cls)]
        kinds = tuple(self.kind(hints[name]) for name in names)
        layout = f"{cls.__name__}({','.join(names)})"
        if any(f.kw_only for f in fields(cls)):
            return _Fields(layout, _getter(names), lambda v: cls(**dict(zip(names, v, strict=True))), kinds)
        return _Fields(layout, _getter(names), lambda v: cls(*v), kinds)


def _simple(hint: Any) -> _Kind:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Enumerated(hint.__name__, {member.value: member for member in hint})
    if hint is bytes:
        return _BYTES
    if hint in {int, float, bool, str, types.NoneType}:
        return _Plain(hint.__name__)
    raise TypeError(f"a field of type {hint} can't be stored")


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


class _Kind(Protocol):
    """How values of one type become JSON, their arrays apart, and come back."""

    @property
    def layout(self) -> str: ...

    def write(self, value: Any, arrays: list[_Array], /) -> Any: ...

    def read(self, plain: Any, arrays: Iterator[_Array], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Plain:
    """Numbers, text and None: JSON has them."""

    layout: str

    def write(self, value: Any, _: list[_Array], /) -> Any:
        return value

    def read(self, plain: Any, _: Iterator[_Array], /) -> Any:
        return plain


@dataclass(frozen=True, slots=True)
class _Enumerated:
    layout: str
    members: Mapping[Any, Enum]

    def write(self, value: Any, _: list[_Array], /) -> Any:
        return value.value

    def read(self, plain: Any, _: Iterator[_Array], /) -> Any:
        return self.members[plain]


@dataclass(frozen=True, slots=True)
class _ArrayKind:
    layout: str = "array"

    def write(self, value: Any, arrays: list[_Array], /) -> Any:
        arrays.append(value)
        return 0

    def read(self, _: Any, arrays: Iterator[_Array], /) -> Any:
        return next(arrays)


@dataclass(frozen=True, slots=True)
class _BytesKind:
    layout: str = "bytes"

    def write(self, value: Any, arrays: list[_Array], /) -> Any:
        arrays.append(np.frombuffer(value, np.uint8))
        return 0

    def read(self, _: Any, arrays: Iterator[_Array], /) -> Any:
        return next(arrays).tobytes()


_ARRAY, _BYTES = _ArrayKind(), _BytesKind()


@dataclass(frozen=True, slots=True)
class _Many:
    """Tuples of any length; sequences come back as tuples."""

    of: _Kind

    @property
    def layout(self) -> str:
        return f"[{self.of.layout}]"

    def write(self, value: Any, arrays: list[_Array], /) -> Any:
        return list(value) if isinstance(self.of, _Plain) else [self.of.write(item, arrays) for item in value]

    def read(self, plain: Any, arrays: Iterator[_Array], /) -> Any:
        return tuple(plain) if isinstance(self.of, _Plain) else tuple([self.of.read(item, arrays) for item in plain])


@dataclass(frozen=True, slots=True)
class _Items:
    """Mappings, as dictionaries."""

    key: _Kind
    value: _Kind

    @property
    def layout(self) -> str:
        return f"{{{self.key.layout}:{self.value.layout}}}"

    def write(self, value: Any, arrays: list[_Array], /) -> Any:
        return [[self.key.write(k, arrays), self.value.write(v, arrays)] for k, v in value.items()]

    def read(self, plain: Any, arrays: Iterator[_Array], /) -> Any:
        return {self.key.read(k, arrays): self.value.read(v, arrays) for k, v in plain}


class _Fields:
    """Dataclasses, and tuples of one length. What JSON has is passed through: most fields are."""

    def __init__(
        self,
        name: str,
        get: Callable[[Any], tuple[Any, ...]],
        make: Callable[[Any], Any],
        kinds: tuple[_Kind, ...],
    ) -> None:
        self.layout = f"{name}<{';'.join(kind.layout for kind in kinds)}>"
        self._get, self._make, self._n = get, make, len(kinds)
        self._inner = [(k, kind.write, kind.read) for k, kind in enumerate(kinds) if type(kind) is not _Plain]

    def write(self, value: Any, arrays: list[_Array], /) -> Any:
        plain = list(self._get(value))
        if len(plain) != self._n:
            raise TypeError(f"{len(plain)} values for {self._n} fields")
        for k, write, _ in self._inner:
            plain[k] = write(plain[k], arrays)
        return plain

    def read(self, plain: Any, arrays: Iterator[_Array], /) -> Any:
        if len(plain) != self._n:
            raise ValueError(f"{len(plain)} values for {self._n} fields")
        for k, _, read in self._inner:
            plain[k] = read(plain[k], arrays)
        return self._make(plain)


@dataclass(frozen=True, slots=True)
class _OneOf:
    """None, or one of several types. Exceptions are not stored."""

    options: tuple[tuple[type[Any], _Kind], ...]

    @classmethod
    def of(cls, hints: Sequence[Any], codec: Codec) -> _Kind:
        """The kind for one of some hints."""
        kept = [h for h in hints if h is not types.NoneType and not (isinstance(h, type) and issubclass(h, Exception))]
        kinds = [codec.kind(hint) for hint in kept]
        if all(isinstance(kind, _Plain) for kind in kinds):
            return _Plain("|".join(kind.layout for kind in kinds))
        if all(kind is _ARRAY for kind in kinds):
            return cls(((np.ndarray, _ARRAY),))
        return cls(tuple((typing.get_origin(h) or h, kind) for h, kind in zip(kept, kinds, strict=True)))

    @property
    def layout(self) -> str:
        return f"({'|'.join(kind.layout for _, kind in self.options)})"

    def write(self, value: Any, arrays: list[_Array], /) -> Any:
        if value is None:
            return None
        for k, (cls, kind) in enumerate(self.options):
            if isinstance(value, cls):
                return [k, kind.write(value, arrays)]
        raise TypeError(f"{type(value).__name__} can't be stored here")

    def read(self, plain: Any, arrays: Iterator[_Array], /) -> Any:
        if plain is None:
            return None
        k, inner = plain
        return self.options[k][1].read(inner, arrays)


def _number(value: Any) -> Any:
    """Numbers of numpy as those of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be stored")


def _saved(array: _Array) -> bytes:
    """The bytes of `numpy.save`, up to a multiple of 16."""
    content = array.tobytes()
    return _save_header(array.dtype, array.shape) + content + bytes(-len(content) % _ALIGN)


@lru_cache(4096)
def _save_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    if dtype.hasobject:
        raise TypeError("an array of objects can't be stored")
    stream = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, facts)
    return stream.getvalue()


def _loaded(content: bytes, at: int) -> Iterator[_Array]:
    """The arrays that `_saved` was given one after another; they share the memory of the bytes."""
    while at < len(content):
        begin = at + _MAGIC_BYTES + 2
        end = begin + int.from_bytes(content[begin - 2 : begin], "little")
        shape, dtype, count = _load_header(content[at:end])
        yield np.frombuffer(content, dtype, count, end).reshape(shape)
        size = count * dtype.itemsize
        at = end + size + -size % _ALIGN


@lru_cache(4096)
def _load_header(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("is not an array")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran or dtype.hasobject:
        raise ValueError("is not an array of numbers")
    return shape, dtype, int(np.prod(shape, dtype=np.int64))
