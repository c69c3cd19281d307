"""An engine that is killed, stopped, frozen and started again in mid-build: a real one, of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from support.images import NEW
from support.port import wait_until
from support.system import System, ours


class Dockerd:
    """A private ``dockerd`` with everything of its own below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = f"unix://{directory}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd",
                    f"--host={self.host}",
                    f"--data-root={self.directory}/data",
                    f"--exec-root={self.directory}/exec",
                    f"--pidfile={self.directory}/docker.pid",
                    "--containerd-namespace=ndp-dies",
                    "--containerd-plugins-namespace=ndp-dies-plugins",
                    *("--bridge=none", "--iptables=false", "--ip6tables=false", "--shutdown-timeout=2"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert wait_until(self._answers, 60), (self.directory / "log").read_text()[-2000:]

    def kill(self) -> None:
        """As `kill -9`, of it and of its containerd: the containers are left to themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._kill_others(only="containerd")
        # Where nobody reaps orphans, its number still names a process, and dockerd would wait for that one to answer.
        for name in ("containerd.pid", "containerd.sock"):
            (self.directory / "exec" / "containerd" / name).unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop it and all that belongs to it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(timeout=60)
        self._kill_others()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", point], check=False)

    def _kill_others(self, only: str | None = None) -> None:
        """Kill what was started with a path of ours, or of that only one program."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError, ProcessLookupError):
                words = entry.read_bytes().split(b"\0")
                named = only is None or Path(os.fsdecode(words[0])).name == only
                if named and any(os.fsencode(self.directory) in word for word in words[1:]):
                    os.kill(int(entry.parent.name), signal.SIGKILL)

    def _answers(self) -> bool:
        # Not with the SDK: a client that cannot connect leaves its socket to the garbage collector, which warns.
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.host.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(100)
            except OSError:
                return False


@pytest.fixture
def dockerd(client: docker.DockerClient) -> Iterator[Dockerd]:
    """An engine of the test's own, with the builder image."""
    directory = Path(tempfile.mkdtemp(prefix="ndp-d-"))
    directory.chmod(0o755)
    engine = Dockerd(directory)
    try:
        engine.start()
        own = docker.DockerClient(base_url=engine.host, timeout=300)
        own.images.load(b"".join(client.images.get(NEW).save(named=NEW)))
        own.close()
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_an_engine_that_dies_stops_or_freezes_in_mid_build_is_an_error_and_the_next_build_succeeds(
    dockerd: Dockerd, root: Path
) -> None:
    system = System(root=root, uid=0, image=NEW, host=dockerd.host)
    system.run("build").value()
    before = system.artifact.read_bytes()
    client = docker.DockerClient(base_url=dockerd.host)
    try:
        for end in ("killed", "stopped", "frozen"):
            with system.helper() as helper:
                patience = {"NERVES_DOCKER_PATIENCE": "10"}
                helper.start("build", system.args(make_args=["RUN=sleep 600"], env=patience))
                conversation = helper.follow(until_stage="make")
                assert wait_until(lambda: client.containers.list(filters={"volume": system.volume}), 20)
                assert dockerd.process is not None
                started = time.monotonic()
                if end == "killed":
                    dockerd.kill()
                elif end == "stopped":
                    dockerd.process.terminate()
                    dockerd.process.wait(timeout=60)
                else:
                    dockerd.process.send_signal(signal.SIGSTOP)
                conversation = helper.follow(conversation)
                assert time.monotonic() - started < 120
            error = conversation.error
            assert error is not None
            if end == "stopped" and error["code"] == "step_failed":
                # It ended the container first, and lived long enough to say so.
                assert "exit status" in error["message"]
            else:
                assert error["code"] == "engine_unreachable", error
                assert "stopped answering" in error["message"]
                assert "the build continues where it was" in error["hint"]
            assert system.artifact.read_bytes() == before
            if end == "frozen":
                dockerd.process.send_signal(signal.SIGCONT)
            else:
                dockerd.start()
            system.run("build").value()
            before = system.artifact.read_bytes()
            assert ours(client, system.volume) == []
    finally:
        client.close()
