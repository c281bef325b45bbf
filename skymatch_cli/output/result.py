"""Solution -> tables and files: the result of a run, or a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from skymatch_cli.errors import UsageError, first_names
from skymatch_cli.images.sidecars import NO_IMAGE
from skymatch_cli.model import ImageInfo, Journal, Measurements, SkyWarning, Solution
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.output.plain import summary
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import (
    Report,
    Table,
    components_table,
    images_table,
    meta_of,
    overlaps_table,
    to_qtable,
    with_units,
)
from skymatch_cli.output.verdict import Verdict, find_verdict
from skymatch_cli.settings import Settings

_NAMED = 5  # components whose degree is explained

if TYPE_CHECKING:
    from os import PathLike

    from astropy.table import QTable


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """What a run found.

    Attributes
    ----------
    settings : Settings
    infos : tuple of ImageInfo
        The N images.
    measurements : Measurements
        The M overlaps.
    solution : Solution
    warnings : tuple of SkyWarning
        Everything the user should know, in the order of the steps.
    skipped : tuple of str
        Inputs and HDUs that were not used, and why.
    journal : Journal or None
        What is to be left on the disk while the images are written, so that an interrupted run can be finished.
    objects : mapping of str to object
        Images in memory by the paths under which they were read, in the order of the inputs.
    """

    settings: Settings
    infos: tuple[ImageInfo, ...]
    measurements: Measurements
    solution: Solution
    warnings: tuple[SkyWarning, ...] = ()
    skipped: tuple[str, ...] = ()
    journal: Journal | None = None
    objects: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line, however many images there are."""
        return f"<skymatch Result: {summary(self.report)}>"

    def _repr_html_(self) -> str:
        """The summary, the warnings and the images, for notebooks."""
        from html import escape

        said = "".join(f"<li>{escape(printable(str(warning)))}</li>" for warning in self.warnings)
        return f"<p>{escape(summary(self.report))}</p><ul>{said}</ul>{self.images._repr_html_()}"

    def subtracted(self) -> list[Any]:
        """Copies of the images in memory without their skies, in the order in which they were given.

        Images without a sky are copied as they are, and those whose sky was subtracted before lose the difference.
        Pixels stay floats of their type; integers become floats that hold them.

        Raises
        ------
        UsageError
            If images are files.

        Examples
        --------
        >>> import skymatch_cli
        >>> copies = skymatch_cli.match([hdus_a, hdus_b]).subtracted()  # doctest: +SKIP
        """
        from skymatch_cli.images.corrected import FoundSky, corrected_copy

        files = [info.ref.label for info in self.infos if info.ref.path not in self.objects]
        if files:
            hint = "subtract=True changes files, with output_dir copies of them"
            raise UsageError(f"{files[0]}: subtracted() gives copies of images in memory, and this is a file", hint)
        solution = self.solution
        tilts = [()] * len(self.infos) if solution.tilt is None else solution.tilt.tolist()
        found: dict[str, list[FoundSky]] = {path: [] for path in self.objects}
        for info, sky, tilt in zip(self.infos, solution.sky.tolist(), tilts, strict=True):
            found[info.ref.path].append(FoundSky(info, SkyPlane(sky, *tilt), self.settings.method))
        return [corrected_copy(item, found[path]) for path, item in self.objects.items()]

    @cached_property
    def report(self) -> Report:
        """The tables as plain columns: what every file format is made of."""
        parts = self.infos, self.measurements, self.solution
        tables = (images_table(*parts), overlaps_table(*parts), components_table(self.infos, self.solution))
        return make_report(self.settings, self.infos, tables, self.warnings)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth saying, and no reason to worry."""
        left = [line.split(f": {NO_IMAGE}: ")[0] for line in self.skipped if f": {NO_IMAGE}: " in line]
        named = first_names(left, _NAMED)
        reasons = self.solution.reasons[:_NAMED]
        if more := len(self.solution.reasons) - len(reasons):
            reasons = (*reasons, f"… and {more} more components")
        if left:
            said = f"left out as weights, flags, masks, errors or results (-v says why): {named}"
            reasons = (said, *reasons)
        n_subtracted = sum(info.recorded is not None and info.recorded.subtracted for info in self.infos)
        if n_subtracted:
            which = f"{n_subtracted} of {len(self.infos)} images"
            said = f"{which} have their sky subtracted: skies and steps are of the originals"
            reasons = (said, *reasons)
        if self.solution.sigma_exact:
            return reasons
        estimated = "sky_err is estimated: so many images are connected that the exact errors would take too long"
        return (*reasons, estimated)

    @property
    def verdict(self) -> Verdict | None:
        """Steps between overlapping images before and after; None if no overlap was measured."""
        return find_verdict(self.infos, self.measurements, self.solution, self.settings.max_step)

    @cached_property
    def images(self) -> QTable:
        """One row for each image; ``sky`` and ``sky_err`` have a unit where ``sky_unit`` is the same for all."""
        return to_qtable(self.report.images, meta_of(self.report))

    @cached_property
    def overlaps(self) -> QTable:
        """One row for each overlapping pair; values are in the comparison unit that ``unit`` names."""
        return to_qtable(self.report.overlaps, meta_of(self.report))

    @cached_property
    def components(self) -> QTable:
        """One row for each connected set of images."""
        return to_qtable(self.report.components, meta_of(self.report))

    def to_json(self) -> str:
        """The result as JSON: every digit of a number, null where there is none."""
        from skymatch_cli.output.formats import json_chunks

        return "".join(json_chunks(self.report))

    def write(
        self,
        file: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 (the name of the option)
        table: str = "images",
        overwrite: bool = False,
    ) -> None:
        """Write the result to a file.

        Parameters
        ----------
        file : path
            Its suffix names the format: ``.ecsv``, ``.csv``, ``.json``, ``.fits`` or ``.vot``.
        format : str, optional
            For another suffix.
        table : {"images", "overlaps", "components"}
            Which table, for formats that hold one (ECSV, CSV, text).
        overwrite : bool
            Replace a file that exists.

        Raises
        ------
        UsageError
            If the format is unknown or contradicts the suffix, or the file exists.
        SkymatchError
            If it can't be written.
        """
        import os

        from skymatch_cli.output.destination import Output
        from skymatch_cli.record.files import files_of_images

        output = Output(output=os.fspath(file), format=format, table=table)
        output.check(overwrite=overwrite, inputs=files_of_images(self.infos))
        output.save(self.report)


def make_report(
    settings: Settings, infos: Sequence[ImageInfo], tables: tuple[Table, Table, Table], warnings: tuple[SkyWarning, ...]
) -> Report:
    """The report with these tables (images, overlaps, components)."""
    from skymatch_cli.version import __version__

    determining: dict[str, Any] = settings.determining()
    images, overlaps, components = map(with_units, tables)
    return Report(
        version=__version__,
        settings=determining,
        images=images,
        overlaps=overlaps,
        components=components,
        labels=tuple(info.ref.label for info in infos),
        warnings=warnings,
    )
