"""What was found in the images as tables, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from skymatch_cli.compare.mesh.reduce import CellMesh
from skymatch_cli.compare.meshed import MeshReduction
from skymatch_cli.compare.pooled import ImageMeasurement
from skymatch_cli.errors import Problem
from skymatch_cli.model import BoolArray, IntArray, OverlapGraph, SkyStatistic, SkyStatistics, Status
from skymatch_cli.store.findings import Finding
from skymatch_cli.store.ondemand import OnDemand
from skymatch_cli.store.plainvalue import from_plain, packed, to_plain
from skymatch_cli.store.reading import Kind, reading
from skymatch_cli.store.storedtables import Columns, StoredTable, in_blocks
from skymatch_cli.store.tablefile import TableRows

_POOLED = "pooled"
_NOTHING = SkyStatistic(np.nan, np.nan, -1, Status.OK)  # n < 0: not measured
_AT_A_TIME = 64  # findings that are made into rows, or out of them


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the findings of N images come to.

    Attributes
    ----------
    done : (N,) bool
        Whether an image was measured.
    n_good : (N,) int64
        Good pixels that were seen.
    n_regions, n_cells : int
        Rows of the tables REGIONS and CELLS.
    n_blocks : int
        Blocks of the frame in which the pixels of a region are counted.
    """

    done: BoolArray
    n_good: IntArray
    n_regions: int
    n_cells: int
    n_blocks: int

    @classmethod
    def of(cls, found: Sequence[Finding | None]) -> Summary:
        """Look at every finding once."""
        done, n_good = np.zeros(len(found), bool), np.zeros(len(found), np.int64)
        n_regions, n_cells, n_blocks = 0, 0, 1
        for i, finding in enumerate(found):
            if finding is None:
                continue
            done[i], n_good[i] = True, finding.n_good
            if isinstance(finding, MeshReduction):
                n_cells += len(finding.meshes)
            elif len(finding.pairs):
                n_regions += len(finding.pairs)
                n_blocks = finding.blocks.shape[1]
        return cls(done, n_good, n_regions, n_cells, n_blocks)


def found_tables(found: Sequence[Finding | None], summary: Summary) -> tuple[StoredTable, ...]:
    """The findings of all images, as the tables FOUND, REGIONS and CELLS."""

    def table(name: str, n: int, rows: Callable[[int, Sequence[Finding | None]], Columns]) -> StoredTable:
        n_images = len(found) if n else 0  # where there is no row, no finding need be looked at
        return StoredTable(
            name,
            n,
            in_blocks(n_images, _AT_A_TIME, lambda low, high: rows(low, [found[i] for i in range(low, high)])),
        )

    return (
        table("FOUND", len(found), lambda _, some: _found(some)),
        table("REGIONS", summary.n_regions, partial(_regions, summary.n_blocks)),
        table("CELLS", summary.n_cells, _cells),
    )


class StoredFindings(OnDemand["Finding | None"]):
    """The findings that `found_tables` was given, in the file that it made: some at a time are read.

    Raises
    ------
    KeyError, ValueError
        If these are other tables.
    """

    def __init__(self, file: str, tables: Mapping[str, TableRows], graph: OverlapGraph) -> None:
        self._file = file
        self._tables = tuple(tables[name] for name in ("FOUND", "REGIONS", "CELLS"))
        self._n, self._n_overlaps, self._n_planes = graph.n_images, len(graph.a), len(graph.planes)
        if self._tables[0].n != self._n:
            raise ValueError("its findings are not of its images")
        self._step = 1 if self._tables[2].n else _AT_A_TIME  # cells are large
        edges = np.append(np.arange(0, self._n, self._step), self._n)
        self._rows = [edges, *(_rows_of(edges, table["image"]) for table in self._tables[1:])]
        self._last: tuple[int, list[Finding | None]] = (-1, [])

    def __len__(self) -> int:
        return self._n

    def _made(self, i: int) -> Finding | None:
        block, k = divmod(i, self._step)
        if self._last[0] != block:
            self._last = block, self._read(block)
        return self._last[1][k]

    def _read(self, block: int) -> list[Finding | None]:
        with reading(self._file, Kind.MEASUREMENT):
            return self._block(block)

    def _block(self, block: int) -> list[Finding | None]:
        spans = [(int(rows[block]), int(rows[block + 1])) for rows in self._rows]
        found, regions, cells = (table.part(*span) for table, span in zip(self._tables, spans, strict=True))
        _check_numbers(regions["overlap"], self._n_overlaps)
        _check_numbers(cells["plane"], self._n_planes)
        return _read_found(found, regions, cells, spans[0][0])


def _rows_of(edges: IntArray, image: IntArray) -> IntArray:
    """The rows, which are in the order of their images, at which the images ``edges`` begin."""
    _check_numbers(image, int(edges[-1]))
    if (image[1:] < image[:-1]).any():
        raise ValueError("its findings are in no order")
    return np.searchsorted(image, edges)


def _check_numbers(index: IntArray, n: int) -> None:
    """ValueError where numbers of things, of which there are ``n``, are numbers of none."""
    if ((index < 0) | (index >= n)).any():
        raise ValueError("its findings are not of its images")


def _read_found(
    found: Mapping[str, Any], regions: Mapping[str, Any], cells: Mapping[str, Any], first: int
) -> list[Finding | None]:
    """The findings of some images, of which ``first`` is the first."""
    facts = _facts(found)
    result: list[Finding | None] = [None] * len(facts)
    region_rows, cell_rows = (_by_image(table["image"] - first, len(facts)) for table in (regions, cells))
    for i, kind in enumerate(found["kind"].tolist()):
        if kind == _POOLED:
            result[i] = _pooled(regions, region_rows[i], facts[i])
        elif kind:
            meshes = {int(cells["plane"][k]): _mesh(cells, k) for k in cell_rows[i].tolist()}
            result[i] = MeshReduction(meshes, Status(found["status"][i]), **facts[i])
    return result


def _words(status: Sequence[Status]) -> Any:
    return np.array([str(s).encode("ascii") for s in status], f"S{max(map(len, Status))}")


def _found(found: Sequence[Finding | None]) -> Columns:
    local = [None if f is None else f.local for f in found]
    status = [f.status if isinstance(f, MeshReduction) else Status.OK for f in found]
    said = [([], []) if f is None else (f.warnings, [(p.where, p.what, p.hint) for p in f.problems]) for f in found]
    return {
        "kind": np.array([_kind(f) for f in found], "S6"),
        "n_good": np.array([0 if f is None else f.n_good for f in found], np.int64),
        "status": _words(status),
        **_statistics("local_", SkyStatistics.of([s or _NOTHING for s in local])),
        "said": [packed(s) if any(s) else b"" for s in said],
    }


def _kind(finding: Finding | None) -> str:
    return "" if finding is None else _POOLED if isinstance(finding, ImageMeasurement) else "mesh"


def _facts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What findings of both kinds say, as the arguments that make them."""
    facts = []
    for n_good, local, said in zip(
        found["n_good"].tolist(), _single(_skies("local_", found)), found["said"], strict=True
    ):
        warnings, problems = json.loads(said) if said else ([], [])
        facts.append(
            {
                "local": None if local.n < 0 else local,
                "n_good": n_good,
                "warnings": tuple(warnings),
                "problems": tuple(Problem(*p) for p in problems),
            }
        )
    return facts


def _statistics(prefix: str, skies: SkyStatistics) -> dict[str, Any]:
    return {
        prefix + "sky": skies.value,
        prefix + "err": skies.err,
        prefix + "n": skies.n,
        prefix + "status": _words(skies.status),
    }


def _skies(prefix: str, table: Mapping[str, Any]) -> SkyStatistics:
    value, err, n, words = (table[prefix + name] for name in ("sky", "err", "n", "status"))
    status = {word: Status(word) for word in set(words)}
    return SkyStatistics(value, err, n.astype(np.int64), tuple(status[word] for word in words))


def _single(skies: SkyStatistics) -> list[SkyStatistic]:
    columns = skies.value.tolist(), skies.err.tolist(), skies.n.tolist(), skies.status
    return [SkyStatistic(*row) for row in zip(*columns, strict=True)]


def _regions(n_blocks: int, first: int, found: Sequence[Finding | None]) -> Columns:
    pooled = [(i, f) for i, f in enumerate(found, first) if isinstance(f, ImageMeasurement)]
    none = [np.empty((0, n_blocks), np.int64)]
    return {
        "image": np.repeat([i for i, _ in pooled], [len(f.pairs) for _, f in pooled]).astype(np.int64),
        "overlap": np.concatenate([f.pairs for _, f in pooled] or [np.empty(0, np.int64)]),
        **_statistics("", SkyStatistics.joined([f.regions for _, f in pooled])),
        "blocks": np.concatenate([f.blocks for _, f in pooled if len(f.pairs)] or none).astype(np.int32),
    }


def _pooled(table: Mapping[str, Any], rows: Any, facts: Mapping[str, Any]) -> ImageMeasurement:
    part = {name: values[rows] for name, values in table.items()}
    blocks = part["blocks"].reshape(len(rows), *(table["blocks"].shape[1:] or (1,))).astype(np.int64)
    return ImageMeasurement(part["overlap"].astype(np.int64), _skies("", part), blocks, **facts)


def _by_image(image: IntArray, n_images: int) -> list[Any]:
    """Rows of every image; they are in the order of the images."""
    return np.split(np.arange(len(image)), np.searchsorted(image, np.arange(1, n_images)))


def _cells(first: int, found: Sequence[Finding | None]) -> Columns:
    meshes = [
        (i, k, mesh)
        for i, f in enumerate(found, first)
        if isinstance(f, MeshReduction)
        for k, mesh in sorted(f.meshes.items())
    ]
    facts: list[bytes] = []
    content: list[bytes] = []
    for _, _, mesh in meshes:
        arrays: list[bytes] = []
        facts.append(packed(to_plain(mesh, arrays)))
        content.append(b"".join(arrays))
    return {
        "image": np.array([i for i, _, _ in meshes], np.int64),
        "plane": np.array([k for _, k, _ in meshes], np.int64),
        "facts": facts,
        "content": content,
    }


def _mesh(table: Mapping[str, Any], k: int) -> CellMesh:
    return from_plain(CellMesh, json.loads(table["facts"][k]), table["content"][k])
