"""Makes the report of a build from its journal, as text, as JSON or as a page (``page``), and the list of the builds.

Code calls ``report``, and ``main`` is the command. ``times`` computes the times.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from nerves_docker_port import errors
from nerves_docker_port.printing import printable
from nerves_docker_port.record import journal, times
from nerves_docker_port.record.journal import Build
from nerves_docker_port.record.times import Change, Times
from nerves_docker_port.request.report import ReportRequest
from nerves_docker_port.text import duration, size

SLOWEST = 15
"""How many packages the text names."""
CHANGES = 10
"""How many packages the text names in each group of the comparison."""
NO_CHANGE = "No package is new or gone, and none took noticeably longer or shorter."
_WIDTH = 100
_BAR = 30
_BELOW = (".nerves/artifacts/*/journal", "artifacts/*/journal", "*/journal", "journal")
"""Where the journals are below a package's directory, and below each directory between the two."""
_FLOWS = ("build", "archive")
"""The flows that a report can be made of. The others build nothing."""


def report(wanted: ReportRequest) -> str:
    """Return the report that was asked for, as text or JSON, and write the page if it was asked for.

    Raises ``RunnerError`` if there is no journal or no such build, or the page cannot be written.
    """
    builds = [build for build in find(wanted.where) if build.began is not None and build.began.flow in _FLOWS]
    if not builds:
        raise errors.no_journal(str(wanted.where))
    if wanted.only_list:
        return _list_as_json(builds) if wanted.as_json else _list_as_text(builds)
    found = _chosen(builds, wanted.build)
    if wanted.html is not None:
        # Imported here to save time, because a build also uses this module, but without the page.
        from nerves_docker_port.record import page

        page.write(found, wanted.html)
    if wanted.as_json:
        return to_json(found)
    text = to_text(found)
    return text if wanted.html is None else f"{text}\n\nThe page is {wanted.html}."


def find(where: Path) -> list[Build]:
    """Return the contents of the journals at ``where`` (see ``ReportRequest``), the latest first."""
    paths = [where] if where.is_file() else journal.files(where)
    if not paths:
        kept = [directory for below in _BELOW for directory in where.glob(below)]
        paths = [path for directory in kept for path in journal.files(directory)]
    paths.sort(key=lambda path: path.name, reverse=True)
    return [build for path in paths if (build := journal.read(path)) is not None]


def times_of(path: Path) -> Times | None:
    """Return the times of the build with the journal ``path``, compared with the build before it."""
    build = journal.read(path)
    if build is None:
        return None
    earlier = (journal.read(other) for other in journal.files(path.parent) if other.name < path.name)
    return times.of(build, (other for other in earlier if other is not None and _package(other) == _package(build)))


def _chosen(builds: Sequence[Build], wanted: str) -> Times:
    for index, build in enumerate(builds):
        if build.opened.id.startswith(wanted) if wanted else _flow(build) == "build":
            return _compared(builds, index)
    if wanted:
        raise errors.no_such_build(wanted)
    return _compared(builds, 0)


def _compared(builds: Sequence[Build], index: int) -> Times:
    build = builds[index]
    return times.of(build, [other for other in builds[index + 1 :] if _package(other) == _package(build)])


def _flow(build: Build) -> str:
    return build.began.flow if build.began else ""


def _package(build: Build) -> str:
    return build.began.package if build.began else ""


# --- Words -----------------------------------------------------------------------------------------------------


def title(found: Times) -> str:
    """Return one line: what was done, how it ended, and how long it took."""
    build = found.build
    name = " ".join(word for word in (_package(build), build.began.package_version if build.began else "") if word)
    done = {"build": "built", "archive": "packed"}.get(_flow(build), _flow(build))
    if times.is_well(build):
        return f"{name}: {done} in {duration(found.seconds)}"
    return f"{name}: {_how_it_ended(build)} after {duration(found.seconds)}"


def _outcome(build: Build) -> str:
    if build.ended is not None:
        return build.ended.outcome
    return "under way" if journal.is_open(build.path) else "killed"


def _how_it_ended(build: Build) -> str:
    outcome = _outcome(build)
    return outcome if outcome in ("under way", "killed", "cancelled") else f"failed ({outcome})"


def facts(found: Times) -> list[tuple[str, str]]:
    """Return the facts about the build, in pairs of a name and a text."""
    build = found.build
    pairs = [("Began", moment(build.opened_at)), ("Build", build.opened.id)]
    if build.engine is not None:
        engine = build.engine
        memory = size(engine.memory)
        about = f"{engine.architecture}, {engine.cpus} CPUs, {memory}"
        pairs.append(("Engine", f"{engine.version} at {engine.endpoint} ({about})"))
    if build.image is not None:
        pairs.append(("Image", f"{build.image.tag} ({build.image.digest or build.image.id})"))
    if build.workspace is not None:
        pairs.append(("Volume", f"{build.workspace.volume} (workspace {build.workspace.kind})"))
    if build.began is not None and build.began.make_args:
        pairs.append(("make", " ".join(build.began.make_args)))
    if build.artifact is not None:
        pairs.append(("Artifact", f"{build.artifact.path} ({size(build.artifact.size)})"))
        pairs.append(("SHA-256", build.artifact.sha256))
    if build.ccache is not None:
        pairs.append(("Compiler cache", _ccache(build.ccache)))
    if build.began is not None and build.began.log:
        pairs.append(("Log", build.began.log))
    pairs.append(("Helper", build.opened.helper))
    return pairs


def _ccache(cache: journal.Ccache) -> str:
    compiled = cache.hits + cache.misses
    if compiled == 0:
        return "nothing was compiled"
    text = f"{100 * cache.hits / compiled:.0f} % hits ({cache.hits} of {compiled})"
    return text if cache.remote_hits is None else f"{text}, {cache.remote_hits} of them remote"


def moment(at: float) -> str:
    """Return a time as text, in the time zone of this machine."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def stages(build: Build) -> list[tuple[str, float | None]]:
    """Return the stages and their seconds, ``None`` for a stage that did not succeed."""
    return [(stage.name, None if stage.ended is None else stage.ended - stage.began) for stage in build.stages]


def change(each: Change) -> str:
    """Return a text such as ``10 s -> 20 s (+100 %)``."""
    share = f" ({100 * (each.now - each.before) / each.before:+.0f} %)" if each.before > 0 else ""
    return f"{duration(each.before)} -> {duration(each.now)}{share}"


# --- Text ------------------------------------------------------------------------------------------------------


def to_text(found: Times) -> str:
    """Return the report for a terminal."""
    paragraphs = [
        title(found),
        "\n".join(_of_cause(found.build)),
        _columns(facts(found)),
        "\n".join(_of_stages(found)),
        "\n".join(_of_packages(found)),
        "\n".join(_of_steps(found)),
        "\n".join(_of_comparison(found)),
    ]
    return printable("\n\n".join(paragraph for paragraph in paragraphs if paragraph))


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return the rows as lines of text, with each column except the last padded to its widest cell."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    padded = ([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def _of_cause(build: Build) -> Iterator[str]:
    if build.cause is not None:
        from nerves_docker_port.record import explain
        from nerves_docker_port.record.cause import Cause

        yield explain.render(Cause(**build.cause._asdict()))
    elif build.ended is not None and build.ended.outcome != "ok":
        yield build.ended.message
        if build.ended.hint:
            yield from ("", *textwrap.wrap(build.ended.hint, _WIDTH))


def _of_stages(found: Times) -> Iterator[str]:
    rows = [
        (name, "not finished" if seconds is None else duration(seconds).rjust(11))
        for name, seconds in stages(found.build)
    ]
    if rows:
        yield from ("Stages", "", _columns(rows))


def _of_packages(found: Times) -> Iterator[str]:
    if not found.packages:
        return
    slowest = found.slowest(SLOWEST)
    built = len(found.packages)
    some = f"{built} package{'' if built == 1 else 's'}"
    if built > len(slowest):
        some = f"the slowest {len(slowest)} of {some}"
    at_once = f", {found.at_once:.1f} at once on average" if found.at_once >= 1.05 else ""
    yield f"Time by package ({some}{at_once})"
    if not found.measured:
        yield "Buildroot's own times are not known, so these are those of its headlines."
    yield ""
    rows = [(package.name, duration(package.seconds), _main_step(package)) for package in slowest]
    yield _bars(rows, [package.seconds for package in slowest])


def _main_step(package: times.Package) -> str:
    step, seconds = max(package.steps.items(), key=lambda item: item[1])
    return f"mostly {step}" if package.seconds > 0 and seconds >= 0.6 * package.seconds else ""


def _of_steps(found: Times) -> Iterator[str]:
    if found.steps:
        rows = [(step, duration(seconds), "") for step, seconds in found.steps.items()]
        yield from ("Time by step of Buildroot", "", _bars(rows, list(found.steps.values())))


def _bars(rows: Sequence[tuple[str, str, str]], amounts: Sequence[float]) -> str:
    most = max(amounts, default=0.0) or 1.0
    widest = max(len(took) for _, took, _ in rows)
    return _columns(
        [
            (name, took.rjust(widest), ("#" * round(_BAR * amount / most)).ljust(_BAR if remark else 0), remark)
            for (name, took, remark), amount in zip(rows, amounts, strict=True)
        ]
    )


def _of_comparison(found: Times) -> Iterator[str]:
    compared = found.comparison
    if compared is None:
        return
    before = compared.before
    yield f"Compared with the build of {moment(before.opened_at)} ({before.opened.id})"
    yield ""
    empty = True
    for what, names in (("New", compared.new), ("Gone", compared.gone)):
        if names:
            empty = False
            yield textwrap.fill(f"{what}: {', '.join(names)}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    for what, changes in (("Slower", compared.slower), ("Faster", compared.faster)):
        if changes:
            empty = False
            yield f"{what}:"
            rows = [(f"  {each.package}", change(each)) for each in changes[:CHANGES]]
            yield _columns(rows)
            if len(changes) > CHANGES:
                yield f"  and {len(changes) - CHANGES} more"
    if empty:
        yield NO_CHANGE


def _list_as_text(builds: Iterable[Build]) -> str:
    rows = [("BUILD", "BEGAN", "TIME", "PACKAGES", "OUTCOME")]
    for build in builds:
        found = times.of(build)
        flow = "" if _flow(build) == "build" else f"{_flow(build)}: "
        rows.append(
            (
                build.opened.id,
                moment(build.opened_at)[:19],
                duration(found.seconds),
                str(len(found.packages)),
                f"{_package(build)}: {flow}{_outcome(build)}",
            )
        )
    return printable(_columns(rows))


# --- JSON ------------------------------------------------------------------------------------------------------


def to_json(found: Times) -> str:
    """Return the report as one JSON object (docs/record.md)."""
    build, compared = found.build, found.comparison
    value: dict[str, Any] = {
        **_entry(found),
        "message": build.ended.message if build.ended else None,
        "hint": build.ended.hint if build.ended else None,
        "cause": _plain(build.cause),
        "engine": _plain(build.engine),
        "image": _plain(build.image),
        "workspace": _plain(build.workspace),
        "artifact": _plain(build.artifact),
        "ccache": _plain(build.ccache),
        "log": build.began.log if build.began else None,
        "journal": str(build.path),
        "warnings": [text for _, text in build.warnings],
        "stages": [{"name": name, "seconds": _rounded(seconds)} for name, seconds in stages(build)],
        "measured": found.measured,
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "began": _rounded(package.began),
                "seconds": _rounded(package.seconds),
                "steps": {step: _rounded(seconds) for step, seconds in package.steps.items()},
            }
            for package in found.packages
        ],
        "steps": {step: _rounded(seconds) for step, seconds in found.steps.items()},
        "compared": None
        if compared is None
        else {
            "id": compared.before.opened.id,
            "new": compared.new,
            "gone": compared.gone,
            "slower": [asdict(each) for each in compared.slower],
            "faster": [asdict(each) for each in compared.faster],
        },
    }
    return json.dumps(value)


def _list_as_json(builds: Iterable[Build]) -> str:
    return json.dumps([{**_entry(found), "packages": len(found.packages)} for found in map(times.of, builds)])


def _entry(found: Times) -> dict[str, Any]:
    build = found.build
    return {
        "id": build.opened.id,
        "flow": _flow(build),
        "package": _package(build),
        "version": build.began.package_version if build.began else "",
        "began": build.opened_at,
        "seconds": _rounded(found.seconds),
        "outcome": _outcome(build),
    }


def _plain(record: journal.Record | None) -> Mapping[str, Any] | None:
    return None if record is None else record._asdict()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# --- The command -----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run the command `report`, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nerves_docker_port report",
        description="Says how a build went and where its time went, from its journal.",
    )
    parser.add_argument(
        "where",
        nargs="?",
        type=Path,
        default=Path(),
        help="the directory of the package, a directory of journals, or a journal (default: this directory)",
    )
    parser.add_argument("--build", default="", metavar="ID", help="this build, by its id or the beginning of its id")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a timeline, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--list", action="store_true", help="list the builds")
    given = parser.parse_args(arguments)
    try:
        print(report(ReportRequest(given.where, given.build, given.html, given.json, given.list)))  # noqa: T201
    except errors.RunnerError as error:
        print(printable(f"nerves_docker_port: {error.message}\n\n{error.hint}"), file=sys.stderr)  # noqa: T201
        return 1
    return 0
