"""Training on random backbones and a dozen pictures: every option, and the same numbers again."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keyseg.config import PROJECT
from keyseg.data.mix import ImageSampler, groups, load_splits
from keyseg.model.manifest import UntrainedModuleError
from keyseg.train.build import build, with_others
from keyseg.train.evaluate import evaluate
from keyseg.train.trainer import (
    DivergedError,
    Trainer,
    compute_losses,
    learning_rate,
    load_trainable,
    make_optimizer,
)

GROUPS = ("fusion", "loss", "optim", "evaluation", "prompt")
FILES = [
    f"{group}={file.stem}"
    for group in GROUPS
    for file in sorted((PROJECT / "experiments" / group).glob("*.yaml"))
]
OPTIONS = [
    ("model.tokens.order=seg_first",),
    ("model.tokens.state=previous",),
    ("model.tokens.order=seg_first", "model.tokens.state=previous"),
    ("model.tokens.n_keys=2",),
    ("model.tokens.n_keys=2", "fusion=cross"),
    ("model.tokens.n_keys=0", "fusion=self"),
    ("prompt.names_target=false",),
    ("model.tokens.key_init=null", "model.tokens.seg_init=null"),
    ("model.projection_layers=1",),
    ("model.lora.dropout=0.1", "model.lora.targets=[q_proj,v_proj]"),
    ("model.precision=bf16",),
    ("model.precision=bf16", "model.frozen=precision"),
    ("model.attention=eager", "model.gradient_checkpointing=full"),
    ("model.gradient_checkpointing=selective", "model.precision=bf16"),
    ("model.quantization=nf4", "model.precision=bf16"),
    ("model.init=random",),
    ("fusion=self", "fusion.residual=false"),
    ("fusion=full", "fusion.residual=cross"),
    ("loss.keyword.weight=0",),
    ("loss.keyword.similarity=cosine", "loss.keyword.temperature=0.07"),
    ("loss.keyword.target=all",),
    ("loss.keyword.table=trained",),
    ("loss.text=0", "loss.bce=0", "loss.dice=0"),
    ("loss.bce=0", "loss.dice=0"),
    ("loss.resolution=decoder",),
    ("optim.schedule=constant", "optim.warmup=0", "optim.clip=0"),
    ("model.tokens.rows=all", "model.precision=bf16", "model.frozen=precision"),
    (
        "fusion=released",
        "model.shared_projection=true",
        "loss.keyword.table=projected",
        "model.tokens.rows=all",
        "loss.void=background",
        "loss.dice_smooth=1e-3",
        "model.clip_view=pad",
        "data.draw=uniform",
    ),
    ("model.shared_projection=true", "loss.keyword.table=projected", "loss.bce=0", "loss.dice=0"),
]


class KilledError(Exception):
    """The process is gone at this point."""


class Killer(ImageSampler):
    """Ends the run where a given step would begin."""

    last = math.inf

    def step(self, n):
        if n >= self.last:
            raise KilledError
        return super().step(n)


class Read(TorchDispatchMode):
    """Counts tensors of one number that are read, as `float` and `item` do."""

    scalars = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.scalars += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def trainer(small_run, tmp_path):
    """A fresh trainer and what scores its val split, as a new process would make them."""

    def make(folder, *overrides, last=math.inf):
        cfg = small_run(*overrides)
        torch.manual_seed(cfg.seed)
        splits = load_splits(cfg.data)
        every = ([e for s in split for e in s.examples] for split in splits)
        parts = with_others(build(cfg, torch.device("cpu")), *every)
        sampler = Killer(splits[0], cfg.seed, 2, 2)
        sampler.last = last
        checkpoints = tmp_path / folder
        checkpoints.mkdir(exist_ok=True)
        val = groups(e for s in splits[1] for e in s.examples)[:2]

        def validate():
            rows = list(evaluate(parts, val, cfg, "teacher_forced"))
            return {"giou": float(np.mean([r["iou"] for r in rows]))}

        return Trainer(parts, sampler, cfg, checkpoints), validate

    return make


SHORT = ("optim.steps=2", "optim.eval_every=2", "optim.checkpoint_every=2", "runtime.log_every=1")


def nameless(image):
    return replace(image, examples=[replace(e, keyword=None) for e in image.examples])


def test_a_first_step_that_names_nothing_ends_no_run(trainer, monkeypatch):
    made, validate = trainer("run", "fusion=full", *SHORT)
    step = made.sampler.step
    monkeypatch.setattr(
        made.sampler, "step", lambda n: step(n) if n else [nameless(i) for i in step(n)]
    )
    before = made.model.keyword_head.project.weight.clone()
    list(made.fit(validate))
    assert not torch.equal(before, made.model.keyword_head.project.weight)


def test_data_without_any_keyword_end_a_run_that_trains_them(trainer, monkeypatch):
    made, validate = trainer("run", "fusion=full", *SHORT)
    step = made.sampler.step
    monkeypatch.setattr(made.sampler, "step", lambda n: [nameless(i) for i in step(n)])
    made.sampler.groups = [[nameless(i) for i in source] for source in made.sampler.groups]
    with pytest.raises(UntrainedModuleError, match="keyword_head"):
        list(made.fit(validate))


@pytest.mark.parametrize(
    "options", [*((f,) for f in FILES), *OPTIONS], ids=lambda options: " ".join(options)
)
def test_every_option_trains_two_steps(trainer, options):
    made, validate = trainer("run", *options, *SHORT)
    before = {n: p.clone() for n, p in made.model.named_parameters()}
    values = list(made.fit(validate))
    assert all(math.isfinite(v.value) for v in values)
    for step in (1, 2):
        names = {v.name for v in values if v.step == step}
        asked = ["keyword"] * bool(made.cfg.model.tokens.n_keys)
        assert {f"train/{n}" for n in ("loss", "text", "bce", "dice", *asked)} <= names
        assert ("train/keyword" in names) == bool(asked)
    assert {v.step for v in values if v.name == "val/giou"} == {0, 2}
    for name, parameter in made.model.named_parameters():
        changed = not torch.equal(before[name], parameter)
        mean = made.optimizer.state.get(parameter, {}).get("exp_avg")  # of its gradients
        if not parameter.requires_grad:
            assert not changed, f"{name} is frozen and changed"
        elif mean is not None and mean.abs().max() > 1e-6:
            assert changed, f"{name} has a gradient and did not change"
    assert (made.folder / "last.pt").exists()
    assert (made.folder / "best.safetensors").exists()


def test_fp16_steps_once_its_gradients_do_not_overflow(trainer):
    """The scaler begins too high, leaves such steps out, and comes down."""
    made, validate = trainer("run", "model.precision=fp16", "model.frozen=precision", *SHORT)
    before = {n: p.clone() for n, p in made.model.named_parameters()}
    values = list(made.fit(validate))
    skipped = {v.step for v in values if not math.isfinite(v.value)}
    assert all(v.name.startswith("gradient/") for v in values if not math.isfinite(v.value))
    assert made.scaler.get_scale() == 65536 / 2 ** len(skipped)
    changed = any(not torch.equal(before[n], p) for n, p in made.model.named_parameters())
    assert changed == (len(skipped) < 2)


LONG = (
    "optim.steps=6",
    "optim.warmup=2",
    "optim.checkpoint_every=2",  # the logging window is cut by every checkpoint
    "optim.eval_every=3",
    "runtime.log_every=4",
    "model.lora.dropout=0.1",  # so that the random state matters
    "optim.lr=1e-3",
)


def measured(values):
    return [(v.name, v.value, v.step) for v in values if v.name != "train/seconds_per_step"]


@pytest.fixture
def uninterrupted(trainer):
    made, validate = trainer("whole", *LONG)
    values = measured(made.fit(validate))
    made.load_best()
    assert {s for _, _, s in values} == {0, 3, 4, 6}
    return values, {n: p for n, p in made.model.named_parameters() if p.requires_grad}


def test_the_same_seed_twice(trainer, uninterrupted):
    made, validate = trainer("again", *LONG)
    assert measured(made.fit(validate)) == uninterrupted[0]
    other, validate = trainer("other", *LONG, "seed=1")
    assert measured(other.fit(validate)) != uninterrupted[0]


def test_killed_at_every_kind_of_step_and_continued(trainer, uninterrupted):
    """Before the first checkpoint, between two, right behind one, and twice at the same place."""
    values, weights = uninterrupted
    kept = []
    for last, resumed in ((1, 0), (3, 0), (3, 2), (5, 2), (6, 4)):
        made, validate = trainer("killed", *LONG, last=last)
        assert made.resume() == resumed
        kept = [v for v in kept if v[2] <= (resumed or -1)]  # as the run directory drops them
        try:
            for value in made.fit(validate):
                kept += measured([value])
        except KilledError:
            assert last < 6
    assert kept == values
    made.load_best()
    trained = {n: p for n, p in made.model.named_parameters() if p.requires_grad}
    assert trained.keys() == weights.keys()
    assert all(torch.equal(p, weights[n]) for n, p in trained.items())


def test_stopped_between_two_values_and_continued(trainer, uninterrupted):
    """Whoever reads the values may stop at any of them: the generator is closed there."""
    made, validate = trainer("closed", *LONG)
    kept, running = [], made.fit(validate)
    for value in running:
        kept += measured([value])
        if value.name == "train/bce" and value.step == 4:
            running.close()
    again, validate = trainer("closed", *LONG)
    resumed = again.resume()
    assert resumed == 2  # step 4's checkpoint comes after its values
    kept = [v for v in kept if v[2] <= resumed]
    kept += measured(again.fit(validate))
    assert kept == uninterrupted[0]


def test_a_finished_run_has_nothing_left_to_do(trainer):
    made, validate = trainer("run", *SHORT)
    list(made.fit(validate))
    again, validate = trainer("run", *SHORT)
    assert again.resume() == 2
    assert list(again.fit(validate)) == []


def test_the_best_weights_are_trained_ones_though_the_untrained_score_better(trainer):
    made, _ = trainer("run", *SHORT)
    before = {n: p.clone() for n, p in made.model.named_parameters() if p.requires_grad}
    falling = iter((0.9, 0.5))
    list(made.fit(lambda: {"giou": next(falling)}))
    assert made.best == 0.5
    trained = {n: p.clone() for n, p in made.model.named_parameters() if p.requires_grad}
    made.load_best()
    assert all(torch.equal(p, trained[n]) for n, p in made.model.named_parameters() if n in trained)
    assert any(not torch.equal(before[n], trained[n]) for n in trained)


def test_without_steps_the_model_is_measured_and_left_as_it_was_built(trainer):
    made, validate = trainer("run", *SHORT, "optim.steps=0")
    before = {n: p.clone() for n, p in made.model.named_parameters()}
    values = list(made.fit(validate))
    assert [(v.name, v.step) for v in values] == [("val/giou", 0)]
    made.load_best()
    assert all(torch.equal(p, before[n]) for n, p in made.model.named_parameters())


def test_a_nan_loss_stops_the_run(trainer):
    made, validate = trainer("run", *SHORT)
    with torch.no_grad():
        made.model.mask_head.decoder.mask_tokens.weight.fill_(math.nan)
    with pytest.raises(DivergedError, match=r"loss is nan at step 1: lower optim\.lr \(now "):
        list(made.fit(validate))


def test_logging_waits_for_the_device_once(trainer, monkeypatch):
    """On a GPU every number that is read by itself stops the queue of kernels."""
    made, validate = trainer("run", *SHORT)
    list(made.fit(validate))
    made._count = 1
    listed, of = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: listed.append(1) or of(self))
    with Read() as read:
        names = {value.name for value in made._log(1.0)}
    assert {"train/loss", "train/lr"} < names
    assert any(name.startswith("gradient/fusion") for name in names)
    assert (len(listed), read.scalars) == (1, 0)


def test_a_checkpoint_of_another_model_does_not_fit(trainer):
    made, _ = trainer("run", "fusion=self", *SHORT)
    other, _ = trainer("run", "fusion=cross", *SHORT)
    state = {n: p for n, p in made.model.named_parameters() if p.requires_grad}
    with pytest.raises(KeyError, match=r"does not fit this model: .*fusion"):
        load_trainable(other.model, state)


def test_the_best_weights_are_those_of_the_best_score(trainer):
    made, _ = trainer("run", *LONG)
    scores = iter([0.3, 0.5, 0.4])
    seen = []

    def validate():
        seen.append({n: p.clone() for n, p in made.model.named_parameters() if p.requires_grad})
        return {"giou": next(scores)}

    list(made.fit(validate))
    assert made.best == 0.5
    made.load_best()
    now = dict(made.model.named_parameters())
    assert all(torch.equal(p, now[n]) for n, p in seen[1].items())
    for other in (seen[0], seen[2]):
        assert any(not torch.equal(p, now[n]) for n, p in other.items())


def test_weight_0_is_logged_and_not_trained(trainer):
    """The keyword loss alone would move the head; with weight 0 it is measured all the same."""
    made, validate = trainer("run", "loss.keyword.weight=0", *SHORT)
    values = list(made.fit(validate))
    assert all(v.value > 0 for v in values if v.name == "train/keyword")
    assert not made.model.keyword_head.project.weight.requires_grad
    assert torch.equal(made.model.keyword_head.project.weight, torch.eye(192))


def test_losses_compare_masks_at_each_images_own_size(trainer):
    """A batch with images of different sizes: the mean over its masks, each counted once."""
    made, _ = trainer("run", *SHORT)
    batch = made.parts.collator(made.sampler.step(0))
    with torch.no_grad():
        output = made.model(batch)
        before = compute_losses(output, batch, made.cfg, made.model.frame).terms
    small = torch.nn.functional.interpolate
    row = batch.image_of == 0
    batch.sizes[0] = (64, 64)
    for n in row.nonzero().flatten().tolist():
        target = small(batch.masks[n][None, None].float(), (64, 64))[0, 0]
        batch.masks[n] = target.to(torch.uint8)
    with torch.no_grad():
        after = compute_losses(output, batch, made.cfg, made.model.frame).terms
    assert abs(float(after["bce"] - before["bce"])) < 0.1 * float(before["bce"])
    assert float(after["bce"]) != float(before["bce"])
    assert float(after["text"]) == float(before["text"])


def test_pixels_to_ignore_may_count_as_background(trainer):
    made, _ = trainer("run", *SHORT)
    batch = made.parts.collator(made.sampler.step(0))
    with torch.no_grad():
        output = made.model(batch)
        for mask in batch.masks:
            mask[:40] = 255

        def losses(void):
            made.cfg.loss.void = void
            terms = compute_losses(output, batch, made.cfg, made.model.frame).terms
            return {name: float(terms[name]) for name in ("bce", "dice")}

        skipped, counted = losses("skip"), losses("background")
        for mask in batch.masks:
            mask[mask == 255] = 0
        assert counted == losses("skip") != skipped


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", {1: 0.25, 2: 0.5, 4: 1.0, 5: 1.0, 9: 1.0, 14: 1.0}),
        ("linear", {1: 0.25, 2: 0.5, 4: 1.0, 5: 0.9, 9: 0.5, 14: 0.0}),
        (
            "cosine",
            {1: 0.25, 4: 1.0, 5: 0.5 * (1 + math.cos(math.pi / 10)), 9: 0.5, 14: 0.0},
        ),
    ],
)
def test_learning_rate(run_config, schedule, wanted):
    cfg = run_config.optim
    cfg.steps, cfg.warmup, cfg.schedule = 14, 4, schedule
    for step, factor in wanted.items():
        assert learning_rate(step, cfg) == pytest.approx(factor, abs=1e-12)


def test_the_rate_of_wsd_is_that_of_every_budget_until_it_decays(run_config):
    cfg = run_config.optim
    cfg.schedule, cfg.warmup, cfg.decay = "wsd", 4, 0.2
    short, long = (
        [learning_rate(step, cfg, end) for step in range(1, end + 1)] for end in (20, 40)
    )
    assert short[:16] == long[:16] == [0.25, 0.5, 0.75] + [1.0] * 13
    assert short[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert long[31] == 1.0
    assert long[-1] == pytest.approx(1 / 9)
    cfg.decay = 0
    assert learning_rate(20, cfg, 20) == 1.0


def test_a_training_ends_at_its_plateau_also_when_it_was_killed_on_the_way(trainer):
    options = (
        "optim.until=plateau",
        "optim.steps=40",
        "optim.schedule=wsd",
        "optim.decay=0.25",
        "optim.warmup=1",
        "optim.eval_every=1",
        "optim.checkpoint_every=1",
        "runtime.log_every=4",
    )

    def flat(of):
        return lambda: {"giou": 0.8 if of.step else 0.1}

    killed, _ = trainer("run", *options, last=7)
    with pytest.raises(KilledError):
        list(killed.fit(flat(killed)))
    again, _ = trainer("run", *options)
    assert again.resume() == 7
    rest = list(again.fit(flat(again)))
    # 4 evaluations of the last doubling are flat at step 6; the decay is a quarter of all steps
    assert again.step == again.end == 8
    assert {v.step for v in rest if v.name == "val/giou"} == {8}
    assert [v.step for v in rest if v.name == "train/loss"] == [8]
    done, _ = trainer("run", *options)
    done.resume()
    assert list(done.fit(flat(done))) == []

    rising, _ = trainer("rising", *options, "optim.steps=8")
    assert {v.step for v in rising.fit(lambda: {"giou": 0.1 * rising.step})} == set(range(9))
    constant, _ = trainer("constant", *options, "optim.schedule=constant", "optim.decay=0.2")
    values = list(constant.fit(flat(constant)))
    assert constant.step == 6  # nothing to decay
    assert [v.step for v in values if v.name == "train/loss"] == [4, 6]


def test_a_training_ends_where_val_has_not_risen_for_so_many_evaluations(trainer):
    """Killed on the way or not; the untrained score is none that had to be beaten."""
    options = (
        "optim.until=patience",
        "optim.patience=2",
        "optim.steps=30",
        "optim.schedule=linear",
        "optim.eval_every=2",
        "optim.checkpoint_every=1",
        "runtime.log_every=4",
    )
    scores = {0: 0.9, 2: 0.3, 4: 0.5, 6: 0.5, 8: 0.4}

    def of(made):
        return lambda: {"giou": scores[made.step]}

    killed, _ = trainer("run", *options, last=7)
    with pytest.raises(KilledError):
        list(killed.fit(of(killed)))
    again, _ = trainer("run", *options)
    assert again.resume() == 7
    rest = list(again.fit(of(again)))
    assert again.step == again.end == 8
    assert {v.step for v in rest if v.name == "val/giou"} == {8}
    done, _ = trainer("run", *options)
    done.resume()
    assert list(done.fit(of(done))) == []


def test_learning_rate_without_warmup(run_config):
    cfg = run_config.optim
    cfg.steps, cfg.warmup, cfg.schedule = 10, 0, "linear"
    assert learning_rate(1, cfg) == pytest.approx(0.9)


def test_each_part_learns_at_its_own_rate(trainer):
    rates = ("optim.lr=0.001", "optim.lr_fusion=0.002", "optim.lr_decoder=0.003")
    made, _ = trainer("run", "fusion=full", *SHORT, *rates)
    named = {p: n.partition(".")[0] for n, p in made.model.named_parameters()}
    found = {}
    for group in make_optimizer(made.model, made.cfg.optim).param_groups:
        for parameter in group["params"]:
            found.setdefault(named[parameter], set()).add(group["base"])
    new = ("fusion", "seg_projection", "key_projection", "context_projection", "keyword_head")
    assert found == {"vlm": {0.001}, "mask_head": {0.003}, **{n: {0.002} for n in new}}
