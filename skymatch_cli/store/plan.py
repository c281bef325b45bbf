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
    """Images and overlaps, as the headers give them."""

    settings: Settings
    infos: Sequence[ImageInfo]  # the N images that can be used
    footprints: tuple[Footprint, ...]  # one for each image; none with the method ``user``, which needs no WCS
    graph: OverlapGraph
    skipped: tuple[str, ...]  # inputs and HDUs that are not used, and why
    warnings: tuple[SkyWarning, ...]
    # the headers that were read, for a later plan; empty in a plan that comes from a file
    headers: Headers = field(default_factory=Headers)
