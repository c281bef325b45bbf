"""The words that options choose from, kept apart from ``model`` so that ``--help`` needs no numpy."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How the sky of an image is found."""

    LOCALMIN = "localmin"
    GLOBALMIN = "globalmin"
    MATCH = "match"
    GLOBALMIN_MATCH = "globalmin+match"
    USER = "user"


METHOD_ALIASES = {"local": Method.LOCALMIN, "global": Method.GLOBALMIN, "global+match": Method.GLOBALMIN_MATCH}
"""The names that users of other programs know."""
METHOD_IN_PIPELINES = {str(method): alias for alias, method in METHOD_ALIASES.items()}
"""The names of the methods in the pipelines of JWST and Roman, where they are others."""


class Compare(StrEnum):
    """How two images are compared in their overlap."""

    POOLED = "pooled"
    MESH = "mesh"


class Model(StrEnum):
    """The sky model of a group."""

    CONSTANT = "constant"
    PLANE = "plane"
    POLY2 = "poly2"
    POLY3 = "poly3"
    AUTO = "auto"

    @property
    def degree(self) -> int:
        """Degree of the polynomial; of ``auto`` the highest that is tried."""
        return {"constant": 0, "plane": 1, "poly2": 2}.get(self, 3)


class Planes(StrEnum):
    """How the planes of a cube are matched."""

    EACH = "each"


class Skystat(StrEnum):
    """The statistic that estimates the sky level of a set of pixels."""

    MEDIAN = "median"
    MEAN = "mean"
    MODE = "mode"
    MIDPT = "midpt"


class Units(StrEnum):
    """Whether values are converted to one unit before they are compared."""

    AUTO = "auto"
    AS_IS = "as-is"


class WcsSource(StrEnum):
    """Where the WCS of an image is taken from."""

    AUTO = "auto"
    HEADER = "header"


class Format(StrEnum):
    """The format of a result."""

    TABLE = "table"
    ECSV = "ecsv"
    CSV = "csv"
    JSON = "json"
    FITS = "fits"
    VOT = "vot"


class TableName(StrEnum):
    """The tables of a result."""

    IMAGES = "images"
    OVERLAPS = "overlaps"
    COMPONENTS = "components"


class ExportFormat(StrEnum):
    """The programs that skies can be exported to."""

    SWARP = "swarp"
    MONTAGE = "montage"
    JWST = "jwst"
    DRIZZLE = "drizzle"
    REGIONS = "regions"
    TOPCAT = "topcat"


class WarningName(StrEnum):
    """The names of warnings, for ``--allow``."""

    DISCONNECTED = "disconnected"
    REFERENCE = "reference"
    NO_SKY = "no-sky"
    SKIPPED = "skipped"
    DISAGREEMENT = "disagreement"
    STEP = "step"
    RESIDUAL = "residual"
    WEAK_LINK = "weak-link"
    DOWN_WEIGHTED = "down-weighted"
    MASKED = "masked"
    CROWDED = "crowded"
    CROSS_CHECK = "cross-check"
    WEAK_TILTS = "weak-tilts"
    NEEDLESS_DEGREE = "needless-degree"
    CURVATURE = "curvature"
    FILTERS = "filters"
    ZERO_POINTS = "zero-points"
    BRIGHT_SCENE = "bright-scene"
    UNITS = "units"
    PIXEL_AREAS = "pixel-areas"
    FLAGS = "flags"
    PADDING = "padding"
    COARSE = "coarse"
    PHOTONS = "photons"
    COPIES = "copies"
    WCS = "wcs"
    KEYWORD = "keyword"
    STORE = "store"
    PICTURES = "pictures"
    PLANES = "planes"
    CHECKSUM = "checksum"
