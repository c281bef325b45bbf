"""``skymatch merge``: the parts of a measurement together."""

from __future__ import annotations

from typing import Any

import click

from . import options, sections


@sections.command("merge", "skymatch merge field.db part*.db")
@options.STORED_PLAN
@options.PARTS
@options.add(*options.CONSOLE)
@sections.logged
def command(_ctx: click.Context, /, *, stored: str, parts: tuple[str, ...], **_: Any) -> None:
    """Merge partial measurements.

    PARTS are files from 'skymatch measure STORE --shard K/N -o PART'; their findings are added to STORE.
    """
    from skymatch_cli.store.findings import StoredFindings
    from skymatch_cli.store.merging import merge
    from skymatch_cli.store.store import Store

    from . import console

    with Store(stored, write=True) as store:
        merge(store, parts)
        found = StoredFindings(store.plan(), store, with_local=True)
        console.say(f"{found.n_measured} of {len(found)} images are measured")
