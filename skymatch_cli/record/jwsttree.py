"""The sky in the ASDF extension of a JWST file: dropped where the primary header holds another one.

The pipeline believes the primary header, and other readers of the ASDF tree would find an old sky there. The lines of
``meta.background`` become comments of the same length, so that no byte moves and `undo` finds them again.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from skymatch_cli.images.formats.source import Source
from skymatch_cli.record.rewrite import HduEdit

_META = re.compile(rb"^meta:[^\n]*\n(?:[ #-][^\n]*\n)+", re.MULTILINE)
_BACKGROUND = re.compile(rb"^  background:[^\n]*\n(?:   +[^\n]*\n)*", re.MULTILINE)
_HIDDEN = re.compile(rb"^# background:[^\n]*\n(?:#  +[^\n]*\n)*", re.MULTILINE)
_ENTRY = re.compile(rb"^  \w", re.MULTILINE)
_LINE = re.compile(rb"[^\n]+")
_END_OF_TREE = b"\n...\n"


def tree_edits(source: Source, edit: Callable[[bytes], bytes]) -> dict[int, HduEdit]:
    """Make the edit of the ASDF extension of a JWST file; {} where it is unchanged or missing."""
    hdu = next((hdu for hdu in source.file.hdus if hdu.name == "ASDF"), None)
    if hdu is None:
        return {}
    data = source.read(hdu.data_offset, source.data_stop(hdu.index) - hdu.data_offset)
    new = edit(data)
    return {} if new == data else {hdu.index: HduEdit(cards=source.cards(hdu.index), data=new)}


def hide_background(data: bytes) -> bytes:
    """Return the data of an ASDF extension with ``meta.background`` hidden; `show_background` restores it."""
    return _edited(data, _BACKGROUND, lambda line: b"#" + line[1:])


def erase_background(data: bytes) -> bytes:
    """Return the data of an ASDF extension with ``meta.background`` removed for good."""
    return _edited(data, _BACKGROUND, lambda line: b"#".ljust(len(line)))


def show_background(data: bytes) -> bytes:
    """Return the data of an ASDF extension with the ``meta.background`` that was hidden, and no other one.

    A program that saved the file since has written our sky into the tree.
    """
    return _edited(erase_background(data), _HIDDEN, lambda line: b" " + line[1:])


def _edited(data: bytes, lines: re.Pattern[bytes], edit: Callable[[bytes], bytes]) -> bytes:
    """The data with lines of ``meta`` changed, unless the tree refers to them or ``meta`` holds nothing else."""
    meta = _META.search(data, 0, data.find(_END_OF_TREE) + 1)
    found = lines.search(data, meta.start(), meta.end()) if meta else None
    if meta is None or found is None or b"&" in found[0]:
        return data
    new = _LINE.sub(lambda line: edit(line[0]), found[0])
    changed = meta[0].replace(found[0], new, 1)
    if not _ENTRY.search(changed):
        return data
    return data[: meta.start()] + changed + data[meta.end() :]
