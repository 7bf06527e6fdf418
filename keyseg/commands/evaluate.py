"""`keyseg evaluate RUN... data=NAME [split=...]`: finished runs on other data, without training.

What comes of it lies in the run directory, apart from the run's own test, and stands in the sweep's
report and in MLflow by data set. What is there already, of the same weights, data and code, is not
read again; a reading that was broken off goes on where it stopped. With `hydra/launcher=local` or
`slurm` each run is read by a process, or a job, of its own.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from keyseg.commands.compose import compose_config
from keyseg.config import ConfigError, resolve_path
from keyseg.runs import sweep_directory
from keyseg.runs.finding import HELP, find_all_finished

if TYPE_CHECKING:
    from pathlib import Path

    from keyseg.config import RunConfig
    from keyseg.runs.run_directory import RunDirectory
    from keyseg.sweep.evaluation import Task
    from keyseg.sweep.pool import Ended

# Imported late: what only this command needs, so that no other waits for it.

_GROUPS = ("data", "split", "prompt", "evaluation", "stale")
_SETTING = re.compile(r"\+{0,2}([a-z_]+)((?:\.\w+)*)=(.*)", re.DOTALL)
_SETTINGS = """settings, as in run.py:
  data=A,B             options of the group data; data=refcoco:testA,refcocog:test: with splits;
                       left out: the test sets that the run's sweep declares (ablation.tests)
  split=testA,testB    of each of them: test (if left out: all that it tests on), val, or a part
  data.root=/disk      where the files are; data.texts, data.keyword, ... : how they are read
  prompt=lisa_literal  asked in other words than the run was trained on
  evaluation.protocols=[generated] evaluation.texts=first ...   other than the run's own
  stale=rerun|keep     what becomes of results of other data, weights or code (a question)
  hydra/launcher=local|slurm|auto   a process or a job for each run (left out: this process), with
  hydra.launcher.n_jobs=2 hydra.launcher.partition=gpu hydra.launcher.gpus=1 ... as in run.py -m

examples:
  keyseg evaluate fusion data=refcoco,refcoco_plus split=testA,testB data.root=/disk/datasets
  keyseg evaluate fusion/full data=reason_seg split=val
  keyseg evaluate table2 hydra/launcher=slurm hydra.launcher.gpus=1 hydra.launcher.time=60
  keyseg evaluate table2 --dry"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="score finished runs on other data, without training",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_SETTINGS,
    )
    parser.add_argument(
        "words",
        metavar="RUN",
        nargs="+",
        help=f"{HELP}; a sweep or SWEEP/LABEL means all its finished runs",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 (a GPU if there is one)"
    )
    parser.add_argument("--dry", action="store_true", help="say what would be read, and end")
    parser.add_argument(
        "--detach", action="store_true", help="with jobs: submit, and do not wait for them"
    )
    parser.set_defaults(run=_run, overrides=[])


def _run(options: argparse.Namespace) -> int:
    from keyseg.sweep import evaluation, readers, stale

    words, where = readers.chosen([*options.words, *options.overrides])
    names, settings = _runs_and_settings(words)
    launcher = readers.launcher(where, detach=options.detach)
    outputs = resolve_path(options.outputs)
    runs = {run.path: run for name in names for run in find_all_finished(outputs, name)}
    wanted = list(_tasks(list(runs.values()), settings))
    if options.dry:
        for task in wanted:
            print(f"{task.title}: {_state(task)}")
        return 0
    todo, lines = evaluation.decide(wanted, settings.get("stale", stale.ASK))
    for line in lines:
        print(line)
    code = 0
    if todo and launcher:
        choice = stale.RERUN if any(task.reasons() for task in todo) else stale.KEEP
        asked = [f"{key}={value}" for key, value in (settings | {"stale": choice}).items()]
        begin = ["--outputs", str(outputs), "evaluate", "--device", options.device]
        code = _read_elsewhere(todo, launcher, [*begin, *asked], detach=options.detach)
    elif todo:
        _read(todo, options.device)
    sweeps = dict.fromkeys(path.parent.name for path in runs)
    print(f"by data set: {' ; '.join(f'keyseg report {name}' for name in sweeps)}")
    return code


def _runs_and_settings(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Names of runs, and settings by key; a label of a run may hold "=" behind its sweep's name.

    Raises:
        ConfigError: a setting that is none, or no name of a run.
    """
    names, settings = [], {}
    for word in words:
        setting = _SETTING.fullmatch(word)
        if not setting:
            names.append(word)
            continue
        group = setting[1]
        if group not in _GROUPS:
            near = get_close_matches(group, _GROUPS, 1)
            hint = f". Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{word}: evaluate takes {', '.join(_GROUPS)}{hint}")
        settings[group + setting[2]] = setting[3]
    if not names:
        raise ConfigError(f"which run? {HELP}")
    return names, settings


def _tasks(runs: Sequence[RunDirectory], settings: dict[str, str]) -> Iterator[Task]:
    """What every run is asked, by run.

    Raises:
        ConfigError: no data is named, or a data set or split that there is not.
    """
    from keyseg.data.split import as_test
    from keyseg.runs.evaluations import TestSet
    from keyseg.sweep.evaluation import tasks

    more = {k: v for k, v in settings.items() if k not in ("data", "split", "stale")}
    overrides = [f"{key}={value}" for key, value in more.items()]
    changes = tuple(f"{k}={v}" for k, v in sorted(more.items()) if not _idle(k))
    composed: dict[tuple[str, Any], RunConfig] = {}
    for run in runs:
        policy = run.config.data.get("keyword")
        asked = _items(settings["data"]) if "data" in settings else _declared(run.path.parent)
        for item in asked:
            name, _, part = item.partition(":")
            for split in [part] if part else _items(settings.get("split", "test")):
                if (name, policy) not in composed:
                    composed[name, policy] = as_trained(name, overrides, policy)
                cfg = composed[name, policy]
                data = as_test(cfg.data, split)
                yield from tasks(run, TestSet(name, split, changes), data, cfg, list(more))


def as_trained(name: str, overrides: Sequence[str], policy: Any) -> RunConfig:
    """The config of a data set whose keywords come about as those that a run was trained on.

    policy: the run's `data.keyword`, None where its data has none. An override of it goes first.

    Raises:
        ConfigError: there is no such data set, or an override does not fit.
    """
    cfg = compose_config([f"data={name}", *overrides])
    given = any(o.startswith("data.keyword=") for o in overrides)
    if given or policy is None or cfg.data.get("keyword", policy) == policy:
        return cfg
    return compose_config([f"data={name}", f"data.keyword={policy}", *overrides])


def _idle(key: str) -> bool:
    """Whether it changes nothing in what a test set says under one protocol.

    What `data.prepare` makes is told apart by the data's fingerprint.
    """
    batches = ("evaluation.protocols", "evaluation.images_per_batch")
    made = key.startswith("data.prepare")
    return made or key.rpartition(".")[2] == "root" or key in batches


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def _declared(sweep_dir: Path) -> list[str]:
    """The test sets that a sweep declares, like "refcoco:testA".

    Raises:
        ConfigError: it declares none.
    """
    tests = list(sweep_directory.read(sweep_dir).get("tests") or [])
    if not tests:
        raise ConfigError(
            f"on which data? give data=NAME; sweep {sweep_dir.name} declares none (ablation.tests)"
        )
    return [str(item) for item in tests]


def _state(task: Task) -> str:
    """For --dry."""
    from keyseg.runs import evaluations
    from keyseg.worker import kept_records

    if reasons := task.reasons():
        return f"stale: {'; '.join(reasons)}"
    if task.done():
        return "done already"
    kept = kept_records.count(evaluations.folder(task.run, task.of_set))
    return f"to be read, {kept} batches are kept" if kept else "to be read"


def _read(todo: Sequence[Task], device: str) -> None:
    from keyseg.runs.run_directory import RunBusy
    from keyseg.worker.evaluation import FinishedModel
    from keyseg.worker.log import log_to

    models: dict[Path, FinishedModel] = {}
    for task in todo:
        if task.run.path not in models:
            for done in models.values():
                _show(done.run)
            models.clear()  # one at a time in memory
            models[task.run.path] = FinishedModel(task.run, device)
        with ExitStack() as inside:
            inside.enter_context(log_to(task.run.log_file, task.cfg.runtime.log_level))
            try:
                made = models[task.run.path].on(
                    task.of_set, task.protocol, task.cfg, task.of, task.code
                )
            except RunBusy as busy:
                print(f"{task.title}: left out, {busy}")
                continue
        print(
            f"{task.title}: {_scores(dict(made.about))} "
            f"({len(made.samples)} examples, {made.about['seconds']:.0f} s)"
        )
        if known := _seen(made.about["trained_on"]):
            print(f"  note: {known}")
    for done in models.values():
        _show(done.run)


def _show(run: RunDirectory) -> None:
    """Bring MLflow level with a run; the run directory holds everything, whatever comes of it."""
    from keyseg.tracking import sync

    try:
        sync.sync(run)
    except Exception as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        print(f"MLflow is not level ({line}): `keyseg sync {run.sweep_dir.name}` sends it later")


def _read_elsewhere(
    todo: Sequence[Task], launcher: Any, words: Sequence[str], *, detach: bool
) -> int:
    """Have every run read by a worker of its own; the exit code."""
    from keyseg.sweep import readers

    runs = {task.run.path: task.run for task in todo}
    pool = launcher.readers(list(runs.values()), words)
    try:
        good = readers.read(todo, pool, _said, detach=detach)
    except KeyboardInterrupt:
        left = len(pool.stop())
        jobs = "; the jobs go on" if launcher.can_detach else ""
        print(f"left undone: {left}{jobs}; the same command comes back", file=sys.stderr)
        raise
    if detach and (left := len(pool.stop())):
        print(f"runs that are queued or at work: {left}; the same command comes back to them")
    return int(not good)


def _said(task: Task, ended: Ended) -> bool:
    """Print what a worker left of a task; whether its results are there."""
    from keyseg.runs import evaluations

    result = evaluations.known(task.run, task.of_set, task.protocol)
    if result is None or not task.done() or task.reasons():
        why = ended.reason or f"its process ended with {ended.code}"
        print(f"{task.title}: not read, {why}; log: {task.run.log_file}", file=sys.stderr)
        return False
    print(f"{task.title}: {_scores(result)}")
    return True


def _scores(result: dict[str, Any]) -> str:
    said = result["summary"]
    return f"gIoU {100 * said['giou']:.1f}, cIoU {100 * said['ciou']:.1f}"


def _seen(overlap: dict[str, int] | None) -> str:
    """What of a test set the run saw in its training, in words; "" where nothing is known of it."""
    said = []
    if overlap and overlap["images"]:
        said.append(f"{overlap['images']} of its {overlap['of']} images are among those trained on")
    if overlap and overlap["val"]:
        said.append(f"{overlap['val']} of its examples are among those that chose the weights")
    return "; ".join(said)
