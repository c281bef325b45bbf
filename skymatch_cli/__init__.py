"""Equalise the sky background of overlapping FITS images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skymatch_cli.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from skymatch_cli.output.result import Result as Result

__all__ = ["Result", "__version__", "match"]


def match(images: str | PathLike[str] | Iterable[str | PathLike[str]], **settings: Any) -> Result:
    """Equalise the sky of overlapping images: what ``skymatch match`` does.

    Parameters
    ----------
    images : name, or iterable of names
        As on the command line: files, ``a.fits[SCI,2]``, globs, ``@list.txt``.
    **settings
        Fields of ``skymatch_cli.settings.Settings``, named as the command-line options
        (``method``, ``skystat``, ``dry_run``, ``subtract``, …). Without ``dry_run=True`` the sky is recorded
        in the headers of the images.

    Returns
    -------
    Result
        With the tables ``images``, ``overlaps`` and ``components`` (astropy ``QTable``) and ``warnings``.

    Raises
    ------
    skymatch_cli.errors.SkymatchError
        ``UsageError``, ``InputError``, ``NoOverlapError`` or ``StrictError``.
    """
    from os import PathLike as AnyPath

    from skymatch_cli.pipeline import match as run_match
    from skymatch_cli.settings import Settings

    names = [images] if isinstance(images, (str, AnyPath)) else list(images)
    return run_match(names, Settings.of(settings))


def __getattr__(name: str) -> Any:
    """``Result`` is imported when it is asked for: ``skymatch --help`` shall not wait for astropy."""
    if name == "Result":
        from skymatch_cli.output.result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
