"""Where a host is, told from its name alone."""

from __future__ import annotations

import pytest

from lumiqtrace._hosts import is_local, is_private


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("Web.LocalHost.", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1", False),
        ("host1", False),
    ],
)
def test_what_this_machine_is(host, local):
    assert is_local(host) is local


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.1.1", True),
        ("fd00::1", True),
        ("fe80::1", True),
        ("::ffff:10.1.2.3", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("backend", True),
        ("collector.Internal.", True),
        ("lumiqtrace.observability.svc", True),
        ("lumiqtrace.observability.svc.cluster.local", True),
        ("capture.invalid", True),
        ("api.lumiqtrace.com", False),
        ("internal.example.com", False),
        ("notinternal", True),
        ("134744072", False),
        ("0x8080808", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_what_a_private_network_is(host, private):
    assert is_private(host) is private
