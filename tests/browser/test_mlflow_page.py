"""A real sweep in MLflow's own pages, as `keyseg ui` serves them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyseg.config import PROJECT
from keyseg.runs.run_directory import RunDirectory
from tests.outside import Shell
from tests.tracking_server import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: chromium)")

SAID = "document.body?.innerText.includes"


@dataclass(frozen=True)
class Served:
    """The sweep that the tests share in MLflow. `pages`: addresses as `keyseg ui` prints them."""

    url: str
    pages: dict[str, str]
    cells: dict[str, RunDirectory]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    shell: Shell,
    real_sweep: tuple[dict[str, RunDirectory], str],
) -> Iterator[Served]:
    """`keyseg ui` on the store of that sweep, which it remembers: no variable names it here."""
    said: Path = tmp_path_factory.mktemp("served") / "ui.txt"
    port = free_port()
    outputs = str(shell.folder / "out")
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (
        said.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "keyseg", "--outputs", outputs, "ui", "edges", f"--port={port}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment | {"PYTHONUNBUFFERED": "1"},
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
            assert pages.keys() >= {"sweep", "cells"}, said.read_text()
            yield Served(f"http://127.0.0.1:{port}", pages, real_sweep[0])
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0


def errors(tab: Any) -> list[str]:
    """MLflow's own question who is logged in finds nothing where nobody logs in."""
    return [error for error in tab.errors if "users/current" not in error]


def test_the_page_of_a_sweep_and_the_list_of_its_cells(served: Served, tab: Any) -> None:
    tab.goto(served.pages["sweep"])
    tab.wait(f"{SAID}('sweep edges') && {SAID}('Does a gate help?') && {SAID}('design.cells')")
    assert tab.run(f"{SAID}('Model training')")
    tab.wait(f"{SAID}('gate · seed 0') && {SAID}('gate_copy · seed 0')")
    tab.wait("[...document.images].some(i => i.src.includes('get-artifact') && i.naturalWidth)")
    page = str(tab.run("location.href")).split("?")[0]
    tab.goto(f"{page}/artifacts/report/index.html?workflowType=machine_learning")
    tab.wait("document.querySelectorAll('iframe').length")
    tab.wait(f"{SAID}('report.md') && {SAID}('index.html')")

    tab.goto(served.pages["cells"])
    tab.wait(f"{SAID}('gate · seed 0') && !{SAID}('sweep edges')")
    headers = "[...document.querySelectorAll('.ag-header-cell')].map(c => c.innerText).join()"
    for column in ("keyseg.state", "giou", "ciou", "keyword_accuracy", "minutes"):
        tab.wait(f"{headers}.includes('{column}')")
    assert errors(tab) == []


def test_the_page_of_a_cell(served: Served, tab: Any) -> None:
    run = served.cells["gate"].info["mlflow_run_id"]
    tab.goto(f"{served.url}/#/runs/{run}")
    tab.wait(f"{SAID}('gate · seed 0') && {SAID}('optim.steps') && {SAID}('/train')")
    child = str(tab.run("location.href")).split("?")[0]
    tab.goto(f"{child}/model-metrics")
    tab.wait("document.querySelectorAll('.js-plotly-plot .js-line').length >= 3")
    places = []
    for section in ("train", "val", "weights/gradient"):
        heading = f"/{section.replace('/', '.')}\\s*\\(\\d+\\)/"
        tab.wait(f"{heading}.test(document.body.textContent)")
        places.append(tab.run(f"document.body.textContent.search({heading})"))
    assert places == sorted(places)
    tab.goto(f"{child}/artifacts")
    tab.wait(f"{SAID}('overlays') && {SAID}('config.yaml') && {SAID}('log.txt')")
    assert errors(tab) == []
