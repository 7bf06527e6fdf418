"""What does it lose to drop variants that are plainly behind at a small budget? Simulation.

    python benchmarks/dropping.py          three kinds of curves, two budgets (a minute)

Eight variants, three seeds, budgets of an eighth and a quarter of the largest; a variant goes when
it is more than 5, 10 or 20 points of gIoU behind another, as `ablation.drop_behind` does. Curves
rise alike, or one variant in ten or in four is late: it needs eight times as long. `best lost`:
sweeps in which the variant that is best in the end was dropped; `near lost`: in which one within 2
points of it was; `dropped`: of all variants, which saves the larger budgets of them. The last line
is one JSON object.
"""

import argparse
import json
import os
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

from keyseg.report.stats.drops_simulation import Curves, lost  # noqa: E402

KINDS = {"alike": 0.0, "1 in 10 late": 0.1, "1 in 4 late": 0.25}
BUDGETS = {"1/8": 1 / 8, "1/4": 1 / 4}
MARGINS = (0.05, 0.1, 0.2)


def main() -> None:
    """Print a line for each kind of curves, budget and margin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200, help="synthetic sweeps for each line")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start, lines = time.perf_counter(), []
    print("| curves | budget | points | best lost, % | near lost, % | dropped, % |")
    print("|---|---|--:|--:|--:|--:|")
    for kind, late in KINDS.items():
        for budget, share in BUDGETS.items():
            for margin in MARGINS:
                curves = Curves(late=late)
                found = lost(curves, share, margin, repeats=options.repeats, seed=options.seed)
                shares = [100 * x for x in (found.best, found.near, found.dropped)]
                entries = " | ".join(f"{x:.1f}" for x in shares)
                print(f"| {kind} | {budget} | {100 * margin:.0f} | {entries} |", flush=True)
                names = ("best", "near", "dropped")
                line = {"curves": kind, "budget": share, "margin": margin}
                lines.append(line | dict(zip(names, shares, strict=True)))
    facts = {"repeats": options.repeats, "seed": options.seed}
    print(json.dumps({**facts, "seconds": round(time.perf_counter() - start, 1), "lines": lines}))


if __name__ == "__main__":
    main()
