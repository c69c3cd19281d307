"""Generates a program of many C files for the compile cache, and a script that compiles it as Buildroot does."""

from __future__ import annotations

from support.system import System

SCRIPT = """\
#!/bin/sh
# Buildroot runs its compilers below ccache with BR2_CCACHE=y, and tells it the cache's place by a variable. The place
# in the environment goes before that in the defconfig.
set -e
rm -rf objects && mkdir objects
defconfig=/nerves/env/my_system/nerves_defconfig
grep -q '^BR2_CCACHE=y' "$defconfig" && cache=ccache
place=$(sed -n 's/^BR2_CCACHE_DIR="\\(.*\\)"/\\1/p' "$defconfig")
export CCACHE_DIR=${BR2_CCACHE_DIR:-${place:-$HOME/.buildroot-ccache}}
[ ! -e /nerves/env/my_system/in_compile.sh ] || . /nerves/env/my_system/in_compile.sh
ls /nerves/env/my_system/src/*.c | xargs -n1 -P"${JOBS:-2}" sh -c \\
  '$0 gcc -O2 -c -o "objects/$(basename "$1").o" "$1"' "${cache:-env}"
# The CPU time in user mode and in the kernel, which bench/cache.py reads.
times
"""

RUN = "RUN=sh /nerves/env/my_system/compile.sh"
"""The argument for make that compiles the program."""


def add_program(system: System, *, files: int, functions: int, on: bool = True) -> None:
    """Add a program of ``files`` files with ``functions`` functions each to the system. ``on`` turns the cache on."""
    system.write("my_system/compile.sh", SCRIPT)
    if on:
        system.write("my_system/nerves_defconfig", "BR2_x86_64=y\nBR2_CCACHE=y\n")
    sources = system.package / "src"
    sources.mkdir()
    for file in range(files):
        (sources / f"f{file}.c").write_text("".join(_function(file, number) for number in range(functions)))
    system.own()


def _function(file: int, number: int) -> str:
    return f"""
int f{file}_{number}(const int *values, int count) {{
  int sum = {file * 1000 + number};
  for (int i = 0; i < count; i++) {{
    switch (values[i] % 7) {{
      case 0: sum += values[i] * {number + 1}; break;
      case 1: sum ^= values[i] << {number % 5 + 1}; break;
      case 2: sum -= values[i] / {number + 2}; break;
      default: sum = sum * 31 + values[i] % {number + 3}; break;
    }}
  }}
  return sum;
}}
"""
