"""A flow is told to end once, with the first reason, and what it blocks in is told at once."""

from __future__ import annotations

import threading

import pytest

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.errors import Code, RunnerError


def test_a_flow_goes_on_until_it_is_cancelled() -> None:
    cancellation = Cancellation()
    cancellation.check()
    assert not cancellation.requested


def test_the_first_reason_is_the_one_that_is_told() -> None:
    cancellation = Cancellation()
    cancellation.cancel("Mix has ended")
    cancellation.cancel("the helper got SIGTERM")
    assert cancellation.requested
    with pytest.raises(RunnerError, match=r"The build was cancelled: Mix has ended\.") as caught:
        cancellation.check()
    assert caught.value.code is Code.CANCELLED


def test_what_blocks_is_ended_and_the_caller_does_not_wait_for_that() -> None:
    cancellation = Cancellation()
    called, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        called.set()
        assert may_end.wait(60)

    with cancellation.on_cancel(slow):
        cancellation.cancel("enough")
        assert called.wait(60)
        may_end.set()


def test_every_blocking_thing_is_ended_and_once() -> None:
    cancellation = Cancellation()
    calls: list[str] = []
    both = threading.Barrier(3, timeout=60)

    def note(name: str) -> None:
        calls.append(name)
        both.wait()

    with cancellation.on_cancel(lambda: note("outer")), cancellation.on_cancel(lambda: note("inner")):
        threads = [threading.Thread(target=cancellation.cancel, args=("enough",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        both.wait()
        for thread in threads:
            thread.join(60)
    assert sorted(calls) == ["inner", "outer"]


def test_what_has_ended_by_itself_is_left_alone() -> None:
    cancellation = Cancellation()
    with cancellation.on_cancel(lambda: pytest.fail("the body has been left")):
        pass
    with pytest.raises(ZeroDivisionError), cancellation.on_cancel(lambda: pytest.fail("the body has been left")):
        raise ZeroDivisionError
    before = threading.active_count()
    cancellation.cancel("enough")
    assert threading.active_count() == before


def test_nothing_new_begins_after_a_cancellation() -> None:
    cancellation = Cancellation()
    cancellation.cancel("enough")
    with pytest.raises(RunnerError, match="enough"), cancellation.on_cancel(lambda: None):
        pytest.fail("the body was entered")
