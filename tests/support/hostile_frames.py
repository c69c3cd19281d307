"""Passes damaged terms to `decode` and prints the results as JSON. It is a script, so that its memory can be limited.

    python hostile_frames.py COUNT SEED FILE...

Each of COUNT terms is one of the FILEs (terms in the external format) with a few random changes. `decode` must return a
value or raise a WireError. Any other exception ends the script with a traceback. The script needs Linux, for /proc.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nerves_docker_port.port import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

# Numbers that are wrong as lengths, and the tags of the format.
_LENGTHS = [0, 1, 2, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
_TAGS = [70, 77, 78, 80, 88, 89, 90, *range(97, 122), 131]


def damaged(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged terms, which are the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            _injure(data, chance, seeds)
        yield bytes(data)


def _injure(data: bytearray, chance: random.Random, seeds: list[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(8):
        case 0:
            del data[at:]
        case 1:
            data[at : at + 1] = chance.randbytes(1)
        case 2:
            data[at : at + 1] = bytes([chance.choice(_TAGS)])
        case 3:
            data[at : at + 4] = struct.pack(">I", chance.choice(_LENGTHS))
        case 4:
            del data[at : at + chance.randrange(1, 9)]
        case 5:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        case 6:
            other = chance.choice(seeds)
            begin = chance.randrange(len(other))
            data[at:at] = other[begin : begin + chance.randrange(1, 60)]
        case _:
            data[at : at + 1] = bytes([data[at] ^ (1 << chance.randrange(8))]) if at < len(data) else b"\x83"


def main() -> None:
    count, seed, *files = sys.argv[1:]
    seeds = [Path(file).read_bytes() for file in files]
    values = refused = 0
    slowest = 0.0
    for data in damaged(seeds, int(count), int(seed)):
        began = time.perf_counter()
        try:
            wire.decode(data)
        except wire.WireError:
            refused += 1
        else:
            values += 1
        slowest = max(slowest, time.perf_counter() - began)
    print(json.dumps({"values": values, "refused": refused, "slowest": slowest, "peak_kib": _peak_kib()}))


def _peak_kib() -> int:
    """Return the peak memory of this process in KiB. `ru_maxrss` is not used, because a child inherits its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
