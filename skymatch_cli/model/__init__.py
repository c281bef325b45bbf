"""The frozen dataclasses and enums that flow through the program; no I/O here.

names -> ImageRef -> ImageInfo -> Footprint -> OverlapGraph -> Measurements -> Solution -> report | headers

Conventions, said once and kept everywhere: pixel coordinates are 0-based with the centre of the first
pixel at (0, 0), x first in coordinates and ``[y, x]`` in arrays; ``good`` is True where a pixel counts;
sky positions are ICRS unit vectors; values are in the image's own unit unless a name says ``comparison``
(``value in comparison unit = value * ImageInfo.to_comparison``). What exists once per image or once per
pair is kept in columns (arrays), so that 10^6 images stay cheap.
"""

from skymatch_cli.choices import Skystat
from skymatch_cli.model.arrays import BoolArray, FloatArray, IntArray, PixelArray, StrArray
from skymatch_cli.model.images import (
    CelestialWcs,
    Container,
    FileState,
    ImageInfo,
    ImageRef,
    MaskRef,
    PixelFormat,
    PixelSource,
    Recorded,
    RegionFile,
    Selector,
    StatisticSettings,
    StoredPlane,
    common_unit,
    group_numbers,
    n_pixels_of,
    set_numbers,
)
from skymatch_cli.model.measurements import (
    LocalSkies,
    Measurements,
    PlaneDifferences,
    SkyStatistic,
    SkyStatistics,
    Status,
)
from skymatch_cli.model.overlaps import OverlapGraph, PairsByImage, TangentPlane
from skymatch_cli.model.section import Part, Section
from skymatch_cli.model.solution import LEAST_KEPT, Journal, Offsets, Solution
from skymatch_cli.model.warning import SkyWarning
