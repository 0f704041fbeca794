from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace import cli
from lumiqtrace._commands.price_index import make_index
from lumiqtrace._price_index import COUNTS, FILE, PriceIndex, matches, open_index

SNAPSHOT = get_snapshot()
NOW = "2026-11-21T10:00:00+00:00"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    file = tmp_path_factory.mktemp("prices") / "index.jsonl"
    return file, make_index(file)


@pytest.fixture(scope="module")
def index(made):
    return PriceIndex(made[0].read_text(encoding="utf-8"))


def texts(match):
    """The names and pieces of names that a clause looks for."""
    value = next(iter(vars(match).values()))
    return [value] if isinstance(value, str) else [text for each in value for text in texts(each)]


NAMES = sorted(
    {text for provider in SNAPSHOT.providers for model in provider.models for text in texts(model.match)}
)
ADDRESSES = [
    "https://api.openai.com/v1/",
    "https://api.anthropic.com",
    "https://generativelanguage.googleapis.com/v1beta/",
    "https://europe-west1-aiplatform.googleapis.com/v1/",
    "https://bedrock-runtime.eu-west-1.amazonaws.com/model/",
    "https://house.openai.azure.com/openai/deployments/d",
    "https://openrouter.ai/api/v1",
    "https://api.deepseek.com",
    "https://llm.example.com/v1",
]

places = st.one_of(
    st.sampled_from(ADDRESSES).map(lambda url: {"provider_api_url": url}),
    st.sampled_from(["openai", "anthropic", "google", "nobody"]).map(lambda id_: {"provider_id": id_}),
    st.just({}),
)
models = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "", "us.", "openai/", "x"]),
    st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES).map(str.upper), st.text(max_size=12)),
    st.sampled_from(["", "", "-2025-08-07", "-20250929", "-20251301", "-latest", ":free", "-mini", "\n"]),
)
contexts = st.fixed_dictionaries(
    {
        "service_tier": st.sampled_from([None, "default", "standard", "flex", "priority", "batch", "auto"]),
        "speed": st.sampled_from([None, "standard", "fast"]),
    }
)


moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def counts(draw):
    """As those of a call: what was cached or written is a part of the input."""
    parts = [draw(st.integers(0, 100_000)) for _ in range(4)]  # together on both sides of the usual tiers
    read, written, long_written, _ = parts
    values = (sum(parts), draw(st.integers(0, 100_000)), read, written + long_written, long_written)
    wanted = (True, True, *(draw(st.booleans()) for _ in range(3)))
    return {name: value for name, value, is_in in zip(COUNTS, values, wanted, strict=True) if is_in}


@given(models, places, contexts, counts(), moments)
def test_what_the_index_says_the_package_says(index, model, place, context, used, moment):
    cost = index.cost(model, moment.isoformat(), place, context, used)
    if cost is None:
        return
    told = genai_prices.calc_price(
        genai_prices.Usage(**used), model, genai_request_timestamp=moment, price_context=context, **place
    )
    assert cost == pytest.approx(float(told.total_price), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("gpt-4o", ADDRESSES[0]),
        ("gpt-4o-mini-2024-07-18", ADDRESSES[0]),
        ("gpt-5", ADDRESSES[0]),
        ("text-embedding-3-small", ADDRESSES[0]),
        ("claude-sonnet-4-5-20250929", ADDRESSES[1]),
        ("claude-haiku-4-5", ADDRESSES[1]),
        ("gemini-2.5-flash", ADDRESSES[2]),
        ("gemini-2.5-pro", ADDRESSES[2]),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", ADDRESSES[4]),
    ],
)
def test_what_is_called_most_is_held(index, model, url):
    context = {"service_tier": "default", "speed": None}
    assert (
        index.cost(model, NOW, {"provider_api_url": url}, context, dict.fromkeys(COUNTS[:3], 1)) is not None
    )


def test_a_price_that_depends_on_more_is_left_to_the_package(index):
    here = {"provider_api_url": ADDRESSES[0]}
    usual = {"service_tier": None, "speed": None}
    both = dict.fromkeys(COUNTS[:2], 1)
    assert index.cost("gpt-4o", NOW, here, usual, both) is not None
    assert index.cost("gpt-4o", NOW, here, {"service_tier": "priority", "speed": None}, both) is None
    assert index.cost("gpt-4o", NOW, here, usual, {**both, "input_audio_tokens": 1}) is None
    assert index.cost("gpt-4o", NOW, here, usual, {**both, "cache_write_1h_tokens": 1}) is None
    assert index.cost("deepseek-chat", NOW, {"provider_api_url": ADDRESSES[-2]}, usual, both) is None, (
        "by the hour"
    )
    assert index.cost("a-model-of-the-house", NOW, here, usual, both) is None
    assert index.cost("gpt-4o", NOW, {"provider_id": "nobody"}, usual, both) is None
    assert index.cost("gpt-4o", NOW, {"provider_api_url": ADDRESSES[-1]}, usual, both) is None


def test_a_tier_is_held_up_to_the_next(index):
    google = {"provider_id": "google"}
    usual = {"service_tier": None, "speed": None}
    assert (
        index.cost("gemini-2.5-pro", NOW, google, usual, {"input_tokens": 200_000, "output_tokens": 1})
        is not None
    )
    assert (
        index.cost("gemini-2.5-pro", NOW, google, usual, {"input_tokens": 200_001, "output_tokens": 1})
        is None
    )


def test_a_price_is_held_from_its_first_day(index):
    place, usual = {"provider_id": "openai"}, {"service_tier": None, "speed": None}
    both = {"input_tokens": 1_000_000, "output_tokens": 0}
    assert index.cost("o3", "2025-06-09T23:59:59.999999+00:00", place, usual, both) is None
    assert index.cost("o3", "2025-06-10T00:00:00.000000+00:00", place, usual, both) == pytest.approx(2.0)


def test_a_clause_of_another_kind_is_the_packages_business():
    assert matches(["other"], "any name")
    assert not matches(["and", ["contains", "a"], ["equals", "b"]], "abc")


def test_it_is_used_beside_its_own_release_alone(tmp_path, made):
    other = tmp_path / "index.jsonl"
    assert open_index(other) is None
    other.write_text('{"release":"0.0.1","addresses":{},"patterns":[],"lines":{}}\n', encoding="utf-8")
    assert open_index(other) is None
    file, told = made
    found = open_index(file)
    assert found is not None
    assert found.release == told.release == version("genai-prices")
    assert told.held > 1000


def in_a_process(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True, timeout=50
    )
    return done.stdout.split()


PRICED = """
import sys
from lumiqtrace._event import Event, Usage
from lumiqtrace._pricing import Pricer

def cost(pricer, model, tokens, minute=0, **used):
    event = Event(event_id="e", trace_id="t", span_id="s", timestamp=f"2026-11-21T10:{minute:02}:00+00:00",
                  provider="openai", model=model, operation="chat", latency_ms=1.0, input_tokens=tokens,
                  usage=Usage(api_url="https://api.openai.com/v1/", **used))
    pricer.price(event)
    return event.cost_usd

pricer = Pricer()
"""


def test_the_package_is_loaded_for_what_the_index_does_not_know_and_not_before(capsys):
    # Made again, as another release may have come since this was installed.
    assert cli.main(["prices"]) == 0
    assert capsys.readouterr().out.startswith(f"genai-prices {version('genai-prices')}: ")
    assert FILE.exists()
    out = in_a_process(f"""{PRICED}
print(cost(pricer, "gpt-4o", 1_000_000), "genai_prices" in sys.modules)
print(cost(pricer, "gpt-4o", 1_000_000, input_image_tokens=10), "genai_prices" in sys.modules)
""")
    assert out == ["2.5", "False", "2.5", "True"]


def test_prices_that_the_program_gave_the_package_count():
    out = in_a_process(f"""{PRICED}
print(cost(pricer, "gpt-4o", 1_000_000))
from copy import deepcopy
from decimal import Decimal
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
mine = DataSnapshot(providers=deepcopy(get_snapshot().providers), from_auto_update=True)
mine.find_provider_model("gpt-4o", None, "openai", None)[1].prices.input_mtok = Decimal(7)
set_custom_snapshot(mine)
print(cost(pricer, "gpt-4o", 1_000_000, minute=1))
""")
    assert out == ["2.5", "7.0"]
