"""The same bytes for any number of BLAS threads."""

import os
import subprocess
import sys

import pytest

from .factories import Frame, write

PROGRAM = """
import hashlib, sys
import numpy as np, skymatch_cli
found = skymatch_cli.match(sys.argv[3:], compare=sys.argv[1], model=sys.argv[2], dry_run=True, jobs=1)
columns = [np.array(table[name], float) for table, names in (
    (found.images, ("sky", "sky_err")), (found.overlaps, ("delta", "delta_err", "residual"))) for name in names]
print(hashlib.sha256(np.concatenate(columns).tobytes()).hexdigest(), len(columns[0]))
"""


def write_mosaic(folder):
    frames = [
        Frame(x=40 * (k % 3), y=40 * (k // 3), nx=96, ny=96, sky=10.0 * k, noise=1.0, seed=k, rotation=3.0 * k)
        for k in range(9)
    ]
    return [str(write(folder / f"{k}.fits", frame)) for k, frame in enumerate(frames)]


def output(n_threads, *words):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(n_threads)}
    return subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("compare", "model"), [("mesh", "constant"), ("mesh", "plane"), ("pooled", "constant")])
def test_results_do_not_depend_on_blas_threads(tmp_path, compare, model):
    names = write_mosaic(tmp_path)
    said = [output(n, "-c", PROGRAM, compare, model, *names) for n in (1, 2, 4)]
    assert said[0].endswith(" 9\n")
    assert said[0] == said[1] == said[2]


def test_the_program_has_one_blas_thread_whatever_the_environment_says(tmp_path):
    names = write_mosaic(tmp_path)
    one, four = (output(n, "-m", "skymatch_cli", "match", "--dry-run", "--format", "json", *names) for n in (1, 4))
    assert one == four
    begun = "import skymatch_cli.cli as c, sys; sys.argv = ['skymatch', 'plan', *sys.argv[1:]]\ntry: c.program()\n"
    said = "finally: import threadpoolctl as t; print({lib['num_threads'] for lib in t.threadpool_info()})"
    assert output(4, "-c", begun + said, *names).endswith("{1}\n")
