"""Which DQ flags exclude a pixel: the syntax of astropy's bit flags, names of JWST and Roman, auto."""

from __future__ import annotations

import pytest
from astropy.nddata.bitmask import bitfield_to_boolean_mask, interpret_bit_flags
from hypothesis import given
from hypothesis import strategies as st

from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.images.dq import COMMON_FLAGS, JWST_FLAGS, NO_FLAG, ROMAN_FLAGS, bad_flags, check_dqbits


def excluded(dqbits: str, telescope: str, value: int) -> bool:
    return bool(value & bad_flags(dqbits, telescope, "a.fits"))


class TestAuto:
    def test_any_flag_is_bad_by_default(self) -> None:
        assert bad_flags("auto", "HST", "a.fits") == -1

    def test_jwst(self) -> None:
        assert bad_flags("auto", "JWST", "a.fits") == 1 + 512

    def test_roman(self) -> None:
        assert bad_flags("auto", "roman", "a.fits") == 1

    @pytest.mark.parametrize("text", ["none", "None", "INDEF", ""])
    def test_none_ignores_dq(self, text: str) -> None:
        assert bad_flags(text, "JWST", "a.fits") == NO_FLAG


class TestSyntax:
    @pytest.mark.parametrize(
        "text", ["0", "~0", "4", "~4", "6", "~6", "4,8", "~4,8", "4+8", "~(4+8)", "(4|8)", " ~ 1 + 2 "]
    )
    @pytest.mark.parametrize("value", [0, 1, 2, 4, 6, 8, 12, 4096])
    def test_as_astropy_understands_it(self, text: str, value: int) -> None:
        ignored = interpret_bit_flags(text)
        assert excluded(text, "", value) == bitfield_to_boolean_mask(value, ignored, good_mask_value=False)

    @given(
        bits=st.lists(st.integers(0, 30), min_size=1, unique=True), flip=st.booleans(), separator=st.sampled_from("+,|")
    )
    def test_lists_are_those_of_astropy(self, bits: list[int], flip: bool, separator: str) -> None:
        text = "~" * flip + separator.join(str(1 << bit) for bit in bits)
        assert bad_flags(text, "", "a.fits") == ~interpret_bit_flags(text)

    def test_good_names(self) -> None:
        assert not excluded("SATURATED,JUMP_DET", "JWST", 2 + 4)
        assert excluded("SATURATED,JUMP_DET", "JWST", 2 + 8)

    def test_names_are_not_case_sensitive(self) -> None:
        assert bad_flags("~do_not_use", "JWST", "a.fits") == 1

    @pytest.mark.parametrize(
        "text",
        [
            "1,2+4",
            "3,4",
            "NOT_A_FLAG",
            "~",
            "4,",
            "4~8",
            "-4",
            "1.5",
            "(1",
            "A;B",
            "~auto",
            "9" * 30,
            "9" * 5000,
            "4DO_NOT_USE",
            "4_8",
        ],
    )
    def test_what_can_never_be_right_is_a_usage_error(self, text: str) -> None:
        with pytest.raises(UsageError, match="--dqbits"):
            check_dqbits(text)

    def test_close_names_are_suggested(self) -> None:
        with pytest.raises(UsageError) as error:
            check_dqbits("~DO_NOT_USED")
        assert "there is no DQ flag 'DO_NOT_USED'" in error.value.message
        assert "DO_NOT_USE" in error.value.hint

    @pytest.mark.parametrize("text", ["auto", "none", "0", "~OUTLIER", "GW_AFFECTED_DATA", "ADJ_OPEN"])
    def test_what_can_be_right_passes(self, text: str) -> None:
        check_dqbits(text)


class TestNames:
    def test_a_name_may_differ_between_telescopes(self) -> None:
        assert bad_flags("~OUTLIER", "JWST", "a.fits") == 16
        assert bad_flags("~OUTLIER", "ROMAN", "a.fits") == 128

    def test_names_that_agree_need_no_telescope(self) -> None:
        assert bad_flags("~DO_NOT_USE+NON_SCIENCE", "", "a.fits") == 513

    def test_names_that_differ_need_one(self) -> None:
        with pytest.raises(InputError, match=r"a\.fits: the DQ flag OUTLIER .* TELESCOP is missing"):
            bad_flags("~OUTLIER", "", "a.fits")

    def test_name_of_the_other_telescope(self) -> None:
        with pytest.raises(UsageError, match="GW_AFFECTED_DATA"):
            bad_flags("~GW_AFFECTED_DATA", "JWST", "a.fits")

    def test_every_flag_is_one_bit(self) -> None:
        for flags in (JWST_FLAGS, ROMAN_FLAGS):
            values = [value for value in flags.values() if value]
            assert all(value.bit_count() == 1 and value < 2**32 for value in values)
            assert len(set(values)) == len(values)

    def test_common_flags_are_those_that_agree(self) -> None:
        agreed = {name for name in JWST_FLAGS if JWST_FLAGS[name] == ROMAN_FLAGS.get(name)}
        assert set(COMMON_FLAGS) == agreed
