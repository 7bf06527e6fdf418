"""Another system's predictions as cells: scored like our own, with nothing trained.

An import is a folder of outputs/ of its own, in which each file of the system is a cell, by seed;
`keyseg report SWEEP IMPORT` sets them beside the cells of a sweep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from keyseg.config import ConfigError, flatten
from keyseg.data.assignment import of_each
from keyseg.data.example import Example
from keyseg.data.files import DataError
from keyseg.data.masks import encode_rle
from keyseg.data.predictions.matching import Matched
from keyseg.data.predictions.prediction import ForeignPrediction
from keyseg.data.predictions.reading import PredictionFile
from keyseg.data.protocol import of_data
from keyseg.metrics import intersection_union, iou, summarise
from keyseg.runs import disk, imported, sweep_directory
from keyseg.runs.run_directory import DONE, Row, RunDirectory, now

AS_EMPTY, REFUSED = "empty", "error"
"""What becomes of an example without a prediction."""


@dataclass(frozen=True)
class Import:
    """One file of a system, matched. `data`: the data group, whose test is what was asked for."""

    system: str
    file: PredictionFile
    matched: Matched
    data: Mapping[str, Any]
    texts: str
    protocol: str
    said_by: str
    seed: int
    missing: str = REFUSED

    @property
    def config(self) -> dict[str, Any]:
        """What is known of it: config.yaml. Of model, prompt and training nothing is."""
        return {
            "seed": self.seed,
            "data": dict(self.data),
            "evaluation": {"protocols": [self.protocol], "texts": self.texts},
            imported.IMPORTED: {"system": self.system, "sha256": self.file.sha256},
            "missing": self.missing,
        }

    @property
    def signature(self) -> str:
        """12 hex digits: a hash of the config without paths."""
        flat = {k: v for k, v in flatten(self.config).items() if not k.endswith("root")}
        text = json.dumps(flat, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def origin(self) -> dict[str, Any]:
        """What run.json says of where it is from."""
        whole = {"examples": len(self.matched.pairs), "without": len(self.matched.missing)}
        return {
            "system": self.system,
            "file": str(self.file.path),
            "form": self.file.form,
            "sha256": self.file.sha256,
            "said_by": self.said_by,
            **whole,
            "unmatched": len(self.matched.unknown),
            "missing": self.missing,
            "head": self.file.head,
        }


def samples(of: Import) -> pd.DataFrame:
    """Rows of samples.parquet, in the order of the examples.

    Raises:
        DataError: a mask is damaged or of another size; names its file and line.
    """
    by_id = {example.id: prediction for example, prediction in of.matched.pairs}
    kept = [example for example, _ in of.matched.pairs]
    if of.missing == AS_EMPTY:
        order = {e.id: e for e in [*kept, *of.matched.missing]}
        kept = list(order.values())
    if not kept:
        raise DataError(f"{of.file.path}: no prediction is of an example of the data")
    return pd.DataFrame([_row(e, by_id.get(e.id), of.protocol) for e in kept])


def _row(example: Example, prediction: ForeignPrediction | None, protocol: str) -> dict[str, Any]:
    target = example.mask()
    counts = _counted(prediction, target) if prediction else _drawn(None, target)
    return {
        **example.columns(protocol),
        **counts,
        "iou": float(iou(counts["intersection"], counts["union"])),
        "predicted_iou": float("nan")
        if not prediction or prediction.score is None
        else prediction.score,
        "keyword_rank": -1,
        "predicted_keyword": "",
        "top_words": "[]",
        "answer": (prediction.answer if prediction else None) or "",
        "has_seg": prediction is not None,
        "has_key": False,
        "key_asked": False,
        "height": target.shape[0],
        "width": target.shape[1],
        "target_rle": encode_rle(target == 1),
        "ignore_rle": encode_rle(target == 255) if (target == 255).any() else "",
        **_of_each(example, prediction, target),
    }


def _of_each(example: Example, prediction: ForeignPrediction | None, target: Any) -> dict[str, Any]:
    """What comes of matching a prediction's masks with its query's targets.

    Nothing of a query that has one mask, nor of a system that gives none.
    """
    if example.targets is None or (prediction and prediction.pixels):
        return {}
    each = prediction.drawn_each() if prediction else ()
    masks = [draw(*target.shape) == 1 for draw in each]
    assignment = of_each(masks, example.masks() if example.targets else [])
    return {**assignment, "keywords_known": 0, "keywords_right": 0}


def _counted(prediction: ForeignPrediction, target: Any) -> dict[str, Any]:
    if prediction.draw is not None:
        return _drawn(prediction, target)
    assert prediction.pixels is not None, "a prediction has a mask or sums"
    sums, area = prediction.pixels, int((target == 1).sum())
    where = prediction.where
    if sums.no_target != (area == 0):
        said = "none" if sums.no_target else "one"
        raise DataError(f"{where}: it says that there is {said} target, the data has {area} pixels")
    if sums.says_nothing:  # an empty mask says so here
        return {"intersection": 0, "union": area}
    if sums.intersection > area or sums.union < area:
        raise DataError(
            f"{where}: I {sums.intersection} and U {sums.union} do not go with a target of {area} "
            "pixels"
        )
    return {"intersection": sums.intersection, "union": sums.union}


def _drawn(prediction: ForeignPrediction | None, target: Any) -> dict[str, Any]:
    if prediction is None or prediction.draw is None:
        mask = target < 0
    else:
        mask = prediction.draw(*target.shape) == 1
    both, either = intersection_union(mask, target)
    return {"intersection": int(both), "union": int(either), "mask_rle": encode_rle(mask)}


def write(sweep_dir: Path, imports: Sequence[Import], command: str) -> list[RunDirectory]:
    """Write the cells of an import, beside those that its folder has; their run directories.

    Every mask is read before anything is written.

    Raises:
        DataError: see `samples`. ConfigError: the folder holds something else, or another file of
            this system under the same seed.
    """
    check(sweep_dir, imports)
    frames = [samples(each) for each in imports]
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with sweep_directory.lock(sweep_dir):
        before = check(sweep_dir, imports)
        pairs = zip(imports, frames, strict=True)
        runs = [_write_run(sweep_dir, each, frame) for each, frame in pairs]
        sweep_directory.write(sweep_dir, _design(sweep_dir.name, imports, command, before))
    return runs


def check(sweep_dir: Path, imports: Sequence[Import]) -> dict[str, Any]:
    """Whether these cells may stand in this folder; the sweep.json that it has.

    Raises:
        ConfigError: they may not.
    """
    before = sweep_directory.read(sweep_dir)
    runs = (RunDirectory(file.parent) for file in sweep_dir.glob("*/run.json"))
    if not before.get(imported.IMPORTED) and (before or any(not imported.of(r.info) for r in runs)):
        raise ConfigError(f"{sweep_dir} holds a sweep of our own: give the import another --name")
    cells = {cell["seed"]: cell for cell in before.get("cells") or []}
    for each in imports:
        cell = cells.get(each.seed)
        other = before and before.get(imported.IMPORTED) != each.system
        if other or (cell and cell["signature"] != each.signature):
            raise ConfigError(
                f"{sweep_dir} has seed {each.seed} of {before[imported.IMPORTED]} from another "
                "file or data: give --seed for another training, or --name for another import"
            )
    return before


def _write_run(sweep_dir: Path, each: Import, frame: pd.DataFrame) -> RunDirectory:
    run = RunDirectory(sweep_dir / each.signature)
    run.path.mkdir(exist_ok=True)
    disk.replace(run.config_file, yaml.safe_dump(each.config, sort_keys=False).encode())
    summary = {each.protocol: summarise(frame)}
    run.write_samples(frame)
    if not run.metrics_file.exists():
        moment = now()
        names = summary[each.protocol].items()
        run.log(Row(f"test/{each.protocol}/{name}", value, 0, moment) for name, value in names)
    run.update(
        signature=each.signature,
        status=DONE,
        label=imported.label(each.system),
        factors={imported.SYSTEM: each.system},
        seed=each.seed,
        sweep=sweep_dir.name,
        steps=0,
        tests=True,
        attempts=run.info.get("attempts") or [],
        summary=summary,
        protocol={**of_data(each.data, each.texts), "protocols": [each.protocol]},
        **{imported.IMPORTED: each.origin},
    )
    return run


def _design(
    name: str, imports: Sequence[Import], command: str, before: Mapping[str, Any]
) -> dict[str, Any]:
    """sweep.json: one variant, the system, with a cell for each file."""
    system = imports[0].system
    new = [imported.cell(system, each.signature, each.seed) for each in imports]
    known = {cell["signature"] for cell in new}
    cells = [c for c in before.get("cells") or [] if c["signature"] not in known]
    cells = sorted([*cells, *new], key=lambda cell: int(cell["seed"]))
    kept = {k: before[k] for k in ("started", "mlflow_parent") if k in before}
    return imported.design(name, system, command, cells) | kept
