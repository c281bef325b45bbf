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


@pytest.mark.parametrize(("compare", "model"), [("mesh", "constant"), ("mesh", "plane"), ("pooled", "constant")])
def test_results_do_not_depend_on_blas_threads(tmp_path, compare, model):
    frames = [
        Frame(x=40 * (k % 3), y=40 * (k // 3), nx=96, ny=96, sky=10.0 * k, noise=1.0, seed=k, rotation=3.0 * k)
        for k in range(9)
    ]
    names = [str(write(tmp_path / f"{k}.fits", frame)) for k, frame in enumerate(frames)]
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, compare, model, *names],
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(n)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for n in (1, 2, 4)
    ]
    assert said[0].endswith(" 9\n")
    assert said[0] == said[1] == said[2]
