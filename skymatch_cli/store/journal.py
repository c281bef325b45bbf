"""Findings of an interrupted run, for the run that finishes it (see `record.journal`)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from skymatch_cli.choices import Method
from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import real_path
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.source import open_source
from skymatch_cli.images.known import Headers
from skymatch_cli.model import ImageInfo, Journal, set_numbers
from skymatch_cli.record.edits import SkyUpdate, record_edits
from skymatch_cli.record.journal import journal_path
from skymatch_cli.record.updates import sky_updates
from skymatch_cli.settings import Settings
from skymatch_cli.store.findings import Findings, StoredFindings
from skymatch_cli.store.held import HeldFindings
from skymatch_cli.store.keys import image_states
from skymatch_cli.store.measuring import gather
from skymatch_cli.store.plan import Plan
from skymatch_cli.store.renewing import renewed
from skymatch_cli.store.rows import settings_json
from skymatch_cli.store.solving import solve
from skymatch_cli.store.store import Store

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result


def needs_journal(infos: Sequence[ImageInfo], settings: Settings) -> bool:
    """Whether a run that stops halfway leaves files in which others would be measured by a rounding differently."""
    if settings.method == Method.USER:
        return False
    floats = any(i.source.original is None and i.source.science.bitpix < 0 for i in infos)
    return floats and len({real_path(info.ref.path) for info in infos}) > 1


def scratch_store(planned: Plan) -> Store | None:
    """A store without a name for the findings of cubes, so that memory holds those of a plane at a time."""
    if len(set(set_numbers(planned.infos).tolist())) < 2:
        return None
    store = Store("", write=True, create=True)
    store.save_plan(replace(planned, headers=Headers()))
    return store


def journal_of(planned: Plan, found: Findings | None = None) -> Journal:
    """The journal of a run; without what it ``found`` it is there already."""
    path = journal_path(real_path(info.ref.path) for info in planned.infos)
    return Journal(path, None if found is None else partial(_write, planned, found))


def _write(planned: Plan, found: Findings, stream: BinaryIO) -> None:
    with tempfile.TemporaryDirectory(prefix="skymatch-") as folder:
        file = Path(folder, "journal")
        with Store(str(file), write=True, create=True) as store:
            store.save_plan(replace(planned, headers=Headers()))
            kept = StoredFindings(planned, store, store, with_local=False)
            for image, finding in enumerate(found):
                if finding is not None:
                    kept.put(image, finding)
            kept.flush()
        with file.open("rb") as whole:
            shutil.copyfileobj(whole, stream)


def resumed(planned: Plan) -> Result | None:
    """The result of a run that was interrupted while it wrote, if its files are as it left them."""
    if (left := left_behind(planned)) is None:
        return None
    before, found = left
    result = solve(before, *gather(before, found))
    solution = result.solution
    updates = sky_updates(before.infos, before.settings, solution.sky, solution.sky_err, solution.tilt)
    if not is_as_left(before, updates, planned):
        return None
    return replace(result, infos=tuple(planned.infos), journal=journal_of(planned))


def left_behind(planned: Plan) -> tuple[Plan, HeldFindings] | None:
    """Plan and findings of an interrupted run with the same files and settings, if there is one."""
    path = journal_of(planned).path
    if not Path(path).is_file():
        return None
    try:
        with Store(path) as store:
            plan = store.plan()
            found = HeldFindings(StoredFindings(plan, store, with_local=False))
            infos, polygon = tuple(plan.infos), plan.graph.polygon.part(np.arange(len(plan.graph.polygon)))
    except InputError:
        return None  # another version, or damaged: measure again
    settings = planned.settings
    same = (
        settings_json(plan.settings) == settings_json(settings)
        and [info.ref for info in infos] == [info.ref for info in planned.infos]
        and all(finding is not None for finding in found)
    )
    graph = replace(plan.graph, polygon=polygon)
    before = replace(plan, settings=settings, infos=infos, graph=graph)
    return (before, found) if same else None


def is_as_left(left: Plan, updates: Sequence[SkyUpdate], planned: Plan) -> bool:
    """Whether every file is as it was when it was measured, or as the interrupted run would have left it.

    ``left`` is the plan of that run, ``updates`` what it was to write, ``planned`` the plan of the files as they are
    now.
    """
    settings = planned.settings
    of_file: dict[str, list[int]] = {}
    for i, (before, now) in enumerate(zip(left.infos, planned.infos, strict=True)):
        if before.source.science.state != now.source.science.state:
            of_file.setdefault(real_path(now.ref.path), []).append(i)
    if not all(_is_written([updates[i] for i in images], settings) for images in of_file.values()):
        return False
    fresh, here, there = renewed(left.infos, of_file), planned.graph, left.graph
    columns = ((getattr(one, name) for one in (here, there)) for name in ("a", "b", "plane", "area_arcmin2"))
    return (
        all(np.array_equal(*both) for both in columns)
        and image_states(fresh) == image_states(planned.infos)
        and list(map(_facts, fresh)) == list(map(_facts, planned.infos))
    )


def _facts(info: ImageInfo) -> tuple[object, ...]:
    """Properties that the solution depends on, apart from pixels and overlaps."""
    return info.group, info.unit, info.to_comparison, info.comparison_unit


def _is_written(updates: Sequence[SkyUpdate], settings: Settings) -> bool:
    """Whether the images of one file hold their skies already."""
    ref = updates[0].ref
    with open_source(read_structure(ref.path, ref.label)) as source:
        return not record_edits(source, updates, settings)
