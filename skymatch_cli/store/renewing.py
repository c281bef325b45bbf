"""Keep what was measured in files that this program has written since."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from skymatch_cli.choices import Compare
from skymatch_cli.images.formats.files import file_state, real_path
from skymatch_cli.model import ImageInfo, StoredPlane
from skymatch_cli.store.database import digest_of
from skymatch_cli.store.keys import KEY_BYTES, image_states
from skymatch_cli.store.rows import CODEC
from skymatch_cli.store.store import Store


def renew(store: Store, infos: Sequence[ImageInfo], files: Collection[str]) -> None:
    """Keep the findings of files that were written for the next plan too: their original pixels are unchanged.

    ``infos`` are the images of the plan, ``files`` the real paths of the files that were replaced. Where findings can't
    be stored there is a warning. The plan itself stays: where pixels lie in a file that was written, and the sky that
    they are without, is in the new headers alone, so that `measure` refuses these files until a plan reads them.
    """
    if not files:
        return
    before, now = (image_states(some)[0] for some in (infos, renewed(infos, frozenset(files))))
    changed = {both for both in zip(before, now, strict=True) if both[0] != both[1]}
    with store.leniently():  # the images are written: that counts
        for old, new in changed:
            store.put("findings", [(new + k[KEY_BYTES:], *rest) for k, *rest in store.findings(old)])
        store.expect([new for _, new in sorted(changed)])
        for compare in Compare:
            gathered, key = store.gathered(compare), digest_of(*before)
            if gathered is not None and gathered.key.startswith(key):
                key = digest_of(*now) + gathered.key[len(key) :]
                store.put_gathered(compare, CODEC.encode(replace(gathered, key=key)))


def renewed(infos: Sequence[ImageInfo], files: Collection[str]) -> tuple[ImageInfo, ...]:
    """The images after some of their files (by their real paths) were written by this program."""

    def plane(old: StoredPlane) -> StoredPlane:
        return replace(old, state=file_state(old.path)) if real_path(old.path) in files else old

    return tuple(replace(info, source=info.source.changed(plane)) for info in infos)
