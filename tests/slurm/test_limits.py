"""What a real cluster refuses: too many jobs, too long an array, what is somebody else's."""

import tempfile
from pathlib import Path

import pytest

from keyseg import cli
from tests.slurm.conftest import Sweep
from tests.somebody_else import as_nobody

FEW = "hydra.launcher.qos=few"
"""No more than three jobs of a user at a time (cluster_up.sh)."""


def test_more_cells_than_the_user_may_have_jobs(sweep):
    command = ("fusion=self", "seed=range(5)", FEW)
    code, out, err = sweep.run(*command, "--detach", HANG="self")
    assert code == 0, err
    assert "sbatch refuses the job: QOSMaxSubmitJobPerUserLimit; Batch job submission failed" in out
    assert "2 cells are not submitted yet" in out
    assert len(sweep.cluster.jobs()) == 3
    code, out, err = sweep.keyseg("status", "t")
    assert code == 0, err
    assert "gone" not in out
    assert "lost" not in out
    process = sweep.start(*command)
    for run in (file.parent for file in sweep.root.glob("outputs/t/*/run.json")):
        (run / "go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    runs = list(sweep.root.glob("outputs/t/*/starts.txt"))
    assert [len(file.read_text().splitlines()) for file in runs] == [1] * 5


def test_more_cells_than_an_array_may_have_tasks(sweep):
    """MaxArraySize=9: the largest place in an array is 8."""
    code, out, err = sweep.run("fusion=self", "seed=range(12)", "--dry")
    assert code == 0, err
    assert "#SBATCH --array=0-8%9" in out
    assert "# the first array of 2: MaxArraySize" in out
    held = "+hydra.launcher.sbatch.hold=true"
    code, out, err = sweep.run("fusion=self", "seed=range(12)", held, "--detach")
    assert code == 0, err
    assert "12 of 12 cells are queued or at work" in out
    places = sorted(int(job.partition("_")[2]) for job in sweep.cluster.jobs())
    assert places == sorted([*range(9), *range(3)])


def test_what_sbatch_does_not_know_is_told_in_its_own_words(sweep):
    for option, said in (
        ("+hydra.launcher.sbatch.nonsense=1", "unrecognized option '--nonsense=1'"),
        ("hydra.launcher.qos=nope", "Invalid qos specification"),
    ):
        code, _, err = sweep.run("fusion=self,cross", option)
        assert code == 2
        assert err.count("\n") == 1
        assert said in err


def test_somebody_else_may_look_but_not_cancel(cluster, monkeypatch):
    for name, value in (*cluster.environment.items(), ("MLFLOW_TRACKING_URI", "none")):
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(cluster, Path(folder))
        code, _, err = sweep.run("fusion=self", "+hydra.launcher.sbatch.hold=true", "--detach")
        assert code == 0, err

        def keyseg(*arguments: str) -> int:
            with pytest.raises(SystemExit) as caught:
                cli.main(["--outputs", str(sweep.root / "outputs"), *arguments])
            return int(caught.value.code or 0)

        assert keyseg("status", "t") == 0  # what it imports is loaded from now on
        Path(folder).chmod(0o755)
        try:
            code, told = as_nobody(lambda: keyseg("status", "t"))
            assert code == 0, told
            assert "(JobHeldUser)" in told
            for folders in (0o755, 0o777):  # a folder that a group shares is no leave to cancel
                sweep.cells["self"].path.parent.chmod(folders)
                code, told = as_nobody(lambda: keyseg("cancel", "t"))
                assert code == 2, told
                assert told.startswith("error: t is root's: only they, or an operator of the clu")
                assert "Access/permission denied" in told
                assert not list(sweep.root.glob("outputs/t/.slurm/*/cancelled"))
            assert len(cluster.jobs()) == 1
        finally:
            assert keyseg("cancel", "t") == 0
    assert cluster.jobs() == []
