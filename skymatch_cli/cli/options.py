"""Every option that commands share, defined once; choices, default and type come from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

import click

from skymatch_cli.choices import METHOD_ALIASES, ExportFormat, Format, Method, TableName, WarningName
from skymatch_cli.errors import UsageError
from skymatch_cli.settings import CHOICES, Settings, option_name

from .sections import GENERAL, SectionOption


class FileName(click.Path):
    """Text that names a file, or a folder alone, and is completed by the shell."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse empty text, as a variable of the shell without a value leaves it."""
        text = click.STRING.convert(value, param, ctx)
        if text == "" and param is not None and param.name != "images":  # of which --skip-bad may leave some out
            name = max(param.opts, key=len) if isinstance(param, click.Option) else param.metavar
            raise UsageError(f"{name} is empty", "give a name, or leave it out")
        return text


FILE = FileName()
FOLDER = FileName(file_okay=False)

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

_FIELDS = {field.name: field for field in fields(Settings)}
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}
_NAMES = {"FILE": FILE, "IMAGE": FILE, "DIR": FOLDER}  # for completion by the shell, by metavar
_RESULT = "The result"
_CHECKS = "Warnings and bad images"
_HELP = {
    "The sky": {
        "method": "How the sky of an image is found: its own statistic (localmin), the lowest of all (globalmin), "
        "offsets that make overlaps agree (match), the same with the lowest level brought to zero (globalmin+match), "
        "or values from --skylist (user). Also: "
        + ", ".join(f"{alias} = {method}" for alias, method in METHOD_ALIASES.items())
        + ".",
        "compare": "How two images are compared in their overlap: cell by cell, where stars and nebulae cancel (mesh, "
        "default), or by one statistic of each over the whole overlap (pooled, the default where --skystat, --nclip, "
        "--lsigma, --usigma or --binwidth is given).",
        "mesh_size": "Spacing of the mesh cells, in pixels [default: 8, less in thin overlaps].",
        "model": "Sky model of each group: a polynomial of degree 0 to 3, or the degree that the overlaps need (auto).",
        "reference": "Hold this image at the sky recorded in it, 0 if there is none (method match).",
        "match_up": "Match to the highest level instead of the lowest (method match).",
        "robust": "Down-weight overlaps that disagree with the rest by more than their errors, and list them.",
        "skylist": "File with lines 'name sky' (method user).",
    },
    "Statistics": {
        "skystat": "Statistic that gives the sky of a set of pixels.",
        "lower": "Ignore pixels below this value, before clipping [default: no limit].",
        "upper": "Ignore pixels above this value, before clipping [default: no limit].",
        "nclip": "Clipping passes; 0 clips nothing.",
        "lsigma": "Clip below the median by this many sigma.",
        "usigma": "Clip above the median by this many sigma.",
        "binwidth": "Width of a histogram bin in sigma (mode, midpt).",
        "mask_sources": "Leave stars and galaxies out of the own sky of each image (localmin, globalmin, "
        "globalmin+match), and of overlaps with --compare pooled.",
    },
    "Pixels that count": {
        "dqbits": "Data quality (DQ) flags of good pixels: numbers or names joined by + or a comma, ~ in front for bad "
        "ones; 'none' ignores DQ; 'auto' knows JWST and Roman, and elsewhere takes any flag as bad.",
        "dq_ext": "EXTNAME of the DQ extensions, or a template for separate files, '{stem}_dq.fits[{extname}]'.",
        "mask": "Mask of each image (non-zero = good), as a template such as 'masks/{stem}.fits[1]' with {stem}, "
        "{stem:OLD=NEW}, {dir}, {extname}, {extver} and {hdu}. A mask may also stand in the second column of an "
        "@list. Pixels inside the regions of a DS9 file (.reg) are left out.",
        "weight": "Weight, exposure or coverage map of each image (0 = not observed), as a template such as "
        "'{stem}.weight.fits'; 'none' also ignores those that belong to an image by their names.",
        "exposure_map": "Exposure map in seconds, as a template such as '{stem}_exp.fits': counts are divided by it, "
        "0 = not observed. The skies are per second and can't be recorded (add --dry-run).",
        "ignore_value": "Drop pixels of exactly this value.",
        "keep_value": "Keep pixels of exactly this value, also where they look like padding.",
    },
    "Units and groups": {
        "group_by": "Images that share one sky: 'file', 'exposure', 'none', or those with the same values of header "
        "keywords (PROGRAM,VISIT); 'auto' takes exposures of JWST and Roman, else files.",
        "split_by": "Match each combination of the values of these header keywords by itself, such as FILTER,PUPIL.",
        "planes": "Match each plane of a cube by itself ('each'; needed for spectral cubes and those of more than "
        "three planes).",
        "bunit": "Unit of images that have no BUNIT.",
        "units": "Compare in one surface-brightness unit (auto) or the raw numbers (as-is).",
        "wcs": "Position of an image: from its GWCS if the file holds one (auto), or from its FITS header alone.",
        "exptime_key": "Keyword of the exposure time.",
        "flux_scale": "Multiply by the value of this keyword first.",
    },
    "What happens to the images": {
        "dry_run": "Measure and report; leave the images alone.",
        "subtract": "Subtract the sky from the pixels [default: only record it in the header].",
        "output_dir": "Write whole copies there, under the same names; leave the originals alone.",
        "sky_keyword": "Keyword in which the sky is recorded.",
    },
    _RESULT: {"overwrite": "Replace existing files (--output, and copies in --output-dir)."},
    _CHECKS: {
        "skip_bad": "Leave out images that can't be used, with a warning.",
        "strict": "With any warning, show the result, write no image, and exit with 5.",
        "max_residual": "Warn about overlaps whose residual exceeds this many sigma.",
        "max_step": "Warn about steps between images larger than this, in the unit of the images.",
        "cross_check": "Also run the other comparison, and warn of images on which the two disagree by more than "
        "their errors. Pixels are read twice.",
    },
    GENERAL: {"jobs": "Number of images to work on at a time; 0 means one per core. The result doesn't depend on it."},
}
_METAVARS = {
    **{"mesh_size": "PIXELS", "reference": "IMAGE", "skylist": "FILE", "dqbits": "FLAGS", "dq_ext": "NAME"},
    **{"group_by": "WORD|KEYWORDS", "split_by": "KEYWORDS", "bunit": "UNIT", "output_dir": "DIR"},
    **{"method": "[" + "|".join(Method) + "]"},
    **dict.fromkeys(("nclip", "jobs"), "N"),
    **dict.fromkeys(("lower", "upper", "ignore_value", "keep_value", "max_step"), "VALUE"),
    **dict.fromkeys(("lsigma", "usigma", "binwidth", "max_residual"), "SIGMA"),
    **dict.fromkeys(("mask", "weight", "exposure_map"), "TEMPLATE"),
    **dict.fromkeys(("exptime_key", "flux_scale", "sky_keyword"), "KEYWORD"),
}

SKY, STATISTICS, PIXELS, UNITS, WRITING, *_ = map(tuple, _HELP.values())
COMPARE = ("compare", "mesh_size", "model")
METHOD = tuple(name for name in SKY if name not in COMPARE)
PIXEL_SOURCES = PIXELS[:-2]  # not the values that are dropped or kept


def add(*chosen: str | Decorator[Any]) -> Decorator[Any]:
    """Add options to a command, in this order: fields of ``Settings`` by their names, and others."""

    def decorate(function: Function) -> Function:
        for one in reversed(chosen):
            function = (_SETTINGS[one] if isinstance(one, str) else one)(function)
        return function

    return decorate


def _words(choices: type[StrEnum]) -> tuple[str, ...]:
    return tuple(map(str, choices))


def _option(
    section: str, names: str, metavar: str, text: str, *, words: type[StrEnum] | None = None, **attrs: Any
) -> Decorator[Any]:
    """An option that is not a field of ``Settings``; it takes one of ``words``, or text, unless it is a flag."""
    if words is not None:
        attrs["type"] = click.Choice(_words(words))
    elif not attrs.keys() & {"is_flag", "count"}:
        attrs["type"] = str if metavar in {"K/N", "ADDRESS"} else FILE
    shown = metavar or None
    return click.option(*names.split(), cls=SectionOption, section=section, metavar=shown, help=text, **attrs)


def _setting(section: str, name: str, text: str) -> Decorator[Any]:
    field, metavar = _FIELDS[name], _METAVARS.get(name, "")
    kind = _TYPES[str(field.type).partition(" ")[0]]
    words = (*_words(CHOICES[name]), *(METHOD_ALIASES if name == "method" else ())) if name in CHOICES else ()
    return click.option(
        option_name(name),
        cls=SectionOption,
        section=section,
        type=click.Choice(words) if words else _NAMES.get(metavar, kind),
        is_flag=kind is bool,
        default=field.default,
        show_default=field.default is not None and kind is not bool,
        metavar=metavar or None,
        help=text,
    )


_SETTINGS = {name: _setting(section, name, text) for section, texts in _HELP.items() for name, text in texts.items()}
ALLOW = _option(
    *(_CHECKS, "--allow", "NAME"),
    "Do not show or count warnings of this name; may be repeated (docs/warnings.md lists the names).",
    words=WarningName,
    multiple=True,
)
CHECKS = ("strict", ALLOW, "max_step", "max_residual", "cross_check", "skip_bad")
CONFIG = _option(GENERAL, "--config", "FILE.toml", "Settings under the names of these options; options given here win.")
CONSOLE = (
    _option(GENERAL, "-v --verbose", "", "Print more on standard error; twice for debugging.", count=True),
    _option(GENERAL, "-q --quiet", "", "Print only errors on standard error.", is_flag=True),
    _option(GENERAL, "--log-file", "FILE", "Add the whole log to this file."),
)
EXPORT_OUTPUT = _option(_RESULT, "-o --output", "FILE", "Output file [default: standard output].")
EXPORT_TO = _option(
    *(_RESULT, "--to", ""),
    "The program that the file is for: SWarp (BACK_DEFAULT), Montage (corrections.tbl), jwst (skylist), drizzle "
    "(AstroDrizzle's skyfile), regions (DS9) or TOPCAT (VOTable).",
    words=ExportFormat,
    required=True,
)
IMAGES_TBL = _option(
    *(_RESULT, "--images-tbl", "FILE"),
    "Montage's table of the projected images, whose cntr names them in corrections.tbl (--to montage).",
)
OVERWRITE_DEMO = _option(GENERAL, "--overwrite", "", "Replace the files of an earlier demo.", is_flag=True)
OVERWRITE_FILES = _option(_RESULT, "--overwrite", "", "Replace files that exist.", is_flag=True)
PAGE = _option(_RESULT, "-o --output page", "FILE.html", "The HTML report.")
PART = _option(
    *(_RESULT, "-o --output target", "PART"),
    "Write the measurements to this file, for 'skymatch merge' [default: into the store].",
)
PLOT = _option(
    *(_RESULT, "--plot", "FILE"),
    "Write a figure (.png .pdf .svg): overlaps with residuals, and the mosaic before and after.",
)
REPORT = _option(_RESULT, "--report page", "FILE.html", "Write an HTML report.")
RESULT = (
    _option(
        *(_RESULT, "-o --output", "FILE"),
        "Write the result to this file (.ecsv .csv .json .fits .vot) instead of standard output.",
    ),
    _option(
        *(_RESULT, "--format", ""),
        "Output format [default: from the suffix of --output, else a readable table].",
        words=Format,
    ),
    _option(
        *(_RESULT, "--table", ""),
        "Which table, for formats that hold one (json, fits and vot hold all).",
        words=TableName,
        default=str(TableName.IMAGES),
        show_default=True,
    ),
    "overwrite",
)
SCHEDULER = _option(
    *(GENERAL, "--scheduler", "ADDRESS"),
    "Measure on the Dask cluster of this scheduler (tcp://host:8786), or on worker processes here (local).",
)
SHARD = _option(GENERAL, "--shard", "K/N", "Do the K-th of N parts of the work, for N runs side by side.")
STORE = _option(GENERAL, "--store stored", "FILE", "Keep measurements in this file; read only new or changed images.")
STORED_PLAN = click.argument("stored", type=FILE, metavar="STORE")
PARTS = click.argument("parts", nargs=-1, required=True, type=FILE, metavar="PARTS...")
SOLVED = click.argument("solution", type=FILE, metavar="SOLUTION.fits")
STORED = click.argument("result", type=FILE, metavar="RESULT")
IMAGES = click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGES...")
