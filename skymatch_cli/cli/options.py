"""Every option that commands share, defined once: its words, default and type come from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

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
from skymatch_cli.settings import Settings, default_comparison, field_types, option_name, read_config

from .filenames import FILE, FOLDER

if TYPE_CHECKING:
    from skymatch_cli.output.destination import Output

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

_FIELDS = {field.name: field for field in fields(Settings)}
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}
_NAMES = {"FILE": FILE, "IMAGE": FILE, "DIR": FOLDER}  # what a shell completes, by metavar
_SHORT_HELP = "skymatch.short_help"  # in the meta of a click context
_GENERAL = "General"
_SKY = "The sky"
_STATISTICS = "Statistics"
_PIXELS = "Pixels that count"
_UNITS = "Units and groups"
_IMAGES = "What happens to the images"
_RESULT = "The result"
_CHECKS = "Warnings and bad images"


class SectionOption(click.Option):
    """An option that knows under which heading the help shows it."""

    def __init__(self, *args: Any, section: str = _GENERAL, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help shows its options under headings.

    Parameters
    ----------
    daily : tuple of str
        Names of the options that ``-h`` shows; ``--help`` shows all. Without, both do.
    """

    def __init__(self, *args: Any, daily: tuple[str, ...] = (), **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self._daily = daily

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Answer ``-h`` with the options of daily use."""
        if self._daily and "-h" in args[: args.index("--") if "--" in args else None]:
            ctx.meta[_SHORT_HELP] = True
            click.echo(self.get_help(ctx))
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog; after the options of daily use, where the others are."""
        if ctx.meta.get(_SHORT_HELP):
            formatter.write_paragraph()
            formatter.write_text(f"'{ctx.command_path} --help' shows all {len(self.get_params(ctx)) - 1} options.")
            return
        super().format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section, in the order in which they were added."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if ctx.meta.get(_SHORT_HELP) and parameter.name not in self._daily:
                continue
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", _GENERAL), []).append(record)
        if general := sections.pop(_GENERAL, None):
            sections[_GENERAL] = general  # the last one: click puts --help at the end
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def add(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Add options to a command, in this order."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _words(choices: type[StrEnum]) -> tuple[str, ...]:
    return tuple(str(choice) for choice in choices)


def _setting(
    name: str,
    text: str,
    *,
    section: str,
    metavar: str | None = None,
    words: tuple[str, ...] = (),
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
        "method",
        f"How the sky of an image is found: its own statistic (localmin), the lowest of all (globalmin), offsets that "
        f"make overlaps agree (match), the same with the lowest level brought to zero (globalmin+match), or values "
        f"from --skylist (user). Also: {aliases}.",
        section=_SKY,
        metavar="[" + "|".join(_words(Method)) + "]",
        words=(*_words(Method), *METHOD_ALIASES),
    )


COMPARE = (
    _setting(
        "compare",
        "How two images are compared in their overlap: cell by cell, where stars and nebulae cancel (mesh, default), "
        "or by one statistic of each over the whole overlap (pooled, the default where --skystat, --nclip, --lsigma, "
        "--usigma or --binwidth is given).",
        section=_SKY,
        words=_words(Compare),
    ),
    _setting(
        "mesh_size",
        "Spacing of the mesh cells, in pixels (8, or less in overlaps that are thin).",
        section=_SKY,
        metavar="PIXELS",
    ),
    _setting(
        "model",
        "Sky model of each group: a polynomial of degree 0 to 3, or of the degree that the images ask for.",
        section=_SKY,
        words=_words(Model),
    ),
)
METHOD = (
    _methods(),
    _setting(
        "reference",
        "Hold this image at the sky recorded in it, 0 if there is none (method match).",
        section=_SKY,
        metavar="IMAGE",
    ),
    _setting("match_up", "Match to the highest level instead of the lowest (method match).", section=_SKY),
    _setting(
        "robust",
        "Weigh overlaps down that contradict all others by more than their errors, and name them.",
        section=_SKY,
    ),
    _setting("skylist", "File with lines 'name sky' (method user).", section=_SKY, metavar="FILE"),
)
SKY = (METHOD[0], *COMPARE, *METHOD[1:])
STATISTICS = (
    _setting(
        "skystat",
        "The statistic that stands for the sky of a set of pixels.",
        section=_STATISTICS,
        words=_words(Skystat),
    ),
    _setting(
        "lower", "Lowest value that counts, before clipping (no limit without).", section=_STATISTICS, metavar="VALUE"
    ),
    _setting(
        "upper", "Highest value that counts, before clipping (no limit without).", section=_STATISTICS, metavar="VALUE"
    ),
    _setting("nclip", "Clipping passes; 0 clips nothing.", section=_STATISTICS, metavar="N"),
    _setting("lsigma", "Clip below the median by this many sigma.", section=_STATISTICS, metavar="SIGMA"),
    _setting("usigma", "Clip above the median by this many sigma.", section=_STATISTICS, metavar="SIGMA"),
    _setting("binwidth", "Width of a histogram bin in sigma (mode, midpt).", section=_STATISTICS, metavar="SIGMA"),
)
MASK = _setting(
    "mask",
    "Mask of each image (non-zero = good), as a template such as 'masks/{stem}.fits[1]' with {stem}, {stem:OLD=NEW}, "
    "{dir}, {extname}, {extver} and {hdu}. A mask may also stand in the second column of an @list. "
    "Pixels inside the regions of a DS9 file (.reg) are left out.",
    section=_PIXELS,
    metavar="TEMPLATE",
)
WEIGHT = _setting(
    "weight",
    "Weight, exposure or coverage map of each image (0 = not observed), as a template such as '{stem}.weight.fits'; "
    "'none' also ignores those that belong to an image by their names.",
    section=_PIXELS,
    metavar="TEMPLATE",
)
EXPOSURE_MAP = _setting(
    "exposure_map",
    "Exposure map in seconds, as a template such as '{stem}_exp.fits': counts are divided by it, 0 = not observed. "
    "The skies are per second and can't be recorded (add --dry-run).",
    section=_PIXELS,
    metavar="TEMPLATE",
)
PIXEL_SOURCES = (
    _setting(
        "dqbits",
        "DQ flags of good pixels: numbers or names joined by + or a comma, ~ in front for bad ones; 'none' ignores "
        "DQ; 'auto' knows JWST and Roman, and elsewhere takes any flag as bad.",
        section=_PIXELS,
        metavar="FLAGS",
    ),
    _setting(
        "dq_ext",
        "EXTNAME of the DQ extensions, or a template for separate files, '{stem}_dq.fits[{extname}]'.",
        section=_PIXELS,
        metavar="NAME",
    ),
    MASK,
    WEIGHT,
    EXPOSURE_MAP,
)
IGNORE_VALUE = _setting("ignore_value", "Drop pixels of exactly this value.", section=_PIXELS, metavar="VALUE")
KEEP_VALUE = _setting(
    "keep_value",
    "Keep pixels of exactly this value, also where they look like padding.",
    section=_PIXELS,
    metavar="VALUE",
)
PIXELS = (*PIXEL_SOURCES, IGNORE_VALUE, KEEP_VALUE)
GROUP_BY = _setting(
    "group_by",
    "Images that share one sky: 'file', 'exposure', 'none', or those with the same values of header keywords "
    "(PROGRAM,VISIT); 'auto' takes exposures of JWST and Roman, else files.",
    section=_UNITS,
    metavar="WORD|KEYWORDS",
)
SPLIT_BY = _setting(
    "split_by",
    "Match each combination of the values of these header keywords by itself, such as FILTER,PUPIL.",
    section=_UNITS,
    metavar="KEYWORDS",
)
UNITS = (
    SPLIT_BY,
    _setting(
        "planes",
        "Match each plane of a cube by itself ('each'; needed for spectral cubes and those of more than three planes).",
        section=_UNITS,
        words=_words(Planes),
    ),
    _setting("bunit", "Unit of images that have no BUNIT.", section=_UNITS, metavar="UNIT"),
    _setting(
        "units",
        "Compare in one surface-brightness unit (auto) or the raw numbers (as-is).",
        section=_UNITS,
        words=_words(Units),
    ),
    _setting(
        "wcs",
        "Where an image lies: by its GWCS, if the file holds one (auto), or by its FITS header alone.",
        section=_UNITS,
        words=_words(WcsSource),
    ),
    _setting("exptime_key", "Keyword of the exposure time.", section=_UNITS, metavar="KEYWORD"),
    _setting("flux_scale", "Multiply by the value of this keyword first.", section=_UNITS, metavar="KEYWORD"),
)
DRY_RUN = _setting("dry_run", "Measure and report; leave the images alone.", section=_IMAGES)
OUTPUT_DIR = _setting(
    "output_dir",
    "Write whole copies there, under the same names; leave the originals alone.",
    section=_IMAGES,
    metavar="DIR",
)
SKY_KEYWORD = _setting("sky_keyword", "Keyword in which the sky is recorded.", section=_IMAGES, metavar="KEYWORD")
SUBTRACT = _setting(
    "subtract", "Subtract the sky from the pixels; without, it is only recorded in the header.", section=_IMAGES
)
WRITING = (DRY_RUN, SUBTRACT, OUTPUT_DIR, SKY_KEYWORD)
OVERWRITE = _setting("overwrite", "Replace existing files: of --output, and copies in --output-dir.", section=_RESULT)
OVERWRITE_DEMO = click.option(
    "--overwrite", cls=SectionOption, is_flag=True, help="Replace the files of an earlier demo."
)
RESULT = (
    click.option(
        "-o",
        "--output",
        cls=SectionOption,
        section=_RESULT,
        type=FILE,
        metavar="FILE",
        help="Write the result to this file (.ecsv .csv .json .fits .vot) instead of standard output.",
    ),
    click.option(
        "--format",
        cls=SectionOption,
        section=_RESULT,
        type=click.Choice(_words(Format)),
        help="Form of the result; without, what the suffix of --output says, else a table for people.",
    ),
    click.option(
        "--table",
        cls=SectionOption,
        section=_RESULT,
        type=click.Choice(_words(TableName)),
        default=str(TableName.IMAGES),
        show_default=True,
        help="Which table, for formats that hold one (json, fits and vot hold all).",
    ),
    OVERWRITE,
)
SKIP_BAD = _setting("skip_bad", "Go on without images that can't be used, with a warning.", section=_CHECKS)
STRICT = _setting("strict", "With any warning, show the result, write no image, and exit with 5.", section=_CHECKS)
MAX_RESIDUAL = _setting(
    "max_residual", "Warn about overlaps whose residual exceeds this many sigma.", section=_CHECKS, metavar="SIGMA"
)
MAX_STEP = _setting(
    "max_step",
    "Warn about steps between images larger than this, in the unit of the images.",
    section=_CHECKS,
    metavar="VALUE",
)
ALLOW = click.option(
    "--allow",
    cls=SectionOption,
    section=_CHECKS,
    type=click.Choice(_words(WarningName)),
    metavar="NAME",
    multiple=True,
    help="Do not show or count warnings of this name; may be repeated (docs/warnings.md lists the names).",
)
CROSS_CHECK = _setting(
    "cross_check",
    "Compare the overlaps the other way too, pooled beside mesh, and warn of images on which both disagree by more "
    "than their errors. Pixels are read twice.",
    section=_CHECKS,
)
CHECKS = (STRICT, ALLOW, MAX_STEP, MAX_RESIDUAL, CROSS_CHECK, SKIP_BAD)
JOBS = _setting(
    "jobs",
    "Images worked on at a time; 0 means one per core. The result doesn't depend on it.",
    section=_GENERAL,
    metavar="N",
)
CONFIG = click.option(
    "--config",
    cls=SectionOption,
    type=FILE,
    metavar="FILE.toml",
    help="Settings under the names of these options; options given here win.",
)
CONSOLE = (
    click.option(
        "-v", "--verbose", cls=SectionOption, count=True, help="Say more on standard error; twice for debugging."
    ),
    click.option("-q", "--quiet", cls=SectionOption, is_flag=True, help="Say nothing but errors on standard error."),
    click.option("--log-file", cls=SectionOption, type=FILE, metavar="FILE", help="Add the whole log to this file."),
)
REPORT = click.option(
    "--report", "page", cls=SectionOption, section=_RESULT, type=FILE, metavar="FILE.html", help="Write an HTML report."
)
PLOT = click.option(
    "--plot",
    cls=SectionOption,
    section=_RESULT,
    type=FILE,
    metavar="FILE",
    help="Write a figure (.png .pdf .svg): overlaps with residuals, and the mosaic before and after.",
)
PAGE = click.option(
    "-o",
    "--output",
    "page",
    cls=SectionOption,
    section=_RESULT,
    type=FILE,
    metavar="FILE.html",
    help="The HTML report.",
)
OVERWRITE_FILES = click.option(
    "--overwrite", cls=SectionOption, section=_RESULT, is_flag=True, help="Replace files that exist."
)
EXPORT_TO = click.option(
    "--to",
    cls=SectionOption,
    section=_RESULT,
    type=click.Choice(_words(ExportFormat)),
    required=True,
    help="The program that the file is for: SWarp (BACK_DEFAULT), Montage (corrections.tbl), jwst (skylist), drizzle "
    "(AstroDrizzle's skyfile), regions (DS9) or TOPCAT (VOTable).",
)
IMAGES_TBL = click.option(
    "--images-tbl",
    cls=SectionOption,
    section=_RESULT,
    type=FILE,
    metavar="FILE",
    help="Montage's table of the projected images, whose cntr names them in corrections.tbl (--to montage).",
)
EXPORT_OUTPUT = click.option(
    "-o",
    "--output",
    cls=SectionOption,
    section=_RESULT,
    type=FILE,
    metavar="FILE",
    help="Where to write; without, standard output.",
)
PART = click.option(
    "-o",
    "--output",
    "target",
    cls=SectionOption,
    section=_RESULT,
    type=FILE,
    metavar="PART",
    help="Write what is measured to this file, for 'skymatch merge' [default: into the store].",
)
SHARD = click.option(
    "--shard",
    cls=SectionOption,
    type=str,
    metavar="K/N",
    help="Do the K-th of N parts of the work, for N runs side by side.",
)
STORE = click.option(
    "--store",
    "stored",
    cls=SectionOption,
    type=FILE,
    metavar="FILE",
    help="Keep what is read and measured in this file; read only new or changed images.",
)
SCHEDULER = click.option(
    "--scheduler",
    cls=SectionOption,
    type=str,
    metavar="ADDRESS",
    help="Measure on the Dask cluster of this scheduler (tcp://host:8786), or on worker processes here (local).",
)
STORED_PLAN = click.argument("stored", type=FILE, metavar="STORE")
PARTS = click.argument("parts", nargs=-1, required=True, type=FILE, metavar="PARTS...")
SOLVED = click.argument("solution", type=FILE, metavar="SOLUTION.fits")
STORED = click.argument("result", type=FILE, metavar="RESULT")
IMAGES = click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGES...")


def read(
    ctx: click.Context,
    base: Settings | None = None,
    fixed: frozenset[str] = frozenset(),
    *,
    ignored: frozenset[str] = frozenset(),
) -> tuple[Settings, Output]:
    """The settings of a command: defaults, then the configuration file, then the options that were given.

    Parameters
    ----------
    ctx : click.Context
    base : Settings, optional
        Those of an earlier step, instead of the defaults.
    fixed : frozenset of str
        Settings that the earlier step decided.
    ignored : frozenset of str
        Settings that have no meaning for this command: the configuration file of another one may hold them.

    Raises
    ------
    UsageError
        If they are wrong or contradict each other, or what an earlier step decided.
    """
    from skymatch_cli.errors import UsageError
    from skymatch_cli.output.destination import Output

    config = ctx.params.get("config")
    of_settings, of_output = field_types(Settings), field_types(Output)
    values = read_config(config, of_settings | of_output) if config else {}
    values |= {name: value for name, value in ctx.params.items() if _was_given(ctx, name)}
    chosen = {name: value for name, value in values.items() if name in of_settings and name not in ignored}
    output = Output(**{name: value for name, value in values.items() if name in of_output})
    if base is None:
        return Settings.of(chosen), output
    kept = {name: getattr(base, name) for name in of_settings}
    if "compare" not in fixed and default_comparison(base.method, chosen) == Compare.POOLED:
        kept["compare"] = str(Compare.POOLED)
    settings = Settings(**(kept | chosen))
    for name in sorted(fixed & chosen.keys()):
        if getattr(settings, name) != getattr(base, name):
            decided = getattr(base, name)
            raise UsageError(f"{option_name(name)}: an earlier step decided on {decided}", "repeat that step")
    return settings, output


def shard_of(text: str | None, n: int) -> range:
    """The indices of one of the parts of n things that ``--shard K/N`` means; all of them without it.

    Raises
    ------
    UsageError
    """
    from skymatch_cli.errors import UsageError

    if text is None:
        return range(n)
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"--shard {text} is not K/N with K from 1 to N", "write --shard 1/8 for the first of eight")
    return range(n * (int(part) - 1) // int(parts), n * int(part) // int(parts))


def _was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
