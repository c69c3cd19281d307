"""Requests that the engine answers with a stream of events: the pull and the build of an image.

The engine sends JSON objects, one after another, for as long as the work takes. It sends status 200 before the work is
done, so a failure of the work is an event, too. ``image.pull`` and ``image.build`` know the meaning of the events.
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

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import FORBIDDEN, PROBE_INTERVAL, Engine, hang_up, plain

PULL_TIMEOUT = 600
"""Seconds without an event after which a pull counts as stalled.

The engine itself waits for a registry without any limit. In a pull that works, the longest time without an event is the
checksum of a large layer on a slow disk, which takes one or two minutes.
"""

_READ_SIZE = 64 * 1024
_HANG_UP_TIMEOUT = 2
"""Seconds to wait for the reading thread after the connection was closed. The engine then ends the work."""

T = TypeVar("T")


class RefusedError(Exception):
    """The engine refused the request. The exception's text is the engine's message."""


class StalledError(Exception):
    """No event has arrived for ``PULL_TIMEOUT`` seconds."""


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
    """POST to the engine, and yield the events of its answer as they arrive.

    A separate thread reads them. So the flow can check between two events whether the engine still works, and can end
    at once when it is cancelled. Closing the generator closes the connection, and then the engine ends the work.
    ``may_be_silent`` means that the work may take longer than ``PULL_TIMEOUT`` without an event.
    Raises ``RefusedError``, ``StalledError``, ``RunnerError`` ``:cancelled``, and the exceptions of requests.
    """
    arrived: queue.SimpleQueue[Mapping[str, Any] | Exception | None] = queue.SimpleQueue()
    answer = _Answer(engine, path, params, headers or {}, body)

    def read() -> None:
        try:
            for event in answer.read():
                arrived.put(event)
            arrived.put(None)
        except Exception as error:  # noqa: BLE001  # the flow's thread raises it again
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
                    # A slow registry or a large layer is no failure, but an engine that does not answer is one.
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
        """Yield the events until the answer ends, or until ``hang_up`` is called."""
        self._response = self._engine.api.post(
            self._engine.url(self._path),
            params=dict(self._params),
            headers=dict(self._headers),
            data=self._body,
            stream=True,
            # The engine may answer only after it has received the first layer, or the whole build context.
            timeout=None,
        )
        with self._response as response:
            if response.status_code >= 400:
                reason = _reason(response)
                if response.status_code in FORBIDDEN and not _is_json(response):
                    # The engine passes on a registry's answer as JSON. So this answer comes from a proxy before it.
                    raise errors.engine_forbidden(self._engine.endpoint.url, f"(POST {self._path})", reason)
                raise RefusedError(reason)
            for event in _decode(_read(response)):
                if self._abandoned:
                    return
                yield event

    def hang_up(self) -> bool:
        """Make ``read`` return, which runs in another thread.

        Returns ``False`` if that is not possible, because ``read`` still waits for the first byte of the answer.
        """
        self._abandoned = True
        if self._response is None:
            return False
        hang_up(self._response)
        return True


def _read(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives. ``Response.iter_content`` would wait until its buffer is full."""
    if response.raw.chunked:
        yield from response.raw.read_chunked(decode_content=True)
    else:
        while data := response.raw.read1(_READ_SIZE):
            yield data


def _decode(pieces: Iterator[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a stream of JSON texts. The pieces may be cut anywhere."""
    decoder = json.JSONDecoder()
    pending = b""
    for piece in pieces:
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            yield from _objects(decoder, line)
    yield from _objects(decoder, pending)


def _objects(decoder: json.JSONDecoder, line: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in one line. The engine writes no newline within an object (in JSON text it is an escape)."""
    text = line.decode("utf-8", "replace").strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError as error:
            # requests raises this exception for an answer that is not JSON, and ``Engine.failures`` handles it.
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
    return plain(text) or f"{response.status_code} {response.reason}"


def _is_json(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").startswith("application/json")


def within(seconds: float, function: Callable[[], T], cancellation: Cancellation) -> T:
    """Return the result of ``function``, which may never return and cannot be interrupted.

    Raises the exceptions of ``function``, ``TimeoutError``, and ``RunnerError`` ``:cancelled``. After that ``function``
    may still run in its thread. The process does not wait for that thread when it exits.
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
