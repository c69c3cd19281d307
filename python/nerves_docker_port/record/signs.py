"""What a failure looks like: for each line that a tool writes of one, its kind, how much it says, and the remedy.

The table is data. It does not know where in a log the build failed (``failure``), or which of several such lines is
the cause (``cause``). The patterns match a line without escape sequences, in which every quotation mark is ``'`` or
``"``. They come from the tools' own messages, and from builds that were made to fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

KINDS = {
    "autotools": "autoconf, automake or libtool cannot make the package's configure script",
    "cannot-execute": "a program cannot be run on this machine",
    "ccache": "the compiler cache fails",
    "check-architecture": "a file is built for another processor than the target's",
    "check-merged-usr": "a directory tree does not have the layout of a merged /usr",
    "check-unsafe-path": "headers or libraries of the build machine are used for the target",
    "clock": "the clock or a file's time is wrong",
    "command": "a command failed",
    "compile-asm": "an assembler file does not compile",
    "compile-c": "C code does not compile",
    "compile-cxx": "C++ code does not compile",
    "compile-fortran": "Fortran code does not compile",
    "compile-go": "Go code does not compile",
    "compile-other": "code does not compile",
    "compile-rust": "Rust code does not compile",
    "compiler": "the compiler does not work",
    "compiler-option": "the compiler does not know an option",
    "config": "the configuration contradicts itself, or lacks something",
    "config-dependency": "a package depends on another that is not selected",
    "config-legacy": "the configuration has options that Buildroot no longer has",
    "configure": "the package's configure script stopped",
    "configure-cmake": "CMake stopped, because a library is missing or for another reason",
    "configure-library": "configure does not find a library or a header file",
    "configure-meson": "Meson stopped, because a library is missing or for another reason",
    "configure-pkg-config": "pkg-config does not find a library",
    "crash": "the compiler or another program crashed",
    "defconfig": "a configuration file does not exist",
    "device-tree": "a device tree does not compile",
    "disk-full": "the disk is full",
    "download": "a download failed",
    "download-403": "a download is refused",
    "download-404": "a file is not at its address",
    "download-certificate": "a server's certificate is not trusted",
    "download-git": "a commit, branch or repository cannot be had",
    "download-no-network": "a server's name or address cannot be reached",
    "elixir": "Elixir or Erlang code does not compile",
    "engine-limit": "a limit of the operating system is reached",
    "extract-corrupt": "a downloaded archive is damaged, or is no archive",
    "file-system": "the file system cannot do what the build needs",
    "hash-mismatch": "a file is not the one that its hash describes",
    "hash-missing": "a file's hash is not listed",
    "host-rpath": "a host program does not find its libraries",
    "host-too-old": "a tool of the build machine is too old",
    "image": "a file system image or disk image cannot be made",
    "image-too-big": "an image is too small for its content",
    "install-wrong-place": "a package installs its files in the wrong place",
    "interrupted": "the build was interrupted",
    "kconfig": "a kernel-style configuration fails",
    "kconfig-syntax": "a Config.in or Kconfig file is wrong",
    "killed": "a program was killed",
    "kernel": "the kernel cannot be linked or its modules not be installed",
    "license-file": "a licence file is not in the source",
    "license-hash": "a licence file is not the one that its hash describes",
    "link": "linking fails",
    "link-no-library": "the linker does not find a library",
    "link-undefined": "linking fails: a function or variable is not defined",
    "make-no-rule": "make does not know how to make a file",
    "missing-file": "a file does not exist",
    "missing-header": "a header file does not exist",
    "missing-host-tool": "the build machine lacks a tool that Buildroot needs",
    "missing-tool": "a program is not found",
    "mk-syntax": "a makefile is wrong",
    "mk-unknown-dependency": "a package or target of this name does not exist",
    "out-of-memory": "the machine has run out of memory",
    "package": "a package's description (.mk) is wrong",
    "patch-hunk": "a patch does not apply",
    "patch-malformed": "a patch is damaged",
    "perl": "a Perl script fails",
    "permission": "the build may not read or write a file",
    "platform": "the build directory cannot be made",
    "platform-download": "Buildroot itself cannot be downloaded",
    "post-script": "a script of the system fails",
    "python": "a Python script fails",
    "systemd": "a systemd unit cannot be enabled",
    "test": "a test of the package fails",
    "toolchain": "the toolchain is not what the configuration says",
    "unknown": "a step failed",
    "users-table": "a user, device or permission table is wrong",
}
"""What ``Cause.kind`` can be, and its meaning in words; docs/record.md lists the same."""


class Rank(IntEnum):
    """How much a line says. Lower is better."""

    ENVIRONMENT = 0
    """A full disk, no memory: whatever else is said follows from it."""
    CAUSE = 1
    """A tool says why it stopped."""
    LIKELY = 2
    """Usually the cause, but also printed by tools that go on."""
    WEAK = 3
    """A line with an error's words."""
    FOLLOWS = 9
    """Says only that something before it failed."""


@dataclass(frozen=True)
class Sign:
    """One sort of line."""

    kind: str
    rank: Rank
    pattern: re.Pattern[str]
    remedies: tuple[str, ...] = ()
    """Templates, tried in order: the first whose fields are all known is the remedy."""
    before: re.Pattern[str] | None = None
    """Lines directly above that belong to it."""
    after: int = 0
    """How many lines below belong to it, at most; an empty line ends them."""
    steps: tuple[str, ...] = ()
    """Only in these steps (the beginning of their headline); in all if empty."""
    under: str = ""
    """Only in a message whose first line begins so."""
    over: re.Pattern[str] | None = None
    """Only if the next line begins so."""
    amid: re.Pattern[str] | None = None
    """Only if one of the few lines above has this."""
    opens: bool = False
    """The lines below say what is wrong: one of them that is a sign itself says more."""


def _sign(
    kind: str,
    rank: Rank,
    pattern: str,
    *remedies: str,
    before: str | None = None,
    after: int = 0,
    steps: tuple[str, ...] = (),
    under: str = "",
    over: str | None = None,
    amid: str | None = None,
    opens: bool = False,
) -> Sign:
    return Sign(
        kind,
        rank,
        re.compile(pattern),
        remedies,
        re.compile(before) if before else None,
        after,
        steps,
        under,
        re.compile(over) if over else None,
        re.compile(amid) if amid else None,
        opens,
    )


ENVIRONMENT, CAUSE, LIKELY, WEAK, FOLLOWS = Rank

_NEEDS = ("Set {needs_option} in the defconfig: then {package} is built with {provider}.",)
_ADD_LIBRARY = (
    *_NEEDS,
    "Use a newer {too_old}, or an older version of {package}: the one that is there is too old.",
    "Add {provider}, which has {library}, to {variable}_DEPENDENCIES; let Config.in select {provider_option}.",
    "Add {provider}, which has {library}, to {variable}_DEPENDENCIES.",
    "Add the package that provides {unknown_library} to {variable}_DEPENDENCIES.",
)
_OF_TOOLCHAIN = (
    "Use a toolchain with newer kernel headers: these do not have {kernel_header}.",
    "Patch {package}, or use a toolchain with another C library: this one's does not have {libc_header}.",
    "Use a newer compiler: the C++ library of this one does not have <{cxx_header}>.",
)
_ADD_TOOL = (
    *_NEEDS,
    "Add {provider}, which has {tool}, to {variable}_DEPENDENCIES.",
    "Add the host package that provides {unknown_tool} to {variable}_DEPENDENCIES, or install it in the build image.",
    "Install {unknown_tool} in the build image, or select the host package that provides it.",
)
_MEMORY = (
    "Give the container (with Docker Desktop or Podman: its virtual machine) more memory, or build with fewer jobs at "
    "once (BR2_JLEVEL in the defconfig)."
)
_KILLED = (
    "See in the kernel's log whether memory ran out (`dmesg`, in the virtual machine with Docker Desktop). If so, give "
    "the container more, or build with fewer jobs at once (BR2_JLEVEL in the defconfig); if not, build again."
)
_DISK = (
    "Free space on the disk where the engine keeps its volumes (`docker system df` tells who uses it), or enlarge it; "
    "then build again: it continues where it was."
)
_NETWORK = (
    "See whether the container reaches {host} (network, DNS, proxy, VPN), or put the file into the download directory.",
    "See whether the container has a network (DNS, proxy, VPN), or put the file into the download directory.",
)
_BRING_ALONG = "let {package} bring along what it fetches: Buildroot downloads in the step Downloading only."
_NOT_IN_DOWNLOADING = (
    f"See whether the container reaches {{host}} (network, DNS, proxy, VPN), or {_BRING_ALONG}",
    f"See whether the container has a network (DNS, proxy, VPN), or {_BRING_ALONG}",
)
_HUNK = ("Refresh {patch} for this version of {package}, or drop it.", "Refresh {patch} for this version, or drop it.")
# Cargo and pip indent what a compiler prints, and npm puts its own word before it.
_CALLER = r"(?:\s{2,8}|\s*cargo:warning=|npm (?:ERR!|error) )?"
_GCC = rf"^{_CALLER}(?P<file>[^\s:][^:\n]*):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: "
_IN = (
    rf"^{_CALLER}(?:In file included from |\s+from |\S+: In |\S+: At |"
    r"\S+:\d+(?::\d+)?:\s+(?:required|instantiated|recursively) )"
)

_NO_NETWORK = (
    r"(?:unable to resolve host address '?(?P<host>[^\s']+?)'?$|"
    r"Could not resolve host(?:name |: )'?(?P<host2>[\w.-]+)|Temporary failure in name resolution|"
    r"Name or service not known|Network is unreachable|No route to host|ENOTFOUND|EAI_AGAIN|"
    r"lookup \S+.*: (?:no such host|i/o timeout|server misbehaving|Temporary)|dns error: |[nN]etwork unreachable)"
)

# The order matters: the first that matches a line counts.
SIGNS: tuple[Sign, ...] = (
    # What follows from something else.
    _sign(
        "unknown",
        FOLLOWS,
        r"^(?:collect2: error: ld returned|compilation terminated\.|ninja: build stopped|-- Configuring incomplete|"
        r"tar: Exiting with failure status|tar: Child returned status|tar: Error is not recoverable|"
        r"error: aborting due to|error: could not compile '|clang(?:\+\+)?: error: linker command failed|"
        r"error: command '.*failed with exit|error: Command \"|\S+: all warnings being treated as errors|"
        r"warning: build failed, waiting|See also \"|See '?config.log|A full log can be found|error: build failed$|"
        r"subprocess\.CalledProcessError|ERROR Backend subprocess exited|make(?:\[\d+\])?: Target '.*' not remade|"
        r"ERROR: (?:expected:|got +:|Incomplete download|while checking hashes)|cpio: premature|"
        r"\S+: recipe for target '.*' failed|scons: building terminated|Waf: Leaving|cc1\w*: (?:some|all) warnings|"
        r"\s*\*\*\* Maybe you need to increase|\d+ errors?(?:, \d+ warnings?)? generated\.|gzip: stdout: Broken pipe|"
        r"Resolving .* failed: |.*: skipping incompatible |.*more undefined references to |\S*ld: (?:note|NOTE): |"
        r".*: in function '[^']*':$|.*configure: error: (?:in '|\S*configure\S* failed for)|"
        r"To learn more, run the command again|BEGIN failed--compilation aborted|Execution of \S+ aborted due to comp|"
        r"autoreconf: (?:error: )?\S+ failed with exit|autom4te: error: \S+ failed with|"
        r"\S+ had compilation errors\.|msgfmt: found \d+ fatal error|"
        r"HTTP request sent, awaiting response\.\.\. [45]\d\d )",
    ),
    # The machine.
    _sign(
        "disk-full",
        ENVIRONMENT,
        r"(?:: |^|[('\]] ?|because )(?:[Nn]o space left on device|Disk quota exceeded)|\(os error 28\)|ENOSPC|"
        r"^tar: .*: Wrote only \d+ of \d+ bytes",
        _DISK,
    ),
    _sign(
        "out-of-memory",
        ENVIRONMENT,
        r"(?:Killed signal terminated program|Killed \(program \w+\)|terminated with signal 9 \[Killed\]|"
        r"virtual memory exhausted|: memory exhausted|out of memory|Out of memory|"
        r"JavaScript heap out of memory|OutOfMemoryError|eheap_alloc: Cannot allocate|"
        r"std::bad_alloc|^MemoryError|: Cannot allocate memory|signal: 9, SIGKILL|: signal: killed|"
        r"LLVM ERROR: out of memory|cannot allocate \d+ bytes)",
        _MEMORY,
    ),
    _sign(
        "killed",
        ENVIRONMENT,
        r"^Killed$|: line \d+: +\d+ Killed\b",
        _KILLED,
    ),
    _sign(
        "engine-limit",
        ENVIRONMENT,
        r"(?P<limit>Too many open files)",
        "Raise the limit of open files for containers (the engine's `default-ulimits` nofile), or build with fewer "
        "jobs at once (BR2_JLEVEL).",
    ),
    _sign(
        "engine-limit",
        ENVIRONMENT,
        r": Cannot fork$|failed to create new OS thread|(?:fork|vfork|clone|pthread_create|Cannot fork|"
        r"thread|what\(\)).{0,40}: +Resource temporarily unavailable",
        "Raise the container's limit of processes, or build with fewer jobs at once (BR2_JLEVEL).",
    ),
    _sign(
        "engine-limit",
        ENVIRONMENT,
        r"(?:^|: )File size limit exceeded|: File too large$",
        "Raise the container's limit of a file's size (the engine's `default-ulimits` fsize), or write a smaller file.",
    ),
    _sign(
        "engine-limit",
        ENVIRONMENT,
        r": Argument list too long(?:$| \(os error)",
        "Pass fewer or shorter arguments. Where they are paths in the build directory, a shorter path of that helps.",
    ),
    _sign(
        "file-system",
        ENVIRONMENT,
        r"File name too long(?:$|: '| \(os error)",
        "Build on a file system and in a path that allow names of this length (encrypted home directories allow 143 "
        "bytes).",
    ),
    _sign(
        "file-system",
        ENVIRONMENT,
        r"Read-only file system(?:$|: '| \(os error)",
        "Make the file system that the line names writable.",
    ),
    _sign(
        "file-system",
        ENVIRONMENT,
        r": (?:Input/output error|Stale file handle|Structure needs cleaning|"
        r"Device or resource busy|Too many levels of symbolic links|Transport endpoint is not connected)$",
    ),
    _sign("file-system", LIKELY, r"^tar: .*: Cannot (?:utime|open|mkdir|create|change|hard link|write)"),
    _sign("file-system", CAUSE, r": Text file busy$", "Build again: a program was replaced while it ran."),
    _sign(
        "platform",
        CAUSE,
        r"Case-insensitive file system detected!",
        "Build on a case-sensitive file system; on macOS that is a volume of the engine, not a directory of the Mac.",
    ),
    # Interrupted.
    _sign(
        "interrupted",
        CAUSE,
        r"^KeyboardInterrupt$|^ninja: build stopped: interrupted by user|: \*\*\* (?:\[.*\] )?(?:Interrupt|"
        r"Terminated|Hangup)",
        "Nothing is wrong with the build: it was interrupted. Start it again: it continues where it was.",
    ),
    # The compiler crashed.
    _sign(
        "crash",
        CAUSE,
        r"internal compiler error: |internal error, aborting at|terminated with signal 11|"
        r"^Please submit a full bug report|error: the compiler unexpectedly panicked|"
        r"PLEASE submit a bug report to .*llvm|^LLVM ERROR: ",
        "Build again with fewer jobs at once (BR2_JLEVEL): if it then fails elsewhere, memory or hardware is to "
        "blame; if it fails in the same place, it is a fault of the compiler, and another version of it is needed.",
        after=4,
    ),
    _sign(
        "crash",
        CAUSE,
        r"qemu: uncaught target signal|terminated with signal \d+ \[(?!Killed)|"
        r"^(?:.*: )?Segmentation fault(?: \(core dumped\))?$|(?:^|"
        r"line \d+: +\d+ )(?:Segmentation fault|Bus error|Aborted|Illegal instruction|Floating point exception)\b|"
        r"\*\*\* \[.*\] (?:Segmentation fault|Bus error|Aborted|Illegal instruction|Error 139|Error 134|Error 132)",
    ),
    # Buildroot's own checks of the build machine.
    _sign(
        "missing-host-tool",
        CAUSE,
        r"You (?:must|may have to) install '(?P<tool>[^']+)' on your build machine",
        "Use a build image with {tool} in it.",
        after=2,
    ),
    _sign("missing-host-tool", CAUSE, r"^You must install GNU patch", "Use a build image with GNU patch in it."),
    _sign(
        "host-too-old",
        CAUSE,
        r"You have (?P<tool>.+?) '.*' installed\. +.* is required",
        "Use a build image with a newer {tool}.",
    ),
    _sign(
        "missing-host-tool",
        CAUSE,
        r"Your Perl installation is not complete enough",
        "Install the Perl modules that are named below in the build image.",
        after=8,
    ),
    _sign(
        "config",
        CAUSE,
        r"You seem to have the current working directory in your",
        "Take the empty entry or the `.` out of the variable that the next line names (LD_LIBRARY_PATH or PATH; see "
        "`env` and `pass_env` of the build runner).",
        after=1,
    ),
    _sign(
        "config",
        CAUSE,
        r"Your PATH contains spaces",
        "Take the entry with a space, tab or newline out of PATH (see `env` and `pass_env` of the build runner).",
        after=1,
    ),
    _sign(
        "missing-host-tool",
        CAUSE,
        r"Your Buildroot configuration (?:needs a|uses pre-built)",
        after=8,
    ),
    _sign(
        "missing-host-tool",
        CAUSE,
        r"You need (?:locale support|at least one UTF8 locale)",
        "Install a UTF-8 locale in the build image (Debian: the package `locales-all`).",
    ),
    _sign("missing-host-tool", CAUSE, r"^You have an uutils 'install' version", after=4),
    _sign(
        "host-too-old",
        CAUSE,
        r"version '(?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found",
        "The program was built for a newer system than this image: use a build image with a newer C library, or a "
        "program that is built for this one.",
    ),
    # make, makefiles and the configuration.
    _sign(
        "config-legacy",
        CAUSE,
        r"You have legacy configuration in your \.config",
        "Remove or replace the options of the defconfig that this Buildroot no longer has: `make menuconfig` lists "
        "them under 'Legacy config options'.",
    ),
    _sign(
        "config-dependency",
        CAUSE,
        r"\*\*\* (?P<needed>\S+) is in the dependency chain of (?P<owner>\S+) that has added it",
        "Let the Config.in of {owner} select BR2_PACKAGE_{needed_variable} (or depend on it), or take {needed} out "
        "of {owner_variable}_DEPENDENCIES.",
    ),
    _sign(
        "mk-syntax",
        CAUSE,
        r"^(?P<makefile>[^\s:]+):(?P<line>\d+): \*\*\* missing separator",
        "Correct line {line} of {makefile_name}: it is neither an assignment nor a rule. Often the line before lacks "
        "its backslash, or a recipe begins with spaces instead of a tab.",
    ),
    _sign(
        "mk-syntax",
        CAUSE,
        r"^(?P<makefile>[^\s:]+):(?P<line>\d+): \*\*\* (?:(?:recipe|commands) commences? before first target|"
        r"unterminated|missing '?end|extraneous|multiple target patterns|target pattern contains|Recursive variable|"
        r"insufficient number|invalid syntax in conditional|mixed implicit|empty variable name|only one 'else'|"
        r"first argument to|prerequisites cannot be defined|virtual memory|empty string invalid)",
        "Correct {makefile_name}, at or before line {line}.",
    ),
    _sign(
        "package",
        CAUSE,
        r"\*\*\* (?P<setting>\w+)_SITE cannot be empty when",
        "Set {setting}_SITE in the package's .mk file.",
    ),
    _sign(
        "package",
        CAUSE,
        r"\*\*\* (?P<setting>\w+_SITE) \(.*\) cannot have a trailing slash",
        "Remove the slash at the end of {setting}.",
    ),
    _sign(
        "package",
        CAUSE,
        r"\*\*\* Package '(?P<owner>[^']+)' defined a second time",
        "Remove or rename one of the two packages {owner}: Buildroot and all BR2_EXTERNAL trees share their names.",
    ),
    _sign(
        "package",
        CAUSE,
        r"\*\*\* (?:\"?Package (?:error|'?\S+'? )|\w+ declares having git sub|\S+ has local site method|"
        r"\"?\w+_SETUP_TYPE|\"?Invalid \w+_SETUP_TYPE|The \w+TARGETS macro|Unsupported cmake backend)",
    ),
    _sign(
        "config",
        CAUSE,
        r"\*\*\* No implementation selected for virtual package (?P<owner>\S+)\. ",
        "Select a package that provides {owner}.",
    ),
    _sign(
        "config", CAUSE, r"\*\*\* Configuration error: both \"(?P<one>[^\"]+)\"", "Select only one of the two packages."
    ),
    _sign(
        "config",
        CAUSE,
        r"BR2_GLOBAL_PATCH_DIR contains nonexistent directory (?P<path>\S+?)\.?(?:\s|$)",
        "Correct BR2_GLOBAL_PATCH_DIR in the defconfig: {path} does not exist.",
    ),
    _sign(
        "config",
        CAUSE,
        r"\*\*\* .*?[Cc]heck your +(?P<option>BR2_\w+) (?:or|/) (?P<other>BR2_\w+) settings",
        "Set {option} or {other} in the defconfig.",
    ),
    _sign(
        "config",
        CAUSE,
        r"\*\*\* .*?not found. Check your (?P<option>BR2_\w+) setting|\*\*\* No two .*check your (?P<option2>BR2_\w+)",
        "Correct {option} in the defconfig.",
    ),
    _sign(
        "config",
        CAUSE,
        r"\*\*\* .*?(?:[Cc]heck your (?P<option>BR2_\w+) setting|"
        r"[Pp]lease (?:check|add|set|select|enable) (?P<option2>BR2_\w+))",
        "Set {option} in the defconfig.",
    ),
    _sign(
        "config",
        CAUSE,
        r"\*\*\* .*?(?P<option>BR2_\w+) (?:cannot be|can't be|can not be|is not allowed to be) empty",
        "Set {option} in the defconfig.",
    ),
    _sign(
        "defconfig",
        CAUSE,
        r"Can't find default configuration \"(?P<path>[^\"]+)\"|\*\*\* \"?Can't find (?!default )(?P<path2>[^\"\s]+)|"
        r"^ERROR: Can't find (?P<path3>\S+)\. Please check",
        "Correct the name of the defconfig: {path} does not exist.",
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"\*\*\* You have make '.*' installed\. GNU make",
        "Use a build image with a newer GNU make.",
    ),
    _sign(
        "config",
        CAUSE,
        r"\*\*\* '?(?P<path>/[^':]+)'?: (?:no such file or directory|does not have an 'external\.desc'|"
        r"permission denied|name '|does not define)",
        "Correct BR2_EXTERNAL, or what is in {path}: it is not a BR2_EXTERNAL tree as Buildroot wants it.",
        after=1,
    ),
    _sign(
        "kconfig-syntax",
        CAUSE,
        r"^(?P<file>[^\s:]+):(?P<line>\d+):\s*(?:error:\s*)?recursive dependency detected!",
        after=6,
    ),
    _sign(
        "kconfig-syntax",
        CAUSE,
        r"^\S*/\.br2-external\.in\.\w+:\d+: (?!warning)",
        "Correct the Config.in files of the BR2_EXTERNAL tree: often an `if` lacks its `endif`, or a `menu` its "
        "`endmenu`.",
        after=4,
    ),
    _sign(
        "kconfig-syntax",
        CAUSE,
        r"^(?P<file>\S*(?:Config\.in|Kconfig)[^\s:]*):(?P<line>\d+):\s*(?:warning: )?(?!warning|"
        r"\s*symbol)(?P<said>unknown |syntax error|can't open|missing end|unexpected|invalid |unmatched|location of|"
        r"unbalanced|error:|recursive inclusion|'endmenu' in|multi-line strings|.*multiple line.*|.*without prompt)",
        "Correct {file_name}, at or just before line {line}.",
        after=4,
    ),
    _sign(
        "kconfig-syntax",
        CAUSE,
        r"can't open file \"(?P<path>[^\"]*(?:Config\.in|Kconfig)[^\"]*)\"",
        "Make {path}, or remove the `source` line that names it.",
    ),
    _sign(
        "kconfig",
        CAUSE,
        r"Kconfig (?:file or )?fragment '(?P<path>[^']*)' for '(?P<owner>[^']+)' does not exist",
        "Correct the option that names the configuration file of {owner}: {path} does not exist.",
    ),
    _sign(
        "kconfig",
        CAUSE,
        r"Error in reading or end of file\.|^Console input/output is redirected\. |"
        r"aborted! *$|Configuration file \"\.config\" not found",
    ),
    _sign("kconfig", LIKELY, r"\*\*\* Error during (?:writing|sync|update) of the"),
    _sign("kconfig", CAUSE, r"^\*\*\* (?:Configuration file|The configuration)"),
    # Downloads.
    _sign(
        "license-hash",
        CAUSE,
        r"^ERROR: (?P<file>\S+) has wrong \w+ hash:",
        "Read what has changed in {file}; if the licence is still the one that is declared, put its new hash into "
        "the package's .hash file.",
        before=r"^ERROR: while checking hashes",
        after=2,
        steps=("Collecting legal info",),
    ),
    _sign(
        "hash-mismatch",
        CAUSE,
        r"^ERROR: (?P<file>\S+) has wrong \w+ hash:",
        "{hash_advice}",
        before=r"^ERROR: while checking hashes",
        after=2,
    ),
    _sign(
        "hash-missing",
        CAUSE,
        r"^ERROR: No hash found for (?P<file>\S+)",
        "See that the source has {file}, which {plain_variable}_LICENSE_FILES names, and add its hash to the "
        "package's .hash file.",
        steps=("Collecting legal info",),
    ),
    _sign(
        "hash-missing",
        CAUSE,
        r"^ERROR: No hash found for (?P<file>\S+)",
        "Add the hash of {file} to the package's .hash file.",
    ),
    _sign(
        "hash-missing", CAUSE, r"^ERROR: unknown hash '(?P<hash>[^']*)' for", "Use sha256 in the package's .hash file."
    ),
    _sign(
        "download-404",
        CAUSE,
        r"(?:ERROR 404|HTTP/\S+ 404|returned error: 404|error: 404|404 Not Found|RETR .*No such file|"
        r"svn: E1[67]\d+: .*(?:not found|non-existent)|scp: \S+: No such file|abort: .*not found!?$|HTTP Error 404)",
        "Correct the version or the site of {package}: {url} is not there.",
        "Correct the version or the site of {package}: the file is not there.",
        steps=("Downloading",),
    ),
    _sign(
        "download-403",
        CAUSE,
        r"(?:ERROR 40[13]|Username/Password Authentication Failed|"
        r"HTTP/\S+ 40[13]|returned error: 40[13]|Permission denied \(publickey|"
        r"Authentication failed for|HTTP Basic: Access denied|could not read (?:Username|Password) for|"
        r"Host key verification failed|"
        r"HTTP Error 40[13]|Authorization failed)",
        "The server refuses the download: see whether the address is right, and whether the container has the "
        "credentials or the ssh agent that it needs (`ssh` of the build runner).",
    ),
    _sign(
        "download-certificate",
        CAUSE,
        r"(?:cannot verify .* certificate|certificate of .* is not trusted|SSL certificate problem|"
        r"certificate verify failed|server certificate verification failed|x509: certificate|"
        r"[cC]ertificate (?:of \S+ )?has expired|"
        r"self.signed certificate)",
        "See whether the container's clock is right and whether a proxy answers with a certificate of its own; the "
        "latter belongs into the build image's certificates.",
        after=3,
    ),
    _sign("download-no-network", CAUSE, _NO_NETWORK, *_NETWORK, steps=("Downloading",)),
    _sign("download-no-network", CAUSE, _NO_NETWORK, *_NOT_IN_DOWNLOADING),
    _sign(
        "download-no-network",
        CAUSE,
        r"(?:connect to host (?P<host2>\S+) port \d+: |"
        r"Connection (?:refused|timed out|reset by peer)|Operation timed out|download timed out|"
        r"Failed to connect to (?P<host>\S+) port|Failed to connect to|"
        r"timed out after|Couldn't connect to server|Connection closed by remote host|"
        r"unable to connect to|Unable to connect to)",
        "See whether {host} can be reached from the container (network, proxy, firewall) and answers; then build "
        "again.",
        "See whether the server can be reached from the container and answers; then build again.",
        steps=("Downloading",),
    ),
    _sign(
        "download-git",
        CAUSE,
        r"^Commit '(?P<commit>[^']+)' does not exist in this repository",
        "Correct {plain_variable}_VERSION: the repository does not have the commit {commit} (mistyped, or removed by "
        "a forced push).",
    ),
    _sign(
        "download-git",
        CAUSE,
        r"^fatal: (?:[Rr]emote branch|couldn't find remote ref|reference is not a tree|bad (?:object|revision)|"
        r"no such ref|ambiguous argument|not a tree object)|^error: pathspec '|"
        r"did not match any file\(s\) known to git|^abort: unknown revision|svn: E\d+: No such revision",
        "Correct {plain_variable}_VERSION: the repository does not have it.",
        steps=("Downloading",),
    ),
    _sign(
        "download-git",
        CAUSE,
        r"(?:^fatal: repository '?(?P<url>\S+?)'? (?:not found|does not exist)|(?:remote|ERROR): Repository not found|"
        r"does not appear to be a git repository)",
        "Correct {plain_variable}_SITE: there is no such repository, or it is not public.",
        steps=("Downloading",),
    ),
    _sign(
        "download-git",
        CAUSE,
        r"detected dubious ownership in repository at '(?P<path>[^']+)'|"
        r"unsafe repository \('(?P<path2>[^']+)' is owned",
        "Give {path} to the user that the build runs as (`chown -R`).",
        after=5,
    ),
    _sign(
        "download-git",
        CAUSE,
        r"^fatal: (?:early EOF|the remote end hung up|fetch-pack|index-pack|protocol error)|^error: RPC failed|"
        r"^error: \d+ bytes of body are still expected",
        "Build again: the connection broke while git fetched.",
    ),
    _sign(
        "download-git",
        CAUSE,
        r"^fatal: (?:clone of .* into submodule|No url found for submodule|Needed a single revision|"
        r"Fetched in submodule path)",
    ),
    _sign(
        "download",
        CAUSE,
        r"ERROR (?:5\d\d|429): |HTTP/\S+ (?:5\d\d|429)|returned error: (?:5\d\d|429)|HTTP Error (?:5\d\d|429)",
        "The server at {url} fails: build again later, or put the file into the download directory.",
        "The server fails: build again later, or put the file into the download directory.",
        steps=("Downloading",),
    ),
    _sign(
        "download",
        CAUSE,
        r"Connection closed at byte \d+\. Giving up|^Giving up\.|^\d+ redirections exceeded|"
        r"curl: \(\d+\) (?:transfer closed with|Empty reply|Recv failure)",
        "The server at {url} does not give the whole file: build again later, correct the address, or put the file "
        "into the download directory.",
        before=r"No data received\.|Read error ",
        steps=("Downloading",),
    ),
    _sign(
        "download",
        CAUSE,
        r"Scheme missing\.|Unsupported scheme|not a valid URL|Invalid URL",
        "Correct the address that the line names ({plain_variable}_SITE, or a site of the defconfig).",
        steps=("Downloading",),
    ),
    _sign(
        "download",
        CAUSE,
        r"ERROR \d{3}: |^curl: \(\d+\) |^svn: E\d+: |^abort: |^hg: |lost connection$|wget: .*(?:error|"
        r"failed)|^fatal: unable to access|^bzr: ERROR|^cvs \[\w+ aborted\]|Unable to establish SSL connection|"
        r"^ssh: |^scp: |^sftp: |Couldn't (?:stat|read) ",
        before=r"^(?:GnuTLS|OpenSSL): ",
        steps=("Downloading",),
    ),
    _sign(
        "missing-file",
        CAUSE,
        r"^ERROR: (?P<path>/\S+) does not exist",
        "Correct the override or the local site of {package}: {path} does not exist.",
        steps=("Syncing",),
    ),
    _sign(
        "missing-file",
        CAUSE,
        r"(?:cp: cannot stat|rsync: .*(?:change_dir|link_stat)) ['\"](?P<path>[^'\"]+)['\"].*No such file",
        "Correct the site of {package}: {path} does not exist.",
        steps=("Downloading", "Syncing"),
    ),
    _sign(
        "missing-file",
        CAUSE,
        r"rsync: .*(?:change_dir|link_stat) [\"'](?P<path>[^\"']+)[\"'].*No such file",
        "Correct BR2_ROOTFS_OVERLAY: {path} does not exist.",
        steps=("Copying overlay",),
    ),
    # Archives.
    _sign(
        "package",
        CAUSE,
        r": line \d+: (?P<path>/\S+\.\w+): (?:Permission denied|cannot execute.*|Is a directory)$",
        "Set {variable}_EXTRACT_CMDS: Buildroot knows only compressed tar archives, and {path} is not called like one.",
        steps=("Extracting",),
    ),
    _sign(
        "extract-corrupt",
        CAUSE,
        r"(?:(?:gzip|zcat|gunzip): (?P<path>/\S+)?.*(?:not in gzip format|unexpected end of file|"
        r"invalid compressed data|crc error|trailing garbage)|(?:xz|xzcat|unxz|lzma|"
        r"lzcat): (?P<path2>/\S+)?.*(?:File format not recognized|Unexpected end of input|[Cc]orrupt|Unsupported)|"
        r"(?:bzip2|bzcat|bunzip2): .*(?:not a bzip2 file|Data integrity|file ends unexpectedly|Compressed file ends)|"
        r"bzip2: Compressed file ends|(?:lzip|plzip|tarlz): (?P<path3>/\S+)?.*(?:Bad magic|ends unexpectedly|"
        r"Data error|Not (?:a|in) lzip|CRC mismatch|Truncated)|(?:zstd|zstdcat|unzstd|lz4): .*(?:unsupported format|"
        r"premature|Decoding error|corrupt)|End-of-central-directory signature not found|"
        r"cannot find zipfile directory|^\s*error:.*invalid zip|tar: (?:Unexpected EOF|This does not look like a tar|"
        r"Skipping to next header|A lone zero block|Malformed|invalid tar|Archive contains|Unexpected end|Damaged)|"
        r"cpio: .*(?:malformed|bad magic|not a cpio)|premature end of (?:archive|file)$)",
        "The downloaded file {archive} is damaged, or is a web page instead of an archive: delete it from the "
        "download directory, see whether its address is right, and give the package a .hash file so that this is "
        "noticed at the download.",
        "The downloaded file is damaged, or is a web page instead of an archive: delete it from the download "
        "directory, see whether its address is right, and give the package a .hash file so that this is noticed at "
        "the download.",
        after=2,
    ),
    # Patches.
    _sign(
        "patch-hunk",
        CAUSE,
        r"git binary diffs are not supported",
        "Take the binary file out of {patch}: GNU patch cannot apply git's binary differences.",
        before=r"^(?:Applying |patching file )",
    ),
    _sign(
        "patch-malformed",
        CAUSE,
        r"^(?:patch: )?\*\*\*\* +(?:malformed patch|Only garbage|unexpected end of file in patch|misordered|"
        r"replacement text or line numbers mangled)|^error: (?:corrupt patch|patch fragment without header)",
        "Make {patch} anew: it is damaged (a context line that lost its leading space, a cut end, wrong line counts).",
        before=r"^(?:Applying |patching file )",
    ),
    _sign(
        "patch-hunk",
        CAUSE,
        r"^Hunk #\d+ FAILED at",
        *_HUNK,
        before=r"^(?:Applying |patching file |Hunk #\d+ succeeded)",
        after=1,
    ),
    _sign(
        "patch-hunk",
        CAUSE,
        r"^Reversed \(or previously applied\) patch detected",
        "Drop {patch}: this version has its change already.",
        before=r"^(?:Applying |patching file )",
        after=2,
    ),
    _sign(
        "patch-hunk",
        CAUSE,
        r"^can't find file to patch|^No file to patch",
        "Correct the paths in {patch} (Buildroot removes their first part), or refresh it for this version of "
        "{package}: there is no such file.",
        before=r"^(?:Applying |patching file )",
        after=8,
    ),
    _sign(
        "patch-hunk",
        CAUSE,
        r"^The next patch would (?:create|delete) the file|"
        r"^(?:\d+ out of \d+ hunks? (?:FAILED|ignored))|^error: patch failed|^Patch failed!|"
        r"^patch: \*\*\*\* ",
        *_HUNK,
        before=r"^(?:Applying |patching file )",
        after=4,
    ),
    _sign(
        "patch-hunk",
        CAUSE,
        r"^Aborting\.  '(?P<path>[^']+)' is not a directory",
        "Correct the option or the variable that names {path}: there is no such directory.",
    ),
    _sign("patch-hunk", CAUSE, r"^Aborting\.  "),
    _sign(
        "patch-hunk",
        CAUSE,
        r"^Error: missing patch file (?P<path>\S+)|^Error: duplicate filename '(?P<name>[^']+)'",
        after=3,
    ),
    _sign("host-too-old", CAUSE, r"^\*\*\* .* is too old\.?$", after=4),
    # Toolchains.
    _sign(
        "toolchain",
        CAUSE,
        r"^(?P<what>OpenMP|C\+\+|D language|Fortran) support is not selected but is available in external toolchain",
        "Set {option}=y in the defconfig: the toolchain has it.",
    ),
    _sign(
        "toolchain",
        CAUSE,
        r"^(?P<what>OpenMP|C\+\+|D language|Fortran) support is selected but is not available in external toolchain",
        "Take {option} out of the defconfig: the toolchain does not have it.",
    ),
    _sign(
        "toolchain",
        CAUSE,
        r"available in .*, please (?P<verb>enable|disable) (?P<option>BR2_\w+)",
        "Do what the line says in the defconfig: {verb} {option}.",
    ),
    _sign(
        "toolchain",
        CAUSE,
        r"^Incorrect selection of kernel headers: expected (?P<expected>\S+?),? got (?P<got>\d+\.\d+)",
        "Set the toolchain's kernel headers in the defconfig to {got}.x (BR2_TOOLCHAIN_EXTERNAL_HEADERS_..., or for "
        "Buildroot's own toolchain BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM_...).",
    ),
    _sign(
        "toolchain",
        CAUSE,
        r"^Incorrect selection of gcc version: expected (?P<expected>\S+), got (?P<got>\S+)",
        "Set the toolchain's gcc version in the defconfig to {got} (BR2_TOOLCHAIN_EXTERNAL_GCC_...).",
    ),
    _sign(
        "toolchain",
        CAUSE,
        r"^Incorrect selection of the C library",
        "Select the C library that the external toolchain has (BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC, _MUSL or _UCLIBC).",
    ),
    _sign(
        "toolchain",
        CAUSE,
        r"^(?:Cannot execute cross-compiler '(?P<path>[^']*)'|Unable to detect the toolchain|"
        r"External toolchain (?:uses|doesn't)|Incorrect ABI setting|Distribution toolchains are unsuitable|"
        r"Angstrom toolchains|SSP (?:support|option) |.* not available in C library, toolchain unsuitable|"
        r"LIBPATH empty|Buildroot cannot use this|Could not find gdbserver)",
        after=3,
    ),
    # Checks of what was installed.
    _sign(
        "host-rpath",
        CAUSE,
        r"^\*\*\* ERROR: package \S+ installs executables without proper RPATH",
        "Link what the next lines name with $(HOST_LDFLAGS), which has -Wl,-rpath,$(HOST_DIR)/lib.",
        after=3,
    ),
    _sign(
        "install-wrong-place",
        CAUSE,
        r"^\S+: installs files in (?P<path>\S+)",
        "Let {package} install with prefix=/usr and DESTDIR=$(STAGING_DIR) or $(TARGET_DIR), not with a prefix that "
        "has that directory in it: it arrives twice in {path}.",
    ),
    _sign(
        "check-architecture",
        CAUSE,
        r"^ERROR: architecture for \"(?P<path>[^\"]+)\" is ",
        "Build {path} with the cross compiler ($(TARGET_CC), TARGET_CONFIGURE_OPTS), or do not install it on the "
        "target.",
    ),
    _sign(
        "check-unsafe-path",
        CAUSE,
        r"unsafe (?:header/library|header|library) path used in cross-compilation: '?(?P<path>[^\s']+)",
        "Let the package's build not add {path}, which is the build machine's, to the compiler's options.",
    ),
    _sign(
        "check-merged-usr",
        CAUSE,
        r"^The .* in \S+ is not properly setup:",
        "Make the directories that are named below links, as BR2_ROOTFS_MERGED_USR wants them.",
        after=5,
    ),
    _sign("check-merged-usr", CAUSE, r"^ERROR: we shouldn't have a /etc/ld\.so\.conf"),
    # Users and devices.
    _sign("users-table", CAUSE, r"^(?:\S*/)?(?:mkusers|makedevs): (?!.*warning)"),
    _sign(
        "systemd",
        CAUSE,
        r"^Failed to (?:enable|preset|mask|get|look up)\b.*\bunit\b|Unit (?:file )?\S+ (?:does not exist|"
        r"could not be found)",
    ),
    # Images.
    _sign(
        "image-too-big",
        CAUSE,
        r"Could not allocate inode in ext2 filesystem",
        "Raise BR2_TARGET_ROOTFS_EXT2_INODES in the defconfig; if it is 0, raise BR2_TARGET_ROOTFS_EXT2_SIZE.",
        after=2,
    ),
    _sign(
        "image-too-big",
        CAUSE,
        r"Could not allocate block in ext2 filesystem|Not enough space to build proposed filesystem|"
        r"mke?2?fs\S*: .*(?:too small|No free|Ext2 inode)",
        "Raise BR2_TARGET_ROOTFS_EXT2_SIZE in the defconfig, or make the root file system smaller.",
        after=2,
    ),
    _sign(
        "image-too-big",
        CAUSE,
        r"max_leb_cnt too low",
        "Raise BR2_TARGET_ROOTFS_UBIFS_MAXLEBCNT in the defconfig to the number that the line names.",
        after=2,
    ),
    _sign(
        "image-too-big",
        CAUSE,
        r"^ERROR: \w+\((?P<image>[^)]+)\): .*(?:too small|too large|exceeds|does not fit|overlap|larger than)|"
        r"^Disk full$|mcopy.*[Dd]isk full|part(?:ition)? .* (?:too small|too big|exceeds)|image .* exceeds",
        "Raise the size of {image} in the genimage configuration, or put less into it.",
        "Raise the image's size in its configuration, or put less into it.",
        after=2,
    ),
    _sign(
        "image",
        CAUSE,
        r"^mkfs\.ext\d: invalid blocks '(?P<size>[^']*)'",
        "Correct BR2_TARGET_ROOTFS_EXT2_SIZE in the defconfig: {size} is no size.",
    ),
    _sign(
        "image",
        CAUSE,
        r"^ERROR: \w+\(\S+\): .*|^FATAL ERROR: ?|^mksquashfs|^mkfs\.\S+: |^mke2fs: |^mkimage: |^genimage: |"
        r"^ubinize: error|^fwup: |^Error: mtd|^(?:mcopy|mmd|mformat): |^xorrisofs|^__populate_fs: |^resize2fs: |"
        r"^Could not (?:open|find) .*image",
        steps=("Generating", "Executing post-image"),
    ),
    # configure.
    _sign(
        "configure",
        CAUSE,
        r"you should not run configure as root",
        "Build as an ordinary user, not as root.",
        after=1,
    ),
    _sign(
        "clock",
        CAUSE,
        r"configure: error: newly created file is older than distributed files",
        "Set the clock of the machine (of the virtual machine, with Docker Desktop) right.",
        after=1,
    ),
    _sign(
        "configure-pkg-config",
        CAUSE,
        r"configure: error: (?:[Tt]he )?[Pp]ackage requirements \((?P<library>[^()]*(?:\([^()]*\)[^()]*)*)\) were "
        r"not met",
        *_ADD_LIBRARY,
        after=5,
    ),
    _sign(
        "compiler",
        CAUSE,
        r"configure: error: .*?C(?:\+\+)? (?:pre)?(?:compiler|processor) (?:cannot create|\".*\" fails|"
        r"cannot compile)|configure: error: no acceptable (?P<compiler>\S+) |configure: error: (?:C|C\+\+|"
        r"Fortran) compiler",
        "Look into the package's config.log in its build directory: the compiler cannot make a program at all.",
        after=1,
    ),
    _sign(
        "configure",
        CAUSE,
        r"configure: error: cannot (?:run test program|check .*) (?:while|when) cross",
        "Answer the test in {variable}_CONF_ENV (an ac_cv_... variable): it cannot run when cross compiling.",
        after=1,
    ),
    _sign(
        "configure",
        CAUSE,
        r"configure: error: unrecognized options?: (?P<option>\S+)",
        "Take {option} out of {variable}_CONF_OPTS: this version does not have it.",
        after=1,
    ),
    _sign(
        "configure",
        CAUSE,
        r"configure: error: (?:cannot guess build type|cannot (?:find|run) \S*config\.(?:sub|guess|rpath)|"
        r"cannot find (?:required auxiliary|install-sh)|source directory already configured)",
        after=1,
    ),
    _sign(
        "missing-tool",
        CAUSE,
        r"configure: error: .*?(?P<tool>\b(?:pkg-config|flex|lex|bison|yacc|m4|perl|python3?|gperf|gettext|msgfmt|"
        r"makeinfo|xsltproc|intltool|autoconf|nasm|yasm|ragel|swig|cmake|bc|gawk|awk|tclsh|ruby|rst2man|asciidoc|"
        r"protoc|dtc|rustc|cargo|go|valac|itstool|xmllint|gengetopt)\b).*?(?:not found|missing|required|needed|"
        r"could not be found|too old|not available)",
        *_ADD_TOOL,
        after=2,
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"configure: error: .*[Cc]ompiler with (?:support for )?C\+\+\d\d",
        "Use a newer compiler, or an older version of {package}.",
    ),
    _sign(
        "configure-library",
        CAUSE,
        r"configure: error: (?:[Cc]an(?:not|'t) find |[Cc]ould not find |[Uu]nable to find |[Nn]o |[Mm]issing |"
        r"[Nn]eed |[Tt]he |[Ll]ibrary |[Hh]eader |"
        r"\*+ )?['\"]?(?P<library>[\w.+/-]+?)['\"]?(?: (?:development )?(?:librar(?:y|ies)|headers?|header files?|"
        r"package|development|dev(?:el)?|support|module)\b)*(?:\(s\))?,? .*?(?:not found|missing|required|"
        r"not be found|unavailable|not installed|not available|needed|not present|was not)",
        *_ADD_LIBRARY,
        after=2,
    ),
    _sign(
        "configure-library",
        CAUSE,
        r"configure: error: (?:[Cc]an(?:not|'t) (?:find|locate)|[Cc]ould not (?:find|locate)|[Uu]nable to (?:find|"
        r"locate)|[Mm]issing) (?:the |a |usable |working )*['\"]?(?P<library>[\w.+/-]+)",
        *_ADD_LIBRARY,
        after=2,
    ),
    _sign(
        "configure",
        CAUSE,
        r"(?:configure|config\.status): error: ",
        before=r"Invalid configuration '",
        after=3,
    ),
    _sign(
        "autotools",
        CAUSE,
        r"configure: line \d+: syntax error near unexpected token",
        "The configure script was made without the m4 file of the macro that the next line names: add the host package "
        "that has it (host-pkgconf for PKG_...) to {variable}_DEPENDENCIES, and set {variable}_AUTORECONF = YES.",
        after=1,
        over=r"\S*configure: line \d+: '\s*[A-Z]+_\w+\(",
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"^\*\*\* These critical programs are missing or too old: (?P<programs>.+)",
        "Use a build image with newer programs: {programs}.",
    ),
    _sign(
        "configure",
        CAUSE,
        r": (?:\./)?configure: No such file or directory$",
        "The source has no configure script: let Buildroot make it ({variable}_AUTORECONF = YES), or use an archive "
        "that has one.",
        steps=("Configuring",),
    ),
    _sign(
        "configure-pkg-config",
        LIKELY,
        r"^Package '?(?P<library>[\w.+-]+)'?(?:, required by '[^']*',)? (?:was )?not found|"
        r"^No package '(?P<library2>[^']+)' found|^Project ERROR: (?P<library3>\S+) development package not found|"
        r"Project ERROR: Unknown module\(s\) in QT: (?P<library4>\S+)",
        *_ADD_LIBRARY,
    ),
    _sign(
        "autotools",
        CAUSE,
        r"^(?P<file>configure\.(?:ac|in)|aclocal\.m4|\S+\.m4|(?:\S*/)?configure\.(?:ac|"
        r"in))(?::\d+)?: error: possibly undefined macro: (?P<macro>\S+)",
        "Add {provider}, which has {macro}, to {variable}_DEPENDENCIES.",
        "Add the host package that has the m4 file for {macro} to {variable}_DEPENDENCIES.",
        after=2,
    ),
    _sign("missing-tool", CAUSE, r"^Can't exec \"(?P<tool>[^\"/]+)\": No such file", *_ADD_TOOL),
    _sign(
        "autotools",
        CAUSE,
        r"missing: line \d+: (?P<tool>(?:aclocal|automake|autoconf|autoheader)[\d.-]*): command not found",
        "Set {variable}_AUTORECONF = YES, or keep the files' times when patching: the package wants to make its "
        "configure script anew with a version that is not there.",
    ),
    _sign(
        "autotools",
        CAUSE,
        r"^(?:(?:\S*/)?configure\.(?:ac|in)|\S*\.m4|(?:\S*/)?Makefile\.am)(?::\d+)*: error: |^(?:automake|aclocal|"
        r"autom4te|autoheader|autoconf|autopoint|libtoolize|autoreconf)[\d.-]*: (?:error: |cannot )|"
        r": (?:required file '.*' not found|error: required file)|macro directory '.*' does not exist|"
        r"error: (?:Autoconf|Automake) version|error: Libtool library used but 'LIBTOOL'|^\*\*\* (?:No|"
        r"Warning).*libtool|'(?:aclocal|automake|autoconf)-?[\d.]*' is (?:needed|missing) ",
        after=3,
    ),
    _sign(
        "autotools", CAUSE, r"^libtool: (?: *)?(?:\w+: )?error: (?P<said>.*)|^libtool: Version mismatch error", after=2
    ),
    # CMake.
    _sign(
        "host-too-old",
        CAUSE,
        r"^\s+CMake (?P<version>[\d.]+)(?:\.\.\.\S+)? or higher is required\.",
        "Use a newer CMake: {version} at least (host-cmake, or the build image's).",
        before=r"^CMake Error",
        after=3,
    ),
    _sign(
        "configure-cmake",
        CAUSE,
        r"Compatibility with CMake < 3\.5 has been removed",
        "Add -DCMAKE_POLICY_VERSION_MINIMUM=3.5 to {variable}_CONF_OPTS, or patch cmake_minimum_required: CMake 4 "
        "refuses what asks for less than 3.5.",
        before=r"^CMake Error",
        after=3,
    ),
    _sign(
        "configure-cmake",
        CAUSE,
        r"^\s+Could NOT find (?P<library>[\w.+-]+)",
        *_ADD_LIBRARY,
        before=r"^CMake Error",
        after=2,
        under="CMake Error",
    ),
    _sign(
        "configure-cmake",
        CAUSE,
        r"^\s+Could not find a package configuration file provided by \"(?P<library>[^\"]+)\"|"
        r"^\s+By not providing \"Find(?P<library2>[^\"]+)\.cmake\"|"
        r"^\s+Could not find \S+ using the following names: (?P<library4>[\w+.-]+)|"
        r"^\s+Could not find (?P<library3>[\w+.-]+) (?:library|using)|"
        r"^\s+The following required packages were not found|^\s+A required package was not found",
        *_ADD_LIBRARY,
        before=r"^CMake Error|^--   ?(?:No package|Package) '",
        after=5,
        under="CMake Error",
    ),
    _sign(
        "configure-cmake",
        CAUSE,
        r"^\s+Could not find a configuration file for package \"(?P<library>[^\"]+)\" that is compatible",
        "Use another version of {library} or of {package}: the lines below name the one that is wanted and those that "
        "are there.",
        before=r"^CMake Error",
        after=7,
        under="CMake Error",
    ),
    _sign(
        "compiler",
        CAUSE,
        r"^\s+is not able to compile a simple test program|is not a full path( to an existing compiler tool|"
        r" and was not found in the PATH)",
        after=3,
        under="CMake Error",
    ),
    _sign("configure-cmake", CAUSE, r"^CMake Error(?: at |:)", after=6, opens=True),
    # Meson.
    _sign(
        "python",
        CAUSE,
        r"(?:is missing modules: |No matching distribution found for )(?P<module>[\w.]+)",
        "Add host-python3 and {provider} to {variable}_DEPENDENCIES.",
        "Add the host package that provides the Python module {module} to {variable}_DEPENDENCIES.",
    ),
    _sign(
        "configure-meson",
        CAUSE,
        r"^\S+:\d+:\d+: ERROR: (?:Dependency (?:lookup for )?['\"](?P<library>[^'\"]+)['\"]|"
        r"Dependency (?:lookup for )?'?(?P<library2>[^\s']+)|(?:C|C\+\+|"
        r"ObjC) (?:shared or static )?library '(?P<library3>[^']+)' not found|(?:C|"
        r"C\+\+) header '(?P<library4>[^']+)' not found|Header '(?P<library5>[^']+)')",
        *_ADD_LIBRARY,
    ),
    _sign(
        "missing-tool",
        CAUSE,
        r"^\S+:\d+:\d+: ERROR: (?:Program|Command|Native program|python3 is missing modules|"
        r"Python)[^'\"]*['\"](?P<tool>[^'\"]+)['\"][^:]* not found",
        *_ADD_TOOL,
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"ERROR: Meson version is (?P<have>\S+) but project requires (?P<version>[^\n]*\d)",
        "Use a newer Meson, or an older version of {package}: this one needs {version}.",
    ),
    _sign(
        "configure-meson",
        CAUSE,
        r"ERROR: Unknown options?: (?P<option>.+)",
        "Take {option} out of {variable}_CONF_OPTS: this version does not have it.",
    ),
    _sign(
        "configure-meson",
        CAUSE,
        r"ERROR: Value '?\"?.*? for \w+ option \"(?P<option>[^\"]+)\" is not one of the choices",
        "Correct {option} in {variable}_CONF_OPTS: the line names its choices.",
    ),
    _sign(
        "configure-meson",
        CAUSE,
        r"Automatic wrap-based subproject downloading is disabled",
        "Add the package that provides the subproject to {variable}_DEPENDENCIES: Buildroot lets Meson download "
        "nothing.",
    ),
    _sign(
        "configure-meson",
        CAUSE,
        r"^(?:\S*meson\.\w+:\d+:\d+: |\S+:\d+:\d+: )ERROR: |^ERROR: (?:Problem encountered|Unknown compiler|Neither |"
        r"Include dir|Subproject |Invalid )",
        after=2,
    ),
    # Rust and Go.
    _sign(
        "compile-rust",
        CAUSE,
        r"error: failed to (?:get|download|fetch|load source|select a version|query|"
        r"update registry)|error: no matching package|error: Unable to update|error: unable to update|"
        r"perhaps a crate was updated",
        "Let the download step vendor the crates (a .hash file for what it makes), or correct Cargo.toml and "
        "Cargo.lock: the build itself has no access to a registry.",
        after=5,
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"(?:requires rustc|rustc) (?P<version>[\d.]+) or newer|requires rustc (?P<version2>[\d.]+)|"
        r"error: package '.*' cannot be built because it requires rustc",
        "Use an older version of the crate or a newer Rust: this one needs what the line names.",
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"feature '(?P<feature>edition\d+)' is required$|is older than the '(?P<feature2>\d+)' edition|"
        r"(?P<feature3>lock file version \S+) (?:requires '-Z|was found, but this version of Cargo)",
        "Use a newer Rust, or an older version of {package}: this Cargo does not know {feature}.",
        before=r"^error: failed to parse|^  failed to parse|^Caused by:|^$",
        after=3,
    ),
    _sign(
        "missing-tool",
        CAUSE,
        r"^error: linker '(?P<linker>[^']+)' not found",
        "Correct the linker that Cargo's configuration or RUSTFLAGS name: there is no {linker}.",
        after=3,
    ),
    _sign(
        "compile-rust",
        CAUSE,
        r"^error\[E0463\]: can't find crate for '(?:std|core)'",
        "Use a Rust that has the standard library of the target that the note names.",
        after=3,
    ),
    _sign(
        "compile-rust",
        CAUSE,
        r"error: the lock file .* needs to be updated|error: cannot update the lock file",
        "Bring Cargo.lock in step with Cargo.toml (`cargo update`) by a patch: Buildroot builds with --locked.",
        after=3,
    ),
    _sign("compile-rust", CAUSE, r"error: failed to (?:parse|load) manifest", after=9, opens=True),
    _sign("link", CAUSE, r"^error: linking with '[^']+' failed", after=4, opens=True),
    _sign(
        "compile-rust",
        CAUSE,
        r"^error(?:\[E\d+\])?: .",
        after=6,
        over=r"\s*--> \S+:\d+:\d+$",
    ),
    _sign("compile-rust", LIKELY, r"^error: failed to run custom build command for '(?P<crate>[^' ]+)", after=6),
    _sign(
        "configure-pkg-config",
        CAUSE,
        r"^\s*The system library '(?P<library>[^']+)' required by crate '[^']+' was not found",
        *_ADD_LIBRARY,
        after=3,
    ),
    _sign("compile-rust", CAUSE, r"^\s*thread '.*' (?:\(\d+\) )?panicked at ", after=3),
    _sign(
        "host-too-old",
        CAUSE,
        r"package (?P<module>[\w/]+) is not in (?:std|GOROOT)",
        "Use a newer Go, or an older version of {package}: this Go does not have the package {module}.",
    ),
    _sign(
        "compile-go",
        CAUSE,
        r"(?:cannot find (?:module|package)|no required module provides package|missing go\.sum entry|"
        r"module lookup disabled by GOPROXY|"
        r"inconsistent vendoring|go: updates to go\.mod needed|cannot find main module|"
        r"module .* found .*, but does not contain)",
        "Let the download step vendor the modules, or bring go.mod, go.sum and vendor/ in step with the code: the "
        "build itself downloads nothing.",
        after=4,
    ),
    _sign("compile-go", CAUSE, r"^\s+imports .*: import cycle not allowed"),
    _sign(
        "host-too-old",
        CAUSE,
        r"go(?:\.mod)? requires go >= (?P<version>[\d.]+)|module requires Go (?P<version2>[\d.]+)|"
        r"invalid go version '",
        "Use a newer Go, or an older version of the package.",
    ),
    _sign(
        "compile-go",
        CAUSE,
        r"^(?:vet: )?(?P<file>(?:\.{0,2}/)?[^\s:]+\.go):\d+:\d+: (?!fatal error: )",
        before=r"^# \S",
        after=3,
    ),
    # Device trees, kernel, boot loader.
    _sign(
        "device-tree",
        CAUSE,
        r"^(?:FATAL ERROR: Couldn't open \"(?P<path>[^\"]+)\"|"
        r"\S+\.dts[io]?:\d+:\d+: fatal error: (?P<path2>\S+): No such)",
        "Correct the line that includes {path} (`#include`, `/include/`, `/incbin/`), or make that file: it does not "
        "exist.",
        before=r"^In file included from ",
        after=2,
    ),
    _sign(
        "device-tree",
        CAUSE,
        r"^(?:Error: )?\S+\.dts[io]?:\d+[.:][-\d.:]* ?(?:Error|syntax error|error|fatal error|ERROR|Label or path|"
        r"Properties must|parse error)|^Error: \S+\.dts[io]?[:.]|^FATAL ERROR: (?:Unable to parse input|Syntax error|"
        r"Couldn't open)|^ERROR \(\w+\): ",
        "Correct the device tree at the place that the line names.",
        after=2,
    ),
    _sign(
        "device-tree",
        CAUSE,
        r"No rule to make target '(?P<path>[^']+\.dtbo?)'",
        "Correct the device tree's name in the defconfig (BR2_LINUX_KERNEL_INTREE_DTS_NAME, or the boot loader's): "
        "there is no source for {path}.",
    ),
    _sign(
        "kernel",
        CAUSE,
        r"^ERROR: modpost: ",
        "Set the kernel options that the named modules need: a symbol that they use is not built or not exported.",
        after=3,
    ),
    _sign(
        "kernel",
        CAUSE,
        r"^BTF: .*(?:pahole|not available)|Failed to generate BTF|^FAILED: load BTF|^depmod: (?:ERROR|FATAL)|"
        r"^(?:Error|ERROR): (?:module|Kernel)|Image '.*' is missing external blobs|^binman: ",
        after=2,
    ),
    _sign(
        "configure-library",
        CAUSE,
        r"[Pp]lease install (?P<library>lib\w+)-dev(?:,| or|$)",
        *_ADD_LIBRARY,
    ),
    # Linking.
    _sign(
        "link-no-library",
        CAUSE,
        r"(?:cannot find|unable to find library|library not found for|"
        r"could not find native static library) '?-l:?(?P<library>[\w.+-]+)",
        "The toolchain does not have lib{toolchain_library}; a static link needs its static form (.a).",
        *_ADD_LIBRARY[2:4],
        "Add the package that provides lib{library} to {variable}_DEPENDENCIES.",
    ),
    _sign("cannot-execute", CAUSE, r"symbol lookup error: "),
    _sign(
        "permission",
        CAUSE,
        r"cannot open output file (?P<path>\S+): Permission denied|"
        r"^PermissionError: \[Errno 13\] Permission denied: '(?P<path2>[^']+)'",
        "Let the user that the build runs as write {path} (`ls -ld` tells whose it is).",
        before=r"^(?:Traceback|\s)",
    ),
    _sign(
        "link-undefined",
        CAUSE,
        r"undefined reference to 'main'$|undefined symbol: main$",
        "No file that is linked has a main function: a source file is missing from the link, or a library is linked as "
        "a program.",
        before=r"in function ",
        after=1,
    ),
    _sign(
        "link-undefined",
        CAUSE,
        r"undefined reference to (?:symbol )?'(?P<symbol>[^'@]+)|undefined symbol: (?P<symbol2>\S+)|"
        r"undefined reference due to",
        "Link with the C++ compiler instead of the C compiler, or add -lstdc++: {cxx_symbol} is in its library.",
        "A source file or a library with the virtual functions of {cxx_class} is missing from the link.",
        "Link with {link_library} ({variable}_CONF_ENV or _MAKE_OPTS: LIBS={link_library}) and add {link_provider} "
        "to {variable}_DEPENDENCIES.",
        "Link with {link_library}.",
        "Compile everything with the toolchain that it is linked with: {newer_symbol} is of a newer C library.",
        "Link with the library that defines {own_symbol}, and add its package to {variable}_DEPENDENCIES; if {symbol} "
        "is the package's own, a source file is missing from the link.",
        before=r"in function ",
        after=3,
    ),
    _sign(
        "link",
        CAUSE,
        r"\(\.(?:bss|data|common)\S*\): multiple definition of '(?P<symbol>[^']+)",
        "Compile {package} with -fcommon, or define {symbol} in one source file only and `extern` in the header: "
        "since GCC 10 each source file that includes such a header has a variable of its own.",
        before=r"in function ",
        after=1,
    ),
    _sign("link", CAUSE, r"multiple definition of '", before=r"in function ", after=1),
    _sign(
        "link",
        CAUSE,
        r"bytecode stream in file '(?P<path>[^']+)' generated with LTO version",
        "Build again from scratch what made {path}: it comes from another version of the compiler.",
    ),
    _sign("link", CAUSE, r"recompile with -f(?:PIC|PIE|pic)", "Compile the named object or library with -fPIC."),
    _sign(
        "link",
        CAUSE,
        r"(?:file not recognized|file in wrong format|[Rr]elocations in generic ELF|incompatible with|"
        r"architecture of input file|DSO missing from command line|cannot find (?:crt\w+|\S+)\.o|"
        r"region '\S+' overflowed|will not fit in region|relocation truncated to fit|final link failed|hidden symbol|"
        r"version node not found|could not read symbols|linker script|cannot find \S+: No such file)",
        before=r"in function ",
    ),
    # Compiling.
    _sign(
        "host-too-old",
        CAUSE,
        r"error: require bison (?P<version>[\d.]+), but have",
        "Use a newer Bison: {version} at least (host-bison, or the build image's).",
    ),
    _sign(
        "compile-other",
        CAUSE,
        r"^(?P<file>[^\s:]+\.java):\d+: error: |^(?P<file2>[^\s:]+\.vala):[\d.-]+: error: |^(?P<file3>[^\s:]+\.(?:y|"
        r"yy|l|ll)):\d+[.\d-]*: (?:error|syntax error|unrecognized|premature)",
        after=3,
    ),
    _sign("compile-fortran", CAUSE, r"^Error: .* at \(\d\)$|^Fatal Error: Cannot open module", after=2),
    _sign(
        "missing-header",
        CAUSE,
        _GCC + r"(?:(?P<library>[^\s:]+): No such file or directory|'(?P<library2>[^']+)' file not found)",
        *_OF_TOOLCHAIN,
        *_ADD_LIBRARY,
        before=_IN,
        after=2,
    ),
    _sign(
        "compile-c",
        CAUSE,
        _GCC + r"implicit declaration of function '(?P<symbol>[^']+)'",
        "Patch {file_name}: drop or refresh {patched_by}, which changes it.",
        "Declare {symbol} before it is used (include {declaring}) by a patch: since GCC 14 a function without a "
        "declaration is an error. -Wno-error=implicit-function-declaration in {variable}'s CFLAGS makes it a warning "
        "again.",
        "Declare {symbol} before it is used (include its header) by a patch: since GCC 14 a function without a "
        "declaration is an error. -Wno-error=implicit-function-declaration in {variable}'s CFLAGS makes it a warning "
        "again.",
        before=_IN,
        after=3,
    ),
    _sign(
        "compile-c",
        CAUSE,
        _GCC + r".*\[-Werror(?:=(?P<warning>[\w+-]+))?\]",
        "Refresh or drop {patched_by}, which changes {file_name}.",
        "Build {package} without -Werror, or with -Wno-error={warning}: a warning of this compiler is treated as an "
        "error.",
        "Build {package} without -Werror: a warning of this compiler is treated as an error.",
        before=_IN,
        after=3,
    ),
    _sign(
        "compile-c",
        CAUSE,
        _GCC,
        "Refresh or drop {patched_by}, which changes {file_name}: it applies, but does not compile with this version "
        "of {package}.",
        "Include {include} in {file_name} by a patch.",
        before=_IN,
        after=3,
    ),
    _sign("compile-c", CAUSE, r"^(?:In file included from )?\S+\.(?:c|h|cc|cpp|hpp)\(\d+\): (?:fatal )?error", after=3),
    _sign(
        "compile-asm",
        CAUSE,
        r"^(?P<file>[^\s:]+):(?P<line>\d+): (?:Error|Fatal error|fatal): (?P<said>.*)|^(?P<file2>[^\s:]+\.(?:s|S|"
        r"asm)):\d+: (?:error|fatal): ",
        before=r"Assembler messages:$",
        after=2,
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"(?:error: (?:unrecognized command[- ]line option|invalid value) |unknown argument:? |"
        r"error: invalid value )'(?:-std=)?(?P<standard>(?:gnu|c)(?:\+\+)?\d\w)'",
        "Use a newer compiler, or an older version of {package}: this compiler does not know the language standard "
        "{standard}.",
    ),
    _sign(
        "compiler-option",
        CAUSE,
        r"error: (?:bad|unknown|invalid) value \(?'(?P<value>[^']+)'\)? (?:for|in) '(?P<option>-m[^']*)'|"
        r"error: unrecognized (?:command[- ]line )?option '(?P<option2>-m[^']+)'",
        "Let the package's build use the target's compiler for the target's code and the build machine's for its own "
        "programs, or correct {option}: this compiler does not know it.",
    ),
    _sign(
        "compiler-option",
        CAUSE,
        r"error: (?:bad|unknown|invalid) value \(?'(?P<value>[^']+)'\)? (?:for|in) '(?P<option>[^']+)'",
        "Correct {option}: this compiler does not know the value {value}.",
    ),
    _sign(
        "compiler-option",
        CAUSE,
        r"error: unrecognized (?:command[- ]line )?option '(?P<option>[^']+)'|"
        r"unknown argument:? '(?P<option2>[^']+)'|error: unsupported (?:option|argument) '(?P<option3>[^']+)'|"
        r"(?:^|[/ ])(?:[\w.]+-)*(?:as|ld|ar)(?:\.\w+)?: unrecognized option '(?P<option4>[^']+)'",
        "Take {option} out of the options of the compiler or linker, which does not know it.",
    ),
    _sign(
        "missing-file",
        CAUSE,
        r"(?:gcc|g\+\+|cc|c\+\+|clang|cc1\w*): (?:fatal )?error: (?P<path>[^:]+): No such file or directory",
    ),
    _sign("compiler", CAUSE, r"(?:gcc|g\+\+|cc|c\+\+|clang|cc1\w*|as|ld|collect2|lto\w*): (?:fatal )?error: "),
    _sign("link", CAUSE, r"^(?:\S*/)?(?:\S+-)?ld(?:\.\w+)?: (?!warning|.*: warning: )"),
    # Scripts and interpreters.
    _sign(
        "missing-tool",
        CAUSE,
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '(?P<tool>[\w.+-]+)'",
        *_ADD_TOOL,
        before=r"^(?:Traceback|\s)",
        amid=r"_execute_child",
    ),
    _sign(
        "compile-other",
        CAUSE,
        r"^(?:Uncaught )?(?:[A-Z]\w*)?Error: ",
        after=3,
        over=r"\s+at \S+.*[:)]",
    ),
    _sign(
        "python",
        CAUSE,
        r"^ModuleNotFoundError: No module named 'distutils(?:[.\w]*)'|^ImportError: No module named distutils",
        "Add host-python-setuptools to {variable}_DEPENDENCIES, or patch the script: Python 3.12 has no distutils "
        "any more.",
        before=r"^(?:Traceback|\s)",
    ),
    _sign(
        "python",
        CAUSE,
        r"^(?:ModuleNotFoundError|ImportError): No module named '(?P<old>(?:imp|asyn(?:core|chat)|smtpd|"
        r"aifc|audioop|cgi|"
        r"cgitb|chunk|crypt|imghdr|lib2to3|mailcap|msilib|nis|nntplib|ossaudiodev|pipes|sndhdr|spwd|sunau|telnetlib|uu|"
        r"xdrlib)(?:\.\w+)*)'",
        "Patch the script, or use a newer version of {package}: newer versions of Python have no {old} any more.",
        "Change the script: newer versions of Python have no {old} any more.",
        before=r"^(?:Traceback|\s)",
    ),
    _sign(
        "python",
        CAUSE,
        r"^(?:ModuleNotFoundError|ImportError|\S*python[\d.]*): No module named '?(?P<module>[\w.]+)",
        "Use a complete, or a newer, Python: this one lacks {own_module}, which is a part of Python.",
        *_NEEDS,
        "Add host-python3 and {provider} to {variable}_DEPENDENCIES, or install the module {module} in the build "
        "image.",
        "Add the host package that provides the Python module {module} to {variable}_DEPENDENCIES, or install it in "
        "the build image.",
        "Install the Python module {module} in the build image.",
        before=r"^(?:Traceback|\s)",
    ),
    _sign(
        "python",
        CAUSE,
        r"^ERROR Missing dependencies:",
        "Add the host packages of the Python modules that are named below to {variable}_DEPENDENCIES.",
        after=5,
    ),
    _sign(
        "python",
        CAUSE,
        r"^ERROR Unmet dependencies",
        "Let Buildroot have versions of the named Python modules that {package} takes, or patch what it demands.",
        after=6,
    ),
    _sign("compile-other", CAUSE, r"^[^\s:]+\.(?:pyx|pxd|pxi):\d+:\d+: (?![Ww]arning|.*[Pp]erformance hint)"),
    _sign(
        "python",
        LIKELY,
        r"^(?:[a-z]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Exit|Interrupt|NotFound|Failure)|SystemExit|StopIteration|"
        r"AssertionError)(?::|$)",
        before=r"^(?:Traceback|\s)",
    ),
    _sign(
        "perl",
        CAUSE,
        r"Can't locate (?P<module>\S+)\.pm in @INC",
        "Install the Perl module that is named in the build image, or add the host package that provides it to "
        "{variable}_DEPENDENCIES.",
        "Install the Perl module that is named in the build image.",
    ),
    _sign(
        "host-too-old",
        CAUSE,
        r"^Perl v?(?P<version>[\d.]+) required--this is only",
        "Use a newer Perl: {version} at least.",
    ),
    _sign(
        "perl",
        CAUSE,
        r"^MakeMaker FATAL: prerequisites not found",
        "Add the host packages of the Perl modules that are named below to {variable}_DEPENDENCIES.",
        after=4,
    ),
    _sign(
        "perl",
        CAUSE,
        r"^(?:syntax error|(?:Can't|Undefined subroutine|Global symbol|Bareword|Missing right|Unmatched) .*) at \S+ "
        r"line \d+|^\S+ version \S+ required--this is only version",
    ),
    _sign(
        "perl",
        LIKELY,
        r"^(?!Use of uninit|Useless use|Subroutine \S+ redefined).* at \S+\.(?:p[lm]|PL|in|t) line \d+\.$",
    ),
    _sign(
        "elixir",
        CAUSE,
        r"^Compilation failed due to warnings while using the --warnings-as-errors option",
        "Correct what the compiler warns of, or compile without --warnings-as-errors.",
        before=r"^\s*warning: |^\s*\d* +\u2502|^\s+\u2514|^\s+\S+\.exs?:\d+|^$",
    ),
    _sign(
        "elixir",
        CAUSE,
        r"(?:^|\] )\*\* \((?:\w+\.?)+\) |^(?:\S*/)?\w+\.[eyhx]rl:\d+(?::\d+)?: (?!Warning)|"
        r"^== Compilation error in file|^\s*error: undefined function|"
        r"^===> (?:Compiling .* failed|Unable|Failed|Error)|escript: exception error|^could not compile dependency",
        after=4,
    ),
    _sign(
        "compile-other",
        CAUSE,
        r"cannot load such file -- |module '\S+' not found:|Error: Cannot find module '|^npm (?:ERR!|error) (?:code|"
        r"Cannot|[a-z]* ?ERR)|LoadError\)|Exception in thread \"main\"",
        after=3,
    ),
    _sign(
        "ccache", CAUSE, r"^ccache: (?:error: )?", "See whether the ccache directory is writable and its disk has room."
    ),
    _sign(
        "cannot-execute",
        CAUSE,
        r"error while loading shared libraries: (?P<needed>[^\s:]+)",
    ),
    _sign(
        "cannot-execute",
        CAUSE,
        r"(?P<path>[^\s:]+): cannot execute: required file not found|(?P<path2>[^\s:]+): (?:/\S+: )?bad interpreter: ",
        "The interpreter that the first line of {path} names is not there: install or build it, or name another one. "
        "A script with Windows' line ends (CR LF) fails so, too.",
    ),
    _sign(
        "cannot-execute",
        CAUSE,
        r": cannot execute(?: binary file)?(?:: |$)|: Exec format error",
        "It is built for another processor or C library, or its interpreter is missing: let the package run a "
        "program of the build machine instead.",
    ),
    # Programs that are not there, or may not be run.
    _sign(
        "missing-host-tool",
        CAUSE,
        r"(?:failed to (?:run command|execute) '?|: line \d+: |"
        r"^exec: )(?P<tool>[\w.+-]+)(?:'?: No such file or directory|"
        r": command not found|: not found)$",
        "Use a build image with {tool} in it.",
        steps=("Downloading", "Extracting"),
    ),
    _sign(
        "missing-host-tool",
        CAUSE,
        r"/support/\S+: line \d+: (?P<tool>[\w.+-]+): command not found$",
        "Use a build image with {tool} in it.",
    ),
    _sign(
        "permission",
        LIKELY,
        r"^(?:\w*make(?:\[\d+\])?|(?:\S*/)?sh: \d+|env): '?(?P<program>[^\s:']+)'?: Permission denied$|"
        r"^(?:\S*/)?(?:ba)?sh: line \d+: (?P<program2>\.{1,2}/[^\s:']+): Permission denied$",
        "Make {program} executable (`chmod +x` in a patch or a hook), or call its interpreter with it.",
    ),
    _sign(
        "command",
        LIKELY,
        r"(?:^|: )(?:line )?\d*:? ?(?P<builtin>source|function|declare|local|typeset|shopt|pushd|popd|let|\[\[|\(\(): "
        r"(?:command )?not found$",
        "`{builtin}` is of bash, and another shell runs the script: let its first line, or who runs it, name bash.",
    ),
    _sign(
        "missing-tool",
        LIKELY,
        r"(?:^|: )(?P<tool>makeinfo): (?:command )?not found$",
        "Let {package} make no documentation, as Buildroot has no makeinfo: MAKEINFO=true in {variable}_CONF_ENV or "
        "{variable}_MAKE_OPTS.",
    ),
    _sign(
        "missing-tool",
        LIKELY,
        r"^(?:\w*make(?:\[\d+\])?): (?P<tool>[^\s:/][^\s:]*): (?:No such file or directory|Command not found)|(?:^|"
        r": )(?:line )?\d*:? ?(?P<tool2>[\w.+/-]+): (?:command not found|not found|Command not found)$|"
        r"^(?:/usr/bin/)?env: '?(?P<tool3>[^':]+)'?: No such file|"
        r"exec: \"(?P<tool4>[^\"]+)\": executable file not found|^(?:which|type): no (?P<tool5>\S+) in|^(?:sudo|"
        r"xargs|nice|time|timeout|nohup|strace|"
        r"fakeroot): (?:failed to run command )?'?(?P<tool6>[^\s':]+)'?: No such file|"
        r"^Could not find the program \['(?P<tool7>[^']+)'|^unable to execute '(?P<tool8>[^']+)': No such file|"
        r"^error: command '(?P<tool9>[^']+)' failed: No such file",
        *_ADD_TOOL,
    ),
    _sign(
        "mk-unknown-dependency",
        CAUSE,
        r"\*\*\* No rule to make target '(?P<target>[^'/]+)', needed by '[^']*/\.stamp_\w+'",
        "Correct {variable}_DEPENDENCIES: there is no package {target}.",
    ),
    _sign(
        "make-no-rule",
        CAUSE,
        r"\*\*\* No rule to make target '(?P<path>[^']+)', needed by '(?P<by>[^']+)'|"
        r"^ninja: error: '(?P<path2>[^']+)', needed by '(?P<by2>[^']+)', missing and no known rule",
        "{no_rule_advice}",
    ),
    _sign(
        "make-no-rule",
        CAUSE,
        r"\*\*\* No rule to make target '(?:(?P<target>[\w-]+)|[^']+)'\.",
        "The package's makefile does not know the target {target}: correct {variable}_MAKE_OPTS or the commands of "
        "the .mk file.",
        steps=("Configuring", "Building", "Installing"),
    ),
    _sign(
        "mk-unknown-dependency",
        CAUSE,
        r"\*\*\* No rule to make target '(?P<target>[^']+)'\.",
    ),
    _sign(
        "make-no-rule",
        CAUSE,
        r"\*\*\* No targets specified and no makefile found|\*\*\* .*: No such file or directory\.  Stop",
    ),
    # Files.
    _sign(
        "missing-file",
        CAUSE,
        r"^cat: (?P<path>\S+): No such file or directory$",
        "Correct the option of the defconfig that names {path} (BR2_ROOTFS_USERS_TABLES, BR2_ROOTFS_DEVICE_TABLE or "
        "BR2_ROOTFS_STATIC_DEVICE_TABLE): it does not exist.",
        steps=("Generating root filesystems common",),
    ),
    _sign(
        "permission",
        LIKELY,
        r"(?P<path>[^\s':]+)'?: Permission denied$",
        "Let the user that the build runs as write {path} (`ls -ld` tells whose it is); for a script, make it "
        "executable.",
    ),
    _sign("permission", LIKELY, r": (?:Permission denied|Operation not permitted)$"),
    _sign(
        "license-file",
        LIKELY,
        r"(?:cannot stat|cannot open) '(?P<path>[^']+)'.*No such file",
        "Correct {plain_variable}_LICENSE_FILES: the source does not have {path}.",
        steps=("Collecting legal info",),
    ),
    _sign(
        "missing-file",
        LIKELY,
        r"(?:cannot (?:stat|open|access|create|remove|read|find|copy|change)|can't (?:open|read|cd|find|stat)|"
        r"failed to (?:create|access|open)|unable to (?:open|stat|access|read)) .*(?:No such file|File exists|"
        r"Is a directory|Not a directory)|^\S+: .*: No such file or directory$|^\S+: can't read \S+: No such",
    ),
    _sign("test", LIKELY, r"^(?:FAIL|XPASS): \S|^\*\*\* \d+ failures? |^FAILED \(|^Tests? failed|^# FAIL: +[1-9]"),
    # Shells, small tools, and any other tool that marks its line as an error.
    _sign("command", LIKELY, r"^scons: \*\*\* (?!\[)"),
    _sign(
        "command",
        CAUSE,
        r"(?:^|/)\w*sh: .*(?:[Ss]yntax error|unexpected EOF|unterminated)|: (?:line )?\d+: [Ss]yntax error",
    ),
    _sign("command", LIKELY, r"^\S+: (?:line )?\d+: .*(?:unbound variable|parameter (?:null or )?not set)$"),
    _sign(
        "command",
        LIKELY,
        r"^(?:\S*/)?(?:sed|g?awk|install|cp|mv|ln|ch(?:mod|own|grp)|mkdir|tar|cpio|rsync|patchelf|(?:\S+-)?(?:strip|"
        r"objcopy|ranlib|ar|nm|readelf|objdump)|m4|bison|flex|gperf|python3?|perl|ruby|msgfmt|xgettext|git|"
        r"touch|truncate|dd|"
        r"mktemp): (?!.*[Ww]arning)",
    ),
    _sign(
        "command",
        LIKELY,
        r"^(?:\*+ ?)?(?:[\w./+ -]{1,60}: )?(?:fatal error|fatal|error|FATAL ERROR|FATAL|Fatal error|ERROR|Error|"
        r"Fatal)(?:\[\w+\])?: \S",
        after=2,
    ),
    _sign(
        "command",
        LIKELY,
        r"^(?:ERROR|FATAL|Error|Fatal)\b[ !:]|^\*\*\* (?:ERROR|Error|FATAL)|^\[?E(?:RROR|rror)\]?[: ]",
        after=2,
    ),
    _sign("command", WEAK, r"^[^\s:]+\.\w{1,6}:\d+(?::\d+)?: (?!\s*(?:[Ww]arning|note|info|installing))"),
    _sign(
        "command",
        WEAK,
        # Not in the name of an option or a file: `-no-undefined`, `error.c`.
        r"(?<![-/=_\w])(?:[Ee]rror|ERROR|[Ff]atal|FATAL|[Ff]ailed|FAILED|[Ff]ailure|"
        r"[Cc]annot|[Cc]an't|[Cc]ould not|[Cc]ouldn't|"
        r"[Uu]nable to|[Nn]ot found|[Nn]o such|[Uu]ndefined|[Ii]nvalid|[Uu]nrecognized|[Uu]nknown|[Mm]issing|"
        r"[Aa]borted|[Aa]borting|[Dd]enied|[Uu]nsupported|[Nn]ot supported|[Mm]ust be|[Rr]equires?)\b(?![-/=.]\w)",
    ),
)
