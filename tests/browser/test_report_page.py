"""The report's page in headless Chromium: no console error, filters that filter, links that lead.

A script appended to a copy of the page works its buttons and leaves what it saw in the title;
`--dump-dom` prints the page after that.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from keyseg.config import PROJECT
from keyseg.report import build
from keyseg.report.figures import drawing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

WORK = """<script>
const seen = () => document.querySelectorAll(".item:not([hidden])").length;
const press = (key, value) =>
  document.querySelector(`button[data-key="${key}"][data-value="${value}"]`).click();
const choose = (value) => {
  const kind = document.querySelector('select[data-key="kind"]');
  kind.value = value; kind.dispatchEvent(new Event("change"));
};
const out = [seen()];
press("style", "reasoning"); out.push(seen());
const alien = [...document.querySelectorAll(".item:not([hidden])")]
  .filter((item) => item.dataset.style !== "reasoning").length;
choose("random"); out.push(seen());
press("style", ""); choose(""); out.push(seen());
const kinds = [...document.querySelectorAll(".kind")];
out.push(kinds.filter((kind) => kind.open).length);  // the first, and the one that was asked for
const columns = () => document.querySelectorAll('.picture[data-variant="1"]:not([hidden])').length;
out.push(columns());
document.querySelector('.columns button[data-variant="1"]').click();
out.push(columns());
for (const kind of kinds) kind.open = true;
const dead = [...document.querySelectorAll('a[href^="#"]')]
  .filter((a) => !document.getElementById(a.getAttribute("href").slice(1))).length;
const blank = [...document.images].filter((i) => i.loading !== "lazy" && !i.naturalWidth).length
  + [...document.querySelectorAll(".shown")].map((s) => getComputedStyle(s, "::before"))
    .filter((s) => !s.backgroundImage.includes("data:image/webp")).length;
document.title = [...out, alien, dead, blank].join(" ");
</script>"""


def store_maker() -> object:
    """The small store of tests/report, which is another package's conftest."""
    file = PROJECT / "tests" / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_store", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    sweep = store_maker().make_store(tmp_path, images=8)  # type: ignore[attr-defined]
    page = build(sweep, tmp_path / "report").html
    worked = page.with_name("worked.html")
    text = page.read_text(encoding="utf-8")
    worked.write_text(text.replace("</body>", WORK + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            worked.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>([^<]*)</title>", done.stdout)
    assert title is not None
    every, styled, kind_too, again, opened, shown, hidden, *wrong = map(int, title[1].split())
    assert every == again > styled > kind_too >= 0
    assert opened == 2
    assert shown > hidden == 0
    assert wrong == [0, 0, 0]  # alien to the filter, dead links, blank pictures
