"""Copies the journal and the report of a flow to one directory, which a CI can upload (the setting ``record_dir``).

The logs are not copied, because with this setting they are written to that directory at once (``Request.log_dir``).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nerves_docker_port import directories, errors
from nerves_docker_port.record import page, report

PAGE = "report.html"


def collect(journal: Path, directory: Path, flow: str) -> None:
    """Copy the journal of a flow that has ended to ``directory``. After a build, write its report there, too.

    Raises ``RunnerError`` if the directory cannot be written.
    """
    directories.make(directory, "The directory of the record")
    try:
        shutil.copyfile(journal, directory / journal.name)
    except OSError as error:
        raise errors.not_writable(str(directory), "The directory of the record", str(error.strerror)) from error
    # An archive follows the build. If it wrote a report, it would replace the build's report.
    found = report.times_of(journal) if flow == "build" else None
    if found is not None:
        page.write(found, directory / PAGE)
