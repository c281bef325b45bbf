"""Findings: the results of reading the pixels of each image, kept and reused while they are valid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from skymatch_cli.choices import Compare
from skymatch_cli.compare.mesh.grids import mesh_grids
from skymatch_cli.compare.mesh.packed import Mesh, PackedMesh
from skymatch_cli.compare.meshed import MeshReduction
from skymatch_cli.compare.pooled import ImageMeasurement, blocks_per_side, coarser
from skymatch_cli.model import IntArray, Measurements, SkyWarning
from skymatch_cli.store.database import Row, digest_of
from skymatch_cli.store.held import HeldFindings
from skymatch_cli.store.keys import KEY_BYTES, OverlapKeys, measuring_keys
from skymatch_cli.store.planning import Plan
from skymatch_cli.store.rows import CODEC, Finding, Gathered
from skymatch_cli.store.store import Store

_COMMIT_S, _COMMIT_BYTES = 5.0, 2**24  # lost when the run is killed; held in memory
_MOST_BYTES = 2**28  # of measurements that are kept: a row of SQLite has less than 2^30
_IMAGES_KEPT = 128  # whose cells were read last: neighbours need them next


class StoredFindings:
    """The findings that a store has for the images of its plan: those that still hold, and those that are added.

    ``planned`` is the plan in the store, with the settings by which it is measured. Findings are added to ``target``,
    whose own ones are used too; without it they are read only. ``with_local``: a finding without the image's own sky
    is of no use. ``lenient``: where findings can't be written, they are kept in memory with a warning
    (`Store.warnings`).
    """

    one_reader = True

    def __init__(
        self, planned: Plan, store: Store, target: Store | None = None, *, with_local: bool, lenient: bool = False
    ) -> None:
        self._planned, self._store, self._target, self._lenient = planned, store, target, lenient
        keys = store.keys()
        self._overlaps = OverlapKeys(planned.graph, keys.sky)
        self._planes = {key: k for k, key in enumerate(self._overlaps.planes.tolist())}
        self._with_bad = target is None and planned.settings.skip_bad  # files that can't be read are tried again
        self._side = blocks_per_side(len(planned.graph.a))
        mesh = planned.settings.compare == Compare.MESH
        self._grids = mesh_grids(planned.infos, planned.graph, planned.settings.mesh_size) if mesh else None
        self._keys = [bytes(s) + how for s, how in zip(keys.state, measuring_keys(keys, planned.settings), strict=True)]
        self._source: list[Store | None] = [None] * len(self._keys)
        self._n_known, self._has_local = np.full(len(self._keys), -1), np.zeros(len(self._keys), np.bool_)
        self._bad: set[int] = set()
        self._read_last = lru_cache(maxsize=_IMAGES_KEPT)(self.__getitem__)
        self._waiting: dict[int, Row] = {}
        self._waiting_bytes, self._committed = 0, time.monotonic()
        for source in (store,) if target is None or target is store else (store, target):
            self._look_through(source, with_local=with_local)

    def _look_through(self, store: Store, *, with_local: bool) -> None:
        """Note the findings of a store that still hold; of an image the one that covers most."""
        images: dict[bytes, list[int]] = {}
        for i, key in enumerate(self._keys):
            images.setdefault(key, []).append(i)
        for key, head in store.heads():
            local, bad, overlaps = head[0], head[1], head[2:]
            if (bad and not self._with_bad) or (with_local and not local):
                continue
            for i in images.get(key, ()):
                n = self._covered(i, overlaps)
                if n > self._n_known[i]:
                    self._n_known[i], self._source[i], self._has_local[i] = n, store, local
                    (self._bad.add if bad else self._bad.discard)(i)

    def _covered(self, i: int, overlaps: bytes) -> int:
        """How many overlaps of an image are known by a finding of it; -1: it doesn't hold."""
        if self._grids is not None:
            return len(self._overlaps.pairs[i]) if overlaps == self._overlaps.of_cells(i, self._grids) else -1
        side, overlaps = overlaps[0], overlaps[1:]
        if side < self._side:  # shared pixels were counted on a coarser grid
            return -1
        return int(np.count_nonzero(self._overlaps.known(i, overlaps) >= 0))

    @property
    def n_measured(self) -> int:
        """Number of images that have a finding."""
        return int(np.count_nonzero(self._n_known >= 0))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, image: int, /) -> Finding | None:
        row, source = self._waiting.get(image), self._source[image]
        if row is None and source is not None:
            row = source.row("findings", self._keys[image])
            if row is None:
                raise source.damaged("a finding is missing")
        return None if row is None or source is None else self._decoded(image, row, source)

    def __iter__(self) -> Iterator[Finding | None]:
        return (self[i] for i in range(len(self)))

    def outlined(self, i: int) -> Finding | None:
        """The finding of an image; cells are read when they are asked for, as long as the store is open."""
        finding = self[i]
        if not isinstance(finding, MeshReduction):
            return finding
        meshes = {
            plane: tuple(self._outline(i, plane, k, mesh) for k, mesh in enumerate(each))
            for plane, each in finding.meshes.items()
        }
        # Arrays from a store are views of all that was read with them.
        return replace(finding, meshes=meshes, scale=finding.scale.copy(), steps=finding.steps.copy())

    def _outline(self, i: int, plane: int, k: int, mesh: Mesh) -> Mesh:
        return mesh.outline(lambda: self._cells(i, plane, k)) if isinstance(mesh, PackedMesh) else mesh

    def _cells(self, i: int, plane: int, k: int) -> Mesh:
        found = self._read_last(i)
        if not isinstance(found, MeshReduction):
            raise TypeError("an image without cells")
        return found.meshes[plane][k]

    def _decoded(self, i: int, row: Row, source: Store) -> Finding:
        """A finding with overlaps and planes by the numbers that they have in this plan."""
        _, head, body = row
        overlaps = head[3:]
        if self._grids is not None:
            cells = source.decode(MeshReduction, body)
            if not cells.meshes.keys() <= self._planes.keys():
                raise source.damaged("cells on a plane that is not there")
            return replace(cells, meshes={self._planes[key]: mesh for key, mesh in cells.meshes.items()})
        found = source.decode(ImageMeasurement, body)
        if not len(found.regions) == len(found.blocks) == len(found.pieces.n) == len(overlaps) // KEY_BYTES:
            raise source.damaged("a finding without its overlaps")
        pairs = self._overlaps.pairs[i]
        if self._overlaps.of(i).tobytes() != overlaps:
            rows = self._overlaps.known(i, overlaps)
            pairs, rows = pairs[rows >= 0], rows[rows >= 0]
            regions, pieces = found.regions.part(rows), found.pieces.part(rows)
            found = replace(found, regions=regions, blocks=found.blocks[rows], pieces=pieces)
        return replace(found, pairs=pairs, blocks=coarser(found.blocks, self._side))

    def known_pairs(self, image: int, /) -> IntArray | None:
        """The overlaps in which an image was measured; None where it has no finding."""
        pairs = self._overlaps.pairs[image]
        if self._n_known[image] == len(pairs):
            return pairs
        if self._n_known[image] < 0:
            return None
        found = self[image]
        return found.pairs if isinstance(found, ImageMeasurement) else pairs

    def put(self, image: int, finding: Finding, /) -> None:
        """Take a finding; it replaces an earlier one of the image."""
        if self._target is None:
            raise ValueError("this store is read only")
        row = self._row(image, finding)
        self._waiting[image], self._source[image] = row, self._target
        self._has_local[image] = finding.local is not None
        (self._bad.add if finding.problems else self._bad.discard)(image)
        self._n_known[image] = len(self._overlaps.pairs[image])
        self._waiting_bytes += len(row[-1])
        if self._waiting_bytes >= _COMMIT_BYTES or time.monotonic() - self._committed > _COMMIT_S:
            self.flush()

    def _row(self, i: int, finding: Finding) -> Row:
        if isinstance(finding, MeshReduction):
            planes = self._overlaps.planes
            overlaps = self._overlaps.of_cells(i, self._grids or ())
            stored: Finding = replace(finding, meshes={int(planes[k]): mesh for k, mesh in finding.meshes.items()})
        else:
            own = self._overlaps.of(i)[np.searchsorted(self._overlaps.pairs[i], finding.pairs)]
            overlaps = bytes([self._side]) + own.tobytes()
            stored = replace(finding, pairs=finding.pairs[:0])
        head = bytes([finding.local is not None, bool(finding.problems)]) + overlaps
        return self._keys[i], head, CODEC.encode(stored)

    def gathered(self) -> Gathered | None:
        """The measurements of all pairs, where the store has them."""
        key = self._key()
        found = None if key is None else self._store.gathered(str(self._planned.settings.compare))
        return found if found is not None and found.key == key else None

    def keep(self, measurements: Measurements, warnings: tuple[SkyWarning, ...]) -> None:
        """Store the measurements of all pairs, if this store is written to and they are not too large."""
        if self._target is not self._store or self._store.warnings or (key := self._key()) is None:
            return
        body = CODEC.encode(Gathered(key, measurements, warnings))
        if len(body) <= _MOST_BYTES:
            with self._store.leniently():
                self._store.put_gathered(str(self._planned.settings.compare), body)

    def _key(self) -> bytes | None:
        """Digest of all that the measurements rest on; None where files can't be read: they are tried again."""
        if self._bad or self.n_measured < len(self):
            return None
        graph, overlaps = self._planned.graph, self._overlaps
        columns = (graph.a, graph.b, graph.plane, overlaps.sky, overlaps.planes, self._has_local)
        images = repr([(info.group, info.split, info.pixel_area_arcsec2) for info in self._planned.infos])
        states, how = ([key[part] for key in self._keys] for part in (slice(KEY_BYTES), slice(KEY_BYTES, None)))
        return digest_of(*states) + digest_of(
            b"".join(how), images.encode("utf-8", "surrogateescape"), *(column.tobytes() for column in columns)
        )

    def flush(self) -> None:
        """Commit what waits: it is there for the next run, whatever happens to this one.

        SkymatchError if it can't be written, unless this is lenient.
        """
        if not self._waiting or self._target is None or self._target.warnings:
            return
        with self._target.leniently() if self._lenient else self._target.transaction():
            # Of a file that can't be read now, what was measured before still holds for the plan.
            rows = [row for row in self._waiting.values() if not (_is_bad(row) and self._was_measured(row))]
            self._target.put("findings", rows)
        if not self._target.warnings:
            self._waiting.clear()
            self._waiting_bytes, self._committed = 0, time.monotonic()

    def _was_measured(self, row: Row) -> bool:
        before = None if self._target is None else self._target.row("findings", row[0])
        return before is not None and not _is_bad(before)


def _is_bad(row: Row) -> bool:
    return bool(row[1][1])


Findings = HeldFindings | StoredFindings
