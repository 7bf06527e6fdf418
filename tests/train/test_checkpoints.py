"""Weights come back as they were written, or not at all."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from keyseg.runs.run_directory import DamagedError
from keyseg.train.checkpoints import read_best, read_last, write_best, write_last

STATE = {"model": {"a": torch.arange(1000.0)}, "step": 25, "random": [{"cpu": torch.arange(4)}]}
BEST = {"a": torch.arange(1000.0), "b": torch.ones(3, 4, dtype=torch.bfloat16)}


@pytest.fixture
def last(tmp_path):
    file = tmp_path / "last.pt"
    write_last(file, STATE)
    return file


@pytest.fixture
def best(tmp_path):
    file = tmp_path / "best.safetensors"
    write_best(file, BEST)
    return file


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_what_was_written_comes_back(last, best):
    assert read_last(last)["step"] == 25
    assert torch.equal(read_last(last)["model"]["a"], STATE["model"]["a"])
    found = read_best(best)
    assert found.keys() == BEST.keys()
    assert all(torch.equal(found[name], value) for name, value in BEST.items())


def test_other_programs_read_them(last, best):
    assert torch.load(last, weights_only=True)["step"] == 25
    assert torch.equal(load_file(best)["a"], BEST["a"])


def test_files_of_older_runs_are_read(tmp_path):
    torch.save(STATE, tmp_path / "last.pt")
    assert read_last(tmp_path / "last.pt")["step"] == 25
    save_file(BEST, tmp_path / "best.safetensors")
    assert torch.equal(read_best(tmp_path / "best.safetensors")["a"], BEST["a"])


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_what_is_cut_short_is_named_with_the_remedy(last, best, share):
    for file, read in ((last, read_last), (best, read_best)):
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DamagedError, match=rf"{file.name} is damaged .*rerun=true"):
            read(file)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_one_other_bit_is_noticed(last, best, share):
    """torch's reader does not look at the checksums of its own format."""
    for file, read in ((last, read_last), (best, read_best)):
        flip(file, int(share * file.stat().st_size))
        with pytest.raises(DamagedError, match=rf"{file.name} is damaged"):
            read(file)
