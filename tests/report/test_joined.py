"""Several sweeps as one, and what the command line may ask of a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from keyseg import cli
from keyseg.config import ConfigError
from keyseg.report import build
from keyseg.report.figures import drawing
from keyseg.report.joined import asked, join
from keyseg.report.store import load


@pytest.fixture
def two(tmp_path: Path, make: Callable[..., Path]) -> list[Path]:
    """Two sweeps that share the run of `cross`; the second one varies the loss."""
    first = make(tmp_path / "a", labels=("seg_only", "cross"), images=6)
    second = make(tmp_path / "b", labels=("full", "cross"), images=6)
    design = json.loads((second / "sweep.json").read_text())
    (second / design["cells"][0]["signature"]).rename(second / "another5e9a7")
    design["cells"][0] |= {"signature": "another5e9a7"}
    design["cells"][0]["factors"] = {"fusion": "full", "loss": "lisa"}
    design["cells"][1]["factors"] = {"fusion": "cross", "loss": "balanced"}
    design |= {"name": "loss", "question": "And the loss?", "metrics": ["keyword_accuracy"]}
    (second / "sweep.json").write_text(json.dumps(design))
    for folder in first.iterdir():
        if folder.is_dir():
            (folder / "config.yaml").write_text("loss: {name: balanced}\nfusion: {name: x}\n")
    return [first, second]


def test_sweeps_are_joined_by_factor(two: list[Path]) -> None:
    found = join(two)
    assert found.name == "fusion+loss"
    # Same signature = same run: `cross` is counted once.
    assert len(found.cells) == 3
    factors = [dict(v.factors) for v in found.variants]
    assert factors[0] == {"fusion": "seg_only", "loss": "balanced"}
    assert factors[-1] == {"fusion": "full", "loss": "lisa"}
    assert found.variants[-1].label == "full · loss=lisa"
    assert found.baseline is found.variants[0]
    assert found.design["metrics"] == ["giou", "ciou", "keyword_accuracy"]
    assert join(two[:1]).name == load(two[0]).name


def test_other_metrics_and_another_baseline(two: list[Path]) -> None:
    sweep = load(two[0])
    found = asked(sweep, ["precision@0.5"], {"fusion": "cross"})
    assert found.design["metrics"] == ["precision@0.5"]
    assert found.baseline is not None
    assert found.baseline.label == "cross"
    with pytest.raises(ConfigError, match=r"--metric giuo: .*Did you mean 'giou'\?"):
        asked(sweep, ["giuo"], {})
    with pytest.raises(ConfigError, match=r"--baseline fusion=fulll: .*seg_only, cross"):
        asked(sweep, [], {"fusion": "fulll"})


def test_the_command(
    two: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    outputs, out = str(two[0].parent), str(tmp_path / "out")

    def keyseg(*options: str) -> int:
        with pytest.raises(SystemExit) as end:
            cli.main(["--outputs", outputs, "report", "fusion", "--out", out, *options])
        return int(end.value.code or 0)

    assert keyseg("--format", "csv", "--metric", "precision@0.5", "--baseline", "fusion=cross") == 0
    folder = tmp_path / "out" / "fusion"
    assert {f.suffix for f in folder.rglob("*.*")} == {".csv"}
    table = pd.read_csv(folder / "tables" / "contrasts.csv")
    assert set(table["baseline"]) == {"cross"}
    assert keyseg("--open", "--format", "html") == 0
    assert opened == [(folder / "index.html").as_uri()]
    assert keyseg("--format", "docx") == 2
    assert "--format docx: must be one of html, md" in capsys.readouterr().err
    assert keyseg("--baseline", "cross") == 2


def test_a_report_over_two_sweeps(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    page = build(two[0], tmp_path / "r", joined=two[1:]).html.read_text(encoding="utf-8")
    assert "full\u00a0· loss=lisa" in page
    assert "And the loss?" in page
