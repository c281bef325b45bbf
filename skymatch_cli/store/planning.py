"""Names of images -> plan: read headers, trace footprints and intersect them.

Pixels are read only where this program subtracted a sky before: to check that no other program changed them since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, TextIO

import numpy as np

from skymatch_cli.choices import Method, Model
from skymatch_cli.errors import InputError, Problem, UsageError
from skymatch_cli.images.image import Infos, read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.images.known import Headers, Known
from skymatch_cli.images.names import NamedFile
from skymatch_cli.model import ImageInfo, OverlapGraph, SkyWarning, set_numbers
from skymatch_cli.model.warning import skipped
from skymatch_cli.run.tasks import NO_PROGRESS, Progress
from skymatch_cli.run.threads import one_thread
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.sky.overlap import overlap_graph

if TYPE_CHECKING:
    from skymatch_cli.store.store import Store

ImageName = str | PathLike[str] | NamedFile


@dataclass(frozen=True, slots=True)
class Plan:
    """Images and overlaps, as the headers give them."""

    settings: Settings
    infos: Sequence[ImageInfo]  # the N images that can be used
    footprints: tuple[Footprint, ...]  # one for each image; none with the method ``user``, which needs no WCS
    graph: OverlapGraph
    skipped: tuple[str, ...]  # inputs and HDUs that are not used, and why
    warnings: tuple[SkyWarning, ...]
    # the headers that were read, for a later plan; empty in a plan that comes from a file
    headers: Headers = field(default_factory=Headers)


@one_thread()
def plan(
    images: Sequence[ImageName],
    settings: Settings,
    *,
    progress: Progress = NO_PROGRESS,
    stdin: TextIO | None = None,
    to_change: bool = False,
    store: Store | None = None,
) -> Plan:
    """Read the headers, trace the footprints and intersect them.

    ``to_change``: the files will be changed in place later, so URLs are refused. ``store``: where an earlier plan is,
    of which headers and overlaps are used where files and settings are the same. InputError if inputs can't be used
    (all are listed) and ``settings.skip_bad`` is not set.
    """
    on_sky = settings.method != Method.USER
    progress.stage("headers", 0)
    known = Known(None if store is None else store.headers(), settings, need_wcs=on_sky)
    inputs = resolve_images(images, settings=settings, stdin=stdin, to_change=to_change, known=known)
    found = read_infos(inputs, settings, need_wcs=on_sky, progress=progress, known=known)
    progress.stage("geometry", 0)
    traced = [header.footprint for header in found.headers] if on_sky else []
    lost = [t.problems if isinstance(t, InputError) else () for t in traced] or [()] * len(found.infos)
    changed = _changed(found, known, settings)
    usable = [not (t or c) for t, c in zip(lost, changed, strict=True)]
    here = (problem for one in (*lost, *changed) for problem in one)
    problems = tuple(dict.fromkeys((*inputs.problems, *found.problems, *here)))
    if problems and not (settings.skip_bad and any(usable)):
        raise InputError(problems)
    footprints = tuple(t for t, use in zip(traced, usable, strict=False) if use and isinstance(t, Footprint))
    infos = tuple(info for info, use in zip(found.infos, usable, strict=True) if use)
    untouched = tuple(header for header, problem in zip(found.headers, changed, strict=True) if not problem)
    headers = Headers(known.rules, {inputs.real[path]: file for path, file in inputs.files.items()}, untouched)
    graph = None if store is None else store.graph_of(headers)
    if graph is None:
        graph = _shared_graph(infos, footprints)
    check_model(settings, graph)
    warnings = (*skipped(problems), *inputs.warnings, *found.warnings)
    return Plan(settings, infos, footprints, graph, inputs.skipped, warnings, headers)


def _changed(found: Infos, known: Known, settings: Settings) -> list[tuple[Problem, ...]]:
    """Return the problems of each image whose pixels another program changed; known headers were checked before."""
    written = (info.recorded is not None and info.recorded.subtracted for info in found.infos)
    new = (not known.has(header) for header in found.headers)
    check = [n for n, flags in enumerate(zip(written, new, strict=True)) if all(flags)]
    problems: list[tuple[Problem, ...]] = [()] * len(found.infos)
    if check:
        from skymatch_cli.record.precision import changed_pixels

        for n, found_here in zip(check, changed_pixels([found.infos[n] for n in check], settings), strict=True):
            problems[n] = found_here
    return problems


def _shared_graph(infos: Sequence[ImageInfo], footprints: Sequence[Footprint]) -> OverlapGraph:
    """The overlaps of images of the same set (``--split-by``, planes of cubes).

    The planes of a cube lie in one place: their footprints are intersected once.
    """
    sets = set_numbers(infos)
    if not footprints or not sets.any():
        return overlap_graph(footprints)
    places: dict[object, dict[int, int]] = {}  # the image of every set that lies in a place
    for i, (info, own) in enumerate(zip(infos, sets.tolist(), strict=True)):
        place = i if info.ref.part.plane is None else (info.ref.path, info.ref.hdu, info.ref.section)
        places.setdefault(place, {})[own] = i
    images = list(places.values())
    graph = overlap_graph([footprints[min(of_set.values())] for of_set in images])
    columns = zip(graph.a.tolist(), graph.b.tolist(), graph.plane.tolist(), strict=True)
    pairs = sorted(
        (*sorted((i, images[there][own])), plane, row)
        for row, (here, there, plane) in enumerate(columns)
        for own, i in images[here].items()
        if own in images[there]
    )
    a, b, plane, row = np.array(pairs, np.int64).reshape(-1, 4).T.copy()
    return OverlapGraph(len(infos), a, b, graph.area_arcmin2[row], graph.polygon.part(row), plane, graph.planes)


def check_model(settings: Settings, graph: OverlapGraph) -> None:
    """UsageError where a tilt would need one tangent plane for a field that has several."""
    if settings.model != Model.CONSTANT and len(graph.planes) > 1:
        what = f"the field is wider than one tangent plane (20 degrees), it needs {len(graph.planes)}"
        hint = "match its parts one by one, or use --model constant"
        raise UsageError(f"--model {settings.model}: {what}", hint)
