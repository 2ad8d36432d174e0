"""Server URLs."""

from __future__ import annotations

import socket

import pytest

from taskq import TaskQ
from taskq.address import safe_url
from taskq.broker.net.url import connection_arguments, new_async_connection, new_connection
from taskq.config import load_settings
from taskq.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:7000/3", {"host": "h", "port": 7000, "db": 3}),
        ("valkey://h", {"host": "h"}),
        ("rediss://u:p%40ss@h", {"host": "h", "username": "u", "password": "p@ss"}),
        ("valkeys://:secret@h", {"host": "h", "password": "secret"}),
        ("unix:///run/taskq.sock?db=2", {"path": "/run/taskq.sock", "db": 2}),
        ("unix:///a%20folder/s", {"path": "/a folder/s"}),
        ("rediss://h?ssl_ca_certs=/ca.pem", {"ssl_ca_certs": "/ca.pem"}),
        ("redis://h?socket_connect_timeout=2", {"socket_connect_timeout": 2.0}),
    ],
)
def test_credentials_and_options_pass_through(url: str, expected: dict[str, object]) -> None:
    arguments = connection_arguments(url)

    assert {name: arguments.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "url", ["redis://h?retry_on_timeout=true&decode_responses=true", "unix:///s?retry_on_timeout=1"]
)
def test_options_that_would_break_a_promise_are_fixed(url: str) -> None:
    arguments = connection_arguments(url)

    assert (arguments["retry_on_timeout"], arguments["retry_on_error"], arguments["decode_responses"]) == (
        False, [], False,
    )  # fmt: skip


@pytest.mark.parametrize("url", ["valkey://h", "valkeys://h", "valkey://h?socket_keepalive=false"])
def test_the_kernel_notices_within_8_seconds_that_the_other_end_is_gone(url: str) -> None:
    for made in (new_connection(url, 1.0), new_async_connection(url)):
        options = made.socket_keepalive_options
        assert made.socket_keepalive
        assert options[socket.TCP_KEEPINTVL] * options[socket.TCP_KEEPCNT] + max(options.values()) == 8


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h", "Connection"),
        ("valkey://h", "Connection"),
        ("rediss://h", "SSLConnection"),
        ("valkeys://h", "SSLConnection"),
        ("unix:///s", "UnixDomainSocketConnection"),
    ],
)
def test_the_scheme_decides_on_the_connection_and_nothing_is_repeated(url: str, kind: str) -> None:
    for made, timeout in ((new_connection(url, 1.5), 1.5), (new_async_connection(url), None)):
        assert type(made).__name__ == kind
        assert made.socket_timeout == timeout
        assert made.retry.get_retries() == 0


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://h", "redis:/h", "REDIS://h", "amqp://u:secret@h"])
def test_what_is_no_url_of_ours_is_refused_with_what_would_be(url: str) -> None:
    with pytest.raises(ConfigError, match="does not begin with one of redis://, rediss://") as caught:
        connection_arguments(url)
    assert "secret" not in str(caught.value)


UNREADABLE = ["redis://h:port", "redis://h:99999", "redis://:secret@h:port", "redis://h?db=y", "redis://me:secret"]
#: Passwords whose special characters are not percent-encoded end the host's part too soon.
UNQUOTED = [
    "redis://:secret/1@h", "redis://:secret#1@h", "redis://u:secret?@h", "redis://:57#secret@h", "rediss://:57?secret@h",
    "valkey://me:57#x=secret@h", "unix://me:57#secret@/run/s.sock", "redis://h?password=secret#1",
]  # fmt: skip


@pytest.mark.parametrize("url", UNREADABLE + UNQUOTED)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        connection_arguments(url)
    assert "secret" not in str(caught.value)


def test_a_socket_needs_a_path() -> None:
    with pytest.raises(ConfigError, match="no path to a socket"):
        connection_arguments("unix://")


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:secret@h", "redis://:***@h"),
        ("redis://user:secret@h/1", "redis://user:***@h/1"),
        ("redis://user@h", "redis://user@h"),
        ("redis://user:sec@ret@h", "redis://user:***@h"),
        ("redis://user:sec:ret@h", "redis://user:***@h"),
        ("unix://u:secret@/run/s.sock", "unix://u:***@/run/s.sock"),
        ("redis://h?db=1&password=secret&protocol=3", "redis://h?db=1&password=***&protocol=3"),
        ("rediss://h?ssl_password=sec%40ret&ssl_keyfile=/k", "rediss://h?ssl_password=***&ssl_keyfile=/k"),
        ("rediss://u:a@h?db=1&SSL_Password=sec@ret", "rediss://u:***@h?db=1&SSL_Password=***"),
        ("redis://user:secret", "redis://user:***"),
        ("redis://[::1]:6379/1", "redis://[::1]:6379/1"),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_people_see_a_url_without_its_password(url: str, safe: str) -> None:
    assert safe_url(url) == safe


@pytest.mark.parametrize("url", ["redis://h/shop", "valkey://h:7000/1/2", "rediss://u:secret@h/-1"])
def test_a_path_that_is_no_database_is_refused_instead_of_taken_for_the_first(url: str) -> None:
    with pytest.raises(ConfigError, match="where the number of a database may be: /0") as caught:
        connection_arguments(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["amqp://u:secret@h", "redis://:57#secret@h", "redis://h/shop", "unix://"])
def test_an_app_with_a_url_that_cannot_work_is_refused_when_it_is_made(url: str) -> None:
    with pytest.raises(ConfigError, match=r"the server URL .* \(from an argument\)") as caught:
        TaskQ("shop", url)
    with pytest.raises(ConfigError, match=r"the server URL .* \(from TASKQ_URL\)"):
        load_settings({}, {"TASKQ_URL": url})
    assert "secret" not in str(caught.value)


def test_the_settings_show_no_password() -> None:
    assert "secret" not in repr(TaskQ("shop", "redis://:secret@h").settings)
