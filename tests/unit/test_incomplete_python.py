"""A Python that was built without a library: what does not need it works, and what does says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom
from support.port import Helper
from support.requests import arguments

# As the import of a module fails whose extension was not built.
WITHOUT = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ({name!r}, "_" + {name!r}):
            raise ModuleNotFoundError(f"No module named '_{name}'", name=name)
sys.meta_path.insert(0, Missing())
for loaded in [each for each in sys.modules if each in ({name!r}, "_" + {name!r})]:
    del sys.modules[loaded]
sys.argv[0] = "nerves_docker_port"
runpy.run_module("nerves_docker_port", run_name="__main__", alter_sys=True)
"""


def helper_without(module: str, directory: Path) -> Helper:
    script = directory / "without.py"
    script.write_text(WITHOUT.format(name=module))
    return Helper(command=[sys.executable, str(script)], env={"DOCKER_HOST": "unix:///nowhere.sock"})


@pytest.mark.parametrize("module", ["lzma", "bz2", "ctypes", "sqlite3", "readline", "curses"])
def test_what_the_helper_can_do_without_is_not_missed(module: str, tmp_path: Path) -> None:
    with helper_without(module, tmp_path) as helper:
        # The engine is asked, so everything that a flow needs is there.
        assert helper.request("build", arguments(tmp_path)).error["code"] == "engine_unreachable"  # type: ignore[index]


@pytest.mark.parametrize("module", ["zlib", "ssl"])
def test_a_module_that_it_needs_is_named_with_the_remedy(module: str, tmp_path: Path) -> None:
    with helper_without(module, tmp_path) as helper:
        match helper.receive():
            case (Atom("done"), 0, (Atom("error"), dict() as error)):
                message, hint = str(error[Atom("message")]), str(error[Atom("hint")])
            case other:
                pytest.fail(f"the helper said {other!r}")
    assert f"ModuleNotFoundError: No module named '_{module}'" in message
    assert f"{sys.executable} ({sys.version.split()[0]}), lacks its module `{module}`" in message
    assert "memory" not in message + hint
    assert "pyenv install --force" in hint
    assert error[Atom("code")] == Atom("internal")
    assert error[Atom("log")] is None


def test_any_other_python_error_after_the_hello_is_told_as_that(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys, runpy, nerves_docker_port.port.session as session\n"
        "def run(self): raise RuntimeError('no idea')\n"
        "session.Session.run = run\n"
        "sys.argv[0] = 'x'\n"
        "runpy.run_module('nerves_docker_port', run_name='__main__', alter_sys=True)\n"
    )
    with Helper(command=[sys.executable, str(script)]) as helper:
        message = helper.receive()
    assert message == (
        Atom("done"),
        0,
        (
            Atom("error"),
            {
                Atom("code"): Atom("internal"),
                Atom("message"): "The helper failed with a Python error, a defect of its own: RuntimeError: no idea",
                Atom("hint"): "Please report it with the traceback above.",
                Atom("log"): None,
            },
        ),
    )


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ("ModuleNotFoundError: No module named '_lzma'", "lacks its module `lzma`"),
        ("ModuleNotFoundError: import of lzma halted; None in sys.modules", "lacks its module `lzma`"),
        ("ImportError: libssl.so.1.1: cannot open shared object file: No such file or directory", "is damaged"),
        ("ImportError: dlopen(/x/_ssl.so, 2): Library not loaded: /opt/x/libssl.dylib", "is damaged"),
        ("ModuleNotFoundError: No module named 'msgpack'", "a defect of its own"),
        ("KeyError: 'x'", "a defect of its own"),
    ],
)
def test_a_python_error_is_called_what_it_is(detail: str, words: str) -> None:
    error = errors.internal(detail)
    assert detail in error.message
    assert words in error.message
    assert error.hint
