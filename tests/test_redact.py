from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._redact import redact_text
from lumiqtrace._span import MAX_MESSAGE, shorten


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghij0123456789",
        "sk-ant-api03-abc_def-ghi",
        "sk-abcd********************wxyz",
        "lqt_" + "ab" * 32,
        "lqr_" + "cd" * 32,
        "AIzaSyA-1234567890abcdefgh",
        "gsk_0123456789abcdef",
        "xai-0123456789abcdef",
        "hf_abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_what_looks_like_a_secret_does_not_pass(secret):
    found = redact_text(f"Incorrect API key provided: {secret}. Find yours in the dashboard.")
    assert secret not in found
    assert "[REDACTED]" in found
    assert found.endswith("in the dashboard.")


def test_a_bearer_token_of_any_shape_does_not_pass():
    assert redact_text("Authorization: Bearer abcDEF0123.~+/=") == "Authorization: Bearer [REDACTED]"


@pytest.mark.parametrize(
    "text", ["", "task-force-one", "the sky is high", "ask-me", "risk-free-choice", "gpt-4o"]
)
def test_ordinary_words_stay(text):
    assert redact_text(text) == text


@given(st.text(), st.text(), st.text(alphabet="abcdefghijklmnop0123456789", min_size=20, max_size=64))
def test_a_planted_key_never_leaves_in_a_message(before, after, body):
    key = "lqt_" + body
    message = f"{before} {key} {after}"
    assert key not in shorten(message)
    assert len(shorten(message)) <= MAX_MESSAGE


def test_a_key_is_not_cut_into_something_unrecognisable():
    for pad in range(480, 500):
        assert "0123456789" not in shorten("x" * pad + " sk-0123456789abcdef")


@pytest.mark.parametrize("unit", ["a", "sk-", "eyJ", "eyJa.", "bearer ", "lqt", "-"])
def test_a_megabyte_is_read_in_one_pass(unit):
    text = unit * (1024 * 1024 // len(unit))
    started = time.thread_time()
    redact_text(text)
    assert time.thread_time() - started < 2, "quadratic patterns take minutes here"
