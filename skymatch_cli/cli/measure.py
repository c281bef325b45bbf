"""``skymatch measure``: the pixels of a plan."""

from __future__ import annotations

from typing import Any

import click

from skymatch_cli.settings import OF_HEADERS

from . import given, options, sections


@sections.command(
    "measure",
    "skymatch measure field.db",
    "skymatch measure field.db --shard 3/8 -o part3.db",
    "skymatch measure field.db --scheduler tcp://head:8786",
)
@options.STORED_PLAN
@options.add(
    *options.COMPARE,
    *options.STATISTICS,
    "ignore_value",
    options.PART,
    "skip_bad",
    options.SHARD,
    options.SCHEDULER,
    "jobs",
    options.CONFIG,
    *options.CONSOLE,
)
@sections.logged
def command(
    ctx: click.Context, /, *, stored: str, target: str | None, shard: str | None, scheduler: str | None, **_: Any
) -> None:
    """Measure the pixels of a plan.

    STORE is what 'skymatch plan --store' wrote. Every image is read once; its own sky is measured too, so that
    'skymatch solve' can try every method. Run it again after an interruption: it goes on where it stopped. With
    --shard K/N and -o PART, N runs measure their parts at the same time, for 'skymatch merge'.
    """
    from contextlib import ExitStack
    from dataclasses import replace

    from skymatch_cli.store.findings import StoredFindings
    from skymatch_cli.store.measuring import measure
    from skymatch_cli.store.merging import begin_part
    from skymatch_cli.store.store import Store

    from . import console
    from .progress import Watch

    with ExitStack() as stack:
        store = stack.enter_context(Store(stored, write=target is None))
        planned = store.plan()
        settings, _output = given.read(ctx, planned.settings, OF_HEADERS)
        only = given.shard_of(shard, len(planned.infos))
        planned = replace(planned, settings=settings)
        kept = store
        if target is not None:
            kept = stack.enter_context(Store(target, write=True, create=True))
            begin_part(kept, store, settings)
        found = StoredFindings(planned, store, kept, with_local=True)
        kept.save_settings(settings)
        watch = Watch(ctx)
        with given.runner(scheduler, settings.jobs) as runner, watch.shown():
            warnings = measure(planned, found, only=only, runner=runner, progress=watch)
        console.warn(warnings)
        console.say(f"{found.n_measured} of {len(found)} images are measured")
