"""Building an image from its Dockerfile: with BuildKit where `docker buildx` is, through the engine's API otherwise.

BuildKit is not in the API in a form that the SDK speaks (it wants a gRPC session), so it needs the CLI's plugin. The
engine's own, older builder needs nothing, and knows all but BuildKit's newer syntax. Which of the two it is, and with
which of buildx's builders, is decided as `docker build` decides it (docker/cli, cmd/docker/builder.go).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import credentials, transfer
from nerves_docker_port.engine.client import LABEL, Engine
from nerves_docker_port.engine.config_file import ConfigFile
from nerves_docker_port.image.context import Context
from nerves_docker_port.image.pull import Progress, error_in
from nerves_docker_port.record.log import BuildLog, clean
from nerves_docker_port.record.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_GRACE = 5
"""Seconds between TERM and KILL for a `docker buildx` that is to end."""

_PROBE_TIMEOUT = 20
"""Seconds that `docker buildx version` may take."""

# What Go's strconv.ParseBool takes.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

_BUILDER_ALIAS = "builder"
"""The alias that `docker buildx install` writes into ``config.json``: `docker build` is `docker buildx build` then."""

_CREDENTIALS = ("auths", "credsstore", "credhelpers")

_API_STEP = re.compile(rb"^Step (\d+)/(\d+) : (.*)", re.MULTILINE)
# Podman's `STEP 2/6: RUN make`, and `[1/2] STEP 2/6: RUN make` in a Dockerfile with several stages.
_PODMAN_STEP = re.compile(rb"(\[(\d+)/\d+\] )?STEP (\d+)/(\d+): (.*)\n")
_PODMAN_LABEL = b'LABEL "%s.' % LABEL.encode()
# `#7 [2/4] RUN make`, in a stage with a name `#7 [builder 2/4] RUN make`.
_BUILDKIT_STEP = re.compile(rb"^#(\d+) \[(?:([^\]\s]+) +)?(\d+)/(\d+)\] (.*)")
_BUILDKIT_ERROR = re.compile(rb"^#(\d+) ERROR: (.*)")
_LAST_ERROR = re.compile(rb"^(?:ERROR|error): (.*)")
_NO_CREDENTIALS = b"error getting credentials"


def build(
    engine: Engine,
    tag: str,
    context: Context,
    labels: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    log: BuildLog,
    reporter: Reporter,
    cancellation: Cancellation,
) -> None:
    """Build ``tag`` from ``context``: its output into ``log``, its steps shown as headlines.

    Raises ``RunnerError`` ``:image_build_failed`` with the failing step, or ``:disk_full``; ``:bad_request`` where
    ``DOCKER_BUILDKIT`` asks for what cannot be had.
    """
    output = _Output(log, reporter)
    buildx = _buildx(engine, environ)
    if buildx is not None:
        reason = _with_buildx(engine, buildx, tag, context, labels, environ, output, reporter, cancellation)
    else:
        reason = _through_api(engine, tag, context, labels, output, reporter, cancellation)
    cancellation.check()
    if reason is not None:
        raise errors.image_build_failed(
            tag,
            str(context.dockerfile),
            output.failed_step,
            reason,
            log.last_lines(),
            str(log.path),
            said=log.end(),
            buildkit_only=(context.buildkit_only() or "") if buildx is None else None,
        )


class _Output:
    """Where a build's output goes: all of it to the log, the beginning of each step to the person."""

    def __init__(self, log: BuildLog, reporter: Reporter) -> None:
        self._log = log
        self._reporter = reporter
        self.failed_step: str | None = None
        """The step that failed; while none is known to have, the one that began last."""

    def write(self, data: bytes) -> None:
        """Keep output."""
        self._log.write(data)

    def step(self, text: bytes, *, may_fail: bool = True) -> None:
        """A step begins; with ``may_fail``, it is the one to blame if the build fails now."""
        shown = clean(text)
        if may_fail:
            self.failed_step = shown.decode("utf-8", "replace")
        self._reporter.log(b">>> " + shown)


# --- through the API -----------------------------------------------------------------------------------------------


def _through_api(
    engine: Engine,
    tag: str,
    context: Context,
    labels: Mapping[str, str],
    output: _Output,
    reporter: Reporter,
    cancellation: Cancellation,
) -> str | None:
    """Build with the engine's own builder; why it failed, or ``None``."""
    headers = {"Content-Type": "application/x-tar"}
    kept = credentials.for_all(engine, cancellation)
    if kept.credentials:
        headers["X-Registry-Config"] = credentials.header(kept.credentials)
    for problem in kept.problems:
        _warn_of_credentials(engine, reporter, problem)
    try:
        packed, dockerfile = context.packed()
    except OSError as error:
        raise errors.context_unreadable(str(context.root), str(error)) from error
    params = {
        "t": tag,
        "dockerfile": dockerfile,
        "rm": "1",
        "forcerm": "1",
        "labels": json.dumps(dict(labels)),
    }
    # As the CLI does it: the proxies of config.json are build arguments.
    if proxies := engine.proxy_environment():
        params["buildargs"] = json.dumps(proxies)
    if engine.platform is not None:
        params["platform"] = engine.platform
    with packed, engine.failures(f"while it built the image {tag}"):
        try:
            with closing(
                transfer.events(
                    engine,
                    "/build",
                    params=params,
                    headers=headers,
                    body=packed,
                    cancellation=cancellation,
                    may_be_silent=True,
                )
            ) as events:
                progress = Progress("Pulling base image", "Unpacking base image", reporter)
                return _follow(events, output, progress, own_steps=len(labels))
        except transfer.RefusedError as error:
            output.write(f"{error}\n".encode())
            return str(error)


def _follow(
    events: Iterator[Mapping[str, object]], output: _Output, progress: Progress, *, own_steps: int
) -> str | None:
    """Why the build failed, or ``None``.

    The builder adds an instruction for each label to the end of the Dockerfile; the person did not write those
    ``own_steps`` and does not see them.
    """
    podman = _PodmanSteps(output)
    for event in events:
        reason = error_in(event)
        if reason is not None:
            output.write(f"{reason}\n".encode())
            return reason
        if "stream" in event:
            data = str(event["stream"]).encode()
            output.write(data)
            for match in _API_STEP.finditer(data):
                number, total = int(match[1]), int(match[2]) - own_steps
                if number <= total:
                    output.step(b"Step %d/%d : %s" % (number, total, match[3]))
            podman.take(data)
        elif "status" in event:
            of_layer = progress.take(event)
            if not of_layer or not event.get("progressDetail"):
                name = f"{event['id']}: " if event.get("id") else ""
                output.write(f"{name}{event['status']}\n".encode())
    return None


class _PodmanSteps:
    """Finds the steps in Podman's output, which has each in an event of its own.

    What a step prints comes in such events, too, so only the number that is next counts; a stage that nothing needs is
    left out. How many steps there are is
    not shown: Podman counts the labels that we have added to the end, older versions each of them and newer ones all of
    them as one.
    """

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._last = (0, 0, 0)

    def take(self, data: bytes) -> None:
        """Take the text of one event."""
        match = _PODMAN_STEP.fullmatch(data)
        if match is None:
            return
        stage, number, total = int(match[2] or 1), int(match[3]), int(match[4])
        last_stage, last, last_total = self._last
        if (stage, number, total) == (last_stage, last + 1, last_total) or (stage > last_stage and number == 1):
            self._last = (stage, number, total)
            if not match[5].startswith(_PODMAN_LABEL):
                self._output.step(b"%sStep %d : %s" % (match[1] or b"", number, match[5]))


# --- with BuildKit -------------------------------------------------------------------------------------------------


def _buildx(engine: Engine, environ: Mapping[str, str]) -> str | None:
    """The docker CLI, if it is to build with buildx; ``None`` if the engine's own builder is to."""
    wanted = _wants_buildkit(engine, environ)
    if wanted is False:
        return None
    # Podman builds with something else; its own `docker` wrapper calls that buildx, too.
    if engine.is_podman:
        return None
    program = _cli_with_buildx(environ)
    if program is None and wanted:
        raise errors.buildx_missing()
    return program


def _wants_buildkit(engine: Engine, environ: Mapping[str, str]) -> bool | None:
    """Whether the person asks for BuildKit or against it: ``DOCKER_BUILDKIT``, else `docker buildx install`."""
    given = environ.get("DOCKER_BUILDKIT", "")
    if given in _TRUE:
        return True
    if given in _FALSE:
        return False
    if given:
        raise errors.buildkit_unclear(given)
    return True if _BUILDER_ALIAS in engine.endpoint.config.aliases else None


def _cli_with_buildx(environ: Mapping[str, str]) -> str | None:
    program = shutil.which("docker", path=environ.get("PATH"))
    if program is None:
        return None
    try:
        said = subprocess.run(
            [program, "buildx", "version"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return program if b"buildx" in said.stdout else None


def _with_buildx(
    engine: Engine,
    program: str,
    tag: str,
    context: Context,
    labels: Mapping[str, str],
    environ: Mapping[str, str],
    output: _Output,
    reporter: Reporter,
    cancellation: Cancellation,
) -> str | None:
    """Build with `docker buildx build`, which finds the engine as we do; why it failed, or ``None``."""
    command = [program, "buildx", "build", "--progress=plain"]
    # The person's builder may keep what it builds to itself.
    command += ["--load", "--tag", tag, "--file", str(context.dockerfile)]
    command += [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    command += ["--", str(context.root)]
    # Attestations would make the image one of several platforms, of which one is unknown.
    environment = {**engine.cli_environment(environ), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "NO_COLOR": "1"}
    if not environ.get("BUILDX_BUILDER") and _BUILDER_ALIAS not in engine.endpoint.config.aliases:
        # The engine's own BuildKit, whatever builder `docker buildx use` has chosen.
        environment["BUILDX_BUILDER"] = "default" if environment.get("DOCKER_HOST") else engine.endpoint.context
    steps = _BuildKitSteps(output)
    reason = _run(command, environment, steps, cancellation)
    if reason is not None and steps.lacks_credentials:
        _warn_of_credentials(engine, reporter, reason)
        with _config_without_credentials(engine.endpoint.config) as directory:
            steps = _BuildKitSteps(output)
            reason = _run(command, {**environment, "DOCKER_CONFIG": directory}, steps, cancellation)
    return reason


def _run(
    command: Sequence[str], environ: Mapping[str, str], steps: _BuildKitSteps, cancellation: Cancellation
) -> str | None:
    try:
        process = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own, plug-in included, that can be ended as one.
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]} does not start: {error.strerror}"
    assert process.stdout is not None
    with process, cancellation.on_cancel(lambda: _end(process)):
        try:
            _read_lines(process.stdout, steps.take)
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    return None if status == 0 else steps.reason or f"`docker buildx build` ended with exit status {status}"


def _read_lines(output: IO[bytes], take: Callable[[bytes], None]) -> None:
    for line in output:
        take(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the CLI and its plug-in: TERM, which cancels the build at the engine, then KILL."""
    killer = threading.Timer(STOP_GRACE, lambda: _signal(process, signal.SIGKILL))
    killer.daemon = True
    killer.start()
    _signal(process, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        with suppress(OSError):
            os.killpg(process.pid, number)


class _BuildKitSteps:
    """Reads BuildKit's plain progress: lines `#NUMBER TEXT`, the numbers being those of its vertices."""

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._steps: dict[bytes, bytes] = {}
        self.reason: str | None = None
        self.lacks_credentials = False

    def take(self, line: bytes) -> None:
        """One line of output."""
        self._output.write(line)
        line = clean(line)
        if _NO_CREDENTIALS in line:
            self.lacks_credentials = True
        if match := _BUILDKIT_STEP.match(line):
            number, stage, current, total, text = match.groups()
            # The line comes again whenever the output goes back to this step.
            if number not in self._steps:
                name = b" (%s)" % stage if stage else b""
                self._steps[number] = b"Step %s/%s%s : %s" % (current, total, name, text)
                # Steps run side by side: one that is told of after the error was cancelled for it.
                self._output.step(self._steps[number], may_fail=self.reason is None)
        elif match := _BUILDKIT_ERROR.match(line):
            if match[1] in self._steps:
                self._output.failed_step = self._steps[match[1]].decode("utf-8", "replace")
            self.reason = match[2].decode("utf-8", "replace")
        elif match := _LAST_ERROR.match(line):
            self.reason = match[1].decode("utf-8", "replace").removeprefix("failed to solve: ")


@contextmanager
def _config_without_credentials(config: ConfigFile) -> Iterator[str]:
    """The CLI's configuration, contexts and plug-ins included, but for all that has to do with credentials."""
    with tempfile.TemporaryDirectory(prefix="nerves-docker-port-") as directory:
        kept = {key: value for key, value in config.content.items() if key.lower() not in _CREDENTIALS}
        (Path(directory) / config.path.name).write_text(json.dumps(kept), encoding="utf-8")
        with suppress(OSError):
            for entry in config.directory.absolute().iterdir():
                if entry.name != config.path.name:
                    (Path(directory) / entry.name).symlink_to(entry)
        yield directory


def _warn_of_credentials(engine: Engine, reporter: Reporter, reason: str) -> None:
    reporter.warning(
        f"Docker's registry credentials could not be read ({engine.endpoint.config.path}): {reason}\n"
        "The image is built without them."
    )
