"""The HTML report and the figure of a run, made together so that the pixels are read once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.output.destination import check_distinct, check_target, save_target
from skymatch_cli.run.tasks import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from skymatch_cli.model import ImageInfo
    from skymatch_cli.output.tables import Report
    from skymatch_cli.settings import Settings

    from .quicklook import Quicklook
    from .scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The report and the figure to write; None for those that were not asked for.

    ``html_option`` is the option that names the page, for messages; ``typed`` is the command as it was typed, for the
    page.
    """

    html: str | None = None
    plot: str | None = None
    html_option: str = "--report"
    typed: str = ""

    def check(self, *, overwrite: bool, inputs: Iterable[str] = ()) -> None:
        """Refuse what can't be made or written, before any work is done.

        UsageError if an extra is missing, a suffix is unknown, or a file may not be written.
        """
        inputs = tuple(inputs)
        check_distinct({self.html_option: self.html, "--plot": self.plot})
        if self.html is not None:
            from . import page, plots

            if Path(self.html).suffix.lower() in plots.SUFFIXES:
                said = f"{self.html_option} {self.html}: the report is an HTML page"
                raise UsageError(said, "a figure is made by --plot")
            page.require_extra()
            check_target(self.html, self.html_option, overwrite=overwrite, inputs=inputs)
        if self.plot is not None:
            from . import plots

            plots.require_extra()
            plots.check_suffix(self.plot)
            check_target(self.plot, "--plot", overwrite=overwrite, inputs=inputs)

    def write(
        self,
        found: Report,
        infos: tuple[ImageInfo, ...] | None,
        settings: Settings,
        *,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Draw and write what was asked for; ``infos`` None: the images can't be found any more.

        InputError if there is nothing to plot, or pixels can't be read; SkymatchError if a file can't be written.
        """
        if self.html is None and self.plot is None:
            return
        from . import page, plots

        place, looks = _looks(found, infos, settings, progress)
        if self.plot is not None and (place is None or not looks):
            raise InputError.at(f"--plot {self.plot}", "the images of the result can't be found on the sky")
        if self.html is not None:
            html = page.html_report(found, place, looks, typed=self.typed).encode(errors="backslashreplace")
            save_target(self.html, self.html_option, lambda stream: stream.write(html))
        if self.plot is not None and place is not None:
            from .overlaps import OverlapColumns

            overlaps, suffix = OverlapColumns.of(found.overlaps), Path(self.plot).suffix.lower()
            save_target(self.plot, "--plot", lambda stream: plots.save_plot(place, overlaps, looks, suffix, stream))


def _looks(
    found: Report, infos: tuple[ImageInfo, ...] | None, settings: Settings, progress: Progress
) -> tuple[Scene | None, tuple[Quicklook, ...]]:
    """Return the images on the sky and the mosaic with its stars and without; nothing for images without a WCS."""
    if not infos or any(info.wcs is None for info in infos):
        return None, ()
    from .mosaic import PICTURE_SIDE, TILES_SIDE
    from .quicklook import View, block_medians, quicklooks
    from .scene import frame_around, scene

    place = scene(infos)
    views = View(frame_around(place.rings, PICTURE_SIDE)), View(frame_around(place.rings, TILES_SIDE), block_medians)
    sky, tilt = found.images.column("sky"), found.tilt()
    return place, quicklooks(place, sky, settings, views, tilt=tilt, progress=progress)
