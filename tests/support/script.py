"""Parses the command of a session's container, and the file with further steps.

This module does not use the helper's code, so that a test notices a mistake in the format that the helper writes.
"""

from __future__ import annotations

from collections.abc import Sequence

NAME = "nerves-docker-port-steps"
"""The name of the script that runs the steps. Its arguments follow the name."""

SESSION_NAME = "nerves-docker-port-session"
"""The name of the first program of the container. Its arguments follow the name."""

Steps = list[tuple[str, list[str]]]
"""The name and the words of each step."""


def steps_in(command: Sequence[str]) -> tuple[str, Steps]:
    """Return the token of the marks and the first steps. Both are empty if the container is not one of a session.

    The script's name is followed by the token, the number of words of the final step, the final step, and the first
    steps. Each step is its name, the number of words of its command, and these words.
    """
    if NAME not in command:
        return "", []
    token, final, *rest = command[list(command).index(NAME) + 1 :]
    return token, _steps(rest[int(final) :])


def final_step_in(command: Sequence[str]) -> Steps:
    """Return the final step, or an empty list if there is none."""
    if NAME not in command:
        return []
    _token, final, *rest = command[list(command).index(NAME) + 1 :]
    return _steps(rest[: int(final)])


def steps_in_file(content: bytes) -> tuple[int, Steps]:
    """Return the number of the first step in the file ``steps``, and the steps. The file has a NUL after each word."""
    first, *rest = [word.decode() for word in content.split(b"\0")[:-1]]
    return int(first), _steps(rest)


def patience_in(entrypoint: Sequence[str]) -> int:
    """Return the seconds that the container lives without a heartbeat, which is the argument after the token."""
    return int(entrypoint[list(entrypoint).index(SESSION_NAME) + 2])


def _steps(words: Sequence[str]) -> Steps:
    steps, rest = [], list(words)
    while rest:
        count = int(rest[1])
        steps.append((rest[0], rest[2 : 2 + count]))
        rest = rest[2 + count :]
    return steps
