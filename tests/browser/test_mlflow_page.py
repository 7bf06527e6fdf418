"""A real sweep, from the command to MLflow's own pages, as `keyseg ui` serves them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from keyseg.config import PROJECT
from tests.tracking_server import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: chromium)"),
    pytest.mark.xdist_group("mlflow-page"),
]

SAID = "document.body?.innerText.includes"


@dataclass(frozen=True)
class Served:
    """A finished sweep in MLflow. `pages`: addresses as `keyseg ui` prints them, by name."""

    url: str
    pages: dict[str, str]
    children: dict[int, str]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, small_overrides: tuple[str, ...]
) -> Iterator[Served]:
    """`python run.py -m seed=0,1`, four steps each, and `keyseg ui` on its store."""
    root = tmp_path_factory.mktemp("real")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}"}
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
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = json.loads((root / "outputs/real/sweep.json").read_text())
    children = {
        cell["seed"]: json.loads(
            (root / "outputs/real" / cell["signature"] / "mlflow.json").read_text()
        )["run_id"]
        for cell in sweep["cells"]
    }
    port = free_port()
    command = [
        "-m",
        "keyseg",
        "--outputs",
        str(root / "outputs"),
        "ui",
        "real",
        "--port",
        str(port),
    ]
    del environment["MLFLOW_TRACKING_URI"]  # the sweep remembers its store
    with (
        (root / "ui.txt").open("w") as errors,
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=PROJECT,
        ) as server,
    ):
        try:
            assert server.stdout is not None
            pages = {}
            for line in server.stdout:
                if line.startswith("Ctrl-C"):
                    break
                name, _, address = line.strip().partition("  ")
                pages[name] = address.strip()
            assert pages.keys() >= {"sweep", "cells", "variants"}, (root / "ui.txt").read_text()
            yield Served(f"http://127.0.0.1:{port}", pages, children)
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0


def errors(tab: Any) -> list[str]:
    """MLflow's own question who is logged in finds nothing where nobody logs in."""
    return [error for error in tab.errors if "users/current" not in error]


def test_the_page_of_a_sweep(served: Served, tab: Any) -> None:
    tab.goto(served.pages["sweep"])
    tab.wait(f"{SAID}('sweep real') && {SAID}('2 of 2 cells done') && {SAID}('design.cells')")
    assert tab.run(f"{SAID}('Model training')")
    tab.wait(f"{SAID}('full · seed 0') && {SAID}('full · seed 1') && {SAID}('full · 2 seeds')")
    tab.wait("[...document.images].some(i => i.src.includes('get-artifact') && i.naturalWidth)")
    page = str(tab.run("location.href")).split("?")[0]
    tab.goto(f"{page}/artifacts/report/index.html?workflowType=machine_learning")
    tab.wait("document.querySelectorAll('iframe').length")
    tab.wait(f"{SAID}('report.md') && {SAID}('index.html')")
    assert errors(tab) == []


def test_the_lists_of_cells_and_variants(served: Served, tab: Any) -> None:
    tab.goto(served.pages["cells"])
    tab.wait(f"{SAID}('full · seed 0') && {SAID}('full · seed 1')")
    for column in ("keyseg.label", "keyseg.state", "seed", "giou"):
        tab.wait(
            f"[...document.querySelectorAll('.ag-header-cell')].some(c => "
            f"c.innerText.includes('{column}'))"
        )
    assert not tab.run(f"{SAID}('full · 2 seeds')")
    tab.goto(served.pages["variants"])
    tab.wait(f"{SAID}('full · 2 seeds') && !{SAID}('full · seed 0')")
    assert errors(tab) == []


def test_the_page_of_a_cell(served: Served, tab: Any) -> None:
    tab.goto(f"{served.url}/#/runs/{served.children[1]}")  # the address in a report's list of runs
    tab.wait(f"{SAID}('full · seed 1') && {SAID}('optim.steps') && {SAID}('scenes/train')")
    child = str(tab.run("location.href")).split("?")[0]
    tab.goto(f"{child}/model-metrics")
    tab.wait("document.querySelectorAll('.js-plotly-plot .js-line').length >= 3")
    for section in ("train", "val", "weights/gradient"):
        tab.wait(f"/{section.replace('/', '.')}\\s*\\(\\d+\\)/.test(document.body.textContent)")
    tab.goto(f"{child}/artifacts")
    tab.wait(f"{SAID}('overlays') && {SAID}('config.yaml') && {SAID}('log.txt')")
    assert errors(tab) == []
