"""The plainest WCS of a header, read without astropy: two axes, TAN, no distortion (FITS WCS paper II, section 5.1.3).

Most images have it. To import astropy and wcslib takes as long as all the rest of a run in which little is new; they
read the headers in which anything stands that may matter and isn't understood here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skymatch_cli.model import FloatArray, TangentPlane
from skymatch_cli.sky.frames import SkyFrame, frame_of_header
from skymatch_cli.sky.tangent import plane_axes, unproject

MIN_SCALE_DEG = 1e-10  # less than a microarcsecond
MAX_SCALE_DEG = 180.0
LEAST_AREA = 1e-9  # of a pixel, as part of the product of its sides
MAX_CRVAL_DEG = 3600.0  # beyond, the file is damaged, and sines have lost their digits
MAX_CRPIX = 1e9  # beyond, squares of distances may overflow

_CARD = 80
# All that may speak of coordinates, in any spelling that wcslib or astropy understands, and more than that.
_COORDINATES = re.compile(
    rb" *(HIERARCH|CONTINUE|NAXIS *=|WCS|CTYP|CRVA|CRPI|CDEL|CROT|CUNI|CNAM|C[PQ](DI|ER)|(P[CSV]|CD) *\d|PROJP|LONP"
    rb"|LATP|EQUI|EPOC|RADE|[AB]P?_|D2IM|D[PQV] *\d|AXISCORR|WAT"
    rb"|AMD[XY]|PPO\d|[XY]PIXELSZ|CNPIX|PLT(RA|DEC))",  # plate solutions of the DSS, which count more than CTYPE
    re.IGNORECASE,
)
_TEXT = re.compile(rb" *'([^']*)' *(?:/.*)?")
_COUNT = re.compile(rb" *(\d{1,3}) *(?:/.*)?")
_NUMBER = re.compile(rb" *([+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?) *(?:/.*)?")
_MATRIX = ("1_1", "1_2", "2_1", "2_2")
_TEXTS = frozenset({"WCSNAME", "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "RADESYS"})
_COUNTS = frozenset({"NAXIS", "WCSAXES"})
_NEEDED = frozenset({"CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"})
_NUMBERS = _NEEDED.union(
    ("CDELT1", "CDELT2", "LONPOLE", "LATPOLE", "EQUINOX"),
    (f"{name}{place}" for name in ("CD", "PC") for place in _MATRIX),
)
_FORMS = ((_TEXT, _TEXTS), (_NUMBER, _NUMBERS), (_COUNT, _COUNTS))
_LONGITUDE_AXIS = {
    ("RA---TAN", "DEC--TAN"): 0,
    ("DEC--TAN", "RA---TAN"): 1,
    ("GLON-TAN", "GLAT-TAN"): 0,
    ("GLAT-TAN", "GLON-TAN"): 1,
}


@dataclass(frozen=True, slots=True, eq=False)
class Gnomonic:
    """Pixels to positions of a tangent plane about CRVAL, and so to the sphere and back.

    Attributes
    ----------
    plane : TangentPlane
        In the header's own frame.
    crpix : (2,) float64
        Its centre, from 0.
    matrix, inverse : (2, 2) float64
        Pixels to radians to the east and to the north, and back.
    frame : SkyFrame
    scale_rad : float
        The shorter side of a pixel.
    """

    plane: TangentPlane
    crpix: FloatArray
    matrix: FloatArray
    inverse: FloatArray
    frame: SkyFrame
    scale_rad: float
    distorted: ClassVar[bool] = False

    def to_native(self, pixels: FloatArray) -> FloatArray:
        """Pixels (n, 2) to unit vectors of the header's own frame."""
        return unproject(self.plane, _times(self.matrix, pixels - self.crpix))

    def to_pixels(self, vectors: FloatArray) -> FloatArray:
        """Unit vectors of the header's own frame to pixels (n, 2), NaN where they are not on the plane's side."""
        there = _times(plane_axes(self.plane), vectors)
        there[~(there[:, 2] > 0)] = np.nan
        return _times(self.inverse, there[:, :2] / there[:, 2:]) + self.crpix


def _times(matrix: FloatArray, rows: FloatArray) -> FloatArray:
    # Not a matrix product of BLAS, whose rounding depends on where a row stands in the batch.
    out: FloatArray = np.einsum("ij,nj->ni", matrix, rows)
    return out


def coordinate_cards(text: bytes) -> bytes:
    """Those of the cards of a header, 80 bytes each, that may speak of coordinates."""
    cards = (text[start : start + _CARD] for start in range(0, len(text), _CARD))
    return b"".join(card for card in cards if _COORDINATES.match(card))


def gnomonic(cards: bytes) -> Gnomonic | None:
    """The WCS of `coordinate_cards`; None where it is another, or where the cards make no sense."""
    if (values := _values(cards)) is None:
        return None
    texts, numbers = values
    lng = _LONGITUDE_AXIS.get((texts.get("CTYPE1", ""), texts.get("CTYPE2", "")))
    matrix_deg = _matrix_deg(numbers)
    if lng is None or matrix_deg is None or not _is_plain(texts, numbers):
        return None
    lon_deg, lat_deg = (numbers[f"CRVAL{axis + 1}"] for axis in (lng, 1 - lng))
    crpix = np.array([numbers["CRPIX1"], numbers["CRPIX2"]])
    sides = np.linalg.norm(matrix_deg, axis=0)
    area = abs(matrix_deg[0, 0] * matrix_deg[1, 1] - matrix_deg[0, 1] * matrix_deg[1, 0])
    sound = sides.min() >= MIN_SCALE_DEG and sides.max() <= MAX_SCALE_DEG and area > LEAST_AREA * sides.prod()
    near = abs(lon_deg) <= MAX_CRVAL_DEG and np.abs(crpix).max() <= MAX_CRPIX
    if not (sound and near) or abs(lat_deg) >= 90.0:  # at a pole LONPOLE is 0 by default
        return None
    try:
        frame = frame_of_header(
            texts[f"CTYPE{lng + 1}"][:4], texts.get("RADESYS", ""), numbers.get("EQUINOX", math.nan)
        )
    except ValueError:
        return None
    matrix = np.radians(matrix_deg[[lng, 1 - lng]])
    return Gnomonic(
        plane=TangentPlane(lon_deg, lat_deg),
        crpix=crpix - 1.0,
        matrix=matrix,
        inverse=np.linalg.inv(matrix),
        frame=frame,
        scale_rad=float(np.radians(sides.min())),
    )


def _values(cards: bytes) -> tuple[Mapping[str, str], Mapping[str, float]] | None:
    """Texts and numbers by their keywords; None where one isn't understood, stands twice, or is missing."""
    texts: dict[str, str] = {}
    numbers: dict[str, float] = {}
    for start in range(0, len(cards), _CARD):
        key = cards[start : start + 8].decode("ascii", "replace").rstrip()
        form = next((form for form, keys in _FORMS if key in keys), None)
        value = None if form is None else form.fullmatch(cards, start + 10, start + _CARD)
        if value is None or cards[start + 8 : start + 10] != b"= " or key in texts or key in numbers:
            return None
        if form is _TEXT:
            texts[key] = value[1].decode("ascii", "replace").rstrip()
        else:
            numbers[key] = float(value[1].replace(b"D", b"E"))
    whole = numbers.keys() >= _NEEDED and all(map(math.isfinite, numbers.values()))
    return (texts, numbers) if whole else None


def _is_plain(texts: Mapping[str, str], numbers: Mapping[str, float]) -> bool:
    """Whether the units, the number of the axes and the pole are those that go without saying."""
    units = {texts.get("CUNIT1", "deg"), texts.get("CUNIT2", "deg")}
    axes = {numbers.get("NAXIS", 2), numbers.get("WCSAXES", 2)}
    return units == {"deg"} and axes == {2} and numbers.get("LONPOLE", 180.0) == 180.0


def _matrix_deg(numbers: Mapping[str, float]) -> FloatArray | None:
    """Pixels to degrees along the axes of the header, (2, 2); None where too little or too much is said of them."""
    cd, pc = ([numbers.get(name + place) for place in _MATRIX] for name in ("CD", "PC"))
    scale = [numbers.get("CDELT1"), numbers.get("CDELT2")]
    if any(value is not None for value in cd):
        only = all(value is None for value in (*pc, *scale))
        return np.array([value or 0.0 for value in cd]).reshape(2, 2) if only else None
    if scale[0] is None or scale[1] is None:
        return None
    turn = np.array([float(k in {0, 3}) if value is None else value for k, value in enumerate(pc)]).reshape(2, 2)
    matrix: FloatArray = turn * np.array([[scale[0]], [scale[1]]])
    return matrix
