"""A short random walk of commands and other programs; ``make walk`` takes 5,000 steps."""

from __future__ import annotations

import pytest

from .crash.walk import walk


@pytest.mark.filterwarnings("ignore")
def test_every_pixel_is_where_the_model_expects_it() -> None:
    walk(200, derandomize=True)
