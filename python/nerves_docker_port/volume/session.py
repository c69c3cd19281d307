"""A session: one container that holds a build volume, lives as long as the helper sends heartbeats, and runs steps.

The container's name is the lock (lock.py). This process sends the container a signal every few seconds, the heartbeat.
The script in the container (scripts/session.sh) ends the container if no heartbeat arrives for ``patience`` seconds. So
a build ends by itself after its helper was killed, after a power cut of the host, or after the network was lost. If the
connection is lost for less than ``patience`` seconds, the build goes on, and only the log has a gap.

This module knows how steps come into the container and how the helper learns that they have ended. It must not know
what a step is for.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, TypeVar

import docker.errors
import requests

from nerves_docker_port import errors
from nerves_docker_port.background import Background
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import archive, container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import CommandOutput, NameTakenError, NoContainerError, Output, Spec
from nerves_docker_port.engine.stream import Stream
from nerves_docker_port.volume import lock
from nerves_docker_port.volume.steps import NOT_KNOWN, FileReceiver, Mark, Splitter, Step, marks_in, to_file

BEAT_INTERVAL = 10.0
"""Seconds between two heartbeats. It is a quarter of the patience if that is less."""

RETRY_INTERVAL = 1.0
"""Seconds between two attempts to reach an engine that does not answer."""

COPY_ATTEMPTS = 5
"""How often a file is copied whose copy breaks off, because the connection to the engine is lost."""

LOOK_TIMEOUT = 10.0
"""Seconds that the engine may take to read a file that only the journal needs."""

KILLED = 128 + 9
"""The exit status of a program that was killed by the signal KILL."""

EXPIRED = 75
"""The exit status of scripts/session.sh if no heartbeat arrived for longer than the patience."""

STATE = "/nerves-docker-port"
"""The directory in the container in which the helper and the scripts exchange files (scripts/session.sh)."""

ANSWERED = "answered"
"""The file in the directory ``STATE`` that tells a script that the helper has answered its question."""

Questions: TypeAlias = Mapping[str, Callable[[str, str], None]]
"""The functions that answer questions of the scripts. The key is the name of the mark that asks (scripts/say.sh).

A function is called with the container's id and with the text that it must write to the file ``ANSWERED``. The script
reads that file again and again. The function is called again if the connection breaks, so it may be called twice."""

_T = TypeVar("_T")

_FAILURES = (docker.errors.DockerException, requests.RequestException, errors.RunnerError, OSError)


@dataclass(frozen=True)
class Failure:
    """A step or the container itself has failed."""

    step: int
    """The index of the step in the list of steps that were to run."""
    status: int
    """The exit status."""
    out_of_memory: bool | None
    """The kernel killed a process because memory ran out. ``None`` if it is not known whether it did."""
    by_somebody: bool = False
    """Somebody killed or removed the container."""


def _has_run_out_of_memory(mark: Mark) -> bool | None:
    return None if mark.killed == NOT_KNOWN else mark.killed > 0


class Session:
    """One container on one volume. Only one thread may use it, except for the methods that say otherwise."""

    def __init__(
        self,
        engine: Engine,
        volume: str,
        spec: Spec,
        *,
        steps: Sequence[Step],
        token: str,
        patience: int,
        questions: Questions,
        doing: str,
    ) -> None:
        """Make the container ``spec``, which takes the lock of ``volume``. The container is not started yet.

        The container's command contains the first ``steps`` and the ``token`` of the marks (scripts/steps.sh).
        ``patience`` is in seconds. ``doing`` completes the sentence "The engine stopped answering ...". Raises
        ``RunnerError`` with the code ``:volume_busy`` if another container uses the volume.
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
        # Output that arrives before `run` has set a listener. The first listener gets it.
        self._early_output: list[bytes] = []
        self._on_output: Callable[[bytes], None] = self._early_output.append
        # Output that arrived in the same read as the mark `here`, after that mark.
        self._unread_output = b""
        self._marks: list[Mark] = []
        self._splitter = Splitter(token, self._pass_on, self._marks.append)
        self._files = FileReceiver(token)
        self.has_workspace = False
        """Whether the workspace is ready, so that the first step starts or has started."""
        # The steps that the container has and that `run` was not called for yet.
        self._given_steps = list(steps)
        self._answered: set[Mark] = set()
        self._last_number = 0
        self._expired = False
        self.is_over = False
        """Whether the final step has succeeded. The container ends after that."""
        self.container = lock.take(engine, volume, spec, checks=False)
        self._heartbeat = _Heartbeat(engine, self.container, patience, doing)

    def begin(self, cancellation: Cancellation) -> None:
        """Start the container and wait until its workspace is ready. The first step starts after that.

        Call this once, before every other method. If the container ends or the connection breaks before the workspace
        is ready, this method returns, and ``run`` reports the failure. Raises ``RunnerError``, with the code
        ``:volume_busy`` if another container uses the volume, and ``NotSeenError`` if the engine cannot see the host's
        directories.
        """
        with self._failures(), cancellation.on_cancel(self._interrupt):
            free = Background(lambda: lock.check_free(self.engine, self.volume, own=self.container))
            # The output is attached before the start, because the engine keeps no log of it that could be read later.
            if self._console is None:
                self._output = self._attach()
            else:
                self._terminal = container.attach_terminal(self.engine, self.container)
            free.result()
            container.start(self.engine, self.container)
            self._heartbeat.start(self._hang_up)
            if self._console is not None:
                container.resize(self.engine, self.container, *self._console)
            # A cancellation that came before the start could not stop the container.
            cancellation.check()
            while not self.has_workspace and self._end_of_program() is None:
                data = self._output.read() if self._output is not None else self._terminal_read(cancellation)
                if data is None:
                    break
                while data and not self.has_workspace:
                    data = self._splitter.feed(data)
                    self._answer_questions(cancellation)
                self._unread_output = data
            cancellation.check()

    def _attach(self) -> Output:
        return Output(self.engine, self.container, self._files.feed)

    def _terminal_read(self, cancellation: Cancellation) -> bytes | None:
        """Wait for output of the terminal and return it. Return ``None`` at the end of the stream."""
        assert self._terminal is not None
        while (data := self._terminal.read()) is None:
            cancellation.check()
            self._heartbeat.check()
            # With TLS, bytes can be in Python's buffer already. They do not make the descriptor ready.
            select.select([self._terminal.read_fd], [], [], RETRY_INTERVAL)
        return data or None

    def _answer_questions(self, cancellation: Cancellation) -> None:
        """Answer the questions that the marks ask, each one once, and remove these marks.

        If the connection breaks meanwhile, the question is answered again. If the container has ended, this method
        returns, because the end of the output then tells the caller.
        """
        asked = [mark for mark in self._marks if mark.number == 0 and mark.name not in ("below", "expired")]
        for mark in asked:
            self._marks.remove(mark)
            if mark in self._answered:
                continue
            self._answered.add(mark)
            if mark.name == "here":
                self.has_workspace = True
            elif mark.name in self._questions:
                answer = partial(self._questions[mark.name], self.container, f"{mark.name} {mark.killed}")
                with self._heartbeat.not_counted():
                    # The engine answers with status 500 if its disk is full. A large package is not sent again then.
                    self._retry(answer, cancellation, retries_answers=False)

    # --- Steps -------------------------------------------------------------------------------------------------

    def run(
        self,
        steps: Sequence[Step],
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        """Run the steps one after the other until one fails. Return its failure, or ``None`` if all steps succeed.

        The container runs the steps in its command directly one after the other, so the first calls must be for these,
        in their order. Other steps are sent to the container. ``on_output`` gets every byte that the steps write,
        ``on_end`` gets the index of each step that has succeeded, and ``on_gap`` gets a sentence for the user if output
        was lost with a connection. Raises ``RunnerError`` if the engine cannot be reached, if somebody removed the
        container, if the container ended because no heartbeat arrived, or if the flow was cancelled.
        """
        # After a step that failed, the container runs no further step of its command, so they are all forgotten.
        given, self._given_steps = self._given_steps, []
        is_given = given[: len(steps)] == list(steps)
        deliver = None if is_given else lambda: self._deliver(steps)
        failure = self._run(deliver, len(steps), on_output, on_end, on_gap, cancellation)
        if is_given and failure is None:
            self._given_steps = given[len(steps) :]
        return failure

    def receive(
        self,
        step: Step,
        begin: Callable[[], Callable[[bytes], None]],
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        """Run a step that copies a file to the helper by scripts/copy.sh.

        ``begin`` is called when the file begins to arrive, and again each time that it is copied anew because a part of
        it was lost with a connection. It returns the function that gets the content. The other arguments, the result
        and the errors are those of ``run``.
        """
        self._files.expect(begin)
        for _ in range(COPY_ATTEMPTS):
            # What is lost of a file is not lost in the log, so the user is not told about it.
            failure = self.run([step], on_output, on_end, lambda _: None, cancellation)
            if failure is not None or self._rest_of_file(cancellation):
                return failure
            # The container has run the other steps of its command by now, and it runs no step twice. `run` sends them
            # again if they are still wanted.
            rest, self._given_steps = self._given_steps, []
            if rest:
                self._run(None, len(rest), on_output, lambda _: None, on_gap, cancellation)
        with self._failures():
            raise ConnectionError("the connection broke each time while a file was copied")

    def _rest_of_file(self, cancellation: Cancellation) -> bool:
        """Wait for the rest of the file that a step has copied. Return ``False`` if a part of it was lost."""
        assert self._output is not None
        with self._failures(), cancellation.on_cancel(self._interrupt):
            while not self._files.has_taken_file():
                data = None if self._files.is_lost else self._output.read()
                cancellation.check()
                if data is None:
                    self._files.lose()
                    return False
                while data:
                    data = self._splitter.feed(data)
        return True

    def finish(
        self,
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        """Run the final step, which is in the container's command. The session is over if the step succeeds.

        The container then ends by itself, and the engine removes it. If the step fails, the session can run other
        steps. The arguments, the result and the errors are those of ``run``.
        """
        failure = self._run(lambda: self._signal("SIGURG"), 1, on_output, on_end, on_gap, cancellation)
        if failure is None:
            self.is_over = True
        return failure

    def _run(
        self,
        deliver: Callable[[], None] | None,
        count: int,
        on_output: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_gap: Callable[[str], None],
        cancellation: Cancellation,
    ) -> Failure | None:
        cancellation.check()
        assert self._output is not None
        first = self._last_number
        self._set_listener(on_output)
        with self._failures(), cancellation.on_cancel(self._interrupt):
            if deliver is not None:
                ended = self._retry(deliver, cancellation)
                if ended is not None:
                    return ended
            done, failure = self._process_marks(first, 0, count, on_end, cancellation)
            if failure is not None:
                return failure
            data: bytes | None
            data, self._unread_output = self._unread_output, b""
            while done < count:
                data = data or self._output.read()
                if data is not None:
                    data = self._splitter.feed(data)
                else:
                    self._splitter.finish()
                    cancellation.check()
                    ended = self._reconnect(on_gap, cancellation)
                    if ended is not None:
                        # Marks in the last output say more about the failure than the container's exit status.
                        done, failure = self._process_marks(first, done, count, on_end, cancellation)
                        return failure or (replace(ended, step=done) if done < count else None)
                if self._marks:
                    # If the flow was cancelled, that ended the step, so this is not a failure.
                    cancellation.check()
                    done, failure = self._process_marks(first, done, count, on_end, cancellation)
                    if failure is not None:
                        break
            # Output in the same read belongs to these steps. Marks in it are kept for the next call.
            while data:
                data = self._splitter.feed(data)
        return failure

    def _process_marks(
        self, first: int, done: int, count: int, on_end: Callable[[int], None], cancellation: Cancellation
    ) -> tuple[int, Failure | None]:
        """Process the marks that have arrived. Return how many steps have succeeded, and the failure if one failed.

        ``first`` is the number of the last mark before this run, and ``done`` the steps of it that have succeeded.
        Marks of later steps are kept for the next call of ``run``.
        """
        self._answer_questions(cancellation)
        marks = list(self._marks)
        self._marks.clear()
        for place, mark in enumerate(marks):
            if done == count:
                self._marks += marks[place:]
                break
            if mark.number == 0:
                if mark.name == "expired":
                    # The container ends now. A step that fails after this mark fails because of that.
                    self._expired = True
                elif mark.name == "below":
                    return done, Failure(done, mark.status, _has_run_out_of_memory(mark))
                continue
            # The same mark can arrive twice after a connection was lost.
            if mark.number <= self._last_number:
                continue
            self._last_number = mark.number
            # The marks of earlier steps were lost with a connection. These steps have succeeded, because no step starts
            # after one that failed.
            while done < min(mark.number - first - 1, count):
                on_end(done)
                done += 1
            if mark.status != 0:
                if self._expired:
                    raise errors.session_expired(self._patience)
                return done, Failure(done, mark.status, out_of_memory=_has_run_out_of_memory(mark))
            on_end(done)
            done += 1
        return done, None

    def _deliver(self, steps: Sequence[Step]) -> None:
        # This is called again if the engine did not answer. scripts/steps.sh runs no step twice.
        content = to_file(self._last_number + 1, steps)
        container.put_file(self.engine, self.container, f"{STATE}/steps", content)
        self._signal("SIGUSR2")

    def _signal(self, name: str) -> None:
        container.signal(self.engine, self.container, name, timeout=self.engine.api.timeout)

    def _pass_on(self, data: bytes) -> None:
        self._on_output(data)

    def _set_listener(self, on_output: Callable[[bytes], None]) -> None:
        """Pass the output that has arrived, and all further output, to ``on_output``."""
        arrived, self._early_output = self._early_output, []
        self._on_output = on_output
        for data in arrived:
            on_output(data)

    # --- Beside the steps --------------------------------------------------------------------------------------

    def read_file(self, path: str) -> tuple[bytes, float | None] | None:
        """Return the content of a small file in the container, and the engine's time when it was read, if it is known.

        Return ``None`` if the file cannot be read, because no build depends on it. Any thread may call this.
        """
        try:
            content, at = archive.read_file_and_time(self.engine, self.container, path, LOOK_TIMEOUT)
        except (*_FAILURES, NoContainerError):
            return None
        return None if content is None else (content, at)

    def output_of(self, command: Sequence[str], user: str) -> bytes | None:
        """Run ``command`` as ``user`` in the build directory, while the steps run, and return what it has written.

        Return ``None`` if it cannot be run, because no build depends on it. The program ends with the session at the
        latest. Any thread may call this.
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
        """Connect the container's terminal with the user's, and wait until the container ends. It must have a console.

        ``converse`` gets the stream of the container's terminal, and a function that tells the engine the size of the
        user's terminal (rows, columns). It must return when the stream ends, and is called again after a connection
        was lost. ``on_output`` gets everything that the terminal shows. Return ``None`` if the program at the terminal
        ended with status 0. The program can consist of several ``steps`` and write a mark at the end of each. Without a
        mark, the last step counts as the one that failed. Raises ``RunnerError``.
        """
        assert self._terminal is not None
        stream = self._terminal

        def resize(rows: int, columns: int) -> None:
            container.resize(self.engine, self.container, rows, columns)

        shown: list[bytes] = []

        def take_out(data: bytes) -> bytes:
            while data:
                data = self._splitter.feed(data)
                self._answer_questions(cancellation)
            data = b"".join(shown)
            shown.clear()
            if data:
                on_output(data)
            return data

        with self._failures():
            self._set_listener(shown.append)
            # Output that arrived before this call is shown first.
            unread, self._unread_output = self._unread_output, b""
            stream.push_back(take_out(unread))
            while True:
                stream.take_out = take_out
                try:
                    converse(stream, resize)
                finally:
                    stream.close()
                cancellation.check()
                ended = self._end_of_program()
                if ended is None:
                    reached = self._retry(self._attach_terminal_again, cancellation)
                    if not isinstance(reached, Failure):
                        stream = reached
                        continue
                    ended = reached
                said = [mark for mark in self._marks if mark.number > 0]
                if said:
                    # The mark of a step is more reliable than the exit status of the programs around the step.
                    last = said[-1]
                    ended = Failure(last.number - 1, last.status, out_of_memory=_has_run_out_of_memory(last))
                else:
                    ended = replace(ended, step=steps - 1)
                return None if ended.status == 0 else ended

    # --- Life --------------------------------------------------------------------------------------------------

    def park(self) -> bool:
        """Release the volume, but keep the container for ``unpark``. Return whether that succeeded."""
        try:
            container.rename(self.engine, self.container, lock.parked_name(self.volume, self.container))
        except (*_FAILURES, NoContainerError, NameTakenError):
            return False
        return True

    def is_undisturbed(self) -> bool:
        """Return whether the container still runs and no other container has taken the volume since ``park``."""
        inspecting = Background(lambda: container.inspect(self.engine, self.container))
        try:
            lock.check_free(self.engine, self.volume)
            found = inspecting.result()
        except _FAILURES:
            return False
        return found is not None and bool(found["State"]["Running"])

    def unpark(self) -> bool:
        """Take the volume again. Return ``False`` if another container has it, or if this container has ended."""
        try:
            container.rename(self.engine, self.container, lock.session_name(self.volume))
            lock.check_free(self.engine, self.volume, own=self.container)
        except (*_FAILURES, NoContainerError, NameTakenError):
            return False
        return True

    def end(self) -> None:
        """Remove the container if it still exists. This releases the volume. Any thread may call this."""
        self._heartbeat.stop()
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
        """Stop the container. This is called in a separate thread if the flow is cancelled."""
        # The engine may not stop the container before its output is read, which takes long on a slow connection.
        timer = threading.Timer(container.STOP_GRACE, self._hang_up)
        timer.daemon = True
        timer.start()
        with self.engine.cleaning_up():
            container.stop(self.engine, self.container)
        timer.cancel()
        # If the container could not be stopped, the flow must not wait for its end. `end` removes it by force.
        self._hang_up()

    def _reconnect(self, on_gap: Callable[[str], None], cancellation: Cancellation) -> Failure | None:
        """Attach to the output again after its stream has ended. Return the failure if the container has ended."""
        assert self._output is not None
        whole = self._output.is_whole
        self._output.close()
        self._files.lose()
        reached = self._retry(self._attach_again, cancellation)
        if isinstance(reached, Failure):
            if not whole:
                on_gap("The output of the build broke off; the last of it is not in the log.")
            return reached
        self._output, marks = reached
        self._marks += marks
        on_gap("The connection to the output of the build was lost; what it wrote meanwhile is not in the log.")
        return None

    def _attach_again(self) -> tuple[Output, list[Mark]]:
        """Attach to the output. Return it with the marks of all steps that have ended by now."""
        self._check_runs()
        output = self._attach()
        try:
            # The file does not exist if the container has only just started.
            return output, marks_in(archive.read_file(self.engine, self.container, f"{STATE}/ended") or b"")
        except BaseException:
            output.close()
            raise

    def _attach_terminal_again(self) -> Stream:
        self._check_runs()
        return container.attach_terminal(self.engine, self.container)

    def _check_runs(self) -> None:
        """Raise ``NoContainerError`` if the container has ended.

        The engine still has the container for a moment after its end. In that moment Docker 20.10 does not answer a
        request to attach to it, but it refuses a signal to it. So a heartbeat is sent before each request to attach.
        """
        self._signal("SIGUSR1")

    def _retry(
        self, request: Callable[[], _T], cancellation: Cancellation, *, retries_answers: bool = True
    ) -> _T | Failure:
        """Return the result of ``request``. If the container has ended, return its failure.

        While the engine does not answer, retry until the patience is over, and then raise the last error. With
        ``retries_answers``, an answer with a status of 500 or above counts as none.
        """
        deadline = time.monotonic() + self._patience
        while True:
            cancellation.check()
            self._heartbeat.check()
            try:
                return request()
            except NoContainerError:
                return self._end_of_container()
            except (docker.errors.DockerException, requests.RequestException, OSError) as error:
                # An engine that is starting answers with a status of 500 or above, so a retry can succeed.
                if isinstance(error, docker.errors.APIError) and not (retries_answers and error.is_server_error()):
                    raise
                # There is a deadline because the engine may accept heartbeats although it never answers this request.
                if time.monotonic() > deadline:
                    raise
                self._heartbeat.send_now()
            time.sleep(RETRY_INTERVAL)

    def _end_of_container(self) -> Failure:
        """Return how the container ended. Raise ``RunnerError`` if no heartbeat arrived, or if its end is unknown."""
        ended = self._end_of_program()
        if ended is not None:
            return ended
        end = container.how_it_ended(self.engine, self.container)
        if self._expired or end.status == EXPIRED or any(mark.name == "expired" for mark in self._marks):
            raise errors.session_expired(self._patience)
        if end.status is not None or end.out_of_memory:
            status = 137 if end.status is None else end.status
            by_somebody = end.killed and not end.out_of_memory
            # Without such an event, it can still have been killed because the memory of the whole machine ran out.
            out_of_memory = end.out_of_memory or (False if by_somebody else None)
            return Failure(0, status, out_of_memory, by_somebody)
        if self._heartbeat.last_error is not None:
            # The engine could not be reached for a while. It was restarted, and has removed its containers.
            raise self._heartbeat.last_error
        raise errors.container_gone(self._name)

    def _end_of_program(self) -> Failure | None:
        """Return how the program that scripts/session.sh runs has ended; ``None`` if there is no mark ``below``."""
        for mark in self._marks:
            if mark.name == "below":
                return Failure(0, mark.status, _has_run_out_of_memory(mark))
        return None

    @contextmanager
    def _failures(self) -> Iterator[None]:
        with self.engine.failures(self._doing):
            try:
                yield
            except NoContainerError as error:
                raise errors.container_gone(self._name) from error


class _Heartbeat:
    """Sends the heartbeats in a thread, and knows whether the engine still accepts them."""

    def __init__(self, engine: Engine, name: str, patience: int, doing: str) -> None:
        self._engine = engine
        self._container = name
        self._patience = patience
        self._doing = doing
        self._interval = min(BEAT_INTERVAL, patience / 4)
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._is_engine_lost = False
        self._is_counting = True
        self.last_error: errors.RunnerError | None = None
        """The error of the last heartbeat, or ``None`` if the engine accepted it."""

    def start(self, on_end: Callable[[], None]) -> None:
        """Start the thread. It calls ``on_end`` if the container has ended or the patience with the engine is over."""
        self._thread = threading.Thread(target=self._send_until_stopped, args=(on_end,), name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no further heartbeat."""
        self._stopped = True
        self._wake.set()

    def send_now(self) -> None:
        """Send the next heartbeat at once, because the engine has just not answered another request."""
        self._wake.set()

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """Do not count heartbeats that fail during the body, which makes requests that have a timeout of their own.

        While an archive call writes files into the container, Docker 20.10 does not answer a heartbeat.
        """
        self._is_counting = False
        try:
            yield
        finally:
            self._is_counting = True

    def check(self) -> None:
        """Raise ``last_error`` if the engine could not be reached for longer than the patience."""
        if self._is_engine_lost and self.last_error is not None:
            raise self.last_error

    def _send_until_stopped(self, on_end: Callable[[], None]) -> None:
        # Seconds without an answer. They are counted by attempts that failed, not read from a clock. So the time for
        # which a laptop slept or this process was stopped does not count if the next heartbeat arrives.
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
                if self._is_counting:
                    missed += min(time.monotonic() - began, pause + self._interval)
                pause = RETRY_INTERVAL
                self.last_error = error
                if missed > self._patience:
                    self._is_engine_lost = True
                    on_end()
                    return
            else:
                self._engine.has_answered()
                self.last_error = None
                missed, pause = 0.0, self._interval
