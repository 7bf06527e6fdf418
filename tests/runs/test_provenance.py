import math
import os
import subprocess
from pathlib import Path

import pytest

from keyseg.runs import provenance
from keyseg.runs.private_files import has_a_secret, holds_a_secret, looks_secret
from keyseg.runs.run_directory import Row, RunDirectory


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "a checkout"
    root.mkdir()
    (root / "keyseg").mkdir()
    (root / "keyseg/code.py").write_text("one\n")
    (root / "notes.md").write_text("a note\n")
    (root / "keyseg/token.json").write_text("old\n")
    (root / ".gitignore").write_text("ignored\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def test_a_clean_checkout(checkout):
    state = provenance.git(checkout)
    assert len(state.commit) == 40
    assert (state.dirty, state.diff) == (False, "")


def test_uncommitted_changes_and_new_files_are_kept(checkout, tmp_path):
    before = provenance.git(checkout)
    (checkout / "keyseg/code.py").write_text("two\n")
    (checkout / "experiments").mkdir()
    (checkout / "experiments/new é.yaml").write_text("lr: 1\n")
    (checkout / "keyseg/ignored").write_text("x")
    (checkout / "keyseg/large.py").write_bytes(b"x" * 200_000)
    state = provenance.git(checkout)
    assert state.commit == before.commit
    assert state.dirty
    assert "# new file, not kept: keyseg/large.py" in state.diff
    assert "ignored" not in state.diff
    # The diff makes the same files out of the commit.
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", checkout, other], check=True)
    subprocess.run(["git", "apply"], input=state.diff, cwd=other, text=True, check=True)
    assert (other / "keyseg/code.py").read_text() == "two\n"
    assert (other / "experiments/new é.yaml").read_text() == "lr: 1\n"


SECRETS = (
    ".env",
    "keyseg/.env",
    "keyseg/.env.local",
    "experiments/credentials.yaml",
    "keyseg/hf_token.py",
    "keyseg/id_rsa",
    "sweeps/db-password.yaml",
    "keyseg/key.pem",
    "experiments/service-account.json",
    "service_account.json",
    "keyseg/.aws/config.yaml",
    "keyseg/gcp-key.json",
    "experiments/db_pass.yaml",
    "keyseg/wandb_key.py",
)
HOLD = {
    "sweeps/innocent.yaml": "-----BEGIN PRIVATE KEY-----",
    "experiments/plain.json": '"private_key": "x"',
    "keyseg/my-project-1a2b3c.json": '{"type": "service_account", "project_id": "my-project"}',
    "experiments/data/lab.yaml": "root: /data\npassword: s3cret",
    "experiments/data/flow.yaml": "{user: me, db_password: s3cret, root: /data}",
    "sweeps/store.yaml": "storage: postgresql://me:s3cret@db.example.org/optuna",
    "keyseg/lab.py": 'WANDB_API_KEY = "s3cret"',
    "keyseg/hub.py": "login('hf_" + 34 * "a" + "')",
    "keyseg/cloud.py": "key = 'AKIA" + 16 * "A" + "'",
}
"""Files of innocent names that hold a secret."""


def write_secrets(root):
    for name, content in {**dict.fromkeys(SECRETS, ""), **HOLD}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n# s3cret\n")


def test_what_may_not_be_read_is_nobodys_to_keep(tmp_path, monkeypatch):
    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    file = tmp_path / "a.yaml"
    file.write_text("lr: 1")
    assert not holds_a_secret(file)
    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    assert holds_a_secret(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fusion/random_key.yaml", "name: random_key\nkey_in_context: true"),
        ("two_pass.py", "def read(password: str, token: str) -> None: ..."),
        ("a.py", "password = os.environ['DB_PASSWORD']"),
        ("a.yaml", "password: null"),
        ("a.yaml", "password: ${oc.env:DB_PASSWORD}"),
        ("a.yaml", "storage: postgresql://me@db.example.org/optuna"),
        ("a.yaml", "question: Is that its secret? A keyword token says more"),
        ("a.yaml", "tokens: {key: '[KEY]', seg: '[SEG]'}"),
    ],
)
def test_what_is_no_secret(name, content):
    assert not looks_secret(name)
    assert not has_a_secret(content.encode(), name)


def test_secrets_are_in_no_diff(checkout):
    (checkout / "keyseg/code.py").write_text("two\n")
    (checkout / "keyseg/token.json").write_text("s3cret\n")  # tracked, by mistake
    write_secrets(checkout)
    diff = provenance.git(checkout).diff
    assert "+two" in diff
    assert "s3cret" not in diff
    assert "# changed, not kept: keyseg/token.json" in diff
    assert "# new file, not kept: keyseg/hf_token.py" in diff


def test_what_no_run_depends_on_is_no_change(checkout):
    (checkout / "notes.md").write_text("another note\n")
    (checkout / "scratch.py").write_text("print()\n")
    (checkout / "tests").mkdir()
    (checkout / "tests/test_x.py").write_text("x\n")
    assert not provenance.git(checkout).dirty


def test_an_attempt_that_was_killed_ended_when_it_was_last_seen(tmp_path, run_config):
    run = RunDirectory.create(tmp_path / "x", run_config)
    run.update(attempts=[{"started": 1000.0, "gpus": 2}])
    run.log([Row("train/loss", 1.0, 1, 1500.0)])
    os.utime(run.metrics_file, (2800.0, 2800.0))
    (attempt,) = provenance.attempts_so_far(run)
    assert attempt["outcome"] == "killed"
    assert (attempt["ended"], attempt["seconds"], attempt["gpu_hours"]) == (2800.0, 1800.0, 1.0)
    second = provenance.ended({"started": 3000.0, "gpus": 2}, "done", 3900.0)
    assert provenance.cost([attempt, second, {"started": 1.0}]) == {"minutes": 45, "gpu_hours": 1.5}


def test_hours_are_those_of_all_gpus_of_every_attempt():
    """One process on a GPU, killed; then four processes on four; one is still at work."""
    first = {"seconds": 1800.0, "gpus": 1, "processes": 1}
    second = {"seconds": 900.0, "gpus": 4, "processes": 4}
    info = {"attempts": [first, second, {"started": 1.0}], "minutes": 45, "processes": 4}
    assert provenance.hours(info) == 0.5 + 1.0
    plain = {"attempts": [{"seconds": 3600.0, "gpus": 0, "processes": 2}]}
    assert provenance.hours(plain) == 2.0  # CPU-hours
    assert provenance.hours({"minutes": 30}) == 0.5  # attempts without seconds, as once written
    assert math.isnan(provenance.hours({"attempts": [{"started": 1.0}]}))


def test_outside_of_git(tmp_path):
    assert provenance.git(tmp_path) == provenance.Git(None, False, "")


def test_what_is_recorded(tmp_path, run_config, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JWT", "secret")
    run = RunDirectory.create(tmp_path / "x", run_config)
    for diff in ("changed", ""):
        state = provenance.Git("c0ffee", bool(diff), diff)
        monkeypatch.setattr(provenance, "git", lambda state=state: state)
        assert provenance.record(run) == state
        assert (run.path / "code.diff").exists() == bool(diff)
    info = run.info
    assert info["git"] == {"commit": "c0ffee", "dirty": False}
    assert info["versions"]["hydra-core"].startswith("1.3")
    assert info["hardware"]["cores"] >= 1
    assert info["hardware"]["memory_gib"] > 0
    assert info["slurm"]["SLURM_JOB_ID"] == "42"
    assert "secret" not in str(info)
    attempt = provenance.attempt(state)
    assert attempt["slurm_job_id"] == "42"
    assert attempt["git_commit"] == "c0ffee"
    assert Path(f"/proc/{attempt['pid']}").exists()
