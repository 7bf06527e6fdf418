"""What MLflow takes for a name or a value, and the tags by which runs of ours are told apart."""

from __future__ import annotations

import re

LONGEST_PARAM, LONGEST_TAG = 6000, 5000
"""Longest values that every MLflow store takes, in characters."""

IDENTITY = "keyseg.run"
"""Tag with the `id` of run.json or sweep.json: by it a run is found again."""

KIND = "keyseg.kind"
"""Tag that tells runs from what sums them up: one of the three."""
CELL, VARIANT, SWEEP = "cell", "variant", "sweep"

_SECTIONS = ("contrast", "system", "train", "val")
"""What may stand before the first slash: a parent has contrasts alone, and MLflow shows the load of
the machine (`system`) on a page of its own."""


def param_name(key: str) -> str:
    """A key of a config as MLflow takes it: `precision@0.5` becomes `precision_at_0.5`."""
    return re.sub(r"[^/\w.\- :]", "_", key.replace("@", "_at_"))


def name_of(name: str) -> str:
    """The metric that a row is in MLflow.

    MLflow makes a section of charts of what stands before the last slash, in the order of the
    alphabet, and of names without a slash the last one. Losses and val shall come first: what tells
    of the weights, gradients and the entropy of attention, is `weights/gradient/...`, and of the
    test split, one number each, `test/PROTOCOL/giou` is `giou.test.PROTOCOL`, which also reads well
    as the head of a narrow column.
    """
    group, slash, _ = name.partition("/")
    if match := re.fullmatch(r"test/([^/]+)/([^/]+)", name):
        name = f"{match[2]}.test.{match[1]}"
    elif slash and group not in _SECTIONS:
        name = f"weights/{name}"
    return param_name(name)


def evaluated(measure: str, place: str) -> str:
    """The metric that a measure on other data is: `giou.refcoco.testA.teacher_forced`.

    It stands beside `giou.test.teacher_forced`, of the run's own test.
    """
    return param_name(f"{measure}.{place}")
