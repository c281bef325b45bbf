"""Questions that a process beside this one answers."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

from skymatch_cli import pipeline
from skymatch_cli.run.beside import beside, here
from skymatch_cli.run.tasks import usable_cores
from skymatch_cli.settings import Settings
from tests.factories import Frame, write_all

two_cores = pytest.mark.skipif(usable_cores() < 2, reason="on one core nothing is done beside")

ASKING = """
import json, os, sys
from skymatch_cli.run.beside import beside
from skymatch_cli.errors import NoOverlapError
here = os.getpid()
def load():
    import scipy.sparse
def there():
    return os.getpid() != here
def fatal():
    if there():
        os.kill(os.getpid(), 9)
    return "answered here"
def refusing():
    raise NoOverlapError("nothing overlaps", "look")
def wrong():
    raise TypeError(f"raised there: {there()}")
def library():
    return "scipy.sparse" in sys.modules
found = {}
with beside(load, wanted=bool(int(sys.argv[1]))) as ask:
    found["there"] = ask(there)
    found["loaded"] = [ask(library), library()]
    try:
        ask(refusing)
    except NoOverlapError as error:
        found["refused"] = error.lines()
    try:
        ask(wrong)
    except TypeError as error:
        found["wrong"] = str(error)
    found["unsent"] = ask(lambda: "answered here")
    found["sum"] = ask(sum, range(10**6))
    found["fatal"] = ask(fatal)
    found["after"] = ask(there)
print(json.dumps(found))
"""


def asked(wanted):
    done = subprocess.run([sys.executable, "-c", ASKING, str(int(wanted))], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@two_cores
def test_questions_are_answered_by_a_process_that_has_the_libraries():
    assert asked(wanted=True) == {
        "there": True,
        "loaded": [True, False],
        "refused": ["nothing overlaps (look)"],
        "wrong": "raised there: True",  # and not tried again here
        "unsent": "answered here",  # no lambda can be sent
        "sum": 499999500000,
        "fatal": "answered here",  # the process died of it
        "after": False,
    }


def test_where_it_is_not_wanted_they_are_answered_here():
    found = asked(wanted=False)
    assert not found["there"]
    assert found["loaded"] == [False, False]
    assert found["refused"] == ["nothing overlaps (look)"]
    assert found["sum"] == 499999500000


def test_where_the_libraries_are_loaded_nothing_is_started(monkeypatch):
    import scipy.sparse  # noqa: F401 - loaded is all that it must be

    monkeypatch.setattr("threading.active_count", lambda: 1)
    monkeypatch.setattr("skymatch_cli.run.beside.usable_cores", lambda: 2)
    with beside(lambda: pytest.fail("loaded")) as ask:
        assert ask is here


EVALUATING = """
import sys
from skymatch_cli.pipeline import evaluate
from skymatch_cli.settings import Settings
result = evaluate(sys.argv[2:], Settings(dry_run=True, compare=sys.argv[1]))
print(result.solution.sky.tolist(), [info.wcs is not None for info in result.infos])
print([name for name in ("scipy.sparse", "skymatch_cli.solve.offsets") if name in sys.modules])
"""


@two_cores
@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_small_run_imports_no_solver_where_it_reads(tmp_path, compare):
    frames = [Frame(x=100 * k, nx=200, ny=200, sky=100 + 2 * k, noise=1.0, seed=k, dtype="f4") for k in range(3)]
    command = [sys.executable, "-c", EVALUATING, compare, *write_all(tmp_path, frames)]
    skies, modules = subprocess.check_output(command, text=True).splitlines()
    assert modules == "[]"
    assert skies.endswith("[True, True, True]")


@two_cores
def test_an_error_of_the_answer_is_that_of_the_run(tmp_path):
    files = write_all(tmp_path, [Frame(x=500 * k, nx=64, ny=64) for k in range(2)])
    command = [sys.executable, "-m", "skymatch_cli", "match", "--dry-run", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_where_much_is_known_nothing_is_started_however_few_names_say_so(tmp_path, monkeypatch):
    asked = []

    @contextmanager
    def noted(load, *, wanted):
        del load
        asked.append(wanted)
        yield here

    monkeypatch.setattr(pipeline, "beside", noted)
    monkeypatch.setattr(pipeline, "_FEW_IMAGES", 2)
    write_all(tmp_path, [Frame(x=50 * k, nx=64, ny=64) for k in range(3)])
    names, settings = [str(tmp_path / "*.fits")], Settings(dry_run=True, jobs=2)
    headers = pipeline.plan(names, settings).headers
    pipeline.evaluate(names, settings)
    pipeline.evaluate(names, settings, headers=headers)
    assert asked == [True, False]
