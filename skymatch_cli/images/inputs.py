"""Names given by the user -> images to use: one ImageRef per HDU, and the names that were skipped."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path
from typing import TextIO

from skymatch_cli.choices import Planes, WarningName
from skymatch_cli.errors import InputError, Problem, caught
from skymatch_cli.images.companions import Role, extension, role_of, science_planes
from skymatch_cli.images.formats.files import is_remote, real_paths
from skymatch_cli.images.formats.fitsfile import FitsFile, Hdu, read_structure
from skymatch_cli.images.known import Known
from skymatch_cli.images.lookup import ImageFinder
from skymatch_cli.images.names import NamedFile, check_template, expand_names, file_of, fill_template
from skymatch_cli.images.sidecars import NO_IMAGE, Companions
from skymatch_cli.model import FileState, ImageRef, Part, Section, SkyWarning
from skymatch_cli.model.section import parse_section
from skymatch_cli.run.tasks import run_apart
from skymatch_cli.settings import Settings

_OURS = "skymatch "  # CREATOR of the results of this program
_FEW_PLANES = 3  # of a colour camera
_SPECTRAL = re.compile("WAVE|AWAV|FREQ|ENER|WAVN|VRAD|VOPT|ZOPT|VELO|BETA|FELO")  # CTYPE, FITS Standard 4.0, table 25
_PIXELS_A_STRUCTURE = 3_000  # that are read in the time that the structure of a file takes


@dataclass(frozen=True, slots=True)
class Inputs:
    """The images that the user named."""

    refs: tuple[ImageRef, ...]  # in the order in which they were named
    skipped: tuple[str, ...]  # HDUs and files that are not used, and why; for the log
    problems: tuple[Problem, ...]  # every name that can't be used
    files: Mapping[str, FitsFile]  # the structure of each file, by ``ImageRef.path``
    real: Mapping[str, str]  # where each of these paths leads when all links are followed
    warnings: tuple[SkyWarning, ...] = ()  # choices among the planes of a file that nothing in it confirms


def resolve_images(
    names: Sequence[str | os.PathLike[str] | NamedFile],
    *,
    settings: Settings,
    stdin: TextIO | None = None,
    to_change: bool = False,
    known: Known | None = None,
) -> Inputs:
    """Find the images that the user means; what can't be used is in ``problems``.

    UsageError if ``settings.mask`` is not a template; InputError if files behind URLs would have to be changed.

    Names are ``a.fits``, ``a.fits[SCI]``, ``a.fits[SCI,2]``, ``a.fits[3]``, ``a.fits[*]``, quoted globs, ``@list.txt``,
    ``-`` (``stdin``). Without a selector: all 2-D ``SCI`` extensions, else all 2-D images with a celestial WCS whose
    names don't say mask, weight, variance, error or DQ. ``to_change``: the files themselves shall be changed, so URLs
    are refused before anything is read. ``known`` are files that need not be read.
    """
    if settings.mask is not None:
        check_template("--mask", settings.mask)
    named, problems = _named(names, stdin, to_change=to_change)
    skipped = [f"{name.file}: not used: {name.left_out}" for name in named if name.left_out]
    named = tuple(name for name in named if not name.left_out)
    companions = Companions(named)
    skipped += companions.notes()
    warnings = [*companions.doubts(named)]
    named = tuple(name for name in named if not companions.holds(name))
    paths = tuple(dict.fromkeys(name.path for name in named))
    real = dict(zip(paths, real_paths(paths), strict=True))
    structures = _structures(named, real, known, settings.jobs)
    files: dict[str, FitsFile] = {}
    refs: dict[tuple[str, int, Part], ImageRef] = {}
    linked: dict[FileState, str] = {}
    for name in named:
        try:
            if isinstance(file := structures[name.path], InputError):
                raise file
            if file.creator.startswith(_OURS):
                skipped.append(f"{name.file}: {NO_IMAGE}: a result of this program")
                continue
            chosen, texts = _choose(file, name, settings)
        except InputError as error:
            problems.extend(error.problems)
            continue
        files[name.path] = file
        place = real[name.path]
        if file.state[-1] and not to_change:  # hard links to a file to be changed are refused later
            place = linked.setdefault(file.state, place)
        warnings += (SkyWarning(WarningName.PLANES, text) for text in texts)
        skipped += _left_out(file, name, chosen)
        called = Counter((hdu.name.upper(), hdu.ver) for hdu in file.hdus)
        for hdu in chosen:
            alone = called[hdu.name.upper(), hdu.ver] == 1
            images = caught(_images, name, hdu if alone else replace(hdu, name=""), companions, settings.mask)
            if isinstance(images, InputError):
                problems.extend(images.problems)
                continue
            if (place, hdu.index, images[0].part) in refs:
                skipped.append(f"{images[0].hdu_label}: named twice, used once")
            for ref in images:
                refs.setdefault((place, hdu.index, ref.part), ref)
    problems += _overlapping(refs)
    found = Inputs(tuple(refs.values()), tuple(skipped), tuple(dict.fromkeys(problems)), files, real, tuple(warnings))
    return _with_reference(found, settings, known)


def _named(
    names: Sequence[str | os.PathLike[str] | NamedFile], stdin: TextIO | None, *, to_change: bool
) -> tuple[tuple[NamedFile, ...], list[Problem]]:
    named, problems = expand_names(names, stdin)
    if to_change and (remote := [name.file for name in named if is_remote(name.path)]):
        hint = "write copies with --output-dir, or results alone with --dry-run"
        raise InputError(Problem(url, "files behind a URL are not changed", hint) for url in dict.fromkeys(remote))
    return named, list(problems or ([] if named else [Problem("images", "none was named")]))


def _with_reference(found: Inputs, settings: Settings, known: Known | None) -> Inputs:
    """Add the image of ``--reference`` if it is a file that is not among the inputs."""
    name = settings.reference
    if name is None or ImageFinder(found.refs).find(name):
        return found
    try:
        file = file_of(name)
    except ValueError:
        return found
    if not is_remote(file) and not Path(file).is_file():
        return found
    extra = resolve_images([name], settings=replace(settings, reference=None), known=known)
    return Inputs(
        (*found.refs, *(replace(ref, read_only=True) for ref in extra.refs)),
        (*found.skipped, *extra.skipped),
        (*found.problems, *extra.problems),
        {**extra.files, **found.files},
        {**extra.real, **found.real},
        (*found.warnings, *extra.warnings),
    )


def _structures(
    named: Sequence[NamedFile], real: Mapping[str, str], known: Known | None, jobs: int
) -> dict[str, FitsFile | InputError]:
    spelled: dict[str, str] = {}
    for name in named:
        spelled.setdefault(name.path, name.file)
    found: dict[str, FitsFile | InputError] = {}
    if known is not None:
        found = {path: file for path in spelled if (file := known.file(path, real[path])) is not None}
    new = [(path, where) for path, where in spelled.items() if path not in found]
    read = run_apart(_structure, new, jobs=jobs, n_pixels=_PIXELS_A_STRUCTURE * len(new))
    return found | {path: file for (path, _), file in zip(new, read, strict=True)}


def _structure(name: tuple[str, str]) -> FitsFile | InputError:
    return caught(read_structure, *name)


def _ref(name: NamedFile, hdu: Hdu) -> ImageRef:
    return ImageRef(file=name.file, path=name.path, hdu=hdu.index, ext=hdu.name, extver=hdu.ver, group=name.group)


def _images(name: NamedFile, hdu: Hdu, companions: Companions, template: str | None) -> list[ImageRef]:
    """The parts of an HDU that are images (all of it or a section, of a cube each plane or one), with their mask.

    An HDU without a name, or with one that others have too, is called by its number.
    InputError if the section is not within the HDU, or ``--mask`` can't be filled for it.
    """
    ref = replace(companions.attach(_ref(name, hdu)), mask=name.mask)
    if ref.mask is None and template is not None:
        ref = replace(ref, mask=fill_template("--mask", template, ref))
    planes: Sequence[int | None] = [None] if hdu.cube_axis is None else range(hdu.n_planes)
    if not name.section or hdu.plane_shape is None:
        return [replace(ref, part=Part(plane)) for plane in planes]
    try:
        _, chosen = parse_section(name.section)
        if chosen is not None and chosen >= hdu.n_planes:
            raise ValueError(f"goes beyond the last plane of the image, {hdu.n_planes}")
        section = Section.of(name.section, hdu.plane_shape)
    except ValueError as error:
        what = f"its section [{name.section}] {error}"
        raise InputError.at(ref.label, what, "columns first, counted from 1") from None
    own = None if section.is_whole else section
    return [replace(ref, part=Part(plane, own)) for plane in planes if plane is None or chosen in {None, plane}]


def _overlapping(refs: Mapping[tuple[str, int, Part], ImageRef]) -> Iterator[Problem]:
    """Yield a problem for images that share pixels; ``refs`` by file, HDU and part."""
    of_plane: dict[tuple[str, int, int | None], list[ImageRef]] = {}
    for (real, hdu, part), ref in refs.items():
        of_plane.setdefault((real, hdu, part.plane), []).append(ref)
    for one, other in chain.from_iterable(combinations(own, 2) for own in of_plane.values()):
        if one.part.overlaps(other.part):
            named = f"the section {other.section}" if other.section else "all of the image"
            what = f"shares pixels with {named}, which is named too: a pixel can have only one sky"
            yield Problem(one.label, what, "name sections that don't overlap")


def _choose(file: FitsFile, name: NamedFile, settings: Settings) -> tuple[tuple[Hdu, ...], tuple[str, ...]]:
    """Select the HDUs of a name, with warnings; InputError if there are none or one is not an image."""
    need_wcs = settings.method != "user"
    if name.selector is None:
        return _default_hdus(file, name.file, settings, need_wcs=need_wcs)
    chosen = tuple(hdu for hdu in file.hdus if name.selector.fits(hdu.index, hdu.name, hdu.ver))
    if name.selector.name == "*":
        chosen = tuple(hdu for hdu in chosen if hdu.image_shape and (hdu.celestial or not need_wcs))
    if not chosen:
        listed = ", ".join(map(extension, file.hdus[:20]))
        raise InputError.at(f"{name.file}{name.selector}", "there is no such image extension", f"the file has {listed}")
    refused = (hdu for hdu in chosen if hdu.image_shape is None and not _is_matched_by_plane(hdu, settings))
    problems = [Problem(_ref(name, hdu).label, *_why_no_image(hdu)) for hdu in refused]
    if problems:
        raise InputError(problems)
    flags = [_ref(name, hdu).label for hdu in chosen if role_of(hdu.name) is Role.FLAGS]
    return chosen, tuple(f"{label} holds flags, by its name: it is matched as an image" for label in flags)


def _are_images(planes: Iterable[Hdu]) -> bool:
    """Whether one of the HDUs has the name of an image, such as DATA of MUSE (FIELDMAP is not one)."""
    return any(role_of(hdu.name) is Role.IMAGE for hdu in planes)


def _is_matched_by_plane(hdu: Hdu, settings: Settings) -> bool:
    """Whether the planes of a cube are matched as images: with --planes each, or a few colour planes."""
    if hdu.cube_axis is None:
        return False
    few = hdu.n_planes <= _FEW_PLANES and not _SPECTRAL.match(hdu.cube_axis)
    return few or settings.planes == Planes.EACH


def _default_hdus(
    file: FitsFile, where: str, settings: Settings, *, need_wcs: bool
) -> tuple[tuple[Hdu, ...], tuple[str, ...]]:
    chosen, warnings = science_planes(file, where, need_wcs=need_wcs)
    cubes, of_cubes = science_planes(file, where, need_wcs=True, cubes=True)
    if chosen and not (_are_images(cubes) and not _are_images(chosen)):
        return chosen, warnings
    if cubes:
        warnings = of_cubes
        if refused := [hdu for hdu in cubes if not _is_matched_by_plane(hdu, settings)]:
            raise InputError(Problem(f"{where}{_index(hdu)}", *_why_no_image(hdu)) for hdu in refused)
        return cubes, warnings
    if need_wcs and (images := science_planes(file, where, need_wcs=False)[0]):
        raise InputError.at(where, *images[0].why_no_wcs)
    with_pixels = [h for h in file.hdus if h.is_image and h.shape] or [h for h in file.hdus if not h.is_image]
    if not with_pixels:
        raise InputError.at(where, "holds no image")
    first = with_pixels[0]
    if first.image_shape:
        raise InputError.at(where, "holds only masks, weights or errors, by their names", "name one: FILE[EXT]")
    raise InputError.at(f"{where}{_index(first)}", *_why_no_image(first))


def _index(hdu: Hdu) -> str:
    return f"[{hdu.index}]" if hdu.index else ""


def _why_no_image(hdu: Hdu) -> tuple[str, str]:
    """Return why an HDU is not a two-dimensional image, and a hint."""
    if not hdu.is_image:
        what = "a table" if hdu.index else "random groups (visibilities)"
        return f"is {what}, not an image", "name a file that holds an image"
    if not hdu.shape or 0 in hdu.shape:
        return "has no pixels", "name another extension: FILE[EXT]"
    if len(hdu.shape) == 1:
        return f"is one-dimensional ({hdu.shape[0]} pixels)", "only images of the sky can be matched"
    size = " × ".join(map(str, hdu.shape))
    if hdu.cube_axis is None:
        what = f"is a cube ({size}) whose axes are not longitude, latitude and one more"
        return what, "extract one plane into a file of its own"
    return f"is a cube ({size})", f"--planes each matches each of its {hdu.n_planes} planes by itself"


def _left_out(file: FitsFile, name: NamedFile, chosen: Iterable[Hdu]) -> list[str]:
    """A line that names the image extensions that the default choice leaves out."""
    used = {hdu.index for hdu in chosen}
    left = [extension(h) for h in file.hdus if h.is_image and h.shape and h.index not in used]
    return [f"{name.file}: not taken for images: {', '.join(left)}"] if left and name.selector is None else []
