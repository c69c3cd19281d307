"""What is in the command of a session's container, and in the file of further steps.

Read here by itself, not by the helper's own code: both sides of the form would otherwise be wrong together.
"""

from __future__ import annotations

from collections.abc import Sequence

NAME = "nerves-docker-port-steps"
"""The name under which the script runs that runs the steps; its arguments follow."""

SESSION_NAME = "nerves-docker-port-session"
"""The name under which the first program of the container runs; its arguments follow."""

Steps = list[tuple[str, list[str]]]
"""The name and the words of each step."""


def steps_in(command: Sequence[str]) -> tuple[str, Steps]:
    """The token of the marks, and the first steps; nothing of either in another container's command.

    After the script's name come its token, how many words the final step takes, the final step, then the first steps:
    of each its name, the number of its words, and these.
    """
    if NAME not in command:
        return "", []
    token, final, *rest = command[list(command).index(NAME) + 1 :]
    return token, _steps(rest[int(final) :])


def final_step_in(command: Sequence[str]) -> Steps:
    """The step that runs when it is asked for; nothing where there is none."""
    if NAME not in command:
        return []
    _token, final, *rest = command[list(command).index(NAME) + 1 :]
    return _steps(rest[: int(final)])


def steps_in_file(content: bytes) -> tuple[int, Steps]:
    """The steps in the file ``steps``, in which each word is followed by a NUL, and the number of the first."""
    first, *rest = [word.decode() for word in content.split(b"\0")[:-1]]
    return int(first), _steps(rest)


def patience_in(entrypoint: Sequence[str]) -> int:
    """How many seconds the container lives without a heartbeat: the argument after the token."""
    return int(entrypoint[list(entrypoint).index(SESSION_NAME) + 2])


def _steps(words: Sequence[str]) -> Steps:
    steps, rest = [], list(words)
    while rest:
        count = int(rest[1])
        steps.append((rest[0], rest[2 : 2 + count]))
        rest = rest[2 + count :]
    return steps
