"""Each command that a document shows is run, or is known to be run elsewhere. The documents are the input.

A new command in a document fails this test until the tables below say how it is tested.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.project import Project, lay_out

from support.images import NEW

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "integration" / "README.md",
]

PROGRAMS = ("make", "mix", "python", "python3", ".venv/bin/python", "apt-get", "cd", "export", "docker", "eval")

# Commands that are not run here, and why.
ELSEWHERE = {
    "mix nerves.system.shell": "needs a terminal: tests/terminal",
    "MIX_TARGET=rpi4 ": "needs an application with a target, which the miniature system has not",
    "mix nerves_docker_port.volumes --prune my_system-": "removes a named volume: test_tasks.py does",
    "mix nerves_docker_port.volumes --all --prune other_system-": "removes a named volume: test_tasks.py does",
    "python3 -I -S -X utf8 priv/python shell SPEC": "the form of a command, which tests/terminal uses",
    "python3 -I -S -X utf8 priv/python run SPEC": "the form of a command, which tests/terminal uses",
    "mix nerves_docker_port.run -- make menuconfig": "needs a terminal: tests/terminal/test_mix_shell.py",
    "apt-get install ": ".ci/run does it on a fresh machine",
    "NERVES_DOCKER_CPUS=4 NERVES_DOCKER_PULL=always ": "asks a registry: test_settings.py and test_images.py",
    "export DOCKER_HOST=": "names an example's host: tests/engine/test_endpoint.py, test_tls.py and test_ssh.py",
    "docker context create ": "names an example's host: tests/engine/test_endpoint.py",
    "export MIX_HOME=": "real Nerves, by hand",
    "export HEX_OFFLINE=": "real Nerves, by hand",
    "export NERVES_": "real Nerves, by hand",
    "cd build/hex/package && mix deps.get && mix hex.publish": "publishes",
    ".venv-release/bin/twine upload ": "publishes",
    'eval "$(python3 integration/world.py engine start': "starts an engine that stays",
    "python3 integration/world.py engine stop": "stops an engine that others may use",
}


def shown() -> Iterator[tuple[str, str]]:
    """Each command of each document: the document's name, and the line without its comment."""
    for document in DOCUMENTS:
        fenced = False
        for line in document.read_text().splitlines():
            if line.lstrip().startswith("```"):
                fenced = not fenced and line.strip() in ("```console", "```sh")
                typed = line.strip() == "```console"
                continue
            text = line.strip()
            if fenced and typed:
                if not text.startswith("$ "):
                    continue
                text = text[2:]
            elif not (fenced or (line.startswith("    ") and _program(text) in PROGRAMS)):
                continue
            yield document.name, re.split(r"\s+# |\s{4,}", text)[0].strip()


def _program(text: str) -> str:
    """The first word that is no variable."""
    words = [word for word in text.split() if not re.match(r"[A-Z_]+=", word)]
    return words[0] if words else ""


@pytest.fixture
def project(directory: Path, host: str) -> Project:
    """A system that was not built yet, with this package where Mix puts it for a person."""
    project = lay_out(directory / "p", host=host, image=NEW, elixir=None)
    (project.system / "deps").mkdir()
    (project.system / "deps" / "nerves_docker_port").symlink_to(project.directory / "elixir_shim")
    return project


def test_every_command_of_the_documents_works(project: Project) -> None:
    seen = set()
    for document, command in shown():
        if command in seen or any(command.startswith(start) for start in ELSEWHERE):
            continue
        seen.add(command)
        program = _program(command)
        if program == "mix":
            _run(document, command, project, project.system)
        elif program == "make":
            # What the others do is what CI does, or takes too long.
            _run(document, command if command == "make demo" else f"{command} --dry-run", project, ROOT)
        elif "explain build.log" in command:
            # From where a person is who has the package, but by the packaged helper's path.
            words = [f"python3 {project.directory}/elixir_shim/priv/python", *command.partition(" explain ")[1:]]
            _run(document, " ".join(words), project, project.system)
        elif command.startswith("python3 deps/nerves_docker_port/priv/python "):
            _run(document, command, project, project.system)
        elif command.startswith((".venv/bin/python -m pytest ", "python3 integration/")):
            _script(document, command)
        else:
            pytest.fail(f"{document}: it is not known how to test `{command}`")
    assert len(seen) > 20


def test_what_is_said_to_be_tested_elsewhere_is_still_shown() -> None:
    commands = [command for _, command in shown()]
    for start in ELSEWHERE:
        assert any(command.startswith(start) for command in commands), start


def _run(document: str, command: str, project: Project, directory: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=project.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
    )
    assert ended.returncode == 0, f"{document}: `{command}` ended with {ended.returncode}:\n{ended.stdout}"


def _script(document: str, command: str) -> None:
    """A program of the repository: it is there, and so is each file that is named. The tests use it in this way."""
    for word in shlex.split(command):
        if "/" in word and not word.startswith((".venv/", "/")):
            assert (ROOT / word).exists(), f"{document}: {word} in `{command}`"
