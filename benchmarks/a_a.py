"""Real A/A: seeds of one cell, split into two sides at random, as if they were two variants.

    python run.py -m fusion=no_key 'seed=range(0,20)' optim.steps=120 name=a_a \\
        'evaluation.protocols=[teacher_forced]'
    python benchmarks/a_a.py outputs/a_a                    500 splits, minutes

Each split divides all seeds into two halves at random and gives the report five of each, as seeds 0
to 4 of two variants. Both sides are the same cell, so "better" and "worse" are wrong. ("smaller
than" says that a difference is within the margin, by an interval without 0.) The whole halves say
how far the two sides of this split are apart in fact; a "no difference larger than the margin" is
contradicted where that is larger. At most 5 % of each are wanted. Splits overlap, so their number
says nothing of how sure the shares are: 20 trainings do. The last line is one JSON object.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from keyseg.report import store
from keyseg.report.stats import scores
from keyseg.report.stats.margin import margins

SIDES = ("a", "b")
LEAST = 20


def side(label: str, cells: Sequence[store.CellResult]) -> store.VariantResult:
    """Cells as seeds 0, 1, ... of one variant; what was computed of them is kept."""
    named = []
    for seed, cell in enumerate(cells):
        made = replace(cell, label=label, seed=seed, factors={"side": label})
        vars(made).update(terms=cell.terms, convergence=cell.convergence)
        named.append(made)
    return store.VariantResult(label, SIDES.index(label), {"side": label}, tuple(named))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of one variant with many seeds")
    parser.add_argument("--splits", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5, help="that the report is given of a side")
    parser.add_argument("--metric", default="giou")
    given = parser.parse_args()
    whole = store.load(given.sweep)
    cells = [cell for variant in whole.variants for cell in variant.finished]
    if len(whole.variants) != 1 or len(cells) < 2 * given.seeds:
        raise SystemExit(
            f"{given.sweep}: {len(whole.variants)} variants and {len(cells)} finished cells; give "
            f"the folder of one variant with at least {2 * given.seeds} seeds, better {LEAST}"
        )
    protocol = whole.headline
    value = {c.signature: c.summary(protocol, given.metric) for c in cells}
    design = {"baseline": {"side": "b"}, "metrics": [given.metric]}
    margin = margins(design)[given.metric]
    rng, half = np.random.default_rng(0), len(cells) // 2
    said, called, contradicted, excluding = Counter[str](), 0, 0, 0
    for number in range(given.splits):
        order = [cells[i] for i in rng.permutation(len(cells))]
        halves = dict(zip(SIDES, (order[:half], order[half : 2 * half]), strict=True))
        sweep = store.Sweep(
            given.sweep,
            design,
            tuple(side(label, halves[label][: given.seeds]) for label in SIDES),
        )
        held = scores.contrasts(sweep, number)
        row = held[(held["metric"] == given.metric) & (held["protocol"] == protocol)].iloc[0]
        word = str(row["verdict"])
        said[word] += 1
        called += int(word in ("better", "worse"))
        excluding += int(row["low"] > 0 or row["high"] < 0)
        apart = [np.mean([value[c.signature] for c in halves[label]]) for label in SIDES]
        contradicted += int(word == "no difference" and abs(apart[0] - apart[1]) > margin)
    claims = said["no difference"]
    print("\n".join(f"{100 * n / given.splits:5.1f} %  {word}" for word, n in said.most_common()))
    print(
        json.dumps(
            {
                "sweep": whole.name,
                "seeds": len(cells),
                "a_side": given.seeds,
                "splits": given.splits,
                "metric": given.metric,
                "sd_over_seeds": round(100 * float(np.std(list(value.values()), ddof=1)), 3),
                "margin": 100 * margin,
                "verdicts": dict(said),
                "better_or_worse": called / given.splits,
                "intervals_without_zero": excluding / given.splits,
                "no_difference_contradicted": contradicted / claims if claims else None,
            }
        )
    )


if __name__ == "__main__":
    main()
