"""Parts of a measurement, made on other machines, and how they are merged."""

from __future__ import annotations

from collections.abc import Sequence

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import real_path
from skymatch_cli.settings import Settings
from skymatch_cli.store.rows import settings_json
from skymatch_cli.store.store import Store


def begin_part(part: Store, whole: Store, settings: Settings) -> None:
    """Make a store a part of a measurement of the plan in another one."""
    if part.facts is not None:
        what = "holds a plan: it can't be a part of another one"
        raise InputError.at(part.file, what, "name another file")
    with part.transaction():
        part.put("facts", [("part", whole.plan_digest()), ("settings", settings_json(settings).encode("ascii"))])


def merge(store: Store, files: Sequence[str]) -> None:
    """Add the findings of partial measurements to the store of their plan.

    InputError if one is not a part of this plan, or was measured in another way than the others.
    """
    settings: dict[str, bytes] = {}
    for file in files:
        if real_path(file) == real_path(store.file):
            raise InputError.at(file, "is named twice: as the store, and as a part", "name the parts after it")
        with Store(file) as part:
            settings[file] = own = _settings_of(part, store)
        if own != settings[files[0]]:
            raise InputError.at(file, f"was measured with other settings than {files[0]}", "measure it again")
    with store.transaction():
        for file in files:
            with Store(file) as part:
                for k, head, body in part.findings():
                    is_bad = head[1]
                    if not is_bad or store.row("findings", k) is None:
                        store.put("findings", [(k, head, body)])
        store.put("facts", [("settings", settings[files[0]])])


def _settings_of(part: Store, store: Store) -> bytes:
    """How a part was measured, if it is one of the plan in the store."""
    if (digest := part.get("facts", "part")) is None:
        hint = "name what `skymatch measure STORE --shard K/N -o PART` wrote"
        raise InputError.at(part.file, "is not a part of a measurement", hint)
    if digest != store.plan_digest():
        what = f"is not of the plan in {store.file}, or of an earlier state of it"
        raise InputError.at(part.file, what, "measure this part again")
    return part.get("facts", "settings") or b""
