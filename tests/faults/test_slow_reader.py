"""A peer that does not read: the build does not wait, the log has everything, what was not shown is counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import docker

from support.port import wait_until
from support.system import System, at_work


def test_a_peer_that_does_not_read_holds_nothing_up_and_is_told_how_much_it_missed(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    system = make_system()
    # 30 MB of headlines: more than the queue and the pipe hold.
    system.write(
        "platform/lines.sh",
        "awk 'BEGIN { for (i = 1; i <= 300000; i++) printf \">>> package-%09d 1.0 %077d\\n\", i, 0 }'\n",
    )
    args = system.args(make_args=["RUN=sh /nerves/env/platform/lines.sh"])
    with system.helper() as helper:
        helper.start("build", args)
        # Nobody reads now.
        assert wait_until(system.artifact.exists, 120), "the build waits for its reader"
        assert wait_until(lambda: at_work(client, system.volume) == [], 60)
        status = Path(f"/proc/{helper.process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak is not None
        assert int(peak[1]) < 100_000
        conversation = helper.follow()
    conversation.value()
    shown = [line for line in conversation.log_lines if b"package-" in line]
    told = [text for text in conversation.warnings if "were not shown; the log has them all" in text]
    missed = sum(int(text.split()[0]) for text in told)
    log = system.build_log.read_bytes()
    assert log.count(b"\n>>> package-") == 300_000
    # What was shown came in order, each once; with what is counted it is all there was.
    assert shown == sorted(set(shown))
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", log)
    assert len(conversation.log_lines) + missed == sum(line.startswith(b">>>") for line in plain.split(b"\n"))
    assert 0 < missed < 300_000
