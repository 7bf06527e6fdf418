"""What the report says of planted effects, beside what is true of them, or expected.

    python run.py -m +sweeps=calibration
    python benchmarks/planted.py outputs/calibration        seconds

One line for each planted arm (docs/calibration.md): what is known, whether the verdict on gIoU
under the headline protocol agrees with it, contradicts it, or leaves it open, and the verdict. The
size of what erosion does is summed up from the baseline's stored masks, of the seeds that the
verdict rests on, without the statistics of the report; it shares with them how a mask is eroded and
what an IoU is. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keyseg.data.masks import decode_rle
from keyseg.data.planted import eroded, is_eroded
from keyseg.metrics import intersection_union, iou
from keyseg.report import store
from keyseg.report.stats import scores
from keyseg.report.stats.comparison import seed_table
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.verdict import NO_DIFFERENCE, SMALLER_THAN
from keyseg.runs.run_directory import stored_config

NONE, SIZE = "none", "size"
ABOVE, BELOW, NOT_ABOVE, NOT_BELOW = "above", "below", "not above", "not below"
KNOWN = {"twin": NONE, "eroded": SIZE, "half_eroded": SIZE}
"""Effects that are known, because they were made."""
EXPECTED = {
    "oracle": ABOVE,
    "swapped_key": BELOW,
    "wrong_masks": NOT_ABOVE,
    "half_data": NOT_ABOVE,
    "frozen_decoder": NOT_ABOVE,
    "twice": NOT_BELOW,
}
"""Effects that a method which works is expected to show."""
AGREES, CONTRADICTS, OPEN = "agrees", "contradicts", "open"


def direction(row: Mapping[str, Any]) -> int:
    """1 or -1 where the verdict sees a difference, a small one, too; else 0."""
    if row["verdict"] in ("better", "worse"):
        return 1 if row["verdict"] == "better" else -1
    return int(np.sign(row["difference"])) if row["verdict"] == SMALLER_THAN else 0


def outcome(row: Mapping[str, Any], truth: str, size: float = 0.0) -> str:
    """Whether a verdict agrees with what is true, contradicts it, or leaves it open.

    A difference within the margin is true of a small effect whatever its sign: only the other
    direction contradicts a sign. `size`: the true difference, of `SIZE`.
    """
    seen, equal = direction(row), row["verdict"] == NO_DIFFERENCE
    if truth == NONE:
        return CONTRADICTS if seen else AGREES if equal else OPEN
    if truth == SIZE:
        bounded = equal or row["verdict"] == SMALLER_THAN
        if seen == -np.sign(size) or (bounded and abs(size) >= row["margin"]):
            return CONTRADICTS
        return AGREES if seen or bounded else OPEN
    sign = 1 if truth in (ABOVE, NOT_BELOW) else -1
    if seen == -sign:
        return CONTRADICTS
    return AGREES if seen == sign or (equal and truth.startswith("not")) else OPEN


def exact(contrast: Contrast, protocol: str) -> tuple[float, bool]:
    """True difference of gIoU that erosion makes, and whether both arms drew the same masks."""
    differences, alike = [], True
    paired = seed_table(contrast, protocol)
    assert paired is not None
    for index in paired.kept:
        arms = {part.cell.label: part.cell for part in paired.sets[index]}
        plain, touched = arms[contrast.against.label], arms[contrast.of.label]
        evaluation = stored_config(touched.directory / "config.yaml")["evaluation"]
        rows = plain.samples[plain.samples["protocol"] == protocol]
        other = touched.samples.set_index(["protocol", "id"])["mask_rle"][protocol]
        alike &= bool((other.loc[rows["id"]].to_numpy() == rows["mask_rle"].to_numpy()).all())
        change = np.zeros(len(rows))
        for n, row in enumerate(rows.to_dict("records")):
            if is_eroded(row["id"], evaluation["eroded"]):
                size = row["height"], row["width"]
                mask, target, void = (
                    decode_rle(row[f"{name}_rle"], *size) for name in ("mask", "target", "ignore")
                )
                target = eroded(np.where(void == 1, 255, target), evaluation["eroded_by"])
                change[n] = iou(*intersection_union(mask == 1, target)) - row["iou"]
        differences.append(float(change.mean()))
    return float(np.mean(differences)), alike


def judged(row: Mapping[str, Any], arm: str, contrast: Contrast) -> dict[str, object]:
    """What was said of an arm, and whether it is so."""
    points = {k: round(100 * float(row[k]), 4) for k in ("difference", "low", "high")}
    truth = KNOWN.get(arm) or EXPECTED[arm]
    facts: dict[str, object] = {
        "effect": truth,
        "known": arm in KNOWN,
        "verdict": row["verdict"],
        "at": row["at"],
        **points,
        "seeds": row["seeds"],
    }
    if truth != SIZE:
        return facts | {"outcome": outcome(row, truth)}
    size, alike = exact(contrast, str(row["protocol"]))
    if not alike:  # other masks, so other sizes: nothing is known here
        return facts | {"same_masks": False, "outcome": OPEN}
    right = np.isclose(size, float(row["difference"]), atol=1e-9)
    result = outcome(row, SIZE, size) if right else CONTRADICTS
    return facts | {"size": round(100 * size, 4), "same_masks": True, "outcome": result}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path, help="its folder, outputs/calibration")
    parser.add_argument("--seed", type=int, default=0, help="of the report's resamples")
    given = parser.parse_args()
    sweep = store.load(given.sweep)
    by_name = {contrast.name: contrast for contrast in declared(sweep)}
    rows = scores.contrasts(sweep, given.seed)
    rows = rows[(rows["metric"] == "giou") & (rows["protocol"] == sweep.headline)]
    arms: dict[str, dict[str, object]] = {}
    for record in rows.to_dict("records"):
        row = {str(column): value for column, value in record.items()}
        arm = str(row["label"]).removeprefix("planted=")
        if arm not in KNOWN | EXPECTED or not row["seeds"]:
            continue
        arms[arm] = judged(row, arm, by_name[row["contrast"]])
        effect = str(arms[arm]["effect"])
        if "size" in arms[arm]:
            effect = f"{arms[arm]['size']:+.3f} points"
        word = "known" if arms[arm]["known"] else "expected"
        print(f"{arm:15} {word}: {effect:15} {arms[arm]['outcome']:12} {row['sentence']}")
    outcomes = [arm["outcome"] for arm in arms.values()]
    counts = {each: outcomes.count(each) for each in (AGREES, OPEN, CONTRADICTS)}
    result = {"benchmark": "planted", "sweep": sweep.name, "protocol": sweep.headline}
    print(json.dumps({**result, **counts, "arms": arms}))


if __name__ == "__main__":
    main()
