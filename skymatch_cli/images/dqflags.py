"""Names of the DQ flags of JWST and Roman images.

The bits are those of the public definitions: JWST ``stdatamodels.jwst.datamodels.dqflags.pixel``
(stdatamodels 6.0), Roman ``roman_datamodels.dqflags.pixel`` (1.2).
"""

from __future__ import annotations

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
