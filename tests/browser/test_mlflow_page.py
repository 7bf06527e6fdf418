"""A real sweep, from the command to MLflow's own pages: parent, children, curves and report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyseg.runs.run_directory import RunDirectory
from tests.outside import Shell

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: chromium)")


@dataclass(frozen=True)
class Served:
    """A finished sweep and the address of MLflow. `children`: MLflow's run id by label."""

    url: str
    parent: str
    children: dict[str, str]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    shell: Shell,
    real_sweep: tuple[dict[str, RunDirectory], str],
) -> Iterator[Served]:
    """`mlflow ui` on the store of the sweep that the tests share."""
    root = tmp_path_factory.mktemp("served")
    store = f"sqlite:///{shell.folder / 'mlflow.db'}"
    cells, _ = real_sweep
    sweep = json.loads((shell.folder / "out/edges/sweep.json").read_text())
    children = {label: str(run.info["mlflow_run_id"]) for label, run in cells.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        (root / "mlflow.txt").open("w") as log,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "ui",
                "--backend-store-uri",
                store,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--workers",
                "1",
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,  # it starts workers, which end with it
        ) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _answers(url, server, root / "mlflow.txt")
            yield Served(url, sweep["mlflow_parent"], children)
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def _answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


def test_parent_children_curves_and_report(served: Served, tab: Any) -> None:
    said = "document.body?.innerText.includes"
    tab.goto(f"{served.url}/#/runs/{served.parent}")  # the address in a report's list of runs
    tab.wait(f"{said}('sweep edges') && {said}('Child runs')")
    tab.wait(f"{said}('gate · seed 0') && {said}('gate_copy · seed 0')")
    parent = str(tab.run("location.href")).split("?")[0]

    tab.goto(f"{served.url}/#/runs/{served.children['gate']}")
    tab.wait(f"{said}('gate · seed 0') && {said}('optim.steps')")
    child = str(tab.run("location.href")).split("?")[0]

    tab.goto(f"{child}/model-metrics")
    tab.wait("document.querySelectorAll('.js-plotly-plot .js-line').length >= 3")
    for section in ("train", "val", "gradient"):
        tab.wait(f"/{section}\\s*\\(\\d+\\)/.test(document.body.textContent)")

    tab.goto(f"{parent}/artifacts/report/index.html")
    tab.wait("document.querySelectorAll('iframe').length")
    tab.wait(f"{said}('report.md') && {said}('index.html')")
    # MLflow's own question who is logged in finds nothing where nobody logs in.
    assert [e for e in tab.errors if "users/current" not in e] == []
