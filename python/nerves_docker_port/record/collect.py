"""Brings what tells of a flow into one directory, for a CI to upload (the setting ``record_dir``).

The logs are written there in the first place (``Request.log_dir``). Here come the journal and the report.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nerves_docker_port import errors
from nerves_docker_port.record import page, report

PAGE = "report.html"


def collect(journal: Path, directory: Path, flow: str) -> None:
    """Copy the journal of a flow that has ended to ``directory``; after a build, write its report there, too.

    Raises ``RunnerError`` if that is not possible.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(journal, directory / journal.name)
    except OSError as error:
        raise errors.not_writable(str(directory), "The directory of the record", str(error.strerror)) from error
    # An archive comes after the build, and its report would take the place of the build's.
    found = report.times_of(journal) if flow == "build" else None
    if found is not None:
        page.write(found, directory / PAGE)
