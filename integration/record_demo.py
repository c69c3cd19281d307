#!/usr/bin/env python3
"""Records `mix nerves.artifact` on the miniature system in a terminal, and draws it as an animated SVG.

    python3 integration/record_demo.py [--elixir host|bookworm|trixie|sid] [docs/images/demo.svg]

Each line appears at the time at which it appeared in the run. The lines about compilation before the build are left
out. A viewer without animations shows all lines. If NERVES_PATH and the other variables in README.md of this directory
are set, real Nerves is recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from integration.build_images import ensure_image
from integration.elixir import SUITES, ensure_elixir
from integration.engine import Api, engine
from integration.host import REPOSITORY, WorldError, main_program
from integration.project import Project, lay_out

COLUMNS = 92
CHARACTER, LINE, MARGIN = 8.4, 19, 16
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea"}
SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")

Line = tuple[float, str]
"""The time at which a line began, in seconds since the start, and its text with its escape sequences."""


def main(arguments: list[str]) -> int:
    """Record, draw and clean up. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elixir", choices=SUITES, default="host")
    parser.add_argument("svg", type=Path, nargs="?", default=REPOSITORY / "docs" / "images" / "demo.svg")
    given = parser.parse_args(arguments)
    elixir = ensure_elixir(given.elixir)
    with engine() as host, tempfile.TemporaryDirectory(prefix="nerves_docker_port_demo_") as directory:
        image = ensure_image("new", host)
        project = lay_out(Path(directory).resolve(), host=host, image=image, elixir=elixir)
        try:
            lines = _record(project, ["mix nerves.artifact", "ls *.tar.gz"])
        finally:
            project.mix("nerves.clean", "my_system", NERVES_PRECOMPILE="1", NERVES_ENV_DISABLED="1")
            with contextlib.suppress(OSError):
                identity = project.system / ".nerves/artifacts/my_system-portable-0.1.0/.docker_id"
                Api(host).request("DELETE", f"/volumes/my_system-{identity.read_text()}?force=1")
    given.svg.parent.mkdir(parents=True, exist_ok=True)
    given.svg.write_text(_draw(lines))
    print(f"recorded {len(lines)} lines in {given.svg}")
    return 0


def _record(project: Project, commands: list[str]) -> list[Line]:
    """Run the commands one after the other, each on a new terminal. Raises `WorldError` if one fails."""
    begin = time.monotonic()
    lines: list[Line] = []
    for command in commands:
        lines.append((time.monotonic() - begin, f"\x1b[32m$\x1b[0m {command}"))
        words = project.command(*command.split()[1:]) if command.startswith("mix ") else ["sh", "-c", command]
        ours, theirs = pty.openpty()
        subprocess.run(["stty", "cols", str(COLUMNS), "rows", "50"], stdin=theirs, check=True)
        child = subprocess.Popen(
            words, cwd=project.system, env=project.env(TERM="xterm"), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        text = ""
        # On Linux, a read fails with EIO when the last process has closed the terminal (pty(7)).
        with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
            while data := terminal.read(65536):
                *whole, text = (text + data.decode(errors="replace")).replace("\r\n", "\n").split("\n")
                lines += [(time.monotonic() - begin, line) for line in whole]
        if text:
            lines.append((time.monotonic() - begin, text))
        if child.wait() != 0:
            raise WorldError(
                f"`{command}` ended with status {child.returncode}:\n" + "\n".join(line for _, line in lines)
            )
    first = next(number for number, (_, line) in enumerate(lines) if "|Docker|" in line)
    lines[1:first] = []
    started = lines[1][0] - 1
    lines[1:] = [(when - started, line) for when, line in lines[1:]]
    home = re.compile(re.escape(str(project.directory)) + r"\b")
    return [(when, home.sub("~", line.rpartition("\r")[2])) for when, line in lines]


def _draw(lines: list[Line]) -> str:
    """Return the SVG."""
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    texts = []
    for number, (when, line) in enumerate(lines):
        y = MARGIN + (number + 1) * LINE - 5
        texts.append(f'<g style="animation-delay:{when:.2f}s">{_spans(line, y)}</g>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">',
            "<title>mix nerves.artifact, recorded in a terminal</title>",
            "<style>",
            "text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }",
            "text { fill: #e6edf3; white-space: pre }",
            "g { animation: appear 0.01s both } @keyframes appear { from { opacity: 0 } }",
            "</style>",
            f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#0d1117"/>',
            *texts,
            "</svg>\n",
        ]
    )


def _spans(line: str, y: float) -> str:
    """Return the elements of one line: a text for each sequence of characters with the same colours."""
    parts: list[str] = []
    column, colour, inverse, at = 0, "", False, 0
    for match in [*SEQUENCE.finditer(line), None]:
        run = line[at : match.start() if match else len(line)][: COLUMNS - column]
        if run:
            x, length = MARGIN + column * CHARACTER, len(run) * CHARACTER
            if inverse:
                parts.append(f'<rect x="{x:.1f}" y="{y - 14}" width="{length:.1f}" height="{LINE}" fill="#e6edf3"/>')
            fill = "#0d1117" if inverse else colour
            style = f' style="fill:{fill}"' if fill else ""
            parts.append(f'<text x="{x:.1f}" y="{y}" textLength="{length:.1f}"{style}>{html.escape(run)}</text>')
            column += len(run)
        if match is None:
            break
        at = match.end()
        if match[2] == "m":
            for code in match[1].split(";"):
                if code in ("", "0"):
                    colour, inverse = "", False
                elif code in ("7", "27"):
                    inverse = code == "7"
                elif code in COLOURS:
                    colour = COLOURS[code]
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main_program(lambda: main(sys.argv[1:])))
