"""Whose a container is: a process is told apart from every other one, and dead only where that is certain."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nerves_docker_port.volume.owner import Owner, this_process

from nerves_docker_port.volume import owner
from support.port import PYTHON, wait_until


def owner_of_a_process_that_has_ended() -> Owner:
    ended = subprocess.run(
        [sys.executable, "-c", "from nerves_docker_port.volume.owner import *; print(this_process().to_label())"],
        env={**os.environ, "PYTHONPATH": str(PYTHON)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = Owner.from_label(ended.stdout.removesuffix("\n"))
    assert found is not None
    return found


def test_this_process_lives_and_its_label_leads_back_to_it() -> None:
    assert this_process().pid == os.getpid()
    assert not this_process().is_dead()
    assert Owner.from_label(this_process().to_label()) == this_process()


def test_a_process_that_has_ended_is_dead_and_lived_at_the_same_place() -> None:
    ended = owner_of_a_process_that_has_ended()
    assert ended.place == this_process().place
    assert ended.is_dead()


def test_a_process_that_nobody_has_waited_for_is_dead() -> None:
    with subprocess.Popen(["true"]) as child:
        started = owner._started(child.pid)
        assert wait_until(Owner(this_process().place, child.pid, started or "gone at once").is_dead, 30)
        # A zombie: its pid is still taken.
        os.kill(child.pid, 0)


def test_a_process_that_got_the_pid_of_a_dead_one_is_not_the_owner() -> None:
    assert replace(this_process(), started="another time").is_dead()


def test_of_another_host_nothing_is_certain() -> None:
    ended = owner_of_a_process_that_has_ended()
    host, _, rest = ended.place.partition("/")
    assert not replace(ended, place=f"{host}2/{rest}").is_dead()


def test_of_another_pid_namespace_nothing_is_certain() -> None:
    assert not replace(owner_of_a_process_that_has_ended(), place=this_process().place + "2").is_dead()


def test_nobody_outlives_the_start_of_their_host() -> None:
    host, _boot, namespace = this_process().place.split("/")
    assert replace(this_process(), place=f"{host}/an-earlier-boot/{namespace}").is_dead()


@pytest.mark.parametrize("label", ["", "host", "host 12", "host twelve 34", "host -1 34", "host  34"])
def test_a_label_of_another_kind_names_no_owner(label: str) -> None:
    assert Owner.from_label(label) is None


@settings(deadline=None)
@given(st.text())
def test_no_label_is_an_accident(label: str) -> None:
    found = Owner.from_label(label)
    assert found is None or not found.is_dead()


@settings(deadline=None)
@given(
    place=st.text(st.characters(exclude_characters=" ")),
    pid=st.integers(min_value=0),
    started=st.text(),
)
def test_an_owner_comes_back_from_its_label(place: str, pid: int, started: str) -> None:
    assert Owner.from_label(Owner(place, pid, started).to_label()) == Owner(place, pid, started)
