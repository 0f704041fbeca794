"""Patterns that wait for their first use: they find the same, and what is left out would have found nothing."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._redaction import notations, pairs, secrets
from lumiqtrace._redaction.pairs import Pairs
from lumiqtrace._redaction.patterns import lazy
from lumiqtrace._redaction.redact import Redactor

# Texts of one name and one value, in every notation and in none.
BEFORE = ("", "{'", '{\\"', "[", "('", '["', "--", "name=", "</a><", "x\n")
NAMES = ("password", "api_key", "authorization", "author", "name")
BETWEEN = (":", "=", "%3D", "%253a", "\\u003d", " ", ", ", "', '", '", "', "':'", ' \\": \\"', ">", "\n")
VALUES = ("hunter2", "Basic YWxh", "")
AFTER = ("", "'", "')", '"]', "]", '\\"}', "</password>", ", and more")

COUNTED = """
from lumiqtrace._redaction import notations, pairs, secrets
from lumiqtrace._redaction.redact import Redactor

known = [vars(module).values() for module in (notations, pairs, secrets)]
waiting = [each for values in known for each in values if type(each).__name__ == "_Lazy"]
waiting += [pattern for _, pattern in secrets._PATTERNS]

def compiled():
    return [each._source[0] for each in waiting if len(vars(each)) > 1]

print(len(waiting) > 40, compiled())
Redactor().value({"model": "an-example", "faas.trigger": "direct", "question": "What is the capital of France?"})
print(compiled() == [secrets._RUN._source[0]])
"""


@given(st.text("ab1 "))
def test_a_waiting_pattern_finds_what_a_compiled_one_finds(text):
    waiting, compiled = lazy("A(b+)|1", re.IGNORECASE), re.compile("A(b+)|1", re.IGNORECASE)
    for _ in range(2):
        assert waiting.sub("-", text) == compiled.sub("-", text)
        assert [found.span() for found in waiting.finditer(text, 1)] == [
            found.span() for found in compiled.finditer(text, 1)
        ]
        assert bool(waiting.match(text)) == bool(compiled.match(text))


def test_a_pattern_that_is_none_is_told_when_it_is_used():
    wrong = lazy("(")
    with pytest.raises(re.error):
        wrong.match("")


def test_every_pattern_is_one():
    waiting = [value for module in (notations, pairs, secrets) for value in vars(module).values()]
    for each in [*waiting, *(pattern for _, pattern in secrets._PATTERNS)]:
        if isinstance(each, type(lazy(""))):
            assert each.pattern


def test_neither_an_import_nor_a_plain_text_compiles_what_it_has_no_use_for():
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], check=True, timeout=50, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.splitlines() == ["True []", "True"]


def test_a_pass_that_is_left_out_would_have_found_nothing():
    known = Pairs(Redactor().is_sensitive)
    found = 0
    for text in map("".join, itertools.product(BEFORE, NAMES, BETWEEN, VALUES, AFTER)):
        redacted = known.redact(text)
        assert redacted == every_pass(known, text)
        found += redacted != text
    assert found > 1000


def every_pass(known, text):
    if "</" in text:  # which is a part of what is promised: an element has an end
        text = pairs._ELEMENT.sub(known._element, text)
    for spans in (known._signed, known._given, known._listed):
        text = pairs._without(text, spans(text))
    return text
