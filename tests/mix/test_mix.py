"""Whole Mix runs on the miniature system, as its user would start them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import docker
import pytest
from integration.host import REPOSITORY
from integration.project import Project, lay_out

from support.images import NEW, OLD
from support.port import wait_until
from support.system import ours, owner


@pytest.fixture
def project(directory: Path, host: str) -> Project:
    return lay_out(directory / "p", host=host, image=NEW, elixir=None)


def volume_of(project: Project) -> str:
    (file,) = project.system.glob(".nerves/artifacts/*/.docker_id")
    return f"my_system-{file.read_text()}"


def test_a_cold_mix_compile_builds_the_system(project: Project, client: docker.DockerClient) -> None:
    """Nerves builds a system before it compiles what is no Nerves package; the build runner must be there by then."""
    ended = project.mix("compile")
    assert ended.returncode == 0, ended.stdout
    assert (project.artifacts / "my_system-portable-0.1.0" / "nerves-system.tag").exists()
    assert ours(client, volume_of(project)) == []


def test_a_second_mix_compile_does_nothing_and_clean_makes_it_build_again(project: Project) -> None:
    assert project.mix("compile").returncode == 0
    again = project.mix("compile")
    assert again.returncode == 0
    assert "|Docker|" not in again.stdout
    assert project.mix("nerves.clean", "my_system").returncode == 0
    assert not (project.artifacts / "my_system-portable-0.1.0").exists()
    assert "|Docker| Starting Build..." in project.mix("compile").stdout


def test_the_artifact_goes_where_path_says(project: Project) -> None:
    elsewhere = project.directory / "elsewhere"
    elsewhere.mkdir()
    ended = project.mix("nerves.artifact", "--path", str(elsewhere))
    assert ended.returncode == 0, ended.stdout
    (artifact,) = elsewhere.iterdir()
    assert artifact.read_bytes() == (project.downloads / artifact.name).read_bytes()


def test_one_helper_builds_and_archives_and_goes_with_mix(project: Project, directory: Path) -> None:
    packaged = REPOSITORY / "elixir_shim" / "priv" / "python"
    started = directory / "started"
    helper = directory / "helper"
    helper.write_text(f'#!/bin/sh\necho $$ >> "{started}"\nexec python3 -I "{packaged}" "$@"\n')
    helper.chmod(0o755)
    ended = project.mix("nerves.artifact", NERVES_DOCKER_PORT_COMMAND=str(helper))
    assert ended.returncode == 0, ended.stdout
    assert "|Docker| Reusing artifact archive from " in ended.stdout
    (pid,) = started.read_text().split()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_failing_make_ends_mix_with_one_error_and_spares_the_artifact(
    project: Project, client: docker.DockerClient
) -> None:
    assert project.mix("nerves.artifact").returncode == 0
    (artifact,) = project.downloads.glob("my_system-*.tar.gz")
    before = artifact.read_bytes()
    cached = project.artifacts / "my_system-portable-0.1.0" / "CHECKSUM"
    cached.unlink()
    ended = project.mix("nerves.artifact", MINI_MAKE_ARGS="LINES=100 FAIL=1")
    assert ended.returncode == 1
    assert ended.stdout.count("** (Mix)") == 1
    assert "`make LINES=100 FAIL=1` ended with exit status 2" in ended.stdout
    quoted = ended.stdout.split("-----\n")[1].splitlines()
    log = (project.system / "build.log").read_text()
    assert [line.strip() for line in quoted] == [line.strip() for line in log.splitlines()[-16:]]
    assert f"See {project.system}/build.log." in ended.stdout
    assert artifact.read_bytes() == before
    assert ours(client, volume_of(project)) == []


def test_every_headline_of_a_log_of_200_mb_reaches_mix_once_and_in_order(project: Project) -> None:
    ended = project.mix("nerves.artifact", MINI_MAKE_ARGS="LINES=2010000 LINES_PER_HEADLINE=2000")
    assert ended.returncode == 0, ended.stdout[-2000:]
    log = (project.system / "build.log").read_bytes()
    assert len(log) > 200_000_000
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", log)
    expected = [line.decode().strip() for line in plain.split(b"\n") if line.startswith(b">>>")]
    shown = [line.strip() for line in re.findall(r"^>>>.*$", ended.stdout, re.MULTILINE)]
    assert len(expected) > 1000
    assert shown == expected


def test_a_project_whose_path_has_spaces_commas_quotes_and_letters_outside_ascii_builds(
    directory: Path, host: str
) -> None:
    project = lay_out(directory / 'mes systèmes, "v2" d\'été', host=host, image=NEW, elixir=None)
    ended = project.mix("nerves.artifact")
    assert ended.returncode == 0, ended.stdout
    assert (project.system / "Config.in").exists()


@pytest.mark.parametrize(("uid", "kind"), [(0, "new"), (1000, "new"), (1005, "new"), (1000, "old")])
def test_any_uid_builds_the_miniature_system_and_owns_all_of_it(
    directory: Path, open_host: str, uid: int, kind: str
) -> None:
    """Fault 1, with Mix itself as that user."""
    image = {"new": NEW, "old": OLD}[kind]
    project = lay_out(directory / "p", host=open_host, image=image, kind=kind, elixir=None)
    subprocess.run(["chown", "-R", f"{uid}:{uid}", project.directory], check=True)
    ended = subprocess.run(
        [*("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"), *project.command("nerves.artifact")],
        cwd=project.system,
        # Not root's own Python, which nobody else may run.
        env=project.env(PATH="/usr/local/bin:/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (artifact,) = project.downloads.glob("my_system-*.tar.gz")
    files = [project.system / name for name in ("Config.in", "build.log", "archive.log")]
    for path in (*files, artifact, project.artifacts / "my_system-portable-0.1.0" / "CHECKSUM"):
        assert owner(path) == (uid, uid), path
    everything = [Path(parent) / name for parent, _, names in os.walk(project.directory) for name in names]
    assert [path for path in everything if owner(path) != (uid, uid)] == []


def only_what_mix_needs(project: Project) -> Path:
    """A directory for the PATH in which there is no Python."""
    tools = project.directory / "bin"
    tools.mkdir()
    which = subprocess.run(
        [
            "which",
            "mix",
            "elixir",
            "erl",
            "erlc",
            *["sh", "env", "dirname", "basename", "readlink", "sed", "uname", "expr", "which", "cat", "tar", "gzip"],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    for program in which.stdout.split():
        (tools / Path(program).name).symlink_to(program)
    return tools


def old_python(tools: Path) -> None:
    """Put a `python3` there that makes of the packaged helper's first lines what Python 3.9 does."""
    python = tools / "python3"
    python.write_text(
        "#!/bin/sh\n"
        "for last; do case $last in */priv/python) main=$last/__main__.py;; esac; done\n"
        'exec /usr/bin/python3 -c "\n'
        "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2'\n"
        "exec(open(sys.argv[1]).read())\n"
        '" "$main"\n'
    )
    python.chmod(0o755)


def test_without_a_python_mix_says_what_to_install(project: Project) -> None:
    ended = project.mix("nerves.artifact", PATH=str(only_what_mix_needs(project)))
    assert ended.returncode == 1
    assert "sudo apt-get install python3" in ended.stdout


def test_a_python_that_is_too_old_is_named(project: Project) -> None:
    tools = only_what_mix_needs(project)
    old_python(tools)
    ended = project.mix("nerves.artifact", PATH=str(tools))
    assert ended.returncode == 1
    assert f"{tools}/python3 is older than Python 3.10" in ended.stdout
    assert "needs Python 3.10 or later" in ended.stdout
    assert "sudo apt-get install python3" in ended.stdout


def test_another_python_takes_the_place_of_one_that_is_too_old(project: Project) -> None:
    tools = only_what_mix_needs(project)
    old_python(tools)
    (tools / "python3.11").symlink_to("/usr/bin/python3")
    ended = project.mix("nerves.artifact", PATH=str(tools))
    assert ended.returncode == 0, ended.stdout
    # `archive` asks the helper that has built; no Python is started for it.
    assert ended.stdout.count("needs Python 3.10 or later") == 1
