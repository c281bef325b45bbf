"""The plan of a run, made from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skymatch_cli.images.known import Headers
from skymatch_cli.model import ImageInfo, OverlapGraph, SkyWarning
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Plan:
    """Images and overlaps, as the headers give them.

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
        The headers that were read, for a later plan; empty in a plan that comes from a file.
    """

    settings: Settings
    infos: Sequence[ImageInfo]
    footprints: tuple[Footprint, ...]
    graph: OverlapGraph
    skipped: tuple[str, ...]
    warnings: tuple[SkyWarning, ...]
    headers: Headers = field(default_factory=Headers)
