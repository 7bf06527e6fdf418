"""The tuner when it is killed: no trial is lost, none is counted twice, the budget is exact.

KEYSEG_TEST_KILLS=20 kills more often than it takes every day.
"""

import os
import random
import signal
import time
import warnings
from contextlib import suppress
from pathlib import Path

KILLS = int(os.environ.get("KEYSEG_TEST_KILLS", "12"))
BUDGET = 4 * KILLS
PATIENCE = 240


def test_controllers_and_workers_killed_at_random_moments(bench, monkeypatch):
    monkeypatch.setenv("SLOW", "0.05")
    here = bench(n_trials=BUDGET, same_errors=BUDGET)
    here.arms()  # the imports, once
    rng = random.Random(0)
    deadline = time.monotonic() + PATIENCE
    child, dead = start(here), {"controller": 0, "worker": 0}
    while sum(dead.values()) < KILLS:
        # So many lines of the journal later: a moment that is random on a busy machine, too.
        until = lines(here) + rng.randint(1, 20)
        while lines(here) < until:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if rng.random() < 0.5:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = start(here)
            dead["controller"] += 1
        elif kill_a_worker(here.root, rng):
            dead["worker"] += 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    trials = here.run(3, patience=PATIENCE)
    assert min(dead.values()) >= KILLS // 4, dead
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
    assert len(starts) >= BUDGET - len(failed)  # some were killed before they had begun
    # A worker that died while there was no controller is started again, and nobody else is.
    assert sum(starts.values()) <= BUDGET + dead["worker"] - len(failed)


def lines(here) -> int:
    """How far the journal has come."""
    return (here.root / "study.log").read_bytes().count(b"\n")


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
    """Kill one of those that are there, at work or still starting."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = ["", "", *file.read_text().split("\0")]
            if f"{root}/" in words[-2] and words[-3].endswith("analytic_worker.py"):
                found.append(int(file.parent.name))
    if found:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(sorted(found)), signal.SIGKILL)
            return True
    return False
