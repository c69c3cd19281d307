"""Makes sure that the wanted image is at the engine.

This module decides whether an image is used, pulled or built. The modules ``pull`` and ``build`` do the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import docker.errors

from nerves_docker_port import errors
from nerves_docker_port.background import Background
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine, label, labels
from nerves_docker_port.record.log import BuildLog
from nerves_docker_port.record.reporter import Reporter, stage
from nerves_docker_port.request.image_name import names_registry
from nerves_docker_port.request.request import NEW, OLD, Generation, ImageConfig
from nerves_docker_port.request.settings import CreateImage, Pull

if TYPE_CHECKING:
    from nerves_docker_port.image.context import Context

CREATE_QUESTION = "The Nerves Docker build_runner needs to create the image.\nProceed?"
"""The same text as in the stock runner."""

_RUNS_ON = {"amd64": ("386",), "arm64": ("arm",)}
"""For an engine's architecture, the other architectures whose programs it runs without emulation (names of GOARCH)."""

_GO_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}
"""Other names of processors that the engine takes in a platform (containerd/platforms, ``normalizeArch``)."""


@dataclass(frozen=True)
class Image:
    """An image at the engine."""

    tag: str
    id: str
    entrypoint: tuple[str, ...]
    """Empty if the image has no entrypoint."""
    workdir: str
    user: str
    architecture: str = ""
    """A name of GOARCH, such as ``amd64``; empty if the image does not name its architecture."""
    labels: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    """The image's digest at its registry, ``sha256:...``; ``None`` if the image comes from no registry."""

    def generation(self) -> Generation:
        """Return the generation of this image, judged by the image itself.

        For a platform whose version cannot be parsed (``Platform.generation`` is ``None``).
        """
        return OLD if self.workdir.startswith("/nerves") or self.entrypoint else NEW

    def is_foreign(self, engine: Engine) -> bool:
        """Return whether the image is made for an architecture that the engine cannot run without emulation."""
        native = engine.capabilities.architecture
        if not self.architecture or not native:
            return False
        return self.architecture != native and self.architecture not in _RUNS_ON.get(native, ())

    def is_for(self, platform: str) -> bool:
        """Return whether the image is made for ``platform`` (``linux/arm64``, ``linux``, ``arm64``).

        An image that does not name its architecture counts as made for any platform.
        """
        parts = platform.lower().split("/")
        names = {_GO_NAMES.get(part, part) for part in (parts if len(parts) == 1 else parts[1:2])}
        return not self.architecture or bool(names & {self.architecture, "linux"})


@dataclass(frozen=True)
class Policy:
    """What the configuration allows the helper to do if an image is missing or has changed."""

    pull: Pull = "missing"
    create_image: CreateImage = "ask"
    interactive: bool = False
    """Whether a person can answer questions at the terminal."""


def find(engine: Engine, tag: str) -> Image | None:
    """Return the image with the tag ``tag``, or ``None`` if the engine does not have it.

    Raises ``RunnerError`` ``:bad_request`` where the engine does not take the name.
    """
    with engine.failures(f"while it looked for the image {tag}"):
        try:
            found = engine.api.inspect_image(tag)
        except docker.errors.APIError as error:
            # An older engine does not know every name that is allowed today, such as a registry at an IPv6 address.
            if "invalid reference format" in str(error.explanation):
                reason = f"the engine, version {engine.capabilities.engine_version}, does not understand it"
                raise errors.image_name_unusable("The image", tag, reason) from error
            if error.status_code != 404:
                raise
            return None
    config: Mapping[str, Any] = found.get("Config") or {}
    return Image(
        tag=tag,
        id=str(found["Id"]),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        workdir=str(config.get("WorkingDir") or ""),
        user=str(config.get("User") or ""),
        architecture=str(found.get("Architecture") or ""),
        labels=dict(config.get("Labels") or {}),
        digest=next((str(name).partition("@")[2] for name in found.get("RepoDigests") or ()), None),
    )


def ensure(
    engine: Engine,
    wanted: ImageConfig,
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    policy: Policy,
    environ: Mapping[str, str],
    present: Background[Image | None] | None,
    before_work: Callable[[], object],
    open_log: Callable[[], BuildLog],
) -> Image:
    """Return the wanted image: the one at the engine, else pulled, else built from its Dockerfile.

    Exception: with ``pull: :missing``, a tag without a registry (``my_system:0.1.0``) is never pulled if its Dockerfile
    exists, because the image is meant to be built from that file. The stock runner asks Docker Hub for it first. That
    costs time, fails without a network, and runs an image that a stranger may have published under this name. A person
    who publishes such an image names the registry in the tag (``docker.io/me/my_system:0.1.0``), or configures
    ``pull: :always``.

    ``present`` finds the image at the engine. It is ``None`` if the image must be pulled in any case.
    ``before_work`` is called before the person is asked and before an image is pulled or built. It may raise, to refuse
    that. ``open_log`` is called if the image is built, and returns the log for the output of the build.
    Raises ``RunnerError`` ``:image_unavailable``, ``:image_build_failed`` or ``:disk_full``.
    """
    for text in engine.warnings:
        reporter.warning(text)
    builder = _Builder(engine, wanted, reporter, cancellation, policy, environ, open_log)
    image = None if present is None else present.result()
    if image is not None and engine.platform is not None and not image.is_for(engine.platform):
        reporter.warning(
            f"The engine's {image.tag} is made for {image.architecture}, and DOCKER_DEFAULT_PLATFORM asks for "
            f"{engine.platform}: another one is looked for."
        )
        image = None
    if image is not None:
        image = builder.rebuild_if_changed(image, before_work)
    else:
        before_work()
        image = _pull_or_else(engine, wanted, builder.context, policy, reporter, cancellation, builder.build_new)
    if image.is_foreign(engine) and engine.platform is None:
        native = engine.capabilities.architecture
        reporter.warning(
            f"The image {image.tag} is made for {image.architecture}, and the engine is on {native}: it runs slowly "
            f"there, by emulation, or not at all. Take an image for {native}, or build it here."
        )
    return image


def _pull_or_else(
    engine: Engine,
    wanted: ImageConfig,
    context: Context | None,
    policy: Policy,
    reporter: Reporter,
    cancellation: Cancellation,
    otherwise: Callable[[errors.RunnerError], Image],
) -> Image:
    """Pull the image, and return it.

    If the image must not be pulled, or the pull fails, return what ``otherwise`` returns for the error.
    """
    dockerfile = None if context is None else str(context.dockerfile)
    why_not = None
    if policy.pull == "never":
        why_not = "the configuration says `pull: :never`"
    elif policy.pull == "missing" and context is not None and not names_registry(wanted.tag):
        why_not = "its tag names no registry, so it is meant to be built from its Dockerfile"
    if why_not is not None:
        return otherwise(errors.image_unavailable(wanted.tag, why_not, dockerfile, pulled=False))
    # Imported here, because the import takes time, and nearly always the image is already at the engine.
    from nerves_docker_port.image import pull as image_pull

    reporter.headline("Trying to pull image")
    with stage(reporter, "pull"):
        reason = image_pull.pull(engine, wanted.tag, reporter, cancellation)
    present = find(engine, wanted.tag)
    if reason is None and present is not None:
        return present
    reason = reason or "the pull ended without it"
    if present is not None:
        # With `pull: :always` the person wants the image of the registry, so the image at the engine is not used.
        raise errors.image_not_renewed(wanted.tag, reason)
    return otherwise(errors.image_unavailable(wanted.tag, reason, dockerfile))


class _Builder:
    """Builds one image from its Dockerfile, if the Dockerfile exists and the policy or the person allows it."""

    def __init__(
        self,
        engine: Engine,
        wanted: ImageConfig,
        reporter: Reporter,
        cancellation: Cancellation,
        policy: Policy,
        environ: Mapping[str, str],
        open_log: Callable[[], BuildLog],
    ) -> None:
        self._engine = engine
        self._tag = wanted.tag
        self._reporter = reporter
        self._cancellation = cancellation
        self._policy = policy
        self._environ = environ
        self._open_log = open_log
        self.context: Context | None = None
        if wanted.dockerfile.exists():
            # Imported where it is needed, because most images are pulled.
            from nerves_docker_port.image.context import Context

            self.context = Context.find(wanted.dockerfile)

    def build_new(self, unavailable: errors.RunnerError) -> Image:
        """Build the image, and return it. Raises ``unavailable`` if it cannot or must not be built."""
        if self.context is None or not self._may_build(CREATE_QUESTION):
            raise unavailable
        return self._build(self.context, self._digest(self.context))

    def rebuild_if_changed(self, image: Image, before_work: Callable[[], object]) -> Image:
        """Return the image, built again if its Dockerfile or its build context has changed.

        Only an image that this runner has built carries the digest of its context. Any other is returned as it is.
        """
        made_from = label(image.labels, "context")
        if made_from is None or self.context is None:
            return image
        digest = self._digest(self.context)
        if digest == made_from:
            return image
        before_work()
        changed = f"{self.context.dockerfile}, or what it uses, has changed since the image {self._tag} was built."
        if self._may_build(f"{changed}\nBuild it again?"):
            return self._build(self.context, digest)
        advice = "`create_image: :always` (or NERVES_DOCKER_CREATE_IMAGE=always) builds it again."
        self._reporter.warning(f"{changed} The old image is used. {advice}")
        return image

    def _may_build(self, question: str) -> bool:
        if self._policy.create_image == "ask":
            return self._policy.interactive and self._reporter.ask(question, default=True)
        return self._policy.create_image == "always"

    def _digest(self, context: Context) -> str:
        try:
            return context.digest()
        except OSError as error:
            raise errors.context_unreadable(str(context.root), str(error)) from error

    def _build(self, context: Context, digest: str) -> Image:
        from nerves_docker_port.image import build as image_build

        self._reporter.headline("Create image")
        log = self._open_log()
        with stage(self._reporter, "build_image"):
            image_build.build(
                self._engine,
                self._tag,
                context,
                labels(project="nerves_docker_port", context=digest),
                environ=self._environ,
                log=log,
                reporter=self._reporter,
                cancellation=self._cancellation,
            )
            log.end_step()
            image = find(self._engine, self._tag)
            if image is None:
                raise errors.image_build_failed(
                    self._tag,
                    str(context.dockerfile),
                    None,
                    "the build ended well, but the image is not at the engine",
                    log.last_lines(),
                    str(log.path),
                )
        return image
