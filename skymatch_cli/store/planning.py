"""Names of images -> a plan: headers are read, footprints traced and intersected, no pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TextIO

import numpy as np

from skymatch_cli.choices import Method, Model
from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.images.image import read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.images.known import Headers, Known
from skymatch_cli.images.names import NamedFile
from skymatch_cli.model import OverlapGraph
from skymatch_cli.model.warning import skipped
from skymatch_cli.run.tasks import NoProgress, Progress
from skymatch_cli.run.threads import one_thread
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.sky.overlap import overlap_graph
from skymatch_cli.store.plan import Plan

ImageName = str | PathLike[str] | NamedFile


@one_thread()
def plan(
    images: Sequence[ImageName],
    settings: Settings,
    *,
    progress: Progress | None = None,
    stdin: TextIO | None = None,
    to_change: bool = False,
    headers: Headers | None = None,
) -> Plan:
    """Read the headers, trace the footprints and intersect them; no pixel is read.

    ``to_change``: the files themselves shall be changed later, so URLs are refused. ``headers``: those of an
    earlier plan, which are used where files and settings are the same.

    Raises
    ------
    InputError
        If inputs can't be used (all are listed) and ``settings.skip_bad`` is not set.
    """
    on_sky = settings.method != Method.USER
    (progress or NoProgress()).stage("headers", 0)
    known = Known(headers, settings, need_wcs=on_sky)
    inputs = resolve_images(images, settings=settings, stdin=stdin, to_change=to_change, known=known)
    found = read_infos(inputs, settings, need_wcs=on_sky, progress=progress, known=known)
    (progress or NoProgress()).stage("geometry", 0)
    traced = [header.footprint for header in found.headers] if on_sky else []
    lost = [t for t in traced if isinstance(t, InputError)]
    problems = (*inputs.problems, *found.problems, *(p for error in lost for p in error.problems))
    if problems and (not settings.skip_bad or len(lost) == len(found.infos)):
        raise InputError(problems)
    footprints = tuple(t for t in traced if isinstance(t, Footprint))
    usable = [isinstance(t, Footprint) for t in traced] or [True] * len(found.infos)
    sets = [info.split for info, use in zip(found.infos, usable, strict=True) if use]
    if settings.model != Model.CONSTANT and len(set(sets)) > 1:
        raise UsageError(
            f"--model {settings.model}: the images are of {len(set(sets))} sets (--split-by)",
            "match the sets one by one, or use --model constant",
        )
    graph = _of_one_set(overlap_graph(footprints), sets)
    check_model(settings, graph)
    return Plan(
        settings=settings,
        infos=tuple(info for info, use in zip(found.infos, usable, strict=True) if use),
        footprints=footprints,
        graph=graph,
        skipped=inputs.skipped,
        warnings=(*skipped(problems), *inputs.warnings, *found.warnings),
        headers=Headers(known.rules, {inputs.real[path]: file for path, file in inputs.files.items()}, found.headers),
    )


def _of_one_set(graph: OverlapGraph, split: Sequence[str]) -> OverlapGraph:
    """The overlaps of images of the same set (``--split-by``)."""
    if len(set(split)) <= 1:
        return graph
    _, number = np.unique(np.array(split, object), return_inverse=True)
    return graph.part(np.flatnonzero(number[graph.a] == number[graph.b]))


def check_model(settings: Settings, graph: OverlapGraph) -> None:
    """UsageError where a tilt would need one tangent plane for a field that has several."""
    if settings.model != Model.CONSTANT and len(graph.planes) > 1:
        raise UsageError(
            f"--model {settings.model}: the field is wider than one tangent plane (20 degrees), "
            f"it needs {len(graph.planes)}",
            "match its parts one by one, or use --model constant",
        )
