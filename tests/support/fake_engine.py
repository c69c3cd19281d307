"""A fake engine on a Unix socket, for faults that a real engine does not have on demand.

It is a real socket server with real HTTP, as in docker-py's unit tests, so that nothing in the helper has to be
patched. Without a fault it works like an engine. It keeps images, volumes and containers. The container of a session
runs its steps, each as its ``Run`` describes. It accepts heartbeats and further steps, and it ends without a heartbeat
(scripts/session.sh, scripts/steps.sh). ``on`` adds a fault to one endpoint. ``freeze`` and ``vanish`` add a fault to
the whole engine.
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
"""The fields by which the helper recognises that the engine is on this machine."""
_STATE = "/nerves-docker-port"
_TICK = 0.1
"""Seconds between two checks whether a heartbeat has arrived."""
_PATIENCE = 30
"""Seconds after which a wait in the fake fails, so that no test can hang."""


def frame(payload: bytes, stream: int = STDOUT) -> bytes:
    """Return one frame of the engine's multiplexed stream."""
    return struct.pack(">BxxxL", stream, len(payload)) + payload


@dataclass
class Run:
    """The behaviour of a step, or of a container without steps.

    The items of ``output`` happen one after the other. Bytes are sent unchanged (``frame`` makes frames). A number is a
    pause in seconds, which ends early if the container is stopped. A callable is called with the container.
    """

    output: Sequence[bytes | float | Callable[[Container], None]] = ()
    status: int = 0
    killed: int = 0
    """The number of its processes that are killed because memory ran out."""
    ignores_term: bool = False


@dataclass
class Container:
    """A container of the fake engine."""

    engine: FakeEngine
    id: str
    name: str
    config: dict[str, Any]
    created: float
    """The time in seconds since 1970, by the engine's clock."""
    status: str = "created"
    exit_code: int = 0
    beats: int = 0
    """The number of heartbeats that have arrived."""
    marks: list[str] = field(default_factory=list)
    """The lines of the file ``ended``."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The files that were put into its layer, by path."""
    stopping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    streams: list[Exchange] = field(default_factory=list)
    attached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    notified: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    """The messages to the script that runs the steps: "steps", "final", or "" if it must end."""
    looked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    expired: bool = False
    missed: float = 0.0
    """The seconds since the last heartbeat."""

    @property
    def labels(self) -> dict[str, str]:
        """The container's labels."""
        return dict(self.config.get("Labels") or {})

    @property
    def step(self) -> str:
        """The value of its label ``step``, or an empty string."""
        return self.labels.get(_LABEL + "step", "")

    @property
    def steps(self) -> list[str]:
        """The names of the steps that its command runs. A container with a single command has none."""
        return [name for name, _words in self._script[1]]

    @property
    def token(self) -> str:
        """The token of its marks."""
        return self._script[0]

    @property
    def _script(self) -> tuple[str, Steps]:
        return steps_in(self.config.get("Cmd") or [])

    @property
    def mounts(self) -> list[dict[str, Any]]:
        """The mounts in the request that made the container."""
        return list(self._host_config.get("Mounts") or [])

    @property
    def removes_itself(self) -> bool:
        """Whether the engine removes the container after its end."""
        return bool(self._host_config.get("AutoRemove"))

    @property
    def _host_config(self) -> dict[str, Any]:
        return dict(self.config.get("HostConfig") or {})

    def emit(self, data: bytes) -> None:
        """Send raw bytes to all attached clients. They are lost if the engine is frozen."""
        if self.engine.frozen:
            return
        for stream in list(self.streams):
            stream.send(data)

    def emit_and_let_read(self, data: bytes) -> None:
        """Send raw bytes and wait until they are read, so that they cannot arrive together with the next bytes."""
        for stream in list(self.streams):
            stream.send(data)
            stream.wait_until_read()

    def cut(self) -> None:
        """Break the streams while the container goes on. Those of a frozen engine stay open, but get no more data."""
        for stream in list(self.streams):
            if self.engine.frozen:
                self.engine.forgotten.append(stream)
            self.streams.remove(stream)
            if not self.engine.frozen:
                stream.hang_up()

    def wait_for_attach(self) -> None:
        """Wait until a further client has attached."""
        assert self.attached.acquire(timeout=_PATIENCE), f"nobody attached to {self.name} again"

    def wait_for_look(self) -> None:
        """Wait until the helper has read the file ``ended``. After that, only the output tells it that a step ends."""
        assert self.looked.acquire(timeout=_PATIENCE), f"nobody looked into {self.name}"

    def wait_for_beats(self, count: int = 1) -> None:
        """Wait until ``count`` further heartbeats have arrived."""
        wanted, deadline = self.beats + count, time.monotonic() + _PATIENCE
        while self.beats < wanted:
            assert time.monotonic() < deadline, f"no heartbeat came to {self.name}"
            self.ended.wait(0.01)

    def mark(self, name: str, status: int, killed: int = 0) -> None:
        """Write the mark of a step that has ended to the file ``ended`` and to the output."""
        self.marks.append(f"{len(self.marks) + 1} {name} {status} {killed}")
        self.say(self.marks[-1])

    def say(self, mark: str) -> None:
        """Send a mark to all attached clients."""
        self.emit(frame(f"\x1e{self.token} {mark}\x1e".encode()))

    def send_file(self, content: bytes = ARTIFACT) -> None:
        """Send a file as scripts/copy.sh does: its size in a mark, then its content, on standard error."""
        self.emit(frame(f"\x1e{self.token} 0 file 0 {len(content)}\x1e".encode() + content, STDERR))

    def expire(self) -> None:
        """End because no heartbeat has arrived for too long."""
        self.expired = True
        self.say("0 expired 0 0")
        self.stop()

    def stop(self) -> None:
        """Handle the signal TERM."""
        self.stopping.set()
        self.notified.put("")

    def kill(self) -> None:
        """End at once, as by the signal KILL."""
        self.engine.note("kill", self, signal="9")
        self.end(137)

    def run_out_of_memory(self) -> None:
        """End at once, as if the kernel had killed the first program because memory ran out."""
        self.engine.note("oom", self)
        self.end(137)

    def live(self) -> None:
        """Do what a container does from its start to its end."""
        token, steps = self._script
        final = final_step_in(self.config.get("Cmd") or [])
        if not token:
            status = self._play(self.engine.runs.get(self.step, Run()))
            self.end(143 if self.stopping.is_set() else status)
            return
        threading.Thread(target=self._count_seconds, name=f"seconds of {self.name}", daemon=True).start()
        # scripts/look.sh sends `here` if the package's directory is the host's directory.
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
            run = self.engine.runs.get(name, Run([Container.send_file] if name == "copy" else ()))
            self.engine.started.append(name)
            status = self._play(run)
            if self.ended.is_set():
                return
            self.mark(name, status, run.killed)
            if status != 0 or self.stopping.is_set():
                return

    def _play(self, run: Run) -> int:
        """Do what ``run`` describes, and return its exit status."""
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
        """End the container with the exit status of its first program."""
        with self.engine.lock:
            if self.ended.is_set():
                return
            self.exit_code, self.status = status, "exited"
            self.engine.note("die", self, exitCode=str(status))
            self.ended.set()
        # This wakes the threads that wait for a stop.
        self.stop()
        self.cut()
        if self.removes_itself:
            timer = threading.Timer(self.engine.removal, self.engine.forget, (self,))
            timer.daemon = True
            timer.start()


@dataclass(frozen=True)
class Asked:
    """One request that the engine has received."""

    method: str
    path: str
    """The path without the API version."""
    query: dict[str, str]
    body: Any
    version: str
    """The API version in the path, or an empty string."""


class Exchange:
    """One request, and functions to answer it correctly or with a fault."""

    def __init__(self, engine: FakeEngine, handler: _Handler, asked: Asked) -> None:
        self.engine = engine
        self.asked = asked
        self._handler = handler
        self._sending = threading.RLock()

    @property
    def container(self) -> Container:
        """The container in the path of the request."""
        found = self.engine.find(self.asked.path.split("/")[2])
        assert found is not None
        return found

    def send(self, data: bytes) -> None:
        """Send raw bytes on the connection. If the peer has closed it, they are lost without an error."""
        with self._sending, suppress(OSError):
            self._handler.connection.sendall(data)

    def wait_until_read(self) -> None:
        """Wait until the peer has read all bytes that were sent."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            (unread,) = struct.unpack("i", fcntl.ioctl(self._handler.connection, termios.TIOCOUTQ, b"\0" * 4))
            if unread == 0:
                return
            time.sleep(0.0005)
        raise AssertionError("the peer does not read")

    def answer(self, status: int, body: bytes = b"", content_type: str = "application/json") -> None:
        """Send a complete answer."""
        handler = self._handler
        handler.send_response(status)
        if body:
            handler.send_header("Content-Type", content_type)
        if status not in (204, 304):
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        self.send(body)

    def json(self, status: int, value: Any) -> None:
        """Send a complete answer in JSON."""
        self.answer(status, json.dumps(value).encode())

    def error(self, status: int, message: str) -> None:
        """Send an error in the form of the engine."""
        self.json(status, {"message": message})

    def chunks(self) -> None:
        """Begin an answer of unknown length. ``chunk`` sends the next part, and ``chunk(b"")`` ends the answer."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "application/json")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def chunk(self, data: bytes) -> None:
        """Send a part of the answer, or its end if ``data`` is empty."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def hang_up(self) -> None:
        """Close the connection at once, although the answer may not be complete."""
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def never_answer(self) -> None:
        """Keep the connection open without an answer until the fake engine is closed."""
        self._handler.close_connection = True
        self.engine.closing.wait()

    def as_usual(self) -> None:
        """Answer the request without a fault."""
        self.engine.usual(self)

    def stream_output(self, *, head: bytes = STREAM_HEAD) -> None:
        """Attach to the container. ``head`` is sent first, in one piece."""
        container = self.container
        if container.ended.is_set():
            # If the container has ended and is not removed yet, Docker 20.10 sends no answer, not even headers.
            self.never_answer()
            return
        self._handler.close_connection = True
        # The stream is added before the answer, so that it gets the output of a step that starts after the answer. The
        # lock makes sure that the answer is sent before any output.
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
    """A hook that answers matching requests. ``times`` is how many more requests it answers."""

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
        # The fake engine and the clients can close a connection at any time.
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
        """Print nothing."""


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
    """Listens on a socket in ``directory`` during the ``with`` block. ``host`` is the value for ``DOCKER_HOST``."""

    def __init__(self, directory: Path, *, images: Iterable[str] = ("builder:new",)) -> None:
        self.socket = directory / "e.sock"
        self.host = f"unix://{self.socket}"
        self.asked: list[Asked] = []
        self.images: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[str, str]] = {}
        self.containers: dict[str, Container] = {}
        self.runs: dict[str, Run] = {}
        """The behaviour of a step, by its name. A step without an entry succeeds at once."""
        self.version: Any = {"Version": "27.3.1", "ApiVersion": "1.47", "MinAPIVersion": "1.24", "Arch": "amd64"}
        self.info: Any = {
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Name": platform.node(),
            "KernelVersion": os.uname().release,
        }
        """The answer to ``/info``, except the time. It says that the engine runs on this machine."""
        self.ahead = 0.0
        """The seconds by which the engine's clock is ahead of the host's clock."""
        self.removal = 0.05
        """The seconds between the end of a container and its removal by the engine, about as in a real engine."""
        self.events: list[dict[str, Any]] = []
        """The events of the containers."""
        self.pull_events: list[dict[str, Any]] = [{"status": "Pulling from builder"}]
        self.started: list[str] = []
        """The names of the steps that have started, in order."""
        self.forgotten: list[Exchange] = []
        """The streams that get no more data and no end, as if their connections were dead."""
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
        """Add an image of the new generation. ``config`` changes fields of its configuration."""
        known = {"Entrypoint": None, "WorkingDir": "/home/nerves/project", "User": "nerves", **config}
        self.images[tag] = {"Id": f"sha256:{secrets.token_hex(32)}", "RepoTags": [tag], "Config": known}

    def add_container(
        self, name: str, *, status: str = "running", mounted: str | None = None, **labels: str
    ) -> Container:
        """Add a container with the volume ``mounted``, as if it existed before the test. ``labels`` get the prefix."""
        mounts = [] if mounted is None else [{"Type": "volume", "Source": mounted, "Target": "/x"}]
        config = {
            "Labels": {_LABEL + key: value for key, value in labels.items()},
            "HostConfig": {"Mounts": mounts},
        }
        container = self._add(name, config)
        container.status = status
        return container

    def on(self, method: str, path: str, hook: Hook, *, times: int = 1_000_000) -> None:
        """Let ``hook`` answer the first ``times`` requests whose whole path matches ``path``."""
        self._hooks.append(
            _Rule(lambda asked: asked.method == method and bool(re.fullmatch(path, asked.path)), hook, times)
        )

    def on_step(self, method: str, action: str, step: str, hook: Hook, *, times: int = 1_000_000) -> None:
        """Do the same as ``on`` for ``action`` on the container of ``step``. An empty ``action`` means its removal."""

        def matches(asked: Asked) -> bool:
            parts = asked.path.split("/")
            if asked.method != method or parts[1] != "containers" or parts[3:] != ([action] if action else []):
                return False
            found = self.find(parts[2])
            return found is not None and step in (found.step, *found.steps)

        self._hooks.append(_Rule(matches, hook, times))

    def behave(self) -> None:
        """Remove all hooks of ``on`` and ``on_step``, and all ``runs``."""
        with self.lock:
            self._hooks.clear()
            self.runs = {}

    def freeze(self) -> None:
        """Stop answering on old and new connections, which stay open."""
        self.frozen = True

    def thaw(self) -> None:
        """Answer again."""
        self.frozen = False

    def vanish(self) -> None:
        """Close all connections and refuse new ones."""
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
        """Listen again after ``vanish``. The containers have continued meanwhile."""
        self.socket.unlink()
        self._listen()
        self._gone = False
        self._serve()

    def now(self) -> float:
        """Return the time of the engine's clock in seconds since 1970."""
        return time.time() + self.ahead

    def note(self, action: str, container: Container, **attributes: str) -> None:
        """Add an event about a container, which ``/events`` returns."""
        actor = {"ID": container.id, "Attributes": {"name": container.name, **attributes}}
        self.events.append({"Type": "container", "Action": action, "Actor": actor, "time": int(self.now())})

    def find(self, name: str) -> Container | None:
        """Return the container with this id or name, or ``None``."""
        with self.lock:
            found = self.containers.get(name)
            return found or next((c for c in self.containers.values() if c.name == name), None)

    @property
    def names(self) -> list[str]:
        """The names of all containers."""
        with self.lock:
            return sorted(container.name for container in self.containers.values())

    def requests(self, method: str, path: str) -> list[Asked]:
        """Return the received requests whose whole path matches ``path``."""
        return [asked for asked in list(self.asked) if asked.method == method and re.fullmatch(path, asked.path)]

    def note_defect(self) -> None:
        """Keep an exception of the fake engine or of a hook, so that it fails the test at its end."""
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
        """Answer a request as an engine does."""
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
        # The dictionary has the volumes in the order in which they were made.
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
                # A real engine also matches a name that only contains the given name.
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
        # The engine sends the headers at once, and the status after the end of the container (moby:
        # postContainersWait).
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
        if path != f"{_STATE}/ended":
            exchange.error(404, f"Could not find the file {path} in container {container.id}")
            return
        content = "".join(f"{line}\n" for line in container.marks).encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo(path.rpartition("/")[2])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        exchange.answer(200, packed.getvalue(), "application/x-tar")
        container.looked.release()

    def _put(self, exchange: Exchange, container: Container) -> None:
        with tarfile.open(fileobj=io.BytesIO(exchange.asked.body)) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                container.files[f"{exchange.asked.query['path']}/{member.name}"] = content.read()
        exchange.answer(200)

    def discard(self, container: Container) -> None:
        """Remove a container by force, as another client can do it."""
        if container.status == "running":
            container.kill()
        container.ended.set()
        self.forget(container)

    def forget(self, container: Container) -> None:
        """Remove a container from the engine's list."""
        with self.lock:
            if self.containers.pop(container.id, None) is not None:
                self.note("destroy", container)


def _filters(exchange: Exchange) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(exchange.asked.query.get("filters", "{}"))
    return found


def _rfc3339(moment: float) -> str:
    """Return a time in the form of the engine, with nanoseconds."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _uses(container: Container, volume: str) -> bool:
    return any(mount["Type"] == "volume" and mount["Source"] == volume for mount in container.mounts)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, _, value = wanted.partition("=")
    return labels.get(key) == value if value else key in labels
