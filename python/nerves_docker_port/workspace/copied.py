"""The workspace for an engine that does not see the host's directories: copies of them, in volumes at the engine.

When a session begins, the package and the platform are sent to its container as one tar file. When it ends, the changes
that the build or the user has made in the package are brought back (docs/architecture.md, "Workspaces"). In the
container, the scripts receive.sh and changes.sh do the other half of this.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import urllib3.exceptions

from nerves_docker_port import errors
from nerves_docker_port.background import Background
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import archive, container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Mount
from nerves_docker_port.request.request import Request
from nerves_docker_port.volume import build_volume
from nerves_docker_port.volume.build_volume import labels_of
from nerves_docker_port.volume.session import ANSWERED, STATE, Questions
from nerves_docker_port.volume.steps import Step
from nerves_docker_port.workspace import changes
from nerves_docker_port.workspace.mounted import DOWNLOADS, PLATFORM, Workspace, bash
from nerves_docker_port.workspace.packing import Packed, State, Tree, fingerprint, snapshot, state_of

_CHANGES = ("say.sh", "list.sh", "changes.sh")

_PIECE = 4 << 20
"""The size in bytes of the pieces of the changes (scripts/list.sh)."""


@dataclass(frozen=True)
class CopiedWorkspace(Workspace):
    """What the containers of one package and one image get from an engine that does not see the host's directories."""

    volumes: tuple[Mount, ...] = ()
    """The volumes of the package, of the platform, and those that all systems share, with their mount points."""
    _sent: dict[Path, State] = field(default_factory=dict, compare=False)
    """The host's files that were sent to a session, with their states at that moment."""

    @classmethod
    def in_place_of(cls, engine: Engine, mounted: Workspace) -> CopiedWorkspace:
        """Return a workspace with copies for the same request as ``mounted``. Volumes that are missing are made.

        Raises ``RunnerError`` ``:bad_request`` if a setting does not work with copies.
        """
        check_settings(mounted.request)
        # The volumes are made at the same time, because each request may take long if the engine is far away.
        places = {
            mounted.package_dir: Background(lambda: build_volume.ensure_part(engine, mounted.volume, "package")),
            PLATFORM: Background(lambda: build_volume.ensure_part(engine, mounted.volume, "platform")),
            DOWNLOADS: Background(lambda: build_volume.ensure_shared(engine, "downloads")),
        }
        if mounted.request.settings.ccache is not None:
            places[mounted.ccache_dir] = Background(lambda: build_volume.ensure_shared(engine, "ccache"))
        volumes = [Mount("volume", making.result(), place) for place, making in places.items()]
        return cls(
            request=mounted.request,
            image=mounted.image,
            generation=mounted.generation,
            volume=mounted.volume,
            uid=mounted.uid,
            gid=mounted.gid,
            limits=mounted.limits,
            volumes=tuple(volumes),
            proxies=mounted.proxies,
        )

    @property
    def is_copy(self) -> bool:
        """True, because the containers get copies."""
        return True

    def questions(
        self, engine: Engine, token: str, tell: Callable[[str], None], cancellation: Cancellation
    ) -> Questions:
        """Return the functions that answer the scripts, which ask for the package or offer changes of it."""
        return {
            **super().questions(engine, token, tell, cancellation),
            "wanted": lambda made, asked: self._send(engine, made, asked, cancellation, (*self._kept(), *self._more())),
            "wanted_more": lambda made, asked: self._send(engine, made, asked, cancellation, self._more()),
            "changed": lambda made, asked: self._fetch(engine, made, asked, tell),
            "unoffered": lambda _made, _asked: tell(errors.changes_stay(errors.NOT_OFFERED)),
        }

    def bringing_back(self, token: str) -> list[Step]:
        """Return the step that offers the changes of the package's directory."""
        return [Step("bring_back", [*bash("changes", *_CHANGES), token, self.package_dir])]

    def is_current(self) -> bool:
        """Return whether the host's files are still those that were sent to the session."""
        try:
            return snapshot((*self._kept(), *self._mounted())) == self._sent
        except errors.RunnerError:
            return False

    def _prepare(self, token: str) -> list[str]:
        ccache = self.ccache_dir if self.request.settings.ccache is not None else ""
        known = fingerprint(self._note_states())
        receive = [token, self.package_dir, PLATFORM, ccache, known, "more" if self._more() else ""]
        caller = [str(self.uid), str(self.gid)]
        begin = ("say.sh", "list.sh", "receive.sh", "give_ssh.sh", "environment.sh")
        if self.makes_user:
            return [*bash("prepare", *begin, "give_workdir.sh"), *receive, "caller", *caller]
        # The owners of files on the volumes do not matter, so the image's own user stays as it is. With `/` as the
        # directory, become_caller.sh does not ask for the owner of a file, because that user may not make one there.
        return [*bash("prepare", *begin, "become_caller.sh"), *receive, "image", token, *caller, "/"]

    def _at_terminal(self, program: list[str], token: str) -> list[str]:
        return [*bash("changes", *_CHANGES), token, self.package_dir, *program]

    def _mounts(self) -> list[Mount]:
        return [
            Mount("volume", self.volume, self.workdir, labels=labels_of(self.volume, self.request.package)),
            *self.volumes,
        ]

    def _ssh_mounts(self) -> list[Mount]:
        return []

    def _configured_mounts(self) -> list[Mount]:
        return []

    def _kept(self) -> tuple[Tree, ...]:
        """Return the trees that the volumes keep from one session to the next."""
        request = self.request
        names = request.names
        without = frozenset({names.download_dir, names.cache_path, names.cache_path.parent} - {request.package.path})
        return (
            Tree("package", request.package.path, "in/package", without),
            Tree("platform", request.platform.path, "in/platform", without),
        )

    def _mounted(self) -> tuple[Tree, ...]:
        """Return the trees of the configured mounts."""
        mounts = enumerate(self.request.settings.mounts)
        return tuple(Tree("other", mount.source, f"in/mounts/{number}") for number, mount in mounts)

    def _more(self) -> tuple[Tree, ...]:
        """Return the trees that each session gets: the configured mounts and the ssh keys."""
        keys = self.request.home / ".ssh"
        has_keys = self.request.settings.ssh == "dir" and keys.is_dir()
        return (*self._mounted(), *([Tree("other", keys, "in/ssh")] if has_keys else []))

    def _note_states(self) -> dict[Path, State]:
        """Note the states of the host's files for the session. Return those of the files that the volumes keep."""
        kept = snapshot(self._kept())
        self._sent.clear()
        self._sent.update({**kept, **snapshot(self._mounted())})
        return kept

    def _send(self, engine: Engine, made: str, asked: str, cancellation: Cancellation, trees: tuple[Tree, ...]) -> None:
        """Send the trees into the container's own layer, which is removed with the container."""
        # The states are taken before the files are read, so a change while they are read is noticed later.
        self._note_states()
        targets = b"".join(os.fsencode(mount.target) + b"\0" for mount in self.request.settings.mounts)
        packed = Packed(trees, {"in/targets": targets, ANSWERED: f"{asked}\n".encode()}, cancellation.check)
        archive.put(engine, made, STATE, packed)

    def _fetch(self, engine: Engine, made: str, asked: str, tell: Callable[[str], None]) -> None:
        """Apply the changes that the container offers to the package's directory.

        Raises ``RunnerError``, ``ConnectionError`` if the answer breaks off, and the SDK's errors.
        """
        try:
            with archive.opened_in_pieces(engine, made, f"{STATE}/out/changes.tar", _PIECE) as content:
                applied = changes.apply(content, self.request.package.path)
        except (tarfile.TarError, urllib3.exceptions.HTTPError) as error:
            raise ConnectionError(errors.ANSWER_CUT) from error
        package = self.request.package.path
        for path in applied.written:
            # The host's file is now the same as the session's, and so is each directory that was made for it.
            self._sent[path] = state_of(path.lstat())
            for directory in takewhile(lambda each: each != package, path.parents):
                self._sent.setdefault(directory, state_of(directory.lstat()))
        for text in applied.warnings:
            tell(text)
        container.put_file(engine, made, f"{STATE}/{ANSWERED}", f"{asked}\n".encode())


def check_settings(request: Request) -> None:
    """Raise ``RunnerError`` ``:bad_request`` if a setting does not work with copies of the host's directories."""
    settings = request.settings
    for mount in settings.mounts:
        if not mount.read_only:
            raise errors.read_write_mount(str(mount.source), mount.target)
    if settings.ssh == "agent":
        raise errors.ssh_agent_elsewhere()
    # The setting `ccache: true` means this directory (request/settings.py).
    if settings.ccache not in (None, request.names.download_dir.parent / "ccache"):
        raise errors.ccache_elsewhere(str(settings.ccache))
