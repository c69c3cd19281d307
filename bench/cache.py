"""Measures builds with the compile cache of a team: with a store that works, and with one that cannot be used."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.measure import Case, Limit, Sample
from bench.place import Place
from integration.host import WorldError

from support.compile import RUN, add_program
from support.images import NEW
from support.port import Conversation
from support.stores import Store, free_port, redis, slow
from support.system import System

FILES, FUNCTIONS = 300, 60
LOST_AFTER = 5.0
"""The seconds from the beginning of `make` to the loss of a store."""


def shared_cache(place: Place) -> Iterator[Case]:
    """Compare builds of a program of 300 files, without a cache and with the team's Redis in each state."""
    with _system(place) as system, redis() as store, slow(store.port, 0.3) as slow_port:
        used = f"redis://127.0.0.1:{store.port}"
        unused = f"redis://127.0.0.1:{free_port()}"
        yield Case(
            f"compile cache, {FILES} files",
            {
                "no cache": partial(_sample, place, system, None),
                "fills the store": partial(_sample, place, system, used, before=lambda: _empty(store)),
                "second machine": partial(_sample, place, system, used, hits=FILES),
                "store is down": partial(_sample, place, system, unused),
                "store is slow": partial(_sample, place, system, f"redis://127.0.0.1:{slow_port}"),
                "store is stopped": partial(_lose, place, system, Store.stop),
                "store hangs": partial(_lose, place, system, Store.hold),
            },
            (
                Limit("second machine", 0.15, against="no cache"),
                Limit("fills the store", 1.15, against="no cache"),
                *(
                    Limit(f"store {state}", 1.10, against="no cache")
                    for state in ("is down", "is slow", "is stopped", "hangs")
                ),
            ),
            repeat=3,
            warm_up=False,
        )


@contextmanager
def _system(place: Place) -> Iterator[System]:
    system = place.system(NEW)
    kept = (system.package / "nerves_defconfig").read_text()
    add_program(system, files=FILES, functions=FUNCTIONS)
    try:
        yield system
    finally:
        shutil.rmtree(system.package / "src")
        (system.package / "nerves_defconfig").write_text(kept)


def _sample(
    place: Place,
    system: System,
    remote: str | None,
    *,
    before: Callable[[], object] | None = None,
    hits: int | None = None,
    during: Callable[[], object] | None = None,
) -> Sample:
    """Measure a whole build on an empty volume with an empty local cache.

    `before` is called before the build, and `during` some time after `make` has begun. `hits` is the number of hits
    that must come from the store.
    """
    place.reset(system.image)
    shutil.rmtree(system.root / "ccache", ignore_errors=True)
    if before is not None:
        before()
    cache = {} if remote is None else {"NERVES_DOCKER_CCACHE": "true", "NERVES_DOCKER_CCACHE_REMOTE": remote}
    # Without a cache the defconfig has no BR2_CCACHE=y, so the compilers are not run by ccache.
    system.write("my_system/nerves_defconfig", f"BR2_x86_64=y\n{'BR2_CCACHE=y' if cache else ''}\n")
    started = time.perf_counter()
    with system.helper() as helper:
        helper.start("build", system.args(make_args=[RUN], env={"NERVES_DOCKER_NETWORK": "host", **cache}))
        conversation = helper.follow(until_stage="make")
        timer = threading.Timer(LOST_AFTER, during) if during is not None else None
        if timer is not None:
            timer.start()
        helper.follow(conversation)
    seconds = time.perf_counter() - started
    if timer is not None:
        timer.join()
    _check(conversation, hits)
    return Sample(seconds, {"compiler_cpu": _cpu(system.build_log.read_text(errors="replace"))})


def _cpu(log: str) -> float:
    """Return the CPU time of the compilers in seconds, from the output of the shell's `times` in the log."""
    used = re.findall(r"^(\d+)m([\d.]+)s (\d+)m([\d.]+)s$", log, re.MULTILINE)
    return sum(60 * (int(words[0]) + int(words[2])) + float(words[1]) + float(words[3]) for words in used)


def _check(conversation: Conversation, hits: int | None) -> None:
    told = [line for line in conversation.headlines if line.startswith("Compiler cache")]
    if conversation.error is not None or (hits is not None and f"{hits} of them from" not in "".join(told)):
        raise WorldError(f"the build with a cache is not as wanted: {conversation.error or told}")


def _lose(place: Place, system: System, lose: Callable[[Store], None]) -> Sample:
    """Measure a build that begins with an empty store and loses the store in the middle."""
    with redis() as store:
        return _sample(place, system, f"redis://127.0.0.1:{store.port}", during=lambda: lose(store))


def _empty(store: Store) -> None:
    store.stop()
    store.start()
