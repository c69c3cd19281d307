"""Long requests to the engine that answer with events: a pull, the build of an image.

The engine answers with JSON objects, one after another, for as long as the work takes. Status 200 comes before the work
is done, so a failure is an event too; what an event means is known to ``image_pull`` and ``image_build``.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, TypeVar

import requests

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import PROBE_INTERVAL, Engine, hang_up

PULL_TIMEOUT = 600
"""Seconds without an event after which a pull counts as stalled. The engine itself waits for a registry without end;
the longest honest silence, the checksum of a large layer on a slow disk, takes a minute or two."""

_READ_SIZE = 64 * 1024
_HANG_UP_TIMEOUT = 2
"""Seconds that the reading thread has to give its connection back. The engine ends the work when it is closed."""

T = TypeVar("T")


class RefusedError(Exception):
    """The engine answered the request itself with an error; its text is the engine's."""


class StalledError(Exception):
    """Nothing has arrived for ``PULL_TIMEOUT``."""


def events(
    engine: Engine,
    path: str,
    *,
    params: Mapping[str, str],
    cancellation: Cancellation,
    headers: Mapping[str, str] | None = None,
    body: IO[bytes] | None = None,
    may_be_silent: bool = False,
) -> Generator[Mapping[str, Any], None, None]:
    """POST to the engine and give the events of its answer as they come.

    Read in a thread of its own, so that the flow can look after a while whether the engine still works, and leave at
    once when it is to end. Closing the generator closes the connection, and with it ends the engine's work.
    Raises ``RefusedError``, ``StalledError``, ``RunnerError`` ``:cancelled``, and what requests raises.
    """
    arrived: queue.SimpleQueue[Mapping[str, Any] | Exception | None] = queue.SimpleQueue()
    answer = _Answer(engine, path, params, headers or {}, body)

    def read() -> None:
        try:
            for event in answer.read():
                arrived.put(event)
            arrived.put(None)
        except Exception as error:  # noqa: BLE001  # raised again by the flow's thread
            arrived.put(error)

    with cancellation.on_cancel(lambda: arrived.put(None)):
        thread = threading.Thread(target=read, name="transfer", daemon=True)
        thread.start()
        heard = time.monotonic()
        try:
            while True:
                try:
                    event = arrived.get(timeout=min(PROBE_INTERVAL, PULL_TIMEOUT))
                except queue.Empty:
                    # A registry may take its time, and so may a large layer that is unpacked.
                    engine.api.ping()
                    if not may_be_silent and time.monotonic() - heard >= PULL_TIMEOUT:
                        raise StalledError(f"nothing has arrived for {PULL_TIMEOUT} seconds") from None
                    continue
                heard = time.monotonic()
                cancellation.check()
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            if answer.hang_up():
                thread.join(_HANG_UP_TIMEOUT)


class _Answer:
    """One request and the events of its answer."""

    def __init__(
        self,
        engine: Engine,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: IO[bytes] | None,
    ) -> None:
        self._engine = engine
        self._path = path
        self._params = params
        self._headers = headers
        self._body = body
        self._response: requests.Response | None = None
        self._abandoned = False

    def read(self) -> Iterator[Mapping[str, Any]]:
        """The events, until the answer ends or is hung up on."""
        self._response = self._engine.api.post(
            self._engine.url(self._path),
            params=dict(self._params),
            headers=dict(self._headers),
            data=self._body,
            stream=True,
            # The engine may only answer once the first layer, or the whole context, is there.
            timeout=None,
        )
        with self._response as response:
            if response.status_code >= 400:
                raise RefusedError(_reason(response))
            for event in _decode(_read(response)):
                if self._abandoned:
                    return
                yield event

    def hang_up(self) -> bool:
        """Let ``read`` return, from another thread; not where it still waits for the first byte of the answer."""
        self._abandoned = True
        if self._response is None:
            return False
        hang_up(self._response)
        return True


def _read(response: requests.Response) -> Iterator[bytes]:
    """The body as it arrives: `iter_content` would wait until a buffer is full."""
    if response.raw.chunked:
        yield from response.raw.read_chunked(decode_content=True)
    else:
        while data := response.raw.read1(_READ_SIZE):
            yield data


def _decode(pieces: Iterator[bytes]) -> Iterator[Mapping[str, Any]]:
    """The objects in a stream of JSON texts, however it is cut."""
    decoder = json.JSONDecoder()
    pending = b""
    for piece in pieces:
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            yield from _objects(decoder, line)
    yield from _objects(decoder, pending)


def _objects(decoder: json.JSONDecoder, line: bytes) -> Iterator[Mapping[str, Any]]:
    """The objects in one line. A newline is never inside one: JSON writes it as an escape."""
    text = line.decode("utf-8", "replace").strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError as error:
            # What requests says of an answer that is no JSON, so that ``Engine.failures`` knows it.
            raise requests.JSONDecodeError("the answer broke off", text, 0) from error
        if isinstance(value, dict):
            yield value
        text = text[end:].strip()


def _reason(response: requests.Response) -> str:
    text = response.text.strip()
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict) and isinstance(found.get("message") or found.get("cause"), str):
            return str(found.get("message") or found.get("cause"))
    return text or f"{response.status_code} {response.reason}"


def within(seconds: float, function: Callable[[], T], cancellation: Cancellation) -> T:
    """What ``function`` gives, for one that might never return and cannot be interrupted.

    Raises what it raises, and ``TimeoutError``. It may go on in its thread, which the process does not wait for.
    """
    done: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def call() -> None:
        try:
            done.put((True, function()))
        except Exception as error:  # noqa: BLE001  # raised again below
            done.put((False, error))

    with cancellation.on_cancel(lambda: done.put((False, None))):
        threading.Thread(target=call, name="call", daemon=True).start()
        try:
            worked, value = done.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no answer within {seconds} seconds") from None
    cancellation.check()
    if not worked:
        raise value
    result: T = value
    return result
