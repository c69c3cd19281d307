"""Builds an image from its Dockerfile: with BuildKit if `docker buildx` is installed, else through the engine's API.

BuildKit needs a gRPC session with the engine, which the SDK cannot open, so it is used through the CLI's plug-in. The
engine's own, older builder needs no plug-in, but does not know BuildKit's newer syntax. The choice between the two, and
between the builders of buildx, follows the rules of `docker build` (docker/cli, cmd/docker/builder.go).
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

from nerves_docker_port import errors, watcher
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
"""Seconds between TERM and KILL when a `docker buildx` is stopped."""

_PROBE_TIMEOUT = 20
"""Seconds that `docker buildx version` may take."""

# The values that Go's strconv.ParseBool accepts.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

_BUILDER_ALIAS = "builder"
"""The alias that `docker buildx install` writes into ``config.json``, so that `docker build` uses buildx."""

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
    """Build the image ``tag`` from ``context``. Its output goes to ``log``, and its steps are shown as headlines.

    Raises ``RunnerError`` ``:image_build_failed`` with the failed step, ``:disk_full``, or ``:bad_request`` if the
    value of ``DOCKER_BUILDKIT`` is not a boolean or asks for buildx, which is not installed.
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
    """Writes the whole output of an image build to the log, and shows the user a headline for each step."""

    def __init__(self, log: BuildLog, reporter: Reporter) -> None:
        self._log = log
        self._reporter = reporter
        self.failed_step: str | None = None
        """The step that failed. As long as this is not known, it is the step that began last."""

    def write(self, data: bytes) -> None:
        """Write output to the log."""
        self._log.write(data)

    def step(self, text: bytes, *, may_fail: bool = True) -> None:
        """Show that a step begins. With ``may_fail``, it counts as the failed step if the build fails now."""
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
    """Build with the engine's own builder. Return ``None``, or the reason why the build failed."""
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
    # The CLI, too, passes the proxies of config.json as build arguments.
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
    """Read the events of a build. Return ``None``, or the reason why the build failed.

    The builder adds an instruction for each of our labels to the end of the Dockerfile. These ``own_steps`` are not
    shown, because the user did not write them.
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
    """Finds the steps in Podman's output, where an event announces each step.

    The output of a step comes in the same kind of event. So a line counts as a step only if its number is the next one.
    The number of a stage may be skipped, because Podman does not build a stage that no other stage needs. The number of
    all steps is not shown, because Podman includes the labels that we add: older versions count each label, newer
    versions count all labels as one step.
    """

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._last = (0, 0, 0)

    def take(self, data: bytes) -> None:
        """Read the text of one event."""
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
    """Return the path of the docker CLI if it has to build with buildx, or ``None`` for the engine's own builder."""
    wanted = _wants_buildkit(engine, environ)
    if wanted is False:
        return None
    # Podman has no BuildKit. Its own `docker` command has a `buildx` nevertheless.
    if engine.is_podman:
        return None
    program = _cli_with_buildx(environ)
    if program is None and wanted:
        raise errors.buildx_missing()
    return program


def _wants_buildkit(engine: Engine, environ: Mapping[str, str]) -> bool | None:
    """Return whether the user asks for BuildKit, by ``DOCKER_BUILDKIT`` or `docker buildx install`.

    ``None`` means that the user has not said so. Raises ``RunnerError`` ``:bad_request`` for an unclear value.
    """
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
        version = subprocess.run(
            [program, "buildx", "version"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return program if b"buildx" in version.stdout else None


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
    """Build with `docker buildx build` at the same engine. Return ``None``, or the reason why the build failed."""
    command = [program, "buildx", "build", "--progress=plain"]
    # Some builders store an image only in their own cache. With --load it is always stored at the engine.
    command += ["--load", "--tag", tag, "--file", str(context.dockerfile)]
    command += [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    command += ["--", str(context.root)]
    # With attestations, the image would be an index of several platforms, one of which is called "unknown".
    environment = {**engine.cli_environment(environ), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "NO_COLOR": "1"}
    if not environ.get("BUILDX_BUILDER") and _BUILDER_ALIAS not in engine.endpoint.config.aliases:
        # `docker build` uses the engine's own BuildKit, even if `docker buildx use` has chosen another builder.
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
            # A new process group, so that one signal ends the CLI together with its plug-in.
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]} does not start: {error.strerror}"
    assert process.stdout is not None
    with process, cancellation.on_cancel(lambda: _terminate(process)), _ended_with_helper(process.pid):
        try:
            _read_lines(process.stdout, steps.take)
            status = process.wait()
        except BaseException:
            _terminate(process)
            raise
    return None if status == 0 else steps.reason or f"`docker buildx build` ended with exit status {status}"


def _read_lines(output: IO[bytes], take: Callable[[bytes], None]) -> None:
    for line in output:
        take(line)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Send TERM to the CLI and its plug-in, which cancels the build at the engine, and KILL later if they still run."""
    killer = threading.Timer(STOP_GRACE, lambda: _signal(process, signal.SIGKILL))
    killer.daemon = True
    killer.start()
    _signal(process, signal.SIGTERM)


@contextmanager
def _ended_with_helper(group: int) -> Iterator[None]:
    """End the processes of ``group`` if the helper is killed while the body of the `with` runs.

    If the watcher reads a line, the body has ended. If it reads the end of its input, the helper was killed, and the
    watcher sends TERM and KILL to the group.
    """
    program = 'read -r _ || { kill -s TERM -- "-$0"; sleep "$1"; kill -s KILL -- "-$0"; }'
    watching = watcher.start(program, str(group), str(STOP_GRACE))
    try:
        yield
    finally:
        watching.communicate(b"\n")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        with suppress(OSError):
            os.killpg(process.pid, number)


class _BuildKitSteps:
    """Finds the steps and the error in BuildKit's plain progress, whose lines are `#NUMBER TEXT`.

    BuildKit has one number for each of its tasks. A step of the Dockerfile is such a task.
    """

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._steps: dict[bytes, bytes] = {}
        self.reason: str | None = None
        self.lacks_credentials = False

    def take(self, line: bytes) -> None:
        """Read one line of output."""
        self._output.write(line)
        line = clean(line)
        if _NO_CREDENTIALS in line:
            self.lacks_credentials = True
        if match := _BUILDKIT_STEP.match(line):
            number, stage, current, total, text = match.groups()
            # Steps run in parallel. BuildKit repeats this line each time when output of the step follows.
            if number not in self._steps:
                name = b" (%s)" % stage if stage else b""
                self._steps[number] = b"Step %s/%s%s : %s" % (current, total, name, text)
                # A step that appears only after the error did not cause it: BuildKit has cancelled that step.
                self._output.step(self._steps[number], may_fail=self.reason is None)
        elif match := _BUILDKIT_ERROR.match(line):
            if match[1] in self._steps:
                self._output.failed_step = self._steps[match[1]].decode("utf-8", "replace")
            self.reason = match[2].decode("utf-8", "replace")
        elif match := _LAST_ERROR.match(line):
            self.reason = match[1].decode("utf-8", "replace").removeprefix("failed to solve: ")


@contextmanager
def _config_without_credentials(config: ConfigFile) -> Iterator[str]:
    """Make a copy of the CLI's configuration, with contexts and plug-ins, but without credentials. Yields its path."""
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
