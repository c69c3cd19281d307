"""What a flow says on its way through the recorder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from nerves_docker_port.record import journal
from nerves_docker_port.record.headline import Parts
from nerves_docker_port.record.progress import Tracker
from nerves_docker_port.record.recorder import Recorder
from nerves_docker_port.record.reporter import Reporter


class Silent:
    """A reporter that nobody listens to."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


class Counting(Silent):
    """A tracker that counts headlines."""

    count = 0

    def headlines(self, found: Sequence[Parts]) -> None:
        self.count += len(found)


def test_of_a_flood_of_headlines_only_a_part_is_kept_and_followed(tmp_path: Path) -> None:
    kept, tracker = journal.Journal(tmp_path, "build"), Counting()
    recorder = Recorder(cast(Reporter, Silent()), kept, cast(Tracker, tracker))
    recorder.log(b">>> first 1.0 Building")
    for number in range(1000):
        recorder.log(b"\n".join(b">>> package-%d 1.0 Building" % (100 * number + one) for one in range(100)))
    kept.close()
    build = journal.read(kept.path)
    assert build is not None
    assert len(build.headlines) == journal.HEADLINES_KEPT - 99
    assert recorder.not_kept == 100_001 - len(build.headlines)
    assert 1 <= tracker.count < 100_001
    assert recorder.has_seen_packages
