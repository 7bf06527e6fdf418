"""A worker that behaves like a cell as far as the launcher can see, in a fraction of a second.

What it does beyond that is asked for by environment variables, each naming a fusion variant:
FAIL (raises), DIE (SIGKILL to itself at step 2), TAKE_ALONG (SIGKILL to who started it), HANG
(several by comma; waits until it is ended, or until there is a file `go` in its run directory), EAT
(takes more and more memory), FILL (fills the disk), OBEY (ends with 85 at SIGUSR2), MUTE
(exit code 3 without a word in run.json), LATE (SIGKILL to itself when it is done).
It counts its starts in starts.txt. With SAMPLES (full=0.8~0.1,self=0.5~0: IoU of a variant, and by
how much its seeds are apart) it leaves samples of 20 images.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from keyseg.runs.disk import DiskFullError
from keyseg.runs.run_directory import (
    DONE,
    EXIT_BUSY,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    RUNNING,
    Row,
    RunBusy,
    RunDirectory,
    now,
)
from keyseg.worker import several

SHARE = ("KEYSEG_THREADS", "OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "CUDA_VISIBLE_DEVICES")
EXTRA = ("MESSAGE", "ALSO")
"""Variables that go into run.json as `environment`: all of the first, of the second what is set."""


def work(run: RunDirectory) -> int:
    with (run.path / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()} {os.getppid()}\n")
    variant = run.config.fusion["name"]
    environment = {name: os.environ.get(name) for name in SHARE}
    environment |= {name: os.environ[name] for name in EXTRA if name in os.environ}
    attempts = [*run.info["attempts"], {"started": now(), "pid": os.getpid(), "host": "here"}]
    run.update(status=RUNNING, attempts=attempts, environment=environment)
    print(f"working on {variant}")
    if variant == os.environ.get("OBEY"):
        signal.signal(signal.SIGUSR2, lambda *_: os._exit(EXIT_STOPPED))
    eaten: list[bytes] = []
    hanging = os.environ.get("HANG", "").split(",")
    try:
        if variant == os.environ.get("MUTE"):
            print("last words")
            return 3
        for step in range(1, 5):
            run.log([Row("train/loss", 1 / step, step, now()), Row("val/giou", 0.1, step, now())])
            if variant == os.environ.get("DIE") and step == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if variant == os.environ.get("TAKE_ALONG") and len(sys.argv) > 2:
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            while variant == os.environ.get("EAT"):
                eaten.append(b"x" * 50_000_000)
                time.sleep(0.1)
            if variant == os.environ.get("FAIL"):
                raise RuntimeError("no luck today")
            if variant == os.environ.get("FILL"):
                fill(run.path / "ballast")
            while variant in hanging and not (run.path / "go").exists():
                time.sleep(0.05)
            time.sleep(float(os.environ.get("STEP_SECONDS", "0.01")))
    except RuntimeError as error:
        run.update(status=FAILED, error=f"RuntimeError: {error}")
        print(f"RuntimeError: {error}", file=sys.stderr)
        return 1
    if (wanted := os.environ.get("SAMPLES")) is not None:
        value, _, apart = dict(each.split("=") for each in wanted.split(","))[variant].partition(
            "~"
        )
        write_samples(run, float(value), float(apart))
    scores = {"giou": 0.5, "ciou": 0.6, "precision@0.5": 0.4, "keyword_accuracy": 0.9}
    attempts[-1] |= {"ended": now(), "seconds": 0.1, "outcome": "done"}
    run.update(
        status=DONE, summary={"teacher_forced": scores}, attempts=attempts, minutes=0.01, steps=4
    )
    print(json.dumps(scores))
    if variant == os.environ.get("LATE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def write_samples(run: RunDirectory, value: float, apart: float) -> None:
    import pandas as pd

    seed = run.config.seed
    off = apart * (-1) ** seed * (1 + seed / 10)
    iou = [value + off + 0.001 * value * ((7 * i + seed) % 20) for i in range(20)]
    same = {"image": "none.png", "query": "q", "keyword": "ball", "protocol": "teacher_forced"}
    same |= {"keyword_rank": 0, "answer": "a", "has_seg": True, "has_key": True}
    rows = [
        {"id": f"x/{i}", "image_id": f"x/{i}", "intersection": int(1000 * x), "union": 1000}
        | {"iou": x, "height": 10, "width": 100, **same}
        for i, x in enumerate(iou)
    ]
    run.write_samples(pd.DataFrame(rows))


def fill(file: Path) -> None:
    """To the last byte."""
    with file.open("wb", buffering=0) as out:
        for size in (1 << 20, 1 << 10, 1):
            with suppress(OSError):
                while True:
                    out.write(b"x" * size)


def attempt(path: str) -> int:
    cell = RunDirectory(path)
    if rank := os.environ.get("RANK"):
        told = " ".join(os.environ[name] for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"))
        (cell.path / f"rank{rank}.txt").write_text(told)
        if rank != "0":
            return 0
    try:
        with cell.lock():
            return work(cell) if cell.status != DONE else 0
    except RunBusy:
        return EXIT_BUSY
    except DiskFullError as error:
        print(error, file=sys.stderr)
        return EXIT_NO_SPACE


if __name__ == "__main__":
    paths = sys.argv[1:]
    code = attempt(paths[0]) if len(paths) == 1 else several.each(paths, attempt, threading.Event())
    raise SystemExit(code)
