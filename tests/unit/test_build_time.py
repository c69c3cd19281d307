"""The times of packages' steps are read from Buildroot's own file."""

from __future__ import annotations

from pathlib import Path

from nerves_docker_port.record import build_time
from nerves_docker_port.record.journal import PackageStep

BUILDROOT = Path(__file__).parents[1] / "conformance" / "buildroot"
LOG = b"""\
100.000000000:start:download            : old
101.000000000:end  :download            : old
200.500000000:start:extract             : host-a
200.600000000:start:install-staging     : b
200.750000000:end  :extract             : host-a
what a script wrote
201.000000000:end  :install-staging     : b
202.000000000:start:build               : host-a
203:start:build               : b
204.000000000:start:build               : host-a
204.500000000:end  :build               : host-a
205.0000"""


def test_steps_of_this_build_with_start_and_end() -> None:
    assert build_time.steps(LOG, 150.0) == [
        PackageStep("host-a", "extract", 200.5, 200.75),
        PackageStep("b", "install-staging", 200.6, 201.0),
        # It began a second time, so it had not ended.
        PackageStep("host-a", "build", 202.0, None),
        PackageStep("b", "build", 203.0, None),
        PackageStep("host-a", "build", 204.0, 204.5),
    ]


def test_a_real_file_gives_each_step_once() -> None:
    content = (BUILDROOT / "hosttools.build-time.log").read_bytes()
    steps = build_time.steps(content, 0.0)
    assert len(steps) == content.count(b":start:")
    assert all(step.ended is not None and step.began <= step.ended for step in steps)
    assert ("host-gperf", "configure") in {(step.package, step.step) for step in steps}


def test_nothing_is_made_of_a_file_that_is_something_else() -> None:
    assert build_time.steps(b"\x00\xff\n::::\n1.2:start:x:y\n", 0.0) == []
