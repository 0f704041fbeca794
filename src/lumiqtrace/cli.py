"""The command line, also as `python -m lumiqtrace`: demo, serve, doctor, traces, losses, prices,
projects.

A mistake is one sentence on standard error and exit status 1; a wrong option is status 2.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ._commands.finding import Finding
from ._commands.words import printable
from ._config import LumiqConfig
from ._errors import CommandError, ConfigError, MissingExtraError
from ._version import __version__

_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""The system's errors for a file, a disk or a terminal that takes no more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no lines gets question marks
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = parsed.run
    try:
        _check_texts(parsed)
        run(parsed)
        if sys.stdout is not None:
            sys.stdout.flush()  # else Python does it later, where nobody catches what it raises
    except (CommandError, ConfigError, MissingExtraError) as error:
        return _failed(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        _write_no_more()
        return 0
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _write_no_more()
        return _failed(f"the output cannot be written: {error.strerror}")
    return 0


def _failed(why: object) -> int:
    """Say it; gives the exit status."""
    print(f"lumiqtrace: {printable(str(why))}", file=sys.stderr)
    return 1


def _write_no_more() -> None:
    """What is still to be written goes nowhere, rather than to fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_texts(parsed: argparse.Namespace) -> None:
    """Bytes that are no UTF-8 have no place in an address; in the path of a folder they have.

    A token is looked at where it is used, and shown nowhere.
    """
    for name, value in vars(parsed).items():
        if isinstance(value, str) and name != "token" and not _is_utf8(value):
            raise CommandError(f"{name}: {value!r} is not UTF-8; write it in the letters that it is made of")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _demo(parsed: argparse.Namespace) -> None:
    _need_server_extra("lumiqtrace demo")
    from .demo import run

    run(live=parsed.live, leave=parsed.exit)


def _serve(parsed: argparse.Namespace) -> None:
    _need_server_extra("lumiqtrace serve")
    from .server import ServerError, serve

    try:
        serve(parsed.data, parsed.host, parsed.port, monthly_events=parsed.monthly_events)
    except ServerError as error:
        raise CommandError(str(error)) from error


def _create_project(parsed: argparse.Namespace) -> None:
    _need_server_extra("lumiqtrace projects")
    from .server import ServerError, create_project

    try:
        made = create_project(parsed.data, parsed.name)
    except ServerError as error:
        raise CommandError(str(error)) from error
    print(f"Project {made.project_id}. Its secrets are shown this once; keep them.")
    print(f"  API key:    {made.api_key}\n  Read token: {made.read_token}")


def _show_trace(parsed: argparse.Namespace) -> None:
    from ._commands.reader import fetch_trace

    base_url = LumiqConfig.from_options({"base_url": parsed.base_url}).base_url
    project = _required(parsed.project, "--project", "LUMIQTRACE_PROJECT_ID")
    token = _required(parsed.token, "--token", "LUMIQTRACE_READ_TOKEN")
    roots = fetch_trace(base_url, project, token, parsed.trace_id)
    if parsed.json:
        print(json.dumps(roots, indent=2, ensure_ascii=False))
        return
    _need_server_extra("lumiqtrace traces show")
    from ._commands.terminal import TraceView, console

    console().print(TraceView(roots))


def _show_losses(parsed: argparse.Namespace) -> None:
    from ._commands.loss_view import fetch_losses, sentences

    base_url = LumiqConfig.from_options({"base_url": parsed.base_url}).base_url
    project = _required(parsed.project, "--project", "LUMIQTRACE_PROJECT_ID")
    token = _required(parsed.token, "--token", "LUMIQTRACE_READ_TOKEN")
    losses = fetch_losses(base_url, project, token)
    if parsed.json:
        print(json.dumps(losses, indent=2, ensure_ascii=False))
        return
    print("\n".join(sentences(losses)))


def _prices(_parsed: argparse.Namespace) -> None:
    from ._commands.price_index import make_index
    from ._price_index import FILE, open_index

    try:
        made = make_index(FILE)
    except ImportError as error:
        raise CommandError(f"genai-prices, which has the prices, cannot be imported: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CommandError(
            f"the installed genai-prices cannot be indexed ({type(error).__name__}: {error}); "
            "prices are taken from the package itself"
        ) from error
    except OSError as error:
        raise CommandError(
            f"{FILE} cannot be written: {error.strerror}; run this where you install"
        ) from error
    if open_index() is None:
        raise CommandError(
            f"{FILE} is written and will not be used: beside the package there must be exactly one "
            f"genai_prices-*.dist-info folder, that of {made.release}"
        )
    print(
        f"genai-prices {made.release}: {made.models:,} models of {made.providers} providers. "
        f"The prices of {made.held:,} are read from lumiqtrace's index now, without loading the package."
    )


def _doctor(parsed: argparse.Namespace) -> None:
    from ._commands.doctor import examine
    from ._commands.finding import FAILURE

    findings: list[Finding] = []
    for finding in examine(parsed.base_url, parsed.timeout):
        findings.append(finding)
        if not parsed.json:
            _show_finding(finding)
    if parsed.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2, ensure_ascii=False))
    if failed := [finding.step for finding in findings if finding.state == FAILURE]:
        raise CommandError(f"events cannot be delivered: {', '.join(failed)}")


def _show_finding(finding: Finding) -> None:
    if find_spec("rich") is None:
        print(*finding.lines(), sep="\n", flush=True)
        return
    from ._commands.terminal import console, finding_text

    console().print(finding_text(finding.lines(), finding.state), soft_wrap=True)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to 600")
    return seconds


def _required(value: str | None, option: str, variable: str) -> str:
    found = value or os.environ.get(variable)
    if not found:
        raise CommandError(f"pass {option} or set {variable}; `lumiqtrace serve` printed it at first")
    if not _is_utf8(found):
        raise CommandError(f"{option}: what it or {variable} holds is not UTF-8; copy it again")
    return found


def _need_server_extra(command: str) -> None:
    """The server's libraries, rich among them, come with one extra."""
    if not all(find_spec(name) for name in ("rich", "sqlalchemy", "starlette", "uvicorn", "msgspec")):
        raise MissingExtraError(command, "server")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lumiqtrace", description="Traces of language-model calls.")
    parser.add_argument("--version", action="version", version=f"lumiqtrace {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run a traced example application and show its trace")
    demo.add_argument("--live", action="store_true", help="call the real OpenAI API (needs OPENAI_API_KEY)")
    demo.add_argument("--exit", action="store_true", help="end when the trace is shown")
    demo.set_defaults(run=_demo)

    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument("--data", type=Path, metavar="FOLDER", help="where its database is kept")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8417, help="port to listen on (8417; 0 takes a free one)")
    serve.add_argument("--monthly-events", type=int, metavar="N", help="events a project may store a month")
    serve.set_defaults(run=_serve)

    doctor = commands.add_parser("doctor", help="check every step from the options to an accepted event")
    doctor.add_argument("--base-url", metavar="URL", help="the server (LUMIQTRACE_BASE_URL)")
    doctor.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for each step that waits (10)"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)

    losses = commands.add_parser("losses", help="say what a project's services lost")
    _add_access(losses)
    losses.set_defaults(run=_show_losses)

    prices = commands.add_parser("prices", help="index the prices of the installed genai-prices package")
    prices.set_defaults(run=_prices)

    traces = commands.add_parser("traces", help="read traces")
    show = traces.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "show", help="print one trace as a tree"
    )
    show.add_argument("trace_id", metavar="TRACE_ID")
    _add_access(show)
    show.set_defaults(run=_show_trace)

    projects = commands.add_parser("projects", help="manage projects")
    create = projects.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "create", help="make a project with a key and a token of its own"
    )
    create.add_argument("name", metavar="NAME")
    create.add_argument("--data", type=Path, metavar="FOLDER", help="where the server's database is kept")
    create.set_defaults(run=_create_project)
    return parser


def _add_access(parser: argparse.ArgumentParser) -> None:
    """What reading a project's data from a server takes."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--base-url", metavar="URL", help="the server (LUMIQTRACE_BASE_URL)")
    parser.add_argument("--project", metavar="ID", help="the project (LUMIQTRACE_PROJECT_ID)")
    parser.add_argument("--token", metavar="TOKEN", help="its read token (better in LUMIQTRACE_READ_TOKEN)")
