"""Equalise the sky background of overlapping FITS images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skymatch_cli.errors import SkymatchWarning as SkymatchWarning
from skymatch_cli.version import __version__

if TYPE_CHECKING:
    from skymatch_cli.images.objects import HeldImages
    from skymatch_cli.output.result import Result as Result
    from skymatch_cli.settings import Settings

__all__ = ["Result", "SkymatchWarning", "__version__", "match"]


def match(images: Any, **settings: Any) -> Result:
    """Equalise the sky of overlapping images: what ``skymatch match`` does.

    Parameters
    ----------
    images : image, or iterable of images
        Names as on the command line (files, ``a.fits[SCI,2]``, globs, ``@list.txt``), or images in memory:
        ``astropy.io.fits.HDUList``; ``NDData`` or ``CCDData`` with a WCS (masked pixels are not used); pairs
        ``(array, wcs)`` with an ``astropy.wcs.WCS`` or a GWCS; models and model libraries of the pipelines of JWST
        and Roman. Images in memory are never changed, and nothing is written: `Result.subtracted` gives
        corrected copies.
    **settings
        Fields of ``skymatch_cli.settings.Settings``, named as the command-line options
        (``method``, ``skystat``, ``dry_run``, ``subtract``, …). Without ``dry_run=True`` the sky is recorded
        in the headers of files.

    Returns
    -------
    Result
        With the tables ``images``, ``overlaps`` and ``components`` (astropy ``QTable``) and ``warnings``.

    Raises
    ------
    skymatch_cli.errors.SkymatchError
        ``UsageError``, ``InputError``, ``NoOverlapError`` or ``StrictError``.

    Warns
    -----
    SkymatchWarning
        For each of ``Result.warnings``; the logger ``skymatch_cli`` has them too.

    Examples
    --------
    Two frames that share a scene, and of which one has a sky that is 5 higher:

    >>> import numpy as np
    >>> from astropy.wcs import WCS
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    >>> wcs.wcs.cdelt = -1 / 3600, 1 / 3600
    >>> frame = np.random.default_rng(1).normal(10, 1, (100, 100))
    >>> result = match([(frame, wcs), (frame + 5, wcs)])
    >>> [round(float(sky), 6) for sky in result.images["sky"]]
    [0.0, 5.0]
    >>> (first, _), (second, _) = result.subtracted()
    >>> bool(np.allclose(first, second))
    True
    """
    import weakref
    from dataclasses import replace

    from skymatch_cli.images.objects import hold_images
    from skymatch_cli.pipeline import match as run_match
    from skymatch_cli.settings import Settings

    chosen = Settings.of(settings)
    held = hold_images(images)
    try:
        result = run_match(held.names, _for_memory(chosen, held) if held.objects else chosen)
    except BaseException:
        held.release()
        raise
    if held.objects:
        result = replace(result, objects=held.objects)
        weakref.finalize(result, held.release)
    _tell(result)
    return result


def _for_memory(settings: Settings, held: HeldImages) -> Settings:
    """The settings with which nothing is written, and images in memory are read where they are.

    UsageError if the settings ask for something to be written.
    """
    from dataclasses import replace

    from skymatch_cli.errors import UsageError

    hint = "take corrected copies from Result.subtracted()"
    if settings.subtract or settings.output_dir is not None:
        name = "subtract" if settings.subtract else "output_dir"
        raise UsageError(f"{name}: images in memory are not changed, nor written", f"leave it out, and {hint}")
    if len(held.names) > len(held.objects) and not settings.dry_run:
        raise UsageError("files beside images in memory: nothing can be recorded", f"set dry_run=True, and {hint}")
    return replace(settings, dry_run=True, jobs=1)


def _tell(result: Result) -> None:
    """Give the warnings of a result as Python's warnings and as log records."""
    import logging
    import warnings

    logger = logging.getLogger("skymatch_cli")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # what nobody listens to isn't shown twice
    for warning in result.warnings:
        logger.warning("%s", warning)
        warnings.warn(str(warning), SkymatchWarning, stacklevel=3)


def __getattr__(name: str) -> Any:
    """``Result`` is imported when it is asked for: ``skymatch --help`` shall not wait for astropy."""
    if name == "Result":
        from skymatch_cli.output.result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
