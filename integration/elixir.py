"""Elixir in more than one version: the machine's own, and those of other Debian releases, each in a root file system.

| name | what it is |
|---|---|
| `host` | the `elixir` on the PATH, installed with apt-get where there is none |
| `bookworm` | Debian 12's, Elixir 1.14 on OTP 25 |
| `trixie` | Debian 13's, Elixir 1.18 on OTP 27 |
| `sid` | Debian unstable's |

A root file system is entered by `chroot` in a mount namespace: the mounts go when the command goes. The directories
that matter (this repository, the cache, the home, /tmp, /run, the working directory) are the machine's, under the same
paths, so that a path means the same to the command and to the engine; processes have the same numbers on both sides.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from integration.build_images import debootstrapped
from integration.host import REPOSITORY, WorldError, apt_install, cache_dir, has_apt, is_root, locked, os_release, say

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITES = ("host", "bookworm", "trixie", "sid")
PATH_INSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Erlang's Debian packages are many and small; these are what Mix, Nerves and the tests load (erlang-nox has them all,
# and brings a graphical desktop's libraries along).
ERLANG = (
    *("asn1", "crypto", "dev", "eunit", "inets", "mnesia", "os-mon", "parsetools", "public-key"),
    *("runtime-tools", "ssh", "ssl", "syntax-tools", "tools", "xmerl"),
)
ELIXIR_PACKAGES = ("elixir", *(f"erlang-{name}" for name in ERLANG))
TOOLS = ("ca-certificates", "gcc", "git", "libc6-dev", "libmnl-dev", "make", "procps", "python3", "sudo", "xz-utils")


def ensure_elixir(suite: str) -> Path | None:
    """Have that Elixir here; gives its root file system, `None` for the machine's own."""
    if suite not in SUITES:
        raise WorldError(f"there is no Elixir {suite!r} here: one of {', '.join(SUITES)}")
    if suite in ("host", os_release().get("VERSION_CODENAME")) or not has_apt():
        if suite != "host" and not has_apt():
            say(f"this is no Debian: the Elixir on the PATH takes the place of {suite}'s")
        _ensure_on_path()
        return None
    return _ensure_root(suite)


def command_in(root: Path | None, argv: list[str], shared: Sequence[Path] = ()) -> list[str]:
    """The command line that runs `argv` in the working directory, seeing `root` as its root file system.

    `shared` are more directories of the machine that the command is to see under the same paths.
    """
    if root is None:
        return argv
    steps = ["set -e"]
    for path in _shared_directories(shared):
        inside = shlex.quote(f"{root}{path}")
        steps.append(f"mkdir -p {inside} && mount --rbind {shlex.quote(path)} {inside}")
    for path in filter(os.path.exists, ("/etc/resolv.conf", "/etc/hosts")):
        steps += [f"touch {shlex.quote(f'{root}{path}')} && mount --bind {path} {shlex.quote(f'{root}{path}')}"]
    steps.append(f'exec chroot {shlex.quote(str(root))} env --chdir="$PWD" "PATH={PATH_INSIDE}" LANG=C.UTF-8 "$@"')
    # unshare and the shell replace themselves by the command, which so keeps its pid and its signals.
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(steps), "sh", *argv]


def elixir_version(root: Path | None) -> str:
    """Which Elixir and OTP it is, in one line."""
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


def _ensure_root(suite: str) -> Path:
    packages = (*ELIXIR_PACKAGES, *TOOLS)
    recipe = hashlib.sha256("\0".join(packages).encode()).hexdigest()[:12]
    root = cache_dir() / "roots" / f"{suite}-{recipe}"
    with locked(f"root-{suite}"):
        if root.exists():
            return root
        if not is_root():
            raise WorldError(f"Elixir of Debian {suite} needs a root file system: run this as root once")
        root.parent.mkdir(exist_ok=True)
        with debootstrapped(root.parent / f"{suite}.new", suite, packages) as new:
            for name in ("var/cache/apt", "usr/share/doc", "usr/share/man"):
                shutil.rmtree(new / name, ignore_errors=True)
            new.rename(root)
    return root


def _shared_directories(more: Sequence[Path]) -> list[str]:
    wanted: list[str | Path] = ["/proc", "/sys", "/dev", "/tmp", "/run"]
    wanted += [REPOSITORY, cache_dir(), Path.home(), Path.cwd()]
    wanted += [directory for directory in (os.environ.get("TMPDIR"), *more) if directory]
    chosen: list[str] = []
    for path in sorted({str(Path(path).resolve()) for path in wanted}, key=len):
        inside_another = any(path == outer or path.startswith(f"{outer}/") for outer in chosen)
        if path != "/" and not inside_another:
            chosen.append(path)
    return chosen
