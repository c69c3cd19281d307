"""One conversation over the port, after the hello: requests, events, questions, exactly one outcome for each request.

Responsible for threads, signals and the end of things; knows the messages, but neither the engine nor any step.

Four threads, so that nobody ever waits for somebody who does not answer: the main thread decides, one reads frames, one
writes frames, and one runs the flow, which alone talks to the engine.
"""

from __future__ import annotations

import gc
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.port import protocol, wire
from nerves_docker_port.port.wire import Term

if TYPE_CHECKING:
    from nerves_docker_port.request.request import Request

QUEUE_LIMIT = 4 * 1024 * 1024
"""Bytes of events that may wait for a reader; what comes beyond is counted instead."""

END_TIMEOUT = 60.0
"""Seconds that a cancelled flow has to stop and remove its container. Five are for TERM; the rest is for an engine that
is busy. Nobody waits for the helper then, and what it does not get done is left running."""

FLUSH_TIMEOUT = 2.0
"""Seconds that a peer has to take the last frames once the helper wants to go."""


@dataclass(frozen=True)
class _Ended:
    """A flow's outcome, on its way from the flow's thread."""

    outcome: protocol.Done


@dataclass(frozen=True)
class _Stop:
    """The helper is to end: the port has closed, or a signal came, or the peer writes nonsense."""

    reason: str
    error: wire.WireError | None = None


class Session:
    """Serves one peer until it goes. ``run`` returns the process's exit status."""

    def __init__(self, fd_in: int, fd_out: int, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._reader = wire.FrameReader(fd_in)
        self._outbox = Outbox(fd_out)
        self._inbox: queue.SimpleQueue[protocol.Incoming | _Ended | _Stop] = queue.SimpleQueue()
        self._current: _Flow | None = None

    def run(self) -> int:
        """Serve, and leave nothing running. The hello has been said."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        # The docker SDK takes longer to import than all the rest; the shim is still asking Nerves for names.
        import nerves_docker_port.flows.recipe  # noqa: F401

        gc.freeze()
        gc.enable()
        stop = self._serve()
        return self._end(stop)

    def _serve(self) -> _Stop:
        while True:
            message = self._inbox.get()
            if isinstance(message, _Stop):
                return message
            if isinstance(message, _Ended):
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
        self._current = _Flow(request, self._environ, self._outbox)
        threading.Thread(target=self._run_flow, args=(self._current,), name="flow", daemon=True).start()

    def _run_flow(self, flow: _Flow) -> None:
        self._inbox.put(_Ended(flow.run()))

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
        return 0 if stop.error is None else 1

    def _wait_for_flow(self) -> protocol.Done | None:
        """The cancelled flow's outcome, or ``None`` if it does not end: the engine may be frozen."""
        deadline = time.monotonic() + END_TIMEOUT
        while (remaining := deadline - time.monotonic()) > 0:
            try:
                message = self._inbox.get(timeout=remaining)
            except queue.Empty:
                break
            if isinstance(message, _Ended):
                return message.outcome
        return None


class _Flow:
    """One request being served, and the reporter that its recipe talks to."""

    def __init__(self, request: protocol.Request, environ: Mapping[str, str], outbox: Outbox) -> None:
        self.id = request.id
        self.cancellation = Cancellation()
        self._request = request
        self._environ = environ
        self._outbox = outbox
        self._stages: list[tuple[str, int]] = []
        self._answers: dict[int, queue.SimpleQueue[bool | None]] = {}
        self._interactive = False

    def run(self) -> protocol.Done:
        """Run the flow; its outcome, whatever breaks."""
        try:
            return protocol.Done(self.id, protocol.Ok(self._value()))
        except errors.RunnerError as error:
            return protocol.Done(self.id, _error(error))
        except Exception as error:  # noqa: BLE001  # every request gets exactly one outcome
            traceback.print_exc()
            return protocol.Done(self.id, _error(errors.internal(f"{type(error).__name__}: {error}")))

    def _value(self) -> Term:
        from nerves_docker_port.flows import recipe
        from nerves_docker_port.request import request

        operations: dict[str, Callable[[request.Request], Term]] = {
            "build": lambda wanted: self._artifact(recipe.build(wanted, self._environ, self, self.cancellation)),
            "archive": lambda wanted: self._artifact(recipe.archive(wanted, self._environ, self, self.cancellation)),
            "clean": lambda wanted: {
                wire.Atom("removed"): list[Term](recipe.clean(wanted, self._environ, self, self.cancellation))
            },
            "shell": self._prepared_shell,
        }
        if self._request.op == "doctor":
            return self._doctor()
        if self._request.op == "volumes":
            return self._volumes()
        operation = operations.get(self._request.op)
        if operation is None:
            raise errors.bad_request(f"the operation {self._request.op} is not known to this helper")
        wanted = request.from_args(self._request.args, self._environ)
        self._interactive = wanted.interactive
        return operation(wanted)

    def _prepared_shell(self, wanted: Request) -> Term:
        from nerves_docker_port.flows import recipe
        from nerves_docker_port.shell import command as shell

        recipe.prepare_shell(wanted, self._environ, self, self.cancellation)
        return {wire.Atom("spec"): str(shell.write_spec(self._request.args, self._environ))}

    def _doctor(self) -> Term:
        from nerves_docker_port.doctor import examine as doctor

        found = doctor.subject(self._request.args, self._environ)
        findings = list(doctor.examine(found, self._environ, self.cancellation))
        return {
            wire.Atom("ok"): not doctor.stops_a_build(findings),
            wire.Atom("text"): doctor.to_text(findings),
            wire.Atom("json"): doctor.to_json(findings),
        }

    def _volumes(self) -> Term:
        from nerves_docker_port.request import request
        from nerves_docker_port.volume import prune as volumes

        args = self._request.args
        self._interactive = request.is_interactive(args)
        removed, text = volumes.serve(
            None if args.get(wire.Atom("package")) is None else request.from_args(args, self._environ),
            self._environ,
            self,
            self.cancellation,
            everybody=args.get(wire.Atom("all")) is True,
            remove=args.get(wire.Atom("prune")) is True,
            yes=args.get(wire.Atom("yes")) is True,
            interactive=self._interactive,
        )
        return {wire.Atom("removed"): list[Term](removed), wire.Atom("text"): text}

    def _artifact(self, artifact: object) -> Term:
        from nerves_docker_port.engine.artifact import Artifact

        assert isinstance(artifact, Artifact)
        return {
            wire.Atom("path"): str(artifact.path),
            wire.Atom("size"): artifact.size,
            wire.Atom("sha256"): artifact.sha256,
            wire.Atom("stages"): [(wire.Atom(name), milliseconds) for name, milliseconds in self._stages],
        }

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
        self._stages.append((name, milliseconds))
        self._outbox.send(protocol.Event(self.id, protocol.Stage(name, milliseconds)))

    def progress(self, what: str, current: int, total: int | None, unit: protocol.Unit) -> None:
        """See ``Reporter``."""
        self._outbox.send(protocol.Event(self.id, protocol.Progress(what, current, total, unit)))

    def warning(self, text: str) -> None:
        """See ``Reporter``."""
        self._outbox.send(protocol.Event(self.id, protocol.Warning(text)))

    def ask(self, text: str, *, default: bool) -> bool:
        """See ``Reporter``."""
        if not self._interactive:
            return default
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
    )


def _sendable(text: str) -> str:
    """Text that the wire takes, whatever bytes a path in it was made of: the outcome must arrive."""
    return text.encode("utf-8", "backslashreplace").decode()


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
