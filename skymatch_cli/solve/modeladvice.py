"""Warnings about models beyond a constant: what the overlaps determine, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.choices import Model, WarningName
from skymatch_cli.model import BoolArray, FloatArray, ImageInfo, IntArray, SkyWarning
from skymatch_cli.solve.naming import NAMED, few, in_unit, said

_MAX_LOSS = 10.0  # errors of planes over those of constants, beyond which tilts are weak
_NEEDLESS = 1.5  # errors over those of a lower degree that fits as well, from which it is told


def weak_tilts(loss: FloatArray) -> tuple[SkyWarning, ...]:
    """Warn of components whose tilts are weakly determined; ``loss`` (C,): errors over those without tilts."""
    weak = np.flatnonzero(loss > _MAX_LOSS)[:NAMED]
    texts = (
        f"component {c}: its overlaps hardly determine tilts: errors are {loss[c]:.0f} times those of --model constant"
        for c in weak
    )
    return tuple(SkyWarning(WarningName.WEAK_TILTS, text) for text in texts)


def lower_degrees(
    images: Sequence[ImageInfo], degree: IntArray, component: IntArray, most: int
) -> tuple[SkyWarning, ...]:
    """Warn of images whose overlaps are too small for the degree ``most``; ``degree``, ``component`` (N,)."""
    connected = np.bincount(component)[component] > 1
    low = np.flatnonzero(connected & (degree < most))
    if not len(low):
        return ()
    names = [f"{images[i].ref.label} (degree {degree[i]})" for i in low[:NAMED]]
    text = f"overlaps too small for degree {most}; a lower degree is used in {few(names, ', ', len(low))}"
    return (SkyWarning(WarningName.WEAK_TILTS, text),)


def needless_degrees(simpler: IntArray, spared: FloatArray, most: int) -> tuple[SkyWarning, ...]:
    """Warn of components that a lower degree than ``most`` fits as well, with smaller errors (see `FittedPlanes`)."""
    warnings, models = [], {model.degree: model for model in Model if model != Model.AUTO}
    for degree in range(most):
        mine = np.flatnonzero((simpler == degree) & (spared * _NEEDLESS < 1))
        if len(mine):
            times = 1 / spared[mine]
            components = f"component{'s' if len(mine) > 1 else ''} {few(list(map(str, mine[:NAMED])), ', ', len(mine))}"
            much = f"{times.min():.1f} to {times.max():.1f}" if len(mine) > 1 else f"{times[0]:.1f}"
            text = f"{components}: --model {models[degree]} fits as well, with errors smaller by a factor of {much}"
            warnings.append(SkyWarning(WarningName.NEEDLESS_DEGREE, text))
    return tuple(warnings)


def common_curvatures(images: Sequence[ImageInfo], held: BoolArray, curved: FloatArray) -> tuple[SkyWarning, ...]:
    """Warn that tilts look like a curvature that all frames have in common, and how the fit treats it.

    ``held`` (C,): components in which it was taken off; ``curved`` (C,): by what levels change, in comparison units,
    NaN where there are too few images to tell one from the other.
    """
    warnings = []
    for c in np.flatnonzero(held)[:NAMED]:
        amount = in_unit(images, curved[c])
        text = (
            f"component {c}: the tilts follow the positions of the images, as from a curvature common to all "
            f"frames; this curvature was set to 0, which changes levels by up to {said(amount)}"
        )
        warnings.append(SkyWarning(WarningName.CURVATURE, text, *amount))
    for c in np.flatnonzero(np.isnan(curved))[:NAMED]:
        text = f"component {c}: too few images to tell tilts from a curvature common to all frames"
        warnings.append(SkyWarning(WarningName.CURVATURE, text))
    return tuple(warnings)
