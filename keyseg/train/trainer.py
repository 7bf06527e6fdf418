"""Training of one cell: a generator of rows. Others record them.

Checkpoints hold everything that the rest of a run depends on (trainable parameters, optimiser,
random state, sums of the logging window, best score), so that a run that was killed at any step
ends with the same numbers as one that was not.

A step's images are divided among the processes, and a process's share into micro-batches. Each
loss counts by its part of what it is the mean of in the whole step, so that the sums are those of
one process with one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from keyseg.config import LossConfig, OptimConfig, RunConfig
from keyseg.data.ahead import ahead
from keyseg.data.mix import ImageSampler
from keyseg.model.fusion import Attention
from keyseg.model.keyseg import Output
from keyseg.model.manifest import assert_trained, gradient_norms, trainable
from keyseg.model.resample import Frame, at_decoder, to_original
from keyseg.runs.convergence import out_of_patience, settled
from keyseg.train.batch import Batch
from keyseg.train.build import Parts, autocast
from keyseg.train.checkpoints import read_best, read_last, write_best, write_last
from keyseg.train.distributed import ALONE, Processes, accumulating, shard_like, unsharded, whole
from keyseg.train.losses import Losses, Weighted, weigh, weighted_terms
from keyseg.train.schedule import decay_start, end_after, learning_rate
from keyseg.train.selection import SELECTED_BY


class Value(NamedTuple):
    """One measured value: its name, and the optimiser step (1-based)."""

    name: str
    value: float
    step: int


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class Stopped(RuntimeError):  # noqa: N818 (a state, not a mistake)
    """The run was asked to stop; its checkpoint is written."""


class Counts(NamedTuple):
    """How many of each the losses are means over: supervised tokens, masks, keywords, expressions.

    As a share: of what there is in the step. An expression counts once for each mask that it may
    ask for.
    """

    tokens: float
    masks: float
    keywords: float
    expressions: float

    @classmethod
    def of(cls, batch: Batch) -> Counts:
        """Those of a batch."""
        keywords = sum(bool(ids) for ids in batch.keyword_ids)
        return cls(len(batch.supervised), sum(batch.asked), keywords, len(batch.asked))

    def over(self, kind: str) -> float:
        """Of what a term is the mean over."""
        return float(getattr(self, kind))

    def share(self, total: Counts) -> Counts:
        """Of `total`; nothing of nothing is 0."""
        return Counts(*(mine / max(all_, 1) for mine, all_ in zip(self, total, strict=True)))


_WHOLE = Counts(1.0, 1.0, 1.0, 1.0)


def compute_losses(
    output: Output, batch: Batch, cfg: RunConfig, frame: Frame, share: Counts = _WHOLE
) -> Losses:
    """The terms of the loss on a batch, times its share of the step's.

    Masks are compared at the images' own sizes (as LISA does), or at the decoder's resolution:
    a sixteenth of the pixels at SAM's 1024, and thin parts may vanish from the target.
    """
    terms = weighted_terms(cfg.loss, objects=cfg.model.scores_objects)
    masks = _compared(output, batch, cfg.loss, frame)
    given: dict[str, tuple[Any, ...]] = {
        "tokens": (output.text_logits, batch.labels.flatten()[batch.supervised]),
        "keywords": (output, batch),
        "expressions": (output, batch),
    }

    def value(term: Weighted) -> Tensor:
        if term.term.over == "masks":
            if not masks:  # nothing is there: a gradient all the same, of nothing
                return output.mask_logits.sum() * 0.0
            return torch.cat([term(logits, targets) for logits, targets in masks]).mean()
        return term(*given[term.term.over])

    values = {term.name: share.over(term.term.over) * value(term) for term in terms}
    return weigh(values, {term.name: term.weight for term in terms})


def _compared(
    output: Output, batch: Batch, cfg: LossConfig, frame: Frame
) -> list[tuple[Tensor, Tensor]]:
    """Logits and targets (N, H, W) at the size at which they are compared, a pair for each size.

    Those that are trained (`Batch.asked`).
    """
    pairs = []
    for every, size in by_size(batch):
        if not (picked := [n for n in every if batch.asked[n]]):
            continue
        logits, targets = output.mask_logits[picked], torch.stack([batch.masks[i] for i in picked])
        if cfg.void == "background":
            targets = (targets == 1).to(targets.dtype)
        if cfg.resolution == "decoder":
            pairs.append(at_decoder(logits, targets, frame))
        else:
            pairs.append((to_original(logits, frame, size), targets))
    return pairs


def by_size(batch: Batch) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Masks grouped by the size (H, W) of their image."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for n, row in enumerate(batch.rows):
        by_shape.setdefault(batch.sizes[row], []).append(n)
    yield from ((picked, size) for size, picked in by_shape.items())


def make_optimizer(model: nn.Module, cfg: OptimConfig) -> torch.optim.AdamW:
    """AdamW with three rates: language model, mask decoder, and all that is new."""
    rates = {"vlm": cfg.lr, "mask_head": cfg.lr_decoder}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in trainable(model).items():
        groups.setdefault(rates.get(name.split(".")[0], cfg.lr_fusion), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": lr, "base": lr} for lr, p in groups.items()],
        betas=(cfg.betas[0], cfg.betas[1]),
        weight_decay=cfg.weight_decay,
    )


class Trainer:
    """State of one training run."""

    def __init__(
        self,
        parts: Parts,
        sampler: ImageSampler,
        cfg: RunConfig,
        folder: Path,
        processes: Processes = ALONE,
    ) -> None:
        """`folder`: of the checkpoints, which the first process writes."""
        self.parts = parts
        self.model = parts.model
        self.processes = processes
        self.forward = processes.parallel(self.model, cfg.runtime.sharding, self.model.vlm.layers())
        self.sampler = sampler
        self.cfg = cfg
        self.folder = folder
        self.device = next(self.model.parameters()).device
        self.optimizer = make_optimizer(self.model, cfg.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=cfg.model.precision == "fp16")
        self.step = 0
        self.saved_step = 0
        """Step of the last checkpoint: where a killed run goes on."""
        self.best = -math.inf
        self.end = cfg.optim.steps
        """The last step; `optim.until` may bring it nearer."""
        self._curve: list[tuple[int, float]] = []
        self._attentions = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, Attention) and not module.single
        }
        terms = weighted_terms(cfg.loss, objects=cfg.model.scores_objects)
        self._losses = ["loss", *(term.name for term in terms)]
        self._window = torch.zeros(len(self._losses), device=self.device)
        self._entropies = torch.zeros(len(self._attentions), device=self.device)
        self._count = 0
        self._unchecked = True
        """Whether no step has shown yet that each trainable module gets a gradient."""
        if not processes.first:  # dropout differs between processes; all else is the first one's
            torch.manual_seed(self._own_seed())
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._written: Future[None] | None = None

    def resume(self) -> int:
        """Load the last checkpoint if there is one; return its step.

        Raises:
            DamagedError: it is not what was written.
        """
        path = self.folder / "last.pt"

        def read() -> dict[str, Any] | None:
            return read_last(path) if path.exists() else None

        if (state := self.processes.led(read)) is not None:
            load_trainable(self.model, state["model"])
            self._load_optimizer(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.step = self.saved_step = state["step"]
            self._unchecked = False
            self.best = state["best"]
            self._curve = state.get("curve", [])  # not in checkpoints that are older than it
            if self.cfg.optim.until != "steps":  # a trunk's is that of another budget
                self.end = state.get("end", self.end)
            kept, self._count = state["window"], state["count"]
            self._window[: len(kept)] = kept.to(self.device)  # a term at weight 0 may have come
            self._load_random(state["random"])
        return self.step

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Restore the optimizer; its state is sharded like the parameters are."""
        numbered = enumerate(p for group in self.optimizer.param_groups for p in group["params"])
        for number, parameter in numbered:
            values = state["state"].get(number, {})
            for name, value in values.items():
                if name != "step":  # stays on the CPU
                    values[name] = shard_like(value, parameter)
        self.optimizer.load_state_dict(state)

    def _load_random(self, states: list[dict[str, Tensor | None]]) -> None:
        """Go on with the random state of this process; one that was not there begins anew."""
        if self.processes.rank >= len(states):
            torch.manual_seed(self._own_seed())
            return
        state = states[self.processes.rank]
        assert state["cpu"] is not None
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def _own_seed(self) -> int:
        words = np.random.SeedSequence([self.cfg.draws, self.step, self.processes.rank])
        return int(words.generate_state(1, np.uint64)[0] >> 1)

    def fit(
        self,
        validate: Callable[[], dict[str, float]],
        stop: Callable[[], bool] = lambda: False,
        branch: Callable[[], None] = lambda: None,
    ) -> Iterator[Value]:
        """Train to the last step; `validate` scores the val split.

        `stop` is asked after every step; once it says so, a checkpoint of that step is written.
        `branch` is called where a training of another length would branch off (`optim.schedule`
        wsd), with the checkpoint of that step written.

        Yields train/* and gradient norms every `log_every` steps, val/* before the first step
        (where the curves begin), every `eval_every` and at the end. No steps: nothing is trained.

        Raises:
            UntrainedModuleError: after the first step, a trainable module has no gradient.
            DivergedError: the loss is not finite.
            Stopped: `stop` said so before the last step.
        """
        optim = self.cfg.optim
        if self.step == 0:
            yield from self._validate(validate)
        self.model.train()
        clock = time.perf_counter()
        branches = decay_start(optim, self.end) if optim.schedule == "wsd" else 0
        if 0 < self.step == branches:  # what went on here was ended here
            branch()
        steps = ahead(self._make_batches, range(self.step + 1, self.end + 1))
        with closing(steps), self._writer:
            for batches in steps:
                self.step += 1
                self._train_step(batches)
                last = self.step == self.end
                if self._count == self.cfg.runtime.log_every or last:
                    seconds = time.perf_counter() - clock
                    yield from self._log(seconds)
                    clock = time.perf_counter()
                if self.step % optim.eval_every == 0 or last:
                    yield from self._validate(validate)
                    self.model.train()
                    self._settle()
                    if self.step == self.end and self._count:
                        yield from self._log(time.perf_counter() - clock)
                    clock = time.perf_counter()
                last = self.step == self.end
                stopping = not last and self.processes.any(stop())
                at_branch = self.step == branches
                if self.step % optim.checkpoint_every == 0 or last or stopping or at_branch:
                    self._save_last()
                if at_branch:
                    self._await_checkpoint()
                    branch()
                if last or stopping:
                    break
            self._await_checkpoint()
        if self.step < self.end:
            raise Stopped(f"stopped at step {self.step} of {self.end}, checkpoint written")

    def _settle(self) -> None:
        """Bring the end nearer where `optim.until` asks for it and val has flattened."""
        optim = self.cfg.optim
        if optim.until == "patience" and out_of_patience(self._curve, optim.patience):
            self.end = self.step
        at_full_rate = optim.schedule != "wsd" or self.step <= decay_start(optim, self.end)
        if optim.until == "plateau" and at_full_rate and settled(self._curve):
            self.end = end_after(self.step, optim)

    def load_best(self) -> None:
        """The weights with the best val score."""
        best = self.processes.led(lambda: read_best(self.folder / "best.safetensors"))
        load_trainable(self.model, best)

    def _make_batches(self, step: int) -> list[Batch]:
        """This process's micro-batches. An image's templates do not depend on whose it is."""
        if self.device.index is not None:
            torch.cuda.set_device(self.device)  # of this thread: memory is pinned for it
        images = self.sampler.step(step - 1)
        batches = []
        for part in self.processes.parts(len(images), self.cfg.runtime.accumulation):
            rngs = [np.random.default_rng([self.cfg.draws, step, position]) for position in part]
            batch = self.parts.collator([images[i] for i in part], rngs)
            batches.append(batch.pin_memory() if self.device.type == "cuda" else batch)
        return batches

    def _train_step(self, batches: list[Batch]) -> None:
        cfg = self.cfg
        counts = [Counts.of(batch) for batch in batches]
        total = Counts(*self.processes.sum([sum(column) for column in zip(*counts, strict=True)]))
        self.optimizer.zero_grad(set_to_none=True)
        row = torch.zeros(len(self._losses) + len(self._attentions), device=self.device)
        for number, (batch, count) in enumerate(zip(batches, counts, strict=True), start=1):
            with accumulating(self.forward, more=number < len(batches)):
                row += self._backward(batch.to(self.device), count.share(total))
        row = self.processes.add_up(row)
        losses = len(self._losses)
        self._window += row[:losses]  # stays on the device: read once per logging interval
        self._entropies = row[losses:]
        self._count += 1
        factor = learning_rate(self.step, cfg.optim, self.end)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        self.scaler.unscale_(self.optimizer)
        # a step may draw no mask, or name nothing; data without any keyword are told at once
        if self._unchecked and total.masks and (total.keywords or not self._has_keywords()):
            assert_trained(self.model)
            self._unchecked = False
        if cfg.optim.clip:
            nn.utils.clip_grad_norm_(trainable(self.model).values(), cfg.optim.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _has_keywords(self) -> bool:
        """Whether any training example has a keyword."""
        images = (image for source in self.sampler.groups for image in source)
        return any(any(e.keywords()) for image in images for e in image.examples)

    def _backward(self, batch: Batch, share: Counts) -> Tensor:
        """Add a micro-batch's gradients; its losses and its attentions' entropies as one row."""
        with autocast(self.cfg, self.device):
            output = self.forward(batch)
            losses = compute_losses(output, batch, self.cfg, self.model.frame, share)
        # gradients are averaged over the processes, and losses here are parts of a sum
        loss = losses.total * self.processes.count
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        entropies = [share.masks * module.entropy for module in self._attentions.values()]
        row = (losses.total.detach(), *losses.terms.values())
        return torch.stack([value.float() for value in (*row, *entropies)])

    def _validate(self, validate: Callable[[], dict[str, float]]) -> Iterator[Value]:
        self.model.eval()
        with unsharded(self.model):
            scores = validate()
        for name, value in scores.items():
            yield Value(f"val/{name}", value, self.step)
        self._curve.append((self.step, scores[SELECTED_BY]))
        # Untrained weights are where curves begin, not what came of a training: a variant that does
        # not beat them would be reported without the keywords that it learnt.
        counts = self.step > 0 or self.cfg.optim.steps == 0
        if counts and scores[SELECTED_BY] > self.best:
            self.best = scores[SELECTED_BY]
            self._save_best()

    def _log(self, seconds: float) -> Iterator[Value]:
        names = [f"train/{name}" for name in self._losses]
        means = dict(zip(names, self._window / self._count, strict=True))
        if not self.cfg.model.tokens.n_keys:
            del means["train/keyword"]  # not asked
        means |= {f"gradient/{name}": whole(norm) for name, norm in gradient_norms(self.model)}
        names = [f"entropy/{name}" for name in self._attentions]
        means |= dict(zip(names, self._entropies, strict=True))
        # The only place where training waits for the device: all numbers come at once.
        values = dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
        if not math.isfinite(loss := values["train/loss"]):
            raise DivergedError(
                f"loss is {loss} at step {self.step}: lower optim.lr "
                f"(now {self.cfg.optim.lr}) or optim.clip (now {self.cfg.optim.clip})"
            )
        values["train/seconds_per_step"] = seconds / self._count
        values["train/lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        for name, value in values.items():
            yield Value(name, value, self.step)
        self._window = torch.zeros_like(self._window)
        self._count = 0

    def _save_last(self) -> None:
        """Copy the state now and write it while training goes on."""
        self._await_checkpoint()
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        random = self.processes.gather([{"cpu": torch.get_rng_state(), "cuda": cuda}])
        state = _copied(
            {
                "model": {k: v.detach() for k, v in trainable(self.model).items()},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "step": self.step,
                "best": self.best,
                "end": self.end,
                "curve": self._curve,
                "window": self._window,
                "count": self._count,
                "random": random,
            }
        )
        if not self.processes.first:
            self.saved_step = self.step
            return

        def write() -> None:
            write_last(self.folder / "last.pt", state)
            self.saved_step = state["step"]

        self._written = self._writer.submit(write)

    def _await_checkpoint(self) -> None:
        """Until the last checkpoint is written; raises what its writing raised."""
        written, self._written = self._written, None
        if written:
            written.result()

    def _save_best(self) -> None:
        state = {k: whole(v.detach()).contiguous() for k, v in trainable(self.model).items()}
        if self.processes.first:
            write_best(self.folder / "best.safetensors", state)


def load_trainable(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put a checkpoint's parameters into the model; names must match exactly.

    Raises:
        KeyError: the checkpoint is of another model.
    """
    parameters = trainable(model)
    if state.keys() != parameters.keys():
        differing = sorted(state.keys() ^ parameters.keys())
        raise KeyError(f"checkpoint does not fit this model: {', '.join(differing[:5])} ...")
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(shard_like(value, parameters[name]))


def _copied(state: Any) -> Any:
    """Nested dicts and lists with their tensors whole, copied to the CPU."""
    if isinstance(state, Tensor):
        return whole(state.detach()).to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return state
