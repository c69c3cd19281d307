"""Frames on their way to the peer, in a queue that never makes the sender wait."""

from __future__ import annotations

import threading
from collections import deque

from nerves_docker_port.port import protocol, wire

QUEUE_LIMIT = 4 * 1024 * 1024
"""Bytes of events that may wait for a reader; what comes beyond is counted instead."""


class Outbox:
    """Frames on their way to the peer. Sending never waits: a build does not stand still because a terminal does.

    Log events beyond ``QUEUE_LIMIT`` are dropped and counted, and the count is sent when there is room again. All other
    messages are few and small, and always kept.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = 0
        self._dropped_for = 0
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)
        self._thread.start()

    def send(self, message: protocol.Outgoing) -> None:
        """Queue a message that must arrive."""
        frame = wire.encode(message.to_term())
        with self._changed:
            self._tell_dropped()
            self._put(frame)

    def send_log(self, request: int, lines: bytes) -> None:
        """Queue lines to show, or count them where too many wait already."""
        with self._changed:
            if self._waiting > QUEUE_LIMIT:
                self._dropped += lines.count(b"\n") + 1
                self._dropped_for = request
                return
            self._tell_dropped()
            self._put(wire.encode(protocol.Event(request, protocol.Log(lines)).to_term()))

    def close(self, timeout: float) -> None:
        """Write what waits, for at most ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _put(self, frame: bytes) -> None:
        if self._broken:
            return
        self._frames.append(frame)
        self._waiting += len(frame)
        self._changed.notify()

    def _tell_dropped(self) -> None:
        if self._dropped:
            text = f"{self._dropped} lines were not shown; the log has them all."
            self._dropped = 0
            self._put(wire.encode(protocol.Event(self._dropped_for, protocol.Warning(text)).to_term()))

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._frames:
                    if self._closing:
                        return
                    self._changed.wait()
                frame = self._frames.popleft()
            try:
                wire.write_frame(self._fd, frame)
            except OSError:
                # The peer has gone. The reader sees it, too, and ends the session.
                with self._changed:
                    self._broken = True
                    self._frames.clear()
                    self._waiting = 0
                return
            with self._changed:
                self._waiting -= len(frame)
