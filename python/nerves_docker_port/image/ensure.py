"""Images: is it there, is it what is wanted, and how to come by it.

How an image is pulled and built is known to ``image_pull`` and ``image_build``; when, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import docker.errors

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine, label, labels
from nerves_docker_port.image.context import Context
from nerves_docker_port.record.log import BuildLog
from nerves_docker_port.record.reporter import Reporter, stage
from nerves_docker_port.request.request import NEW, OLD, Generation, ImageConfig
from nerves_docker_port.request.settings import CreateImage, Pull

CREATE_QUESTION = "The Nerves Docker build_runner needs to create the image.\nProceed?"
"""The stock runner's words."""

_RUNS_ON = {"amd64": ("386",), "arm64": ("arm",)}
"""Processors that run the programs of another, without emulation; in Go's names, as the engine's."""


@dataclass(frozen=True)
class Image:
    """An image at the engine."""

    tag: str
    id: str
    entrypoint: tuple[str, ...]
    """Empty where it has none."""
    workdir: str
    user: str
    architecture: str = ""
    """In Go's names (``amd64``), empty where it does not say."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def generation(self) -> Generation:
        """Which kind of builder this is, from the image itself: for platforms whose version does not tell."""
        return OLD if self.workdir.startswith("/nerves") or self.entrypoint else NEW

    def is_foreign(self, engine: Engine) -> bool:
        """Whether it is made for another kind of processor than the engine's."""
        native = engine.capabilities.architecture
        if not self.architecture or not native:
            return False
        return self.architecture != native and self.architecture not in _RUNS_ON.get(native, ())


@dataclass(frozen=True)
class Policy:
    """What may be done to come by an image."""

    pull: Pull = "missing"
    create_image: CreateImage = "ask"
    interactive: bool = False
    """Whether there is a person to be asked."""


def find(engine: Engine, tag: str) -> Image | None:
    """The image called ``tag``, or ``None`` if the engine has none."""
    with engine.failures(f"while it looked for the image {tag}"):
        try:
            found = engine.api.inspect_image(tag)
        except docker.errors.NotFound:
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
    )


def ensure(
    engine: Engine,
    wanted: ImageConfig,
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    policy: Policy,
    environ: Mapping[str, str],
    before_work: Callable[[], None],
    open_log: Callable[[], BuildLog],
) -> Image:
    """The wanted image: the engine's own, pulled, or built from its Dockerfile; in this order.

    Where ``pull`` is "missing", the order has one exception. A tag that names no registry (``my_system:0.1.0``) beside
    a Dockerfile that exists is never pulled: it is meant to be built from that file. Asking Docker Hub for it first,
    as the stock runner does, costs time, fails without a network, and runs what a stranger may have put there under
    that name. Who publishes such an image says so by the registry's name (``docker.io/me/my_system:0.1.0``), or with
    ``pull: :always``.

    ``before_work`` is called before anything is asked, pulled or built, and may refuse it; ``open_log`` if the image is
    built: the output goes there.
    Raises ``RunnerError`` ``:image_unavailable``, ``:image_build_failed`` or ``:disk_full``.
    """
    builder = _Builder(engine, wanted, reporter, cancellation, policy, environ, open_log)
    image = None if policy.pull == "always" else find(engine, wanted.tag)
    if image is not None:
        image = builder.renewed(image, before_work)
    else:
        before_work()
        image = _pulled(engine, wanted, builder.context, policy, reporter, cancellation, builder.created)
    if image.is_foreign(engine):
        native = engine.capabilities.architecture
        reporter.warning(
            f"The image {image.tag} is made for {image.architecture}, and the engine is on {native}: it runs slowly "
            f"there, by emulation, or not at all. Take an image for {native}, or build it here."
        )
    return image


def _pulled(
    engine: Engine,
    wanted: ImageConfig,
    context: Context | None,
    policy: Policy,
    reporter: Reporter,
    cancellation: Cancellation,
    otherwise: Callable[[errors.RunnerError], Image],
) -> Image:
    """The image from its registry if it may be pulled; what ``otherwise`` makes where it is not to be had there."""
    dockerfile = None if context is None else str(context.dockerfile)
    why_not = None
    if policy.pull == "never":
        why_not = "the configuration says `pull: :never`"
    elif policy.pull == "missing" and context is not None and not _names_registry(wanted.tag):
        why_not = "its tag names no registry, so it is meant to be built from its Dockerfile"
    if why_not is not None:
        return otherwise(errors.image_unavailable(wanted.tag, why_not, dockerfile, pulled=False))
    # Not on top: where the image is there, as it nearly always is, it is not waited for.
    from nerves_docker_port.image import pull as image_pull

    reporter.headline("Trying to pull image")
    with stage(reporter, "pull"):
        reason = image_pull.pull(engine, wanted.tag, reporter, cancellation)
    present = find(engine, wanted.tag)
    if reason is None and present is not None:
        return present
    reason = reason or "the pull ended without it"
    if present is not None:
        # With `pull: :always` a person wants the registry's image, not whatever is here.
        raise errors.image_not_renewed(wanted.tag, reason)
    return otherwise(errors.image_unavailable(wanted.tag, reason, dockerfile))


def _names_registry(tag: str) -> bool:
    """Whether a tag begins with a host, by the rule of Docker's references: ``localhost``, or with a dot or a port."""
    first, slash, _rest = tag.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


class _Builder:
    """Makes one image from its Dockerfile, where that exists and the person lets us."""

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
        self.context = Context.find(wanted.dockerfile)

    def created(self, unavailable: errors.RunnerError) -> Image:
        """The image, built; raises ``unavailable`` where it cannot or must not be."""
        if self.context is None or not self._may_build(CREATE_QUESTION):
            raise unavailable
        return self._built(self.context, self._digest(self.context))

    def renewed(self, image: Image, before_work: Callable[[], None]) -> Image:
        """The image, built again if we built it and its Dockerfile or context has changed since.

        An image that was not built here has no digest to compare, and is left alone.
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
            return self._built(self.context, digest)
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

    def _built(self, context: Context, digest: str) -> Image:
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
