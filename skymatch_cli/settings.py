"""Every setting of a run, with its default, in one frozen dataclass: defaults <- TOML file <- options."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .model import Skystat, StatisticSettings

_HANDLING = {"determines_result": False}  # how the run is carried out, not what it finds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of ``match``, under the names of the command-line options."""

    method: str = "match"
    compare: str = "pooled"
    model: str = "constant"
    skystat: str = "median"
    lower: float | None = None
    upper: float | None = None
    nclip: int = 5
    lsigma: float = 4.0
    usigma: float = 4.0
    binwidth: float = 0.1
    dqbits: str = "auto"
    dq_ext: str = "DQ"
    mask: str | None = None
    ignore_value: float | None = None
    group_by: str = "file"
    units: str = "auto"
    exptime_key: str = "EXPTIME"
    flux_scale: str | None = None
    reference: str | None = None
    match_up: bool = False
    skylist: str | None = None
    sky_keyword: str = field(default="BKGLEVEL", metadata=_HANDLING)
    subtract: bool = field(default=False, metadata=_HANDLING)
    dry_run: bool = field(default=False, metadata=_HANDLING)
    output_dir: str | None = field(default=None, metadata=_HANDLING)
    overwrite: bool = field(default=False, metadata=_HANDLING)
    strict: bool = field(default=False, metadata=_HANDLING)
    max_residual: float | None = None
    skip_bad: bool = False
    jobs: int = field(default=0, metadata=_HANDLING)

    @property
    def statistic(self) -> StatisticSettings:
        """The part that says how a set of pixels is measured."""
        return StatisticSettings(
            skystat=Skystat(self.skystat),
            lower=self.lower,
            upper=self.upper,
            nclip=self.nclip,
            lsigma=self.lsigma,
            usigma=self.usigma,
            binwidth=self.binwidth,
        )

    def determining(self) -> dict[str, Any]:
        """The settings that determine the result (not the number of workers, not the log)."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("determines_result", True)}
