"""Finds out why a build would not work: examines Python, the engine, the image, and what earlier builds left.

Each examination yields findings. A finding is a problem only if it would stop a build. Nothing is changed: the
examinations use containers and files of their own, and remove them afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nerves_docker_port import __version__, errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import container, resources
from nerves_docker_port.engine.client import Engine, labels
from nerves_docker_port.engine.container import Mount, Spec
from nerves_docker_port.engine.resources import State
from nerves_docker_port.image import ensure as image
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.printing import printable
from nerves_docker_port.request import image_name
from nerves_docker_port.request.request import Request, from_args
from nerves_docker_port.text import size
from nerves_docker_port.volume import lock
from nerves_docker_port.volume import prune as volumes
from nerves_docker_port.workspace.choose import Choice, which
from nerves_docker_port.workspace.copied import check_settings
from nerves_docker_port.workspace.mounted import CLEAN
from nerves_docker_port.workspace.packing import TEMPORARY

OUR_RUNNER = "Elixir.NervesDockerPort.BuildRunner"

_MARGIN = " " * 21

# Prints the file that the host has made, and copies it to `NAME.back`. Its argument is NAME.
_COPY = 'cat "/probe/$0" && cat "/probe/$0" > "/probe/$0.back"'


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    state: State
    text: str
    remedy: str | None = None


@dataclass(frozen=True)
class Subject:
    """The Nerves project or the image to examine, if there is one. The engine is always examined."""

    home: Path
    cwd: Path
    request: Request | None = None
    runner: str | None = None
    """The build runner that the package's configuration names."""
    tag: str | None = None
    """The tag of the image to examine outside of a project."""
    wrong: errors.RunnerError | None = None
    """The error in the project's configuration, because of which there is no ``request``."""


def subject(args: Mapping[Term, Term], environ: Mapping[str, str]) -> Subject:
    """Return what the request's ``args`` ask for (docs/protocol.md). ``package`` is ``nil`` outside of a project."""
    home, cwd = (Path(str(args.get(Atom(key)) or os.sep)) for key in ("home", "cwd"))
    package = args.get(Atom("package"))
    if not isinstance(package, dict):
        return Subject(home, cwd)
    runner = package.get(Atom("build_runner"))
    module = runner[0] if isinstance(runner, tuple) and runner else None
    name = module.name if isinstance(module, Atom) else None
    try:
        return Subject(home, cwd, from_args(args, environ), name)
    except errors.RunnerError as error:
        return Subject(home, cwd, None, name, wrong=error)


def examine(found: Subject, environ: Mapping[str, str], cancellation: Cancellation) -> Iterator[Finding]:
    """Examine everything in the order in which a build needs it, and yield the findings.

    If no engine is found, only the findings that need none are yielded.
    """
    yield _python()
    yield from _project(found)
    if found.tag is not None:
        try:
            image_name.parse(found.tag)
        except ValueError as error:
            yield _of_error("image", errors.image_name_unusable("--image", found.tag, str(error)))
            found = replace(found, tag=None)
    try:
        engine = Engine.connect(environ)
    except errors.RunnerError as error:
        yield _of_error("engine", error)
        yield _host_disk(found, environ)
        return
    try:
        yield _engine(engine)
        for text in engine.warnings:
            yield Finding("config.json", "warning", text, "Correct it: the docker CLI does not understand it either.")
        yield _place(engine)
        yield _memory(engine, found)
        yield from _limits(engine, found)
        examinations = [_with_image(engine, found, environ, cancellation), _leftovers(engine, found)]
        for examination in examinations:
            yield from examination
    except errors.RunnerError as error:
        cancellation.check()
        yield _of_error("engine", error)
    finally:
        engine.close()


def stops_a_build(findings: Iterable[Finding]) -> bool:
    """Return whether one of the findings would stop a build."""
    return any(finding.state == "problem" for finding in findings)


def to_text(findings: Iterable[Finding]) -> str:
    """Return the findings as text for a person: a line for each finding, and below it its remedy."""
    lines = []
    for finding in findings:
        first, *more = finding.text.splitlines() or [""]
        lines.append(f"{finding.state:<8} {finding.topic:<11} {first}")
        lines += [f"{_MARGIN}{line}".rstrip() for line in more]
        if finding.remedy is not None and finding.state != "ok":
            arrow, *rest = finding.remedy.splitlines()
            lines += [f"{_MARGIN}-> {arrow}", *(f"{_MARGIN}   {line}".rstrip() for line in rest)]
    return "\n".join(lines)


def to_json(findings: Iterable[Finding]) -> str:
    """Return the findings as JSON for a program, and whether one of them would stop a build."""
    listed = list(findings)
    value = {
        "version": __version__,
        "ok": not stops_a_build(listed),
        "findings": [
            {"topic": each.topic, "state": each.state, "text": each.text, "remedy": each.remedy} for each in listed
        ],
    }
    return json.dumps(value, indent=2)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command `doctor`, and return its exit status: 1 if a finding would stop a build, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m nerves_docker_port doctor",
        description="Find out why a build would not work. Inside a Nerves project, `mix nerves_docker_port.doctor` "
        "examines the project, too.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for a program to read")
    parser.add_argument("--image", metavar="TAG", help="examine this image, and with it disk, user ids and bind mounts")
    options = parser.parse_args(arguments)
    home = Path(environ.get("HOME") or os.sep)
    try:
        cwd = Path.cwd()
    except OSError:
        findings: Iterable[Finding] = [_of_error("directory", errors.no_current_directory())]
    else:
        findings = examine(Subject(home, cwd, tag=options.image), environ, Cancellation())
    listed = []
    for finding in findings:
        listed.append(finding)
        if not options.json:
            print(printable(to_text([finding])), flush=True)  # noqa: T201
    if options.json:
        print(to_json(listed))  # noqa: T201
    return 1 if stops_a_build(listed) else 0


def _python() -> Finding:
    # An older Python does not get this far, because the helper refuses it at once (python/package_helper.py).
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable}), helper {__version__}")


def _project(found: Subject) -> Iterator[Finding]:
    if found.wrong is not None:
        yield _of_error("project", found.wrong)
    elif found.request is not None:
        package = found.request.package
        yield Finding("project", "ok", f"{package.app} {package.version} ({package.path})")
    if found.runner is not None and found.runner != OUR_RUNNER:
        yield Finding(
            "runner",
            "warning",
            f"the package is built by {found.runner.removeprefix('Elixir.')}",
            "To build it with this runner, set `build_runner: NervesDockerPort.BuildRunner` in its nerves_package.",
        )


def _engine(engine: Engine) -> Finding:
    found = engine.capabilities
    kind = "rootless: its root is you" if found.rootless else "not rootless"
    return Finding(
        "engine",
        "ok",
        f"{found.engine_version} (API {found.api_version}) at {engine.endpoint.url} ({engine.endpoint.origin}), {kind}",
    )


def _place(engine: Engine) -> Finding:
    found = engine.capabilities
    if found.name == platform.node():
        where = "on this machine"
    elif "Docker Desktop" in found.system or found.name == "docker-desktop":
        where = "in Docker Desktop's virtual machine"
    else:
        where = f"on {found.name or 'a machine without a name'}"
    return Finding("place", "ok", f"the engine runs {where} ({found.system or 'unknown'}, {found.architecture})")


def _memory(engine: Engine, found: Subject) -> Finding:
    judged = resources.memory(engine.capabilities, found.request.settings if found.request else None)
    return Finding("memory", judged.state, judged.text, judged.remedy)


def _limits(engine: Engine, found: Subject) -> Iterator[Finding]:
    judged = resources.limits(engine.capabilities, found.request.settings) if found.request else None
    if judged is not None:
        yield Finding("limits", judged.state, judged.text, judged.remedy)


def _host_disk(found: Subject, environ: Mapping[str, str]) -> Finding:
    judged = resources.host_disk(_download_dir(found, environ))
    return Finding("host disk", judged.state, judged.text, judged.remedy)


def _download_dir(found: Subject, environ: Mapping[str, str]) -> Path:
    """Return Nerves' download directory, by the rules of ``Nerves.Env.download_dir/0``."""
    if found.request is not None:
        return found.request.names.download_dir
    if environ.get("NERVES_DL_DIR"):
        return Path(environ["NERVES_DL_DIR"]).absolute()
    data = Path(environ["XDG_DATA_HOME"]) / "nerves" if environ.get("XDG_DATA_HOME") else found.home / ".nerves"
    return data / "dl"


def _with_image(
    engine: Engine, found: Subject, environ: Mapping[str, str], cancellation: Cancellation
) -> Iterator[Finding]:
    """Examine the image, and by containers of it the engine's disk, user ids, and view of the host's directories."""
    tag = found.request.image.tag if found.request is not None else found.tag
    here = None
    if tag is not None:
        here = image.find(engine, tag)
        yield _image(engine, found, tag, here)
    yield _host_disk(found, environ)
    if here is None:
        why = "there is no image to try it with" if tag is not None else "`--image TAG` names one to try it with"
        yield Finding("engine disk", "ok", f"not examined: {why}")
        yield Finding("mounts", "ok", f"not examined: {why}")
        return
    prober = _Prober(engine, here, cancellation)
    yield prober.disk()
    if found.request is not None:
        request = found.request
        choice = _workspace(engine, request, here)
        yield Finding("workspace", "ok", f"{choice.kind}: {choice.reason}")
        if choice.kind == "copied":
            try:
                check_settings(request)
            except errors.RunnerError as error:
                yield _of_error("workspace", error)
            yield Finding("mounts", "ok", "not needed: the build works on copies of the package and the platform")
            return
        places = [("package", request.package.path), ("platform", request.platform.path)]
        places.append(("downloads", resources.nearest_existing(request.names.download_dir)))
        if request.settings.ccache is not None:
            places.append(("ccache", resources.nearest_existing(request.settings.ccache)))
    else:
        places = [("directory", found.cwd)]
    yield from prober.mounts(places)


def _workspace(engine: Engine, request: Request, here: Image) -> Choice:
    """Return the workspace that a build would get.

    A new file is used to find out whether the engine sees the package's directory, because the file that a build uses
    may not exist yet.
    """
    nonce = secrets.token_hex(16)
    file = request.package.path / f"{TEMPORARY}{nonce[:8]}"
    try:
        file.write_text(nonce)
    except OSError:
        # `_Prober.mounts` reports this error.
        return Choice("mounted", "not known, because the package's directory cannot be written")
    try:
        return which(engine, request.settings.workspace, here, file, ask=True)
    finally:
        with suppress(OSError):
            file.unlink()


def _image(engine: Engine, found: Subject, tag: str, here: Image | None) -> Finding:
    if here is not None and here.is_foreign(engine):
        native = engine.capabilities.architecture
        return Finding(
            "image",
            "warning",
            f"{tag} is made for {here.architecture}, and the engine is on {native}",
            f"Take an image for {native}, or build it here: it runs slowly there, by emulation, or not at all.",
        )
    if here is not None:
        return Finding("image", "ok", f"{tag} ({here.id.removeprefix('sha256:')[:12]})")
    policy = found.request.settings.pull if found.request is not None else "missing"
    if policy == "never":
        return Finding(
            "image",
            "problem",
            f"{tag} is not at the engine, and `pull: :never` forbids to pull it",
            f"Pull it (`docker pull {tag}`), or build it, or allow it: `pull: :missing`.",
        )
    return Finding(
        "image",
        "warning",
        f"{tag} is not at the engine; the next build pulls or builds it",
        f"`docker pull {tag}` fetches it now, and shows whether that works.",
    )


class _Prober:
    """Runs commands in containers of its own, as the user that a build would have."""

    def __init__(self, engine: Engine, here: Image, cancellation: Cancellation) -> None:
        self._engine = engine
        self._image = here
        self._cancellation = cancellation
        rootless = engine.capabilities.rootless
        self._user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"

    def disk(self) -> Finding:
        """Examine the disk on which the engine keeps its volumes."""
        try:
            # The engine removes this volume together with its container, because it has no name.
            status, output = self._run(["df", "-Pk", "/probe"], Mount("volume", "", "/probe"))
            # With -P (POSIX), df prints a line of headings, then a line: file system, blocks, used, available.
            free = int(output.splitlines()[-1].split()[3]) * 1024 if status == 0 else None
        except errors.RunnerError as error:
            return Finding("engine disk", "problem", f"no container can be run: {error.message}", error.hint)
        except (IndexError, ValueError):
            free = None
        if free is None:
            return Finding("engine disk", "ok", "not measured: the image has no df")
        judged = resources.engine_disk(free)
        return Finding("engine disk", judged.state, judged.text, judged.remedy)

    def mounts(self, places: Sequence[tuple[str, Path]]) -> Iterator[Finding]:
        """Examine whether a container sees the same directories, can read and write them, and who owns its files."""
        owners = set()
        for what, directory in places:
            finding, owner = self._mount(what, directory)
            yield finding
            if owner is not None:
                owners.add(owner)
        mine = (os.getuid(), os.getgid())
        if owners - {mine}:
            uid, gid = next(iter(owners - {mine}))
            yield Finding(
                "user ids",
                "problem",
                f"what a container writes as {self._user} belongs to {uid}:{gid} on the host, and not to you "
                f"({mine[0]}:{mine[1]})",
                "The engine maps user ids (`userns-remap`). Use a rootless engine, or one that does not.",
            )
        elif owners:
            text = f"what a container writes as {self._user} belongs to you ({mine[0]}:{mine[1]})"
            yield Finding("user ids", "ok", text)

    def _mount(self, what: str, directory: Path) -> tuple[Finding, tuple[int, int] | None]:
        nonce = secrets.token_hex(16)
        name = f".nerves-docker-port-{nonce[:8]}"
        file, back = directory / name, directory / f"{name}.back"
        topic = "mounts"
        try:
            try:
                file.write_text(nonce)
            except OSError as error:
                text = f"the {what} {directory} cannot be written: {error.strerror}"
                return Finding(topic, "problem", text, "Make it writable for you; the build writes there."), None
            try:
                status, output = self._run(["sh", "-c", _COPY, name], Mount("bind", str(directory), "/probe"))
            except errors.RunnerError as error:
                text = f"the engine cannot mount the {what} {directory}: {error.message}"
                return Finding(topic, "problem", text, error.hint), None
            if nonce.encode() not in output:
                text = f"the engine sees another directory at {directory} ({what}) than you do"
                return Finding(topic, "problem", text, errors.DIRECTORY_NOT_SEEN), None
            try:
                written, owner = back.read_text() == nonce, back.stat()
            except OSError:
                written, owner = False, None
            if status != 0 or not written or owner is None:
                reason = output.decode(errors="replace").replace(nonce, "").strip()
                text = f"a container reads, but cannot write the {what} {directory}: {reason or f'status {status}'}"
                return Finding(topic, "problem", text, errors.directory_not_writable(reason)), None
            text = f"a container reads and writes the {what} {directory}"
            return Finding(topic, "ok", text), (owner.st_uid, owner.st_gid)
        finally:
            for path in (file, back):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _run(self, command: Sequence[str], mount: Mount) -> tuple[int, bytes]:
        spec = Spec(
            name=f"nerves-docker-port-doctor-{secrets.token_hex(8)}",
            image=self._image.id,
            command=[*CLEAN[1:], *command],
            workdir="/",
            mounts=[mount],
            labels=labels(project="nerves_docker_port", step="doctor"),
            entrypoint=CLEAN[:1],
            user=self._user,
            network="none",
        )
        return container.run(self._engine, spec, self._cancellation)


def _leftovers(engine: Engine, found: Subject) -> Iterator[Finding]:
    """Examine the volumes and containers of earlier builds."""
    request = found.request
    package, names = (request.package, request.names) if request is not None else (None, None)
    every = volumes.find(engine, package, names)
    mine = [each for each in every if package is not None and each.is_of(package)]
    for each in mine:
        if not each.is_of_another_version(package):
            amount = "size unknown" if each.size is None else size(each.size)
            yield Finding("volume", "ok", f"{each.name} ({each.version}): {amount}, {volumes.age(each)}")
    if package is not None and not mine:
        yield Finding("volume", "ok", "none yet; the first build makes it")
    gone = [each for each in every if each.is_gone]
    versions = [each for each in every if each.is_of_another_version(package)]
    left = lock.left_behind(engine)
    for old, what, remedy in (
        (
            gone,
            "of packages that are gone",
            "`mix nerves_docker_port.volumes --all --prune` removes them, after asking.",
        ),
        (
            versions,
            "of other versions",
            "`mix nerves_docker_port.volumes --prune NAME` removes one that is not needed.",
        ),
    ):
        if old:
            amount = size(sum(each.size or 0 for each in old))
            names_of = ", ".join(each.name for each in old)
            yield Finding("leftovers", "warning", f"{_count(old, 'build volume')} {what}, {amount}: {names_of}", remedy)
    if left:
        yield Finding(
            "leftovers",
            "warning",
            f"{_count(left, 'container')} of builds that died: {', '.join(left)}",
            f"The next build on the same volume removes them; so does `docker rm --force {' '.join(left)}`.",
        )
    if not gone and not versions and not left:
        yield Finding("leftovers", "ok", "none")


def _count(things: Sequence[Any], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


def _of_error(topic: str, error: errors.RunnerError) -> Finding:
    # Only the last paragraph describes the error. The paragraphs before it are text that the stock runner also prints.
    return Finding(topic, "problem", error.message.rstrip().rpartition("\n\n")[2], error.hint)
