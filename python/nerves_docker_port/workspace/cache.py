"""The compile cache of a session: how ccache in the container is configured, and whether the team's store can be used.

Buildroot's host-ccache reads ccache's own variables and configurations. Only its directory is another matter
(Buildroot: package/ccache/ccache.mk): up to ccache 4.10 it is in ``BR_CACHE_DIR``, which make sets; from 4.11 on that
change misses its place in ccache's source, and the directory is what ``BR2_CCACHE_DIR`` was when host-ccache was
compiled, if that is there, and otherwise ``~/.cache/ccache``. ``CCACHE_DIR`` itself must not be set: make takes it for
a variable of the package ccache. scripts/ccache.sh and ccache_count.sh are the other side of this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from nerves_docker_port import errors
from nerves_docker_port.engine import archive, container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.request.request import Request
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.volume.session import ANSWERED, STATE, Questions

FILES = f"{STATE}/tmp/ccache-"
"""The beginning of the paths of the files in which the programs of the container write about the cache."""

_ANSWER_LIMIT = 50
"""The time in milliseconds within which the store must take a connection and answer once. ccache needs several answers
for each compilation."""


@dataclass(frozen=True)
class Counted:
    """What ccache did in a session."""

    hits: int
    remote_hits: int
    misses: int
    errors: int
    """Compilations for which the store failed or took too long."""
    lost: bool
    """Whether the store stopped answering and was not used for the rest of the session."""


def is_on(settings: Settings) -> bool:
    """Return whether a cache is configured."""
    return settings.ccache is not None or settings.remote_cache is not None


def environment(settings: Settings, directory: str) -> dict[str, str]:
    """Return the environment variables for ccache. None contains a secret, because many configure scripts print them.

    ``directory`` is where the cache is mounted. Buildroot prefers a ``BR2_CCACHE_DIR`` from the environment to the
    defconfig's (Buildroot: Makefile), which can name a place where nothing is kept.

    ``CCACHE_CONFIGPATH2`` names a file that ccache reads in place of the system's configuration. ccache documents the
    variable for its own tests only, but every version from 3 to 4.14 has it. The cache's own ``ccache.conf`` has
    precedence over this file.
    """
    if not is_on(settings):
        return {}
    found = {"CCACHE_STATSLOG": f"{FILES}stats"}
    if settings.ccache is not None:
        found["BR2_CCACHE_DIR"] = directory
    if settings.remote_cache is not None:
        found["CCACHE_CONFIGPATH2"] = f"{FILES}conf"
    if settings.ccache_max_size is not None:
        # For ccache, `M` is 1000 * 1000 bytes, and `Mi` is 1024 * 1024.
        found["CCACHE_MAXSIZE"] = f"{max(1, settings.ccache_max_size >> 20)}Mi"
    return found


def questions(engine: Engine, settings: Settings, tell: Callable[[str], None]) -> Questions:
    """Return the functions that answer scripts/ccache.sh. They call ``tell`` with each warning for the user."""
    return {
        "ccache": lambda made, asked: _send_configuration(engine, made, asked, settings),
        "ccache_found": lambda made, _asked: _report_store(engine, made, settings, tell),
    }


def check(request: Request, tell: Callable[[str], None]) -> None:
    """Call ``tell`` with a warning if the package's defconfig does not switch the cache on."""
    if not is_on(request.settings):
        return
    defconfig = request.package.path / request.package.defconfig
    try:
        text = defconfig.read_text(errors="replace")
    except OSError:
        # create-build.sh reads the defconfig later and reports the error.
        return
    if not re.search(r"^\s*BR2_CCACHE=y\s*$", text, re.MULTILINE):
        tell(errors.ccache_not_used(str(defconfig)))


def counted(engine: Engine, made: str) -> Counted | None:
    """Return what scripts/ccache_count.sh has counted, or ``None`` if ccache has written no log.

    Raises the docker SDK's errors.
    """
    text = (archive.read_file(engine, made, f"{FILES}counted") or b"").decode(errors="replace")
    numbers = re.match(r"(\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE)
    if numbers is None:
        return None
    hits, remote_hits, misses, failed = map(int, numbers.groups())
    return Counted(hits, remote_hits, misses, failed, "lost" in text)


def _send_configuration(engine: Engine, made: str, asked: str, settings: Settings) -> None:
    store = settings.remote_cache
    assert store is not None
    # Up to version 4.6, ccache's name for this was `secondary_storage`. It ignores an unknown name.
    on = [f"remote_storage = {store.storage}", f"secondary_storage = {store.storage}"]
    off = []
    if settings.ccache is None:
        # Without a configured directory, a local cache would be lost with the container.
        on.append("remote_only = true")
        off.append("disable = true")
    files = {
        "ccache.on": "".join(f"{line}\n" for line in on).encode(),
        "ccache.off": "".join(f"{line}\n" for line in off).encode(),
        "ccache.probe": f"{store.host}\n{store.port}\n{store.answers}\n{store.good}\n{_ANSWER_LIMIT}\n".encode(),
        "ccache.question": store.question,
        ANSWERED: f"{asked}\n".encode(),
    }
    container.put_files(engine, made, STATE, files)


def _report_store(engine: Engine, made: str, settings: Settings, tell: Callable[[str], None]) -> None:
    store = settings.remote_cache
    assert store is not None
    found = (archive.read_file(engine, made, f"{FILES}found") or b"").decode(errors="replace")
    took, _, answer = found.partition("\n")
    lines = answer.splitlines()
    wrong = [line for line in lines if not re.search(store.good, line)]
    if not took.isdecimal():
        tell(errors.ccache_no_answer(store.address))
    elif wrong:
        tell(errors.ccache_refused(store.address, wrong[0][:200]))
    elif int(took) > _ANSWER_LIMIT:
        tell(errors.ccache_slow(store.address, int(took), _ANSWER_LIMIT))
