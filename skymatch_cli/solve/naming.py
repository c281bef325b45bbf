"""Names and amounts in the words of a warning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, ImageInfo, IntArray, Measurements, common_unit

NAMED = 5  # sets, images or pairs that one line names


def labels(images: Sequence[ImageInfo], some: Sequence[int]) -> list[str]:
    """Names of some images; planes of cubes as ranges, once for all cubes in which they are the same."""
    cubes: dict[str, list[int]] = {}
    for i in some:
        if (plane := images[i].ref.part.plane) is not None:
            cubes.setdefault(images[i].ref.hdu_label, []).append(plane + 1)
    alike: dict[str, list[str]] = {}
    for cube, planes in cubes.items():
        alike.setdefault(_ranges(planes), []).append(cube)
    n_cubes = len({info.ref.hdu_label for info in images if info.ref.part.plane is not None})
    whole = f"all {n_cubes} cubes" if n_cubes > 1 else ""
    of = {planes: whole if whole and len(own) == n_cubes else few(own, ", ") for planes, own in alike.items()}
    flat = [images[i].ref.label for i in some if images[i].ref.part.plane is None]
    return [f"planes {planes} of {own}" for planes, own in of.items()] + flat


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as ranges: 1-3, 7."""
    ends = [k for k, n in enumerate(numbers) if k + 1 == len(numbers) or numbers[k + 1] != n + 1]
    starts = [0, *(k + 1 for k in ends[:-1])]
    runs = ((numbers[a], numbers[b]) for a, b in zip(starts, ends, strict=True))
    return ", ".join(f"{low}-{high}" if high > low else f"{low}" for low, high in runs)


def in_unit(images: Sequence[ImageInfo], amplitude: float) -> tuple[float | None, str]:
    """An amplitude in the comparison unit as one in the unit of the images; None for one that is not known."""
    factor, unit = common_unit(images)
    return (float(amplitude) / factor if np.isfinite(amplitude) else None), unit


def said(amount: tuple[float | None, str]) -> str:
    """An amplitude with its unit, as a warning says it."""
    size, unit = amount
    return "an unknown amount" if size is None else f"{size:.3g}{after_number(unit)}"


def after_number(unit: str) -> str:
    """A unit as it follows a number."""
    return f" {unit}" if unit else ""


def largest_first(size: npt.NDArray[np.floating], some: BoolArray) -> IntArray:
    """The numbers of ``some`` (n,), those of largest size first; of equal ones in their order."""
    found = np.flatnonzero(some)
    return found[np.argsort(-size[found], kind="stable")]


def pair_label(images: Sequence[ImageInfo], measurements: Measurements, e: int) -> str:
    """The names of the two images of a pair."""
    return f"{images[measurements.a[e]].ref.label} - {images[measurements.b[e]].ref.label}"


def few(names: Sequence[str], separator: str, n: int | None = None) -> str:
    """The first names, and how many more there are of ``n``."""
    n = len(names) if n is None else n
    more = f"{separator}… {n - NAMED} more" if n > NAMED else ""
    return separator.join(names[:NAMED]) + more
