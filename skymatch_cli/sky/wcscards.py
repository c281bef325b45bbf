"""Select the cards of the celestial WCS for wcslib, without those that wcslib can't read.

Each guard below is for one behaviour of wcslib 8 or of astropy 7 on headers that exist or that fuzzing found. They are
collected here, so that each can go when its reason is gone upstream.
"""

from __future__ import annotations

import re

MAX_COUNT = 32  # of axes in wcslib, and enough for SIP
_CARD = 80
_MANY_CARDS = 1000

# All that may describe coordinates, in any spelling that wcslib or astropy understands. The other cards (dates,
# observers, exposure times) only cost time: wcslib compares each card with some hundred keywords.
_COORDINATES = re.compile(
    rb" *(HIERARCH|NAXIS\d* *=|WCS|CTYP|CRVA|CRPI|CDEL|CROT|CUNI|CNAM|C[PQ](DI|ER)|(P[CSV]|CD) *\d|PROJP|LONP"
    rb"|LATP|EQUI|EPOC|RADE|[AB]P?_|D2IM|D[PQV] *\d|AXISCORR|WAT"
    rb"|AMD[XY]|PPO\d|[XY]PIXELSZ|CNPIX|PLT(RA|DEC))",  # plate solutions of the DSS, which override CTYPE
    re.IGNORECASE,
)
# Alternate descriptions (CTYPE1A) are not used, and an unusable one makes wcslib refuse the header.
_ALTERNATE = re.compile(
    rb"(C(TYPE|RVAL|RPIX|UNIT|DELT|NAME|ROTA)\d+|(PC|CD|PV|PS)\d+_\d+|WCSAXES|WCSNAME|RADESYS|EQUINOX|L(ON|AT)POLE)"
    rb"[A-Z] *="
)
_COUNTS = re.compile(rb"(NAXIS|WCSAXES|[AB]P?_ORDER) *=")
_SIP_TERM = re.compile(rb"[AB]P?_\d+_\d+.{0,3} *=")
_D_EXPONENT = re.compile(rb"\A([A-Z0-9_-]+ *= *[+-]?[0-9.]+)[Dd]([+-]?[0-9])")
_MATRIX = re.compile(
    rb"(?P<key>CD|PC|CDELT)(?P<axis>[12])(_(?P<column>[12]))? *= *(?P<value>[-+]?[0-9.]+(?:[EeDd][-+]?[0-9]+)?)"
)
# wcslib skips other values (text in quotes, NaN, a decimal comma) and takes its default: 0 for a position.
_NUMBERS = re.compile(
    rb"(?P<key>(CRVAL|CRPIX|CDELT|CROTA)[12]|(CD|PC|PV)[12]_\d+|(CD|PC)00[12]00[12]|L(ON|AT)POLE|EQUINOX|EPOCH)"
    rb" *= *(?P<value>'[^']*'?|[^/]*)"
)
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?")
_J2000 = re.compile(rb"' *J?2000(\.0*)? *'")
_PLACES = tuple((key + b"1", key + b"2") for key in (b"CRVAL", b"CRPIX"))
_OLD_SIZE = re.compile(rb"(CD|PC)00[12]00[12] *=|AMD[XY]|PLTSCALE|[XY]PIXELSZ")
_ALIKE = 1e-3  # of its largest element, by which two matrices of one WCS may differ
_LEAST_TURN = 0.5  # a larger element of PC turns pixels, and does not give their size
_TABLE_AXIS = re.compile(rb"CTYPE(?P<axis>\d+) *= *'[^']*-TAB")
_TPV_AXIS = re.compile(rb"CTYPE(?P<axis>[12]) *= *'[^']*-TPV *'")
_ONCE = re.compile(rb"(?!D[PQ]\d|D2IM|HIERARCH)[A-Z0-9_-]+ *=")  # the others may be repeated


def wcs_cards(text: bytes) -> bytes:
    """Return the cards of a header, 80 bytes each, that wcslib and astropy may read.

    ValueError if one of them would crash wcslib or exhaust the memory.
    """
    every = (text[start : start + _CARD] for start in range(0, len(text), _CARD))
    cards = [card for card in every if _COORDINATES.match(card) and not _ALTERNATE.match(card)]
    for card in cards:
        _refuse_harmful(card)
    _refuse_unplaced(cards)
    _refuse_zero(cards)
    _refuse_two_scales(cards)
    return b"".join(_with_tpv_defaults(_few(_without_tables([_D_EXPONENT.sub(rb"\1E\2", card) for card in cards]))))


def _refuse_unplaced(cards: list[bytes]) -> None:
    """Refuse values that wcslib would skip, and a position of which one half is missing."""
    found = [match for card in cards if (match := _NUMBERS.match(card))]
    given = {match["key"]: match["value"].strip() for match in found}
    for key, value in given.items():
        epoch = key in {b"EQUINOX", b"EPOCH"} and _J2000.fullmatch(value)
        if not (_NUMBER.fullmatch(value) or epoch or (not value and not key.startswith((b"CRVAL", b"CRPIX")))):
            shown = value[:20].decode(errors="replace").replace(" ", "")
            raise ValueError(f"{key.decode()} = {shown} is not a number" if value else f"{key.decode()} has no value")
    for one, other in _PLACES:
        if (one in given) != (other in given):
            missing, there = (one, other) if other in given else (other, one)
            raise ValueError(f"it has {there.decode()}, but no {missing.decode()}")


def _refuse_zero(cards: list[bytes]) -> None:
    """Refuse pixels without a size: wcslib takes a row of CD that is 0 or missing, or a missing CDELT, as 1 degree."""
    every = [match for card in cards if (match := _MATRIX.match(card))]
    has_cd, old = any(match["key"] == b"CD" for match in every), any(map(_OLD_SIZE.match, cards))
    for axis in (b"1", b"2"):
        rows = [m for m in every if m["axis"] == axis and m["key"] == (b"CD" if has_cd else b"PC")]
        largest = max((abs(float(m["value"].upper().replace(b"D", b"E"))) for m in rows), default=0.0)
        n = axis.decode()
        if has_cd and not largest:
            raise ValueError(f"CD{n}_1 and CD{n}_2 are 0 or missing: its pixels have no size")
        placed, sized = (any(card.startswith(key + axis) for card in cards) for key in (b"CRVAL", b"CDELT"))
        if placed and not (has_cd or sized or old or 0 < largest < _LEAST_TURN):
            raise ValueError(f"it has no CDELT{n} or CD{n}_{n}: the size of its pixels is not known")


def _refuse_two_scales(cards: list[bytes]) -> None:
    """Refuse a CD matrix beside another one of PC and CDELT: wcslib takes the latter, other programs the former."""
    found = {
        (m["key"], m["axis"], m["column"]): float(m["value"].upper().replace(b"D", b"E"))
        for card in cards
        if (m := _MATRIX.match(card))
    }
    if not {b"CD", b"PC"} <= {key for key, *_ in found}:
        return
    places = [(row, column) for row in (b"1", b"2") for column in (b"1", b"2")]
    cd = [found.get((b"CD", *place), 0.0) for place in places]
    pc = [found.get((b"CDELT", i, None), 1.0) * found.get((b"PC", i, j), float(i == j)) for i, j in places]
    if max(abs(a - b) for a, b in zip(cd, pc, strict=True)) > _ALIKE * max(map(abs, cd)):
        raise ValueError("its CD matrix is not PC times CDELT: which of them is right is not known")


def _refuse_harmful(card: bytes) -> None:
    value = card[10:].partition(b"/")[0].strip()
    why = ""
    if _COUNTS.match(card) and not (value.isdigit() and len(value) < 4 and int(value) <= MAX_COUNT):
        why = (
            "a number of axes or terms"  # astropy (_read_sip_kw) and wcslib (wcsini) make arrays of it before all else
        )
    elif value.startswith(b"'") and _SIP_TERM.match(card):
        why = "a number"  # wcslib stores the text in a distortion record and reads beyond it (segmentation fault)
    if why:
        raise ValueError(f"{card[:8].decode().rstrip()} = {value[:20].decode()} is not {why}")


def _without_tables(cards: list[bytes]) -> list[bytes]:
    """Remove the axes whose coordinates are in a table (-TAB).

    They are not on the sky, and wcslib crashes on some of their parameters (PVi_m that name no column).
    """
    axes = b"|".join(match["axis"] for card in cards if (match := _TABLE_AXIS.match(card)))
    if not axes:
        return cards
    of_tables = re.compile(rb"(CTYPE(%b)|P[SV](%b)_\d+) *=" % (axes, axes))
    return [card for card in cards if not of_tables.match(card)]


def _few(cards: list[bytes]) -> list[bytes]:
    """Keep only the last card of each keyword if there are very many: wcslib's parser overflows its stack."""
    if len(cards) <= _MANY_CARDS:
        return cards
    return list({card[:8] if _ONCE.match(card) else (k, card): card for k, card in enumerate(cards)}.values())


def _with_tpv_defaults(cards: list[bytes]) -> list[bytes]:
    """Add the linear terms of TPV, which default to 1 (registry of FITS conventions, TPV).

    wcslib takes them as 0, and every pixel falls on one point.
    """
    axes = [match["axis"] for card in cards if (match := _TPV_AXIS.match(card))]
    if not axes:
        return cards
    given = {card[:8].rstrip() for card in cards}
    missing = [b"PV%b_1" % axis for axis in axes if b"PV%b_1" % axis not in given]
    return cards + [(b"%-8b=                  1.0" % key).ljust(_CARD) for key in missing]
