"""The work of one cell: read the data, build, train, evaluate. Everything heavy is imported here.

What comes of it goes into the run directory. Where several processes share the work, each of them
calls `work`, and the first one writes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import pandas as pd
import torch

from keyseg.config import ALL, DRAWS, TEACHER_FORCED, ConfigError, RunConfig
from keyseg.data import reading
from keyseg.data.example import scored
from keyseg.data.fraction import fewer
from keyseg.data.mix import ImageGroup, ImageSampler, groups
from keyseg.data.planted import with_eroded_targets, with_wrong_masks
from keyseg.data.protocol import of_data
from keyseg.metrics import summarise
from keyseg.model.backbones.weights import weights_fingerprint, weights_path
from keyseg.model.manifest import manifest
from keyseg.predict.intervention import Reading
from keyseg.runs import disk, trunk
from keyseg.runs.interventions import Intervention
from keyseg.runs.run_directory import Row, RunDirectory, now
from keyseg.train.build import Parts, build, with_others
from keyseg.train.ceiling import box_ceiling
from keyseg.train.device import pick_device
from keyseg.train.distributed import Processes, unsharded
from keyseg.train.evaluate import Record, evaluate, evaluate_batches, in_order
from keyseg.train.schedule import decay_start
from keyseg.train.selection import SELECTED_BY
from keyseg.train.start import begin
from keyseg.train.trainer import Stopped, Trainer
from keyseg.worker.kept_records import KeptRecords
from keyseg.worker.log import counts, data_counts, memory, parameter_counts, scores

log = logging.getLogger(__name__)

Stop = Callable[[], bool]
"""Whether the run is to stop."""


class Pruned(Exception):  # noqa: N818 (an end, not a mistake)
    """Somebody who follows the run asked it to end; what it has measured so far is kept."""


def work(
    run: RunDirectory, cfg: RunConfig, processes: Processes, stop: Stop = lambda: False
) -> dict[str, Any]:
    """The run itself; returns what goes into run.json.

    Raises:
        Stopped: `stop` said so. Pruned: somebody asked the run to end.
    """
    device = processes.device(pick_device(cfg.runtime.device))
    run.update(device=_device_name(device))
    set_threads(cfg)
    check_images_per_step(cfg, processes.count)
    log.info(
        "device: %s, %d threads, %s, attention %s",
        _device_name(device),
        torch.get_num_threads(),
        cfg.model.precision,
        cfg.model.attention,
    )
    data = reading.read(cfg.data)
    weights = weights_fingerprint(cfg)
    check_same(run, data=data.fingerprint, weights=weights)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    _tell(data_counts(splits, data.fingerprint))
    torch.manual_seed(cfg.draws)
    every = ([e for source in split for e in source.examples] for split in splits.values())
    parts = with_others(build(cfg, device), *every)
    rows = manifest(parts.model, parts.features.encoders)
    start = begin(parts, cfg)
    if start:
        rows = start.noted(rows)
        run.update(start=start.to_json())
        _tell(start.lines())
    trained = sum(r["parameters"] for r in rows if r["trainable"])
    log.info("loaded: language side %s, mask side %s", *_backbones(cfg))
    _tell(parameter_counts(rows))
    run.update(
        manifest=rows,
        trainable_parameters=trained,
        data_fingerprint=data.fingerprint,
        data_counts=counts(splits),
        weights_fingerprint=weights,
        steps=cfg.optim.steps,
        protocol=protocol_keys(cfg),
    )
    optim = cfg.optim
    train = fewer(data.train, cfg.data.get("train_images", ALL), cfg.draws)
    if wrong := cfg.data.get("wrong_masks", 0):
        train = with_wrong_masks(train, wrong, cfg.draws)
    sampler = ImageSampler(
        train,
        cfg.draws,
        optim.images_per_step,
        optim.expressions_per_image,
        cfg.data.get("draw", DRAWS[0]),
    )
    trainer = Trainer(parts, sampler, cfg, run.checkpoints, processes)
    processes.led(lambda: _branch_off(run, cfg))
    step = trainer.resume()
    run.truncate(step or -1)  # without a checkpoint it begins anew, before step 0
    log.info("goes on after step %d" if step else "begins before step %d", step)
    texts = cfg.evaluation.texts
    val_groups = groups(e for s in data.val for e in scored(s.examples, texts))
    val_groups = val_groups[: cfg.evaluation.val_images]

    keep_iou = bool(run.info.get("keep_val_iou"))

    def validate() -> dict[str, float]:
        if processes.any(run.prune_file.exists()):
            raise Pruned
        records = evaluate(parts, val_groups, cfg, TEACHER_FORCED, processes)
        rows = table(processes.gather(records), val_groups)
        if keep_iou and processes.first:
            line = {"step": trainer.step, "iou": dict(zip(rows["id"], rows["iou"], strict=True))}
            disk.append(run.val_iou_file, (json.dumps(line) + "\n").encode())
        summary = summarise(rows)
        log.info("step %d of %d: val %s", trainer.step, trainer.end, scores(summary))
        return summary

    def leave() -> None:
        if processes.first:
            trunk.leave(run, cfg, trainer.step)

    run_checkpoint = trainer.saved_step
    run.update(checkpoint_step=run_checkpoint)  # MLflow waits with later rows: a kill takes them
    try:
        for value in trainer.fit(validate, stop, leave):
            # At once: the checkpoint of a step is written after its rows, so that none is lost.
            run.log([Row(*value, now())])
            if run_checkpoint != trainer.saved_step:
                run_checkpoint = trainer.saved_step
                disk.flush(run.metrics_file)  # as durable as the checkpoint that ends with them
                run.update(checkpoint_step=run_checkpoint, steps=trainer.end)
                log.info("step %d of %d: checkpoint", run_checkpoint, trainer.end)
    finally:
        run.update(checkpoint_step=trainer.saved_step, steps=trainer.end)
        if run_checkpoint != trainer.saved_step:
            log.info("step %d of %d: checkpoint", trainer.saved_step, trainer.end)
    if not cfg.evaluation.protocols:  # a trial of a tuner: chosen on val, test is not looked at
        return {"summary": {}, "seconds_per_step": pace(run)}
    trainer.load_best()
    log.info("trained; the weights with the best val gIoU read the test split. %s", memory())
    test = as_read = [e for s in data.test for e in scored(s.examples, texts)]
    if cfg.evaluation.eroded:
        test = with_eroded_targets(test, cfg.evaluation.eroded, cfg.evaluation.eroded_by)
    test_groups = groups(test)
    checkpoint = disk.sha256(run.best_file)[:16]
    by = (run.info.get("code") or {}).get("fingerprint")
    read_of = f"{checkpoint} {data.fingerprint} {weights} {by}"
    kept = KeptRecords(run.checkpoints, read_of, processes.rank)
    with unsharded(parts.model):
        samples = {
            p: table(read_test(parts, test_groups, cfg, p, processes, kept, stop), test_groups)
            for p in cfg.evaluation.protocols
        }
    run.write_samples(pd.concat(samples.values(), ignore_index=True))
    summary = {p: summarise(rows) for p, rows in samples.items()}
    for protocol, values in summary.items():
        log.info("test, %s: %s", protocol, scores(values))
    measured = {}
    if processes.first:
        ceiling = box_ceiling(cfg, parts.features, groups(as_read), data.fingerprint, device)
        if ceiling:
            log.info("test, from true boxes before any training: gIoU %.3f", ceiling["giou"])
            measured = {"ceiling": ceiling}
    log.info(memory())
    moment = now()
    run.log(
        Row(f"test/{protocol}/{name}", value, trainer.step, moment)
        for protocol, scores in summary.items()
        for name, value in scores.items()
    )
    return {
        "summary": summary,
        "seconds_per_step": pace(run),
        "checkpoint_fingerprint": checkpoint,
        **measured,
    }


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        log.info(line)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _backbones(cfg: RunConfig) -> tuple[str, str]:
    if cfg.model.init == "random":
        return "with random weights", "with random weights"
    return weights_path(cfg.model.language_weights), weights_path(cfg.model.mask_weights)


def check_same(run: RunDirectory, **fingerprints: str) -> None:
    """Whether a run that goes on at a checkpoint sees what it saw before.

    Raises:
        ConfigError: its data or weights are others now; names both fingerprints.
    """
    if not run.last_file.exists():
        return
    for what, today in fingerprints.items():
        before = run.info.get(f"{what}_fingerprint")
        if before not in (None, today):
            raise ConfigError(
                f"the {what} changed since this run's checkpoint (fingerprint {before} then, "
                f"{today} now): put back what was there, or begin anew with rerun=true"
            )


def _branch_off(run: RunDirectory, cfg: RunConfig) -> None:
    """Begin where a cell with a smaller budget began to decay, if there is one (`trunk`)."""
    if origin := trunk.take(run, cfg, decay_start(cfg.optim, cfg.optim.steps)):
        run.update(trunk=origin)
        log.info("branches off after step %d of %s", origin["step"], origin["signature"])


def pace(run: RunDirectory) -> float | None:
    """Seconds a step: the median of all logging intervals; None where nothing was trained."""
    metrics = run.metrics()
    seconds = metrics.loc[metrics["name"] == "train/seconds_per_step", "value"]
    return float(seconds.median()) if len(seconds) else None


def table(records: list[Record], images: list[ImageGroup]) -> pd.DataFrame:
    """Records of an evaluation as rows of samples.parquet, in the order of the examples."""
    return pd.DataFrame(in_order(records, images))


def read_test(
    parts: Parts,
    images: list[ImageGroup],
    cfg: RunConfig,
    protocol: str,
    processes: Processes,
    kept: KeptRecords,
    stop: Stop,
) -> list[Record]:
    """The records of all processes; what an attempt before this one has read is not read again.

    Raises:
        Stopped: `stop` said so to one of the processes, or to all; whole batches are kept.
    """
    if cfg.evaluation.intervention:
        return processes.gather(replaced(parts, images, cfg, protocol) if processes.first else [])
    before = kept.read(protocol) if processes.first else {}
    done = set(processes.led(lambda: list(before)))
    if done:
        log.info("test, %s: %d batches were read before", protocol, len(done))
    mine = [record for records in before.values() for record in records]
    with closing(evaluate_batches(parts, images, cfg, protocol, processes, done)) as batches:
        for start, records in batches:
            kept.add(protocol, start, records)
            mine += records
            if stop():
                break
    if processes.any(stop()):
        raise Stopped("stopped while it read the test split; the training is complete")
    return processes.gather(mine)


def replaced(parts: Parts, images: list[ImageGroup], cfg: RunConfig, protocol: str) -> list[Record]:
    """The records of test with a token's state replaced, as evaluation.intervention says."""
    reading = Reading(parts, images, cfg, protocol)
    reading.untouched()
    return reading.under(Intervention(*cfg.evaluation.intervention.split("-")))


def check_images_per_step(cfg: RunConfig, processes: int) -> None:
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


def protocol_keys(cfg: RunConfig) -> dict[str, Any]:
    """What a number needs beside it to mean anything."""
    return {
        **of_data(cfg.data, cfg.evaluation.texts),
        "protocols": cfg.evaluation.protocols,
        "prompt": cfg.prompt.name,
        "token_order": cfg.model.tokens.order,
        "token_state": cfg.model.tokens.state,
        "backbone": cfg.model.name,
        "selected_by": f"val {SELECTED_BY} ({TEACHER_FORCED})",
    }


def set_threads(cfg: RunConfig) -> None:
    """Threads of torch: the config's, else the launcher's share (KEYSEG_THREADS), else all."""
    threads = cfg.runtime.threads or int(os.environ.get("KEYSEG_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)
