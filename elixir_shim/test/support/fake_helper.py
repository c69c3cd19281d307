"""A fake helper that plays a script, to test how the shim reacts.

    python3 fake_helper.py SCRIPT port

SCRIPT is a JSON file with a list of [verb, argument]. The test encodes terms with :erlang.term_to_binary/1 and base64,
so this program need not know the external term format.
"""

# This script prints on purpose, and it is in no package.
# ruff: noqa: INP001, T201

import base64
import json
import os
import struct
import sys
import time
from pathlib import Path

FROM_MIX, TO_MIX = 3, 4


def read_exactly(count):
    data = b""
    while len(data) < count:
        more = os.read(FROM_MIX, count - len(data))
        if not more:
            return None
        data += more
    return data


def write(data):
    while data:
        data = data[os.write(TO_MIX, data) :]


def save(path, data):
    """Write a file. Its final name appears only when it is complete, because a test waits for it."""
    part = Path(path + ".part")
    part.write_bytes(data)
    part.rename(path)


def frame(argument):
    payload = base64.b64decode(argument)
    write(struct.pack(">I", len(payload)) + payload)


def raw(argument):
    write(base64.b64decode(argument))


def read(path):
    """Read one frame, and save it to `path` unless that is None. Exit at the end of input."""
    header = read_exactly(4)
    if header is None:
        sys.exit(0)
    payload = read_exactly(struct.unpack(">I", header)[0])
    if path is not None:
        save(path, payload)


def wait_for_eof(path):
    while os.read(FROM_MIX, 65536):
        pass
    save(path, b"end of input")
    sys.exit(0)


def flood(argument):
    """Send the same frame many times."""
    count, payload = argument
    payload = base64.b64decode(payload)
    write((struct.pack(">I", len(payload)) + payload) * count)


VERBS = {
    "frame": frame,
    "raw": raw,
    "read": read,
    "flood": flood,
    "pid": lambda path: save(path, b"%d" % os.getpid()),
    "argv": lambda path: save(path, json.dumps(sys.argv[2:]).encode()),
    "print": lambda text: print(text, flush=True),
    "stderr": lambda text: print(text, file=sys.stderr, flush=True),
    "sleep": time.sleep,
    "exit": sys.exit,
    "kill": lambda number: os.kill(os.getpid(), number),
    "wait_for_eof": wait_for_eof,
    "close_input": lambda _: os.close(FROM_MIX),
}

steps = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
for verb, argument in steps:
    VERBS[verb](argument)
