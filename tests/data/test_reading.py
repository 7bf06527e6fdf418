"""Data that is read beside the imports is the same data, and nothing depends on that process."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from keyseg.config import PROJECT
from keyseg.data import reading
from keyseg.data.files import DataError
from keyseg.data.mix import fingerprint, load_splits


@pytest.fixture(autouse=True)
def _nothing_read(monkeypatch):
    monkeypatch.setattr(reading, "_read", {})
    monkeypatch.setattr(reading, "_begun", {})


@pytest.fixture
def config(refer_folder):
    refer_folder.write()
    reader = {"_target_": "keyseg.data.refer.read", "root": str(refer_folder.root)}
    source = {**reader, "dataset": "refcoco", "split_by": "unc"}
    splits = {"train": "train", "val": "testA", "test": "testA"}
    return {
        "name": "mine",
        "sources": {"refer": source},
        "splits": {s: [{"sources": ["refer"], "split": there}] for s, there in splits.items()},
    }


def never(data_cfg):
    raise AssertionError("read in this process")


def told(data):
    return [[e.id for s in split for e in s.examples] for split in (data.train, data.val)]


def test_another_process_reads_the_same(config, monkeypatch):
    here = reading._load(config)
    reading.begin(config)
    monkeypatch.setattr(reading, "_load", never)
    there = reading.read(config)
    assert told(there) == told(here)
    assert there.fingerprint == here.fingerprint
    splits = load_splits(config)
    assert there.fingerprint == fingerprint([source for split in splits for source in split])
    first, second, *_ = there.train[0].examples
    assert first.load_mask is second.load_mask  # of one target: it came through whole
    assert (first.mask() == here.train[0].examples[0].mask()).all()


def test_it_is_read_once(config, monkeypatch):
    data = reading.read(config)
    monkeypatch.setattr(reading, "_load", never)
    assert reading.read(dict(config)) is data
    reading.begin(config)
    assert not reading._begun


def test_what_is_wrong_is_said_where_the_data_is_asked_for(config, capfd):
    config["sources"]["refer"]["dataset"] = "refcocoo"
    reading.begin(config)
    with pytest.raises(DataError, match="refcocoo"):
        reading.read(config)
    assert capfd.readouterr() == ("", "")


def test_without_the_other_process_the_data_is_read_here(config, monkeypatch):
    with monkeypatch.context() as slow:
        slow.setattr(reading, "_load", lambda data_cfg: time.sleep(60))
        reading.begin(config)
    ((child, _),) = reading._begun.values()
    os.kill(child, signal.SIGKILL)
    assert told(reading.read(config)) == told(reading._load(config))
    with pytest.raises(ChildProcessError):  # nor is a dead process left behind
        os.waitpid(child, os.WNOHANG)


def test_nobody_goes_on_reading_for_a_process_that_was_killed():
    code = (
        "from keyseg.data import reading\n"
        "reading._load = lambda data_cfg: bytes(2**20)\n"
        "reading.begin({})\n"
        "print(reading._begun['{}'][0], flush=True)\n"
        "input()"
    )
    python = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(python, text=True, cwd=PROJECT, **pipes) as process:
        child = Path("/proc", process.stdout.readline().strip())
        process.kill()
    deadline = time.monotonic() + 20
    with suppress(FileNotFoundError, ProcessLookupError):  # gone; where nobody reaps it, a zombie
        while "\nState:\tZ" not in (child / "status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
