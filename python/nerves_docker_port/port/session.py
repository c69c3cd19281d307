"""One conversation over the port, after the hello: requests, events, questions, exactly one outcome for each request.

Responsible for threads, signals and the end of things; knows the messages, but neither the engine nor any step.

Four threads, so that nobody ever waits for somebody who does not answer: the main thread decides, one reads frames, one
writes frames, and one runs the flow, which alone talks to the engine.
"""

from __future__ import annotations

import gc
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.port import protocol, wire
from nerves_docker_port.port.outbox import Outbox
from nerves_docker_port.port.wire import Term
from nerves_docker_port.printing import printable
from nerves_docker_port.stages import Status

END_TIMEOUT = 60.0
"""Seconds that a cancelled flow has to stop and remove its container. Five are for TERM; the rest is for an engine that
is busy. Nobody waits for the helper then, and what it does not get done is left running."""

FLUSH_TIMEOUT = 2.0
"""Seconds that a peer has to take the last frames once the helper wants to go."""


class Operations(Protocol):
    """What a request can ask for."""

    def serve(self, op: str, args: Mapping[Term, Term], reporter: Flow, cancellation: Cancellation) -> Term:
        """Do what a request asks for; the value of its good outcome. Raises ``RunnerError``."""

    def load_later(self, op: str) -> None:
        """Load what ``op`` needs only at its end. Called beside ``serve``, in another thread."""

    def close(self) -> None:
        """No further request comes: end what was kept for one."""


@dataclass(frozen=True)
class _FlowDone:
    """A flow's outcome, on its way from the flow's thread."""

    outcome: protocol.Done


@dataclass(frozen=True)
class _Stop:
    """The helper is to end: the port has closed, or a signal came, or the peer writes nonsense."""

    reason: str
    error: wire.WireError | None = None


class Session:
    """Serves one peer until it goes. ``run`` returns the process's exit status."""

    def __init__(self, fd_in: int, fd_out: int, load: Callable[[], Operations]) -> None:
        """``load`` gives the operations. It may take its time: what takes long to import is imported there."""
        self._load = load
        self._reader = wire.FrameReader(fd_in)
        self._outbox = Outbox(fd_out)
        self._inbox: queue.SimpleQueue[protocol.Incoming | _FlowDone | _Stop] = queue.SimpleQueue()
        self._current: Flow | None = None

    def run(self) -> int:
        """Serve, and leave nothing running. The hello has been said."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        # The docker SDK takes longer to import than all the rest; the shim is still asking Nerves for names.
        self._operations = self._load()
        gc.freeze()
        gc.enable()
        stop = self._serve()
        return self._end(stop)

    def _serve(self) -> _Stop:
        while True:
            message = self._inbox.get()
            if isinstance(message, _Stop):
                return message
            if isinstance(message, _FlowDone):
                self._current = None
                self._outbox.send(message.outcome)
            elif isinstance(message, protocol.Request):
                self._begin(message)
            elif isinstance(message, protocol.Answer):
                if self._current is not None:
                    self._current.answer(message.ref, message.value)
            elif self._current is not None and self._current.id == message.id:
                self._current.cancellation.cancel("Mix asked for it")

    def _begin(self, request: protocol.Request) -> None:
        if self._current is not None:
            error = errors.bad_request(f"request {self._current.id} is still being served")
            self._outbox.send(protocol.Done(request.id, _error(error)))
            return
        self._current = Flow(request, self._operations, self._outbox)
        threading.Thread(target=self._run_flow, args=(self._current,), name="flow", daemon=True).start()
        self._operations.load_later(request.op)

    def _run_flow(self, flow: Flow) -> None:
        self._inbox.put(_FlowDone(flow.run()))

    def _read(self) -> None:
        try:
            while (frame := self._reader.read_frame()) is not None:
                self._inbox.put(protocol.parse(wire.decode(frame)))
            self._inbox.put(_Stop("Mix has ended"))
        except wire.WireError as error:
            self._inbox.put(_Stop("Mix sent something that is not of the protocol", error))
        except OSError as error:
            self._inbox.put(_Stop(f"the port broke: {error.strerror}"))

    def _on_signal(self, number: int, _frame: object) -> None:
        self._inbox.put(_Stop(f"the helper got {signal.Signals(number).name}"))

    def _end(self, stop: _Stop) -> int:
        if self._current is not None:
            self._current.cancellation.cancel(stop.reason)
            outcome = self._wait_for_flow()
            if outcome is not None:
                self._outbox.send(outcome)
        if stop.error is not None:
            self._outbox.send(protocol.Done(0, _error(errors.bad_request(f"{stop.reason}: {stop.error}"))))
        self._outbox.close(FLUSH_TIMEOUT)
        self._operations.close()
        return 0 if stop.error is None else 1

    def _wait_for_flow(self) -> protocol.Done | None:
        """The cancelled flow's outcome, or ``None`` if it does not end: the engine may be frozen."""
        deadline = time.monotonic() + END_TIMEOUT
        while (remaining := deadline - time.monotonic()) > 0:
            try:
                message = self._inbox.get(timeout=remaining)
            except queue.Empty:
                break
            if isinstance(message, _FlowDone):
                return message.outcome
        return None


class Flow:
    """One request being served, and the reporter that its recipe talks to."""

    def __init__(self, request: protocol.Request, operations: Operations, outbox: Outbox) -> None:
        self.id = request.id
        self.cancellation = Cancellation()
        self._request = request
        self._operations = operations
        self._outbox = outbox
        self._stages: list[tuple[Term, Term]] = []
        self._answers: dict[int, queue.SimpleQueue[bool | None]] = {}

    def run(self) -> protocol.Done:
        """Run the flow; its outcome, whatever breaks."""
        try:
            return protocol.Done(self.id, protocol.Ok(self._value()))
        except errors.RunnerError as error:
            return protocol.Done(self.id, _error(error))
        except Exception as error:  # noqa: BLE001  # every request gets exactly one outcome
            # The error may hold an engine's text.
            sys.stderr.write(printable(traceback.format_exc()))
            return protocol.Done(self.id, _error(errors.internal(f"{type(error).__name__}: {error}")))

    def _value(self) -> Term:
        value = self._operations.serve(self._request.op, self._request.args, self, self.cancellation)
        if self._request.op in ("build", "archive") and isinstance(value, dict):
            value = {**value, wire.Atom("stages"): list[Term](self._stages)}
        return value

    def answer(self, ref: int, answer: bool) -> None:
        """The person has answered question ``ref``."""
        waiting = self._answers.pop(ref, None)
        if waiting is not None:
            waiting.put(answer)

    # The Reporter.

    def headline(self, text: str) -> None:
        """See ``Reporter``."""
        self._outbox.send(protocol.Event(self.id, protocol.Headline(text)))

    def log(self, lines: bytes) -> None:
        """See ``Reporter``."""
        self._outbox.send_log(self.id, lines)

    def stage_started(self, name: protocol.StageName) -> None:
        """See ``Reporter``."""
        self._outbox.send(protocol.Event(self.id, protocol.Stage(name)))

    def stage_finished(self, name: protocol.StageName, milliseconds: int) -> None:
        """See ``Reporter``."""
        self._stages.append((wire.Atom(name), milliseconds))
        self._outbox.send(protocol.Event(self.id, protocol.Stage(name, milliseconds)))

    def progress(self, what: str, current: int, total: int | None, unit: protocol.Unit) -> None:
        """See ``Reporter``."""
        self._outbox.send(protocol.Event(self.id, protocol.Progress(what, current, total, unit)))

    def status(self, status: Status) -> None:
        """See ``Reporter``."""
        self._outbox.send_status(self.id, status)

    def warning(self, text: str) -> None:
        """See ``Reporter``."""
        self._outbox.send(protocol.Event(self.id, protocol.Warning(text)))

    def ask(self, text: str, *, default: bool) -> bool:
        """See ``Reporter``."""
        ref = len(self._answers) + 1
        waiting: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._answers[ref] = waiting
        with self.cancellation.on_cancel(lambda: waiting.put(None)):
            self._outbox.send(protocol.Ask(self.id, ref, text, default))
            answer = waiting.get()
        self.cancellation.check()
        return default if answer is None else answer


def _error(error: errors.RunnerError) -> protocol.Error:
    return protocol.Error(
        error.code.value,
        _sendable(error.message),
        None if error.hint is None else _sendable(error.hint),
        None if error.log is None else _sendable(error.log),
        error.cause,
    )


def _sendable(text: str) -> str:
    """Text that the wire takes, whatever bytes a path in it was made of: the outcome must arrive."""
    return text.encode("utf-8", "backslashreplace").decode()
