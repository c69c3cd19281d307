"""Programs that do something when this process ends, even if it is killed."""

from __future__ import annotations

import subprocess


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a shell that runs ``program``, in which the arguments are ``$0``, ``$1`` and so on.

    Only this process has the other end of the shell's standard input, so the shell reads the end of its input when this
    process ends. The shell has its own session, so that no signal for the helper's group or its terminal ends it.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
