#!/usr/bin/env python3
"""Checks the types of the shim with dialyzer, without Hex (with Hex, `mix dialyzer` in elixir_shim does the same).

It uses the Elixir of the machine. The analysis of Erlang, Elixir and Mix takes minutes, so it is kept in the cache. The
exit status is that of dialyzer: 2 if there are warnings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from integration.elixir import elixir_version, ensure_elixir
from integration.host import REPOSITORY, apt_install, cache_dir, locked, main_program

ERLANG = ("erts", "kernel", "stdlib", "crypto")
ELIXIR = ("elixir", "mix", "logger")
# The same flags as under `dialyzer:` in elixir_shim/mix.exs.
WARNINGS = ("-Wunmatched_returns", "-Werror_handling", "-Wextra_return", "-Wmissing_return")


def main() -> int:
    """Compile the shim and check it. Returns the exit status."""
    ensure_elixir("host")
    if shutil.which("dialyzer") is None:
        apt_install(["erlang-dialyzer"], "dialyzer cannot be found on the PATH")
    code = "IO.puts(Path.expand(Path.join(to_string(:code.lib_dir(:elixir)), '..')))"
    library = subprocess.run(["elixir", "-e", code], capture_output=True, text=True, check=True).stdout.strip()
    # dialyzer needs Elixir's compiler to read what Elixir has compiled.
    env = {**os.environ, "ERL_LIBS": library, "MIX_ENV": "prod"}
    with locked("dialyzer"), tempfile.TemporaryDirectory(prefix="ndp-") as build:
        known = cache_dir() / f"{elixir_version(None).replace(' ', '-')}.plt"
        if not known.exists():
            new = known.with_suffix(".new")
            beams = [f"{library}/{name}/ebin" for name in ELIXIR]
            command = ["dialyzer", "--build_plt", "--output_plt", str(new), "--apps", *ERLANG, "-r", *beams]
            # Status 2 means that there are warnings about Erlang or Elixir. They do not matter here.
            if subprocess.run(command, env=env, check=False).returncode not in (0, 2):
                return 1
            new.rename(known)
        subprocess.run(
            ["mix", "compile", "--warnings-as-errors"],
            cwd=REPOSITORY / "elixir_shim",
            env={**env, "MIX_BUILD_PATH": build},
            check=True,
        )
        # Nerves is not installed, so its functions are unknown. From OTP 26 on, dialyzer warns of them by default.
        described = subprocess.run(["dialyzer", "--help"], capture_output=True, text=True, check=True).stdout
        unknown = ["-Wno_unknown"] if "-Wno_unknown" in described else []
        beams = [f"{build}/lib/nerves_docker_port/ebin"]
        command = ["dialyzer", "--plt", str(known), *WARNINGS, *unknown, "-r", *beams]
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main_program(main))
