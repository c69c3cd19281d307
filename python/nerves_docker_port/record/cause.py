"""The cause of a failure, among the lines before the place where it happened.

``failure`` has found the place, ``signs`` knows what tools write of errors, and ``providers`` which package has what is
missing. Here the line is chosen that says why the step failed, and put together with the lines that belong to it and
with the remedy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from nerves_docker_port.record import providers
from nerves_docker_port.record.failure import MakeError, Place
from nerves_docker_port.record.signs import SIGNS, Rank, Sign

MOST_LINES = 10
"""How many lines a cause has at most."""
_LONGEST_LINE = 4096
"""Characters of a line that are looked at and kept."""
_WINDOW = 512 * 1024
"""Bytes of lines before the failure that are kept. A C++ compiler's complaint about one line can have 300 KB."""
_PIECE = 256 * 1024
"""Bytes of one read."""
_LONGEST_WEAK = 1000
"""Characters of a line up to which an error's words alone mean something. Longer ones are commands and data."""
_NEAR = 40
"""Lines before the failure among which an error line is taken for its cause, a compiler's explanations not counted."""
_FAR = 4000
"""Lines before those that are searched for an error that cannot be mistaken."""
_BURST = 25
"""The most lines between two error lines of one burst: other jobs print their lines in between."""
_ABOVE = 400
"""Lines above the decisive one in which a patch's name, an address or a hash file is looked for."""
_OF_CALLERS = frozenset(
    ("python", "perl", "elixir", "compile-rust", "compile-other", "configure-cmake", "configure-meson", "command")
)
"""The kinds of a program that may have run a make itself: ``** (Mix) Could not compile with "make"``."""
_REPORTED = 15
"""The most lines between a failed make and the words of the program that ran it."""
_LONGEST_PREFIX = 256
"""Bytes of what a CI service writes before each line."""
_NOT_PREFIXED = 0.1
"""The part of the lines that may lack the prefix that the others have."""
_MOST_BEFORE = 8
"""The most lines that ``Sign.before`` adds."""
_TRACEBACK = 80
"""The most lines that a Python traceback has above its last line."""
_AMID = 8
"""The lines above that ``Sign.amid`` means."""
_PATCHING = 64 * 1024
"""Bytes of a package's ``Patching`` that are read for the patches that were applied."""


@dataclass(frozen=True)
class Cause:
    """Why a build failed."""

    package: str | None
    """Buildroot's name of the package (``host-`` for one of the build machine); ``None`` where none is to blame."""
    step: str | None
    """The step as Buildroot's headline calls it; ``None`` where it failed outside of all steps."""
    kind: str
    """One of ``signs.KINDS``."""
    lines: tuple[str, ...]
    """The decisive line and what belongs to it, as they are in the log; at most ten."""
    remedy: str | None
    """What to do; ``None`` where that is not certain."""


@dataclass(frozen=True)
class Hit:
    """A line that says something: its index, what it is a sign of, and how it matched."""

    index: int
    sign: Sign
    match: re.Match[str]


_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()].|[@-Z\\^_=>78])")
# In a UTF-8 locale, compilers use the typographic quotation marks U+2018 and U+2019 (double: U+201C, U+201D).
_QUOTES = str.maketrans({"`": "'", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_TIMESTAMP = re.compile(r"^\[?(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?(?: |$)")
_LINE_END = re.compile(rb"\r*\n|\r")

# A compiler's explanations around an error: they do not count as distance.
_EXPLANATION = re.compile(
    r"\s*$|\s*\d* ?\||\S+:\d+(?::\d+)?: note: |\S+:\d+(?::\d+)?:\s+(?:required|instantiated|recursively) |\s+from |"
    r"In file included from |\S+: (?:In |At )|\s+(?:=|-->|\^|~)|\s{4}(?!\s*\S+:\d+:\d+: (?:fatal )?error: )"
)
_MAKE = re.compile(r"(?:^|\W)\w*make(?:\[\d+\])?: \*\*\* ")
_DIRECTORY = re.compile(r"make(?:\[\d+\])?: (?:Entering|Leaving) directory ")
_BARRIER = re.compile(_MAKE.pattern + r"|^>>> |\(ignored\)$")
_NINJA_NEXT = re.compile(r"\[\d+/\d+\] |FAILED: |ninja: ")
# Commands that make and shells print before they run them: an error's words in them are not an error.
_COMMAND = re.compile(
    r"\b(?:echo|printf) [\"'\\-]|\|\| |&& |^\((?:cd|mkdir) |^[A-Z_]+=\S* |^(?:\S*/)?\S*make (?:-|\S+=| |$)|; \\$|"
    r"^\s*\S*(?:gcc|g\+\+|cc|c\+\+|clang|ld|ar)\s.*\s-[cIoWDL]|^(?:rm|rmdir|mkdir|touch|ln|sed|find|for|test|"
    r"\S*/install) -?\S+ "
)
# Lines that have an error's words and are none, ever.
_HARMLESS = re.compile(
    r"\(ignored\)|cannot be preloaded|\b(?:error|ERROR|FAILED|failed) ?\((?:expected|ignored|non-fatal)|"
    r"\b[Nn]o errors?\b|fatal: (?:not a git repository|[Nn]o names found|No (?:annotated )?tags|cannot describe)"
)
# Those that are none unless they also state an error: a job's error can follow another's unfinished line.
_USUAL = re.compile(
    r"^(?:checking |-- |PASS: |XFAIL: |SKIP: |ok \d|note: |hint: |Checking |Run-time dependency|Program \S+ found|"
    r"\s+(?:CC|CXX|LD|AR|GEN|HOSTCC|AS|INSTALL|UPD)\s|configure: WARNING|config\.status: |"
    r"libtool: (?:install|link|compile): )|\b0 errors|[Ww]arning: "
)
_STATES_ERROR = re.compile(r"[Ee]rror: |ERROR: |error\[|Error: |spurious network error")

# GCC's notes: which header has what is not declared.
_INCLUDE = re.compile(
    r"note: '[^']+' is defined in header '(<[^>]+>)'|note: include '(<[^>]+>)' or provide a declaration"
)
_PROGRAM_OF_CMAKE = re.compile(r"\(missing:[^)]*(?:EXECUTABLE|Interpreter)")
_TOO_OLD = re.compile(r"but (?:the )?version of \S+ is|unsuitable version|[Ii]nvalid version|but required is at least")

_MAY_NOT_BE_RUN = ("Make {path} executable (`chmod +x`), or call its interpreter with it.",)
_OF_LIBSTDCXX = re.compile(
    r"(?:(?:vtable|typeinfo) for )?(?:std::|operator (?:new|delete)|__cxa_|__gxx_|__cxxabiv1::).*"
)
"""What only the library of the C++ compiler defines."""

_LANGUAGES = {
    **dict.fromkeys(("cc", "cpp", "cxx", "C", "c++", "hh", "hxx", "ipp", "tcc", "ii"), "compile-cxx"),
    **dict.fromkeys(("s", "S", "asm"), "compile-asm"),
    **dict.fromkeys(("f", "f90", "F", "F90", "f95", "for"), "compile-fortran"),
    **dict.fromkeys(("dts", "dtsi"), "device-tree"),
    **dict.fromkeys(("rs",), "compile-rust"),
    **dict.fromkeys(("go",), "compile-go"),
    **dict.fromkeys(("java", "vala", "m", "mm", "d", "proto", "zig", "adb", "ads"), "compile-other"),
}
_CXX = re.compile(r"\.(?:cc|cpp|cxx|C|hpp|hh)\b|/c\+\+/|g\+\+|\bCXX\b")
_LANGUAGE_OPTIONS = {
    "OpenMP": "BR2_TOOLCHAIN_EXTERNAL_OPENMP",
    "C++": "BR2_TOOLCHAIN_EXTERNAL_CXX",
    "D language": "BR2_TOOLCHAIN_EXTERNAL_DLANG",
    "Fortran": "BR2_TOOLCHAIN_EXTERNAL_FORTRAN",
}


def find_cause(log: BinaryIO, place: Place) -> Cause:
    """The cause of the failure at ``place``: always an answer, the step's last lines if nothing looks like an error.

    Reads at most some 600 KB of ``log``. Raises ``OSError``.
    """
    return _Search(log, place).cause()


def find_cause_in_text(text: bytes, step: str, kinds: Collection[str]) -> Cause | None:
    """The most certain line of one of ``kinds``, outside of any package; for output that no make has written.

    ``step`` is the one whose signs count; the answer has none.
    """
    lines = split_lines(text)
    plain = [to_plain(line) for line in lines]
    hits = [Hit(index, *found) for index in range(len(plain)) if (found := _match(plain, index, step))]
    hit = min((hit for hit in hits if hit.sign.kind in kinds), key=lambda hit: hit.sign.rank, default=None)
    if hit is None:
        return None
    fields = _without_digits(hit.match) | _found_above(plain[: hit.index])
    below = lines[hit.index : hit.index + 1 + hit.sign.after]
    return Cause(None, None, hit.sign.kind, tidy(below), fill(hit.sign.remedies, fields))


class _Search:
    def __init__(self, log: BinaryIO, place: Place) -> None:
        self._log = log
        self._place = place
        self._step = place.step or ""
        self._lines = _lines_before(log, place.begin, place.end)
        self._plain = _without_prefix([to_plain(line) for line in self._lines], _prefix(log, place.last))

    def cause(self) -> Cause:
        """Look from the most certain to the least."""
        place = self._place
        if place.inner.is_interruption:
            return self._interrupted()
        own = _match([to_plain(place.inner.text)], 0, self._step)
        if not (place.others_ran or place.inner is place.outer):
            # Nothing more should be said when a make has failed, unless the package ignored that.
            later = _Search(self._log, replace(place, begin=place.inner.end, end=place.outer.offset, inner=place.outer))
            hit = later._choose()
            if hit and hit.sign.rank <= Rank.CAUSE and not self._is_reported(later, hit):
                return later._complete(hit)
        if not place.inner.status:
            return self._in_makefile(own)
        hit = self._choose()
        if place.outer.is_interruption and (hit is None or hit.sign.rank > Rank.CAUSE):
            return self._interrupted()
        if own and own[0].rank <= Rank.CAUSE and (hit is None or hit.sign.rank > Rank.CAUSE):
            return self._in_makefile(own)
        return self._complete(hit) if hit else self._last_lines()

    def _is_reported(self, later: _Search, hit: Hit) -> bool:
        """Whether ``hit``, after the failed make, is how the program that ran that make reports its failure."""
        if hit.sign.kind not in _OF_CALLERS:
            return False
        between = [line for line in later._plain[: hit.index] if _is_said(line) and not _EXPLANATION.match(line)]
        if len(between) > _REPORTED:
            return False
        own = self._choose()
        return not self._place.inner.status or (own is not None and own.sign.rank <= Rank.LIKELY)

    # Choosing the line

    def _choose(self) -> Hit | None:
        if self._step == "Downloading":
            return self._first_of_download()
        near, looked_at = self._near()
        if any(line.startswith("ninja: build stopped") for line in self._plain[-_NEAR:]):
            near = self._of_ninja() or near
        certain = [hit for hit in near if hit.sign.rank <= Rank.CAUSE]
        if self._place.inner.status in ("Error 126", "Error 127"):
            # The shell could not run a program: that is the last thing it said.
            absent = [hit for hit in near if hit.sign.kind in ("missing-tool", "cannot-execute", "permission")]
            certain = absent[-1:] or certain
        if certain:
            return self._more_specific(self._first_of_burst(certain))
        likely = [hit for hit in near if hit.sign.rank == Rank.LIKELY]
        if likely:
            return self._first_of_burst(likely)
        far = self._far(looked_at)
        if far:
            return self._more_specific(self._first_of_burst(far))
        return near[-1] if near else None

    def _hit(self, index: int) -> Hit | None:
        matched = _match(self._plain, index, self._step)
        return Hit(index, *matched) if matched and matched[0].rank != Rank.FOLLOWS else None

    def _first_of_download(self) -> Hit | None:
        """A download is tried at several addresses: the first failure counts, and a wrong hash more than all others."""
        begin = 0
        for index, line in enumerate(self._plain):
            if ": OK (" in line or line.startswith("WARNING: no hash file for"):
                begin = index + 1
        hits = [hit for index in range(begin, len(self._plain)) if (hit := self._hit(index))]
        return min(
            hits, key=lambda hit: (hit.sign.rank, not hit.sign.kind.startswith("hash-"), hit.index), default=None
        )

    def _near(self) -> tuple[list[Hit], int]:
        """The hits just before the failure, in the log's order, and the index of the first line that was looked at."""
        hits: list[Hit] = []
        distance = since_last = 0
        index = len(self._plain)
        while index and (distance < _NEAR or (hits and since_last < _BURST)):
            index -= 1
            if _EXPLANATION.match(self._plain[index]):
                continue
            distance += 1
            hit = self._hit(index)
            if hit:
                hits.append(hit)
            since_last = 0 if hit and hit.sign.rank <= Rank.CAUSE else since_last + 1
        return hits[::-1], index

    def _of_ninja(self) -> list[Hit]:
        """ninja prints a failed job's output after ``FAILED:``, and then the outputs of the jobs that still ran."""
        for index, line in enumerate(self._plain):
            if line.startswith("FAILED: "):
                end = index + 1
                while end < len(self._plain) and not _NINJA_NEXT.match(self._plain[end]):
                    end += 1
                hits = [hit for at in range(index + 1, end) if (hit := self._hit(at))]
                best = min((hit.sign.rank for hit in hits), default=Rank.WEAK)
                return [hit for hit in hits if hit.sign.rank == best][:1]
        return []

    def _far(self, end: int) -> list[Hit]:
        hits: list[Hit] = []
        for index in range(end - 1, max(-1, end - _FAR), -1):
            hit = self._hit(index)
            if hit and hit.sign.rank <= Rank.CAUSE:
                hits.append(hit)
            elif hits and hits[-1].index - index > _BURST:
                break
        return hits[::-1]

    def _first_of_burst(self, hits: Sequence[Hit]) -> Hit:
        """The last hit is in the burst that ended the step. Its first is the cause: the others follow from it.

        What the machine says (no memory, a full disk) goes before what a tool makes of it.
        """
        burst = [hits[-1]]
        for hit in reversed(hits[:-1]):
            between = self._plain[hit.index + 1 : burst[-1].index]
            if sum(not _EXPLANATION.match(line) for line in between) > _BURST:
                break
            if any(_BARRIER.search(line) for line in between):
                break
            burst.append(hit)
        return next((hit for hit in reversed(burst) if hit.sign.rank == Rank.ENVIRONMENT), burst[-1])

    def _more_specific(self, hit: Hit) -> Hit:
        """Some tools tell the place in one line and what is wrong in one of the next, such as CMake: that says more."""
        if not hit.sign.opens:
            return hit
        for index in range(hit.index + 1, min(hit.index + 12, len(self._plain))):
            if self._plain[index].startswith(("CMake ", "-- ", "Call Stack")):
                break
            inner = self._hit(index)
            if inner and inner.sign.rank <= Rank.CAUSE:
                return inner
        return hit

    # Making the answer

    def _complete(self, hit: Hit) -> Cause:
        first = last = hit.index
        if hit.sign.under:
            first = next(at for at in range(first - 1, -1, -1) if self._plain[at].startswith(hit.sign.under))
        while (
            hit.sign.before
            and first
            and hit.index - first < _MOST_BEFORE
            and hit.sign.before.search(self._plain[first - 1])
        ):
            first -= 1
        while last - hit.index < hit.sign.after and last + 1 < len(self._plain) and self._goes_on(last + 1):
            last += 1
        return self._finish(hit, self._lines[max(first, last - MOST_LINES + 1, 0) : last + 1])

    def _goes_on(self, index: int) -> bool:
        """Whether the error's own output goes on in this line: a single empty line does not end it."""
        line = self._plain[index]
        if not line.strip():
            return bool(self._plain[index - 1].strip())
        return not (_BARRIER.search(line) or _NINJA_NEXT.match(line) or line.startswith(("wget ", "--20")))

    def _finish(self, hit: Hit, lines: Sequence[str]) -> Cause:
        place, sign = self._place, hit.sign
        fields = self._fields(hit)
        kind, remedy = sign.kind, fill(sign.remedies, fields)
        if kind == "compile-c":
            kind = self._language(hit)
        if kind == "permission" and place.inner.status == "Error 126" and "path" in fields:
            # The shell's status of a program that is there but may not be run.
            remedy = fill(_MAY_NOT_BE_RUN, fields)
        if self._step.startswith("Executing") and kind in ("command", "missing-file", "unknown"):
            kind, remedy = "post-script", self._remedy_of_script(lines)
        elif self._step.startswith("Generating filesystem") and kind in ("command", "missing-file", "unknown"):
            kind = "image"
        package = place.package or fields.get("owner") or _package_of_makefile(place.inner.makefile)
        return Cause(package, place.step, kind, tidy(lines), remedy)

    def _interrupted(self) -> Cause:
        place = self._place
        sign = next(sign for sign in SIGNS if sign.kind == "interrupted")
        lines = dict.fromkeys(error.text for error in (place.inner, place.outer) if error.is_interruption)
        return Cause(place.package, place.step, sign.kind, tidy([*lines]), fill(sign.remedies, {}))

    def _in_makefile(self, own: tuple[Sign, re.Match[str]] | None) -> Cause:
        """make's own line is the cause: an error in a makefile, a missing rule, a recipe that was killed."""
        place = self._place
        if own:
            return self._finish(Hit(len(self._plain), *own), [place.inner.text])
        kind = "command"
        if place.inner.makefile and place.step is None:
            # Buildroot itself complains (`$(error ...)`), in its package infrastructure or about the configuration.
            kind = "package" if "/pkg-" in place.inner.makefile else "config"
        package = place.package or _package_of_makefile(place.inner.makefile)
        return Cause(package, place.step, kind, tidy([place.inner.text]), None)

    def _last_lines(self) -> Cause:
        """Nothing looks like an error: what the step printed last."""
        place = self._place
        said = [line for line, plain in zip(self._lines, self._plain, strict=True) if _is_said(plain)][-3:]
        kind, remedy = "unknown", None
        if place.inner.status in ("Error 137", "Killed"):
            kind = "killed"
            remedy = fill(next(sign for sign in SIGNS if sign.kind == kind).remedies, {})
        elif self._step.startswith("Executing"):
            kind, remedy = "post-script", self._remedy_of_script(said)
        elif self._step.startswith("Generating filesystem"):
            kind = "image"
        return Cause(place.package, place.step, kind, tidy([*said, place.inner.text]), remedy)

    def _remedy_of_script(self, lines: Sequence[str]) -> str:
        script = self._place.headline.rpartition(" ")[2]
        if any(line.endswith(f"{script}: No such file or directory") for line in lines):
            return f"Correct BR2_ROOTFS_POST_..._SCRIPT in the defconfig: {script} does not exist."
        for line in lines:
            option = re.search(
                r"(?:select|enable|set|needs?|requires?|add|missing|without)\W+(BR2_\w+)", line, re.IGNORECASE
            )
            if option:
                return f"Set {option[1]} in the defconfig, as {script} demands."
        return f"Correct {script}, or what it needs: the script ended with an error."

    # What remedies can name

    def _fields(self, hit: Hit) -> dict[str, str]:
        fields = _without_digits(hit.match)
        package = self._place.package or fields.get("owner")
        above = self._plain[max(0, hit.index - _ABOVE) : hit.index]
        if package:
            fields |= {"package": package, "variable": _variable(package)}
            fields["plain_variable"] = _variable(package.removeprefix("host-"))
        for name in ("owner", "needed"):
            if name in fields:
                fields[f"{name}_variable"] = _variable(fields[name])
        if "makefile" in fields:
            fields["makefile_name"] = fields["makefile"].rpartition("/")[2]
        if "file" in fields:
            fields["file_name"] = _below_build(fields["file"])
            patch = self._patch_of(fields["file"])
            fields |= {"patched_by": patch} if patch else {}
        if fields.get("what") in _LANGUAGE_OPTIONS:
            fields["option"] = _LANGUAGE_OPTIONS[fields["what"]]
        if "by" in fields:
            fields["no_rule_advice"] = _no_rule_advice(fields)
        fields = _found_above(above) | fields
        if hit.sign.kind == "hash-mismatch":
            fields["hash_advice"] = _hash_advice(fields, above)
        fields |= self._provided(hit, fields, package)
        for line in self._plain[hit.index : hit.index + 8]:
            if included := _INCLUDE.search(line):
                fields["include"] = fields["declaring"] = included[1] or included[2]
        if "library" in fields and any(_TOO_OLD.search(line) for line in self._plain[hit.index : hit.index + 5]):
            fields["too_old"] = fields["library"]
        return fields

    def _provided(self, hit: Hit, fields: Mapping[str, str], package: str | None) -> dict[str, str]:
        """What is known of the missing library, program, module or function: its package, its header."""
        for_host = package is not None and package.startswith("host-")
        found: dict[str, str] = {}
        provider = None
        if of := self._of_toolchain(hit, fields):
            # For the build machine it is not a toolchain's: nothing that fits is known.
            found |= {} if for_host and of.endswith("_header") else {of: fields["library"]}
        elif "library" in fields:
            names = [name for name in re.split(r"\s*[<>=]+\s*\S+|[\s,]+", fields["library"]) if name]  # `a >= 1.2 b`
            found["library"] = " and ".join(names)
            if _PROGRAM_OF_CMAKE.search(hit.match.string):
                provider = providers.program(fields["library"].lower())
            else:
                packages = {providers.library(name, for_host=for_host) for name in names}
                provider = packages.pop() if len(packages) == 1 else None
                if not self._is_doubtful(hit, names):
                    found["unknown_library"] = found["library"]
        elif "macro" in fields:
            provider = providers.m4_macro(fields["macro"])
        elif "tool" in fields:
            # A program of the package's own, such as `./libtool`, is not another package's.
            provider = None if fields["tool"].startswith(".") else providers.program(fields["tool"])
            found["tool"] = fields["tool"].rpartition("/")[2]
            if "/" not in fields["tool"]:
                found["unknown_tool"] = fields["tool"]
        elif "module" in fields:
            provider = providers.python_module(fields["module"])
            if fields["module"].partition(".")[0] in sys.stdlib_module_names:
                found["own_module"] = fields["module"]
        elif "symbol" in fields:
            header = providers.declaring_header(fields["symbol"])
            found |= {"declaring": f"<{header}>"} if header else {}
            if not fields["symbol"].startswith("__"):  # These are the compiler's and the C library's.
                found["own_symbol"] = fields["symbol"]
            elif fields["symbol"].startswith("__isoc23_"):
                found["newer_symbol"] = fields["symbol"]
            if standard := _OF_LIBSTDCXX.match(fields["symbol"]):
                found["cxx_symbol"] = standard[0]
            elif virtual := re.match(r"(?:vtable|typeinfo) for (.+)", fields["symbol"]):
                found["cxx_class"] = virtual[1]
            if linked := providers.symbol(fields["symbol"]):
                found["link_library"] = linked[0]
                if linked[1]:
                    found["link_provider"] = f"host-{linked[1]}" if for_host else linked[1]
        if provider and (needed := providers.option(package or "", provider)):
            found |= {"provider": f"host-{provider.removeprefix('host-')}", "needs_option": needed}
        elif provider and provider != package:
            found["provider"] = provider
            if not provider.startswith("host-"):
                found["provider_option"] = f"BR2_PACKAGE_{_variable(provider)}"
        return found

    def _is_doubtful(self, hit: Hit, names: Sequence[str]) -> bool:
        """Whether what is missing may be no library of another package at all."""
        if hit.sign.kind == "missing-header":
            # With quotation marks, a header is meant to be one of the package's own.
            return any('#include "' in line for line in self._plain[hit.index : hit.index + 3])
        if hit.sign.kind == "configure-library":
            # Prose: only a name that looks like a library's or a header's is certainly one.
            return not all(re.fullmatch(r"lib[\w.+-]+|[\w/.+-]+\.h", name) for name in names)
        return any(name.lower() in ("threads", "openmp") for name in names)

    def _of_toolchain(self, hit: Hit, fields: Mapping[str, str]) -> str | None:
        """The field for a header file or library that no package has, because it is a part of the toolchain."""
        name = fields.get("library", "")
        if hit.sign.kind == "link-no-library":
            return "toolchain_library" if providers.is_of_toolchain(name) else None
        if hit.sign.kind != "missing-header" or self._is_doubtful(hit, [name]):
            return None
        if providers.is_of_kernel(name):
            return "kernel_header"
        if providers.is_of_c_library(name):
            return "libc_header"
        return "cxx_header" if re.fullmatch(r"[a-z_]+", name) else None

    def _patch_of(self, file: str) -> str | None:
        """The patch that changed ``file`` when the package was patched in this log."""
        begin = self._place.patching
        if begin is None:
            return None
        patch, found = "", None
        for line in map(to_plain, split_lines(_read(self._log, begin, begin + _PATCHING))[1:]):
            if ">>> " in line:
                break
            if applied := re.match(r"Applying (\S+) using", line):
                patch = applied[1]
            elif (patched := re.match(r"patching file '?([^\s']+)", line)) and _is_same_file(patched[1], file):
                found = patch or found
        return found

    def _language(self, hit: Hit) -> str:
        file = hit.match["file"]
        suffix = file.rpartition(".")[2]
        if suffix in _LANGUAGES:
            return _LANGUAGES[suffix]
        around = " ".join([file, *self._plain[max(0, hit.index - 30) : hit.index + 10]])
        return "compile-cxx" if suffix != "c" and _CXX.search(around) else "compile-c"


def _match(lines: Sequence[str], index: int, step: str) -> tuple[Sign, re.Match[str]] | None:
    """The first sign that fits one of the plain lines of ``step``."""
    line, above = lines[index], lines[max(0, index - _TRACEBACK) : index]
    usual = _USUAL.search(line) or _COMMAND.search(line)
    if _HARMLESS.search(line) or (usual and not _STATES_ERROR.search(line)):
        return None
    for sign in SIGNS:
        if sign.steps and not step.startswith(sign.steps):
            continue
        match = sign.pattern.search(line)
        if match is None or (sign.under and not _is_under(sign.under, above)):
            continue
        if sign.over and not any(sign.over.match(below) for below in lines[index + 1 : index + 2]):
            continue
        if sign.amid and not any(map(sign.amid.search, above[-_AMID:])):
            continue
        if sign.rank == Rank.WEAK and len(line) > _LONGEST_WEAK:
            return None
        if sign.kind == "python" and any(one.startswith("Traceback (most recent") for one in above):
            return replace(sign, rank=Rank.CAUSE), match
        return sign, match
    return None


def _is_under(opening: str, above: Sequence[str]) -> bool:
    """Whether the message that this line is in was opened by ``opening``; a tool's messages begin with its name."""
    tool = opening.partition(" ")[0]
    return any(line.startswith(opening) for line in [line for line in above[-10:] if line.startswith(tool)][-1:])


def _found_above(above: Sequence[str]) -> dict[str, str]:
    """The nearest patch, hash file, address and archive that the lines above the decisive one name."""
    patterns = {
        "patch": r"^Applying (\S+) using",
        "hash_file": r"^ERROR: while checking hashes from (\S+)",
        "url": r"^--\d{4}-\d\d-\d\d [\d:]+--  (?:\(try: *\d+\)  )?(\S+)|^wget .* '(\w+://[^']+)'|"
        r"git remote (?:add|set-url) origin '([^']+)'|^(?:curl|svn|hg|scp|git clone) .*?(\w+://[^\s']+)",
        "library": r"^--\s+(?:No package '([^']+)' found|Package '([^']+)'.* not found)",
        "archive": r"/([^/\s']+\.(?:tar|tgz|tbz2?|txz|zip|gz|xz|bz2|lz|zst|cpio)[.\w]*)\b",
    }
    found: dict[str, str] = {}
    for line in reversed(above):
        for name in [name for name in patterns if name not in found]:
            match = re.search(patterns[name], line)
            if match:
                found[name] = next(filter(None, match.groups()))
        if len(found) == len(patterns) or line.startswith(">>> "):
            break
    if "url" in found:
        host = re.search(r"^(?!file:)\w+://(?:[^/@]*@)?([^/:]+)", found["url"])
        found |= {"host": host[1]} if host else {}
    return found


def _hash_advice(fields: Mapping[str, str], above: Sequence[str]) -> str:
    file, hash_file = fields["file"], fields.get("hash_file", "the package's .hash file").rpartition("/")[2]
    fetched = any(line.startswith(("wget ", "--20", "curl ", "git ", "GIT_DIR=")) for line in above)
    if fetched:
        return (
            f"The file at its address is not the one that {hash_file} describes. See what was changed there; if the "
            f"new file is right, put its hash into {hash_file}. Failed mirrors afterwards are not the cause."
        )
    return (
        f"The {file} in the download directory is damaged or another one, and {hash_file} tells so. Delete it there "
        f"and build again with a network; if what is then downloaded is refused too, update {hash_file}."
    )


def _no_rule_advice(fields: Mapping[str, str]) -> str:
    wanted, by = fields["path"], fields["by"]
    if wanted.startswith("/"):
        return f"{wanted} does not exist, but {by} is made from it: correct the path, or make the file."
    return (
        f"The source of {wanted} is not in the package, or the makefile misspells it: patch the makefile, or use a "
        "complete archive."
    )


def _package_of_makefile(makefile: str) -> str | None:
    """The package whose .mk file this is: Buildroot wants it in ``name/name.mk``. system/system.mk and fs/ext2/ext2.mk
    are none's."""
    match = re.search(r"(?:^|/)(?<!fs/)(?P<package>(?!(?:system|arch|fs)/)[^/]+)/(?P=package)\.mk$", makefile)
    return match["package"] if match else None


def _variable(package: str) -> str:
    """The beginning of the package's variables in its .mk file."""
    return package.upper().replace("-", "_").replace(".", "_")


def _is_same_file(patched: str, compiled: str) -> bool:
    """Whether a patch's file, relative to the package's sources, is the one that a compiler names."""
    return f"/{compiled}".endswith(f"/{patched}") or f"/{patched}".endswith("/" + compiled.lstrip("./"))


def _below_build(path: str) -> str:
    """A path as the package's sources have it, without the directory in which it is built."""
    return re.sub(r"^.*/build/[^/]+/", "", path)


def _without_digits(match: re.Match[str]) -> dict[str, str]:
    """The groups of a match; a pattern's alternatives call theirs `path`, `path2` ..."""
    return {name.rstrip("0123456789"): value for name, value in match.groupdict().items() if value}


def fill(templates: Iterable[str], fields: Mapping[str, str]) -> str | None:
    """The first of the templates whose fields are all known, filled."""
    known = (template for template in templates if fields.keys() >= {*re.findall(r"{(\w+)}", template)})
    template = next(known, None)
    return template.format_map(fields) if template else None


def _is_said(plain: str) -> bool:
    return bool(plain.strip()) and not any(one.search(plain) for one in (_COMMAND, _BARRIER, _DIRECTORY))


def to_plain(line: str) -> str:
    """``line`` as the patterns want it: no escape sequences, one sort of quotation mark, no time before it."""
    return _TIMESTAMP.sub("", without_escapes(line).translate(_QUOTES).rstrip())


def _prefix(log: BinaryIO, error: MakeError) -> str:
    """What stands before make's own words in a line: a CI service may write its own before every line of a log."""
    before = _read(log, max(0, error.offset - _LONGEST_PREFIX), error.offset)
    # Without a prefix, the line before ends here.
    if not before or before.endswith((b"\n", b"\r")):
        return ""
    return to_plain(f"{split_lines(before)[-1]}|")[:-1]


def _without_prefix(plain: Sequence[str], prefix: str) -> list[str]:
    """The lines without ``prefix``, whose numbers may be others in each line, if almost all of them begin with it."""
    if not prefix:
        return [*plain]
    shown = prefix.rstrip()
    numbered = re.sub(r"\d+", r"\\d+", re.escape(shown))
    begin = re.compile(f"{numbered}(?:$|{re.escape(prefix[len(shown) :])})")
    shortened = [begin.sub("", line, count=1) if begin.match(line) else None for line in plain]
    # The first line begins at a headline, behind its prefix.
    if shortened[1:].count(None) > _NOT_PREFIXED * len(plain):
        return [*plain]
    return [line if line is not None else whole for line, whole in zip(shortened, plain, strict=True)]


def without_escapes(text: str) -> str:
    """``text`` without the sequences that a terminal acts on."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def split_lines(text: bytes) -> list[str]:
    """Lines, also those that a carriage return ends, each as far as it can matter."""
    lines = [line[:_LONGEST_LINE].decode("utf-8", "replace") for line in _LINE_END.split(text)]
    return lines[:-1] if not lines[-1] else lines


def tidy(lines: Sequence[str]) -> tuple[str, ...]:
    """At most ``MOST_LINES``, without empty ones at either end."""
    chosen = list(lines[:MOST_LINES])
    while chosen and not chosen[-1].strip():
        chosen.pop()
    while chosen and not chosen[0].strip():
        chosen.pop(0)
    return tuple(chosen)


def _lines_before(log: BinaryIO, begin: int, end: int) -> list[str]:
    """The last lines between two offsets, as many as ``_WINDOW`` allows; of a huge line only its beginning."""
    found: list[list[str]] = []
    kept, unfinished = 0, b""
    while end > begin and kept < _WINDOW:
        first = max(begin, end - _PIECE)
        piece = _read(log, first, end) + unfinished
        end = first
        # The first line of a piece may have begun before it.
        at = 0 if first == begin else piece.find(b"\n") + 1 or len(piece)
        unfinished = piece[: min(at, 4 * _LONGEST_LINE)]
        found.append(split_lines(piece[at:]))
        kept += len(piece) - at
    return [line for lines in reversed(found) for line in lines]


def _read(log: BinaryIO, begin: int, end: int) -> bytes:
    log.seek(begin)
    return log.read(max(0, end - begin))
