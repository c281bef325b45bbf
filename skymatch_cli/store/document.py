"""A result as it is written: what the tables between the steps need is imported for FITS alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result
    from skymatch_cli.output.tables import Report


def result_document(result: Result) -> Report:
    """The report of a result; as FITS it is what ``apply`` reads."""

    def tables(stream: BinaryIO) -> None:
        from skymatch_cli.store.store import write_result_tables

        write_result_tables(result, stream)

    return replace(result.report, appendix=tables)
