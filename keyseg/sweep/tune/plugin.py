"""The Hydra sweeper `hydra/sweeper=optuna`: from overrides to a study, its trials, and the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from keyseg import sweepdir
from keyseg.config import ConfigError, RunConfig
from keyseg.rundir import FAILED
from keyseg.sweep import finish
from keyseg.sweep.cells import Cell, cell_of, frozen
from keyseg.sweep.design import Design, Point, folder_name, to_json
from keyseg.sweep.launcher import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    command,
    prepare,
    sigterm_is_ctrl_c,
    start_parent,
    supervise,
)
from keyseg.sweep.live import open_view
from keyseg.sweep.overrides import fail, one_line_errors
from keyseg.sweep.status import CellStatus, Watch
from keyseg.sweep.supervise import Outcome, Supervisor
from keyseg.sweep.tune import enqueue, results, samplers, storage
from keyseg.sweep.tune.arms import Arm, Question, load_hook, questions
from keyseg.sweep.tune.control import Controller, SameError
from keyseg.sweep.tune.options import OptunaConfig, options
from keyseg.sweep.tune.prune import Judge
from keyseg.sweep.tune.quick import with_values
from keyseg.sweep.tune.space import split
from keyseg.sweep.tune.warm import warm_start
from keyseg.sweep.workers import Pool

if TYPE_CHECKING:
    from optuna import Trial

_TICK, _REDRAW, _SAVE = 0.02, 0.5, 5.0  # seconds


class OptunaSweeper(Sweeper):
    """Cells chosen by Optuna, one after the other, as many at a time as the launcher takes."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over, and make the launcher."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Spend the budget, run default and best, report; ends the program with 1 on failure."""
        with one_line_errors(), sigterm_is_ctrl_c():
            console = Console()
            tuning = Tuning(self, self.read_options(), self.read_overrides(arguments), console)
            try:
                return tuning.run()
            except KeyboardInterrupt:
                finish.print_line(
                    console, f"stopped; the same command goes on from here: {command()}"
                )
                raise SystemExit(EXIT_INTERRUPTED) from None
            except SameError as error:
                fail(f"{error}; mend it and give the same command again", EXIT_FAILED)

    def read_options(self) -> OptunaConfig:
        """The sweeper's part of the config, checked."""
        names = {f.name for f in fields(OptunaConfig)}
        plain = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v
            for k, v in self.values.items()
            if k in names
        }
        return options(plain)

    def read_overrides(self, arguments: Sequence[str]) -> list[Override]:
        """Those of `hydra.sweeper.params`, then those of the command line."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [f"{k}={v}" for k, v in (self.values.get("params") or {}).items()]
        return parser.parse_overrides([*given, *arguments])


class Tuning:
    """One invocation of the tuner."""

    def __init__(
        self,
        sweeper: OptunaSweeper,
        options: OptunaConfig,
        overrides: Sequence[Override],
        console: Console,
    ) -> None:
        self.launcher = sweeper.launcher
        assert sweeper.config is not None
        self.config = sweeper.config
        self.options = options
        self.console = console
        if self.config.get("detach"):
            raise ConfigError("detach=true: a tuner stays, it chooses each trial from those before")
        if not hasattr(self.launcher, "pool"):
            raise ConfigError("hydra/launcher=debug runs no tuner: it needs one that has workers")
        self.plan_name = folder_name(
            str(self.config.get("name") or self.config.ablation.get("name") or "tune")
        )
        space, fixed = split(overrides)
        self.questions = questions(space, fixed, options.tune_per)
        self.hook = load_hook(options.space)
        if self.hook is None and not self.questions[0].space:
            raise ConfigError(
                "there is nothing to tune: give a search space, like "
                "'loss.keyword.temperature=tag(log, interval(0.05, 5))'"
            )
        # Wrong values show here, before anything is written.
        self._checked: dict[str, RunConfig] = {}
        self.bases = [self.launcher.compose(self._trial_fixed(q)) for q in self.questions]
        self.probes = [
            self._cell(q, base, [], "default", {})
            for q, base in zip(self.questions, self.bases, strict=True)
        ]
        for question in self.questions:
            enqueue.check(question, options.enqueue)
        samplers.sampler(options, 0, 0)
        optim = self.probes[0].config.optim
        samplers.pruner(options, optim.steps, optim.eval_every)
        self.judge = Judge(options) if options.pruner != "none" else None
        if options.sampler == "grid":
            from keyseg.sweep.tune.space import points

            points(self.questions[0].space)
        self.sweep_dir = self.probes[0].path.parent

    def run(self) -> list[Any]:
        """The whole of it; with dry=true only what it would be."""
        if self.config.get("dry"):
            self._show()
            return []
        if self.launcher.prepare:
            prepare(self.probes, self.console, rerun=True)
        self.sweep_dir.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(self.sweep_dir / ".tuner.lock")
        try:
            held.acquire(timeout=1)
        except filelock.Timeout:
            fail(f"{finish.short_path(self.sweep_dir)}: another process tunes here", EXIT_FAILED)
        try:
            return self._run()
        finally:
            held.release()

    def _show(self) -> None:
        count = f"{self.options.n_trials} trials"
        count += f" each of {len(self.questions)} variants" if len(self.questions) > 1 else ""
        sampler = f"sampler {self.options.sampler}, pruner {self.options.pruner}"
        finish.print_line(
            self.console, f"tuning {self.plan_name} · {count} · {sampler} · nothing started"
        )
        for question in self.questions:
            label = f"{question.label}  " if question.label else ""
            for dimension in question.space:
                line = f"{label}{dimension.key}  {dimension.distribution}"
                finish.print_line(self.console, line)

    def _run(self) -> list[Any]:
        arms = self._arms()
        self._write_sweep([], [], {})
        parent = start_parent(self.sweep_dir)
        most = self.options.n_jobs or self.options.n_trials * len(arms)
        pool: Pool = self.launcher.pool([self.probes[0]] * most)
        width = min(pool.free(), most)
        controller = Controller(
            arms,
            pool,
            self.make_cell,
            width=width,
            same_errors=self.options.same_errors,
            judge=self.judge,
        )
        try:
            self._control(controller, arms, width)
        finally:
            results.write_trials(self.sweep_dir, arms, width)
        cells, outcomes = self._finals(arms)
        parent.join(30)
        reported = self._end(arms, cells, outcomes)
        if not reported or any(o.status == FAILED for o in outcomes):
            raise SystemExit(EXIT_FAILED)
        return [arm.study for arm in arms]

    # -- before ------------------------------------------------------------------------------

    def _arms(self) -> list[Arm]:
        store = storage.open_storage(self.sweep_dir, self.options.storage)
        name = self.options.study_name or self.plan_name
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
                finish.print_line(
                    self.console, f"{study.study_name}: {added} finished cells taken over"
                )
            enqueue.enqueue(arm, self.options)
            arms.append(arm)
        return arms

    def _write_sweep(
        self, cells: Sequence[Cell], points: Sequence[Point], factors: dict[str, list[Any]]
    ) -> None:
        """sweep.json: trials are the runs in the folder, `cells` those compared at the end."""
        block = self.config.ablation
        baseline = {"settings": "default"} if factors else {}
        plan = Design(
            name=self.plan_name,
            factors=factors,
            baseline=baseline,
            points=list(points),
            question=block.get("question") or f"What is the best {self._searched()}?",
        )
        content = to_json(
            plan,
            [c.signature for c in cells],
            [c.config.seed for c in cells],
            command(),
            time.time(),
        )
        with sweepdir.lock(self.sweep_dir):
            before = sweepdir.read(self.sweep_dir)
            kept = {"mlflow_parent": before.get("mlflow_parent"), "tune": True}
            if before.get("tune"):
                kept["started"] = before["started"]
                if not cells:
                    kept |= {key: before[key] for key in ("cells", "factors", "baseline")}
            sweepdir.write(self.sweep_dir, content | kept)

    def _searched(self) -> str:
        return ", ".join(d.key for d in self.questions[0].space) or str(self.options.space)

    # -- trials ------------------------------------------------------------------------------

    def make_cell(self, arm: Arm, trial: Trial) -> Cell:
        """The cell of a trial.

        Raises:
            ConfigError: parameters that make no valid config.
        """
        overrides = arm.draw(trial)
        label = f"{arm.label} · trial {trial.number}" if arm.label else f"trial {trial.number}"
        return self._cell(arm.question, arm.base, overrides, label, dict(trial.params))

    def _cell(
        self,
        question: Question,
        base: DictConfig,
        overrides: list[str],
        label: str,
        params: dict[str, Any],
    ) -> Cell:
        config = self._config(question, base, overrides, params)
        point = Point(label, params, config.seed, [*question.fixed, *overrides])
        return cell_of(config, point, self.plan_name)

    def _config(
        self, question: Question, base: DictConfig, overrides: list[str], params: dict[str, Any]
    ) -> RunConfig:
        """The base with a trial's values in it; Hydra composes anew only where it has to."""
        if question.label not in self._checked:
            self._checked[question.label] = frozen(base)
        quick = with_values(self._checked[question.label], base, params)
        if quick is not None:
            return quick
        return frozen(self.launcher.compose([*self._trial_fixed(question), *overrides]))

    def _trial_fixed(self, question: Question) -> list[str]:
        return [*question.fixed, *self.options.trial_overrides]

    def _control(self, controller: Controller, arms: Sequence[Arm], width: int) -> None:
        """Step the controller until the budget is spent, and show how it goes."""
        board = Board(controller)
        before = sum(arm.used() for arm in arms)
        budget = sum(arm.budget() for arm in arms)
        heading = f"tuning {self.plan_name} · {budget} trials, {width} at a time"
        heading += f" · {before} there already" if before else ""
        table = self.probes[0].config.runtime.show_progress
        with open_view(heading, self.console, slots=width, table=table) as view:
            drawn = saved = time.monotonic()
            try:
                controller.adopt()
                while controller.active:
                    changed = controller.step()
                    if changed or time.monotonic() - drawn > _REDRAW:
                        view.update(board.rows(changed))
                        drawn = time.monotonic()
                    if time.monotonic() - saved > _SAVE:
                        results.write_trials(self.sweep_dir, arms, width)
                        saved = time.monotonic()
                    time.sleep(_TICK)
            except (KeyboardInterrupt, SameError):
                controller.supervisor.stop()
                raise

    # -- the end -----------------------------------------------------------------------------

    def _finals(self, arms: Sequence[Arm]) -> tuple[list[Cell], list[Outcome]]:
        """Default and best of every arm, with all protocols: the only runs that read test."""
        if not self.options.final:
            return [], []
        cells: dict[str, Cell] = {}
        for arm in arms:
            best = arm.best()
            settings = {"default": list[str]()}
            if best is not None:
                settings["tuned"] = results.best_overrides(arm, best)
            for name, values in settings.items():
                factors = {"settings": name}
                if self.options.tune_per:
                    factors = {self.options.tune_per: arm.label, **factors}
                overrides = [*arm.question.fixed, *values]
                config = frozen(self.launcher.compose(overrides))
                point = Point(" · ".join(factors.values()), factors, config.seed, overrides)
                cell = cell_of(config, point, self.plan_name)
                cells.setdefault(cell.signature, cell)
        found = list(cells.values())
        points = [cell.point for cell in found]
        keys = list(points[0].factors)
        factors_of = {k: list(dict.fromkeys(p.factors[k] for p in points)) for k in keys}
        self._write_sweep(found, points, factors_of)
        pool = self.launcher.pool(found)
        supervisor = Supervisor(pool)
        for cell in found:
            supervisor.add(cell)
        if supervisor.active:
            heading = "default against tuned, on the test split"
            if len(found) < 2 * len(arms):
                heading = "nothing beat the default; the test split of what there is"
            table = found[0].config.runtime.show_progress
            supervise(supervisor, pool, found, heading, self.console, show=table)
        return found, supervisor.outcomes

    def _end(self, arms: Sequence[Arm], cells: list[Cell], outcomes: list[Outcome]) -> bool:
        """The best values, as overrides to paste and as a file; then the end of every sweep."""
        reported = True
        if cells:
            reported = self.launcher.end(self.sweep_dir, cells, outcomes, self.console)
        for arm in arms:
            self._print_best(arm)
        if not cells:
            finish.print_line(self.console, f"runs    {finish.short_path(self.sweep_dir)}")
        return reported

    def _print_best(self, arm: Arm) -> None:
        from optuna.trial import TrialState

        name = f"{arm.label}: " if arm.label else ""
        states = [t.state for t in arm.study.get_trials(deepcopy=False)]
        count = {s: states.count(s) for s in (TrialState.PRUNED, TrialState.FAIL)}
        ended = ", ".join(f"{n} {s.name.lower()}" for s, n in count.items() if n)
        best = arm.best()
        if best is None:
            finish.print_line(self.console, f"{name}no trial has a value ({ended})", "red")
            return
        tried = f"{name}best of {arm.used()} trials{f' ({ended})' if ended else ''}"
        shown = results.pareto(arm) if len(self.options.objectives) > 1 else [best]
        for trial in shown:
            scores = ", ".join(
                f"{n} {v:.4g}" for n, v in zip(self.options.objectives, trial.values, strict=True)
            )
            finish.print_line(self.console, f"{tried}: trial {trial.number}, {scores}")
            finish.print_line(self.console, "  " + _pasted(results.best_overrides(arm, trial)))
        file = results.write_best(self.sweep_dir, arm, best, command())
        finish.print_line(self.console, f"  as a file for sweeps/: {finish.short_path(file)}")


class Board:
    """Rows of the table: cells in flight first; those that ended are not read again."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._watches: dict[Path, Watch] = {}
        self._ended: list[CellStatus] = []

    def rows(self, ended: Sequence[Outcome]) -> list[CellStatus]:
        """The table now; `ended`: since the last call."""
        for outcome in ended:
            watch = self._watches.pop(outcome.cell.path, None)
            watch = watch or _watch(outcome.cell)
            self._ended.append(watch.read(outcome.status))
        states = self.controller.supervisor.states()
        flying = self.controller.flying
        for path, flight in flying.items():
            if path not in self._watches:
                self._watches[path] = _watch(flight.cell)
        at_work = [self._watches[path].read(states.get(path)) for path in flying]
        return [*self._ended, *at_work]


def _watch(cell: Cell) -> Watch:
    return Watch(cell.open(), cell.label, cell.config.optim.steps)


def _pasted(overrides: Sequence[str]) -> str:
    import shlex

    return " ".join(shlex.quote(o) for o in overrides)
