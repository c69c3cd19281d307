"""What is in the command of a container that runs several steps: read here by itself, not by the helper's own code."""

from __future__ import annotations

from collections.abc import Sequence

NAME = "nerves-docker-port-steps"
"""The name under which the helper's script runs; its arguments follow."""


def steps_in(command: Sequence[str]) -> tuple[str, list[tuple[str, list[str]]]]:
    """The script's token, and the name and the words of each step; nothing of either in another container's command.

    After the script's name come its token, then for each step its name, the number of its words, and these.
    """
    if NAME not in command:
        return "", []
    token, *rest = command[list(command).index(NAME) + 1 :]
    steps = []
    while rest:
        count = int(rest[1])
        steps.append((rest[0], rest[2 : 2 + count]))
        rest = rest[2 + count :]
    return token, steps
