"""One invocation of the tuner: a study, its trials, and default against best at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from rich.console import Console

from keyseg.config import ConfigError, resolve_path
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import FAILED
from keyseg.sweep import finish, stale
from keyseg.sweep.cells import Cell, check_scored
from keyseg.sweep.design import check_block, folder_name
from keyseg.sweep.launcher import (
    EXIT_FAILED,
    SweepLauncher,
    prepare,
    print_findings,
    start_parent,
    supervise,
)
from keyseg.sweep.overrides import fail
from keyseg.sweep.pool import Pool
from keyseg.sweep.progress import open_view
from keyseg.sweep.supervise import Outcome, Supervisor
from keyseg.sweep.tune import enqueue, results, samplers, storage
from keyseg.sweep.tune.control import Controller, GivenUp
from keyseg.sweep.tune.options import OptunaConfig
from keyseg.sweep.tune.progress import TrialTable
from keyseg.sweep.tune.prune import Judge
from keyseg.sweep.tune.record import TuningRecord
from keyseg.sweep.tune.settings import Settings
from keyseg.sweep.tune.space import points, split
from keyseg.sweep.tune.studies import Arm, load_hook, questions
from keyseg.sweep.tune.warm import warm_start

_TICK, _REDRAW, _SAVE = 0.02, 0.5, 5.0  # seconds


class Tuning:
    """Made: all that can be wrong is known, and nothing is written. Run: the whole of it."""

    def __init__(
        self,
        launcher: SweepLauncher,
        config: DictConfig,
        options: OptunaConfig,
        overrides: Sequence[Override],
        console: Console,
    ) -> None:
        self.launcher = launcher
        self.config = config
        self.options = options
        self.console = console
        if config.get("detach"):
            raise ConfigError("detach=true: a tuner stays, it chooses each trial from those before")
        if config.get("until"):
            raise ConfigError("until=verdict: a tuner compares no seeds; hydra/sweeper=grid does")
        check_block(config.ablation)
        asked = config.get("name")
        named = (config.ablation.get("name") or "tune") if asked is None else asked
        self.name = folder_name(str(named))
        space, fixed = split(overrides)
        self.questions = questions(space, fixed, options.tune_per)
        self.hook = load_hook(options.space)
        if self.hook is None and not self.questions[0].space:
            raise ConfigError(
                "there is nothing to tune: give a search space, like "
                "'loss.keyword.temperature=tag(log, interval(0.05, 5))'"
            )
        self.settings = Settings(launcher.compose, self.name, options.trial_overrides)
        self.bases = [self.settings.base(q) for q in self.questions]
        self.probes = [self.settings.probe(question) for question in self.questions]
        if options.final:
            check_scored(self.settings.compared(q, [], {}) for q in self.questions)
        for question in self.questions:
            enqueue.check(question, options.enqueue)
        samplers.sampler(options, 0, 0)
        optim = self.probes[0].config.optim
        samplers.pruner(options, optim.steps, optim.eval_every)
        self.judge = Judge(options) if options.pruner != "none" else None
        if options.sampler == "grid":
            points(self.questions[0].space)
        self.most = options.n_jobs or options.n_trials * len(self.questions)
        self.pool: Pool = launcher.pool([self.probes[0]] * self.most, self._say)
        self.width = min(self.pool.slots, self.most)
        self.sweep_dir: Path = self.probes[0].path.parent
        searched = ", ".join(d.key for d in self.questions[0].space) or str(options.space)
        asked = config.ablation.get("question") or f"What is the best {searched}?"
        self.record = TuningRecord(self.sweep_dir, asked)

    def run(self) -> list[Any]:
        """The whole of it; with dry=true only what it would be."""
        if self.config.get("dry"):
            self._show()
            self.launcher.check_devices(self.probes, self._say)
            if self.launcher.prepare:
                print_findings(self.probes, self.console)
            return []
        stale.check_study(self.sweep_dir, str(self.config.get("stale")))
        self.launcher.check_devices(self.probes, self._say)
        if self.launcher.prepare:
            prepare([replace(probe, rerun=True) for probe in self.probes], self.console)
        self.sweep_dir.mkdir(parents=True, exist_ok=True)
        with sweep_directory.hold(self.sweep_dir, [self.name]):
            pass  # no sweep of this name is at work
        lock = filelock.FileLock(self.sweep_dir / ".tuner.lock")
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            fail(f"{finish.short_path(self.sweep_dir)}: another process tunes here", EXIT_FAILED)
        try:
            return self._run()
        finally:
            lock.release()

    def _say(self, text: str) -> None:
        finish.print_line(self.console, text)

    def _show(self) -> None:
        count = f"{self.options.n_trials} trials"
        count += f" each of {len(self.questions)} variants" if len(self.questions) > 1 else ""
        count += f", {self.width} at a time"
        sampler = f"sampler {self.options.sampler}, pruner {self.options.pruner}"
        self._say(f"tuning {self.name} · {count} · {sampler} · nothing started")
        for question in self.questions:
            label = f"{question.label}  " if question.label else ""
            for dimension in question.space:
                self._say(f"{label}{dimension.key}  {dimension.describe()}")

    def _run(self) -> list[Any]:
        arms = self._arms()
        self.record.write_sweep()
        parent = start_parent(self.sweep_dir)
        controller = Controller(
            arms,
            self.pool,
            self.settings.of_trial,
            width=self.width,
            same_errors=self.options.same_errors,
            max_failure_rate=self.options.max_failure_rate,
            judge=self.judge,
            max_attempts=self.launcher.max_attempts,
        )
        try:
            self._control(controller, arms)
        except GivenUp as given_up:
            parent.join(30)
            ended = controller.supervisor.outcomes
            if problem := finish.finish_mlflow(self.sweep_dir, ended, None, failed=True):
                self._say(f"warning: {problem}")
            self.launcher.tell(self.sweep_dir, self.console, error=str(given_up))
            raise
        finally:
            self.record.write_trials(arms, self.width)
        outcomes = self._compare(arms)
        parent.join(30)
        reported = self._end(arms, controller.supervisor.outcomes, outcomes)
        if not reported or any(o.status == FAILED for o in outcomes):
            raise SystemExit(EXIT_FAILED)
        return [arm.study for arm in arms]

    def _arms(self) -> list[Arm]:
        store = storage.open_storage(self.sweep_dir, self.options.storage)
        name = self.options.study_name or self.name
        seed = self.options.seed if self.options.seed is not None else int(self.config.seed)
        optim = self.probes[0].config.optim
        arms = []
        for question, base, probe in zip(self.questions, self.bases, self.probes, strict=True):
            study = storage.open_study(
                store,
                f"{name}-{question.label}" if question.label else name,
                self.options,
                question.space,
                samplers.pruner(self.options, optim.steps, optim.eval_every),
                probe.signature,
            )
            arm = Arm(question, study, self.options, seed, base, self.hook)
            if self.options.warm_start:
                outputs, wanted = self.sweep_dir.parent, self.options.warm_start
                added = warm_start(arm, outputs, self.sweep_dir, wanted)
                self._say(f"{study.study_name}: {added} finished cells taken over")
            enqueue.enqueue(arm, self.options)
            arms.append(arm)
        return arms

    def _control(self, controller: Controller, arms: Sequence[Arm]) -> None:
        """Step the controller until the budget is spent, and show how it goes."""
        trials = TrialTable(controller)
        before = sum(arm.used() for arm in arms)
        budget = sum(arm.budget() for arm in arms)
        heading = f"tuning {self.name} · {budget} trials, {self.width} at a time"
        heading += f" · {before} there already" if before else ""
        learns = self.options.sampler in ("tpe", "gp", "cmaes")
        if learns and self.width > 1 and 2 * self.width > budget - before > 0:
            self._say(
                f"{min(self.width, budget - before)} of {budget - before} trials are chosen before "
                "one has ended: a smaller hydra.sweeper.n_jobs lets more of them learn",
            )
        table = self.probes[0].config.runtime.show_progress
        with open_view(heading, self.console, slots=self.width, table=table) as view:
            drawn = saved = time.monotonic()
            try:
                controller.adopt()
                if controller.active:
                    self.record.begin()
                while controller.active:
                    changed = controller.step()
                    if changed or time.monotonic() - drawn > _REDRAW:
                        view.update(trials.rows(changed))
                        drawn = time.monotonic()
                    if time.monotonic() - saved > _SAVE:
                        self.record.write_trials(arms, self.width)
                        saved = time.monotonic()
                    time.sleep(_TICK)
            except (KeyboardInterrupt, GivenUp):
                controller.supervisor.stop()
                raise

    def _compare(self, arms: Sequence[Arm]) -> list[Outcome]:
        """Default and best of every arm, with all protocols: the only runs that read test."""
        if not self.options.final:
            return []
        cells: dict[str, Cell] = {}
        compared: list[dict[str, Cell]] = []
        for arm in arms:
            best = arm.best()
            settings = {"default": list[str]()}
            compared.append({})
            if best is not None:
                settings["tuned"] = results.best_overrides(arm, best)
            for name, values in settings.items():
                factors = {"settings": name}
                if self.options.tune_per:
                    factors = {self.options.tune_per: arm.label, **factors}
                cell = self.settings.compared(arm.question, values, factors)
                compared[-1][name] = cells.setdefault(cell.signature, cell)
        compared_cells = list(cells.values())
        self.record.write_sweep(compared_cells, contrasts_of(compared))
        pool = self.launcher.pool(compared_cells, self._say)
        supervisor = Supervisor(pool, max_attempts=self.launcher.max_attempts)
        for cell in compared_cells:
            supervisor.add(cell)
        if supervisor.active:
            heading = "default against tuned, on the test split"
            if len(compared_cells) < 2 * len(arms):
                heading = "nothing beat the default; the test split of what there is"
            table = compared_cells[0].config.runtime.show_progress
            supervise(supervisor, pool, compared_cells, heading, self.console, show=table)
        order = {cell.path: i for i, cell in enumerate(compared_cells)}
        return sorted(supervisor.outcomes, key=lambda o: order[o.cell.path])

    def _end(self, arms: Sequence[Arm], trials: list[Outcome], compared: list[Outcome]) -> bool:
        """Report, MLflow and the best values; whether there is a report where one was wanted."""
        reports = resolve_path(self.probes[0].config.paths.reports) / self.sweep_dir.name
        report = problem = None
        if self.launcher.report:
            report, problem = finish.make_report(
                self.launcher.build_report, self.sweep_dir, reports
            )
        problems = [problem, finish.finish_mlflow(self.sweep_dir, [*trials, *compared], report)]
        finish.print_end(
            self.console,
            compared,
            sweep_dir=self.sweep_dir,
            report=report,
            problems=[text for text in problems if text],
        )
        for arm in arms:
            results.print_best(self.sweep_dir, arm, self.console)
        self.launcher.tell(self.sweep_dir, self.console, page=report)
        return problem is None


def contrasts_of(arms: Sequence[Mapping[str, Cell]]) -> list[dict[str, Any]]:
    """Tuned with default in each arm, then each arm with the first, like with like.

    `arms`: the cells "default" and "tuned" of each; one cell may be both.
    """
    pairs = [(arm.get("tuned"), arm.get("default")) for arm in arms]
    pairs += [(arm.get(s), arms[0].get(s)) for s in ("tuned", "default") for arm in arms[1:]]
    entries = [
        {"of": of.point.factors, "against": against.point.factors}
        for of, against in pairs
        if of is not None and against is not None and of is not against
    ]
    return [entry for i, entry in enumerate(entries) if entry not in entries[:i]]
