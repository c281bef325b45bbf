"""Names as typed by the user -> files, HDU selectors and masks: globs, ``[EXT]`` syntax, lists, standard input.

Nothing is opened here but list files.
"""
# Names stay as the user spelled them; pathlib would rewrite ./a.fits:
# ruff: noqa: PTH100, PTH112, PTH118, PTH120, PTH207

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, TextIO

from skymatch_cli.errors import InputError, Problem, UsageError, caught, without_secrets
from skymatch_cli.images.formats.files import absolute_path, base_name, is_remote, matching
from skymatch_cli.images.lists import Listed, is_association, is_table, members, read_entries, read_list, read_whole
from skymatch_cli.model import ImageRef, MaskRef, Selector
from skymatch_cli.model.section import parse_section

_SECTION = re.compile(r"(?P<name>.+)\[(?P<section>(?=[^\]]*[:,])(?=[^\]]*[:*])[-+\d\s:*,]+)\]", re.DOTALL)
_SELECTED = re.compile(r"(?P<file>.+)\[(?P<selector>[^\[\]]*)\]", re.DOTALL)
_FITS_SUFFIX = re.compile(r"(\.(fits?|fts|asdf))?(\.(gz|fz|bz2))?$", re.IGNORECASE)
_FIELDS = ("{stem}", "{stem:OLD=NEW}", "{dir}", "{extname}", "{extver}", "{hdu}")
_SECTION_HINT = "sections are [first:last,first:last] with columns first, e.g. a.fits[SCI,1][1:2048,*]"


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


def expand_names(
    names: Sequence[str | os.PathLike[str] | NamedFile], stdin: TextIO | None = None
) -> tuple[tuple[NamedFile, ...], tuple[Problem, ...]]:
    """Expand globs, ``@list`` files and ``-`` (names on ``stdin``), in the order in which they are named.

    A file whose name is exactly the text given wins over its meaning as a glob or as an HDU selector; the matches of a
    glob are sorted. Names in a list are relative to its folder.
    """
    found = _Expansion()
    for name in names:
        if isinstance(name, NamedFile):
            found.named.append(name)
        else:
            found.add(os.fspath(name), stdin=stdin)
    return tuple(found.named), tuple(found.problems)


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
        parse_section(match["section"])
    except ValueError as error:
        raise ValueError(f"[{match['section']}] {error}") from None
    return match["name"], match["section"]


def file_of(name: str) -> str:
    """Return the file of a name, without section and HDU selector; ValueError if one of these is not understood."""
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


def fill_template(option: str, template: str, ref: ImageRef) -> MaskRef:
    """Return the file and HDU that a template, such as ``masks/{stem}.fits[1]``, means for one image.

    ``{stem}`` is the name of the image's file without folder and FITS suffixes, ``{stem:ooi=ood}`` the same with one
    text replaced, ``{dir}`` the folder of the image, ``{hdu}`` the number of its HDU. A relative result is looked for
    from the current folder, then beside the image. InputError if a text that is to be replaced is not in the name.
    """
    folder = ref.path[: -len(base_name(ref.path)) - 1] if is_remote(ref.path) else os.path.dirname(ref.path)
    stem = _Stem(stem_of(ref.path))
    fields = {"stem": stem, "dir": folder, "extname": ref.ext or "PRIMARY", "extver": ref.extver, "hdu": ref.hdu}
    try:
        file, selector = split_selector(template.format_map(fields))
    except ValueError as error:
        raise InputError.at(ref.label, f"{option} {template}: {error}") from None
    if is_remote(file):
        return MaskRef(without_secrets(file), file, selector)
    path = os.path.abspath(file)
    near_image = os.path.join(os.path.dirname(ref.path), file)
    if not os.path.lexists(path) and os.path.lexists(near_image):
        path = near_image
    return MaskRef(without_secrets(file), path, selector)


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
    """Return the name of a file without folder and FITS suffixes."""
    return _FITS_SUFFIX.sub("", base_name(path))


class _Expansion:
    """The files that names stand for, and what is wrong with names, both in the order of the names."""

    def __init__(self) -> None:
        self.named: list[NamedFile] = []
        self.problems: list[Problem] = []

    def add(
        self, name: str, folder: str = "", lists: tuple[str, ...] = (), *, stdin: TextIO | None = None, **given: Any
    ) -> None:
        """Expand a name, relative to ``folder``; ``lists`` led to it, ``given`` are values of its files from there."""
        path = os.path.join(folder, name)
        if name == "-":
            self._try(self._add_stdin, stdin)
        elif name.startswith("@") and not os.path.lexists(path):
            self._try(self._add_list, os.path.join(folder, name[1:]), lists, given)
        else:
            self._try(self._add_files, name if is_remote(name) else path, lists, given)

    def _try(self, step: Callable[..., None], *given: Any) -> None:
        if isinstance(error := caught(step, *given), InputError):
            self.problems += error.problems

    def _add_stdin(self, stdin: TextIO | None) -> None:
        if stdin is None:
            raise InputError.at("-", "there is no standard input to read names from")
        where = "standard input"
        try:
            text = read_whole(stdin.read, "\0")
        except ValueError as error:
            raise InputError.at(where, str(error), "give one name a line") from None
        self._add_entries(text, where, "", (), {})

    def _add_list(self, file: str, lists: tuple[str, ...], given: Mapping[str, Any]) -> None:
        where = file if is_table(file) else f"@{file}"
        real = os.path.realpath(file)
        if real in lists:
            raise InputError.at(where, "the list names itself", "remove the loop")
        if Path(file).is_fifo():  # a list is read twice, and its names would be relative to /dev/fd
            raise InputError.at(
                where, "is a pipe, not a file", "give its names on standard input: ls | skymatch match -"
            )
        try:
            text = read_list(file)
        except OSError as error:
            raise InputError.at(where, f"can't read the list: {error.strerror or error}") from None
        except ValueError as error:
            raise InputError.at(where, str(error), "give the image itself without @") from None
        self._add_entries(text, where, os.path.dirname(file), (*lists, real), given)

    def _add_entries(
        self, text: str, where: str, folder: str, lists: tuple[str, ...], given: Mapping[str, Any]
    ) -> None:
        entries = list(read_entries(text, where, folder))
        for entry in entries:
            if isinstance(entry, Problem):
                self.problems.append(entry)
            elif entry.left_out:
                file = os.path.join(folder, entry.name)
                self.named.append(NamedFile(file, os.path.abspath(file), left_out=f"{entry.left_out} of {where}"))
            else:
                self._try(self._add_entry, entry, folder, lists, given)
        if not entries:
            raise InputError.at(where, "names no image")

    def _add_entry(self, entry: Listed, folder: str, lists: tuple[str, ...], given: Mapping[str, Any]) -> None:
        own: dict[str, Any] = {"group": entry.group} if entry.group else {}
        if entry.mask:
            try:
                file, selector = split_selector(
                    entry.mask if is_remote(entry.mask) else os.path.join(folder, entry.mask)
                )
            except ValueError as error:
                raise InputError.at(entry.where, str(error), "e.g. [MASK], [MASK,2] or [3]") from None
            own["mask"] = MaskRef(without_secrets(file), absolute_path(file), selector)
        self.add(entry.name, folder, lists, **{**own, **given})

    def _add_files(self, name: str, lists: tuple[str, ...], given: Mapping[str, Any]) -> None:
        """A file of exactly that name, one with a selector or a section, or a glob; lists and associations among them.

        InputError if there is none.
        """
        try:
            name, section = split_section(name)
        except ValueError as error:
            raise InputError.at(name, str(error), _SECTION_HINT) from None
        if section:
            given = {"section": section, **given}
        if not name or "\0" in name:
            raise InputError.at(repr(name), "is not a file name")
        match = None if os.path.lexists(name) else _SELECTED.fullmatch(name)
        try:
            files = _files(match["file"]) if match else []
            selector = Selector.parse(match["selector"]) if match and files else None
            files = files or _files(name)
        except ValueError as error:
            raise InputError.at(name, str(error), "e.g. [SCI], [SCI,2], [3] or [*]") from None
        except (OSError, InputError) as error:  # of a server
            raise InputError.at(name, f"can't be looked up: {error}") from None
        for file in files:
            if selector is None and is_association(file) and not is_remote(file):
                self._try(self._add_members, file, given)
            elif selector is None and is_table(file) and not is_remote(file):
                self._try(self._add_list, file, lists, given)
            else:
                self.named.append(NamedFile(without_secrets(file), absolute_path(file), selector, **given))
        if not files:
            file = match["file"] if match else name
            if glob.has_magic(file):
                raise InputError.at(
                    name, "no file matches", "" if is_remote(name) else "check the folder and the pattern"
                )
            raise InputError.at(file, "no such file")

    def _add_members(self, file: str, given: Mapping[str, Any]) -> None:
        for member in members(file):
            if member.left_out or os.path.lexists(member.name):
                own = {"group": member.group, "left_out": member.left_out, **given}
                self.named.append(NamedFile(member.name, os.path.abspath(member.name), **own))
            else:
                self.problems.append(Problem(member.name, "no such file", f"a member of {file}"))


def _files(pattern: str) -> list[str]:
    """The file of that name, else the files that a glob matches, sorted; of a URL a server expands ``*`` alone."""
    if is_remote(pattern):
        return matching(pattern) if "*" in pattern else [pattern]
    if os.path.lexists(pattern):
        return [pattern]
    if not glob.has_magic(pattern):
        return []
    return sorted(found for found in glob.glob(pattern, recursive=True) if not os.path.isdir(found))
