from __future__ import annotations

import pickle
import traceback

import pytest

import lumiqtrace
from lumiqtrace import ConfigError, LumiqConfig
from lumiqtrace._config import Secret

KEY = "lqt_" + "0f" * 32


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"base_url": "ftp://host"}, ["base_url", "ftp://host", "http"]),
        ({"base_url": "api.lumiqtrace.com"}, ["base_url", "api.lumiqtrace.com"]),
        ({"base_url": "http://"}, ["base_url"]),
        ({"base_url": "http://host:99999"}, ["base_url"]),
        ({"base_url": "https://host/?a=1"}, ["base_url", "query"]),
        ({"base_url": 7}, ["base_url", "int"]),
        ({"batch_size": 0}, ["batch_size", "0", "1 to 100"]),
        ({"batch_size": 101}, ["batch_size", "101"]),
        ({"batch_size": 2.5}, ["batch_size", "2.5", "whole number"]),
        ({"batch_size": True}, ["batch_size", "True"]),
        ({"flush_interval": -1}, ["flush_interval", "-1"]),
        ({"flush_interval": float("nan")}, ["flush_interval", "nan"]),
        ({"environment": ""}, ["environment"]),
        ({"enabled": "yes"}, ["enabled", "'yes'"]),
        ({"max_queue_bytes": 10}, ["max_queue_bytes", "10"]),
        ({"api_key": 5}, ["api_key", "int"]),
        ({"prices": [1]}, ["prices", "list"]),
        ({"prices": {"m": 3}}, ["prices", "'m'", "3"]),
        ({"prices": {"m": {}}}, ["prices", "'m'"]),
        ({"prices": {"m": {"inputs": 3}}}, ["prices", "'m'", "'inputs'"]),
        ({"prices": {"m": {"input": -3}}}, ["prices", "'m'", "-3"]),
        ({"store_prompts": "yes"}, ["store_prompts", "'yes'"]),
    ],
)
def test_a_wrong_option_is_named_with_its_value(options, names):
    with pytest.raises(ConfigError) as caught:
        LumiqConfig(**options)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize("key", ["sk-0123456789", "lqt_with space", "lqt_\nnewline", ""])
def test_a_wrong_key_is_refused_and_never_shown(key):
    with pytest.raises(ConfigError, match="api_key") as caught:
        LumiqConfig(api_key=key)
    assert not key.strip() or key not in str(caught.value)


def test_a_password_in_the_address_is_refused_and_never_shown():
    with pytest.raises(ConfigError, match="base_url") as caught:
        LumiqConfig(base_url="https://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_the_key_is_in_no_repr_pickle_or_traceback():
    config = LumiqConfig(api_key=KEY)
    client = lumiqtrace.Client(config)
    assert KEY not in repr(config) + repr(client) + str(config.api_key) + f"{config}"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(config)
    try:
        raise ValueError(config)
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert KEY not in "".join(shown.format())


def test_what_is_not_passed_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("LUMIQTRACE_API_KEY", KEY)
    monkeypatch.setenv("LUMIQTRACE_BATCH_SIZE", "7")
    monkeypatch.setenv("LUMIQTRACE_FLUSH_INTERVAL", "0.5")
    monkeypatch.setenv("LUMIQTRACE_DEBUG", "yes")
    monkeypatch.setenv("LUMIQTRACE_ENVIRONMENT", " staging ")
    config = LumiqConfig.from_options({"batch_size": 9, "environment": None})
    assert config.api_key == Secret(KEY)
    assert (config.batch_size, config.flush_interval, config.debug) == (9, 0.5, True)
    assert config.environment == "staging"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("BATCH_SIZE", "many"), ("FLUSH_INTERVAL", "soon"), ("ENABLED", "perhaps"), ("BASE_URL", "nowhere")],
)
def test_a_wrong_environment_variable_is_named(monkeypatch, variable, value):
    monkeypatch.setenv(f"LUMIQTRACE_{variable}", value)
    with pytest.raises(ConfigError, match=value) as caught:
        LumiqConfig.from_options({})
    assert variable.lower() in str(caught.value).lower()


def test_the_defaults_are_those_of_the_documentation():
    config = LumiqConfig()
    assert config.base_url == "https://api.lumiqtrace.com"
    assert (config.environment, config.enabled, config.batch_size) == ("production", True, 50)
    assert (config.flush_interval, config.max_queue_events) == (2.0, 50_000)
    assert config.max_queue_bytes == 32 * 1024 * 1024
    assert not config.active
