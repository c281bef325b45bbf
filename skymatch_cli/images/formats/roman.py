"""Roman images (ASDF, layout of roman_datamodels) as FITS files: read through a view, written by its headers.

To the rest of the program such a file is FITS: a primary HDU made of ``roman.data`` and of what the program asks
of ``roman.meta``, and a DQ extension made of ``roman.dq``. Only the bytes that are read are made. What the program
changes in that header goes back to ``roman.meta.background``, in the words of its schema (see `schema_method`); its
other cards are kept in ``roman.skymatch_cli``, where `undo` finds them, also after roman_datamodels has opened and
saved the file. Needs the extra ``gwcs``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Any, cast

from skymatch_cli.choices import METHOD_IN_PIPELINES, Method
from skymatch_cli.errors import InputError, reason
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.asdffile import HINT, opened_asdf
from skymatch_cli.images.formats.files import open_file
from skymatch_cli.images.formats.memory import FitsView
from skymatch_cli.images.skycards import LEVEL, METHOD, SUBTRACTED

OURS = "skymatch_cli"
"""The node of ``roman`` for what ``meta.background`` can't hold: our other cards, and the earlier values."""
BACKGROUND = {"level": LEVEL, "method": METHOD, "subtracted": SUBTRACTED}
_NO_METHOD = "None"
_SCHEMA_METHODS = METHOD_IN_PIPELINES | {str(Method.USER): _NO_METHOD}
_OUR_METHODS = {word: method for method, word in _SCHEMA_METHODS.items() if word != _NO_METHOD}
_DEFAULT_UNIT = "DN/s"  # of level 2 images
_BITPIX = {"f4": -32, "f8": -64}
_META = {
    **{"DETECTOR": "instrument.detector", "FILTER": "instrument.optical_element"},
    **{"EXPTIME": "exposure.exposure_time", "OBS_ID": "observation.observation_id"},
    **{"PROGRAM": "observation.program", "EXECPLAN": "observation.execution_plan", "PASS": "observation.pass"},
    **{"SEGMENT": "observation.segment", "OBSERVTN": "observation.observation", "VISIT": "observation.visit"},
    **{"EXPOSURE": "observation.exposure"},
}


def open_as_fits(path: str) -> IO[bytes]:
    """Open a Roman image as a FITS file, for reading and seeking; OSError if it is not one."""
    stack = ExitStack()
    try:
        tree = stack.enter_context(opened_asdf(stack.enter_context(open_file(path))))
        return cast("IO[bytes]", FitsView(_parts(tree.tree), stack))
    except BaseException as error:
        stack.close()
        if isinstance(error, ImportError) or (isinstance(error, ValueError) and "compression type" in str(error)):
            what = f"holds arrays that can't be unpacked: {reason(error)}"
            raise InputError.at(path, what, f"{HINT}; for other compressions: pip install asdf-compression") from error
        if isinstance(error, Exception) and not isinstance(error, InputError | OSError):
            raise OSError(f"it is no Roman image: {reason(error)}") from error
        raise


def schema_method(method: str) -> str:
    """Return the method in the words of Roman's schema, which has none for ``user``; other words stay as they are."""
    return _SCHEMA_METHODS.get(method, method)


def _parts(tree: Any) -> list[tuple[bytes, Any]]:
    """Headers and arrays of the FITS view."""
    roman = tree["roman"]
    data, _ = array_and_unit(roman["data"])
    if data.dtype.kind != "f" or data.dtype.str[1:] not in _BITPIX:
        raise ValueError(f"roman.data is {data.dtype}, not float32 or float64")
    kept = [card.encode("latin-1").ljust(cd.CARD)[: cd.CARD] for card in (roman.get(OURS) or {}).get("cards", ())]
    parts = [(cd.join_header([*header_cards(tree), *kept]), data)]
    if "dq" in roman:
        flags, _ = array_and_unit(roman["dq"])
        cards = [cd.make_card("XTENSION", "IMAGE"), *_shape_cards(flags.shape, 8 * flags.dtype.itemsize)]
        cards += [cd.make_card("PCOUNT", 0), cd.make_card("GCOUNT", 1), cd.make_card("EXTNAME", "DQ")]
        parts.append((cd.join_header(cards), flags))
    return parts


def header_cards(tree: Any) -> cd.Cards:
    """Return the header of a Roman image as its pipeline wrote it."""
    return [*made_cards(tree), *_background_cards(tree["roman"]["meta"])]


def made_cards(tree: Any) -> cd.Cards:
    """Make cards from the tree, but for those of the background."""
    roman = tree["roman"]
    data, unit = array_and_unit(roman["data"])
    cards = [cd.make_card("SIMPLE", True), *_shape_cards(data.shape, _BITPIX[data.dtype.str[1:]])]
    cards += [cd.make_card("CTYPE1", "RA---TAN", "in fact: roman.meta.wcs"), cd.make_card("CTYPE2", "DEC--TAN")]
    cards += [cd.make_card("TELESCOP", "ROMAN"), cd.make_card("BUNIT", _DEFAULT_UNIT if unit is None else str(unit))]
    for keyword, place in _META.items():
        part, name = place.split(".")
        value = (roman["meta"].get(part) or {}).get(name)
        if isinstance(value, str | int | float):
            cards.append(cd.make_card(keyword, value if not isinstance(value, str) else value[:60]))
    return cards


def _background_cards(meta: Any) -> cd.Cards:
    background = meta.get("background") or {}
    found = {keyword: background.get(name) for name, keyword in BACKGROUND.items()}
    if isinstance(word := found[METHOD], str):  # a level without a method of the pipeline was given by the user
        given = word == _NO_METHOD and found[LEVEL] is not None
        found[METHOD] = str(Method.USER if given else _OUR_METHODS.get(word, word))
    return [
        cd.make_card(keyword, str(value) if isinstance(value, str) else value)
        for keyword, value in found.items()
        if isinstance(value, str | bool) or (isinstance(value, int | float) and math.isfinite(value))
    ]


def _shape_cards(shape: Sequence[int], bitpix: int) -> cd.Cards:
    axes = [cd.make_card(f"NAXIS{i}", n) for i, n in enumerate(reversed(shape), start=1)]
    return [cd.make_card("BITPIX", bitpix), cd.make_card("NAXIS", len(shape)), *axes]


def array_and_unit(node: Any) -> tuple[Any, Any]:
    """Return an array of the tree and its unit (None without one)."""
    unit = getattr(node, "unit", None)
    return (node, None) if unit is None else (node.value, unit)
