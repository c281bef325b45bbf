"""Plans and measurements come back from their files as they were."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from skymatch_cli import pipeline
from skymatch_cli.model import Container, ImageRef, MaskRef, PixelSource, StoredPlane
from skymatch_cli.output.formats import write_fits
from skymatch_cli.settings import Settings
from skymatch_cli.sky.celestial import LookupTable
from skymatch_cli.store.plainvalue import from_plain, to_plain
from skymatch_cli.store.store import plan_document, read_measured, read_plan, write_measured

from .factories import row, write_all


def stored_plan(planned: pipeline.Plan, file: Path) -> pipeline.Plan:
    with file.open("wb") as stream:
        write_fits(plan_document(planned), "images", stream)
    return read_plan(str(file))


@pytest.mark.parametrize("frame", [{}, {"projection": "CAR"}, {"sip": True, "rotation": 20.0}, {"dec_first": True}])
def test_a_plan(tmp_path, frame):
    planned = pipeline.plan(write_all(tmp_path, row([1.0, 2.0, 3.0], **frame)), Settings())
    read = stored_plan(planned, tmp_path / "plan.fits")
    assert read.settings == planned.settings
    assert [i.ref for i in read.infos] == [i.ref for i in planned.infos]
    assert [i.source for i in read.infos] == [i.source for i in planned.infos]
    assert read.graph.planes == planned.graph.planes
    for name in ("xy", "ring_offset", "outer", "row_offset"):
        assert np.array_equal(getattr(read.graph.polygon, name), getattr(planned.graph.polygon, name))
    x = np.array([0.0, 13.5])
    for one, other in zip(read.infos, planned.infos, strict=True):
        assert np.array_equal(one.wcs.to_sky(x, x), other.wcs.to_sky(x, x))


def test_names_in_any_script_and_warnings(tmp_path):
    folder = tmp_path / "nächte κόσμος"
    planned = pipeline.plan(write_all(folder, row([1.0, 2.0])), Settings())
    planned = pipeline.Plan(
        planned.settings, planned.infos, planned.footprints, planned.graph, ("weggelassen: ü",), ("Achtung: é", "b")
    )
    read = stored_plan(planned, tmp_path / "plan.fits")
    assert read.infos[0].ref == planned.infos[0].ref
    assert (read.skipped, read.warnings) == (planned.skipped, planned.warnings)


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
@pytest.mark.parametrize("only", [None, [1]])
def test_a_measurement(tmp_path, compare, only):
    planned = pipeline.plan(write_all(tmp_path, row([1.0, 2.0, 3.0], noise=1.0)), Settings(compare=compare))
    found = pipeline.find(planned, only=only)
    first, second = io.BytesIO(), io.BytesIO()
    write_measured(planned, found, first)
    (tmp_path / "measured.fits").write_bytes(first.getvalue())
    again, read = read_measured(str(tmp_path / "measured.fits"))
    write_measured(again, read, second)
    assert second.getvalue() == first.getvalue()
    assert read.missing.tolist() == ([] if only is None else [0, 2])


def test_an_image_without_any_overlap(tmp_path):
    planned = pipeline.plan(write_all(tmp_path, row([1.0])), Settings())
    with (tmp_path / "measured.fits").open("wb") as stream:
        write_measured(planned, pipeline.find(planned), stream)
    _, read = read_measured(str(tmp_path / "measured.fits"))
    assert read.found[0].n_good == 1600


def test_dataclasses_as_json():
    plane = StoredPlane(path="ä", container=Container.GZIP, hdu=1, offset=2880, shape=(3, 4), bitpix=16, blank=-1)
    source = PixelSource(science=plane, mask=plane, bad_flags=5)
    assert from_plain(PixelSource, to_plain(source)) == source
    ref = ImageRef("a", "b", 0, mask=MaskRef("m", "m", 1))
    assert from_plain(ImageRef, to_plain(ref)) == ref


def test_arrays_may_be_put_elsewhere():
    arrays: list[bytes] = []
    plain = to_plain(LookupTable(np.arange(6.0).reshape(2, 3), (1.0, 1.0), (0.0, 0.0), (1.0, 1.0)), arrays)
    assert plain["data"] == {"dtype": "<f8", "shape": [2, 3], "start": 0}
    assert arrays == [np.arange(6.0).tobytes()]
