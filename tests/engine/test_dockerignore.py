"""What goes to the engine of a build's context: for each .dockerignore the same files as from the docker CLI.

The CLI itself is asked, with a server in the engine's place that keeps the context it is sent.
"""

from __future__ import annotations

import io
import os
import shutil
import socketserver
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from nerves_docker_port.errors import RunnerError
from nerves_docker_port.image.context import Context

if TYPE_CHECKING:
    from typing_extensions import Self

FILES = (
    *("Makefile", "README.md", "a", "b", "c", "d1", "d2", "foo", "foo bar", "foobar", "foo.txt", "bar.txt", "x.log"),
    *(
        "^caret",
        "[bracket]",
        "{brace}",
        "dollar$",
        "plus+",
        "(paren)",
        "pipe|",
        "back\\slash",
        "star*",
        "what?",
        "!bang",
    ),
    *("#hash", "-dash", " leading", "trailing ", "\u00e9t\u00e9", ".hidden", ".git/config", ".git/objects/ab/cd"),
    *("dir/a", "dir/b", "dir/foo", "dir/foo bar", "dir/sub/a", "dir/sub/foo", "dir/sub/x.log", "dir/sub/deep/foo"),
    *("dir2/a", "dir2/keep/this", "dir2/keep/not", "other/dir/a", "other/dir/sub/foo", "node_modules/x/index.js"),
    *("src/main.c", "src/main.o", "src/lib/lib.c", "src/lib/lib.o", "src/lib/vendor/v.c", "tests/src/t.c", "a1/b2/c3"),
)

SHAPES = (
    "",
    "foo",
    "foo\\ bar",
    "foo bar",
    "/foo",
    "//foo",
    "./foo",
    "foo/",
    "dir/",
    "dir",
    "/dir/",
    "dir/.",
    "dir/..",
    "dir/../foo",
    "../foo",
    "../*",
    ".",
    "/",
    "./",
    "*",
    "*\n!foo",
    "*\n!dir",
    "*\n!dir/sub",
    "*\n!dir/sub/foo",
    "*\n!src/**/*.c",
    "*\n!**/*.c",
    "*\n!*/\n",
    "*\n!src\nsrc/lib\n!src/lib/lib.c",
    "**",
    "**\n!foo",
    "**/",
    "**/foo",
    "**/foo\n!dir/foo",
    "foo/**",
    "dir/**",
    "dir/**/foo",
    "**/sub/**",
    "**/*.o",
    "**/src",
    "**.log",
    "**foo",
    "dir**",
    "***",
    "a**b",
    "*/foo",
    "*/*",
    "*/*/foo",
    "*.txt",
    "foo*",
    "?",
    "d?",
    "fo[no]",
    "[a-c]",
    "[^a]",
    "[^a-c]*",
    "[!a]",
    "d[0-9]",
    "d[\\1]",
    "[[]bracket]",
    "\\[bracket\\]",
    "[b-",
    "a[",
    "[]a]",
    "[^]a]",
    "[a-]",
    "[--a]",
    "[*]",
    "star[*]",
    "star\\*",
    "what\\?",
    "[[:digit:]]",
    "d[[:digit:]]",
    "\\",
    "foo\\",
    "back\\\\slash",
    "\\f\\o\\o",
    "^caret",
    "^c*",
    "{brace}",
    "{br*",
    "dollar$",
    "dol*$",
    "plus+",
    "pl*+",
    "(pa*)",
    "pip?|",
    "\\!bang",
    "!bang",
    "!!bang",
    "*\n!!bang",
    "!",
    "! foo",
    "*\n!  foo",
    "*\n!/foo",
    "*\n!./dir/a",
    "*\n!dir/../foo",
    "#hash",
    "\\#hash",
    " #hash",
    "# a comment\nfoo",
    "foo # no comment",
    "  foo  ",
    "\tfoo\t",
    "foo\r\nbar.txt\r\n",
    "foo\r",
    "foo\rbar",
    "foo\n\n\n  \nbar.txt",
    "\ufefffoo\nbar.txt",
    "\ufeff# comment\nfoo",
    "\ufeff\ufefffo?",
    "a\n\ufefffo?",
    "foo\nfoo\n!foo\nfoo",
    "foo\x0bbar.txt",
    "foo\x85",
    "\xa0foo",
    "foo\u2028bar.txt",
    "\u00e9t\u00e9",
    "\u00e9?\u00e9",
    "[\u00e0-\u00ff]*",
    "??t?",
    ".*",
    ".git",
    ".git\n!.git/config",
    ".git/*\n!.git/config",
    "Dockerfile",
    ".dockerignore",
    "Docker*\n.docker*",
    "*\n!Makefile\n!src\n**/*.o",
    "dir\n!dir/a",
    "dir/*\n!dir/a",
    "dir/**\n!dir/a",
    "dir2\n!dir2/keep/this",
    "dir2/*\n!dir2/keep",
    "dir2/keep/*\n!dir2/keep/this",
    "dir2\n!dir2/*/this",
    "dir2\n!dir2/**",
    "!dir2/keep\ndir2",
    "dir\n!**/foo",
    "other/dir",
    "other/../dir",
    "node_modules",
    "**/node_modules/**",
    "a1/*/c3",
    "a1/b?/c[1-3]",
    "a1/**/c3",
    "a1/b2/c3/",
    "-dash",
    "[a-]dash",
    "\\-dash",
    "fo\\o",
    "\\d1",
    "d\\d",
    "d[\\d]",
    "\\a",
    "\\z*",
    "foo\\b",
    "[\\w]oo",
    "[\\b]",
    "a|b",
    "a*|b",
    "fo?|bar.txt",
    "*src]\\keepsub",
    "*\\",
    "[\\]",
    "*\n!**/a\n**/sub",
    "[b-a]",
    "!foo\n[b-a]",
    "d[\\x31]",
    "\\x61",
    "dir\\x{2f}a",
    "\\142",
    "\\7",
    "\\0",
    "\\Qfoo.txt\\E",
    "\\Qfoo",
    "[a]{1}",
    "*o{2}",
    "*o{2,}",
    "*o{3,2}",
    "*o{1001}",
    "[a]{01}",
    "[a]{,2}",
    "*{2}",
    "^{1}[a]",
    "|{1}[a]",
    "[{]br*",
    "[[:^alpha:]]",
    "d[[:none:]]",
    "[\\d-x]*",
    "[\\D]",
    "\\p{L}oo",
    "\\pL",
    "\\PL",
    "\\p{^L}*",
    "\\P{^L}*",
    "[\\p{Ll}]oo*",
    "[^\\p{L}]*",
    "[\\P{L}x]*",
    "d[\\p{Nd}]",
    "\\p{Any}",
    "\\P{Any}*",
    "[\\P{Any}]*",
    "\\p{Sm}*",
    "\\p{C}*",
    "\\p{L",
    "\\p",
    "\\p*",
    "\\p{}",
    "\\p{None}",
    "[a-\\pL]",
)


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="ndp-ignore-"))
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty" / "inner").mkdir(parents=True)
    (root / "link").symlink_to("dir")
    (root / "dangling").symlink_to("nowhere")
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


class Recorder:
    """A server in the place of an engine; keeps the context of the last build. ``host`` leads to it."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="ndp-recorder-")
        self._path = f"{self._directory}/engine.sock"
        self.host = f"unix://{self._path}"
        self.context = b""

    def __enter__(self) -> Self:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(b"")

            def do_GET(self) -> None:
                self._answer(b'{"ApiVersion": "1.41", "Version": "20.10.0", "Os": "linux", "OSType": "linux"}')

            def do_POST(self) -> None:
                recorder.context = b"".join(iter(self._chunk, b""))
                self._answer(b'{"stream": "Successfully built 0123456789ab\\n"}\n')

            def _chunk(self) -> bytes:
                size = int(self.rfile.readline(), 16)
                data = self.rfile.read(size)
                self.rfile.readline()
                return data

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                for name, value in (
                    ("Api-Version", "1.41"),
                    ("Ostype", "linux"),
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                ):
                    self.send_header(name, value)
                self.end_headers()
                # The CLI does not wait for the end of what it does not need.
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def address_string(self) -> str:
                return "cli"

            def log_message(self, *_args: object) -> None:
                pass

        self._server = socketserver.ThreadingUnixStreamServer(self._path, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        shutil.rmtree(self._directory)

    def sent_by_the_cli(self, root: Path) -> set[str] | None:
        """What `docker build` sends of a directory; ``None`` where it refuses to."""
        self.context = b""
        # Without the CLI there is nothing to compare with, and this fails.
        done = subprocess.run(
            ["docker", "build", "--quiet", "."],
            cwd=root,
            env={**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": self._directory},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if not self.context:
            assert done.returncode != 0
            assert "pattern" in done.stderr, done.stderr
            return None
        return _names(io.BytesIO(self.context))


def _names(file: io.BufferedIOBase) -> set[str]:
    with tarfile.open(fileobj=file) as tar:
        return {member.name.rstrip("/") for member in tar} - {"."}


def sent_by_us(root: Path) -> set[str] | None:
    context = Context.find(root / "Dockerfile")
    assert context is not None
    try:
        packed, _dockerfile = context.packed()
    except RunnerError as error:
        return None if str(root / ".dockerignore") in error.message else {error.message}
    with closing(packed):
        packed.seek(0)
        return _names(io.BytesIO(packed.read()))


@pytest.mark.parametrize("shape", SHAPES, ids=ascii)
def test_the_same_goes_to_the_engine_as_from_the_docker_cli(shape: str, tree: Path, recorder: Recorder) -> None:
    (tree / ".dockerignore").write_bytes(shape.encode())
    assert sent_by_us(tree) == recorder.sent_by_the_cli(tree)


def test_without_such_a_file_everything_is_sent(tree: Path, recorder: Recorder) -> None:
    (tree / ".dockerignore").unlink(missing_ok=True)
    sent = sent_by_us(tree)
    assert sent == recorder.sent_by_the_cli(tree)
    assert sent is not None
    assert set(FILES) < sent
