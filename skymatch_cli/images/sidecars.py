"""Companion files of the listed images, found by name: weights, flags, masks, errors.

Such files come with the same glob as the images: ``a.fits a.weight.fits``, ``…_ooi_… …_ood_…``, ``…-int-3 …-unc-3``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import first_names
from skymatch_cli.images.companions import Role
from skymatch_cli.images.names import NamedFile, stem_of
from skymatch_cli.model import ImageRef, MaskRef, SkyWarning

NO_IMAGE = "not an image"
"""Text that the notes on skipped files share."""

_WORDS = {
    Role.FLAGS: ("dq", "ood", "flags?", "flg", "bpm", "mskimg", "bimsk", "dmask", "c1m", "c1h", "quality", "badpix"),
    Role.WEIGHT: (
        *("weights?", "wei", "wht", "wgt", "wt", "expwt", "ivar", "invvar", "oow", "conf", "confidence"),
        *("expo?_?map", "exposure", "expo?", "(ref|m)?cov", "covg", "coverage", "nexp", "rrhr"),
    ),
    # Masks mark good pixels in some files, bad ones in others: they are used when the user names them.
    Role.UNKNOWN: ("mask", "msk", "good"),
    Role.OTHER: (
        *("rms", "err", "error", "(ref|cb|b|m)?unc", "uncimg", "var", "variance", "sigma", "std", "stddev"),
        *("bkg", "background", "skybg", "segm?", "segmentation", "objects", "num", "model"),
    ),
}
_IMAGE_WORDS = (
    *("ooi", "(sci|ref)?img", "cbcd", "bcd", "sci", "int", "image", "maic", "flux", "data", "c0m", "c0h", "flt", "sub"),
)
# Words that seldom stand for anything else, such as the name of a star in "var_01.fits".
_SURELY = (
    *("weights?", "wht", "ivar", "invvar", "oow", "ood", "dq", "bpm", "badpix", "flags", "mskimg", "bimsk", "mask"),
    *("msk", "rrhr", "rms", "uncimg", "cbunc", "segm", "skybg"),
)
_CALLED = {Role.FLAGS: "flags", Role.WEIGHT: "weights", Role.UNKNOWN: "a mask", Role.OTHER: "errors or other maps"}


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])({'|'.join(words)})(?![a-z0-9])", re.IGNORECASE)


_COMPANION = {role: _pattern(words) for role, words in _WORDS.items()}
_IMAGE = _pattern(_IMAGE_WORDS)
_SURE = _pattern(_SURELY)
_HERE = "\0"  # replaces the word


class Companions:
    """Weights, flags, masks and errors among the files of a list, of an image of the list in the same folder.

    Files with a selector never are.
    """

    def __init__(self, names: Sequence[NamedFile]) -> None:
        owners: dict[tuple[str, str], NamedFile] = {}
        for name in names:
            for key in _image_keys(stem_of(name.path)):
                owners.setdefault((_folder(name), key), name)
        found: dict[str, tuple[NamedFile, Role, NamedFile]] = {}
        for name in names:
            for role, key in _companion_keys(stem_of(name.path)) if name.selector is None else ():
                if (owner := owners.get((_folder(name), key), name)).path != name.path:
                    found.setdefault(name.path, (name, role, owner))
                    break
        self._found = {path: own for path, own in found.items() if own[2].path not in found}
        self._of: dict[tuple[str, Role], MaskRef] = {}
        for name, role, owner in self._found.values():
            self._of.setdefault((owner.path, role), MaskRef(file=name.file, path=name.path))

    def notes(self) -> Iterator[str]:
        """Yield why files are left out, for the log."""
        for name, role, owner in self._found.values():
            use = "; to use it: --mask (non-zero = good) or --dq-ext (flags)" if role is Role.UNKNOWN else ""
            yield f"{name.file}: {NO_IMAGE}: by its name {_CALLED[role]} of {owner.file}{use}"

    def doubts(self, names: Sequence[NamedFile]) -> tuple[SkyWarning, ...]:
        """Warn of images with the name of a companion of no other file, unless all of the list are called so."""
        images = [name for name in names if not self.holds(name)]
        called = [n.file for n in images if n.selector is None and _SURE.search(stem_of(n.path))]
        if not called or len(called) == len(images):
            return ()
        text = "matched as images, but named as weights, masks or errors (of no file of the list)"
        return (SkyWarning(WarningName.PLANES, f"{text}: {first_names(called)}"),)

    def holds(self, name: NamedFile) -> bool:
        """Return whether a file is a companion."""
        return name.selector is None and name.path in self._found

    def attach(self, ref: ImageRef) -> ImageRef:
        """Return the image with its flags and weights."""
        dq, weight = (self._of.get((ref.path, role)) for role in (Role.FLAGS, Role.WEIGHT))
        return replace(ref, dq=dq, weight=weight) if dq or weight else ref


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
