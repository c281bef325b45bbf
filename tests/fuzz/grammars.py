"""What else a run reads, damaged: configuration, lists, skies, results, solutions and stores."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.settings import Settings, option_name

from .bases import Base
from .check import BrokenPromiseError, run_command

_WORDS = (
    *("match", "user", "mesh", "pooled", "plane", "true", "T", "nan", "inf", "-1", "0", "1e400", "9" * 40, "[]", "{}"),
    *('"', "'", "''", "\\u0000", "\x00", "\x1b[2J", "\xff", "a.fits", "b.fits", "a.fits[SCI,1]", "@list.txt", "-", "*"),
    *("~/x", "{stem}", "{stem", "a.fits[1]", "#", "=", "\n", " ", ",", "../a.fits", "http://[", "s3://x", "12.5"),
)
_IMAGES = ("a.fits", "b.fits")


def kept_files(folder: Path, base: Base) -> dict[str, bytes]:
    """Two images and whole files of every kind, made in an empty folder."""
    for name in _IMAGES:
        (folder / name).write_bytes(base.content)
    (folder / "config.toml").write_text('method = "match"\nnclip = 3\nlsigma = 3.5\njobs = 1\n')
    (folder / "list.txt").write_text("a.fits\nb.fits\n")
    (folder / "skies.txt").write_text("a.fits 1.5\nb.fits 2.5 # note\n")
    for args in (
        ["match", "--dry-run", "-o", "solution.fits", *_IMAGES],
        ["match", "--dry-run", "-o", "result.json", *_IMAGES],
        ["match", "--dry-run", "--store", "field.db", *_IMAGES],
    ):
        if (done := CliRunner().invoke(main, args)).exit_code:
            raise BrokenPromiseError(f"{args}: {done.stderr}")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_inputs(folder: Path, whole: dict[str, bytes], seed: int) -> int:
    """Damage one of the files, run a command that reads it, and say its exit code.

    Raises
    ------
    BrokenPromiseError
    """
    chance = random.Random(seed)
    name, commands = chance.choice(list(COMMANDS.items()))
    for other, content in whole.items():
        (folder / other).write_bytes(content)
    damage = _damaged_bytes if Path(name).suffix in {".fits", ".db"} else chance.choice((_damaged_bytes, _damaged_text))
    (folder / name).write_bytes(content := damage(whole[name], chance))
    before = {**whole, name: content}
    try:
        code = run_command([*chance.choice(commands)])
        changed = [image for image in _IMAGES if (folder / image).read_bytes() != before[image]]
        if changed and code:
            raise BrokenPromiseError(f"{name}: exit {code}, and {changed} changed")
    finally:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return code


COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "config.toml": (
        ("match", "--dry-run", "--config", "config.toml", *_IMAGES),
        ("undo", "--config", "config.toml", *_IMAGES),
        ("plan", "--config", "config.toml", *_IMAGES),
    ),
    "list.txt": (("match", "--dry-run", "@list.txt"), ("undo", "@list.txt")),
    "skies.txt": (("match", "--method", "user", "--skylist", "skies.txt", "--subtract", *_IMAGES),),
    "solution.fits": (
        ("apply", "solution.fits"),
        ("apply", "--subtract", "solution.fits"),
        ("export", "solution.fits", "--to", "swarp"),
        ("export", "solution.fits", "--to", "topcat"),
    ),
    "result.json": (("export", "result.json", "--to", "swarp"), ("export", "result.json", "--to", "topcat")),
    "field.db": (
        ("match", "--dry-run", "--store", "field.db", *_IMAGES),
        ("measure", "field.db"),
        ("solve", "field.db"),
    ),
}


def _damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 20))):
        if data:
            data[chance.randrange(len(data))] = chance.choice((0, 255, 39, 47, 10, chance.randrange(256)))
    return bytes(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data)


def _damaged_text(content: bytes, chance: random.Random) -> bytes:
    """Lines go, come twice, or get other words; settings of every name get values of every kind."""
    lines = content.decode("latin-1").split("\n")
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(lines))
        words = lines[at].split(" ")
        words[chance.randrange(len(words))] = chance.choice(_WORDS)
        key = option_name(chance.choice(fields(Settings)).name).removeprefix("--")
        new: tuple[Callable[[], str], ...] = (
            lambda words=words: " ".join(words),
            lambda at=at: lines[at] + chance.choice(_WORDS),
            lambda key=key: f"{key} = {chance.choice(_WORDS)}",
            lambda key=key: f'{key} = "{chance.choice(_WORDS)}"',
            str,
        )
        lines[at : at + chance.choice((0, 1))] = [chance.choice(new)()]
    return "\n".join(lines).encode("latin-1")


def undo_cards(chance: random.Random) -> bytes:
    """An undo card of the grammar of the ledger, with anything in its places."""
    mark = chance.choice(("*", "*", "-", "=", "!", "!", "+", "17", "?", ""))
    numbers = ("12.5", "-5e-324", "1e308", "1e999", "NaN", "Infinity", "1" + "0" * 400, "null", '"x"', "true", "[]", "")
    parts = ("", "[*,*,3]", "[1:10,1:5]", "[9:1,1:5]", "[1:999,*]", "[0:1,*]", "[", "x")
    skies = [f'[["{chance.choice(parts)}",{",".join(chance.choices(numbers, k=chance.randrange(12)))}]]' for _ in "ab"]
    words = {
        "shape": ("[20,24]", "[1]", "[0,0]", "[-1,5]", "[9999999999999999999,2,2]", '["x"]', "[" * 2000, "3"),
        "form": ("[-32,1.0,0.0]", "[16,1.0,32768.0]", "[99,1,0]", "[-32,NaN,0]", "[]", "{}"),
        "sky": (*skies, "[]", "[[]]", "[1]", "null"),
        "shift": (*skies, "[]", "[[]]", "[1]", "null"),
        "lost": numbers,
        "pixels": ('"0123456789abcdef"', '"gggggggggggggggg"', '""', "1"),
        "entries": ("0", "3", "-1", "9" * 30, '"x"'),
    }
    state = ",".join(f'"{name}":{chance.choice(values)}' for name, values in words.items() if chance.random() < 0.9)
    text = chance.choice(
        (
            f"{chance.choice(('subtracted', 'recorded', 'x', ''))} {{{state}}}",
            f"{chance.choice(('BITPIX', 'ZBITPIX', 'BKGLEVEL', 'BSCALE', 'BZERO', 'BLANK', 'NAXIS', 'end', ''))}",
            f"{chance.choice(('BITPIX', 'BSCALE', 'BLANK', 'CRVAL1', 'XTENSION')):8}= {chance.choice(_WORDS):>20}",
            chance.choice(_WORDS),
        )
    )
    return f"{mark} {text}".encode("latin-1").replace(b"\n", b" ")
