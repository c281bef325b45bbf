"""The store: one file with the headers, the plan and the findings of a set of images; its tables are in `rows`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import starmap, zip_longest
from operator import eq
from typing import TypeVar

import numpy as np

from skymatch_cli.choices import Method, WarningName
from skymatch_cli.errors import InputError, SkymatchError
from skymatch_cli.images.known import Headers, ImageHeader
from skymatch_cli.model import BoolArray, ImageInfo, IntArray, OverlapGraph, SkyWarning
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.settings import Settings
from skymatch_cli.store.database import Database, digest_of
from skymatch_cli.store.keys import KEY_BYTES, ImageKeys, image_keys
from skymatch_cli.store.planning import Plan
from skymatch_cli.store.rows import (
    CODEC,
    Gathered,
    Overlaps,
    PlanFacts,
    StoredFile,
    StoredInfos,
    StoredPolygons,
    are_overlaps,
    layout,
    settings_json,
)

_BLOCK = 65_536  # rows of long columns that are stored together
_Row = TypeVar("_Row")


class Store(Database):
    """A store, open; use it in a ``with`` block.

    As for `Database`, and InputError when a damaged row is read. ``warnings`` say why measurements could not be stored.
    """

    def __init__(self, file: str, *, write: bool = False, create: bool = False) -> None:
        super().__init__(file, layout=layout(), write=write, create=create)
        self.warnings: tuple[SkyWarning, ...] = ()
        self._headers: Headers | None = None
        self._keys: ImageKeys | None = None

    @property
    def facts(self) -> PlanFacts | None:
        """Facts of the whole plan; None where there is no plan."""
        body = self.get("facts", "plan")
        return None if body is None else self.decode(PlanFacts, body)

    def decode(self, cls: type[_Row], body: bytes) -> _Row:
        """Decode a row."""
        try:
            return CODEC.decode(cls, body)
        except ValueError as error:
            raise self.damaged(str(error)) from None

    def headers(self) -> Headers | None:
        """The headers of the plan in the store; None where there is no plan."""
        facts = self.facts
        if facts is None:
            return None
        files = self._rows("files", StoredFile, 0, facts.n_files)
        images = self._rows("headers", ImageHeader, 0, facts.n_images)
        self._headers = Headers(facts.rules, {file.real: file.file for file in files}, tuple(images))
        return self._headers

    def save_plan(self, planned: Plan) -> None:
        """Store a plan, instead of the one that is there; findings of files that changed since are deleted."""
        headers = _with_footprints(planned.headers)
        facts = self.facts
        made_of = planned.skipped, planned.warnings, len(planned.infos)
        if facts and (facts.skipped, facts.warnings, facts.n_images) == made_of and self._has(headers):
            self.save_settings(planned.settings)
            return
        rows = self._rows_of(headers)
        keys = self._keys_of(planned, rows)
        files = list(headers.files.items())
        old = [] if self._headers is None else list(self._headers.files.items())
        with self.transaction():
            if facts is not None:
                self.forget(_outdated(self.keys(), keys))
            self.forget({*self._expected()} - {state.tobytes() for state in keys.state})
            self.expect([])
            self._replace("files", list(starmap(StoredFile, files)), list(map(eq, files, old)))
            self._replace("headers", headers.images, rows == np.arange(len(rows)))
            for table in ("columns", "overlaps", "polygons"):
                self.clear(table)
            digest = self._put_blocks(planned, keys)
            self.put("facts", [("plan", _facts_of(planned, headers, digest)), ("settings", _to_json(planned.settings))])
        self._keys, self._headers = keys, None

    def expect(self, states: Sequence[bytes]) -> None:
        """Note for which states of images, that are not those of the plan, findings are kept until the next plan."""
        self.put("facts", [("expected", b"".join(states))])

    def _expected(self) -> list[bytes]:
        states = self.get("facts", "expected") or b""
        return [states[k : k + KEY_BYTES] for k in range(0, len(states), KEY_BYTES)]

    def _rows_of(self, headers: Headers) -> IntArray:
        """The row of the header of every image in the store, (N,); -1 where it was read from the file itself."""
        old = () if self._headers is None else self._headers.images
        row = {id(header): k for k, header in enumerate(old)}
        return np.array([row.get(id(header), -1) for header in headers.images], np.int64)

    def _keys_of(self, planned: Plan, rows: IntArray) -> ImageKeys:
        """The keys of the images: those in the store where the header is from there."""
        new = np.flatnonzero(rows < 0)
        footprints = [planned.footprints[k] for k in new.tolist()] if planned.footprints else ()
        made = image_keys([planned.infos[k] for k in new.tolist()], footprints, CODEC)
        if len(new) == len(rows):
            return made
        old = self.keys()
        rows = rows.copy()
        rows[new] = len(old.sky) + np.arange(len(new))
        factor = np.array([info.to_comparison for info in planned.infos])
        return replace(ImageKeys.joined([old, made]).part(rows), to_comparison=factor)

    def _replace(self, table: str, rows: Sequence[object], stay: Sequence[bool] | BoolArray) -> None:
        """Store the rows of a table, but those that stay."""
        self.clear(table, len(rows))
        new = ((k, row) for k, (row, stays) in enumerate(zip_longest(rows, stay, fillvalue=False)) if not stays)
        self.put(table, ((k, CODEC.encode(row)) for k, row in new))

    def _has(self, headers: Headers) -> bool:
        """Whether these are the headers that were read from the store, and no others."""
        old = self._headers
        return (
            old is not None
            and old.rules == headers.rules
            and old.files == headers.files
            and len(old.images) == len(headers.images)
            and all(mine is its for mine, its in zip(old.images, headers.images, strict=True))
        )

    def graph_of(self, headers: Headers) -> OverlapGraph | None:
        """The overlaps of the plan in the store, if it was made of these headers; None where it was not."""
        facts = self.facts
        return None if facts is None or not self._has(_with_footprints(headers)) else self._graph(facts)

    def _put_blocks(self, planned: Plan, keys: ImageKeys) -> bytes:
        """Store the long columns; returns the digest of the plan."""
        graph, digests = planned.graph, [repr(planned.graph.planes).encode(), *self.put_keys(keys)]
        for k, low in enumerate(range(0, len(graph.a), _BLOCK)):
            part = slice(low, min(low + _BLOCK, len(graph.a)))
            bodies = (
                CODEC.encode(Overlaps.of(graph, part)),
                CODEC.encode(graph.polygon.part(np.arange(part.start, part.stop))),
            )
            for table, body in zip(("overlaps", "polygons"), bodies, strict=True):
                self.put(table, [(k, body)])
                digests.append(digest_of(body))
        return digest_of(*digests)

    def keys(self) -> ImageKeys:
        """The keys of the images of the plan."""
        if self._keys is None:
            n = self._plan_facts().n_images
            self._keys = ImageKeys.joined(self._blocks("columns", ImageKeys, n))
            if len(self._keys.sky) != n:
                raise self.damaged("its keys are not those of its images")
        return self._keys

    def _blocks(self, table: str, cls: type[_Row], n: int) -> list[_Row]:
        return self._rows(table, cls, 0, -(-n // _BLOCK))

    def _rows(self, table: str, cls: type[_Row], low: int, high: int) -> list[_Row]:
        return [self.decode(cls, body) for body in self.span(table, low, high)]

    def plan(self) -> Plan:
        """The plan in the store; it has no footprints. Images and polygons are read when they are asked for.

        InputError if there is none that can be measured.
        """
        facts = self._plan_facts()
        infos = StoredInfos(partial(self._infos, facts), facts.n_images)
        return Plan(self.settings(), infos, (), self._graph(facts), facts.skipped, facts.warnings)

    def _infos(self, facts: PlanFacts, low: int, high: int) -> list[ImageInfo]:
        headers, factors = self._rows("headers", ImageHeader, low, high), self.keys().to_comparison[low:high].tolist()
        return [
            replace(
                header.info,
                to_comparison=factor,
                comparison_unit=facts.comparison_unit,
                notes=(*header.info.notes, *facts.notes),
            )
            for header, factor in zip(headers, factors, strict=True)
        ]

    def _graph(self, facts: PlanFacts) -> OverlapGraph:
        parts = self._blocks("overlaps", Overlaps, facts.n_overlaps)
        none = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
        columns = zip(none, *((p.a, p.b, p.area_arcmin2, p.plane) for p in parts), strict=True)
        a, b, area, plane = (np.concatenate(column) for column in columns)
        if len(a) != facts.n_overlaps or not are_overlaps(a, b, plane, facts):
            raise self.damaged("its overlaps are not those of its images")
        polygons = StoredPolygons(partial(self._rows, "polygons", Polygons), facts.n_overlaps, _BLOCK)
        return OverlapGraph(facts.n_images, a, b, area, polygons, plane, facts.planes)

    def gathered(self, compare: str) -> Gathered | None:
        """The measurements by one way of comparing."""
        body = self.get("facts", f"measurements {compare}")
        return None if body is None else self.decode(Gathered, body)

    def put_gathered(self, compare: str, body: bytes) -> None:
        """Store the encoded measurements by one way of comparing."""
        self.put("facts", [(f"measurements {compare}", body)])

    @contextmanager
    def leniently(self) -> Iterator[None]:
        """Write all of the block, or nothing of it and warn."""
        try:
            with self.transaction():
                yield
        except SkymatchError as error:
            text = f"what was measured is not kept: {error.message}"
            self.warnings += (SkyWarning(WarningName.STORE, text),)

    def _plan_facts(self) -> PlanFacts:
        facts = self.facts
        again = f"run skymatch plan --store {self.file} IMAGES..."
        if facts is None:
            part = self.get("facts", "part") is not None
            what = "is a part of a measurement: it has no plan" if part else "holds no plan"
            raise InputError.at(self.file, what, "merge it into the store of its plan" if part else again)
        if not facts.on_sky:
            raise InputError.at(self.file, "holds images without their positions (--method user)", again)
        return facts

    def settings(self) -> Settings:
        """The settings of the plan and of its measurement."""
        try:
            return Settings.of(json.loads(self.get("facts", "settings") or b""))
        except (ValueError, TypeError, SkymatchError) as error:
            raise self.damaged(f"its settings: {error}") from None

    def save_settings(self, settings: Settings) -> None:
        """Store the settings by which pixels are measured."""
        if self.get("facts", "settings") != (text := _to_json(settings)):
            with self.transaction():
                self.put("facts", [("settings", text)])

    def plan_digest(self) -> bytes:
        """Digest that identifies a plan: the state of its images, and their overlaps."""
        return self._plan_facts().digest

    def put_keys(self, keys: ImageKeys) -> list[bytes]:
        """Store the keys of the images; return the rows."""
        blocks = [CODEC.encode(keys.part(slice(low, low + _BLOCK))) for low in range(0, len(keys.sky), _BLOCK)]
        self.put("columns", enumerate(blocks))
        return blocks


def _with_footprints(headers: Headers) -> Headers:
    """Headers without the images whose footprint can't be traced, which are read again by every run."""
    return replace(headers, images=tuple(h for h in headers.images if not isinstance(h.footprint, InputError)))


def _to_json(settings: Settings) -> bytes:
    return settings_json(settings).encode("ascii")


def _facts_of(planned: Plan, headers: Headers, digest: bytes) -> bytes:
    first, read = planned.infos[0], headers.images[0].info  # the comparison unit and its notes are the same for all
    return CODEC.encode(
        PlanFacts(
            digest=digest,
            rules=headers.rules,
            on_sky=planned.settings.method != Method.USER,
            n_images=len(planned.infos),
            n_overlaps=len(planned.graph.a),
            n_files=len(headers.files),
            comparison_unit=first.comparison_unit,
            notes=first.notes[len(read.notes) :],
            planes=planned.graph.planes,
            skipped=planned.skipped,
            warnings=planned.warnings,
        )
    )


def _outdated(old: ImageKeys, new: ImageKeys) -> list[bytes]:
    """Old states of the images that have changed."""
    now = {place.tobytes(): state.tobytes() for place, state in zip(new.place, new.state, strict=True)}
    before = [(place.tobytes(), state.tobytes()) for place, state in zip(old.place, old.state, strict=True)]
    return [state for place, state in before if now.get(place, state) != state]
