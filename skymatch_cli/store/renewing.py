"""Keep what was measured in files that this program has written since."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from skymatch_cli.choices import Compare
from skymatch_cli.errors import SkymatchError
from skymatch_cli.images.formats.files import file_state, real_path
from skymatch_cli.model import ImageInfo, StoredPlane
from skymatch_cli.store.database import digest_of
from skymatch_cli.store.gathered import Gathered
from skymatch_cli.store.keys import KEY_BYTES, image_states
from skymatch_cli.store.rows import CODEC
from skymatch_cli.store.store import Store, not_kept


def renew(store: Store, infos: Sequence[ImageInfo], files: Collection[str]) -> None:
    """Keep the findings of files that were written: their original pixels are unchanged.

    ``infos`` are the images of the plan as they were stored, ``files`` the real paths of the files that were replaced.
    Where it can't be stored there is a warning.
    """
    if not files:
        return
    try:
        _renew(store, infos, frozenset(files))
    except SkymatchError as error:  # the images are written: that counts
        store.warnings += (not_kept(error),)


def renewed(infos: Sequence[ImageInfo], files: Collection[str]) -> tuple[ImageInfo, ...]:
    """The images after some of their files (by their real paths) were written by this program."""

    def plane(old: StoredPlane) -> StoredPlane:
        return replace(old, state=file_state(old.path)) if real_path(old.path) in files else old

    return tuple(replace(info, source=info.source.changed(plane)) for info in infos)


def _renew(store: Store, old: Sequence[ImageInfo], files: frozenset[str]) -> None:
    infos = renewed(old, files)
    states = image_states(old)[0], image_states(infos)[0]
    changed = [k for k, (before, now) in enumerate(zip(*states, strict=True)) if before != now]
    keys = replace(store.keys(), state=np.frombuffer(b"".join(states[1]), np.uint8).reshape(-1, KEY_BYTES))
    with store.transaction():
        for before, now in {(states[0][k], states[1][k]) for k in changed}:
            for row in store.findings_of(before):
                store.put_finding((now, *row[1:]))
            store.forget([before])
        store.put("images", ((k, CODEC.encode(infos[k])) for k in changed))
        _renew_gathered(store, digest_of(*states[0]), digest_of(*states[1]))
        store.put_keys(keys)


def _renew_gathered(store: Store, before: bytes, now: bytes) -> None:
    for compare in Compare:
        name = f"measurements {compare}"
        if (body := store.get("facts", name)) is not None:
            gathered = store.decode(Gathered, body)
            if gathered.key.startswith(before):
                gathered = replace(gathered, key=now + gathered.key[len(now) :])
                store.put("facts", [(name, CODEC.encode(gathered))])
