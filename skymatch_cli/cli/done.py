"""Summarise the changes that a run made to the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from skymatch_cli.errors import first_names, plural
from skymatch_cli.model import ImageInfo
from skymatch_cli.record.write import Action, WriteReport
from skymatch_cli.settings import Settings


def said_of_images(written: WriteReport, settings: Settings, unchanged: str) -> str:
    """Summarise the changes to the images in one sentence.

    Examples
    --------
    >>> said_of_images(WriteReport((Action.RECORDED, Action.NO_SKY), ("a.fits",)), Settings(), "")
    'recorded BKGLEVEL in 1 image (pixels unchanged), left 1 without a sky as it was; 1 file written'
    """
    words = {
        Action.RECORDED: "recorded " + " and ".join(written.keywords) + " in {} (pixels unchanged)",
        Action.SUBTRACTED: "subtracted the sky from {}",
        Action.UNDONE: "restored {}",
        Action.UNCHANGED: unchanged,
        Action.NO_SKY: "left {} without a sky as it was",
    }
    counts = Counter(written.actions)
    parts: list[str] = []
    for action, text in words.items():
        if n := counts[action]:
            alone = action in {Action.UNCHANGED, Action.NO_SKY} and bool(parts)
            parts.append(text.format(n if alone else plural(n, "image")))
    where = (
        "" if settings.output_dir is None or not written.files else f" to {settings.output_dir}, originals unchanged"
    )
    files = f"{plural(len(written.files), 'file')} written" if written.files else "no file was written"
    return f"{', '.join(parts)}; {files}{where}"


def floats_made(before: Iterable[ImageInfo], written: WriteReport) -> str:
    """Say which files of integers became floating point, and how much larger; "" if none did."""
    sizes: dict[str, tuple[int, int]] = {}
    targets = {Path(file).name: file for file in written.files}
    to_write = [info for info in before if not info.ref.read_only]
    for info, action in zip(to_write, written.actions, strict=True):
        source = info.source
        if action != Action.SUBTRACTED or source.original is not None or source.science.bitpix < 0:
            continue
        if (target := targets.get(Path(info.ref.path).name)) is not None:
            sizes.setdefault(info.ref.file, (source.science.state[0], Path(target).stat().st_size))
    if not sizes:
        return ""
    from rich.filesize import decimal

    old, new = (sum(size[k] for size in sizes.values()) for k in (0, 1))
    files = f"{plural(len(sizes), 'file')} ({first_names(list(sizes))})"
    return f"integer pixels became floating point in {files}: {decimal(old)} → {decimal(new)}"
