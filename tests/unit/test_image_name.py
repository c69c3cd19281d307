"""An image's name: what Docker's grammar allows, and what a request says of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.request import image_name
from nerves_docker_port.request.image_name import ImageName
from nerves_docker_port.request.request import from_args
from support.requests import arguments


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("my_system", ImageName("docker.io", "my_system", None, None)),
        ("my_system:0.1.0", ImageName("docker.io", "my_system", "0.1.0", None)),
        ("me/my_system:A-b_c.1", ImageName("docker.io", "me/my_system", "A-b_c.1", None)),
        ("ghcr.io/me/system:1", ImageName("ghcr.io", "me/system", "1", None)),
        ("localhost/system", ImageName("localhost", "system", None, None)),
        ("localhost:5000/system", ImageName("localhost:5000", "system", None, None)),
        ("Reg.Example.org/a__b/c--d.e", ImageName("Reg.Example.org", "a__b/c--d.e", None, None)),
        ("[2001:db8::1]:5000/system:1", ImageName("[2001:db8::1]:5000", "system", "1", None)),
        (f"x@sha256:{'0' * 64}", ImageName("docker.io", "x", None, f"sha256:{'0' * 64}")),
        (f"reg:1/x:2@sha256:{'a' * 64}", ImageName("reg:1", "x", "2", f"sha256:{'a' * 64}")),
    ],
)
def test_a_name_has_a_registry_a_path_a_tag_and_a_digest(text: str, parts: ImageName) -> None:
    assert image_name.parse(text) == parts


BAD = [
    *("", " ", ":1", "x:", "x: 1", "x:1:2", "-x", "x-", "x/", "/x", "a//b", "x y", "x\n", "_x", "a..b", "a._b", "é"),
    *("x:é", "x:-1", f"x:{'t' * 129}", "x@", "x@sha256:1", "x@1", f"{'x' * 256}", "bad_host.example:1/x", "a.b:p/x"),
    *("MySystem:0.1", "me/MySystem", "Acme/my_system:0.1", "ghcr.io/Me/system", "X"),
]


@pytest.mark.parametrize("text", BAD)
def test_what_no_engine_would_take_is_refused_before_one_is_asked(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the reason is shown in the next test
        image_name.parse(text)
    with pytest.raises(RunnerError) as caught:
        from_args(arguments(Path("/"), image=text), {})
    assert caught.value.code is Code.BAD_REQUEST
    assert f"{text!r} cannot be an image's name: " in caught.value.message
    assert "docker: {" in (caught.value.hint or "")


def test_an_upper_case_name_is_given_in_lower_case_as_the_remedy() -> None:
    with pytest.raises(RunnerError, match="must be in lower case") as caught:
        from_args(arguments(Path("/"), image="MySystem:0.1"), {})
    assert '{"Dockerfile", "mysystem:0.1"}' in (caught.value.hint or "")
