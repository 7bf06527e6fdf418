"""Finished runs read on other data by jobs."""

import subprocess
import sys

from keyseg.runs import disk, evaluations

HERE = (
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.memory=4G",
    "hydra.launcher.poll=0.5",
)


def test_jobs_read_what_is_not_there_and_are_found_again(sweep, make_finished, small_overrides):
    outputs = sweep.root / "outputs"
    run = make_finished("fusion=full", "evaluation.protocols=[teacher_forced]", outputs=outputs)
    run.update(checkpoint_fingerprint=disk.sha256(run.best_file)[:16], seed=0)
    places = [o for o in small_overrides if o.startswith("data.")]
    command = [sys.executable, "-m", "keyseg", "--outputs", str(outputs), "evaluate", "fusion"]
    command += ["data=scenes", "split=val", *places, *HERE, "--device", "cpu"]

    def ask(*more):
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, env=sweep.environment(), timeout=400
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "runs that are queued or at work: 1" in ask("--detach")
    assert "full, seed 0, on scenes val, teacher forced: gIoU" in ask()
    [found] = evaluations.read(run)
    assert found.about["summary"]["giou"] >= 0
    assert "done already" in ask()
    assert len(list((run.path.parent / ".slurm").glob("*-read"))) == 1
