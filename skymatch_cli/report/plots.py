"""A figure for a paper: footprints with residuals, and the mosaic before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from skymatch_cli.errors import UsageError

from .charts import residual_scale
from .pagedata import OverlapColumns
from .scene import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .quicklook import Quicklook, Stretch

# No dates and no program names: the same result gives the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    ".svg": {"Creator": None, "Date": None},
}
SUFFIXES = tuple(_METADATA)
_STYLE: Any = {"svg.hashsalt": "skymatch", "font.size": 8, "axes.linewidth": 0.6}
_DPI = 200
_WIDTH_INCH = 7.1  # two columns of a journal


def require_extra() -> None:
    """Refuse early where the packages of the extra ``plot`` are missing.

    Raises
    ------
    UsageError

    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--plot needs the package {error.name}", "pip install 'skymatch-cli[plot]'") from None


def check_suffix(file: str) -> None:
    """Refuse a name that says no known kind of picture.

    Raises
    ------
    UsageError

    """
    if Path(file).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {file}: the suffix names no kind of picture", f"use one of {' '.join(SUFFIXES)}")


def save_plot(scene: Scene, overlaps: OverlapColumns, look: Quicklook, suffix: str, stream: BinaryIO) -> None:
    """Draw the figure and write it.

    Parameters
    ----------
    scene : Scene
    overlaps : OverlapColumns
    look : Quicklook
    suffix : {".png", ".pdf", ".svg"}
    stream : binary stream

    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure = draw(scene, overlaps, look)
        figure.savefig(stream, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix], bbox_inches="tight")


def draw(scene: Scene, overlaps: OverlapColumns, look: Quicklook) -> Figure:
    """The figure: a map and two pictures on one and the same sky."""
    from matplotlib.figure import Figure

    ny, nx = look.frame.shape
    wide = nx > 1.6 * ny
    rows, columns = (3, 1) if wide else (1, 3)
    width = _WIDTH_INCH
    height = 3 * width * ny / nx + 2 if wide else width / 3 * ny / nx + 1
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, subplot_kw={"projection": look.frame.wcs}, squeeze=False).ravel()
    _draw_map(figure, panels[0], scene, overlaps, look)
    _draw_mosaics(figure, panels[1:], look, overlaps.unit)
    for panel in panels:
        panel.set_xlim(-0.5, nx - 0.5)
        panel.set_ylim(-0.5, ny - 0.5)
        panel.set_aspect("equal")
        _label(panel, first=wide or panel is panels[0], last=not wide or panel is panels[-1])
    return figure


def _draw_map(figure: Figure, panel: Any, scene: Scene, overlaps: OverlapColumns, look: Quicklook) -> None:
    from matplotlib.collections import PolyCollection

    frame = look.frame
    thin = min(1.0, (60 / max(1, len(scene.infos))) ** 0.5)  # borders of a thousand frames would hide the overlaps
    frames = [frame.to_pixel(ring) for i in range(len(scene.infos)) for ring in scene.image_rings(i)]
    panel.add_collection(PolyCollection(frames, facecolor="none", edgecolor="0.35", linewidth=0.5 * thin))
    rings = scene.overlap_rings(overlaps.a, overlaps.b)
    order = overlaps.drawing_order.tolist()
    shown = [(overlaps.residual[k], frame.to_pixel(ring)) for k in order for ring in rings[k]]
    unused = [ring for residual, ring in shown if not np.isfinite(residual)]
    dotted: Any = {"facecolor": "none", "edgecolor": "0.35", "linewidth": 0.5 * thin, "linestyle": "dotted"}
    panel.add_collection(PolyCollection(unused, **dotted))
    scale = residual_scale(overlaps.residual)
    coloured = PolyCollection(
        [ring for residual, ring in shown if np.isfinite(residual)],
        array=np.array([residual for residual, _ in shown if np.isfinite(residual)]),
        cmap="PuOr_r",
        clim=(-scale, scale),
        edgecolor="0.35",
        linewidth=0.3 * thin**2,
        alpha=0.9,
    )
    panel.add_collection(coloured)
    label = "residual" + (f" ({overlaps.unit})" if overlaps.unit else "")
    figure.colorbar(coloured, ax=panel, location="bottom", extend="both", label=_plain(label), shrink=0.9, aspect=30)
    panel.set_title("overlaps")


def _draw_mosaics(figure: Figure, panels: Any, look: Quicklook, unit: str) -> None:
    from matplotlib.colors import AsinhNorm

    from .quicklook import stretches

    for panel, values, stretch, title in zip(
        panels, (look.before, look.after), stretches(look), ("before", "after"), strict=True
    ):
        shown = panel.imshow(
            values - stretch.black,
            origin="lower",
            cmap="gray",
            norm=AsinhNorm(stretch.softening, 0.0, stretch.white - stretch.black),
            interpolation="none",
        )
        sign = "−" if stretch.black > 0 else "+"
        label = f"value {sign} {abs(stretch.black):.5g}" + (f" ({unit})" if unit else "")
        bar = figure.colorbar(shown, ax=panel, location="bottom", label=_plain(label), shrink=0.9, aspect=30)
        bar.set_ticks([0.0, *_decades(stretch)], minor=False)
        bar.minorticks_off()
        panel.set_title(title)


def _label(panel: Any, *, first: bool, last: bool) -> None:
    ra, dec = panel.coords
    ra.set_axislabel("RA (ICRS)" if last else " ")
    dec.set_axislabel("Dec (ICRS)" if first else " ")
    for axis, number in ((ra, 3), (dec, 5)):
        axis.set_ticks(number=number)
        axis.set_ticklabel(exclude_overlapping=True)
    dec.set_ticklabel_visible(first)
    ra.set_ticklabel_visible(last)


def _decades(stretch: Stretch) -> list[float]:
    """Powers of ten where the scale is logarithmic."""
    powers = 10.0 ** np.arange(np.ceil(np.log10(stretch.softening)), np.log10(stretch.white - stretch.black))
    return [float(power) for power in powers]


def _plain(text: str) -> str:
    """Text in which a dollar sign is a dollar sign, not the start of a formula."""
    return text.replace("$", r"\$")
