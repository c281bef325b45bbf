"""Find images of the run by name, for `--reference` and the lines of `--skylist`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from skymatch_cli.errors import InputError, Problem, plural
from skymatch_cli.images.formats.files import real_path, real_paths
from skymatch_cli.images.lists import read_list, words_of
from skymatch_cli.images.names import split_section, split_selector
from skymatch_cli.model import ImageRef, Section
from skymatch_cli.model.section import parse_section

_COMMA = re.compile(r",(?![^\[]*\])")  # not that of a[SCI,2]
_QUOTED = re.compile(r"""["'\\#]""")


class ImageFinder:
    """Find images of the run by the names that users give them."""

    def __init__(self, refs: Sequence[ImageRef]) -> None:
        self._refs = refs
        self._images: dict[str, list[int]] = {}  # by where the file is on the disk
        self._spelled: dict[str, set[str]] = {}  # where the files are that the user calls so
        self._of_base: dict[str, set[str]] = {}  # where the files of this base name are
        for i, (ref, real) in enumerate(zip(refs, real_paths(ref.path for ref in refs), strict=True)):
            self._images.setdefault(real, []).append(i)
            self._spelled.setdefault(ref.file, set()).add(real)
            self._of_base.setdefault(ref.path.rpartition("/")[2], set()).add(real)

    def find(self, name: str) -> tuple[int, ...]:
        """Find the images of a path, else of a base name if it is unique.

        ``[SCI,2]``, ``[SCI]`` or ``[3]`` after the name selects these HDUs, ``[1:2048,*]`` a section; without them all
        images of the file are found. Empty if no image has the name, or if several files share the base name.
        """
        name, section = split_section(name)
        file, selector = split_selector(name)
        files = self._spelled.get(file) or {real_path(file)} & self._images.keys()
        if not files and len(files := self._of_base.get(file, set())) > 1:
            return ()
        found = sorted(i for real in files for i in self._images[real])
        if selector is not None:
            refs = ((i, self._refs[i]) for i in found)
            found = [i for i, ref in refs if selector.fits(ref.hdu, ref.ext, ref.extver)]
        return tuple(i for i in found if not section or _is_section(section, self._refs[i]))


def _is_section(text: str, ref: ImageRef) -> bool:
    axes, plane = parse_section(text)
    if plane not in {None, ref.part.plane}:
        return False
    if ref.section is None:
        return axes == [None, None]
    try:
        return Section.of(text, ref.section.whole) == ref.section
    except ValueError:
        return False


def find_reference(name: str, refs: Sequence[ImageRef], groups: Sequence[str]) -> int:
    """Find the image of ``--reference``: the first, for a file whose chips form one group; else InputError."""
    found = ImageFinder(refs).find(name)
    if not found:
        what = "is not one of the images (--reference), nor another file"
        raise InputError.at(name, what, "use the name given in the list of images")
    if len({groups[i] for i in found}) > 1:
        raise InputError.at(name, "means several images (--reference)", "name one: a.fits[SCI,1]")
    return found[0]


def _name_and_skies(line: str) -> tuple[str, list[float]] | None:
    """The name and the skies in a line, which blanks or commas separate; None for an empty one, else ValueError.

    Several skies are those of the images of one file in their order, as AstroDrizzle takes them.
    """
    words = words_of(line) if _QUOTED.search(line) else line.split()
    if len(words) == 1:
        words = _COMMA.split(words[0])
    if not words:
        return None
    name, *values = words
    skies = [float(part) for value in values for part in value.split(",") if part]
    if not skies:
        raise ValueError("no sky")
    return name.removesuffix(","), skies


def _level(name: str) -> int:
    """How much of a file a name means: all of it (0), HDUs (1), or a section (2)."""
    name, section = split_section(name)
    return 2 if section else int(split_selector(name)[1] is not None)


def read_skylist(path: str, refs: Sequence[ImageRef]) -> Mapping[int, float]:
    """Read the skies given by the user: lines ``name sky`` or ``name,sky``, ``#`` comments, by index of the image.

    A line that names an HDU (``a.fits[SCI,2]``) counts before one that names its file, and one that names a section
    before both. InputError for every line that can't be understood or fits no image, and every image without a line.
    """
    try:
        lines = read_list(path).splitlines()
    except OSError as error:
        raise InputError.at(path, f"can't be read: {error.strerror}", "name a readable file with --skylist") from error
    except ValueError as error:
        raise InputError.at(path, "is not a text file (--skylist)", "lines 'name sky'") from error
    finder = ImageFinder(refs)
    levels: tuple[dict[int, float], ...] = ({}, {}, {})  # of files, HDUs, sections: the last that is named counts
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            if (parsed := _name_and_skies(line)) is None:
                continue
        except ValueError:
            hint = "quote names with spaces; a sky is a number such as -12.5e3"
            problems.append(Problem(where, f"{line.strip()!r} is not 'name sky'", hint))
            continue
        name, values = parsed
        if not all(map(math.isfinite, values)):
            problems.append(Problem(where, f"the sky {values[0]:g} is not finite"))
            continue
        found = finder.find(name)
        if not found:
            problems.append(Problem(where, f"{name} is not the path or unique base name of an image of this run"))
        elif len(values) not in {1, len(found)}:
            hint = "write decimals with a point" if len(found) == 1 else ""
            problems.append(Problem(where, f"{len(values)} skies for {plural(len(found), 'image')} of {name}", hint))
            continue
        given = levels[_level(name)]
        skies_of = zip(found, values if len(values) > 1 else values * len(found), strict=True)
        twice = (i for i, sky in skies_of if given.setdefault(i, sky) != sky)
        problems += (Problem(where, f"{refs[i].label} has two different skies") for i in twice)
    skies = levels[0] | levels[1] | levels[2]
    without = (ref for i, ref in enumerate(refs) if i not in skies)
    problems += (Problem(ref.label, f"has no sky in {path}", "add a line 'name sky'") for ref in without)
    if problems:
        raise InputError(problems)
    return skies
