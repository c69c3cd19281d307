"""Makes logs in the form of Buildroot from the output of the step that failed."""

from __future__ import annotations

PREPARATION = """\
make: Entering directory '/nerves/env/platform/buildroot-2026.05'
  GEN     /home/nerves/project/Makefile
#
# configuration written to /home/nerves/project/.config
#
make: Leaving directory '/nerves/env/platform/buildroot-2026.05'
------------

Build directory successfully created.

Configuration: /nerves/env/my_sys/nerves_defconfig

Next, do the following:
   1. cd /home/nerves/project
   2. make

For additional options, run 'make help' in the build directory.

IMPORTANT: If you update nerves_system_br, you should rerun this script.
/usr/bin/make -j1  O=/home/nerves/project HOSTCC="/usr/bin/gcc" HOSTCXX="/usr/bin/g++" syncconfig
  GEN     /home/nerves/project/Makefile
"""

STAMPS = {
    "Downloading": "downloaded",
    "Extracting": "extracted",
    "Patching": "patched",
    "Autoreconfiguring": "patched",
    "Configuring": "configured",
    "Building": "built",
    "Installing to host directory": "host_installed",
    "Installing to staging directory": "staging_installed",
    "Installing to target": "target_installed",
    "Installing to images directory": "images_installed",
}


def headline(package: str, version: str, step: str) -> str:
    """Return a headline of Buildroot with its escape sequences."""
    return f"\x1b[7m>>> {package} {version} {step}\x1b[27m\n"


def failed_log(package: str, step: str, output: str, *, version: str = "1.2.3") -> str:
    """Return a log whose last step failed with ``output``."""
    return (
        PREPARATION
        + headline("host-skeleton", "", "Extracting")
        + headline("host-skeleton", "", "Installing to host directory")
        + before(package, step, version)
        + output
        + "make[1]: *** [package/pkg-generic.mk:273: "
        + f"/home/nerves/project/build/{package}-{version}/.stamp_{STAMPS[step]}] Error 2\n"
        + "make: *** [Makefile:23: _all] Error 2\n"
    )


def before(package: str, step: str, version: str = "1.2.3") -> str:
    """Return the headlines of a package up to the headline of ``step``."""
    steps = list(STAMPS)
    done = [name for name in steps[: steps.index(step) + 1] if name in (step, *steps[1:3])]
    return "".join(headline(package, version, name) for name in done)


def failed_system_log(step: str, output: str, target: str, status: int = 1) -> str:
    """Return a log in which a step of the whole system failed, and not a step of a package."""
    return (
        PREPARATION
        + headline("busybox", "1.36.1", "Installing to target")
        + headline("", "", "Finalizing target directory")
        + headline("", "", step)
        + output
        + f"make[1]: *** [Makefile:808: {target}] Error {status}\nmake: *** [Makefile:23: _all] Error 2\n"
    )
