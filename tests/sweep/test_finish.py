import io

import pytest
from rich.console import Console

from keyseg.config import PROJECT
from keyseg.sweep import finish as end
from keyseg.sweep.supervise import Outcome


@pytest.fixture
def outcomes(make_cell):
    cross, full = make_cell("cross"), make_cell("full")
    scores = {"giou": 0.5, "ciou": 0.625, "precision@0.5": 0.25, "precision@0.9": 0.0}
    summary = {"teacher_forced": scores, "generated": {"giou": 0.4}}
    cross.create().update(status="done", summary=summary, minutes=3.9)
    full.create().update(status="failed", error="Traceback\nValueError: [red] is no color")
    return [Outcome(cross, "done", before=True), Outcome(full, "failed")]


def printed(outcomes, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    folder = outcomes[0].cell.path.parent
    end.print_end(console, outcomes, sweep_dir=folder, report=folder / "index.html", problems=["p"])
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_end_of_a_sweep(outcomes, width):
    assert "log: " not in printed(outcomes, width)  # no worker has begun
    outcomes[1].cell.open().log_file.touch()
    text = printed(outcomes, width)
    lines = text.splitlines()
    assert "test split, percent, teacher forced" in lines[0]
    row = next(line for line in lines if line.strip().startswith("cross"))
    assert row.split() == [
        "cross",
        "50.0",
        "62.5",
        "25.0",
        *(["0.0"] if width == 120 else []),
        "-",
        "40.0",
        "3.9",
        "min",
    ]
    assert "full    failed" in text
    assert "1 of 2 cells were done already (rerun=true runs them again)" in text
    assert "FAILED  full · seed 0: ValueError: [red] is no color" in text
    assert f"log: {outcomes[1].cell.path}/log.txt" in text
    assert "index.html" in text
    assert "warning: p" in text


def test_a_number_that_is_none_is_a_dash(make_cell):
    cell = make_cell("cross")
    scores = {"giou": 0.5, "ciou": float("nan"), "precision@0.5": float("inf")}
    cell.create().update(status="done", summary={"teacher_forced": scores}, minutes=float("nan"))
    text = printed([Outcome(cell, "done")], 80)
    row = next(line for line in text.splitlines() if line.strip().startswith("cross"))
    assert row.split()[1:4] == ["50.0", "-", "-"]
    assert "nan" not in text
    assert "inf" not in text


def test_of_a_cell_without_key_the_keyword_was_not_asked(make_cell):
    cell = make_cell("no_key")
    cell.create().update(status="done", summary={"teacher_forced": {"giou": 0.5, "ciou": 0.6}})
    row = next(
        line for line in printed([Outcome(cell, "done")], 120).splitlines() if "no_key" in line
    )
    assert "not asked" in row


def test_a_report_that_fails_leaves_a_message_and_its_traceback(tmp_path):
    def build(sweep_dir, out_dir):
        raise ValueError("no cell is done\nand more")

    page, problem = end.make_report(build, tmp_path, tmp_path / "out")
    assert page is None
    assert problem.startswith("the report could not be made: no cell is done (traceback: ")
    assert f"`keyseg report {tmp_path.name}` tries again" in problem
    trace = tmp_path / "report-error.txt"
    assert "ValueError: no cell is done" in trace.read_text()
    trace.unlink()
    trace.mkdir()  # no place that can be written to
    _, problem = end.make_report(build, tmp_path, tmp_path / "out")
    assert "no cell is done. The results are complete" in problem


def test_a_report_that_works(tmp_path):
    def build(sweep_dir, out_dir):
        return out_dir / "x.html"

    assert end.make_report(build, tmp_path, tmp_path / "out") == (tmp_path / "out/x.html", None)


def test_how_to_look_at_a_sweep_in_mlflow(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pw@host")
    assert end.ui_command(PROJECT / "outputs" / "fusion") == "keyseg ui fusion"
    assert end.ui_command(tmp_path / "fusion") == f"keyseg --outputs {tmp_path} ui fusion"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert end.ui_command(tmp_path / "fusion") == "off (MLFLOW_TRACKING_URI=none)"


def test_paths_below_the_working_directory_are_short(monkeypatch, tmp_path):
    monkeypatch.chdir(PROJECT)
    assert end.short_path(PROJECT / "outputs" / "x") == "outputs/x"
    assert end.short_path(tmp_path) == str(tmp_path)
