"""Finished runs on other data than their own test: what is asked, what is there, what is stale.

Loads no torch: the work itself is `keyseg.worker.evaluation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from keyseg.config import PROTOCOLS, ConfigError, RunConfig, flatten, resolve_path
from keyseg.model.backbones.weights import check_trained_on, check_weights, weights_fingerprint
from keyseg.runs import code, evaluations
from keyseg.runs.evaluations import TestSet
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.stale import ASK, KEEP, RERUN, asked


@dataclass(frozen=True)
class Task:
    """A run, a test set, a protocol. `cfg`: the run's config with the data in place of its own.

    `of`: what the results will depend on (`evaluations.OF`); "" for data that is not made yet.
    """

    run: RunDirectory
    of_set: TestSet
    protocol: str
    cfg: RunConfig
    of: Mapping[str, str]

    @property
    def title(self) -> str:
        """Of a line about it."""
        info = self.run.info
        label = f"{info.get('label') or self.run.path.name}, seed {info.get('seed')}"
        return f"{label}, on {self.of_set.title}, {self.protocol.replace('_', ' ')}"

    @property
    def code(self) -> code.Code:
        """The code that it depends on."""
        return code.of(code.targets(self.cfg), code.EVALUATION)

    def before(self) -> Mapping[str, str] | None:
        """What the results depend on that are there; None without any."""
        stored = evaluations.known(self.run, self.of_set, self.protocol)
        return stored and stored["of"]

    def reasons(self) -> list[str]:
        """Why results that are there are stale; [] where they are not, or are none."""
        before = self.before()
        if before is None or not self.same_question(before):
            return []
        reasons = []
        for what in ("data", "weights"):
            if self.of[what] not in ("", before.get(what)):
                reasons.append(f"other {what}: {before.get(what)} then, {self.of[what]} now")
        if before.get("code") != self.of["code"]:
            parts = code.parts_of(evaluations.folder(self.run, self.of_set))
            changed = code.differences(parts, self.code.parts) or ["definitions not recorded"]
            reasons.insert(0, f"other code: {code.listed(changed)}")
        return reasons

    def same_question(self, before: Mapping[str, str]) -> bool:
        """Whether results are of these weights, asked like this: else they are simply replaced."""
        return all(before.get(what) == self.of[what] for what in ("checkpoint", "asked"))

    def done(self) -> bool:
        """Whether results are there, stale or not, of these weights and asked like this."""
        before = self.before()
        return before is not None and self.same_question(before)


def tasks(
    run: RunDirectory,
    of_set: TestSet,
    data: Mapping[str, Any],
    given: RunConfig,
    changed: Sequence[str],
) -> list[Task]:
    """What a run is asked on a test set, a task for each protocol.

    Args:
        data: the `data` group, whose test is what is meant (`keyseg.data.split.as_test`).
        given: the config that the command composes.
        changed: its keys that take the place of the run's own: "prompt", "evaluation.texts".

    Raises:
        ConfigError: the backbones are missing, or not those that the run was trained on.
    """
    own = run.config
    evaluation = replace(own.evaluation, eroded=0.0, intervention="")
    for key in changed:
        group, _, name = key.partition(".")
        if group == "evaluation":
            evaluation = replace(evaluation, **{name: getattr(given.evaluation, name)})
    prompt = given.prompt if any(k.partition(".")[0] == "prompt" for k in changed) else own.prompt
    cfg = replace(own, data=dict(data), evaluation=evaluation, prompt=prompt)
    check_weights(cfg)
    check_trained_on(cfg, run.info)
    from keyseg.data import identity  # loads numpy

    of = {
        "checkpoint": str(run.info.get("checkpoint_fingerprint")),
        "data": identity.fingerprint(cfg.data, resolve_path(cfg.paths.data)) or "",
        "weights": weights_fingerprint(cfg),
        "code": code.of(code.targets(cfg), code.EVALUATION).fingerprint,
        "asked": _asked(cfg),
    }
    protocols = evaluation.protocols or list(PROTOCOLS[:1])
    return [Task(run, of_set, protocol, cfg, of) for protocol in protocols]


def _asked(cfg: RunConfig) -> str:
    """16 hex digits of how a test set is read: the keys of its data but for places, the prompt."""
    data = {
        k: v
        for k, v in flatten(cfg.data).items()
        if k.rpartition(".")[2] != "root" and not k.startswith("prepare.")
    }
    prompt = asdict(cfg.prompt) | {"name": ""}
    limits = [cfg.evaluation.texts, cfg.evaluation.max_new_tokens]
    content = json.dumps([data, prompt, limits], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def decide(wanted: Sequence[Task], choice: str) -> tuple[list[Task], list[str]]:
    """The tasks that are to be read, and what to say of the others.

    Args:
        choice: what becomes of stale results: ask, rerun or keep.

    Raises:
        ConfigError: some are stale and nobody said what to do.
    """
    if choice not in (ASK, RERUN, KEEP):
        raise ConfigError(f"stale={choice}: must be one of {ASK}, {RERUN}, {KEEP}")
    stale = {i: reasons for i, task in enumerate(wanted) if (reasons := task.reasons())}
    if stale and choice == ASK:
        head = f"{len(stale)} of {len(wanted)} evaluations are stale"
        choice = asked(head, [f"{wanted[i].title}: {'; '.join(why)}" for i, why in stale.items()])
    todo, lines = [], []
    for i, task in enumerate(wanted):
        why = stale.get(i)
        if task.done() and (why is None or choice == KEEP):
            kept = f" (kept though stale: {'; '.join(why)})" if why else ""
            lines.append(f"{task.title}: done already{kept}")
        else:
            todo.append(task)
    return todo, lines
