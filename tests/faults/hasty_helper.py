"""The helper with shorter waits: the same program, some of its constants changed before it starts.

    NERVES_HASTY='{"engine.client.REQUEST_TIMEOUT": 1}' python hasty_helper.py port

A test that shows what happens after a timeout need not sit through it. Nothing but numbers, and
pairs of them, can be changed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from nerves_docker_port.__main__ import main


def hasten() -> None:
    """Set the constants that the environment names, in their modules."""
    for name, value in json.loads(os.environ["NERVES_HASTY"]).items():
        module_name, _, constant = name.rpartition(".")
        module = importlib.import_module(f"nerves_docker_port.{module_name}")
        assert isinstance(getattr(module, constant), (int, float, tuple)), name
        setattr(module, constant, tuple(value) if isinstance(value, list) else value)


if __name__ == "__main__":
    hasten()
    sys.exit(main())
