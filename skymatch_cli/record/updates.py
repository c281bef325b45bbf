"""Skies of a solution -> what is written to each image."""

from __future__ import annotations

from collections.abc import Sequence

from skymatch_cli.errors import UsageError
from skymatch_cli.model import FloatArray, ImageInfo
from skymatch_cli.record.edits import SkyUpdate
from skymatch_cli.settings import Settings


def sky_updates(
    infos: Sequence[ImageInfo],
    settings: Settings,
    sky: FloatArray | None = None,
    sky_err: FloatArray | None = None,
    tilt: FloatArray | None = None,
) -> list[SkyUpdate]:
    """Make the updates of the images (N,) that may be written.

    ``sky`` and ``sky_err`` (N,) are in the unit of each image (zeros by default, to ask whether the images could be
    written), ``tilt`` (N, k) is the shape of skies that are not constant. UsageError if the skies are per second of a
    map of exposure times, which no header can record.
    """
    if settings.exposure_map is not None:
        what = "--exposure-map: a sky per second can't be recorded in an image of counts"
        raise UsageError(what, "add --dry-run, or divide the images by their exposure first")
    zeros = [0.0] * len(infos)
    skies = zeros if sky is None else sky.tolist()
    errors = zeros if sky_err is None else sky_err.tolist()
    tilts = [None] * len(infos) if tilt is None else [tuple(shape) for shape in tilt.tolist()]
    return [
        SkyUpdate(
            ref=info.ref,
            sky=level,
            sky_err=err,
            method=settings.method,
            state=info.source.science.state,
            tilt=shape,
            info=info,
        )
        for info, level, err, shape in zip(infos, skies, errors, tilts, strict=True)
        if not info.ref.read_only
    ]
