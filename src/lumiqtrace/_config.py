"""The options: one frozen object, checked when it is made.

Each option is what was passed, else the environment's `LUMIQTRACE_<OPTION>`, else its default. A wrong
value is refused with the option's name, the value and what would be right; the API key is never shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypeVar, dataclass_transform
from urllib.parse import urlsplit

from ._errors import ConfigError
from ._event import Event
from ._hosts import is_private

if TYPE_CHECKING:
    from dataclasses import Field

T = TypeVar("T")

KEY_PREFIX: Final = "lqt_"
MIB: Final = 1024 * 1024

Prices = Mapping[str, Mapping[str, float]] | Callable[[Event], float | None]
"""USD per million tokens by model name, exact or as a prefix: `{"my-model": {"input": 1.0, "output": 2.0}}`;
also `cached` and `cache_write`, which default to `input`. Or a function from the event to dollars, None
where it knows none."""

BeforeSend = Callable[[Event], Event | None]
"""Looks at each event before it leaves, secrets already redacted, on the delivering thread: returns it,
changed or not, or None to drop it."""

Flush = Literal["auto", "background", "request"]
Spool = Literal["batch", "always"]

_FLUSHES: Final = ("auto", "background", "request")
_SPOOLS: Final = ("batch", "always")
_INIT_DEFAULTS: Final = {"batch_size": 50, "flush_interval": 2.0}
_NO_VARIABLE: Final = ("prices", "before_send")
_PRICE_KEYS: Final = ("input", "output", "cached", "cache_write")


class Secret:
    """A string that shows itself to `reveal()` alone: not in reprs, logs, tracebacks or pickles."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _Options:
    """What a frozen dataclass has, written out. `dataclass` writes it for each class anew and compiles that,
    which takes 1.4 ms of every import.
    """

    _passed: frozenset[str]
    """The options that were passed: what was not gives way to the environment."""

    def __init__(self, **options: Any) -> None:
        defaults = {option.name: option.default for option in fields(self)}
        if unknown := options.keys() - defaults.keys():
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {min(unknown)!r}")
        passed = frozenset(name for name, value in options.items() if value is not None)
        vars(self).update(defaults | options, _passed=passed)
        self._check()

    def _check(self) -> None:
        """Fill in what was not passed. Raises ConfigError."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._values())
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _values(self) -> tuple[tuple[str, Any], ...]:
        return tuple((option.name, getattr(self, option.name)) for option in fields(self))

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


@dataclass_transform(kw_only_default=True, frozen_default=True)
def _options(cls: type[T]) -> type[T]:
    """Makes a dataclass of the annotated names, without the methods that `_Options` has."""
    return dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)


@_options
class LumiqConfig(_Options):
    """How this process records and delivers.

    `api_key` starts with `lqt_`; without one the SDK stays off. An option that is not passed, or None, is
    taken from `LUMIQTRACE_<OPTION>`, except for `prices` and `before_send`. Raises ConfigError.

    `allow_http` lets an unencrypted `base_url` be outside of this machine and private networks.

    Delivery: `flush_interval` and the timeouts are seconds, `batch_size` is events (1 to 100),
    `max_queue_bytes` is bytes. `init` has other defaults for `batch_size` (50) and `flush_interval` (2.0).
    `flush` is for middlewares: `request` flushes before each response ends, `background` does not, `auto`
    chooses by the platform. With `spool_dir` every batch is a file in that folder until it is accepted, and
    what a process left there is sent by the next one; `spool="always"` writes every 100 ms instead of every
    `flush_interval`. The folder keeps `spool_max_bytes` bytes, for `spool_max_age` seconds. `service` names
    this program where the server says who lost events.

    What is recorded: `sample_rate` is the share of traces, 0.0 to 1.0, decided from the trace id;
    `sample_errors` keeps a failed trace regardless. `prices` go before the built-in ones. `store_prompts`
    puts the text of prompts and completions on the events; `stream_usage` asks OpenAI for the token counts
    of chat streams whose caller did not. `capture_request_body` and `capture_response_body` keep up to
    `max_body_bytes` of each.

    What is redacted: values under `redact_fields`, which are added to the built-in names unless
    `replace_default_redact_fields`; what looks like a secret, unless `redact_secrets` is False.
    `before_send` may change or drop an event.
    """

    api_key: Secret | str | None = None
    base_url: str = "https://api.lumiqtrace.com"
    allow_http: bool = False
    environment: str = "production"
    service: str | None = None
    enabled: bool = True
    sample_rate: float = 1.0
    sample_errors: bool = False
    batch_size: int = 10
    flush_interval: float = 5.0
    flush_timeout: float = 5.0
    shutdown_timeout: float = 2.0
    flush: Flush = "auto"
    max_queue_events: int = 50_000
    max_queue_bytes: int = 32 * MIB
    spool_dir: str | os.PathLike[str] | None = None
    spool: Spool = "batch"
    spool_max_bytes: int = 256 * MIB
    spool_max_age: float = 7 * 86_400.0
    prices: Prices | None = None
    store_prompts: bool = False
    stream_usage: bool = True
    capture_request_body: bool = False
    capture_response_body: bool = False
    max_body_bytes: int = 64 * 1024
    redact_fields: tuple[str, ...] | list[str] = ()
    replace_default_redact_fields: bool = False
    redact_secrets: bool = True
    before_send: BeforeSend | None = None
    debug: bool = False

    def _check(self) -> None:
        # What is switched off by name reads nothing: an import makes such a configuration, and never fails.
        if self.enabled or "enabled" not in self._passed:
            self._fill_in()
        if isinstance(self.api_key, str):
            object.__setattr__(self, "api_key", Secret(self.api_key))
        object.__setattr__(self, "base_url", _checked_base_url(self.base_url, allow_http=self.allow_http))
        object.__setattr__(self, "redact_fields", _checked_names(self.redact_fields))
        _check_key(self.api_key)
        _check_type("environment", self.environment, str, "a name such as 'production'")
        for option in fields(self):
            if isinstance(option.default, bool):
                _check_type(option.name, getattr(self, option.name), bool, "True or False")
        _check_choice("flush", self.flush, _FLUSHES)
        _check_choice("spool", self.spool, _SPOOLS)
        object.__setattr__(self, "spool_dir", _checked_folder(self.spool_dir))
        if self.service is not None:
            _check_type("service", self.service, str, "a name such as 'checkout'")
        _check_prices(self.prices)
        if self.before_send is not None and not callable(self.before_send):
            raise ConfigError(
                f"before_send: {self.before_send!r} cannot be called; "
                "it is a function from an event to that event, or to None"
            )
        _check_range("sample_rate", self.sample_rate, float, 0, 1)
        _check_range("batch_size", self.batch_size, int, 1, 100)
        _check_range("flush_interval", self.flush_interval, float, 0.01, 3600)
        _check_range("flush_timeout", self.flush_timeout, float, 0, 3600)
        _check_range("shutdown_timeout", self.shutdown_timeout, float, 0, 3600)
        _check_range("max_queue_events", self.max_queue_events, int, 1, 10_000_000)
        _check_range("max_queue_bytes", self.max_queue_bytes, int, 64 * 1024, 64 * 1024 * MIB)
        _check_range("spool_max_bytes", self.spool_max_bytes, int, 64 * 1024, 1024 * 1024 * MIB)
        _check_range("spool_max_age", self.spool_max_age, float, 1, 10 * 365 * 86_400)
        _check_range("max_body_bytes", self.max_body_bytes, int, 0, 64 * MIB)

    def _fill_in(self) -> None:
        """What was not passed, from the environment, else from the defaults."""
        found = _from_environment(os.environ)
        for option in fields(self):
            if option.name not in self._passed:
                object.__setattr__(self, option.name, found.get(option.name, option.default))

    @property
    def active(self) -> bool:
        """Whether anything is recorded at all."""
        kept = self.sample_rate > 0 or self.sample_errors
        return self.enabled and self.api_key is not None and kept

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> LumiqConfig:
        """The configuration of `init`, which has defaults of its own; None is what was not passed."""
        given = {name: value for name, value in options.items() if value is not None}
        return cls(**{**_INIT_DEFAULTS, **_from_environment(os.environ), **given})


def _from_environment(environ: os._Environ[str] | dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in fields(LumiqConfig):
        if option.name in _NO_VARIABLE:
            continue
        variable = f"LUMIQTRACE_{option.name.upper()}"
        text = environ.get(variable, "").strip()
        if text:
            found[option.name] = _parsed(variable, text, option.default)
    return found


def _parsed(variable: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise ConfigError(f"{variable}: {text!r} is neither true nor false; use 1 or 0")
    if isinstance(default, tuple):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    if isinstance(default, int | float):
        kind = type(default)
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{variable}: {text!r} is not {noun}; for example {default}") from None
    return text


def _check_key(key: Secret | str | None) -> None:
    if key is None:
        return
    if not isinstance(key, Secret):
        raise ConfigError(f"api_key: got {type(key).__name__}; it is a string that starts with {KEY_PREFIX}")
    value = key.reveal()
    if not value.startswith(KEY_PREFIX):
        raise ConfigError(
            f"api_key: it does not start with {KEY_PREFIX}; copy it from your project's settings"
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError("api_key: it holds white space or characters that no key has; copy it again")


def _checked_base_url(url: object, *, allow_http: bool) -> str:
    right = "it is an http(s) address such as 'https://api.lumiqtrace.com'"
    if not isinstance(url, str):
        raise ConfigError(f"base_url: got {type(url).__name__}; {right}")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
        if parts.hostname:
            _check_labels(parts.hostname)
    except ValueError:
        raise ConfigError(f"base_url: {url!r} cannot be read; {right}") from None
    if "@" in parts.netloc:
        raise ConfigError("base_url: it holds a user name or password; pass the key as api_key instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url: {url!r} is no http(s) address; {right}")
    if parts.query or parts.fragment:
        raise ConfigError(f"base_url: {url!r} has a query or fragment; {right}")
    if parts.path.rstrip("/").endswith("/v1/ingest"):
        raise ConfigError(
            f"base_url: {url!r} is where events go; pass the server's address, without /v1/ingest"
        )
    if parts.scheme == "http" and allow_http is not True and not is_private(parts.hostname):
        raise ConfigError(
            f"base_url: {url!r} would send the API key unencrypted; use https://, "
            "or allow_http=True where the network is your own"
        )
    return url.rstrip("/")


def _check_labels(host: str) -> None:
    """Raises ValueError for a host name that no connection could use, such as `a..b`."""
    if not host.isascii():
        host.encode("idna")
    elif ":" not in host and not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        raise ValueError(host)


def _checked_names(names: object) -> tuple[str, ...]:
    right = "it is a list of field names, for example ['password', 'iban']"
    if not isinstance(names, list | tuple | set | frozenset):
        raise ConfigError(f"redact_fields: {names!r} cannot be used; {right}")
    for name in names:
        if not isinstance(name, str) or not any(letter.isalnum() for letter in name):
            raise ConfigError(f"redact_fields: {name!r} is no name; {right}")
    return tuple(sorted(names) if isinstance(names, set | frozenset) else names)


def _check_prices(prices: object) -> None:
    if prices is None or callable(prices):
        return
    right = "for example {'my-model': {'input': 1.0, 'output': 2.0}}, USD per million tokens"
    if not isinstance(prices, Mapping):
        raise ConfigError(f"prices: got {type(prices).__name__}; it is a mapping or a function, {right}")
    for model, price in prices.items():
        if not isinstance(price, Mapping) or not price:
            raise ConfigError(f"prices: {model!r} has {price!r}; it is {right}")
        for key, dollars in price.items():
            if key not in _PRICE_KEYS:
                raise ConfigError(f"prices: {model!r} has {key!r}, which is none of {', '.join(_PRICE_KEYS)}")
            _check_range(f"prices: {model!r}: {key}", dollars, float, 0, 1_000_000)


def _check_type(name: str, value: object, kind: type, right: str) -> None:
    if not isinstance(value, kind) or value == "":
        raise ConfigError(f"{name}: {value!r} cannot be used; it is {right}")


def _checked_folder(folder: object) -> str | None:
    right = "it is the path of a folder that only this program's user may read"
    if folder is None:
        return None
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"spool_dir: {folder!r} cannot be used; {right}")
    path = os.fspath(folder)
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"spool_dir: {path!r} is no path; {right}")
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib is loaded by nobody else here


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: {value!r} cannot be used; it is one of {', '.join(choices)}")


def _check_range(name: str, value: object, kind: type, low: float, high: float) -> None:
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        noun = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name}: {value!r} cannot be used; it is {noun} from {low} to {high}")
