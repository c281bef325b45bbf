"""Names of the DQ flags of JWST and Roman images.

The bits are those of the public definitions: JWST ``stdatamodels.jwst.datamodels.dqflags.pixel``
(stdatamodels 6.0), Roman ``roman_datamodels.dqflags.pixel`` (1.2).
"""

from __future__ import annotations

_BOTH = {
    "GOOD": None,
    "DO_NOT_USE": 0,
    "SATURATED": 1,
    "JUMP_DET": 2,
    "DROPOUT": 3,
    "PERSISTENCE": 5,
    "AD_FLOOR": 6,
    "NON_SCIENCE": 9,
    "DEAD": 10,
    "HOT": 11,
    "WARM": 12,
    "LOW_QE": 13,
    "TELEGRAPH": 15,
    "NONLINEAR": 16,
    "BAD_REF_PIXEL": 17,
    "NO_FLAT_FIELD": 18,
    "NO_GAIN_VALUE": 19,
    "NO_LIN_CORR": 20,
    "NO_SAT_CHECK": 21,
    "UNRELIABLE_BIAS": 22,
    "UNRELIABLE_DARK": 23,
    "UNRELIABLE_SLOPE": 24,
    "UNRELIABLE_FLAT": 25,
    "OTHER_BAD_PIXEL": 30,
    "REFERENCE_PIXEL": 31,
}
_JWST = {
    "OUTLIER": 4,
    "CHARGELOSS": 7,
    "RESERVED": 8,
    "RC": 14,
    "OPEN": 26,
    "ADJ_OPEN": 27,
    "FLUX_ESTIMATED": 28,
    "MSA_FAILED_OPEN": 29,
}
_ROMAN = {
    "GW_AFFECTED_DATA": 4,
    "OUTLIER": 7,
    "UNRELIABLE_ERROR": 8,
    "RESERVED_5": 26,
    "RESERVED_6": 27,
    "UNRELIABLE_RESET": 28,
    "RESERVED_7": 29,
}


def _values(bits: dict[str, int | None]) -> dict[str, int]:
    return {name: 0 if bit is None else 1 << bit for name, bit in bits.items()}


JWST_FLAGS = _values({**_BOTH, **_JWST})
ROMAN_FLAGS = _values({**_BOTH, **_ROMAN})
COMMON_FLAGS = _values(_BOTH)
FLAGS = {"JWST": JWST_FLAGS, "ROMAN": ROMAN_FLAGS}
"""Flag values by TELESCOP."""
