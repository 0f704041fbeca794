from __future__ import annotations

import logging

import pytest
from test_encode import make

from lumiqtrace._event import Usage
from lumiqtrace._pricing import Pricer


def priced(pricer=None, **fields):
    event = make(**{"usage": Usage(), **fields})
    (pricer or Pricer()).price(event)
    return event


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        # USD per million tokens: gpt-4o 2.50 in, 1.25 cached, 10 out
        ({"model": "gpt-4o", "input_tokens": 1000, "output_tokens": 100}, 0.0035),
        ({"model": "gpt-4o", "input_tokens": 1000, "cached_tokens": 400}, 0.002),
        ({"model": "gpt-4o-2024-08-06", "input_tokens": 1_000_000}, 2.5),
        # claude-sonnet-4-6: 3 in, 0.30 cached, 3.75 written for 5 minutes, 6 for an hour, 15 out
        ({"provider": "anthropic", "model": "claude-sonnet-4-6", "input_tokens": 125, "cached_tokens": 100,
          "output_tokens": 7, "usage": Usage(cache_write_tokens=20)}, (5 * 3 + 100 * 0.3 + 20 * 3.75 + 7 * 15) / 1e6),
        ({"provider": "anthropic", "model": "claude-sonnet-4-6", "input_tokens": 20,
          "usage": Usage(cache_write_tokens=20, cache_write_1h_tokens=20)}, 20 * 6 / 1e6),
        ({"model": "text-embedding-3-small", "input_tokens": 1_000_000}, 0.02),
        ({"provider": "custom", "model": "gpt-4o", "input_tokens": 1000, "output_tokens": 100}, 0.0035),
    ],
)  # fmt: skip
def test_what_a_call_costs(fields, cost):
    event = priced(**fields)
    assert event.cost_usd == pytest.approx(cost)
    assert "cost" not in event.tags


def test_a_model_without_a_price_costs_nothing_and_is_named(caplog):
    pricer = Pricer()
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        for _ in range(3):
            event = priced(pricer, model="house-model-7b", provider="custom", input_tokens=5)
    assert event.cost_usd == 0
    assert event.tags == {"cost": "unknown"}
    assert pricer.unpriced == {"house-model-7b"}
    assert caplog.text.count("house-model-7b") == 1


def test_counts_that_contradict_each_other_do_not_raise():
    event = priced(model="gpt-4o", input_tokens=10, cached_tokens=50)
    assert event.tags == {"cost": "unknown"}


def test_what_used_no_tokens_or_is_no_call_is_not_priced():
    pricer = Pricer()
    assert priced(pricer, model="gpt-4o").cost_usd == 0
    assert priced(pricer, model="search", usage=None, input_tokens=5).tags == {}
    assert pricer.unpriced == set()
