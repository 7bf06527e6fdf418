"""log.txt tells a run, and keeps out of the terminal's way."""

import logging
import re
import warnings

import pytest

from keyseg.runs.run_directory import DONE, FAILED, RunDirectory
from keyseg.worker.cell import run_cell
from keyseg.worker.log import log_to


@pytest.fixture
def make_run(small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    return lambda *overrides: RunDirectory.create(tmp_path / "run", small_run(*overrides))


LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR)\s+\S")


def test_a_finished_run_tells_what_it_was_and_what_came_of_it(make_run, capsys):
    run = make_run("optim.steps=2", "optim.eval_every=1", "optim.checkpoint_every=1")
    run_cell(run)
    assert run.status == DONE
    lines = run.log_file.read_text().splitlines()
    assert all(LINE.match(line) for line in lines)
    text = "\n".join(lines)
    giou = 100 * run.info["summary"]["teacher_forced"]["giou"]
    for told in (
        "code: commit",
        "versions: ",
        "device: cpu",
        f"data: fingerprint {run.info['data_fingerprint']}",
        f"trained: {run.info['trainable_parameters']:,} parameters",
        "begins before step 0",
        "step 2 of 2: val gIoU",
        "step 2 of 2: checkpoint",
        "memory: at most",
        f"test, teacher_forced: gIoU {giou:.1f}",
        "done, after",
    ):
        assert told in text, told
    assert capsys.readouterr().err == ""  # the terminal has a view of its own


def test_a_failed_run_says_why_it_ended(make_run):
    run = make_run("optim.lr=1e30", "optim.lr_fusion=1e30", "optim.steps=3", "runtime.log_every=1")
    with pytest.raises(RuntimeError):
        run_cell(run)
    assert run.status == FAILED
    last = run.log_file.read_text().splitlines()[-1]
    assert "ERROR" in last
    assert run.info["error"].splitlines()[0] in last


def test_a_level_leaves_out_what_is_below_it(make_run):
    run = make_run("optim.steps=0", "runtime.log_level=warning")
    run_cell(run)
    assert "INFO" not in run.log_file.read_text()


def test_warnings_of_other_libraries_come_too_and_their_chatter_does_not(tmp_path):
    file = tmp_path / "log.txt"
    with warnings.catch_warnings(), log_to(file, "info"):
        warnings.simplefilter("always")
        warnings.warn("an old argument", DeprecationWarning, stacklevel=1)
        logging.getLogger("somebody.else").warning("a socket was closed")
        logging.getLogger("somebody.else").info("chatter")
        logging.getLogger("keyseg.worker").info("ours")
    logging.getLogger("somebody.else").warning("after the end")
    text = file.read_text()
    assert "an old argument" in text
    assert "a socket was closed" in text
    assert "ours" in text
    assert "chatter" not in text
    assert "after the end" not in text


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path, capsys):
    with log_to("/dev/full", "info"):
        logging.getLogger("keyseg.worker").info("no room for this")
    with log_to(tmp_path / "missing" / "log.txt", "info"):
        logging.getLogger("keyseg.worker").info("nowhere to write this")
    assert capsys.readouterr().err == ""
