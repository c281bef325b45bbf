"""Findings in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skymatch_cli.model import IntArray, Measurements, SkyWarning

if TYPE_CHECKING:
    from skymatch_cli.store.rows import Finding, Gathered


class HeldFindings(list["Finding | None"]):
    """Findings in memory, for one run: one for each image, None where there is none yet.

    They are asked as those of a store are, see `findings.StoredFindings`.
    """

    one_reader = False
    outlined = list["Finding | None"].__getitem__

    def known_pairs(self, image: int, /) -> IntArray | None:
        """Nothing is known before it is measured."""
        del image
        return None

    def put(self, image: int, finding: Finding, /) -> None:
        """Take a finding."""
        self[image] = finding

    def flush(self) -> None:
        """Memory ends with the run."""

    def gathered(self) -> Gathered | None:
        """No measurements are kept from one run to the next."""

    def keep(self, measurements: Measurements, warnings: tuple[SkyWarning, ...]) -> None:
        """Memory ends with the run."""
