"""The compile cache of a session: what ccache in the container is told, and what becomes of the team's store.

Buildroot's host-ccache reads ccache's own variables and configurations; only ``CCACHE_DIR`` has another name there,
``BR_CACHE_DIR`` (Buildroot: package/ccache/ccache.mk). scripts/ccache.sh and ccache_count.sh are the other side of this
module.
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

FILES = "/tmp/nerves-docker-port.ccache-"
"""The beginning of the names of the files in the container that the session's programs write about the cache."""

_ANSWER_LIMIT = 50
"""Milliseconds that connecting to the store and one answer may take. ccache needs several answers for each
compilation."""


@dataclass(frozen=True)
class Counted:
    """What ccache did in a session."""

    hits: int
    remote_hits: int
    misses: int
    errors: int
    """Compilations for which the store failed or took too long."""
    lost: bool
    """The store stopped answering, and was left out from then on."""


def is_on(settings: Settings) -> bool:
    """Whether a cache is configured."""
    return settings.ccache is not None or settings.remote_cache is not None


def environment(settings: Settings) -> dict[str, str]:
    """The variables for ccache. None holds a secret: many a configure script prints its environment.

    ``CCACHE_CONFIGPATH2`` names the file in place of the system's configuration. ccache calls that a variable for its
    tests, but has had it since version 3, also in 4.14. What is in the cache's own ``ccache.conf`` goes before it.
    """
    if not is_on(settings):
        return {}
    found = {"CCACHE_STATSLOG": f"{FILES}stats"}
    if settings.remote_cache is not None:
        found["CCACHE_CONFIGPATH2"] = f"{FILES}conf"
    if settings.ccache_max_size is not None:
        # ccache's own units are powers of 1000, but for those with an i.
        found["CCACHE_MAXSIZE"] = f"{max(1, settings.ccache_max_size >> 20)}Mi"
    return found


def questions(engine: Engine, settings: Settings, tell: Callable[[str], None]) -> Questions:
    """What answers scripts/ccache.sh; ``tell`` gets warnings."""
    return {
        "ccache": lambda made, asked: _give(engine, made, asked, settings),
        "ccache_found": lambda made, _asked: _judge(engine, made, settings, tell),
    }


def check(request: Request, tell: Callable[[str], None]) -> None:
    """Tell what is missing for the cache to be used at all, as far as that can be seen here."""
    if not is_on(request.settings):
        return
    defconfig = request.package.path / request.package.defconfig
    try:
        text = defconfig.read_text(errors="replace")
    except OSError:
        # `create-build.sh` says what is wrong with it.
        return
    if not re.search(r"^\s*BR2_CCACHE=y\s*$", text, re.MULTILINE):
        tell(errors.ccache_not_used(str(defconfig)))


def counted(engine: Engine, made: str) -> Counted | None:
    """What scripts/ccache_count.sh has counted; ``None`` where ccache has kept no log. Raises what the SDK raises."""
    text = (archive.read_file(engine, made, f"{FILES}counted") or b"").decode(errors="replace")
    numbers = re.match(r"(\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE)
    if numbers is None:
        return None
    hits, remote_hits, misses, failed = map(int, numbers.groups())
    return Counted(hits, remote_hits, misses, failed, "lost" in text)


def _give(engine: Engine, made: str, asked: str, settings: Settings) -> None:
    store = settings.remote_cache
    assert store is not None
    # Up to version 4.6, `secondary_storage` was the name. An unknown name is ignored.
    on = [f"remote_storage = {store.storage}", f"secondary_storage = {store.storage}"]
    off = []
    if settings.ccache is None:
        # Nothing that is kept only in the container is of any use.
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


def _judge(engine: Engine, made: str, settings: Settings, tell: Callable[[str], None]) -> None:
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
