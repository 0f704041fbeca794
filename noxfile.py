"""The slow matrices: the provider tests on the client versions we promise to support.

`nox -l` lists them, `nox -s "providers(oldest)"` runs one. The newest clients are the ordinary tests'.
"""

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

CLIENTS = {
    # httpx 0.28 dropped an argument that clients of 2024 still pass.
    "oldest": ["openai==1.40.0", "anthropic==0.40.0", "google-genai==1.0.0", "httpx<0.28"],
    "2025": ["openai==1.109.1", "anthropic==0.75.0", "google-genai==1.75.0"],
    "openai2": ["openai==2.0.0", "anthropic==0.75.0", "google-genai==1.75.0"],
    "early2026": ["openai==2.54.0", "anthropic==1.0.0", "google-genai==1.75.0"],
    "newest": ["openai", "anthropic", "google-genai", "botocore"],
}

TESTS = [
    "tests/test_openai.py",
    "tests/test_openai_routes.py",
    "tests/test_stream_usage.py",
    "tests/test_websocket.py",
    "tests/test_anthropic.py",
    "tests/test_prompt.py",
    "tests/test_google.py",
    "tests/test_google_live.py",
]

SOAK = ["tests/faults/test_soak.py", "tests/faults/test_spool_process.py"]


@nox.session
@nox.parametrize("clients", [nox.param(name, id=name) for name in CLIENTS])
def providers(session: nox.Session, clients: str) -> None:
    """The provider tests with the clients of one time."""
    session.install("-q", "-e", ".", "pytest", "pytest-timeout", "hypothesis", *CLIENTS[clients])
    session.run("python", "-m", "pytest", "-q", *TESTS, *session.posargs)


@nox.session
def pyright(session: nox.Session) -> None:
    """The other type checker; it fetches itself from the npm registry."""
    session.install("-q", "-e", ".[all]", "pytest", "pyright")
    session.run("pyright", "src")


@nox.session
def soak(session: nox.Session) -> None:
    """The long forms of what the ordinary tests do in seconds: random faults, processes killed at random."""
    session.install("-q", "-e", ".[server]", "pytest", "pytest-timeout", "hypothesis")
    session.env |= {"SOAK_SECONDS": "30", "KILLS": "50"}
    session.run("python", "-m", "pytest", "-q", *SOAK, *session.posargs)


FRAMEWORKS = [
    "langchain-openai",
    "llama-index-llms-openai",
    "litellm",
    "instructor",
    "openai-agents",
    "pydantic-ai",
]


@nox.session
@nox.parametrize("framework", [nox.param(name, id=name) for name in FRAMEWORKS])
def frameworks(session: nox.Session, framework: str) -> None:
    """One event a call under a framework that calls the clients for its users."""
    session.install(
        "-q", "-e", ".[openai,anthropic,server]", "pytest", "pytest-timeout", "hypothesis", framework
    )
    session.run("python", "-m", "pytest", "-q", "tests/frameworks", *session.posargs)
