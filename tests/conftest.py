"""What several modules of tests begin with."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from .factories import row, write_all

# A loaded machine may take its time: how long an example takes is no promise.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """Frames in a row, in the current folder, with the skies ``SKIES`` of the module."""
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row(request.module.SKIES, noise=1.0))
    return [f"img_{k}.fits" for k in range(len(request.module.SKIES))]
