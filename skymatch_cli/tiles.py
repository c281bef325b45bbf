"""Statistics of many regions of one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .model import BoolArray, PixelArray, SkyStatistic, StatisticSettings
from .raster import Spans
from .statistics import sky_statistic


def region_statistics(
    data: PixelArray, good: BoolArray, regions: Sequence[Spans], settings: StatisticSettings
) -> list[SkyStatistic]:
    """Sky level of every region of an image.

    Parameters
    ----------
    data : (ny, nx) float32 or float64
        Pixels; those that are not finite don't count, whatever ``good`` says.
    good : (ny, nx) bool
        True = use.
    regions : sequence of Spans
        Pixels of each region; regions may overlap.
    settings : StatisticSettings

    Returns
    -------
    list of SkyStatistic
        One for each region, equal to ``sky_statistic`` of the region's good pixels.
    """
    return [sky_statistic(region_pixels(data, good, spans), settings) for spans in regions]


def region_pixels(data: PixelArray, good: BoolArray, spans: Spans) -> PixelArray:
    """Good pixels of a region, (n,), row by row."""
    if spans.y.size == 0:
        return np.empty(0, dtype=data.dtype)
    runs = [(y, slice(x0, x1)) for y, x0, x1 in zip(*(c.tolist() for c in (spans.y, spans.x0, spans.x1)), strict=True)]
    values: PixelArray = np.concatenate([data[run] for run in runs])
    return values[np.concatenate([good[run] for run in runs])]
