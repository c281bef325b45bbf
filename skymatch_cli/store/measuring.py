"""A plan -> measurements: pixels are read, each image once, or what a store knows is recalled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skymatch_cli.choices import Compare, Method
from skymatch_cli.errors import InputError
from skymatch_cli.model import Measurements, SkyWarning
from skymatch_cli.model.warning import skipped
from skymatch_cli.run.tasks import LocalRunner, Progress, Runner
from skymatch_cli.run.threads import one_thread
from skymatch_cli.store.findings import Findings, HeldFindings, Measured, StoredFindings, assemble, measure_images
from skymatch_cli.store.plan import Plan
from skymatch_cli.store.planning import check_model
from skymatch_cli.store.store import Store

NEEDS_LOCAL = frozenset({Method.LOCALMIN, Method.GLOBALMIN, Method.GLOBALMIN_MATCH})
"""Methods that need the skies of single images."""


@one_thread()
def find(
    planned: Plan,
    *,
    with_local: bool = True,
    progress: Progress | None = None,
    runner: Runner | None = None,
    store: Store | None = None,
) -> Measured:
    """Read the pixels of the images, each once, and keep what is found in each.

    Parameters
    ----------
    planned : Plan
    with_local : bool
        Measure the images' own skies too, for methods that need them.
    progress : Progress, optional
    runner : Runner, optional
        Where the work is done; on this machine by default.
    store : Store, optional
        Where the plan is stored: what was found earlier is used, and what is found is added.

    Raises
    ------
    InputError
        If pixels can't be read and ``settings.skip_bad`` is not set.
    """
    start = Measured(planned.infos, planned.graph, planned.settings, ())
    found: Findings = HeldFindings(len(planned.infos))
    if store is not None:
        found = StoredFindings(start, store, store, with_local=with_local, lenient=True)
    measure(planned, found, with_local=with_local, progress=progress, runner=runner)
    return replace(start, found=found)


def measure(
    planned: Plan,
    found: Findings,
    *,
    with_local: bool = True,
    only: Sequence[int] | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> tuple[SkyWarning, ...]:
    """Add what is found in the pixels of all images, or ``only`` some, to what is known; returns warnings.

    Raises
    ------
    InputError
        If pixels can't be read and ``settings.skip_bad`` is not set; what was found in others is kept.
    """
    settings = planned.settings
    check_model(settings, planned.graph)
    start = Measured(planned.infos, planned.graph, settings, ())
    local = LocalRunner(settings.jobs)
    problems, warnings = measure_images(
        start, runner or local, found, with_local=with_local, only=only, progress=progress
    )
    if problems and not settings.skip_bad:
        raise InputError(problems)
    return (*skipped(problems), *warnings)


def recall(planned: Plan, store: Store) -> Measured:
    """What a store holds of a plan in it, for the method of its settings.

    Raises
    ------
    InputError
        If images are not measured yet, or not their own skies, which the method needs.
    """
    with_local = planned.settings.method in NEEDS_LOCAL
    start = Measured(planned.infos, planned.graph, planned.settings, ())
    found = StoredFindings(start, store, with_local=with_local)
    if missing := len(found) - found.n_measured:
        what = f"{missing} of {len(found)} images are not measured yet" + (", or not their own skies" * with_local)
        raise InputError.at(store.file, what, f"run skymatch measure {store.file}, or merge the other parts into it")
    return replace(start, found=found)


@one_thread()
def gather(measured: Measured) -> tuple[Measurements, tuple[SkyWarning, ...]]:
    """The measurements of the pairs from what was found in all images, and warnings; a store keeps them."""
    stored = measured.found if isinstance(measured.found, StoredFindings) else None
    if stored is not None and (kept := stored.gathered()) is not None:
        return kept.measurements(), kept.warnings
    found = tuple(measured.found if stored is None else stored.without_cells())
    said = tuple(w for f in found if f is not None for w in f.warnings)
    problems = tuple(p for f in found if f is not None for p in f.problems)
    measurements, warnings = assemble(replace(measured, found=found)), (*skipped(problems), *said)
    if stored is not None:
        stored.keep(measurements, warnings)
    return measurements, warnings


def compared_otherwise(
    planned: Plan, measurements: Measurements, *, progress: Progress, runner: Runner | None, store: Store | None
) -> tuple[SkyWarning, ...]:
    """Compare the overlaps the other way too; returns warnings of images on which the two disagree."""
    from skymatch_cli.solve.crosscheck import cross_check

    by_mesh = planned.settings.compare == Compare.MESH
    other = replace(planned.settings, compare=Compare.POOLED if by_mesh else Compare.MESH, mesh_size=None)
    again = replace(planned, settings=other)
    found, _ = gather(find(again, with_local=False, progress=progress, runner=runner, store=store))
    mesh, pooled = (measurements, found) if by_mesh else (found, measurements)
    return cross_check(planned.infos, mesh, pooled, robust=planned.settings.robust)
