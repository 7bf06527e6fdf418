"""Seeds until the answer is in, and nobody there: the last job of the cells takes each look."""

import json

from keyseg.runs.run_directory import RunDirectory

LOOKS = "ablation.replicate={until: verdict, looks: [2, 3, 4]}"
SAMPLES = "seg_only=0.4~0,full=0.8~0.00001,self=0.49~0.05"
"""full is far from seg_only whatever the seed; self is as far from it as its seeds are apart."""


def runs(sweep):
    found = [RunDirectory(file.parent) for file in sweep.root.glob("outputs/t/*/run.json")]
    return {(run.info["label"], run.info["seed"]): run for run in found}


def starts(sweep):
    return {
        cell: len((run.path / "starts.txt").read_text().splitlines())
        for cell, run in runs(sweep).items()
    }


def taken(sweep):
    file = sweep.root / "outputs" / "t" / "looks.json"
    return json.loads(file.read_text())["looks"] if file.exists() else []


def last_job(sweep):
    """The last job that takes a look, once it works; "" before."""
    jobs = sweep.cluster.call("squeue", "-h", "-o", "%A %T %j").splitlines()
    looking = sorted(job.split() for job in jobs if job.endswith("-report"))
    return looking[-1][0] if looking and looking[-1][1] == "RUNNING" else ""


def test_a_detached_sweep_goes_from_look_to_look(sweep):
    """The job of the last look is killed while it looks: the command, given again, looks."""
    command = ("fusion=seg_only,full,self", LOOKS, "--detach")
    code, out, err = sweep.run(*command, SAMPLES=SAMPLES)
    assert code == 0, err
    assert "6 of 6 cells are queued or at work" in out
    assert "a last job takes the look, and goes on with what is open" in out
    cells = {("seg_only", 4), ("full", 2), ("self", 4)}
    ended = sum(count for _, count in cells)
    sweep.wait(lambda: [run.status for run in runs(sweep).values()] == ["done"] * ended, 300)
    sweep.wait(lambda: last_job(sweep))
    sweep.cluster.call("scancel", "--full", "--signal=KILL", last_job(sweep))
    sweep.wait(lambda: not sweep.cluster.jobs(), 300)
    by_jobs = taken(sweep)
    assert len(by_jobs) == 2
    code, out, err = sweep.run("fusion=seg_only,full,self", LOOKS)
    assert code == 0, err
    assert "look 3 of 3 (4 seeds)" in out
    assert taken(sweep)[:2] == by_jobs
    words = [{r["labels"][0]: r["word"] for r in look["rulings"]} for look in taken(sweep)]
    assert words[0] == {"full": "differs", "self": "open"}
    assert [set(look) for look in words[1:]] == [{"self"}, {"self"}]
    assert words[2]["self"] in ("open", "futile")
    assert starts(sweep) == {(f, s): 1 for f, count in cells for s in range(count)}
    assert "all cells were done already" in out
    code, out, err = sweep.keyseg("plan", "t")
    assert "no more seeds come" in out, out + err


def test_a_look_whose_cell_failed_is_left_for_its_command(sweep):
    command = ("fusion=seg_only,full,self", LOOKS)
    code, out, err = sweep.run(*command, "--detach", SAMPLES=SAMPLES, FAIL="self")
    assert code == 0, err
    sweep.wait(lambda: not sweep.cluster.jobs(), 300)
    assert taken(sweep) == []
    assert starts(sweep)["self", 0] == 1  # nobody tried it again and again
    log = next(sweep.root.glob("outputs/t/.slurm/*-report/*_log.out")).read_text()
    assert "look 1 is not taken: it needs all of its cells" in log
    code, out, err = sweep.run(*command, SAMPLES=SAMPLES)
    assert code == 0, err
    assert "look 1 of 3 (2 seeds): full − seg_only: differs" in out
    assert len(taken(sweep)) == 3
    assert starts(sweep)["self", 0] == 2
