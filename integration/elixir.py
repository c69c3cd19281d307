"""Provides several versions of Elixir: that of this machine, and those of other Debian releases in root file systems.

| name | what it is |
|---|---|
| `host` | the `elixir` on the PATH; if there is none, it is installed with apt-get |
| `bookworm` | the Elixir of Debian 12, 1.14 on OTP 25 |
| `trixie` | the Elixir of Debian 13, 1.18 on OTP 27 |
| `sid` | the Elixir of Debian unstable |

A command runs in a root file system by `chroot` in its own mount namespace, so its mounts end with the command. This
repository, the cache, the home directory, /tmp, /run and the working directory are mounted under the same paths, so a
path means the same to the command and to the engine. Process ids are also the same inside and outside.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from integration.build_images import ensure_root
from integration.host import REPOSITORY, WorldError, apt_install, cache_dir, has_apt, os_release, say

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITES = ("host", "bookworm", "trixie", "sid")
PATH_INSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Debian splits Erlang into many small packages. These are the ones that Mix, Nerves and the tests load. (erlang-nox
# depends on all of them, but also brings the libraries of a graphical desktop.)
ERLANG = (
    *("asn1", "crypto", "dev", "eunit", "inets", "mnesia", "os-mon", "parsetools", "public-key"),
    *("runtime-tools", "ssh", "ssl", "syntax-tools", "tools", "xmerl"),
)
ELIXIR_PACKAGES = ("elixir", *(f"erlang-{name}" for name in ERLANG))
TOOLS = ("ca-certificates", "gcc", "git", "libc6-dev", "libmnl-dev", "make", "procps", "python3", "sudo", "xz-utils")


def ensure_elixir(suite: str) -> Path | None:
    """Make sure that this Elixir is here. Returns its root file system, or `None` for the Elixir of the machine."""
    if suite not in SUITES:
        raise WorldError(f"there is no Elixir {suite!r} here: one of {', '.join(SUITES)}")
    if suite in ("host", os_release().get("VERSION_CODENAME")) or not has_apt():
        if suite != "host" and not has_apt():
            say(f"this is no Debian: the Elixir on the PATH takes the place of {suite}'s")
        _ensure_on_path()
        return None
    return ensure_root(suite, (*ELIXIR_PACKAGES, *TOOLS))


def command_in(root: Path | None, argv: list[str], shared: Sequence[Path] = ()) -> list[str]:
    """Return the command line that runs `argv` in the working directory, with `root` as its root file system.

    `shared` are additional directories of the machine that are mounted under the same paths.
    """
    if root is None:
        return argv
    steps = ["set -e"]
    for path in shared_directories(shared):
        inside = shlex.quote(f"{root}{path}")
        steps.append(f"mkdir -p {inside} && mount --rbind {shlex.quote(path)} {inside}")
    for path in filter(os.path.exists, ("/etc/resolv.conf", "/etc/hosts")):
        steps += [f"touch {shlex.quote(f'{root}{path}')} && mount --bind {path} {shlex.quote(f'{root}{path}')}"]
    steps.append(f'exec chroot {shlex.quote(str(root))} env --chdir="$PWD" "PATH={PATH_INSIDE}" LANG=C.UTF-8 "$@"')
    # unshare and the shell replace themselves with the command (exec), so the command gets their pid and their signals.
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(steps), "sh", *argv]


def elixir_version(root: Path | None) -> str:
    """Return the versions of Elixir and OTP, in one line. Raises `WorldError` if elixir does not run."""
    code = 'IO.puts("Elixir #{System.version()} on OTP #{:erlang.system_info(:otp_release)}")'
    done = subprocess.run(command_in(root, ["elixir", "-e", code]), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorldError(f"elixir does not run: {done.stderr.strip()}")
    return done.stdout.strip()


def _ensure_on_path() -> None:
    if shutil.which("mix") and shutil.which("erlc"):
        return
    if not has_apt():
        raise WorldError("no `mix` on the PATH: install Elixir 1.14 or later, with Erlang/OTP 25 or later")
    apt_install(ELIXIR_PACKAGES, "no `mix` on the PATH")


def shared_directories(more: Sequence[Path] = ()) -> list[str]:
    """Return the directories, none inside another, that a root file system shares with the machine."""
    wanted: list[str | Path] = ["/proc", "/sys", "/dev", "/tmp", "/run"]
    wanted += [REPOSITORY, cache_dir(), Path.home(), Path.cwd()]
    wanted += [directory for directory in (os.environ.get("TMPDIR"), *more) if directory]
    chosen: list[str] = []
    for path in sorted({str(Path(path).resolve()) for path in wanted}, key=len):
        inside_another = any(path == outer or path.startswith(f"{outer}/") for outer in chosen)
        if path != "/" and not inside_another:
            chosen.append(path)
    return chosen
