"""What the report says of planted effects, beside what is true of them.

    python run.py -m +sweeps=calibration
    python benchmarks/planted.py outputs/calibration        seconds

One line for each planted arm (docs/calibration.md): the verdict on gIoU under the headline
protocol, the difference with its interval, and whether it contradicts what is known. The size of
the eroded targets' effect is computed from the baseline's stored masks, pixel by pixel, without the
report. The last line is one JSON object.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from keyseg.data.masks import decode_rle
from keyseg.data.planted import eroded, is_eroded
from keyseg.metrics import intersection_union, iou
from keyseg.report import store
from keyseg.report.stats import scores
from keyseg.runs.run_directory import stored_config

KNOWN = {
    "twin": ("better", "worse"),
    "oracle": ("worse", "no difference"),
    "swapped_key": ("better", "no difference"),
    "wrong_masks": ("better",),
    "half_data": ("better",),
    "frozen_decoder": ("better",),
    "twice": ("worse",),
    "eroded": (),  # its size is known, which is more
}
"""Verdicts that contradict what is known of each arm."""


def exact(sweep: store.Sweep) -> tuple[float, bool]:
    """True difference of gIoU that erosion makes, and whether both arms drew the same masks."""
    arms = {v.label: {c.seed: c for c in v.finished} for v in sweep.variants}
    plain, touched = (arms[f"planted={name}"] for name in ("none", "eroded"))
    differences, alike = [], True
    for seed in plain.keys() & touched.keys():
        evaluation = stored_config(touched[seed].directory / "config.yaml")["evaluation"]
        rows = plain[seed].samples
        rows = rows[rows["protocol"] == sweep.headline]
        other = touched[seed].samples.set_index(["protocol", "id"])["mask_rle"][sweep.headline]
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


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="its folder, outputs/calibration")
    parser.add_argument("--seed", type=int, default=0, help="of the report's resamples")
    given = parser.parse_args()
    sweep = store.load(given.sweep)
    held = scores.contrasts(sweep, given.seed)
    held = held[(held["metric"] == "giou") & (held["protocol"] == sweep.headline)]
    found: dict[str, dict[str, object]] = {}
    for row in held.to_dict("records"):
        arm = str(row["label"]).removeprefix("planted=")
        if arm not in KNOWN or not row["seeds"]:
            continue
        points = {k: round(100 * float(row[k]), 4) for k in ("difference", "low", "high")}
        wrong = row["verdict"] in KNOWN[arm]
        found[arm] = {"verdict": row["verdict"], **points, "seeds": row["seeds"]}
        if arm == "eroded":
            true, alike = exact(sweep)
            found[arm] |= {"known": round(100 * true, 4), "same_masks": alike}
            wrong |= alike and not np.isclose(true, float(row["difference"]), atol=1e-9)
        found[arm]["contradicts"] = bool(wrong)
        print(f"{arm:15} {row['sentence']}{'   CONTRADICTS' if wrong else ''}")
    print(json.dumps({"sweep": sweep.name, "protocol": sweep.headline, "arms": found}))


if __name__ == "__main__":
    main()
