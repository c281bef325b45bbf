"""The store: one file with the headers, the plan and the findings of a set of images.

=========  ====================================================================================
facts      the plan as a whole, the settings by which its pixels are measured, and its measurements
files      the structure of every file, and `headers` the header of every image
images     the `ImageInfo` of every image of the plan
columns    keys of the images, some ten thousand a row
overlaps   which images overlap, some ten thousand a row, and `polygons` where
findings   the finding of every image, under the keys of the files and settings that it depends on
=========  ====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from skymatch_cli.choices import Compare, Method, WarningName
from skymatch_cli.compare.mesh.packed import Mesh, PackedMesh
from skymatch_cli.compare.meshed import MeshReduction
from skymatch_cli.compare.pooled import ImageMeasurement
from skymatch_cli.errors import InputError, SkymatchError
from skymatch_cli.images.formats.files import file_state, real_path
from skymatch_cli.images.formats.fitsfile import FitsFile
from skymatch_cli.images.formats.gwcs import GwcsWcs
from skymatch_cli.images.known import Headers, ImageHeader
from skymatch_cli.images.partwcs import SectionWcs
from skymatch_cli.model import (
    CelestialWcs,
    FloatArray,
    ImageInfo,
    IntArray,
    OverlapGraph,
    SkyWarning,
    StoredPlane,
    TangentPlane,
)
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.settings import OF_THE_SOLUTION, Settings
from skymatch_cli.sky.celestial import FitsWcs
from skymatch_cli.store.codec import Codec
from skymatch_cli.store.database import Database, digest_of
from skymatch_cli.store.gathered import MOST_BYTES, Gathered
from skymatch_cli.store.keys import KEY_BYTES, ImageKeys, image_keys, image_states
from skymatch_cli.store.lazy import StoredInfos, StoredPolygons
from skymatch_cli.store.plan import Plan

Finding = ImageMeasurement | MeshReduction
CODEC = Codec({CelestialWcs: (FitsWcs, GwcsWcs, SectionWcs), Mesh: (PackedMesh,)})
_BLOCK = 65_536  # rows of long columns that are stored together
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class _PlanFacts:
    """Facts of the whole plan; ``digest`` covers its images and overlaps."""

    digest: bytes
    rules: str
    on_sky: bool
    n_images: int
    n_overlaps: int
    n_files: int
    n_headers: int
    planes: tuple[TangentPlane, ...]
    skipped: tuple[str, ...]
    warnings: tuple[SkyWarning, ...]


@dataclass(frozen=True, slots=True)
class _File:
    real: str
    file: FitsFile


@dataclass(frozen=True, slots=True, eq=False)
class _Overlaps:
    """Some of the overlaps, as columns."""

    a: IntArray
    b: IntArray
    area_arcmin2: FloatArray
    plane: IntArray


_STORED = (
    *(_PlanFacts, _File, ImageHeader, ImageInfo, ImageKeys, _Overlaps, Polygons),
    *(ImageMeasurement, MeshReduction, Gathered),
)


def not_kept(error: SkymatchError) -> SkyWarning:
    """Warn that measurements could not be written to the store."""
    return SkyWarning(WarningName.STORE, f"what was measured is not kept: {error.message}")


class Store(Database):
    """A store, open; use it in a ``with`` block.

    As for `Database`, and InputError when a damaged row is read. ``warnings`` say why measurements could not be stored.
    """

    def __init__(self, file: str, *, write: bool = False, create: bool = False) -> None:
        super().__init__(file, layout=_layout(), write=write, create=create)
        self.warnings: tuple[SkyWarning, ...] = ()
        self._headers: Headers | None = None
        self._keys: ImageKeys | None = None

    @property
    def _facts(self) -> _PlanFacts | None:
        body = self.get("facts", "plan")
        return None if body is None else self.decode(_PlanFacts, body)

    def decode(self, cls: type[_Row], body: bytes) -> _Row:
        """Decode a row."""
        try:
            return CODEC.decode(cls, body)
        except ValueError as error:
            raise self.damaged(str(error)) from None

    def headers(self) -> Headers | None:
        """The headers of the plan in the store; None where there is no plan."""
        facts = self._facts
        if facts is None:
            return None
        files = self._rows("files", _File, 0, facts.n_files)
        images = self._rows("headers", ImageHeader, 0, facts.n_headers)
        self._headers = Headers(facts.rules, {file.real: file.file for file in files}, tuple(images))
        return self._headers

    def save_plan(self, planned: Plan) -> None:
        """Store a plan, instead of the one that is there; findings of files that changed since are deleted."""
        headers = _with_footprints(planned.headers)
        settings = _to_json(planned.settings)
        facts = self._facts
        if facts is not None and self._is_same(facts, headers, planned):
            if self.get("facts", "settings") != settings:
                with self.transaction():
                    self.put("facts", [("settings", settings)])
            return
        keys = image_keys(planned.infos, planned.footprints, CODEC)
        with self.transaction():
            if facts is not None:
                self.forget(_outdated(self.keys(), keys))
            for table in ("files", "headers", "images", "columns", "overlaps", "polygons"):
                self.clear(table)
            self.put("files", enumerate(CODEC.encode(_File(real, file)) for real, file in headers.files.items()))
            self.put("headers", enumerate(map(CODEC.encode, headers.images)))
            self.put("images", enumerate(map(CODEC.encode, planned.infos)))
            digest = self._put_blocks(planned, keys)
            self.put("facts", [("settings", settings), ("plan", _facts_of(planned, headers, digest))])
        self._keys = keys

    def _is_same(self, facts: _PlanFacts, headers: Headers, planned: Plan) -> bool:
        """Whether the plan in the store was made of these headers, by the same rules."""
        now = planned.skipped, planned.warnings, len(planned.infos)
        return (facts.skipped, facts.warnings, facts.n_images) == now and self._has(headers)

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
        facts = self._facts
        return None if facts is None or not self._has(_with_footprints(headers)) else self._graph(facts)

    def _put_blocks(self, planned: Plan, keys: ImageKeys) -> bytes:
        """Store the long columns; returns the digest of the plan."""
        graph, digests = planned.graph, [repr(planned.graph.planes).encode(), *self._put_keys(keys)]
        for k, low in enumerate(range(0, len(graph.a), _BLOCK)):
            part = slice(low, min(low + _BLOCK, len(graph.a)))
            columns = _Overlaps(graph.a[part], graph.b[part], graph.area_arcmin2[part], graph.plane[part])
            bodies = CODEC.encode(columns), CODEC.encode(graph.polygon.part(np.arange(part.start, part.stop)))
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
        infos = StoredInfos(partial(self._rows, "images", ImageInfo), facts.n_images)
        return Plan(self.settings(), infos, (), self._graph(facts), facts.skipped, facts.warnings)

    def _graph(self, facts: _PlanFacts) -> OverlapGraph:
        parts = self._blocks("overlaps", _Overlaps, facts.n_overlaps)
        none = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
        columns = zip(none, *((p.a, p.b, p.area_arcmin2, p.plane) for p in parts), strict=True)
        a, b, area, plane = (np.concatenate(column) for column in columns)
        if len(a) != facts.n_overlaps or not _are_overlaps(a, b, plane, facts):
            raise self.damaged("its overlaps are not those of its images")
        polygons = StoredPolygons(partial(self._rows, "polygons", Polygons), facts.n_overlaps, _BLOCK)
        return OverlapGraph(facts.n_images, a, b, area, polygons, plane, facts.planes)

    def gathered(self, compare: str, key: bytes) -> Gathered | None:
        """The measurements of the plan by one way of comparing, if they rest on what ``key`` stands for."""
        body = self.get("facts", f"measurements {compare}")
        found = None if body is None else self.decode(Gathered, body)
        return found if found is not None and found.key == key else None

    def keep(self, compare: str, gathered: Gathered) -> None:
        """Store measurements, unless they are too large; where they can't be written there is a warning."""
        if gathered.n_bytes > MOST_BYTES or self.warnings:
            return
        try:
            with self.transaction():
                self.put("facts", [(f"measurements {compare}", CODEC.encode(gathered))])
        except SkymatchError as error:
            self.warnings = (not_kept(error),)

    def _plan_facts(self) -> _PlanFacts:
        facts = self._facts
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
            return Settings.of(json.loads(self.get("facts", "settings") or b"{}"))
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

    def begin_part(self, whole: Store, settings: Settings) -> None:
        """Make this store a part of a measurement of the plan in another one."""
        if self._facts is not None:
            what = "holds a plan: it can't be a part of another one"
            raise InputError.at(self.file, what, "name another file")
        with self.transaction():
            self.put("facts", [("part", whole.plan_digest()), ("settings", _to_json(settings))])

    def merge(self, files: Sequence[str]) -> None:
        """Add the findings of partial measurements of this plan.

        InputError if one is not a part of this plan, or was measured in another way than the others.
        """
        settings: dict[str, bytes] = {}
        for file in files:
            if real_path(file) == real_path(self.file):
                raise InputError.at(file, "is named twice: as the store, and as a part", "name the parts after it")
            with Store(file) as part:
                settings[file] = own = self._settings_of_part(part)
            if own != settings[files[0]]:
                raise InputError.at(file, f"was measured with other settings than {files[0]}", "measure it again")
        with self.transaction():
            for file in files:
                with Store(file) as part:
                    for row in part.each_finding():
                        if not row[3] or self.finding(row[0], row[1]) is None:
                            self.put_finding(row)
            self.put("facts", [("settings", settings[files[0]])])

    def _settings_of_part(self, part: Store) -> bytes:
        """How a part was measured, if it is one of this plan."""
        if (digest := part.get("facts", "part")) is None:
            hint = "name what `skymatch measure STORE --shard K/N -o PART` wrote"
            raise InputError.at(part.file, "is not a part of a measurement", hint)
        if digest != self.plan_digest():
            what = f"is not of the plan in {self.file}, or of an earlier state of it"
            raise InputError.at(part.file, what, "measure this part again")
        return part.get("facts", "settings") or b""

    def renew(self, infos: Sequence[ImageInfo], files: Collection[str]) -> None:
        """Keep the findings of files that this program has written since: the original pixels are unchanged.

        Where that can't be written there is a warning.

        Parameters
        ----------
        infos : sequence of ImageInfo
            The images of the plan, as they were stored.
        files : collection of str
            Real paths of the files that were replaced.
        """
        if not files:
            return
        try:
            self._renew(infos, frozenset(files))
        except SkymatchError as error:  # the images are written: that counts
            self.warnings += (not_kept(error),)

    def _renew(self, old: Sequence[ImageInfo], files: frozenset[str]) -> None:
        infos = renewed(old, files)
        states = image_states(old)[0], image_states(infos)[0]
        changed = [k for k, (before, now) in enumerate(zip(*states, strict=True)) if before != now]
        keys = replace(self.keys(), state=np.frombuffer(b"".join(states[1]), np.uint8).reshape(-1, KEY_BYTES))
        with self.transaction():
            for before, now in {(states[0][k], states[1][k]) for k in changed}:
                for row in self.findings_of(before):
                    self.put_finding((now, *row[1:]))
                self.forget([before])
            self.put("images", ((k, CODEC.encode(infos[k])) for k in changed))
            self._renew_gathered(digest_of(*states[0]), digest_of(*states[1]))
            self._put_keys(keys)
        self._keys = keys

    def _renew_gathered(self, before: bytes, now: bytes) -> None:
        for compare in Compare:
            name = f"measurements {compare}"
            if (body := self.get("facts", name)) is not None:
                gathered = self.decode(Gathered, body)
                if gathered.key.startswith(before):
                    gathered = replace(gathered, key=now + gathered.key[len(now) :])
                    self.put("facts", [(name, CODEC.encode(gathered))])

    def _put_keys(self, keys: ImageKeys) -> list[bytes]:
        blocks = [CODEC.encode(keys.part(low, low + _BLOCK)) for low in range(0, len(keys.sky), _BLOCK)]
        self.put("columns", enumerate(blocks))
        return blocks


def _with_footprints(headers: Headers) -> Headers:
    """Headers without the images whose footprint can't be traced, which are read again by every run."""
    return replace(headers, images=tuple(h for h in headers.images if not isinstance(h.footprint, InputError)))


def measuring_part(settings: Settings) -> Settings:
    """Settings as a plan has them: those that only a solution needs are the default ones."""
    default = Settings()
    return replace(settings, **{name: getattr(default, name) for name in OF_THE_SOLUTION})


def renewed(infos: Sequence[ImageInfo], files: Collection[str]) -> tuple[ImageInfo, ...]:
    """The images after some of their files (by their real paths) were written by this program."""

    def plane(old: StoredPlane) -> StoredPlane:
        return replace(old, state=file_state(old.path)) if real_path(old.path) in files else old

    return tuple(replace(info, source=info.source and info.source.changed(plane)) for info in infos)


def _layout() -> str:
    return "\n".join(map(CODEC.layout, _STORED))


def settings_json(settings: Settings) -> str:
    """Settings that determine the result, with the keyword of the sky, as JSON."""
    return json.dumps({**settings.determining(), "sky_keyword": settings.sky_keyword}, sort_keys=True)


def _to_json(settings: Settings) -> bytes:
    return settings_json(settings).encode("ascii")


def _facts_of(planned: Plan, headers: Headers, digest: bytes) -> bytes:
    return CODEC.encode(
        _PlanFacts(
            digest=digest,
            rules=headers.rules,
            on_sky=planned.settings.method != Method.USER,
            n_images=len(planned.infos),
            n_overlaps=len(planned.graph.a),
            n_files=len(headers.files),
            n_headers=len(headers.images),
            planes=planned.graph.planes,
            skipped=planned.skipped,
            warnings=planned.warnings,
        )
    )


def _are_overlaps(a: IntArray, b: IntArray, plane: IntArray, facts: _PlanFacts) -> bool:
    """Whether the columns can be those of a graph: valid indices, in order."""
    inside = (a >= 0) & (a < b) & (b < facts.n_images) & (plane >= 0) & (plane < len(facts.planes))
    step = np.diff(a)
    return bool(inside.all() and (step >= 0).all() and (np.diff(b)[step == 0] >= 0).all())


def _outdated(old: ImageKeys, new: ImageKeys) -> list[bytes]:
    """Old states of the images that have changed."""
    now = {place.tobytes(): state.tobytes() for place, state in zip(new.place, new.state, strict=True)}
    before = [(place.tobytes(), state.tobytes()) for place, state in zip(old.place, old.state, strict=True)]
    return [state for place, state in before if now.get(place, state) != state]
