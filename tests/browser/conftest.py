"""Headless Chromium through its DevTools protocol over a pipe: no driver, no port, real time."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """A browser for all tests of a process: starting one takes a second."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive, self.buffer, self.number = send, receive, b"", 0

    def write(self, message: dict[str, Any]) -> int:
        self.number += 1
        os.write(self.send, json.dumps({**message, "id": self.number}).encode() + b"\0")
        return self.number

    def read(self, patience: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.receive], [], [], patience)
            assert ready, "Chromium does not answer"
            got = os.read(self.receive, 1 << 20)
            assert got, "Chromium ended"
            self.buffer += got
        text, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message


class Tab:
    """One page. `errors`: what it wrote to the console as an error, and exceptions."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.errors: list[str] = []
        self.session: str | None = None
        self.target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=self.target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        message = {"method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        number = self.browser.write(message)
        while True:
            answer = self._next(60)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def _next(self, patience: float) -> dict[str, Any]:
        message = self.browser.read(patience)
        entry = message.get("params", {})
        if message.get("sessionId") != self.session:
            return message  # of a tab of another test
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(entry["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and entry["entry"]["level"] == "error":
            self.errors.append(f"{entry['entry']['text']} {entry['entry'].get('url', '')}")
        return message

    def close(self) -> None:
        self.session = None
        self.call("Target.closeTarget", targetId=self.target)

    def goto(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, patience: float = 180) -> Any:
        """The expression's first value that is true; what the page says where none comes."""
        end = time.monotonic() + patience
        while not (found := self.run(expression)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText")
                raise AssertionError(f"{expression} never came true; the page says:\n{text}")
            time.sleep(0.2)
        return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of this process."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: chromium)")
    home = tmp_path_factory.mktemp("browser")
    commands, answers = os.pipe(), os.pipe()

    def ends() -> None:  # Chromium reads commands from 3 and writes answers to 4
        read, write = os.dup(commands[0]), os.dup(answers[1])
        os.dup2(read, 3)
        os.dup2(write, 4)

    with subprocess.Popen(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--remote-debugging-pipe",
            "--enable-unsafe-swiftshader",
            "--window-size=1500,1200",
            "--no-first-run",
            f"--user-data-dir={home / 'profile'}",
        ],
        preexec_fn=ends,
        close_fds=False,
        stderr=subprocess.DEVNULL,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
    ) as process:
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Browser(commands[1], answers[0])
        finally:
            process.terminate()
            process.wait(20)
            os.close(commands[1])
            os.close(answers[0])


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab of its own."""
    made = Tab(browser)
    yield made
    made.close()
