"""Measurements of all pairs as stored in a store, so that unchanged images are compared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from skymatch_cli.model import Measurements, SkyWarning, Status
from skymatch_cli.model.measurements import LocalSkies, PlaneDifferences

MOST_BYTES = 2**28  # that are kept: a row of SQLite has less than 2^30


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Measurements and their warnings."""

    key: bytes  # digest of the state of the files, then of everything else that the measurements depend on
    # the numbers of `Measurements`, of its local skies ("local ...") and its noise factor ("noise ...")
    columns: Mapping[str, Any]
    words: Mapping[str, tuple[Status, ...]]  # the statuses of the pairs and of the local skies
    planes: PlaneDifferences | None
    reasons: tuple[str, ...]
    warnings: tuple[SkyWarning, ...]

    @classmethod
    def of(cls, key: bytes, measured: Measurements, warnings: tuple[SkyWarning, ...]) -> Gathered:
        """Split measurements into columns that can be stored."""
        values = {f.name: getattr(measured, f.name) for f in fields(measured)}
        if measured.local is not None:
            values |= {f"local {f.name}": getattr(measured.local, f.name) for f in fields(measured.local)}
        if (noise := measured.noise) is not None:
            values |= {"noise data": noise.data, "noise indices": noise.indices, "noise indptr": noise.indptr}
            values["noise shape"] = np.array(noise.shape)
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        words = {name: tuple(map(Status, value)) for name, value in arrays.items() if value.dtype == object}
        columns = {name: value for name, value in arrays.items() if name not in words}
        return cls(key, columns, words, measured.planes, measured.reasons, warnings)

    @property
    def n_bytes(self) -> int:
        """Bytes of the columns."""
        return sum(column.nbytes for column in self.columns.values())

    def measurements(self) -> Measurements:
        """Put the measurements together again."""
        values: dict[str, Any] = {**self.columns}
        values |= {name: np.array(words, object) for name, words in self.words.items()}
        local = {name.removeprefix("local "): values.pop(name) for name in tuple(values) if name.startswith("local ")}
        noise = {name.removeprefix("noise "): values.pop(name) for name in tuple(values) if name.startswith("noise ")}
        if local:
            values["local"] = LocalSkies(**local)
        if noise:
            from scipy.sparse import csr_array

            shape = tuple(noise["shape"].tolist())
            values["noise"] = csr_array((noise["data"], noise["indices"], noise["indptr"]), shape=shape)
        return Measurements(**values, planes=self.planes, reasons=self.reasons)
