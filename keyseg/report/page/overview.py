"""The page of all sweeps: what each was asked, its answer, and where its report is.

A report leaves `answer.json` beside its page; the page of all is made of these files alone, so it
is as old as its reports, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keyseg.runs import disk

HERE = Path(__file__).parent
ANSWER = "answer.json"
_OURS = "<!-- keyseg: all sweeps -->"
"""The page's first line but one: another index.html is left alone."""


def keep(out_dir: Path, answer: Mapping[str, Any]) -> None:
    """Leave beside a report what the page of all sweeps says of it."""
    stamped = {**answer, "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
    disk.replace(out_dir / ANSWER, json.dumps(stamped, indent=1, ensure_ascii=False).encode())


def write(reports: Path) -> Path | None:
    """Write reports/index.html over all reports that lie there; its path.

    None where there is no report, or an index.html that is not ours.
    """
    import jinja2

    answers = sorted(_answers(reports), key=lambda one: one["written"], reverse=True)
    page = reports / "index.html"
    if not answers or (page.exists() and _OURS not in page.read_text(encoding="utf-8")[:200]):
        return None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (HERE / "style.css").read_text(encoding="utf-8")
    values = {"ours": _OURS, "sweeps": answers, "style_css": style}
    text = environment.get_template("overview.html.j2").render(values)
    disk.replace(page, text.encode())
    return page


def _answers(reports: Path) -> list[dict[str, Any]]:
    """What reports left; one that cannot be read is left out."""
    answers = []
    for file in reports.glob(f"*/{ANSWER}"):
        try:
            stored = json.loads(file.read_bytes())
            known = {
                key: stored[key] for key in ("name", "heading", "sentence", "state", "written")
            }
            facts = {str(key): str(value) for key, value in stored["facts"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        answers.append({**known, "facts": facts, "folder": file.parent.name})
    return answers
