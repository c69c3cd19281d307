"""The queue of frames that wait to be written to the peer."""

from __future__ import annotations

import threading
from collections import deque

from nerves_docker_port import stages
from nerves_docker_port.port import protocol, wire

QUEUE_LIMIT = 4 * 1024 * 1024
"""Bytes. While more than this waits to be written, log events are dropped and counted."""


class Outbox:
    """Writes frames to the descriptor ``fd`` in a thread of its own.

    Sending never waits, so a terminal that is paused does not stop the build. While more than ``QUEUE_LIMIT`` bytes
    wait, log events are dropped and counted; the next message that is queued comes after a warning with the count. All
    other messages are always kept, because they are few and small.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._condition = threading.Condition()
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped_lines = 0
        self._dropped_request = 0
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._write_frames, name="writer", daemon=True)
        self._thread.start()

    def send(self, message: protocol.Outgoing) -> None:
        """Queue a message that must not be dropped. Raises ``WireError`` if the protocol cannot express it."""
        frame = wire.encode(message.to_term())
        with self._condition:
            self._report_dropped()
            self._put(frame)

    def send_log(self, request: int, lines: bytes) -> None:
        """Queue whole lines, joined by newlines, as a log event of ``request``, or drop and count them."""
        with self._condition:
            if self._waiting_bytes > QUEUE_LIMIT:
                self._dropped_lines += lines.count(b"\n") + 1
                self._dropped_request = request
                return
            self._report_dropped()
            self._put(wire.encode(protocol.Event(request, protocol.Log(lines)).to_term()))

    def send_status(self, request: int, status: stages.Status) -> None:
        """Queue a status event of ``request``, or drop it: a later one tells the same and more."""
        frame = wire.encode(protocol.Event(request, protocol.Status(status)).to_term())
        with self._condition:
            if self._waiting_bytes <= QUEUE_LIMIT:
                self._put(frame)

    def close(self, timeout: float) -> None:
        """Write the frames that still wait, for at most ``timeout`` seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def _put(self, frame: bytes) -> None:
        if self._broken:
            return
        self._frames.append(frame)
        self._waiting_bytes += len(frame)
        self._condition.notify()

    def _report_dropped(self) -> None:
        if self._dropped_lines:
            text = f"{self._dropped_lines} lines were not shown; the log has them all."
            self._dropped_lines = 0
            self._put(wire.encode(protocol.Event(self._dropped_request, protocol.Warning(text)).to_term()))

    def _write_frames(self) -> None:
        while True:
            with self._condition:
                while not self._frames:
                    if self._closing:
                        return
                    self._condition.wait()
                frame = self._frames.popleft()
            try:
                wire.write_frame(self._fd, frame)
            except OSError:
                # The peer has closed the port. The session reads the end of file and ends, so nothing is raised here.
                with self._condition:
                    self._broken = True
                    self._frames.clear()
                    self._waiting_bytes = 0
                return
            with self._condition:
                self._waiting_bytes -= len(frame)
