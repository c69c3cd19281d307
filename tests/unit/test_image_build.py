"""Which step of a Dockerfile is said to have failed; the builds themselves are in tests/engine/test_images.py."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

from nerves_docker_port.image import build as image_build
from nerves_docker_port.record.log import BuildLog


def test_a_step_that_buildkit_tells_of_after_the_error_is_not_the_one_that_failed(tmp_path: Path) -> None:
    """Steps run side by side; the order in which BuildKit tells of two that wait for the context is chance."""
    with BuildLog(tmp_path / "build.log", lambda _lines: None) as log:
        output = image_build._Output(log, Mock())
        steps = image_build._BuildKitSteps(output)
        for line in (
            b"#4 [1/3] FROM docker.io/library/base:1\n",
            b"#6 [3/3] COPY none /none\n",
            b'#6 ERROR: "/none" not found: not found\n',
            b"#7 [2/3] COPY tool /tool\n",
            b"#7 CANCELED\n",
            b'ERROR: failed to solve: failed to compute cache key: "/none" not found: not found\n',
        ):
            steps.take(line)
    assert output.failed_step == "Step 3/3 : COPY none /none"
    assert steps.reason == 'failed to compute cache key: "/none" not found: not found'
