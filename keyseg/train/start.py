"""The beginning of a training at what another run has trained (`model.start`).

Parameters of the same name are taken; what the other run has not is new, as without a start; what
this model has not is left out. All three are told. Token by token: a token that both have keeps its
row, whatever number it goes by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.data.prompts import new_tokens
from keyseg.model.backbones.weights import weights_path
from keyseg.model.manifest import room, trainable
from keyseg.runs import disk
from keyseg.runs.run_directory import DamagedError, RunDirectory
from keyseg.train.build import Parts
from keyseg.train.checkpoints import read_best

_DELTA = ".token_adapter.trainable_tokens_delta.default"
"""How the name of the new tokens' rows ends; what stands before it names the table."""
_WHOLE = ".weight"
_TABLES = (f"embed_tokens{_WHOLE}", f"lm_head{_WHOLE}")
"""How the names of tables end of which all rows are trained."""


@dataclass(frozen=True)
class Start:
    """Where training begins. `taken`, `new`, `left_out`: parameters by row of the manifest."""

    run: str
    hash: str
    taken: Mapping[str, int]
    new: Mapping[str, int]
    left_out: Mapping[str, int]
    tokens: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(self).items()}

    def noted(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The manifest with a note on what is trained: from the start, new, or both."""
        return [
            {**row, "note": self._note(row["module"])} if row["trainable"] else dict(row)
            for row in rows
        ]

    def _note(self, module: str) -> str:
        parts = ["from the start"] if module in self.taken else []
        return ", ".join([*parts, *(["new"] if module in self.new else [])])

    def lines(self) -> list[str]:
        """For the log."""
        named = ((w, getattr(self, w.replace(" ", "_"))) for w in ("taken", "new", "left out"))
        said = "; ".join(f"{what}: {', '.join(of) or 'nothing'}" for what, of in named)
        tokens = ", ".join(f"{token} {how}" for token, how in self.tokens.items())
        return [f"begins from {self.run} ({self.hash}): {said}; rows: {tokens}"]


def begin(parts: Parts, cfg: RunConfig) -> Start | None:
    """Put what `model.start` trained into the model; None where it names nothing.

    Raises:
        ConfigError: the run is not what it was when the cell was submitted, or of other sizes.
    """
    choice = cfg.model
    if not choice.start:
        return None
    run = RunDirectory(resolve_path(choice.start))
    fingerprint = disk.sha256(run.best_file)[:16] if run.best_file.exists() else "nothing"
    if fingerprint != choice.start_hash:
        raise ConfigError(
            f"model.start={choice.start}: what it trained is not what it was at submit ("
            f"{fingerprint} now, {choice.start_hash} then): put it back, or submit again"
        )
    try:
        state = read_best(run.best_file)
    except DamagedError as error:
        raise ConfigError(f"model.start: {error}") from error
    state, tokens = _by_token(parts, cfg, run.config, state)
    own = trainable(parts.model)
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            raise ConfigError(
                f"model.start={choice.start}: {name} is {tuple(state[name].shape)} there and "
                f"{tuple(own[name].shape)} here: other sizes cannot be taken"
            )
    with torch.no_grad():
        for name in own.keys() & state.keys():
            own[name].copy_(state[name])
    return Start(
        choice.start,
        choice.start_hash,
        taken=_counted({n: p for n, p in own.items() if n in state}),
        new=_counted({n: p for n, p in own.items() if n not in state}),
        left_out=_counted({n: p for n, p in state.items() if n not in own}),
        tokens=tokens,
    )


def _counted(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, parameter in parameters.items():
        counts[room(name)] = counts.get(room(name), 0) + parameter.numel()
    return counts


def _by_token(
    parts: Parts, cfg: RunConfig, of: RunConfig, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state with each token's row where this model has it, and what became of each token."""
    ours, theirs = new_tokens(cfg.model.tokens), new_tokens(of.model.tokens)
    fates = {token: "kept" if token in theirs else "new" for token in ours}
    fates |= {token: "left out" for token in theirs if token not in ours}
    both = [token for token in ours if token in theirs]
    moved = dict(state)
    for name, own in trainable(parts.model).items():
        delta = name.removesuffix(_DELTA).removesuffix(_WHOLE) + _DELTA
        new_rows = state.get(delta)
        if name.endswith(_DELTA) and new_rows is not None:
            moved[name] = own.detach().clone()
            for token in both:
                moved[name][ours.index(token)] = new_rows[theirs.index(token)]
        elif name.endswith(_TABLES):
            base, here, there = _numbers(cfg, ours, theirs)
            rows = own.detach().clone()
            if new_rows is not None:  # it trained those alone
                moved.pop(delta)
                for token in both:
                    rows[here[token]] = new_rows[theirs.index(token)]
            elif name in state:
                rows[:base] = state[name][:base]
                for token in both:
                    rows[here[token]] = state[name][there[token]]
            moved[name] = rows
    return moved, fates


def _numbers(
    cfg: RunConfig, ours: Sequence[str], theirs: Sequence[str]
) -> tuple[int, dict[str, int], dict[str, int]]:
    """How many words the base knows, and the numbers of both sides' tokens behind it."""
    tokenizer = AutoTokenizer.from_pretrained(
        weights_path(cfg.model.language_weights), local_files_only=True
    )
    known = tokenizer.get_vocab()

    def numbered(tokens: Sequence[str]) -> dict[str, int]:
        fresh = [token for token in tokens if token not in known]
        added = {token: len(tokenizer) + place for place, token in enumerate(fresh)}
        return {token: known.get(token, added.get(token, 0)) for token in tokens}

    return len(tokenizer), numbered(ours), numbered(theirs)
