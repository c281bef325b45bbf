"""What was found in the images as tables, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skymatch_cli.errors import Problem
from skymatch_cli.measure import ImageMeasurement
from skymatch_cli.measure_mesh import MeshReduction
from skymatch_cli.mesh.reduce import CellMesh
from skymatch_cli.model import SkyStatistic, SkyStatistics, Status
from skymatch_cli.steps.findings import Finding
from skymatch_cli.steps.plainvalue import from_plain, to_plain
from skymatch_cli.steps.storedtables import StoredTable

_POOLED = "pooled"
_NOTHING = SkyStatistic(np.nan, np.nan, -1, Status.OK)  # n < 0: not measured


def found_tables(found: Sequence[Finding | None]) -> tuple[StoredTable, ...]:
    """The findings of all images, as the tables FOUND, REGIONS and CELLS."""
    pooled = [(i, f) for i, f in enumerate(found) if isinstance(f, ImageMeasurement)]
    reduced = [(i, f) for i, f in enumerate(found) if isinstance(f, MeshReduction)]
    return (_found(found), *_regions(pooled), *_cells(reduced))


def read_found(tables: Mapping[str, Mapping[str, Any]], n_images: int) -> list[Finding | None]:
    """The findings that `found_tables` was given.

    Raises
    ------
    KeyError, ValueError
        If these are other tables.
    """
    found, facts = tables["FOUND"], _facts(tables["FOUND"])
    result: list[Finding | None] = [None] * n_images
    regions, cells = _by_image(tables["REGIONS"], n_images), _by_image(tables["CELLS"], n_images)
    for i in np.flatnonzero(found["kind"] != "").tolist():
        if found["kind"][i] == _POOLED:
            result[i] = _pooled(tables["REGIONS"], regions[i], facts[i])
        else:
            meshes = {int(tables["CELLS"]["plane"][k]): _mesh(tables["CELLS"], k) for k in cells[i].tolist()}
            result[i] = MeshReduction(meshes, Status(found["status"][i]), **facts[i])
    return result


def _words(status: Sequence[Status]) -> Any:
    return np.array([str(s).encode("ascii") for s in status], f"S{max(map(len, Status))}")


def _found(found: Sequence[Finding | None]) -> StoredTable:
    local = [None if f is None else f.local for f in found]
    status = [f.status if isinstance(f, MeshReduction) else Status.OK for f in found]
    said = [([], []) if f is None else (f.warnings, [(p.where, p.what, p.hint) for p in f.problems]) for f in found]
    return StoredTable(
        "FOUND",
        {
            "kind": np.array([_kind(f) for f in found], "S6"),
            "n_good": np.array([0 if f is None else f.n_good for f in found], np.int64),
            "status": _words(status),
            **_statistics("local_", SkyStatistics.of([s or _NOTHING for s in local])),
            "said": [json.dumps(s).encode("ascii") if any(s) else b"" for s in said],
        },
    )


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


def _regions(pooled: Sequence[tuple[int, ImageMeasurement]]) -> tuple[StoredTable]:
    none = [np.empty((0, 1), np.int64)]
    blocks = np.concatenate([f.blocks for _, f in pooled if len(f.pairs)] or none)
    return (
        StoredTable(
            "REGIONS",
            {
                "image": np.repeat([i for i, _ in pooled], [len(f.pairs) for _, f in pooled]).astype(np.int64),
                "overlap": np.concatenate([f.pairs for _, f in pooled] or [np.empty(0, np.int64)]),
                **_statistics("", SkyStatistics.joined([f.regions for _, f in pooled])),
                "blocks": blocks.astype(np.int32),
            },
        ),
    )


def _pooled(table: Mapping[str, Any], rows: Any, facts: Mapping[str, Any]) -> ImageMeasurement:
    part = {name: values[rows] for name, values in table.items()}
    blocks = part["blocks"].reshape(len(rows), *(table["blocks"].shape[1:] or (1,))).astype(np.int64)
    return ImageMeasurement(part["overlap"].astype(np.int64), _skies("", part), blocks, **facts)


def _by_image(table: Mapping[str, Any], n_images: int) -> list[Any]:
    """Rows of every image; they are in the order of the images."""
    image = table["image"]
    return np.split(np.arange(len(image)), np.searchsorted(image, np.arange(1, n_images)))


def _cells(reduced: Sequence[tuple[int, MeshReduction]]) -> tuple[StoredTable]:
    meshes = [(i, k, mesh) for i, f in reduced for k, mesh in sorted(f.meshes.items())]
    facts: list[bytes] = []
    content: list[bytes] = []
    for _, _, mesh in meshes:
        arrays: list[bytes] = []
        facts.append(json.dumps(to_plain(mesh, arrays)).encode("ascii"))
        content.append(b"".join(arrays))
    columns = {
        "image": np.array([i for i, _, _ in meshes], np.int64),
        "plane": np.array([k for _, k, _ in meshes], np.int64),
        "facts": facts,
        "content": content,
    }
    return (StoredTable("CELLS", columns),)


def _mesh(table: Mapping[str, Any], k: int) -> CellMesh:
    return from_plain(CellMesh, json.loads(table["facts"][k]), table["content"][k])
