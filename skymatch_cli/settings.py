"""Every setting of a run, with its default, in one frozen dataclass: defaults <- TOML file <- options.

A ``Settings`` that exists is valid: its values are checked, and aliases resolved, when it is made.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from skymatch_cli.choices import METHOD_ALIASES, Compare, Method, Model, Planes, Skystat, Units, WarningName, WcsSource
from skymatch_cli.errors import UsageError, without_secrets

if TYPE_CHECKING:
    from skymatch_cli.model import StatisticSettings

_KEYWORD = r"[A-Z0-9_-]{1,8}"
_RESERVED_KEYWORDS = (
    r"BKG(SUB|METH|ERR|D[XY])|SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|[PG]COUNT|GROUPS|TELESCOP|END|COMMENT|HISTORY|CONTINUE|HIERARCH"
    r"|C(RVAL|RPIX|TYPE|UNIT|DELT|ROTA)\d+|(CD|PC|PV|PS)\d+_\d+|RADESYS|EQUINOX|EXPTIME|FILTER"
    r"|Z(IMAGE|BITPIX|NAXIS\d*|CMPTYPE|TILE\d+)"
    r"|DATE.*|MJD.*|OBJECT|AIRMASS|SATURATE|RDNOISE|(E|ATOD)?GAIN|MAGZ.*|PHOT.*|ZPT|ZEROPT|FLXSCALE"
    r"|BUNIT|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|EXT(NAME|VER|LEVEL)"
)

CHOICES: Mapping[str, type[StrEnum]] = {
    **{"method": Method, "compare": Compare, "model": Model, "skystat": Skystat, "units": Units},
    **{"planes": Planes, "wcs": WcsSource},
}
"""The words that settings choose from."""

_OF_OFFSETS = (Method.MATCH, Method.GLOBALMIN_MATCH)
_NO_TILT = ": pooled comparison cannot measure a tilt"
# Options, what they work with, why, and what to do ("": leave them out).
_ONLY_WITH: tuple[tuple[str, str, tuple[str, ...], str, str], ...] = (
    ("model", "compare", (Compare.MESH,), _NO_TILT, "add --compare mesh"),
    ("model", "method", _OF_OFFSETS, "", ""),
    ("robust", "model", (Model.CONSTANT,), "", ""),
    ("robust", "method", _OF_OFFSETS, ": it needs offsets from overlaps", ""),
    ("cross_check", "model", (Model.CONSTANT,), _NO_TILT, ""),
    ("cross_check", "method", _OF_OFFSETS, ": it needs offsets from overlaps", ""),
    ("reference", "method", (Method.MATCH,), "", ""),
    ("match_up", "method", (Method.MATCH,), "", ""),
    ("skylist", "method", (Method.USER,), "", "add --method user"),
    ("mesh_size", "compare", (Compare.MESH,), "", "add --compare mesh, or leave it out"),
    ("binwidth", "skystat", (Skystat.MODE, Skystat.MIDPT), "", "add --skystat mode or midpt, or leave it out"),
)

_OVERLAP_STATISTIC = frozenset({"skystat", "nclip", "lsigma", "usigma", "binwidth"})
_MOST_CONFIG_BYTES = 2**20
MOST_MESH_SIZE = 1000.0  # pixels; sums over a cell take steps of a quarter of it


def _of(stage: str, default: Any, *, changes_result: bool = True) -> Any:
    """A setting with its default and the stage of a run that it is for."""
    return field(default=default, metadata={"stage": stage, "changes_result": changes_result})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of ``match``, under the names of the command-line options.

    UsageError if a value has the wrong type, is out of its range, or contradicts another one.
    """

    method: str = _of("solution", "match")
    compare: str | None = _of("comparison", None)
    mesh_size: float | None = _of("comparison", None)
    model: str = _of("comparison", "constant")
    skystat: str = _of("comparison", "median")
    lower: float | None = _of("comparison", None)
    upper: float | None = _of("comparison", None)
    nclip: int = _of("comparison", 5)
    lsigma: float = _of("comparison", 4.0)
    usigma: float = _of("comparison", 4.0)
    binwidth: float = _of("comparison", 0.1)
    mask_sources: bool = False
    dqbits: str = _of("headers", "auto")
    dq_ext: str = _of("headers", "DQ")
    mask: str | None = _of("headers", None)
    weight: str | None = _of("headers", None)
    exposure_map: str | None = _of("headers", None)
    ignore_value: float | None = None
    keep_value: float | None = None
    group_by: str = _of("headers", "auto")
    split_by: str | None = _of("headers", None)
    planes: str | None = _of("headers", None)
    units: str = _of("headers", "auto")
    exptime_key: str = _of("headers", "EXPTIME")
    wcs: str = _of("headers", "auto")
    flux_scale: str | None = _of("headers", None)
    bunit: str | None = _of("headers", None)
    reference: str | None = _of("solution", None)
    match_up: bool = _of("solution", False)
    robust: bool = _of("solution", False)
    skylist: str | None = _of("solution", None)
    sky_keyword: str = _of("headers", "BKGLEVEL", changes_result=False)
    subtract: bool = _of("handling", False, changes_result=False)
    dry_run: bool = _of("handling", False, changes_result=False)
    output_dir: str | None = _of("handling", None, changes_result=False)
    overwrite: bool = _of("handling", False, changes_result=False)
    strict: bool = _of("handling", False, changes_result=False)
    max_residual: float | None = _of("solution", None)
    max_step: float | None = _of("solution", None)
    allow: tuple[str, ...] = _of("handling", (), changes_result=False)
    cross_check: bool = _of("solution", False)
    skip_bad: bool = False
    jobs: int = _of("handling", 0, changes_result=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _typed(f.name, str(f.type), getattr(self, f.name)))
            if "\0" in str(getattr(self, f.name)):
                raise UsageError(f"{option_name(f.name)} holds a null byte", "no name or path does")
        object.__setattr__(self, "method", str(METHOD_ALIASES.get(self.method, self.method)))
        object.__setattr__(self, "sky_keyword", self.sky_keyword.upper())
        if self.compare is None:
            changed = {f.name for f in fields(self) if getattr(self, f.name) != f.default}
            object.__setattr__(self, "compare", str(default_comparison(self.method, changed)))
        _check_choices(self)
        _check_ranges(self)
        _check_contradictions(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from values under the names of the options; unknown names are a UsageError."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError(f"unknown setting {name!r}", suggestion(name, known))
        if values.get("compare") is None:
            method = values.get("method", Method.MATCH)
            asked = {name for name, value in values.items() if value is not None}
            values = {**values, "compare": str(default_comparison(METHOD_ALIASES.get(method, method), asked))}
        return cls(**values)

    @property
    def statistic(self) -> StatisticSettings:
        """The settings of the statistic of a set of pixels."""
        from skymatch_cli.model import StatisticSettings

        chosen = {f.name: getattr(self, f.name) for f in fields(StatisticSettings)}
        return StatisticSettings(**chosen | {"skystat": Skystat(self.skystat)})

    def refuse_idle_statistic(self) -> None:
        """Refuse a statistic in a run that uses none (UsageError), and sources masked for no sky of an image."""
        by_cells = self.compare == Compare.MESH and not self.cross_check
        if self.mask_sources and (self.method == Method.USER or (self.method == Method.MATCH and by_cells)):
            what = f"--mask-sources has no effect with --compare {self.compare} and --method {self.method}"
            raise UsageError(what, "stars cancel cell by cell; it is for pooled comparison and own skies: leave it out")
        if self.compare != Compare.MESH or self.method != Method.MATCH or self.cross_check:
            return
        for f in fields(self):
            if f.name in _OVERLAP_STATISTIC and getattr(self, f.name) != f.default:
                what = f"{option_name(f.name)} has no effect with --compare mesh and --method match"
                raise UsageError(what, "use --compare pooled, or leave it out")

    def for_measuring(self) -> Settings:
        """The settings as a plan has them: those that only a solution needs are the default ones."""
        default = Settings()
        return replace(self, **{name: getattr(default, name) for name in OF_THE_SOLUTION})

    def determining(self) -> dict[str, Any]:
        """The settings that determine the result (not the number of workers, not the log)."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("changes_result", True)}
        return {name: without_secrets(value) if type(value) is str else value for name, value in found.items()}


OF_HEADERS, OF_THE_MEASUREMENT, OF_THE_SOLUTION = (
    frozenset(f.name for f in fields(Settings) if f.metadata.get("stage") == stage)
    for stage in ("headers", "comparison", "solution")
)
"""Settings that decide what is read from headers and which files belong to an image (a plan fixes them), that say how
overlaps are compared, and that change no measurement."""

OF_THE_SKY = OF_THE_SOLUTION | OF_THE_MEASUREMENT
"""Settings that say how the sky is found; commands that find none ignore them in a configuration file."""


def default_comparison(method: str, asked: Collection[str]) -> Compare:
    """Return mesh, unless a statistic of the overlaps is among the settings ``asked`` for by the user."""
    if "mesh_size" in asked or method not in (Method.MATCH, Method.GLOBALMIN_MATCH):
        return Compare.MESH
    return Compare.POOLED if _OVERLAP_STATISTIC & set(asked) else Compare.MESH


def option_name(name: str) -> str:
    """Return the option of a setting: ``dq_ext`` is ``--dq-ext``."""
    return "--" + name.replace("_", "-")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown word: the nearest known one, else all of them."""
    import difflib

    known = tuple(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "one of: " + ", ".join(known)


def read_config(path: str, known: Mapping[str, str]) -> dict[str, Any]:
    """Read a flat TOML file of settings, with keys in - or _.

    ``known``: the annotations of all settings, by name. UsageError if the file can't be read or parsed, or a key is
    unknown, given twice, or has a value of the wrong type.
    """
    import tomllib
    from pathlib import Path

    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_MOST_CONFIG_BYTES + 1)  # of a device there is no end
        if len(content) > _MOST_CONFIG_BYTES:
            raise UsageError(f"--config {path}: is larger than any configuration", "give a TOML file of settings")
        document = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}", "give a TOML file that can be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: this is not TOML: {error}", "write lines such as: nclip = 5") from error
    values: dict[str, Any] = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in known:
            hint = "write its keys without a table" if isinstance(value, dict) else suggestion(name, known)
            raise UsageError(f"--config {path}: unknown key {key!r}", hint)
        if name in values:
            raise UsageError(f"--config {path}: {key!r} is given twice", "write it with - or with _, not both")
        try:
            values[name] = _typed(name, known[name], value)
        except UsageError as error:
            raise UsageError(f"--config {path}: key {key!r}: {error.message}", error.hint) from error
    return values


def field_types(cls: type) -> dict[str, str]:
    """Type annotation of every field of a settings dataclass."""
    return {f.name: str(f.type) for f in fields(cls)}


def checked_choice(name: str, value: str, choices: type[StrEnum], aliases: Iterable[str] = ()) -> None:
    """Refuse a word that is none of the choices."""
    if value not in (words := [str(choice) for choice in choices]):
        raise UsageError(f"{option_name(name)}: there is no {value!r}", suggestion(value, [*words, *aliases]))


def _typed(name: str, annotation: str, value: Any) -> Any:
    """The value as the type of its field."""
    return _names(name, value) if annotation.startswith("tuple") else _plain(name, annotation, value)


def _plain(name: str, annotation: str, value: Any) -> Any:
    """The value as the type of its field; numbers and paths of any kind are taken, text is never parsed."""
    import numbers

    if value is None and annotation.endswith("None"):
        return None
    match annotation.partition(" ")[0], isinstance(value, bool):
        case "bool", True:
            return value
        case "int", False if isinstance(value, numbers.Integral):
            return int(value)
        case "float", False if isinstance(value, numbers.Real):
            if not math.isfinite(value):
                raise UsageError(f"{option_name(name)}: {value} is not a finite number", "give a finite number")
            return float(value)
        case "str", False if isinstance(value, str | os.PathLike):
            return _text(name, os.fspath(value))
        case "str", False if name == "dqbits" and isinstance(value, numbers.Integral):
            return str(value)
        case kind, _:
            words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
            raise UsageError(f"{option_name(name)}: {value!r} is not {words[kind]}", f"give {words[kind]}")


def _names(name: str, value: Any) -> tuple[str, ...]:
    """Several words, as a tuple without repeats."""
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise UsageError(f"{option_name(name)}: {value!r} is not a list of names", "give a list of names")
    return tuple(dict.fromkeys(map(str, value)))


def _text(name: str, value: str | bytes) -> str:
    text = os.fsdecode(value)
    if not text.strip():
        raise UsageError(f"{option_name(name)} is empty", "give a value or leave the option out")
    return str(text)  # a plain string, also where an enum was given


def _check_choices(settings: Settings) -> None:
    for name, words in CHOICES.items():
        if (value := getattr(settings, name)) is not None:
            checked_choice(name, value, words, METHOD_ALIASES if name == "method" else ())
    for word in settings.allow:
        checked_choice("allow", word, WarningName)


def _check_ranges(settings: Settings) -> None:
    for name in ("nclip", "jobs"):
        if getattr(settings, name) < 0:
            raise UsageError(f"{option_name(name)}: {getattr(settings, name)} is negative", "give 0 or more")
    for name in ("lsigma", "usigma", "binwidth", "max_residual", "max_step", "mesh_size"):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise UsageError(f"{option_name(name)}: {value:g} is not above 0", "give a number above 0")
    if settings.mesh_size is not None and settings.mesh_size > MOST_MESH_SIZE:
        what = f"--mesh-size: {settings.mesh_size:g} pixels is too large"
        raise UsageError(what, f"give at most {MOST_MESH_SIZE:g}; an overlap needs several cells across")
    if settings.lower is not None and settings.upper is not None and settings.lower > settings.upper:
        raise UsageError(
            f"--lower {settings.lower:g} is above --upper {settings.upper:g}: no pixel would count", "swap them"
        )
    import re

    if not re.fullmatch(_KEYWORD, settings.sky_keyword):
        raise UsageError(
            f"--sky-keyword: {settings.sky_keyword!r} is not a FITS keyword", "give up to 8 of A-Z, 0-9, - and _"
        )
    if re.fullmatch(_RESERVED_KEYWORDS, settings.sky_keyword):
        raise UsageError(f"--sky-keyword: {settings.sky_keyword} has another meaning in FITS files", "give another one")


def _check_contradictions(settings: Settings) -> None:
    default = {f.name: f.default for f in fields(settings)}
    for name, needed, words, why, hint in _ONLY_WITH:
        option, value, found = option_name(name), getattr(settings, name), getattr(settings, needed)
        if value != default[name] and found not in words:
            shown = f"{option} {value}" if name in CHOICES else option
            what = f"{shown} works with {option_name(needed)} {' or '.join(words)} only, not with {found}{why}"
            raise UsageError(what, hint or f"leave {option} out")
    if settings.reference is not None and settings.match_up:
        raise UsageError("--reference and --match-up contradict each other", "leave one of them out")
    if settings.method == Method.USER and settings.skylist is None:
        raise UsageError("--method user needs --skylist", "give a file with lines 'name sky'")
