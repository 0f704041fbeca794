from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import lumiqtrace
from lumiqtrace import ConfigError, LumiqConfig
from lumiqtrace._config import Secret
from lumiqtrace._default import client_for

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
        ({"base_url": "https://lumiq.example/v1/ingest/"}, ["base_url", "without /v1/ingest"]),
        ({"prices": [1]}, ["prices", "list"]),
        ({"prices": {"m": 3}}, ["prices", "'m'", "3"]),
        ({"prices": {"m": {}}}, ["prices", "'m'"]),
        ({"prices": {"m": {"inputs": 3}}}, ["prices", "'m'", "'inputs'"]),
        ({"prices": {"m": {"input": -3}}}, ["prices", "'m'", "-3"]),
        ({"store_prompts": "yes"}, ["store_prompts", "'yes'"]),
        ({"sample_rate": 1.5}, ["sample_rate", "1.5", "0 to 1"]),
        ({"sample_rate": -0.1}, ["sample_rate", "-0.1"]),
        ({"sample_rate": "half"}, ["sample_rate", "'half'"]),
        ({"sample_rate": float("nan")}, ["sample_rate", "nan"]),
        ({"sample_errors": 1}, ["sample_errors", "1"]),
        ({"redact_fields": "password"}, ["redact_fields", "'password'", "list"]),
        ({"redact_fields": ["password", 3]}, ["redact_fields", "3"]),
        ({"redact_fields": ["_"]}, ["redact_fields", "'_'"]),
        ({"replace_default_redact_fields": "yes"}, ["replace_default_redact_fields", "'yes'"]),
        ({"redact_secrets": 0}, ["redact_secrets", "0"]),
        ({"before_send": "print"}, ["before_send", "'print'", "function"]),
        ({"capture_request_body": "yes"}, ["capture_request_body", "'yes'"]),
        ({"capture_response_body": "yes"}, ["capture_response_body", "'yes'"]),
        ({"max_body_bytes": -1}, ["max_body_bytes", "-1"]),
        ({"flush": "never"}, ["flush", "'never'", "auto", "background", "request"]),
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


def test_a_configuration_of_ones_own_reads_the_environment_for_what_was_not_passed(monkeypatch):
    monkeypatch.setenv("LUMIQTRACE_API_KEY", KEY)
    monkeypatch.setenv("LUMIQTRACE_BASE_URL", "http://127.0.0.1:8417")
    monkeypatch.setenv("LUMIQTRACE_SAMPLE_RATE", "0.25")
    monkeypatch.setenv("LUMIQTRACE_BATCH_SIZE", "20")
    monkeypatch.setenv("LUMIQTRACE_REDACT_FIELDS", "iban, customer-no,,")
    monkeypatch.setenv("LUMIQTRACE_FLUSH", "request")
    config = LumiqConfig(sample_rate=1.0, environment="production", api_key=None)
    assert config.api_key == Secret(KEY)
    assert config.base_url == "http://127.0.0.1:8417"
    assert config.sample_rate == 1.0, "what was passed counts, also where it is the default"
    assert (config.batch_size, config.flush_interval, config.flush) == (20, 5.0, "request")
    assert config.redact_fields == ("iban", "customer-no")


def test_every_option_has_its_variable_and_init_has_every_option(monkeypatch):
    parameters = inspect.signature(lumiqtrace.init).parameters
    assert set(parameters) == {option.name for option in dataclasses.fields(LumiqConfig)}
    for option in dataclasses.fields(LumiqConfig):
        if option.name not in ("prices", "before_send", "enabled"):
            monkeypatch.setenv(f"LUMIQTRACE_{option.name.upper()}", "!")
            with contextlib.suppress(ConfigError):
                assert getattr(LumiqConfig(), option.name) in ("!", ("!",), str(Path("!").absolute()))
            monkeypatch.delenv(f"LUMIQTRACE_{option.name.upper()}")


def test_what_is_switched_off_by_name_reads_nothing(monkeypatch):
    monkeypatch.setenv("LUMIQTRACE_BATCH_SIZE", "many")
    assert not LumiqConfig(enabled=False).active
    done = subprocess.run([sys.executable, "-c", "import lumiqtrace"], check=False, timeout=50)
    assert done.returncode == 0, "an import never fails for an option"


def test_equal_options_are_equal_configurations():
    def hook(event):
        return event

    assert LumiqConfig(redact_fields=["a"], before_send=hook) == LumiqConfig(
        redact_fields=("a",), before_send=hook
    )
    assert LumiqConfig() == LumiqConfig(batch_size=10)
    assert hash(LumiqConfig(redact_fields=["a"])) == hash(LumiqConfig(redact_fields=["a"]))
    assert dataclasses.replace(LumiqConfig(batch_size=3), debug=True) == LumiqConfig(batch_size=3, debug=True)
    assert copy.copy(LumiqConfig(batch_size=3)) == LumiqConfig(batch_size=3)
    assert copy.deepcopy(LumiqConfig(batch_size=3)) == LumiqConfig(batch_size=3)
    assert pickle.loads(pickle.dumps(LumiqConfig(batch_size=3))) == LumiqConfig(batch_size=3)
    assert LumiqConfig() != LumiqConfig(batch_size=3)
    assert LumiqConfig() != "LumiqConfig()"


def test_a_configuration_says_what_it_is_and_stays_so():
    config = LumiqConfig(batch_size=3)
    for attribute in ("batch_size", "unknown"):
        with pytest.raises(AttributeError, match=attribute):
            setattr(config, attribute, 4)
    with pytest.raises(AttributeError, match="batch_size"):
        del config.batch_size
    assert repr(config).startswith("LumiqConfig(api_key=None, base_url='https://api.lumiqtrace.com', ")
    assert "batch_size=3" in repr(config)
    assert dataclasses.asdict(config)["batch_size"] == 3


def test_an_option_that_is_none_is_refused():
    with pytest.raises(TypeError, match="'sample_rat'"):
        LumiqConfig(sample_rat=0.5)
    with pytest.raises(TypeError):
        LumiqConfig(KEY)


def test_the_defaults_are_those_of_the_documentation():
    own, init = LumiqConfig(), LumiqConfig.from_options({})
    assert (own.batch_size, own.flush_interval) == (10, 5.0)
    assert (init.batch_size, init.flush_interval) == (50, 2.0)
    for config in (own, init):
        assert config.base_url == "https://api.lumiqtrace.com"
        assert (config.environment, config.enabled, config.max_queue_events) == ("production", True, 50_000)
        assert config.max_queue_bytes == 32 * 1024 * 1024
        assert (config.sample_rate, config.sample_errors, config.flush) == (1.0, False, "auto")
        assert (config.capture_request_body, config.capture_response_body, config.max_body_bytes) == (
            False,
            False,
            65_536,
        )
        assert (config.redact_fields, config.replace_default_redact_fields, config.redact_secrets) == (
            (),
            False,
            True,
        )
        assert not config.active


def test_a_middleware_initialises_the_client_unless_init_did(backend):
    config = LumiqConfig(api_key=KEY, base_url=backend.url)
    client = client_for(config)
    assert client.recording
    assert lumiqtrace.get_client() is client
    assert client_for(LumiqConfig(api_key=KEY, base_url=backend.url, environment="other")) is client
    assert client_for(LumiqConfig(enabled=False)) is client
    client.shutdown()
    assert client_for(config) is not client


@pytest.mark.parametrize("options", [{"enabled": False}, {"sample_rate": 0.0}, {}])
def test_after_init_a_middleware_takes_the_client_there_is(backend, options):
    client = lumiqtrace.init(KEY, base_url=backend.url, **options)
    assert client_for(LumiqConfig(api_key=KEY, base_url=backend.url)) is client


def test_a_middleware_with_a_key_starts_what_init_could_not(backend):
    lumiqtrace.init()
    assert not client_for(LumiqConfig()).recording
    assert client_for(LumiqConfig(api_key=KEY, base_url=backend.url)).recording
