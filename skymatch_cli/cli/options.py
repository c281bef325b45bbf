"""Every option that commands share, defined once; choices, default and type come from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

import click

from skymatch_cli.choices import (
    METHOD_ALIASES,
    Compare,
    ExportFormat,
    Format,
    Method,
    Model,
    Planes,
    Skystat,
    TableName,
    Units,
    WarningName,
    WcsSource,
)
from skymatch_cli.settings import Settings, option_name

from .filenames import FILE, FOLDER
from .sections import GENERAL, SectionOption

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

_FIELDS = {field.name: field for field in fields(Settings)}
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}
_NAMES = {"FILE": FILE, "IMAGE": FILE, "DIR": FOLDER}  # for completion by the shell, by metavar
_SKY = "The sky"
_STATISTICS = "Statistics"
_PIXELS = "Pixels that count"
_UNITS = "Units and groups"
_IMAGES = "What happens to the images"
_RESULT = "The result"
_CHECKS = "Warnings and bad images"


def add(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Add options to a command, in this order."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _words(choices: type[StrEnum]) -> tuple[str, ...]:
    return tuple(str(choice) for choice in choices)


def _option(
    section: str, *names: str, text: str, words: tuple[str, ...] = (), kind: Any = None, **attrs: Any
) -> Decorator[Any]:
    """An option that is not a field of ``Settings``; it takes one of ``words``, a ``kind``, or else a file name."""
    if words:
        kind = click.Choice(words)
    elif kind is None and not attrs.keys() & {"is_flag", "count"}:
        kind = FILE
    return click.option(*names, cls=SectionOption, section=section, type=kind, help=text, **attrs)


def _setting(
    section: str, name: str, text: str, metavar: str | None = None, words: tuple[str, ...] = ()
) -> Decorator[Any]:
    """The option of one field of ``Settings``."""
    field = _FIELDS[name]
    kind = _TYPES[str(field.type).partition(" ")[0]]
    return click.option(
        option_name(name),
        cls=SectionOption,
        section=section,
        type=click.Choice(words) if words else _NAMES.get(metavar, kind) if metavar else kind,
        is_flag=kind is bool,
        default=field.default,
        show_default=field.default is not None and kind is not bool,
        metavar=metavar,
        help=text,
    )


def _methods() -> Decorator[Any]:
    aliases = ", ".join(f"{alias} = {method}" for alias, method in METHOD_ALIASES.items())
    return _setting(
        _SKY,
        "method",
        f"How the sky of an image is found: its own statistic (localmin), the lowest of all (globalmin), offsets that "
        f"make overlaps agree (match), the same with the lowest level brought to zero (globalmin+match), or values "
        f"from --skylist (user). Also: {aliases}.",
        "[" + "|".join(_words(Method)) + "]",
        words=(*_words(Method), *METHOD_ALIASES),
    )


COMPARE = (
    _setting(
        _SKY,
        "compare",
        "How two images are compared in their overlap: cell by cell, where stars and nebulae cancel (mesh, default), "
        "or by one statistic of each over the whole overlap (pooled, the default where --skystat, --nclip, --lsigma, "
        "--usigma or --binwidth is given).",
        words=_words(Compare),
    ),
    _setting(
        _SKY, "mesh_size", "Spacing of the mesh cells, in pixels (8, or less in overlaps that are thin).", "PIXELS"
    ),
    _setting(
        _SKY,
        "model",
        "Sky model of each group: a polynomial of degree 0 to 3, or of the degree that the images ask for.",
        words=_words(Model),
    ),
)
METHOD = (
    _methods(),
    _setting(
        _SKY, "reference", "Hold this image at the sky recorded in it, 0 if there is none (method match).", "IMAGE"
    ),
    _setting(_SKY, "match_up", "Match to the highest level instead of the lowest (method match)."),
    _setting(
        _SKY, "robust", "Down-weight overlaps that disagree with the rest by more than their errors, and list them."
    ),
    _setting(_SKY, "skylist", "File with lines 'name sky' (method user).", "FILE"),
)
SKY = (METHOD[0], *COMPARE, *METHOD[1:])
STATISTICS = (
    _setting(_STATISTICS, "skystat", "Statistic that gives the sky of a set of pixels.", words=_words(Skystat)),
    _setting(_STATISTICS, "lower", "Ignore pixels below this value, before clipping [default: no limit].", "VALUE"),
    _setting(_STATISTICS, "upper", "Ignore pixels above this value, before clipping [default: no limit].", "VALUE"),
    _setting(_STATISTICS, "nclip", "Clipping passes; 0 clips nothing.", "N"),
    _setting(_STATISTICS, "lsigma", "Clip below the median by this many sigma.", "SIGMA"),
    _setting(_STATISTICS, "usigma", "Clip above the median by this many sigma.", "SIGMA"),
    _setting(_STATISTICS, "binwidth", "Width of a histogram bin in sigma (mode, midpt).", "SIGMA"),
)
MASK = _setting(
    _PIXELS,
    "mask",
    "Mask of each image (non-zero = good), as a template such as 'masks/{stem}.fits[1]' with {stem}, {stem:OLD=NEW}, "
    "{dir}, {extname}, {extver} and {hdu}. A mask may also stand in the second column of an @list. "
    "Pixels inside the regions of a DS9 file (.reg) are left out.",
    "TEMPLATE",
)
WEIGHT = _setting(
    _PIXELS,
    "weight",
    "Weight, exposure or coverage map of each image (0 = not observed), as a template such as '{stem}.weight.fits'; "
    "'none' also ignores those that belong to an image by their names.",
    "TEMPLATE",
)
EXPOSURE_MAP = _setting(
    _PIXELS,
    "exposure_map",
    "Exposure map in seconds, as a template such as '{stem}_exp.fits': counts are divided by it, 0 = not observed. "
    "The skies are per second and can't be recorded (add --dry-run).",
    "TEMPLATE",
)
PIXEL_SOURCES = (
    _setting(
        _PIXELS,
        "dqbits",
        "DQ flags of good pixels: numbers or names joined by + or a comma, ~ in front for bad ones; 'none' ignores "
        "DQ; 'auto' knows JWST and Roman, and elsewhere takes any flag as bad.",
        "FLAGS",
    ),
    _setting(
        _PIXELS,
        "dq_ext",
        "EXTNAME of the DQ extensions, or a template for separate files, '{stem}_dq.fits[{extname}]'.",
        "NAME",
    ),
    MASK,
    WEIGHT,
    EXPOSURE_MAP,
)
IGNORE_VALUE = _setting(_PIXELS, "ignore_value", "Drop pixels of exactly this value.", "VALUE")
KEEP_VALUE = _setting(
    _PIXELS, "keep_value", "Keep pixels of exactly this value, also where they look like padding.", "VALUE"
)
PIXELS = (*PIXEL_SOURCES, IGNORE_VALUE, KEEP_VALUE)
GROUP_BY = _setting(
    _UNITS,
    "group_by",
    "Images that share one sky: 'file', 'exposure', 'none', or those with the same values of header keywords "
    "(PROGRAM,VISIT); 'auto' takes exposures of JWST and Roman, else files.",
    "WORD|KEYWORDS",
)
SPLIT_BY = _setting(
    _UNITS,
    "split_by",
    "Match each combination of the values of these header keywords by itself, such as FILTER,PUPIL.",
    "KEYWORDS",
)
UNITS = (
    SPLIT_BY,
    _setting(
        _UNITS,
        "planes",
        "Match each plane of a cube by itself ('each'; needed for spectral cubes and those of more than three planes).",
        words=_words(Planes),
    ),
    _setting(_UNITS, "bunit", "Unit of images that have no BUNIT.", "UNIT"),
    _setting(
        _UNITS,
        "units",
        "Compare in one surface-brightness unit (auto) or the raw numbers (as-is).",
        words=_words(Units),
    ),
    _setting(
        _UNITS,
        "wcs",
        "Where an image lies: by its GWCS, if the file holds one (auto), or by its FITS header alone.",
        words=_words(WcsSource),
    ),
    _setting(_UNITS, "exptime_key", "Keyword of the exposure time.", "KEYWORD"),
    _setting(_UNITS, "flux_scale", "Multiply by the value of this keyword first.", "KEYWORD"),
)
DRY_RUN = _setting(_IMAGES, "dry_run", "Measure and report; leave the images alone.")
OUTPUT_DIR = _setting(
    _IMAGES, "output_dir", "Write whole copies there, under the same names; leave the originals alone.", "DIR"
)
SKY_KEYWORD = _setting(_IMAGES, "sky_keyword", "Keyword in which the sky is recorded.", "KEYWORD")
SUBTRACT = _setting(_IMAGES, "subtract", "Subtract the sky from the pixels [default: only record it in the header].")
WRITING = (DRY_RUN, SUBTRACT, OUTPUT_DIR, SKY_KEYWORD)
OVERWRITE = _setting(_RESULT, "overwrite", "Replace existing files: of --output, and copies in --output-dir.")
OVERWRITE_DEMO = _option(GENERAL, "--overwrite", is_flag=True, text="Replace the files of an earlier demo.")
RESULT = (
    _option(
        _RESULT,
        "-o",
        "--output",
        metavar="FILE",
        text="Write the result to this file (.ecsv .csv .json .fits .vot) instead of standard output.",
    ),
    _option(
        _RESULT,
        "--format",
        words=_words(Format),
        text="Output format [default: from the suffix of --output, else a readable table].",
    ),
    _option(
        _RESULT,
        "--table",
        words=_words(TableName),
        default=str(TableName.IMAGES),
        show_default=True,
        text="Which table, for formats that hold one (json, fits and vot hold all).",
    ),
    OVERWRITE,
)
SKIP_BAD = _setting(_CHECKS, "skip_bad", "Leave out images that can't be used, with a warning.")
STRICT = _setting(_CHECKS, "strict", "With any warning, show the result, write no image, and exit with 5.")
MAX_RESIDUAL = _setting(_CHECKS, "max_residual", "Warn about overlaps whose residual exceeds this many sigma.", "SIGMA")
MAX_STEP = _setting(
    _CHECKS, "max_step", "Warn about steps between images larger than this, in the unit of the images.", "VALUE"
)
ALLOW = _option(
    _CHECKS,
    "--allow",
    words=_words(WarningName),
    metavar="NAME",
    multiple=True,
    text="Do not show or count warnings of this name; may be repeated (docs/warnings.md lists the names).",
)
CROSS_CHECK = _setting(
    _CHECKS,
    "cross_check",
    "Also run the other comparison, and warn of images on which the two disagree by more than their "
    "errors. Pixels are read twice.",
)
CHECKS = (STRICT, ALLOW, MAX_STEP, MAX_RESIDUAL, CROSS_CHECK, SKIP_BAD)
JOBS = _setting(
    GENERAL,
    "jobs",
    "Number of images to work on at a time; 0 means one per core. The result doesn't depend on it.",
    "N",
)
CONFIG = _option(
    GENERAL, "--config", metavar="FILE.toml", text="Settings under the names of these options; options given here win."
)
CONSOLE = (
    _option(GENERAL, "-v", "--verbose", count=True, text="Print more on standard error; twice for debugging."),
    _option(GENERAL, "-q", "--quiet", is_flag=True, text="Print only errors on standard error."),
    _option(GENERAL, "--log-file", metavar="FILE", text="Add the whole log to this file."),
)
REPORT = _option(_RESULT, "--report", "page", metavar="FILE.html", text="Write an HTML report.")
PLOT = _option(
    _RESULT,
    "--plot",
    metavar="FILE",
    text="Write a figure (.png .pdf .svg): overlaps with residuals, and the mosaic before and after.",
)
PAGE = _option(_RESULT, "-o", "--output", "page", metavar="FILE.html", text="The HTML report.")
OVERWRITE_FILES = _option(_RESULT, "--overwrite", is_flag=True, text="Replace files that exist.")
EXPORT_TO = _option(
    _RESULT,
    "--to",
    words=_words(ExportFormat),
    required=True,
    text="The program that the file is for: SWarp (BACK_DEFAULT), Montage (corrections.tbl), jwst (skylist), drizzle "
    "(AstroDrizzle's skyfile), regions (DS9) or TOPCAT (VOTable).",
)
IMAGES_TBL = _option(
    _RESULT,
    "--images-tbl",
    metavar="FILE",
    text="Montage's table of the projected images, whose cntr names them in corrections.tbl (--to montage).",
)
EXPORT_OUTPUT = _option(_RESULT, "-o", "--output", metavar="FILE", text="Output file [default: standard output].")
PART = _option(
    _RESULT,
    "-o",
    "--output",
    "target",
    metavar="PART",
    text="Write the measurements to this file, for 'skymatch merge' [default: into the store].",
)
SHARD = _option(
    GENERAL, "--shard", kind=str, metavar="K/N", text="Do the K-th of N parts of the work, for N runs side by side."
)
STORE = _option(
    GENERAL,
    "--store",
    "stored",
    metavar="FILE",
    text="Keep measurements in this file; read only new or changed images.",
)
SCHEDULER = _option(
    GENERAL,
    "--scheduler",
    kind=str,
    metavar="ADDRESS",
    text="Measure on the Dask cluster of this scheduler (tcp://host:8786), or on worker processes here (local).",
)
STORED_PLAN = click.argument("stored", type=FILE, metavar="STORE")
PARTS = click.argument("parts", nargs=-1, required=True, type=FILE, metavar="PARTS...")
SOLVED = click.argument("solution", type=FILE, metavar="SOLUTION.fits")
STORED = click.argument("result", type=FILE, metavar="RESULT")
IMAGES = click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGES...")
