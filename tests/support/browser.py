"""Controls a real browser without a window (Chromium) over the WebDriver protocol, with Debian's chromedriver.

The protocol is HTTP and JSON (https://www.w3.org/TR/webdriver2/), so only the package ``requests`` is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import requests
from integration.host import apt_install

if TYPE_CHECKING:
    from typing_extensions import Self

TAB, ENTER = "\ue004", "\ue007"
"""The codes of keys (WebDriver, section 17.4.2)."""


class Browser:
    """One window of 1280 by 900 pixels. The ``with`` block ends the browser."""

    def __init__(self) -> None:
        if shutil.which("chromedriver") is None or shutil.which("chromium") is None:
            apt_install(["chromium", "chromium-driver"], "the report's page is looked at in a real browser")
        self._profile = tempfile.TemporaryDirectory(prefix="ndp-browser-", ignore_cleanup_errors=True)
        self._log = Path(self._profile.name) / "chromedriver.log"
        with self._log.open("wb") as log:
            self._driver = subprocess.Popen(
                ["chromedriver", "--port=0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._http = requests.Session()
        # The driver is on loopback, so no proxy of this machine must be used.
        self._http.trust_env = False
        try:
            self._url = f"http://127.0.0.1:{self._port()}/session"
            made = self._call("POST", "", {"capabilities": {"alwaysMatch": self._capabilities()}})
            self._url += f"/{made['sessionId']}"
        except BaseException:
            self._end_driver()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._end_driver()

    def _end_driver(self) -> None:
        self._driver.terminate()
        self._driver.communicate(timeout=30)
        self._http.close()
        self._profile.cleanup()

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            match = re.search(r"started successfully on port (\d+)", line)
            if match:
                return int(match[1])
        raise AssertionError(f"chromedriver does not start: {self._log.read_text()}")

    def _capabilities(self) -> dict[str, Any]:
        words = [
            "--headless=new",
            "--window-size=1280,900",
            "--hide-scrollbars",
            f"--user-data-dir={self._profile.name}",
        ]
        # Chromium's sandbox does not work for root, and /dev/shm may be small in a container.
        words += ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-device-scale-factor=1"]
        return {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": words},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, self._url + path, json=body, timeout=120)
        value = answer.json()["value"]
        assert answer.ok, value
        return value

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self._call("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in JavaScript, and return its result."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def type(self, keys: str) -> None:
        """Press the keys one after the other, in the element that has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """Return the new entries of the log ``browser`` (the console) or ``performance`` since the last call."""
        entries: list[dict[str, Any]] = self._call("POST", "/se/log", {"type": kind})
        return entries
