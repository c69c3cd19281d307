"""Describes the containers of the stock runner's recordings and of this runner in one form, to compare them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.script import steps_in

RECORDINGS = Path(__file__).parent.parent / "conformance" / "stock-1.14.1"


@dataclass
class Container:
    """One step in a container, with the placeholders of the recording in place of names and paths."""

    image: str
    command: list[str]
    workdir: str
    env: list[str]
    mounts: list[str]


def recorded_containers(recording: dict[str, Any]) -> list[Container]:
    """Return the containers that the `docker run` invocations of a recording start."""
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
    """Return the containers of this runner from their create requests. Each step counts as one container."""

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
    """Return the command of each step in a container's command, or the command itself if it has no steps."""
    _token, steps = steps_in(words)
    return [command for _name, command in steps] or [words]
