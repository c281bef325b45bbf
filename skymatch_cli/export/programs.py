"""Skies in the formats of other programs: SWarp, Montage, jwst, drizzlepac, DS9, TOPCAT."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from skymatch_cli.choices import ExportFormat
from skymatch_cli.errors import InputError, Problem, UsageError, missing_extra
from skymatch_cli.images.formats.files import base_name, is_remote, real_path
from skymatch_cli.model import FloatArray, ImageInfo, ImageRef
from skymatch_cli.model.section import WHOLE
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.output.formats import write_vot
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import Report
from skymatch_cli.report.overlaps import OverlapColumns, class_colours, pull_class
from skymatch_cli.report.scene import scene
from skymatch_cli.sky.sphere import lon_lat

_JWST_LONGEST_NAME = 128  # characters that the pipeline's reader keeps
_FRAME_COLOUR, _UNUSED_COLOUR = "white", "gray"
_WITHOUT_SKY = "leave it out of the match and of the mosaic, or give it a value with --method user --skylist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A result, and what its export needs besides."""

    report: Report
    infos: tuple[ImageInfo, ...]  # the images of the report, from their headers; () for ``topcat``, which needs none
    images_tbl: str | None = None  # Montage's table of the (projected) images

    def planes(self) -> list[tuple[ImageInfo, SkyPlane]]:
        """Every image and the sky to subtract from its pixels, with its tilt if it has one; InputError as `skies`."""
        tilt = self.report.tilt()
        if tilt is not None and tilt.shape[1] > 2:
            hint = "subtract them: skymatch match --model poly2 --subtract"
            raise UsageError("--to montage: it knows planes, but the skies are polynomials of a higher degree", hint)
        tilts = [()] * len(self.infos) if tilt is None else tilt.tolist()
        return [(info, SkyPlane(sky, *t)) for (info, sky), t in zip(self.skies(), tilts, strict=True)]

    def constants(self, to: ExportFormat) -> list[tuple[ImageInfo, float]]:
        """Every image and its sky, for a format without tilts; InputError as `skies`; UsageError if they have tilts."""
        if self.report.tilt() is not None:
            hint = "use --to montage, or subtract them: skymatch match --model plane --subtract"
            raise UsageError(f"--to {to}: the skies have tilts, which it can't hold", hint)
        return self.skies()

    def skies(self) -> list[tuple[ImageInfo, float]]:
        """Every image and the value to subtract from its pixels (at its centre, where the skies have tilts).

        InputError if an image has no sky, or its sky is already subtracted.
        """
        problems = []
        found = []
        columns = (self.report.images.column(name).tolist() for name in ("sky", "status"))
        for info, sky, status in zip(self.infos, *columns, strict=True):
            if info.ref.part != WHOLE:
                part = "a section of an image" if info.ref.part.plane is None else "a plane of a cube"
                what = f"is {part}, and other programs take one sky an image"
                problems.append(Problem(info.ref.label, what, "subtract it: skymatch match --subtract"))
            elif not np.isfinite(sky):
                problems.append(Problem(info.ref.label, f"has no sky: {status}", _WITHOUT_SKY))
            elif info.recorded is not None and info.recorded.subtracted:
                what = "its sky is subtracted already (BKGSUB = T)"
                problems.append(Problem(info.ref.label, what, "`skymatch undo` it first, or go on without an export"))
            found.append((info, float(sky)))
        if problems:
            raise InputError(problems)
        return found


def exported(to: str, request: Export) -> bytes:
    """The input file of another program, a word of `ExportFormat`.

    InputError if the format can't hold the skies, or a sky is already subtracted; UsageError if an option is missing
    that the format needs.
    """
    return _WRITERS[ExportFormat(to)](request)


def _swarp(request: Export) -> bytes:
    """Values for ``BACK_DEFAULT``, in the order of the inputs, and after them the inputs as comments.

    SWarp reads words up to the first ``#`` and gives one value to each name on its command line, so that
    extensions are named one by one.
    """
    skies = request.constants(ExportFormat.SWARP)
    values = [f"{sky!r}\n" for _, sky in skies]
    names = [f"# {printable(_swarp_name(info))}\n" for info, _ in skies]
    return "".join((*values, "# in the order of these inputs:\n", *names)).encode()


def _swarp_name(info: ImageInfo) -> str:
    ref = info.ref
    if ref.hdu == 0:
        return ref.file
    # SWarp counts the image in the first extension of a file named .fits.fz as number 0.
    return f"{ref.file}[{ref.hdu - (1 if '.fits.fz' in ref.file else 0)}]"


def _montage(request: Export) -> bytes:
    from .montage import corrections

    if request.images_tbl is None:
        raise UsageError("--to montage needs the table of the images", "add --images-tbl images.tbl")
    return corrections(request.images_tbl, request.planes()).encode()


def _jwst(request: Export) -> bytes:
    """Lines ``name sky``; the pipeline compares names without folders and wants one line for each file."""
    lines, problems = [], []
    files = _by_file(request.constants(ExportFormat.JWST))
    for file, images in files.items():
        skies = {sky for _, sky in images}
        lines.append(f"{file} {images[0][1]!r}\n")
        if len(skies) > 1:
            problems.append(Problem(file, "its images have different skies, and the list holds one value per file"))
        if len(PurePath(file).name) > _JWST_LONGEST_NAME:
            problems.append(Problem(file, f"its name is longer than {_JWST_LONGEST_NAME} characters"))
    _refuse((*problems, *_namesakes(files), *_unlisted(files)))
    return "".join(lines).encode(errors="surrogateescape")


def _drizzle(request: Export) -> bytes:
    """Lines ``name sky``, or ``name sky1 sky2 …`` for the chips [SCI,1], [SCI,2] and so on.

    AstroDrizzle compares names letter by letter, and goes on without a sky where none is the same. Each file therefore
    has a line for its bare name, for the user's spelling, and for its absolute paths.
    """
    lines, problems = [], []
    files = _by_file(request.constants(ExportFormat.DRIZZLE))
    for file, images in files.items():
        images.sort(key=lambda image: image[0].ref.extver)
        skies = [sky for _, sky in images]
        if len(set(skies)) == 1:
            skies = skies[:1]
        elif [info.ref.extver for info, _ in images] != list(range(1, len(images) + 1)):
            problems.append(
                Problem(file, "its chips have different skies, and some chips are missing", "match all its chips")
            )
        names = _spellings(images[0][0].ref)
        lines += [" ".join([name, *map(repr, skies)]) + "\n" for name in names]
        problems += _unlisted(names)
    _refuse((*problems, *_namesakes(files)))
    return "".join(lines).encode(errors="surrogateescape")


def _spellings(ref: ImageRef) -> list[str]:
    """The names by which a file may be called in AstroDrizzle, from any folder."""
    names = [base_name(ref.path), ref.file]
    if not is_remote(ref.path):
        names += [os.path.abspath(ref.path), real_path(ref.path)]  # noqa: PTH100 (links stay as they are)
    return list(dict.fromkeys(names))


def _namesakes(files: Iterable[str]) -> list[Problem]:
    """Files that have the same name in different folders."""
    names = Counter(PurePath(file).name for file in files)
    return [Problem(f, "another file has this name too", "rename one") for f in files if names[PurePath(f).name] > 1]


def _by_file(skies: Iterable[tuple[ImageInfo, float]]) -> dict[str, list[tuple[ImageInfo, float]]]:
    files: dict[str, list[tuple[ImageInfo, float]]] = {}
    for info, sky in skies:
        files.setdefault(info.ref.file, []).append((info, sky))
    return files


def _unlisted(files: Iterable[str]) -> list[Problem]:
    """Names that a list of words can't hold."""
    bad = [file for file in files if file.startswith("#") or file.split() != [file]]
    return [Problem(file, "a list can't hold a name with blanks or a # in front", "rename it") for file in bad]


def _refuse(problems: Iterable[Problem]) -> None:
    problems = tuple(problems)
    if problems:
        raise InputError(problems)


def _regions(request: Export) -> bytes:
    """Polygons of every image, named, and of every overlap, coloured by pull and named ``a | b: residual``.

    UsageError if the package of the extra ``regions`` is missing; InputError if an image has no usable WCS.
    """
    try:
        from regions import Regions
    except ImportError as error:
        raise missing_extra("--to regions", error, "regions") from None
    report, infos = request.report, request.infos
    place = scene(infos)
    columns, colours = OverlapColumns.of(report.overlaps), class_colours()
    made = [_polygon(ring, report.labels[i], _FRAME_COLOUR) for i in range(len(infos)) for ring in place.image_rings(i)]
    rings = place.overlap_rings(columns.a, columns.b)
    for k, pair in enumerate(zip(columns.a.tolist(), columns.b.tolist(), strict=True)):
        residual = float(columns.residual[k])
        used = np.isfinite(residual)
        text = (
            f"{report.labels[pair[0]]} | {report.labels[pair[1]]}: {f'{residual:.4g}' if used else columns.status[k]}"
        )
        colour = colours[pull_class(float(columns.pull[k]))] if used else _UNUSED_COLOUR
        made += [_polygon(ring, text, colour) for ring in rings[k]]
    return str(Regions(made).serialize(format="ds9", precision=8)).encode()


def _polygon(ring: FloatArray, text: str, colour: str) -> Any:
    from astropy.coordinates import SkyCoord
    from regions import PolygonSkyRegion, RegionMeta, RegionVisual

    lon, lat = lon_lat(ring)
    harmless = printable(text).replace("{", "(").replace("}", ")")  # braces hold the text
    return PolygonSkyRegion(
        SkyCoord(lon, lat, unit="rad"), meta=RegionMeta(text=harmless), visual=RegionVisual(color=colour)
    )


def _topcat(request: Export) -> bytes:
    stream = io.BytesIO()
    write_vot(request.report, "images", stream)
    return stream.getvalue()


_WRITERS: dict[ExportFormat, Callable[[Export], bytes]] = {
    ExportFormat.SWARP: _swarp,
    ExportFormat.MONTAGE: _montage,
    ExportFormat.JWST: _jwst,
    ExportFormat.DRIZZLE: _drizzle,
    ExportFormat.REGIONS: _regions,
    ExportFormat.TOPCAT: _topcat,
}
