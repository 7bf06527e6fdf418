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

from keyseg.config import PROJECT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: chromium)"),
    pytest.mark.xdist_group("mlflow-page"),
]


@dataclass(frozen=True)
class Served:
    """A finished sweep and the address of MLflow. `children`: MLflow's run id by seed."""

    url: str
    parent: str
    children: dict[int, str]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, small_overrides: tuple[str, ...]
) -> Iterator[Served]:
    """`python run.py -m seed=0,1`, four steps each, and `mlflow ui` on its store."""
    root = tmp_path_factory.mktemp("real")
    store = f"sqlite:///{root / 'mlflow.db'}"
    done = subprocess.run(
        [
            sys.executable,
            str(PROJECT / "run.py"),
            "-m",
            "fusion=full",
            "seed=0,1",
            "name=real",
            "optim.steps=4",
            "runtime.log_every=1",
            "evaluation.protocols=[teacher_forced]",
            f"paths.outputs={root / 'outputs'}",
            f"paths.reports={root / 'reports'}",
            *small_overrides,
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "MLFLOW_TRACKING_URI": store},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = json.loads((root / "outputs/real/sweep.json").read_text())
    children = {
        cell["seed"]: json.loads(
            (root / "outputs/real" / cell["signature"] / "mlflow.json").read_text()
        )["run_id"]
        for cell in sweep["cells"]
    }
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
    tab.wait(f"{said}('sweep real') && {said}('Child runs')")
    tab.wait(f"{said}('full · seed 0') && {said}('full · seed 1')")
    parent = str(tab.run("location.href")).split("?")[0]

    tab.goto(f"{served.url}/#/runs/{served.children[1]}")
    tab.wait(f"{said}('full · seed 1') && {said}('optim.steps')")
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
