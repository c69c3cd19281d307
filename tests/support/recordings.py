"""What the stock runner was recorded to do, and what ours was seen to ask for, in the same terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.script import steps_in

RECORDINGS = Path(__file__).parent.parent / "conformance" / "stock-1.14.1"


@dataclass
class Container:
    """A container's work, in the recording's placeholders."""

    image: str
    command: list[str]
    workdir: str
    env: list[str]
    mounts: list[str]


def recorded_containers(recording: dict[str, Any]) -> list[Container]:
    """The `docker run` invocations of a recording."""
    found = []
    for argv in recording["docker_argv"]:
        if argv[0] != "run":
            continue
        words = iter(argv[1:])
        container = Container("", [], "", [], [])
        for word in words:
            if word.startswith("-w="):
                container.workdir = word[3:]
            elif word == "-w":
                container.workdir = next(words)
            elif word == "--env":
                container.env.append(next(words))
            elif word == "--mount":
                container.mounts.append(next(words))
            elif word == "-a":
                next(words)
            elif word in ("--rm", "-it"):
                pass
            else:
                container.image = word
                container.command = list(words)
        found.append(container)
    return found


def seen_containers(created: list[dict[str, Any]], placeholders: dict[str, str], image_id: str) -> list[Container]:
    """What the engine was asked to run, likewise; of a container with several steps, each as if it had its own."""

    def replaced(text: str) -> str:
        for value, placeholder in placeholders.items():
            text = text.replace(value, placeholder)
        return text

    found = []
    for body in created:
        mounts = [
            f"type={m['Type']},src={replaced(m['Source'])},target={m['Target']}"
            + (",readonly" if m["ReadOnly"] else "")
            for m in body["HostConfig"]["Mounts"]
        ]
        found += [
            Container(
                "<image>" if body["Image"] == image_id else body["Image"],
                [replaced(word) for word in command],
                body["WorkingDir"],
                body["Env"],
                mounts,
            )
            for command in commands([*body["Entrypoint"], *body["Cmd"]])
        ]
    return found


def commands(words: list[str]) -> list[list[str]]:
    """The commands in a container's: one for each step, or the words themselves."""
    _token, steps = steps_in(words)
    return [command for _name, command in steps] or [words]
