"""Runs the shim in a BEAM of its own, for tests that end the BEAM or the helper; see `beam_driver.exs`."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Term
from support.port import ROOT, packaged_command

if TYPE_CHECKING:
    from typing_extensions import Self


@lru_cache(maxsize=1)
def ebin() -> Path:
    """Compile the shim once, and return the directory of its modules."""
    assert shutil.which("mix"), "these tests need Elixir: run `make test`, which brings it"
    build = Path(tempfile.gettempdir()) / f"ndp-build-{os.getpid()}"
    subprocess.run(
        ["mix", "compile", "--warnings-as-errors"],
        cwd=ROOT / "elixir_shim",
        env={**os.environ, "MIX_ENV": "prod", "MIX_BUILD_PATH": str(build)},
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return build / "lib" / "nerves_docker_port" / "ebin"


class Beam:
    """A running BEAM that asks for one flow. Leaving the ``with`` block ends it."""

    def __init__(self, op: str, args: Mapping[Term, Term], directory: Path, env: Mapping[str, str]) -> None:
        file = directory / "args.etf"
        file.write_bytes(wire.encode(dict(args)))
        self.process = subprocess.Popen(
            ["elixir", "-pa", str(ebin()), str(Path(__file__).parent / "beam_driver.exs"), op, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "NERVES_DOCKER_PORT_COMMAND": shlex.join(packaged_command()),
                **env,
            },
            start_new_session=True,
        )
        assert self._stdout.readline() == "caller\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        self._stdout.close()

    @property
    def _stdin(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def _stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def outcome(self) -> str:
        """Wait for the end of the flow, and return ``ok`` or ``error``."""
        return self._stdout.readline().removeprefix("done ").strip()

    def kill_caller(self) -> None:
        """Kill the Elixir process that called the shim. The BEAM still runs."""
        self._stdin.write("kill\n")
        self._stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send the BEAM a signal. `elixir` is a shell script that executes the BEAM in its own process."""
        self.process.send_signal(number)


def helpers() -> list[int]:
    """Return the pids of the packaged helpers that run."""
    found = []
    wanted = packaged_command()[-1].encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words and b"port" in words and Path(os.fsdecode(words[0])).name.startswith("python"):
                found.append(int(entry.name))
    return found
