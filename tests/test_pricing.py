from __future__ import annotations

import logging

import pytest
from backend import KEY
from hypothesis import given
from hypothesis import strategies as st
from test_encode import make

import lumiqtrace
from lumiqtrace._event import Usage
from lumiqtrace._pricing import Pricer, _call


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
    assert event.cost_usd == pytest.approx(10 * 1.25e-6)
    assert event.tags == {}


def test_parts_that_are_larger_than_the_whole_are_cut_to_it():
    usage = Usage(cache_write_tokens=300, cache_write_1h_tokens=400)
    event = priced(
        provider="anthropic", model="claude-haiku-4-5", input_tokens=1000, cached_tokens=900, usage=usage
    )
    assert event.cost_usd == pytest.approx((900 * 0.1 + 100 * 2.0) / 1e6), (
        "all that is left was written for an hour"
    )
    assert event.tags == {}


def test_a_call_that_the_package_refuses_does_not_unprice_the_next():
    pricer = Pricer()
    google = {"provider": "google", "model": "gemini-2.5-flash"}
    odd = priced(pricer, **google, input_tokens=10, usage=Usage(input_audio_tokens=20))
    sound = priced(pricer, **google, input_tokens=20, usage=Usage(input_audio_tokens=10))
    assert (odd.cost_usd, odd.tags) == (0, {"cost": "unknown"})
    assert sound.cost_usd == pytest.approx((10 * 0.3 + 10 * 1.0) / 1e6)
    assert sound.tags == {}


def test_what_used_no_tokens_or_is_no_call_is_not_priced():
    pricer = Pricer()
    assert priced(pricer, model="gpt-4o").cost_usd == 0
    assert priced(pricer, model="search", usage=None, input_tokens=5).tags == {}
    assert pricer.unpriced == set()


OWN = {
    "house": {"input": 2.0, "output": 4.0},
    "house-large": {"input": 10.0, "cached": 1.0, "cache_write": 20.0, "output": 30.0},
    "gpt-4o": {"input": 0.0, "output": 0.0},
}


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"model": "house", "input_tokens": 1000, "output_tokens": 10}, 0.00204),
        ({"model": "house-small-2", "input_tokens": 1000, "cached_tokens": 900}, 0.002),
        ({"model": "house-large", "input_tokens": 1000, "cached_tokens": 400, "output_tokens": 100,
          "usage": Usage(cache_write_tokens=100)}, (500 * 10 + 400 * 1 + 100 * 20 + 100 * 30) / 1e6),
        ({"model": "gpt-4o-2024-08-06", "input_tokens": 1000}, 0.0),
        ({"model": "gpt-4-turbo", "input_tokens": 1_000_000}, 10.0),
    ],
)  # fmt: skip
def test_the_users_prices_go_first_by_the_longest_prefix(fields, cost):
    event = priced(Pricer(OWN), provider="custom", **fields)
    assert event.cost_usd == pytest.approx(cost)
    assert "cost" not in event.tags


def test_a_function_prices_what_it_knows():
    pricer = Pricer(lambda event: 0.25 if event.operation == "tts" else None)
    assert priced(pricer, model="tts-1", operation="tts").cost_usd == 0.25
    assert priced(pricer, model="gpt-4o", input_tokens=1_000_000).cost_usd == 2.5


def test_a_function_that_fails_costs_the_price_and_not_the_event(backend):
    lumiqtrace.init(KEY, base_url=backend.url, prices=lambda event: 1 / 0)
    with lumiqtrace.span("call", "llm") as span:
        span.set_usage(input_tokens=1_000_000, model="gpt-4o")
    assert lumiqtrace.flush()
    assert [event["cost_usd"] for event in backend.events] == [2.5]


REMEMBERING = Pricer()


@given(
    st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 100), st.integers(0, 100),
    st.sampled_from(["gpt-4o", "claude-sonnet-4-6", "gemini-2.5-pro", "claude-sonnet-4-5", "deepseek-chat"]),
    st.sampled_from([None, "priority", "flex", "batch"]),
)  # fmt: skip
def test_remembered_rates_give_what_the_package_gives(inputs, outputs, cached, written, model, tier):
    usage = Usage(cache_write_tokens=inputs * written // 201, service_tier=tier)
    event = make(model=model, provider="custom", input_tokens=inputs, output_tokens=outputs,
                 cached_tokens=inputs * cached // 201, usage=usage)  # fmt: skip
    REMEMBERING.price(event)
    call = _call(event, usage)
    exact = REMEMBERING._package._calculate(call, call.counts)
    assert event.cost_usd == pytest.approx(float(exact.total_price) if inputs or outputs else 0, rel=1e-9)
