"""What the docs name is there."""

import re
from pathlib import Path

import pytest

from keyseg.config import PROJECT

TEST = re.compile(r"^def test_(\w+)", re.MULTILINE)
COMMAND = re.compile(r"`(tests/[^`]+)`")


def commands() -> list[str]:
    """The last column of the tables of faults: what stands behind `python -m pytest`."""
    rows = (PROJECT / "docs" / "reliability.md").read_text().splitlines()
    return [command for row in rows if row.startswith("|") for command in COMMAND.findall(row)]


def chosen(command: str) -> list[str]:
    """Tests that `pytest COMMAND` takes, by file and name, as -k with a single word does it."""
    named, _, word = command.partition(" -k ")
    places = [PROJECT / name for name in named.split()]
    assert all(place.exists() for place in places), command
    files = [f for p in places for f in (sorted(p.rglob("test_*.py")) if p.is_dir() else [p])]
    names = [f"{Path(f).name} {name}" for f in files for name in TEST.findall(f.read_text())]
    return [name for name in names if word.lower() in name.lower()]


def test_there_are_many_faults():
    assert len(commands()) > 50


@pytest.mark.parametrize("command", commands())
def test_a_fault_has_a_test_that_makes_it(command):
    assert chosen(command)
