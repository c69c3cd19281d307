"""The helper's commands: ``port`` (what the shim starts) and ``version``.

Imports nothing heavy before it must: the shim waits for the hello.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

USAGE = """\
usage: python -m nerves_docker_port COMMAND

  port      serve the Elixir shim over descriptors 3 and 4 (docs/protocol.md)
  shell     open a build shell on this terminal; `mix nerves.system.shell` says the whole command
  version   print the version
"""

EX_USAGE = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["port"]:
        return _port()
    if words[:1] == ["shell"]:
        from nerves_docker_port import shell

        return shell.main(words[1:], os.environ)
    if words == ["version"]:
        from nerves_docker_port import __version__

        print(__version__)  # noqa: T201
        return 0
    print(USAGE, file=sys.stderr, end="")  # noqa: T201
    return EX_USAGE


def _port() -> int:
    from nerves_docker_port.session import FD_IN, FD_OUT, Session, secure_descriptors

    try:
        secure_descriptors()
    except OSError:
        print(  # noqa: T201
            f"nerves_docker_port: descriptors {FD_IN} and {FD_OUT} are not open: "
            "`port` is for the Elixir shim, not for a terminal.",
            file=sys.stderr,
        )
        return EX_USAGE
    return Session(FD_IN, FD_OUT, os.environ).run()


if __name__ == "__main__":
    sys.exit(main())
