"""Pruning: rows of cells at work are reported to the study, and a lost cause is asked to end.

The worker knows nothing of a study: it writes its rows (and IoUs of val, where they are asked for)
into its run directory, and looks for a file there at every evaluation. No database on the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.config import ConfigError
from keyseg.runs.run_directory import RunDirectory, now, parse_rows
from keyseg.sweep.tune.options import OptunaConfig
from keyseg.sweep.tune.studies import Arm

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class WilcoxonTest:
    """Prunes what is worse than the best trial, example by example at the same step.

    One-sided signed-rank test on the paired IoUs of val (Wilcoxon 1945; zeros split, after Pratt).
    It is made at every evaluation, so `p_threshold` is a dial and not an error rate.
    `n_startup_steps`: evaluations before the first test; `n_min`: examples both must share.
    """

    p_threshold: float = 0.1
    n_startup_steps: int = 1
    n_min: int = 8

    def worse(self, mine: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether `mine` (IoU by example) is worse than `best`."""
        from scipy.stats import wilcoxon

        in_both = sorted(mine.keys() & best.keys())
        differences = [mine[key] - best[key] for key in in_both]
        if len(in_both) < self.n_min or not any(differences) or sum(differences) >= 0:
            return False
        test: Any = wilcoxon(differences, alternative="less", zero_method="zsplit")
        return bool(test.pvalue < self.p_threshold)


class Judge:
    """Follows the rows of cells at work; asks those to end that the pruner gives up."""

    def __init__(self, options: OptunaConfig) -> None:
        self.row = next(iter(options.objectives))
        self.test: WilcoxonTest | None = None
        if options.pruner == "wilcoxon":
            import scipy.stats  # noqa: F401 (takes seconds, which a verdict must not)

            try:
                self.test = WilcoxonTest(**options.pruner_args)
            except TypeError as error:
                raise ConfigError(
                    f"hydra.sweeper.pruner_args={options.pruner_args}: wilcoxon: {error}"
                ) from error
        self._read: dict[Path, int] = {}
        self._reported: dict[Path, set[int]] = {}

    def prepare(self, run: RunDirectory) -> None:
        """Tell the worker, before it starts, what is wanted of it."""
        if self.test is not None and not run.info.get("keep_val_iou"):
            run.update(keep_val_iou=True)

    def look(
        self, run: RunDirectory, trials: Sequence[tuple[Arm, Trial]], *, ended: bool = False
    ) -> None:
        """Report what is new; ask the worker to end, if it has not, where that is the verdict."""
        for step, value in self._new(run):
            if step == 0:  # the untrained model, which is the same in every trial
                continue
            seen = self._reported.setdefault(run.path, set())
            if step in seen:  # a run that went on from a checkpoint writes some rows again
                continue
            seen.add(step)
            for arm, trial in trials:
                reported = arm.study.get_trials(deepcopy=False)[trial.number].intermediate_values
                if step not in reported:
                    trial.report(value, step)
            if not ended and all(self._given_up(run, a, trial, step) for a, trial in trials):
                request_prune(run, step, value)

    def _given_up(self, run: RunDirectory, arm: Arm, trial: Trial, step: int) -> bool:
        if self.test is None:
            return trial.should_prune()
        best = arm.best()
        if best is None or len(self._reported[run.path]) <= self.test.n_startup_steps:
            return False
        theirs = RunDirectory(run.path.parent / str(best.user_attrs.get("cell")))
        mine, them = val_iou(run).get(step), val_iou(theirs).get(step)
        return mine is not None and them is not None and self.test.worse(mine, them)

    def _new(self, run: RunDirectory) -> list[tuple[int, float]]:
        """Step and value of the rows since the last look."""
        offset = self._read.get(run.path, 0)
        try:
            size = run.metrics_file.stat().st_size
            if size < offset:  # cut back to a checkpoint
                offset = 0
            if size == offset:
                return []
            with run.metrics_file.open("rb") as file:
                file.seek(offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._read[run.path] = offset + new.rfind(b"\n") + 1
        rows = parse_rows(run.metrics_file, new)
        return [(row.step, row.value) for row in rows if row.name == self.row]


def request_prune(run: RunDirectory, step: int, value: float) -> None:
    """Ask the worker of a run to end at its next evaluation."""
    if not run.prune_file.exists():
        run.prune_file.write_text(json.dumps({"step": step, "value": value, "time": now()}))


def val_iou(run: RunDirectory) -> dict[int, dict[str, float]]:
    """IoU of every example of val, by step."""
    by_step: dict[int, dict[str, float]] = {}
    if run.val_iou_file.exists():
        for line in run.val_iou_file.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # a torn last line
                continue
            by_step[int(row["step"])] = row["iou"]
    return by_step
