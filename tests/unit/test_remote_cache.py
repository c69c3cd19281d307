"""The compile cache of a team as it is configured: each part, each address, and no secret in what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.request import settings
from nerves_docker_port.request.remote_cache import RemoteCache
from nerves_docker_port.request.settings import Settings
from support.requests import keyword

TIMEOUTS = "|connect-timeout=250|operation-timeout=500"
SECRET = "s3cr et|$%:/@#?é"  # with every character that means something on the way
QUOTED = "s3cr%20et%7C%24%25%3A%2F%40%23%3F%C3%A9"


def read(ccache: Term = None, **variables: str) -> Settings:
    return settings.parse(
        settings.keys([] if ccache is None else keyword(ccache=ccache)),
        {f"NERVES_DOCKER_CCACHE{'_' if name else ''}{name}": value for name, value in variables.items()},
        {},
        app="my_system",
        package=Path("/p/my_system"),
        home=Path("/home/me"),
        download_dir=Path("/data/dl"),
    )


def remote(ccache: Term = None, **variables: str) -> RemoteCache:
    found = read(ccache, **variables).remote_cache
    assert found is not None
    return found


def refused(ccache: Term = None, **variables: str) -> errors.RunnerError:
    with pytest.raises(errors.RunnerError) as caught:
        read(ccache, **variables)
    assert caught.value.code is errors.Code.BAD_REQUEST
    return caught.value


def test_all_parts_together_and_a_variable_for_each() -> None:
    parts = keyword(dir=True, remote="redis://cache", read_only=True, max_size="20G")
    found = read(parts)
    assert found.ccache == Path("/data/ccache")
    assert found.ccache_max_size == 20 << 30
    assert found.remote_cache is not None
    assert found.remote_cache.address == "redis://cache"
    assert found.remote_cache.storage == f"redis://cache{TIMEOUTS}|read-only=true"
    assert read(DIR="true", REMOTE="redis://cache", READ_ONLY="true", MAX_SIZE="20G") == found
    changed = read(parts, DIR="false", REMOTE="http://other/x", READ_ONLY="false", MAX_SIZE="1G")
    assert (changed.ccache, changed.ccache_max_size) == (None, 1 << 30)
    assert changed.remote_cache is not None
    assert changed.remote_cache.storage == f"http://other/x{TIMEOUTS}"
    assert read(parts, REMOTE="none").remote_cache is None
    # The variable of the whole key replaces the whole key.
    assert read(parts, **{"": "cc"}) == Settings(ccache=Path("/p/my_system/cc"))
    assert read(parts, **{"": "false"}) == Settings()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (True, "/data/ccache"),
        ("cc", "/p/my_system/cc"),
        (False, None),
        (None, None),
        (keyword(dir="cc"), "/p/my_system/cc"),
        (keyword(dir=False), None),
        ({Atom("dir"): "cc"}, "/p/my_system/cc"),
    ],
)
def test_a_directory_alone(value: Term, path: str | None) -> None:
    assert read(value) == Settings(ccache=None if path is None else Path(path))


@pytest.mark.parametrize(
    ("address", "password", "storage", "shown"),
    [
        ("redis://c:7000/2", None, "redis://c:7000/2", "redis://c:7000/2"),
        ("redis://[::1]:7000", None, "redis://[::1]:7000", "redis://[::1]:7000"),
        # ccache takes one word before the host for a password, and nothing at all where it begins with a colon.
        ("redis://pw@c", None, "redis://pw@c", "redis://c"),
        ("redis://:pw@c", None, "redis://pw@c", "redis://c"),
        ("redis://c", "pw", "redis://pw@c", "redis://c"),
        ("redis://c", "a:b", "redis://default:a%3Ab@c", "redis://c"),
        ("redis://me:old@c", "pw", "redis://me:pw@c", "redis://c"),
        ("redis://me@c", "pw", "redis://me:pw@c", "redis://c"),
        ("redis://me@c", SECRET, f"redis://me:{QUOTED}@c", "redis://c"),
        ("http://me:pw@c/x", None, "http://me:pw@c/x", "http://c/x"),
        (f"http://me:{QUOTED}@c/x", None, f"http://me:{QUOTED}@c/x", "http://c/x"),
    ],
)
def test_addresses(address: str, password: str | None, storage: str, shown: str) -> None:
    found = remote(REMOTE=address, **({} if password is None else {"PASSWORD": password}))
    assert found.storage == storage + TIMEOUTS
    assert found.address == shown


def test_attributes_are_ccaches_and_go_before_ours() -> None:
    found = remote(REMOTE="http://c/x|layout=flat|operation-timeout=9000")
    assert found.storage == "http://c/x|connect-timeout=250|layout=flat|operation-timeout=9000"
    token = remote(REMOTE="http://c/x", PASSWORD="t k")
    assert token.storage == f"http://c/x{TIMEOUTS}|bearer-token=t%20k"
    assert b"Authorization: Bearer t k\r\n" in token.question
    headers = remote(REMOTE="http://c/x|header=X-Key=a%20b|header=X-Team=c")
    assert headers.storage == f"http://c/x{TIMEOUTS}|header=X-Key=a%20b|header=X-Team=c"
    assert b"\r\nX-Key: a b\r\nX-Team: c\r\n\r\n" in headers.question
    instead = remote(REMOTE="http://c/x|bearer-token=old|read-only=false", PASSWORD="new", READ_ONLY="true")
    assert instead.storage == f"http://c/x{TIMEOUTS}|bearer-token=new|read-only=true"


def test_what_a_store_is_asked() -> None:
    assert remote(REMOTE="redis://c").question == b"*1\r\n$4\r\nPING\r\n"
    with_all = remote(REMOTE="redis://me@c/3", PASSWORD="é")
    expected = (
        b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$2\r\n\xc3\xa9\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n"
    )
    assert (with_all.question, with_all.answers, with_all.port) == (expected, 3, 6379)
    web = remote(REMOTE="http://me@c:81/x/", PASSWORD="pw")
    assert web.question.startswith(b"GET /x/00/nerves-docker-port HTTP/1.1\r\nHost: c:81\r\n")
    assert b"\r\nAuthorization: Basic bWU6cHc=\r\n\r\n" in web.question
    assert (web.host, web.port, web.answers) == ("c", 81, 1)


REFUSED = [
    *("https://c", "rediss://c", "redis+unix:/x", "file:/x", "c:6379", "redis://", "http:///x", "redis://c/x"),
    *("redis://c:99999", "redis://c:x", "http://c/x?y", "http://c x/", "redis://c redis://d", "http://me@c/x"),
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_ccache_or_a_container_cannot_use(address: str) -> None:
    for error in (refused(keyword(remote=address)), refused(REMOTE=address)):
        assert error.hint is not None
        assert "redis://cache.example.com" in error.hint


@pytest.mark.parametrize(
    "address",
    [
        "redis://me:pl4nted@c",
        "redis://:pl4nted@c",
        "redis://pl4nted@c",
        "http://me:pl4nted@c/",
        "http://c/|bearer-token=pl4nted",
        "http://c/|@bearer-token=pl4nted",
        "http://c/|header=X-Key=pl4nted",
    ],
)
def test_a_secret_in_the_configuration_is_refused_and_not_shown(address: str) -> None:
    error = refused(keyword(remote=address))
    assert "NERVES_DOCKER_CCACHE_PASSWORD" in error.message
    assert "pl4nted" not in f"{error.message}{error.hint}"


def test_a_user_may_be_in_the_configuration() -> None:
    assert remote(keyword(remote="redis://me@c"), PASSWORD="pw").storage == f"redis://me:pw@c{TIMEOUTS}"


def test_no_secret_is_shown() -> None:
    for variables in ({"REMOTE": "redis://me:pl4nted@c"}, {"REMOTE": "http://c", "PASSWORD": "pl4nted"}):
        assert "pl4nted" not in repr(read(**variables))
    error = refused(REMOTE="https://me:pl4nted@c")
    assert "pl4nted" not in f"{error.message}{error.hint}"


@pytest.mark.parametrize(
    "address",
    [
        "http://pl4nted/w@c/x",
        "http://me:99/pl4nted@c/x",
        "http://me:99|pl4nted@c/x",
        "redis://99|pl4nted@c",
        "redis://:pl4nted/@c",
        "redis://me:pl4nted#w@c",
        "redis://me:pl4nted?w@c",
        "redis://me:pl4nted w@c",
        "http://c/x?token=pl4nted",
        "http://c/x#pl4nted",
    ],
)
def test_a_password_that_is_not_percent_encoded_is_refused_and_not_shown(address: str) -> None:
    """Each of these would be read as another host, whose name and path were shown in every build."""
    for error in (
        refused(keyword(remote=address)),
        refused(REMOTE=address),
        refused(address),
        refused(**{"": address}),
    ):
        assert "pl4nted" not in f"{error.message}{error.hint}"


def test_an_address_in_the_place_of_a_directory_is_refused_and_not_shown() -> None:
    address = "redis://me:pl4nted@c"
    for error in (refused(address), refused(keyword(dir=address)), refused(DIR=address), refused(**{"": address})):
        assert "ccache: [remote: ...]" in error.message
        assert "pl4nted" not in f"{error.message}{error.hint}"


WRONG: list[tuple[Any, str]] = [
    (keyword(remot="redis://c"), "`remote:`"),
    (keyword(password="x"), "password"),
    (keyword(remote=7), "ccache: [remote: ...]"),
    (keyword(max_size="much"), "ccache: [max_size: ...]"),
    (keyword(remote="redis://c", read_only="perhaps"), "ccache: [read_only: ...]"),
    (keyword(dir=7), "ccache: [dir: ...]"),
]


@pytest.mark.parametrize(("value", "said"), WRONG)
def test_a_wrong_part_is_named(value: Term, said: str) -> None:
    error = refused(value)
    assert said in f"{error.message} {error.hint}"


def test_a_wrong_variable_is_named() -> None:
    assert "NERVES_DOCKER_CCACHE_REMOTE" in (refused(REMOT="x").hint or "")
    assert "The variable NERVES_DOCKER_CCACHE_MAX_SIZE" in refused(MAX_SIZE="much").message
