"""A finished run on data that is not its own: built once, read on one test set after the other."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import filelock
import pandas as pd
import torch

from keyseg.config import ALL, ConfigError, PromptConfig, RunConfig
from keyseg.data import mix
from keyseg.data.example import Example, scored
from keyseg.data.files import DataError
from keyseg.data.fraction import fewer
from keyseg.data.mix import groups
from keyseg.metrics import summarise
from keyseg.model.backbones.weights import WeightsError
from keyseg.predict.predictor import load_model
from keyseg.runs import code, evaluations, imported, provenance
from keyseg.runs.code import Code
from keyseg.runs.evaluations import Evaluation, TestSet
from keyseg.runs.run_directory import RunBusy, RunDirectory, now
from keyseg.train.build import Parts, with_others
from keyseg.train.device import pick_device
from keyseg.train.distributed import ALONE
from keyseg.worker import kept_records
from keyseg.worker.kept_records import KeptRecords
from keyseg.worker.log import scores
from keyseg.worker.run import protocol_keys, read_test, set_threads, table

log = logging.getLogger(__name__)


class FinishedModel:
    """The model of a finished run, loaded when it is first asked."""

    def __init__(self, run: RunDirectory, device: str) -> None:
        """`device`: as runtime.device."""
        self.run = run
        self.device = device
        self._parts: Parts | None = None

    def on(
        self, of_set: TestSet, protocol: str, cfg: RunConfig, of: Mapping[str, str], by: Code
    ) -> Evaluation:
        """Read a test set under a protocol and keep what comes of it in the run directory.

        Batches that an earlier command has read are not read again.

        Args:
            cfg: the run's config with the test set for its data.
            of: hashes of what the results depend on, "" for data that was not there to be hashed.
            by: the code that reads.

        Raises:
            ConfigError: the model cannot be loaded. DataError: the data cannot be read.
            RunBusy: another process reads it.
        """
        folder = evaluations.folder(self.run, of_set)
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", timeout=0.5)
        try:
            with lock:
                return self._read(folder, of_set, protocol, cfg, of, by)
        except filelock.Timeout:
            raise RunBusy(f"{folder}: another process reads it") from None

    def _read(
        self,
        folder: Path,
        of_set: TestSet,
        protocol: str,
        cfg: RunConfig,
        of: Mapping[str, str],
        by: Code,
    ) -> Evaluation:
        began = time.monotonic()
        mix.prepare(cfg.data)
        sources = mix.load(cfg.data, "test")
        of = {**of, "data": mix.fingerprint(sources)}
        examples = [e for s in sources for e in scored(s.examples, cfg.evaluation.texts)]
        if not examples:
            raise DataError(f"{of_set.title} holds no example")
        parts = with_others(self.parts(cfg.prompt), [e for s in sources for e in s.examples])
        kept = KeptRecords(folder, " ".join(of[what] for what in evaluations.OF))
        samples = samples_of(parts, examples, cfg, protocol, kept)
        summary = summarise(samples)
        about = {
            "protocol": protocol_keys(cfg) | {"protocols": [protocol]},
            "summary": summary,
            "trained_on": self._seen_before(examples),
            "seconds": round(time.monotonic() - began, 1),
            "when": now(),
            "host": platform.node(),
            "device": str(next(parts.model.parameters()).device),
            "git": provenance.git().commit,
        }
        made = Evaluation(of_set, protocol, of, about, samples)
        code.write(folder, by)
        evaluations.write(self.run, made)
        kept_records.remove(folder)
        log.info("evaluated on %s, %s: %s", of_set.title, protocol, scores(summary))
        return made

    def _seen_before(self, examples: Sequence[Example]) -> dict[str, int] | None:
        """How many of the images were trained on, and how many examples chose the weights.

        None where the run's own data is not on this machine, or its weights were imported.
        """
        if imported.of(self.run.info):
            return None
        own = self.run.config
        try:
            train, val = mix.load_splits(own.data, ["train", "val"])
            train = fewer(train, own.data.get("train_images", ALL), own.draws)
        except (DataError, ConfigError, OSError):
            return None
        images = {e.image_id for s in train for e in s.examples}
        asked = groups(e for s in val for e in scored(s.examples, own.evaluation.texts))
        asked = asked[: own.evaluation.val_images]
        chosen = {(e.id, e.query) for group in asked for e in group.examples}
        return {
            "images": len({e.image_id for e in examples} & images),
            "of": len({e.image_id for e in examples}),
            "val": sum((e.id, e.query) in chosen for e in examples),
        }

    def parts(self, prompt: PromptConfig) -> Parts:
        """The model, asking in the words of a prompt.

        Raises:
            ConfigError: a backbone, or the run's own file, is missing or does not fit.
        """
        if self._parts is None or self._parts.conversation.prompt != prompt:
            self._parts = None  # one at a time in memory
            cfg = replace(self.run.config, prompt=prompt)
            set_threads(cfg)
            device = pick_device(self.device, "--device")
            try:
                self._parts = load_model(cfg, self.run.best_file, device, features=True)
            except (WeightsError, RuntimeError) as error:
                raise ConfigError(str(error).splitlines()[0]) from error
        return self._parts


def samples_of(
    parts: Parts, examples: Sequence[Example], cfg: RunConfig, protocol: str, kept: KeptRecords
) -> pd.DataFrame:
    """Rows of a test set as those of samples.parquet, in the order of the examples."""
    images = groups(examples)
    torch.manual_seed(cfg.draws)
    return table(read_test(parts, images, cfg, protocol, ALONE, kept, lambda: False), images)
