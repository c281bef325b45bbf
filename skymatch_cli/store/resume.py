"""Files that changed because this program wrote them: an interrupted run finds its own work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.source import open_source
from skymatch_cli.images.skystate import read_state
from skymatch_cli.model import FloatArray, ImageInfo
from skymatch_cli.record.write import identify


def as_written(infos: Sequence[ImageInfo], sky: FloatArray, sky_keyword: str) -> tuple[ImageInfo, ...]:
    """The images, where a file holds its sky (N,) already as the file is now: it was written by this program.

    Others keep the identity that they had when they were measured, and are refused later if they changed.
    """
    return tuple(_as_written(info, level, sky_keyword) for info, level in zip(infos, sky.tolist(), strict=True))


def _as_written(info: ImageInfo, level: float, sky_keyword: str) -> ImageInfo:
    if info.source is None:
        return info
    science = info.source.science
    try:
        now = identify(info.ref.path)
        if (now.size, now.mtime_ns) == (science.size, science.mtime_ns):
            return info
        with open_source(read_structure(info.ref.path, info.ref.label)) as source:
            state = read_state(source, info.ref, sky_keyword)
    except (OSError, InputError):
        return info  # what is wrong is said when it is written
    if not (state.by_us and state.recorded is not None and math.isclose(state.recorded.level, level, rel_tol=1e-9)):
        return info
    return replace(info, source=replace(info.source, science=replace(science, size=now.size, mtime_ns=now.mtime_ns)))
