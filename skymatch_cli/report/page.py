"""The HTML report: one file that opens from disk and asks for nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.model import Status
from skymatch_cli.output.plain import number_format
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import Report
from skymatch_cli.settings import Settings, option_name
from skymatch_cli.version import __version__

from .beforeafter import Picture, missing, pictures, pillow
from .charts import Histogram, histogram
from .pagedata import OverlapColumns, common, sheets, without_folder
from .quicklook import Quicklook
from .scene import Scene
from .skymap import sky_map

if TYPE_CHECKING:
    from jinja2 import Template

_SCRIPTS = (("vendor", "d3-zoom.js"), ("templates", "report.js"))
_PACKAGES = ("numpy", "scipy", "astropy", "shapely", "pyproj")


@dataclass(frozen=True, slots=True)
class _Script:
    """A script of the page, and the digest by which the browser knows that it may run."""

    text: Any
    digest: str

    @classmethod
    def of(cls, text: str, trusted: Any) -> _Script:
        """Text that needs no escaping."""
        return cls(trusted(text), "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


def html_report(report: Report, scene: Scene | None, looks: Sequence[Quicklook]) -> str:
    """Everything about a run as one HTML page.

    Parameters
    ----------
    report : Report
    scene : Scene or None
        None where the images can't be found any more: there is no map then, and the page says so.
    looks : sequence of Quicklook
        With stars, and without; empty where the pixels can't be read any more: there are no pictures then.

    Returns
    -------
    str

    Raises
    ------
    UsageError
        If the packages of the extra ``report`` are missing.

    """
    template, trusted = _template()
    overlaps = OverlapColumns.of(report.overlaps)
    shown = pictures(looks, overlaps.unit)
    short, folder = without_folder(report)
    page: str = template.render(
        scripts=[_Script.of(_source(*place), trusted) for place in _SCRIPTS],
        style=trusted(_source("templates", "report.css")),
        headline=_headline(report),
        command=_command(report.settings),
        warnings=[printable(warning) for warning in report.warnings],
        notes=_notes(folder, scene, shown),
        figures=_figures(report, overlaps),
        pictures=shown,
        sky_map=sky_map(scene, overlaps) if scene and scene.infos else None,
        tables=sheets(short, overlaps),
        histograms=_histograms(overlaps),
        settings=[(option_name(name), _shown(value)) for name, value in report.settings.items()],
        versions=[("skymatch, of the result", report.version), *_versions()],
        images=[_listed(printable(label)) for label in report.labels],
    )
    return page


def require_extra() -> None:
    """Refuse early where the packages of the extra ``report`` are missing.

    Raises
    ------
    UsageError

    """
    _template()
    pillow()


def _template() -> tuple[Template, Any]:
    """The page, and the mark of text that needs no escaping."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise missing(error) from None
    # The page comes as text rather than through a loader: autoescape then holds whatever its name.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_source("templates", "report.html.j2")), Markup


def _source(folder: str, name: str) -> str:
    return resources.files(__package__).joinpath(folder, name).read_text(encoding="utf-8")


def _headline(report: Report) -> str:
    n, m, c = len(report.images), len(report.overlaps), len(report.components)
    return f"{_count(n, 'image')}, {_count(m, 'overlap')}, {_count(c, 'component')}; method {report.settings['method']}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _command(settings: dict[str, Any]) -> str:
    """The command that gives the same result, with the options that are not at their defaults; it touches no image."""
    words = ["skymatch", "match", "--dry-run"]
    default = Settings().determining()
    for name, value in settings.items():
        if value == default.get(name):
            continue
        words.append(option_name(name))
        if value is not True:
            words.append(shlex.quote(printable(str(value))))
    return " ".join([*words, "@images.txt"])


def _notes(folder: str, scene: Scene | None, shown: Sequence[Picture]) -> list[str]:
    notes = [f"Images are in {printable(folder)}"] if folder else []
    if scene is None:
        notes.append(
            "There is no map: the images were not found where the result says, or they were not matched on the sky."
        )
    if not shown:
        notes.append("There are no pictures of the mosaic: no image with a sky could be read.")
    return notes


def _figures(report: Report, overlaps: OverlapColumns) -> list[tuple[str, str]]:
    """The numbers that say at a glance how it went."""
    status = report.images.column("status")
    sky = report.images.column("sky")[np.isfinite(report.images.column("sky"))]
    used = overlaps.residual[np.isfinite(overlaps.residual)]
    chi2, dof = (float(np.nansum(report.components.column(name))) for name in ("chi2", "dof"))
    figures = [
        ("Images", f"{np.count_nonzero(status == Status.OK)} of {len(status)} ok"),
        ("Overlaps used", f"{len(used)} of {len(overlaps.a)}"),
        ("Components", str(len(report.components))),
    ]
    if sky.size:
        write = number_format(sky, report.images.column("sky_err"))
        figures.append(("Skies", f"{write(sky.min())} … {write(sky.max())} {common(report.images.column('sky_unit'))}"))
    if used.size:
        rms = float(np.sqrt(np.mean(used**2)))
        figures.append(("Rms residual", f"{rms:.3g} {overlaps.unit}"))
    if dof > 0:
        figures.append(("Chi² / dof", f"{chi2:.4g} / {dof:.3g}"))
    return figures


def _histograms(overlaps: OverlapColumns) -> list[Histogram]:
    used = np.isfinite(overlaps.residual) & np.isfinite(overlaps.pull)
    if not used.any():
        return []
    return [
        histogram(overlaps.residual[used], "Residuals", overlaps.unit),
        histogram(overlaps.pull[used], "Pulls", "", gaussian=True),
    ]


def _versions() -> list[tuple[str, str]]:
    """What made this page, and the result too where match made both."""
    packages = [(name, metadata.version(name)) for name in _PACKAGES]
    return [("skymatch, of this page", __version__), ("Python", platform.python_version()), *packages]


def _listed(name: str) -> str:
    """A name as a line of a list: in quotes where it would be taken apart otherwise."""
    return shlex.quote(name) if name.startswith("#") or any(c in "'\"\\" or c.isspace() for c in name) else name


def _shown(value: object) -> str:
    return "not set" if value is None else printable(str(value))
