"""A worker whose score is a formula of its config: the tuner's real path, a few ms a trial.

gIoU is 1 at temperature 0.3 and bce 2, and falls with the squared distance (of logarithms).
Standard library only, so that it starts at once. SLOW: seconds a trial; CRASH: fails, each with
another number in its error; CRASH_ABOVE: a bce above which it fails; ROWS: evaluations, each
nearer to the score than the one before;
STRAGGLER: number of a trial that works until a file `go` lies beside its folder;
UNTRAINED: score of the model before its first step; NO_SEG: share of answers without SEG;
PATIENCE: seconds that a bad score waits to be pruned, before each evaluation but the first two.
"""

import fcntl
import json
import math
import os
import re
import sys
import time
from pathlib import Path


def main() -> int:
    path = Path(sys.argv[1])
    with (path / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 75
        return work(path)


def work(path: Path) -> int:
    if json.loads((path / "run.json").read_text())["status"] == "done":
        return 0
    with (path / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    started = time.time()
    attempt = {"started": started, "pid": os.getpid(), "host": "here"}
    update(path, status="running", attempts=[attempt])
    config = (path / "config.yaml").read_text()
    temperature, bce = (
        float(re.search(rf"^ +{key}: (\S+)$", config, re.M)[1]) for key in ("temperature", "bce")
    )
    score = math.exp(-(math.log(temperature / 0.3) ** 2) - math.log(bce / 2) ** 2)
    if "CRASH" in os.environ or bce > float(os.environ.get("CRASH_ABOVE", "inf")):
        update(path, status="failed", error=f"RuntimeError: no luck at step {os.getpid()}")
        return 1
    number = json.loads((path / "run.json").read_text()).get("trial")
    if os.environ.get("STRAGGLER") == str(number):
        while not (path.parent / "go").exists():
            time.sleep(0.01)
    rows = int(os.environ.get("ROWS", "1"))
    if "UNTRAINED" in os.environ:
        write_row(path, float(os.environ["UNTRAINED"]), 0)
    for step in range(1, rows + 1):
        time.sleep(float(os.environ.get("SLOW", "0")) / rows)
        patience = time.time() + (float(os.environ.get("PATIENCE", "0")) if score < 0.5 else 0)
        while step > 2 and time.time() < patience and not (path / "prune.json").exists():
            time.sleep(0.02)  # the bad wait for the verdict, however slow the machine is
        if (path / "prune.json").exists():
            update(path, status="pruned", attempts=[attempt | {"ended": time.time()}])
            return 0
        if json.loads((path / "run.json").read_text()).get("keep_val_iou"):
            iou = {str(i): score * step / rows * (1 - 0.01 * i) for i in range(20)}
            with (path / "val_iou.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "iou": iou}) + "\n")
        write_row(path, score * step / rows, step)
    scores = {"giou": score, "ciou": score, "precision@0.5": score, "keyword_accuracy": 0.9}
    ended = {"ended": time.time(), "seconds": time.time() - started, "outcome": "done"}
    update(
        path,
        status="done",
        summary={
            "teacher_forced": scores,
            "generated": {**scores, "no_seg_rate": float(os.environ.get("NO_SEG", "0"))},
        },
        attempts=[attempt | ended],
        minutes=0.01,
        seconds_per_step=bce,
    )
    return 0


def write_row(path: Path, value: float, step: int) -> None:
    row = {"name": "val/giou", "value": value, "step": step, "time": time.time()}
    with (path / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps(row) + "\n")


def update(path: Path, **fields: object) -> None:
    info = json.loads((path / "run.json").read_text()) | fields
    (path / "run.json.new").write_text(json.dumps(info))
    (path / "run.json.new").replace(path / "run.json")


if __name__ == "__main__":
    raise SystemExit(main())
