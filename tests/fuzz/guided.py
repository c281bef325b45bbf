"""Coverage-guided fuzzing of the reader, the undo cards and the store: ``python -m tests.fuzz.guided --minutes 60``.

Needs the package atheris (Linux, CPython). A case is a file; what must hold is that every refusal is an error of this
program, with its one line. A case that breaks this is left in the current folder as ``crash-*``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["skymatch_cli.images", "skymatch_cli.record", "skymatch_cli.store"]):
    from skymatch_cli.errors import SkymatchError
    from skymatch_cli.images.formats.fitsfile import read_structure
    from skymatch_cli.images.formats.source import open_source
    from skymatch_cli.model import ImageRef
    from skymatch_cli.record.undoedits import undo_edits
    from skymatch_cli.store.store import Store

from .bases import own
from .grammars import kept_files

_SQLITE = b"SQLite format 3"


def try_file(content: bytes) -> None:
    """Read a file as a store or as images with all that is known of their skies."""
    path = Path("case.fits")
    path.write_bytes(content)
    try:
        if content.startswith(_SQLITE):
            with Store(str(path)) as store:
                tuple(store.plan().infos)
            return
        file = read_structure(str(path), "case.fits")
        with open_source(file) as source:
            for hdu in file.hdus:
                if hdu.is_image:
                    undo_edits(source, [ImageRef("case.fits", str(path), hdu.index)])
                    undo_edits(source, [ImageRef("case.fits", str(path), hdu.index)], from_keyword=True)
    except (SkymatchError, EOFError):
        return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as work:
        here = Path.cwd()
        bases = own(Path(work))
        for base in bases:
            Path(corpus, base.name.replace(" ", "-")).write_bytes(base.content)
        import os

        os.chdir(work)
        Path(corpus, "store").write_bytes(kept_files(Path(work), bases[0])["field.db"])
        options = [
            f"-max_total_time={int(60 * minutes)}",
            "-max_len=60000",
            "-rss_limit_mb=4096",
            f"-artifact_prefix={here}/",
            corpus,
        ]
        atheris.Setup([sys.argv[0], *options], try_file)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
