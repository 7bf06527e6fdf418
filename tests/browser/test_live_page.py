"""The live page in headless Chromium: it is renewed as a cell reports, fails and is done."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keyseg.commands import live
from keyseg.report import assemble
from keyseg.report.stats import inference
from keyseg.runs.run_directory import Row, RunDirectory, now
from tests.browser.test_report_page import store_maker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

STATES = {("seg_only", 0): "done", ("cross", 0): "running", ("full", 0): "queued"}


@pytest.fixture
def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, live.LiveSweep, Path]]:
    """A sweep of which one cell is done, one is at work and one waits; looked at when asked."""
    for name in ("bootstrap", "swap_images"):
        whole = getattr(inference, name)
        monkeypatch.setattr(inference, name, lambda *a, _w=whole, **k: _w(*a, **k, resamples=49))
    sweep = store_maker().make_store(tmp_path, images=6, status=STATES)  # type: ignore[attr-defined]
    RunDirectory(sweep / "01005e9a7c31").update(steps=400)
    RunDirectory(sweep / "02005e9a7c31").update(attempts=[])
    shown = live.LiveSweep(sweep, tmp_path / "reports" / "index.html")
    with ThreadingHTTPServer(("127.0.0.1", 0), live._handler(shown)) as server:
        server.daemon_threads = False  # what a page asked is answered before the test ends
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", shown, sweep
        server.shutdown()
        shown.renew(head="the end")


def test_the_page_is_renewed_as_cells_report(
    served: tuple[str, live.LiveSweep, Path], tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, shown, sweep = served
    cross = RunDirectory(sweep / "01005e9a7c31")
    states = "[...document.querySelectorAll('.cells .state')].map(e => e.textContent).join(' ')"
    with cross.lock():
        shown.look()
        tab.goto(url)
        tab.wait("document.querySelectorAll('.charts polyline').length == 6")  # two charts
        assert tab.run(states) == "done running queued"
        curve = "document.querySelectorAll('.charts polyline')[1].outerHTML"
        before = tab.run(curve)

        keys = "[...document.querySelectorAll('.legend line')].map(l => l.getAttribute('{0}'))"
        lines = "[...document.querySelectorAll('.charts svg:first-of-type polyline')]"
        for what in ("stroke", "stroke-dasharray"):  # seg_only, cross; full has none yet
            drawn = tab.run(f"{lines}.slice(0, 2).map(l => l.getAttribute('{what}'))")
            assert tab.run(keys.format(what))[:2] == drawn
        ends = "document.querySelector('.charts svg').getBoundingClientRect().right"
        inside = "[...document.querySelectorAll('.charts svg')[0].querySelectorAll('text')]"
        assert tab.run(f"{inside}.every(t => t.getBoundingClientRect().right <= {ends})")

        conclude = assemble.conclude
        heard = "document.getElementById('verdicts').innerText.includes('being computed')"

        def slow(folder: Path) -> Any:
            tab.wait(heard)
            return conclude(folder)

        monkeypatch.setattr(assemble, "conclude", slow)
        shown.conclude()
        shown.look()
        tab.wait(f"!{heard}")
        tab.wait("!!document.querySelector('#verdicts .verdict.interim')")
        assert "interim: 1 of 3 cells" in tab.run("document.getElementById('verdicts').innerText")

        cross.log([Row("val/giou", 0.9, 200, now()), Row("train/loss", 0.1, 200, now())])
        shown.look()
        tab.wait("document.querySelector('.cells').innerText.includes('90.0')")
        assert tab.run(curve) != before
    cross.update(status="failed", error="Traceback\nRuntimeError: loss is nan")
    shown.look()
    tab.wait("!!document.querySelector('.cells .error')")
    assert tab.run(states) == "done failed stopped"  # nobody is there to take up the last one
    assert "RuntimeError: loss is nan" in tab.run("document.querySelector('.error').innerText")
    assert tab.errors == []


def test_only_what_changed_is_sent_and_only_to_this_machine(
    served: tuple[str, live.LiveSweep, Path], tmp_path: Path
) -> None:
    url, shown, _ = served
    shown.look()
    first = shown.changes(0)
    assert set(first["parts"]) == {"head", "curves", "cells"}  # no verdict was asked for yet
    assert shown.changes(first["version"], patience=0.01)["parts"] == {}
    shown.renew(head="another")
    with urllib.request.urlopen(f"{url}changes?since={first['version']}") as answer:
        assert json.load(answer)["parts"] == {"head": "another"}
    anew = shown.changes(99, patience=0.01)  # a page that another server made
    assert set(anew["parts"]) == set(first["parts"])
    for path, host, code in (("", "evil.example:80", 403), ("../run.json", "127.0.0.1", 404)):
        asked = urllib.request.Request(url + path, headers={"Host": host})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        assert refused.value.code == code
        refused.value.close()
    design = json.loads((shown.sweep_dir / "sweep.json").read_text())
    (shown.sweep_dir / "sweep.json").write_text(
        json.dumps({**design, "cells": design["cells"][:2]})
    )
    shown.look()
    assert "full" not in shown.changes(0)["parts"]["cells"]
    shown.report.parent.mkdir()
    shown.report.write_text("the report")
    with urllib.request.urlopen(f"{url}report/index.html") as answer:
        assert answer.read() == b"the report"
