"""The tunnel with a program in place of ssh, which runs everything here. tests/engine/test_ssh.py has OpenSSH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nerves_docker_port import errors
from nerves_docker_port.engine.client import Engine
from support.fake_engine import FakeEngine

# The far side is this machine, so a forwarded socket is a link. `forbid` and `fail` are files that change its mind.
SSH = """\
#!{python}
import os, sys
from pathlib import Path

here = Path(__file__).parent
options, command = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 2 :]
if (here / "fail").exists():
    sys.exit("me@far: Permission denied (publickey).")
if "forward" in options:
    near, _, far = options[options.index("-L") + 1].partition(":")
    os.symlink("/none" if (here / "forbid").exists() else far, near)
else:
    os.execvp("sh", ["sh", "-c", *command])
"""

# `docker system dial-stdio`: what is read goes to the engine, and its answer to standard output.
DOCKER = """\
#!{python}
import os, socket, sys, threading

if "dial-stdio" not in sys.argv:
    sys.exit(1)
engine = socket.socket(socket.AF_UNIX)
engine.connect(sys.argv[sys.argv.index("--host") + 1].removeprefix("unix://"))

def send():
    while data := os.read(0, 65536):
        engine.sendall(data)
    engine.shutdown(socket.SHUT_WR)

threading.Thread(target=send, daemon=True).start()
while data := engine.recv(65536):
    os.write(1, data)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with `ssh`, which is the first on the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    _program(directory / "ssh", SSH)
    return directory


def _program(file: Path, text: str) -> None:
    file.write_text(text.format(python=sys.executable))
    file.chmod(0o755)


@pytest.fixture
def environ(programs: Path, fake: FakeEngine, tmp_path: Path) -> dict[str, str]:
    """The environment of a person with an engine on the host `far`."""
    host = f"ssh://me@far{fake.socket}"
    return {"DOCKER_HOST": host, "PATH": f"{programs}:{os.defpath}", "HOME": str(tmp_path), "LC_ALL": "C"}


def test_a_forwarded_socket_leads_to_the_engine_and_closing_ends_ssh(environ: dict[str, str]) -> None:
    engine = Engine.connect(environ)
    tunnel = engine._tunnel
    assert tunnel is not None
    assert engine.capabilities.engine_version == "27.3.1"
    engine.close()
    assert not Path(tunnel.socket_path).parent.exists()


def test_where_forwarding_is_forbidden_the_far_docker_is_the_way(environ: dict[str, str], programs: Path) -> None:
    (programs / "forbid").touch()
    _program(programs / "docker", DOCKER)
    engine = Engine.connect(environ)
    assert engine.capabilities.engine_version == "27.3.1"
    engine.close()


def test_an_engine_that_does_not_answer_on_the_far_side_is_an_error(environ: dict[str, str], programs: Path) -> None:
    (programs / "forbid").touch()
    _program(programs / "docker", "#!/bin/sh\necho 'no engine there' >&2\nexit 1\n")
    with pytest.raises(errors.RunnerError) as raised:
        Engine.connect(environ)
    assert raised.value.code == "engine_unreachable"


def test_ssh_s_own_words_are_in_the_error(environ: dict[str, str], programs: Path) -> None:
    (programs / "fail").touch()
    with pytest.raises(errors.RunnerError, match=r"Permission denied \(publickey\)"):
        Engine.connect(environ)


def test_a_socket_that_the_far_side_does_not_have_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(errors.RunnerError, match=r"/none/docker\.sock"):
        Engine.connect({**environ, "DOCKER_HOST": "ssh://me@far/none/docker.sock"})


def test_without_ssh_it_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(errors.RunnerError, match="ssh"):
        Engine.connect({**environ, "PATH": str(tmp_path)})
