"""What can be wrong with a FITS file: bytes, cards, lengths, tables that point at themselves."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from .bases import Base, pack
from .grammars import undo_cards

CARD, BLOCK = 80, 2880
MOST_CARDS = 40_000  # a few files with a million are among the fixed cases

VALUES = (
    *("0", "-1", "1", "2", "3", "7", "16", "999", "1000", "2147483647", "4294967296", "9223372036854775807"),
    *("-9223372036854775808", "1e19", "99999999999999999999999", "9" * 68, "0.0", "-0.0", "1e-320", "1e308", "1e400"),
    *("-1e400", "NaN", "nan", "inf", "1.5", "1D5", "(1, 2)", "T", "F", "", "''", "'   '", "'x'", "'''", "'''''", "'"),
    *("'\x1b[2J'", "'[red]b[/red]'", "'\xff\xfe\x80'", "\xe9", "'" + "a" * 60 + "'", "'&'", "&", "/ comment", "0x10"),
    *("'RA---TAN'", "'DEC--TAN'", "'RA---TAN-SIP'", "'RA---TPV'", "'RA---TAB'", "'GLON-HPX'", "'RA---XXX'", "'TNX'"),
    *("'RA---ZEA'", "'DEC--AIT'", "'RA---CSC'", "'COMPRESSED_IMAGE'", "'MJy/sr'", "'10**(99)Jy'", "'m/m/m'", "'%'"),
    *("'RICE_1'", "'HCOMPRESS_1'", "'PLIO_1'", "'GZIP_2'", "'NOCOMPRESS'", "'SCI'", "'DQ'", "'JWST'", "'ROMAN'"),
    *("'1QB(99999999)'", "'1PB(-1)'", "'1QD'", "'999999999999E'", "'LOOKUP'", "'EXTVER: 1'", "'FK4'", "'ICRS'"),
)
KEYWORDS = (
    *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS"),
    *("EXTNAME", "EXTVER", "BSCALE", "BZERO", "BLANK", "BUNIT", "EXPTIME", "TELESCOP", "FILTER", "CHECKSUM", "DATASUM"),
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2", "CDELT1"),
    *("CDELT2", "PC1_1", "PC2_2", "CROTA2", "CUNIT1", "CUNIT2", "LONPOLE", "LATPOLE", "WCSAXES", "RADESYS", "EQUINOX"),
    *("PV1_0", "PV1_1", "PV2_1", "PV2_39", "A_ORDER", "B_ORDER", "A_2_0", "B_0_2", "AP_ORDER", "BP_ORDER", "A_9_9"),
    *("CPDIS1", "DP1.EXTVER", "D2IMDIS1", "D2IM1.EXTVER", "D2IMARR", "WAT1_001", "PS1_0", "PV1_3", "VELREF", "MJD-OBS"),
    *("ZIMAGE", "ZBITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2", "ZCMPTYPE", "ZBLANK", "ZQUANTIZ"),
    *("ZDITHER0", "ZNAME1", "ZVAL1", "ZVAL2", "ZSCALE", "ZZERO", "TFORM1", "TTYPE1", "TFORM2", "TTYPE2", "THEAP"),
    *("BKGLEVEL", "BKGSUB", "BKGMETH", "BKGERR", "MDRIZSKY", "PIXVALUE", "END", "CONTINUE", "HIERARCH", "COMMENT"),
    *("TDIM1", "TSCAL1", "TZERO1", "TNULL1", "INHERIT", "DATE-OBS", "HISTORY", "", "LONGSTRN", "CRDER1"),
)
_LEDGER = (
    b"HISTORY skymatch-cli undo - BKGLEVEL",
    b"HISTORY skymatch-cli undo = BITPIX  =                   16",
    b"HISTORY skymatch-cli undo = BITPIX  =                   99",
    b"HISTORY skymatch-cli undo ! BSCALE  =  2.",
    b"HISTORY skymatch-cli undo ! NAXIS   =                    7",
    b"HISTORY skymatch-cli undo + tail of nothing",
    b"HISTORY skymatch-cli undo = ",
)

Damage = Callable[[bytearray, random.Random], bytes]


def damaged(bases: Sequence[Base], seed: int) -> tuple[Base, bytes]:
    """A base and the bytes of a damaged file made from it; always the same for one seed."""
    chance = random.Random(seed)
    base = bases[seed % len(bases)]
    content = base.content
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        kind = chance.choices(list(_KINDS), list(_KINDS.values()))[0]
        content = kind(bytearray(content), chance)
    if chance.random() < 0.03:
        content = _spliced(content, chance.choice(bases).content, chance)
    packed = pack(content, base.suffix)
    if base.suffix != ".fits" and chance.random() < 0.4:
        packed = chance.choice((_flipped, _cut))(bytearray(packed), chance)
    return base, packed


def card(keyword: str, value: str) -> bytes:
    """A card that says what it likes: nothing is checked."""
    return f"{keyword:8.8}= {value:>20}".encode("latin-1")[:CARD].ljust(CARD)


def _card_places(damaged_file: bytes | bytearray) -> list[int]:
    """Where cards begin in all headers of a file."""
    places, data = [], bytes(damaged_file)
    at = 0
    while at < len(data):
        if data[at : at + 8] in {b"SIMPLE  ", b"XTENSION"}:
            while at < len(data) and data[at : at + 8] != b"END     ":
                places.append(at)
                at += CARD
        at = (at // BLOCK + 1) * BLOCK
    return places or [0]


def _other_value(data: bytearray, chance: random.Random) -> bytes:
    """A keyword that is there gets a value of any kind."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.choice(_card_places(data))
        keyword = bytes(data[at : at + 8]).decode("latin-1")
        data[at : at + CARD] = card(keyword, chance.choice(VALUES))
    return bytes(data)


def _other_card(data: bytearray, chance: random.Random) -> bytes:
    """A card is replaced by one that means something else."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.choice(_card_places(data))
        new = card(chance.choice(KEYWORDS), chance.choice(VALUES))
        data[at : at + CARD] = chance.choice(_LEDGER).ljust(CARD) if chance.random() < 0.1 else new
    return bytes(data)


def _forged_ledger(data: bytearray, chance: random.Random) -> bytes:
    """Undo cards, of the grammar that the program writes or not."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.choice(_card_places(data))
        text = undo_cards(chance)
        pieces = [text[i : i + 54] for i in range(0, len(text), 54)] if chance.random() < 0.7 else [text[:54]]
        cards = [b"HISTORY skymatch-cli undo " + (b"+ " * (i > 0)) + piece for i, piece in enumerate(pieces)]
        for i, forged in enumerate(cards):
            data[at + i * CARD : at + (i + 1) * CARD] = forged[:CARD].ljust(CARD)
    return bytes(data)


def _digit(data: bytearray, chance: random.Random) -> bytes:
    """A digit of a number in a header changes."""
    at = chance.choice(_card_places(data))
    digits = [m.start() for m in re.finditer(rb"[0-9.+-]", bytes(data[at + 10 : at + CARD]))]
    if digits:
        data[at + 10 + chance.choice(digits)] = chance.choice(b"0123456789-+.eED")
    return bytes(data)


def _moved_cards(data: bytearray, chance: random.Random) -> bytes:
    """Cards change places, go or come twice."""
    places = _card_places(data)
    a, b = chance.choice(places), chance.choice(places)
    data[a : a + CARD], data[b : b + CARD] = data[b : b + CARD], data[a : a + CARD]
    if chance.random() < 0.5:
        data[a : a + CARD] = data[b : b + CARD] if chance.random() < 0.5 else b" " * CARD
    return bytes(data)


def _more_cards(data: bytearray, chance: random.Random) -> bytes:
    """A header becomes long, by whole blocks."""
    at = chance.choice(_card_places(data)) + CARD
    count = BLOCK // CARD * chance.choice((1, 2, 30, MOST_CARDS * CARD // BLOCK))
    if count > BLOCK and chance.random() < 0.9:
        count = BLOCK // CARD
    new = chance.choice((card("CRVAL1", "1.0"), card("A_2_0", "1e-5"), b"COMMENT x".ljust(CARD), b"\xff" * CARD))
    data[at:at] = new * count
    return bytes(data)


def _flipped(data: bytearray, chance: random.Random) -> bytes:
    """Bytes anywhere."""
    for _ in range(chance.choice((1, 3, 20))):
        if data:
            data[chance.randrange(len(data))] = chance.choice((0, 255, 39, 47, 61, 27, 10, chance.randrange(256)))
    return bytes(data)


def _flipped_in_header(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 3, 20))):
        at = chance.choice(_card_places(data)) + chance.randrange(CARD)
        if at < len(data):
            data[at] = chance.choice((0, 255, 39, 47, 61, 27, 10, 38, chance.randrange(256)))
    return bytes(data)


def _cut(data: bytearray, chance: random.Random) -> bytes:
    """The file ends early: anywhere, or at the end of a block or card."""
    step = chance.choice((1, CARD, BLOCK))
    return bytes(data[: chance.randrange(len(data) + 1) // step * step])


def _shifted(data: bytearray, chance: random.Random) -> bytes:
    """Some bytes too many or too few."""
    at, size = chance.randrange(len(data) + 1), chance.choice((1, 79, CARD, BLOCK, chance.randrange(1, 5000)))
    if chance.random() < 0.5:
        del data[at : at + size]
    else:
        data[at:at] = bytes(size) if chance.random() < 0.5 else chance.randbytes(size)
    return bytes(data)


def _wild_pixels(data: bytearray, chance: random.Random) -> bytes:
    """Data of NaN, infinity, the largest values, or noise; descriptors of tables that point anywhere."""
    last = max(_card_places(data))
    start = min(len(data), (last // BLOCK + 1) * BLOCK)
    stop = min(len(data), start + chance.choice((8, 64, 512, BLOCK)))
    fill = chance.choice((b"\xff", b"\x00", b"\x7f\x80\x00\x00", b"\x7f\xef\xff\xff", b"\x80\x00"))
    new = chance.randbytes(stop - start) if chance.random() < 0.3 else (fill * BLOCK)[: stop - start]
    data[start:stop] = new
    return bytes(data)


def _spliced(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """The beginning of one file and the end of another."""
    a, b = (chance.randrange(len(x) // BLOCK + 1) * BLOCK for x in (content, other))
    return content[:a] + other[b:]


_KINDS: dict[Damage, int] = {
    _other_value: 8,
    _other_card: 6,
    _forged_ledger: 3,
    _digit: 2,
    _moved_cards: 2,
    _more_cards: 1,
    _flipped: 3,
    _flipped_in_header: 4,
    _cut: 2,
    _shifted: 1,
    _wild_pixels: 2,
}
