"""Data quality: which flags exclude a pixel, and the names of the flags of JWST and Roman.

The bits are those of the public definitions: JWST ``stdatamodels.jwst.datamodels.dqflags.pixel``
(stdatamodels 6.0), Roman ``roman_datamodels.dqflags.pixel`` (1.2).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from skymatch_cli.errors import InputError, UsageError

# The bits from 0 on.
_JWST = (
    *("DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT", "OUTLIER", "PERSISTENCE", "AD_FLOOR", "CHARGELOSS"),
    *("RESERVED", "NON_SCIENCE", "DEAD", "HOT", "WARM", "LOW_QE", "RC", "TELEGRAPH"),
    *("NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD", "NO_GAIN_VALUE", "NO_LIN_CORR", "NO_SAT_CHECK"),
    *("UNRELIABLE_BIAS", "UNRELIABLE_DARK", "UNRELIABLE_SLOPE", "UNRELIABLE_FLAT", "OPEN", "ADJ_OPEN"),
    *("FLUX_ESTIMATED", "MSA_FAILED_OPEN", "OTHER_BAD_PIXEL", "REFERENCE_PIXEL"),
)
_ROMAN = {  # where its bits are others; it has no bit 14
    **{"GW_AFFECTED_DATA": 4, "OUTLIER": 7, "UNRELIABLE_ERROR": 8, "RESERVED_5": 26, "RESERVED_6": 27},
    **{"UNRELIABLE_RESET": 28, "RESERVED_7": 29},
}

JWST_FLAGS = {"GOOD": 0} | {name: 1 << bit for bit, name in enumerate(_JWST)}
COMMON_FLAGS = {
    name: value for name, value in JWST_FLAGS.items() if value.bit_length() - 1 not in {14, *_ROMAN.values()}
}
ROMAN_FLAGS = COMMON_FLAGS | {name: 1 << bit for name, bit in _ROMAN.items()}
FLAGS = {"JWST": JWST_FLAGS, "ROMAN": ROMAN_FLAGS}
"""Flag values by TELESCOP."""


NO_FLAG = 0

_AUTO = {"JWST": "~DO_NOT_USE+NON_SCIENCE", "ROMAN": "~DO_NOT_USE"}
_AUTO_ELSEWHERE = "0"
_IGNORE_DQ = frozenset({"", "NONE", "INDEF"})
_SEPARATORS = "+,|"
_SIMILAR = 3
_MOST_DIGITS = 20  # of 64 bits


def check_dqbits(dqbits: str) -> None:
    """Raise UsageError where ``--dqbits`` can't be right for any image."""
    if dqbits.strip().lower() != "auto":
        _parse(dqbits, {**ROMAN_FLAGS, **JWST_FLAGS})


def bad_flags(dqbits: str, telescope: str, where: str) -> int:
    """Return the DQ bits that exclude a pixel: -1 (all) where any flag is bad, `NO_FLAG` where DQ is ignored.

    UsageError if the text can't be understood; InputError if a name means different bits on JWST and on Roman, and the
    image is of neither.

    ``dqbits``: ``auto``, ``none``, or the syntax of ``astropy.nddata.bitmask.interpret_bit_flags``: integers or names
    in a ``+``, ``,`` or ``|`` list are good bits; a leading ``~`` makes them the bad ones. ``telescope`` is TELESCOP of
    the image, which decides what ``auto`` and the names mean.
    """
    telescope = telescope.strip().upper()
    text = _AUTO.get(telescope, _AUTO_ELSEWHERE) if dqbits.strip().lower() == "auto" else dqbits
    flags = FLAGS.get(telescope)
    if flags is not None:
        return _parse(text, flags)
    ambiguous = [name for name in _words(text) if name in {*JWST_FLAGS, *ROMAN_FLAGS} - {*COMMON_FLAGS}]
    if ambiguous:
        raise InputError.at(
            where,
            f"the DQ flag {ambiguous[0]} is known for JWST and Roman only, and TELESCOP is {telescope or 'missing'}",
            "give --dqbits as numbers",
        )
    return _parse(text, COMMON_FLAGS)


def _words(text: str) -> list[str]:
    return [word.strip().upper() for word in re.split(r"[+,|~()]", text) if word.strip()]


def _parse(text: str, flags: Mapping[str, int]) -> int:
    """`bad_flags` for one table of names."""
    body = text.strip()
    if body.upper() in _IGNORE_DQ:
        return NO_FLAG
    flip = body.startswith("~")
    body = body[1:].strip() if flip else body
    while body.startswith("(") and body.endswith(")"):
        body = body[1:-1].strip()
    used = [separator for separator in _SEPARATORS if separator in body]
    if len(used) > 1:
        raise UsageError(f"--dqbits {text}: mixes {' and '.join(used)}", "use one kind of separator")
    words = [word.strip() for word in body.split(used[0])] if used else [body]
    good = 0
    for word in words:
        good |= _flag(word, text, flags, single=len(words) == 1)
    return good if flip else ~good


def _flag(word: str, text: str, flags: Mapping[str, int], *, single: bool) -> int:
    """The value of one flag; in a list every number must be a single bit."""
    if word.isdecimal() and len(word) <= _MOST_DIGITS:
        value = int(word)
        if not single and value.bit_count() != 1:
            raise UsageError(
                f"--dqbits {text}: {word} is not a power of two", "list single bits, or give their sum alone"
            )
        return value
    if word.upper() not in flags:
        near = difflib.get_close_matches(word.upper(), flags, _SIMILAR, 0.7)
        hint = f"did you mean {', '.join(near)}?" if near else "give numbers, or names of JWST and Roman flags"
        raise UsageError(f"--dqbits {text}: there is no DQ flag {word!r}", hint)
    return flags[word.upper()]
