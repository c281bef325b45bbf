"""What an interrupted run measured, found again by the run that finishes it (see `record.journal`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from skymatch_cli.choices import Method
from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import real_path
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.source import open_source
from skymatch_cli.model import ImageInfo, Journal
from skymatch_cli.output.destination import write_through
from skymatch_cli.record.edits import SkyUpdate, record_edits
from skymatch_cli.record.journal import journal_path
from skymatch_cli.settings import Settings
from skymatch_cli.store.findings import Measured, image_keys, renewed
from skymatch_cli.store.plan import Plan
from skymatch_cli.store.store import read_measured, write_measured


def needs_journal(infos: Sequence[ImageInfo], settings: Settings) -> bool:
    """Whether a run that stops halfway leaves files in which others would be measured by a rounding differently."""
    if settings.method == Method.USER:
        return False
    floats = any(i.source is not None and i.source.original is None and i.source.science.bitpix < 0 for i in infos)
    return floats and len({real_path(info.ref.path) for info in infos}) > 1


def journal_of(planned: Plan, measured: Measured | None = None) -> Journal:
    """The journal of a run; without ``measured`` it is there already."""
    path = journal_path(real_path(info.ref.path) for info in planned.infos)
    if measured is None:
        return Journal(path, None)
    return Journal(path, partial(write_through, lambda whole: write_measured(planned, measured, whole)))


def left_behind(planned: Plan) -> tuple[Plan, Measured] | None:
    """What an earlier run with the same files and settings planned and measured, if it was interrupted."""
    path = journal_of(planned).path
    if not Path(path).is_file():
        return None
    try:
        plan, measured = read_measured(path)
    except InputError:
        return None  # of another version, or damaged: all is measured anew
    settings = planned.settings
    same = (
        plan.settings.determining() == settings.determining()
        and plan.settings.sky_keyword == settings.sky_keyword
        and [info.ref for info in plan.infos] == [info.ref for info in planned.infos]
        and not len(measured.missing)
    )
    return (replace(plan, settings=settings), measured) if same else None


def is_as_left(measured: Measured, updates: Sequence[SkyUpdate], planned: Plan) -> bool:
    """Whether every file is as it was when it was measured, or as the interrupted run would have left it.

    Parameters
    ----------
    measured : Measured
        Of the interrupted run.
    updates : sequence of SkyUpdate
        What that run was to write, image by image.
    planned : Plan
        Of the files as they are now.
    """
    settings = planned.settings
    of_file: dict[str, list[int]] = {}
    for i, (before, now) in enumerate(zip(measured.infos, planned.infos, strict=True)):
        if _state(before) != _state(now):
            of_file.setdefault(real_path(now.ref.path), []).append(i)
    if not all(_is_written([updates[i] for i in images], settings) for images in of_file.values()):
        return False
    fresh, here, there = renewed(measured, of_file), planned.graph, measured.graph
    same_overlaps = all(
        np.array_equal(getattr(here, column), getattr(there, column)) for column in ("a", "b", "plane", "area_arcmin2")
    )
    return (
        same_overlaps
        and image_keys(fresh.infos, settings) == image_keys(planned.infos, settings)
        and all(_facts(before) == _facts(now) for before, now in zip(fresh.infos, planned.infos, strict=True))
    )


def _facts(info: ImageInfo) -> tuple[object, ...]:
    """What else the solution of a run rests on, beside pixels and overlaps."""
    return info.group, info.unit, info.to_comparison, info.comparison_unit


def _state(info: ImageInfo) -> tuple[int, int] | None:
    return None if info.source is None else (info.source.science.size, info.source.science.mtime_ns)


def _is_written(updates: Sequence[SkyUpdate], settings: Settings) -> bool:
    """Whether the images of one file hold their skies already."""
    ref = updates[0].ref
    with open_source(read_structure(ref.path, ref.label)) as source:
        return not record_edits(source, updates, settings)
