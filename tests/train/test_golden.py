"""The numbers of a small run, kept: whoever moves code about sees whether they are still the same.

KEYSEG_UPDATE_GOLDEN=1 writes `golden.json` anew, for a change that is meant to change them. Numbers
are compared to a thousandth; where torch and the processor are those the file was written with, a
hash of the bits must be the same, too.
"""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from keyseg.config import signature
from keyseg.data.mix import ImageSampler, groups, load, load_splits
from keyseg.model.features import folder_name
from keyseg.train.build import build
from keyseg.train.evaluate import evaluate, in_order
from keyseg.train.trainer import Trainer

FILE = Path(__file__).parent / "golden.json"
OPTIONS = (
    "fusion=full",
    "model.precision=fp32",
    "optim.steps=2",
    "optim.warmup=0",
    "optim.eval_every=2",
    "runtime.log_every=1",
    "evaluation.max_new_tokens=6",
)
SIGNED = (
    "",
    "fusion=seg_only",
    "model=llava_1_5_7b",
    "model=llava_1_5_13b",
    "model/sam=vit_b",
    "model=bruegel",
)


def digest(*tensors):
    """Of the bits of all of them."""
    bits = hashlib.sha256()
    for tensor in tensors:
        bits.update(tensor.detach().contiguous().view(torch.uint8).numpy().data)
    return bits.hexdigest()[:16]


@pytest.fixture(scope="module")
def measured(small_run, compose_run, tmp_path_factory):
    """Losses of two steps, features, masks and answers, with their bits."""
    cfg = small_run(*OPTIONS)
    torch.manual_seed(cfg.seed)
    splits = load_splits(cfg.data)
    parts = build(cfg, torch.device("cpu"))
    sampler = ImageSampler(splits[0], cfg.seed, 2, 2)
    trainer = Trainer(parts, sampler, cfg, tmp_path_factory.mktemp("golden"))
    values = {
        f"{v.name} {v.step}": v.value
        for v in trainer.fit(lambda: {"giou": 0.0})
        if v.name.startswith(("train/", "gradient/")) and "seconds" not in v.name
    }
    parts.model.eval()
    images = groups(e for s in load(cfg.data, "test") for e in s.examples)
    batch = parts.collator(images[:2])
    with torch.no_grad():
        output = parts.model(batch)
    records = in_order(evaluate(parts, images[:2], cfg, "generated"), images[:2])
    logits, words = output.mask_logits, output.text_logits
    return {
        "values": values | {"mask": float(logits.std()), "words": float(words.std())},
        "answers": [record["answer"] for record in records],
        "bits": {
            "mask logits": digest(logits, output.predicted_iou),
            "text logits": digest(words, output.key_query),
            "features": digest(*frozen(batch.features)),
            "losses": hashlib.sha256(repr(values).encode()).hexdigest()[:16],
        },
        "stores": [folder_name(encoder) for encoder in parts.features.encoders],
        "signatures": {name: signature(compose_run(*filter(None, [name]))) for name in SIGNED},
        "made with": [torch.__version__, torch.backends.cpu.get_cpu_capability()],
    }


def frozen(features):
    return *features.language, *features.mask


@pytest.fixture(scope="module")
def golden(measured):
    if "KEYSEG_UPDATE_GOLDEN" in os.environ:
        FILE.write_text(json.dumps(measured, indent=1) + "\n")
    return json.loads(FILE.read_text())


def test_losses_gradients_and_logits_are_what_they_were(measured, golden):
    assert measured["values"] == pytest.approx(golden["values"], rel=1e-3, abs=1e-5)


def test_bits_are_what_they_were_where_they_can_be(measured, golden):
    if measured["made with"] != golden["made with"]:
        pytest.skip("another torch or processor")
    assert measured["bits"] == golden["bits"]
    assert measured["answers"] == golden["answers"]


def test_features_that_were_stored_before_are_found(measured, golden):
    assert measured["stores"] == golden["stores"]


def test_signatures_are_what_they_were(measured, golden):
    assert measured["signatures"] == golden["signatures"]
