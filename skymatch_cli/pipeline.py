"""plan -> measure -> solve -> apply: the only place that knows the order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TextIO

from . import methods
from .choices import Compare, Method
from .errors import InputError, Problem, StrictError
from .execution import NoProgress, Progress, run
from .footprint import Footprint, footprint
from .image import read_infos
from .inputs import resolve_images
from .lookup import find_reference, read_skylist
from .measure import measure_pooled, unmeasured
from .measure_mesh import measure_mesh
from .model import ImageInfo, Measurements, OverlapGraph
from .overlap import overlap_graph
from .record import FileIdentity, SkyUpdate, WriteReport, check_writable, write_skies
from .result import Result
from .settings import Settings

ImageName = str | PathLike[str]

_NEEDS_OVERLAPS = frozenset({Method.MATCH, Method.GLOBALMIN_MATCH})
_NEEDS_LOCAL = frozenset({Method.LOCALMIN, Method.GLOBALMIN, Method.GLOBALMIN_MATCH})


@dataclass(frozen=True, slots=True)
class Plan:
    """What the headers alone say.

    Attributes
    ----------
    settings : Settings
    infos : tuple of ImageInfo
        The N images that can be used.
    footprints : tuple of Footprint
        One for each image; none with the method ``user``, which needs no WCS.
    graph : OverlapGraph
    skipped : tuple of str
        Inputs and HDUs that are not used, and why.
    warnings : tuple of str
    """

    settings: Settings
    infos: tuple[ImageInfo, ...]
    footprints: tuple[Footprint, ...]
    graph: OverlapGraph
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


def match(images: Sequence[ImageName], settings: Settings, *, progress: Progress | None = None) -> Result:
    """Find the overlaps, measure them, solve for the skies, and record or subtract them.

    Raises
    ------
    InputError
        If an input can't be used; nothing was written.
    NoOverlapError
        If the method needs overlaps and there are none.
    StrictError
        If there were warnings and ``settings.strict`` is set; no image was written.
    """
    result = evaluate(images, settings, progress=progress)
    check_strict(result)
    if not settings.dry_run:
        apply(result, progress=progress)
    return result


def evaluate(
    images: Sequence[ImageName], settings: Settings, *, progress: Progress | None = None, stdin: TextIO | None = None
) -> Result:
    """Plan, measure and solve; no file is written.

    Raises
    ------
    InputError
        If an input can't be used, or (unless ``settings.dry_run``) can't be written later: found before the
        pixels are read.
    """
    planned = plan(images, settings, progress=progress, stdin=stdin)
    if not settings.dry_run and (problems := check_writable(_updates(planned.infos, settings), settings)):
        raise InputError(problems)
    measurements, warnings = measure(planned, progress=progress)
    (progress or NoProgress()).stage("solve", 0)
    return solve(planned, measurements, warnings)


def plan(
    images: Sequence[ImageName], settings: Settings, *, progress: Progress | None = None, stdin: TextIO | None = None
) -> Plan:
    """Read the headers, trace the footprints and intersect them; no pixel is read.

    Raises
    ------
    InputError
        If inputs can't be used (all are listed) and ``settings.skip_bad`` is not set.
    """
    on_sky = settings.method != Method.USER
    (progress or NoProgress()).stage("headers", 0)
    inputs = resolve_images(images, settings=settings, stdin=stdin)
    found = read_infos(inputs, settings, need_wcs=on_sky, progress=progress)
    traced = _trace(found.infos, settings, progress) if on_sky else []
    lost = [t for t in traced if isinstance(t, InputError)]
    problems = (*inputs.problems, *found.problems, *(p for error in lost for p in error.problems))
    if problems and (not settings.skip_bad or len(lost) == len(found.infos)):
        raise InputError(problems)
    footprints = tuple(t for t in traced if isinstance(t, Footprint))
    usable = [isinstance(t, Footprint) for t in traced] or [True] * len(found.infos)
    return Plan(
        settings=settings,
        infos=tuple(info for info, use in zip(found.infos, usable, strict=True) if use),
        footprints=footprints,
        graph=overlap_graph(footprints),
        skipped=inputs.skipped,
        warnings=(*_skipped(problems), *found.warnings),
    )


def measure(planned: Plan, *, progress: Progress | None = None) -> tuple[Measurements, tuple[str, ...]]:
    """Read the pixels once and measure every overlap that the method needs, and the images' own skies if it does.

    Raises
    ------
    InputError
        If pixels can't be read and ``settings.skip_bad`` is not set.
    """
    settings = planned.settings
    if settings.method == Method.USER:
        return unmeasured(planned.graph, len(planned.infos)), ()
    (progress or NoProgress()).stage("pixels", len(planned.infos))
    measure_all = measure_mesh if settings.compare == Compare.MESH else measure_pooled
    measurements, problems, warnings = measure_all(
        planned.infos, planned.graph, settings, with_local=settings.method in _NEEDS_LOCAL, progress=progress
    )
    if problems and not settings.skip_bad:
        raise InputError(problems)
    return measurements, (*_skipped(problems), *warnings)


def solve(planned: Plan, measurements: Measurements, warnings: tuple[str, ...] = ()) -> Result:
    """Measurements to the sky of every image, by the method of the settings."""
    settings = planned.settings
    refs = [info.ref for info in planned.infos]
    reference = None
    if settings.reference is not None:
        reference = find_reference(settings.reference, refs, [info.group for info in planned.infos])
    skylist = None if settings.skylist is None else read_skylist(settings.skylist, refs)
    solution = methods.solve_skies(
        settings.method,
        planned.infos,
        measurements,
        reference=reference,
        match_up=settings.match_up,
        skylist=skylist,
        max_residual=settings.max_residual,
    )
    return Result(
        settings=settings,
        infos=planned.infos,
        measurements=measurements,
        solution=solution,
        warnings=(*planned.warnings, *warnings, *solution.warnings),
        skipped=planned.skipped,
    )


def check_strict(result: Result) -> None:
    """StrictError if there were warnings and the settings allow none."""
    if result.settings.strict and result.warnings:
        n = len(result.warnings)
        raise StrictError(f"{n} warning{'s' if n > 1 else ''} with --strict", "no image was written")


def apply(result: Result, *, progress: Progress | None = None) -> WriteReport:
    """Record the skies of a result in the images, or subtract them.

    Raises
    ------
    InputError
        If an image can't be written; found before the first one is touched wherever possible.
    """
    solution = result.solution
    skies = zip(solution.sky.tolist(), solution.sky_err.tolist(), strict=True)
    return write_skies(_updates(result.infos, result.settings, skies), result.settings, progress=progress)


def _updates(
    infos: Sequence[ImageInfo], settings: Settings, skies: Iterable[tuple[float, float]] | None = None
) -> list[SkyUpdate]:
    """What is to be written; without skies: to ask whether it could be."""
    return [
        SkyUpdate(ref=info.ref, sky=sky, sky_err=err, method=settings.method, identity=_identity(info))
        for info, (sky, err) in zip(infos, skies or [(0.0, 0.0)] * len(infos), strict=True)
    ]


def _identity(info: ImageInfo) -> FileIdentity | None:
    if info.source is None:
        return None
    return FileIdentity(info.source.science.size, info.source.science.mtime_ns)


def _trace(infos: Sequence[ImageInfo], settings: Settings, progress: Progress | None) -> list[Footprint | InputError]:
    """The footprint of every image, or why it has none."""

    def trace(info: ImageInfo) -> Footprint | InputError:
        if info.wcs is None:
            return InputError.at(info.ref.label, "has no celestial WCS", "solve its astrometry first")
        try:
            return footprint(info.wcs, info.ref.label)
        except InputError as error:
            return error

    (progress or NoProgress()).stage("geometry", len(infos))
    return list(run(trace, infos, jobs=settings.jobs, progress=progress))


def _skipped(problems: Sequence[Problem]) -> tuple[str, ...]:
    return tuple(f"skipped: {problem}" for problem in problems)
