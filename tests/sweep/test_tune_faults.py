"""The tuner when it is killed: no trial is lost, none is counted twice, the budget is exact."""

import json
import os
import random
import signal
import time
import warnings
from pathlib import Path

KILLS = 20
BUDGET = 3 * KILLS


def test_controllers_and_workers_killed_at_random_moments(bench, monkeypatch):
    monkeypatch.setenv("SLOW", "0.05")
    here = bench(n_trials=BUDGET, same_errors=BUDGET)
    here.arms()  # the imports, once
    rng = random.Random(0)
    child, dead = None, {"controller": 0, "worker": 0}
    while sum(dead.values()) < KILLS:
        if child is None:
            child = start(here)
        time.sleep(rng.uniform(0.02, 0.3))
        if rng.random() < 0.5:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = None
            dead["controller"] += 1
        elif kill_a_worker(here.root, rng):
            dead["worker"] += 1
        elif here.arms()[0].used() == BUDGET:
            break  # nobody is left to be killed
    if child is not None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    trials = here.run(3)
    assert min(dead.values()) >= 3, dead
    assert [t.number for t in trials] == list(range(BUDGET))
    assert here.arms()[0].used() == BUDGET
    failed = [t for t in trials if t.state.name == "FAIL"]
    assert {t.state.name for t in trials} <= {"COMPLETE", "FAIL"}
    assert len(failed) <= dead["worker"]
    assert {t.user_attrs["error"] for t in failed} <= {
        "the worker was killed by SIGKILL (out of memory?)"
    }
    assert len({t.user_attrs["cell"] for t in trials}) == BUDGET
    starts = here.starts()
    assert len(starts) == BUDGET
    # A worker that died while there was no controller is started again, and nobody else is.
    assert sum(starts.values()) <= BUDGET + dead["worker"] - len(failed)


def start(here) -> int:
    """A controller in a process of its own; its workers are in others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
        child = os.fork()
    if child == 0:
        try:
            here.run(3)
        finally:
            os._exit(0)
    return child


def kill_a_worker(root: Path, rng: random.Random) -> bool:
    """Kill one of those at work, if there are any."""
    files = sorted(root.glob("*/run.json"))
    rng.shuffle(files)
    for file in files:
        info = json.loads(file.read_text())
        pid = (info.get("attempts") or [{}])[-1].get("pid")
        command = Path(f"/proc/{pid}/cmdline")
        if info["status"] != "running" or not command.exists():
            continue
        if str(file.parent) in command.read_text():
            os.kill(pid, signal.SIGKILL)
            return True
    return False
