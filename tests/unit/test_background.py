"""Functions that run beside the caller."""

from __future__ import annotations

import threading

import pytest

from nerves_docker_port.background import Background


def test_the_result_is_waited_for_and_can_be_asked_for_twice() -> None:
    goes_on = threading.Event()

    def function() -> str:
        assert goes_on.wait(30)
        return "done"

    asked = Background(function)
    goes_on.set()
    assert asked.result() == "done"
    assert asked.result() == "done"


def test_what_it_raises_is_raised_where_the_result_is_asked_for() -> None:
    def function() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        Background(function).result()
