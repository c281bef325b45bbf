"""Data quality: which flags exclude a pixel, and the names of the flags of JWST and Roman.

The bits are those of the public definitions: JWST ``stdatamodels.jwst.datamodels.dqflags.pixel``
(stdatamodels 6.0), Roman ``roman_datamodels.dqflags.pixel`` (1.2).
"""

from __future__ import annotations

import difflib
import re
import warnings
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


NO_FLAG, _ANY_FLAG = 0, -1

_AUTO = {"JWST": JWST_FLAGS["DO_NOT_USE"] | JWST_FLAGS["NON_SCIENCE"], "ROMAN": ROMAN_FLAGS["DO_NOT_USE"]}
_IGNORE_DQ = frozenset({"", "NONE", "INDEF"})
_WORD = re.compile(r"\w+")
_SYNTAX = re.compile(r"[\w\s~()+,|]*")
_SIMILAR = 3
_MOST_DIGITS = 20  # of 64 bits


def check_dqbits(dqbits: str) -> None:
    """Raise UsageError where ``--dqbits`` can't be right for any image."""
    if dqbits.strip().lower() != "auto":
        _parse(dqbits, {**ROMAN_FLAGS, **JWST_FLAGS})


def bad_flags(dqbits: str, telescope: str, where: str) -> int:
    """Return the DQ bits that exclude a pixel: -1 where any flag is bad, `NO_FLAG` where DQ is ignored.

    UsageError if the text can't be understood; InputError if a name means different bits on JWST and on Roman, and the
    image is of neither.

    ``dqbits``: ``auto``, ``none``, or the syntax of ``astropy.nddata.bitmask.interpret_bit_flags``: integers or names
    in a ``+``, ``,`` or ``|`` list are good bits; a leading ``~`` makes them the bad ones. ``telescope`` is TELESCOP of
    the image, which decides what ``auto`` and the names mean.
    """
    telescope = telescope.strip().upper()
    if dqbits.strip().lower() == "auto":
        return _AUTO.get(telescope, _ANY_FLAG)
    if (flags := FLAGS.get(telescope)) is not None:
        return _parse(dqbits, flags)
    names = [name.upper() for name in _WORD.findall(dqbits)]
    ambiguous = [name for name in names if name in {*JWST_FLAGS, *ROMAN_FLAGS} - {*COMMON_FLAGS}]
    if ambiguous:
        raise InputError.at(
            where,
            f"the DQ flag {ambiguous[0]} is known for JWST and Roman only, and TELESCOP is {telescope or 'missing'}",
            "give --dqbits as numbers",
        )
    return _parse(dqbits, COMMON_FLAGS)


def _parse(text: str, flags: Mapping[str, int]) -> int:
    """`bad_flags` for one table of names."""
    if text.strip().upper() in _IGNORE_DQ:
        return NO_FLAG
    from astropy.nddata.bitmask import interpret_bit_flags

    def value(name: re.Match[str]) -> str:
        if name[0].isdecimal() and len(name[0]) <= _MOST_DIGITS:
            return name[0]
        if (found := flags.get(name[0].upper())) is not None:
            return str(found)
        near = difflib.get_close_matches(name[0].upper(), flags, _SIMILAR, 0.7)
        hint = f"did you mean {', '.join(near)}?" if near else "give numbers, or names of JWST and Roman flags"
        raise UsageError(f"--dqbits {text}: there is no DQ flag {name[0]!r}", hint)

    if not _SYNTAX.fullmatch(text):
        raise UsageError(f"--dqbits {text}: is not a list of flags", "such as 4,8, ~DO_NOT_USE or ~(1+512)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of flags that are named twice
            return ~int(interpret_bit_flags(_WORD.sub(value, text)))
    except ValueError as error:
        raise UsageError(f"--dqbits {text}: {error}", "list single bits, with one kind of separator") from None
