import os
import pickle
from pathlib import Path

import pytest

from keyseg.data import plain_pickle
from keyseg.data.files import DataError

PLAIN = [{"a": (1, 2.5, True, None), "b": ["left man", b"raw"], 3: {"é", 4}, "f": frozenset({1})}]


class Touch:
    """Pickles to a call that creates a file."""

    def __init__(self, path: Path, function=None) -> None:
        self.call = (function or os.mkdir, (str(path),))

    def __reduce__(self):
        return self.call


def write(path, raw):
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("protocol", [4, 5])
def test_plain_containers_come_back(tmp_path, protocol):
    assert plain_pickle.load(write(tmp_path / "p", pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_old_protocols(tmp_path, protocol):
    refs = [{"ref_id": 1, "sentences": [{"sent": "café", "tokens": ["a"]}], "box": (1, 2.5, None)}]
    assert plain_pickle.load(write(tmp_path / "p", pickle.dumps(refs, protocol))) == refs


@pytest.mark.parametrize(("raw", "text"), [(b"caf\xc3\xa9", "café"), (b"caf\xe9", "café")])
def test_byte_strings_of_python_2(tmp_path, raw, text):
    """Python 2's cPickle.dumps({'sent': '...'}, 2), by hand: SHORT_BINSTRING holds raw bytes."""
    short = b"U" + bytes([len(raw)]) + raw
    file = write(tmp_path / "p", b"\x80\x02}q\x00U\x04sentq\x01" + short + b"q\x02s.")
    assert plain_pickle.load(file) == {"sent": text}


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    bait = tmp_path / "created"
    raw = pickle.dumps([{"ref_id": 1, "split": Touch(bait)}], protocol)
    file = write(tmp_path / "refs(unc).p", raw)
    with pytest.raises(DataError, match=r"refs\(unc\)\.p asks for \w+\.mkdir"):
        plain_pickle.load(file)
    assert not bait.exists()
    pickle.loads(raw)
    assert bait.exists(), "the bait does not bite: this test proves nothing"


def test_builtins_are_globals_too(tmp_path):
    bait = tmp_path / "created"
    raw = pickle.dumps(Touch(f"open({str(bait)!r}, 'w')", eval), 2)
    with pytest.raises(DataError, match=r"asks for \w+\.eval"):
        plain_pickle.load(write(tmp_path / "p", raw))
    assert not bait.exists()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "EOFError"),
        (pickle.dumps(PLAIN)[:-5], "not a valid pickle"),
        (b"<html>404</html>", "not a valid pickle"),
        (b"cos\nmkdir\n.", "asks for os.mkdir"),
        (b"Ptoken\n.", "persistent id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # `raw` holds a set: no fixed order
)
def test_damaged_and_strange_files(tmp_path, raw, why):
    with pytest.raises(DataError, match=why) as caught:
        plain_pickle.load(write(tmp_path / "refs.p", raw))
    assert "refs.p" in str(caught.value)
