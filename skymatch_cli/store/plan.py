"""What the headers alone say of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skymatch_cli.images.known import Headers
from skymatch_cli.model import ImageInfo, OverlapGraph, SkyWarning
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Plan:
    """What the headers alone say.

    Attributes
    ----------
    settings : Settings
    infos : sequence of ImageInfo
        The N images that can be used.
    footprints : tuple of Footprint
        One for each image; none with the method ``user``, which needs no WCS.
    graph : OverlapGraph
    skipped : tuple of str
        Inputs and HDUs that are not used, and why.
    warnings : tuple of SkyWarning
    headers : Headers
        What was read, for a later plan; nothing in a plan that was itself read from a file.
    """

    settings: Settings
    infos: Sequence[ImageInfo]
    footprints: tuple[Footprint, ...]
    graph: OverlapGraph
    skipped: tuple[str, ...]
    warnings: tuple[SkyWarning, ...]
    headers: Headers = field(default_factory=Headers)
