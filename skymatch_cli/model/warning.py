"""Warnings: what is wrong, by how much in the unit of the images, its usual cause, and the option that helps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import Problem, problem_lines


@dataclass(frozen=True, slots=True)
class WarningKind:
    """The usual cause and the remedy of all warnings of one name."""

    cause: str
    remedy: str


_DIFFER = "gradients, scattered light, different zero points, or a wrong WCS"
_ADVICE = {  # cause -> remedy
    WarningName.DISCONNECTED: "the images are of several fields, or an image between two sets is missing -> match "
    "the sets one by one, add images that connect them, or give all one level with --method globalmin+match",
    WarningName.REFERENCE: "some images do not overlap the set of the reference -> match the other sets one by one, "
    "each with a reference of its own",
    WarningName.NO_SKY: "the image is fully masked, outside --lower and --upper, or overlaps no other image -> check "
    "its mask and --dqbits; its header stays as it is",
    WarningName.SKIPPED: "the file is damaged, incomplete or not an image -> repair or remove it, then run again",
    WarningName.DISAGREEMENT: f"{_DIFFER} -> --model plane for gradients, --flux-scale for zero points, --robust to "
    "find single bad overlaps",
    WarningName.STEP: f"{_DIFFER} -> look at these overlaps in the report; --model plane for gradients",
    WarningName.RESIDUAL: f"{_DIFFER} -> look at these overlaps in the report; --model plane for gradients, --robust "
    "for single bad ones",
    WarningName.WEAK_LINK: "two parts of the mosaic share only a small or masked overlap -> add images that connect "
    "the parts, or match the parts one by one",
    WarningName.DOWN_WEIGHTED: "scattered light, a ghost, a satellite trail or a wrong WCS in one of the images -> "
    "look at these overlaps in the report; mask what disturbs them with --mask",
    WarningName.MASKED: "masks, DQ flags or limits exclude most pixels of the overlaps -> check --mask, --dqbits, "
    "--lower and --upper",
    WarningName.CROWDED: "stars fill the overlaps, or the images disagree in most cells (PSF, WCS, unit, scattered "
    "light) -> check WCS and BUNIT; larger cells (--mesh-size) where the PSF differs; --compare mesh, or "
    "--mask-sources",
    WarningName.CROSS_CHECK: "stars, nebulae or masks differ between the images, which disturbs pooled statistics -> "
    "trust --compare mesh; look at these images in the report",
    WarningName.WEAK_TILTS: "the overlaps are too narrow or too few to measure gradients -> use --model constant",
    WarningName.NEEDLESS_DEGREE: "tilts and curvatures are smaller than their errors -> use the model that is named",
    WarningName.CURVATURE: "a flat field or scattered light that all frames share -> compare the levels with those "
    "of --model constant, which does not see it",
    WarningName.FILTERS: "images of several bands are in the list -> give one band, or separate them with --split-by "
    "FILTER",
    WarningName.BRIGHT_SCENE: "the scene is bright, so that small differences of zero points matter -> calibrate "
    "the images, or give their flux scales by --flux-scale KEYWORD",
    WarningName.ZERO_POINTS: "images of several calibrations are in the list, or a gradient follows the scene -> "
    "--model plane for gradients; for zero points name the flux scale of each image with --flux-scale KEYWORD",
    WarningName.UNITS: "BUNIT is missing, wrong or not a unit -> correct BUNIT, give the factor with --flux-scale "
    "KEYWORD, or compare the raw numbers with --units as-is",
    WarningName.PIXEL_AREAS: "the field is so wide that the pixels of its projection differ in size on the sky -> "
    "--units as-is where a flat field made the values surface brightness; else reproject to equal areas first",
    WarningName.FLAGS: "the flags of good pixels are not named -> name them with --dqbits, or use --dqbits none",
    WarningName.PADDING: "a program filled pixels that saw no sky -> --ignore-value leaves such pixels out, "
    "--keep-value uses them",
    WarningName.COARSE: "the noise is smaller than the steps of the integers, and means of pixels are biased towards "
    "the steps -> --compare pooled interpolates the median within the step",
    WarningName.PHOTONS: "single photons are far above the read noise and are clipped as outliers -> use --compare "
    "mesh, or do not clip: --skystat mean --nclip 0",
    WarningName.COPIES: "a file was copied, and both copies are in the list -> name one of them",
    WarningName.WCS: "an optional package is missing, or headers lack keywords of their coordinates -> pip install "
    "'skymatch-cli[gwcs]', or complete the headers",
    WarningName.KEYWORD: "another program uses the keyword with another meaning -> check that the sky of this image "
    "was not subtracted before",
    WarningName.PLANES: "the names of the planes do not tell which one is the image, or the named plane is not "
    "an image -> name the plane of the image: a.fits[1] or a.fits[SCI]",
    WarningName.CHECKSUM: "another program changed the file without updating its checksum -> check the file, then "
    "write new checksums",
    WarningName.PICTURES: "the images were moved, removed or changed since -> run in the folder where the result was "
    "made",
    WarningName.STORE: "the disk is full or read-only -> give a file on another disk with --store",
}
KINDS: Mapping[WarningName, WarningKind] = {name: WarningKind(*text.split(" -> ")) for name, text in _ADVICE.items()}
"""Cause and remedy of every warning; docs/warnings.md has a section for each."""


@dataclass(frozen=True, slots=True)
class SkyWarning:
    """One warning about a run."""

    name: WarningName  # its name for ``--allow``
    text: str  # what is wrong, and where
    amplitude: float | None = None  # size of the effect in ``unit``; None if it has none, 0 if no action is needed
    unit: str = ""
    visible: bool = True  # whether the effect can be seen in the mosaic; other warnings are shown with ``-v`` only

    def __str__(self) -> str:
        return self.text

    @property
    def advice(self) -> str:
        """The usual cause, and what to do."""
        kind = KINDS[self.name]
        return f"usual cause: {kind.cause}; {kind.remedy}"

    def as_dict(self) -> dict[str, Any]:
        """The warning as JSON."""
        kind = KINDS[self.name]
        return {
            "name": str(self.name),
            "text": self.text,
            "amplitude": self.amplitude,
            "unit": self.unit,
            "cause": kind.cause,
            "remedy": kind.remedy,
            "visible": self.visible,
        }

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> SkyWarning:
        """The warning that `as_dict` wrote."""
        number = None if stored["amplitude"] is None else float(stored["amplitude"])
        name, text, unit = WarningName(stored["name"]), str(stored["text"]), str(stored["unit"])
        return cls(name, text, number, unit, bool(stored["visible"]))


def told(warnings: Iterable[SkyWarning], allowed: Iterable[str]) -> tuple[SkyWarning, ...]:
    """The warnings that a user is told without ``-v``: of what could be seen, and is not allowed."""
    passed = set(allowed)
    return tuple(w for w in warnings if w.visible and w.amplitude != 0 and w.name not in passed)


def counted(warnings: Iterable[SkyWarning], allowed: Iterable[str]) -> tuple[SkyWarning, ...]:
    """Those of them that ``--strict`` counts: what may be, but was not found, is told alone."""
    return tuple(w for w in told(warnings, allowed) if w.name != WarningName.BRIGHT_SCENE)


def skipped(problems: Iterable[Problem]) -> tuple[SkyWarning, ...]:
    """Warn of inputs that were left out (``--skip-bad``), those with one problem together."""
    return tuple(SkyWarning(WarningName.SKIPPED, f"skipped: {line}") for line in problem_lines(problems))
