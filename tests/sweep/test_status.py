import io
import time

import pytest
from rich.console import Console

from keyseg.config import PROJECT
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import Row, RunDirectory, now
from keyseg.sweep.progress import (
    LineView,
    TableView,
    duration,
    open_view,
    render,
    shortened,
    time_left,
)
from keyseg.sweep.status import CellStatus, Watch, watches


@pytest.fixture
def run(tmp_path, compose_run) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "fusion" / "abc", compose_run("optim.steps=10"))
    run.update(label="full", attempts=[{"started": now() - 60}], status="running")
    return run


def train(step: int, time: float, loss: float = 1.0) -> list[Row]:
    return [Row("train/loss", loss, step, time), Row("train/seconds_per_step", 2.0, step, time)]


def test_a_run_at_work(run):
    run.log(train(1, now() - 40) + train(3, now() - 20, 0.5))
    run.log([Row("val/giou", 0.25, 3, now())])
    watch = Watch(run, "full")
    with run.lock():
        status = watch.read()
        assert (status.state, status.step, status.steps) == ("running", 3, 10)
        assert status.losses == {"loss": 0.5}
        assert status.val == {"giou": 0.25}
        assert status.val_step == 3
        assert status.left == pytest.approx(70, rel=0.01)  # 7 steps at 10 s, evaluation included
        assert status.seconds == pytest.approx(60, rel=0.1)
        run.log(train(10, now()))
        assert watch.read().state == "running"  # it reads val once more
        run.log([Row("val/giou", 0.5, 10, now())])
        assert watch.read().state == "testing"
        assert Watch(run, "trial", 10, tests=False).read().state == "running"
    assert watch.read().state == "stopped"  # nobody holds it any more


def test_files_that_did_not_change_are_not_read_again(run, monkeypatch):
    """Of a thousand cells most are done, or wait."""
    steps = range(1, 400)
    run.log([row for step in steps for row in train(step, now(), 1 / step)])
    run.log([Row("val/giou", 0.4, 399, now())])
    run.update(status="done", convergence={"word": "converged"})
    watch = Watch(run, "full")
    first = watch.read()
    assert (first.state, first.step, first.val, first.steps) == ("done", 399, {"giou": 0.4}, 10)
    assert first.training == "converged"
    for name in ("info", "config"):
        monkeypatch.setattr(RunDirectory, name, property(lambda run: pytest.fail("read again")))
    assert watch.read() is first
    monkeypatch.undo()
    run.update(status="queued", attempts=[*run.info["attempts"], {"started": now()}])
    run.log(train(400, now(), 0.5))  # it is run on, and now all of its curve counts
    again = watch.read("running")
    assert (again.state, again.step, again.losses) == ("testing", 400, {"loss": 0.5})
    assert len(watch._curve) == 1
    assert watch._last["train/loss"].step == 400


def test_a_thousand_cells_are_drawn_in_a_moment(tmp_path):
    cells = [CellStatus(f"full · seed {n}", tmp_path / str(n), "done", 9, 9) for n in range(1000)]
    began = time.process_time()
    text = drawn(cells, 100)
    assert time.process_time() - began < 1.0
    assert sum("done" in line for line in text) == 1001  # the foot has the count


def test_whether_it_has_converged(run):
    run.log([Row("val/giou", value, step, now()) for step, value in ((0, 0.1), (3, 0.5))])
    watch = Watch(run, "full")
    assert watch.read().training == "still rising"
    run.log([Row("val/giou", 0.1, 10, now())])
    status = watch.read()
    assert status.training == "collapsed"
    assert any("collapsed" in line for line in drawn([status], 120))
    run.truncate(3)
    assert watch.read().training == "still rising"


def test_before_anything_is_learnt_nothing_is_said_of_it(run):
    watch = Watch(run, "full")
    run.log([Row("val/giou", 0.1, 0, now())])
    assert watch.read().training == ""
    run.update(status="done")
    assert watch.read().training == "never left the untrained level"  # optim.steps=0


def test_the_pace_is_that_of_this_attempt(run):
    run.log(train(1, now() - 5000) + train(2, now() - 4990))
    with run.lock():
        assert Watch(run, "x").read().left == pytest.approx(16)  # seconds_per_step, for now
        run.log(train(3, now() - 30) + train(4, now() - 10))
        assert Watch(run, "x").read().left == pytest.approx(120, rel=0.01)


def test_rows_taken_back_are_forgotten(run):
    run.log(train(1, now()) + train(5, now()))
    watch = Watch(run, "x")
    assert watch.read().step == 5
    run.truncate(1)
    run.log(train(2, now()))
    assert watch.read().step == 2
    run.begin_anew()
    assert watch.read().step == 0


def test_the_untrained_model_has_no_steps_and_not_no_number_of_them(tmp_path, compose_run):
    run = RunDirectory.create(tmp_path / "run", compose_run("optim.steps=0"))
    run.update(status="running", steps=0)
    run.log([Row("val/giou", 0.1, 0, now())])
    assert Watch(run, "full").read("running").steps == 0


def test_a_queued_run_and_one_that_was_stopped_while_queued(run):
    run.update(status="queued", attempts=[])
    assert Watch(run, "x").read().state == "queued"
    run.update(attempts=[{"started": now() - 9, "seconds": 5}])
    assert Watch(run, "x").read().state == "stopped"
    assert Watch(run, "x").read(state="queued").state == "queued"


def test_trials_stand_in_the_order_of_their_numbers(tmp_path, run_config):
    sweep = tmp_path / "tune"
    for name, number in (("a", 10), ("b", 2), ("c", 1), ("d", None)):
        trial = {} if number is None else {"trial": number, "study": "tune"}
        RunDirectory.create(sweep / name, run_config, label=f"trial {number}", **trial)
    sweep_directory.write(sweep, {"name": "tune", "cells": [], "tune": {"n_trials": 3}})
    titles = [watch.title for watch in watches(sweep) if watch.run.path.name != "d"]
    assert titles == ["trial 1", "trial 2", "trial 10"]


def test_a_log_is_named_once_there_can_be_one(tmp_path):
    cells = [
        CellStatus("waits", tmp_path / "aaa", "queued", job="7_0"),
        CellStatus("works", tmp_path / "bbb", "running", job="7_1", node="n1"),
    ]
    lines = {line.split()[0]: line for line in drawn(cells, 120) if line.strip()}
    assert "log.txt" not in lines["waits"]
    assert "bbb/log.txt" in lines["works"]


def test_watches_follow_the_design_holes_included(run, tmp_path):
    sweep = run.path.parent
    assert [w.title for w in watches(sweep)] == ["full"]  # no sweep.json: what is there
    cells = [
        {"signature": "abc", "label": "full", "seed": 0},
        {"signature": "missing", "label": "self", "seed": 0},
    ]
    sweep_directory.write(sweep, {"cells": cells})
    assert [(w.title, w.read().state) for w in watches(sweep)] == [
        ("full", "stopped"),
        ("self", "queued"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (48, "48 s"), (234, "3.9 min"), (7500, "2 h 05")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def cell(title: str, tmp_path, **fields) -> CellStatus:
    return CellStatus(title, tmp_path, **{"steps": 250, **fields})


@pytest.fixture
def cells(tmp_path):
    losses = {"loss": 3.4123, "text": 0.91, "bce": 0.234, "dice": 0.512, "keyword": 1.833}
    known = {"seconds_per_step": 0.93, "losses": losses, "val": {"giou": 0.583, "ciou": 0.612}}
    return [
        cell("cross · weight=0.5 · seed 0", tmp_path, state="done", step=250, seconds=234, **known),
        cell("self", tmp_path, state="running", step=120, left=124.0, **known),
        cell("full", tmp_path, state="failed", error="Traceback\nRuntimeError: [no] luck"),
        cell("seg_only", tmp_path),
    ]


def drawn(cells, width: int, **options) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(render("sweep fusion", cells, width, **options))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_no_number_is_cut(cells, width):
    lines = drawn(cells, width)
    assert max(len(line) for line in lines) <= width
    running = next(line for line in lines if line.strip().startswith("self"))
    for value in ("running", "120/250", "0.93", "3.412", "58.3", "61.2", "2.1 min left"):
        assert value in running
    assert ("1.833" in running) == (width == 120)
    assert any("full: RuntimeError: [no] luck" in line for line in lines)
    assert "1 of 4 done · 1 running · 1 queued · 1 failed" in lines[-1]


@pytest.mark.parametrize("width", [100, 110, 120, 140])
def test_words_give_way_before_the_names_of_cells_do(tmp_path, width):
    losses = dict.fromkeys(("loss", "text", "bce", "dice", "keyword"), 0.25)
    found = [
        cell(
            f"full · seed {seed}",
            tmp_path,
            state="done",
            losses=losses,
            training="never left the untrained level",
        )
        for seed in (0, 7)
    ]
    lines = drawn(found, width)
    for seed in (0, 7):
        assert any(line.lstrip().startswith(f"full · seed {seed} ") for line in lines)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (23, "cross_residual · seed 3"),
        (18, "cross_re… · seed 3"),
        (11, "c… · seed 3"),
        (10, "cross_residual · seed 3"),  # nothing would be left of it: rich cuts its end
    ],
)
def test_a_long_name_keeps_its_seed(room, text):
    assert shortened("cross_residual · seed 3", room) == text


def test_a_small_terminal_shows_the_cells_at_work(cells, tmp_path):
    many = [cell(f"done {i}", tmp_path, state="done", step=250) for i in range(40)] + cells
    lines = drawn(many, 80, height=24)
    assert len(lines) < 24
    text = "\n".join(lines)
    assert "self" in text
    assert "RuntimeError" in text
    assert "41 of 44 done" in text
    shown = sum(line.strip().startswith("done ") for line in lines)
    assert f"and {44 - 3 - shown} more" in text


def test_time_left_counts_the_queue(tmp_path):
    running = cell("a", tmp_path, state="running", seconds_per_step=1.0, left=50.0)
    queued = cell("b", tmp_path)
    assert time_left([queued], 1) is None
    assert time_left([running], 1) == 50
    assert time_left([running, queued], 1) == 300  # 50 of this one, 250 of the next
    assert time_left([running, queued], 2) == 250  # the other worker is free now


def test_lines_tell_each_thing_once(tmp_path):
    console = Console(file=io.StringIO())
    view = open_view("sweep fusion", console)
    assert isinstance(view, LineView)
    found = cell("self", tmp_path, state="done")
    known = {"losses": {"loss": 0.5}, "seconds_per_step": 2.0}
    with view:
        for _ in range(2):
            view.update([cell("full", tmp_path), found])
        for state in ("running", "running"):
            view.update([cell("full", tmp_path, state=state), found])
        for _ in range(2):
            evaluated = cell(
                "full", tmp_path, state="running", val={"giou": 0.5}, val_step=50, left=90, **known
            )
            view.update([evaluated, found])
        view.update([cell("full", tmp_path, state="testing", val_step=50), found])
        view.update([cell("full", tmp_path, state="failed", error="x\nboom", val_step=50), found])
    lines = [" ".join(line.split()[1:]) for line in console.file.getvalue().splitlines()]
    assert lines == [
        "fusion",
        "done already: self",
        "full started",
        "full step 50/250 loss 0.500 gIoU 50.0 2.00 s/step 1.5 min left",
        "full trained; reading the test split",
        "full FAILED: boom",
    ]


def test_a_terminal_gets_the_table(cells):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"}
    )
    view = open_view("sweep fusion", console)
    assert isinstance(view, TableView)
    with view:
        view.update(cells)
    assert "2.1 min left" in console.file.getvalue()
    assert isinstance(open_view("x", console, table=False), LineView)


def test_an_attempt_that_was_killed_counts_nothing_once_another_began(run):
    killed, begun = {"started": now() - 5000}, {"started": now() - 10}
    run.update(attempts=[{"started": 1.0, "ended": 31.0, "seconds": 30.0}, killed, begun])
    assert Watch(run, "x").read().seconds == pytest.approx(40, rel=0.1)


def test_a_cell_without_key_shows_its_keyword_loss_as_not_asked():
    losses = {"loss": 1.0, "text": 0.5}
    cells = [CellStatus("no_key", PROJECT, "running", losses=losses), CellStatus("new", PROJECT)]
    text = io.StringIO()
    Console(file=text, width=160).print(render("sweep", cells, 160))
    rows = {line.split()[0]: line for line in text.getvalue().splitlines() if line.split()}
    assert "not asked" in rows["no_key"]
    assert "not asked" not in rows["new"]
