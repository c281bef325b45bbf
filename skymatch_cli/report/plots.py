"""A figure for a paper: the overlaps coloured by pull, and the mosaic before and after, without stars and with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from skymatch_cli.errors import UsageError, missing_extra
from skymatch_cli.model import FloatArray

from .overlaps import N_CLASSES, PULL_LIMIT, OverlapColumns, class_colours
from .scene import Scene
from .skymap import frame_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure, SubFigure

    from .mosaic import Stretch
    from .quicklook import Quicklook

# No dates and no names of programs: the same result gives the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    ".svg": {"Creator": None, "Date": None},
}
SUFFIXES = tuple(_METADATA)
_STYLE: Any = {"svg.hashsalt": "skymatch", "font.size": 8, "axes.linewidth": 0.6}
_DPI = 200
_WIDTH_INCH = 7.1  # two columns of a journal
_NAME_PT = 6
_WIDE = 1.6  # width over height from which the pictures are below the map


def require_extra() -> None:
    """Refuse early where the packages of the extra ``plot`` are missing (UsageError)."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise missing_extra("--plot", error, "plot") from None


def check_suffix(file: str) -> None:
    """Refuse a file name without a known suffix (UsageError)."""
    if Path(file).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {file}: the suffix names no kind of picture", f"use one of {' '.join(SUFFIXES)}")


def save_plot(
    scene: Scene, overlaps: OverlapColumns, looks: Sequence[Quicklook], suffix: str, stream: BinaryIO
) -> None:
    """Draw the figure (see `draw`) and write it in the format of a suffix of `SUFFIXES`."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure = draw(scene, overlaps, looks)
        figure.savefig(stream, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix], bbox_inches="tight")


def draw(scene: Scene, overlaps: OverlapColumns, looks: Sequence[Quicklook]) -> Figure:
    """Draw a map, and the mosaic before and after: sky alone, then stars and sky. Looks: with stars, and without."""
    from matplotlib.figure import Figure

    from .mosaic import sky_stretches, stretches

    stars, tiles = looks
    ny, nx = stars.frame.shape
    wide = nx > _WIDE * ny
    side = _WIDTH_INCH / (2 if wide else 4)  # width of a small panel; the map takes the place of four
    height = (4 if wide else 2) * (side * ny / nx + 0.75)
    figure = Figure(figsize=(_WIDTH_INCH, height), layout="constrained")
    on_map, on_pictures = figure.subfigures(2 if wide else 1, 1 if wide else 2, squeeze=False).flat
    on_sky = on_map.add_subplot(projection=stars.frame.wcs)
    _draw_map(on_map, on_sky, scene, overlaps, stars)
    _frame(on_sky, stars)
    _name_sky_axes(on_sky)
    _name_frames(on_sky, scene, stars)
    grid = on_pictures.add_gridspec(2, 2)
    pictures = (("sky alone", tiles, sky_stretches(tiles)), ("stars and sky", stars, stretches(stars)))
    for down, (title, look, contrast) in enumerate(pictures):
        for right, (values, stretch) in enumerate(zip((look.before, look.after), contrast, strict=True)):
            panel = on_pictures.add_subplot(grid[down, right], projection=look.frame.wcs)
            panel.set_title(f"{title}, {('before', 'after')[right]}")
            _draw_mosaic(on_pictures, panel, values, stretch, overlaps.unit)
            _frame(panel, look)
    return figure


def _draw_map(figure: SubFigure, panel: Any, scene: Scene, overlaps: OverlapColumns, look: Quicklook) -> None:
    """Draw the frames and the overlaps, with the colours of the HTML report's classes."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import BoundaryNorm, ListedColormap

    frame = look.frame
    thin = min(1.0, (60 / max(1, len(scene.infos))) ** 0.5)  # borders of a thousand frames would hide the overlaps
    frames = list(map(frame.to_pixel, scene.rings))
    panel.add_collection(PolyCollection(frames, facecolor="none", edgecolor="0.35", linewidth=0.5 * thin))
    rings = scene.overlap_rings(overlaps.a, overlaps.b)
    shown = [(overlaps.pull[k], frame.to_pixel(ring)) for k in overlaps.drawing_order.tolist() for ring in rings[k]]
    unused = [ring for pull, ring in shown if not np.isfinite(pull)]
    dotted: Any = {"facecolor": "none", "edgecolor": "0.35", "linewidth": 0.5 * thin, "linestyle": "dotted"}
    panel.add_collection(PolyCollection(unused, **dotted))
    limits = [*range(-PULL_LIMIT, 0), *range(1, PULL_LIMIT + 1)]
    coloured = PolyCollection(
        [ring for pull, ring in shown if np.isfinite(pull)],
        array=np.array([pull for pull, _ in shown if np.isfinite(pull)]),
        cmap=ListedColormap(class_colours()),
        norm=BoundaryNorm(limits, N_CLASSES, extend="both"),
        edgecolor="0.35",
        linewidth=0.3 * thin**2,
        alpha=0.9,
    )
    panel.add_collection(coloured)
    bar = figure.colorbar(coloured, ax=panel, location="bottom", label="pull (σ)", shrink=0.9, aspect=30)
    bar.set_ticks(limits)
    panel.set_title("overlaps")


def _name_frames(panel: Any, scene: Scene, look: Quicklook) -> None:
    nx = look.frame.shape[1]
    font_pix = _NAME_PT / 72 * nx / (_WIDTH_INCH / 2)
    borders = [[look.frame.to_pixel(ring) for ring in scene.image_rings(i)] for i in range(len(scene.infos))]
    for name in frame_names(borders, tuple(info.ref.label for info in scene.infos), font_pix):
        panel.text(name.x, name.y, _plain(name.text), ha="center", va="center", fontsize=_NAME_PT, color="0.2")


def _draw_mosaic(figure: SubFigure, panel: Any, values: FloatArray, stretch: Stretch, unit: str) -> None:
    from matplotlib.colors import FuncNorm

    norm = FuncNorm((stretch.scaled, stretch.unscaled), stretch.black, stretch.white)
    shown = panel.imshow(values, origin="lower", cmap="gray", norm=norm, interpolation="none")
    bar = figure.colorbar(shown, ax=panel, location="bottom", label=_plain(unit), shrink=0.9, aspect=20)
    levels = [stretch.black, float(stretch.unscaled(np.array(0.5))), stretch.white]
    bar.set_ticks(levels, labels=[f"{level:.4g}" for level in levels], minor=False)
    bar.ax.tick_params(labelsize=_NAME_PT)
    bar.minorticks_off()
    for axis in panel.coords:
        axis.set_ticklabel_visible(False)
        axis.set_axislabel(" ")


def _frame(panel: Any, look: Quicklook) -> None:
    """Make a panel show the whole picture with square pixels."""
    ny, nx = look.frame.shape
    panel.set_xlim(-0.5, nx - 0.5)
    panel.set_ylim(-0.5, ny - 0.5)
    panel.set_aspect("equal")


def _name_sky_axes(panel: Any) -> None:
    for axis, name, number in zip(panel.coords, ("RA (ICRS)", "Dec (ICRS)"), (3, 5), strict=True):
        axis.set_axislabel(name)
        axis.set_ticks(number=number)
        axis.set_ticklabel(exclude_overlapping=True)


def _plain(text: str) -> str:
    """Return text in which a dollar sign is a dollar sign, not the start of a formula."""
    return text.replace("$", r"\$")
