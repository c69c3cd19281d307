"""The helper's commands: ``port``, which the shim starts, and those that the user or Mix runs (``USAGE``).

The shim waits for the hello, so this module imports slow modules as late as possible.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nerves_docker_port.operations import Operations

USAGE = """\
usage: python -m nerves_docker_port COMMAND

  port      serve the Elixir shim over descriptors 3 and 4 (docs/protocol.md)
  shell     open a build shell on this terminal; `mix nerves.system.shell` says the whole command
  run       run a command in the build directory on this terminal; for `mix nerves_docker_port.run`
  doctor    find out why a build would not work: the engine, and what a build needs of it
  explain   find the cause of a failed build in its log: `explain build.log`
  report    say how a build went and where its time went: `report --html FILE`
  version   print the version
"""

EX_USAGE = 64
EX_SOFTWARE = 70


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["port"]:
        return _port()
    from nerves_docker_port.printing import Outputs

    with Outputs() as outputs:
        status = _command(words)
        return outputs.failed() or status


def _command(words: list[str]) -> int:
    if words[:1] in (["shell"], ["run"]):
        from nerves_docker_port.shell import command as shell

        return shell.main(words[1:], os.environ, operation=words[0])
    if words[:1] == ["doctor"]:
        from nerves_docker_port.doctor import examine as doctor

        return doctor.main(words[1:], os.environ)
    if words[:1] == ["explain"]:
        from nerves_docker_port.record import explain

        return explain.main(words[1:])
    if words[:1] == ["report"]:
        from nerves_docker_port.record import report

        return report.main(words[1:])
    if words == ["version"]:
        from nerves_docker_port import __version__

        print(__version__)  # noqa: T201
        return 0
    print(USAGE, file=sys.stderr, end="")  # noqa: T201
    return EX_USAGE


def _port() -> int:
    from nerves_docker_port.port.hello import FD_IN, FD_OUT, say_failure, say_hello, secure_descriptors

    try:
        output = secure_descriptors()
    except OSError:
        print(  # noqa: T201
            f"nerves_docker_port: descriptors {FD_IN} and {FD_OUT} are not open: "
            "`port` is for the Elixir shim, not for a terminal.",
            file=sys.stderr,
        )
        return EX_USAGE
    say_hello()
    # Imports make almost no garbage, and the search for it takes a tenth of their time. The session turns the garbage
    # collector on again after the imports.
    gc.disable()
    try:
        from nerves_docker_port.port.session import Session

        def load() -> Operations:
            from nerves_docker_port.operations import Operations

            return Operations(os.environ, output)

        status = Session(FD_IN, FD_OUT, load).run()
    except Exception as error:  # noqa: BLE001  # the shim does not see the traceback, so any error is reported to it
        import traceback

        from nerves_docker_port import errors

        traceback.print_exc()
        failure = errors.internal(f"{type(error).__name__}: {error}")
        say_failure(failure.message, failure.hint or "")
        status = EX_SOFTWARE
    sys.stderr.flush()
    # Everything is written and closed. A normal exit of the interpreter would take as long as the start until the
    # hello.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
