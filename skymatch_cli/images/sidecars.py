"""Companion files of the listed images, found by name: weights, flags, masks, errors.

Such files come with the same glob as the images: ``a.fits a.weight.fits``, ``…_ooi_… …_ood_…``, ``…-int-3 …-unc-3``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skymatch_cli.images.companions import Role
from skymatch_cli.images.names import NamedFile, stem_of
from skymatch_cli.model import ImageRef, MaskRef

NO_IMAGE = "not an image"
"""Text that the notes on skipped files share."""

_WORDS = {
    Role.FLAGS: ("dq", "ood", "flags?", "flg", "bpm", "mskimg", "bimsk", "dmask", "c1m", "c1h", "quality"),
    Role.WEIGHT: (
        *("weights?", "wht", "wgt", "wt", "ivar", "invvar", "oow", "conf", "confidence"),
        *("expo?_?map", "exposure", "expo?", "cov", "covg", "coverage", "rrhr"),
    ),
    # Masks mark good pixels in some files, bad ones in others: they are used when the user names them.
    Role.UNKNOWN: ("mask", "msk"),
    Role.OTHER: (
        *("rms", "err", "error", "unc", "uncimg", "cbunc", "bunc", "var", "variance", "sigma", "std", "stddev"),
        *("bkg", "background", "skybg"),
    ),
}
_IMAGE_WORDS = ("ooi", "sciimg", "cbcd", "bcd", "sci", "int", "image", "img", "flux", "data", "c0m", "c0h", "flt")
_CALLED = {Role.FLAGS: "flags", Role.WEIGHT: "weights", Role.UNKNOWN: "a mask", Role.OTHER: "errors or background"}


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])({'|'.join(words)})(?![a-z0-9])", re.IGNORECASE)


_COMPANION = {role: _pattern(words) for role, words in _WORDS.items()}
_IMAGE = _pattern(_IMAGE_WORDS)
_HERE = "\0"  # replaces the word


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A file that belongs to an image of the list."""

    name: NamedFile
    role: Role
    owner: NamedFile

    @property
    def note(self) -> str:
        """Why it is left out, for the log."""
        text = f"{self.name.file}: {NO_IMAGE}: by its name {_CALLED[self.role]} of {self.owner.file}"
        if self.role is Role.UNKNOWN:
            return f"{text}; to use it: --mask (non-zero = good) or --dq-ext (flags)"
        return text


def find_sidecars(names: Sequence[NamedFile]) -> tuple[Sidecar, ...]:
    """Find files of a list that are companions of another one in the same folder; files with a selector never are."""
    owners: dict[tuple[str, str], NamedFile] = {}
    for name in names:
        for key in _image_keys(stem_of(name.path)):
            owners.setdefault((_folder(name), key), name)
    found: dict[str, Sidecar] = {}
    for name in names:
        if name.selector is not None or name.path in found:
            continue
        for role, key in _companion_keys(stem_of(name.path)):
            owner = owners.get((_folder(name), key))
            if owner is not None and owner.path != name.path:
                found[name.path] = Sidecar(name, role, owner)
                break
    return tuple(one for one in found.values() if one.owner.path not in found)


class Companions:
    """Weights, flags, masks and errors of the images of a list."""

    def __init__(self, found: Sequence[Sidecar]) -> None:
        self.notes = tuple(one.note for one in found)
        self._paths = frozenset(one.name.path for one in found)
        self._of: dict[str, dict[Role, MaskRef]] = {}
        for one in found:
            place = MaskRef(file=one.name.file, path=one.name.path)
            self._of.setdefault(one.owner.path, {}).setdefault(one.role, place)

    def holds(self, name: NamedFile) -> bool:
        """Whether a file is a companion."""
        return name.selector is None and name.path in self._paths

    def attach(self, ref: ImageRef) -> ImageRef:
        """Return the image with its flags and weights."""
        own = self._of.get(ref.path)
        return ref if own is None else replace(ref, dq=own.get(Role.FLAGS), weight=own.get(Role.WEIGHT))


def _folder(name: NamedFile) -> str:
    return name.path.rpartition("/")[0]


def _image_keys(stem: str) -> Iterator[str]:
    """Yield the stem of an image, and the stem with each image word replaced: ``x_ooi_v1`` and ``x_*_v1``."""
    yield stem
    for match in _IMAGE.finditer(stem):
        yield stem[: match.start()] + _HERE + stem[match.end() :]


def _companion_keys(stem: str) -> Iterator[tuple[Role, str]]:
    """The names that the image of a companion may have, as keys of `_image_keys`."""
    for role, pattern in _COMPANION.items():
        for match in pattern.finditer(stem):
            before, after = stem[: match.start()], stem[match.end() :]
            yield role, before + _HERE + after
            yield role, before[:-1] + after if before else after[1:]  # without the separator beside the word
