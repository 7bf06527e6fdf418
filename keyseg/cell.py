"""One cell from a frozen config to its results: `python -m keyseg.cell RUN_DIR`.

The work that a launcher starts, and that `python run.py` does in its own process. A run that is
done is left alone; one that was stopped goes on at its last checkpoint. Several run directories
are worked on one after the other, on what is loaded once (pack.py). Where `srun`, torchrun or
`accelerate launch` starts several processes they share the work, and the first one writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import takewhile
from typing import Any

import pandas as pd
import torch

from keyseg import disk, pack, provenance, system, tracking
from keyseg.build import build, pick_device, share_backbones
from keyseg.config import ConfigError, RunConfig
from keyseg.data.example import told_first
from keyseg.data.mix import (
    ImageGroup,
    ImageSampler,
    Source,
    fingerprint,
    groups,
    load_splits,
    prepare,
)
from keyseg.disk import DiskFullError
from keyseg.distributed import Processes, joined, unsharded
from keyseg.evaluate import Record, evaluate, in_order
from keyseg.metrics import summarise
from keyseg.model.manifest import manifest
from keyseg.preflight import weights_fingerprint
from keyseg.rundir import (
    DONE,
    EXIT_BUSY,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    PRUNED,
    QUEUED,
    RUNNING,
    Row,
    RunBusy,
    RunDirectory,
    WatchedRun,
    now,
    verdict,
)
from keyseg.train import Stopped, Trainer

_stop = threading.Event()
"""Set by SIGUSR2, which schedulers send before they take a machine away."""


class Pruned(Exception):  # noqa: N818 (an end, not a mistake)
    """Somebody who follows the run asked it to end; what it has measured so far is kept."""


def run_cell(run: RunDirectory) -> None:
    """Train and evaluate; results and state go into the run directory, and on to MLflow.

    Raises:
        RunBusy: another process works on this run.
        Stopped: SIGUSR2 came; a checkpoint is written, and the run is queued again.
        Exception: what went wrong, after it was recorded (status failed, the error's last lines).
    """
    with joined() as processes, ExitStack() as held:
        if not processes.led(lambda: _begin(run, processes, held)):
            return
        mine = run if processes.first else WatchedRun(run.path)
        try:
            results = work(mine, run.config, processes)
        except Stopped as stopped:
            _close(mine, QUEUED, outcome=str(stopped))
            raise
        except Pruned:
            _close(mine, PRUNED)
            return
        except DiskFullError as error:
            with suppress(DiskFullError):  # there may be no room for that either
                _close(mine, FAILED, error=str(error))
            raise
        except Exception as error:
            if run.status == RUNNING:  # the first to fail says why: the others lose it then
                reason = "".join(traceback.format_exception_only(error)).strip()
                _close(run, FAILED, error=reason)
            raise
        _close(mine, DONE, **results)
        if processes.first:
            # nothing goes on from here; at 7B the optimiser's state is three times the weights
            (run.checkpoints / "last.pt").unlink(missing_ok=True)


def _begin(run: RunDirectory, processes: Processes, held: ExitStack) -> bool:
    """Whether there is something to do. Then the run is held, and mirrored, until `held` closes."""
    held.enter_context(run.lock())
    if run.status in (DONE, PRUNED):
        return False
    disk.remove_leftovers(run.checkpoints)
    state = provenance.record(run)
    seen = len(run.info["hardware"].get("gpus", ()))
    gpus = max(seen, processes.count) if seen else 0  # each process may see its own only
    attempt = provenance.attempt(state, gpus) | {"processes": processes.count}
    attempts = [*provenance.attempts_so_far(run), attempt]
    run.update(status=RUNNING, attempts=attempts, error=None, processes=processes.count)
    held.enter_context(tracking.mirror(run))
    held.enter_context(system.watch(run))
    return True


def work(run: RunDirectory, cfg: RunConfig, processes: Processes) -> dict[str, Any]:
    """The run itself; returns what goes into run.json."""
    device = processes.device(pick_device(cfg.runtime.device))
    set_threads(cfg)
    check_shares(cfg, processes.count)
    prepare(cfg.data)
    train, val, test = read_data(cfg)
    torch.manual_seed(cfg.seed)
    parts = build(cfg, device)
    rows = manifest(parts.model, parts.features.encoders)
    trained = sum(r["parameters"] for r in rows if r["trainable"])
    run.update(
        manifest=rows,
        trainable_parameters=trained,
        data_fingerprint=fingerprint([*train, *val, *test]),
        weights_fingerprint=weights_fingerprint(cfg),
        steps=cfg.optim.steps,
        protocol=protocol_keys(cfg),
    )
    optim = cfg.optim
    sampler = ImageSampler(train, cfg.seed, optim.images_per_step, optim.expressions_per_image)
    trainer = Trainer(parts, sampler, cfg, run.checkpoints, processes)
    run.truncate(trainer.resume() or -1)  # without a checkpoint it begins anew, before step 0
    val_groups = groups(e for s in val for e in s.examples)[: cfg.evaluation.val_images]

    keep_iou = bool(run.info.get("keep_val_iou"))

    def validate() -> dict[str, float]:
        if processes.any(run.prune_file.exists()):
            raise Pruned
        records = evaluate(parts, val_groups, cfg, "teacher_forced", processes)
        rows = table(processes.gather(records), val_groups)
        if keep_iou and processes.first:
            line = {"step": trainer.step, "iou": dict(zip(rows["id"], rows["iou"], strict=True))}
            disk.append(run.val_iou_file, (json.dumps(line) + "\n").encode())
        return summarise(rows)

    run_checkpoint = trainer.saved_step
    run.update(checkpoint_step=run_checkpoint)  # MLflow waits with later rows: a kill takes them
    try:
        for value in trainer.fit(validate, _stop.is_set):
            # At once: the checkpoint of a step is written after its rows, so that none is lost.
            run.log([Row(*value, now())])
            if run_checkpoint != trainer.saved_step:
                run_checkpoint = trainer.saved_step
                disk.flush(run.metrics_file)  # as durable as the checkpoint that ends with them
                run.update(checkpoint_step=run_checkpoint)
    finally:
        run.update(checkpoint_step=trainer.saved_step)
    if not cfg.evaluation.protocols:  # a trial of a tuner: chosen on val, test is not looked at
        return {"summary": {}, "seconds_per_step": pace(run)}
    trainer.load_best()
    told = [e for s in test for e in s.examples]
    test_groups = groups(told if cfg.evaluation.texts == "all" else told_first(told))
    with unsharded(parts.model):
        samples = {
            p: table(
                unless_stopped(evaluate(parts, test_groups, cfg, p, processes), processes),
                test_groups,
            )
            for p in cfg.evaluation.protocols
        }
    run.write_samples(pd.concat(samples.values(), ignore_index=True))
    summary = {p: summarise(rows) for p, rows in samples.items()}
    moment = now()
    run.log(
        Row(f"test/{protocol}/{name}", value, optim.steps, moment)
        for protocol, scores in summary.items()
        for name, value in scores.items()
    )
    with (run.checkpoints / "best.safetensors").open("rb") as file:
        checkpoint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {
        "summary": summary,
        "seconds_per_step": pace(run),
        "checkpoint_fingerprint": checkpoint,
    }


_data: dict[str, list[list[Source]]] = {}


def read_data(cfg: RunConfig) -> list[list[Source]]:
    """The sources of train, val and test; read once in a process and those forked from it."""
    key = json.dumps(cfg.data, sort_keys=True)
    if key not in _data:
        _data[key] = load_splits(cfg.data)
    return _data[key]


def pace(run: RunDirectory) -> float | None:
    """Seconds a step: the median of all logging intervals; None where nothing was trained."""
    metrics = run.metrics()
    seconds = metrics.loc[metrics["name"] == "train/seconds_per_step", "value"]
    return float(seconds.median()) if len(seconds) else None


def table(records: list[Record], images: list[ImageGroup]) -> pd.DataFrame:
    """Records of an evaluation as rows of samples.parquet, in the order of the examples."""
    return pd.DataFrame(in_order(records, images))


def unless_stopped(records: Iterator[Record], processes: Processes) -> list[Record]:
    """The records of all processes; the next attempt makes an evaluation anew that was stopped.

    Raises:
        Stopped: SIGUSR2 came, to one of the processes or to all.
    """
    mine = list(takewhile(lambda record: not _stop.is_set(), records))
    if processes.any(_stop.is_set()):
        raise Stopped("stopped while it read the test split; the training is complete")
    return processes.gather(mine)


def check_shares(cfg: RunConfig, processes: int) -> None:
    """Whether there is an image for every micro-batch of every process.

    Raises:
        ConfigError: there is not.
    """
    images, parts = cfg.optim.images_per_step, cfg.runtime.accumulation
    if images < processes * parts:
        raise ConfigError(
            f"optim.images_per_step={images}: too few for {processes} processes with "
            f"runtime.accumulation={parts} micro-batches each"
        )
    if cfg.runtime.sharding != "none" and cfg.model.quantization != "none":
        raise ConfigError(
            f"runtime.sharding={cfg.runtime.sharding} does not go together with "
            f"model.quantization={cfg.model.quantization}: set one of them to none"
        )


def protocol_keys(cfg: RunConfig) -> dict[str, Any]:
    """What a number needs beside it to mean anything (paper.md section 4)."""
    return {
        "data": cfg.data["name"],
        "splits": cfg.data["splits"].get("test"),
        "sources": _sources(cfg),
        "texts": cfg.evaluation.texts,
        "protocols": cfg.evaluation.protocols,
        "prompt": cfg.prompt.name,
        "token_order": cfg.model.tokens.order,
        "token_state": cfg.model.tokens.state,
        "backbone": cfg.model.name,
        "selected_by": "val giou (teacher_forced)",
    }


def _sources(cfg: RunConfig) -> dict[str, Any]:
    """How the sources of test are read: division into splits, sentences, keywords; no paths."""
    used = {name for entry in cfg.data["splits"].get("test") or () for name in entry["sources"]}
    keys = ("dataset", "split_by", "texts", "keyword", "keyword_file", "keywords")
    return {
        name: {key: spec[key] for key in keys if key in spec}
        for name, spec in cfg.data["sources"].items()
        if name in used
    }


def set_threads(cfg: RunConfig) -> None:
    """Threads of torch: the config's, else the launcher's share (KEYSEG_THREADS), else all."""
    threads = cfg.runtime.threads or int(os.environ.get("KEYSEG_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)


def _close(run: RunDirectory, status: str, *, outcome: str | None = None, **fields: Any) -> None:
    attempts = run.info["attempts"]
    attempts[-1] = provenance.ended(attempts[-1], outcome or status)
    run.update(status=status, attempts=attempts, **provenance.cost(attempts), **fields)


def attempt(path: str) -> int:
    """Work on a run directory; an exit code. What goes wrong is printed."""
    try:
        run_cell(RunDirectory(path))
    except RunBusy as busy:
        print(busy, file=sys.stderr)
        return EXIT_BUSY
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_STOPPED
    except DiskFullError as error:
        with suppress(OSError):  # the log may lie on that disk
            print(error, file=sys.stderr)
        return EXIT_NO_SPACE
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def attempt_forked(path: str) -> int:
    """`attempt` after a fork; in a new process, should a library have touched the GPU before it."""
    if torch.cuda._is_in_bad_fork():  # none that we know of does so at import
        os.execv(sys.executable, [sys.executable, "-m", "keyseg.cell", path])
    return attempt(path)


def share(paths: Sequence[str]) -> None:
    """Load what these runs will read and not change. What cannot be loaded fails in its run."""
    torch.set_num_threads(1)  # of a pool of threads no forked process would find any
    tracking.preload()
    for run in map(RunDirectory, paths):
        with suppress(Exception):
            if verdict(run) is None:
                cfg = run.config
                prepare(cfg.data)
                read_data(cfg)
                share_backbones(cfg)


def main() -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong use, 74 disk full, 75 at work elsewhere, 85 stopped."""
    signal.signal(signal.SIGUSR2, lambda number, frame: _stop.set())
    paths = sys.argv[1:]
    if not paths:
        print("usage: python -m keyseg.cell RUN_DIR ...", file=sys.stderr)
        return 2
    try:
        if len(paths) == 1:
            return attempt(paths[0])
        share(paths)
        return pack.each(paths, attempt_forked, _stop)
    finally:  # Python's own end would give the signal its default back, which kills
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
