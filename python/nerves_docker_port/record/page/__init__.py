"""The report of a build as one page that needs nothing else: no network, no other file, no server.

page.html is its frame, page.css and page.js are put into it. All text of a journal is escaped here: it may come from
a build's log. Besides, the page's Content-Security-Policy allows no request, and no script but page.js.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from nerves_docker_port import errors
from nerves_docker_port.printing import without_controls
from nerves_docker_port.record import headline, report, times
from nerves_docker_port.record.journal import Stage
from nerves_docker_port.record.times import Change, Package, Times
from nerves_docker_port.text import duration

_HERE = Path(__file__).parent
_COLUMNS = ("Package", "Version", "Began", "All steps")
"""The first columns of the table of the packages; those after them are the steps. page.js knows that two hold text."""
_GROUP = 100
"""Rows of a group of the table."""


def write(found: Times, path: Path) -> None:
    """Write the page to ``path``. Raises ``RunnerError`` if that is not possible."""
    try:
        path.write_text(to_html(found), encoding="utf-8")
    except OSError as error:
        raise errors.not_writable(str(path), "The page", str(error.strerror)) from error


def to_html(found: Times) -> str:
    """The page."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=_text(report.title(found)),
        outcome=_text("ok" if times.is_well(found.build) else "failed"),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=f"sha256-{digest}",
        cause=_cause(found),
        timeline_note=_text(_note(found)),
        facts=_table((_text(name), _text(value)) for name, value in report.facts(found)),
        stages=_bars(
            [
                (name, "not finished" if seconds is None else duration(seconds), seconds or 0.0, 0)
                for name, seconds in report.stages(found.build)
            ]
        ),
        steps=_bars(
            [
                (step, duration(found.steps[step]), found.steps[step], colour)
                for colour, step in enumerate(_ordered_steps(found))
            ]
        ),
        comparison=_comparison(found),
        packages=_packages(found),
        warnings=_warnings(found),
        data=_data(found),
    )


def _text(text: str) -> str:
    """``text`` for the page: no part of it is markup, and no control character is left."""
    return escape(_plain(text))


def _plain(text: str) -> str:
    """``text`` without control characters and without what UTF-8 cannot have."""
    return without_controls(text, "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _note(found: Times) -> str:
    if not found.packages:
        return "No package was built."
    built = f"{len(found.packages)} package{'' if len(found.packages) == 1 else 's'}"
    at_once = f", {found.at_once:.1f} at once on average" if found.at_once >= 1.05 else ""
    told = "" if found.measured else " Buildroot's own times are not known: these are those of its headlines."
    return f"{built}{at_once}.{told}"


def _cause(found: Times) -> str:
    build = found.build
    cause, ended = build.cause, build.ended
    if cause is not None:
        from nerves_docker_port.record import explain
        from nerves_docker_port.record.cause import Cause

        told = Cause(cause.package, cause.step, cause.kind, cause.lines, cause.remedy)
        head, lines, remedy = explain.title(told), "\n".join(cause.lines), cause.remedy
    elif ended is not None and ended.outcome != "ok":
        head, lines, remedy = "The build failed.", ended.message, ended.hint
    else:
        return ""
    what_to_do = f"<p>{_text(f'What to do: {remedy}')}</p>" if remedy else ""
    return f'<section id="cause"><h2>{_text(head)}</h2><pre>{_text(lines)}</pre>{what_to_do}</section>'


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return (
        "<table>"
        + "".join(f'<tr><th scope="row">{left}</th><td>{right}</td></tr>' for left, right in rows)
        + "</table>"
    )


def _ordered_steps(found: Times) -> list[str]:
    """The steps in the order in which a package has them, so that each keeps its colour from build to build."""
    usual = [step for step in headline.STEPS.values() if step in found.steps]
    return [*usual, *sorted(found.steps.keys() - set(usual))]


def _bars(rows: Sequence[tuple[str, str, float, int]]) -> str:
    """Rows of a name, an amount in words, the amount, and the number of the bar's colour."""
    most = max((amount for _, _, amount, _ in rows), default=0.0) or 1.0
    cells = "".join(
        f'<tr><td>{_text(name)}</td><td class="number">{_text(told)}</td>'
        f'<td><span class="bar" style="width:{100 * amount / most:.1f}%;background:var(--step{colour % 8})"></span>'
        for name, told, amount, colour in rows
    )
    return f'<table class="bars">{cells}</table>'


def _comparison(found: Times) -> str:
    compared = found.comparison
    if compared is None:
        return ""
    head = f"Compared with the build of {report.moment(compared.before.opened_at)} ({compared.before.opened.id})"
    rows = [
        *((what, ", ".join(names)) for what, names in (("New", compared.new), ("Gone", compared.gone)) if names),
        *((what, _changes(each)) for what, each in (("Slower", compared.slower), ("Faster", compared.faster)) if each),
    ]
    told = _table((_text(what), _text(text)) for what, text in rows) if rows else f"<p>{_text(report.NO_CHANGE)}</p>"
    return f'<section id="comparison"><h2>{_text(head)}</h2>{told}</section>'


def _changes(changes: Sequence[Change]) -> str:
    named = [f"{each.package} {report.change(each)}" for each in changes[: report.CHANGES]]
    more = [f"and {len(changes) - report.CHANGES} more"] if len(changes) > report.CHANGES else []
    return ", ".join([*named, *more])


def _packages(found: Times) -> str:
    steps = _ordered_steps(found)
    heads = "".join(
        f'<th scope="col"><button type="button">{_text(name)}</button></th>' for name in (*_COLUMNS, *steps)
    )
    rows = [_row(index, package, steps) for index, package in enumerate(found.packages)]
    groups = ["".join(rows[first : first + _GROUP]) for first in range(0, max(1, len(rows)), _GROUP)]
    numbers = len(_COLUMNS) - 2 + len(steps)
    return (
        f'<table id="packages" style="--numbers:{numbers}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{'<tbody>'.join(groups)}</table>"
    )


def _row(index: int, package: Package, steps: Sequence[str]) -> str:
    amounts = [package.began, package.seconds, *(package.steps.get(step) for step in steps)]
    # HTML lets the ends of cells and rows be left out. A browser then needs half of its time for a large table.
    cells = "".join("<td>" if each is None else f"<td>{each:.1f}" for each in amounts)
    failed = "" if package.whole else " class=failed"
    return f"<tr data-package={index}{failed}><td>{_text(package.name)}<td>{_text(package.version)}{cells}"


def _warnings(found: Times) -> str:
    if not found.build.warnings:
        return ""
    items = "".join(f"<li>{_text(text)}</li>" for _, text in found.build.warnings)
    return f"<section><h2>Warnings</h2><ul>{items}</ul></section>"


def _end(stage: Stage, found: Times) -> float:
    return found.build.last_at if stage.ended is None else stage.ended


def _data(found: Times) -> str:
    """What page.js draws. Times are seconds since the flow began."""
    names = {package.name: index for index, package in enumerate(found.packages)}
    steps = {step: index for index, step in enumerate(_ordered_steps(found))}
    data = {
        "seconds": found.seconds,
        "packages": [_plain(name) for name in names],
        "steps": [_plain(step) for step in steps],
        "spans": [
            [names[span.package], steps[span.step], round(span.began, 4), round(span.seconds, 4), int(span.whole)]
            for span in found.spans
        ],
        "stages": [
            [
                _plain(stage.name),
                round(stage.began - found.build.opened_at, 4),
                round(_end(stage, found) - stage.began, 4),
            ]
            for stage in found.build.stages
        ],
    }
    # Within a script element, HTML has no escapes, and only `<` can begin what ends the element or changes its meaning.
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
