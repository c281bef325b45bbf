"""How pixels are stored, and the arithmetic of subtracting a sky and adding it back.

``subtract`` and ``restore`` are inverse to one another: bit for bit where the original was integer, within
1 ulp of max(|pixel|, |sky|) for floats. Why 1 ulp: the difference is rounded once, to the nearest multiple
of its own ulp, by at most ``ulp(max)``; the sum goes to the nearest value of the original type, and the
original itself is one. The difference of two pixels' ulps is what Sterbenz' lemma makes zero for skies of
the size of the pixels. Where 1 ulp of the sky is too much for the pixels, they are widened (see `record.precision`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.model import PixelFormat

Stored = npt.NDArray[Any]
Shift = float | npt.NDArray[np.float64]  # the same for all pixels, or one for each

_FLOAT32_STEPS = 2.0**22  # steps of an integer image that float32 holds with a quarter of a step to spare
_FLOAT64_STEPS = 2.0**51
_TOO_FAR_FROM_A_STEP = 0.3


class PixelError(ValueError):
    """Pixels that can't be subtracted, or not be restored."""


def format_of(cards: cd.Cards, *, tiled: bool) -> PixelFormat:
    """Read the format that a header states; ``tiled``: of a tile-compressed image."""
    bitpix = cd.value(cards, "ZBITPIX" if tiled else "BITPIX")
    blank = cd.value(cards, "BLANK")
    if blank is None and tiled:
        blank = cd.value(cards, "ZBLANK")
    integer = isinstance(bitpix, int) and bitpix > 0
    return PixelFormat(
        bitpix=bitpix if isinstance(bitpix, int) else 0,
        bscale=cd.number(cards, "BSCALE", 1.0),
        bzero=cd.number(cards, "BZERO", 0.0),
        blank=blank if integer and isinstance(blank, int) and not isinstance(blank, bool) else None,
    )


def format_after(original: PixelFormat, shift: float) -> PixelFormat:
    """Choose the format in which the original pixels minus a sky of at most ``shift`` (physical) can be restored.

    Floats stay what they are. Integers become float32 where that is exact (8 and 16 bits, and a shift of that size),
    else float64. PixelError if no type holds the result.
    """
    if original.bscale == 0:
        raise PixelError("BSCALE is 0: all pixels are the same")
    if not original.is_integer:
        return original
    low, high = (0, 255) if original.bitpix == 8 else (-(2 ** (original.bitpix - 1)), 2 ** (original.bitpix - 1) - 1)
    largest = max(abs(original.bzero + original.bscale * raw) for raw in (low, high)) + abs(shift)
    steps = largest / abs(original.bscale)
    if original.bitpix <= 16 and steps <= _FLOAT32_STEPS:
        return PixelFormat(bitpix=-32)
    if original.bitpix == 64 or steps <= _FLOAT64_STEPS:  # 64 bits are seldom used to the full: checked pixel by pixel
        return PixelFormat(bitpix=-64)
    raise PixelError(f"{original.name} minus {shift:g} can't be held by float64 so that it could be undone")


def subtract(raw: Stored, original: PixelFormat, shift: Shift, target: PixelFormat) -> Stored:
    """Subtract ``shift`` (physical units) from original pixels, (n,) as stored; the result is as stored in ``target``.

    PixelError if a pixel can't be held so that ``restore`` gives it back.
    """
    if original.is_integer:
        return _subtract_from_integers(raw, original, shift, target)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (raw.astype("f8") - shift / original.bscale).astype(target.dtype)
    if bool(np.any(np.isinf(result) & np.isfinite(raw))):
        raise PixelError(f"a pixel minus its sky overflows {target.name}")
    return _keep_undefined(result, raw)


def restore(stored: Stored, original: PixelFormat, shift: Shift) -> Stored:
    """Invert `subtract`: the original pixels, as they were stored.

    PixelError if the original was integer and these pixels are not what `subtract` made of it.
    """
    if original.is_integer:
        return _restore_integers(stored, original, shift)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (stored.astype("f8") + shift / original.bscale).astype(original.dtype)
    return _keep_undefined(result, stored)


def _subtract_from_integers(raw: Stored, original: PixelFormat, shift: Shift, target: PixelFormat) -> Stored:
    physical = raw.astype("f8") * original.bscale + original.bzero - shift
    if original.blank is not None:
        physical[raw == original.blank] = np.nan
    result = physical.astype(target.dtype)
    try:
        same = np.array_equal(_restore_integers(result, original, shift), raw)
    except PixelError:
        same = False
    if not same:
        raise PixelError(f"{original.name} pixels use more digits than {target.name} has: they could not be undone")
    return result


def _restore_integers(stored: Stored, original: PixelFormat, shift: Shift) -> Stored:
    steps = (stored.astype("f8") + shift - original.bzero) / original.bscale
    undefined = np.isnan(steps)
    if bool(undefined.any()):
        if original.blank is None:
            raise PixelError(f"undefined pixels (NaN) that {original.name} can't hold: changed by another program")
        steps[undefined] = original.blank
    nearest = np.rint(steps)
    info = np.iinfo(original.dtype)
    # (the largest int64 is not a float64: the comparison must be on the safe side)
    outside = (nearest < info.min) | (nearest >= float(info.max) + 1)
    if bool(np.any(outside | ~(np.abs(steps - nearest) < _TOO_FAR_FROM_A_STEP))):
        raise PixelError(f"pixels that were no {original.name} before: changed by another program")
    return nearest.astype(original.dtype)


def _keep_undefined(result: Stored, source: Stored) -> Stored:
    """NaN and infinity keep all their bits where the type is the same."""
    undefined = ~np.isfinite(source)
    if bool(undefined.any()):
        result[undefined] = source[undefined]
    return result
