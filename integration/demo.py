#!/usr/bin/env python3
"""The demo: builds a custom Nerves system on a real engine, as a user does, and checks the artifact.

    python3 integration/demo.py [--elixir host|bookworm|trixie|sid] [--image new|old|new-1.28.0] [--into DIRECTORY]

It starts an engine if none answers (see world.py), runs `mix nerves.artifact` in a new copy of integration/system,
checks the files on the host, and removes everything that it made. With `--into` the project, its artifact and its build
volume are kept. The exit status is 0 if all checks succeeded.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from integration.build_images import KINDS, ensure_image
from integration.elixir import SUITES, elixir_version, ensure_elixir
from integration.engine import Api, engine
from integration.host import WorldError, main_program
from integration.project import Project, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def main(arguments: list[str]) -> int:
    """Build, check, report and clean up. Returns the exit status."""
    given = _parse(arguments)
    elixir = ensure_elixir(given.elixir)
    with engine() as host, _directory(given.into) as directory:
        print(f"Elixir:  {elixir_version(elixir)}")
        print(f"Engine:  {_engine_line(host)}")
        print(f"Project: {directory / 'system'}")
        image = ensure_image(given.image, host)
        project = lay_out(directory, host=host, image=image, kind=given.image, elixir=elixir)
        try:
            steps = _build(project)
            archive = _check(project, Api(host))
            print(f"\nArtifact: {archive} ({archive.stat().st_size} bytes)")
            for name, seconds in steps:
                print(f"{seconds:9.2f} s  {name}")
            if given.into is None:
                _clean(project, Api(host))
        finally:
            if given.into is None:
                _remove_volume(project, Api(host))
    print("\nThe demo did what it should.")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elixir", choices=SUITES, default="host")
    parser.add_argument("--image", choices=KINDS, default="new")
    parser.add_argument("--into", type=Path, help="a new directory, which stays")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _directory(into: Path | None) -> Iterator[Path]:
    if into is not None:
        into.mkdir(parents=True)
        yield into.resolve()
        return
    directory = Path(tempfile.mkdtemp(prefix="nerves_docker_port_demo_")).resolve()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _engine_line(host: str) -> str:
    version = Api(host).json("/version")
    return f"{version['Version']} (API {version['ApiVersion']}) at {host}"


def _build(project: Project) -> list[tuple[str, float]]:
    """Run `mix nerves.artifact`, show its output, and return each headline with the seconds until the next one."""
    print("\n$ mix nerves.artifact", flush=True)
    marks = [("Mix starts and compiles", time.monotonic())]
    mix = subprocess.Popen(
        project.command("nerves.artifact"),
        cwd=project.system,
        env=project.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert mix.stdout is not None
    try:
        for line in mix.stdout:
            print(f"  {line}", end="", flush=True)
            text = ESCAPES.sub("", line).strip()
            if text.startswith(("|Docker|", ">>> ")):
                marks.append((text, time.monotonic()))
        if mix.wait() != 0:
            raise WorldError(f"`mix nerves.artifact` ended with status {mix.returncode}")
    finally:
        if mix.poll() is None:
            mix.terminate()
            mix.wait()
    ends = [when for _, when in marks[1:]] + [time.monotonic()]
    return [(name, end - start) for (name, start), end in zip(marks, ends, strict=True)]


def _check(project: Project, api: Api) -> Path:
    """Check the results of the build that a user relies on. Returns the path of the artifact."""
    print()
    archives = list(project.system.glob("my_system-portable-0.1.0-*.tar.gz"))
    _expect(len(archives) == 1, "the artifact is in the working directory")
    archive = archives[0]
    name = archive.name.removesuffix(".tar.gz")
    program = project.directory / "hello"
    with tarfile.open(archive) as tar:
        members = tar.getnames()
        _expect(all(member.split("/")[0] == name for member in members), f"everything in it is below {name}/")
        _expect(f"{name}/nerves-system.tag" in members, "it holds the system's tag, its images and its scripts")
        packed = tar.extractfile(f"{name}/staging/usr/bin/hello")
        program.write_bytes(packed.read() if packed else b"")
    _expect(program.read_bytes()[:4] == b"\x7fELF", "the program in it was compiled for Linux")
    if sys.platform == "linux" and os.uname().machine == api.json("/info")["Architecture"]:
        program.chmod(0o755)
        said = subprocess.run([program], capture_output=True, text=True, check=False).stdout
        _expect("hello 1.0: Hello from my_system" in said, "it runs, and says what the defconfig has it say")
    downloaded = project.downloads / archive.name
    _expect(_digest(downloaded) == _digest(archive), "the download directory has the same artifact")
    _expect((project.downloads / "hello" / "hello-1.0.tar.gz").exists(), "sources were kept in the download directory")
    cached = project.artifacts / "my_system-portable-0.1.0"
    checksum = (cached / "CHECKSUM").read_text()
    _expect(checksum.startswith(name.rpartition("-")[2]), "the cache has it unpacked, with the checksum of its sources")
    _expect((cached / "staging/usr/bin/hello").read_bytes() == program.read_bytes(), "... and the same program")
    owners = {path.stat().st_uid for path in project.directory.rglob("*") if not path.is_symlink()}
    _expect(owners == {os.geteuid()}, "every file on the host belongs to the person who ran Mix")
    _expect(_containers(project, api) == [], "no container is left")
    return archive


def _clean(project: Project, api: Api) -> None:
    print("\n$ mix nerves.clean my_system")
    volume = _volume(project)
    done = project.mix("nerves.clean", "my_system")
    _expect(done.returncode == 0, f"it ends well: {ESCAPES.sub('', done.stdout).strip().splitlines()[-1]}")
    _expect(api.json(f"/volumes/{volume}") is None, "the build volume is gone")


def _remove_volume(project: Project, api: Api) -> None:
    """Remove the build volume after a demo that failed before it could run `mix nerves.clean`."""
    with contextlib.suppress(OSError):
        api.request("DELETE", f"/volumes/{_volume(project)}?force=1")


def _volume(project: Project) -> str:
    """Return the name of the build volume. Raises `OSError` if there is no build volume."""
    identity = project.system / ".nerves/artifacts/my_system-portable-0.1.0/.docker_id"
    return f"my_system-{identity.read_text()}"


def _containers(project: Project, api: Api) -> list[str]:
    volume = _volume(project)
    containers = api.json("/containers/json?all=1")
    return [one["Id"] for one in containers if any(mount.get("Name") == volume for mount in one["Mounts"])]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _expect(fine: bool, what: str) -> None:
    print(f"  {'ok ' if fine else 'NOT'} {what}", flush=True)
    if not fine:
        raise WorldError(f"not so: {what}")


if __name__ == "__main__":
    sys.exit(main_program(lambda: main(sys.argv[1:])))
