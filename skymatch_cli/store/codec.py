"""Encode frozen dataclasses as bytes and decode them, driven by their type hints.

A value becomes the length of a JSON text (4 bytes), the text, and one `numpy.save` block for each array, in the order
in which the arrays occur; words are in the text. The JSON lists the fields of a dataclass in their order, without
names: `layout` describes that order, and a file of such bytes also stores the layout. No class is listed by name.
"""

from __future__ import annotations

import io
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from skymatch_cli.errors import without_secrets

Made = TypeVar("Made")
_Array = npt.NDArray[Any]
_ALIGN = 16  # bytes at whose multiples arrays begin
_MAGIC_BYTES = 8  # of a block of numpy.save, version 1.0; then 2 bytes with the length of the header


class Codec:
    """Encoder and decoder of dataclasses; ``variants`` may stand for a hint that is none (a protocol)."""

    def __init__(self, variants: Mapping[Any, Sequence[type[Any]]] | None = None) -> None:
        self._variants = dict(variants or {})
        self._kinds: dict[Any, _Kind] = {}

    def encode(self, value: object) -> bytes:
        """Encode a dataclass; TypeError if a field holds what its hint doesn't say, or an array of objects."""
        arrays: list[_Array] = []
        write = self.kind(type(value)).write
        plain = value if write is None else write(value, arrays)
        text = json.dumps(plain, separators=(",", ":"), default=_number).encode("ascii")
        if b"://" in text:
            text = json.dumps(_without_secrets(plain), separators=(",", ":"), default=_number).encode("ascii")
        text += b" " * (-(4 + len(text)) % _ALIGN)
        return b"".join([len(text).to_bytes(4, "little"), text, *map(_saved, arrays)])

    def decode(self, cls: type[Made], content: bytes) -> Made:
        """Decode the dataclass that `encode` was given; ValueError if these are the bytes of something else."""
        end = 4 + int.from_bytes(content[:4], "little")
        read = self.kind(cls).read
        try:
            arrays = _loaded(content, end)
            plain = json.loads(content[4:end])
            made = plain if read is None else read(plain, arrays)
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
            return _one_of(self._variants[hint], self)
        if origin in {typing.Union, types.UnionType}:
            return _one_of([own for a in arguments for own in self._variants.get(a, (a,))], self)
        if origin is np.ndarray or hint is Any:
            return _ARRAY
        if arguments:
            return self._container(origin, arguments)
        if is_dataclass(hint):
            return self._record(cast("type[Any]", hint))
        return _simple(hint)

    def _container(self, origin: Any, arguments: tuple[Any, ...]) -> _Kind:
        if origin is tuple and arguments[1:] != (Ellipsis,):
            return _fields("tuple", tuple, tuple, tuple(map(self.kind, arguments)))
        if origin in {tuple, Sequence}:
            return _many(self.kind(arguments[0]))
        if issubclass(origin, Mapping):
            return _items(self.kind(arguments[0]), self.kind(arguments[1]))
        raise TypeError(f"a field of type {origin} can't be stored")

    def _record(self, cls: type[Any]) -> _Kind:
        hints = typing.get_type_hints(cls, localns={"csr_array": csr_array})  # modules may import it for types alone
        names = [f.name for f in fields(cls)]
        kinds = tuple(self.kind(hints[name]) for name in names)
        layout = f"{cls.__name__}({','.join(names)})"
        if any(f.kw_only for f in fields(cls)):
            return _fields(layout, _getter(names), lambda v: cls(**dict(zip(names, v, strict=True))), kinds)
        return _fields(layout, _getter(names), lambda v: cls(*v), kinds)


def _without_secrets(plain: Any) -> Any:
    """JSON with no password and no token in its URLs: files are kept, copied and given to others."""
    if isinstance(plain, str):
        return without_secrets(plain)
    return [_without_secrets(item) for item in plain] if isinstance(plain, list | tuple) else plain


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


class _Kind(NamedTuple):
    """How values of one type become JSON, their arrays apart, and come back; None where JSON has them."""

    layout: str
    write: Callable[[Any, list[_Array]], Any] | None = None
    read: Callable[[Any, Iterator[_Array]], Any] | None = None


def _write_array(value: Any, arrays: list[_Array]) -> Any:
    if value.dtype == object:
        if not all(isinstance(word, str) for word in value):
            raise TypeError("an array of objects can't be stored")
        return value.tolist()
    arrays.append(value)
    return 0


def _write_bytes(value: Any, arrays: list[_Array]) -> Any:
    arrays.append(np.frombuffer(value, np.uint8))
    return 0


_ARRAY = _Kind("array", _write_array, lambda plain, arrays: next(arrays) if plain == 0 else np.array(plain, object))
_BYTES = _Kind("bytes", _write_bytes, lambda _, arrays: next(arrays).tobytes())


def _simple(hint: Any) -> _Kind:
    if isinstance(hint, type) and issubclass(hint, Enum):
        members = {member.value: member for member in hint}
        return _Kind(hint.__name__, lambda value, _: value.value, lambda plain, _: members[plain])
    if hint is bytes:
        return _BYTES
    if hint is csr_array:
        get, kinds = attrgetter("data", "indices", "indptr", "shape"), (_ARRAY, _ARRAY, _ARRAY, _Kind("shape"))
        return _fields("sparse", get, lambda v: csr_array(tuple(v[:3]), shape=tuple(v[3])), kinds)
    if hint in {int, float, bool, str, types.NoneType}:
        return _Kind(hint.__name__)
    raise TypeError(f"a field of type {hint} can't be stored")


def _many(of: _Kind) -> _Kind:
    """Tuples of any length; sequences come back as tuples."""
    layout, (_, write, read) = f"[{of.layout}]", of
    if write is None or read is None:
        return _Kind(layout, lambda value, _: list(value), lambda plain, _: tuple(plain))
    return _Kind(
        layout,
        lambda value, arrays: [write(item, arrays) for item in value],
        lambda plain, arrays: tuple([read(item, arrays) for item in plain]),
    )


def _items(key: _Kind, value: _Kind) -> _Kind:
    """Mappings, which come back as dictionaries."""
    row = _fields("item", tuple, tuple, (key, value))
    write, read = cast("Any", row.write), cast("Any", row.read)
    return _Kind(
        f"{{{row.layout}}}",
        lambda mapping, arrays: [write(item, arrays) for item in mapping.items()],
        lambda plain, arrays: dict([read(item, arrays) for item in plain]),
    )


def _fields(
    name: str, get: Callable[[Any], tuple[Any, ...]], make: Callable[[Any], Any], kinds: tuple[_Kind, ...]
) -> _Kind:
    """Dataclasses, and tuples of one length. What JSON has is passed through: most fields are."""
    n = len(kinds)
    writers = [(k, kind.write) for k, kind in enumerate(kinds) if kind.write is not None]
    readers = [(k, kind.read) for k, kind in enumerate(kinds) if kind.read is not None]

    def write(value: Any, arrays: list[_Array]) -> Any:
        plain = list(get(value))
        if len(plain) != n:
            raise TypeError(f"{len(plain)} values for {n} fields")
        for k, inner in writers:
            plain[k] = inner(plain[k], arrays)
        return plain

    def read(plain: Any, arrays: Iterator[_Array]) -> Any:
        if len(plain) != n:
            raise ValueError(f"{len(plain)} values for {n} fields")
        for k, inner in readers:
            plain[k] = inner(plain[k], arrays)
        return make(plain)

    return _Kind(f"{name}<{';'.join(kind.layout for kind in kinds)}>", write, read)


def _one_of(hints: Sequence[Any], codec: Codec) -> _Kind:
    """None, or one of several types. Exceptions are not stored."""
    kept = [h for h in hints if h is not types.NoneType and not (isinstance(h, type) and issubclass(h, Exception))]
    kinds = [codec.kind(hint) for hint in kept]
    layout = f"({'|'.join(kind.layout for kind in kinds)})"
    if all(kind.write is None for kind in kinds):
        return _Kind(layout)
    if all(kind is _ARRAY for kind in kinds):
        kept, kinds = [np.ndarray], [_ARRAY]
    classes = [(k, typing.get_origin(hint) or hint, kinds[k].write) for k, hint in enumerate(kept)]
    readers = [kind.read for kind in kinds]

    def write(value: Any, arrays: list[_Array]) -> Any:
        if value is None:
            return None
        for k, cls, inner in classes:
            if isinstance(value, cls):
                return [k, value if inner is None else inner(value, arrays)]
        raise TypeError(f"{type(value).__name__} can't be stored here")

    def read(plain: Any, arrays: Iterator[_Array]) -> Any:
        if plain is None:
            return None
        k, value = plain
        inner = readers[k]
        return value if inner is None else inner(value, arrays)

    return _Kind(layout, write, read)


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be stored")


def _saved(array: _Array) -> bytes:
    """The bytes of `numpy.save`, up to a multiple of 16."""
    content = array.tobytes()
    return _save_header(array.dtype, array.shape) + content + bytes(-len(content) % _ALIGN)


@lru_cache(4096)
def _save_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
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
