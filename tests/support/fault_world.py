"""A system on disk, the fake engine, and the real helper between them. Each request has a hard timeout."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nerves_docker_port.port.wire import Term
from support.fake_engine import Container, FakeEngine, Hook
from support.port import Conversation, Helper
from support.requests import arguments

if TYPE_CHECKING:
    from typing_extensions import Self

IMAGE = "builder:new"

HASTY: Mapping[str, Any] = {
    "engine.client.REQUEST_TIMEOUT": 20,
    "engine.client.LOST_TIMEOUT": 1,
    "engine.container.STOP_GRACE": 1,
    "engine.transfer.PROBE_INTERVAL": 0.2,
    "request.settings.PATIENCE": [1, 24 * 60 * 60],
    "volume.session.BEAT_INTERVAL": 1,
    "volume.session.RETRY_INTERVAL": 0.1,
}
"""Shorter values for the helper's constants of time. A wait that happens in every test is short. A time limit is long
enough for a busy machine; a test in which the limit is reached sets a shorter one itself."""

CUT = (Container.wait_for_attach, Container.cut, Container.wait_for_look)
"""What a container does between two frames: its output is cut, and goes on when the helper has found that it runs."""

LOST = "The connection to the output of the build was lost; what it wrote meanwhile is not in the log."
"""The warning after that."""


def noted(text: str) -> bytes:
    """Return the line that the log has in the place of a gap."""
    return f"\n[nerves_docker_port] {text}\n".encode()


@dataclass
class FaultWorld:
    """One system in the directory ``root`` and one fake engine. Both are removed after the ``with`` block."""

    images: tuple[str, ...] = (IMAGE,)

    def __enter__(self) -> Self:
        # The path is short, because the path of a socket can only have about a hundred characters.
        self.root = Path(tempfile.mkdtemp(prefix="ndp-"))
        for directory in ("my_system", "platform", "home"):
            (self.root / directory).mkdir()
        self.engine = FakeEngine(self.root, images=self.images)
        self.engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.engine.__exit__(kind, error, traceback)
        finally:
            shutil.rmtree(self.root)

    @property
    def log(self) -> bytes:
        """The content of ``build.log``."""
        return (self.root / "my_system" / "build.log").read_bytes()

    @property
    def downloads(self) -> list[str]:
        """The names of the files in the download directory."""
        directory = self.root / "dl"
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    @property
    def volume(self) -> str:
        """The build volume's name. If there is none yet, an id file is made."""
        directory = self.root / "my_system" / ".nerves" / "artifacts" / "my_system-portable-0.1.0"
        file = directory / ".docker_id"
        if not file.exists():
            directory.mkdir(parents=True)
            file.write_text("0123456789abcdef")
        return f"my_system-{file.read_text()}"

    @property
    def session(self) -> str:
        """The name of the container that holds the build volume."""
        return f"{self.volume}-session"

    def args(self, **changes: Any) -> dict[Term, Term]:
        """Return the arguments of a request. ``patience`` is in seconds."""
        changes.setdefault("image", IMAGE)
        if "patience" in changes:
            changes["env"] = {**changes.get("env", {}), "NERVES_DOCKER_PATIENCE": str(changes.pop("patience"))}
        return arguments(self.root, **changes)

    @contextmanager
    def helper(self, *, within: float = 60, **hasty: float) -> Iterator[Helper]:
        """Start a helper. If the block takes longer than ``within`` seconds, kill the helper and fail the test."""
        constants = {**HASTY, **{name.replace("__", "."): value for name, value in hasty.items()}}
        helper = Helper(
            command=[sys.executable, str(Path(__file__).parent.parent / "faults" / "hasty_helper.py")],
            env={
                "DOCKER_HOST": self.engine.host,
                "HOME": str(self.root / "home"),
                "NERVES_HASTY": json.dumps(constants),
            },
        )
        too_late = threading.Event()

        def kill() -> None:
            too_late.set()
            helper.process.kill()

        timer = threading.Timer(within, kill)
        timer.start()
        try:
            with helper:
                yield helper
            # A test can kill the helper itself.
            assert helper.process.returncode in (0, -signal.SIGKILL)
        finally:
            timer.cancel()
            assert not too_late.is_set(), f"no outcome within {within} s"

    def run(self, *, within: float = 60, changes: Any = None, **hasty: float) -> Conversation:
        """Run a build with a helper of its own."""
        with self.helper(within=within, **hasty) as helper:
            return helper.request("build", self.args(**(changes or {})))

    def errors(self, hooks: Iterable[tuple[str, str, Hook]], **hasty: float) -> list[dict[str, Any]]:
        """Run a build for each fault (method, path, hook), all with the same helper. Return the error of each build."""
        found = []
        with self.helper(within=60, **hasty) as helper:
            for request_id, (method, path, hook) in enumerate(hooks, start=1):
                self.engine.on(method, path, hook)
                conversation = helper.request("build", self.args(), request_id=request_id)
                found.append(self._checked(conversation))
                assert self.engine.names == []
                self.engine.behave()
            helper.request("build", self.args(), request_id=1000).value()
        return found

    def fail(self, *, within: float = 60, changes: Any = None, **hasty: float) -> dict[str, Any]:
        """Run a build that must fail. Return its error.

        The build must leave no partial artifact, and the error must not call itself a defect of the helper.
        """
        return self._checked(self.run(within=within, changes=changes, **hasty))

    def _checked(self, conversation: Conversation) -> dict[str, Any]:
        assert conversation.error is not None, conversation
        assert "defect of its own" not in conversation.error["message"]
        assert self.downloads == []
        return conversation.error
