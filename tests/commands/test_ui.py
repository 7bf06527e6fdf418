"""`keyseg ui` without a server; with one: tests/browser/test_mlflow_page.py."""

import socket

import pytest

from keyseg.cli import main
from keyseg.config import ConfigError
from keyseg.tracking import serve


def keyseg(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "outputs" / "fusion"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text('{"cells": []}')
    return folder.parent


def test_of_a_server_the_page_is_told_without_its_password(outputs, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@host:5000/")
    monkeypatch.setattr(serve, "places", lambda *_: {"sweep": "#/a", "cells": "#/b"})
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert keyseg("--outputs", str(outputs), "ui", "fusion", "--open") == 0
    assert capsys.readouterr().out == "sweep  https://host:5000/#/a\ncells  https://host:5000/#/b\n"
    assert opened == ["https://host:5000/#/a"]


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("none", "tracking is off"),
        ("http://me:***@host", "http://me:***@host: its password is kept nowhere"),
    ],
)
def test_a_store_that_cannot_be_shown(outputs, capsys, monkeypatch, store, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert keyseg("--outputs", str(outputs), "ui", "fusion") == 2
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: something listens there already"):
            serve.free_port(port, others=False)
        assert serve.free_port(port, others=True) > port


def test_the_way_to_a_machine_elsewhere(outputs, monkeypatch):
    assert serve.tunnel(5000) is None
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "n7")
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    assert serve.tunnel(5001) == "ssh -N -L 5001:127.0.0.1:5001 ada@n7"
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_SUBMIT_HOST", "login1")
    assert serve.tunnel(5001) == "ssh -N -L 5001:127.0.0.1:5001 -J ada@login1 ada@n7"
