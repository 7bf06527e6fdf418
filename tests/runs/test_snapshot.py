import shutil
import subprocess

import pytest

from keyseg.config import PROJECT, ConfigError
from keyseg.runs import provenance, snapshot
from tests.runs.test_provenance import write_secrets


@pytest.fixture
def checkout(tmp_path):
    """A repository with a tracked file, a change to it, a new file, and an ignored one."""
    root = tmp_path / "a checkout"
    package = root / "keyseg"
    package.mkdir(parents=True)
    (package / "a.py").write_text("one\n")
    (root / ".gitignore").write_text("*.log\n")

    def git(*arguments: str) -> None:
        names = ("-c", "user.name=n", "-c", "user.email=e@x")
        subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    (package / "a.py").write_text("two\n")
    (package / "new.py").write_text("new\n")
    (package / "x.log").write_text("log\n")
    (package / "notes.txt").write_text("no code\n")
    return root


def test_holds_the_working_tree_and_where_it_came_from(checkout, tmp_path):
    taken = snapshot.take(tmp_path / "code", checkout)
    assert (taken / "keyseg" / "a.py").read_text() == "two\n"
    assert (taken / "keyseg" / "new.py").exists()
    assert not (taken / "keyseg" / "x.log").exists()
    assert not (taken / "keyseg" / "notes.txt").exists()
    assert provenance.git(taken) == provenance.git(checkout)
    (checkout / "keyseg" / "a.py").write_text("three\n")
    assert (taken / "keyseg" / "a.py").read_text() == "two\n"
    assert provenance.git(taken) != provenance.git(checkout)


@pytest.mark.parametrize("tracked", [True, False])
def test_secrets_are_in_no_snapshot(checkout, tmp_path, tracked):
    write_secrets(checkout)
    if tracked:
        subprocess.run(["git", "add", "-f", "."], cwd=checkout, check=True)
    taken = snapshot.take(tmp_path / "code", checkout)
    assert (taken / "keyseg/a.py").exists()
    assert {"keyseg/wandb_key.py", "experiments/db_pass.yaml"} <= set(snapshot.left_out(checkout))
    for file in taken.rglob("*"):
        assert file.is_dir() or "s3cret" not in file.read_text(), file


def test_secrets_are_in_no_snapshot_without_git(tmp_path):
    (tmp_path / "p/keyseg").mkdir(parents=True)
    (tmp_path / "p/keyseg/a.py").write_text("one\n")
    write_secrets(tmp_path / "p")
    assert snapshot.files(tmp_path / "p") == ["keyseg/a.py"]


def test_secrets_are_in_no_model(tmp_path):
    from keyseg.tracking.model import _left_out

    write_secrets(tmp_path)
    (tmp_path / "keyseg/a.py").write_text("one\n")
    (tmp_path / "keyseg/notes.txt").write_text("no code\n")
    shutil.copytree(tmp_path / "keyseg", tmp_path / "copied", ignore=_left_out)
    files = [f.name for f in (tmp_path / "copied").rglob("*") if f.is_file()]
    assert files == ["a.py"]


def test_nothing_of_ours_looks_like_a_secret():
    """Or it would be missing where jobs run."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", *provenance.CODE], cwd=PROJECT, capture_output=True
    )
    names = {n for n in tracked.stdout.decode().split("\0") if n}
    assert names <= set(snapshot.files())
    assert len(names) > 200


def test_the_same_code_is_kept_once(checkout, tmp_path):
    first = snapshot.take(tmp_path / "code", checkout)
    assert snapshot.take(tmp_path / "code", checkout) == first
    (checkout / "keyseg" / "a.py").write_text("three\n")
    assert snapshot.take(tmp_path / "code", checkout) != first
    assert len(list((tmp_path / "code").iterdir())) == 2


def test_without_git_the_code_folders_are_copied(tmp_path):
    (tmp_path / "p" / "keyseg" / "__pycache__").mkdir(parents=True)
    (tmp_path / "p" / "keyseg" / "a.py").write_text("one\n")
    (tmp_path / "p" / "keyseg" / "__pycache__" / "a.pyc").write_text("")
    (tmp_path / "p" / "big.bin").write_text("")
    assert snapshot.files(tmp_path / "p") == ["keyseg/a.py"]


def test_a_file_that_is_no_code_is_named(checkout, monkeypatch):
    monkeypatch.setattr(snapshot, "_LARGEST", 3)
    with pytest.raises(ConfigError, match=r"keyseg/a\.py: .* too large for a snapshot"):
        snapshot.name_of(checkout)
