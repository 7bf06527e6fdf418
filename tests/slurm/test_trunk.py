"""Several budgets on a cluster: a job goes on from the trunk that the one before it left."""

import pandas as pd

from keyseg.runs.run_directory import DONE, RunDirectory
from tests.forked import Cell
from tests.plain import PLAIN

WSD = (
    "optim.schedule=wsd",
    "optim.decay=0.25",
    "optim.warmup=2",
    "optim.eval_every=4",
    "evaluation.protocols=[teacher_forced]",
    "runtime.log_every=1",
    "runtime.threads=1",
    "model.lora.dropout=0.1",  # so that the random state matters
)
MINUTES = 5


def values(run: RunDirectory) -> pd.DataFrame:
    rows = run.metrics()
    kept = ~rows["name"].str.contains("seconds_per_step")
    return rows.loc[kept, ["name", "step", "value"]].reset_index(drop=True)


def test_a_job_with_a_larger_budget_goes_on_where_the_one_before_it_decayed(
    sweep, small_overrides, small_run, tmp_path
):
    process = sweep.start(
        "optim.steps=8,4",
        *PLAIN,
        *small_overrides,
        *WSD,
        "hydra.launcher.array_parallelism=1",
        "hydra.launcher.report=false",
        "hydra.launcher.memory=4G",
        stub=False,
        MLFLOW_TRACKING_URI="none",
    )
    _, err = process.communicate(timeout=60 * MINUTES)
    assert process.returncode == 0, err
    small, large = sweep.cells["steps=4"], sweep.cells["steps=8"]
    assert small.status == large.status == DONE
    assert large.info["trunk"]["step"] == 3
    assert large.info["trunk"]["signature"] == small.info["signature"]
    assert len(small.info["attempts"]) == len(large.info["attempts"]) == 1

    alone = RunDirectory.create(tmp_path / "alone", small_run(*WSD, "optim.steps=8"))
    assert Cell(alone).wait(60 * MINUTES) == 0, alone.log_file.read_text()
    pd.testing.assert_frame_equal(values(large), values(alone), check_exact=True)
    pd.testing.assert_frame_equal(large.samples(), alone.samples(), check_exact=True)
