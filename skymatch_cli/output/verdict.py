"""How large the steps between overlapping images were and are, and how many overlaps a person should look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from skymatch_cli.model import LEAST_KEPT, FloatArray, ImageInfo, Measurements, Solution, Status, common_unit
from skymatch_cli.solve.diagnose import bad_fits
from skymatch_cli.solve.steps import LOOK_SIGMA, visible_step

# Loops that close to that, without a degree of freedom, are of the same pixels: shares of a difference, and of its
# error, which is what rounding, and weights of cells that differ, make of them.
_ROUNDING, _SETTLED = 1e-9, 0.01
_LEAST_NOISE = 0.1  # part of a variance that is noise of the pixels: below, errors are those of what differs


@dataclass(frozen=True, slots=True)
class Verdict:
    """Steps between overlapping images, in the unit of the images."""

    before: tuple[float, float]  # (largest, typical) absolute steps as the images are; typical is the median
    after: tuple[float, float]  # the same with their skies subtracted
    unit: str
    n_overlaps: int  # that were measured
    n_doubtful: int  # of these, with a residual that can be seen and is more than noise
    # whether a loop of overlaps, not all of the same pixels, leads back to an image: only then could they contradict
    checked: bool = field(default=True, compare=False)
    # whether the residuals together are what the errors allow; many small ones may not be, where none stands out
    fits: bool = field(default=True, compare=False)
    # largest error among overlaps that agree only because their errors are far larger than a step that is seen; 0: none
    large_error: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        steps = [f"{before:.3g} → {after:.2g}" for before, after in zip(self.before, self.after, strict=True)]
        unit = f" {self.unit}" if self.unit else ""
        if self.n_doubtful:
            judged = f"{self.n_doubtful} of {self.n_overlaps} overlaps want a look (-v lists the worst)"
        elif not self.fits:
            judged = "no overlap stands out, but together they disagree by more than their errors"
        elif self.checked:
            n = self.n_overlaps
            judged = f"all {n} overlaps agree within their errors" if n > 1 else "the overlap agrees within its error"
        else:
            judged = "no loop of overlaps checks them"
        if self.large_error and self.fits and not self.n_doubtful:
            judged += f", but errors are large: up to {self.large_error:.2g}{unit}"
        return f"steps between overlapping images: up to {steps[0]}{unit}, typically {steps[1]}; {judged}"


def find_verdict(
    infos: Sequence[ImageInfo], measurements: Measurements, solution: Solution, max_step: float | None = None
) -> Verdict | None:
    """Judge the steps that are left; None if no overlap was measured. Those beyond ``max_step`` count."""
    m = measurements
    used = (m.status == Status.OK) & np.isfinite(m.delta) & np.isfinite(solution.residual)
    if not used.any():
        return None
    factor, unit = common_unit(infos)
    residual = np.abs(np.where(used, solution.residual, 0.0))
    err = np.where(used, m.delta_err, 1.0)
    visible = used & (residual > visible_step(m, used))
    rounded = np.maximum(_ROUNDING * np.abs(np.where(used, m.delta, 0.0)), _SETTLED * err)
    not_closed = np.bincount(solution.component[m.a], residual > rounded, len(solution.dof)) > 0
    hiding = visible & (err > LOOK_SIGMA * visible_step(m, used, by_noise=True))
    doubtful = visible & (residual > LOOK_SIGMA * err)
    misfit = np.isin(solution.component[m.a], bad_fits(solution.chi2, solution.dof))
    if m.photometric is not None:  # errors that are large because the images vary within: no agreement
        noise = np.sqrt(m.photometric / np.where(m.weight > 0, m.weight, np.inf))
        misfit |= (m.photometric < _LEAST_NOISE) & (residual > LOOK_SIGMA * noise)
    if max_step is not None:
        doubtful |= residual / factor > max_step
    if solution.kept is not None:
        doubtful |= solution.kept < LEAST_KEPT
    return Verdict(
        before=_largest_and_typical(np.abs(m.delta[used]) / factor),
        after=_largest_and_typical(residual[used] / factor),
        unit=unit,
        n_overlaps=int(np.count_nonzero(used)),
        n_doubtful=int(np.count_nonzero(doubtful & used)),
        checked=solution.n_loops is None or bool((solution.n_loops[(solution.dof > 0) | not_closed]).any()),
        fits=not bool((misfit & visible).any()),
        large_error=float(np.where(hiding, err, 0.0).max()) / factor,
    )


def _largest_and_typical(steps: FloatArray) -> tuple[float, float]:
    return float(steps.max()), float(np.median(steps))
