"""What is edited after submit changes no job that waits, nor one that is queued again."""

import subprocess

from keyseg.runs import snapshot


def test_an_edit_after_submit_changes_no_queued_or_requeued_job(sweep, tmp_path):
    project = snapshot.take(tmp_path / "checkout")  # a checkout that may be spoilt
    sweep.project = project  # a new process: forked ones have loaded the code of this checkout
    command = sweep.command("fusion=cross", "+hydra.launcher.sbatch.hold=true", "--detach")
    environment = {**sweep.environment(), "HANG": "cross"}
    done = subprocess.run(
        command, cwd=sweep.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (job,) = sweep.cluster.jobs()
    run = sweep.cells["cross"]
    frozen = run.config_file.read_text()

    with (project / "keyseg" / "runs" / "run_directory.py").open("a") as code_file:
        code_file.write("\nraise RuntimeError('edited after submit')\n")
    optim = project / "experiments" / "optim" / "adamw.yaml"
    optim.write_text(optim.read_text().replace("steps:", "steps: 1  #", 1))

    sweep.cluster.call("scontrol", "release", job)
    sweep.wait_for("cross")
    sweep.cluster.call("scontrol", "requeue", job)
    sweep.wait(lambda: sweep.starts("cross") == 2)
    sweep.go("cross")
    sweep.wait(lambda: run.status == "done")
    assert run.config_file.read_text() == frozen
    assert "edited" not in run.log_file.read_text()
