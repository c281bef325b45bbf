"""Names as typed by the user -> files, HDU selectors and masks: globs, ``[EXT]`` syntax, lists, standard input.

Nothing is opened here but list files.
"""
# Names stay as the user spelled them; pathlib would rewrite ./a.fits:
# ruff: noqa: PTH100, PTH112, PTH118, PTH120, PTH207

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from string import Formatter
from typing import Any, TextIO

from skymatch_cli.errors import InputError, Problem, UsageError, caught, without_secrets
from skymatch_cli.images.formats.files import absolute_path, base_name, is_remote, matching
from skymatch_cli.images.lists import (
    Listed,
    is_association,
    is_table,
    members,
    read_lines,
    read_list,
    read_table,
    read_whole,
)
from skymatch_cli.model import ImageRef, MaskRef
from skymatch_cli.model.section import check_section

_SECTION = re.compile(r"(?P<name>.+)\[(?P<section>(?=[^\]]*[:,])(?=[^\]]*[:*])[-+\d\s:*,]+)\]", re.DOTALL)
_SELECTED = re.compile(r"(?P<file>.+)\[(?P<selector>[^\[\]]*)\]", re.DOTALL)
_FITS_SUFFIX = re.compile(r"(\.(fits?|fts|asdf))?(\.(gz|fz|bz2))?$", re.IGNORECASE)
_FIELDS = ("{stem}", "{stem:OLD=NEW}", "{dir}", "{extname}", "{extver}", "{hdu}")
_SECTION_HINT = "sections are [first:last,first:last] with columns first, e.g. a.fits[SCI,1][1:2048,*]"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which HDUs of a file: by index, by name, by name and version, or every image (name ``*``)."""

    index: int | None = None
    name: str = ""
    ver: int | None = None

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Parse the text between the brackets: ``SCI``, ``SCI,2``, ``3`` or ``*``; else ValueError."""
        name, comma, ver = (part.strip() for part in text.partition(","))
        if name.isdecimal() and not comma:
            return cls(index=int(name))
        if not name or (comma and not ver.isdecimal()):
            raise ValueError(f"[{text}] names no extension")
        return cls(name=name, ver=int(ver) if comma else None)

    def fits(self, index: int, name: str, ver: int) -> bool:
        """Whether an HDU is meant, by its number, EXTNAME (in any case; the primary one is PRIMARY) and EXTVER."""
        if self.index is not None:
            return self.index == index
        called = (name or ("" if index else "PRIMARY")).upper()
        return self.name.upper() in {"*", called} and self.ver in {None, ver}


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the user named.

    ``file`` is the user's own spelling, ``path`` where it is; ``section`` is what stands between the last brackets of
    ``a.fits[SCI,1][1:2048,*]``; ``mask`` comes from column 2 of a list, ``group`` from an association, which may also
    say why the file is ``left_out``.
    """

    file: str
    path: str
    selector: Selector | None = None
    mask: MaskRef | None = None
    group: str = ""
    left_out: str = ""
    section: str = ""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where names come from: the folder that they are relative to, and the lists that led here."""

    folder: str = ""
    lists: tuple[str, ...] = ()

    def lines(self, text: str, where: str) -> Iterator[Listed | Problem]:
        """The entries of a list."""
        return read_lines(text, where, lambda name: os.path.lexists(os.path.join(self.folder, name)))


def expand_names(
    names: Sequence[str | os.PathLike[str] | NamedFile], stdin: TextIO | None = None
) -> tuple[tuple[NamedFile, ...], tuple[Problem, ...]]:
    """Expand globs, ``@list`` files and ``-`` (names on ``stdin``), in the order in which they are named.

    A file whose name is exactly the text given wins over its meaning as a glob or as an HDU selector; the matches of a
    glob are sorted. Names in a list are relative to its folder.
    """
    given = (n if isinstance(n, NamedFile) else os.fspath(n) for n in names)
    items = list(
        chain.from_iterable([n] if isinstance(n, NamedFile) else _expand_all([n], _Source(), stdin) for n in given)
    )
    return tuple(i for i in items if isinstance(i, NamedFile)), tuple(i for i in items if isinstance(i, Problem))


def split_selector(name: str) -> tuple[str, Selector | None]:
    """Split a name and its HDU selector; a file of exactly that name wins; ValueError for a bad selector."""
    match = _SELECTED.fullmatch(name)
    if match is None or os.path.lexists(name):
        return name, None
    return match["file"], Selector.parse(match["selector"])


def split_section(name: str) -> tuple[str, str]:
    """Split a name and its section, ``1:2048,*`` ("" without one), else ValueError; a file of that name wins."""
    match = _SECTION.fullmatch(name)
    if match is None or os.path.lexists(name):
        return name, ""
    try:
        check_section(match["section"])
    except ValueError as error:
        raise ValueError(f"[{match['section']}] {error}") from None
    return match["name"], match["section"]


def file_of(name: str) -> str:
    """The file of a name, without section and HDU selector; ValueError if one of these is not understood."""
    return split_selector(split_section(name)[0])[0]


def check_template(option: str, template: str) -> None:
    """Raise UsageError where a template has other fields than the known ones."""
    known = {field[1:-1].partition(":")[0] for field in _FIELDS}
    try:
        parts = [(field, spec) for _, field, spec, _ in Formatter().parse(template) if field is not None]
        unknown = sorted({field for field, _ in parts} - known)
        if not unknown:
            old = "".join(f"{spec}".partition("=")[0] for field, spec in parts if field == "stem")
            template.format(stem=_Stem(old), dir=".", extname="SCI", extver=1, hdu=1)
    except (ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{option} {template}: not a template: {error}") from None
    if unknown:
        raise UsageError(
            f"{option} {template}: there is no field {{{unknown[0]}}}", f"the fields are {', '.join(_FIELDS)}"
        )


def fill_template(template: str, ref: ImageRef) -> MaskRef:
    """The file and HDU that a template such as ``masks/{stem}.fits[1]`` means for one image.

    ``{stem}`` is the name of the image's file without folder and FITS suffixes, ``{stem:ooi=ood}`` the same with one
    text replaced, ``{dir}`` the folder of the image, ``{hdu}`` the number of its HDU. A relative result is looked for
    from the current folder, then beside the image. ValueError if a text that is to be replaced is not in the name.
    """
    folder = ref.path[: -len(base_name(ref.path)) - 1] if is_remote(ref.path) else os.path.dirname(ref.path)
    stem = _Stem(stem_of(ref.path))
    name = template.format(stem=stem, dir=folder, extname=ref.ext or "PRIMARY", extver=ref.extver, hdu=ref.hdu)
    file, selector = split_selector(name)
    if is_remote(file):
        return _mask_ref(file, file, selector)
    path = os.path.abspath(file)
    near_image = os.path.join(os.path.dirname(ref.path), file)
    if not os.path.lexists(path) and os.path.lexists(near_image):
        path = near_image
    return _mask_ref(file, path, selector)


class _Stem(str):
    """The stem in a template: ``{stem:OLD=NEW}`` replaces a text in it."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        old, equals, new = spec.partition("=")
        if not spec:
            return str(self)
        if not old or not equals:
            raise ValueError(f"{{stem:{spec}}} is not {{stem:OLD=NEW}}")
        if old not in self:
            raise ValueError(f"the name {str(self)!r} does not hold {old!r}")
        return self.replace(old, new)


def stem_of(path: str) -> str:
    """The name of a file without folder and FITS suffixes."""
    return _FITS_SUFFIX.sub("", base_name(path))


def _mask_ref(file: str, path: str, selector: Selector | None) -> MaskRef:
    chosen = selector or Selector()
    ext = chosen.index if chosen.index is not None else chosen.name or None
    return MaskRef(file=without_secrets(file), path=path, ext=ext, extver=chosen.ver or 1)


def _expand_all(names: Iterable[str], source: _Source, stdin: TextIO | None) -> Iterator[NamedFile | Problem]:
    for name in names:
        if name == "-":
            if stdin is None:
                yield Problem("-", "there is no standard input to read names from")
            else:
                yield from _expand_stdin(stdin, source)
        elif name.startswith("@") and not os.path.lexists(os.path.join(source.folder, name)):
            yield from _expand_list(os.path.join(source.folder, name[1:]), source)
        else:
            yield from _expand_one(name, source)


def _expand_stdin(stdin: TextIO, source: _Source) -> Iterator[NamedFile | Problem]:
    where = "standard input"
    try:
        text = read_whole(stdin.read, "\0")
    except ValueError as error:
        yield Problem(where, str(error), "give one name a line")
        return
    yield from _expand_entries(source.lines(text, where), where, source)


def _expand_list(file: str, source: _Source) -> Iterator[NamedFile | Problem]:
    where = file if is_table(file) else f"@{file}"
    real = os.path.realpath(file)
    if real in source.lists:
        yield Problem(where, "the list names itself", "remove the loop")
        return
    try:
        text = read_list(file)
    except OSError as error:
        yield Problem(where, f"can't read the list: {error.strerror or error}")
        return
    except ValueError as error:
        yield Problem(where, str(error), "give the image itself without @")
        return
    inside = _Source(os.path.dirname(file), (*source.lists, real))
    yield from _expand_entries(read_table(text, where) if is_table(file) else inside.lines(text, where), where, inside)


def _expand_entries(entries: Iterable[Listed | Problem], where: str, source: _Source) -> Iterator[NamedFile | Problem]:
    empty = True
    for entry in entries:
        empty = False
        if isinstance(entry, Problem):
            yield entry
        elif entry.left_out:
            file = os.path.join(source.folder, entry.name)
            yield NamedFile(file, os.path.abspath(file), left_out=f"{entry.left_out} of {where}")
        else:
            yield from _expand_entry(entry, source)
    if empty:
        yield Problem(where, "names no image")


def _expand_entry(entry: Listed, source: _Source) -> Iterator[NamedFile | Problem]:
    given: dict[str, Any] = {"group": entry.group} if entry.group else {}
    if entry.mask:
        mask_name = entry.mask if is_remote(entry.mask) else os.path.join(source.folder, entry.mask)
        try:
            file, selector = split_selector(mask_name)
        except ValueError as error:
            yield Problem(entry.where, str(error), "e.g. [MASK], [MASK,2] or [3]")
            return
        given["mask"] = _mask_ref(file, absolute_path(file), selector)
    for item in _expand_all([entry.name], source, None):
        yield item if isinstance(item, Problem) else replace(item, **given)


def _expand_one(name: str, source: _Source) -> Iterator[NamedFile | Problem]:
    """One name, with its section where it has one."""
    try:
        name, section = split_section(name if is_remote(name) else os.path.join(source.folder, name))
    except ValueError as error:
        yield Problem(name, str(error), _SECTION_HINT)
        return
    try:
        for item in _expand_path(name, source):
            yield item if isinstance(item, Problem) or not section else replace(item, section=section)
    except (OSError, InputError) as error:  # of a server
        yield Problem(name, f"can't be looked up: {error}")


def _expand_path(file: str, source: _Source) -> Iterator[NamedFile | Problem]:
    """A file of exactly that name, a file with a selector, or a glob with or without one."""
    if not file or "\0" in file:
        yield Problem(repr(file), "is not a file name")
        return
    if os.path.lexists(file):
        yield from _contents(file, source)
        return
    match = _SELECTED.fullmatch(file)
    if match and (files := _files(match["file"])):
        try:
            selector = Selector.parse(match["selector"])
        except ValueError as error:
            yield Problem(file, str(error), "e.g. [SCI], [SCI,2], [3] or [*]")
            return
        yield from (_named(found, selector) for found in files)
    elif files := _files(file):
        for found in files:
            yield from _contents(found, source)
    elif glob.has_magic(match["file"] if match else file):
        yield Problem(file, "no file matches", "" if is_remote(file) else "check the folder and the pattern")
    else:
        yield Problem(match["file"] if match else file, "no such file")


def _contents(file: str, source: _Source) -> Iterator[NamedFile | Problem]:
    """The image of that name, or the images of a list."""
    if is_association(file) and not is_remote(file):
        yield from _members(file)
    elif is_table(file) and not is_remote(file):
        yield from _expand_list(file, replace(source, folder=""))
    else:
        yield _named(file)


def _named(file: str, selector: Selector | None = None) -> NamedFile:
    return NamedFile(without_secrets(file), absolute_path(file), selector)


def _members(file: str) -> Iterator[NamedFile | Problem]:
    """The exposures of an association."""
    if isinstance(found := caught(members, file), InputError):
        yield from found.problems
        return
    for member in found:
        if member.left_out or os.path.lexists(member.name):
            path = os.path.abspath(member.name)
            yield NamedFile(member.name, path, group=member.group, left_out=member.left_out)
        else:
            yield Problem(member.name, "no such file", f"a member of {file}")


def _files(pattern: str) -> list[str]:
    """The file of that name, else the files that a glob matches, sorted; of a URL a server expands ``*`` alone."""
    if is_remote(pattern):
        return matching(pattern) if "*" in pattern else [pattern]
    if os.path.lexists(pattern):
        return [pattern]
    if not glob.has_magic(pattern):
        return []
    return sorted(found for found in glob.glob(pattern, recursive=True) if not os.path.isdir(found))
