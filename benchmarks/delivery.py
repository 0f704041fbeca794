"""How events are delivered, and what a backend that fails does to the program, beside two peers, in one run.

    python benchmarks/delivery.py

Makes an environment for each peer under `benchmarks/.envs` (once). Each scenario runs in a process of its
own, `delivery_probe.py`, against a backend in another, `delivery_sink.py`, which counts the model calls that
arrive. Takes about twenty minutes. Names of peers as arguments run those alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from overhead import python_of

HERE = Path(__file__).parent
PEERS = ("lumiqtrace", "langfuse", "sentry")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

Found = dict[str, float]

LIMITS = {
    "flush_ms": 1.5,
    "requests_a_flush": 1.0,
    "down_slow": 0,
    "hang_slow": 0,
    "down_p50": 1.05,
    "hang_p50": 1.05,
    "down_memory": 16.0,
    "hang_memory": 16.0,
    "down_exit": 2.1,
    "hang_exit": 2.1,
    "down_flush": 5.1,
    "hang_flush": 5.1,
    "outage_lost": 0.0,
    "burst_lost": 0.0,
    "hand_lost": 0.0,
}
"""What we allow ourselves; calls that are slow without a tracer, or while all is well, do not count."""

BURST_RATE = 2500.0
"""Events a second that we want at least, of calls that compute for 0.1 ms."""

BURST_SHARE = BURST_RATE / 3770
"""Of the program's own rate: where that limit was set, the client library alone made 3,770 calls a second."""

ROWS = {
    "cpu": "added CPU of all threads, a call (us)",
    "flush_ms": "flush right after one call (ms)",
    "requests_a_flush": "... requests it makes",
    "burst_lost": "burst of 20,000 calls: lost (%)",
    "burst_rate": "... delivered, calls a second",
    "hand_lost": "the same without a client: lost (%)",
    "hand_rate": "... delivered, calls a second",
    "down_slow": "backend down: calls over 20 ms",
    "down_p50": "... median call, of the healthy one",
    "down_memory": "... memory over 50,000 calls (MiB)",
    "down_second_half": "... of it in the second half",
    "down_flush": "... flush (s)",
    "down_exit": "... exit of the process (s)",
    "hang_slow": "backend hangs: calls over 20 ms",
    "hang_p50": "... median call, of the healthy one",
    "hang_memory": "... memory over 50,000 calls (MiB)",
    "hang_second_half": "... of it in the second half",
    "hang_flush": "... flush (s)",
    "hang_exit": "... exit of the process (s)",
    "outage_lost": "outage of 8 s, 530 calls: lost",
}


class Sink:
    """The backend's process."""

    def __init__(self, peer: str) -> None:
        command = [str(python_of(peer)), str(HERE / "delivery_sink.py"), peer]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        self.url = f"http://127.0.0.1:{self.say('ok')['port']}"

    def say(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def run(peer: str, scenario: str) -> Found:
    """What the probe found; with `exit_s`, `calls` and `requests` as the parent and the backend saw them."""
    home = "lumiqtrace" if peer == "bare" else peer
    sink = Sink(home)
    command = [str(python_of(home)), str(HERE / "delivery_probe.py"), peer, sink.url, scenario]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found: Found = {}
        for line in process.stdout:
            told = json.loads(line)
            if "away" in told:
                sink.say("down")
                time.sleep(told["away"])
                sink.say("ok")
            elif "fails" in told:
                sink.say(scenario)
                print(file=process.stdin, flush=True)
            else:
                found, ended = told, time.monotonic()
        process.wait()
        found["exit_s"] = time.monotonic() - ended
    found |= sink.say("count")
    sink.close()
    return found


def measure(peer: str, bare: dict[str, Found]) -> Found:
    one = run(peer, "flush_after_one")
    found: Found = {
        "cpu": run(peer, "cpu")["cpu_us"],
        "flush_ms": one["flush_ms"],
        "requests_a_flush": one["requests"] / one["flushes"],
    }
    burst = run(peer, "burst")
    found["burst_lost"] = 100 * (1 - burst["calls"] / burst["emitted"])
    found["burst_rate"] = burst["calls"] / burst["all_s"]
    burst = run(peer, "by_hand")
    found["hand_lost"] = 100 * (1 - burst["calls"] / burst["emitted"])
    found["hand_rate"] = burst["calls"] / burst["all_s"]
    for fault in ("down", "hang"):
        failing = run(peer, fault)
        found |= {
            f"{fault}_slow": max(0.0, failing["slow"] - bare["down"]["slow"]),
            f"{fault}_p50": failing["p50"],
            f"{fault}_memory": failing["memory_mib"] - bare["down"]["memory_mib"],
            f"{fault}_second_half": failing["second_half_mib"] - bare["down"]["second_half_mib"],
            f"{fault}_flush": failing["flush_s"],
            f"{fault}_exit": failing["exit_s"],
        }
    outage = run(peer, "outage")
    found["outage_lost"] = outage["emitted"] - outage["calls"]
    return found


def table(results: dict[str, Found]) -> str:
    lines = [f"{'':40}" + "".join(f"{peer:>14}" for peer in results)]
    for key, title in ROWS.items():
        cells = [
            f"{found[key]:14.0f}" if found[key] >= 100 else f"{found[key]:14.2f}"
            for found in results.values()
        ]
        lines.append(f"{title:40}" + "".join(cells))
    return "\n".join(lines)


def broken(ours: Found, bare_rate: float) -> list[str]:
    """Which of our own limits were not kept; `bare_rate` is the burst's without a tracer, calls a second."""
    over = [
        f"{ROWS[key]}: {ours[key]:.2f}, not {limit}" for key, limit in LIMITS.items() if ours[key] > limit
    ]
    rates = {"burst_rate": min(BURST_RATE, BURST_SHARE * bare_rate), "hand_rate": BURST_RATE}
    over += [
        f"{key}: {ours[key]:.0f} calls a second, not {least:.0f}"
        for key, least in rates.items()
        if ours[key] < least
    ]
    return over


def main() -> None:
    peers = sys.argv[1:] or PEERS
    bare = {scenario: run("bare", scenario) for scenario in ("down", "burst")}
    results = {}
    for peer in peers:
        print(f"{peer} ...", file=sys.stderr)
        results[peer] = measure(peer, bare)
    print(table(results))
    bare_rate = 20_000 / bare["burst"]["loop_s"]
    print(f"\nWithout a tracer the burst's calls come at {bare_rate:.0f} a second.")
    if "lumiqtrace" in results:
        over = broken(results["lumiqtrace"], bare_rate)
        print("\n".join(["Limits that are broken:", *over]) if over else "Every limit is kept.")


if __name__ == "__main__":
    main()
