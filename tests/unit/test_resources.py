"""What is said of an engine's resources and of limits that it does not apply."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from nerves_docker_port.engine import resources
from nerves_docker_port.engine.client import Capabilities
from nerves_docker_port.engine.resources import GIB
from nerves_docker_port.request.settings import Settings

LIMITS = {
    "cpus": (Settings(cpus=Decimal(1)), {"limits_cpus": False}),
    "memory": (Settings(memory=8 * GIB), {"limits_memory": False}),
    "swap": (Settings(memory=8 * GIB, swap=0), {"limits_swap": False}),
}


def engine(**changes: bool) -> Capabilities:
    return replace(Capabilities("20.10", "1.41", "amd64", rootless=True, cpus=2, memory=16 * GIB), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_the_engine_does_not_apply_is_named(name: str, tmp_path: Path) -> None:
    settings, changes = LIMITS[name]
    (warning, *_) = resources.advice(engine(**changes), settings, tmp_path)
    assert warning.startswith(f"The engine does not apply the configured `{name}`: ")
    assert "cgroup v2" in warning
    assert not any("does not apply" in text for text in resources.advice(engine(), settings, tmp_path))
    assert not any("does not apply" in text for text in resources.advice(engine(**changes), Settings(), tmp_path))


def test_several_limits_are_named_together() -> None:
    found = resources.limits(
        engine(limits_cpus=False, limits_memory=False, limits_swap=False), Settings(cpus=Decimal(1), memory=1, swap=1)
    )
    assert found is not None
    assert "`cpus` and `memory` and `swap`" in found.text


def test_a_limit_that_is_not_applied_does_not_count() -> None:
    """The build has all the memory, whatever the configuration says."""
    settings = Settings(memory=1 * GIB)
    assert resources.memory(engine(), settings).state == "warning"
    assert resources.memory(engine(limits_memory=False), settings).state == "ok"
