from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import date, datetime, time
from decimal import Decimal
from importlib.metadata import version

import genai_prices
import pytest
from genai_prices import data, types
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace import cli
from lumiqtrace._commands.price_index import _clause, _held, make_index
from lumiqtrace._price_index import COUNTS, FILE, PriceIndex, matches, open_index

NOW = "2026-11-21T10:00:00+00:00"
USUAL = {"service_tier": None, "speed": None}
OPENAI = ("provider_api_url", "https://api.openai.com/v1/")
BOTH = {"input_tokens": 1_000_000, "output_tokens": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    file = tmp_path_factory.mktemp("prices") / "index.jsonl"
    return file, make_index(file)


@pytest.fixture(scope="module")
def index(made):
    return PriceIndex(made[0].read_text(encoding="utf-8"))


# ---- what it says is what the package says -----------------------------------------------------------


def texts(match):
    """The names and pieces of names that a clause looks for."""
    value = next(iter(vars(match).values()))
    return [value] if isinstance(value, str) else [text for each in value for text in texts(each)]


NAMES = [
    (provider.id, text)
    for provider in data.providers
    for model in provider.models
    for text in texts(model.match)
]
MARKS = ["", "", "", "x", "-2025-08-07", "-20250929", "-20251301", "-latest", ":free", "-mini", "\n"]
TIERS = [None, "default", "standard", "flex", "priority", "batch", "auto"]


@st.composite
def counts(draw):
    """As those of a call: what was cached or written is a part of the input, on both sides of the usual tiers."""
    read, written, long_written, rest = (draw(st.integers(0, 100_000)) for _ in range(4))
    everything = (read + written + long_written + rest, draw(st.integers(0, 100_000)))
    parts = (read, written + long_written, long_written)
    taken = draw(st.sampled_from([(), (0,), (1,), (0, 1), (1, 2), (0, 1, 2)]))
    return dict(zip(COUNTS, everything, strict=False)) | {COUNTS[2 + part]: parts[part] for part in taken}


def told(model, place, context, used, moment):
    """What the package says; None where it has no price."""
    try:
        answer = genai_prices.calc_price(
            genai_prices.Usage(**used), model, price_context=context,
            genai_request_timestamp=datetime.fromisoformat(moment), **dict([place]),
        )  # fmt: skip
    except (LookupError, ValueError):
        return None
    return float(answer.total_price)


@given(
    st.sampled_from(NAMES), st.sampled_from(["", "", "us.", "x/"]), st.sampled_from(MARKS), st.booleans(),
    st.sampled_from(TIERS), st.sampled_from([None, "standard", "fast"]), counts(),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - made UTC below
)  # fmt: skip
def test_what_is_held_the_package_says(index, name, before, after, loud, tier, speed, used, moment):
    provider, model = name
    model = f"{before}{model.upper() if loud else model}{after}"
    context = {"service_tier": tier, "speed": speed}
    stamp = moment.isoformat(timespec="microseconds") + "+00:00"
    cost = index.cost(model, stamp, ("provider_id", provider), context, used)
    if cost is not None:
        expected = told(model, ("provider_id", provider), context, used, stamp)
        assert cost == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_nearly_all_of_the_packages_models_are_held(index, made):
    _, summary = made
    assert summary.providers == len(data.providers)
    assert summary.models == sum(len(provider.models) for provider in data.providers)
    found = Counter()
    for provider, model in NAMES:
        place = ("provider_id", provider)
        cost = index.cost(model, NOW, place, USUAL, {"input_tokens": 1000, "output_tokens": 100})
        expected = told(model, place, USUAL, {"input_tokens": 1000, "output_tokens": 100}, NOW)
        found[cost is not None] += 1
        assert cost is None or cost == pytest.approx(expected, rel=1e-9), (provider, model)
    assert found[True] > 10 * found[False]


ADDRESSES = [
    ("https://api.openai.com/v1/", "gpt-4o"),
    ("https://api.anthropic.com", "claude-sonnet-4-5-20250929"),
    ("https://generativelanguage.googleapis.com/v1beta/", "gemini-2.5-pro"),
    ("https://europe-west1-aiplatform.googleapis.com/v1/", "gemini-2.5-flash"),
    ("https://bedrock-runtime.eu-west-1.amazonaws.com/model/", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("https://house.openai.azure.com/openai/deployments/d", "gpt-4o"),
    ("https://openrouter.ai/api/v1", "openai/gpt-4o"),
    ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b"),
]


@pytest.mark.parametrize(("url", "model"), ADDRESSES)
def test_a_model_is_found_by_the_address_that_was_called(index, url, model):
    place = ("provider_api_url", url)
    used = dict(zip(COUNTS[:3], (1000, 100, 300), strict=True))
    assert index.cost(model, NOW, place, USUAL, used) == pytest.approx(told(model, place, USUAL, used, NOW))


def test_what_it_does_not_hold_is_left_to_the_package(index):
    assert index.cost("gpt-4o", NOW, OPENAI, USUAL, BOTH) == 2.5
    assert index.cost("gpt-4o", NOW, OPENAI, {**USUAL, "service_tier": "priority"}, BOTH) is None
    assert index.cost("gpt-4o", NOW, OPENAI, {**USUAL, "speed": "fast"}, BOTH) is None
    assert index.cost("gpt-4o", NOW, OPENAI, USUAL, {**BOTH, "input_audio_tokens": 1}) is None
    assert index.cost("a-model-of-the-house", NOW, OPENAI, USUAL, BOTH) is None
    assert index.cost("gpt-4o", NOW, ("provider_id", "nobody"), USUAL, BOTH) is None
    elsewhere = "https://llm.example.com/?of=https://api.openai.com/"
    assert index.cost("gpt-4o", NOW, ("provider_api_url", elsewhere), USUAL, BOTH) is None
    assert index.cost("deepseek-chat", NOW, ("provider_id", "deepseek"), USUAL, BOTH) is None, "by the hour"


def test_a_tier_is_held_up_to_the_next(index):
    google = ("provider_id", "google")
    at_most = {"input_tokens": 200_000, "output_tokens": 1}
    assert index.cost("gemini-2.5-pro", NOW, google, USUAL, at_most) is not None
    assert index.cost("gemini-2.5-pro", NOW, google, USUAL, {**at_most, "input_tokens": 200_001}) is None


def test_a_price_is_held_from_its_first_day(index):
    o3 = ("o3", "2025-06-09T23:59:59.999999+00:00"), ("o3", "2025-06-10T00:00:00.000000+00:00")
    before, after = (index.cost(*each, ("provider_id", "openai"), USUAL, BOTH) for each in o3)
    assert (before, after) == (None, 2.0)


def test_the_names_that_were_looked_up_are_forgotten_in_time(index):
    for number in range(1100):
        assert index.cost(f"house-{number}", NOW, OPENAI, USUAL, BOTH) is None
    assert len(index._found) <= 1000
    assert index.cost("gpt-4o", NOW, OPENAI, USUAL, BOTH) == 2.5


@pytest.mark.parametrize(
    ("clause", "yes", "no"),
    [
        (["equals", "a-b"], ["a-b"], ["a-bc", "xa-b"]),
        (["starts_with", "a-"], ["a-b"], ["xa-b"]),
        (["ends_with", "-b"], ["a-b"], ["a-bc"]),
        (["contains", "-"], ["a-b"], ["ab"]),
        (["regex", "b$"], ["a-b"], ["b-a"]),
        (["or", ["equals", "a"], ["equals", "b"]], ["a", "b"], ["c"]),
        (["and", ["contains", "a"], ["contains", "b"]], ["ab"], ["a", "b"]),
        (["other"], ["a", ""], []),
    ],
)
def test_clauses(clause, yes, no):
    assert all(matches(clause, name) for name in yes)
    assert not any(matches(clause, name) for name in no)


# ---- what is held, of any package there may be ---------------------------------------------------------


def model(prices, **fields):
    return types.ModelInfo(id="m", match=types.ClauseEquals(equals="m"), prices=prices, **fields)


PROVIDER = types.Provider(id="p", name="P", api_pattern="p", models=[])
PLAIN = types.ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(8))
OTHER_PLAIN = types.ModelPrice(input_mtok=Decimal(3))
TIERED = types.TieredPrices(
    base=Decimal(1),
    tiers=[types.Tier(start=1000, price=Decimal(3)), types.Tier(start=5000, price=Decimal(4))],
)
EARLY = types.TieredPrices(base=Decimal(1), tiers=[types.Tier(start=100, price=Decimal(3))])


def variant(prices, constraint=None, **when):
    return types.PriceVariant(when=when, prices=prices, constraint=constraint)


class Ended:
    """A kind of constraint that there may be one day."""

    def __init__(self):
        self.start_date, self.end_date = date(2025, 1, 1), date(2025, 2, 1)

    def active(self, _moment):
        return False


@pytest.mark.parametrize(
    ("found", "up_to", "since"),
    [
        (model(PLAIN), None, "1970-01-01"),
        (model(PLAIN, price_variants=[variant(OTHER_PLAIN, service_tier="flex")]), None, "1970-01-01"),
        (model(PLAIN, price_variants=[variant(PLAIN, service_tier="default")]), None, "1970-01-01"),
        (model(types.ModelPrice(input_mtok=TIERED, output_mtok=Decimal(8))), 1000, "1970-01-01"),
        (model([types.ConditionalPrice(prices=OTHER_PLAIN),
                types.ConditionalPrice(prices=PLAIN, constraint=types.StartDateConstraint(date(2031, 5, 1)))]),
         None, "2031-05-01"),
    ],
)  # fmt: skip
def test_what_is_held_of_a_model(found, up_to, since):
    held = _held(PROVIDER, found)
    assert held is not None
    assert (held.up_to, held.since) == (up_to, since)
    assert held.rates[1] == pytest.approx(8e-6)


@pytest.mark.parametrize(
    "found",
    [
        model([types.ConditionalPrice(prices=PLAIN),
               types.ConditionalPrice(prices=PLAIN, constraint=types.TimeOfDateConstraint(time(1), time(2)))]),
        model([types.ConditionalPrice(prices=PLAIN, constraint=Ended())]),
        model(PLAIN, price_variants=[variant(OTHER_PLAIN, service_tier="default")]),
        model(PLAIN, price_variants=[variant(OTHER_PLAIN, types.StartDateConstraint(date(2031, 1, 1)),
                                             service_tier="standard", speed="standard")]),
        model(types.ModelPrice(input_mtok=PLAIN)),
        model(types.ModelPrice(input_mtok=EARLY)),
        model(types.ModelPrice(requests_kcount=Decimal(5), input_mtok=Decimal(1))),
    ],
)  # fmt: skip
def test_a_model_of_another_shape_is_not_held(found):
    assert _held(PROVIDER, found) is None


def test_a_clause_of_another_kind_is_not_guessed():
    class Fuzzy:
        def __init__(self):
            self.fuzzy = "a"

    class Except:
        def __init__(self):
            self.contains, self.but = "a", "b"

    assert _clause(Fuzzy()) is None
    assert _clause(Except()) is None
    assert _clause(types.ClauseOr(or_=[types.ClauseEquals(equals="a"), Fuzzy()])) is None
    assert _clause(types.ClauseAnd(and_=[types.ClauseEquals(equals="A")])) == ["and", ["equals", "a"]]


# ---- when it is used ----------------------------------------------------------------------------------


def test_it_is_used_beside_its_own_release_alone(tmp_path, made):
    other = tmp_path / "index.jsonl"
    assert open_index(other) is None, "there is none"
    file, summary = made
    found = open_index(file)
    assert found is not None
    assert found.release == summary.release == version("genai-prices")
    head, *lines = file.read_text(encoding="utf-8").splitlines()
    for change in ({"release": "0.0.1"}, {"size": 17}):
        other.write_text("\n".join([json.dumps({**json.loads(head), **change}), *lines]), encoding="utf-8")
        assert open_index(other) is None, change


PRICED = """
import sys
from pathlib import Path
from lumiqtrace import _price_index
from lumiqtrace._event import Event, Usage
from lumiqtrace._pricing import Pricer

def cost(pricer, model, tokens, minute=0, url="https://api.openai.com/v1/", provider="openai", cached=0, **used):
    event = Event(event_id="e", trace_id="t", span_id="s", timestamp=f"2026-11-21T10:{minute:02}:00+00:00",
                  provider=provider, model=model, operation="chat", latency_ms=1.0, input_tokens=tokens,
                  cached_tokens=cached, usage=Usage(api_url=url, **used))
    pricer.price(event)
    return event.cost_usd

def loaded():
    return "genai_prices" in sys.modules

pricer = Pricer()
"""


def in_a_process(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRICED + code],
        check=True, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    return done.stdout.split()


@pytest.fixture(scope="module", autouse=True)
def _index_of_this_release():
    """Another release of the package may have come since this was installed."""
    if open_index() is None:
        make_index(FILE)


def test_the_package_is_loaded_for_what_the_index_does_not_know_and_not_before():
    out = in_a_process("""
print(cost(pricer, "gpt-4o", 1_000_000), loaded())
print(cost(pricer, "gpt-4o", 1_000_000, input_image_tokens=10), loaded())
""")
    assert out == ["2.5", "False", "2.5", "True"]


def test_a_pricer_says_the_same_with_the_index_and_with_the_package():
    with_index, with_package = (json.loads(line) for line in in_a_process("""
import json
calls = [
    dict(model="gpt-4o", tokens=1000, cached=300),
    dict(model="GPT-4o-mini", tokens=1000, cached=300, service_tier="default"),
    dict(model="gpt-4o-mini", tokens=1000, url=None),
    dict(model="models/gemini-2.5-flash", tokens=900, provider="google", url=None),
    dict(model="gemini-2.5-pro", tokens=900, provider="google", url="https://generativelanguage.googleapis.com/v1/"),
    dict(model="claude-haiku-4-5", tokens=1000, provider="anthropic", url="https://api.anthropic.com", cached=200,
         cache_write_tokens=300, cache_write_1h_tokens=100),
    dict(model="gpt-4o", tokens=1000, provider="custom", url="https://house.openai.azure.com/openai/"),
]
def all_costs():
    return [cost(pricer, **call) for call in calls]
first = all_costs()
assert not loaded()
import genai_prices
pricer = Pricer()
print(json.dumps(first, separators=(",", ":")), json.dumps(all_costs(), separators=(",", ":")))
"""))  # fmt: skip
    assert all(with_index)
    assert with_index == pytest.approx(with_package, rel=1e-9)


def test_prices_that_the_program_gave_the_package_count():
    out = in_a_process("""
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


@pytest.mark.parametrize("damage", ["empty", "folder", "no json", "no lines", "half a line", "other rows"])
def test_a_damaged_index_costs_time_and_no_price(tmp_path, made, damage):
    file = tmp_path / "index.jsonl"
    head, *lines = made[0].read_text(encoding="utf-8").splitlines()
    if damage == "folder":
        file.mkdir()
    else:
        written = {
            "empty": "",
            "no json": "\0" * 100,
            "no lines": head,
            "half a line": "\n".join([head, *(line[:30] for line in lines)]),
            "other rows": "\n".join([head, *("[1,2]" for _ in lines)]),
        }
        file.write_text(written[damage], encoding="utf-8")
    out = in_a_process(f"""
_price_index.FILE = Path({str(file)!r})
print(cost(pricer, "gpt-4o", 1_000_000), cost(pricer, "gpt-4o-mini", 1_000_000), loaded())
""")
    assert out == ["2.5", "0.15", "True"]


def test_without_the_package_the_cost_is_unknown_and_nothing_is_lost():
    out = in_a_process("""
sys.modules["genai_prices"] = None
print(cost(pricer, "gpt-4o", 1_000_000), pricer.unpriced)
""")
    assert out == ["0.0", "{'gpt-4o'}"]


def test_the_command_says_what_it_made(capsys):
    assert cli.main(["prices"]) == 0
    assert capsys.readouterr().out.startswith(f"genai-prices {version('genai-prices')}: ")
    assert FILE.stat().st_mode & 0o444 == 0o444
    assert open_index() is not None
