"""Make the picture and the terminal output of README.md: ``make readme``.

The frames are those of ``skymatch demo``. The picture is their mosaic before and after, as the HTML report draws it;
the output is that of the program on a terminal of 80 columns.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import skymatch_cli
from skymatch_cli.report.mosaic import stretches
from skymatch_cli.report.quicklook import View, quicklooks
from skymatch_cli.report.scene import frame_around, scene
from skymatch_cli.settings import Settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from terminal import on_terminal  # noqa: E402

COMMAND = "skymatch match --dry-run frame_0[0-5].fits"
SIDE, GAP = 300, 8  # pixels of the longer side of a picture, and between the two
GREYS = 48  # as many as are seen; fewer make a small file


def picture(folder: Path) -> Image.Image:
    """Draw the mosaic of the images in a folder, before and after, side by side."""
    found = skymatch_cli.match(f"{folder}/*.fits", dry_run=True)
    place = scene(found.infos)
    (look,) = quicklooks(place, found.solution.sky, Settings(), [View(frame_around(place.rings, SIDE))])
    pictures = []
    for values, stretch in zip((look.before, look.after), stretches(look), strict=True):
        grey = stretch.grey(np.nan_to_num(values, nan=stretch.black))
        grey = (grey // (256 // GREYS)) * np.uint8(256 // GREYS)
        pictures.append(np.dstack([grey, np.isfinite(values) * np.uint8(255)])[::-1])
    gap = np.zeros((len(pictures[0]), GAP, 2), np.uint8)
    return Image.fromarray(np.hstack([pictures[0], gap, pictures[1]]), "LA")


def main() -> None:
    """Write the picture, and put the output into README.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        on_terminal("skymatch demo mosaic", folder)
        picture(folder / "mosaic").save(ROOT / "docs" / "_static" / "before-after.png", optimize=True)
        shown, _ = on_terminal(COMMAND, folder / "mosaic")
    shown = shown.partition("\nskymatch: dry run")[0]
    readme = ROOT / "README.md"
    block = f"```console\n$ {COMMAND}\n{shown}\n```"
    text, n = re.subn(r"```console\n.*?\n```", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    if n != 1:
        raise SystemExit("README.md has no block, or more than one, that begins with ```console")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
