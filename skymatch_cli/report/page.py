"""The HTML report: one file that opens from disk and loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import platform
import shlex
from collections.abc import Sequence
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.errors import missing_extra, plural
from skymatch_cli.model import Status
from skymatch_cli.output.plain import number_format
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import Report
from skymatch_cli.settings import Settings, option_name
from skymatch_cli.version import __version__

from .charts import Histogram, histogram
from .mosaic import Picture, pictures, pillow
from .overlaps import N_CLASSES, PULL_LIMIT, OverlapColumns, common_word
from .quicklook import Quicklook
from .scene import Scene
from .skymap import sky_map
from .tables import sheets, with_short_names

if TYPE_CHECKING:
    from jinja2 import Template

_SCRIPTS = (("vendor", "d3-zoom.js"), ("templates", "report.js"))
_PACKAGES = ("numpy", "scipy", "astropy", "shapely", "pyproj")


def _script(text: str, trusted: Any) -> dict[str, Any]:
    """Make a script of text that needs no escaping, with the digest that allows the browser to run it."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": trusted(text), "digest": f"sha256-{digest}"}


def html_report(report: Report, scene: Scene | None, looks: Sequence[Quicklook], *, typed: str = "") -> str:
    """Make the HTML page of a run; UsageError if the packages of the extra ``report`` are missing.

    The same for the same arguments: the page holds no date, but shows that of its file. Without a scene it has no map,
    without looks (with stars, and without) no pictures, and says so. ``typed`` is the command as it was typed.
    """
    template, trusted = _template()
    overlaps = OverlapColumns.of(report.overlaps)
    cubes = scene is not None and any(info.ref.part.plane is not None for info in scene.infos)
    shown = pictures(looks, overlaps.unit, cubes=cubes)
    short, shared = with_short_names(report)
    on_sky = sky_map(scene, overlaps, short.labels) if scene and scene.infos else None
    page: str = template.render(
        scripts=[_script(_source(*place), trusted) for place in _SCRIPTS],
        style=trusted(_source("templates", "report.css")),
        headline=_headline(report),
        typed=printable(typed),
        command=_command(report.settings),
        warnings=[{k: printable(str(v)) for k, v in warning.as_dict().items()} for warning in short.warnings],
        verdict=_verdict(report, overlaps),
        notes=_notes(report, shared, scene, shown),
        figures=_figures(report, overlaps),
        pictures=shown,
        side=max((picture.width for picture in shown), default=0),
        sky_map=on_sky,
        pull_limit=PULL_LIMIT,
        n_classes=N_CLASSES,
        tables=sheets(short, overlaps),
        histograms=_histograms(overlaps),
        settings=_settings(report.settings),
        versions=[("skymatch, of the result", report.version), *_versions()],
        images=[_listed(printable(label)) for label in report.labels],
    )
    return page


def require_extra() -> None:
    """Refuse early where the packages of the extra ``report`` are missing (UsageError)."""
    _template()
    pillow()


def _template() -> tuple[Template, Any]:
    """Return the template, and the function that marks text as needing no escaping."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise missing_extra("the report", error, "report") from None
    # From text, not through a loader: autoescape then applies whatever the name.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_source("templates", "report.html.j2")), Markup


def _source(folder: str, name: str) -> str:
    return resources.files(__package__).joinpath(folder, name).read_text(encoding="utf-8")


def _headline(report: Report) -> str:
    n, m, c = len(report.images), len(report.overlaps), len(report.components)
    return f"{plural(n, 'image')}, {plural(m, 'overlap')}, {plural(c, 'component')}; method {report.settings['method']}"


def _command(settings: dict[str, Any]) -> str:
    """Return the command that gives the same result without changing images: the options that are not defaults."""
    words = ["skymatch", "match", "--dry-run"]
    default = Settings().determining()
    for name, value in settings.items():
        if value == default.get(name):
            continue
        words.append(option_name(name))
        if value is not True:
            words.append(shlex.quote(printable(str(value))))
    return " ".join([*words, "@images.txt"])


def _notes(report: Report, shared: str, scene: Scene | None, shown: Sequence[Picture]) -> list[str]:
    notes = [printable(shared)] if shared else []
    if not any(report.images.column("sky_unit")):
        notes.append("Values have no unit: the images have no BUNIT.")
    if scene is None:
        notes.append(
            "There is no map: the images were not found where the result says, or they were not matched on the sky."
        )
    if not shown:
        notes.append("There are no pictures of the mosaic: no image with a sky could be read.")
    return notes


def _figures(report: Report, overlaps: OverlapColumns) -> list[tuple[str, str]]:
    """Return the numbers that say at a glance how it went, each with its unit."""
    status = report.images.column("status")
    sky = report.images.column("sky")[np.isfinite(report.images.column("sky"))]
    figures = [
        ("Images with a sky", f"{np.count_nonzero(status == Status.OK)} of {len(status)}"),
        ("Overlaps used", f"{np.count_nonzero(overlaps.used)} of {len(overlaps.a)}"),
        ("Components", str(len(report.components))),
    ]
    if sky.size:
        write, unit = number_format(sky, report.images.column("sky_err")), report.images.column("sky_unit")
        figures.append(("Skies", f"{write(sky.min())} to {write(sky.max())} {common_word(unit)}"))
    return figures + (_fit(report, overlaps) if overlaps.used.any() else [])


def _fit(report: Report, overlaps: OverlapColumns) -> list[tuple[str, str]]:
    """Return the numbers that say how well the overlaps agree."""
    components = report.components
    chi2, dof = (float(np.nansum(components.column(name))) for name in ("chi2", "dof"))
    before, after = (float(np.nanmax(components.column(name))) for name in ("step_before", "step_after"))
    typical = [float(np.median(np.abs(steps[overlaps.used]))) for steps in (overlaps.delta, overlaps.residual)]
    figures = [
        ("Largest step, before → after", f"{before:.3g} → {after:.2g} {overlaps.unit}"),
        ("Typical step, before → after", f"{typical[0]:.3g} → {typical[1]:.2g} {overlaps.unit}"),
    ]
    pull = np.abs(overlaps.pull[np.isfinite(overlaps.pull)])
    if pull.size:
        figures.append(("Largest pull", f"{pull.max():.1f} σ"))
    if dof > 0:
        figures.append(("Chi² per degree of freedom", f"{chi2 / dof:.3g}"))
    return figures


def _verdict(report: Report, overlaps: OverlapColumns) -> str:
    """Say whether the overlaps agree, "" where nothing checks them."""
    pull = np.abs(overlaps.pull[np.isfinite(overlaps.pull)])
    if not pull.size or not np.nansum(report.components.column("dof")) > 0:
        return ""
    beyond = int(np.count_nonzero(pull > PULL_LIMIT))
    if not beyond:
        agree = f"All {len(pull)} overlaps agree" if len(pull) > 1 else "The overlap agrees"
        return f"{agree} within {PULL_LIMIT} σ."
    return f"{beyond} of {len(pull)} overlaps contradict the others by more than {PULL_LIMIT} σ (the deepest colours)."


def _histograms(overlaps: OverlapColumns) -> list[Histogram]:
    used = np.isfinite(overlaps.residual) & np.isfinite(overlaps.pull)
    if not used.any():
        return []
    return [
        histogram(overlaps.residual[used], "Residuals", overlaps.unit),
        histogram(overlaps.pull[used], "Pulls", "σ", gaussian=True),
    ]


def _versions() -> list[tuple[str, str]]:
    """Return the versions that made this page (and the result, where match made both)."""
    packages = [(name, metadata.version(name)) for name in _PACKAGES]
    return [("skymatch, of this page", __version__), ("Python", platform.python_version()), *packages]


def _listed(name: str) -> str:
    """Return a name as a line of a list, in quotes where needed."""
    return shlex.quote(name) if name.startswith("#") or any(c in "'\"\\" or c.isspace() for c in name) else name


def _settings(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the settings that have a value, and in one line those that have none."""
    unset = ", ".join(option_name(name) for name, value in settings.items() if value is None)
    shown = [(option_name(name), printable(str(value))) for name, value in settings.items() if value is not None]
    return [*shown, ("not set", unset)] if unset else shown
