"""Several steps in one container: the script that runs them, and what tells here where one ends and the next begins.

A container costs more than all that a runner does in it. So the steps of a flow share one, and the script says at the
end of each how it went. It says so in the output itself: that way it needs no second connection, arrives in its place
among the log's bytes, and works wherever the output arrives. What it says is taken out again.

Knows neither the engine nor what a step is for.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nerves_docker_port.port.protocol import StageName

# Arguments: the token, then for each step its name, the number of its words, and these words.
#
# bash, which every builder image has (`create-build.sh` is written for it): a POSIX shell cannot run a part of its
# arguments. A step gets the signal that the container gets (the engine's init passes TERM on to this script only), so
# that make can put its targets in order; the script itself stays, to say how the step ended. `set -m`, because a shell
# without job control lets what it starts in the background ignore SIGINT and SIGQUIT; not for longer, because with it
# `wait` ends when the step is only stopped.
#
# What is exported to the container may have any name that does not begin with ndp_: the steps must see it as it is.
#
# Both outputs of a step go through one pipe: through two, what went to standard error would arrive before or after what
# was written next to it, and after the step's end.
_SCRIPT = r"""
ndp_token=$1; shift
exec 8>&1 2>/dev/null
ndp_step= ndp_stopped=
trap 'ndp_stopped=1; [ -z "$ndp_step" ] || kill -TERM "$ndp_step"' TERM
while [ $# -gt 0 ]; do
  [ -z "$ndp_stopped" ] || exit 143
  ndp_name=$1 ndp_words=("${@:3:$2}"); shift $(($2 + 2))
  set -m; "${ndp_words[@]}" >&8 2>&8 8>&- & ndp_step=$!; set +m
  [ -z "$ndp_stopped" ] || kill -TERM "$ndp_step"
  while wait "$ndp_step"; ndp_status=$?; kill -0 "$ndp_step"; do :; done
  ndp_step=
  printf '\036%s %s %d\036' "$ndp_token" "$ndp_name" "$ndp_status" >&8
  [ "$ndp_status" = 0 ] || exit "$ndp_status"
done
[ -z "$ndp_stopped" ] || exit 143
"""

_LONGEST_NAME = 32
_END = re.compile(rb"([a-z_]{1,%d}) ([0-9]{1,3})\x1e" % _LONGEST_NAME)
_LONGEST_END = _LONGEST_NAME + len(b" 255\x1e")


@dataclass(frozen=True)
class Step:
    """One command of a flow, which is a stage of it."""

    name: StageName
    command: Sequence[str]
    headline: str | None = None
    """What the person is told when it begins."""


def new_token() -> str:
    """What only the script of one container knows, so that no log can be taken for it."""
    return secrets.token_hex(16)


def to_command(steps: Sequence[Step], token: str) -> list[str]:
    """The words that run ``steps`` one after the other, up to the first that fails; its status is the status."""
    words = ["/bin/bash", "-c", _SCRIPT, "nerves-docker-port-steps", token]
    for step in steps:
        words += [step.name, str(len(step.command)), *step.command]
    return words


class Splitter:
    """Takes what the script says out of a container's output, wherever the reads cut it.

    ``on_output`` gets every byte that the steps wrote, ``on_end`` the name and the status of each step that ended, both
    in the order in which they arrive.
    """

    def __init__(self, token: str, on_output: Callable[[bytes], None], on_end: Callable[[str, int], None]) -> None:
        self._mark = b"\x1e" + token.encode() + b" "
        self._on_output = on_output
        self._on_end = on_end
        # The end of the last read, where it may be the beginning of a mark.
        self._held = b""

    def feed(self, data: bytes) -> None:
        """The next read."""
        # A log has next to none of these bytes, and one byte is looked for much faster than a mark.
        if not self._held and b"\x1e" not in data:
            self._on_output(data)
            return
        data, self._held = self._held + data, b""
        position = start = 0
        while (found := data.find(self._mark, start)) >= 0:
            end = _END.match(data, found + len(self._mark))
            if end is None:
                start = found + 1
                continue
            self._pass_on(data[position:found])
            self._on_end(end[1].decode(), int(end[2]))
            position = start = end.end()
        rest = data[position:]
        keep = self._beginning_of_mark(rest)
        self._held = rest[keep:]
        self._pass_on(rest[:keep])

    def finish(self) -> None:
        """There is no further read: what was held is output."""
        held, self._held = self._held, b""
        self._pass_on(held)

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._on_output(data)

    def _beginning_of_mark(self, data: bytes) -> int:
        """Where in ``data`` a mark begins that the next read may complete; its length where there is none."""
        start = data.find(b"\x1e", max(0, len(data) - len(self._mark) - _LONGEST_END))
        while start >= 0:
            begun = data[start:]
            if self._mark.startswith(begun) or (begun.startswith(self._mark) and b"\x1e" not in begun[1:]):
                return start
            start = data.find(b"\x1e", start + 1)
        return len(data)
