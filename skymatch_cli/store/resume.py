"""What an interrupted run measured, for the run that finishes it (see `record.journal`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from skymatch_cli.choices import Method
from skymatch_cli.images.formats.files import real_path
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.source import open_source
from skymatch_cli.model import ImageInfo, Journal, Measurements, SkyWarning
from skymatch_cli.record.edits import SkyUpdate, record_edits, sky_updates
from skymatch_cli.record.journal import journal_path
from skymatch_cli.settings import Settings
from skymatch_cli.store.database import DIGEST_BYTES, digest_of
from skymatch_cli.store.keys import image_states
from skymatch_cli.store.planning import Plan
from skymatch_cli.store.renewing import renewed
from skymatch_cli.store.rows import CODEC, Overlaps, settings_json
from skymatch_cli.store.solving import solve

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result


def needs_journal(infos: Sequence[ImageInfo], settings: Settings) -> bool:
    """Whether a run that stops halfway leaves files in which others would be measured by a rounding differently."""
    if settings.method == Method.USER:
        return False
    floats = any(i.source.original is None and i.source.science.bitpix < 0 for i in infos)
    return floats and len({real_path(info.ref.path) for info in infos}) > 1


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """What a run planned and measured before it began to write."""

    settings: str  # as JSON
    infos: tuple[ImageInfo, ...]
    overlaps: Overlaps
    skipped: tuple[str, ...]
    warnings: tuple[SkyWarning, ...]
    measurements: Measurements
    measuring_warnings: tuple[SkyWarning, ...]


def journal_of(planned: Plan, measured: tuple[Measurements, tuple[SkyWarning, ...]] | None = None) -> Journal:
    """The journal of a run; without measurements it is there already."""
    path = journal_path(real_path(info.ref.path) for info in planned.infos)
    return Journal(path, None if measured is None else partial(_write, planned, measured))


def _write(planned: Plan, measured: tuple[Measurements, tuple[SkyWarning, ...]], stream: BinaryIO) -> None:
    left = _Left(
        settings_json(planned.settings),
        tuple(planned.infos),
        Overlaps.of(planned.graph),
        planned.skipped,
        planned.warnings,
        *measured,
    )
    content = CODEC.encode(left)
    stream.write(_digest(content) + content)


def _digest(content: bytes) -> bytes:
    return digest_of(CODEC.layout(_Left).encode(), content)


def resumed(planned: Plan) -> Result | None:
    """The result of a run that was interrupted while it wrote, if its files are as it left them."""
    if (left := _left_behind(planned)) is None:
        return None
    before = replace(planned, infos=left.infos, skipped=left.skipped, warnings=left.warnings)
    result = solve(before, left.measurements, left.measuring_warnings)
    solution = result.solution
    updates = sky_updates(before.infos, before.settings, solution.sky, solution.sky_err, solution.tilt)
    if not _is_as_left(left, updates, planned):
        return None
    return replace(result, infos=tuple(planned.infos), journal=journal_of(planned))


def _left_behind(planned: Plan) -> _Left | None:
    """What an interrupted run with the same files and settings left, if there is one."""
    try:
        content = Path(journal_of(planned).path).read_bytes()
    except OSError:
        return None
    if content[:DIGEST_BYTES] != _digest(content[DIGEST_BYTES:]):
        return None  # another version, or damaged: measure again
    left = CODEC.decode(_Left, content[DIGEST_BYTES:])
    same = left.settings == settings_json(planned.settings)
    return left if same and [i.ref for i in left.infos] == [i.ref for i in planned.infos] else None


def _is_as_left(left: _Left, updates: Sequence[SkyUpdate], planned: Plan) -> bool:
    """Whether every file is as it was when it was measured, or as the interrupted run would have left it.

    ``updates`` are what that run was to write, ``planned`` the plan of the files as they are now.
    """
    settings = planned.settings
    of_file: dict[str, list[int]] = {}
    for i, (before, now) in enumerate(zip(left.infos, planned.infos, strict=True)):
        if before.source.science.state != now.source.science.state:
            of_file.setdefault(real_path(now.ref.path), []).append(i)
    if not all(_is_written([updates[i] for i in images], settings) for images in of_file.values()):
        return False
    fresh = renewed(left.infos, of_file)
    return (
        CODEC.encode(left.overlaps) == CODEC.encode(Overlaps.of(planned.graph))
        and image_states(fresh) == image_states(planned.infos)
        and list(map(_facts, fresh)) == list(map(_facts, planned.infos))
    )


def _facts(info: ImageInfo) -> tuple[object, ...]:
    """Properties that the solution depends on, apart from pixels and overlaps."""
    return info.group, info.unit, info.to_comparison, info.comparison_unit


def _is_written(updates: Sequence[SkyUpdate], settings: Settings) -> bool:
    """Whether the images of one file hold their skies already."""
    ref = updates[0].ref
    with open_source(read_structure(ref.path, ref.label)) as source:
        return not record_edits(source, updates, settings)
