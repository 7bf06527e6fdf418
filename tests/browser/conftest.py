"""Headless Chromium through its DevTools protocol over a pipe: no driver, no port, real time."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Tab:
    """One page. `errors`: what it wrote to the console as an error, and exceptions."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive, self.buffer, self.number = send, receive, b"", 0
        self.errors: list[str] = []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def _next(self, patience: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.receive], [], [], patience)
            assert ready, "Chromium does not answer"
            got = os.read(self.receive, 1 << 20)
            assert got, "Chromium ended"
            self.buffer += got
        text, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        entry = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(entry["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and entry["entry"]["level"] == "error":
            self.errors.append(f"{entry['entry']['text']} {entry['entry'].get('url', '')}")
        return message

    def goto(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, patience: float = 90) -> Any:
        """The expression's first value that is true; what the page says where none comes."""
        end = time.monotonic() + patience
        while not (found := self.run(expression)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText")
                raise AssertionError(f"{expression} never came true; the page says:\n{text}")
            time.sleep(0.2)
        return found


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A tab of a browser of its own."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: chromium)")
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
            f"--user-data-dir={tmp_path / 'profile'}",
        ],
        preexec_fn=ends,
        close_fds=False,
        stderr=subprocess.DEVNULL,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    ) as process:
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Tab(commands[1], answers[0])
        finally:
            process.terminate()
            process.wait(20)
            os.close(commands[1])
            os.close(answers[0])
