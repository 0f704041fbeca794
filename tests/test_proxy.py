"""Which proxy the environment's variables mean, as a table."""

from __future__ import annotations

import pytest

from lumiqtrace._delivery.proxy import Proxy, ProxyError, proxy_for

P = "http://proxy.test:3128"
FOUND = Proxy("proxy.test", 3128, None)


@pytest.mark.parametrize(
    ("scheme", "environ", "found"),
    [
        ("https", {}, None),
        ("https", {"HTTPS_PROXY": P}, FOUND),
        ("https", {"https_proxy": P, "HTTPS_PROXY": "http://other.test"}, FOUND),
        ("https", {"HTTP_PROXY": P}, None),
        ("https", {"ALL_PROXY": P}, FOUND),
        ("https", {"HTTPS_PROXY": "", "all_proxy": P}, FOUND),
        ("https", {"HTTPS_PROXY": "proxy.test:3128"}, FOUND),
        ("https", {"HTTPS_PROXY": "http://proxy.test"}, Proxy("proxy.test", 80, None)),
        ("http", {"HTTP_PROXY": P}, FOUND),
        ("http", {"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, None),
        ("http", {"http_proxy": P, "REQUEST_METHOD": "GET"}, FOUND),
        ("http", {"HTTPS_PROXY": P}, None),
    ],
)
def test_which_variable_counts(scheme, environ, found):
    assert proxy_for(scheme, "api.example.com", 443, environ) == found


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("api.example.com", "", False),
        ("api.example.com", "*", True),
        ("api.example.com", "api.example.com", True),
        ("API.Example.Com.", "api.EXAMPLE.com", True),
        ("api.example.com", "example.com", True),
        ("api.example.com", ".example.com", True),
        ("api.example.com", "*.example.com", True),
        ("api.example.com", "other.test, example.com", True),
        ("api.example.com", "other.test example.com", True),
        ("api.example.com", "ample.com", False),
        ("api.example.com", "example.com:443", True),
        ("api.example.com", "example.com:8443", False),
        ("api.example.com", ".", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", "192.168.0.0/16", False),
        ("10.1.2.3", "nonsense/8", False),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "[fd00::1]:443", True),
        ("localhost", "", True),
        ("127.0.0.9", "", True),
        ("::1", "", True),
        ("0.0.0.0", "", True),
        ("::", "", True),
        ("::ffff:127.0.0.1", "", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("fd00::1", "fd00:0::1", True),
        ("::ffff:10.1.2.3", "", False),
    ],
)
def test_who_is_reached_directly(host, no_proxy, direct):
    found = proxy_for("https", host, 443, {"HTTPS_PROXY": P, "NO_PROXY": no_proxy})
    assert found == (None if direct else FOUND)


def test_a_proxy_with_a_password_does_not_show_it():
    found = proxy_for("https", "a.test", 443, {"HTTPS_PROXY": "http://me:p%40ss@proxy.test:3128"})
    assert found is not None
    assert found.credentials is not None
    assert found.credentials.reveal() == "me:p@ss"
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    "value",
    ["socks5://me:hush@proxy.test:1080", "https://me:hush@proxy.test", "http://me:hush@", "http://[me"],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(value):
    with pytest.raises(ProxyError, match=r"the proxy in ALL_PROXY .*http://proxy\.example:3128") as caught:
        proxy_for("https", "api.example.com", 443, {"ALL_PROXY": value})
    assert "hush" not in str(caught.value)
