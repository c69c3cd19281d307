"""A session: one container that holds a build volume, lives as long as its helper is heard, and runs steps.

The container's name is the lock (lock.py). Its life is the heartbeat: this process sends the container a signal every
few seconds, and the script in it (scripts/session.sh) ends it when it has not heard one for ``patience`` seconds. So a
build ends by itself after its helper was killed, after a power cut of the host, or when the network is gone; and a
connection that is lost for less than that costs nothing but a gap in the log.

Knows how steps come into the container and how one learns that they have ended, but not what a step is for.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import docker.errors
import requests

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import archive, container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import CommandOutput, NameTakenError, NoContainerError, Output, Spec
from nerves_docker_port.engine.stream import Stream
from nerves_docker_port.volume import lock
from nerves_docker_port.volume.steps import Mark, Splitter, Step, marks_in, to_file

BEAT_INTERVAL = 10.0
"""Seconds between two heartbeats, at most; a quarter of the patience where that is less."""

RETRY_INTERVAL = 1.0
"""Seconds between two attempts to reach an engine that does not answer."""

LOOK_TIMEOUT = 10.0
"""Seconds that the engine may take for what only the journal wants."""

EXPIRED = 75
"""The exit status of scripts/session.sh after too long a time without a heartbeat."""

STATE = "/nerves-docker-port"
"""The directory in the container through which the helper and the scripts talk (scripts/session.sh)."""

ANSWERED = "answered"
"""The file in that directory by which a script knows that its question has been answered."""

Questions: TypeAlias = Mapping[str, Callable[[str, str], None]]
"""What answers the marks by which a script asks for something. It is called with the container's id and with the words
for the file that says to the script that it has its answer (scripts/say.sh); then the script is told to look."""

_T = TypeVar("_T")

_FAILURES = (docker.errors.DockerException, requests.RequestException, errors.RunnerError, OSError)


@dataclass(frozen=True)
class Failure:
    """A step, or the container itself, has ended badly."""

    step: int
    """The index of the step among those that were to run."""
    status: int
    out_of_memory: bool
    by_somebody: bool = False
    """Somebody killed or removed the container."""


class Session:
    """One container on one volume. Every method but ``end`` is for one thread."""

    def __init__(
        self, engine: Engine, volume: str, spec: Spec, *, token: str, patience: int, questions: Questions, doing: str
    ) -> None:
        """Take the volume. ``spec`` is the container, its first steps in its command; ``token`` is that of its marks.

        ``doing`` completes "The engine stopped answering ...". Raises ``RunnerError`` ``:volume_busy``.
        """
        self.engine = engine
        self.volume = volume
        self._name = spec.name
        self._console = spec.console
        self.token = token
        self._patience = patience
        self._questions = questions
        self._doing = doing
        self._output: Output | None = None
        self._terminal: Stream | None = None
        # What comes before somebody listens is kept for the first who does.
        self._early: list[bytes] = []
        self._on_output: Callable[[bytes], None] = self._early.append
        # Output that came in the same read as the mark `here`, behind it.
        self._rest = b""
        self._marks: list[Mark] = []
        self._splitter = Splitter(token, self._pass_on, self._marks.append)
        self._has_workspace = False
        self._has_run = False
        self._answered: set[Mark] = set()
        self._last_number = 0
        self._expired = False
        self.is_over = False
        """Whether the final step has ended well, and the container with it."""
        self.container = lock.take(engine, volume, spec)
        self._heart = _Heart(engine, self.container, patience, doing)

    def begin(self, cancellation: Cancellation) -> None:
        """Start the container, and wait until it has its workspace: then the first step runs.

        To be called once, before all else. Where the container ends before that, or the connection breaks, whoever runs
        the steps finds out. Raises ``RunnerError``, ``NotSeenError`` where the engine does not see the directories.
        """
        with self._failures(), cancellation.on_cancel(self._interrupt):
            # Attached before the start, so that no byte is missed: the engine keeps no log to read it from later.
            if self._console is None:
                self._output = Output(self.engine, self.container)
            else:
                self._terminal = container.attach_terminal(self.engine, self.container)
            container.start(self.engine, self.container)
            self._heart.start(self._hang_up)
            if self._console is not None:
                container.resize(self.engine, self.container, *self._console)
            # A cancellation that came before the start found nothing to stop.
            cancellation.check()
            while not self._has_workspace and self._below() is None:
                data = self._output.read() if self._output is not None else self._terminal_read(cancellation)
                if not data:
                    break
                while data and not self._has_workspace:
                    data = self._splitter.feed(data)
                    self._answer()
                self._rest = data
            cancellation.check()

    def _terminal_read(self, cancellation: Cancellation) -> bytes:
        """What the terminal says, waited for; nothing at its end."""
        assert self._terminal is not None
        while (data := self._terminal.read()) is None:
            cancellation.check()
            self._heart.check()
            # With TLS, what has been read already makes no descriptor ready.
            select.select([self._terminal.read_fd], [], [], RETRY_INTERVAL)
        return data

    def _answer(self) -> None:
        """Answer what the marks ask for, each once, and forget these marks."""
        asked = [mark for mark in self._marks if mark.number == 0 and mark.name not in ("below", "expired")]
        for mark in asked:
            self._marks.remove(mark)
            if mark in self._answered:
                continue
            self._answered.add(mark)
            if mark.name == "here":
                self._has_workspace = True
            elif mark.name in self._questions:
                self._questions[mark.name](self.container, f"{mark.name} {mark.killed}")
                self._signal("SIGUSR2")

    # --- Steps -------------------------------------------------------------------------------------------------

    def run(
        self,
        steps: Sequence[Step],
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        """Run the steps one after the other, up to the first that fails; how that failed, or ``None``.

        The first call is for the steps that the container's command has already. ``on_output`` gets every byte that
        they write, ``on_end`` the index of each step that has ended well, ``on_gap`` what to say of output that was
        lost with a connection. Raises ``RunnerError``: the engine is lost, the container was removed by somebody, or it
        ended by itself because this process was not heard; and ``:cancelled``.
        """
        return self._run(lambda: self._deliver(steps), len(steps), on_output, on_end, on_gap, cancellation)

    def finish(
        self,
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        """Run the final step, which the container's command has: where it ends well, the session is over.

        The container then ends by itself, and the engine removes it. Where the step fails, the session waits for other
        steps. Otherwise as ``run``.
        """
        failure = self._run(lambda: self._signal("SIGURG"), 1, on_output, on_end, on_gap, cancellation)
        if failure is None:
            self.is_over = True
        return failure

    def _run(
        self,
        deliver: Callable[[], None],
        count: int,
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        cancellation.check()
        assert self._output is not None
        first = self._last_number
        self._listen(on_output)
        with self._failures(), cancellation.on_cancel(self._interrupt):
            if self._has_run:
                ended = self._until_reached(deliver, cancellation)
                if ended is not None:
                    return ended
            self._has_run = True
            done, failure = self._by_marks(first, 0, count, on_end)
            if failure is not None:
                return failure
            data: bytes | None
            data, self._rest = self._rest, b""
            while done < count or data:
                data = data or self._output.read()
                if data is not None:
                    data = self._splitter.feed(data)
                else:
                    self._splitter.finish()
                    cancellation.check()
                    ended = self._reconnect(on_gap, cancellation)
                    if ended is not None:
                        # Marks that came with the last of the output say more than the end of the container.
                        done, failure = self._by_marks(first, done, count, on_end)
                        return failure or (replace(ended, step=done) if done < count else None)
                if self._marks:
                    # A step that ended because the flow was cancelled has not failed.
                    cancellation.check()
                    done, failure = self._by_marks(first, done, count, on_end)
                    if failure is not None:
                        while data:
                            data = self._splitter.feed(data)
                        return failure
        return None

    def _by_marks(self, first: int, done: int, count: int, on_end: Callable[[int], None]) -> tuple[int, Failure | None]:
        """Take note of the marks that have come: how many steps are done now, and how the one after them failed."""
        self._answer()
        marks = list(self._marks)
        self._marks.clear()
        for mark in marks:
            if mark.number == 0:
                if mark.name == "expired":
                    # It ends now: what comes after this is how the step took that.
                    self._expired = True
                elif mark.name == "below":
                    return done, Failure(done, mark.status, out_of_memory=False)
                continue
            # A mark may arrive a second time after a connection was lost.
            if mark.number <= self._last_number:
                continue
            self._last_number = mark.number
            # Of the steps before it, the marks were lost; had one of them failed, this one would not have begun.
            while done < min(mark.number - first - 1, count):
                on_end(done)
                done += 1
            if mark.status != 0:
                if self._expired:
                    raise errors.session_expired(self._patience)
                return done, Failure(done, mark.status, out_of_memory=mark.killed > 0)
            on_end(done)
            done += 1
        return done, None

    def _deliver(self, steps: Sequence[Step]) -> None:
        # This may be done again where no answer came: steps that have begun already are not run a second time.
        content = to_file(self._last_number + 1, steps)
        container.put_file(self.engine, self.container, f"{STATE}/steps", content)
        self._signal("SIGUSR2")

    def _signal(self, name: str) -> None:
        container.signal(self.engine, self.container, name, timeout=self.engine.api.timeout)

    def _pass_on(self, data: bytes) -> None:
        self._on_output(data)

    def _listen(self, on_output: Callable[[bytes], None]) -> None:
        """Let ``on_output`` have what has come and what is to come."""
        early, self._early = self._early, []
        self._on_output = on_output
        for data in early:
            on_output(data)

    # --- Beside the steps --------------------------------------------------------------------------------------

    def read_file(self, path: str) -> tuple[bytes, float | None] | None:
        """The content of a small file of the container, and when that was by the engine's clock, if that is known.

        ``None`` where the file cannot be had: nothing depends on it. For any thread.
        """
        try:
            content, at = archive.read_file_and_time(self.engine, self.container, path, LOOK_TIMEOUT)
        except (*_FAILURES, NoContainerError):
            return None
        return None if content is None else (content, at)

    def output_of(self, command: Sequence[str], user: str) -> bytes | None:
        """What a program writes that runs as ``user`` in the build directory, beside the steps; waited for.

        ``None`` where it cannot be run: nothing depends on it. It ends with the session. For any thread.
        """
        try:
            output = CommandOutput(self.engine, self.container, command, user)
            with closing(output):
                written = bytearray()
                while (data := output.read()) is not None:
                    written += data
        except (*_FAILURES, NoContainerError):
            return None
        return bytes(written)

    # --- A terminal --------------------------------------------------------------------------------------------

    def run_on_terminal(
        self,
        converse: Callable[[Stream, Callable[[int, int], None]], None],
        cancellation: Cancellation,
        on_output: Callable[[bytes], None] = lambda _: None,
        *,
        steps: int = 1,
    ) -> Failure | None:
        """Run the container, which has a console, to its end, with somebody at the other end of its terminal.

        ``converse`` gets the stream of that terminal, and what tells the engine another size (rows, columns); it
        returns when the stream ends. It is called again after a connection was lost. ``on_output`` gets all that the
        terminal gets. The result is ``None`` where the program at the terminal ended with status 0. The program may
        have several ``steps`` and tell how they ended with marks; where there is no mark, it was the last one that
        failed. Raises ``RunnerError``.
        """
        assert self._terminal is not None
        stream = self._terminal

        def resize(rows: int, columns: int) -> None:
            container.resize(self.engine, self.container, rows, columns)

        shown: list[bytes] = []

        def take_out(data: bytes) -> bytes:
            while data:
                data = self._splitter.feed(data)
                self._answer()
            data = b"".join(shown)
            shown.clear()
            if data:
                on_output(data)
            return data

        with self._failures():
            self._listen(shown.append)
            # What came before somebody was there to see it.
            rest, self._rest = self._rest, b""
            stream.push_back(take_out(rest))
            while True:
                stream.take_out = take_out
                try:
                    converse(stream, resize)
                finally:
                    stream.close()
                cancellation.check()
                ended = self._below()
                if ended is None:
                    reached = self._until_reached(self._attach_terminal_again, cancellation)
                    if not isinstance(reached, Failure):
                        stream = reached
                        continue
                    ended = reached
                said = [mark for mark in self._marks if mark.number > 0]
                if said:
                    # What a step says of its own end is surer than what the programs around it know.
                    ended = Failure(said[-1].number - 1, said[-1].status, out_of_memory=said[-1].killed > 0)
                else:
                    ended = replace(ended, step=steps - 1)
                return None if ended.status == 0 else ended

    # --- Life --------------------------------------------------------------------------------------------------

    def park(self) -> bool:
        """Release the volume, but keep the container for ``unpark``. Returns whether that worked."""
        try:
            container.rename(self.engine, self.container, lock.parked_name(self.volume, self.container))
        except (*_FAILURES, NoContainerError, NameTakenError):
            return False
        return True

    def is_undisturbed(self) -> bool:
        """Whether the container still runs, and nobody has taken the volume, since ``park``."""
        try:
            lock.check_free(self.engine, self.volume)
            found = container.inspect(self.engine, self.container)
        except _FAILURES:
            return False
        return found is not None and bool(found["State"]["Running"])

    def unpark(self) -> bool:
        """Take the volume again. Returns ``False`` if somebody else has it, or if the container has gone meanwhile."""
        try:
            container.rename(self.engine, self.container, lock.session_name(self.volume))
            lock.check_free(self.engine, self.volume, own=self.container)
        except (*_FAILURES, NoContainerError, NameTakenError):
            return False
        return True

    def end(self) -> None:
        """End the container, if it is still there, and release the volume."""
        self._heart.stop()
        if self._output is not None:
            self._output.close()
        if self._terminal is not None:
            self._terminal.close()
        with self.engine.cleaning_up():
            container.remove(self.engine, self.container)

    def _hang_up(self) -> None:
        if self._output is not None:
            self._output.hang_up()

    def _interrupt(self) -> None:
        """Called when the flow is cancelled, in a thread of its own."""
        with self.engine.cleaning_up():
            container.stop(self.engine, self.container)
        # Where it could not be stopped, the flow must not wait for it to end; it is removed by force.
        self._hang_up()

    def _reconnect(self, on_gap: Callable[[str], None], cancellation: Cancellation) -> Failure | None:
        """The output has ended: attach to it again, or say how the container has ended."""
        assert self._output is not None
        whole = self._output.is_whole
        self._output.close()
        reached = self._until_reached(self._attach_again, cancellation)
        if isinstance(reached, Failure):
            if not whole:
                on_gap("The output of the build broke off; the last of it is not in the log.")
            return reached
        self._output, marks = reached
        self._marks += marks
        on_gap("The connection to the output of the build was lost; what it wrote meanwhile is not in the log.")
        return None

    def _attach_again(self) -> tuple[Output, list[Mark]]:
        """The output from now on, and the marks of all steps that have ended by now."""
        self._check_runs()
        output = Output(self.engine, self.container)
        try:
            # Where there is no such file, the container has only just begun.
            return output, marks_in(archive.read_file(self.engine, self.container, f"{STATE}/ended") or b"")
        except BaseException:
            output.close()
            raise

    def _attach_terminal_again(self) -> Stream:
        self._check_runs()
        return container.attach_terminal(self.engine, self.container)

    def _check_runs(self) -> None:
        """Raise ``NoContainerError`` where the container has ended.

        It is still there for a moment then. Docker 20.10 leaves the wish to attach to it without an answer, but refuses
        a heartbeat to it.
        """
        self._signal("SIGUSR1")

    def _until_reached(self, connect: Callable[[], _T], cancellation: Cancellation) -> _T | Failure:
        """What ``connect`` gives, tried again for as long as the patience lasts; or how the container has ended."""
        deadline = time.monotonic() + self._patience
        while True:
            cancellation.check()
            self._heart.check()
            try:
                return connect()
            except NoContainerError:
                return self._ended()
            except (docker.errors.DockerException, requests.RequestException, OSError) as error:
                # What an engine says with a status of 500 and above may pass: it may be starting.
                if isinstance(error, docker.errors.APIError) and not error.is_server_error():
                    raise
                # Heartbeats may arrive although this does not.
                if time.monotonic() > deadline:
                    raise
                self._heart.hurry()
            time.sleep(RETRY_INTERVAL)

    def _ended(self) -> Failure:
        """Why the container is not there any more. Raises ``RunnerError`` where that was not its own doing."""
        below = self._below()
        if below is not None:
            return below
        end = container.how_it_ended(self.engine, self.container)
        if self._expired or end.status == EXPIRED or any(mark.name == "expired" for mark in self._marks):
            raise errors.session_expired(self._patience)
        if end.status is not None or end.out_of_memory:
            status = 137 if end.status is None else end.status
            return Failure(0, status, out_of_memory=end.out_of_memory, by_somebody=end.killed and not end.out_of_memory)
        if self._heart.trouble is not None:
            # The engine could not be reached for a while: it was restarted, and has forgotten its containers.
            raise self._heart.trouble
        raise errors.container_gone(self._name)

    def _below(self) -> Failure | None:
        """How the program below scripts/session.sh has ended by itself, if a mark says so."""
        for mark in self._marks:
            if mark.name == "below":
                return Failure(0, mark.status, out_of_memory=False)
        return None

    @contextmanager
    def _failures(self) -> Iterator[None]:
        with self.engine.failures(self._doing):
            try:
                yield
            except NoContainerError as error:
                raise errors.container_gone(self._name) from error


class _Heart:
    """Sends the heartbeats, and knows whether the engine still takes them."""

    def __init__(self, engine: Engine, name: str, patience: int, doing: str) -> None:
        self._engine = engine
        self._container = name
        self._patience = patience
        self._doing = doing
        self._interval = min(BEAT_INTERVAL, patience / 4)
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._lost = False
        self.trouble: errors.RunnerError | None = None
        """The error of the last heartbeat, if it did not arrive."""

    def start(self, on_end: Callable[[], None]) -> None:
        """Begin. ``on_end`` is called when there is no more use: the container has gone, or the engine is lost."""
        self._thread = threading.Thread(target=self._beat, args=(on_end,), name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No further heartbeat."""
        self._stopped = True
        self._wake.set()

    def hurry(self) -> None:
        """The engine has just not answered: do not wait for the next heartbeat to find out more."""
        self._wake.set()

    def check(self) -> None:
        """Raise the error of an engine that could not be reached for longer than the patience."""
        if self._lost and self.trouble is not None:
            raise self.trouble

    def _beat(self, on_end: Callable[[], None]) -> None:
        # Seconds without an answer. Counted by attempts that failed, not by the clock: after a laptop has slept, or a
        # process was stopped, nothing is missed if the next heartbeat arrives.
        missed = 0.0
        pause = self._interval
        while True:
            began = time.monotonic()
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopped:
                return
            try:
                with self._engine.failures(self._doing):
                    container.signal(self._engine, self._container, "SIGUSR1", timeout=self._interval)
            except NoContainerError:
                on_end()
                return
            except errors.RunnerError as error:
                missed += min(time.monotonic() - began, pause + self._interval)
                pause = RETRY_INTERVAL
                self.trouble = error
                if missed > self._patience:
                    self._lost = True
                    on_end()
                    return
            else:
                self._engine.has_answered()
                self.trouble = None
                missed, pause = 0.0, self._interval
