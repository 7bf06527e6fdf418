"""Writers on a disk that is full, and what is left after them."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save

from keyseg.runs import disk
from keyseg.runs.disk import DiskFullError
from keyseg.sweep.overrides import one_line_errors

LIMITED = """
import resource, signal, sys
from pathlib import Path
from keyseg.runs import disk
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a file may have 1,000 bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
for size in (400, 400, 400):
    try:
        disk.append(path, b"x" * (size - 1) + b"\\n")
        print(path.stat().st_size)
    except disk.DiskFullError as error:
        print(path.stat().st_size, error)
"""


def test_an_append_is_whole_or_not_there(tmp_path):
    file = tmp_path / "metrics.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("400", "800")
    assert third.startswith(f"800 File too large: {file} could not be written; make room there")
    assert file.stat().st_size == 800


def test_what_stood_there_stays_and_nothing_is_left_beside_it(tmp_path, monkeypatch):
    file = tmp_path / "last.pt"
    disk.replace(file, b"before")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(DiskFullError, match=r"Disk quota exceeded: .*last.pt could not be written"):
        disk.replace(file, b"after")
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_is_full_that_has_no_room_for_a_row(tmp_path, monkeypatch):
    assert not disk.is_full(tmp_path)
    assert not disk.is_full(tmp_path / "is not there")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    assert disk.is_full(tmp_path)


def test_other_errors_are_none_of_the_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), disk.replacing(tmp_path / "x"):
        1 / 0  # noqa: B018
    with pytest.raises(FileNotFoundError):
        disk.replace(tmp_path / "nowhere" / "x", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_torch_and_safetensors_hide_the_reason_and_it_is_found(tmp_path):
    tensors = {"a": torch.zeros(100_000)}
    for write in (lambda file: torch.save(tensors, file), lambda file: file.write(save(tensors))):
        with (
            pytest.raises(DiskFullError, match="No space left on device"),
            disk.explained(tmp_path / "last.pt"),
            open("/dev/full", "wb") as file,  # noqa: PTH123
        ):
            write(file)


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path):
    for name in ("last.pt", ".last.pt.123.4567", ".run.json.lock", "best.safetensors"):
        (tmp_path / name).touch()
    disk.remove_leftovers(tmp_path)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"last.pt", ".run.json.lock", "best.safetensors"}


def test_a_command_ends_with_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise DiskFullError(tmp_path / "sweep.json", errno.ENOSPC)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: No space left on device: {tmp_path / 'sweep.json'} could not")
    assert said.count("\n") == 1
