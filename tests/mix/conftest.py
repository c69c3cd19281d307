"""Directories for Mix projects."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest


@pytest.fixture
def directory(client: docker.DockerClient) -> Iterator[Path]:
    """A new directory; the build volumes of the projects in it go with it."""
    path = Path(tempfile.mkdtemp(prefix="ndp-"))
    path.chmod(0o755)
    yield path
    for file in path.rglob(".docker_id"):
        for volume in client.volumes.list(filters={"name": file.read_text()}):
            volume.remove(force=True)
    shutil.rmtree(path)
