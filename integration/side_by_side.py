#!/usr/bin/env python3
"""Runs make targets in parallel, and prints their outputs one after the other.

    side_by_side.py TARGET... LONGEST

The longest target starts at once. In parallel with it, the others run one after the other, because each of them keeps a
core busy. The outputs are printed in the order of the arguments and are never mixed, so the last lines are those of the
longest target. The exit status is 0 if all targets succeeded. Otherwise it is 1, and the last lines name the targets
that failed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from integration.host import main_program, say


class Part:
    """One make target."""

    def __init__(self, target: str, directory: Path) -> None:
        self.target = target
        self.succeeded = False
        self._output = directory / target
        self._output.touch()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run the target to its end, with its output in a file."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["make", "--no-print-directory", self.target],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.succeeded = self._process.wait() == 0
        self._ended.set()

    def follow(self) -> None:
        """Print the output while it is written, until the target has ended."""
        with self._output.open("rb") as output:
            ended = False
            while not ended:
                ended = self._ended.wait(0.2)
                shutil.copyfileobj(output, sys.stdout.buffer)
                sys.stdout.flush()

    def stop(self) -> None:
        """Send SIGTERM to the target if it still runs."""
        if self._process is not None and not self._ended.is_set():
            self._process.terminate()


def main(targets: list[str]) -> int:
    """Run the targets, print their outputs, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="ndp-parts-") as directory:
        parts = [Part(target, Path(directory)) for target in targets]
        with _running(parts[:-1]), _running(parts[-1:]):
            for part in parts:
                say(f"make {part.target}")
                part.follow()
    failed = [part.target for part in parts if not part.succeeded]
    for target in failed:
        say(f"`make {target}` failed; its output is above")
    return 1 if failed else 0


@contextlib.contextmanager
def _running(parts: list[Part]) -> Iterator[None]:
    """Run the parts one after the other while the block runs. If the block is left early, the remaining parts stop."""
    left = threading.Event()

    def run() -> None:
        for part in parts:
            if not left.is_set():
                part.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        left.set()
        for part in parts:
            part.stop()
        thread.join()


if __name__ == "__main__":
    sys.exit(main_program(lambda: main(sys.argv[1:])))
