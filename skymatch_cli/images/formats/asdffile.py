"""Open ASDF files (extra ``gwcs``)."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

HINT = "pip install 'skymatch-cli[gwcs]'"
_PACKAGES = ("asdf", "gwcs", "asdf_astropy")


def missing_package() -> str:
    """Return the first package of the extra that is not installed; "" where all are."""
    return next((name for name in _PACKAGES if importlib.util.find_spec(name) is None), "")


@contextmanager
def opened_asdf(stream: IO[bytes]) -> Iterator[Any]:
    """Open an ASDF file whose nodes are converted on access; unknown nodes stay as they are, and no schema is asked."""
    import asdf

    with warnings.catch_warnings(), asdf.config_context() as config:
        warnings.simplefilter("ignore")  # tags of pipelines that are not installed
        config.validate_on_read = False  # a file of a newer library: converters tell what they can't read
        with asdf.open(stream, lazy_tree=True, memmap=False) as file:
            yield file
