"""A scriptable engine on a Unix socket, for what a real one does not do on demand.

A real socket server that speaks real HTTP, after the idea of docker-py's unit tests: nothing in the helper is patched.
By itself it behaves: it keeps images, volumes and containers, and a session's container runs its steps, each as its
``Run`` says, takes heartbeats and further steps, and ends without a heartbeat (scripts/session.sh, scripts/steps.sh).
``on`` makes one endpoint misbehave; ``freeze`` and ``vanish`` the whole engine.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import platform
import queue
import re
import secrets
import socket
import socketserver
import struct
import tarfile
import termios
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.script import Steps, final_step_in, patience_in, steps_in, steps_in_file

if TYPE_CHECKING:
    from typing_extensions import Self

STDOUT = 1
STDERR = 2
ARTIFACT = gzip.compress(b"a whole artifact, read to its end\n" * 1000, mtime=0)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"

_LABEL = "nerves-docker-port."
_HERE = {"Name": platform.node(), "KernelVersion": os.uname().release}
"""What tells that it is on this machine."""
_STATE = "/nerves-docker-port"
_TICK = 0.1
"""Seconds between two looks whether a heartbeat has come."""
_PATIENCE = 30
"""Seconds after which a fake that waits for something gives up, so that no test can hang on it."""


def frame(payload: bytes, stream: int = STDOUT) -> bytes:
    """One frame of the engine's multiplexed stream."""
    return struct.pack(">BxxxL", stream, len(payload)) + payload


@dataclass
class Run:
    """What a step does, or a container that has none.

    Of ``output``, bytes are sent as they are (``frame`` makes frames), a number is a silence in seconds (that ends
    early when the container is stopped), and a callable is called with the container.
    """

    output: Sequence[bytes | float | Callable[[Container], None]] = ()
    status: int = 0
    killed: int = 0
    """How many of its processes are killed because memory ran out."""
    ignores_term: bool = False


@dataclass
class Container:
    """A container of the fake."""

    engine: FakeEngine
    id: str
    name: str
    config: dict[str, Any]
    created: float
    """Seconds since 1970, by the engine's clock."""
    status: str = "created"
    exit_code: int = 0
    beats: int = 0
    """The heartbeats that came."""
    marks: list[str] = field(default_factory=list)
    """The lines of the file ``ended``."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What was put into its layer, by path."""
    stopping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    streams: list[Exchange] = field(default_factory=list)
    attached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    notified: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    """What the script that runs the steps is told: "steps", "final", or nothing where it is to end."""
    looked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    expired: bool = False
    missed: float = 0.0
    """Seconds since the last heartbeat."""

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.config.get("Labels") or {})

    @property
    def step(self) -> str:
        """What its label says that it is for, or nothing."""
        return self.labels.get(_LABEL + "step", "")

    @property
    def steps(self) -> list[str]:
        """The steps that its command runs, by name; none for a container that is one command."""
        return [name for name, _words in self._script[1]]

    @property
    def token(self) -> str:
        """That of its marks."""
        return self._script[0]

    @property
    def _script(self) -> tuple[str, Steps]:
        return steps_in(self.config.get("Cmd") or [])

    @property
    def mounts(self) -> list[dict[str, Any]]:
        """As they were asked for."""
        return list(self._host_config.get("Mounts") or [])

    @property
    def removes_itself(self) -> bool:
        """Whether the engine removes it when it has ended."""
        return bool(self._host_config.get("AutoRemove"))

    @property
    def _host_config(self) -> dict[str, Any]:
        return dict(self.config.get("HostConfig") or {})

    def emit(self, data: bytes) -> None:
        """Send raw bytes to everybody who is attached, unless the engine is frozen: they are lost then."""
        if self.engine.frozen:
            return
        for stream in list(self.streams):
            stream.send(data)

    def emit_and_let_read(self, data: bytes) -> None:
        """Send raw bytes and wait until they have been read: they cannot arrive together with what comes next."""
        for stream in list(self.streams):
            stream.send(data)
            stream.wait_until_read()

    def cut(self) -> None:
        """Break the streams while the container runs on; a frozen engine does not get to that."""
        for stream in list(self.streams):
            if self.engine.frozen:
                self.engine.forgotten.append(stream)
            self.streams.remove(stream)
            if not self.engine.frozen:
                stream.hang_up()

    def wait_for_attach(self) -> None:
        """Wait until somebody (else) has attached."""
        assert self.attached.acquire(timeout=_PATIENCE), f"nobody attached to {self.name} again"

    def wait_for_look(self) -> None:
        """Wait until somebody has read which steps have ended: from then on only the output tells of an end."""
        assert self.looked.acquire(timeout=_PATIENCE), f"nobody looked into {self.name}"

    def wait_for_beats(self, count: int = 1) -> None:
        """Wait until so many further heartbeats have come."""
        wanted, deadline = self.beats + count, time.monotonic() + _PATIENCE
        while self.beats < wanted:
            assert time.monotonic() < deadline, f"no heartbeat came to {self.name}"
            self.ended.wait(0.01)

    def mark(self, name: str, status: int, killed: int = 0) -> None:
        """A step has ended: note it, and say it to who is attached."""
        self.marks.append(f"{len(self.marks) + 1} {name} {status} {killed}")
        self.say(self.marks[-1])

    def say(self, mark: str) -> None:
        """Send a mark to who is attached."""
        self.emit(frame(f"\x1e{self.token} {mark}\x1e".encode()))

    def expire(self) -> None:
        """End, because no heartbeat has come for too long."""
        self.expired = True
        self.say("0 expired 0 0")
        self.stop()

    def stop(self) -> None:
        """Take a TERM."""
        self.stopping.set()
        self.notified.put("")

    def kill(self) -> None:
        """End at once, by somebody's KILL."""
        self.engine.note("kill", self, signal="9")
        self.end(137)

    def run_out_of_memory(self) -> None:
        """End at once, because the kernel has killed the first program for want of memory."""
        self.engine.note("oom", self)
        self.end(137)

    def live(self) -> None:
        """Do what a started container does, to its end."""
        token, steps = self._script
        final = final_step_in(self.config.get("Cmd") or [])
        if not token:
            status = self._play(self.engine.runs.get(self.step, Run()))
            self.end(143 if self.stopping.is_set() else status)
            return
        threading.Thread(target=self._count_seconds, name=f"seconds of {self.name}", daemon=True).start()
        # scripts/look.sh has seen that the package's directory is the person's.
        self.say("0 here 0 0")
        self._perform(steps)
        while not self.stopping.is_set() and not self.ended.is_set():
            told = self.notified.get()
            if told == "final" and final and not self.stopping.is_set():
                self._perform(final)
                final = []
                if self.marks[-1].split()[2] == "0":
                    self.end(0)
                    return
            elif told == "steps" and not self.stopping.is_set():
                first, steps = steps_in_file(self.files[f"{_STATE}/steps"])
                if first > len(self.marks):
                    self._perform(steps)
        self.end(75 if self.expired else 143)

    def _count_seconds(self) -> None:
        patience = patience_in(self.config["Entrypoint"])
        while not self.ended.wait(_TICK):
            self.missed += _TICK
            if self.missed > patience:
                self.expire()
                return

    def _perform(self, steps: Steps) -> None:
        for name, _words in steps:
            run = self.engine.runs.get(name, Run())
            self.engine.started.append(name)
            status = self._play(run)
            if self.ended.is_set():
                return
            self.mark(name, status, run.killed)
            if status != 0 or self.stopping.is_set():
                return

    def _play(self, run: Run) -> int:
        """Do what a run says; its status."""
        for item in run.output:
            if self.ended.is_set() or (self.stopping.is_set() and not run.ignores_term):
                break
            if isinstance(item, bytes):
                self.emit(item)
            elif callable(item):
                item(self)
            elif run.ignores_term:
                self.ended.wait(item)
            else:
                self.stopping.wait(item)
        return 143 if self.stopping.is_set() else run.status

    def end(self, status: int) -> None:
        """Its first program has ended."""
        with self.engine.lock:
            if self.ended.is_set():
                return
            self.exit_code, self.status = status, "exited"
            self.engine.note("die", self, exitCode=str(status))
            self.ended.set()
        # Whatever waits for a stop need not wait any more.
        self.stop()
        self.cut()
        if self.removes_itself:
            timer = threading.Timer(self.engine.removal, self.engine.forget, (self,))
            timer.daemon = True
            timer.start()


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    """Without the API version."""
    query: dict[str, str]
    body: Any
    version: str
    """The API version that the path had, or nothing."""


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(self, engine: FakeEngine, handler: _Handler, asked: Asked) -> None:
        self.engine = engine
        self.asked = asked
        self._handler = handler
        self._sending = threading.RLock()

    @property
    def container(self) -> Container:
        """The container that the path names."""
        found = self.engine.find(self.asked.path.split("/")[2])
        assert found is not None
        return found

    def send(self, data: bytes) -> None:
        """Raw bytes on the connection. A peer that has gone is no error."""
        with self._sending, suppress(OSError):
            self._handler.connection.sendall(data)

    def wait_until_read(self) -> None:
        """Wait until the peer has read all that was sent."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            (unread,) = struct.unpack("i", fcntl.ioctl(self._handler.connection, termios.TIOCOUTQ, b"\0" * 4))
            if unread == 0:
                return
            time.sleep(0.0005)
        raise AssertionError("the peer does not read")

    def answer(self, status: int, body: bytes = b"", content_type: str = "application/json") -> None:
        """A whole answer."""
        handler = self._handler
        handler.send_response(status)
        if body:
            handler.send_header("Content-Type", content_type)
        if status not in (204, 304):
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        self.send(body)

    def json(self, status: int, value: Any) -> None:
        """A whole answer in JSON."""
        self.answer(status, json.dumps(value).encode())

    def error(self, status: int, message: str) -> None:
        """The engine's way to say that it did not do it."""
        self.json(status, {"message": message})

    def chunks(self) -> None:
        """Begin an answer of unknown length; ``chunk`` goes on, ``chunk(b"")`` ends it."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "application/json")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def chunk(self, data: bytes) -> None:
        """A part of the answer; nothing is its end."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def hang_up(self) -> None:
        """Close the connection, whatever is still to be said."""
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def never_answer(self) -> None:
        """Keep the connection open and say nothing for as long as the fake lives."""
        self._handler.close_connection = True
        self.engine.closing.wait()

    def as_usual(self) -> None:
        """What the fake does by itself."""
        self.engine.usual(self)

    def stream_output(self, *, head: bytes = STREAM_HEAD) -> None:
        """Attach to the container; ``head`` is sent first, in one piece."""
        container = self.container
        if container.ended.is_set():
            # Docker 20.10 answers nothing where the container has ended and is not removed yet, not even headers.
            self.never_answer()
            return
        self._handler.close_connection = True
        # Attached before the answer, so that what is started after it is heard; and the answer before any output.
        with self._sending:
            container.streams.append(self)
            self.send(head)
        container.attached.release()
        if container.ended.is_set():
            container.cut()
        while not self.engine.closing.is_set():
            if self in self.engine.forgotten:
                self.engine.closing.wait()
            elif self not in container.streams:
                return
            self.engine.closing.wait(0.01)


Hook = Callable[[Exchange], None]


@dataclass
class _Rule:
    """Who answers which requests, and how many of them still."""

    matches: Callable[[Asked], bool]
    hook: Hook
    times: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.engine.connections.add(self.connection)

    def finish(self) -> None:
        self.server.engine.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        # The fake may be closed, and its peers may go, at any moment.
        with suppress(OSError):
            super().handle()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        found = re.match(r"/v([\d.]+)(/.*)", parts.path)
        version, path = (found[1], found[2]) if found else ("", parts.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        is_json = "json" in (self.headers.get("Content-Type") or "")
        asked = Asked(self.command, unquote(path), query, json.loads(body) if body and is_json else body, version)
        self.server.engine.serve(Exchange(self.server.engine, self, asked))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: a test says what it needs to know."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    engine: FakeEngine

    def handle_error(self, request: object, client_address: object) -> None:
        self.engine.note_defect()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        return connection, ("fake", 0)


class FakeEngine:
    """Listens while the ``with`` block runs, on a socket in ``directory``; ``host`` is for ``DOCKER_HOST``."""

    def __init__(self, directory: Path, *, images: Iterable[str] = ("builder:new",)) -> None:
        self.socket = directory / "e.sock"
        self.host = f"unix://{self.socket}"
        self.asked: list[Asked] = []
        self.images: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[str, str]] = {}
        self.containers: dict[str, Container] = {}
        self.runs: dict[str, Run] = {}
        """What a step does; without an entry it ends at once and well."""
        self.version: Any = {"Version": "27.3.1", "ApiVersion": "1.47", "MinAPIVersion": "1.24", "Arch": "amd64"}
        self.info: Any = {
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Name": platform.node(),
            "KernelVersion": os.uname().release,
        }
        """What it says of itself, the time aside: it runs on this machine."""
        self.ahead = 0.0
        """Seconds that its clock is ahead of the host's."""
        self.removal = 0.05
        """Seconds from the end of a container to its removal by the engine itself: about what a real one takes."""
        self.events: list[dict[str, Any]] = []
        """What happened to its containers."""
        self.pull_events: list[dict[str, Any]] = [{"status": "Pulling from builder"}]
        self.started: list[str] = []
        """The steps that were begun, in order."""
        self.forgotten: list[Exchange] = []
        """Streams that nobody will ever write to or close: their connections died on the way."""
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()
        self.frozen = False
        self._gone = False
        self._hooks: list[_Rule] = []
        self.lock = threading.RLock()
        self._defects: list[BaseException] = []
        for tag in images:
            self.add_image(tag)
        self._listen()

    def _listen(self) -> None:
        self._server = _Server(str(self.socket), _Handler)
        self._server.engine = self

    def __enter__(self) -> Self:
        self._serve()
        return self

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake engine", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self.vanish()
        for container in list(self.containers.values()):
            container.ended.set()
            container.stop()
        if error is None and self._defects:
            raise self._defects[0]

    # --- For tests -----------------------------------------------------------------------------------------

    def add_image(self, tag: str, **config: Any) -> None:
        """An image of the new generation, ``config`` changed."""
        known = {"Entrypoint": None, "WorkingDir": "/home/nerves/project", "User": "nerves", **config}
        self.images[tag] = {"Id": f"sha256:{secrets.token_hex(32)}", "RepoTags": [tag], "Config": known}

    def add_container(
        self, name: str, *, status: str = "running", mounted: str | None = None, **labels: str
    ) -> Container:
        """A container that was there before, with the volume ``mounted``; ``labels`` get our prefix."""
        mounts = [] if mounted is None else [{"Type": "volume", "Source": mounted, "Target": "/x"}]
        config = {
            "Labels": {_LABEL + key: value for key, value in labels.items()},
            "HostConfig": {"Mounts": mounts},
        }
        container = self._add(name, config)
        container.status = status
        return container

    def on(self, method: str, path: str, hook: Hook, *, times: int = 1_000_000) -> None:
        """Have ``hook`` answer requests whose path matches ``path`` as a whole; those after ``times`` go as usual."""
        self._hooks.append(
            _Rule(lambda asked: asked.method == method and bool(re.fullmatch(path, asked.path)), hook, times)
        )

    def on_step(self, method: str, action: str, step: str, hook: Hook, *, times: int = 1_000_000) -> None:
        """``on`` for ``action`` (nothing for removal) on the container of ``step``."""

        def matches(asked: Asked) -> bool:
            parts = asked.path.split("/")
            if asked.method != method or parts[1] != "containers" or parts[3:] != ([action] if action else []):
                return False
            found = self.find(parts[2])
            return found is not None and step in (found.step, *found.steps)

        self._hooks.append(_Rule(matches, hook, times))

    def behave(self) -> None:
        """Forget what ``on`` and ``on_step`` said, and what the containers do."""
        with self.lock:
            self._hooks.clear()
            self.runs = {}

    def freeze(self) -> None:
        """Answer nothing any more, neither old connections nor new ones."""
        self.frozen = True

    def thaw(self) -> None:
        """Answer again."""
        self.frozen = False

    def vanish(self) -> None:
        """Close everything: what is connected ends, and who connects is refused."""
        if self._gone:
            return
        self._gone = True
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for container in list(self.containers.values()):
            container.streams.clear()

    def come_back(self) -> None:
        """Listen again after ``vanish``; the containers have run on."""
        self.socket.unlink()
        self._listen()
        self._gone = False
        self._serve()

    def now(self) -> float:
        """The time by its own clock, in seconds since 1970."""
        return time.time() + self.ahead

    def note(self, action: str, container: Container, **attributes: str) -> None:
        """Something happened to a container: an event that can be asked for."""
        actor = {"ID": container.id, "Attributes": {"name": container.name, **attributes}}
        self.events.append({"Type": "container", "Action": action, "Actor": actor, "time": int(self.now())})

    def find(self, name: str) -> Container | None:
        """The container with this id or name."""
        with self.lock:
            found = self.containers.get(name)
            return found or next((c for c in self.containers.values() if c.name == name), None)

    @property
    def names(self) -> list[str]:
        """The names of the containers that are there."""
        with self.lock:
            return sorted(container.name for container in self.containers.values())

    def requests(self, method: str, path: str) -> list[Asked]:
        """The requests that came whose path matches ``path`` as a whole."""
        return [asked for asked in list(self.asked) if asked.method == method and re.fullmatch(path, asked.path)]

    def note_defect(self) -> None:
        """Keep what went wrong in the fake itself, or in an assertion of a hook, for the end of the test."""
        import sys

        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self._defects.append(error)

    # --- The engine ----------------------------------------------------------------------------------------

    def serve(self, exchange: Exchange) -> None:
        """Answer one request."""
        if self.frozen:
            exchange.never_answer()
            return
        asked = exchange.asked
        self.asked.append(asked)
        with self.lock:
            rule = next((rule for rule in self._hooks if rule.times > 0 and rule.matches(asked)), None)
            if rule is not None:
                rule.times -= 1
        (rule.hook if rule is not None else self.usual)(exchange)

    def usual(self, exchange: Exchange) -> None:
        """Answer as an engine does."""
        asked = exchange.asked
        answers: list[tuple[str, str, Callable[[], None]]] = [
            ("GET", r"/version", lambda: exchange.json(200, self.version)),
            ("GET", r"/info", lambda: exchange.json(200, {"SystemTime": _rfc3339(self.now()), **_HERE, **self.info})),
            ("GET", r"/events", lambda: self._events(exchange)),
            ("GET", r"/images/json", lambda: exchange.json(200, list(self.images.values()))),
            ("GET", r"/_ping", lambda: exchange.answer(200, b"OK", "text/plain")),
            ("POST", r"/images/create", lambda: self._pull(exchange)),
            ("GET", r"/images/(.+)/json", lambda: self._inspect_image(exchange)),
            ("GET", r"/system/df", lambda: exchange.json(200, {"Volumes": self._volume_list()})),
            ("POST", r"/volumes/create", lambda: self._create_volume(exchange)),
            ("GET", r"/volumes", lambda: self._list_volumes(exchange)),
            ("GET", r"/volumes/([^/]+)", lambda: self._inspect_volume(exchange)),
            ("DELETE", r"/volumes/([^/]+)", lambda: self._remove_volume(exchange)),
            ("GET", r"/containers/json", lambda: self._list(exchange)),
            ("POST", r"/containers/create", lambda: self._create(exchange)),
        ]
        for method, path, answer in answers:
            if method == asked.method and re.fullmatch(path, asked.path):
                answer()
                return
        self._container_call(exchange)

    def _container_call(self, exchange: Exchange) -> None:
        asked = exchange.asked
        parts = asked.path.split("/")
        if len(parts) not in (3, 4) or parts[1] != "containers":
            exchange.error(404, "page not found")
            return
        container = self.find(parts[2])
        if container is None:
            exchange.error(404, f"No such container: {parts[2]}")
            return
        call = {
            ("POST", "attach"): self._attach,
            ("POST", "start"): self._start,
            ("POST", "wait"): self._wait,
            ("POST", "stop"): self._stop,
            ("POST", "kill"): self._signal,
            ("POST", "rename"): self._rename,
            ("GET", "json"): self._inspect,
            ("GET", "archive"): self._archive,
            ("PUT", "archive"): self._put,
            ("DELETE", ""): self._remove,
        }.get((asked.method, parts[3] if len(parts) == 4 else ""))
        if call is None:
            exchange.error(404, "page not found")
        else:
            call(exchange, container)

    def _pull(self, exchange: Exchange) -> None:
        exchange.chunks()
        for event in self.pull_events:
            exchange.chunk(json.dumps(event).encode() + b"\r\n")
        if not any("error" in event for event in self.pull_events):
            self.add_image(f"{exchange.asked.query['fromImage']}:{exchange.asked.query['tag']}")
        exchange.chunk(b"")

    def _inspect_image(self, exchange: Exchange) -> None:
        name = exchange.asked.path[len("/images/") : -len("/json")]
        if name in self.images:
            exchange.json(200, self.images[name])
        else:
            exchange.error(404, f"No such image: {name}")

    def _create_volume(self, exchange: Exchange) -> None:
        body = exchange.asked.body
        self.volumes.setdefault(body["Name"], dict(body.get("Labels") or {}))
        exchange.json(201, {"Name": body["Name"], "Labels": self.volumes[body["Name"]]})

    def _list_volumes(self, exchange: Exchange) -> None:
        wanted = _filters(exchange).get("label", [])
        found = [
            each for each in self._volume_list() if all(_has_label(each["Labels"] or {}, label) for label in wanted)
        ]
        exchange.json(200, {"Volumes": found or None, "Warnings": None})

    def _volume_list(self) -> list[dict[str, Any]]:
        # The dictionary keeps the order in which the volumes were made.
        made = time.mktime((2026, 11, 20, 12, 0, 0, 0, 0, 0))
        return [
            {"Name": name, "Labels": labels or None, "CreatedAt": _rfc3339(made + number)}
            for number, (name, labels) in enumerate(self.volumes.items())
        ]

    def _inspect_volume(self, exchange: Exchange) -> None:
        name = exchange.asked.path.split("/")[2]
        if name in self.volumes:
            exchange.json(200, {"Name": name, "Labels": self.volumes[name]})
        else:
            exchange.error(404, f"get {name}: no such volume")

    def _remove_volume(self, exchange: Exchange) -> None:
        name = exchange.asked.path.split("/")[2]
        if name not in self.volumes:
            exchange.error(404, f"get {name}: no such volume")
        elif any(_uses(container, name) for container in self.containers.values()):
            exchange.error(409, f"remove {name}: volume is in use")
        else:
            del self.volumes[name]
            exchange.answer(204)

    def _list(self, exchange: Exchange) -> None:
        filters = _filters(exchange)
        with self.lock:
            found = [
                container
                for container in self.containers.values()
                if all(_has_label(container.labels, label) for label in filters.get("label", []))
                # As the engine does it: a name that only contains the other matches, too.
                and all(
                    any(volume in mount["Source"] for mount in container.mounts) for volume in filters.get("volume", [])
                )
                and (exchange.asked.query.get("all") == "1" or container.status == "running")
            ]
        exchange.json(
            200,
            [
                {
                    "Id": container.id,
                    "Names": [f"/{container.name}"],
                    "State": container.status,
                    "Created": int(container.created),
                    "Labels": container.labels,
                    "Mounts": [
                        {"Type": mount["Type"], **({"Name": mount["Source"]} if mount["Type"] == "volume" else {})}
                        for mount in container.mounts
                    ],
                }
                for container in found
            ],
        )

    def _create(self, exchange: Exchange) -> None:
        name, body = exchange.asked.query["name"], exchange.asked.body
        with self.lock:
            if any(container.name == name for container in self.containers.values()):
                exchange.error(409, f'Conflict. The container name "/{name}" is already in use.')
                return
            if body["Image"] not in {image["Id"] for image in self.images.values()} | set(self.images):
                exchange.error(404, f"No such image: {body['Image']}")
                return
            container = self._add(name, body)
        exchange.json(201, {"Id": container.id, "Warnings": []})

    def _add(self, name: str, config: dict[str, Any]) -> Container:
        container = Container(self, secrets.token_hex(32), name, config, self.now())
        self.containers[container.id] = container
        return container

    def _attach(self, exchange: Exchange, container: Container) -> None:
        exchange.stream_output()

    def _start(self, exchange: Exchange, container: Container) -> None:
        if container.status != "created":
            exchange.answer(304)
            return
        container.status = "running"
        exchange.answer(204)
        threading.Thread(target=self._live, args=(container,), name=container.name, daemon=True).start()

    def _live(self, container: Container) -> None:
        try:
            container.live()
        except Exception:  # noqa: BLE001  # shown at the end of the test
            self.note_defect()
            container.end(255)

    def _wait(self, exchange: Exchange, container: Container) -> None:
        # The headers come at once, the status when there is one (moby: postContainersWait).
        exchange.chunks()
        while not container.ended.wait(0.02):
            if self.closing.is_set():
                return
        exchange.chunk(json.dumps({"StatusCode": container.exit_code}).encode())
        exchange.chunk(b"")

    def _stop(self, exchange: Exchange, container: Container) -> None:
        if container.status != "running":
            exchange.answer(304)
            return
        self.note("kill", container, signal="15")
        container.stop()
        if not container.ended.wait(float(exchange.asked.query.get("t", "10"))):
            container.kill()
        exchange.answer(204)

    def _signal(self, exchange: Exchange, container: Container) -> None:
        name = exchange.asked.query["signal"]
        if container.status != "running":
            exchange.error(409, f"Cannot kill container: {container.id}: Container {container.id} is not running")
            return
        if name == "SIGUSR1":
            container.beats += 1
            container.missed = 0.0
        elif name == "SIGUSR2":
            container.notified.put("steps")
        elif name == "SIGURG":
            container.notified.put("final")
        else:
            raise AssertionError(f"nobody should send {name}")
        exchange.answer(204)

    def _rename(self, exchange: Exchange, container: Container) -> None:
        name = exchange.asked.query["name"]
        with self.lock:
            if any(other.name == name for other in self.containers.values()):
                exchange.error(409, f'Conflict. The container name "/{name}" is already in use.')
                return
            container.name = name
        exchange.answer(204)

    def _events(self, exchange: Exchange) -> None:
        wanted = _filters(exchange)["container"]
        found = [event for event in self.events if event["Actor"]["ID"] in wanted]
        exchange.answer(200, b"".join(json.dumps(event).encode() + b"\n" for event in found))

    def _inspect(self, exchange: Exchange, container: Container) -> None:
        exchange.json(
            200,
            {
                "Id": container.id,
                "Name": f"/{container.name}",
                "Created": _rfc3339(container.created),
                "State": {
                    "Status": container.status,
                    "Running": container.status == "running",
                    "ExitCode": container.exit_code,
                },
                "Config": {"Labels": container.labels},
            },
        )

    def _remove(self, exchange: Exchange, container: Container) -> None:
        if container.status == "running" and exchange.asked.query.get("force") != "True":
            exchange.error(409, "You cannot remove a running container")
            return
        self.discard(container)
        exchange.answer(204)

    def _archive(self, exchange: Exchange, container: Container) -> None:
        path = exchange.asked.query["path"]
        content = ARTIFACT
        if path == f"{_STATE}/ended":
            content = "".join(f"{line}\n" for line in container.marks).encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo(path.rpartition("/")[2])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        exchange.answer(200, packed.getvalue(), "application/x-tar")
        if content is not ARTIFACT:
            container.looked.release()

    def _put(self, exchange: Exchange, container: Container) -> None:
        with tarfile.open(fileobj=io.BytesIO(exchange.asked.body)) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                container.files[f"{exchange.asked.query['path']}/{member.name}"] = content.read()
        exchange.answer(200)

    def discard(self, container: Container) -> None:
        """Remove a container by force, as somebody else may do it."""
        if container.status == "running":
            container.kill()
        container.ended.set()
        self.forget(container)

    def forget(self, container: Container) -> None:
        """Have no such container any more."""
        with self.lock:
            if self.containers.pop(container.id, None) is not None:
                self.note("destroy", container)


def _filters(exchange: Exchange) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(exchange.asked.query.get("filters", "{}"))
    return found


def _rfc3339(moment: float) -> str:
    """A time as the engine writes it: with nanoseconds."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _uses(container: Container, volume: str) -> bool:
    return any(mount["Type"] == "volume" and mount["Source"] == volume for mount in container.mounts)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, _, value = wanted.partition("=")
    return labels.get(key) == value if value else key in labels
