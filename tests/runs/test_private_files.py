import json

import pytest

from keyseg.runs import disk, sweep_directory
from keyseg.runs.private_files import without_passwords, without_user
from keyseg.runs.run_directory import Row, RunDirectory
from keyseg.sweep import launcher


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:s3cret@host:5000/x", "https://me:***@host:5000/x"),
        ("postgresql+psycopg2://me:p/w@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("redis://:pw@host", "redis://:***@host"),
        ("http://me:p@ss@host", "http://me:***@host"),
        (
            "a=http://me:one@h b='mysql://you:two@i/db' done",
            "a=http://me:***@h b='mysql://you:***@i/db' done",
        ),
        (
            "postgresql:///db?user=me&password=pw&sslmode=x",
            "postgresql:///db?user=me&password=***&sslmode=x",
        ),
        (
            "HTTPError: http://me:pw@h/api: 401 (x@y.org)",
            "HTTPError: http://me:***@h/api: 401 (x@y.org)",
        ),
        ("http://host:5000/#/runs/1 and me@host", "http://host:5000/#/runs/1 and me@host"),
        ("postgresql://me@host/db sqlite:////x/y.db", "postgresql://me@host/db sqlite:////x/y.db"),
        ("the query: 3 @ 4", "the query: 3 @ 4"),
    ],
)
def test_the_password_of_an_address_is_hidden(text, shown):
    assert without_passwords(text) == without_passwords(shown) == shown


def test_an_address_without_who_asks():
    assert without_user("https://me:***@host:1/x") == "https://host:1/x"
    assert without_user("https://host/x@2") == "https://host/x@2"


def test_no_file_of_a_sweep_holds_a_password_or_what_is_no_json(tmp_path, run_config, monkeypatch):
    address = "hydra.sweeper.storage=postgresql://me:s3cret@host/db"
    monkeypatch.setattr("sys.argv", ["run.py", "-m", address])
    sweep_directory.write(tmp_path, {"command": launcher.command(), "cells": [], "margin": 1e999})
    run = RunDirectory.create(tmp_path / "a", run_config, label="x")
    run.update(error=f"OperationalError: {address}", summary={"t": {"giou": float("nan")}})
    run.log([Row("train/loss", float("nan"), 1, 1.0), Row("train/loss", 0.5, 2, 1.0)])
    for file in (tmp_path / "sweep.json", run.path / "run.json"):
        content = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(name))
        assert "postgresql://me:***@host/db" in json.dumps(content)
        assert "s3cret" not in file.read_text()
    assert run.info["summary"] == {"t": {"giou": None}}
    assert "NaN" not in run.metrics_file.read_text()
    first, second = run.rows()
    assert first.value != first.value
    assert second.value == 0.5
    run.truncate(1)
    assert [row.step for row in run.rows()] == [1]


def test_text_of_what_json_has_no_form_for(tmp_path):
    assert json.loads(disk.json_text({"path": tmp_path, "of": (1, float("inf"))})) == {
        "path": str(tmp_path),
        "of": [1, None],
    }
