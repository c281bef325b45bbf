"""Check that pixels survive the subtraction of a sky and its undo, before the first file is changed.

A float loses digits when a sky that is large beside it is subtracted. What may be lost is a thousandth of the image's
own noise: enough that nobody can measure it. Where 32 bits lose more, the image gets 64; where those do, it is refused.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.errors import InputError, Problem
from skymatch_cli.images.formats.files import is_remote
from skymatch_cli.images.formats.fitsfile import read_structure
from skymatch_cli.images.formats.pixelformat import PixelError
from skymatch_cli.images.formats.source import Source, open_source
from skymatch_cli.images.ledger import Record
from skymatch_cli.images.pixels import read_pixels
from skymatch_cli.images.skystate import OURS_ALONE, read_state
from skymatch_cli.images.undocards import Written
from skymatch_cli.model import BoolArray, Container, FloatArray, ImageInfo, PixelArray, PixelFormat
from skymatch_cli.record.checksum import PixelDigest
from skymatch_cli.record.rewrite import HduEdit, PixelEdit
from skymatch_cli.run.tasks import run
from skymatch_cli.settings import Settings

FRACTION_OF_NOISE = 1e-3
"""Largest error of a written pixel, in units of the noise of its image."""

MOST_RANGES = 100
"""A sky larger than the largest pixel by this factor is a mistake."""

_ROUNDED = 100  # errors over a sky, beyond which the sky is no more than their rounding

_FEW = 1e-3  # of the pixels, and two, that may have any value
_BAND_PIXELS = 2**22
_SAMPLED_ROWS = 256  # in which the noise is measured
_TO_SIGMA = 1.4826 / math.sqrt(2)  # median of |differences of neighbours| to the standard deviation of a pixel


@dataclass(frozen=True, slots=True)
class PixelFacts:
    """Facts of the pixels: the format that preserves them, the loss in it, and the digest of the written pixels."""

    form: PixelFormat
    lost: float
    digest: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Scale of an image's good pixels: the largest absolute value, and the noise."""

    largest: float
    noise: float


def examine(
    source: Source, index: int, edit: HduEdit, *, where: str, infos: Sequence[ImageInfo], settings: Settings
) -> PixelFacts:
    """Read the pixels of an image to be changed, and find their format, loss and digest.

    InputError if another program changed pixels that this one had written; PixelError if no format keeps them.
    """
    hdu = source.file.hdus[index]
    form = PixelFormat(bitpix=hdu.bitpix)
    pixels = edit.pixels or PixelEdit(original=form, stored=form, result=form, shape=hdu.frame)
    noise = math.inf  # beyond any loss, where there is nothing to lose
    if edit.record is not None and (edit.pixels is not None or edit.expected is None):
        scale = _scale_of_hdu(source, index, pixels, infos, settings)
        _check_size(edit.record, scale, pixels.shape)
        if not (pixels.changes_nothing or pixels.original.is_integer):
            noise = scale.noise
    before = 0.0
    if edit.expected is not None:
        check_digest(source, index, edit.expected, where)
        before = edit.expected.lost
    forms = [pixels.result]
    wider = source.file.container is not Container.ASDF  # Roman's schema knows float32 alone
    if wider and pixels.result.bitpix == -32:
        forms.append(replace(pixels.result, bitpix=-64))
    for result in forms:
        facts = _written(source, index, replace(pixels, result=result))
        lost = before + facts.lost
        if lost <= FRACTION_OF_NOISE * noise:
            return replace(facts, lost=lost)
    raise PixelError(
        f"float{-forms[-1].bitpix} pixels minus this sky could not be restored to within a thousandth of their noise "
        f"({noise:.3g})"
    )


def check_digest(source: Source, index: int, left: Written, where: str) -> None:
    """Refuse an image whose pixels changed since this program wrote them (InputError)."""
    digest = PixelDigest()
    for _, raw in source.stored_pixels(index, left.form):
        digest.update(raw.tobytes())
    if digest.text() != left.digest:
        what = "its pixels are not those that skymatch wrote: changed by another program since"
        raise InputError.at(where, what, OURS_ALONE)


def changed_pixels(infos: Sequence[ImageInfo], settings: Settings) -> list[tuple[Problem, ...]]:
    """Return, for each image, the problems of pixels that another program changed after a sky was subtracted.

    Matching adds that sky back: to pixels of another program it would be a step that nobody can explain.
    """

    def problems(info: ImageInfo) -> tuple[Problem, ...]:
        try:
            with open_source(read_structure(info.ref.path, info.ref.label)) as source:
                state = read_state(source, info.ref, settings.sky_keyword)
                if state.written is not None and state.has_our_pixels:
                    check_digest(source, info.ref.hdu, state.written, info.ref.label)
        except InputError as error:
            return error.problems
        except (OSError, EOFError, zlib.error) as error:
            return (Problem(info.ref.label, f"can't be read: {error}", "fetch the file again"),)
        return ()

    here = {(i.ref.path, i.ref.hdu): i for i in reversed(infos) if not is_remote(i.ref.path)}
    of_hdu = dict(zip(here, run(problems, list(here.values()), jobs=settings.jobs), strict=True))
    return [of_hdu.get((info.ref.path, info.ref.hdu), ()) for info in infos]


def _written(source: Source, index: int, edit: PixelEdit) -> PixelFacts:
    """Find the facts for one format, with the loss of this step."""
    digest, lost = PixelDigest(), 0.0
    for first, raw in source.stored_pixels(index, edit.stored):
        original = edit.originals(raw, first)
        result = edit.subtracted(original, first)
        lost = max(lost, edit.loss(original, result, first))
        digest.update(result.tobytes())
    return PixelFacts(edit.result, lost, digest.text())


def _check_size(record: Record, scale: Scale, shape: tuple[int, int]) -> None:
    """Refuse a sky that is, or whose error is, far larger than the pixels of its image."""
    sky = record.written.sky.largest(shape)
    if not scale.largest:
        return
    error = max((e for e in record.errors if not math.isnan(e)), default=0.0)
    if max(sky, error) <= MOST_RANGES * scale.largest:
        return
    if error > _ROUNDED * sky:
        raise PixelError(
            f"its sky is uncertain by {error:.4g} and its largest pixel is {scale.largest:.4g}: "
            "an image in the list is broken or in another unit"
        )
    raise PixelError(
        f"a sky of {sky:.4g} is impossible where the largest pixel is {scale.largest:.4g}: "
        "a wrong unit, a typing error, or a broken image in the list"
    )


def _scale_of_hdu(source: Source, index: int, edit: PixelEdit, infos: Sequence[ImageInfo], settings: Settings) -> Scale:
    """Find the scale of an image with all its sections; of a cube that of all planes, with the least noise of one."""
    is_cube = infos and infos[0].ref.part.plane is not None
    parts = [[info] for info in infos] if is_cube else [infos]
    scales = [_measure_scale(source, index, edit, own, settings) for own in parts]
    known = [one for one in scales if one.largest > 0] or scales  # the planes that are not empty
    return Scale(max(one.largest for one in known), min(one.noise for one in known))


def _measure_scale(
    source: Source, index: int, edit: PixelEdit, infos: Sequence[ImageInfo], settings: Settings
) -> Scale:
    """Largest absolute value and noise of the good pixels of an image, from some of its rows.

    Values that are far beyond nearly all others, such as a hot pixel, say nothing about the image and are left out.
    The noise is that of differences of neighbours in a row, without those that are equal: of values on a lattice it is
    hardly below a step, of a frame with padding that of the rest. Without any difference it is the rounding of the
    largest value.
    """
    sizes, differences = [np.zeros(1)], []
    step = max(1, edit.shape[0] // _SAMPLED_ROWS)
    for data, good in _bands(source, index, edit, infos, settings):
        rows, use = data[::step].astype("f8"), good[::step]
        with np.errstate(invalid="ignore", over="ignore"):
            sizes.append(np.abs(rows[use]))
            apart = np.abs(rows[:, 1:] - rows[:, :-1])
        differences.append(apart[use[:, 1:] & use[:, :-1] & (apart > 0)])
    largest = _largest(np.concatenate(sizes))
    found = np.concatenate(differences) if differences else np.zeros(0)
    if found.size:
        return Scale(largest, float(np.median(found)) * _TO_SIGMA)
    precise = np.finfo("f4" if edit.original.bitpix == -32 else "f8").eps
    return Scale(largest, largest * float(precise) / FRACTION_OF_NOISE)


def _largest(sizes: FloatArray) -> float:
    """Find the largest of absolute values, but for a few that are far beyond all others."""
    few = max(2, int(_FEW * len(sizes)))
    usual = float(np.partition(sizes, -few - 1)[-few - 1]) if len(sizes) > few else 0.0
    return float(np.max(sizes, where=(sizes <= MOST_RANGES * usual) | (usual == 0), initial=0.0))


def _bands(
    source: Source, index: int, edit: PixelEdit, infos: Sequence[ImageInfo], settings: Settings
) -> Iterator[tuple[PixelArray, BoolArray]]:
    """Yield original pixels and which are good, (rows, nx), band by band, for all known sections of the image."""
    for info in infos:
        ny, nx = info.shape
        plain = info.source.science.container is Container.PLAIN and not info.source.science.tiled
        rows = max(1, _BAND_PIXELS // nx) if plain else ny
        for start in range(0, ny, rows):
            pixels = read_pixels(info, settings, rows=(start, min(ny, start + rows)))
            yield pixels.data, pixels.good
    if infos:
        return
    form = edit.original
    for first, raw in source.stored_pixels(index, edit.stored):
        original = edit.originals(raw, first)
        good = np.isfinite(original) if not form.is_integer else original != form.blank
        with np.errstate(invalid="ignore", over="ignore"):
            yield (original.astype("f8") * form.bscale + form.bzero)[None], np.asarray(good)[None]
