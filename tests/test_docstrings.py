"""The examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import skymatch_cli

MODULES = [module.name for module in pkgutil.walk_packages(skymatch_cli.__path__, "skymatch_cli.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_give_what_they_show(name: str) -> None:
    module = importlib.import_module(name)
    with np.printoptions(legacy=False):
        assert doctest.testmod(module).failed == 0
