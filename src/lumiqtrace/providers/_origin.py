"""Whose API an address is: the event's provider and vendor, by the host that an OpenAI client calls."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

_HOSTS: Final = (
    ("api.openai.com", "openai", None),
    ("openai.azure.com", "openai", "azure"),
    ("cognitiveservices.azure.com", "openai", "azure"),
    ("services.ai.azure.com", "openai", "azure"),
    ("api.anthropic.com", "anthropic", None),
    ("googleapis.com", "google", None),
    ("amazonaws.com", "custom", "bedrock"),
    ("openrouter.ai", "custom", "openrouter"),
    ("groq.com", "custom", "groq"),
    ("together.xyz", "custom", "together"),
    ("together.ai", "custom", "together"),
    ("deepseek.com", "custom", "deepseek"),
    ("mistral.ai", "custom", "mistral"),
    ("x.ai", "custom", "x-ai"),
    ("fireworks.ai", "custom", "fireworks"),
    ("perplexity.ai", "custom", "perplexity"),
    ("cerebras.ai", "custom", "cerebras"),
    ("huggingface.co", "custom", "huggingface"),
    ("ollama.com", "custom", "ollama"),
)


@lru_cache(maxsize=256)
def origin(url: str) -> tuple[str, str | None]:
    """Provider and vendor of an API address; an unknown host is `custom` with its name as the vendor."""
    host = urlsplit(url).hostname or "unknown"
    for suffix, provider, vendor in _HOSTS:
        if host == suffix or host.endswith("." + suffix):
            return provider, vendor
    return "custom", host
