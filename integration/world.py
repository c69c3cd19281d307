#!/usr/bin/env python3
"""Provides what the demo, the tests and the benchmarks need: an engine, builder images, several versions of Elixir.

    world.py run [--engine KIND] [--image KIND]... [--elixir SUITE] -- COMMAND...   run a command with an engine
    world.py engine start|stop|status|env [--engine KIND]           an engine that stays (stop --now: even if used)
    world.py image KIND...                                          make builder images (new, new-1.28.0, old)
    world.py tools PROGRAM...                                       install programs (Debian packages of the same name)
    world.py clean                                                  stop the engine and remove the cache

It needs only Python 3.10. Results that take long to make are kept in $NERVES_DOCKER_PORT_CACHE (default:
$XDG_CACHE_HOME/nerves_docker_port, or ~/.cache/nerves_docker_port), so the second run is quick. If an engine already
answers (DOCKER_HOST, the current docker context, the default socket), it is used and not changed. Otherwise, as root on
Debian, a private engine is started, and stopped when its last user has ended. `run` sets DOCKER_HOST and MINI_IMAGE
(the tag of the first `--image`) for the command, and returns its exit status. With `--engine`, an engine of that kind
is started in any case (integration/kinds.py), with all variables that lead to it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from integration.build_images import KINDS, ensure_image, tag_of
from integration.elixir import SUITES, command_in, elixir_version, ensure_elixir
from integration.engine import (
    answers,
    configured_host,
    engine,
    install_engine,
    keep,
    places,
    start_dockerd,
    stop,
    supervise,
    supervisor,
    variables,
)
from integration.host import WorldError, apt_install, cache_dir, main_program, say, unmount
from integration.kinds import KINDS as ENGINES
from integration.kinds import bring_images, prepare, running, start

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["WorldError", "command_in", "engine", "ensure_elixir", "ensure_image", "main", "run"]


def run(argv: list[str], *, images: list[str], elixir: str | None = None, kind: str | None = None) -> int:
    """Run a command with an engine, these images and this Elixir; return its exit status (128 + n after signal n).

    `kind` is a key of `integration.kinds.KINDS`.
    """
    root = None
    if elixir is not None:
        root = ensure_elixir(elixir)
        say(f"{elixir_version(root)} ({elixir})")
    with contextlib.ExitStack() as stack:
        if kind is None:
            leads = {"DOCKER_HOST": stack.enter_context(engine())}
            tags = [ensure_image(image, leads["DOCKER_HOST"]) for image in images]
        else:
            leads = stack.enter_context(running(kind, images)).variables
            tags = [tag_of(image) for image in images]
        env = {**os.environ, **leads}
        if tags:
            env.setdefault("MINI_IMAGE", tags[0])
        return _run_in_foreground(command_in(root, argv), env)


def _run_in_foreground(argv: list[str], env: dict[str, str]) -> int:
    """Run the command on this terminal, forward the signals that this process gets, and return its exit status."""
    try:
        child = subprocess.Popen(argv, env=env)
    except OSError as error:
        say(f"cannot run {argv[0]}: {error.strerror}")
        return 127

    def forward(number: int, _frame: FrameType | None) -> None:
        # The terminal sends Ctrl-C to the whole foreground process group, so the command has already received it.
        if not (number == signal.SIGINT and _in_foreground()):
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _engine_command(what: str, *, now: bool, kind: str | None) -> int:
    where = places(kind or "")
    if what == "start":
        host = configured_host()
        if kind is None and host != where.host and answers(host):
            _print_exports({"DOCKER_HOST": host})
            return 0
        if kind is None:
            install_engine()
        else:
            prepare(kind)
        keep(where)
        if kind is not None:
            bring_images(where, ["new"])
        _print_exports(variables(where))
        return 0
    if what == "stop":
        running_still = stop(where, now=now)
        say("in use; it stops when its last user has gone" if running_still else "none of ours runs any more")
        return 0
    pid = supervisor(where)
    if what == "env":
        if pid is None:
            say("none of ours runs; `engine start` starts one")
            return 1
        _print_exports(variables(where))
        return 0
    host = configured_host()
    print(f"configured: {host} ({'answers' if answers(host) else 'does not answer'})")
    print(f"ours: {where.host} ({f'runs, supervisor {pid}' if pid else 'does not run'}); log: {where.log}")
    return 0 if pid or answers(host) else 1


def _print_exports(leads: dict[str, str]) -> None:
    for name, value in leads.items():
        print(f"export {name}={shlex.quote(value)}")


def _clean() -> int:
    for kind in ("", *ENGINES):
        stop(places(kind), now=True)
    cache = cache_dir()
    unmount(cache)
    shutil.rmtree(cache)
    say(f"removed {cache}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="run a command with an engine")
    runs.add_argument("--engine", choices=ENGINES, help="start an engine of this kind")
    runs.add_argument("--image", action="append", default=[], choices=KINDS, help="have this build image (repeatable)")
    runs.add_argument("--elixir", choices=SUITES, help="run the command with this Elixir")
    runs.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    engines = commands.add_parser("engine", help="an engine that stays")
    engines.add_argument("what", choices=["start", "stop", "status", "env"])
    engines.add_argument("--engine", choices=ENGINES, help="one of this kind")
    engines.add_argument("--now", action="store_true", help="stop: although somebody uses it")
    image = commands.add_parser("image", help="have build images in the engine; prints their tags")
    image.add_argument("kinds", nargs="+", choices=KINDS)
    tools = commands.add_parser("tools", help="have these programs, each in the Debian package of its name")
    tools.add_argument("programs", nargs="+")
    commands.add_parser("clean", help="stop our engine and remove the cache")
    return parser


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command == "run":
        argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
        if not argv:
            parser.error("run: no command given")
        return run(argv, images=given.image, elixir=given.elixir, kind=given.engine)
    if given.command == "engine":
        return _engine_command(given.what, now=given.now, kind=given.engine)
    if given.command == "image":
        with engine() as host:
            for kind in given.kinds:
                print(ensure_image(kind, host))
        return 0
    if given.command == "tools":
        missing = [program for program in given.programs if shutil.which(program) is None]
        if missing:
            apt_install(missing, f"{' and '.join(missing)} cannot be found on the PATH")
        return 0
    return _clean()


if __name__ == "__main__":
    if sys.argv[1:2] == ["supervise"]:  # engine.py starts the supervisor in this way; it is no public command
        kind = sys.argv[2]
        sys.exit(supervise(places(kind), start if kind else start_dockerd))
    sys.exit(main_program(lambda: main(sys.argv[1:])))
