"""The cause of a failed build: what is found in real logs, in made ones, and in what is no failure at all."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerves_docker_port.errors import RunnerError
from nerves_docker_port.record.cause import Cause
from nerves_docker_port.record.explain import explain, explain_file, render
from nerves_docker_port.record.signs import KINDS, SIGNS
from support.buildroot_logs import PREPARATION, failed_log, failed_system_log, headline

BUILDROOT = Path(__file__).parents[1] / "conformance" / "buildroot"
KINDS_TEXT = Path(__file__).with_name("explain_kinds.txt")


@dataclass(frozen=True)
class Expected:
    """A line of an EXPECTED.tsv."""

    path: Path
    package: str | None
    step: str | None
    decisive: str
    remedy: str | None


def expected(directory: Path) -> list[Expected]:
    with (directory / "EXPECTED.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        Expected(
            path=next(directory.glob(f"{row['name']}.build.log*")),
            package=None if row["package"] == "-" else row["package"],
            step=None if row["step"] == "-" else row["step"],
            decisive=row["cause"],
            remedy=None if row["remedy"] == "-" else row["remedy"],
        )
        for row in rows
    ]


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def cause_of(log: bytes | str) -> Cause | None:
    return explain_file(io.BytesIO(log if isinstance(log, bytes) else log.encode()))


def found(log: bytes | str) -> Cause:
    cause = cause_of(log)
    assert cause is not None
    return cause


FAILURES = expected(BUILDROOT / "failures")
FAILED = [one for one in FAILURES if one.decisive != "-"]
MORE = expected(BUILDROOT / "more")

# What the remedies of the first set must say; for the others, none may be given.
REMEDIES = {
    "c-compile-nasm": "0001-listing-reset-the-buffer-on-cleanup.patch",
    "gcc14-implicit": "include <string.h>",
    "undefined-reference": "add host-zlib to HOST_CRCGEN_DEPENDENCIES",
    "configure-error-lzop": "Add host-lzo, which has LZO, to HOST_LZOP_DEPENDENCIES",
    "pkg-config-not-met": "Add host-libnl, which has libnl-3.0 and libnl-genl-3.0, to HOST_WLSCAN_DEPENDENCIES",
    "cmake-could-not-find": "Add host-libpng, which has PNG, to HOST_IMGCONV_DEPENDENCIES",
    "meson-dependency": "Add the package that provides libevdev to HOST_KEYMAPD_DEPENDENCIES",
    "tool-not-found": "Add host-flex, which has flex, to HOST_CFGPARSE_DEPENDENCIES",
    "must-install-hg": "a build image with hg",
    "wrong-hash-upstream": "Failed mirrors afterwards are not the cause",
    "license-hash": "Read what has changed in OFL.txt",
    "download-404": "http://127.0.0.1:8931/wsproxy/v1.9.1/wsproxy-1.9.1.tar.gz is not there",
    "git-no-such-commit": "Correct RADIOFW_VERSION",
    "html-instead-of-tarball": "delete it from the download directory",
    "patch-does-not-apply": "Refresh 0001-Makefile-do-not-install-man-pages.patch",
    "patch-malformed": "0001-fix-baud.patch",
    "buildroot-download": "put Buildroot's archive",
    "dl-permission-denied": "write /nerves/dl/battmon",
    "config-in-syntax": "/nerves/env/my_sys/package/modemd/Config.in",
    "kconfig-recursive-then-download": "reaches ftpmirror.gnu.org",
    "legacy-option": "the options of the defconfig that this Buildroot no longer has",
    "dependency-not-selected": "select BR2_PACKAGE_MOSQUITTO",
    "mk-missing-separator": "Correct line 11 of otaclient.mk",
    "dependency-typo": "Correct HOST_SENSORHUB_DEPENDENCIES: there is no package host-libgpiod2x",
    "no-rule-in-package": "The source of splash.o is not in the package",
    "installs-in-wrong-place": "prefix=/usr and DESTDIR=$(STAGING_DIR)",
    "host-rpath": "$(HOST_LDFLAGS)",
    "python-traceback": "Add host-python3 and host-python-pyyaml to HOST_PINMAP_DEPENDENCIES",
    "out-of-memory": "more memory",
    "disk-full-build": "Free space",
    "toolchain-openmp-mismatch": "Set BR2_TOOLCHAIN_EXTERNAL_OPENMP=y",
    "post-build-exit-1": "Set BR2_PACKAGE_ERLINIT in the defconfig, as /nerves/env/my_sys/post-build.sh demands",
    "rootfs-too-big": "Raise BR2_TARGET_ROOTFS_EXT2_SIZE",
    "interrupted-int": "it was interrupted",
    "ppd-parallel": "Declare missing_macro",
    "20mb-harmless-errors": "Add the package that provides liberrno-table",
}


def by_name(one: Expected) -> str:
    return one.path.name.partition(".")[0]


@pytest.mark.parametrize("one", FAILED, ids=by_name)
def test_the_cause_of_a_real_failure_is_found(one: Expected) -> None:
    cause = found(content(one.path))
    assert (cause.package, cause.step) == (one.package, one.step)
    assert one.decisive in cause.lines
    assert cause.kind in KINDS
    remedy = REMEDIES.get(by_name(one))
    assert cause.remedy is None if remedy is None else remedy in (cause.remedy or "")


@pytest.mark.parametrize("one", MORE, ids=by_name)
def test_the_cause_of_a_failure_of_another_kind_is_found(one: Expected) -> None:
    cause = found(content(one.path))
    assert (cause.package, cause.step) == (one.package, one.step)
    assert one.decisive in cause.lines
    assert cause.remedy is None if one.remedy is None else one.remedy in (cause.remedy or "")


@pytest.mark.parametrize(
    ("name", "decisive", "kind", "remedy"),
    [
        ("wrong-hash", "ERROR: gperf-3.3.tar.gz has wrong sha256 hash:", "hash-mismatch", "Delete it there"),
        (
            "missing-download",
            "wget: unable to resolve host address 'ftpmirror.gnu.org'",
            "download-no-network",
            "network",
        ),
    ],
)
def test_a_wrong_hash_is_no_network_failure_and_the_other_way_round(
    name: str, decisive: str, kind: str, remedy: str
) -> None:
    cause = found((BUILDROOT / f"{name}.build.log").read_bytes())
    assert decisive in cause.lines
    assert cause.kind == kind
    assert remedy in (cause.remedy or "")


PASSED = [
    content(next(one.path for one in FAILURES if one.decisive == "-")),
    (BUILDROOT / "hosttools.build.log").read_bytes(),
]


@pytest.mark.parametrize("log", PASSED, ids=["error-lines", "hosttools"])
def test_a_build_that_passed_has_no_cause(log: bytes) -> None:
    assert cause_of(log) is None


@pytest.mark.parametrize("one", FAILED, ids=by_name)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda log: log.replace(b"\n", b"\r\n"), id="carriage-returns"),
        pytest.param(lambda log: log.replace(b"\x1b[7m", b"").replace(b"\x1b[27m", b""), id="no-escapes"),
        pytest.param(lambda log: log.rstrip(b"\n"), id="no-last-newline"),
        pytest.param(lambda log: log.replace(b"\n", b"\xff\xfe\n", 3), id="invalid-utf-8"),
        pytest.param(lambda log: PASSED[0] + log, id="after-a-passed-run"),
        pytest.param(lambda log: content(FAILED[0].path) + log, id="after-another-failed-run"),
        pytest.param(
            lambda log: b"2026-11-25T01:02:03.5Z " + log.replace(b"\n", b"\n2026-11-25T01:02:03.5Z "), id="times"
        ),
    ],
)
def test_how_the_log_is_written_does_not_matter(one: Expected, change: object) -> None:
    assert callable(change)
    cause = found(change(content(one.path)))
    assert (cause.package, cause.step) == (one.package, one.step)
    assert any(one.decisive in line for line in cause.lines)


@pytest.mark.parametrize("one", [one for one in FAILED if one.package or one.step], ids=by_name)
@pytest.mark.parametrize(
    "prefix",
    ["builder-1  | ", "build\tMix\t2026-11-25T14:09:{0}.1Z ", "14:09:{0}  ", "Nov 25 14:09:{0} ci docker[{0}]: "],
)
def test_what_a_ci_service_writes_before_each_line_does_not_matter(one: Expected, prefix: str) -> None:
    lines = content(one.path).splitlines(keepends=True)
    cause = found(b"".join(prefix.format(10 + at % 50).encode() + line for at, line in enumerate(lines)))
    assert (cause.package, cause.step) == (one.package, one.step)
    assert any(line.endswith(one.decisive) for line in cause.lines)


@pytest.mark.parametrize("one", FAILED, ids=by_name)
def test_a_failure_that_a_later_run_mended_is_none(one: Expected) -> None:
    assert cause_of(content(one.path) + PASSED[0]) is None


def made_cases() -> list[tuple[str, str, str, str, str]]:
    """Each case of explain_kinds.txt: package, step, kind, remedy, output."""
    cases = re.split(r"^### ", KINDS_TEXT.read_text(), flags=re.MULTILINE)[1:]
    return [(*case.partition("\n")[0].split(" | ", 3), case.partition("\n")[2].rstrip("\n") + "\n") for case in cases]


@pytest.mark.parametrize(("package", "step", "kind", "remedy", "output"), made_cases())
def test_what_a_tool_says_is_understood(package: str, step: str, kind: str, remedy: str, output: str) -> None:
    decisive = re.search(r"^@@(.*)$", output, re.MULTILINE)
    assert decisive
    cause = found(failed_log(package, step, re.sub("^@@", "", output, flags=re.MULTILINE)))
    assert (cause.package, cause.step, cause.kind) == (package, step, kind)
    assert decisive[1] in cause.lines
    assert cause.remedy is None if remedy == "-" else remedy in (cause.remedy or "")


@pytest.mark.parametrize(
    ("step", "output", "target", "kind", "shown", "remedy"),
    [
        (
            "Executing post-image script /nerves/env/my_sys/post-image.sh",
            "/nerves/env/my_sys/post-image.sh: line 12: fwup: command not found\n",
            "target-post-image",
            "missing-tool",
            "Executing post-image script",
            "fwup",
        ),
        (
            "Executing post-image script /nerves/env/my_sys/post-image.sh",
            "ERROR: vfat(boot.vfat): image too small for all files\n",
            "target-post-image",
            "image-too-big",
            "Executing post-image script",
            "boot.vfat",
        ),
        (
            "Copying overlay /nerves/env/my_sys/rootfs_overlay",
            'rsync: [sender] change_dir "/nerves/env/my_sys/rootfs_overlay" failed: No such file or directory (2)\n',
            "target-finalize",
            "missing-file",
            "Copying overlay",
            "Correct BR2_ROOTFS_OVERLAY",
        ),
        (
            "Generating filesystem image rootfs.ext2",
            "/h/images/rootfs.ext2: Not enough space to build proposed filesystem while setting up superblock\n",
            "/h/images/rootfs.ext2",
            "image-too-big",
            "Generating filesystem image rootfs.ext2",
            "Raise BR2_TARGET_ROOTFS_EXT2_SIZE",
        ),
        (
            "Generating filesystem image rootfs.ext2",
            "mkfs.ext4: Could not allocate inode in ext2 filesystem while populating file system\n",
            "/h/images/rootfs.ext2",
            "image-too-big",
            "Generating filesystem image rootfs.ext2",
            "Raise BR2_TARGET_ROOTFS_EXT2_INODES",
        ),
        (
            "Generating filesystem image rootfs.tar",
            "tar: unrecognized option '--nosuch'\n",
            "/h/images/rootfs.tar",
            "image",
            "Generating filesystem image rootfs.tar",
            None,
        ),
        (
            "Generating root filesystems common tables",
            "cat: /nerves/env/my_sys/users.txt: No such file or directory\n",
            "/h/build/buildroot-fs/full_users_table.txt",
            "missing-file",
            "Generating root filesystems common tables",
            "BR2_ROOTFS_USERS_TABLES",
        ),
        (
            "Generating filesystem image rootfs.tar",
            "mkusers: user 'foo' already exists with uid '1001' (wants '1002')\n",
            "/home/nerves/project/images/rootfs.tar",
            "users-table",
            "Generating filesystem image rootfs.tar",
            None,
        ),
        (
            "Executing post-build script /nerves/env/my_sys/post-build.sh",
            "cp: cannot stat '/nerves/env/my_sys/fwup.conf': No such file or directory\n",
            "target-finalize",
            "post-script",
            "Executing post-build script",
            "Correct /nerves/env/my_sys/post-build.sh",
        ),
    ],
)
def test_a_failure_of_the_whole_system_blames_no_package(
    step: str, output: str, target: str, kind: str, shown: str, remedy: str | None
) -> None:
    cause = found(failed_system_log(step, output, target))
    assert (cause.package, cause.step, cause.kind) == (None, shown, kind)
    assert output.rstrip("\n") in cause.lines
    assert cause.remedy is None if remedy is None else remedy in (cause.remedy or "")


@pytest.mark.parametrize(
    ("said", "status", "kind", "remedy"),
    [
        ("Permission denied", 126, "permission", "Make /nerves/env/my_sys/post-build.sh executable"),
        ("No such file or directory", 127, "post-script", "/nerves/env/my_sys/post-build.sh does not exist"),
        ("cannot execute: required file not found", 127, "cannot-execute", "line ends (CR LF)"),
    ],
)
def test_a_script_that_cannot_be_run_is_told_as_such(said: str, status: int, kind: str, remedy: str) -> None:
    script = "/nerves/env/my_sys/post-build.sh"
    line = f"/bin/bash: line 1: {script}: {said}\n"
    cause = found(failed_system_log(f"Executing post-build script {script}", line, "target-finalize", status))
    assert (cause.step, cause.kind, cause.lines) == ("Executing post-build script", kind, (line.rstrip(),))
    assert remedy in (cause.remedy or "")


ERROR = "a.c:3:4: error: expected ';'\n"
STAMP = "make[1]: *** [package/pkg-generic.mk:273: /home/nerves/project/build/host-a-1.0/.stamp_built] "


def test_the_error_before_an_interruption_is_the_cause() -> None:
    log = PREPARATION + headline("host-a", "1.0", "Building") + ERROR
    log += "make[2]: *** [Makefile:5: a.o] Error 1\nmake[2]: *** Waiting for unfinished jobs....\n"
    log += f"make[2]: *** [Makefile:5: b.o] Interrupt\n{STAMP}Interrupt\nmake: *** [Makefile:23: _all] Interrupt\n"
    assert found(log).kind == "compile-c"


@pytest.mark.parametrize(
    ("line", "package", "remedy"),
    [
        ("system/system.mk:112: *** BR2_SYSTEM_DEFAULT_PATH can't be empty.", None, "Set BR2_SYSTEM_DEFAULT_PATH"),
        (
            "package/pkg-generic.mk:247: *** BR2_GLOBAL_PATCH_DIR contains nonexistent directory /nerves/patches.",
            None,
            "BR2_GLOBAL_PATCH_DIR in the defconfig: /nerves/patches does not exist",
        ),
        (
            "linux/linux.mk:667: *** No defconfig name specified, check your BR2_LINUX_KERNEL_DEFCONFIG setting.",
            "linux",
            "Set BR2_LINUX_KERNEL_DEFCONFIG",
        ),
        (
            "fs/ext2/ext2.mk:9: *** BR2_TARGET_ROOTFS_EXT2_SIZE cannot be empty.",
            None,
            "Set BR2_TARGET_ROOTFS_EXT2_SIZE",
        ),
        (
            "linux/linux.mk:678: *** No device tree source specified, check your  BR2_LINUX_A / BR2_LINUX_B settings.",
            "linux",
            "Set BR2_LINUX_A or BR2_LINUX_B",
        ),
        (
            "boot/optee-os/optee-os.mk:164: *** No tarball location specified. Please check BR2_TARGET_OPTEE_OS_X.",
            "optee-os",
            "Set BR2_TARGET_OPTEE_OS_X",
        ),
        (
            '/x/package/nerves-config/nerves-config.mk:29: *** "Please add BR2_PACKAGE_X_NOTICE=y to your defconfig.".',
            "nerves-config",
            "Set BR2_PACKAGE_X_NOTICE",
        ),
    ],
)
def test_a_makefile_of_buildroot_blames_a_package_only_if_it_is_one(
    line: str, package: str | None, remedy: str
) -> None:
    cause = found(PREPARATION + f"{line}  Stop.\nmake: *** [Makefile:23: _all] Error 2\n")
    assert (cause.package, cause.step, cause.lines) == (package, None, (f"{line}  Stop.",))
    assert remedy in (cause.remedy or "")


def test_where_nothing_looks_like_an_error_what_was_said_last_is_shown() -> None:
    said = "make[2]: Entering directory '/h/build/host-a-1.0'\nboard rpi0: table has 3 holes\n"
    cause = found(failed_log("host-a", "Building", f"{said}make[2]: *** [Makefile:2: all] Error 4\n"))
    assert (cause.kind, cause.remedy) == ("unknown", None)
    assert cause.lines == ("board rpi0: table has 3 holes", "make[2]: *** [Makefile:2: all] Error 4")


def test_the_configuration_of_buildroot_is_no_package() -> None:
    denied = "support/scripts/br2-external: line 56: /h/.br2-external.mk: Permission denied"
    log = f"{PREPARATION}{denied}\n\n*** Error during update of the configuration.\n\n"
    log += "make[2]: *** [Makefile:1044: syncconfig] Error 1\n"
    log += "make[1]: *** [Makefile:600: /home/nerves/project/build/buildroot-config/auto.conf] Error 2\n"
    cause = found(log + "make: *** [Makefile:23: _all] Error 2\n")
    assert (cause.package, cause.step, cause.kind, cause.lines) == (None, None, "permission", (denied,))


def test_a_missing_endif_of_an_external_tree_is_told_where_it_can_be_mended() -> None:
    wrong = "/h/.br2-external.in.menus:10: unexpected 'endmenu' within if block"
    log = f"  GEN     /h/Makefile\n{wrong}\n/h/.br2-external.in.menus:11: syntax error\n"
    cause = found(log + "make: *** [Makefile:1050: d_defconfig] Error 1\n")
    assert (cause.package, cause.kind, cause.lines[0]) == (None, "kconfig-syntax", wrong)
    assert "BR2_EXTERNAL" in (cause.remedy or "")


@pytest.mark.parametrize("signal", ["Terminated", "Hangup", "Error 143"])
def test_an_interruption_is_told_as_one(signal: str) -> None:
    log = PREPARATION + headline("host-a", "1.0", "Building") + "cc -c a.c\nmake[2]: *** [Makefile:5: a.o] " + signal
    cause = found(f"{log}\n{STAMP}{signal}\nmake: *** [Makefile:23: _all] {signal}\n")
    assert (cause.package, cause.kind) == ("host-a", "interrupted")


def test_the_failure_is_found_in_a_log_that_was_cut_before_the_last_line() -> None:
    assert found(PREPARATION + headline("host-a", "1.0", "Building") + ERROR + STAMP + "Error 1").package == "host-a"


def test_of_two_packages_that_fail_in_a_parallel_build_the_first_is_blamed() -> None:
    log = PREPARATION + headline("host-a", "1.0", "Building") + headline("host-b", "2.0", "Building")
    log += f"{ERROR}{STAMP}Error 2\nmake[1]: *** Waiting for unfinished jobs....\n"
    log += "b.c:1:1: error: unknown type name 'x'\n" + STAMP.replace("host-a-1.0", "host-b-2.0") + "Error 2\n"
    cause = found(log + "make: *** [Makefile:23: _all] Error 2\n")
    assert (cause.package, cause.lines[0]) == ("host-a", ERROR.rstrip())


def test_the_first_of_two_packages_is_blamed_although_make_was_to_keep_going() -> None:
    log = PREPARATION + headline("host-a", "1.0", "Building") + headline("host-b", "2.0", "Building") + ERROR
    log += f"{STAMP}Error 2\nmake[1]: Target 'host-a' not remade because of errors.\n" + "  CC b.o\n" * 100
    log += "b.c:1:1: error: unknown type name 'x'\n" + STAMP.replace("host-a-1.0", "host-b-2.0") + "Error 2\n"
    log += "make[1]: Target 'host-b' not remade because of errors.\n" + headline("host-c", "1.0", "Building")
    cause = found(log + "make: *** [Makefile:23: _all] Error 2\n")
    assert (cause.package, cause.lines[0]) == ("host-a", ERROR.rstrip())


INNER = "make[2]: *** [Makefile:2: all] {0}\n"
OUTER = "make: *** [Makefile:23: _all] {0}\n"
NO_CHILDREN = "make[1]: *** wait: No child processes.  Stop.\n"


@pytest.mark.parametrize(
    "lines",
    [
        INNER + OUTER + STAMP + "{0}\n",
        OUTER + INNER + STAMP + "{0}\n",
        INNER + STAMP + "{0}\n" + NO_CHILDREN + "make[1]: *** Waiting for unfinished jobs....\n" + NO_CHILDREN + OUTER,
        NO_CHILDREN.replace("[1]", "") + STAMP + "{0}\n" + INNER,
        NO_CHILDREN.replace("[1]", "") + INNER + STAMP.replace("host-a", "host-b") + "{0}\n" + INNER + STAMP + "{0}\n",
    ],
)
@pytest.mark.parametrize("signal", ["Interrupt", "Terminated", "Hangup"])
def test_a_signal_to_all_makes_at_once_is_an_interruption_in_whatever_order_they_report_it(
    lines: str, signal: str
) -> None:
    log = PREPARATION + headline("host-b", "1.0", "Building") + headline("host-a", "1.0", "Building") + "  GEN table\n"
    cause = found(log + lines.format(signal))
    assert (cause.package in ("host-a", "host-b"), cause.step, cause.kind) == (True, "Building", "interrupted")


def test_a_make_around_buildroots_own_does_not_hide_the_cause() -> None:
    log = content(BUILDROOT / "wrong-hash.build.log")
    assert found(log + b"make: *** [Makefile:2: all] Error 2\n") == found(log)


def test_a_make_inside_a_package_that_counts_its_levels_anew_is_followed() -> None:
    log = PREPARATION + headline("host-a", "1.0", "Building") + ERROR + "make: *** [inner.mk:4: a.o] Error 1\n"
    assert ERROR.rstrip() in found(f"{log}{STAMP}Error 2\nmake: *** [Makefile:23: _all] Error 2\n").lines


def test_an_error_after_a_failed_make_that_the_package_ignores_is_the_cause() -> None:
    log = PREPARATION + headline("host-a", "1.0", "Building") + "b.c:1:1: error: unknown type name 'x'\n"
    log += "make[2]: *** [Makefile:9: check] Error 1\n" + "cc -c a.c\n" * 3 + ERROR
    assert ERROR.rstrip() in found(f"{log}{STAMP}Error 1\nmake: *** [Makefile:23: _all] Error 2\n").lines


def test_a_failed_make_that_a_package_ignores_is_no_failure() -> None:
    log = PREPARATION + headline("host-a", "1.0", "Configuring") + ERROR + "make: *** [probe.mk:4: a.o] Error 1\n"
    assert cause_of(log + headline("host-a", "1.0", "Building") + "ok\n") is None


def test_a_failed_make_that_the_last_step_ignores_is_no_failure() -> None:
    log = (
        PREPARATION
        + headline("", "", "Executing post-image script /b/post.sh")
        + "make: *** No rule to make target 'x'.  Stop.\n"
    )
    assert (
        cause_of(log + "make[1]: Nothing to be done for 'staging-finalize'.\n/b/scripts/mksystem.sh my_sys\n") is None
    )
    assert cause_of(log) is not None


def test_a_headline_in_another_jobs_line_names_the_package() -> None:
    log = PREPARATION + "checking for error.h... >>> host-my-tool v2-rc1 Building\n" + ERROR
    log += STAMP.replace("host-a-1.0", "host-my-tool-v2-rc1") + "Error 2\nmake: *** [Makefile:23: _all] Error 2\n"
    cause = found(log)
    assert (cause.package, cause.step) == ("host-my-tool", "Building")


def test_messages_in_another_language_are_understood_as_far_as_make_writes_them() -> None:
    log = (
        headline("conf", "0.7", "Installing to target")
        + "cp: cannot create regular file '/b/x': No such file or directory\n"
    )
    log += "make[1]: *** [package/pkg-generic.mk:384: /b/build/conf-0.7/.stamp_target_installed] エラー 1\n"
    cause = found(log + "make: *** [Makefile:23: _all] エラー 2\n")
    assert (cause.package, cause.step, cause.kind) == ("conf", "Installing to target", "missing-file")


def test_the_colours_of_a_terminal_do_not_hide_an_error() -> None:
    line = "\x1b[01m\x1b[Kmain.c:4:3:\x1b[m\x1b[K \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[K'foo' undeclared"
    cause = found(failed_log("host-a", "Building", f"{line}\r\nmake[2]: *** [Makefile:5: a.o] Error 1\n"))
    assert cause.lines == (line,)
    assert "\x1b" not in render(cause)


@pytest.mark.parametrize(
    ("log", "kind", "decisive"),
    [
        (
            "\x1b[33m►\n        \r► Case-insensitive file system detected!\n        \r►  \x1b[0m/home/me/o\n",
            "platform",
            "► Case-insensitive file system detected!",
        ),
        (
            "ERROR: Can't find /nerves/env/my_sys/nerves_defconfig. Please check that it exists.\n",
            "defconfig",
            "ERROR: Can't find /nerves/env/my_sys/nerves_defconfig. Please check that it exists.",
        ),
        (
            "\ngzip: stdin: unexpected end of file\ntar: Error is not recoverable: exiting now\n",
            "extract-corrupt",
            "gzip: stdin: unexpected end of file",
        ),
        (
            "/nerves/env/platform/create-build.sh: line 81: /nerves/env/my_sys/Config.in: Permission denied\n",
            "permission",
            "/nerves/env/platform/create-build.sh: line 81: /nerves/env/my_sys/Config.in: Permission denied",
        ),
        (
            "Buildroot extracted to /b\nApplying 0001-a.patch using patch: \nHunk #1 FAILED at 3.\n",
            "patch-hunk",
            "Hunk #1 FAILED at 3.",
        ),
    ],
)
def test_a_failure_before_make_runs_is_found(log: str, kind: str, decisive: str) -> None:
    for whole in (log, content(FAILED[0].path).decode() + log) if kind in ("platform", "defconfig") else (log,):
        cause = found(whole)
        assert (cause.package, cause.step, cause.kind) == (None, None, kind)
        assert decisive in cause.lines


@pytest.mark.parametrize(
    "log",
    [
        "",
        "\n",
        "\x1b[33m",
        "Nov 25 kernel: error: foo failed\npermission denied\n",
        ">>> import foo\n>>> foo.bar(1, 2) Building\nError: x\n",
        PREPARATION,
        PREPARATION + headline("host-a", "1.0", "Building") + ERROR,
        f"wget: unable to resolve host address 'b.org'\nBuildroot extracted to /nerves/buildroot.\n{PREPARATION}",
        "► Case-insensitive file system detected!\n► Build continuing...\n" + PREPARATION,
    ],
)
def test_a_log_without_a_failure_has_no_cause(log: str) -> None:
    assert cause_of(log) is None


@given(
    st.lists(st.sampled_from([*(content(one.path)[-3000:] for one in FAILED), b"\xff", b"\n", b"\x1b[7m>>> ", b"*** "]))
)
@settings(max_examples=60, deadline=None)
def test_any_mixture_is_read_without_an_error_and_shown_within_bounds(pieces: list[bytes]) -> None:
    cause = cause_of(b"".join(pieces))
    if cause:
        text = render(cause)
        assert 1 <= len(cause.lines) <= 10
        assert len(text.split("\n")) <= 20
        assert all(len(line) <= 100 for line in text.split("\n"))
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_hostile_lines_are_harmless_in_the_text() -> None:
    cause = Cause(
        "host-a", "Building", "compile-c", ("\x1b]0;title\x07\x1b[2Jx\x00\x9b\u202e" + "y" * 500,) * 10, "z " * 900
    )
    lines = render(cause).split("\n")
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 100
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", "".join(lines))


def test_the_text_begins_with_package_step_and_cause() -> None:
    text = render(found((BUILDROOT / "wrong-hash.build.log").read_bytes()))
    assert text.startswith(
        "host-gperf failed in the step Downloading: a file is not the one that its hash describes.\n"
    )
    assert "\nWhat to do: " in text


class LongLog(io.RawIOBase):
    """A log that is computed while it is read, so that only the reader's memory counts."""

    def __init__(self, begin: bytes, piece: bytes, times: int, end: bytes) -> None:
        self._parts = [(begin, 1), (piece, times), (end, 1)]
        self._size = sum(len(part) * count for part, count in self._parts)
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        data, position, skipped = [], 0, self._at
        wanted = min(size, self._size - self._at)
        for part, count in self._parts:
            for _ in range(count):
                if wanted and position + len(part) > skipped:
                    found = part[max(0, skipped - position) :][:wanted]
                    data.append(found)
                    wanted -= len(found)
                    skipped += len(found)
                position += len(part)
        self._at = skipped
        return b"".join(data)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"x" * 999_999, id="one-line"),
        pytest.param(b"gen: error: table 17 is bad; error 2158: cannot open file\n" * 17_000, id="error-lines"),
        pytest.param(b"\x1b[7m>>> host-a 1.0 Building\x1b[27m\n" * 1_000, id="headlines"),
        pytest.param(b"make[2]: *** [Makefile:5: a.o] Error 1\n" * 1_000, id="make-errors"),
    ],
)
def test_memory_does_not_grow_with_the_log(piece: bytes) -> None:
    begin, _, end = failed_log("host-a", "Building", ERROR).encode().partition(ERROR.encode())
    log = LongLog(begin, piece, 60, b"\n" + ERROR.encode() + end)
    tracemalloc.start()
    try:
        cause = explain_file(log)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cause is not None
    assert ERROR.rstrip() in cause.lines
    assert peak < 32 * 1024 * 1024


def test_an_error_before_a_line_of_20_mb_is_found() -> None:
    log = failed_log(
        "host-a", "Building", ERROR + "y error: " * 2_500_000 + "\nmake[2]: *** [Makefile:5: a.o] Error 1\n"
    )
    assert ERROR.rstrip() in found(log).lines


# The command


def run(*arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "nerves_docker_port", "explain", *arguments], input=text, capture_output=True
    )


@pytest.fixture(autouse=True)
def helper_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "python"))


def test_the_command_prints_text() -> None:
    ended = run(str(BUILDROOT / "wrong-hash.build.log"))
    assert ended.returncode == 0
    assert b"gperf-3.3.tar.gz has wrong sha256 hash" in ended.stdout
    assert ended.stderr == b""


def test_the_command_prints_one_json_object_on_one_line() -> None:
    ended = run("--json", str(BUILDROOT / "wrong-hash.build.log"))
    assert ended.stdout.count(b"\n") == 1
    assert set(json.loads(ended.stdout)) == {"package", "step", "kind", "lines", "remedy"}


def test_the_command_reads_standard_input_from_a_pipe() -> None:
    ended = run("--json", "-", text=(BUILDROOT / "wrong-hash.build.log").read_bytes())
    assert json.loads(ended.stdout)["package"] == "host-gperf"


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_can_be_a_file_or_a_pipe(name: str) -> None:
    log = BUILDROOT / "wrong-hash.build.log"
    piped = run("--json", name, text=log.read_bytes())
    with log.open("rb") as file:
        redirected = subprocess.run(
            [sys.executable, "-m", "nerves_docker_port", "explain", "--json", name], stdin=file, capture_output=True
        )
    assert json.loads(piped.stdout)["package"] == json.loads(redirected.stdout)["package"] == "host-gperf"


def test_a_named_pipe_is_read_as_a_file_is(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["cp", str(BUILDROOT / "wrong-hash.build.log"), str(pipe)])
    ended = run("--json", str(pipe))
    assert writer.wait() == 0
    assert json.loads(ended.stdout)["package"] == "host-gperf"


def test_a_pipe_that_does_not_fit_on_the_disk_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    monkeypatch.setenv("TMPDIR", "/var/tmp")
    ended = subprocess.run(
        [sys.executable, "-m", "nerves_docker_port", "explain", "-"],
        input=b"x" * 100_000,
        capture_output=True,
        preexec_fn=limited,
    )
    assert ended.returncode == 1
    assert b"cannot be copied to /var/tmp: File too large" in ended.stderr


@pytest.mark.parametrize(
    ("write", "command"),
    [
        (gzip.compress, "gzip -dc"),
        (lzma.compress, "xz -dc"),
        (bz2.compress, "bzip2 -dc"),
        (lambda log: log.decode().encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    ],
    ids=["gzip", "xz", "bzip2", "utf-16"],
)
def test_a_log_that_is_no_plain_text_is_told_with_what_makes_it_one(
    write: Callable[[bytes], bytes], command: str, tmp_path: Path
) -> None:
    log = tmp_path / "a log"
    log.write_bytes(write((BUILDROOT / "wrong-hash.build.log").read_bytes()))
    ended = run(str(log))
    assert (ended.returncode, ended.stdout) == (1, b"")
    advice = re.search(r"`(.*) \| python -m nerves_docker_port explain -`", ended.stderr.decode())
    assert advice is not None
    assert advice[1].startswith(command)
    text = subprocess.run(advice[1], shell=True, capture_output=True, check=True).stdout
    assert json.loads(run("--json", "-", text=text).stdout)["package"] == "host-gperf"


def test_the_line_before_make_s_own_is_no_prefix_of_a_ci_service() -> None:
    cause = found(b">>> zlib 1.3 Building\nzlib.c:7:1: error: expected ;\nmake: *** [Makefile:2: all] Error 3\n")
    assert cause is not None
    assert cause.lines == ("zlib.c:7:1: error: expected ;",)


def test_a_log_without_a_failure_is_null_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_bytes(PASSED[1])
    ended = run("--json", str(path))
    assert (ended.returncode, ended.stdout) == (0, b"null\n")
    assert run(str(path)).returncode == 0


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.log"):
        ended = run("--json", str(path))
        assert ended.returncode == 1
        assert ended.stdout == b""
        assert str(path).encode() in ended.stderr
        assert b"Traceback" not in ended.stderr
        with pytest.raises(RunnerError):
            explain(path)


@pytest.mark.parametrize("arguments", [(), ("--yaml", "x"), ("a", "b")])
def test_other_arguments_print_the_usage(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 64
    assert b"usage: python -m nerves_docker_port explain [--json] LOG" in ended.stderr


def test_the_command_imports_nothing_heavy() -> None:
    program = (
        "import sys; from nerves_docker_port.__main__ import main; main(['explain', '/dev/null']);"
        "print(sorted({'docker', 'requests', 'msgpack', 'erlang', 'hypothesis'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_documentation_lists_every_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "record.md").read_text().partition("### Kinds")[2]
    assert dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*?) \|", text, re.MULTILINE)) == KINDS
    used = {sign.kind for sign in SIGNS}
    assert used <= KINDS.keys()
