"""The review page in headless Chromium: what is typed and ticked comes back through its CSV."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyseg.data.example import Example
from keyseg.data.keywords import settle, sheet
from keyseg.report.gallery.keyword_sheet import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

WORK = """<script>
const type = (a, text) => { word(a).value = text; a.dispatchEvent(new Event("input")); };
type(articles[0], 'bow "tie", red');
box(articles[1]).checked = true; articles[1].dispatchEvent(new Event("input"));
at("open").checked = true; show();
const left = articles.filter(a => !a.hidden).length;
const pictures = [...document.images].length, kept = localStorage.length;
const made = csv();
document.body.innerHTML = "<pre></pre>";
document.querySelector("pre").textContent = [left, pictures, kept, made].join("|");
</script></html>"""


def test_what_is_settled_on_the_page_is_read_back(tmp_path: Path) -> None:
    doubts, examples = [], []
    for n, query in enumerate(("what is <b>worn</b> ?", "what, then, barks ?", "what else ?")):
        image = tmp_path / f"{n}.jpg"
        Image.new("RGB", (40, 30)).save(image)
        item = {"query": query, "outputs": "", "image": image.name, "json": ""}
        doubts.append(settle.Doubt(item, "ties", "tie", "not in its one form"))
        mask = np.ones((30, 40), np.uint8)
        examples.append(Example(f"{n}-0", image, "", query, True, "", "", {}, lambda m=mask: m))
    rows = sheet.rows(doubts)
    file = tmp_path / "review.html"
    file.write_text(page("mine", rows, examples).replace("</html>", WORK), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[:2000] + done.stderr
    left, pictures, kept, made = html.unescape(found[1]).split("|", 3)
    assert (left, pictures, kept) == ("1", "3", "2"), "two of three are settled, and kept"
    (tmp_path / "saved.csv").write_text(made, encoding="utf-8")
    back = sheet.read(tmp_path / "saved.csv")
    changed = [{**rows[0], "keyword": 'bow "tie", red'}, {**rows[1], "checked": "x"}, rows[2]]
    assert back == changed
