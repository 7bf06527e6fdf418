"""What a spreadsheet would run is text, and comes back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyseg.runs.spreadsheet import FORMULA, guarded, unguarded


@pytest.mark.parametrize("text", ["=1+1", "+x", "-2", "@SUM(A1)", "\t=1", "\r=1", "'=1"])
def test_formulas_are_guarded(text):
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "left = right", "'tis", "the ball's", "\N{MINUS SIGN}3", "a"])
def test_everything_else_is_as_it_was(text):
    assert guarded(text) == text == unguarded(text)


@given(st.text(alphabet=st.sampled_from([*FORMULA, "'", "a", " "]), max_size=6))
def test_there_and_back(text):
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(FORMULA)
