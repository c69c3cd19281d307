"""Every failure that a person can meet: its code, its words and the remedy.

This is the only place with those words. Code elsewhere raises what a function here returns, where the failure is
understood; the session sends it over the port and the shim shows it once, as one ``Mix.Error``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Code(str, Enum):
    """The stable codes of ``{:error, %{code: ...}}``; docs/protocol.md tells when each is used."""

    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_PERMISSION = "engine_permission"
    ENGINE_TOO_OLD = "engine_too_old"
    IMAGE_UNAVAILABLE = "image_unavailable"
    IMAGE_BUILD_FAILED = "image_build_failed"
    VOLUME_BUSY = "volume_busy"
    STEP_FAILED = "step_failed"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    NO_NETWORK = "no_network"
    NO_BUILD_TREE = "no_build_tree"
    ARTIFACT_MISSING = "artifact_missing"
    CANCELLED = "cancelled"
    BAD_REQUEST = "bad_request"
    PROTOCOL_MISMATCH = "protocol_mismatch"
    INTERNAL = "internal"


class RunnerError(Exception):
    """A failure in words for the person who ran Mix.

    ``message`` is complete as it stands, ``hint`` says what to do (or is ``None``), ``log`` is the path of the log that
    tells more (or ``None``).
    """

    def __init__(self, code: Code, message: str, *, hint: str | None = None, log: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.log = log


def engine_unreachable(endpoint: str, origin: str, reason: str) -> RunnerError:
    """No engine answers at ``endpoint``; ``origin`` says where that endpoint was found."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        "Nerves Docker build_runner is unable to connect to docker daemon\n\n"
        f"No engine answers at {endpoint} ({origin}): {reason}",
        hint="Start the engine (Linux: `sudo systemctl start docker`; otherwise start Docker Desktop or your podman "
        "machine), or point DOCKER_HOST or `docker context use` at one that runs. `docker version` tests it.",
    )


def engine_permission(endpoint: str, origin: str) -> RunnerError:
    """The engine's socket exists, but this user may not open it."""
    return RunnerError(
        Code.ENGINE_PERMISSION,
        f"Permission denied: the engine's socket {endpoint} ({origin}) may not be opened by this user.",
        hint="Add yourself to the socket's group (`sudo usermod -aG docker $USER`), then log out and in again; "
        "or use a rootless engine.",
    )


def engine_lost(endpoint: str, doing: str, reason: str) -> RunnerError:
    """The engine answered before, but no longer does."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"The engine at {endpoint} stopped answering {doing}: {reason}",
        hint="See whether the engine was stopped or restarted (`journalctl -u docker`), then run the command again: "
        "the build continues where it was.",
    )


def engine_too_old(found: str, needed: str) -> RunnerError:
    """The engine's API version is lower than what the flows need."""
    return RunnerError(
        Code.ENGINE_TOO_OLD,
        f"The engine speaks API version {found}; {needed} or later is needed.",
        hint="Update the engine: Docker 20.10 or Podman 3.4 and later are new enough.",
    )


def context_missing(name: str, origin: str) -> RunnerError:
    """The docker context that the environment names does not exist."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f'The docker context "{name}" ({origin}) does not exist.',
        hint="`docker context ls` lists those that do; `docker context use default` goes back to the local engine.",
    )


def endpoint_invalid(endpoint: str, origin: str, reason: str) -> RunnerError:
    """The endpoint's URL cannot be used."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"{endpoint} ({origin}) is not an engine endpoint that can be used: {reason}",
        hint="Write it as unix:///path/to/docker.sock or tcp://HOST:PORT.",
    )


def engine_refused(doing: str, reason: str) -> RunnerError:
    """The engine answered with an error that has no code of its own."""
    if "no space left on device" in reason.lower():
        return disk_full(f"The engine ran out of disk space {doing}: {reason}")
    return RunnerError(Code.INTERNAL, f"The engine reported an error {doing}: {reason}")


def disk_full(message: str, log: str | None = None) -> RunnerError:
    """No space is left, at the engine or on the host; ``message`` says where."""
    return RunnerError(
        Code.DISK_FULL,
        message,
        hint="Free some space, then run the command again: the build continues where it was. `docker system df` shows "
        "what the engine holds; build volumes go with `mix nerves.clean`.",
        log=log,
    )


def image_unavailable(image: str, reason: str, dockerfile: str | None) -> RunnerError:
    """``image`` is not at the engine and could not be pulled; ``dockerfile`` is what it can be built from, if there."""
    if dockerfile is None:
        hint = "Check the tag in `build_runner_config: [docker: {dockerfile, tag}]` and the network, then try again."
    else:
        hint = f"Its Dockerfile is {dockerfile}. Build it with:\n\n    {docker_build_command(dockerfile, image)}"
    return RunnerError(
        Code.IMAGE_UNAVAILABLE,
        f"Unable to use Nerves Docker build_runner without image\n\n{image} is not at the engine and could not be "
        f"pulled: {reason}",
        hint=hint,
    )


def docker_build_command(dockerfile: str, image: str) -> str:
    """The command, ready to be pasted into a shell, that builds ``image`` from ``dockerfile``."""
    import shlex
    from pathlib import PurePath

    return shlex.join(["docker", "build", "--tag", image, "--file", dockerfile, str(PurePath(dockerfile).parent)])


def volume_busy(volume: str, container: str, step: str, since: str) -> RunnerError:
    """Another build or shell holds ``volume``."""
    return RunnerError(
        Code.VOLUME_BUSY,
        f"The build volume {volume} is in use by the container {container} ({step}, {since}).",
        hint=f"Wait for it to end, or stop it with `docker stop {container}`.",
    )


def step_failed(
    step: str, status: int, last_lines: str, log: str, *, doing: str = "building", hint: str | None = None
) -> RunnerError:
    """A step's command ended with ``status``; ``last_lines`` are the log's."""
    return RunnerError(
        Code.STEP_FAILED,
        f"The Nerves Docker build_runner encountered an error while {doing}:\n\n"
        f"`{step}` ended with exit status {status}.\n\n-----\n{last_lines}\n-----\n\nSee {log}.\n",
        hint=hint,
        log=log,
    )


def no_build_tree(package: str, cache: str, last_lines: str | None = None, log: str | None = None) -> RunnerError:
    """``archive`` was asked for, but nothing has been built; ``cache`` is where Nerves keeps what it believes was."""
    ending = "" if last_lines is None else f"\n\n-----\n{last_lines}\n-----\n\nSee {log}.\n"
    return RunnerError(
        Code.NO_BUILD_TREE,
        f"There is no build tree of {package} to make an archive from.{ending}",
        hint=f"Nerves has an artifact of it in {cache} and so does not build it. To build it here, "
        f"run `mix nerves.clean {package}`, then this command again.",
        log=log,
    )


def artifact_missing(path: str, reason: str, log: str | None) -> RunnerError:
    """The step that packs the system ended well, but the artifact is not there or not whole."""
    return RunnerError(
        Code.ARTIFACT_MISSING,
        f"`make system` ended well, but the artifact {path} is not usable: {reason}",
        hint="Run the command again; if it stays so, the platform's Makefile does not pack the system.",
        log=log,
    )


def cancelled(reason: str) -> RunnerError:
    """The flow was cancelled; ``reason`` says by what."""
    return RunnerError(Code.CANCELLED, f"The build was cancelled: {reason}.")


def bad_request(message: str, hint: str | None = None) -> RunnerError:
    """The request or the configuration is wrong; ``message`` names the key."""
    return RunnerError(Code.BAD_REQUEST, message, hint=hint)


def not_writable(path: str, what: str, reason: str) -> RunnerError:
    """A directory or file on the host that must be written cannot be."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{what} {path} cannot be written: {reason}",
        hint="Make it writable for the user who runs Mix, or choose another place.",
    )


def internal(detail: str) -> RunnerError:
    """A defect in the helper."""
    return RunnerError(
        Code.INTERNAL,
        f"The helper met a defect of its own: {detail}",
        hint="Please report it with the traceback above.",
    )


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The name in ``allowed`` that ``word`` was probably meant to be."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(allowed), n=1)), None)
